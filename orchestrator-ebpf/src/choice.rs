//! Which backend of a Service somebody gets.

use orchestrator_common::maps::services::{Backend, Service};
use orchestrator_common::{Addr, DropReason, Tuple};

use crate::affinity;
use crate::hash;
use crate::maps;

/// Rounds of reading a slot and its backend's generation, until the two belong together.
const ROUNDS: u32 = 3;

/// A backend with its generation, that of a moment in which the backend was in the Service.
pub type Chosen = (Backend, u32);

/// One for a new connection: the agent moves no connection, so its generation is of no interest.
/// One row of `backends_v1`.
#[inline(always)]
pub fn by_chance(service: &Service) -> Result<Backend, DropReason> {
    let count = service.count;
    if count == 0 {
        return Err(nobody(service));
    }
    match maps::backend(service.id, maps::random() % count) {
        Some(backend) => Ok(backend),
        // Empty only while the agent takes the last backends away.
        None => maps::backend(service.id, 0).ok_or(DropReason::NoBackend),
    }
}

/// One for a client that the Service remembers.
#[inline(always)]
pub fn for_client(service: &Service, client: &Addr) -> Result<Backend, DropReason> {
    if service.count == 0 {
        return Err(nobody(service));
    }
    let slot = maps::random() % service.count;
    remembered(service, client, slot).map(|(backend, _)| backend)
}

/// One for a flow: by its place in the Maglev table if the Service has one.
#[inline(always)]
pub fn for_flow(service: &Service, key: &Tuple) -> Result<Chosen, DropReason> {
    if service.count == 0 {
        return Err(nobody(service));
    }
    let mut slot = maps::random() % service.count;
    let length = service.maglev();
    if length != 0 {
        let position = hash::client(key) % length;
        slot = maps::maglev(service.id, position).unwrap_or(slot);
    }
    if service.affinity_s != 0 {
        return remembered(service, &key.src, slot);
    }
    in_slot(service, slot)
}

#[inline(always)]
fn remembered(service: &Service, client: &Addr, slot: u32) -> Result<Chosen, DropReason> {
    let (backend, generation) = match affinity::find(service, client) {
        Some(had) => (had.backend, had.generation),
        None => in_slot(service, slot)?,
    };
    affinity::keep(service, client, &backend, generation);
    Ok((backend, generation))
}

/// The agent first writes another backend into a slot and then raises the old one's generation. Who
/// read the slot before and the generation after both would stay with the old one for ever, so the
/// slot is read again.
#[inline(always)]
fn in_slot(service: &Service, slot: u32) -> Result<Chosen, DropReason> {
    let mut slot = slot;
    for _ in 0..ROUNDS {
        let Some(backend) = maps::backend(service.id, slot) else {
            slot = 0;
            continue;
        };
        let id = backend.id;
        let generation = maps::generation(id);
        let again = maps::backend(service.id, slot);
        if again.is_some_and(|again| again.id == id) {
            return Ok((backend, generation));
        }
    }
    Err(DropReason::NoBackend)
}

#[inline(always)]
fn nobody(service: &Service) -> DropReason {
    if service.flags & Service::ELSEWHERE != 0 {
        DropReason::NoLocalEndpoint
    } else {
        DropReason::NoBackend
    }
}
