//! What of a request's and an answer's header fields is for the next server, and what is between the client and
//! this one only.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What belongs to a connection and not to what is said on it (RFC 9110, section 7.6.1).
const OF_A_CONNECTION: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Protocols of a WebSocket that are a token (browsers can write no other field).
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Takes away what belongs to the connection, and the client's credentials.
pub fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    headers.remove(header::AUTHORIZATION);
    let of_others: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-remote-") || name.starts_with("impersonate-")
        })
        .cloned()
        .collect();
    for name in of_others {
        headers.remove(name);
    }
    without_token(headers);
}

fn without_token(headers: &mut HeaderMap) {
    let said = protocols(headers);
    if !said.iter().any(|it| it.starts_with(TOKEN_PROTOCOL)) {
        return;
    }
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    headers.remove(&name);
    let kept = said
        .into_iter()
        .filter(|it| !it.starts_with(TOKEN_PROTOCOL));
    let kept = kept.collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&kept)
        && !kept.is_empty()
    {
        headers.insert(name, value);
    }
}

/// The protocols that a client of a WebSocket offers.
fn protocols(headers: &HeaderMap) -> Vec<String> {
    let said = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    said.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect()
}

/// Takes the token that a browser shows as a protocol of its WebSocket to where others show theirs. One that
/// does not decode becomes one that nobody has: bad credentials are not missing ones.
pub fn authorize_by_protocol(headers: &mut HeaderMap) {
    let is_socket =
        upgrade_of(headers).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_socket || headers.contains_key(header::AUTHORIZATION) {
        return;
    }
    let said = protocols(headers);
    let Some(token) = said.iter().find_map(|it| it.strip_prefix(TOKEN_PROTOCOL)) else {
        return;
    };
    let token = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    let shown = HeaderValue::from_bytes(&[b"Bearer ", &*token].concat());
    let shown = shown.unwrap_or(HeaderValue::from_static("Bearer "));
    headers.insert(header::AUTHORIZATION, shown);
    without_token(headers);
}

/// What the client wants its connection to become, if it wants that.
pub fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get_all(header::CONNECTION).iter();
    let mut words = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let asked = words.any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// Says that the connection is to become something else, or becomes it.
pub fn ask_to_upgrade(headers: &mut HeaderMap, to: Option<&HeaderValue>) {
    if let Some(to) = to {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, to.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn neither_credentials_nor_what_is_between_two_servers_goes_on() {
        let mut said = headers(&[
            ("accept", "text/html"),
            ("authorization", "Bearer secret"),
            ("connection", "keep-alive, X-Hop"),
            ("cookie", "a=b"),
            ("impersonate-user", "admin"),
            ("te", "trailers"),
            ("x-hop", "1"),
            ("x-remote-group", "system:masters"),
            ("sec-websocket-protocol", "v4.channel.k8s.io"),
            (
                "sec-websocket-protocol",
                "base64url.bearer.authorization.k8s.io.c2VjcmV0, binary",
            ),
        ]);
        clean(&mut said);
        let expected = headers(&[
            ("accept", "text/html"),
            ("cookie", "a=b"),
            ("sec-websocket-protocol", "v4.channel.k8s.io, binary"),
        ]);
        assert_eq!(said, expected);
    }

    #[test]
    fn a_browsers_token_is_taken_from_the_protocols_of_its_websocket() {
        let socket = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let offered = [(
            "sec-websocket-protocol",
            "binary.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0",
        )];
        let mut said = headers(&[&socket[..], &offered].concat());
        authorize_by_protocol(&mut said);
        let expected = [
            ("authorization", "Bearer secret"),
            ("sec-websocket-protocol", "binary.k8s.io"),
        ];
        assert_eq!(said, headers(&[&socket[..], &expected].concat()));

        let mut no_socket = headers(&offered);
        authorize_by_protocol(&mut no_socket);
        assert_eq!(no_socket, headers(&offered));

        let damaged = [(
            "sec-websocket-protocol",
            "base64url.bearer.authorization.k8s.io.%",
        )];
        let mut said = headers(&[&socket[..], &damaged].concat());
        authorize_by_protocol(&mut said);
        let expected = [("authorization", "Bearer ")];
        assert_eq!(said, headers(&[&socket[..], &expected].concat()));
    }

    #[test]
    fn an_upgrade_is_asked_for_by_two_fields() {
        let both = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1"),
        ]);
        assert_eq!(
            upgrade_of(&both),
            Some(HeaderValue::from_static("SPDY/3.1"))
        );
        assert_eq!(upgrade_of(&headers(&[("upgrade", "SPDY/3.1")])), None);
        assert_eq!(upgrade_of(&headers(&[("connection", "Upgrade")])), None);
    }
}
