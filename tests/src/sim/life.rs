//! The pods of one node as its agent runs them: the product's own plan and status over an engine in memory.
//! Containers outlive the agent; what it remembers does not. Its watch lags, its writes fail or only seem to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent::network::drain::Progress;
use agent::node::static_pods::{self, HASH, Known, MIRROR, Manifest, Mirror, is_mirror, is_static};
use agent::pod::double::Double;
use agent::pod::plan::{self, Action, Memory};
use agent::pod::shape;
use agent::pod::status::{self, Place};
use agent::runtime::{Container, Role};
use api::meta;
use client::{ClientError, Kind, PatchKind};
use controllers::object::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::api::Api;
use super::processes::{Faults, label};
use super::rng::Rng;

/// A node's engine, and its agent.
pub struct Lives {
    node: String,
    node_ip: IpAddr,
    /// By uid.
    lives: BTreeMap<String, Life>,
    /// How far the agent has followed the log; None: it has not listed yet.
    cursor: Option<usize>,
    statics: Known,
    made: u32,
}

/// One pod: what the engine has of it, and what its worker knows.
pub struct Life {
    double: Double,
    accepted_at: Timestamp,
    reported: Option<PodStatus>,
}

impl Lives {
    pub fn new(node: &str, number: u8) -> Self {
        Self {
            node: node.to_owned(),
            node_ip: IpAddr::from([172, 31, 0, number]),
            lives: BTreeMap::new(),
            cursor: None,
            statics: Known::default(),
            made: 0,
        }
    }

    /// The agent dies, and another one takes its place: it knows what it finds.
    pub fn restart(&mut self) {
        self.cursor = None;
        self.statics.given.clear();
        self.statics.mirrors.clear();
        self.statics.is_listed = false;
        for life in self.lives.values_mut() {
            life.double.memory = Memory::default();
            life.reported = None;
        }
    }

