//! What other servers have answered, for as long as they say that it holds. Pure: time is an argument.
//!
//! Denials are kept by their SOA record (RFC 2308), failures for a second (RFC 9520). A full cache lets the
//! entry go whose time is over first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::Answer;

/// The longest that a record is kept, in seconds, whatever it says.
const LONGEST_S: u32 = 3600;
/// The same for a denial; kubeadm's CoreDNS keeps what it hears as long.
const LONGEST_DENIAL_S: u32 = 30;
/// How long a failure is kept, in seconds.
const FAILURE_S: u32 = 1;

/// What the cache holds at most.
const MAX_ENTRIES: usize = 10_000;
/// An estimate: what records take on the wire, with a margin for their names.
const MAX_BYTES: usize = 16 << 20;
/// An answer that is larger is not kept.
const LARGEST: usize = 64 << 10;

/// What is asked of another server: name in lower case, type, whether signatures are wanted, and whether
/// they are to be checked there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub name: Name,
    pub kind: u16,
    pub dnssec: bool,
    pub checking_disabled: bool,
}

impl Key {
    pub fn new(name: &Name, kind: RecordType, dnssec: bool, checking_disabled: bool) -> Self {
        Self {
            name: name.to_lowercase(),
            kind: kind.into(),
            dnssec,
            checking_disabled,
        }
    }
}

/// Answers of other servers.
#[derive(Debug, Default)]
pub struct Cache {
    entries: BTreeMap<Key, Entry>,
    /// The same, by the end of their time.
    ends: BTreeSet<(Duration, Key)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    stored: Duration,
    ends: Duration,
    bytes: usize,
}

impl Cache {
    /// What is known at this time, with the time that its records have left.
    pub fn get(&self, key: &Key, now: Duration) -> Option<Answer> {
        let entry = self.entries.get(key).filter(|entry| entry.ends > now)?;
        let age = now.saturating_sub(entry.stored).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let mut answer = (*entry.answer).clone();
        let sections = [
            &mut answer.answers,
            &mut answer.authorities,
            &mut answer.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    /// Keeps an answer for its time, if it has any.
    pub fn put(&mut self, key: Key, answer: Arc<Answer>, now: Duration) {
        self.remove(&key);
        let seconds = lifetime(&answer);
        let bytes = size(&answer);
        if seconds == 0 || bytes > LARGEST {
            return;
        }
        let ends = now + Duration::from_secs(seconds.into());
        while self.entries.len() >= MAX_ENTRIES || self.bytes + bytes > MAX_BYTES {
            let Some((_, first)) = self.ends.first().cloned() else {
                break;
            };
            self.remove(&first);
        }
        self.bytes += bytes;
        self.ends.insert((ends, key.clone()));
        let entry = Entry {
            answer,
            stored: now,
            ends,
            bytes,
        };
        self.entries.insert(key, entry);
    }

    /// Forgets everything: other servers are asked from now on.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            self.ends.remove(&(entry.ends, key.clone()));
        }
    }
}

/// How long an answer may be kept, in seconds.
fn lifetime(answer: &Answer) -> u32 {
    let records = answer.answers.iter().map(|record| record.ttl);
    match (answer.code, records.min()) {
        (ResponseCode::NoError, Some(ttl)) => ttl.min(LONGEST_S),
        (ResponseCode::NoError | ResponseCode::NXDomain, _) => denial(&answer.authorities),
        (ResponseCode::ServFail | ResponseCode::Refused, _) => FAILURE_S,
        _ => 0,
    }
}

/// RFC 2308, section 5: without an SOA record, a denial is not kept.
fn denial(authorities: &[Record]) -> u32 {
    let soa = authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    soa.unwrap_or(0).min(LONGEST_DENIAL_S)
}

fn size(answer: &Answer) -> usize {
    let sections = [&answer.answers, &answer.authorities, &answer.additionals];
    let records = sections.into_iter().flatten();
    let each = records.map(|record| {
        // What a record may hold is no longer than what came in.
        let data = match &record.data {
            RData::A(_) | RData::AAAA(_) => 16,
            data => data.to_string().len(),
        };
        size_of::<Record>() + record.name.len() + data
    });
    size_of::<Entry>() + each.sum::<usize>()
}
