//! Chooses a node for each pod: filters, scores, preemption, binding.
//!
//! The engine holds the snapshot and the queue and does no I/O; the shell watches, binds and tells.
//!
//! ```text
//! watches ─▶ snapshot ─▶ index (counts by topology)
//!    │          │              │
//!    ▼          ▼              ▼
//!  queue ─▶ cycle: local (each node for itself) ─▶ cross (pods of other nodes) ─▶ scores ─▶ Bind
//!    ▲                                                  │ no node
//!    └── hints: which change may help whom ◀── Explain ◀┴── preempt: whom to stop
//! ```
//!
//! Extenders, which are servers outside, are asked by the shell between two decisions for one pod (`extender`).

pub mod cross;
pub mod cycle;
pub mod demand;
pub mod engine;
pub mod explain;
pub mod extender;
pub mod hints;
pub mod index;
pub mod local;
pub mod node;
pub mod numbers;
pub mod plugins;
pub mod pod;
pub mod preempt;
pub mod profile;
pub mod queue;
pub mod resources;
mod shell;
pub mod snapshot;
pub mod volumes;

use tokio_util::sync::CancellationToken;

/// Binds pods to nodes until `shutdown`.
pub async fn run(
    client: kube::Client,
    config: profile::Config,
    numbers: numbers::Numbers,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    shell::run(client, config, numbers, shutdown).await;
    Ok(())
}
