//! `orchestrator agent`: one node. Checks what it needs, says what is missing, and runs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use agent::node::facts::Reserved;
use agent::node::farewell::Farewell;
use agent::node::join::Registration;
use agent::node::pressure::{self, HARD_DEFAULT};
use agent::node::reset::{self, ResetConfig};
use agent::runtime::image_gc::Thresholds;
use agent::{self, AgentConfig};
use api::amounts::Amounts;
use datapath::{Addrs, Xdp};
use k8s_openapi::api::core::v1::Taint;
use sys::{Shutdown, descriptors, privileges, telemetry};

use super::duration;

const DOCKER_HOST: &str = "unix:///var/run/docker.sock";
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Tasks that still write get this long after the end was asked for.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Run this machine as a node of a cluster.
#[derive(clap::Args)]
pub struct Args {
    /// The API server, for example https://10.0.0.1:6443; of several servers all, with commas between
    /// them: one is asked, and the next one when that does not answer.
    #[arg(
        long,
        value_name = "URL[,URL]",
        value_delimiter = ',',
        required_unless_present = "reset"
    )]
    server: Vec<http::Uri>,

    /// What `orchestrator token create` printed, or the server keeps in <data-dir>/node-token; needed
    /// until the node has joined, and again if its certificate has ended while it was off.
    #[arg(long, env = "ORCHESTRATOR_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// A file that holds the token.
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,

    /// The node's name; the machine's host name if not given.
    #[arg(long)]
    node_name: Option<String>,

    /// The node's address, by which other nodes reach it. Of both families where pods have both: the
    /// first is what the others tunnel to.
    #[arg(
        long,
        value_name = "IP[,IP]",
        value_delimiter = ',',
        required_unless_present = "reset"
    )]
    node_ip: Vec<IpAddr>,

    /// Where the node keeps its certificate and its pods' files.
    #[arg(long, default_value = "/var/lib/orchestrator/agent")]
    data_dir: PathBuf,

    /// Labels that the node has when it joins for the first time. Those of kubernetes.io are an
    /// administrator's, but for topology.kubernetes.io/region and zone, and node.kubernetes.io/…
    ///
    /// Example: --node-labels=disk=ssd,topology.kubernetes.io/zone=a
    #[arg(long, value_name = "KEY=VALUE[,…]", value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,

    /// Taints that it has then.
    ///
    /// Example: --register-with-taints=gpu=yes:NoSchedule,dedicated:NoExecute
    #[arg(long, value_name = "KEY[=VALUE]:EFFECT[,…]", value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<Taint>,

    /// What of the machine is for its system and not for pods: cpu, memory, ephemeral-storage.
    ///
    /// Example: --system-reserved=cpu=500m,memory=1Gi
    #[arg(long, value_name = "RESOURCE=AMOUNT[,…]", default_value = "", value_parser = Reserved::parse)]
    system_reserved: Amounts,

    /// The same for the agent and the container engine.
    ///
    /// Example: --kube-reserved=cpu=100m,memory=256Mi
    #[arg(long, value_name = "RESOURCE=AMOUNT[,…]", default_value = "", value_parser = Reserved::parse)]
    kube_reserved: Amounts,

    /// How many pods the node runs.
    ///
    /// Example: --max-pods=250
    #[arg(long, value_name = "N", default_value_t = agent::node::facts::MAX_PODS)]
    max_pods: u32,

    /// How long pods have to end when the machine goes down (systemd says so); 0s: they are left as they are.
    /// The unit's TimeoutStopSec has to be longer.
    ///
    /// Example: --shutdown-grace-period=60s --shutdown-grace-period-critical-pods=10s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    shutdown_grace_period: Duration,

    /// The part of it that is for critical pods alone.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    shutdown_grace_period_critical_pods: Duration,

    /// A directory of manifests (YAML or JSON) of pods that this node runs by itself, whether or not there is
    /// an API server. It is read every two seconds.
    ///
    /// Example: --pod-manifest-path=/etc/orchestrator/manifests
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,

    /// Below what the node has pods leave at once.
    ///
    /// Example: --eviction-hard='memory.available<500Mi,nodefs.available<10%'
    #[arg(long, value_name = "SIGNAL<AMOUNT[,…]", default_value = HARD_DEFAULT)]
    eviction_hard: String,

    /// Below what it does once that has lasted, for the time of --eviction-soft-grace-period.
    ///
    /// Example: --eviction-soft='memory.available<1Gi' --eviction-soft-grace-period=memory.available=90s
    #[arg(long, value_name = "SIGNAL<AMOUNT[,…]", default_value = "")]
    eviction_soft: String,

    /// How long a soft threshold has to be met.
    #[arg(long, value_name = "SIGNAL=TIME[,…]", default_value = "")]
    eviction_soft_grace_period: String,

    /// How much more than the threshold is freed once it was met.
    ///
    /// Example: --eviction-minimum-reclaim=nodefs.available=1Gi
    #[arg(long, value_name = "SIGNAL=AMOUNT[,…]", default_value = "")]
    eviction_minimum_reclaim: String,

    /// How long the node says that it runs out after it last did.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    eviction_pressure_transition_period: Duration,

    /// The Docker Engine.
    #[arg(long, env = "DOCKER_HOST", default_value = DOCKER_HOST)]
    docker_host: String,

    /// How many processes and threads one container may have; 0: as many as the machine.
    #[arg(long, value_name = "N", default_value_t = agent::pod::defaults::PIDS_LIMIT)]
    pids_limit: u32,

    /// Where log shippers look for the logs of containers: `containers` and `pods` are made in it.
    #[arg(long, value_name = "DIR", default_value = "/var/log")]
    pod_logs_dir: PathBuf,

    /// A kubelet's directory, for drivers of the Container Storage Interface: they register in `plugins_registry`
    /// and mount below `pods` and `plugins`. Their manifests name it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,

    /// From how many percent of the disk on images are removed that nothing uses; 100: never.
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    image_gc_high_threshold: u64,

    /// Until how many percent of the disk they are removed.
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    image_gc_low_threshold: u64,

    /// Sysctls that pods may set besides the safe ones, such as `kernel.msg*`: they must have a namespace.
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<String>,

    /// What to log: error, warn, info, debug, trace or module=level,….
    #[arg(long, default_value = "info")]
    log_level: String,

    /// Have the kernel count how often and how long the datapath's programs run, for /metrics; it costs
    /// every run two looks at the clock.
    #[arg(long)]
    program_stats: bool,

    /// Clients outside are answered by the backend's own node, without the way back through the node that
    /// they asked (direct server return). On every node of the cluster or on none.
    #[arg(long)]
    dsr: bool,

    /// Balances clients outside over other nodes' pods, and drops what must not come in, in the uplink's
    /// driver, before the node's stack: XDP. For real cards. The node's firewall sees none of that.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpArg::Auto)]
    xdp: XdpArg,

    /// Remove this node's containers, links and pods' files instead, and end. The agent must not be running.
    #[arg(long)]
    reset: bool,
}

