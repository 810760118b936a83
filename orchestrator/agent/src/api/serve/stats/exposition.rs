//! A reading in the text form of Prometheus, with the names of kubelet and cAdvisor. Pure.

use std::fmt::Write;

use jiff::Timestamp;

use super::names;
use crate::node::usage::{ContainerReading, INTERFACE, PodReading, Reading};

/// `/metrics/resource` (KEP-2371's predecessor, Kubernetes 1.18): what metrics-server scrapes.
pub fn resource(reading: &Reading) -> String {
    let mut text = Text::at(reading.at);
    let (machine, none) = (&reading.machine, String::new());
    let containers = || all_containers(reading).map(|(_, pod, it)| (pod, it));
    text.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "CPU time of a container",
    );
    for (pod, it) in containers() {
        text.line(&labels(pod, Some(it)), seconds(it.counters.cpu_ns));
    }
    text.family(
        "container_memory_working_set_bytes",
        "gauge",
        "Working set of a container",
    );
    for (pod, it) in containers() {
        text.line(&labels(pod, Some(it)), it.counters.working_set_bytes);
    }
    text.family(
        "container_start_time_seconds",
        "gauge",
        "When a container started",
    );
    for (pod, it) in containers() {
        text.line(&labels(pod, Some(it)), started(it));
    }
    text.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "CPU time of the node",
    );
    text.line(&none, seconds(machine.cpu_ns));
    text.family(
        "node_memory_working_set_bytes",
        "gauge",
        "Working set of the node",
    );
    text.line(&none, machine.working_set_bytes());
    text.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "CPU time of a pod",
    );
    for pod in reading.pods.values() {
        text.line(&labels(pod, None), seconds(pod.counters().cpu_ns));
    }
    text.family(
        "pod_memory_working_set_bytes",
        "gauge",
        "Working set of a pod",
    );
    for pod in reading.pods.values() {
        text.line(&labels(pod, None), pod.counters().working_set_bytes);
    }
    text.family(
        "resource_scrape_error",
        "gauge",
        "1 if a container could not be read",
    );
    text.line(&none, 0);
    text.whole
}

/// `/metrics/cadvisor`: of cAdvisor's families those that dashboards and autoscalers ask for.
pub fn cadvisor(reading: &Reading) -> String {
    type Number = fn(&ContainerReading) -> String;
    const FAMILIES: [(&str, &str, &str, Number); 5] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "CPU time",
            |it| seconds(it.counters.cpu_ns),
        ),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Memory, caches included",
            |it| it.counters.memory_bytes.to_string(),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Working set",
            |it| it.counters.working_set_bytes.to_string(),
        ),
        ("container_memory_rss", "gauge", "Anonymous memory", |it| {
            it.counters.rss_bytes.to_string()
        }),
        (
            "container_start_time_seconds",
            "gauge",
            "When it started",
            started,
        ),
    ];
    let mut text = Text::at(reading.at);
    for (name, kind, help, number) in FAMILIES {
        text.family(name, kind, help);
        for (_, pod, it) in all_containers(reading) {
            let more = format!(
                ",id={},image={}",
                quoted(&it.running.id),
                quoted(&it.running.image)
            );
            let labels = labels(pod, Some(it)) + &more;
            text.line(&labels, number(it));
        }
    }
    for (name, help, of) in [
        ("container_network_receive_bytes_total", "Bytes received", 0),
        ("container_network_transmit_bytes_total", "Bytes sent", 1),
    ] {
        text.family(name, "counter", help);
        for pod in reading.pods.values() {
            let Some(interface) = pod.interface else {
                continue;
            };
            let labels = format!("{},interface={}", labels(pod, None), quoted(INTERFACE));
            text.line(&labels, [interface.rx_bytes, interface.tx_bytes][of]);
        }
    }
    text.family("machine_memory_bytes", "gauge", "Memory of the machine");
    text.line("", reading.machine.memory_total_bytes);
    text.whole
}

/// With the pod's uid.
fn all_containers(
    reading: &Reading,
) -> impl Iterator<Item = (&String, &PodReading, &ContainerReading)> {
    let pods = reading.pods.iter();
    pods.flat_map(|(uid, pod)| pod.containers.iter().map(move |it| (uid, pod, it)))
}

fn labels(pod: &PodReading, container: Option<&ContainerReading>) -> String {
    let (name, namespace) = names(&pod.pod);
    let of = container.map(|it| format!("container={},", quoted(&it.running.name)));
    format!(
        "{}namespace={},pod={}",
        of.unwrap_or_default(),
        quoted(namespace),
        quoted(name)
    )
}

/// A label's value: what the format's own signs are is escaped.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    format!("\"{}\"", text.replace('"', "\\\""))
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn started(it: &ContainerReading) -> String {
    let ms = it.running.started_at.as_millisecond();
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

/// The text as far as it is written.
struct Text {
    whole: String,
    name: &'static str,
    at_ms: i64,
}

impl Text {
    fn at(at: Timestamp) -> Self {
        Self {
            whole: String::new(),
            name: "",
            at_ms: at.as_millisecond(),
        }
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing to a String cannot fail.
        let _ = writeln!(self.whole, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, labels: &str, number: impl std::fmt::Display) {
        let labels = match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _ = writeln!(self.whole, "{}{labels} {number} {}", self.name, self.at_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::reading;
    use super::*;

    #[test]
    fn metrics_server_finds_what_it_scrapes() {
        let text = resource(&reading());
        let labels = r#"{container="ma\"in",namespace="shop",pod="web"}"#;
        for line in [
            format!("container_cpu_usage_seconds_total{labels} 2.500000000 2000000"),
            format!("container_start_time_seconds{labels} 1000.000 2000000"),
            "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 4096 2000000".to_owned(),
            "node_memory_working_set_bytes 50 2000000".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn dashboards_find_the_network_of_a_pod() {
        let text = cadvisor(&reading());
        let line = "container_network_transmit_bytes_total{namespace=\"shop\",pod=\"web\",\
                    interface=\"eth0\"} 22 2000000";
        assert!(text.lines().any(|found| found == line), "{text}");
        assert!(text.contains("image=\"nginx:1\""));
    }
}
