//! The cluster's certificates and the join token: made at the first start, kept in files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::authn::MASTERS;
use crate::sys::certificates::{
    Authority, CertificateError, Credentials, Identity, Usage, der_of, expires_within, fingerprint,
    names_of,
};
use crate::sys::files;

/// A certificate that ends within this time is made anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Everything secret that the server has.
pub struct Pki {
    /// Signs every certificate of the cluster.
    pub authority: Authority,
    /// The server's own, with the authority's behind it.
    pub server: Credentials,
    /// What the server shows to agents.
    pub agent_client: Credentials,
    /// What an administrator shows to the server.
    pub admin: Credentials,
    /// The secret half of the join token.
    pub join_secret: String,
}

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
    /// Reads the files below `directory`, and makes those that are missing, about to end, or not
    /// for all of `names`.
    pub fn load_or_create(
        directory: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        files::create_private_dir(directory).map_err(|source| file(directory, source))?;
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        let authority = Authority::load_or_create(&certificate, &key, "orchestrator", now)?;
        let make = |name: &str, identity: Identity, names: &[String], usage: Usage| {
            leaf(
                &authority,
                &directory.join(name),
                &identity,
                names,
                usage,
                now,
            )
        };
        let mut server = make(
            "server",
            Identity::new("kube-apiserver", &[]),
            names,
            Usage::Server,
        )?;
        // A joining agent knows the authority by its hash alone: the server has to show it.
        server.certificate.push_str(authority.certificate());
        let masters = |name: &str| Identity::new(name, &[MASTERS]);
        let agent_client = make(
            "agent-client",
            masters("kube-apiserver-kubelet-client"),
            &[],
            Usage::Client,
        )?;
        let admin = make("admin", masters("kubernetes-admin"), &[], Usage::Client)?;
        let join_secret = secret(&directory.join("join-secret"))?;
        Ok(Self {
            authority,
            server,
            agent_client,
            admin,
            join_secret,
        })
    }

    /// What an agent joins with: the authority's fingerprint and the secret.
    pub fn join_token(&self) -> Result<String, CertificateError> {
        let authority = fingerprint(&der_of(self.authority.certificate())?);
        Ok(format!("{authority}.{}", self.join_secret))
    }

    /// A kubeconfig for an administrator.
    pub fn kubeconfig(&self, server: &str) -> String {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "orchestrator",
            "clusters": [{"name": "orchestrator", "cluster": {
                "server": server,
                "certificate-authority-data": encode(self.authority.certificate()),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": encode(&self.admin.certificate),
                "client-key-data": encode(&self.admin.key),
            }}],
            "contexts": [{"name": "orchestrator",
                "context": {"cluster": "orchestrator", "user": "admin"}}],
        });
        // JSON is YAML; block style is what people expect to edit.
        serde_yaml::to_string(&config).unwrap_or_else(|_| config.to_string())
    }
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

fn leaf(
    authority: &Authority,
    path: &Path,
    identity: &Identity,
    names: &[String],
    usage: Usage,
    now: Timestamp,
) -> Result<Credentials, PkiError> {
    let (certificate, key) = (path.with_extension("crt"), path.with_extension("key"));
    if let Some(kept) = Credentials::load(&certificate, &key)? {
        let covers = names_of(&kept.certificate)?;
        let current = names.iter().all(|name| covers.contains(name));
        if current && !expires_within(&kept.certificate, RENEW_BEFORE, now)? {
            return Ok(kept);
        }
    }
    let made = authority.issue(identity, names, usage, now)?;
    made.save(&certificate, &key)?;
    Ok(made)
}

fn secret(path: &Path) -> Result<String, PkiError> {
    let kept = files::read_if_present(path).map_err(|source| file(path, source))?;
    if let Some(kept) = kept.filter(|kept| !kept.trim().is_empty()) {
        return Ok(kept.trim().to_owned());
    }
    // Two random UUIDs: 244 bits.
    let made = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    files::write_atomic(path, made.as_bytes(), files::PRIVATE)
        .map_err(|source| file(path, source))?;
    Ok(made)
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

    #[test]
    fn a_second_start_keeps_everything_and_a_new_name_only_renews_the_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = Timestamp::now();
        let load = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            Pki::load_or_create(directory.path(), &names, now).expect("certificates")
        };
        let first = load(&["localhost"]);
        let second = load(&["localhost"]);
        assert_eq!(first.server.certificate, second.server.certificate);
        assert_eq!(first.join_token().ok(), second.join_token().ok());
        let third = load(&["localhost", "172.31.0.1"]);
        assert_ne!(first.server.certificate, third.server.certificate);
        assert_eq!(first.admin.certificate, third.admin.certificate);
    }
}
