//! Which schema a request belongs to. Pure.

use std::sync::Arc;

use axum::http::{HeaderValue, Method, Uri};
use serde_json::Value;

use crate::authn::User;
use crate::request_info::RequestInfo;
use api::meta;

/// Groups that every caller is in, by whether it showed who it is.
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// What a request asks for, as far as its method and path tell (Kubernetes' RequestInfo).
pub struct Asked<'a> {
    user: &'a User,
    verb: &'static str,
    path: String,
    /// None: no resource.
    object: Option<Object>,
}

struct Object {
    group: String,
    /// With its subresource: `nodes/status`.
    resource: String,
    /// Empty for what is cluster-scoped.
    namespace: String,
}

/// A FlowSchema, made ready.
pub struct Schema {
    pub name: Arc<str>,
    /// For a header.
    pub uid: HeaderValue,
    pub precedence: i64,
    /// The name of its priority level.
    pub level: String,
    by: Distinguisher,
    rules: Vec<Value>,
}

enum Distinguisher {
    None,
    User,
    Namespace,
}

impl<'a> Asked<'a> {
    pub fn of(user: &'a User, method: &Method, uri: &Uri) -> Self {
        let info = RequestInfo::of(method, uri);
        let object = info.object.map(|object| Object {
            resource: match object.subresource.is_empty() {
                true => object.resource.clone(),
                false => format!("{}/{}", object.resource, object.subresource),
            },
            // A namespace is cluster-scoped.
            namespace: match object.resource == "namespaces" && object.group.is_empty() {
                true => String::new(),
                false => object.namespace,
            },
            group: object.group,
        });
        Self {
            user,
            verb: info.verb,
            path: info.path,
            object,
        }
    }

    fn is_in(&self, group: &str) -> bool {
        match group {
            "*" => true,
            AUTHENTICATED => !self.user.is_anonymous(),
            UNAUTHENTICATED => self.user.is_anonymous(),
            group => self.user.is_in(group),
        }
    }
}

impl Schema {
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        Self {
            name: meta::name(object).into(),
            uid: super::shown_uid(object),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or_default(),
            level: text(&spec["priorityLevelConfiguration"]["name"]).to_owned(),
            by: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec["rules"].as_array().cloned().unwrap_or_default(),
        }
    }

    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.rules.iter().any(|rule| {
            items(&rule["subjects"]).any(|subject| is_subject(subject, asked))
                && match &asked.object {
                    Some(object) => {
                        items(&rule["resourceRules"]).any(|rule| covers(rule, asked.verb, object))
                    }
                    None => items(&rule["nonResourceRules"])
                        .any(|rule| covers_path(rule, asked.verb, &asked.path)),
                }
        })
    }

    /// Requests with the same word are one flow of this schema.
    pub fn distinguish(&self, asked: &Asked<'_>) -> Arc<str> {
        match self.by {
            Distinguisher::None => "".into(),
            Distinguisher::User => asked.user.name.clone(),
            Distinguisher::Namespace => {
                let object = asked.object.as_ref();
                object.map_or("", |object| &object.namespace).into()
            }
        }
    }
}

fn is_subject(subject: &Value, asked: &Asked<'_>) -> bool {
    match text(&subject["kind"]) {
        "User" => is_or_all(text(&subject["user"]["name"]), &asked.user.name),
        "Group" => asked.is_in(text(&subject["group"]["name"])),
        "ServiceAccount" => {
            let account = &subject["serviceAccount"];
            let own = asked.user.name.strip_prefix("system:serviceaccount:");
            own.and_then(|own| own.split_once(':'))
                .is_some_and(|(namespace, name)| {
                    namespace == text(&account["namespace"])
                        && is_or_all(text(&account["name"]), name)
                })
        }
        _ => false,
    }
}

fn covers(rule: &Value, verb: &str, object: &Object) -> bool {
    let cluster = object.namespace.is_empty();
    names(&rule["verbs"], verb)
        && names(&rule["apiGroups"], &object.group)
        && names(&rule["resources"], &object.resource)
        && match cluster {
            true => rule["clusterScope"] == true,
            false => names(&rule["namespaces"], &object.namespace),
        }
}

