//! Who may import whom, and which crate, keyword or type may appear where.
//!
//! Tables first: they are the architecture, `orchestrator/ARCHITECTURE.md` says them in words.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::modules;
use super::source::{Mark, Source};

/// The crates below `orchestrator`, and what each may depend on of ours. Cargo keeps what the manifests say
/// and this keeps the manifests.
const MAY_DEPEND: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("api", &[]),
    ("store", &["api", "sys"]),
    ("apiserver", &["api", "store", "streams", "sys"]),
    ("client", &["api", "sys"]),
    ("controllers", &["api", "client", "sys"]),
    ("scheduler", &["api", "client", "sys"]),
    ("datapath", &["api", "sys", "orchestrator-common"]),
    ("streams", &[]),
    ("agent", &["api", "client", "datapath", "streams", "sys"]),
];

/// A crate and the only modules of the product that name it.
const ONLY_IN: &[(&str, &[&str])] = &[
    (
        "aya",
        &[
            "datapath::maps",
            "datapath::object",
            "datapath::attach",
            "datapath::events",
            "datapath::gc",
            "datapath::repliers",
            "datapath::syscall",
            "datapath::trace",
        ],
    ),
    ("aya_log", &["datapath::log", "datapath::object"]),
    ("rtnetlink", &["datapath::link", "agent::network::pod_net"]),
    (
        "netlink_packet_route",
        &["datapath::link", "agent::network::pod_net"],
    ),
    ("bollard", &["agent::runtime::docker"]),
    ("axum", &["apiserver", "agent::api::serve"]),
    ("redb", &["store"]),
    (
        "tonic",
        &[
            "store::etcd",
            "agent::grpc",
            "agent::pod::prober::grpc",
            "agent::volumes::csi",
        ],
    ),
];

/// Modules that only compute: no I/O, no clock, no chance. A name stands for all below it.
const PURE: &[&str] = &[
    "agent::pod::backoff",
    "agent::runtime::container_spec",
    "agent::pod::downward",
    "agent::pod::env",
    "agent::runtime::image_name",
    "agent::pod::plan",
    "agent::pod::qos",
    "agent::pod::shape",
    "agent::pod::status",
    "agent::pod::quantity",
    "agent::pod::refuse",
    "api",
    "controllers::deployment",
    "controllers::engine",
    "controllers::garbage",
    "controllers::namespace",
    "controllers::node_lifecycle",
    "controllers::pod_cidr",
    "controllers::pod_gc",
    "controllers::queue",
    "controllers::replication",
    "controllers::service",
    "controllers::taint_eviction",
    "controllers::world",
    "datapath::addrs",
    "datapath::announcement",
    "datapath::check",
    "datapath::delta",
    "datapath::desired",
    "datapath::dump",
    "datapath::facts",
    "datapath::ids",
    "datapath::lookup",
    "datapath::table",
    "datapath::view",
    "datapath::world",
    "scheduler::cycle",
    "scheduler::engine",
    "scheduler::plugins",
    "scheduler::pod",
    "scheduler::queue",
    "scheduler::resources",
    "scheduler::snapshot",
];

/// What a pure module must not name, by the beginning of the path.
const IMPURE: &[&str] = &[
    "aya",
    "bollard",
    "axum",
    "rtnetlink",
    "redb",
    "tokio",
    "futures",
    "rand",
    "kube::Client",
    "kube::client",
    "kube::Api",
    "std::fs",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "jiff::Timestamp::now",
    "uuid::Uuid::new_v4",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Utc::now",
    "Uuid::new_v4",
];

/// Files that may say `unsafe`.
const UNSAFE: &[&str] = &[
    "orchestrator-ebpf/",
    "orchestrator-common/src/layout.rs",
    "orchestrator/datapath/src/syscall.rs",
];

pub fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let path = source.path.to_string_lossy();
    for (mark, at) in &source.facts.marks {
        if *mark == Mark::Unsafe && !UNSAFE.iter().any(|start| path.starts_with(start)) {
            findings.push(source.finding(at.line, "`unsafe` has no place here"));
        }
    }
    if source.path.starts_with("orchestrator") && !source.test {
        findings.extend(crates(source));
        if PURE.iter().any(|pure| is_below(source, pure)) {
            findings.extend(purity(source));
        }
    }
    findings
}

