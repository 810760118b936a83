//! Who may import whom, and which crate, keyword or type may appear where.
//!
//! Tables first: they are the architecture, `orchestrator/ARCHITECTURE.md` says them in words.

use super::source::{Mark, Source};

/// The modules of the crate `orchestrator`, and what each may import of it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "agent",
            "api",
            "apiserver",
            "client",
            "controllers",
            "datapath",
            "scheduler",
            "store",
            "sys",
        ],
    ),
    ("apiserver", &["api", "store", "sys"]),
    ("store", &["api", "sys"]),
    ("scheduler", &["api", "client", "sys"]),
    ("controllers", &["api", "client", "sys"]),
    ("client", &["api", "sys"]),
    ("agent", &["api", "client", "datapath", "sys"]),
    ("datapath", &["api", "sys"]),
    ("api", &[]),
    ("sys", &[]),
];

/// A crate and the only modules of `orchestrator` that name it.
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
    ("rtnetlink", &["datapath::link", "agent::pod_net"]),
    (
        "netlink_packet_route",
        &["datapath::link", "agent::pod_net"],
    ),
    ("bollard", &["agent::runtime::docker"]),
    ("axum", &["apiserver", "agent::serve"]),
    ("redb", &["store"]),
];

/// Modules that only compute: no I/O, no clock, no chance. A name stands for all below it.
const PURE: &[&str] = &[
    "agent::backoff",
    "agent::container_spec",
    "agent::downward",
    "agent::env",
    "agent::image_name",
    "agent::pod_plan",
    "agent::pod_qos",
    "agent::pod_shape",
    "agent::pod_status",
    "agent::quantity",
    "agent::refuse",
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
    "controllers::world",
    "datapath::addrs",
    "datapath::announcement",
    "datapath::check",
    "datapath::delta",
    "datapath::desired",
    "datapath::dump",
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
    "orchestrator/src/datapath/syscall.rs",
];

pub fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let path = source.path.to_string_lossy();
    for (mark, at) in &source.facts.marks {
        if *mark == Mark::Unsafe && !UNSAFE.iter().any(|start| path.starts_with(start)) {
            findings.push(source.finding(at.line, "`unsafe` has no place here"));
        }
    }
    if source.module[0] == "orchestrator" && !source.test {
        findings.extend(inner(source));
        findings.extend(crates(source));
        if PURE.iter().any(|pure| is_below(source, pure)) {
            findings.extend(purity(source));
        }
    }
    findings
}

/// Imports between the modules of `orchestrator`.
fn inner(source: &Source) -> Vec<String> {
    let Some(own) = source.module.get(1) else {
        return Vec::new();
    };
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(module, _)| module == own) else {
        return vec![source.finding(
            1,
            format!("module `{own}` is in no rule of tidy/imports.rs"),
        )];
    };
    let mut findings = Vec::new();
    for named in source
        .facts
        .paths
        .iter()
        .filter(|n| !n.at.test && n.path[0] == "orchestrator")
    {
        let Some(target) = named.path.get(1) else {
            continue;
        };
        let module = MAY_IMPORT.iter().any(|(module, _)| module == target);
        if module && target != own && !allowed.contains(&target.as_str()) {
            findings
                .push(source.finding(named.at.line, format!("`{own}` must not import `{target}`")));
        }
    }
    findings
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
    let own = source.module[1..].join("::");
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
        let path = PathBuf::from(format!("{}.rs", module.join("/src/")));
        check(&Source {
            path,
            module,
            test: false,
            text: text.to_owned(),
            facts,
        })
    }

    #[test]
    fn an_import_against_the_rules_is_found_however_it_is_spelled() {
        for text in [
            "use crate::agent::Agent;",
            "use crate::{agent::{self, Agent}, api};",
            "use super::super::agent;",
            "fn f() { crate::agent::run() }",
            "fn f() -> crate::agent::Agent { x() }",
            "fn f() { println!(\"{}\", crate::agent::NAME) }",
        ] {
            let found = findings("orchestrator::datapath::table", text);
            assert!(
                found.iter().any(|f| f.contains("must not import `agent`")),
                "{text}: {found:?}"
            );
        }
        assert!(findings("orchestrator::datapath::maps", "use crate::api::meta;").is_empty());
    }

    #[test]
    fn a_pure_module_has_no_clock_no_async_and_no_hash_order() {
        let module = "orchestrator::datapath::delta";
        assert!(!findings(module, "use std::collections::{BTreeMap, HashMap};").is_empty());
        assert!(!findings(module, "async fn f() {}").is_empty());
        assert!(!findings(module, "fn f() { std::time::Instant::now(); }").is_empty());
        assert!(findings(module, "use std::collections::BTreeMap;").is_empty());
        let test = "#[cfg(test)] mod tests { use std::time::Instant; }";
        assert!(findings(module, test).is_empty());
    }

    #[test]
    fn a_crate_with_one_place_is_found_elsewhere() {
        assert!(!findings("orchestrator::agent::node", "use bollard::Docker;").is_empty());
        assert!(
            findings(
                "orchestrator::agent::runtime::docker",
                "use bollard::Docker;"
            )
            .is_empty()
        );
    }

    #[test]
    fn unsafe_is_found_outside_its_places() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(findings("orchestrator::sys::files", text).len(), 1);
        assert_eq!(
            findings("orchestrator::sys::files", "unsafe fn f() {}").len(),
            1
        );
    }
}
