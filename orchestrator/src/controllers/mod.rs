//! One shell (gather, plan, execute) and one pure file a controller.

use ipnetwork::IpNetwork;
use tokio_util::sync::CancellationToken;

/// What the controllers are told at start.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// The range that every node's share is cut from.
    pub pod_cidr: IpNetwork,
    /// Prefix length of one node's share.
    pub node_mask_bits: u8,
}

/// Runs every controller until `shutdown`.
pub async fn run(
    _client: kube::Client,
    _config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    shutdown.cancelled().await;
    Ok(())
}
