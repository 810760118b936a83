//! Unix sockets by which root on the node asks its agent.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use datapath::pin_name;
use sys::files;

/// For root alone.
const DIRECTORY: &str = "/run/orchestrator";

/// Where the agent of a node answers questions of one kind.
pub fn path(node: &str, kind: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.{kind}", pin_name(node)))
}

/// Takes the place of an earlier agent's socket.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    files::create_private_dir(socket.parent().unwrap_or(Path::new("/")))?;
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => UnixListener::bind(socket),
    }
}
