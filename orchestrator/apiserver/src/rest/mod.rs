//! The verbs, generic over the kinds: one file a verb.

mod component;
pub mod create;
pub mod delete;
mod eviction;
pub mod get;
pub mod list;
pub mod review;
pub mod subresource;
mod token;
pub mod update;

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::Value;

use super::State;
use super::admission::Asked;
use super::audit::Trail;
use super::authn::User;
use super::authz::Sight;
use super::negotiate::{self, Wanted};
use super::options;
use super::reply::{self, Warnings};
use super::request::{Query, Target, Verb};
use super::versions;
use super::wire::ListMeta;
use super::write::{Manager, Part, Writer};
use api::{ApiError, Behaviour, FieldValidation, Format, Resource, Subresource};

/// One request for objects, ready to be served.
pub struct Call {
    pub state: Arc<State>,
    pub user: User,
    pub target: Target,
    pub verb: Verb,
    pub query: Query,
    pub headers: HeaderMap,
    pub wanted: Wanted,
    pub body: Bytes,
    /// What the client should hear besides the answer.
    pub warnings: Warnings,
    /// What the audit log should say of this request.
    pub trail: Trail,
}

/// The answer to a request for objects.
pub type Answer = Result<Response<Body>, ApiError>;

/// Serves a request that may be served.
pub async fn serve(call: Call) -> Answer {
    let deprecation = call.resource().deprecation.as_deref();
    call.warnings.add(deprecation.map(str::to_owned));
    let answer = answer(&call).await;
    call.trail.ended(&answer);
    Ok(reply::warn(answer?, &call.warnings.all()))
}

async fn answer(call: &Call) -> Answer {
    if let (None, Verb::Create, Some(question)) =
        (call.target.subresource, call.verb, review::question(call))
    {
        return review::review(call, question).await;
    }
    match (call.target.subresource, call.verb) {
        (Some(Subresource::Log), Verb::Get) => super::proxy::log(call).await,
        (Some(Subresource::Binding), Verb::Create) => subresource::bind(call).await,
        (Some(Subresource::Token), Verb::Create) => token::request(call).await,
        (Some(Subresource::Eviction), Verb::Create) => eviction::evict(call).await,
        (Some(Subresource::Scale), Verb::Get) => subresource::get_scale(call).await,
        (None, Verb::Get) if component::is_of(call) => component::get(call),
        (None, Verb::List) if component::is_of(call) => component::list(call),
        (
            Some(
                Subresource::Status
                | Subresource::Approval
                | Subresource::EphemeralContainers
                | Subresource::Resize,
            )
            | None,
            Verb::Get,
        ) => get::get(call).await,
        (None, Verb::List) => list::list(call).await,
        (None, Verb::Watch) => super::watch::watch(call).await,
        (None, Verb::Create) if call.target.name.is_none() && is_binding(call) => {
            subresource::bind_named(call).await
        }
        (None, Verb::Create) if call.target.name.is_none() => create::create(call).await,
        (
            Some(
                Subresource::Status
                | Subresource::Finalize
                | Subresource::Scale
                | Subresource::EphemeralContainers
                | Subresource::Resize
                | Subresource::Approval,
            )
            | None,
            Verb::Update,
        ) => update::replace(call).await,
        (
            Some(
                Subresource::Status
                | Subresource::Scale
                | Subresource::EphemeralContainers
                | Subresource::Resize
                | Subresource::Approval,
            )
            | None,
            Verb::Patch,
        ) => update::patch(call).await,
        (None, Verb::Delete) => delete::delete(call).await,
        (None, Verb::DeleteCollection) => delete::delete_collection(call).await,
        (_, verb) => Err(ApiError::method_not_allowed(call.resource(), verb.as_str())),
    }
}

fn is_binding(call: &Call) -> bool {
    call.resource().behaviour == Behaviour::Binding
}

impl Call {
    /// How much of the resource's objects the caller sees.
    pub fn sight(&self) -> Sight {
        Sight::of(&self.user, self.storage())
    }

