//! The changes of a kind that watches can still be told of.
//!
//! The newest are kept as they are: they share the bytes of the objects. Older ones are packed in
//! blocks, each compressed for itself: states of an object, and objects of one owner, are much alike,
//! so that a change of a pod of 6 KB takes some 700 bytes. A watch that is resumed far back unpacks one
//! block at a time, and of those only what may concern it: after a restart all agents come back at once, each for the
//! few changes of its own pods.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::index::Bucket;
use super::object::Cached;
use super::{Change, WatchEvent};
use api::Resource;
use store::Revision;

/// The newest changes, that are not packed. Watches that keep up read these.
const NEWEST_EVENTS: usize = 1024;
/// What the newest changes keep alive that would otherwise be gone.
const NEWEST_BYTES: usize = 2 << 20;
/// A block is full with so many changes, or bytes before it is packed: the compression looks back 64 KiB.
const BLOCK_EVENTS: usize = 128;
const BLOCK_BYTES: usize = 64 << 10;
/// Changes of a kind that are kept, at least, while their blocks fit in `PACKED_BYTES`. Kubernetes'
/// etcd forgets after five minutes.
pub const KEPT_EVENTS: usize = 100_000;
/// What the blocks of a kind take, at most.
const PACKED_BYTES: usize = 96 << 20;

/// Written by the task that follows the store.
pub(super) struct History {
    newest: VecDeque<WatchEvent>,
    newest_bytes: usize,
    /// The number of the first of `newest`.
    first: u64,
    /// Every change newer than this revision is among `newest`.
    newest_start: Revision,
    blocks: VecDeque<Arc<Block>>,
    blocks_bytes: usize,
    blocks_events: usize,
    /// Every change newer than this revision is here.
    start: Revision,
}

/// Changes in a row, compressed. A commit is never cut in two.
pub(super) struct Block {
    packed: Box<[u8]>,
    raw_bytes: usize,
    events: usize,
    /// The revision of its last change.
    last: Revision,
    /// The fingerprints of the buckets that its changes concern, in order.
    concerned: Box<[u64]>,
}

/// An event that is no longer among the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten;

impl History {
    /// Without any change; what comes is newer than `start`.
    pub fn new(start: Revision) -> Self {
        Self {
            newest: VecDeque::new(),
            newest_bytes: 0,
            first: 0,
            newest_start: start,
            blocks: VecDeque::new(),
            blocks_bytes: 0,
            blocks_events: 0,
            start,
        }
    }

    /// The number of the event that comes next.
    pub fn next(&self) -> u64 {
        self.first + self.newest.len() as u64
    }

    /// The number of the first event that is not packed.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of the first event behind `revision`; `None` if some of them are not among the newest.
    pub fn number_behind(&self, revision: Revision) -> Option<u64> {
        let behind = self
            .newest
            .partition_point(|event| event.object.revision <= revision);
        (revision >= self.newest_start).then_some(self.first + behind as u64)
    }

    /// The block that has the first packed change behind `revision`; `None` if changes are missing.
    pub fn block_behind(&self, revision: Revision) -> Option<Arc<Block>> {
        let at = self.blocks.partition_point(|block| block.last <= revision);
        let block = self.blocks.get(at)?;
        (revision >= self.start).then(|| block.clone())
    }

    /// `Err` if the event of this number has been packed, `Ok(None)` if it is still to come.
    pub fn get(&self, number: u64) -> Result<Option<&WatchEvent>, Forgotten> {
        let index = number.checked_sub(self.first).ok_or(Forgotten)?;
        Ok(usize::try_from(index)
            .ok()
            .and_then(|index| self.newest.get(index)))
    }

    /// The newest changes, oldest first, with their numbers.
    pub fn newest(&self) -> impl Iterator<Item = (u64, &WatchEvent)> {
        (self.first..).zip(&self.newest)
    }

    pub fn push(&mut self, event: WatchEvent) {
        self.newest_bytes += kept_alive(&event);
        self.newest.push_back(event);
    }

