//! What a container has written.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Meant, Served};
use crate::runtime::{Container, LogOptions, Role, Runtime, RuntimeError};

/// The query of a log request, in Kubernetes' words. What is wrong with it was said by the API server.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogQuery {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since_seconds: Option<u32>,
    since_time: Option<Timestamp>,
    /// `All`, `Stdout` or `Stderr` (KEP-3288).
    stream: Option<String>,
}

impl LogQuery {
    fn options(&self, now: Timestamp) -> LogOptions {
        let ago = |seconds: u32| now.checked_sub(Duration::from_secs(seconds.into())).ok();
        let only = |name: &str| self.stream.as_deref() == Some(name);
        LogOptions {
            // One that has ended goes on no more.
            follow: self.follow && !self.previous,
            timestamps: self.timestamps,
            tail: self.tail_lines,
            since: self.since_time.or(self.since_seconds.and_then(ago)),
            stdout: !only("Stderr"),
            stderr: !only("Stdout"),
        }
    }
}

pub async fn logs<R: Runtime>(
    State(served): State<Served<R>>,
    Path((namespace, pod, name)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Response {
    let meant = Meant::of(&namespace, &pod, &headers);
    let attempts = match attempts(&*served.runtime, &meant, &name).await {
        Ok(attempts) => attempts,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    let wanted = usize::from(query.previous);
    let Some(container) = attempts.iter().rev().nth(wanted) else {
        let what = if query.previous {
            format!("previous terminated container \"{name}\" in pod \"{pod}\" not found")
        } else {
            format!("container \"{name}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
        };
        return (StatusCode::BAD_REQUEST, what).into_response();
    };
    let options = query.options(Timestamp::now());
    let frames = served.runtime.logs(&container.id, &options);
    let frames = limited(frames, query.limit_bytes);
    let body = Body::from_stream(frames.map_err(std::io::Error::other));
    ([("content-type", "text/plain")], body).into_response()
}

/// All attempts of one container of the pod, oldest first.
pub(super) async fn attempts<R: Runtime>(
    runtime: &R,
    meant: &Meant<'_>,
    name: &str,
) -> Result<Vec<Container>, RuntimeError> {
    let sightings = runtime.pods().await?;
    let named = sightings.into_iter().filter(|it| meant.is(&it.pod));
    let mut newest: Vec<Container> = Vec::new();
    for sighting in named {
        let mut found = runtime.containers(&sighting.pod.uid).await?;
        found.retain(|it| it.identity.role != Role::Sandbox && it.identity.name == name);
        found.sort_by_key(|container| container.identity.attempt);
        let age = |list: &[Container]| list.last().map(|container| container.created_at);
        if age(&found) > age(&newest) {
            newest = found;
        }
    }
    Ok(newest)
}

/// Cuts a stream off after that many bytes, at once: it may be followed.
fn limited<S>(frames: S, limit: Option<u64>) -> impl Stream<Item = S::Item> + Send
where
    S: Stream<Item = Result<Bytes, RuntimeError>> + Send + Unpin,
{
    let left = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    stream::unfold((frames, left), async |(mut frames, mut left)| {
        if left == 0 {
            return None;
        }
        let frame = frames.next().await?.map(|mut frame| {
            frame.truncate(left);
            left -= frame.len();
            frame
        });
        Some((frame, (frames, left)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_cuts_in_the_middle_of_a_line_and_waits_for_no_more() {
        let frames = ["hello\n", "world\n"].map(|text| Ok(Bytes::from(text)));
        let frames = stream::iter(frames).chain(stream::pending());
        let cut: Vec<_> = limited(frames.boxed(), Some(8)).collect().await;
        let text: Vec<u8> = cut
            .into_iter()
            .flat_map(|frame| frame.expect("no error"))
            .collect();
        assert_eq!(text, b"hello\nwo");
    }

    #[test]
    fn a_query_says_when_to_begin_and_which_stream() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let query = LogQuery {
            since_seconds: Some(60),
            stream: Some("Stderr".to_owned()),
            follow: true,
            previous: true,
            ..LogQuery::default()
        };
        let options = query.options(now);
        assert_eq!(options.since, "2026-01-01T00:00:00Z".parse().ok());
        assert!(options.stderr && !options.stdout && !options.follow);
        let options = LogQuery::default().options(now);
        assert_eq!(options, LogOptions::default());
    }
}
