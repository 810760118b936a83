//! What is encrypted, by which keys, as far as others may know it: the keys' names and fingerprints. Servers that share
//! a store compare theirs when they start, and before one joins.
//!
//! ```text
//!  server that starts ─▶ store's scheme (of the server that started last) ─▶ each reads what the other writes? ─▶ replaced
//!                                                                            └─ no: it does not start
//! ```
//!
//! So a key is changed server by server: first all can read by the new key, then all write with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use store::{Expect, Store, StoreError, Write};

use super::config::{Encryption, EncryptionError, Rule, meaning, named};

/// Where the store keeps the newest one. It is no object, and no secret.
pub const KEY: &str = "/cluster/encryption";
/// What is not encrypted.
const PLAIN: &str = "identity";

/// Equal for configurations that mean the same in the same order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scheme(Vec<Part>);

/// How the objects of some resources are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    resources: Vec<String>,
    /// Of each a name: the first one writes, all of them read.
    keys: Vec<String>,
}

impl From<&Encryption> for Scheme {
    fn from(encryption: &Encryption) -> Self {
        let part = |rule: &Rule| Part {
            resources: rule.resources().to_vec(),
            keys: rule.key_names(PLAIN),
        };
        Self(encryption.rules.iter().map(part).collect())
    }
}

impl Scheme {
    /// What keeps a server with this scheme from sharing a store with those of another one.
    fn clash(&self, others: &Self) -> Option<String> {
        let all = self.0.iter().chain(&others.0);
        let all: BTreeSet<&String> = all.flat_map(|part| &part.resources).collect();
        all.into_iter().find_map(|resource| {
            let (own, theirs) = (self.keys(resource), others.keys(resource));
            let (writes, written) = (own.first()?, theirs.first()?);
            let why = if !own.contains(written) {
                format!("the other servers store {resource} with {written}, which is not in this file: bring theirs")
            } else if !theirs.contains(writes) {
                format!(
                    "{resource} would be stored with {writes}, which the other servers do not read: put it behind \
                     the present one, start every server with that, and have it first then"
                )
            } else {
                return None;
            };
            Some(format!(
                "{why} (pki/encryption.yaml of a server that runs, or what its --encryption-provider-config names)"
            ))
        })
    }

    /// By which keys a resource is stored: those of the first part that names it.
    fn keys(&self, resource: &str) -> Vec<&str> {
        let part = self.0.iter().find(|part| named(&part.resources, resource));
        part.map_or(vec![PLAIN], |part| {
            part.keys.iter().map(String::as_str).collect()
        })
    }
}

/// What keeps a server with this scheme from serving from a store.
pub async fn clash(store: &dyn Store, own: &Scheme) -> Result<Option<String>, StoreError> {
    let found = store.get(KEY).await?;
    let others = found.as_ref().and_then(|found| read(&found.value));
    Ok(others.and_then(|others| own.clash(&others)))
}

/// Says in the store what a server that starts encrypts with. Where others share the store, they must read what it
/// writes, and it what they write.
pub async fn announce(store: &dyn Store, encryption: &Encryption) -> Result<(), EncryptionError> {
    let own = Scheme::from(encryption);
    loop {
        let found = store.get(KEY).await?;
        let others = found.as_ref().and_then(|found| read(&found.value));
        if others.as_ref() == Some(&own) {
            return Ok(());
        }
        let others = others.filter(|_| store.is_shared());
        if let Some(why) = others.and_then(|others| own.clash(&others)) {
            return Err(meaning(&encryption.file, why));
        }
        let expect = found.map_or(Expect::Absent, |found| Expect::At(found.modified));
        let text = serde_json::to_vec(&own).unwrap_or_default();
        match store.commit(vec![Write::put(KEY, text, expect)]).await {
            // Another server was there first.
            Err(StoreError::Conflict { .. }) => {}
            written => return Ok(written.map(drop)?),
        }
    }
}

fn read(text: &[u8]) -> Option<Scheme> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use store::MemoryStore;

    use super::*;

    /// A configuration of Secrets by the first word of each provider: a key's name, or `plain`.
    fn with(resources: &str, providers: &[&str]) -> Encryption {
        let provider = |name: &&str| match *name {
            "plain" => "{identity: {}}".to_owned(),
            name => {
                let letter = name.bytes().next_back().unwrap_or_default();
                let secret = STANDARD.encode([letter; 32]);
                let name = name.trim_end_matches('!');
                format!("{{aesgcm: {{keys: [{{name: {name}, secret: {secret}}}]}}}}")
            }
        };
        let providers: Vec<String> = providers.iter().map(provider).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("encryption.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [{resources}]\n  providers: [{}]\n",
            providers.join(", ")
        );
        std::fs::write(&file, text).expect("a file");
        let read = Encryption::read(&file).expect("a configuration");
        read.expect("a configuration")
    }

    async fn starts(store: &dyn Store, encryption: &Encryption) -> Result<(), String> {
        let started = announce(store, encryption).await;
        started.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_server_that_would_store_secrets_otherwise_than_the_others_does_not_start() {
        let store = MemoryStore::shared();
        let ours = with("secrets", &["one", "plain"]);
        starts(&store, &ours).await.expect("the first server");
        starts(&store, &ours).await.expect("another one like it");
        let none = Encryption::none(Path::new("/pki/encryption.yaml"));
        for (wrong, expected) in [
            (
                none,
                "/pki/encryption.yaml: the other servers store secrets with key \"one\"",
            ),
            (
                with("secrets", &["two", "plain"]),
                "with key \"one\" of aesgcm",
            ),
            (
                with("secrets", &["one!", "plain"]),
                "which is not in this file",
            ),
            (
                with("configmaps", &["one", "plain"]),
                "configmaps would be stored with",
            ),
            (
                with("'*.*'", &["one"]),
                "the other servers store *.* with identity",
            ),
        ] {
            let why = starts(&store, &wrong).await.expect_err(expected);
            assert!(why.contains(expected), "{why}");
            let asked = clash(&store, &Scheme::from(&wrong))
                .await
                .expect("an answer");
            assert!(asked.is_some(), "it would join: {expected}");
        }
        let kept = store.get(KEY).await.expect("read").expect("a scheme");
        let kept = String::from_utf8_lossy(&kept.value).into_owned();
        assert!(kept.contains("key \\\"one\\\"") && !kept.contains(&STANDARD.encode([b'e'; 32])));
    }

    #[tokio::test]
    async fn a_key_is_changed_server_by_server() {
        let store = MemoryStore::shared();
        for providers in [
            &["one", "plain"][..],
            &["one", "two", "plain"],
            &["two", "one", "plain"],
            &["two", "plain"],
            // And encryption is given up, and taken up again.
            &["plain", "two"],
            &["plain"],
            &["plain", "three"],
            &["three", "plain"],
        ] {
            let next = with("secrets", providers);
            starts(&store, &next).await.expect("the next step");
        }
        let too_early = with("secrets", &["four", "three", "plain"]);
        let why = starts(&store, &too_early).await.expect_err("too early");
        assert!(why.contains("which the other servers do not read"), "{why}");
    }

    #[tokio::test]
    async fn the_only_server_of_a_store_encrypts_as_it_is_told() {
        let store = MemoryStore::default();
        for providers in [&["one"][..], &["two"], &["plain"]] {
            let next = with("secrets", providers);
            starts(&store, &next).await.expect("its own store");
        }
    }
}
