//! A worker with an engine in memory and an API that remembers what it was told.

use std::net::IpAddr;
use std::sync::Mutex;

use http_body_util::BodyExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::api::watched::fake::FakeApi;
use crate::network::wiring::WiringError;
use crate::runtime::Role;
use crate::runtime::fake::{self, FakeRuntime};
use crate::volumes::csi::{self, Places};
use datapath::{Addrs, HostPort, ObjectKey};

#[path = "worker_conformance_tests.rs"]
mod conformance;
#[path = "worker_csi_tests.rs"]
mod csi_volumes;
#[path = "worker_death_tests.rs"]
mod death;
#[path = "worker_server_tests.rs"]
mod server;
#[path = "worker_silence_tests.rs"]
mod silence;
#[path = "worker_start_tests.rs"]
mod start;

const PATIENCE: Duration = Duration::from_secs(10);

/// Every request that changed something: method, path, body.
type Told = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A network in which everything works.
struct FakeNetwork {
    /// Every pod's address.
    address: IpAddr,
    attached: Mutex<BTreeMap<String, Addrs>>,
}

impl FakeNetwork {
    fn of(address: [u8; 4]) -> FakeNetwork {
        FakeNetwork {
            address: IpAddr::from(address),
            attached: Mutex::default(),
        }
    }
}

impl PodNetwork for FakeNetwork {
    fn allocate(&self, _: &str) -> Result<Addrs, WiringError> {
        Ok(self.address.into())
    }

    fn restore(&self, _: &str, _: Addrs) -> bool {
        true
    }

    async fn attach(&self, uid: &str, _: u32, addrs: Addrs) -> Result<(), WiringError> {
        self.attached
            .lock()
            .expect("whole")
            .insert(uid.to_owned(), addrs);
        Ok(())
    }

    async fn join_node(&self, _: u32) -> Result<(), WiringError> {
        Ok(())
    }

    async fn host_ports(&self, _: Option<(&str, Vec<HostPort>)>) {}

    async fn detach(&self, uid: &str) -> Result<(), WiringError> {
        self.attached.lock().expect("whole").remove(uid);
        Ok(())
    }

    async fn release(&self, uid: &str) -> Result<(), WiringError> {
        self.detach(uid).await
    }
}

/// What the API server has heard of nodes: which are Ready, and how far each is with slices.
type Heard = watch::Sender<BTreeMap<String, (bool, Option<u64>)>>;

/// One node with one pod.
struct Stage {
    node: Arc<NodeContext<FakeRuntime, FakeNetwork>>,
    told: Told,
    heard: Heard,
    updates: watch::Sender<PodUpdate>,
    wake: Arc<Notify>,
    worker: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new(runtime: FakeRuntime, spec: Value) -> Stage {
        let stage = Stage::early(runtime, spec);
        stage.list();
        stage
    }

    /// The first list of slices is complete.
    fn list(&self) {
        self.node.nodes.slices_listed();
    }

    /// A stage whose agent has no list yet.
    fn early(runtime: FakeRuntime, spec: Value) -> Stage {
        Stage::with_objects(runtime, spec, FakeApi::default())
    }

    fn with_objects(runtime: FakeRuntime, spec: Value, objects: FakeApi) -> Stage {
        Stage::on(FakeNetwork::of([10, 0, 0, 2]), runtime, spec, objects)
    }

