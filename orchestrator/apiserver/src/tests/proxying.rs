//! The proxy: what of a request reaches a pod, a Service or a node, and what comes back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use axum::http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::connections::{Front, Seen, running};
use super::remote::{SLICES, Setting, reply};
use super::*;

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
    for path in ["/stats/summary", "/pods", "/configz", "/metrics/resource"] {
        let answer = setting.cluster.get(&format!("{base}{path}")).await;
        assert_eq!(answer.expect(200), "ok", "{path}");
        seen.lock().expect("whole").clear();
    }
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
async fn a_websocket_of_a_pod_is_reached_through_the_proxy() {
    let setting = Setting::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = service_fn(|mut request: Request<Incoming>| async move {
            assert_eq!(request.headers()["upgrade"], "websocket");
            assert_eq!(request.headers()["sec-websocket-protocol"], "chat");
            assert_eq!(request.uri().to_string(), "/socket?a=b");
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.expect("upgraded"));
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).await.expect("read");
                stream.write_all(&heard).await.expect("written");
                stream.shutdown().await.expect("shut down");
            });
            let mut answer = reply(101, "");
            for (name, value) in [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-accept", "x"),
            ] {
                answer
                    .headers_mut()
                    .insert(name, value.parse().expect("a value"));
            }
            Ok::<_, Infallible>(answer)
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connection.with_upgrades().await.expect("served");
    });
    let pods = BTreeMap::from([("10.100.2.7:8080".to_owned(), address)]);
    let agent = setting.agent("node-2", pods).await;
    setting.node("node-2", &agent).await;
    running(&setting, "web", "node-2", "10.100.2.7").await;
    let front = Front::start(&setting);
    let token = "base64url.bearer.authorization.k8s.io.c2VjcmV0";
    let ask = format!(
        "GET {PODS}/web:8080/proxy/socket?a=b HTTP/1.1\r\nhost: kubernetes\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-protocol: {token}, chat\r\n\r\n"
    );
    let (head, mut stream) = front.ask(&ask).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.to_lowercase().contains("sec-websocket-accept: x"),
        "{head}"
    );
    stream.write_all(b"hello").await.expect("written");
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.expect("an echo");
    assert_eq!(&heard, b"hello");
}
