//! Which requests are served when there are too many (KEP-1040, API priority and fairness).
//!
//! A request belongs to the first FlowSchema that matches it, which names its priority level and tells
//! flows apart. A level has seats, a share of all; within it flows take turns. A request that finds
//! no room to wait in, or waits too long, is told to come again (429).

mod classify;
mod defaults;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::authn::User;
use super::cache::Cache;
use super::{State, bootstrap, reply};
use api::ApiError;
use classify::{Asked, Schema};
use store::Revision;
use sys::Turns;
use sys::turns::Turn;

/// Requests that are answered at a time, in all levels that have a limit (Kubernetes' 400 + 200).
const ALL_SEATS: u64 = 600;
/// How long a request waits for its seat, as in Kubernetes a quarter of what it may last.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a client that was turned away should wait before it comes again.
const RETRY_AFTER_SECONDS: i32 = 1;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Headers of an answer: by which schema and level it was served.
static FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The schemas and levels as they were when last looked at.
#[derive(Default)]
pub struct Flows(Mutex<Arc<Rules>>);

#[derive(Default)]
struct Rules {
    /// The last change of schemas and levels that is in here.
    of: Option<[Revision; 2]>,
    /// In the order in which they are tried.
    schemas: Vec<Schema>,
    levels: BTreeMap<String, Arc<Level>>,
}

/// A priority level.
struct Level {
    uid: String,
    /// The same for a header.
    shown_uid: HeaderValue,
    spec: Value,
    limit: Limit,
}

enum Limit {
    Exempt,
    Seats {
        turns: Turns<Flow>,
        /// Requests of one flow that may wait or work.
        each: usize,
    },
}

/// One flow: the schema's name, and what tells flows apart.
type Flow = (Arc<str>, Arc<str>);

/// A seat, until it is dropped, and who gave it.
#[derive(Debug)]
pub struct Seat {
    _turn: Option<Turn<Flow>>,
    /// The uids of schema and level, as headers of the answer.
    pub headers: [(HeaderName, HeaderValue); 2],
}

/// Writes the schemas and levels that every cluster has, unless they are there.
pub async fn first_objects(state: &State) -> Result<(), ApiError> {
    let levels = bootstrap::find(GROUP, "prioritylevelconfigurations")?;
    let schemas = bootstrap::find(GROUP, "flowschemas")?;
    let all_levels = defaults::levels().into_iter();
    let all_schemas = defaults::schemas().into_iter();
    let all = all_levels.map(|level| (levels, level, false));
    let all = all.chain(all_schemas.map(|schema| (schemas, schema, false)));
    bootstrap::ensure_all(state, all).await
}

impl Flows {
    /// Waits for a seat. A watch or log (`lasts`) takes none: it is limited by its caller's share.
    pub async fn enter(
        &self,
        cache: &Cache,
        user: &User,
        (method, uri): (&Method, &Uri),
        lasts: bool,
    ) -> Result<Option<Seat>, ApiError> {
        let rules = self.rules(cache)?;
        let asked = Asked::of(user, method, uri);
        let Some(schema) = rules.schemas.iter().find(|schema| schema.matches(&asked)) else {
            return Ok(None);
        };
        let Some(level) = rules.levels.get(&schema.level) else {
            return Ok(None);
        };
        let turn = match &level.limit {
            Limit::Seats { turns, each } if !lasts => {
                let flow = (schema.name.clone(), schema.distinguish(&asked));
                let waiting = turns.next_of(flow, *each);
                let turn = tokio::time::timeout(PATIENCE, waiting).await;
                Some(turn.ok().flatten().ok_or_else(too_many)?)
            }
            _ => None,
        };
        Ok(Some(Seat {
            _turn: turn,
            headers: [
                (FLOW_SCHEMA.clone(), schema.uid.clone()),
                (PRIORITY_LEVEL.clone(), level.shown_uid.clone()),
            ],
        }))
    }

    /// The rules of now. What is at work or waits in a level that did not change stays there.
    fn rules(&self, cache: &Cache) -> Result<Arc<Rules>, ApiError> {
        let schemas = bootstrap::find(GROUP, "flowschemas")?;
        let levels = bootstrap::find(GROUP, "prioritylevelconfigurations")?;
        let of = Some([cache.last_change(schemas), cache.last_change(levels)]);
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.of != of {
            let objects = |resource| -> Result<Vec<Value>, ApiError> {
                let (_, objects) = cache.list(resource, None);
                objects
                    .iter()
                    .map(|object| reply::parse(&object.bytes()))
                    .collect()
            };
            let (schemas, levels) = (objects(schemas)?, objects(levels)?);
            *rules = Arc::new(Rules {
                of,
                ..Rules::new(&schemas, &levels, &rules)
            });
        }
        Ok(rules.clone())
    }
}

