//! Admission webhooks: who is asked about what, and what their answers do.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::remote::{Remote, reply};
use super::*;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const NAMESPACE: &str = "/api/v1/namespaces/default";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A cluster, a server of webhooks, and the requests that it was asked about.
struct Setting {
    cluster: Cluster,
    remote: Remote,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Setting {
    /// The webhooks answer by their path and the request; what is missing of an answer is filled in.
    async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let noted = seen.clone();
        let remote = Remote::start(&["localhost"], move |request| {
            let path = request.uri().path().to_owned();
            let review: Value = serde_json::from_slice(request.body()).expect("JSON");
            assert_eq!(review["kind"], "AdmissionReview");
            let asked = review["request"].clone();
            let mut response = answer(&path, &asked);
            response["uid"] = asked["uid"].clone();
            let pause = response["pauseMs"].as_u64().unwrap_or_default();
            noted.lock().expect("whole").push((path, asked));
            let answer = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"],
                "response": response});
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                reply(200, answer.to_string())
            }
        })
        .await;
        Self {
            cluster: Cluster::start().await,
            remote,
            seen,
        }
    }

    /// Registers one webhook at `/NAME`, with some fields of its own.
    async fn register(&self, role: &str, name: &str, rule: Value, fields: Value) {
        let mut webhook = json!({
            "name": format!("{name}.hooks.example"),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": self.remote.by_url(&format!("/{name}")),
            "rules": [rule],
        });
        for (field, value) in fields.as_object().into_iter().flatten() {
            webhook[field] = value.clone();
        }
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{role}WebhookConfiguration"),
            "metadata": {"name": name},
            "webhooks": [webhook],
        });
        let plural = format!("{}webhookconfigurations", role.to_lowercase());
        let path = format!("{GROUP}/{plural}");
        self.cluster.post(&path, configuration).await.expect(201);
    }

    async fn mutating(&self, name: &str, rule: Value, fields: Value) {
        self.register("Mutating", name, rule, fields).await;
    }

    async fn validating(&self, name: &str, rule: Value, fields: Value) {
        self.register("Validating", name, rule, fields).await;
    }

    /// What was asked since the last time.
    fn seen(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.seen.lock().expect("whole"))
    }

    fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|(path, _)| path).collect()
    }
}

fn rule(operations: &[&str], group: &str, version: &str, resources: &[&str]) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": [version],
        "resources": resources})
}

fn config_maps(operations: &[&str]) -> Value {
    rule(operations, "", "v1", &["configmaps"])
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch",
        "patch": STANDARD.encode(operations.to_string())})
}

/// Adds `data.KEY`.
fn add(key: &str) -> Value {
    patch(json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]))
}

fn deployment(version: &str) -> Value {
    json!({
        "apiVersion": version, "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    })
}

#[tokio::test]
async fn a_webhook_refuses_and_the_client_hears_why_and_its_warnings() {
    let setting = Setting::start(|_, request| match request["name"].as_str() {
        Some("good") => json!({"allowed": true, "warnings": ["be careful"]}),
        _ => json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden",
            "message": "this is not allowed here"}}),
    })
    .await;
    setting
        .validating("deny", config_maps(&["CREATE"]), json!({}))
        .await;
    let refused = setting.cluster.post(CONFIG_MAPS, config_map("bad")).await;
    let expected = "admission webhook \"deny.hooks.example\" denied the request: this is not \
                    allowed here";
    assert_eq!(refused.message(), expected);
    assert_eq!(refused.body["reason"], "Forbidden");
    refused.expect(403);
    let made = setting.cluster.post(CONFIG_MAPS, config_map("good")).await;
    let warning = made.headers.get("warning").expect("a warning");
    assert_eq!(warning, "299 - \"be careful\"");
    made.expect(201);
    let (_, request) = setting.seen().pop().expect("asked");
    let config_maps = json!({"group": "", "version": "v1", "resource": "configmaps"});
    for (field, expected) in [
        (
            "kind",
            json!({"group": "", "version": "v1", "kind": "ConfigMap"}),
        ),
        ("resource", config_maps.clone()),
        ("requestResource", config_maps),
        ("operation", json!("CREATE")),
        ("name", json!("good")),
        ("namespace", json!("default")),
        ("dryRun", json!(false)),
        ("oldObject", Value::Null),
        (
            "userInfo",
            json!({"username": "test", "groups": ["system:masters", "system:authenticated"]}),
        ),
    ] {
        assert_eq!(request[field], expected, "{field}");
    }
    assert_eq!(request["object"]["data"], json!({"a": "b"}));
    assert!(request["object"]["metadata"]["uid"].is_string());
    assert_eq!(request["options"]["kind"], "CreateOptions");
    // What no rule names goes its way.
    let path = format!("{CONFIG_MAPS}/good");
    let data = json!({"data": {"c": "d"}});
    setting.cluster.merge(&path, data).await.expect(200);
    assert_eq!(setting.paths(), Vec::<String>::new());
}

