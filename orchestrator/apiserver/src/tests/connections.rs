//! exec, attach, port-forward and the proxy: who is asked, what of a request goes on, and what comes back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use futures::StreamExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite};

use super::remote::{Remote, Setting, reply};
use super::*;
use store::Expect;
use sys::tls;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// What a server was asked, with its body.
pub type Seen = Arc<Mutex<Vec<Request<Vec<u8>>>>>;

/// Writes a pod as its node would have it. Not through the API: no client may say all of it.
pub async fn running(setting: &Setting, name: &str, node: &str, address: &str) {
    let pods = api::find("", "v1", "pods").expect("served");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"nodeName": node, "containers": [
            {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    });
    let objects = &setting.cluster.server.state.objects;
    let written = objects.write(pods, &pod, Expect::Absent, Vec::new()).await;
    written.expect("written");
}

/// An agent that gives its connection away to whoever asks for a stream, and echoes in capitals.
async fn streaming_agent(setting: &Setting, seen: &Seen) {
    let seen = seen.clone();
    let service = move |mut request: Request<Incoming>| {
        let upgraded = hyper::upgrade::on(&mut request);
        let path = request.uri().path().to_owned();
        seen.lock()
            .expect("whole")
            .push(request.map(|_| Vec::new()));
        if path.contains("/gone/") {
            return reply(404, "container not found (\"c\")");
        }
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.expect("upgraded"));
            let mut heard = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut heard).await {
                let said = heard[..length].to_ascii_uppercase();
                stream.write_all(&said).await.expect("written");
            }
        });
        let mut answer = reply(101, "");
        let headers = answer.headers_mut();
        headers.insert("connection", "Upgrade".parse().expect("a value"));
        headers.insert("upgrade", "SPDY/3.1".parse().expect("a value"));
        let version = "v4.channel.k8s.io".parse().expect("a value");
        headers.insert("x-stream-protocol-version", version);
        answer
    };
    let agent = setting.agent_serving("node-2", service).await;
    setting.node("node-2", &agent).await;
    // It answers as long as the test lasts.
    std::mem::forget(agent);
}

/// Serves the cluster on loopback, and gives connections of an administrator.
pub struct Front {
    address: SocketAddr,
    authority: String,
    admin: sys::certificates::Credentials,
}

impl Front {
    pub fn start(setting: &Setting) -> Self {
        let state = &setting.cluster.server.state;
        let pki = state.pki.as_ref().expect("certificates");
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = ApiServer::bind(here).expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = setting.cluster.server.clone();
        tokio::spawn(async move { server.serve(vec![listener]).await });
        Self {
            address,
            authority: pki.authority.certificate().to_owned(),
            admin: pki.issued().admin.clone(),
        }
    }

    async fn dial(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let config = tls::client_config(&self.authority, Some(&self.admin));
        let mut config = config.expect("TLS");
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let name = "kubernetes".try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.expect("TLS")
    }

    /// The head of the answer to a request, and the connection.
    pub async fn ask(&self, head: &str) -> (String, TlsStream<TcpStream>) {
        let mut stream = self.dial(b"http/1.1").await;
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
            heard.push(byte.expect("in time").expect("an answer"));
        }
        (String::from_utf8(heard).expect("text"), stream)
    }
}

