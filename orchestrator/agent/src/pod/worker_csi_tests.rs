//! Volumes of CSI drivers in the life of a pod, with a driver that tells what it was asked.

use std::path::Path;

use super::*;
use crate::api::sources::{Claimed, Mounted};
use crate::runtime::container_spec::SpecError;
use crate::volumes::csi::double::{Double, Mischief, NAME};
use crate::volumes::csi::messages::{PublishVolume, STAGES, StageVolume};
use crate::volumes::csi::restored;
use api::kinds::storage::attach::{attachment_name, volume_key};

/// A pod with this volume at `/data`.
fn with_volume(volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = json!("data");
    json!({
        "containers": [{ "name": "main", "image": "i:1", "volumeMounts": [
            { "name": "data", "mountPath": "/data" },
        ]}],
        "volumes": [volume],
    })
}

fn claimed() -> Value {
    with_volume(json!({ "persistentVolumeClaim": { "claimName": "c" } }))
}

fn inline() -> Value {
    with_volume(json!({ "csi": { "driver": NAME, "volumeAttributes": { "size": "1" } } }))
}

/// A bound claim, its volume, and its attachment to the node.
fn objects() -> FakeApi {
    let api = FakeApi::default();
    let claim = json!({ "metadata": { "uid": "c1" }, "spec": { "volumeName": "pv" },
        "status": { "phase": "Bound" } });
    api.put("persistentvolumeclaims", "c", claim);
    let volume = json!({ "metadata": {}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
        "claimRef": { "uid": "c1" },
        "csi": { "driver": NAME, "volumeHandle": "h" },
    }});
    api.put("persistentvolumes", "pv", volume);
    let attachment = json!({ "metadata": {},
        "spec": { "attacher": NAME, "nodeName": "n1", "source": {} },
        "status": { "attached": true, "attachmentMetadata": { "lun": "7" } } });
    api.put(
        "volumeattachments",
        &attachment_name(NAME, "h", "n1"),
        attachment,
    );
    api.put("nodes", "n1", node(&[&key()]));
    api.put("csidrivers", "other", json!({ "metadata": {}, "spec": {} }));
    api
}

fn key() -> String {
    volume_key(NAME, "h")
}

/// The node uses the volume, and has these.
fn node(attached: &[&str]) -> Value {
    let attached: Vec<Value> = attached
        .iter()
        .map(|name| json!({ "name": name, "devicePath": "" }))
        .collect();
    let status = json!({ "volumesInUse": [key()], "volumesAttached": attached });
    json!({ "metadata": { "uid": "n" }, "status": status })
}

async fn stage(api: &FakeApi, spec: Value, offers: &[i32]) -> (Stage, Double) {
    let mut stage = Stage::with_objects(runtime(), spec, api.clone());
    stage.list();
    let double = Double::start(&stage.node.csi.places().kubelet, offers);
    start_anew(&mut stage).await;
    (stage, double)
}

/// The agent dies, and another one takes its place.
async fn start_anew(stage: &mut Stage) {
    stage.worker.abort();
    stage.node.csi.start_anew().await;
    let receiver = stage.updates.subscribe();
    stage.worker = tokio::spawn(run(stage.node.clone(), receiver, stage.wake.clone()));
}

fn runs(stage: &Stage) -> bool {
    stage.status()["phase"] == "Running"
}

/// What the container finds in its volume.
fn seen(stage: &Stage) -> Option<String> {
    let spec = stage.node.runtime.spec("main")?;
    let mount = spec.mounts.iter().find(|mount| mount.target == "/data")?;
    std::fs::read_to_string(mount.source.join("file")).ok()
}

