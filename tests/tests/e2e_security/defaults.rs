//! What a container gets by default, what a pod is refused, and what of its node a pod reaches.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use agent::pod::defaults::{CAPABILITIES, MASKED_PATHS, NODE_PORTS, PIDS_LIMIT, READ_ONLY_PATHS};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::cluster::{output, wait};
use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[
    ("a_container_has_the_rights_that_the_table_says", rights),
    ("a_sandbox_is_nobody_and_leads_nowhere", sandbox),
    (
        "what_a_node_does_not_do_fails_the_pod_with_its_field",
        refused,
    ),
    (
        "what_the_scheduler_does_not_do_keeps_the_pod_pending",
        pending,
    ),
    ("a_pod_of_an_unknown_service_account_is_not_made", account),
    ("refused_pods_are_replaced_with_growing_pauses", replaced),
    ("a_pod_reaches_the_ports_of_its_node_in_the_table", ports),
    (
        "without_credentials_agent_and_server_say_nothing",
        strangers,
    ),
];

/// How long a port of the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a container says of itself, line by line; the marks tell what it could do.
const LOOK: &str = "cat /proc/self/status
for file in pids/pids.max pids.max; do
  echo PIDS $(cat /sys/fs/cgroup/$file 2>/dev/null)
done
while read -r a b c d path options rest; do echo MOUNT $path $options; done < /proc/self/mountinfo
for path in /proc/sys/kernel/hostname /sys/kernel/mm/ksm/run; do
  (echo 0 > $path) 2>/dev/null && echo WROTE $path
done
for path in /proc/kcore /proc/keys /proc/timer_list; do
  [ -s $path ] && [ -n \"$(head -c 1 $path 2>/dev/null | tr '\\0' x)\" ] && echo READ $path
done
echo DONE
sleep infinity";

fn pod(name: &str, spec: Value) -> Value {
    let container = json!({"name": "main", "image": "tools"});
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    });
    for (field, value) in spec.as_object().expect("an object") {
        object["spec"][field] = value.clone();
    }
    object
}

fn looking(name: &str, context: Value) -> Value {
    let container = json!({
        "name": "main", "image": "tools", "command": ["sh", "-c", LOOK],
        "securityContext": context,
    });
    pod(name, json!({"containers": [container]}))
}

/// The log of a pod once it has written its last line.
fn looked(setting: &Setting, name: &str) -> String {
    wait("a pod has looked around", || {
        let log = setting.kubectl.run(&format!("logs {name}"))?;
        Ok(log.lines().any(|line| line == "DONE").then_some(log))
    })
}

fn delete(setting: &Setting, what: &str) {
    let words = format!("delete {what} --now --ignore-not-found");
    setting.kubectl.run(&words).unwrap();
}

/// The value of a line of `/proc/PID/status`.
fn status<'a>(log: &'a str, field: &str) -> &'a str {
    let line = log.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|rest| rest.strip_prefix(':'));
    value
        .map(str::trim)
        .unwrap_or_else(|| panic!("no {field}: {log}"))
}

fn hex(log: &str, field: &str) -> u64 {
    u64::from_str_radix(status(log, field), 16).expect("a set of capabilities")
}

fn default_capabilities() -> u64 {
    CAPABILITIES.iter().map(|(_, bit)| 1 << bit).sum()
}

/// The options of the last mount at a path.
fn mount<'a>(log: &'a str, path: &str) -> Option<&'a str> {
    let mounts = log.lines().filter_map(|line| line.strip_prefix("MOUNT "));
    let own = mounts.filter_map(|line| line.split_once(' '));
    own.filter(|(at, _)| *at == path)
        .map(|(_, options)| options)
        .last()
}

/// Whether an Engine of this machine can start a privileged container: it cannot give what it lacks.
fn has_all_capabilities() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).expect("the kernel tells");
    let last: u32 = read("/proc/sys/kernel/cap_last_cap")
        .trim()
        .parse()
        .expect("a number");
    hex(&read("/proc/self/status"), "CapBnd") == (1 << (last + 1)) - 1
}