#[tokio::test]
async fn patches_are_applied_in_the_order_of_configurations_and_defaulted() {
    let setting = Setting::start(|path, request| match path {
        "/a-first" => add("first"),
        "/b-second" => match request["object"]["data"]["first"].as_str() {
            Some(_) => add("second"),
            None => allow(),
        },
        _ => patch(
            json!([{"op": "add", "path": "/spec/initContainers", "value": [
            {"name": "added", "image": "busybox"}]}]),
        ),
    })
    .await;
    // The order in which they are made does not count.
    for name in ["b-second", "a-first"] {
        setting
            .mutating(name, config_maps(&["CREATE"]), json!({}))
            .await;
    }
    let pods = rule(&["CREATE"], "", "v1", &["pods"]);
    setting.mutating("pods", pods, json!({})).await;
    let made = setting.cluster.post(CONFIG_MAPS, config_map("c")).await;
    let expected = json!({"a": "b", "first": "yes", "second": "yes"});
    assert_eq!(made.expect(201)["data"], expected);
    assert_eq!(setting.paths(), ["/a-first", "/b-second"]);
    let made = setting.cluster.post(PODS, pod("p")).await.expect(201);
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["name"], "added");
    assert_eq!(added["terminationMessagePolicy"], "File");
}

#[tokio::test]
async fn subresources_are_asked_about_as_what_the_client_sends() {
    let setting = Setting::start(|_, _| allow()).await;
    let everything = ["CREATE", "UPDATE", "DELETE"];
    let pods = rule(&everything, "", "v1", &["pods/*"]);
    setting.validating("pods", pods, json!({})).await;
    let scales = rule(&everything, "apps", "v1", &["deployments/scale"]);
    setting.validating("scales", scales, json!({})).await;
    let about = || -> Vec<Value> {
        let about = setting.seen().into_iter().map(|(_, request)| {
            json!([
                request["operation"],
                request["subResource"],
                request["kind"]["kind"],
                request["object"]["kind"],
                request["oldObject"]["kind"]
            ])
        });
        about.collect()
    };
    let cluster = &setting.cluster;
    cluster.post(PODS, pod("p")).await.expect(201);
    assert_eq!(about(), [json!(["CREATE", null, "Pod", "Pod", null])]);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "node-1"}});
    let path = format!("{PODS}/p/binding");
    cluster.post(&path, binding).await.expect(201);
    assert_eq!(
        about(),
        [json!(["CREATE", "binding", "Binding", "Binding", null])]
    );
    let status = json!({"status": {"phase": "Running"}});
    let path = format!("{PODS}/p/status");
    cluster.merge(&path, status).await.expect(200);
    assert_eq!(about(), [json!(["UPDATE", "status", "Pod", "Pod", "Pod"])]);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "p"}});
    let path = format!("{PODS}/p/eviction");
    cluster.post(&path, eviction).await.expect(201);
    // Not a DELETE as well.
    assert_eq!(
        about(),
        [json!(["CREATE", "eviction", "Eviction", "Eviction", null])]
    );
    let path = format!("{PODS}/p?gracePeriodSeconds=0");
    cluster.delete(&path).await.expect(200);
    assert_eq!(about(), [json!(["DELETE", null, "Pod", null, "Pod"])]);

    cluster
        .post(DEPLOYMENTS, deployment("apps/v1"))
        .await
        .expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let three = json!({"spec": {"replicas": 3}});
    cluster.merge(&path, three).await.expect(200);
    let (_, request) = setting.seen().pop().expect("asked");
    assert_eq!(request["object"]["kind"], "Scale");
    let counts = |object: &str| request[object]["spec"]["replicas"].as_i64();
    assert_eq!((counts("oldObject"), counts("object")), (Some(1), Some(3)));
    assert_eq!(request["resource"]["resource"], "deployments");
}

