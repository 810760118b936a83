//! What a pod wants of a CSI driver: from a volume in its spec, or a PersistentVolume, to what the driver is asked.
//! Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{CSIVolumeSource, PersistentVolume, Pod, SecretReference, Volume};
use k8s_openapi::api::storage::v1::CSIDriver;
use sha2::{Digest, Sha256};

use super::messages::{
    AccessMode, Empty, MountVolume, TELLS_SINGLE_WRITERS_APART, VolumeCapability, access,
};
use crate::api::sources::{Claimed, TokenWish};
use crate::pod::quantity;
use api::kinds::storage::{attach, local};

/// A volume of a driver in a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Its name in the pod.
    pub volume: String,
    /// The PersistentVolume's name, or the same for one that is written in the pod.
    pub name: String,
    pub driver: String,
    pub handle: String,
    /// It is written in the pod and lives as long.
    pub is_inline: bool,
    pub is_block: bool,
    pub read_only: bool,
    pub fs_type: String,
    pub options: Vec<String>,
    pub modes: Vec<String>,
    pub attributes: BTreeMap<String, String>,
    pub stage_secret: Option<SecretName>,
    pub publish_secret: Option<SecretName>,
    pub expand_secret: Option<SecretName>,
    /// Bytes of the PersistentVolume.
    pub capacity: i64,
}

/// Namespace and name of a Secret.
pub type SecretName = (String, String);

/// What a CSIDriver says, as far as nodes heed it; without one, its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    pub attaches: bool,
    pub wants_pod: bool,
    pub is_persistent: bool,
    pub is_ephemeral: bool,
    pub republishes: bool,
    pub tokens: Vec<TokenWish>,
    pub group_policy: GroupPolicy,
}

/// When the agent gives a volume's files to the pod's group (`fsGroupPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPolicy {
    Never,
    Always,
    /// With a file system type, and one node that writes.
    OneWriter,
}

/// The types that a CSIDriver's tokens have where it does not say how long they live, in seconds.
const TOKEN_SECONDS: i64 = 3600;

impl Wish {
    /// All that a pod wants of drivers. Claims that were not read are not among them: they are told of elsewhere.
    pub fn all(pod: &Pod, claimed: &Claimed) -> Vec<Wish> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let volumes = volumes.into_iter().flatten();
        let wish = |volume: &Volume| {
            if let Some(source) = &volume.csi {
                return Some(inline(pod, &volume.name, source));
            }
            let persistent = claimed.get(&volume.name)?.as_ref().ok()?;
            let claim = volume.persistent_volume_claim.as_ref();
            let read_only = claim.is_some_and(|claim| claim.read_only == Some(true));
            persistent_wish(&volume.name, persistent, read_only)
        };
        volumes.filter_map(wish).collect()
    }

    /// What a node's status calls it.
    pub fn key(&self) -> String {
        attach::volume_key(&self.driver, &self.handle)
    }

    /// How the driver is told that the volume is used.
    pub fn capability(&self, offers: &[i32], group: Option<u32>) -> VolumeCapability {
        let mount = MountVolume {
            fs_type: self.fs_type.clone(),
            mount_flags: self.options.clone(),
            volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
        };
        let mode = access_mode(&self.modes, offers);
        VolumeCapability {
            block: self.is_block.then_some(Empty {}),
            mount: (!self.is_block).then_some(mount),
            access_mode: Some(AccessMode { mode }),
        }
    }

    /// What the driver is told of the volume and, if it wants that, of the pod (KEP-596).
    pub fn context(&self, pod: &Pod, manners: &Manners) -> HashMap<String, String> {
        let attributes = self.attributes.clone().into_iter();
        let mut context: HashMap<String, String> = attributes.collect();
        if !manners.wants_pod {
            return context;
        }
        let meta = &pod.metadata;
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        for (key, value) in [
            ("pod.name", meta.name.clone().unwrap_or_default()),
            ("pod.namespace", meta.namespace.clone().unwrap_or_default()),
            ("pod.uid", meta.uid.clone().unwrap_or_default()),
            ("serviceAccount.name", account.unwrap_or_default()),
            ("ephemeral", self.is_inline.to_string()),
        ] {
            context.insert(format!("csi.storage.k8s.io/{key}"), value);
        }
        context
    }

    /// Why the driver cannot be asked for such a volume.
    pub fn refusal(&self, manners: &Manners) -> Option<String> {
        let (mode, allowed) = match self.is_inline {
            true => ("Ephemeral", manners.is_ephemeral),
            false => ("Persistent", manners.is_persistent),
        };
        (!allowed).then(|| {
            format!(
                "kubernetes.io/csi: volume mode {mode:?} not supported by driver {}",
                self.driver
            )
        })
    }

    /// Whether the agent gives the volume's files to the pod's group.
    pub fn is_given(&self, manners: &Manners) -> bool {
        let one_writer = !self.fs_type.is_empty()
            && self
                .modes
                .iter()
                .any(|mode| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
        let by_policy = match manners.group_policy {
            GroupPolicy::Never => false,
            GroupPolicy::Always => true,
            GroupPolicy::OneWriter => one_writer,
        };
        by_policy && !self.read_only && !self.is_block
    }
}

