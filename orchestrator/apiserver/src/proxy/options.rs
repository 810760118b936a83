//! What a request that connects, or asks for a log, says in its query. Pure.

use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::request::{Query, Target};
use api::{ApiError, Cause, CauseKind, Subresource, meta, status};

/// The most that a command may say in all: what Linux takes at a start is 2 MiB with the environment, and a
/// head 64 KiB. A webhook could make it longer.
const COMMAND_BYTES: usize = 128 * 1024;

/// The options as an object, as admission sees it (`PodExecOptions`). What is false or empty is left out.
pub fn of(target: &Target, query: &Query) -> Result<Value, ApiError> {
    let sub = target.subresource.unwrap_or(Subresource::Proxy);
    let kind = &sub.object(target.resource()).kind;
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    match sub {
        Subresource::Exec | Subresource::Attach => {
            for name in ["stdin", "stdout", "stderr", "tty"] {
                if query.flag(name) {
                    options[name] = true.into();
                }
            }
            if let Some(name) = query.get("container").filter(|name| !name.is_empty()) {
                options["container"] = name.into();
            }
            if sub == Subresource::Exec {
                options["command"] = query.all("command").collect();
            }
        }
        Subresource::PortForward => {
            let ports = ports(query)?;
            if !ports.is_empty() {
                options["ports"] = ports.into();
            }
        }
        _ if !target.rest.is_empty() => {
            let path = target.rest.strip_prefix('/').unwrap_or_default();
            options["path"] = path.into();
        }
        _ => {}
    }
    Ok(options)
}

fn ports(query: &Query) -> Result<Vec<i32>, ApiError> {
    let words = query.all("ports").flat_map(|value| value.split(','));
    let ports = words.map(|word| {
        word.parse()
            .map_err(|_| ApiError::BadRequest(format!("parsing {word:?}: invalid syntax")))
    });
    ports.collect()
}

/// The query by which an agent is asked, of options that admission may have changed.
pub fn for_agent(options: &Value) -> Result<String, ApiError> {
    let mut query: Vec<String> = Vec::new();
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if options[name] == true {
            query.push(format!("{name}=true"));
        }
    }
    let texts = |name: &str| -> Vec<String> {
        let all = options[name].as_array().into_iter().flatten();
        let texts = all.map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        texts.collect()
    };
    let command = texts("command");
    if command.iter().map(String::len).sum::<usize>() > COMMAND_BYTES {
        let why = format!("the command is longer than {COMMAND_BYTES} bytes");
        return Err(ApiError::BadRequest(why));
    }
    query.extend(
        command
            .iter()
            .map(|word| format!("command={}", escape(word))),
    );
    query.extend(texts("ports").iter().map(|port| format!("port={port}")));
    Ok(query.join("&"))
}

