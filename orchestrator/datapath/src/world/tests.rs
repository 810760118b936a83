//! Objects that claim what is not theirs, and what the tables make of it.

use std::net::IpAddr;

use orchestrator_common::maps::config::Family;
use orchestrator_common::maps::services::ServiceKey;
use orchestrator_common::{Addr, Mac, Port, Prefix, Proto};
use serde_json::{Value, json};

use super::*;
use crate::desired::{announced, nodes};
use crate::facts::Facts;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Those of `node-1`.
fn facts() -> Facts {
    let prefix = |text: &str, bits| Prefix::new(ip(text), bits);
    Facts {
        name: "node-1".into(),
        v4: Family {
            node: ip("172.31.0.11").into(),
            gateway: ip("10.100.1.1").into(),
            translation: ip("10.100.1.0").into(),
            pods: prefix("10.100.0.0", 16),
            services: prefix("10.96.0.0", 16),
            node_mask: Addr::v4_mask(24),
        },
        v6: Family::NONE,
        underlay: ip("172.31.0.11").into(),
        uplink: 2,
        overlay: 3,
        host: 5,
        cut: 0,
        host_mac: Mac::default(),
        net_mac: Mac::default(),
        uplink_mac: Mac::default(),
        vni: 1,
        vxlan_port: Port::new(4789),
        mtu: 1450,
        netns_cookie: 1,
        dsr: true,
        neighbourhood: Prefix::NONE,
        servers: vec![ip("172.31.0.1").into()],
    }
}

/// The world after these objects; it is the same in the other order.
fn world(objects: &[Value]) -> World {
    let made = |objects: &mut dyn Iterator<Item = &Value>| {
        let mut world = World::new("node-1", Reserved::of(&facts()));
        objects.for_each(|object| drop(world.change(change(object))));
        world
    };
    let world = made(&mut objects.iter());
    let reversed = made(&mut objects.iter().rev());
    let units = |world: &World| world.units().collect::<BTreeSet<Unit>>();
    assert_eq!(units(&world), units(&reversed));
    world
}

fn change(object: &Value) -> Change {
    let text = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let key = ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"));
    let object = object.clone();
    match text("/kind") {
        "Service" => {
            let service = serde_json::from_value(object).unwrap();
            Change::Service(key, ServiceView::from_object(&service))
        }
        "EndpointSlice" => {
            let slice = serde_json::from_value(object).unwrap();
            Change::Slice(key, SliceView::from_object(&slice, "node-1"))
        }
        _ => {
            let node = serde_json::from_value(object).unwrap();
            Change::Node(key.name().to_owned(), NodeView::from_object(&node))
        }
    }
}

fn service(key: &str, cluster_ip: &str, port: u16, more: Value) -> Value {
    let (namespace, name) = key.split_once('/').unwrap();
    let mut service = json!({"kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": cluster_ip, "ports": [{"port": port, "protocol": "TCP"}]}});
    for (field, value) in more.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

fn balanced(key: &str, cluster_ip: &str, address: &str) -> Value {
    let mut service = service(key, cluster_ip, 80, json!({"type": "LoadBalancer"}));
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}});
    service
}

