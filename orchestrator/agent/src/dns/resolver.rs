//! The way from a question to its answer: the cluster's own names, the owner's hosts, what is remembered,
//! and at last other servers.
//!
//! Everything but the last step is answered at once, in the task that has read the query.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnetwork::IpNetwork;

use super::cache::{Cache, Key};
use super::config::Config;
use super::index::Index;
use super::limits::Limits;
use super::message::Asked;
use super::numbers::{Numbers, Source};
use super::upstream::Upstream;
use super::zone::{self, Answer, Zone};

/// Aliases that one question is led through.
const MAX_ALIASES: usize = 8;

/// What all servers of a node share. Clones are the same.
pub struct Resolver {
    zone: Zone,
    /// Whose queries are answered: this node's own pods and the node itself.
    clients: Vec<IpNetwork>,
    index: RwLock<Index>,
    config: RwLock<Arc<Config>>,
    node_servers: RwLock<Vec<SocketAddr>>,
    cache: Mutex<Cache>,
    limits: Mutex<Limits>,
    /// What other servers are being asked: each question once, whoever waits for it. A query that comes
    /// back by way of them finds itself here, so that nothing goes round.
    flights: Mutex<BTreeMap<Key, Flight>>,
    upstream: Upstream,
    started: Instant,
    turn: AtomicU32,
    /// All Services and slices have been heard of.
    complete: AtomicBool,
    pub numbers: Numbers,
}

type Flight = Shared<BoxFuture<'static, Arc<Answer>>>;

/// What a question comes to without asking anybody.
pub enum Step {
    Done(Answer),
    /// Another server is to be asked this; the records are what led there.
    Ask(Vec<Record>, Query),
}

impl Resolver {
    /// `clients` are this node's shares of the pods' ranges, which the node's own addresses inside the
    /// overlay are in too.
    pub fn new(zone: Zone, clients: Vec<IpNetwork>, numbers: Numbers) -> Self {
        Self {
            zone,
            clients,
            index: RwLock::default(),
            config: RwLock::default(),
            node_servers: RwLock::default(),
            cache: Mutex::default(),
            limits: Mutex::default(),
            flights: Mutex::default(),
            upstream: Upstream::default(),
            started: Instant::now(),
            turn: AtomicU32::new(0),
            complete: AtomicBool::new(false),
            numbers,
        }
    }

    /// Whether queries from an address are answered at all.
    pub fn serves(&self, client: IpAddr) -> bool {
        self.clients.iter().any(|range| range.contains(client))
    }

    /// Changes what is known of Services and their endpoints.
    pub fn change(&self, change: impl FnOnce(&mut Index)) {
        change(&mut write(&self.index));
    }

    /// Until all is known of the cluster, nothing of it is denied.
    pub fn set_complete(&self, complete: bool) {
        self.complete.store(complete, Ordering::Relaxed);
    }

