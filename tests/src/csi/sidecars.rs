//! What the programs beside a driver do for it (external-provisioner, -attacher, -resizer): they follow the API and
//! call the controller service over the driver's socket. Here by looking again and again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use agent::volumes::csi::messages::{
    AccessMode, CapacityRange, Empty, MountVolume, VolumeCapability, access,
};
use agent::volumes::csi::rpc::{self, Method};
use anyhow::{Context as _, Result, bail};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::NAME;
use super::messages::{
    AttachVolume, Attached, CreateVolume, Created, DeleteVolume, GrowVolume, Grown,
};

const LOOK: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(10);
const FINALIZER: &str = "external-attacher/hostpath-tests-example-com";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Before what a class says for the sidecars and not for the driver.
const RESERVED: &str = "csi.storage.k8s.io/";

pub struct Sidecars {
    pub client: Client,
    /// The socket of the driver's services.
    pub socket: PathBuf,
}

impl Sidecars {
    /// Runs until the process ends.
    pub async fn run(self) {
        loop {
            for done in [
                self.provision().await,
                self.remove().await,
                self.attach().await,
                self.resize().await,
            ] {
                if let Err(error) = done {
                    eprintln!("it is tried again: {error:#}");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn call<Q, A>(&self, path: &'static str, question: &Q) -> Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let timeout = TIMEOUT;
        Ok(rpc::call(&self.socket, Method { path, timeout }, question).await?)
    }

    async fn all<K>(&self) -> Result<Vec<Value>>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug,
    {
        let found = Api::<K>::all(self.client.clone());
        let found = found.list(&ListParams::default()).await?;
        let values = found.items.iter().map(serde_json::to_value);
        Ok(values.collect::<Result<_, _>>()?)
    }

    async fn patch<K>(&self, api: Api<K>, name: &str, at: &str, body: Value) -> Result<()>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let (params, patch) = (PatchParams::default(), Patch::Merge(body));
        match at {
            "status" => drop(api.patch_status(name, &params, &patch).await?),
            _ => drop(api.patch(name, &params, &patch).await?),
        }
        Ok(())
    }

    fn claims(&self, claim: &Value) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), text(claim, "/metadata/namespace"))
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    /// Makes volumes for claims.
    async fn provision(&self) -> Result<()> {
        for claim in self.all::<PersistentVolumeClaim>().await? {
            let is_ours = claim["metadata"]["annotations"][PROVISIONER] == NAME;
            if !is_ours || !text(&claim, "/spec/volumeName").is_empty() {
                continue;
            }
            let class = text(&claim, "/spec/storageClassName");
            let class = Api::<StorageClass>::all(self.client.clone())
                .get(class)
                .await?;
            let class = serde_json::to_value(class)?;
            let is_block = claim["spec"]["volumeMode"] == "Block";
            let own = class["parameters"].as_object().into_iter().flatten();
            let own = own.filter(|(key, _)| !key.starts_with(RESERVED));
            let own = own
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
            let asked = CreateVolume {
                name: format!("pvc-{}", text(&claim, "/metadata/uid")),
                capacity_range: Some(range(requested(&claim)?)),
                volume_capabilities: vec![capability(is_block)],
                parameters: own.collect(),
                secrets: HashMap::new(),
            };
            let made: Created = self.call("/csi.v1.Controller/CreateVolume", &asked).await?;
            let made = made.volume.context("no volume")?;
            let volume = persistent_volume(&asked.name, &claim, &class, &made);
            let volume = serde_json::from_value(volume)?;
            match self.volumes().create(&PostParams::default(), &volume).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                made => drop(made?),
            }
        }
        Ok(())
    }

