//! API objects in, the maps' rows out: `golden/NAME.yaml` gives `golden/NAME.dump`.
//!
//! The objects are this node's (`node-1`) view. A document `kind: Then` ends a moment: the dump shows
//! the rows at the end of each. An object with a deletionTimestamp is gone. `UPDATE_EXPECT=1` rewrites.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use datapath::check::check;
use datapath::dump::dump;
use datapath::facts::Facts;
use datapath::fake::Fake;
use datapath::reconcile::Reconciler;
use datapath::{Addrs, Change, HostPort, LocalPod, NodeView, ObjectKey, ServiceView, SliceView};
use expect_test::expect_file;
use orchestrator_common::maps::config::Family;
use orchestrator_common::{Addr, Mac, Port, Prefix};
use serde::Deserialize;
use serde_json::Value;

const NODE: &str = "node-1";

/// `cargo xtask test` runs every binary below `tests/tests`, so a name there is a test that runs.
#[test]
fn every_scenario_is_a_test() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    let mut dirs: Vec<PathBuf> = vec![root.join("tests")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                names.extend(declared(&fs::read_to_string(path)?));
            }
        }
    }
    let list = fs::read_to_string(root.join("scenarios.txt"))?;
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let missing: Vec<String> = lines
        .flat_map(|line| match line.strip_suffix(" [families]") {
            Some(name) => ["", "_v6", "_dual"].map(|f| format!("{name}{f}")).to_vec(),
            None => vec![line.to_owned()],
        })
        .filter(|name| !names.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

/// The tests of a source: functions, what the macro `families` makes functions of, and a table of
/// scenarios.
fn declared(source: &str) -> BTreeSet<String> {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let lines = source.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.map(|line| format!("{line}\n")).collect();
    let marked = code.split("#[test]").skip(1);
    let functions = marked.filter_map(|rest| {
        let mut words = words(rest).into_iter();
        words.find(|word| word == "fn").and(words.next())
    });
    let made = code.split("\nfamilies! {").skip(1);
    let made = made.flat_map(|rest| words(rest.split('}').next().unwrap_or_default()));
    let tables = code.split("\nconst SCENARIOS").skip(1);
    let rows = tables.flat_map(|rest| {
        rest.split("];")
            .next()
            .unwrap_or_default()
            .split('(')
            .skip(1)
    });
    let named = rows.filter_map(|row| row.split('"').nth(1).map(str::to_owned));
    functions.chain(made).chain(named).collect()
}

#[test]
fn a_name_in_a_comment_or_a_string_is_no_test() {
    let source = r#"
        // #[test] fn commented() {}
        #[test]
        fn runs() { helper("quoted"); }
        fn helper(_: &str) {}
families! {
    helper: four six;
}
const SCENARIOS: [Scenario; 1] = [
    ("listed", helper),
];
    "#;
    let names = declared(source);
    for name in ["runs", "four", "six", "listed"] {
        assert!(names.contains(name), "{name} of {names:?}");
    }
    for name in ["commented", "quoted"] {
        assert!(!names.contains(name), "{name} of {names:?}");
    }
}

#[test]
fn objects_give_the_rows_on_file() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(&dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    cases.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    cases.sort();
    ensure!(!cases.is_empty(), "no case in {}", dir.display());
    for case in cases {
        let moments = moments(&case).with_context(|| case.display().to_string())?;
        let rows = run(&moments)?;
        assert_eq!(
            first_moment_reversed(&moments)?,
            first(&rows),
            "order matters in {case:?}"
        );
        expect_file![case.with_extension("dump")].assert_eq(&rows);
    }
    Ok(())
}

fn run(moments: &[Vec<Change>]) -> Result<String> {
    let mut reconciler = Reconciler::start(Fake::default(), facts())?;
    let mut dumps = Vec::new();
    for moment in moments {
        for change in moment {
            reconciler.change(change.clone())?;
        }
        reconciler.in_sync()?;
        assert_eq!(check(reconciler.actual()), Vec::<String>::new());
        dumps.push(dump(reconciler.actual()));
    }
    Ok(dumps.join("then\n"))
}

/// What a restarted agent hears comes in any order and must give the same numbers.
fn first_moment_reversed(moments: &[Vec<Change>]) -> Result<String> {
    let first = moments.first().context("no objects")?;
    run(&[first.iter().rev().cloned().collect()])
}

fn first(rows: &str) -> &str {
    rows.split("then\n").next().unwrap_or_default()
}

fn moments(case: &Path) -> Result<Vec<Vec<Change>>> {
    let text = fs::read_to_string(case)?;
    let mut moments = vec![Vec::new()];
    let mut pods = 0;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Value::deserialize(document)?;
        if object["kind"] == "Then" {
            moments.push(Vec::new());
            continue;
        }
        pods += u8::from(object["kind"] == "Pod");
        let latest = moments.last_mut().context("there is always one")?;
        latest.extend(host_ports(&object)?);
        latest.push(change(object, pods)?);
    }
    Ok(moments)
}

