//! The oracle's cases over the model: API objects through `desired` to rows, rows through `lookup`
//! to where a packet ends. Needs no privilege.

use std::process::ExitCode;

use anyhow::Result;
use tests::oracle::cases::{Case, Setting, direct, generated, named};
use tests::oracle::journey::{Journeys, Modelled};
use tests::oracle::run::{Executor, run};
use tests::oracle::world::NODES;

fn main() -> ExitCode {
    let mut cases = named();
    cases.extend(generated(0..20));
    cases.extend(direct(&cases));
    run::<Model>(cases, None)
}

struct Model {
    journeys: Journeys<Modelled>,
    setting: Option<Setting>,
}

impl Executor for Model {
    fn start() -> Result<Self> {
        let nodes = (0..NODES.len() as u64).map(Modelled::new).collect();
        Ok(Model {
            journeys: Journeys::start(nodes),
            setting: None,
        })
    }

    fn judge(&mut self, case: &Case) -> Result<()> {
        if self.setting.as_ref() != Some(&case.setting) {
            self.journeys.tell(&case.setting.world())?;
            self.setting = Some(case.setting.clone());
        }
        self.journeys.judge(case)
    }
}
