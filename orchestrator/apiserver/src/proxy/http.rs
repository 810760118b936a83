//! `…/proxy/…`: a request on its way to what a pod, a Service or a node serves, and the answer on its way back.
//!
//! The name in the path may say a scheme and a port: `https:web:443`. A pod is reached by its own port or the
//! first one that it declares, a Service by one of its ready pods, a node by its agent or by another port of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::rewrite::{Html, Rewriter};
use super::{Connecting, Held, switch};
use crate::addresses::Place;
use crate::held_body::keeping;
use crate::hops;
use crate::outgoing::agents::Agent;
use crate::outgoing::{self, Destination, Endpoint, PortRef, Unready};
use crate::request::Target;
use crate::rest::Answer;
use crate::shares::Peer;
use crate::{State, reply};
use api::{ApiError, Behaviour};
use sys::front::Takeover;

/// How long whoever is asked may take to begin its answer: some wait for news.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// What of an agent's own server may be read through a node. Streams to its containers are no part of it: who may
/// open those is said by the rights to the pods.
const OF_AGENTS: [&str; 6] = [
    "/healthz",
    "/metrics",
    "/containerLogs",
    "/stats",
    "/pods",
    "/configz",
];

const NOT_ALLOWED: &str = "address not allowed";

/// A name in the path: `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

/// Where a request goes.
enum Way {
    Agent(Agent),
    To { destination: Destination, tls: bool },
}

pub async fn forward(connecting: Connecting, request: Request<Body>) -> Answer {
    let Connecting {
        state,
        target,
        held,
    } = connecting;
    let way = way(&state, &target)?;
    let upgrade = hops::upgrade_of(request.headers());
    if let Some(elsewhere) = root_of(&target, &request)
        && upgrade.is_none()
    {
        return Ok(elsewhere);
    }
    let takeover = request.extensions().get::<Takeover>().cloned();
    let rewriter = rewriter(&target, &request);
    let asked = outgoing_request(&target, &rewriter, request, upgrade.as_ref())?;
    let answer = match way {
        Way::Agent(agent) => ask_agent(&state, &agent, asked).await?,
        Way::To { destination, tls } => {
            let sending = outgoing::send_once(&state, &destination, tls, asked);
            let sent = tokio::time::timeout(ANSWER_TIMEOUT, sending).await;
            let sent = sent.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
            sent.map_err(|why| {
                ApiError::ServiceUnavailable(format!("error trying to reach service: {why}"))
            })?
        }
    };
    give_back(answer, takeover.as_ref(), upgrade.is_some(), rewriter, held)
}

fn way(state: &State, target: &Target) -> Result<Way, ApiError> {
    let asked = target.name.as_deref().unwrap_or_default();
    let kind = &target.resource().singular;
    let named = Named::parse(asked)
        .ok_or_else(|| ApiError::BadRequest(format!("invalid {kind} request {asked:?}")))?;
    match target.storage().behaviour {
        Behaviour::Node => of_node(state, &named),
        Behaviour::Pod => of_pod(state, target, &named),
        _ => of_service(state, target, asked, &named),
    }
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match words.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let is_known = matches!(scheme, "" | "http" | "https");
        (is_known && !name.is_empty()).then_some(Self {
            tls: scheme == "https",
            name,
            port,
        })
    }
}

fn of_node(state: &State, named: &Named<'_>) -> Result<Way, ApiError> {
    let agent = Agent::of(state, named.name)?;
    if named.port.is_empty() {
        return Ok(Way::Agent(agent));
    }
    let port: u16 = number(named.port)?;
    if agent.answers_at(port) {
        return Ok(Way::Agent(agent));
    }
    // Its node says which one it is: not this server's, nor one of its machine alone.
    let address = agent.address().to_canonical();
    match state.addresses.place_of(address) {
        Place::Node if !outgoing::is_local(address) => Ok(Way::To {
            destination: Destination::Node(SocketAddr::new(address, port)),
            tls: named.tls,
        }),
        _ => Err(ApiError::BadRequest(NOT_ALLOWED.to_owned())),
    }
}

