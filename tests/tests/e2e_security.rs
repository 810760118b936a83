//! Attacks on a running cluster: of a pod on its node, of a node on the others, of strangers.
//!
//! Each scenario is an attack that succeeded once, or a promise of `orchestrator/SECURITY.md`.

#[path = "e2e_security/defaults.rs"]
mod defaults;
#[path = "e2e_security/identity.rs"]
mod identity;
#[path = "e2e_security/mounts.rs"]
mod mounts;
#[path = "e2e_security/setting.rs"]
mod setting;
#[path = "e2e_security/strangers.rs"]
mod strangers;
#[path = "e2e_security/sub_path.rs"]
mod sub_path;
#[path = "e2e_security/volumes.rs"]
mod volumes;

use std::process::ExitCode;

use setting::Setting;
use tests::scenarios;

fn main() -> ExitCode {
    let all = [
        defaults::SCENARIOS,
        identity::SCENARIOS,
        mounts::SCENARIOS,
        strangers::SCENARIOS,
        sub_path::SCENARIOS,
        volumes::SCENARIOS,
    ];
    let end = |setting: Setting| setting.cluster.down();
    scenarios::run(Setting::start, end, all.concat())
}
