//! The one way of an object into the store. Whoever writes (a client's create, update, patch, apply,
//! scale, binding, eviction or deletion, and the server itself) hands over the whole object; here it is
//! prepared, validated, given what it claims, and committed.
//!
//! ```text
//! decoded ─▶ owners ─▶ admission ─▶ prepare, default ─▶ validate ─▶ claim ─▶ commit
//!            of fields  plugins,     what this path may   Kubernetes'   addresses,   if nobody came
//!                       webhooks     not touch is kept    rules         ports        in between
//! ```

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::MutexGuard;

use super::admission::plugins::QUOTA;
use super::admission::quota::Charge;
use super::admission::{self, Asked, Attributes, Operation};
use super::audit::Trail;
use super::authn::User;
use super::certificates::given;
use super::objects::{Current, WriteError};
use super::reply::Warnings;
use super::services::Claim;
use super::{State, node_writes, rbac, wire};
use api::{ApiError, Behaviour, Resource, Subresource, apply, meta};
use store::Expect;

/// How often a write that lost a race is tried again when the client set no precondition: a quota, a budget or
/// a counter is wanted by many at once.
pub const RETRIES: usize = 100;

/// Who writes what of the objects of a resource.
pub struct Writer<'a> {
    pub state: &'a State,
    pub resource: &'a Arc<Resource>,
    /// None: the server itself.
    pub user: Option<&'a User>,
    /// What the user asked for; None with it.
    pub asked: Option<Asked<'a>>,
    pub part: Part,
    /// What the path names of the object, if not the whole.
    pub subresource: Option<Subresource>,
    /// Who becomes the owner of the fields that change. None: nobody does.
    pub manager: Option<Manager>,
    /// Everything but the commit is done.
    pub dry_run: bool,
    /// What the user should hear besides the answer.
    pub warnings: Warnings,
    /// What the audit log should say of it.
    pub trail: Trail,
}

/// Who manages fields, and through what.
#[derive(Clone, Debug)]
pub struct Manager {
    pub name: String,
    pub subresource: Option<Subresource>,
}

/// What of an object a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that its status is not, through the object itself or its scale.
    Object,
    /// What the subresource is for.
    Of(Subresource),
    /// That it is to go. The server has made the object out of the stored one.
    Deletion,
}

impl<'a> Writer<'a> {
    /// The server's own writes of whole objects.
    pub fn server(state: &'a State, resource: &'a Arc<Resource>) -> Self {
        Self {
            state,
            resource,
            user: None,
            asked: None,
            part: Part::Object,
            subresource: None,
            manager: None,
            dry_run: false,
            warnings: Warnings::default(),
            trail: Trail::default(),
        }
    }

    /// Writes a new object that has a name. `Changed`: there is one of this name.
    pub async fn create(&self, mut object: Value) -> Result<Bytes, WriteError> {
        let (state, resource) = (self.state, self.resource);
        self.note_owners(None, &mut object);
        self.mutate(Operation::Create, None, &mut object).await?;
        self.check_escalation(&object, None)?;
        resource.prepare_for_create(&mut object);
        meta::stamp(&mut object, &admission::new_uid(), Timestamp::now());
        // Some defaults are made of the uid.
        resource.default(&mut object);
        if let Some(user) = self.user {
            given::note_asker(user, resource, &mut object);
        }
        resource.validate(&object, None, None)?;
        let (namespace, name) = (meta::namespace(&object), meta::name(&object));
        if state.objects.cache.get(resource, namespace, name).is_some() {
            return Err(WriteError::Changed);
        }
        self.admit(Operation::Create, None, Some(&object)).await?;
        let turn = self.claims_turn().await;
        let unclaimed = turn.as_ref().map(|_| object.clone());
        let mut claim = Claim::make(state, resource, &mut object, None)?;
        if self.dry_run {
            self.charge(Operation::Create, None, &object).await?;
            return Ok(resource.serialize(&object).into());
        }
        loop {
            let written = self.commit(Operation::Create, None, &object, &claim).await;
            match (written, &unclaimed) {
                (Err(WriteError::Changed), Some(unclaimed)) if claim.is_outdated() => {
                    drop(claim);
                    object.clone_from(unclaimed);
                    claim = Claim::make(state, resource, &mut object, None)?;
                }
                (written, _) => return written,
            }
        }
    }

