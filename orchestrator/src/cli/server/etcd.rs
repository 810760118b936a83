//! The etcd that servers run themselves (`--etcd managed`): this server's own member, on this machine.
//!
//! ```text
//!  no data, no --join ─▶ the first member of a new etcd
//!  no data, --join    ─▶ asks a server: files of pki, a place among the members ─▶ learner ─▶ promoted
//!  data               ─▶ goes on
//! ```
//!
//! etcd is reached by nobody who shows no certificate of its own authority (`EtcdPki`). It ends when this server
//! does, however that ends; one that ends by itself is started again.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::encryption::Scheme;
use apiserver::{EtcdPki, ServerJoin, etcd_pki, member_name};
use jiff::Timestamp;
use store::etcd::{EtcdTls, Member, Members};
use store::{EtcdConfig, StoreError};
use sys::files;

use super::join;
use super::stores::embedded;
use crate::cli::supervise::Supervisor;

#[derive(Clone, clap::Args)]
pub struct ManagedArgs {
    /// The program that is run for --etcd managed
    #[arg(long, value_name = "FILE", default_value = "etcd")]
    pub etcd_program: PathBuf,
    /// On which ports of the advertised address etcd answers its clients and its members
    #[arg(long, value_name = "CLIENTS,MEMBERS", value_delimiter = ',', default_values_t = [2379, 2380])]
    pub etcd_ports: Vec<u16>,
}

/// How the member of a server is run.
#[derive(Clone)]
pub struct Managed {
    program: PathBuf,
    /// Of the server.
    data_dir: PathBuf,
    address: IpAddr,
    ports: [u16; 2],
    /// How long it is waited for; for ever if not given.
    patience: Option<Duration>,
    /// What the server was told to encrypt with: the servers that it joins compare it.
    encryption: Option<Scheme>,
}

/// A member that runs, and how the server reaches etcd.
pub struct Running {
    pub config: EtcdConfig,
    supervisor: Supervisor,
}

/// How a member begins.
struct Beginning {
    name: String,
    /// NAME=URL,…
    cluster: String,
    is_new: bool,
}

const PAUSE: Duration = Duration::from_millis(250);
/// Between two lines that say what is waited for.
const TELLING: Duration = Duration::from_secs(10);
/// One question to a member that may not be there yet.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// One to this server's own member, which answers at once when it is there.
const OWN_TIMEOUT: Duration = Duration::from_millis(500);
/// etcd takes no writes when its file is this large.
const QUOTA_BYTES: u64 = 8 << 30;
/// Is there once etcd has answered: the data were whole.
const STARTED: &str = "etcd.started";
/// Where the other members were reached when this one joined, or was started last: they give it its vote, or know that
/// it was taken out.
const VOTERS: &str = "etcd.voters";

impl Managed {
    /// # Errors
    /// An address that other machines cannot reach, or a number of ports that is not two.
    pub fn new(args: &ManagedArgs, data_dir: &Path, address: IpAddr) -> Result<Self> {
        let [clients, members] = args.etcd_ports[..] else {
            bail!("--etcd-ports: give two, as 2379,2380");
        };
        if clients == members || clients == 0 || members == 0 {
            bail!("--etcd-ports: give two different ports");
        }
        if address.is_unspecified() {
            bail!(
                "--etcd managed needs --advertise-address: where the other servers reach this one"
            );
        }
        Ok(Self {
            program: args.etcd_program.clone(),
            data_dir: data_dir.to_owned(),
            address,
            ports: [clients, members],
            patience: None,
            encryption: None,
        })
    }

    pub fn encrypting(self, encryption: Option<Scheme>) -> Self {
        Self { encryption, ..self }
    }

    /// Gives up when the member does not answer for so long.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Where the member keeps its data.
    pub fn data(&self) -> PathBuf {
        data(&self.data_dir)
    }

    /// Whether the member began: its log is there. The file of its state comes before it has asked the others.
    pub fn has_data(&self) -> bool {
        self.data().join("member").join("wal").exists()
    }

