//! Kinds as rows: enough to build a path, an owner reference or an event's involved object. Pure.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use api::{Behaviour, Resource};

/// One kind of the API, as its clients need it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
}

const fn core(kind: &'static str, plural: &'static str, namespaced: bool) -> Kind {
    Kind {
        group: "",
        version: "v1",
        kind,
        plural,
        namespaced,
    }
}

const fn grouped(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind {
        group,
        version: "v1",
        kind,
        plural,
        namespaced: true,
    }
}

impl Kind {
    pub const POD: Kind = core("Pod", "pods", true);
    pub const NODE: Kind = core("Node", "nodes", false);
    pub const NAMESPACE: Kind = core("Namespace", "namespaces", false);
    pub const SERVICE: Kind = core("Service", "services", true);
    pub const ENDPOINTS: Kind = core("Endpoints", "endpoints", true);
    pub const CONFIG_MAP: Kind = core("ConfigMap", "configmaps", true);
    pub const SECRET: Kind = core("Secret", "secrets", true);
    pub const SERVICE_ACCOUNT: Kind = core("ServiceAccount", "serviceaccounts", true);
    pub const PERSISTENT_VOLUME_CLAIM: Kind =
        core("PersistentVolumeClaim", "persistentvolumeclaims", true);
    pub const PERSISTENT_VOLUME: Kind = core("PersistentVolume", "persistentvolumes", false);
    pub const EVENT: Kind = core("Event", "events", true);
    pub const REPLICATION_CONTROLLER: Kind =
        core("ReplicationController", "replicationcontrollers", true);
    pub const REPLICA_SET: Kind = grouped("apps", "ReplicaSet", "replicasets");
    pub const DEPLOYMENT: Kind = grouped("apps", "Deployment", "deployments");
    pub const JOB: Kind = grouped("batch", "Job", "jobs");
    pub const CRON_JOB: Kind = grouped("batch", "CronJob", "cronjobs");
    pub const DISRUPTION_BUDGET: Kind =
        grouped("policy", "PodDisruptionBudget", "poddisruptionbudgets");
    pub const STATEFUL_SET: Kind = grouped("apps", "StatefulSet", "statefulsets");
    pub const DAEMON_SET: Kind = grouped("apps", "DaemonSet", "daemonsets");
    pub const CONTROLLER_REVISION: Kind =
        grouped("apps", "ControllerRevision", "controllerrevisions");
    pub const AUTOSCALER: Kind = Kind {
        version: "v2",
        ..grouped(
            "autoscaling",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        )
    };
    pub const ENDPOINT_SLICE: Kind = grouped("discovery.k8s.io", "EndpointSlice", "endpointslices");
    pub const POD_DISRUPTION_BUDGET: Kind =
        grouped("policy", "PodDisruptionBudget", "poddisruptionbudgets");
    pub const LEASE: Kind = grouped("coordination.k8s.io", "Lease", "leases");