fn node(name: &str, second: u8, cidrs: &[&str], address: &str) -> Value {
    json!({"kind": "Node",
        "metadata": {"name": name, "uid": format!("uid-{name}"),
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": {"podCIDRs": cidrs},
        "status": {"addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn row(addr: &str, port: u16) -> ServiceKey {
    ServiceKey::new(ip(addr).into(), Port::new(port), Proto::TCP)
}

/// The Service that has a row.
fn owner(world: &World, addr: &str, port: u16) -> Option<String> {
    match world.service_row(&row(addr, port))? {
        RowOwner::Port(port) => Some(port.key.to_string()),
        RowOwner::HostPort(..) => Some("a host port".to_owned()),
    }
}

#[test]
fn an_external_address_takes_no_services_own_address() {
    let world = world(&[
        service("default/kubernetes", "10.96.0.1", 443, json!({})),
        service(
            "aaa/x",
            "10.96.7.7",
            443,
            json!({"externalIPs": ["10.96.0.1", "203.0.113.7"]}),
        ),
    ]);
    let own = Some("default/kubernetes".to_owned());
    assert_eq!(owner(&world, "10.96.0.1", 443), own);
    // One that is outside goes on to work.
    assert_eq!(owner(&world, "203.0.113.7", 443), Some("aaa/x".to_owned()));
}

#[test]
fn an_external_address_takes_no_load_balancers_address_of_a_later_name() {
    let world = world(&[
        balanced("shop/web", "10.96.3.3", "203.0.113.1"),
        service(
            "aaa/x",
            "10.96.7.7",
            80,
            json!({"externalIPs": ["203.0.113.1"]}),
        ),
    ]);
    assert_eq!(
        owner(&world, "203.0.113.1", 80),
        Some("shop/web".to_owned())
    );
}

#[test]
fn no_service_takes_the_address_of_the_api_server_of_this_node_of_a_pod_or_of_a_machine_itself() {
    let addresses = [
        ("172.31.0.1", 6443),
        ("172.31.0.11", 10250),
        ("10.100.2.9", 80),
        ("10.96.0.10", 53),
        ("127.0.0.1", 2375),
        ("169.254.169.254", 80),
        ("0.0.0.0", 22),
    ];
    for (address, port) in addresses {
        let external = json!({"externalIPs": [address]});
        let external = service("aaa/x", "10.96.7.7", port, external);
        let mut balanced = balanced("aaa/y", "10.96.7.8", address);
        balanced["spec"]["ports"][0]["port"] = port.into();
        for object in [external, balanced] {
            let world = world(&[object]);
            assert_eq!(owner(&world, address, port), None, "{address}:{port}");
            assert_eq!(world.routed(), BTreeSet::new(), "{address}");
            assert!(
                !announced::announced(ip(address).into(), &world),
                "{address}"
            );
        }
    }
}

#[test]
fn a_node_that_moves_has_the_rows_of_services_at_its_old_address_and_not_those_at_its_new_one() {
    let mut world = world(&[
        service(
            "a/x",
            "10.96.7.7",
            80,
            json!({"externalIPs": ["172.31.0.11"]}),
        ),
        service(
            "a/y",
            "10.96.7.8",
            80,
            json!({"externalIPs": ["172.31.0.99"]}),
        ),
    ]);
    assert_eq!(owner(&world, "172.31.0.11", 80), None);
    let mut moved = facts();
    moved.v4.node = ip("172.31.0.99").into();
    let dirty = world.reserve(Reserved::of(&moved));
    for address in ["172.31.0.11", "172.31.0.99"] {
        assert!(
            dirty.contains(&Unit::Service(row(address, 80))),
            "{address}"
        );
    }
    assert_eq!(owner(&world, "172.31.0.11", 80), Some("a/x".to_owned()));
    assert_eq!(owner(&world, "172.31.0.99", 80), None);
}

#[test]
fn ipv4_written_as_ipv6_is_no_row_of_ipv4() {
    let dual = json!({"clusterIPs": ["10.96.7.7", "fd00:96::7"],
        "externalIPs": ["::ffff:10.96.0.1", "::ffff:203.0.113.7"]});
    let slice = json!({"kind": "EndpointSlice", "addressType": "IPv6",
        "metadata": {"namespace": "aaa", "name": "x-1",
            "labels": {"kubernetes.io/service-name": "x"}},
        "endpoints": [{"addresses": ["::ffff:169.254.169.254"]}, {"addresses": ["fd00::9"]}],
        "ports": [{"port": 80}]});
    let stolen = ["10.100.1.0/24", "::ffff:10.100.2.0/120"];
    let world = world(&[
        service("aaa/x", "10.96.7.7", 443, dual),
        slice,
        node("node-2", 2, &["10.100.2.0/24"], "172.31.0.12"),
        node("node-0", 1, &stolen, "::ffff:172.31.0.12"),
    ]);
    for address in ["10.96.0.1", "203.0.113.7"] {
        assert_eq!(owner(&world, address, 443), None);
    }
    let key = ObjectKey::new("aaa", "x");
    let slices = world
        .slices_of(&key)
        .flat_map(|slice| slice.endpoints.iter());
    let endpoints: Vec<IpAddr> = slices.map(|endpoint| endpoint.addr).collect();
    assert_eq!(endpoints, [ip("fd00::9")]);
    let range = ip("10.100.2.0").into();
    assert_eq!(world.node(&range).map(|(name, _)| name), Some("node-2"));
}

#[test]
fn of_two_nodes_that_claim_one_range_the_older_has_it_whatever_their_names() {
    let world = world(&[
        node("node-2", 2, &["10.100.2.0/24"], "172.31.0.12"),
        node("0", 9, &["10.100.2.0/24"], "172.31.0.66"),
    ]);
    let range: Addr = ip("10.100.2.0").into();
    let row = nodes::node(range, &world, &facts()).unwrap();
    assert_eq!(row.vtep, ip("172.31.0.12").into());
    let lost: Vec<_> = world.lost_claims("0").collect();
    assert_eq!(lost, [(range, "node-2")]);
    assert_eq!(world.lost_claims("node-2").count(), 0);
}

#[test]
fn of_two_nodes_of_one_second_the_uid_decides() {
    let mut a = node("a", 2, &["10.100.2.0/24"], "172.31.0.12");
    a["metadata"]["uid"] = "uid-z".into();
    let b = node("b", 2, &["10.100.2.0/24"], "172.31.0.13");
    let world = world(&[a, b]);
    let owner = world.node(&ip("10.100.2.0").into());
    assert_eq!(owner.map(|(name, _)| name), Some("b"));
}

#[test]
fn a_range_that_is_no_share_of_the_clusters_has_no_row() {
    let ranges = [
        "8.8.8.0/24",
        "10.96.0.0/24",
        "172.31.0.0/24",
        "10.100.0.0/16",
        "10.100.2.0/25",
        "fd00:100:0:2::/64",
    ];
    for range in ranges {
        let world = world(&[node("node-2", 2, &[range], "172.31.0.12")]);
        let key = range_key(&range.parse().unwrap());
        assert_eq!(nodes::node(key, &world, &facts()), None, "{range}");
    }
}

#[test]
fn a_load_balancers_address_is_announced_whatever_a_node_says_of_it() {
    let vip = "203.0.113.1";
    let service = balanced("shop/web", "10.96.3.3", vip);
    let own = node("node-1", 1, &["10.100.1.0/24"], "172.31.0.11");
    let liar = node("node-0", 0, &["10.100.2.0/24"], vip);
    let mut honest = liar.clone();
    honest["status"]["addresses"][0]["address"] = "172.31.0.12".into();
    let speaks = |objects: &[Value]| {
        let world = world(objects);
        // It may not send for clients outside as the node at that address, either.
        assert!(world.node_at(&ip(vip).into()).is_none());
        assert_eq!(nodes::node(ip(vip).into(), &world, &facts()), None);
        announced::announced(ip(vip).into(), &world)
    };
    let before = speaks(&[service.clone(), own.clone(), honest]);
    assert_eq!(speaks(&[service.clone(), own.clone(), liar]), before);
    assert!(speaks(&[service, own]), "the only node answers");
}

#[test]
fn no_packet_of_the_tunnel_to_a_node_is_led_into_the_tunnel() {
    let world = world(&[
        service(
            "aaa/x",
            "10.96.7.7",
            80,
            json!({"externalIPs": ["172.31.0.12", "203.0.113.9"]}),
        ),
        node("node-2", 2, &["10.100.2.0/24"], "172.31.0.12"),
    ]);
    assert_eq!(world.routed(), BTreeSet::from([ip("203.0.113.9")]));
    let row = nodes::node(ip("10.100.2.0").into(), &world, &facts()).unwrap();
    assert_eq!(row.vtep, ip("172.31.0.12").into());
}

#[test]
fn a_node_at_a_load_balancers_address_is_there_again_when_the_service_has_gone() {
    let vip: Addr = ip("203.0.113.1").into();
    let mut world = world(&[
        balanced("shop/web", "10.96.3.3", "203.0.113.1"),
        node("node-2", 1, &["10.100.2.0/24"], "203.0.113.1"),
    ]);
    assert!(world.node_at(&vip).is_none());
    let dirty = world.change(Change::Service(ObjectKey::new("shop", "web"), None));
    assert!(dirty.contains(&Unit::Node(vip)));
    assert_eq!(world.node_at(&vip).map(|(name, _)| name), Some("node-2"));
}

#[test]
fn an_address_of_pods_of_services_of_the_api_server_or_of_an_older_node_is_no_nodes() {
    for address in ["10.100.2.9", "10.96.0.1", "172.31.0.1"] {
        let world = world(&[node("node-2", 2, &["10.100.2.0/24"], address)]);
        assert!(world.node_at(&ip(address).into()).is_none(), "{address}");
        let range = ip("10.100.2.0").into();
        assert_eq!(nodes::node(range, &world, &facts()), None, "{address}");
    }
    let world = world(&[
        node("node-2", 2, &["10.100.2.0/24"], "172.31.0.12"),
        node("0", 9, &["10.100.9.0/24"], "172.31.0.12"),
    ]);
    let at = world.node_at(&ip("172.31.0.12").into());
    assert_eq!(at.map(|(name, _)| name), Some("node-2"));
    assert_eq!(world.holder(ip("172.31.0.12")), Some("node-2"));
    assert_eq!(world.holder(ip("10.100.9.7")), Some("0"));
}

fn local_pod(is_queued: bool) -> LocalPod {
    LocalPod {
        addrs: "10.100.1.7".parse().unwrap(),
        ifindex: 10,
        ifname: "orch1".into(),
        mac: [0; 6],
        host_mac: [0; 6],
        netns_cookie: 7,
        host_network: false,
        is_queued,
    }
}

#[test]
fn a_pod_whose_rate_is_limited_is_reached_through_its_queue() {
    for is_queued in [false, true] {
        let mut world = world(&[]);
        world.change(Change::Pod("uid".into(), Some(local_pod(is_queued))));
        let row = crate::desired::endpoints::endpoint(ip("10.100.1.7").into(), &world, &facts());
        let row = row.expect("a row");
        assert_eq!(
            (row.is_queued(), row.is_redirected()),
            (is_queued, is_queued)
        );
        assert!(!row.is_host());
    }
}

#[test]
fn a_host_port_is_on_this_nodes_addresses_only() {
    let mut world = world(&[]);
    world.change(Change::Pod("uid".into(), Some(local_pod(false))));
    let port = |host_ip: Option<&str>| HostPort {
        host_ip: host_ip.map(ip),
        host_port: 6443,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    let rows = [
        (Some("172.31.0.1"), "172.31.0.1", false),
        (Some("169.254.169.254"), "169.254.169.254", false),
        (Some("127.0.0.1"), "127.0.0.1", true),
        (Some("172.31.0.12"), "172.31.0.12", false),
        (Some("172.31.0.11"), "172.31.0.11", true),
        (None, "0.0.0.0", true),
    ];
    for (host_ip, address, counts) in rows {
        world.change(Change::HostPorts("uid".into(), vec![port(host_ip)]));
        assert_eq!(
            owner(&world, address, 6443).is_some(),
            counts,
            "{host_ip:?}"
        );
    }
}

#[test]
fn ranges_that_do_not_read_admit_no_client_instead_of_all() {
    let mut service = balanced("shop/web", "10.96.3.3", "203.0.113.1");
    service["spec"]["loadBalancerSourceRanges"] = json!(["::ffff:10.0.0.0/104"]);
    let Change::Service(_, Some(view)) = change(&service) else {
        panic!("a Service");
    };
    let ranges = view.external.unwrap().source_ranges;
    assert!(!ranges.is_empty());
    let client: IpAddr = ip("10.1.2.3");
    assert!(!ranges.iter().any(|range| range.contains(client)));
}
