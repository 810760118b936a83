//! PodSecurity over HTTP: who is refused what, who is warned, what the audit log is told.

use super::*;
use crate::AdmissionConfig;
use crate::audit::{Level, Trail};

const NAMESPACES: &str = "/api/v1/namespaces";
const SAFE_PODS: &str = "/api/v1/namespaces/safe/pods";

fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut namespace = json!({"metadata": {"name": name}});
    for (key, value) in labels {
        let label = format!("pod-security.kubernetes.io/{key}");
        namespace["metadata"]["labels"][label] = (*value).into();
    }
    namespace
}

/// A pod that the level `restricted` allows.
fn restricted(name: &str) -> Value {
    let mut pod = pod(name);
    let spec = &mut pod["spec"];
    spec["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    spec["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    pod
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod
}

/// A template of such a pod.
fn template() -> Value {
    let pod = privileged("p");
    json!({"metadata": {"labels": {"app": "p"}}, "spec": pod["spec"]})
}

fn configured(text: &str) -> ServerConfig {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admission.yaml");
    let own = text.replace('\n', "\n    ");
    let file = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
         - name: PodSecurity\n  configuration:\n    \
         apiVersion: pod-security.admission.config.k8s.io/v1\n    \
         kind: PodSecurityConfiguration\n    {own}\n"
    );
    std::fs::write(&path, file).expect("written");
    ServerConfig {
        admission: AdmissionConfig::new(&[], &[], Some(&path)).expect("right"),
        ..ServerConfig::default()
    }
}

impl Cluster {
    /// With a namespace `safe` that has these labels.
    async fn safe(labels: &[(&str, &str)]) -> Self {
        let cluster = Self::start().await;
        cluster
            .post(NAMESPACES, namespace("safe", labels))
            .await
            .expect(201);
        cluster
    }

    /// Posts as a request that is logged: the answer, and what the log is told.
    async fn audited(&self, path: &str, body: Value) -> (Answer, Vec<(String, String)>) {
        let trail = Trail::of_test(Level::Metadata);
        let request = Request::post(path)
            .header("content-type", "application/json")
            .extension(trail.clone())
            .body(Body::from(body.to_string()));
        let answer = Answer::of(self.send(request.expect("a request")).await).await;
        let told = trail.annotations().into_iter();
        let told = told.filter_map(|(key, value)| {
            let key = key.strip_prefix("pod-security.kubernetes.io/")?;
            Some((key.to_owned(), value))
        });
        (answer, told.collect())
    }
}

fn warnings(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all("warning").iter();
    let texts = values.map(|value| value.to_str().expect("text").replace("\\\"", "\""));
    texts
        .map(|text| text["299 - \"".len()..text.len() - 1].to_owned())
        .collect()
}

#[tokio::test]
async fn an_enforced_level_refuses_pods_in_the_words_of_kubernetes() {
    let cluster = Cluster::safe(&[("enforce", "restricted")]).await;
    let refused = cluster.post(SAFE_PODS, pod("p")).await;
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": \
         allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
    assert_eq!(refused.body["reason"], "Forbidden");
    assert!(warnings(&refused).is_empty());
    refused.expect(403);
    cluster.post(SAFE_PODS, restricted("p")).await.expect(201);
    // Namespaces that say nothing are open, as Kubernetes' are.
    cluster.post(PODS, privileged("p")).await.expect(201);
}

