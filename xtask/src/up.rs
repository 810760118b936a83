//! `cargo xtask up`: from a bare machine to a running cluster. A list of steps, each of which finds
//! that its work is done already when it is.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZero,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::{
    build_ebpf,
    cluster::{Cluster, DEFAULT, IpFamily, dev_dir, workspace},
    command,
    engine::{self, Engine},
    guard, images, kubectl, machine, packages,
    processes::{Process, wait_for},
    progress::{Progress, Step},
    servers, setup, underlay,
};

/// How the binary is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Built soon, and fast enough: the workspace's profile `up`.
    #[default]
    Up,
    /// What is shipped and measured.
    Release,
    /// Not optimised, with line numbers.
    Debug,
}

impl Profile {
    /// As cargo knows the profile, and the directory of what it builds.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Up => ("up", "up"),
            Self::Release => ("release", "release"),
            Self::Debug => ("dev", "debug"),
        }
    }
}

pub fn run(
    name: &str,
    (nodes, servers): (Option<u8>, Option<u8>),
    ip_family: Option<IpFamily>,
    profile: Profile,
) -> Result<()> {
    let progress = Progress::new();
    let mut cluster = choose(name, (nodes, servers), ip_family)?;
    progress.step("machine", |step| {
        machine::check()?;
        packages::ensure(packages::FOR_UP)?;
        underlay::check_free(&cluster)?;
        step.note(format!("Linux {}, root", kernel_release()));
        Ok(())
    })?;
    let (binary, engine) = build(&progress, profile)?;
    progress.step("underlay", |step| {
        cluster.docker_host.clone_from(&engine.host);
        cluster.mounted_bpffs |= machine::mount_bpffs()?;
        cluster.save()?;
        underlay::create(&cluster)?;
        step.note(format!(
            "{}, namespaces {}",
            list(&cluster.gateways()),
            span(&cluster)
        ));
        Ok(())
    })?;
    progress.step("server and agents", |step| {
        step.note(start(&cluster, &binary, &engine)?);
        if cluster.has_servers() {
            servers::join_all(&cluster, &binary)?;
        }
        Ok(())
    })?;
    progress.step("nodes Ready", |step| {
        wait_ready(&cluster, &binary)?;
        step.note(span(&cluster));
        Ok(())
    })?;
    progress.step("client", |step| {
        step.note(kubectl::ensure()?);
        if cluster.has_servers() {
            servers::add_contexts(&cluster)?;
        }
        write_env(&cluster, &engine)
    })?;
    announce(&cluster, &progress);
    Ok(())
}

/// Builds datapath and binary, and puts the binary where a later build does not disturb it; finds the
/// Engine and makes the images meanwhile.
///
/// ```text
/// eBPF toolchain ──▶ datapath object ──▶ last crates ──▶ binary
/// all crates that do not need the object ────▲
///               └──▶ container engine ──▶ images
/// ```
fn build(progress: &Progress, profile: Profile) -> Result<(PathBuf, Engine)> {
    let ahead = (!build_ebpf::object().exists())
        .then(|| Ahead::start(profile))
        .transpose()?;
    let toolchain = progress.step("eBPF toolchain", |step| {
        let toolchain = setup::ensure()?;
        step.note(toolchain.to_string());
        Ok(toolchain)
    })?;
    thread::scope(|scope| {
        // After the toolchain: two apt-get at once do not go.
        let images = scope.spawn(|| {
            let engine = engine::ensure()?;
            let made = images::ensure(&engine)?;
            anyhow::Ok((engine, made))
        });
        progress.step("datapath object", |step| {
            let object = match &ahead {
                Some(ahead) => build_ebpf::build_as_of(&toolchain, ahead.began)?,
                None => build_ebpf::build(&toolchain)?,
            };
            step.note(relative(&object));
            Ok(())
        })?;
        let binary = progress.step("orchestrator binary", |step| {
            if let Some(ahead) = ahead {
                ahead.finish(step)?;
            }
            let binary = build_binary(profile, |build| step.run(build).map(drop))?;
            step.note(relative(&binary));
            Ok(binary)
        })?;
        let engine = progress.step("engine and images", |step| {
            let joined = images.join();
            let (engine, made) = joined.map_err(|_| anyhow!("a panic"))??;
            step.note(describe(&engine, &made));
            Ok(engine)
        })?;
        Ok((binary, engine))
    })
}

