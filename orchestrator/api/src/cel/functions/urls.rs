//! URLs: absolute ones and absolute paths (`net/url.ParseRequestURI`).

use std::collections::BTreeMap;

use super::{Cost, ONE, Overload, T, f, m, net::opaque, strings::text};
use crate::cel::{
    meter::Meter,
    typing::Opaque as O,
    value::{Failure, Key, List, Map, Opaque, Outcome, Value, error, no_overload},
};

const U: T = T::Of(O::Url);

pub const TABLE: &[Overload] = &[
    f("url", &[T::Str], U, Cost::Text(1), to_url),
    f("isURL", &[T::Str], T::Bool, Cost::Text(1), |_, a| {
        Ok(Url::parse(text(a, 0)?).is_some().into())
    }),
    m("getScheme", &[U], T::Str, ONE, |_, a| {
        Ok(url(a)?.scheme.as_str().into())
    }),
    m("getHost", &[U], T::Str, ONE, |_, a| {
        Ok(url(a)?.host.as_str().into())
    }),
    m("getHostname", &[U], T::Str, ONE, |_, a| {
        Ok(url(a)?.host_and_port().0.into())
    }),
    m("getPort", &[U], T::Str, ONE, |_, a| {
        Ok(url(a)?.host_and_port().1.into())
    }),
    m("getEscapedPath", &[U], T::Str, ONE, |_, a| {
        Ok(url(a)?.path.as_str().into())
    }),
    m(
        "getQuery",
        &[U],
        T::Map(&T::Str, &T::List(&T::Str)),
        Cost::Fixed(1),
        query,
    ),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    pub fn parse(text: &str) -> Option<Self> {
        let is_control = |c: char| c.is_ascii_control() || c == ' ';
        if text.is_empty() || text.contains(is_control) {
            return None;
        }
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        if let Some(path) = text.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
            return Self::whole("", "", &format!("/{path}"), query);
        }
        let (scheme, rest) = match text.split_once(':') {
            Some(parts) => parts,
            None => ("", text),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let begins = |c: char| c.is_ascii_alphabetic();
        if !scheme.starts_with(begins) || !scheme.chars().all(fits) {
            return None;
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return match rest.starts_with('/') {
                true => Self::whole(scheme, "", rest, query),
                // Opaque: `mailto:a@b`.
                false if !rest.is_empty() => Self::whole(scheme, "", "", query),
                false => None,
            };
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        Self::whole(scheme, host, path, query)
    }

    fn whole(scheme: &str, host: &str, path: &str, query: &str) -> Option<Self> {
        let url = Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.into(),
            path: path.into(),
            query: query.into(),
        };
        let (name, port) = url.host_and_port();
        let bracketed = url.host.starts_with('[');
        let is_name = match bracketed {
            true => name.parse::<std::net::Ipv6Addr>().is_ok(),
            false => !name.contains(['[', ']', '<', '>', '"', '\\', '^', '`', '{', '|', '}']),
        };
        let fits = is_name && port.bytes().all(|b| b.is_ascii_digit()) && decoded(path).is_some();
        fits.then_some(url)
    }

    fn host_and_port(&self) -> (&str, &str) {
        if let Some(rest) = self.host.strip_prefix('[') {
            let (name, rest) = rest.split_once(']').unwrap_or((rest, ""));
            return (name, rest.strip_prefix(':').unwrap_or(rest));
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }
}

/// A text without its `%XX`; None if one is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn to_url<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let text = text(args, 0)?;
    match Url::parse(text) {
        Some(url) => Ok(opaque(Opaque::Url(url))),
        None => error(format!(
            "URL parse error during conversion from string: parse {:?}: invalid URI for request",
            &text[..text.floor_char_boundary(100)]
        )),
    }
}

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, Failure> {
    match &args[0] {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Url(url) => Ok(url),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn query<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let query = &url(args)?.query;
    meter.charge(query.len() as u64 / 10)?;
    let mut all: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
    for pair in query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| decoded(&text.replace('+', " "));
        if let (Some(name), Some(value)) = (plain(name), plain(value)) {
            all.entry(Key::String(name.into()))
                .or_default()
                .push(value.into());
        }
    }
    let lists = all
        .into_iter()
        .map(|(name, values)| (name, List::made(values)));
    Ok(Map::made(lists.collect()))
}
