//! A process that holds the sockets of the cluster's DNS, so that no query is lost while an agent is
//! restarted or replaced: what pods ask meanwhile waits in the sockets for the next agent.
//!
//! ```text
//! agent ──starts──▶ orchestrator hold (sockets as its standard input and output) ◀──pidfd_getfd── next agent
//!    └─touches─▶ /run/orchestrator/NODE.names4 ◀─looks─┘
//! ```
//!
//! The process does nothing else. It ends when its file is gone or names another process, and two minutes
//! after the last agent has touched it: then nobody would answer.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::network::local_socket;
use sys::files;

/// The subcommand that such a process runs.
pub const COMMAND: &str = "hold";

/// How often an agent touches the file, and how long it may not.
pub const TOUCH_EVERY: Duration = Duration::from_secs(20);
const UNTOUCHED_FOR: Duration = Duration::from_secs(120);

/// How often the process looks at its file, and how long it waits for it at first.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// A UDP socket and a TCP listener at one address.
#[derive(Debug)]
pub struct Pair {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

impl Pair {
    /// Opens them, ready for tokio.
    pub fn open(at: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
        Self { udp, tcp }.ready()
    }

    /// Where they are, if both are at the same place.
    pub fn address(&self) -> Option<SocketAddr> {
        let udp = self.udp.local_addr().ok()?;
        (self.tcp.local_addr().ok()? == udp).then_some(udp)
    }

    fn from_fds(udp: OwnedFd, tcp: OwnedFd) -> io::Result<Self> {
        let kinds = [(&udp, SockType::Datagram), (&tcp, SockType::Stream)];
        for (fd, kind) in kinds {
            if getsockopt(&fd.as_fd(), sockopt::SockType)? != kind {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
        let (udp, tcp) = (udp.into(), tcp.into());
        Self { udp, tcp }.ready()
    }

    fn ready(self) -> io::Result<Self> {
        self.udp.set_nonblocking(true)?;
        self.tcp.set_nonblocking(true)?;
        Ok(self)
    }
}

/// The file that names the process which holds a node's sockets of a family.
pub fn file(node: &str, is_ipv4: bool) -> PathBuf {
    local_socket::path(node, if is_ipv4 { "names4" } else { "names6" })
}

/// Lets go of what is held for a node.
pub fn forget(node: &str) {
    for is_ipv4 in [true, false] {
        // It may never have been there.
        let _ = fs::remove_file(file(node, is_ipv4));
    }
}

/// The sockets that an earlier agent has left, if their holder still has them.
pub fn adopt(file: &Path) -> io::Result<Pair> {
    let pid = holder(file)?;
    let pid = Pid::from_raw(pid).ok_or(ErrorKind::InvalidData)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // Only now that the number cannot become another process's.
    if !is_held_by(file, pid.as_raw_nonzero().get()) {
        return Err(ErrorKind::NotFound.into());
    }
    let take = |fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty());
    Pair::from_fds(take(0)?, take(1)?)
}

/// Starts a process that holds the sockets from now on.
pub fn start(file: &Path, pair: &Pair) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        files::create_private_dir(parent)?;
    }
    let udp: OwnedFd = pair.udp.try_clone()?.into();
    let tcp: OwnedFd = pair.tcp.try_clone()?.into();
    // What its parent is asked to do is not for it. Once it ends, tokio takes it in.
    let child = tokio::process::Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(file)
        .stdin(Stdio::from(udp))
        .stdout(Stdio::from(tcp))
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    let pid = child.id().ok_or(ErrorKind::NotFound)?;
    files::write_atomic(file, format!("{pid}\n").as_bytes(), files::PRIVATE)
}

/// Says that an agent is there. `false`: nobody holds its sockets.
pub fn touch(file: &Path) -> bool {
    let held = holder(file).is_ok_and(|pid| is_held_by(file, pid));
    let touched = || {
        File::options()
            .write(true)
            .open(file)?
            .set_modified(SystemTime::now())
    };
    held && touched().is_ok()
}

