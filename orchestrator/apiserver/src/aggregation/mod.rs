//! Groups that other servers serve: requests for them are passed on, with the name of who asks.
//!
//! ```text
//! APIService ─▶ known servers ─▶ request of /apis/<group>/<version>/… ─▶ its Service (outgoing)
//!      ▲                               who asks: X-Remote-User, -Group
//!      └── condition Available ◀── probes (availability)
//!          its OpenAPI ◀── asked each minute (documents): a row of /openapi/v3, a part of /openapi/v2
//! ```
//!
//! What this server serves itself is never passed on, whatever an APIService says; but for metrics.k8s.io, which
//! is served here (`samples`) while no APIService leads elsewhere.

mod availability;
pub mod documents;
mod forward;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::outgoing::{self, ClientConfig, Trusted};
use super::registry::Snapshot;
use super::{Pki, State, reply, samples};
use api::{ApiError, Resource};
use store::Revision;

pub use availability::start;
use documents::Described;
pub use forward::forward;

/// The servers of other groups, as they are now.
#[derive(Default)]
pub struct Aggregated(RwLock<Known>);

#[derive(Clone, Default)]
struct Known {
    servers: Arc<[Arc<Server>]>,
    /// The last change of an APIService that they know of.
    at: Revision,
}

/// The group that is served here until somebody else does.
const METRICS: (&str, &str) = ("metrics.k8s.io", "v1beta1");

/// The server of a version of a group.
pub struct Server {
    pub group: String,
    pub version: String,
    /// It is this server.
    is_own: bool,
    /// How it is reached, or why it cannot be.
    client: Result<ClientConfig, String>,
    /// The groups of this server are ordered by it, the greatest first.
    priority: (i64, i64),
    /// Its Service.
    service: Value,
    /// The name of its APIService, and what this was made of: the spec and the certificate that is shown.
    name: String,
    made_of: (Value, String),
    probed: Mutex<Probed>,
    described: Mutex<Described>,
}

/// What the last probe found.
#[derive(Clone, Default)]
struct Probed {
    available: bool,
    /// Its `APIResourceList`.
    resources: Value,
}

impl Aggregated {
    /// All of them; most clusters have none.
    pub fn servers(&self, state: &State) -> Result<Arc<[Arc<Server>]>, ApiError> {
        let kind = kind()?;
        let changed = state.objects.cache.last_change(kind);
        let known = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let issued = state.pki.as_ref().map(Pki::issued);
        let shown = issued.as_ref().map(|issued| &issued.front_proxy);
        let certificate = shown.map_or("", |shown| &shown.certificate);
        let is_current = |server: &Arc<Server>| server.made_of.1 == certificate;
        if known.at == changed && !known.servers.is_empty() && known.servers.iter().all(is_current)
        {
            return Ok(known.servers);
        }
        let mut servers = Vec::new();
        for cached in state.objects.cache.list(kind, None).1 {
            let service = reply::parse(&cached.bytes())?;
            let spec = &service["spec"];
            if spec["service"].is_null() {
                continue;
            }
            let made_of = (spec.clone(), certificate.to_owned());
            let same = known
                .servers
                .iter()
                .find(|server| server.made_of == made_of);
            servers.push(same.cloned().unwrap_or_else(|| {
                let mut server = Server::of(cached.name(), made_of);
                if let Some(shown) = shown {
                    server.client = server.client.map(|client| client.showing(shown.clone()));
                }
                Arc::new(server)
            }));
        }
        let is_metrics = |server: &Arc<Server>| (&*server.group, &*server.version) == METRICS;
        if !servers.iter().any(is_metrics) {
            servers.push(Arc::new(Server::metrics(certificate)));
        }
        servers.sort_by(|a, b| b.priority.cmp(&a.priority).then(a.name.cmp(&b.name)));
        let known = Known {
            servers: servers.into(),
            at: changed,
        };
        let servers = known.servers.clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(servers)
    }

