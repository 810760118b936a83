use super::super::tests::{at, key, node, pod};
use super::*;
use crate::engine::{Bound, Change};
use crate::profile::Config;
use crate::profile::extenders::Extender;

fn extended(preempt: &str) -> Engine {
    let extender = Extender {
        filter: "filter".into(),
        preempt: preempt.into(),
        ..Extender::default()
    };
    let mut engine = Engine::new(Config {
        extenders: vec![extender],
        ..Config::default()
    });
    let nodes = vec![node("one", "1"), node("two", "1")];
    engine.apply(Change::Nodes(nodes), at(0));
    engine
}

fn list(engine: &mut Engine, items: Vec<PodRow>) {
    let revision = 1;
    engine.apply(Change::Pods { items, revision }, at(0));
}

fn said(nodes: &[(&str, i64)]) -> Result<Said, String> {
    let nodes = nodes
        .iter()
        .map(|(name, score)| ((*name).to_owned(), *score));
    Ok(Said {
        nodes: nodes.collect(),
        ..Said::default()
    })
}

#[test]
fn a_pod_goes_where_its_extenders_let_it_and_never_where_there_is_no_room_any_more() {
    let mut engine = extended("");
    list(
        &mut engine,
        vec![pod("a", 600, 1, |_| {}), pod("b", 600, 1, |_| {})],
    );
    let asked = |engine: &mut Engine| match engine.next(at(0)) {
        Some(Order::Consult { key, nodes, .. }) => (key.1, nodes.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (asked(&mut engine), asked(&mut engine)),
        (("a".into(), 2), ("b".into(), 2))
    );
    assert_eq!(
        engine.next(at(0)),
        None,
        "pods that are asked about are in no queue"
    );
    for name in ["a", "b"] {
        engine.consulted(
            &key(name),
            &format!("uid-{name}"),
            said(&[("two", 0)]),
            at(0),
        );
    }
    let Some(Order::Bind { node, uid, .. }) = engine.next(at(0)) else {
        panic!("a place")
    };
    assert_eq!((&*node, &*uid), ("two", "uid-a"));
    // The other one was let onto a node that is full by now.
    let Some(Order::Explain(explanation)) = engine.next(at(0)) else {
        panic!("none")
    };
    assert_eq!(explanation.uid, "uid-b");
    assert!(
        explanation.message.contains("1 node(s) were not known yet"),
        "{}",
        explanation.message
    );
    engine.bound(&key("a"), "uid-a", Bound::Done, at(0));
}

#[test]
fn priorities_of_extenders_count_and_their_failure_is_told_and_tried_again() {
    let mut engine = extended("");
    list(&mut engine, vec![pod("a", 100, 1, |_| {})]);
    assert!(matches!(engine.next(at(0)), Some(Order::Consult { .. })));
    engine.consulted(&key("a"), "uid-a", Err("out of order".into()), at(0));
    let Some(Order::Explain(explanation)) = engine.next(at(0)) else {
        panic!("it is told")
    };
    assert!(explanation.is_error && explanation.message == "out of order");
    assert!(matches!(engine.next(at(20)), Some(Order::Consult { .. })));
    for (one, two, best) in [(1000, 0, "one"), (0, 1000, "two")] {
        engine.consulted(
            &key("a"),
            "uid-a",
            said(&[("one", one), ("two", two)]),
            at(20),
        );
        let Some(Order::Bind { node, key, uid }) = engine.next(at(20)) else {
            panic!("a place")
        };
        assert_eq!(node, best);
        engine.bound(&key, &uid, Bound::Failed(None), at(20));
        assert!(matches!(engine.next(at(9999)), Some(Order::Consult { .. })));
    }
}

#[test]
fn an_answer_about_a_pod_that_is_gone_or_another_one_by_now_is_nothing() {
    let mut engine = extended("");
    list(&mut engine, vec![pod("a", 100, 1, |_| {})]);
    assert!(matches!(engine.next(at(0)), Some(Order::Consult { .. })));
    engine.consulted(&key("a"), "uid-other", said(&[("one", 0)]), at(0));
    assert_eq!(engine.next(at(0)), None);
    engine.apply(Change::PodGone(key("a")), at(0));
    engine.consulted(&key("a"), "uid-a", said(&[("one", 0)]), at(0));
    assert_eq!(engine.next(at(0)), None);
}

#[test]
fn pods_are_stopped_only_where_an_extender_agrees() {
    let mut engine = extended("preempt");
    let on = |name: &str, node: &str| {
        let mut row = pod(name, 900, 1, |_| {});
        row.node = node.to_owned();
        row
    };
    let important = pod("vip", 900, 1, |it| it["spec"]["priority"] = 1000.into());
    list(
        &mut engine,
        vec![on("v1", "one"), on("v2", "two"), important],
    );
    let offer = |engine: &mut Engine| match engine.next(at(0)) {
        Some(Order::ConsultPreemption { node, victims, .. }) => (node, victims),
        other => panic!("{other:?}"),
    };
    let (first, _) = offer(&mut engine);
    engine.agreed(&key("vip"), "uid-vip", Ok(None), at(0));
    let (second, victims) = offer(&mut engine);
    assert_ne!(first, second);
    let uids = victims.iter().map(|(_, uid)| uid.clone()).collect();
    engine.agreed(&key("vip"), "uid-vip", Ok(Some(uids)), at(0));
    let Some(Order::Explain(explanation)) = engine.next(at(0)) else {
        panic!("the victim is stopped")
    };
    assert_eq!(explanation.nominated, Some(second));
    assert_eq!(explanation.victims.len(), 1);
}