fn exec(pod: &str, query: &str) -> String {
    format!(
        "POST {PODS}/{pod}/exec?{query} HTTP/1.1\r\nhost: kubernetes\r\nauthorization: Basic c2VjcmV0\r\n\
         connection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\
         cookie: a=b\r\ncontent-length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn an_exec_is_a_stream_between_the_client_and_the_agent_of_the_pod_s_node() {
    let setting = Setting::start().await;
    let seen = Seen::default();
    streaming_agent(&setting, &seen).await;
    running(&setting, "web", "node-2", "10.100.2.7").await;
    let front = Front::start(&setting);
    let query = "command=sh&command=-c&command=echo%20%26&stdin=true&stdout=1&tty=0&container=c";
    let (head, mut stream) = front.ask(&exec("web", query)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("upgrade: spdy/3.1") && lower.contains("connection: upgrade"));
    assert!(lower.contains("x-stream-protocol-version: v4.channel.k8s.io"));
    for round in ["hello", "again"] {
        stream.write_all(round.as_bytes()).await.expect("written");
        let mut heard = vec![0; round.len()];
        stream.read_exact(&mut heard).await.expect("an echo");
        assert_eq!(heard, round.to_uppercase().as_bytes());
    }
    stream.shutdown().await.expect("shut down");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("an end");
    let asked = seen.lock().expect("whole").pop().expect("asked");
    assert_eq!(asked.method(), Method::POST);
    assert_eq!(
        asked.uri().to_string(),
        "/exec/default/web/c?stdin=true&stdout=true&command=sh&command=-c&command=echo%20%26"
    );
    for name in ["authorization", "cookie"] {
        assert!(!asked.headers().contains_key(name), "{name}");
    }
    let pod = setting
        .cluster
        .get(&format!("{PODS}/web"))
        .await
        .expect(200);
    let uid = &asked.headers()[api::meta::POD_UID_HEADER];
    assert_eq!(uid.to_str().ok(), pod["metadata"]["uid"].as_str());
}

#[tokio::test]
async fn a_stream_that_cannot_be_is_told_as_a_status() {
    let setting = Setting::start().await;
    let seen = Seen::default();
    streaming_agent(&setting, &seen).await;
    running(&setting, "web", "node-2", "10.100.2.7").await;
    running(&setting, "gone", "node-2", "10.100.2.8").await;
    running(&setting, "early", "", "").await;
    let front = Front::start(&setting);
    for (pod, query, code, message) in [
        ("gone", "command=a", 404, "container not found (\"c\")"),
        ("nobody", "command=a", 404, "pods \"nobody\" not found"),
        (
            "early",
            "command=a",
            400,
            "pod early does not have a host assigned",
        ),
        (
            "web",
            "command=a&container=x",
            400,
            "container x is not valid for pod web",
        ),
        (
            "web",
            "command=a&dryRun=All",
            400,
            "dryRun is not supported",
        ),
    ] {
        let (head, mut stream) = front.ask(&exec(pod, query)).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {code}")),
            "{pod}: {head}"
        );
        let length = head.to_lowercase();
        let (_, length) = length.split_once("content-length: ").expect("a length");
        let length = length.lines().next().expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).await.expect("a body");
        let status: Value = serde_json::from_slice(&body).expect("a Status");
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&json!("Status"), &json!(code))
        );
        assert_eq!(status["message"], message);
    }
    // Without an upgrade, and where there is none: in process as over HTTP/2.
    for method in ["GET", "POST"] {
        for part in ["exec?command=a", "attach", "portforward"] {
            let path = format!("{PODS}/web/{part}");
            let answer = setting.cluster.call(method, &path, "", &Value::Null).await;
            assert_eq!(answer.message(), "Upgrade request required");
            answer.expect(400);
        }
    }
    let mut client = frames::Client::start(front.dial(b"h2").await).await;
    let path = format!("{PODS}/web/exec?command=a");
    let (_, heard) = client.begin(&path, None).await;
    let status: Value = serde_json::from_slice(&heard).expect("a Status");
    assert_eq!(status["code"], 400);
    assert_eq!(seen.lock().expect("whole").len(), 1, "one was passed on");
}