#[tokio::test]
async fn a_webhook_changes_what_a_scale_or_a_binding_asks_for() {
    let setting = Setting::start(|path, _| match path {
        "/scales" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])),
        _ => patch(json!([{"op": "replace", "path": "/target/name", "value": "node-2"}])),
    })
    .await;
    let scales = rule(&["UPDATE"], "apps", "v1", &["deployments/scale"]);
    setting.mutating("scales", scales, json!({})).await;
    let bindings = rule(&["CREATE"], "", "v1", &["pods/binding"]);
    setting.mutating("bindings", bindings, json!({})).await;
    let cluster = &setting.cluster;
    cluster
        .post(DEPLOYMENTS, deployment("apps/v1"))
        .await
        .expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let nine = json!({"spec": {"replicas": 9}});
    let scaled = cluster.merge(&path, nine).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
    cluster.post(PODS, pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "node-1"}});
    let path = format!("{PODS}/p/binding");
    cluster.post(&path, binding).await.expect(201);
    let bound = cluster.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "node-2");
}

#[tokio::test]
async fn deleting_a_collection_asks_about_each_of_it() {
    let setting = Setting::start(
        |_, request| json!({"allowed": request["oldObject"]["metadata"]["name"] != "kept"}),
    )
    .await;
    setting
        .validating("deletes", config_maps(&["DELETE"]), json!({}))
        .await;
    for name in ["a", "b"] {
        let made = setting.cluster.post(CONFIG_MAPS, config_map(name)).await;
        made.expect(201);
    }
    setting.cluster.delete(CONFIG_MAPS).await.expect(200);
    let seen = setting.seen();
    let names: Vec<&Value> = seen.iter().map(|(_, request)| &request["name"]).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&&json!("a")) && names.contains(&&json!("b")));
    assert_eq!(seen[0].1["options"]["kind"], "DeleteOptions");
    let kept = setting.cluster.post(CONFIG_MAPS, config_map("kept")).await;
    kept.expect(201);
    let path = format!("{CONFIG_MAPS}/kept");
    let refused = setting.cluster.delete(&path).await;
    let expected = "admission webhook \"deletes.hooks.example\" denied the request without \
                    explanation";
    assert_eq!(refused.message(), expected);
    refused.expect(400);
    setting.cluster.get(&path).await.expect(200);
}

