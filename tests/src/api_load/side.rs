//! The servers: ours, and a Kubernetes API server with etcd, each with a data directory of its own on the same disk and
//! an fsync before each answer; and one that answers without looking.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::json;
use sys::certificates::{Authority, Credentials, Identity, Usage};

use super::connection::{Ask, Target};
use super::floor;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// An address for the Service `kubernetes` that nobody asks (RFC 5737).
const ADVERTISED: &str = "192.0.2.1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Real,
    /// [`floor::serve`].
    Ready,
}

/// A server that may run.
pub struct Side {
    pub kind: Kind,
    directory: PathBuf,
    address: SocketAddr,
    /// Programs of the Kubernetes side.
    programs: Option<Programs>,
    store: Option<Process>,
    server: Option<Process>,
    /// Flags of our server besides those that it needs.
    pub flags: Vec<String>,
}

/// Where the Kubernetes side's programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub apiserver: PathBuf,
    pub etcd: PathBuf,
}

/// A process that is asked to end when this is dropped.
struct Process(Child);

impl Side {
    pub fn new(kind: Kind, directory: &Path, programs: Option<Programs>) -> Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            kind,
            directory: directory.to_owned(),
            address: free_address()?,
            programs,
            store: None,
            server: None,
            flags: Vec::new(),
        })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn target(&self) -> Result<Target> {
        Target::read(&self.kubeconfig())
    }

    /// Starts the server and returns the milliseconds from its exec to the first good `/readyz`. The store of
    /// the Kubernetes side is there before.
    pub async fn start(&mut self) -> Result<f64> {
        if self.kind != Kind::Ours && !self.kubeconfig().exists() {
            self.prepare_certificates()?;
        }
        if self.kind == Kind::Real && self.store.is_none() {
            self.start_etcd()?;
        }
        let command = self.server_command()?;
        let began = Instant::now();
        self.server = Some(Process::start(command, &self.directory.join("server.log"))?);
        loop {
            if self.is_ready().await {
                return Ok(began.elapsed().as_secs_f64() * 1e3);
            }
            if began.elapsed() > START_TIMEOUT {
                bail!(
                    "{:?} is not ready, see {}",
                    self.kind,
                    self.directory.display()
                );
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    pub fn stop(&mut self) {
        self.server = None;
    }

    async fn is_ready(&self) -> bool {
        let ask = async {
            let mut connection = self.target()?.connect().await?;
            connection.good(Ask::get("/readyz")).await
        };
        ask.await.is_ok()
    }

    /// Resident memory of the side's processes, in bytes.
    pub fn memory_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for process in self.processes() {
            sum += crate::strangers::resident_bytes(process.0.id())?;
        }
        Ok(sum)
    }

    /// Seconds of CPU that the side's processes have used.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let mut ticks = 0;
        for process in self.processes() {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.0.id()))?;
            // The name in parentheses may hold anything; fields are counted after it.
            let fields = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            for field in [11, 12] {
                ticks += fields.get(field).context("no such field")?.parse::<u64>()?;
            }
        }
        let each = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(ticks as f64 / each as f64)
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.store.iter().chain(&self.server)
    }

    fn server_command(&self) -> Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        if self.kind == Kind::Ready {
            command.args([floor::MODE, &self.address.to_string()]);
            command.arg(&self.directory);
            return Ok(command);
        }
        let Some(programs) = &self.programs else {
            command.args(["server", "--bind", &self.address.to_string(), "--data-dir"]);
            command.arg(&self.directory).args(&self.flags);
            return Ok(command);
        };
        let file = |name: &str| self.directory.join(name).display().to_string();
        let mut command = bound(&programs.apiserver)?;
        for (flag, value) in [
            ("etcd-servers", fs::read_to_string(file("etcd-url"))?),
            ("bind-address", self.address.ip().to_string()),
            ("secure-port", self.address.port().to_string()),
            ("insecure-port", "0".into()),
            ("advertise-address", ADVERTISED.into()),
            ("cert-dir", file("")),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("client-ca-file", file("ca.crt")),
            ("authorization-mode", "Node,RBAC".into()),
            ("service-cluster-ip-range", "10.97.0.0/16".into()),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".into(),
            ),
            ("service-account-signing-key-file", file("accounts.key")),
            ("service-account-key-file", file("accounts.crt")),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        Ok(command)
    }

    /// Certificates, keys and the kubeconfig of a server that does not make them.
    fn prepare_certificates(&self) -> Result<()> {
        let now = Timestamp::now();
        let authority = Authority::create("bench", now)?;
        let save = |name: &str, credentials: &Credentials| -> Result<()> {
            let file = |ending: &str| self.directory.join(format!("{name}.{ending}"));
            Ok(credentials.save(&file("crt"), &file("key"))?)
        };
        fs::write(self.directory.join("ca.crt"), authority.certificate())?;
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = Identity::new("kube-apiserver", &[]);
        save(
            "server",
            &authority.issue(&server, &names, Usage::Server, now)?,
        )?;
        let accounts = Identity::new("service-accounts", &[]);
        save(
            "accounts",
            &authority.issue(&accounts, &[], Usage::Client, now)?,
        )?;
        let admin = Identity::new("bench", &["system:masters"]);
        let admin = authority.issue(&admin, &[], Usage::Client, now)?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "clusters": [{"name": "bench", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": STANDARD.encode(authority.certificate()),
            }}],
            "users": [{"name": "bench", "user": {
                "client-certificate-data": STANDARD.encode(admin.certificate),
                "client-key-data": STANDARD.encode(admin.key),
            }}],
        });
        Ok(fs::write(self.kubeconfig(), config.to_string())?)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let programs = self.programs.as_ref().context("no programs")?;
        let (client, peer) = (free_address()?, free_address()?);
        let (url, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = bound(&programs.etcd)?;
        command.arg("--data-dir").arg(self.directory.join("etcd"));
        command.args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ]);
        command.args(["--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        self.store = Some(Process::start(command, &self.directory.join("etcd.log"))?);
        fs::write(self.directory.join("etcd-url"), url)?;
        let began = Instant::now();
        while std::net::TcpStream::connect(client).is_err() {
            if began.elapsed() > START_TIMEOUT {
                bail!("etcd does not start, see {}", self.directory.display());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Process {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let shown = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Self(command.spawn().context(shown)?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if began.elapsed() > STOP_TIMEOUT {
                let _ = self.0.kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A foreign program with its log; it is asked to end when this is dropped.
pub struct Beside {
    _process: Process,
}

impl Beside {
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let mut command = bound(program)?;
        command.args(arguments);
        let _process = Process::start(command, log)?;
        Ok(Self { _process })
    }
}

/// A foreign program that ends with the bench, whatever ends that.
fn bound(program: &Path) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("exec").arg(program);
    Ok(command)
}

/// The child's side of [`bound`]: becomes that program.
pub fn become_program(arguments: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
    let (program, arguments) = arguments.split_first().context("exec PROGRAM")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| program.clone())
}

pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
