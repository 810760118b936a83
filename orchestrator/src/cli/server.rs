//! `orchestrator server`: the control plane in one process: API server, scheduler, controllers.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnetwork::IpNetwork;
use jiff::Timestamp;

use apiserver::encryption::Scheme;
use apiserver::{
    AdmissionConfig, ApiServer, AuditFileOptions, AuditOptions, AuthenticationConfig, Pki,
    ServerConfig, SnapshotConfig, TolerationSeconds, server_names,
};
use controllers::pod_cidr::Range;
use controllers::service::pool::Block;
use controllers::{self, ControllersConfig};
use scheduler::profile::Config as Profiles;
use store::StoreError;
use sys::{Shutdown, Tasks, files, privileges, telemetry};

use super::{SERVER_DATA_DIR, duration, encrypt};

pub mod etcd;
mod join;
mod leading;
mod members;
pub mod stores;
mod token;
mod users;

/// How long the parts may take to end after a signal.
const FAREWELL: Duration = Duration::from_secs(8);

/// How long the last events of the audit log may take to be written.
const AUDIT_FAREWELL: Duration = Duration::from_secs(5);

/// Run the control plane: API server, scheduler and controllers
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where certificates, kubeconfig, a join token (node-token, good for 24 h, renewed) and the store
    /// are kept
    #[arg(long, value_name = "DIR", default_value = SERVER_DATA_DIR)]
    data_dir: PathBuf,
    /// Address to listen on; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    bind: Vec<SocketAddr>,
    /// Address that nodes and pods reach this server at; the first that is bound if not given
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Addresses of pods, at most one range a family; every node gets a share of each
    #[arg(
        long,
        alias = "cluster-cidr",
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.100.0.0/16"
    )]
    pod_cidr: Vec<IpNetwork>,
    /// Prefix length of a node's share of the IPv4 pod addresses
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    node_mask_bits: u8,
    /// Prefix length of a node's share of the IPv6 pod addresses
    #[arg(long, value_name = "BITS", default_value_t = 64)]
    node_mask_bits_ipv6: u8,
    /// Addresses of Services, at most one range a family: the first range's family is what Services
    /// get that ask for none, and the first address is the API server's
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        value_delimiter = ',',
        default_value = "10.96.0.0/16"
    )]
    service_cidr: Vec<IpNetwork>,
    /// Addresses for Services of type LoadBalancer: networks, ranges (FIRST-LAST) or single ones.
    /// A network's own address and its broadcast address are not given. Without a pool such
    /// Services stay pending
    #[arg(long, value_name = "RANGE[,RANGE]", value_delimiter = ',')]
    load_balancer_pool: Vec<Block>,
    /// One address for all servers, out of that pool: the nodes announce it and lead to the servers that
    /// are alive. The same on every server
    #[arg(long, value_name = "ADDRESS", requires = "load_balancer_pool")]
    shared_address: Option<IpAddr>,
    /// Ports that Services may take on every node
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    node_port_range: RangeInclusive<u16>,
    /// How long certificates of the server and of nodes are valid, ten seconds or more: 90s, 30m, 12h,
    /// 365d. They are renewed after two thirds of it, without a restart; the authority lasts ten
    /// years and is not renewed
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = certificate_lifetime)]
    certificate_lifetime: Duration,
    /// Who signs tokens of ServiceAccounts; may be given several times: the first signs, all are
    /// believed. A URL of HTTPS, so that others can find the keys there
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://kubernetes.default.svc"
    )]
    service_account_issuer: Vec<String>,
    /// Whom tokens must be for that are shown to this server; the issuers if not given
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Admission plugins to turn on besides those that are on by default
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to turn off
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// File with the settings of admission plugins (AdmissionConfiguration of apiserver.config.k8s.io/v1)
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    /// File with the profiles of the scheduler (KubeSchedulerConfiguration of
    /// kubescheduler.config.k8s.io/v1)
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// How long pods that do not say it stay on a node that is not ready
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    default_not_ready_toleration_seconds: i64,
    /// How long pods that do not say it stay on a node that is unreachable
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    default_unreachable_toleration_seconds: i64,
    /// How many pods are kept that have ended; the oldest beyond that are removed. 0: all are kept
    ///
    /// Example: --terminated-pod-gc-threshold=1000
    #[arg(long, value_name = "N", default_value_t = controllers::pod_gc::FINISHED_KEPT)]
    terminated_pod_gc_threshold: usize,
    #[command(flatten)]
    audit: AuditArgs,
    /// Which resources are encrypted in the store, by which keys: an EncryptionConfiguration of
    /// apiserver.config.k8s.io/v1 with the providers aesgcm and identity. By default
    /// pki/encryption.yaml in the data directory, which a new cluster gets with a key for Secrets
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
    #[command(flatten)]
    store: stores::StoreArgs,
    /// Run an etcd on this machine as the store: the first server of several begins one, the others join it
    #[arg(long, value_name = "HOW", value_parser = ["managed"], conflicts_with = "store")]
    etcd: Option<String>,
    #[command(flatten)]
    managed: etcd::ManagedArgs,
    /// Join these servers: what `orchestrator server token` prints on one of them. A server that has joined
    /// needs it no more
    #[arg(long, value_name = "TOKEN@ADDRESS:PORT", requires = "etcd")]
    join: Option<String>,
    /// File with that text, which is looked for when it is needed
    #[arg(long, value_name = "FILE", requires = "etcd", conflicts_with = "join")]
    join_file: Option<PathBuf>,
    /// Take a snapshot of the store every so often: 1h, 6h, 1d; 0: never. Each server has its own
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = interval)]
    snapshot_every: Duration,
    /// How many of those are kept
    #[arg(long, value_name = "N", default_value_t = 8)]
    snapshot_keep: usize,
    /// Where they are kept; snapshots in the data directory if not given
    #[arg(long, value_name = "DIR")]
    snapshot_dir: Option<PathBuf>,
    #[command(flatten)]
    users: users::UserArgs,
    /// error, warn, info, debug, trace, or module=level,…
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// What is logged of requests, in Kubernetes' flags
#[derive(clap::Args)]
struct AuditArgs {
    /// Which requests are logged, and how much of them: a Policy of audit.k8s.io/v1. Without one
    /// nothing is
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where they are logged, an event a line; - is the standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Days after which a rotated audit log is removed; 0: never
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u32,
    /// Rotated audit logs that are kept; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Megabytes at which the audit log is rotated; 0: 100
    #[arg(long, value_name = "MB", default_value_t = 0)]
    audit_log_maxsize: u64,
    /// A kubeconfig that names a server which gets events too, in batches
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
}

