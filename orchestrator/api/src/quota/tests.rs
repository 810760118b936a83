use serde_json::json;

use super::*;
use crate::{find, meta};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn measured<'a>(plural: &str, object: &'a Value) -> Measured<'a> {
    let (group, plural) = plural.split_once('/').unwrap_or(("", plural));
    Measured {
        resource: find(group, "v1", plural).unwrap(),
        object,
        now: now(),
    }
}

fn quota(spec: Value, used: Value) -> Quota {
    let hard = spec["hard"].clone();
    let quota = json!({"metadata": {"name": "q"}, "spec": spec,
        "status": {"hard": hard, "used": used}});
    assert_eq!(meta::name(&quota), "q");
    Quota::in_force(&quota)
}

fn limiting(hard: Value) -> Quota {
    quota(json!({"hard": hard}), json!({}))
}

fn pod(requests: Value, limits: Value) -> Value {
    json!({"spec": {"containers": [
        {"resources": {"requests": requests, "limits": limits}}]}})
}

#[test]
fn a_pod_uses_what_its_containers_ask_for_under_every_name_of_it() {
    let all = limiting(json!({
        "pods": "9", "count/pods": "9", "cpu": "9", "requests.cpu": "9", "limits.cpu": "9",
        "memory": "9Gi", "limits.memory": "9Gi", "ephemeral-storage": "9Gi",
        "requests.ephemeral-storage": "9Gi", "hugepages-2Mi": "1Gi", "requests.hugepages-2Mi": "1Gi",
        "requests.example.com/dongle": "3", "services": "2", "count/services": "1",
    }));
    let pod = pod(
        json!({"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "2Gi", "hugepages-2Mi": "4Mi",
            "example.com/dongle": "1"}),
        json!({"cpu": "1"}),
    );
    let used = all.usage(&measured("pods", &pod));
    assert_eq!(
        amounts::write(&used),
        json!({
            "pods": "1", "count/pods": "1", "cpu": "500m", "requests.cpu": "500m",
            "limits.cpu": "1", "memory": "1Gi", "ephemeral-storage": "2Gi",
            "requests.ephemeral-storage": "2Gi", "hugepages-2Mi": "4Mi",
            "requests.hugepages-2Mi": "4Mi", "requests.example.com/dongle": "1",
        })
    );
}

#[test]
fn a_pod_that_has_ended_is_counted_and_uses_nothing() {
    let both = limiting(json!({"pods": "9", "count/pods": "9"}));
    let only_counted = json!({"count/pods": "1"});
    let mut ended = pod(json!({}), json!({}));
    ended["status"]["phase"] = "Succeeded".into();
    let used = both.usage(&measured("pods", &ended));
    assert_eq!(amounts::write(&used), only_counted);
    let mut stuck = pod(json!({}), json!({}));
    stuck["metadata"] = json!({"deletionTimestamp": "2025-12-31T23:59:00Z",
        "deletionGracePeriodSeconds": 30});
    let used = both.usage(&measured("pods", &stuck));
    assert_eq!(amounts::write(&used), only_counted);
    stuck["metadata"]["deletionGracePeriodSeconds"] = 90.into();
    assert_eq!(both.usage(&measured("pods", &stuck)).len(), 2);
}

#[test]
fn services_use_node_ports_and_load_balancers_by_their_type() {
    let all = limiting(json!({
        "services": "9", "count/services": "9", "services.nodeports": "9",
        "services.loadbalancers": "9",
    }));
    let cases = [
        (json!({"type": "ClusterIP", "ports": [{}, {}]}), (0, 0)),
        (json!({"type": "NodePort", "ports": [{}, {}]}), (2, 0)),
        (json!({"type": "LoadBalancer", "ports": [{}]}), (1, 1)),
        (
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                "ports": [{}, {"nodePort": 30000}]}),
            (1, 1),
        ),
    ];
    for (spec, (ports, balancers)) in cases {
        let service = json!({"spec": spec});
        let used = all.usage(&measured("services", &service));
        let of = |name: &str| used.get(name).map_or(0, |amount| amount.units());
        assert_eq!(of("services.nodeports"), ports, "{spec}");
        assert_eq!(of("services.loadbalancers"), balancers, "{spec}");
        assert_eq!((of("services"), of("count/services")), (1, 1));
    }
}

