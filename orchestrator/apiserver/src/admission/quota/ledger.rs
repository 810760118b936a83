//! What is used of every quota, kept as objects come, change and go: a change costs what changed. Pure.
//!
//! Written by `recount`, alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::amounts::{self, Amounts};
use api::quota::{Measured, Quota};
use serde_json::Value;
use store::Revision;

/// The quotas of all namespaces that have one.
#[derive(Default)]
pub struct Ledger {
    namespaces: BTreeMap<String, BTreeMap<String, Account>>,
    /// What may have to be written: namespace and name.
    changed: BTreeSet<(String, String)>,
}

/// One quota and who uses how much of it.
struct Account {
    /// The quota, as it was at `revision`.
    object: Value,
    revision: Revision,
    quota: Quota,
    /// By the keys of the objects.
    users: BTreeMap<Arc<str>, Amounts>,
    sum: Amounts,
    /// The users were read at this revision or before: what is in flight up to it may be counted twice
    /// over until it is reached.
    sound_from: Revision,
}

/// A status that does not say what is used.
#[derive(Debug, PartialEq)]
pub struct Correction {
    /// The whole quota as it should be.
    pub quota: Value,
    /// The revision of the quota that it replaces.
    pub revision: Revision,
}

impl Ledger {
    /// Whether objects of the namespace are limited.
    pub fn has(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// A quota as it is now. True: its objects must be counted, by `begin` and `count`.
    pub fn quota(
        &mut self,
        namespace: &str,
        name: &str,
        object: Option<Value>,
        revision: Revision,
    ) -> bool {
        self.changed.insert((namespace.to_owned(), name.to_owned()));
        let accounts = self.namespaces.entry(namespace.to_owned()).or_default();
        let Some(object) = object else {
            accounts.remove(name);
            if accounts.is_empty() {
                self.namespaces.remove(namespace);
            }
            return false;
        };
        if let Some(account) = accounts.get_mut(name)
            && account.object["spec"] == object["spec"]
            && account.object["metadata"]["uid"] == object["metadata"]["uid"]
        {
            account.object = object;
            account.revision = revision;
            return false;
        }
        let account = Account {
            quota: Quota::wanted(&object),
            object,
            revision,
            users: BTreeMap::new(),
            sum: Amounts::new(),
            sound_from: Revision::MAX,
        };
        accounts.insert(name.to_owned(), account);
        true
    }

    /// The quota's objects will be shown by `count`, as they were at this revision or later.
    pub fn begin(&mut self, namespace: &str, name: &str, sound_from: Revision) -> Option<&Quota> {
        self.changed.insert((namespace.to_owned(), name.to_owned()));
        let account = self.namespaces.get_mut(namespace)?.get_mut(name)?;
        account.users.clear();
        account.sum.clear();
        account.sound_from = sound_from;
        Some(&account.quota)
    }

    /// One object for one quota that is being counted.
    pub fn count(&mut self, namespace: &str, name: &str, key: &Arc<str>, of: &Measured<'_>) {
        let accounts = self.namespaces.get_mut(namespace);
        if let Some(account) = accounts.and_then(|accounts| accounts.get_mut(name)) {
            account.set(key, account.quota.usage(of));
        }
    }

    /// An object of the namespace is there, or has changed.
    pub fn put(&mut self, namespace: &str, key: &Arc<str>, of: &Measured<'_>) {
        self.set(namespace, key, |quota| quota.usage(of));
    }

    /// An object of the namespace is gone.
    pub fn gone(&mut self, namespace: &str, key: &Arc<str>) {
        self.set(namespace, key, |_| Amounts::new());
    }

    fn set(&mut self, namespace: &str, key: &Arc<str>, usage: impl Fn(&Quota) -> Amounts) {
        let accounts = self.namespaces.get_mut(namespace);
        for (name, account) in accounts.into_iter().flatten() {
            if account.set(key, usage(&account.quota)) {
                self.changed.insert((namespace.to_owned(), name.clone()));
            }
        }
    }

    /// The statuses that are wrong, given that everything up to `reached` was shown. Kinds that are served
    /// are counted, by group and plural.
    pub fn corrections(
        &mut self,
        reached: Revision,
        is_served: impl Fn(&str, &str) -> bool,
    ) -> Vec<Correction> {
        let mut later = BTreeSet::new();
        let mut corrections = Vec::new();
        for (namespace, name) in std::mem::take(&mut self.changed) {
            let accounts = self.namespaces.get(&namespace);
            let Some(account) = accounts.and_then(|accounts| accounts.get(&name)) else {
                continue;
            };
            if account.sound_from > reached {
                later.insert((namespace, name));
                continue;
            }
            corrections.extend(account.correction(&is_served));
        }
        self.changed = later;
        corrections
    }

    /// Whether a status may have to be written.
    pub fn is_dirty(&self) -> bool {
        !self.changed.is_empty()
    }

    /// All quotas: namespace and name.
    pub fn all(&self) -> Vec<(String, String)> {
        let namespaces = self.namespaces.iter();
        namespaces
            .flat_map(|(namespace, accounts)| {
                accounts
                    .keys()
                    .map(|name| (namespace.clone(), name.clone()))
            })
            .collect()
    }
}

impl Account {
    /// Whether that made a difference.
    fn set(&mut self, key: &Arc<str>, usage: Amounts) -> bool {
        let before = match usage.is_empty() {
            true => self.users.remove(key),
            false => self.users.insert(key.clone(), usage.clone()),
        };
        if before.as_ref() == Some(&usage) || (before.is_none() && usage.is_empty()) {
            return false;
        }
        amounts::subtract(&mut self.sum, &before.unwrap_or_default());
        amounts::add(&mut self.sum, &usage);
        true
    }

    fn correction(&self, is_served: impl Fn(&str, &str) -> bool) -> Option<Correction> {
        let mut used = self.quota.nothing_used(is_served);
        for (name, amount) in &mut used {
            if let Some(sum) = self.sum.get(name) {
                *amount = *sum;
            }
        }
        let status = &self.object["status"];
        let is_right = amounts::read(&status["hard"]) == self.quota.hard
            && amounts::read(&status["used"]) == used;
        if is_right {
            return None;
        }
        let mut quota = self.object.clone();
        quota["status"]["hard"] = amounts::write(&self.quota.hard);
        quota["status"]["used"] = amounts::write(&used);
        Some(Correction {
            quota,
            revision: self.revision,
        })
    }
}

#[cfg(test)]
mod tests;
