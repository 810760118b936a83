//! The flags of `orchestrator server` that say where the cluster's state is kept, and opening that.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::encryption::upkeep::Place;
use apiserver::encryption::{self, EncryptedStore, Encryption, EncryptionError};
use store::etcd::{EtcdTls, EtcdUser};
use store::{EmbeddedStore, EtcdConfig, EtcdStore, Expect, Range, Store, StoreError, Write};
use sys::files;

use super::etcd;

#[derive(clap::Args)]
pub struct StoreArgs {
    /// Where the state of the cluster is kept: "embedded" is a file in the data directory, for one server;
    /// etcd://HOST[:PORT],…[/PREFIX] are the members of an etcd, for one server or several. Each of
    /// several servers has a copy of the first one's directory pki
    ///
    /// Example: --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 --etcd-cafile ca.crt
    /// --etcd-certfile client.crt --etcd-keyfile client.key
    #[arg(long, value_name = "STORE", default_value = EMBEDDED)]
    store: String,
    /// Authority of etcd's certificates (PEM). Without it etcd is reached without TLS
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate that is shown to etcd (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "etcd_keyfile",
        requires = "etcd_cafile"
    )]
    etcd_certfile: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// User of etcd's own authentication
    #[arg(long, value_name = "NAME", requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
}

const EMBEDDED: &str = "embedded";

/// Where every object's key begins.
const OBJECTS: &str = "/registry/";

/// Holds the certificate of the cluster's authority: servers that share a store share that.
const AUTHORITY: &str = "/cluster/authority";
/// How often a server that starts asks for it, and the pause between: etcd may just be starting again.
const TRIES: u32 = 20;
const TRY_PAUSE: Duration = Duration::from_secs(1);

impl StoreArgs {
    /// None: the embedded store.
    pub fn etcd(&self) -> Result<Option<EtcdConfig>> {
        if self.store == EMBEDDED {
            if self.etcd_cafile.is_some() || self.etcd_user.is_some() {
                bail!("--etcd-… are for --store etcd://…");
            }
            return Ok(None);
        }
        let mut config = EtcdConfig::parse(&self.store).map_err(|why| {
            anyhow::anyhow!(
                "--store {why}: write it as {EMBEDDED} or etcd://HOST[:PORT],…[/PREFIX]"
            )
        })?;
        let read = |path: &PathBuf| {
            let shown = path.display();
            std::fs::read(path).with_context(|| format!("{shown} cannot be read"))
        };
        let pair = self.etcd_certfile.as_ref().zip(self.etcd_keyfile.as_ref());
        let identity = pair.map(|(certificate, key)| anyhow::Ok((read(certificate)?, read(key)?)));
        let identity = identity.transpose()?;
        let authority = self.etcd_cafile.as_ref().map(read).transpose()?;
        config.tls = authority.map(|authority| EtcdTls {
            authority,
            identity,
        });
        if let Some((name, file)) = self
            .etcd_user
            .as_ref()
            .zip(self.etcd_password_file.as_ref())
        {
            let password = String::from_utf8(read(file)?);
            let password = password
                .map_err(|_| anyhow::anyhow!("{} is not text", file.display()))?
                .trim_end_matches(['\r', '\n'])
                .to_owned();
            if config.is_exposed() {
                bail!("--etcd-user without --etcd-cafile would send the password in the clear");
            }
            let name = name.clone();
            config.user = Some(EtcdUser { name, password });
        }
        Ok(Some(config))
    }

    /// Opens the store, with Secrets encrypted in it. `authority` is the certificate of the cluster's own;
    /// `managed` the etcd that the servers run themselves, if they do.
    pub async fn open(
        &self,
        data_dir: &Path,
        encryption_file: Option<&Path>,
        authority: &str,
        managed: Option<EtcdConfig>,
    ) -> Result<EncryptedStore> {
        let place = Place::in_directory(data_dir, encryption_file);
        let is_managed = managed.is_some();
        let (store, is_new): (Arc<dyn Store>, bool) = match managed
            .map_or_else(|| self.etcd(), |etcd| Ok(Some(etcd)))?
        {
            Some(config) => {
                let store = open_etcd(&config, is_managed, authority).await?;
                let first = Range {
                    limit: 1,
                    ..Range::all(OBJECTS)
                };
                let is_empty = store.range(first).await?.entries.is_empty();
                // Where another server has begun, a key of this one's own would be refused at each start.
                let is_new = is_empty && store.get(encryption::SCHEME).await?.is_none();
                (Arc::new(store), is_new)
            }
            None => {
                check_embedded(data_dir)?;
                let (path, is_new) = (&place.store, !place.store.exists());
                let store = EmbeddedStore::open(path)
                    .with_context(|| format!("the store {} cannot be opened", path.display()))?;
                (Arc::new(store), is_new)
            }
        };
        let encryption = match encryption_file {
            Some(file) => encryption_of(file)?,
            None => Encryption::load_or_create(&place.file, is_new)?,
        };
        persistently(|| encryption::announce(&*store, &encryption)).await?;
        if !encryption.is_on() {
            tracing::warn!(
                "Secrets are stored without encryption: stop the server and run `orchestrator \
                 server encrypt rewrite`"
            );
        }
        Ok(EncryptedStore::new(store, encryption))
    }
}

