//! The kinds of the group storage.k8s.io.

pub mod attach;
pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod local;
mod parameters;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

pub const GROUP: &str = "storage.k8s.io";