impl Rules {
    fn new(schemas: &[Value], levels: &[Value], before: &Self) -> Self {
        let mut schemas: Vec<Schema> = schemas.iter().map(Schema::of).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let all = levels.iter().filter_map(shares).sum::<u64>().max(1);
        let level = |object: &Value| {
            let name = api::meta::name(object).to_owned();
            let same = before.levels.get(&name);
            let same = same.filter(|level| level.is_of(object) && before.all_shares() == all);
            let level = same.cloned();
            (
                name,
                level.unwrap_or_else(|| Arc::new(Level::of(object, all))),
            )
        };
        Self {
            of: None,
            schemas,
            levels: levels.iter().map(level).collect(),
        }
    }

    fn all_shares(&self) -> u64 {
        let levels = self.levels.values();
        let shares = levels.filter_map(|level| shares_of(&level.spec));
        shares.sum::<u64>().max(1)
    }
}

impl Level {
    fn of(object: &Value, all_shares: u64) -> Self {
        let spec = object["spec"].clone();
        let limit = match shares_of(&spec) {
            None => Limit::Exempt,
            Some(shares) => {
                let seats = (ALL_SEATS * shares).div_ceil(all_shares).max(1);
                let seats = usize::try_from(seats).unwrap_or(usize::MAX);
                Limit::Seats {
                    turns: Turns::with_seats(seats),
                    each: seats + room(&spec),
                }
            }
        };
        Self {
            uid: api::meta::uid(object).to_owned(),
            shown_uid: shown_uid(object),
            spec,
            limit,
        }
    }

    fn is_of(&self, object: &Value) -> bool {
        self.uid == api::meta::uid(object) && self.spec == object["spec"]
    }
}

/// The uid of an object, for a header.
fn shown_uid(object: &Value) -> HeaderValue {
    let uid = HeaderValue::from_str(api::meta::uid(object));
    uid.unwrap_or(HeaderValue::from_static(""))
}

/// How many requests of one flow may wait: as many as its hand of queues holds.
fn room(spec: &Value) -> usize {
    let queuing = &spec["limited"]["limitResponse"]["queuing"];
    let number = |field: &str| queuing[field].as_u64().unwrap_or_default();
    let room = number("handSize").saturating_mul(number("queueLengthLimit"));
    usize::try_from(room.min(100_000)).unwrap_or_default()
}

fn shares(level: &Value) -> Option<u64> {
    shares_of(&level["spec"])
}

/// The share of all seats; None: the level has no limit.
fn shares_of(spec: &Value) -> Option<u64> {
    let limited = spec["type"] == "Limited";
    limited.then(|| {
        spec["limited"]["nominalConcurrencyShares"]
            .as_u64()
            .unwrap_or_default()
    })
}

fn too_many() -> ApiError {
    ApiError::TooManyRequests {
        message: "too many requests, please try again later.".to_owned(),
        retry_after_seconds: RETRY_AFTER_SECONDS,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn rules(levels: &[Value], before: &Rules) -> Rules {
        Rules::new(&defaults::schemas(), levels, before)
    }

    #[test]
    fn seats_are_shared_by_their_numbers_and_a_level_that_did_not_change_keeps_its_waiters() {
        let mut levels = defaults::levels();
        let before = rules(&levels, &Rules::default());
        let again = rules(&levels, &before);
        assert!(Arc::ptr_eq(
            &before.levels["system"],
            &again.levels["system"]
        ));
        let system = levels.iter_mut().find(|l| api::meta::name(l) == "system");
        system.expect("a default")["spec"]["limited"]["nominalConcurrencyShares"] = 60.into();
        let after = rules(&levels, &before);
        assert!(!Arc::ptr_eq(
            &before.levels["system"],
            &after.levels["system"]
        ));
        assert!(matches!(after.levels["exempt"].limit, Limit::Exempt));
    }

    #[test]
    fn a_full_level_refuses_one_flow_and_lets_another_wait() {
        let level = serde_json::json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "limitResponse": {"type": "Queue",
            "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}}}}});
        let Limit::Seats { turns, each } = Level::of(&level, 600).limit else {
            panic!("it has a limit");
        };
        let flow = |user: &str| -> Flow { ("all".into(), user.into()) };
        let at_work = turns.next_of(flow("a"), each).now_or_never().flatten();
        assert!(at_work.is_some());
        let mut waiting = Box::pin(turns.next_of(flow("a"), each));
        assert!(waiting.as_mut().now_or_never().is_none());
        let refused = turns.next_of(flow("a"), each).now_or_never();
        assert!(refused.expect("at once").is_none());
        let mut other = Box::pin(turns.next_of(flow("b"), each));
        assert!(other.as_mut().now_or_never().is_none());
        drop(at_work);
        // The other flow came first among the first ones.
        let turn = other.now_or_never();
        assert!(turn.is_some() && waiting.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(waiting.now_or_never().is_some());
    }
}