    /// Removes volumes whose claims are gone.
    async fn remove(&self) -> Result<()> {
        for volume in self.all::<PersistentVolume>().await? {
            let is_ours = volume["metadata"]["annotations"][PROVISIONED_BY] == NAME;
            let goes = volume["status"]["phase"] == "Released"
                && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete";
            if !is_ours || !goes || !volume["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let volume_id = text(&volume, "/spec/csi/volumeHandle").to_owned();
            let asked = DeleteVolume { volume_id };
            let _: Empty = self.call("/csi.v1.Controller/DeleteVolume", &asked).await?;
            let name = text(&volume, "/metadata/name");
            self.volumes()
                .delete(name, &DeleteParams::default())
                .await?;
        }
        Ok(())
    }

    /// Brings volumes to nodes and takes them away.
    async fn attach(&self) -> Result<()> {
        for attachment in self.all::<VolumeAttachment>().await? {
            if attachment["spec"]["attacher"] != NAME {
                continue;
            }
            let name = text(&attachment, "/metadata/name");
            let api = || Api::<VolumeAttachment>::all(self.client.clone());
            let volume = text(&attachment, "/spec/source/persistentVolumeName");
            let volume = self.volumes().get_opt(volume).await?;
            let source = volume.and_then(|it| it.spec?.csi);
            let asked = AttachVolume {
                volume_id: source.context("its volume is gone")?.volume_handle,
                node_id: text(&attachment, "/spec/nodeName").to_owned(),
            };
            let held = attachment["metadata"]["finalizers"].is_array();
            if !attachment["metadata"]["deletionTimestamp"].is_null() {
                if held {
                    let path = "/csi.v1.Controller/ControllerUnpublishVolume";
                    let _: Empty = self.call(path, &asked).await?;
                    let body = json!({"metadata": {"finalizers": null}});
                    self.patch(api(), name, "", body).await?;
                }
            } else if attachment["status"]["attached"] != true {
                let body = json!({"metadata": {"finalizers": [FINALIZER]}});
                self.patch(api(), name, "", body).await?;
                let path = "/csi.v1.Controller/ControllerPublishVolume";
                let said: Attached = self.call(path, &asked).await?;
                let body = json!({"status": {"attached": true,
                    "attachmentMetadata": said.publish_context}});
                self.patch(api(), name, "status", body).await?;
            }
        }
        Ok(())
    }

    /// Makes volumes as large as their claims ask.
    async fn resize(&self) -> Result<()> {
        let volumes = self.all::<PersistentVolume>().await?;
        for claim in self.all::<PersistentVolumeClaim>().await? {
            let name = text(&claim, "/spec/volumeName");
            let volume = volumes.iter().find(|it| it["metadata"]["name"] == name);
            let volume = volume.filter(|it| it["spec"]["csi"]["driver"] == NAME);
            let Some(volume) = volume else { continue };
            let (wanted, has) = (
                requested(&claim)?,
                bytes(text(volume, "/spec/capacity/storage"))?,
            );
            if wanted <= has {
                continue;
            }
            let asked = GrowVolume {
                volume_id: text(volume, "/spec/csi/volumeHandle").to_owned(),
                capacity_range: Some(range(wanted)),
            };
            let path = "/csi.v1.Controller/ControllerExpandVolume";
            let grown: Grown = self.call(path, &asked).await?;
            if !grown.node_expansion_required {
                bail!("this driver's nodes take part in an expansion");
            }
            let capacity = json!({"storage": grown.capacity_bytes.to_string()});
            let body = json!({"spec": {"capacity": capacity}});
            self.patch(self.volumes(), name, "", body).await?;
            let condition = json!({"type": "FileSystemResizePending", "status": "True"});
            let body = json!({"status": {"conditions": [condition]}});
            let of = text(&claim, "/metadata/name");
            self.patch(self.claims(&claim), of, "status", body).await?;
        }
        Ok(())
    }
}

fn persistent_volume(
    name: &str,
    claim: &Value,
    class: &Value,
    made: &super::messages::Volume,
) -> Value {
    let parameters = &class["parameters"];
    let secret = |step: &str| {
        let part = |part: &str| parameters[format!("{RESERVED}{step}-secret-{part}")].clone();
        let reference = json!({"name": part("name"), "namespace": part("namespace")});
        (!reference["name"].is_null()).then_some(reference)
    };
    let metadata = &claim["metadata"];
    json!({
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: NAME}},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": made.capacity_bytes.to_string()},
            "volumeMode": claim["spec"]["volumeMode"],
            "storageClassName": class["metadata"]["name"],
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"], "name": metadata["name"],
                "uid": metadata["uid"]},
            "csi": {
                "driver": NAME, "volumeHandle": made.volume_id,
                "volumeAttributes": made.volume_context,
                "nodeStageSecretRef": secret("node-stage"),
                "nodePublishSecretRef": secret("node-publish"),
                "nodeExpandSecretRef": secret("node-expand"),
            },
        },
    })
}

fn capability(is_block: bool) -> VolumeCapability {
    VolumeCapability {
        block: is_block.then_some(Empty {}),
        mount: (!is_block).then(MountVolume::default),
        access_mode: Some(AccessMode {
            mode: access::SINGLE_NODE_WRITER,
        }),
    }
}

fn range(required_bytes: i64) -> CapacityRange {
    CapacityRange {
        required_bytes,
        limit_bytes: 0,
    }
}

fn requested(claim: &Value) -> Result<i64> {
    bytes(text(claim, "/spec/resources/requests/storage"))
}

fn bytes(quantity: &str) -> Result<i64> {
    let parsed = Quantity::parse(quantity);
    let parsed = parsed.map_err(|_| anyhow::anyhow!("{quantity:?} is no quantity"))?;
    Ok(parsed.units())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
