//! The log as `orchestrator datapath log` reads it: by the agent's socket, until the reader goes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::metrics::Metrics;
use agent::network::feed::{self, Told};
use agent::network::log;
use anyhow::{Context, Result, ensure};
use datapath::log::Filter;
use datapath::view::Protocol::Tcp;
use datapath::{NodeConfig, attach, syscall};
use sys::{Shutdown, Tasks};
use tests::netns::{Cluster, Node, Plan, ready};
use tests::peer::{Client, Server, refused_tcp};
use tokio::sync::watch;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const EMPTY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);
/// Longer than programs take to load on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The task that owns the node's datapath, and the one that answers for its log.
struct Agent {
    shutdown: Shutdown,
    socket: PathBuf,
    config: NodeConfig,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Agent {
    fn start(node: &mut Node, dir: &Path) -> Self {
        let (shutdown, socket) = (Shutdown::new(), dir.join("log"));
        let (datapath, config) = (node.hand_over(), node.config.clone());
        let source = (config.node_name.clone(), config.pin_root.clone());
        let (stop, at) = (shutdown.clone(), socket.clone());
        let tasks = Tasks::new(shutdown.clone());
        let thread = node.netns.spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build()?.block_on(async {
                let told = Told {
                    applied: watch::Sender::new(0),
                    in_sync: watch::Sender::new(false),
                    metrics: Arc::new(Metrics::default()),
                };
                let source = log::Source {
                    node: source.0,
                    pin_root: source.1,
                    datapath: feed::own(datapath, told, &tasks),
                };
                log::run(source, at, stop).await;
                tasks.finish(PATIENCE).await;
            });
            Ok(())
        });
        Self {
            shutdown,
            socket,
            config,
            thread: Some(thread),
        }
    }

    /// The program behind each link.
    fn programs(&self) -> Result<BTreeMap<String, u32>> {
        let node = self.config.pin_root.join(&self.config.node_name);
        let links = node.join("links");
        let program = |name: String| {
            let link = syscall::pinned(&links.join(&name))?;
            let id = syscall::link_info(link.as_fd())?.program_id;
            Ok((name, id))
        };
        attach::names(&links)?.into_iter().map(program).collect()
    }

    /// Whether these programs are at work. A pod's link may have come meanwhile, with the program that the
    /// others of its kind have.
    fn has(&self, wanted: &BTreeMap<String, u32>) -> Result<bool> {
        const POD: &str = "from_container-orchpod";
        const NODE: &str = "from_container-orch-net";
        let now = self.programs()?;
        let is_right = |(link, program): (&String, &u32)| {
            let kind = if link.starts_with(POD) { NODE } else { link };
            wanted.get(kind) == Some(program)
        };
        Ok(now.iter().all(is_right))
    }

    /// Waits until these programs are at work.
    fn comes_to(&self, wanted: &BTreeMap<String, u32>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.has(wanted)? {
            ensure!(Instant::now() < deadline, "the programs stay");
            std::thread::yield_now();
        }
        Ok(())
    }

    /// A reader's stream behind its question.
    fn ask(&self, filter: &Filter) -> Result<BufReader<UnixStream>> {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::yield_now(),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{}\n", serde_json::to_string(filter)?).as_bytes())?;
        Ok(BufReader::new(stream))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The next line of an answer.
fn line(reader: &mut BufReader<UnixStream>) -> Result<String> {
    let mut line = String::new();
    ensure!(reader.read_line(&mut line)? > 0, "the agent has ended");
    Ok(line.trim_end().to_owned())
}

/// A node with a client's pod, a server's and another one, two Services, and its agent.
fn logged(dir: &Path) -> Result<(Cluster, Agent, Server)> {
    let mut cluster = Plan::nodes(1).start()?;
    for number in [5, 6, 7] {
        cluster.nodes[0].add_pod(number)?;
    }
    cluster.in_sync()?;
    let server = cluster.nodes[0].pods[1].addr;
    cluster.service(SERVICE, 80, Tcp, &[(server, 8080)])?;
    cluster.service(EMPTY, 80, Tcp, &[])?;
    let running = Server::tcp(&cluster.nodes[0].pods[1].netns, "pod", 8080)?;
    let agent = Agent::start(&mut cluster.nodes[0], dir);
    Ok((cluster, agent, running))
}

#[test]
fn a_reader_hears_of_connections_until_it_goes_and_then_the_normal_programs_are_back() -> Result<()>
{
    if !ready("the log of connections") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (cluster, agent, _server) = logged(dir.path())?;
    let [client, _, other] = &cluster.nodes[0].pods[..] else {
        anyhow::bail!("three pods");
    };
    let normal = agent.programs()?;
    let mut before = Client::connect(&client.netns, (SERVICE, 80))?;
    let filter = Filter {
        pod: vec![client.addr.into()],
        to: None,
        packets: false,
    };
    for _ in 0..2 {
        let mut reader = agent.ask(&filter)?;
        assert_eq!(line(&mut reader)?, log::LOGGING);
        let logging = agent.programs()?;
        let stay = normal.iter().filter(|(link, id)| logging[*link] == **id);
        assert_eq!(stay.count(), 0);
        // Another pod's connections are its own affair.
        Client::connect(&other.netns, (SERVICE, 80))?;
        Client::connect(&client.netns, (SERVICE, 80))?;
        refused_tcp(&client.netns, (EMPTY, 80))?;
        let said = [line(&mut reader)?, line(&mut reader)?];
        let connected = "tcp 10.100.1.5:0 -> 10.96.0.10:80 connect: Service ";
        assert!(said[0].contains(connected), "{said:?}");
        assert!(said[0].ends_with(", 10.100.1.6:8080"), "{said:?}");
        let refused = "tcp 10.100.1.5:0 -> 10.96.0.11:80 connect: dropped or refused, no_backend";
        assert!(said[1].contains(refused), "{said:?}");
        assert_eq!(before.ask("during")?, "pod during");
        // As a killed command's: the kernel closes it.
        drop(reader);
        agent.comes_to(&normal)?;
        assert_eq!(before.ask("after")?, "pod after");
    }
    Ok(())
}

#[test]
fn there_is_one_reader_at_a_time_and_an_agent_that_stops_takes_its_log_along() -> Result<()> {
    if !ready("one reader") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (cluster, mut agent, _server) = logged(dir.path())?;
    let normal = agent.programs()?;
    let mut reader = agent.ask(&Filter::default())?;
    assert_eq!(line(&mut reader)?, log::LOGGING);
    let second = line(&mut agent.ask(&Filter::default())?)?;
    assert!(second.starts_with(log::REFUSED), "{second}");
    assert!(!agent.has(&normal)?);
    agent.shutdown.trigger();
    let thread = agent.thread.take().context("it runs")?;
    thread.join().expect("it panics at nothing")?;
    assert!(
        agent.has(&normal)?,
        "{:?}, not {normal:?}",
        agent.programs()?
    );
    assert!(!agent.socket.exists());
    drop(cluster);
    Ok(())
}
