//! A real etcd for a test, gone with it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::{EtcdConfig, EtcdStore, EtcdTls};

/// One member, on ports of its own, with its data in memory.
pub(crate) struct Etcd {
    child: Child,
    directory: tempfile::TempDir,
    /// For clients and for other members.
    ports: [u16; 2],
    flags: Vec<String>,
}

impl Etcd {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With flags besides its own.
    pub fn start_with(flags: &[&str]) -> Self {
        let memory = Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Self::start_in(directory.expect("a directory"), "http", flags)
    }

    /// Reached by TLS alone, and by clients of the same authority.
    pub fn start_with_certificates() -> (Self, EtcdTls) {
        let directory = tempfile::tempdir().expect("a directory");
        let (authority, [server, client]) = certificates();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("ca"), &authority).expect("a file");
        std::fs::write(at("cert"), &server.0).expect("a file");
        std::fs::write(at("key"), &server.1).expect("a file");
        let (ca, cert, key) = (at("ca"), at("cert"), at("key"));
        let flags = [
            "--client-cert-auth",
            "--trusted-ca-file",
            &ca,
            "--cert-file",
            &cert,
            "--key-file",
            &key,
        ];
        let tls = EtcdTls {
            authority: authority.into(),
            identity: Some((client.0.into(), client.1.into())),
        };
        (Self::start_in(directory, "https", &flags), tls)
    }

    /// Three members of one etcd.
    pub fn start_three() -> [Self; 3] {
        let ports = [1, 2, 3].map(|member| (member, [free_port(), free_port()]));
        let peers = ports.map(|(member, [_, peer])| format!("m{member}=http://127.0.0.1:{peer}"));
        ports.map(|(member, ports)| {
            let (name, cluster) = (format!("m{member}"), peers.join(","));
            let flags = ["--name", &name, "--initial-cluster", &cluster];
            let directory = tempfile::tempdir().expect("a directory");
            Self::start_at(ports, directory, "http", &flags)
        })
    }

    fn start_in(directory: tempfile::TempDir, scheme: &str, flags: &[&str]) -> Self {
        Self::start_at([free_port(), free_port()], directory, scheme, flags)
    }

    fn start_at(
        ports: [u16; 2],
        directory: tempfile::TempDir,
        scheme: &str,
        flags: &[&str],
    ) -> Self {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let child = run(directory.path(), scheme, ports, &flags);
        Self {
            child,
            directory,
            ports,
            flags,
        }
    }

    /// `host:port` for clients.
    pub fn member(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// What it says of itself at `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.member()).expect("etcd listens");
        let ask = "GET /metrics HTTP/1.0\r\n\r\n";
        stream.write_all(ask.as_bytes()).expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = line.expect(name).trim().parse().expect("a number");
        value as u64
    }

    pub fn config(&self) -> EtcdConfig {
        EtcdConfig::parse(&format!("etcd://{}/t", self.member())).expect("an address")
    }

    pub async fn open(&self) -> EtcdStore {
        EtcdStore::open(&self.config()).await.expect("a store")
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// As a machine that loses its power.
    pub fn kill(&mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("an end");
    }

    /// It stands still, as a machine that is out of breath, until `go_on`.
    pub fn stand_still(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill").success());
    }

    /// Where other members reach it.
    pub fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// A port for a member that is to join.
    pub fn ports_to_join() -> [u16; 2] {
        [free_port(), free_port()]
    }

    /// A member more of the etcd of `first`, which has heard of it already.
    pub fn join(first: &Self, ports: [u16; 2]) -> Self {
        let cluster = format!(
            "default={},more=http://127.0.0.1:{}",
            first.peer(),
            ports[1]
        );
        let flags = ["--name", "more", "--initial-cluster", &cluster];
        let flags = [&flags[..], &["--initial-cluster-state", "existing"]].concat();
        Self::start_at(
            ports,
            tempfile::tempdir().expect("a directory"),
            "http",
            &flags,
        )
    }

    pub fn start_again(&mut self) {
        self.child = run(self.directory.path(), "http", self.ports, &self.flags);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(directory: &Path, scheme: &str, [client, peer]: [u16; 2], flags: &[String]) -> Child {
    let client = format!("{scheme}://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let log = std::fs::File::create(directory.join("log")).expect("a log");
    // The kernel ends it when the test does, however that ends.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program())
        .args(["--data-dir"])
        .arg(directory.join("data"))
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        .args(["--logger", "zap", "--log-level", "error"])
        .args(flags)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("setpriv and etcd")
}

/// Debian's, as `cargo xtask test unit` unpacks it.
fn program() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.dev/cache/etcd-server/etcd");
    let installed = Path::new("/usr/bin/etcd");
    let found = [cache, installed.to_owned()]
        .into_iter()
        .find(|it| it.exists());
    found.expect(
        "no etcd on this machine: `cargo xtask test unit` unpacks it, or install etcd-server",
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// An authority, and certificates of a server and a client with their keys, as PEM.
fn certificates() -> (String, [(String, String); 2]) {
    let params = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        CertificateParams::new(names).expect("names")
    };
    let key = KeyPair::generate().expect("a key");
    let mut of_authority = params(&[]);
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = of_authority.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(of_authority, key);
    let sign = |names: &[&str]| {
        let key = KeyPair::generate().expect("a key");
        let signed = params(names).signed_by(&key, &issuer);
        (signed.expect("a certificate").pem(), key.serialize_pem())
    };
    (authority, [sign(&["127.0.0.1"]), sign(&["a server"])])
}