#[tokio::test]
async fn a_pod_is_judged_as_it_will_be_stored() {
    let cluster = Cluster::safe(&[("enforce", "baseline"), ("enforce-version", "v1.30")]).await;
    let mut sidecar = pod("p");
    sidecar["spec"]["initContainers"] = json!([{"name": "i", "image": "i", "restartPolicy": "Always",
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]);
    let refused = cluster.post(SAFE_PODS, sidecar).await;
    assert!(
        refused.message().ends_with(
            "violates PodSecurity \"baseline:v1.30\": non-default capabilities (container \"i\" \
             must not include \"NET_ADMIN\" in securityContext.capabilities.add)"
        ),
        "{}",
        refused.message()
    );
    let mut windows = restricted("w");
    windows["spec"]["os"] = json!({"name": "windows"});
    let refused = cluster.post(SAFE_PODS, windows).await;
    assert!(
        refused
            .message()
            .contains("cannot be set for a windows pod")
    );
    refused.expect(422);
}

#[tokio::test]
async fn warnings_go_to_the_client_and_violations_to_the_audit_log() {
    let cluster = Cluster::safe(&[("warn", "baseline"), ("audit", "restricted")]).await;
    let (answer, told) = cluster.audited(SAFE_PODS, privileged("p")).await;
    assert_eq!(
        warnings(&answer),
        [
            "would violate PodSecurity \"baseline:latest\": privileged (container \"c\" must not set \
          securityContext.privileged=true)"
        ]
    );
    answer.expect(201);
    assert_eq!(
        told[1],
        ("enforce-policy".to_owned(), "privileged:latest".to_owned())
    );
    let (key, why) = &told[0];
    assert_eq!(key, "audit-violations");
    assert!(
        why.starts_with("would violate PodSecurity \"restricted:latest\": privileged ("),
        "{why}"
    );
    let (_, told) = cluster.audited(PODS, privileged("p")).await;
    assert_eq!(
        told,
        [("enforce-policy".to_owned(), "privileged:latest".to_owned())]
    );
}

#[tokio::test]
async fn what_makes_pods_is_warned_of_and_not_refused() {
    let cluster = Cluster::safe(&[("enforce", "baseline"), ("audit", "baseline")]).await;
    let labels = json!({"matchLabels": {"app": "p"}});
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "hostPID": true,
        "containers": [{"name": "c", "image": "i"}]}}});
    let cases = [
        (
            "/apis/apps/v1/namespaces/safe/deployments",
            json!({"selector": labels, "template": template()}),
            "privileged",
        ),
        (
            "/apis/apps/v1/namespaces/safe/daemonsets",
            json!({"selector": labels, "template": template()}),
            "privileged",
        ),
        (
            "/apis/batch/v1/namespaces/safe/jobs",
            job.clone(),
            "host namespaces",
        ),
        (
            "/apis/batch/v1/namespaces/safe/cronjobs",
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": job}}),
            "host namespaces",
        ),
    ];
    for (path, spec, reason) in cases {
        let body = json!({"metadata": {"name": "d"}, "spec": spec});
        let (answer, told) = cluster.audited(path, body).await;
        let why = format!("would violate PodSecurity \"baseline:latest\": {reason} (");
        let heard = warnings(&answer);
        assert!(
            heard.len() == 1 && heard[0].starts_with(&why),
            "{path}: {heard:?}"
        );
        answer.expect(201);
        assert_eq!(told[0].0, "audit-violations", "{path}");
    }
    let template = json!({"metadata": {"name": "t"}, "template": template()});
    let path = "/api/v1/namespaces/safe/podtemplates";
    let answer = cluster.post(path, template).await;
    assert_eq!(warnings(&answer).len(), 1);
    answer.expect(201);
}

#[tokio::test]
async fn labels_that_say_nothing_are_refused_by_their_names() {
    let cluster = Cluster::start().await;
    let refused = cluster
        .post(NAMESPACES, namespace("n", &[("enforce", "Baseline")]))
        .await;
    assert_eq!(
        refused.message(),
        "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid \
         value: \"Baseline\": must be one of privileged, baseline, restricted"
    );
    refused.expect(422);
    let wrong = [("warn-version", "1.24"), ("audit", "none")];
    let refused = cluster.post(NAMESPACES, namespace("n", &wrong)).await;
    assert_eq!(
        refused.message(),
        "Namespace \"n\" is invalid: [metadata.labels[pod-security.kubernetes.io/audit]: Invalid \
         value: \"none\": must be one of privileged, baseline, restricted, \
         metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.24\": must be \
         \"latest\" or \"v1.x\"]"
    );
    cluster
        .post(NAMESPACES, namespace("n", &[]))
        .await
        .expect(201);
    let typo = namespace("n", &[("enforce", "restrictde")]);
    cluster
        .merge(&format!("{NAMESPACES}/n"), typo)
        .await
        .expect(422);
    // A name that Kubernetes does not know is nobody's label.
    let other = namespace("n", &[("enfroce", "baseline")]);
    cluster
        .merge(&format!("{NAMESPACES}/n"), other)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_namespace_that_becomes_stricter_is_told_of_its_pods() {
    let cluster = Cluster::safe(&[]).await;
    for name in ["b", "a", "c"] {
        cluster.post(SAFE_PODS, privileged(name)).await.expect(201);
    }
    cluster
        .post(SAFE_PODS, restricted("good"))
        .await
        .expect(201);
    let mut host = pod("host");
    host["spec"]["hostPID"] = true.into();
    cluster.post(SAFE_PODS, host).await.expect(201);
    let path = format!("{NAMESPACES}/safe");
    let label = |level: &str| namespace("safe", &[("enforce", level)]);
    let answer = cluster.merge(&path, label("baseline")).await;
    let expected = [
        "existing pods in namespace \"safe\" violate the new PodSecurity enforce level \
         \"baseline:latest\"",
        "a (and 2 other pods): privileged",
        "host: host namespaces",
    ];
    assert_eq!(warnings(&answer), expected);
    answer.expect(200);
    // What is as strict or less strict is not told.
    for labels in [label("baseline"), label("privileged")] {
        let answer = cluster.merge(&path, labels).await;
        assert!(warnings(&answer).is_empty());
    }
}

#[tokio::test]
async fn a_pod_that_was_let_in_before_is_judged_when_its_images_change() {
    let cluster = Cluster::safe(&[]).await;
    cluster.post(SAFE_PODS, privileged("p")).await.expect(201);
    let label = namespace("safe", &[("enforce", "baseline")]);
    cluster
        .merge(&format!("{NAMESPACES}/safe"), label)
        .await
        .expect(200);
    let path = format!("{SAFE_PODS}/p");
    let labels = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 9}});
    cluster.merge(&path, labels).await.expect(200);
    let phase = json!({"status": {"phase": "Running"}});
    cluster
        .merge(&format!("{path}/status"), phase)
        .await
        .expect(200);
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}]);
    let patch = "application/json-patch+json";
    let refused = cluster.call("PATCH", &path, patch, &image).await;
    assert!(
        refused
            .message()
            .contains("violates PodSecurity \"baseline:latest\"")
    );
    refused.expect(403);
    cluster.delete(&path).await.expect(200);
}

