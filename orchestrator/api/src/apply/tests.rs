//! A small cluster of one object: managers apply to it and update it, one second after another.

mod applying;
mod merging;
mod migration;
mod properties;
mod sets;
mod updating;

use super::*;
use crate::{find, meta};

/// One object that managers write.
struct Cluster {
    resource: &'static Resource,
    object: Option<Value>,
    seconds: i64,
}

impl Cluster {
    fn of(group: &str, plural: &str) -> Self {
        Self {
            resource: find(group, "v1", plural).unwrap(),
            object: None,
            seconds: 1_800_000_000,
        }
    }

    fn pods() -> Self {
        Self::of("", "pods")
    }

    fn deployments() -> Self {
        Self::of("apps", "deployments")
    }

    fn live(&self) -> &Value {
        self.object.as_ref().unwrap()
    }

    fn entries(&self) -> Vec<Value> {
        let list = self.live()["metadata"]["managedFields"].as_array();
        list.cloned().unwrap_or_default()
    }

    fn writer<'a>(&mut self, manager: &'a str, subresource: Option<Subresource>) -> Writer<'a> {
        self.seconds += 1;
        Writer {
            manager,
            subresource,
            now: Timestamp::from_second(self.seconds).unwrap(),
        }
    }

    fn try_apply(
        &mut self,
        manager: &str,
        subresource: Option<Subresource>,
        configuration: Value,
        force: bool,
    ) -> Result<(), ApiError> {
        let applied = named(self.resource, configuration);
        let writer = self.writer(manager, subresource);
        let live = self.object.as_ref();
        let mut object = apply(self.resource, live, &applied, &writer, force)?;
        self.resource.default(&mut object);
        self.object = Some(object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, configuration: Value) {
        self.try_apply(manager, None, configuration, false).unwrap();
    }

    fn force(&mut self, manager: &str, configuration: Value) {
        self.try_apply(manager, None, configuration, true).unwrap();
    }

    fn refused(&mut self, manager: &str, configuration: Value) -> ApiError {
        let before = self.object.clone();
        let error = self
            .try_apply(manager, None, configuration, false)
            .unwrap_err();
        assert_eq!(self.object, before);
        error
    }

    fn create(&mut self, manager: &str, object: Value) {
        let mut new = named(self.resource, object);
        new = self
            .resource
            .canonical(new, FieldValidation::Strict)
            .unwrap()
            .object;
        self.resource.default(&mut new);
        update(self.resource, None, &mut new, &self.writer(manager, None));
        self.object = Some(new);
    }

    fn update_at(
        &mut self,
        manager: &str,
        subresource: Option<Subresource>,
        change: impl FnOnce(&mut Value),
    ) {
        let writer = self.writer(manager, subresource);
        let mut new = self.live().clone();
        change(&mut new);
        new = self
            .resource
            .canonical(new, FieldValidation::Strict)
            .unwrap()
            .object;
        self.resource.default(&mut new);
        update(self.resource, self.object.as_ref(), &mut new, &writer);
        self.object = Some(new);
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        self.update_at(manager, None, change);
    }

    /// The paths of the manager's entries, as errors show them.
    fn owned(&self, manager: &str) -> Vec<String> {
        let entries = self.entries();
        let own = entries.iter().filter(|entry| entry["manager"] == manager);
        own.flat_map(|entry| shown(&entry["fieldsV1"])).collect()
    }

    fn time(&self, manager: &str) -> String {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry["manager"] == manager);
        entry.unwrap()["time"].as_str().unwrap().to_owned()
    }
}

/// The configuration with what says which object it is.
fn named(resource: &Resource, configuration: Value) -> Value {
    let mut object = json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "metadata": {"name": "web"},
    });
    if resource.namespaced() {
        object["metadata"]["namespace"] = "shop".into();
    }
    for (key, value) in configuration.as_object().unwrap() {
        match (key.as_str(), value.as_object()) {
            ("metadata", Some(metadata)) => {
                for (key, value) in metadata {
                    object["metadata"][key] = value.clone();
                }
            }
            _ => object[key] = value.clone(),
        }
    }
    object
}

fn shown(fields: &Value) -> Vec<String> {
    let set = FieldSet::of(fields.as_object().unwrap().clone());
    let paths = set.paths();
    let shown = paths
        .into_iter()
        .map(|path| path.into_iter().map(element::shown).collect());
    shown.collect()
}

/// The labels as configuration.
fn labels(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}})
}
