//! What the watches of a node bring: those of its pods, and of the slices that every node follows. The bytes are
//! counted and not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::api_load::connection::{Ask, Target};
use crate::hollow_nodes;

/// Watches of some nodes' pods, and one of slices.
pub struct Network {
    pods: Vec<Reader>,
    slices: Reader,
}

/// Bytes of the bodies: of all sampled nodes' pods together, and of one node's slices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brought {
    pub nodes: u64,
    pub pods: u64,
    pub slices: u64,
}

struct Reader {
    bytes: Arc<AtomicU64>,
    /// It ends when this is dropped.
    _task: JoinSet<()>,
}

impl Network {
    /// Follows the first nodes from now on.
    pub async fn follow(target: &Target, nodes: usize) -> Result<Self> {
        let mut pods = Vec::new();
        for number in 0..nodes {
            let name = hollow_nodes::name(number);
            let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}");
            pods.push(Reader::start(target, &path).await?);
        }
        let slices = Reader::start(target, "/apis/discovery.k8s.io/v1/endpointslices?").await?;
        Ok(Self { pods, slices })
    }

    pub async fn end(self) -> Result<Brought> {
        let read = |reader: &Reader| reader.bytes.load(Ordering::Relaxed);
        Ok(Brought {
            nodes: self.pods.len() as u64,
            pods: self.pods.iter().map(read).sum(),
            slices: read(&self.slices),
        })
    }
}

impl Reader {
    async fn start(target: &Target, path: &str) -> Result<Self> {
        let mut connection = target.connect().await?;
        let list = connection.good(Ask::get(format!("{path}&limit=1"))).await?;
        let list: Value = serde_json::from_slice(&list)?;
        let revision = list["metadata"]["resourceVersion"].as_str();
        let revision = revision.context("a list without a revision")?;
        let ask = Ask::get(format!("{path}&watch=1&resourceVersion={revision}"));
        let answer = connection.open(ask).await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        let bytes: Arc<AtomicU64> = Arc::default();
        let (counted, mut body) = (bytes.clone(), answer.into_body());
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The watch lives as long as its connection.
            let _connection = connection;
            while let Some(Ok(frame)) = body.frame().await {
                let read = frame.data_ref().map_or(0, |data| data.len() as u64);
                counted.fetch_add(read, Ordering::Relaxed);
            }
        });
        Ok(Self { bytes, _task: task })
    }
}
