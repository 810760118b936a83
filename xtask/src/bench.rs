//! `cargo xtask bench NAME`: each is a program of the crate `tests`; results are a table on the
//! screen and JSON in `target/bench/`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{build_ebpf, command, conformance, machine, packages, progress::Progress, setup};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// From exec to the first pod; idle memory; a connection to a Service and to the pod itself
    Start,
    /// The datapath beside its rivals
    Datapath,
    /// The API server beside a Kubernetes API server with etcd; --large: 150,000 pods; --cost: audit, encryption
    Api,
    /// The scheduler's throughput at 5,000 nodes without agents; --nodes=N; a real kube-scheduler beside it
    Scheduler,
    /// Thousands of hollow nodes on one server; --nodes=N --pods=N --services=N make it smaller; --part=N, --short, --page
    Scale,
    /// The cluster's DNS beside Debian's unbound
    Dns,
    /// What clients that attack the API server cost those that use it
    Strangers,
}

pub fn run(bench: Bench, arguments: &[String]) -> Result<ExitCode> {
    machine::check_root("cargo xtask bench")?;
    packages::ensure(packages::FOR_BENCHES)?;
    build_ebpf::build(&setup::ensure()?)?;
    let mut arguments = arguments.to_vec();
    match bench {
        Bench::Api => arguments.extend(for_api(&arguments)?),
        Bench::Scale | Bench::Start => arguments.push(format!("--stamp={}", conformance::stamp()?)),
        Bench::Scheduler => {
            packages::ensure(packages::FOR_CONFORMANCE)?;
            let built = conformance::ensure_built(&Progress::new())?;
            let peer = built.join("kube-scheduler");
            arguments.push(format!("--peer={}", peer.display()));
        }
        Bench::Dns => {
            let unbound = packages::unpacked("unbound", "usr/sbin/unbound", "unbound")?;
            arguments.push(format!("--unbound={}", unbound.display()));
        }
        _ => {}
    }
    let program = match bench {
        Bench::Api => "api-bench",
        Bench::Scale => "scale-bench",
        Bench::Scheduler => "scheduler-bench",
        Bench::Start => "start-bench",
        Bench::Datapath => "datapath-bench",
        Bench::Dns => "dns-bench",
        Bench::Strangers => "strangers-bench",
    };
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--quiet", "--release", "--package", "tests"])
        .args(["--bin", program, "--"])
        .args(&arguments);
    if bench == Bench::Dns {
        cargo.env("LD_LIBRARY_PATH", libraries_of_unbound()?);
    }
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the one of unbound's libraries is that no other package here needs.
fn libraries_of_unbound() -> Result<PathBuf> {
    const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/libprotobuf-c.so.1.0.0";
    let library = packages::unpacked("libprotobuf-c1", LIBRARY, "libprotobuf-c.so.1")?;
    Ok(library.with_file_name(""))
}

/// The other side's programs, when they are needed, and what the page says of this run.
fn for_api(arguments: &[String]) -> Result<Vec<String>> {
    let has = |name: &str| arguments.iter().any(|it| it.starts_with(name));
    let mut more = vec![format!("--stamp={}", conformance::stamp()?)];
    if !has("--large") && !has("--cost") && !has("--kubeconfig") && !has("--apiserver") {
        packages::ensure(packages::FOR_CONFORMANCE)?;
        let built = conformance::ensure_built(&Progress::new())?;
        let etcd = packages::unpacked("etcd-server", "usr/bin/etcd", "etcd")?;
        more.push(format!(
            "--apiserver={}",
            built.join("kube-apiserver").display()
        ));
        more.push(format!("--etcd={}", etcd.display()));
    }
    Ok(more)
}
