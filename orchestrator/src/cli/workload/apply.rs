//! `orchestrator apply`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{Cluster, Payload, STRATEGIC_PATCH},
    get::full_name,
    manifest, three_way,
};

/// Make objects as the files say: create what is missing, change what differs
///
/// What an earlier apply (of this command or kubectl's) set and the file no longer says is removed;
/// what others set is left alone.
///
/// Examples:
///   orchestrator apply -f manifests/nginx-deployment.yaml
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Apply {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(long, short, required = true)]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Where the last applied manifest is kept; the same as kubectl's, so both can be mixed.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Apply {
    pub async fn run(self) -> Result<()> {
        let objects = manifest::read(&self.filename)?;
        let cluster = self.cluster.connect().await?;
        for object in objects {
            println!("{} {}", full_name(&object)?, apply(&cluster, object).await?);
        }
        Ok(())
    }
}

async fn apply(cluster: &Cluster, mut object: Value) -> Result<&'static str> {
    let resource = manifest::resource_of(&object)?;
    if resource.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!(cluster.namespace);
    }
    let text = serde_json::to_string(&object)? + "\n";
    object["metadata"]["annotations"][LAST_APPLIED] = json!(text);
    let path = manifest::path_of(&object, cluster, true)?;
    let Some(live) = cluster.find(&path).await? else {
        let collection = manifest::path_of(&object, cluster, false)? + "?fieldValidation=Strict";
        cluster
            .call(Method::POST, &collection, Payload::Json(&object))
            .await?;
        return Ok("created");
    };
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let last = last
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let patch = three_way::patch(resource, &last, &object);
    let path = path + "?fieldValidation=Strict";
    let after = cluster
        .call(
            Method::PATCH,
            &path,
            Payload::Typed(STRATEGIC_PATCH, &patch),
        )
        .await?;
    let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
    Ok(if version(&after) == version(&live) {
        "unchanged"
    } else {
        "configured"
    })
}
