//! The watches of the scheduler, and what each delivery is to the engine.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::{Change, StorageChange};
use crate::node::NodeRow;
use crate::pod::PodRow;
use crate::preempt::Budget;
use crate::volumes::objects::limits;
use crate::volumes::{ClaimRow, ClassRow, VolumeRow};
use api::selector::LabelSelector;
use client::{Bare, Delivery, Kind, list_watch};

/// Starts all watches; they end when the set is dropped.
pub fn start(client: &kube::Client, changes: &mpsc::Sender<Change>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    macro_rules! watch {
        ($kind:expr, $change:expr) => {
            watches.spawn(list_watch(
                client.clone(),
                $kind,
                "",
                changes.clone(),
                $change,
            ))
        };
    }
    watch!(Kind::POD, pod_change);
    watch!(Kind::NODE, node_change);
    watch!(Kind::NAMESPACE, namespace_change);
    watch!(Kind::POD_DISRUPTION_BUDGET, budget_change);
    watch!(Kind::PERSISTENT_VOLUME_CLAIM, claim_change);
    watch!(Kind::PERSISTENT_VOLUME, volume_change);
    watch!(Kind::STORAGE_CLASS, class_change);
    watch!(Kind::CSI_NODE, limits_change);
    watches
}

fn pod_change(delivery: Delivery<Pod>) -> Change {
    match delivery {
        Delivery::Snapshot { items, revision } => Change::Pods {
            items: items.into_iter().map(PodRow::from).collect(),
            revision,
        },
        Delivery::Upsert(pod) => Change::Pod(PodRow::from(pod)),
        Delivery::Delete(pod) => {
            let metadata = pod.metadata;
            let key = (metadata.namespace, metadata.name);
            Change::PodGone((key.0.unwrap_or_default(), key.1.unwrap_or_default()))
        }
    }
}

fn node_change(delivery: Delivery<Node>) -> Change {
    match delivery {
        Delivery::Snapshot { items, .. } => {
            Change::Nodes(items.into_iter().map(NodeRow::from).collect())
        }
        Delivery::Upsert(node) => Change::Node(NodeRow::from(node)),
        Delivery::Delete(node) => Change::NodeGone(node.metadata.name.unwrap_or_default()),
    }
}

fn namespace_change(delivery: Delivery<Bare>) -> Change {
    let row = |it: Bare| {
        let metadata = it.metadata;
        (
            metadata.name.unwrap_or_default(),
            metadata.labels.unwrap_or_default(),
        )
    };
    match delivery {
        Delivery::Snapshot { items, .. } => {
            Change::Namespaces(items.into_iter().map(row).collect())
        }
        Delivery::Upsert(it) => {
            let (name, labels) = row(it);
            Change::Namespace(name, labels)
        }
        Delivery::Delete(it) => Change::NamespaceGone(it.metadata.name.unwrap_or_default()),
    }
}

fn budget_change(delivery: Delivery<PodDisruptionBudget>) -> Change {
    match delivery {
        Delivery::Snapshot { items, .. } => {
            Change::Budgets(items.into_iter().map(budget).collect())
        }
        Delivery::Upsert(it) => Change::Budget(budget(it)),
        Delivery::Delete(it) => {
            let row = budget(it);
            Change::BudgetGone((row.namespace, row.name))
        }
    }
}

fn claim_change(delivery: Delivery<PersistentVolumeClaim>) -> Change {
    Change::Storage(match delivery {
        Delivery::Snapshot { items, .. } => {
            StorageChange::Claims(items.into_iter().map(ClaimRow::from).collect())
        }
        Delivery::Upsert(it) => StorageChange::Claim(it.into()),
        Delivery::Delete(it) => StorageChange::ClaimGone(ClaimRow::from(it).key),
    })
}

fn volume_change(delivery: Delivery<PersistentVolume>) -> Change {
    Change::Storage(match delivery {
        Delivery::Snapshot { items, .. } => {
            StorageChange::Volumes(items.into_iter().map(VolumeRow::from).collect())
        }
        Delivery::Upsert(it) => StorageChange::Volume(it.into()),
        Delivery::Delete(it) => StorageChange::VolumeGone(it.metadata.name.unwrap_or_default()),
    })
}

fn class_change(delivery: Delivery<StorageClass>) -> Change {
    Change::Storage(match delivery {
        Delivery::Snapshot { items, .. } => {
            StorageChange::Classes(items.into_iter().map(ClassRow::from).collect())
        }
        Delivery::Upsert(it) => StorageChange::Class(it.into()),
        Delivery::Delete(it) => StorageChange::ClassGone(it.metadata.name.unwrap_or_default()),
    })
}

fn limits_change(delivery: Delivery<CSINode>) -> Change {
    Change::Storage(match delivery {
        Delivery::Snapshot { items, .. } => {
            StorageChange::AllLimits(items.into_iter().map(limits).collect())
        }
        Delivery::Upsert(it) => {
            let (node, limits) = limits(it);
            StorageChange::Limits(node, limits)
        }
        Delivery::Delete(it) => StorageChange::LimitsGone(it.metadata.name.unwrap_or_default()),
    })
}

/// A selector that cannot be read selects nothing.
fn budget(it: PodDisruptionBudget) -> Budget {
    let selector = it.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = LabelSelector::from_object(selector);
    let status = it.status.unwrap_or_default();
    let disrupted: BTreeSet<String> = status
        .disrupted_pods
        .unwrap_or_default()
        .into_keys()
        .collect();
    Budget {
        namespace: it.metadata.namespace.unwrap_or_default(),
        name: it.metadata.name.unwrap_or_default(),
        selector: selector.unwrap_or_else(|_| LabelSelector::nothing()),
        allowed: i64::from(status.disruptions_allowed),
        disrupted,
    }
}
