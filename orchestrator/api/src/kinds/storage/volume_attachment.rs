//! storage.k8s.io/v1 VolumeAttachment: a volume that is to be at a node.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};

use super::{GROUP, parameters};
use crate::columns::{AGE, Column, NAME, Printer, age, is_true, name, text};
use crate::prepare::keep_metadata;
use crate::resource::{Resource, Scope, Subresource};
use crate::validation::{At, Errors, names};

/// What an attacher may note of an attached volume, together.
const MAX_METADATA_BYTES: usize = 256 << 10;

const MAX_MESSAGE_BYTES: usize = 1024;

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        has_status: true,
        answers_with_object: true,
        create: |object| object["status"] = json!({"attached": false}),
        update_status: keep_metadata,
        validate,
        validate_update: spec_is_immutable,
        validate_status,
        printer: COLUMNS,
        ..Resource::of::<VolumeAttachment>(
            GROUP,
            "storage",
            "volumeattachment",
            "volumeattachments",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Attacher", "The driver that attaches the volume"),
        Column::text("PV", "The volume"),
        Column::text("Node", "The node where it is to be"),
        Column::boolean("Attached", "Whether it is there"),
        AGE,
    ],
    cells,
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let source = spec.field("source");
    let (inline, volume) = (
        source.field("inlineVolumeSpec"),
        source.field("persistentVolumeName"),
    );
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_null(), volume.is_null()) {
        (true, true) => errors.required(&source, one),
        (false, false) => errors.forbidden(&source, one),
        (true, false) if volume.is_empty() => {
            errors.required(&volume, "must specify non empty persistentVolumeName");
        }
        (true, false) => errors.check(&volume, names::subdomain(volume.text())),
        (false, true) => {}
    }
    let node = spec.field("nodeName");
    errors.check(&node, names::subdomain(node.text()));
    parameters::csi_driver(&spec.field("attacher"), errors);
}

fn spec_is_immutable(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    errors.immutable(&new.field("spec"), &old.field("spec"));
}

fn validate_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let metadata = status.field("attachmentMetadata");
    let sizes = metadata
        .entries()
        .map(|(key, value)| key.len() + value.text().len());
    if sizes.sum::<usize>() > MAX_METADATA_BYTES {
        errors.too_long(&metadata, MAX_METADATA_BYTES);
    }
    for field in ["attachError", "detachError"] {
        let error = status.field(field);
        let message = error.field("message");
        if message.text().len() > MAX_MESSAGE_BYTES {
            errors.too_long(&message, MAX_MESSAGE_BYTES);
        }
        errors.in_range(&error.field("errorCode"), 0, i64::from(i32::MAX));
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "/spec/attacher").into(),
        text(object, "/spec/source/persistentVolumeName").into(),
        text(object, "/spec/nodeName").into(),
        is_true(object, "/status/attached").into(),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, refused, row, with};

    fn attachment() -> Value {
        json!({
            "metadata": {"name": "csi-1"},
            "spec": {
                "attacher": "ebs.csi.aws.com",
                "nodeName": "node-1",
                "source": {"persistentVolumeName": "pv-1"},
            },
        })
    }

    #[test]
    fn a_volume_is_not_attached_to_begin_with() {
        let mine = with(&attachment(), "/status", json!({"attached": true}));
        let stored = created(&resource(), mine);
        assert_eq!(stored["status"], json!({"attached": false}));
    }

    #[test]
    fn an_attachment_names_a_volume_a_node_and_a_driver() {
        assert_wrong(
            &resource(),
            &attachment(),
            &[
                (
                    "/spec/source",
                    json!({}),
                    "spec.source: Required value: must specify exactly one of inlineVolumeSpec and \
                     persistentVolumeName",
                ),
                (
                    "/spec/source",
                    json!({"persistentVolumeName": ""}),
                    "spec.source.persistentVolumeName: Required value: must specify non empty \
                     persistentVolumeName",
                ),
                (
                    "/spec/source",
                    json!({"persistentVolumeName": "a", "inlineVolumeSpec": {}}),
                    "spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and \
                     persistentVolumeName",
                ),
            ],
        );
    }

    #[test]
    fn an_attachment_keeps_its_spec_and_its_driver_says_the_status() {
        let old = created(&resource(), attachment());
        let spec =
            json!({"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
        assert_refused(
            &resource(),
            &old,
            &[(
                "/spec",
                spec,
                r#"spec: Invalid value: {"attacher":"a.b","nodeName":"n","source":{"persistentVolumeName":"v"}}: field is immutable"#,
            )],
        );
        let status = |error: Value| {
            let new = with(
                &old,
                "/status",
                json!({"attached": true, "attachError": error}),
            );
            refused(&resource(), &old, new, Some(Subresource::Status))
        };
        assert_eq!(status(json!({"message": "full"})), "");
        assert_eq!(
            status(json!({"message": "x".repeat(2000)})),
            "status.attachError.message: Too long: may not be more than 1024 bytes"
        );
    }

    #[test]
    fn a_row_shows_what_is_where() {
        assert_eq!(
            row(&resource(), &created(&resource(), attachment())),
            json!(["csi-1", "ebs.csi.aws.com", "pv-1", "node-1", false, "10m",])
        );
    }
}
