//! The sockets at which a node's pods ask: UDP and TCP, at the node's addresses inside the overlay.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Asked, Read, Transport};
use super::numbers::Reason;
use super::queue::Queue;
use super::resolver::{Resolver, Step};
use super::upstream::framed;
use super::zone::Answer;
use hickory_proto::op::ResponseCode;
use sys::Shutdown;

/// A longer query is cut, and refused.
const LARGEST_QUERY: usize = 4096;
/// Queries that are taken out of the kernel's queue in one go, and answered before it is looked into again.
const TAKEN_AT_ONCE: usize = 1024;
const ANSWERED_AT_ONCE: usize = 16;
/// How long a connection may be silent, and an answer on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// After `accept` fails, which it does when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams until shutdown.
pub async fn datagrams(socket: UdpSocket, resolver: Arc<Resolver>, shutdown: Shutdown) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LARGEST_QUERY];
    let mut queue = Queue::default();
    while !shutdown.is_requested() {
        if queue.is_empty() {
            match shutdown.unless(socket.readable()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the socket of the cluster's DNS is not readable");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        take(&socket, &resolver, &mut buffer, &mut queue);
        let next = std::iter::from_fn(|| queue.pop());
        for (client, bytes) in next.take(ANSWERED_AT_ONCE) {
            datagram(&socket, &resolver, &bytes, client);
        }
        tokio::task::yield_now().await;
    }
    // What the kernel still has is the next agent's.
    while let Some((client, bytes)) = queue.pop() {
        datagram(&socket, &resolver, &bytes, client);
    }
}

/// Takes out of the kernel's queue what is there.
fn take(socket: &UdpSocket, resolver: &Resolver, buffer: &mut [u8], queue: &mut Queue) {
    for _ in 0..TAKEN_AT_ONCE {
        let (length, client) = match socket.try_recv_from(buffer) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return tracing::debug!(%error, "a query was not received"),
        };
        if let Err(reason) = admit(resolver, client) {
            resolver.numbers.dropped(reason);
        } else if !queue.push(client, &buffer[..length]) {
            resolver.numbers.dropped(Reason::Full);
        }
    }
}

/// One query; what must be asked of other servers is a task of its own.
fn datagram(socket: &Arc<UdpSocket>, resolver: &Arc<Resolver>, bytes: &[u8], client: SocketAddr) {
    let asked = match message::read(bytes) {
        Read::Ignored => return resolver.numbers.dropped(Reason::Malformed),
        Read::Refused(bytes) => return send(socket, resolver, &bytes, client),
        Read::Asked(asked) => asked,
    };
    let (led, question) = match resolver.at_once(&asked) {
        Step::Done(answer) => return reply(socket, resolver, &asked, answer, client),
        Step::Ask(led, question) => (led, question),
    };
    let Some(turn) = Turn::take(resolver, client) else {
        resolver.numbers.dropped(Reason::Full);
        let busy = Answer::of_code(ResponseCode::ServFail);
        return reply(socket, resolver, &asked, busy, client);
    };
    let socket = socket.clone();
    tokio::spawn(async move {
        let resolver = &turn.resolver;
        let answer = resolver.ask(&asked, led, question).await;
        reply(&socket, resolver, &asked, answer, client);
    });
}

fn reply(
    socket: &UdpSocket,
    resolver: &Resolver,
    asked: &Asked,
    answer: Answer,
    client: SocketAddr,
) {
    if let Some(bytes) = asked.answer(answer, Transport::Udp) {
        send(socket, resolver, &bytes, client);
    }
}

/// A client that takes no more asks again.
fn send(socket: &UdpSocket, resolver: &Resolver, bytes: &[u8], client: SocketAddr) {
    if socket.try_send_to(bytes, client).is_err() {
        resolver.numbers.dropped(Reason::Full);
    }
}

fn admit(resolver: &Resolver, client: SocketAddr) -> Result<(), Reason> {
    if !resolver.serves(client.ip()) {
        return Err(Reason::Stranger);
    }
    let now = resolver.now();
    match resolver.limits().query(client.ip(), now) {
        true => Ok(()),
        false => Err(Reason::Share),
    }
}

/// A client's right to have another server asked, until it is dropped.
struct Turn {
    resolver: Arc<Resolver>,
    client: SocketAddr,
}

impl Turn {
    fn take(resolver: &Arc<Resolver>, client: SocketAddr) -> Option<Self> {
        let now = resolver.now();
        let allowed = resolver.limits().ask(client.ip(), now);
        allowed.then(|| Self {
            resolver: resolver.clone(),
            client,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.resolver.limits().answered(self.client.ip());
    }
}

/// Answers connections until shutdown.
pub async fn connections(listener: TcpListener, resolver: Arc<Resolver>, shutdown: Shutdown) {
    while let Some(accepted) = shutdown.unless(listener.accept()).await {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection to the cluster's DNS was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&resolver, client) else {
            resolver.numbers.dropped(Reason::Full);
            continue;
        };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            if let Some(Err(error)) = shutdown.unless(connection(stream, &place)).await {
                tracing::trace!(%client, %error, "a connection to the cluster's DNS has ended");
            }
        });
    }
}

/// A client's connection, until it is dropped.
struct Place {
    resolver: Arc<Resolver>,
    client: SocketAddr,
}

impl Place {
    fn take(resolver: &Arc<Resolver>, client: SocketAddr) -> Option<Self> {
        let now = resolver.now();
        let allowed = resolver.serves(client.ip()) && resolver.limits().connect(client.ip(), now);
        allowed.then(|| Self {
            resolver: resolver.clone(),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.resolver.limits().disconnected(self.client.ip());
    }
}

/// Query by query: the next one is read when the last one is answered.
async fn connection(mut stream: TcpStream, place: &Place) -> io::Result<()> {
    let resolver = &place.resolver;
    stream.set_nodelay(true)?;
    loop {
        let length = timeout(IDLE_TIMEOUT, stream.read_u16()).await??;
        if usize::from(length) > LARGEST_QUERY {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length.into()];
        timeout(IDLE_TIMEOUT, stream.read_exact(&mut bytes)).await??;
        if let Err(reason) = admit(resolver, place.client) {
            resolver.numbers.dropped(reason);
            return Err(ErrorKind::ResourceBusy.into());
        }
        let bytes = match message::read(&bytes) {
            Read::Ignored => {
                resolver.numbers.dropped(Reason::Malformed);
                return Err(ErrorKind::InvalidData.into());
            }
            Read::Refused(bytes) => Some(bytes),
            Read::Asked(asked) => {
                let answer = answer(resolver, &asked, place.client).await;
                asked.answer(answer, Transport::Tcp)
            }
        };
        let bytes = framed(&bytes.ok_or(ErrorKind::InvalidData)?)?;
        timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await??;
    }
}

async fn answer(resolver: &Arc<Resolver>, asked: &Asked, client: SocketAddr) -> Answer {
    let (led, question) = match resolver.at_once(asked) {
        Step::Done(answer) => return answer,
        Step::Ask(led, question) => (led, question),
    };
    match Turn::take(resolver, client) {
        Some(turn) => turn.resolver.ask(asked, led, question).await,
        None => {
            resolver.numbers.dropped(Reason::Full);
            Answer::of_code(ResponseCode::ServFail)
        }
    }
}
