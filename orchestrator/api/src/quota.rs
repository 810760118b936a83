//! ResourceQuotas: what objects use of a namespace, and how much of it there may be.
//!
//! Which names of a quota an object counts for follows from what its kind says of itself
//! (`Resource::usage`); every kind is counted under `count/<plural>.<group>`.

mod scope;
mod usage;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use crate::amounts::{self, Amounts};
use crate::quantity::Quantity;
use crate::resource::Resource;

use scope::Selector;

/// What an object of a kind uses of its namespace's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Nothing: it is made by the system about others.
    Nothing,
    /// Itself, by the piece.
    Count,
    /// The same, also under an older name.
    CountAs(&'static str),
    /// What its containers ask for, while it runs.
    Pod,
    /// Node ports and load balancers.
    Service,
    /// Storage, also by its class.
    Claim,
}

/// A quota that limits objects.
#[derive(Clone, Debug)]
pub struct Quota {
    pub name: String,
    selectors: Vec<Selector>,
    /// What is limited.
    pub hard: Amounts,
    /// What is used of it, as far as it has been counted.
    pub used: Amounts,
}

/// Why an object does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("failed quota: {quota}: must specify {names}")]
    Missing { quota: String, names: String },
    #[error("status unknown for quota: {quota}, resources: {names}")]
    NotCounted { quota: String, names: String },
    #[error(
        "exceeded quota: {quota}, requested: {}, used: {}, limited: {}",
        amounts::text(requested),
        amounts::text(used),
        amounts::text(limited)
    )]
    Exceeded {
        quota: String,
        requested: Amounts,
        used: Amounts,
        limited: Amounts,
    },
}

/// An object as quotas see it.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    pub resource: &'a Resource,
    pub object: &'a Value,
    pub now: Timestamp,
}

impl Quota {
    /// The quota with the limits that its status says, which are the ones that hold for new objects.
    pub fn in_force(quota: &Value) -> Self {
        Self::of(quota, &quota["status"]["hard"])
    }

    /// The quota with the limits that it shall have.
    pub fn wanted(quota: &Value) -> Self {
        Self::of(quota, &quota["spec"]["hard"])
    }

    fn of(quota: &Value, hard: &Value) -> Self {
        Self {
            name: crate::meta::name(quota).to_owned(),
            selectors: scope::selectors(&quota["spec"]),
            hard: amounts::read(hard),
            used: amounts::read(&quota["status"]["used"]),
        }
    }

    /// Which of the names that it limits are about objects of the kind.
    pub fn names_of<'a>(&'a self, resource: &Resource) -> BTreeSet<&'a str> {
        let names = self.hard.keys().map(String::as_str);
        names
            .filter(|name| usage::is_about(resource, name))
            .collect()
    }

    /// What the object uses of this quota; nothing if it is not limited by it.
    pub fn usage(&self, measured: &Measured<'_>) -> Amounts {
        if self.names_of(measured.resource).is_empty() || !self.selects(measured) {
            return Amounts::new();
        }
        let mut used = usage::of(measured);
        used.retain(|name, amount| !amount.is_zero() && self.hard.contains_key(name));
        used
    }

    /// What is used when the object is there as well, in place of the one before it. None: no more than
    /// now, so there is nothing to charge.
    pub fn charged(
        &self,
        new: &Measured<'_>,
        old: Option<&Measured<'_>>,
    ) -> Result<Option<Amounts>, Refusal> {
        let names = self.names_of(new.resource);
        if names.is_empty() || !self.selects(new) {
            return Ok(None);
        }
        let quota = || self.name.clone();
        let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(",");
        let missing = usage::missing(new, &names);
        if !missing.is_empty() {
            let names = list(missing);
            return Err(Refusal::Missing {
                quota: quota(),
                names,
            });
        }
        if names.iter().any(|name| !self.used.contains_key(*name)) {
            let names = list(names);
            return Err(Refusal::NotCounted {
                quota: quota(),
                names,
            });
        }
        let before = old.map(|old| self.usage(old)).unwrap_or_default();
        let mut more = self.usage(new);
        amounts::subtract(&mut more, &before);
        more.retain(|_, amount| *amount > Quantity::ZERO);
        if more.is_empty() {
            return Ok(None);
        }
        self.with(&more).map(Some)
    }

    /// What is used with so much more.
    fn with(&self, more: &Amounts) -> Result<Amounts, Refusal> {
        let mut used = self.used.clone();
        amounts::add(&mut used, more);
        let exceeded = |name: &String| self.hard.get(name).is_some_and(|hard| used[name] > *hard);
        let over: BTreeSet<&String> = more.keys().filter(|name| exceeded(name)).collect();
        if over.is_empty() {
            return Ok(used);
        }
        let only = |amounts: &Amounts| {
            let entries = amounts.iter().filter(|(name, _)| over.contains(name));
            entries.map(|(name, of)| (name.clone(), *of)).collect()
        };
        Err(Refusal::Exceeded {
            quota: self.name.clone(),
            requested: only(more),
            used: only(&self.used),
            limited: only(&self.hard),
        })
    }

    /// Nothing of each thing that it limits and that is counted. `is_served` knows the kinds there are, by
    /// group and plural.
    pub fn nothing_used(&self, is_served: impl Fn(&str, &str) -> bool) -> Amounts {
        let names = self.hard.keys();
        names
            .filter(|name| match usage::counted(name) {
                Some((group, plural)) => is_served(group, plural),
                None => usage::is_known(name),
            })
            .map(|name| (name.clone(), Quantity::ZERO))
            .collect()
    }

    fn selects(&self, measured: &Measured<'_>) -> bool {
        let mut selectors = self.selectors.iter();
        selectors.all(|selector| selector.selects(measured))
    }
}

#[cfg(test)]
mod tests;
