//! Old versions of kinds: other faces of the same objects.
//!
//! What a version is called, what it was deprecated for and what differs in it stands beside its kind, in
//! `kinds/<group>/old.rs`; versions that differ in nothing but their names are listed here. Their schemas
//! are made of the stored version's (`schema/derived`). Lifecycles: `zz_generated.prerelease-lifecycle.go`
//! of Kubernetes 1.20, and 1.21 to 1.33 for versions that were deprecated since.

use std::sync::Arc;

use serde_json::Value;

use super::{
    admissionregistration, apps, autoscaling, batch, certificates, coordination, core, discovery,
    flowcontrol, networking, node, policy, rbac, scheduling, storage,
};
use crate::resource::Resource;
use crate::served::{Conversion, Served};

/// A version of a group.
#[derive(Clone, Copy)]
pub struct Version {
    pub group: &'static str,
    pub version: &'static str,
    /// The group's word in the names of its schemas.
    pub package: &'static str,
    /// The releases of Kubernetes in which it was deprecated and removed.
    pub life: Option<(&'static str, &'static str)>,
}

/// How a kind looks in an old version.
pub struct Face {
    /// Makes the kind that is stored.
    pub kind: fn() -> Resource,
    /// The defaults of this version, for an object in it; those of the kind follow.
    pub default: fn(&mut Value),
    pub conversion: Conversion,
    /// What else the version calls otherwise.
    pub names: fn(&mut Resource),
    /// What a write in this version is judged by, where the kind's rules came later.
    pub rules: Option<fn(&mut Resource)>,
}

impl Face {
    /// One that differs from the kind in its names alone.
    pub fn of(kind: fn() -> Resource) -> Self {
        Self {
            kind,
            default: |_| {},
            conversion: Conversion::Renamed,
            names: |_| {},
            rules: None,
        }
    }
}

impl Version {
    /// The kind in this version.
    pub fn serves(&self, face: Face) -> Served {
        let mut kind = (face.kind)();
        let stored = (kind.group.to_string(), kind.plural.to_string());
        let successor = format!("{} {}", kind.api_version(), kind.kind);
        // A short name or a category must not find the same objects twice; kubectl warns of it.
        if self.life.is_some() && kind.group != self.group {
            kind.short_names.clear();
            kind.categories.clear();
        }
        kind.definition =
            format!("io.k8s.api.{}.{}.{}", self.package, self.version, kind.kind).into();
        kind.group = self.group.into();
        kind.version = self.version.into();
        kind.default = face.default;
        kind.deprecation = self.life.map(|(deprecated, removed)| {
            let (version, name) = (kind.api_version(), &kind.kind);
            format!(
                "{version} {name} is deprecated in v{deprecated}+, unavailable in v{removed}+; use \
                 {successor}"
            )
            .into()
        });
        (face.names)(&mut kind);
        let served = Served::view(kind, (&stored.0, &stored.1), face.conversion);
        let Some(rules) = face.rules else {
            return served;
        };
        let mut storage = (face.kind)();
        rules(&mut storage);
        Served {
            storage: Arc::new(storage),
            ..served
        }
    }

    /// Kinds that differ in nothing but their names.
    pub fn renames(&self, kinds: &[fn() -> Resource]) -> Vec<Served> {
        kinds
            .iter()
            .map(|kind| self.serves(Face::of(*kind)))
            .collect()
    }
}

/// Every old version, in the order of discovery.
pub fn views() -> Vec<Served> {
    let mut views = vec![autoscaling::horizontal_pod_autoscaler_v1::view()];
    for (version, kinds) in RENAMED {
        views.extend(version.renames(kinds));
    }
    views.extend(core::old::views());
    views.extend(apps::old::views());
    views.extend(policy::old::views());
    views.extend(discovery::old::views());
    views.extend(networking::old::views());
    views.extend(admissionregistration::old::views());
    views.extend(flowcontrol::old::views());
    views
}

const fn version(
    group: &'static str,
    version: &'static str,
    package: &'static str,
    life: (&'static str, &'static str),
) -> Version {
    Version {
        group,
        version,
        package,
        life: Some(life),
    }
}

/// One that is not deprecated.
const fn current(group: &'static str, version: &'static str, package: &'static str) -> Version {
    Version {
        group,
        version,
        package,
        life: None,
    }
}

