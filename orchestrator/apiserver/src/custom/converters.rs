//! The ways to conversion webhooks, with the connections that are open to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::State;
use crate::outgoing::{self, ClientConfig};
use api::Webhook;

/// Those that were asked already, by the names of their definitions.
#[derive(Default)]
pub struct Converters(Mutex<BTreeMap<Box<str>, Way>>);

struct Way {
    /// What it was made of.
    client: Value,
    config: Arc<ClientConfig>,
}

impl Converters {
    /// The answer to a review.
    ///
    /// # Errors
    /// The webhook is not configured well, or does not answer in time.
    pub async fn ask(
        &self,
        state: &State,
        webhook: &Webhook,
        review: &Value,
        timeout: Duration,
    ) -> Result<Value, String> {
        let config = self.way(webhook)?;
        outgoing::post_json(state, &config, review, timeout).await
    }

    /// Lets go of the connections of a definition.
    pub fn forget(&self, definition: &str) {
        let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ways.remove(definition);
    }

    fn way(&self, webhook: &Webhook) -> Result<Arc<ClientConfig>, String> {
        let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ways.get(&webhook.definition);
        if let Some(way) = known.filter(|way| way.client == webhook.client) {
            return Ok(way.config.clone());
        }
        let config = Arc::new(ClientConfig::of(&webhook.client)?);
        let way = Way {
            client: webhook.client.clone(),
            config: config.clone(),
        };
        ways.insert(webhook.definition.clone(), way);
        Ok(config)
    }
}
