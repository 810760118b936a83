use super::*;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn deployment(replicas: i64, image: &str) -> Value {
    json!({"spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": image}]},
        },
    }})
}

/// A Deployment as kubectl left it: `live`, with what it applied last in the annotation.
fn applied_by_client(live: Value, last: &Value) -> Cluster {
    let mut cluster = Cluster::deployments();
    let mut object = live;
    let text = named(cluster.resource, last.clone()).to_string();
    object["metadata"]["annotations"] = json!({ANNOTATION: text});
    cluster.create("kubectl-client-side-apply", object);
    cluster
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let last = deployment(2, "app:1");
    let mut cluster = applied_by_client(last.clone(), &last);
    cluster.apply("kubectl", deployment(3, "app:2"));
    assert_eq!(cluster.live()["spec"]["replicas"], 3);
    assert!(
        cluster
            .owned("kubectl")
            .contains(&".spec.replicas".to_owned())
    );
    let others = cluster.owned("kubectl-client-side-apply");
    assert!(!others.contains(&".spec.replicas".to_owned()), "{others:?}");
    // The annotation says what is applied now, without itself.
    let text = cluster.live()["metadata"]["annotations"][ANNOTATION]
        .as_str()
        .unwrap();
    let annotated: Value = serde_json::from_str(text).unwrap();
    assert_eq!(annotated["spec"]["replicas"], 3);
    assert_eq!(
        annotated["metadata"],
        json!({"name": "web", "namespace": "shop"})
    );
    let before = cluster.live().clone();
    cluster.apply("kubectl", deployment(3, "app:2"));
    assert_eq!(*cluster.live(), before);
}

#[test]
fn kubectl_leaves_no_annotation_where_there_was_none() {
    let mut cluster = Cluster::deployments();
    cluster.apply("kubectl", deployment(2, "app:1"));
    assert_eq!(cluster.live()["metadata"].get("annotations"), None);
}

#[test]
fn what_has_changed_since_is_a_conflict_and_only_that() {
    let mut cluster = applied_by_client(deployment(9, "app:1"), &deployment(2, "app:1"));
    let error = cluster.refused("kubectl", deployment(3, "app:2"));
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using \
         apps/v1: .spec.replicas"
    );
    cluster.force("kubectl", deployment(3, "app:2"));
    assert_eq!(cluster.live()["spec"]["replicas"], 3);
}

#[test]
fn another_manager_than_kubectl_gets_the_conflicts_and_leaves_the_annotation() {
    let last = deployment(2, "app:1");
    let mut cluster = applied_by_client(last.clone(), &last);
    let annotation = cluster.live()["metadata"]["annotations"].clone();
    let error = cluster.refused("flux", deployment(3, "app:1"));
    assert!(error.to_string().ends_with(".spec.replicas"), "{error}");
    cluster.force("flux", deployment(3, "app:1"));
    assert_eq!(cluster.live()["metadata"]["annotations"], annotation);
}

#[test]
fn an_annotation_that_is_no_configuration_of_this_version_excuses_nothing() {
    let mut other = named(
        find("apps", "v1", "deployments").unwrap(),
        deployment(2, "app:1"),
    );
    other["apiVersion"] = "apps/v1beta1".into();
    let mut unknown = named(
        find("apps", "v1", "deployments").unwrap(),
        deployment(2, "app:1"),
    );
    unknown["spec"]["replica"] = 2.into();
    for text in ["", "{", "[]", &other.to_string(), &unknown.to_string()] {
        let mut cluster = Cluster::deployments();
        let mut object = deployment(2, "app:1");
        object["metadata"]["annotations"] = json!({ANNOTATION: text});
        cluster.create("kubectl-client-side-apply", object);
        let error = cluster.refused("kubectl", deployment(3, "app:1"));
        assert!(
            error.to_string().ends_with(".spec.replicas"),
            "{text}: {error}"
        );
    }
}

#[test]
fn an_annotation_that_becomes_too_large_goes() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create(
        "kubectl-client-side-apply",
        json!({"metadata": {"annotations": {ANNOTATION: "{}"}}}),
    );
    cluster.apply("kubectl", json!({"data": {"big": "x".repeat(300 * 1024)}}));
    let annotations = &cluster.live()["metadata"]["annotations"];
    assert_eq!(annotations.get(ANNOTATION), None);
}
