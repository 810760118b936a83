//! What an agent says of the CPU and memory that its node and its pods use: the wire between agents and the
//! API server, which answers metrics.k8s.io from it. Plain data with its limits.

use serde::{Deserialize, Serialize};

/// Where the API server takes samples.
pub const PATH: &str = "/orchestrator/v1/samples";

/// How large one node's sample may be.
pub const BODY_BYTES: usize = 1024 * 1024;
/// Pods of one sample; those behind are not taken.
pub const PODS: usize = 2048;
/// Containers of one pod; those behind are not taken.
pub const CONTAINERS: usize = 64;

/// One node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSample {
    /// Over which time the node's CPU was counted.
    pub window_ms: u64,
    pub usage: Usage,
    pub pods: Vec<PodSample>,
}

/// One pod of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSample {
    pub uid: String,
    /// Over which time its CPU was counted.
    pub window_ms: u64,
    pub containers: Vec<ContainerSample>,
}

/// One container of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSample {
    pub name: String,
    pub usage: Usage,
}

/// What is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Billionths of a CPU.
    pub cpu_nanocores: u64,
    /// The working set: what the kernel cannot take back at once.
    pub memory_bytes: u64,
}

/// What the API server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// When it wants the next one.
    pub next_ms: u64,
}

impl Usage {
    /// `12345n`, as metrics.k8s.io writes CPU.
    pub fn cpu(&self) -> String {
        format!("{}n", self.cpu_nanocores)
    }

    /// `12345Ki`, as it writes memory.
    pub fn memory(&self) -> String {
        format!("{}Ki", self.memory_bytes / 1024)
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, more| Self {
            cpu_nanocores: sum.cpu_nanocores.saturating_add(more.cpu_nanocores),
            memory_bytes: sum.memory_bytes.saturating_add(more.memory_bytes),
        })
    }
}
