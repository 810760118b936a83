//! The other built-in admission plugins over HTTP.

use super::*;
use crate::AdmissionConfig;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const STORAGE_CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const INGRESS_CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";
const RUNTIME_CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";

fn with_plugins(on: &[&str], off: &[&str]) -> ServerConfig {
    let names = |list: &[&str]| {
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    ServerConfig {
        admission: AdmissionConfig::new(&names(on), &names(off), None).expect("plugins"),
        ..ServerConfig::default()
    }
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}})
}

fn class(name: &str, is_default: bool) -> Value {
    json!({"metadata": {"name": name, "annotations":
            {"storageclass.kubernetes.io/is-default-class": is_default.to_string()}},
        "provisioner": "example.com/p", "allowVolumeExpansion": is_default})
}

#[tokio::test]
async fn pods_are_given_five_minutes_on_a_node_that_is_away() {
    let cluster = Cluster::start().await;
    let made = cluster.post(PODS, pod("p")).await.expect(201);
    let given = |key: &str| {
        json!({"key": key, "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 300})
    };
    let expected = json!([
        given("node.kubernetes.io/not-ready"),
        given("node.kubernetes.io/unreachable")
    ]);
    assert_eq!(made["spec"]["tolerations"], expected);
    // Nobody owns what nobody wrote.
    let managed = made["metadata"]["managedFields"].to_string();
    assert!(!managed.contains("f:tolerations"), "{managed}");
    let off = Cluster::with(with_plugins(&[], &["DefaultTolerationSeconds"])).await;
    let made = off.post(PODS, pod("p")).await.expect(201);
    assert_eq!(made["spec"]["tolerations"], Value::Null);
}

#[tokio::test]
async fn claims_get_the_newest_default_class_unless_they_name_one() {
    let cluster = Cluster::start().await;
    let made = cluster.post(CLAIMS, claim("first")).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "local");
    let local = format!("{STORAGE_CLASSES}/local");
    cluster.delete(&local).await.expect(200);
    let made = cluster.post(CLAIMS, claim("none")).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], Value::Null);
    for (name, is_default) in [("slow", false), ("b", true), ("a", true)] {
        cluster
            .post(STORAGE_CLASSES, class(name, is_default))
            .await
            .expect(201);
    }
    let made = cluster.post(CLAIMS, claim("given")).await.expect(201);
    // Made in the same second, or later.
    assert_eq!(made["spec"]["storageClassName"], "a");
    for (name, named) in [("own", "slow"), ("empty", "")] {
        let mut own = claim(name);
        own["spec"]["storageClassName"] = named.into();
        let made = cluster.post(CLAIMS, own).await.expect(201);
        assert_eq!(made["spec"]["storageClassName"], named);
    }
}

#[tokio::test]
async fn an_ingress_gets_the_default_class_unless_it_names_one() {
    let cluster = Cluster::start().await;
    let class = json!({"metadata": {"name": "nginx",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/c"}});
    cluster.post(INGRESS_CLASSES, class).await.expect(201);
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"defaultBackend": backend}});
    let made = cluster.post(INGRESSES, ingress("a")).await.expect(201);
    assert_eq!(made["spec"]["ingressClassName"], "nginx");
    let mut old = ingress("b");
    old["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "other"});
    let made = cluster.post(INGRESSES, old).await.expect(201);
    assert_eq!(made["spec"]["ingressClassName"], Value::Null);
}

#[tokio::test]
async fn claims_and_volumes_are_protected_and_claims_grow_where_their_class_allows_it() {
    let cluster = Cluster::start().await;
    for (name, can_grow) in [("fast", true), ("stiff", false)] {
        cluster
            .post(STORAGE_CLASSES, class(name, can_grow))
            .await
            .expect(201);
    }
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}});
    let made = cluster
        .post("/api/v1/persistentvolumes", volume)
        .await
        .expect(201);
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pv-protection"])
    );
    let grown = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    for (name, code) in [("fast", 200), ("stiff", 403)] {
        let mut asked = claim(name);
        asked["spec"]["storageClassName"] = name.into();
        asked["spec"]["volumeName"] = "v".into();
        let made = cluster.post(CLAIMS, asked).await.expect(201);
        assert_eq!(
            made["metadata"]["finalizers"],
            json!(["kubernetes.io/pvc-protection"])
        );
        let path = format!("{CLAIMS}/{name}");
        // Before it is bound that is refused by its kind.
        cluster.merge(&path, grown.clone()).await.expect(422);
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        cluster
            .merge(&format!("{path}/status"), bound)
            .await
            .expect(200);
        cluster.merge(&path, grown.clone()).await.expect(code);
    }
    cluster.delete(&format!("{CLAIMS}/fast")).await.expect(200);
    let kept = cluster.get(&format!("{CLAIMS}/fast")).await.expect(200);
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    let off = Cluster::with(with_plugins(&[], &["StorageObjectInUseProtection"])).await;
    let made = off.post(CLAIMS, claim("c")).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], Value::Null);
}