impl AuditArgs {
    fn options(&self) -> AuditOptions {
        AuditOptions {
            policy: self.audit_policy_file.clone(),
            file: self.audit_log_path.clone().map(|path| AuditFileOptions {
                path,
                max_age_days: self.audit_log_maxage,
                max_backups: self.audit_log_maxbackup,
                max_size_megabytes: self.audit_log_maxsize,
            }),
            webhook: self.audit_webhook_config_file.clone(),
        }
    }
}

#[derive(clap::Subcommand)]
enum Command {
    Encrypt(encrypt::Args),
    Token(token::Args),
    Members(members::Args),
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Some(Command::Encrypt(args)) => return encrypt::run(args),
        Some(Command::Token(args)) => return token::run(&args),
        Some(Command::Members(args)) => return members::run(args),
        None => {}
    }
    let started = Instant::now();
    telemetry::init(&args.log_level)?;
    let config = config(&args)?;
    // First of all: nothing is written if another server has the address.
    let listeners = args.bind.iter().map(|address| ApiServer::bind(*address));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    give_up_privileges().context("give up what a server does not need")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(args, config, listeners, started))
}

/// While there is one thread, and the ports are bound that others may not bind.
fn give_up_privileges() -> std::io::Result<()> {
    privileges::close_memory()?;
    privileges::private_files();
    privileges::keep(privileges::OF_SERVER)
}

async fn serve(
    args: Args,
    config: ServerConfig,
    listeners: Vec<TcpListener>,
    started: Instant,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    // Between the two this server still answers, and has clients go to the others.
    let stopping = shutdown.child();
    stopping.on_signals()?;
    let directory = &args.data_dir;
    files::create_private_dir(directory)
        .with_context(|| format!("the directory {} cannot be made", directory.display()))?;
    // Until the end: the tools that replace a store ask for it, too.
    let _held = stores::hold(directory)?;
    let Some(etcd) = stopping.unless(start_etcd(&args, &config)).await else {
        return Ok(());
    };
    let etcd = etcd?;
    let of_etcd = etcd.as_ref().map(|etcd| etcd.config.clone());
    let stops = (stopping, shutdown);
    let served = serve_from(&args, config, listeners, (started, stops), of_etcd).await;
    if let Some(etcd) = etcd {
        // The last: whoever goes gives up what it holds in it.
        etcd.stop().await;
    }
    served
}

