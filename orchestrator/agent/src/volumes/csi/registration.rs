//! Which drivers there are: the sockets in `plugins_registry`, asked as a kubelet asks them, and what the cluster is
//! told of it: the node's CSINode and its labels.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use super::Inner;
use super::driver::Driver;
use super::messages::{Empty, NodeInfo, PluginInfo, RegistrationStatus};
use super::rpc::{self, Method};
use sys::Shutdown;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// When a driver is asked again whose registration failed.
const RETRY: Duration = Duration::from_secs(10);
/// How long a driver may take for a question of its registration.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Sockets that are looked at; more is a mistake.
const MOST_SOCKETS: usize = 100;
/// The longest name of a driver (`csi.proto`, `GetPluginInfoResponse`).
const NAME_LIMIT: usize = 63;
/// Labels that one driver may give the node.
const MOST_SEGMENTS: usize = 16;

pub const GET_INFO: Method = Method {
    path: "/pluginregistration.Registration/GetInfo",
    timeout: TIMEOUT,
};
pub const NOTIFY: Method = Method {
    path: "/pluginregistration.Registration/NotifyRegistrationStatus",
    timeout: TIMEOUT,
};

/// A socket as it was seen: a driver that starts anew makes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    changed: (i64, i64),
}

/// A socket and what came of it.
struct Plugin {
    seen: Seen,
    /// The driver, once it is registered.
    driver: Option<String>,
    retry_at: Instant,
}

