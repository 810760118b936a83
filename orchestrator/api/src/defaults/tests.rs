use serde_json::{Value, json};

use crate::{FieldValidation, Resource, find};

fn resource(plural: &str) -> &'static Resource {
    let groups = [("", "v1"), ("apps", "v1"), ("discovery.k8s.io", "v1")];
    groups
        .into_iter()
        .find_map(|(group, version)| find(group, version, plural))
        .unwrap()
}

fn defaulted(plural: &str, object: Value) -> Value {
    let resource = resource(plural);
    let mut object = resource
        .canonical(object, FieldValidation::Strict)
        .unwrap()
        .object;
    resource.default(&mut object);
    let mut again = object.clone();
    resource.default(&mut again);
    assert_eq!(again, object, "defaults are idempotent");
    let canonical = resource
        .canonical(object.clone(), FieldValidation::Strict)
        .unwrap()
        .object;
    assert_eq!(canonical, object, "a defaulted object is canonical");
    object
}

#[test]
fn a_pod_gets_what_kubernetes_gives_it() {
    let pod = defaulted(
        "pods",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{
            "name": "c",
            "image": "nginx:1.7.9",
            "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "1000m"}},
        }]}}),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["enableServiceLinks"], true);
    assert_eq!(spec["serviceAccountName"], "default");
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(
        container["livenessProbe"],
        json!({
            "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        })
    );
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})
    );
}

#[test]
fn images_are_pulled_by_their_tag() {
    let cases = [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
    ];
    for (image, policy) in cases {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        let pod = defaulted("pods", pod);
        assert_eq!(
            pod["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
        let volume = json!({"name": "v", "image": {"reference": image}});
        let pod = defaulted("pods", json!({"spec": {"volumes": [volume]}}));
        let said = &pod["spec"]["volumes"][0]["image"]["pullPolicy"];
        assert_eq!(said, policy, "{image}");
    }
}

#[test]
fn a_service_gets_the_fields_of_its_type() {
    let service = |spec: Value| defaulted("services", json!({"spec": spec}))["spec"].clone();
    assert_eq!(
        service(json!({"ports": [{"port": 80}], "selector": {"a": "b"}})),
        json!({
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "selector": {"a": "b"},
            "sessionAffinity": "None",
            "type": "ClusterIP",
        })
    );
    let headless = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    assert_eq!(headless["clusterIPs"], json!(["None"]));
    let external = service(json!({"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}));
    assert_eq!(external["externalTrafficPolicy"], "Cluster");
    let balanced = service(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}));
    assert_eq!(balanced["externalTrafficPolicy"], "Cluster");
    assert_eq!(balanced["allocateLoadBalancerNodePorts"], true);
    assert_eq!(
        balanced["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
        10_800
    );
}

#[test]
fn controllers_get_replicas_and_a_pods_defaults() {
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    });
    let deployment = defaulted(
        "deployments",
        json!({"spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": template,
        }}),
    );
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
        })
    );
    assert_eq!(spec["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["template"]["spec"].get("enableServiceLinks"), None);
    let controller = defaulted(
        "replicationcontrollers",
        json!({"spec": {"template": template}}),
    );
    assert_eq!(controller["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(controller["metadata"]["labels"], json!({"app": "web"}));
}

#[test]
fn plain_text_of_a_secret_becomes_data() {
    let secret = defaulted(
        "secrets",
        json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}}),
    );
    assert_eq!(secret["data"], json!({"a": "Yg==", "c": "ZA=="}));
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret.get("stringData"), None);
}

#[test]
fn the_two_forms_of_a_nodes_range_agree() {
    let node = defaulted("nodes", json!({"spec": {"podCIDR": "10.100.1.0/24"}}));
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.100.1.0/24"]));
    let node = defaulted("nodes", json!({"spec": {"podCIDRs": ["10.100.1.0/24"]}}));
    assert_eq!(node["spec"]["podCIDR"], "10.100.1.0/24");
}
