//! WATCH: a stream of what happens to a selection, one JSON object a line.
//!
//! The cache tells what happened to each object; here that becomes what happened to the selection:
//! an object that begins to match is ADDED to it, one that ceases to is DELETED from it. A stream
//! ends at its timeout and when the server stops; a client resumes from the last revision it saw.

mod encoder;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use jiff::Timestamp;
use tokio::time::Instant;

use super::authn::User;
use super::authz::{Sight, Standing};
use super::cache::{Bucket, Cached, Change, Gone, Watch, WatchEvent};
use super::metrics::Row;
use super::request::Query;
use super::rest::list::{Selection, catch_up, revision};
use super::rest::{Answer, Call};
use super::{State, reply, versions};
use api::{ApiError, Resource, Served};
use encoder::Encoder;
use store::Revision;
use sys::Shutdown;

/// Events that are there already go out together up to this size.
const FRAME_BYTES: usize = 64 * 1024;
/// What is written around an object, at most.
const EVENT_BYTES: usize = 40;
/// What it costs, about, to wake a watch and to send it a frame.
const FRAME_COST: Duration = Duration::from_micros(20);
/// Frames to thousands of watches of the same changes take at most one of so many parts of a processor; for each part so
/// many watches: up to there events are worth more soon than cheap.
const FRAMES_SHARE: u32 = 4;
const SHARE_WATCHES: u32 = 250;
/// What is shorter is no pause: timers go by milliseconds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Quiet watches hear of the progress this often, if they want to.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(50);
/// Without a timeout of the client a watch lasts between one and two of these.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Answers with the stream. What is wrong with the request is said before it begins; a revision
/// that is gone is said in it, as clients expect.
pub async fn watch(call: &Call) -> Answer {
    let resource = call.target.storage();
    let objects = &call.state.objects;
    let selection = Selection::of(&call.target.served, &call.query)?.with_name(call)?;
    let options = Options::of(&call.query)?;
    let namespace = call.target.namespace.as_deref();
    let bucket = selection.bucket(resource, namespace);
    let mut initial = VecDeque::new();
    let from = match options.from {
        From::Revision(from) => {
            catch_up(objects, from).await?;
            from
        }
        From::Now => objects.cache.revision(),
        From::Snapshot(at_least) => {
            catch_up(objects, at_least).await?;
            let (revision, all) = match &bucket {
                Some(bucket) => objects.cache.list_bucket(resource, namespace, bucket),
                None => objects.cache.list(resource, namespace),
            };
            initial.extend(selection.among(call, all).await?);
            revision
        }
    };
    let sight = call.sight();
    let buckets = buckets(bucket, &selection, &sight, resource);
    let watch = objects.cache.watch(resource, namespace, buckets, from);
    let (watch, gone) = match watch.await {
        Ok(watch) => (Some(watch), None),
        Err(gone) => (None, Some(gone)),
    };
    let mut changes = call.state.registry.subscribe();
    // The kind may have changed since the path was read.
    changes.mark_changed();
    let stream = Stream {
        state: call.state.clone(),
        served: call.target.served.clone(),
        row: call
            .state
            .metrics
            .requests()
            .row(&call.target, call.verb, false),
        changes,
        sight,
        standing: Standing::of(&call.state, &call.user, &call.target),
        encoder: Encoder::new(call.target.resource().clone(), call.wanted),
        selection,
        initial,
        marks_end: options.marks_end.then_some(from),
        watch,
        collects_until: Instant::now(),
        gone,
        bookmarks: options.bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_INTERVAL,
        deadline: Instant::now() + options.timeout.min(until_end(&call.user, Timestamp::now())),
        shutdown: call.state.tasks.shutdown().clone(),
    };
    let frames = stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, Infallible>(frame), stream))
    });
    Ok(reply::response(
        call.wanted.stream_type(),
        StatusCode::OK,
        Body::from_stream(frames),
    ))
}

/// The changes that are to wake a watch, where these are not all of them.
fn buckets(
    indexed: Option<Bucket>,
    selection: &Selection,
    sight: &Sight,
    resource: &Resource,
) -> Vec<Bucket> {
    match indexed {
        Some(bucket) => vec![bucket],
        // A selector may look at what only the object as a whole shows.
        None if selection.is_everything() => sight.buckets(resource),
        None => Vec::new(),
    }
}

