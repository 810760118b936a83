//! What is stored, and how long that takes.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::histogram::Timer;
use super::level;
use crate::cache::Figures;

/// Commits. Dashboards ask for the duration of a store's writes by etcd's name, whichever store it is.
#[derive(Debug)]
pub struct Commits(pub Arc<Timer>);

impl Collector for Commits {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let help = "Commits of the store, until they are on disk";
        let name = "etcd_request_duration_seconds";
        let mut metric = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let labels = [("operation", "update"), ("type", "")];
        self.0.encode(metric.encode_family(&labels)?)
    }
}

/// Objects of all kinds, as they were when this was made.
#[derive(Debug)]
pub struct Objects(pub Vec<Figures>);

impl Collector for Objects {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let name = "apiserver_storage_objects";
        let mut metric = to.encode_descriptor(name, "Objects", None, MetricType::Gauge)?;
        for kind in &self.0 {
            // Kubernetes' form of a group and a resource in one word.
            let word = match &*kind.group {
                "" => kind.plural.to_string(),
                group => format!("{}.{group}", kind.plural),
            };
            level(&mut metric, &[("resource", word)], &kind.objects)?;
        }
        type Number = fn(&Figures) -> u64;
        let numbers: [(&str, &str, Number); 3] = [
            ("apiserver_resource_objects", "Objects", |kind| kind.objects),
            (
                "apiserver_watch_cache_resource_version",
                "The last change that is visible",
                |kind| kind.revision,
            ),
            (
                "apiserver_watch_cache_past_bytes",
                "What changes and pages of the past take",
                |kind| kind.past_bytes,
            ),
        ];
        for (name, help, number) in numbers {
            let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for kind in &self.0 {
                let labels = [("group", &*kind.group), ("resource", &*kind.plural)];
                level(&mut metric, &labels, &number(kind))?;
            }
        }
        Ok(())
    }
}
