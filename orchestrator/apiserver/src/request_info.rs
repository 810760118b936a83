//! What a request asks for, as far as its method, path and query tell, whoever serves it (Kubernetes'
//! RequestInfo, apiserver 1.33): for what looks at requests to kinds of other servers too. Pure.

use axum::http::{Method, Uri};

use super::request::percent_decode;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// `list`; of a path that is no resource, the method in lower case.
    pub verb: &'static str,
    /// Decoded.
    pub path: String,
    /// None: the path is no resource.
    pub object: Option<ObjectInfo>,
}

/// An object or a collection. What is not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

/// Subresources whose answer lasts as long as the client likes.
const LASTING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

impl RequestInfo {
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path = percent_decode(uri.path());
        let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
        let (group, version, words) = match words.as_slice() {
            ["api", version, words @ ..] => ("", *version, words),
            ["apis", group, version, words @ ..] => (*group, *version, words),
            _ => ("", "", [].as_slice()),
        };
        let (watches, words) = match words {
            ["watch", words @ ..] if !words.is_empty() => (true, words),
            words => (asks_to_watch(uri), words),
        };
        let (namespace, words) = match words {
            ["namespaces", name, "status" | "finalize", ..] | ["namespaces", name] => {
                (*name, words)
            }
            ["namespaces", namespace, words @ ..] => (*namespace, words),
            words => ("", words),
        };
        let object = words.first().map(|resource| ObjectInfo {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: (*resource).to_owned(),
            subresource: words.get(2).copied().unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            name: words.get(1).copied().unwrap_or_default().to_owned(),
        });
        let named = object
            .as_ref()
            .is_some_and(|object| !object.name.is_empty());
        Self {
            verb: verb(method, object.is_some(), named, watches),
            object,
            path: path.into_owned(),
        }
    }

    /// Whether the answer goes on for as long as the client likes.
    pub fn lasts(&self) -> bool {
        let object = self.object.as_ref();
        self.verb == "watch"
            || object.is_some_and(|object| LASTING.contains(&object.subresource.as_str()))
    }
}

fn asks_to_watch(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("watch="))
        .any(|value| !matches!(value, "" | "false" | "0"))
}

fn verb(method: &Method, object: bool, named: bool, watches: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if object && watches => "watch",
        Method::GET | Method::HEAD if object && !named => "list",
        Method::HEAD if !object => "head",
        Method::GET | Method::HEAD => "get",
        Method::POST if object => "create",
        Method::PUT if object => "update",
        Method::DELETE if object && !named => "deletecollection",
        Method::DELETE => "delete",
        Method::PATCH => "patch",
        Method::POST => "post",
        Method::PUT => "put",
        Method::OPTIONS if !object => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str) -> (&'static str, String) {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let info = RequestInfo::of(&method, &uri.parse().expect("a URI"));
        let text = info.object.map_or(info.path, |object| {
            let ObjectInfo {
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
            } = object;
            format!("{group}|{version}|{resource}|{subresource}|{namespace}|{name}")
        });
        (info.verb, text)
    }

    #[test]
    fn a_request_is_read_off_its_method_path_and_query() {
        let cases = [
            ("GET", "/api/v1/pods", "list", "|v1|pods|||"),
            ("GET", "/api/v1/pods?watch=true", "watch", "|v1|pods|||"),
            ("GET", "/api/v1/watch/pods", "watch", "|v1|pods|||"),
            (
                "GET",
                "/api/v1/namespaces/a/pods/b/log?watch=0",
                "get",
                "|v1|pods|log|a|b",
            ),
            (
                "POST",
                "/apis/x.io/v2/namespaces/a/widgets",
                "create",
                "x.io|v2|widgets||a|",
            ),
            (
                "DELETE",
                "/apis/x.io/v2/namespaces/a/widgets",
                "deletecollection",
                "x.io|v2|widgets||a|",
            ),
            ("GET", "/api/v1/namespaces", "list", "|v1|namespaces|||"),
            ("GET", "/api/v1/namespaces/a", "get", "|v1|namespaces||a|a"),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update",
                "|v1|namespaces|finalize|a|a",
            ),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get",
                "rbac.authorization.k8s.io|v1|clusterroles|||system:node",
            ),
            ("GET", "/api/v1", "get", "/api/v1"),
            ("POST", "/join", "post", "/join"),
            ("HEAD", "/livez", "head", "/livez"),
        ];
        for (method, uri, verb, object) in cases {
            assert_eq!(of(method, uri), (verb, object.to_owned()), "{method} {uri}");
        }
    }

    #[test]
    fn watches_logs_and_connections_last() {
        for (uri, lasts) in [
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/namespaces/a/pods/b/exec", true),
            ("/api/v1/namespaces/a/pods/b/log", true),
            ("/api/v1/pods", false),
        ] {
            let info = RequestInfo::of(&Method::GET, &Uri::from_static(uri));
            assert_eq!(info.lasts(), lasts, "{uri}");
        }
    }
}
