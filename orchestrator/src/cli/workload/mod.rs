//! The verbs for workloads, as kubectl users know them: one file a verb, over the same REST API.

use clap::Subcommand;

mod apply;
pub mod cluster;
mod create;
mod delete;
mod describe;
mod expose;
mod get;
mod logs;
mod manifest;
pub mod output;
mod rollout;
mod run;
mod scale;
mod set;
mod three_way;

use cluster::ClusterArgs;

/// One variant a verb.
#[derive(Subcommand)]
pub enum Verb {
    Get(get::Get),
    Create(create::Create),
    Apply(apply::Apply),
    Delete(delete::Delete),
    Describe(describe::Describe),
    Logs(logs::Logs),
    Scale(scale::Scale),
    Rollout(rollout::Rollout),
    Set(set::Set),
    Run(run::Run),
    Expose(expose::Expose),
    ClusterInfo(cluster::ClusterInfo),
}

/// Runs a verb against the cluster of the kubeconfig.
pub fn run(verb: Verb) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match verb {
            Verb::Get(verb) => verb.run().await,
            Verb::Create(verb) => verb.run().await,
            Verb::Apply(verb) => verb.run().await,
            Verb::Delete(verb) => verb.run().await,
            Verb::Describe(verb) => verb.run().await,
            Verb::Logs(verb) => verb.run().await,
            Verb::Scale(verb) => verb.run().await,
            Verb::Rollout(verb) => verb.run().await,
            Verb::Set(verb) => verb.run().await,
            Verb::Run(verb) => verb.run().await,
            Verb::Expose(verb) => verb.run().await,
            Verb::ClusterInfo(verb) => verb.run().await,
        }
    })
}