/// The container that is meant; a pod with one container needs no name.
pub fn container(pod: &Value, name: &str, asked: &str) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str())
            .collect()
    };
    let containers = names("containers");
    let all = [
        names("initContainers"),
        containers.clone(),
        names("ephemeralContainers"),
    ];
    let all = all.concat();
    if !asked.is_empty() {
        return match all.contains(&asked) {
            true => Ok(asked.to_owned()),
            false => Err(ApiError::BadRequest(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    match containers.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(ApiError::BadRequest(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// Tells the agent which pod of the name is meant. The uid of a static pod is its node's alone: the mirror that is
/// known here has another.
pub fn means(pod: &Value, headers: &mut HeaderMap) {
    let is_mirror = !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
    if !is_mirror && let Ok(uid) = HeaderValue::from_str(meta::uid(pod)) {
        headers.insert(meta::POD_UID_HEADER, uid);
    }
}

/// What the agent hears of a query for a log, once it is valid.
pub fn of_log(query: &Query, pod: &str) -> Result<String, ApiError> {
    let (tail, limit) = (
        query.number::<i64>("tailLines")?,
        query.number::<i64>("limitBytes")?,
    );
    let since = query.number::<i64>("sinceSeconds")?;
    let time = query.get("sinceTime").filter(|time| !time.is_empty());
    if let Some(time) = time
        && time.parse::<jiff::Timestamp>().is_err()
    {
        let why = format!("parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\"");
        return Err(ApiError::BadRequest(why));
    }
    let stream = query.get("stream").filter(|stream| !stream.is_empty());
    let mut causes = Vec::new();
    let mut invalid = |field: &str, value: i64, why: &str| {
        let message = format!("Invalid value: {value}: {why}");
        causes.push((field.to_owned(), CauseKind::Invalid, message));
    };
    if let Some(tail) = tail.filter(|tail| *tail < 0) {
        invalid("tailLines", tail, "must be greater than or equal to 0");
    }
    if let Some(limit) = limit.filter(|limit| *limit < 1) {
        invalid("limitBytes", limit, "must be greater than 0");
    }
    if let (Some(since), None) = (since.filter(|since| *since < 1), time) {
        invalid("sinceSeconds", since, "must be greater than 0");
    }
    if since.is_some() && time.is_some() {
        let why = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push((String::new(), CauseKind::Forbidden, why.to_owned()));
    }
    match stream {
        None | Some("All") => {}
        Some("Stdout" | "Stderr") if tail.is_none() => {}
        Some("Stdout" | "Stderr") => {
            let why = "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now";
            causes.push((String::new(), CauseKind::Forbidden, why.to_owned()));
        }
        Some(other) => {
            let why = format!(
                "Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\""
            );
            causes.push(("stream".to_owned(), CauseKind::NotSupported, why));
        }
    }
    if !causes.is_empty() {
        return Err(invalid_log(pod, causes));
    }
    let flags = ["follow", "previous", "timestamps"];
    let flags = flags.iter().filter(|name| query.flag(name));
    let flags = flags.map(|name| format!("{name}=true"));
    let given = [
        "limitBytes",
        "sinceSeconds",
        "sinceTime",
        "stream",
        "tailLines",
    ];
    let given = given.iter().filter_map(|name| {
        let value = query.get(name).filter(|value| !value.is_empty())?;
        Some(format!("{name}={}", escape(value)))
    });
    Ok(flags.chain(given).collect::<Vec<_>>().join("&"))
}

fn invalid_log(pod: &str, causes: Vec<(String, CauseKind, String)>) -> ApiError {
    let causes = causes.into_iter().map(|(field, kind, message)| Cause {
        field,
        kind,
        message,
    });
    ApiError::Invalid {
        target: status::Target {
            kind: "PodLogOptions".to_owned(),
            name: pod.to_owned(),
            ..status::Target::default()
        },
        causes: causes.collect(),
    }
}

/// Escapes what a query value may not contain.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn query(text: &str) -> Query {
        let uri: Uri = format!("/x?{text}").parse().expect("a URI");
        Query::of(&uri)
    }

    #[test]
    fn the_only_container_needs_no_name() {
        let one = json!({"spec": {"containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "p", ""), Ok("a".to_owned()));
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}]}});
        let error = container(&two, "p", "").expect_err("ambiguous").to_string();
        let expected = "a container name must be specified for pod p, choose one of: [i a b e]";
        assert_eq!(error, expected);
        assert_eq!(container(&two, "p", "e"), Ok("e".to_owned()));
        assert!(container(&two, "p", "c").is_err());
    }

    #[test]
    fn a_command_reaches_the_agent_word_by_word() {
        let options = json!({"command": ["sh", "-c", "echo a&b=c %d"], "stdin": true,
            "stdout": true});
        let said = for_agent(&options).expect("short enough");
        let expected =
            "stdin=true&stdout=true&command=sh&command=-c&command=echo%20a%26b%3Dc%20%25d";
        assert_eq!(said, expected);
        let long = json!({"command": ["x".repeat(COMMAND_BYTES + 1)]});
        assert!(for_agent(&long).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_log_s_options_is_said_as_kubernetes_does() {
        let said = |text: &str| match of_log(&query(text), "web") {
            Ok(query) => query,
            Err(error) => error.to_string(),
        };
        let invalid = |what: &str| format!("PodLogOptions \"web\" is invalid: {what}");
        for (text, expected) in [
            ("", "".to_owned()),
            (
                "follow=true&tailLines=0&timestamps=false&sinceTime=2026-01-01T00:00:00%2B01:00",
                "follow=true&sinceTime=2026-01-01T00:00:00%2B01:00&tailLines=0".to_owned(),
            ),
            (
                "tailLines=-1",
                invalid("tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ),
            (
                "limitBytes=0",
                invalid("limitBytes: Invalid value: 0: must be greater than 0"),
            ),
            (
                "sinceSeconds=-5",
                invalid("sinceSeconds: Invalid value: -5: must be greater than 0"),
            ),
            ("stream=Stderr", "stream=Stderr".to_owned()),
            (
                "stream=both",
                invalid(
                    "stream: Unsupported value: \"both\": supported values: \"All\", \"Stderr\", \
                     \"Stdout\"",
                ),
            ),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
        let both = said("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z");
        assert!(both.ends_with("at most one of `sinceTime` or `sinceSeconds` may be specified"));
        assert!(of_log(&query("tailLines=x"), "web").is_err_and(|error| error.code() == 400));
    }
}
