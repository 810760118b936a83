//! `cargo xtask applications [NAME…]`: applications in the shape of those that people deploy run on a dev
//! cluster, do what they are for, and do so still when a node dies.
//!
//! ```text
//! images ─▶ apply ─▶ check.sh fresh ─▶ a node dies ─▶ check.sh dead ─▶ it is back ─▶ check.sh back ─▶ delete
//! ```
//!
//! `manifests/applications/NAME/` is a kustomization and its `check.sh`, which knows by kubectl alone whether
//! the application does its work. The last result of each is kept in `manifests/applications/README.md`.

mod death;
mod images;
mod record;

pub use images::RECIPES as IMAGES;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cluster::{Cluster, dev_dir, workspace},
    command, down,
    engine::{self, Engine},
    guard, machine,
    progress::Progress,
    up,
};

/// The cluster that is made when none is named; it goes after the run.
const OWN_CLUSTER: &str = "apps";
const NODES: u8 = 3;
/// Where the applications are, below the workspace.
const DIRECTORY: &str = "manifests/applications";
/// Seconds that one check may take: a dead node is noticed after 40, and its pods are replaced after that.
const CHECK_TIMEOUT_S: u32 = 300;
/// Seconds for a namespace to go with all that is in it.
const REMOVAL_TIMEOUT_S: u32 = 120;

/// What the command line says.
#[derive(clap::Args)]
pub struct Arguments {
    /// The applications to run; all, if none is named
    names: Vec<String>,
    /// A cluster that is up; without it, one is made and taken down again
    #[arg(long)]
    cluster: Option<String>,
    /// No node dies
    #[arg(long)]
    no_death: bool,
    /// The last application and its namespace stay, to be looked at
    #[arg(long)]
    keep: bool,
}

/// An application: which images it takes, and whose node dies.
struct Application {
    name: &'static str,
    images: &'static [&'static str],
    /// The selector of the pods one of which goes with its node.
    dies: &'static str,
    /// The selector of a pod of which there is one, with a volume of its node: that node does not die.
    spares: Option<&'static str>,
}

const fn application(
    name: &'static str,
    images: &'static [&'static str],
    dies: &'static str,
    spares: Option<&'static str>,
) -> Application {
    Application {
        name,
        images,
        dies,
        spares,
    }
}

const PYTHON: &str = "python-kubernetes:latest";

const APPLICATIONS: &[Application] = &[
    application("guestbook", &[PYTHON], "app=frontend", Some("role=leader")),
    application(
        "wordpress",
        &["wordpress:latest", "mariadb:latest"],
        "app=mariadb",
        None,
    ),
    application("redis-cluster", &[PYTHON], "app=redis-cluster", None),
    application("etcd", &["etcd:latest"], "app=etcd", None),
    application(
        "monitoring",
        &["victoria-metrics:latest", "node-exporter:latest", PYTHON],
        "app=shop",
        Some("app=victoria-metrics"),
    ),
    application("messages", &["nats:latest", PYTHON], "app=nats", None),
    application("ci", &[PYTHON], "app=runner", None),
    application("operator", &[PYTHON], "app=operator", None),
    application("logs", &[PYTHON], "app=talker", Some("app=collector")),
    application("batch", &[PYTHON], "app=worker", Some("app=queue")),
    application("canary", &[], "app=shop", Some("app=load")),
];

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    machine::check_root("cargo xtask applications")?;
    let chosen = choose(&arguments.names)?;
    let name = arguments.cluster.as_deref().unwrap_or(OWN_CLUSTER);
    let was_up = Cluster::load(name)?.is_some();
    if arguments.cluster.is_some() && !was_up {
        bail!("there is no cluster {name}: `cargo xtask up --cluster {name}` makes it");
    }
    if !was_up {
        up::run(name, (Some(NODES), None), None, up::Profile::default())?;
    }
    let result = run_all(arguments, name, &chosen);
    if !was_up && !arguments.keep {
        down::run(name)?;
    }
    result
}

