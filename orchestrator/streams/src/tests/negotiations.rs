//! Which protocol a request gets.

use http::{HeaderMap, Method, StatusCode};

use super::headers;
use crate::negotiate::{COMMAND, FORWARD, Operation, Refused, negotiate};

/// The protocol that is chosen.
fn chosen(operation: &Operation, headers: &HeaderMap) -> Result<String, Refused> {
    let (_, response) = negotiate(&Method::GET, headers, operation)?;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["connection"], "Upgrade");
    let chosen = response.headers().get("sec-websocket-protocol");
    let chosen = chosen.or(response.headers().get("x-stream-protocol-version"));
    Ok(chosen.map_or("", |name| name.to_str().unwrap()).to_owned())
}

#[test]
fn the_clients_first_that_is_known_is_chosen() {
    for (operation, upgrade, wanted, got) in [
        (
            &COMMAND,
            "SPDY/3.1",
            "v5.channel.k8s.io,v4.channel.k8s.io,v3.channel.k8s.io",
            "v4.channel.k8s.io",
        ),
        (&COMMAND, "spdy/3.1", "channel.k8s.io", "channel.k8s.io"),
        (
            &COMMAND,
            "websocket",
            "v9.channel.k8s.io, v5.channel.k8s.io",
            "v5.channel.k8s.io",
        ),
        (
            &COMMAND,
            "WebSocket",
            "base64.channel.k8s.io, channel.k8s.io",
            "base64.channel.k8s.io",
        ),
        (&COMMAND, "websocket", "", ""),
        (
            &FORWARD,
            "SPDY/3.1",
            "portforward.k8s.io",
            "portforward.k8s.io",
        ),
        (
            &FORWARD,
            "websocket",
            "SPDY/3.1+portforward.k8s.io",
            "SPDY/3.1+portforward.k8s.io",
        ),
        (
            &FORWARD,
            "websocket",
            "v4.channel.k8s.io",
            "v4.channel.k8s.io",
        ),
    ] {
        let chosen = chosen(operation, &headers(upgrade, wanted));
        assert_eq!(chosen.as_deref(), Ok(got), "{upgrade} {wanted}");
    }
    // RFC 6455, section 1.3.
    let (_, response) = negotiate(&Method::GET, &headers("websocket", ""), &COMMAND).unwrap();
    let accept = &response.headers()["sec-websocket-accept"];
    assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn protocols_that_nobody_knows_are_forbidden_and_the_known_ones_named() {
    for upgrade in ["SPDY/3.1", "websocket"] {
        let refused = chosen(&FORWARD, &headers(upgrade, "v9.example")).unwrap_err();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(
            refused
                .message
                .contains("client supports [v9.example], server accepts [")
        );
        let count = refused.accepted.len();
        let response = refused.into_response();
        let named = response
            .headers()
            .get_all("x-accepted-stream-protocol-versions");
        assert_eq!(named.iter().count(), count);
        assert!(count > 0);
    }
}

#[test]
fn what_is_no_upgrade_is_a_bad_request() {
    type Spoil = fn(&mut HeaderMap);
    let cases: [(&str, Spoil); 8] = [
        ("websocket", |headers| drop(headers.remove("connection"))),
        ("websocket", |headers| drop(headers.remove("upgrade"))),
        ("SPDY/3.1", |headers| {
            drop(headers.insert("connection", "close".parse().unwrap()))
        }),
        ("SPDY/3", |_| {}),
        ("SPDY/3.1", |headers| {
            drop(headers.remove("x-stream-protocol-version"))
        }),
        ("websocket", |headers| {
            drop(headers.remove("sec-websocket-key"))
        }),
        ("websocket", |headers| {
            drop(headers.insert("sec-websocket-key", "YQ==".parse().unwrap()))
        }),
        ("websocket", |headers| {
            drop(headers.insert("sec-websocket-version", "8".parse().unwrap()))
        }),
    ];
    for (upgrade, spoil) in cases {
        let mut headers = headers(upgrade, "v4.channel.k8s.io");
        spoil(&mut headers);
        let refused = chosen(&COMMAND, &headers).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{upgrade}");
        assert!(
            refused.message.starts_with("unable to upgrade"),
            "{}",
            refused.message
        );
    }
    let headers = headers("websocket", "v4.channel.k8s.io");
    assert!(negotiate(&Method::POST, &headers, &COMMAND).is_err());
}
