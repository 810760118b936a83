//! What is wrong with the options of a request, in Kubernetes' words (`ListOptions.meta.k8s.io "" is
//! invalid: …`, 422). Pure. Source: apimachinery's `meta/v1/validation` and
//! `internalversion/validation` of Kubernetes 1.33.

use super::request::{Query, Verb};
use api::{ApiError, Cause, CauseKind, status};

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Checks the query of a request for objects.
pub fn check(verb: Verb, query: &Query) -> Result<(), ApiError> {
    let lists = [Verb::List, Verb::Watch, Verb::DeleteCollection];
    if lists.contains(&verb) {
        let causes = match verb {
            Verb::Watch => watch(query),
            _ => list(query),
        };
        finish("ListOptions", causes)?;
    }
    let Some(kind) = kind(verb) else {
        return Ok(());
    };
    let mut causes = dry_run(query.all("dryRun"));
    match kind {
        "DeleteOptions" => causes.extend(propagation(
            given(query, "propagationPolicy"),
            query.optional_flag("orphanDependents").is_some(),
        )),
        _ => causes.extend(field_validation(query)),
    }
    finish(kind, causes)
}

/// Checks the options in the body of a DELETE.
pub fn check_deletion<'a>(
    dry: impl Iterator<Item = &'a str>,
    policy: Option<&str>,
    orphan: bool,
) -> Result<(), ApiError> {
    let mut causes = dry_run(dry);
    causes.extend(propagation(policy.unwrap_or_default(), orphan));
    finish("DeleteOptions", causes)
}

/// The refusal of a field of options.
pub fn refused(kind: &str, field: &str, detail: &str) -> ApiError {
    invalid(kind, vec![forbidden(field, detail)])
}

/// Which options a verb takes, if it writes.
pub fn kind(verb: Verb) -> Option<&'static str> {
    match verb {
        Verb::Create => Some("CreateOptions"),
        Verb::Update => Some("UpdateOptions"),
        Verb::Patch => Some("PatchOptions"),
        Verb::Delete | Verb::DeleteCollection => Some("DeleteOptions"),
        Verb::Get | Verb::List | Verb::Watch | Verb::Unnamed => None,
    }
}

fn list(query: &Query) -> Vec<Cause> {
    let field = "resourceVersionMatch";
    let (matching, version) = (given(query, field), given(query, "resourceVersion"));
    let mut causes = Vec::new();
    if !matching.is_empty() {
        if version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            causes.push(forbidden(field, why));
        }
        causes.extend(continued(query));
        if ![EXACT, NOT_OLDER_THAN].contains(&matching) {
            causes.push(unsupported(field, matching, &["", EXACT, NOT_OLDER_THAN]));
        }
        if matching == EXACT && version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(forbidden(field, why));
        }
    }
    if query.optional_flag("sendInitialEvents").is_some() {
        let why = "sendInitialEvents is forbidden for list";
        causes.push(forbidden("sendInitialEvents", why));
    }
    causes
}

fn watch(query: &Query) -> Vec<Cause> {
    let field = "resourceVersionMatch";
    let matching = given(query, field);
    let initial = query.optional_flag("sendInitialEvents");
    let mut causes = Vec::new();
    if initial.is_some() && matching != NOT_OLDER_THAN {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        causes.push(forbidden(field, why));
    }
    if !matching.is_empty() {
        if initial.is_none() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            causes.push(forbidden(field, why));
        }
        if matching != NOT_OLDER_THAN {
            causes.push(unsupported(field, matching, &[NOT_OLDER_THAN]));
        }
        causes.extend(continued(query));
    }
    causes
}

fn continued(query: &Query) -> Option<Cause> {
    let why = "resourceVersionMatch is forbidden when continue is provided";
    let continues = !given(query, "continue").is_empty();
    continues.then(|| forbidden("resourceVersionMatch", why))
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Cause> {
    let wrong = values.filter(|value| !matches!(*value, "" | "All"));
    wrong
        .map(|value| unsupported("dryRun", value, &["All"]))
        .collect()
}

fn field_validation(query: &Query) -> Option<Cause> {
    let known = ["", "Ignore", "Strict", "Warn"];
    let value = given(query, "fieldValidation");
    (!known.contains(&value)).then(|| unsupported("fieldValidation", value, &known))
}

fn propagation(policy: &str, orphan: bool) -> Option<Cause> {
    let field = "propagationPolicy";
    let known = ["Background", "Foreground", "Orphan", "nil"];
    if policy.is_empty() {
        return None;
    }
    if orphan {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        let message = format!("Invalid value: {policy:?}: {why}");
        return Some(cause(field, CauseKind::Invalid, message));
    }
    (!known[..3].contains(&policy)).then(|| unsupported(field, policy, &known))
}

fn given<'a>(query: &'a Query, name: &str) -> &'a str {
    query.get(name).unwrap_or_default()
}

fn forbidden(field: &str, detail: &str) -> Cause {
    cause(field, CauseKind::Forbidden, format!("Forbidden: {detail}"))
}

fn unsupported(field: &str, value: &str, supported: &[&str]) -> Cause {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    let message = format!(
        "Unsupported value: {value:?}: supported values: {}",
        supported.join(", ")
    );
    cause(field, CauseKind::NotSupported, message)
}

