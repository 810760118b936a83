//! `cargo xtask bench start`: how long from exec to a running pod, what an idle node weighs, and
//! what a Service costs a connection. Medians of five rounds, each from nothing on the disk.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::PostParams,
    runtime::{conditions::is_pod_running, wait::await_condition},
};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use tests::bench::pods;
use tests::bench::stage::{Process, Stage, client};
use tests::cluster::{Cluster, workspace};

const ROUNDS: usize = 5;
const IDLE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 2000;
/// Names that are asked for right after the write of their Service.
const NAMES: usize = 50;

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench makes namespaces: run it as root"
    );
    // Makes everything around the processes; their lives are this program's business then.
    let cluster = Cluster::up_with("bench", 1, &["--release"])?;
    let stage = Stage::new(&cluster)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rounds = Vec::new();
    let mut last = None;
    for _ in 0..ROUNDS {
        drop(last.take());
        stage.clear()?;
        let (times, running) = runtime.block_on(start(&stage))?;
        rounds.push(times);
        last = Some(running);
    }
    let running = last.context("no round ran")?;
    let ratios = connections(&stage, running.pod, running.service)?;
    let waits = runtime.block_on(waits(&stage, &cluster))?;
    println!("waiting {} s for idle memory", IDLE.as_secs());
    std::thread::sleep(IDLE);
    let memory = [running.server.memory()?, running.agent.memory()?];
    drop(running);
    stage.clear()?;
    report(&rounds, &ratios, memory, &waits)?;
    cluster.down()
}

/// Milliseconds since the server's exec.
struct Times {
    ready: f64,
    node_ready: f64,
    pod_running: f64,
}

/// Microseconds of a connect, the median of one round.
struct Connects {
    service: f64,
    pod: f64,
}

/// Milliseconds: bursts of pods, the agent's own share of a start, as many `docker run`, and names after the write
/// of their Service.
struct Waits {
    bursts: Vec<f64>,
    own: Vec<(f64, u64)>,
    runs: Vec<f64>,
    names: Vec<f64>,
}

/// The agent ends first.
struct Running {
    agent: Process,
    server: Process,
    pod: Ipv4Addr,
    service: Ipv4Addr,
}

async fn start(stage: &Stage) -> Result<(Times, Running)> {
    let started = Instant::now();
    let since = || started.elapsed().as_secs_f64() * 1e3;
    let server = stage.start(&stage.server)?;
    let token = stage.dir.join("server/node-token");
    while !token.exists() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let agent = stage.start(&stage.agent)?;
    let mut running = Running {
        server,
        agent,
        pod: Ipv4Addr::UNSPECIFIED,
        service: Ipv4Addr::UNSPECIFIED,
    };
    let client = client(&stage.dir.join("server/admin.kubeconfig")).await?;
    let readyz = || http::Request::get("/readyz").body(Vec::new());
    while client.request_text(readyz()?).await.is_err() {
        ensure!(since() < 30e3, "the server does not become ready");
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let ready = since();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &pod()?).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = stage.agent["name"].as_str().unwrap_or_default();
    let node_ready = async {
        await_condition(nodes, node, |node: Option<&Node>| {
            node.is_some_and(is_ready)
        })
        .await?;
        anyhow::Ok(since())
    };
    let pod_running = async {
        let condition = await_condition(pods.clone(), "web", is_pod_running());
        let pod = condition.await?.context("the pod is gone")?;
        anyhow::Ok((since(), pod))
    };
    let (node_ready, (pod_running, pod)) = tokio::try_join!(node_ready, pod_running)?;
    let address = pod
        .status
        .and_then(|status| status.pod_ip)
        .context("a pod without IP")?;
    running.pod = address.parse()?;
    running.service = service(&client).await?;
    Ok((
        Times {
            ready,
            node_ready,
            pod_running,
        },
        running,
    ))
}

/// Bursts and the Engine's own runs in turn, then names.
async fn waits(stage: &Stage, cluster: &Cluster) -> Result<Waits> {
    let client = client(&stage.dir.join("server/admin.kubeconfig")).await?;
    let (mut bursts, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bursts.push(pods::burst(&client).await?);
        runs.push(pods::docker_runs(cluster)?);
    }
    let node = stage.agent["name"].as_str().unwrap_or_default();
    let own = pods::own_starts(&client, node).await?;
    let names = pods::name_after_write(&client, cluster, ("web", "nginx"), NAMES).await?;
    Ok(Waits {
        bursts,
        own,
        runs,
        names,
    })
}

/// Connections of the node to the Service and to its only pod, by turns.
fn connections(stage: &Stage, pod: Ipv4Addr, service: Ipv4Addr) -> Result<Vec<Connects>> {
    let namespace = fs::File::open(stage.namespace()?)?;
    let measure = move || -> Result<Vec<Connects>> {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        tests::cluster::wait("the Service answers", || Ok(connect(service).ok()));
        (0..ROUNDS)
            .map(|_| measure_connects(pod, service))
            .collect()
    };
    match std::thread::spawn(measure).join() {
        Ok(result) => result,
        Err(_) => bail!("the measuring thread panicked"),
    }
}

