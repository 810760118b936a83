//! Logs and watches over WebSocket: the answer that another client reads as a body, this one reads as messages.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use streams::{Messages, Shape};
use sys::front::Takeover;

use super::not_an_upgrade;
use crate::State;
use crate::audit::Trail;
use crate::reply;
use crate::rest::Answer;
use crate::shares::Ticket;
use api::ApiError;

/// A client that waits for messages.
pub struct Upgrade {
    takeover: Takeover,
    answer: Response<()>,
    messages: Messages,
    shape: Shape,
    held: super::Held,
}

/// What the client asks for beyond an ordinary answer. None: nothing.
pub fn asked(
    state: &State,
    parts: &Parts,
    trail: &Trail,
    shape: Shape,
) -> Result<Option<Upgrade>, ApiError> {
    if !streams::asks_for_websocket(&parts.headers) {
        return Ok(None);
    }
    // Over HTTP/2 nothing is upgraded.
    let takeover = parts.extensions.get::<Takeover>().cloned();
    let takeover = takeover.ok_or_else(not_an_upgrade)?;
    let room = state.connections.take()?;
    let accepted = streams::messages_over(&parts.method, &parts.headers);
    let (answer, messages) = accepted.map_err(|refused| match refused.status {
        StatusCode::FORBIDDEN => reply::failed(refused.status, "Forbidden", refused.message),
        _ => ApiError::BadRequest(refused.message),
    })?;
    let ticket = parts.extensions.get::<Ticket>().cloned();
    Ok(Some(Upgrade {
        takeover,
        answer,
        messages,
        shape,
        held: (ticket.unwrap_or_default(), room, trail.clone()),
    }))
}

impl Upgrade {
    /// Sends what the answer would have said. A refusal stays an ordinary answer.
    pub fn carry(self, answer: Response<Body>) -> Answer {
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let body = answer.into_body().into_data_stream();
        let (messages, shape, held) = (self.messages, self.shape, self.held);
        self.takeover.then(async move |connection| {
            messages.carry(connection, body, shape).await;
            drop(held);
        });
        let mut switched = self.answer.map(|()| Body::empty());
        switched.headers_mut().remove(header::CONTENT_LENGTH);
        Ok(switched)
    }
}
