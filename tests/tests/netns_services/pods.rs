//! Pods, nodes and outside without a Service between.

use std::net::IpAddr;

use anyhow::Result;
use tests::netns::Plan;
use tests::peer::{Server, ask_tcp, ask_udp};

use crate::pair::{BESIDE, CLIENT, FAR, Families, Pair, TARGET, families, outside_like, pair};

families! {
    each_other: intra_pod_and_node_pod_http_and_udp
        intra_pod_and_node_pod_http_and_udp_v6 intra_pod_and_node_pod_http_and_udp_dual;
    untranslated: pods_talk_without_source_translation_within_the_cluster
        pods_talk_without_source_translation_within_the_cluster_v6
        pods_talk_without_source_translation_within_the_cluster_dual;
    masqueraded: pod_reaches_the_outside_masqueraded
        pod_reaches_the_outside_masqueraded_v6 pod_reaches_the_outside_masqueraded_dual;
}

fn addrs(pair: &Pair, (node, pod): crate::pair::Who, families: Families) -> Vec<IpAddr> {
    let pod = &pair.cluster.nodes[node].pods[pod];
    let addrs = [IpAddr::from(pod.addr), IpAddr::from(pod.v6)];
    addrs
        .into_iter()
        .filter(|addr| families.has(*addr))
        .collect()
}

/// Over an underlay of either family.
fn each_other(test: &str, families: Families) -> Result<()> {
    for plan in [Plan::nodes(2), Plan::nodes(2).underlay_v6()] {
        let Some(pair) = Pair::start_as(test, plan)? else {
            return Ok(());
        };
        for (who, name) in [(BESIDE, "beside x"), (FAR, "far x"), (CLIENT, "client x")] {
            for addr in addrs(&pair, who, families) {
                for asker in [pair.pod(CLIENT), pair.node(0), pair.node(1)] {
                    assert_eq!(ask_tcp(asker, (addr, TARGET), "x")?, name, "{}", asker.name);
                    assert_eq!(ask_udp(asker, (addr, TARGET), "x")?, name, "{}", asker.name);
                }
            }
        }
    }
    Ok(())
}

fn untranslated(test: &str, families: Families) -> Result<()> {
    let pair = pair!(test);
    for (who, name) in [(BESIDE, "beside"), (FAR, "far")] {
        for addr in addrs(&pair, who, families) {
            ask_tcp(pair.pod(CLIENT), (addr, TARGET), "x")?;
            ask_udp(pair.pod(CLIENT), (addr, TARGET), "x")?;
            let client = pair.addr_like(CLIENT, addr);
            let seen = pair.seen_by(name);
            let of_family = seen.iter().filter(|seen| seen.is_ipv4() == addr.is_ipv4());
            assert!(of_family.clone().count() == 2 && of_family.clone().all(|s| *s == client));
        }
    }
    Ok(())
}

fn masqueraded(test: &str, families: Families) -> Result<()> {
    let pair = pair!(test);
    let servers = [
        Server::tcp(pair.outside(), "outside", 7070)?,
        Server::udp(pair.outside(), "outside", 7070)?,
    ];
    for node in pair.node_addrs(0, families) {
        let to = (outside_like(node), 7070);
        assert_eq!(ask_tcp(pair.pod(CLIENT), to, "x")?, "outside x");
        assert_eq!(ask_udp(pair.pod(CLIENT), to, "x")?, "outside x");
        for server in &servers {
            let last = server.heard().last().map(|from| from.ip());
            assert_eq!(last, Some(node));
        }
    }
    Ok(())
}
