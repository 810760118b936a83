//! A storage driver as a program of its own, from claim to mount and back: API server and controllers as a process,
//! the driver with its sidecars as another, and what an agent does for its pods. It mounts, and so needs root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::api::events;
use agent::api::sources::{Claimed, Mounted};
use agent::node::running::Running;
use agent::volumes::csi::{self, Csi, InUse, Places};
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use sys::Shutdown;
use tests::control_plane::{self, ControlPlane};
use tests::csi::{NAME, PASSPHRASE, TOLD};
use tokio::sync::Notify;

const NODE: &str = "n1";
const NAMESPACE: &str = "default";
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// How often what is mounted is looked after.
const ROUND: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if let Some(ended) = control_plane::as_program() {
        return ended;
    }
    let name = "a_driver_of_its_own_makes_attaches_mounts_grows_and_removes_volumes";
    let trial = Trial::test(name, || {
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        let done = runtime.block_on(flow());
        done.map_err(|error| Failed::from(format!("{error:#}")))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// The program; it ends with this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    client: Client,
    csi: Csi,
    running: Arc<Running>,
    directory: tempfile::TempDir,
    _driver: Program,
    _plane: ControlPlane,
}

impl Stage {
    async fn start() -> Result<Self> {
        let plane = ControlPlane::start()?;
        let config = Kubeconfig::read_from(plane.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(config, &options);
        let client = Client::try_from(config.await?)?;
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let places = Places {
            kubelet: at("kubelet"),
            data: at("agent"),
        };
        places.make()?;
        let mut driver = Command::new(env!("CARGO_BIN_EXE_csi-hostpath"));
        driver.arg(&places.kubelet).arg(at("volumes")).arg(NODE);
        let driver = driver.arg(plane.kubeconfig()).spawn()?;
        make_objects(&client).await?;
        let in_use = InUse::default();
        tokio::spawn(say_used(client.clone(), in_use.clone()));
        let recorder = events::recorder(client.clone(), NODE.to_owned());
        let csi = Csi::new(NODE, client.clone(), recorder, places, in_use);
        let running = Arc::<Running>::default();
        let (looked_after, shutdown) = (running.clone(), Shutdown::new());
        tokio::spawn(csi::run(csi.clone(), looked_after, ROUND, shutdown));
        Ok(Self {
            client,
            csi,
            running,
            directory,
            _driver: Program(driver),
            _plane: plane,
        })
    }

    fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn make_claim(&self, name: &str, mode: &str) -> Result<()> {
        let claim = json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": mode, "storageClassName": "hostpath",
            "resources": {"requests": {"storage": "8Mi"}}}});
        let claim = serde_json::from_value(claim)?;
        self.claims().create(&PostParams::default(), &claim).await?;
        let is_bound = |claim: &Value| claim["status"]["phase"] == "Bound";
        self.until_claim(name, is_bound).await
    }

    async fn until_claim(&self, name: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let claim = serde_json::to_value(self.claims().get(name).await?)?;
            if holds(&claim) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the claim stays as it is: {claim:#}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A pod on the node with this volume, and what is mounted of it.
    async fn run_pod(&self, name: &str, volume: Value, device: bool) -> Result<(Pod, Mounted)> {
        let mut volume = volume;
        volume["name"] = "data".into();
        let (list, path) = match device {
            true => ("volumeDevices", "devicePath"),
            false => ("volumeMounts", "mountPath"),
        };
        let main =
            json!({"name": "main", "image": "image:1", list: [{"name": "data", path: "/data"}]});
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": NODE,
            "containers": [main], "volumes": [volume]}});
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        let pod = serde_json::from_value(pod)?;
        let until = Instant::now() + PATIENCE;
        // The namespace's ServiceAccount may not be there yet.
        let pod = loop {
            match pods.create(&PostParams::default(), &pod).await {
                Ok(made) => break made,
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let claimed = self.claimed(&pod).await?;
        let uid = pod.metadata.uid.clone().context("a uid")?;
        let wake = Arc::new(Notify::new());
        self.running.set(&uid, &Arc::new(pod.clone()), &[], &wake);
        let until = Instant::now() + PATIENCE;
        loop {
            match self.csi.mount(&pod, &claimed).await {
                Ok(mut mounted) => return Ok((pod, mounted.remove("data").context("a volume")?)),
                Err(error) if Instant::now() > until => bail!("{error}"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn claimed(&self, pod: &Pod) -> Result<Claimed> {
        let spec = pod.spec.as_ref().context("a spec")?;
        let volume = &spec.volumes.as_ref().context("volumes")?[0];
        let Some(source) = &volume.persistent_volume_claim else {
            return Ok(Claimed::new());
        };
        let claim = self.claims().get(&source.claim_name).await?;
        let name = claim
            .spec
            .and_then(|spec| spec.volume_name)
            .context("it is bound")?;
        let volume = self.all::<PersistentVolume>().get(&name).await?;
        Ok(BTreeMap::from([("data".to_owned(), Ok(Arc::new(volume)))]))
    }

    /// The pod ends, as its agent has it end.
    async fn end_pod(&self, pod: &Pod) -> Result<()> {
        let uid = pod.metadata.uid.as_deref().context("a uid")?;
        self.running.forget(uid);
        let until = Instant::now() + PATIENCE;
        while let Err(why) = self.csi.release(uid).await {
            if Instant::now() > until {
                bail!("it is not let go: {why}");
            }
            tokio::time::sleep(PAUSE).await;
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        let name = pod.metadata.name.as_deref().context("a name")?;
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(name, &at_once).await?;
        Ok(())
    }

    /// Nothing is left of a claim and its volume.
    async fn remove_claim(&self, name: &str) -> Result<()> {
        self.claims().delete(name, &DeleteParams::default()).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let all = ListParams::default();
            let volumes = self.all::<PersistentVolume>().list(&all).await?.items;
            let attached = self.all::<VolumeAttachment>().list(&all).await?.items;
            let on_disk = fs::read_dir(self.directory.path().join("volumes"))?;
            let on_disk = on_disk.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let on_disk: Vec<String> = on_disk.filter(|it| it.starts_with("made-for-")).collect();
            if volumes.is_empty() && attached.is_empty() && on_disk.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("left: {volumes:#?} {attached:#?} {on_disk:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn make_objects(client: &Client) -> Result<()> {
    let post = PostParams::default();
    let until = Instant::now() + PATIENCE;
    let namespaces = Api::<Namespace>::all(client.clone());
    while namespaces.get_opt(NAMESPACE).await?.is_none() {
        if Instant::now() > until {
            bail!("there is no namespace {NAMESPACE}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    let node = json!({"metadata": {"name": NODE}});
    Api::<Node>::all(client.clone())
        .create(&post, &serde_json::from_value(node)?)
        .await?;
    let secret = json!({"metadata": {"name": "pass"}, "stringData": {PASSPHRASE.0: PASSPHRASE.1}});
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets
        .create(&post, &serde_json::from_value(secret)?)
        .await?;
    let driver = json!({"metadata": {"name": NAME}, "spec": {
        "attachRequired": true, "podInfoOnMount": true, "requiresRepublish": true,
        "volumeLifecycleModes": ["Persistent", "Ephemeral"]}});
    let drivers = Api::<CSIDriver>::all(client.clone());
    drivers
        .create(&post, &serde_json::from_value(driver)?)
        .await?;
    let mut parameters = json!({"kind": "hostpath"});
    for step in ["node-stage", "node-publish", "node-expand"] {
        parameters[format!("csi.storage.k8s.io/{step}-secret-name")] = "pass".into();
        parameters[format!("csi.storage.k8s.io/{step}-secret-namespace")] = NAMESPACE.into();
    }
    let class = json!({"metadata": {"name": "hostpath"}, "provisioner": NAME,
        "allowVolumeExpansion": true, "parameters": parameters});
    let classes = Api::<StorageClass>::all(client.clone());
    classes
        .create(&post, &serde_json::from_value(class)?)
        .await?;
    Ok(())
}

/// What an agent's heartbeat does: the node says which volumes it uses.
async fn say_used(client: Client, in_use: InUse) {
    let nodes = Api::<Node>::all(client);
    let mut used = in_use.subscribe();
    loop {
        let names: Vec<String> = used.borrow_and_update().iter().cloned().collect();
        let body = Patch::Merge(json!({"status": {"volumesInUse": names}}));
        let said = nodes
            .patch_status(NODE, &PatchParams::default(), &body)
            .await;
        if said.is_err() {
            tokio::time::sleep(PAUSE).await;
        } else if used.changed().await.is_err() {
            return;
        }
    }
}

fn told(at: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(at.join(TOLD))?)?)
}

async fn until_told(at: &Path, holds: impl Fn(&Value) -> bool) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = told(at).unwrap_or_default();
        if holds(&said) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("the driver was told: {said:#}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn flow() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        tests::prog::skipped("a driver of its own", "it mounts, and so needs root");
        return Ok(());
    }
    let stage = Stage::start().await?;
    files(&stage).await.context("files")?;
    device(&stage).await.context("a device")?;
    inline(&stage).await.context("a volume of the pod itself")?;
    let driver = stage.all::<CSINode>().get(NODE).await?.spec.drivers;
    assert_eq!(driver[0].name, NAME);
    Ok(())
}

/// Made, attached, staged with its Secret, published again and again, grown, and removed.
async fn files(stage: &Stage) -> Result<()> {
    stage.make_claim("data", "Filesystem").await?;
    let volume = || json!({"persistentVolumeClaim": {"claimName": "data"}});
    let (pod, mounted) = stage.run_pod("p1", volume(), false).await?;
    assert!(!mounted.is_block);
    let context = &told(&mounted.path)?["context"];
    assert_eq!(context["csi.storage.k8s.io/pod.name"], "p1");
    assert_eq!(
        context["kind"], "hostpath",
        "the class's parameters come as attributes"
    );
    fs::write(mounted.path.join("kept"), "by p1")?;
    let is_again = |told: &Value| told["times"].as_u64() > Some(2) && told["attachedTo"] == NODE;
    until_told(&mounted.path, is_again).await?;

    let body = json!({"spec": {"resources": {"requests": {"storage": "16Mi"}}}});
    let params = PatchParams::default();
    stage
        .claims()
        .patch("data", &params, &Patch::Merge(body))
        .await?;
    let is_grown = |claim: &Value| {
        let storage = claim["status"]["capacity"]["storage"].as_str();
        let is_pending = claim["status"]["conditions"]
            .as_array()
            .is_some_and(|it| !it.is_empty());
        storage == Some("16777216") && !is_pending
    };
    stage.until_claim("data", is_grown).await?;
    stage.end_pod(&pod).await?;
    assert!(!mounted.path.exists());

    let (pod, mounted) = stage.run_pod("p2", volume(), false).await?;
    assert_eq!(fs::read_to_string(mounted.path.join("kept"))?, "by p1");
    stage.end_pod(&pod).await?;
    stage.remove_claim("data").await
}

async fn device(stage: &Stage) -> Result<()> {
    stage.make_claim("disk", "Block").await?;
    let volume = json!({"persistentVolumeClaim": {"claimName": "disk"}});
    let (pod, mounted) = stage.run_pod("p3", volume, true).await?;
    assert!(mounted.is_block);
    assert!(
        fs::symlink_metadata(&mounted.path)?
            .file_type()
            .is_block_device()
    );
    stage.end_pod(&pod).await?;
    assert!(!mounted.path.exists());
    stage.remove_claim("disk").await
}

async fn inline(stage: &Stage) -> Result<()> {
    let source = json!({"driver": NAME, "volumeAttributes": {"size": "1"}});
    let (pod, mounted) = stage.run_pod("p4", json!({"csi": source}), false).await?;
    let context = &told(&mounted.path)?["context"];
    assert_eq!(context["csi.storage.k8s.io/ephemeral"], "true");
    assert_eq!(context["size"], "1");
    stage.end_pod(&pod).await?;
    assert!(!mounted.path.exists());
    Ok(())
}
