//! Admission webhooks: servers of the cluster's owner that are asked about each write that their rules
//! name. Mutating ones come first, one after the other, and may answer with a patch; validating ones see
//! what will be stored, all at once.
//!
//! ```text
//! write ─▶ hooks that match ─▶ object in the version that the rule names ─▶ AdmissionReview
//!                                                                               │
//!     object ◀── to the stored version ◀── decoded, defaulted ◀── patch ◀───────┘ or a refusal
//! ```

mod annotate;
mod configured;
mod hook;
pub mod review;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::future::join_all;
use serde_json::Value;

use super::policies::Rights;
use super::{Attributes, Operation};
use crate::{State, outgoing, upload, versions};
use api::policy::{Input, Request};
use api::selector::LabelSelector;
use api::{
    ApiError, Behaviour, Cause, CauseKind, FieldValidation, Resource, Served, Subresource, meta,
};
pub use configured::Configured;
use configured::Hooks;
use hook::Hook;
use review::{Question, Role, Verdict};

/// The group of webhook configurations and policies.
const GROUP: &str = "admissionregistration.k8s.io";

/// The mutating webhooks of one write.
pub struct Mutation<'a> {
    subject: Subject<'a>,
    hooks: Hooks,
    /// Who was asked, and wants to be asked again when others change the object: by their place.
    asked: BTreeSet<usize>,
    /// Who is asked again.
    again: BTreeSet<usize>,
    /// Somebody has changed the object.
    pub changed: bool,
}

impl<'a> Mutation<'a> {
    /// None: there is nobody to ask.
    pub fn of(attributes: &'a Attributes<'a>) -> Result<Option<Self>, ApiError> {
        let Some((subject, hooks)) = Subject::of(attributes, Role::Mutating)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            subject,
            hooks,
            asked: BTreeSet::new(),
            again: BTreeSet::new(),
            changed: false,
        }))
    }

    /// Asks each in turn. A deletion has no object.
    pub async fn ask(&mut self, object: Option<&mut Value>) -> Result<(), ApiError> {
        let all = (0..self.hooks.len()).collect();
        self.ask_these(0, all, object).await
    }

    /// Something else has changed the object since: all are asked again that want to be.
    pub fn changed_by_others(&mut self) {
        self.again.append(&mut self.asked);
    }

    /// Asks those a second time, and the last, that others' changes may concern.
    pub async fn ask_again(&mut self, object: &mut Value) -> Result<(), ApiError> {
        let again = std::mem::take(&mut self.again);
        self.ask_these(1, again, Some(object)).await
    }

    async fn ask_these(
        &mut self,
        round: usize,
        places: BTreeSet<usize>,
        mut object: Option<&mut Value>,
    ) -> Result<(), ApiError> {
        let hooks = self.hooks.clone();
        for place in places {
            let hook = &hooks[place];
            let Some(served) = self.subject.invited(hook, object.as_deref())? else {
                continue;
            };
            let call = self.subject.noted(round, place);
            let changed = self
                .subject
                .mutate(call, hook, &served, object.as_deref_mut())
                .await;
            call.mutated(hook, matches!(changed, Ok(true)));
            let changed = changed?;
            if changed {
                self.changed = true;
                self.again.append(&mut self.asked);
            }
            if hook.reinvoked {
                self.asked.insert(place);
            }
        }
        Ok(())
    }
}

/// Whether there are webhooks that may change objects.
pub fn may_mutate(state: &State) -> Result<bool, ApiError> {
    let hooks = state.webhooks.of(Role::Mutating, &state.objects)?;
    Ok(!hooks.is_empty())
}

/// Asks all validating webhooks at once; the first refusal in their order counts.
pub async fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some((subject, hooks)) = Subject::of(attributes, Role::Validating)? else {
        return Ok(());
    };
    let mut invited = Vec::new();
    for (place, hook) in hooks.iter().enumerate() {
        if let Some(served) = subject.invited(hook, object)? {
            invited.push((subject.noted(0, place), hook, served));
        }
    }
    let asking = invited.iter().map(|(call, hook, served)| async {
        let shown = subject.shown(served, object).await?;
        subject.call(*call, hook, served, &shown).await
    });
    let answers = join_all(asking).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// What webhooks are asked about.