#[tokio::test]
async fn webhooks_see_what_a_connection_is_for_and_refuse_it() {
    let setting = Setting::start().await;
    running(&setting, "to-be-attached-pod", "node-2", "10.100.2.7").await;
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let noted = seen.clone();
    let hook = Remote::start(&["localhost"], move |request| {
        let review: Value = serde_json::from_slice(request.body()).expect("JSON");
        let asked = review["request"].clone();
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": asked["uid"], "allowed": false, "status": {
                "message": "attaching to pod 'to-be-attached-pod' is not allowed"}}});
        noted.lock().expect("whole").push(asked);
        async move { reply(200, answer.to_string()) }
    })
    .await;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "deny"},
        "webhooks": [{
            "name": "deny-attaching-pod.k8s.io", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": hook.by_url("/pods/attach"),
            "rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods/attach"]}],
        }],
    });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    setting.cluster.post(path, configuration).await.expect(201);
    let pod = format!("{PODS}/to-be-attached-pod");
    let attach = format!("{pod}/attach?container=c&stdin=true&stdout=true");
    let refused = setting.cluster.post(&attach, Value::Null).await;
    assert_eq!(
        refused.message(),
        "admission webhook \"deny-attaching-pod.k8s.io\" denied the request: attaching to pod \
         'to-be-attached-pod' is not allowed"
    );
    let asked = seen.lock().expect("whole").pop().expect("asked");
    assert_eq!(asked["operation"], "CONNECT");
    assert_eq!(
        asked["kind"],
        json!({"group": "", "version": "v1", "kind": "PodAttachOptions"})
    );
    assert_eq!(asked["resource"]["resource"], "pods");
    assert_eq!(
        (&asked["subResource"], &asked["name"], &asked["namespace"]),
        (
            &json!("attach"),
            &json!("to-be-attached-pod"),
            &json!("default")
        )
    );
    let options = json!({"kind": "PodAttachOptions", "apiVersion": "v1", "container": "c",
        "stdin": true, "stdout": true});
    assert_eq!(
        (&asked["object"], &asked["options"]),
        (&options, &Value::Null)
    );
}

#[tokio::test]
async fn policies_see_the_options_of_a_connection() {
    let setting = Setting::start().await;
    running(&setting, "web", "node-2", "10.100.2.7").await;
    let pod = format!("{PODS}/web");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-shells"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CONNECT"], "apiGroups": [""],
                "apiVersions": ["v1"], "resources": ["pods/exec"]}]},
            "validations": [{"expression":
                "request.kind.kind != 'PodExecOptions' || object.command[0] != 'sh'",
                "message": "no shells"}],
        },
    });
    setting.cluster.post(POLICIES, policy).await.expect(201);
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {"policyName": "no-shells", "validationActions": ["Deny"]},
    });
    setting.cluster.post(BINDINGS, binding).await.expect(201);
    let refused = setting.cluster.get(&format!("{pod}/exec?command=sh")).await;
    assert!(
        refused.message().ends_with("denied request: no shells"),
        "{}",
        refused.message()
    );
    let allowed = setting.cluster.get(&format!("{pod}/exec?command=ls")).await;
    assert_eq!(allowed.message(), "Upgrade request required");
}

