//! Session affinity: a client comes back to the backend that it had last.

use orchestrator_common::Addr;
use orchestrator_common::maps::affinity::{Affinity, AffinityKey};
use orchestrator_common::maps::services::{Backend, Service};

use crate::maps;

const NS_PER_S: u64 = 1_000_000_000;

/// What a client had, while it is young enough and the backend has not gone since.
#[inline(always)]
pub fn find(service: &Service, client: &Addr) -> Option<Affinity> {
    let affinity = maps::affinity(&key(service, client))?;
    let age_ns = maps::now_ns().saturating_sub(affinity.last_ns);
    let holds = age_ns < u64::from(service.affinity_s) * NS_PER_S
        && maps::generation(affinity.backend.id) == affinity.generation;
    holds.then_some(affinity)
}

/// Remembers what a client got. Without room it is not remembered, and still served.
#[inline(always)]
pub fn keep(service: &Service, client: &Addr, backend: &Backend, generation: u32) {
    let row = Affinity {
        backend: *backend,
        generation,
        reserved: 0,
        last_ns: maps::now_ns(),
    };
    maps::set_affinity(&key(service, client), &row);
}

#[inline(always)]
fn key(service: &Service, client: &Addr) -> AffinityKey {
    AffinityKey {
        client: *client,
        service: service.id,
        reserved: 0,
    }
}
