//! Events of the audit log (Event of audit.k8s.io/v1), as lines of JSON. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::policy::{Level, Stage};
use crate::authn::User;
use crate::request_info::RequestInfo;

/// Bytes of a user agent that are logged.
const USER_AGENT_BYTES: usize = 1024;
/// Bytes of an id that a client gives its request.
const ID_BYTES: usize = 64;
/// Addresses that are believed to be on the way of a request, as those before it say.
const MAX_FORWARDERS: usize = 16;
/// Bytes of objects in an event. Without them it has some thousand at most.
const OBJECT_BYTES: usize = 4 * 1024 * 1024;
/// The annotation of an event whose objects are left out for their size.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// What is known of a request when it arrives.
pub struct Arrival {
    pub id: String,
    pub uri: String,
    pub info: RequestInfo,
    /// None: nobody knows whose it is.
    pub user: Option<User>,
    pub sources: Vec<String>,
    pub user_agent: String,
    pub at: Timestamp,
}

/// What is learned of it afterwards.
#[derive(Default)]
pub struct Noted {
    pub annotations: BTreeMap<String, String>,
    pub impersonated: Option<User>,
    /// Of the object that the client sent.
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub sent: Option<Value>,
    pub answered: Option<Value>,
    /// Status of meta/v1, as far as it is known.
    pub status: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: UserInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<UserInfo<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    sources: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Default, Serialize)]
struct UserInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

impl<'a> UserInfo<'a> {
    fn of(user: &'a User) -> Self {
        Self {
            username: &user.name,
            uid: &user.uid,
            groups: user.all_groups(),
            extra: Some(&*user.extra).filter(|extra| !extra.is_empty()),
        }
    }
}

/// The event of a stage, as one line.
pub fn line(
    level: Level,
    stage: Stage,
    arrival: &Arrival,
    noted: &mut Noted,
    now: Timestamp,
) -> Vec<u8> {
    let mut line = Vec::with_capacity(1024);
    let written = serde_json::to_writer(&mut line, &event(level, stage, arrival, noted, now));
    let is_large = line.len() > OBJECT_BYTES && (noted.sent.is_some() || noted.answered.is_some());
    if is_large {
        (noted.sent, noted.answered) = (None, None);
        let truncated = (TRUNCATED.to_owned(), "true".to_owned());
        noted.annotations.extend([truncated]);
        return self::line(level, stage, arrival, noted, now);
    }
    if let Err(error) = written {
        // Nothing in an event is without a form in JSON.
        tracing::error!(%error, "an audit event could not be written");
        line.clear();
    }
    line.push(b'\n');
    line
}

fn event<'a>(
    level: Level,
    stage: Stage,
    arrival: &'a Arrival,
    noted: &'a Noted,
    now: Timestamp,
) -> Event<'a> {
    let object_ref = arrival.info.object.as_ref().map(|object| ObjectRef {
        resource: &object.resource,
        namespace: or(&object.namespace, &noted.namespace),
        name: or(&object.name, &noted.name),
        uid: &noted.uid,
        api_group: &object.group,
        api_version: &object.version,
        resource_version: &noted.resource_version,
        subresource: &object.subresource,
    });
    let received = format!("{:.6}", arrival.at);
    let at = match stage {
        Stage::RequestReceived => received.clone(),
        _ => format!("{now:.6}"),
    };
    Event {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: level.as_str(),
        audit_id: &arrival.id,
        stage: stage.as_str(),
        request_uri: &arrival.uri,
        verb: arrival.info.verb,
        user: arrival.user.as_ref().map(UserInfo::of).unwrap_or_default(),
        impersonated_user: noted.impersonated.as_ref().map(UserInfo::of),
        sources: &arrival.sources,
        user_agent: &arrival.user_agent,
        object_ref,
        response_status: noted.status.as_ref(),
        request_object: noted.sent.as_ref(),
        response_object: noted.answered.as_ref(),
        request_received_timestamp: received,
        stage_timestamp: at,
        annotations: &noted.annotations,
    }
}

fn or<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

/// Takes `managedFields` out of an object, the items of a list, the objects of a table.
pub fn omit_managed_fields(object: &mut Value) {
    omit_of(object);
    for (list, inner) in [("items", ""), ("rows", "/object")] {
        let items = object.get_mut(list).and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            item.pointer_mut(inner).map(omit_of);
        }
    }
}

fn omit_of(object: &mut Value) {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.map(|metadata| metadata.remove("managedFields"));
}

