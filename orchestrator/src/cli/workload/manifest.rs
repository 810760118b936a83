//! Files of objects: YAML or JSON, several documents, folders, standard input.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::cluster::{self, Cluster};
use api::{self, Resource};

/// Every object of the files, Lists unfolded, in order.
pub fn read(files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        for (name, text) in texts(file)? {
            let documents = api::decode::documents(text.as_bytes())
                .map_err(|e| anyhow!("{name} is neither YAML nor JSON: {e}"))?;
            for value in documents {
                match value {
                    Value::Null => {}
                    Value::Object(ref map) if map.get("kind").is_some_and(|k| k == "List") => {
                        objects.extend(value["items"].as_array().cloned().unwrap_or_default());
                    }
                    object => objects.push(object),
                }
            }
        }
    }
    if objects.is_empty() {
        bail!(
            "no objects in {}",
            files
                .iter()
                .map(|f| f.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(objects)
}

/// The row of an object's apiVersion and kind.
pub fn resource_of(object: &Value) -> Result<&'static Resource> {
    let version = object["apiVersion"]
        .as_str()
        .context("apiVersion: Required value")?;
    let kind = object["kind"].as_str().context("kind: Required value")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    api::find_kind(group, version, kind)
        .map(|resource| &**resource)
        .with_context(|| format!("no matches for kind {kind:?} in version {version:?}"))
}

/// Where the object lives: its own namespace, else the command's; and its name.
pub fn path_of(object: &Value, cluster: &Cluster, named: bool) -> Result<String> {
    let resource = resource_of(object)?;
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or(&cluster.namespace);
    let name = match named {
        true => Some(
            metadata["name"]
                .as_str()
                .context("metadata.name: Required value")?,
        ),
        false => None,
    };
    Ok(cluster::path(resource, Some(namespace), name))
}

fn texts(file: &Path) -> Result<Vec<(String, String)>> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let mut files = vec![file.to_owned()];
    if file.is_dir() {
        files = std::fs::read_dir(file)?
            .map(|e| Ok(e?.path()))
            .collect::<Result<_>>()?;
        files.retain(|f| {
            f.extension()
                .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|x| e == *x))
        });
        files.sort();
    }
    files
        .into_iter()
        .map(|f| {
            let text = std::fs::read_to_string(&f)
                .with_context(|| format!("cannot read {}", f.display()))?;
            Ok((f.display().to_string(), text))
        })
        .collect()
}
