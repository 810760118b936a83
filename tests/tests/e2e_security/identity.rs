//! What a node, a token and a stranger may do at the API server.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::cluster::{kubectls, wait};
use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[
    (
        "the_certificate_of_a_node_reads_what_its_pods_refer_to_and_nothing_of_other_nodes",
        the_certificate_of_a_node_reads_what_its_pods_refer_to_and_nothing_of_other_nodes,
    ),
    (
        "the_certificate_of_a_node_moves_no_traffic_and_no_pod_of_others",
        the_certificate_of_a_node_moves_no_traffic_and_no_pod_of_others,
    ),
    (
        "a_token_joins_no_machine_under_a_name_that_exists_and_ends_when_it_is_deleted",
        a_token_joins_no_machine_under_a_name_that_exists_and_ends_when_it_is_deleted,
    ),
];

/// kubectl with the certificate that the agent of a node has.
struct Thief<'a> {
    setting: &'a Setting,
    node: String,
}

impl<'a> Thief<'a> {
    fn of(setting: &'a Setting, number: u8) -> Self {
        let node = setting.cluster.node(number);
        Self { setting, node }
    }

    fn file(&self, name: &str) -> PathBuf {
        let agents = self.setting.cluster.dir().join("agents");
        agents.join(&self.node).join("pki").join(name)
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let (_, program) = kubectls().pop().expect("a kubectl");
        let server = self
            .setting
            .kubectl
            .run("config view --raw -o jsonpath={.clusters[0].cluster.server}");
        let mut command = Command::new("timeout");
        command.arg("60").arg(program);
        // No other credential is at hand.
        command
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", "/nonexistent");
        command.arg("--server").arg(server.expect("a server"));
        command
            .arg("--certificate-authority")
            .arg(self.file("ca.crt"));
        command
            .arg("--client-certificate")
            .arg(self.file("node.crt"));
        command.arg("--client-key").arg(self.file("node.key"));
        command.args(arguments).output().expect("kubectl starts")
    }

    #[track_caller]
    fn may(&self, words: &str) -> String {
        let output = self.kubectl(&words.split_whitespace().collect::<Vec<_>>());
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} may {words}: {why}", self.node);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn may_not(&self, words: &str) {
        self.is_refused(&words.split_whitespace().collect::<Vec<_>>());
    }

    #[track_caller]
    fn is_refused(&self, arguments: &[&str]) {
        let output = self.kubectl(arguments);
        let why = String::from_utf8_lossy(&output.stderr);
        // What is not the node's to claim is invalid, as for everybody.
        let refused = ["orbidden", "nvalid value"]
            .iter()
            .any(|word| why.contains(word));
        let refused = !output.status.success() && refused;
        assert!(refused, "{} {arguments:?}: {output:?}", self.node);
    }
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"key": name}})
}

fn pod(name: &str, node: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "tools", "command": ["sleep", "1000"],
                "env": [{"name": "A",
                    "valueFrom": {"secretKeyRef": {"name": secret, "key": "key"}}}]}],
        },
    })
}

/// What node 1 tries while its pod `identity-own` runs.
const REFUSED: &[&str] = &[
    "get secret identity-other",
    "get secrets",
    "get secrets -A",
    "get configmaps -A",
    "get pods",
    "get pods -A",
    "get pod identity-other",
    "get namespaces",
    "get deployments -A",
    "get events -A",
    "get serviceaccounts -A",
    "get secrets -n kube-system",
    "logs identity-own",
    "delete pod identity-other",
    "delete secret identity-own",
    "create configmap identity-new",
    "create namespace identity-new",
    "run identity-new --image=tools",
];

fn the_certificate_of_a_node_reads_what_its_pods_refer_to_and_nothing_of_other_nodes(
    setting: &Setting,
) {
    let admin = &setting.kubectl;
    let thief = Thief::of(setting, 1);
    for (name, number) in [("identity-own", 1), ("identity-other", 2)] {
        let node = setting.cluster.node(number);
        admin.given("create", &secret(name)).expect("a Secret");
        admin
            .given("create", &pod(name, &node, name))
            .expect("a pod");
    }
    wait("both pods run", || {
        let phase = |name: &str| admin.field(&format!("pod {name}"), "/status/phase");
        let both = [phase("identity-own")?, phase("identity-other")?];
        Ok((both == ["Running", "Running"]).then_some(()))
    });
    thief.may("get secret identity-own");
    thief.may("get pod identity-own");
    let own = format!(
        "get pods -A --field-selector spec.nodeName={} -o name",
        thief.node
    );
    assert!(!thief.may(&own).contains("identity-other"));
    thief.may("get services -A");
    thief.may("get endpointslices -A");
    let other = setting.cluster.node(2);
    let nodes = thief.may("get nodes -o json");
    let nodes: Value = serde_json::from_str(&nodes).expect("JSON");
    for node in nodes["items"].as_array().into_iter().flatten() {
        let whole = node["metadata"]["name"] == *thief.node;
        assert_eq!(node["status"]["nodeInfo"].is_object(), whole, "{node}");
    }
    let node = |verb: &str| format!("{verb} {other}");
    for words in REFUSED.iter().copied().chain([
        node("delete node").as_str(),
        format!("annotate node {other} a=b").as_str(),
        format!("label node {other} a=b").as_str(),
    ]) {
        thief.may_not(words);
    }
    admin
        .run("delete pod identity-own --wait --grace-period=0 --force")
        .expect("deleted");
    wait("the Secret is out of reach with the pod", || {
        let output = thief.kubectl(&["get", "secret", "identity-own"]);
        Ok((!output.status.success()).then_some(()))
    });
    thief.may_not("get secret identity-own");
    admin
        .run("delete pod identity-other --grace-period=0 --force")
        .expect("deleted");
    admin
        .run("delete secret identity-own identity-other")
        .expect("deleted");
}