#[tokio::test]
async fn who_is_exempt_is_not_judged_and_the_log_says_why() {
    let config = configured(
        "defaults: {enforce: restricted}\n\
         exemptions: {usernames: [root], namespaces: [kube-system], runtimeClasses: [vm]}",
    );
    let cluster = Cluster::with(config).await;
    cluster.post(PODS, pod("p")).await.expect(403);
    let system = "/api/v1/namespaces/kube-system/pods";
    let (answer, told) = cluster.audited(system, pod("p")).await;
    answer.expect(201);
    assert_eq!(told, [("exempt".to_owned(), "namespace".to_owned())]);
    let root = cluster.as_user(User::internal("root"));
    let (answer, told) = root.audited(PODS, pod("p")).await;
    answer.expect(201);
    assert_eq!(told, [("exempt".to_owned(), "user".to_owned())]);
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm"});
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    cluster.post(classes, class).await.expect(201);
    let mut in_vm = pod("q");
    in_vm["spec"]["runtimeClassName"] = "vm".into();
    let (answer, told) = cluster.audited(PODS, in_vm).await;
    answer.expect(201);
    assert_eq!(told, [("exempt".to_owned(), "runtimeClass".to_owned())]);
    let label = namespace("kube-system", &[("warn", "baseline")]);
    let answer = cluster
        .merge(&format!("{NAMESPACES}/kube-system"), label)
        .await;
    answer.expect(200);
    let label = namespace(
        "kube-system",
        &[("enforce", "baseline"), ("enforce-version", "v1.20")],
    );
    let answer = cluster
        .merge(&format!("{NAMESPACES}/kube-system"), label)
        .await;
    assert_eq!(
        warnings(&answer),
        [
            "namespace \"kube-system\" is exempt from Pod Security, and the policy \
          (enforce=baseline:v1.20, warn=baseline:latest) will be ignored"
        ]
    );
}

#[tokio::test]
async fn a_dry_run_and_a_generated_name_are_judged_too() {
    let cluster = Cluster::safe(&[("enforce", "baseline")]).await;
    let dry = format!("{SAFE_PODS}?dryRun=All");
    cluster.post(&dry, privileged("p")).await.expect(403);
    let mut generated = privileged("p");
    generated["metadata"] = json!({"generateName": "p-"});
    cluster.post(SAFE_PODS, generated).await.expect(403);
    let apply = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": privileged("p")["spec"]});
    let path = format!("{SAFE_PODS}/p?fieldManager=m");
    let applied = cluster
        .call("PATCH", &path, "application/apply-patch+yaml", &apply)
        .await;
    applied.expect(403);
}

#[tokio::test]
async fn an_ephemeral_container_widens_no_rights() {
    let cluster = Cluster::safe(&[("enforce", "restricted")]).await;
    cluster.post(SAFE_PODS, restricted("p")).await.expect(201);
    let path = format!("{SAFE_PODS}/p/ephemeralcontainers");
    let debug = |context: Value| {
        json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i",
            "securityContext": context}]}})
    };
    for context in [
        json!({"privileged": true}),
        json!({"capabilities": {"add": ["SYS_PTRACE"]}}),
        Value::Null,
    ] {
        let refused = cluster.merge(&path, debug(context)).await;
        assert!(
            refused.message().contains("container \"d\" must"),
            "{}",
            refused.message()
        );
        refused.expect(403);
    }
    let modest = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    cluster.merge(&path, debug(modest)).await.expect(200);
    // A container that is there already is not judged again with each change of the pod.
    let label = namespace(
        "safe",
        &[("enforce", "restricted"), ("enforce-version", "v1.25")],
    );
    cluster
        .merge(&format!("{NAMESPACES}/safe"), label)
        .await
        .expect(200);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    cluster
        .merge(&format!("{SAFE_PODS}/p"), labels)
        .await
        .expect(200);
}
