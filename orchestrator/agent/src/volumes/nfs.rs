//! Exports of NFS servers: mounted by the kernel's own client, by mount(2) and without a helper program.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::make_dir;

/// The port is of no use here: it is what a name is looked up with.
const PORT: u16 = 2049;

/// The version that is asked for where the options name none.
const VERSION: &str = "vers=4.2";

/// Options that are flags of mount(2), not of the file system.
const FLAGS: [(&str, MsFlags); 10] = [
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC),
];

/// Options that say what is so anyway.
const DEFAULTS: [&str; 7] = ["rw", "defaults", "suid", "dev", "exec", "async", "_netdev"];

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub server: String,
    pub path: String,
    pub read_only: bool,
    pub options: Vec<String>,
}

/// The arguments of mount(2).
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    source: String,
    kind: &'static str,
    flags: MsFlags,
    data: String,
}

/// Mounts an export at a directory of the agent's own, which is made.
pub fn mount_at(export: &Export, place: &Path) -> io::Result<()> {
    let names = (export.server.as_str(), PORT);
    let found = names.to_socket_addrs()?.next();
    let address = found.ok_or_else(|| io::Error::other("the server's name has no address"))?;
    let Arguments {
        source,
        kind,
        flags,
        data,
    } = arguments(export, address.ip());
    make_dir(place, 0o755)?;
    let mounted = mount(
        Some(source.as_str()),
        place,
        Some(kind),
        flags,
        Some(data.as_str()),
    );
    mounted.map_err(|error| {
        let hint = match error {
            nix::errno::Errno::ENODEV => " (the node's kernel has no NFS client)",
            _ => "",
        };
        io::Error::other(format!(
            "mount {source} of type {kind} with {data}: {error}{hint}"
        ))
    })
}

fn arguments(export: &Export, address: IpAddr) -> Arguments {
    let mut flags = MsFlags::empty();
    if export.read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    let mut data = Vec::new();
    // One text may hold several.
    for option in export.options.iter().flat_map(|text| text.split(',')) {
        match FLAGS.iter().find(|(name, _)| *name == option) {
            Some((_, flag)) => flags |= *flag,
            None if option.is_empty() || DEFAULTS.contains(&option) => {}
            None => data.push(option),
        }
    }
    let is_version = |option: &&str| {
        ["vers=", "nfsvers=", "minorversion="]
            .iter()
            .any(|name| option.starts_with(name))
    };
    if !data.iter().any(is_version) {
        data.insert(0, VERSION);
    }
    let address = format!("addr={address}");
    data.push(&address);
    let server = match export.server.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => export.server.clone(),
    };
    Arguments {
        source: format!("{server}:{}", export.path),
        kind: "nfs",
        flags,
        data: data.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(server: &str, read_only: bool, options: &[&str], address: &str) -> (String, String) {
        let export = Export {
            server: server.to_owned(),
            path: "/media".to_owned(),
            read_only,
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let found = arguments(&export, address.parse().unwrap());
        assert_eq!(found.kind, "nfs");
        let flags: Vec<&str> = FLAGS
            .iter()
            .filter(|(_, flag)| found.flags.contains(*flag))
            .map(|(name, _)| *name)
            .collect();
        (format!("{} {}", found.source, found.data), flags.join(","))
    }

    #[test]
    fn an_export_becomes_the_arguments_of_mount() {
        let plain = golden("nas.example", false, &[], "10.0.0.1");
        assert_eq!(plain.0, "nas.example:/media vers=4.2,addr=10.0.0.1");
        assert_eq!(plain.1, "");
        let asked = ["nfsvers=3,nolock", "noatime", "rw", "hard"];
        let asked = golden("nas.example", true, &asked, "10.0.0.1");
        assert_eq!(
            asked.0,
            "nas.example:/media nfsvers=3,nolock,hard,addr=10.0.0.1"
        );
        assert_eq!(asked.1, "ro,noatime");
        let sixth = golden("fd00::1", false, &[], "fd00::1");
        assert_eq!(sixth.0, "[fd00::1]:/media vers=4.2,addr=fd00::1");
    }

    #[test]
    fn a_node_without_a_client_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let export = Export {
            server: "127.0.0.1".to_owned(),
            path: "/media".to_owned(),
            read_only: false,
            options: Vec::new(),
        };
        let error = mount_at(&export, &temp.path().join("v"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("mount 127.0.0.1:/media of type nfs with vers=4.2,"),
            "{error}"
        );
    }
}