    /// Starts the member, after joining if it is to; returns when etcd knows it. `join` is TOKEN@ADDRESS.
    pub async fn start(&self, join: Option<&str>) -> Result<Running> {
        let pki = self.data_dir.join("pki");
        let name = member_name(self.address_of(self.ports[1]));
        let has_data = self.has_data();
        if has_data && join.is_some() {
            tracing::warn!(
                "this server has joined already: --join and --join-file are not needed any more. To have it join \
                 anew, move {} away",
                self.data().display()
            );
        }
        let beginning = match join {
            _ if has_data => self.alone(name, false),
            Some(join) => {
                let joined = join::ask(join, self.request(), &pki).await?;
                self.forget_half_a_start()?;
                self.note(VOTERS, joined.clients.join("\n").as_bytes())?;
                Beginning {
                    name: joined.name,
                    cluster: joined.initial_cluster,
                    is_new: false,
                }
            }
            None => {
                self.check_first()?;
                self.alone(name, true)
            }
        };
        let running = self.run(&self.data(), beginning).await?;
        self.note_others(&running.config)?;
        self.note_started()?;
        Ok(running)
    }

    /// A new etcd of one member in a directory that is not there yet.
    pub async fn create_in(&self, data: &Path) -> Result<Running> {
        let name = member_name(self.address_of(self.ports[1]));
        self.run(data, self.alone(name, true)).await
    }

    /// Says that the data which are there now are whole, and are of no earlier member.
    pub fn note_begun_anew(&self) -> Result<()> {
        forget(&self.data_dir)?;
        self.note_started()
    }

    fn note_others(&self, config: &EtcdConfig) -> Result<()> {
        let own = self.address_of(self.ports[0]).to_string();
        let others = config.members.iter().filter(|client| **client != own);
        let others: Vec<&str> = others.map(String::as_str).collect();
        self.note(VOTERS, others.join("\n").as_bytes())
    }

    fn note_started(&self) -> Result<()> {
        self.note(STARTED, b"")
    }

    fn note(&self, name: &str, text: &[u8]) -> Result<()> {
        files::write_atomic(&self.data_dir.join(name), text, files::PRIVATE)
            .with_context(|| format!("{} cannot be written", self.data_dir.display()))
    }

    fn alone(&self, name: String, is_new: bool) -> Beginning {
        let cluster = format!("{name}={}", self.peer());
        Beginning {
            name,
            cluster,
            is_new,
        }
    }

    /// Nothing may begin empty where something was.
    fn check_first(&self) -> Result<()> {
        let (directory, data) = (self.data_dir.display(), self.data());
        if embedded(&self.data_dir).exists() {
            bail!(
                "{directory} holds a cluster in the embedded store: move it into etcd with `orchestrator \
                 store migrate --from embedded --to managed`"
            );
        }
        // A second cluster with the same authority is believed by the agents of the first one.
        let traces = [STARTED, VOTERS, "pki/ca.crt"].map(|name| self.data_dir.join(name));
        if let Some(trace) = traces.iter().find(|trace| trace.exists()) {
            bail!(
                "the data of this server's etcd are gone ({}, but there is {}): give --join to have them from \
                 the other servers, or restore a snapshot with `orchestrator snapshot restore`",
                data.display(),
                trace.display()
            );
        }
        Ok(())
    }

    /// A start that ended before etcd had a log leaves nothing that a join could go on with.
    fn forget_half_a_start(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", self.data().display()))
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, data: &Path, beginning: Beginning) -> Result<Running> {
        let pki = etcd_pki(&self.data_dir.join("pki"), self.address, Timestamp::now())?;
        let authority = std::fs::read(&pki.authority).context("the authority of etcd")?;
        let client = &pki.client;
        let tls = EtcdTls {
            authority,
            identity: Some((
                client.certificate.clone().into_bytes(),
                client.key.clone().into_bytes(),
            )),
        };
        let (program, flags) = (self.program.clone(), self.flags(data, &pki, &beginning));
        let supervisor = Supervisor::start("etcd", move || command(&program, &flags))?;
        let members = match self.wait_until_member(&tls).await {
            Ok(members) => members,
            Err(error) => {
                supervisor.stop().await;
                return Err(error);
            }
        };
        let own = self.address_of(self.ports[0]).to_string();
        let others = members.into_iter().filter_map(|member| member.client);
        let others = others.filter(|client| *client != own);
        let mut config = config([own.clone()].into_iter().chain(others), &tls)?;
        config.learns_members = true;
        Ok(Running { config, supervisor })
    }

