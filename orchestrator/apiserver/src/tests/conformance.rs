//! The `sig-api-machinery` conformance tests that Kubernetes has got since 1.20, as far as a server
//! without nodes shows them; the comment of each is the name of the one that it stands for. Those of custom
//! kinds are in `conformance_custom`, and these stand elsewhere:
//!
//! | conformance test | here |
//! |---|---|
//! | AdmissionWebhook should mutate everything except 'skip-me' configmaps | `webhooks`, `match_conditions_narrow_who_is_asked_and_fail_as_the_policy_says` |
//! | AggregatedDiscovery should support aggregated discovery interface; … raw aggregated discovery endpoint Accept headers | `discovery`, `discovery_is_the_golden_list_and_the_same_in_both_forms` |
//! | OrderedNamespaceDeletion namespace deletion should delete pod first | `tests/tests/namespaces.rs`, `what_protects_pods_outlives_them` |
//! | Servers … should support continue listing from the last key … | `lists`, `an_expired_token_is_exchanged_for_one_that_goes_on_with_what_is_there_now` |

use super::watches::Watcher;
use super::*;

/// A resource whose objects answer to every verb.
pub(super) struct Operations {
    pub group_version: &'static str,
    pub plural: &'static str,
    /// An object without a name.
    pub sample: Value,
    /// What is written to the status, where there is one.
    pub status: Option<Value>,
}

impl Operations {
    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group_version, self.plural)
    }

    fn object(&self, name: &str) -> Value {
        let mut object = self.sample.clone();
        object["metadata"] = json!({"name": name, "labels": {"test": "operations"}});
        object
    }

    /// Discovery, create, get, list, watch, patch, update, status, delete and delete of a collection.
    pub async fn are_supported(self) {
        let cluster = Cluster::start().await;
        self.are_discovered(&cluster).await;
        let path = self.path();
        let selected = format!("{path}?labelSelector=test%3Doperations");
        let mut watch = Watcher::open(&cluster, &format!("{selected}&watch=true"), "*/*").await;
        for name in ["a", "b", "c"] {
            cluster.post(&path, self.object(name)).await.expect(201);
            let event = watch.next().await.expect("an event");
            assert_eq!(
                (&event["type"], &event["object"]["metadata"]["name"]),
                (&json!("ADDED"), &json!(name))
            );
        }
        let one = format!("{path}/a");
        let mut got = cluster.get(&one).await.expect(200);
        let list = cluster.get(&selected).await.expect(200);
        assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
        let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
        got = {
            let patched = cluster.merge(&one, patch).await.expect(200);
            assert_eq!(patched["metadata"]["uid"], got["metadata"]["uid"]);
            patched
        };
        assert_eq!(watch.next().await.expect("an event")["type"], "MODIFIED");
        got["metadata"]["annotations"]["updated"] = "true".into();
        let updated = cluster.put(&one, got).await.expect(200);
        assert_eq!(
            updated["metadata"]["annotations"],
            json!({"patched": "true", "updated": "true"})
        );
        assert_eq!(watch.next().await.expect("an event")["type"], "MODIFIED");
        if let Some(status) = &self.status {
            let written = format!("{one}/status");
            let patch = json!({"status": status});
            cluster.merge(&written, patch).await.expect(200);
            let mut got = cluster.get(&written).await.expect(200);
            assert_eq!(&got["status"], status);
            got["metadata"]["annotations"]["of"] = "status".into();
            cluster.put(&written, got).await.expect(200);
            assert_eq!(watch.next().await.expect("an event")["type"], "MODIFIED");
        }
        cluster.delete(&one).await.expect(200);
        cluster.get(&one).await.expect(404);
        cluster.delete(&selected).await.expect(200);
        let list = cluster.get(&selected).await.expect(200);
        assert_eq!(list["items"], json!([]));
    }

    async fn are_discovered(&self, cluster: &Cluster) {
        let of_version = format!("/apis/{}", self.group_version);
        let list = cluster.get(&of_version).await.expect(200);
        let names: Vec<&str> = list["resources"]
            .as_array()
            .expect("resources")
            .iter()
            .filter_map(|resource| resource["name"].as_str())
            .collect();
        assert!(names.contains(&self.plural), "{names:?}");
        if self.status.is_some() {
            assert!(
                names.contains(&&*format!("{}/status", self.plural)),
                "{names:?}"
            );
        }
    }
}

