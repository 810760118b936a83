//! The compiled datapath inside this binary: loads it into the kernel with its maps pinned by name.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use aya::EbpfLoader;
use aya::programs::Program;
use orchestrator_common::MAPS;

use super::DatapathError;

/// What `build.rs` found; empty when the datapath had not been built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/orchestrator.o"));

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

/// Creates or adopts every map of the object in `maps`, and loads every program through the verifier.
pub fn load(maps: &Path) -> Result<Programs, DatapathError> {
    if OBJECT.is_empty() {
        return Err(DatapathError::NoObject);
    }
    let mut loader = EbpfLoader::new();
    for spec in &MAPS {
        loader.map_pin_path(spec.name, maps.join(spec.name));
    }
    let mut object = loader
        .load(OBJECT)
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
    Ok(Programs(programs))
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