/// Follows the directory until shutdown.
pub(super) async fn run(inner: Arc<Inner>, shutdown: Shutdown) {
    if let Err(error) = inner.places.make() {
        let dir = inner.places.kubelet.display();
        tracing::warn!(%error, %dir, "no driver can register: its directories cannot be made");
    }
    let mut plugins: BTreeMap<PathBuf, Plugin> = BTreeMap::new();
    loop {
        follow(&inner, &mut plugins).await;
        if shutdown.unless(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}

/// One look at the directory, as if for the first time.
#[cfg(test)]
pub(super) async fn look(inner: &Inner) {
    inner.drivers().clear();
    follow(inner, &mut BTreeMap::new()).await;
}

async fn follow(inner: &Inner, plugins: &mut BTreeMap<PathBuf, Plugin>) {
    let sockets = sockets(&inner.places.registry()).unwrap_or_default();
    let gone = |path: &PathBuf, plugin: &Plugin| sockets.get(path) != Some(&plugin.seen);
    let lost: Vec<PathBuf> = plugins
        .iter()
        .filter(|(path, plugin)| gone(path, plugin))
        .map(|(path, _)| path.clone())
        .collect();
    for path in lost {
        let driver = plugins.remove(&path).and_then(|plugin| plugin.driver);
        if let Some(driver) = driver {
            inner.drivers().remove(&driver);
            tracing::info!(driver, "a storage driver is gone");
            if !sockets.contains_key(&path) {
                tell(inner, &driver, None).await;
            }
        }
    }
    for (path, seen) in sockets {
        let known = plugins.get(&path);
        if known.is_some_and(|it| it.driver.is_some() || it.retry_at > Instant::now()) {
            continue;
        }
        let registered = register(inner, &path).await;
        if let Err(why) = &registered {
            tracing::warn!(socket = %path.display(), why, "a storage driver was not registered");
        }
        let plugin = Plugin {
            seen,
            driver: registered.ok(),
            retry_at: Instant::now() + RETRY,
        };
        plugins.insert(path, plugin);
    }
}

/// The sockets in a directory. Links are not followed.
fn sockets(dir: &Path) -> io::Result<BTreeMap<PathBuf, Seen>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)?.take(MOST_SOCKETS) {
        let path = entry?.path();
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.file_type().is_socket() {
            let seen = Seen {
                inode: meta.ino(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            };
            found.insert(path, seen);
        }
    }
    Ok(found)
}

/// Registers what is behind a socket, and tells it how that went; gives the driver's name.
async fn register(inner: &Inner, socket: &Path) -> Result<String, String> {
    let info: Result<PluginInfo, _> = rpc::call(socket, GET_INFO, &Empty {}).await;
    let info = info.map_err(|error| error.to_string())?;
    let registered = take(inner, socket, &info).await;
    let status = RegistrationStatus {
        plugin_registered: registered.is_ok(),
        error: registered.clone().err().unwrap_or_default(),
    };
    let told: Result<Empty, _> = rpc::call(socket, NOTIFY, &status).await;
    if let Err(error) = told {
        tracing::debug!(%error, "a driver does not listen to its registration");
    }
    registered.map(|()| info.name)
}

async fn take(inner: &Inner, socket: &Path, info: &PluginInfo) -> Result<(), String> {
    let driver = checked(&inner.places.kubelet, socket, info)?;
    let node = driver.info().await.map_err(|error| error.to_string())?;
    check_node(&node)?;
    inner.drivers().insert(driver.name.clone(), driver.clone());
    tracing::info!(driver = driver.name, "a storage driver is registered");
    tell(inner, &driver.name, Some(&node)).await;
    Ok(())
}

/// Why a plugin is not one that the agent takes; its socket is one below the kubelet's directory.
fn checked(kubelet: &Path, socket: &Path, info: &PluginInfo) -> Result<Driver, String> {
    if info.r#type != "CSIPlugin" {
        return Err(format!("no handler for plugins of type {:?}", info.r#type));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let name = info.name.as_str();
    let is_name = name.len() <= NAME_LIMIT
        && name.bytes().all(fits)
        && ends(name.bytes().next())
        && ends(name.bytes().next_back());
    if !is_name || name == api::kinds::storage::local::DRIVER {
        return Err(format!("{name:?} is not a name that a driver can have"));
    }
    if !info.supported_versions.iter().any(|it| is_one(it)) {
        let versions = &info.supported_versions;
        return Err(format!("of its versions {versions:?} none is 1"));
    }
    let endpoint = match info.endpoint.as_str() {
        "" => socket,
        endpoint => Path::new(endpoint),
    };
    let plain = |part: Component| !matches!(part, Component::ParentDir | Component::CurDir);
    if !endpoint.starts_with(kubelet) || !endpoint.components().all(plain) {
        let (endpoint, kubelet) = (endpoint.display(), kubelet.display());
        return Err(format!("its endpoint {endpoint} is not below {kubelet}"));
    }
    Ok(Driver {
        name: name.to_owned(),
        socket: endpoint.to_owned(),
    })
}

/// `1.0.0`, `v1.2`, `1`.
fn is_one(version: &str) -> bool {
    let version = version.trim_start_matches('v');
    version.split('.').next() == Some("1")
}

fn check_node(node: &NodeInfo) -> Result<(), String> {
    if node.node_id.is_empty() {
        return Err("it gives the node no id".to_owned());
    }
    let topology = node.accessible_topology.as_ref();
    if topology.is_some_and(|it| it.segments.len() > MOST_SEGMENTS) {
        return Err(format!("its topology has more than {MOST_SEGMENTS} keys"));
    }
    Ok(())
}

/// Tells the cluster of a driver that is there or gone. It is told again when the driver registers again.
async fn tell(inner: &Inner, driver: &str, node: Option<&NodeInfo>) {
    let told = tell_node(inner, driver, node).await;
    if let Err(error) = told {
        tracing::warn!(%error, driver, "the cluster was not told of a storage driver");
    }
}

async fn tell_node(
    inner: &Inner,
    driver: &str,
    node: Option<&NodeInfo>,
) -> Result<(), kube::Error> {
    let segments = node.and_then(|node| node.accessible_topology.as_ref());
    if let Some(segments) = segments.map(|topology| &topology.segments) {
        label(&inner.client, &inner.node, segments).await?;
    }
    let api: Api<CSINode> = Api::all(inner.client.clone());
    let known = match api.get_opt(&inner.node).await? {
        Some(known) => known,
        None => {
            api.create(&PostParams::default(), &empty(inner).await?)
                .await?
        }
    };
    let wanted = node.map(|node| entry(driver, node));
    let same = known.spec.drivers.iter().find(|it| it.name == driver);
    if same == wanted.as_ref() {
        return Ok(());
    }
    let others = known.spec.drivers.iter().filter(|it| it.name != driver);
    let mut drivers: Vec<CSINodeDriver> = others.cloned().collect();
    // A driver's entry does not change: it goes and comes.
    if same.is_some() {
        write(&api, &inner.node, &drivers).await?;
    }
    if let Some(wanted) = wanted {
        drivers.push(wanted);
        write(&api, &inner.node, &drivers).await?;
    }
    Ok(())
}

async fn write(
    api: &Api<CSINode>,
    node: &str,
    drivers: &[CSINodeDriver],
) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"spec": {"drivers": drivers}}));
    let written = api.patch(node, &PatchParams::default(), &patch).await;
    written.map(drop)
}

