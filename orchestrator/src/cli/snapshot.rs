//! `orchestrator snapshot`: the whole state of the cluster in a file, and back.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use apiserver::snapshots::{self, PATH};
use comfy_table::{Table, presets::NOTHING};
use http::Method;
use jiff::Timestamp;
use serde_json::Value;
use store::snapshot;
use sys::certificates::{der_of, fingerprint};
use sys::{files, telemetry};

use super::server::stores::hold;
use super::store::{Kind, PlaceArgs, create};
use super::workload::cluster::{ClusterArgs, Payload};

/// Save the state of the cluster, list what is saved, restore it
///
/// A snapshot holds everything but the keys and certificates in the directory pki, without which nobody reads
/// the Secrets in it: keep a copy of both, apart from each other.
///
/// Examples:
///   orchestrator snapshot save
///   orchestrator snapshot list
///   orchestrator snapshot restore /backup/20261130T080000-000000-asked.snapshot
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Have the server take one in its directory, and print its path there
    Save {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// List those of the server, or those in a directory
    List {
        /// A directory on this machine; no server is asked
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Say whether a file is a whole snapshot, and of what
    Check { file: PathBuf },
    /// Make the store of a snapshot, while no server runs. What is there is moved aside
    Restore {
        file: PathBuf,
        /// Into which store: embedded, managed, or etcd (an empty one, that --store names)
        #[arg(long, value_name = "STORE", default_value = "embedded")]
        to: Kind,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.verb {
            Verb::Save { cluster } => {
                let cluster = cluster.connect().await?;
                let taken = cluster.call(Method::POST, PATH, Payload::None).await?;
                let path = taken["path"].as_str().context("the answer names no file")?;
                println!("{path}");
                Ok(())
            }
            Verb::List { dir: Some(dir), .. } => {
                let found = snapshots::list(&dir)
                    .with_context(|| format!("{} cannot be read", dir.display()))?;
                let items: Vec<Value> = found.iter().map(snapshots::shown).collect();
                println!("{}", table(&items));
                Ok(())
            }
            Verb::List { dir: None, cluster } => {
                let all = cluster.connect().await?.get(PATH).await?;
                let items = all["items"].as_array().cloned().unwrap_or_default();
                println!("{}", table(&items));
                Ok(())
            }
            Verb::Check { file } => {
                let (header, count) = snapshot::check(&file)?;
                let taken = Timestamp::from_second(header.taken)?;
                println!(
                    "whole: {count} keys at revision {}, taken {taken}",
                    header.revision
                );
                Ok(())
            }
            Verb::Restore { file, to, place } => restore(&file, to, &place).await,
        }
    })
}

async fn restore(file: &std::path::Path, to: Kind, place: &PlaceArgs) -> Result<()> {
    telemetry::init("warn")?;
    let (header, _) = snapshot::check(file)?;
    let own = files::read_if_present(&place.data_dir.join("pki").join("ca.crt"))?;
    let own = own.with_context(|| {
        let pki = place.data_dir.join("pki");
        format!(
            "{} is not there: copy the cluster's back first",
            pki.display()
        )
    })?;
    let own = fingerprint(&der_of(&own)?);
    if header.authority != own {
        bail!("the snapshot is of a cluster with another authority than the one in --data-dir");
    }
    let base = header.restored_base(Timestamp::now().as_second());
    let base = base.context("the snapshot's revision is beyond what is counted")?;
    let _held = hold(&place.data_dir)?;
    let count = create(to, place, file, base).await?;
    println!("{count} keys restored as of revision {}", header.revision);
    if to == Kind::Managed {
        println!(
            "start this server; on each other server move its directory etcd away and start it with --join"
        );
    }
    Ok(())
}

fn table(items: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["PATH", "TAKEN", "REVISION", "BYTES"]);
    for item in items {
        let number = |field: &str| item[field].as_u64().map(|it| it.to_string());
        let taken = item["taken"].as_i64();
        let taken = taken.and_then(|taken| Timestamp::from_second(taken).ok());
        table.add_row([
            item["path"].as_str().unwrap_or_default().to_owned(),
            taken.map_or_else(|| "damaged".to_owned(), |taken| taken.to_string()),
            number("revision").unwrap_or_default(),
            number("bytes").unwrap_or_default(),
        ]);
    }
    table
}
