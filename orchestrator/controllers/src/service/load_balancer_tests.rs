use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::load_balancer::Ledger;
use super::pool::Block;
use crate::fixture::{object, words};
use crate::object::{Key, Object};
use crate::world::{Change, World};
use client::Kind;

/// A Service of type LoadBalancer, made `age` seconds after the first one.
fn balanced(name: &str, age: u8, spec: Value, addresses: &[&str]) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{age:02}Z")},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    for (field, given) in spec.as_object().unwrap() {
        value["spec"][field] = given.clone();
    }
    let ingress = addresses.iter();
    let ingress: Vec<Value> = ingress
        .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
        .collect();
    value["status"] = json!({"loadBalancer": {"ingress": ingress}});
    (Kind::SERVICE, value)
}

/// What is known after these Services have come to be, and nothing is planned yet.
fn heard(pool: &[&str], services: &[(Kind, Value)]) -> (Ledger, World) {
    let pool: Vec<Block> = pool.iter().map(|part| part.parse().unwrap()).collect();
    let (mut ledger, mut world) = (Ledger::of(pool), World::default());
    for service in services {
        change(&mut ledger, &mut world, service.clone());
    }
    (ledger, world)
}

/// Whom to plan for after a Service has changed.
fn change(ledger: &mut Ledger, world: &mut World, (kind, value): (Kind, Value)) -> Vec<String> {
    hear(ledger, world, Change::Upsert(object(kind, value)))
}

fn delete(ledger: &mut Ledger, world: &mut World, name: &str) -> Vec<String> {
    let gone = world.get(Kind::SERVICE, &Key::new("ns", name)).unwrap();
    let mut gone = Object::clone(gone);
    gone.meta.revision += 1;
    hear(ledger, world, Change::Delete(gone))
}

fn hear(ledger: &mut Ledger, world: &mut World, change: Change) -> Vec<String> {
    let diffs = world.apply(change);
    let due: BTreeSet<Key> = diffs.iter().flat_map(|diff| ledger.hear(diff)).collect();
    due.into_iter().map(|key| key.name).collect()
}

/// What is done about one Service.
fn plan(ledger: &mut Ledger, world: &World, name: &str) -> Vec<String> {
    let object = world.get(Kind::SERVICE, &Key::new("ns", name));
    let plan = ledger.plan(object.unwrap());
    plan.map_or(Vec::new(), |plan| words(&plan.actions))
}

/// What is done about all of them, in this order.
fn planned(pool: &[&str], services: Vec<(Kind, Value)>) -> Vec<String> {
    let (mut ledger, world) = heard(pool, &services);
    let names = services
        .iter()
        .map(|it| it.1["metadata"]["name"].as_str().unwrap());
    names
        .flat_map(|name| plan(&mut ledger, &world, name))
        .collect()
}