fn describe(engine: &Engine, made: &[&str]) -> String {
    let whose = if engine.is_ours() {
        "own instance"
    } else {
        "found"
    };
    let made = match made {
        [] => "images present".to_owned(),
        made => format!("made {}", made.join(", ")),
    };
    format!("Docker {} ({whose}), {made}", engine.version)
}

/// A build in the background that waits for the object where it needs it. Its guard ends it when this is
/// dropped.
struct Ahead {
    child: Child,
    began: SystemTime,
}

impl Ahead {
    fn start(profile: Profile) -> Result<Self> {
        let began = SystemTime::now();
        let mut build = cargo_build(profile);
        // One job waits.
        let jobs = thread::available_parallelism().map_or(1, NonZero::get) + 1;
        build.args(["--jobs", &jobs.to_string()]);
        build.env("ORCHESTRATOR_BPF_AWAIT", "1");
        build.env("CARGO_TERM_COLOR", "never");
        let child = guard::spawn_talking(&build)?;
        Ok(Self { child, began })
    }

    /// Shows what it compiles until it ends. If it fails, the build after it says why.
    fn finish(mut self, step: &Step) -> Result<()> {
        if let Some(says) = self.child.stderr.take() {
            step.follow(says);
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // The guard's standard input: its end ends the build.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn cargo_build(profile: Profile) -> Command {
    let mut build = command::cargo();
    build.args(["build", "--package", "orchestrator"]);
    build.args(["--bin", "orchestrator", "--profile", profile.names().0]);
    build
}

/// Builds the binary and copies it to `.dev/bin`; `run` runs cargo.
pub fn build_binary(
    profile: Profile,
    run: impl FnOnce(&mut Command) -> Result<()>,
) -> Result<PathBuf> {
    run(&mut cargo_build(profile))?;
    let built = build_ebpf::target()
        .join(profile.names().1)
        .join("orchestrator");
    install(&built, &dev_dir().join("bin/orchestrator"))
}

/// Copies beside and renames: the file of a running program cannot be written.
fn install(built: &Path, installed: &Path) -> Result<PathBuf> {
    let same = |a: fs::Metadata, b: fs::Metadata| {
        a.len() == b.len() && a.modified().ok() <= b.modified().ok()
    };
    let found = fs::metadata(built)
        .with_context(|| format!("the build did not leave {}", built.display()))?;
    if !fs::metadata(installed).is_ok_and(|have| same(found, have)) {
        fs::create_dir_all(installed.parent().unwrap_or(Path::new("/")))?;
        let beside = installed.with_extension("new");
        fs::copy(built, &beside)?;
        fs::rename(&beside, installed)?;
    }
    Ok(installed.to_owned())
}

/// The cluster that is up already, or a new one.
fn choose(
    name: &str,
    (nodes, servers): (Option<u8>, Option<u8>),
    ip_family: Option<IpFamily>,
) -> Result<Cluster> {
    if let Some(mut cluster) = Cluster::load(name)? {
        let nodes = nodes.unwrap_or(cluster.nodes);
        if nodes < cluster.nodes {
            bail!(
                "the cluster has {} nodes and `up` removes none: `cargo xtask down{}` first",
                cluster.nodes,
                option(&cluster)
            );
        }
        if servers.is_some_and(|servers| servers != cluster.servers) {
            bail!(
                "the cluster has another number of servers, and that stays: `cargo xtask down{}` first",
                option(&cluster)
            );
        }
        if ip_family.is_some_and(|family| family != cluster.ip_family) {
            bail!(
                "the cluster is there with other IP families, and they stay as they are: \
                 `cargo xtask down{}` first",
                option(&cluster)
            );
        }
        cluster.nodes = nodes;
        return Ok(cluster);
    }
    let index = if name == DEFAULT {
        0
    } else {
        underlay::free_index(&Cluster::all().iter().map(|c| c.index).collect())?
    };
    let ip_family = ip_family.unwrap_or_else(IpFamily::of_machine);
    let cluster = Cluster::new(name, index, nodes.unwrap_or(3), ip_family)?;
    cluster.with_servers(servers.unwrap_or(1))
}

/// Starts the supervisor, unless one with the same processes and the same binary runs.
fn start(cluster: &Cluster, binary: &Path, engine: &Engine) -> Result<String> {
    let file = cluster.dir().join("dev.json");
    let spec = serde_json::to_string_pretty(&spec(cluster, binary, engine)?)?;
    let pid_file = cluster.run_dir().join("dev.pid");
    if let Some(dev) = Process::from_pid_file(&pid_file, "orchestrator") {
        let same = fs::read_to_string(&file).is_ok_and(|old| old == spec);
        if same && runs_file(dev, binary) {
            return Ok(format!("running (supervisor is process {})", dev.pid()));
        }
        dev.stop(Duration::from_secs(60))?;
    }
    let server = cluster.run_dir().join("server.pid");
    if !cluster.has_servers() && Process::from_pid_file(&server, "orchestrator").is_none() {
        machine::check_port(cluster)?;
    }
    fs::create_dir_all(cluster.log_dir())?;
    fs::write(&file, spec)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(cluster.log_dir().join("dev.log"))?;
    let mut dev = Command::new("setsid");
    dev.arg(binary)
        .args(["dev", "--spec"])
        .arg(&file)
        .current_dir("/");
    dev.stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    dev.spawn().context("cannot start the supervisor")?;
    let up = || Process::from_pid_file(&pid_file, "orchestrator").is_some();
    if !wait_for(Duration::from_secs(5), up) {
        bail!(
            "the supervisor does not start: {}",
            log_tail(cluster, "dev")
        );
    }
    Ok(format!("started, logs in {}", relative(&cluster.log_dir())))
}

/// What `orchestrator dev` reads: the processes in the order of starting.
fn spec(cluster: &Cluster, binary: &Path, engine: &Engine) -> Result<Value> {
    let urls = (1..=cluster.servers).map(|number| {
        let address = cluster.server_addresses(number)[0];
        format!("https://{}", SocketAddr::new(address, cluster.api_port()))
    });
    let url = urls.collect::<Vec<_>>().join(",");
    let token = cluster.server_dir(1).join("node-token");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let agent = |number: u8| {
        let name = cluster.node(number);
        json!({
            "name": name,
            "program": binary,
            "args": [
                "agent", "--server", url,
                "--token-file", text(&token), "--node-name", name,
                "--node-ip", list(&cluster.node_addresses(number)),
                "--data-dir", text(&cluster.dir().join("agents").join(&name)),
                "--docker-host", engine.host,
                // Each node has drivers of its own.
                "--kubelet-dir", text(&cluster.dir().join("agents").join(&name).join("kubelet")),
                // All nodes share one machine, and its disk with those who build on it.
                "--eviction-hard", "memory.available<100Mi,nodefs.available<1%",
            ],
            "networkNamespace": format!("/run/netns/{name}"),
            "afterFile": token,
        })
    };
    let mut processes = server_processes(cluster, binary)?;
    processes.extend((1..=cluster.nodes).map(agent));
    Ok(json!({ "runDir": cluster.run_dir(), "logDir": cluster.log_dir(), "processes": processes }))
}

fn server_processes(cluster: &Cluster, binary: &Path) -> Result<Vec<Value>> {
    let ranges = [
        ("--pod-cidr", cluster.pod_cidr()),
        ("--service-cidr", cluster.service_cidr()),
        ("--load-balancer-pool", cluster.load_balancer_pool()),
    ];
    let common = ranges
        .into_iter()
        .flat_map(|(flag, range)| [flag.to_owned(), range]);
    let common: Vec<String> = common.collect();
    if cluster.has_servers() {
        let etcd = packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
        let servers = (1..=cluster.servers).map(|number| {
            servers::process(cluster, number, binary, (etcd.as_path(), common.as_slice()))
        });
        return Ok(servers.collect());
    }
    let data_dir = cluster.server_dir(1).to_string_lossy().into_owned();
    let mut arguments = vec!["server".to_owned(), "--data-dir".into(), data_dir];
    for address in std::iter::once(Ipv4Addr::LOCALHOST.into()).chain(cluster.gateways()) {
        let bound = SocketAddr::new(address, cluster.api_port());
        arguments.extend(["--bind".into(), bound.to_string()]);
    }
    arguments.extend(["--advertise-address".into(), cluster.gateway().to_string()]);
    arguments.extend(common);
    Ok(vec![
        json!({ "name": "server", "program": binary, "args": arguments }),
    ])
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// The kubeconfig is there as soon as the server has started once.
fn wait_ready(cluster: &Cluster, binary: &Path) -> Result<()> {
    let server = match cluster.has_servers() {
        true => cluster.server(1),
        false => "server".to_owned(),
    };
    let made = cluster.server_dir(1).join("admin.kubeconfig");
    if !wait_for(Duration::from_secs(30), || made.exists()) {
        bail!("the server does not start: {}", log_tail(cluster, &server));
    }
    fs::copy(&made, cluster.kubeconfig())?;
    let mut wait = Command::new(binary);
    wait.args(["dev", "wait", "--timeout-s", "60", "--kubeconfig"])
        .arg(cluster.kubeconfig());
    let Err(why) = command::output(wait.args(cluster.node_names())) else {
        return Ok(());
    };
    let why = why.to_string();
    let why = why.rsplit("error: ").next().unwrap_or(&why);
    bail!(
        "the nodes are not Ready {why}\nserver {}\n{} {}",
        log_tail(cluster, &server),
        cluster.node(1),
        log_tail(cluster, &cluster.node(1))
    )
}

fn write_env(cluster: &Cluster, engine: &Engine) -> Result<()> {
    let env = format!(
        "export KUBECONFIG='{}'\nexport DOCKER_HOST='{}'\nexport PATH='{}':\"$PATH\"\n",
        cluster.kubeconfig().display(),
        engine.host,
        dev_dir().join("bin").display()
    );
    fs::write(cluster.dir().join("env"), env).context("cannot write the environment file")
}

fn announce(cluster: &Cluster, progress: &Progress) {
    let env = relative(&cluster.dir().join("env"));
    println!(
        "\nThe cluster is up after {:.1} s. Try:\n\n  \
         . {env}\n  \
         kubectl get nodes -o wide\n  \
         kubectl apply -f manifests/nginx-deployment.yaml -f manifests/nginxsvc.yaml\n  \
         kubectl get pods -o wide\n  \
         ip netns exec {} curl -s http://$(kubectl get svc nginxsvc -o jsonpath={{.spec.clusterIP}})/\n\n\
         `cargo xtask down{}` removes all of it.",
        progress.elapsed().as_secs_f64(),
        cluster.node(1),
        option(cluster)
    );
}

fn option(cluster: &Cluster) -> String {
    if cluster.name == DEFAULT {
        String::new()
    } else {
        format!(" --cluster {}", cluster.name)
    }
}

fn span(cluster: &Cluster) -> String {
    match cluster.nodes {
        1 => cluster.node(1),
        n => format!("{} to {}", cluster.node(1), cluster.node(n)),
    }
}

fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// True while the process runs the file that is at `binary` now, not one that it replaced.
fn runs_file(process: Process, binary: &Path) -> bool {
    let running = fs::metadata(format!("/proc/{}/exe", process.pid()));
    let identity = |m: fs::Metadata| (m.dev(), m.ino());
    running.ok().map(identity) == fs::metadata(binary).ok().map(identity)
}

fn log_tail(cluster: &Cluster, name: &str) -> String {
    let path = cluster.log_dir().join(format!("{name}.log"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
    format!("({})\n  {tail}", relative(&path))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(workspace())
        .unwrap_or(path)
        .display()
        .to_string()
}
