//! What users do in a round, each time the same: workloads of every kind are made, scaled, changed and removed.

use serde_json::{Value, json};

use crate::api_load::connection::Ask;

const MERGE: &str = "application/merge-patch+json";
/// How often the Job has to succeed.
pub const COMPLETIONS: u64 = 4;
/// The Deployment whose pods follow each other on one volume that only one pod may have.
pub const SINGLE: &str = "single";

/// The steps, in order.
pub fn steps(namespace: &str) -> Vec<Ask> {
    let core = format!("/api/v1/namespaces/{namespace}");
    let apps = format!("/apis/apps/v1/namespaces/{namespace}");
    let batch = format!("/apis/batch/v1/namespaces/{namespace}");
    let metadata = json!({"metadata": {"name": namespace}});
    let claim = json!({"metadata": {"name": SINGLE}, "spec": claim("ReadWriteOncePod")});
    let front = format!("{apps}/deployments/front");
    let keeper = format!("{apps}/statefulsets/keeper");
    let old = format!("{core}/replicationcontrollers/old");
    vec![
        Ask::post("/api/v1/namespaces", metadata),
        Ask::post(format!("{apps}/deployments"), deployment("front", 2)),
        Ask::post(format!("{core}/services"), service("front")),
        Ask::post(format!("{apps}/statefulsets"), stateful_set()),
        Ask::post(format!("{core}/persistentvolumeclaims"), claim),
        Ask::post(format!("{apps}/deployments"), single()),
        Ask::post(format!("{core}/replicationcontrollers"), old_set()),
        Ask::post(format!("{apps}/daemonsets"), daemon_set()),
        Ask::post(format!("{batch}/jobs"), job()),
        Ask::patch(&front, MERGE, json!({"spec": {"replicas": 4}})),
        Ask::patch(&front, MERGE, changed("front")),
        Ask::patch(
            format!("{apps}/deployments/{SINGLE}"),
            MERGE,
            changed(SINGLE),
        ),
        Ask::patch(&keeper, MERGE, json!({"spec": {"replicas": 3}})),
        Ask::delete(format!("{old}?propagationPolicy=Background")),
        Ask::patch(&front, MERGE, json!({"spec": {"replicas": 3}})),
        Ask::patch(&keeper, MERGE, changed("keeper")),
        Ask::patch(format!("{apps}/daemonsets/each"), MERGE, changed("each")),
    ]
}

/// A pod that waits; each version is another one.
fn template(name: &str, version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "main",
                "image": "tools",
                "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "VERSION", "value": version}],
                "resources": {"requests": {"cpu": "1m"}},
            }],
        },
    })
}

/// The second version of a workload.
fn changed(name: &str) -> Value {
    let mut template = template(name, "2");
    if name == SINGLE {
        mount(&mut template, SINGLE);
    }
    if name == "keeper" {
        mount_only(&mut template);
    }
    json!({"spec": {"template": template}})
}

fn deployment(name: &str, replicas: u64) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, "1"),
        },
    })
}

fn single() -> Value {
    let mut object = deployment(SINGLE, 1);
    mount(&mut object["spec"]["template"], SINGLE);
    // The next pod is made before the one that has the volume is gone.
    object["spec"]["strategy"] =
        json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}, "type": "RollingUpdate"});
    object
}

fn stateful_set() -> Value {
    let mut object = deployment("keeper", 2);
    mount_only(&mut object["spec"]["template"]);
    object["spec"]["serviceName"] = "keeper".into();
    let data = json!({"metadata": {"name": "data"}, "spec": claim("ReadWriteOnce")});
    object["spec"]["volumeClaimTemplates"] = json!([data]);
    object
}

fn old_set() -> Value {
    let mut object = deployment("old", 2);
    object["spec"]["selector"] = json!({"app": "old"});
    object
}

fn daemon_set() -> Value {
    let mut object = deployment("each", 1);
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    object
}

fn job() -> Value {
    let mut template = template("work", "1");
    template["spec"]["containers"][0]["command"] = json!(["sleep", "1"]);
    template["spec"]["restartPolicy"] = "Never".into();
    json!({
        "metadata": {"name": "work"},
        "spec": {
            // A pod that is killed does not count against it.
            "backoffLimit": 1000,
            "parallelism": 2,
            "completions": COMPLETIONS,
            "template": template,
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

fn claim(mode: &str) -> Value {
    json!({"accessModes": [mode], "resources": {"requests": {"storage": "16Mi"}}})
}

fn mount(template: &mut Value, claim: &str) {
    mount_only(template);
    let source = json!({"claimName": claim});
    template["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": source}]);
}

fn mount_only(template: &mut Value) {
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    template["spec"]["containers"][0]["volumeMounts"] = mounts;
}
