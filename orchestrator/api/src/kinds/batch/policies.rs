//! When a Job fails, succeeds and replaces its pods before it would by counting.

use std::collections::BTreeSet;

use crate::validation::addresses::too_many;
use crate::validation::{At, Errors, names};

use super::job_spec::INDEXED;

const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_CONDITIONS: usize = 20;
/// The longest list of indexes of a rule of success.
const MAX_INDEXES_BYTES: usize = 64 << 10;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// What a pod's end says about its Job.
pub fn failure(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.field("podFailurePolicy");
    let rules = policy.field("rules");
    too_many(&rules, MAX_RULES, errors);
    let pod = &spec.value["template"]["spec"];
    let lists = ["containers", "initContainers"].map(|list| pod[list].as_array());
    let containers = lists.into_iter().flatten().flatten();
    let containers: BTreeSet<&str> = containers.filter_map(|c| c["name"].as_str()).collect();
    for rule in rules.items() {
        failure_rule(spec, &rule, &containers, errors);
    }
}

fn failure_rule(spec: &At<'_>, rule: &At<'_>, containers: &BTreeSet<&str>, errors: &mut Errors) {
    let action = rule.field("action");
    one_of(&action, &ACTIONS, errors);
    if action.text() == "FailIndex" && spec.field("backoffLimitPerIndex").is_null() {
        errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
    }
    let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
    if !codes.is_null() {
        exit_codes(&codes, containers, errors);
    }
    too_many(&conditions, MAX_CONDITIONS, errors);
    for condition in conditions.items() {
        let kind = condition.field("type");
        errors.check(&kind, names::label_key(kind.text()));
        one_of(&condition.field("status"), &STATUSES, errors);
    }
    match (codes.is_null(), conditions.is_empty()) {
        (false, false) => errors.invalid_whole(
            rule,
            "specifying both OnExitCodes and OnPodConditions is not supported",
        ),
        (true, true) => errors.invalid_whole(
            rule,
            "specifying one of OnExitCodes and OnPodConditions is required",
        ),
        _ => {}
    }
}

/// One of a few words, which are all told where none is given.
fn one_of(at: &At<'_>, words: &[&str], errors: &mut Errors) {
    if at.is_empty() {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        errors.required(at, &format!("valid values: [{}]", quoted.join(" ")));
    } else if !words.contains(&at.text()) {
        errors.not_supported(at, words);
    }
}

fn exit_codes(codes: &At<'_>, containers: &BTreeSet<&str>, errors: &mut Errors) {
    let operator = codes.field("operator");
    one_of(&operator, &OPERATORS, errors);
    let container = codes.field("containerName");
    if !container.is_null() && !containers.contains(container.text()) {
        errors.invalid(
            &container,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values = codes.field("values");
    if values.is_empty() {
        errors.invalid(&values, "at least one value is required");
    }
    too_many(&values, MAX_EXIT_CODES, errors);
    let mut seen = BTreeSet::new();
    for value in values.items() {
        if operator.text() == "In" && value.number() == 0 {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
        if !seen.insert(value.number()) {
            errors.duplicate(&value);
        }
    }
    if !values.items().map(|value| value.number()).is_sorted() {
        errors.invalid(&values, "must be ordered");
    }
}

/// Which indexes make a success of an indexed Job.
pub fn success(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.field("successPolicy");
    if policy.is_null() {
        return;
    }
    if spec.field("completionMode").text() != INDEXED {
        errors.invalid(&policy, "requires indexed completion mode");
        return;
    }
    let rules = policy.field("rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(&rules, detail);
    }
    too_many(&rules, MAX_RULES, errors);
    let completions = spec.field("completions").number();
    for rule in rules.items() {
        success_rule(&rule, completions, errors);
    }
}

fn success_rule(rule: &At<'_>, completions: i64, errors: &mut Errors) {
    let (count, indexes) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
    if count.is_null() && indexes.is_null() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.required(rule, detail);
        return;
    }
    let mut listed = None;
    if !indexes.is_null() {
        if indexes.text().len() > MAX_INDEXES_BYTES {
            errors.too_long(&indexes, MAX_INDEXES_BYTES);
        }
        match count_indexes(indexes.text(), completions) {
            Ok(number) => listed = Some(number),
            Err(why) => errors.invalid(&indexes, format!("error parsing succeededIndexes: {why}")),
        }
    }
    if count.is_null() {
        return;
    }
    errors.not_negative(&count);
    let limits = [
        (Some(completions), "the number of specified completions"),
        (
            listed,
            "the number of indexes in the specified succeededIndexes field",
        ),
    ];
    for (most, what) in limits {
        if let Some(most) = most.filter(|most| count.number() > *most) {
            errors.invalid(
                &count,
                format!("must be less than or equal to {most} ({what})"),
            );
        }
    }
}

/// How many indexes `0,2-4` is.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut previous: Option<i64> = None;
    if text.is_empty() {
        return Ok(0);
    }
    for interval in text.split(',') {
        let bounds: Vec<&str> = interval.split('-').collect();
        if bounds.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can \
                 have at most two parts separated by '-'"
            ));
        }
        let first = index(bounds[0])?;
        let last = bounds.get(1).map_or(Ok(first), |bound| index(bound))?;
        for bound in [first, last] {
            if bound >= completions {
                return Err(format!("too large index: \"{bound}\""));
            }
        }
        if bounds.len() == 2 && first >= last {
            return Err(format!(
                "non-increasing order, previous: {first}, current: {last}"
            ));
        }
        if let Some(previous) = previous.filter(|previous| first <= *previous) {
            return Err(format!(
                "non-increasing order, previous: {previous}, current: {first}"
            ));
        }
        previous = Some(last);
        total += last - first + 1;
    }
    Ok(total)
}

fn index(text: &str) -> Result<i64, String> {
    let number: Result<i32, _> = text.parse();
    match number {
        Ok(number) => Ok(number.into()),
        Err(_) => Err(format!(
            "cannot convert string to integer for index: {text:?}"
        )),
    }
}

/// When a new pod takes the place of one that ends.
pub fn replacement(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.field("podReplacementPolicy");
    let has_failure_policy = !spec.field("podFailurePolicy").is_null();
    let supported: &[&str] = match has_failure_policy {
        true => &["Failed"],
        false => &["Failed", "TerminatingOrFailed"],
    };
    if !policy.is_null() && !supported.contains(&policy.text()) {
        errors.not_supported(&policy, supported);
    }
}