    /// What the node's directory of manifests holds from now on.
    pub fn set_manifests(&mut self, texts: &BTreeMap<String, String>) {
        let read = |(file, text): (&String, &String)| {
            let manifest = Manifest::read(&self.node, file, text.as_bytes());
            let manifest = manifest.expect("the simulation's manifests are right");
            (manifest.name(), manifest)
        };
        self.statics.wanted = texts.iter().map(read).collect();
    }

    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.statics.wanted.values()
    }

    /// The containers of all pods that run, with the pod's uid.
    pub fn running(&self) -> impl Iterator<Item = (&str, &Container)> {
        let all = self.lives.iter();
        all.flat_map(|(uid, life)| life.double.running().map(move |it| (&**uid, it)))
    }

    /// Where engine and API differ once nothing moves any more, in words.
    pub fn problems(&self, api: &Api) -> Vec<String> {
        let mut problems = Vec::new();
        let all = api.list(Kind::POD).into_iter();
        let own: Vec<&Value> = all
            .filter(|pod| pod["spec"]["nodeName"] == self.node.as_str())
            .collect();
        let mut known: BTreeSet<String> = self.manifests().map(|it| it.uid().to_owned()).collect();
        known.extend(own.iter().map(|pod| meta::uid(pod).to_owned()));
        for (uid, container) in self.running() {
            if !known.contains(uid) {
                problems.push(format!("{:?} runs for nobody", container.identity));
            }
        }
        for pod in own {
            let uid = match pod["metadata"]["annotations"][HASH].as_str() {
                Some(hash) => self
                    .manifests()
                    .find(|it| it.hash == hash)
                    .map(Manifest::uid),
                None => Some(meta::uid(pod)),
            };
            let says = said_to_run(pod);
            let runs = self
                .running()
                .filter(|(of, it)| Some(*of) == uid && !it.identity.name.is_empty());
            let runs: BTreeSet<String> = runs.map(|(_, it)| status::container_id(it)).collect();
            if says != runs {
                problems.push(format!(
                    "{}: {says:?} are said to run, {runs:?} do",
                    label(pod)
                ));
            }
        }
        for manifest in self.manifests() {
            let (namespace, name) = manifest.name();
            let mirror = api.get(Kind::POD, &namespace, &name);
            if mirror
                .is_none_or(|it| it["metadata"]["annotations"][MIRROR] != manifest.hash.as_str())
            {
                problems.push(format!("{name} is not shown"));
            }
            if !self.running().any(|(uid, _)| uid == manifest.uid()) {
                problems.push(format!("{name} does not run"));
            }
        }
        problems
    }

    /// A container or a sandbox ends by itself.
    pub fn kill_one(&mut self, rng: &mut Rng, now: Timestamp) {
        let running: Vec<String> = self.running().map(|(_, it)| it.id.clone()).collect();
        if let Some(id) = rng.pick(&running) {
            let code = rng.below(3) as i32;
            let lives = self.lives.values_mut();
            lives.for_each(|it| it.double.end(id, code, now));
        }
    }

    /// The agent hears of something, or takes a step for one of its pods. False: there is nothing to do.
    pub fn turn(&mut self, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        if rng.chance(500) && self.hear(api) {
            return true;
        }
        if self.run_manifests(api, rng, faults) {
            return true;
        }
        let uids: Vec<String> = self.lives.keys().cloned().collect();
        let first = rng.below(uids.len().max(1));
        for uid in uids.iter().cycle().skip(first).take(uids.len()) {
            if self.cursor.is_some() && self.step(uid, api, rng, faults) {
                return true;
            }
        }
        self.hear(api)
    }

    /// Takes in the next entry of the log about a pod of the node, or the list.
    fn hear(&mut self, api: &Api) -> bool {
        let Some(from) = self.cursor else {
            self.list(api);
            return true;
        };
        let own = |index: &usize| {
            let entry = &api.log[*index];
            entry.kind == Kind::POD && entry.object["spec"]["nodeName"] == self.node.as_str()
        };
        let next = (from..api.log.len()).find(own);
        self.cursor = Some(next.map_or(api.log.len(), |index| index + 1));
        let Some(index) = next else { return false };
        let entry = &api.log[index];
        self.take(typed(&entry.object), entry.deleted, api.now);
        true
    }

    fn list(&mut self, api: &Api) {
        self.cursor = Some(api.log.len());
        // What the directory holds has been given to workers before anything is ended (`pods::run`).
        for action in static_pods::plan(&self.statics) {
            if let static_pods::Action::Run(manifest, shown) = &action {
                self.give(manifest, shown.as_deref(), api.now);
                self.statics.tried(&action, true);
            }
        }
        let all = api.list(Kind::POD).into_iter();
        let own = all.filter(|pod| pod["spec"]["nodeName"] == self.node.as_str());
        let own: Vec<Pod> = own.map(typed).collect();
        let wanted = |uid: &Option<String>| {
            let mut manifests = self.statics.wanted.values();
            manifests.any(|it| Some(it.uid()) == uid.as_deref())
        };
        for life in self.lives.values_mut() {
            let uid = &life.double.pod.metadata.uid;
            let stays = match is_static(&life.double.pod) {
                true => wanted(uid),
                false => own.iter().any(|pod| pod.metadata.uid == *uid),
            };
            life.double.gone |= !stays;
        }
        own.into_iter()
            .for_each(|pod| self.take(pod, false, api.now));
        self.statics.is_listed = true;
    }

    fn take(&mut self, pod: Pod, gone: bool, now: Timestamp) {
        if is_mirror(&pod) {
            return self.take_mirror(pod, gone);
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match self.lives.get_mut(&uid) {
            Some(life) => {
                life.double.gone = gone;
                life.double.pod = pod;
            }
            None if gone => {}
            None => drop(self.lives.insert(uid, Life::new(pod, now))),
        }
    }

    fn take_mirror(&mut self, pod: Pod, gone: bool) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let name = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        if gone {
            let known = self.statics.mirrors.get(&name);
            if known.is_some_and(|it| it.pod.metadata.uid == pod.metadata.uid) {
                self.statics.mirrors.remove(&name);
            }
            return;
        }
        let annotations = pod.metadata.annotations.as_ref();
        let hash = annotations.and_then(|all| all.get(MIRROR)).cloned();
        let hash = hash.unwrap_or_default();
        let given = self.statics.given.get(&name).filter(|it| it.hash == hash);
        if let Some(manifest) = given
            && let Some(life) = self.lives.get_mut(manifest.uid())
        {
            life.double.pod = Pod::clone(&manifest.with_status(Some(&pod)));
        }
        let pod = Arc::new(pod);
        self.statics.mirrors.insert(name, Mirror { hash, pod });
    }

    /// Hands a manifest's pod to its worker.
    fn give(&mut self, manifest: &Manifest, shown: Option<&Pod>, now: Timestamp) {
        let pod = Pod::clone(&manifest.with_status(shown));
        let life = self.lives.entry(manifest.uid().to_owned());
        let life = life.or_insert_with(|| Life::new(pod.clone(), now));
        (life.double.pod, life.double.gone) = (pod, false);
    }

    /// Takes the first step of the plan for static pods.
    fn run_manifests(&mut self, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        let Some(action) = static_pods::plan(&self.statics).into_iter().next() else {
            return false;
        };
        let mut is_new = true;
        let has_succeeded = match &action {
            static_pods::Action::Run(manifest, shown) => {
                self.give(manifest, shown.as_deref(), api.now);
                true
            }
            static_pods::Action::End(manifest) => {
                if let Some(life) = self.lives.get_mut(manifest.uid()) {
                    life.double.gone = true;
                }
                true
            }
            static_pods::Action::MakeMirror(manifest) => {
                let node = api.get(Kind::NODE, "", &self.node);
                let mirror = manifest.mirror(&self.node, node.map_or("", meta::uid));
                is_new = faults.sends(rng) && api.create(Kind::POD, mirror).is_ok();
                is_new
            }
            static_pods::Action::DeleteMirror((namespace, name), uid) => {
                let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
                let key = Key::new(namespace, name);
                let gone = |error: ClientError| {
                    matches!(error, ClientError::NotFound(_) | ClientError::Conflict(_))
                };
                let is_sent = faults.sends(rng);
                is_sent
                    && api
                        .delete(Kind::POD, &key, &options)
                        .map_or_else(gone, |_| true)
            }
        };
        self.statics.tried(&action, has_succeeded);
        is_new
    }

    /// A container ends by itself, the status is written, or the plan's next action is done.
    fn step(&mut self, uid: &str, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        let Some(life) = self.lives.get_mut(uid) else {
            return false;
        };
        if let Some(busy) = life.pass(rng, api.now) {
            return busy;
        }
        let place = Place {
            node_ips: self.node_ip.into(),
            accepted_at: life.accepted_at,
        };
        if !life.double.gone && life.report(&place, api, rng, faults) {
            return true;
        }
        for action in plan::plan(&life.double.view(api.now)) {
            match action {
                Action::WakeAt(_) => {}
                Action::Finish => {
                    assert!(
                        life.double.containers.is_empty(),
                        "a pod is forgotten that still runs"
                    );
                    self.lives.remove(uid);
                    return true;
                }
                Action::Confirm => return life.confirm(api, rng, faults),
                other => {
                    if life.double.act(other, &mut self.made, api.now) {
                        life.double.check();
                        return true;
                    }
                }
            }
        }
        false
    }
}

