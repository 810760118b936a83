//! A load on any Kubernetes API server that a kubeconfig names, and two servers to compare by it.

pub mod connection;
pub mod cost;
pub mod floor;
pub mod large;
pub mod load;
pub mod side;
pub mod table;
