//! Who is asked to convert.

use std::time::Duration;

use serde_json::Value;

use crate::State;
use api::Webhook;

/// The ways to conversion webhooks.
#[derive(Default)]
pub struct Converters;

impl Converters {
    /// The answer to a review.
    pub async fn ask(
        &self,
        _state: &State,
        webhook: &Webhook,
        _review: &Value,
        _timeout: Duration,
    ) -> Result<Value, String> {
        Err(format!(
            "the webhook of {} cannot be asked",
            webhook.definition
        ))
    }
}
