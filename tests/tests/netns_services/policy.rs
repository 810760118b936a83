//! Traffic policies, endpoints that terminate, and topology.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use tests::netns::{Ep, Netns, Svc};
use tests::peer::{Client, ask_tcp, ask_udp, refused_tcp, spread};

use crate::pair::{
    BESIDE, CLIENT, FAR, Families, OTHER, Pair, TARGET, families, outside_like, pair,
};

const NODE_PORT: u16 = 30080;
/// Long enough for an answer that comes at all.
const SILENCE: Duration = Duration::from_millis(500);

families! {
    preserves: external_traffic_policy_local_preserves_the_client_address
        external_traffic_policy_local_preserves_the_client_address_v6
        external_traffic_policy_local_preserves_the_client_address_dual;
}

fn preserves(test: &str, families: Families) -> Result<()> {
    let mut pair = pair!(test);
    let web = families
        .svc("web", 10)
        .port(80, TARGET)
        .node_port(NODE_PORT);
    pair.cluster
        .apply(&web.external_local().to([pair.ep(FAR)]))?;
    for addr in pair.node_addrs(1, families) {
        assert_eq!(ask_tcp(pair.outside(), (addr, NODE_PORT), "x")?, "far x");
        let seen = pair
            .seen_by("far")
            .into_iter()
            .rfind(|seen| seen.is_ipv4() == addr.is_ipv4());
        assert_eq!(seen, Some(outside_like(addr)));
    }
    Ok(())
}

fn local() -> Svc {
    Svc::new("web", 10)
        .port(80, TARGET)
        .node_port(NODE_PORT)
        .external_local()
}

/// Whether a client outside is served through a node, and by whom. Silence is no answer.
fn through(pair: &Pair, node: usize) -> Result<Option<Vec<String>>> {
    let mut served = None;
    for addr in pair.node_addrs(node, Families::Dual) {
        let to = (addr, NODE_PORT);
        if Client::connect_within(pair.outside(), to, SILENCE).is_err() {
            assert_eq!(served, None, "one family is served and the other is not");
            continue;
        }
        let names: Vec<_> = spread(pair.outside(), to, 24)?.into_keys().collect();
        served.get_or_insert(names);
    }
    Ok(served)
}

#[test]
fn external_traffic_policy_local_targets_only_nodes_with_endpoints() -> Result<()> {
    let mut pair = pair!("external_traffic_policy_local_targets_only_nodes_with_endpoints");
    pair.cluster
        .apply(&local().to([pair.ep(FAR), pair.ep(OTHER)]))?;
    assert_eq!(through(&pair, 0)?, None);
    assert_eq!(through(&pair, 1)?, Some(vec!["far".into(), "other".into()]));
    pair.cluster
        .apply(&local().to([pair.ep(BESIDE), pair.ep(OTHER)]))?;
    assert_eq!(through(&pair, 0)?, Some(vec!["beside".into()]));
    assert_eq!(through(&pair, 1)?, Some(vec!["other".into()]));
    Ok(())
}

/// Who asks from inside is not sent away: the policy is for outside.
#[test]
fn external_traffic_policy_local_works_from_pods() -> Result<()> {
    let mut pair = pair!("external_traffic_policy_local_works_from_pods");
    let addr: IpAddr = "192.0.2.10".parse()?;
    let web = local().load_balancer(addr).to([pair.ep(FAR)]);
    pair.cluster.apply(&web)?;
    let node = pair.node_addrs(0, Families::V4)[0];
    for asker in [pair.pod(CLIENT), pair.node(0)] {
        assert_eq!(ask_tcp(asker, (addr, 80), "x")?, "far x");
        assert_eq!(ask_tcp(asker, (node, NODE_PORT), "x")?, "far x");
    }
    Ok(())
}

