//! The Service scenarios that need an API server, agents and pods, on one cluster of both families.
//!
//! It is made by the first scenario that runs and removed after the last, whatever failed.

#[path = "e2e_services/families.rs"]
mod families;
#[path = "e2e_services/life.rs"]
mod life;
#[path = "e2e_services/node_ports.rs"]
mod node_ports;
#[path = "e2e_services/sctp.rs"]
mod sctp;
#[path = "e2e_services/setting.rs"]
mod setting;
#[path = "e2e_services/type_changes.rs"]
mod type_changes;

use std::process::ExitCode;

use setting::Setting;
use tests::scenarios::{self, Scenario};

const SCENARIOS: [Scenario<Setting>; 15] = [
    ("service_survives_server_restart", life::server_restart),
    ("node_port_collision_is_refused", node_ports::collision),
    (
        "node_port_out_of_range_is_refused",
        node_ports::out_of_range,
    ),
    ("node_port_is_released_on_delete", node_ports::released),
    (
        "node_port_can_be_reused_for_another_protocol",
        node_ports::other_protocol,
    ),
    (
        "type_changes_external_name_to_cluster_ip",
        type_changes::external_name_to_cluster_ip,
    ),
    (
        "type_changes_external_name_to_node_port",
        type_changes::external_name_to_node_port,
    ),
    (
        "type_changes_cluster_ip_to_external_name",
        type_changes::cluster_ip_to_external_name,
    ),
    (
        "type_changes_node_port_to_external_name",
        type_changes::node_port_to_external_name,
    ),
    (
        "connection_is_refused_when_the_only_pods_are_evicted",
        life::evicted,
    ),
    (
        "health_check_node_port_answers_and_fails_when_only_terminating_endpoints_are_left",
        life::health_check,
    ),
    (
        "single_stack_and_dual_stack_services_get_their_addresses_in_order",
        families::addresses_in_order,
    ),
    (
        "sctp_service_is_accepted_and_translates_addresses",
        sctp::addresses,
    ),
    ("api_server_service_has_endpoints", life::api_server),
    ("custom_endpoints_are_mirrored_to_slices", life::mirrored),
];

fn main() -> ExitCode {
    scenarios::run(Setting::start, |setting| setting.cluster.down(), SCENARIOS)
}
