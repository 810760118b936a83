//! How much of the server one caller may have at once: requests, watches, large bodies.
//!
//! A caller is the holder of a certificate, or for those without one the address that they come
//! from, of IPv6 its /64. The control plane in this process and administrators have no share: they may have all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::authn::{MASTERS, User};
use super::held_body::keeping;
use super::metrics::Lasting;
use api::ApiError;
use sys::turns::Turn;
use sys::{Turns, connections};

/// Requests of one certificate's holder that are being answered; further ones wait. An answer may be
/// a long list, and its client slow.
const REQUESTS: usize = 64;
/// Watches and logs of one certificate's holder. An agent watches every object that its pods name.
const WATCHES: usize = 4000;
/// Large bodies of one certificate's holder that are being read.
const LARGE_BODIES: usize = 2;
/// Bodies of middle size of one certificate's holder that are being worked on: of those that it sends
/// at once, the others wait.
const MIDDLE_BODIES: usize = 1;
/// Requests without a certificate from one address, and from all.
const STRANGER_REQUESTS: usize = 16;
const ALL_STRANGER_REQUESTS: usize = 256;
/// Requests without a certificate from one address, on average; further ones wait for their time. Whoever
/// asks over hundreds of connections without reading the answers would have all processors else.
const STRANGER_INTERVAL: Duration = Duration::from_millis(10);
/// So many of them may come at once.
const STRANGER_BURST: u32 = 50;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client that was turned away should wait before it comes again.
const RETRY_AFTER_SECONDS: i32 = 1;

/// Where a request comes from. In its extensions if it came over a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The shares of the callers that there are.
pub struct Shares {
    turn_timeout: Duration,
    callers: Mutex<BTreeMap<Caller, Weak<Share>>>,
    pace: Mutex<Pace>,
    strangers: Arc<Semaphore>,
    /// Large bodies are worked on one at a time. Decoded, one may take a hundred times its bytes, and a
    /// processor for a second. By the caller's name.
    large_bodies: Turns<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Holder(Arc<str>),
    Stranger(IpAddr),
}

/// What one caller may have.
pub struct Share {
    caller: Caller,
    requests: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    large_bodies: Arc<Semaphore>,
    middle_bodies: Arc<Semaphore>,
}

/// A request that is being answered. It counts until the last clone is dropped, which goes with the
/// last byte of its answer.
#[derive(Clone, Default)]
pub struct Ticket {
    held: Option<Arc<Held>>,
    /// A watch, log or stream is counted as long.
    lasting: Option<Arc<Lasting>>,
}

struct Held {
    share: Arc<Share>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            turn_timeout: TURN_TIMEOUT,
            callers: Mutex::default(),
            pace: Mutex::default(),
            strangers: Arc::new(Semaphore::new(ALL_STRANGER_REQUESTS)),
            large_bodies: Turns::default(),
        }
    }
}

impl Shares {
    /// Counts a request of this caller, once it is its turn; `lasts` says that it is a watch or log.
    pub async fn enter(
        &self,
        user: &User,
        peer: Option<Peer>,
        lasts: bool,
    ) -> Result<Ticket, ApiError> {
        let Some(share) = self.of(user, peer) else {
            return Ok(Ticket::default());
        };
        let mut permits = Vec::new();
        if let Caller::Stranger(address) = share.caller {
            self.wait_for_time(address).await?;
            // Strangers do not wait: they would hold what they wait with.
            for semaphore in [&share.requests, &self.strangers] {
                let permit = semaphore.clone().try_acquire_owned();
                permits.push(permit.map_err(|_| too_many("without a client certificate"))?);
            }
        } else {
            let semaphore = if lasts {
                &share.watches
            } else {
                &share.requests
            };
            permits.push(in_turn(semaphore, self.turn_timeout).await?);
        }
        Ok(Ticket {
            held: Some(Arc::new(Held {
                share,
                _permits: permits,
            })),
            lasting: None,
        })
    }

