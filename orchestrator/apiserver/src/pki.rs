//! The cluster's certificates: made at the first start, kept in files, and renewed while the server
//! runs. The authority lasts ten years and is not renewed.

mod etcd;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::State;
use super::authn::MASTERS;
use sys::certificates::{
    Authority, CertificateError, Credentials, Identity, Usage, der_of, ends, fingerprint, names_of,
    renewal_due,
};
use sys::files;

pub use etcd::{EtcdPki, etcd_pki};

/// How often the server looks whether a certificate is due, at least.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Everything secret that the server has.
pub struct Pki {
    /// Signs every certificate of the cluster.
    pub authority: Authority,
    /// Signs what the server shows when it passes a client's request on, and nothing else: who holds such
    /// a certificate says who a client is.
    pub front_proxy: Authority,
    /// Where the files are.
    directory: PathBuf,
    /// What the server is called.
    names: Vec<String>,
    leaf_validity: Duration,
    /// The administrator's kubeconfig, and the server's URL in it.
    kubeconfig: Option<(PathBuf, String)>,
    issued: watch::Sender<Arc<Issued>>,
}

/// The server's own certificates, as they are now.
#[derive(Debug)]
pub struct Issued {
    /// What it shows to clients, with the authority's behind it.
    pub server: Credentials,
    /// What it shows to agents.
    pub agent_client: Credentials,
    /// What an administrator shows to it.
    pub admin: Credentials,
    /// What it shows to the servers of other groups, when it passes a client's request on.
    pub front_proxy: Credentials,
}

/// What the server is called by the servers of other groups.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// Why the files could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Pki {
    /// Reads the files below `directory`, and makes those that are missing, due, or not for all of
    /// `names`. Whatever is signed, also for nodes, is valid for `leaf_validity`.
    pub fn load_or_create(
        directory: &Path,
        names: &[String],
        leaf_validity: Duration,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        files::create_private_dir(directory).map_err(|source| file(directory, source))?;
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        let authority = Authority::load_or_create(&certificate, &key, "orchestrator", now)?;
        let authority = authority.with_leaf_validity(leaf_validity);
        let own = |name: &str| directory.join(name);
        let (certificate, key) = (own("front-proxy-ca.crt"), own("front-proxy-ca.key"));
        let front_proxy = Authority::load_or_create(&certificate, &key, "front-proxy", now)?;
        let front_proxy = front_proxy.with_leaf_validity(leaf_validity);
        let leaves = Leaves {
            authority: &authority,
            front_proxy: &front_proxy,
            directory,
            names,
            leaf_validity,
        };
        let issued = watch::Sender::new(Arc::new(leaves.all(now)?));
        // Tokens that never end were made of it once.
        drop(std::fs::remove_file(directory.join("join-secret")));
        Ok(Self {
            authority,
            front_proxy,
            directory: directory.to_owned(),
            names: names.to_owned(),
            leaf_validity,
            kubeconfig: None,
            issued,
        })
    }

    /// Writes the administrator's kubeconfig, now and with every new certificate.
    pub fn with_kubeconfig(mut self, path: PathBuf, server: &str) -> Result<Self, PkiError> {
        self.kubeconfig = Some((path, server.to_owned()));
        self.write_kubeconfig()?;
        Ok(self)
    }

    /// Where the files are, for the owner alone.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificates as they are now.
    pub fn issued(&self) -> Arc<Issued> {
        self.issued.borrow().clone()
    }

    /// Tells of new ones.
    pub fn follow(&self) -> watch::Receiver<Arc<Issued>> {
        self.issued.subscribe()
    }

    /// How a join token names the authority.
    pub fn fingerprint(&self) -> Result<String, CertificateError> {
        Ok(fingerprint(&der_of(self.authority.certificate())?))
    }

    /// Makes anew what is due.
    pub fn renew(&self, now: Timestamp) -> Result<(), PkiError> {
        let leaves = Leaves {
            authority: &self.authority,
            front_proxy: &self.front_proxy,
            directory: &self.directory,
            names: &self.names,
            leaf_validity: self.leaf_validity,
        };
        self.issued.send_replace(Arc::new(leaves.all(now)?));
        self.write_kubeconfig()
    }

    /// When the first of them is due.
    fn due(&self) -> Result<Timestamp, CertificateError> {
        let issued = self.issued();
        let all = [
            &issued.server,
            &issued.agent_client,
            &issued.admin,
            &issued.front_proxy,
        ];
        let due = all.map(|leaf| renewal_due(&leaf.certificate));
        due.into_iter()
            .try_fold(Timestamp::MAX, |first, due| Ok(first.min(due?)))
    }

    /// Writes the private file unless it says so already.
    fn write_kubeconfig(&self) -> Result<(), PkiError> {
        let Some((path, server)) = &self.kubeconfig else {
            return Ok(());
        };
        let text = self.kubeconfig(server);
        let kept = files::read_if_present(path).map_err(|source| file(path, source))?;
        if kept.as_ref() == Some(&text) {
            return Ok(());
        }
        files::write_atomic(path, text.as_bytes(), files::PRIVATE)
            .map_err(|source| file(path, source))
    }

    /// A kubeconfig for an administrator.
    fn kubeconfig(&self, server: &str) -> String {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let admin = &self.issued().admin;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "orchestrator",
            "clusters": [{"name": "orchestrator", "cluster": {
                "server": server,
                "certificate-authority-data": encode(self.authority.certificate()),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": encode(&admin.certificate),
                "client-key-data": encode(&admin.key),
            }}],
            "contexts": [{"name": "orchestrator",
                "context": {"cluster": "orchestrator", "user": "admin"}}],
        });
        // JSON is YAML; block style is what people expect to edit.
        api::decode::to_yaml(&config)
    }
}

