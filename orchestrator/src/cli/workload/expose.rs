//! `orchestrator expose`

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{self, Cluster},
    create::create,
};

/// Make a Service in front of a workload
///
/// Examples:
///   orchestrator expose deployment web --port=8080 --target-port=80
///   orchestrator expose rc/my-nginx --port=80 --type=NodePort
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Expose {
    /// TYPE NAME or TYPE/NAME of a deployment, replicaset, replicationcontroller, service or pod
    #[arg(required = true)]
    what: Vec<String>,
    /// The Service's port; without it the port of the first container
    #[arg(long)]
    port: Option<u16>,
    /// The pods' port or its name; without it the same as --port
    #[arg(long)]
    target_port: Option<String>,
    #[arg(long, default_value = "TCP", value_parser = ["TCP", "UDP", "SCTP"])]
    protocol: String,
    #[arg(long = "type", default_value = "ClusterIP",
          value_parser = ["ClusterIP", "NodePort", "LoadBalancer"])]
    kind: String,
    /// The Service's name; without it the workload's
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Expose {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let (object, name) = self.workload(&cluster).await?;
        let spec = &object["spec"];
        let selector = match object["kind"].as_str() {
            Some("Pod") => &object["metadata"]["labels"],
            Some("Service" | "ReplicationController") => &spec["selector"],
            Some("Deployment" | "ReplicaSet") => &spec["selector"]["matchLabels"],
            kind => bail!("cannot expose a {}", kind.unwrap_or("nameless kind")),
        };
        if selector.as_object().is_none_or(serde_json::Map::is_empty) {
            bail!("{name} has no labels that a Service could select");
        }
        let port = match self.port {
            Some(port) => port,
            None => container_port(&object).context("say --port: no container names one")?,
        };
        let target = self
            .target_port
            .map_or(json!(port), |text| match text.parse::<u16>() {
                Ok(number) => json!(number),
                Err(_) => json!(text),
            });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name.unwrap_or(name), "labels": object["metadata"]["labels"]},
            "spec": {
                "type": self.kind,
                "selector": selector,
                "ports": [{"port": port, "targetPort": target, "protocol": self.protocol}],
            },
        });
        create(&cluster, &service).await
    }

    async fn workload(&self, cluster: &Cluster) -> Result<(Value, String)> {
        match &cluster::targets(&self.what)?[..] {
            [(resource, Some(name))] => Ok((
                cluster.get(&cluster.path(resource, Some(name))).await?,
                name.clone(),
            )),
            _ => bail!("say one workload: TYPE NAME or TYPE/NAME"),
        }
    }
}

fn container_port(object: &Value) -> Option<u16> {
    let pod = match object["kind"].as_str() {
        Some("Pod") => &object["spec"],
        _ => &object["spec"]["template"]["spec"],
    };
    let port = pod["containers"][0]["ports"][0]["containerPort"].as_u64()?;
    u16::try_from(port).ok()
}