    pub const CLUSTER_ROLE: Kind = Kind {
        namespaced: false,
        ..grouped("rbac.authorization.k8s.io", "ClusterRole", "clusterroles")
    };
    pub const STORAGE_CLASS: Kind = Kind {
        namespaced: false,
        ..grouped("storage.k8s.io", "StorageClass", "storageclasses")
    };
    pub const CSI_NODE: Kind = Kind {
        namespaced: false,
        ..grouped("storage.k8s.io", "CSINode", "csinodes")
    };
    pub const CSI_DRIVER: Kind = Kind {
        namespaced: false,
        ..grouped("storage.k8s.io", "CSIDriver", "csidrivers")
    };
    pub const VOLUME_ATTACHMENT: Kind = Kind {
        namespaced: false,
        ..grouped("storage.k8s.io", "VolumeAttachment", "volumeattachments")
    };
    pub const DEFINITION: Kind = Kind {
        namespaced: false,
        ..grouped(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
    };

    /// A custom kind. Rows are told apart by their words, so each row is kept once and for ever: there are
    /// as many as there have been definitions.
    pub fn custom(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Kind {
        static KNOWN: Mutex<BTreeSet<Kind>> = Mutex::new(BTreeSet::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let words = [group, version, kind, plural];
        let is_it = |row: &&Kind| row.words() == words && row.namespaced == namespaced;
        if let Some(row) = known.iter().find(is_it) {
            return *row;
        }
        let word = |text: &str| -> &'static str { Box::leak(text.into()) };
        let row = Kind {
            group: word(group),
            version: word(version),
            kind: word(kind),
            plural: word(plural),
            namespaced,
        };
        known.insert(row);
        row
    }

    fn words(&self) -> [&'static str; 4] {
        [self.group, self.version, self.kind, self.plural]
    }

    /// Every built-in kind that controllers watch: all that are kept. Events are not among them, they own and
    /// hold nothing.
    pub fn watched() -> &'static [Kind] {
        static WATCHED: LazyLock<Vec<Kind>> = LazyLock::new(|| {
            let kept = api::resources().iter().filter(|resource| {
                resource.verbs.contains(&"watch") && resource.behaviour != Behaviour::Event
            });
            kept.map(|resource| Kind::of(resource)).collect()
        });
        &WATCHED
    }

    /// The kind of a resource.
    pub fn of(resource: &'static Resource) -> Kind {
        Kind {
            group: &resource.group,
            version: &resource.version,
            kind: &resource.kind,
            plural: &resource.plural,
            namespaced: resource.namespaced(),
        }
    }

    /// The kind that an owner reference names, where it is one that is watched.
    pub fn find(api_version: &str, kind: &str) -> Option<Kind> {
        let found = Kind::watched()
            .iter()
            .find(|k| k.kind == kind && k.api_version() == api_version);
        found.copied()
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection in `namespace` (all namespaces if empty), of one object in it, or
    /// of that object's subresource.
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [self.plural, name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_scope_and_subresource() {
        assert_eq!(
            Kind::POD.path("a", "b", "status"),
            "/api/v1/namespaces/a/pods/b/status"
        );
        assert_eq!(Kind::POD.path("", "", ""), "/api/v1/pods");
        assert_eq!(Kind::NODE.path("ignored", "n", ""), "/api/v1/nodes/n");
        assert_eq!(
            Kind::DEPLOYMENT.path("a", "", ""),
            "/apis/apps/v1/namespaces/a/deployments"
        );
    }

    #[test]
    fn a_custom_kind_is_one_row() {
        let row = || Kind::custom("example.com", "v1", "Web", "webs", true);
        assert_eq!(row(), row());
        assert!(std::ptr::eq(row().plural, row().plural));
        assert_eq!(
            row().path("a", "b", ""),
            "/apis/example.com/v1/namespaces/a/webs/b"
        );
    }

    #[test]
    fn the_kinds_that_code_names_are_those_that_are_served() {
        for kind in [
            Kind::POD,
            Kind::NODE,
            Kind::NAMESPACE,
            Kind::SERVICE,
            Kind::ENDPOINTS,
            Kind::CONFIG_MAP,
            Kind::SECRET,
            Kind::SERVICE_ACCOUNT,
            Kind::REPLICATION_CONTROLLER,
            Kind::REPLICA_SET,
            Kind::DEPLOYMENT,
            Kind::JOB,
            Kind::CRON_JOB,
            Kind::DISRUPTION_BUDGET,
            Kind::AUTOSCALER,
            Kind::STATEFUL_SET,
            Kind::DAEMON_SET,
            Kind::CONTROLLER_REVISION,
            Kind::ENDPOINT_SLICE,
            Kind::LEASE,
            Kind::DEFINITION,
            Kind::PERSISTENT_VOLUME,
            Kind::STORAGE_CLASS,
            Kind::CSI_NODE,
            Kind::CSI_DRIVER,
            Kind::VOLUME_ATTACHMENT,
            Kind::POD_DISRUPTION_BUDGET,
            Kind::PERSISTENT_VOLUME_CLAIM,
        ] {
            assert!(Kind::watched().contains(&kind), "{kind:?}");
        }
        assert!(!Kind::watched().contains(&Kind::EVENT));
    }
}
