//! What is counted of names.

use std::fmt::Write;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters since the agent's start. Clones are the same.
#[derive(Debug, Clone)]
pub struct Numbers {
    answers: Family<Answered, Counter>,
    dropped: Family<Dropped, Counter>,
    upstream: Histogram,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Source {
    Cluster,
    Hosts,
    Cache,
    Upstream,
}

/// Why a query had no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reason {
    /// Neither from a pod of this node nor from the node.
    Stranger,
    /// Its client has had its share of this second.
    Share,
    /// It is not a query.
    Malformed,
    /// The client's queue, or this node's, is full.
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    source: Source,
    code: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Code(ResponseCode);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> std::fmt::Result {
        match self.0 {
            ResponseCode::NoError => encoder.write_str("NOERROR"),
            ResponseCode::NXDomain => encoder.write_str("NXDOMAIN"),
            ResponseCode::ServFail => encoder.write_str("SERVFAIL"),
            ResponseCode::Refused => encoder.write_str("REFUSED"),
            other => write!(encoder, "{}", u16::from(other)),
        }
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            answers: Family::default(),
            dropped: Family::default(),
            upstream: Histogram::new(exponential_buckets(0.0001, 2.0, 17)),
        }
    }
}

impl Numbers {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "orchestrator_dns_answers",
            "Answers by where they came from and what they said",
            self.answers.clone(),
        );
        registry.register(
            "orchestrator_dns_unanswered",
            "Queries that were not answered",
            self.dropped.clone(),
        );
        registry.register(
            "orchestrator_dns_upstream_seconds",
            "How long other servers took",
            self.upstream.clone(),
        );
    }

    pub fn answered(&self, source: Source, code: ResponseCode) {
        let labels = Answered {
            source,
            code: Code(code),
        };
        self.answers.get_or_create(&labels).inc();
    }

    pub fn dropped(&self, reason: Reason) {
        self.dropped.get_or_create(&Dropped { reason }).inc();
    }

    pub fn asked(&self, took: Duration) {
        self.upstream.observe(took.as_secs_f64());
    }
}
