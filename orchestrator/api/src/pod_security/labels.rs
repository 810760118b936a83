//! The labels of a namespace that say what holds in it.

use std::collections::BTreeMap;

use super::{Level, Policy, Standard, Version};

/// What the keys of audit annotations begin with, as the labels do.
pub const AUDIT_PREFIX: &str = "pod-security.kubernetes.io/";

/// What a violation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The pod is refused.
    Enforce,
    /// The audit event says it.
    Audit,
    /// The client is warned.
    Warn,
}

/// A label that is no level or no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLabel {
    pub label: &'static str,
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Enforce, Self::Audit, Self::Warn];

    /// The label with the level, and the one with the version.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Enforce => (
                "pod-security.kubernetes.io/enforce",
                "pod-security.kubernetes.io/enforce-version",
            ),
            Self::Audit => (
                "pod-security.kubernetes.io/audit",
                "pod-security.kubernetes.io/audit-version",
            ),
            Self::Warn => (
                "pod-security.kubernetes.io/warn",
                "pod-security.kubernetes.io/warn-version",
            ),
        }
    }

    /// `enforce`: how a policy and a configuration name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Warn => "warn",
        }
    }

    pub fn of(self, policy: &Policy) -> Standard {
        match self {
            Self::Enforce => policy.enforce,
            Self::Audit => policy.audit,
            Self::Warn => policy.warn,
        }
    }

    pub fn of_mut(self, policy: &mut Policy) -> &mut Standard {
        match self {
            Self::Enforce => &mut policy.enforce,
            Self::Audit => &mut policy.audit,
            Self::Warn => &mut policy.warn,
        }
    }

    /// What holds where nobody can say what the label means: a typing error opens no namespace, and
    /// floods no client.
    fn in_doubt(self) -> Level {
        match self {
            Self::Enforce => Level::Restricted,
            Self::Audit | Self::Warn => Level::Privileged,
        }
    }
}

/// What holds in a namespace with these labels, and the labels that are wrong.
pub fn policy(labels: &BTreeMap<String, String>, defaults: &Policy) -> (Policy, Vec<WrongLabel>) {
    let mut policy = *defaults;
    let mut wrong = Vec::new();
    let mut note = |label, value: &str, rule| {
        let value = value.to_owned();
        wrong.push(WrongLabel { label, value, rule });
    };
    for mode in Mode::ALL {
        let (level_label, version_label) = mode.labels();
        let standard = mode.of_mut(&mut policy);
        if let Some(text) = labels.get(level_label) {
            standard.level = Level::parse(text).unwrap_or_else(|| {
                note(level_label, text, Level::RULE);
                mode.in_doubt()
            });
        }
        if let Some(text) = labels.get(version_label) {
            standard.version = Version::parse(text).unwrap_or_else(|| {
                note(version_label, text, Version::RULE);
                Version::Latest
            });
        }
    }
    warn_of_what_is_enforced(labels, &mut policy);
    (policy, wrong)
}

/// Who is refused pods should hear it when the Deployment is written.
fn warn_of_what_is_enforced(labels: &BTreeMap<String, String>, policy: &mut Policy) {
    let (enforce, _) = Mode::Enforce.labels();
    let (warn, warn_version) = Mode::Warn.labels();
    let is_enforced = labels
        .get(enforce)
        .is_some_and(|text| Level::parse(text).is_some());
    let is_said = labels.contains_key(warn);
    if is_said || !is_enforced || policy.enforce.level <= policy.warn.level {
        return;
    }
    policy.warn.level = policy.enforce.level;
    if !labels.contains_key(warn_version) {
        policy.warn.version = policy.enforce.version;
    }
}
