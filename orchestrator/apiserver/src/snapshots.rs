//! Snapshots of the store in a directory of this server: when an administrator asks, and every so often.
//!
//! Each server has its own: with several of them, each machine holds copies. Of those that were taken by the clock
//! the newest few stay; those that somebody asked for stay until somebody removes them. Values are in them as the
//! store keeps them: without the keys in `pki` nobody reads a Secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::server_token::known;
use super::{State, encryption, reply};
use api::ApiError;
use store::snapshot::{self, Header, SnapshotError};
use store::{Expect, Range, Store, StoreError, Write};
use sys::files;

/// POST takes one, GET lists them.
pub const PATH: &str = "/orchestrator/v1/snapshots";
const EXTENSION: &str = "snapshot";
/// How soon after its start a server takes one at the earliest: then it has more urgent work.
const EARLIEST: Duration = Duration::from_secs(300);

/// Where they are, and how often one is taken.
#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    pub directory: PathBuf,
    /// None: only when somebody asks.
    pub every: Option<Duration>,
    /// How many of those that were taken by the clock are kept; at least one.
    pub keep: usize,
}

/// Why one is taken; its name begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Asked,
    Scheduled,
}

/// One in the directory.
pub struct Found {
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Result<Header, SnapshotError>,
    pub bytes: u64,
}

/// One at a time.
#[derive(Default)]
pub(super) struct Turn(Mutex<()>);

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Scheduled => "scheduled",
        }
    }
}

/// Writes what the store holds, with its values as they are kept, into a new file of the directory.
pub async fn take(
    store: &dyn Store,
    directory: &Path,
    cause: Cause,
    authority: &str,
) -> Result<(PathBuf, Header), SnapshotError> {
    let made = files::create_private_dir(directory);
    made.map_err(|source| SnapshotError::Io {
        path: directory.to_owned(),
        source,
    })?;
    let now = Timestamp::now();
    let path = free_path(directory, now, cause);
    let below = store.kept();
    let store = below.as_deref().unwrap_or(store);
    let header = snapshot::save(store, &path, authority, now.as_second()).await?;
    Ok((path, header))
}

/// Where none is: one that is taken in the same microsecond as another one comes after it, and does not replace it.
fn free_path(directory: &Path, now: Timestamp, cause: Cause) -> PathBuf {
    let path = |now: Timestamp| {
        let time = now.strftime("%Y%m%dT%H%M%S-%6f");
        let name = format!("{time}-{}", cause.word());
        directory.join(name).with_extension(EXTENSION)
    };
    let mut at = now;
    while path(at).exists() {
        at += Duration::from_micros(1);
    }
    path(at)
}

/// What a store says of the servers that share it is not true of those that begin with a copy: how they encrypt, and by
/// which tokens others join them. One that was revoked since must not be good again.
pub async fn forget_servers(copy: &dyn Store) -> Result<(), StoreError> {
    for keys in [encryption::SCHEME, known::KEYS] {
        for entry in copy.range(Range::all(keys)).await?.entries {
            let write = Write::delete(&*entry.key, Expect::Any);
            copy.commit(vec![write]).await?;
        }
    }
    Ok(())
}

