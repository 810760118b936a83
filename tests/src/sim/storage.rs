//! Made-up storage: the external attacher of one driver, what is really attached, and what agents have mounted. An
//! agent mounts as the product's does (`agent::volumes::csi`): it says that it uses a volume, and goes on once one
//! read of its node has the volume both in use and attached.

use std::collections::{BTreeMap, BTreeSet};

use api::kinds::storage::attach::volume_key;
use api::meta;
use client::{Kind, PatchKind};
use controllers::object::Key;
use serde_json::{Value, json};

use super::api::{Api, key_of};
use super::check;
use super::cluster::must;
use super::rng::Rng;

pub const DRIVER: &str = "disks.example.com";
/// By which the attacher keeps what it has not detached.
const FINALIZER: &str = "external-attacher/disks-example-com";

/// What is really so, whoever says what.
#[derive(Default)]
pub struct Storage {
    /// By PersistentVolume: the nodes that it is attached to.
    attached: BTreeMap<String, BTreeSet<String>>,
    /// By node and PersistentVolume: the uids of the pods that have it mounted.
    mounted: BTreeMap<(String, String), BTreeSet<String>>,
}

/// Whether a pod's volumes are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    Done,
    /// The agent wrote something.
    Busy,
    Waiting,
}

impl Storage {
    /// The agent of a node takes the next step towards a pod's volumes.
    pub fn mount(&mut self, api: &mut Api, node: &str, pod: &Value) -> Mounts {
        let uid = meta::uid(pod).to_owned();
        for claim in claims(pod) {
            let Some(volume) = volume_of(api, pod, &claim).cloned() else {
                return Mounts::Waiting;
            };
            let name = meta::name(&volume).to_owned();
            let place = (node.to_owned(), name.clone());
            let users = self.mounted.get(&place).cloned().unwrap_or_default();
            if users.contains(&uid) {
                continue;
            }
            let for_one = volume["spec"]["accessModes"][0] == "ReadWriteOncePod";
            if for_one && !users.is_empty() {
                return Mounts::Waiting;
            }
            let (used, attached) = said(api, node);
            let key = key(&name);
            if !used.contains(&key) {
                say_used(api, node, used.into_iter().chain([key]).collect());
                return Mounts::Busy;
            }
            if !attached.contains(&key) {
                return Mounts::Waiting;
            }
            self.mounted.entry(place).or_default().insert(uid.clone());
        }
        Mounts::Done
    }

    /// The agent of a node lets go of what its pods do not need any more. False: there is nothing.
    pub fn unmount(&mut self, api: &mut Api, node: &str) -> bool {
        let pods = api.list(Kind::POD).into_iter();
        let here = pods.filter(|pod| pod["spec"]["nodeName"] == node && !check::finished(pod));
        let living: BTreeSet<String> = here.map(|pod| meta::uid(pod).to_owned()).collect();
        let mut news = false;
        for ((at, _), users) in &mut self.mounted {
            if at == node {
                let before = users.len();
                users.retain(|uid| living.contains(uid));
                news |= users.len() != before;
            }
        }
        self.mounted.retain(|_, users| !users.is_empty());
        let (used, _) = said(api, node);
        let wanted = self.wanted(api, node);
        let left: BTreeSet<String> = used.intersection(&wanted).cloned().collect();
        if left != used {
            say_used(api, node, left);
            news = true;
        }
        news
    }

    /// What is mounted, or a pod waits for.
    fn wanted(&self, api: &Api, node: &str) -> BTreeSet<String> {
        let mounted = self.mounted.keys().filter(|(at, _)| at == node);
        let mounted = mounted.map(|(_, volume)| key(volume));
        let pods = api.list(Kind::POD).into_iter();
        let here = pods.filter(|pod| pod["spec"]["nodeName"] == node && !check::finished(pod));
        let here = here.filter(|pod| !meta::is_terminating(pod));
        let waits = here.flat_map(|pod| {
            let volumes = claims(pod);
            let names = volumes
                .iter()
                .filter_map(|claim| Some(key(meta::name(volume_of(api, pod, claim)?))));
            names.collect::<Vec<_>>()
        });
        mounted.chain(waits).collect()
    }

    /// The machine is off: nothing of it is mounted any more.
    pub fn power_off(&mut self, node: &str) {
        self.mounted.retain(|(at, _), _| at != node);
    }