fn choose(names: &[String]) -> Result<Vec<&'static Application>> {
    let known: Vec<&str> = APPLICATIONS.iter().map(|it| it.name).collect();
    for name in names {
        ensure!(
            known.contains(&name.as_str()),
            "there is no application {name:?}: there are {}",
            known.join(", ")
        );
    }
    let wanted = |it: &&Application| names.is_empty() || names.iter().any(|name| name == it.name);
    Ok(APPLICATIONS.iter().filter(wanted).collect())
}

fn run_all(arguments: &Arguments, name: &str, chosen: &[&Application]) -> Result<ExitCode> {
    let cluster = Cluster::load(name)?.with_context(|| format!("the cluster {name} is gone"))?;
    let engine = match engine::of(&cluster) {
        Some(engine) => engine,
        None => engine::ensure()?,
    };
    Progress::new().step("images", |step| {
        let wanted: BTreeSet<&str> = chosen
            .iter()
            .flat_map(|it| it.images.iter().copied())
            .collect();
        let recipes = images::RECIPES
            .iter()
            .filter(|it| wanted.contains(it.tags[0]));
        step.note(format!(
            "{} made",
            crate::images::ensure_all(&engine, recipes)?.len()
        ));
        Ok(())
    })?;
    let mut failed = 0;
    for application in chosen {
        let stage = Stage::new(application, &cluster, &engine)?;
        let outcome = stage.run(arguments.no_death);
        if !arguments.keep {
            stage.remove()?;
        }
        let line = match &outcome {
            Ok(times) => record::passed(times),
            Err(error) => record::failed(error),
        };
        failed += usize::from(outcome.is_err());
        println!("{:<14} {line}", application.name);
        if !arguments.no_death {
            record::write(&workspace().join(DIRECTORY), application.name, &line)?;
        }
    }
    println!(
        "{} of {} applications work",
        chosen.len() - failed,
        chosen.len()
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// When a check runs; `check.sh` is told by its first argument.
#[derive(Clone, Copy)]
enum Moment {
    Fresh,
    Dead,
    Back,
}

impl Moment {
    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Dead => "dead",
            Self::Back => "back",
        }
    }
}

/// An application on a cluster, in a namespace of its own name.
struct Stage<'a> {
    application: &'a Application,
    cluster: &'a Cluster,
    engine: &'a Engine,
    directory: PathBuf,
    log: PathBuf,
}

impl<'a> Stage<'a> {
    fn new(application: &'a Application, cluster: &'a Cluster, engine: &'a Engine) -> Result<Self> {
        let logs = cluster.log_dir().join("applications");
        fs::create_dir_all(&logs)?;
        let log = logs.join(application.name).with_extension("log");
        File::create(&log).with_context(|| log.display().to_string())?;
        Ok(Self {
            application,
            cluster,
            engine,
            directory: workspace().join(DIRECTORY).join(application.name),
            log,
        })
    }

    /// How long each check took.
    fn run(&self, no_death: bool) -> Result<Vec<Duration>> {
        self.install()?;
        let mut times = vec![self.check(Moment::Fresh, None)?];
        if no_death {
            return Ok(times);
        }
        let node = self.victim()?;
        let dead = death::Dead::kill(self.cluster, self.engine, &node)?;
        let checked = self.check(Moment::Dead, Some(&node));
        // The node comes back also after a check that failed: the next application needs it.
        dead.revive(&self.cluster.kubeconfig())?;
        times.push(checked?);
        times.push(self.check(Moment::Back, Some(&node))?);
        Ok(times)
    }

    fn install(&self) -> Result<()> {
        command::output(
            self.kubectl()
                .args(["create", "namespace", self.application.name]),
        )?;
        command::output(self.kubectl().arg("apply").arg("-k").arg(&self.directory)).map(drop)
    }

