//! Who else has a say in a write: other objects that demand or give something (`given`), and whoever the
//! cluster's owner lets change or refuse what others write.
//!
//! `mutate` comes before the server prepares and validates an object, `validate` after that, on what
//! will be stored.

mod certificates;
mod given;
mod limit_range;
pub mod plugins;
pub mod policies;
mod priority;
pub mod quota;
pub mod webhooks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::State;
use super::audit::Trail;
use super::authn::User;
use super::reply::Warnings;
use super::request::Query;
use api::{ApiError, Resource, Served, Subresource};

use webhooks::Mutation;

pub use plugins::{AdmissionConfig, AdmissionConfigError, Plugins, TolerationSeconds};

pub use given::{companions, generate_name, keep_given, namespace_is_open, new_uid};

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A stream to what the object stands for: exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// How long webhooks may take about a request, all together: a little less than the request may.
const TIME: Duration = Duration::from_secs(55);

/// What a client asks for, as those see it who have a say in it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The version that the client speaks.
    pub served: &'a Arc<Served>,
    /// The kind of the body of a subresource that has one of its own.
    pub body: Option<&'a Resource>,
    /// What the options are made of.
    query: &'a Query,
    /// Those of a deletion.
    delete_options: Option<&'a Value>,
    /// No webhook is waited for longer.
    pub deadline: Instant,
}

impl<'a> Asked<'a> {
    pub fn now(served: &'a Arc<Served>, query: &'a Query) -> Self {
        Self {
            served,
            body: None,
            query,
            delete_options: None,
            deadline: Instant::now() + TIME,
        }
    }

    pub fn with_body(self, kind: &'a Resource) -> Self {
        Self {
            body: Some(kind),
            ..self
        }
    }

    pub fn deleting(self, options: &'a Value) -> Self {
        Self {
            delete_options: Some(options),
            ..self
        }
    }

    /// The options of the operation, of meta.k8s.io/v1.
    fn options(&self, operation: Operation) -> Value {
        let kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = self.delete_options.cloned().unwrap_or_else(|| json!({}));
        options["kind"] = kind.into();
        options["apiVersion"] = "meta.k8s.io/v1".into();
        for name in ["fieldManager", "fieldValidation"] {
            if let Some(value) = self.query.get(name) {
                options[name] = value.into();
            }
        }
        if self.query.get("dryRun").is_some() {
            options["dryRun"] = json!(["All"]);
        }
        options
    }
}

/// A write, as those see it who have a say in it (`AdmissionRequest` of admission.k8s.io/v1).
pub struct Attributes<'a> {
    pub state: &'a State,
    pub user: &'a User,
    pub asked: Asked<'a>,
    /// What the path names, in the version that is stored.
    pub resource: &'a Arc<Resource>,
    pub subresource: Option<Subresource>,
    pub operation: Operation,
    /// Empty for a cluster-scoped object.
    pub namespace: &'a str,
    pub name: &'a str,
    /// The object as it is; None for a create.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// What the client should hear.
    pub warnings: &'a Warnings,
    /// What the audit log should say of it: `trail.annotate(KEY, VALUE)`.
    pub trail: &'a Trail,
}

/// Lets those change a new or updated object who may. It is decoded and defaulted before and after.
pub async fn mutate(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    if attributes.was_reviewed() {
        return Ok(());
    }
    give(attributes, object)?;
    let Some(mut webhooks) = mutation(attributes)? else {
        return Ok(());
    };
    webhooks.ask(Some(object)).await?;
    if !webhooks.changed {
        return Ok(());
    }
    let before = object.clone();
    give(attributes, object)?;
    if *object != before {
        webhooks.changed_by_others();
    }
    webhooks.ask_again(object).await
}

/// Whether somebody else than the server itself may change the object.
pub fn asks_others(attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    Ok(policies::may_mutate(attributes)? || webhooks::may_mutate(attributes.state)?)
}

/// What the server itself gives a new or changed object.
fn give(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    let plugins = &attributes.state.plugins;
    plugins.mutate(attributes, object)?;
    match plugins.is_on(plugins::MUTATING_POLICIES) {
        true => policies::mutate(attributes, object),
        false => Ok(()),
    }
}

/// The webhooks that may change the object, if there are any.
fn mutation<'a>(attributes: &'a Attributes<'a>) -> Result<Option<Mutation<'a>>, ApiError> {
    match attributes.state.plugins.is_on(plugins::MUTATING_WEBHOOKS) {
        true => Mutation::of(attributes),
        false => Ok(None),
    }
}

/// Asks those who may refuse; `object` is what will be stored, None for a deletion.
pub async fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    if attributes.was_reviewed() {
        return Ok(());
    }
    if object.is_none()
        && let Some(mut webhooks) = mutation(attributes)?
    {
        // They may refuse a deletion as well, and change nothing.
        webhooks.ask(None).await?;
    }
    attributes.state.plugins.validate(attributes, object)?;
    ask_others(attributes, object).await
}

/// The policies and webhooks that may refuse.
async fn ask_others(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let plugins = &attributes.state.plugins;
    if plugins.is_on(plugins::VALIDATING_POLICIES) {
        policies::validate(attributes, object)?;
    }
    match plugins.is_on(plugins::VALIDATING_WEBHOOKS) {
        true => webhooks::validate(attributes, object).await,
        false => Ok(()),
    }
}

/// Lets those change and refuse who may what a client sends to a subresource of its own kind.
pub async fn review_body(attributes: &Attributes<'_>, body: &mut Value) -> Result<(), ApiError> {
    if let Some(mut webhooks) = mutation(attributes)? {
        webhooks.ask(Some(body)).await?;
        if webhooks.changed {
            webhooks.ask_again(body).await?;
        }
    }
    ask_others(attributes, Some(body)).await
}

impl Attributes<'_> {
    /// A binding or an eviction was reviewed as what the client sent; what the server makes of it, a
    /// changed or deleted pod, is not reviewed again.
    fn was_reviewed(&self) -> bool {
        let by_body = matches!(
            self.subresource,
            Some(Subresource::Binding | Subresource::Eviction)
        );
        by_body && self.asked.body.is_none()
    }
}
