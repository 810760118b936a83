//! `orchestrator store`: where the cluster's state lies, while no server runs; and moving it from there to there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use store::snapshot::{self, Header};
use store::{EmbeddedStore, EtcdStore, Revision, Store};

use super::server::etcd::{Managed, ManagedArgs, Running};
use super::server::stores::StoreArgs;

/// Move the cluster's state between the embedded store and etcd. The servers must be stopped
///
/// Examples:
///   orchestrator store migrate --to managed --advertise-address 10.0.0.1
///   orchestrator store migrate --from managed --to embedded --advertise-address 10.0.0.1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Copy everything, with revisions that go on; what is in the place already is moved aside, and the
    /// source stays as it is
    Migrate {
        /// From where: embedded, managed, or etcd (the one that --store names)
        #[arg(long, value_name = "STORE", default_value = "embedded")]
        from: Kind,
        /// To where
        #[arg(long, value_name = "STORE")]
        to: Kind,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Where a store may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A file in the data directory
    Embedded,
    /// The etcd that the server runs
    Managed,
    /// Another etcd
    Etcd,
}

/// What says where.
#[derive(clap::Args)]
pub struct PlaceArgs {
    /// Where the server keeps its data
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/orchestrator/server"
    )]
    pub data_dir: PathBuf,
    /// The server's own address, for the etcd that it runs
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    advertise_address: IpAddr,
    #[command(flatten)]
    managed: ManagedArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: Args) -> Result<()> {
    let Verb::Migrate { from, to, place } = args.verb;
    if from == to {
        bail!("--from and --to are the same store");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let source = open(from, &place).await?;
        // By way of a file: what is moved is whole before anything of it is there.
        let file = place.data_dir.join("migration.snapshot");
        let saved = snapshot::save(&*source.store, &file, "", Timestamp::now().as_second()).await;
        let base = source.store.revision();
        source.close().await;
        let header = saved?;
        let count = create(to, &place, &file, base).await;
        std::fs::remove_file(&file)?;
        let revision = header.revision;
        println!("{} keys moved at revision {revision}", count?);
        Ok(())
    })
}

/// A store that a tool has open.
struct Opened {
    store: Arc<dyn Store>,
    etcd: Option<Running>,
}

impl Opened {
    async fn close(self) {
        drop(self.store);
        if let Some(etcd) = self.etcd {
            etcd.stop().await;
        }
    }
}

/// Opens a store that is there.
async fn open(kind: Kind, place: &PlaceArgs) -> Result<Opened> {
    match kind {
        Kind::Embedded => {
            let path = embedded(&place.data_dir);
            if !path.exists() {
                bail!("there is no store {}: give --data-dir", path.display());
            }
            let store = Arc::new(EmbeddedStore::open(&path)?);
            Ok(Opened { store, etcd: None })
        }
        Kind::Managed => {
            let managed = managed(place)?;
            if !managed.data().exists() {
                bail!(
                    "there is no etcd in {}: give --data-dir",
                    managed.data().display()
                );
            }
            let etcd = managed.start(None).await?;
            let opened = EtcdStore::open(&etcd.config).await;
            let opened = opened.context(
                "etcd has no majority: take the other members out before the servers are stopped \
                 (`orchestrator server members remove`)",
            );
            finish(opened, etcd).await
        }
        Kind::Etcd => {
            let config = place.store.etcd()?.context("give --store etcd://…")?;
            let store = Arc::new(EtcdStore::open(&config).await?);
            Ok(Opened { store, etcd: None })
        }
    }
}

async fn finish(opened: Result<EtcdStore>, etcd: Running) -> Result<Opened> {
    match opened {
        Ok(store) => Ok(Opened {
            store: Arc::new(store),
            etcd: Some(etcd),
        }),
        Err(error) => {
            etcd.stop().await;
            Err(error)
        }
    }
}

/// Makes a store of a snapshot, whose revisions begin behind `base`; how many keys it has. What is in its place is
/// moved aside; nothing is there under its name before it is whole.
pub async fn create(kind: Kind, place: &PlaceArgs, file: &Path, base: Revision) -> Result<u64> {
    snapshot::check(file)?;
    match kind {
        Kind::Embedded => {
            let (path, new) = (
                embedded(&place.data_dir),
                place.data_dir.join("store.redb.new"),
            );
            remove(&new)?;
            let store = EmbeddedStore::create(&new, base)?;
            let count = snapshot::restore(file, &store).await?;
            drop(store);
            put_in_place(&new, &path)?;
            Ok(count)
        }
        Kind::Managed => {
            let managed = managed(place)?;
            let (data, new) = (managed.data(), place.data_dir.join("etcd.new"));
            remove(&new)?;
            let etcd = managed.create_in(&new).await?;
            let created = EtcdStore::create(&etcd.config, base).await;
            let opened = finish(created.map_err(Into::into), etcd).await?;
            let restored = snapshot::restore(file, &*opened.store).await;
            opened.close().await;
            let count = restored?;
            put_in_place(&new, &data)?;
            managed.note_started()?;
            // The server asks for it: a store of the other kind in its place would be taken for the cluster's.
            set_aside(&embedded(&place.data_dir))?;
            Ok(count)
        }
        Kind::Etcd => {
            let config = place.store.etcd()?.context("give --store etcd://…")?;
            let store = EtcdStore::create(&config, base).await?;
            Ok(snapshot::restore(file, &store).await?)
        }
    }
}

fn managed(place: &PlaceArgs) -> Result<Managed> {
    Managed::new(&place.managed, &place.data_dir, place.advertise_address)
}

fn embedded(data_dir: &Path) -> PathBuf {
    data_dir.join("store.redb")
}

fn put_in_place(new: &Path, path: &Path) -> Result<()> {
    set_aside(path)?;
    std::fs::rename(new, path).with_context(|| format!("{} cannot be put in place", new.display()))
}

/// Keeps what is there under another name.
fn set_aside(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
    let aside = path.with_file_name(format!("{name}.before-{time}"));
    std::fs::rename(path, &aside)
        .with_context(|| format!("{} cannot be moved aside", path.display()))?;
    eprintln!("{} is kept as {}", path.display(), aside.display());
    Ok(())
}

/// What an interrupted attempt has left.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} is in the way", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where the revisions of a store begin that is made of a snapshot.
pub fn restored_base(header: &Header) -> Revision {
    header.revision + snapshot::LEAP
}
