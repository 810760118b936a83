//! PriorityClasses: the priority of a new pod, by the class that it names or by the default one.

use serde_json::Value;

use super::{Attributes, Operation};
use crate::State;
use crate::reply;
use api::kinds::scheduling::priority_class;
use api::{ApiError, Behaviour, meta};

/// A new pod gets number and policy of its class.
pub fn give(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let is_new_pod = attributes.resource.behaviour == Behaviour::Pod
        && attributes.operation == Operation::Create
        && attributes.subresource.is_none();
    if !is_new_pod {
        return Ok(());
    }
    let refuse = |why: String| ApiError::forbidden(attributes.resource, attributes.name, why);
    let spec = &mut pod["spec"];
    let named = spec["priorityClassName"].as_str().unwrap_or_default();
    let class = if named.is_empty() {
        default_class(attributes.state)?.unwrap_or(Value::Null)
    } else {
        let class = class(attributes.state, named)?;
        class.ok_or_else(|| refuse(format!("no PriorityClass with name {named} was found")))?
    };
    if named.is_empty() && class.is_object() {
        spec["priorityClassName"] = meta::name(&class).into();
    }
    let priority = class["value"].as_i64().unwrap_or(0);
    let asked = spec["priority"].as_i64();
    if let Some(asked) = asked.filter(|asked| *asked != priority) {
        return Err(refuse(format!(
            "the integer value of priority ({asked}) must not be provided in pod spec; priority \
             admission controller computed {priority} from the given PriorityClass name"
        )));
    }
    spec["priority"] = priority.into();
    let policy = class["preemptionPolicy"].as_str();
    let policy = policy.unwrap_or("PreemptLowerPriority");
    let asked = spec["preemptionPolicy"].as_str();
    if let Some(asked) = asked.filter(|asked| *asked != policy) {
        return Err(refuse(format!(
            "the string value of PreemptionPolicy ({asked}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

/// There is one default at most, and the system's classes stay.
pub fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    if attributes.resource.behaviour != Behaviour::PriorityClass {
        return Ok(());
    }
    let name = attributes.name;
    let refuse = |why: String| Err(ApiError::forbidden(attributes.resource, name, why));
    let Some(class) = object else {
        let mut system = priority_class::SYSTEM.iter();
        return match system.any(|(known, ..)| *known == name) {
            true => refuse("this is a system priority class and cannot be deleted".to_owned()),
            false => Ok(()),
        };
    };
    if class["globalDefault"] != true {
        return Ok(());
    }
    match default_class(attributes.state)? {
        Some(default) if meta::name(&default) != name => refuse(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            meta::name(&default)
        )),
        _ => Ok(()),
    }
}

fn class(state: &State, name: &str) -> Result<Option<Value>, ApiError> {
    let classes = api::find("scheduling.k8s.io", "v1", "priorityclasses");
    let classes = classes.ok_or(ApiError::NoSuchResource)?;
    let found = state.objects.cache.get(classes, "", name);
    found.map(|class| reply::parse(&class.bytes())).transpose()
}

/// Of several, which a race can make, the lowest.
fn default_class(state: &State) -> Result<Option<Value>, ApiError> {
    let classes = api::find("scheduling.k8s.io", "v1", "priorityclasses");
    let classes = classes.ok_or(ApiError::NoSuchResource)?;
    let mut lowest: Option<Value> = None;
    for class in state.objects.cache.list(classes, None).1 {
        let class = reply::parse(&class.bytes())?;
        let is_lower = lowest
            .as_ref()
            .is_none_or(|lowest| class["value"].as_i64() < lowest["value"].as_i64());
        if class["globalDefault"] == true && is_lower {
            lowest = Some(class);
        }
    }
    Ok(lowest)
}