#[tokio::test]
async fn discovery_lists_what_connects_with_the_kinds_of_its_options() {
    let cluster = Cluster::start().await;
    let list = cluster.get("/api/v1").await.expect(200);
    let list = list["resources"].as_array().expect("a list").clone();
    for (name, kind, verbs) in [
        ("pods/exec", "PodExecOptions", json!(["create", "get"])),
        ("pods/attach", "PodAttachOptions", json!(["create", "get"])),
        (
            "pods/portforward",
            "PodPortForwardOptions",
            json!(["create", "get"]),
        ),
        (
            "pods/proxy",
            "PodProxyOptions",
            json!(["create", "delete", "get", "patch", "update"]),
        ),
        (
            "services/proxy",
            "ServiceProxyOptions",
            json!(["create", "delete", "get", "patch", "update"]),
        ),
        (
            "nodes/proxy",
            "NodeProxyOptions",
            json!(["create", "delete", "get", "patch", "update"]),
        ),
        (
            "pods/ephemeralcontainers",
            "Pod",
            json!(["get", "patch", "update"]),
        ),
    ] {
        let found = list.iter().find(|it| it["name"] == name).expect(name);
        assert_eq!(
            (&found["kind"], &found["verbs"]),
            (&json!(kind), &verbs),
            "{name}"
        );
    }
    let paths = cluster.get("/openapi/v3/api/v1").await.expect(200)["paths"].clone();
    let exec = &paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"];
    assert_eq!(
        exec["get"]["operationId"],
        "connectCoreV1GetNamespacedPodExec"
    );
    let proxy = &paths["/api/v1/nodes/{name}/proxy/{path}"];
    assert_eq!(
        proxy["options"]["operationId"],
        "connectCoreV1OptionsNodeProxyWithPath"
    );
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_never_changed() {
    let setting = Setting::start().await;
    running(&setting, "web", "node-2", "10.100.2.7").await;
    let cluster = &setting.cluster;
    let path = format!("{PODS}/web/ephemeralcontainers");
    let add = |containers: Value| json!({"spec": {"ephemeralContainers": containers}});
    let debugger = json!({"name": "d", "image": "busybox", "targetContainerName": "c",
        "stdin": true, "tty": true});
    let mut patch = add(json!([debugger]));
    patch["metadata"] = json!({"labels": {"smuggled": "yes"}});
    let kind = "application/strategic-merge-patch+json";
    let pod = cluster.call("PATCH", &path, kind, &patch).await.expect(200);
    let added = &pod["spec"]["ephemeralContainers"][0];
    assert_eq!(
        (&added["name"], &added["imagePullPolicy"]),
        (&json!("d"), &json!("Always"))
    );
    assert_eq!(pod["metadata"]["labels"], Value::Null);
    assert_eq!(pod["spec"]["containers"][0]["image"], "i");
    let whole = cluster.get(&format!("{PODS}/web")).await.expect(200);
    let mut smuggled = whole.clone();
    smuggled["spec"]["ephemeralContainers"] = json!([]);
    cluster
        .put(&format!("{PODS}/web"), smuggled)
        .await
        .expect(422);
    let mut labelled = whole;
    labelled["metadata"]["labels"] = json!({"a": "b"});
    cluster
        .put(&format!("{PODS}/web"), labelled)
        .await
        .expect(200);
}

#[tokio::test]
async fn an_ephemeral_container_that_is_wrong_is_told_why() {
    let setting = Setting::start().await;
    running(&setting, "web", "node-2", "10.100.2.7").await;
    let cluster = &setting.cluster;
    let path = format!("{PODS}/web/ephemeralcontainers");
    let add = |containers: Value| json!({"spec": {"ephemeralContainers": containers}});
    let debugger = json!({"name": "d", "image": "busybox", "targetContainerName": "c"});
    let pod = cluster
        .merge(&path, add(json!([debugger])))
        .await
        .expect(200);
    let added = &pod["spec"]["ephemeralContainers"][0];
    let wrong = async |containers: Value| {
        let answer = cluster.merge(&path, add(containers)).await;
        let message = answer.message().to_owned();
        answer.expect(422);
        message
    };
    let removed = wrong(json!([])).await;
    assert!(
        removed.contains("existing ephemeral containers \"d\" may not be removed"),
        "{removed}"
    );
    let changed = json!({"name": "d", "image": "other", "targetContainerName": "c"});
    let changed = wrong(json!([changed])).await;
    assert!(
        changed.contains("existing ephemeral containers \"d\" may not be changed"),
        "{changed}"
    );
    for (container, expected) in [
        (
            json!({"name": "c", "image": "i"}),
            "name: Duplicate value: \"c\"",
        ),
        (
            json!({"name": "e", "image": "i", "targetContainerName": "x"}),
            "targetContainerName: Not found: \"x\"",
        ),
        (
            json!({"name": "e", "image": "i", "ports": [{"containerPort": 80}]}),
            "ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (json!({"name": "e"}), "image: Required value"),
    ] {
        let said = wrong(json!([added, container])).await;
        assert!(
            said.contains(&format!("spec.ephemeralContainers[1].{expected}")),
            "{said}"
        );
    }
}

/// Pods whose containers wait, crash, go on or are not there yet, and an agent that has their logs.
async fn logging(seen: &Seen) -> Setting {
    let setting = Setting::start().await;
    let noted = seen.clone();
    let service = move |request: Request<Incoming>| {
        let is_waiting = request.uri().path().contains("/waiting/");
        noted
            .lock()
            .expect("whole")
            .push(request.map(|_| Vec::new()));
        match is_waiting {
            true => reply(
                400,
                "container \"c\" in pod \"waiting\" is waiting to start: X",
            ),
            false => reply(200, "words\n"),
        }
    };
    let agent = setting.agent_serving("node-2", service).await;
    setting.node("node-2", &agent).await;
    let objects = &setting.cluster.server.state.objects;
    let pods = api::find("", "v1", "pods").expect("served");
    let ended = json!({"terminated": {"exitCode": 1}});
    for (name, node, status) in [
        (
            "waiting",
            "node-2",
            json!({"state": {"waiting": {"reason": "ErrImagePull"}}}),
        ),
        (
            "crashing",
            "node-2",
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}),
        ),
        (
            "restarted",
            "node-2",
            json!({"state": {"running": {}}, "lastState": ended}),
        ),
        ("early", "", json!({})),
    ] {
        let mut status = status;
        status["name"] = "c".into();
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "containerStatuses": [status]}});
        let written = objects.write(pods, &pod, Expect::Absent, Vec::new());
        written.await.expect("written");
    }
    std::mem::forget(agent);
    setting
}

