//! `orchestrator datapath`: look at what a node's agent put into the kernel, and take it out again.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use orchestrator_common::{DropEvent, Proto};

use super::workload::cluster::ClusterArgs;
use agent::network::{drops, log};
use datapath::events::{self, describe};
use datapath::log::Filter;
use datapath::trace::{self, Question};

/// Look at a node's datapath, or remove it
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Where agents pin their maps and links
    #[arg(
        long,
        global = true,
        default_value = "/sys/fs/bpf/orchestrator",
        value_name = "DIR"
    )]
    pin_root: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Print the maps, one line a row; needs root but no running agent
    #[command(after_help = "Examples:\n  \
        orchestrator datapath dump                 the only node's\n  \
        orchestrator datapath dump --node node-1   one of several")]
    Dump {
        /// The node; not needed where there is only one
        #[arg(long)]
        node: Option<String>,
    },
    /// Print how many packets met what: verdicts, then reasons of drops and refusals,
    /// how many of all these XDP finished, and how many records of drops found no room
    Counters {
        /// The node; not needed where there is only one
        #[arg(long)]
        node: Option<String>,
    },
    /// Print the newest dropped and refused packets, with time and reason
    ///
    /// The node's agent keeps them; where none runs, those are printed that the kernel's buffer still
    /// holds. Records that found no room there are counted (`counters`: lost_records).
    #[command(after_help = "Examples:\n  \
        orchestrator datapath drops --node node-1\n  \
        orchestrator datapath drops -f             go on until interrupted")]
    Drops {
        /// Go on with drops as they happen, until interrupted
        #[arg(long, short)]
        follow: bool,
        /// The node; not needed where there is only one
        #[arg(long)]
        node: Option<String>,
    },
    /// Print what the programs decide, as they decide it: which backend a connection or a flow is given,
    /// what is dropped or refused and why
    ///
    /// The node's agent puts programs with a log in the place of the normal ones, without losing a packet,
    /// and takes them out again when this command ends. Meanwhile every packet costs more. One reader at a
    /// time. Records that find no room are lost, packets are not.
    #[command(after_help = "Examples:\n  \
        orchestrator datapath log -f                            whatever happens on the only node\n  \
        orchestrator datapath log -f --pod shop/web-0           what one pod sends and is sent\n  \
        orchestrator datapath log -f --to 10.96.0.10:80 --packets   and where each packet goes")]
    Log {
        /// Until interrupted; the log has no past
        #[arg(long, short, required = true)]
        follow: bool,
        /// Only what this pod sends or is sent: NAME or NAMESPACE/NAME, or an address
        #[arg(long, value_name = "POD")]
        pod: Option<String>,
        /// Only what goes there, before or after a Service's translation, and its answers
        #[arg(long, value_name = "ADDR:PORT")]
        to: Option<SocketAddr>,
        /// Where each packet goes as well, and not only what is decided once a connection or flow
        #[arg(long)]
        packets: bool,
        /// The node; not needed where there is only one, nor with a pod
        #[arg(long)]
        node: Option<String>,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Follow the first packet of a pod through the node's live programs and name the rows that decide
    ///
    /// The programs run over the packet without sending it (BPF_PROG_TEST_RUN), with the node's own maps.
    #[command(after_help = "Examples:\n  \
        orchestrator datapath trace --from web-6f7d9-abcde --to 10.96.0.10:80/tcp\n  \
        orchestrator datapath trace --from 10.100.1.5 --to [fd00:10:96::a]:53/udp")]
    Trace {
        /// The pod, NAME or NAMESPACE/NAME, or an address of an endpoint of this node
        #[arg(long, value_name = "POD")]
        from: String,
        /// Where to: ADDRESS:PORT/PROTOCOL, tcp if no protocol is given
        #[arg(long, value_name = "ADDR:PORT/PROTO", value_parser = destination)]
        to: (SocketAddr, Proto),
        /// The packet's own port
        #[arg(long, default_value_t = 40_000, value_name = "PORT")]
        source_port: u16,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Detach the programs and delete maps and links of a node whose agent does not run
    ///
    /// The links orch-host, orch-vxlan and orch-cut are deleted in the network namespace of the caller.
    #[command(after_help = "Example:\n  \
        nsenter --net=/run/netns/node-1 orchestrator datapath remove --node node-1")]
    Remove {
        /// The node
        #[arg(long)]
        node: String,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Dump { node } => {
            let node = choose(&args.pin_root, node)?;
            print!("{}", datapath::dump_pinned(&args.pin_root, &node)?);
            Ok(())
        }
        Command::Counters { node } => {
            let node = choose(&args.pin_root, node)?;
            for (name, packets) in datapath::counters_pinned(&args.pin_root, &node)? {
                println!("{name:<20} {packets}");
            }
            Ok(())
        }
        Command::Drops { node, follow } => {
            let node = choose(&args.pin_root, node)?;
            print_drops(&args.pin_root, &node, follow)
        }
        Command::Log {
            follow: _,
            pod,
            to,
            packets,
            node,
            cluster,
        } => {
            let pod = pod.map(|pod| addresses(&pod, &cluster)).transpose()?;
            let pod = pod.unwrap_or_default();
            let node = match (node, pod.first()) {
                (None, Some(addr)) => node_of(&args.pin_root, *addr)?,
                (asked, _) => choose(&args.pin_root, asked)?,
            };
            print_log(&node, &Filter { pod, to, packets })
        }
        Command::Trace {
            from,
            to: (to, proto),
            source_port,
            cluster,
        } => {
            let from = endpoint(&from, to.is_ipv4(), &cluster)?;
            let asked = Question {
                from,
                to,
                proto,
                source_port,
            };
            let node = node_of(&args.pin_root, from)?;
            println!("on {node}");
            for step in trace::trace(&args.pin_root, &node, asked)? {
                println!("{step}");
            }
            Ok(())
        }
        Command::Remove { node } => {
            let node = choose(&args.pin_root, Some(node))?;
            datapath::remove_pins(&args.pin_root, &node)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime
                .block_on(datapath::link::remove())
                .context("the pins are gone")
        }
    }
}

/// From the node's agent; where none runs, from the kernel's buffer.
fn print_drops(pin_root: &Path, node: &str, follow: bool) -> anyhow::Result<()> {
    let services = datapath::services_pinned(pin_root, node)?;
    let print = |event: &DropEvent| {
        let uptime = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let at = events::time(event, Timestamp::now(), uptime.unwrap_or_default());
        println!("{at:.3} {}", describe(event, services.asked(event)));
    };
    let socket = drops::socket(node);
    match UnixStream::connect(&socket) {
        Ok(mut agent) => {
            agent.write_all(&[if follow { drops::FOLLOW } else { drops::ONCE }])?;
            let (mut agent, mut record) = (BufReader::new(agent), [0; events::RECORD]);
            loop {
                match agent.read_exact(&mut record) {
                    Ok(()) => events::parse(&record).iter().for_each(print),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ensure!(!follow, "the agent of {node} has ended");
            Ok(())
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            let mut drops = datapath::drops_pinned(pin_root, node)?;
            loop {
                while let Some(event) = drops.next_event() {
                    print(&event);
                }
                if !follow {
                    return Ok(());
                }
                drops.wait(Duration::MAX)?;
            }
        }
        Err(error) => Err(error).with_context(|| format!("cannot ask by {}", socket.display())),
    }
}

/// Whatever the node's agent sends, until that or this ends.
fn print_log(node: &str, filter: &Filter) -> anyhow::Result<()> {
    let socket = log::socket(node);
    let mut agent = UnixStream::connect(&socket).with_context(|| {
        let at = socket.display();
        format!("the log needs the agent of {node}, which does not answer at {at}")
    })?;
    agent.write_all(format!("{}\n", serde_json::to_string(filter)?).as_bytes())?;
    for line in BufReader::new(agent).lines() {
        let line = line?;
        match line.strip_prefix(log::REFUSED) {
            Some(why) => bail!("{why}"),
            None if line == log::LOGGING => eprintln!("logging on {node}"),
            None => println!("{line}"),
        }
    }
    bail!("the agent of {node} has ended")
}

/// ADDRESS:PORT/PROTOCOL.
fn destination(text: &str) -> Result<(SocketAddr, Proto), String> {
    let (addr, proto) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let proto = match proto.to_ascii_lowercase().as_str() {
        "tcp" => Proto::TCP,
        "udp" => Proto::UDP,
        other => return Err(format!("{other} is no protocol to trace: tcp or udp")),
    };
    let addr = addr.parse().map_err(|_| {
        format!("{addr} is not ADDRESS:PORT, such as 10.96.0.10:80 or [fd00:10:96::a]:80")
    })?;
    Ok((addr, proto))
}

/// The address of the packet's sender, of the destination's family.
fn endpoint(from: &str, v4: bool, cluster: &ClusterArgs) -> anyhow::Result<IpAddr> {
    if let Ok(addr) = from.parse() {
        return Ok(addr);
    }
    let family = if v4 { "IPv4" } else { "IPv6" };
    addresses(from, cluster)?
        .into_iter()
        .find(|addr| addr.is_ipv4() == v4)
        .with_context(|| format!("the pod {from} has no {family} address (yet)"))
}

/// The addresses of a pod, NAME or NAMESPACE/NAME, or the one that is given.
fn addresses(of: &str, cluster: &ClusterArgs) -> anyhow::Result<Vec<IpAddr>> {
    if let Ok(addr) = of.parse() {
        return Ok(vec![addr]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pod = runtime.block_on(async {
        let cluster = cluster.connect().await?;
        let (namespace, name) = of.split_once('/').unwrap_or((&cluster.namespace, of));
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        cluster.get(&path).await
    })?;
    let listed = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let addrs: Vec<IpAddr> = listed
        .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
        .collect();
    ensure!(!addrs.is_empty(), "the pod {of} has no address (yet)");
    Ok(addrs)
}

/// The node that has a pod.
fn node_of(pin_root: &Path, addr: IpAddr) -> anyhow::Result<String> {
    trace::node_of(pin_root, addr)?.with_context(|| {
        format!("{addr} is no endpoint of a node here: run this on the pod's own node")
    })
}

/// The node asked for, or the only one.
fn choose(pin_root: &Path, asked: Option<String>) -> anyhow::Result<String> {
    let known = datapath::nodes(pin_root)?;
    match (asked, known.as_slice()) {
        (_, []) => bail!(
            "no node has a datapath below {}: is an agent running here, and are you root?",
            pin_root.display()
        ),
        (Some(node), _) if known.contains(&datapath::pin_name(&node)) => Ok(node),
        (Some(node), _) => bail!("no datapath of {node} here; there is {}", known.join(", ")),
        (None, [only]) => Ok(only.clone()),
        (None, several) => bail!("say which node with --node: {}", several.join(", ")),
    }
}
