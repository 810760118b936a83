//! One simulated cluster: the API, its clients, nodes with agents, users, and chance.

use agent::network::drain::LIMIT;
use api::meta;
use client::{Kind, PatchKind};
use controllers::object::Key;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::api::{Api, key_of};
use super::check;
use super::life::Lives;
use super::node::{self, Agent, Stopped, Turn};
use super::processes::{Controllers, Faults, Scheduler};
use super::rng::Rng;
use super::storage::{Mounts, Storage};

/// The cluster.
pub struct Cluster {
    pub api: Api,
    pub rng: Rng,
    controllers: Controllers,
    scheduler: Scheduler,
    nodes: Vec<Agent>,
    /// One a node, if pods are run as the product does it and not made up.
    pub lives: Vec<Lives>,
    faults: Faults,
    pub storage: Storage,
    addresses: u32,
    /// Every pod of a Service, or without one, that was asked to stop.
    pub stops: Vec<Stopped>,
}

pub const NAMESPACE: &str = "default";

impl Cluster {
    /// A cluster of `nodes` nodes with two CPUs each.
    pub fn new(seed: u64, nodes: usize) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let mut api = Api::new(now);
        for name in [NAMESPACE, "kube-node-lease"] {
            let spec = json!({"finalizers": ["kubernetes"]});
            must(api.create(
                Kind::NAMESPACE,
                json!({"metadata": {"name": name}, "spec": spec}),
            ));
        }
        let mut cluster = Self {
            api,
            rng: Rng::new(seed),
            controllers: Controllers::start(now),
            scheduler: Scheduler::start(),
            nodes: Vec::new(),
            lives: Vec::new(),
            faults: Faults::default(),
            storage: Storage::default(),
            addresses: 1,
            stops: Vec::new(),
        };
        (1..=nodes).for_each(|number| cluster.add_node(&format!("node-{number}")));
        cluster
    }

    /// The same, with the product's own life of pods on its nodes.
    pub fn with_lives(seed: u64, nodes: usize) -> Self {
        let mut cluster = Self::new(seed, nodes);
        let agents = cluster.nodes.iter().zip(1..);
        cluster.lives = agents
            .map(|(agent, number)| Lives::new(&agent.name, number))
            .collect();
        cluster
    }

    pub fn add_node(&mut self, name: &str) {
        let amounts = json!({"cpu": "2", "memory": "4Gi", "pods": "20"});
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        });
        must(self.api.create(Kind::NODE, node));
        let status = json!({"status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let key = Key::new("", name);
        must(
            self.api
                .patch(Kind::NODE, &key, "status", PatchKind::Strategic, &status),
        );
        let lease = json!({
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": meta::micro_timestamp(self.api.now)},
        });
        must(self.api.create(Kind::LEASE, lease));
        self.nodes.push(Agent::new(name, self.api.now));
    }

    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.nodes.iter()
    }

    /// The node's lease says nothing of slices from now on.
    pub fn mute(&mut self, name: &str) {
        for agent in self.nodes.iter_mut().filter(|agent| agent.name == name) {
            agent.mute = true;
        }
    }

    /// The node's agent falls silent, or speaks again.
    pub fn set_alive(&mut self, name: &str, alive: bool) {
        for agent in self.nodes.iter_mut().filter(|agent| agent.name == name) {
            agent.alive = alive;
        }
    }

    pub fn restart_controllers(&mut self) {
        self.controllers = Controllers::start(self.api.now);
    }

    pub fn restart_scheduler(&mut self) {
        self.scheduler = Scheduler::start();
    }

    /// `steps` steps in which everything that can go wrong may; what must always hold is checked.
    pub fn chaos(&mut self, steps: usize, faults: Faults) {
        self.go_wrong(steps, faults, 10);
    }

    /// The same, but nothing happens to pods by itself.
    pub fn trouble(&mut self, steps: usize, faults: Faults) {
        self.go_wrong(steps, faults, 0);
    }

    fn go_wrong(&mut self, steps: usize, faults: Faults, disturbances: u64) {
        self.faults = faults;
        for _ in 0..steps {
            let before = self.api.log.len();
            self.step();
            if self.rng.chance(3) {
                self.restart_controllers();
            }
            if self.rng.chance(3) {
                self.restart_scheduler();
            }
            if self.rng.chance(disturbances) {
                self.disturb();
            }
            if self.api.log.len() != before {
                self.check();
            }
        }
        self.faults = Faults::default();
    }

    /// Until nothing but heartbeats has moved for a while. Panics if that takes too long.
    pub fn settle(&mut self) {
        const ENOUGH: usize = 400_000;
        let mut moved = (self.movements(), self.api.now);
        for _ in 0..ENOUGH {
            if self.step() || self.drain() {
                if moved.0 != self.movements() {
                    self.check();
                    moved = (self.movements(), self.api.now);
                }
                continue;
            }
            if moved.1.duration_until(self.api.now) > QUIET {
                return;
            }
            self.api.now = self.deadline();
        }
        panic!("nothing settles: {:?}", check::problems(&self.api));
    }

    fn check(&self) {
        check::always(&self.api);
        self.storage.check(&self.api);
    }

    /// How much has happened but heartbeats.
    fn movements(&self) -> usize {
        self.api.log.len() - self.api.heartbeats
    }

    /// The next thing that falls due by time alone; agents renew their leases in any case.
    fn deadline(&self) -> Timestamp {
        let alive = self.nodes.iter().filter(|agent| agent.alive);
        let agents = alive.map(Agent::deadline);
        let engines = [
            self.controllers.engine.next_deadline(),
            self.scheduler.engine.next_deadline(),
        ];
        let next = agents.chain(engines.into_iter().flatten()).min();
        next.unwrap_or(self.api.now)
            .max(self.api.now + SignedDuration::from_millis(1))
    }

    /// Lets `seconds` go by while everything runs.
    pub fn elapse(&mut self, seconds: i64) {
        let until = self.api.now + SignedDuration::from_secs(seconds);
        while self.api.now < until {
            if !self.step() && !self.drain() {
                self.api.now += SignedDuration::from_secs(1);
            }
        }
    }

    /// One step of one process. False if it had nothing to do.
    pub fn step(&mut self) -> bool {
        self.api.now += SignedDuration::from_millis(self.rng.below(4) as i64);
        let kind = Kind::watched()[self.rng.below(Kind::watched().len())];
        let relist = self.rng.chance(self.faults.before / 20);
        match self.rng.below(8) {
            7 if self.rng.chance(300) => self.storage.attach(&mut self.api, &mut self.rng),
            0..=2 => self.controllers.deliver(&self.api, kind, relist),
            3 | 4 => self
                .controllers
                .work(&mut self.api, &mut self.rng, self.faults),
            5 => {
                let kind = if self.rng.chance(700) {
                    Kind::POD
                } else {
                    Kind::NODE
                };
                self.scheduler.deliver(&self.api, kind, relist)
            }
            6 => self
                .scheduler
                .work(&mut self.api, &mut self.rng, self.faults),
            _ => {
                let index = self.rng.below(self.nodes.len());
                self.agent(index)
            }
        }
    }

    /// Gives everybody a turn; false if nobody had anything to do.
    fn drain(&mut self) -> bool {
        let mut busy = false;
        for &kind in Kind::watched() {
            busy |= self.controllers.deliver(&self.api, kind, false);
        }
        for kind in [Kind::POD, Kind::NODE] {
            busy |= self.scheduler.deliver(&self.api, kind, false);
        }
        busy |= self
            .controllers
            .work(&mut self.api, &mut self.rng, self.faults);
        busy |= self
            .scheduler
            .work(&mut self.api, &mut self.rng, self.faults);
        for index in 0..self.nodes.len() {
            busy |= self.agent(index);
        }
        busy | self.storage.attach(&mut self.api, &mut self.rng)
    }

    /// The agent hears of a slice, writes its lease, or starts or ends one of its pods.
    fn agent(&mut self, index: usize) -> bool {
        let agent = &mut self.nodes[index];
        if !agent.alive {
            return false;
        }
        if agent.renew(&mut self.api) || (self.rng.chance(500) && agent.deliver(&self.api)) {
            return true;
        }
        if let Some(lives) = self.lives.get_mut(index) {
            return lives.turn(&mut self.api, &mut self.rng, self.faults);
        }
        let name = agent.name.clone();
        let own = |pod: &&Value| pod["spec"]["nodeName"] == json!(name);
        let todo = self.api.list(Kind::POD).into_iter().filter(own);
        let todo: Vec<Value> = todo.filter(|pod| wants_attention(pod)).cloned().collect();
        let first = self.rng.below(todo.len().max(1));
        for pod in todo.iter().cycle().skip(first).take(todo.len()) {
            if !meta::is_terminating(pod) {
                match self.storage.mount(&mut self.api, &name, pod) {
                    Mounts::Done => self.start(pod),
                    Mounts::Busy => {}
                    Mounts::Waiting => continue,
                }
                return true;
            }
            match self.nodes[index].end(&mut self.api, pod) {
                Turn::Idle => {}
                Turn::Busy => return true,
                Turn::Stopped(stopped) => {
                    self.note(stopped);
                    return true;
                }
            }
        }
        self.nodes[index].deliver(&self.api) || self.storage.unmount(&mut self.api, &name)
    }

    fn start(&mut self, pod: &Value) {
        if pod["status"]["phase"] == "Running" {
            if is_of_job(pod) && check::ready(pod) {
                let fails = self.faults.before > 0 && self.rng.chance(300);
                let phase = if fails { "Failed" } else { "Succeeded" };
                return self.set_pod(pod, json!({"phase": phase}), false);
            }
            return self.set_pod(pod, json!({}), true);
        }
        self.addresses += 1;
        let ip = format!(
            "10.100.{}.{}",
            self.addresses / 250,
            self.addresses % 250 + 2
        );
        self.set_pod(pod, json!({"phase": "Running", "podIP": ip}), true);
    }

    /// A pod that is asked to stop before its time is up must be in no Ready node's maps.
    fn note(&mut self, stopped: Stopped) {
        self.stops.push(stopped);
        if stopped.waited >= LIMIT || !stopped.in_service {
            return;
        }
        let ready = node::ready_nodes(&self.api);
        for agent in self
            .nodes
            .iter()
            .filter(|agent| ready.contains(&agent.name))
        {
            assert!(
                !agent.open().contains(&stopped.address),
                "{} sends connections to a pod that was stopped: {stopped:?}",
                agent.name
            );
        }
    }

    fn set_pod(&mut self, pod: &Value, mut status: Value, ready: bool) {
        status["conditions"] = json!([{
            "type": "Ready",
            "status": if ready { "True" } else { "False" },
            "lastTransitionTime": meta::timestamp(self.api.now),
        }]);
        let body = json!({"status": status});
        must(self.api.patch(
            Kind::POD,
            &key_of(pod),
            "status",
            PatchKind::Strategic,
            &body,
        ));
    }

    /// Something happens to a pod: it fails, becomes unready, or somebody deletes it.
    fn disturb(&mut self) {
        if !self.lives.is_empty() && self.rng.chance(700) {
            let index = self.rng.below(self.lives.len());
            return match self.rng.chance(300) {
                true => self.lives[index].restart(),
                false => self.lives[index].kill_one(&mut self.rng, self.api.now),
            };
        }
        let pods: Vec<Value> = self.api.list(Kind::POD).into_iter().cloned().collect();
        let Some(pod) = self.rng.pick(&pods).cloned() else {
            return;
        };
        let is_made_up = self.lives.is_empty() && pod["status"]["phase"] == "Running";
        match self.rng.below(3) {
            0 if is_made_up => {
                self.set_pod(&pod, json!({"phase": "Failed"}), false);
            }
            1 if is_made_up => self.set_pod(&pod, json!({}), false),
            _ => {
                let deleted = self.api.delete(Kind::POD, &key_of(&pod), &json!({}));
                deleted.expect("the pod is there");
            }
        }
    }
}

/// A pod that its agent has something to do for.
fn wants_attention(pod: &Value) -> bool {
    let finished = matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    );
    let ready = pod["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
    let is_shut_down = pod["metadata"]["deletionGracePeriodSeconds"] == 0;
    (meta::is_terminating(pod) && !is_shut_down) || (!finished && (!ready || is_of_job(pod)))
}

/// A pod that comes to an end by itself.
fn is_of_job(pod: &Value) -> bool {
    let owners = meta::owner_references(pod);
    owners.iter().any(|owner| owner.kind == Kind::JOB.kind)
}

pub fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("the simulation's own writes are right")
}

/// Longer than any pause that ends by itself.
const QUIET: SignedDuration = SignedDuration::from_secs(370);
