//! What is known of one request for the audit log, and when that becomes an event.
//!
//! The last event of a request is made when the last clone of its trail is gone: with the last byte of
//! its answer, or when a write has ended whose client did not wait for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Log;
use super::event::{self, Arrival, Noted};
use super::policy::{Level, Stage, Verdict};
use crate::authn::User;
use crate::authz::Allowed;
use crate::rbac::Granted;
use crate::reply::Said;
use api::{ApiError, meta};

/// Bytes of an answer that are kept for its event.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A request as the audit log will show it. Clones share it; empty if the request is not logged.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Record>>);

struct Record {
    log: Arc<Log>,
    verdict: Verdict,
    arrival: Arrival,
    noted: Mutex<Noted>,
}

impl Trail {
    /// The trail of a request that has arrived, with its first event.
    pub(super) fn open(log: Arc<Log>, verdict: Verdict, arrival: Arrival) -> Self {
        let record = Record {
            log,
            verdict,
            arrival,
            noted: Mutex::default(),
        };
        record.write(Stage::RequestReceived);
        Self(Some(Arc::new(record)))
    }

    /// Whether the request is logged in such detail. What is dear to make for the log is made only then.
    pub fn is_at(&self, level: Level) -> bool {
        let record = self.0.as_deref();
        record.is_some_and(|record| record.verdict.level >= level)
    }

    /// Adds an annotation. The first value of a key stays, as in Kubernetes.
    pub fn annotate(&self, key: &str, value: &str) {
        self.note(|noted| match noted.annotations.get(key) {
            Some(known) if known == value => {}
            Some(_) => tracing::warn!(key, "an audit annotation has a value already"),
            None => {
                noted.annotations.insert(key.to_owned(), value.to_owned());
            }
        });
    }

    /// Says what authorisation has decided, and why.
    pub fn decided(&self, decision: &Allowed) {
        if !self.is_at(Level::Metadata) {
            return;
        }
        let (word, reason) = match decision {
            Ok(granted) => ("allow", granted.as_ref().map(Granted::reason)),
            Err(error) if error.code() == 403 => ("forbid", None),
            Err(_) => return,
        };
        self.annotate("authorization.k8s.io/decision", word);
        self.annotate("authorization.k8s.io/reason", &reason.unwrap_or_default());
    }

    /// The caller speaks as somebody else.
    pub fn impersonates(&self, user: &User) {
        self.note(|noted| noted.impersonated = Some(user.clone()));
    }

    /// The object that the client sent, decoded.
    pub fn sent(&self, object: &Value) {
        self.note(|noted| {
            noted.name = meta::name(object).to_owned();
            noted.namespace = meta::namespace(object).to_owned();
            noted.uid = meta::uid(object).to_owned();
            noted.resource_version = meta::resource_version(object).to_owned();
        });
        self.sent_patch(object);
    }

    /// A body that says something about an object: a patch, options.
    pub fn sent_patch(&self, body: &Value) {
        if self.is_at(Level::Request) {
            self.note(|noted| noted.sent = Some(body.clone()));
        }
    }

    /// What became of the request, for a client that does not wait for the answer.
    pub fn ended(&self, answer: &Result<Response<Body>, ApiError>) {
        let status = |answer: &Result<Response<Body>, ApiError>| match answer {
            Ok(answer) => status_of(answer),
            Err(error) => bare(crate::reply::status(error)),
        };
        self.note(|noted| noted.status = Some(status(answer)));
    }

    /// What the client gets, in its last form.
    pub fn answered(self, mut answer: Response<Body>) -> Response<Body> {
        let Some(record) = self.0.as_deref() else {
            return answer;
        };
        let said = answer.extensions().get::<Said>();
        let said = said.filter(|_| record.verdict.level == Level::RequestResponse);
        self.note(|noted| {
            if let (None, Some(Said(status))) = (&noted.answered, said) {
                noted.answered = Some(Value::clone(status));
            }
            noted.status = Some(status_of(&answer));
        });
        if let Ok(id) = HeaderValue::from_str(&record.arrival.id) {
            answer.headers_mut().insert("audit-id", id);
        }
        if !record.arrival.info.lasts() {
            return answer;
        }
        record.write(Stage::ResponseStarted);
        self.followed(answer, None)
    }

    /// Keeps a copy of an answer for the log, if the request is logged with it.
    pub fn copied(&self, answer: Response<Body>) -> Response<Body> {
        match self.is_at(Level::RequestResponse) {
            true => self.clone().followed(answer, Some(Vec::new())),
            false => answer,
        }
    }

    fn followed(self, answer: Response<Body>, kept: Option<Vec<u8>>) -> Response<Body> {
        let content = answer.headers().get(header::CONTENT_TYPE);
        let is_yaml = content.is_some_and(|content| content == "application/yaml");
        answer.map(|inner| {
            Body::new(Followed {
                inner,
                trail: self,
                kept,
                is_yaml,
            })
        })
    }

    /// A trail of its own, for tests of what annotates.
    #[cfg(test)]
    pub fn of_test(level: Level) -> Self {
        tests::trail(&Log::of_test(), level)
    }

