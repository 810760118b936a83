//! Pod Security Standards: what the levels `baseline` and `restricted` forbid of a pod, as it was at a
//! version of Kubernetes. Pure.
//!
//! ```text
//! labels of the namespace ─▶ policy: a level and a version for each mode ─▶ controls ─▶ violations
//! defaults of the cluster ─┘       (enforce, audit, warn)                  (a table)
//! ```
//!
//! A control is a row of `controls::CONTROLS`. Names, versions and texts are those of Kubernetes
//! (k8s.io/pod-security-admission, as of 1.37).

mod containers;
mod controls;
mod labels;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use controls::CONTROLS;

pub use labels::{AUDIT_PREFIX, Mode, WrongLabel, policy};

/// How much a policy forbids, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// A version of the standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The newest that is known here.
    #[default]
    Latest,
    /// `v1.N`. One that is newer than all known ones is the newest known one.
    Minor(u32),
}

/// What a mode demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

/// What holds for a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

/// What a control has against a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `hostPort`
    pub reason: &'static str,
    /// `container "a" uses hostPort 80`
    pub detail: String,
}

/// What a pod, or the template of one, says of itself.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

/// What a standard has against a pod, in the order in which Kubernetes says it; none: it is allowed.
pub fn violations(standard: Standard, pod: Pod<'_>) -> Vec<Violation> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let minor = match standard.version {
        Version::Latest => u32::MAX,
        Version::Minor(minor) => minor,
    };
    let applies = |level: Level| level <= standard.level;
    let in_force = CONTROLS.iter().filter(|control| applies(control.level));
    let in_force: Vec<_> = in_force
        .filter_map(|control| Some((control, control.at(minor)?)))
        .collect();
    // A stricter control says all that the one of the lower level would.
    let is_replaced = |id: &str| {
        let mut controls = in_force.iter();
        controls.any(|(control, _)| control.replaces == Some(id))
    };
    in_force
        .iter()
        .filter(|(control, _)| !is_replaced(control.id))
        .filter_map(|(_, check)| check(pod))
        .collect()
}

/// The reasons alone: `host namespaces, privileged`.
pub fn reasons(violations: &[Violation]) -> String {
    let reasons = violations.iter().map(|violation| violation.reason);
    reasons.collect::<Vec<_>>().join(", ")
}

/// Reasons with details: `host namespaces (hostPID=true), privileged (…)`.
pub fn details(violations: &[Violation]) -> String {
    let texts = violations.iter().map(|Violation { reason, detail }| {
        if detail.is_empty() {
            (*reason).to_owned()
        } else {
            format!("{reason} ({detail})")
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

impl Level {
    /// What is wrong with a word that is no level.
    pub const RULE: &str = "must be one of privileged, baseline, restricted";

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

impl Version {
    /// What is wrong with a word that is no version.
    pub const RULE: &str = r#"must be "latest" or "v1.x""#;

    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let is_number = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        let is_short = minor == "0" || !minor.starts_with('0');
        match is_number && is_short {
            // Kubernetes reads the number into 64 bits.
            true if minor.parse::<i64>().is_err() => None,
            true => Some(Self::Minor(minor.parse().unwrap_or(u32::MAX))),
            false => None,
        }
    }
}

impl Standard {
    /// Whether both allow the same pods.
    pub fn is_equivalent(self, other: Self) -> bool {
        self == other || (self.level == Level::Privileged && other.level == Level::Privileged)
    }
}

impl Policy {
    pub fn is_fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|standard| standard.level == Level::Privileged)
    }

    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.enforce.is_equivalent(other.enforce)
            && self.audit.is_equivalent(other.audit)
            && self.warn.is_equivalent(other.warn)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}
