//! What the crate `fuzz` calls: what is read off a request's head before anything else is known, and what
//! others answer with.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::json;

use super::admission::webhooks::review::{self, Role, Version};
use super::aggregation::documents;
use super::authn::User;
use super::custom::conversion;
use super::negotiate::{Offer, Wanted};
use super::openapi::{foreign, gnostic};
use super::proxy::rewrite::{Html, Rewriter};
use super::registry::{Registry, Snapshot};
use super::request::{self, Query, Route, Verb};
use super::request_info::RequestInfo;
use super::tables::IncludeObject;
use super::{audit, authn, gzip, options, proxy, reply, rest};
use api::Subresource;

static SERVED: LazyLock<std::sync::Arc<Snapshot>> = LazyLock::new(|| Registry::new().snapshot());

/// A method, a space and a path with its query: whether it leads anywhere.
///
/// # Panics
/// If a path for the server behind a proxy has segments of dots.
pub fn path(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let (method, uri) = text.split_once(' ').unwrap_or(("GET", &text));
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), uri.parse::<Uri>()) else {
        return false;
    };
    let _ = (RequestInfo::of(&method, &uri).lasts(), request::lasts(&uri));
    let query = Query::of(&uri);
    let _ = query.get("continue").map(rest::list::Token::decode);
    let Ok(Route::Objects(target)) = Route::parse(&SERVED, uri.path()) else {
        return false;
    };
    let mut behind = target.rest.split('/');
    assert!(!behind.any(|word| word == ".."), "{}", target.rest);
    let Some(verb) = target.verb(&method, query.flag("watch")) else {
        return false;
    };
    if target.subresource.is_some_and(Subresource::connects) {
        return proxy::options::of(&target, &query).is_ok();
    }
    options::check(verb, &query).is_ok()
}

/// A value of `Accept`: whether there is a form for it.
pub fn accept(input: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return false;
    };
    let headers = HeaderMap::from_iter([
        (header::ACCEPT, value.clone()),
        (header::ACCEPT_ENCODING, value),
    ]);
    let _ = gzip::is_accepted(&headers);
    let offers = [Offer::BuiltIn, Offer::Custom, Offer::Text, Offer::Review];
    let formed = offers.map(|offer| Wanted::negotiate(&headers, &Query::default(), offer).is_ok());
    formed.contains(&true)
}

/// The query of a request for a log: whether an agent is asked.
pub fn log_options(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let Ok(uri) = format!("/?{text}").parse::<Uri>() else {
        return false;
    };
    proxy::options::of_log(&Query::of(&uri), "pod").is_ok()
}

/// The query of a list, watch or write: whether it is one of a list of some kind.
pub fn list_options(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let Ok(uri) = format!("/?{text}").parse::<Uri>() else {
        return false;
    };
    let query = Query::of(&uri);
    let verbs = ["list", "watch", "create", "update", "patch", "delete"];
    for verb in verbs.into_iter().filter_map(Verb::of) {
        let _ = options::check(verb, &query);
    }
    let _ = query.get("includeObject").map(IncludeObject::parse);
    let _ = (
        query.flag("watch"),
        query.optional_flag("sendInitialEvents"),
    );
    let numbers = ["limit", "timeoutSeconds", "gracePeriodSeconds"];
    let numbers = numbers.map(|name| query.number::<u64>(name).is_ok());
    let fresh = rest::list::Freshness::of(&query).is_ok();
    let served = SERVED.versions().iter().flat_map(|version| &version.served);
    let mut first = served.step_by(20);
    let selected = first.any(|served| rest::list::Selection::of(served, &query).is_ok());
    selected && fresh && !numbers.contains(&false)
}

/// A `continue` token, as it is sent and as what is in it.
///
/// # Panics
/// If a token that is taken is another one when it is sent again.
pub fn continue_token(input: &[u8]) -> bool {
    let _ = rest::list::Token::decode(&String::from_utf8_lossy(input));
    let sent = URL_SAFE_NO_PAD.encode(input);
    let Ok(token) = rest::list::Token::decode(&sent) else {
        return false;
    };
    let again = token.encode();
    let same = rest::list::Token::decode(&again).is_ok_and(|token| token.encode() == again);
    assert!(same, "{again}");
    true
}