#[tokio::test]
async fn a_log_is_that_of_the_run_which_is_meant_and_says_why_there_is_none() {
    let seen = Seen::default();
    let setting = logging(&seen).await;
    let waiting = setting.cluster.get(&format!("{PODS}/waiting/log")).await;
    assert_eq!(
        waiting.message(),
        "container \"c\" in pod \"waiting\" is waiting to start: image can't be pulled"
    );
    waiting.expect(400);
    seen.lock().expect("whole").clear();
    for (pod, expected) in [
        ("crashing", "previous=false"),
        ("restarted", "previous=true"),
    ] {
        let path = format!("{PODS}/{pod}/log?previous=true&tailLines=5");
        assert_eq!(setting.cluster.get(&path).await.expect(200), "words\n");
        let asked = seen.lock().expect("whole").pop().expect("asked");
        let expected = format!("/containerLogs/default/{pod}/c?{expected}&tailLines=5");
        assert_eq!(asked.uri().to_string(), expected);
        let uid = &asked.headers()[api::meta::POD_UID_HEADER];
        assert_eq!(uid.to_str().ok(), Some(format!("uid-{pod}").as_str()));
    }
    let early = setting.cluster.get(&format!("{PODS}/early/log")).await;
    assert_eq!(early.expect(200), "");
    let wrong = setting
        .cluster
        .get(&format!("{PODS}/waiting/log?tailLines=-1"))
        .await;
    assert_eq!(
        wrong.message(),
        "PodLogOptions \"waiting\" is invalid: tailLines: Invalid value: -1: must be greater than or \
         equal to 0"
    );
    wrong.expect(422);
    assert_eq!(seen.lock().expect("whole").len(), 0);
}

/// The messages that a client of a path gets until the server closes or `most` are there.
async fn messages(front: &Front, path: &str, most: usize) -> Vec<tungstenite::Message> {
    let ask = format!(
        "GET {path} HTTP/1.1\r\nhost: kubernetes\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: binary.k8s.io\r\n\r\n"
    );
    let (head, stream) = front.ask(&ask).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let role = tungstenite::protocol::Role::Client;
    let socket = WebSocketStream::from_raw_socket(stream, role, None).await;
    let said = socket.filter_map(async |message| message.ok().filter(|it| !it.is_close()));
    tokio::time::timeout(PATIENCE, said.take(most).collect())
        .await
        .expect("in time")
}

#[tokio::test]
async fn a_log_and_a_watch_are_had_as_websocket_messages_too() {
    let seen = Seen::default();
    let setting = logging(&seen).await;
    let front = Front::start(&setting);
    let log = messages(&front, &format!("{PODS}/restarted/log"), 9).await;
    assert_eq!(log, [tungstenite::Message::binary("words\n")]);
    let watch = messages(&front, &format!("{PODS}?watch=true"), 2).await;
    let names = watch.iter().map(|event| {
        let event: Value = serde_json::from_str(event.to_text().expect("text")).expect("JSON");
        assert_eq!(event["type"], "ADDED");
        event["object"]["metadata"]["name"].clone()
    });
    assert_eq!(names.collect::<Vec<_>>(), ["crashing", "early"]);
    let refused = front
        .ask(&format!(
            "GET {PODS}/nothing/log HTTP/1.1\r\nhost: kubernetes\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    assert!(refused.0.starts_with("HTTP/1.1 404"), "{}", refused.0);
}
