//! Requests that the node's agent answers: logs. The server checks the pod, dials the agent with
//! its own certificate (`outgoing::agents`), and passes the stream on.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::Value;

use super::outgoing::agents::{self, Agent};
use super::reply;
use super::rest::{Answer, Call};
use api::ApiError;

/// The query parameters of a log that go to the agent as they are.
const LOG_PARAMETERS: [&str; 7] = [
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "timestamps",
];

/// GET of a pod's log.
pub async fn log(call: &Call) -> Answer {
    let (namespace, name) = (
        call.target.namespace.as_deref().unwrap_or_default(),
        call.target.name.as_deref().unwrap_or_default(),
    );
    let pod = call
        .state
        .objects
        .current(call.target.storage(), namespace, name)?
        .value;
    let container = container(&pod, name, call.query.get("container").unwrap_or_default())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::BadRequest(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let agent = Agent::of(&call.state, node)?;
    let query: Vec<String> = LOG_PARAMETERS
        .iter()
        .filter_map(|key| Some(format!("{key}={}", escape(call.query.get(key)?))))
        .collect();
    let path = format!(
        "/containerLogs/{namespace}/{name}/{container}?{}",
        query.join("&")
    );
    let answer = agent.get(&call.state, &path).await?;
    let code = answer.status();
    if code.is_success() {
        return Ok(reply::response(
            "text/plain",
            StatusCode::OK,
            Body::new(answer.into_body()),
        ));
    }
    let text = agents::error_text(answer).await;
    let text = text.unwrap_or_else(|| format!("the agent of node {node} answered {code}"));
    Err(match code {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => ApiError::BadRequest(text),
        _ => reply::internal(text),
    })
}

/// The container that is meant; a pod with one container needs no name.
fn container(pod: &Value, name: &str, asked: &str) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str())
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        return match containers.iter().chain(&init).any(|known| *known == asked) {
            true => Ok(asked.to_owned()),
            false => Err(ApiError::BadRequest(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    if let ([only], []) = (containers.as_slice(), init.as_slice()) {
        return Ok((*only).to_owned());
    }
    let mut message = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        containers.join(" ")
    );
    if !init.is_empty() {
        message.push_str(&format!(
            " or one of the init containers: [{}]",
            init.join(" ")
        ));
    }
    Err(ApiError::BadRequest(message))
}

/// Escapes what a query value may not contain.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_container_needs_no_name() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "p", ""), Ok("a".to_owned()));
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let error = container(&two, "p", "").expect_err("ambiguous").to_string();
        assert_eq!(
            error,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(container(&two, "p", "b"), Ok("b".to_owned()));
        assert!(container(&two, "p", "c").is_err());
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(
            escape("2026-01-01T00:00:00+01:00"),
            "2026-01-01T00:00:00%2B01:00"
        );
    }
}
