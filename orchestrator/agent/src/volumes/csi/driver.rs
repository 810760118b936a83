//! The services of one driver, as the agent calls them.

use std::path::PathBuf;
use std::time::Duration;

use super::messages::{
    Empty, ExpandVolume, Expanded, NodeCapabilities, NodeInfo, PublishVolume, StageVolume, Stats,
    StatsWish, UnpublishVolume, UnstageVolume,
};
use super::rpc::{self, Method, RpcError};

/// How long a driver may take for a volume; a kubelet's own.
const VOLUME_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to say what it is.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(15);

const fn of_volume(path: &'static str) -> Method {
    let timeout = VOLUME_TIMEOUT;
    Method { path, timeout }
}

const fn question(path: &'static str) -> Method {
    let timeout = QUESTION_TIMEOUT;
    Method { path, timeout }
}

pub const GET_INFO: Method = question("/csi.v1.Node/NodeGetInfo");
pub const GET_CAPABILITIES: Method = question("/csi.v1.Node/NodeGetCapabilities");
pub const STAGE: Method = of_volume("/csi.v1.Node/NodeStageVolume");
pub const UNSTAGE: Method = of_volume("/csi.v1.Node/NodeUnstageVolume");
pub const PUBLISH: Method = of_volume("/csi.v1.Node/NodePublishVolume");
pub const UNPUBLISH: Method = of_volume("/csi.v1.Node/NodeUnpublishVolume");
pub const EXPAND: Method = of_volume("/csi.v1.Node/NodeExpandVolume");
pub const GET_STATS: Method = question("/csi.v1.Node/NodeGetVolumeStats");

/// A driver that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    pub name: String,
    /// The socket of its node service.
    pub socket: PathBuf,
}

impl Driver {
    pub async fn info(&self) -> Result<NodeInfo, RpcError> {
        rpc::call(&self.socket, GET_INFO, &Empty {}).await
    }

    /// What the driver's node service does besides publishing, by number.
    pub async fn offers(&self) -> Result<Vec<i32>, RpcError> {
        let answer: NodeCapabilities = rpc::call(&self.socket, GET_CAPABILITIES, &Empty {}).await?;
        let all = answer.capabilities.into_iter();
        Ok(all.filter_map(|it| Some(it.rpc?.r#type)).collect())
    }

    pub async fn stage(&self, volume: &StageVolume) -> Result<(), RpcError> {
        self.tell(STAGE, volume).await
    }

    pub async fn unstage(&self, volume: &UnstageVolume) -> Result<(), RpcError> {
        self.tell(UNSTAGE, volume).await
    }

    pub async fn publish(&self, volume: &PublishVolume) -> Result<(), RpcError> {
        self.tell(PUBLISH, volume).await
    }

    pub async fn unpublish(&self, volume: &UnpublishVolume) -> Result<(), RpcError> {
        self.tell(UNPUBLISH, volume).await
    }

    pub async fn expand(&self, volume: &ExpandVolume) -> Result<Expanded, RpcError> {
        rpc::call(&self.socket, EXPAND, volume).await
    }

    pub async fn stats(&self, volume: &StatsWish) -> Result<Stats, RpcError> {
        rpc::call(&self.socket, GET_STATS, volume).await
    }

    async fn tell<Q>(&self, method: Method, question: &Q) -> Result<(), RpcError>
    where
        Q: prost::Message + Clone + 'static,
    {
        let _: Empty = rpc::call(&self.socket, method, question).await?;
        Ok(())
    }
}
