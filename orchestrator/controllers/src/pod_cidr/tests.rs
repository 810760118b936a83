use serde_json::{Value, json};

use super::*;
use crate::fixture::{object, words};
use crate::object::Key;
use crate::world::{Change, World};
use client::Kind;

fn node(name: &str, share: Option<&str>) -> (Kind, Value) {
    let spec = share.map_or(
        json!({}),
        |share| json!({"podCIDR": share, "podCIDRs": [share]}),
    );
    (
        Kind::NODE,
        json!({"metadata": {"name": name}, "spec": spec}),
    )
}

fn range(network: &str, mask_bits: u8) -> Range {
    Range {
        network: network.parse().unwrap(),
        mask_bits,
    }
}

/// The nodes of a world, and what is planned for those that come to be due, in order.
struct Cluster {
    world: World,
    shares: Shares,
    plans: usize,
}

impl Cluster {
    fn of(ranges: &[(&str, u8)]) -> Self {
        let ranges: Vec<Range> = ranges.iter().map(|(net, bits)| range(net, *bits)).collect();
        Self {
            world: World::default(),
            shares: Shares::of(&ranges),
            plans: 0,
        }
    }

    /// Takes in changes, then plans for those that are due; nothing of that is written.
    fn apply(&mut self, changes: Vec<Change>) -> Vec<String> {
        let diffs = changes
            .into_iter()
            .flat_map(|change| self.world.apply(change));
        let due: BTreeSet<String> = diffs.flat_map(|diff| self.shares.hear(&diff)).collect();
        let mut said = Vec::new();
        for name in due {
            self.plans += 1;
            let node = self.world.get(Kind::NODE, &Key::new("", &name)).unwrap();
            let plan = self.shares.plan(node, node.as_node().unwrap());
            said.extend(words(&plan.actions));
        }
        said
    }
}

fn planned_of(nodes: Vec<(Kind, Value)>, ranges: &[(&str, u8)]) -> Vec<String> {
    let upsert = |(kind, value)| Change::Upsert(object(kind, value));
    Cluster::of(ranges).apply(nodes.into_iter().map(upsert).collect())
}

fn planned(nodes: Vec<(Kind, Value)>, range: &str, bits: u8) -> Vec<String> {
    planned_of(nodes, &[(range, bits)])
}

#[test]
fn every_node_gets_the_lowest_share_that_is_free() {
    let nodes = vec![
        node("a", None),
        node("b", Some("10.100.0.0/24")),
        node("c", None),
    ];
    let words = planned(nodes, "10.100.0.0/16", 24);
    let expected = [
        r#"patch nodes a {"spec":{"podCIDR":"10.100.1.0/24","podCIDRs":["10.100.1.0/24"]}}"#,
        r#"patch nodes c {"spec":{"podCIDR":"10.100.2.0/24","podCIDRs":["10.100.2.0/24"]}}"#,
    ];
    assert_eq!(words, expected);
}

fn seen(name: &str, share: Option<&str>, revision: u64) -> Object {
    let (kind, mut value) = node(name, share);
    value["metadata"]["resourceVersion"] = json!(revision.to_string());
    object(kind, value)
}

#[test]
fn a_share_whose_write_is_not_seen_is_given_to_no_other_node_and_given_again() {
    let mut cluster = Cluster::of(&[("10.100.0.0/16", 24)]);
    let first = cluster.apply(vec![Change::Upsert(seen("b", None, 1))]);
    assert!(first[0].contains("10.100.0.0/24"), "{first:?}");
    let other = cluster.apply(vec![Change::Upsert(seen("a", None, 2))]);
    assert!(other[0].contains("10.100.1.0/24"), "{other:?}");
    let node = object(Kind::NODE, node("b", None).1);
    let again = cluster.shares.plan(&node, node.as_node().unwrap());
    assert_eq!(words(&again.actions), first);
}

