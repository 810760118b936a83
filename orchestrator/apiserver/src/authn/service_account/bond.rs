//! What has to be there as long as a token is believed: its ServiceAccount, and what it is bound to.
//! Looked up in the cache with every request, since all of it may go before the token's time is over.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::claims::{Claims, Kubernetes, LegacyClaims, Named};
use super::{Digested, digest};
use crate::{State, bootstrap};

/// Something that goes is still good for so long after its time: clocks differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The objects that a token stands and falls with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    pub namespace: String,
    pub account: Named,
    pub to: To,
}

/// What a token is bound to besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Nothing,
    /// A pod, and the node that it was on.
    Pod(Named, Option<Named>),
    Secret(Named),
    Node(Named),
    /// The Secret in which the token stands: another one there, and it is worth nothing.
    Copy {
        secret: String,
        token: Digested,
    },
}

/// The part of an object that is looked at.
#[derive(Deserialize)]
pub struct Found {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: Spec,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(default)]
    pub uid: String,
    deletion_timestamp: Option<Timestamp>,
}

/// Of a pod.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub node_name: String,
    pub service_account_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    token: String,
}

impl Bond {
    pub fn of(claims: &Claims) -> Self {
        let Kubernetes {
            namespace,
            node,
            pod,
            secret,
            serviceaccount,
            ..
        } = claims.kubernetes.clone();
        let to = match (pod, secret, node) {
            (Some(pod), _, node) => To::Pod(pod, node),
            (None, Some(secret), _) => To::Secret(secret),
            (None, None, Some(node)) => To::Node(node),
            (None, None, None) => To::Nothing,
        };
        Self {
            namespace,
            account: serviceaccount,
            to,
        }
    }

    /// Of a token in a Secret.
    pub fn of_copy(claims: &LegacyClaims, token: Digested) -> Self {
        Self {
            namespace: claims.namespace.clone(),
            account: Named {
                name: claims.name.clone(),
                uid: claims.uid.clone(),
            },
            to: To::Copy {
                secret: claims.secret.clone(),
                token,
            },
        }
    }

    /// Whether all of it is there, each the one that the token names. The error is for the client.
    pub(crate) fn holds(&self, state: &State, now: Timestamp) -> Result<(), String> {
        let (namespace, account) = (&self.namespace, &self.account);
        let found = find(state, "serviceaccounts", namespace, &account.name)
            .ok_or_else(|| format!("serviceaccounts \"{}\" not found", account.name))?;
        if found.is_gone(now) {
            return Err(format!(
                "service account {namespace}/{} has been deleted",
                account.name
            ));
        }
        if found.metadata.uid != account.uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({})",
                found.metadata.uid, account.uid
            ));
        }
        let is_there = |plural: &str, namespace: &str, named: &Named| {
            let found = find(state, plural, namespace, &named.name);
            found.is_some_and(|found| found.metadata.uid == named.uid && !found.is_gone(now))
        };
        let holds = match &self.to {
            To::Nothing => true,
            To::Pod(pod, _) => is_there("pods", namespace, pod),
            To::Secret(secret) => is_there("secrets", namespace, secret),
            To::Node(node) => is_there("nodes", "", node),
            To::Copy { secret, token } => find(state, "secrets", namespace, secret)
                .filter(|found| found.metadata.deletion_timestamp.is_none())
                .is_some_and(|found| found.holds(token)),
        };
        match holds {
            true => Ok(()),
            false => Err("service account token has been invalidated".to_owned()),
        }
    }
}

impl Found {
    /// It was deleted, and its grace is over.
    fn is_gone(&self, now: Timestamp) -> bool {
        let deleted = self.metadata.deletion_timestamp;
        deleted.is_some_and(|deleted| deleted < now - LEEWAY)
    }

    /// A Secret with this token in it.
    fn holds(&self, token: &Digested) -> bool {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        let kept = engine.decode(&self.data.token).unwrap_or_default();
        digest(&kept).ct_eq(token).into()
    }
}

/// An object of the core group, as it is now.
pub fn find(state: &State, plural: &str, namespace: &str, name: &str) -> Option<Found> {
    let resource = bootstrap::find("", plural).ok()?;
    let found = state.objects.cache.get(resource, namespace, name)?;
    let read = serde_json::from_slice(&found.bytes());
    read.inspect_err(|error| tracing::error!(key = &*found.key, %error, "it does not read"))
        .ok()
}