fn cause(field: &str, kind: CauseKind, message: String) -> Cause {
    Cause {
        field: field.to_owned(),
        kind,
        message,
    }
}

fn finish(kind: &str, causes: Vec<Cause>) -> Result<(), ApiError> {
    match causes.is_empty() {
        true => Ok(()),
        false => Err(invalid(kind, causes)),
    }
}

fn invalid(kind: &str, causes: Vec<Cause>) -> ApiError {
    ApiError::Invalid {
        target: status::Target {
            group: "meta.k8s.io".to_owned(),
            kind: kind.to_owned(),
            ..status::Target::default()
        },
        causes,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn said(verb: Verb, query: &str) -> String {
        let uri: Uri = format!("/x?{query}").parse().expect("a URI");
        let outcome = check(verb, &Query::of(&uri));
        let text = outcome.err().map(|error| {
            assert_eq!(error.code(), 422);
            error.to_string()
        });
        text.unwrap_or_default()
    }

    #[test]
    fn a_list_says_which_combinations_of_version_and_match_it_does_not_serve() {
        let prefix = "ListOptions.meta.k8s.io \"\" is invalid: ";
        let forbidden = |why: &str| format!("{prefix}resourceVersionMatch: Forbidden: {why}");
        for query in [
            "",
            "resourceVersion=0",
            "resourceVersion=7",
            "resourceVersion=0&resourceVersionMatch=NotOlderThan",
            "resourceVersion=7&resourceVersionMatch=NotOlderThan",
            "resourceVersion=7&resourceVersionMatch=Exact",
            "continue=x",
        ] {
            assert_eq!(said(Verb::List, query), "", "{query}");
        }
        let without = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        for matching in ["Exact", "NotOlderThan"] {
            let query = format!("resourceVersionMatch={matching}");
            assert_eq!(said(Verb::List, &query), forbidden(without));
            assert_eq!(said(Verb::DeleteCollection, &query), forbidden(without));
        }
        assert_eq!(
            said(Verb::List, "resourceVersion=0&resourceVersionMatch=Exact"),
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        );
        assert_eq!(
            said(
                Verb::List,
                "resourceVersion=7&resourceVersionMatch=Exact&continue=x"
            ),
            forbidden("resourceVersionMatch is forbidden when continue is provided")
        );
        assert_eq!(
            said(Verb::List, "resourceVersion=7&resourceVersionMatch=Odd"),
            format!(
                "{prefix}resourceVersionMatch: Unsupported value: \"Odd\": supported values: \"\", \
                 \"Exact\", \"NotOlderThan\""
            )
        );
        assert_eq!(
            said(Verb::List, "sendInitialEvents=true"),
            format!(
                "{prefix}sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"
            )
        );
    }

    #[test]
    fn a_watch_has_initial_events_and_a_match_together_or_neither() {
        let prefix = "ListOptions.meta.k8s.io \"\" is invalid: ";
        assert_eq!(said(Verb::Watch, "resourceVersion=7"), "");
        let both = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(said(Verb::Watch, both), "");
        let only = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                    resourceVersionMatch to NotOlderThan";
        assert_eq!(
            said(Verb::Watch, "sendInitialEvents=false"),
            format!("{prefix}{only}")
        );
        assert_eq!(
            said(
                Verb::Watch,
                "sendInitialEvents=true&resourceVersionMatch=Exact"
            ),
            format!(
                "{prefix}[{only}, resourceVersionMatch: Unsupported value: \"Exact\": supported \
                 values: \"NotOlderThan\"]"
            )
        );
        assert_eq!(
            said(Verb::Watch, "resourceVersionMatch=NotOlderThan"),
            format!(
                "{prefix}resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for \
                 watch unless sendInitialEvents is provided"
            )
        );
    }

    #[test]
    fn writes_name_their_own_options() {
        for (verb, kind) in [
            (Verb::Create, "CreateOptions"),
            (Verb::Update, "UpdateOptions"),
            (Verb::Patch, "PatchOptions"),
            (Verb::Delete, "DeleteOptions"),
        ] {
            assert_eq!(
                said(verb, "dryRun=Some"),
                format!(
                    "{kind}.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": \
                     supported values: \"All\""
                )
            );
            assert_eq!(said(verb, "dryRun=All&fieldValidation="), "");
        }
        assert_eq!(
            said(Verb::Create, "fieldValidation=Odd"),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \
             \"Odd\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
    }

    #[test]
    fn a_deletion_knows_three_policies_and_one_way_to_say_them() {
        let prefix = "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: ";
        for policy in ["Background", "Foreground", "Orphan"] {
            assert_eq!(
                said(Verb::Delete, &format!("propagationPolicy={policy}")),
                ""
            );
        }
        assert_eq!(
            said(Verb::Delete, "propagationPolicy=Odd"),
            format!(
                "{prefix}Unsupported value: \"Odd\": supported values: \"Background\", \
                 \"Foreground\", \"Orphan\", \"nil\""
            )
        );
        assert_eq!(
            said(
                Verb::Delete,
                "propagationPolicy=Orphan&orphanDependents=true"
            ),
            format!(
                "{prefix}Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot \
                 be both set"
            )
        );
    }
}