/// This server's own member of etcd, if it runs one.
async fn start_etcd(args: &Args, config: &ServerConfig) -> anyhow::Result<Option<etcd::Running>> {
    if args.etcd.is_none() {
        return Ok(None);
    }
    let directory = &args.data_dir;
    let managed = etcd::Managed::new(&args.managed, directory, config.advertise.ip())?;
    let given = args.encryption_provider_config.as_deref();
    let given = given.map(stores::encryption_of).transpose()?;
    let managed = managed.encrypting(given.as_ref().map(Scheme::from));
    let join = match (&args.join, &args.join_file) {
        (None, Some(file)) => join::from_file(file, managed.has_data())?,
        (join, _) => join.clone(),
    };
    managed.start(join.as_deref()).await.map(Some)
}

async fn serve_from(
    args: &Args,
    config: ServerConfig,
    listeners: Vec<TcpListener>,
    (started, (stopping, shutdown)): (Instant, (Shutdown, Shutdown)),
    etcd: Option<store::EtcdConfig>,
) -> anyhow::Result<()> {
    let pki = prepare(args, &config)?;
    let root_ca = pki.authority.certificate().to_owned();
    let tasks = Tasks::new(shutdown.clone());
    let given = args.encryption_provider_config.as_deref();
    let opening = args.store.open(&args.data_dir, given, &root_ca, etcd);
    let Some(store) = stopping.unless(opening).await else {
        return Ok(());
    };
    let store = store?;
    let profiles = profiles(args.scheduler_config.as_deref())?;
    let server =
        ApiServer::build(config.clone(), Arc::new(store), Some(pki), tasks.clone()).await?;
    start_parts(
        &server,
        args,
        &config,
        (root_ca, profiles),
        &tasks,
        &stopping,
    );
    let serving = server.clone();
    tasks.essential("API server", async move { serving.serve(listeners).await });
    if config.advertise.ip().is_loopback() {
        tracing::warn!(
            "no other machine can reach {}: give --advertise-address before nodes join",
            config.advertise
        );
    }
    announce(args, started);
    let leaving = async {
        stopping.requested().await;
        server.leave().await;
        shutdown.trigger();
    };
    let ((), in_order) = tokio::join!(leaving, tasks.finish(FAREWELL));
    server.close_audit_log(AUDIT_FAREWELL).await;
    if in_order {
        return Ok(());
    }
    bail!("a part of the server failed or did not stop in time; the log above says which")
}

/// The scheduler's settings.
fn profiles(file: Option<&Path>) -> anyhow::Result<Profiles> {
    let Some(file) = file else {
        return Ok(Profiles::default());
    };
    let shown = file.display();
    let text = std::fs::read(file).with_context(|| format!("{shown} cannot be read"))?;
    let read = api::decode::documents(&text).and_then(|all| match &all[..] {
        [one] => scheduler::profile::file::read(one),
        _ => Err("there must be one document".to_owned()),
    });
    read.map_err(|why| anyhow::anyhow!("{shown}: {why}"))
}