    /// A stranger that waits holds nothing but its connection.
    async fn wait_for_time(&self, address: IpAddr) -> Result<(), ApiError> {
        let pause = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.next(address, Instant::now())
        };
        if pause > self.turn_timeout {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Err(too_many("without a client certificate"));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The caller's turn to have a large body worked on.
    pub async fn large_body(&self, user: &User) -> Turn<Arc<str>> {
        self.large_bodies.next(user.name.clone()).await
    }

    fn of(&self, user: &User, peer: Option<Peer>) -> Option<Arc<Share>> {
        let Peer(address) = peer?;
        if user.is_in(MASTERS) {
            return None;
        }
        let caller = match user.is_anonymous() {
            true => Caller::Stranger(connections::source(address)),
            false => Caller::Holder(user.name.clone()),
        };
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = callers.get(&caller).and_then(Weak::upgrade) {
            return Some(share);
        }
        // Those of callers that are gone.
        callers.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share::new(caller.clone()));
        callers.insert(caller, Arc::downgrade(&share));
        Some(share)
    }
}

/// When the next request from an address has its time. An address whose time has come is forgotten.
#[derive(Default)]
struct Pace(BTreeMap<IpAddr, Instant>);

impl Pace {
    /// How long this request waits. One that would wait longer than a turn lasts takes no time from the
    /// others.
    fn next(&mut self, address: IpAddr, now: Instant) -> Duration {
        let earliest = now
            .checked_sub(STRANGER_INTERVAL * STRANGER_BURST)
            .unwrap_or(now);
        if !self.0.contains_key(&address) {
            self.0.retain(|_, next| *next > earliest);
        }
        let next = self.0.entry(address).or_insert(earliest);
        let pause = next.saturating_duration_since(now);
        if pause <= TURN_TIMEOUT {
            *next += STRANGER_INTERVAL;
        }
        pause
    }
}

impl Share {
    fn new(caller: Caller) -> Self {
        let requests = match caller {
            Caller::Holder(_) => REQUESTS,
            Caller::Stranger(_) => STRANGER_REQUESTS,
        };
        Self {
            caller,
            requests: Arc::new(Semaphore::new(requests)),
            watches: Arc::new(Semaphore::new(WATCHES)),
            large_bodies: Arc::new(Semaphore::new(LARGE_BODIES)),
            middle_bodies: Arc::new(Semaphore::new(MIDDLE_BODIES)),
        }
    }
}

impl Ticket {
    /// Counts what lasts with the ticket.
    pub fn with(self, lasting: Option<Lasting>) -> Self {
        Self {
            lasting: lasting.map(Arc::new),
            ..self
        }
    }

    /// Room to read a large body; None is room without a limit.
    pub async fn large_body(&self) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        self.room(|share| &share.large_bodies).await
    }

    /// The same to work on one of middle size.
    pub async fn middle_body(&self) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        self.room(|share| &share.middle_bodies).await
    }

    async fn room(
        &self,
        of: impl Fn(&Share) -> &Arc<Semaphore>,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        match &self.held {
            Some(held) => in_turn(of(&held.share), TURN_TIMEOUT).await.map(Some),
            None => Ok(None),
        }
    }

    /// Keeps the ticket until the answer has been sent, or its client is gone.
    pub fn until_sent(self, answer: Response<Body>) -> Response<Body> {
        if self.held.is_none() && self.lasting.is_none() {
            return answer;
        }
        answer.map(|body| keeping(body, self))
    }
}

async fn in_turn(
    semaphore: &Arc<Semaphore>,
    within: Duration,
) -> Result<OwnedSemaphorePermit, ApiError> {
    let turn = tokio::time::timeout(within, semaphore.clone().acquire_owned()).await;
    turn.ok()
        .and_then(Result::ok)
        .ok_or_else(|| too_many("of this client"))
}

