//! Keeps the maps as the world wants them: dirty units in, single writes out.
//!
//! Holds the world, the mirror of the maps and what is still due. It decides nothing: rows are
//! `desired`'s, order is `delta`'s.

use std::collections::BTreeSet;

use super::announcement::Announcements;
use super::delta::{Op, delta, replay};
use super::desired::{self, services};
use super::facts::Facts;
use super::ids::Ids;
use super::kernel::Kernel;
use super::reserved::Reserved;
use super::table::{Tables, Unit};
use super::world::World;
use super::{Change, DatapathError};

/// Units that are computed and written together: enough for long runs of writes to one map, few enough
/// that their rows are no second copy of the tables.
const TOGETHER: usize = 512;

pub struct Reconciler<K> {
    kernel: K,
    facts: Facts,
    world: World,
    /// What the maps hold, followed write by write.
    actual: Tables,
    ids: Ids,
    /// What failed and waits for the next [`Reconciler::retry`].
    dirty: BTreeSet<Unit>,
    /// Backends whose rows are gone while their flows have not been told.
    unraised: BTreeSet<u32>,
    /// Rows may be left under a number that no Service row has: a write was cut short.
    strays: bool,
    announcements: Announcements,
    in_sync: bool,
}

impl<K: Kernel> Reconciler<K> {
    /// Reads what an earlier agent left and writes this node's own rows.
    pub fn start(kernel: K, facts: Facts) -> Result<Self, DatapathError> {
        let actual = kernel.read()?;
        let ids = Ids::read(&actual);
        let world = World::new(&facts.name, Reserved::of(&facts));
        let own = desired::units(&world, &facts);
        let mut started = Self {
            kernel,
            facts,
            world,
            actual,
            ids,
            dirty: BTreeSet::new(),
            unraised: BTreeSet::new(),
            strays: true,
            announcements: Announcements::default(),
            in_sync: false,
        };
        started.settle(own)?;
        Ok(started)
    }

    /// Takes a change in and writes what follows from it. What fails stays due.
    pub fn change(&mut self, change: Change) -> Result<(), DatapathError> {
        let touched = self.world.change(change);
        self.settle(touched)
    }

    /// The node itself has changed: its own rows follow, and those of nodes that it tunnels to.
    pub fn learn(&mut self, facts: Facts) -> Result<(), DatapathError> {
        let own = |facts: &Facts| desired::units(&World::default(), facts);
        let mut due = own(&self.facts);
        due.extend(own(&facts));
        let all = self.world.units();
        due.extend(all.filter(|unit| matches!(unit, Unit::Node(_))));
        due.extend(self.world.reserve(Reserved::of(&facts)));
        self.facts = facts;
        self.settle(due)
    }

    /// The view is complete: from now on, rows that nobody wants are deleted.
    pub fn in_sync(&mut self) -> Result<(), DatapathError> {
        if self.in_sync {
            return self.retry();
        }
        self.raise_orphans()?;
        self.in_sync = true;
        self.world.pack();
        let mut all = desired::units(&self.world, &self.facts);
        all.extend(self.actual.units());
        self.dirty.append(&mut all);
        // An earlier agent may have ended before it told of what it wrote.
        let held = self.actual.announced.iter();
        held.for_each(|addr| self.announcements.begin(*addr));
        let done = self.retry();
        self.actual.pack();
        done
    }

    /// Tries again what failed.
    pub fn retry(&mut self) -> Result<(), DatapathError> {
        let due = std::mem::take(&mut self.dirty);
        let pruned = self.prune_strays();
        let settled = self.settle(due);
        pruned.and(settled)
    }

    pub fn is_in_sync(&self) -> bool {
        self.in_sync
    }

    /// Nothing is due, and nothing waits for the view to be complete.
    pub fn is_settled(&self) -> bool {
        self.in_sync && self.dirty.is_empty()
    }

    /// No Service leads to an endpoint any more that has left it, and nobody is held to one, as far as the
    /// view says: what is due is at most something to add. A Service that finds no room must not keep
    /// silent what was done for all others.
    pub fn has_let_go(&self) -> bool {
        let done = self.in_sync && self.unraised.is_empty();
        done && !self.dirty.iter().any(|unit| self.outlives(unit))
    }

    /// A Service that could not be written has slots that nobody wants there any more.
    fn outlives(&self, unit: &Unit) -> bool {
        let Unit::Service(key) = unit else {
            return false;
        };
        let row = self.actual.services.get(key);
        let mut slots = row.into_iter().flat_map(|row| self.actual.slots(row.id));
        let wanted = services::backends(key, &self.world);
        slots.any(|(_, slot)| !wanted.contains(&(slot.addr.into(), slot.port.host())))
    }

