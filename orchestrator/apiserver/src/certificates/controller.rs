//! The task that approves, signs and deletes CertificateSigningRequests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{self, Step};
use super::{CONTROLLER, GROUP, GROUPS};
use crate::authn::User;
use crate::cache::Watch;
use crate::rest::review;
use crate::{State, bootstrap, dispatch, reply};
use api::{ApiError, Resource, meta};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// When a step that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long certificates last where no authority says so; nothing is signed there.
const DEFAULT_LIFETIME: Duration = sys::certificates::LEAF_VALIDITY;

/// Follows the requests until the server stops.
pub fn start(state: &Arc<State>) {
    let (tasks, state) = (state.tasks.clone(), state.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.restarting("certificate signing requests", move || {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move {
            let controller = Controller::new(state)?;
            shutdown.unless(controller.run()).await.unwrap_or(Ok(()))
        }
    });
}

struct Controller {
    state: Arc<State>,
    kind: &'static Arc<Resource>,
    client: kube::Client,
    /// When requests are looked at again though nothing has changed.
    due: BTreeMap<String, Timestamp>,
}

impl Controller {
    fn new(state: Arc<State>) -> Result<Self, ApiError> {
        let router = dispatch::Dispatcher::new(state.clone()).into_router();
        // The rights of the default role system:controller:certificate-controller, and no others.
        let user = User::named(CONTROLLER, GROUPS.map(str::to_owned).into());
        Ok(Self {
            kind: bootstrap::find(GROUP, "certificatesigningrequests")?,
            client: kube::Client::new(router.layer(Extension(user)), "default"),
            state,
            due: BTreeMap::new(),
        })
    }

    async fn run(mut self) -> Result<(), ApiError> {
        loop {
            let from = self.state.objects.cache.revision();
            let all = self.state.objects.cache.list(self.kind, None).1;
            for name in all.iter().map(|found| found.name().to_owned()) {
                self.look_at(&name).await;
            }
            let watch = self.state.objects.cache.watch(self.kind, None, None, from);
            // They have changed faster than this task reads: all are looked at anew.
            if let Ok(watch) = watch.await {
                self.follow(watch).await;
            }
        }
    }

    async fn follow(&mut self, mut watch: Watch) {
        loop {
            let next = self.due.values().min().copied();
            let wait = next.map(|next| next.duration_since(Timestamp::now()));
            let wait = wait.map(|wait| Duration::try_from(wait).unwrap_or_default());
            let timer = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event) => {
                        let name = event.object.name().to_owned();
                        self.look_at(&name).await;
                    }
                    Err(_) => return,
                },
                () = timer => {
                    let now = Timestamp::now();
                    let due = self.due.iter().filter(|(_, due)| **due <= now);
                    let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
                    for name in due {
                        self.look_at(&name).await;
                    }
                }
            }
        }
    }

    async fn look_at(&mut self, name: &str) {
        self.due.remove(name);
        let Some(found) = self.state.objects.cache.get(self.kind, "", name) else {
            return;
        };
        let now = Timestamp::now();
        let csr = match reply::parse(&found.bytes()) {
            Ok(csr) => csr,
            Err(error) => {
                tracing::error!(name, %error, "a stored request does not read");
                return;
            }
        };
        if meta::is_terminating(&csr) {
            return;
        }
        match self.take(csr, now).await {
            Ok(Some(due)) => drop(self.due.insert(name.to_owned(), due)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(name, %error, "a certificate signing request is tried again");
                self.due.insert(name.to_owned(), now + RETRY);
            }
        }
    }

    /// Takes the next step; when the request is due again.
    async fn take(&self, csr: Value, now: Timestamp) -> Result<Option<Timestamp>, kube::Error> {
        let longest = self.state.pki.as_ref();
        let longest = longest.map_or(DEFAULT_LIFETIME, |pki| pki.authority.leaf_validity());
        match plan::step(&csr, longest, now) {
            Step::Wait(until) => Ok(until),
            Step::Ask(rights) => {
                let end = plan::end(&csr);
                let asker = asker(&csr["spec"]);
                let given = rights
                    .into_iter()
                    .find(|(sub, _)| self.may_create(&asker, sub));
                let Some((_, message)) = given else {
                    return Ok(end);
                };
                let approved = with_condition(csr, "Approved", "AutoApproved", message, now);
                self.put("approval", &approved).await.map(|()| end)
            }
            Step::Fail(why) => self.fail(csr, &why, now).await,
            Step::Sign(leaf) => {
                let Some(pki) = &self.state.pki else {
                    return Ok(None);
                };
                match pki.authority.sign(&leaf) {
                    Ok(certificate) => {
                        let mut signed = csr;
                        signed["status"]["certificate"] = STANDARD.encode(certificate).into();
                        self.put("status", &signed).await.map(|()| None)
                    }
                    Err(error) => self.fail(csr, &error.to_string(), now).await,
                }
            }
            Step::Delete => self.delete(&csr).await.map(|()| None),
        }
    }

    async fn fail(
        &self,
        csr: Value,
        why: &str,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, kube::Error> {
        let failed = with_condition(csr, "Failed", "SignerValidationFailure", why, now);
        self.put("status", &failed).await.map(|()| None)
    }

    /// Whether the asker may have such a certificate without anybody's word (kubernetes 1.33,
    /// `pkg/controller/certificates/approver`).
    fn may_create(&self, asker: &User, subresource: &str) -> bool {
        let wish = json!({"resourceAttributes": {
            "group": GROUP, "resource": "certificatesigningrequests", "verb": "create",
            "subresource": subresource,
        }});
        review::may(&self.state, asker, &wish)
    }

    async fn put(&self, subresource: &str, csr: &Value) -> Result<(), kube::Error> {
        let path = format!("{PATH}/{}/{subresource}", meta::name(csr));
        self.send(Method::PUT, &path, csr).await
    }

    async fn delete(&self, csr: &Value) -> Result<(), kube::Error> {
        let path = format!("{PATH}/{}", meta::name(csr));
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": meta::uid(csr),
                "resourceVersion": meta::resource_version(csr)}});
        self.send(Method::DELETE, &path, &options).await
    }

    /// Who comes in between is another event, which is looked at next.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<(), kube::Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes());
        let request = request.map_err(kube::Error::HttpError)?;
        match self.client.request::<Value>(request).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// Who has made the request.
fn asker(spec: &Value) -> User {
    let words = |list: &Value| -> Vec<String> {
        let words = list.as_array().into_iter().flatten();
        words
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    let extra = extra.map(|(key, list)| (key.clone(), words(list)));
    let name = spec["username"].as_str().unwrap_or_default();
    User {
        uid: spec["uid"].as_str().unwrap_or_default().into(),
        extra: Arc::new(extra.collect()),
        ..User::named(name, words(&spec["groups"]))
    }
}

fn with_condition(
    mut csr: Value,
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": meta::timestamp(now)});
    let conditions = &mut csr["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => *conditions = json!([condition]),
    }
    csr
}
