//! What a request wants whose resource is not known here: read off its method and path alone, as
//! Kubernetes does for every request.

use axum::http::{Method, Uri};

use super::{Attributes, Decision, allows, refusal};
use crate::State;
use crate::authn::{MASTERS, User};
use crate::request::{Query, percent_decode};
use api::ApiError;
use api::selector::FieldSelector;

/// Whether a path is that of objects, which may not be served here: `/api/v1/pods` and
/// `/apis/apps/v1/deployments`, and what is below.
pub fn is_for_resource(path: &str) -> bool {
    let mut words = path.split('/').filter(|word| !word.is_empty());
    match words.next() {
        Some("api") => words.nth(1).is_some(),
        Some("apis") => words.nth(2).is_some(),
        _ => false,
    }
}

/// Lets a request pass for objects of another server, or of no server at all, or says why not.
pub fn unserved(state: &State, user: &User, method: &Method, uri: &Uri) -> Result<(), ApiError> {
    if user.is_in(MASTERS) || !is_for_resource(uri.path()) {
        return Ok(());
    }
    // The other server reads its path as a whole, and so does this.
    let path = percent_decode(uri.path());
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let query = Query::of(uri);
    let narrowed = query.get("fieldSelector");
    let narrowed = narrowed.and_then(|text| FieldSelector::parse(text).ok());
    let only = narrowed
        .as_ref()
        .and_then(|fields| fields.required("metadata.name"));
    let wanted = attributes(method, &words, query.flag("watch"), only);
    match allows(state, user, &wanted) {
        Decision::Allowed(_) => Ok(()),
        Decision::Refused(why) => Err(refusal(user, &wanted, &why)),
    }
}

/// Kubernetes' RequestInfo of a path of objects, in words. `only` is the one name that a selector demands.
fn attributes<'a>(
    method: &Method,
    words: &[&'a str],
    watch: bool,
    only: Option<&'a str>,
) -> Attributes<'a> {
    let (group, words) = match words {
        ["api", _, words @ ..] => ("", words),
        ["apis", group, _, words @ ..] => (*group, words),
        _ => ("", [].as_slice()),
    };
    let (old_watch, words) = match words {
        ["watch", words @ ..] if !words.is_empty() => (true, words),
        words => (false, words),
    };
    let (namespace, words) = match words {
        ["namespaces", name] | ["namespaces", name, "status" | "finalize", ..] => (*name, words),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
        words => ("", words),
    };
    let word = |place: usize| words.get(place).copied().unwrap_or_default();
    let (resource, name, subresource) = (word(0), word(1), word(2));
    let verb = match *method {
        _ if old_watch => "watch",
        Method::GET | Method::HEAD if !name.is_empty() => "get",
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    };
    let lists = name.is_empty() && matches!(verb, "list" | "watch");
    Attributes {
        verb,
        group,
        resource,
        // Of the old watches, what follows the name has no meaning.
        subresource: if old_watch { "" } else { subresource },
        namespace,
        name: only.filter(|_| lists).unwrap_or(name),
        path: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_objects_says_what_is_wanted() {
        let cases = [
            ("GET", "/api/v1/pods", "list  pods//"),
            ("GET", "/api/v1/namespaces/x/pods/y", "get x pods//y"),
            ("GET", "/api/v1/namespaces/x/pods/y/log", "get x pods/log/y"),
            (
                "POST",
                "/apis/apps/v1/namespaces/x/deployments",
                "create x deployments//",
            ),
            ("DELETE", "/api/v1/namespaces/x", "delete x namespaces//x"),
            (
                "PUT",
                "/api/v1/namespaces/x/finalize",
                "update x namespaces/finalize/x",
            ),
            ("DELETE", "/api/v1/nodes", "deletecollection  nodes//"),
            (
                "GET",
                "/api/v1/watch/namespaces/x/pods/y",
                "watch x pods//y",
            ),
            (
                "PATCH",
                "/apis/a.b/v1/things/one/status",
                "patch  things/status/one",
            ),
            ("OPTIONS", "/api/v1/nodes", "  nodes//"),
        ];
        for (method, path, expected) in cases {
            assert!(is_for_resource(path), "{path}");
            let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
            let method = method.parse().expect("a method");
            let it = attributes(&method, &words, false, None);
            let shown = format!(
                "{} {} {}/{}/{}",
                it.verb, it.namespace, it.resource, it.subresource, it.name
            );
            assert_eq!(shown, expected, "{path}");
        }
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis/apps/v1/",
            "/healthz/a/b/c",
            "/x/y/z",
        ] {
            assert!(!is_for_resource(path), "{path}");
        }
    }
}