/// A watch ends with the certificate or token that it was asked for with, and is resumed with the next
/// one.
fn until_end(user: &User, now: Timestamp) -> Duration {
    match user.ends() {
        Some(ends) => Duration::try_from(ends.duration_since(now)).unwrap_or_default(),
        None => Duration::MAX,
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// With what there is now, at least as new as this, as ADDED events.
    Snapshot(Revision),
    /// Behind this revision.
    Revision(Revision),
    /// With the next change.
    Now,
}

#[derive(Debug, PartialEq)]
struct Options {
    from: From,
    /// A bookmark says where the first events end.
    marks_end: bool,
    bookmarks: bool,
    timeout: Duration,
}

impl Options {
    fn of(query: &Query) -> Result<Self, ApiError> {
        let version = revision(query)?;
        let initial = query.optional_flag("sendInitialEvents");
        let bookmarks = query.flag("allowWatchBookmarks");
        let matching = query.get("resourceVersionMatch").unwrap_or_default();
        match initial {
            Some(_) if matching != "NotOlderThan" => {
                return Err(ApiError::BadRequest(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                     resourceVersionMatch to NotOlderThan"
                        .to_owned(),
                ));
            }
            None if !matching.is_empty() => {
                return Err(ApiError::BadRequest(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch \
                     unless sendInitialEvents is provided"
                        .to_owned(),
                ));
            }
            _ => {}
        }
        let from = match (initial, version) {
            (Some(true), at_least) => From::Snapshot(at_least.unwrap_or_default()),
            (None, None | Some(0)) => From::Snapshot(0),
            (Some(false), None | Some(0)) => From::Now,
            (_, Some(revision)) => From::Revision(revision),
        };
        let timeout = match query
            .number::<u64>("timeoutSeconds")?
            .filter(|seconds| *seconds > 0)
        {
            Some(seconds) => Duration::from_secs(seconds),
            None => DEFAULT_TIMEOUT + DEFAULT_TIMEOUT.mul_f64(spread()),
        };
        let marks_end = initial == Some(true) && bookmarks;
        Ok(Self {
            from,
            marks_end,
            bookmarks,
            timeout,
        })
    }
}

impl Selection {
    /// The old `watch/…/name` path selects one object.
    fn with_name(self, call: &Call) -> Result<Self, ApiError> {
        match &call.target.name {
            Some(name) => {
                let query = format!("metadata.name={name}");
                Ok(Self {
                    fields: api::selector::FieldSelector::parse(&query)?,
                    ..self
                })
            }
            None => Ok(self),
        }
    }
}

/// One client's watch.
struct Stream {
    state: Arc<State>,
    served: Arc<Served>,
    /// Counts the events.
    row: Arc<Row>,
    /// Tells that kinds have come, gone or changed.
    changes: tokio::sync::watch::Receiver<u64>,
    sight: Sight,
    /// What entitles the client to the next event, where that may end.
    standing: Option<Standing>,
    encoder: Encoder,
    selection: Selection,
    /// Objects that are still to be sent as ADDED.
    initial: VecDeque<Arc<Cached>>,
    /// The revision to be said in the bookmark behind the initial events.
    marks_end: Option<Revision>,
    /// None once the watch is over.
    watch: Option<Watch>,
    /// What happens until then goes out together.
    collects_until: Instant,
    /// To be said before the end.
    gone: Option<Gone>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    shutdown: Shutdown,
}

impl Stream {
    /// The next bytes for the client; None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        if !self.initial.is_empty() {
            let mut events = Events::default();
            while events.bytes < FRAME_BYTES
                && let Some(object) = self.initial.pop_front()
            {
                events.push("ADDED", self.sight.bytes(&object));
            }
            self.encode(&mut frame, events).await;
            return Some(frame.freeze());
        }
        if let Some(revision) = self.marks_end.take() {
            self.encoder.bookmark(&mut frame, revision, true);
            return Some(frame.freeze());
        }
        while frame.is_empty() {
            let watch = match (&mut self.watch, self.gone.take()) {
                (_, Some(gone)) => {
                    self.watch = None;
                    let error = ApiError::too_old(gone.asked, gone.oldest);
                    return Some(self.encoder.error(&error));
                }
                (Some(watch), None) => watch,
                (None, None) => return None,
            };
            tokio::select! {
                () = self.shutdown.requested() => return None,
                () = tokio::time::sleep_until(self.deadline) => {
                    let progress = watch.progress();
                    self.watch = None;
                    if self.bookmarks {
                        self.encoder.bookmark(&mut frame, progress, false);
                    } else {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    self.encoder.bookmark(&mut frame, watch.progress(), false);
                }
                // The server never lets go of the registry's end.
                _ = self.changes.changed() => {
                    if !self.state.registry.snapshot().serves(&self.served) {
                        // What has happened until then is told first.
                        let events = match watch.try_next() {
                            Some(event) => self.take(event).await,
                            None => Events::default(),
                        };
                        self.encode(&mut frame, events).await;
                        if frame.is_empty() {
                            return None;
                        }
                        self.changes.mark_changed();
                    }
                }
                event = next_from(watch, self.collects_until) => {
                    let events = self.take(event).await;
                    let is_all = events.bytes < FRAME_BYTES;
                    self.encode(&mut frame, events).await;
                    if is_all && !frame.is_empty() {
                        self.collect();
                    }
                }
            }
        }
        Some(frame.freeze())
    }

    /// The next frame waits, if so many watches are woken by the same events that a frame to each, for each event,
    /// would keep the server busy with nothing else. After a pause an event goes out at once.
    fn collect(&mut self) {
        let watches = self.watch.as_ref().map_or(0, Watch::companions);
        if let Some(pause) = pause(watches) {
            self.collects_until = Instant::now() + pause;
        }
    }

    /// What an event is to the client, and those that are there already.
    async fn take(&mut self, event: Result<WatchEvent, Gone>) -> Events {
        let mut events = Events::default();
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                Ok(event) => match self.transition(&event).await {
                    // Nothing is told any more, and the watch is over.
                    Ok(Some(_)) if !self.is_entitled(&event) => {
                        self.watch = None;
                        break;
                    }
                    Ok(transition) => self.tell(&mut events, &event, transition),
                    Err(error) => {
                        events.error = Some(error);
                        break;
                    }
                },
                Err(gone) => {
                    self.gone = Some(gone);
                    break;
                }
            }
            let room = events.bytes < FRAME_BYTES;
            next = self
                .watch
                .as_mut()
                .filter(|_| room)
                .and_then(Watch::try_next);
        }
        events
    }

    /// Writes events in the client's version; where that cannot be made, the watch ends with the reason.
    async fn encode(&mut self, frame: &mut BytesMut, events: Events) {
        self.row.sent(events.kinds.len() as u64);
        frame.reserve(events.bytes + EVENT_BYTES * events.kinds.len());
        let shown = versions::all_shown(&self.state, &self.served, events.objects).await;
        let error = match shown {
            Ok(objects) => {
                for (kind, object) in events.kinds.into_iter().zip(&objects) {
                    self.encoder.event(frame, kind, object);
                }
                events.error
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            self.watch = None;
            self.initial.clear();
            self.marks_end = None;
            frame.put_slice(&self.encoder.error(&error));
        }
    }

    /// Events of what the client may no longer read are not for it.
    fn is_entitled(&self, event: &WatchEvent) -> bool {
        let standing = self.standing.as_ref();
        standing.is_none_or(|standing| standing.holds(event.object.name()))
    }

    /// What an event is to the selection.
    async fn transition(&self, event: &WatchEvent) -> Result<Option<Transition>, ApiError> {
        let (selection, is_there) = (&self.selection, event.change != Change::Deleted);
        let previous = event.previous.as_ref();
        if selection.is_stored() {
            let before = previous.is_some_and(|object| selection.selects(object));
            return Ok(Transition::of(
                before,
                is_there && selection.selects(&event.object),
            ));
        }
        let versions = previous
            .into_iter()
            .chain(is_there.then_some(&event.object));
        let versions: Vec<Arc<Cached>> = versions.cloned().collect();
        let judged = selection
            .judge(&self.state, &self.served, &versions)
            .await?;
        let before = previous.is_some() && judged.first() == Some(&true);
        Ok(Transition::of(
            before,
            is_there && judged.last() == Some(&true),
        ))
    }

    fn tell(&self, events: &mut Events, event: &WatchEvent, transition: Option<Transition>) {
        let bytes = self.sight.bytes(&event.object);
        match transition {
            Some(Transition::Entered) => events.push("ADDED", bytes),
            Some(Transition::Changed) => {
                let before = event.previous.as_ref();
                if before.is_none_or(|before| self.sight.shows_change(before, &event.object)) {
                    events.push("MODIFIED", bytes);
                }
            }
            Some(Transition::Left) if event.change == Change::Deleted => {
                events.push("DELETED", bytes);
            }
            Some(Transition::Left) => {
                // What the client knows of it: the state before, at the revision of the change.
                let previous = event.previous.as_ref().unwrap_or(&event.object);
                let bytes = self.sight.at_revision(previous, event.object.revision);
                events.push("DELETED", bytes);
            }
            None => {}
        }
    }
}

