//! v1 Event.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use crate::columns::{Column, Printer, name, number, since, text};
use crate::defaults::set;
use crate::quota::Usage;
use crate::resource::{Absent, Behaviour, Field, Resource};
use crate::validation::{At, Errors};

/// What field selectors may ask for at the place of its name.
const FIELDS: [&str; 10] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
];

pub fn resource() -> Resource {
    Resource {
        usage: Usage::Nothing,
        behaviour: Behaviour::Event,
        short_names: vec!["ev".into()],
        fields: fields(),
        default,
        validate,
        printer: COLUMNS,
        ..Resource::of::<Event>("", "core", "event", "events")
    }
}

fn fields() -> Vec<Field> {
    let source = Field::at("source", "/source/component").or(Absent::At("/reportingComponent"));
    FIELDS.into_iter().map(Field::of).chain([source]).collect()
}

pub(super) const COLUMNS: Printer = Printer {
    columns: &[
        Column::text("Last Seen", "Time since it was last seen"),
        Column::text("Type", "Normal or Warning"),
        Column::text("Reason", "The short reason"),
        Column::text("Object", "The object that it is about"),
        Column::wide("Subobject", "The part of the object that it is about"),
        Column::wide("Source", "Who reports it"),
        Column::text("Message", "What happened"),
        Column::wide("First Seen", "Time since it was first seen"),
        Column::wide("Count", "How often it was seen"),
        Column::wide("Name", "The event's own name"),
    ],
    cells,
};

/// An event's two newest fields are always there.
fn default(object: &mut Value) {
    set(object, "reportingComponent", || "".into());
    set(object, "reportingInstance", || "".into());
    set(object, "source", || json!({}));
}

/// An event lives beside its object; events of objects without a namespace in `default`.
fn validate(object: &At<'_>, errors: &mut Errors) {
    let metadata = object.field("metadata");
    let involved = object.field("involvedObject");
    let about = involved.field("namespace");
    let namespace = metadata.field("namespace");
    let fits = match about.text() {
        "" => matches!(namespace.text(), "" | "default" | "kube-system"),
        about => about == namespace.text(),
    };
    if !fits {
        errors.invalid(&about, "does not match event.namespace");
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = match text(object, "/firstTimestamp") {
        "" => since(text(object, "/eventTime"), now),
        stamp => since(stamp, now),
    };
    let mut last = match text(object, "/lastTimestamp") {
        "" => first.clone(),
        stamp => since(stamp, now),
    };
    let mut count = number(object, "/count").max(1);
    if object.get("series").is_some_and(Value::is_object) {
        last = since(text(object, "/series/lastObservedTime"), now);
        count = number(object, "/series/count");
    }
    let kind = text(object, "/involvedObject/kind").to_lowercase();
    let target = match text(object, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        target.into(),
        text(object, "/involvedObject/fieldPath").into(),
        event_source(object).into(),
        text(object, "/message").trim().into(),
        first.into(),
        json!(count),
        name(object),
    ]
}

fn event_source(event: &Value) -> String {
    let (component, host) = match text(event, "/source/component") {
        "" => (
            text(event, "/reportingComponent"),
            text(event, "/reportingInstance"),
        ),
        component => (component, text(event, "/source/host")),
    };
    match host {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_object_and_counts() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let object = json!({
            "metadata": {"name": "nginx.1"}, "type": "Normal", "reason": "Started",
            "message": "Started container\n", "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:30Z",
            "involvedObject": {"kind": "Pod", "name": "nginx"},
            "source": {"component": "agent", "host": "node-1"},
        });
        let cells = cells(&object, now);
        assert_eq!(cells[0], "30s");
        assert_eq!(cells[3], "pod/nginx");
        assert_eq!(cells[5], "agent, node-1");
        assert_eq!(cells[6], "Started container");
        assert_eq!(cells[8], 3);
    }
}
