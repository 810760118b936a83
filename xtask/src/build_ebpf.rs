//! Builds the datapath object and reports what the verifier thinks of it.
//!
//! The object is `<target>/bpf/orchestrator.o`, and beside it `orchestrator-log.o`, the same with
//! statements for a log. Each is replaced only when its bytes change, because the product embeds it; a
//! stamp over all sources makes a build without changes a matter of reading them.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::{Program, ProgramInfo};

use crate::command;
use crate::setup::{self, Toolchain};
use crate::stack;

const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};
/// What an object is made of, below the workspace.
const SOURCES: &[&str] = &[
    "orchestrator-ebpf",
    "orchestrator-common",
    "Cargo.toml",
    "Cargo.lock",
];
/// BTF is what the kernel's tools print rows and lines with. The last one is for speed: with it, LLVM
/// writes small copies and fills as loads and stores, not as calls of a loop over bytes.
const RUSTFLAGS: &str = "-C debuginfo=2 -C link-arg=--btf \
                         -C link-arg=--disable-expand-memcpy-in-order";

/// What a program may cost: instructions that the verifier walks, bytes of stack. A program that needs
/// more has to say so here; all of them together keep a start's load below 300 ms.
const CAPS: &[(&str, u32, u32)] = &[
    ("connect4", 5_000, 288),
    ("connect6", 8_000, 320),
    ("from_container", 55_000, 448),
    ("from_cut", 4_000, 320),
    ("from_netdev", 68_000, 480),
    ("from_overlay", 26_000, 480),
    ("getpeername4", 100, 64),
    ("getpeername6", 100, 64),
    ("post_bind4", 200, 64),
    ("post_bind6", 200, 64),
    ("recvmsg4", 100, 64),
    ("recvmsg6", 100, 64),
    ("sendmsg4", 600, 160),
    ("sendmsg6", 800, 192),
    ("sock_release", 100, 64),
    ("to_container", 8_000, 320),
    ("to_netdev", 18_000, 400),
    ("xdp_uplink", 36_000, 448),
];

/// What is built: the file's name, and the features of `orchestrator-ebpf`. The normal one comes last: its
/// build directory is the one that others read.
const OBJECTS: [(&str, &[&str]); 2] = [("orchestrator-log.o", &["log"]), (OBJECT, &[])];
const OBJECT: &str = "orchestrator.o";

/// Builds the objects unless they are up to date, and returns the path of the normal one.
pub fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let directory = target().join("bpf");
    let stamp = directory.join("orchestrator.stamp");
    let wanted = format!("{:016x} {toolchain}\n", hash_of_sources()?);
    let are_there = OBJECTS
        .iter()
        .all(|(name, _)| directory.join(name).exists());
    if are_there && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(directory.join(OBJECT));
    }
    for (name, features) in OBJECTS {
        let built = compile(toolchain, &directory.join("build"), features)?;
        replace(&directory.join(name), &built)?;
    }
    fs::write(&stamp, wanted)?;
    Ok(directory.join(OBJECT))
}

/// The same for a build that began before and waits for the objects: they are as old as that build, or cargo would
/// take them for changed since.
pub fn build_as_of(toolchain: &Toolchain, began: SystemTime) -> Result<PathBuf> {
    let object = build(toolchain)?;
    for (name, _) in OBJECTS {
        fs::File::open(object.with_file_name(name))?.set_modified(began)?;
    }
    Ok(object)
}

/// Puts a new object in its place, unless its bytes are the old one's.
fn replace(object: &Path, built: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("{} was not built", built.display()))?;
    if fs::read(object).ok().as_ref() != Some(&bytes) {
        let fresh = object.with_extension("o.new");
        fs::write(&fresh, &bytes)?;
        fs::rename(&fresh, object)?;
    }
    Ok(())
}

/// Where the normal object is, or will be.
pub fn object() -> PathBuf {
    target().join("bpf").join(OBJECT)
}

