//! Admission policies: those that are for a request are asked, with the parameters of each of their
//! bindings.
//!
//! Policies are compiled when they change and found by the resource of the request, so that a write
//! costs what the policies for its resource cost. What they say is `api::policy`'s.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use serde_json::{Value, json};

use super::Attributes;
use crate::State;
use crate::audit::{Level, Trail};
use crate::authn::User;
use crate::authz;
use crate::objects::Objects;
use crate::reply;
use api::cel::{Authorizer, Decision as Right, Question};
use api::policy::{Binding, Decision, Input, Mutated, ParamRef, Policy, Request, Verdict};
use api::selector::LabelSelector;
use api::{ApiError, FieldValidation, Resource, meta};
use store::Revision;

const GROUP: &str = "admissionregistration.k8s.io";

/// Nobody locks out who could put it right.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// Objects with parameters that one binding may have.
const MAX_PARAMS: usize = 1_000;

/// The audit annotation of a refusal whose binding audits.
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";
/// Bytes of an audit annotation that a policy makes; the rest is cut off.
const ANNOTATION_BYTES: usize = 10 * 1024;

/// The policies as they are now.
#[derive(Default)]
pub struct Configured {
    validating: RwLock<Made>,
    mutating: RwLock<Made>,
}

#[derive(Clone, Default)]
struct Made {
    policies: Arc<Policies>,
    /// The last change of a policy and of a binding that they know of.
    at: (Revision, Revision),
}

/// In the order of their names.
#[derive(Default)]
struct Policies {
    all: Vec<Arc<Hook>>,
    /// By the plural that a rule names.
    by_plural: BTreeMap<Box<str>, Vec<usize>>,
    /// With a rule for every plural.
    everywhere: Vec<usize>,
}

/// A policy with its bindings.
struct Hook {
    /// What it was made of.
    uid: String,
    spec: Value,
    policy: Arc<Policy>,
    bindings: Vec<Binding>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Validating,
    Mutating,
}

impl Role {
    fn plurals(self) -> (&'static str, &'static str) {
        match self {
            Self::Validating => (
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
            ),
            Self::Mutating => (
                "mutatingadmissionpolicies",
                "mutatingadmissionpolicybindings",
            ),
        }
    }
}

impl Configured {
    fn of(&self, role: Role, objects: &Objects) -> Result<Arc<Policies>, ApiError> {
        let made = match role {
            Role::Validating => &self.validating,
            Role::Mutating => &self.mutating,
        };
        let (policies, bindings) = role.plurals();
        let (policies, bindings) = (own_kind(policies)?, own_kind(bindings)?);
        let cache = &objects.cache;
        let at = (cache.last_change(policies), cache.last_change(bindings));
        let known = made.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.at == at {
            return Ok(known.policies);
        }
        let policies = Arc::new(Policies::read(
            objects,
            policies,
            bindings,
            &known.policies,
        )?);
        *made.write().unwrap_or_else(PoisonError::into_inner) = Made {
            policies: policies.clone(),
            at,
        };
        Ok(policies)
    }
}

fn own_kind(plural: &str) -> Result<&'static Arc<Resource>, ApiError> {
    api::find(GROUP, "v1", plural).ok_or(ApiError::NoSuchResource)
}

impl Policies {
    /// A policy that is as it was is not compiled again.
    fn read(
        objects: &Objects,
        policies: &Arc<Resource>,
        bindings: &Arc<Resource>,
        known: &Self,
    ) -> Result<Self, ApiError> {
        let mut bound: BTreeMap<Box<str>, Vec<Binding>> = BTreeMap::new();
        for cached in objects.cache.list(bindings, None).1 {
            let binding = Binding::of(&reply::parse(&cached.bytes())?);
            bound
                .entry(binding.policy.clone())
                .or_default()
                .push(binding);
        }
        let mut made = Self::default();
        for cached in objects.cache.list(policies, None).1 {
            let mut policy = reply::parse(&cached.bytes())?;
            let (uid, spec) = (meta::uid(&policy).to_owned(), policy["spec"].clone());
            let same = known
                .all
                .iter()
                .find(|hook| hook.uid == uid && hook.spec == spec);
            let compiled = match same {
                Some(hook) => hook.policy.clone(),
                None => Arc::new(Policy::of(&policy)),
            };
            policy["spec"] = Value::Null;
            let bindings = bound.remove(&*compiled.name).unwrap_or_default();
            made.add(Hook {
                uid,
                spec,
                policy: compiled,
                bindings,
            });
        }
        Ok(made)
    }

    fn add(&mut self, hook: Hook) {
        let index = self.all.len();
        match hook.policy.constraints.plurals() {
            Some(plurals) => {
                for plural in plurals {
                    self.by_plural.entry(plural.into()).or_default().push(index);
                }
            }
            None => self.everywhere.push(index),
        }
        self.all.push(Arc::new(hook));
    }