    /// Waits until the member answers, and has its vote; all members.
    async fn wait_until_member(&self, tls: &EtcdTls) -> Result<Vec<Member>> {
        let asked = |clients: Vec<String>, patience| {
            let mut config = config(clients, tls)?;
            config.timeout = patience;
            Members::connect(&config).map_err(anyhow::Error::msg)
        };
        let own = asked(
            vec![self.address_of(self.ports[0]).to_string()],
            OWN_TIMEOUT,
        )?;
        let voters = files::read_if_present(&self.data_dir.join(VOTERS))?.unwrap_or_default();
        let voters: Vec<String> = voters.lines().map(str::to_owned).collect();
        let voters = (!voters.is_empty()).then(|| asked(voters, QUESTION_TIMEOUT));
        let voters = voters.transpose()?;
        let begun = tokio::time::Instant::now();
        let mut told = begun;
        loop {
            tokio::time::sleep(PAUSE).await;
            // A learner answers nothing, also not about itself.
            let why = match (own.list().await, &voters) {
                (Ok(members), _) => {
                    self.check_peer(&members)?;
                    return Ok(members);
                }
                (Err(_), Some(voters)) => self.ask_for_a_vote(voters).await,
                (Err(error), None) => format!("this server's etcd does not answer yet: {error}"),
            };
            if self.patience.is_some_and(|most| begun.elapsed() > most) {
                bail!("{why}");
            }
            if told.elapsed() >= TELLING {
                tracing::warn!("{why}");
                told = tokio::time::Instant::now();
            }
        }
    }

    /// The others ask for this member where it said once that it is.
    fn check_peer(&self, members: &[Member]) -> Result<()> {
        let peer = self.peer();
        if members.iter().any(|member| member.peer == peer) {
            return Ok(());
        }
        let known: Vec<&str> = members.iter().map(|it| &*it.peer).collect();
        bail!(
            "this server's etcd is at {peer}, where its cluster has no member, but at {}: give \
             --advertise-address and --etcd-ports as when it began; or, for another address, restore a snapshot \
             with that one, or move {} away and join anew",
            known.join(", "),
            self.data().display()
        );
    }

    /// Has the members that vote give this one its vote; how that went.
    async fn ask_for_a_vote(&self, voters: &Members) -> String {
        let members = match voters.list().await {
            Ok(members) => members,
            Err(error) => return format!("no other member of etcd answers: {error}"),
        };
        let Some(me) = members.iter().find(|member| member.peer == self.peer()) else {
            return format!(
                "this server's etcd was taken out by another one: move {} away, and start this server with --join",
                self.data().display()
            );
        };
        if !me.is_learner {
            return "this server's etcd does not answer yet".to_owned();
        }
        match voters.promote(me.id).await {
            Ok(true) => tracing::info!("this server's etcd is a member with a vote"),
            Ok(false) => return "this server's etcd has not caught up yet".to_owned(),
            Err(error) => return format!("this server's etcd gets no vote yet: {error}"),
        }
        "this server's etcd has a vote and does not answer yet".to_owned()
    }

