//! Chooses a node for each pod: filters, scores, binding.

use tokio_util::sync::CancellationToken;

/// Binds pods to nodes until `shutdown`.
pub async fn run(
    _client: kube::Client,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    shutdown.cancelled().await;
    Ok(())
}
