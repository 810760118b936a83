//! What pull secrets say: which credentials are shown to an image's registry. Pure.
//!
//! A Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` holds a table from registries
//! to credentials. A row is for an image whose name begins with its registry and path; each part of a host's
//! name may be a pattern (`*.registry.example`). The most specific rows are tried first, as a kubelet does.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

/// The keys of Secrets that hold such a table, in the present and in the older format.
const PRESENT_KEY: &str = ".dockerconfigjson";
const OLDER_KEY: &str = ".dockercfg";

/// The registry of names that have none, and the names under which tables have it.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_ALIASES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// How many credentials are tried for one image: each is a request to its registry.
const MOST_TRIES: usize = 16;

/// A user of a registry. The parts that are secret are in no `Debug` output.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Exchanged by the Engine for a token, in place of the password.
    pub identity_token: String,
    /// As the table names it.
    pub registry: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} at {})", self.username, self.registry)
    }
}

/// The tables of a pod's pull secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keyring {
    rows: Vec<(Pattern, Credentials)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

#[derive(Deserialize)]
struct Present {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

impl Keyring {
    /// Adds the table of one Secret; false if it holds none that reads.
    pub fn add(&mut self, entries: &BTreeMap<String, Vec<u8>>) -> bool {
        let table = match (entries.get(PRESENT_KEY), entries.get(OLDER_KEY)) {
            (Some(bytes), _) => serde_json::from_slice::<Present>(bytes).map(|it| it.auths),
            (None, Some(bytes)) => serde_json::from_slice(bytes),
            (None, None) => return false,
        };
        // The parser's error would quote the table.
        let Ok(table) = table else { return false };
        for (registry, entry) in table {
            if let Some(row) = row(registry, entry) {
                self.rows.push(row);
            }
        }
        self.rows.sort_by(|(a, _), (b, _)| b.cmp(a));
        true
    }

    /// What is shown for an image, in the order in which it is tried.
    pub fn of(&self, image: &str) -> Vec<Credentials> {
        let (registry, path) = split(image);
        let (host, port) = host_and_port(registry);
        let fits = |pattern: &Pattern| {
            let hosts = match DEFAULT_ALIASES.contains(&host) {
                true => DEFAULT_ALIASES
                    .iter()
                    .any(|host| matches(&pattern.host, host)),
                false => matches(&pattern.host, host),
            };
            let rest = path.strip_prefix(pattern.path.as_str());
            let below = rest.is_some_and(|rest| {
                pattern.path.is_empty() || rest.is_empty() || rest.starts_with(['/', ':', '@'])
            });
            hosts && pattern.port.as_deref() == port && below
        };
        let fitting = self.rows.iter().filter(|(pattern, _)| fits(pattern));
        let fitting = fitting.map(|(_, credentials)| credentials.clone());
        let mut all: Vec<Credentials> = Vec::new();
        for credentials in fitting {
            if !all.contains(&credentials) {
                all.push(credentials);
            }
        }
        all.truncate(MOST_TRIES);
        all
    }
}

fn row(registry: String, entry: Entry) -> Option<(Pattern, Credentials)> {
    let (mut username, mut password) = (entry.username, entry.password);
    if !entry.auth.is_empty() {
        let auth = entry.auth.trim();
        let text = STANDARD
            .decode(auth)
            .or_else(|_| STANDARD_NO_PAD.decode(auth));
        let text = String::from_utf8(text.ok()?).ok()?;
        let (user, word) = text.split_once(':')?;
        (username, password) = (user.to_owned(), word.trim_end_matches('\0').to_owned());
    }
    let bare = registry
        .split_once("://")
        .map_or(&*registry, |(_, bare)| bare);
    let (server, path) = bare.split_once('/').unwrap_or((bare, ""));
    if server.is_empty() {
        return None;
    }
    let path = path.trim_matches('/');
    // The API's version is not a part of images' names.
    let path = match path.split_once('/').unwrap_or((path, "")) {
        ("v1" | "v2", rest) => rest,
        _ => path,
    };
    let (host, port) = host_and_port(server);
    let pattern = Pattern {
        host: host.to_ascii_lowercase(),
        port: port.map(str::to_owned),
        path: path.to_owned(),
    };
    let credentials = Credentials {
        username,
        password,
        identity_token: entry.identitytoken,
        registry,
    };
    Some((pattern, credentials))
}

/// The registry of an image's name, and the rest of the name.
fn split(image: &str) -> (&str, &str) {
    match image.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, image),
    }
}

