//! Objects by kind and key, and how far each kind's watch has come. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::object::{Key, Object};
use client::Kind;

/// An object: kind and key.
pub type Address = (Kind, Key);

/// All objects of all kinds.
#[derive(Default)]
pub struct Shelves(BTreeMap<Kind, Shelf>);

/// The objects of a kind.
#[derive(Default)]
pub struct Shelf {
    pub objects: BTreeMap<Key, Arc<Object>>,
    /// The watch has delivered everything up to here.
    pub seen: u64,
    pub listed: bool,
}

impl Shelves {
    pub fn kind(&self, kind: Kind) -> Option<&Shelf> {
        self.0.get(&kind)
    }

    pub fn kind_mut(&mut self, kind: Kind) -> &mut Shelf {
        self.0.entry(kind).or_default()
    }

    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.0.keys()
    }

    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Object>> {
        self.0.get(&kind)?.objects.get(key)
    }

    /// The objects of a kind in one namespace.
    pub fn within<'a, 'n>(
        &'a self,
        kind: Kind,
        namespace: &'n str,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a, 'n> {
        let shelf = self.0.get(&kind).into_iter();
        shelf
            .flat_map(move |shelf| shelf.objects.range(Key::new(namespace, "")..))
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }
}