/// Headers, one a line: whether they ask to act as another user.
pub fn impersonation(input: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    super::authn::impersonation::asks(&headers)
}

/// An audit policy, and what it says of two requests.
pub fn audit_policy(input: &[u8]) -> bool {
    let Ok(policy) = audit::policy::Policy::parse(input) else {
        return false;
    };
    let ann = User::named("ann", vec!["a".to_owned()]);
    for path in [
        "/apis/apps/v1/namespaces/a/deployments/b/scale",
        "/healthz/x",
    ] {
        let info = RequestInfo::of(&Method::GET, &Uri::from_static(path));
        let _ = (policy.judge(Some(&ann), &info), policy.judge(None, &info));
    }
    true
}

/// What a webhook for admission, conversion or tokens answers with.
pub fn webhook_answer(input: &[u8]) -> bool {
    let Ok(answer) = reply::parse(&Bytes::copy_from_slice(input)) else {
        return false;
    };
    let admission = [Version::V1, Version::V1beta1].into_iter().any(|version| {
        let verdict = |role| review::verdict(version, role, "u", "hook", &answer);
        verdict(Role::Mutating).is_ok() | verdict(Role::Validating).is_ok()
    });
    let sent = json!({"apiVersion": "example.com/v1", "kind": "Tree",
        "metadata": {"name": "a", "uid": "1"}, "spec": {}});
    let desired = "example.com/v2";
    let asked = conversion::review(&["v1".into()], "u", desired, &[]).unwrap_or_default();
    let converted = conversion::converted(&asked, &answer, &[sent], desired);
    let known = authn::webhook::judged(&answer["status"]);
    admission || converted.is_ok() || known.is_ok_and(|known| known.is_some())
}

/// The OpenAPI documents of another server: whether its part is merged into a document of this one.
///
/// # Panics
/// If what comes out refers to what it does not have.
pub fn openapi(input: &[u8]) -> bool {
    let Ok(document) = reply::parse(&Bytes::copy_from_slice(input)) else {
        return false;
    };
    let _ = documents::listed(&document, "example.com", "v1");
    let Ok(part) = foreign::part(document, "example.com", "v1") else {
        return false;
    };
    let mut whole = json!({"swagger": "2.0", "paths": {"/api": {}}, "definitions": {
        "Meta": {"type": "object", "properties": {"name": {"type": "string"}}}}});
    foreign::merge(&mut whole, part);
    for name in foreign::names(&whole) {
        assert!(whole["definitions"][&name].is_object(), "{name}: {whole}");
    }
    gnostic::encode(&whole).len() > 100
}

/// The keys of an issuer of tokens.
pub fn key_set(input: &[u8]) -> bool {
    let Ok(set) = reply::parse(&Bytes::copy_from_slice(input)) else {
        return false;
    };
    let keys = set["keys"].as_array().into_iter().flatten();
    keys.filter_map(authn::oidc::keys::key).count() > 0
}

/// A page of a pod behind the proxy: whether links are rewritten.
///
/// # Panics
/// If the page comes out otherwise when it arrives in small pieces.
pub fn page(input: &[u8]) -> bool {
    let rewritten = |size: usize| {
        let mut html = Html::new(Rewriter {
            prefix: "/api/v1/namespaces/x/services/web/proxy".to_owned(),
            host: "localhost:8001".to_owned(),
        });
        let mut out: Vec<u8> = input
            .chunks(size)
            .flat_map(|piece| html.push(piece))
            .collect();
        out.extend(html.end());
        out
    };
    let (whole, pieces) = (rewritten(input.len().max(1)), rewritten(7));
    assert!(whole == pieces, "{}", String::from_utf8_lossy(&pieces));
    whole != input
}
