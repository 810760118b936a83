//! Clients without credentials that try to keep the API server from its work.

use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[];
