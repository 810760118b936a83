//! Rules in CEL and defaults of a structural schema: that the rules compile, name `oldSelf` only where
//! there is one, and cannot cost too much; that the defaults fit.
//!
//! How often a rule is asked is estimated by the sizes that the schema allows, as Kubernetes does.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    cel::{Program, Wanted, typing::Decl},
    schema::structural::{self, Inner, Schema},
    validation::{At, Errors},
};

/// The most that one rule may cost by the estimate, and all of a schema.
const RULE_LIMIT: u64 = 10_000_000;
const SCHEMA_LIMIT: u64 = 100_000_000;

/// Defaults of one schema that are checked.
const MAX_DEFAULTS: usize = 10_000;

pub fn validate(schema: &At<'_>, errors: &mut Errors) {
    let compiled = match Schema::compile(schema.value) {
        Ok(compiled) => compiled,
        Err(why) => return errors.invalid_value(schema, "", why),
    };
    let mut walk = Walk::default();
    let root = Spot {
        times: Some(1),
        is_object: true,
        uncorrelated: None,
        compiled: Some(Inner::root(&compiled)),
    };
    walk.schema(schema, &root, errors);
    if walk.total > SCHEMA_LIMIT {
        let what = "x-kubernetes-validations estimated cost total for entire OpenAPIv3 schema";
        errors.forbidden(schema, &too_dear(what, walk.total, SCHEMA_LIMIT));
    }
}

#[derive(Default)]
struct Walk {
    total: u64,
    defaults: usize,
}

/// Where a schema stands.
struct Spot<'a> {
    /// How many values there can be; None: as many as fit in a request.
    times: Option<u64>,
    is_object: bool,
    /// The list around it in which nobody knows which item replaces which.
    uncorrelated: Option<String>,
    /// The schema as it judges values.
    compiled: Option<Inner<'a>>,
}

impl Walk {
    fn schema(&mut self, schema: &At<'_>, spot: &Spot<'_>, errors: &mut Errors) {
        if !schema.value.is_object() {
            return;
        }
        self.check_default(schema, spot, errors);
        self.rules(schema, spot, errors);
        let properties = schema.field("properties");
        let compiled = spot.compiled;
        for (name, property) in properties.entries() {
            let inner = compiled.and_then(|compiled| compiled.property(name));
            self.schema(&property, &spot.below(&property, Some(1), inner), errors);
        }
        let values = schema.field("additionalProperties");
        let most = schema.value["maxProperties"].as_u64();
        let inner = compiled.and_then(Inner::others);
        self.schema(&values, &spot.below(&values, most, inner), errors);
        let items = schema.field("items");
        let most = schema.value["maxItems"].as_u64();
        let mut below = spot.below(&items, most, compiled.and_then(Inner::items));
        if schema.value["x-kubernetes-list-type"] != "map" && below.uncorrelated.is_none() {
            below.uncorrelated = Some(items.to_string());
        }
        self.schema(&items, &below, errors);
    }

    fn rules(&mut self, schema: &At<'_>, spot: &Spot<'_>, errors: &mut Errors) {
        let rules = schema.field("x-kubernetes-validations");
        if rules.is_empty() {
            return;
        }
        let Some(decl) = Decl::of_schema(schema.value, spot.is_object) else {
            let why = "failed to convert to declType for CEL validation rules";
            errors.invalid(&rules, why);
            return;
        };
        let decl = Arc::new(decl);
        let times = spot.times.unwrap_or_else(|| decl.max_cardinality());
        for rule in rules.items() {
            self.rule(&rule, &decl, times, spot, errors);
        }
    }

    fn rule(
        &mut self,
        at: &At<'_>,
        decl: &Arc<Decl>,
        times: u64,
        spot: &Spot<'_>,
        errors: &mut Errors,
    ) {
        let [rule, message, optional] =
            ["rule", "messageExpression", "optionalOldSelf"].map(|field| at.field(field));
        let env = structural::rule_env(decl, optional.is_true());
        let program = match Program::compile(rule.text(), &env, Wanted::Bool) {
            Ok(program) => program,
            Err(why) => {
                errors.invalid_part(&rule, at.value, &why);
                return;
            }
        };
        self.cost(
            &rule,
            "estimated rule cost",
            program.max_cost,
            times,
            errors,
        );
        let uses_old = program.names("oldSelf");
        if let (true, Some(list)) = (uses_old && !optional.is_true(), &spot.uncorrelated) {
            let why = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
            );
            errors.invalid(&rule, why);
        }
        if optional.is_true() && !uses_old {
            let why = "may not be set if oldSelf is not used in rule";
            errors.invalid(&optional, why);
        }
        if message.is_empty() {
            return;
        }
        match Program::compile(message.text(), &env, Wanted::String) {
            Ok(program) => {
                let what = "estimated messageExpression cost";
                self.cost(&message, what, program.max_cost, times, errors);
            }
            Err(why) => {
                let why = match why.strip_prefix("cel expression ") {
                    Some(rest) => format!("messageExpression {rest}"),
                    None => format!("messageExpression {why}"),
                };
                errors.invalid_part(&message, at.value, &why);
            }
        }
    }

    fn cost(&mut self, at: &At<'_>, what: &str, once: u64, times: u64, errors: &mut Errors) {
        let cost = once.saturating_mul(times);
        self.total = self.total.saturating_add(cost);
        if cost > RULE_LIMIT {
            errors.forbidden(at, &too_dear(what, cost, RULE_LIMIT));
        }
    }

    /// A default is a value of the schema that it stands in.
    fn check_default(&mut self, schema: &At<'_>, spot: &Spot<'_>, errors: &mut Errors) {
        let default = schema.field("default");
        self.defaults += 1;
        if default.is_null() || self.defaults > MAX_DEFAULTS {
            return;
        }
        let Some(judge) = spot.compiled else {
            return;
        };
        let place = default.to_string();
        let mut causes = judge.validate(default.value);
        for cause in &mut causes {
            cause.field = match cause.field.as_str() {
                "<nil>" => place.clone(),
                list if list.starts_with('[') => format!("{place}{list}"),
                field => format!("{place}.{field}"),
            };
        }
        errors.extend(causes);
    }
}

impl<'a> Spot<'a> {
    fn below(&self, schema: &At<'_>, most: Option<u64>, compiled: Option<Inner<'a>>) -> Self {
        Self {
            times: self
                .times
                .zip(most)
                .map(|(times, most)| times.saturating_mul(most)),
            is_object: is_embedded(schema.value),
            uncorrelated: self.uncorrelated.clone(),
            compiled,
        }
    }
}

fn is_embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, \
         maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
