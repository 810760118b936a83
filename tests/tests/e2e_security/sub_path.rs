//! Pods that lead the agent astray with links, mounts and special files.

use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[];
