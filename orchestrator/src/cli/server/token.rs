//! `orchestrator server token`: the tokens that other servers join by (`--join`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use apiserver::server_token::{self, ID_LENGTH, Known, LONGEST_LIFE_S, PATH};
use comfy_table::{Table, presets::NOTHING};
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use sys::certificates::names_of;
use sys::random;

use crate::cli::workload::cluster::{Cluster, ClusterArgs, Payload};
use crate::cli::{SERVER_DATA_DIR, duration};

const PORT: u16 = 6443;
/// A server that was started a moment ago does not answer yet.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Make a token that other servers join this one by (`--join`), list those that are good, or revoke one; whoever has a
/// token gets everything
///
/// Examples:
///   orchestrator server token --ttl 1h
///   orchestrator server token list
///   orchestrator server token revoke 3k5z0q8w2c1d
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Where this server, which must run, keeps its data
    #[arg(long, global = true, value_name = "DIR", default_value = SERVER_DATA_DIR)]
    data_dir: PathBuf,
    /// How long it is good, at most 24h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// Where the other server reaches this one; its advertised address and port 6443 if not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<String>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the tokens that are good: until when, and where the etcd of each server is that has joined by one
    List,
    /// Have no server join by a token any more. Those that have joined stay
    Revoke {
        /// As the list names it
        id: String,
    },
}

pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &args.verb {
            None => make(args).await,
            Some(Verb::List) => list(&connect(&args.data_dir).await?).await,
            Some(Verb::Revoke { id }) => revoke(&connect(&args.data_dir).await?, id).await,
        }
    })
}

/// Prints TOKEN@ADDRESS.
async fn make(args: &Args) -> Result<()> {
    // A server that was started a moment ago has its files once it answers.
    let cluster = connect(&args.data_dir).await?;
    let pki = args.data_dir.join("pki");
    let address = match &args.address {
        Some(address) => address.clone(),
        None => advertised(&pki)?,
    };
    let ends = Timestamp::now().checked_add(args.ttl)?;
    let known = Known {
        id: random::word(ID_LENGTH),
        ends: ends.as_second(),
        joined: Vec::new(),
    };
    let payload = json!(known);
    let payload = Payload::Json(&payload);
    cluster.call(Method::POST, PATH, payload).await?;
    // Whatever is made of the key is made here: the API only knows the id.
    let token = server_token::make(&pki, &known.id, ends)?;
    let id = &known.id;
    eprintln!(
        "# until {ends:.0} or `orchestrator server token revoke {id}`, on the other machine, as root: orchestrator \
         server --etcd managed --advertise-address <its address> --join-file <a file with this, mode 0600>; remove \
         the file when `orchestrator server members` shows its vote"
    );
    println!("{token}@{address}");
    Ok(())
}

async fn list(cluster: &Cluster) -> Result<()> {
    let all = cluster.get(PATH).await?;
    let all: Vec<Known> = serde_json::from_value(all["items"].clone())?;
    println!("{}", table(&all, Timestamp::now()));
    Ok(())
}

async fn revoke(cluster: &Cluster, id: &str) -> Result<()> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("{id:?} is no token's id: `orchestrator server token list` shows them");
    }
    let path = format!("{PATH}/{id}");
    let revoked = cluster.call(Method::DELETE, &path, Payload::None).await;
    revoked.with_context(|| {
        format!(
            "token {id} is not revoked: `orchestrator server token list` shows those that are good"
        )
    })?;
    println!("token {id} is good no more");
    Ok(())
}

/// The server of a data directory, as its administrator, when it answers.
async fn connect(data_dir: &Path) -> Result<Cluster> {
    if !data_dir.exists() {
        bail!("{} holds no server: give --data-dir", data_dir.display());
    }
    let started = Instant::now();
    let kubeconfig = data_dir.join("admin.kubeconfig");
    loop {
        let answered = async {
            let cluster = ClusterArgs::of(&kubeconfig).connect().await?;
            cluster.get("/version").await?;
            anyhow::Ok(cluster)
        };
        match answered.await {
            Err(_) if started.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            answered => return answered.context("this server must run"),
        }
    }
}

fn advertised(pki: &Path) -> Result<String> {
    let certificate = std::fs::read_to_string(pki.join("etcd-member.crt"));
    let certificate = certificate
        .context("this server was not started with --etcd managed: no other server can join it")?;
    let names = names_of(&certificate)?;
    let address = names.iter().find_map(|name| name.parse::<IpAddr>().ok());
    let address = address.context("the certificate of etcd names no address: give --address")?;
    Ok(std::net::SocketAddr::new(address, PORT).to_string())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration::parse(text)?;
    match i64::try_from(ttl.as_secs()) {
        Ok(seconds) if seconds <= LONGEST_LIFE_S => Ok(ttl),
        _ => Err("a token is good for 24h at most".to_owned()),
    }
}

fn table(all: &[Known], now: Timestamp) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["ID", "ENDS", "JOINED"]);
    for known in all.iter().filter(|known| known.ends > now.as_second()) {
        let minutes = (known.ends - now.as_second()) / 60;
        let ends = format!("in {} h {} min", minutes / 60, minutes % 60);
        table.add_row([known.id.clone(), ends, known.joined.join(", ")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_a_day_at_most() {
        assert_eq!(ttl("1d"), Ok(Duration::from_secs(24 * 3600)));
        assert!(ttl("25h").is_err());
        assert!(ttl("x").is_err());
    }

    #[test]
    fn those_that_are_good_are_listed_with_who_has_joined() {
        let now = Timestamp::from_second(1_796_052_151).expect("a time");
        let known = |id: &str, left: i64| Known {
            id: id.to_owned(),
            ends: now.as_second() + left,
            joined: vec!["https://10.0.0.2:2380".to_owned()],
        };
        let shown = table(&[known("good", 3660), known("ended", -1)], now).to_string();
        assert!(
            shown.contains("in 1 h 1 min") && shown.contains("10.0.0.2"),
            "{shown}"
        );
        assert!(!shown.contains("ended"), "{shown}");
    }
}
