//! networking.k8s.io/v1 ServiceCIDR: ranges of Services' addresses.

use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::{Value, json};

use crate::columns::{AGE, Column, NAME, Printer, age, list, name};
use crate::resource::{Resource, Scope, Subresource};
use crate::validation::addresses::cidr;
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        has_status: true,
        create: |object| object["status"] = json!({}),
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<ServiceCIDR>(
            "networking.k8s.io",
            "networking",
            "servicecidr",
            "servicecidrs",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("CIDRs", "The ranges, at most one of each address family"),
        AGE,
    ],
    cells: |object, now| {
        let ranges = list(object, "/spec/cidrs").iter();
        let ranges: Vec<&str> = ranges.filter_map(Value::as_str).collect();
        vec![name(object), ranges.join(",").into(), age(object, now)]
    },
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let ranges = spec.field("cidrs");
    let count = ranges.items().count();
    if count == 0 {
        errors.required(&ranges, "at least one CIDR required");
        return;
    }
    if count > 2 {
        errors.invalid_part(&ranges, spec.value, "may only hold up to 2 values");
        return;
    }
    let mut families = Vec::new();
    for at in ranges.items() {
        let Some(range) = cidr(&at, errors) else {
            continue;
        };
        families.push(range.is_ipv4());
        let canonical = format!("{}/{}", range.network(), range.prefix());
        if canonical != at.text() {
            errors.invalid(&at, format!("must be in canonical form (\"{canonical}\")"));
        }
    }
    if families.len() == 2 && families[0] == families[1] {
        errors.invalid(
            &ranges,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
             2001:db8::/64",
        );
    }
}

/// A second range, of the other address family, may be added.
fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    let (new, old) = (new.field("cidrs"), old.field("cidrs"));
    let (count, before) = (new.items().count(), old.items().count());
    if count != before && (count, before) != (2, 1) {
        errors.invalid(&new, "field is immutable");
        return;
    }
    for (now, before) in new.items().zip(old.items()) {
        errors.immutable(&now, &before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn ranges(cidrs: Value) -> Value {
        json!({"metadata": {"name": "more"}, "spec": {"cidrs": cidrs}})
    }

    #[test]
    fn a_range_is_stored_as_it_is_written() {
        let stored = created(&resource(), ranges(json!(["10.96.0.0/16"])));
        assert_eq!(stored["spec"], json!({"cidrs": ["10.96.0.0/16"]}));
        assert_eq!(stored["status"], json!({}));
    }

    #[test]
    fn a_service_range_is_one_of_each_family() {
        assert_wrong(
            &resource(),
            &ranges(json!(["10.96.0.0/16", "fd00::/112"])),
            &[
                (
                    "/spec",
                    json!({}),
                    "spec.cidrs: Required value: at least one CIDR required",
                ),
                (
                    "/spec/cidrs",
                    json!(["10.0.0.0/8", "11.0.0.0/8", "fd00::/64"]),
                    r#"spec.cidrs: Invalid value: {"cidrs":["10.0.0.0/8","11.0.0.0/8","fd00::/64"]}: may only hold up to 2 values"#,
                ),
                (
                    "/spec/cidrs",
                    json!(["10.0.0.0/8", "11.0.0.0/8"]),
                    r#"spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
                ),
                (
                    "/spec/cidrs",
                    json!(["10.96.0.1/16"]),
                    r#"spec.cidrs[0]: Invalid value: "10.96.0.1/16": must be in canonical form ("10.96.0.0/16")"#,
                ),
                (
                    "/spec/cidrs",
                    json!(["10.96.0.0"]),
                    r#"spec.cidrs[0]: Invalid value: "10.96.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                ),
            ],
        );
    }

    #[test]
    fn a_range_stays_and_gets_one_of_the_other_family_beside_it() {
        let old = created(&resource(), ranges(json!(["10.96.0.0/16"])));
        assert_refused(
            &resource(),
            &old,
            &[
                ("/spec/cidrs", json!(["10.96.0.0/16", "fd00::/112"]), ""),
                (
                    "/spec/cidrs",
                    json!(["10.97.0.0/16"]),
                    r#"spec.cidrs[0]: Invalid value: "10.97.0.0/16": field is immutable"#,
                ),
                (
                    "/spec/cidrs",
                    json!([]),
                    "[spec.cidrs: Required value: at least one CIDR required, spec.cidrs: Invalid value: null: field is immutable]",
                ),
            ],
        );
    }

    #[test]
    fn a_row_shows_the_ranges() {
        assert_eq!(
            row(&resource(), &ranges(json!(["10.96.0.0/16", "fd00::/112"]))),
            json!(["more", "10.96.0.0/16,fd00::/112", "10m"])
        );
    }
}