fn change(object: Value, serial: u8) -> Result<Change> {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let key = ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"));
    let there = object.pointer("/metadata/deletionTimestamp").is_none();
    Ok(match text("/kind") {
        "Service" => {
            let view = ServiceView::from_object(&serde_json::from_value(object)?);
            Change::Service(key, view.filter(|_| there))
        }
        "EndpointSlice" => {
            let view = SliceView::from_object(&serde_json::from_value(object)?, NODE);
            Change::Slice(key, view.filter(|_| there))
        }
        "Node" => {
            let view = NodeView::from_object(&serde_json::from_value(object)?);
            Change::Node(key.name().to_owned(), view.filter(|_| there))
        }
        "Pod" => {
            let host_network = object.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
            let wired = match there {
                true => Some(local_pod(pod_ips(&object)?, serial, host_network)),
                false => None,
            };
            Change::Pod(key.to_string(), wired)
        }
        kind => bail!("{kind} means nothing to the datapath"),
    })
}

/// What the agent reads off a pod's spec besides.
fn host_ports(object: &Value) -> Result<Option<Change>> {
    if object["kind"] != "Pod" {
        return Ok(None);
    }
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let key = ObjectKey::new(text("namespace"), text("name"));
    let ports = HostPort::of(&serde_json::from_value(object.clone())?);
    Ok((!ports.is_empty()).then(|| Change::HostPorts(key.to_string(), ports)))
}

/// `podIPs`, or `podIP` where that is all there is.
fn pod_ips(pod: &Value) -> Result<Addrs> {
    let listed = pod.pointer("/status/podIPs").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().map(|entry| &entry["ip"]);
    let ips = listed.chain(pod.pointer("/status/podIP"));
    let ips = ips.filter_map(Value::as_str).map(str::parse::<IpAddr>);
    Ok(ips.collect::<Result<_, _>>()?)
}

/// As the agent would have wired it.
fn local_pod(addrs: Addrs, serial: u8, host_network: bool) -> LocalPod {
    LocalPod {
        addrs,
        ifindex: 10 + u32::from(serial),
        ifname: format!("orch{serial}"),
        mac: [2, 0, 0, 0, 1, serial],
        host_mac: [2, 0, 0, 0, 2, serial],
        netns_cookie: 100 + u64::from(serial),
        host_network,
        is_queued: false,
    }
}

fn facts() -> Facts {
    let ip = |text: &str| text.parse::<IpAddr>().expect("a literal address");
    Facts {
        name: "node-1".into(),
        v4: Family {
            node: ip("172.31.0.11").into(),
            gateway: ip("10.100.1.1").into(),
            translation: ip("10.100.1.0").into(),
            pods: Prefix::new(ip("10.100.0.0"), 16),
            services: Prefix::new(ip("10.96.0.0"), 16),
            node_mask: Addr::v4_mask(24),
        },
        v6: Family {
            node: ip("fd00:31::11").into(),
            gateway: ip("fd00:100:0:1::1").into(),
            translation: ip("fd00:100:0:1::").into(),
            pods: Prefix::new(ip("fd00:100::"), 48),
            services: Prefix::new(ip("fd00:96::"), 112),
            node_mask: Addr::v6_mask(64),
        },
        underlay: ip("172.31.0.11").into(),
        uplink: 2,
        overlay: 3,
        host: 5,
        cut: 0,
        host_mac: Mac::new([2, 0, 0, 0, 0, 1]),
        net_mac: Mac::new([2, 0, 0, 0, 0, 2]),
        uplink_mac: Mac::new([2, 0, 0, 0, 0, 3]),
        vni: 1,
        vxlan_port: Port::new(4789),
        mtu: 1450,
        netns_cookie: 1,
        dsr: false,
        neighbourhood: Prefix::new(ip("172.31.0.0"), 24),
        servers: vec![ip("172.31.0.1").into()],
    }
}
