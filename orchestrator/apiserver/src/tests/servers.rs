//! Several servers over one store.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::*;
use crate::servers::{REMOVED_AFTER, tend};

async fn two_servers() -> [Cluster; 2] {
    let store = MemoryStore::shared();
    let start = |last: u8| {
        let config = ServerConfig {
            advertise: ([172, 31, 0, last], 6443).into(),
            ..ServerConfig::default()
        };
        Cluster::over(store.clone(), config, None)
    };
    [start(1).await, start(2).await]
}

#[tokio::test]
async fn the_servers_own_service_leads_to_all_of_them() {
    let [one, _other] = two_servers().await;
    let endpoints = one
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await
        .expect(200);
    let expected = json!([{"ip": "172.31.0.1"}, {"ip": "172.31.0.2"}]);
    assert_eq!(endpoints["subsets"][0]["addresses"], expected);
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = one.get(path).await.expect(200);
    let endpoints = slice["endpoints"].as_array().map_or(0, Vec::len);
    assert_eq!(endpoints, 2, "{slice}");
}

/// Two servers that answer at one address as well.
async fn with_one_address() -> [Cluster; 2] {
    let store = MemoryStore::shared();
    let shared = ([172, 31, 0, 249]).into();
    let start = |last: u8| {
        let config = ServerConfig {
            advertise: ([172, 31, 0, last], 6443).into(),
            load_balancer_pool: vec![shared..=shared],
            shared_address: Some(shared),
            ..ServerConfig::default()
        };
        Cluster::over(store.clone(), config, None)
    };
    [start(1).await, start(2).await]
}

/// Where the servers' own Service leads, and the one of the address that they share.
async fn endpoints(server: &Cluster) -> [Vec<String>; 2] {
    let of = async |name: &str| {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{name}");
        let slice = server.get(&path).await.expect(200);
        let found = slice["endpoints"].as_array().into_iter().flatten();
        let found = found.map(|it| it["addresses"][0].as_str().expect("one").to_owned());
        found.collect()
    };
    [
        of("default/endpointslices/kubernetes").await,
        of("kube-system/endpointslices/kubernetes-api").await,
    ]
}

#[tokio::test]
async fn one_address_leads_to_all_of_them() {
    let [one, _other] = with_one_address().await;
    let path = "/api/v1/namespaces/kube-system/services/kubernetes-api";
    let service = one.get(path).await.expect(200);
    assert_eq!(service["spec"]["loadBalancerIP"], "172.31.0.249");
    assert_eq!(service["spec"]["ports"][0]["port"], 6443);
    let both = ["172.31.0.1", "172.31.0.2"];
    assert_eq!(endpoints(&one).await, [both, both]);
}

#[tokio::test]
async fn a_server_that_stops_is_led_to_no_more_while_it_still_answers() {
    let [one, other] = with_one_address().await;
    other.server.leave().await;
    // What both look after does not bring it back.
    for server in [&one, &other] {
        crate::bootstrap::lead_to_servers(&server.server.state)
            .await
            .expect("looked after");
    }
    let left = ["172.31.0.1"];
    assert_eq!(endpoints(&one).await, [left, left]);
    let path = "/api/v1/namespaces/default/endpoints/kubernetes";
    let old = other.get(path).await.expect(200);
    assert_eq!(
        old["subsets"][0]["addresses"],
        json!([{"ip": "172.31.0.1"}])
    );
    other.get("/readyz").await.expect(503);
    // The last one answers to its end.
    one.server.leave().await;
    assert_eq!(endpoints(&one).await, [left, left]);
}

#[tokio::test]
async fn a_read_after_a_write_through_another_server_sees_it() {
    let [one, other] = two_servers().await;
    for name in ["a", "b", "c"] {
        let path = format!("{CONFIG_MAPS}/{name}");
        let made = one.post(CONFIG_MAPS, config_map(name)).await.expect(201);
        let found = other.get(&path).await.expect(200);
        assert_eq!(found["metadata"]["uid"], made["metadata"]["uid"]);
        let listed = other.get(CONFIG_MAPS).await.expect(200);
        assert!(listed["items"].to_string().contains(&format!("\"{name}\"")));
        // A precondition of the newest revision holds there at once.
        other.put(&path, made).await.expect(200);
        one.delete(&path).await.expect(200);
        other.get(&path).await.expect(404);
    }
}

