//! What the crate `fuzz` calls: what is read off a request's head before anything else is known.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::negotiate::{Offer, Wanted};
use super::registry::{Registry, Snapshot};
use super::request::{self, Query, Route};
use super::request_info::RequestInfo;
use super::{gzip, options, proxy, rest};
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
