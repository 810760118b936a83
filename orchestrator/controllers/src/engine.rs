//! All controllers as one state machine without I/O: changes and answers in, plans out. The shell
//! feeds it from watches and carries out its plans; the simulation feeds it from a seed. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::ControllersConfig;
use super::action::{Ask, Plan, Reply};
use super::controller::{self, Controller, Due};
use super::numbers::Numbers;
use super::object::{Key, Object};
use super::queue::{Outcome, Queue};
use super::task::Task;
use super::world::{Change, Diff, World};
use client::Kind;

pub use super::controller::Ending;

/// The controllers' state.
pub struct Engine {
    world: World,
    queue: Queue<Task>,
    controllers: Vec<Box<dyn Controller>>,
    /// By kind the places of the controllers that watch it, once it was heard of.
    hearing: BTreeMap<Kind, Arc<[usize]>>,
    in_sync: bool,
}

impl Engine {
    pub fn new(config: ControllersConfig, now: Timestamp) -> Self {
        Self {
            world: World::default(),
            queue: Queue::default(),
            controllers: controller::all(&config, now),
            hearing: BTreeMap::new(),
            in_sync: false,
        }
    }

    /// Counts what the queue does from now on.
    pub fn count(&mut self, numbers: Numbers) {
        self.queue
            .observe(move |task, step| numbers.note(task, step));
    }

    /// Takes in what a watch delivered.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        for diff in self.world.apply(change) {
            self.note(&diff, now);
        }
        if !self.in_sync && self.world.in_sync(Kind::watched()) {
            self.in_sync = true;
            for place in 0..self.controllers.len() {
                self.add(place, |controller, world, due| {
                    controller.due_at_start(world, due);
                });
            }
        }
    }

    /// Forgets the objects of a custom kind that is served no more.
    pub fn forget(&mut self, kind: Kind, now: Timestamp) {
        for diff in self.world.forget(kind) {
            self.note(&diff, now);
        }
    }

    /// Takes in the object that the server answered a write with.
    pub fn answered(&mut self, object: Object, now: Timestamp) {
        if let Some(diff) = self.world.assume(object) {
            self.note(&diff, now);
        }
    }

    /// Takes in that a delete took effect at once.
    pub fn gone(&mut self, kind: Kind, key: &Key, uid: &str, now: Timestamp) {
        if let Some(diff) = self.world.assume_gone(kind, key, uid) {
            self.note(&diff, now);
        }
    }

    /// The next plan that asks for something. Nothing is planned before every watch has delivered.
    pub fn next(&mut self, now: Timestamp) -> Option<(Task, Plan)> {
        if !self.in_sync {
            return None;
        }
        while let Some(task) = self.queue.pop(now) {
            let controller = &mut self.controllers[task.place];
            let plan = controller.plan(&self.world, &task.about, now);
            let plan = plan.unwrap_or_default();
            if let Some(wait) = plan.again {
                self.queue.add_at(task.clone(), now + wait);
            }
            if !plan.actions.is_empty() {
                return Some((task, plan));
            }
            self.queue.finish(&task, Outcome::Done, now);
        }
        None
    }

    /// Takes in what was read for a task, which is planned again.
    pub fn told(&mut self, task: &Task, ask: &Ask, reply: &Reply, now: Timestamp) {
        self.controllers[task.place].told(&task.about, ask, reply, now);
        self.queue.add(task.clone());
    }

    /// A plan was carried out, or failed.
    pub fn finished(&mut self, task: &Task, ending: Ending, now: Timestamp) {
        let outcome = match ending {
            Ending::Done => Outcome::Done,
            Ending::Failed { .. } => Outcome::Failed,
        };
        self.controllers[task.place].ended(&task.about, &ending);
        self.queue.finish(task, outcome, now);
    }

    /// When something falls due by time alone.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.queue.next_deadline()
    }

    /// Nothing is due and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// The accounts of all controllers, some of them several times.
    pub fn accounts(&self) -> impl Iterator<Item = &'static str> {
        self.controllers
            .iter()
            .map(|controller| controller.account())
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    fn note(&mut self, diff: &Diff, now: Timestamp) {
        let hearing = self.hearing(diff.object().kind);
        for place in &*hearing {
            self.controllers[*place].hear(diff, now);
        }
        for place in &*hearing {
            self.add(*place, |controller, world, due| {
                controller.due(world, diff, due);
            });
        }
    }

    /// The places of the controllers that watch the kind.
    fn hearing(&mut self, kind: Kind) -> Arc<[usize]> {
        let places = self.hearing.entry(kind).or_insert_with(|| {
            let all = self.controllers.iter().enumerate();
            let hearing = all.filter(|(_, controller)| controller.watches().has(kind));
            hearing.map(|(place, _)| place).collect()
        });
        places.clone()
    }

    /// Queues what the controller at that place says is due.
    fn add(&mut self, place: usize, due: impl FnOnce(&dyn Controller, &World, &mut Due)) {
        let controller = self.controllers[place].as_ref();
        let mut all = Due::new();
        due(controller, &self.world, &mut all);
        for about in all {
            self.queue.add(Task {
                place,
                controller: controller.name(),
                account: controller.account(),
                about,
            });
        }
    }
}

#[cfg(test)]
mod cost;
#[cfg(test)]
mod tests;
