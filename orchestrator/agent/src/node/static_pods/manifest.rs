//! A file of the directory as a pod of this node. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{FILE_SOURCE, HASH, MIRROR, Name, SOURCE};
use api::{FieldValidation, Format};

/// A pod as its file says it, completed.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Of node, file and content: another one is another pod.
    pub hash: String,
    pub pod: Arc<Pod>,
}

/// What a static pod cannot have, since no API server hands it to the node.
const FOREIGN: [&str; 4] = ["configMap", "secret", "persistentVolumeClaim", "projected"];

impl Manifest {
    /// Reads a manifest; the error says what is wrong with it.
    pub fn read(node: &str, file: &str, text: &[u8]) -> Result<Self, String> {
        let pods = api::find("", "v1", "pods").ok_or("pods are not known")?;
        let is_json = text.trim_ascii_start().starts_with(b"{");
        let format = if is_json { Format::Json } else { Format::Yaml };
        let decoded = pods.decode(text, format, FieldValidation::Strict);
        let mut pod = decoded.map_err(|error| error.to_string())?.object;
        refuse_foreign(&pod)?;
        let hash = hash(node, file, text);
        let metadata = &mut pod["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        metadata["name"] = format!("{name}-{node}").into();
        if metadata["namespace"].as_str().is_none_or(str::is_empty) {
            metadata["namespace"] = "default".into();
        }
        metadata["uid"] = uid(&hash).into();
        metadata["annotations"][HASH] = hash.as_str().into();
        metadata["annotations"][SOURCE] = FILE_SOURCE.into();
        pod["spec"]["nodeName"] = node.into();
        tolerate_everything(&mut pod["spec"]);
        pods.default(&mut pod);
        pods.validate(&pod, None, None)
            .map_err(|error| error.to_string())?;
        if let Some(spec) = pod["spec"].as_object_mut() {
            // Defaults name one; no API server says what it may.
            spec.retain(|field, _| !field.starts_with("serviceAccount"));
        }
        let pod = serde_json::from_value(pod).map_err(|error| error.to_string())?;
        Ok(Self {
            hash,
            pod: Arc::new(pod),
        })
    }

    pub fn name(&self) -> Name {
        let meta = &self.pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (text(&meta.namespace), text(&meta.name))
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The object that shows it in the API, owned by its node.
    pub fn mirror(&self, node: &str, node_uid: &str) -> Value {
        let mut mirror = json!(*self.pod);
        mirror["apiVersion"] = "v1".into();
        mirror["kind"] = "Pod".into();
        if let Some(metadata) = mirror["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        mirror["metadata"]["annotations"][MIRROR] = self.hash.as_str().into();
        mirror["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node",
            "name": node, "uid": node_uid, "controller": true}]);
        mirror
    }

    /// The same pod as a worker gets it, with the status that the API has of it.
    pub fn with_status(&self, shown: Option<&Pod>) -> Arc<Pod> {
        let status = shown.and_then(|pod| pod.status.clone());
        Arc::new(Pod {
            status,
            ..Pod::clone(&self.pod)
        })
    }
}

fn refuse_foreign(pod: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    let account = &spec["serviceAccountName"];
    if account.as_str().is_some_and(|name| !name.is_empty()) {
        return Err("a static pod has no service account".to_owned());
    }
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    for volume in volumes {
        if let Some(kind) = FOREIGN.iter().find(|kind| !volume[**kind].is_null()) {
            return Err(format!("a static pod has no volume of the API: {kind}"));
        }
    }
    let containers = ["containers", "initContainers"];
    let containers = containers.iter().flat_map(|list| spec[*list].as_array());
    let refers = containers.flatten().any(|container| {
        let env = container["env"].as_array().into_iter().flatten();
        let from = &container["envFrom"];
        from.as_array().is_some_and(|from| !from.is_empty())
            || env.clone().any(|variable| {
                let from = &variable["valueFrom"];
                !from["secretKeyRef"].is_null() || !from["configMapKeyRef"].is_null()
            })
    });
    match refers {
        true => Err("a static pod takes no variables out of Secrets or ConfigMaps".to_owned()),
        false => Ok(()),
    }
}

/// It stays, whatever befalls its node.
fn tolerate_everything(spec: &mut Value) {
    let all = json!({"operator": "Exists", "effect": "NoExecute"});
    match spec["tolerations"].as_array_mut() {
        Some(list) if list.contains(&all) => {}
        Some(list) => list.push(all),
        None => spec["tolerations"] = json!([all]),
    }
}

fn hash(node: &str, file: &str, text: &[u8]) -> String {
    let mut digest = Sha256::new();
    for part in [node.as_bytes(), file.as_bytes(), text] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex::encode(&digest.finalize()[..16])
}

/// The hash in the form of a UUID.
fn uid(hash: &str) -> String {
    let at = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        at(0, 8),
        at(8, 12),
        at(12, 16),
        at(16, 20),
        at(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: main
    image: nginx:1
";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node_with_a_uid_that_stays() {
        let read = |node: &str, text: &str| Manifest::read(node, "web.yaml", text.as_bytes());
        let manifest = read("n1", WEB).expect("a pod");
        assert_eq!(manifest.name(), ("default".into(), "web-n1".into()));
        assert!(crate::runtime::is_uid(manifest.uid()));
        assert!(super::super::is_static(&manifest.pod));
        assert_eq!(manifest.hash, read("n1", WEB).expect("a pod").hash);
        assert_ne!(manifest.hash, read("n2", WEB).expect("a pod").hash);
        let other = WEB.replace("nginx:1", "nginx:2");
        assert_ne!(manifest.uid(), read("n1", &other).expect("a pod").uid());
        let spec = manifest.pod.spec.as_ref().expect("a spec");
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(
            spec.restart_policy.as_deref(),
            Some("Always"),
            "defaults are filled in"
        );
    }

    #[test]
    fn json_is_read_too_and_what_is_wrong_is_said() {
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        assert!(Manifest::read("n1", "a.json", json.as_bytes()).is_ok());
        let wrong = |from: &str, to: &str| {
            let text = WEB.replace(from, to);
            Manifest::read("n1", "web.yaml", text.as_bytes()).expect_err("it is wrong")
        };
        for (from, to, why) in [
            ("kind: Pod", "kind: Service", "Service"),
            ("  - name: main", "  - nome: main", "nome"),
            ("  name: web", "  name: We_b", "metadata.name"),
            (
                "spec:\n",
                "spec:\n  serviceAccountName: x\n",
                "service account",
            ),
            (
                "spec:\n",
                "spec:\n  volumes: [{name: v, secret: {secretName: s}}]\n",
                "secret",
            ),
        ] {
            let said = wrong(from, to);
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_mirror_is_owned_by_its_node_and_says_what_it_shows() {
        let manifest = Manifest::read("n1", "web.yaml", WEB.as_bytes()).expect("a pod");
        let mirror = manifest.mirror("n1", "node-uid");
        assert_eq!(mirror["metadata"]["annotations"][MIRROR], manifest.hash);
        assert_eq!(mirror["metadata"]["ownerReferences"][0]["uid"], "node-uid");
        assert!(mirror["metadata"]["uid"].is_null());
        assert!(mirror["spec"]["serviceAccountName"].is_null());
    }
}
