//! Chooses a node for each pod: filters, scores, binding.
//!
//! The engine holds the snapshot and the queue and does no I/O; the shell watches, binds and tells.

pub mod cycle;
pub mod engine;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
mod shell;
pub mod snapshot;

use tokio_util::sync::CancellationToken;

/// Binds pods to nodes until `shutdown`.
pub async fn run(
    client: kube::Client,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    shell::run(client, shutdown).await;
    Ok(())
}
