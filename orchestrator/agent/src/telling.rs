//! What the parts of an agent that need the node's network tell the others.

use std::sync::Arc;

use tokio::sync::watch;

use crate::node::fence::Fence;
use crate::node::heartbeat::News;
use crate::node::join::Membership;
use crate::node::register::{Health, Listed};
use crate::node::running::Running;
use crate::start::AgentConfig;
use crate::volumes::csi::{self, InUse};
use datapath::Addrs;

/// The ends at which it is told.
pub struct Telling {
    pub health: watch::Sender<Health>,
    pub node_ips: watch::Sender<Addrs>,
    pub listed: watch::Sender<Option<Listed>>,
    pub in_use: InUse,
}

impl Telling {
    /// With what the heartbeat hears of it.
    pub fn channels(
        config: &AgentConfig,
        membership: watch::Receiver<Membership>,
        running: Arc<Running>,
    ) -> (Self, News) {
        let waiting = Health {
            problems: vec!["the network is being set up".to_owned()],
            ..Health::default()
        };
        let (health, healthy) = watch::channel(waiting);
        let (node_ips, addrs) = watch::channel(config.node_ips);
        let (listed, seen) = watch::channel(None);
        // Before the node's first status: what is mounted is not detached.
        let in_use = csi::restored(&config.places());
        let news = News {
            addrs,
            membership,
            listed: seen,
            health: healthy,
            running,
            fence: Fence::default(),
            in_use: in_use.subscribe(),
        };
        let telling = Self {
            health,
            node_ips,
            listed,
            in_use,
        };
        (telling, news)
    }
}
