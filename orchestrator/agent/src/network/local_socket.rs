//! Unix sockets by which root on the node asks its agent.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
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
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    // The directory may have been there with other rights.
    std::fs::set_permissions(socket, Permissions::from_mode(files::PRIVATE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::UnixStream;

    use rustix::process::Uid;
    use rustix::thread::set_thread_res_uid;

    use super::*;

    /// Tries to connect as a user that is not root, in a thread of its own. It needs root, as the whole of CI has.
    fn as_nobody(socket: &Path) -> io::Result<UnixStream> {
        let tried = std::thread::scope(|scope| {
            let tried = scope.spawn(|| {
                let nobody = Uid::from_raw(65534);
                set_thread_res_uid(Some(nobody), Some(nobody), Some(nobody))?;
                UnixStream::connect(socket)
            });
            tried.join()
        });
        tried.expect("no panic")
    }

    #[tokio::test]
    async fn only_root_reads_what_the_datapath_drops_and_decides() {
        let directory = tempfile::tempdir().expect("a directory");
        let everybody = |path: &Path| {
            std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("root's");
        };
        everybody(directory.path());
        let own = directory.path().join("orchestrator");
        for kind in ["drops", "log"] {
            let socket = own.join(format!("node-1.{kind}"));
            let _listener = listen(&socket).expect("a socket");
            let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
            assert_eq!((mode(&own), mode(&socket)), (0o700, 0o600));
            let denied = |tried: io::Result<UnixStream>| tried.map_err(|error| error.kind()).err();
            assert_eq!(
                denied(as_nobody(&socket)),
                Some(ErrorKind::PermissionDenied)
            );
            // A directory that somebody else has made does not open the socket.
            everybody(&own);
            assert_eq!(
                denied(as_nobody(&socket)),
                Some(ErrorKind::PermissionDenied)
            );
            assert_eq!(denied(UnixStream::connect(&socket)), None);
            std::fs::set_permissions(&own, Permissions::from_mode(0o700)).expect("root's");
        }
    }
}
