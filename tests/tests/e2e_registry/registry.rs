//! Debian's `docker-registry`, run by the test.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use sys::certificates::{Authority, Identity, Usage};
use tempfile::TempDir;
use tests::cluster::{Cluster, wait};
use tests::nemesis::members::cached;

pub const USER: &str = "joe";
/// `right`, as `htpasswd -B` writes it.
const PASSWORDS: &str = "joe:$2b$05$abcdefghijklmnopqrstuu8xaCxxL82bnl.UY74PMksDxIJShppPC\n";
/// Where the Engine looks for the authorities of registries.
const AUTHORITIES: &str = "/etc/docker/certs.d";

/// Gone when it is dropped, with all that the Engine was told of it.
pub struct Registry {
    address: SocketAddr,
    authority: String,
    dir: TempDir,
    process: Mutex<Option<Child>>,
}

impl Registry {
    /// Runs on a free port of the address at which nodes reach the cluster's server.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let address = TcpListener::bind((underlay(cluster)?, 0))?.local_addr()?;
        let dir = tempfile::tempdir()?;
        let now = Timestamp::now();
        let authority = Authority::create("a registry's own", now)?;
        let name = address.ip().to_string();
        let own = authority.issue(&Identity::default(), &[name], Usage::Server, now)?;
        let file = |name: &str, text: &str| -> Result<String> {
            let path = dir.path().join(name);
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let config = json!({
            "version": "0.1",
            "log": {"accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {
                "addr": address.to_string(),
                "tls": {
                    "certificate": file("own.crt", &own.certificate)?,
                    "key": file("own.key", &own.key)?,
                },
            },
            "auth": {"htpasswd": {"realm": "test", "path": file("passwords", PASSWORDS)?}},
        });
        // JSON is YAML.
        file("config.yml", &config.to_string())?;
        let token = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "joe:right");
        let known = json!({"auths": {address.to_string(): {"auth": token}}});
        file("config.json", &known.to_string())?;
        let registry = Self {
            address,
            authority: authority.certificate().to_owned(),
            dir,
            process: Mutex::default(),
        };
        registry.run();
        registry.trust();
        Ok(registry)
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Waits until it answers.
    pub fn run(&self) {
        let log = fs::File::create(self.dir.path().join("log")).expect("a log");
        let registry = Command::new(program())
            .arg("serve")
            .arg(self.dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let registry = registry.expect("`cargo xtask test e2e` unpacks docker-registry");
        *self.process() = Some(registry);
        wait("the registry answers", || {
            Ok(Some(TcpStream::connect(self.address)?))
        });
    }

    pub fn stop(&self) {
        if let Some(mut process) = self.process().take() {
            // It ends with a signal, which is no failure here.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The Engine knows the registry's authority from now on.
    pub fn trust(&self) {
        fs::create_dir_all(self.authorities()).expect("a directory");
        let path = self.authorities().join("ca.crt");
        fs::write(path, &self.authority).expect("a certificate");
    }

    pub fn distrust(&self) {
        // It may not have known it.
        let _ = fs::remove_dir_all(self.authorities());
    }

    /// Puts an image there under that tag, which the Engine does not keep; gives it by tag and by digest.
    pub fn push(&self, cluster: &Cluster, tag: &str) -> (String, String) {
        let repository = format!("{}/private/nginx", self.address);
        let image = format!("{repository}:{tag}");
        let config = self.dir.path().display().to_string();
        let pushed = (|| {
            cluster.docker(&["tag", "nginx", &image])?;
            let pushed = cluster.docker(&["--config", &config, "push", &image])?;
            cluster.docker(&["rmi", &image])?;
            let digest = pushed.split("digest: ").nth(1);
            let digest = digest.and_then(|it| it.split_whitespace().next());
            anyhow::Ok(digest.context("a push without a digest")?.to_owned())
        })();
        let digest = pushed.expect("pushed");
        (image, format!("{repository}@{digest}"))
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorities(&self) -> PathBuf {
        PathBuf::from(AUTHORITIES).join(self.host())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        self.distrust();
    }
}

fn program() -> PathBuf {
    cached("docker-registry/docker-registry")
}

/// The server's address for nodes, which is none of loopback.
fn underlay(cluster: &Cluster) -> Result<IpAddr> {
    let processes = cluster.processes()?;
    let arguments = processes.iter().flat_map(|it| it["args"].as_array());
    let mut words = arguments.flatten().filter_map(|it| it.as_str());
    let url = words
        .find(|it| *it == "--server")
        .and_then(|_| words.next())
        .context("the agent has no server")?;
    let uri: http::Uri = url.parse()?;
    let address: IpAddr = uri.host().context("no host")?.parse()?;
    ensure!(!address.is_loopback(), "{address} is loopback");
    Ok(address)
}