/// The id that a request has in the log: the client's own, or a new one.
pub fn id(headers: &HeaderMap) -> String {
    let given = headers.get("audit-id").and_then(|id| id.to_str().ok());
    match given.filter(|id| !id.is_empty()) {
        Some(id) => id[..id.floor_char_boundary(ID_BYTES)].to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

/// The user agent, cut where it is too long.
pub fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get("user-agent").map(|agent| agent.as_bytes());
    let agent = String::from_utf8_lossy(agent.unwrap_or_default());
    match agent.len() > USER_AGENT_BYTES {
        true => {
            let cut = &agent[..agent.floor_char_boundary(USER_AGENT_BYTES)];
            format!("{cut}...TRUNCATED")
        }
        false => agent.into_owned(),
    }
}

/// Where a request comes from: whom it passed, as they say, and last who is known to have sent it.
pub fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let address = |text: &str| text.trim().parse::<IpAddr>().ok();
    let forwarded = said("x-forwarded-for").unwrap_or_default().split(',');
    let mut all: Vec<IpAddr> = forwarded.filter_map(address).take(MAX_FORWARDERS).collect();
    let real = said("x-real-ip").and_then(address);
    all.extend(real.filter(|real| !all.contains(real)));
    // The control plane in this process is on this machine.
    let peer = peer.unwrap_or(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
    if all.last() != Some(&peer) {
        all.push(peer);
    }
    all.iter().map(IpAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Method, Uri};
    use serde_json::json;

    use super::*;

    fn arrival(method: Method, uri: &'static str) -> Arrival {
        Arrival {
            id: "1".to_owned(),
            uri: uri.to_owned(),
            info: RequestInfo::of(&method, &Uri::from_static(uri)),
            user: Some(User::named("a", vec!["b".to_owned()])),
            sources: vec!["192.0.2.1".to_owned()],
            user_agent: "kubectl".to_owned(),
            at: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
        }
    }

    #[test]
    fn an_event_has_the_fields_of_kubernetes() {
        let arrival = arrival(Method::POST, "/apis/apps/v1/namespaces/n/deployments?x=y");
        let mut noted = Noted {
            name: "web".to_owned(),
            uid: "u".to_owned(),
            status: Some(json!({"metadata": {}, "code": 201})),
            sent: Some(json!({"a": 1})),
            ..Noted::default()
        };
        noted.annotations.insert("k".to_owned(), "v".to_owned());
        let now = Timestamp::from_second(1_700_000_001).expect("a time");
        let line = line(
            Level::Request,
            Stage::ResponseComplete,
            &arrival,
            &mut noted,
            now,
        );
        assert_eq!(line.last(), Some(&b'\n'));
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            event,
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request",
                "auditID": "1", "stage": "ResponseComplete", "verb": "create",
                "requestURI": "/apis/apps/v1/namespaces/n/deployments?x=y",
                "user": {"username": "a", "groups": ["b", "system:authenticated"]},
                "sourceIPs": ["192.0.2.1"], "userAgent": "kubectl",
                "objectRef": {"resource": "deployments", "namespace": "n", "name": "web",
                    "uid": "u", "apiGroup": "apps", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 201},
                "requestObject": {"a": 1},
                "requestReceivedTimestamp": "2023-11-14T22:13:20.123456Z",
                "stageTimestamp": "2023-11-14T22:13:21.000000Z",
                "annotations": {"k": "v"},
            })
        );
    }

    #[test]
    fn objects_that_are_too_large_are_left_out_and_the_event_says_so() {
        let arrival = arrival(Method::POST, "/api/v1/namespaces/n/configmaps");
        let mut noted = Noted {
            sent: Some(json!("x".repeat(OBJECT_BYTES))),
            ..Noted::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        let line = line(
            Level::Request,
            Stage::ResponseComplete,
            &arrival,
            &mut noted,
            now,
        );
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(event["annotations"][TRUNCATED], "true");
        assert!(event["requestObject"].is_null() && line.len() < 2000);
    }

    #[test]
    fn what_a_client_says_of_itself_is_bounded() {
        let mut headers = HeaderMap::new();
        let long = HeaderValue::from_str(&"x".repeat(5000)).expect("a value");
        headers.insert("audit-id", long.clone());
        headers.insert("user-agent", long);
        let many = vec!["192.0.2.7"; 100].join(", ");
        headers.insert("x-forwarded-for", many.parse().expect("a value"));
        assert_eq!(id(&headers).len(), ID_BYTES);
        assert!(user_agent(&headers).ends_with("xx...TRUNCATED"));
        let peer = "203.0.113.9".parse().expect("an address");
        let sources = sources(&headers, Some(peer));
        assert_eq!(sources.len(), MAX_FORWARDERS + 1);
        assert_eq!(sources.last().map(String::as_str), Some("203.0.113.9"));
    }

    #[test]
    fn managed_fields_are_taken_out_of_objects_lists_and_tables() {
        let object = json!({"metadata": {"name": "a", "managedFields": []}});
        let mut all = json!({"metadata": {"managedFields": []}, "items": [object.clone()],
            "rows": [{"object": object}]});
        omit_managed_fields(&mut all);
        assert!(!all.to_string().contains("managedFields"), "{all}");
    }
}
