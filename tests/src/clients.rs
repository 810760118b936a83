//! Clients that are Python: Helm as a library, and Kubernetes' own client. `cargo xtask test` makes their
//! environment.

use std::path::PathBuf;

use crate::cluster::workspace;

/// The interpreter that finds them, if the environment is there.
pub fn python() -> Option<PathBuf> {
    let program = workspace().join(".dev/cache/clients/bin/python");
    program.exists().then_some(program)
}
