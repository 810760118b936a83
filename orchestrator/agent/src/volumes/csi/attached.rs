//! Volumes that have to be attached to the node: the agent says that it uses them, and waits until they are there.
//!
//! INVARIANT: a volume is mounted only after one read of the node's object had it both in `volumesInUse` and in
//! `volumesAttached`. The attach/detach controller takes it out of the second only by a write that names a revision
//! in which it was not in the first.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::{Api, Client};
use tokio::sync::watch;

use super::wish::Wish;
use api::kinds::storage::attach;

/// Between two looks at the node's object.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// The volumes that the node's status says are in use. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct InUse(watch::Sender<BTreeSet<String>>);

impl InUse {
    pub fn add(&self, key: &str) {
        self.0.send_if_modified(|all| all.insert(key.to_owned()));
    }

    pub fn remove(&self, key: &str) {
        self.0.send_if_modified(|all| all.remove(key));
    }

    pub fn subscribe(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.subscribe()
    }
}

/// Waits until the volume is attached, for as long as that takes.
pub async fn wait(client: &Client, node: &str, wish: &Wish) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let key = wish.key();
    let mut pause = FIRST_LOOK;
    loop {
        let found = nodes.get(node).await;
        let found = found.map_err(|error| format!("read the node: {error}"))?;
        if is_there(&found, &key) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

/// What the attacher says of a volume that is attached.
pub async fn context(
    client: &Client,
    node: &str,
    wish: &Wish,
) -> Result<HashMap<String, String>, String> {
    let name = attach::attachment_name(&wish.driver, &wish.handle, node);
    let attachments: Api<VolumeAttachment> = Api::all(client.clone());
    let found = attachments.get(&name).await;
    let found = found.map_err(|error| format!("read VolumeAttachment {name}: {error}"))?;
    let status = found.status.filter(|status| status.attached);
    let status = status.ok_or_else(|| format!("VolumeAttachment {name} is not attached"))?;
    Ok(status.attachment_metadata.into_iter().flatten().collect())
}

fn is_there(node: &Node, key: &str) -> bool {
    let Some(status) = &node.status else {
        return false;
    };
    let used = status.volumes_in_use.iter().flatten();
    let attached = status.volumes_attached.iter().flatten();
    used.into_iter().any(|it| it == key) && attached.into_iter().any(|it| it.name == key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_is_there_once_the_node_says_both_that_it_has_it_and_that_it_uses_it() {
        let node = |used: &[&str], attached: &[&str]| -> Node {
            let attached: Vec<_> = attached
                .iter()
                .map(|name| json!({"name": name, "devicePath": ""}))
                .collect();
            let status = json!({"volumesInUse": used, "volumesAttached": attached});
            serde_json::from_value(json!({"metadata": {}, "status": status})).expect("a node")
        };
        assert!(is_there(&node(&["a", "v"], &["v"]), "v"));
        assert!(!is_there(&node(&[], &["v"]), "v"));
        assert!(!is_there(&node(&["v"], &["a"]), "v"));
        assert!(!is_there(&Node::default(), "v"));
    }
}