#[tokio::test]
async fn a_runtime_class_says_what_its_pods_take_and_where_they_run() {
    let cluster = Cluster::start().await;
    let in_class = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = class.into();
        pod
    };
    let refused = cluster.post(PODS, in_class("p", "vm")).await;
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: pod rejected: RuntimeClass \"vm\" not found"
    );
    refused.expect(403);
    let vm = json!({"metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"},
            "tolerations": [{"key": "vm", "operator": "Exists", "effect": "NoSchedule"}]}});
    cluster.post(RUNTIME_CLASSES, vm).await.expect(201);
    let made = cluster.post(PODS, in_class("p", "vm")).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"vm": "yes"}));
    assert_eq!(
        made["spec"]["tolerations"].as_array().map(Vec::len),
        Some(3)
    );
    let mut elsewhere = in_class("q", "vm");
    elsewhere["spec"]["nodeSelector"] = json!({"vm": "no"});
    let refused = cluster.post(PODS, elsewhere).await;
    assert!(refused.message().ends_with(
        "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"
    ));
    let mut other = in_class("q", "vm");
    other["spec"]["overhead"] = json!({"cpu": "1"});
    let refused = cluster.post(PODS, other).await;
    assert!(
        refused
            .message()
            .ends_with("Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    );
    let mut without = pod("q");
    without["spec"]["overhead"] = json!({"cpu": "1"});
    let refused = cluster.post(PODS, without).await;
    assert!(
        refused
            .message()
            .ends_with("without corresponding RuntimeClass defined Overhead")
    );
    let mut same = in_class("q", "vm");
    same["spec"]["overhead"] = json!({"cpu": "0.1"});
    cluster.post(PODS, same).await.expect(201);
}

#[tokio::test]
async fn what_is_off_by_default_does_nothing_until_it_is_turned_on() {
    let mut pinned = pod("p");
    pinned["spec"]["containers"][0]["imagePullPolicy"] = "Never".into();
    pinned["spec"]["containers"][0]["resources"] =
        json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}});
    let cluster = Cluster::start().await;
    let made = cluster.post(PODS, pinned.clone()).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Never");
    let plugins = ["AlwaysPullImages", "ExtendedResourceToleration"];
    let cluster = Cluster::with(with_plugins(&plugins, &[])).await;
    let made = cluster.post(PODS, pinned).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let device = json!({"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
    let tolerations = made["spec"]["tolerations"].as_array().expect("tolerations");
    assert!(tolerations.contains(&device), "{tolerations:?}");
}

#[tokio::test]
async fn anti_affinity_and_external_addresses_can_be_kept_small() {
    let plugins = ["LimitPodHardAntiAffinityTopology", "DenyServiceExternalIPs"];
    let cluster = Cluster::with(with_plugins(&plugins, &[])).await;
    let mut wide = pod("p");
    wide["spec"]["affinity"] = json!({"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone",
            "labelSelector": {"matchLabels": {"a": "b"}}}]}});
    let refused = cluster.post(PODS, wide).await;
    assert!(refused.message().ends_with(
        "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key \
         kubernetes.io/hostname is allowed"
    ));
    refused.expect(403);
    let spec = json!({"ports": [{"port": 1}], "externalIPs": ["192.0.2.1"]});
    let refused = cluster.post(SERVICES, service("s", spec)).await;
    assert_eq!(
        refused.message(),
        "services \"s\" is forbidden: Use of external IPs is denied by admission control."
    );
    let spec = json!({"ports": [{"port": 1}]});
    cluster.post(SERVICES, service("s", spec)).await.expect(201);
    let change = json!({"spec": {"externalIPs": ["192.0.2.1"]}});
    cluster
        .merge(&format!("{SERVICES}/s"), change)
        .await
        .expect(403);
}

