//! Debian packages: installs only what is missing, and downloads without installing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{cluster, command};

/// A program and the package that brings it.
pub type Need = (&'static str, &'static str);

/// What `up` itself calls, and what the README's first five minutes call.
pub const FOR_UP: &[Need] = &[
    ("ip", "iproute2"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("nft", "nftables"),
    ("curl", "curl"),
];

/// What the tests call besides.
pub const FOR_TESTS: &[Need] = &[
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("iptables-save", "iptables"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
];

/// What the benches call: the rivals' rules, the namespaces, idle loops that keep the cores awake.
pub const FOR_BENCHES: &[Need] = &[
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("iptables-legacy-restore", "iptables"),
    ("iptables-nft-restore", "iptables"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("chrt", "util-linux"),
];

/// What building Kubernetes' own tests and making their images takes.
pub const FOR_CONFORMANCE: &[Need] = &[
    ("rsync", "rsync"),
    ("jq", "jq"),
    ("dpkg-source", "dpkg-dev"),
    ("unzip", "unzip"),
    ("make", "make"),
    ("git", "git"),
    ("pip3", "python3-pip"),
    ("mmdebstrap", "mmdebstrap"),
    ("busybox", "busybox-static"),
];

/// Installs the packages of the programs that are missing; returns their names.
pub fn ensure(needs: &[Need]) -> Result<Vec<&'static str>> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| !command::exists(program))
        .map(|n| n.1)
        .collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    if !command::exists("apt-get") {
        bail!(
            "this machine lacks {} and has no apt-get: install them",
            missing.join(", ")
        );
    }
    install(&missing)?;
    Ok(missing)
}

/// Installs packages by name, with lists as new as that takes: old ones name versions that the
/// mirror has dropped.
pub fn install(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut apt = apt_get();
        apt.args(["install", "-y", "--no-install-recommends"]);
        command::output(apt.args(packages))
    };
    refresh_lists()?;
    if install().is_err() {
        command::output(apt_get().arg("update"))?;
        install()?;
    }
    Ok(())
}

/// Downloads packages with all that they depend on, as for an empty system; nothing is installed.
/// Returns the archives' paths in the order of installation.
pub fn download(packages: &[&str]) -> Result<Vec<PathBuf>> {
    refresh_lists()?;
    let cache = cluster::dev_dir().join("cache/apt");
    fs::create_dir_all(cache.join("partial"))?;
    let empty = cache.join("empty-status");
    fs::write(&empty, "")?;
    let install = |extra: &str| {
        let mut apt = apt_get();
        apt.arg("-o")
            .arg(format!("Dir::State::status={}", empty.display()));
        apt.arg("-o")
            .arg(format!("Dir::Cache::archives={}", cache.display()));
        // The sandbox user of apt cannot write below a private directory.
        apt.args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
        apt.args([extra, "install", "-y", "--no-install-recommends"])
            .args(packages);
        command::output(&mut apt)
    };
    if install("--download-only").is_err() {
        // Old lists name versions that the mirror has dropped.
        command::output(apt_get().arg("update"))?;
        install("--download-only")?;
    }
    archives(&cache, &install("--simulate")?)
}

/// One program of a package, unpacked into the cache below `.dev/` and not installed: installing a
/// server would start it. `inside` is its path in the package.
pub fn unpacked(package: &str, inside: &str, name: &str) -> Result<PathBuf> {
    let dir = cluster::dev_dir().join("cache").join(package);
    let program = dir.join(name);
    if program.exists() {
        return Ok(program);
    }
    let unpacked = dir.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let start = format!("{package}_");
    let archives = download(&[package])?;
    let archive = archives
        .iter()
        .find(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(&start))
        })
        .with_context(|| format!("apt-get did not download {package}"))?;
    command::run(
        "dpkg-deb",
        ["-x".as_ref(), archive.as_os_str(), unpacked.as_os_str()],
    )?;
    fs::rename(unpacked.join(inside), &program)
        .with_context(|| format!("{package} holds no {inside}"))?;
    fs::remove_dir_all(&unpacked)?;
    Ok(program)
}

/// `apt-get -s` prints `Inst NAME (VERSION …)`; the archive is named after both.
fn archives(cache: &Path, plan: &str) -> Result<Vec<PathBuf>> {
    let files: Vec<PathBuf> = fs::read_dir(cache)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let mut found = Vec::new();
    for line in plan.lines().filter_map(|line| line.strip_prefix("Inst ")) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let version = words.next().unwrap_or_default().trim_start_matches('(');
        let start = format!("{name}_{}_", version.replace(':', "%3a"));
        let file = files
            .iter()
            .find(|f| {
                f.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with(&start))
            })
            .with_context(|| format!("apt-get did not download {name} {version}"))?;
        found.push(file.clone());
    }
    Ok(found)
}

/// A fresh image or machine has no package lists at all.
fn refresh_lists() -> Result<()> {
    let lists = fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .flatten();
    let have = lists
        .filter(|e| e.file_name().to_string_lossy().contains("Packages"))
        .count()
        > 0;
    if have {
        Ok(())
    } else {
        command::output(apt_get().arg("update")).map(drop)
    }
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    apt
}
