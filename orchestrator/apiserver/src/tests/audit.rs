//! The audit log, over the router: which requests are in it, and what of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::remote::{Remote, reply};
use super::watches::Watcher;
use super::*;
use crate::{AuditFileOptions, AuditOptions};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MARK: &str = "bWFya2Vk";

/// A cluster whose requests are logged, and its log.
struct Audited {
    cluster: Cluster,
    directory: tempfile::TempDir,
}

impl Audited {
    async fn start(rules: &str) -> Self {
        Self::with(rules, None).await
    }

    async fn with(rules: &str, webhook: Option<String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n");
        let audit = AuditOptions {
            policy: Some(file("policy.yaml", &policy)),
            file: Some(AuditFileOptions {
                path: directory.path().join("audit.log"),
                ..AuditFileOptions::default()
            }),
            webhook: webhook.map(|text| file("webhook.yaml", &text)),
        };
        let cluster = Cluster::with(ServerConfig {
            audit,
            ..ServerConfig::default()
        });
        Self {
            cluster: cluster.await,
            directory,
        }
    }

    /// All that was logged of these requests. The log is closed.
    async fn events(&self) -> Vec<Value> {
        self.cluster.server.close_audit_log(PATIENCE).await;
        let text = std::fs::read_to_string(self.directory.path().join("audit.log"));
        let text = text.expect("a log");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("an event"))
            .collect()
    }
}

fn of_stage<'a>(events: &'a [Value], stage: &str) -> &'a Value {
    let mut of_stage = events.iter().filter(|event| event["stage"] == stage);
    let found = of_stage
        .next()
        .unwrap_or_else(|| panic!("{stage}: {events:?}"));
    assert!(of_stage.next().is_none(), "{stage}: {events:?}");
    found
}

