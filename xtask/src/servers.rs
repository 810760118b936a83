//! Several servers of a dev cluster: each in a network namespace of its own, with an etcd of its own
//! (`orchestrator server --etcd managed`).
//!
//! ```text
//!  server-1 begins the etcd ─▶ token ─▶ servers/join ─▶ server-2, server-3 join
//! ```

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{cluster::Cluster, command, processes::wait_for};

/// How long the servers may take until all answer, the first compile of nothing included.
const PATIENCE: Duration = Duration::from_secs(90);

/// One server as `orchestrator dev` starts it.
pub fn process(
    cluster: &Cluster,
    number: u8,
    binary: &Path,
    (etcd, common): (&Path, &[String]),
) -> Value {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (dir, addresses) = (cluster.server_dir(number), cluster.server_addresses(number));
    let mut arguments = vec!["server".into(), "--data-dir".into(), text(&dir)];
    let bound = addresses.iter().copied();
    for address in bound.chain([IpAddr::from([127, 0, 0, 1])]) {
        let bound = SocketAddr::new(address, cluster.api_port());
        arguments.extend(["--bind".into(), bound.to_string()]);
    }
    arguments.extend(["--advertise-address".into(), addresses[0].to_string()]);
    arguments.extend(common.iter().cloned());
    let shared = cluster.shared_address().to_string();
    arguments.extend(["--shared-address".into(), shared]);
    arguments.extend(["--etcd".into(), "managed".into()]);
    arguments.extend(["--etcd-program".into(), text(etcd)]);
    let name = cluster.server(number);
    let namespace = format!("/run/netns/{name}");
    if number == 1 {
        return json!({ "name": name, "program": binary, "args": arguments,
            "networkNamespace": namespace });
    }
    let join = join_file(cluster);
    arguments.extend(["--join-file".into(), text(&join)]);
    json!({ "name": name, "program": binary, "args": arguments,
        "networkNamespace": namespace, "afterFile": join })
}

/// Lets the other servers join the first one, and returns when all answer.
pub fn join_all(cluster: &Cluster, binary: &Path) -> Result<()> {
    let joined = |number: u8| cluster.server_dir(number).join("etcd/member/wal").exists();
    if (2..=cluster.servers).any(|number| !joined(number)) {
        let first = cluster.server_dir(1);
        let begun = first.join("etcd.started");
        if !wait_for(PATIENCE, || begun.exists()) {
            bail!("{} does not begin its etcd; see its log", cluster.server(1));
        }
        let url = SocketAddr::new(cluster.server_addresses(1)[0], cluster.api_port());
        let mut token = Command::new(binary);
        token.args([
            "server",
            "token",
            "--address",
            &url.to_string(),
            "--data-dir",
        ]);
        let token = command::output(token.arg(&first))?;
        write_private(&join_file(cluster), token.trim())?;
    }
    for number in 1..=cluster.servers {
        let address = SocketAddr::new(cluster.server_addresses(number)[0], cluster.api_port());
        let second = Duration::from_secs(1);
        let answers = || TcpStream::connect_timeout(&address, second).is_ok();
        if !wait_for(PATIENCE, answers) {
            bail!("{} does not answer; see its log", cluster.server(number));
        }
    }
    Ok(())
}

/// A context for each server, and `servers` for the address that leads to all; the first one's is chosen.
pub fn add_contexts(cluster: &Cluster) -> Result<()> {
    let kubectl = |arguments: &[&str]| {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("config").args(arguments);
        kubectl.arg("--kubeconfig").arg(cluster.kubeconfig());
        command::output(&mut kubectl).map(drop)
    };
    let authority = cluster.server_dir(1).join("pki/ca.crt");
    let authority = format!("--certificate-authority={}", authority.display());
    let each = (1..=cluster.servers).map(|number| {
        let name = format!("server-{number}");
        (name, cluster.server_addresses(number)[0])
    });
    for (name, address) in each.chain([("servers".into(), cluster.shared_address())]) {
        let address = SocketAddr::new(address, cluster.api_port());
        let server = format!("--server=https://{address}");
        kubectl(&["set-cluster", &name, &server, &authority, "--embed-certs"])?;
        kubectl(&[
            "set-context",
            &name,
            &format!("--cluster={name}"),
            "--user=admin",
        ])?;
    }
    kubectl(&["use-context", "server-1"])
}

/// What the other servers join by; good for an hour.
fn join_file(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("servers").join("join")
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    // Whoever waits for it finds it whole.
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}
