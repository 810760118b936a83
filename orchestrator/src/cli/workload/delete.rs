//! `orchestrator delete`

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{self, Cluster, Payload},
    get::qualified_singular,
    manifest,
};
use api::Resource;

/// Delete objects by file, by name or by label, and wait until they are gone
///
/// Examples:
///   orchestrator delete pod nginx
///   orchestrator delete -f manifests/nginxsvc.yaml
///   orchestrator delete pods -l app=nginx --wait=false
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Delete {
    /// TYPE NAME… or TYPE/NAME…
    what: Vec<String>,
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(long, short, conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// Every object whose labels match
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Every object of the type in the namespace
    #[arg(long)]
    all: bool,
    /// Seconds for the pods to end by themselves; 0 is at once
    #[arg(long)]
    grace_period: Option<u32>,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// No error if there is nothing of that name
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Delete {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let targets = self.targets(&cluster).await?;
        let mut deleted = Vec::new();
        for (resource, name, path) in targets {
            let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                                     "propagationPolicy": "Background"});
            if let Some(seconds) = self.grace_period {
                options["gracePeriodSeconds"] = json!(seconds);
            }
            let before = cluster.find(&path).await?;
            if before.is_none() && self.ignore_not_found {
                continue;
            }
            cluster
                .call(Method::DELETE, &path, Payload::Json(&options))
                .await?;
            println!("{} \"{name}\" deleted", qualified_singular(resource));
            let uid = before.map(|object| object["metadata"]["uid"].clone());
            deleted.push((path, uid.unwrap_or_default()));
        }
        if self.wait {
            for (path, uid) in deleted {
                gone(&cluster, &path, &uid).await?;
            }
        }
        Ok(())
    }

    /// Resource, name and path of all that is to go.
    async fn targets(&self, cluster: &Cluster) -> Result<Vec<(&'static Resource, String, String)>> {
        if !self.filename.is_empty() {
            let objects = manifest::read(&self.filename)?;
            return objects
                .iter()
                .map(|object| target(object, cluster))
                .collect();
        }
        let mut found = Vec::new();
        for (resource, name) in cluster::targets(&self.what)? {
            let collection = cluster.path(resource, None);
            let Some(name) = name else {
                if self.selector.is_none() && !self.all {
                    bail!(
                        "say which {}: a name, -l SELECTOR or --all",
                        resource.plural
                    );
                }
                let labels = cluster::query(self.selector.as_deref().unwrap_or(""));
                let list = cluster
                    .get(&format!("{collection}?labelSelector={labels}"))
                    .await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default();
                    found.push((resource, name.to_owned(), format!("{collection}/{name}")));
                }
                continue;
            };
            let path = format!("{collection}/{name}");
            found.push((resource, name, path));
        }
        Ok(found)
    }
}

fn target(object: &Value, cluster: &Cluster) -> Result<(&'static Resource, String, String)> {
    let name = object["metadata"]["name"]
        .as_str()
        .context("metadata.name: Required value")?;
    let path = manifest::path_of(object, cluster, true)?;
    Ok((manifest::resource_of(object)?, name.to_owned(), path))
}

/// Waits until the object with that uid is no longer there.
async fn gone(cluster: &Cluster, path: &str, uid: &Value) -> Result<()> {
    while let Some(object) = cluster.find(path).await? {
        if object["metadata"]["uid"] != *uid {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
