//! Puts the compiled datapath into the binary, the normal one and the one with a log: the files that
//! the environment names, which must be there, else what `cargo xtask build-ebpf` left in the target
//! directory, else nothing (the agent then says what to run).

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io, thread};

/// The variable that names a file, and the file's name.
const OBJECTS: [(&str, &str); 2] = [
    ("ORCHESTRATOR_BPF_OBJECT", "orchestrator.o"),
    ("ORCHESTRATOR_BPF_LOG_OBJECT", "orchestrator-log.o"),
];

/// Set when the objects are built beside this: they are waited for. Whoever sets it ends this if they fail.
const AWAIT: &str = "ORCHESTRATOR_BPF_AWAIT";

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    OBJECTS
        .iter()
        .try_for_each(|(variable, name)| embed(&out, variable, name))
}

fn embed(out: &Path, variable: &str, name: &str) -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={variable}");
    let named = env::var_os(variable).map(PathBuf::from);
    let must_exist = named.is_some();
    let object = named.unwrap_or_else(|| target(out).join("bpf").join(name));
    while env::var_os(AWAIT).is_some() && !object.exists() {
        thread::sleep(Duration::from_millis(50));
    }
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
    fs::write(out.join(name), bytes)
}

/// `<target>/<profile>/build/<crate>/out` → `<target>`.
fn target(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).to_owned()
}
