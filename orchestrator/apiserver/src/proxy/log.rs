//! GET of a pod's log, out of the agent of its node.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value;

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
    let state = state_of(&pod, &container);
    // A container that waits for its next start has no later run than the one that is asked for.
    let query = match state.is_some_and(|it| it.waits && it.has_ended) {
        true => query.replace("previous=true", "previous=false"),
        false => query,
    };
    let agent = Agent::of(&call.state, node)?;
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{query}");
    let request = Request::get(path).body(Body::empty());
    let mut request = request.map_err(reply::internal)?;
    options::means(&pod, request.headers_mut());
    let answer = agent.send(&call.state, request).await?;
    let code = answer.status();
    if code.is_success() {
        return Ok(text(Body::new(answer.into_body())));
    }
    let text = agents::error_text(answer).await;
    let text = text.unwrap_or_else(|| format!("the agent of node {node} answered {code}"));
    let text = match state.filter(|_| text.contains("is waiting to start")) {
        Some(state) => format!(
            "container {container:?} in pod {name:?} is waiting to start: {}",
            state.why
        ),
        None => text,
    };
    Err(match code {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => ApiError::BadRequest(text),
        _ => reply::internal(text),
    })
}

/// What the pod's status says of a container.
#[derive(Clone, Copy)]
struct State<'a> {
    waits: bool,
    has_ended: bool,
    /// Why it waits, in a kubelet's words.
    why: &'a str,
}

fn state_of<'a>(pod: &'a Value, container: &str) -> Option<State<'a>> {
    let lists = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let all = lists
        .iter()
        .filter_map(|list| pod["status"][list].as_array());
    let found = all.flatten().find(|it| it["name"] == container)?;
    let waiting = &found["state"]["waiting"];
    Some(State {
        waits: waiting.is_object(),
        has_ended: found["lastState"]["terminated"].is_object(),
        why: match waiting["reason"].as_str() {
            Some("ErrImagePull") => "image can't be pulled",
            Some("ImagePullBackOff") => "trying and failing to pull image",
            Some(reason) => reason,
            None => "ContainerCreating",
        },
    })
}

fn text(body: Body) -> axum::http::Response<Body> {
    reply::response("text/plain", StatusCode::OK, body)
}
