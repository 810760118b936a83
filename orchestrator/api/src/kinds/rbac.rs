//! The kinds of the group rbac.authorization.k8s.io.

mod binding;
pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;

pub const GROUP: &str = "rbac.authorization.k8s.io";
