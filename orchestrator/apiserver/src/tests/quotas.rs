//! LimitRanges, ResourceQuotas and PriorityClasses, as users meet them.

use super::*;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMIT_RANGES: &str = "/api/v1/namespaces/default/limitranges";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn quota(hard: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": hard}})
}

fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

impl Cluster {
    /// Makes the quota and waits until what it finds is counted.
    pub(super) async fn limit(&self, quota: Value) {
        let hard = quota["spec"]["hard"].clone();
        let path = format!(
            "{QUOTAS}/{}",
            quota["metadata"]["name"].as_str().unwrap_or_default()
        );
        self.post(QUOTAS, quota).await.expect(201);
        self.until(&path, |found| {
            found["status"]["hard"] == hard && found["status"]["used"].is_object()
        })
        .await;
    }

    /// The quota's use once it is so, or as it is after a long time.
    async fn used(&self, wanted: Value) {
        let path = format!("{QUOTAS}/q");
        self.until(&path, |found| found["status"]["used"] == wanted)
            .await;
    }

    async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.get(path).await.expect(200);
            if is_so(&found) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{found}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_quota_follows_the_life_of_what_it_limits() {
    let cluster = Cluster::start().await;
    cluster
        .limit(quota(
            json!({"configmaps": "2", "count/configmaps": "3", "resourcequotas": "1"}),
        ))
        .await;
    cluster
        .used(json!({"configmaps": "0", "count/configmaps": "0", "resourcequotas": "1"}))
        .await;
    for name in ["a", "b"] {
        cluster
            .post(CONFIG_MAPS, config_map(name))
            .await
            .expect(201);
    }
    let found = cluster.get(&format!("{QUOTAS}/q")).await.expect(200);
    assert_eq!(
        found["status"]["used"]["configmaps"], "2",
        "charged by the write itself"
    );
    let refused = cluster.post(CONFIG_MAPS, config_map("c")).await;
    assert_eq!(
        refused.message(),
        "configmaps \"c\" is forbidden: exceeded quota: q, requested: configmaps=1, \
         used: configmaps=2, limited: configmaps=2"
    );
    refused.expect(403);
    cluster
        .delete(&format!("{CONFIG_MAPS}/a"))
        .await
        .expect(200);
    cluster
        .used(json!({"configmaps": "1", "count/configmaps": "1", "resourcequotas": "1"}))
        .await;
    cluster.post(CONFIG_MAPS, config_map("c")).await.expect(201);
}

#[tokio::test]
async fn a_hundred_creates_at_once_do_not_pass_a_quota() {
    let cluster = Cluster::start().await;
    cluster
        .limit(quota(json!({"count/configmaps": "30", "configmaps": "50"})))
        .await;
    let creates = (0..100).map(|number| {
        let object = config_map(&format!("m{number}"));
        let cluster = &cluster;
        async move { cluster.post(CONFIG_MAPS, object).await.code.as_u16() }
    });
    let codes = futures::future::join_all(creates).await;
    let made = codes.iter().filter(|code| **code == 201).count();
    assert_eq!(made, 30, "{codes:?}");
    assert!(
        codes.iter().all(|code| [201, 403].contains(code)),
        "{codes:?}"
    );
    cluster
        .used(json!({"count/configmaps": "30", "configmaps": "30"}))
        .await;
}

#[tokio::test]
async fn two_servers_of_one_store_do_not_pass_a_quota_together() {
    let store = store::MemoryStore::default();
    let server = async || {
        let tasks = Tasks::new(Shutdown::new());
        let store = Arc::new(store.clone());
        let server = ApiServer::build(ServerConfig::default(), store, None, tasks).await;
        Cluster {
            server: server.expect("a server"),
            user: User::internal("test"),
        }
    };
    let clusters = [server().await, server().await];
    clusters[0].limit(quota(json!({"configmaps": "30"}))).await;
    // The other one has heard of it as well.
    clusters[1].used(json!({"configmaps": "0"})).await;
    let creates = (0..100).map(|number| {
        let object = config_map(&format!("m{number}"));
        let cluster = &clusters[number % 2];
        async move { cluster.post(CONFIG_MAPS, object).await.code.as_u16() }
    });
    let codes = futures::future::join_all(creates).await;
    let made = codes.iter().filter(|code| **code == 201).count();
    assert_eq!(made, 30, "{codes:?}");
    let used = json!({"configmaps": "30"});
    clusters[0].used(used.clone()).await;
    // Deletions through one are given back through both.
    for number in [1, 3] {
        let path = format!("{CONFIG_MAPS}/m{number}");
        let code = clusters[0].delete(&path).await.code.as_u16();
        assert!([200, 404].contains(&code));
    }
    let listed = clusters[0].get(CONFIG_MAPS).await.expect(200);
    let left = listed["items"].as_array().map_or(0, Vec::len);
    for cluster in &clusters {
        cluster.used(json!({"configmaps": left.to_string()})).await;
    }
}

#[tokio::test]
async fn what_is_not_made_is_not_charged() {
    let cluster = Cluster::start().await;
    cluster
        .limit(quota(json!({"services": "2", "services.nodeports": "1"})))
        .await;
    let none = json!({"services": "1", "services.nodeports": "0"});
    cluster.used(none.clone()).await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let dry = format!("{SERVICES}?dryRun=All");
    cluster
        .post(&dry, service("web", spec.clone()))
        .await
        .expect(201);
    let two = json!({"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
    cluster
        .post(&dry, service("web", two.clone()))
        .await
        .expect(403);
    cluster
        .post(SERVICES, service("web", two.clone()))
        .await
        .expect(403);
    // The name is taken.
    cluster
        .post(SERVICES, service("kubernetes", spec.clone()))
        .await
        .expect(409);
    let found = cluster.get(&format!("{QUOTAS}/q")).await.expect(200);
    assert_eq!(found["status"]["used"], none);
    // A change is charged for what it adds.
    let inside = json!({"ports": [{"port": 80}]});
    cluster
        .post(SERVICES, service("web", inside))
        .await
        .expect(201);
    let path = format!("{SERVICES}/web");
    cluster.merge(&path, json!({"spec": two})).await.expect(403);
    cluster
        .merge(&path, json!({"spec": spec}))
        .await
        .expect(200);
    cluster
        .used(json!({"services": "2", "services.nodeports": "1"}))
        .await;
    cluster
        .merge(&path, json!({"spec": {"type": "ClusterIP"}}))
        .await
        .expect(200);
    cluster
        .used(json!({"services": "2", "services.nodeports": "0"}))
        .await;
}

#[tokio::test]
async fn a_pod_must_say_what_a_quota_limits_and_uses_it_until_it_ends() {
    let cluster = Cluster::start().await;
    cluster
        .limit(quota(
            json!({"pods": "5", "requests.cpu": "1", "memory": "500Mi",
        "requests.example.com/dongle": "3"}),
        ))
        .await;
    let refused = cluster.post(PODS, pod("none")).await;
    assert_eq!(
        refused.message(),
        "pods \"none\" is forbidden: failed quota: q: must specify memory,requests.cpu"
    );
    let requests = json!({"cpu": "500m", "memory": "252Mi", "example.com/dongle": "2"});
    let asked = json!({"requests": requests, "limits": {"example.com/dongle": "2"}});
    cluster
        .post(PODS, asking("a", asked.clone()))
        .await
        .expect(201);
    cluster
        .used(
            json!({"pods": "1", "requests.cpu": "500m", "memory": "252Mi",
        "requests.example.com/dongle": "2"}),
        )
        .await;
    let refused = cluster.post(PODS, asking("b", asked)).await;
    assert!(
        refused.message().ends_with(
            "exceeded quota: q, requested: memory=252Mi,requests.example.com/dongle=2, \
             used: memory=252Mi,requests.example.com/dongle=2, \
             limited: memory=500Mi,requests.example.com/dongle=3"
        ),
        "{}",
        refused.message()
    );
    let ended = json!({"status": {"phase": "Failed"}});
    cluster
        .merge(&format!("{PODS}/a/status"), ended)
        .await
        .expect(200);
    cluster
        .used(json!({"pods": "0", "requests.cpu": "0", "memory": "0",
        "requests.example.com/dongle": "0"}))
        .await;
}

#[tokio::test]
async fn a_quota_that_changes_is_counted_anew() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    cluster.limit(quota(json!({"secrets": "1"}))).await;
    let path = format!("{QUOTAS}/q");
    cluster
        .merge(
            &path,
            json!({"spec": {"hard": {"secrets": null, "configmaps": "1"}}}),
        )
        .await
        .expect(200);
    cluster.used(json!({"configmaps": "1"})).await;
    cluster.post(CONFIG_MAPS, config_map("b")).await.expect(403);
    cluster.delete(&path).await.expect(200);
    cluster.post(CONFIG_MAPS, config_map("b")).await.expect(201);
}

#[tokio::test]
async fn a_quota_of_a_priority_class_limits_its_pods_also_by_the_default_class() {
    let cluster = Cluster::start().await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "usual"}, "value": 7, "globalDefault": true,
        "preemptionPolicy": "Never"});
    cluster.post(CLASSES, class.clone()).await.expect(201);
    let mut other = class;
    other["metadata"]["name"] = "other".into();
    let refused = cluster.post(CLASSES, other).await;
    assert!(
        refused.message().ends_with(
            "PriorityClass usual is already marked as default. Only one default can exist"
        ),
        "{}",
        refused.message()
    );
    let mut of_class = quota(json!({"pods": "1"}));
    of_class["spec"]["scopeSelector"] = json!({"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["usual"]}]});
    cluster.limit(of_class).await;
    let made = cluster.post(PODS, pod("a")).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(
        [
            &spec["priorityClassName"],
            &spec["priority"],
            &spec["preemptionPolicy"]
        ],
        [&json!("usual"), &json!(7), &json!("Never")]
    );
    cluster.post(PODS, pod("b")).await.expect(403);
    let mut critical = pod("c");
    critical["spec"]["priorityClassName"] = "system-node-critical".into();
    cluster.post(PODS, critical).await.expect(201);
}

#[tokio::test]
async fn the_systems_priority_classes_are_there_and_stay() {
    let cluster = Cluster::start().await;
    for (name, value) in [
        ("system-node-critical", 2_000_001_000),
        ("system-cluster-critical", 2_000_000_000),
    ] {
        let path = format!("{CLASSES}/{name}");
        assert_eq!(cluster.get(&path).await.expect(200)["value"], value);
        let refused = cluster.delete(&path).await;
        assert!(
            refused
                .message()
                .ends_with("this is a system priority class and cannot be deleted")
        );
        refused.expect(403);
    }
    let mut wrong = pod("a");
    wrong["spec"]["priority"] = 5.into();
    let refused = cluster.post(PODS, wrong).await;
    assert_eq!(
        refused.message(),
        "pods \"a\" is forbidden: the integer value of priority (5) must not be provided in pod spec; \
         priority admission controller computed 0 from the given PriorityClass name"
    );
}

#[tokio::test]
async fn a_limit_range_gives_and_refuses() {
    let cluster = Cluster::start().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container",
            "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
            "default": {"cpu": "500m", "memory": "500Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}]}});
    cluster.post(LIMIT_RANGES, range).await.expect(201);
    let made = cluster.post(PODS, pod("none")).await.expect(201);
    let resources = |pod: &Value| pod["spec"]["containers"][0]["resources"].clone();
    assert_eq!(
        resources(&made),
        json!({"requests": {"cpu": "100m", "memory": "200Mi"},
            "limits": {"cpu": "500m", "memory": "500Mi"}})
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    // A limit is a request unless there is one.
    let partial = json!({"requests": {"memory": "150Mi"}, "limits": {"cpu": "300m"}});
    let made = cluster
        .post(PODS, asking("partial", partial))
        .await
        .expect(201);
    assert_eq!(
        resources(&made),
        json!({"requests": {"cpu": "300m", "memory": "150Mi"},
            "limits": {"cpu": "300m", "memory": "500Mi"}})
    );
    let small = asking(
        "small",
        json!({"requests": {"cpu": "10m", "memory": "50Mi"}}),
    );
    let refused = cluster.post(PODS, small.clone()).await;
    assert_eq!(
        refused.message(),
        "pods \"small\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, \
         minimum memory usage per Container is 100Mi, but request is 50Mi]"
    );
    refused.expect(403);
    cluster
        .delete(&format!("{LIMIT_RANGES}/l"))
        .await
        .expect(200);
    cluster.post(PODS, small).await.expect(201);
}
