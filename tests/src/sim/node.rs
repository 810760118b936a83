//! A made-up node. Its agent follows slices at its own pace, says how far it is when somebody waits for that, and
//! ends pods as the product's plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent::network::drain::endpoints::Standing;
use agent::network::drain::nodes::{Known, Leaving};
use agent::network::drain::{Drain, Progress, until};
use agent::pod::plan::{self, Action, Memory, View};
use agent::runtime::{Container, Identity, Role, State};
use api::meta;
use client::{Kind, PatchKind};
use controllers::object::Key;
use datapath::{ObjectKey, SliceView};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::api::{Api, key_of};
use super::check;
use super::cluster::must;

pub const RENEW: SignedDuration = SignedDuration::from_secs(10);

pub struct Agent {
    pub name: String,
    pub alive: bool,
    /// It does not say how far it is.
    pub mute: bool,
    pub renewed: Timestamp,
    /// The newest revision that is in its maps.
    applied: u64,
    cursor: usize,
    maps: BTreeMap<Key, SliceView>,
    known: Known,
    /// By uid: the pods that end, and the revision in which that was heard of.
    leaving: BTreeMap<String, (u64, Memory)>,
}

/// A pod was asked to stop.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    pub address: IpAddr,
    /// Since it was told to end.
    pub waited: SignedDuration,
    /// Its own agent had heard of it in a slice, not only before it was told to end.
    pub in_service: bool,
}

/// What came of a turn.
pub enum Turn {
    Idle,
    Busy,
    Stopped(Stopped),
}

