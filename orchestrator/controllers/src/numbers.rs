//! What is counted of the controllers' work, by controller, under the names of Kubernetes' work queues.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::queue::Step;
use super::task::Task;

/// Since the server's start. Clones are the same.
#[derive(Clone, Debug)]
pub struct Numbers {
    adds: Family<Controller, Counter>,
    retries: Family<Controller, Counter>,
    depth: Family<Controller, Gauge>,
    worked: Family<Controller, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    name: &'static str,
}

impl Default for Numbers {
    fn default() -> Self {
        // 0.1 ms to 6.5 s.
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 17));
        Self {
            adds: Family::default(),
            retries: Family::default(),
            depth: Family::default(),
            worked: Family::new_with_constructor(seconds),
        }
    }
}

impl Numbers {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("workqueue_adds", "Tasks that became due", self.adds.clone());
        let help = "Tasks that failed and are done again";
        registry.register("workqueue_retries", help, self.retries.clone());
        registry.register("workqueue_depth", "Tasks that are due", self.depth.clone());
        let help = "From a plan that asks for something to its end";
        registry.register("workqueue_work_duration_seconds", help, self.worked.clone());
    }

    /// A task moved in the queue.
    pub(crate) fn note(&self, task: &Task, step: Step) {
        let label = Controller {
            name: task.controller,
        };
        match step {
            Step::Due => {
                self.adds.get_or_create(&label).inc();
                self.depth.get_or_create(&label).inc();
            }
            Step::Taken => {
                self.depth.get_or_create(&label).dec();
            }
            Step::Failed => {
                self.retries.get_or_create(&label).inc();
            }
        }
    }

    /// A plan was carried out, whatever came of it.
    pub(crate) fn worked(&self, task: &Task, took: Duration) {
        let label = Controller {
            name: task.controller,
        };
        self.worked
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }
}
