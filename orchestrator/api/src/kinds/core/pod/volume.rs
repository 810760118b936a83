//! Volumes of pods, and where containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::certificates::{self, trust_bundle};
use crate::quantity::Quantity;
use crate::validation::{At, Errors, names};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The shortest life of a service account's token.
const MIN_TOKEN_SECONDS: i64 = 600;

/// The sources of a volume that hold references which must be named.
const NAMED_SOURCES: [(&str, &str); 4] = [
    ("secret", "secretName"),
    ("configMap", "name"),
    ("persistentVolumeClaim", "claimName"),
    ("image", "reference"),
];

/// The names of a pod's volumes, and whether each is a claim.
pub type Names<'a> = BTreeMap<&'a str, bool>;

/// Checks volumes and gives their names.
pub fn volumes<'a>(volumes: &At<'a>, errors: &mut Errors) -> Names<'a> {
    let mut seen = Names::new();
    let list = volumes.value.as_array().into_iter().flatten();
    for (volume, value) in volumes.items().zip(list) {
        let name = volume.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::label(name.text()));
            let claims = ["persistentVolumeClaim", "ephemeral"];
            let is_claim = claims.iter().any(|it| !volume.field(it).is_null());
            let name_text = value["name"].as_str().unwrap_or_default();
            if seen.insert(name_text, is_claim).is_some() {
                errors.duplicate(&name);
            }
        }
        source(&volume, errors);
    }
    seen
}

