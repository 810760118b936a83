//! Secrets of type `kubernetes.io/service-account-token`: filled with a token without an end, the
//! cluster's certificate and the namespace; removed when their ServiceAccount is gone.
//!
//! ```text
//!  Secret written ────────────┐                  ┌─ no such ServiceAccount, or another uid ─▶ removed
//!  ServiceAccount deleted ────┴─▶ its Secrets ───┤
//!                                                └─ something is missing ─▶ written
//! ```
//!
//! A task of the API server and no controller, so that no key has to leave it.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bond::find;
use super::claims::Named;
use crate::cache::{Change, Watch};
use crate::objects::{Current, WriteError};
use crate::write::Writer;
use crate::{State, bootstrap};
use api::{ApiError, Resource, meta};

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Namespace and name.
type Key = (String, String);

/// Looks after them until the server stops.
pub fn start(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("service account Secrets", move || {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move { shutdown.unless(follow(&state)).await.unwrap_or(Ok(())) }
    });
}

async fn follow(state: &State) -> Result<(), ApiError> {
    let (secrets, accounts) = (
        bootstrap::find("", "secrets")?,
        bootstrap::find("", "serviceaccounts")?,
    );
    loop {
        let from = state.objects.cache.revision();
        let (Some(mut of_secrets), Some(mut of_accounts)) = (
            watch(state, secrets, from).await,
            watch(state, accounts, from).await,
        ) else {
            continue;
        };
        let mut due = all(state, secrets, None);
        loop {
            for key in std::mem::take(&mut due) {
                put_right(state, secrets, &key).await?;
            }
            tokio::select! {
                event = of_secrets.next() => match event {
                    Ok(event) if event.change == Change::Deleted => {}
                    Ok(event) => due.extend(key_of(&event.object)),
                    Err(_) => break,
                },
                event = of_accounts.next() => match event {
                    Ok(event) if event.change == Change::Deleted => {
                        due = all(state, secrets, Some(event.object.namespace()));
                    }
                    Ok(_) => {}
                    Err(_) => break,
                },
            }
        }
    }
}

async fn watch(state: &State, resource: &Arc<Resource>, from: store::Revision) -> Option<Watch> {
    let watch = state.objects.cache.watch(resource, None, None, from).await;
    watch.ok()
}

/// The Secrets of this type.
fn all(state: &State, secrets: &Resource, namespace: Option<&str>) -> BTreeSet<Key> {
    let (_, all) = state.objects.cache.list(secrets, namespace);
    all.iter().filter_map(|secret| key_of(secret)).collect()
}

fn key_of(secret: &crate::cache::Cached) -> Option<Key> {
    let is_one = secret.fields().get("type").is_some_and(|of| of == TYPE);
    is_one.then(|| (secret.namespace().to_owned(), secret.name().to_owned()))
}

async fn put_right(
    state: &State,
    secrets: &'static Arc<Resource>,
    (namespace, name): &Key,
) -> Result<(), ApiError> {
    let Ok(current) = state.objects.current(secrets, namespace, name) else {
        return Ok(());
    };
    let writer = Writer::server(state, secrets);
    let done = match wanted(state, &current)? {
        Wanted::Same => return Ok(()),
        Wanted::Gone => writer.remove(&current).await,
        Wanted::Changed(new) => writer.update(&current, new).await.map(drop),
    };
    match done {
        // The next event is about that.
        Ok(()) | Err(WriteError::Changed) => Ok(()),
        // One Secret that cannot be written does not stop the others.
        Err(WriteError::Failed(error)) => {
            tracing::warn!(%error, namespace, name, "a token's Secret was not put right");
            Ok(())
        }
    }
}

/// What is to become of a Secret.
enum Wanted {
    Same,
    Changed(Value),
    Gone,
}

fn wanted(state: &State, current: &Current) -> Result<Wanted, ApiError> {
    let secret = &current.value;
    let annotation = |key: &str| {
        let annotations = &secret["metadata"]["annotations"];
        annotations[key].as_str().unwrap_or_default()
    };
    let (namespace, name) = (meta::namespace(secret), annotation(NAME));
    if name.is_empty() || meta::is_terminating(secret) {
        return Ok(Wanted::Same);
    }
    let account = find(state, "serviceaccounts", namespace, name);
    let uid = annotation(UID);
    let account = account.filter(|account| uid.is_empty() || account.metadata.uid == uid);
    let Some(account) = account else {
        // What a finalizer keeps is worth nothing without its ServiceAccount.
        return Ok(match meta::finalizers(secret).is_empty() {
            true => Wanted::Gone,
            false => Wanted::Same,
        });
    };
    let mut new = secret.clone();
    new["metadata"]["annotations"][UID] = account.metadata.uid.as_str().into();
    let mut put = |key: &str, text: &str| new["data"][key] = STANDARD.encode(text).into();
    if let Some(pki) = &state.pki {
        put("ca.crt", pki.authority.certificate());
    }
    if secret["data"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        put("namespace", namespace);
    }
    if secret["data"]["token"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        let account = Named {
            name: name.to_owned(),
            uid: account.metadata.uid,
        };
        let accounts = &state.authentication.accounts;
        put(
            "token",
            &accounts.sign_legacy(namespace, &account, meta::name(secret))?,
        );
    }
    Ok(match new == *secret {
        true => Wanted::Same,
        false => Wanted::Changed(new),
    })
}
