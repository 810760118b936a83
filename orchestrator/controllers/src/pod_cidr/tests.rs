use serde_json::{Value, json};

use super::*;
use crate::fixture::{words, world};
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

fn planned_of(
    nodes: Vec<(Kind, Value)>,
    ranges: &[(&str, u8)],
    given: &[(&str, &str)],
) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    let given = given
        .iter()
        .map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()]))
        .collect();
    let world = world(nodes);
    let nodes = world
        .all(Kind::NODE)
        .map(|node| (node.as_ref(), node.as_node().unwrap()));
    let range = |(network, mask_bits): &(&str, u8)| Range {
        network: network.parse().unwrap(),
        mask_bits: *mask_bits,
    };
    let ranges: Vec<Range> = ranges.iter().map(range).collect();
    let (plan, given) = plan(&View {
        nodes: nodes.collect(),
        ranges: &ranges,
        given: &given,
    });
    (words(&plan.actions), given)
}

fn planned(
    nodes: Vec<(Kind, Value)>,
    range: &str,
    bits: u8,
    given: &[(&str, &str)],
) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    planned_of(nodes, &[(range, bits)], given)
}

#[test]
fn every_node_gets_the_lowest_share_that_is_free() {
    let nodes = vec![
        node("a", None),
        node("b", Some("10.100.0.0/24")),
        node("c", None),
    ];
    let (words, given) = planned(nodes, "10.100.0.0/16", 24, &[]);
    let expected = [
        r#"patch nodes a {"spec":{"podCIDR":"10.100.1.0/24","podCIDRs":["10.100.1.0/24"]}}"#,
        r#"patch nodes c {"spec":{"podCIDR":"10.100.2.0/24","podCIDRs":["10.100.2.0/24"]}}"#,
    ];
    assert_eq!(words, expected);
    assert_eq!(given["uid-a"], ["10.100.1.0/24"]);
}

#[test]
fn a_share_that_may_have_been_given_is_given_to_nobody_else() {
    let nodes = vec![node("a", None), node("b", None)];
    let (words, _) = planned(nodes, "10.100.0.0/16", 24, &[("uid-b", "10.100.0.0/24")]);
    assert!(
        words[0].contains("10.100.1.0/24") && words[1].contains("10.100.0.0/24"),
        "{words:?}"
    );
}

#[test]
fn an_exhausted_range_is_told_on_the_node() {
    let nodes = vec![
        node("a", Some("10.0.0.0/25")),
        node("b", Some("10.0.0.128/25")),
        node("c", None),
    ];
    let (words, given) = planned(nodes, "10.0.0.0/24", 25, &[]);
    assert_eq!(
        words,
        ["tell CIDRNotAvailable Node c status is now: CIDRNotAvailable"]
    );
    assert!(given.is_empty());
}

#[test]
fn shares_of_another_size_are_not_overlapped() {
    let nodes = vec![node("a", Some("10.100.0.0/23")), node("b", None)];
    let (words, _) = planned(nodes, "10.100.0.0/16", 24, &[]);
    assert!(words[0].contains("\"10.100.2.0/24\""), "{words:?}");
}

#[test]
fn a_range_of_the_longer_family_is_cut_the_same_way() {
    let (words, _) = planned(
        vec![node("a", None), node("b", None)],
        "fd00:10::/48",
        64,
        &[],
    );
    assert!(words[1].contains("\"fd00:10:0:1::/64\""), "{words:?}");
}

#[test]
fn a_node_gets_a_share_of_both_families_and_keeps_the_one_that_it_has() {
    let nodes = vec![node("a", Some("10.100.0.0/24")), node("b", None)];
    let ranges = [("10.100.0.0/16", 24), ("fd00:10:100::/48", 64)];
    let (words, given) = planned_of(nodes, &ranges, &[]);
    let expected = [
        r#"patch nodes a {"spec":{"podCIDR":"10.100.0.0/24","podCIDRs":["10.100.0.0/24","fd00:10:100::/64"]}}"#,
        r#"patch nodes b {"spec":{"podCIDR":"10.100.1.0/24","podCIDRs":["10.100.1.0/24","fd00:10:100:1::/64"]}}"#,
    ];
    assert_eq!(words, expected);
    assert_eq!(given["uid-b"], ["10.100.1.0/24", "fd00:10:100:1::/64"]);
}

#[test]
fn a_family_that_is_used_up_keeps_no_node_from_the_other() {
    let nodes = vec![node("a", Some("10.0.0.0/24")), node("b", None)];
    let (words, _) = planned_of(nodes, &[("10.0.0.0/24", 24), ("fd00::/48", 64)], &[]);
    assert!(words[1].starts_with("tell CIDRNotAvailable"), "{words:?}");
    assert!(
        words[2].contains(r#""podCIDRs":["fd00:0:0:1::/64"]"#),
        "{words:?}"
    );
}
