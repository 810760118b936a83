//! Programs in pods: they find the API server and their token as every such program does.
//!
//! No image is made for them. The one of kube-rs is this test's own binary, which the pod mounts; the one of the
//! Python client finds its packages in the environment that the transcripts use.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tests::clients::python;
use tests::cluster::{Cluster, Kubectl, wait, workspace};
use tests::prog::skipped;

/// The name by which the test's binary is the program.
const PROGRAM: &str = "line-counter";
const SOURCE: &str = "lines=wanted";

/// Runs the program if this process was started for that.
pub fn as_program() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    if Path::new(&name).file_name()? != PROGRAM {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    runtime.block_on(count_lines());
    Some(ExitCode::SUCCESS)
}

/// Keeps for each config map that wants it another one with the number of its lines.
async fn count_lines() {
    let client = Client::try_default().await.expect("it runs in a pod");
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    match secrets.list(&Default::default()).await {
        Err(kube::Error::Api(status)) => println!("secrets: {} {}", status.code, status.reason),
        other => println!("secrets: {other:?}"),
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let wanted = watcher::Config::default().labels(SOURCE);
    let controller = Controller::new(maps.clone(), wanted)
        .owns(maps, watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(200)),
            Arc::new(client),
        );
    controller
        .for_each(|result| async move { println!("{result:?}") })
        .await;
}

async fn reconcile(source: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let lines: usize = source
        .data
        .iter()
        .flatten()
        .map(|(_, it)| it.lines().count())
        .sum();
    let counted = ConfigMap {
        metadata: kube::api::ObjectMeta {
            name: Some(format!("{}-counted", source.name_any())),
            owner_references: source.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..Default::default()
        },
        data: Some(BTreeMap::from([("lines".to_owned(), lines.to_string())])),
        ..Default::default()
    };
    let maps: Api<ConfigMap> = Api::default_namespaced((*client).clone());
    let by = PatchParams::apply(PROGRAM).force();
    maps.patch(&counted.name_any(), &by, &Patch::Apply(&counted))
        .await?;
    Ok(Action::await_change())
}

pub fn kube_rs(cluster: &Cluster) {
    let kubectl = cluster.client().unwrap();
    let program = env::current_exe().unwrap();
    let file = json!({"path": program, "type": "File"});
    let command = [format!("/program/{PROGRAM}")];
    may(
        &kubectl,
        PROGRAM,
        &["configmaps"],
        &["get", "list", "watch", "create", "patch"],
    );
    let pod = pod(
        PROGRAM,
        "tools",
        &command,
        &json!({"hostPath": file}),
        command[0].as_str(),
    );
    kubectl.given("create", &pod).unwrap();
    let source = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "poem", "labels": {"lines": "wanted"}},
        "data": {"first": "a\nb\n", "second": "c"}});
    kubectl.given("create", &source).unwrap();
    counted(&kubectl, "3");
    kubectl.run("delete configmap poem-counted").unwrap();
    counted(&kubectl, "3");
    kubectl
        .args(&[
            "patch",
            "configmap",
            "poem",
            "-p",
            r#"{"data":{"second":null}}"#,
        ])
        .unwrap();
    counted(&kubectl, "2");
    // Its rights are its account's, and it says what it met.
    let log = kubectl.run(&format!("logs {PROGRAM}")).unwrap();
    assert!(log.contains("secrets: 403 Forbidden"), "{log}");
    kubectl.run("delete configmap poem").unwrap();
    wait("what the config map owned is gone", || {
        Ok(kubectl
            .run("get configmap poem-counted")
            .is_err()
            .then_some(()))
    });
    kubectl.run(&format!("delete pod {PROGRAM} --now")).unwrap();
}

fn counted(kubectl: &Kubectl, lines: &str) {
    wait("the lines are counted", || {
        let found = kubectl.field("configmap poem-counted", "/data/lines")?;
        Ok((found == lines).then_some(()))
    });
}

pub fn python_client(cluster: &Cluster) {
    let Some(python) = python() else {
        skipped(
            "the Python client in a pod",
            "run `cargo xtask test sim` once",
        );
        return;
    };
    let kubectl = cluster.client().unwrap();
    let name = "python-client";
    let environment = python.parent().and_then(Path::parent).unwrap();
    let text = std::fs::read_to_string(workspace().join("tests/clients/in_pod.py")).unwrap();
    let command = ["python3", "-u", "-c", &text].map(str::to_owned);
    may(
        &kubectl,
        name,
        &["pods", "pods/exec", "pods/log", "configmaps"],
        &["*"],
    );
    let volume = json!({"hostPath": {"path": environment, "type": "Directory"}});
    kubectl
        .given(
            "create",
            &pod(name, "django", &command, &volume, "/environment"),
        )
        .unwrap();
    let log = wait("the program has ended", || {
        let phase = kubectl.field(&format!("pod {name}"), "/status/phase")?;
        let ended = phase == "Succeeded" || phase == "Failed";
        Ok(ended.then(|| kubectl.run(&format!("logs {name}"))))
    });
    let log = log.unwrap();
    let said = [
        "incluster https",
        "watched ADDED MODIFIED DELETED",
        "exec said 42",
        "log has incluster",
        "secrets 403 Forbidden",
    ];
    for line in said {
        assert!(
            log.lines().any(|it| it.starts_with(line)),
            "no {line:?} in {log}"
        );
    }
    kubectl.run(&format!("delete pod {name} --now")).unwrap();
}

/// An account of that name, which may this in the namespace.
fn may(kubectl: &Kubectl, name: &str, resources: &[&str], verbs: &[&str]) {
    let rules = json!([{"apiGroups": [""], "resources": resources, "verbs": verbs}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name}, "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]},
    ]});
    kubectl.given("create", &objects).unwrap();
}

/// A pod with its name's account, that runs the command once with a volume at `place`.
fn pod(
    name: &str,
    image: &str,
    command: &[String],
    volume: &serde_json::Value,
    place: &str,
) -> serde_json::Value {
    let mut volume = volume.clone();
    volume["name"] = json!("program");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "serviceAccountName": name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent",
            "command": command,
            "env": [{"name": "PYTHONPATH",
                "value": "/environment/lib/python3.11/site-packages"}],
            "volumeMounts": [{"name": "program", "mountPath": place, "readOnly": true}]}],
        "volumes": [volume]}})
}
