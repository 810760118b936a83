//! Certificates of authorities for projected volumes (KEP-3257): which ClusterTrustBundles a pod asks for, and what
//! is in them now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::api::ListParams;
use kube::{Api, Client};

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
