//! ClusterTrustBundles that the pod's projected volumes ask for: read before the pod starts, and again while it runs.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Worker;
use crate::api::trust_bundles::{self, Bundles};
use crate::network::wiring::PodNetwork;
use crate::runtime::Runtime;

/// How long the server may take for all that a pod asks for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How old what a running pod has may become. A kubelet looks at its pods as often.
pub(super) const REFRESH: Duration = Duration::from_secs(60);
/// The same for a pod that waits for its volumes.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// The bundles that a pod has.
#[derive(Default)]
pub(super) struct Held {
    bundles: Bundles,
    read_at: Option<Instant>,
    /// How often they have changed.
    pub(super) changes: u64,
}

impl Held {
    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        let read_at = self.read_at.filter(|_| !self.bundles.is_empty());
        read_at.map(|at| at + REFRESH)
    }

    /// What was known before stays while the server does not answer.
    fn take(&mut self, mut read: Bundles) {
        for (wish, found) in &mut read {
            if found.is_err()
                && let Some(Ok(known)) = self.bundles.get(wish)
            {
                *found = Ok(known.clone());
            }
        }
        self.changes += u64::from(read != self.bundles);
        self.bundles = read;
        self.read_at = Some(Instant::now());
    }
}

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// What the pod's volumes ask for, as it was within `age`.
    pub(super) async fn trust_bundles(&mut self, age: Duration) -> Bundles {
        let wishes = trust_bundles::wished(&self.update.pod);
        let held = &mut self.trust_bundles;
        if !wishes.is_empty() && held.read_at.is_none_or(|at| at.elapsed() >= age) {
            let deadline = Instant::now() + REQUEST_TIMEOUT;
            let mut read = Bundles::new();
            for wish in wishes {
                let asking = trust_bundles::read(&self.node.client, &wish);
                let found = timeout_at(deadline, asking).await;
                let late = |_| Err("the server did not answer in time".to_owned());
                read.insert(wish, found.unwrap_or_else(late));
            }
            held.take(read);
        }
        held.bundles.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::trust_bundles::BundleWish;

    #[test]
    fn bundles_stay_while_the_server_does_not_answer_and_go_when_it_says_so() {
        let mut held = Held::default();
        let wish = BundleWish::Named("a".to_owned());
        let mut take = |found: Result<Option<&str>, &str>| {
            let found = found.map(|it| it.map(Into::into)).map_err(str::to_owned);
            held.take(Bundles::from([(wish.clone(), found)]));
            (held.bundles[&wish].clone(), held.changes)
        };
        assert_eq!(take(Err("away")), (Err("away".to_owned()), 1));
        assert_eq!(take(Ok(Some("x"))), (Ok(Some("x".into())), 2));
        assert_eq!(take(Err("away")), (Ok(Some("x".into())), 2));
        assert_eq!(take(Ok(None)), (Ok(None), 3));
    }
}
