//! Puts the compiled datapath into the binary: `ORCHESTRATOR_BPF_OBJECT`, which must be there, else what
//! `cargo xtask build-ebpf` left in the target directory, else nothing (the agent then says what to run).

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-env-changed=ORCHESTRATOR_BPF_OBJECT");
    let named = env::var_os("ORCHESTRATOR_BPF_OBJECT").map(PathBuf::from);
    let must_exist = named.is_some();
    let object = named.unwrap_or_else(|| target(&out).join("bpf/orchestrator.o"));
    // A path that does not exist would make cargo run this script every time.
    let watched = object
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("."));
    println!("cargo::rerun-if-changed={}", watched.display());
    let bytes = if must_exist || object.exists() {
        fs::read(&object)?
    } else {
        Vec::new()
    };
    fs::write(out.join("orchestrator.o"), bytes)
}

/// `<target>/<profile>/build/<crate>/out` → `<target>`.
fn target(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).to_owned()
}
