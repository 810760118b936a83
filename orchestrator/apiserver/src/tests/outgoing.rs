//! Requests of the server itself, to servers that are slow, endless, hostile or not the ones that are
//! meant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::http::{Response, header};
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::remote::{Remote, SLICES, Setting, reply};
use super::*;
use crate::outgoing::{ClientConfig, post_json};

const SECONDS: Duration = Duration::from_secs(10);

/// What a post of `{"ask": 1}` brings.
async fn post(cluster: &Cluster, config: &Value, timeout: Duration) -> Result<Value, String> {
    let config = ClientConfig::of(config).expect("it reads");
    post_json(&cluster.server.state, &config, &json!({"ask": 1}), timeout).await
}

/// A server that says what it was asked.
async fn echo(names: &[&str]) -> Remote {
    Remote::start(names, async |request| {
        let asked: Value = serde_json::from_slice(request.body()).expect("JSON");
        let path = request.uri().to_string();
        reply(200, json!({"path": path, "asked": asked}).to_string())
    })
    .await
}

#[tokio::test]
async fn a_url_is_posted_to_and_its_certificate_must_be_for_its_name() {
    let cluster = Cluster::start().await;
    let remote = echo(&["localhost"]).await;
    let answer = post(&cluster, &remote.by_url("/review"), SECONDS).await;
    let expected = json!({"path": "/review?timeout=10s", "asked": {"ask": 1}});
    assert_eq!(answer, Ok(expected));
    for (names, bundle) in [
        (&["elsewhere"][..], None),
        (&["localhost"], Some(echo(&[]).await.bundle())),
        (&["localhost"], Some(String::new())),
    ] {
        let remote = echo(names).await;
        let mut config = remote.by_url("/review");
        if let Some(bundle) = bundle {
            config["caBundle"] = bundle.into();
        }
        let why = post(&cluster, &config, SECONDS).await.expect_err("refused");
        let start = format!(
            "Post \"{}?timeout=10s\": tls: ",
            config["url"].as_str().unwrap()
        );
        assert!(why.starts_with(&start), "{why}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let cluster = Cluster::start().await;
    let remote = echo(&["localhost"]).await;
    let config = ClientConfig::of(&remote.by_url("/")).expect("it reads");
    let post = async || {
        let began = Instant::now();
        let answer = post_json(&cluster.server.state, &config, &json!({}), SECONDS).await;
        answer.expect("an answer");
        began.elapsed()
    };
    let first = post().await;
    let mut rest = Vec::new();
    for _ in 0..20 {
        rest.push(post().await);
    }
    rest.sort();
    assert!(
        rest[10] < first,
        "{first:?} with a handshake, then {rest:?}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_given_up() {
    let cluster = Cluster::start().await;
    let short = Duration::from_millis(300);
    let silent = Remote::start(&["localhost"], |_| std::future::pending()).await;
    let why = post(&cluster, &silent.by_url("/slow"), short).await;
    let url = format!(
        "https://localhost:{}/slow?timeout=1s",
        silent.address.port()
    );
    assert_eq!(
        why,
        Err(format!("Post \"{url}\": context deadline exceeded"))
    );
    // Byte by byte, without end.
    let endless = Remote::start(&["localhost"], async |_| {
        let drip = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, std::io::Error>("1"), ()))
        });
        Response::new(Body::from_stream(drip))
    })
    .await;
    let why = post(&cluster, &endless.by_url("/"), short).await;
    assert!(why.is_err_and(|why| why.ends_with("context deadline exceeded")));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let cluster = Cluster::start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let huge = Remote::start(&["localhost"], move |_| {
        let counted = counted.clone();
        let pieces = stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 * 1024]))
        });
        let answer = Response::new(Body::from_stream(pieces.take(16 * 1024)));
        async { answer }
    })
    .await;
    let why = post(&cluster, &huge.by_url("/"), SECONDS).await;
    assert_eq!(why, Err("the answer: length limit exceeded".to_owned()));
    let mib = sent.load(Ordering::Relaxed) / 16;
    assert!(mib < 64, "{mib} MiB of 1024 were read");
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let cluster = Cluster::start().await;
    let secret = Arc::new(AtomicUsize::new(0));
    let asked = secret.clone();
    let other = Remote::start(&["localhost"], move |_| {
        asked.fetch_add(1, Ordering::Relaxed);
        async { reply(200, "{}") }
    })
    .await;
    let location = other.by_url("/")["url"].as_str().unwrap().to_owned();
    for code in [301, 302, 307, 308] {
        let location = location.clone();
        let redirecting = Remote::start(&["localhost"], move |_| {
            let mut answer = reply(code, "");
            let to = location.parse().expect("a header");
            answer.headers_mut().insert(header::LOCATION, to);
            async { answer }
        })
        .await;
        let why = post(&cluster, &redirecting.by_url("/"), SECONDS).await;
        assert!(why.is_err_and(|why| why.contains("redirects are not followed")));
    }
    assert_eq!(secret.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn failures_are_told_in_the_words_of_kubernetes() {
    let cluster = Cluster::start().await;
    for (code, body, expected) in [
        (404, "", "the server could not find the requested resource"),
        (
            500,
            "broken\n",
            "an error on the server (\"broken\") has prevented the request from succeeding",
        ),
        (
            200,
            "no",
            "the answer is not JSON: expected ident at line 1 column 2",
        ),
    ] {
        let remote = Remote::start(&["localhost"], move |_| async move { reply(code, body) });
        let why = post(&cluster, &remote.await.by_url("/"), SECONDS).await;
        assert_eq!(why, Err(expected.to_owned()));
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let config = json!({"url": format!("https://127.0.0.1:{port}/")});
    let why = post(&cluster, &config, SECONDS).await;
    assert_eq!(
        why,
        Err(format!(
            "Post \"https://127.0.0.1:{port}/?timeout=10s\": dial tcp 127.0.0.1:{port}: connect: \
             connection refused"
        ))
    );
}

#[tokio::test]
async fn a_service_is_reached_through_the_agent_of_its_endpoint() {
    let setting = Setting::start().await;
    let remote = echo(&["hook.default.svc"]).await;
    let pod = "10.100.2.7:8443";
    let way = BTreeMap::from([(pod.to_owned(), remote.address)]);
    let far = setting.agent("node-1", BTreeMap::new()).await;
    let near = setting.agent("node-2", way.clone()).await;
    setting.node("node-1", &far).await;
    setting.node("node-2", &near).await;
    let config = remote.by_service("review");
    let post = async || post(&setting.cluster, &config, SECONDS).await;
    let url = "Post \"https://hook.default.svc:443/review?timeout=10s\"";
    assert_eq!(
        post().await,
        Err(format!("{url}: service \"hook\" not found"))
    );
    setting.service(&[]).await;
    let none = format!("{url}: no endpoints available for service \"hook\"");
    assert_eq!(post().await, Err(none));
    let slice = json!({"endpoints": [{"addresses": ["10.100.2.7"], "nodeName": "node-2"}]});
    let path = format!("{SLICES}/hook-1");
    setting.cluster.merge(&path, slice).await.expect(200);
    let answer = post().await.expect("an answer");
    assert_eq!(answer["path"], "/review?timeout=10s");
    assert_eq!((far.asked(), near.asked()), (vec![], vec![pod.to_owned()]));
    // The same name of another authority is not trusted behind a tunnel either.
    let mut other = config.clone();
    other["caBundle"] = echo(&[]).await.bundle().into();
    let why = super::outgoing::post(&setting.cluster, &other, SECONDS).await;
    assert!(why.is_err_and(|why| why.contains(": tls: ")));
}

#[tokio::test]
async fn another_node_leads_to_a_pod_while_its_own_is_away() {
    let setting = Setting::start().await;
    let remote = echo(&["hook.default.svc"]).await;
    let pod = "10.100.2.7:8443".to_owned();
    let way = BTreeMap::from([(pod.clone(), remote.address)]);
    let other = setting.agent("node-1", way).await;
    let own = setting.agent("node-2", BTreeMap::new()).await;
    setting.node("node-1", &other).await;
    setting.node("node-2", &own).await;
    setting.service(&[("10.100.2.7", "node-2")]).await;
    // An agent that answers is believed: the pod does not listen.
    let why = post(&setting.cluster, &remote.by_service("/"), SECONDS).await;
    assert!(why.is_err_and(|why| why.ends_with(": connection refused")));
    assert_eq!((own.asked(), other.asked()), (vec![pod.clone()], vec![]));
    drop(own);
    let answer = post(&setting.cluster, &remote.by_service("/"), SECONDS).await;
    answer.expect("an answer");
    assert_eq!(other.asked(), [pod]);
}

#[tokio::test]
async fn a_service_that_names_what_is_not_a_pod_leads_nowhere() {
    let setting = Setting::start().await;
    let remote = echo(&["hook.default.svc"]).await;
    let agent = setting.agent("node-3", BTreeMap::new()).await;
    setting.node("node-3", &agent).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-4"}});
    setting
        .cluster
        .post("/api/v1/nodes", node)
        .await
        .expect(201);
    let address = json!({"type": "InternalIP", "address": "172.31.0.13"});
    let status = json!({"status": {"addresses": [address]}});
    let path = "/api/v1/nodes/node-4/status";
    setting.cluster.merge(path, status).await.expect(200);
    setting.service(&[]).await;
    for (address, whose) in [
        (
            "172.31.0.13",
            "an address of a node, and not of a pod on its network",
        ),
        ("172.31.0.1", "an address of the API server"),
        ("10.96.0.1", "an address of a Service"),
    ] {
        let endpoint = json!({"addresses": [address], "nodeName": "node-3"});
        let path = format!("{SLICES}/hook-1");
        let slice = json!({"endpoints": [endpoint]});
        setting.cluster.merge(&path, slice).await.expect(200);
        let why = post(&setting.cluster, &remote.by_service("/"), SECONDS).await;
        let expected = format!("endpoint {address} is {whose}");
        assert!(
            why.as_ref().is_err_and(|why| why.ends_with(&expected)),
            "{why:?}"
        );
    }
    assert_eq!(agent.asked(), Vec::<String>::new());
}