#[tokio::test]
async fn a_write_is_logged_with_who_what_and_its_outcome() {
    let audited =
        Audited::start("- {level: Request, resources: [{resources: [configmaps]}]}").await;
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .header("audit-id", "my-id")
        .header("user-agent", "tests/1")
        .header("x-forwarded-for", "192.0.2.9")
        .body(Body::from(config_map("one").to_string()));
    let answer = audited.cluster.send(request.expect("a request")).await;
    assert_eq!(answer.headers()["audit-id"], "my-id");
    let made = Answer::of(answer).await.expect(201);
    audited.cluster.get(PODS).await.expect(200);
    let events = audited.events().await;
    assert_eq!(events.len(), 2, "{events:?}");
    let received = of_stage(&events, "RequestReceived");
    assert!(received["responseStatus"].is_null());
    assert_eq!(
        received["stageTimestamp"],
        received["requestReceivedTimestamp"]
    );
    let complete = of_stage(&events, "ResponseComplete");
    for (pointer, expected) in [
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("Request")),
        ("/auditID", json!("my-id")),
        ("/verb", json!("create")),
        ("/requestURI", json!(CONFIG_MAPS)),
        ("/user/username", json!("test")),
        (
            "/user/groups",
            json!(["system:masters", "system:authenticated"]),
        ),
        ("/sourceIPs", json!(["192.0.2.9", "::1"])),
        ("/userAgent", json!("tests/1")),
        (
            "/objectRef",
            json!({"resource": "configmaps", "namespace": "default", "name": "one",
                "apiVersion": "v1"}),
        ),
        ("/responseStatus", json!({"metadata": {}, "code": 201})),
        ("/requestObject/data", json!({"a": "b"})),
        (
            "/annotations/authorization.k8s.io~1decision",
            json!("allow"),
        ),
    ] {
        assert_eq!(complete.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert!(complete["responseObject"].is_null() && made["metadata"]["uid"].is_string());
}

#[tokio::test]
async fn metadata_of_secrets_holds_none_of_their_content() {
    let audited = Audited::start("- {level: Metadata}").await;
    let cluster = &audited.cluster;
    let path = format!("{SECRETS}/s");
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": MARK}});
    cluster.post(SECRETS, secret.clone()).await.expect(201);
    cluster.post(SECRETS, secret).await.expect(409);
    cluster.get(&path).await.expect(200);
    cluster
        .merge(&path, json!({"data": {"b": MARK}}))
        .await
        .expect(200);
    cluster
        .merge(&path, json!({"data": {"b": format!("{MARK}!")}}))
        .await;
    cluster.merge(&path, json!({"immutable": MARK})).await;
    cluster.get(SECRETS).await.expect(200);
    cluster.delete(&path).await.expect(200);
    let events = audited.events().await;
    assert_eq!(events.len(), 16);
    for event in &events {
        let text = event.to_string();
        assert!(!text.contains(MARK), "{text}");
    }
}

#[tokio::test]
async fn answers_are_logged_as_the_client_gets_them_without_managed_fields() {
    let rules =
        "- {level: RequestResponse, omitStages: [RequestReceived], omitManagedFields: true}";
    let audited = Audited::start(rules).await;
    let cluster = &audited.cluster;
    cluster
        .post(CONFIG_MAPS, config_map("one"))
        .await
        .expect(201);
    let both = "application/vnd.kubernetes.protobuf, application/json";
    let path = format!("{CONFIG_MAPS}/one");
    let answer = cluster.get_as(&path, both).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    cluster
        .get_as(CONFIG_MAPS, "application/yaml")
        .await
        .expect(200);
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    cluster.get_as(CONFIG_MAPS, table).await.expect(200);
    cluster
        .merge(&path, json!({"data": {"c": "d"}}))
        .await
        .expect(200);
    cluster.delete(&path).await.expect(200);
    cluster.get(&path).await.expect(404);
    let events = audited.events().await;
    let shown = |index: usize, pointer: &str| {
        let event: &Value = &events[index];
        event.pointer(pointer).cloned().unwrap_or_default()
    };
    for (index, pointer, expected) in [
        (0, "/responseObject/data/a", json!("b")),
        (1, "/responseObject/kind", json!("ConfigMap")),
        (2, "/responseObject/kind", json!("ConfigMapList")),
        (2, "/responseObject/items/0/data/a", json!("b")),
        (3, "/responseObject/kind", json!("Table")),
        (4, "/requestObject", json!({"data": {"c": "d"}})),
        (4, "/responseObject/data/c", json!("d")),
        (5, "/responseObject/kind", json!("Status")),
        (5, "/responseStatus/status", json!("Success")),
        (6, "/responseStatus/reason", json!("NotFound")),
        (6, "/responseObject/reason", json!("NotFound")),
    ] {
        assert_eq!(
            shown(index, pointer),
            expected,
            "{index} {pointer}: {events:?}"
        );
    }
    assert!(!json!(events).to_string().contains("managedFields"));
}

#[tokio::test]
async fn a_watch_is_logged_when_it_begins_and_when_it_ends() {
    let audited = Audited::start("- {level: Metadata, verbs: [watch]}").await;
    let path = format!("{CONFIG_MAPS}?watch=true");
    let watch = Watcher::open(&audited.cluster, &path, "application/json").await;
    drop(watch);
    let events = audited.events().await;
    let started = of_stage(&events, "ResponseStarted");
    let complete = of_stage(&events, "ResponseComplete");
    assert_eq!(started["responseStatus"]["code"], 200);
    assert_eq!(started["auditID"], complete["auditID"]);
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn refusals_are_logged_with_the_decision_and_bad_credentials_without_them() {
    let audited = Audited::start("- {level: Metadata, omitStages: [RequestReceived]}").await;
    let stranger = audited.cluster.as_user(User::anonymous());
    stranger.get(PODS).await.expect(403);
    let request = Request::get(PODS)
        .header("authorization", format!("Bearer {MARK}"))
        .body(Body::empty());
    let answer = stranger.send(request.expect("a request")).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let events = audited.events().await;
    let decision = "/annotations/authorization.k8s.io~1decision";
    assert_eq!(events[0].pointer(decision), Some(&json!("forbid")));
    assert_eq!(events[0]["user"]["username"], "system:anonymous");
    assert_eq!(events[0]["responseStatus"]["code"], 403);
    assert_eq!(events[1]["user"], json!({}));
    assert_eq!(events[1]["responseStatus"]["reason"], "Unauthorized");
    assert!(!json!(events).to_string().contains(MARK));
}

#[tokio::test]
async fn a_write_whose_client_has_gone_is_logged_with_what_became_of_it() {
    let rules = "- {level: Metadata, omitStages: [RequestReceived], verbs: [create],\n   resources: [{resources: [configmaps]}]}";
    let audited = Audited::start(rules).await;
    let cluster = &audited.cluster;
    // The webhook answers when the client has gone.
    let (asked, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let both = (asked.clone(), gone.clone());
    let remote = Remote::start(&["localhost"], move |request| {
        let (asked, gone) = both.clone();
        let review: Value = serde_json::from_slice(request.body()).expect("JSON");
        let answer = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"],
            "response": {"uid": review["request"]["uid"], "allowed": true}});
        async move {
            asked.notify_one();
            gone.notified().await;
            reply(200, answer.to_string())
        }
    });
    let remote = remote.await;
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]});
    let webhook = json!({"name": "slow.hooks.example", "admissionReviewVersions": ["v1"],
        "sideEffects": "None", "clientConfig": remote.by_url("/x"), "rules": [rule]});
    let configuration = json!({"metadata": {"name": "c"}, "webhooks": [webhook]});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    cluster.post(path, configuration).await.expect(201);
    tokio::select! {
        answer = cluster.post(CONFIG_MAPS, config_map("late")) => panic!("{answer:?}"),
        () = asked.notified() => {}
    }
    gone.notify_one();
    let path = format!("{CONFIG_MAPS}/late");
    let made = async {
        while cluster.get(&path).await.code != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, made)
        .await
        .expect("it is made");
    let events = audited.events().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["responseStatus"]["code"], 201);
    assert_eq!(events[0]["objectRef"]["name"], "late");
}

