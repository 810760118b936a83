use serde_json::{Value, json};

use super::load_balancer::{Memory, gather, plan};
use super::pool::Block;
use crate::fixture::{words, world};
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

fn planned_with(
    pool: &[&str],
    services: Vec<(Kind, Value)>,
    memory: &Memory,
) -> (Vec<String>, Memory) {
    let pool: Vec<Block> = pool.iter().map(|part| part.parse().unwrap()).collect();
    let world = world(services);
    let (plan, memory) = plan(&gather(&world, &pool, memory));
    (words(&plan.actions), memory)
}

fn planned(pool: &[&str], services: Vec<(Kind, Value)>) -> Vec<String> {
    planned_with(pool, services, &Memory::default()).0
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
fn services_get_the_lowest_free_addresses_oldest_first() {
    let services = vec![
        balanced("a", 2, json!({}), &[]),
        balanced("b", 1, json!({}), &[]),
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
    let services = vec![
        balanced("a", 0, json!({}), &["198.51.100.1"]),
        balanced("b", 0, json!({}), &[]),
        balanced("other", 0, json!({"loadBalancerClass": "x/y"}), &[]),
    ];
    let (words, memory) = planned_with(&[], services.clone(), &Memory::default());
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(
        words[0].starts_with("tell NoLoadBalancerPool this server gives no addresses: start it"),
        "{words:?}"
    );
    let (words, _) = planned_with(&[], services, &memory);
    assert!(words.is_empty(), "{words:?}");
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
    let pool = ["192.0.2.7"];
    let first = balanced("a", 0, json!({}), &["192.0.2.7"]);
    let second = balanced("b", 1, json!({}), &[]);
    let both = vec![first, second.clone()];
    let (words, memory) = planned_with(&pool, both.clone(), &Memory::default());
    assert_eq!(
        words,
        [
            "tell AllocationFailed the pool (192.0.2.7-192.0.2.7) has no free IPv4 address: delete \
          a Service of type LoadBalancer or give --load-balancer-pool more addresses"
        ]
    );
    let (words, memory) = planned_with(&pool, both, &memory);
    assert!(words.is_empty(), "{words:?}");
    let (words, _) = planned_with(&pool, vec![second], &memory);
    assert_eq!(words[0], ingress("b", &["192.0.2.7"]));
}

#[test]
fn an_address_that_was_given_and_not_yet_seen_is_nobody_elses() {
    let late = balanced("b", 1, json!({}), &[]);
    let (_, memory) = planned_with(&["192.0.2.0/29"], vec![late.clone()], &Memory::default());
    let early = balanced("a", 0, json!({}), &[]);
    let (words, _) = planned_with(&["192.0.2.0/29"], vec![early, late], &memory);
    assert_eq!(words[0], ingress("a", &["192.0.2.2"]));
    assert_eq!(words[2], ingress("b", &["192.0.2.1"]));
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
