//! `orchestrator store`: where the cluster's state lies, while no server runs; and moving it from there to there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::snapshots::forget_servers;
use jiff::Timestamp;
use store::snapshot;
use store::{EmbeddedStore, EtcdConfig, EtcdStore, Revision, Store};
use sys::{files, telemetry};

use super::SERVER_DATA_DIR;
use super::server::etcd::{self, Managed, ManagedArgs, Running};
use super::server::stores::{StoreArgs, embedded, embedded_to_be, hold};

/// How long an etcd that a tool starts may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Copy everything, with revisions that go on; what is in the place already, and a source in the data
    /// directory, are kept under other names
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
    #[arg(long, value_name = "DIR", default_value = SERVER_DATA_DIR)]
    pub data_dir: PathBuf,
    /// The server's own address, by which the other servers reach the etcd that it runs; managed needs it
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
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
    telemetry::init("warn")?;
    let _held = hold(&place.data_dir)?;
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
        let removed = std::fs::remove_file(&file);
        let (count, revision) = (count?, header.revision);
        println!("{count} keys moved at revision {revision}");
        removed.with_context(|| format!("{} is left", file.display()))
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
            if !managed.has_data() {
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
            let directory = &place.data_dir;
            let (path, new) = (embedded(directory), embedded_to_be(directory));
            remove(&new)?;
            let store = EmbeddedStore::create(&new, base)?;
            let count = snapshot::restore(file, &store).await?;
            forget_servers(&store).await?;
            drop(store);
            put_in_place(&new, &path)?;
            // Of the other kind nothing stays that a server would take for the cluster's.
            set_aside(&etcd::data(&place.data_dir))?;
            etcd::forget(&place.data_dir)?;
            Ok(count)
        }
        Kind::Managed => {
            let managed = managed(place)?;
            let (data, new) = (managed.data(), place.data_dir.join("etcd.new"));
            remove(&new)?;
            let etcd = managed.create_in(&new).await?;
            let filled = fill(&etcd.config, file, base).await;
            etcd.stop().await;
            let count = filled?;
            put_in_place(&new, &data)?;
            managed.note_begun_anew()?;
            // The server asks for it: a store of the other kind in its place would be taken for the cluster's.
            set_aside(&embedded(&place.data_dir))?;
            Ok(count)
        }
        Kind::Etcd => {
            let config = place.store.etcd()?.context("give --store etcd://…")?;
            fill(&config, file, base).await
        }
    }
}

/// No server opens a store that was filled in part.
async fn fill(config: &EtcdConfig, file: &Path, base: Revision) -> Result<u64> {
    let store = EtcdStore::create(config, base).await?;
    let count = snapshot::restore(file, &store).await?;
    forget_servers(&store).await?;
    store.complete().await?;
    Ok(count)
}

fn managed(place: &PlaceArgs) -> Result<Managed> {
    let address = place.advertise_address;
    let address =
        address.context("give --advertise-address: the server's own, as it is started with")?;
    Ok(Managed::new(&place.managed, &place.data_dir, address)?.within(START_TIMEOUT))
}

fn put_in_place(new: &Path, path: &Path) -> Result<()> {
    set_aside(path)?;
    let moved = std::fs::rename(new, path).and_then(|()| files::sync_directory_of(path));
    moved.with_context(|| format!("{} cannot be put in place", new.display()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(data_dir: &Path) -> PlaceArgs {
        use clap::{Args as _, FromArgMatches as _};
        let command = PlaceArgs::augment_args(clap::Command::new("restore"));
        let data_dir = data_dir.to_string_lossy();
        let matches = command.try_get_matches_from(["restore", "--data-dir", &*data_dir]);
        let matches = matches.expect("arguments");
        PlaceArgs::from_arg_matches(&matches).expect("arguments")
    }

    #[tokio::test]
    async fn of_an_etcd_that_ran_nothing_stays_that_is_taken_for_the_restored_cluster() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let file = directory.join("a.snapshot");
        let saved = snapshot::save(&store::MemoryStore::default(), &file, "", 0).await;
        saved.expect("saved");
        std::fs::create_dir_all(directory.join("etcd/member/wal")).expect("a directory");
        for name in ["etcd.started", "etcd.voters"] {
            std::fs::write(directory.join(name), "").expect("a file");
        }
        let place = place(directory);
        let count = create(Kind::Embedded, &place, &file, 7).await;
        assert_eq!(count.expect("made"), 0);
        assert!(embedded(directory).exists());
        for gone in ["etcd", "etcd.started", "etcd.voters"] {
            assert!(!directory.join(gone).exists(), "{gone}");
        }
        let entries = std::fs::read_dir(directory).expect("a list");
        let names = entries.map(|it| it.expect("an entry").file_name());
        let aside = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("etcd.before-");
        assert_eq!(names.filter(aside).count(), 1);
    }

    #[test]
    fn an_etcd_that_other_servers_join_has_no_address_by_default() {
        let directory = tempfile::tempdir().expect("a directory");
        let why = managed(&place(directory.path())).err();
        let why = why.map(|it| it.to_string()).unwrap_or_default();
        assert!(why.contains("--advertise-address"), "{why}");
    }
}