    /// The annotations so far.
    #[cfg(test)]
    pub fn annotations(&self) -> std::collections::BTreeMap<String, String> {
        let record = self.0.as_deref();
        record.map_or_else(Default::default, |record| {
            record.noted().annotations.clone()
        })
    }

    fn note(&self, note: impl FnOnce(&mut Noted)) {
        if let Some(record) = self.0.as_deref() {
            note(&mut record.noted());
        }
    }
}

impl Record {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, stage: Stage) {
        if self.verdict.omitted.contains(&stage) {
            return;
        }
        let mut noted = self.noted();
        if self.verdict.omit_managed_fields {
            let objects = [&mut noted.sent].into_iter().flatten();
            objects.for_each(event::omit_managed_fields);
        }
        if self.verdict.level == Level::Metadata {
            noted.status.iter_mut().for_each(forget_what_was_sent);
        }
        let now = Timestamp::now();
        let line = event::line(self.verdict.level, stage, &self.arrival, &mut noted, now);
        drop(noted);
        self.log.write(line.into());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let panics = std::thread::panicking();
        {
            let mut noted = self.noted();
            if panics {
                noted.status = Some(json!({
                    "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                    "message": "the server has failed at this request; its log says more",
                }));
            } else if noted.status.is_none() {
                // As Kubernetes says it.
                noted.status = Some(json!({
                    "metadata": {}, "status": "Success", "code": 200,
                    "message": "Connection closed early",
                }));
            }
        }
        self.write(match panics {
            true => Stage::Panic,
            false => Stage::ResponseComplete,
        });
    }
}

/// The Status that is logged of an answer: what it says itself, or its code.
fn status_of(answer: &Response<Body>) -> Value {
    match answer.extensions().get::<Said>() {
        Some(Said(status)) => bare(Value::clone(status)),
        None => json!({"metadata": {}, "code": answer.status().as_u16()}),
    }
}

/// Refusals of what a body says quote it, and a body is no part of the level Metadata.
fn forget_what_was_sent(status: &mut Value) {
    if !matches!(status["code"].as_u64(), Some(400 | 422)) {
        return;
    }
    if let Some(fields) = status.as_object_mut() {
        fields.remove("message");
        let details = fields.get_mut("details").and_then(Value::as_object_mut);
        details.map(|details| details.remove("causes"));
    }
}

/// A Status in an event says not that it is one.
fn bare(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    status
}

/// The body of an answer, whose request is over when it is.
struct Followed {
    inner: Body,
    trail: Trail,
    /// What has gone out; None: nobody wants it, or it is too much.
    kept: Option<Vec<u8>>,
    is_yaml: bool,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(data), Some(kept)) = (frame.data_ref(), &mut self.kept)
        {
            match kept.len() + data.len() <= ANSWER_BYTES {
                true => kept.extend_from_slice(data),
                false => {
                    self.kept = None;
                    self.trail.annotate("audit.k8s.io/truncated", "true");
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let Some(kept) = self.kept.take() else {
            return;
        };
        let mut object: Option<Value> = match self.is_yaml {
            true => api::decode::documents(&kept)
                .ok()
                .and_then(|all| all.into_iter().next()),
            false => serde_json::from_slice(&kept).ok(),
        };
        let omits = |record: &Arc<Record>| record.verdict.omit_managed_fields;
        if let Some(object) = &mut object
            && self.trail.0.as_ref().is_some_and(omits)
        {
            event::omit_managed_fields(object);
        }
        self.trail.note(|noted| noted.answered = object);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};

    use super::*;
    use crate::request_info::RequestInfo;

    pub fn trail(log: &Arc<Log>, level: Level) -> Trail {
        let verdict = Verdict {
            level,
            omitted: vec![Stage::RequestReceived],
            omit_managed_fields: false,
        };
        let arrival = Arrival {
            id: "1".to_owned(),
            uri: "/x".to_owned(),
            info: RequestInfo::of(&Method::GET, &Uri::from_static("/x")),
            user: None,
            sources: Vec::new(),
            user_agent: String::new(),
            at: Timestamp::now(),
        };
        Trail::open(log.clone(), verdict, arrival)
    }

    #[tokio::test]
    async fn the_last_clone_of_a_trail_writes_what_became_of_the_request() {
        let log = Log::of_test();
        let first = trail(&log, Level::Metadata);
        first.annotate("a", "1");
        let second = first.clone();
        drop(first);
        second.annotate("a", "2");
        second.annotate("b", "3");
        assert_eq!(log.written().await, Vec::<Value>::new());
        drop(second);
        let events = log.written().await;
        assert_eq!(events[0]["stage"], "ResponseComplete");
        assert_eq!(events[0]["annotations"], json!({"a": "1", "b": "3"}));
        assert_eq!(
            events[0]["responseStatus"]["message"],
            "Connection closed early"
        );
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_logged_as_one() {
        let log = Log::of_test();
        let trail = trail(&log, Level::Metadata);
        let broken = std::thread::spawn(move || {
            let _held = trail;
            panic!("s3cret");
        });
        assert!(broken.join().is_err());
        let events = log.written().await;
        assert_eq!(events[0]["stage"], "Panic");
        assert_eq!(events[0]["responseStatus"]["code"], 500);
        assert!(!events[0].to_string().contains("s3cret"));
    }
}