/// What the process does: nothing, for as long as it is wanted.
pub fn hold(file: &Path) {
    let own = i32::try_from(std::process::id()).ok();
    let started = Instant::now();
    let mut seen = false;
    loop {
        let named = holder(file).ok();
        seen |= named == own;
        let wanted = match (named == own, seen) {
            (true, _) => !is_untouched(file),
            (false, true) => false,
            (false, false) => started.elapsed() < FILE_TIMEOUT,
        };
        if !wanted {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn is_untouched(file: &Path) -> bool {
    let modified = fs::metadata(file).and_then(|it| it.modified());
    let age = modified.ok().and_then(|it| it.elapsed().ok());
    age.is_some_and(|age| age > UNTOUCHED_FOR)
}

fn holder(file: &Path) -> io::Result<i32> {
    let text = fs::read_to_string(file)?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Whether a process is one that holds sockets for this file.
fn is_held_by(file: &Path, pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).skip(1);
    let file = file.as_os_str().as_encoded_bytes();
    words.next() == Some(COMMAND.as_bytes()) && words.next() == Some(file)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A holder as far as its command line says; it ends with the test.
    struct Holder(Child);

    impl Drop for Holder {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn holder_of(pair: &Pair, dir: &Path, file: &Path) -> Holder {
        fs::write(dir.join(COMMAND), "while :; do sleep 1; done\n").unwrap();
        let fd = |fd: io::Result<OwnedFd>| Stdio::from(fd.unwrap());
        let child = Command::new("sh")
            .args([Path::new(COMMAND), file])
            .current_dir(dir)
            .stdin(fd(pair.udp.try_clone().map(OwnedFd::from)))
            .stdout(fd(pair.tcp.try_clone().map(OwnedFd::from)))
            .spawn()
            .unwrap();
        fs::write(file, format!("{}\n", child.id())).unwrap();
        Holder(child)
    }

    #[test]
    fn what_was_asked_while_no_agent_ran_is_answered_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names4");
        let open = || {
            let at = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
            Pair::open(at)
        };
        let pair = std::iter::repeat_with(open).find_map(Result::ok).unwrap();
        let at = pair.address().unwrap();
        let _holder = holder_of(&pair, dir.path(), &file);
        // A process has its command line a moment after it has begun.
        let started = Instant::now();
        while !touch(&file) {
            assert!(started.elapsed() < FILE_TIMEOUT, "nobody holds the sockets");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        drop(pair);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"query", at).unwrap();
        let connection = std::net::TcpStream::connect(at);
        assert!(connection.is_ok(), "{connection:?}");
        let adopted = match adopt(&file) {
            // Without the right to look into other processes there is nothing to show.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return,
            adopted => adopted.unwrap(),
        };
        assert_eq!(adopted.address(), Some(at));
        let mut buffer = [0; 16];
        assert_eq!(adopted.udp.recv(&mut buffer).unwrap(), 5);
        assert!(adopted.tcp.accept().is_ok());
    }

    #[test]
    fn nothing_is_taken_from_a_process_that_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names4");
        let is_there = |text: &str| {
            fs::write(&file, text).unwrap();
            adopt(&file).is_ok() || touch(&file)
        };
        assert!(!is_there(&std::process::id().to_string()));
        assert!(!is_there("1"));
        assert!(!is_there("-1"));
        assert!(!is_there("0"));
        assert!(!is_there("nonsense"));
        fs::remove_file(&file).unwrap();
        assert!(adopt(&file).is_err() && !touch(&file));
    }

    #[test]
    fn a_holder_that_its_file_does_not_name_any_more_ends() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names4");
        fs::write(&file, std::process::id().to_string()).unwrap();
        let held = file.clone();
        let holder = std::thread::spawn(move || hold(&held));
        fs::write(&file, "1").unwrap();
        // It may have been before the first look: then the time for that is over some time.
        let started = Instant::now();
        while !holder.is_finished() {
            std::thread::park_timeout(LOOK_EVERY);
            assert!(started.elapsed() < FILE_TIMEOUT * 2, "it goes on");
        }
    }
}