/// Renews the server's certificates as they are due, until the server stops.
pub fn start_renewal(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("certificate renewal", move || {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move {
            let Some(pki) = &state.pki else {
                return Ok(());
            };
            loop {
                let left = pki.due()?.duration_since(Timestamp::now());
                let wait = Duration::try_from(left).unwrap_or_default();
                let wait = tokio::time::sleep(wait.min(LONGEST_WAIT));
                if shutdown.unless(wait).await.is_none() {
                    return Ok::<(), PkiError>(());
                }
                let now = Timestamp::now();
                if pki.due()? <= now {
                    pki.renew(now)?;
                    tracing::info!("the server's certificates are new");
                }
            }
        }
    });
}

/// The names that the server is called by: addresses it binds and advertises, and its Service.
pub fn server_names(addresses: &[IpAddr], service: IpAddr) -> Vec<String> {
    const SERVICE_NAMES: [&str; 5] = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut names: Vec<String> = SERVICE_NAMES.map(str::to_owned).into();
    let given = addresses.iter().filter(|address| !address.is_unspecified());
    names.extend(given.map(IpAddr::to_string));
    names.push("127.0.0.1".to_owned());
    names.push(service.to_string());
    names.sort();
    names.dedup();
    names
}

/// What the server's certificates are made from.
struct Leaves<'a> {
    authority: &'a Authority,
    front_proxy: &'a Authority,
    directory: &'a Path,
    names: &'a [String],
    leaf_validity: Duration,
}