    /// What is to be packed next, if the newest are too many.
    pub fn surplus(&self) -> Option<Vec<WatchEvent>> {
        if self.newest.len() <= NEWEST_EVENTS && self.newest_bytes <= NEWEST_BYTES {
            return None;
        }
        let mut filling = Filling::default();
        for event in &self.newest {
            if filling.is_full_before(event) {
                break;
            }
            filling.push(event.clone());
        }
        (!filling.events.is_empty()).then_some(filling.events)
    }

    /// Puts blocks in front, which have all changes between the two revisions; of too many the newest. Those that do
    /// not join what is here are dropped.
    pub fn prepend(&mut self, (mut from, until): (Revision, Revision), mut past: Past) {
        if self.start != until {
            return;
        }
        past.close();
        let newest = self.newest.len();
        let room = (
            PACKED_BYTES.saturating_sub(self.blocks_bytes),
            KEPT_EVENTS.saturating_sub(self.blocks_events + newest),
        );
        from = past.fit(room).unwrap_or(from);
        if self.blocks.is_empty() {
            self.newest_start = past.blocks.back().map_or(from, Block::last);
        }
        self.start = from;
        self.blocks_bytes += past.bytes;
        self.blocks_events += past.events;
        for block in past.blocks.into_iter().rev() {
            self.blocks.push_front(Arc::new(block));
        }
    }

    /// Puts a block in the place of the events that it was made of.
    pub fn pack(&mut self, block: Block) {
        for _ in 0..block.events {
            let Some(event) = self.newest.pop_front() else {
                break;
            };
            self.newest_bytes -= kept_alive(&event);
            self.first += 1;
        }
        self.newest_start = block.last;
        self.blocks_bytes += block.size();
        self.blocks_events += block.events;
        self.blocks.push_back(Arc::new(block));
        while let Some(oldest) = self.blocks.front()
            && (self.blocks_bytes > PACKED_BYTES
                || self.blocks_events + self.newest.len() - oldest.events >= KEPT_EVENTS)
        {
            self.forget();
        }
    }

    /// Drops the oldest block.
    pub fn forget(&mut self) {
        if let Some(oldest) = self.blocks.pop_front() {
            self.blocks_bytes -= oldest.size();
            self.blocks_events -= oldest.events;
            self.start = oldest.last;
        }
    }

    /// What the packed changes take.
    pub fn packed_bytes(&self) -> usize {
        self.blocks_bytes
    }
}

/// Events that become a block.
#[derive(Default)]
pub(super) struct Filling {
    pub events: Vec<WatchEvent>,
    bytes: usize,
}

impl Filling {
    /// Whether a block ends before this event, which is the next one.
    pub fn is_full_before(&self, event: &WatchEvent) -> bool {
        let is_full = self.bytes >= BLOCK_BYTES || self.events.len() >= BLOCK_EVENTS;
        let of_last = |last: &WatchEvent| last.object.revision == event.object.revision;
        is_full && !self.events.last().is_some_and(of_last)
    }

    pub fn push(&mut self, event: WatchEvent) {
        self.bytes += raw_size(&event);
        self.events.push(event);
    }
}

/// Changes that are older than a history, oldest first.
#[derive(Default)]
pub(super) struct Past {
    blocks: VecDeque<Block>,
    bytes: usize,
    events: usize,
    filling: Filling,
    /// The last change that was given up again.
    lost: Option<Revision>,
}

impl Past {
    pub fn push(&mut self, event: WatchEvent) {
        if self.filling.is_full_before(&event) {
            self.close();
            self.fit((PACKED_BYTES, KEPT_EVENTS));
        }
        self.filling.push(event);
    }

    /// Packs what waits for that.
    fn close(&mut self) {
        let events = std::mem::take(&mut self.filling).events;
        if !events.is_empty() {
            let block = Block::of(&events);
            self.bytes += block.size();
            self.events += block.events;
            self.blocks.push_back(block);
        }
    }

    /// Gives up what is oldest until the rest fits; answers with the last change that is lost.
    fn fit(&mut self, (bytes, events): (usize, usize)) -> Option<Revision> {
        while (self.bytes > bytes || self.events > events)
            && let Some(oldest) = self.blocks.pop_front()
        {
            self.bytes -= oldest.size();
            self.events -= oldest.events;
            self.lost = Some(oldest.last);
        }
        self.lost
    }
}

