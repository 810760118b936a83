//! Services: what they are given, what is refused, what a change of type keeps and frees.

use std::collections::BTreeSet;

use super::super::addresses::Holding;
use super::*;

/// IPv4 and IPv6, the first range's family first.
async fn dual_stack() -> Cluster {
    let range = |text: &str| text.parse().expect("a range");
    Cluster::with(ServerConfig {
        service_cidrs: vec![range("10.96.0.0/16"), range("fd00:10:96::/112")],
        ..ServerConfig::default()
    })
    .await
}

impl Cluster {
    async fn make(&self, name: &str, spec: Value) -> Value {
        self.post(SERVICES, service(name, spec)).await.expect(201)
    }

    /// Why a new Service is refused.
    async fn refusal(&self, name: &str, spec: Value) -> String {
        let answer = self.post(SERVICES, service(name, spec)).await;
        assert_eq!(answer.code.as_u16(), 422, "{}", answer.body);
        answer.message().to_owned()
    }

    async fn change(&self, name: &str, spec: Value) -> Value {
        let path = format!("{SERVICES}/{name}");
        let patched = self.merge(&path, json!({"spec": spec})).await;
        patched.expect(200)["spec"].clone()
    }

    async fn remove(&self, name: &str) {
        self.delete(&format!("{SERVICES}/{name}")).await.expect(200);
    }
}

fn node_port(number: u16) -> Value {
    json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]})
}

#[tokio::test]
async fn a_node_port_that_is_taken_is_refused_at_its_field() {
    let cluster = Cluster::start().await;
    cluster.make("a", node_port(30080)).await;
    assert_eq!(
        cluster.refusal("b", node_port(30080)).await,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is \
         already allocated"
    );
}

#[tokio::test]
async fn a_node_port_outside_the_range_is_refused_naming_the_range() {
    let cluster = Cluster::start().await;
    for outside in [80, 29999, 32768] {
        assert_eq!(
            cluster.refusal("a", node_port(outside)).await,
            format!(
                "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: {outside}: \
                 provided port is not in the valid range. The range of valid ports is 30000-32767"
            )
        );
    }
    cluster.make("a", node_port(30000)).await;
    cluster.make("b", node_port(32767)).await;
}

#[tokio::test]
async fn a_node_port_is_free_again_after_a_deletion_a_change_and_a_refused_create() {
    let cluster = Cluster::start().await;
    cluster.make("a", node_port(30080)).await;
    cluster.remove("a").await;
    cluster.make("b", node_port(30080)).await;
    let ports = json!([{"port": 80, "nodePort": 30081}]);
    cluster.change("b", json!({"ports": ports})).await;
    cluster.make("c", node_port(30080)).await;
    cluster.change("c", json!({"type": "ClusterIP"})).await;
    cluster.make("d", node_port(30080)).await;
    let two = json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 1, "nodePort": 30090}, {"name": "b", "port": 2, "nodePort": 30080}]});
    cluster.refusal("e", two).await;
    cluster.make("f", node_port(30090)).await;
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    cluster.change("f", external).await;
    cluster.make("g", node_port(30090)).await;
}

#[tokio::test]
async fn protocols_share_a_number_when_they_share_a_port() {
    let cluster = Cluster::start().await;
    let ports = json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"},
        {"name": "other", "port": 80}]);
    let made = cluster
        .make("dns", json!({"type": "NodePort", "ports": ports}))
        .await;
    let number = |index: usize| made["spec"]["ports"][index]["nodePort"].clone();
    assert_eq!(number(0), number(1));
    assert_ne!(number(0), number(2));
    cluster.make("tcp", node_port(30080)).await;
    let mut udp = node_port(30080);
    udp["ports"][0]["protocol"] = "UDP".into();
    cluster.make("udp", udp).await;
}