#[tokio::test]
async fn a_webhook_that_fails_counts_as_its_policy_says() {
    let setting = Setting::start(|_, _| json!({"allowed": true, "pauseMs": 1500})).await;
    let slow = json!({"timeoutSeconds": 1});
    setting
        .validating("slow", config_maps(&["CREATE"]), slow)
        .await;
    let refused = setting.cluster.post(CONFIG_MAPS, config_map("a")).await;
    let url = format!(
        "https://localhost:{}/slow?timeout=1s",
        setting.remote.address.port()
    );
    let expected = format!(
        "Internal error occurred: failed calling webhook \"slow.hooks.example\": failed to call \
         webhook: Post \"{url}\": context deadline exceeded"
    );
    assert_eq!(refused.message(), expected);
    refused.expect(500);
    let path = format!("{GROUP}/validatingwebhookconfigurations/slow");
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy",
        "value": "Ignore"}]);
    let patched = setting
        .cluster
        .call("PATCH", &path, "application/json-patch+json", &ignore);
    patched.await.expect(200);
    let made = setting.cluster.post(CONFIG_MAPS, config_map("a")).await;
    made.expect(201);
}

#[tokio::test]
async fn selectors_narrow_who_is_asked_about_what() {
    let setting = Setting::start(|_, _| allow()).await;
    let wanted = |field: &str| json!({field: {"matchLabels": {"hooks": "yes"}}});
    let rules = config_maps(&["*"]);
    setting
        .validating("objects", rules.clone(), wanted("objectSelector"))
        .await;
    setting
        .validating("namespaces", rules, wanted("namespaceSelector"))
        .await;
    let namespaces = rule(&["*"], "", "v1", &["namespaces"]);
    setting
        .validating("themselves", namespaces, wanted("namespaceSelector"))
        .await;
    let cluster = &setting.cluster;
    cluster
        .post(CONFIG_MAPS, config_map("plain"))
        .await
        .expect(201);
    assert_eq!(setting.paths(), Vec::<String>::new());
    let mut labelled = config_map("labelled");
    labelled["metadata"]["labels"] = json!({"hooks": "yes"});
    cluster.post(CONFIG_MAPS, labelled).await.expect(201);
    assert_eq!(setting.paths(), ["/objects"]);
    let path = format!("{CONFIG_MAPS}/labelled");
    let unlabelled = json!({"metadata": {"labels": null}});
    cluster.merge(&path, unlabelled).await.expect(200);
    assert_eq!(setting.paths(), ["/objects"], "it was one of them");
    let label = json!({"metadata": {"labels": {"hooks": "yes"}}});
    cluster.merge(NAMESPACE, label).await.expect(200);
    assert_eq!(setting.paths(), ["/themselves"]);
    cluster
        .post(CONFIG_MAPS, config_map("other"))
        .await
        .expect(201);
    assert_eq!(setting.paths(), ["/namespaces"]);
}

#[tokio::test]
async fn a_dry_run_asks_only_those_without_side_effects() {
    let setting = Setting::start(|_, _| allow()).await;
    let rules = config_maps(&["CREATE"]);
    setting
        .validating("careful", rules, json!({"sideEffects": "NoneOnDryRun"}))
        .await;
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    let tried = setting.cluster.post(&path, config_map("a")).await;
    tried.expect(201);
    let (_, request) = setting.seen().pop().expect("asked");
    assert_eq!(request["dryRun"], true);
    assert_eq!(request["options"]["dryRun"], json!(["All"]));
    // Validation lets no new one be made; one of the past is stored as it is.
    let kind = api::find(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
    );
    let objects = &setting.cluster.server.state.objects;
    let name = "careful";
    let current = objects
        .current(kind.expect("served"), "", name)
        .expect("there");
    let mut old = current.value.clone();
    old["webhooks"][0]["sideEffects"] = "Some".into();
    let at = store::Expect::At(current.revision);
    let written = objects
        .write(kind.expect("served"), &old, at, Vec::new())
        .await;
    written.expect("written");
    let refused = setting.cluster.post(&path, config_map("a")).await;
    let expected = "admission webhook \"careful.hooks.example\" does not support dry run";
    assert_eq!(refused.message(), expected);
    refused.expect(400);
}

