//! flowcontrol.apiserver.k8s.io/v1beta1 to v1beta3. A level's shares had another name, and zero shares
//! were no shares said: an annotation keeps the zero (Kubernetes 1.29, `pkg/apis/flowcontrol/v1beta3`).

use serde_json::{Map, Value};

use super::{GROUP, flow_schema, priority_level_configuration as level};
use crate::columns::Printer;
use crate::kinds::old::{Face, Version};
use crate::served::{Conversion, Served};

/// Says of an object that its zero is meant.
const KEEPS_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

const SHARES: &str = "nominalConcurrencyShares";
const SHARES_ONCE: &str = "assuredConcurrencyShares";
const DEFAULT_SHARES: i64 = 30;

pub fn views() -> Vec<Served> {
    let version =
        |version: &'static str, deprecated: &'static str, removed: &'static str| Version {
            group: GROUP,
            version,
            package: "flowcontrol",
            life: Some((deprecated, removed)),
        };
    let once = || Face {
        default: |object| default(object, SHARES_ONCE),
        conversion: Conversion::Pure {
            up: up_from_assured,
            down: down_to_assured,
        },
        names: |kind| kind.printer = COLUMNS,
        ..Face::of(level::resource)
    };
    let newest = Face {
        default: |object| default(object, SHARES),
        conversion: Conversion::Pure { up, down },
        ..Face::of(level::resource)
    };
    let (first, second) = (
        version("v1beta1", "1.23", "1.26"),
        version("v1beta2", "1.26", "1.29"),
    );
    let third = version("v1beta3", "1.29", "1.32");
    vec![
        third.serves(Face::of(flow_schema::resource)),
        third.serves(newest),
        second.serves(Face::of(flow_schema::resource)),
        second.serves(once()),
        first.serves(Face::of(flow_schema::resource)),
        first.serves(once()),
    ]
}

/// The columns of today, of an object of then.
const COLUMNS: Printer = Printer {
    cells: |object, now| {
        let mut object = object.clone();
        rename(&mut object, SHARES_ONCE, SHARES);
        (level::COLUMNS.cells)(&object, now)
    },
    ..level::COLUMNS
};

fn default(object: &mut Value, shares: &str) {
    let keeps_zero = object["metadata"]["annotations"].get(KEEPS_ZERO).is_some();
    if let Some(limited) = limited(object) {
        let said = limited.get(shares).and_then(Value::as_i64);
        if said.unwrap_or_default() == 0 && !keeps_zero {
            limited.insert(shares.into(), DEFAULT_SHARES.into());
        }
    }
}

fn up(object: &mut Value) {
    let annotations = object["metadata"].get_mut("annotations");
    let annotations = annotations.and_then(Value::as_object_mut);
    let kept = annotations.and_then(|annotations| annotations.remove(KEEPS_ZERO));
    if let Some(limited) = limited(object).filter(|_| kept.is_some()) {
        limited.entry(SHARES).or_insert(0.into());
    }
}

fn down(object: &mut Value) {
    let limited = limited(object);
    let zero = limited.is_some_and(|limited| limited.get(SHARES) == Some(&0.into()));
    if zero {
        object["metadata"]["annotations"][KEEPS_ZERO] = "".into();
    }
}

fn up_from_assured(object: &mut Value) {
    rename(object, SHARES_ONCE, SHARES);
    up(object);
}

fn down_to_assured(object: &mut Value) {
    down(object);
    rename(object, SHARES, SHARES_ONCE);
}

fn rename(object: &mut Value, old: &str, new: &str) {
    if let Some(limited) = limited(object)
        && let Some(value) = limited.remove(old)
    {
        limited.insert(new.into(), value);
    }
}

fn limited(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.pointer_mut("/spec/limited")?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::old::testing::{assert_same, stored, view};

    fn configuration(limited: Value) -> Value {
        let mut limited = limited;
        limited["limitResponse"] = json!({"type": "Reject"});
        json!({
            "metadata": {"name": "batch"},
            "spec": {"type": "Limited", "limited": limited},
        })
    }

    #[test]
    fn the_shares_of_a_level_had_another_name() {
        let new = configuration(json!({SHARES: 5}));
        for (version, name) in [
            ("v1beta1", SHARES_ONCE),
            ("v1beta2", SHARES_ONCE),
            ("v1beta3", SHARES),
        ] {
            let view = view(GROUP, version, "prioritylevelconfigurations");
            assert_same(view, configuration(json!({name: 5})), new.clone());
        }
    }

    #[test]
    fn zero_shares_are_the_default_unless_an_annotation_means_them() {
        let none = configuration(json!({SHARES: 0}));
        for (version, name) in [("v1beta2", SHARES_ONCE), ("v1beta3", SHARES)] {
            let view = view(GROUP, version, "prioritylevelconfigurations");
            let said = configuration(json!({name: 0}));
            let expected = configuration(json!({SHARES: DEFAULT_SHARES}));
            assert_eq!(stored(view, said.clone()), expected);
            let mut kept = said;
            kept["metadata"]["annotations"] = json!({KEEPS_ZERO: ""});
            let mut back = none.clone();
            back["metadata"]["annotations"] = json!({});
            assert_eq!(stored(view, kept)["spec"], back["spec"]);
        }
    }
}
