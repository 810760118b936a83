//! apiextensions.k8s.io/v1 CustomResourceDefinition.
//!
//! `spec` has the rules of the definition itself, `schema` those of each JSON schema in it, `structural`
//! those that make a schema structural, `expressions` the rules in CEL and the defaults.

mod expressions;
mod paths;
mod schema;
mod spec;
mod structural;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::columns::CREATED;
use crate::defaults::set;
use crate::prepare::remove;
use crate::resource::{Generation, Resource, Scope, Subresource};
use crate::validation::{At, Errors};

/// Groups of Kubernetes' own want this annotation: the URL of who approved the API.
const APPROVAL: &str = "api-approved.kubernetes.io";

pub fn resource() -> Resource {
    Resource {
        short_names: vec!["crd".into(), "crds".into()],
        categories: vec!["api-extensions".into()],
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        definition:
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"
                .into(),
        generation: Generation::Spec,
        has_status: true,
        default,
        create,
        update: |new, _| note_storage_version(new),
        validate,
        validate_create,
        validate_update,
        validate_status: accepted_names,
        printer: CREATED,
        ..Resource::of::<CustomResourceDefinition>(
            "apiextensions.k8s.io",
            "apiextensions",
            "customresourcedefinition",
            "customresourcedefinitions",
        )
    }
}

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    if let Some(names) = spec.get_mut("names") {
        let kind = names["kind"].as_str().unwrap_or_default().to_owned();
        if !kind.is_empty() {
            set(names, "singular", || kind.to_lowercase().into());
            set(names, "listKind", || format!("{kind}List").into());
        }
    }
    set(spec, "conversion", || json!({"strategy": "None"}));
    if let Some(service) = spec.pointer_mut("/conversion/webhook/clientConfig/service") {
        set(service, "port", || 443.into());
    }
    // Manifests of older days say this; the answer is the only one there is.
    if spec.get("preserveUnknownFields") == Some(&json!(false)) {
        remove(object, "/spec", "preserveUnknownFields");
    }
    let stored = object.pointer("/status/storedVersions");
    if stored.and_then(Value::as_array).is_none_or(Vec::is_empty) {
        note_storage_version(object);
    }
}

fn create(object: &mut Value) {
    object["status"] = json!({"acceptedNames": {"kind": "", "plural": ""}});
    note_storage_version(object);
}

/// The version that objects are stored in from now on is one that they may be stored in.
fn note_storage_version(object: &mut Value) {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions
        .into_iter()
        .find(|version| version["storage"] == true);
    let Some(name) = storage.map(|version| version["name"].clone()) else {
        return;
    };
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    match &mut object["status"]["storedVersions"] {
        Value::Array(stored) if stored.contains(&name) => {}
        Value::Array(stored) => stored.push(name),
        stored => *stored = json!([name]),
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    spec::validate(&object.field("spec"), errors);
    accepted_names(object, errors);
    stored_versions(object, errors);
    let spec = object.field("spec");
    let preserve = spec.field("preserveUnknownFields");
    if preserve.is_true() {
        errors.invalid(
            &preserve,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
             spec.versions[*].schema instead",
        );
    }
}

fn validate_create(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let (name, names, group) = (
        metadata.field("name"),
        spec.field("names"),
        spec.field("group"),
    );
    let wanted = format!("{}.{}", names.field("plural").text(), group.text());
    if name.text() != wanted {
        errors.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
    }
    if is_protected(group.text()) {
        let annotations = metadata.field("annotations");
        approval(&annotations.key(APPROVAL), errors);
    }
}

/// A group of Kubernetes' own.
fn is_protected(group: &str) -> bool {
    let mut own = ["k8s.io", "kubernetes.io"].into_iter();
    own.any(|own| {
        group
            .strip_suffix(own)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn approval(approval: &At<'_>, errors: &mut Errors) {
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let text = approval.text();
    if text.is_empty() {
        let why = format!("protected groups must have approval annotation {APPROVAL:?}, {see}");
        errors.required(approval, &why);
        return;
    }
    let url = text.split_once("://");
    let is_url = url.is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if !is_url && !text.starts_with("unapproved") {
        errors.invalid(
            approval,
            format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or \
                 a reason starting with \"unapproved\", {see}"
            ),
        );
    }
}

fn accepted_names(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    spec::names(&status.field("acceptedNames"), errors);
}

fn stored_versions(object: &At<'_>, errors: &mut Errors) {
    let (spec, status) = (object.field("spec"), object.field("status"));
    let (versions, stored) = (spec.field("versions"), status.field("storedVersions"));
    if stored.is_empty() {
        errors.invalid(&stored, "must have at least one stored version");
        return;
    }
    for version in versions.items() {
        let name = &version.value["name"];
        let is_stored = stored.items().any(|item| item.value == name);
        if version.field("storage").is_true() && !is_stored {
            let name = name.as_str().unwrap_or_default();
            errors.invalid(&stored, format!("must have the storage version {name}"));
        }
    }
    for item in stored.items() {
        if !versions
            .items()
            .any(|version| version.value["name"] == *item.value)
        {
            let gone = item.text();
            errors.invalid(
                &item,
                format!(
                    "missing from spec.versions; {gone} was previously a storage version, and must \
                     remain in spec.versions until a storage migration ensures no data remains \
                     persisted in {gone} and removes {gone} from status.storedVersions"
                ),
            );
        }
    }
}

/// What stored objects are found by stays; what clients know, once it is established.
fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let conditions = &old.value["status"]["conditions"];
    let mut conditions = conditions.as_array().into_iter().flatten();
    let established = conditions
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let (new, old) = (new.field("spec"), old.field("spec"));
    let (names, before) = (new.field("names"), old.field("names"));
    if established {
        errors.immutable(&new.field("scope"), &old.field("scope"));
        errors.immutable(&names.field("kind"), &before.field("kind"));
    }
    errors.immutable(&new.field("group"), &old.field("group"));
    errors.immutable(&names.field("plural"), &before.field("plural"));
}

#[cfg(test)]
mod tests;
