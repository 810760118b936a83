//! The built-in kinds: `kinds/<group>/<kind>.rs` is all that is particular to one.
//!
//! A new kind is a file with `pub fn resource() -> Resource`, its `mod` line and its line here.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod flowcontrol;
pub mod networking;
pub mod node;
mod old;
pub mod policy;
pub mod rbac;
pub mod scheduling;
pub mod storage;
pub mod storagemigration;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::LazyLock;

use crate::resource::Resource;
use crate::served::Served;

/// All that are resources, in the order of discovery.
pub(crate) fn all() -> Vec<Resource> {
    vec![
        core::binding::resource(),
        core::component_status::resource(),
        core::config_map::resource(),
        core::endpoints::resource(),
        core::event::resource(),
        core::limit_range::resource(),
        core::namespace::resource(),
        core::node::resource(),
        core::persistent_volume_claim::resource(),
        core::persistent_volume::resource(),
        core::pod::resource(),
        core::pod_template::resource(),
        core::replication_controller::resource(),
        core::resource_quota::resource(),
        core::secret::resource(),
        core::service_account::resource(),
        core::service::resource(),
        apiregistration::api_service::resource(),
        apps::controller_revision::resource(),
        apps::daemon_set::resource(),
        apps::deployment::resource(),
        apps::replica_set::resource(),
        apps::stateful_set::resource(),
        authentication::self_subject_review::resource(),
        authentication::token_review::resource(),
        authorization::local_subject_access_review::resource(),
        authorization::self_subject_access_review::resource(),
        authorization::self_subject_rules_review::resource(),
        authorization::subject_access_review::resource(),
        autoscaling::horizontal_pod_autoscaler::resource(),
        batch::cron_job::resource(),
        batch::job::resource(),
        policy::pod_disruption_budget::resource(),
        scheduling::priority_class::resource(),
        certificates::certificate_signing_request::resource(),
        certificates::trust_bundle::resource(),
        networking::ingress::resource(),
        networking::ingress_class::resource(),
        networking::ip_address::resource(),
        networking::network_policy::resource(),
        networking::service_cidr::resource(),
        rbac::cluster_role::resource(),
        rbac::cluster_role_binding::resource(),
        rbac::role::resource(),
        rbac::role_binding::resource(),
        storage::csi_driver::resource(),
        storage::csi_node::resource(),
        storage::csi_storage_capacity::resource(),
        storage::storage_class::resource(),
        storage::volume_attachment::resource(),
        storage::volume_attributes_class::resource(),
        storagemigration::storage_version_migration::resource(),
        admissionregistration::mutating_admission_policy::resource(),
        admissionregistration::mutating_admission_policy_binding::resource(),
        admissionregistration::mutating_webhook_configuration::resource(),
        admissionregistration::validating_admission_policy::resource(),
        admissionregistration::validating_admission_policy_binding::resource(),
        admissionregistration::validating_webhook_configuration::resource(),
        apiextensions::custom_resource_definition::resource(),
        coordination::lease::resource(),
        node::runtime_class::resource(),
        discovery::endpoint_slice::resource(),
        flowcontrol::flow_schema::resource(),
        flowcontrol::priority_level_configuration::resource(),
    ]
}

/// Old versions of these, in the order of discovery.
pub(crate) fn views() -> Vec<Served> {
    old::views()
}

/// The body of the scale subresource.
pub static SCALE: LazyLock<Resource> = LazyLock::new(autoscaling::scale::resource);
/// The body of pods/binding.
pub static BINDING: LazyLock<Resource> = LazyLock::new(core::binding::resource);
/// The body of pods/eviction.
pub static EVICTION: LazyLock<Resource> = LazyLock::new(policy::eviction::resource);
/// What exec, attach, port-forward and proxy are asked with.
pub static POD_EXEC_OPTIONS: LazyLock<Resource> = LazyLock::new(core::connect_options::pod_exec);
pub static POD_ATTACH_OPTIONS: LazyLock<Resource> =
    LazyLock::new(core::connect_options::pod_attach);
pub static POD_PORT_FORWARD_OPTIONS: LazyLock<Resource> =
    LazyLock::new(core::connect_options::pod_port_forward);
pub static POD_PROXY_OPTIONS: LazyLock<Resource> = LazyLock::new(core::connect_options::pod_proxy);
pub static SERVICE_PROXY_OPTIONS: LazyLock<Resource> =
    LazyLock::new(core::connect_options::service_proxy);
pub static NODE_PROXY_OPTIONS: LazyLock<Resource> =
    LazyLock::new(core::connect_options::node_proxy);
/// The same as clients wrote it before Kubernetes 1.22.
pub static OLD_EVICTION: LazyLock<Resource> = LazyLock::new(policy::eviction::old);
/// The body of serviceaccounts/token.
pub static TOKEN_REQUEST: LazyLock<Resource> =
    LazyLock::new(authentication::token_request::resource);