struct Subject<'a> {
    attributes: &'a Attributes<'a>,
    role: Role,
    /// The same objects in all versions that are served, once somebody wants to know.
    equivalents: OnceLock<Vec<Arc<Served>>>,
}

/// The object and what it was, as a webhook sees them.
struct Shown {
    object: Option<Value>,
    old: Option<Value>,
}

impl<'a> Subject<'a> {
    /// With who is to be asked; None if there is nobody.
    fn of(attributes: &'a Attributes<'a>, role: Role) -> Result<Option<(Self, Hooks)>, ApiError> {
        let state = attributes.state;
        let hooks = state.webhooks.of(role, &state.objects)?;
        if hooks.is_empty() || is_exempt(attributes) {
            return Ok(None);
        }
        let subject = Self {
            attributes,
            role,
            equivalents: OnceLock::new(),
        };
        Ok(Some((subject, hooks)))
    }

    fn noted(&self, round: usize, index: usize) -> annotate::Call<'a> {
        annotate::Call {
            trail: self.attributes.trail,
            role: self.role,
            round,
            index,
        }
    }

    /// The version in which a webhook wants to see the object; None if it does not want to.
    fn invited(
        &self,
        hook: &Hook,
        object: Option<&Value>,
    ) -> Result<Option<Arc<Served>>, ApiError> {
        let asked = self.attributes.asked.served;
        let direct = std::iter::once((asked, self.request(&asked.resource)));
        let found = hook.first_match(direct).cloned().or_else(|| {
            let others = self.equivalents().iter();
            let others = others.map(|served| (served, self.request(&served.resource)));
            hook.equivalents
                .then(|| hook.first_match(others).cloned())?
        });
        let Some(served) = found else {
            return Ok(None);
        };
        let invited = hook.selects(object, self.attributes.old)
            && self.in_selected_namespace(hook, object)?;
        Ok(invited.then_some(served))
    }

    fn request<'b>(&'b self, resource: &'b Resource) -> Request<'b> {
        let attributes = self.attributes;
        Request {
            operation: attributes.operation.as_str(),
            group: &resource.group,
            version: &resource.version,
            plural: &resource.plural,
            subresource: self.subresource(),
            name: attributes.name,
            cluster_scoped: attributes.namespace.is_empty(),
        }
    }

    fn subresource(&self) -> &'static str {
        self.attributes.subresource.map_or("", Subresource::name)
    }

    fn equivalents(&self) -> &[Arc<Served>] {
        self.equivalents.get_or_init(|| {
            let Attributes {
                state,
                resource,
                asked,
                ..
            } = self.attributes;
            let is_other = |served: &&Arc<Served>| {
                let stored = &served.storage;
                stored.plural == resource.plural
                    && stored.group == resource.group
                    && !Arc::ptr_eq(served, asked.served)
            };
            let snapshot = state.registry.snapshot();
            let all = snapshot.versions().iter().flat_map(|it| &it.served);
            all.filter(is_other).cloned().collect()
        })
    }

    /// A cluster-scoped object is passed by no namespace selector; a namespace is judged by itself.
    fn in_selected_namespace(&self, hook: &Hook, object: Option<&Value>) -> Result<bool, ApiError> {
        let attributes = self.attributes;
        let namespace = self.namespace();
        let is_namespace = attributes.resource.behaviour == Behaviour::Namespace;
        if hook.namespace_selector == LabelSelector::everything() {
            return Ok(true);
        }
        if is_namespace
            && attributes.subresource.is_none()
            && let Some(object) = object
        {
            return Ok(hook.selects_namespace(&meta::labels(object)));
        }
        if namespace.is_empty() {
            return Ok(true);
        }
        let namespaces = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
        let found = attributes.state.objects.get(namespaces, "", namespace)?;
        Ok(hook.selects_namespace(found.labels()))
    }

    /// A namespace that is there lies in itself.
    fn namespace(&self) -> &str {
        let Attributes {
            resource,
            operation,
            namespace,
            name,
            ..
        } = self.attributes;
        let is_namespace = resource.behaviour == Behaviour::Namespace;
        match is_namespace && *operation != Operation::Create {
            true => name,
            false => namespace,
        }
    }

    /// Asks a webhook that may change the object; true if it did.
    async fn mutate(
        &self,
        call: annotate::Call<'_>,
        hook: &Hook,
        served: &Served,
        object: Option<&mut Value>,
    ) -> Result<bool, ApiError> {
        let shown = self.shown(served, object.as_deref()).await?;
        let verdict = self.call(call, hook, served, &shown).await?;
        let Some(patch) = verdict.patch else {
            return Ok(false);
        };
        let internal = |why: String| ApiError::Internal(why);
        let patch: Value = serde_json::from_slice(&patch)
            .map_err(|error| internal(format!("the patch is not JSON: {error}")))?;
        if patch.as_array().is_some_and(Vec::is_empty) {
            return Ok(false);
        }
        call.patched(hook, &patch);
        let (Some(object), Some(before)) = (object, shown.object) else {
            return Err(internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for \
                 this operation",
                hook.name
            )));
        };
        let kind = self.kind(served);
        let patched = api::patch::json::apply(kind, &before, &patch)
            .map_err(|error| internal(error.to_string()))?;
        for field in ["apiVersion", "kind"] {
            if patched[field] != before[field] {
                return Err(internal(format!(
                    "admission webhook {:?} attempted to change {field}",
                    hook.name
                )));
            }
        }
        let mut patched = kind
            .canonical(patched, FieldValidation::Ignore)
            .map_err(|error| internal(error.to_string()))?
            .object;
        kind.default(&mut patched);
        check_size(&patched)?;
        self.check_identity(&patched)?;
        if patched == before {
            return Ok(false);
        }
        *object = match self.body() {
            Body::Object => {
                let mut stored = versions::stored(self.attributes.state, served, patched).await?;
                self.attributes.resource.default(&mut stored);
                stored
            }
            Body::Scale => api::scale::apply(self.attributes.resource, object, &patched)?,
            Body::Other(_) => patched,
        };
        Ok(true)
    }

    /// An object stays where it is, and an update the object's own.
    fn check_identity(&self, patched: &Value) -> Result<(), ApiError> {
        let Attributes {
            resource,
            operation,
            namespace,
            name,
            ..
        } = self.attributes;
        let said = patched["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default();
        if said != *namespace && !matches!(self.body(), Body::Other(_) if said.is_empty()) {
            let why = "the namespace of the provided object does not match the namespace sent on the \
                       request";
            return Err(ApiError::BadRequest(why.to_owned()));
        }
        if *operation == Operation::Update && meta::name(patched) != *name {
            let cause = Cause {
                field: "metadata.name".to_owned(),
                kind: CauseKind::Invalid,
                message: format!(
                    "Invalid value: {:?}: field is immutable",
                    meta::name(patched)
                ),
            };
            return Err(ApiError::invalid(resource, name, vec![cause]));
        }
        Ok(())
    }

    /// What is sent: of which kind, and how it comes from what is stored.
    fn body(&self) -> Body<'a> {
        match (self.attributes.asked.body, self.attributes.subresource) {
            (Some(kind), _) => Body::Other(kind),
            (None, Some(Subresource::Scale)) => Body::Scale,
            _ => Body::Object,
        }
    }

    fn kind<'b>(&self, served: &'b Served) -> &'b Resource
    where
        'a: 'b,
    {
        match self.body() {
            Body::Object => &served.resource,
            Body::Scale => &api::kinds::SCALE,
            Body::Other(kind) => kind,
        }
    }

    async fn shown(&self, served: &Served, object: Option<&Value>) -> Result<Shown, ApiError> {
        Ok(Shown {
            object: self.show(served, object).await?,
            old: self.show(served, self.attributes.old).await?,
        })
    }

    async fn show(
        &self,
        served: &Served,
        object: Option<&Value>,
    ) -> Result<Option<Value>, ApiError> {
        let Some(object) = object else {
            return Ok(None);
        };
        let shown = match self.body() {
            Body::Object => {
                versions::shown_value(self.attributes.state, served, object.clone()).await?
            }
            Body::Scale => api::scale::of(self.attributes.resource, object)?,
            Body::Other(_) => object.clone(),
        };
        Ok(Some(shown))
    }

    /// The verdict of a webhook. One that cannot be asked allows everything, if it says so, or nothing.
    async fn call(
        &self,
        call: annotate::Call<'_>,
        hook: &Hook,
        served: &Served,
        shown: &Shown,
    ) -> Result<Verdict, ApiError> {
        let attributes = self.attributes;
        let (uid, options) = (
            super::new_uid(),
            attributes.asked.options(attributes.operation),
        );
        let question = self.question(served, shown, &uid, &options);
        if !self.fulfils_conditions(hook, &question)? {
            return Ok(Verdict::default());
        }
        if attributes.dry_run && !hook.dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(ApiError::BadRequest(why));
        }
        match self.ask(hook, &question).await {
            Ok(verdict) => {
                attributes.warnings.add(verdict.warnings.iter().cloned());
                call.said(hook, &verdict);
                match verdict.refusal {
                    Some(status) => Err(ApiError::Given(status)),
                    None => Ok(verdict),
                }
            }
            Err(why) if hook.fails_open => {
                tracing::warn!(
                    webhook = hook.name,
                    why,
                    "a webhook failed, and counts as allowing"
                );
                call.failed_open(hook);
                self.time_left().map(|_| Verdict::default())
            }
            Err(why) => Err(ApiError::Internal(format!(
                "failed calling webhook {:?}: {why}",
                hook.name
            ))),
        }
    }

    fn question<'b>(
        &'b self,
        served: &'b Served,
        shown: &'b Shown,
        uid: &'b str,
        options: &'b Value,
    ) -> Question<'b> {
        let attributes = self.attributes;
        let asked = attributes.asked.served;
        Question {
            uid,
            kind: self.kind(served),
            resource: &served.resource,
            request_kind: self.kind(asked),
            request_resource: &asked.resource,
            subresource: self.subresource(),
            namespace: self.namespace(),
            name: attributes.name,
            operation: attributes.operation.as_str(),
            user: attributes.user,
            object: shown.object.as_ref(),
            old: shown.old.as_ref(),
            dry_run: attributes.dry_run,
            options,
        }
    }

    /// Whether the webhook's match conditions hold. What they cannot say counts as its policy says.
    fn fulfils_conditions(&self, hook: &Hook, question: &Question<'_>) -> Result<bool, ApiError> {
        let attributes = self.attributes;
        let said = match &hook.conditions {
            Ok(conditions) if conditions.is_empty() => Ok(true),
            Ok(conditions) => {
                let rights = Rights::of(attributes);
                conditions.matches(&Input {
                    object: question.object,
                    old: question.old,
                    request: &question.request(),
                    namespace: None,
                    params: None,
                    authorizer: Some(&rights),
                })
            }
            Err(why) => Err(why.clone()),
        };
        match said {
            Ok(fulfilled) => Ok(fulfilled),
            Err(_) if hook.fails_open => Ok(false),
            Err(why) => Err(ApiError::forbidden(
                attributes.resource,
                attributes.name,
                why,
            )),
        }
    }

    async fn ask(&self, hook: &Hook, question: &Question<'_>) -> Result<Verdict, String> {
        let failed = |why: &str| format!("failed to call webhook: {why}");
        let version = hook.version.ok_or_else(|| {
            "webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned()
        })?;
        let client = hook.client.as_ref().map_err(|why| failed(why))?;
        let left = self.time_left().map_err(|error| error.to_string())?;
        let review = question.review(version);
        let timeout = hook.timeout.min(left);
        let answer = outgoing::post_json(self.attributes.state, client, &review, timeout).await;
        let answer = answer.map_err(|why| failed(&why))?;
        review::verdict(version, self.role, question.uid, &hook.name, &answer)
    }

    /// Of the time of the whole request.
    fn time_left(&self) -> Result<std::time::Duration, ApiError> {
        let left = self
            .attributes
            .asked
            .deadline
            .checked_duration_since(Instant::now());
        left.ok_or_else(|| {
            ApiError::Timeout("request did not complete within requested timeout".to_owned())
        })
    }
}

/// What a webhook is sent.
enum Body<'a> {
    /// The object itself.
    Object,
    /// What the object has of a Scale.
    Scale,
    /// What a client sent to a subresource.
    Other(&'a Resource),
}

/// Whoever breaks the configurations could not mend them, were they asked about.
fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group == GROUP
}

fn check_size(object: &Value) -> Result<(), ApiError> {
    let limit = upload::OBJECT.bytes;
    let bytes = object.to_string().len();
    if bytes > limit {
        return Err(ApiError::TooLarge(format!(
            "Request entity too large: a webhook makes the object {bytes} bytes large, limit is {limit}"
        )));
    }
    Ok(())
}