/// Those in a directory, the oldest first. Of each only what it says of itself is read.
pub fn list(directory: &Path) -> std::io::Result<Vec<Found>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|it| it != EXTENSION) {
            continue;
        }
        found.push(Found {
            header: snapshot::header(&path),
            bytes: std::fs::metadata(&path)?.len(),
            path,
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Those that were taken by the clock, the oldest first.
fn scheduled(directory: &Path) -> std::io::Result<Vec<Found>> {
    let end = format!("-{}", Cause::Scheduled.word());
    let scheduled = list(directory)?.into_iter().filter(|found| {
        let name = found.path.file_stem().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with(&end))
    });
    Ok(scheduled.collect())
}

/// How long to wait for the next one by the clock: the newest may be of an earlier run of this server.
fn pause(directory: &Path, every: Duration, now: Timestamp) -> Duration {
    let all = scheduled(directory).unwrap_or_default().into_iter();
    let newest = all.filter_map(|found| Some(found.header.ok()?.taken)).max();
    let age = newest.map(|taken| now.as_second().saturating_sub(taken));
    let age = age.map_or(every, |age| {
        Duration::from_secs(u64::try_from(age).unwrap_or(0))
    });
    every.saturating_sub(age).max(EARLIEST.min(every))
}

/// Removes those that the clock had taken but the newest few, and what was never finished.
fn prune(directory: &Path, keep: usize) -> std::io::Result<()> {
    snapshot::remove_leftovers(directory, SystemTime::now())?;
    let scheduled = scheduled(directory)?;
    let superfluous = scheduled.len().saturating_sub(keep.max(1));
    scheduled[..superfluous]
        .iter()
        .try_for_each(|old| std::fs::remove_file(&old.path))
}

/// Takes one whenever it is time, until the server stops.
pub(super) fn start(state: &Arc<State>) {
    let Some((config, every)) = state.config.snapshots.clone().and_then(|config| {
        let every = config.every?;
        Some((config, every))
    }) else {
        return;
    };
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("snapshots", move || {
        let (state, shutdown, config) = (state.clone(), shutdown.clone(), config.clone());
        async move {
            let tick = || {
                let pause = pause(&config.directory, every, Timestamp::now());
                shutdown.unless(tokio::time::sleep(pause))
            };
            while tick().await.is_some() {
                let (path, header) = taken(&state, &config, Cause::Scheduled).await?;
                let revision = header.revision;
                tracing::info!(path = %path.display(), revision, "a snapshot was taken");
            }
            Ok::<(), SnapshotError>(())
        }
    });
}

async fn taken(
    state: &State,
    config: &SnapshotConfig,
    cause: Cause,
) -> Result<(PathBuf, Header), SnapshotError> {
    let _turn = state.snapshot_turn.0.lock().await;
    let failed = |path: &Path, source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    };
    let authority = state.pki.as_ref().map(|pki| {
        let print = pki.fingerprint().map_err(std::io::Error::other);
        print.map_err(|error| failed(pki.directory(), error))
    });
    let authority = authority.transpose()?.unwrap_or_default();
    let taken = take(&*state.objects.store, &config.directory, cause, &authority).await?;
    if cause == Cause::Scheduled {
        let pruned = prune(&config.directory, config.keep);
        pruned.map_err(|error| failed(&config.directory, error))?;
    }
    Ok(taken)
}

/// POST: takes one on this server.
pub(super) async fn post(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    let taken = match &state.config.snapshots {
        Some(config) => taken(&state, config, Cause::Asked)
            .await
            .map_err(reply::internal),
        None => Err(ApiError::NoSuchResource),
    };
    match taken {
        Ok((path, header)) => {
            let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            let header = Ok(header);
            reply::json(
                StatusCode::OK,
                &shown(&Found {
                    path,
                    header,
                    bytes,
                }),
            )
        }
        Err(error) => reply::error(&error),
    }
}

/// GET: those of this server.
pub(super) async fn get(Extract(state): Extract<Arc<State>>) -> Response<Body> {
    let found = match &state.config.snapshots {
        Some(config) => list(&config.directory).map_err(reply::internal),
        None => Err(ApiError::NoSuchResource),
    };
    match found {
        Ok(found) => {
            let items: Vec<Value> = found.iter().map(shown).collect();
            reply::json(StatusCode::OK, &json!({"items": items}))
        }
        Err(error) => reply::error(&error),
    }
}