fn the_certificate_of_a_node_moves_no_traffic_and_no_pod_of_others(setting: &Setting) {
    let thief = Thief::of(setting, 1);
    let (own, other) = (thief.node.clone(), setting.cluster.node(2));
    let admin = &setting.kubectl;
    let address = admin.field(&format!("node {other}"), "/status/addresses/0/address");
    let address = address.expect("an address");
    let range = admin
        .field(&format!("node {other}"), "/spec/podCIDR")
        .expect("a range");
    let before = admin.json(&format!("get node {own}")).expect("a node");
    let mapped = format!("::ffff:{}/120", range.trim_end_matches("/24"));
    let patches = [
        json!({"metadata": {"labels": {"for": "payments"}}}),
        json!({"metadata": {"labels": {"kubernetes.io/hostname": other}}}),
        json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}),
        json!({"metadata": {"annotations": {"orchestrator/key-sha256": "0"}}}),
        json!({"metadata": {"finalizers": ["a/b"]}}),
        json!({"spec": {"podCIDR": range, "podCIDRs": [range]}}),
        json!({"spec": {"podCIDRs": [before["spec"]["podCIDR"], mapped]}}),
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        json!({"spec": {"unschedulable": true}}),
    ];
    for patch in &patches {
        let patch = patch.to_string();
        thief.is_refused(&["patch", "node", &own, "--type=merge", "-p", &patch]);
    }
    for stolen in [address.as_str(), "127.0.0.1", "10.96.0.1"] {
        let addresses = json!([{"type": "InternalIP", "address": stolen}]);
        let patch = json!({"status": {"addresses": addresses}}).to_string();
        let arguments = [
            "patch",
            "node",
            &own,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        thief.is_refused(&[&arguments[..], &[patch.as_str()]].concat());
    }
    let after = admin.json(&format!("get node {own}")).expect("a node");
    for pointer in [
        "/spec",
        "/metadata/labels",
        "/metadata/annotations",
        "/status/addresses",
    ] {
        assert_eq!(before.pointer(pointer), after.pointer(pointer), "{pointer}");
    }
}

fn a_token_joins_no_machine_under_a_name_that_exists_and_ends_when_it_is_deleted(
    setting: &Setting,
) {
    let cluster = &setting.cluster;
    let processes = cluster.processes().expect("the supervisor's processes");
    let program = processes[0]["program"]
        .as_str()
        .expect("a program")
        .to_owned();
    let kubeconfig = cluster.dir().join("kubeconfig");
    let token = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("token")
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&kubeconfig);
        tests::cluster::output(&mut command)
    };
    let line = token(&["create", "--ttl", "5m", "--description", "identity"]).expect("a token");
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words
            .iter()
            .position(|word| *word == flag)
            .expect("the flag");
        words[at + 1].to_owned()
    };
    let (server, text) = (after("--server"), after("--token"));
    let listed = token(&["list"]).expect("a list");
    assert!(listed.contains("identity"), "{listed}");
    let secret = text.rsplit('.').next().expect("a secret");
    assert!(!listed.contains(secret), "the list shows no secret");
    // Another machine, whose data directory is empty, with the name of a node.
    let join = |name: &str, address: &str| -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("timeout");
        command
            .arg("20")
            .arg(&program)
            .args(["agent", "--server", &server, "--token", &text]);
        command.args(["--node-name", name, "--node-ip", address, "--data-dir"]);
        let output = command.arg(directory.path()).output().expect("it starts");
        assert!(!output.status.success(), "the machine joined as {name}");
        assert!(
            !directory.path().join("pki/node.crt").exists(),
            "it was given a certificate"
        );
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let other = cluster.node(2);
    let why = join(&other, "192.0.2.9");
    assert!(why.contains("does not hold its key"), "{why}");
    let address = setting
        .kubectl
        .field(&format!("node {other}"), "/status/addresses/0/address");
    let why = join("identity-new", &address.expect("an address"));
    assert!(why.contains("is an address of another node"), "{why}");
    let id = text.split('.').nth(1).expect("an id");
    token(&["delete", id]).expect("deleted");
    let why = join("identity-new", "192.0.2.9");
    assert!(why.contains("not one of this cluster's"), "{why}");
    let log = std::fs::read_to_string(cluster.dir().join("log/server.log")).expect("a log");
    assert!(
        log.contains("a machine was refused to join"),
        "the attempts are in the log"
    );
    assert!(!log.contains(secret), "the token is not");
}
