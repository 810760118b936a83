//! A small HTTP server as an extender, and an API of two nodes behind a service.

use std::convert::Infallible;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers every request by its path; gives its address and what it was asked.
async fn extender(answer: fn(&str) -> Option<Value>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Asked::default();
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer, heard.clone()));
        }
    });
    (format!("http://{address}/api"), asked)
}

async fn serve(mut stream: TcpStream, answer: fn(&str) -> Option<Value>, heard: Asked) {
    let mut read = Vec::new();
    while let Ok(Some((path, body, rest))) = request(&mut stream, read).await {
        read = rest;
        heard.lock().expect("no panic").push((path.clone(), body));
        let Some(answer) = answer(&path) else {
            // It hangs.
            return std::future::pending().await;
        };
        let body = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let written = stream.write_all((head + &body).as_bytes()).await;
        if written.is_err() {
            return;
        }
    }
}

/// Path, body, and what was read beyond it.
async fn request(
    stream: &mut TcpStream,
    mut read: Vec<u8>,
) -> std::io::Result<Option<(String, Value, Vec<u8>)>> {
    loop {
        if let Some(end) = read.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |it| it.trim().parse().unwrap_or(0));
            if read.len() >= end + 4 + length {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = serde_json::from_slice(&read[end + 4..end + 4 + length]);
                let rest = read.split_off(end + 4 + length);
                return Ok(Some((path, body.unwrap_or_default(), rest)));
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    }
}

/// An API with nodes `a` and `b` and any pod that is asked for.
fn api() -> Verbs {
    let service = tower::service_fn(|request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        let node = |name: &str| json!({"metadata": {"name": name}});
        let object = match path.contains("/pods/") {
            true => {
                json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/fpga": "1"}}}]}})
            }
            false => json!({"items": [node("a"), node("b")]}),
        };
        Ok::<_, Infallible>(http::Response::new(Body::from(
            object.to_string().into_bytes(),
        )))
    });
    Verbs::new(Client::new(service, "default"))
}

fn key(name: &str) -> PodKey {
    ("ns".to_owned(), name.to_owned())
}

fn of(url: &str) -> Extender {
    Extender {
        url: url.to_owned(),
        filter: "filter".into(),
        prioritize: "prioritize".into(),
        weight: 2,
        timeout_ms: 5000,
        caches_nodes: true,
        ..Extender::default()
    }
}

async fn consult(all: &[Extender]) -> Result<Said, String> {
    let nodes = vec!["a".to_owned(), "b".to_owned()];
    let extenders = Extenders::new(all).await;
    extenders.consult(&api(), &key("p"), "uid-p", nodes).await
}

fn answers(path: &str) -> Option<Value> {
    Some(match path {
        "/api/filter" => json!({"NodeNames": ["b"], "FailedNodes": {"a": "no fpga"}}),
        "/api/prioritize" => json!([{"Host": "b", "Score": 5}]),
        "/api/preempt" => json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "uid-v"}]}}}),
        "/api/bind" => json!({"Error": ""}),
        _ => json!({"Error": "what?"}),
    })
}

#[tokio::test]
async fn an_extender_filters_and_rates_by_names_or_by_whole_nodes() {
    let (url, asked) = extender(answers).await;
    let said = consult(&[of(&url)]).await.expect("it answers");
    assert_eq!(said.nodes, BTreeMap::from([("b".to_owned(), 100)]));
    assert_eq!(said.failed["a"].texts, ["no fpga"]);
    let whole = Extender {
        caches_nodes: false,
        ..of(&url)
    };
    consult(&[whole]).await.expect("it answers");
    let asked = asked.lock().expect("no panic");
    let [by_name, rated, whole, _] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(by_name.1["NodeNames"], json!(["a", "b"]));
    assert_eq!(by_name.1["Pod"]["metadata"]["name"], "p");
    assert_eq!(rated.1["NodeNames"], json!(["b"]), "of those that are left");
    assert_eq!(whole.1["Nodes"]["items"][1]["metadata"]["name"], "b");
}

#[tokio::test]
async fn who_manages_other_resources_is_not_asked_and_who_may_be_ignored_holds_nothing_up() {
    let (url, asked) = extender(answers).await;
    let other = Extender {
        resources: vec!["example.com/gpu".into()],
        ..of(&url)
    };
    assert_eq!(
        consult(&[other]).await.expect("nobody objects").nodes.len(),
        2
    );
    assert!(asked.lock().expect("no panic").is_empty());
    let (hung, _) = extender(|_| None).await;
    let hung = Extender {
        timeout_ms: 50,
        ..of(&hung)
    };
    let why = consult(std::slice::from_ref(&hung))
        .await
        .expect_err("it does not answer");
    assert!(why.contains("no answer to filter within 50ms"), "{why}");
    let ignorable = Extender {
        is_ignorable: true,
        ..hung
    };
    let said = consult(&[ignorable, of(&url)])
        .await
        .expect("the other answers");
    assert_eq!(said.nodes.len(), 1);
}

#[tokio::test]
async fn an_extender_may_spare_pods_and_bind_them() {
    let (url, asked) = extender(answers).await;
    let one = Extender {
        preempt: "preempt".into(),
        bind: "bind".into(),
        ..of(&url)
    };
    let extenders = Extenders::new(&[one]).await;
    let (verbs, pod) = (api(), key("p"));
    let victims = ["v", "w"].map(|name| (key(name), format!("uid-{name}")));
    let about = (&pod, "uid-p");
    let agreed = extenders.agree(&verbs, about, "b", (&victims, 0)).await;
    assert_eq!(agreed, Ok(Some(vec!["uid-v".to_owned()])));
    let refused = extenders.agree(&verbs, about, "a", (&victims, 0)).await;
    assert_eq!(refused, Ok(None));
    let bound = extenders.bind(&verbs, &pod, "uid-p", "b").await;
    assert_eq!(bound, Some(Ok(())));
    let asked = asked.lock().expect("no panic");
    let body = json!({"PodName": "p", "PodNamespace": "ns", "PodUID": "uid-p", "Node": "b"});
    assert_eq!(asked.last().expect("asked").1, body);
    assert_eq!(
        Extenders::new(&[])
            .await
            .bind(&verbs, &pod, "uid-p", "b")
            .await,
        None
    );
}