/// What a CSINode says of a driver.
fn entry(driver: &str, node: &NodeInfo) -> CSINodeDriver {
    let topology = node.accessible_topology.as_ref();
    let keys = topology.into_iter().flat_map(|it| it.segments.keys());
    let mut keys: Vec<String> = keys.cloned().collect();
    keys.sort_unstable();
    let count = Some(node.max_volumes_per_node).filter(|count| *count > 0);
    CSINodeDriver {
        name: driver.to_owned(),
        node_id: node.node_id.clone(),
        topology_keys: (!keys.is_empty()).then_some(keys),
        allocatable: count.map(|count| VolumeNodeResources {
            count: Some(i32::try_from(count).unwrap_or(i32::MAX)),
        }),
    }
}

/// A CSINode without drivers, which goes with its node.
async fn empty(inner: &Inner) -> Result<CSINode, kube::Error> {
    let nodes: Api<Node> = Api::all(inner.client.clone());
    let node = nodes.get(&inner.node).await?;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": inner.node,
        "uid": node.metadata.uid});
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": inner.node, "ownerReferences": [owner]},
        "spec": {"drivers": []},
    });
    serde_json::from_value(object).map_err(kube::Error::SerdeError)
}

/// Says on the node where the driver sees it. What is there already stays: only people change it.
async fn label(
    client: &Client,
    node: &str,
    segments: &HashMap<String, String>,
) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get(node).await?;
    let labels = found.metadata.labels.unwrap_or_default();
    let mut news = BTreeMap::new();
    for (key, value) in segments {
        match labels.get(key) {
            None => drop(news.insert(key, value)),
            Some(known) if known == value => {}
            Some(known) => {
                tracing::warn!(key, known, value, "a driver sees the node elsewhere");
            }
        }
    }
    if news.is_empty() {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"metadata": {"labels": news}}));
    let written = nodes.patch(node, &PatchParams::default(), &patch).await;
    written.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(change: impl FnOnce(&mut PluginInfo)) -> Result<Driver, String> {
        let mut info = PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: "d.example.com".to_owned(),
            endpoint: "/k/plugins/d/csi.sock".to_owned(),
            supported_versions: vec!["1.0.0".to_owned()],
        };
        change(&mut info);
        checked(
            Path::new("/k"),
            Path::new("/k/plugins_registry/d.sock"),
            &info,
        )
    }

    #[test]
    fn a_plugin_is_a_driver_of_version_one_with_a_plain_name_and_a_socket_of_the_kubelets() {
        let driver = info(|_| {}).expect("a driver");
        assert_eq!(driver.socket, Path::new("/k/plugins/d/csi.sock"));
        let own = info(|it| it.endpoint.clear()).expect("a driver");
        assert_eq!(own.socket, Path::new("/k/plugins_registry/d.sock"));
        for version in ["v1.9", "1"] {
            info(|it| it.supported_versions = vec![version.to_owned()]).expect("a driver");
        }
        for name in [
            "",
            "a/b",
            "..",
            "-a",
            "a\n",
            &"a".repeat(64),
            "local.orchestrator.io",
        ] {
            assert!(info(|it| it.name = name.to_owned()).is_err(), "{name:?}");
        }
        for endpoint in [
            "/etc/x.sock",
            "/k/../etc/x.sock",
            "x.sock",
            "/kubelet/x.sock",
        ] {
            let refused = info(|it| it.endpoint = endpoint.to_owned());
            assert!(refused.is_err(), "{endpoint}");
        }
        assert!(info(|it| it.r#type = "DevicePlugin".to_owned()).is_err());
        assert!(info(|it| it.supported_versions = vec!["0.3.0".to_owned()]).is_err());
    }

    #[test]
    fn a_csinode_says_the_drivers_limit_and_its_keys_in_order() {
        let segments = [("z", "1"), ("a", "2")];
        let segments = segments.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let node = NodeInfo {
            node_id: "n".to_owned(),
            max_volumes_per_node: 3,
            accessible_topology: Some(super::super::messages::Topology {
                segments: segments.into(),
            }),
        };
        let entry = entry("d", &node);
        assert_eq!(entry.topology_keys, Some(vec!["a".into(), "z".into()]));
        assert_eq!(entry.allocatable.and_then(|it| it.count), Some(3));
    }
}
