//! flowcontrol.apiserver.k8s.io/v1 FlowSchema: which requests are of which priority.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::{Value, json};

use super::GROUP;
use crate::columns::{AGE, Column, NAME, Printer, age, list, name, number, text, text_or_none};
use crate::prepare::keep_metadata;
use crate::resource::{Generation, Resource, Scope, Subresource};
use crate::validation::{At, Errors, names};

const MAX_PRECEDENCE: i64 = 10_000;

const DEFAULT_PRECEDENCE: i64 = 1000;

/// The one that may come before all others.
const EXEMPT: &str = "exempt";

const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

/// The kinds of subjects, and where each is described.
const SUBJECTS: [(&str, &str); 3] = [
    ("Group", "group"),
    ("ServiceAccount", "serviceAccount"),
    ("User", "user"),
];

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: |object| object["status"] = json!({}),
        update_status: keep_metadata,
        validate,
        validate_status: super::validate_status,
        printer: COLUMNS,
        ..Resource::of::<FlowSchema>(GROUP, "flowcontrol", "flowschema", "flowschemas")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "The priority level of the requests"),
        Column::text(
            "MatchingPrecedence",
            "The lowest number that matches counts",
        ),
        Column::text("DistinguisherMethod", "What tells flows apart"),
        AGE,
        Column::text("MissingPL", "Whether the priority level is missing"),
    ],
    cells,
};

