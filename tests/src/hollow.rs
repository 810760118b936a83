//! API server, controllers and scheduler in one process, and one node that only says that its pods run: enough
//! for what clients see of workloads, and no container anywhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, ServerConfig};
use controllers::ControllersConfig;
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use store::MemoryStore;
use sys::{Shutdown, Tasks};

/// For what takes a moment, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what is to come about.
const LOOK: Duration = Duration::from_millis(20);

/// The namespace that is there, with its account.
pub const NAMESPACE: &str = "work";

/// The cluster; its tasks end with the runtime of the test.
#[derive(Clone)]
pub struct Hollow {
    client: Client,
}

impl Hollow {
    pub async fn start() -> Self {
        let tasks = Tasks::new(Shutdown::new());
        let store = Arc::new(MemoryStore::default());
        let server = ApiServer::build(ServerConfig::default(), store, None, tasks).await;
        let server = server.expect("a server");
        let config = ControllersConfig {
            pod_ranges: Vec::new(),
            load_balancer_pool: Vec::new(),
            root_ca: "a certificate".to_owned(),
            finished_pods_kept: 0,
        };
        let of_server = server.clone();
        let client_of = move |user: &str| of_server.component(user);
        tokio::spawn(controllers::run(
            client_of,
            config,
            Default::default(),
            Default::default(),
        ));
        let scheduler = server.component("system:kube-scheduler");
        tokio::spawn(scheduler::run(
            scheduler,
            Default::default(),
            Default::default(),
            Default::default(),
        ));
        let hollow = Self {
            client: server.client("test"),
        };
        hollow.add_node("one").await;
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        hollow.make("/api/v1/namespaces", namespace).await;
        let account = path("", "serviceaccounts/default");
        hollow.wait(&account, |account| !account.is_null()).await;
        tokio::spawn(hollow.clone().run_pods());
        hollow
    }

    /// One request; a PATCH is a merge patch.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("content-type", kind)
            .body(body.to_string().into_bytes());
        self.client.request(request.expect("a request")).await
    }

    /// The same, which has to succeed.
    pub async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, &body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub async fn make(&self, path: &str, object: Value) -> Value {
        self.must("POST", path, object).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.must("GET", path, Value::Null).await
    }

    /// Waits until what is at a path is so; null is nothing.
    pub async fn wait(&self, path: &str, is: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.call("GET", path, &Value::Null).await;
            let found = found.unwrap_or_default();
            if is(&found) {
                return found;
            }
            assert!(Instant::now() < end, "{path}: {found:#}");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn add_node(&self, name: &str) {
        let labels = json!({"kubernetes.io/hostname": name});
        let node = json!({"metadata": {"name": name, "labels": labels}});
        self.make("/api/v1/nodes", node).await;
        let amounts = json!({"cpu": "8", "memory": "8Gi", "pods": "110"});
        let status = json!({"status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let path = format!("/api/v1/nodes/{name}/status");
        self.must("PATCH", &path, status).await;
    }

    /// The node's part: a pod that is bound runs, one that is told to end is gone.
    async fn run_pods(self) {
        loop {
            let pods = self.call("GET", &path("", "pods"), &Value::Null).await;
            for pod in items(&pods.unwrap_or_default()) {
                self.run_pod(pod).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn run_pod(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let at = path("", &format!("pods/{name}"));
        if pod["spec"]["nodeName"].is_null() {
            return;
        }
        // Whoever is quicker: the pod may be gone or another one by now.
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let uid = json!({"uid": pod["metadata"]["uid"]});
            let at_once = json!({"gracePeriodSeconds": 0, "preconditions": uid});
            let _ = self.call("DELETE", &at, &at_once).await;
        } else if pod["status"]["phase"] == "Pending" {
            let ready = json!({"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let status = json!({"phase": "Running", "conditions": [ready]});
            let body = json!({"metadata": {"uid": pod["metadata"]["uid"]}, "status": status});
            let _ = self.call("PATCH", &format!("{at}/status"), &body).await;
        }
    }
}

/// The path of a collection or an object of a group in the namespace; the core group has no name.
pub fn path(group: &str, rest: &str) -> String {
    let root = match group {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/v1"),
    };
    format!("{root}/namespaces/{NAMESPACE}/{rest}")
}

pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}
