//! Links in what a proxied server says of itself, so that they lead through the proxy: `Location`, and the
//! attributes of HTML that hold URLs. Pure but for [`Html::rewrite`], which follows a body.
//!
//! Which links are rewritten is Kubernetes' (`apimachinery/pkg/util/proxy/transport.go`): those of the same server
//! that begin with a slash.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};

/// Tags with the attributes that hold URLs.
const LINKS: [(&str, &[&str]); 28] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("use", &["href"]),
    ("video", &["poster", "src"]),
    ("image", &["href"]),
];

/// What follows these is text until they end.
const RAW: [&str; 7] = [
    "script", "style", "textarea", "title", "xmp", "noembed", "noframes",
];

/// A tag or a comment's beginning that is longer is passed on as it is.
const TAG_BYTES: usize = 64 * 1024;

/// Makes links lead through the proxy.
#[derive(Clone, Debug)]
pub struct Rewriter {
    /// `/api/v1/namespaces/shop/services/web/proxy`
    pub prefix: String,
    /// By which the client knows this server.
    pub host: String,
}

impl Rewriter {
    /// A URL as it is written through the proxy; one that leads elsewhere, or is relative, stays.
    pub fn url(&self, url: &str) -> String {
        let (origin, path) = split(url);
        let is_own = match host(origin) {
            None => origin.is_empty(),
            Some(host) => host.eq_ignore_ascii_case(&self.host),
        };
        if !is_own || !path.starts_with('/') || path.starts_with(&self.prefix) {
            return url.to_owned();
        }
        format!("{origin}{}{path}", self.prefix)
    }
}

