//! 150,000 pods: what holding and listing them costs our server.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::connection::{Ask, Target};
use super::load::drive_with;
use super::side::Side;
use super::table::Row;
use crate::cluster::kubectls;

const PODS: usize = 150_000;
const NAMESPACES: usize = 100;
const IN_FLIGHT: usize = 32;
const MIB: f64 = 1024.0 * 1024.0;
/// Between the last write and a look at the memory.
const REST: Duration = Duration::from_secs(5);

/// Makes the pods and measures; `pods` is less than all of them in a short run.
pub async fn rows(side: &Side, short: bool) -> Result<Vec<Row>> {
    let pods = if short { PODS / 10 } else { PODS };
    let target = side.target()?;
    let mut connection = target.connect().await?;
    for number in 0..NAMESPACES {
        let name = namespace(number);
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        connection
            .good(Ask::post("/api/v1/namespaces", body))
            .await?;
    }
    let made = drive_with(&target, IN_FLIGHT, pods, |number| {
        let path = format!("/api/v1/namespaces/{}/pods", namespace(number));
        Ask::post(path, pod(number))
    })
    .await?;
    eprintln!("{pods} pods made, {:.0}/s", made.per_second);
    tokio::time::sleep(REST).await;
    let held = side.memory_bytes()?;
    let (seconds, peak) = list(side, &target).await?;
    let patient = kubectl(side, pods, &[])?;
    let pages = kubectl(side, pods, &["--chunk-size=10000"])?;
    let extra = peak.saturating_sub(held) as f64 / MIB;
    Ok(vec![
        Row::alone("150,000 pods held", "MiB", held as f64 / MIB, Some(1024.0)),
        Row::alone("LIST of them", "s", seconds, Some(5.0)),
        Row::alone("memory that the LIST takes", "MiB", extra, Some(64.0)),
        Row::alone(
            "kubectl get pods -A --chunk-size=10000 of them",
            "s",
            pages,
            Some(10.0),
        ),
        // The client itself waits: it asks five times a second, and its pages are of 500.
        Row::alone(
            "the same in kubectl's own pages, 300 of them",
            "s",
            patient,
            None,
        ),
    ])
}

/// Seconds of one LIST, and the server's memory at its height.
async fn list(side: &Side, target: &Target) -> Result<(f64, u64)> {
    let mut connection = target.connect().await?;
    let began = Instant::now();
    let listed = connection.drain(Ask::get("/api/v1/pods"));
    tokio::pin!(listed);
    let mut peak = 0;
    loop {
        tokio::select! {
            bytes = &mut listed => {
                let bytes = bytes?;
                eprintln!("the list has {:.0} MiB", bytes as f64 / MIB);
                return Ok((began.elapsed().as_secs_f64(), peak));
            }
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                peak = peak.max(side.memory_bytes()?);
            }
        }
    }
}

/// Seconds of the newest kubectl, which asks in pages.
fn kubectl(side: &Side, pods: usize, options: &[&str]) -> Result<f64> {
    let (_, program) = kubectls().pop().context("no kubectl is on this machine")?;
    let began = Instant::now();
    let output = Command::new(program)
        .arg("--kubeconfig")
        .arg(side.kubeconfig())
        .args(["get", "pods", "--all-namespaces", "--no-headers"])
        .args(options)
        .stderr(Stdio::inherit())
        .output()?;
    let seconds = began.elapsed().as_secs_f64();
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    ensure!(lines == pods, "kubectl shows {lines} of {pods} pods");
    Ok(seconds)
}

fn namespace(number: usize) -> String {
    format!("large-{}", number % NAMESPACES)
}

/// A pod as a chart makes it. No scheduler of that name runs: what is measured is the API server.
fn pod(number: usize) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("web-{number}"),
            "labels": {
                "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "bench",
                "pod-template-hash": "5d4f8c7b9",
            },
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        },
        "spec": {
            "schedulerName": "none",
            "containers": [{
                "name": "web", "image": "registry.example/team/web:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "LEVEL", "value": "info"}, {"name": "MODE", "value": "production"}],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"},
                },
                "livenessProbe": probe, "readinessProbe": probe,
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}],
        },
    })
}
