//! Whole lives of pods in a world without an engine: random deaths and a clock, plans executed as
//! they come. What must hold at every step is asserted at every step.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::runtime::{Exit, Identity};

/// A node of one pod.
struct World {
    pod: Pod,
    now: Timestamp,
    containers: Vec<Container>,
    memory: Memory,
    made: u32,
    finished: bool,
}

/// What may happen to a pod.
#[derive(Debug, Clone)]
enum Happening {
    /// A running container ends; the number picks which.
    Ends(usize, i32),
    SandboxDies,
    Passes(i64),
    /// The agent dies: its memory is lost.
    AgentRestarts,
    Deleted,
    Vanishes(usize),
}

impl World {
    /// Every second init container stays if `sidecars`.
    fn new(policy: &str, inits: usize, mains: usize, sidecars: bool) -> World {
        let list = |prefix: &str, count: usize| {
            let names = (0..count).map(|number| format!("{prefix}{number}"));
            names
                .map(|name| json!({ "name": name, "image": "i:1" }))
                .collect::<Vec<_>>()
        };
        let mut init = list("init", inits);
        for sidecar in init.iter_mut().step_by(2).filter(|_| sidecars) {
            sidecar["restartPolicy"] = json!("Always");
        }
        let pod = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
            "spec": {
                "restartPolicy": policy,
                "initContainers": init,
                "containers": list("main", mains),
            },
        });
        World {
            pod: serde_json::from_value(pod).expect("a pod"),
            now: Timestamp::from_second(1000).expect("in range"),
            containers: Vec::new(),
            memory: Memory::default(),
            made: 0,
            finished: false,
        }
    }

    /// Plans and executes until there is nothing to do now.
    fn settle(&mut self) {
        for _ in 0..60 {
            let view = View {
                pod: &self.pod,
                gone: false,
                now: self.now,
                containers: &self.containers,
                memory: &self.memory,
            };
            let actions = plan(&view);
            let mut progress = false;
            for action in actions {
                progress |= self.execute(action);
                self.check();
            }
            if !progress {
                return;
            }
        }
        panic!("the plan does not settle: {:?}", self.containers);
    }

    fn make(&mut self, identity: Identity) {
        let taken = self.containers.iter().any(|it| {
            let it = &it.identity;
            (it.role, &it.name, it.attempt) == (identity.role, &identity.name, identity.attempt)
        });
        assert!(!taken, "an attempt is made twice: {identity:?}");
        self.made += 1;
        self.containers.push(Container {
            id: format!("c{}", self.made),
            identity,
            image: "i:1".to_owned(),
            image_id: "sha256:1".to_owned(),
            created_at: self.now,
            log_path: None,
            resources: None,
            state: State::Running {
                pid: self.made,
                started_at: self.now,
            },
        });
    }

    /// True when the world changed at once.
    fn execute(&mut self, action: Action) -> bool {
        match action {
            Action::EnsureImage { container, .. } => {
                self.memory.images.insert(container, ImageState::Ready);
            }
            Action::CreateSandbox { attempt } => self.make(sandbox_identity(attempt)),
            Action::Attach { sandbox, .. } => {
                let addrs = "10.0.0.2".parse().expect("an address");
                self.memory.attached = Some(Attached { sandbox, addrs });
                self.memory.released = false;
            }
            Action::Start {
                container,
                role,
                attempt,
                generation,
                level,
            } => {
                self.memory.images.remove(&container);
                let spec_hash = self.spec_hash(&container);
                let name = container;
                let addrs = None;
                self.make(Identity {
                    role,
                    name,
                    attempt,
                    generation,
                    level,
                    spec_hash,
                    addrs,
                });
            }
            Action::Drain => self.drain(),
            Action::PreStop { .. } => panic!("nothing has a hook"),
            Action::Resize { .. } => panic!("nothing is resized"),
            Action::Retire => self.memory.retired_at = Some(self.now),
            Action::Stop { id, kill_at, .. } => {
                self.signal(id, kill_at);
                return false;
            }
            Action::Kill { id } => self.end(&id, 137),
            Action::Remove { id } | Action::RemoveSandbox { id } => {
                self.containers.retain(|container| container.id != id);
                if self
                    .memory
                    .attached
                    .as_ref()
                    .is_some_and(|it| it.sandbox == id)
                {
                    self.memory.attached = None;
                }
            }
            Action::ReportEnd => self.memory.reported_end = true,
            Action::Release => self.memory.released = true,
            Action::CleanUp => self.memory.cleaned = true,
            Action::Confirm => {
                assert!(
                    self.containers.is_empty(),
                    "confirmed while containers are left"
                );
                self.memory.confirmed = true;
            }
            Action::Finish => self.finished = true,
            Action::WakeAt(time) => {
                assert!(time > self.now, "a wake-up in the past is a busy loop");
                return false;
            }
        }
        true
    }

    fn signal(&mut self, id: String, kill_at: Timestamp) {
        self.check_turn(&id, kill_at);
        let at = self.now;
        let signalled = Signalled { at, kill_at };
        self.memory.signalled.insert(id, signalled);
    }

    /// Nobody ever says that the pod has left.
    fn drain(&mut self) {
        assert!(self.memory.drain.is_none(), "a pod leaves twice");
        self.memory.drain = Some(Drain {
            since: self.now,
            seen: Progress::default(),
        });
    }

    fn spec_hash(&self, name: &str) -> String {
        let mains = shape::main_templates(&self.pod).iter();
        let mut templates = mains.chain(shape::init_templates(&self.pod));
        let template = templates.find(|template| template.name == name);
        shape::spec_hash(template.expect("a container of the pod"))
    }

    fn end(&mut self, id: &str, code: i32) {
        let now = self.now;
        if let Some(container) = self.containers.iter_mut().find(|it| it.id == id)
            && let State::Running { started_at, .. } = container.state
        {
            let (oom_killed, start_error) = (false, None);
            let finished_at = now;
            let exit = Exit {
                code,
                oom_killed,
                start_error,
                started_at,
                finished_at,
            };
            container.state = State::Exited(exit);
        }
        self.memory.signalled.remove(id);
    }

    fn running(&self) -> Vec<&Container> {
        shape::members(&self.containers)
            .filter(|it| it.is_running())
            .collect()
    }

    fn happen(&mut self, happening: &Happening) {
        let pick = |world: &World, number: usize| {
            let running = world.running();
            (!running.is_empty()).then(|| running[number % running.len()].id.clone())
        };
        match happening {
            Happening::Ends(number, code) => {
                if let Some(id) = pick(self, *number) {
                    self.end(&id, *code);
                }
            }
            Happening::SandboxDies => {
                let sandbox = shape::sandbox(&self.containers).map(|it| it.id.clone());
                if let Some(id) = sandbox {
                    self.end(&id, 137);
                    self.memory.attached = None;
                }
            }
            Happening::Passes(seconds) => self.now += SignedDuration::from_secs(*seconds),
            Happening::AgentRestarts => self.memory = Memory::default(),
            Happening::Deleted => {
                let at = self.now + SignedDuration::from_secs(30);
                let time = crate::pod::status::seconds(at);
                self.pod.metadata.deletion_timestamp.get_or_insert(time);
            }
            Happening::Vanishes(number) => {
                let id = (!self.containers.is_empty())
                    .then(|| self.containers[number % self.containers.len()].id.clone());
                self.containers
                    .retain(|container| Some(&container.id) != id.as_ref());
                let wired = self.memory.attached.as_ref().map(|it| &it.sandbox);
                if wired == id.as_ref() {
                    self.memory.attached = None;
                }
            }
        }
    }

    fn is_sidecar(&self, container: &Container) -> bool {
        let inits = shape::init_templates(&self.pod).iter();
        let mut sidecars = inits.filter(|it| shape::is_sidecar(it));
        sidecars.any(|it| it.name == container.identity.name)
    }

    /// A sidecar is asked to stop after what started after it, or when the time is up.
    fn check_turn(&self, id: &str, kill_at: Timestamp) {
        let stopped = self.containers.iter().find(|it| it.id == id);
        let stopped = stopped.expect("a container");
        let is_late = kill_at <= self.now + SignedDuration::from_secs(2);
        if !self.is_sidecar(stopped) || is_late {
            return;
        }
        let later = |it: &&&Container| {
            let name = (it.identity.role, &it.identity.name);
            name > (stopped.identity.role, &stopped.identity.name)
        };
        assert_eq!(
            self.running().iter().filter(later).count(),
            0,
            "{id} goes early"
        );
    }

    /// What must hold at every step of every life.
    fn check(&self) {
        let running = self.running();
        for container in &running {
            let name = &container.identity.name;
            let twins = running
                .iter()
                .filter(|it| it.identity.name == *name)
                .count();
            assert_eq!(twins, 1, "{name} runs twice");
        }
        let newest = shape::sandbox(&self.containers);
        let mains = running.iter().filter(|it| it.identity.role == Role::Main);
        let inits = running
            .iter()
            .filter(|it| it.identity.role == Role::Init && !self.is_sidecar(it))
            .count();
        assert!(inits <= 1, "two init containers run");
        if let Some(sandbox) = newest.filter(|sandbox| sandbox.is_running()) {
            let fresh = mains.filter(|it| it.identity.generation == sandbox.identity.attempt);
            assert!(
                fresh.count() == 0 || inits == 0,
                "a container runs beside an init container"
            );
        }
    }
}

