//! `orchestrator set image`

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{self, Payload, STRATEGIC_PATCH},
    get::full_name,
};

/// Change one thing of a workload
///
/// Examples:
///   orchestrator set image deployment/web nginx=nginx:1.7.9
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Set {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Subcommand)]
enum What {
    /// The images of a workload's containers
    Image {
        /// TYPE/NAME
        workload: String,
        /// CONTAINER=IMAGE; `*` is every container
        #[arg(required = true)]
        images: Vec<String>,
    },
}

impl Set {
    pub async fn run(self) -> Result<()> {
        let What::Image { workload, images } = self.what;
        let targets = cluster::targets(&[workload])?;
        let [(resource, Some(name))] = &targets[..] else {
            bail!("say one workload: TYPE/NAME")
        };
        let cluster = self.cluster.connect().await?;
        let path = cluster.path(resource, Some(name));
        let object = cluster.get(&path).await?;
        let is_pod = resource.kind == "Pod";
        let pod = if is_pod {
            &object["spec"]
        } else {
            &object["spec"]["template"]["spec"]
        };
        let containers = containers(pod, &images)?;
        let spec = json!({"containers": containers});
        let patch = match is_pod {
            true => json!({"spec": spec}),
            false => json!({"spec": {"template": {"spec": spec}}}),
        };
        let changed = cluster
            .call(
                Method::PATCH,
                &path,
                Payload::Typed(STRATEGIC_PATCH, &patch),
            )
            .await?;
        println!("{} image updated", full_name(&changed)?);
        Ok(())
    }
}

/// The patch of the containers list: name and new image of each that is named.
fn containers(pod: &Value, images: &[String]) -> Result<Vec<Value>> {
    let names: Vec<&str> = pod["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    let mut patch = Vec::new();
    for pair in images {
        let (container, image) = pair
            .split_once('=')
            .with_context(|| format!("{pair:?} is not CONTAINER=IMAGE"))?;
        let matching: Vec<_> = names
            .iter()
            .filter(|name| container == "*" || **name == container)
            .collect();
        if matching.is_empty() {
            bail!(
                "unable to find container named {container:?}; it has {}",
                names.join(", ")
            );
        }
        patch.extend(
            matching
                .into_iter()
                .map(|name| json!({"name": name, "image": image})),
        );
    }
    Ok(patch)
}
