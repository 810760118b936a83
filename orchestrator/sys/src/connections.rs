//! Which connections a listener keeps open: so many in all, fewer of clients that have shown no
//! certificate, and of those only a few from one address.
//!
//! A client without a certificate is a stranger. Where a new connection finds no room, the oldest
//! stranger is closed that is silent or idle, or else the oldest one in its handshake: a client that
//! is about to show its certificate is let in however many strangers hold on, and strangers never
//! take room from clients with certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How many connections are open at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all clients.
    pub all: usize,
    /// Of strangers, which every client is until its handshake has ended.
    pub strangers: usize,
    /// Of strangers from one address; of IPv6 from one /64, which a single host may have for itself.
    pub strangers_per_source: usize,
    /// Of clients whose certificates have one name.
    pub per_holder: usize,
}

/// The open connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    count: usize,
    /// In the order in which they are closed.
    strangers: BTreeMap<Turn, Stranger>,
    /// The same ones, by where they are.
    sources: BTreeMap<IpAddr, BTreeSet<Turn>>,
    holders: BTreeMap<Arc<str>, usize>,
}

/// First those that are not in their handshake; of both the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    shakes_hands: bool,
    number: u64,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    closing: CancellationToken,
}

/// The room of one connection, given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    turn: Turn,
    closing: CancellationToken,
    holder: Option<Arc<str>>,
}

impl Connections {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Arc::default(),
        }
    }

    /// Room for a new connection, at the cost of a stranger if need be; None if all room is taken by
    /// clients with certificates.
    pub fn admit(&self, peer: IpAddr) -> Option<Place> {
        let source = source(peer);
        let mut open = self.lock();
        let from_there = open.sources.get(&source);
        let crowded = from_there.filter(|all| all.len() >= self.limits.strangers_per_source);
        if let Some(oldest) = crowded.and_then(|all| all.first().copied()) {
            open.close(oldest);
        }
        let full = open.count >= self.limits.all;
        if full || open.strangers.len() >= self.limits.strangers {
            let oldest = open.strangers.keys().next().copied();
            match oldest {
                Some(oldest) => open.close(oldest),
                None if full => return None,
                None => {}
            }
        }
        let turn = Turn {
            shakes_hands: false,
            number: open.next,
        };
        open.next += 1;
        open.count += 1;
        let closing = CancellationToken::new();
        let stranger = Stranger {
            source,
            closing: closing.clone(),
        };
        open.remember_stranger(turn, stranger);
        Some(Place {
            connections: self.clone(),
            turn,
            closing,
            holder: None,
        })
    }

    /// Closes the oldest stranger: for a listener that has no descriptor left.
    pub fn make_room(&self) {
        let mut open = self.lock();
        if let Some(oldest) = open.strangers.keys().next().copied() {
            open.close(oldest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // Every change is whole before anything can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn close(&mut self, turn: Turn) {
        if let Some(stranger) = self.forget_stranger(turn) {
            stranger.closing.cancel();
        }
    }

    fn remember_stranger(&mut self, turn: Turn, stranger: Stranger) {
        self.sources
            .entry(stranger.source)
            .or_default()
            .insert(turn);
        self.strangers.insert(turn, stranger);
    }

    fn forget_stranger(&mut self, turn: Turn) -> Option<Stranger> {
        let stranger = self.strangers.remove(&turn)?;
        if let Some(all) = self.sources.get_mut(&stranger.source) {
            all.remove(&turn);
            if all.is_empty() {
                self.sources.remove(&stranger.source);
            }
        }
        Some(stranger)
    }
}

impl Place {
    /// The client has begun its handshake, or ended it without a certificate.
    pub fn shakes_hands(&mut self, shakes_hands: bool) {
        let mut open = self.connections.lock();
        if let Some(stranger) = open.forget_stranger(self.turn) {
            self.turn.shakes_hands = shakes_hands;
            open.remember_stranger(self.turn, stranger);
        }
    }

    /// The client has shown a certificate with this name: it is a stranger no longer. False if
    /// clients with this name have all their connections already.
    pub fn take_for(&mut self, holder: &str) -> bool {
        let mut open = self.connections.lock();
        open.forget_stranger(self.turn);
        let holder: Arc<str> = holder.into();
        let count = open.holders.entry(holder.clone()).or_default();
        *count += 1;
        let fits = *count <= self.connections.limits.per_holder;
        self.holder = Some(holder);
        fits
    }

    /// Resolves when another connection needs the room.
    pub fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.closing.cancelled()
    }

    /// The same, for those that change the place meanwhile.
    pub fn closing_token(&self) -> CancellationToken {
        self.closing.clone()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.forget_stranger(self.turn);
        open.count -= 1;
        let Some(holder) = self.holder.take() else {
            return;
        };
        if let Some(count) = open.holders.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                open.holders.remove(&holder);
            }
        }
    }
}