    /// What neighbours are to be told of, as rows are written.
    pub fn announcements(&mut self) -> &mut Announcements {
        &mut self.announcements
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn actual(&self) -> &Tables {
        &self.actual
    }

    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The maps beside what the agent's own ones hold, for those that it only sweeps.
    pub fn kernel_and_actual(&mut self) -> (&mut K, &Tables) {
        (&mut self.kernel, &self.actual)
    }

    /// Works units off, many together. Where that fails, one by one: the one that fails stays due, the
    /// others go on; the first error is told.
    fn settle(&mut self, units: BTreeSet<Unit>) -> Result<(), DatapathError> {
        // A Service whose slices have not all been heard of would lose backends, and two nodes might
        // answer for an address. It need not be remembered: in sync, everything is due.
        let early = |unit: &Unit| !matches!(unit, Unit::Service(_) | Unit::Announced(_));
        let now = |unit: &Unit| self.in_sync || early(unit);
        let due: Vec<Unit> = units.into_iter().filter(now).collect();
        for unit in &due {
            self.dirty.remove(unit);
        }
        let mut first = Ok(());
        for together in due.chunks(TOGETHER) {
            let Err(error) = self.settle_units(together) else {
                continue;
            };
            if let [unit] = together {
                self.dirty.insert(*unit);
                first = first.and(Err(error));
                continue;
            }
            for unit in together {
                if let Err(error) = self.settle_units(&[*unit]) {
                    self.dirty.insert(*unit);
                    first = first.and(Err(error));
                }
            }
            // What was cut short under the first error may be nobody's now.
            first = first.and(self.prune_strays());
        }
        first
    }

    fn settle_units(&mut self, units: &[Unit]) -> Result<(), DatapathError> {
        let mut before = Tables::default();
        units
            .iter()
            .for_each(|unit| before.extend(self.actual.unit(*unit)));
        let done = self.compute_and_write(units, &before);
        let taken = self.ids.services.taken();
        if done.is_err() {
            self.strays = true;
            self.untake(&taken, &before);
        }
        self.ids.backends.taken();
        for (key, row) in &before.services {
            if !self.actual.services.contains_key(key) {
                self.free_service(row.id);
            }
        }
        done
    }

    fn compute_and_write(&mut self, units: &[Unit], before: &Tables) -> Result<(), DatapathError> {
        let mut desired = Tables::default();
        for unit in units {
            let (world, facts) = (&self.world, &self.facts);
            let rows = desired::unit(*unit, world, facts, &self.actual, &mut self.ids)?;
            desired.extend(rows);
        }
        self.write(&delta(before, &desired, self.in_sync))
    }

    /// Numbers that were taken for rows which were not written are free again.
    fn untake(&mut self, services: &[u32], before: &Tables) {
        let kept = before.services.values().map(|row| row.id);
        let held: BTreeSet<u32> = kept
            .chain(services.iter().copied())
            .flat_map(|id| self.actual.slots(id).map(|(_, row)| row.id))
            .collect();
        for id in self.ids.backends.taken() {
            if !held.contains(&id) {
                self.ids.backends.give_back(id);
            }
        }
        let named: BTreeSet<u32> = self.actual.services.values().map(|row| row.id).collect();
        for id in services.iter().filter(|id| !named.contains(id)) {
            self.free_service(*id);
        }
    }

    /// The number of a Service that has no row any more. While something stands under it, it is a
    /// stray's.
    fn free_service(&mut self, id: u32) {
        if self.actual.numbered(id) == Tables::default() {
            self.ids.services.give_back(id);
        } else {
            self.strays = true;
        }
    }

    fn write(&mut self, ops: &[Op]) -> Result<(), DatapathError> {
        let (done, outcome) = self.kernel.write(ops);
        let (done, left) = ops.split_at(done);
        for op in done {
            replay(&mut self.actual, op);
            match op {
                Op::Raise(id) => self.ids.backends.give_back(*id),
                Op::PutAnnounced(addr) => self.announcements.begin(*addr),
                Op::DeleteAnnounced(addr) => self.announcements.end(addr),
                _ => {}
            }
        }
        let mut raises = left.iter().filter_map(|op| match op {
            Op::Raise(id) => Some(*id),
            _ => None,
        });
        if let Some(first) = raises.next() {
            // Once a backend's rows are gone, nothing else says it again.
            let rows = self.actual.backends.values();
            let held: BTreeSet<u32> = rows.map(|row| row.id).collect();
            let gone = raises.chain([first]).filter(|id| !held.contains(id));
            self.unraised.extend(gone);
        }
        outcome
    }

    /// Has choose again who holds on to a backend that went while an agent died before it could say so.
    fn raise_orphans(&mut self) -> Result<(), DatapathError> {
        let rows = self.actual.backends.values();
        let held: BTreeSet<u32> = rows.map(|row| row.id).collect();
        let orphans = &self.kernel.remembered()? - &held;
        let raises: Vec<Op> = orphans.into_iter().map(Op::Raise).collect();
        self.write(&raises)
    }

    fn prune_strays(&mut self) -> Result<(), DatapathError> {
        if !self.in_sync {
            return Ok(());
        }
        for id in self.unraised.clone() {
            self.write(&[Op::Raise(id)])?;
            self.unraised.remove(&id);
        }
        if !self.strays {
            return Ok(());
        }
        let rows = self.actual.services.values();
        let named: BTreeSet<u32> = rows.map(|row| row.id).collect();
        let stray: BTreeSet<u32> = self
            .actual
            .counted()
            .filter(|id| !named.contains(id))
            .collect();
        for id in stray {
            let rows = self.actual.numbered(id);
            self.write(&delta(&rows, &Tables::default(), true))?;
            self.ids.services.give_back(id);
        }
        self.strays = false;
        Ok(())
    }
}
