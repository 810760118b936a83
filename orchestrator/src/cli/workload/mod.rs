//! The verbs for workloads, as kubectl users know them: one file a verb, over the same REST API.

use clap::Subcommand;

mod apply;
pub mod cluster;
mod cp;
mod create;
mod delete;
mod describe;
mod exec;
mod explain;
mod expose;
mod get;
mod logs;
mod manifest;
pub mod output;
mod pods;
mod port_forward;
mod rollout;
mod run;
mod scale;
mod set;
mod terminal;
mod three_way;
mod top;

use cluster::ClusterArgs;
pub use terminal::Terminated;

/// One variant a verb.
#[derive(Subcommand)]
pub enum Verb {
    Get(get::Get),
    Create(create::Create),
    Apply(apply::Apply),
    Delete(delete::Delete),
    Describe(describe::Describe),
    Logs(logs::Logs),
    Explain(explain::Explain),
    Exec(exec::Exec),
    Attach(exec::Attach),
    PortForward(port_forward::PortForward),
    Cp(cp::Cp),
    Scale(scale::Scale),
    Rollout(rollout::Rollout),
    Set(set::Set),
    Run(run::Run),
    Expose(expose::Expose),
    Top(top::Top),
    ClusterInfo(cluster::ClusterInfo),
}

/// Runs a verb against the cluster of the kubeconfig.
pub fn run(verb: Verb) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        match verb {
            Verb::Get(verb) => verb.run().await,
            Verb::Create(verb) => verb.run().await,
            Verb::Apply(verb) => verb.run().await,
            Verb::Delete(verb) => verb.run().await,
            Verb::Describe(verb) => verb.run().await,
            Verb::Logs(verb) => verb.run().await,
            Verb::Explain(verb) => verb.run().await,
            Verb::Exec(verb) => verb.run().await,
            Verb::Attach(verb) => verb.run().await,
            Verb::PortForward(verb) => verb.run().await,
            Verb::Cp(verb) => verb.run().await,
            Verb::Scale(verb) => verb.run().await,
            Verb::Rollout(verb) => verb.run().await,
            Verb::Set(verb) => verb.run().await,
            Verb::Run(verb) => verb.run().await,
            Verb::Expose(verb) => verb.run().await,
            Verb::Top(verb) => verb.run().await,
            Verb::ClusterInfo(verb) => verb.run().await,
        }
    });
    // A thread that waits for stdin would be waited for.
    runtime.shutdown_background();
    ended
}
