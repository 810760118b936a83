//! A DaemonSet's rolling update: old pods make way for new ones, or stay until those are available. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::nodes::Fit;
use super::{Member, Turn, View};
use crate::object::Object;

/// The new and the old pod of a node. None: there are more of a kind, which are cleaned up first.
fn pair<'m, 'a>(view: &View<'a>, members: &'m [Member<'a>]) -> Option<Pair<'m, 'a>> {
    let mut pair = Pair {
        new: None,
        old: None,
    };
    for member in members.iter().filter(|it| it.pod.meta.deleting.is_none()) {
        let place = if view.is_updated(member.pod) {
            &mut pair.new
        } else {
            &mut pair.old
        };
        if place.replace(member).is_some() {
            return None;
        }
    }
    Some(pair)
}

struct Pair<'m, 'a> {
    new: Option<&'m Member<'a>>,
    old: Option<&'m Member<'a>>,
}

/// What an update does now.
pub fn roll<'a>(view: &View<'a>) -> Turn<'a> {
    let Some(rolling) = &view.row.rolling else {
        return Turn::default();
    };
    let desired = view.nodes.values().filter(|fit| **fit == Fit::Runs).count();
    let surge = count(&rolling.max_surge, desired);
    let mut unavailable = count(&rolling.max_unavailable, desired);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    if surge > 0 {
        make_new(view, surge)
    } else {
        delete_old(view, unavailable)
    }
}

/// A number of pods; percentages round up.
pub fn count(amount: &IntOrString, of: usize) -> usize {
    match amount {
        IntOrString::Int(count) => usize::try_from(*count).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            (percent.min(100) * of).div_ceil(100)
        }
    }
}

/// The pods of each node that has some or should have one.
fn by_node<'v, 'a>(view: &'v View<'a>) -> impl Iterator<Item = (&'a str, &'v [Member<'a>])> {
    let nodes = view.nodes.iter();
    let pods = nodes.map(|(node, fit)| {
        let pods = view.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        (*node, *fit, pods)
    });
    let counts = pods.filter(|(_, fit, pods)| *fit == Fit::Runs || !pods.is_empty());
    counts.map(|(node, _, pods)| (node, pods))
}

/// Old pods that are unavailable go at once, others while no more than `most` nodes are without an available one.
fn delete_old<'a>(view: &View<'a>, most: usize) -> Turn<'a> {
    let mut unavailable = 0;
    let (mut broken, mut candidates): (Vec<&Object>, Vec<&Object>) = Default::default();
    for (_, members) in by_node(view) {
        match pair(view, members) {
            Some(Pair {
                new: Some(new),
                old: None,
            }) => {
                unavailable += usize::from(!view.is_available(new));
            }
            Some(Pair {
                new: None,
                old: Some(old),
            }) => {
                if view.is_available(old) {
                    candidates.push(old.pod);
                } else {
                    broken.push(old.pod);
                    unavailable += 1;
                }
            }
            _ => unavailable += 1,
        }
    }
    candidates.truncate(most.saturating_sub(unavailable));
    broken.extend(candidates);
    Turn {
        delete: broken,
        ..Turn::default()
    }
}

/// Nodes whose old pod is unavailable get the new one at once, others while no more than `most` have two.
fn make_new<'a>(view: &View<'a>, most: usize) -> Turn<'a> {
    let mut surging = 0;
    let mut turn = Turn::default();
    let mut candidates = Vec::new();
    for (node, members) in by_node(view) {
        match pair(view, members) {
            None => surging += 1,
            Some(Pair { old: None, .. }) => {}
            Some(Pair {
                new: None,
                old: Some(old),
            }) => {
                if view.nodes.get(node) != Some(&Fit::Runs) {
                    continue;
                }
                if view.is_available(old) {
                    candidates.push(node);
                } else {
                    turn.create_on.push(node);
                }
            }
            Some(Pair {
                new: Some(new),
                old: Some(old),
            }) => {
                if view.is_available(new) {
                    turn.delete.push(old.pod);
                } else {
                    surging += 1;
                }
            }
        }
    }
    candidates.truncate(most.saturating_sub(surging));
    turn.create_on.extend(candidates);
    turn
}

/// Of a node's pods, those beyond one old and one new; of these two the old one once it is of no use.
pub fn superfluous<'a>(view: &View<'a>, running: &[Member<'a>]) -> Vec<&'a Object> {
    let (new, old): (Vec<&Member>, Vec<&Member>) = running
        .iter()
        .partition(|member| view.is_updated(member.pod));
    let rest = new.iter().skip(1).chain(old.iter().skip(1));
    let mut rest: Vec<&Object> = rest.map(|member| member.pod).collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!old.row.ready || view.is_available(new))
    {
        rest.push(old.pod);
    }
    rest
}