/// API priority and fairness should support FlowSchema API operations
#[tokio::test]
async fn flow_schemas_support_all_operations() {
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "example"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/apis"]}]}]);
    Operations {
        group_version: "flowcontrol.apiserver.k8s.io/v1",
        plural: "flowschemas",
        sample: json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
            "spec": {"matchingPrecedence": 9000,
                "priorityLevelConfiguration": {"name": "catch-all"},
                "distinguisherMethod": {"type": "ByUser"}, "rules": rules}}),
        status: Some(
            json!({"conditions": [{"type": "Dangling", "status": "False",
            "reason": "E2E", "message": "Set by a test",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        ),
    }
    .are_supported()
    .await;
}

/// API priority and fairness should support PriorityLevelConfiguration API operations
#[tokio::test]
async fn priority_levels_support_all_operations() {
    Operations {
        group_version: "flowcontrol.apiserver.k8s.io/v1",
        plural: "prioritylevelconfigurations",
        sample: json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "PriorityLevelConfiguration", "spec": {"type": "Limited",
                "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}),
        status: Some(json!({"conditions": [{"type": "Tested", "status": "True",
            "reason": "E2E", "message": "Set by a test",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})),
    }
    .are_supported()
    .await;
}

fn policies(plural: &'static str, sample: Value, status: Option<Value>) -> Operations {
    Operations {
        group_version: ADMISSION,
        plural,
        sample,
        status,
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

fn config_maps_rule() -> Value {
    json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": ["CREATE"], "resources": ["configmaps"]}]})
}

/// ValidatingAdmissionPolicy should support ValidatingAdmissionPolicy API operations
#[tokio::test]
async fn validating_admission_policies_support_all_operations() {
    let sample = json!({"apiVersion": ADMISSION, "kind": "ValidatingAdmissionPolicy",
        "spec": {"matchConstraints": config_maps_rule(),
            "validations": [{"expression": "object.metadata.name != 'x'"}]}});
    let status = json!({"observedGeneration": 1, "typeChecking": {}, "conditions": [{"type": "Tested",
        "status": "True", "reason": "E2E", "message": "Set by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    policies("validatingadmissionpolicies", sample, Some(status))
        .are_supported()
        .await;
}

/// ValidatingAdmissionPolicy should support ValidatingAdmissionPolicyBinding API operations
#[tokio::test]
async fn bindings_of_validating_admission_policies_support_all_operations() {
    let sample = json!({"apiVersion": ADMISSION, "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    policies("validatingadmissionpolicybindings", sample, None)
        .are_supported()
        .await;
}

/// AdmissionWebhook should be able to create and update validating (mutating) webhook configurations with
/// match conditions
#[tokio::test]
async fn webhook_configurations_keep_their_match_conditions() {
    let cluster = Cluster::start().await;
    for (kind, plural) in [
        (
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
        ),
        (
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        ),
    ] {
        let conditions = json!([{"name": "expression-1", "expression": "object.metadata.namespace == 'production'"}]);
        let configuration = json!({"apiVersion": ADMISSION, "kind": kind,
            "metadata": {"name": "hooks"},
            "webhooks": [{"name": "a.k8s.io", "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["secrets"]}],
                "matchConditions": conditions}]});
        let path = format!("/apis/{ADMISSION}/{plural}");
        let mut made = cluster.post(&path, configuration).await.expect(201);
        assert_eq!(made["webhooks"][0]["matchConditions"], conditions);
        let changed = json!([{"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"}]);
        made["webhooks"][0]["matchConditions"] = changed.clone();
        let path = format!("{path}/hooks");
        cluster.put(&path, made).await.expect(200);
        let fresh = cluster.get(&path).await.expect(200);
        assert_eq!(fresh["webhooks"][0]["matchConditions"], changed);
    }
}

/// Discovery should locate the groupVersion and a resource within each APIGroup
#[tokio::test]
async fn every_group_version_is_discovered_with_usable_resources() {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await.expect(200);
    for group in groups["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            let asked = version["groupVersion"].as_str().expect("a group version");
            let list = cluster.get(&format!("/apis/{asked}")).await.expect(200);
            assert_eq!(list["groupVersion"], asked);
            let resources = list["resources"].as_array().expect("resources");
            assert!(!resources.is_empty(), "{asked}");
            for resource in resources {
                let words = ["name", "kind"].map(|field| resource[field].as_str());
                assert!(
                    words.iter().all(|word| word.is_some_and(|w| !w.is_empty())),
                    "{resource}"
                );
                assert!(
                    resource["verbs"].as_array().is_some_and(|v| !v.is_empty()),
                    "{resource}"
                );
            }
        }
    }
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}})
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// FieldValidation should detect unknown and duplicate fields of a typed object
#[tokio::test]
async fn unknown_and_duplicate_fields_of_a_typed_object_are_refused_when_asked_strictly() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let mut unknown = deployment();
    unknown["spec"]["unknownField"] = "x".into();
    let refused = cluster.post(&path, unknown).await;
    assert!(
        refused
            .message()
            .contains(r#"unknown field "spec.unknownField""#),
        "{}",
        refused.body
    );
    refused.expect(400);
    let twice = deployment().to_string().replacen(
        r#""spec":{"#,
        r#""spec":{"paused":true,"paused":true,"#,
        1,
    );
    let refused = cluster
        .call("POST", &path, "application/json", &json!(twice))
        .await;
    assert!(
        refused
            .message()
            .contains(r#"duplicate field "spec.paused""#),
        "{}",
        refused.body
    );
    refused.expect(400);
    cluster.post(&path, deployment()).await.expect(201);
}

/// FieldValidation should detect unknown metadata fields of a typed object
#[tokio::test]
async fn unknown_metadata_of_a_typed_object_is_refused_when_asked_strictly() {
    let cluster = Cluster::start().await;
    let mut unknown = deployment();
    unknown["metadata"]["unknownMeta"] = "x".into();
    unknown["spec"]["template"]["metadata"]["unknownMeta"] = "x".into();
    let path = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let refused = cluster.post(&path, unknown).await;
    for field in ["metadata.unknownMeta", "spec.template.metadata.unknownMeta"] {
        let text = format!("unknown field \"{field}\"");
        assert!(refused.message().contains(&text), "{}", refused.body);
    }
    refused.expect(400);
}

const NAMESPACES: &str = "/api/v1/namespaces";

async fn namespace(cluster: &Cluster, name: &str) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.post(NAMESPACES, object).await.expect(201)
}

/// Namespaces should apply an update to a Namespace
#[tokio::test]
async fn a_namespace_takes_an_update() {
    let cluster = Cluster::start().await;
    let mut object = namespace(&cluster, "n").await;
    object["metadata"]["labels"]["test"] = "updated".into();
    let updated = cluster
        .put(&format!("{NAMESPACES}/n"), object)
        .await
        .expect(200);
    assert_eq!(updated["metadata"]["labels"]["test"], "updated");
}

/// Namespaces should apply changes to a namespace status
#[tokio::test]
async fn the_status_of_a_namespace_takes_a_patch_and_an_update() {
    let cluster = Cluster::start().await;
    namespace(&cluster, "n").await;
    let path = format!("{NAMESPACES}/n/status");
    assert_eq!(
        cluster.get(&path).await.expect(200)["status"]["phase"],
        "Active"
    );
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "m"});
    let patch = json!({"status": {"conditions": [condition("StatusPatch")]}});
    let mut patched = cluster.merge(&path, patch).await.expect(200);
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatch");
    let mut both = patched["status"]["conditions"].clone();
    both.as_array_mut()
        .expect("a list")
        .push(condition("StatusUpdate"));
    patched["status"]["conditions"] = both;
    let updated = cluster.put(&path, patched).await.expect(200);
    assert_eq!(updated["status"]["conditions"][1]["type"], "StatusUpdate");
}

/// Namespaces should apply a finalizer to a Namespace
#[tokio::test]
async fn a_namespace_gains_and_loses_a_finalizer() {
    let cluster = Cluster::start().await;
    let mut object = namespace(&cluster, "n").await;
    let path = format!("{NAMESPACES}/n/finalize");
    let own = object["spec"]["finalizers"].clone();
    let fake = "e2e.example.com/fakeFinalizer";
    object["spec"]["finalizers"]
        .as_array_mut()
        .expect("a list")
        .push(fake.into());
    let mut object = cluster.put(&path, object).await.expect(200);
    assert_eq!(object["spec"]["finalizers"][1], fake);
    object["spec"]["finalizers"] = own.clone();
    let object = cluster.put(&path, object).await.expect(200);
    assert_eq!(object["spec"]["finalizers"], own);
}

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn quota(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": name, "labels": {"test": "quota"}},
        "spec": {"hard": {"cpu": "500m", "memory": "500Mi"}}})
}

/// ResourceQuota should manage the lifecycle of a ResourceQuota
#[tokio::test]
async fn a_quota_is_found_patched_and_goes_with_a_collection() {
    let cluster = Cluster::start().await;
    cluster.post(QUOTAS, quota("q")).await.expect(201);
    let all = "/api/v1/resourcequotas?labelSelector=test%3Dquota";
    let list = cluster.get(all).await.expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let patch = json!({"spec": {"hard": {"memory": "750Mi"}}});
    let patched = cluster
        .merge(&format!("{QUOTAS}/q"), patch)
        .await
        .expect(200);
    assert_eq!(
        patched["spec"]["hard"],
        json!({"cpu": "500m", "memory": "750Mi"})
    );
    let selected = format!("{QUOTAS}?labelSelector=test%3Dquota");
    cluster.delete(&selected).await.expect(200);
    cluster.get(&format!("{QUOTAS}/q")).await.expect(404);
}

/// ResourceQuota should apply changes to a resourcequota status
#[tokio::test]
async fn the_status_of_a_quota_comes_back_to_what_its_spec_says() {
    let cluster = Cluster::start().await;
    let hard = cluster.post(QUOTAS, quota("q")).await.expect(201)["spec"]["hard"].clone();
    let (path, status) = (format!("{QUOTAS}/q"), format!("{QUOTAS}/q/status"));
    // The server corrects it a moment after.
    let settled = async |hard: &Value| {
        let waiting = async {
            while cluster.get(&path).await.expect(200)["status"]["hard"] != *hard {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("in time");
    };
    settled(&hard).await;
    let odd = json!({"status": {"hard": {"cpu": "1", "memory": "1Gi"}}});
    let written = cluster.merge(&status, odd).await.expect(200);
    assert_eq!(
        written["spec"]["hard"], hard,
        "a status leaves the spec alone"
    );
    settled(&hard).await;
    let mut whole = cluster.get(&path).await.expect(200);
    whole["status"]["hard"] = json!({"cpu": "2"});
    // Somebody else may have written it meanwhile.
    whole["metadata"]["resourceVersion"] = Value::Null;
    cluster.put(&status, whole).await.expect(200);
    settled(&hard).await;
    let more = json!({"spec": {"hard": {"cpu": "2"}}});
    let changed = cluster.merge(&path, more).await.expect(200);
    settled(&changed["spec"]["hard"]).await;
}

/// Servers with support for API chunking should return chunks of results for list calls
#[tokio::test]
async fn a_list_comes_in_pages_of_one_revision_with_the_right_count() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/podtemplates";
    let count = 45_usize;
    for number in 0..count {
        let object = json!({"apiVersion": "v1", "kind": "PodTemplate",
            "metadata": {"name": format!("template-{number:04}")},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]}}});
        cluster.post(path, object).await.expect(201);
    }
    let (mut seen, mut token, mut revision) = (0_usize, String::new(), Value::Null);
    loop {
        let list = cluster
            .get(&format!("{path}?limit=10&continue={token}"))
            .await
            .expect(200);
        let items = list["items"].as_array().expect("items");
        assert!(items.len() <= 10);
        for (index, item) in items.iter().enumerate() {
            assert_eq!(
                item["metadata"]["name"],
                format!("template-{:04}", seen + index)
            );
        }
        seen += items.len();
        if revision.is_null() {
            revision = list["metadata"]["resourceVersion"].clone();
        }
        assert_eq!(list["metadata"]["resourceVersion"], revision);
        token = list["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            break;
        }
        let left = list["metadata"]["remainingItemCount"].as_u64();
        assert_eq!(
            left.and_then(|left| usize::try_from(left).ok()),
            Some(count - seen)
        );
    }
    assert_eq!(seen, count);
    let whole = cluster.get(path).await.expect(200);
    assert_eq!(whole["items"].as_array().map(Vec::len), Some(count));
}

fn scaled(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("d-{replicas}")},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// A policy about Deployments, bound, and with what its test adds to it.
async fn bound_policy(cluster: &Cluster, kind: &str, plural: &str, more: Value) {
    let mut spec = json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"],
        "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]}});
    let more = more.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(more);
    let policy = json!({"apiVersion": ADMISSION, "kind": kind, "metadata": {"name": "p"},
        "spec": spec});
    let path = format!("/apis/{ADMISSION}/{plural}");
    cluster
        .post(&format!("{path}policies"), policy)
        .await
        .expect(201);
    let mut spec = json!({"policyName": "p"});
    if kind.starts_with("Validating") {
        spec["validationActions"] = json!(["Deny"]);
    }
    let binding = json!({"apiVersion": ADMISSION, "kind": format!("{kind}Binding"),
        "metadata": {"name": "b"}, "spec": spec});
    cluster
        .post(&format!("{path}policybindings"), binding)
        .await
        .expect(201);
}

/// ValidatingAdmissionPolicy should validate against a Deployment
#[tokio::test]
async fn a_validating_policy_judges_deployments() {
    let cluster = Cluster::start().await;
    let rules = json!({"validations": [{"expression": "object.spec.replicas > 1",
        "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"}]});
    let kind = "ValidatingAdmissionPolicy";
    bound_policy(&cluster, kind, "validatingadmission", rules).await;
    let policy = format!("/apis/{ADMISSION}/validatingadmissionpolicies/p");
    let policy = cluster.get(&policy).await.expect(200);
    assert!(policy["status"]["typeChecking"].is_object(), "{policy}");
    cluster.post(DEPLOYMENTS, scaled(2)).await.expect(201);
    let refused = cluster.post(DEPLOYMENTS, scaled(1)).await;
    assert!(
        refused.message().ends_with("wants replicas > 1, got 1"),
        "{}",
        refused.message()
    );
    refused.expect(422);
}

/// ValidatingAdmissionPolicy should allow expressions to refer variables.
#[tokio::test]
async fn a_validating_policy_reads_its_variables() {
    let cluster = Cluster::start().await;
    let rules = json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas"}]});
    let kind = "ValidatingAdmissionPolicy";
    bound_policy(&cluster, kind, "validatingadmission", rules).await;
    cluster.post(DEPLOYMENTS, scaled(3)).await.expect(201);
    for replicas in [1, 2] {
        cluster
            .post(DEPLOYMENTS, scaled(replicas))
            .await
            .expect(422);
    }
}

/// MutatingAdmissionPolicy should mutate a Deployment (with annotations)
#[tokio::test]
async fn a_mutating_policy_changes_deployments() {
    let cluster = Cluster::start().await;
    let mutations = json!({"reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{replicas: object.spec.replicas + 100}}"}},
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {'my-annotation': 'yes'}}}"}}]});
    let kind = "MutatingAdmissionPolicy";
    bound_policy(&cluster, kind, "mutatingadmission", mutations).await;
    let made = cluster.post(DEPLOYMENTS, scaled(1)).await.expect(201);
    assert_eq!(made["spec"]["replicas"], 101);
    assert_eq!(made["metadata"]["annotations"]["my-annotation"], "yes");
}

/// MutatingAdmissionPolicy should support MutatingAdmissionPolicy API operations
#[tokio::test]
async fn mutating_admission_policies_support_all_operations() {
    let sample = json!({"apiVersion": ADMISSION, "kind": "MutatingAdmissionPolicy",
        "spec": {"matchConstraints": config_maps_rule(), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": "Object{}"}}]}});
    policies("mutatingadmissionpolicies", sample, None)
        .are_supported()
        .await;
}

/// MutatingAdmissionPolicy should support MutatingAdmissionPolicyBinding API operations
#[tokio::test]
async fn bindings_of_mutating_admission_policies_support_all_operations() {
    let sample = json!({"apiVersion": ADMISSION, "kind": "MutatingAdmissionPolicyBinding",
        "spec": {"policyName": "p"}});
    policies("mutatingadmissionpolicybindings", sample, None)
        .are_supported()
        .await;
}

/// AdmissionWebhook should reject mutating (validating) webhook configurations with invalid match conditions
#[tokio::test]
async fn webhook_configurations_with_invalid_match_conditions_are_refused() {
    let cluster = Cluster::start().await;
    for plural in [
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
    ] {
        let configuration = json!({"metadata": {"name": "hooks"},
            "webhooks": [{"name": "a.k8s.io", "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "matchConditions": [{"name": "invalid", "expression": "... [] bad expression"}]}]});
        let refused = cluster
            .post(&format!("/apis/{ADMISSION}/{plural}"), configuration)
            .await;
        assert!(
            refused.message().contains("compilation failed"),
            "{}",
            refused.message()
        );
        refused.expect(422);
    }
}
