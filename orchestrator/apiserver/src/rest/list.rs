//! GET of a collection, whole or page by page: from a snapshot of the cache. Only the state of a
//! revision that no snapshot was kept of is read from the store.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Answer, Call};
use crate::cache::{Bucket, Cached, Ordered, object_key, prefix};
use crate::objects::{Objects, store_error};
use crate::request::Query;
use crate::wire::ListMeta;
use crate::{State, reply, versions};
use api::selector::{FieldSelector, LabelSelector};
use api::{ApiError, Conversion, Resource, Served};
use store::{Range, Revision, StoreError};

/// How long a client that saw a later revision is waited for.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Label and field selector of a list or watch.
pub struct Selection {
    pub labels: LabelSelector,
    /// Fields of what is stored.
    pub fields: FieldSelector,
    /// Fields that only the client's version has, or has in another sense: objects are converted before they
    /// are judged by these.
    pub shown: FieldSelector,
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
pub struct Token {
    v: String,
    /// The revision that all pages show; `LATEST` goes on with the present state, after a token has
    /// expired.
    rv: i64,
    /// The key of the last object of the page before.
    start: String,
}

/// Kubernetes' word for the present state in a token.
const LATEST: i64 = -1;

/// What a list shows.
type Selected = (ListMeta, Vec<Arc<Cached>>);

impl Selection {
    /// Reads both selectors and refuses fields that the kind does not offer in this version.
    pub fn of(served: &Served, query: &Query) -> Result<Self, ApiError> {
        let resource = &served.resource;
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())?;
        fields.check(&resource.kind, &resource.selectable_field_names())?;
        let stored = |name: &str| resource.stored_field(name, &served.storage);
        let is_webhook = matches!(served.conversion, Conversion::Webhook(_));
        let (fields, shown) = fields.split(|name| {
            let is_alike = !is_webhook && stored(name).is_some();
            served.is_same() || is_alike || name.starts_with("metadata.")
        });
        let fields = match served.is_same() {
            true => fields,
            false => fields.renamed(stored),
        };
        Ok(Self {
            labels,
            fields,
            shown,
        })
    }

    /// Of objects in the version in which they are stored.
    pub fn stored(labels: LabelSelector, fields: FieldSelector) -> Self {
        Self {
            labels,
            fields,
            shown: FieldSelector::default(),
        }
    }

