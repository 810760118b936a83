//! networking.k8s.io/v1 IPAddress: an address that an object has.

use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::Value;

use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::resource::{Resource, Scope};
use crate::validation::{At, Errors, NameRule, names};

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["ip".into()],
        scope: Scope::Cluster,
        name_rule: NameRule::IpAddress,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<IPAddress>(
            "networking.k8s.io",
            "networking",
            "ipaddress",
            "ipaddresses",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("ParentRef", "The object that has the address"),
        AGE,
    ],
    cells: |object, now| vec![name(object), parent(object).into(), age(object, now)],
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let parent = spec.field("parentRef");
    // Decoding fills in an empty reference where there is none.
    if parent
        .value
        .as_object()
        .is_none_or(|parent| parent.values().all(|part| part == ""))
    {
        errors.required(&parent, "");
        return;
    }
    let group = parent.field("group");
    if !group.is_empty() {
        errors.check(&group, names::subdomain(group.text()));
    }
    for field in ["resource", "name"] {
        let part = parent.field(field);
        if part.is_empty() {
            errors.required(&part, "");
        }
        errors.check(&part, names::path_segment(part.text()));
    }
    let namespace = parent.field("namespace");
    errors.check(&namespace, names::path_segment(namespace.text()));
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    errors.immutable(&new.field("parentRef"), &old.field("parentRef"));
}

/// `services/default/web`, `widgets.example.com/a`
fn parent(object: &Value) -> String {
    let Some(parent) = object.pointer("/spec/parentRef") else {
        return "<none>".into();
    };
    let mut shown = text(parent, "/resource").to_owned();
    if !text(parent, "/group").is_empty() {
        shown = format!("{shown}.{}", text(parent, "/group"));
    }
    shown = shown.to_lowercase();
    for part in [text(parent, "/namespace"), text(parent, "/name")] {
        if !part.is_empty() {
            shown = format!("{shown}/{part}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    fn address() -> Value {
        json!({
            "metadata": {"name": "10.96.0.10"},
            "spec": {"parentRef": {"resource": "services", "namespace": "kube-system", "name": "dns"}},
        })
    }

    #[test]
    fn an_address_is_stored_as_it_is_written() {
        assert_eq!(created(&resource(), address())["spec"], address()["spec"]);
    }

    #[test]
    fn an_address_names_itself_and_its_parent() {
        let name = |text: &str| json!({"name": text});
        assert_wrong(
            &resource(),
            &address(),
            &[
                (
                    "/metadata",
                    name("web"),
                    r#"metadata.name: Invalid value: "web": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                ),
                (
                    "/metadata",
                    name("fd00:0::1"),
                    r#"metadata.name: Invalid value: "fd00:0::1": must be in canonical form ("fd00::1")"#,
                ),
                ("/metadata", name("fd00::1"), ""),
                ("/spec", json!({}), "spec.parentRef: Required value"),
                (
                    "/spec/parentRef",
                    json!({"resource": "services"}),
                    "spec.parentRef.name: Required value",
                ),
            ],
        );
    }

    #[test]
    fn the_parent_of_an_address_does_not_change() {
        let old = created(&resource(), address());
        assert_refused(
            &resource(),
            &old,
            &[(
                "/spec/parentRef",
                json!({"resource": "services", "name": "a"}),
                r#"spec.parentRef: Invalid value: {"name":"a","resource":"services"}: field is immutable"#,
            )],
        );
    }

    #[test]
    fn a_row_shows_the_parent() {
        assert_eq!(
            row(&resource(), &address()),
            json!(["10.96.0.10", "services/kube-system/dns", "10m"])
        );
    }
}
