//! What the audit log says of webhooks: which were asked, which changed the object and how, what they
//! say themselves. Keys and values are Kubernetes' (`plugin/webhook/*/dispatcher.go`, 1.33).

use serde_json::{Value, json};

use super::hook::Hook;
use super::review::{Role, Verdict};
use crate::audit::{Level, Trail};

/// Which call of a request's webhooks it is.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub trail: &'a Trail,
    pub role: Role,
    /// 0, or 1 if the webhook is asked a second time.
    pub round: usize,
    /// The webhook's place among all of its role.
    pub index: usize,
}

impl Call<'_> {
    /// What the webhook wants to have written. Its name comes before its keys, so that none can speak
    /// for another.
    pub fn said(&self, hook: &Hook, verdict: &Verdict) {
        for (key, value) in &verdict.annotations {
            self.trail.annotate(&format!("{}/{key}", hook.name), value);
        }
    }

    pub fn failed_open(&self, hook: &Hook) {
        let prefix = match self.role {
            Role::Mutating => "failed-open.mutation.webhook.admission.k8s.io/",
            Role::Validating => "failed-open.validating.webhook.admission.k8s.io/",
        };
        self.annotate(prefix, || hook.name.clone());
    }

    /// Whether a mutating webhook has changed the object.
    pub fn mutated(&self, hook: &Hook, mutated: bool) {
        self.annotate("mutation.webhook.admission.k8s.io/", || {
            json!({
                "configuration": hook.configuration,
                "webhook": hook.name,
                "mutated": mutated,
            })
            .to_string()
        });
    }

    /// How a mutating webhook has changed the object. A patch may hold what is secret: it is part of
    /// what was asked for.
    pub fn patched(&self, hook: &Hook, patch: &Value) {
        if !self.trail.is_at(Level::Request) {
            return;
        }
        self.annotate("patch.webhook.admission.k8s.io/", || {
            json!({
                "configuration": hook.configuration,
                "webhook": hook.name,
                "patch": patch,
                "patchType": "JSONPatch",
            })
            .to_string()
        });
    }

    fn annotate(&self, prefix: &str, value: impl FnOnce() -> String) {
        if self.trail.is_at(Level::Metadata) {
            let key = format!("{prefix}round_{}_index_{}", self.round, self.index);
            self.trail.annotate(&key, &value());
        }
    }
}
