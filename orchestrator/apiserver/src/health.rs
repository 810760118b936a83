//! `/livez`, `/readyz`, `/version`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{Response, StatusCode, Uri};
use serde_json::json;

use super::{State, reply};

/// The Kubernetes version whose API is served, as clients compare it.
pub const MINOR: &str = "33";
pub const KUBERNETES: &str = "v1.33.0";

/// A balancer that asks every second wants to hear of it.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The process answers.
pub async fn livez(uri: Uri) -> Response<Body> {
    well(&uri)
}

/// Requests are served: nobody asked the server to stop, and a store that it shares with others answers. (Its own
/// is loaded, or there would be no server.)
pub async fn readyz(Extract(state): Extract<Arc<State>>, uri: Uri) -> Response<Body> {
    let stops = state.servers.is_leaving() || state.tasks.shutdown().is_requested();
    let why = match stops {
        true => "the server is stopping",
        false if store_answers(&state).await => return well(&uri),
        false => "the store does not answer",
    };
    text(StatusCode::SERVICE_UNAVAILABLE, why.into())
}

async fn store_answers(state: &State) -> bool {
    let store = &state.objects.store;
    if !store.is_shared() {
        return true;
    }
    let answered = tokio::time::timeout(STORE_TIMEOUT, store.fresh()).await;
    matches!(answered, Ok(Ok(_)))
}

/// `ok`, and with `?verbose` what was looked at, in the form of Kubernetes.
fn well(uri: &Uri) -> Response<Body> {
    let mut words = uri.query().unwrap_or_default().split('&');
    let verbose = words.any(|word| word == "verbose" || word.starts_with("verbose="));
    let name = uri.path().trim_start_matches('/');
    text(
        StatusCode::OK,
        match verbose {
            true => format!("[+]ping ok\n[+]store ok\n{name} check passed\n"),
            false => "ok".into(),
        },
    )
}

/// What clients choose their behaviour by.
pub async fn version(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    let own = env!("CARGO_PKG_VERSION");
    reply::json(
        StatusCode::OK,
        &json!({
            "major": "1",
            "minor": MINOR,
            "emulationMajor": "1",
            "emulationMinor": MINOR,
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "32",
            "gitVersion": format!("{KUBERNETES}+orchestrator.{own}"),
            "gitCommit": state.config.commit,
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, architecture()),
        }),
    )
}

/// The machine's architecture as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    reply::response("text/plain; charset=utf-8", code, Body::from(text))
}