/// What the manifests of the product's crates depend on, against the table.
pub fn manifests(workspace: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for directory in modules::CRATES {
        let Some(name) = directory.strip_prefix("orchestrator/") else {
            continue;
        };
        let path = workspace.join(directory).join("Cargo.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let found = dependencies(name, &text);
        findings.extend(found.map(|(line, what)| format!("{directory}/Cargo.toml:{line}: {what}")));
    }
    Ok(findings)
}

/// The lines of one manifest that name a crate of ours which this one may not depend on.
fn dependencies(name: &str, manifest: &str) -> impl Iterator<Item = (usize, String)> {
    let row = MAY_DEPEND
        .iter()
        .find(|(crate_name, _)| *crate_name == name);
    let allowed = row.map_or(&[][..], |(_, allowed)| allowed);
    let unknown = row.is_none().then(|| {
        (
            1,
            format!("crate `{name}` is in no rule of tidy/imports.rs"),
        )
    });
    let lines = manifest.lines().enumerate();
    let wrong = lines.filter_map(move |(number, line)| {
        let target = line.split(['.', ' ', '=']).next()?;
        let ours = target.starts_with("orchestrator")
            || MAY_DEPEND
                .iter()
                .any(|(crate_name, _)| *crate_name == target);
        (ours && !allowed.contains(&target)).then(|| {
            (
                number + 1,
                format!("`{name}` must not depend on `{target}`"),
            )
        })
    });
    unknown.into_iter().chain(wrong.collect::<Vec<_>>())
}

/// Crates that have one place each.
fn crates(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for named in source.facts.paths.iter().filter(|n| !n.at.test) {
        let Some((name, places)) = ONLY_IN.iter().find(|(name, _)| named.path[0] == *name) else {
            continue;
        };
        if !places.iter().any(|place| is_below(source, place)) {
            let what = format!("`{name}` appears only in {}", places.join(", "));
            findings.push(source.finding(named.at.line, what));
        }
    }
    findings
}

fn purity(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (_, at) in source
        .facts
        .marks
        .iter()
        .filter(|(m, at)| *m == Mark::Async && !at.test)
    {
        findings.push(source.finding(at.line, "a pure module has no async"));
    }
    for named in source.facts.paths.iter().filter(|n| !n.at.test) {
        let path = named.path.join("::");
        let below = |start: &&&str| {
            path.strip_prefix(**start)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if let Some(start) = IMPURE.iter().find(below) {
            findings.push(source.finding(
                named.at.line,
                format!("a pure module must not name `{start}`"),
            ));
        }
    }
    findings
}

/// True for the module itself and everything below it.
fn is_below(source: &Source, module: &str) -> bool {
    let own = source.module.join("::");
    own.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::source, *};

    fn findings(module: &str, text: &str) -> Vec<String> {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        let facts = source::read(text, &module, false).unwrap();
        let path = PathBuf::from(format!("orchestrator/{}.rs", module.join("/src/")));
        check(&Source {
            path,
            module,
            test: false,
            text: text.to_owned(),
            facts,
        })
    }

    #[test]
    fn a_dependency_against_the_rules_is_found() {
        let found = |name, text| dependencies(name, text).collect::<Vec<_>>();
        let text = "[dependencies]\nagent.workspace = true\nserde.workspace = true\n";
        assert_eq!(
            found("datapath", text),
            [(2, "`datapath` must not depend on `agent`".to_owned())]
        );
        assert!(found("datapath", "api = { path = \"../api\" }\n").is_empty());
        assert_eq!(found("sys", "api = { path = \"../api\" }\n").len(), 1);
        assert_eq!(found("nobody", "").len(), 1);
    }

    #[test]
    fn a_pure_module_has_no_clock_no_async_and_no_hash_order() {
        let module = "datapath::delta";
        assert!(!findings(module, "use std::collections::{BTreeMap, HashMap};").is_empty());
        assert!(!findings(module, "async fn f() {}").is_empty());
        assert!(!findings(module, "fn f() { std::time::Instant::now(); }").is_empty());
        assert!(findings(module, "use std::collections::BTreeMap;").is_empty());
        let test = "#[cfg(test)] mod tests { use std::time::Instant; }";
        assert!(findings(module, test).is_empty());
    }

    #[test]
    fn a_crate_with_one_place_is_found_elsewhere() {
        assert!(!findings("agent::node", "use bollard::Docker;").is_empty());
        assert!(findings("agent::runtime::docker", "use bollard::Docker;").is_empty());
    }

    #[test]
    fn unsafe_is_found_outside_its_places() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(findings("sys::files", text).len(), 1);
        assert_eq!(findings("sys::files", "unsafe fn f() {}").len(), 1);
    }
}
