//! The API server: HTTP in front of the store, in Kubernetes' words.
//!
//! The only part that sees the store. A request passes `authn`, `authz` and the handler of its verb
//! in `rest`; a write passes `admission` too. `router()` is the whole of it without a network:
//! `serve` puts TLS around it, the scheduler and the controllers call it in process.

mod addresses;
mod admission;
mod aggregation;
mod applied;
mod attempts;
mod audit;
mod authn;
mod authz;
mod bootstrap;
pub mod cache;
mod certificates;
mod custom;
mod discovery;
mod dispatch;
pub mod encryption;
mod families;
mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod gzip;
mod health;
mod held_body;
mod hops;
mod join;
#[doc(hidden)]
pub mod measuring;
mod metrics;
mod negotiate;
mod node_writes;
mod nodes;
mod objects;
mod openapi;
mod options;
mod outgoing;
mod peers;
mod pki;
mod port_owner;
mod proxy;
mod rbac;
mod registry;
mod reply;
mod request;
mod request_info;
mod rest;
mod samples;
mod serve;
mod server_join;
pub mod server_token;
mod servers;
mod services;
mod shares;
pub mod snapshots;
mod tables;
#[cfg(test)]
mod tests;
mod tokens;
mod turns;
mod upload;
mod versions;
mod watch;
mod wire;
mod write;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
use ipnetwork::IpNetwork;
use jiff::Timestamp;

use api::ApiError;
use store::{Fence, Leadership, Store, StoreError};
use sys::Tasks;

pub use admission::{AdmissionConfig, AdmissionConfigError, TolerationSeconds};
pub use audit::{FileOptions as AuditFileOptions, Options as AuditOptions};
pub use authn::service_account::KeyError;
pub use authn::{AuthenticationConfig, OidcConfig, Sources, TokenWebhook, User};
pub use health::KUBERNETES as KUBERNETES_VERSION;
pub use pki::{EtcdPki, Pki, PkiError, etcd_pki, server_names};
pub use serve::ServeError;
pub use server_join::{
    PATH as SERVER_JOIN_PATH, ServerJoin, ServerJoined, is_shared_file, member_name,
};
pub use snapshots::SnapshotConfig;

/// What the server is told at start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where the cluster reaches this server: the endpoint of Service default/kubernetes.
    pub advertise: SocketAddr,
    /// All addresses that it answers on: nobody else may take one.
    pub bound: Vec<IpAddr>,
    /// Pod addresses of the whole cluster: one range a family, the primary one first.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Prefix length of one node's share of them, range by range.
    pub node_mask_bits: Vec<u8>,
    /// Service addresses: one range a family, the primary one first.
    pub service_cidrs: Vec<IpNetwork>,
    /// Ports that Services may take on every node.
    pub node_ports: RangeInclusive<u16>,
    /// Where a join token is kept that is always good.
    pub token_file: Option<PathBuf>,
    /// Where users come from besides certificates.
    pub users: Sources,
    /// Addresses that are given to Services of type LoadBalancer.
    pub load_balancer_pool: Vec<RangeInclusive<IpAddr>>,
    /// The one of them at which the nodes lead to all servers.
    pub shared_address: Option<IpAddr>,
    pub audit: AuditOptions,
    /// How tokens are made and known.
    pub authentication: AuthenticationConfig,
    /// Which admission plugins are on, and how.
    pub admission: AdmissionConfig,
    /// Of which commit the binary was built: 40 hexadecimal digits, which are zeros where nobody knows.
    pub commit: String,
    /// None: this server takes no snapshots.
    pub snapshots: Option<SnapshotConfig>,
    /// Where its EncryptionConfiguration lies; None: in `pki`, if there is one.
    pub encryption: Option<PathBuf>,
}

