//! `orchestrator version`: what this binary is.

use apiserver::KUBERNETES_VERSION;

/// Show the version of this binary and of the API that it serves
#[derive(clap::Args)]
pub struct Args {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub fn run(args: Args) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    if args.json {
        println!(
            "{}",
            serde_json::json!({"version": own, "kubernetes": KUBERNETES_VERSION})
        );
    } else {
        println!("orchestrator {own} (Kubernetes API {KUBERNETES_VERSION})");
    }
    Ok(())
}