#[tokio::test]
async fn servers_never_give_the_same_address_or_node_port_away() {
    let servers = two_servers().await;
    let names: Vec<String> = (0..24).map(|n| format!("s{n}")).collect();
    let make = |(n, name): (usize, &String)| {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        let server = &servers[n % 2];
        let (body, name) = (service(name, spec), name.clone());
        async move { (name, server.post(SERVICES, body).await.expect(201)) }
    };
    let made = join_all(names.iter().enumerate().map(make)).await;
    let distinct = |pointer: &str| {
        let values = made.iter().filter_map(|(_, it)| it.pointer(pointer));
        values.map(Value::to_string).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(distinct("/spec/clusterIP"), names.len());
    assert_eq!(distinct("/spec/ports/0/nodePort"), names.len());
}

#[tokio::test]
async fn an_address_that_another_server_gave_away_is_refused_until_it_is_free() {
    let [one, other] = two_servers().await;
    let spec = json!({"clusterIP": "10.96.0.77", "ports": [{"port": 80}]});
    let both = [(&one, "a"), (&other, "b")].map(|(server, name)| {
        let body = service(name, spec.clone());
        server.post(SERVICES, body)
    });
    let answers = join_all(both).await;
    let mut codes: Vec<u16> = answers.iter().map(|it| it.code.as_u16()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [201, 422], "{answers:?}");
    let refused = answers.iter().find(|it| it.code == 422).expect("refused");
    assert!(
        refused.message().contains("already allocated"),
        "{refused:?}"
    );
    let (kept, free) = match answers[0].code.as_u16() {
        201 => ("a", "b"),
        _ => ("b", "a"),
    };
    one.delete(&format!("{SERVICES}/{kept}")).await.expect(200);
    let again = service(free, spec);
    other.post(SERVICES, again).await.expect(201);
}

#[tokio::test]
async fn a_quota_holds_over_all_servers() {
    let servers = two_servers().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "5"}}});
    servers[0].limit(quota).await;
    let names: Vec<String> = (0..16).map(|n| format!("c{n}")).collect();
    let make = |(n, name): (usize, &String)| {
        let server: &Cluster = &servers[n % 2];
        server.post(CONFIG_MAPS, config_map(name))
    };
    let answers = join_all(names.iter().enumerate().map(make)).await;
    let made = answers.iter().filter(|it| it.code == 201).count();
    let listed = servers[1].get(CONFIG_MAPS).await.expect(200);
    let listed = listed["items"].as_array().map_or(0, Vec::len);
    assert_eq!((made, listed), (5, 5));
}

#[tokio::test]
async fn the_lease_of_a_server_that_is_long_gone_is_removed_and_no_other_one() {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let servers = two_servers().await;
    let lease = |name: &str, labels: Value| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "labels": labels},
            "spec": {"holderIdentity": "172.31.0.9:6443", "leaseDurationSeconds": 8}})
    };
    let identity = json!({"apiserver.kubernetes.io/identity": "kube-apiserver"});
    servers[0]
        .post(LEASES, lease("dead", identity))
        .await
        .expect(201);
    servers[0]
        .post(LEASES, lease("other", json!({})))
        .await
        .expect(201);
    let names = async || {
        let list = servers[0].get(LEASES).await.expect(200);
        let items = list["items"].as_array().into_iter().flatten();
        let names = items.filter_map(|it| it["metadata"]["name"].as_str());
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let all = names().await;
    assert_eq!(all.len(), 4, "{all:?}");
    let renew = async |times: u64| {
        for _ in 0..times {
            for server in &servers {
                tend(&server.server.state).await.expect("renewed");
            }
        }
    };
    // A server counts from when it sees the lease for the first time, and renews on its own meanwhile.
    renew(REMOVED_AFTER / 2).await;
    assert_eq!(names().await, all);
    renew(REMOVED_AFTER / 2 + 1).await;
    let mut left = all;
    assert!(left.remove("dead"));
    assert_eq!(names().await, left);
}