fn default(object: &mut Value) {
    let precedence = &object["spec"]["matchingPrecedence"];
    if object["spec"].is_object() && precedence.as_i64().unwrap_or_default() == 0 {
        object["spec"]["matchingPrecedence"] = DEFAULT_PRECEDENCE.into();
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let precedence = spec.field("matchingPrecedence");
    if precedence.number() <= 0 {
        errors.invalid(&precedence, "must be a positive value");
    }
    if precedence.number() > MAX_PRECEDENCE {
        errors.invalid(
            &precedence,
            format!("must not be greater than {MAX_PRECEDENCE}"),
        );
    }
    if precedence.number() == 1 && metadata.field("name").text() != EXEMPT {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(&precedence, why);
    }
    let method = spec.field("distinguisherMethod");
    let kind = method.field("type");
    if !method.is_null() && !["ByNamespace", "ByUser"].contains(&kind.text()) {
        errors.not_supported(&kind, &["ByNamespace", "ByUser"]);
    }
    let level = spec.field("priorityLevelConfiguration");
    let level = level.field("name");
    if level.is_empty() {
        errors.required(&level, "must reference a priority level");
    } else {
        errors.check(&level, names::subdomain(level.text()));
    }
    let rules = spec.field("rules");
    rules.items().for_each(|at| rule(&at, errors));
}

fn rule(rule: &At<'_>, errors: &mut Errors) {
    let subjects = rule.field("subjects");
    if subjects.is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    subjects.items().for_each(|at| subject(&at, errors));
    let (resources, others) = (rule.field("resourceRules"), rule.field("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(rule, why);
    }
    resources.items().for_each(|at| resource_rule(&at, errors));
    others.items().for_each(|at| non_resource_rule(&at, errors));
}

fn subject(subject: &At<'_>, errors: &mut Errors) {
    let kind = subject.field("kind");
    let known = SUBJECTS.iter().find(|(name, _)| *name == kind.text());
    let Some((own, field)) = known else {
        errors.not_supported(&kind, &SUBJECTS.map(|(name, _)| name));
        return;
    };
    let described = subject.field(field);
    if described.is_null() {
        let why = format!("{field} is required when subject kind is '{own}'");
        errors.required(&described, &why);
    } else {
        let name = described.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else if *field == "serviceAccount" && name.text() != "*" {
            errors.check(&name, names::subdomain(name.text()));
        }
        if *field == "serviceAccount" {
            namespace_of_an_account(&described.field("namespace"), errors);
        }
    }
    for (other, field) in SUBJECTS.iter().filter(|(name, _)| name != own) {
        let described = subject.field(field);
        if !described.is_null() {
            let why = format!("{field} is forbidden when subject kind is not '{other}'");
            errors.forbidden(&described, &why);
        }
    }
}

fn namespace_of_an_account(namespace: &At<'_>, errors: &mut Errors) {
    if namespace.is_empty() {
        errors.required(namespace, "must specify namespace for service account");
    } else {
        errors.check(namespace, names::label(namespace.text()));
    }
}

fn resource_rule(rule: &At<'_>, errors: &mut Errors) {
    verbs(&rule.field("verbs"), errors);
    let (groups, resources) = (rule.field("apiGroups"), rule.field("resources"));
    for (at, one, many) in [
        (&groups, "api group", "api groups"),
        (&resources, "resource", "resources"),
    ] {
        if at.is_empty() {
            let why = format!("resource rules must supply at least one {one}");
            errors.required(at, &why);
        } else {
            alone(at, many, errors);
        }
    }
    let namespaces = rule.field("namespaces");
    if namespaces.is_empty() && !rule.field("clusterScope").is_true() {
        errors.required(
            &namespaces,
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if has_wildcard(&namespaces) {
        alone(&namespaces, "namespaces", errors);
    } else {
        for namespace in namespaces.items() {
            let outcome = names::label(namespace.text());
            let intro = "each member of this list must be '*' or a DNS-1123 label; ";
            errors.check(&namespace, outcome.map_err(|why| format!("{intro}{why}")));
        }
    }
}

fn non_resource_rule(rule: &At<'_>, errors: &mut Errors) {
    verbs(&rule.field("verbs"), errors);
    let urls = rule.field("nonResourceURLs");
    if urls.is_empty() {
        errors.required(&urls, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(&urls) {
        alone(&urls, "non-resource URLs", errors);
    } else {
        for url in urls.items() {
            if let Err(why) = path(url.text()) {
                errors.invalid(&url, why);
            }
        }
    }
}

fn verbs(verbs: &At<'_>, errors: &mut Errors) {
    if verbs.is_empty() {
        errors.required(verbs, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        alone(verbs, "verbs", errors);
    } else if verbs.items().any(|verb| !VERBS.contains(&verb.text())) {
        errors.not_supported(verbs, &VERBS);
    }
}

fn has_wildcard(list: &At<'_>) -> bool {
    list.items().any(|item| item.text() == "*")
}

/// A star stands for all, so nothing stands beside it.
fn alone(list: &At<'_>, what: &str, errors: &mut Errors) {
    if has_wildcard(list) && list.items().count() > 1 {
        errors.invalid(
            list,
            format!("if '*' is present, must not specify other {what}"),
        );
    }
}

/// A path, with a star at most after its last slash.
fn path(text: &str) -> Result<(), &'static str> {
    let stars = text.matches('*').count();
    match text {
        "" => Err("must not be empty"),
        "/" => Ok(()),
        _ if !text.starts_with('/') => Err("must start with slash"),
        _ if text.contains(' ') => Err("must not contain white-space"),
        _ if text.contains("//") => Err("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => {
            Err("wildcard can only do suffix matching")
        }
        _ => Ok(()),
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = list(object, "/status/conditions").iter();
    let dangling = conditions
        .filter(|condition| text(condition, "/type") == "Dangling")
        .last();
    vec![
        name(object),
        text(object, "/spec/priorityLevelConfiguration/name").into(),
        number(object, "/spec/matchingPrecedence").into(),
        text_or_none(object, "/spec/distinguisherMethod/type").into(),
        age(object, now),
        dangling
            .map_or("?", |condition| text(condition, "/status"))
            .into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row, updated, with};

    fn schema() -> Value {
        json!({
            "metadata": {"name": "health"},
            "spec": {
                "priorityLevelConfiguration": {"name": "exempt"},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{
                    "subjects": [{"kind": "Group", "group": {"name": "system:unauthenticated"}}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz"]}],
                }],
            },
        })
    }

    #[test]
    fn a_schema_stands_in_the_middle_unless_it_says_where() {
        let stored = created(&resource(), schema());
        assert_eq!(stored["spec"]["matchingPrecedence"], 1000);
        assert_eq!(stored["status"], json!({}));
    }

    #[test]
    fn a_schema_that_could_match_nothing_or_too_much_is_refused() {
        let subject = "/spec/rules/0/subjects/0";
        let rule = "/spec/rules/0/nonResourceRules/0";
        let of = |field: &str| match field {
            "resourceRules" => json!([{
                "subjects": [{"kind": "User", "user": {"name": "*"}}],
                "resourceRules": [{"verbs": ["get"], "apiGroups": ["*", "a"], "resources": ["pods"]}],
            }]),
            _ => json!([{"subjects": []}]),
        };
        assert_wrong(
            &resource(),
            &schema(),
            &[
                (
                    "/spec/matchingPrecedence",
                    json!(1),
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may \
                     have matchingPrecedence 1",
                ),
                (
                    "/spec/matchingPrecedence",
                    json!(10001),
                    "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
                ),
                (
                    "/spec/priorityLevelConfiguration",
                    json!({}),
                    "spec.priorityLevelConfiguration.name: Required value: must reference a \
                     priority level",
                ),
                (
                    subject,
                    json!({"kind": "User", "group": {"name": "a"}}),
                    "[spec.rules[0].subjects[0].user: Required value: user is required when \
                     subject kind is 'User', spec.rules[0].subjects[0].group: Forbidden: group is \
                     forbidden when subject kind is not 'Group']",
                ),
                (
                    rule,
                    json!({"verbs": ["fetch"], "nonResourceURLs": ["healthz"]}),
                    r#"[spec.rules[0].nonResourceRules[0].verbs: Unsupported value: ["fetch"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch", spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "healthz": must start with slash]"#,
                ),
                (
                    "/spec/rules",
                    of("nothing"),
                    "[spec.rules[0].subjects: Required value: subjects must contain at least one \
                     value, spec.rules[0]: Required value: at least one of resourceRules and \
                     nonResourceRules has to be non-empty]",
                ),
                (
                    "/spec/rules",
                    of("resourceRules"),
                    r#"[spec.rules[0].resourceRules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other api groups, spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace]"#,
                ),
            ],
        );
    }

    #[test]
    fn a_status_is_written_without_the_labels() {
        let old = created(&resource(), schema());
        let mut new = with(
            &old,
            "/status",
            json!({"conditions": [{"type": "Dangling"}]}),
        );
        new["metadata"]["labels"] = json!({"a": "b"});
        new["spec"]["matchingPrecedence"] = 5.into();
        let stored = updated(&resource(), &old, new, Some(Subresource::Status));
        assert_eq!(
            (&stored["metadata"], &stored["spec"]),
            (&old["metadata"], &old["spec"])
        );
        assert_eq!(stored["status"]["conditions"][0]["type"], "Dangling");
        let moved = with(&old, "/spec/matchingPrecedence", json!(5));
        let stored = updated(&resource(), &old, moved, None);
        assert_eq!(stored["metadata"]["generation"], 2);
    }

    #[test]
    fn a_row_shows_where_requests_go() {
        assert_eq!(
            row(&resource(), &created(&resource(), schema())),
            json!(["health", "exempt", 1000, "ByUser", "10m", "?",])
        );
    }
}