#[tokio::test]
async fn a_webhook_is_asked_again_if_it_wants_when_a_later_one_changes_the_object() {
    let setting = Setting::start(|path, request| match path {
        "/c-late" if request["object"]["data"]["late"].is_null() => add("late"),
        _ => allow(),
    })
    .await;
    let rules = config_maps(&["CREATE"]);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    setting
        .mutating("a-again", rules.clone(), again.clone())
        .await;
    setting.mutating("b-once", rules.clone(), json!({})).await;
    setting
        .mutating("c-late", rules.clone(), again.clone())
        .await;
    setting.mutating("d-last", rules, again).await;
    let made = setting.cluster.post(CONFIG_MAPS, config_map("c")).await;
    assert_eq!(made.expect(201)["data"]["late"], "yes");
    let expected = ["/a-again", "/b-once", "/c-late", "/d-last", "/a-again"];
    assert_eq!(setting.paths(), expected);
}

#[tokio::test]
async fn webhook_configurations_are_nobody_s_affair() {
    let setting = Setting::start(|_, _| json!({"allowed": false})).await;
    let everything = rule(&["*"], "*", "*", &["*/*"]);
    setting
        .validating("all", everything.clone(), json!({}))
        .await;
    setting.mutating("all", everything, json!({})).await;
    let refused = setting.cluster.post(CONFIG_MAPS, config_map("a")).await;
    refused.expect(400);
    for role in ["mutating", "validating"] {
        let path = format!("{GROUP}/{role}webhookconfigurations/all");
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        setting.cluster.merge(&path, label).await.expect(200);
        setting.cluster.delete(&path).await.expect(200);
    }
    let made = setting.cluster.post(CONFIG_MAPS, config_map("a")).await;
    made.expect(201);
}

#[tokio::test]
async fn a_hostile_patch_makes_no_other_or_larger_object() {
    let setting = Setting::start(|_, request| {
        let change =
            |path: &str, value: Value| patch(json!([{"op": "add", "path": path, "value": value}]));
        let label = request["object"]["metadata"]["labels"]["attack"].as_str();
        match label.unwrap_or_default() {
            "namespace" => change("/metadata/namespace", json!("kube-system")),
            "name" => change("/metadata/name", json!("other")),
            "uid" => change("/metadata/uid", json!("1")),
            "kind" => change("/kind", json!("Secret")),
            "type" => change("/data", json!(["no map"])),
            "invalid" => change("/data", json!({"not a key!": "x"})),
            "large" => change("/data/x", json!("x".repeat(4 << 20))),
            "bomb" => {
                let copy = json!({"op": "copy", "from": "/data", "path": "/data/x"});
                let mut all = vec![json!({"op": "add", "path": "/data/y",
                    "value": "y".repeat(1 << 10)})];
                all.extend(vec![copy; 40]);
                patch(all.into())
            }
            "unknown" => change("/data2", json!("x")),
            _ => allow(),
        }
    })
    .await;
    setting
        .mutating("evil", config_maps(&["*"]), json!({}))
        .await;
    let cluster = &setting.cluster;
    let labelled = |name: &str, attack: &str| {
        let mut map = config_map(name);
        map["metadata"]["labels"] = json!({"attack": attack});
        map
    };
    cluster
        .post(CONFIG_MAPS, config_map("there"))
        .await
        .expect(201);
    for (attack, on_create, on_update) in [
        ("namespace", 400, 400),
        ("uid", 201, 409),
        ("kind", 500, 500),
        ("type", 500, 500),
        ("invalid", 422, 422),
        ("large", 413, 413),
        ("bomb", 500, 500),
        ("name", 201, 422),
    ] {
        let made = cluster.post(CONFIG_MAPS, labelled(attack, attack)).await;
        assert_eq!(made.code.as_u16(), on_create, "{attack}: {}", made.body);
        assert_ne!(made.body["metadata"]["uid"], "1");
        let path = format!("{CONFIG_MAPS}/there");
        let changed = cluster.put(&path, labelled("there", attack)).await;
        assert_eq!(
            changed.code.as_u16(),
            on_update,
            "{attack}: {}",
            changed.body
        );
    }
    // Fields that the kind has not are dropped.
    let made = cluster.post(CONFIG_MAPS, labelled("u", "unknown")).await;
    assert!(made.expect(201).get("data2").is_none());
    let elsewhere = "/api/v1/namespaces/kube-system/configmaps/namespace";
    cluster.get(elsewhere).await.expect(404);
}

