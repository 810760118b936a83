//! What the two bindings have in common: to whom a role is given, and which.

use jiff::Timestamp;
use serde_json::Value;

use super::GROUP;
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, text};
use crate::defaults::{items, set};
use crate::resource::Scope;
use crate::validation::{At, Errors, names};

pub const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Role", "The role that is given"),
        AGE,
        Column::wide("Users", "The users that get it"),
        Column::wide("Groups", "The groups that get it"),
        Column::wide("ServiceAccounts", "The service accounts that get it"),
    ],
    cells,
};

pub fn default(object: &mut Value) {
    set(&mut object["roleRef"], "apiGroup", || GROUP.into());
    for subject in items(object, "subjects") {
        if ["Group", "User"]
            .iter()
            .any(|kind| subject["kind"] == *kind)
        {
            set(subject, "apiGroup", || GROUP.into());
        }
    }
}

pub fn validate(object: &At<'_>, scope: Scope, errors: &mut Errors) {
    let role = object.field("roleRef");
    let (group, kind, name) = (
        role.field("apiGroup"),
        role.field("kind"),
        role.field("name"),
    );
    if group.text() != GROUP {
        errors.not_supported(&group, &[GROUP]);
    }
    let kinds: &[&str] = match scope {
        Scope::Namespaced => &["Role", "ClusterRole"],
        Scope::Cluster => &["ClusterRole"],
    };
    if !kinds.contains(&kind.text()) {
        errors.not_supported(&kind, kinds);
    }
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.check(&name, names::path_segment(name.text()));
    }
    let subjects = object.field("subjects");
    subjects.items().for_each(|at| subject(&at, scope, errors));
}

pub fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let role = new.field("roleRef");
    if role.value != old.field("roleRef").value {
        errors.invalid(&role, "cannot change roleRef");
    }
}

fn subject(subject: &At<'_>, scope: Scope, errors: &mut Errors) {
    let (kind, name) = (subject.field("kind"), subject.field("name"));
    let (group, namespace) = (subject.field("apiGroup"), subject.field("namespace"));
    if name.is_empty() {
        errors.required(&name, "");
    }
    match kind.text() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.check(&name, names::subdomain(name.text()));
            }
            if !group.is_empty() {
                errors.not_supported(&group, &[""]);
            }
            if scope == Scope::Cluster && namespace.is_empty() {
                errors.required(&namespace, "");
            }
        }
        "User" | "Group" => {
            if name.is_empty() {
                let why = format!("{} name cannot be empty", kind.text().to_lowercase());
                errors.invalid_value(&name, "", why);
            }
            if group.text() != GROUP {
                errors.not_supported(&group, &[GROUP]);
            }
        }
        _ => errors.not_supported(&kind, &["ServiceAccount", "User", "Group"]),
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        text(object, "/roleRef/kind"),
        text(object, "/roleRef/name")
    );
    let of = |kind: &str| -> String {
        let subjects = list(object, "/subjects").iter();
        let subjects = subjects.filter(|subject| text(subject, "/kind") == kind);
        let names: Vec<String> = subjects
            .map(|subject| match kind {
                "ServiceAccount" => {
                    format!("{}/{}", text(subject, "/namespace"), text(subject, "/name"))
                }
                _ => text(subject, "/name").to_owned(),
            })
            .collect();
        names.join(", ")
    };
    vec![
        name(object),
        role.into(),
        age(object, now),
        of("User").into(),
        of("Group").into(),
        of("ServiceAccount").into(),
    ]
}
