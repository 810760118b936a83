//! exec, attach and port-forward: the node's agent answers, and the two connections become one. Which protocol is
//! spoken on it, client and agent agree on.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;

use super::{Connecting, not_an_upgrade, options, switch};
use crate::hops;
use crate::outgoing::agents::{self, Agent};
use crate::reply;
use crate::rest::Answer;
use api::{ApiError, Subresource};
use sys::front::Takeover;

/// What of the client's request the agent hears.
const HEADERS: [&str; 5] = [
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "x-stream-protocol-version",
];

pub async fn open(connecting: Connecting, options: &Value, request: Request<Body>) -> Answer {
    let Connecting {
        state,
        target,
        held,
    } = connecting;
    let (namespace, name) = (
        target.namespace.as_deref().unwrap_or_default(),
        target.name.as_deref().unwrap_or_default(),
    );
    let pod = state.objects.current(target.storage(), namespace, name)?;
    let pod = pod.value;
    let container = || {
        let asked = options["container"].as_str().unwrap_or_default();
        options::container(&pod, name, asked)
    };
    let path = match target.subresource {
        Some(Subresource::Exec) => format!("/exec/{namespace}/{name}/{}", container()?),
        Some(Subresource::Attach) => format!("/attach/{namespace}/{name}/{}", container()?),
        _ => format!("/portForward/{namespace}/{name}"),
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::BadRequest(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let to = hops::upgrade_of(request.headers()).ok_or_else(not_an_upgrade)?;
    let takeover = request.extensions().get::<Takeover>().cloned();
    // Over HTTP/2 nothing is upgraded.
    let takeover = takeover.ok_or_else(not_an_upgrade)?;
    let uri = format!("{path}?{}", options::for_agent(options)?);
    let mut asked = Request::builder()
        .method(request.method())
        .uri(uri)
        .body(Body::empty())
        .map_err(reply::internal)?;
    *asked.headers_mut() = passed_on(request.headers());
    options::means(&pod, asked.headers_mut());
    hops::ask_to_upgrade(asked.headers_mut(), Some(&to));
    let agent = Agent::of(&state, node)?;
    let answer = agent.send(&state, asked).await?;
    let code = answer.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switch(answer, &takeover, held));
    }
    let text = agents::error_text(answer).await;
    let text = text.unwrap_or_else(|| format!("the agent of node {node} answered {code}"));
    Err(match code {
        StatusCode::NOT_FOUND => reply::failed(StatusCode::NOT_FOUND, "NotFound", text),
        StatusCode::FORBIDDEN => reply::failed(StatusCode::FORBIDDEN, "Forbidden", text),
        StatusCode::SERVICE_UNAVAILABLE => ApiError::ServiceUnavailable(text),
        code if code.is_client_error() => ApiError::BadRequest(text),
        _ => reply::internal(text),
    })
}

fn passed_on(said: &HeaderMap) -> HeaderMap {
    let mut said = said.clone();
    hops::clean(&mut said);
    let mut passed = HeaderMap::new();
    for name in HEADERS {
        let Ok(name) = name.parse::<axum::http::HeaderName>() else {
            continue;
        };
        for value in said.get_all(&name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}