#[test]
fn the_share_of_a_deleted_node_goes_to_one_that_waits() {
    let mut cluster = Cluster::of(&[("10.0.0.0/24", 25)]);
    let nodes = [
        seen("a", Some("10.0.0.0/25"), 1),
        seen("b", Some("10.0.0.128/25"), 1),
        seen("c", None, 1),
        seen("d", None, 1),
    ];
    let told = cluster.apply(nodes.map(Change::Upsert).into());
    assert_eq!(told.len(), 2, "{told:?}");
    let given = cluster.apply(vec![Change::Delete(seen("b", Some("10.0.0.128/25"), 2))]);
    let share = r#"{"spec":{"podCIDR":"10.0.0.128/25","podCIDRs":["10.0.0.128/25"]}}"#;
    assert_eq!(given, [format!("patch nodes c {share}")]);
    // It is written: nobody else waits for that one.
    let written = seen("c", Some("10.0.0.128/25"), 3);
    assert!(cluster.apply(vec![Change::Upsert(written)]).is_empty());
}

#[test]
fn nodes_beyond_the_range_are_told_once_and_cost_nothing_while_they_live_and_go() {
    let mut cluster = Cluster::of(&[("10.100.0.0/16", 24)]);
    let name = |number: usize| format!("n{number:04}");
    let all = |revision| (0..5000).map(move |number| seen(&name(number), None, revision));
    let said = cluster.apply(all(1).map(Change::Upsert).collect());
    let patched = said.iter().filter(|word| word.starts_with("patch")).count();
    assert_eq!((patched, said.len() - patched), (256, 4744));
    assert_eq!(cluster.plans, 5000);
    // Ten heartbeats of each: nothing that concerns its share.
    for revision in 2..12 {
        let said = cluster.apply(all(revision).map(Change::Upsert).collect());
        assert!(said.is_empty(), "{said:?}");
    }
    assert_eq!(cluster.plans, 5000);
    for node in all(12).skip(256) {
        assert!(cluster.apply(vec![Change::Delete(node)]).is_empty());
    }
    assert_eq!(cluster.plans, 5000);
}

#[test]
fn an_exhausted_range_is_told_on_the_node() {
    let nodes = vec![
        node("a", Some("10.0.0.0/25")),
        node("b", Some("10.0.0.128/25")),
        node("c", None),
    ];
    let words = planned(nodes, "10.0.0.0/24", 25);
    assert_eq!(
        words,
        ["tell CIDRNotAvailable Node c status is now: CIDRNotAvailable"]
    );
}

#[test]
fn shares_of_another_size_are_not_overlapped() {
    let nodes = vec![node("a", Some("10.100.0.0/23")), node("b", None)];
    let words = planned(nodes, "10.100.0.0/16", 24);
    assert!(words[0].contains("\"10.100.2.0/24\""), "{words:?}");
}

#[test]
fn a_range_of_the_longer_family_is_cut_the_same_way() {
    let words = planned(vec![node("a", None), node("b", None)], "fd00:10::/48", 64);
    assert!(words[1].contains("\"fd00:10:0:1::/64\""), "{words:?}");
}

#[test]
fn a_node_gets_a_share_of_both_families_and_keeps_the_one_that_it_has() {
    let nodes = vec![node("a", Some("10.100.0.0/24")), node("b", None)];
    let ranges = [("10.100.0.0/16", 24), ("fd00:10:100::/48", 64)];
    let words = planned_of(nodes, &ranges);
    let expected = [
        r#"patch nodes a {"spec":{"podCIDR":"10.100.0.0/24","podCIDRs":["10.100.0.0/24","fd00:10:100::/64"]}}"#,
        r#"patch nodes b {"spec":{"podCIDR":"10.100.1.0/24","podCIDRs":["10.100.1.0/24","fd00:10:100:1::/64"]}}"#,
    ];
    assert_eq!(words, expected);
}

#[test]
fn a_family_that_is_used_up_keeps_no_node_from_the_other() {
    let nodes = vec![node("a", Some("10.0.0.0/24")), node("b", None)];
    let words = planned_of(nodes, &[("10.0.0.0/24", 24), ("fd00::/48", 64)]);
    assert!(words[1].starts_with("tell CIDRNotAvailable"), "{words:?}");
    assert!(
        words[2].contains(r#""podCIDRs":["fd00:0:0:1::/64"]"#),
        "{words:?}"
    );
}

#[test]
fn a_range_says_how_many_nodes_it_has_room_for() {
    let said = range("10.100.0.0/16", 24).to_string();
    assert_eq!(
        said,
        "10.100.0.0/16 has a share (/24) for each of 256 nodes"
    );
}
