//! `orchestrator server members`: the members of the etcd that the servers run, seen from one of their machines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::member_name;
use comfy_table::{Table, presets::NOTHING};
use store::EtcdConfig;
use store::etcd::{EtcdTls, Member, Members};
use sys::certificates::names_of;

use super::etcd::config;
use crate::cli::SERVER_DATA_DIR;

/// A file of the largest size, on a slow disk.
const DEFRAGMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// List the members of the etcd that the servers run, or take one out whose machine is gone
///
/// Examples:
///   orchestrator server members
///   orchestrator server members remove server-10-0-0-3-2380
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Where this server keeps its data
    #[arg(long, global = true, value_name = "DIR", default_value = SERVER_DATA_DIR)]
    data_dir: PathBuf,
    /// A member that answers; this server's own one if not given
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    endpoint: Option<String>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Take a member out: its machine is gone, or is to begin anew
    Remove {
        /// As the list names it, or its URL
        name: String,
    },
    /// Have each member give free pages of its file back, one after the other, and let a full etcd take writes
    /// again
    Defragment,
}

pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let members = Members::connect(&reached(&args)?).map_err(anyhow::Error::msg)?;
        let all = members.list().await?;
        match &args.verb {
            None => println!("{}", table(&all)),
            Some(Verb::Remove { name }) => {
                let found = find(&all, name);
                let Some(found) = found else {
                    bail!("there is no member {name}: `orchestrator server members` lists them");
                };
                members.remove(found.id).await?;
                println!("member {name} removed");
            }
            Some(Verb::Defragment) => defragment(&args.data_dir.join("pki"), &all).await?,
        }
        Ok(())
    })
}

async fn defragment(pki: &Path, all: &[Member]) -> Result<()> {
    for member in all {
        let Some(client) = &member.client else {
            continue;
        };
        let mut one = config([client.clone()], &tls(pki)?)?;
        one.timeout = DEFRAGMENT_TIMEOUT;
        let asked = Members::connect(&one).map_err(anyhow::Error::msg)?;
        asked
            .defragment()
            .await
            .with_context(|| member.name.clone())?;
        println!("member {} defragmented", member.name);
        if asked.disarm().await? > 0 {
            println!("etcd takes writes again");
        }
    }
    Ok(())
}

fn reached(args: &Args) -> Result<EtcdConfig> {
    let pki = args.data_dir.join("pki");
    let endpoint = match &args.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => own_endpoint(&pki)?,
    };
    config([endpoint], &tls(&pki)?)
}

fn tls(pki: &Path) -> Result<EtcdTls> {
    let read = |name: &str| {
        let missing = "no etcd is managed from this directory: give --data-dir";
        std::fs::read(pki.join(name)).with_context(|| format!("{missing} ({name})"))
    };
    Ok(EtcdTls {
        authority: read("etcd-ca.crt")?,
        identity: Some((read("etcd-client.crt")?, read("etcd-client.key")?)),
    })
}

/// By the certificate that this server's member shows, and the usual port.
fn own_endpoint(pki: &Path) -> Result<String> {
    let certificate = std::fs::read_to_string(pki.join("etcd-member.crt"))?;
    let names = names_of(&certificate)?;
    let address = names.iter().find_map(|name| name.parse().ok());
    let address: std::net::IpAddr = address.context("give --endpoint")?;
    Ok(std::net::SocketAddr::new(address, 2379).to_string())
}

/// etcd knows no name of a member that has not started yet: the one that it will have.
fn name(member: &Member) -> String {
    if !member.name.is_empty() {
        return member.name.clone();
    }
    let address = member.peer.strip_prefix("https://");
    let address = address.and_then(|address| address.parse().ok());
    address.map_or_else(|| member.peer.clone(), member_name)
}

fn find<'a>(all: &'a [Member], wanted: &str) -> Option<&'a Member> {
    let is_it = |member: &&Member| name(member) == wanted || member.peer == wanted;
    all.iter().find(is_it)
}

fn table(all: &[Member]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["NAME", "MEMBERS", "CLIENTS", "STATE"]);
    for member in all {
        let state = match (member.name.is_empty(), member.is_learner) {
            (true, _) => "not started",
            (false, true) => "catching up",
            (false, false) => "votes",
        };
        let client = member.client.as_deref().unwrap_or_default();
        table.add_row([&*name(member), &member.peer, client, state]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_never_started_has_a_name_to_be_taken_out_by() {
        let member = |id, name: &str, peer: &str| Member {
            id,
            name: name.to_owned(),
            peer: peer.to_owned(),
            client: None,
            is_learner: false,
        };
        let all = [
            member(1, "server-10-0-0-1-2380", "https://10.0.0.1:2380"),
            member(2, "", "https://10.0.0.2:2380"),
            member(3, "", "https://other:2380"),
        ];
        let id = |wanted: &str| find(&all, wanted).map(|member| member.id);
        assert_eq!(id("server-10-0-0-1-2380"), Some(1));
        assert_eq!(id("server-10-0-0-2-2380"), Some(2));
        assert_eq!(id("https://10.0.0.2:2380"), Some(2));
        assert_eq!(id("https://other:2380"), Some(3));
        assert_eq!(id(""), None);
        assert!(table(&all).to_string().contains("server-10-0-0-2-2380"));
    }
}
