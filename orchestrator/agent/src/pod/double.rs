//! One pod on an engine in memory, for tests and the simulation: the plan's actions are carried out at once, and
//! containers run until the test ends them. What may not happen to any pod panics here.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::plan::{Action, Attached, ImageState, Memory, Signalled, View};
use super::shape;
use crate::network::drain::{Drain, Progress};
use crate::runtime::{Container, Exit, Identity, Role, State};

/// What the engine has of a pod, and what its worker knows.
#[derive(Clone)]
pub struct Double {
    pub pod: Pod,
    /// The API has no such pod any more.
    pub gone: bool,
    pub containers: Vec<Container>,
    pub memory: Memory,
    /// What other nodes say as soon as the pod leaves its Services.
    pub drained: Progress,
}

/// The network gives every pod the same one.
const ADDRESS: [u8; 4] = [10, 100, 0, 2];

impl Double {
    pub fn new(pod: Pod) -> Self {
        Self {
            pod,
            gone: false,
            containers: Vec::new(),
            memory: Memory::default(),
            drained: Progress::default(),
        }
    }

    pub fn view(&self, now: Timestamp) -> View<'_> {
        View {
            pod: &self.pod,
            gone: self.gone,
            now,
            containers: &self.containers,
            memory: &self.memory,
        }
    }

    /// Carries out an action; `made` counts the containers of the node. True when something is other than before:
    /// what concerns the API (`Confirm`, `Finish`) and `WakeAt` is left to the caller.
    pub fn act(&mut self, action: Action, made: &mut u32, now: Timestamp) -> bool {
        match action {
            Action::EnsureImage { container, .. } => {
                let known = self.memory.images.insert(container, ImageState::Ready);
                return known != Some(ImageState::Ready);
            }
            Action::CreateSandbox { attempt } => {
                let of_sandbox = identity(Role::Sandbox, String::new(), [attempt, attempt, 0]);
                self.make(of_sandbox, made, now);
            }
            Action::Attach { sandbox, .. } => {
                let addrs = IpAddr::from(ADDRESS).into();
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
                let identity = identity(role, container, [attempt, generation, level]);
                let identity = Identity {
                    spec_hash,
                    ..identity
                };
                self.make(identity, made, now);
            }
            Action::Drain => {
                assert!(self.memory.drain.is_none(), "a pod leaves twice");
                let (since, seen) = (now, self.drained);
                self.memory.drain = Some(Drain { since, seen });
            }
            Action::Retire => self.memory.retired_at = Some(now),
            Action::Stop { id, kill_at, .. } => {
                let at = now;
                let before = self.memory.signalled.insert(id, Signalled { at, kill_at });
                return before.is_none_or(|it| it.kill_at != kill_at);
            }
            Action::Kill { id } => self.end(&id, 137, now),
            Action::Remove { id } | Action::RemoveSandbox { id } => self.vanish(&id),
            Action::ReportEnd => self.memory.reported_end = true,
            Action::Release => self.memory.released = true,
            Action::CleanUp => self.memory.cleaned = true,
            Action::PreStop { .. } | Action::Resize { .. } => unreachable!("no pod asks for it"),
            Action::Confirm | Action::Finish | Action::WakeAt(_) => return false,
        }
        true
    }

    /// A container ends, if it runs.
    pub fn end(&mut self, id: &str, code: i32, now: Timestamp) {
        let found = self.containers.iter_mut().find(|it| it.id == id);
        let Some(container) = found else { return };
        if let State::Running { started_at, .. } = container.state {
            container.state = State::Exited(Exit {
                code,
                oom_killed: false,
                start_error: None,
                started_at,
                finished_at: now,
            });
        }
        self.memory.signalled.remove(id);
    }

    /// The engine has a container no more, and with a sandbox goes its network.
    pub fn vanish(&mut self, id: &str) {
        self.containers.retain(|container| container.id != id);
        let wired = self.memory.attached.as_ref();
        if wired.is_some_and(|it| it.sandbox == id) {
            self.memory.attached = None;
        }
    }

    /// What runs, sandboxes included.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|it| it.is_running())
    }

    /// What must hold at every step.
    pub fn check(&self) {
        for container in self.running() {
            let Identity { role, name, .. } = &container.identity;
            let same = |it: &&Container| (it.identity.role, &it.identity.name) == (*role, name);
            assert_eq!(
                self.running().filter(same).count(),
                1,
                "{role:?} {name:?} runs twice"
            );
        }
    }

    fn make(&mut self, identity: Identity, made: &mut u32, now: Timestamp) {
        let twin = self.containers.iter().any(|it| {
            let it = &it.identity;
            (it.role, &it.name, it.attempt) == (identity.role, &identity.name, identity.attempt)
        });
        assert!(!twin, "an attempt is made twice: {identity:?}");
        let phase = self.pod.status.as_ref().and_then(|it| it.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        assert!(!is_over, "a pod that is over runs again: {identity:?}");
        *made += 1;
        self.containers.push(Container {
            id: format!("{made:064}"),
            identity,
            image: "image:1".to_owned(),
            image_id: "sha256:1".to_owned(),
            created_at: now,
            log_path: None,
            resources: None,
            state: State::Running {
                pid: *made,
                started_at: now,
            },
        });
    }

    fn spec_hash(&self, name: &str) -> String {
        let mains = shape::main_templates(&self.pod).iter();
        let mut templates = mains.chain(shape::init_templates(&self.pod));
        let template = templates.find(|template| template.name == name);
        template.map(shape::spec_hash).unwrap_or_default()
    }
}

fn identity(role: Role, name: String, [attempt, generation, level]: [u32; 3]) -> Identity {
    Identity {
        role,
        name,
        attempt,
        generation,
        level,
        spec_hash: String::new(),
        addrs: None,
    }
}
