//! Addresses from which tokens come that are nobody's. Each costs a signature or a question to a webhook, so
//! while they come, tokens from there are looked at in the pace of strangers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sys::connections;

/// So many bad tokens in such a time are a mistake of a client or two.
const FREE: u32 = 50;
const WINDOW: Duration = Duration::from_secs(10);
/// Addresses that are remembered. Beyond that the oldest are forgotten.
const MAX_ADDRESSES: usize = 4096;

/// Bad tokens, by where they came from.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<IpAddr, Recent>>);

#[derive(Clone, Copy)]
struct Recent {
    since: Instant,
    count: u32,
}

impl Failures {
    /// Whether tokens from there have to wait.
    pub fn are_many(&self, peer: IpAddr, now: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = all.get(&connections::source(peer));
        recent.is_some_and(|recent| recent.count >= FREE && !recent.is_over(now))
    }

    /// Counts a bad token.
    pub fn note(&self, peer: IpAddr, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ADDRESSES {
            all.retain(|_, recent| !recent.is_over(now));
        }
        if all.len() >= MAX_ADDRESSES {
            let oldest = all.iter().min_by_key(|(_, recent)| recent.since);
            let oldest = oldest.map(|(address, _)| *address);
            oldest.map(|address| all.remove(&address));
        }
        let new = Recent {
            since: now,
            count: 0,
        };
        let recent = all.entry(connections::source(peer)).or_insert(new);
        if recent.is_over(now) {
            *recent = new;
        }
        recent.count = recent.count.saturating_add(1);
    }
}

impl Recent {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_tokens_make_their_address_wait_and_no_other_until_they_are_over() {
        let (failures, now) = (Failures::default(), Instant::now());
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        for _ in 0..FREE {
            assert!(!failures.are_many(address(1), now));
            failures.note(address(1), now);
        }
        assert!(failures.are_many(address(1), now));
        assert!(!failures.are_many(address(2), now));
        assert!(!failures.are_many(address(1), now + WINDOW));
        failures.note(address(1), now + WINDOW);
        assert!(!failures.are_many(address(1), now + WINDOW));
    }

    #[test]
    fn many_addresses_take_bounded_room() {
        let (failures, now) = (Failures::default(), Instant::now());
        for number in 0..10_000_u32 {
            failures.note(IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(failures.0.lock().expect("whole").len(), MAX_ADDRESSES);
    }
}
