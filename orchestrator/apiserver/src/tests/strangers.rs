//! Requests that cost more than they say: each is refused soon, and is told why.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::frames;
use super::{CONFIG_MAPS, Cluster, PODS, config_map, pod};
use crate::{ApiServer, Pki, ServerConfig, User};
use sys::certificates::LEAF_VALIDITY;
use sys::tls;

/// Much less than an attack would take, much more than a loaded machine needs.
const SOON: Duration = Duration::from_secs(15);
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

fn nested(levels: usize) -> String {
    format!("{}{}", r#"{"a":"#.repeat(levels), "1") + &"}".repeat(levels)
}

/// Sends it and expects a Status of this code whose message says this.
async fn refused(cluster: &Cluster, [method, path, kind]: [&str; 3], body: &str, why: (u16, &str)) {
    let began = Instant::now();
    let answer = cluster.call(method, path, kind, &body.into()).await;
    let case = format!("{method} {path} {kind} {:.60}", body);
    assert!(began.elapsed() < SOON, "{case} took {:?}", began.elapsed());
    let (code, text) = why;
    let message = answer.message();
    assert_eq!(answer.code.as_u16(), code, "{case}: {message:.300}");
    assert_eq!(answer.body["kind"], "Status", "{case}");
    assert!(message.contains(text), "{case}: {message:.300}");
}

#[tokio::test]
async fn a_document_of_ten_thousand_levels_is_refused_in_every_form() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    let deep = nested(10_000);
    let json = format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","x":{deep}}}"#);
    let list = "[".repeat(10_000) + &"]".repeat(10_000);
    let block = format!("kind: ConfigMap\nx:\n  {}1\n", "- ".repeat(10_000));
    let flow = format!("kind: ConfigMap\nx: {list}\n");
    let operation = format!(r#"[{{"op":"add","path":"/data/y","value":{deep}}}]"#);
    let too_deep = (400, "exceeded max depth");
    let json_type = "application/json";
    refused(&cluster, ["POST", CONFIG_MAPS, json_type], &json, too_deep).await;
    refused(&cluster, ["POST", CONFIG_MAPS, json_type], &list, too_deep).await;
    refused(&cluster, ["PUT", &path, json_type], &json, too_deep).await;
    refused(&cluster, ["DELETE", &path, json_type], &json, too_deep).await;
    for yaml in [block, flow] {
        refused(
            &cluster,
            ["POST", CONFIG_MAPS, "application/yaml"],
            &yaml,
            (400, ""),
        )
        .await;
    }
    for (kind, body) in [(MERGE, &json), (STRATEGIC, &json), (JSON_PATCH, &operation)] {
        refused(&cluster, ["PATCH", &path, kind], body, too_deep).await;
    }
}

#[tokio::test]
async fn aliases_of_yaml_make_no_more_of_a_body_than_a_body_may_be() {
    let cluster = Cluster::start().await;
    let yaml = ["POST", CONFIG_MAPS, "application/yaml"];
    let laughs: String = (1..10)
        .map(|n| {
            format!(
                "x{n}: &x{n} [{}]\n",
                vec![format!("*x{}", n - 1); 10].join(", ")
            )
        })
        .collect();
    let laughs = format!("kind: ConfigMap\nx0: &x0 [ha, ha]\n{laughs}");
    refused(&cluster, yaml, &laughs, (400, "")).await;
    // Few aliases of much: libraries count aliases only.
    let wide = format!(
        "kind: ConfigMap\nx: &x [{}]\ny: [{}]\n",
        "0,".repeat(100_000),
        "*x,".repeat(10_000)
    );
    refused(&cluster, yaml, &wide, (400, "excessive aliasing")).await;
    let long = format!(
        "kind: ConfigMap\nx: &x {}\ny: [{}]\n",
        "z".repeat(500_000),
        "*x,".repeat(9)
    );
    refused(&cluster, yaml, &long, (400, "excessive aliasing")).await;
    let harmless = "kind: ConfigMap\nmetadata: {name: a}\ndata: {a: &a b, c: *a}\n";
    let made = cluster
        .call("POST", CONFIG_MAPS, yaml[2], &harmless.into())
        .await;
    assert_eq!(made.expect(201)["data"], json!({"a": "b", "c": "b"}));
}

#[tokio::test]
async fn a_body_of_too_many_parts_or_bytes_is_refused() {
    let cluster = Cluster::start().await;
    let json = ["POST", PODS, "application/json"];
    let parts = format!(
        r#"{{"spec":{{"containers":[{}{{}}]}}}}"#,
        "{},".repeat(1_000_000)
    );
    refused(
        &cluster,
        json,
        &parts,
        (400, "more than 100000 objects and lists"),
    )
    .await;
    let bytes = format!(r#"{{"x":"{}"}}"#, "y".repeat(3 * 1024 * 1024));
    refused(&cluster, json, &bytes, (413, "limit is 3145728")).await;
    let operations = vec![json!({"op": "test", "path": "/kind", "value": "Pod"}); 10_001];
    cluster.post(PODS, pod("x")).await.expect(201);
    let path = format!("{PODS}/x");
    let patch = Value::from(operations).to_string();
    refused(
        &cluster,
        ["PATCH", &path, JSON_PATCH],
        &patch,
        (413, "maximum operations"),
    )
    .await;
}

#[tokio::test]
async fn reports_of_wrong_fields_are_as_short_as_the_fields_are_long() {
    let cluster = Cluster::start().await;
    let key = "k".repeat(1_000_000);
    let body = format!(r#"{{"{key}":{{{}"a":1}}}}"#, r#""a":1,"#.repeat(200_000));
    let path = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let began = Instant::now();
    let answer = cluster
        .call("POST", &path, "application/json", &body.into())
        .await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(answer.message().contains("strict decoding error"));
    assert!(
        answer.message().len() < 300_000,
        "{}",
        answer.message().len()
    );
    let mut many = config_map("many");
    for n in 0..1000 {
        many[format!("{n:0>200}")] = 1.into();
    }
    let answer = cluster.post(CONFIG_MAPS, many).await;
    let warnings = answer.headers.get_all("warning").iter();
    let bytes: usize = warnings.map(|warning| warning.len()).sum();
    assert!((1000..5000).contains(&bytes), "{bytes} bytes of warnings");
}

#[tokio::test]
async fn lists_of_a_patch_are_merged_in_the_time_that_reading_them_takes() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("x")).await.expect(201);
    let conditions: Vec<Value> = (0..10_000)
        .map(|n| json!({"type": format!("t{n}")}))
        .collect();
    let patch = json!({"status": {"conditions": conditions}});
    let path = format!("{PODS}/x/status");
    for _ in 0..2 {
        let began = Instant::now();
        let answer = cluster.call("PATCH", &path, STRATEGIC, &patch).await;
        assert_eq!(answer.code.as_u16(), 200, "{:.300}", answer.message());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn compressed_bodies_are_not_unpacked() {
    let cluster = Cluster::start().await;
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(Body::from(vec![0x1f, 0x8b, 8, 0]));
    let answer = cluster.send(request.expect("a request")).await;
    assert_eq!(answer.status(), 415);
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let status: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status["reason"], "UnsupportedMediaType");
    assert!(
        status["message"]
            .as_str()
            .is_some_and(|it| it.contains("\"gzip\""))
    );
}

#[tokio::test]
async fn nothing_is_read_of_the_body_of_a_client_that_may_not_send_it() {
    let cluster = Cluster::start().await.as_user(User::anonymous());
    let join = crate::join::PATH;
    for path in [
        PODS,
        CONFIG_MAPS,
        "/livez",
        "/nowhere",
        "/api/v1/nodes",
        join,
    ] {
        let body = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
            panic!("the body is read")
        });
        let request = Request::post(path)
            .body(Body::from_stream(body))
            .expect("a request");
        let code = cluster.send(request).await.status().as_u16();
        assert!([401, 403, 404, 405].contains(&code), "{path}: {code}");
    }
}

