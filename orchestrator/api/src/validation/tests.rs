use serde_json::{Value, json};

use crate::{FieldValidation, Resource, Subresource, find};

fn resource(plural: &str) -> &'static Resource {
    let groups = ["", "apps", "discovery.k8s.io", "coordination.k8s.io"];
    groups
        .into_iter()
        .find_map(|group| find(group, "v1", plural))
        .unwrap()
}

/// Decoded, defaulted, in a namespace if the kind is.
fn object(plural: &str, value: Value) -> Value {
    let resource = resource(plural);
    let mut object = resource
        .canonical(value, FieldValidation::Strict)
        .unwrap()
        .object;
    if resource.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    resource.default(&mut object);
    object
}

/// What is wrong with a new object.
fn wrong(plural: &str, value: Value) -> String {
    let outcome = resource(plural).validate(&object(plural, value), None, None);
    outcome.err().map(|e| e.to_string()).unwrap_or_default()
}

/// What is wrong with a change.
fn wrong_change(plural: &str, old: &Value, new: &Value) -> String {
    let outcome = resource(plural).validate(new, Some(old), None);
    outcome.err().map(|e| e.to_string()).unwrap_or_default()
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn container(fields: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    for (key, value) in fields.as_object().unwrap() {
        container[key] = value.clone();
    }
    pod(json!({"containers": [container]}))
}

/// A pod with one volume.
fn volume(volume: Value) -> Value {
    let mut pod = mount(json!({}));
    pod["spec"]["volumes"] = json!([volume]);
    pod
}

/// A pod with an emptyDir that is mounted like this.
fn mount(mut mount: Value) -> Value {
    mount["name"] = "v".into();
    mount["mountPath"] = "/v".into();
    pod(json!({
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "volumeMounts": [mount]}],
    }))
}

/// A pod with a claim and an emptyDir, of which the container has this as a device.
fn device(name: &str, path: &str) -> Value {
    let mounts = json!([{"name": "files", "mountPath": "/v"}]);
    let devices = json!([{"name": name, "devicePath": path}]);
    pod(json!({
        "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "files", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "volumeMounts": mounts,
            "volumeDevices": devices}],
    }))
}

/// A pod with a volume in which one key has this path.
fn items(kind: &str, path: &str) -> Value {
    let name = if kind == "secret" {
        "secretName"
    } else {
        "name"
    };
    let items = json!([{"key": "k", "path": path}]);
    volume(json!({"name": "v", kind: {name: "c", "items": items}}))
}

fn deployment(labels: Value) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

