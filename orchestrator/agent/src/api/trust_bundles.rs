//! Certificates of authorities for projected volumes (KEP-3257): which ClusterTrustBundles a pod asks for, and the
//! file that they make together.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::sources::{Contents, revision};
use api::kinds::certificates::trust_bundle;
use api::selector::LabelSelector;

/// The one entry of a bundle's contents, and of those of several together (PEM).
pub const ENTRY: &str = "";

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

    /// The labels of bundles that fit. What does not read, which the server refuses, fits none.
    pub fn selector(&self) -> LabelSelector {
        let read = |text: &str| {
            let selector: Option<meta::LabelSelector> = serde_json::from_str(text).ok()?;
            LabelSelector::from_object(selector.as_ref()).ok()
        };
        match self {
            Self::Named(_) => LabelSelector::default(),
            Self::OfSigner { selector, .. } => {
                read(selector).unwrap_or_else(LabelSelector::nothing)
            }
        }
    }
}

impl From<ClusterTrustBundle> for Contents {
    fn from(bundle: ClusterTrustBundle) -> Contents {
        Contents {
            entries: entry(bundle.spec.trust_bundle),
            revision: revision(&bundle.metadata),
            ..Contents::default()
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

/// The contents of several bundles as those of one.
pub fn merged<'a>(bundles: impl Iterator<Item = &'a Contents>) -> Contents {
    let texts = bundles.filter_map(|it| std::str::from_utf8(it.entries.get(ENTRY)?).ok());
    Contents {
        entries: entry(trust_bundle::merged(texts)),
        ..Contents::default()
    }
}

/// The file; or why there is none.
pub fn text(contents: &Contents) -> Result<&[u8], &str> {
    let why = contents.problem.as_deref().unwrap_or_default();
    let text = contents.entries.get(ENTRY).map(Vec::as_slice);
    text.ok_or(why)
}

fn entry(text: String) -> BTreeMap<String, Vec<u8>> {
    [(ENTRY.to_owned(), text.into_bytes())].into()
}