/// The next event of a watch, but not before that time.
async fn next_from(watch: &mut Watch, at: Instant) -> Result<WatchEvent, Gone> {
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
    watch.next().await
}

/// How long each of so many watches collects events between two frames: as long as frames to all of them take, and of
/// thousands a few times as long, which leaves the processor to others. Few watches collect nothing.
fn pause(watches: usize) -> Option<Duration> {
    let watches = u32::try_from(watches).unwrap_or(u32::MAX);
    let all = FRAME_COST.saturating_mul(watches);
    let share = (watches / SHARE_WATCHES).clamp(1, FRAMES_SHARE);
    let pause = all.saturating_mul(share).min(LONGEST_PAUSE);
    (all >= SHORTEST_PAUSE).then_some(pause)
}

/// Events that go out together: their types, and the objects as they are stored.
#[derive(Default)]
struct Events {
    kinds: Vec<&'static str>,
    objects: Vec<Bytes>,
    bytes: usize,
    /// Why there are no more.
    error: Option<ApiError>,
}

impl Events {
    fn push(&mut self, kind: &'static str, object: Bytes) {
        self.bytes += object.len();
        self.kinds.push(kind);
        self.objects.push(object);
    }
}

/// What an event is to a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transition {
    Entered,
    Changed,
    Left,
}

