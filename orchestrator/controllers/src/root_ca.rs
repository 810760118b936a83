//! ConfigMap `kube-root-ca.crt` of every namespace: by it a pod knows the API server. Pure.

use jiff::Timestamp;
use serde_json::json;

use super::action::{Action, Create, Plan};
use super::controller::{Controller, Due, Watches};
use super::object::Key;
use super::world::{Address, Diff, World};
use client::Kind;

/// The ConfigMap's name in every namespace, and the key in it.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
/// What people who read it should know.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when \
                           using internal endpoints such as the internal service IP or \
                           kubernetes.default.svc. No other usage is guaranteed across distributions \
                           of Kubernetes clusters.";

/// Writes it where it is missing, and puts it right where it was changed. Its work is about a namespace.
pub struct RootCaController {
    /// Certificates (PEM).
    bundle: String,
}

impl RootCaController {
    pub fn new(bundle: &str) -> Self {
        Self {
            bundle: bundle.to_owned(),
        }
    }
}

impl Controller for RootCaController {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    fn account(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::NAMESPACE, Kind::CONFIG_MAP])
    }

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        let Key { namespace, name } = &diff.object().key;
        let namespace = match diff.object().kind {
            Kind::NAMESPACE => name,
            _ if name == NAME => namespace,
            _ => return,
        };
        due.insert((Kind::NAMESPACE, Key::new("", namespace)));
    }

    fn plan(&mut self, world: &World, (_, key): &Address, _now: Timestamp) -> Option<Plan> {
        let namespace = world.get(Kind::NAMESPACE, key)?;
        if self.bundle.is_empty() || namespace.meta.deleting.is_some() {
            return None;
        }
        let data = json!({ KEY: self.bundle });
        let action = match world.get(Kind::CONFIG_MAP, &Key::new(&key.name, NAME)) {
            None => Action::Create(Create {
                kind: Kind::CONFIG_MAP,
                namespace: key.name.clone(),
                object: json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": NAME, "namespace": key.name,
                        "annotations": {"kubernetes.io/description": DESCRIPTION}},
                    "data": data,
                }),
                if_absent: true,
                about: None,
            }),
            Some(map) if map.meta.deleting.is_some() => return None,
            Some(map) if map.as_root_ca() == Some(&self.bundle) => return None,
            Some(map) => Action::merge(map, "", json!({ "data": data })),
        };
        Some(Plan {
            actions: vec![action],
            again: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixture::{now, words, world};

    fn planned(objects: Vec<(Kind, Value)>) -> Vec<String> {
        let world = world(objects);
        let mut controller = RootCaController::new("PEM");
        let about = (Kind::NAMESPACE, Key::new("", "ns"));
        let plan = controller.plan(&world, &about, now()).unwrap_or_default();
        words(&plan.actions)
    }

    fn namespace() -> (Kind, Value) {
        (Kind::NAMESPACE, json!({"metadata": {"name": "ns"}}))
    }

    fn map(data: Value) -> (Kind, Value) {
        let map = json!({"metadata": {"name": NAME}, "data": data});
        (Kind::CONFIG_MAP, map)
    }

    #[test]
    fn every_namespace_has_the_certificate_and_a_changed_one_is_put_right() {
        let right = || map(json!({"ca.crt": "PEM"}));
        assert_eq!(
            planned(vec![namespace()]),
            ["create configmaps kube-root-ca.crt"]
        );
        assert!(planned(vec![namespace(), right()]).is_empty());
        for wrong in [json!({"ca.crt": "other"}), Value::Null] {
            let planned = planned(vec![namespace(), map(wrong)]);
            assert_eq!(planned.len(), 1, "{planned:?}");
            assert!(planned[0].contains("PEM"), "{planned:?}");
        }
        assert!(planned(vec![right()]).is_empty(), "no namespace");
    }

    #[test]
    fn a_namespace_that_ends_is_left_alone() {
        let (kind, mut ending) = namespace();
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(planned(vec![(kind, ending)]).is_empty());
    }
}