impl Leaves<'_> {
    fn all(&self, now: Timestamp) -> Result<Issued, PkiError> {
        let masters = |name: &str| Identity::new(name, &[MASTERS]);
        let server = Identity::new("kube-apiserver", &[]);
        let mut server = self.leaf("server", &server, self.names, Usage::Server, now)?;
        // A joining agent knows the authority by its hash alone: the server has to show it.
        server.certificate.push_str(self.authority.certificate());
        let agent_client = masters("kube-apiserver-kubelet-client");
        let admin = masters("kubernetes-admin");
        let front_proxy = Identity::new(FRONT_PROXY, &[]);
        Ok(Issued {
            server,
            agent_client: self.leaf("agent-client", &agent_client, &[], Usage::Client, now)?,
            admin: self.leaf("admin", &admin, &[], Usage::Client, now)?,
            front_proxy: Leaves {
                authority: self.front_proxy,
                ..*self
            }
            .leaf("front-proxy", &front_proxy, &[], Usage::Client, now)?,
        })
    }

    /// The one that is kept, unless it has to be made anew.
    fn leaf(
        &self,
        name: &str,
        identity: &Identity,
        names: &[String],
        usage: Usage,
        now: Timestamp,
    ) -> Result<Credentials, PkiError> {
        let path = self.directory.join(name);
        let (certificate, key) = (path.with_extension("crt"), path.with_extension("key"));
        if let Some(kept) = Credentials::load(&certificate, &key)?
            && self.is_good(&kept, names, now)?
        {
            return Ok(kept);
        }
        let made = self.authority.issue(identity, names, usage, now)?;
        made.save(&certificate, &key)?;
        Ok(made)
    }

    /// Whole (a server may have died between writing key and certificate), for all names, not due,
    /// and of no longer life than is given now.
    fn is_good(
        &self,
        kept: &Credentials,
        names: &[String],
        now: Timestamp,
    ) -> Result<bool, PkiError> {
        let covers = names_of(&kept.certificate)?;
        let ends = ends(&kept.certificate)?;
        Ok(kept.belong_together()?
            && names.iter().all(|name| covers.contains(name))
            && renewal_due(&kept.certificate)? > now
            && ends.duration_since(now) <= self.leaf_validity.try_into().unwrap_or_default())
    }
}

fn file(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn load(directory: &Path, names: &[&str], now: Timestamp) -> Pki {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Pki::load_or_create(directory, &names, HOUR, now).expect("certificates")
    }

    #[test]
    fn a_second_start_keeps_everything_and_a_new_name_only_renews_the_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let load = |names: &[&str]| load(directory.path(), names, Timestamp::now()).issued();
        let first = load(&["localhost"]);
        let second = load(&["localhost"]);
        assert_eq!(first.server.certificate, second.server.certificate);
        let third = load(&["localhost", "172.31.0.1"]);
        assert_ne!(first.server.certificate, third.server.certificate);
        assert_eq!(first.admin.certificate, third.admin.certificate);
    }

    #[test]
    fn what_is_due_is_renewed_in_place_with_the_kubeconfig_and_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let start = Timestamp::now();
        let file = directory.path().join("admin.kubeconfig");
        let pki = load(&directory.path().join("pki"), &["localhost"], start);
        let pki = pki.with_kubeconfig(file.clone(), "https://localhost:6443");
        let pki = pki.expect("a kubeconfig");
        let text = || std::fs::read_to_string(&file).expect("a kubeconfig");
        let (mut told, before, first) = (pki.follow(), text(), pki.issued());
        pki.renew(start + Duration::from_secs(30 * 60))
            .expect("too early");
        assert_eq!(first.server.certificate, pki.issued().server.certificate);
        assert_eq!(before, text());
        told.mark_unchanged();
        pki.renew(start + Duration::from_secs(41 * 60))
            .expect("due");
        assert_ne!(first.server.certificate, pki.issued().server.certificate);
        assert_ne!(
            first.agent_client.certificate,
            pki.issued().agent_client.certificate
        );
        assert_ne!(before, text());
        assert!(told.has_changed().expect("it is there"));
    }

    #[test]
    fn a_certificate_whose_key_was_lost_half_way_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = load(directory.path(), &["localhost"], Timestamp::now()).issued();
        let other = directory.path().join("admin.key");
        std::fs::copy(&other, directory.path().join("server.key")).expect("a copy");
        let second = load(directory.path(), &["localhost"], Timestamp::now()).issued();
        assert_ne!(first.server.certificate, second.server.certificate);
        assert_eq!(second.server.belong_together().ok(), Some(true));
    }
}