impl Agent {
    pub fn new(name: &str, now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            alive: true,
            mute: false,
            renewed: now,
            applied: 0,
            cursor: 0,
            maps: BTreeMap::new(),
            // Its first lists are empty.
            known: Known {
                is_listed: true,
                ..Known::default()
            },
            leaving: BTreeMap::new(),
        }
    }

    /// The addresses to which it sends new connections.
    pub fn open(&self) -> BTreeSet<IpAddr> {
        let endpoints = self.maps.values().flat_map(|slice| &slice.endpoints);
        let open = endpoints.filter(|endpoint| endpoint.ready());
        open.map(|endpoint| endpoint.addr).collect()
    }

    /// The next thing that it does by time alone.
    pub fn deadline(&self) -> Timestamp {
        let ends = self.leaving.values().filter_map(|(_, memory)| memory.drain);
        let ends =
            ends.map(|drain| until(drain.since, drain.since + SignedDuration::from_secs(30)));
        ends.chain([self.renewed + RENEW]).min().expect("not empty")
    }

    /// Takes in the next slice. False if there is none.
    pub fn deliver(&mut self, api: &Api) -> bool {
        let slice = |index: &usize| api.log[*index].kind == Kind::ENDPOINT_SLICE;
        let next = (self.cursor..api.log.len()).find(slice);
        self.cursor = next.map_or(api.log.len(), |index| index + 1);
        let Some(index) = next else { return false };
        let entry = &api.log[index];
        let slice: EndpointSlice =
            serde_json::from_value(entry.object.clone()).expect("the API holds slices");
        let key = key_of(&entry.object);
        let revision = revision(&entry.object);
        let object = ObjectKey::new(key.namespace.as_str(), key.name.as_str());
        let here = Some(&slice).filter(|_| !entry.deleted);
        self.known
            .endpoints
            .apply(object, here, revision, &self.name);
        let view = here.and_then(|slice| SliceView::from_object(slice, &self.name));
        match view {
            Some(view) => self.maps.insert(key, view),
            None => self.maps.remove(&key),
        };
        self.applied = revision;
        true
    }

    /// Renews the lease when it is time, or says how far it is when somebody waits for that.
    pub fn renew(&mut self, api: &mut Api) -> bool {
        if self.renewed.duration_until(api.now) < RENEW {
            return !self.mute && api.report(&self.name, self.applied);
        }
        self.renewed = api.now;
        let body = json!({"spec": {"renewTime": meta::micro_timestamp(api.now)}});
        let key = Key::new("kube-node-lease", &self.name);
        must(api.patch(Kind::LEASE, &key, "", PatchKind::Merge, &body));
        // As the product's agent, it writes what is not there yet; most of a quiet hour is renewals.
        if !ready_nodes(api).contains(&self.name) {
            let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            let key = Key::new("", &self.name);
            must(api.patch(Kind::NODE, &key, "status", PatchKind::Strategic, &ready));
        }
        true
    }

    /// Takes the next step of a pod that ends.
    pub fn end(&mut self, api: &mut Api, pod: &Value) -> Turn {
        let uid = meta::uid(pod).to_owned();
        let address = pod["status"]["podIP"].as_str();
        let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
        let stopped = match (address, check::finished(pod)) {
            (Some(address), false) => match self.plan(api, pod, address) {
                Step::Wait => return Turn::Idle,
                Step::Leave => return Turn::Busy,
                Step::Kill => None,
                Step::Stop(waited) => Some(Stopped {
                    address,
                    waited,
                    in_service: self.in_service(&uid, address),
                }),
            },
            _ => None,
        };
        self.leaving.remove(&uid);
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        api.delete(Kind::POD, &key_of(pod), &options)
            .expect("the pod is there");
        stopped.map_or(Turn::Busy, Turn::Stopped)
    }

    fn plan(&mut self, api: &mut Api, pod: &Value, address: IpAddr) -> Step {
        let uid = meta::uid(pod).to_owned();
        let told = (revision(pod), Memory::default());
        let (told, memory) = self.leaving.entry(uid.clone()).or_insert(told);
        let left = match self.known.leaving(&uid, Some(address), *told) {
            Leaving::InNone => true,
            Leaving::NotYet => false,
            Leaving::At(revision) => api.all_applied(revision, &ready_nodes(api)),
        };
        let seen = Progress { left, idle: left };
        if let Some(drain) = &mut memory.drain {
            drain.seen = seen;
        }
        let typed: Pod = serde_json::from_value(pod.clone()).expect("the API holds pods");
        let containers = [running(Role::Sandbox, ""), running(Role::Main, "main")];
        let actions = plan::plan(&View {
            pod: &typed,
            gone: false,
            now: api.now,
            containers: &containers,
            memory,
        });
        let deadline = typed
            .metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0);
        let late = deadline.is_some_and(|deadline| deadline <= api.now);
        let since = memory.drain.map_or(api.now, |drain| drain.since);
        for action in actions {
            match action {
                Action::Drain => {
                    memory.drain = Some(Drain { since, seen });
                    return Step::Leave;
                }
                // A forced deletion waits for nobody.
                Action::Stop { .. } if late => return Step::Kill,
                Action::Stop { .. } => return Step::Stop(since.duration_until(api.now)),
                Action::Kill { .. } => return Step::Kill,
                _ => {}
            }
        }
        Step::Wait
    }
}

impl Agent {
    /// Whether a slice has named the pod since it was told to end, as far as this agent has heard.
    fn in_service(&self, uid: &str, address: IpAddr) -> bool {
        let told = self.leaving.get(uid).map_or(0, |(told, _)| *told);
        match self.known.endpoints.standing(uid, Some(address)) {
            Standing::InNone => false,
            Standing::Present | Standing::LeftAt(_) => true,
            Standing::DroppedAt(revision) => revision >= told,
        }
    }
}

enum Step {
    Wait,
    Leave,
    Stop(SignedDuration),
    Kill,
}

fn running(role: Role, name: &str) -> Container {
    let identity = Identity {
        role,
        name: name.to_owned(),
        attempt: 0,
        generation: 0,
        level: 0,
        spec_hash: String::new(),
        addrs: None,
    };
    Container {
        id: name.to_owned(),
        identity,
        image: String::new(),
        image_id: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        log_path: None,
        resources: None,
        state: State::Running {
            pid: 0,
            started_at: Timestamp::UNIX_EPOCH,
        },
    }
}

pub fn ready_nodes(api: &Api) -> BTreeSet<String> {
    let nodes = api.list(Kind::NODE).into_iter();
    let ready = nodes.filter(|node| check::ready(node));
    ready.map(|node| meta::name(node).to_owned()).collect()
}

fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok())
        .expect("every object has a revision")
}
