use serde_json::{Value, json};

use crate::{FieldValidation, Resource, Subresource, find};

fn resource(plural: &str) -> &'static Resource {
    let groups = [("", "v1"), ("apps", "v1"), ("discovery.k8s.io", "v1")];
    groups
        .into_iter()
        .find_map(|(group, version)| find(group, version, plural))
        .unwrap()
}

fn created(plural: &str, object: Value) -> Value {
    let resource = resource(plural);
    let mut object = resource
        .canonical(object, FieldValidation::Strict)
        .unwrap()
        .object;
    resource.prepare_for_create(&mut object);
    resource.default(&mut object);
    object
}

fn updated(plural: &str, old: &Value, new: &Value, sub: Option<Subresource>) -> Value {
    let resource = resource(plural);
    let mut new = resource
        .canonical(new.clone(), FieldValidation::Strict)
        .unwrap()
        .object;
    resource.default(&mut new);
    resource.prepare_for_update(&mut new, old, sub);
    new
}

fn deployment() -> Value {
    created(
        "deployments",
        json!({
            "metadata": {"name": "web", "uid": "mine", "generation": 7},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
                },
            },
            "status": {"replicas": 9},
        }),
    )
}

#[test]
fn a_new_object_begins_at_generation_one_without_a_status_of_the_clients() {
    let object = deployment();
    assert_eq!(object["metadata"], json!({"name": "web", "generation": 1}));
    assert_eq!(object["status"], json!({}));
}

#[test]
fn a_change_of_the_spec_counts_a_generation_and_keeps_the_status() {
    let mut old = deployment();
    old["status"] = json!({"replicas": 1});
    old["metadata"]["uid"] = "u".into();
    let mut new = old.clone();
    new["spec"]["replicas"] = 3.into();
    new["status"] = json!({"replicas": 5});
    new["metadata"]["generation"] = 40.into();
    let object = updated("deployments", &old, &new, None);
    assert_eq!(object["metadata"]["generation"], 2);
    assert_eq!(object["status"], json!({"replicas": 1}));
    let same = updated("deployments", &old, &old, None);
    assert_eq!(same["metadata"]["generation"], 1);
}

#[test]
fn a_status_update_changes_only_the_status() {
    let old = deployment();
    let mut new = old.clone();
    new["spec"]["replicas"] = 3.into();
    new["status"] = json!({"replicas": 5});
    new["metadata"]["labels"] = json!({"a": "b"});
    let object = updated("deployments", &old, &new, Some(Subresource::Status));
    assert_eq!(object["spec"], old["spec"]);
    assert_eq!(object["status"], json!({"replicas": 5}));
    assert_eq!(object["metadata"], old["metadata"]);
}

#[test]
fn a_status_update_counts_no_generation() {
    let old = deployment();
    let mut new = old.clone();
    new["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    let object = updated("deployments", &old, &new, Some(Subresource::Status));
    assert_eq!(
        object["metadata"]["annotations"],
        new["metadata"]["annotations"]
    );
    assert_eq!(object["metadata"]["generation"], 1);
    let object = updated("deployments", &old, &new, None);
    assert_eq!(object["metadata"]["generation"], 2);
}

#[test]
fn a_service_keeps_what_was_allocated_to_it() {
    let mut old = created(
        "services",
        json!({
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web"}},
        }),
    );
    old["spec"]["clusterIP"] = "10.96.0.7".into();
    old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    old["spec"]["ports"][0]["nodePort"] = 30001.into();
    let replaced = json!({
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web2"}},
    });
    let object = updated("services", &old, &replaced, None);
    assert_eq!(object["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(object["spec"]["ports"][0]["nodePort"], 30001);
    let mut internal = old.clone();
    internal["spec"]["type"] = "ClusterIP".into();
    let object = updated("services", &old, &internal, None);
    assert_eq!(object["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(object["spec"].get("externalTrafficPolicy"), None);
}

#[test]
fn a_namespace_is_finalized_only_through_its_subresource() {
    let old = created("namespaces", json!({"metadata": {"name": "a"}}));
    assert_eq!(old["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(old["status"]["phase"], "Active");
    let mut new = old.clone();
    new["spec"] = json!({});
    assert_eq!(updated("namespaces", &old, &new, None)["spec"], old["spec"]);
    let finalized = updated("namespaces", &old, &new, Some(Subresource::Finalize));
    assert_eq!(finalized["spec"], json!({}));
}

#[test]
fn pods_say_their_class_of_service() {
    let class = |resources: Value| {
        let container = json!({"name": "c", "image": "i", "resources": resources});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
        created("pods", pod)["status"]["qosClass"].clone()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    let all = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(class(json!({"limits": all})), "Guaranteed");
    assert_eq!(
        class(json!({"limits": all, "requests": {"cpu": "500m"}})),
        "Burstable"
    );
}

#[test]
fn a_pods_first_address_and_the_list_of_them_agree() {
    let container = json!({"name": "c", "image": "i"});
    let spec = json!({"containers": [container]});
    let old = created("pods", json!({"metadata": {"name": "p"}, "spec": spec}));
    let status = |fields: Value| {
        let mut new = old.clone();
        new["status"] = fields;
        updated("pods", &old, &new, Some(Subresource::Status))["status"].clone()
    };
    let both = json!([{"ip": "10.0.0.2"}, {"ip": "fd00::2"}]);
    assert_eq!(status(json!({"podIPs": both}))["podIP"], "10.0.0.2");
    let one = status(json!({"hostIP": "172.31.0.11"}));
    assert_eq!(one["hostIPs"], json!([{"ip": "172.31.0.11"}]));
    let given = status(json!({"podIP": "10.0.0.2", "podIPs": both}));
    assert_eq!(given["podIPs"], both);
    assert_eq!(given.get("hostIPs"), None);
}

#[test]
fn every_kind_offers_its_name_to_field_selectors() {
    for resource in crate::resources() {
        let fields = resource.selectable_fields(&json!({"metadata": {"name": "a"}}));
        assert_eq!(fields["metadata.name"], "a");
        let names: Vec<_> = fields.keys().cloned().collect();
        assert_eq!(names, resource.selectable_field_names());
    }
    let node = resource("nodes").selectable_fields(&json!({"metadata": {"name": "n"}}));
    assert_eq!(node["spec.unschedulable"], "false");
}
