//! Attachments and drivers as objects of the world. Pure.

use std::sync::Arc;

use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};

use crate::object::{Body, Object};
use client::Kind;

/// What controllers read of a VolumeAttachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentRow {
    pub driver: String,
    pub node: String,
    /// The name of its PersistentVolume.
    pub volume: Option<String>,
    pub attached: bool,
    /// Why the last attempt to attach failed.
    pub error: Option<String>,
}

impl Object {
    pub fn as_attachment(&self) -> Option<&AttachmentRow> {
        if let Body::Attachment(row) = &self.body {
            Some(row)
        } else {
            None
        }
    }

    /// Whether volumes of this driver are attached before they are mounted.
    pub fn driver_attaches(&self) -> bool {
        matches!(self.body, Body::Driver { attaches: true })
    }
}

impl From<VolumeAttachment> for Object {
    fn from(attachment: VolumeAttachment) -> Self {
        let (spec, status) = (attachment.spec, attachment.status.unwrap_or_default());
        let error = status.attach_error.and_then(|error| error.message);
        let row = AttachmentRow {
            driver: spec.attacher,
            node: spec.node_name,
            volume: spec.source.persistent_volume_name,
            attached: status.attached,
            error: error.filter(|_| !status.attached),
        };
        let body = Body::Attachment(Arc::new(row));
        Self::new(Kind::VOLUME_ATTACHMENT, attachment.metadata, body)
    }
}

impl From<CSIDriver> for Object {
    fn from(driver: CSIDriver) -> Self {
        let attaches = driver.spec.attach_required != Some(false);
        Self::new(Kind::CSI_DRIVER, driver.metadata, Body::Driver { attaches })
    }
}