    /// The policies whose rules may name the plural, in order.
    fn for_plural(&self, plural: &str) -> Vec<&Arc<Hook>> {
        let named = self.by_plural.get(plural).into_iter().flatten();
        let mut indexes: Vec<usize> = named.chain(&self.everywhere).copied().collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into_iter().map(|index| &self.all[index]).collect()
    }
}

/// What is asked of the policies about one request.
struct Asking<'a> {
    attributes: &'a Attributes<'a>,
    policies: Arc<Policies>,
    /// AdmissionRequest without the objects.
    request: Value,
    /// The object's namespace, if it has one.
    namespace: Option<Value>,
}

/// What policies want to say in the audit log, by `POLICY/KEY`. Parameters and bindings each may have
/// something to say under the same key.
#[derive(Default)]
struct Annotations(BTreeMap<String, Vec<String>>);

impl Annotations {
    fn add(&mut self, policy: &str, said: Vec<(String, String)>) {
        for (key, mut value) in said {
            value.truncate(value.floor_char_boundary(ANNOTATION_BYTES));
            let values = self.0.entry(format!("{policy}/{key}")).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn write(self, trail: &Trail) {
        for (key, values) in self.0 {
            trail.annotate(&key, &values.join(", "));
        }
    }
}

/// Lets policies change a new or changed object.
pub fn mutate(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    let Some(asking) = Asking::of(attributes, Role::Mutating)? else {
        return Ok(());
    };
    let before = object.clone();
    asking.mutate(object, |_| true)?;
    if *object != before {
        // Those that want to see what others have made of it are asked once more.
        asking.mutate(object, |policy| policy.reinvoked)?;
    }
    Ok(())
}

/// Whether a policy may change objects of the kind.
pub fn may_mutate(attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    let Attributes {
        state, resource, ..
    } = attributes;
    let policies = state.policies.of(Role::Mutating, &state.objects)?;
    Ok(!policies.for_plural(&resource.plural).is_empty())
}

/// Asks the policies that may refuse; `object` is None for a deletion.
pub fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(asking) = Asking::of(attributes, Role::Validating)? else {
        return Ok(());
    };
    let mut denied: Option<(String, String)> = None;
    let mut annotations = Annotations::default();
    for hook in asking.policies.for_plural(&attributes.resource.plural) {
        if !asking.is_for(&hook.policy.constraints, object) {
            continue;
        }
        for binding in &hook.bindings {
            let bound = binding.constraints.as_ref();
            if bound.is_some_and(|bound| !asking.is_for(bound, object)) {
                continue;
            }
            for verdict in asking.verdicts(&hook.policy, binding, object) {
                for refusal in &verdict.refusals {
                    asking.act(&hook.policy, binding, refusal, &mut denied);
                }
                annotations.add(&hook.policy.name, verdict.annotations);
            }
        }
    }
    annotations.write(attributes.trail);
    match denied {
        Some((message, reason)) => Err(refused(attributes, &message, &reason)),
        None => Ok(()),
    }
}

impl<'a> Asking<'a> {
    /// None: no policy can be for the request.
    fn of(attributes: &'a Attributes<'a>, role: Role) -> Result<Option<Self>, ApiError> {
        let resource = attributes.resource;
        if resource.group == GROUP && EXEMPT.contains(&&*resource.plural) {
            return Ok(None);
        }
        let state = attributes.state;
        let policies = state.policies.of(role, &state.objects)?;
        if policies.for_plural(&resource.plural).is_empty() {
            return Ok(None);
        }
        let namespace = namespace_of(attributes)?;
        Ok(Some(Self {
            request: request(attributes),
            attributes,
            policies,
            namespace,
        }))
    }

    fn is_for(&self, constraints: &api::policy::Constraints, object: Option<&Value>) -> bool {
        let attributes = self.attributes;
        let resource = attributes.resource;
        let form = Request {
            operation: attributes.operation.as_str(),
            group: &resource.group,
            version: &resource.version,
            plural: &resource.plural,
            subresource: attributes.subresource.map_or("", |sub| sub.name()),
            name: attributes.name,
            cluster_scoped: self.namespace.is_none(),
        };
        if !constraints.match_rules(std::iter::once(form))
            || !constraints.select_object(object, attributes.old)
        {
            return false;
        }
        let namespace = match is_namespace(resource) {
            true => object.or(attributes.old),
            false => self.namespace.as_ref(),
        };
        let labels = namespace.map(meta::labels);
        labels.is_none_or(|labels| constraints.select_namespace(&labels))
    }