fn rights(setting: &Setting) {
    let mut cases = vec![
        ("ordinary", json!({}), (default_capabilities(), "0", "2")),
        (
            "modest",
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
            (0, "1", "2"),
        ),
        (
            "unconfined",
            json!({"seccompProfile": {"type": "Unconfined"}}),
            (default_capabilities(), "0", "0"),
        ),
    ];
    if has_all_capabilities() {
        let all = (u64::MAX, "0", "0");
        cases.push(("privileged", json!({"privileged": true}), all));
    } else {
        eprintln!("SKIPPED: the privileged container, this machine lacks a capability");
    }
    for (name, context, _) in &cases {
        let object = looking(name, context.clone());
        setting.kubectl.given("apply", &object).unwrap();
    }
    for (name, _, (capabilities, no_new_privileges, seccomp)) in cases {
        let log = looked(setting, name);
        assert_eq!(status(&log, "NoNewPrivs"), no_new_privileges, "{name}");
        assert_eq!(status(&log, "Seccomp"), seccomp, "{name}");
        let limit = format!("PIDS {PIDS_LIMIT}");
        assert!(log.lines().any(|line| line == limit), "{name}: {log}");
        let privileged = capabilities == u64::MAX;
        if privileged {
            let all = default_capabilities() | 1 << 21;
            assert_eq!(hex(&log, "CapEff") & all, all, "{name}");
        } else {
            assert_eq!(hex(&log, "CapEff"), capabilities, "{name}");
            assert_eq!(hex(&log, "CapBnd"), capabilities, "{name}");
            assert!(!log.contains("WROTE"), "{name}: {log}");
            assert!(!log.contains("READ"), "{name}: {log}");
        }
        for path in MASKED_PATHS {
            let there = std::path::Path::new(path).exists();
            let masked = mount(&log, path).is_some();
            assert_eq!(masked, there && !privileged, "{name}: {path}: {log}");
        }
        for path in READ_ONLY_PATHS {
            let there = std::path::Path::new(path).exists();
            let options = mount(&log, path).unwrap_or_default();
            let read_only = options.split(',').any(|option| option == "ro");
            assert_eq!(read_only, there && !privileged, "{name}: {path}: {log}");
        }
    }
    delete(setting, "pod ordinary modest unconfined privileged");
}

fn sandbox(setting: &Setting) {
    // The container is in the sandbox's PID namespace, and may look into every process there.
    let look = "cat /proc/1/status
while read -r a b c d path options rest; do echo MOUNT $path $options; done < /proc/1/mountinfo
echo DONE; sleep infinity";
    let curious = json!({
        "name": "main", "image": "tools", "command": ["sh", "-c", look],
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}},
    });
    let plain = json!({
        "name": "plain", "image": "tools",
        "command": ["sh", "-c", "ls /proc/1/root/ /proc/1/fd/ 2>&1; echo DONE; sleep infinity"],
    });
    for (name, host_network) in [("shares-host", true), ("shares", false)] {
        let spec = json!({
            "hostNetwork": host_network,
            "shareProcessNamespace": true,
            "containers": [curious, plain],
        });
        setting.kubectl.given("apply", &pod(name, spec)).unwrap();
    }
    for name in ["shares-host", "shares"] {
        let seen = looked(setting, &format!("{name} -c main"));
        assert_eq!(status(&seen, "Uid"), "65534\t65534\t65534\t65534", "{name}");
        for set in ["CapEff", "CapPrm", "CapAmb"] {
            assert_eq!(hex(&seen, set), 0, "{name}: {set}");
        }
        assert_eq!(status(&seen, "NoNewPrivs"), "1", "{name}");
        assert_eq!(status(&seen, "Seccomp"), "2", "{name}");
        assert!(!seen.contains("netns"), "{name}: {seen}");
        let seen = looked(setting, &format!("{name} -c plain"));
        assert!(seen.contains("Permission denied"), "{name}: {seen}");
        assert!(!seen.contains("orchestrator"), "{name}: {seen}");
    }
    delete(setting, "pod shares-host shares");
}

/// The pod's phase and reason, once it has that phase.
fn reason(setting: &Setting, name: &str, phase: &str) -> (String, String) {
    wait("a pod comes to its phase", || {
        let pod = setting.kubectl.json(&format!("get pod {name}"))?;
        let text = |field: &str| pod["status"][field].as_str().unwrap_or_default().to_owned();
        Ok((text("phase") == phase).then(|| (text("reason"), text("message"))))
    })
}

fn has_event(setting: &Setting, name: &str, reason: &str, text: &str) {
    wait("the event is there", || {
        let list = setting.kubectl.json("get events")?;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let ours = |event: &Value| {
            event["involvedObject"]["name"] == name
                && event["reason"] == reason
                && event["message"].as_str().unwrap_or_default().contains(text)
        };
        Ok(events.iter().any(ours).then_some(()))
    });
}