/// What the verifier says of each program, as a table; loads them, so only for root. Nothing stays
/// loaded.
pub fn report(object: &Path) -> Result<String> {
    let bytes = fs::read(object)?;
    let depths = stack::depths(&bytes)?;
    let mut ebpf = Ebpf::load(&bytes).context("load the datapath's maps")?;
    let mut rows = Vec::new();
    let mut over = Vec::new();
    let begun = Instant::now();
    for (name, program) in ebpf.programs_mut() {
        let depth = depths.get(name);
        let info = load(program).with_context(|| match depth {
            Some(depth) => format!("the verifier refuses {name} ({depth})"),
            None => format!("the verifier refuses {name}"),
        })?;
        let depth = depth.map(|depth| depth.bytes);
        let verified = info.verified_instruction_count();
        over.extend(beyond_cap(name, verified, depth));
        let number = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
        rows.push([
            name.to_owned(),
            number(verified),
            number(info.size_translated().map(|bytes| bytes / 8)),
            number(Some(info.size_jitted())),
            number(depth),
        ]);
    }
    let took = begun.elapsed();
    if !over.is_empty() {
        bail!(
            "{}: shrink it, or raise its row of CAPS and say why",
            over.join("; ")
        );
    }
    rows.sort();
    let stack = format!("stack of {}", stack::LIMIT);
    let head = ["program", "verified", "instructions", "jited bytes", &stack];
    let mut table = String::new();
    let mut line =
        |[a, b, c, d, e]: [&str; 5]| writeln!(table, "{a:<16} {b:>10} {c:>14} {d:>13} {e:>14}");
    line(head)?;
    for [a, b, c, d, e] in &rows {
        line([a, b, c, d, e])?;
    }
    writeln!(
        table,
        "loaded one after the other in {} ms",
        took.as_millis()
    )?;
    Ok(table)
}

/// What a program takes more of than its row of [`CAPS`] has.
fn beyond_cap(name: &str, verified: Option<u32>, stack: Option<u32>) -> Option<String> {
    let Some((_, most_verified, most_stack)) = CAPS.iter().find(|(capped, ..)| *capped == name)
    else {
        return Some(format!("{name} has no row in CAPS"));
    };
    let (verified, stack) = (verified.unwrap_or(0), stack.unwrap_or(0));
    (verified > *most_verified || stack > *most_stack).then(|| {
        format!(
            "{name} takes {verified} verified instructions of {most_verified} and {stack} bytes of \
             stack of {most_stack}"
        )
    })
}

fn load(program: &mut Program) -> Result<ProgramInfo> {
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        _ => bail!("nobody attaches a program of this kind"),
    }
    Ok(program.info()?)
}

/// Builds in that directory and returns where the object is then, until the next build there.
pub fn compile(toolchain: &Toolchain, build: &Path, features: &[&str]) -> Result<PathBuf> {
    let mut cargo = setup::clean_command(&toolchain.cargo);
    cargo.current_dir(workspace());
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "orchestrator-ebpf",
        "--features",
        &features.join(","),
    ]);
    cargo
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(build);
    cargo
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", RUSTFLAGS);
    // The target's linker is called by its name.
    let linker = toolchain.linker.parent().map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    cargo.env(
        "PATH",
        env::join_paths(linker.into_iter().chain(env::split_paths(&path)))?,
    );
    command::output(&mut cargo).with_context(|| {
        format!(
            "the datapath does not build with {toolchain} and {}; if the linker complains of \
             bitcode, it is older than the compiler: remove it and run this again",
            toolchain.linker.display()
        )
    })?;
    Ok(build.join(TARGET).join("release/orchestrator-ebpf"))
}

fn hash_of_sources() -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    RUSTFLAGS.hash(&mut hasher);
    for source in SOURCES {
        hash_path(&workspace().join(source), &mut hasher)?;
    }
    Ok(hasher.finish())
}

fn hash_path(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    path.hash(hasher);
    if path.is_dir() {
        let mut entries = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        entries.sort();
        for entry in entries {
            hash_path(&entry, hasher)?;
        }
    } else {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        bytes.hash(hasher);
    }
    Ok(())
}

fn workspace() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).unwrap_or(here)
}

pub fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace().join("target"))
}
