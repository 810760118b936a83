//! EventRateLimit: how many events a server takes, in all and of each namespace, user or source with its
//! object. A token bucket each; of buckets the least used ones are forgotten.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use super::config::{check_fields, check_kind};
use crate::admission::Attributes;
use api::{ApiError, Behaviour};

/// Buckets of a limit that says nothing, and the most that one may ask for.
const DEFAULT_BUCKETS: usize = 4_096;
const MAX_BUCKETS: usize = 1_000_000;

/// One of the configured limits (`eventratelimit.admission.k8s.io/v1alpha1`).
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    of: Of,
    per_second: f64,
    burst: f64,
    buckets: usize,
}

/// What shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl Of {
    const ALL: [(&'static str, Self); 4] = [
        ("Server", Self::Server),
        ("Namespace", Self::Namespace),
        ("User", Self::User),
        ("SourceAndObject", Self::SourceAndObject),
    ];

    fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, of)| *of == self).map_or("", |(name, _)| name)
    }

    fn key(self, attributes: &Attributes<'_>, event: &Value) -> String {
        match self {
            Self::Server => String::new(),
            Self::Namespace => attributes.namespace.to_owned(),
            Self::User => attributes.user.name.to_string(),
            Self::SourceAndObject => source_and_object(event),
        }
    }
}

fn source_and_object(event: &Value) -> String {
    let object = &event["involvedObject"];
    let parts = [
        &event["source"]["component"],
        &event["source"]["host"],
        &object["kind"],
        &object["namespace"],
        &object["name"],
        &object["uid"],
        &object["apiVersion"],
    ];
    parts.iter().filter_map(|part| part.as_str()).collect()
}

impl Limit {
    pub fn read_all(own: &Value) -> Result<Vec<Self>, String> {
        let version = "eventratelimit.admission.k8s.io/v1alpha1";
        check_kind(own, version, "Configuration")?;
        check_fields(own, "", &["apiVersion", "kind", "limits"])?;
        let limits = own["limits"].as_array().filter(|limits| !limits.is_empty());
        let limits = limits.ok_or("limits: must not be empty")?;
        let limits = limits.iter().enumerate();
        limits
            .map(|(index, limit)| Self::read(limit).map_err(|why| format!("limits[{index}]{why}")))
            .collect()
    }

    fn read(limit: &Value) -> Result<Self, String> {
        check_fields(limit, ".", &["type", "qps", "burst", "cacheSize"])?;
        let mut kinds = Of::ALL.iter();
        let (_, of) = kinds
            .find(|(name, _)| limit["type"] == *name)
            .ok_or_else(|| {
                let names = Of::ALL.map(|(name, _)| name).join(", ");
                format!(".type: must be one of {names}")
            })?;
        let positive = |field: &str| {
            let number = limit[field].as_u64().filter(|number| *number > 0);
            let number = number.and_then(|number| u32::try_from(number).ok());
            number
                .map(f64::from)
                .ok_or_else(|| format!(".{field}: must be positive"))
        };
        let buckets = match &limit["cacheSize"] {
            Value::Null => 0,
            size => {
                let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
                size.ok_or(".cacheSize: must not be negative")?
            }
        };
        Ok(Self {
            of: *of,
            per_second: positive("qps")?,
            burst: positive("burst")?,
            buckets: match buckets {
                0 => DEFAULT_BUCKETS,
                size => size.min(MAX_BUCKETS),
            },
        })
    }
}

/// The buckets of all limits.
pub struct Limits(Vec<Buckets>);

struct Buckets {
    limit: Limit,
    by_key: BTreeMap<String, Bucket>,
    /// The keys by when they were used, the longest ago first.
    by_use: BTreeMap<u64, String>,
    uses: u64,
}

struct Bucket {
    tokens: f64,
    at: Instant,
    used: u64,
}

impl Limits {
    pub fn new(limits: &[Limit]) -> Self {
        Self(limits.iter().cloned().map(Buckets::new).collect())
    }

    /// Takes a token of each limit; the texts are of those that have none left.
    fn take(&mut self, key: impl Fn(Of) -> String, now: Instant) -> Vec<String> {
        let refused = self.0.iter_mut().filter_map(|buckets| {
            let (of, key) = (buckets.limit.of, key(buckets.limit.of));
            let text = format!("limit reached on type {} for key {key}", of.name());
            (!buckets.take(key, now)).then_some(text)
        });
        refused.collect()
    }
}