    fn input<'b>(
        &'b self,
        object: Option<&'b Value>,
        params: Option<&'b Value>,
        authorizer: &'b Rights<'b>,
    ) -> Input<'b> {
        Input {
            object,
            old: self.attributes.old,
            request: &self.request,
            namespace: self.namespace.as_ref(),
            params,
            authorizer: Some(authorizer),
        }
    }

    fn rights(&self) -> Rights<'_> {
        Rights::of(self.attributes)
    }

    /// What a policy says of the request, with each of the parameters of a binding.
    fn verdicts(&self, policy: &Policy, binding: &Binding, object: Option<&Value>) -> Vec<Verdict> {
        let rights = self.rights();
        match self.params(policy, binding) {
            Ok(params) => params
                .iter()
                .map(|params| policy.validate(&self.input(object, params.as_ref(), &rights)))
                .collect(),
            Err(_) if policy.fails_open => Vec::new(),
            Err(why) => vec![Verdict {
                refusals: vec![Decision {
                    index: 0,
                    message: format!("failed to configure binding: {why}"),
                    reason: String::new(),
                }],
                ..Verdict::default()
            }],
        }
    }

    fn act(
        &self,
        policy: &Policy,
        binding: &Binding,
        refusal: &Decision,
        denied: &mut Option<(String, String)>,
    ) {
        let (policy, name, why) = (&policy.name, &binding.name, &refusal.message);
        // A binding that cannot be used has no say in what that means.
        if (binding.denies || refusal.reason.is_empty()) && denied.is_none() {
            let message = format!(
                "ValidatingAdmissionPolicy '{policy}' with binding '{name}' denied request: {why}"
            );
            *denied = Some((message, refusal.reason.clone()));
        }
        if binding.warns {
            self.attributes.warnings.add([format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding \
                 '{name}': {why}"
            )]);
        }
        let trail = self.attributes.trail;
        if binding.audits && trail.is_at(Level::Metadata) {
            let failure = json!([{
                "message": why,
                "policy": policy,
                "binding": name,
                "expressionIndex": refusal.index,
                "validationActions": binding.actions,
            }]);
            trail.annotate(VALIDATION_FAILURE, &failure.to_string());
        }
    }

    fn mutate(&self, object: &mut Value, fits: impl Fn(&Policy) -> bool) -> Result<(), ApiError> {
        let rights = self.rights();
        for hook in self.policies.for_plural(&self.attributes.resource.plural) {
            let policy = &hook.policy;
            if !fits(policy) || !self.is_for(&policy.constraints, Some(object)) {
                continue;
            }
            for binding in &hook.bindings {
                let bound = binding.constraints.as_ref();
                if bound.is_some_and(|bound| !self.is_for(bound, Some(object))) {
                    continue;
                }
                let failed = |why: String| {
                    let message = format!(
                        "policy '{}' with binding '{}' denied request: {why}",
                        policy.name, binding.name
                    );
                    forbidden(self.attributes, message)
                };
                let params = match self.params(policy, binding) {
                    Ok(params) => params,
                    Err(_) if policy.fails_open => continue,
                    Err(why) => return Err(failed(format!("failed to configure binding: {why}"))),
                };
                for params in &params {
                    let input = self.input(Some(object), params.as_ref(), &rights);
                    match policy.mutate(self.attributes.resource, object, &input) {
                        Mutated::Nothing => {}
                        Mutated::Failed(why) => return Err(failed(why)),
                        Mutated::Object(changed) => self.take(object, changed)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What a policy has made is an object of the kind, with defaults.
    fn take(&self, object: &mut Value, changed: Value) -> Result<(), ApiError> {
        if *object == changed {
            return Ok(());
        }
        let resource = self.attributes.resource;
        let decoded = resource.canonical(changed, FieldValidation::Ignore)?;
        *object = decoded.object;
        resource.default(object);
        Ok(())
    }

    /// The parameters of a binding; none is one set of no parameters.
    fn params(&self, policy: &Policy, binding: &Binding) -> Result<Vec<Option<Value>>, String> {
        let (Some((version, kind)), Some(wanted)) = (&policy.param_kind, &binding.params) else {
            return Ok(vec![None]);
        };
        let resource = self.kind_of_params(version, kind)?;
        let namespace = self.namespace_of_params(&resource, wanted)?;
        let cache = &self.attributes.state.objects.cache;
        let found = match wanted.name.is_empty() {
            false => cache
                .get(&resource, &namespace, &wanted.name)
                .into_iter()
                .collect(),
            true => {
                let within = resource.namespaced().then_some(&*namespace);
                cache.list(&resource, within).1
            }
        };
        let selector = selector(&wanted.selector)?;
        let mut params = Vec::new();
        for cached in found {
            let object = reply::parse(&cached.bytes()).map_err(|e| e.to_string())?;
            if !wanted.name.is_empty() || selector.matches(&meta::labels(&object)) {
                params.push(Some(object));
            }
            if params.len() > MAX_PARAMS {
                return Err(format!("the selector finds more than {MAX_PARAMS} objects"));
            }
        }
        match params.is_empty() && wanted.must_exist {
            true => {
                Err("no params found for policy binding with `Deny` parameterNotFoundAction".into())
            }
            false => Ok(params),
        }
    }

    fn kind_of_params(&self, version: &str, kind: &str) -> Result<Arc<Resource>, String> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let snapshot = self.attributes.state.registry.snapshot();
        let found = snapshot.version(group, version).and_then(|version| {
            let mut all = version.served.iter();
            all.find(|served| served.resource.kind == kind)
        });
        match found {
            Some(served) => Ok(served.storage.clone()),
            None => Err(format!("paramKind kind `{kind}` not known")),
        }
    }

    fn namespace_of_params(
        &self,
        resource: &Resource,
        wanted: &ParamRef,
    ) -> Result<String, String> {
        match (resource.namespaced(), wanted.namespace.is_empty()) {
            (false, true) => Ok(String::new()),
            (false, false) => Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into(),
            ),
            (true, false) => Ok(wanted.namespace.to_string()),
            (true, true) if self.attributes.namespace.is_empty() => Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped \
                 resources"
                    .into(),
            ),
            (true, true) => Ok(self.attributes.namespace.to_owned()),
        }
    }
}

fn selector(value: &Value) -> Result<LabelSelector, String> {
    if value.is_null() {
        return Ok(LabelSelector::everything());
    }
    let parsed = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    LabelSelector::from_object(Some(&parsed)).map_err(|e| e.to_string())
}

fn is_namespace(resource: &Resource) -> bool {
    resource.behaviour == api::Behaviour::Namespace
}

fn namespace_of(attributes: &Attributes<'_>) -> Result<Option<Value>, ApiError> {
    if attributes.namespace.is_empty() || is_namespace(attributes.resource) {
        return Ok(None);
    }
    let kind = api::find("", "v1", "namespaces").ok_or(ApiError::NoSuchResource)?;
    let found = attributes
        .state
        .objects
        .get(kind, "", attributes.namespace)?;
    Ok(Some(reply::parse(&found.bytes())?))
}

fn request(attributes: &Attributes<'_>) -> Value {
    let of = attributes.resource;
    let sent = attributes.asked.body.unwrap_or(of);
    let kind = json!({"group": sent.group, "version": sent.version, "kind": sent.kind});
    let resource = json!({"group": of.group, "version": of.version, "resource": of.plural});
    let mut request = json!({
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": attributes.name,
        "operation": attributes.operation.as_str(),
        "userInfo": attributes.user.info(),
        "dryRun": attributes.dry_run,
    });
    if !attributes.namespace.is_empty() {
        request["namespace"] = attributes.namespace.into();
    }
    if let Some(sub) = attributes.subresource {
        for field in ["subResource", "requestSubResource"] {
            request[field] = sub.name().into();
        }
    }
    request
}

/// The refusal of a policy: forbidden by its text, and what its reason says by its code.
fn refused(attributes: &Attributes<'_>, why: &str, reason: &str) -> ApiError {
    let (code, reason) = match reason {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    let forbidden = ApiError::forbidden(attributes.resource, attributes.name, why);
    let mut status: Status = forbidden.status();
    status.code = Some(code);
    status.reason = Some(reason.to_owned());
    let details = status.details.get_or_insert_with(StatusDetails::default);
    details.causes = Some(vec![StatusCause {
        message: Some(why.to_owned()),
        ..StatusCause::default()
    }]);
    ApiError::Given(Box::new(status))
}

fn forbidden(attributes: &Attributes<'_>, message: String) -> ApiError {
    let mut status = ApiError::forbidden(attributes.resource, attributes.name, "").status();
    status.message = Some(message);
    status.reason = Some("Invalid".to_owned());
    ApiError::Given(Box::new(status))
}

/// What the client may do.
pub struct Rights<'a> {
    state: &'a State,
    user: &'a User,
}

impl<'a> Rights<'a> {
    pub fn of(attributes: &Attributes<'a>) -> Self {
        Self {
            state: attributes.state,
            user: attributes.user,
        }
    }
}

impl Authorizer for Rights<'_> {
    fn check(&self, question: &Question) -> Right {
        let account = question.service_account.as_ref().map(|(namespace, name)| {
            let groups = [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ];
            User::named(
                &format!("system:serviceaccount:{namespace}:{name}"),
                groups.to_vec(),
            )
        });
        let wanted = authz::Attributes {
            verb: &question.verb,
            group: &question.group,
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: Some(question.path.as_str()).filter(|path| !path.is_empty()),
        };
        let user = account.as_ref().unwrap_or(self.user);
        let decision = authz::allows(self.state, user, &wanted);
        Right {
            allowed: decision.is_allowed(),
            reason: decision.reason(),
            ..Right::default()
        }
    }
}