    fn address_of(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    fn request(&self) -> ServerJoin {
        ServerJoin {
            peer: self.peer(),
            encryption: self.encryption.clone(),
        }
    }

    fn peer(&self) -> String {
        format!("https://{}", self.address_of(self.ports[1]))
    }

    /// For etcd 3.4.
    fn flags(&self, data: &Path, pki: &EtcdPki, beginning: &Beginning) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let (clients, peer) = (
            format!("https://{}", self.address_of(self.ports[0])),
            self.peer(),
        );
        let (authority, certificate, key) =
            (path(&pki.authority), path(&pki.certificate), path(&pki.key));
        let state = if beginning.is_new { "new" } else { "existing" };
        let (data, quota) = (path(data), QUOTA_BYTES.to_string());
        // An etcd that is made of a snapshot has the former one's names: its members must not meet.
        let token = sys::random::word(16);
        let pairs = [
            ("--name", &*beginning.name),
            ("--data-dir", &data),
            ("--initial-cluster", &beginning.cluster),
            ("--initial-cluster-state", state),
            ("--initial-cluster-token", &token),
            ("--listen-client-urls", &clients),
            ("--advertise-client-urls", &clients),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--trusted-ca-file", &authority),
            ("--cert-file", &certificate),
            ("--key-file", &key),
            ("--peer-trusted-ca-file", &authority),
            ("--peer-cert-file", &certificate),
            ("--peer-key-file", &key),
            ("--quota-backend-bytes", &quota),
            // The default of 100,000 keeps as many requests in memory.
            ("--snapshot-count", "10000"),
            ("--logger", "zap"),
            ("--log-level", "warn"),
        ];
        let pairs = pairs.into_iter().flat_map(|(flag, value)| [flag, value]);
        let switches = [
            "--client-cert-auth",
            "--peer-client-cert-auth",
            // A machine has more addresses than the one that it advertises, and the authority signs only members.
            "--experimental-peer-skip-client-san-verification",
            // A member that was cut off asks before it makes the others elect anew.
            "--pre-vote",
            "--enable-grpc-gateway=false",
        ];
        pairs.chain(switches).map(str::to_owned).collect()
    }
}

/// Where the member of the server with this data directory keeps its data.
pub fn data(data_dir: &Path) -> PathBuf {
    data_dir.join("etcd")
}

/// Whether the state of the server with this data directory is, or was, in its etcd.
pub fn has_begun(data_dir: &Path) -> bool {
    data_dir.join(STARTED).exists()
}

