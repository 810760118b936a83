//! What one client may cost: queries a second, questions under way to other servers, connections. Pure:
//! time is an argument.
//!
//! A client is an address: pods cannot send from another's. Whoever is over its share is not answered, or
//! waits for no other, so the rest of the node does not notice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Queries that a client may ask at once, and in each second after that.
pub const QUERIES: u32 = 50_000;
/// Its questions that other servers are being asked.
pub const QUESTIONS: u32 = 200;
/// Those of all clients.
pub const ALL_QUESTIONS: u32 = 2_000;
/// Its TCP connections.
pub const CONNECTIONS: u32 = 20;
/// Those of all clients.
pub const ALL_CONNECTIONS: u32 = 1_000;

/// Addresses that are remembered at a time; a node has fewer.
const MAX_CLIENTS: usize = 65_536;

/// What the clients have used up.
#[derive(Debug, Default)]
pub struct Limits {
    clients: BTreeMap<IpAddr, Client>,
    questions: u32,
    connections: u32,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    /// Queries that are left, in millionths.
    left: u64,
    since: Duration,
    questions: u32,
    connections: u32,
}

const WHOLE: u64 = 1_000_000;

impl Limits {
    /// Whether one more query is within the client's share at this time.
    pub fn query(&mut self, client: IpAddr, now: Duration) -> bool {
        let client = self.client(client, now);
        let passed = now.saturating_sub(client.since);
        let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let full = u64::from(QUERIES) * WHOLE;
        let gained = passed.saturating_mul(u64::from(QUERIES));
        client.left = client.left.saturating_add(gained).min(full);
        client.since = now.max(client.since);
        let allowed = client.left >= WHOLE;
        if allowed {
            client.left -= WHOLE;
        }
        allowed
    }

    /// Whether another server may be asked for the client; to be ended by [`Limits::answered`].
    pub fn ask(&mut self, client: IpAddr, now: Duration) -> bool {
        if self.questions >= ALL_QUESTIONS {
            return false;
        }
        let client = self.client(client, now);
        let allowed = client.questions < QUESTIONS;
        if allowed {
            client.questions += 1;
            self.questions += 1;
        }
        allowed
    }

    pub fn answered(&mut self, client: IpAddr) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.questions = client.questions.saturating_sub(1);
        }
        self.questions = self.questions.saturating_sub(1);
    }

    /// Whether the client may have one more connection; to be ended by [`Limits::disconnected`].
    pub fn connect(&mut self, client: IpAddr, now: Duration) -> bool {
        if self.connections >= ALL_CONNECTIONS {
            return false;
        }
        let client = self.client(client, now);
        let allowed = client.connections < CONNECTIONS;
        if allowed {
            client.connections += 1;
            self.connections += 1;
        }
        allowed
    }

    pub fn disconnected(&mut self, client: IpAddr) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.connections = client.connections.saturating_sub(1);
        }
        self.connections = self.connections.saturating_sub(1);
    }

    fn client(&mut self, addr: IpAddr, now: Duration) -> &mut Client {
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&addr) {
            // Whoever has nothing under way and was not heard of for a second has its whole share again.
            let quiet = now.saturating_sub(Duration::from_secs(1));
            let in_use = |it: &Client| it.questions > 0 || it.connections > 0 || it.since > quiet;
            self.clients.retain(|_, client| in_use(client));
        }
        self.clients.entry(addr).or_insert(Client {
            left: u64::from(QUERIES) * WHOLE,
            since: now,
            questions: 0,
            connections: 0,
        })
    }
}