impl Buckets {
    fn new(limit: Limit) -> Self {
        Self {
            limit,
            by_key: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    fn take(&mut self, key: String, now: Instant) -> bool {
        self.uses += 1;
        if !self.by_key.contains_key(&key)
            && self.by_key.len() >= self.limit.buckets
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        let bucket = self.by_key.entry(key.clone()).or_insert(Bucket {
            tokens: self.limit.burst,
            at: now,
            used: 0,
        });
        self.by_use.remove(&bucket.used);
        bucket.used = self.uses;
        self.by_use.insert(self.uses, key);
        let more = now.saturating_duration_since(bucket.at).as_secs_f64() * self.limit.per_second;
        bucket.tokens = (bucket.tokens + more).min(self.limit.burst);
        bucket.at = now;
        let has_token = bucket.tokens >= 1.0;
        if has_token {
            bucket.tokens -= 1.0;
        }
        has_token
    }
}

pub fn validate(attributes: &Attributes<'_>, event: Option<&Value>) -> Result<(), ApiError> {
    let is_event = attributes.resource.behaviour == Behaviour::Event;
    let Some(event) = event.filter(|_| is_event && !attributes.dry_run) else {
        return Ok(());
    };
    let limits = &attributes.state.plugins.event_limits;
    let mut limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = limits.take(|of| of.key(attributes, event), Instant::now());
    drop(limits);
    let message = match refused.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    // Without a time to wait: a client that waits for each event falls further behind.
    Err(ApiError::Given(Box::new(Status {
        code: Some(429),
        message: Some(format!("Too many requests: {message}")),
        reason: Some("TooManyRequests".to_owned()),
        status: Some("Failure".to_owned()),
        ..Status::default()
    })))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn limits(list: Value) -> Result<Vec<Limit>, String> {
        Limit::read_all(
            &json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
            "kind": "Configuration", "limits": list}),
        )
    }

    #[test]
    fn a_bucket_is_refilled_and_never_holds_more_than_its_burst() {
        let read = limits(json!([{"type": "User", "qps": 2, "burst": 3}])).expect("right");
        let (mut limits, start) = (Limits::new(&read), Instant::now());
        let mut taken = |user: &str, millis| {
            let now = start + Duration::from_millis(millis);
            limits.take(|_| user.to_owned(), now)
        };
        assert!((0..3).all(|_| taken("a", 0).is_empty()));
        assert_eq!(taken("a", 0), ["limit reached on type User for key a"]);
        assert!(taken("b", 0).is_empty());
        assert!(!taken("a", 400).is_empty());
        assert!(taken("a", 1000).is_empty());
        assert!((0..3).all(|_| taken("a", 60_000).is_empty()));
        assert!(!taken("a", 60_000).is_empty());
    }

    #[test]
    fn the_least_used_bucket_is_forgotten() {
        let limit = json!([{"type": "Namespace", "qps": 1, "burst": 1, "cacheSize": 2}]);
        let mut buckets = Buckets::new(limits(limit).expect("right").remove(0));
        let now = Instant::now();
        for (key, expected) in [
            ("a", true),
            ("b", true),
            ("a", false),
            ("c", true),
            ("a", false),
        ] {
            assert_eq!(buckets.take(key.to_owned(), now), expected, "{key}");
        }
        assert_eq!(buckets.by_key.len(), 2);
        assert_eq!(buckets.by_use.len(), 2);
        assert!(buckets.take("b".to_owned(), now));
    }

    #[test]
    fn a_wrong_limit_is_refused_by_its_field() {
        for (list, expected) in [
            (json!([]), "limits: must not be empty"),
            (
                json!([{"type": "server"}]),
                "limits[0].type: must be one of Server, Namespace",
            ),
            (
                json!([{"type": "User", "qps": 0, "burst": 1}]),
                "limits[0].qps: must be positive",
            ),
            (
                json!([{"type": "User", "qps": 1}]),
                "limits[0].burst: must be positive",
            ),
            (
                json!([{"type": "User", "qps": 1, "burst": 1, "cacheSize": -1}]),
                "limits[0].cacheSize: must not be negative",
            ),
        ] {
            let why = limits(list).expect_err("wrong");
            assert!(why.contains(expected), "{why}");
        }
    }
}