#[test]
fn external_traffic_policy_can_be_switched() -> Result<()> {
    let mut pair = pair!("external_traffic_policy_can_be_switched");
    let cluster = Svc::new("web", 10).port(80, TARGET).node_port(NODE_PORT);
    for (service, via_first) in [
        (cluster.clone(), true),
        (cluster.clone().external_local(), false),
        (cluster, true),
    ] {
        pair.cluster.apply(&service.to([pair.ep(FAR)]))?;
        assert_eq!(through(&pair, 0)?.is_some(), via_first);
        assert!(through(&pair, 1)?.is_some());
    }
    Ok(())
}

#[test]
fn external_traffic_policy_local_falls_back_to_terminating_endpoints() -> Result<()> {
    let mut pair = pair!("external_traffic_policy_local_falls_back_to_terminating_endpoints");
    let beside = vec!["beside".to_owned()];
    // The other node has a ready one: locality goes before readiness (KEP-1669).
    pair.cluster
        .apply(&local().to([pair.ep(BESIDE).terminating(), pair.ep(FAR)]))?;
    assert_eq!(through(&pair, 0)?, Some(beside.clone()));
    // A ready one here takes all.
    pair.cluster
        .apply(&local().to([pair.ep(BESIDE), pair.ep(CLIENT).terminating()]))?;
    assert_eq!(through(&pair, 0)?, Some(beside));
    // One that serves no more is none.
    pair.cluster
        .apply(&local().to([pair.ep(BESIDE).leaving(), pair.ep(FAR)]))?;
    assert_eq!(through(&pair, 0)?, None);
    Ok(())
}

#[test]
fn external_traffic_policy_cluster_falls_back_to_terminating_endpoints() -> Result<()> {
    let mut pair = pair!("external_traffic_policy_cluster_falls_back_to_terminating_endpoints");
    let web = Svc::new("web", 10).port(80, TARGET).node_port(NODE_PORT);
    let leaving = [pair.ep(BESIDE).terminating(), pair.ep(FAR).terminating()];
    pair.cluster.apply(&web.clone().to(leaving.clone()))?;
    assert_eq!(
        through(&pair, 0)?,
        Some(vec!["beside".into(), "far".into()])
    );
    let [first, _] = leaving;
    pair.cluster.apply(&web.to([first, pair.ep(FAR)]))?;
    assert_eq!(through(&pair, 0)?, Some(vec!["far".into()]));
    Ok(())
}

/// A ClusterIP with `internalTrafficPolicy: Local` and these endpoints; each asker's answers.
fn internal(pair: &mut Pair, eps: &[Ep]) -> Result<Svc> {
    let web = Svc::new("web", 10)
        .port(80, TARGET)
        .udp(80, TARGET)
        .internal_local();
    pair.cluster.apply(&web.clone().to(eps.to_vec()))?;
    Ok(web)
}

fn answers(asker: &Netns, web: &Svc, wanted: Option<&str>) -> Result<()> {
    for ip in web.each_ip() {
        let Some(name) = wanted else {
            refused_tcp(asker, (ip, 80))?;
            continue;
        };
        for _ in 0..12 {
            assert_eq!(ask_tcp(asker, (ip, 80), "x")?, format!("{name} x"));
            assert_eq!(ask_udp(asker, (ip, 80), "x")?, format!("{name} x"));
        }
    }
    Ok(())
}

#[test]
fn internal_traffic_policy_local_from_pod_to_pod() -> Result<()> {
    let mut pair = pair!("internal_traffic_policy_local_from_pod_to_pod");
    let eps = [pair.ep(BESIDE), pair.ep(FAR)];
    let web = internal(&mut pair, &eps)?;
    answers(pair.pod(CLIENT), &web, Some("beside"))?;
    answers(pair.pod(OTHER), &web, Some("far"))?;
    let web = internal(&mut pair, &eps[1..])?;
    answers(pair.pod(CLIENT), &web, None)?;
    answers(pair.pod(OTHER), &web, Some("far"))
}