fn pod() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "nginx", "image": "nginx" }] },
    }))?)
}

async fn service(client: &Client) -> Result<Ipv4Addr> {
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::default_namespaced(client.clone());
    let service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
    }))?;
    let made = services.create(&PostParams::default(), &service).await?;
    let name = made.name_any();
    let address = made.spec.and_then(|spec| spec.cluster_ip);
    Ok(address
        .with_context(|| format!("{name} has no address"))?
        .parse()?)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn measure_connects(pod: Ipv4Addr, service: Ipv4Addr) -> Result<Connects> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..CONNECTIONS {
        for (times, to) in times.iter_mut().zip([service, pod]) {
            times.push(connect(to)?);
        }
    }
    let [service, pod] = times.map(median);
    Ok(Connects { service, pod })
}

/// Microseconds; the connection ends with a reset, so that no port stays taken.
fn connect(to: Ipv4Addr) -> Result<f64> {
    let started = Instant::now();
    let stream = TcpStream::connect_timeout(&SocketAddr::from((to, 80)), Duration::from_secs(2))?;
    let time = started.elapsed().as_secs_f64() * 1e6;
    setsockopt(
        &stream,
        sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )?;
    Ok(time)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(
    rounds: &[Times],
    connects: &[Connects],
    memory: [[u64; 2]; 2],
    waits: &Waits,
) -> Result<()> {
    let of = |pick: fn(&Times) -> f64| median(rounds.iter().map(pick).collect());
    let (ready, node, pod) = (of(|t| t.ready), of(|t| t.node_ready), of(|t| t.pod_running));
    let service = median(connects.iter().map(|c| c.service).collect());
    let direct = median(connects.iter().map(|c| c.pod).collect());
    let ratio = median(connects.iter().map(|c| c.service / c.pod).collect());
    let mib = |kib: u64| kib as f64 / 1024.0;
    let [server, agent] = memory;
    println!("medians of {ROUNDS} rounds                        measured      aim");
    println!("exec to /readyz                       {ready:>10.0} ms   100 ms");
    println!("exec to node Ready                    {node:>10.0} ms   500 ms");
    println!("exec to first pod Running             {pod:>10.0} ms  1500 ms");
    for (name, [pss, rss]) in [("server", server), ("agent", agent)] {
        let (pss, rss) = (mib(pss), mib(rss));
        println!("idle memory of the {name:<6} (PSS, RSS)   {pss:>6.1} MiB  {rss:>6.1} MiB");
    }
    println!(
        "idle memory of both (PSS)             {:>9.1} MiB   60 MiB",
        mib(server[0] + agent[0])
    );
    println!("connect to the Service                {service:>10.1} us");
    println!("connect to the pod                    {direct:>10.1} us");
    println!("ratio of the two                      {ratio:>10.3}      1.02");
    let (burst, runs) = (median(waits.bursts.clone()), median(waits.runs.clone()));
    println!(
        "a burst of {} pods until all are Ready {burst:>9.0} ms  4000 ms",
        pods::BURST
    );
    let (own, all) = (pods::p99(&waits.own), waits.own.last().map_or(0, |it| it.1));
    println!("own share of a start, p99 of {all:<4}  at most {own:>5.0} ms    20 ms");
    println!("as many docker runs, in series        {runs:>10.0} ms");
    let names = median(waits.names.clone());
    let worst = waits.names.iter().copied().fold(0.0, f64::max);
    println!(
        "a name after its Service's write      {names:>10.2} ms    10 ms (at most {worst:.2})"
    );
    let result = json!({
        "burst_ms": waits.bursts, "own_start_ms": waits.own, "docker_runs_ms": waits.runs, "name_after_write_ms": waits.names,
        "rounds": rounds.iter().map(|t| json!({
            "ready_ms": t.ready, "node_ready_ms": t.node_ready, "pod_running_ms": t.pod_running,
        })).collect::<Vec<_>>(),
        "connects": connects.iter().map(|c| json!({
            "service_us": c.service, "pod_us": c.pod,
        })).collect::<Vec<_>>(),
        "median": {
            "ready_ms": ready, "node_ready_ms": node, "pod_running_ms": pod,
            "service_us": service, "pod_us": direct, "ratio": ratio,
        },
        "idle_kib": {
            "server": { "pss": server[0], "rss": server[1] },
            "agent": { "pss": agent[0], "rss": agent[1] },
        },
    });
    let dir = workspace().join("target/bench");
    fs::create_dir_all(&dir)?;
    let mut file = fs::File::create(dir.join("start.json"))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&result)?)?;
    Ok(())
}