#[tokio::test]
async fn a_load_balancer_without_node_ports_has_only_those_that_it_names() {
    let cluster = Cluster::start().await;
    let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [
        {"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30081}]});
    let made = cluster.make("a", spec).await;
    assert_eq!(made["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(made["spec"]["ports"][1]["nodePort"], 30081);
    cluster.refusal("b", node_port(30081)).await;
    let spec = cluster
        .change("a", json!({"allocateLoadBalancerNodePorts": true}))
        .await;
    assert!(spec["ports"][0]["nodePort"].is_u64(), "{spec}");
}

#[tokio::test]
async fn a_health_check_port_comes_and_goes_with_the_local_policy() {
    let cluster = Cluster::start().await;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30999, "ports": [{"port": 80}]});
    let made = cluster.make("a", spec.clone()).await;
    assert_eq!(made["spec"]["healthCheckNodePort"], 30999);
    let why = cluster.refusal("b", spec).await;
    assert!(
        why.contains("spec.healthCheckNodePort: Invalid value: 30999: provided port is already"),
        "{why}"
    );
    let path = format!("{SERVICES}/a");
    let moved = json!({"spec": {"healthCheckNodePort": 30998}});
    let answer = cluster.merge(&path, moved).await;
    assert!(
        answer.message().contains("field is immutable"),
        "{}",
        answer.body
    );
    let spec = cluster
        .change("a", json!({"externalTrafficPolicy": "Cluster"}))
        .await;
    assert_eq!(spec.get("healthCheckNodePort"), None);
    let spec = cluster
        .change("a", json!({"externalTrafficPolicy": "Local"}))
        .await;
    assert!(spec["healthCheckNodePort"].is_u64(), "{spec}");
    cluster.make("b", node_port(30999)).await;
}

#[tokio::test]
async fn a_service_keeps_its_address_from_type_to_type_and_drops_what_it_does_not_need() {
    let cluster = Cluster::start().await;
    let made = cluster.make("a", json!({"ports": [{"port": 80}]})).await;
    let address = made["spec"]["clusterIP"].clone();
    let spec = cluster.change("a", json!({"type": "NodePort"})).await;
    let port = spec["ports"][0]["nodePort"].clone();
    assert!(port.is_u64(), "{spec}");
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    let spec = cluster.change("a", json!({"type": "LoadBalancer"})).await;
    assert_eq!(spec["ports"][0]["nodePort"], port);
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    let path = format!("{SERVICES}/a");
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let status = cluster
        .merge(&format!("{path}/status"), status)
        .await
        .expect(200);
    let ingress = &status["status"]["loadBalancer"]["ingress"][0];
    assert_eq!(*ingress, json!({"ip": "192.0.2.1", "ipMode": "VIP"}));
    let spec = cluster.change("a", json!({"type": "ClusterIP"})).await;
    assert_eq!(spec["clusterIP"], address);
    for gone in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
        assert_eq!(spec.get(gone), None, "{gone}");
    }
    assert_eq!(spec["ports"][0].get("nodePort"), None);
    let now = cluster.get(&path).await.expect(200);
    assert_eq!(now["status"], json!({"loadBalancer": {}}));
}

#[tokio::test]
async fn an_external_name_becomes_a_service_with_addresses_and_back() {
    let cluster = Cluster::start().await;
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let made = cluster.make("a", external.clone()).await;
    for absent in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(made["spec"].get(absent), None, "{absent}");
    }
    let ports = json!([{"port": 80}]);
    let cluster_ip = json!({"type": "ClusterIP", "externalName": null, "ports": ports});
    let spec = cluster.change("a", cluster_ip).await;
    let address = spec["clusterIP"].as_str().expect("an address").to_owned();
    assert_eq!(spec["clusterIPs"], json!([address]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    let spec = cluster.change("a", external.clone()).await;
    assert_eq!(spec.get("clusterIP"), None);
    assert_eq!(spec.get("ipFamilies"), None);
    let fixed = json!({"clusterIP": address, "ports": [{"port": 80}]});
    cluster.make("b", fixed).await;
    let spec = cluster
        .change("a", json!({"type": "NodePort", "externalName": null}))
        .await;
    assert!(spec["ports"][0]["nodePort"].is_u64(), "{spec}");
    assert_ne!(spec["clusterIP"], address);
    let spec = cluster.change("a", external).await;
    assert_eq!(spec["ports"][0].get("nodePort"), None);
    let mut wrong = json!({"type": "ExternalName", "externalName": "example.com"});
    wrong["clusterIP"] = "10.96.7.7".into();
    let why = cluster.refusal("c", wrong).await;
    assert!(
        why.contains("spec.clusterIP: Forbidden: may not be set for ExternalName services"),
        "{why}"
    );
}

#[tokio::test]
async fn fields_of_other_types_are_refused() {
    let cluster = Cluster::start().await;
    let cases = [
        (
            json!({"loadBalancerClass": "a.b/c"}),
            "spec.loadBalancerClass: Forbidden",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "spec.loadBalancerSourceRanges: Forbidden",
        ),
        (
            json!({"allocateLoadBalancerNodePorts": false}),
            "spec.allocateLoadBalancerNodePorts: Forbidden",
        ),
        (
            json!({"healthCheckNodePort": 30001}),
            "spec.healthCheckNodePort: Invalid value",
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}),
            "spec.loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1\": must be a valid CIDR",
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerClass": "a b"}),
            "spec.loadBalancerClass: Invalid value",
        ),
        (
            json!({"trafficDistribution": "Near"}),
            "spec.trafficDistribution: Unsupported value: \"Near\"",
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
        ),
        (
            json!({"sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401",
        ),
        (
            json!({"clusterIPs": ["10.96.0.9", "10.96.0.10"], "ipFamilyPolicy": "PreferDualStack"}),
            "may specify no more than one IP for each IP family",
        ),
        (
            json!({"clusterIP": "10.96.0.9", "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.96.0.9\": expected an IPv6 value as indicated \
             by `ipFamilies[0]`",
        ),
    ];
    for (mut spec, expected) in cases {
        spec["ports"] = json!([{"port": 80}]);
        let why = cluster.refusal("a", spec).await;
        assert!(why.contains(expected), "{why}");
    }
    cluster.make("a", node_port(30080)).await;
}

#[tokio::test]
async fn the_class_of_a_load_balancer_stays() {
    let cluster = Cluster::start().await;
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "ports": [{"port": 80}]});
    cluster.make("a", spec).await;
    let other = json!({"spec": {"loadBalancerClass": "a/c"}});
    let answer = cluster.merge(&format!("{SERVICES}/a"), other).await;
    assert!(
        answer.message().contains("may not change once set"),
        "{}",
        answer.body
    );
    let spec = cluster.change("a", json!({"type": "ClusterIP"})).await;
    assert_eq!(spec.get("loadBalancerClass"), None);
}

#[tokio::test]
async fn addresses_come_in_the_order_of_the_families() {
    let cluster = dual_stack().await;
    let ports = json!([{"port": 80}]);
    let families = |spec: &Value| spec["spec"]["ipFamilies"].clone();
    let single = cluster.make("single", json!({"ports": ports})).await;
    assert_eq!(families(&single), json!(["IPv4"]));
    let prefer = json!({"ipFamilyPolicy": "PreferDualStack", "ports": ports});
    let prefer = cluster.make("prefer", prefer).await;
    assert_eq!(families(&prefer), json!(["IPv4", "IPv6"]));
    assert_eq!(
        prefer["spec"]["clusterIPs"],
        json!(["10.96.1.1", "fd00:10:96::100"])
    );
    assert_eq!(prefer["spec"]["clusterIP"], "10.96.1.1");
    let six = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"], "ports": ports});
    let six = cluster.make("six", six).await;
    assert_eq!(families(&six), json!(["IPv6", "IPv4"]));
    assert_eq!(six["spec"]["clusterIP"], "fd00:10:96::101");
    let given = json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "fd00:10:96::7",
        "clusterIPs": ["fd00:10:96::7", "10.96.0.7"], "ports": ports});
    let given = cluster.make("given", given).await;
    assert_eq!(families(&given), json!(["IPv6", "IPv4"]));
    let headless = json!({"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack",
        "selector": {"a": "b"}});
    let headless = cluster.make("headless", headless).await;
    assert_eq!(families(&headless), json!(["IPv4", "IPv6"]));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn a_second_family_is_added_and_let_go() {
    let cluster = dual_stack().await;
    let made = cluster.make("a", json!({"ports": [{"port": 80}]})).await;
    let first = made["spec"]["clusterIP"].clone();
    let spec = cluster
        .change("a", json!({"ipFamilyPolicy": "RequireDualStack"}))
        .await;
    assert_eq!(spec["clusterIPs"][0], first);
    let second = spec["clusterIPs"][1].clone();
    assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
    let spec = cluster.change("a", json!({"selector": {"b": "c"}})).await;
    assert_eq!(spec["clusterIPs"], json!([first, second]));
    let swapped = json!({"spec": {"ipFamilies": ["IPv6", "IPv4"]}});
    let answer = cluster.merge(&format!("{SERVICES}/a"), swapped).await;
    assert!(
        answer.message().contains("may not change once set"),
        "{}",
        answer.body
    );
    let spec = cluster
        .change("a", json!({"ipFamilyPolicy": "SingleStack"}))
        .await;
    assert_eq!(spec["clusterIPs"], json!([first]));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    let freed = json!({"clusterIP": second, "ports": [{"port": 80}]});
    cluster.make("b", freed).await;
}

#[tokio::test]
async fn a_manifest_that_is_put_again_changes_nothing() {
    let cluster = dual_stack().await;
    let spec = json!({"type": "LoadBalancer", "ipFamilyPolicy": "PreferDualStack",
        "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let made = cluster.make("a", spec.clone()).await;
    let path = format!("{SERVICES}/a");
    let again = cluster.put(&path, service("a", spec)).await.expect(200);
    assert_eq!(again, made);
}

#[tokio::test]
async fn the_servers_own_service_is_of_the_family_that_the_server_is_reached_in() {
    let range = |text: &str| text.parse().expect("a range");
    let cluster = Cluster::with(ServerConfig {
        advertise: "[fd00:1::1]:6443".parse().expect("an address"),
        service_cidrs: vec![range("10.96.0.0/16"), range("fd00:10:96::/112")],
        ..ServerConfig::default()
    })
    .await;
    let own = cluster
        .get(&format!("{SERVICES}/kubernetes"))
        .await
        .expect(200);
    assert_eq!(own["spec"]["clusterIP"], "fd00:10:96::1");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = cluster.get(slices).await.expect(200);
    assert_eq!(slice["addressType"], "IPv6");
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["fd00:1::1"]));
}

/// Numbers that look like chance, the same for every run of a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    /// A spec that is often wrong; fields that are not drawn are left out.
    fn spec(&mut self) -> Value {
        let mut spec = json!({});
        let types = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
        spec["type"] = self.pick(&types).into();
        if spec["type"] == "ExternalName" || self.below(10) == 0 {
            spec["externalName"] = "example.com".into();
        }
        let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        let families = [
            json!(["IPv4"]),
            json!(["IPv6"]),
            json!(["IPv6", "IPv4"]),
            json!([]),
        ];
        if self.below(2) == 0 {
            spec["ipFamilyPolicy"] = self.pick(&policies).into();
        }
        if self.below(3) == 0 {
            spec["ipFamilies"] = families[self.below(4) as usize].clone();
        }
        if self.below(4) == 0 {
            let addresses = [
                "None",
                "10.96.0.2",
                "10.96.0.3",
                "fd00:10:96::2",
                "10.1.0.1",
                "",
            ];
            spec["clusterIP"] = self.pick(&addresses).into();
        }
        if self.below(2) == 0 {
            spec["externalTrafficPolicy"] = self.pick(&["Local", "Cluster"]).into();
        }
        if self.below(5) == 0 {
            spec["healthCheckNodePort"] = (30000 + self.below(6)).into();
        }
        if self.below(5) == 0 {
            spec["allocateLoadBalancerNodePorts"] = (self.below(2) == 0).into();
        }
        let ports = (0..self.below(4)).map(|index| {
            let mut port = json!({"name": format!("p{index}"), "port": 80 + self.below(3),
                "protocol": self.pick(&["TCP", "UDP"])});
            if self.below(2) == 0 {
                port["nodePort"] = (30000 + self.below(8)).into();
            }
            port
        });
        spec["ports"] = ports.collect::<Vec<_>>().into();
        spec
    }
}