#[test]
fn pods_are_refused_in_the_words_of_kubernetes() {
    let cases = [
        (pod(json!({})), "spec.containers: Required value"),
        (
            pod(json!({"containers": [{"name": "c"}]})),
            "spec.containers[0].image: Required value",
        ),
        (
            pod(json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]})),
            r#"spec.containers[1].name: Duplicate value: "c""#,
        ),
        (
            container(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 \
             and 65535, inclusive",
        ),
        (
            container(json!({"imagePullPolicy": "Sometimes"})),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
        ),
        (
            container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            container(json!({"lifecycle": {"stopSignal": "SIGUSR1"}})),
            "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers \
             with empty `spec.os.name`",
        ),
        (
            container(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            pod(json!({"restartPolicy": "Maybe", "containers": [{"name": "c", "image": "i"}]})),
            r#"spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never""#,
        ),
    ];
    for (value, why) in cases {
        assert_eq!(
            wrong("pods", value),
            format!(r#"Pod "p" is invalid: {why}"#)
        );
    }
    assert_eq!(wrong("pods", container(json!({}))), "");
    for (signal, right) in [
        ("SIGUSR1", true),
        ("SIGRTMIN+3", true),
        ("SIGRTMIN+99", false),
    ] {
        let spec = json!({
            "os": {"name": "linux"},
            "containers": [{"name": "c", "image": "i", "lifecycle": {"stopSignal": signal}}],
        });
        assert_eq!(wrong("pods", pod(spec)).is_empty(), right, "{signal}");
    }
}

#[test]
fn devices_and_images_as_volumes_are_refused_in_the_words_of_kubernetes() {
    let cases = [
        (
            device("other", "/dev/xvda"),
            r#"spec.containers[0].volumeDevices[0].name: Not found: "other""#,
        ),
        (
            device("disk", "/dev/../x"),
            r#"spec.containers[0].volumeDevices[0].devicePath: Invalid value: "/dev/../x": can not contain backsteps ('..')"#,
        ),
        (
            device("disk", "/v"),
            r#"spec.containers[0].volumeDevices[0].devicePath: Invalid value: "/v": must not already exist as a path in volumeMounts"#,
        ),
        (
            pod(json!({"volumes": [{"name": "v", "image": {}}],
                "containers": [{"name": "c", "image": "i"}]})),
            "spec.volumes[0].image.reference: Required value",
        ),
    ];
    for (value, why) in cases {
        assert_eq!(
            wrong("pods", value),
            format!(r#"Pod "p" is invalid: {why}"#)
        );
    }
    assert_eq!(wrong("pods", device("disk", "/dev/xvda")), "");
}

#[test]
fn names_follow_the_rule_of_their_kind() {
    let spec = json!({"ports": [{"port": 80}]});
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": spec});
    assert_eq!(wrong("services", service("web")), "");
    let digits = wrong("services", service("1web"));
    assert!(
        digits.contains(r#"metadata.name: Invalid value: "1web": a DNS-1035 label must"#),
        "{digits}"
    );
    let map = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(wrong("configmaps", map("a.b-c")), "");
    assert!(wrong("configmaps", map("A_b")).contains("a lowercase RFC 1123 subdomain must"));
    assert!(wrong("namespaces", map("a.b")).contains("a lowercase RFC 1123 label must"));
    assert!(wrong("configmaps", map(&"a".repeat(254))).contains("must be no more than 253 bytes"));
    assert_eq!(
        wrong("configmaps", json!({})),
        r#"ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#
    );
}

#[test]
fn labels_must_be_qualified_names() {
    let value = wrong(
        "configmaps",
        json!({"metadata": {"name": "a", "labels": {"a b": "c", "d": "-e"}}}),
    );
    assert!(
        value.contains(r#"metadata.labels: Invalid value: "a b": name part must"#),
        "{value}"
    );
    assert!(value.contains(r#"metadata.labels: Invalid value: "-e": a valid label must"#));
}

#[test]
fn a_deployment_selects_its_own_pods_and_for_ever() {
    assert_eq!(wrong("deployments", deployment(json!({"app": "web"}))), "");
    assert_eq!(
        wrong("deployments", deployment(json!({"app": "other"}))),
        r#"Deployment.apps "web" is invalid: spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`"#
    );
    let mut value = deployment(json!({"app": "web"}));
    value["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    assert!(wrong("deployments", value).contains(
        r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#
    ));
    let old = object("deployments", deployment(json!({"app": "web"})));
    let mut new = old.clone();
    new["spec"]["selector"]["matchLabels"] = json!({"app": "web", "tier": "x"});
    new["spec"]["template"]["metadata"]["labels"] = json!({"app": "web", "tier": "x"});
    assert_eq!(
        wrong_change("deployments", &old, &new),
        r#"Deployment.apps "web" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"web","tier":"x"}}: field is immutable"#
    );
}

#[test]
fn a_deployment_without_a_selector_is_told_so() {
    let mut value = deployment(json!({"app": "web"}));
    value["spec"].as_object_mut().unwrap().remove("selector");
    assert_eq!(
        wrong("deployments", value),
        r#"Deployment.apps "web" is invalid: [spec.selector: Required value, spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`]"#
    );
}

#[test]
fn a_rolling_update_must_be_able_to_move() {
    let strategy = |strategy: Value| {
        let mut value = deployment(json!({"app": "web"}));
        value["spec"]["strategy"] = strategy;
        wrong("deployments", value)
    };
    let stuck = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
    assert!(strategy(stuck).contains("may not be 0 when `maxSurge` is 0"));
    let odd = json!({"rollingUpdate": {"maxSurge": "many"}});
    assert!(strategy(odd).contains("a valid percent string must be"));
    let both = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}});
    assert!(strategy(both).contains("may not be specified when strategy `type` is 'Recreate'"));
}

#[test]
fn of_a_pod_only_the_image_and_a_few_more_may_change() {
    let old = object("pods", container(json!({})));
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "j".into();
    new["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(wrong_change("pods", &old, &new), "");
    new["spec"]["containers"][0]["command"] = json!(["x"]);
    let why = wrong_change("pods", &old, &new);
    assert!(
        why.starts_with(
            "Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,"
        ),
        "{why}"
    );
    assert!(why.contains("changed: spec.containers[0].command"), "{why}");
    let status = resource("pods").validate(&new, Some(&old), Some(Subresource::Status));
    assert_eq!(status, Ok(()));
}

#[test]
fn services_are_refused_in_the_words_of_kubernetes() {
    let service = |spec: Value| wrong("services", json!({"metadata": {"name": "s"}, "spec": spec}));
    let cases = [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
            "spec.ports[0].name: Required value",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"ports": [{"port": 80}], "clusterIP": "x"}),
            r#"spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
        ),
        (
            json!({"ports": [{"port": 80}], "type": "Odd"}),
            r#"spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
        ),
        (
            json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
            r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#,
        ),
    ];
    for (spec, why) in cases {
        assert_eq!(service(spec), format!(r#"Service "s" is invalid: {why}"#));
    }
    assert_eq!(service(json!({"clusterIP": "None"})), "");
    assert_eq!(
        service(json!({"type": "ExternalName", "externalName": "a.b"})),
        ""
    );
}

#[test]
fn the_address_of_a_service_stays() {
    let spec = json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.7"});
    let old = object("services", json!({"metadata": {"name": "s"}, "spec": spec}));
    let mut new = old.clone();
    new["spec"]["clusterIP"] = "10.96.0.8".into();
    new["spec"]["clusterIPs"] = json!(["10.96.0.8"]);
    assert!(
        wrong_change("services", &old, &new).contains(
            r#"spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set"#
        )
    );
}

#[test]
fn endpoints_lead_neither_to_loopback_nor_nowhere() {
    let slice = |address: &str| {
        wrong(
            "endpointslices",
            json!({
                "metadata": {"name": "s"}, "addressType": "IPv4",
                "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}],
            }),
        )
    };
    assert_eq!(slice("10.100.0.5"), "");
    assert!(slice("::1").contains("must be a valid IPv4 address"));
    assert!(slice("127.0.0.1").contains("may not be in the loopback range"));
    let endpoints = json!({"metadata": {"name": "e"}, "subsets": [{"ports": [{"port": 80}]}]});
    assert!(wrong("endpoints", endpoints).contains("must specify `addresses`"));
}

#[test]
fn a_node_keeps_the_range_it_was_given() {
    let node = |spec: Value| object("nodes", json!({"metadata": {"name": "n"}, "spec": spec}));
    let (none, one) = (node(json!({})), node(json!({"podCIDR": "10.100.1.0/24"})));
    let two = node(json!({"podCIDR": "10.100.2.0/24"}));
    assert_eq!(wrong_change("nodes", &none, &one), "");
    assert!(wrong_change("nodes", &one, &two).contains("node updates may not change podCIDR"));
    let odd = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.1"}});
    assert!(wrong("nodes", odd).contains("must be a valid CIDR value"));
}

const MAPPED: &str = "::ffff:10.96.0.1";
const NO_ADDRESS: &str = "must not be an IPv4-mapped IPv6 address";
const NO_RANGE: &str = "must not have an IPv4-mapped IPv6 address";

#[test]
fn ipv4_written_as_ipv6_is_refused_wherever_an_address_or_a_range_is() {
    let spec = |field: &str, value: Value| {
        let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
        spec[field] = value;
        json!({"metadata": {"name": "s"}, "spec": spec})
    };
    let ranges = json!(["10.100.1.0/24", "::ffff:10.100.2.0/120"]);
    let ports = json!([{"containerPort": 80, "hostPort": 80, "hostIP": MAPPED}]);
    let subset = json!({"addresses": [{"ip": MAPPED}], "ports": [{"port": 80}]});
    let sources = json!(["::ffff:10.0.0.0/104"]);
    let cases = [
        ("services", spec("externalIPs", json!([MAPPED])), NO_ADDRESS),
        ("services", spec("clusterIPs", json!([MAPPED])), NO_ADDRESS),
        (
            "services",
            spec("loadBalancerSourceRanges", sources),
            NO_RANGE,
        ),
        (
            "endpoints",
            json!({"metadata": {"name": "e"}, "subsets": [subset]}),
            NO_ADDRESS,
        ),
        (
            "endpointslices",
            json!({"metadata": {"name": "e"}, "addressType": "IPv6",
                "endpoints": [{"addresses": ["::ffff:169.254.169.254"]}]}),
            NO_ADDRESS,
        ),
        (
            "nodes",
            json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ranges}}),
            NO_RANGE,
        ),
        ("pods", container(json!({"ports": ports})), NO_ADDRESS),
    ];
    for (plural, value, expected) in cases {
        let why = wrong(plural, value);
        assert!(why.contains(expected), "{plural}: {why}");
    }
}