/// One, as JSON.
pub fn shown(found: &Found) -> Value {
    let (path, bytes) = (found.path.display().to_string(), found.bytes);
    match &found.header {
        Ok(header) => json!({"path": path, "bytes": bytes, "revision": header.revision,
            "taken": header.taken}),
        Err(error) => json!({"path": path, "bytes": bytes, "error": error.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::{EncryptedStore, Encryption};
    use store::MemoryStore;

    #[tokio::test]
    async fn of_those_that_the_clock_has_taken_the_newest_stay_and_of_others_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = MemoryStore::default();
        for cause in [
            Cause::Asked,
            Cause::Scheduled,
            Cause::Scheduled,
            Cause::Scheduled,
        ] {
            take(&store, directory.path(), cause, "ca")
                .await
                .expect("taken");
        }
        let before = list(directory.path()).expect("a list");
        prune(directory.path(), 2).expect("pruned");
        let after = list(directory.path()).expect("a list");
        let paths = |all: &[Found]| all.iter().map(|it| it.path.clone()).collect::<Vec<_>>();
        let mut kept = paths(&before);
        kept.remove(1);
        assert_eq!(paths(&after), kept);
        assert!(after.iter().all(|found| found.header.is_ok()));
    }

    #[test]
    fn two_of_the_same_moment_are_two_files_in_their_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = Timestamp::from_second(1_796_052_151).expect("a time");
        let names = [(); 3].map(|()| {
            let path = free_path(directory.path(), now, Cause::Scheduled);
            std::fs::write(&path, "").expect("written");
            path
        });
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }

    #[tokio::test]
    async fn the_next_one_is_due_one_interval_after_the_newest_though_the_server_began_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let hour = Duration::from_secs(3600);
        let now = Timestamp::now();
        let left = |now| pause(directory.path(), 6 * hour, now);
        assert_eq!(left(now), EARLIEST, "there is none");
        let store = MemoryStore::default();
        for cause in [Cause::Scheduled, Cause::Asked] {
            let taken = take(&store, directory.path(), cause, "ca").await;
            taken.expect("taken");
        }
        let later = left(now + 4 * hour);
        assert!(
            later > hour && later <= 2 * hour + Duration::from_secs(60),
            "{later:?}"
        );
        assert_eq!(left(now + 24 * hour), EARLIEST, "overdue");
        assert_eq!(left(now - 24 * hour), 6 * hour, "the clock was set back");
        let often = Duration::from_secs(1);
        assert!(pause(directory.path(), often, now + hour) <= often);
    }

    #[tokio::test]
    async fn a_copy_knows_nothing_of_the_servers_of_its_origin() {
        let store = MemoryStore::default();
        let kept = "/registry/core/pods/a/b";
        for key in [encryption::SCHEME, &format!("{}a", known::KEYS), kept] {
            let write = Write::put(key, "x", Expect::Absent);
            store.commit(vec![write]).await.expect("written");
        }
        forget_servers(&store).await.expect("forgotten");
        let left = store.range(Range::all("/")).await.expect("read").entries;
        let left: Vec<&str> = left.iter().map(|entry| &*entry.key).collect();
        assert_eq!(left, [kept]);
    }

    #[tokio::test]
    async fn a_snapshot_shows_no_secret_that_the_store_encrypts() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("encryption.yaml");
        let encryption = Encryption::load_or_create(&file, true).expect("a configuration");
        let store = EncryptedStore::new(Arc::new(MemoryStore::default()), encryption);
        let writes = [
            "/registry/core/secrets/a/b",
            "/cluster/secrets/c",
            "/registry/core/pods/a/b",
        ];
        for key in writes {
            let write = Write::put(key, format!("plain text of {key}"), Expect::Absent);
            store.commit(vec![write]).await.expect("written");
        }
        let taken = take(&store, &directory.path().join("s"), Cause::Asked, "ca").await;
        let bytes = std::fs::read(taken.expect("taken").0).expect("a file");
        let shows = |text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(shows("plain text of /registry/core/pods"));
        assert!(!shows("plain text of /registry/core/secrets"));
        assert!(!shows("plain text of /cluster/secrets"));
    }
}
