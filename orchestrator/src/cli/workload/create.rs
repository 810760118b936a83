//! `orchestrator create`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{Cluster, Payload},
    get::full_name,
    manifest,
};

/// Create objects from files, or a few kinds from words
///
/// Examples:
///   orchestrator create -f manifests/nginx.yaml
///   orchestrator create namespace development
///   orchestrator create deployment web --image=nginx --replicas=3 --port=80
#[derive(Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Create {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(long, short)]
    filename: Vec<PathBuf>,
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Subcommand)]
enum Kind {
    /// A namespace
    #[command(alias = "ns")]
    Namespace { name: String },
    /// A deployment of one container
    #[command(alias = "deploy")]
    Deployment {
        name: String,
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 1)]
        replicas: u32,
        /// The port that the container serves
        #[arg(long)]
        port: Option<u16>,
    },
}

impl Create {
    pub async fn run(self) -> Result<()> {
        let objects = match (self.kind, self.filename.as_slice()) {
            (Some(kind), _) => vec![kind.object()],
            (None, []) => bail!("say what to create: -f FILE, namespace NAME or deployment NAME"),
            (None, files) => manifest::read(files)?,
        };
        let cluster = self.cluster.connect().await?;
        for object in objects {
            create(&cluster, &object).await?;
        }
        Ok(())
    }
}

/// Creates one object and says so.
pub async fn create(cluster: &Cluster, object: &Value) -> Result<()> {
    let path = manifest::path_of(object, cluster, false)? + "?fieldValidation=Strict";
    let created = cluster
        .call(Method::POST, &path, Payload::Json(object))
        .await?;
    println!("{} created", full_name(&created)?);
    Ok(())
}

impl Kind {
    fn object(self) -> Value {
        match self {
            Self::Namespace { name } => {
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            }
            Self::Deployment {
                name,
                image,
                replicas,
                port,
            } => {
                let labels = json!({"app": name});
                // An image's last path element without tag and digest, as kubectl names it.
                let container = image.rsplit('/').next().unwrap_or(&image);
                let container = container.split([':', '@']).next().unwrap_or(container);
                let mut container = json!({"name": container, "image": image});
                if let Some(port) = port {
                    container["ports"] = json!([{"containerPort": port}]);
                }
                json!({
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": name, "labels": labels},
                    "spec": {
                        "replicas": replicas,
                        "selector": {"matchLabels": labels},
                        "template": {
                            "metadata": {"labels": labels},
                            "spec": {"containers": [container]},
                        },
                    },
                })
            }
        }
    }
}