    /// Writes what this call is about, as its user and with its `dryRun`.
    fn writer(&self, part: Part) -> Result<Writer<'_>, ApiError> {
        Ok(Writer {
            state: &self.state,
            resource: self.storage(),
            user: Some(&self.user),
            asked: Some(Asked::now(&self.target.served, &self.query)),
            part,
            subresource: self.target.subresource,
            manager: Some(self.manager()?),
            dry_run: self.query.dry_run(),
            warnings: self.warnings.clone(),
            trail: self.trail.clone(),
        })
    }

    /// Who this call says that it is, or what its user agent says.
    fn manager(&self) -> Result<Manager, ApiError> {
        let options = options::kind(self.verb).unwrap_or("UpdateOptions");
        let said = self.query.get("fieldManager").unwrap_or_default();
        let is_apply =
            self.verb == Verb::Patch && negotiate::content_type(&self.headers) == update::APPLY;
        api::apply::check_field_manager(options, said, is_apply)?;
        let agent = || {
            let agent = self.headers.get(header::USER_AGENT);
            let agent = agent.and_then(|agent| agent.to_str().ok());
            api::apply::manager_of_user_agent(agent.unwrap_or_default())
        };
        Ok(Manager {
            name: match said {
                "" => agent(),
                said => said.to_owned(),
            },
            subresource: self.target.subresource,
        })
    }

    /// The version of the kind that the client speaks.
    fn resource(&self) -> &Arc<Resource> {
        self.target.resource()
    }

    /// The version that is stored: what the cache and the store are asked for.
    fn storage(&self) -> &Arc<Resource> {
        self.target.storage()
    }

    /// What the client wrote, as it is to be stored.
    async fn stored(&self, object: Value) -> Result<Value, ApiError> {
        versions::stored(&self.state, &self.target.served, object).await
    }

    /// The answer with an object in the version that the client speaks, from its stored bytes.
    async fn show(&self, bytes: Bytes, code: StatusCode) -> Answer {
        let bytes = versions::shown_bytes(&self.state, &self.target.served, bytes).await?;
        reply::object(&self.wanted, self.resource(), bytes, code)
    }

    /// The same of a list; `show` gives the stored bytes of an item.
    async fn show_all<T: Send + 'static>(
        &self,
        page: &ListMeta,
        items: Vec<T>,
        show: impl for<'a> Fn(&'a T) -> Cow<'a, [u8]> + Send + 'static,
    ) -> Answer {
        if self.target.served.is_same() {
            return reply::list(&self.wanted, self.resource(), page, items, show);
        }
        let items = items.iter().map(|item| show(item).into_owned().into());
        let items = items.collect();
        let items = versions::all_shown(&self.state, &self.target.served, items).await?;
        reply::list(&self.wanted, self.resource(), page, items, reply::whole)
    }

    /// Empty for cluster-scoped resources.
    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    /// Empty for collections.
    fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        FieldValidation::parse(self.query.get("fieldValidation").unwrap_or_default())
    }

    /// The body as an object of a kind; its unknown fields are told with the answer.
    fn decode(&self, kind: &Resource) -> Result<Value, ApiError> {
        let format = negotiate::body_format(&self.headers)?;
        if kind.custom.is_some() && format == Format::Protobuf {
            return Err(negotiate::unknown_format(&[
                "application/json",
                "application/yaml",
            ]));
        }
        let decoded = kind.decode(&self.body, format, self.field_validation()?)?;
        self.warnings.add(decoded.warnings);
        self.trail.sent(&decoded.object);
        Ok(decoded.object)
    }

    /// Refuses an object that says it lives elsewhere than the path.
    fn check_namespace(&self, object: &mut Value) -> Result<(), ApiError> {
        let metadata = &mut object["metadata"];
        let said = metadata["namespace"].as_str().unwrap_or_default();
        if !self.resource().namespaced() {
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.remove("namespace");
            }
            return Ok(());
        }
        if !said.is_empty() && said != self.namespace() {
            return Err(ApiError::BadRequest(
                "the namespace of the provided object does not match the namespace sent on the \
                 request"
                    .to_owned(),
            ));
        }
        metadata["namespace"] = self.namespace().into();
        Ok(())
    }
}