#[test]
fn internal_traffic_policy_local_from_pod_to_host_network_pod() -> Result<()> {
    let mut pair = pair!("internal_traffic_policy_local_from_pod_to_host_network_pod");
    pair.serve_on_node(0, "here", TARGET)?;
    pair.serve_on_node(1, "there", TARGET)?;
    let eps = [
        pair.cluster.nodes[0].host_ep(),
        pair.cluster.nodes[1].host_ep(),
    ];
    let web = internal(&mut pair, &eps)?;
    answers(pair.pod(CLIENT), &web, Some("here"))?;
    answers(pair.pod(FAR), &web, Some("there"))
}

#[test]
fn internal_traffic_policy_local_from_node() -> Result<()> {
    let mut pair = pair!("internal_traffic_policy_local_from_node");
    let eps = [pair.ep(BESIDE), pair.ep(FAR)];
    let web = internal(&mut pair, &eps)?;
    answers(pair.node(0), &web, Some("beside"))?;
    answers(pair.node(1), &web, Some("far"))?;
    let web = internal(&mut pair, &eps[..1])?;
    answers(pair.node(0), &web, Some("beside"))?;
    answers(pair.node(1), &web, None)
}

#[test]
fn internal_traffic_policy_local_falls_back_to_terminating_endpoints() -> Result<()> {
    let mut pair = pair!("internal_traffic_policy_local_falls_back_to_terminating_endpoints");
    let eps = [pair.ep(BESIDE).terminating(), pair.ep(FAR)];
    let web = internal(&mut pair, &eps)?;
    answers(pair.pod(CLIENT), &web, Some("beside"))?;
    answers(pair.pod(OTHER), &web, Some("far"))
}

#[test]
fn internal_traffic_policy_cluster_falls_back_to_terminating_endpoints() -> Result<()> {
    let mut pair = pair!("internal_traffic_policy_cluster_falls_back_to_terminating_endpoints");
    let web = Svc::new("web", 10).port(80, TARGET).udp(80, TARGET);
    let leaving = [pair.ep(FAR).terminating(), pair.ep(BESIDE).leaving()];
    pair.cluster.apply(&web.clone().to(leaving))?;
    answers(pair.pod(CLIENT), &web, Some("far"))?;
    let ready = [pair.ep(FAR).terminating(), pair.ep(BESIDE)];
    pair.cluster.apply(&web.clone().to(ready))?;
    answers(pair.pod(CLIENT), &web, Some("beside"))
}

/// Hints lead to the zone's own endpoints; when one endpoint has none, or no hint is for the zone, all
/// of them serve.
#[test]
fn topology_hints_keep_traffic_in_the_zone_and_fall_back() -> Result<()> {
    let mut pair = pair!("topology_hints_keep_traffic_in_the_zone_and_fall_back");
    for (node, zone) in [(0, "a"), (1, "b")] {
        pair.cluster.nodes[node].zone = Some(zone.to_owned());
    }
    pair.cluster.announce_nodes()?;
    let web = Svc::new("web", 10).port(80, TARGET);
    let (beside, far) = (pair.ep(BESIDE), pair.ep(FAR));
    let all = ["beside", "far"];
    for (eps, first, second) in [
        (
            [
                beside.clone().for_zones(&["a"]),
                far.clone().for_zones(&["b"]),
            ],
            &all[..1],
            &all[1..],
        ),
        (
            [beside.clone().for_zones(&["a"]), far.clone()],
            &all[..],
            &all[..],
        ),
        (
            [
                beside.clone().for_zones(&["c"]),
                far.clone().for_zones(&["b"]),
            ],
            &all[..],
            &all[1..],
        ),
        ([beside, far], &all[..], &all[..]),
    ] {
        pair.cluster.apply(&web.clone().to(eps.clone()))?;
        for ip in web.each_ip() {
            for (asker, wanted) in [(pair.pod(CLIENT), first), (pair.pod(OTHER), second)] {
                let answered = spread(asker, (ip, 80), 32)?;
                assert!(
                    answered.keys().eq(wanted),
                    "{eps:?}: {answered:?}, not {wanted:?}"
                );
            }
        }
    }
    Ok(())
}