fn sandbox_identity(attempt: u32) -> Identity {
    Identity {
        role: Role::Sandbox,
        name: String::new(),
        attempt,
        generation: attempt,
        level: 0,
        spec_hash: String::new(),
        addrs: None,
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (any::<usize>(), 0..3).prop_map(|(number, code)| Happening::Ends(number, code)),
        4 => (1_i64..400).prop_map(Happening::Passes),
        1 => Just(Happening::SandboxDies),
        2 => Just(Happening::AgentRestarts),
        1 => any::<usize>().prop_map(Happening::Vanishes),
    ];
    proptest::collection::vec(one, 0..40)
}

proptest! {
    #[test]
    fn every_life_keeps_its_rules_and_ends_when_the_pod_is_deleted(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        inits in 0_usize..3,
        mains in 1_usize..3,
        sidecars in any::<bool>(),
        story in happenings(),
    ) {
        let mut world = World::new(policy, inits, mains, sidecars);
        world.settle();
        for happening in &story {
            world.happen(happening);
            world.settle();
        }
        world.happen(&Happening::Deleted);
        world.settle();
        // Sidecars of a pod that has run to its end are on their way already.
        let retires = world.memory.retired_at.is_some();
        let signalled = |it: &&Container| world.memory.signalled.contains_key(&it.id);
        prop_assert!(retires || !world.running().iter().any(signalled));
        world.happen(&Happening::Passes(2));
        world.settle();
        let mut mains = { world.running() }.into_iter().filter(|it| !world.is_sidecar(it));
        prop_assert!(mains.all(|it| world.memory.signalled.contains_key(&it.id)));
        for seconds in [29, 3] {
            world.happen(&Happening::Passes(seconds));
            world.settle();
        }
        prop_assert!(world.memory.confirmed);
        prop_assert!(world.containers.is_empty());
    }

    #[test]
    fn a_pod_that_shall_always_run_runs_again_within_five_minutes(
        inits in 0_usize..3,
        sidecars in any::<bool>(),
        story in happenings(),
    ) {
        let mut world = World::new("Always", inits, 2, sidecars);
        world.settle();
        for happening in &story {
            world.happen(happening);
            world.settle();
        }
        // Each init container that runs ends well, and each back-off passes.
        for _ in 0..2 * (inits + 2) {
            world.happen(&Happening::Passes(301));
            world.settle();
            let init = { world.running() }
                .into_iter()
                .find(|it| it.identity.role == Role::Init && !world.is_sidecar(it));
            if let Some(id) = init.map(|init| init.id.clone()) {
                world.end(&id, 0);
                world.settle();
            }
        }
        let mains = world.running().iter().filter(|it| it.identity.role == Role::Main).count();
        prop_assert_eq!(mains, 2);
        let stay = world.running().iter().filter(|it| world.is_sidecar(it)).count();
        prop_assert_eq!(stay, if sidecars { inits.div_ceil(2) } else { 0 });
    }
}

#[test]
fn a_restarted_agent_touches_nothing_of_a_pod_that_runs() {
    let mut world = World::new("Always", 1, 2, false);
    world.settle();
    let init = world.running()[0].id.clone();
    world.end(&init, 0);
    world.settle();
    let before = world.containers.clone();
    world.happen(&Happening::AgentRestarts);
    world.settle();
    assert_eq!(world.containers, before);
}
