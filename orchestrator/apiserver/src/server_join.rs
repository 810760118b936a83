//! How another server joins: it shows a token (`server_token`), and gets what all servers share and its place among
//! the members of the etcd that they run.
//!
//! ```text
//!  new server ──POST {peer}──▶ this one ─▶ etcd: a learner more     (a lost member with that URL goes first)
//!             ◀── files of pki, initial cluster ──┘
//!  its etcd starts, catches up, is promoted; then it is a server like the others
//! ```
//!
//! What is handed over is everything: whoever holds it is the cluster. It goes to nobody but the holder of a token,
//! over a connection whose server the token names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::attempts::Attempt;
use super::authn::bearer;
use super::encryption::{self, Scheme};
use super::objects::store_error;
use super::server_token::known;
use super::shares::{Peer, Ticket};
use super::{State, reply, server_token, upload};
use api::ApiError;
use store::StoreError;
use store::etcd::{Member, Members};
use sys::files;

/// The endpoint.
pub const PATH: &str = "/orchestrator/v1/servers";

/// The files of `pki` that all servers share.
const SHARED: [&str; 7] = [
    "ca.crt",
    "ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd-ca.crt",
    "etcd-ca.key",
    ENCRYPTION,
];
/// Is there where Secrets are encrypted; a server may have been told of another place.
const ENCRYPTION: &str = "encryption.yaml";
/// Of an etcd that the servers run themselves there is this.
const MANAGED: &str = "etcd-ca.key";

/// How long a member may take to take a connection that is found alive.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server sends.
#[derive(Serialize, Deserialize)]
pub struct ServerJoin {
    /// Where the other members reach its etcd: `https://ADDRESS:PORT`.
    pub peer: String,
    /// What it encrypts with, if it was given a configuration of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Scheme>,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerJoined {
    /// By their names below `pki`.
    pub files: BTreeMap<String, String>,
    /// What its etcd is called.
    pub name: String,
    /// The members, it among them: NAME=URL,…
    pub initial_cluster: String,
    /// `host:port` of those that vote, for clients.
    pub clients: Vec<String>,
}

/// What the etcd of the server at an address is called.
pub fn member_name(peer: SocketAddr) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let text: String = peer.to_string().chars().map(word).collect();
    format!("server-{}", text.trim_matches('-'))
}

/// Whether a name is that of a file that servers share.
pub fn is_shared_file(name: &str) -> bool {
    SHARED.contains(&name)
}

/// POST. The body is looked at once the token is found good.
pub async fn join(Extract(state): Extract<Arc<State>>, request: Request) -> Response<Body> {
    let remote = request.extensions().get::<Peer>().copied();
    let mut peer = String::new();
    let answer = admit(&state, request, &mut peer).await;
    let attempt = Attempt {
        remote,
        node: &peer,
        by: "a server's token",
    };
    let answer = answer.map(|it| {
        (
            reply::json(StatusCode::OK, &json!(it)),
            "a server has joined",
        )
    });
    state.attempts.end(&attempt, answer)
}

async fn admit(
    state: &State,
    request: Request,
    peer: &mut String,
) -> Result<ServerJoined, ApiError> {
    let pki = state.pki.as_ref().ok_or(ApiError::NoSuchResource)?;
    let shown = bearer(request.headers()).unwrap_or_default();
    let token = server_token::check(pki.directory(), shown)?;
    if !known::is_good(state, &token).await? {
        return Err(server_token::refused());
    }
    let members = state.objects.store.members();
    let managed = pki.directory().join(MANAGED).exists();
    let members = members.filter(|_| managed).ok_or_else(|| {
        let why = "no server can join: this one was not started with --etcd managed";
        ApiError::BadRequest(why.to_owned())
    })?;
    let (parts, body) = request.into_parts();
    let body = upload::read(&parts.headers, body, upload::JOIN, &Ticket::default()).await?;
    let asked: ServerJoin = serde_json::from_slice(&body.bytes)
        .map_err(|error| ApiError::BadRequest(format!("not a request to join: {error}")))?;
    peer.clone_from(&asked.peer);
    let address = address_of(&asked.peer).ok_or_else(|| {
        let why = "peer is no https://ADDRESS:PORT that other machines can reach";
        ApiError::BadRequest(why.to_owned())
    })?;
    if let Some(own) = &asked.encryption {
        // Before it is a member: one that does not start would cost a majority.
        let clash = encryption::clash(&*state.objects.store, own).await;
        if let Some(why) = clash.map_err(|error| store_error(&error))? {
            return Err(ApiError::BadRequest(format!(
                "its --encryption-provider-config: {why}"
            )));
        }
    }
    // One after the other: etcd has room for one learner.
    let _turn = state.joining.lock().await;
    let name = member_name(address);
    let others = add(&members, &asked.peer).await.map_err(unwilling)?;
    known::note(state, &token, &asked.peer).await;
    let voters = others.iter().filter(|it| !it.is_learner);
    let clients = voters.filter_map(|it| it.client.clone()).collect();
    let others = others.iter().filter(|it| !it.name.is_empty());
    let mut all: Vec<String> = others
        .map(|it| format!("{}={}", it.name, it.peer))
        .collect();
    all.push(format!("{name}={}", asked.peer));
    Ok(ServerJoined {
        files: shared_files(pki.directory(), state.config.encryption.as_deref())?,
        name,
        initial_cluster: all.join(","),
        clients,
    })
}