    /// Looks something up in it.
    pub fn look<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&read(&self.index))
    }

    /// What the cluster's owner says; what was heard from other servers is forgotten.
    pub fn configure(&self, config: Config) {
        let mut held = write(&self.config);
        if **held != config {
            *held = Arc::new(config);
            drop(held);
            lock(&self.cache).clear();
        }
    }

    /// The node's own servers are these now.
    pub fn set_node_servers(&self, servers: Vec<SocketAddr>) {
        let mut held = write(&self.node_servers);
        if *held != servers {
            *held = servers;
            drop(held);
            lock(&self.cache).clear();
        }
    }

    pub fn limits(&self) -> MutexGuard<'_, Limits> {
        lock(&self.limits)
    }

    /// Since the resolver was made: the clock of limits and cache.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Answers from what is known here.
    pub fn at_once(&self, asked: &Asked) -> Step {
        let mut question = asked.question.clone();
        let mut led: Vec<Record> = Vec::new();
        for _ in 0..=MAX_ALIASES {
            let Some((source, answer)) = self.known(&question, asked) else {
                return Step::Ask(led, question);
            };
            let (answer, chase) = joined(led, answer);
            let Some(next) = chase else {
                self.numbers.answered(source, answer.code);
                return Step::Done(answer);
            };
            led = answer.answers;
            question.set_name(next);
        }
        Step::Done(Answer::of_code(ResponseCode::ServFail))
    }

    /// Asks other servers for what [`Resolver::at_once`] did not know.
    pub async fn ask(self: &Arc<Self>, asked: &Asked, led: Vec<Record>, question: Query) -> Answer {
        let key = key(&question, asked);
        let flight = {
            let mut flights = lock(&self.flights);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.clone().fly(key.clone(), asked, question);
                    let flight = flight.boxed().shared();
                    flights.insert(key, flight.clone());
                    // It goes on for the others, should the one that began it go away.
                    tokio::spawn(flight.clone());
                    flight
                }
            }
        };
        let answer = flight.await;
        let (answer, _) = joined(led, (*answer).clone());
        self.numbers.answered(Source::Upstream, answer.code);
        answer
    }

    /// One question to other servers, from its begin until the cache has the answer.
    fn fly(
        self: Arc<Self>,
        key: Key,
        asked: &Asked,
        question: Query,
    ) -> impl Future<Output = Arc<Answer>> + Send + 'static {
        let config = read(&self.config).clone();
        let servers = {
            let node = read(&self.node_servers);
            config.servers(question.name(), &node).to_vec()
        };
        let message = asked.forward(&question);
        async move {
            let started = Instant::now();
            let answer = self.upstream.exchange(&servers, &message, &question).await;
            self.numbers.asked(started.elapsed());
            let failed = || Answer::of_code(ResponseCode::ServFail);
            let answer = Arc::new(answer.unwrap_or_else(failed));
            lock(&self.cache).put(key.clone(), answer.clone(), self.now());
            lock(&self.flights).remove(&key);
            answer
        }
    }

    fn known(&self, question: &Query, asked: &Asked) -> Option<(Source, Answer)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let of_zone = self.zone.answer(&read(&self.index), question, turn);
        if let Some(answer) = of_zone {
            let is_known = self.complete.load(Ordering::Relaxed) || !answer.answers.is_empty();
            let answer = match is_known {
                true => answer,
                false => Answer::of_code(ResponseCode::ServFail),
            };
            return Some((Source::Cluster, answer));
        }
        if let Some(answer) = listed(&read(&self.config), question) {
            return Some((Source::Hosts, answer));
        }
        let key = key(question, asked);
        let cached = lock(&self.cache).get(&key, self.now());
        cached.map(|answer| (Source::Cache, answer))
    }
}

fn key(question: &Query, asked: &Asked) -> Key {
    let (dnssec, unchecked) = (asked.dnssec, asked.checking_disabled);
    Key::new(question.name(), question.query_type(), dnssec, unchecked)
}

/// An answer behind the aliases that led to it, and where it leads.
fn joined(mut led: Vec<Record>, mut answer: Answer) -> (Answer, Option<Name>) {
    let chase = answer.chase.take();
    led.append(&mut answer.answers);
    answer.answers = led;
    (answer, chase)
}

/// What the owner's hosts say of a name or an address.
fn listed(config: &Config, question: &Query) -> Option<Answer> {
    let name = question.name();
    let kind = question.query_type();
    if kind == RecordType::PTR {
        let net = name.parse_arpa_name().ok()?;
        let whole = net.prefix_len() == net.max_prefix_len();
        let names = config.names(net.addr());
        let records = names
            .iter()
            .map(|of| Record::from_rdata(name.clone(), zone::TTL, RData::PTR(PTR(of.clone()))));
        return (whole && !names.is_empty()).then(|| Answer::of_records(records.collect()));
    }
    let addrs = config.host(name)?.iter();
    let wanted = addrs.filter(|addr| match kind {
        RecordType::A => addr.is_ipv4(),
        RecordType::AAAA => addr.is_ipv6(),
        _ => false,
    });
    Some(Answer::of_records(
        wanted.map(|addr| zone::host(name, *addr)).collect(),
    ))
}

/// Every change of what these hold is one step: a panic leaves it whole.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(held: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    held.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(held: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    held.write().unwrap_or_else(PoisonError::into_inner)
}
