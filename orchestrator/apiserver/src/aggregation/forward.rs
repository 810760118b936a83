//! A client's request on its way to the server of another group, and the answer on its way back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::Server;
use crate::authn::User;
use crate::hops::{ask_to_upgrade, clean};
use crate::rest::Answer;
use crate::shares::Peer;
use crate::{State, outgoing, reply, request, samples};
use api::ApiError;
use sys::front::Takeover;
use sys::relay::relay;

/// How long a server may take to begin its answer. Watches begin at once, or with their first event.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A stream ends that has carried nothing for so long, as a kubelet's do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Passes a request on, and its answer back. Which user asks is said in headers, which no client can
/// write itself.
pub async fn forward(
    state: &State,
    server: &Arc<Server>,
    user: &User,
    request: Request<Body>,
) -> Answer {
    if server.is_own {
        samples::gather(state).await;
        return samples::answer(state, &request);
    }
    if !server.probed().available {
        return Ok(unavailable("service unavailable"));
    }
    let client = match &server.client {
        Ok(client) => client,
        Err(why) => return Ok(unavailable(why)),
    };
    let takeover = request.extensions().get::<Takeover>().cloned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let lasts = request::lasts(request.uri());
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    clean(&mut parts.headers);
    introduce(&mut parts.headers, user)?;
    if let Some(peer) = peer
        && let Ok(peer) = HeaderValue::from_str(&peer.to_string())
    {
        parts.headers.append("x-forwarded-for", peer);
    }
    ask_to_upgrade(&mut parts.headers, upgrade.as_ref());
    parts.extensions.clear();
    let sending = outgoing::send(state, client, Request::from_parts(parts, body));
    let sent = match lasts {
        true => Ok(sending.await),
        false => tokio::time::timeout(ANSWER_TIMEOUT, sending).await,
    };
    let answer = match sent {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            return Ok(unavailable(&format!(
                "error trying to reach service: {why}"
            )));
        }
        Err(_) => {
            let why = "the server of this group did not answer in time";
            return Err(ApiError::Timeout(why.to_owned()));
        }
    };
    Ok(give_back(answer, takeover))
}

fn introduce(headers: &mut HeaderMap, user: &User) -> Result<(), ApiError> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(reply::internal);
    headers.insert("x-remote-user", value(&user.name)?);
    for group in user.all_groups() {
        headers.append("x-remote-group", value(group)?);
    }
    if !user.uid.is_empty() {
        headers.insert("x-remote-uid", value(&user.uid)?);
    }
    for (key, values) in &*user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        let name = HeaderName::try_from(name).map_err(reply::internal)?;
        for text in values {
            headers.append(&name, value(text)?);
        }
    }
    Ok(())
}

/// A key as a part of a header's name: what no name may hold (RFC 9110, section 5.6.2) is
/// percent-encoded, as is what names do not tell apart.
fn escaped(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for byte in key.bytes() {
        let is_plain =
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&'*+-.^_`|~".contains(&byte);
        match is_plain {
            true => name.push(char::from(byte)),
            false => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// The answer as the client gets it.
fn give_back(mut answer: Response<Incoming>, takeover: Option<Takeover>) -> Response<Body> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(takeover) = takeover else {
            return unavailable("an upgrade needs HTTP/1.1");
        };
        let to = answer.headers().get(header::UPGRADE).cloned();
        let stream = hyper::upgrade::on(&mut answer);
        takeover.then(async move |client| {
            if let Ok(server) = stream.await {
                relay(client, TokioIo::new(server), IDLE_TIMEOUT).await;
            }
        });
        let mut headers = std::mem::take(answer.headers_mut());
        clean(&mut headers);
        ask_to_upgrade(&mut headers, to.as_ref());
        let mut switched = Response::new(Body::empty());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = headers;
        return switched;
    }
    // A client would follow it, and show this server's certificate to nobody knows whom.
    if answer.status().is_redirection() && answer.headers().contains_key(header::LOCATION) {
        let why = "the backend attempted to redirect this request, which is not permitted";
        return plain(StatusCode::BAD_GATEWAY, why);
    }
    let (mut parts, body) = answer.into_parts();
    clean(&mut parts.headers);
    parts.extensions.clear();
    Response::from_parts(parts, Body::new(body))
}

/// As Kubernetes' aggregator says it: in plain text.
fn unavailable(why: &str) -> Response<Body> {
    plain(StatusCode::SERVICE_UNAVAILABLE, why)
}

fn plain(code: StatusCode, why: &str) -> Response<Body> {
    reply::response(
        "text/plain; charset=utf-8",
        code,
        Body::from(format!("{why}\n")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_another_group_hears_all_that_is_known_of_the_user() {
        let extra = [
            (
                "example.com/Pod%".to_owned(),
                vec!["a".to_owned(), "b".to_owned()],
            ),
            ("plain".to_owned(), vec!["c".to_owned()]),
        ];
        let user = User {
            uid: "u-1".into(),
            extra: Arc::new(extra.into()),
            ..User::named("ann", vec![])
        };
        let mut headers = HeaderMap::new();
        introduce(&mut headers, &user).expect("headers");
        let all = |name: &str| {
            let values = headers.get_all(name).iter();
            let values = values.map(|value| value.to_str().expect("text"));
            values.collect::<Vec<_>>()
        };
        assert_eq!(all("x-remote-uid"), ["u-1"]);
        assert_eq!(all("x-remote-extra-example.com%2f%50od%25"), ["a", "b"]);
        assert_eq!(all("x-remote-extra-plain"), ["c"]);
        assert_eq!(all("x-remote-group"), ["system:authenticated"]);
    }
}
