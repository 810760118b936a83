//! Extenders as KubeSchedulerConfiguration names them: servers that have a say in where pods go. Pure.

use std::fmt;

use serde_json::{Map, Value, json};

use super::file::{fields, items};

/// One server. A verb that is empty is one that it does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extender {
    /// What comes before each verb, without a slash at its end.
    pub url: String,
    pub filter: String,
    pub prioritize: String,
    pub preempt: String,
    pub bind: String,
    /// How much its priorities count.
    pub weight: i64,
    pub tls: Tls,
    /// For one answer.
    pub timeout_ms: u64,
    /// It knows the nodes, and is told their names only.
    pub caches_nodes: bool,
    /// It is asked only about pods that want one of these resources; none: about all.
    pub resources: Vec<String>,
    /// Pods are placed without it while it does not answer.
    pub is_ignorable: bool,
}

/// How it is known, and how it knows the scheduler: parts of a kubeconfig, which may hold a key.
#[derive(Clone, Default, PartialEq)]
pub struct Tls {
    pub cluster: Value,
    pub user: Value,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// For an answer, where nothing is said: Kubernetes' `DefaultExtenderTimeout`.
const TIMEOUT_MS: u64 = 5000;
const LONGEST_TIMEOUT_MS: u64 = 300_000;
const MOST_EXTENDERS: usize = 16;

/// The fields of `tlsConfig`, and where a kubeconfig has them.
const TLS_FIELDS: [(&str, bool, &str); 8] = [
    ("insecure", true, "insecure-skip-tls-verify"),
    ("serverName", true, "tls-server-name"),
    ("caFile", true, "certificate-authority"),
    ("caData", true, "certificate-authority-data"),
    ("certFile", false, "client-certificate"),
    ("certData", false, "client-certificate-data"),
    ("keyFile", false, "client-key"),
    ("keyData", false, "client-key-data"),
];

/// The servers, and the resources that only they count.
pub fn read(list: &Value, at: &str) -> Result<(Vec<Extender>, Vec<String>), String> {
    let list = items(list, at)?;
    if list.len() > MOST_EXTENDERS {
        return Err(format!("{at}: there may be {MOST_EXTENDERS} at most"));
    }
    let (mut extenders, mut uncounted) = (Vec::new(), Vec::new());
    for (n, value) in list.iter().enumerate() {
        extenders.push(extender(value, &format!("{at}[{n}]"), &mut uncounted)?);
    }
    let binding = extenders.iter().filter(|it| !it.bind.is_empty()).count();
    if binding > 1 {
        return Err(format!("{at}: found {binding} extenders implementing bind"));
    }
    Ok((extenders, uncounted))
}

fn extender(value: &Value, at: &str, uncounted: &mut Vec<String>) -> Result<Extender, String> {
    let mut read = Extender {
        weight: 1,
        timeout_ms: TIMEOUT_MS,
        ..Extender::default()
    };
    let (mut is_https, mut says_weight) = (false, None);
    for (field, value) in fields(value, at)? {
        let at = format!("{at}.{field}");
        match field.as_str() {
            "urlPrefix" => read.url = text(value, &at)?.trim_end_matches('/').to_owned(),
            "filterVerb" => read.filter = verb(value, &at)?,
            "prioritizeVerb" => read.prioritize = verb(value, &at)?,
            "preemptVerb" => read.preempt = verb(value, &at)?,
            "bindVerb" => read.bind = verb(value, &at)?,
            "weight" => says_weight = value.as_i64(),
            "enableHTTPS" => is_https = truth(value, &at)?,
            "tlsConfig" => {
                read.tls = tls(value, &at)?;
                is_https = true;
            }
            "httpTimeout" => read.timeout_ms = milliseconds(text(value, &at)?, &at)?,
            "nodeCacheCapable" => read.caches_nodes = truth(value, &at)?,
            "ignorable" => read.is_ignorable = truth(value, &at)?,
            "managedResources" => read.resources = managed(value, &at, uncounted)?,
            _ => return Err(format!("{at}: not supported")),
        }
    }
    if !read.prioritize.is_empty() {
        read.weight = says_weight
            .filter(|weight| (1..=i64::from(i32::MAX)).contains(weight))
            .ok_or_else(|| format!("{at}.weight: must have a positive weight applied to it"))?;
    }
    read.url = absolute(&read.url, is_https, &format!("{at}.urlPrefix"))?;
    Ok(read)
}

fn absolute(url: &str, is_https: bool, at: &str) -> Result<String, String> {
    let wanted = if is_https { "https" } else { "http" };
    match url.split_once("://") {
        None if url.is_empty() => Err(format!("{at}: Required value")),
        None => Ok(format!("{wanted}://{url}")),
        Some((scheme, rest)) if !rest.is_empty() && matches!(scheme, "http" | "https") => {
            if is_https && scheme == "http" {
                return Err(format!("{at}: must be https where TLS is asked for"));
            }
            Ok(url.to_owned())
        }
        Some(_) => Err(format!("{at}: must be http://… or https://…")),
    }
}

fn managed(list: &Value, at: &str, uncounted: &mut Vec<String>) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (n, it) in items(list, at)?.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let mut name = String::new();
        let mut is_uncounted = false;
        for (field, value) in fields(it, &at)? {
            let at = format!("{at}.{field}");
            match field.as_str() {
                "name" => name = text(value, &at)?.to_owned(),
                "ignoredByScheduler" => is_uncounted = truth(value, &at)?,
                _ => return Err(format!("{at}: not supported")),
            }
        }
        if !name.contains('/') || names.contains(&name) {
            return Err(format!(
                "{at}.name: must be an extended resource, named once"
            ));
        }
        uncounted.extend(is_uncounted.then(|| name.clone()));
        names.push(name);
    }
    Ok(names)
}

