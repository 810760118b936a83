//! GET of a pod's log, out of the agent of its node.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::options;
use crate::outgoing::agents::{self, Agent};
use crate::reply;
use crate::rest::{Answer, Call};
use api::ApiError;

/// GET of a pod's log. `insecureSkipTLSVerifyBackend` changes nothing: agents have certificates of the cluster.
pub async fn log(call: &Call) -> Answer {
    let (namespace, name) = (
        call.target.namespace.as_deref().unwrap_or_default(),
        call.target.name.as_deref().unwrap_or_default(),
    );
    let query = options::of_log(&call.query, name)?;
    let pod = call
        .state
        .objects
        .current(call.target.storage(), namespace, name)?
        .value;
    let asked = call.query.get("container").unwrap_or_default();
    let container = options::container(&pod, name, asked)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // Nothing was written yet.
        return Ok(text(Body::empty()));
    }
    let agent = Agent::of(&call.state, node)?;
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{query}");
    let request = Request::get(path)
        .body(Body::empty())
        .map_err(reply::internal)?;
    let answer = agent.send(&call.state, request).await?;
    let code = answer.status();
    if code.is_success() {
        return Ok(text(Body::new(answer.into_body())));
    }
    let text = agents::error_text(answer).await;
    let text = text.unwrap_or_else(|| format!("the agent of node {node} answered {code}"));
    Err(match code {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => ApiError::BadRequest(text),
        _ => reply::internal(text),
    })
}

fn text(body: Body) -> axum::http::Response<Body> {
    reply::response("text/plain", StatusCode::OK, body)
}
