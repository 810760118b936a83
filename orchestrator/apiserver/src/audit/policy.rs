//! Which requests are logged, and how much of them: a file of kind Policy, audit.k8s.io/v1. Pure.
//!
//! The first rule that is for a request decides; a request that no rule is for is not logged.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::authn::User;
use crate::request_info::{ObjectInfo, RequestInfo};

/// How much of a request is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    None,
    /// Who, what, when, with which outcome.
    Metadata,
    /// What the client sent, too.
    Request,
    /// What it was answered, too.
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Of a watch, a log or a connection: its answer has begun.
    ResponseStarted,
    ResponseComplete,
    /// The server has failed at it.
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What a policy says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    /// No events are made then.
    pub omitted: Vec<Stage>,
    /// `metadata.managedFields` is left out of objects.
    pub omit_managed_fields: bool,
}

/// A policy, checked.
#[derive(Debug, Default, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
    omitted: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy in YAML or JSON. The error names the field.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let documents = api::decode::documents(text)?;
        let [file] = documents.as_slice() else {
            return Err(format!("{} documents, not one Policy", documents.len()));
        };
        let mut file = without_nulls(file.clone());
        let fields = file.as_object_mut().ok_or("not an object")?;
        let kind = (take(fields, "apiVersion")?, take(fields, "kind")?);
        let known = ("audit.k8s.io/v1".to_owned(), "Policy".to_owned());
        if kind != known {
            return Err(format!(
                "apiVersion {:?}, kind {:?}: must be audit.k8s.io/v1, Policy",
                kind.0, kind.1
            ));
        }
        fields.remove("metadata");
        let rules: Vec<Value> = take(fields, "rules")?;
        let policy = Self {
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(index, rule)| {
                    let rule: Rule = serde_json::from_value(rule)
                        .map_err(|error| format!("rules[{index}]: {error}"))?;
                    rule.check()
                        .map_err(|why| format!("rules[{index}].{why}"))?;
                    Ok(rule)
                })
                .collect::<Result<_, String>>()?,
            omitted: take(fields, "omitStages")?,
            omit_managed_fields: take(fields, "omitManagedFields")?,
        };
        if let Some(field) = fields.keys().next() {
            return Err(format!("unknown field {field:?}"));
        }
        match policy.rules.is_empty() {
            true => Err("rules: there are none, so nothing would be logged".to_owned()),
            false => Ok(policy),
        }
    }

    /// What is to be done about a request. `user` is None if nobody knows whose it is.
    pub fn judge(&self, user: Option<&User>, request: &RequestInfo) -> Verdict {
        let found = self.rules.iter().find(|rule| rule.is_for(user, request));
        let mut omitted = self.omitted.clone();
        omitted.extend(found.iter().flat_map(|rule| &rule.omit_stages));
        Verdict {
            level: found.map_or(Level::None, |rule| rule.level),
            omitted,
            omit_managed_fields: found
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn is_for(&self, user: Option<&User>, request: &RequestInfo) -> bool {
        let by_user =
            self.users.is_empty() || user.is_some_and(|user| has(&self.users, &user.name));
        let by_group = self.user_groups.is_empty()
            || user.is_some_and(|user| {
                let groups = user.all_groups();
                groups.iter().any(|group| has(&self.user_groups, group))
            });
        let by_verb = self.verbs.is_empty() || has(&self.verbs, request.verb);
        by_user && by_group && by_verb && self.is_for_what(request)
    }

    fn is_for_what(&self, request: &RequestInfo) -> bool {
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.object.as_ref().is_some_and(|object| {
                let in_namespace =
                    self.namespaces.is_empty() || has(&self.namespaces, &object.namespace);
                let all = self.resources.is_empty();
                in_namespace && (all || self.resources.iter().any(|some| some.names(object)))
            });
        }
        self.paths.is_empty()
            || request.object.is_none() && self.paths.iter().any(|path| covers(path, &request.path))
    }

    /// What is wrong with it, field first.
    fn check(&self) -> Result<(), String> {
        if !self.paths.is_empty() && !(self.resources.is_empty() && self.namespaces.is_empty()) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            return Err(format!("nonResourceURLs: {why}"));
        }
        for (index, path) in self.paths.iter().enumerate() {
            let at = format!("nonResourceURLs[{index}]: Invalid value: {path:?}: non-resource URL");
            if path != "*" && !path.starts_with('/') {
                return Err(format!("{at} rules must begin with a '/' character"));
            }
            if path.strip_suffix('*').unwrap_or(path).contains('*') {
                let why = "wildcards '*' must be the final character of the rule";
                return Err(format!("{at} {why}"));
            }
        }
        for (index, some) in self.resources.iter().enumerate() {
            let group = &some.group;
            // Groups are DNS names: whoever writes the version too means something else.
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            if !group.chars().all(plain) {
                return Err(format!(
                    "resources[{index}].group: Invalid value: {group:?}: a group's name without a \
                     version, in lower case"
                ));
            }
            if !some.resource_names.is_empty() && some.resources.is_empty() {
                let why = "using resourceNames requires at least one resource";
                return Err(format!("resources[{index}].resourceNames: {why}"));
            }
        }
        Ok(())
    }
}

