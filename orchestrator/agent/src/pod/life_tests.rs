//! Whole lives of pods on an engine in memory (`pod::double`): random deaths and a clock, plans executed as they
//! come. What must hold at every step is asserted at every step.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pod::double::Double;

/// A node of one pod.
struct World {
    pod: Double,
    now: Timestamp,
    made: u32,
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
            // Nobody ever says that the pod has left.
            pod: Double::new(serde_json::from_value(pod).expect("a pod")),
            now: Timestamp::from_second(1000).expect("in range"),
            made: 0,
        }
    }

    /// Plans and executes until there is nothing to do now.
    fn settle(&mut self) {
        for _ in 0..60 {
            let actions = plan(&self.pod.view(self.now));
            let mut progress = false;
            for action in actions {
                progress |= self.execute(action);
                self.check();
            }
            if !progress {
                return;
            }
        }
        panic!("the plan does not settle: {:?}", self.pod.containers);
    }

    /// True when the world changed at once.
    fn execute(&mut self, action: Action) -> bool {
        match action {
            Action::Confirm => {
                let is_empty = self.pod.containers.is_empty();
                assert!(is_empty, "confirmed while containers are left");
                self.pod.memory.confirmed = true;
                true
            }
            Action::Finish => true,
            Action::WakeAt(time) => {
                assert!(time > self.now, "a wake-up in the past is a busy loop");
                false
            }
            other => {
                if let Action::Stop { id, kill_at, .. } = &other {
                    self.check_turn(id, *kill_at);
                }
                self.pod.act(other, &mut self.made, self.now)
            }
        }
    }

    fn end(&mut self, id: &str, code: i32) {
        self.pod.end(id, code, self.now);
    }

    fn running(&self) -> Vec<&Container> {
        shape::members(&self.pod.containers)
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
                let sandbox = shape::sandbox(&self.pod.containers).map(|it| it.id.clone());
                if let Some(id) = sandbox {
                    self.end(&id, 137);
                    self.pod.memory.attached = None;
                }
            }
            Happening::Passes(seconds) => self.now += SignedDuration::from_secs(*seconds),
            Happening::AgentRestarts => self.pod.memory = Memory::default(),
            Happening::Deleted => {
                let at = self.now + SignedDuration::from_secs(30);
                let time = crate::pod::status::seconds(at);
                let metadata = &mut self.pod.pod.metadata;
                metadata.deletion_timestamp.get_or_insert(time);
            }
            Happening::Vanishes(number) => {
                let all = &self.pod.containers;
                let id = (!all.is_empty()).then(|| all[number % all.len()].id.clone());
                id.into_iter().for_each(|id| self.pod.vanish(&id));
            }
        }
    }

    fn is_sidecar(&self, container: &Container) -> bool {
        let inits = shape::init_templates(&self.pod.pod).iter();
        let mut sidecars = inits.filter(|it| shape::is_sidecar(it));
        sidecars.any(|it| it.name == container.identity.name)
    }

    /// A sidecar is asked to stop after what started after it, or when the time is up.
    fn check_turn(&self, id: &str, kill_at: Timestamp) {
        let stopped = self.pod.containers.iter().find(|it| it.id == id);
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
        self.pod.check();
        let running = self.running();
        let newest = shape::sandbox(&self.pod.containers);
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
        let retires = world.pod.memory.retired_at.is_some();
        let signalled = |it: &&Container| world.pod.memory.signalled.contains_key(&it.id);
        prop_assert!(retires || !world.running().iter().any(signalled));
        world.happen(&Happening::Passes(2));
        world.settle();
        let mut mains = { world.running() }.into_iter().filter(|it| !world.is_sidecar(it));
        prop_assert!(mains.all(|it| world.pod.memory.signalled.contains_key(&it.id)));
        for seconds in [29, 3] {
            world.happen(&Happening::Passes(seconds));
            world.settle();
        }
        prop_assert!(world.pod.memory.confirmed);
        prop_assert!(world.pod.containers.is_empty());
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
    let before = world.pod.containers.clone();
    world.happen(&Happening::AgentRestarts);
    world.settle();
    assert_eq!(world.pod.containers, before);
}
