//! What a policy changes of an object: by JSON Patch, or by applying a part of an object.

use serde_json::{Map, Value, json};

use super::{Input, Policy, text};
use crate::{
    apply,
    cel::{self, Env, Failure, Meter, OBJECT_LIMIT, Program, Wanted},
    meta, patch,
    resource::Resource,
};

/// One mutation of a policy.
#[derive(Debug)]
pub struct Mutation {
    program: Program,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Applied,
    JsonPatch,
}

/// What has come of a policy's mutations.
#[derive(Debug, PartialEq)]
pub enum Mutated {
    /// The policy is not for this request.
    Nothing,
    Object(Value),
    /// Why there is none; the policy does not fail open.
    Failed(String),
}

impl Mutation {
    pub fn of(mutation: &Value, env: &Env) -> Result<Self, String> {
        let (kind, field, wanted) = match text(&mutation["patchType"]) {
            "JSONPatch" => (Kind::JsonPatch, "jsonPatch", Wanted::JsonPatches),
            _ => (Kind::Applied, "applyConfiguration", Wanted::Applied),
        };
        let source = text(&mutation[field]["expression"]);
        Ok(Self {
            program: Program::compile(source, env, wanted)?,
            kind,
        })
    }
}

impl Policy {
    /// The object as this policy would have it. Each mutation sees what those before it have made.
    pub fn mutate(&self, resource: &Resource, object: &Value, input: &Input<'_>) -> Mutated {
        let failed = |why: String| match self.fails_open {
            true => Mutated::Nothing,
            false => Mutated::Failed(why),
        };
        if let Some(why) = &self.broken {
            return failed(why.clone());
        }
        match self.conditions.matches(input) {
            Ok(true) => {}
            Ok(false) => return Mutated::Nothing,
            Err(why) => return failed(why),
        }
        let mut object = object.clone();
        for mutation in &self.mutations {
            let input = Input {
                object: Some(&object),
                ..*input
            };
            match self.change(mutation, resource, &input) {
                Ok(changed) => object = changed,
                Err(why) => return failed(why),
            }
        }
        Mutated::Object(object)
    }

    fn change(
        &self,
        mutation: &Mutation,
        resource: &Resource,
        input: &Input<'_>,
    ) -> Result<Value, String> {
        let Some(object) = input.object else {
            return Err("there is no object to change".into());
        };
        let scope = self.scope(input);
        let mut meter = Meter::new(cel::CALL_LIMIT.min(OBJECT_LIMIT));
        meter.authorizer = input.authorizer;
        let outcome = mutation.program.run(&scope, &mut meter);
        let value = outcome.map_err(|failure| why(&failure))?;
        let json = value
            .to_json()
            .ok_or("the expression has no value that is JSON")?;
        match mutation.kind {
            Kind::JsonPatch => patched(resource, object, &json),
            Kind::Applied => applied(resource, object, &json),
        }
    }
}

fn why(failure: &Failure) -> String {
    format!("expression resulted in error: {}", failure.text())
}

/// A patch whose test fails changes nothing.
fn patched(resource: &Resource, object: &Value, patch: &Value) -> Result<Value, String> {
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut result = object.clone();
    for operation in operations {
        let is_test = operation["op"] == "test";
        match patch::json::apply(resource, &result, &json!([operation])) {
            Ok(changed) => result = changed,
            Err(_) if is_test => return Ok(object.clone()),
            Err(e) => return Err(format!("JSON Patch: {e}")),
        }
    }
    Ok(result)
}

/// A part of an object is merged by the schema, as a server-side apply is: lists by their keys.
fn applied(resource: &Resource, object: &Value, part: &Value) -> Result<Value, String> {
    refuse_identity(object, part)?;
    Ok(apply::merged(resource, object, part))
}

/// What an object is and where it lives is not a policy's to change.
fn refuse_identity(object: &Value, part: &Value) -> Result<(), String> {
    let empty = Map::new();
    let given = part["metadata"].as_object().unwrap_or(&empty);
    for (field, now) in [
        ("name", meta::name(object)),
        ("namespace", meta::namespace(object)),
        ("uid", meta::uid(object)),
    ] {
        if given.get(field).is_some_and(|value| value != now) {
            return Err(format!("metadata.{field} must not be changed"));
        }
    }
    Ok(())
}
