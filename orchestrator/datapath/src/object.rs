//! The compiled datapath inside this binary: loads it into the kernel with its maps pinned by name.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use orchestrator_common::{Addr, MAPS};

use super::DatapathError;

/// What `build.rs` found; empty when the datapath had not been built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/orchestrator.o"));
/// The same programs with statements for the log.
static LOG_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/orchestrator-log.o"));

/// Whether this binary holds a datapath at all.
pub fn is_embedded() -> bool {
    !OBJECT.is_empty()
}

/// Loaded programs by name. They live as long as a link or this holds them.
pub struct Programs(BTreeMap<String, OwnedFd>);

impl Programs {
    pub fn get(&self, name: &str) -> Result<&OwnedFd, DatapathError> {
        self.0.get(name).ok_or_else(|| {
            DatapathError::Invalid(format!("the embedded datapath has no program {name}"))
        })
    }
}

impl Programs {
    /// All of them, with descriptors of their own.
    pub fn all(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        let cloned = self
            .0
            .iter()
            .map(|(name, fd)| Ok((name.clone(), fd.try_clone()?)));
        cloned.collect()
    }
}

/// Has the kernel count runs of programs, every one of the machine, while the descriptor is open. Costs
/// each run two looks at the clock.
pub fn count_runs() -> Result<OwnedFd, DatapathError> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| DatapathError::kernel("count runs of programs", error))
}

/// What the object with the log is told: `orchestrator-ebpf/src/log.rs` has each value's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConstants {
    pub level: u8,
    pub is_of_pod: u32,
    pub pod_v4: Addr,
    pub pod_v6: Addr,
    pub to: Addr,
    pub to_port: u32,
}

/// Creates or adopts every map of the object in `maps`, and loads every program through the verifier.
pub fn load(maps: &Path) -> Result<Programs, DatapathError> {
    load_object(OBJECT, maps, EbpfLoader::new()).map(|(_, programs)| programs)
}

/// Loads the programs that log, over the maps that are pinned in `maps`. The object has the map of their
/// records.
pub fn load_log(maps: &Path, constants: &LogConstants) -> Result<(Ebpf, Programs), DatapathError> {
    let mut loader = EbpfLoader::new();
    loader
        .override_global(aya_log::LEVEL, &constants.level, true)
        .override_global("LOG_IS_OF_POD", &constants.is_of_pod, true)
        .override_global("LOG_POD_V4", &constants.pod_v4, true)
        .override_global("LOG_POD_V6", &constants.pod_v6, true)
        .override_global("LOG_TO", &constants.to, true)
        .override_global("LOG_TO_PORT", &constants.to_port, true);
    load_object(LOG_OBJECT, maps, loader)
}

fn load_object(
    bytes: &[u8],
    maps: &Path,
    mut loader: EbpfLoader<'_>,
) -> Result<(Ebpf, Programs), DatapathError> {
    if bytes.is_empty() {
        return Err(DatapathError::NoObject);
    }
    for spec in &MAPS {
        loader.map_pin_path(spec.name, maps.join(spec.name));
    }
    let mut object = loader
        .load(bytes)
        .map_err(|error| DatapathError::kernel("load the embedded object", error))?;
    // The verifier is what a start waits for: one thread a program.
    let loaded: Vec<_> = thread::scope(|scope| {
        let load = |(name, program)| (name, scope.spawn(move || load_program(program)));
        let threads: Vec<(&str, _)> = object.programs_mut().map(load).collect();
        let join = |(name, thread): (&str, ScopedJoinHandle<'_, _>)| match thread.join() {
            Ok(loaded) => (name.to_owned(), loaded),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    });
    let mut programs = BTreeMap::new();
    for (name, fd) in loaded {
        let failed = |error| DatapathError::kernel(format!("load program {name}"), error);
        let fd = fd.map_err(failed)?;
        programs.insert(name, fd);
    }
    Ok((object, Programs(programs)))
}

fn load_program(program: &mut Program) -> Result<OwnedFd, aya::programs::ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        _ => return Err(aya::programs::ProgramError::UnexpectedProgramType),
    }
    let fd = program.fd()?.as_fd().try_clone_to_owned();
    fd.map_err(aya::programs::ProgramError::IOError)
}