fn of_pod(state: &State, target: &Target, named: &Named<'_>) -> Result<Way, ApiError> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let pod = state
        .objects
        .current(target.storage(), namespace, named.name)?;
    let pod = pod.value;
    // A pod that has ended says an address that another one may have by now.
    let has_ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    let address = pod["status"]["podIP"].as_str();
    let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
    let endpoint = Endpoint {
        address: SocketAddr::new(
            address
                .filter(|_| !has_ended)
                .ok_or_else(|| ApiError::BadRequest(NOT_ALLOWED.to_owned()))?,
            pod_port(&pod, named)?,
        ),
        node: pod["spec"]["nodeName"].as_str().map(str::to_owned),
        pod: Some(named.name.to_owned()),
    };
    if outgoing::way(state, namespace, &endpoint).is_err() {
        return Err(ApiError::BadRequest(NOT_ALLOWED.to_owned()));
    }
    Ok(Way::To {
        destination: Destination::Endpoints(namespace.to_owned(), vec![endpoint]),
        tls: named.tls,
    })
}

/// A number, the name of a port of a container, or the first port that a container declares.
fn pod_port(pod: &Value, named: &Named<'_>) -> Result<u16, ApiError> {
    let list = |value: &'_ Value, field: &str| -> Vec<Value> {
        value[field].as_array().cloned().unwrap_or_default()
    };
    let containers = list(&pod["spec"], "containers");
    let mut declared = containers.iter().flat_map(|it| list(it, "ports"));
    let found = match named.port {
        "" => declared.next(),
        port if port.parse::<u16>().is_ok() => return number(port),
        name => declared.find(|it| it["name"] == name),
    };
    let port = found.and_then(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
    match (port, named.port) {
        (Some(port), _) => Ok(port),
        (None, "") => Ok(if named.tls { 443 } else { 80 }),
        (None, other) => Err(ApiError::BadRequest(format!(
            "pod {} has no port {other:?}",
            named.name
        ))),
    }
}

fn number(port: &str) -> Result<u16, ApiError> {
    let number = port.parse::<u16>().ok().filter(|number| *number != 0);
    number.ok_or_else(|| ApiError::BadRequest(format!("invalid port {port:?}")))
}

fn of_service(
    state: &State,
    target: &Target,
    asked: &str,
    named: &Named<'_>,
) -> Result<Way, ApiError> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let port = match named.port.parse::<u16>() {
        Ok(number) => PortRef::Number(number),
        Err(_) => PortRef::Name(named.port),
    };
    let nobody = || {
        let why = format!("no endpoints available for service {asked:?}");
        ApiError::ServiceUnavailable(why)
    };
    let found = outgoing::ready_at(state, namespace, named.name, port);
    let mut endpoints = found.map_err(|unready| match unready {
        Unready::NoService(name) => ApiError::not_found(target.resource(), &name),
        Unready::NoEndpoint { .. } => nobody(),
        other => ApiError::ServiceUnavailable(other.to_string()),
    })?;
    // Who writes endpoints must not reach through this server what it does not reach itself: only pods, at
    // their own addresses.
    endpoints.retain(|endpoint| {
        outgoing::is_of_pod(state, namespace, endpoint)
            && outgoing::way(state, namespace, endpoint).is_ok()
    });
    if endpoints.is_empty() {
        return Err(nobody());
    }
    Ok(Way::To {
        destination: Destination::Endpoints(namespace.to_owned(), endpoints),
        tls: named.tls,
    })
}

async fn ask_agent(
    state: &State,
    agent: &Agent,
    request: Request<Body>,
) -> Result<Response<Incoming>, ApiError> {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_known = OF_AGENTS.iter().any(|known| {
        let rest = path.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if !is_read || !is_known {
        let why = format!(
            "of the agent of node {} only {} can be read",
            agent.node(),
            OF_AGENTS.join(", ")
        );
        return Err(reply::failed(StatusCode::FORBIDDEN, "Forbidden", why));
    }
    agent.send(state, request).await
}

/// Without a path behind `proxy`, links of a page would lead beside it: a browser is sent to the root.
fn root_of(target: &Target, request: &Request<Body>) -> Option<Response<Body>> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !target.rest.is_empty() || !reads {
        return None;
    }
    let query = request.uri().query();
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    let place = format!("{}/{query}", request.uri().path());
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let place = HeaderValue::from_str(&place).ok()?;
    answer.headers_mut().insert(header::LOCATION, place);
    Some(answer)
}

/// What of the request's path comes before what is behind the proxy.
fn rewriter(target: &Target, request: &Request<Body>) -> Rewriter {
    // `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`, `/api/v1/nodes/NAME/proxy`
    let words = if target.namespace.is_some() { 7 } else { 5 };
    let path = request.uri().path().split('/');
    let path = path.filter(|word| !word.is_empty()).take(words);
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok().map(str::to_owned));
    Rewriter {
        prefix: path.map(|word| format!("/{word}")).collect(),
        host: host.or(authority).unwrap_or_default(),
    }
}

