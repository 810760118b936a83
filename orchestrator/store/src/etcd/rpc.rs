//! Requests to etcd: which member is asked, for how long, and as whom.

use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::base::Shift;
use super::config::EtcdConfig;
use super::failure::Failure;
use super::wire;

pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(super) const COMPACT: &str = "/etcdserverpb.KV/Compact";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// How a request may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It may happen twice.
    Safe,
    /// Only where it did not begin.
    Unsent,
}

/// The members of one etcd.
pub(super) struct Rpc {
    config: EtcdConfig,
    /// Only grows, so that a place in it stays a member's.
    members: RwLock<Vec<Arc<Member>>>,
    /// The one that answered last.
    current: AtomicUsize,
    token: RwLock<Option<MetadataValue<Ascii>>>,
    /// How far the store's revisions are above etcd's (`base`).
    base: AtomicI64,
}

/// What a watch delivers, until it ends.
pub(super) type Watching = BoxStream<'static, Result<wire::WatchResponse, Status>>;

struct Member {
    name: String,
    channel: Channel,
}

/// After that, a request that may happen twice is given to another member.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two rounds over members that cannot be reached.
const PAUSE: Duration = Duration::from_millis(100);
/// etcd ends connections that ask for life more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// A page of `PAGE_KEYS` values of the largest size that etcd takes by default, and room beside it.
const MESSAGE_BYTES: usize = 256 << 20;

impl Rpc {
    /// Connects when the first request is made.
    pub fn new(config: &EtcdConfig) -> Result<Self, String> {
        let members = config.members.iter().map(|name| Member::new(config, name));
        Ok(Self {
            config: config.clone(),
            members: RwLock::new(members.collect::<Result<_, String>>()?),
            current: AtomicUsize::new(0),
            token: RwLock::default(),
            base: AtomicI64::new(0),
        })
    }

    /// Asks these members too, where others do not answer. The error says what of a name is wrong.
    pub fn learn(&self, names: impl IntoIterator<Item = String>) -> Result<(), String> {
        for name in names {
            let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
            if members.iter().all(|known| known.name != name) {
                members.push(Member::new(&self.config, &name)?);
            }
        }
        Ok(())
    }

