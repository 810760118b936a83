//! `orchestrator top`

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use serde_json::Value;

use super::{
    ClusterArgs,
    cluster::{self, Cluster},
    output,
};
use api::amounts::{self, Amounts};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// Show what nodes and pods use
///
/// Examples:
///   orchestrator top nodes
///   orchestrator top pods -A --sort-by=memory
///   orchestrator top pod web-1 --containers
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Top {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// CPU and memory of nodes, and how much of what they have that is
    #[command(visible_aliases = ["nodes", "no"])]
    Node(Of),
    /// CPU and memory of pods
    #[command(visible_aliases = ["pods", "po"])]
    Pod(Pods),
}

/// Which objects, in which order.
#[derive(Args)]
struct Of {
    name: Option<String>,
    /// Only objects whose labels match
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// Greatest first
    #[arg(long, value_enum)]
    sort_by: Option<SortBy>,
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args)]
struct Pods {
    #[command(flatten)]
    of: Of,
    /// Every namespace
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// A line for each container
    #[arg(long)]
    containers: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
}

/// One line: words, then what is used.
struct Line {
    words: Vec<String>,
    used: Amounts,
    /// What there is of it, where the line is a node's.
    of: Option<Amounts>,
}

impl Top {
    pub async fn run(self) -> Result<()> {
        match self.what {
            What::Node(of) => nodes(of).await,
            What::Pod(pods) => pods.run().await,
        }
    }
}

async fn nodes(of: Of) -> Result<()> {
    let cluster = of.cluster.connect().await?;
    let metrics = of.metrics(&cluster, &format!("{METRICS}/nodes")).await?;
    let listed = cluster.get("/api/v1/nodes").await?;
    let nodes = listed["items"].as_array().into_iter().flatten();
    let has: BTreeMap<&str, Amounts> = nodes
        .map(|node| {
            (
                api::meta::name(node),
                amounts::read(&node["status"]["allocatable"]),
            )
        })
        .collect();
    let lines = metrics.iter().map(|node| Line {
        words: vec![api::meta::name(node).to_owned()],
        used: amounts::read(&node["usage"]),
        of: has.get(api::meta::name(node)).cloned(),
    });
    let titles = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
    of.print(&titles, lines.collect());
    Ok(())
}

impl Pods {
    async fn run(self) -> Result<()> {
        let cluster = self.of.cluster.connect().await?;
        let path = match (self.all_namespaces, &self.of.name) {
            (true, Some(_)) => bail!("a pod is named in one namespace: leave out --all-namespaces"),
            (true, None) => format!("{METRICS}/pods"),
            (false, _) => format!("{METRICS}/namespaces/{}/pods", cluster.namespace),
        };
        let metrics = self.of.metrics(&cluster, &path).await?;
        if metrics.is_empty() {
            match self.all_namespaces {
                true => eprintln!("No resources found"),
                false => eprintln!("No resources found in {} namespace.", cluster.namespace),
            }
        }
        let mut titles = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
        if self.containers {
            titles.insert(0, "POD");
        }
        if self.all_namespaces {
            titles.insert(0, "NAMESPACE");
        }
        let lines = metrics.iter().flat_map(|pod| self.lines(pod)).collect();
        self.of.print(&titles, lines);
        Ok(())
    }

    fn lines(&self, pod: &Value) -> Vec<Line> {
        let mut words = vec![api::meta::name(pod).to_owned()];
        if self.all_namespaces {
            words.insert(0, api::meta::namespace(pod).to_owned());
        }
        let containers = pod["containers"].as_array().into_iter().flatten();
        if self.containers {
            let line = |container: &Value| {
                let name = container["name"].as_str().unwrap_or_default();
                Line {
                    words: words.iter().cloned().chain([name.to_owned()]).collect(),
                    used: amounts::read(&container["usage"]),
                    of: None,
                }
            };
            return containers.map(line).collect();
        }
        let mut used = Amounts::new();
        for container in containers {
            amounts::add(&mut used, &amounts::read(&container["usage"]));
        }
        let of = None;
        vec![Line { words, used, of }]
    }
}

impl Of {
    /// The metrics of one object, or of all.
    async fn metrics(&self, cluster: &Cluster, path: &str) -> Result<Vec<Value>> {
        if let Some(name) = &self.name {
            return Ok(vec![cluster.get(&format!("{path}/{name}")).await?]);
        }
        let labels = cluster::query(&self.selector);
        let mut list = cluster
            .get(&format!("{path}?labelSelector={labels}"))
            .await?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    fn print(&self, titles: &[&str], mut lines: Vec<Line>) {
        match self.sort_by {
            None => lines.sort_by(|a, b| a.words.cmp(&b.words)),
            Some(SortBy::Cpu) => lines.sort_by_key(|line| std::cmp::Reverse(line.millicores())),
            Some(SortBy::Memory) => lines.sort_by_key(|line| std::cmp::Reverse(line.bytes())),
        }
        let mut text = output::aligned();
        if !self.no_headers {
            text.set_header(titles);
        }
        for line in &lines {
            text.add_row(line.cells().into_iter().map(Cell::new));
        }
        if !lines.is_empty() {
            output::print(&output::finish(&text));
        }
    }
}

impl Line {
    fn millicores(&self) -> i128 {
        millis(&self.used, "cpu")
    }

    fn bytes(&self) -> i128 {
        millis(&self.used, "memory") / 1000
    }

    /// As kubectl shows it: thousandths of a CPU, mebibytes.
    fn cells(&self) -> Vec<String> {
        let mut cells = self.words.clone();
        let percent = |used: i128, name: &str, of: &Amounts| match millis(of, name) {
            0 => "<unknown>".to_owned(),
            all => format!("{}%", used * 100 / all),
        };
        cells.push(format!("{}m", self.millicores()));
        if let Some(of) = &self.of {
            cells.push(percent(self.millicores(), "cpu", of));
        }
        cells.push(format!("{}Mi", self.bytes() / (1024 * 1024)));
        if let Some(of) = &self.of {
            cells.push(percent(self.bytes() * 1000, "memory", of));
        }
        cells
    }
}

/// In thousandths, rounded up.
fn millis(amounts: &Amounts, name: &str) -> i128 {
    amounts.get(name).map_or(0, |amount| amount.wide_millis())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_what_kubectl_shows() {
        let line = Line {
            words: vec!["n1".into()],
            used: amounts::read(&json!({"cpu": "250000001n", "memory": "3145727Ki"})),
            of: Some(amounts::read(&json!({"cpu": "2", "memory": "6Gi"}))),
        };
        assert_eq!(line.cells(), ["n1", "251m", "12%", "3071Mi", "49%"]);
    }
}