    pub fn is_everything(&self) -> bool {
        self.is_stored() && self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether what is stored tells all that it asks for.
    pub fn is_stored(&self) -> bool {
        self.shown.is_everything()
    }

    /// Whether it selects an object, as far as what is stored tells.
    pub fn selects(&self, object: &Cached) -> bool {
        object.is_selected(&self.labels, &self.fields)
    }

    /// Whether it selects each of these objects. A webhook is asked once for all of them.
    pub async fn judge(
        &self,
        state: &State,
        served: &Served,
        objects: &[Arc<Cached>],
    ) -> Result<Vec<bool>, ApiError> {
        let mut judged: Vec<bool> = objects.iter().map(|object| self.selects(object)).collect();
        if self.is_stored() {
            return Ok(judged);
        }
        let places: Vec<usize> = (0..objects.len()).filter(|place| judged[*place]).collect();
        let stored = places.iter().map(|place| objects[*place].bytes());
        let shown = versions::all_shown(state, served, stored.collect()).await?;
        for (place, object) in places.into_iter().zip(&shown) {
            let fields = served.resource.selectable_fields(&reply::parse(object)?);
            judged[place] = self.shown.matches(&fields);
        }
        Ok(judged)
    }

    /// Those of the objects that it selects.
    pub async fn among(
        &self,
        call: &Call,
        all: Vec<Arc<Cached>>,
    ) -> Result<Vec<Arc<Cached>>, ApiError> {
        let judged = self.judge(&call.state, &call.target.served, &all).await?;
        let all = all.into_iter().zip(judged);
        Ok(all
            .filter_map(|(object, selected)| selected.then_some(object))
            .collect())
    }

    /// Where all that it selects is found by an index: one object by its name, or what has a value in an
    /// indexed field.
    pub fn bucket(&self, resource: &Resource, namespace: Option<&str>) -> Option<Bucket> {
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let is_named = namespace.is_some() || !resource.namespaced();
        if let Some(name) = self.fields.required("metadata.name").filter(|_| is_named) {
            let key = object_key(resource, namespace.unwrap_or_default(), name);
            return Some(Bucket::Object(key.into()));
        }
        let mut indexes = resource.indexes.iter().enumerate();
        indexes.find_map(|(index, field)| {
            let value = self.fields.required(field)?;
            Some(Bucket::Field(index, value.into()))
        })
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
    let list = List {
        call,
        selection,
        limit: if limit == 0 { usize::MAX } else { limit },
    };
    let (page, objects) = match (token, freshness) {
        (Some(token), _) => list.page_behind(token).await?,
        (None, Freshness::Exact(at)) => list.exact(at).await?,
        (None, Freshness::NotOlderThan(revision)) => {
            catch_up(&call.state.objects, revision).await?;
            list.whole().await?
        }
        // What is at hand may be as old as the cache likes: it is never older than the store.
        (None, Freshness::Any) => list.whole().await?,
        (None, Freshness::Newest) => list.newest().await?,
    };
    let sight = call.sight();
    call.show_all(&page, objects, move |object: &Arc<Cached>| {
        sight.shown(object)
    })
    .await
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

/// One request for a list.
struct List<'a> {
    call: &'a Call,
    selection: Selection,
    limit: usize,
}

impl List<'_> {
    /// All that is there now. Every answered write is in the cache, so this is as new as the store.
    async fn whole(&self) -> Result<Selected, ApiError> {
        if let Some(selected) = self.indexed().await? {
            return Ok(selected);
        }
        let (revision, objects) = self.call.state.objects.cache.snapshot(self.call.storage());
        self.page(usize::MAX, revision, &objects, None).await
    }

    /// The first page of what is there now.
    async fn newest(&self) -> Result<Selected, ApiError> {
        if let Some(selected) = self.indexed().await? {
            return Ok(selected);
        }
        let (cache, resource) = (&self.call.state.objects.cache, self.call.storage());
        let (revision, objects) = cache.snapshot(resource);
        let selected = self.page(self.limit, revision, &objects, None).await?;
        if selected.0.next.is_some() {
            cache.keep(resource, revision, &objects);
        }
        Ok(selected)
    }

    /// What an index finds, if that is one page.
    async fn indexed(&self) -> Result<Option<Selected>, ApiError> {
        let namespace = self.call.target.namespace.as_deref();
        let resource = self.call.storage();
        let Some(bucket) = self.selection.bucket(resource, namespace) else {
            return Ok(None);
        };
        let cache = &self.call.state.objects.cache;
        let (revision, objects) = cache.list_bucket(resource, namespace, &bucket);
        let objects = self.selection.among(self.call, objects).await?;
        let page = ListMeta {
            revision,
            ..ListMeta::default()
        };
        Ok((objects.len() <= self.limit).then_some((page, objects)))
    }

    /// The next page of a list.
    async fn page_behind(&self, token: Token) -> Result<Selected, ApiError> {
        let resource = self.call.storage();
        let cache = &self.call.state.objects.cache;
        let Ok(at) = Revision::try_from(token.rv) else {
            let (revision, objects) = cache.snapshot(resource);
            let page = self.page(self.limit, revision, &objects, Some(&token.start));
            let selected = page.await?;
            if selected.0.next.is_some() {
                cache.keep(resource, revision, &objects);
            }
            return Ok(selected);
        };
        match self.state_at(at).await {
            Ok(objects) => {
                let page = self.page(self.limit, at, &objects, Some(&token.start));
                page.await
            }
            Err(StoreError::Compacted { .. }) => Err(token.expired()),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// The first page of the state of a revision.
    async fn exact(&self, at: Revision) -> Result<Selected, ApiError> {
        let objects = self.state_at(at).await;
        let objects = objects.map_err(|error| store_error(&error))?;
        let selected = self.page(self.limit, at, &objects, None).await?;
        if selected.0.next.is_some() {
            let cache = &self.call.state.objects.cache;
            cache.keep(self.call.storage(), at, &objects);
        }
        Ok(selected)
    }

    /// The objects at a revision; out of the store, if the cache has forgotten them.
    async fn state_at(&self, at: Revision) -> Result<Ordered, StoreError> {
        let (objects, resource) = (&self.call.state.objects, self.call.storage());
        if let Some(found) = objects.cache.snapshot_at(resource, at) {
            return Ok(found);
        }
        let prefix = prefix(resource, None);
        let range = Range {
            at: Some(at),
            ..Range::all(&prefix)
        };
        let page = objects.store.range(range).await?;
        let mut found = Ordered::default();
        for entry in page.entries {
            found.insert(Arc::new(Cached::past(resource, entry)));
        }
        Ok(found)
    }

    /// At most `limit` of the objects behind the key `after`.
    async fn page(
        &self,
        limit: usize,
        revision: Revision,
        objects: &Ordered,
        after: Option<&str>,
    ) -> Result<Selected, ApiError> {
        let resource = self.call.storage();
        let mut places = objects.span(&prefix(resource, self.call.target.namespace.as_deref()));
        if let Some(after) = after {
            let behind = objects.rank(after) + usize::from(objects.get(after).is_some());
            places.start = behind.clamp(places.start, places.end);
        }
        let mut selected = Vec::new();
        let mut page = ListMeta {
            revision,
            ..ListMeta::default()
        };
        let judged = match self.selection.is_stored() {
            true => None,
            false => {
                let all: Vec<Arc<Cached>> = objects.slice(places.clone()).cloned().collect();
                let served = &self.call.target.served;
                Some(self.selection.judge(&self.call.state, served, &all).await?)
            }
        };
        for (at, object) in places.clone().zip(objects.slice(places.clone())) {
            let is_selected = match &judged {
                Some(judged) => judged[at - places.start],
                None => self.selection.selects(object),
            };
            if !is_selected {
                continue;
            }
            selected.push(object.clone());
            let left = places.end - at - 1;
            if selected.len() == limit && left > 0 {
                let known = self.selection.is_everything();
                page.remaining = known.then_some(left as u64);
                page.next = Some(Token::behind(revision, &object.key).encode());
                break;
            }
        }
        Ok((page, selected))
    }
}

impl Token {
    fn behind(revision: Revision, key: &str) -> Self {
        Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv: i64::try_from(revision).unwrap_or(LATEST),
            start: key.to_owned(),
        }
    }

    /// What is said of a token whose revision is no longer known: it may be exchanged for one that goes on
    /// with the present state.
    fn expired(self) -> ApiError {
        ApiError::ExpiredPage {
            message: "The provided continue parameter is too old to display a consistent list result. \
                You can start a new list without the continue parameter, or use the continue token in \
                this response to retrieve the remainder of the results. Continuing with the provided \
                token results in an inconsistent list - objects that were created, modified, or \
                deleted between the time the first chunk was returned and now may show up in the list."
                .to_owned(),
            next: Self { rv: LATEST, ..self }.encode(),
        }
    }

    pub fn encode(&self) -> String {
        // Strings and a number always serialise.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// A token that a client sends back.
    pub fn decode(text: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let token = token.filter(|token: &Self| token.rv > 0 || token.rv == LATEST);
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
        let token = Token::behind(5, "/registry/x/y");
        let back = Token::decode(&token.encode()).expect("a token");
        assert_eq!((back.rv, back.start.as_str()), (5, "/registry/x/y"));
        assert!(Token::decode("???").is_err());
    }
}
