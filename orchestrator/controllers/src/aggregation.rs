//! ClusterRoles that are put together from others: those whose labels they select. Pure.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;

use super::action::{Action, Plan};
use super::controller::{Controller, Due, Watches};
use super::object::Object;
use super::world::{Address, Diff, World};
use api::selector::LabelSelector;
use client::Kind;

/// Gives each aggregated role the rules of the roles that it selects. Its work is about one role.
pub struct AggregationController;

impl Controller for AggregationController {
    fn name(&self) -> &'static str {
        "cluster role aggregation"
    }

    fn account(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::CLUSTER_ROLE])
    }

    fn due(&self, world: &World, diff: &Diff, due: &mut Due) {
        let changed = diff.object();
        for role in world.all(Kind::CLUSTER_ROLE) {
            let selectors = selectors(role);
            let is_itself = role.key == changed.key && !selectors.is_empty();
            if is_itself
                || diff
                    .versions()
                    .any(|version| is_selected(&selectors, version))
            {
                due.insert((Kind::CLUSTER_ROLE, role.key.clone()));
            }
        }
    }

    fn due_at_start(&self, world: &World, due: &mut Due) {
        let all = world.all(Kind::CLUSTER_ROLE);
        let aggregated = all.filter(|role| !selectors(role).is_empty());
        due.extend(aggregated.map(|role| (Kind::CLUSTER_ROLE, role.key.clone())));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, _: Timestamp) -> Option<Plan> {
        let role = world.get(*kind, key)?;
        let selectors = selectors(role);
        if selectors.is_empty() {
            return None;
        }
        // In the order of their names, as the shelf has them.
        let parts = world.all(Kind::CLUSTER_ROLE);
        let parts = parts.filter(|part| part.key != *key && is_selected(&selectors, part));
        let rules = gather(parts.filter_map(|part| part.as_cluster_role().map(|role| &**role)));
        let held = role.as_cluster_role()?.rules.clone().unwrap_or_default();
        let body = json!({"rules": rules});
        let patch = (held != rules).then(|| Action::merge(role, "", body));
        Some(Plan {
            actions: patch.into_iter().collect(),
            again: None,
        })
    }
}

/// Each rule once.
fn gather<'a>(roles: impl Iterator<Item = &'a ClusterRole>) -> Vec<PolicyRule> {
    let mut gathered: Vec<PolicyRule> = Vec::new();
    for rule in roles.flat_map(|role| role.rules.iter().flatten()) {
        if !gathered.contains(rule) {
            gathered.push(rule.clone());
        }
    }
    gathered
}

/// What an aggregated role selects others by; nothing of one that is not.
fn selectors(role: &Object) -> Vec<LabelSelector> {
    let rule = role
        .as_cluster_role()
        .and_then(|role| role.aggregation_rule.as_ref());
    let selectors = rule.and_then(|rule| rule.cluster_role_selectors.as_ref());
    let selectors = selectors.into_iter().flatten();
    selectors
        .filter_map(|selector| LabelSelector::from_object(Some(selector)).ok())
        .collect()
}

fn is_selected(selectors: &[LabelSelector], role: &Object) -> bool {
    selectors
        .iter()
        .any(|selector| selector.matches(&role.meta.labels))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::object::Key;
    use crate::world::Change;

    fn rule(resource: &str) -> Value {
        json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]})
    }

    fn role(name: &str, label: &str, rules: Value, from: Option<&str>) -> Object {
        let mut object = json!({"metadata": {"name": name, "labels": {label: "true"},
            "uid": name, "resourceVersion": "1"}, "rules": rules});
        if let Some(from) = from {
            let selectors = json!([{"matchLabels": {from: "true"}}]);
            object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        Object::from_json(Kind::CLUSTER_ROLE, object).expect("a role")
    }

    fn world(roles: Vec<Object>) -> World {
        let mut world = World::default();
        world.apply(Change::Snapshot {
            kind: Kind::CLUSTER_ROLE,
            objects: roles,
            revision: 1,
        });
        world
    }

    fn planned(world: &World, name: &str) -> Option<Value> {
        let about = (Kind::CLUSTER_ROLE, Key::new("", name));
        let plan = AggregationController.plan(world, &about, Timestamp::UNIX_EPOCH)?;
        plan.actions.into_iter().find_map(|action| match action {
            Action::Patch(patch) => Some(patch.body["rules"].clone()),
            _ => None,
        })
    }

    #[test]
    fn an_aggregated_role_has_each_rule_of_those_that_it_selects_once_and_no_other() {
        let world = world(vec![
            role("all", "x", json!([rule("own")]), Some("part")),
            role("b", "part", json!([rule("pods"), rule("nodes")]), None),
            role("a", "part", json!([rule("pods"), rule("maps")]), None),
            role("other", "y", json!([rule("secrets")]), None),
        ]);
        let expected = json!([rule("pods"), rule("maps"), rule("nodes")]);
        assert_eq!(planned(&world, "all"), Some(expected));
        assert_eq!(planned(&world, "a"), None);
    }

    #[test]
    fn a_role_that_has_its_rules_is_left_alone_and_a_part_that_leaves_makes_it_due() {
        let parts = || role("a", "part", json!([rule("pods")]), None);
        let mut world = world(vec![
            role("all", "x", json!([rule("pods")]), Some("part")),
            parts(),
        ]);
        assert_eq!(planned(&world, "all"), None);
        let mut left = role("a", "none", json!([rule("pods")]), None);
        left.meta.revision = 2;
        let diffs = world.apply(Change::Upsert(left));
        let mut due = Due::new();
        AggregationController.due(&world, &diffs[0], &mut due);
        assert_eq!(due, Due::from([(Kind::CLUSTER_ROLE, Key::new("", "all"))]));
        assert_eq!(planned(&world, "all"), Some(json!([])));
    }
}
