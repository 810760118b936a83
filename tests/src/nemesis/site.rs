//! What the clients talk to: one or several servers on one of the three stores.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use apiserver::{ApiServer, Pki, ServerConfig};
use jiff::Timestamp;
use store::MemoryStore;
use sys::{Shutdown, Tasks};
use tempfile::TempDir;

use super::clock::Clock;
use super::disk::{Disk, SlowFsync};
use super::process::Process;
use super::wires::{Way, Wires};
use crate::api_load::connection::{Ask, Target};
use crate::api_load::side::free_address;
use crate::control_plane::link_program;

/// The store, and how many of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server in this process: it is not killed.
    Memory,
    /// One server on the embedded store.
    Redb,
    Etcd {
        members: usize,
        servers: usize,
    },
}

/// What the nemesis can do besides killing and stopping: all of it needs root.
#[derive(Default)]
pub struct Means {
    /// Servers and members have network namespaces of their own.
    pub wires: Option<Wires>,
    /// The first server's data is on a small disk of its own.
    pub has_own_disk: bool,
    pub has_strace: bool,
    /// The library by which the clock of a process jumps.
    pub faketime: Option<PathBuf>,
    /// Members of etcd may be taken out and put back: each time takes some seconds.
    pub replaces_members: bool,
}

pub struct Site {
    pub kind: Kind,
    pub means: Means,
    pub members: Vec<Process>,
    pub servers: Vec<Process>,
    pub targets: Vec<Target>,
    /// With their addresses, by their tags: `m0`, `s0`.
    addresses: BTreeMap<String, IpAddr>,
    /// Of each member of etcd.
    pub(super) places: Vec<Place>,
    /// A member that was taken out of etcd.
    pub(super) removed: Option<usize>,
    /// Of the servers, where they can jump.
    clocks: Vec<Clock>,
    slow: Vec<SlowFsync>,
    disk: Option<Disk>,
    in_process: Shutdown,
    directory: TempDir,
}

/// Two addresses, and the network namespace that they are in.
pub(super) type Place = ([SocketAddr; 2], Option<String>);

/// One of the site's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Server(usize),
    Member(usize),
}

/// What a server in this process gives certificates for.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "memory" => Self::Memory,
            "redb" => Self::Redb,
            "etcd1" => Self::Etcd {
                members: 1,
                servers: 2,
            },
            "etcd3" => Self::Etcd {
                members: 3,
                servers: 3,
            },
            _ => bail!("there is no store {name:?}: memory, redb, etcd1 or etcd3"),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(out, "memory"),
            Self::Redb => write!(out, "redb"),
            Self::Etcd { members, .. } => write!(out, "etcd{members}"),
        }
    }
}

impl Site {
    /// Returns when every server is ready.
    ///
    /// # Errors
    /// Something does not start; the text has what it said.
    pub async fn start(kind: Kind, means: Means) -> Result<Self> {
        let mut site = Self {
            kind,
            means,
            members: Vec::new(),
            servers: Vec::new(),
            targets: Vec::new(),
            addresses: BTreeMap::new(),
            places: Vec::new(),
            removed: None,
            clocks: Vec::new(),
            slow: Vec::new(),
            disk: None,
            in_process: Shutdown::new(),
            directory: tempfile::tempdir()?,
        };
        let count = match kind {
            Kind::Memory => {
                site.serve_memory().await?;
                return Ok(site);
            }
            Kind::Redb => 1,
            Kind::Etcd { members, servers } => {
                site.members = site.etcd(members)?;
                for member in &mut site.members {
                    member.start()?;
                }
                servers
            }
        };
        let program = link_program(site.directory.path())?;
        for number in 0..count {
            site.add_server(&program, number).await?;
        }
        Ok(site)
    }

    /// Everything runs, and every server is ready.
    ///
    /// # Errors
    /// A process has ended by itself, or does not start again.
    pub async fn heal(&mut self) -> Result<()> {
        self.mend()?;
        self.put_back().await?;
        for number in 0..self.targets.len() {
            self.wait_ready(number).await?;
        }
        Ok(())
    }

    /// Everything is started and goes on, but for a member that was taken out; nobody waits until it is ready.
    ///
    /// # Errors
    /// A process has ended by itself, or does not start again.
    pub fn mend(&mut self) -> Result<()> {
        self.slow.clear();
        if let Some(wires) = &self.means.wires {
            wires.mend()?;
        }
        if let Some(disk) = &self.disk {
            disk.empty()?;
        }
        self.clocks.iter().try_for_each(|clock| clock.jump(0))?;
        let removed = self.removed;
        let members = self.members.iter_mut().enumerate();
        let members = members.filter(|(number, _)| Some(*number) != removed);
        for process in members.map(|(_, it)| it).chain(&mut self.servers) {
            process.go_on();
            if process.has_ended() {
                bail!("{} has ended by itself: {}", process.name, process.said());
            }
            process.start()?;
        }
        Ok(())
    }

    pub fn process(&mut self, part: Part) -> &mut Process {
        match part {
            Part::Server(number) => &mut self.servers[number],
            Part::Member(number) => &mut self.members[number],
        }
    }

