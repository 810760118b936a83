//! Requests to servers of this machine.

use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn template() -> Template {
    serde_json::from_value(json!({"name": "c"})).expect("a container")
}

fn action(get: serde_json::Value) -> HTTPGetAction {
    serde_json::from_value(get).expect("an action")
}

/// Answers each request with this code, over TLS with a certificate that nobody knows.
async fn https_server(code: u16) -> SocketAddr {
    use sys::certificates::{Authority, Identity, Usage};
    use sys::tls::{ClientCertificate, ShownCertificate, server_config};
    let authority = Authority::create("nobody", Timestamp::now()).expect("an authority");
    let (who, names) = (Identity::new("x", &[]), ["x".to_owned()]);
    let shown = authority.issue(&who, &names, Usage::Server, Timestamp::now());
    let shown = ShownCertificate::new(&shown.expect("a certificate")).expect("it reads");
    let config = server_config(shown, authority.certificate(), ClientCertificate::Optional);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.expect("TLS")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let service = hyper::service::service_fn(move |_| {
                let answer = http::Response::builder().status(code);
                std::future::ready(answer.body(Empty::<Bytes>::new()))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // The prober hangs up.
            let _ = connection.await;
        }
    });
    address
}

/// Answers each request by its path: what is written after the status line.
async fn http_server(answer: fn(&str) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let Ok(length) = stream.read(&mut head).await else {
                continue;
            };
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let text = format!("HTTP/1.1 {}content-length: 0\r\n\r\n", answer(path));
            // The prober may have hung up.
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_probe_over_https_takes_any_certificate_and_minds_the_answer() {
    let failed = "HTTP probe failed with statuscode: 500".to_owned();
    for (code, expected) in [
        (200, Ok(())),
        (302, Ok(())),
        (500, Err(Failure::Container(failed))),
    ] {
        let address = https_server(code).await;
        let get = action(json!({"port": address.port(), "scheme": "HTTPS"}));
        assert_eq!(probe(&template(), &get, address.ip()).await, expected);
    }
}

#[tokio::test]
async fn a_server_without_tls_fails_a_probe_over_https_and_does_for_a_hook() {
    let address = http_server(|_| "404 Not Found\r\n".to_owned()).await;
    let get = action(json!({"port": address.port(), "scheme": "HTTPS"}));
    let done = probe(&template(), &get, LOOPBACK).await;
    assert!(matches!(done, Err(Failure::Container(_))), "{done:?}");
    assert_eq!(ask(&template(), &get, Some(LOOPBACK)).await, Ok(()));
}

#[tokio::test]
async fn any_answer_to_a_hook_is_a_success_and_none_is_not() {
    let address = http_server(|_| "500 Broken\r\n".to_owned()).await;
    let get = action(json!({"port": address.port()}));
    assert_eq!(ask(&template(), &get, Some(LOOPBACK)).await, Ok(()));
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let get = action(json!({"port": closed.local_addr().expect("one").port()}));
    drop(closed);
    let none = ask(&template(), &get, Some(LOOPBACK)).await;
    assert!(matches!(none, Err(Failure::Container(_))), "{none:?}");
}

#[tokio::test]
async fn redirects_to_the_same_host_are_followed_and_others_are_answers() {
    let address = http_server(|path| match path {
        "/to-bad" => "302 Found\r\nlocation: /bad\r\n".to_owned(),
        "/a/to-good" => "302 Found\r\nlocation: good\r\n".to_owned(),
        "/a/good" => "200 OK\r\n".to_owned(),
        "/away" => "302 Found\r\nlocation: http://192.0.2.1/\r\n".to_owned(),
        "/circle" => "302 Found\r\nlocation: /circle\r\n".to_owned(),
        _ => "500 Broken\r\n".to_owned(),
    });
    let address = address.await;
    for (path, good) in [
        ("/to-bad", false),
        ("/a/to-good", true),
        ("/away", true),
        ("/circle", false),
        ("/bad", false),
    ] {
        let get = action(json!({"port": address.port(), "path": path}));
        let done = probe(&template(), &get, LOOPBACK).await;
        assert_eq!(done.is_ok(), good, "{path}: {done:?}");
    }
}

#[tokio::test]
async fn a_named_host_is_asked_by_its_name() {
    let authority = async |host: &str| {
        let get = action(json!({"port": 80, "host": host}));
        let pod = "192.0.2.7".parse().ok();
        let request = Request::of(&template(), &get, pod).await;
        request
            .map(|request| request.authority())
            .expect("an address")
    };
    assert_eq!(authority("localhost").await, "localhost:80");
    assert_eq!(authority("192.0.2.8").await, "192.0.2.8:80");
    assert_eq!(authority("").await, "192.0.2.7:80");
}

#[tokio::test]
async fn headers_of_the_pod_take_the_place_of_the_usual_ones() {
    let headers = json!([{"name": "User-Agent", "value": "mine"}, {"name": "X", "value": "a"},
        {"name": "X", "value": "b"}]);
    let get = action(json!({"port": 80, "httpHeaders": headers}));
    let request = Request::of(&template(), &get, Some(LOOPBACK)).await;
    let head = request.expect("an address").head().expect("a request");
    let all = |name: &str| {
        let all = head.headers().get_all(name).iter();
        all.map(|it| it.to_str().expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(all("user-agent"), ["mine"]);
    assert_eq!(all("accept"), ["*/*"]);
    assert_eq!(all("x"), ["a", "b"]);
}