    fn on(network: FakeNetwork, runtime: FakeRuntime, spec: Value, objects: FakeApi) -> Stage {
        let told = Told::default();
        let dir = tempfile::tempdir().expect("a directory");
        let heard = Heard::default();
        let client = server::client(told.clone(), heard.clone(), objects.clone());
        let recorder = crate::api::events::recorder(client.clone(), "n1".to_owned());
        let places = Places {
            kubelet: dir.path().join("kubelet"),
            data: dir.path().to_owned(),
        };
        let in_use = csi::restored(&places);
        let node = Arc::new(NodeContext {
            name: "n1".to_owned(),
            addrs: watch::channel(IpAddr::from([172, 31, 0, 11]).into()).1,
            data_dir: dir.path().to_owned(),
            logs_dir: dir.path().join("log"),
            netns: PathBuf::from("/proc/self/ns/net"),
            capacity: Capacity {
                cpus: 1,
                memory_bytes: 1 << 30,
                disk_bytes: 1 << 30,
            },
            allocatable: api::amounts::read(&json!({ "cpu": "1", "memory": "1Gi" })),
            allocations: Arc::default(),
            abilities: Abilities::default(),
            dns: Dns::default(),
            runtime: Arc::new(runtime),
            image_roots: image_root::Known::default(),
            network,
            recorder: recorder.clone(),
            nodes: drain::Nodes::new("n1", client.clone()),
            csi: Csi::new("n1", client.clone(), recorder, places, in_use),
            client,
            metrics: Arc::default(),
            watched: Watched::new(objects.client(), Box::new(move || objects.client())),
            measuring: Measuring::every(Duration::from_millis(50)),
            running: Arc::default(),
        });
        let pod = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
            "spec": spec,
        });
        let pod = Arc::new(serde_json::from_value(pod).expect("a pod"));
        let (updates, receiver) = watch::channel(PodUpdate { pod, gone: false });
        let wake = Arc::new(Notify::new());
        let worker = tokio::spawn(run(node.clone(), receiver, wake.clone()));
        Stage {
            node,
            told,
            heard,
            updates,
            wake,
            worker,
            _dir: dir,
        }
    }

    fn running(&self, role: Role) -> usize {
        fake::running(&self.node.runtime.all(), role)
    }

    /// The last status that was written.
    fn status(&self) -> Value {
        let told = self.told.lock().expect("whole");
        let patches = told
            .iter()
            .rev()
            .filter(|(_, path, _)| path.ends_with("/web/status"));
        patches
            .map(|(_, _, body)| body["status"].clone())
            .next()
            .unwrap_or_default()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Stage) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "never {what}: {:#}",
                self.status()
            );
            self.wake.notify_one();
            tokio::task::yield_now().await;
        }
    }

    fn delete(&self, grace: i64) {
        self.delete_at(grace, 1);
    }

    fn delete_at(&self, grace: i64, revision: u64) {
        self.updates.send_modify(|update| {
            let at = Timestamp::now() + jiff::SignedDuration::from_secs(grace);
            let mut pod = Pod::clone(&update.pod);
            pod.metadata.resource_version = Some(revision.to_string());
            pod.metadata.deletion_timestamp = Some(crate::pod::status::seconds(at));
            update.pod = Arc::new(pod);
        });
    }

    fn confirmed(&self) -> bool {
        let told = self.told.lock().expect("whole");
        told.iter().any(|(method, path, body)| {
            let own = method == "DELETE" && path.ends_with("/pods/web");
            own && body["gracePeriodSeconds"] == 0 && body["preconditions"]["uid"] == "u1"
        })
    }
}

fn one_container() -> Value {
    json!({ "containers": [{ "name": "main", "image": "i:1" }] })
}

fn runtime() -> FakeRuntime {
    let runtime = FakeRuntime::default();
    runtime.add_image("i:1");
    runtime
}

#[tokio::test]
async fn a_pod_gets_its_sandbox_its_wire_and_its_container_and_is_reported_running() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    assert_eq!(
        (stage.running(Role::Sandbox), stage.running(Role::Main)),
        (1, 1)
    );
    assert_eq!(stage.node.network.attached.lock().expect("whole").len(), 1);
    assert_eq!(stage.status()["podIP"], "10.0.0.2");
    let hosts = stage.node.data_dir.join("pods/u1/etc/hosts");
    assert!(
        std::fs::read_to_string(hosts)
            .expect("written")
            .contains("10.0.0.2\tweb\n")
    );
}

