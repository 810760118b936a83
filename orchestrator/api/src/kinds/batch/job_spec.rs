//! What a Job and the template of a CronJob's Jobs have in common.

use serde_json::Value;

use super::policies;
use crate::defaults::{items, set};
use crate::kinds::core::pod;
use crate::validation::{At, Errors, names};

pub const INDEXED: &str = "Indexed";

const MODES: [&str; 2] = ["NonIndexed", INDEXED];

/// The most pods of an indexed Job at once, and the most indexes that may fail.
const MAX_INDEXED: i64 = 100_000;
/// Above as many completions a Job that counts failures by index is bounded further.
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_OF_MANY: i64 = 10_000;

/// The longest name of a controller that is not the server's own.
const MAX_MANAGED_BY_BYTES: usize = 63;

/// A condition that a failure policy names holds unless it says otherwise.
pub fn default_policy(spec: &mut Value) {
    let Some(policy) = spec.get_mut("podFailurePolicy") else {
        return;
    };
    for rule in items(policy, "rules") {
        for condition in items(rule, "onPodConditions") {
            set(condition, "status", || "True".into());
        }
    }
}

pub fn validate(spec: &At<'_>, errors: &mut Errors) {
    for count in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.not_negative(&spec.field(count));
    }
    managed_by(&spec.field("managedBy"), errors);
    let (limit, failed) = (
        spec.field("backoffLimitPerIndex"),
        spec.field("maxFailedIndexes"),
    );
    if !failed.is_null() && limit.is_null() {
        errors.required(&limit, "when maxFailedIndexes is specified");
    }
    let mode = spec.field("completionMode");
    if !mode.is_null() && !MODES.contains(&mode.text()) {
        errors.not_supported(&mode, &MODES);
    }
    if mode.text() == INDEXED {
        indexed(spec, errors);
    } else if matches!(mode.text(), "" | "NonIndexed") {
        for field in [&limit, &failed] {
            if !field.is_null() {
                errors.invalid(field, "requires indexed completion mode");
            }
        }
    }
    policies::failure(spec, errors);
    policies::success(spec, errors);
    policies::replacement(spec, errors);
    let template = spec.field("template");
    pod::validate_template(&template, errors);
    restart_policy(spec, &template, errors);
}

/// Another controller than the server's own, as a path below a domain.
fn managed_by(name: &At<'_>, errors: &mut Errors) {
    if name.is_null() {
        return;
    }
    match name.text().split_once('/') {
        _ if name.is_empty() => errors.required(name, ""),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            errors.check_key(name, domain, names::subdomain(domain));
            errors.check_key(name, path, names::http_path(path));
        }
        _ => errors.invalid(
            name,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
    }
    if name.text().len() > MAX_MANAGED_BY_BYTES {
        errors.too_long(name, MAX_MANAGED_BY_BYTES);
    }
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let completions = spec.field("completions");
    let parallelism = spec.field("parallelism");
    let failed = spec.field("maxFailedIndexes");
    let at_most = |at: &At<'_>, most: i64, detail: &str, errors: &mut Errors| {
        if at.number() > most {
            errors.invalid(at, detail);
        }
    };
    if completions.is_null() {
        errors.required(&completions, "when completion mode is Indexed");
    }
    let detail = format!("must be less than or equal to {MAX_INDEXED}");
    let indexed = format!("{detail} when completion mode is {INDEXED}");
    at_most(&parallelism, MAX_INDEXED, &indexed, errors);
    if !completions.is_null() {
        let all = completions.number();
        let detail = "must be less than or equal to completions";
        at_most(&failed, all, detail, errors);
    }
    at_most(&failed, MAX_INDEXED, &detail, errors);
    let by_index = !spec.field("backoffLimitPerIndex").is_null();
    if completions.number() <= MANY_COMPLETIONS || !by_index {
        return;
    }
    if failed.is_null() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.required(&failed, &detail);
    }
    let detail = format!(
        "must be less than or equal to {MAX_OF_MANY} when completions are above \
         {MANY_COMPLETIONS} and used with backoff limit per index"
    );
    at_most(&parallelism, MAX_OF_MANY, &detail, errors);
    at_most(&failed, MAX_OF_MANY, &detail, errors);
}

/// A pod that is restarted always has no end. That is the default of pods, so that nobody said it.
fn restart_policy(spec: &At<'_>, template: &At<'_>, errors: &mut Errors) {
    let pod = template.field("spec");
    let policy = pod.field("restartPolicy");
    match policy.text() {
        "" | "Always" => errors.required(&policy, r#"valid values: "OnFailure", "Never""#),
        "Never" => {}
        "OnFailure" if spec.field("podFailurePolicy").is_null() => {}
        "OnFailure" => {
            let detail = r#"only "Never" is supported when podFailurePolicy is specified"#;
            errors.invalid(&policy, detail);
        }
        _ => errors.not_supported(&policy, &["OnFailure", "Never"]),
    }
}
