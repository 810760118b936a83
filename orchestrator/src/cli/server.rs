//! `orchestrator server`: the control plane in one process: API server, scheduler, controllers.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiServer, Pki, ServerConfig, server_names};
use crate::controllers::{self, ControllersConfig};
use crate::scheduler;
use crate::store::EmbeddedStore;
use crate::sys::{Shutdown, Tasks, files, telemetry};

/// How long the parts may take to end after a signal.
const FAREWELL: Duration = Duration::from_secs(8);

/// Run the control plane: API server, scheduler and controllers
#[derive(clap::Args)]
pub struct Args {
    /// Where certificates, kubeconfig, join token and the store are kept
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/orchestrator/server"
    )]
    data_dir: PathBuf,
    /// Address to listen on; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    bind: Vec<SocketAddr>,
    /// Address that nodes and pods reach this server at; the first that is bound if not given
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Addresses of pods; every node gets a share
    #[arg(long, value_name = "CIDR", default_value = "10.100.0.0/16")]
    pod_cidr: IpNetwork,
    /// Prefix length of a node's share of the pod addresses
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    node_mask_bits: u8,
    /// Addresses of Services; the first one is the API server's
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    service_cidr: IpNetwork,
    /// Ports that Services may take on every node
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    node_port_range: RangeInclusive<u16>,
    /// error, warn, info, debug, trace, or module=level,…
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    telemetry::init(&args.log_level)?;
    let config = config(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(args, config, started))
}

async fn serve(args: Args, config: ServerConfig, started: Instant) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    // First of all: nothing is written if another server has the address.
    let listeners = args
        .bind
        .iter()
        .map(|address| ApiServer::bind(*address))
        .collect::<Result<Vec<_>, _>>()?;
    let pki = prepare(&args, &config)?;
    let tasks = Tasks::new(shutdown.clone());
    let path = args.data_dir.join("store.redb");
    let store = EmbeddedStore::open(&path)
        .with_context(|| format!("the store {} cannot be opened", path.display()))?;
    let server =
        ApiServer::build(config.clone(), Arc::new(store), Some(pki), tasks.clone()).await?;
    start_parts(&server, &config, &tasks);
    let serving = server.clone();
    tasks.essential("API server", async move { serving.serve(listeners).await });
    if config.advertise.ip().is_loopback() {
        tracing::warn!(
            "no other machine can reach {}: give --advertise-address before nodes join",
            config.advertise
        );
    }
    announce(&args, started);
    if tasks.finish(FAREWELL).await {
        return Ok(());
    }
    bail!("a part of the server failed or did not stop in time; the log above says which")
}

/// The control plane's parts are clients like any other, without a network in between.
fn start_parts(server: &ApiServer, config: &ServerConfig, tasks: &Tasks) {
    let token = CancellationToken::new();
    let (stopping, stop) = (tasks.shutdown().clone(), token.clone());
    tokio::spawn(async move {
        stopping.requested().await;
        stop.cancel();
    });
    let client = server.client("system:kube-controller-manager");
    let ranges = ControllersConfig {
        pod_cidr: config.pod_cidr,
        node_mask_bits: config.node_mask_bits,
    };
    tasks.essential(
        "controllers",
        controllers::run(client, ranges, token.clone()),
    );
    let client = server.client("system:kube-scheduler");
    tasks.essential("scheduler", scheduler::run(client, token));
}

/// Certificates, kubeconfig and join token: made at the first start.
fn prepare(args: &Args, config: &ServerConfig) -> anyhow::Result<Pki> {
    let directory = &args.data_dir;
    files::create_private_dir(directory)
        .with_context(|| format!("the directory {} cannot be made", directory.display()))?;
    let mut addresses: Vec<IpAddr> = args.bind.iter().map(SocketAddr::ip).collect();
    addresses.push(config.advertise.ip());
    let service = config
        .service_cidr
        .iter()
        .nth(1)
        .context("the range of Services is empty")?;
    let names = server_names(&addresses, service);
    let pki = Pki::load_or_create(&directory.join("pki"), &names, Timestamp::now())?;
    let kubeconfig = pki.kubeconfig(&format!("https://{}", reachable(args.bind[0])));
    write(args, "admin.kubeconfig", &kubeconfig)?;
    write(args, "node-token", &format!("{}\n", pki.join_token()?))?;
    Ok(pki)
}

/// Writes a private file unless it says so already.
fn write(args: &Args, name: &str, contents: &str) -> anyhow::Result<()> {
    let path = args.data_dir.join(name);
    let context = || format!("{} cannot be written", path.display());
    if files::read_if_present(&path)
        .with_context(context)?
        .as_deref()
        == Some(contents)
    {
        return Ok(());
    }
    files::write_atomic(&path, contents.as_bytes(), files::PRIVATE).with_context(context)
}

fn announce(args: &Args, started: Instant) {
    let addresses: Vec<String> = args
        .bind
        .iter()
        .map(|address| format!("https://{address}"))
        .collect();
    println!(
        "ready after {} ms on {}; kubeconfig: {}",
        started.elapsed().as_millis(),
        addresses.join(", "),
        args.data_dir.join("admin.kubeconfig").display(),
    );
}

fn config(args: &Args) -> anyhow::Result<ServerConfig> {
    let (pods, services) = (args.pod_cidr, args.service_cidr);
    if overlap(pods, services) {
        bail!(
            "--pod-cidr {pods} and --service-cidr {services} overlap: choose ranges that share no \
             address"
        );
    }
    let widest = if pods.is_ipv4() { 32 } else { 128 };
    if args.node_mask_bits < pods.prefix() || args.node_mask_bits > widest {
        bail!(
            "--node-mask-bits {} cuts no share out of --pod-cidr {pods}: take {} to {widest}",
            args.node_mask_bits,
            pods.prefix(),
        );
    }
    let first = args.bind.first().context("--bind needs an address")?;
    let advertise = match args.advertise_address {
        Some(address) => {
            let same = args.bind.iter().find(|bound| bound.ip() == address);
            SocketAddr::new(address, same.unwrap_or(first).port())
        }
        None => reachable(*first),
    };
    Ok(ServerConfig {
        advertise,
        pod_cidr: pods,
        node_mask_bits: args.node_mask_bits,
        service_cidr: services,
        node_ports: args.node_port_range.clone(),
    })
}

/// An address that clients on this machine can dial.
fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], bound.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), bound.port())
        }
        _ => bound,
    }
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is no range of ports: write it as 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let first: u16 = first.trim().parse().map_err(|_| wrong())?;
    let last: u16 = last.trim().parse().map_err(|_| wrong())?;
    if first == 0 || first > last {
        return Err(wrong());
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_is_two_ports_in_order() {
        assert_eq!(port_range("30000-32767"), Ok(30000..=32767));
        for wrong in ["", "30000", "0-10", "20-10", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_overlap_when_one_holds_the_others_first_address() {
        let network = |text: &str| text.parse::<IpNetwork>().expect("a network");
        assert!(overlap(network("10.0.0.0/8"), network("10.96.0.0/16")));
        assert!(overlap(network("10.96.5.0/24"), network("10.96.0.0/16")));
        assert!(!overlap(network("10.100.0.0/16"), network("10.96.0.0/16")));
    }
}