#[tokio::test]
async fn a_container_that_ends_is_started_again_and_counted() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    stage.node.runtime.end("main", 1, Timestamp::now());
    stage
        .until("restarted", |it| {
            it.status()["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let main = &stage.status()["containerStatuses"][0];
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(stage.running(Role::Main), 1);
}

#[tokio::test]
async fn a_death_is_told_before_the_container_is_started_again() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    stage.node.runtime.end("main", 137, Timestamp::now());
    stage
        .until("restarted", |it| {
            it.status()["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let told = stage.told.lock().expect("whole");
    let statuses = told
        .iter()
        .filter(|(_, path, _)| path.ends_with("/web/status"));
    let seen = statuses.map(|(_, _, body)| {
        let main = &body["status"]["containerStatuses"][0];
        (main["ready"] == true, main["restartCount"].as_i64())
    });
    let seen: Vec<_> = seen.skip_while(|seen| *seen != (true, Some(0))).collect();
    assert_eq!(seen, [(true, Some(0)), (false, Some(0)), (true, Some(1))]);
}

#[tokio::test]
async fn a_process_that_ends_is_told_of_before_the_engine_knows() {
    let stage = Stage::new(runtime(), one_container());
    let ready = |it: &Stage| it.status()["containerStatuses"][0]["ready"].clone();
    stage.until("ready", |it| ready(it) == true).await;
    let told = |it: &Stage| {
        // Whoever waits may not wait yet.
        it.node.runtime.end_processes();
        ready(it) == false
    };
    stage.until("told of", told).await;
    assert_eq!(stage.running(Role::Main), 1, "as the engine has it");
    stage.node.runtime.end("main", 137, Timestamp::now());
    stage.until("ready again", |it| ready(it) == true).await;
    assert_eq!(stage.status()["containerStatuses"][0]["restartCount"], 1);
}

#[tokio::test]
async fn a_deleted_pod_is_stopped_removed_and_confirmed() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    stage.delete(30);
    stage.until("confirmed", Stage::confirmed).await;
    assert!(stage.node.runtime.all().is_empty());
    assert!(
        stage
            .node
            .network
            .attached
            .lock()
            .expect("whole")
            .is_empty()
    );
    assert!(!stage.node.data_dir.join("pods/u1").exists());
    stage.updates.send_modify(|update| update.gone = true);
    let ended = tokio::time::timeout(PATIENCE, stage.worker).await;
    ended.expect("the worker ends").expect("without a panic");
}

#[tokio::test]
async fn a_container_that_does_not_listen_is_killed_when_its_grace_is_over() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    stage.node.runtime.be_stubborn();
    stage.delete(1);
    stage.until("confirmed", Stage::confirmed).await;
    let told = stage.told.lock().expect("whole");
    let codes = told.iter().map(|(_, _, body)| {
        body["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].clone()
    });
    assert!(
        codes.into_iter().any(|code| code == 137),
        "the exit code was reported"
    );
}

#[tokio::test]
async fn a_second_worker_adopts_what_the_first_one_left() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    let before = stage.node.runtime.all();
    stage.worker.abort();
    let receiver = stage.updates.subscribe();
    let second = tokio::spawn(run(stage.node.clone(), receiver, stage.wake.clone()));
    stage.told.lock().expect("whole").clear();
    stage
        .until("reported again", |it| it.status()["phase"] == "Running")
        .await;
    assert_eq!(stage.node.runtime.all(), before);
    second.abort();
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_reported() {
    let stage = Stage::new(FakeRuntime::default(), one_container());
    let reason =
        |it: &Stage| it.status()["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    stage
        .until("reported", |it| reason(it) == "ErrImagePull")
        .await;
    assert_eq!(stage.status()["phase"], "Pending");
    assert_eq!(stage.running(Role::Main), 0);
}

#[tokio::test]
async fn a_container_that_cannot_start_counts_as_an_attempt() {
    let runtime = runtime();
    runtime.fail_starts("i:1", "exec: no such file");
    let stage = Stage::new(runtime, one_container());
    let last = |it: &Stage| {
        it.status()["containerStatuses"][0]["lastState"]["terminated"]["reason"].clone()
    };
    stage
        .until("reported", |it| last(it) == "ContainerCannotRun")
        .await;
}

/// The slice of a Service that the stage's pod is in.
fn slice(terminating: bool) -> EndpointSlice {
    let slice = json!({
        "metadata": { "name": "web-1", "namespace": "default" },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.0.0.2"],
            "nodeName": "n1",
            "conditions": { "ready": !terminating, "terminating": terminating },
            "targetRef": { "kind": "Pod", "uid": "u1" },
        }],
    });
    serde_json::from_value(slice).expect("a slice")
}

/// The Ready nodes, and how far each has said that it is.
fn nodes(stage: &Stage, nodes: &[(&str, bool, Option<u64>)]) {
    stage.heard.send_modify(|heard| {
        for (name, ready, applied) in nodes {
            heard.insert((*name).to_owned(), (*ready, *applied));
        }
    });
}

fn key() -> ObjectKey {
    ObjectKey::new("default", "web-1")
}

/// A pod that runs and has begun to leave its Service.
async fn leaving(known: &[(&str, bool, Option<u64>)]) -> Stage {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    nodes(&stage, known);
    stage.node.nodes.slice(key(), Some(&slice(false)), 5);
    stage.delete(30);
    stage.wake.notify_one();
    stage
}

#[tokio::test]
async fn a_pod_is_stopped_when_every_ready_node_has_said_that_it_left() {
    const LONG_ENOUGH: Duration = Duration::from_millis(100);
    let started = Instant::now();
    let dead = ("n3", false, None);
    let stage = leaving(&[("n1", true, Some(5)), ("n2", true, Some(5)), dead]).await;
    tokio::time::sleep(LONG_ENOUGH).await;
    assert_eq!(stage.running(Role::Main), 1, "a slice still has it");
    stage.node.nodes.slice(key(), Some(&slice(true)), 9);
    nodes(&stage, &[("n1", true, Some(9)), ("n2", true, Some(8))]);
    tokio::time::sleep(LONG_ENOUGH).await;
    assert_eq!(
        stage.running(Role::Main),
        1,
        "n2 has not applied revision 9"
    );
    nodes(&stage, &[("n2", true, Some(12))]);
    stage.until("confirmed", Stage::confirmed).await;
    let took = started.elapsed();
    assert!(
        took < Duration::from_millis(1900),
        "the dead node is not waited for: {took:?}"
    );
}

#[tokio::test]
async fn a_node_that_says_nothing_delays_a_stop_by_two_seconds() {
    let stage = leaving(&[("n1", true, Some(5)), ("n2", true, None)]).await;
    let started = Instant::now();
    stage.node.nodes.slice(key(), Some(&slice(true)), 9);
    nodes(&stage, &[("n1", true, Some(9))]);
    stage.until("confirmed", Stage::confirmed).await;
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(1800) && took < Duration::from_millis(2700),
        "{took:?}"
    );
}

/// A pod that runs and is told to end while its agent has no list yet.
async fn ending_early() -> Stage {
    let stage = Stage::early(runtime(), one_container());
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    stage.delete(30);
    stage.wake.notify_one();
    stage
}

#[tokio::test]
async fn a_pod_that_ends_before_the_first_lists_are_there_waits_for_what_they_say() {
    const LONG_ENOUGH: Duration = Duration::from_millis(100);
    let stage = ending_early().await;
    let started = Instant::now();
    tokio::time::sleep(LONG_ENOUGH).await;
    assert_eq!(stage.running(Role::Main), 1, "a slice may have it");
    nodes(&stage, &[("n1", true, Some(9)), ("n2", true, Some(8))]);
    stage.node.nodes.slice(key(), Some(&slice(true)), 9);
    stage.list();
    tokio::time::sleep(LONG_ENOUGH).await;
    assert_eq!(stage.running(Role::Main), 1, "n2 has not applied it");
    nodes(&stage, &[("n2", true, Some(9))]);
    stage.until("confirmed", Stage::confirmed).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(1900), "{took:?}");
}