impl Block {
    /// Packs events, of which there is at least one.
    pub fn of(events: &[WatchEvent]) -> Self {
        let mut raw = Vec::with_capacity(events.iter().map(raw_size).sum());
        for event in events {
            let WatchEvent {
                change,
                object,
                previous,
            } = event;
            raw.push(*change as u8);
            raw.extend(object.revision.to_le_bytes());
            put(&mut raw, object.key.as_bytes());
            // A deletion shows the state before.
            let is_deleted = *change == Change::Deleted;
            let now = if is_deleted {
                Bytes::new()
            } else {
                object.bytes()
            };
            put(&mut raw, &now);
            let before = previous.as_ref();
            raw.extend(before.map_or(0, |it| it.revision).to_le_bytes());
            put(&mut raw, &before.map(|it| it.bytes()).unwrap_or_default());
        }
        let buckets = events.iter().flat_map(Bucket::concerned);
        let mut concerned: Vec<u64> = buckets.map(|bucket| bucket.fingerprint()).collect();
        concerned.sort_unstable();
        concerned.dedup();
        Self {
            packed: lz4_flex::block::compress(&raw).into_boxed_slice(),
            raw_bytes: raw.len(),
            events: events.len(),
            last: events.last().map_or(0, |event| event.object.revision),
            concerned: concerned.into(),
        }
    }

    /// Whether one of its changes may concern the bucket.
    pub fn may_concern(&self, bucket: &Bucket) -> bool {
        self.concerned.binary_search(&bucket.fingerprint()).is_ok()
    }

    /// The revision of its last change.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// Its events; their objects share one buffer.
    pub fn events(&self, resource: &Arc<Resource>) -> Vec<WatchEvent> {
        let raw = match lz4_flex::block::decompress(&self.packed, self.raw_bytes) {
            Ok(raw) => Bytes::from(raw),
            Err(error) => {
                // Only a defect of the memory or of this file can make that.
                tracing::error!(%error, "a packed part of the history does not unpack");
                return Vec::new();
            }
        };
        let mut reader = Reader { raw, at: 0 };
        let events = std::iter::from_fn(|| reader.event(resource));
        events.take(self.events).collect()
    }

    fn size(&self) -> usize {
        let own = std::mem::size_of::<Self>() + 4 * std::mem::size_of::<usize>();
        self.packed.len() + std::mem::size_of_val(&*self.concerned) + own
    }
}

/// What an event keeps alive that would otherwise be gone: the state before.
fn kept_alive(event: &WatchEvent) -> usize {
    let own = match event.change {
        Change::Deleted => event.object.size(),
        _ => 0,
    };
    own + event.previous.as_ref().map_or(0, |it| it.size())
}