fn refused(setting: &Setting) {
    let context = |context: Value| json!({"securityContext": context});
    let cases = [
        (
            "sysctl",
            context(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
            "SysctlForbidden",
            "spec.securityContext.sysctls[0].name: forbidden sysctl: \"kernel.msgmax\"",
        ),
        (
            "users",
            json!({"hostUsers": false}),
            "Unsupported",
            "spec.hostUsers: false is not supported",
        ),
        (
            "armor",
            context(json!({"appArmorProfile": {"type": "RuntimeDefault"}})),
            "AppArmor",
            "spec.securityContext.appArmorProfile.type: Cannot enforce AppArmor",
        ),
        (
            "disk",
            json!({"volumes": [{"name": "t", "iscsi": {
                "targetPortal": "127.0.0.1:3260", "iqn": "iqn.2001-04.org.example:disk", "lun": 0,
            }}]}),
            "Unsupported",
            "spec.volumes[0].iscsi: volumes of this type are not supported",
        ),
    ];
    for (name, spec, ..) in &cases {
        setting
            .kubectl
            .given("apply", &pod(name, spec.clone()))
            .unwrap();
    }
    for (name, _, why, text) in cases {
        let (reason, message) = self::reason(setting, name, "Failed");
        assert_eq!(reason, why, "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
        has_event(setting, name, why, text);
        let filter = format!("label=orchestrator.pod.name={name}");
        let made = setting.cluster.docker(&["ps", "-aq", "--filter", &filter]);
        assert_eq!(made.unwrap().trim(), "", "{name} has a container");
    }
    delete(setting, "pod sysctl users armor disk");
}

fn pending(setting: &Setting) {
    let term = json!({"topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "nobody"}}});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let spread = json!({"maxSkew": 1, "topologyKey": "example.com/rack",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
    let cases = [
        (
            "alone",
            json!({"affinity": {"podAffinity": {required: [term]}}}),
            "node(s) didn't match pod affinity rules",
        ),
        (
            "spread",
            json!({"topologySpreadConstraints": [spread]}),
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
    ];
    for (name, spec, field) in cases {
        setting.kubectl.given("apply", &pod(name, spec)).unwrap();
        let condition = wait("the scheduler has looked at the pod", || {
            let pod = setting.kubectl.json(&format!("get pod {name}"))?;
            let conditions = pod["status"]["conditions"].as_array().cloned();
            let mut conditions = conditions.unwrap_or_default().into_iter();
            Ok(conditions.find(|condition| condition["type"] == "PodScheduled"))
        });
        assert_eq!(condition["status"], "False", "{name}");
        assert_eq!(condition["reason"], "Unschedulable", "{name}");
        let message = condition["message"].as_str().unwrap_or_default();
        assert!(message.contains(field), "{name}: {message}");
        has_event(setting, name, "FailedScheduling", field);
        reason(setting, name, "Pending");
    }
    delete(setting, "pod alone spread");
}

fn account(setting: &Setting) {
    let object = pod("stranger", json!({"serviceAccountName": "nobody"}));
    let error = setting.kubectl.given("create", &object).unwrap_err();
    let error = format!("{error:#}");
    let why = "pods \"stranger\" is forbidden: error looking up service account default/nobody: \
               serviceaccount \"nobody\" not found";
    assert!(error.contains(why), "{error}");
    // No window: the account is there as soon as the namespace is.
    for turn in 0..5 {
        let name = format!("fresh-{turn}");
        let mut inside = pod("first", json!({}));
        inside["metadata"]["namespace"] = name.clone().into();
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, inside]});
        setting.kubectl.given("create", &both).unwrap();
    }
    delete(
        setting,
        "namespace fresh-0 fresh-1 fresh-2 fresh-3 fresh-4 --wait=false",
    );
}

fn replaced(setting: &Setting) {
    let labels = json!({"app": "never"});
    let template = pod("x", json!({"hostUsers": false}));
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "never"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]}},
    });
    setting.kubectl.given("apply", &set).unwrap();
    let times = wait("the fourth pod is made", || {
        let list = setting.kubectl.json("get pods -l app=never")?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let time = |pod: &Value| -> Result<i64> {
            let text = pod["metadata"]["creationTimestamp"].as_str();
            Ok(text
                .context("a time")?
                .parse::<jiff::Timestamp>()?
                .as_second())
        };
        let mut times = items.iter().map(time).collect::<Result<Vec<_>>>()?;
        times.sort_unstable();
        Ok((times.len() >= 4).then_some(times))
    });
    delete(setting, "replicaset never");
    // Pauses of one, two and four seconds, of times that are cut to the second.
    assert!(times[3] - times[0] >= 5, "{times:?}");
    assert!(times.len() < 6, "{times:?}");
}

/// A pod on the first node to look from.
fn visitor(setting: &Setting) {
    let spec = json!({"nodeName": setting.cluster.node(1)});
    setting
        .kubectl
        .given("apply", &pod("visitor", spec))
        .unwrap();
    reason(setting, "visitor", "Running");
}

/// Runs a program in the network namespace of that pod, with the files of the machine.
fn from_visitor(setting: &Setting, arguments: &[&str]) -> Result<String> {
    let enter = setting.cluster.enter_pod("visitor", "main")?;
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let inside = std::thread::spawn(move || {
        enter();
        output(Command::new(&arguments[0]).args(&arguments[1..]))
    });
    inside.join().expect("the thread does not panic")
}

