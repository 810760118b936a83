//! `orchestrator describe`

use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    ClusterArgs,
    cluster::{self, Cluster, Payload},
    output::{self, TABLE},
};
use api::Resource;

/// Show an object in full, with its events
///
/// Examples:
///   orchestrator describe pod nginx
///   orchestrator describe node/node-1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Describe {
    /// TYPE [NAME…] or TYPE/NAME…
    #[arg(required = true)]
    what: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Describe {
    pub async fn run(self) -> Result<()> {
        let cluster = self.cluster.connect().await?;
        let mut first = true;
        for (resource, name) in cluster::targets(&self.what)? {
            let found = cluster
                .get(&cluster.path(resource, name.as_deref()))
                .await?;
            let objects = match (name, &found["items"]) {
                (None, Value::Array(items)) => items.clone(),
                _ => vec![found],
            };
            for object in objects {
                if !std::mem::take(&mut first) {
                    println!("\n");
                }
                describe(&cluster, resource, &object).await?;
            }
        }
        Ok(())
    }
}

async fn describe(cluster: &Cluster, resource: &Resource, object: &Value) -> Result<()> {
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion") {
            output::print(&tree(key, value, 0));
        }
    }
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let (name, uid) = (metadata["name"].as_str(), metadata["uid"].as_str());
    let about = format!(
        "involvedObject.kind={},involvedObject.name={},involvedObject.uid={}",
        resource.kind,
        name.unwrap_or_default(),
        uid.unwrap_or_default()
    );
    let events = cluster::path(cluster::resource("events")?, Some(namespace), None);
    let path = format!("{events}?fieldSelector={}", cluster::query(&about));
    let table = cluster
        .call_as(Method::GET, &path, Payload::None, TABLE)
        .await?;
    if table["rows"].as_array().is_none_or(Vec::is_empty) {
        println!("Events: <none>");
        return Ok(());
    }
    println!("Events:");
    for line in output::table_text(&table, false, "", false, true).lines() {
        output::print(&format!("  {line}\n"));
    }
    Ok(())
}

/// `startTime` as `Start Time`, nested values indented by two, empty ones left out.
fn tree(key: &str, value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let title = title(key, depth);
    match value {
        Value::Null => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::Object(map) => {
            let inner: String = map.iter().map(|(k, v)| tree(k, v, depth + 1)).collect();
            format!("{indent}{title}:\n{inner}")
        }
        Value::Array(list) => {
            let items: String = list
                .iter()
                .map(|item| match item {
                    Value::Object(map) => {
                        let name = item["name"]
                            .as_str()
                            .or(item["type"].as_str())
                            .unwrap_or("-");
                        let inner: String =
                            map.iter().map(|(k, v)| tree(k, v, depth + 2)).collect();
                        format!("{indent}  {name}:\n{inner}")
                    }
                    other => format!("{indent}  {}\n", plain(other, depth + 1)),
                })
                .collect();
            format!("{indent}{title}:\n{items}")
        }
        other => format!("{indent}{title}: {}\n", plain(other, depth)),
    }
}

/// Fields are shown as words; keys of labels and the like as they are.
fn title(key: &str, depth: usize) -> String {
    if depth > 0 && key.contains(['/', '.', '-']) {
        return output::one_line(key);
    }
    let mut words = String::new();
    for (i, c) in key.char_indices() {
        match (i, c) {
            (0, c) => words.extend(c.to_uppercase()),
            (_, c) if c.is_uppercase() && !words.ends_with(|p: char| p.is_uppercase()) => {
                words.push(' ');
                words.push(c);
            }
            (_, c) => words.push(c),
        }
    }
    words
}

/// A text of several lines stands below its field and further in, so that no line of it looks like a field.
fn plain(value: &Value, depth: usize) -> String {
    match value {
        Value::String(s) if s.trim_end().contains('\n') => {
            let start = format!("\n{}", "  ".repeat(depth + 2));
            s.lines()
                .map(|line| format!("{start}{}", output::one_line(line)))
                .collect()
        }
        Value::String(s) => output::one_line(s.trim_end_matches('\n')),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_becomes_an_indented_tree_without_what_is_empty() {
        let value = json!({"startTime": "now", "labels": {}, "podIP": "10.0.0.1",
                           "conditions": [{"type": "Ready", "status": "True"}]});
        let text = tree("status", &value, 0);
        assert_eq!(
            text,
            "Status:\n  Conditions:\n    Ready:\n      Status: True\n      Type: Ready\n  Pod IP: \
             10.0.0.1\n  Start Time: now\n"
        );
    }

    #[test]
    fn no_text_of_a_pod_commands_a_terminal_or_looks_like_a_field() {
        let value = json!({"message": "a\u{1b}[2J\nPhase: Running\r\n", "note": "one\n"});
        assert_eq!(
            tree("status", &value, 0),
            "Status:\n  Message: \n      a\\u{1b}[2J\n      Phase: Running\n  Note: one\n"
        );
    }
}
