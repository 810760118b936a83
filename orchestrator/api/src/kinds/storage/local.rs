//! The names of the local volumes: disk images on a node, of the class that every cluster has.
//!
//! ```text
//! claim + selected-node ─▶ binder: PersistentVolume (csi, driver DRIVER, node in NODE_ATTRIBUTE)
//!                                   │ agent of that node: image, file system, mount
//!            annotation SIZE ◀──────┤ capacity of the volume grew
//!          FINALIZER removed ◀──────┘ volume deleted: image removed
//! ```

use serde_json::Value;

/// The provisioner of the class and the driver of its volumes.
pub const DRIVER: &str = "local.orchestrator.io";

/// The class that a new cluster has.
pub const CLASS: &str = "local";

/// Of a volume's source: the name of the node that has the image.
pub const NODE_ATTRIBUTE: &str = "node";

/// The label of a volume that says the same, by which the agent of the node finds its volumes.
pub const NODE_LABEL: &str = "local.orchestrator.io/node";

/// Of a class's parameters and a volume's source: `thin`, or `thick` for space that is set aside at once.
pub const ALLOCATION: &str = "allocation";

/// Keeps a volume until the agent has removed its image.
pub const FINALIZER: &str = "local.orchestrator.io/image";

/// Of a volume: how many bytes its file system or device has. The agent writes it when they have become more.
pub const SIZE: &str = "local.orchestrator.io/size";

/// The node that has a volume's image; none for volumes of other drivers.
pub fn node_of(volume: &Value) -> Option<&str> {
    let source = &volume["spec"]["csi"];
    let node = source["volumeAttributes"][NODE_ATTRIBUTE].as_str()?;
    (source["driver"] == DRIVER && !node.is_empty()).then_some(node)
}
