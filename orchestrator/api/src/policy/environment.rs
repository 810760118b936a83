//! What the expressions of policies and conditions may name.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::cel::{
    self, Authorizer, Check, Env, Question, Scope,
    typing::{Decl, Opaque, Type},
};

/// A request, as expressions see it.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// None for a deletion.
    pub object: Option<&'a Value>,
    /// None for a create.
    pub old: Option<&'a Value>,
    /// AdmissionRequest without the two objects.
    pub request: &'a Value,
    /// The Namespace of the object; None for one that has none.
    pub namespace: Option<&'a Value>,
    pub params: Option<&'a Value>,
    pub authorizer: Option<&'a dyn Authorizer>,
}

fn text() -> Value {
    json!({"type": "string"})
}

fn object(fields: Value) -> Value {
    json!({"type": "object", "properties": fields})
}

fn texts() -> Value {
    json!({"type": "array", "items": text()})
}

fn map_of(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

/// A schema that this module has written, so it declares something.
fn declared(schema: &Value) -> Arc<Decl> {
    Arc::new(Decl::of_schema(schema, false).unwrap_or(Decl {
        kind: cel::typing::DeclKind::Dyn,
        max_elements: 0,
        min_bytes: 0,
    }))
}

fn request() -> &'static Arc<Decl> {
    static REQUEST: OnceLock<Arc<Decl>> = OnceLock::new();
    REQUEST.get_or_init(|| {
        let kind = || object(json!({"group": text(), "version": text(), "kind": text()}));
        let resource = || object(json!({"group": text(), "version": text(), "resource": text()}));
        let user = object(json!({
            "username": text(),
            "uid": text(),
            "groups": texts(),
            "extra": map_of(texts()),
        }));
        let anything = json!({"x-kubernetes-int-or-string": true});
        declared(&object(json!({
            "kind": kind(),
            "resource": resource(),
            "subResource": text(),
            "requestKind": kind(),
            "requestResource": resource(),
            "requestSubResource": text(),
            "name": text(),
            "namespace": text(),
            "operation": text(),
            "userInfo": user,
            "dryRun": {"type": "boolean"},
            "options": anything,
        })))
    })
}

fn namespace() -> &'static Arc<Decl> {
    static NAMESPACE: OnceLock<Arc<Decl>> = OnceLock::new();
    NAMESPACE.get_or_init(|| {
        let time = || json!({"type": "string", "format": "date-time"});
        let condition = object(json!({
            "status": text(),
            "type": text(),
            "lastTransitionTime": time(),
            "message": text(),
            "reason": text(),
        }));
        let metadata = object(json!({
            "name": text(),
            "generateName": text(),
            "namespace": text(),
            "labels": map_of(text()),
            "annotations": map_of(text()),
            "UID": text(),
            "creationTimestamp": time(),
            "deletionGracePeriodSeconds": {"type": "integer"},
            "deletionTimestamp": time(),
            "generation": {"type": "integer"},
            "resourceVersion": text(),
            "finalizers": texts(),
        }));
        declared(&object(json!({
            "metadata": metadata,
            "spec": object(json!({"finalizers": texts()})),
            "status": object(json!({
                "conditions": {"type": "array", "items": condition},
                "phase": text(),
            })),
        })))
    })
}

/// Match conditions of a webhook or a policy.
pub fn of_conditions(has_params: bool) -> Env {
    let mut env = Env::default();
    for name in ["object", "oldObject"] {
        env.variables.insert(name.into(), Type::Dyn.into());
    }
    env.variables
        .insert("request".into(), request().clone().into());
    let authorizer = Type::Opaque(Opaque::Authorizer);
    env.variables.insert("authorizer".into(), authorizer.into());
    if has_params {
        env.variables.insert("params".into(), Type::Dyn.into());
    }
    env
}

/// Expressions of a policy: the namespace and the variables as well.
pub fn of_policy(has_params: bool, mutates: bool) -> Env {
    let mut env = of_conditions(has_params);
    env.variables
        .insert("namespaceObject".into(), namespace().clone().into());
    env.has_composed = true;
    env.mutates = mutates;
    env
}

/// The same without the authorizer: texts for people say nothing about rights.
pub fn without_authorizer(env: &Env) -> Env {
    let mut variables = env.variables.clone();
    variables.remove("authorizer");
    Env {
        variables,
        composed: env.composed.clone(),
        has_composed: env.has_composed,
        mutates: env.mutates,
    }
}

impl<'a> Input<'a> {
    pub fn scope(&self) -> Scope<'a> {
        let mut scope = Scope::default();
        let json = |value: Option<&'a Value>| value.map_or(cel::Value::Null, cel::Value::of_json);
        let typed = |value: &'a Value, decl: &'static Arc<Decl>| {
            cel::Value::of(value, decl).unwrap_or(cel::Value::Null)
        };
        let namespace = self
            .namespace
            .map_or(cel::Value::Null, |n| typed(n, namespace()));
        scope.values.extend([
            ("object", json(self.object)),
            ("oldObject", json(self.old)),
            ("params", json(self.params)),
            ("request", typed(self.request, request())),
            ("namespaceObject", namespace),
            ("authorizer", Check::authorizer()),
        ]);
        let word = |pointer: &str| {
            let word = self.request.pointer(pointer).and_then(Value::as_str);
            word.unwrap_or_default().to_owned()
        };
        scope.request_resource = Some(Question {
            group: word("/resource/group"),
            resource: word("/resource/resource"),
            subresource: word("/subResource"),
            namespace: word("/namespace"),
            name: word("/name"),
            ..Question::default()
        });
        scope
    }
}
