//! One webhook of a configuration, ready to be asked, and whether it wants to be. Pure but for its
//! connections.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::review::Version;
use crate::outgoing::ClientConfig;
use api::policy::{Conditions, Request, Rule, selector};
use api::selector::LabelSelector;

/// A webhook of a MutatingWebhookConfiguration or a ValidatingWebhookConfiguration.
#[derive(Debug)]
pub struct Hook {
    pub name: String,
    /// The name of its configuration.
    pub configuration: String,
    /// Or why it cannot be asked.
    pub client: Result<ClientConfig, String>,
    /// The first of its review versions that the server knows.
    pub version: Option<Version>,
    /// A failed call counts as allowed.
    pub fails_open: bool,
    /// Whether it may be asked about a dry run.
    pub dry_runs: bool,
    /// Asked again when others have changed the object since.
    pub reinvoked: bool,
    pub timeout: Duration,
    pub namespace_selector: LabelSelector,
    pub object_selector: LabelSelector,
    /// Or why they do not compile.
    pub conditions: Result<Conditions, String>,
    /// Other versions of the same objects match too.
    pub equivalents: bool,
    rules: Vec<Rule>,
    /// What it was made of: the webhook, and the uid of its configuration.
    made_of: (String, Value),
}

impl Hook {
    pub fn of(configuration: &str, uid: &str, webhook: &Value) -> Self {
        let text = |field: &str| webhook[field].as_str().unwrap_or_default();
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
        Self {
            name: text("name").to_owned(),
            configuration: configuration.to_owned(),
            client: ClientConfig::of(&webhook["clientConfig"]),
            version: texts(&webhook["admissionReviewVersions"])
                .iter()
                .find_map(|version| Version::parse(version)),
            fails_open: text("failurePolicy") == "Ignore",
            dry_runs: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            timeout: Duration::from_secs(seconds),
            namespace_selector: selector(&webhook["namespaceSelector"]),
            object_selector: selector(&webhook["objectSelector"]),
            conditions: Conditions::compile(&webhook["matchConditions"], false),
            equivalents: text("matchPolicy") != "Exact",
            rules: list(&webhook["rules"]).map(Rule::of).collect(),
            made_of: (uid.to_owned(), webhook.clone()),
        }
    }

    /// Whether it would be made the same again. Its connections can be kept then.
    pub fn is_of(&self, uid: &str, webhook: &Value) -> bool {
        self.made_of.0 == uid && self.made_of.1 == *webhook
    }

    /// The first of these that a rule names. Rules come first, as in Kubernetes.
    pub fn first_match<'a, T>(
        &self,
        requests: impl Iterator<Item = (T, Request<'a>)> + Clone,
    ) -> Option<T> {
        self.rules.iter().find_map(|rule| {
            let mut requests = requests.clone();
            let found = requests.find(|(_, request)| rule.matches(request));
            found.map(|(what, _)| what)
        })
    }

    /// Whether an object with the labels of either, of those that there are, is selected.
    pub fn selects(&self, new: Option<&Value>, old: Option<&Value>) -> bool {
        if self.object_selector == LabelSelector::everything() {
            return true;
        }
        let fits = |object: &Value| self.object_selector.matches(&api::meta::labels(object));
        // What has no metadata (the options of an attachment) has no labels to be selected by.
        let has = |object: &&Value| object["metadata"].is_object();
        new.filter(has).is_some_and(fits) || old.filter(has).is_some_and(fits)
    }

    pub fn selects_namespace(&self, labels: &BTreeMap<String, String>) -> bool {
        self.namespace_selector.matches(labels)
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    let texts = list(value).filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods(subresource: &'static str) -> Request<'static> {
        Request {
            operation: "CREATE",
            group: "",
            version: "v1",
            plural: "pods",
            subresource,
            name: "",
            cluster_scoped: false,
        }
    }

    fn matches(rule: Value, request: Request<'_>) -> bool {
        let hook = Hook::of("c", "u", &json!({"rules": [rule]}));
        hook.first_match(std::iter::once(((), request))).is_some()
    }

    fn rule(resources: &[&str]) -> Value {
        json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": resources})
    }

    #[test]
    fn a_rule_names_resources_and_subresources_apart() {
        for (resource, whole, status) in [
            ("pods", true, false),
            ("pods/status", false, true),
            ("pods/*", true, true),
            ("*", true, false),
            ("*/*", true, true),
            ("*/status", false, true),
            ("services", false, false),
        ] {
            assert_eq!(matches(rule(&[resource]), pods("")), whole, "{resource}");
            let found = matches(rule(&[resource]), pods("status"));
            assert_eq!(found, status, "{resource}");
        }
    }

    #[test]
    fn a_rule_names_operation_group_version_and_scope() {
        let with = |field: &str, value: Value| {
            let mut rule = rule(&["pods"]);
            rule[field] = value;
            matches(rule, pods(""))
        };
        assert!(with("operations", json!(["UPDATE", "*"])));
        assert!(!with("operations", json!(["UPDATE", "DELETE", "CONNECT"])));
        assert!(with("apiGroups", json!(["apps", "*"])));
        assert!(!with("apiGroups", json!(["apps"])));
        assert!(!with("apiVersions", json!(["v1beta1"])));
        assert!(with("scope", json!("Namespaced")));
        assert!(with("scope", json!("*")));
        assert!(!with("scope", json!("Cluster")));
    }

    #[test]
    fn an_object_is_selected_by_what_it_was_or_what_it_becomes() {
        let selector = json!({"matchLabels": {"a": "b"}});
        let hook = Hook::of("c", "u", &json!({"objectSelector": selector}));
        let labelled = json!({"metadata": {"labels": {"a": "b"}}});
        let plain = json!({"metadata": {}});
        assert!(hook.selects(Some(&plain), Some(&labelled)));
        assert!(hook.selects(Some(&labelled), None));
        assert!(!hook.selects(Some(&plain), Some(&plain)));
        assert!(!hook.selects(None, None));
        let absent = json!({"objectSelector": {
            "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}});
        let hook = Hook::of("c", "u", &absent);
        assert!(hook.selects(Some(&plain), None));
        assert!(!hook.selects(Some(&json!({"container": "c"})), None));
    }
}