fn inline(pod: &Pod, volume: &str, source: &CSIVolumeSource) -> Wish {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let secret = source.node_publish_secret_ref.as_ref();
    Wish {
        volume: volume.to_owned(),
        name: volume.to_owned(),
        driver: source.driver.clone(),
        handle: format!(
            "csi-{}",
            hex::encode(Sha256::digest([uid, volume].concat()))
        ),
        is_inline: true,
        is_block: false,
        read_only: source.read_only == Some(true),
        fs_type: source.fs_type.clone().unwrap_or_default(),
        options: Vec::new(),
        modes: Vec::new(),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        stage_secret: None,
        publish_secret: secret.map(|secret| (namespace, secret.name.clone())),
        expand_secret: None,
        capacity: 0,
    }
}

fn persistent_wish(volume: &str, persistent: &PersistentVolume, read_only: bool) -> Option<Wish> {
    let spec = persistent.spec.as_ref()?;
    let source = spec.csi.as_ref()?;
    if source.driver == local::DRIVER {
        return None;
    }
    let secret = |reference: &Option<SecretReference>| {
        let reference = reference.as_ref()?;
        Some((reference.namespace.clone()?, reference.name.clone()?))
    };
    let capacity = spec.capacity.as_ref().and_then(|all| all.get("storage"));
    let milli = capacity.and_then(quantity::milli).unwrap_or(0);
    Some(Wish {
        volume: volume.to_owned(),
        name: persistent.metadata.name.clone().unwrap_or_default(),
        driver: source.driver.clone(),
        handle: source.volume_handle.clone(),
        is_inline: false,
        is_block: spec.volume_mode.as_deref() == Some("Block"),
        read_only: read_only || source.read_only == Some(true),
        fs_type: source.fs_type.clone().unwrap_or_default(),
        options: spec.mount_options.clone().unwrap_or_default(),
        modes: spec.access_modes.clone().unwrap_or_default(),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        stage_secret: secret(&source.node_stage_secret_ref),
        publish_secret: secret(&source.node_publish_secret_ref),
        expand_secret: secret(&source.node_expand_secret_ref),
        capacity: i64::try_from(milli / 1000).unwrap_or(i64::MAX),
    })
}

/// The first of a volume's modes, as a driver has it (KEP-2485).
fn access_mode(modes: &[String], offers: &[i32]) -> i32 {
    let apart = offers.contains(&TELLS_SINGLE_WRITERS_APART);
    match (modes.first().map(String::as_str), apart) {
        (Some("ReadOnlyMany"), _) => access::MULTI_NODE_READER_ONLY,
        (Some("ReadWriteMany"), _) => access::MULTI_NODE_MULTI_WRITER,
        (Some("ReadWriteOncePod"), true) => access::SINGLE_NODE_SINGLE_WRITER,
        (_, true) => access::SINGLE_NODE_MULTI_WRITER,
        (_, false) => access::SINGLE_NODE_WRITER,
    }
}