fn ingress(name: &str, addresses: &[&str]) -> String {
    let entries = addresses.iter();
    let entries: Vec<String> = entries
        .map(|ip| format!(r#"{{"ip":"{ip}","ipMode":"VIP"}}"#))
        .collect();
    let list = entries.join(",");
    format!(
        r#"patch services/status {name} {{"status":{{"loadBalancer":{{"ingress":[{list}]}}}}}}"#
    )
}

#[test]
fn services_get_the_lowest_free_addresses() {
    let services = vec![
        balanced("b", 1, json!({}), &[]),
        balanced("a", 2, json!({}), &[]),
        balanced("c", 0, json!({}), &["192.0.2.1"]),
        balanced("other", 0, json!({"loadBalancerClass": "x/y"}), &[]),
    ];
    let words = planned(&["192.0.2.0/29"], services);
    let expected = [
        ingress("b", &["192.0.2.2"]),
        "tell IPAllocated Assigned 192.0.2.2 from the pool".to_owned(),
        ingress("a", &["192.0.2.3"]),
        "tell IPAllocated Assigned 192.0.2.3 from the pool".to_owned(),
    ];
    assert_eq!(words, expected);
}

#[test]
fn without_a_pool_addresses_are_somebody_elses_and_who_waits_is_told_once() {
    let services = [
        balanced("a", 0, json!({}), &["198.51.100.1"]),
        balanced("b", 0, json!({}), &[]),
        balanced("other", 0, json!({"loadBalancerClass": "x/y"}), &[]),
    ];
    let (mut ledger, world) = heard(&[], &services);
    let told = plan(&mut ledger, &world, "b");
    assert!(
        told[0].starts_with("tell NoLoadBalancerPool this server gives no addresses: start it"),
        "{told:?}"
    );
    for name in ["a", "b", "other"] {
        assert!(plan(&mut ledger, &world, name).is_empty(), "{name}");
    }
}

#[test]
fn both_families_are_given_in_the_services_order() {
    let spec = json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"});
    let words = planned(
        &["192.0.2.0/29", "fd00::/120"],
        vec![balanced("a", 0, spec.clone(), &[])],
    );
    assert_eq!(words[0], ingress("a", &["fd00::1", "192.0.2.1"]));
    let words = planned(&["192.0.2.0/29"], vec![balanced("a", 0, spec, &[])]);
    assert_eq!(words[0], ingress("a", &["192.0.2.1"]));
    assert_eq!(words.len(), 2, "content with one family: {words:?}");
}

#[test]
fn an_address_that_is_asked_for_is_given_or_the_reason_told() {
    let wish = |address: &str| json!({"loadBalancerIP": address});
    let words = planned(
        &["192.0.2.0/29"],
        vec![
            balanced("a", 0, wish("192.0.2.5"), &[]),
            balanced("b", 1, wish("192.0.2.5"), &[]),
            balanced("c", 2, wish("198.51.100.9"), &[]),
            balanced("d", 3, wish("192.0.2.6"), &["192.0.2.1"]),
            balanced("e", 4, wish("nowhere"), &["192.0.2.2"]),
        ],
    );
    let expected = [
        ingress("a", &["192.0.2.5"]),
        "tell IPAllocated Assigned 192.0.2.5 from the pool".to_owned(),
        "tell AllocationFailed loadBalancerIP 192.0.2.5 is taken by Service ns/a".to_owned(),
        "tell AllocationFailed loadBalancerIP 198.51.100.9 is not in the pool \
         (192.0.2.1-192.0.2.6)"
            .to_owned(),
        ingress("d", &["192.0.2.6"]),
        "tell IPAllocated Assigned 192.0.2.6 from the pool".to_owned(),
        "tell AllocationFailed loadBalancerIP \"nowhere\" is no IP address".to_owned(),
    ];
    assert_eq!(words, expected);
}

#[test]
fn who_finds_the_pool_empty_is_told_once_and_served_when_one_is_free() {
    let services = [
        balanced("a", 0, json!({}), &["192.0.2.7"]),
        balanced("c", 1, json!({}), &[]),
        balanced("b", 2, json!({}), &[]),
    ];
    let (mut ledger, mut world) = heard(&["192.0.2.7"], &services);
    for name in ["b", "c"] {
        assert_eq!(
            plan(&mut ledger, &world, name),
            [
                "tell AllocationFailed the pool (192.0.2.7-192.0.2.7) has no free IPv4 address: \
              delete a Service of type LoadBalancer or give --load-balancer-pool more addresses"
            ]
        );
        assert!(plan(&mut ledger, &world, name).is_empty(), "{name}");
    }
    // The oldest that waits is the one that is looked at.
    assert_eq!(delete(&mut ledger, &mut world, "a"), ["c"]);
    let words = plan(&mut ledger, &world, "c");
    assert_eq!(words[0], ingress("c", &["192.0.2.7"]));
    // It has it, seen or not yet seen.
    assert!(plan(&mut ledger, &world, "b").is_empty());
    assert_eq!(delete(&mut ledger, &mut world, "c"), ["b"]);
}

#[test]
fn who_asks_for_an_address_gets_it_when_its_holder_is_gone() {
    let wish = json!({"loadBalancerIP": "192.0.2.2"});
    let services = [
        balanced("a", 0, json!({}), &["192.0.2.1"]),
        balanced("b", 1, json!({}), &["192.0.2.2"]),
        balanced("c", 2, wish, &[]),
    ];
    let (mut ledger, mut world) = heard(&["192.0.2.0/29"], &services);
    let told = plan(&mut ledger, &world, "c");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(delete(&mut ledger, &mut world, "a").is_empty());
    // A type of its own gives an address up as a deletion does.
    let mut other = balanced("b", 1, json!({"type": "ClusterIP"}), &[]);
    other.1["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(change(&mut ledger, &mut world, other), ["c"]);
    let words = plan(&mut ledger, &world, "c");
    assert_eq!(words[0], ingress("c", &["192.0.2.2"]));
}

#[test]
fn an_address_that_was_given_and_not_yet_seen_is_nobody_elses() {
    let late = balanced("b", 1, json!({}), &[]);
    let (mut ledger, mut world) = heard(&["192.0.2.0/29"], &[late]);
    assert_eq!(
        plan(&mut ledger, &world, "b")[0],
        ingress("b", &["192.0.2.1"])
    );
    let early = balanced("a", 0, json!({}), &[]);
    assert_eq!(change(&mut ledger, &mut world, early), ["a"]);
    assert_eq!(
        plan(&mut ledger, &world, "a")[0],
        ingress("a", &["192.0.2.2"])
    );
    assert_eq!(
        plan(&mut ledger, &world, "b")[0],
        ingress("b", &["192.0.2.1"])
    );
    // Seen at last: nothing is left to do.
    let mut seen = balanced("b", 1, json!({}), &["192.0.2.1"]);
    seen.1["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(change(&mut ledger, &mut world, seen), ["b"]);
    assert!(plan(&mut ledger, &world, "b").is_empty());
}

#[test]
fn a_service_of_the_same_name_begins_anew() {
    let first = balanced("a", 0, json!({}), &["192.0.2.3"]);
    let (mut ledger, mut world) = heard(&["192.0.2.0/29"], &[first]);
    let mut second = balanced("a", 1, json!({}), &[]);
    second.1["metadata"]["uid"] = json!("another");
    second.1["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(change(&mut ledger, &mut world, second), ["a"]);
    assert_eq!(
        plan(&mut ledger, &world, "a")[0],
        ingress("a", &["192.0.2.1"])
    );
}

#[test]
fn a_services_event_costs_the_same_among_one_and_ten_thousand() {
    let looked_at = |count: u32| {
        let (mut ledger, mut world) = heard(&["10.0.0.0/16"], &[]);
        for number in 0..count {
            let address = format!("10.0.{}.{}", number / 250, 1 + number % 250);
            let service = balanced(&format!("s{number}"), 0, json!({}), &[&address]);
            change(&mut ledger, &mut world, service);
        }
        world.visits.set(0);
        let due = change(&mut ledger, &mut world, balanced("new", 1, json!({}), &[]));
        assert_eq!(due, ["new"]);
        assert_eq!(plan(&mut ledger, &world, "new").len(), 2);
        world.visits.get()
    };
    assert_eq!(looked_at(1), looked_at(10_000));
}

#[test]
fn one_address_in_two_statuses_stays_with_the_older_service() {
    let words = planned(
        &["192.0.2.0/29"],
        vec![
            balanced("a", 1, json!({}), &["192.0.2.1"]),
            balanced("b", 0, json!({}), &["192.0.2.1"]),
        ],
    );
    assert_eq!(words[0], ingress("a", &["192.0.2.2"]));
    assert_eq!(words.len(), 2);
}

#[test]
fn an_address_outside_the_pool_is_replaced() {
    let words = planned(
        &["192.0.2.0/29"],
        vec![balanced("a", 1, json!({}), &["198.51.100.1"])],
    );
    assert_eq!(words[0], ingress("a", &["192.0.2.1"]));
}
