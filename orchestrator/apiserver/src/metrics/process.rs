//! What this process takes of its machine, as `/proc` says it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Reads when it is asked.
#[derive(Debug)]
pub struct Numbers;

/// Clock ticks a second and bytes a page: what Linux has on every architecture that this runs on.
const TICKS: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// One reading.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    cpu_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    threads: u64,
    /// Since the machine's start.
    start_seconds: f64,
}

impl Reading {
    /// `/proc/self/stat` (proc(5)). The name in brackets may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        // The third field of proc(5) is the first one here.
        let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
        Some(Self {
            cpu_seconds: (number(14)? + number(15)?) as f64 / TICKS,
            threads: number(20)?,
            start_seconds: number(22)? as f64 / TICKS,
            virtual_bytes: number(23)?,
            resident_bytes: number(24)? * PAGE_BYTES,
        })
    }
}

impl Collector for Numbers {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let Some(reading) = Reading::parse(&read("/proc/self/stat")) else {
            return Ok(());
        };
        let booted = read("/proc/stat");
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime "));
        let booted: f64 = booted
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let most = read("/proc/self/limits");
        let most = most
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let most = most.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
        let help = "CPU time of this process";
        let mut metric =
            to.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, f64>(&reading.cpu_seconds, None)?;
        let gauges: [(&str, &str, f64); 6] = [
            (
                "process_resident_memory_bytes",
                "Memory in use",
                reading.resident_bytes as f64,
            ),
            (
                "process_virtual_memory_bytes",
                "Address space",
                reading.virtual_bytes as f64,
            ),
            ("process_open_fds", "Open files", files as f64),
            ("process_max_fds", "Open files at most", most.unwrap_or(0.0)),
            ("process_threads", "Threads", reading.threads as f64),
            (
                "process_start_time_seconds",
                "When it started",
                booted + reading.start_seconds,
            ),
        ];
        for (name, help, value) in gauges {
            let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_gauge(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_is_read() {
        let stat = "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 500 8192 2 18446";
        let expected = Reading {
            cpu_seconds: 2.0,
            virtual_bytes: 8192,
            resident_bytes: 8192,
            threads: 9,
            start_seconds: 5.0,
        };
        assert_eq!(Reading::parse(stat), Some(expected));
        assert_eq!(Reading::parse("7 (a) S"), None);
    }
}