/// Scheme with authority, and the rest.
fn split(url: &str) -> (&str, &str) {
    let scheme = url.find(':').filter(|at| {
        let scheme = &url[..*at];
        let first = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        first
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let behind = scheme.map_or(0, |at| at + 1);
    let Some(authority) = url[behind..].strip_prefix("//") else {
        return url.split_at(behind);
    };
    let length = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    url.split_at(behind + 2 + length)
}

/// `None` where an origin has no authority.
fn host(origin: &str) -> Option<&str> {
    let (_, authority) = origin.split_once("//")?;
    Some(authority.rsplit('@').next().unwrap_or(authority))
}

/// A page, piece by piece.
pub struct Html {
    rewriter: Rewriter,
    /// What has arrived and is not understood yet.
    rest: Vec<u8>,
    /// What is known of the tag that `rest` begins with, if it does.
    open: OpenTag,
    /// The tag whose text goes on.
    raw: Option<&'static str>,
    in_comment: bool,
}

impl Html {
    pub fn new(rewriter: Rewriter) -> Self {
        Self {
            rewriter,
            rest: Vec::new(),
            open: OpenTag::default(),
            raw: None,
            in_comment: false,
        }
    }

    /// The page with its links rewritten, as it arrives.
    pub fn rewrite<S, E>(self, page: S) -> impl Stream<Item = io::Result<Bytes>> + use<S, E>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        stream::unfold(Some((self, page)), async |state| {
            let (mut html, mut page) = state?;
            Some(match page.next().await {
                Some(Ok(piece)) => (Ok(html.push(&piece).into()), Some((html, page))),
                Some(Err(error)) => (Err(io::Error::other(error)), None),
                None => (Ok(html.end().into()), None),
            })
        })
    }

    /// What is left when the page is over.
    pub fn end(&mut self) -> Vec<u8> {
        self.open = OpenTag::default();
        std::mem::take(&mut self.rest)
    }

    /// Takes a piece, and gives what of the page is certain by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(piece);
        let mut out = Vec::new();
        let mut at = 0;
        while at < rest.len() {
            let (length, complete) = self.token(&rest[at..], &mut out);
            at += length;
            if !complete {
                break;
            }
        }
        if rest.len() - at > TAG_BYTES {
            out.extend_from_slice(&rest[at..]);
            self.open = OpenTag::default();
        } else {
            // Nothing is moved while a tag stays open.
            rest.drain(..at);
            self.rest = rest;
        }
        out
    }

    /// Writes the next token; its length, and whether more can be understood now.
    fn token(&mut self, text: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        if self.in_comment {
            let (length, ended) = until(text, b"-->");
            out.extend_from_slice(&text[..length]);
            self.in_comment = !ended;
            return (length, ended);
        }
        if let Some(tag) = self.raw {
            let end = format!("</{tag}");
            let (length, ended) = until_ignoring_case(text, end.as_bytes());
            out.extend_from_slice(&text[..length]);
            if ended {
                self.raw = None;
            }
            return (length, ended);
        }
        let Some(start) = text.iter().position(|byte| *byte == b'<') else {
            out.extend_from_slice(text);
            return (text.len(), true);
        };
        if start > 0 {
            out.extend_from_slice(&text[..start]);
            return (start, true);
        }
        if text.starts_with(b"<!--") {
            out.extend_from_slice(b"<!--");
            self.in_comment = true;
            return (4, true);
        }
        if text.len() < 4 {
            return (0, false);
        }
        let Some(length) = self.open.length(text) else {
            return (0, false);
        };
        self.open = OpenTag::default();
        self.tag(&text[..length], out);
        (length, true)
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let name: Vec<u8> = tag[1..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .map(u8::to_ascii_lowercase)
            .collect();
        self.raw = RAW.into_iter().find(|raw| raw.as_bytes() == name);
        let links = LINKS.iter().find(|(tag, _)| tag.as_bytes() == name);
        let Some((_, links)) = links else {
            out.extend_from_slice(tag);
            return;
        };
        let mut written = 0;
        for (attribute, value) in attributes(tag, 1 + name.len()) {
            let text = std::str::from_utf8(&tag[value.clone()]);
            if let Ok(text) = text
                && links
                    .iter()
                    .any(|link| attribute.eq_ignore_ascii_case(link))
            {
                out.extend_from_slice(&tag[written..value.start]);
                out.extend_from_slice(self.rewriter.url(text).as_bytes());
                written = value.end;
            }
        }
        out.extend_from_slice(&tag[written..]);
    }
}

/// Up to and with the needle; without it, all but what could be its beginning.
fn until(text: &[u8], needle: &[u8]) -> (usize, bool) {
    find(text, needle, |a, b| a == b)
}

fn until_ignoring_case(text: &[u8], needle: &[u8]) -> (usize, bool) {
    find(text, needle, |a, b| a.eq_ignore_ascii_case(b))
}

fn find(text: &[u8], needle: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> (usize, bool) {
    let first = needle[0];
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(|byte| *byte == first) {
        at += next;
        let here = &text[at..];
        if here.len() < needle.len() {
            return (at, false);
        }
        if same(&here[..needle.len()], needle) {
            return (at + needle.len(), true);
        }
        at += 1;
    }
    (text.len(), false)
}

/// How far the end of a tag has been looked for.
#[derive(Default)]
struct OpenTag {
    looked_at: usize,
    /// The quote that is open there.
    quote: Option<u8>,
    /// A quote counts behind an equals sign, with blanks between them or none.
    is_behind_equals: bool,
}

impl OpenTag {
    /// Up to the `>` that is in no quotes. `text` is that of the call before and what has come since, of which
    /// each byte is looked at once.
    fn length(&mut self, text: &[u8]) -> Option<usize> {
        for byte in text.get(self.looked_at..)? {
            self.looked_at += 1;
            #[cfg(test)]
            LOOKS.with(|looks| looks.set(looks.get() + 1));
            match self.quote {
                None if *byte == b'>' => return Some(self.looked_at),
                None if self.is_behind_equals && b"\"'".contains(byte) => self.quote = Some(*byte),
                Some(open) if *byte == open => self.quote = None,
                _ => {}
            }
            if !byte.is_ascii_whitespace() {
                self.is_behind_equals = *byte == b'=';
            }
        }
        None
    }
}

#[cfg(test)]
thread_local! {
    /// Bytes that were looked at for the ends of tags.
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Names of attributes with the places of their values.
fn attributes(tag: &[u8], from: usize) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    let mut at = from;
    let skip = |mut at: usize, is: fn(u8) -> bool| {
        while at < tag.len() && is(tag[at]) {
            at += 1;
        }
        at
    };
    while at < tag.len() {
        at = skip(at, |byte| byte.is_ascii_whitespace() || byte == b'/');
        let name = at;
        at = skip(at, |byte| {
            !byte.is_ascii_whitespace() && !b"=>/".contains(&byte)
        });
        if at == name {
            at += 1;
            continue;
        }
        let name = String::from_utf8_lossy(&tag[name..at]).into_owned();
        at = skip(at, |byte| byte.is_ascii_whitespace());
        if tag.get(at) != Some(&b'=') {
            continue;
        }
        at = skip(at + 1, |byte| byte.is_ascii_whitespace());
        let value = match tag.get(at) {
            Some(quote @ (b'"' | b'\'')) => {
                let length = tag[at + 1..].iter().position(|byte| byte == quote);
                let end = length.map_or(tag.len(), |length| at + 1 + length);
                let value = at + 1..end;
                at = end + 1;
                value
            }
            _ => {
                let start = at;
                at = skip(at, |byte| !byte.is_ascii_whitespace() && byte != b'>');
                start..at
            }
        };
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter() -> Rewriter {
        Rewriter {
            prefix: "/api/v1/namespaces/x/services/web/proxy".to_owned(),
            host: "localhost:8001".to_owned(),
        }
    }

    #[test]
    fn links_of_the_same_server_lead_through_the_proxy() {
        let prefix = rewriter().prefix;
        for (url, expected) in [
            ("/a?b=c#d", format!("{prefix}/a?b=c#d")),
            ("/", format!("{prefix}/")),
            (
                "http://localhost:8001/a",
                format!("http://localhost:8001{prefix}/a"),
            ),
            ("//localhost:8001/a", format!("//localhost:8001{prefix}/a")),
            ("a/b", "a/b".to_owned()),
            ("#top", "#top".to_owned()),
            ("?q", "?q".to_owned()),
            ("https://example.com/a", "https://example.com/a".to_owned()),
            ("//example.com/a", "//example.com/a".to_owned()),
            ("mailto:a@b", "mailto:a@b".to_owned()),
            ("javascript:/x/", "javascript:/x/".to_owned()),
            (&format!("{prefix}/a"), format!("{prefix}/a")),
        ] {
            assert_eq!(rewriter().url(url), expected, "{url}");
        }
    }

    const PAGE: &str = r#"<!DOCTYPE html><HTML><head><link rel=x href=/s.css>
<script src="/a.js">if (a < b) document.write('<a href="/no">')</script></head>
<body><!-- <a href="/no"> --><a class='b' href = '/x?a=1&amp;b=2'>1 < 2 "</a>
<img alt="a > b" src="/i.png"/><a data-href="/no" href="rel">é</a><input value=/no>"#;

    fn rewritten() -> String {
        let prefix = rewriter().prefix;
        let mut page = PAGE.to_owned();
        for link in ["/s.css", "/a.js", "/x?a", "/i.png"] {
            page = page.replacen(link, &format!("{prefix}{link}"), 1);
        }
        page
    }

    #[test]
    fn a_page_is_rewritten_the_same_in_pieces_of_any_size() {
        for size in 1..PAGE.len() {
            let mut html = Html::new(rewriter());
            let mut out = Vec::new();
            for piece in PAGE.as_bytes().chunks(size) {
                out.extend(html.push(piece));
            }
            out.extend(&html.rest);
            assert_eq!(String::from_utf8_lossy(&out), rewritten(), "{size}");
        }
    }

    #[test]
    fn a_tag_that_stays_open_is_looked_at_once_however_small_its_pieces_are() {
        let page = format!("<a title=\"{}\" href=/x>", "< ".repeat(30_000));
        let mut html = Html::new(rewriter());
        LOOKS.with(|looks| looks.set(0));
        let mut out = Vec::new();
        for byte in page.as_bytes() {
            out.extend(html.push(&[*byte]));
        }
        assert!(out.ends_with(format!("href={}/x>", rewriter().prefix).as_bytes()));
        assert_eq!(LOOKS.with(std::cell::Cell::get), page.len());
    }

    #[test]
    fn a_tag_without_end_is_not_kept() {
        let mut html = Html::new(rewriter());
        let mut out = html.push(b"<a href=\"").len();
        for _ in 0..100 {
            out += html.push(&[b'x'; 4096]).len();
            assert!(html.rest.len() <= TAG_BYTES);
        }
        assert_eq!(out + html.rest.len(), 9 + 100 * 4096);
    }
}