#[tokio::test]
async fn a_rule_for_another_version_sees_the_object_in_that_version() {
    let setting = Setting::start(|path, _| match path {
        "/old" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 4}])),
        _ => allow(),
    })
    .await;
    let old = rule(&["CREATE"], "extensions", "v1beta1", &["deployments"]);
    setting.mutating("old", old.clone(), json!({})).await;
    let exact = json!({"matchPolicy": "Exact"});
    setting.validating("exact", old, exact).await;
    let made = setting
        .cluster
        .post(DEPLOYMENTS, deployment("apps/v1"))
        .await;
    assert_eq!(made.expect(201)["spec"]["replicas"], 4);
    let seen = setting.seen();
    assert_eq!(seen.len(), 1, "the exact one is not asked");
    let (_, request) = &seen[0];
    assert_eq!(request["kind"]["group"], "extensions");
    assert_eq!(request["resource"]["version"], "v1beta1");
    assert_eq!(request["requestKind"]["group"], "apps");
    assert_eq!(request["requestResource"]["version"], "v1");
    assert_eq!(request["object"]["apiVersion"], "extensions/v1beta1");
    // And the other way round.
    let path = format!("{DEPLOYMENTS}/web");
    setting.cluster.delete(&path).await.expect(200);
    let path = "/apis/extensions/v1beta1/namespaces/default/deployments";
    let made = setting
        .cluster
        .post(path, deployment("extensions/v1beta1"))
        .await;
    made.expect(201);
    assert_eq!(setting.paths(), ["/old", "/exact"]);
}

#[tokio::test]
async fn match_conditions_narrow_who_is_asked_and_fail_as_the_policy_says() {
    let setting = Setting::start(|_, _| allow()).await;
    let condition = |expression: &str| json!([{"name": "c", "expression": expression}]);
    let rules = config_maps(&["CREATE"]);
    let wanted = condition("object.metadata.name.startsWith('x') && request.operation == 'CREATE'");
    let fields = json!({"matchConditions": wanted});
    setting.validating("wanted", rules.clone(), fields).await;
    let cluster = &setting.cluster;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    assert_eq!(setting.paths(), Vec::<String>::new());
    cluster.post(CONFIG_MAPS, config_map("x")).await.expect(201);
    assert_eq!(setting.paths(), ["/wanted"]);
    let broken = condition("object.data.missing == 'yes'");
    let open = json!({"matchConditions": broken, "failurePolicy": "Ignore"});
    setting.validating("open", rules.clone(), open).await;
    cluster.post(CONFIG_MAPS, config_map("b")).await.expect(201);
    assert_eq!(setting.paths(), Vec::<String>::new());
    let closed = json!({"matchConditions": broken});
    setting.validating("closed", rules, closed).await;
    let refused = cluster.post(CONFIG_MAPS, config_map("d")).await;
    assert!(
        refused.message().contains("is forbidden: "),
        "{}",
        refused.message()
    );
    refused.expect(403);
}

#[tokio::test]
async fn the_server_s_own_writes_ask_nobody() {
    let setting = Setting::start(|_, _| json!({"allowed": false})).await;
    let everything = rule(&["*"], "*", "*", &["*/*"]);
    setting.validating("all", everything, json!({})).await;
    let state = &setting.cluster.server.state;
    crate::bootstrap::first_objects(state)
        .await
        .expect("written");
    assert_eq!(setting.paths(), Vec::<String>::new());
}
