//! Namespaces that end, with the server, its store on a disk, and the controllers in one process: pods
//! go before what protects them, a thousand objects go quickly, and a quota holds whoever deletes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, ServerConfig};
use controllers::ControllersConfig;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::EmbeddedStore;
use sys::{Shutdown, Tasks};

/// For a thousand objects, on a loaded machine and without optimisation; alone it is less than two seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects that are made side by side.
const AT_ONCE: usize = 32;

struct Cluster {
    server: ApiServer,
    shutdown: Shutdown,
    _directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(&directory.path().join("store")).expect("a store");
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let server = ApiServer::build(ServerConfig::default(), Arc::new(store), None, tasks);
        let server = server.await.expect("a server");
        let config = ControllersConfig {
            pod_ranges: Vec::new(),
            load_balancer_pool: Vec::new(),
            root_ca: String::new(),
            finished_pods_kept: 12_500,
        };
        let stop = shutdown.clone();
        let of_server = server.clone();
        let client_of = move |user: &str| of_server.component(user);
        let running = controllers::run(client_of, config, Default::default(), Default::default());
        tokio::spawn(async move { stop.unless(running).await });
        Self {
            server,
            shutdown,
            _directory: directory,
        }
    }

    fn client(&self) -> Client {
        self.server.client("test")
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client())
    }

    async fn namespace(&self, name: &str) {
        let namespace = made(json!({"metadata": {"name": name}}));
        let namespaces = self.namespaces();
        let made = namespaces.create(&PostParams::default(), &namespace).await;
        made.expect("a namespace");
    }

    /// Makes many objects of a kind, called after their number.
    async fn fill<K>(&self, namespace: &str, count: usize, object: impl Fn(String) -> Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let objects = (0..count).map(|number| made::<K>(object(format!("o{number}"))));
        let creates = objects.map(|object| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &object).await.map(drop) }
        });
        let made: Vec<_> = futures::stream::iter(creates)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        made.into_iter().for_each(|made| made.expect("an object"));
    }

    /// How long the namespace takes to go.
    async fn end(&self, namespace: &str) -> Duration {
        let namespaces = self.namespaces();
        let started = Instant::now();
        let deleted = namespaces.delete(namespace, &DeleteParams::default()).await;
        deleted.expect("a deletion");
        while namespaces
            .get_opt(namespace)
            .await
            .expect("an answer")
            .is_some()
        {
            assert!(started.elapsed() < PATIENCE, "{namespace} does not go");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        started.elapsed()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn made<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("an object of the kind")
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_objects_go_with_their_namespace() {
    let cluster = Cluster::start().await;
    cluster.namespace("full").await;
    let named = |name: String| json!({"metadata": {"name": name}});
    cluster.fill::<ConfigMap>("full", 400, named).await;
    cluster.fill::<Secret>("full", 300, named).await;
    cluster.fill::<Pod>("full", 300, |name| pod(&name)).await;
    let took = cluster.end("full").await;
    println!(
        "a namespace of 1,000 objects went in {} ms",
        took.as_millis()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_protects_pods_outlives_them() {
    let cluster = Cluster::start().await;
    cluster.namespace("kept").await;
    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "kept");
    let made_pod = pods.create(&PostParams::default(), &made(held)).await;
    made_pod.expect("a pod");
    cluster
        .fill::<ConfigMap>("kept", 1, |name| json!({"metadata": {"name": name}}))
        .await;
    let namespaces = cluster.namespaces();
    let deleted = namespaces.delete("kept", &DeleteParams::default()).await;
    deleted.expect("a deletion");
    // It says what it waits for, some seconds later.
    let started = Instant::now();
    loop {
        let found = namespaces.get("kept").await.expect("it is there");
        let conditions = found.status.and_then(|status| status.conditions);
        if conditions
            .is_some_and(|all| all.iter().any(|it| it.type_ == "NamespaceContentRemaining"))
        {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "no condition");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "kept");
    let left = maps.get("o0").await.expect("what is left");
    assert!(left.metadata.deletion_timestamp.is_none());
    let free = json!({"metadata": {"finalizers": null}});
    let freed = pods
        .patch("held", &Default::default(), &kube::api::Patch::Merge(free))
        .await;
    freed.expect("a patch");
    while namespaces
        .get_opt("kept")
        .await
        .expect("an answer")
        .is_some()
    {
        assert!(started.elapsed() < PATIENCE, "it does not go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
