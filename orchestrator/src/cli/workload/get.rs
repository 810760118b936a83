//! `orchestrator get`

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Method;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    cluster::{self, Cluster, Payload},
    output::{self, Output, TABLE},
};
use api::Resource;

/// List objects, or show some by name
///
/// Examples:
///   orchestrator get nodes -o wide
///   orchestrator get pods -l 'environment in (production, qa),tier!=frontend'
///   orchestrator get deploy/web -o yaml
///   orchestrator get pods -A -w
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Get {
    /// TYPE [NAME…] or TYPE/NAME…; types may be joined by commas, `all` is the common ones
    #[arg(required = true)]
    what: Vec<String>,
    #[arg(long, short, value_enum)]
    output: Option<Output>,
    /// Every namespace
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only objects whose labels match
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// Only objects whose fields match
    #[arg(long, default_value = "")]
    field_selector: String,
    /// Go on and show changes
    #[arg(long, short)]
    watch: bool,
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Get {
    pub async fn run(self) -> Result<()> {
        let targets = cluster::targets(&self.what)?;
        let cluster = self.cluster.connect().await?;
        if self.watch {
            let [(resource, name)] = &targets[..] else {
                bail!("--watch follows one type, or one object of it");
            };
            return self.watch(&cluster, resource, name.as_deref()).await;
        }
        match self.output {
            Some(Output::Json | Output::Yaml | Output::Name) => {
                self.objects(&cluster, &targets).await
            }
            _ => self.tables(&cluster, &targets).await,
        }
    }

    async fn tables(
        &self,
        cluster: &Cluster,
        targets: &[(&'static Resource, Option<String>)],
    ) -> Result<()> {
        let several = targets.iter().any(|(r, _)| r.plural != targets[0].0.plural);
        let mut shown = 0;
        for (resource, name) in targets {
            let path = self.path(cluster, resource, name.as_deref());
            let table = cluster
                .call_as(Method::GET, &path, Payload::None, TABLE)
                .await?;
            if table["rows"].as_array().is_none_or(Vec::is_empty) {
                continue;
            }
            if several && shown > 0 {
                println!();
            }
            let prefix = if several {
                qualified_singular(resource) + "/"
            } else {
                String::new()
            };
            // Objects of one type that were asked for by name share a header.
            let header = !self.no_headers && (several || shown == 0);
            output::print(&self.text(&table, resource, &prefix, header));
            shown += 1;
        }
        if shown == 0 {
            match self.all_namespaces {
                true => eprintln!("No resources found"),
                false => eprintln!("No resources found in {} namespace.", cluster.namespace),
            }
        }
        Ok(())
    }

    async fn objects(
        &self,
        cluster: &Cluster,
        targets: &[(&'static Resource, Option<String>)],
    ) -> Result<()> {
        let mut items = Vec::new();
        for (resource, name) in targets {
            let found = cluster
                .get(&self.path(cluster, resource, name.as_deref()))
                .await?;
            match (name, &found["items"]) {
                (None, Value::Array(list)) => items.extend(list.iter().map(|item| {
                    let mut item = item.clone();
                    item["apiVersion"] = json!(resource.api_version());
                    item["kind"] = json!(resource.kind);
                    item
                })),
                _ => items.push(found),
            }
        }
        match (self.output, targets, &items[..]) {
            (Some(Output::Name), ..) => {
                for item in &items {
                    println!("{}", full_name(item)?);
                }
                Ok(())
            }
            (Some(output), [(_, Some(_))], [one]) => output::print_object(one, output),
            (output, ..) => {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
                output::print_object(&list, output.unwrap_or(Output::Json))
            }
        }
    }

    async fn watch(
        &self,
        cluster: &Cluster,
        resource: &'static Resource,
        name: Option<&str>,
    ) -> Result<()> {
        let accept = match self.output {
            Some(Output::Json | Output::Yaml) => "application/json",
            _ => TABLE,
        };
        let mut path = self.path(cluster, resource, None);
        if let Some(name) = name {
            path += &format!(
                "&fieldSelector={}",
                cluster::query(&format!("metadata.name={name}"))
            );
        }
        let mut header = !self.no_headers;
        let lines = cluster.lines(&(path + "&watch=true"), accept).await?;
        let mut lines = lines.lines();
        while let Some(line) = lines.try_next().await? {
            let event: Value = serde_json::from_str(&line).context("a watch event is not JSON")?;
            let object = &event["object"];
            match (event["type"].as_str(), self.output) {
                (Some("BOOKMARK"), _) => {}
                (Some("ERROR"), _) => {
                    bail!("{}", object["message"].as_str().unwrap_or("watch ended"))
                }
                (_, Some(output @ (Output::Json | Output::Yaml))) => {
                    output::print_object(object, output)?;
                }
                _ => {
                    output::print(&self.text(object, resource, "", header));
                    header = false;
                }
            }
        }
        Ok(())
    }

    fn text(&self, table: &Value, resource: &Resource, prefix: &str, header: bool) -> String {
        let wide = self.output == Some(Output::Wide);
        let namespaces = self.all_namespaces && resource.namespaced();
        output::table_text(table, wide, prefix, namespaces, header)
    }

    fn path(&self, cluster: &Cluster, resource: &Resource, name: Option<&str>) -> String {
        let namespace = (!self.all_namespaces).then_some(cluster.namespace.as_str());
        let path = cluster::path(resource, namespace, name);
        if name.is_some() {
            return path;
        }
        let labels = cluster::query(&self.selector);
        match self.field_selector.as_str() {
            "" => format!("{path}?labelSelector={labels}"),
            fields => {
                format!(
                    "{path}?labelSelector={labels}&fieldSelector={}",
                    cluster::query(fields)
                )
            }
        }
    }
}

/// `deployment.apps`, or `pod` for the core group.
pub fn qualified_singular(resource: &Resource) -> String {
    match &*resource.group {
        "" => resource.singular.to_string(),
        group => format!("{}.{group}", resource.singular),
    }
}

/// `deployment.apps/web` for an object.
pub fn full_name(object: &Value) -> Result<String> {
    let resource = super::manifest::resource_of(object)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Ok(format!("{}/{name}", qualified_singular(resource)))
}
