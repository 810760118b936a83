//! The scale subresource: a view of a workload's replicas.

use serde_json::{Value, json};

use super::{
    custom::Custom, kinds::SCALE, meta, resource::Resource, selector::LabelSelector,
    status::ApiError,
};

/// Where a custom kind has what a Scale says, as JSON pointers.
#[derive(Debug)]
pub(crate) struct Paths {
    replicas: String,
    status_replicas: String,
    selector: Option<String>,
}

impl Paths {
    /// From `subresources.scale` of a version.
    pub(crate) fn of(scale: &Value) -> Option<Self> {
        let pointer = |field: &str| Some(scale[field].as_str()?.replace('.', "/"));
        Some(Self {
            replicas: pointer("specReplicasPath")?,
            status_replicas: pointer("statusReplicasPath")?,
            selector: pointer("labelSelectorPath"),
        })
    }
}

/// The Scale of a workload, with the workload's metadata.
///
/// # Errors
/// The object has no replicas, or its selector is broken.
pub fn of(resource: &Resource, object: &Value) -> Result<Value, ApiError> {
    let paths = resource.custom.as_ref().and_then(Custom::scale);
    let number = |at: &str| object.pointer(at).and_then(Value::as_i64);
    let (replicas, selector) = match paths {
        None => (
            number("/spec/replicas"),
            selector_text(&object["spec"]["selector"])?,
        ),
        Some(paths) => {
            let Some(replicas) = number(&paths.replicas) else {
                return Err(ApiError::Internal(format!(
                    "the spec replicas field {:?} does not exist",
                    paths.replicas.replace('/', ".")
                )));
            };
            let selector = paths.selector.as_deref().and_then(|at| object.pointer(at));
            let selector = selector.and_then(Value::as_str).unwrap_or_default();
            (Some(replicas), selector.to_owned())
        }
    };
    let now = number(paths.map_or("/status/replicas", |paths| &paths.status_replicas));
    let mut metadata = serde_json::Map::new();
    for field in [
        "creationTimestamp",
        "name",
        "namespace",
        "resourceVersion",
        "uid",
    ] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": now.unwrap_or_default()});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    Ok(json!({
        "apiVersion": SCALE.api_version(),
        "kind": SCALE.kind,
        "metadata": metadata,
        "spec": {"replicas": replicas.unwrap_or_default()},
        "status": status,
    }))
}

/// The workload with the replicas that `scale` asks for. Whether the resourceVersion of the Scale
/// is still the workload's is the caller's to check: stored objects do not carry theirs.
pub fn apply(resource: &Resource, object: &Value, scale: &Value) -> Result<Value, ApiError> {
    let name = meta::name(object);
    if !meta::name(scale).is_empty() && meta::name(scale) != name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            meta::name(scale)
        )));
    }
    SCALE.validate(scale, None, None)?;
    let mut scaled = object.clone();
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
    set_replicas(resource, &mut scaled, replicas.into());
    Ok(scaled)
}

/// Writes the replicas where the kind has them; what lies on the way and is absent is made.
pub(crate) fn set_replicas(resource: &Resource, object: &mut Value, replicas: Value) {
    let paths = resource.custom.as_ref().and_then(Custom::scale);
    let mut at = object;
    let path = paths.map_or("/spec/replicas", |paths| &paths.replicas);
    for step in path.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[step];
    }
    *at = replicas;
}

/// The selector as a query string; a ReplicationController's is a plain map.
fn selector_text(selector: &Value) -> Result<String, ApiError> {
    let plain = selector
        .as_object()
        .is_some_and(|map| map.values().all(Value::is_string));
    let selector = if plain {
        LabelSelector::from_map(&meta::string_map(selector))
    } else {
        let typed = serde_json::from_value(selector.clone())
            .map_err(|e| ApiError::Internal(format!("the stored selector is broken: {e}")))?;
        LabelSelector::from_object(Some(&typed))?
    };
    Ok(selector.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find;

    #[test]
    fn scaling_changes_the_replicas_and_nothing_else() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let object = json!({
            "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 1},
        });
        let mut scale = of(deployments, &object).unwrap();
        assert_eq!(
            scale["status"],
            json!({"replicas": 1, "selector": "app=web"})
        );
        scale["spec"]["replicas"] = 5.into();
        let mut expected = object.clone();
        expected["spec"]["replicas"] = 5.into();
        assert_eq!(apply(deployments, &object, &scale).unwrap(), expected);
        scale["spec"]["replicas"] = (-1).into();
        assert_eq!(
            apply(deployments, &object, &scale).unwrap_err().to_string(),
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be \
             greater than or equal to 0"
        );
    }
}
