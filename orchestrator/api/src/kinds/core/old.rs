//! events.k8s.io/v1 and v1beta1: the objects of core's Events under other names. v1 is newer than
//! core's version and stricter about new events (Kubernetes 1.20, `pkg/apis/core/validation/events.go`).

use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};

use super::event;
use crate::columns::Printer;
use crate::kinds::old::{Face, Version};
use crate::resource::{Field, Resource};
use crate::served::{Conversion, Served};
use crate::validation::{At, Errors};

const V1BETA1: Version = Version {
    group: "events.k8s.io",
    version: "v1beta1",
    package: "events",
    life: Some(("1.22", "1.25")),
};

/// The names of fields here and in core's version.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// What field selectors may ask for here, and where it stands in a stored event.
const FIELDS: [(&str, &str); 10] = [
    ("regarding.kind", "/involvedObject/kind"),
    ("regarding.namespace", "/involvedObject/namespace"),
    ("regarding.name", "/involvedObject/name"),
    ("regarding.uid", "/involvedObject/uid"),
    ("regarding.apiVersion", "/involvedObject/apiVersion"),
    (
        "regarding.resourceVersion",
        "/involvedObject/resourceVersion",
    ),
    ("regarding.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingController", "/reportingComponent"),
    ("type", "/type"),
];

pub fn views() -> Vec<Served> {
    let face = || Face {
        conversion: Conversion::Pure { up, down },
        names,
        ..Face::of(event::resource)
    };
    let v1 = Version {
        version: "v1",
        life: None,
        ..V1BETA1
    };
    let strict = Face {
        names: |kind| {
            names(kind);
            kind.codec = Resource::of::<Event>("events.k8s.io", "events", "", "").codec;
        },
        rules: Some(|kind| kind.validate_create = validate_new),
        ..face()
    };
    vec![v1.serves(strict), V1BETA1.serves(face())]
}

fn names(kind: &mut Resource) {
    let fields = FIELDS.into_iter();
    kind.fields = fields.map(|(name, at)| Field::at(name, at)).collect();
    kind.printer = COLUMNS;
}

const COLUMNS: Printer = Printer {
    cells: |object, now| {
        let mut object = object.clone();
        up(&mut object);
        (event::COLUMNS.cells)(&object, now)
    },
    ..event::COLUMNS
};

fn up(object: &mut Value) {
    let Some(event) = object.as_object_mut() else {
        return;
    };
    for (here, there) in NAMES {
        if let Some(value) = event.remove(here) {
            event.insert(there.into(), value);
        }
    }
    event.entry("involvedObject").or_insert(json!({}));
}

fn down(object: &mut Value) {
    let Some(event) = object.as_object_mut() else {
        return;
    };
    for (here, there) in NAMES {
        if let Some(value) = event.remove(there) {
            event.insert(here.into(), value);
        }
    }
}

/// What is asked of an event that is made through v1; the paths are those of the stored version.
fn validate_new(object: &At<'_>, errors: &mut Errors) {
    let series = object.field("series");
    if !series.is_null() {
        let count = series.field("count");
        if count.number() < 2 {
            errors.invalid(&count, "should be at least 2");
        }
        let last = series.field("lastObservedTime");
        if last.is_empty() {
            errors.required(&last, "");
        }
    }
    let time = object.field("eventTime");
    if time.is_empty() {
        errors.required(&time, "");
    }
    let kind = object.field("type");
    if !["Normal", "Warning"].contains(&kind.text()) {
        errors.invalid_value(&kind, "", format!("has invalid value: {}", kind.text()));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let at = object.field(field);
        if !at.is_empty() && at.value != &json!(0) {
            errors.invalid_value(&at, "", "needs to be unset");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::old::testing::{assert_same, view};
    use crate::kinds::testing;

    fn old() -> Value {
        json!({
            "metadata": {"name": "web.1", "namespace": "default"},
            "action": "Binding", "reason": "Scheduled", "type": "Normal",
            "note": "assigned", "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
            "related": {"kind": "Node", "name": "n"},
            "reportingController": "scheduler", "reportingInstance": "scheduler-1",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"},
        })
    }

    #[test]
    fn an_event_has_other_names_in_cores_version() {
        let mut new = old();
        for (here, there) in [
            ("note", "message"),
            ("regarding", "involvedObject"),
            ("reportingController", "reportingComponent"),
        ] {
            let value = new.as_object_mut().unwrap().remove(here).unwrap();
            new[there] = value;
        }
        for version in ["v1", "v1beta1"] {
            let view = view("events.k8s.io", version, "events");
            assert_same(view, old(), new.clone());
        }
    }

    #[test]
    fn what_old_clients_wrote_is_shown_as_deprecated() {
        let stored = json!({
            "metadata": {"name": "web.1", "namespace": "default"},
            "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
            "involvedObject": {}, "message": "x", "source": {"component": "kubelet"},
            "reportingComponent": "", "reportingInstance": "",
        });
        let shown =
            crate::kinds::old::testing::shown(view("events.k8s.io", "v1", "events"), stored);
        assert_eq!(shown["deprecatedCount"], 3);
        assert_eq!(shown["deprecatedFirstTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(shown["deprecatedSource"], json!({"component": "kubelet"}));
    }

    #[test]
    fn a_new_event_of_v1_says_when_it_was_and_nothing_deprecated() {
        let refused = |version: &str, object: Value| {
            let view = view("events.k8s.io", version, "events");
            let object = view
                .resource
                .canonical(object, crate::FieldValidation::Strict);
            let stored = view.to_stored(object.unwrap().object).unwrap();
            testing::wrong(&view.storage, stored)
        };
        assert_eq!(refused("v1", old()), "");
        let mut without = old();
        without.as_object_mut().unwrap().remove("eventTime");
        without["deprecatedCount"] = 1.into();
        without["type"] = "Odd".into();
        assert_eq!(
            refused("v1", without.clone()),
            "[eventTime: Required value, type: Invalid value: \"\": has invalid value: Odd, count: \
             Invalid value: \"\": needs to be unset]"
        );
        assert_eq!(refused("v1beta1", without), "");
    }

    #[test]
    fn a_row_of_an_event_is_the_same_in_both_groups() {
        let view = view("events.k8s.io", "v1", "events");
        let row = testing::row(&view.resource, &old());
        assert_eq!(
            (&row[2], &row[3], &row[6]),
            (&json!("Scheduled"), &json!("pod/web"), &json!("assigned"))
        );
    }

    #[test]
    fn selectors_name_fields_as_this_version_does() {
        let view = view("events.k8s.io", "v1", "events");
        let stored = |name| view.resource.stored_field(name, &view.storage);
        assert_eq!(
            stored("regarding.name").map(|n| &**n),
            Some("involvedObject.name")
        );
        assert_eq!(
            stored("reportingController").map(|n| &**n),
            Some("reportingComponent")
        );
        assert_eq!(stored("involvedObject.name"), None);
    }
}