impl ServerConfig {
    /// The address of the API server's own Service: the first of the range of the family in which
    /// the server is reached, since its endpoint is there.
    pub fn own_service_address(&self) -> IpAddr {
        let v4 = self.advertise.is_ipv4();
        let mut ranges = self.service_cidrs.iter();
        let fits = ranges.find(|range| range.is_ipv4() == v4);
        let range = fits.or(self.service_cidrs.first()).copied();
        addresses::first_of(range.unwrap_or_else(default_service_cidr))
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            advertise: SocketAddr::from(([172, 31, 0, 1], 6443)),
            bound: Vec::new(),
            pod_cidrs: vec![network([10, 100, 0, 0], 16)],
            node_mask_bits: vec![24],
            service_cidrs: vec![default_service_cidr()],
            node_ports: 30000..=32767,
            token_file: None,
            users: Sources::default(),
            load_balancer_pool: Vec::new(),
            shared_address: None,
            audit: AuditOptions::default(),
            authentication: AuthenticationConfig::default(),
            admission: AdmissionConfig::default(),
            commit: "0".repeat(40),
            snapshots: None,
            encryption: None,
        }
    }
}

/// Why a server could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Audit(String),
    #[error("the first objects of the cluster could not be written: {0}")]
    Bootstrap(#[from] ApiError),
    #[error("the keys that sign tokens: {0}")]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Users(#[from] authn::AuthenticationError),
}

/// A server that is ready to answer. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<State>,
}

/// What every handler may use.
struct State {
    /// Itself, for what outlives a request.
    me: Weak<State>,
    config: ServerConfig,
    objects: objects::Objects,
    registry: registry::Registry,
    converters: custom::Converters,
    addresses: Arc<addresses::Addresses>,
    documents: openapi::Documents,
    /// None in process without a network: no joining, no logs.
    pki: Option<Pki>,
    shares: shares::Shares,
    flows: flow::Flows,
    tasks: Tasks,
    /// Held while the name of a node is looked up and taken.
    joining: tokio::sync::Mutex<()>,
    attempts: attempts::Log,
    plugins: admission::Plugins,
    quota_turns: admission::quota::Turns,
    policies: admission::policies::Configured,
    webhooks: admission::webhooks::Configured,
    aggregated: aggregation::Aggregated,
    /// None: nothing is logged.
    audit: Option<Arc<audit::Log>>,
    /// For streams and proxied requests.
    connections: proxy::Room,
    applied: applied::Applied,
    samples: samples::Samples,
    metrics: metrics::Metrics,
    servers: servers::Servers,
    snapshot_turn: snapshots::Turn,
    authentication: authn::Authentication,
}

impl ApiServer {
    /// Loads the store, writes the first objects of the cluster if they are missing, and starts
    /// what the server does on its own (event expiry). `tasks` end when the server should.
    pub async fn build(
        config: ServerConfig,
        store: Arc<dyn Store>,
        pki: Option<Pki>,
        tasks: Tasks,
    ) -> Result<Self, BuildError> {
        let audited = audit::Log::open(&config.audit).map_err(BuildError::Audit)?;
        let cache = cache::Cache::start(store.clone(), &tasks).await?;
        let metrics = metrics::Metrics::new(&config.commit);
        let shared = store.clone();
        let objects = objects::Objects::new(store, cache, metrics.commits().clone());
        let addresses = addresses::Addresses::load(&config, &objects).await?;
        let documents = openapi::Documents::default();
        let token_file = config.token_file.clone();
        let plugins = admission::Plugins::new(&config.admission);
        let directory = pki.as_ref().map(Pki::directory);
        let authentication = authn::Authentication::load(
            &config.authentication,
            shared,
            directory,
            Timestamp::now(),
        )
        .await?
        .with(&config.users)?;
        let state = Arc::new_cyclic(|me| State {
            me: me.clone(),
            config,
            objects,
            registry: registry::Registry::new(),
            converters: custom::Converters::default(),
            addresses,
            documents,
            pki,
            shares: shares::Shares::default(),
            flows: flow::Flows::default(),
            tasks,
            joining: tokio::sync::Mutex::default(),
            attempts: attempts::Log::default(),
            plugins,
            quota_turns: admission::quota::Turns::default(),
            policies: admission::policies::Configured::default(),
            webhooks: admission::webhooks::Configured::default(),
            aggregated: aggregation::Aggregated::default(),
            audit: audited.as_ref().map(|(log, _)| log.clone()),
            connections: proxy::Room::default(),
            applied: applied::Applied::default(),
            samples: samples::Samples::default(),
            metrics,
            servers: servers::Servers::default(),
            snapshot_turn: snapshots::Turn::default(),
            authentication,
        });
        if let Some((log, outlets)) = audited {
            outlets.start(&state, &log);
        }
        tokio::try_join!(
            bootstrap::first_objects(&state),
            flow::first_objects(&state),
            rbac::first_objects(&state),
        )?;
        custom::start(&state).await?;
        start_tasks(&state);
        tokens::start_upkeep(&state, token_file).await?;
        Ok(Self { state })
    }

