//! Turns at objects that many write at once: who has lost a race for one waits for those that lost before.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// One line of waiting for each of so many parts of all keys.
pub struct Turns(Vec<Mutex<()>>);

const LINES: usize = 256;
/// Who holds a turn may wait for somebody (a webhook) who needs one of the same line: no turn is waited for
/// longer. Without a turn a write is right as well, and only more likely to lose again.
const LONGEST: Duration = Duration::from_secs(1);

impl Default for Turns {
    fn default() -> Self {
        Self((0..LINES).map(|_| Mutex::new(())).collect())
    }
}

impl Turns {
    /// Returns when those that came before are done; none: they take too long.
    pub async fn at(&self, key: &str) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let line = usize::try_from(hasher.finish() % LINES as u64).unwrap_or_default();
        timeout(LONGEST, self.0[line].lock()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_comes_when_those_before_are_done() {
        let turns = Turns::default();
        let first = turns.at("a").await;
        let mut second = std::pin::pin!(turns.at("a"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
    }
}
