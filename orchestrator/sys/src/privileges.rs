//! What a process gives up because it does not need it: capabilities, new privileges through what it
//! executes, and memory that others read or a crash writes down.
//!
//! Capabilities belong to threads: these functions are called before a process has a second one.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

/// The API server, scheduler and controllers, once their ports are bound: files of their own, and those
/// in a directory that another user has given them.
pub const OF_SERVER: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// An agent makes links, namespaces, mounts, eBPF programs and files of any owner. What changes the
/// machine besides is not its work: modules, the clock, raw memory and disks, restarts, audit and the
/// policies of security modules.
pub const OF_AGENT: CapabilitySet = CapabilitySet::all().difference(
    CapabilitySet::AUDIT_CONTROL
        .union(CapabilitySet::AUDIT_READ)
        .union(CapabilitySet::AUDIT_WRITE)
        .union(CapabilitySet::BLOCK_SUSPEND)
        .union(CapabilitySet::CHECKPOINT_RESTORE)
        .union(CapabilitySet::IPC_OWNER)
        .union(CapabilitySet::LEASE)
        .union(CapabilitySet::LINUX_IMMUTABLE)
        .union(CapabilitySet::MAC_ADMIN)
        .union(CapabilitySet::MAC_OVERRIDE)
        .union(CapabilitySet::NET_BROADCAST)
        .union(CapabilitySet::SYS_BOOT)
        .union(CapabilitySet::SYS_MODULE)
        .union(CapabilitySet::SYS_PACCT)
        .union(CapabilitySet::SYS_RAWIO)
        .union(CapabilitySet::SYS_TIME)
        .union(CapabilitySet::SYS_TTY_CONFIG)
        .union(CapabilitySet::WAKE_ALARM),
);

/// What only holds sockets needs nothing.
pub const OF_HOLDER: CapabilitySet = CapabilitySet::empty();

/// Bits that a set of capabilities has.
const BITS: u32 = u64::BITS;

/// Keeps these capabilities of those that the thread has, and lets nothing that it executes have more.
/// Whoever has none keeps none.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    prctl::set_no_new_privs()?;
    clear_ambient_capability_set()?;
    let own = capabilities(None)?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            // The first one that the kernel does not know is an error, and the last.
            match capability_is_in_bounding_set(one) {
                Ok(true) if !kept.contains(one) => remove_capability_from_bounding_set(one)?,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: own.effective.intersection(kept),
            permitted: own.permitted.intersection(kept),
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Closes the memory to other processes but root's, and to core dumps: it holds keys and Secrets.
pub fn close_memory() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

/// Files and directories are made for their owner alone, unless somebody says otherwise.
pub fn private_files() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Runs a test as a process that called [`private_files`] would: the umask of a thread that shares it with no
/// other. It takes no privilege.
#[cfg(test)]
pub(crate) fn with_private_files(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).expect("its own umask");
            private_files();
            test();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Capabilities of a thread end with it.
    fn in_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().expect("the test passes");
    }

    #[test]
    fn what_was_given_up_is_gone_for_good() {
        in_a_thread(|| {
            let before = capabilities(None).expect("read");
            keep(OF_SERVER).expect("given up");
            let after = capabilities(None).expect("read");
            assert_eq!(after.effective, before.effective.intersection(OF_SERVER));
            assert_eq!(after.permitted, before.permitted.intersection(OF_SERVER));
            assert!(after.inheritable.is_empty());
            assert!(set_capabilities(None, before).is_err() || before.permitted.is_empty());
            assert_eq!(unshare(CloneFlags::CLONE_NEWNET), Err(Errno::EPERM));
            assert_eq!(prctl::get_no_new_privs(), Ok(true));
            if before.effective.contains(CapabilitySet::SETPCAP) {
                let bounded = capability_is_in_bounding_set(CapabilitySet::SYS_ADMIN);
                assert_eq!(bounded.ok(), Some(false));
                let bounded = capability_is_in_bounding_set(CapabilitySet::DAC_OVERRIDE);
                assert_eq!(bounded.ok(), Some(true));
            }
        });
    }

    #[test]
    fn an_agent_keeps_what_it_works_with_and_cannot_change_the_machine_besides() {
        let work = CapabilitySet::NET_ADMIN
            | CapabilitySet::SYS_ADMIN
            | CapabilitySet::BPF
            | CapabilitySet::CHOWN
            | CapabilitySet::SYS_PTRACE;
        assert!(OF_AGENT.contains(work));
        in_a_thread(|| {
            keep(OF_AGENT).expect("given up");
            let now = capabilities(None).expect("read").effective;
            assert!(!now.intersects(CapabilitySet::SYS_MODULE | CapabilitySet::SYS_TIME));
            let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME);
            assert!(clock.is_ok());
        });
    }

    #[test]
    fn memory_is_closed_to_others_and_to_core_dumps() {
        close_memory().expect("closed");
        assert_eq!(prctl::get_dumpable(), Ok(false));
        let limits = nix::sys::resource::getrlimit(Resource::RLIMIT_CORE);
        assert_eq!(limits, Ok((0, 0)));
    }
}
