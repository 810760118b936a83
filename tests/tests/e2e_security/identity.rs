//! What a node, a token and a stranger may do at the API server.

use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[];