/// Makes room for the member with this URL; the other members.
async fn add(members: &Members, peer: &str) -> Result<Vec<Member>, StoreError> {
    let before = members.list().await?;
    let same = before.iter().find(|it| it.peer == peer);
    match same {
        // It asked before, and its etcd has not started since.
        Some(waiting) if waiting.is_learner && waiting.name.is_empty() => {}
        // It has lost what it had.
        Some(lost) => {
            if let Some(client) = &lost.client
                && is_alive(client).await
            {
                let why = format!("the member at {client} runs");
                return Err(StoreError::Unavailable(why.into()));
            }
            members.remove(lost.id).await?;
            members.add_learner(peer).await?;
        }
        None => drop(members.add_learner(peer).await?),
    }
    let others = before.into_iter().filter(|it| it.peer != peer);
    Ok(others.collect())
}

/// Whether anything takes connections where a member answers its clients. A server that asks to join runs no etcd
/// yet.
async fn is_alive(client: &str) -> bool {
    let connected = timeout(ALIVE_TIMEOUT, TcpStream::connect(client)).await;
    matches!(connected, Ok(Ok(_)))
}

/// Another server is joining, or too few members run.
fn unwilling(error: StoreError) -> ApiError {
    match error {
        StoreError::Unavailable(why) => ApiError::ServiceUnavailable(format!(
            "etcd takes no member now: {why}. One that began to join and does not come is taken out \
                 with `orchestrator server members remove`"
        )),
        other => store_error(&other),
    }
}

/// By their names; `encryption` is the file of that, if it is not the one in `pki`.
fn shared_files(
    pki: &Path,
    encryption: Option<&Path>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut shared = BTreeMap::new();
    for name in SHARED {
        let elsewhere = encryption.filter(|_| name == ENCRYPTION);
        let file = elsewhere.map_or_else(|| pki.join(name), Path::to_owned);
        let text = files::read_if_present(&file).map_err(reply::internal)?;
        shared.extend(text.map(|text| (name.to_owned(), text)));
    }
    Ok(shared)
}

fn address_of(peer: &str) -> Option<SocketAddr> {
    let uri: Uri = peer.parse().ok()?;
    let plain = uri.scheme_str() == Some("https") && uri.path() == "/" && uri.query().is_none();
    let address: SocketAddr = uri.authority()?.as_str().parse().ok()?;
    let ip = address.ip();
    let reachable = !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0;
    (plain && reachable && peer == format!("https://{address}")).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_https_url_of_one_address() {
        let address = address_of("https://10.0.0.2:2380").expect("an address");
        assert_eq!(member_name(address), "server-10-0-0-2-2380");
        let address = address_of("https://[fd00::2]:2380").expect("an address");
        assert_eq!(member_name(address), "server-fd00--2--2380");
        for wrong in [
            "http://10.0.0.2:2380",
            "https://10.0.0.2",
            "https://host:2380",
            "https://0.0.0.0:2380",
            "https://10.0.0.2:0",
            "https://10.0.0.2:2380/",
            "https://10.0.0.2:2380,evil=https://10.0.0.3:2380",
            "https://u@10.0.0.2:2380",
            "",
        ] {
            assert!(address_of(wrong).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_member_that_takes_connections_is_alive() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = listener.local_addr().expect("an address").to_string();
        assert!(is_alive(&client).await);
        drop(listener);
        assert!(!is_alive(&client).await);
    }

    #[test]
    fn the_configuration_that_encrypts_is_handed_over_wherever_it_lies() {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = directory.path();
        let other = pki.join("given.yaml");
        std::fs::write(pki.join(ENCRYPTION), "own").expect("a file");
        std::fs::write(&other, "given").expect("a file");
        for (given, expected) in [(None, "own"), (Some(&*other), "given")] {
            let shared = shared_files(pki, given).expect("files");
            assert_eq!(shared.get(ENCRYPTION).map(String::as_str), Some(expected));
        }
    }

    #[test]
    fn nothing_is_taken_for_a_shared_file_that_leaves_its_directory() {
        assert!(is_shared_file("ca.key"));
        for wrong in ["../ca.key", "/etc/passwd", "admin.key", ""] {
            assert!(!is_shared_file(wrong), "{wrong}");
        }
    }
}
