//! Metadata of every object.

use super::{At, Errors, NameRule, names};
use crate::resource::{Resource, Scope};

/// All annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Finalizers of the server's own, which have no prefix.
const OWN_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

pub fn metadata(resource: &Resource, object: &At<'_>, errors: &mut Errors) {
    let metadata = object.field("metadata");
    name(resource, &metadata, errors);
    namespace(resource, &metadata, errors);
    labels(&metadata.field("labels"), errors);
    annotations(&metadata.field("annotations"), errors);
    finalizers(&metadata.field("finalizers"), errors);
    owners(&metadata.field("ownerReferences"), errors);
}

pub fn metadata_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("metadata"), old.field("metadata"));
    for field in ["name", "namespace", "uid"] {
        errors.immutable(&new.field(field), &old.field(field));
    }
    if old.field("deletionTimestamp").is_empty() {
        return;
    }
    let before = old.field("finalizers");
    let has = |finalizer: &str| before.items().any(|f| f.text() == finalizer);
    let finalizers = new.field("finalizers");
    let added: Vec<&str> = finalizers
        .items()
        .map(|f| f.text())
        .filter(|f| !has(f))
        .collect();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             {added:?}"
        );
        errors.forbidden(&finalizers, &detail);
    }
}

/// Keys and values of labels.
pub fn labels(labels: &At<'_>, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        if let Err(why) = names::label_key(key) {
            errors.invalid_value(labels, key, why);
        }
        if let Err(why) = names::label_value(value.text()) {
            errors.invalid_value(labels, value.text(), why);
        }
    }
}

pub fn annotations(annotations: &At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        if let Err(why) = names::label_key(&key.to_lowercase()) {
            errors.invalid_value(annotations, key, why);
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(annotations, MAX_ANNOTATIONS);
    }
}

fn name(resource: &Resource, metadata: &At<'_>, errors: &mut Errors) {
    let rule = |text: &str| match resource.name_rule {
        NameRule::None => Ok(()),
        NameRule::Subdomain => names::subdomain(text),
        NameRule::Label => names::label(text),
        NameRule::Label1035 => names::label_1035(text),
        NameRule::PathSegment => names::path_segment(text),
        NameRule::IpAddress => names::ip_address(text),
    };
    let prefix = metadata.field("generateName");
    if !prefix.is_empty() {
        // A prefix may end as a name may not.
        let text = prefix.text().trim_end_matches(['-', '.']);
        errors.check(
            &prefix,
            rule(if text.is_empty() { prefix.text() } else { text }),
        );
    }
    let name = metadata.field("name");
    if name.is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        errors.check(&name, rule(name.text()));
    }
}

fn namespace(resource: &Resource, metadata: &At<'_>, errors: &mut Errors) {
    let namespace = metadata.field("namespace");
    match resource.scope {
        Scope::Namespaced if namespace.is_empty() => errors.required(&namespace, ""),
        Scope::Namespaced => errors.check(&namespace, names::label(namespace.text())),
        Scope::Cluster if !namespace.is_empty() => {
            errors.forbidden(&namespace, "not allowed on this type");
        }
        Scope::Cluster => {}
    }
}

fn finalizers(finalizers: &At<'_>, errors: &mut Errors) {
    for finalizer in finalizers.items() {
        errors.check(&finalizer, names::label_key(finalizer.text()));
        if !finalizer.text().contains('/') && !OWN_FINALIZERS.contains(&finalizer.text()) {
            errors.invalid(
                &finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

fn owners(owners: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        if owner.field("apiVersion").is_empty() {
            errors.invalid(&owner.field("apiVersion"), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.field(field).is_empty() {
                errors.invalid_value(&owner.field(field), "", "must not be empty");
            }
        }
        if !owner.field("controller").is_true() {
            continue;
        }
        let this = format!(
            "{}/{}",
            owner.field("kind").text(),
            owner.field("name").text()
        );
        match &controller {
            Some(other) => errors.invalid(
                owners,
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {other} and {this}"
                ),
            ),
            None => controller = Some(this),
        }
    }
}