#[test]
fn ipv4_written_as_ipv6_is_refused_in_a_status() {
    let mut service = json!({"metadata": {"name": "s"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": MAPPED}]}});
    let internal = json!({"type": "InternalIP", "address": MAPPED});
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [internal]}});
    let mut pod = container(json!({}));
    pod["status"] = json!({"podIP": MAPPED, "podIPs": [{"ip": MAPPED}]});
    for (plural, value) in [("services", service), ("nodes", node), ("pods", pod)] {
        let object = object(plural, value);
        let status = Some(Subresource::Status);
        let outcome = resource(plural).validate(&object, None, status);
        let why = outcome.map_err(|error| error.to_string()).unwrap_err();
        assert!(why.contains(NO_ADDRESS), "{plural}: {why}");
    }
}

#[test]
fn a_nodes_ranges_are_canonical_one_a_family_and_their_first_is_the_old_field() {
    let node = |spec: Value| wrong("nodes", json!({"metadata": {"name": "n"}, "spec": spec}));
    assert_eq!(
        node(json!({"podCIDRs": ["10.100.1.0/24", "fd00:100:0:1::/64"]})),
        ""
    );
    for odd in ["10.100.1.7/24", "fd00:100:0:1:0:0:0:0/64"] {
        let why = node(json!({"podCIDRs": [odd]}));
        assert!(why.contains("must be in canonical form"), "{odd}: {why}");
    }
    let why = node(json!({"podCIDRs": ["10.100.1.0/24", "10.100.2.0/24"]}));
    assert!(
        why.contains("no more than one CIDR for each IP family"),
        "{why}"
    );
    let why = node(json!({"podCIDR": "10.100.2.0/24", "podCIDRs": ["10.100.1.0/24"]}));
    assert!(why.contains("must match the first of `podCIDRs`"), "{why}");
}