    /// The server as a service. A request without a [`User`] in its extensions is anonymous.
    pub fn router(&self) -> Router {
        dispatch::Dispatcher::new(self.state.clone()).into_router()
    }

    /// An administrator's client of this server in the same process: for tools and tests.
    pub fn client(&self, user: &str) -> kube::Client {
        let user = User::internal(user);
        kube::Client::new(self.router().layer(axum::Extension(user)), "default")
    }

    /// Returns when this server leads in an office: one of all servers of the store.
    pub async fn campaign(&self, office: &str) -> Result<Leadership, StoreError> {
        let holder = self.state.config.advertise.to_string();
        self.state.objects.store.campaign(office, &holder).await
    }

    /// The client of a part of the control plane, which may do what the roles of this user say: the
    /// scheduler, a controller's account.
    pub fn component(&self, user: &str) -> kube::Client {
        self.component_of_leader(user, None)
    }

    /// The same one, whose writes are refused as soon as the leadership of `fence` is over.
    pub fn component_of_leader(&self, user: &str, fence: Option<Fence>) -> kube::Client {
        // The manager of the fields that it writes, by the names of Kubernetes' programs.
        let program = match user {
            "system:kube-scheduler" => "kube-scheduler",
            _ => "kube-controller-manager",
        };
        let router = self.router().layer(axum::Extension(User::component(user)));
        let service = tower::ServiceBuilder::new()
            .map_request(move |mut request: Request<kube::client::Body>| {
                let agent = HeaderValue::from_static(program);
                request.headers_mut().insert(header::USER_AGENT, agent);
                if let Some(fence) = &fence {
                    request.extensions_mut().insert(fence.clone());
                }
                request
            })
            .service(router);
        kube::Client::new(service, "default")
    }

    /// What is counted of other parts of the process is shown with the server's own numbers.
    pub fn measure(&self, register: impl FnOnce(&mut prometheus_client::registry::Registry)) {
        self.state.metrics.register(register);
    }

    /// Answers on these addresses until the server's tasks are told to stop; then open requests
    /// get a moment to end.
    pub async fn serve(&self, listeners: Vec<std::net::TcpListener>) -> Result<(), ServeError> {
        serve::serve(self, listeners).await
    }

    /// Has clients go to the other servers while this one still answers, before its tasks are told to stop. A few
    /// seconds at most; nothing where there is no other server.
    pub async fn leave(&self) {
        servers::leave(&self.state).await;
    }

    /// Waits until the audit log is written, for at most `patience`. Nothing is logged afterwards.
    pub async fn close_audit_log(&self, patience: Duration) {
        if let Some(log) = &self.state.audit {
            log.close(patience).await;
        }
    }

    /// Takes an address to serve on; the error says who has it and what to do.
    pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, ServeError> {
        serve::bind(address)
    }
}

/// What the server does on its own, until its tasks are told to stop.
fn start_tasks(state: &Arc<State>) {
    bootstrap::start_expiry(state);
    bootstrap::start_upkeep(state);
    servers::start(state);
    admission::quota::start(state);
    aggregation::start(state);
    pki::start_renewal(state);
    authn::service_account::start_rotation(state);
    authn::service_account::legacy::start(state);
    certificates::start(state);
    snapshots::start(state);
}

fn default_service_cidr() -> IpNetwork {
    network([10, 96, 0, 0], 16)
}

fn network(address: [u8; 4], prefix: u8) -> IpNetwork {
    match ipnetwork::Ipv4Network::new(address.into(), prefix) {
        Ok(network) => IpNetwork::V4(network),
        // A constant of this file is wrong.
        Err(error) => unreachable!("{error}"),
    }
}
