//! The API server of the worker's tests.

use super::*;

/// Answers as the API server does when all Ready nodes have come that far, or when the caller's time is over.
async fn all_applied(heard: Heard, uri: &http::Uri) -> Value {
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let revision: u64 = number(uri.path().rsplit('/').next());
    let patience =
        Duration::from_millis(number(uri.query().and_then(|it| it.split('=').next_back())));
    let behind = |nodes: &BTreeMap<String, (bool, Option<u64>)>| -> Vec<String> {
        let behind = nodes
            .iter()
            .filter(|(_, (ready, at))| *ready && at.is_none_or(|at| at < revision));
        behind.map(|(name, _)| name.clone()).collect()
    };
    let mut nodes = heard.subscribe();
    let all = nodes.wait_for(|nodes| behind(nodes).is_empty());
    drop(tokio::time::timeout(patience, all).await);
    json!({ "behind": behind(&heard.borrow()) })
}

/// A token that says how many have been given; none for the audience `nobody`.
fn token_status(told: &Told, request: &Value) -> Value {
    let told = told.lock().expect("whole");
    let given = told.iter().filter(|(_, path, _)| path.ends_with("/token"));
    let token = match request["spec"]["audiences"][0] == "nobody" {
        true => String::new(),
        false => format!("token-{}", given.count()),
    };
    let seconds = request["spec"]["expirationSeconds"].as_i64();
    let ends = Timestamp::now() + jiff::SignedDuration::from_secs(seconds.unwrap_or(3600));
    json!({ "token": token, "expirationTimestamp": ends.to_string() })
}

/// The object that a path ends with, if there is one.
fn found(objects: &FakeApi, path: &str) -> Option<Value> {
    let mut parts = path.rsplit('/');
    let (name, plural) = (parts.next()?, parts.next()?);
    objects.find(plural, name)
}

/// A client whose server says yes to everything and has these objects.
pub fn client(told: Told, heard: Heard, objects: FakeApi) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (told, heard, objects) = (told.clone(), heard.clone(), objects.clone());
        async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let path = head.uri.path().to_owned();
            let answer = if path.starts_with(drain::nodes::PATH) {
                all_applied(heard, &head.uri).await
            } else if head.method == http::Method::GET && path.ends_with("/services") {
                json!({ "apiVersion": "v1", "kind": "ServiceList", "metadata": {}, "items": [] })
            } else if head.method == http::Method::GET
                && let Some(object) = found(&objects, &path)
            {
                object
            } else if head.method == http::Method::GET {
                let status = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound",
                    "message": "not found", "code": 404 });
                let answer = http::Response::builder().status(404);
                return Ok::<_, kube::Error>(
                    answer
                        .body(Body::from(status.to_string().into_bytes()))
                        .expect("a response"),
                );
            } else {
                let mut answer = body.clone();
                if answer.get("metadata").is_none() {
                    answer["metadata"] = json!({});
                }
                if path.ends_with("/token") {
                    answer["status"] = token_status(&told, &body);
                }
                told.lock()
                    .expect("whole")
                    .push((head.method.to_string(), path, body));
                answer
            };
            Ok(http::Response::new(Body::from(
                answer.to_string().into_bytes(),
            )))
        }
    });
    Client::new(service, "default")
}