/// Where XDP runs on the uplink.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum XdpArg {
    /// In the driver if the uplink is a card that keeps segmentation offload, so never on a veth pair.
    Auto,
    /// In the driver; the agent does not start where that has no XDP.
    Native,
    /// In the stack, on any link: to try it out. It is slower than native and turns GRO off.
    Generic,
    /// Nowhere: the stack's hooks do the same everywhere.
    Off,
}

impl From<XdpArg> for Xdp {
    fn from(arg: XdpArg) -> Self {
        match arg {
            XdpArg::Auto => Self::Auto,
            XdpArg::Native => Self::Native,
            XdpArg::Generic => Self::Generic,
            XdpArg::Off => Self::Off,
        }
    }
}

/// Runs the node until SIGTERM; its pods go on running.
pub fn run(args: Args) -> anyhow::Result<()> {
    telemetry::init(&quieted(&args.log_level))?;
    // Before anything is open: what pods and strangers open at the node's ports must not use it up.
    descriptors::raise_limit();
    privileges::close_memory().context("close the agent's memory")?;
    privileges::private_files();
    privileges::keep(privileges::OF_AGENT).context("give up what an agent does not need")?;
    // Fails only when another part of the process chose one before: it is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread does: an agent waits for the engine and the kernel, it does not compute.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(args));
    runtime.shutdown_timeout(STOP_PATIENCE);
    outcome
}