impl Transition {
    /// Of an object that was selected before, and is after.
    fn of(before: bool, after: bool) -> Option<Self> {
        match (before, after) {
            (false, true) => Some(Self::Entered),
            (true, true) => Some(Self::Changed),
            (true, false) => Some(Self::Left),
            (false, false) => None,
        }
    }
}

/// A number in 0..1 that differs between watches, so that they do not all end at once.
fn spread() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u64_pair().0;
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn options(query: &'static str) -> Result<Options, ApiError> {
        Options::of(&Query::of(&Uri::from_static(query)))
    }

    #[test]
    fn pauses_grow_with_the_watches_of_a_kind_and_have_an_end() {
        let ms = |watches| pause(watches).map(|pause| pause.as_millis());
        assert_eq!([1, 49].map(ms), [None, None]);
        assert_eq!(
            [50, 300, 1_000, 5_000, 1 << 40].map(ms),
            [1, 6, 80, 400, 500].map(Some)
        );
    }

    #[test]
    fn a_watch_begins_where_its_parameters_say() {
        let from = |query| options(query).map(|options| options.from);
        assert_eq!(from("/x?watch=1"), Ok(From::Snapshot(0)));
        assert_eq!(from("/x?watch=1&resourceVersion=0"), Ok(From::Snapshot(0)));
        assert_eq!(from("/x?watch=1&resourceVersion=9"), Ok(From::Revision(9)));
        let list = "/x?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=9";
        assert_eq!(from(list), Ok(From::Snapshot(9)));
        let now = "/x?sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
        assert_eq!(from(now), Ok(From::Now));
        assert!(options("/x?sendInitialEvents=true").is_err());
        assert!(options("/x?resourceVersionMatch=Exact").is_err());
    }
}