#[tokio::test]
async fn a_namespace_says_on_which_nodes_its_pods_run() {
    let cluster = Cluster::with(with_plugins(&["PodNodeSelector"], &[])).await;
    let annotation = json!({"metadata": {"annotations":
        {"scheduler.alpha.kubernetes.io/node-selector": "disk=ssd, env = test"}}});
    cluster
        .merge("/api/v1/namespaces/default", annotation)
        .await
        .expect(200);
    let made = cluster.post(PODS, pod("p")).await.expect(201);
    assert_eq!(
        made["spec"]["nodeSelector"],
        json!({"disk": "ssd", "env": "test"})
    );
    let mut other = pod("q");
    other["spec"]["nodeSelector"] = json!({"disk": "tape"});
    let refused = cluster.post(PODS, other).await;
    assert!(
        refused
            .message()
            .ends_with("pod node label selector conflicts with its namespace node label selector")
    );
    refused.expect(403);
}

#[tokio::test]
async fn a_new_node_takes_no_pods_before_it_is_ready() {
    let cluster = Cluster::start().await;
    let node = json!({"metadata": {"name": "n"}});
    let made = cluster.post("/api/v1/nodes", node).await.expect(201);
    let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!(made["spec"]["taints"], taint);
}

#[tokio::test]
async fn events_are_limited_as_the_configuration_says() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join("limits.yaml"),
        "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits:\n\
         - {type: Namespace, qps: 1, burst: 2}\n",
    )
    .expect("written");
    let path = directory.path().join("admission.yaml");
    std::fs::write(
        &path,
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
         - {name: EventRateLimit, path: limits.yaml}\n",
    )
    .expect("written");
    let on = ["EventRateLimit".to_owned()];
    let config = ServerConfig {
        admission: AdmissionConfig::new(&on, &[], Some(&path)).expect("right"),
        ..ServerConfig::default()
    };
    let cluster = Cluster::with(config).await;
    let event = |name: &str| {
        json!({"metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R"})
    };
    let events = "/api/v1/namespaces/default/events";
    for name in ["a", "b"] {
        cluster.post(events, event(name)).await.expect(201);
    }
    let dry = format!("{events}?dryRun=All");
    cluster.post(&dry, event("c")).await.expect(201);
    let refused = cluster.post(events, event("c")).await;
    assert_eq!(
        refused.message(),
        "Too many requests: limit reached on type Namespace for key default"
    );
    refused.expect(429);
    cluster.post(CONFIG_MAPS, config_map("m")).await.expect(201);
}

#[tokio::test]
async fn policies_and_quotas_can_be_turned_off() {
    let off = ["ResourceQuota", "ValidatingAdmissionPolicy"];
    let cluster = Cluster::with(with_plugins(&[], &off)).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}});
    cluster
        .post("/api/v1/namespaces/default/resourcequotas", quota)
        .await
        .expect(201);
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["pods"]}]);
    let policy = json!({"metadata": {"name": "no"}, "spec": {
        "matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "false"}]}});
    let binding = json!({"metadata": {"name": "no"},
        "spec": {"policyName": "no", "validationActions": ["Deny"]}});
    let group = "/apis/admissionregistration.k8s.io/v1";
    for (plural, object) in [
        ("validatingadmissionpolicies", policy),
        ("validatingadmissionpolicybindings", binding),
    ] {
        cluster
            .post(&format!("{group}/{plural}"), object)
            .await
            .expect(201);
    }
    cluster.post(PODS, pod("p")).await.expect(201);
}

#[tokio::test]
async fn a_namespace_says_which_taints_its_pods_tolerate_and_may() {
    let cluster = Cluster::with(with_plugins(&["PodTolerationRestriction"], &[])).await;
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let given = json!([toleration("team")]);
    let allowed = json!([toleration("team"), {"operator": "Exists", "effect": "NoExecute"}]);
    let annotations = json!({"metadata": {"annotations": {
        "scheduler.alpha.kubernetes.io/defaultTolerations": given.to_string(),
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist": allowed.to_string()}}});
    cluster
        .merge("/api/v1/namespaces/default", annotations)
        .await
        .expect(200);
    let made = cluster.post(PODS, pod("p")).await.expect(201);
    let tolerations = made["spec"]["tolerations"].as_array().expect("tolerations");
    assert!(tolerations.contains(&toleration("team")), "{tolerations:?}");
    let mut other = pod("q");
    other["spec"]["tolerations"] = json!([toleration("others")]);
    let refused = cluster.post(PODS, other).await;
    assert!(
        refused
            .message()
            .ends_with("conflict with its namespace whitelist"),
        "{}",
        refused.message()
    );
    refused.expect(403);
}
