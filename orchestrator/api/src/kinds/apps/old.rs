//! apps/v1beta1, apps/v1beta2 and extensions/v1beta1: what manifests of 2015 to 2018 are written in.
//!
//! They may leave out the selector, which is then the labels of the template, and they have other
//! defaults (Kubernetes 1.20, `pkg/apis/{apps,extensions}/*/defaults.go`). `rollbackTo` is not served.

use serde_json::{Value, json};

use super::daemon_set::TEMPLATE_GENERATION;
use super::{controller_revision, daemon_set, deployment, replica_set, stateful_set, workload};
use crate::defaults::set;
use crate::kinds::old::{Face, Version};
use crate::resource::Resource;
use crate::served::{Conversion, Served};

/// What stood for no limit.
const NO_LIMIT: i32 = i32::MAX;

const APPS: Version = Version {
    group: "apps",
    version: "v1beta2",
    package: "apps",
    life: Some(("1.9", "1.16")),
};

pub fn views() -> Vec<Served> {
    let beta1 = Version {
        version: "v1beta1",
        life: Some(("1.8", "1.16")),
        ..APPS
    };
    let extensions = Version {
        group: "extensions",
        package: "extensions",
        ..beta1
    };
    let with = |kind: fn() -> Resource, default: fn(&mut Value)| Face {
        default,
        ..Face::of(kind)
    };
    let free = |face: Face| Face {
        rules: Some(with_free_selector),
        ..face
    };
    vec![
        APPS.serves(Face::of(controller_revision::resource)),
        APPS.serves(with(daemon_set::resource, select_template)),
        APPS.serves(with(deployment::resource, select_template)),
        APPS.serves(with(replica_set::resource, select_template)),
        APPS.serves(with(stateful_set::resource, select_template)),
        beta1.serves(Face::of(controller_revision::resource)),
        beta1.serves(free(with(deployment::resource, deployment_of_beta1))),
        beta1.serves(with(stateful_set::resource, stateful_set_of_beta1)),
        extensions.serves(Face {
            conversion: Conversion::Pure { up, down },
            ..free(with(daemon_set::resource, daemon_set_of_extensions))
        }),
        extensions.serves(free(with(deployment::resource, deployment_of_extensions))),
        extensions.serves(free(with(replica_set::resource, labelled))),
    ]
}

/// The selector could change in these versions.
fn with_free_selector(kind: &mut Resource) {
    kind.validate_update = |_, _, _| {};
}

/// An object without a selector selects the labels of its template.
fn select_template(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    let spec = workload::spec(object);
    if !workload::is_empty(&labels) {
        set(spec, "selector", || json!({"matchLabels": labels}));
    }
}

/// An object without labels has those of its template, too.
fn labelled(object: &mut Value) {
    workload::labels_of_template(object);
    select_template(object);
}

fn deployment_of_beta1(object: &mut Value) {
    labelled(object);
    set(workload::spec(object), "revisionHistoryLimit", || 2.into());
}

fn stateful_set_of_beta1(object: &mut Value) {
    labelled(object);
    update_on_delete(object);
}

fn daemon_set_of_extensions(object: &mut Value) {
    labelled(object);
    update_on_delete(object);
}

/// Pods were not replaced unless the strategy said so.
fn update_on_delete(object: &mut Value) {
    let spec = workload::spec(object);
    set(spec, "updateStrategy", || json!({}));
    set(&mut spec["updateStrategy"], "type", || "OnDelete".into());
}

fn deployment_of_extensions(object: &mut Value) {
    labelled(object);
    let spec = workload::spec(object);
    set(spec, "strategy", || json!({}));
    set(&mut spec["strategy"], "type", || "RollingUpdate".into());
    let strategy = &mut spec["strategy"];
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", || json!({}));
        for field in ["maxUnavailable", "maxSurge"] {
            set(&mut strategy["rollingUpdate"], field, || 1.into());
        }
    }
    for field in ["progressDeadlineSeconds", "revisionHistoryLimit"] {
        set(spec, field, || NO_LIMIT.into());
    }
}

/// `templateGeneration` is an annotation today.
fn up(object: &mut Value) {
    let spec = object["spec"].as_object_mut();
    let generation = spec.and_then(|spec| spec.remove("templateGeneration"));
    if let Some(generation) = generation.filter(|generation| generation.as_i64() != Some(0)) {
        let text = generation.to_string();
        object["metadata"]["annotations"][TEMPLATE_GENERATION] = text.into();
    }
}

