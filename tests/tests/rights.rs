//! The whole control plane in one process, each part with the rights of its own roles and no more: it
//! does all of its work, and nothing of it is refused.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apiserver::{ApiServer, ServerConfig, User};
use controllers::ControllersConfig;
use http::{Request, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use store::MemoryStore;
use sys::{Shutdown, Tasks};
use tower::ServiceExt;

/// For what takes a moment, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was refused, and to whom.
type Refused = Arc<Mutex<Vec<String>>>;

/// A client of the server under a name, which notes what it is refused.
fn client(server: &ApiServer, user: &str, refused: &Refused) -> Client {
    let (router, component) = (server.router(), User::component(user));
    let (user, refused) = (user.to_owned(), refused.clone());
    let service = tower::service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(component.clone());
        let what = format!("{user}: {} {}", request.method(), request.uri());
        let (router, refused) = (router.clone(), refused.clone());
        async move {
            let answer = router.oneshot(request).await?;
            if answer.status() == StatusCode::FORBIDDEN {
                refused.lock().expect("whole").push(what);
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    Client::new(service, "default")
}

struct Admin(Client);

impl Admin {
    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("content-type", kind)
            .body(body.to_string().into_bytes());
        self.0.request(request.expect("a request")).await
    }

    async fn make(&self, path: &str, object: Value) {
        let made = self.call("POST", path, &object).await;
        made.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Waits until what is at a path is so.
    async fn wait(&self, path: &str, is: impl Fn(Option<&Value>) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.call("GET", path, &Value::Null).await.ok();
            if is(found.as_ref()) {
                return;
            }
            assert!(Instant::now() < end, "{path}: {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn items(list: Option<&Value>) -> &[Value] {
    let items = list.and_then(|list| list["items"].as_array());
    items.map_or(&[], Vec::as_slice)
}

fn core(plural: &str) -> String {
    format!("/api/v1/namespaces/work/{plural}")
}

async fn make_node(admin: &Admin) {
    admin
        .make("/api/v1/nodes", json!({"metadata": {"name": "one"}}))
        .await;
    let ready = json!({"status": {
        "capacity": {"cpu": "8", "memory": "8Gi", "pods": "110"},
        "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    admin
        .call("PATCH", "/api/v1/nodes/one/status", &ready)
        .await
        .expect("a node");
}

/// A Deployment with its Service, and a ReplicationController.
async fn make_workloads(admin: &Admin) {
    let deployments = DEPLOYMENTS;
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"app": "web"});
    admin
        .make(
            deployments,
            json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
                "selector": {"matchLabels": selector}, "template": template}}),
        )
        .await;
    let mut own = template.clone();
    own["metadata"]["labels"]["app"] = "old".into();
    admin
        .make(
            &core("replicationcontrollers"),
            json!({"metadata": {"name": "old"}, "spec": {"replicas": 1, "template": own}}),
        )
        .await;
    admin
        .make(
            &core("services"),
            json!({"metadata": {"name": "web"}, "spec": {"selector": selector,
                "ports": [{"port": 80}]}}),
        )
        .await;
}

/// A StatefulSet whose claims it owns, and a DaemonSet.
async fn make_sets(admin: &Admin) {
    let spec = |app: &str| {
        json!({"selector": {"matchLabels": {"app": app}}, "template": {
            "metadata": {"labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}})
    };
    let mut stateful = spec("db");
    stateful["podManagementPolicy"] = "Parallel".into();
    stateful["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete"});
    stateful["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    for (path, name, spec) in [
        (STATEFUL_SETS, "db", stateful),
        (DAEMON_SETS, "log", spec("log")),
    ] {
        admin
            .make(path, json!({"metadata": {"name": name}, "spec": spec}))
            .await;
    }
    admin.wait(&core("pods/db-0"), |pod| pod.is_some()).await;
    let desired =
        |set: Option<&Value>| set.is_some_and(|set| set["status"]["desiredNumberScheduled"] == 1);
    admin.wait(&format!("{DAEMON_SETS}/log"), desired).await;
    let keep = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}});
    let set = format!("{STATEFUL_SETS}/db");
    admin.call("PATCH", &set, &keep).await.expect("written");
    let kept = |claim: Option<&Value>| {
        claim.is_some_and(|claim| claim["metadata"]["ownerReferences"].is_null())
    };
    let claim = core("persistentvolumeclaims/data-db-0");
    admin.wait(&claim, kept).await;
    let background = json!({"propagationPolicy": "Background"});
    for set in [set, format!("{DAEMON_SETS}/log")] {
        admin
            .call("DELETE", &set, &background)
            .await
            .expect("deleted");
    }
    let gone = |pods: Option<&Value>| {
        let named = |pod: &Value| pod["metadata"]["labels"]["app"].clone();
        let mut pods = items(pods).iter();
        !pods.any(|pod| {
            let left = pod["metadata"]["deletionTimestamp"].is_null();
            left && (named(pod) == "db" || named(pod) == "log")
        })
    };
    admin.wait(&core("pods"), gone).await;
}

const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/work/statefulsets";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/work/daemonsets";

async fn end_namespace(admin: &Admin, refused: &Refused) {
    // No agent confirms that they have ended.
    let at_once = json!({"gracePeriodSeconds": 0});
    admin
        .call("DELETE", "/api/v1/namespaces/work", &json!({}))
        .await
        .expect("deleted");
    let end = Instant::now() + PATIENCE;
    while admin
        .call("GET", "/api/v1/namespaces/work", &Value::Null)
        .await
        .is_ok()
    {
        let pods = admin.call("GET", &core("pods"), &Value::Null).await.ok();
        for pod in items(pods.as_ref()) {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let _ = admin
                .call("DELETE", &core(&format!("pods/{name}")), &at_once)
                .await;
        }
        assert!(
            Instant::now() < end,
            "the namespace stays: {:?}",
            refused.lock()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes a namespace, which is given an account and the root certificate, and that again when it is changed.
async fn make_namespace(admin: &Admin) {
    admin
        .make("/api/v1/namespaces", json!({"metadata": {"name": "work"}}))
        .await;
    admin
        .wait(&core("serviceaccounts/default"), |account| {
            account.is_some()
        })
        .await;
    let root_ca = core("configmaps/kube-root-ca.crt");
    let is_told =
        |map: Option<&Value>| map.is_some_and(|map| map["data"]["ca.crt"] == "a certificate");
    admin.wait(&root_ca, is_told).await;
    let wrong = json!({"data": {"ca.crt": "another"}});
    admin
        .call("PATCH", &root_ca, &wrong)
        .await
        .expect("written");
    admin.wait(&root_ca, is_told).await;
}

/// A budget of the Deployment, and a CronJob whose Job is due, runs, ends and goes.
async fn run_a_batch(admin: &Admin) {
    let budgets = "/apis/policy/v1/namespaces/work/poddisruptionbudgets";
    let selector = json!({"matchLabels": {"app": "web"}});
    let spec = json!({"maxUnavailable": 1, "selector": selector});
    let budget = json!({"metadata": {"name": "web"}, "spec": spec});
    admin.make(budgets, budget).await;
    let counted =
        |object: Option<&Value>| object.is_some_and(|it| it["status"]["expectedPods"] == 2);
    admin.wait(&format!("{budgets}/web"), counted).await;

    let batch = |plural: &str| format!("/apis/batch/v1/namespaces/work/{plural}");
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let job = json!({"spec": {"ttlSecondsAfterFinished": 0, "template": {"spec": pod}}});
    let yearly = json!({"metadata": {"name": "yearly"},
        "spec": {"schedule": "@yearly", "jobTemplate": job}});
    admin.make(&batch("cronjobs"), yearly).await;
    let long_ago = json!({"status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}});
    let status = batch("cronjobs/yearly/status");
    admin.call("PATCH", &status, &long_ago).await.expect("due");
    let pods = core("pods?labelSelector=batch.kubernetes.io/job-name");
    let one = |list: Option<&Value>| items(list).len() == 1;
    admin.wait(&pods, one).await;
    let list = admin.call("GET", &pods, &Value::Null).await;
    let list = list.expect("a list");
    let name = list["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a name");
    let ended = json!({"status": {"phase": "Succeeded"}});
    let status = core(&format!("pods/{name}/status"));
    admin.call("PATCH", &status, &ended).await.expect("ended");
    let none = |list: Option<&Value>| list.is_some() && items(list).is_empty();
    admin.wait(&batch("jobs"), none).await;
    admin.wait(&pods, none).await;
}

async fn shrink_workloads(admin: &Admin) {
    let one = json!({"spec": {"replicas": 1}});
    admin
        .call("PATCH", &format!("{DEPLOYMENTS}/web"), &one)
        .await
        .expect("scaled");
    let background = json!({"propagationPolicy": "Background"});
    let old = core("replicationcontrollers/old");
    admin
        .call("DELETE", &old, &background)
        .await
        .expect("deleted");
    let ended = |pods: Option<&Value>| {
        items(pods)
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .count()
            == 1
    };
    admin.wait(&core("pods"), ended).await;
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/work/deployments";

#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_the_control_plane_is_refused_what_it_does() {
    let tasks = Tasks::new(Shutdown::new());
    let store = Arc::new(MemoryStore::default());
    let server = ApiServer::build(ServerConfig::default(), store, None, tasks).await;
    let server = server.expect("a server");
    let refused = Refused::default();
    let (of_server, seen) = (server.clone(), refused.clone());
    let client_of = move |user: &str| client(&of_server, user, &seen);
    let config = ControllersConfig {
        pod_ranges: Vec::new(),
        load_balancer_pool: Vec::new(),
        root_ca: "a certificate".to_owned(),
        finished_pods_kept: 12_500,
    };
    tokio::spawn(controllers::run(
        client_of,
        config,
        Default::default(),
        Default::default(),
    ));
    let scheduler = client(&server, "system:kube-scheduler", &refused);
    tokio::spawn(scheduler::run(
        scheduler,
        Default::default(),
        Default::default(),
        Default::default(),
    ));
    let admin = Admin(server.client("test"));

    // Aggregated roles are put together.
    let edit = "/apis/rbac.authorization.k8s.io/v1/clusterroles/edit";
    admin
        .wait(edit, |role| {
            role.is_some_and(|role| role["rules"][0].is_object())
        })
        .await;

    make_node(&admin).await;
    make_namespace(&admin).await;
    make_workloads(&admin).await;
    let bound = |list: Option<&Value>| {
        items(list)
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == "one")
            .count()
    };
    admin.wait(&core("pods"), |pods| bound(pods) == 3).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/work/endpointslices";
    admin.wait(slices, |slices| !items(slices).is_empty()).await;
    admin
        .wait(&core("endpoints/web"), |endpoints| endpoints.is_some())
        .await;
    let deployed =
        |object: Option<&Value>| object.is_some_and(|object| object["status"]["replicas"] == 2);
    admin.wait(&format!("{DEPLOYMENTS}/web"), deployed).await;

    run_a_batch(&admin).await;
    make_sets(&admin).await;
    shrink_workloads(&admin).await;
    assert_eq!(*refused.lock().expect("whole"), Vec::<String>::new());
    end_namespace(&admin, &refused).await;
    let refused = refused.lock().expect("whole");
    // Nothing is made in a namespace that ends, whatever rights there are.
    let closed = |what: &&String| what.contains(": POST /") && what.contains("/namespaces/work/");
    let refused: Vec<&String> = refused.iter().filter(|what| !closed(what)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