#[test]
fn a_claim_uses_storage_also_of_its_class() {
    let all = limiting(json!({
        "persistentvolumeclaims": "9", "requests.storage": "9Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "9",
        "gold.storageclass.storage.k8s.io/requests.storage": "9Gi",
        "iron.storageclass.storage.k8s.io/requests.storage": "9Gi",
    }));
    let claim = json!({"spec": {"storageClassName": "gold",
        "resources": {"requests": {"storage": "1.5"}}}});
    let used = all.usage(&measured("persistentvolumeclaims", &claim));
    assert_eq!(
        amounts::write(&used),
        json!({
            "persistentvolumeclaims": "1", "requests.storage": "2",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "gold.storageclass.storage.k8s.io/requests.storage": "2",
        })
    );
}

#[test]
fn every_kind_is_counted_and_some_under_an_older_name() {
    let all = limiting(
        json!({"count/deployments.apps": "1", "secrets": "1", "count/secrets": "1",
        "count/events": "1"}),
    );
    let of = |plural| amounts::write(&all.usage(&measured(plural, &Value::Null)));
    assert_eq!(
        of("apps/deployments"),
        json!({"count/deployments.apps": "1"})
    );
    assert_eq!(of("secrets"), json!({"secrets": "1", "count/secrets": "1"}));
    assert_eq!(of("configmaps"), json!({}));
    assert_eq!(of("events"), json!({}));
}

