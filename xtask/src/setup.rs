//! What builds the datapath: a Rust toolchain with the sources of `core`, and bpf-linker.
//!
//! Two ways lead there, and both are looked for before anything is installed: a rustup toolchain
//! with the component rust-src, or Debian's own pair (packages rustc-web, cargo-web, rust-web-src).
//! `core` is built with unstable options, which a stable compiler takes with RUSTC_BOOTSTRAP=1.
//! What is found costs no process but one `rustc --version`.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, packages};

/// The version of bpf-linker that is installed where there is none.
const BPF_LINKER: &str = "0.13.0";
/// The LLVM versions that bpf-linker can be built with.
const LLVM: &[u32] = &[21, 22, 23];
/// The oldest compiler that the workspace builds with.
const OLDEST: (u32, u32) = (1, 95);
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core";
const DEBIAN_PAIR: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// A toolchain that builds for the BPF target.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub linker: PathBuf,
    version: Version,
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    release: String,
    number: (u32, u32),
    llvm: u32,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rustc {} ({})",
            self.version.release,
            self.rustc.display()
        )
    }
}

/// Finds the toolchain, installing what is missing.
pub fn ensure() -> Result<Toolchain> {
    let linker = find_linker();
    // A linker without a word of its LLVM was built elsewhere, with that of a new compiler.
    let newest = match &linker {
        Some(linker) => linked_llvm(linker),
        None => LLVM.iter().rev().copied().find(|llvm| has_llvm(*llvm)),
    }
    .unwrap_or(u32::MAX);
    let (cargo, rustc, version) = match find_rust(newest) {
        Some(found) => found,
        None => install_rust(newest)?,
    };
    let linker = match linker {
        Some(linker) => linker,
        None => install_linker(&cargo, &rustc, version.llvm)?,
    };
    Ok(Toolchain {
        cargo,
        rustc,
        linker,
        version,
    })
}

/// A command for the inner build: what the outer cargo and rustup left in the environment would
/// choose the toolchain and the flags of the outer build.
pub fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if leaks(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

fn leaks(name: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    let leaking = [
        "CARGO",
        "RUSTC",
        "RUSTFLAGS",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
    ];
    leaking.iter().any(|prefix| name.starts_with(prefix))
        && !kept.iter().any(|prefix| name.starts_with(prefix))
}

/// A compiler whose LLVM is not newer than the linker's: bpf-linker reads what the compiler writes.
fn find_rust(newest: u32) -> Option<(PathBuf, PathBuf, Version)> {
    let usable = |rustc: &Path| usable(rustc).filter(|version| version.llvm <= newest);
    for toolchain in rustup_toolchains() {
        if toolchain.join("lib/rustlib/src/rust/library/core").exists() {
            let (cargo, rustc) = (toolchain.join("bin/cargo"), toolchain.join("bin/rustc"));
            if let Some(version) = usable(&rustc) {
                return Some((cargo, rustc, version));
            }
        }
    }
    if Path::new(DEBIAN_SOURCES).exists() {
        let (cargo, rustc) = (
            PathBuf::from("/usr/bin/cargo"),
            PathBuf::from("/usr/bin/rustc"),
        );
        return usable(&rustc).map(|version| (cargo, rustc, version));
    }
    None
}

/// Installed rustup toolchains, nightly ones first.
fn rustup_toolchains() -> Vec<PathBuf> {
    let Some(root) = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| home(".rustup"))
    else {
        return Vec::new();
    };
    let entries = fs::read_dir(root.join("toolchains"))
        .into_iter()
        .flatten()
        .flatten();
    let mut toolchains: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    toolchains.sort();
    toolchains.sort_by_key(|path| !path.to_string_lossy().contains("nightly"));
    toolchains
}

fn usable(rustc: &Path) -> Option<Version> {
    let text = command::output(clean_command(rustc).arg("-vV")).ok()?;
    parse_version(&text).filter(|version| version.number >= OLDEST)
}

fn parse_version(text: &str) -> Option<Version> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?.to_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    let number = (numbers.next()?, numbers.next()?);
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some(Version {
        release,
        number,
        llvm,
    })
}

