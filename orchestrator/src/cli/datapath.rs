//! `orchestrator datapath`: look at what a node's agent put into the kernel, and take it out again.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::datapath;
use crate::datapath::events::describe;

/// Look at a node's datapath, or remove it
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Where agents pin their maps and links
    #[arg(
        long,
        global = true,
        default_value = "/sys/fs/bpf/orchestrator",
        value_name = "DIR"
    )]
    pin_root: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Print the maps, one line a row; needs root but no running agent
    #[command(after_help = "Examples:\n  \
        orchestrator datapath dump                 the only node's\n  \
        orchestrator datapath dump --node node-1   one of several")]
    Dump {
        /// The node; not needed where there is only one
        #[arg(long)]
        node: Option<String>,
    },
    /// Print how many packets met what: verdicts, then reasons of drops and refusals
    Counters {
        /// The node; not needed where there is only one
        #[arg(long)]
        node: Option<String>,
    },
    /// Print dropped packets as they are dropped, with the reason, until interrupted
    #[command(after_help = "Example:\n  orchestrator datapath drops --node node-1")]
    Drops {
        /// The node; not needed where there is only one
        #[arg(long)]
        node: Option<String>,
    },
    /// Detach the programs and delete maps and links of a node whose agent does not run
    ///
    /// The links orch-host and orch-vxlan are deleted in the network namespace of the caller.
    #[command(after_help = "Example:\n  \
        nsenter --net=/run/netns/node-1 orchestrator datapath remove --node node-1")]
    Remove {
        /// The node
        #[arg(long)]
        node: String,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Dump { node } => {
            let node = choose(&args.pin_root, node)?;
            print!("{}", datapath::dump_pinned(&args.pin_root, &node)?);
            Ok(())
        }
        Command::Counters { node } => {
            let node = choose(&args.pin_root, node)?;
            for (name, packets) in datapath::counters_pinned(&args.pin_root, &node)? {
                println!("{name:<20} {packets}");
            }
            Ok(())
        }
        Command::Drops { node } => {
            let node = choose(&args.pin_root, node)?;
            let mut drops = datapath::drops_pinned(&args.pin_root, &node)?;
            loop {
                while let Some(event) = drops.next_event() {
                    println!("{}", describe(&event));
                }
                drops.wait()?;
            }
        }
        Command::Remove { node } => {
            let node = choose(&args.pin_root, Some(node))?;
            datapath::remove_pins(&args.pin_root, &node)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime
                .block_on(datapath::link::remove())
                .context("the pins are gone")
        }
    }
}

/// The node asked for, or the only one.
fn choose(pin_root: &Path, asked: Option<String>) -> anyhow::Result<String> {
    let known = datapath::nodes(pin_root)?;
    match (asked, known.as_slice()) {
        (_, []) => bail!(
            "no node has a datapath below {}: is an agent running here, and are you root?",
            pin_root.display()
        ),
        (Some(node), _) if known.contains(&datapath::pin_name(&node)) => Ok(node),
        (Some(node), _) => bail!("no datapath of {node} here; there is {}", known.join(", ")),
        (None, [only]) => Ok(only.clone()),
        (None, several) => bail!("say which node with --node: {}", several.join(", ")),
    }
}