    /// The server of a path, unless it is this one.
    pub fn of_path(&self, state: &State, path: &str) -> Result<Option<Arc<Server>>, ApiError> {
        let mut words = path.split('/').filter(|word| !word.is_empty());
        let (Some("apis"), Some(group), Some(version)) = (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let servers = self.servers(state)?;
        let found = servers
            .iter()
            .find(|server| server.group == group && server.version == version);
        let own = || state.registry.snapshot().version(group, version).is_some();
        Ok(found.filter(|_| !own()).cloned())
    }

    /// Adds the groups of other servers to those of an `APIGroupList`.
    pub fn add_groups(
        &self,
        state: &State,
        served: &Snapshot,
        groups: &mut Vec<Value>,
    ) -> Result<(), ApiError> {
        for (name, servers) in self.foreign_groups(state, served)? {
            let version = |server: &Arc<Server>| json!({"groupVersion": format!("{name}/{}", server.version), "version": server.version});
            let versions: Vec<Value> = servers.iter().map(version).collect();
            let found = groups.iter_mut().find(|group| group["name"] == name);
            match found.and_then(|group| group["versions"].as_array_mut()) {
                Some(own) => own.extend(versions),
                None => groups.push(json!({
                    "name": name,
                    "preferredVersion": versions.first(),
                    "versions": versions,
                })),
            }
        }
        Ok(())
    }

    /// Adds them to the items of an `APIGroupDiscoveryList`.
    pub fn add_discovered(
        &self,
        state: &State,
        served: &Snapshot,
        items: &mut Vec<Value>,
    ) -> Result<(), ApiError> {
        for (name, servers) in self.foreign_groups(state, served)? {
            let versions: Vec<Value> = servers.iter().map(|server| server.discovered()).collect();
            let found = items
                .iter_mut()
                .find(|item| item["metadata"]["name"] == name);
            match found.and_then(|item| item["versions"].as_array_mut()) {
                Some(own) => own.extend(versions),
                None => items.push(json!({
                    "metadata": {"name": name, "creationTimestamp": null},
                    "versions": versions,
                })),
            }
        }
        Ok(())
    }

    /// The servers of versions that are not served here.
    pub fn others(&self, state: &State, served: &Snapshot) -> Result<Vec<Arc<Server>>, ApiError> {
        let groups = self.foreign_groups(state, served)?.into_iter();
        Ok(groups.flat_map(|(_, servers)| servers).collect())
    }

    /// The servers of each group in the order of discovery, without those of versions that are served here.
    fn foreign_groups(
        &self,
        state: &State,
        served: &Snapshot,
    ) -> Result<Vec<(String, Vec<Arc<Server>>)>, ApiError> {
        let servers = self.servers(state)?;
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut groups: Vec<(String, Vec<Arc<Server>>)> = Vec::new();
        for server in servers.iter() {
            if served.version(&server.group, &server.version).is_some() {
                continue;
            }
            let place = *places.entry(&server.group).or_insert_with(|| {
                groups.push((server.group.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(server.clone());
        }
        Ok(groups)
    }
}

impl Server {
    /// This server, for what its agents measure.
    fn metrics(certificate: &str) -> Self {
        let (group, version) = METRICS;
        let spec = json!({"group": group, "version": version,
            "groupPriorityMinimum": 100, "versionPriority": 100});
        let server = Self::of(
            &format!("{version}.{group}"),
            (spec, certificate.to_owned()),
        );
        server.note(Probed {
            available: true,
            resources: samples::resources(),
        });
        Self {
            is_own: true,
            ..server
        }
    }

    fn of(name: &str, made_of: (Value, String)) -> Self {
        let spec = &made_of.0;
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        let trusted = match spec["insecureSkipTLSVerify"] == true {
            true => Ok(Trusted::Anybody),
            false => Trusted::of(&spec["caBundle"]),
        };
        Self {
            group: text("group"),
            version: text("version"),
            is_own: false,
            client: trusted
                .and_then(|trusted| ClientConfig::service(&spec["service"], "", trusted)),
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            service: spec["service"].clone(),
            name: name.to_owned(),
            made_of,
            probed: Mutex::default(),
            described: Mutex::default(),
        }
    }

    fn probed(&self) -> Probed {
        let probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        probed.clone()
    }

    fn note(&self, probed: Probed) {
        if probed.available && !self.probed().available {
            self.ask_anew();
        }
        *self.probed.lock().unwrap_or_else(PoisonError::into_inner) = probed;
    }

    /// As `apidiscovery.k8s.io` shows a version, from what its server said last.
    fn discovered(&self) -> Value {
        let probed = self.probed();
        let list = probed.resources["resources"].as_array();
        let all = || list.into_iter().flatten();
        let kind = |of: &Value| {
            let or = |field: &str, own: &str| of[field].as_str().unwrap_or(own).to_owned();
            json!({"group": or("group", &self.group), "version": or("version", &self.version),
                "kind": of["kind"]})
        };
        let resources = all().filter_map(|resource| {
            let name = resource["name"].as_str().filter(|name| !name.contains('/'))?;
            let subs = all().filter_map(|sub| {
                let sub_name = sub["name"].as_str()?.strip_prefix(name)?.strip_prefix('/')?;
                Some(json!({"subresource": sub_name, "responseKind": kind(sub), "verbs": sub["verbs"]}))
            });
            let mut shown = json!({
                "resource": name,
                "responseKind": kind(resource),
                "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
                "singularResource": resource["singularName"],
                "verbs": resource["verbs"],
            });
            let subs: Vec<Value> = subs.collect();
            for (field, value) in [
                ("shortNames", resource["shortNames"].clone()),
                ("categories", resource["categories"].clone()),
                ("subresources", subs.into()),
            ] {
                if value.as_array().is_some_and(|list| !list.is_empty()) {
                    shown[field] = value;
                }
            }
            Some(shown)
        });
        let freshness = if probed.available { "Current" } else { "Stale" };
        json!({"version": self.version, "resources": resources.collect::<Vec<_>>(),
            "freshness": freshness})
    }
}

/// What a server answers to this one.
struct Answered {
    code: StatusCode,
    /// Its `ETag`.
    tag: Option<HeaderValue>,
    body: Bytes,
}

/// Asks a server for a document of at most so many bytes, unless it is still the one that is `known`.
///
/// # Errors
/// Why there is no answer, in words.
async fn ask(
    state: &State,
    client: &ClientConfig,
    path: &str,
    known: Option<&HeaderValue>,
    most: usize,
    timeout: Duration,
) -> Result<Answered, String> {
    let mut request = Request::get(path)
        .header(header::ACCEPT, "application/json")
        .header("x-remote-user", "system:kube-aggregator")
        .header("x-remote-group", "system:masters");
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    let request = request.body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let asking = async {
        let answer = outgoing::send(state, client, request).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, most).collect().await;
        Ok(Answered {
            code: parts.status,
            tag: parts.headers.get(header::ETAG).cloned(),
            body: body.map_err(|error| error.to_string())?.to_bytes(),
        })
    };
    let answer = tokio::time::timeout(timeout, asking).await;
    answer.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

fn kind() -> Result<&'static Arc<Resource>, ApiError> {
    let found = api::find("apiregistration.k8s.io", "v1", "apiservices");
    found.ok_or(ApiError::NoSuchResource)
}
