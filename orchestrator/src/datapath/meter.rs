//! The numbers of a running datapath, read beside it: what its programs counted, how full its maps
//! are, how often and how long its programs ran. Never writes.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use orchestrator_common::maps::statistics::{LOST, reason_row, verdict_row};
use orchestrator_common::{DropReason, Verdict};

use super::DatapathError;
use super::maps::Maps;

/// Handles of its own to one node's maps and programs.
pub struct Meter {
    maps: Maps,
    programs: Vec<(String, OwnedFd)>,
    /// The kernel counts runs while this is open; nobody else need have asked for it.
    _runs: Option<OwnedFd>,
}

/// One look at all numbers. Counters are since the maps and programs were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Packets by what became of them.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Packets dropped or refused, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Records of drops that found no room.
    pub lost: u64,
    pub maps: Vec<MapFill>,
    /// Rows of `flows`: a translated flow has two.
    pub flow_rows: u64,
    pub programs: Vec<ProgramRuns>,
    pub services: Vec<ServiceCount>,
    pub backends: Vec<BackendCount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    pub name: &'static str,
    pub rows: u64,
    pub most: u64,
}

/// Zero where the kernel does not count runs (`kernel.bpf_stats_enabled`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramRuns {
    pub name: String,
    pub runs: u64,
    pub time: Duration,
    /// Instructions that the verifier went through.
    pub verified: u64,
}

/// Connections of one port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCount {
    pub namespace: String,
    pub service: String,
    pub port: String,
    pub opened: u64,
    pub refused: u64,
}

/// Connections of one backend, whichever Services have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendCount {
    /// `ADDRESS:PORT`.
    pub backend: String,
    pub opened: u64,
    pub refused: u64,
}

impl Meter {
    pub(super) fn new(maps: Maps, programs: Vec<(String, OwnedFd)>, runs: Option<OwnedFd>) -> Self {
        Self {
            maps,
            programs,
            _runs: runs,
        }
    }

    /// Blocks: one call a row of the larger maps.
    pub fn read(&self) -> Result<Reading, DatapathError> {
        let counter = |row: u32| self.maps.counter(row);
        let verdicts = Verdict::ALL.iter();
        let verdicts = verdicts.map(|it| Ok((it.name(), counter(verdict_row(*it))?)));
        let reasons = DropReason::ALL.iter().filter(|it| **it != DropReason::None);
        let drops = reasons.map(|it| Ok((it.name(), counter(reason_row(*it))?)));
        let maps = self.maps.fill()?;
        let flows = maps.iter().find(|map| map.name.starts_with("flows_"));
        Ok(Reading {
            verdicts: verdicts.collect::<Result<_, DatapathError>>()?,
            drops: drops.collect::<Result<_, DatapathError>>()?,
            lost: counter(LOST)?,
            flow_rows: flows.map_or(0, |flows| flows.rows),
            maps,
            programs: self.programs.iter().map(runs).collect(),
            services: Vec::new(),
            backends: Vec::new(),
        })
    }
}

/// What the kernel says of a program (`bpf_prog_show_fdinfo`, since Linux 5.1; `verified_insns` 5.16).
fn runs((name, program): &(String, OwnedFd)) -> ProgramRuns {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    // A kernel without /proc tells nothing: zeros.
    parse(name, &fs::read_to_string(path).unwrap_or_default())
}

/// Lines of `key:<tab>value`.
fn parse(name: &str, text: &str) -> ProgramRuns {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == key);
        found
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0)
    };
    ProgramRuns {
        name: name.to_owned(),
        runs: value("run_cnt"),
        time: Duration::from_nanos(value("run_time_ns")),
        verified: value("verified_insns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_about_a_program_are_read() {
        let text = "pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_jited:\t1\nmemlock:\t16384\n\
                    prog_id:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\nverified_insns:\t15750\n";
        let expected = ProgramRuns {
            name: "from_container".to_owned(),
            runs: 3,
            time: Duration::from_nanos(1500),
            verified: 15_750,
        };
        assert_eq!(parse("from_container", text), expected);
        assert_eq!(parse("p", "").runs, 0);
    }
}