    /// The attacher does the next thing. False: there is nothing.
    pub fn attach(&mut self, api: &mut Api, rng: &mut Rng) -> bool {
        let all = api.list(Kind::VOLUME_ATTACHMENT).into_iter();
        let all: Vec<Value> = all.filter(|it| is_due(it)).cloned().collect();
        let Some(attachment) = rng.pick(&all) else {
            return false;
        };
        let (node, volume) = (
            attachment["spec"]["nodeName"].as_str().unwrap_or_default(),
            attachment["spec"]["source"]["persistentVolumeName"]
                .as_str()
                .unwrap_or_default(),
        );
        let at = self.attached.entry(volume.to_owned()).or_default();
        let mut write = |subresource, body: Value| {
            let (kind, key) = (Kind::VOLUME_ATTACHMENT, key_of(attachment));
            must(api.patch(kind, &key, subresource, PatchKind::Merge, &body));
        };
        if meta::is_terminating(attachment) {
            at.remove(node);
            write("", json!({"metadata": {"finalizers": null}}));
        } else if meta::finalizers(attachment).is_empty() {
            write("", json!({"metadata": {"finalizers": [FINALIZER]}}));
        } else {
            at.insert(node.to_owned());
            write("status", json!({"status": {"attached": true}}));
        }
        true
    }

    /// What must hold at every moment.
    pub fn check(&self, api: &Api) {
        let mut writers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((node, volume), users) in &self.mounted {
            let at = self.attached.get(volume);
            let is_there = at.is_some_and(|nodes| nodes.contains(node));
            assert!(is_there, "{volume} is mounted on {node} and not attached");
            writers.entry(volume).or_default().insert(node);
            let volume = api.get(Kind::PERSISTENT_VOLUME, "", volume);
            let for_one =
                volume.is_some_and(|it| it["spec"]["accessModes"][0] == "ReadWriteOncePod");
            assert!(!for_one || users.len() == 1, "two pods write one volume");
        }
        for (volume, nodes) in &self.attached {
            assert!(nodes.len() <= 1, "{volume} is attached to {nodes:?}");
        }
        for (volume, nodes) in writers {
            assert!(nodes.len() <= 1, "{volume} is mounted on {nodes:?}");
        }
        let mut claims = BTreeMap::new();
        for claim in api.list(Kind::PERSISTENT_VOLUME_CLAIM) {
            if let Some(volume) = claim["spec"]["volumeName"].as_str() {
                let other = claims.insert(volume, meta::name(claim));
                assert!(other.is_none(), "{volume} is bound to two claims");
            }
        }
    }
}

fn is_due(attachment: &Value) -> bool {
    match meta::is_terminating(attachment) {
        true => !meta::finalizers(attachment).is_empty(),
        false => attachment["status"]["attached"] != true,
    }
}

fn key(volume: &str) -> String {
    volume_key(DRIVER, volume)
}

/// The names of a pod's claims.
fn claims(pod: &Value) -> Vec<String> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let names = volumes.filter_map(|it| it["persistentVolumeClaim"]["claimName"].as_str());
    names.map(str::to_owned).collect()
}

/// The volume of a claim, once both say so.
fn volume_of<'a>(api: &'a Api, pod: &Value, claim: &str) -> Option<&'a Value> {
    let claim = api.get(Kind::PERSISTENT_VOLUME_CLAIM, meta::namespace(pod), claim)?;
    let name = claim["spec"]["volumeName"].as_str()?;
    let volume = api.get(Kind::PERSISTENT_VOLUME, "", name)?;
    let is_bound = claim["status"]["phase"] == "Bound"
        && volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"];
    is_bound.then_some(volume)
}

/// What a node's status says is in use, and attached.
fn said(api: &Api, node: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let node = api.get(Kind::NODE, "", node).expect("the node is there");
    let texts = |field: &str, of: fn(&Value) -> Option<&str>| {
        let all = node["status"][field].as_array().into_iter().flatten();
        all.filter_map(of).map(str::to_owned).collect()
    };
    let used = texts("volumesInUse", Value::as_str);
    (used, texts("volumesAttached", |it| it["name"].as_str()))
}

fn say_used(api: &mut Api, node: &str, used: BTreeSet<String>) {
    let body = json!({"status": {"volumesInUse": used}});
    let key = Key::new("", node);
    must(api.patch(Kind::NODE, &key, "status", PatchKind::Merge, &body));
}
