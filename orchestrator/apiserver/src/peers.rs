//! What one server asks the others that share its store: what agents have told those, and nobody stores.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::Value;

use super::outgoing::{ClientConfig, Trusted, call_json};
use super::{State, servers};

/// Gets a path of every other server, and shows each answer as it comes. A server that does not answer in time is
/// left out: it may just have died.
pub async fn ask_each(
    state: &State,
    path: &str,
    limits: (usize, Duration),
    mut heard: impl FnMut(Value),
) {
    let Some(pki) = state
        .pki
        .as_ref()
        .filter(|_| state.objects.store.is_shared())
    else {
        return;
    };
    let others = servers::alive(state).unwrap_or_default();
    let others = others
        .into_iter()
        .filter(|it| *it != state.config.advertise);
    let authority = pki.authority.certificate();
    let shown = pki.issued().agent_client.clone();
    let ask = |server: SocketAddr| {
        let url = format!("https://{server}{path}");
        let to = ClientConfig::at(&url, Trusted::Bundle(authority.to_owned()));
        let to = to.map(|to| to.showing(shown.clone()));
        async move { call_json(state, &to?, None, limits).await }
    };
    let mut answers: FuturesUnordered<_> = others.map(ask).collect();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => heard(answer),
            Err(error) => tracing::debug!(%error, "another server does not answer"),
        }
    }
}