/// What a file that has to be there says.
pub fn encryption_of(file: &Path) -> Result<Encryption> {
    Encryption::read(file)?.with_context(|| format!("there is no file {}", file.display()))
}

/// Takes a data directory for this process: two servers, or a server and a tool that moves its store away, would
/// write each into its own. It is given up with the file.
pub fn hold(data_dir: &Path) -> Result<File> {
    let shown = data_dir.display();
    match files::lock_directory(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("{shown} is in use by a server or a tool, which must be stopped first")
        }
        held => held.with_context(|| format!("{shown} cannot be taken")),
    }
}

/// The embedded store of the server with this data directory.
pub fn embedded(data_dir: &Path) -> PathBuf {
    data_dir.join("store.redb")
}

/// The one that a restore or a move makes, until it is whole and put in the other one's place.
pub fn embedded_to_be(data_dir: &Path) -> PathBuf {
    data_dir.join("store.redb.new")
}

/// The embedded store may not begin, or go on, where the state is in etcd, and not begin where it was to be put.
fn check_embedded(data_dir: &Path) -> Result<()> {
    let (store, new) = (embedded(data_dir), embedded_to_be(data_dir));
    if new.exists() && !store.exists() {
        bail!(
            "there is no store {}, but {}: a restore or a move was interrupted. Run it again; remove that file to \
             begin with an empty cluster",
            store.display(),
            new.display()
        );
    }
    if etcd::has_begun(data_dir) {
        bail!(
            "{} holds a cluster in etcd: give --etcd managed, or move it with `orchestrator store migrate \
             --from managed --to embedded`",
            data_dir.display()
        );
    }
    Ok(())
}

async fn open_etcd(config: &EtcdConfig, is_managed: bool, authority: &str) -> Result<EtcdStore> {
    let members = config.members.join(", ");
    if config.is_exposed() {
        tracing::warn!(
            "{members}: without --etcd-cafile whoever is on the way to etcd can read and change \
             everything in the cluster"
        );
    }
    let opened = match is_managed {
        true => etcd::patiently(|| EtcdStore::open(config)).await,
        false => EtcdStore::open(config).await,
    };
    let store = opened.with_context(|| format!("etcd at {members} cannot be used"))?;
    check_authority(&store, authority).await?;
    Ok(store)
}

/// Asks etcd again while it cannot say, or not for sure, whether it did what it was asked.
async fn persistently<T>(
    ask: impl AsyncFn() -> Result<T, EncryptionError>,
) -> Result<T, EncryptionError> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match ask().await {
            Err(EncryptionError::Store(
                StoreError::Unavailable(why) | StoreError::Uncertain(why),
            )) if tries > 0 => {
                tracing::warn!(%why, "etcd is asked once more what the other servers are");
            }
            done => return done,
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
}

