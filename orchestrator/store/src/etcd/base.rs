//! Where the store's revisions begin. An etcd counts from 1; a store that was restored or moved into a new etcd
//! goes on above the revisions that its clients have seen, so that none of them takes an old one for a new one:
//!
//! ```text
//!  store:  … 812 │ 1 000 000 813 (the base) │ base + 1 … ─▶ clients
//!  etcd:    gone │                          │        1 … ─▶ wire
//! ```
//!
//! The base is written once, into an empty etcd, and is the same for all servers. Whatever is at or below it is
//! compacted.

use super::wire::{
    AlarmRequest, AlarmResponse, AuthenticateRequest, Empty, LeaseGrantRequest, LeaseRequest,
    MemberAddRequest, MemberRequest,
};
use super::wire::{AuthenticateResponse, CompactionRequest, Header, RangeRequest, WatchRequest};
use super::wire::{
    Compare, HeaderOnly, KeyValue, LeaseResponse, MemberAddResponse, MembersResponse,
    RangeResponse, TxnRequest, TxnResponse, WatchResponse, compare::With,
};

/// A message whose revisions are the store's on this side of the wire, and etcd's on the other.
pub(super) trait Shift {
    /// Moves each revision that is one; 0 means none.
    fn shift(&mut self, by: i64);
}

/// A revision that etcd has not reached stays one.
fn moved(revision: &mut i64, by: i64) {
    if *revision > 0 && *revision < i64::MAX {
        *revision = revision.saturating_add(by).max(1);
    }
}

/// The revision that no key has.
const NEVER: i64 = i64::MAX;

impl Shift for Compare {
    fn shift(&mut self, by: i64) {
        if let Some(With::Created(revision) | With::Modified(revision)) = &mut self.with
            && *revision > 0
            && *revision < NEVER
        {
            // A key from before the base is not there any more; 0 would say that it is to be absent.
            let there = revision.saturating_add(by);
            *revision = if there > 0 { there } else { NEVER };
        }
    }
}

impl Shift for Header {
    fn shift(&mut self, by: i64) {
        moved(&mut self.revision, by);
    }
}

impl Shift for KeyValue {
    fn shift(&mut self, by: i64) {
        moved(&mut self.create_revision, by);
        moved(&mut self.mod_revision, by);
    }
}

impl<T: Shift> Shift for Option<T> {
    fn shift(&mut self, by: i64) {
        if let Some(message) = self {
            message.shift(by);
        }
    }
}

impl<T: Shift> Shift for Vec<T> {
    fn shift(&mut self, by: i64) {
        self.iter_mut().for_each(|message| message.shift(by));
    }
}

impl Shift for RangeRequest {
    fn shift(&mut self, by: i64) {
        moved(&mut self.revision, by);
    }
}

impl Shift for RangeResponse {
    fn shift(&mut self, by: i64) {
        self.header.shift(by);
        self.kvs.shift(by);
    }
}

impl Shift for TxnRequest {
    fn shift(&mut self, by: i64) {
        // The ranges among its operations are as of now.
        self.compare.shift(by);
    }
}

impl Shift for TxnResponse {
    fn shift(&mut self, by: i64) {
        self.header.shift(by);
        for response in &mut self.responses {
            response.range.shift(by);
        }
    }
}

impl Shift for CompactionRequest {
    fn shift(&mut self, by: i64) {
        moved(&mut self.revision, by);
    }
}

impl Shift for WatchRequest {
    fn shift(&mut self, by: i64) {
        if let Some(create) = &mut self.create {
            moved(&mut create.start_revision, by);
        }
    }
}

impl Shift for WatchResponse {
    fn shift(&mut self, by: i64) {
        self.header.shift(by);
        moved(&mut self.compact_revision, by);
        for event in &mut self.events {
            event.kv.shift(by);
            event.prev_kv.shift(by);
        }
    }
}

/// Messages that hold no revision, and those whose revision nobody reads.
macro_rules! without_revision {
    ($($message:ty),* $(,)?) => {
        $(impl Shift for $message {
            fn shift(&mut self, _by: i64) {}
        })*
    };
}

without_revision!(
    AlarmRequest,
    AlarmResponse,
    AuthenticateRequest,
    AuthenticateResponse,
    Empty,
    HeaderOnly,
    LeaseGrantRequest,
    LeaseRequest,
    LeaseResponse,
    MemberAddRequest,
    MemberAddResponse,
    MemberRequest,
    MembersResponse,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(with: With) -> Option<With> {
        let mut compare = Compare {
            with: Some(with),
            ..Compare::default()
        };
        compare.shift(-100);
        compare.with
    }

    #[test]
    fn a_key_from_before_the_base_is_not_taken_for_an_absent_one() {
        assert_eq!(compared(With::Modified(101)), Some(With::Modified(1)));
        assert_eq!(compared(With::Created(0)), Some(With::Created(0)));
        for gone in [1, 99, 100, NEVER] {
            assert_eq!(compared(With::Modified(gone)), Some(With::Modified(NEVER)));
        }
    }

    #[test]
    fn no_revision_stays_none_on_both_sides() {
        let mut range = RangeRequest::default();
        range.shift(-100);
        assert_eq!(range.revision, 0);
        let mut response = WatchResponse::default();
        response.shift(100);
        assert_eq!(response.compact_revision, 0);
    }
}