fn tls(value: &Value, at: &str) -> Result<Tls, String> {
    let (mut cluster, mut user) = (Map::new(), Map::new());
    for (field, value) in fields(value, at)? {
        let known = TLS_FIELDS.iter().find(|(name, ..)| name == field);
        let Some((_, is_of_cluster, name)) = known else {
            return Err(format!("{at}.{field}: not supported"));
        };
        let side = if *is_of_cluster {
            &mut cluster
        } else {
            &mut user
        };
        side.insert((*name).to_owned(), value.clone());
    }
    Ok(Tls {
        cluster: json!(cluster),
        user: json!(user),
    })
}

/// A verb is a step of a path.
fn verb(value: &Value, at: &str) -> Result<String, String> {
    let verb = text(value, at)?.trim_matches('/');
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if verb.chars().all(fits) && !verb.split('/').any(|step| step == "..") {
        Ok(verb.to_owned())
    } else {
        Err(format!("{at}: must be a path"))
    }
}

fn text<'a>(value: &'a Value, at: &str) -> Result<&'a str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{at}: must be a string"))
}

fn truth(value: &Value, at: &str) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("{at}: must be true or false"))
}

/// A duration in Go's notation: `1m30s`.
fn milliseconds(text: &str, at: &str) -> Result<u64, String> {
    let nanoseconds = api::schema::structural::go_duration(text);
    let given = nanoseconds.and_then(|it| u64::try_from(it / 1_000_000).ok());
    given
        .filter(|it| (1..=LONGEST_TIMEOUT_MS).contains(it))
        .ok_or_else(|| format!("{at}: must be a duration of up to 5m, such as 500ms or 5s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extender_is_read_with_its_verbs_resources_and_certificates() {
        let list = json!([{
            "urlPrefix": "extender.example:8443/api/", "filterVerb": "filter",
            "prioritizeVerb": "prioritize", "weight": 3, "bindVerb": "bind", "enableHTTPS": true,
            "tlsConfig": {"caData": "QQ==", "serverName": "x", "keyData": "secret"},
            "httpTimeout": "1m500ms", "nodeCacheCapable": true, "ignorable": true,
            "managedResources": [{"name": "example.com/fpga", "ignoredByScheduler": true},
                {"name": "example.com/gpu"}],
        }]);
        let (extenders, uncounted) = read(&list, "extenders").unwrap();
        let [one] = extenders.as_slice() else {
            panic!("one")
        };
        assert_eq!(one.url, "https://extender.example:8443/api");
        assert_eq!((one.weight, one.timeout_ms), (3, 60_500));
        assert!(one.caches_nodes && one.is_ignorable && one.preempt.is_empty());
        assert_eq!(one.resources, ["example.com/fpga", "example.com/gpu"]);
        assert_eq!(uncounted, ["example.com/fpga"]);
        let cluster = json!({"certificate-authority-data": "QQ==", "tls-server-name": "x"});
        assert_eq!(one.tls.cluster, cluster);
        assert!(
            !format!("{one:?}").contains("secret"),
            "a key is never shown"
        );
    }

    #[test]
    fn what_an_extender_cannot_be_is_refused_by_its_path() {
        let cases = [
            (json!([{}]), "extenders[0].urlPrefix: Required value"),
            (
                json!([{"urlPrefix": "http://a", "prioritizeVerb": "p"}]),
                "extenders[0].weight: must have a positive weight applied to it",
            ),
            (
                json!([{"urlPrefix": "http://a", "bindVerb": "b"}, {"urlPrefix": "http://b", "bindVerb": "b"}]),
                "extenders: found 2 extenders implementing bind",
            ),
            (
                json!([{"urlPrefix": "http://a", "more": 1}]),
                "extenders[0].more: not supported",
            ),
            (
                json!([{"urlPrefix": "file:///etc/shadow"}]),
                "extenders[0].urlPrefix: must be http://… or https://…",
            ),
            (
                json!([{"urlPrefix": "http://a", "filterVerb": "../x"}]),
                "extenders[0].filterVerb: must be a path",
            ),
            (
                json!([{"urlPrefix": "http://a", "managedResources": [{"name": "cpu"}]}]),
                "extenders[0].managedResources[0].name: must be an extended resource, named once",
            ),
        ];
        for (list, expected) in cases {
            assert_eq!(read(&list, "extenders").unwrap_err(), expected);
        }
        for wrong in ["", "5", "-1s", "1h", "6m", "0s"] {
            assert!(milliseconds(wrong, "t").is_err(), "{wrong}");
        }
    }
}
