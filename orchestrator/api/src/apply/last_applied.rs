//! The way from client-side to server-side apply: kubectl's annotation.
//!
//! What kubectl applied on the client's side belongs to an updater. Where the object still has what
//! the annotation says, `kubectl apply --server-side` may take it over without `--force-conflicts`;
//! and it keeps the annotation up to date, so that the way back is open.

use serde_json::{Map, Value};

use super::{
    compare::compare,
    field_set::{Nodes, subtract},
    of_object::{check, of_object},
    shape::Shape,
};

/// The manager for which this is done. Who does not want it chooses another name.
pub const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together, keys and values.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// The paths that were applied on the client's side and that the live object still has so.
pub fn still_applied(shape: Shape<'_>, live: &Value) -> Nodes {
    let text = live["metadata"]["annotations"][ANNOTATION].as_str();
    let Some(applied) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Nodes::new();
    };
    if applied["apiVersion"] != live["apiVersion"] || check(shape, &applied).is_err() {
        return Nodes::new();
    }
    let changes = compare(shape, &applied, live);
    let mut paths = of_object(shape, &applied).nodes().clone();
    subtract(&mut paths, &changes.written);
    subtract(&mut paths, &changes.removed);
    paths
}

/// Renews the annotation of an object that has one; one that becomes too large goes.
pub fn renew(object: &mut Value, applied: &Value) {
    let Some(annotations) = annotations(object) else {
        return;
    };
    let old = annotations.get(ANNOTATION).and_then(Value::as_str);
    if old.is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(own) = self::annotations(&mut applied) {
        own.remove(ANNOTATION);
    }
    // kubectl ends the text with a line, and so does Kubernetes.
    annotations.insert(ANNOTATION.into(), format!("{applied}\n").into());
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > MAX_ANNOTATION_BYTES {
        annotations.remove(ANNOTATION);
    }
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.pointer_mut("/metadata/annotations")?.as_object_mut()
}