/// Where the volumes of these names are mounted in one container.
pub fn mounts(container: &At<'_>, volumes: &Names<'_>, errors: &mut Errors) {
    let mounts = container.field("volumeMounts");
    let context = container.field("securityContext");
    let privileged = context.field("privileged").is_true();
    let mut seen = BTreeSet::new();
    for mount in mounts.items() {
        let name = mount.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else if !volumes.contains_key(name.text()) {
            errors.not_found(&name);
        }
        let path = mount.field("mountPath");
        if path.is_empty() {
            errors.required(&path, "");
        } else if !seen.insert(path.text().to_owned()) {
            errors.invalid(&path, "must be unique");
        }
        let (sub, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
        descends(&sub, errors);
        if !sub.is_empty() && !expression.is_empty() {
            errors.invalid(
                &expression,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        descends(&expression, errors);
        let propagation = mount.field("mountPropagation");
        errors.one_of_if_any(&propagation, &["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && !privileged {
            errors.forbidden(
                &propagation,
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
        recursive_read_only(&mount, errors);
    }
}

/// The volumes that a container has as devices (`ValidateVolumeDevices` of Kubernetes).
pub fn devices(container: &At<'_>, volumes: &Names<'_>, errors: &mut Errors) {
    let list = container.field("volumeMounts");
    let mounted = |field: &str| -> BTreeSet<String> {
        let all = list
            .items()
            .map(|mount| mount.field(field).text().to_owned());
        all.filter(|text| !text.is_empty()).collect()
    };
    let (names, paths) = (mounted("name"), mounted("mountPath"));
    let (mut seen_names, mut seen_paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.field("volumeDevices").items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        if name.is_empty() {
            errors.required(&name, "");
        } else if !seen_names.insert(name.text().to_owned()) {
            errors.invalid(&name, "must be unique");
        }
        match volumes.get(name.text()) {
            Some(true) => {}
            Some(false) => errors.invalid(
                &name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block \
                 mode",
            ),
            None => errors.not_found(&name),
        }
        if path.is_empty() {
            errors.required(&path, "");
        } else if climbs(path.text()) {
            errors.invalid(&path, "can not contain backsteps ('..')");
        } else if !seen_paths.insert(path.text().to_owned()) {
            errors.invalid(&path, "must be unique");
        }
        if names.contains(name.text()) {
            errors.invalid(&name, "must not already exist in volumeMounts");
        }
        if paths.contains(path.text()) {
            errors.invalid(&path, "must not already exist as a path in volumeMounts");
        }
    }
}

/// A path that stays below where it begins.
pub fn descends(path: &At<'_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    if climbs(path.text()) {
        errors.invalid(path, "must not contain '..'");
    }
}

/// A path that goes up.
pub fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn recursive_read_only(mount: &At<'_>, errors: &mut Errors) {
    let mode = mount.field("recursiveReadOnly");
    errors.one_of_if_any(&mode, &["Disabled", "Enabled", "IfPossible"]);
    if !matches!(mode.text(), "Enabled" | "IfPossible") {
        return;
    }
    if !mount.field("readOnly").is_true() {
        errors.forbidden(&mode, "may only be specified when readOnly is true");
    }
    if !matches!(mount.field("mountPropagation").text(), "" | "None") {
        errors.forbidden(
            &mode,
            "may only be specified when mountPropagation is None or not specified",
        );
    }
}

fn source(volume: &At<'_>, errors: &mut Errors) {
    let sources: Vec<&str> = volume
        .entries()
        .map(|(key, _)| key)
        .filter(|key| *key != "name")
        .collect();
    match sources.as_slice() {
        [] => errors.required(volume, "must specify a volume type"),
        [_] => {}
        [_, more @ ..] => {
            for source in more {
                errors.forbidden(
                    &volume.field(source),
                    "may not specify more than 1 volume type",
                );
            }
        }
    }
    for (source, field) in NAMED_SOURCES {
        let source = volume.field(source);
        let name = source.field(field);
        if !source.is_null() && name.is_empty() {
            errors.required(&name, "");
        }
    }
    for kind in ["configMap", "secret"] {
        let source = volume.field(kind);
        mode(&source.field("defaultMode"), errors);
        keys(&source.field("items"), errors);
    }
    let downward = volume.field("downwardAPI");
    mode(&downward.field("defaultMode"), errors);
    files(&downward.field("items"), errors);
    projected(&volume.field("projected"), errors);
    let host = volume.field("hostPath");
    if !host.is_null() {
        host_path(&host, errors);
    }
    let image = volume.field("image");
    if !image.is_null() {
        errors.one_of(
            &image.field("pullPolicy"),
            &["Always", "IfNotPresent", "Never"],
        );
    }
    let empty = volume.field("emptyDir");
    let limit = empty.field("sizeLimit");
    if Quantity::parse(limit.text()).is_ok_and(Quantity::is_negative) {
        errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

fn projected(projected: &At<'_>, errors: &mut Errors) {
    mode(&projected.field("defaultMode"), errors);
    let sources = projected.field("sources");
    for source in sources.items() {
        if source.entries().count() > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type");
        }
        for kind in ["configMap", "secret"] {
            let from = source.field(kind);
            let name = from.field("name");
            if !from.is_null() && name.is_empty() {
                errors.required(&name, "");
            }
            keys(&from.field("items"), errors);
        }
        let downward = source.field("downwardAPI");
        files(&downward.field("items"), errors);
        // Kubernetes' errors call it so.
        let named = source.field("clusterTrustBundlePEM");
        let bundle = named.holding(source.field("clusterTrustBundle").value);
        bundle_source(&bundle, errors);
        let token = source.field("serviceAccountToken");
        if token.is_null() {
            continue;
        }
        let path = token.field("path");
        local_path(&path, errors);
        let seconds = token.field("expirationSeconds");
        if seconds.number() < MIN_TOKEN_SECONDS {
            errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
    }
}

/// One bundle by its name, or those of a signer (KEP-3257).
fn bundle_source(source: &At<'_>, errors: &mut Errors) {
    if source.is_null() {
        return;
    }
    let (name, signer) = (source.field("name"), source.field("signerName"));
    match (name.is_null(), signer.is_null()) {
        (false, false) => errors.invalid(source, "only one of name and signerName may be used"),
        (true, true) => errors.required(source, "either name or signerName must be specified"),
        (false, true) => {
            if name.is_empty() {
                errors.required(&name, "must be a valid object name");
            }
            let of = trust_bundle::signer_of(name.text());
            let rule = trust_bundle::bundle_name(&of, name.text());
            let told = rule.map_err(|why| format!("not a valid clustertrustbundlename: {why}"));
            errors.check(&name, told);
            let selector = source.field("labelSelector");
            if !selector.is_null() {
                errors.invalid(
                    &selector,
                    "labelSelector must be unset if name is specified",
                );
            }
        }
        (true, false) => match signer.is_empty() {
            true => errors.required(&signer, "must be a valid signer name"),
            false => certificates::signer_name(&signer, errors),
        },
    }
    local_path(&source.field("path"), errors);
}

fn keys(items: &At<'_>, errors: &mut Errors) {
    for item in items.items() {
        let key = item.field("key");
        if key.is_empty() {
            errors.required(&key, "");
        }
        local_path(&item.field("path"), errors);
        mode(&item.field("mode"), errors);
    }
}

fn files(items: &At<'_>, errors: &mut Errors) {
    for item in items.items() {
        local_path(&item.field("path"), errors);
        mode(&item.field("mode"), errors);
        let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
        match (field.is_null(), resource.is_null()) {
            (false, false) => errors.invalid_value(
                &item,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (true, true) => {
                errors.required(&item, "one of fieldRef and resourceFieldRef is required")
            }
            _ => {}
        }
    }
}

/// The path of a file that the agent writes. Names with two dots before them are the agent's own.
fn local_path(path: &At<'_>, errors: &mut Errors) {
    if path.is_empty() {
        return errors.required(path, "");
    }
    descends(path, errors);
    if path.text().starts_with("..") && !climbs(path.text()) {
        errors.invalid(path, "must not start with '..'");
    }
}

fn mode(mode: &At<'_>, errors: &mut Errors) {
    if !(0..=0o777).contains(&mode.number()) {
        errors.invalid(mode, MODE);
    }
}

/// A path of the node, and what must be there.
pub fn host_path(host: &At<'_>, errors: &mut Errors) {
    let path = host.field("path");
    if path.is_empty() {
        errors.required(&path, "");
    } else if climbs(path.text()) {
        errors.invalid(&path, "must not contain '..'");
    }
    errors.one_of_if_any(
        &host.field("type"),
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::resource;
    use crate::kinds::testing::assert_wrong;

    #[test]
    fn a_projected_trust_bundle_is_one_by_name_or_those_of_a_signer() {
        let signer = json!({"path": "p", "signerName": "example.com/mine", "labelSelector": {}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": signer}]}}]}});
        let at = "/spec/volumes/0/projected/sources/0/clusterTrustBundle";
        let path = "spec.volumes[0].projected.sources[0].clusterTrustBundlePEM";
        let wrong = |why: &str| format!("{path}{why}");
        let unset = ": Invalid value: {}: labelSelector must be unset if name is specified";
        let name = ".name: Invalid value: \"A\": not a valid clustertrustbundlename: a lowercase RFC \
                    1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                    must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                    validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        let form = ".signerName: Invalid value: \"mine\": must be a fully qualified domain and path of the \
                    form 'example.com/signer-name'";
        assert_wrong(
            &resource(),
            &pod,
            &[
                (
                    at,
                    json!({"path": "p"}),
                    &wrong(": Required value: either name or signerName must be specified"),
                ),
                (
                    at,
                    json!({"path": "p", "name": "a", "labelSelector": {}}),
                    &wrong(&format!(".labelSelector{unset}")),
                ),
                (at, json!({"path": "p", "name": "A"}), &wrong(name)),
                (at, json!({"path": "p", "signerName": "mine"}), &wrong(form)),
                (
                    at,
                    json!({"path": "../p", "name": "a"}),
                    &wrong(".path: Invalid value: \"../p\": must not contain '..'"),
                ),
                (at, json!({"name": "a"}), &wrong(".path: Required value")),
            ],
        );
    }
}
