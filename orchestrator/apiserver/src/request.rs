//! What a request is about, read off its method, path and query. Pure.
//!
//! Kubernetes' paths are regular enough that one parser beats a table of routes: authorisation,
//! dispatch and errors all work on what it finds.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::{Method, Uri};

use super::registry::Snapshot;
use api::{ApiError, Resource, Served, Subresource};

/// Where a path leads.
#[derive(Debug, PartialEq)]
pub enum Route {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/apps`
    Group(String),
    /// `/api/v1`, `/apis/apps/v1`
    Resources { group: String, version: String },
    /// Objects.
    Objects(Target),
}

/// Objects, an object, or a part of one.
#[derive(Clone, Debug)]
pub struct Target {
    /// What the path names.
    pub served: Arc<Served>,
    /// None for cluster-scoped resources and for lists over all namespaces.
    pub namespace: Option<String>,
    /// None for a collection.
    pub name: Option<String>,
    /// The part of the object, if not the whole.
    pub subresource: Option<Subresource>,
    /// What the path says behind `proxy`: empty, or from a slash on. Without dot segments, and encoded anew,
    /// so that it is for the next server what it was for this one.
    pub rest: String,
    /// The path begins with the old `watch/`.
    pub watch: bool,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.served, &other.served)
            && self.namespace == other.namespace
            && self.name == other.name
            && self.subresource == other.subresource
            && self.rest == other.rest
            && self.watch == other.watch
    }
}

/// What is done to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// OPTIONS and the like: authorisation has no word for them, so that only a rule for all verbs allows
    /// them. What a proxy passes on may be asked so.
    Unnamed,
}

impl Verb {
    /// The word that discovery, authorisation and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Unnamed => "",
        }
    }

    /// The verb of a word, if it is one of these.
    pub fn of(word: &str) -> Option<Self> {
        let all = [
            Self::Get,
            Self::List,
            Self::Watch,
            Self::Create,
            Self::Update,
            Self::Patch,
            Self::Delete,
            Self::DeleteCollection,
        ];
        all.into_iter().find(|verb| verb.as_str() == word)
    }

    /// True for verbs that change nothing.
    pub fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl Route {
    /// Parses a path below `/api` or `/apis`.
    pub fn parse(served: &Snapshot, path: &str) -> Result<Self, ApiError> {
        let segments: Vec<Cow<'_, str>> = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(percent_decode)
            .collect();
        let words: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        match words.as_slice() {
            ["api"] => Ok(Self::CoreVersions),
            ["apis"] => Ok(Self::Groups),
            ["apis", group] => Ok(Self::Group((*group).to_owned())),
            ["api", version] => Ok(Self::resources("", version)),
            ["apis", group, version] => Ok(Self::resources(group, version)),
            ["api", version, rest @ ..] => parsed(served, "", version, rest, path),
            ["apis", group, version, rest @ ..] => parsed(served, group, version, rest, path),
            _ => Err(ApiError::NoSuchResource),
        }
    }

    fn resources(group: &str, version: &str) -> Self {
        Self::Resources {
            group: group.to_owned(),
            version: version.to_owned(),
        }
    }
}

impl Target {
    /// The version of the kind that the path names.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.served.resource
    }

    /// The version in which its objects are stored.
    pub fn storage(&self) -> &Arc<Resource> {
        &self.served.storage
    }

    /// The verb of a request; None where the method means nothing here.
    pub fn verb(&self, method: &Method, watch: bool) -> Option<Verb> {
        let single = self.name.is_some();
        if self.subresource.is_some_and(Subresource::connects) {
            return Some(match *method {
                Method::GET | Method::HEAD => Verb::Get,
                Method::POST => Verb::Create,
                Method::PUT => Verb::Update,
                Method::PATCH => Verb::Patch,
                Method::DELETE => Verb::Delete,
                _ => Verb::Unnamed,
            });
        }
        match *method {
            Method::GET | Method::HEAD if self.watch || (watch && !single) => Some(Verb::Watch),
            Method::GET | Method::HEAD if single => Some(Verb::Get),
            Method::GET | Method::HEAD => Some(Verb::List),
            Method::POST => Some(Verb::Create),
            Method::PUT if single => Some(Verb::Update),
            Method::PATCH if single => Some(Verb::Patch),
            Method::DELETE if single => Some(Verb::Delete),
            Method::DELETE => Some(Verb::DeleteCollection),
            _ => None,
        }
    }
}

fn parsed(
    served: &Snapshot,
    group: &str,
    version: &str,
    rest: &[&str],
    path: &str,
) -> Result<Route, ApiError> {
    let mut target = objects(served, group, version, rest)?;
    if !target.rest.is_empty() && path.ends_with('/') && !target.rest.ends_with('/') {
        target.rest.push('/');
    }
    // `…/proxy/` is the root of what is behind, `…/proxy` is not.
    if target.subresource == Some(Subresource::Proxy)
        && target.rest.is_empty()
        && path.ends_with('/')
    {
        target.rest.push('/');
    }
    Ok(Route::Objects(target))
}

fn objects(
    served: &Snapshot,
    group: &str,
    version: &str,
    rest: &[&str],
) -> Result<Target, ApiError> {
    let target = |namespace, words: &[&str]| {
        let found = words
            .first()
            .and_then(|plural| served.find(group, version, plural));
        target(found.ok_or(ApiError::NoSuchResource)?, namespace, words)
    };
    match rest {
        ["watch", rest @ ..] if !rest.is_empty() => {
            let target = objects(served, group, version, rest)?;
            Ok(Target {
                watch: true,
                ..target
            })
        }
        // `namespaces/x/status` is a part of the namespace, `namespaces/x/pods` lies in it.
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            target(None, &["namespaces", name, sub])
        }
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => {
            target(Some(namespace), inner)
        }
        _ => target(None, rest),
    }
}

/// `words` begin with the plural.
fn target(
    served: &Arc<Served>,
    namespace: Option<&str>,
    words: &[&str],
) -> Result<Target, ApiError> {
    let (name, sub, rest) = match words {
        [_] => (None, None, String::new()),
        [_, name] => (Some(*name), None, String::new()),
        [_, name, sub] => (Some(*name), Some(*sub), String::new()),
        [_, name, sub, rest @ ..] if *sub == Subresource::Proxy.name() => {
            (Some(*name), Some(*sub), behind(rest))
        }
        _ => return Err(ApiError::NoSuchResource),
    };
    let resource = &served.resource;
    let wrong_scope = match resource.namespaced() {
        true => namespace.is_none() && name.is_some(),
        false => namespace.is_some(),
    };
    if wrong_scope {
        return Err(ApiError::NoSuchResource);
    }
    let subresource = match sub {
        None => None,
        Some(word) => {
            let found = resource.subresources.iter().find(|s| s.name() == word);
            Some(*found.ok_or(ApiError::NoSuchResource)?)
        }
    };
    Ok(Target {
        served: served.clone(),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        subresource,
        rest,
        watch: false,
    })
}

/// The words of a path as a path without dot segments. Slashes that were escaped in a word are slashes for
/// the next server too, as in Kubernetes.
fn behind(words: &[&str]) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for word in words.iter().flat_map(|word| word.split('/')) {
        match word {
            "" | "." => {}
            ".." => drop(kept.pop()),
            word => kept.push(word),
        }
    }
    let encoded = kept.iter().map(|word| format!("/{}", percent_encode(word)));
    encoded.collect()
}

/// Escapes what a segment of a path may not contain (RFC 3986, section 3.3).
pub fn percent_encode(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' | b':' | b'@' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// `%3A` and the like; what is no valid escape stays as it is.
pub fn percent_decode(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = segment
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Whether the answer to a request goes on for as long as the client likes: a watch, a log or a stream. Said
/// before the path is understood, to count the request; what is wrong here counts elsewhere.
pub fn lasts(uri: &Uri) -> bool {
    let path = uri.path();
    if streams(path) {
        return true;
    }
    let query = uri.query().unwrap_or_default();
    let watch =
        |pair: &str| pair.starts_with("watch=") && !matches!(pair, "watch=false" | "watch=0");
    path.ends_with("/log")
        || path.starts_with(super::applied::PREFIX)
        || path.contains("/watch/")
        || query.split('&').any(watch)
}

/// Whether a path names a subresource that connects.
fn streams(path: &str) -> bool {
    let mut words = path.split('/').filter(|word| !word.is_empty());
    if (words.next(), words.next()) != (Some("api"), Some("v1")) {
        return false;
    }
    let first = words.next();
    let plural = match first {
        Some("namespaces") => words.nth(1),
        first => first,
    };
    let sub = words.nth(1);
    match (plural, sub) {
        (Some("pods"), Some("exec" | "attach" | "portforward" | "proxy")) => true,
        (Some("services" | "nodes"), Some("proxy")) => true,
        _ => false,
    }
}

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query string; one that cannot be read counts as empty, as in Kubernetes.
    pub fn of(uri: &Uri) -> Self {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        Self(pairs.map(|query| query.0).unwrap_or_default())
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A switch: present and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or_default()
    }

    /// A switch that may be unset.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name)
            .map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A number; one that does not parse is a bad request.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::BadRequest(format!("query parameter {name}: invalid value {text:?}"))
            }),
        }
    }

    /// Whether nothing may be written (`dryRun=All`).
    pub fn dry_run(&self) -> bool {
        self.all("dryRun").any(|value| value == "All")
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;

    fn parse(path: &str) -> Target {
        match Route::parse(&Registry::new().snapshot(), path) {
            Ok(Route::Objects(target)) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_path_names_resource_namespace_name_and_part() {
        let target = parse("/api/v1/namespaces/default/pods/web-1/log");
        assert_eq!(target.resource().kind, "Pod");
        assert_eq!(target.namespace.as_deref(), Some("default"));
        assert_eq!(target.name.as_deref(), Some("web-1"));
        assert_eq!(target.subresource, Some(Subresource::Log));
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place() {
        let object = parse("/api/v1/namespaces/status");
        assert_eq!(
            (&*object.resource().kind, object.name.as_deref()),
            ("Namespace", Some("status"))
        );
        let part = parse("/api/v1/namespaces/x/finalize");
        assert_eq!(part.subresource, Some(Subresource::Finalize));
        let inside = parse("/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(
            (&*inside.resource().kind, &inside.name),
            ("Deployment", &None)
        );
    }

    #[test]
    fn the_old_watch_paths_watch() {
        let target = parse("/api/v1/watch/namespaces/default/pods");
        assert_eq!(target.verb(&Method::GET, false), Some(Verb::Watch));
    }

    #[test]
    fn a_path_with_the_wrong_scope_or_part_leads_nowhere() {
        for path in [
            "/api/v1/namespaces/x/nodes",
            "/api/v1/pods/x",
            "/api/v1/nodes/x/scale",
            "/api/v2/pods",
            "/apis/apps/v1/pods",
            "/api/v1/namespaces/x/pods/y/log/z",
            "/api/v1/namespaces/x/pods/y/exec/z",
            "/api/v1/namespaces/x/configmaps/y/proxy",
            "/nothing",
        ] {
            let route = Route::parse(&Registry::new().snapshot(), path);
            assert_eq!(route, Err(ApiError::NoSuchResource), "{path}");
        }
    }

    #[test]
    fn a_watch_and_a_log_last() {
        for (uri, expected) in [
            ("/api/v1/pods?watch=true", true),
            ("/api/v1/pods?limit=5&watch=1", true),
            ("/api/v1/watch/pods", true),
            ("/api/v1/namespaces/x/pods/y/log?follow=true", true),
            ("/api/v1/namespaces/x/pods/y/exec?command=a", true),
            ("/api/v1/namespaces/x/pods/y/portforward", true),
            ("/api/v1/namespaces/x/services/y:80/proxy/a/b", true),
            ("/api/v1/nodes/n/proxy/metrics", true),
            ("/api/v1/namespaces/x/pods/exec", false),
            ("/api/v1/namespaces/x/configmaps/y/proxy", false),
            ("/api/v1/pods?watch=false", false),
            ("/api/v1/pods?fieldSelector=a%3Dwatch=true", false),
            ("/api/v1/pods", false),
        ] {
            assert_eq!(lasts(&Uri::from_static(uri)), expected, "{uri}");
        }
    }

    #[test]
    fn what_is_behind_a_proxy_is_a_path_without_dot_segments() {
        let base = "/api/v1/namespaces/x/services/https:web:443/proxy";
        for (path, expected) in [
            ("", ""),
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a//b", "/a/b"),
            ("/a/../../b", "/b"),
            ("/%2e%2e/%2E%2E/etc", "/etc"),
            ("/a%2f..%2f..%2Fb", "/b"),
            ("/a%3Fb%23c%20d", "/a%3Fb%23c%20d"),
            ("/%0d%0aHost:x", "/%0D%0AHost:x"),
            ("/caf%C3%A9", "/caf%C3%A9"),
        ] {
            let target = parse(&format!("{base}{path}"));
            assert_eq!(target.rest, expected, "{path}");
            assert_eq!(target.name.as_deref(), Some("https:web:443"));
            assert_eq!(target.subresource, Some(Subresource::Proxy));
        }
    }

    #[test]
    fn the_verb_of_a_connection_is_that_of_its_method() {
        let exec = parse("/api/v1/namespaces/x/pods/y/exec");
        for (method, verb) in [
            (Method::GET, "get"),
            (Method::HEAD, "get"),
            (Method::POST, "create"),
            (Method::PUT, "update"),
            (Method::PATCH, "patch"),
            (Method::DELETE, "delete"),
            (Method::OPTIONS, ""),
        ] {
            let said = exec.verb(&method, true).map(Verb::as_str);
            assert_eq!(said, Some(verb), "{method}");
        }
        let pod = parse("/api/v1/namespaces/x/pods/y");
        assert_eq!(pod.verb(&Method::OPTIONS, false), None);
    }

    #[test]
    fn names_may_be_escaped() {
        assert_eq!(percent_decode("system%3Anode%"), "system:node%");
    }
}
