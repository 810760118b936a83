//! `cargo xtask bench start`: how long from exec to a running pod, what an idle node weighs, and
//! what a Service costs a connection. Medians of five rounds, each from nothing on the disk. Writes its page.

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
use tests::bench::engine_alone;
use tests::bench::pods::{self, OwnStarts};
use tests::bench::stage::{Process, Stage, client};
use tests::cluster::{Cluster, workspace};
use tests::scale::table::{self, Figure};

const ROUNDS: usize = 5;
const IDLE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 2000;
/// Names that are asked for right after the write of their Service.
const NAMES: usize = 50;
/// Where the table is kept, below the workspace.
const PAGE: &str = "tests/bench/start.md";
const HEAD: &str = "# From exec to a pod, and what an idle node weighs\n\n\
    Server, agent and Engine share the machine. A burst is 30 pods of one container each, 60 containers with their\n\
    sandboxes; as many `docker run` in series are half of them. The agent's own share of a start runs from when it\n\
    hears of the pod until the API has its status, without what the Engine took; its stages are means.\n";
/// The stages of that share, as metrics name them.
const STAGES: [(&str, &str); 5] = [
    ("plan", "of the own share: its turn, and the plan"),
    ("sandbox", "of the own share: the API, past the sandbox"),
    ("network", "of the own share: link and datapath"),
    ("files", "of the own share: volumes and `/etc`"),
    ("report", "of the own share: the status"),
];

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
    let figures = figures(&rounds, &ratios, memory, &waits);
    let table = table::markdown(&["median".to_owned()], std::slice::from_ref(&figures));
    println!("{table}");
    write(&rounds, &ratios, memory, &waits)?;
    let of_day = std::env::args().find_map(|it| it.strip_prefix("--stamp=").map(str::to_owned));
    let of_day = of_day.unwrap_or_default();
    let page = format!("{HEAD}\n`cargo xtask bench start`, {of_day}\n\n{table}");
    fs::write(workspace().join(PAGE), page).context(PAGE)?;
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

/// Milliseconds: bursts of pods, the same containers by the Engine alone, the agent's own share of a start, as many
/// `docker run`, and names after the write of their Service.
struct Waits {
    bursts: Vec<f64>,
    alone: Vec<f64>,
    own: OwnStarts,
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
    let (mut bursts, mut alone, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bursts.push(pods::burst(&client).await?);
        alone.push(engine_alone::run(cluster, pods::BURST, pods::BURST).await?);
        runs.push(pods::docker_runs(cluster)?);
    }
    let node = stage.agent["name"].as_str().unwrap_or_default();
    let own = OwnStarts::of(&client, node).await?;
    let names = pods::name_after_write(&client, cluster, ("web", "nginx"), NAMES).await?;
    Ok(Waits {
        bursts,
        alone,
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

fn figures(
    rounds: &[Times],
    connects: &[Connects],
    memory: [[u64; 2]; 2],
    waits: &Waits,
) -> Vec<Figure> {
    let of = |pick: fn(&Times) -> f64| median(rounds.iter().map(pick).collect());
    let connect =
        |pick: fn(&Connects) -> f64| median(connects.iter().map(pick).collect::<Vec<f64>>());
    let mib = |kib: u64| kib as f64 / 1024.0;
    let [server, agent] = memory.map(|[pss, _]| mib(pss));
    let worst = waits.names.iter().copied().fold(0.0, f64::max);
    let own = &waits.own;
    let mut figures = vec![
        Figure::of("exec to /readyz", "ms", of(|it| it.ready)).at_most(100.0),
        Figure::of("exec to node Ready", "ms", of(|it| it.node_ready)).at_most(500.0),
        Figure::of("exec to first pod Running", "ms", of(|it| it.pod_running)).at_most(1500.0),
        Figure::of("idle memory of the server (PSS)", "MiB", server),
        Figure::of("idle memory of the agent (PSS)", "MiB", agent),
        Figure::of("idle memory of both", "MiB", server + agent).at_most(60.0),
        Figure::of("connect to the Service", "µs", connect(|it| it.service)),
        Figure::of("connect to the pod", "µs", connect(|it| it.pod)),
        Figure::of("ratio of the two", "×", connect(|it| it.service / it.pod)).at_most(1.02),
        Figure::of(
            "a burst until all 30 pods are Ready",
            "ms",
            median(waits.bursts.clone()),
        )
        .at_most(4000.0),
        Figure::of(
            "the same containers by the Engine alone, at once",
            "ms",
            median(waits.alone.clone()),
        ),
        Figure::of(
            "as many `docker run` in series",
            "ms",
            median(waits.runs.clone()),
        ),
        Figure::of("own share of a start, p99 at most", "ms", own.p99()).at_most(20.0),
    ];
    let stages = STAGES.map(|(stage, name)| Figure::of(name, "ms", own.mean(stage)));
    figures.extend(stages);
    let names = median(waits.names.clone());
    figures.extend([
        Figure::of("a name after its Service's write", "ms", names).at_most(10.0),
        Figure::of("the worst of them", "ms", worst),
    ]);
    figures
}

/// What was measured, for machines.
fn write(
    rounds: &[Times],
    connects: &[Connects],
    memory: [[u64; 2]; 2],
    waits: &Waits,
) -> Result<()> {
    let [server, agent] = memory;
    let result = json!({
        "burst_ms": waits.bursts, "engine_alone_ms": waits.alone, "own_start_ms": waits.own.buckets,
        "own_start_stages_ms": waits.own.stages,
        "docker_runs_ms": waits.runs, "name_after_write_ms": waits.names,
        "rounds": rounds.iter().map(|t| json!({
            "ready_ms": t.ready, "node_ready_ms": t.node_ready, "pod_running_ms": t.pod_running,
        })).collect::<Vec<_>>(),
        "connects": connects.iter().map(|c| json!({
            "service_us": c.service, "pod_us": c.pod,
        })).collect::<Vec<_>>(),
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