    /// Where several servers give addresses away, those of one do it one after the other.
    async fn claims_turn(&self) -> Option<MutexGuard<'a, ()>> {
        let claims = matches!(
            self.resource.behaviour,
            Behaviour::Service | Behaviour::Node
        );
        match claims && self.state.objects.store.is_shared() {
            true => Some(self.state.addresses.turn().await),
            false => None,
        }
    }

    /// Nobody gives rights that they do not have. Asked when everybody has changed the object who may.
    fn check_escalation(&self, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        match self.user {
            Some(user) => rbac::check_escalation(self.state, user, self.resource, new, old),
            None => Ok(()),
        }
    }

    /// Reads the object, makes the new one out of it and writes that, until nobody came in between.
    pub async fn change(
        &self,
        namespace: &str,
        name: &str,
        mut make: impl FnMut(&Current) -> Result<Value, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let (objects, mut turn) = (&self.state.objects, None);
        for _ in 0..RETRIES {
            let current = objects.current(self.resource, namespace, name)?;
            let new = make(&current)?;
            match self.update(&current, new).await {
                Ok(bytes) => return Ok(bytes),
                Err(WriteError::Failed(error)) => return Err(error),
                Err(WriteError::Changed) => {}
            }
            objects
                .wait_for_turn(&mut turn, self.resource, namespace, name)
                .await;
        }
        Err(ApiError::modified(self.resource, name))
    }

    /// One try to put `new` in the place of `current`. An object that was only waiting for this change
    /// is removed.
    pub async fn update(&self, current: &Current, mut new: Value) -> Result<Bytes, WriteError> {
        let (state, resource, old) = (self.state, self.resource, &current.value);
        self.note_owners(Some(old), &mut new);
        if self.part != Part::Deletion {
            self.mutate(Operation::Update, Some(old), &mut new).await?;
            self.check_escalation(&new, Some(old))?;
        }
        self.prepare(&mut new, old)?;
        if self.part != Part::Deletion {
            self.admit(Operation::Update, Some(old), Some(&new)).await?;
        }
        let turn = self.claims_turn().await;
        let unclaimed = turn.as_ref().map(|_| new.clone());
        let mut claim = Claim::make(state, resource, &mut new, Some(old))?;
        apply::keep_times(&mut new, old);
        if new == *old {
            return Ok(current.bytes.clone());
        }
        if self.dry_run {
            self.charge(Operation::Update, Some(old), &new).await?;
            let bytes = resource.serialize(&new);
            return Ok(wire::with_revision(&bytes, current.revision));
        }
        if self.part != Part::Deletion && is_finished(resource, &new) {
            self.remove(current).await?;
            let bytes = resource.serialize(&new);
            return Ok(wire::with_revision(&bytes, current.revision));
        }
        loop {
            let written = self.commit(Operation::Update, Some(current), &new, &claim);
            match (written.await, &unclaimed) {
                (Err(WriteError::Changed), Some(unclaimed)) if claim.is_outdated() => {
                    drop(claim);
                    new.clone_from(unclaimed);
                    claim = Claim::make(state, resource, &mut new, Some(old))?;
                    apply::keep_times(&mut new, old);
                }
                (written, _) => return written,
            }
        }
    }

    /// Writes the object together with what it is charged and what comes with it. `Changed`: the object
    /// is not as it was; quotas that are not are read again.
    async fn commit(
        &self,
        operation: Operation,
        current: Option<&Current>,
        object: &Value,
        claim: &Claim<'_>,
    ) -> Result<Bytes, WriteError> {
        let objects = &self.state.objects;
        let expect = current.map_or(Expect::Absent, |current| Expect::At(current.revision));
        for _ in 0..RETRIES {
            let old = current.map(|current| &current.value);
            let charge = self.charge(operation, old, object).await?;
            let mut with = charge.writes();
            with.extend(claim.guard());
            if current.is_none() {
                with.extend(admission::companions(self.state, self.resource, object)?);
            }
            match objects.write(self.resource, object, expect, with).await {
                Err(WriteError::Changed)
                    if charge.is_outdated(objects, meta::namespace(object))? => {}
                written => return written,
            }
        }
        let why = "its quotas change all the time; please try again";
        let error = ApiError::conflict(self.resource, meta::name(object), why);
        Err(WriteError::Failed(error))
    }

    /// What the object uses of the quotas of its namespace, which it fits.
    async fn charge(
        &self,
        operation: Operation,
        old: Option<&Value>,
        object: &Value,
    ) -> Result<Charge, ApiError> {
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        match self.attributes(operation, old, namespace, name) {
            Some(attributes) if self.state.plugins.is_on(QUOTA) => {
                Charge::of(&attributes, object).await
            }
            _ => Ok(Charge::default()),
        }
    }

    /// Removes an object that nobody has changed meanwhile.
    pub async fn remove(&self, current: &Current) -> Result<(), WriteError> {
        let (namespace, name) = (meta::namespace(&current.value), meta::name(&current.value));
        let objects = &self.state.objects;
        objects
            .remove(self.resource, namespace, name, current.revision)
            .await
    }

    /// Whether everybody who has a say in it lets the object go. Asked once a deletion, before its
    /// first write.
    pub async fn may_delete(&self, current: &Current) -> Result<(), ApiError> {
        self.admit(Operation::Delete, Some(&current.value), None)
            .await
    }

    /// Lets those change and refuse who may what the client sends to a subresource: a body of that kind,
    /// which is not stored.
    pub async fn review_body(
        &self,
        kind: &Resource,
        (namespace, name): (&str, &str),
        body: &mut Value,
    ) -> Result<(), ApiError> {
        let Some(attributes) = self.attributes(Operation::Create, None, namespace, name) else {
            return Ok(());
        };
        let asked = attributes.asked.with_body(kind);
        let attributes = Attributes {
            asked,
            ..attributes
        };
        admission::review_body(&attributes, body).await
    }

    /// Lets those change the object who may.
    async fn mutate(
        &self,
        operation: Operation,
        old: Option<&Value>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let (namespace, name) = (
            meta::namespace(object).to_owned(),
            meta::name(object).to_owned(),
        );
        let Some(attributes) = self.attributes(operation, old, &namespace, &name) else {
            return Ok(());
        };
        if !admission::asks_others(&attributes)? {
            return admission::mutate(&attributes, object).await;
        }
        // What others change has no owner, and whose a field is they do not decide.
        let managed = object["metadata"].get("managedFields").cloned();
        admission::mutate(&attributes, object).await?;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            match managed {
                Some(managed) => metadata.insert("managedFields".to_owned(), managed),
                None => metadata.remove("managedFields"),
            };
        }
        Ok(())
    }

    /// Asks those who may refuse. `object` is None for a deletion.
    async fn admit(
        &self,
        operation: Operation,
        old: Option<&Value>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let known = object.or(old).unwrap_or(&Value::Null);
        let (namespace, name) = (meta::namespace(known), meta::name(known));
        match self.attributes(operation, old, namespace, name) {
            Some(attributes) => admission::validate(&attributes, object).await,
            None => Ok(()),
        }
    }

    /// The server's own writes are nobody else's business.
    fn attributes<'b>(
        &'b self,
        operation: Operation,
        old: Option<&'b Value>,
        namespace: &'b str,
        name: &'b str,
    ) -> Option<Attributes<'b>> {
        Some(Attributes {
            state: self.state,
            user: self.user?,
            asked: self.asked?,
            resource: self.resource,
            subresource: self.subresource,
            operation,
            namespace,
            name,
            old,
            dry_run: self.dry_run,
            warnings: &self.warnings,
            trail: &self.trail,
        })
    }

    /// Notes who owns what this write changes, before the server adds anything of its own.
    fn note_owners(&self, old: Option<&Value>, new: &mut Value) {
        let Some(manager) = &self.manager else {
            return;
        };
        self.resource.default(new);
        let by = manager.at(Timestamp::now());
        apply::update(self.resource, old, new, &by);
    }

    /// Keeps of `old` what this path may not touch, and checks the rest.
    fn prepare(&self, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        let (state, resource) = (self.state, self.resource);
        let sub = match self.part {
            Part::Deletion => return Ok(()),
            Part::Object => None,
            Part::Of(sub) => Some(sub),
        };
        keep_identity(resource, new, old)?;
        resource.prepare_for_update(new, old, sub);
        given::date_conditions(resource, sub, (new, old), Timestamp::now());
        resource.default(new);
        if sub.is_none() {
            admission::keep_given(resource, new, old);
        }
        resource.validate(new, Some(old), sub)?;
        if let Some(user) = self.user {
            node_writes::check(user, resource, new, Some(old))?;
            node_writes::check_pod_addresses(state, user, resource, new, old)?;
        }
        Ok(())
    }
}

impl Manager {
    pub fn at(&self, now: Timestamp) -> apply::Writer<'_> {
        apply::Writer {
            manager: &self.name,
            subresource: self.subresource,
            now,
        }
    }
}

/// Metadata that no client changes, and the uid as a precondition.
fn keep_identity(resource: &Resource, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let (asked, uid) = (meta::uid(new).to_owned(), meta::uid(old));
    if !asked.is_empty() && asked != uid {
        let why =
            format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
        return Err(ApiError::conflict(resource, meta::name(old), why));
    }
    let Some(metadata) = new["metadata"].as_object_mut() else {
        return Ok(());
    };
    metadata.remove("resourceVersion");
    metadata.remove("selfLink");
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(())
}

/// An object that waits for its deletion goes when the last finalizer does.
fn is_finished(resource: &Resource, object: &Value) -> bool {
    let spec_finalizers = object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    let namespace = resource.behaviour == Behaviour::Namespace;
    let graceful = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or_default();
    meta::is_terminating(object)
        && meta::finalizers(object).is_empty()
        && graceful == 0
        && !(namespace && spec_finalizers)
}