#[tokio::test]
async fn every_refusal_that_comes_before_the_body_arrives_over_http2() {
    let directory = tempfile::tempdir().expect("a directory");
    let names = ["localhost".to_owned()];
    let pki = Pki::load_or_create(directory.path(), &names, LEAF_VALIDITY, Timestamp::now());
    let pki = pki.expect("certificates");
    let (authority, admin) = (pki.authority.certificate().to_owned(), pki.issued());
    let cluster = Cluster::build(ServerConfig::default(), Some(pki)).await;
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = ApiServer::bind(here).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = cluster.server.clone();
    tokio::spawn(async move { server.serve(vec![listener]).await });
    let cases = [
        (None, "/orchestrator/v1/join", None, 401),
        (None, PODS, None, 403),
        (None, "/api/v1/nodes", None, 403),
        (
            Some(&admin.admin),
            "/api/v1/namespaces/default/pods/x/log",
            None,
            405,
        ),
        (Some(&admin.admin), "/apis/nowhere", None, 404),
        (Some(&admin.admin), "/api/v1/nothing", None, 404),
        (Some(&admin.admin), PODS, Some("gzip"), 415),
    ];
    for (who, path, encoding, expected) in cases {
        let mut config = tls::client_config(&authority, who).expect("TLS");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = "localhost".try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.expect("TLS");
        let asking = async {
            let mut client = frames::Client::start(stream).await;
            for _ in 0..50 {
                let encoding = encoding.map(|encoding| ("content-encoding", encoding));
                let (stream, heard) = client.begin(path, encoding).await;
                let status: Value = serde_json::from_slice(&heard).unwrap_or_default();
                assert_eq!(status["code"], expected, "{path}: {status}");
                assert_eq!(client.end(stream, 3).await, Ok(()), "{path}");
            }
        };
        let asked = tokio::time::timeout(SOON, asking).await;
        asked.expect("answers in time");
    }
}

#[tokio::test]
async fn patches_make_no_object_larger_than_a_request_may_be() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("x")).await.expect(201);
    let path = format!("{PODS}/x/status");
    let text = "m".repeat(1_800_000);
    let patch = |kind: &str| json!({"status": {"conditions": [{"type": kind, "message": text}]}});
    cluster
        .call("PATCH", &path, STRATEGIC, &patch("a"))
        .await
        .expect(200);
    let refused = cluster.call("PATCH", &path, STRATEGIC, &patch("b")).await;
    assert!(
        refused.message().contains("limit is"),
        "{:.300}",
        refused.message()
    );
    refused.expect(413);
}