/// Protocol and port of everything that listens in the first node's namespace.
fn listening(setting: &Setting) -> BTreeSet<(String, u16)> {
    let mut ss = Command::new("ss");
    ss.arg("-Hlntu");
    let said = setting
        .cluster
        .namespace("node-1")
        .enter(|| output(&mut ss));
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let protocol = words.next()?.to_owned();
        let (_, port) = words.nth(3)?.rsplit_once(':')?;
        Some((protocol, port.parse().ok()?))
    };
    said.unwrap().lines().filter_map(line).collect()
}

fn node_addresses(setting: &Setting) -> Vec<String> {
    let mut ip = Command::new("ip");
    ip.args(["-j", "-4", "address", "show"]);
    let said = setting
        .cluster
        .namespace("node-1")
        .enter(|| output(&mut ip));
    let links: Value = serde_json::from_str(&said.unwrap()).unwrap();
    let links = links.as_array().cloned().unwrap_or_default();
    let addresses = links.iter().flat_map(|link| link["addr_info"].as_array());
    let addresses = addresses
        .flatten()
        .filter(|address| address["scope"] != "host");
    let addresses = addresses.filter_map(|address| address["local"].as_str());
    addresses.map(str::to_owned).collect()
}

fn ports(setting: &Setting) {
    visitor(setting);
    let table: BTreeSet<(String, u16)> = NODE_PORTS
        .iter()
        .map(|row| (row.protocol.to_owned(), row.port))
        .collect();
    assert_eq!(listening(setting), table);
    let addresses = node_addresses(setting);
    assert!(!addresses.is_empty());
    for address in addresses {
        let is_gateway = address.starts_with("10.100.");
        let expected: Vec<u16> = NODE_PORTS
            .iter()
            .filter(|row| row.protocol == "tcp" && (is_gateway || !row.on_gateway))
            .map(|row| row.port)
            .collect();
        let address: IpAddr = address.parse().unwrap();
        let enter = setting.cluster.enter_pod("visitor", "main").unwrap();
        let scan = std::thread::spawn(move || {
            enter();
            let open = |port: &u16| {
                TcpStream::connect_timeout(&SocketAddr::new(address, *port), PATIENCE).is_ok()
            };
            (1..=u16::MAX).filter(open).collect::<Vec<_>>()
        });
        assert_eq!(scan.join().unwrap(), expected, "{address}");
    }
    delete(setting, "pod visitor");
}

/// What curl says of a request that is not to be answered in full.
fn code(setting: &Setting, arguments: &[&str]) -> String {
    let fixed = [
        "curl",
        "-sk",
        "-g",
        "--max-time",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    let all: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
    match from_visitor(setting, &all) {
        Ok(code) => code,
        Err(error) => format!("{error:#}"),
    }
}

fn strangers(setting: &Setting) {
    visitor(setting);
    let pki = setting
        .cluster
        .dir()
        .join("agents")
        .join(setting.cluster.node(2))
        .join("pki");
    let file = |name: &str| pki.join(name).to_string_lossy().into_owned();
    let files: Vec<_> = std::fs::read_dir(&pki).unwrap().flatten().collect();
    assert!(!files.is_empty(), "{}", pki.display());
    let (certificate, key) = (file("node.crt"), file("node.key"));
    for address in node_addresses(setting) {
        for path in ["metrics", "healthz", "containerLogs/default/visitor/main"] {
            let url = format!("https://{address}:10250/{path}");
            // No answer, not even a refusal: the handshake ends without a certificate.
            let none = code(setting, &[&url]);
            assert!(none.contains("000"), "{url}: {none}");
            let node = code(setting, &["--cert", &certificate, "--key", &key, &url]);
            assert_eq!(node, "403", "{url}");
        }
    }
    let server = setting
        .kubectl
        .field("service kubernetes", "/spec/clusterIP")
        .unwrap();
    let join = format!("https://{server}/orchestrator/v1/join");
    let body = json!({"nodeName": "thief", "csr": ""}).to_string();
    let content = ["-H", "content-type: application/json", "-d", &body];
    let asked = |more: &[&str]| {
        let all: Vec<&str> = content.iter().chain(more).copied().collect();
        code(setting, &[&all[..], &[&join]].concat())
    };
    assert_eq!(asked(&[]), "401");
    assert_eq!(
        asked(&["-H", "authorization: Bearer 0123456789abcdef"]),
        "401"
    );
    for path in ["api/v1/secrets", "api/v1/nodes", "metrics"] {
        let url = format!("https://{server}/{path}");
        assert_eq!(code(setting, &[&url]), "403", "{url}");
    }
    delete(setting, "pod visitor");
}