/// The versions whose kinds are as they are today.
const RENAMED: &[(Version, &[fn() -> Resource])] = &[
    (
        version("autoscaling", "v2beta2", "autoscaling", ("1.23", "1.26")),
        &[autoscaling::horizontal_pod_autoscaler::resource],
    ),
    (
        version("batch", "v1beta1", "batch", ("1.21", "1.25")),
        &[batch::cron_job::resource],
    ),
    (
        version(
            "scheduling.k8s.io",
            "v1beta1",
            "scheduling",
            ("1.14", "1.22"),
        ),
        &[scheduling::priority_class::resource],
    ),
    (
        version(
            "coordination.k8s.io",
            "v1beta1",
            "coordination",
            ("1.19", "1.22"),
        ),
        &[coordination::lease::resource],
    ),
    // Both are served by Kubernetes 1.33; neither is deprecated there, nor since.
    (
        current("certificates.k8s.io", "v1beta1", "certificates"),
        &[certificates::trust_bundle::resource],
    ),
    (
        current("certificates.k8s.io", "v1alpha1", "certificates"),
        &[certificates::trust_bundle::resource],
    ),
    (
        version("node.k8s.io", "v1beta1", "node", ("1.22", "1.25")),
        &[node::runtime_class::resource],
    ),
    (
        version(rbac::GROUP, "v1beta1", "rbac", ("1.17", "1.22")),
        &[
            rbac::cluster_role::resource,
            rbac::cluster_role_binding::resource,
            rbac::role::resource,
            rbac::role_binding::resource,
        ],
    ),
    (
        version(storage::GROUP, "v1beta1", "storage", ("1.19", "1.22")),
        &[
            storage::csi_driver::resource,
            storage::storage_class::resource,
            storage::volume_attachment::resource,
        ],
    ),
    (
        version(storage::GROUP, "v1beta1", "storage", ("1.17", "1.22")),
        &[storage::csi_node::resource],
    ),
    (
        version(storage::GROUP, "v1beta1", "storage", ("1.24", "1.27")),
        &[storage::csi_storage_capacity::resource],
    ),
];

#[cfg(test)]
pub mod testing {
    //! What the tests of old versions share.

    use serde_json::{Value, json};

    use crate::{FieldValidation, Served, views};

    /// The view of these words.
    pub fn view(group: &str, version: &str, plural: &str) -> &'static Served {
        let mut views = views().iter();
        let found = views.find(|view| {
            let face = &view.resource;
            face.group == group && face.version == version && face.plural == plural
        });
        found.unwrap_or_else(|| panic!("{group}/{version} {plural} is served"))
    }

    /// What is stored of an object that a client writes in an old version, without apiVersion, kind and
    /// the defaults of the stored version.
    pub fn stored(view: &Served, object: Value) -> Value {
        let decoded = view.resource.canonical(object, FieldValidation::Strict);
        bare(view.to_stored(decoded.unwrap().object).unwrap())
    }

    /// What is shown of a stored object, without apiVersion and kind.
    pub fn shown(view: &Served, object: Value) -> Value {
        let stored = view.storage.canonical(object, FieldValidation::Strict);
        let shown = view.to_served(stored.unwrap().object).unwrap();
        assert_eq!(shown["apiVersion"], json!(view.resource.api_version()));
        bare(shown)
    }

    /// Asserts that the two are the same object in the two versions.
    pub fn assert_same(view: &Served, old: Value, new: Value) {
        assert_eq!(stored(view, old.clone()), new, "up");
        assert_eq!(shown(view, new), old, "down");
    }

    fn bare(mut object: Value) -> Value {
        let fields = object.as_object_mut().unwrap();
        fields.remove("apiVersion");
        fields.remove("kind");
        object
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{resources, views};

    #[test]
    fn every_old_version_has_a_schema_and_a_name_of_its_own() {
        let mut seen: BTreeSet<_> = resources()
            .iter()
            .map(|r| (r.api_version(), r.plural.clone()))
            .collect();
        for view in views() {
            let face = &view.resource;
            let definition = crate::schema::definition(&face.definition);
            assert!(definition.is_some(), "{}", face.definition);
            let name = (face.api_version(), face.plural.clone());
            assert!(seen.insert(name.clone()), "{name:?} is served twice");
            assert_eq!(face.plural, view.storage.plural);
            assert_eq!(face.scope, view.storage.scope);
            let again = face.group != view.storage.group && face.deprecation.is_some();
            assert!(!again || face.short_names.is_empty() && face.categories.is_empty());
        }
    }

    #[test]
    fn a_deprecated_version_says_since_when_and_what_replaces_it() {
        let said = |group, version, plural| {
            let face = &testing::view(group, version, plural).resource;
            face.deprecation.as_deref().unwrap_or_default().to_owned()
        };
        assert_eq!(
            said("extensions", "v1beta1", "deployments"),
            "extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use \
             apps/v1 Deployment"
        );
        assert_eq!(
            said("batch", "v1beta1", "cronjobs"),
            "batch/v1beta1 CronJob is deprecated in v1.21+, unavailable in v1.25+; use batch/v1 \
             CronJob"
        );
        assert_eq!(
            said("networking.k8s.io", "v1beta1", "ingresses"),
            "networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use \
             networking.k8s.io/v1 Ingress"
        );
        assert_eq!(said("events.k8s.io", "v1", "events"), "");
    }
}
