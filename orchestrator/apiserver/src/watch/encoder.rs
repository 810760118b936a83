//! The events of a watch in the client's form: a JSON object a line, or protobuf with its length in
//! front.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::negotiate::{Shape, Wanted};
use crate::{reply, tables};
use api::{ApiError, Format, Resource, encode};
use store::Revision;

/// Writes events in the client's form.
pub struct Encoder {
    resource: Arc<Resource>,
    wanted: Wanted,
    /// The table's columns have been sent.
    headed: bool,
}

impl Encoder {
    pub fn new(resource: Arc<Resource>, wanted: Wanted) -> Self {
        Self {
            resource,
            wanted,
            headed: false,
        }
    }

    /// The object is in the version that the client speaks.
    pub fn event(&mut self, out: &mut BytesMut, kind: &str, object: &Bytes) {
        if self.wanted.shape == Shape::Object && self.wanted.format == Format::Json {
            return line(out, kind, object);
        }
        // Stored bytes are JSON: an object that is not has been damaged; leave it out.
        if let Ok(value) = reply::parse(object) {
            let shaped = self.shaped(value);
            self.write(out, kind, &shaped);
        }
    }

    /// Says how far the watch has come.
    pub fn bookmark(&mut self, out: &mut BytesMut, revision: Revision, ends_initial: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.wanted.shape {
            Shape::Table(version, include) => {
                let object = json!({"metadata": metadata});
                let resource = &self.resource;
                let row = tables::row(version, resource, object, include, Timestamp::now());
                let list = json!({"resourceVersion": revision.to_string()});
                tables::table(version, resource, list, vec![row], false)
            }
            Shape::Metadata(version) => {
                tables::partial_metadata(version, json!({"metadata": metadata}))
            }
            Shape::Object => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
        };
        self.write(out, "BOOKMARK", &object);
    }

    /// Says why the watch ends.
    pub fn error(&self, error: &ApiError) -> Bytes {
        let status = reply::status(error);
        let mut out = BytesMut::new();
        match self.wanted.format {
            Format::Protobuf => {
                if let Ok(bytes) = encode::status(&status) {
                    out.put_slice(&encode::watch_event("ERROR", &bytes));
                }
            }
            Format::Json | Format::Yaml => line(&mut out, "ERROR", status.to_string().as_bytes()),
        }
        out.freeze()
    }

    fn shaped(&mut self, value: Value) -> Value {
        match self.wanted.shape {
            Shape::Object => value,
            Shape::Metadata(version) => tables::partial_metadata(version, value),
            Shape::Table(version, include) => {
                let resource = &self.resource;
                let revision = value.pointer("/metadata/resourceVersion").cloned();
                let row = tables::row(version, resource, value, include, Timestamp::now());
                let metadata = json!({"resourceVersion": revision.unwrap_or_default()});
                let first = !std::mem::replace(&mut self.headed, true);
                tables::table(version, resource, metadata, vec![row], first)
            }
        }
    }

    fn write(&self, out: &mut BytesMut, kind: &str, object: &Value) {
        match self.wanted.format {
            // What is stored is of its type; one that is not is left out as a damaged one is.
            Format::Protobuf => {
                if let Ok(bytes) = reply::protobuf(&self.wanted, &self.resource, object) {
                    out.put_slice(&encode::watch_event(kind, &bytes));
                }
            }
            Format::Json | Format::Yaml => line(out, kind, object.to_string().as_bytes()),
        }
    }
}

fn line(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut out = BytesMut::new();
        line(&mut out, "ADDED", b"{}");
        assert_eq!(&out[..], b"{\"type\":\"ADDED\",\"object\":{}}\n");
    }
}