#[tokio::test]
async fn policies_and_webhooks_write_into_the_log() {
    let rules = "- {level: Metadata, omitStages: [RequestReceived], verbs: [create],\n   resources: [{resources: [configmaps]}]}";
    let audited = Audited::start(rules).await;
    let cluster = &audited.cluster;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]});
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [
            {"expression": "true"},
            {"expression": "object.data.a != 'b'", "message": "no b"},
        ],
        "auditAnnotations": [{"key": "k", "valueExpression": "'a is ' + object.data.a"}],
    }});
    let path = format!("{group}/validatingadmissionpolicies");
    cluster.post(&path, policy).await.expect(201);
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    let path = format!("{group}/validatingadmissionpolicybindings");
    cluster.post(&path, binding).await.expect(201);
    let remote = Remote::start(&["localhost"], move |request| {
        let review: Value = serde_json::from_slice(request.body()).expect("JSON");
        let answer = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"],
            "response": {"uid": review["request"]["uid"], "allowed": true,
                "auditAnnotations": {"said": "hello"}}});
        async move { reply(200, answer.to_string()) }
    });
    let remote = remote.await;
    let webhook = |name: &str, config: Value, failure: &str| {
        json!({"name": format!("{name}.hooks.example"), "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": config, "failurePolicy": failure,
            "rules": [rule]})
    };
    let hooks = [
        webhook("good", remote.by_url("/x"), "Fail"),
        webhook("gone", json!({"url": "https://localhost:1/"}), "Ignore"),
    ];
    let configuration = json!({"metadata": {"name": "c"}, "webhooks": hooks});
    let path = format!("{group}/mutatingwebhookconfigurations");
    cluster.post(&path, configuration).await.expect(201);
    cluster
        .post(CONFIG_MAPS, config_map("one"))
        .await
        .expect(201);
    let events = audited.events().await;
    let annotations = &events[0]["annotations"];
    let failure = json!([{"message": "no b", "policy": "p", "binding": "b", "expressionIndex": 1,
        "validationActions": ["Audit"]}]);
    let noted = annotations["validation.policy.admission.k8s.io/validation_failure"].as_str();
    let noted: Value = serde_json::from_str(noted.unwrap_or_default()).expect("JSON");
    assert_eq!(noted, failure);
    for (key, expected) in [
        ("p/k", "a is b"),
        ("good.hooks.example/said", "hello"),
        (
            "mutation.webhook.admission.k8s.io/round_0_index_0",
            r#"{"configuration":"c","mutated":false,"webhook":"good.hooks.example"}"#,
        ),
        (
            "failed-open.mutation.webhook.admission.k8s.io/round_0_index_1",
            "gone.hooks.example",
        ),
    ] {
        assert_eq!(annotations[key], expected, "{key}: {annotations}");
    }
    assert!(annotations["patch.webhook.admission.k8s.io/round_0_index_0"].is_null());
}

#[tokio::test]
async fn a_webhook_gets_batches_and_a_token_and_no_request_waits_for_it() {
    let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let noted = seen.clone();
    let remote = Remote::start(&["localhost"], move |request| {
        let authorization = request.headers().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body()).expect("JSON");
        noted.lock().expect("whole").push((authorization, body));
        async move { reply(200, "") }
    });
    let remote = remote.await;
    let config = remote.by_url("/audit");
    let kubeconfig = json!({
        "clusters": [{"name": "a", "cluster": {"server": config["url"],
            "certificate-authority-data": config["caBundle"]}}],
        "users": [{"name": "a", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    });
    let rules = "- {level: Metadata, omitStages: [RequestReceived]}";
    let audited = Audited::with(rules, Some(kubeconfig.to_string())).await;
    for _ in 0..3 {
        audited.cluster.get(PODS).await.expect(200);
    }
    let events = audited.events().await;
    let seen = seen.lock().expect("whole").clone();
    assert!(seen.iter().all(|(authorization, body)| {
        authorization == "Bearer t0ken"
            && body["kind"] == "EventList"
            && body["apiVersion"] == "audit.k8s.io/v1"
    }));
    let sent = seen
        .iter()
        .flat_map(|(_, body)| body["items"].as_array().expect("items"));
    assert_eq!(sent.cloned().collect::<Vec<_>>(), events);
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn a_server_does_not_start_without_the_log_that_it_is_to_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.yaml");
    std::fs::write(
        &policy,
        "kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: All}]",
    )
    .expect("a file");
    let file = AuditFileOptions {
        path: directory.path().join("none/audit.log"),
        ..AuditFileOptions::default()
    };
    for (options, expected) in [
        (
            AuditOptions {
                file: Some(file),
                ..AuditOptions::default()
            },
            "an audit log needs a policy",
        ),
        (
            AuditOptions {
                policy: Some(policy),
                ..AuditOptions::default()
            },
            "unknown variant `All`",
        ),
    ] {
        let config = ServerConfig {
            audit: options,
            ..ServerConfig::default()
        };
        let tasks = Tasks::new(Shutdown::new());
        let store = Arc::new(MemoryStore::default());
        let why = ApiServer::build(config, store, None, tasks).await.err();
        let why = why.map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains(expected), "{why}");
    }
}