impl Faults {
    /// Whether a write reaches the server.
    fn sends(self, rng: &mut Rng) -> bool {
        !rng.chance(self.before)
    }
}

impl Life {
    fn new(pod: Pod, now: Timestamp) -> Self {
        let mut double = Double::new(pod);
        // Other nodes hear of it at once.
        double.drained = Progress::DONE;
        Self {
            double,
            accepted_at: now,
            reported: None,
        }
    }

    /// What was asked to stop stops; an init container and a pod that does not run for ever come to an end.
    fn pass(&mut self, rng: &mut Rng, now: Timestamp) -> Option<bool> {
        let runs_on = shape::policy(&self.double.pod) == shape::Policy::Always;
        let inits = shape::init_templates(&self.double.pod);
        let sidecars = inits.iter().filter(|it| shape::is_sidecar(it));
        let sidecars: Vec<String> = sidecars.map(|it| it.name.clone()).collect();
        let ends = |container: &&Container| {
            let identity = &container.identity;
            let told = self.double.memory.signalled.get(&container.id);
            let by_itself = match identity.role {
                Role::Init => !sidecars.contains(&identity.name),
                Role::Main => !runs_on,
                _ => false,
            };
            container.is_running() && (told.is_some() || by_itself)
        };
        let all = self.double.containers.iter().filter(ends);
        let ending: Vec<(String, bool)> = all
            .map(|it| {
                (
                    it.id.clone(),
                    self.double.memory.signalled.contains_key(&it.id),
                )
            })
            .collect();
        let (id, was_told) = rng.pick(&ending)?.clone();
        if rng.chance(300) {
            let code = if was_told { 143 } else { 0 };
            self.double.end(&id, code, now);
            return Some(true);
        }
        None
    }

