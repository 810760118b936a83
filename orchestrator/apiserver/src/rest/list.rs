//! GET of a collection: from the cache, or page by page from the store at one revision.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Answer, Call};
use crate::cache::{Cached, prefix};
use crate::objects::{Objects, store_error};
use crate::reply;
use crate::request::Query;
use crate::wire::{self, ListMeta};
use api::selector::{FieldSelector, LabelSelector};
use api::{ApiError, Resource, Served, meta};
use store::{Page, Range, Revision};

/// How many keys one read of the store takes when a selector drops some of them.
const PAGE: usize = 500;
/// How long a client that saw a later revision is waited for.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Label and field selector of a list or watch.
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

/// What resourceVersion and resourceVersionMatch ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The newest.
    Newest,
    /// What is at hand (`0`).
    Any,
    /// At least this one.
    NotOlderThan(Revision),
    /// As it was then.
    Exact(Revision),
}

/// The place between two pages.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: Revision,
    start: String,
}

impl Selection {
    /// Reads both selectors and refuses fields that the kind does not offer in this version.
    pub fn of(served: &Served, query: &Query) -> Result<Self, ApiError> {
        let resource = &served.resource;
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())?;
        fields.check(&resource.kind, &resource.selectable_field_names())?;
        // From here on they are those of what is stored.
        let fields = match served.is_same() {
            true => fields,
            false => fields.renamed(|name| resource.stored_field(name, &served.storage)),
        };
        Ok(Self { labels, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn selects(&self, object: &Cached) -> bool {
        (self.labels.is_everything() || self.labels.matches(object.labels()))
            && (self.fields.is_everything() || self.fields.matches(object.fields()))
    }

    pub fn selects_bytes(&self, resource: &Resource, bytes: &Bytes) -> Result<bool, ApiError> {
        if self.is_everything() {
            return Ok(true);
        }
        let value = reply::parse(bytes)?;
        let fields = resource.selectable_fields(&value);
        Ok(self.labels.matches(&meta::labels(&value)) && self.fields.matches(&fields))
    }
}

impl Freshness {
    /// Reads the two query parameters.
    pub fn of(query: &Query) -> Result<Self, ApiError> {
        let version = revision(query)?;
        let bad = |why: &str| Err(ApiError::BadRequest(format!("resourceVersionMatch: {why}")));
        match (
            query.get("resourceVersionMatch").unwrap_or_default(),
            version,
        ) {
            ("", None) => Ok(Self::Newest),
            ("" | "NotOlderThan", Some(0)) => Ok(Self::Any),
            ("" | "NotOlderThan", Some(revision)) => Ok(Self::NotOlderThan(revision)),
            ("Exact", Some(0)) => bad(
                "Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            ),
            ("Exact", Some(revision)) => Ok(Self::Exact(revision)),
            ("NotOlderThan" | "Exact", None) => bad(
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            _ => bad("Unsupported value: supported values: \"Exact\", \"NotOlderThan\""),
        }
    }
}

/// The query's resourceVersion.
pub fn revision(query: &Query) -> Result<Option<Revision>, ApiError> {
    let text = query.get("resourceVersion").unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::BadRequest(format!(
            "resourceVersion: Invalid value: {text:?}: not a number"
        ))
    })
}

/// A whole list, or one page of it.
pub async fn list(call: &Call) -> Answer {
    let selection = Selection::of(&call.target.served, &call.query)?;
    let limit: usize = call.query.number("limit")?.unwrap_or_default();
    let freshness = Freshness::of(&call.query)?;
    let token = match call.query.get("continue").filter(|token| !token.is_empty()) {
        Some(_) if !matches!(freshness, Freshness::Newest | Freshness::Any) => {
            return Err(ApiError::BadRequest(
                "specifying resource version is not allowed when using continue".to_owned(),
            ));
        }
        token => token.map(Token::decode).transpose()?,
    };
    let (page, items) = match (token, freshness) {
        (Some(token), _) => {
            pages(call, &selection, limit, Some(token.rv), Some(token.start)).await?
        }
        (None, Freshness::Exact(at)) => pages(call, &selection, limit, Some(at), None).await?,
        (None, Freshness::Newest) if limit > 0 => match whole(call, &selection, limit) {
            Some(page) => page,
            None => pages(call, &selection, limit, None, None).await?,
        },
        (None, Freshness::NotOlderThan(revision)) => {
            catch_up(&call.state.objects, revision).await?;
            everything(call, &selection)
        }
        (None, Freshness::Any | Freshness::Newest) => everything(call, &selection),
    };
    call.show_all(&page, items).await
}

/// Waits until the cache shows a revision that some client saw already.
pub async fn catch_up(objects: &Objects, revision: Revision) -> Result<(), ApiError> {
    let newest = objects.store.revision();
    if revision <= newest {
        objects.cache.wait_for(revision).await;
        return Ok(());
    }
    let caught_up = tokio::time::timeout(CATCH_UP, objects.cache.wait_for(revision)).await;
    caught_up.map_err(|_| {
        ApiError::Timeout(format!(
            "Too large resource version: {revision}, current: {newest}"
        ))
    })
}

fn everything(call: &Call, selection: &Selection) -> (ListMeta, Vec<Bytes>) {
    whole(call, selection, usize::MAX).unwrap_or_default()
}

/// What is selected, out of the cache; None if there are more than `limit` objects to select from.
/// Every answered write is in the cache, so this is as new as the store.
fn whole(call: &Call, selection: &Selection, limit: usize) -> Option<(ListMeta, Vec<Bytes>)> {
    let namespace = call.target.namespace.as_deref();
    let (revision, all) = call.state.objects.cache.list(call.storage(), namespace);
    if all.len() > limit {
        return None;
    }
    let selected = all.iter().filter(|object| selection.selects(object));
    let sight = call.sight();
    let items = selected.map(|object| sight.bytes(object)).collect();
    let page = ListMeta {
        revision,
        ..ListMeta::default()
    };
    Some((page, items))
}

/// At most `limit` objects (0 = all) behind `after`, as of one revision.
async fn pages(
    call: &Call,
    selection: &Selection,
    limit: usize,
    mut at: Option<Revision>,
    mut after: Option<String>,
) -> Result<(ListMeta, Vec<Bytes>), ApiError> {
    let resource = call.storage();
    let prefix = prefix(resource, call.target.namespace.as_deref());
    let sight = call.sight();
    let mut items = Vec::new();
    loop {
        let wanted = match limit {
            0 => 0,
            _ if selection.is_everything() => limit,
            _ => PAGE,
        };
        let range = Range {
            prefix: &prefix,
            after: after.as_deref(),
            limit: wanted,
            at,
        };
        let page = call.state.objects.store.range(range).await;
        let Page {
            entries,
            revision,
            remaining,
        } = page.map_err(|error| store_error(&error))?;
        at = Some(revision);
        let count = entries.len();
        for (index, entry) in entries.into_iter().enumerate() {
            let bytes = wire::with_revision(&resource.read(&entry.value), entry.modified);
            if selection.selects_bytes(resource, &bytes)? {
                let name = entry.key.rsplit('/').next().unwrap_or_default();
                items.push(sight.past(name, bytes, entry.modified));
            }
            let left = count - index - 1 + remaining;
            if limit > 0 && items.len() == limit && left > 0 {
                let start = entry.key.to_string();
                let next = Token {
                    v: "meta.k8s.io/v1".to_owned(),
                    rv: revision,
                    start,
                };
                let known = selection.is_everything().then_some(left as u64);
                let page = ListMeta {
                    revision,
                    next: Some(next.encode()),
                    remaining: known,
                };
                return Ok((page, items));
            }
            after = Some(entry.key.to_string());
        }
        if remaining == 0 {
            return Ok((
                ListMeta {
                    revision,
                    ..ListMeta::default()
                },
                items,
            ));
        }
    }
}

impl Token {
    fn encode(&self) -> String {
        // Strings and a number always serialise.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| ApiError::BadRequest("continue key is not valid".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    #[test]
    fn freshness_follows_the_two_parameters() {
        let read = |query: &'static str| Freshness::of(&Query::of(&Uri::from_static(query)));
        assert_eq!(read("/x"), Ok(Freshness::Newest));
        assert_eq!(read("/x?resourceVersion=0"), Ok(Freshness::Any));
        assert_eq!(read("/x?resourceVersion=7"), Ok(Freshness::NotOlderThan(7)));
        assert_eq!(
            read("/x?resourceVersion=7&resourceVersionMatch=Exact"),
            Ok(Freshness::Exact(7))
        );
        assert!(read("/x?resourceVersionMatch=Exact").is_err());
        assert!(read("/x?resourceVersion=abc").is_err());
    }

    #[test]
    fn a_token_comes_back_as_it_went_and_nonsense_is_refused() {
        let token = Token {
            v: "meta.k8s.io/v1".into(),
            rv: 5,
            start: "/registry/x/y".into(),
        };
        let back = Token::decode(&token.encode()).expect("a token");
        assert_eq!((back.rv, back.start.as_str()), (5, "/registry/x/y"));
        assert!(Token::decode("???").is_err());
    }
}