fn covers_path(rule: &Value, verb: &str, path: &str) -> bool {
    let covers = |url: &str| match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == url,
    };
    names(&rule["verbs"], verb) && items(&rule["nonResourceURLs"]).any(|url| covers(text(url)))
}

/// Whether a list holds a word, or the one that stands for all.
fn names(list: &Value, word: &str) -> bool {
    items(list).any(|item| is_or_all(text(item), word))
}

fn is_or_all(pattern: &str, word: &str) -> bool {
    pattern == "*" || pattern == word
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::defaults;
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::anonymous()
        }
    }

    /// The name of the first default schema that matches.
    fn schema(user: &User, method: Method, uri: &str) -> String {
        let mut all: Vec<_> = defaults::schemas().iter().map(Schema::of).collect();
        all.sort_by_key(|schema| schema.precedence);
        let uri: Uri = uri.parse().expect("a path");
        let asked = Asked::of(user, &method, &uri);
        let found = all.iter().find(|schema| schema.matches(&asked));
        found.expect("the last one matches all").name.to_string()
    }

    #[test]
    fn the_default_schemas_tell_callers_apart_as_kubernetes_does() {
        let node = user("system:node:a", &["system:nodes"]);
        let account = user("system:serviceaccount:x:y", &["system:serviceaccounts"]);
        let of_system = user("system:serviceaccount:kube-system:y", &[]);
        let scheduler = user("system:kube-scheduler", &[]);
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";
        let own = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/s";
        for (caller, method, uri, expected) in [
            (
                &user("x", &["system:masters"]),
                Method::GET,
                "/any",
                "exempt",
            ),
            (&User::anonymous(), Method::GET, "/readyz", "probes"),
            (
                &User::anonymous(),
                Method::GET,
                "/api/v1/pods",
                "global-default",
            ),
            (&node, Method::PUT, lease, "system-node-high"),
            (
                &node,
                Method::PATCH,
                "/api/v1/nodes/a/status",
                "system-node-high",
            ),
            (
                &node,
                Method::GET,
                "/api/v1/pods?watch=true",
                "system-nodes",
            ),
            (&scheduler, Method::PUT, own, "system-leader-election"),
            (&scheduler, Method::GET, "/api/v1/pods", "kube-scheduler"),
            (
                &of_system,
                Method::GET,
                "/api/v1/pods",
                "kube-system-service-accounts",
            ),
            (
                &account,
                Method::GET,
                "/api/v1/namespaces/x/pods/p",
                "service-accounts",
            ),
            (&user("x", &[]), Method::GET, "/version", "global-default"),
        ] {
            assert_eq!(
                schema(caller, method, uri),
                expected,
                "{} {uri}",
                caller.name
            );
        }
    }

    #[test]
    fn a_request_is_read_off_its_method_and_path() {
        let user = User::anonymous();
        let read = |method: Method, uri: &str| {
            let uri: Uri = uri.parse().expect("a path");
            let asked = Asked::of(&user, &method, &uri);
            let object = asked.object.map(|o| (o.resource, o.namespace.to_owned()));
            (asked.verb, object)
        };
        let of =
            |resource: &str, namespace: &str| Some((resource.to_owned(), namespace.to_owned()));
        let in_x = "/api/v1/namespaces/x/pods";
        assert_eq!(read(Method::GET, in_x), ("list", of("pods", "x")));
        assert_eq!(
            read(Method::DELETE, in_x),
            ("deletecollection", of("pods", "x"))
        );
        let namespace = "/api/v1/namespaces/x";
        assert_eq!(read(Method::GET, namespace), ("get", of("namespaces", "")));
        let status = "/api/v1/namespaces/x/status";
        assert_eq!(
            read(Method::PUT, status),
            ("update", of("namespaces/status", ""))
        );
        assert_eq!(read(Method::GET, "/apis/apps/v1"), ("get", None));
        let old = "/api/v1/watch/pods";
        assert_eq!(read(Method::GET, old), ("watch", of("pods", "")));
    }
}
