//! Images that nothing uses go when the engine's disk fills up, those used least recently first.
//!
//! An image that was made on the node stays: no registry could bring it back. So does one that was first seen a
//! moment ago, since its container may be about to be made. The engine itself refuses to remove what a container
//! of anybody is made of.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::{Runtime, RuntimeError, StoredImage};
use crate::api::events::{About, Recorder};
use sys::Shutdown;

/// How often the disk is looked at, as kubelets do.
const PERIOD: Duration = Duration::from_secs(5 * 60);
/// An image that was first seen so short a time ago is not removed.
const LEAST_AGE: SignedDuration = SignedDuration::from_mins(2);

/// How full the disk of images may be, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// From here on images are removed.
    pub high: u64,
    /// Until the disk is as full as that.
    pub low: u64,
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    capacity_bytes: u64,
    available_bytes: u64,
}

/// What was seen of images so far, by their ids.
#[derive(Debug, Default)]
struct History(BTreeMap<String, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Timestamp,
    /// When a container was last seen that is made of it.
    used: Option<Timestamp>,
}

/// Removes images when the disk is too full, and all that can go when `reclaim` says that the node runs out.
pub async fn run<R: Runtime>(
    runtime: Arc<R>,
    thresholds: Thresholds,
    reclaim: Arc<Notify>,
    (recorder, about): (Recorder, About),
    shutdown: Shutdown,
) {
    let mut history = History::default();
    let mut tick = tokio::time::interval(PERIOD);
    loop {
        let reclaims = tokio::select! {
            () = shutdown.requested() => return,
            _ = tick.tick() => false,
            () = reclaim.notified() => true,
        };
        let outcome = collect(&*runtime, thresholds, &mut history, reclaims).await;
        match outcome {
            Ok(None) => {}
            Ok(Some(short)) => recorder.warning(about.clone(), "FreeDiskSpaceFailed", short),
            Err(error) => tracing::warn!(%error, "unused images were not looked for"),
        }
    }
}

/// One round. Gives what to say where too little could be freed.
async fn collect<R: Runtime>(
    runtime: &R,
    thresholds: Thresholds,
    history: &mut History,
    reclaims: bool,
) -> Result<Option<String>, RuntimeError> {
    let images = runtime.images().await?;
    let now = Timestamp::now();
    history.note(&images, now);
    let wanted = match reclaims {
        true => u64::MAX,
        false => {
            let root = runtime.image_root().await?;
            let lost = |error: io::Error| RuntimeError::Unreachable(error.to_string());
            surplus(disk(&root).map_err(lost)?, thresholds)
        }
    };
    let mut freed = 0;
    for image in history.victims(&images, now) {
        if freed >= wanted {
            break;
        }
        match runtime.remove_image(image).await {
            Ok(()) => {
                tracing::info!(names = ?image.names, "an unused image was removed");
                freed += image.size_bytes;
            }
            Err(error) => tracing::debug!(%error, id = image.id, "an image stays"),
        }
    }
    let short = !reclaims && freed < wanted;
    Ok(short.then(|| {
        format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, \
             but only found {freed} bytes eligible to free."
        )
    }))
}

impl History {
    fn note(&mut self, images: &[StoredImage], now: Timestamp) {
        let there = |id: &String| images.iter().any(|image| image.id == *id);
        self.0.retain(|id, _| there(id));
        for image in images {
            let new = Seen {
                first: now,
                used: None,
            };
            let seen = self.0.entry(image.id.clone()).or_insert(new);
            if image.is_used {
                seen.used = Some(now);
            }
        }
    }

    /// What may go, in the order in which it goes.
    fn victims<'a>(&self, images: &'a [StoredImage], now: Timestamp) -> Vec<&'a StoredImage> {
        let old = |image: &&StoredImage| {
            let seen = self.0.get(&image.id);
            seen.is_some_and(|seen| now.duration_since(seen.first) >= LEAST_AGE)
        };
        let unused = images.iter().filter(|it| it.has_origin && !it.is_used);
        let mut victims: Vec<&StoredImage> = unused.filter(old).collect();
        victims.sort_by_key(|image| self.0.get(&image.id).map(|seen| (seen.used, seen.first)));
        victims
    }
}