/// The control plane's parts are clients like any other, without a network in between.
fn start_parts(
    server: &ApiServer,
    args: &Args,
    config: &ServerConfig,
    (root_ca, profiles): (String, Profiles),
    tasks: &Tasks,
    stopping: &Shutdown,
) {
    let ranges = config.pod_cidrs.iter().zip(&config.node_mask_bits);
    let settings = ControllersConfig {
        pod_ranges: ranges
            .map(|(network, mask_bits)| Range {
                network: *network,
                mask_bits: *mask_bits,
            })
            .collect(),
        load_balancer_pool: args.load_balancer_pool.clone(),
        root_ca,
        finished_pods_kept: args.terminated_pod_gc_threshold,
    };
    // The first to go: another server leads at once.
    let leading = leading::run(server.clone(), settings, profiles, stopping.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.essential("controllers and scheduler", async move {
        leading.await?;
        shutdown.requested().await;
        Ok::<(), StoreError>(())
    });
}

/// Certificates and kubeconfig: made at the first start.
fn prepare(args: &Args, config: &ServerConfig) -> anyhow::Result<Pki> {
    let directory = &args.data_dir;
    let mut addresses = config.bound.clone();
    addresses.push(config.advertise.ip());
    addresses.extend(config.shared_address);
    let names = server_names(&addresses, config.own_service_address());
    let (pki, life) = (directory.join("pki"), args.certificate_lifetime);
    let pki = Pki::load_or_create(&pki, &names, life, Timestamp::now())?;
    let server = format!("https://{}", reachable(args.bind[0]));
    Ok(pki.with_kubeconfig(directory.join("admin.kubeconfig"), &server)?)
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
    check_ranges(args)?;
    let node_mask_bits = args.pod_cidr.iter().map(|pods| mask_bits(args, *pods));
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
        bound: args.bind.iter().map(SocketAddr::ip).collect(),
        pod_cidrs: args.pod_cidr.clone(),
        node_mask_bits: node_mask_bits.collect::<anyhow::Result<_>>()?,
        service_cidrs: args.service_cidr.clone(),
        node_ports: args.node_port_range.clone(),
        token_file: Some(args.data_dir.join("node-token")),
        load_balancer_pool: args.load_balancer_pool.iter().map(Block::range).collect(),
        shared_address: shared_address(args)?,
        audit: args.audit.options(),
        authentication: AuthenticationConfig {
            issuers: args.service_account_issuer.clone(),
            audiences: args.api_audiences.clone(),
        },
        admission: admission(args)?,
        commit: option_env!("ORCHESTRATOR_COMMIT").map_or_else(|| "0".repeat(40), str::to_owned),
        users: args.users.sources()?,
        snapshots: Some(snapshots(args)),
        encryption: args.encryption_provider_config.clone(),
    })
}

fn shared_address(args: &Args) -> anyhow::Result<Option<IpAddr>> {
    let pool = &args.load_balancer_pool;
    match args.shared_address {
        Some(address) if !pool.iter().any(|block| block.range().contains(&address)) => {
            bail!("--shared-address {address} is not in --load-balancer-pool")
        }
        shared => Ok(shared),
    }
}

/// Where snapshots are, unless it is said.
pub const SNAPSHOTS: &str = "snapshots";

fn snapshots(args: &Args) -> SnapshotConfig {
    let own = || args.data_dir.join(SNAPSHOTS);
    SnapshotConfig {
        directory: args.snapshot_dir.clone().unwrap_or_else(own),
        every: Some(args.snapshot_every).filter(|every| !every.is_zero()),
        keep: args.snapshot_keep,
    }
}

fn admission(args: &Args) -> anyhow::Result<AdmissionConfig> {
    let mut config = AdmissionConfig::new(
        &args.enable_admission_plugins,
        &args.disable_admission_plugins,
        args.admission_control_config_file.as_deref(),
    )?;
    config.toleration_seconds = TolerationSeconds {
        not_ready: args.default_not_ready_toleration_seconds,
        unreachable: args.default_unreachable_toleration_seconds,
    };
    Ok(config)
}

/// One range a family of each kind, and none inside another one.
fn check_ranges(args: &Args) -> anyhow::Result<()> {
    let lists = [
        ("--pod-cidr", &args.pod_cidr),
        ("--service-cidr", &args.service_cidr),
    ];
    for (flag, ranges) in lists {
        if let [a, b, ..] = ranges[..]
            && (a.is_ipv4() == b.is_ipv4() || ranges.len() > 2)
        {
            bail!("{flag} has {a} and {b}: give at most one IPv4 and one IPv6 range");
        }
    }
    let all = lists.map(|(flag, ranges)| ranges.iter().map(move |range| (flag, *range)));
    let all: Vec<_> = all.into_iter().flatten().collect();
    for (index, (flag, range)) in all.iter().enumerate() {
        let other = all[..index]
            .iter()
            .find(|(_, other)| overlap(*other, *range));
        if let Some((other_flag, other)) = other {
            bail!(
                "{other_flag} {other} and {flag} {range} overlap: choose ranges that share no \
                 address"
            );
        }
    }
    check_pool(&args.load_balancer_pool, &all)?;
    let unserved = args.service_cidr.iter();
    let mut unserved = unserved.filter(|services| {
        let same = |pods: &&IpNetwork| pods.is_ipv4() == services.is_ipv4();
        args.pod_cidr.iter().find(same).is_none()
    });
    if let Some(services) = unserved.next() {
        bail!(
            "--service-cidr {services} has no pods to lead to: give --pod-cidr a range of the same \
             family"
        );
    }
    Ok(())
}

