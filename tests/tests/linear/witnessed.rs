//! What judges a round on a whole cluster finds a fault of each kind that is planted, and none in a good round.

use libtest_mimic::Trial;
use serde_json::json;
use tests::nemesis::cluster::picture::{self, PARTS, Picture};
use tests::nemesis::cluster::witness::{self, Seen};

const TESTS: &[(&str, fn())] = &[
    ("a_container_that_follows_another_is_good", follows),
    ("two_pods_of_one_name_are_found", two_pods),
    ("two_writers_of_a_volume_are_found", two_writers),
    ("a_container_that_is_left_is_found", left),
    (
        "a_picture_shows_what_is_missing_and_what_is_too_much",
        differs,
    ),
];

pub fn trials() -> Vec<Trial> {
    let trials = TESTS.iter().map(|(name, test)| {
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    });
    trials.collect()
}

fn seen(id: &str, pod: &str, has_started: bool) -> Seen {
    Seen {
        has_started,
        id: id.to_owned(),
        namespace: "round-1".to_owned(),
        pod: pod.to_owned(),
        container: "main".to_owned(),
        node: "node-1".to_owned(),
        at_ns: 1,
    }
}

fn follows() {
    let all = [
        seen("1", "keeper-0", true),
        seen("2", "single-a", true),
        seen("3", "keeper-1", true),
        seen("1", "keeper-0", false),
        seen("4", "keeper-0", true),
        seen("2", "single-a", false),
        seen("5", "single-b", true),
    ];
    assert_eq!(witness::twice(&all), Vec::<String>::new());
}

fn two_pods() {
    let mut other = seen("2", "keeper-0", true);
    other.node = "node-2".to_owned();
    let found = witness::twice(&[seen("1", "keeper-0", true), other]);
    assert!(found[0].starts_with("round-1/keeper-0/main runs twice"));
}

fn two_writers() {
    let all = [
        seen("1", "single-a", true),
        seen("2", "single-b", true),
        seen("1", "single-a", false),
    ];
    let found = witness::twice(&all);
    assert!(found[0].starts_with("the writer of round-1/single runs twice"));
}

fn left() {
    let all = [
        seen("1", "front-a", true),
        seen("2", "front-b", true),
        seen("2", "front-b", false),
    ];
    let running: Vec<&str> = { witness::running(&all) }
        .iter()
        .map(|it| &*it.pod)
        .collect();
    assert_eq!(running, ["front-a"]);
}

fn differs() {
    let set = |name: &str, replicas: u64| {
        json!({
            "metadata": {"name": name, "generation": 1},
            "status": {"replicas": replicas, "observedGeneration": 1},
        })
    };
    let (mut wanted, mut found) = (Picture::new(), Picture::new());
    PARTS[0].show(&[set("front", 2)], &mut wanted);
    assert!(picture::differences(&wanted, &wanted).is_empty());
    PARTS[0].show(&[set("front", 1), set("more", 1)], &mut found);
    let differences = picture::differences(&wanted, &found);
    assert_eq!(differences.len(), 2);
    assert!(differences[1].ends_with("and not nothing"));
}
