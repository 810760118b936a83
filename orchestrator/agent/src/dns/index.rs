//! Services and their endpoints by name and by address. Pure.
//!
//! Owns every row that names are made of. A change costs the object that it is about: the addresses of a
//! slice are taken out and put in, no Service is computed as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::ObjectKey;

use super::rows::{ServiceRow, SliceRow, Target};

/// Everything that the cluster's zone has records for.
#[derive(Debug, Default)]
pub struct Index {
    services: BTreeMap<ObjectKey, ServiceRow>,
    slices: BTreeMap<ObjectKey, SliceRow>,
    /// Service, and one of its slices.
    slices_of: BTreeSet<(ObjectKey, ObjectKey)>,
    /// Services by their own addresses.
    owners: BTreeSet<(IpAddr, ObjectKey)>,
    /// Slices of headless Services by the addresses of their ready endpoints.
    members: BTreeSet<(IpAddr, ObjectKey)>,
    /// Raised with every change: the serial number of the zone.
    serial: u32,
}

impl Index {
    /// Takes in what a Service is now; `None`: it is gone.
    pub fn service(&mut self, key: ObjectKey, row: Option<ServiceRow>) {
        if self.services.get(&key) == row.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let slices: Vec<ObjectKey> = self.slice_keys(&key).cloned().collect();
        for slice in &slices {
            self.disown(slice);
        }
        for addr in own_addresses(self.services.get(&key)) {
            self.owners.remove(&(*addr, key.clone()));
        }
        for addr in own_addresses(row.as_ref()) {
            self.owners.insert((*addr, key.clone()));
        }
        match row {
            Some(row) => self.services.insert(key, row),
            None => self.services.remove(&key),
        };
        for slice in &slices {
            self.own(slice);
        }
    }

    /// Takes in what a slice is now; `None`: it is gone.
    pub fn slice(&mut self, key: ObjectKey, row: Option<SliceRow>) {
        if self.slices.get(&key) == row.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        self.disown(&key);
        if let Some(old) = self.slices.remove(&key) {
            self.slices_of.remove(&(old.service, key.clone()));
        }
        if let Some(mut row) = row {
            // One text for the name, however many slices there are.
            if let Some((service, _)) = self.services.get_key_value(&row.service) {
                row.service = service.clone();
            }
            self.slices_of.insert((row.service.clone(), key.clone()));
            self.slices.insert(key.clone(), row);
            self.own(&key);
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&ServiceRow> {
        self.services.get(key)
    }

    /// A Service's own addresses.
    pub fn addresses(&self, key: &ObjectKey) -> &[IpAddr] {
        own_addresses(self.services.get(key))
    }

    /// The slices of a Service.
    pub fn slices<'a>(&'a self, service: &'a ObjectKey) -> impl Iterator<Item = &'a SliceRow> {
        self.slice_keys(service)
            .filter_map(|key| self.slices.get(key))
    }

    /// A namespace has a name while a Service in it has one.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let from = ObjectKey::new(namespace, "");
        let first = self.services.range(from..).next();
        first.is_some_and(|(key, _)| key.namespace() == namespace)
    }

    /// The Services that have an address themselves.
    pub fn owners(&self, addr: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        of_address(&self.owners, addr)
    }

    /// The slices of headless Services that have a ready endpoint at an address.
    pub fn members(&self, addr: IpAddr) -> impl Iterator<Item = &SliceRow> {
        of_address(&self.members, addr).filter_map(|key| self.slices.get(key))
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    fn slice_keys<'a>(&'a self, service: &'a ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let from = (service.clone(), ObjectKey::least());
        let range = self.slices_of.range(from..);
        range
            .take_while(move |(of, _)| of == service)
            .map(|(_, key)| key)
    }

    /// The addresses of a slice that lead back to a name.
    fn member_addresses(&self, key: &ObjectKey) -> Vec<IpAddr> {
        let Some(row) = self.slices.get(key) else {
            return Vec::new();
        };
        let service = self.services.get(&row.service);
        match service.map(|service| &service.target) {
            Some(Target::Endpoints) => row.ready().map(|(addr, _)| addr).collect(),
            _ => Vec::new(),
        }
    }

    fn own(&mut self, key: &ObjectKey) {
        for addr in self.member_addresses(key) {
            self.members.insert((addr, key.clone()));
        }
    }

    fn disown(&mut self, key: &ObjectKey) {
        for addr in self.member_addresses(key) {
            self.members.remove(&(addr, key.clone()));
        }
    }
}

fn own_addresses(row: Option<&ServiceRow>) -> &[IpAddr] {
    match row.map(|row| &row.target) {
        Some(Target::Addresses(addrs)) => addrs,
        _ => &[],
    }
}

fn of_address(
    set: &BTreeSet<(IpAddr, ObjectKey)>,
    addr: IpAddr,
) -> impl Iterator<Item = &ObjectKey> {
    let range = set.range((addr, ObjectKey::least())..);
    range
        .take_while(move |(of, _)| *of == addr)
        .map(|(_, key)| key)
}
