//! The numbers of a running datapath, read beside it: what its programs counted, how full its maps
//! are, how often and how long its programs ran. Never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use orchestrator_common::maps::statistics::{
    Connections, LOST, UNREMEMBERED, XDP, reason_row, verdict_row,
};
use orchestrator_common::{DropReason, Verdict};

use super::DatapathError;
use super::maps::{MapFill, Maps};
use super::names::{Names, PortName};

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
    /// Clients that found no room in the table of affinities.
    pub unremembered: u64,
    /// Packets that XDP finished; they are among the others.
    pub xdp: u64,
    pub maps: Vec<MapFill>,
    /// Rows of `flows`: a translated flow has two.
    pub flow_rows: u64,
    pub programs: Vec<ProgramRuns>,
    pub services: Vec<ServiceCount>,
    pub backends: Vec<BackendCount>,
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
}

impl Meter {
    pub(super) fn new(maps: Maps, programs: Vec<(String, OwnedFd)>, runs: Option<OwnedFd>) -> Self {
        Self {
            maps,
            programs,
            _runs: runs,
        }
    }

    /// Blocks: one call a row of the larger maps. `names` is asked for what the numbers of Services and
    /// of backends mean; those that it does not know are left out.
    pub fn read(
        &self,
        names: impl FnOnce(BTreeSet<u32>, BTreeSet<u32>) -> Names,
    ) -> Result<Reading, DatapathError> {
        let services = self.maps.service_counters()?;
        let backends = self.maps.backend_counters()?;
        let known = names(
            services.keys().copied().collect(),
            backends.keys().copied().collect(),
        );
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
            unremembered: counter(UNREMEMBERED)?,
            xdp: counter(XDP)?,
            flow_rows: flows.map_or(0, |flows| flows.rows),
            maps,
            programs: self.programs.iter().map(runs).collect(),
            services: by_port(&services, &known),
            backends: by_address(&backends, &known),
        })
    }
}

/// Sums the rows of one port: it has one for each of its addresses.
fn by_port(counted: &BTreeMap<u32, Connections>, names: &Names) -> Vec<ServiceCount> {
    let mut sums: BTreeMap<&PortName, Connections> = BTreeMap::new();
    for (name, row) in counted
        .iter()
        .filter_map(|(id, row)| Some((names.services.get(id)?, row)))
    {
        let sum = sums.entry(name).or_default();
        sum.opened += row.opened;
        sum.refused += row.refused;
    }
    let count = |(name, row): (&PortName, Connections)| ServiceCount {
        namespace: name.namespace.clone(),
        service: name.service.clone(),
        port: name.port.clone(),
        opened: row.opened,
        refused: row.refused,
    };
    sums.into_iter().map(count).collect()
}

/// Sums the rows of one address: TCP and UDP have a number each.
fn by_address(counted: &BTreeMap<u32, Connections>, names: &Names) -> Vec<BackendCount> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, row) in counted
        .iter()
        .filter_map(|(id, row)| Some((names.backends.get(id)?, row)))
    {
        *sums.entry(name).or_default() += row.opened;
    }
    let count = |(name, opened): (&str, u64)| BackendCount {
        backend: name.to_owned(),
        opened,
    };
    sums.into_iter().map(count).collect()
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
    fn the_rows_of_one_port_are_one_number() {
        let web = PortName {
            namespace: "shop".to_owned(),
            service: "web".to_owned(),
            port: "http".to_owned(),
        };
        let names = Names {
            services: BTreeMap::from([(1, web.clone()), (2, web)]),
            backends: BTreeMap::new(),
        };
        let row = |opened, refused| Connections { opened, refused };
        let counted = BTreeMap::from([(1, row(5, 1)), (2, row(2, 0)), (9, row(7, 7))]);
        let [web] = by_port(&counted, &names).try_into().expect("9 is nobody's");
        assert_eq!((web.opened, web.refused, &*web.service), (7, 1, "web"));
    }

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