/// What all stored Services hold; no two the same.
async fn held(cluster: &Cluster) -> Holding {
    let mut all = Holding::default();
    let list = cluster.get("/api/v1/services").await.expect(200);
    for service in list["items"].as_array().into_iter().flatten() {
        let holding = Holding::of(service);
        assert!(all.addresses.is_disjoint(&holding.addresses), "{service}");
        assert!(all.ports.is_disjoint(&holding.ports), "{service}");
        all.addresses.extend(holding.addresses);
        all.ports.extend(holding.ports);
    }
    all
}

#[tokio::test]
async fn whatever_is_asked_for_what_is_taken_is_what_services_have() {
    let mut seen = BTreeSet::new();
    for seed in 1..=4 {
        let cluster = dual_stack().await;
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for _ in 0..400 {
            let name = format!("s{}", dice.below(5));
            let path = format!("{SERVICES}/{name}");
            let answer = match dice.below(8) {
                0 => cluster.delete(&path).await,
                1 | 2 => cluster.merge(&path, json!({"spec": dice.spec()})).await,
                3 => cluster.put(&path, service(&name, dice.spec())).await,
                4 => {
                    let path = format!("{SERVICES}?dryRun=All");
                    cluster.post(&path, service(&name, dice.spec())).await
                }
                _ => cluster.post(SERVICES, service(&name, dice.spec())).await,
            };
            let code = answer.code.as_u16();
            assert!([200, 201, 404, 409, 422].contains(&code), "{}", answer.body);
            seen.insert(code);
            let taken = cluster.server.state.addresses.taken();
            assert_eq!(
                taken,
                held(&cluster).await,
                "seed {seed}, after {}",
                answer.body
            );
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}