/// The client logs every request that fails although whoever sent it does, too: a server that is away
/// would fill the log.
fn quieted(level: &str) -> String {
    match level {
        "debug" | "trace" => format!("{},kube_client=off", telemetry::of_our_crates(level)),
        level if level.contains(['=', ',']) => level.to_owned(),
        level => format!("{level},kube_client=off"),
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("an agent makes containers, links and eBPF maps: run it as root");
    }
    let node_name = match args.node_name.clone() {
        Some(name) => name,
        None => host_name()?,
    };
    if args.reset {
        let config = ResetConfig {
            node_name,
            docker_host: args.docker_host,
            data_dir: args.data_dir,
        };
        let removed = reset::run(&config).await?;
        println!(
            "removed {} containers, {} links and the files of {} pods",
            removed.containers, removed.links, removed.pods
        );
        return Ok(());
    }
    if !Path::new(BTF).exists() {
        bail!(
            "this kernel has no type information ({BTF}): the datapath needs a kernel with \
             CONFIG_DEBUG_INFO_BTF=y, as every current distribution ships"
        );
    }
    let config = agent_config(args, node_name)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    agent::run(config, shutdown).await?;
    Ok(())
}

fn agent_config(args: Args, node_name: String) -> anyhow::Result<AgentConfig> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("read the token from {}", path.display()))?;
            Some(text.trim().to_owned())
        }
        (None, None) => None,
    };
    let thresholds = pressure::thresholds(
        &args.eviction_hard,
        &args.eviction_soft,
        &args.eviction_soft_grace_period,
        &args.eviction_minimum_reclaim,
    );
    let eviction = pressure::Policy {
        thresholds: thresholds
            .map_err(anyhow::Error::msg)
            .context("--eviction-…")?,
        transition: args.eviction_pressure_transition_period.try_into()?,
    };
    let mut reserved = Reserved {
        amounts: args.system_reserved,
        max_pods: args.max_pods,
    };
    api::amounts::add(&mut reserved.amounts, &args.kube_reserved);
    Ok(AgentConfig {
        servers: args.server,
        token,
        node_name,
        node_ips: node_ips(&args.node_ip)?,
        underlay: *args.node_ip.first().context("--node-ip is missing")?,
        data_dir: args.data_dir,
        docker_host: args.docker_host,
        pids_limit: args.pids_limit,
        logs_dir: args.pod_logs_dir,
        kubelet_dir: args.kubelet_dir,
        unsafe_sysctls: args.allowed_unsafe_sysctls,
        image_gc: Thresholds {
            high: args.image_gc_high_threshold,
            low: args.image_gc_low_threshold,
        },
        program_stats: args.program_stats,
        dsr: args.dsr,
        xdp: args.xdp.into(),
        reserved,
        farewell: Farewell {
            grace: args.shutdown_grace_period,
            critical_grace: args.shutdown_grace_period_critical_pods,
        },
        manifests: args.pod_manifest_path,
        eviction,
        registration: Registration {
            labels: args.node_labels.into_iter().collect(),
            taints: args.register_with_taints,
        },
    })
}

/// One address, or one of each family.
fn node_ips(given: &[IpAddr]) -> anyhow::Result<Addrs> {
    let ips: Addrs = given.iter().copied().collect();
    if let Some(second) = given.iter().find(|ip| !ips.contains(**ip)) {
        bail!("--node-ip has two addresses of one family: leave out {second}, or the other one");
    }
    Ok(ips)
}

/// `KEY=VALUE`; the server says whether they are good.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
fn taint(text: &str) -> Result<Taint, String> {
    let (key, effect) = text
        .rsplit_once(':')
        .ok_or("a taint is KEY=VALUE:EFFECT or KEY:EFFECT")?;
    let (key, value) = match key.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (key, None),
    };
    Ok(Taint {
        key: key.to_owned(),
        value,
        effect: effect.to_owned(),
        time_added: None,
    })
}

fn host_name() -> anyhow::Result<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the host name")?;
    Ok(name.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_is_written_as_for_a_kubelet() {
        let all = taint("gpu=yes:NoSchedule").expect("a taint");
        assert_eq!(
            (all.key.as_str(), all.value.as_deref()),
            ("gpu", Some("yes"))
        );
        let short = taint("dedicated:NoExecute").expect("a taint");
        assert_eq!((short.value, short.effect.as_str()), (None, "NoExecute"));
        assert!(taint("gpu").is_err() && label("disk").is_err());
    }
}