    fn member(&self, index: usize) -> Arc<Member> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        // Places are below their number, which only grows.
        members[index].clone()
    }

    fn count(&self) -> usize {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.len()
    }

    /// From now on revisions are the store's, whose first one is behind `base`.
    pub fn count_from(&self, base: i64) {
        self.base.store(base, Ordering::Relaxed);
    }

    /// The last revision of before this etcd.
    pub fn base(&self) -> i64 {
        self.base.load(Ordering::Relaxed)
    }

    /// One request and its answer. Members that cannot be reached are tried again in turn until
    /// the time is over.
    pub async fn ask<Q, A>(
        &self,
        path: &'static str,
        request: &Q,
        repeat: Repeat,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + Shift + 'static,
        A: Message + Default + Shift + 'static,
    {
        let deadline = Instant::now() + self.config.timeout;
        let mut authenticated = false;
        loop {
            let index = self.current.load(Ordering::Relaxed) % self.count();
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = match repeat {
                Repeat::Safe => left.min(ATTEMPT_TIMEOUT),
                Repeat::Unsent => left,
            };
            let failure = match timeout(patience, self.ask_member(index, path, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let name = self.member(index).name.clone();
                    Failure::Lost(format!("{name} did not answer in time"))
                }
            };
            let again = match failure {
                Failure::Unsent(_) => true,
                Failure::Lost(_) => repeat == Repeat::Safe,
                Failure::Unauthenticated(_) => self.config.user.is_some() && !authenticated,
                Failure::Refused(_) => false,
            };
            if !again || Instant::now() + PAUSE >= deadline {
                // A member that stands still would keep the next request, too.
                if matches!(failure, Failure::Lost(_) | Failure::Unsent(_)) {
                    self.turn_from(index);
                }
                return Err(failure);
            }
            if matches!(failure, Failure::Unauthenticated(_)) {
                authenticated = true;
                self.authenticate(index).await?;
                continue;
            }
            self.turn_from(index);
            if index + 1 == self.count() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Leaves a member that does not answer.
    pub fn turn_from(&self, index: usize) {
        let next = (index + 1) % self.count();
        // Whoever was faster has turned already.
        let turned = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self
            .current
            .compare_exchange(index, next, turned.0, turned.1);
    }

    /// A watch by one member, which ends when that has no leader any more; and the member's place.
    pub async fn watch(
        &self,
        create: wire::WatchCreateRequest,
    ) -> Result<(Watching, usize), (Failure, usize)> {
        let index = self.current.load(Ordering::Relaxed) % self.count();
        let mut authenticated = false;
        loop {
            let mut ask = wire::WatchRequest {
                create: Some(create.clone()),
            };
            ask.shift(-self.base());
            // The stream of requests stays open as long as the watch is wanted, and no longer: HTTP/2 keeps a stream, and
            // etcd its watch, until both sides of it have ended.
            let (wanted, unwanted) = oneshot::channel::<Infallible>();
            let end = stream::once(unwanted).filter_map(|_| future::ready(None));
            let requests = stream::once(async { ask }).chain(end);
            match timeout(ATTEMPT_TIMEOUT, self.streaming(index, WATCH, requests)).await {
                Ok(Ok(stream)) => {
                    let base = self.base();
                    let shifted = stream.map(move |response| {
                        let _ = &wanted;
                        response.map(|mut response| {
                            response.shift(base);
                            response
                        })
                    });
                    return Ok((shifted.boxed(), index));
                }
                Ok(Err(Failure::Unauthenticated(_)))
                    if self.config.user.is_some() && !authenticated =>
                {
                    authenticated = true;
                    self.authenticate(index).await.map_err(|it| (it, index))?;
                }
                Ok(Err(failure)) => return Err((failure, index)),
                Err(_) => {
                    let name = self.member(index).name.clone();
                    let late = Failure::Lost(format!("{name} did not answer in time"));
                    return Err((late, index));
                }
            }
        }
    }

    async fn ask_member<Q, A>(
        &self,
        index: usize,
        path: &'static str,
        request: &Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + Shift + 'static,
        A: Message + Default + Shift + 'static,
    {
        let (member, base) = (self.member(index), self.base());
        let mut grpc = member.grpc().await?;
        let mut request = request.clone();
        request.shift(-base);
        let mut request = Request::new(request);
        self.show_token(&mut request);
        let path = PathAndQuery::from_static(path);
        let answer = grpc.unary(request, path, ProstCodec::default()).await;
        let answer = answer.map_err(|status| member.failure(&status))?;
        let mut answer: A = answer.into_inner();
        answer.shift(base);
        Ok(answer)
    }

    async fn streaming<S>(
        &self,
        index: usize,
        path: &'static str,
        requests: S,
    ) -> Result<Streaming<wire::WatchResponse>, Failure>
    where
        S: Stream<Item = wire::WatchRequest> + Send + 'static,
    {
        let member = self.member(index);
        let mut grpc = member.grpc().await?;
        let mut request = Request::new(requests);
        self.show_token(&mut request);
        let leader = MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", leader);
        let path = PathAndQuery::from_static(path);
        let answer = grpc.streaming(request, path, ProstCodec::default()).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| member.failure(&status))
    }

    fn show_token<T>(&self, request: &mut Request<T>) {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*token {
            request.metadata_mut().insert("token", token.clone());
        }
    }

    async fn authenticate(&self, index: usize) -> Result<(), Failure> {
        let Some(user) = &self.config.user else {
            return Ok(());
        };
        let request = wire::AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.clone(),
        };
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = None;
        let asked = self.ask_member::<_, wire::AuthenticateResponse>(index, AUTHENTICATE, &request);
        let answer = asked.await?;
        let unreadable = |_| Failure::Refused("etcd gave a token that no header holds".to_owned());
        let mut token: MetadataValue<Ascii> = answer.token.parse().map_err(unreadable)?;
        token.set_sensitive(true);
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }
}

impl Member {
    fn new(config: &EtcdConfig, name: &str) -> Result<Arc<Self>, String> {
        let channel = endpoint(config, name)?.connect_lazy();
        let name = name.to_owned();
        Ok(Arc::new(Self { name, channel }))
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Failure> {
        let grpc = Grpc::new(self.channel.clone());
        let mut grpc = grpc.max_decoding_message_size(MESSAGE_BYTES);
        let unready = |error: tonic::transport::Error| Failure::Unsent(error.to_string());
        grpc.ready().await.map_err(unready)?;
        Ok(grpc)
    }

    fn failure(&self, status: &Status) -> Failure {
        Failure::of(&self.name, status)
    }
}

fn endpoint(config: &EtcdConfig, member: &str) -> Result<Endpoint, String> {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let wrong = |error: tonic::transport::Error| match std::error::Error::source(&error) {
        Some(source) => format!("{member}: {source}"),
        None => format!("{member}: {error}"),
    };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{member}")).map_err(wrong)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let Some(tls) = &config.tls else {
        return Ok(endpoint);
    };
    let authority = Certificate::from_pem(&tls.authority);
    let mut settings = ClientTlsConfig::new().ca_certificate(authority);
    if let Some((certificate, key)) = &tls.identity {
        settings = settings.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(settings).map_err(wrong)
}
