//! storage.k8s.io/v1 CSIDriver: what a driver wants of the cluster.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::{Value, json};

use super::GROUP;
use crate::columns::{AGE, Column, NAME, Printer, age, is_true, list, name, text};
use crate::defaults::set;
use crate::resource::{Resource, Scope};
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        answers_with_object: true,
        default,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<CSIDriver>(GROUP, "storage", "csidriver", "csidrivers")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::boolean(
            "AttachRequired",
            "Whether volumes are attached to nodes first",
        ),
        Column::boolean("PodInfoOnMount", "Whether the driver is told of the pod"),
        Column::boolean(
            "StorageCapacity",
            "Whether the scheduler looks at the free capacity",
        ),
        Column::text(
            "TokenRequests",
            "Audiences of the tokens that the driver wants",
        ),
        Column::boolean(
            "RequiresRepublish",
            "Whether volumes are published again and again",
        ),
        Column::text("Modes", "The kinds of volumes"),
        AGE,
    ],
    cells,
};

/// What a driver does that does not say otherwise.
const SWITCHES: [(&str, bool); 5] = [
    ("attachRequired", true),
    ("podInfoOnMount", false),
    ("requiresRepublish", false),
    ("seLinuxMount", false),
    ("storageCapacity", false),
];

const POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];

fn default(object: &mut Value) {
    let spec = &mut object["spec"];
    for (switch, state) in SWITCHES {
        set(spec, switch, || state.into());
    }
    set(spec, "fsGroupPolicy", || "ReadWriteOnceWithFSType".into());
    let modes = spec.get("volumeLifecycleModes").and_then(Value::as_array);
    if spec.is_object() && modes.is_none_or(Vec::is_empty) {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    errors.one_of_if_any(&spec.field("fsGroupPolicy"), &POLICIES);
    token_requests(&spec.field("tokenRequests"), errors);
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.items() {
        if !["Persistent", "Ephemeral"].contains(&mode.text()) {
            errors.not_supported_part(&modes, mode.value, &["Persistent", "Ephemeral"]);
        }
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if !period.is_null() && period.number() < 10 {
        errors.invalid(&period, "must be greater than or equal to 10 seconds");
    }
}

fn token_requests(requests: &At<'_>, errors: &mut Errors) {
    let mut audiences = BTreeSet::new();
    for request in requests.items() {
        let audience = request.field("audience");
        if !audiences.insert(audience.text().to_owned()) {
            errors.duplicate(&audience);
            continue;
        }
        let seconds = request.field("expirationSeconds");
        if seconds.is_null() {
            continue;
        }
        if seconds.number() < 600 {
            errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds.number() > 1 << 32 {
            errors.invalid(
                &seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    let (attach, before) = (new.field("attachRequired"), old.field("attachRequired"));
    if attach.value != before.value {
        // Kubernetes names the field so in its errors.
        let at = new.field("attachedRequired");
        errors.invalid_part(&at, attach.value, "field is immutable");
    }
    let modes = "volumeLifecycleModes";
    errors.immutable(&new.field(modes), &old.field(modes));
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let joined = |all: Vec<&str>, none: &str| match all.is_empty() {
        true => none.to_owned(),
        false => all.join(","),
    };
    let audiences = list(object, "/spec/tokenRequests").iter();
    let audiences = audiences
        .map(|request| text(request, "/audience"))
        .collect();
    let modes = list(object, "/spec/volumeLifecycleModes").iter();
    let modes = modes.filter_map(Value::as_str).collect();
    vec![
        name(object),
        is_true(object, "/spec/attachRequired").into(),
        is_true(object, "/spec/podInfoOnMount").into(),
        is_true(object, "/spec/storageCapacity").into(),
        joined(audiences, "<unset>").into(),
        is_true(object, "/spec/requiresRepublish").into(),
        joined(modes, "<none>").into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn driver() -> Value {
        json!({"metadata": {"name": "ebs.csi.aws.com"}, "spec": {"attachRequired": true}})
    }

    #[test]
    fn a_driver_attaches_persistent_volumes_and_wants_no_more_unless_it_says_so() {
        assert_eq!(
            created(&resource(), driver())["spec"],
            json!({
                "attachRequired": true,
                "fsGroupPolicy": "ReadWriteOnceWithFSType",
                "podInfoOnMount": false,
                "requiresRepublish": false,
                "seLinuxMount": false,
                "storageCapacity": false,
                "volumeLifecycleModes": ["Persistent"],
            })
        );
    }

    #[test]
    fn a_driver_with_unknown_words_or_impossible_tokens_is_refused() {
        assert_wrong(
            &resource(),
            &driver(),
            &[
                (
                    "/spec/fsGroupPolicy",
                    json!("Maybe"),
                    r#"spec.fsGroupPolicy: Unsupported value: "Maybe": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
                ),
                (
                    "/spec/volumeLifecycleModes",
                    json!(["Eternal"]),
                    r#"spec.volumeLifecycleModes: Unsupported value: "Eternal": supported values: "Persistent", "Ephemeral""#,
                ),
                (
                    "/spec/tokenRequests",
                    json!([{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]),
                    r#"[spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes, spec.tokenRequests[1].audience: Duplicate value: "a"]"#,
                ),
                (
                    "/spec/nodeAllocatableUpdatePeriodSeconds",
                    json!(9),
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater \
                     than or equal to 10 seconds",
                ),
            ],
        );
    }

    #[test]
    fn how_volumes_come_to_nodes_does_not_change() {
        let old = created(&resource(), driver());
        assert_refused(
            &resource(),
            &old,
            &[
                ("/spec/podInfoOnMount", json!(true), ""),
                (
                    "/spec/attachRequired",
                    json!(false),
                    "spec.attachedRequired: Invalid value: false: field is immutable",
                ),
                (
                    "/spec/volumeLifecycleModes",
                    json!(["Ephemeral"]),
                    r#"spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable"#,
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_what_the_driver_wants() {
        assert_eq!(
            row(&resource(), &created(&resource(), driver())),
            json!([
                "ebs.csi.aws.com",
                true,
                false,
                false,
                "<unset>",
                false,
                "Persistent",
                "10m",
            ])
        );
    }
}