/// What counts as one source.
pub fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, strangers: usize, per_source: usize) -> Connections {
        Connections::new(Limits {
            all,
            strangers,
            strangers_per_source: per_source,
            per_holder: 2,
        })
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn closed(place: &Place) -> bool {
        place.is_closing()
    }

    #[test]
    fn the_oldest_stranger_makes_room_for_a_new_client() {
        let connections = connections(10, 2, 2);
        let places: Vec<Place> = (0..3).filter_map(|n| connections.admit(ip(n))).collect();
        let state: Vec<bool> = places.iter().map(closed).collect();
        assert_eq!(state, [true, false, false]);
    }

    #[test]
    fn a_client_in_its_handshake_is_closed_after_those_that_are_silent_or_idle() {
        let connections = connections(10, 3, 3);
        let mut first: Vec<Place> = (0..3).filter_map(|n| connections.admit(ip(n))).collect();
        first[0].shakes_hands(true);
        first[1].shakes_hands(true);
        let _later = [connections.admit(ip(4)), connections.admit(ip(5))];
        let state: Vec<bool> = first.iter().map(closed).collect();
        assert_eq!(state, [false, false, true]);
        first[1].shakes_hands(false);
        let _last = connections.admit(ip(6));
        let state: Vec<bool> = first.iter().map(closed).collect();
        assert_eq!(
            state,
            [false, true, true],
            "idle after its handshake, and the oldest"
        );
    }

    #[test]
    fn one_source_closes_only_its_own_strangers() {
        let connections = connections(10, 4, 2);
        let other = connections.admit(ip(1)).expect("room");
        let first = connections.admit(ip(2)).expect("room");
        let more: Vec<Place> = (0..2).filter_map(|_| connections.admit(ip(2))).collect();
        assert!(closed(&first) && !closed(&other));
        assert!(more.iter().all(|place| !closed(place)));
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0202]);
        assert_eq!(source(mapped), ip(2));
        let in_one_64 = ["2001:db8::1", "2001:db8::2:3"].map(|text| text.parse().map(source));
        assert_eq!(in_one_64[0], in_one_64[1]);
    }

    #[test]
    fn a_client_with_a_certificate_is_never_closed_for_a_stranger() {
        let connections = connections(2, 2, 2);
        let mut known: Vec<Place> = (0..2).filter_map(|n| connections.admit(ip(n))).collect();
        let fits: Vec<bool> = known.iter_mut().map(|p| p.take_for("node-1")).collect();
        assert_eq!(fits, [true, true]);
        assert!(connections.admit(ip(9)).is_none(), "all room is taken");
        assert!(!known.iter().any(closed));
        known.pop();
        assert!(connections.admit(ip(9)).is_some(), "room was given back");
    }

    #[test]
    fn one_certificate_holds_so_many_connections_and_no_more() {
        let connections = connections(10, 10, 10);
        let mut places: Vec<Place> = (0..3).filter_map(|_| connections.admit(ip(1))).collect();
        let fits: Vec<bool> = places.iter_mut().map(|p| p.take_for("node-1")).collect();
        assert_eq!(fits, [true, true, false]);
        drop(places);
        let mut again = connections.admit(ip(1)).expect("room");
        assert!(again.take_for("node-1"));
    }
}
