//! `orchestrator scale`

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::json;

use super::{
    ClusterArgs,
    cluster::{self, MERGE_PATCH, Payload},
    get::full_name,
};
use api::Subresource;

/// Set the number of replicas
///
/// Examples:
///   orchestrator scale --replicas=3 rc my-nginx
///   orchestrator scale --replicas=0 deployment/web
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Scale {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required = true)]
    what: Vec<String>,
    #[arg(long)]
    replicas: u32,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Scale {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        for (resource, name) in cluster::targets(&self.what)? {
            let Some(name) = name else {
                bail!("say which {} to scale", resource.plural)
            };
            if !resource.has(Subresource::Scale) {
                bail!("{} cannot be scaled", resource.plural);
            }
            let path = cluster.path(resource, Some(&name)) + "/scale";
            let patch = json!({"spec": {"replicas": self.replicas}});
            cluster
                .call(Method::PATCH, &path, Payload::Typed(MERGE_PATCH, &patch))
                .await?;
            let object = json!({"apiVersion": resource.api_version(), "kind": resource.kind,
                                "metadata": {"name": name}});
            println!("{} scaled", full_name(&object)?);
        }
        Ok(())
    }
}