/// What an event takes in a block before it is packed.
fn raw_size(event: &WatchEvent) -> usize {
    let previous = event.previous.as_ref().map_or(0, |it| it.len());
    29 + event.object.key.len() + event.object.len() + previous
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // An object has 3 MiB at most.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

/// Reads what `Block::of` wrote.
struct Reader {
    raw: Bytes,
    at: usize,
}

impl Reader {
    fn event(&mut self, resource: &Arc<Resource>) -> Option<WatchEvent> {
        let change = match self.take(1)?.first()? {
            0 => Change::Added,
            1 => Change::Modified,
            _ => Change::Deleted,
        };
        let revision = self.revision()?;
        let key: Arc<str> = std::str::from_utf8(&self.bytes()?).ok()?.into();
        let now = self.bytes()?;
        let before_at = self.revision()?;
        let before = self.bytes()?;
        let cached = |bytes, at| Arc::new(Cached::ready(resource, key.clone(), bytes, at));
        let previous = (before_at > 0).then(|| cached(before, before_at));
        let object = match (change, &previous) {
            (Change::Deleted, Some(previous)) => Arc::new(previous.moved_to(revision)),
            _ => cached(now, revision),
        };
        Some(WatchEvent {
            change,
            object,
            previous,
        })
    }

    fn revision(&mut self) -> Option<Revision> {
        let bytes = self.take(8)?;
        Some(Revision::from_le_bytes(*bytes.first_chunk()?))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(*self.take(4)?.first_chunk()?);
        self.take(length as usize)
    }

    fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length)?;
        if end > self.raw.len() {
            return None;
        }
        let bytes = self.raw.slice(self.at..end);
        self.at = end;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> &'static Arc<Resource> {
        api::find("", "v1", "pods").expect("pods are served")
    }

    fn state(key: &str, revision: Revision, size: usize) -> Arc<Cached> {
        let text = format!(
            r#"{{"metadata":{{"name":"{key}"}},"x":"{}"}}"#,
            "y".repeat(size)
        );
        Arc::new(Cached::of(pods(), key.into(), text.as_bytes(), revision))
    }

    /// A pod that is made, changed, and deleted, for ever.
    fn event(revision: Revision, size: usize) -> WatchEvent {
        let key = format!("/r/a/{}", revision / 3);
        let before = |change| (change, Some(state(&key, revision - 1, size)));
        let (change, previous) = match revision % 3 {
            0 => (Change::Added, None),
            1 => before(Change::Modified),
            _ => before(Change::Deleted),
        };
        let object = match (change, &previous) {
            (Change::Deleted, Some(previous)) => Arc::new(previous.moved_to(revision)),
            _ => state(&key, revision, size),
        };
        WatchEvent {
            change,
            object,
            previous,
        }
    }

    fn shown(event: &WatchEvent) -> (Change, Arc<str>, Bytes, u64, Option<(Bytes, u64)>) {
        let before = event.previous.as_ref();
        let before = before.map(|it| (it.bytes(), it.revision));
        let WatchEvent { change, object, .. } = event;
        (
            *change,
            object.key.clone(),
            object.bytes(),
            object.revision,
            before,
        )
    }

    fn push(history: &mut History, event: WatchEvent) {
        history.push(event);
        while let Some(events) = history.surplus() {
            history.pack(Block::of(&events));
        }
    }

    #[test]
    fn a_block_gives_back_what_was_packed() {
        let events: Vec<WatchEvent> = (3..40).map(|revision| event(revision, 100)).collect();
        let block = Block::of(&events);
        let back = block.events(pods());
        assert_eq!(
            back.iter().map(shown).collect::<Vec<_>>(),
            events.iter().map(shown).collect::<Vec<_>>()
        );
        assert_eq!(block.last(), 39);
    }

    #[test]
    fn a_hundred_thousand_changes_are_read_back_in_order_and_older_ones_are_not_claimed() {
        let mut history = History::new(2);
        let last = 3 + KEPT_EVENTS as u64 + 5_000;
        for revision in 3..=last {
            push(&mut history, event(revision, 40));
        }
        assert!(history.block_behind(2).is_none());
        let mut at = last - KEPT_EVENTS as u64;
        while history.number_behind(at).is_none() {
            let block = history.block_behind(at).expect("it reaches back that far");
            let events = block.events(pods());
            let from = at;
            for event in events.iter().filter(|event| event.object.revision > from) {
                assert_eq!(event.object.revision, at + 1);
                at += 1;
            }
        }
        let number = history.number_behind(at).expect("among the newest");
        let next = history.get(number).ok().flatten().expect("an event");
        assert_eq!(next.object.revision, at + 1);
        // Names and numbers differ, little else does.
        assert!(
            history.packed_bytes() < KEPT_EVENTS * 60,
            "{}",
            history.packed_bytes()
        );
    }

    #[test]
    fn a_commit_lies_in_one_block() {
        let mut history = History::new(0);
        for number in 0..4 * NEWEST_EVENTS {
            let revision = 3 + (number as u64 / 500) * 3;
            push(&mut history, event(revision, 10));
        }
        let borders: Vec<_> = history.blocks.iter().map(|block| block.last).collect();
        assert!(
            borders.windows(2).all(|pair| pair[0] < pair[1]),
            "{borders:?}"
        );
    }

    #[test]
    fn large_objects_are_packed_early_and_forgotten_by_their_size() {
        let mut history = History::new(2);
        for revision in 3..60 {
            push(&mut history, event(revision, 1 << 20));
            assert!(history.newest_bytes <= NEWEST_BYTES);
        }
        assert!(history.block_behind(2).is_some());
        history.forget();
        assert!(history.block_behind(2).is_none());
        let from = history.start;
        assert!(history.block_behind(from).is_some());
    }
}
