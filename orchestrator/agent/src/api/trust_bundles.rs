//! Certificates of authorities for projected volumes (KEP-3257): which ClusterTrustBundles a pod asks for, and what
//! is in them now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use futures::StreamExt;

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use api::kinds::certificates::trust_bundle::merged;
use api::selector::LabelSelector;

/// Bundles that the server hands out at once.
const PAGE: u32 = 20;
/// What one file may take of the agent's memory. One bundle has at most 1 MiB.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What a volume asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BundleWish {
    Named(String),
    /// All of a signer whose labels fit. The selector is kept as the JSON of the pod.
    OfSigner {
        signer: String,
        selector: String,
    },
}

/// The file of each wish (PEM): none where no bundle fits, or why it is not known.
pub type Bundles = BTreeMap<BundleWish, Result<Option<Arc<str>>, String>>;

/// Says that some bundle has changed: one watch for all pods of the node, from the first that asks for one on. What
/// has changed is read again by whoever has it.
#[derive(Default)]
pub struct BundleNews {
    state: Arc<News>,
    watch: OnceLock<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct News {
    changes: AtomicU64,
    listeners: Mutex<Vec<Weak<Notify>>>,
}

impl BundleNews {
    /// Wakes the listener at each change, for as long as it lives.
    pub fn follow(&self, client: &Client, listener: &Arc<Notify>) {
        let listeners = self.state.listeners.lock();
        let mut listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::downgrade(listener));
        let watching = || follow_all(client.clone(), self.state.clone());
        self.watch
            .get_or_init(|| AbortOnDropHandle::new(tokio::spawn(watching())));
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        self.state.changes.load(Ordering::Acquire)
    }
}

impl News {
    fn tell(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let listeners = self.listeners.lock();
        let mut listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| match listener.upgrade() {
            Some(listener) => {
                listener.notify_one();
                true
            }
            None => false,
        });
    }
}

async fn follow_all(client: Client, news: Arc<News>) {
    let api: Api<PartialObjectMeta<ClusterTrustBundle>> = Api::all(client);
    let events = watcher(api, watcher::Config::default());
    let mut events = events.default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            // After a list that is complete, something may have been missed.
            Ok(_) => news.tell(),
            Err(error) => tracing::debug!(%error, "the watch of trust bundles is interrupted"),
        }
    }
}

impl BundleWish {
    pub fn of(projection: &ClusterTrustBundleProjection) -> Self {
        match &projection.name {
            Some(name) => Self::Named(name.clone()),
            None => Self::OfSigner {
                signer: projection.signer_name.clone().unwrap_or_default(),
                selector: serde_json::to_string(&projection.label_selector).unwrap_or_default(),
            },
        }
    }
}

/// What the volumes of a pod ask for.
pub fn wished(pod: &Pod) -> BTreeSet<BundleWish> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let projected = volumes.into_iter().flatten();
    let projected = projected.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
    let bundles = projected
        .flatten()
        .filter_map(|source| source.cluster_trust_bundle.as_ref());
    bundles.map(BundleWish::of).collect()
}

/// Asks the API server; the error is for an event of the pod.
pub async fn read(client: &Client, wish: &BundleWish) -> Result<Option<Arc<str>>, String> {
    let api: Api<ClusterTrustBundle> = Api::all(client.clone());
    let found = match wish {
        BundleWish::Named(name) => {
            let found = api.get_opt(name).await;
            found
                .map_err(|error| format!("while getting ClusterTrustBundle: {error}"))?
                .map(|bundle| vec![bundle.spec.trust_bundle])
        }
        BundleWish::OfSigner { signer, selector } => {
            let selector: Option<meta::LabelSelector> =
                serde_json::from_str(selector).map_err(|error| error.to_string())?;
            let selector = LabelSelector::from_object(selector.as_ref());
            let selector = selector.map_err(|error| error.to_string())?;
            of_signer(&api, signer, &selector).await?
        }
    };
    Ok(found.map(|all| merged(all.iter().map(String::as_str)).into()))
}

async fn of_signer(
    api: &Api<ClusterTrustBundle>,
    signer: &str,
    selector: &LabelSelector,
) -> Result<Option<Vec<String>>, String> {
    let mut page = ListParams::default()
        .fields(&format!("spec.signerName={signer}"))
        .limit(PAGE);
    let (mut all, mut bytes) = (Vec::new(), 0);
    loop {
        let list = api.list(&page).await;
        let list = list.map_err(|error| format!("while listing ClusterTrustBundles: {error}"))?;
        let labels =
            |bundle: &ClusterTrustBundle| bundle.metadata.labels.clone().unwrap_or_default();
        let fitting = list
            .items
            .into_iter()
            .filter(|it| selector.matches(&labels(it)));
        for bundle in fitting {
            bytes += bundle.spec.trust_bundle.len();
            all.push(bundle.spec.trust_bundle);
        }
        if bytes > MAX_BYTES {
            return Err(format!(
                "the bundles of {signer} have more than {MAX_BYTES} bytes"
            ));
        }
        match list.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok((!all.is_empty()).then_some(all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_wakes_who_still_listens() {
        let news = BundleNews::default();
        let (stays, goes) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, kube::Error>>()
        });
        let client = Client::new(service, "default");
        for listener in [&stays, &goes] {
            news.follow(&client, listener);
        }
        drop(goes);
        news.state.tell();
        stays.notified().await;
        let left = news.state.listeners.lock().expect("whole").len();
        assert_eq!((news.changes(), left), (1, 1));
    }
}
