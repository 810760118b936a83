//! What this machine must have before anything is made on it, each with the sentence that says
//! what to do when it is missing.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use crate::{cluster::Cluster, command};

/// Superuser and kernel; cheap, so every `up` asks.
pub fn check() -> Result<()> {
    check_root("cargo xtask up")?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing): the datapath needs a \
             kernel built with CONFIG_DEBUG_INFO_BTF=y, as every current distribution's is"
        );
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release) < (6, 6) {
        bail!(
            "this kernel is {}, but the datapath attaches through tcx, which came with Linux 6.6: \
             install a newer kernel (Debian 12: `apt-get install -t bookworm-backports \
             linux-image-amd64`) and restart",
            release.trim()
        );
    }
    if cgroup2_root().is_none() {
        bail!(
            "no cgroup v2 hierarchy is mounted, and the socket hooks need one: \
             `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
        );
    }
    Ok(())
}

pub fn check_root(what: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`{what}` makes network namespaces and loads BPF programs, so it must run as root: \
             try `sudo -E env PATH=\"$PATH\" {what}`"
        );
    }
    Ok(())
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Nobody has anything pinned: another checkout's cluster or tests may, and would lose it.
pub fn bpffs_is_unused() -> bool {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    // The kernel's own files: maps.debug, progs.debug.
    let mut names = entries.map(|entry| entry.file_name());
    names.all(|name| name.to_string_lossy().ends_with(".debug"))
}

/// Refuses an API port that somebody else listens on, and says who.
pub fn check_port(cluster: &Cluster) -> Result<()> {
    let port = cluster.api_port();
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    for address in std::iter::once(local).chain(cluster.gateways()) {
        match TcpListener::bind((address, port)) {
            // The second address is only there when the underlay is.
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                bail!(
                    "port {port} of {address} is taken by {}: stop it, then run `up` again",
                    owner_of(port)
                )
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where cgroup v2 is mounted: not the same place on every machine.
pub fn cgroup2_root() -> Option<String> {
    mount_point("cgroup2")
}

/// Mounts /sys/fs/bpf when nobody has; true when it was this call.
pub fn mount_bpffs() -> Result<bool> {
    if mount_point("bpf").is_some() {
        return Ok(false);
    }
    command::run("mount", ["-t", "bpf", "bpf", "/sys/fs/bpf"])
        .context("the datapath keeps its maps in the BPF file system")?;
    Ok(true)
}

fn mount_point(kind: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (at, found) = (words.next()?, words.next()?);
        (found == kind).then(|| at.to_owned())
    })
}

fn owner_of(port: u16) -> String {
    let filter = format!("sport = :{port}");
    let list = command::run("ss", ["-Hltnp", &filter]).unwrap_or_default();
    let users = list.lines().find_map(|line| line.split("users:((").nth(1));
    match users.and_then(|u| Some((u.split('"').nth(1)?, u.split("pid=").nth(1)?))) {
        Some((name, rest)) => {
            let pid: String = rest.chars().take_while(char::is_ascii_digit).collect();
            format!("{name} (process {pid})")
        }
        None => "another process".into(),
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_compare_by_number() {
        assert_eq!(version("6.18.5-amd64\n"), (6, 18));
        assert!(version("6.1.0-35-amd64") < (6, 6));
        assert!(version("6.12") > (6, 6));
    }
}