/// The pool's parts are apart from each other and from what has another use.
fn check_pool(pool: &[Block], ranges: &[(&str, IpNetwork)]) -> anyhow::Result<()> {
    let flag = "--load-balancer-pool";
    for (index, block) in pool.iter().enumerate() {
        if let Some(other) = pool[..index].iter().find(|other| other.meets(block)) {
            bail!("{flag} has {other} and {block}, which overlap: give every address once");
        }
        let range = ranges.iter().find(|(_, range)| block.overlaps(*range));
        if let Some((other, range)) = range {
            bail!(
                "{other} {range} and {flag} {block} overlap: choose ranges that share no address"
            );
        }
    }
    Ok(())
}

/// The prefix length of a node's share of a range.
fn mask_bits(args: &Args, pods: IpNetwork) -> anyhow::Result<u8> {
    let (flag, bits, widest) = if pods.is_ipv4() {
        ("--node-mask-bits", args.node_mask_bits, 32)
    } else {
        ("--node-mask-bits-ipv6", args.node_mask_bits_ipv6, 128)
    };
    if bits < pods.prefix() || bits > widest {
        bail!(
            "{flag} {bits} cuts no share out of --pod-cidr {pods}: take {} to {widest}",
            pods.prefix(),
        );
    }
    Ok(bits)
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
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// Below that, a certificate could end on its way to its holder.
fn certificate_lifetime(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(10);
    let lifetime = duration::parse(text)?;
    if lifetime < SHORTEST {
        return Err(format!(
            "{text} is too short: at least {} s",
            SHORTEST.as_secs()
        ));
    }
    Ok(lifetime)
}

/// `0` without a unit as well.
fn interval(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => duration::parse(text),
    }
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

    /// What is wrong with these arguments, or nothing.
    fn refused(args: &[&str]) -> String {
        use clap::Args as _;
        let command = Args::augment_args(clap::Command::new("server"));
        let line = ["server"].iter().chain(args);
        let matches = command.try_get_matches_from(line).expect("flags");
        let args = <Args as clap::FromArgMatches>::from_arg_matches(&matches).expect("arguments");
        config(&args)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn ranges_of_two_families_are_taken_and_wrong_ones_refused_by_name() {
        let dual = ["--cluster-cidr", "10.100.0.0/16,fd00:10:100::/48"];
        let services = ["--service-cidr", "10.96.0.0/16,fd00:10:96::/112"];
        assert_eq!(refused(&[dual, services].concat()), "");
        let cases: [(&[&str], &str); 8] = [
            (
                &["--enable-admission-plugins", "PodSecurity,Podsecurity"],
                "--enable-admission-plugins: there is no admission plugin \"Podsecurity\"",
            ),
            (
                &["--service-cidr", "10.100.5.0/24"],
                "--pod-cidr 10.100.0.0/16 and --service-cidr 10.100.5.0/24 overlap",
            ),
            (
                &["--service-cidr", "10.96.0.0/16,10.97.0.0/16"],
                "--service-cidr has 10.96.0.0/16 and 10.97.0.0/16: give at most one IPv4",
            ),
            (
                &[
                    "--pod-cidr",
                    "10.100.0.0/16,fd00::/48",
                    "--node-mask-bits-ipv6",
                    "40",
                ],
                "--node-mask-bits-ipv6 40 cuts no share out of --pod-cidr fd00::/48: take 48",
            ),
            (
                &["--pod-cidr", "10.100.0.0/25"],
                "--node-mask-bits 24 cuts no share out of --pod-cidr 10.100.0.0/25",
            ),
            (
                &["--load-balancer-pool", "192.0.2.1-192.0.2.9,10.96.3.0/24"],
                "--service-cidr 10.96.0.0/16 and --load-balancer-pool 10.96.3.1-10.96.3.254 overlap",
            ),
            (
                &["--load-balancer-pool", "192.0.2.0/24,192.0.2.9"],
                "--load-balancer-pool has 192.0.2.1-192.0.2.254 and 192.0.2.9-192.0.2.9",
            ),
            (
                &services,
                "--service-cidr fd00:10:96::/112 has no pods to lead to",
            ),
        ];
        for (args, expected) in cases {
            let why = refused(args);
            assert!(why.contains(expected), "{why}");
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
