//! The agent's numbers, for Prometheus: `/metrics` of the node's own server, in OpenMetrics' text form.
//!
//! | name | kind | labels | what it counts |
//! |---|---|---|---|
//! | `orchestrator_datapath_packets_total` | counter | `verdict` | packets by what became of them |
//! | `orchestrator_datapath_drops_total` | counter | `reason` | packets dropped or refused |
//! | `orchestrator_datapath_xdp_packets_total` | counter | – | those of them that XDP finished before the stack |
//! | `orchestrator_datapath_lost_drop_events_total` | counter | – | records of drops that found no room in the ring buffer |
//! | `orchestrator_datapath_unremembered_clients_total` | counter | – | connections under session affinity whose client found no room in `affinity_v1` |
//! | `orchestrator_datapath_flows` | gauge | – | rows of the flow table; a translated flow has two |
//! | `orchestrator_datapath_map_entries` | gauge | `map` | rows of a map |
//! | `orchestrator_datapath_map_max_entries` | gauge | `map` | how many rows it can have |
//! | `orchestrator_datapath_service_connections_total` | counter | `namespace`, `service`, `port` | connections and flows opened to a Service |
//! | `orchestrator_datapath_service_refused_total` | counter | the same | those refused or dropped instead |
//! | `orchestrator_datapath_backend_connections_total` | counter | `backend` | opened to one backend, through whichever Service |
//! | `orchestrator_datapath_program_runs_total` | counter | `program` | runs; zero unless the kernel counts (`--program-stats`, or `kernel.bpf_stats_enabled=1`) |
//! | `orchestrator_datapath_program_run_seconds_total` | counter | `program` | time spent in them |
//! | `orchestrator_datapath_program_verified_instructions` | gauge | `program` | what the verifier went through at load |
//! | `orchestrator_datapath_sync_seconds` | histogram | – | from a watch's event to the maps |
//! | `orchestrator_datapath_leave_seconds` | histogram | – | how long pods that ended waited to be out of their Services everywhere |
//! | `orchestrator_datapath_leave_unconfirmed_total` | counter | – | pods stopped before every Ready node had said so |
//! | `orchestrator_agent_pod_attach_seconds` | histogram | – | link, address, routes, datapath of a pod |
//! | `orchestrator_agent_sandbox_start_seconds` | histogram | – | making and starting a sandbox |
//! | `orchestrator_agent_container_start_seconds` | histogram | – | making and starting a container |
//! | `orchestrator_agent_pod_own_start_seconds` | histogram | – | a pod's start until the API knows that it runs, without what the Engine took; pods with init containers, `postStart` or pulls are not among them |
//! | `orchestrator_agent_pod_own_start_stage_seconds_total` | counter | `stage` | what of that went into waiting and planning, the sandbox, the network, files, the report |
//! | `orchestrator_dns_answers_total` | counter | `source`, `code` | answers to pods' questions for names |
//! | `orchestrator_dns_unanswered_total` | counter | `reason` | queries that were not answered |
//! | `orchestrator_dns_upstream_seconds` | histogram | – | how long other name servers took |
//! | `orchestrator_agent_*_worst_seconds` | gauge | – | the longest of each of these four |

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::dns;
use datapath::meter::{Meter, Reading};
use datapath::names::Names;

/// What OpenMetrics' text form is called in an answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything since the agent's start; what the kernel counts is read when it is asked for.
pub struct Metrics {
    registry: Registry,
    attaches: Span,
    sandboxes: Span,
    containers: Span,
    own_starts: Span,
    /// By stage: seconds of all of them.
    start_stages: Family<[(&'static str, &'static str); 1], Counter<f64, AtomicU64>>,
    sync: Histogram,
    leaves: Histogram,
    unconfirmed: Counter,
    names: dns::Numbers,
    datapath: Mutex<Option<(Meter, Namer)>>,
}

/// What numbers of Services and of backends mean. Blocks.
type Namer = Box<dyn Fn(BTreeSet<u32>, BTreeSet<u32>) -> Names + Send>;

/// How long something took, each time and at worst.
#[derive(Clone)]
pub struct Span {
    seconds: Histogram,
    worst: Gauge<f64, AtomicU64>,
}

impl Span {
    pub fn note(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.seconds.observe(seconds);
        if seconds > self.worst.get() {
            self.worst.set(seconds);
        }
    }

