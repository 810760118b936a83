//! What a container gets by default, and what a pod is refused.

use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[];