/// A store belongs to one authority: a server with another one would sign certificates and tokens that the
/// others refuse.
async fn check_authority(store: &EtcdStore, authority: &str) -> Result<()> {
    // Whether an etcd that died meanwhile has written it shows the next try.
    let claimed = persistently(async || {
        let write = Write::put(AUTHORITY, authority.to_owned(), Expect::Absent);
        Ok(store.commit(vec![write]).await?)
    });
    match claimed.await {
        Ok(_) => Ok(()),
        Err(EncryptionError::Store(StoreError::Conflict {
            current: Some(current),
            ..
        })) if current.value == authority.as_bytes() => Ok(()),
        Err(EncryptionError::Store(StoreError::Conflict { .. })) => bail!(
            "this etcd holds a cluster of another authority: copy the directory pki of one of its servers \
             into this server's --data-dir, or name another prefix in --store"
        ),
        Err(error) => Err(error).context("etcd cannot be used"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &[&str]) -> Result<StoreArgs, String> {
        use clap::Args as _;
        let command = StoreArgs::augment_args(clap::Command::new("server"));
        let line = ["server"].iter().chain(line);
        let matches = command.try_get_matches_from(line);
        let matches = matches.map_err(|error| error.to_string())?;
        let args = <StoreArgs as clap::FromArgMatches>::from_arg_matches(&matches);
        args.map_err(|error| error.to_string())
    }

    fn read(line: &[&str]) -> Result<Option<EtcdConfig>, String> {
        args(line)?.etcd().map_err(|error| format!("{error:#}"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_encrypts_otherwise_than_the_others_does_not_open_their_store() {
        let [first, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let running = etcd::tests::local(first.path()).start(None).await;
        let running = running.expect("started");
        let flags = args(&[]).expect("no flags");
        let open = async |directory: &Path| {
            let config = Some(running.config.clone());
            let opened = flags.open(directory, None, "the authority", config).await;
            opened.map(drop).map_err(|error| format!("{error:#}"))
        };
        open(first.path()).await.expect("the first server");
        let why = open(other.path()).await.expect_err("without its key");
        let expected = "pki/encryption.yaml: the other servers store secrets with key";
        assert!(why.contains(expected), "{why}");
        let [from, to] = [first.path(), other.path()].map(|it| it.join("pki/encryption.yaml"));
        std::fs::create_dir_all(other.path().join("pki")).expect("a directory");
        std::fs::copy(from, to).expect("copied");
        open(other.path()).await.expect("with the same key");
        running.stop().await;
    }

    #[test]
    fn the_store_is_embedded_unless_etcd_is_named() {
        assert!(read(&[]).expect("embedded").is_none());
        let etcd = read(&["--store", "etcd://a,b:1/c"])
            .expect("etcd")
            .expect("etcd");
        assert_eq!(etcd.members, ["a:2379", "b:1"]);
        let why = |line: &[&str]| read(line).err().unwrap_or_default();
        assert!(why(&["--store", "http://a"]).starts_with("--store must begin with etcd://"));
        assert!(why(&["--store", "etcd://u:p@a"]).contains("--etcd-user"));
        assert!(why(&["--etcd-cafile", "/x"]).contains("are for --store etcd://"));
        assert!(why(&["--store", "etcd://a", "--etcd-certfile", "/x"]).contains("--etcd-keyfile"));
    }

    #[test]
    fn a_data_directory_has_one_user_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = hold(directory.path()).expect("held");
        let why = hold(directory.path()).err().map(|it| it.to_string());
        assert!(why.unwrap_or_default().contains("must be stopped first"));
        drop(held);
        assert!(hold(directory.path()).is_ok());
    }

    #[test]
    fn the_embedded_store_does_not_begin_where_the_state_is_in_etcd() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(check_embedded(directory.path()).is_ok());
        std::fs::write(directory.path().join("etcd.started"), "").expect("a file");
        let why = check_embedded(directory.path())
            .err()
            .map(|it| it.to_string());
        assert!(why.unwrap_or_default().contains("--etcd managed"));
        etcd::forget(directory.path()).expect("forgotten");
        assert!(check_embedded(directory.path()).is_ok());
    }

    #[test]
    fn the_embedded_store_does_not_begin_empty_where_another_one_was_to_be_put() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, new) = (embedded(directory.path()), embedded_to_be(directory.path()));
        std::fs::write(&new, "").expect("a file");
        let why = check_embedded(directory.path()).err();
        let why = why.map(|it| it.to_string()).unwrap_or_default();
        assert!(why.contains("was interrupted. Run it again"), "{why}");
        // The former one is still in its place.
        std::fs::write(&store, "").expect("a file");
        assert!(check_embedded(directory.path()).is_ok());
    }

    #[test]
    fn a_password_is_read_from_a_file_and_never_sent_in_the_clear() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        std::fs::write(&file, "hunter2\n").expect("a file");
        let file = file.to_string_lossy();
        let with = |store| {
            read(&[
                "--store",
                store,
                "--etcd-user",
                "root",
                "--etcd-password-file",
                &file,
            ])
        };
        let local = with("etcd://127.0.0.1").expect("etcd").expect("etcd");
        let user = local.user.expect("a user");
        assert_eq!((&*user.name, &*user.password), ("root", "hunter2"));
        let why = with("etcd://10.0.0.1").err().unwrap_or_default();
        assert!(why.contains("in the clear") && !why.contains("hunter2"));
    }
}
