//! Views of objects as the API writes them.

use k8s_openapi::serde::de::DeserializeOwned;

use super::*;

fn object<T: DeserializeOwned>(yaml: &str) -> T {
    serde_yaml::from_str(yaml).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_load_balancer_service_is_seen_whole() {
    let view = ServiceView::from_object(&object(
        r#"
        metadata: {name: web}
        spec:
          type: LoadBalancer
          clusterIP: 10.96.0.10
          clusterIPs: [10.96.0.10, "fd00:96::a"]
          ports:
          - {name: http, port: 80, nodePort: 30080}
          - {name: signal, port: 3868, protocol: SCTP}
          externalIPs: [192.0.2.7]
          externalTrafficPolicy: Local
          internalTrafficPolicy: Cluster
          loadBalancerSourceRanges: [198.51.100.0/24, " 203.0.113.0/24"]
          sessionAffinity: ClientIP
          sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
        status:
          loadBalancer:
            ingress:
            - {ip: 203.0.113.1, ipMode: VIP}
            - {ip: 203.0.113.2, ipMode: Proxy}
            - {ip: 203.0.113.3}
            - {hostname: lb.example}
        "#,
    ))
    .unwrap();
    let ips: Vec<IpAddr> = view.cluster_ips.iter().collect();
    assert_eq!(ips, [ip("10.96.0.10"), ip("fd00:96::a")]);
    let node_ports: Vec<u16> = view.ports.iter().map(|port| port.node_port).collect();
    assert_eq!(node_ports, [30080, 0]);
    assert_eq!(view.ports[1].protocol, Protocol::Sctp);
    assert_eq!((view.affinity_s, view.internal_local), (60, false));
    let external = view.external.unwrap();
    let answered = [ip("203.0.113.1"), ip("203.0.113.3")];
    assert_eq!(external.load_balancer_ips, answered);
    assert_eq!(external.external_ips, [ip("192.0.2.7")]);
    assert!(external.local);
    assert_eq!(external.source_ranges.len(), 2);
}

#[test]
fn a_plain_service_carries_nothing_for_outside() {
    let view = ServiceView::from_object(&object(
        "spec: {clusterIP: 10.96.0.10, ports: [{port: 80}], sessionAffinity: ClientIP}",
    ))
    .unwrap();
    assert_eq!(view.external, None);
    assert_eq!(view.affinity_s, 10_800);
}

#[test]
fn a_service_of_somebody_else_is_hidden() {
    for label in [
        "service.kubernetes.io/service-proxy-name: other",
        r#"service.kubernetes.io/headless: """#,
    ] {
        let hidden = object(&format!(
            "{{metadata: {{labels: {{{label}}}}}, spec: {{clusterIP: 10.96.0.10}}}}"
        ));
        assert_eq!(ServiceView::from_object(&hidden), None, "{label}");
    }
}

#[test]
fn hints_are_kept_once_a_slice_and_families_are_not_mixed() {
    let slice = SliceView::from_object(
        &object(
            r#"
            metadata: {labels: {kubernetes.io/service-name: web}}
            addressType: IPv4
            endpoints:
            - {addresses: [10.100.1.5], nodeName: here, hints: {forZones: [{name: a}]}}
            - {addresses: [10.100.2.5], hints: {forZones: [{name: a}], forNodes: [{name: here}]}}
            - {addresses: [10.100.3.5], hints: {forZones: [{name: b}], forNodes: [{name: there}]}}
            - {addresses: ["fd00::5"]}
            "#,
        ),
        "here",
    )
    .unwrap();
    let seen: Vec<_> = slice
        .endpoints
        .iter()
        .map(|it| (it.local(), it.for_node(), slice.for_zone(*it, Some("a"))))
        .collect();
    let expected = [
        (true, Hint::Nobody, Hint::Us),
        (false, Hint::Us, Hint::Us),
        (false, Hint::Others, Hint::Others),
    ];
    assert_eq!(seen, expected);
    assert_eq!(slice.zones.len(), 2);
    assert_eq!(slice.for_zone(slice.endpoints[0], None), Hint::Others);
    assert_eq!(size_of::<EndpointView>(), 19);
}

#[test]
fn a_node_that_is_not_ready_or_excluded_answers_for_nothing() {
    let node = |labels: &str, ready: &str| {
        let yaml = format!(
            "{{metadata: {{labels: {{{labels}}}}}, spec: {{podCIDR: 10.100.2.0/24}}, status: \
             {{addresses: [{{type: InternalIP, address: 172.31.0.12}}], \
             conditions: [{{type: Ready, status: '{ready}'}}]}}}}"
        );
        NodeView::from_object(&object(&yaml)).unwrap()
    };
    let zoned = node("topology.kubernetes.io/zone: a", "True");
    assert_eq!((zoned.announces, zoned.zone.as_deref()), (true, Some("a")));
    assert!(!node("", "Unknown").announces);
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers: ''";
    assert!(!node(excluded, "True").announces);
}

#[test]
fn host_ports_of_containers_and_sidecars_count() {
    let ports = HostPort::of(&object(
        r#"
        spec:
          initContainers:
          - {name: once, ports: [{containerPort: 1, hostPort: 1}]}
          - name: sidecar
            restartPolicy: Always
            ports: [{containerPort: 9, hostPort: 9, protocol: UDP, hostIP: 172.31.0.11}]
          containers:
          - {name: web, ports: [{containerPort: 80, hostPort: 8080, hostIP: 0.0.0.0}]}
          - {name: none, ports: [{containerPort: 81}]}
        "#,
    ));
    let host = |it: &HostPort| (it.host_ip, it.host_port, it.container_port);
    let seen: Vec<_> = ports.iter().map(host).collect();
    assert_eq!(seen, [(None, 8080, 80), (Some(ip("172.31.0.11")), 9, 9)]);
}

#[test]
fn objects_are_in_the_order_of_their_namespaces_then_of_their_names() {
    let keys = [("", "z"), ("a", "b"), ("a", "c"), ("a-b", "a"), ("b", "")];
    let keys = keys.map(|(namespace, name)| ObjectKey::new(namespace, name));
    assert!(ObjectKey::least() < keys[0]);
    assert!(keys.is_sorted());
    assert_eq!((keys[3].namespace(), keys[3].name()), ("a-b", "a"));
    assert_eq!(keys[3].to_string(), "a-b/a");
}