fn told_of(stage: &Stage, text: &str) -> bool {
    let told = stage.told.lock().expect("whole");
    let events = told.iter().map(|(_, _, body)| body);
    let mut failed = events.filter(|it| it["reason"] == "FailedMount");
    failed.any(|it| it["message"].as_str().is_some_and(|it| it.contains(text)))
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[tokio::test]
async fn a_volume_is_staged_published_seen_and_let_go_in_order_over_the_death_of_an_agent() {
    let (mut stage, double) = stage(&objects(), claimed(), &[STAGES]).await;
    stage.until("running", runs).await;
    assert_eq!(seen(&stage).as_deref(), Some("h"));
    assert_eq!(double.asked(), ["NodeStageVolume", "NodePublishVolume"]);
    let asked: StageVolume = double.question("NodeStageVolume").expect("a question");
    assert_eq!(asked.publish_context["lun"], "7");
    let asked: PublishVolume = double.question("NodePublishVolume").expect("a question");
    let places = stage.node.csi.places().clone();
    let target = places
        .kubelet
        .join("pods/u1/volumes/kubernetes.io~csi/pv/mount");
    assert_eq!(asked.target_path, target.display().to_string());
    let in_use = restored(&places).subscribe();
    assert_eq!(in_use.borrow().iter().collect::<Vec<_>>(), [&key()]);

    double.forget();
    start_anew(&mut stage).await;
    stage.node.runtime.end("main", 1, Timestamp::now());
    let again = |it: &Stage| it.status()["containerStatuses"][0]["restartCount"] == 1;
    stage.until("started again", again).await;
    assert_eq!(double.asked(), [""; 0]);

    start_anew(&mut stage).await;
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
    assert_eq!(double.asked(), ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    assert!(is_empty(&places.kubelet.join("pods")));
    assert!(restored(&places).subscribe().borrow().is_empty());
}

#[tokio::test]
async fn what_an_agent_began_before_it_died_is_undone_by_the_next_one() {
    let (mut stage, double) = stage(&objects(), claimed(), &[STAGES]).await;
    double.misbehave("NodePublishVolume", Mischief::Hang);
    let hangs = |_: &Stage| double.asked() == ["NodeStageVolume", "NodePublishVolume"];
    stage.until("hanging", hangs).await;
    double.forget();
    start_anew(&mut stage).await;
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
    let asked = double.asked();
    let undone = &asked[asked.len().saturating_sub(2)..];
    assert_eq!(
        undone,
        ["NodeUnpublishVolume", "NodeUnstageVolume"],
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_volume_of_the_pod_itself_is_published_with_what_the_driver_wants_to_know_of_the_pod() {
    let api = objects();
    let driver = json!({ "metadata": {}, "spec": { "podInfoOnMount": true,
        "volumeLifecycleModes": ["Ephemeral"],
        "tokenRequests": [{ "audience": "vault" }] } });
    api.put("csidrivers", NAME, driver);
    let (stage, double) = stage(&api, inline(), &[STAGES]).await;
    stage.until("running", runs).await;
    assert_eq!(double.asked(), ["NodePublishVolume"]);
    let asked: PublishVolume = double.question("NodePublishVolume").expect("a question");
    assert!(asked.volume_id.starts_with("csi-"), "{}", asked.volume_id);
    let context = asked.volume_context;
    assert_eq!(context["size"], "1");
    assert_eq!(context["csi.storage.k8s.io/pod.uid"], "u1");
    assert_eq!(context["csi.storage.k8s.io/ephemeral"], "true");
    let tokens = &context["csi.storage.k8s.io/serviceAccount.tokens"];
    let tokens: Value = serde_json::from_str(tokens).expect("JSON");
    let token = tokens["vault"]["token"].as_str();
    assert!(token.is_some_and(|token| token.starts_with("token-")));
    double.forget();
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
    assert_eq!(double.asked(), ["NodeUnpublishVolume"]);
}

#[tokio::test]
async fn a_volume_waits_until_the_node_has_it() {
    let api = objects();
    api.put("nodes", "n1", node(&[]));
    let (stage, double) = stage(&api, claimed(), &[]).await;
    let waits = |it: &Stage| told_of(it, "still waiting for the volume to be attached");
    stage.until("waiting", waits).await;
    assert_eq!(double.asked(), [""; 0]);
    api.put("nodes", "n1", node(&[&key()]));
    stage.until("running", runs).await;
    assert_eq!(double.asked(), ["NodePublishVolume"]);
}

#[tokio::test]
async fn a_driver_that_hangs_lies_or_floods_fails_the_mount_and_keeps_nobody_from_deleting_the_pod()
{
    let cases = [
        (Mischief::Hang, "for its driver's answer"),
        (Mischief::Flood(16 << 20), "code = OutOfRange"),
        (Mischief::Nothing, "the driver published nothing"),
        (Mischief::Link, "the driver published no directory"),
        (Mischief::Fail, "code = Internal"),
    ];
    for (how, text) in cases {
        let (stage, double) = stage(&objects(), claimed(), &[]).await;
        double.misbehave("NodePublishVolume", how);
        stage.until(text, |it| told_of(it, text)).await;
        assert_eq!(stage.running(Role::Main), 0, "{how:?}");
        double.behave();
        stage.delete(0);
        stage.until("confirmed", Stage::confirmed).await;
        assert!(is_empty(&stage.node.csi.places().kubelet.join("pods")));
    }
}

#[tokio::test]
async fn a_driver_whose_socket_is_gone_or_elsewhere_is_none() {
    let (stage, double) = stage(&objects(), claimed(), &[]).await;
    assert_eq!(double.registered().as_deref(), Some(""));
    let told = |stage: &Stage, kind: &str| {
        let told = stage.told.lock().expect("whole");
        let mut told = told.iter().map(|(_, path, body)| (path, body));
        let found =
            told.find(|(path, body)| path.contains(kind) && !body["spec"]["drivers"][0].is_null());
        found.map(|(_, body)| body.clone())
    };
    let said = told(&stage, "/csinodes/n1").expect("a CSINode");
    let driver = &said["spec"]["drivers"][0];
    assert_eq!(
        (&driver["name"], &driver["nodeID"]),
        (&json!(NAME), &json!("id-of-n1"))
    );
    assert_eq!(driver["allocatable"]["count"], 3);
    double.set_endpoint("/run/docker.sock");
    stage.node.csi.start_anew().await;
    let why = double.registered().expect("an answer");
    assert!(why.contains("is not below"), "{why}");
    drop(double);
    stage.node.csi.start_anew().await;
    let text = "not found in the list of registered CSI drivers";
    stage.until(text, |it| told_of(it, text)).await;
}

/// A pod of this uid with the claim of `objects`, whose volume is for one pod.
fn alone(uid: &str) -> (Pod, Claimed) {
    let pod = json!({ "metadata": { "name": uid, "namespace": "default", "uid": uid },
        "spec": claimed() });
    let volume = json!({ "metadata": { "name": "pv" }, "spec": {
        "accessModes": ["ReadWriteOncePod"],
        "csi": { "driver": NAME, "volumeHandle": "h" } } });
    let volume = serde_json::from_value(volume).expect("a volume");
    let claimed = Claimed::from([("data".to_owned(), Ok(Arc::new(volume)))]);
    (serde_json::from_value(pod).expect("a pod"), claimed)
}

type Outcome = Result<BTreeMap<String, Mounted>, SpecError>;

async fn mount(stage: &Stage, uid: &str) -> Outcome {
    let (pod, claimed) = alone(uid);
    stage.node.csi.mount(&pod, &claimed).await
}

fn is_refused(outcome: &Outcome) -> bool {
    let text = "already in use by another pod";
    matches!(outcome, Err(error) if error.message.contains(text))
}

/// What agents find after the machine was started anew: notes of a boot that is over.
fn reboot(stage: &Stage, uids: &[&str]) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it has one");
    for uid in uids {
        let note = stage.node.data_dir.join(format!("pods/{uid}/csi/data"));
        let text = std::fs::read_to_string(&note).expect("a note");
        std::fs::write(&note, text.replace(boot.trim(), "earlier")).expect("written");
    }
}

#[tokio::test]
async fn of_two_pods_that_want_a_volume_for_one_pod_one_gets_it_also_after_a_reboot() {
    let (stage, double) = stage(&objects(), one_container(), &[STAGES]).await;
    let both = tokio::join!(mount(&stage, "a"), mount(&stage, "b"));
    let refused = [is_refused(&both.0), is_refused(&both.1)];
    assert_ne!(refused[0], refused[1], "{both:?}");
    let (winner, loser) = match refused[0] {
        true => ("b", "a"),
        false => ("a", "b"),
    };
    assert!(is_refused(&mount(&stage, loser).await));
    assert!(mount(&stage, winner).await.is_ok());

    // Both are noted, and nothing is mounted any more.
    reboot(&stage, &["a", "b"]);
    assert!(mount(&stage, loser).await.is_ok());
    assert!(is_refused(&mount(&stage, winner).await));
    assert_eq!(stage.node.csi.release(loser).await, Ok(()));
    assert!(mount(&stage, winner).await.is_ok());
    let asked: PublishVolume = double.question("NodePublishVolume").expect("a question");
    assert!(asked.target_path.contains(winner), "{}", asked.target_path);
}

#[tokio::test]
async fn a_volume_for_one_pod_that_a_driver_may_have_mounted_is_not_another_pods() {
    let (stage, double) = stage(&objects(), one_container(), &[STAGES]).await;
    double.misbehave("NodePublishVolume", Mischief::Fail);
    assert!(mount(&stage, "a").await.is_err());
    double.behave();
    // Also for the next agent.
    stage.node.csi.start_anew().await;
    assert!(is_refused(&mount(&stage, "b").await));
    assert_eq!(stage.node.csi.release("a").await, Ok(()));
    assert!(mount(&stage, "b").await.is_ok());
}
