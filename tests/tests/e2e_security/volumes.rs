//! Volumes that the agent writes: what a container can change of them, and how updates arrive.

use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[];
