//! `orchestrator explain`

use anyhow::{Context as _, Result, bail};
use clap::Args;
use comfy_table::Cell;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    ClusterArgs,
    cluster::{self, Cluster},
    output,
};
use scheduler::engine::{Change, StorageChange};
use scheduler::explain::{Explained, explain};
use scheduler::node::NodeRow;
use scheduler::pod::PodRow;
use scheduler::profile::{Config, Profile};
use scheduler::volumes::objects::limits;

/// Say why a pod is on its node, or on none: what every node answers to it now
///
/// The scheduler's own rules are applied here to what the API server shows, as if the pod had no node yet.
///
/// Examples:
///   orchestrator explain pod web-0
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// pod NAME or pod/NAME
    #[arg(required = true)]
    what: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Explain {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        for (resource, name) in cluster::targets(&self.what)? {
            let name = name.context("which pod?")?;
            if resource.plural != "pods" {
                bail!("only pods can be explained");
            }
            let pod = cluster.get(&cluster.path(resource, Some(&name))).await?;
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let key = (namespace.to_owned(), name.clone());
            let scheduler = pod["spec"]["schedulerName"].as_str().unwrap_or_default();
            let config = Config {
                profiles: vec![Profile::named(scheduler)],
                ..Config::default()
            };
            let explained = explain(config, everything(&cluster).await?, &key);
            let explained = explained.with_context(|| format!("pod {name} is gone"))?;
            output::print(&text(&pod, &explained));
        }
        Ok(())
    }
}

/// All that a decision depends on.
async fn everything(cluster: &Cluster) -> Result<Vec<Change>> {
    let (pods, nodes) = (
        list::<Pod>(cluster, "pods").await?,
        list::<Node>(cluster, "nodes").await?,
    );
    let namespaces = list::<client::Bare>(cluster, "namespaces")
        .await?
        .into_iter()
        .map(|it| {
            let metadata = it.metadata;
            (
                metadata.name.unwrap_or_default(),
                metadata.labels.unwrap_or_default(),
            )
        });
    let claims = list::<PersistentVolumeClaim>(cluster, "persistentvolumeclaims").await?;
    let volumes = list::<PersistentVolume>(cluster, "persistentvolumes").await?;
    let classes = list::<StorageClass>(cluster, "storageclasses").await?;
    let drivers = list::<CSINode>(cluster, "csinodes").await?;
    let storage = [
        StorageChange::Claims(claims.into_iter().map(Into::into).collect()),
        StorageChange::Volumes(volumes.into_iter().map(Into::into).collect()),
        StorageChange::Classes(classes.into_iter().map(Into::into).collect()),
        StorageChange::AllLimits(drivers.into_iter().map(limits).collect()),
    ];
    let mut changes = vec![
        Change::Namespaces(namespaces.collect()),
        Change::Nodes(nodes.into_iter().map(NodeRow::from).collect()),
        Change::Pods {
            items: pods.into_iter().map(PodRow::from).collect(),
            revision: 0,
        },
    ];
    changes.extend(storage.map(Change::Storage));
    Ok(changes)
}

async fn list<T: DeserializeOwned>(cluster: &Cluster, plural: &str) -> Result<Vec<T>> {
    let path = cluster::path(cluster::resource(plural)?, None, None);
    let mut found = cluster.get(&path).await?;
    let items = found["items"].take();
    serde_json::from_value(items).with_context(|| format!("the list of {plural} cannot be read"))
}

fn text(pod: &Value, explained: &Explained) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut text = match pod["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty())
    {
        Some(node) => format!("Pod {name} is on {node}. If it were to be placed now:\n"),
        None => format!("Pod {name} has no node.\n"),
    };
    let gates = pod["spec"]["schedulingGates"]
        .as_array()
        .into_iter()
        .flatten();
    for gate in gates.filter_map(|gate| gate["name"].as_str()) {
        text.push_str(&format!("It waits for the gate {gate}.\n"));
    }
    match &explained.outcome {
        Ok(node) => text.push_str(&format!("It would be placed on {node}.\n\n")),
        Err(why) => text.push_str(&format!("{why}\n\n")),
    }
    for (namespace, victim) in &explained.victims {
        text.push_str(&format!("{namespace}/{victim} would be stopped for it.\n"));
    }
    let mut table = output::aligned();
    table.set_header(["NODE", "FITS", "PLUGIN", "REASON"]);
    for (node, refusal) in &explained.nodes {
        let (fits, plugin, why) = match refusal {
            None => ("yes", "", String::new()),
            Some(refusal) => ("no", refusal.plugin.name(), refusal.texts.join(", ")),
        };
        let cells = [
            output::one_line(node),
            fits.to_owned(),
            plugin.to_owned(),
            output::one_line(&why),
        ];
        table.add_row(cells.map(Cell::new));
    }
    text + &output::finish(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler::plugins::{Plugin, Refusal};
    use serde_json::json;

    #[test]
    fn each_node_has_a_line_with_the_plugin_that_refused_it() {
        let cordoned = "node(s) were unschedulable";
        let explained = Explained {
            outcome: Err("0/2 nodes are available: 1 …".to_owned()),
            victims: Vec::new(),
            nodes: vec![
                ("a".to_owned(), None),
                (
                    "b".to_owned(),
                    Some(Refusal::new(Plugin::NodeUnschedulable, cordoned, true)),
                ),
            ],
        };
        let pod =
            json!({"metadata": {"name": "web"}, "spec": {"schedulingGates": [{"name": "g"}]}});
        let text = text(&pod, &explained);
        let expected = [
            "Pod web has no node.",
            "It waits for the gate g.",
            "0/2 nodes are available: 1 …",
            "",
            "NODE   FITS   PLUGIN              REASON",
            "a      yes",
            "b      no     NodeUnschedulable   node(s) were unschedulable",
        ];
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, expected);
    }
}
