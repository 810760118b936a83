//! `orchestrator run`

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{ClusterArgs, create::create};

/// Start one pod with one container
///
/// Examples:
///   orchestrator run web --image=nginx --port=80
///   orchestrator run once --image=tools --restart=Never -- curl http://nginxsvc
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Run {
    name: String,
    #[arg(long)]
    image: String,
    /// The port that the container serves
    #[arg(long)]
    port: Option<u16>,
    /// Labels instead of run=NAME, as `a=b,c=d`
    #[arg(long, short)]
    labels: Option<String>,
    #[arg(long, default_value = "Always", value_parser = ["Always", "OnFailure", "Never"])]
    restart: String,
    /// Arguments of the container, after `--`
    #[arg(last = true)]
    args: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Run {
    pub async fn run(self) -> Result<()> {
        let labels = match &self.labels {
            None => json!({"run": self.name}),
            Some(text) => text
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .collect(),
        };
        let mut container = json!({"name": self.name, "image": self.image});
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !self.args.is_empty() {
            container["args"] = json!(self.args);
        }
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"containers": [container], "restartPolicy": self.restart},
        });
        create(&self.cluster.connect().await?, &pod).await
    }
}