fn host_and_port(server: &str) -> (&str, Option<&str>) {
    match server.rsplit_once(':') {
        // A colon inside of brackets is a part of the address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (server, None),
    }
}

/// Whether a host's name fits, part by part.
fn matches(pattern: &str, host: &str) -> bool {
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    pattern.split('.').count() == host.split('.').count()
        && patterns
            .zip(parts)
            .all(|(pattern, part)| fits(pattern, part))
}

/// Whether a part fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, part: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = part.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyring(table: serde_json::Value) -> Keyring {
        let mut keyring = Keyring::default();
        let text = json!({ "auths": table }).to_string().into_bytes();
        assert!(keyring.add(&BTreeMap::from([(PRESENT_KEY.to_owned(), text)])));
        keyring
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring
            .of(image)
            .into_iter()
            .map(|it| it.username)
            .collect()
    }

    #[test]
    fn the_most_specific_row_of_a_table_comes_first() {
        let row = |user: &str| json!({"username": user, "password": "p"});
        let keyring = keyring(json!({
            "registry.example": row("all"),
            "https://registry.example/v2/team": row("team"),
            "registry.example:5000": row("port"),
            "*.wild.example": row("wild"),
            "https://index.docker.io/v1/": row("hub"),
            "[2001:db8::1]:5000": row("six"),
            "localhost:5000/a": row("local"),
        }));
        let cases: [(&str, &[&str]); 12] = [
            ("registry.example/team/app:1", &["team", "all"]),
            ("registry.example/team", &["team", "all"]),
            ("registry.example/teamwork/app", &["all"]),
            ("registry.example:5000/team/app", &["port"]),
            ("registry.example.evil/team/app", &[]),
            ("a.wild.example/x@sha256:00", &["wild"]),
            ("a.b.wild.example/x", &[]),
            ("nginx", &["hub"]),
            ("library/nginx:1", &["hub"]),
            ("docker.io/library/nginx", &["hub"]),
            ("[2001:db8::1]:5000/x", &["six"]),
            ("localhost:5000/a:tag", &["local"]),
        ];
        for (image, expected) in cases {
            assert_eq!(users(&keyring, image), expected, "{image}");
        }
    }

    #[test]
    fn both_formats_read_and_what_does_not_read_is_no_table() {
        let entry = |auth: &str| json!({ "r.example": { "auth": auth } });
        let older = entry("dXNlcjpwYTpzcw==").to_string().into_bytes();
        let mut keyring = Keyring::default();
        assert!(keyring.add(&BTreeMap::from([(OLDER_KEY.to_owned(), older)])));
        let found = keyring.of("r.example/x");
        assert_eq!(
            (&*found[0].username, &*found[0].password),
            ("user", "pa:ss")
        );
        assert!(
            !format!("{found:?}").contains("pa:ss"),
            "no secret is shown"
        );
        for bytes in ["", "{", "{\"auths\": 1}", "{\"auths\": {\"r\": 1}}"] {
            let entries = BTreeMap::from([(PRESENT_KEY.to_owned(), bytes.into())]);
            assert!(!Keyring::default().add(&entries), "{bytes}");
        }
        assert!(!Keyring::default().add(&BTreeMap::new()));
        for auth in ["%%", "dXNlcg==", "/w=="] {
            let table = json!({ "auths": entry(auth) }).to_string().into_bytes();
            let mut keyring = Keyring::default();
            keyring.add(&BTreeMap::from([(PRESENT_KEY.to_owned(), table)]));
            assert_eq!(keyring.of("r.example/x"), [], "{auth}");
        }
    }

    #[test]
    fn patterns_fit_within_one_part_of_a_name() {
        for (pattern, host, expected) in [
            ("*.a", "b.a", true),
            ("*.a", "a", false),
            ("x*y*z.a", "xyz.a", true),
            ("x*y*z.a", "x1y2z.a", true),
            ("x*y*z.a", "x1z.a", false),
            ("*", "b.a", false),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }
}
