//! Sizes without a rollout: scaling a finished, a paused, or a half-done Deployment. Pure.

use serde_json::json;

use super::revision::{DESIRED, MAX};
use super::rollout;
use super::{SetRef, View, old_sets, sized_for};
use crate::action::Action;

/// Whether the wanted number changed since the sets were sized. Of several at work, Recreate keeps no
/// proportions: the old ones end first.
pub fn is_scaling(view: &View) -> bool {
    let wanted = view.spec().replicas.unwrap_or(1);
    let mut sized = view.sets.iter().filter(|(_, row)| row.replicas > 0);
    if view.recreates() && sized.clone().count() > 1 {
        return false;
    }
    sized.any(|(_, row)| {
        let desired = row
            .annotations
            .get(DESIRED)
            .and_then(|text| text.parse::<i32>().ok());
        desired.is_some_and(|desired| desired != wanted)
    })
}

/// Brings the sets to the wanted number and keeps their proportions.
pub fn scale(view: &View, new: Option<SetRef>) -> Vec<Action> {
    let bounds = view.bounds();
    let active: Vec<SetRef> = view
        .sets
        .iter()
        .filter(|(_, row)| row.replicas > 0)
        .copied()
        .collect();
    if active.len() <= 1 {
        let newest = view.sets.last().copied();
        let only = active.first().copied().or(new).or(newest);
        let resized = only.and_then(|set| resize(view, set, bounds.wanted));
        return resized.into_iter().flatten().collect();
    }
    let saturated = new.is_some_and(|(_, row)| {
        row.replicas == bounds.wanted && row.status.available == bounds.wanted
    });
    if saturated {
        let old = old_sets(view, new);
        return old
            .into_iter()
            .filter_map(|set| resize(view, set, 0))
            .flatten()
            .collect();
    }
    if view.recreates() {
        return Vec::new();
    }
    let allowed = if bounds.wanted > 0 {
        bounds.max_total()
    } else {
        0
    };
    let growing = allowed > active.iter().map(|(_, row)| row.replicas).sum();
    let mut largest_first = active;
    largest_first.sort_by_key(|(set, row)| {
        let age = set.meta.created.as_second();
        (
            -row.replicas,
            if growing { -age } else { age },
            set.key.clone(),
        )
    });
    let status_replicas = view
        .deployment
        .status
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or(0);
    let numbers: Vec<(i32, i32)> = largest_first
        .iter()
        .map(|(_, row)| {
            let last = row.annotations.get(MAX).and_then(|text| text.parse().ok());
            (row.replicas, last.unwrap_or(status_replicas))
        })
        .collect();
    let sizes = rollout::proportional(allowed, &numbers);
    let resized = largest_first.into_iter().zip(sizes);
    resized
        .filter_map(|(set, replicas)| resize(view, set, replicas))
        .flatten()
        .collect()
}

/// The write of a set's size (and what it was sized for), with its event, if either changes.
pub fn resize(view: &View, (set, row): SetRef, replicas: i32) -> Option<Vec<Action>> {
    let bounds = view.bounds();
    let annotation = |key: &str| {
        row.annotations
            .get(key)
            .and_then(|text| text.parse::<i32>().ok())
    };
    let resized = row.replicas != replicas;
    let told =
        annotation(DESIRED) == Some(bounds.wanted) && annotation(MAX) == Some(bounds.max_total());
    if !resized && (told || replicas == 0) {
        return None;
    }
    let body = json!({
        "metadata": {"annotations": sized_for(bounds)},
        "spec": {"replicas": replicas},
    });
    let mut actions = vec![Action::merge(set, "", body)];
    if resized {
        let way = if replicas > row.replicas {
            "up"
        } else {
            "down"
        };
        let (name, from) = (&set.key.name, row.replicas);
        let text = format!("Scaled {way} replica set {name} from {from} to {replicas}");
        actions.push(Action::normal(view.object, "ScalingReplicaSet", text));
    }
    Some(actions)
}
