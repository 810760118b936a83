//! storagemigration.k8s.io/v1 StorageVersionMigration: the wish that every object of a resource is
//! written again, in the version in which it is stored today.

use k8s_openapi::api::storagemigration::v1alpha1::StorageVersionMigration;
use serde_json::json;

use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::resource::{Generation, Resource, Scope, Subresource};
use crate::validation::{At, Errors, names};

pub fn resource() -> Resource {
    Resource {
        version: "v1".into(),
        definition: "io.k8s.api.storagemigration.v1.StorageVersionMigration".into(),
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        create: |object| object["status"] = json!({}),
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<StorageVersionMigration>(
            "storagemigration.k8s.io",
            "storagemigration",
            "storageversionmigration",
            "storageversionmigrations",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Resource", "Whose objects are written again"),
        AGE,
    ],
    cells: |object, now| {
        let resource = text(object, "/spec/resource/resource");
        let resource = match text(object, "/spec/resource/group") {
            "" => resource.to_owned(),
            group => format!("{resource}.{group}"),
        };
        vec![name(object), resource.into(), age(object, now)]
    },
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let of = spec.field("resource");
    let (group, resource) = (of.field("group"), of.field("resource"));
    if resource.is_empty() {
        errors.required(&resource, "resource is required");
    } else {
        errors.check(&resource, names::label(resource.text()));
    }
    if !group.is_empty() {
        errors.check(&group, names::subdomain(group.text()));
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    errors.immutable(&new.field("spec"), &old.field("spec"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row};

    #[test]
    fn a_migration_names_one_resource_for_good() {
        let migration = json!({
            "metadata": {"name": "m"},
            "spec": {"resource": {"group": "apps", "resource": "deployments"}},
        });
        let at = "/spec/resource";
        assert_wrong(
            &resource(),
            &migration,
            &[
                (
                    at,
                    json!({}),
                    "spec.resource.resource: Required value: resource is required",
                ),
                (
                    at,
                    json!({"group": "apps", "resource": "a/b"}),
                    "spec.resource.resource: Invalid value: \"a/b\": a lowercase RFC 1123 label \
                     must consist of lower case alphanumeric characters or '-', and must start and \
                     end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used \
                     for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ),
            ],
        );
        let old = created(&resource(), migration);
        assert_eq!(
            row(&resource(), &old),
            json!(["m", "deployments.apps", "10m"])
        );
        assert_refused(
            &resource(),
            &old,
            &[(
                at,
                json!({"resource": "pods"}),
                r#"spec: Invalid value: {"resource":{"resource":"pods"}}: field is immutable"#,
            )],
        );
    }
}