/// How many bytes are to be freed.
fn surplus(disk: Disk, thresholds: Thresholds) -> u64 {
    let used = disk.capacity_bytes.saturating_sub(disk.available_bytes);
    let percent = |share: u64| disk.capacity_bytes / 100 * share;
    match disk.capacity_bytes > 0 && used >= percent(thresholds.high) {
        true => used.saturating_sub(percent(thresholds.low)),
        false => 0,
    }
}

fn disk(root: &Path) -> io::Result<Disk> {
    let found = nix::sys::statvfs::statvfs(root).map_err(io::Error::from)?;
    Ok(Disk {
        capacity_bytes: found.blocks() * found.fragment_size(),
        available_bytes: found.blocks_available() * found.fragment_size(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn image(id: &str, has_origin: bool, is_used: bool) -> StoredImage {
        StoredImage {
            id: id.to_owned(),
            names: Vec::new(),
            size_bytes: 10,
            has_origin,
            is_used,
        }
    }

    #[test]
    fn what_was_used_least_recently_goes_first_and_what_cannot_come_back_stays() {
        let mut history = History::default();
        let seen = |used: [bool; 3]| {
            let [a, b, c] = used;
            vec![
                image("a", true, a),
                image("b", true, b),
                image("c", true, c),
                image("made-here", false, false),
            ]
        };
        history.note(&seen([true, false, false]), at(0));
        let ids = |history: &History, images: &[StoredImage], second: i64| -> Vec<String> {
            let victims = history.victims(images, at(second));
            victims.into_iter().map(|it| it.id.clone()).collect()
        };
        assert_eq!(
            ids(&history, &seen([false; 3]), 60),
            [""; 0],
            "they are new"
        );
        history.note(&seen([false, false, true]), at(300));
        let unused = seen([false; 3]);
        assert_eq!(ids(&history, &unused, 300), ["b", "a", "c"]);
        let used = seen([true, false, false]);
        assert_eq!(ids(&history, &used, 300), ["b", "c"]);
        history.note(&[image("a", true, false)], at(400));
        history.note(&unused, at(500));
        assert_eq!(ids(&history, &unused, 501), ["a"], "the others came anew");
    }

    #[test]
    fn so_much_is_freed_that_the_disk_is_as_full_as_it_may_be() {
        let thresholds = Thresholds { high: 85, low: 80 };
        let full = |percent: u64| Disk {
            capacity_bytes: 1000,
            available_bytes: 1000 - 10 * percent,
        };
        for (percent, bytes) in [(0, 0), (84, 0), (85, 50), (90, 100), (100, 200)] {
            assert_eq!(surplus(full(percent), thresholds), bytes, "{percent}");
        }
        let none = Disk {
            capacity_bytes: 0,
            available_bytes: 0,
        };
        assert_eq!(surplus(none, thresholds), 0);
    }

    #[tokio::test]
    async fn a_node_that_runs_out_loses_all_that_nothing_uses() {
        let runtime = crate::runtime::fake::FakeRuntime::default();
        for (name, origin) in [("pulled:1", true), ("made:1", false)] {
            runtime.add_image(name);
            runtime.set_origin(name, origin);
        }
        let mut history = History::default();
        let images = runtime.images().await.expect("listed");
        history.note(&images, Timestamp::now() - LEAST_AGE);
        let thresholds = Thresholds {
            high: 101,
            low: 100,
        };
        let calm = collect(&runtime, thresholds, &mut history, false).await;
        assert_eq!(calm.expect("listed"), None);
        assert_eq!(runtime.images().await.expect("listed").len(), 2);
        let reclaimed = collect(&runtime, thresholds, &mut history, true).await;
        assert_eq!(reclaimed.expect("listed"), None);
        let left = runtime.images().await.expect("listed");
        assert_eq!(left.len(), 1);
        assert!(!left[0].has_origin);
    }
}