fn too_many(whose: &str) -> ApiError {
    ApiError::TooManyRequests {
        message: format!(
            "too many requests {whose} are being answered: wait for some of them, then try again"
        ),
        retry_after_seconds: RETRY_AFTER_SECONDS,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use futures::FutureExt as _;

    use super::*;
    use crate::authn::NODES;
    use sys::certificates::Identity;

    const HERE: Option<Peer> = Some(Peer(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));

    fn node(name: &str) -> User {
        User::from_certificate(Identity::new(&format!("system:node:{name}"), &[NODES]))
    }

    #[tokio::test]
    async fn strangers_of_one_address_have_a_share_of_what_strangers_have() {
        let shares = Shares::default();
        let user = User::anonymous();
        let mut held = Vec::new();
        for _ in 0..STRANGER_REQUESTS {
            held.push(shares.enter(&user, HERE, false).await.expect("room"));
        }
        let refused = shares.enter(&user, HERE, false).await.err();
        assert_eq!(refused.map(|error| error.code()), Some(429));
        let elsewhere = Some(Peer(IpAddr::from([192, 0, 2, 1])));
        assert!(shares.enter(&user, elsewhere, false).await.is_ok());
        assert!(shares.enter(&node("a"), HERE, false).await.is_ok());
        held.pop();
        assert!(shares.enter(&user, HERE, false).await.is_ok());
    }

    #[test]
    fn an_address_without_a_certificate_has_its_pace_after_a_burst_and_others_have_theirs() {
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let (mut pace, now) = (Pace::default(), Instant::now() + Duration::from_secs(60));
        let pauses: Vec<Duration> = (0..=STRANGER_BURST + 2)
            .map(|_| pace.next(here, now))
            .collect();
        let at_once = pauses.iter().filter(|pause| pause.is_zero()).count();
        assert_eq!(at_once, STRANGER_BURST as usize + 1);
        assert_eq!(pauses.last(), Some(&(STRANGER_INTERVAL * 2)));
        assert_eq!(pace.next(there, now), Duration::ZERO);
        for _ in 0..5000 {
            pace.next(here, now);
        }
        let longest = pace.next(here, now);
        assert!(
            longest > TURN_TIMEOUT && longest < TURN_TIMEOUT * 2,
            "{longest:?}"
        );
        pace.next(IpAddr::from([192, 0, 2, 3]), now + Duration::from_secs(90));
        assert_eq!(pace.0.len(), 1, "whoever has been quiet is forgotten");
    }

    #[tokio::test]
    async fn a_node_waits_for_itself_only() {
        let shares = Shares {
            turn_timeout: Duration::from_millis(50),
            ..Shares::default()
        };
        let mut held = Vec::new();
        for _ in 0..REQUESTS {
            held.push(shares.enter(&node("a"), HERE, false).await.expect("room"));
        }
        assert!(shares.enter(&node("a"), HERE, false).await.is_err());
        assert!(
            shares.enter(&node("a"), HERE, true).await.is_ok(),
            "a watch"
        );
        assert!(shares.enter(&node("b"), HERE, false).await.is_ok());
        assert!(
            shares
                .enter(&User::internal("x"), None, false)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn bodies_of_middle_size_are_worked_on_one_at_a_time_of_each_node() {
        let shares = Shares::default();
        let ticket = async |name| shares.enter(&node(name), HERE, false).await.expect("room");
        let (first, second) = (ticket("a").await, ticket("a").await);
        let working = first.middle_body().await.expect("room");
        assert!(working.is_some());
        assert!(second.middle_body().now_or_never().is_none());
        assert!(ticket("b").await.middle_body().now_or_never().is_some());
        drop(working);
        assert!(second.middle_body().now_or_never().is_some());
        let unlimited = Ticket::default().middle_body().await;
        assert!(unlimited.is_ok_and(|room| room.is_none()));
    }

    #[tokio::test]
    async fn a_ticket_is_given_back_with_the_last_byte_of_the_answer() {
        let shares = Shares::default();
        let ticket = shares.enter(&node("a"), HERE, false).await.expect("room");
        let share = shares.of(&node("a"), HERE).expect("a share");
        let answer = ticket.until_sent(Response::new(Body::from("text")));
        assert_eq!(share.requests.available_permits(), REQUESTS - 1);
        answer.into_body().collect().await.expect("a body");
        assert_eq!(share.requests.available_permits(), REQUESTS);
    }
}