fn down(object: &mut Value) {
    let annotations = object["metadata"]["annotations"].as_object_mut();
    let text = annotations.and_then(|annotations| annotations.remove(TEMPLATE_GENERATION));
    let generation = text.and_then(|text| text.as_str()?.parse::<i64>().ok());
    if let Some(generation) = generation {
        workload::spec(object)["templateGeneration"] = generation.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::old::testing::{assert_same, shown, stored, view};
    use crate::kinds::testing;

    /// A manifest as people wrote them in 2016.
    fn manifest() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1.9"}]},
            }},
        })
    }

    fn spec_of(group: &str, version: &str, plural: &str) -> Value {
        let mut stored = stored(view(group, version, plural), manifest());
        stored["spec"].as_object_mut().unwrap().remove("template");
        stored["spec"].take()
    }

    #[test]
    fn a_manifest_without_a_selector_selects_its_template_in_every_old_version() {
        for (group, version, plural) in [
            ("extensions", "v1beta1", "deployments"),
            ("extensions", "v1beta1", "replicasets"),
            ("extensions", "v1beta1", "daemonsets"),
            ("apps", "v1beta1", "deployments"),
            ("apps", "v1beta1", "statefulsets"),
            ("apps", "v1beta2", "deployments"),
            ("apps", "v1beta2", "replicasets"),
            ("apps", "v1beta2", "daemonsets"),
            ("apps", "v1beta2", "statefulsets"),
        ] {
            let spec = spec_of(group, version, plural);
            let expected = json!({"matchLabels": {"app": "web"}});
            assert_eq!(spec["selector"], expected, "{group}/{version} {plural}");
        }
    }

    #[test]
    fn the_defaults_of_old_deployments_are_those_of_their_time() {
        let selector = json!({"matchLabels": {"app": "web"}});
        assert_eq!(
            spec_of("extensions", "v1beta1", "deployments"),
            json!({
                "progressDeadlineSeconds": NO_LIMIT,
                "revisionHistoryLimit": NO_LIMIT,
                "selector": selector,
                "strategy": {
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1},
                    "type": "RollingUpdate",
                },
            })
        );
        let spec = spec_of("apps", "v1beta1", "deployments");
        assert_eq!(spec["revisionHistoryLimit"], 2);
        let spec = spec_of("apps", "v1beta2", "deployments");
        assert_eq!(spec, json!({"selector": selector}));
    }

    #[test]
    fn old_daemon_sets_and_stateful_sets_replace_no_pod_by_themselves() {
        for (group, plural) in [("extensions", "daemonsets"), ("apps", "statefulsets")] {
            let spec = spec_of(group, "v1beta1", plural);
            assert_eq!(
                spec["updateStrategy"],
                json!({"type": "OnDelete"}),
                "{plural}"
            );
        }
        let spec = spec_of("apps", "v1beta2", "daemonsets");
        assert_eq!(spec.get("updateStrategy"), None);
    }

    #[test]
    fn the_count_of_a_daemon_sets_templates_is_a_field_or_an_annotation() {
        let view = view("extensions", "v1beta1", "daemonsets");
        let mut old = manifest();
        old["metadata"]["labels"] = json!({"app": "web"});
        old["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
        old["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        let mut new = stored(view, old.clone());
        old["spec"]["templateGeneration"] = 3.into();
        new["metadata"]["annotations"] = json!({TEMPLATE_GENERATION: "3"});
        assert_eq!(stored(view, old.clone()), new);
        let shown = shown(view, new);
        assert_eq!(shown["spec"]["templateGeneration"], 3);
        assert_eq!(shown["metadata"].get("annotations"), None);
    }

    #[test]
    fn a_stored_deployment_is_itself_in_an_old_version() {
        let view = view("apps", "v1beta2", "deployments");
        let stored = testing::created(&view.storage, {
            let mut object = manifest();
            object["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
            object
        });
        let mut old = stored.clone();
        for field in ["apiVersion", "kind"] {
            old.as_object_mut().unwrap().remove(field);
        }
        assert_same(view, old.clone(), old);
    }

    #[test]
    fn the_selector_of_an_old_deployment_may_change() {
        let change = |view: &Served| {
            let mut object = stored(view, manifest());
            view.storage.default(&mut object);
            let mut new = object.clone();
            let labels = json!({"app": "other"});
            new["spec"]["selector"] = json!({"matchLabels": labels});
            new["spec"]["template"]["metadata"]["labels"] = labels;
            view.storage.validate(&new, Some(&object), None).is_ok()
        };
        assert!(change(view("extensions", "v1beta1", "deployments")));
        assert!(!change(view("apps", "v1beta2", "deployments")));
    }
}
