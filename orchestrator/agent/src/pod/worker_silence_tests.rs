//! Nothing secret in the agent's log, in events and in a pod's status: pods with marked Secrets run and fail in
//! every way, and what the agent says is searched for the marks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sys::telemetry::Capture;

use super::*;

const PLAIN: &str = "mArKeD-pLaIn-1";
const PASSWORD: &str = "mArKeD-pAsSwOrD-2";
/// Tokens of the server's double begin with it.
const TOKEN: &str = "token-";
const PRIVATE_IMAGE: &str = "r.example/x:1";

/// Secrets of every use; `broken` is no table of registries.
fn secrets() -> FakeApi {
    let api = FakeApi::default();
    let encode = |text: &str| STANDARD.encode(text);
    let auth = encode(&format!("joe:{PASSWORD}"));
    let table = json!({ "auths": { "r.example": { "auth": auth } } }).to_string();
    let broken = format!("{{\"auths\": {{\"r.example\": \"{PASSWORD}");
    let dockerconfig = |text: &str| json!({ "data": { ".dockerconfigjson": encode(text) } });
    api.put("secrets", "registry", dockerconfig(&table));
    api.put("secrets", "broken", dockerconfig(&broken));
    let values = json!({ "data": { "key": encode(PLAIN), "not a name": encode(PLAIN) } });
    api.put("secrets", "s", values);
    api
}

/// A pod that takes a Secret as variables, arguments and files, has a token and pulls with a password.
fn spec() -> Value {
    let key = json!({ "secretKeyRef": { "name": "s", "key": "key" } });
    json!({
        "restartPolicy": "Always",
        "serviceAccountName": "robot",
        "imagePullSecrets": [{ "name": "broken" }, { "name": "registry" }],
        "containers": [{
            "name": "main", "image": PRIVATE_IMAGE, "args": ["--password=$(KEY)"],
            "env": [{ "name": "KEY", "valueFrom": key }],
            "envFrom": [{ "secretRef": { "name": "s" } }],
            "volumeMounts": [
                { "name": "s", "mountPath": "/s" }, { "name": "t", "mountPath": "/t" },
            ],
        }],
        "volumes": [{ "name": "s", "secret": { "secretName": "s" } }, {
            "name": "t", "projected": { "sources": [{ "serviceAccountToken":
                { "path": "token", "audience": "vault", "expirationSeconds": 600 } }] },
        }],
    })
}

/// What ends a pod that is wrong in one place: what is changed in it, and what is then told of it.
fn failures() -> Vec<(&'static str, Value, &'static str)> {
    let from = |key: &str| json!({ "secretKeyRef": { "name": "s", "key": key } });
    let items = json!([{ "key": "none", "path": "p" }]);
    vec![
        (
            "/containers/0/env/0/valueFrom",
            from("none"),
            "CreateContainerConfigError",
        ),
        ("/volumes/0/secret/items", items, "FailedMount"),
        (
            "/volumes/1/projected/sources/0/serviceAccountToken/audience",
            json!("nobody"),
            "FailedMount",
        ),
        (
            "/containers/0/image",
            json!("r.example/of-another:1"),
            "ErrImagePull",
        ),
        (
            "/containers/0/image",
            json!("fails:1"),
            "ContainerCannotRun",
        ),
    ]
}

fn engine() -> FakeRuntime {
    let runtime = FakeRuntime::default();
    runtime.add_private(PRIVATE_IMAGE, "joe");
    runtime.add_private("r.example/of-another:1", "ann");
    runtime.add_image("fails:1");
    runtime.fail_starts("fails:1", "no");
    runtime
}

/// Bodies of everything that the agent has sent but requests for tokens.
fn sent(stage: &Stage) -> String {
    let told = stage.told.lock().expect("whole");
    let others = told.iter().filter(|(_, path, _)| !path.ends_with("/token"));
    let lines = others.map(|(method, path, body)| format!("{method} {path} {body}\n"));
    lines.collect()
}

/// Both volumes are of memory: this needs root, as the whole of CI has.
#[tokio::test]
async fn secrets_of_a_pod_are_in_no_log_event_or_status_of_the_agent() {
    let capture = Capture::start("trace").expect("a level");
    let mut said = String::new();
    let stage = Stage::with_objects(engine(), spec(), secrets());
    stage.list();
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    let made = stage.node.runtime.spec("main").expect("a container");
    let argument = format!("--password={PLAIN}");
    assert_eq!(made.args, Some(vec![argument]), "the container has it");
    stage.node.runtime.end("main", 1, Timestamp::now());
    let restarted = |it: &Stage| it.status()["containerStatuses"][0]["restartCount"] == 1;
    stage.until("restarted", restarted).await;
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
    said += &sent(&stage);
    for (place, value, told) in failures() {
        let mut spec = spec();
        let (above, field) = place.rsplit_once('/').expect("a path");
        spec.pointer_mut(above).expect("there")[field] = value;
        let stage = Stage::with_objects(engine(), spec, secrets());
        stage.list();
        stage.until(place, |it| sent(it).contains(told)).await;
        said += &sent(&stage);
    }
    let log = capture.lines.text();
    assert!(log.contains("agent"), "nothing is logged");
    for (place, text) in [("the log", &log), ("what was sent", &said)] {
        for mark in [PLAIN, PASSWORD, TOKEN] {
            for form in [mark.to_owned(), STANDARD.encode(mark)] {
                let line = text.lines().find(|line| line.contains(&form));
                assert_eq!(line, None, "{form} is in {place}");
            }
        }
    }
}