    /// Has a part not hear the others, not be heard, or both; clients reach it as before.
    pub fn cut(&self, part: Part, way: Way) -> Result<()> {
        let tag = match part {
            Part::Server(number) => format!("s{number}"),
            Part::Member(number) => format!("m{number}"),
        };
        let others = self.addresses.iter().filter(|(other, _)| {
            // A member that the servers reach, and the other members do not, is the one that could tell lies.
            **other != tag && (other.starts_with('m'))
        });
        let others: Vec<IpAddr> = others.map(|(_, address)| *address).collect();
        match &self.means.wires {
            Some(wires) if !others.is_empty() => wires.cut(&tag, &others, way),
            _ => Ok(()),
        }
    }

    pub fn slow_fsync(&mut self, part: Part) -> Result<()> {
        if let Some(id) = self.process(part).id() {
            self.slow.push(SlowFsync::of(id)?);
        }
        Ok(())
    }

    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    pub fn fill_disk(&self) -> Result<()> {
        self.disk.as_ref().map_or(Ok(()), Disk::fill)
    }

    /// Sets a server's clock: so many seconds from the right time.
    pub fn jump(&self, server: usize, seconds: i64) -> Result<()> {
        let clock = self.clocks.get(server);
        clock.map_or(Ok(()), |clock| clock.jump(seconds))
    }

    /// Where a process is to be.
    pub(super) fn place(&mut self, tag: &str, octet: u8) -> Result<Place> {
        let Some(wires) = &mut self.means.wires else {
            return Ok(([free_address()?, free_address()?], None));
        };
        let (netns, address) = wires.plug(tag, octet)?;
        self.addresses.insert(tag.to_owned(), address);
        let of_port = |port| SocketAddr::new(address, port);
        Ok(([of_port(2379), of_port(2380)], Some(netns)))
    }

    async fn wait_ready(&mut self, number: usize) -> Result<()> {
        let ready = async {
            while !is_ready(&self.targets[number]).await {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(READY_TIMEOUT, ready).await.is_err() {
            let said = self.servers.get(number).map(Process::said);
            bail!("server {number} is not ready: {}", said.unwrap_or_default());
        }
        Ok(())
    }

    async fn add_server(&mut self, program: &Path, number: usize) -> Result<()> {
        let data = self.data(number);
        std::fs::create_dir_all(&data)?;
        if self.means.has_own_disk && self.kind == Kind::Redb {
            self.disk = Some(Disk::mount(&data)?);
        }
        if number > 0 {
            copy_keys(&self.data(0), &data)?;
        }
        let ([address, _], netns) = self.place(&format!("s{number}"), 50 + number as u8)?;
        let address = address.to_string();
        let mut arguments: Vec<String> = ["server", "--bind", &address, "--data-dir"]
            .map(str::to_owned)
            .into();
        arguments.push(data.display().to_string());
        if let Kind::Etcd { .. } = self.kind {
            arguments.extend(["--store".to_owned(), self.store_url()]);
        }
        let log = self.path(&format!("server-{number}.log"));
        let name = format!("server {number}");
        let mut server = Process::new((name, netns), program.to_owned(), arguments, log);
        if let Some(library) = &self.means.faketime {
            let clock = Clock::of(self.path(&format!("clock-{number}")))?;
            server.environment = clock.environment(library);
            self.clocks.push(clock);
        }
        server.start()?;
        let kubeconfig = data.join("admin.kubeconfig");
        let written = async {
            while !kubeconfig.exists() && !server.has_ended() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let written = tokio::time::timeout(READY_TIMEOUT, written).await;
        if written.is_err() || server.has_ended() {
            bail!("{} does not start: {}", server.name, server.said());
        }
        self.targets.push(Target::read(&kubeconfig)?);
        self.servers.push(server);
        self.wait_ready(number).await
    }

    async fn serve_memory(&mut self) -> Result<()> {
        let listener = ApiServer::bind(free_address()?)?;
        let address = listener.local_addr()?;
        let names = ["127.0.0.1".to_owned()];
        let pki = Pki::load_or_create(&self.path("pki"), &names, LIFETIME, Timestamp::now())?;
        let kubeconfig = self.path("admin.kubeconfig");
        let pki = pki.with_kubeconfig(kubeconfig.clone(), &format!("https://{address}"))?;
        let config = ServerConfig {
            advertise: address,
            ..ServerConfig::default()
        };
        let tasks = Tasks::new(self.in_process.clone());
        let store = Arc::new(MemoryStore::default());
        let server = ApiServer::build(config, store, Some(pki), tasks).await?;
        tokio::spawn(async move { server.serve(vec![listener]).await });
        self.targets.push(Target::read(&kubeconfig)?);
        self.wait_ready(0).await
    }

    /// Where a server keeps its data.
    pub fn data(&self, server: usize) -> PathBuf {
        self.path(&format!("server-{server}"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.in_process.trigger();
    }
}

async fn is_ready(target: &Target) -> bool {
    let ask = async {
        let mut connection = target.connect().await?;
        connection.good(Ask::get("/readyz")).await
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answer, Ok(Ok(_)))
}

/// What the servers of one cluster have in common.
fn copy_keys(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp")
        .arg("-r")
        .args([from.join("pki"), to.to_owned()])
        .status()?;
    ensure!(copied.success(), "the first server's keys are not copied");
    Ok(())
}
