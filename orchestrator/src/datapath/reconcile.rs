//! Keeps the maps as the world wants them: dirty units in, single writes out.
//!
//! Holds the world, the mirror of the maps and what is still due. It decides nothing: rows are
//! `desired`'s, order is `delta`'s.

use std::collections::BTreeSet;

use super::delta::{Op, delta, replay};
use super::desired::{self, Facts};
use super::ids::Ids;
use super::kernel::Kernel;
use super::table::{Tables, Unit};
use super::world::World;
use super::{Change, DatapathError};

pub struct Reconciler<K> {
    kernel: K,
    facts: Facts,
    world: World,
    /// What the maps hold, followed write by write.
    actual: Tables,
    ids: Ids,
    dirty: BTreeSet<Unit>,
    /// Backend rows may be left whose Service row is gone: a deletion was cut short.
    strays: bool,
    in_sync: bool,
}

impl<K: Kernel> Reconciler<K> {
    /// Reads what an earlier agent left and writes this node's own rows.
    pub fn start(kernel: K, facts: Facts) -> Result<Self, DatapathError> {
        let actual = kernel.read()?;
        let ids = Ids::read(&actual);
        let world = World::default();
        let dirty = desired::units(&world, &facts);
        let mut started = Self {
            kernel,
            facts,
            world,
            actual,
            ids,
            dirty,
            strays: true,
            in_sync: false,
        };
        started.settle()?;
        Ok(started)
    }

    /// Takes a change in and writes what follows from it.
    pub fn change(&mut self, change: Change) -> Result<(), DatapathError> {
        let touched = self.world.change(change);
        // A Service whose slices have not all been heard of would lose backends: `in_sync` names it.
        let now = |unit: &Unit| self.in_sync || !matches!(unit, Unit::Service(_));
        self.dirty.extend(touched.into_iter().filter(now));
        self.settle()
    }

    /// The node itself has changed: its own rows follow, and those of nodes that it tunnels to.
    pub fn learn(&mut self, facts: Facts) -> Result<(), DatapathError> {
        let own = |facts: &Facts| desired::units(&World::default(), facts);
        self.dirty.extend(own(&self.facts));
        self.dirty.extend(own(&facts));
        let nodes = self
            .world
            .units()
            .filter(|unit| matches!(unit, Unit::Node(_)));
        self.dirty.extend(nodes);
        self.facts = facts;
        self.settle()
    }

    /// The view is complete: from now on, rows that nobody wants are deleted.
    pub fn in_sync(&mut self) -> Result<(), DatapathError> {
        if !self.in_sync {
            self.in_sync = true;
            self.dirty.extend(self.actual.units());
            self.dirty.extend(desired::units(&self.world, &self.facts));
        }
        self.settle()
    }

    /// Tries again what failed.
    pub fn retry(&mut self) -> Result<(), DatapathError> {
        self.settle()
    }

    pub fn is_in_sync(&self) -> bool {
        self.in_sync
    }

    /// Nothing is due, and nothing waits for the view to be complete.
    pub fn is_settled(&self) -> bool {
        self.in_sync && self.dirty.is_empty()
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

    /// Works off what is due. A unit that fails stays due, the others go on; the first error is told.
    fn settle(&mut self) -> Result<(), DatapathError> {
        let due: Vec<Unit> = self.dirty.iter().copied().collect();
        let mut first = self.prune_strays();
        for unit in due {
            match self.settle_unit(unit) {
                Ok(()) => drop(self.dirty.remove(&unit)),
                Err(error) => {
                    self.ids = Ids::read(&self.actual);
                    self.strays = true;
                    first = first.and(Err(error));
                }
            }
        }
        first
    }

    fn settle_unit(&mut self, unit: Unit) -> Result<(), DatapathError> {
        let (world, facts) = (&self.world, &self.facts);
        let desired = desired::unit(unit, world, facts, &self.actual, &mut self.ids)?;
        let actual = self.actual.unit(unit);
        for op in delta(&actual, &desired, self.in_sync) {
            self.write(op)?;
        }
        Ok(())
    }

    fn write(&mut self, op: Op) -> Result<(), DatapathError> {
        self.kernel.write(op)?;
        let service = match op {
            Op::DeleteService(key) => self.actual.services.get(&key).map(|row| row.id),
            _ => None,
        };
        replay(&mut self.actual, op);
        if let Op::Raise(id) = op {
            self.ids.backends.give_back(id);
        }
        if let Some(id) = service {
            self.ids.services.give_back(id);
        }
        Ok(())
    }

    fn prune_strays(&mut self) -> Result<(), DatapathError> {
        if !(self.in_sync && self.strays) {
            return Ok(());
        }
        let named: BTreeSet<u32> = self.actual.services.values().map(|row| row.id).collect();
        let mut strays = Tables::default();
        let stray = self
            .actual
            .backends
            .iter()
            .filter(|(key, _)| !named.contains(&key.service));
        strays.backends.extend(stray.map(|(key, row)| (*key, *row)));
        for op in delta(&strays, &Tables::default(), true) {
            self.write(op)?;
        }
        self.strays = false;
        Ok(())
    }
}