#[tokio::test]
async fn a_pod_that_no_listed_slice_names_is_stopped_at_once() {
    let stage = ending_early().await;
    let started = Instant::now();
    stage.list();
    stage.until("confirmed", Stage::confirmed).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(1900), "{took:?}");
    let metrics = stage.node.metrics.text();
    assert!(metrics.contains("leave_unconfirmed_total 0"), "{metrics}");
}

#[tokio::test]
async fn a_pod_that_is_stopped_before_the_first_lists_are_there_counts_as_unconfirmed() {
    let stage = ending_early().await;
    stage.until("confirmed", Stage::confirmed).await;
    let metrics = stage.node.metrics.text();
    assert!(metrics.contains("leave_unconfirmed_total 1"), "{metrics}");
}

#[tokio::test]
async fn a_pod_that_no_service_names_any_more_is_not_waited_for_unless_one_went_while_it_ended() {
    const BEFORE: u64 = 6;
    const SINCE: u64 = 8;
    for (went, waits) in [(BEFORE, false), (SINCE, true)] {
        let stage = Stage::new(runtime(), one_container());
        stage
            .until("running", |it| it.running(Role::Main) == 1)
            .await;
        nodes(&stage, &[("n1", true, Some(9))]);
        stage.node.nodes.slice(key(), Some(&slice(false)), 5);
        stage.node.nodes.slice(key(), None, went);
        let started = Instant::now();
        stage.delete_at(30, 7);
        stage.wake.notify_one();
        stage.until("confirmed", Stage::confirmed).await;
        let waited = started.elapsed() > Duration::from_millis(1800);
        assert_eq!(waited, waits, "{went}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn the_termination_message_of_a_container_is_in_its_status() {
    let stage = Stage::new(runtime(), one_container());
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
    let message = stage
        .node
        .data_dir
        .join("pods/u1/termination-messages/main-0");
    std::fs::write(message, "out of luck").expect("written");
    stage.node.runtime.end("main", 1, Timestamp::now());
    let said = |it: &Stage| {
        it.status()["containerStatuses"][0]["lastState"]["terminated"]["message"].clone()
    };
    stage
        .until("reported", |it| said(it) == "out of luck")
        .await;
}

#[tokio::test]
async fn a_restarted_agent_neither_restarts_nor_unreadies_a_container_with_probes() {
    // Nothing listens at the fake address: every probe that a worker makes fails. A container that
    // was reported ready is adopted as such, and is not killed for what the agent does not know yet.
    let tcp = json!({ "tcpSocket": { "port": 1 }, "periodSeconds": 60 });
    let spec = json!({ "containers": [{
        "name": "main", "image": "i:1", "readinessProbe": tcp, "livenessProbe": tcp,
    }]});
    let stage = Stage::new(runtime(), spec);
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    stage.worker.abort();
    let before = stage.node.runtime.all();
    let mut status = stage.status();
    status["containerStatuses"][0]["ready"] = json!(true);
    stage.updates.send_modify(|update| {
        let mut pod = Pod::clone(&update.pod);
        pod.status = serde_json::from_value(status).expect("a status");
        update.pod = Arc::new(pod);
    });
    stage.told.lock().expect("whole").clear();
    let receiver = stage.updates.subscribe();
    let second = tokio::spawn(run(stage.node.clone(), receiver, stage.wake.clone()));
    stage
        .until("reported again", |it| !it.status().is_null())
        .await;
    assert_eq!(stage.status()["containerStatuses"][0]["ready"], true);
    assert_eq!(stage.node.runtime.all(), before);
    second.abort();
}

/// The events that were written: reason and message.
fn events(stage: &Stage) -> Vec<(String, String)> {
    let told = stage.told.lock().expect("whole");
    let events = told.iter().filter(|(_, path, _)| path.ends_with("/events"));
    let text = |body: &Value, field: &str| body[field].as_str().unwrap_or_default().to_owned();
    events
        .map(|(_, _, body)| (text(body, "reason"), text(body, "message")))
        .collect()
}

#[tokio::test]
async fn a_refused_pod_has_failed_for_good_and_never_gets_a_container() {
    let mut spec = one_container();
    spec["securityContext"] = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
    let stage = Stage::new(runtime(), spec);
    stage
        .until("failed", |it| it.status()["phase"] == "Failed")
        .await;
    let why = "spec.securityContext.sysctls[0].name: forbidden sysctl: \"kernel.msgmax\" not \
               allowlisted";
    assert_eq!(stage.status()["reason"], "SysctlForbidden");
    assert_eq!(
        stage.status()["message"],
        format!("Pod was rejected: {why}")
    );
    assert_eq!(stage.status()["containerStatuses"], Value::Null);
    let expected = ("SysctlForbidden".to_owned(), why.to_owned());
    stage
        .until("told", |it| events(it) == [expected.clone()])
        .await;
    // The API's answer comes back, and the worker looks again.
    let status = serde_json::from_value(stage.status()).expect("a status");
    stage.updates.send_modify(|update| {
        let pod = Pod::clone(&update.pod);
        let status = Some(status);
        update.pod = Arc::new(Pod { status, ..pod });
    });
    stage.delete(30);
    stage.until("confirmed", Stage::confirmed).await;
    assert_eq!(events(&stage), [expected]);
    assert!(stage.node.runtime.all().is_empty());
}

#[tokio::test]
async fn what_a_pod_runs_without_is_said_once() {
    let mut spec = one_container();
    let context = json!({ "seLinuxOptions": { "level": "s0" } });
    spec["containers"][0]["securityContext"] = context;
    let stage = Stage::new(runtime(), spec);
    stage
        .until("running", |it| it.status()["phase"] == "Running")
        .await;
    let unsupported = |it: &Stage| {
        let all = events(it);
        let ours = all
            .into_iter()
            .filter(|(reason, _)| reason == "Unsupported");
        ours.map(|(_, message)| message).collect::<Vec<_>>()
    };
    let expected =
        "spec.containers[0].securityContext.seLinuxOptions: SELinux is not enabled on the host";
    stage
        .until("told", |it| unsupported(it) == [expected])
        .await;
    stage.node.runtime.end("main", 1, Timestamp::now());
    stage
        .until("restarted", |it| {
            it.status()["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    assert_eq!(unsupported(&stage), [expected]);
}

#[tokio::test]
async fn what_is_no_image_name_never_gets_to_the_engine() {
    let image = "../containers/x/json?";
    let spec = json!({ "containers": [{ "name": "main", "image": image }] });
    let stage = Stage::new(runtime(), spec);
    let waiting = |it: &Stage| it.status()["containerStatuses"][0]["state"]["waiting"].clone();
    stage
        .until("told", |it| waiting(it)["reason"] == "InvalidImageName")
        .await;
    assert_eq!(stage.running(Role::Main), 0);
}

#[tokio::test]
async fn what_the_kernel_would_cut_or_not_take_is_an_error_that_names_it() {
    // With `A=` and the NUL, one byte too many.
    let long = "x".repeat(128 * 1024 - 2);
    let cases = [
        (json!({"args": ["a\0b"]}), "args[0] contains a NUL"),
        (
            json!({"command": ["a", "a\0b"]}),
            "command[1] contains a NUL",
        ),
        (
            json!({"env": [{"name": "A", "value": "a\0b"}]}),
            "the environment variable \"A\" contains a NUL",
        ),
        (
            json!({"env": [{"name": "A", "value": long}]}),
            "the environment variable \"A\" is 131072 bytes long: no process can be started with \
             more than 131071",
        ),
        (
            json!({"env": [{"name": "A", "value": long}], "args": ["", "$(A)$(A)"]}),
            "the environment variable \"A\" is 131072 bytes long: no process can be started with \
             more than 131071",
        ),
        (
            json!({"env": [{"name": "A", "value": long[1..]}], "args": ["", "$(A)$(A)"]}),
            "args[1] is 262138 bytes long: no process can be started with more than 131071",
        ),
    ];
    for (given, message) in cases {
        let mut container = json!({"name": "main", "image": "i:1"});
        for (field, value) in given.as_object().expect("an object") {
            container[field] = value.clone();
        }
        let stage = Stage::new(runtime(), json!({ "containers": [container] }));
        let waiting = |it: &Stage| it.status()["containerStatuses"][0]["state"]["waiting"].clone();
        let told = |it: &Stage| {
            waiting(it)["reason"] == "CreateContainerConfigError"
                && waiting(it)["message"] == message
        };
        stage.until(message, told).await;
        assert_eq!(stage.running(Role::Main), 0);
    }
}

#[tokio::test]
async fn the_longest_variable_that_a_process_can_have_is_given() {
    let longest = "x".repeat(128 * 1024 - 3);
    let env = json!([{"name": "A", "value": longest}]);
    let spec = json!({ "containers": [{"name": "main", "image": "i:1", "env": env}] });
    let stage = Stage::new(runtime(), spec);
    stage
        .until("running", |it| it.running(Role::Main) == 1)
        .await;
}

#[path = "worker_volume_tests.rs"]
mod volumes;