impl GroupResources {
    fn names(&self, object: &ObjectInfo) -> bool {
        let ObjectInfo {
            resource,
            subresource: sub,
            ..
        } = object;
        let named = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || pattern == resource && sub.is_empty(),
            Some(("*", wanted)) => !sub.is_empty() && (wanted == sub || wanted == "*"),
            Some((wanted, "*")) => wanted == resource,
            Some((wanted, part)) => wanted == resource && part == sub,
        };
        self.group == object.group
            && (self.resources.is_empty()
                || (self.resource_names.is_empty() || has(&self.resource_names, &object.name))
                    && self.resources.iter().any(named))
    }
}

/// Whether a pattern of a path, which may end in `*`, is for a path.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|one| one == word)
}

fn take<T: DeserializeOwned + Default>(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<T, String> {
    match fields.remove(name) {
        Some(value) => serde_json::from_value(value).map_err(|error| format!("{name}: {error}")),
        None => Ok(T::default()),
    }
}

/// A field that is null counts as one that is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                fields
                    .map(|(name, value)| (name, without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};

    use super::*;

    fn level(policy: &Policy, user: &str, method: &str, uri: &str) -> Level {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = RequestInfo::of(&method, &uri.parse().expect("a URI"));
        let user = User::named(user, vec!["team".to_owned()]);
        policy.judge(Some(&user), &request).level
    }

    fn policy(rules: &str) -> Result<Policy, String> {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}");
        Policy::parse(text.as_bytes())
    }

    #[test]
    fn the_first_rule_that_is_for_a_request_decides() {
        let policy = policy(
            r#"
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: None, nonResourceURLs: ["/livez*", /version]}
- {level: RequestResponse, resources: [{resources: [pods]}], namespaces: [a]}
- {level: Metadata, resources: [{group: "", resources: ["pods/log", "*/status"]}]}
- {level: Request, resources: [{resources: [configmaps], resourceNames: [one]}]}
- {level: None, resources: [{resources: ["services/*"]}]}
- {level: Request, resources: [{group: apps}]}
- {level: Metadata, userGroups: [team], verbs: [delete]}
- {level: None, resources: [{resources: ["*"]}]}
- {level: Request, nonResourceURLs: ["*"]}
"#,
        )
        .expect("a policy");
        use Level::*;
        for (user, method, uri, expected) in [
            ("system:kube-proxy", "GET", "/api/v1/pods?watch=1", None),
            ("x", "GET", "/livez/etcd", None),
            ("x", "GET", "/version", None),
            ("x", "GET", "/version/x", Request),
            ("x", "GET", "/api/v1/namespaces/a/pods", RequestResponse),
            ("x", "GET", "/api/v1/namespaces/b/pods", None),
            ("x", "GET", "/api/v1/namespaces/b/pods/c/log", Metadata),
            ("x", "PUT", "/api/v1/nodes/c/status", Metadata),
            ("x", "GET", "/api/v1/namespaces/b/configmaps/one", Request),
            ("x", "GET", "/api/v1/namespaces/b/configmaps/two", None),
            (
                "x",
                "DELETE",
                "/api/v1/namespaces/b/configmaps/two",
                Metadata,
            ),
            ("x", "DELETE", "/api/v1/namespaces/b/services/two", None),
            ("x", "GET", "/apis/apps/v1/deployments", Request),
            ("x", "GET", "/apis/batch/v1/jobs", None),
            ("x", "GET", "/apis", Request),
        ] {
            assert_eq!(
                level(&policy, user, method, uri),
                expected,
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn a_request_of_nobody_in_particular_is_for_rules_without_users() {
        let rules = "- {level: Request, users: [a]}\n- {level: Request, userGroups: [b]}\n- {level: Metadata}";
        let policy = policy(rules).expect("a policy");
        let request = RequestInfo::of(&Method::GET, &Uri::from_static("/api"));
        assert_eq!(policy.judge(Option::None, &request).level, Level::Metadata);
    }

    #[test]
    fn stages_and_managed_fields_are_omitted_as_the_policy_and_the_rule_say() {
        let text = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: x}
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: Metadata, verbs: [get], omitStages: [Panic], omitManagedFields: false}
- {level: Metadata, resources: null}
"#;
        let policy = Policy::parse(text.as_bytes()).expect("a policy");
        let of = |method| {
            let request = RequestInfo::of(&method, &Uri::from_static("/x"));
            let verdict = policy.judge(Option::None, &request);
            (verdict.omitted, verdict.omit_managed_fields)
        };
        let both = vec![Stage::RequestReceived, Stage::Panic];
        assert_eq!(of(Method::GET), (both, false));
        assert_eq!(of(Method::PUT), (vec![Stage::RequestReceived], true));
    }

    #[test]
    fn a_policy_that_means_something_else_is_refused_by_the_field() {
        for (rules, expected) in [
            ("- {verbs: [get]}", "rules[0]: missing field `level`"),
            ("- {level: All}", "rules[0]: unknown variant `All`"),
            (
                "- {level: None, user: [x]}",
                "rules[0]: unknown field `user`",
            ),
            (
                "- {level: None, nonResourceURLs: [/a], namespaces: [b]}",
                "rules[0].nonResourceURLs: rules cannot apply to both",
            ),
            (
                "- {level: None, nonResourceURLs: [a]}",
                "rules[0].nonResourceURLs[0]: Invalid value: \"a\"",
            ),
            (
                "- {level: None, nonResourceURLs: [/a*b]}",
                "rules[0].nonResourceURLs[0]: Invalid value: \"/a*b\"",
            ),
            (
                "- {level: None}\n- {level: None, resources: [{group: apps/v1}]}",
                "rules[1].resources[0].group: Invalid value: \"apps/v1\"",
            ),
            (
                "- {level: None, resources: [{resourceNames: [a]}]}",
                "rules[0].resources[0].resourceNames: using",
            ),
            ("", "rules: there are none"),
        ] {
            let why = policy(rules).expect_err(rules);
            assert!(why.starts_with(expected), "{rules}: {why}");
        }
        let why =
            Policy::parse(b"kind: Policy\napiVersion: audit.k8s.io/v1beta1").expect_err("old");
        assert!(why.contains("must be audit.k8s.io/v1"), "{why}");
    }

    #[test]
    fn the_example_of_a_policy_shows_no_content_of_secrets() {
        let text = include_bytes!("../../../../manifests/audit-policy.yaml");
        let policy = Policy::parse(text).expect("the example");
        for uri in [
            "/api/v1/namespaces/a/secrets/b",
            "/api/v1/namespaces/a/configmaps",
            "/api/v1/namespaces/a/serviceaccounts/b/token",
            "/apis/authentication.k8s.io/v1/tokenreviews",
        ] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let level = level(&policy, "x", method, uri);
                assert!(level <= Level::Metadata, "{method} {uri}: {level:?}");
            }
        }
        let created = level(&policy, "x", "POST", "/api/v1/namespaces/a/pods");
        assert!(created >= Level::Request);
    }
}
