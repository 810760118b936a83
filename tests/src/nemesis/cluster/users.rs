//! What users ask of the API server, until it is answered.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::api_load::connection::{Ask, Target};

/// A server that was killed is back long before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// One try.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Users {
    target: Target,
}

impl Users {
    pub fn of(target: Target) -> Self {
        Self { target }
    }

    /// Asks again until there is an answer: an object that is there already, or gone already, was asked for in a
    /// request whose answer was lost. `Null`: there is no such object.
    ///
    /// # Errors
    /// The server refuses it, or does not answer in time.
    pub async fn surely(&self, ask: &Ask) -> Result<Value> {
        let end = Instant::now() + ANSWER_TIMEOUT;
        let what = format!("{} {}", ask.method, ask.path);
        loop {
            let answer = timeout(TRY_TIMEOUT, self.try_once(ask.clone())).await;
            let why = match answer {
                Ok(Ok((status, body))) => match heard(&ask.method, status) {
                    Heard::Done => return Ok(body),
                    Heard::Nothing => return Ok(Value::Null),
                    Heard::Refused => bail!("{what}: {status}: {}", body["message"]),
                    Heard::Again => format!("{status}: {}", body["message"]),
                },
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() > end {
                bail!("{what}: {why}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_once(&self, ask: Ask) -> Result<(StatusCode, Value)> {
        let mut connection = self.target.connect().await?;
        let (status, body) = connection.ask(ask).await?;
        let body = serde_json::from_slice(&body).context("an answer without JSON")?;
        Ok((status, body))
    }
}

enum Heard {
    Done,
    Nothing,
    Refused,
    Again,
}

fn heard(method: &Method, status: StatusCode) -> Heard {
    match (method, status) {
        (&Method::POST, StatusCode::CONFLICT) => Heard::Done,
        (&Method::GET | &Method::DELETE, StatusCode::NOT_FOUND) => Heard::Nothing,
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT) => Heard::Again,
        (_, status) if status.is_success() => Heard::Done,
        (_, status) if status.is_server_error() => Heard::Again,
        _ => Heard::Refused,
    }
}