fn install_rust(newest: u32) -> Result<(PathBuf, PathBuf, Version)> {
    let mut tried = Vec::new();
    if exists("apt-get") && is_root() && apt_has("rust-web-src") {
        match packages::install(DEBIAN_PAIR) {
            Ok(()) => tried.push("the Debian packages were installed but are too old".to_owned()),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    if find_rust(newest).is_none() && exists("rustup") {
        let mut rustup = clean_command(Path::new("rustup"));
        rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        if let Err(error) = command::output(rustup.args(["--component", "rust-src"])) {
            tried.push(format!("{error:#}"));
        }
    }
    find_rust(newest).with_context(|| {
        format!(
            "no Rust toolchain has the sources of `core`, which the datapath is built with: run \
             `rustup toolchain install nightly --component rust-src`, or on Debian as root \
             `apt-get install {}`\n{}",
            DEBIAN_PAIR.join(" "),
            tried.join("\n")
        )
    })
}

fn find_linker() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    places.extend(env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin")));
    places.extend(home(".cargo/bin"));
    places
        .into_iter()
        .map(|place| place.join("bpf-linker"))
        .find(|path| path.is_file())
}

/// The LLVM that a linker loads, by the library's name in it.
fn linked_llvm(linker: &Path) -> Option<u32> {
    let bytes = fs::read(linker).ok()?;
    let names = |version: u32| {
        [
            format!("libLLVM.so.{version}"),
            format!("libLLVM-{version}"),
        ]
    };
    let has = |name: &String| bytes.windows(name.len()).any(|it| it == name.as_bytes());
    LLVM.iter()
        .copied()
        .find(|version| names(*version).iter().any(has))
}

fn llvm_is_installed(version: u32) -> bool {
    Path::new(&format!("/usr/lib/llvm-{version}/bin/llvm-config")).exists()
}

/// Whether bpf-linker can be built with that LLVM here.
fn has_llvm(version: u32) -> bool {
    let apt = exists("apt-get") && is_root();
    llvm_is_installed(version) || apt && apt_has(&format!("llvm-{version}-dev"))
}

/// Built with the LLVM of the compiler, or a newer one.
fn install_linker(cargo: &Path, rustc: &Path, llvm: u32) -> Result<PathBuf> {
    let mut versions = LLVM.iter().copied().filter(|version| *version >= llvm);
    let mut installed = versions.clone().find(|version| llvm_is_installed(*version));
    let apt = exists("apt-get") && is_root();
    if installed.is_none() && apt {
        installed = versions.find(|version| has_llvm(*version));
        if let Some(version) = installed {
            let (llvm, polly) = (
                format!("llvm-{version}-dev"),
                format!("libpolly-{version}-dev"),
            );
            packages::install(&[&llvm, &polly, "zlib1g-dev", "libzstd-dev"])?;
        }
    }
    let Some(version) = installed else {
        bail!(
            "bpf-linker is missing, and so is LLVM {llvm} or newer to build it with: install one \
             with `cargo binstall bpf-linker`, or (on Debian, as root) `apt-get install \
             llvm-{llvm}-dev libpolly-{llvm}-dev zlib1g-dev libzstd-dev`, then try again"
        );
    };
    if apt && !exists("c++") {
        packages::install(&["g++"])?;
    }
    let mut install = clean_command(cargo);
    install
        .env("RUSTC", rustc)
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{version}"));
    // Its work is LLVM's, which is optimised as it comes: unoptimised it is built in two fifths of the time.
    install.args(["install", "--quiet", "--profile", "dev"]);
    install.env("CARGO_PROFILE_DEV_DEBUG", "0");
    install.args(["bpf-linker", "--version", BPF_LINKER]);
    install.args([
        "--no-default-features",
        "--features",
        &format!("llvm-{version}"),
    ]);
    command::output(&mut install).context("bpf-linker does not build")?;
    find_linker().context("bpf-linker was built but is not where cargo installs")
}

fn apt_has(package: &str) -> bool {
    let policy = |package: &str| command::run("apt-cache", ["policy", package]).unwrap_or_default();
    let offered =
        |text: String| text.contains("Candidate: ") && !text.contains("Candidate: (none)");
    // A fresh machine has no lists yet.
    offered(policy(package))
        || (command::run("apt-get", ["update", "-q"]).is_ok() && offered(policy(package)))
}

fn exists(program: &str) -> bool {
    command::exists(program)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn home(below: &str) -> Option<PathBuf> {
    env::var_os("HOME").map(|home: OsString| PathBuf::from(home).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compilers_version_is_read_with_its_llvm() {
        let text = "rustc 1.97.0-nightly (abc 2026-05-01)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let version = parse_version(text).unwrap();
        assert_eq!((version.number, version.llvm), ((1, 97), 22));
        assert_eq!(parse_version("rustc 1.63.0"), None);
    }

    #[test]
    fn the_outer_build_does_not_leak_into_the_inner_one() {
        for name in [
            "RUSTUP_TOOLCHAIN",
            "CARGO",
            "RUSTC",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
        ] {
            assert!(leaks(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "PATH",
            "RUST_BACKTRACE",
            "RUSTUP_HOME",
        ] {
            assert!(!leaks(name), "{name}");
        }
    }
}