    fn register(registry: &mut Registry, name: &str, help: &str) -> Span {
        Span::register_with(registry, name, help, histogram())
    }

    fn register_with(registry: &mut Registry, name: &str, help: &str, seconds: Histogram) -> Span {
        let span = Span {
            seconds,
            worst: Gauge::default(),
        };
        let name = format!("orchestrator_agent_{name}");
        registry.register(format!("{name}_seconds"), help, span.seconds.clone());
        let worst = format!("{name}_worst_seconds");
        registry.register(worst, "The longest of them", span.worst.clone());
        span
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let spans = [
            ("pod_attach", "Pods put on the network"),
            ("sandbox_start", "Sandboxes made and started"),
            ("container_start", "Containers made and started"),
        ];
        let [attaches, sandboxes, containers] =
            spans.map(|(name, help)| Span::register(&mut registry, name, help));
        let help = "Starts of pods without what the Engine took";
        let seconds = Histogram::new(OWN_START_SECONDS);
        let own_starts = Span::register_with(&mut registry, "pod_own_start", help, seconds);
        let start_stages = Family::default();
        registry.register(
            "orchestrator_agent_pod_own_start_stage_seconds",
            "What of the starts without the Engine went into each stage",
            Family::clone(&start_stages),
        );
        let (sync, leaves, unconfirmed) = (histogram(), histogram(), Counter::default());
        registry.register(
            "orchestrator_datapath_sync_seconds",
            "From a watch's event to the maps",
            sync.clone(),
        );
        registry.register(
            "orchestrator_datapath_leave_seconds",
            "How long pods that ended waited to be out of their Services everywhere",
            leaves.clone(),
        );
        registry.register(
            "orchestrator_datapath_leave_unconfirmed",
            "Pods stopped before every Ready node had said that it sends them no connections",
            unconfirmed.clone(),
        );
        let names = dns::Numbers::default();
        names.register(&mut registry);
        Metrics {
            registry,
            attaches,
            sandboxes,
            containers,
            own_starts,
            start_stages,
            sync,
            leaves,
            unconfirmed,
            names,
            datapath: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Wiring a pod: link, address, routes, datapath.
    pub fn attaches(&self) -> &Span {
        &self.attaches
    }

    /// Making and starting a sandbox.
    pub fn sandboxes(&self) -> &Span {
        &self.sandboxes
    }

    /// Making and starting a container.
    pub fn containers(&self) -> &Span {
        &self.containers
    }

    /// A pod has started: what that took without the Engine, and what each stage took of it.
    pub fn started(&self, all: Duration, stages: &[(&'static str, Duration)]) {
        self.own_starts.note(all);
        for (stage, took) in stages {
            let seconds = self.start_stages.get_or_create(&[("stage", stage)]);
            seconds.inc_by(took.as_secs_f64());
        }
    }

    /// What is counted of names.
    pub fn names(&self) -> &dns::Numbers {
        &self.names
    }

    /// A watch's event is in the maps.
    pub fn synced(&self, took: Duration) {
        self.sync.observe(took.as_secs_f64());
    }

    /// A pod that was in a Service is asked to stop.
    pub fn left(&self, waited: Duration, confirmed: bool) {
        self.leaves.observe(waited.as_secs_f64());
        if !confirmed {
            self.unconfirmed.inc();
        }
    }

    /// The datapath runs: its numbers are part of the text from now on, with the names that `names` gives
    /// the numbers of Services and of backends. That may block.
    pub fn measure(
        &self,
        meter: Meter,
        names: impl Fn(BTreeSet<u32>, BTreeSet<u32>) -> Names + Send + 'static,
    ) {
        *self.lock() = Some((meter, Box::new(names)));
    }

    /// The text that a scraper gets. Blocks while the maps are read.
    pub fn text(&self) -> String {
        let read = |(meter, names): &(Meter, Namer)| {
            let reading = meter.read(names);
            reading.inspect_err(|error| tracing::warn!(%error, "the datapath was not measured"))
        };
        let reading = self.lock().as_ref().and_then(|it| read(it).ok());
        self.with(reading)
    }

    fn with(&self, reading: Option<Reading>) -> String {
        let mut kernel = Registry::default();
        if let Some(reading) = reading {
            kernel.register_collector(Box::new(Numbers(reading)));
        }
        let mut out = String::new();
        let registries = [&self.registry, &kernel];
        let encoded = registries.map(|registry| text::encode_registry(&mut out, registry));
        let ended = text::encode_eof(&mut out);
        // Writing to a string cannot fail, and no value here refuses to be written.
        debug_assert!(encoded.into_iter().chain([ended]).all(|it| it.is_ok()));
        out
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Meter, Namer)>> {
        // It is only replaced as a whole: a panic leaves it right.
        self.datapath
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Around 20 ms, which the share shall not exceed.
const OWN_START_SECONDS: [f64; 13] = [
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// 0.1 ms to 6.5 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 17))
}

/// A reading as metrics.
#[derive(Debug)]
struct Numbers(Reading);

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut to = Encoder(&mut encoder);
        let it = &self.0;
        let verdicts = it.verdicts.iter();
        let verdicts = verdicts.map(|(name, count)| ([("verdict", *name)], *count));
        to.counter("packets", "Packets by what became of them", verdicts)?;
        let drops = it.drops.iter();
        let drops = drops.map(|(name, count)| ([("reason", *name)], *count));
        to.counter("drops", "Packets dropped or refused", drops)?;
        let xdp = "Those of the packets that XDP finished before the stack";
        to.single("xdp_packets", xdp, MetricType::Counter, it.xdp)?;
        let lost = "Records of drops that found no room";
        to.single("lost_drop_events", lost, MetricType::Counter, it.lost)?;
        let full = "Connections under session affinity whose client found no room";
        let kind = MetricType::Counter;
        to.single("unremembered_clients", full, kind, it.unremembered)?;
        let flows = "Rows of the flow table";
        to.single("flows", flows, MetricType::Gauge, it.flow_rows)?;
        let rows = it.maps.iter().map(|map| ([("map", map.name)], map.rows));
        to.gauge("map_entries", "Rows of a map", rows)?;
        let most = it.maps.iter().map(|map| ([("map", map.name)], map.most));
        to.gauge("map_max_entries", "How many rows a map can have", most)?;
        services(it, &mut to)?;
        programs(it, &mut to)
    }
}

fn services(it: &Reading, to: &mut Encoder) -> fmt::Result {
    let labels = |namespace, service, port| {
        [
            ("namespace", namespace),
            ("service", service),
            ("port", port),
        ]
    };
    let service = it.services.iter();
    let service = service.map(|one| (labels(&*one.namespace, &*one.service, &*one.port), one));
    let opened = service.clone().map(|(labels, one)| (labels, one.opened));
    let help = "Connections and flows opened to a Service";
    to.counter("service_connections", help, opened)?;
    let refused = service.map(|(labels, one)| (labels, one.refused));
    to.counter(
        "service_refused",
        "Those refused or dropped instead",
        refused,
    )?;
    // A refusal has no backend.
    let backend = it.backends.iter();
    let opened = backend.map(|one| ([("backend", &*one.backend)], one.opened));
    let help = "Connections and flows opened to a backend";
    to.counter("backend_connections", help, opened)
}

fn programs(it: &Reading, to: &mut Encoder) -> fmt::Result {
    let program = it
        .programs
        .iter()
        .map(|one| ([("program", &*one.name)], one));
    let runs = program.clone().map(|(labels, one)| (labels, one.runs));
    to.counter("program_runs", "Runs of a program", runs)?;
    let time = program.clone();
    let time = time.map(|(labels, one)| (labels, one.time.as_secs_f64()));
    to.counter("program_run_seconds", "Time spent in a program", time)?;
    let verified = program.map(|(labels, one)| (labels, one.verified));
    let help = "Instructions that the verifier went through";
    to.gauge("program_verified_instructions", help, verified)
}

/// Writes families of one prefix.
struct Encoder<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Encoder<'_, '_> {
    fn counter<S, V>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (S, V)>,
    ) -> fmt::Result
    where
        S: EncodeLabelSet,
        V: prometheus_client::encoding::EncodeCounterValue,
    {
        let name = format!("orchestrator_datapath_{name}");
        let kind = MetricType::Counter;
        let mut metric = self.0.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in rows {
            let mut row = metric.encode_family(&labels)?;
            row.encode_counter::<NoLabelSet, V, f64>(&value, None)?;
        }
        Ok(())
    }

    /// A number without labels.
    fn single(&mut self, name: &str, help: &str, kind: MetricType, value: u64) -> fmt::Result {
        let name = format!("orchestrator_datapath_{name}");
        let mut metric = self.0.encode_descriptor(&name, help, None, kind)?;
        match kind {
            MetricType::Counter => metric.encode_counter::<NoLabelSet, u64, f64>(&value, None),
            _ => metric.encode_gauge(&value),
        }
    }

    fn gauge<S: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (S, u64)>,
    ) -> fmt::Result {
        let name = format!("orchestrator_datapath_{name}");
        let mut metric = self
            .0
            .encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::maps::MapFill;
    use datapath::meter::{BackendCount, ProgramRuns, ServiceCount};

    /// The text has these lines.
    #[track_caller]
    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|it| it == *line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_span_adds_up_and_keeps_its_worst() {
        let metrics = Metrics::default();
        metrics.attaches().note(Duration::from_millis(2));
        metrics.attaches().note(Duration::from_millis(1));
        assert_lines(
            &metrics.text(),
            &[
                "# TYPE orchestrator_agent_pod_attach_seconds histogram",
                "orchestrator_agent_pod_attach_seconds_sum 0.003",
                "orchestrator_agent_pod_attach_seconds_count 2",
                "orchestrator_agent_pod_attach_worst_seconds 0.002",
            ],
        );
    }

    #[test]
    fn waits_and_syncs_are_counted() {
        let metrics = Metrics::default();
        metrics.synced(Duration::from_micros(300));
        metrics.left(Duration::from_millis(20), true);
        metrics.left(Duration::from_secs(2), false);
        assert_lines(
            &metrics.text(),
            &[
                "orchestrator_datapath_sync_seconds_bucket{le=\"0.0002\"} 0",
                "orchestrator_datapath_sync_seconds_bucket{le=\"0.0004\"} 1",
                "orchestrator_datapath_leave_seconds_count 2",
                "orchestrator_datapath_leave_unconfirmed_total 1",
            ],
        );
    }

    #[test]
    fn a_reading_of_the_datapath_is_named_and_labelled() {
        let text = |text: &str| text.to_owned();
        let reading = Reading {
            verdicts: vec![("deliver", 7)],
            drops: vec![("no_service", 3)],
            lost: 2,
            unremembered: 4,
            xdp: 5,
            maps: vec![MapFill {
                name: "flows_v1",
                rows: 5,
                most: 100,
            }],
            flow_rows: 5,
            programs: vec![ProgramRuns {
                name: text("connect4"),
                runs: 4,
                time: Duration::from_millis(1500),
                verified: 146,
            }],
            services: vec![ServiceCount {
                namespace: text("shop"),
                service: text("web"),
                port: text("http"),
                opened: 11,
                refused: 1,
            }],
            backends: vec![BackendCount {
                backend: text("10.100.1.2:8080"),
                opened: 6,
            }],
        };
        assert_lines(
            &Metrics::default().with(Some(reading)),
            &[
                "orchestrator_datapath_packets_total{verdict=\"deliver\"} 7",
                "orchestrator_datapath_drops_total{reason=\"no_service\"} 3",
                "orchestrator_datapath_xdp_packets_total 5",
                "orchestrator_datapath_lost_drop_events_total 2",
                "orchestrator_datapath_unremembered_clients_total 4",
                "orchestrator_datapath_flows 5",
                "orchestrator_datapath_map_entries{map=\"flows_v1\"} 5",
                "orchestrator_datapath_map_max_entries{map=\"flows_v1\"} 100",
                "orchestrator_datapath_service_connections_total{namespace=\"shop\",service=\"web\",\
                 port=\"http\"} 11",
                "orchestrator_datapath_service_refused_total{namespace=\"shop\",service=\"web\",\
                 port=\"http\"} 1",
                "orchestrator_datapath_backend_connections_total{backend=\"10.100.1.2:8080\"} 6",
                "orchestrator_datapath_program_runs_total{program=\"connect4\"} 4",
                "orchestrator_datapath_program_run_seconds_total{program=\"connect4\"} 1.5",
                "orchestrator_datapath_program_verified_instructions{program=\"connect4\"} 146",
            ],
        );
    }
}
