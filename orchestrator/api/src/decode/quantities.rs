//! Quantities of decoded objects: checked, and brought to the form in which they are stored.

use serde_json::Value;

use crate::{
    quantity::{Quantity, QuantityError},
    resource::Resource,
};

/// Rewrites every quantity of the object canonically (`1000m` is `1`).
pub fn canonicalize(resource: &Resource, object: &mut Value) -> Result<(), QuantityError> {
    if let Some(pod) = resource.pod_spec.and_then(|at| object.pointer_mut(at)) {
        pod_spec(pod)?;
    }
    for at in resource.resource_lists {
        if let Some(list) = object.pointer_mut(at) {
            resource_list(list)?;
        }
    }
    for quantity in resource.quantities {
        at(object, quantity)?;
    }
    Ok(())
}

fn pod_spec(pod: &mut Value) -> Result<(), QuantityError> {
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(pod, containers) {
            for list in ["limits", "requests"] {
                if let Some(list) = container.pointer_mut(&format!("/resources/{list}")) {
                    resource_list(list)?;
                }
            }
            for variable in items(container, "env") {
                at(variable, "/valueFrom/resourceFieldRef/divisor")?;
            }
        }
    }
    for list in ["/overhead", "/resources/limits", "/resources/requests"] {
        if let Some(list) = pod.pointer_mut(list) {
            resource_list(list)?;
        }
    }
    for volume in items(pod, "volumes") {
        at(volume, "/emptyDir/sizeLimit")?;
    }
    Ok(())
}

fn resource_list(list: &mut Value) -> Result<(), QuantityError> {
    for amount in list
        .as_object_mut()
        .into_iter()
        .flatten()
        .map(|(_, amount)| amount)
    {
        quantity(amount)?;
    }
    Ok(())
}

fn at(value: &mut Value, pointer: &str) -> Result<(), QuantityError> {
    value.pointer_mut(pointer).map_or(Ok(()), quantity)
}

fn quantity(value: &mut Value) -> Result<(), QuantityError> {
    if let Some(text) = value.as_str() {
        let canonical = Quantity::parse(text)?.to_string();
        if canonical != text {
            *value = canonical.into();
        }
    }
    Ok(())
}

fn items<'a>(value: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}