/// Removes what is remembered of a member whose data were moved away.
pub fn forget(data_dir: &Path) -> Result<()> {
    for name in [VOTERS, STARTED] {
        match std::fs::remove_file(data_dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{name} cannot be removed"));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Running {
    /// Ends the member in order.
    pub async fn stop(self) {
        self.supervisor.stop().await;
    }
}

/// How a server, or a tool beside it, reaches the members that answer there.
pub fn config(members: impl IntoIterator<Item = String>, tls: &EtcdTls) -> Result<EtcdConfig> {
    let members: Vec<String> = members.into_iter().collect();
    let address = format!("etcd://{}", members.join(","));
    let mut config = EtcdConfig::parse(&address).map_err(anyhow::Error::msg)?;
    config.tls = Some(tls.clone());
    Ok(config)
}

/// Waits for the other members as long as it takes: a cluster that was off comes back one by one.
pub async fn patiently<T, F>(mut open: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match open().await {
            Err(StoreError::Unavailable(why)) => {
                tracing::warn!(%why, "etcd has no majority of its members yet: waiting for them");
            }
            other => return other,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The kernel ends it when this server's thread for it ends, however that happens.
fn command(program: &Path, flags: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(program)
        .args(flags);
    // etcd takes each flag from the environment, too.
    command.env_clear();
    for kept in ["PATH", "TZ"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    // What etcd 3.4 wants to hear on any machine that is not x86-64.
    if cfg!(target_arch = "aarch64") {
        command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
    }
    command.stdin(Stdio::null());
    command
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use store::{EtcdStore, Expect, Store as _, Write};

    fn managed(directory: &Path, address: [u8; 4]) -> Result<Managed> {
        let args = ManagedArgs {
            etcd_program: "etcd".into(),
            etcd_ports: vec![2379, 2380],
        };
        Managed::new(&args, directory, address.into())
    }

    #[test]
    fn etcd_is_reached_by_mutual_tls_alone_and_only_at_the_advertised_address() {
        let directory = tempfile::tempdir().expect("a directory");
        let managed = managed(directory.path(), [10, 0, 0, 1]).expect("settings");
        let pki = etcd_pki(directory.path(), [10, 0, 0, 1].into(), Timestamp::now());
        let beginning = managed.alone("a".to_owned(), true);
        let flags = managed.flags(&managed.data(), &pki.expect("files"), &beginning);
        let value = |flag: &str| {
            let place = flags.iter().position(|it| it == flag).expect("the flag");
            flags[place + 1].as_str()
        };
        assert_eq!(value("--listen-client-urls"), "https://10.0.0.1:2379");
        assert_eq!(value("--listen-peer-urls"), "https://10.0.0.1:2380");
        assert_eq!(value("--initial-cluster"), "a=https://10.0.0.1:2380");
        for switch in ["--client-cert-auth", "--peer-client-cert-auth"] {
            assert!(flags.iter().any(|flag| flag == switch));
        }
        assert!(flags.iter().all(|flag| !flag.contains("http://")));
    }

    /// Debian's, as `cargo xtask test unit` unpacks it.
    fn program() -> PathBuf {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dev/cache/etcd-server/etcd");
        let found = [cache, "/usr/bin/etcd".into()]
            .into_iter()
            .find(|it| it.exists());
        found.expect("no etcd: `cargo xtask test unit` unpacks it")
    }

    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    }

    /// On this machine's own address, with the data below a directory.
    pub fn local(directory: &Path) -> Managed {
        let args = ManagedArgs {
            etcd_program: program(),
            etcd_ports: vec![free_port(), free_port()],
        };
        Managed::new(&args, directory, [127, 0, 0, 1].into()).expect("settings")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn its_etcd_is_started_in_place_and_lets_nobody_in_without_its_certificates() {
        let directory = tempfile::tempdir().expect("a directory");
        let managed = local(directory.path());
        let running = managed.start(None).await.expect("started");
        let store = EtcdStore::open(&running.config).await.expect("a store");
        let write = Write::put("/a", "1", Expect::Absent);
        store.commit(vec![write]).await.expect("written");
        let mut strangers = vec![running.config.clone(), running.config.clone()];
        strangers[0].tls = None;
        let tls = strangers[1].tls.as_mut().expect("TLS");
        // The cluster's authority, whose certificates nodes have, is not etcd's.
        let other = directory.path().join("other");
        let theirs = etcd_pki(&other, managed.address, Timestamp::now())
            .expect("files")
            .client;
        tls.identity = Some((theirs.certificate.into_bytes(), theirs.key.into_bytes()));
        let mut anonymous = running.config.clone();
        anonymous.tls.as_mut().expect("TLS").identity = None;
        strangers.push(anonymous);
        for (number, stranger) in strangers.iter_mut().enumerate() {
            stranger.timeout = Duration::from_secs(1);
            assert!(
                EtcdStore::open(stranger).await.is_err(),
                "stranger {number}"
            );
        }
        drop(store);
        running.stop().await;
        let running = managed.start(None).await.expect("started again");
        let store = patiently(|| EtcdStore::open(&running.config)).await;
        let store = store.expect("a store");
        assert_eq!(
            store.get("/a").await.expect("read").expect("there").value,
            "1"
        );
        drop(store);
        running.stop().await;
        std::fs::remove_dir_all(managed.data()).expect("removed");
        let why = managed
            .start(None)
            .await
            .err()
            .expect("refused")
            .to_string();
        assert!(why.contains("give --join"), "{why}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_member_that_was_taken_out_says_so() {
        let [first, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let (one, two) = (local(first.path()), local(other.path()));
        let running = one.start(None).await.expect("started");
        let [from, to] = [first.path(), other.path()].map(|it| it.join("pki"));
        std::fs::create_dir(&to).expect("a directory");
        for name in ["etcd-ca.crt", "etcd-ca.key"] {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
        let members = Members::connect(&running.config).expect("members");
        let (added, _) = members.add_learner(&two.peer()).await.expect("added");
        two.note_others(&running.config).expect("noted");
        let name = member_name(one.address_of(one.ports[1]));
        let mut joining = two.alone("two".to_owned(), false);
        joining.cluster = format!("{},{name}={}", joining.cluster, one.peer());
        let joined = two.run(&two.data(), joining).await.expect("joined");
        two.note_others(&joined.config).expect("noted");
        let removed = async {
            // etcd waits some seconds until it takes a new member for a healthy one.
            while members.remove(added.id).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let removed = tokio::time::timeout(Duration::from_secs(30), removed).await;
        removed.expect("removed");
        joined.stop().await;
        let started = two.within(Duration::from_secs(2)).start(None).await;
        let why = started.err().map(|it| it.to_string()).unwrap_or_default();
        assert!(why.contains("taken out"), "{why}");
        running.stop().await;
    }

    #[test]
    fn nothing_begins_empty_where_something_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let managed = managed(directory.path(), [10, 0, 0, 1]).expect("settings");
        assert!(managed.check_first().is_ok());
        std::fs::create_dir(directory.path().join("pki")).expect("a directory");
        for trace in [STARTED, VOTERS, "pki/ca.crt"] {
            let trace = directory.path().join(trace);
            std::fs::write(&trace, "").expect("a file");
            let why = managed.check_first().err().map(|it| it.to_string());
            assert!(why.unwrap_or_default().contains("give --join"), "{trace:?}");
            std::fs::remove_file(&trace).expect("removed");
        }
        assert!(managed.check_first().is_ok());
        std::fs::write(directory.path().join("store.redb"), "").expect("a file");
        let why = managed.check_first().err().map(|it| it.to_string());
        assert!(why.unwrap_or_default().contains("store migrate"));
    }

    #[test]
    fn a_member_without_a_log_has_not_begun() {
        let directory = tempfile::tempdir().expect("a directory");
        let managed = managed(directory.path(), [10, 0, 0, 1]).expect("settings");
        let member = managed.data().join("member");
        std::fs::create_dir_all(member.join("snap")).expect("a directory");
        assert!(!managed.has_data());
        std::fs::create_dir(member.join("wal")).expect("a directory");
        assert!(managed.has_data());
    }

    #[test]
    fn a_server_goes_on_at_the_address_that_the_other_members_know() {
        let directory = tempfile::tempdir().expect("a directory");
        let managed = managed(directory.path(), [10, 0, 0, 1]).expect("settings");
        let member = |peer: &str| Member {
            id: 1,
            name: String::new(),
            peer: peer.to_owned(),
            client: None,
            is_learner: false,
        };
        let known = member("https://10.0.0.1:2380");
        let loopback = member("https://127.0.0.1:2380");
        assert!(managed.check_peer(&[loopback.clone(), known]).is_ok());
        let why = managed.check_peer(&[loopback]).err();
        let why = why.map(|it| it.to_string()).unwrap_or_default();
        assert!(why.contains("at https://127.0.0.1:2380"), "{why}");
    }

    #[tokio::test]
    async fn a_tool_does_not_wait_for_ever_for_an_etcd_that_is_not_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let args = ManagedArgs {
            etcd_program: "/not/there".into(),
            etcd_ports: vec![free_port(), free_port()],
        };
        let managed = Managed::new(&args, directory.path(), [127, 0, 0, 1].into());
        let managed = managed.expect("settings").within(Duration::ZERO);
        let why = managed.create_in(&managed.data()).await.err();
        let why = why.map(|it| it.to_string()).unwrap_or_default();
        assert!(why.contains("does not answer yet"), "{why}");
    }

    #[test]
    fn others_must_be_able_to_reach_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let why = managed(directory.path(), [0, 0, 0, 0]).err();
        let why = why.map(|it| it.to_string()).unwrap_or_default();
        assert!(why.contains("--advertise-address"));
    }
}