    /// Runs the check; an error has the last lines of what it wrote.
    fn check(&self, moment: Moment, node: Option<&str>) -> Result<Duration> {
        let started = Instant::now();
        let mut check = Command::new("timeout");
        check.args(["--kill-after=5", &CHECK_TIMEOUT_S.to_string(), "sh", "-eu"]);
        check
            .arg(self.directory.join("check.sh"))
            .arg(moment.name());
        check.current_dir(&self.directory);
        self.surround(&mut check);
        check.env("NODE", node.unwrap_or_default());
        let mut log = File::options().append(true).open(&self.log)?;
        writeln!(log, "== {}", moment.name())?;
        let mut child = guard::spawn_logged(&check, &log)?;
        // Waiting would close it, and the guard would end the check.
        let stdin = child.stdin.take();
        let status = child.wait()?;
        drop(stdin);
        if !status.success() {
            let text = fs::read_to_string(&self.log)?;
            self.describe(&mut log)?;
            let last = text.lines().rfind(|line| !line.trim().is_empty());
            let log = self.log.display();
            bail!(
                "{}: {} ({status}, {log})",
                moment.name(),
                last.unwrap_or_default()
            );
        }
        Ok(started.elapsed())
    }

    /// What a person needs to see why, before it is gone.
    fn describe(&self, log: &mut File) -> Result<()> {
        for words in ["get all,pvc,jobs -o wide", "describe pods", "get events"] {
            let mut kubectl = self.kubectl();
            kubectl
                .args(["-n", self.application.name])
                .args(words.split(' '));
            let text = command::output(&mut kubectl).unwrap_or_else(|error| format!("{error:#}"));
            writeln!(log, "== {words}\n{text}")?;
        }
        Ok(())
    }

    /// A node that may die.
    fn victim(&self) -> Result<String> {
        let dies = self.nodes(self.application.dies)?;
        let spares = self.application.spares.map(|selector| self.nodes(selector));
        let spares = spares.transpose()?.unwrap_or_default();
        let victim = victim(&dies, &spares).cloned();
        victim
            .with_context(|| format!("every node of {} has what it spares", self.application.dies))
    }

    fn nodes(&self, selector: &str) -> Result<Vec<String>> {
        let path = r#"jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}"#;
        let mut kubectl = self.kubectl();
        kubectl.args([
            "-n",
            self.application.name,
            "get",
            "pods",
            "-l",
            selector,
            "-o",
            path,
        ]);
        let names = command::output(&mut kubectl)?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn remove(&self) -> Result<()> {
        let timeout = format!("--timeout={REMOVAL_TIMEOUT_S}s");
        let mut delete = self.kubectl();
        delete.args(["delete", "--ignore-not-found", &timeout, "-k"]);
        command::output(delete.arg(&self.directory))?;
        let mut delete = self.kubectl();
        delete.args(["delete", "--ignore-not-found", &timeout, "namespace"]);
        command::output(delete.arg(self.application.name)).map(drop)
    }

    fn kubectl(&self) -> Command {
        let mut kubectl = Command::new("kubectl");
        self.surround(&mut kubectl);
        kubectl
    }

    /// The environment of kubectl, in a check or not.
    fn surround(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        let own = dev_dir().join("bin");
        command.env("PATH", format!("{path}:{}", own.display()));
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        command.env("NAMESPACE", self.application.name);
        command.stdin(Stdio::null());
    }
}

/// The first node of those that may die that has nothing to be spared.
fn victim<'a>(dies: &'a [String], spares: &[String]) -> Option<&'a String> {
    dies.iter()
        .find(|node| !node.is_empty() && !spares.contains(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_application_is_a_directory_with_a_check_and_images_that_are_made() {
        for it in APPLICATIONS {
            let directory = workspace().join(DIRECTORY).join(it.name);
            for file in ["kustomization.yaml", "check.sh"] {
                assert!(directory.join(file).exists(), "{}/{file}", it.name);
            }
            for image in it.images {
                let made = images::RECIPES
                    .iter()
                    .any(|recipe| recipe.tags[0] == *image);
                assert!(made, "{image}");
            }
        }
        let directories = fs::read_dir(workspace().join(DIRECTORY)).unwrap();
        let directories = directories.flatten().filter(|entry| entry.path().is_dir());
        assert_eq!(directories.count(), APPLICATIONS.len());
    }

    #[test]
    fn a_node_with_what_is_spared_does_not_die() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let dies = names(&["", "node-2", "node-1"]);
        assert_eq!(victim(&dies, &names(&["node-2"])).unwrap(), "node-1");
        assert_eq!(victim(&dies, &[]).unwrap(), "node-2");
        assert_eq!(victim(&dies, &dies), None);
    }
}
