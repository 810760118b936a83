//! A container's environment: values, references, `$(NAME)`. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Template, EnvVarSource, Pod};

use super::downward::{self, Facts};
use crate::api::sources::{Kind, Sources};
use crate::runtime::container_spec::SpecError;

/// The variables of a container, each name once, in the order in which they were first written.
pub fn environment(
    pod: &Pod,
    template: &Template,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, SpecError> {
    let mut env = Variables::default();
    for (name, value) in &sources.service_env {
        env.set(name, value.clone());
    }
    for from in template.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let wanted = [
            from.config_map_ref
                .as_ref()
                .map(|it| (Kind::ConfigMap, &it.name, it.optional)),
            from.secret_ref
                .as_ref()
                .map(|it| (Kind::Secret, &it.name, it.optional)),
        ];
        for (kind, name, optional) in wanted.into_iter().flatten() {
            match sources.entries(kind, name) {
                Some(entries) => {
                    for (key, value) in entries {
                        env.set(&format!("{prefix}{key}"), text(value.clone()));
                    }
                }
                None if optional == Some(true) => {}
                None => return Err(missing_object(kind, name)),
            }
        }
    }
    for variable in template.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(from) => referenced(pod, template, sources, facts, from)?,
            None => Some(expand(
                variable.value.as_deref().unwrap_or_default(),
                &env.values,
            )),
        };
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    Ok(env.into_list())
}

/// Replaces `$(NAME)` by the variable's value and `$$` by `$`. What names no variable stays.
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match values.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The value of a reference; none for an optional one that leads nowhere.
fn referenced(
    pod: &Pod,
    template: &Template,
    sources: &Sources,
    facts: &Facts,
    from: &EnvVarSource,
) -> Result<Option<String>, SpecError> {
    if let Some(field) = &from.field_ref {
        return downward::field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return downward::resource(pod, template, resource, facts).map(Some);
    }
    let key = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(it), _) => (Kind::ConfigMap, &it.name, &it.key, it.optional),
        (None, Some(it)) => (Kind::Secret, &it.name, &it.key, it.optional),
        (None, None) => return Err(SpecError::config("this kind of valueFrom is not supported")),
    };
    let (kind, name, key, optional) = key;
    match sources.value(kind, name, key) {
        Some(value) => Ok(Some(text(value.clone()))),
        None if optional == Some(true) => Ok(None),
        None if sources.entries(kind, name).is_none() => Err(missing_object(kind, name)),
        None => {
            let kind = word(kind);
            Err(SpecError::config(format!(
                "couldn't find key {key} in {kind} {name}"
            )))
        }
    }
}

/// Kubernetes' words for a source that is not there.
pub fn missing_object(kind: Kind, name: &str) -> SpecError {
    SpecError::config(format!("{} \"{name}\" not found", word(kind)))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::ConfigMap => "configmap",
        Kind::Secret => "secret",
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn into_list(mut self) -> Vec<(String, String)> {
        let values = &mut self.values;
        let take = |name: String| values.remove(&name).map(|value| (name, value));
        self.order.into_iter().filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_once_and_unknown_ones_stay() {
        let values = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &values), expected, "{text}");
        }
    }
}
