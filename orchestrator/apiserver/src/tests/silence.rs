//! Nothing secret in logs, errors, events and the audit log: marked secrets go through the server, and
//! what comes out of it is searched for the marks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::tokens::testing;
use crate::{AuditFileOptions, AuditOptions};
use sys::telemetry::Capture;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PLAIN: &str = "mArKeD-pLaIn-1";
const TOKEN: &str = "mArKeD-tOkEn-2";
const COMMAND: &str = "mArKeD-cOmMaNd-3";

/// A cluster that logs everything, and whose requests are logged at the level Metadata.
struct Overheard {
    cluster: Cluster,
    directory: tempfile::TempDir,
    capture: Capture,
    /// What must be nowhere.
    marks: Vec<String>,
    /// Bodies of answers that refuse.
    refusals: Vec<String>,
}

impl Overheard {
    async fn start() -> Self {
        let capture = Capture::start("trace").expect("a level");
        let directory = tempfile::tempdir().expect("a directory");
        let policy = directory.path().join("policy.yaml");
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]";
        std::fs::write(&policy, text).expect("a file");
        let config = ServerConfig {
            audit: AuditOptions {
                policy: Some(policy),
                file: Some(AuditFileOptions {
                    path: directory.path().join("audit.log"),
                    ..AuditFileOptions::default()
                }),
                webhook: None,
            },
            ..ServerConfig::default()
        };
        let names = crate::server_names(&[config.advertise.ip()], config.own_service_address());
        let now = jiff::Timestamp::now();
        let pki = directory.path().join("pki");
        let pki = Pki::load_or_create(&pki, &names, sys::certificates::LEAF_VALIDITY, now);
        let mut marks: Vec<String> = [PLAIN, TOKEN].map(str::to_owned).to_vec();
        marks.push(STANDARD.encode(PLAIN));
        marks.extend(private_keys(&directory.path().join("pki")));
        Self {
            cluster: Cluster::build(config, Some(pki.expect("certificates"))).await,
            directory,
            capture,
            marks,
            refusals: Vec::new(),
        }
    }

    async fn send(&mut self, method: &str, path: &str, kind: &str, body: String) -> u16 {
        let body = Value::String(body);
        let answer = self.cluster.call(method, path, kind, &body).await;
        let code = answer.code.as_u16();
        if code >= 400 {
            self.refusals.push(answer.body.to_string());
        }
        code
    }

    async fn with_token(&mut self, path: &str, token: &str) -> u16 {
        let request = Request::post(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from("{}"));
        let stranger = self.cluster.as_user(User::anonymous());
        let answer = stranger.send(request.expect("a request")).await;
        let answer = Answer::of(answer).await;
        self.refusals.push(answer.body.to_string());
        answer.code.as_u16()
    }

    /// Everything that others may read: by where it stands.
    async fn said(&self) -> Vec<(&'static str, String)> {
        let events = self.cluster.get("/api/v1/events").await.expect(200);
        self.cluster.server.close_audit_log(PATIENCE).await;
        let audit = std::fs::read_to_string(self.directory.path().join("audit.log"));
        vec![
            ("the log", self.capture.lines.text()),
            ("a refusal", self.refusals.join("\n")),
            ("an event", events.to_string()),
            ("the audit log", audit.expect("a log")),
        ]
    }
}

/// The lines of the private keys in a directory.
fn private_keys(directory: &std::path::Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory).expect("files") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
        let keys = text.split("PRIVATE KEY-----").skip(1).step_by(2);
        let inside = keys.flat_map(|key| key.lines().map(str::trim));
        lines.extend(inside.filter(|line| line.len() > 20).map(str::to_owned));
    }
    assert!(!lines.is_empty());
    lines
}

