//! exec, attach, port-forward and the proxy: who is asked, what of a request goes on, and what comes back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::http::{Method, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use super::remote::{Remote, SLICES, Setting, reply};
use super::*;
use store::Expect;
use sys::tls;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// What a server was asked, with its body.
type Seen = Arc<Mutex<Vec<Request<Vec<u8>>>>>;

/// Writes a pod as its node would have it. Not through the API: no client may say all of it.
async fn running(setting: &Setting, name: &str, node: &str, address: &str) {
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
struct Front {
    address: SocketAddr,
    authority: String,
    admin: sys::certificates::Credentials,
}

impl Front {
    fn start(setting: &Setting) -> Self {
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
    async fn ask(&self, head: &str) -> (String, TlsStream<TcpStream>) {
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
async fn webhooks_and_policies_see_what_a_connection_is_for_and_refuse_it() {
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

/// A server of plain HTTP on loopback that says what it was asked.
async fn plain(seen: &Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.expect("a body").to_bytes();
                    let answer = match parts.uri.path() {
                        "/moved" => moved("/elsewhere?a=b"),
                        "/page" => page("<a href=\"/next\">x</a><a href=\"rel\">y</a>"),
                        _ => reply(207, "done"),
                    };
                    let request = Request::from_parts(parts, body.to_vec());
                    seen.lock().expect("whole").push(request);
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

fn moved(to: &str) -> Response<Body> {
    let mut answer = reply(302, "");
    answer
        .headers_mut()
        .insert("location", to.parse().expect("a value"));
    answer
}

fn page(text: &str) -> Response<Body> {
    let mut answer = reply(200, text.to_owned());
    let kind = "text/html; charset=utf-8".parse().expect("a value");
    answer.headers_mut().insert("content-type", kind);
    answer
}

/// A pod with a server behind an agent, and a Service of it.
async fn proxied(seen: &Seen) -> Setting {
    let setting = Setting::start().await;
    let address = plain(seen).await;
    let pods = BTreeMap::from([("10.100.2.7:8080".to_owned(), address)]);
    let agent = setting.agent("node-2", pods).await;
    setting.node("node-2", &agent).await;
    std::mem::forget(agent);
    running(&setting, "web", "node-2", "10.100.2.7").await;
    let service = service(
        "web",
        json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
    );
    setting.cluster.post(SERVICES, service).await.expect(201);
    setting
        .cluster
        .post(SLICES, slice("web", "10.100.2.7", 8080))
        .await
        .expect(201);
    setting
}

fn slice(pod: &str, address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"generateName": "web-", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [address], "nodeName": "node-2",
            "targetRef": {"kind": "Pod", "name": pod, "namespace": "default"}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}

#[tokio::test]
async fn a_proxied_request_goes_to_the_pod_with_its_path_and_without_credentials() {
    let seen = Seen::default();
    let setting = proxied(&seen).await;
    let bases = [
        format!("{PODS}/web/proxy"),
        format!("{PODS}/http:web:http/proxy"),
        format!("{SERVICES}/web:80/proxy"),
        format!("{SERVICES}/web:http/proxy"),
    ];
    for base in &bases {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request = Request::builder()
                .method(method)
                .uri(format!("{base}/a%20b/../c/?x=%2F..&y"))
                .header("host", "api.example")
                .header("authorization", "Bearer secret")
                .header("x-remote-user", "root")
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("x-kept", "2")
                .body(Body::from("body"));
            let answer = setting.cluster.send(request.expect("a request")).await;
            let answer = Answer::of(answer).await;
            assert_eq!(answer.code.as_u16(), 207, "{base}: {}", answer.body);
            assert_eq!(answer.body, "done");
            let asked = seen.lock().expect("whole").pop().expect("asked");
            assert_eq!(asked.method(), method);
            assert_eq!(asked.uri().to_string(), "/c/?x=%2F..&y");
            assert_eq!(asked.body(), b"body");
            let said = |name: &str| {
                asked
                    .headers()
                    .get(name)
                    .map(|it| it.to_str().expect("text"))
            };
            assert_eq!(said("host"), Some("api.example"));
            assert_eq!(said("x-kept"), Some("2"));
            assert_eq!(said("x-forwarded-uri"), Some(&*format!("{base}/c/")));
            for name in ["authorization", "x-remote-user", "x-hop", "connection"] {
                assert_eq!(said(name), None, "{name}");
            }
        }
    }
    let root = setting.cluster.get(&format!("{}?a=b", bases[2])).await;
    assert_eq!(root.code.as_u16(), 301);
    assert_eq!(root.headers["location"], format!("{}/?a=b", bases[2]));
}

#[tokio::test]
async fn links_of_what_is_proxied_lead_through_the_proxy() {
    let seen = Seen::default();
    let setting = proxied(&seen).await;
    let base = format!("{SERVICES}/web:80/proxy");
    let moved = setting.cluster.get(&format!("{base}/moved")).await;
    assert_eq!(moved.code.as_u16(), 302);
    assert_eq!(moved.headers["location"], format!("{base}/elsewhere?a=b"));
    let page = setting.cluster.get(&format!("{base}/page")).await;
    let expected = format!("<a href=\"{base}/next\">x</a><a href=\"rel\">y</a>");
    assert_eq!(page.body, expected);
    assert!(!page.headers.contains_key("content-length"));
}

#[tokio::test]
async fn a_proxy_leads_to_pods_only_whoever_writes_addresses() {
    let seen = Seen::default();
    let setting = proxied(&seen).await;
    for (name, address) in [
        ("loop", "127.0.0.1"),
        ("metadata", "169.254.169.254"),
        ("service", "10.96.0.1"),
        ("server", "172.31.0.1"),
        ("none", ""),
    ] {
        running(&setting, name, "node-2", address).await;
        let answer = setting
            .cluster
            .get(&format!("{PODS}/{name}:80/proxy/"))
            .await;
        assert_eq!(answer.message(), "address not allowed", "{name}");
        answer.expect(400);
    }
    let other = service("other", json!({"ports": [{"name": "http", "port": 80}]}));
    setting.cluster.post(SERVICES, other).await.expect(201);
    // Of no pod, of another pod's address, of this machine.
    for (pod, address) in [
        ("web", "10.100.2.8"),
        ("nobody", "10.100.2.7"),
        ("loop", "192.0.2.1"),
    ] {
        let mut slice = slice(pod, address, 8080);
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = "other".into();
        setting.cluster.post(SLICES, slice).await.expect(201);
    }
    for (path, code, message) in [
        (
            "other:80/proxy/",
            503,
            "no endpoints available for service \"other:80\"",
        ),
        (
            "web/proxy/",
            503,
            "no endpoints available for service \"web\"",
        ),
        (
            "web:81/proxy/",
            503,
            "no service port 81 found for service \"web\"",
        ),
        ("nothing:80/proxy/", 404, "services \"nothing\" not found"),
        (
            "ftp:web:80/proxy/",
            400,
            "invalid service request \"ftp:web:80\"",
        ),
    ] {
        let answer = setting.cluster.get(&format!("{SERVICES}/{path}")).await;
        assert_eq!(
            (answer.message(), answer.code.as_u16()),
            (message, code),
            "{path}"
        );
    }
    assert_eq!(seen.lock().expect("whole").len(), 0);
}

#[tokio::test]
async fn of_a_node_s_agent_the_proxy_shows_what_is_read_and_opens_nothing() {
    let setting = Setting::start().await;
    let seen = Seen::default();
    let noted = seen.clone();
    let service = move |request: Request<Incoming>| {
        let request = request.map(|_| Vec::new());
        noted.lock().expect("whole").push(request);
        reply(200, "ok")
    };
    let agent = setting.agent_serving("node-2", service).await;
    setting.node("node-2", &agent).await;
    let base = "/api/v1/nodes/node-2/proxy";
    let answer = setting.cluster.get(&format!("{base}/metrics?a=b")).await;
    assert_eq!(answer.expect(200), "ok");
    let asked = seen.lock().expect("whole").pop().expect("asked");
    assert_eq!(asked.uri().to_string(), "/metrics?a=b");
    for (method, path) in [
        ("POST", "/exec/default/web/c?command=sh"),
        ("GET", "/exec/default/web/c?command=sh"),
        ("GET", "/metrics/../exec/default/web/c"),
        ("GET", "/containerLogs%2f..%2fexec%2fdefault%2fweb%2fc"),
        ("GET", "/metricsandmore"),
        ("POST", "/metrics"),
        ("GET", "/"),
    ] {
        let path = format!("{base}{path}");
        let answer = setting.cluster.call(method, &path, "", &Value::Null).await;
        assert_eq!(answer.code.as_u16(), 403, "{path}: {}", answer.body);
    }
    // Its address is one of loopback here, which no other port of is reached.
    let other = setting
        .cluster
        .get("/api/v1/nodes/node-2:6443/proxy/")
        .await;
    assert_eq!(other.message(), "address not allowed");
    assert_eq!(seen.lock().expect("whole").len(), 0);
}

#[tokio::test]
async fn who_may_do_nothing_opens_no_stream() {
    let seen = Seen::default();
    let setting = proxied(&seen).await;
    let jane = setting.cluster.as_user(User::named("jane", vec![]));
    for (method, verb) in [("GET", "get"), ("POST", "create"), ("DELETE", "delete")] {
        for path in ["web/exec", "web/attach", "web/portforward", "web/proxy/a"] {
            let path = format!("{PODS}/{path}");
            let answer = jane.call(method, &path, "", &Value::Null).await;
            let message = answer.message().to_owned();
            assert!(
                message.contains(&format!("cannot {verb} resource \"pods/")),
                "{message}"
            );
            answer.expect(403);
        }
    }
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
