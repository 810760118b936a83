//! What is known of one request for the audit log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of a request is logged (audit.k8s.io/v1, `Level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[expect(dead_code, reason = "a policy says it, and is not read yet")]
    None,
    /// Who, what, when, with which outcome.
    Metadata,
    /// What the client sent, too.
    Request,
    /// What it was answered, too.
    #[expect(dead_code, reason = "a policy says it, and is not read yet")]
    RequestResponse,
}

/// A request as the audit log will show it. Clones share it; empty if the request is not logged.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Record>>);

struct Record {
    level: Level,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    annotations: BTreeMap<String, String>,
}

impl Trail {
    /// Whether the request is logged in such detail. What is dear to make for the log is made only then.
    pub fn is_at(&self, level: Level) -> bool {
        let record = self.0.as_deref();
        record.is_some_and(|record| record.level >= level)
    }

    /// Adds an annotation. The first value of a key stays, as in Kubernetes.
    pub fn annotate(&self, key: &str, value: &str) {
        let Some(record) = self.0.as_deref() else {
            return;
        };
        let mut noted = record.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.annotations.get(key) {
            Some(known) if known == value => {}
            Some(_) => tracing::warn!(key, "an audit annotation has a value already"),
            None => {
                noted.annotations.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    /// The annotations so far.
    #[cfg(test)]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let record = self.0.as_deref();
        record.map_or_else(BTreeMap::new, |record| {
            let noted = record.noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.annotations.clone()
        })
    }

    /// A trail of its own, for tests of what annotates.
    #[cfg(test)]
    pub fn of_test(level: Level) -> Self {
        Self(Some(Arc::new(Record {
            level,
            noted: Mutex::default(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_an_annotation_stays() {
        let trail = Trail::of_test(Level::Metadata);
        trail.annotate("a", "1");
        trail.clone().annotate("a", "2");
        trail.annotate("b", "3");
        let expected = [("a", "1"), ("b", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(trail.annotations(), BTreeMap::from(expected));
        assert!(trail.is_at(Level::Metadata) && !trail.is_at(Level::Request));
        Trail::default().annotate("a", "1");
        assert!(Trail::default().annotations().is_empty());
    }
}