#[test]
fn a_load_balancer_answers_at_addresses_that_others_can_reach() {
    let with = |ingress: Value| {
        let mut service = object(
            "services",
            json!({"metadata": {"name": "s"},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
        );
        service["status"]["loadBalancer"]["ingress"] = json!([ingress]);
        let status = Some(Subresource::Status);
        let outcome = resource("services").validate(&service, None, status);
        outcome.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(with(json!({"ip": "203.0.113.1", "ipMode": "VIP"})), "");
    assert_eq!(with(json!({"hostname": "lb.example.com"})), "");
    assert!(with(json!({"ip": "nowhere"})).contains("must be a valid IP address"));
    assert!(with(json!({"ip": "169.254.169.254"})).contains("may not be in the link-local range"));
    assert!(with(json!({"ip": "203.0.113.1", "ipMode": "x"})).contains("Unsupported value"));
    assert!(with(json!({"ipMode": "VIP"})).contains("may not be specified when `ip` is not set"));
    assert!(with(json!({"hostname": "10.0.0.1"})).contains("must be a DNS name"));
}

#[test]
fn what_is_immutable_stays() {
    let map = json!({"metadata": {"name": "a"}, "data": {"a": "b"}, "immutable": true});
    let old = object("configmaps", map);
    let mut new = old.clone();
    new["data"]["a"] = "c".into();
    assert_eq!(
        wrong_change("configmaps", &old, &new),
        "ConfigMap \"a\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
    let key = json!({"metadata": {"name": "a"}, "data": {"a/b": "c"}});
    assert!(
        wrong("configmaps", key)
            .contains(r#"data[a/b]: Invalid value: "a/b": a valid config key must consist of"#)
    );
}

#[test]
fn a_uid_and_a_name_stay() {
    let old = object("configmaps", json!({"metadata": {"name": "a", "uid": "u"}}));
    let mut new = old.clone();
    new["metadata"]["uid"] = "v".into();
    assert!(
        wrong_change("configmaps", &old, &new)
            .contains(r#"metadata.uid: Invalid value: "v": field is immutable"#)
    );
}

#[test]
fn mounts_of_pods_cannot_leave_their_place() {
    let cases = [
        (
            mount(json!({"subPath": "/etc"})),
            "subPath: Invalid value: \"/etc\": must be a relative path",
        ),
        (
            mount(json!({"subPath": "a/../../b"})),
            "subPath: Invalid value: \"a/../../b\": must not contain '..'",
        ),
        (
            mount(json!({"subPathExpr": "../$(A)"})),
            "subPathExpr: Invalid value: \"../$(A)\": must not contain '..'",
        ),
        (
            mount(json!({"subPath": "a", "subPathExpr": "b"})),
            "subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
        ),
        (
            mount(json!({"mountPropagation": "Bidirectional"})),
            "mountPropagation: Forbidden: Bidirectional mount propagation is available only to \
             privileged containers",
        ),
        (
            mount(json!({"recursiveReadOnly": "Enabled"})),
            "recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
    ];
    for (value, why) in cases {
        let wrong = wrong("pods", value);
        assert!(wrong.contains(why), "{why}: {wrong}");
    }
}

#[test]
fn items_of_volumes_cannot_leave_their_place() {
    let label = "a lowercase RFC 1123 label must consist of";
    let cases = [
        (
            items("configMap", "/a"),
            "items[0].path: Invalid value: \"/a\": must be a relative path",
        ),
        (
            items("secret", "a/../b"),
            "items[0].path: Invalid value: \"a/../b\": must not contain '..'",
        ),
        (
            items("configMap", "..data"),
            "items[0].path: Invalid value: \"..data\": must not start with '..'",
        ),
        (
            volume(json!({"name": "v", "configMap": {"name": "c", "defaultMode": 0o1777}})),
            "defaultMode: Invalid value: 1023: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (volume(json!({"name": "../../etc", "emptyDir": {}})), label),
    ];
    for (value, why) in cases {
        let wrong = wrong("pods", value);
        assert!(wrong.contains(why), "{why}: {wrong}");
    }
}

#[test]
fn names_of_a_pods_parts_stay_in_their_place() {
    let label = "a lowercase RFC 1123 label must consist of";
    let cases = [
        (
            pod(json!({"containers": [{"name": "a\nb", "image": "i"}]})),
            label,
        ),
        (
            pod(json!({"containers": [{"name": "a\0b", "image": "i"}]})),
            label,
        ),
        (
            container(json!({"image": " i"})),
            "must not have leading or trailing whitespace",
        ),
        (
            container(json!({"env": [{"name": "A\nB", "value": "x"}]})),
            "a valid environment variable name must consist only of printable ASCII",
        ),
        (
            container(json!({"envFrom": [{"prefix": "A=", "configMapRef": {"name": "c"}}]})),
            "envFrom[0].prefix: Invalid value: \"A=\"",
        ),
        (
            container(json!({"livenessProbe": {"httpGet":
                {"port": 80, "httpHeaders": [{"name": "A\r\nB", "value": "x"}]}}})),
            "httpHeaders[0].name: Invalid value",
        ),
    ];
    for (value, why) in cases {
        let wrong = wrong("pods", value);
        assert!(wrong.contains(why), "{why}: {wrong}");
    }
    assert_eq!(wrong("pods", mount(json!({"subPath": "a..b/..c"}))), "");
    assert_eq!(wrong("pods", items("configMap", "a/..b")), "");
}

#[test]
fn no_field_of_a_pod_adds_a_line_to_its_files() {
    let with = |field: &str, value: Value| {
        pod(json!({field: value, "containers": [{"name": "c", "image": "i"}]}))
    };
    let cases = [
        with(
            "hostAliases",
            json!([{"ip": "10.0.0.1\n10.0.0.2 bank", "hostnames": ["a"]}]),
        ),
        with(
            "hostAliases",
            json!([{"ip": "10.0.0.1", "hostnames": ["a\n10.0.0.2 bank"]}]),
        ),
        with(
            "dnsConfig",
            json!({"nameservers": ["10.0.0.1\nsearch evil"]}),
        ),
        with("dnsConfig", json!({"searches": ["a\nnameserver 10.0.0.1"]})),
        with("hostname", json!("a\nb")),
        with("subdomain", json!("a b")),
    ];
    for value in cases {
        assert!(
            wrong("pods", value.clone()).contains("Invalid value"),
            "{value}"
        );
    }
    let right = json!({"nameservers": ["10.0.0.1"], "searches": ["a.b.", ".", "_tcp.c"],
        "options": [{"name": "ndots", "value": "2"}]});
    assert_eq!(wrong("pods", with("dnsConfig", right)), "");
}

#[test]
fn security_contexts_of_containers_say_one_thing() {
    let own = |context: Value| container(json!({"securityContext": context}));
    let cases = [
        (
            own(json!({"allowPrivilegeEscalation": false, "privileged": true})),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            own(json!({"procMount": "Unmasked"})),
            "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to \
             use `Unmasked`",
        ),
        (
            own(json!({"seccompProfile": {"type": "Localhost"}})),
            "seccompProfile.localhostProfile: Required value: must be set when seccomp type is \
             Localhost",
        ),
        (
            own(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}})),
            "seccompProfile.localhostProfile: Invalid value: \"../a\": must not contain '..'",
        ),
        (
            own(json!({"appArmorProfile": {"type": "Unconfined", "localhostProfile": "a"}})),
            "appArmorProfile.localhostProfile: Invalid value: \"a\": can only be set when \
             AppArmor type is Localhost",
        ),
        (
            own(json!({"runAsUser": -1})),
            "runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
    ];
    for (value, why) in cases {
        let wrong = wrong("pods", value);
        assert!(wrong.contains(why), "{why}: {wrong}");
    }
}

#[test]
fn security_contexts_of_pods_say_one_thing() {
    let of_pod = |context: Value| {
        pod(json!({"securityContext": context, "containers": [{"name": "c", "image": "i"}]}))
    };
    let cases = [
        (
            of_pod(json!({"sysctls": [{"name": "a=b", "value": "1"}]})),
            "sysctls[0].name: Invalid value: \"a=b\": must have at most 253 characters",
        ),
        (
            of_pod(
                json!({"sysctls": [{"name": "a.b", "value": "1"}, {"name": "a.b", "value": "1"}]}),
            ),
            "sysctls[1].name: Duplicate value: \"a.b\"",
        ),
        (
            pod(json!({
                "hostNetwork": true,
                "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]},
                "containers": [{"name": "c", "image": "i"}],
            })),
            "sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when \
             'hostNetwork' is true",
        ),
        (
            pod(json!({
                "hostPID": true,
                "shareProcessNamespace": true,
                "containers": [{"name": "c", "image": "i"}],
            })),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ),
    ];
    for (value, why) in cases {
        let wrong = wrong("pods", value);
        assert!(wrong.contains(why), "{why}: {wrong}");
    }
    // Valid, whether or not a node does it.
    let spec = json!({
        "sysctls": [{"name": "kernel/msgmax", "value": "1"}],
        "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b"},
        "appArmorProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"level": "s0"},
        "supplementalGroupsPolicy": "Strict",
    });
    assert_eq!(wrong("pods", of_pod(spec)), "");
}

#[test]
fn a_gate_holds_a_pod_back_from_every_node_and_can_only_be_opened() {
    let gated = |node: Value| {
        pod(json!({
            "nodeName": node,
            "schedulingGates": [{"name": "wait"}],
            "containers": [{"name": "c", "image": "i"}],
        }))
    };
    assert!(wrong("pods", gated("n".into())).contains(
        "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"
    ));
    let old = object("pods", gated(Value::Null));
    let mut new = old.clone();
    new["spec"]["schedulingGates"] = json!([{"name": "other"}]);
    assert!(wrong_change("pods", &old, &new).contains(
        "spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate \
         'other'"
    ));
    new["spec"]["schedulingGates"] = json!([]);
    assert_eq!(wrong_change("pods", &old, &new), "");
}

#[test]
fn ephemeral_containers_are_not_smuggled_in() {
    let spec = json!({
        "containers": [{"name": "c", "image": "i"}],
        "ephemeralContainers": [{"name": "e", "image": "i"}],
    });
    assert!(
        wrong("pods", pod(spec.clone()))
            .contains("spec.ephemeralContainers: Forbidden: cannot be set on create")
    );
    let mut value = deployment(json!({"app": "web"}));
    value["spec"]["template"]["spec"] = spec;
    assert!(wrong("deployments", value).contains(
        "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in \
         pod template"
    ));
}