    fn report(&mut self, place: &Place, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        let status = status::status(&self.double.view(api.now), place);
        let is_static = is_static(&self.double.pod);
        let written = self.reported.as_ref().filter(|_| !is_static);
        if written
            .or(self.double.pod.status.as_ref())
            .is_some_and(|known| same(known, &status))
        {
            return false;
        }
        let mut body = json!({"status": status});
        for field in ["reason", "message"] {
            if body["status"][field].is_null() {
                body["status"][field] = Value::Null;
            }
        }
        if !is_static {
            body["metadata"] = json!({"uid": self.double.pod.metadata.uid});
        }
        let key = self.key();
        let written = match faults.sends(rng) {
            true => api.patch(Kind::POD, &key, "status", PatchKind::Merge, &body),
            false => Err(ClientError::Unknown("not sent".into())),
        };
        let is_lost = rng.chance(faults.after);
        let is_done = match written {
            Ok(_) | Err(ClientError::NotFound(_) | ClientError::Conflict(_)) => !is_lost,
            Err(ClientError::Unknown(_)) => false,
            Err(error) => panic!("a status is refused: {error:?}"),
        };
        if is_done {
            self.double.pod.status = Some(status.clone());
            self.reported = Some(status);
        }
        true
    }

    fn key(&self) -> Key {
        let meta = &self.double.pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Key::new(&text(&meta.namespace), &text(&meta.name))
    }

    /// Tells the API that nothing of the pod runs.
    fn confirm(&mut self, api: &mut Api, rng: &mut Rng, faults: Faults) -> bool {
        assert!(
            self.double.containers.is_empty(),
            "confirmed while containers are left"
        );
        let options = json!({"gracePeriodSeconds": 0,
            "preconditions": {"uid": self.double.pod.metadata.uid}});
        let sent = faults.sends(rng);
        if sent {
            // It may be gone.
            let _ = api.delete(Kind::POD, &self.key(), &options);
        }
        self.double.memory.confirmed = sent && !rng.chance(faults.after);
        true
    }
}

/// As far as a worker compares what it would write.
fn same(known: &PodStatus, ours: &PodStatus) -> bool {
    let key = |status: &PodStatus| {
        let mut conditions = status.conditions.clone().unwrap_or_default();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        let lists = (
            status.container_statuses.clone(),
            status.init_container_statuses.clone(),
        );
        let texts = (
            status.phase.clone(),
            status.reason.clone(),
            status.message.clone(),
        );
        (
            conditions,
            lists,
            texts,
            status.pod_ip.clone(),
            status.start_time.clone(),
        )
    };
    key(known) == key(ours)
}

/// The ids of the containers that a pod's status says run.
fn said_to_run(pod: &Value) -> BTreeSet<String> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let all = lists
        .iter()
        .flat_map(|list| pod["status"][*list].as_array());
    let running = all.flatten().filter(|it| !it["state"]["running"].is_null());
    running
        .filter_map(|it| it["containerID"].as_str().map(str::to_owned))
        .collect()
}

fn typed(pod: &Value) -> Pod {
    serde_json::from_value(pod.clone()).expect("the API holds pods")
}
