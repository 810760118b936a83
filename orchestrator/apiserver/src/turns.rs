//! Turns at objects that many write at once: who has lost a race for one waits for those that lost before.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// One line of waiting for each of so many parts of all keys.
pub struct Turns {
    lines: Vec<Mutex<()>>,
    /// Has a secret, so that nobody can choose names of one line.
    hashes: RandomState,
}

const LINES: usize = 256;
/// Who holds a turn may wait for somebody (a webhook) who needs one of the same line: no turn is waited for
/// longer. Without a turn a write is right as well, and only more likely to lose again.
const LONGEST: Duration = Duration::from_secs(1);

impl Default for Turns {
    fn default() -> Self {
        Self {
            lines: (0..LINES).map(|_| Mutex::new(())).collect(),
            hashes: RandomState::new(),
        }
    }
}

impl Turns {
    /// Returns when those that came before are done; none: they take too long.
    pub async fn at(&self, key: &str) -> Option<MutexGuard<'_, ()>> {
        timeout(LONGEST, self.lines[self.line(key)].lock())
            .await
            .ok()
    }

    fn line(&self, key: &str) -> usize {
        let hash = self.hashes.hash_one(key);
        usize::try_from(hash % LINES as u64).unwrap_or_default()
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

    #[test]
    fn names_that_share_a_line_in_one_server_do_not_in_another() {
        let (known, attacked) = (Turns::default(), Turns::default());
        let names: Vec<String> = (0..100_000).map(|n| format!("/registry/n-{n}")).collect();
        let chosen = names.iter().filter(|name| known.line(name) == 0).take(100);
        let mut lines: Vec<usize> = chosen.map(|name| attacked.line(name)).collect();
        lines.sort_unstable();
        lines.dedup();
        // A hundred names that are spread by chance take some 83 of 256 lines.
        assert!(lines.len() > 50, "{}", lines.len());
    }
}