/// Secrets that the server takes, and some that are wrong in every way that comes to mind.
async fn secrets(all: &mut Overheard) {
    let encoded = STANDARD.encode(PLAIN);
    let path = format!("{SECRETS}/s");
    let json = "application/json";
    let good = secret(&json!({"key": encoded}));
    assert_eq!(all.send("POST", SECRETS, json, good.clone()).await, 201);
    let mut surprises = Vec::new();
    for (method, path, kind, body, expected) in wrong(&path, &encoded) {
        let code = all.send(method, path, kind, body.clone()).await;
        if code != expected {
            surprises.push((method, kind, body, code, expected));
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
    let immutable = json!({"metadata": {"name": "s"}, "immutable": true, "data": {"key": encoded}});
    assert_eq!(
        all.send("PUT", &path, json, immutable.to_string()).await,
        200
    );
    let other = STANDARD.encode(format!("{PLAIN}!"));
    let changed = secret(&json!({"key": other}));
    assert_eq!(all.send("PUT", &path, json, changed).await, 422);
    let wrong_type = json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.key": PLAIN}});
    all.send("POST", SECRETS, json, wrong_type.to_string())
        .await;
    let docker = json!({"metadata": {"name": "d"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": PLAIN}});
    all.send("POST", SECRETS, json, docker.to_string()).await;
}

fn secret(data: &Value) -> String {
    json!({"metadata": {"name": "s"}, "data": data}).to_string()
}

/// Requests that are refused: method, path, type, body, and the expected code.
fn wrong<'a>(
    path: &'a str,
    encoded: &str,
) -> Vec<(&'static str, &'a str, &'static str, String, u16)> {
    let json = "application/json";
    vec![
        ("POST", SECRETS, json, secret(&json!({"key": encoded})), 409),
        ("POST", SECRETS, json, secret(&json!({"key": PLAIN})), 400),
        (
            "POST",
            SECRETS,
            json,
            secret(&json!({"key": [encoded]})),
            400,
        ),
        (
            "POST",
            SECRETS,
            json,
            format!("{{\"data\": {{\"key\": \"{encoded}\""),
            400,
        ),
        (
            "POST",
            SECRETS,
            "application/yaml",
            format!("data: [{PLAIN}: {PLAIN}"),
            400,
        ),
        (
            "POST",
            SECRETS,
            "application/vnd.kubernetes.protobuf",
            PLAIN.to_owned(),
            400,
        ),
        ("PUT", path, json, secret(&json!({"key": PLAIN})), 400),
        ("PUT", path, "text/plain", PLAIN.to_owned(), 415),
        (
            "PATCH",
            path,
            "application/json-patch+json",
            json!([{"op": "test", "path": "/data/key", "value": PLAIN}]).to_string(),
            422,
        ),
        (
            "PATCH",
            path,
            "application/merge-patch+json",
            json!({"data": {"key": PLAIN}}).to_string(),
            422,
        ),
        (
            "PATCH",
            path,
            "application/strategic-merge-patch+json",
            json!({"data": {"key": [PLAIN]}}).to_string(),
            422,
        ),
        (
            "PATCH",
            path,
            "application/apply-patch+yaml",
            json!({"stringData": {"key": [PLAIN]}}).to_string(),
            400,
        ),
    ]
}

/// Credentials of every kind, good and bad.
async fn credentials(all: &mut Overheard) {
    let json = "application/json";
    assert_eq!(all.with_token(PODS, TOKEN).await, 401);
    assert_eq!(all.with_token("/orchestrator/v1/join", TOKEN).await, 401);
    let join = testing::make(&all.cluster.server.state, None).await.text();
    let (_, secret_part) = join.split_once('.').expect("two parts");
    all.marks.push(secret_part.to_owned());
    all.with_token("/orchestrator/v1/join", &join).await;
    all.with_token(PODS, &join).await;
    let review = json!({"spec": {"token": TOKEN}}).to_string();
    all.send(
        "POST",
        "/apis/authentication.k8s.io/v1/tokenreviews",
        json,
        review,
    )
    .await;
    // A command line is part of the request's address, which the audit log shows, as Kubernetes' does.
    let exec = format!("{PODS}/none/exec?command={COMMAND}&stdout=true");
    all.send("POST", &exec, json, String::new()).await;
}

#[tokio::test]
async fn secrets_that_pass_through_the_server_are_in_no_log_refusal_or_event() {
    let mut all = Overheard::start().await;
    secrets(&mut all).await;
    credentials(&mut all).await;
    let said = all.said().await;
    assert!(
        said[0].1.contains("/api/v1/"),
        "not logged: {:.2000}",
        said[0].1
    );
    for (place, text) in &said {
        for mark in &all.marks {
            let line = text.lines().find(|line| line.contains(mark));
            assert_eq!(line, None, "{mark} is in {place}");
        }
    }
    assert!(!said[0].1.contains(COMMAND), "a command is in the log");
}
