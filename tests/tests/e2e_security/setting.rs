//! What the scenarios share: a cluster of two nodes and a client with the administrator's rights.

use anyhow::Result;
use tests::cluster::{Cluster, Kubectl};

pub struct Setting {
    pub cluster: Cluster,
    pub kubectl: Kubectl,
}

impl Setting {
    pub fn start() -> Result<Self> {
        let cluster = Cluster::up_with("sec", 2, &["--ip-family", "dual"])?;
        let kubectl = cluster.client()?;
        Ok(Self { cluster, kubectl })
    }
}