#[test]
fn scopes_choose_pods() {
    let spec = |spec: Value| {
        let mut pod = pod(json!({}), json!({}));
        pod["spec"]["priorityClassName"] = spec["class"].clone();
        pod["spec"]["activeDeadlineSeconds"] = spec["deadline"].clone();
        pod["spec"]["affinity"] = spec["affinity"].clone();
        if spec["cpu"].is_string() {
            pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = spec["cpu"].clone();
        }
        pod
    };
    let across = json!({"affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"podAffinityTerm": {"namespaceSelector": {}}}]}}});
    let class = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let scope = |name: &str| json!({"scopes": [name]});
    let cases = [
        (scope("Terminating"), json!({"deadline": 5}), json!({})),
        (scope("NotTerminating"), json!({}), json!({"deadline": 5})),
        (scope("BestEffort"), json!({}), json!({"cpu": "1"})),
        (scope("NotBestEffort"), json!({"cpu": "1"}), json!({})),
        (scope("CrossNamespacePodAffinity"), across, json!({})),
        (scope("PriorityClass"), json!({"class": "a"}), json!({})),
        (
            class("In", json!(["a"])),
            json!({"class": "a"}),
            json!({"class": "b"}),
        ),
        (
            class("NotIn", json!(["a"])),
            json!({}),
            json!({"class": "a"}),
        ),
        (class("Exists", json!([])), json!({"class": "a"}), json!({})),
        (
            class("DoesNotExist", json!([])),
            json!({}),
            json!({"class": "a"}),
        ),
    ];
    for (mut of_quota, chosen, other) in cases {
        of_quota["hard"] = json!({"pods": "1", "count/secrets": "1"});
        let quota = quota(of_quota.clone(), json!({}));
        assert_eq!(
            quota.usage(&measured("pods", &spec(chosen))).len(),
            1,
            "{of_quota}"
        );
        assert!(
            quota.usage(&measured("pods", &spec(other))).is_empty(),
            "{of_quota}"
        );
        assert!(quota.usage(&measured("secrets", &Value::Null)).is_empty());
    }
}

#[test]
fn what_does_not_fit_is_refused_in_the_words_of_kubernetes() {
    let hard = json!({"hard": {"pods": "2", "cpu": "1", "memory": "1Gi", "limits.cpu": "4"}});
    let used = json!({"pods": "1", "cpu": "600m", "memory": "0", "limits.cpu": "0"});
    let counted = quota(hard.clone(), used);
    let charged = |quota: &Quota, pod: &Value| quota.charged(&measured("pods", pod), None);
    let refused = |quota: &Quota, pod: &Value| charged(quota, pod).unwrap_err().to_string();
    let small = pod(json!({"cpu": "400m", "memory": "1Gi"}), json!({"cpu": "1"}));
    let large = pod(
        json!({"cpu": "1500m", "memory": "2Gi"}),
        json!({"cpu": "2"}),
    );
    assert_eq!(
        amounts::write(&charged(&counted, &small).unwrap().unwrap()),
        json!({"pods": "2", "cpu": "1", "memory": "1Gi", "limits.cpu": "1"})
    );
    assert_eq!(
        refused(&counted, &large),
        "exceeded quota: q, requested: cpu=1500m,memory=2Gi, used: cpu=600m,memory=0, \
         limited: cpu=1,memory=1Gi"
    );
    assert_eq!(
        refused(&counted, &pod(json!({"cpu": "1"}), json!({}))),
        "failed quota: q: must specify limits.cpu,memory"
    );
    assert_eq!(
        refused(&quota(hard, json!({"pods": "1"})), &small),
        "status unknown for quota: q, resources: cpu,limits.cpu,memory,pods"
    );
}

#[test]
fn an_update_is_charged_for_what_it_adds() {
    let hard = json!({"hard": {"services": "1", "services.nodeports": "2"}});
    let full = quota(hard, json!({"services": "1", "services.nodeports": "0"}));
    let service = |kind: &str, ports: Value| json!({"spec": {"type": kind, "ports": ports}});
    let charged = |old: &Value, new: &Value| {
        let old = measured("services", old);
        full.charged(&measured("services", new), Some(&old))
    };
    let (inside, outside) = (
        service("ClusterIP", json!([{}])),
        service("NodePort", json!([{}])),
    );
    let used = charged(&inside, &outside).unwrap().unwrap();
    assert_eq!(
        amounts::write(&used),
        json!({"services": "1", "services.nodeports": "1"})
    );
    assert_eq!(charged(&outside, &inside).unwrap(), None);
    let many = service("NodePort", json!([{}, {}, {}]));
    assert!(charged(&inside, &many).is_err());
}

#[test]
fn a_count_of_an_unknown_kind_is_not_counted() {
    let hard = json!({"pods": "1", "count/pods": "1", "count/widgets.example.com": "1",
        "count/foos.example.com": "1", "secrets": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1"});
    let quota = limiting(hard);
    let served = |group: &str, plural: &str| {
        (group, plural) == ("", "pods") || (group, plural) == ("example.com", "widgets")
    };
    assert_eq!(
        amounts::write(&quota.nothing_used(served)),
        json!({"pods": "0", "count/pods": "0", "count/widgets.example.com": "0", "secrets": "0",
            "gold.storageclass.storage.k8s.io/requests.storage": "0"})
    );
}

#[test]
fn a_quota_of_bandwidth_counts_annotations_and_refuses_pods_without() {
    let egress = "requests.orchestrator.io/egress-bandwidth";
    let quota = quota(json!({"hard": {egress: "10M"}}), json!({egress: "4M"}));
    let limited = |rate: &str| {
        let mut pod = pod(json!({}), json!({}));
        pod["metadata"]["annotations"]["kubernetes.io/egress-bandwidth"] = rate.into();
        pod
    };
    let (fits, exceeds) = (limited("6M"), limited("7M"));
    let charged = quota
        .charged(&measured("pods", &fits), None)
        .unwrap()
        .unwrap();
    assert_eq!(charged[egress].to_string(), "10M");
    let refused = quota
        .charged(&measured("pods", &exceeds), None)
        .unwrap_err();
    assert!(matches!(refused, Refusal::Exceeded { .. }), "{refused}");
    for unlimited in [pod(json!({}), json!({})), limited("fast"), limited("0")] {
        let refused = quota
            .charged(&measured("pods", &unlimited), None)
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("failed quota: q: must specify {egress}")
        );
    }
}