fn outgoing_request(
    target: &Target,
    rewriter: &Rewriter,
    request: Request<Body>,
    upgrade: Option<&HeaderValue>,
) -> Result<Request<Body>, ApiError> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (mut parts, body) = request.into_parts();
    let rest = if target.rest.is_empty() {
        "/"
    } else {
        &target.rest
    };
    let uri = match parts.uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    parts.uri = uri.parse::<Uri>().map_err(reply::internal)?;
    parts.version = axum::http::Version::HTTP_11;
    parts.extensions.clear();
    let headers = &mut parts.headers;
    hops::clean(headers);
    let mut insert = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    insert("host", &rewriter.host);
    insert("x-forwarded-uri", &format!("{}{rest}", rewriter.prefix));
    if let Some(peer) = peer
        && let Ok(peer) = HeaderValue::from_str(&peer.to_string())
    {
        headers.append("x-forwarded-for", peer);
    }
    // A page is rewritten, which needs it as it is.
    let accepts = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        headers.remove(header::ACCEPT_ENCODING);
    }
    hops::ask_to_upgrade(headers, upgrade);
    Ok(Request::from_parts(parts, body))
}

fn give_back(
    answer: Response<Incoming>,
    takeover: Option<&Takeover>,
    asked_to_upgrade: bool,
    rewriter: Rewriter,
    held: Held,
) -> Answer {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match takeover.filter(|_| asked_to_upgrade) {
            Some(takeover) => Ok(switch(answer, takeover, held)),
            None => Err(super::not_an_upgrade()),
        };
    }
    let (mut parts, body) = answer.into_parts();
    hops::clean(&mut parts.headers);
    parts.extensions.clear();
    if let Some(place) = parts.headers.get(header::LOCATION) {
        let place = place.to_str().map(|place| rewriter.url(place));
        if let Ok(Ok(place)) = place.map(|place| HeaderValue::from_str(&place)) {
            parts.headers.insert(header::LOCATION, place);
        }
    } else if is_page(&parts.headers) {
        parts.headers.remove(header::CONTENT_LENGTH);
        let body = Body::from_stream(Html::new(rewriter).rewrite(body.into_data_stream()));
        return Ok(Response::from_parts(parts, keeping(body, held)));
    }
    Ok(Response::from_parts(parts, keeping(Body::new(body), held)))
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") && !headers.contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_may_say_scheme_and_port() {
        let named = |tls, name, port| Some(Named { tls, name, port });
        for (text, expected) in [
            ("web", named(false, "web", "")),
            ("web:80", named(false, "web", "80")),
            ("https:web:", named(true, "web", "")),
            ("https:web:443", named(true, "web", "443")),
            ("http:web:http", named(false, "web", "http")),
            ("ftp:web:21", None),
            ("a:b:c:d", None),
            (":80", None),
        ] {
            assert_eq!(Named::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_pod_s_port_is_the_one_that_is_named_or_the_first_that_it_declares() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [
            {"containerPort": 8080}, {"name": "https", "containerPort": 8443}]}]}});
        let port = |pod: &Value, text: &'static str| {
            pod_port(pod, &Named::parse(text).expect("a name")).ok()
        };
        assert_eq!(port(&pod, "p"), Some(8080));
        assert_eq!(port(&pod, "https:p:https"), Some(8443));
        assert_eq!(port(&pod, "p:99"), Some(99));
        assert_eq!(port(&pod, "p:0"), None);
        assert_eq!(port(&pod, "p:nothing"), None);
        assert_eq!(port(&json!({}), "p"), Some(80));
    }
}