impl Manners {
    pub fn of(driver: Option<CSIDriver>) -> Manners {
        let is_known = driver.is_some();
        let spec = driver.map(|driver| driver.spec).unwrap_or_default();
        let lives = |mode: &str, default: bool| match &spec.volume_lifecycle_modes {
            Some(modes) if !modes.is_empty() => modes.iter().any(|it| it == mode),
            _ => default,
        };
        let tokens = spec.token_requests.iter().flatten();
        Manners {
            attaches: spec.attach_required != Some(false),
            wants_pod: spec.pod_info_on_mount == Some(true),
            is_persistent: lives("Persistent", true),
            is_ephemeral: is_known && lives("Ephemeral", false),
            republishes: spec.requires_republish == Some(true),
            tokens: tokens
                .map(|wanted| TokenWish {
                    audience: wanted.audience.clone(),
                    seconds: wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS),
                })
                .collect(),
            group_policy: match spec.fs_group_policy.as_deref() {
                Some("None") => GroupPolicy::Never,
                Some("File") => GroupPolicy::Always,
                _ => GroupPolicy::OneWriter,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(volumes: Value) -> Pod {
        let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [], "serviceAccountName": "robot", "volumes": volumes}});
        serde_json::from_value(pod).expect("a pod")
    }

    fn persistent(spec: Value) -> Wish {
        let mut volume = json!({"metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "d.example.com", "volumeHandle": "h", "fsType": "ext4"}}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            volume["spec"][field] = value.clone();
        }
        let volume = serde_json::from_value(volume).expect("a volume");
        let claimed = Claimed::from([("data".to_owned(), Ok(Arc::new(volume)))]);
        let claim = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
        Wish::all(&pod(claim), &claimed).remove(0)
    }

    fn driver(spec: Value) -> Manners {
        let driver = json!({"metadata": {"name": "d.example.com"}, "spec": spec});
        Manners::of(Some(serde_json::from_value(driver).expect("a driver")))
    }

    #[test]
    fn an_access_mode_is_told_as_finely_as_the_driver_tells_them_apart() {
        let mode = |mode: &str, offers: &[i32]| {
            let wish = persistent(json!({"accessModes": [mode]}));
            wish.capability(offers, None)
                .access_mode
                .expect("a mode")
                .mode
        };
        let apart = [TELLS_SINGLE_WRITERS_APART];
        assert_eq!(mode("ReadWriteOnce", &[]), 1);
        assert_eq!(mode("ReadWriteOncePod", &[]), 1);
        assert_eq!(mode("ReadWriteOnce", &apart), 7);
        assert_eq!(mode("ReadWriteOncePod", &apart), 6);
        assert_eq!(mode("ReadOnlyMany", &apart), 3);
        assert_eq!(mode("ReadWriteMany", &[]), 5);
    }

    #[test]
    fn a_volume_in_the_pod_has_a_handle_of_its_own_and_needs_a_driver_that_says_so() {
        let source = json!({"driver": "d.example.com", "volumeAttributes": {"size": "1"},
            "nodePublishSecretRef": {"name": "s"}});
        let pod = pod(json!([{"name": "own", "csi": source}]));
        let wish = Wish::all(&pod, &Claimed::new()).remove(0);
        let expected = hex::encode(Sha256::digest("u1own"));
        assert_eq!(wish.handle, format!("csi-{expected}"));
        let secret = ("default".to_owned(), "s".to_owned());
        assert_eq!(wish.publish_secret, Some(secret));
        let ephemeral = driver(json!({"volumeLifecycleModes": ["Ephemeral"],
            "podInfoOnMount": true}));
        assert_eq!(wish.refusal(&ephemeral), None);
        assert!(wish.refusal(&Manners::of(None)).is_some());
        assert!(wish.refusal(&driver(json!({}))).is_some());
        assert!(persistent(json!({})).refusal(&ephemeral).is_some());
        assert_eq!(persistent(json!({})).refusal(&Manners::of(None)), None);
        let context = wish.context(&pod, &ephemeral);
        assert_eq!(context["size"], "1");
        assert_eq!(context["csi.storage.k8s.io/ephemeral"], "true");
        assert_eq!(context["csi.storage.k8s.io/serviceAccount.name"], "robot");
        assert_eq!(wish.context(&pod, &driver(json!({}))).len(), 1);
    }

    #[test]
    fn files_are_given_to_the_group_as_the_drivers_policy_says() {
        let given = |policy: &str, spec: Value| {
            let manners = driver(json!({"fsGroupPolicy": policy}));
            persistent(spec).is_given(&manners)
        };
        assert!(given("File", json!({"accessModes": ["ReadWriteMany"]})));
        assert!(!given("None", json!({})));
        let one = "ReadWriteOnceWithFSType";
        assert!(given(one, json!({})));
        assert!(!given(one, json!({"accessModes": ["ReadWriteMany"]})));
        let untyped = json!({"driver": "d.example.com", "volumeHandle": "h"});
        assert!(!given(one, json!({"csi": untyped})));
        assert!(!given("File", json!({"volumeMode": "Block"})));
    }
}
