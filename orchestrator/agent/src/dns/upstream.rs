//! Asking other servers: by UDP from a port of its own for each question, by TCP what did not fit.
//!
//! The kernel gives each socket a random port and, since it is connected, only what comes from the server;
//! the number is random, and the question must be ours (RFC 5452).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::zone::Answer;

/// How long one server is waited for before the next is asked.
const TRY_TIMEOUT: Duration = Duration::from_millis(1200);
/// The servers are asked in turn that often. A client asks again after 5 s, so this ends before.
const ROUNDS: usize = 2;
const WHOLE_TIMEOUT: Duration = Duration::from_millis(4500);
/// A server that did not answer is asked after the others for so long.
const SHUNNED_FOR: Duration = Duration::from_secs(5);

const LARGEST_DATAGRAM: usize = 4096;

/// Other servers, and which of them did not answer lately.
#[derive(Debug, Default)]
pub struct Upstream {
    shunned: Mutex<BTreeMap<SocketAddr, Instant>>,
}

impl Upstream {
    /// The first good answer of the servers; `None`: none of them has one.
    pub async fn exchange(
        &self,
        servers: &[SocketAddr],
        message: &Message,
        question: &Query,
    ) -> Option<Answer> {
        let mut last = None;
        let all = async {
            for _ in 0..ROUNDS {
                for server in self.ordered(servers) {
                    let asked = timeout(TRY_TIMEOUT, one(server, message, question)).await;
                    match asked {
                        Ok(Ok(answer)) if is_final(answer.code) => {
                            self.forgive(server);
                            last = Some(answer);
                            return;
                        }
                        Ok(Ok(answer)) => last = Some(answer),
                        Ok(Err(error)) => {
                            tracing::debug!(%server, %error, "a name server cannot be asked");
                            self.shun(server);
                        }
                        Err(_) => {
                            tracing::debug!(%server, "a name server does not answer");
                            self.shun(server);
                        }
                    }
                }
            }
        };
        // What has come by then is taken.
        let _ = timeout(WHOLE_TIMEOUT, all).await;
        last
    }

    /// In the order given, but those last that did not answer lately.
    fn ordered(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let now = Instant::now();
        let mut shunned = self.lock();
        shunned.retain(|_, until| *until > now);
        let (bad, mut good): (Vec<_>, Vec<_>) =
            servers.iter().partition(|it| shunned.contains_key(*it));
        good.extend(bad);
        good
    }

    fn shun(&self, server: SocketAddr) {
        self.lock().insert(server, Instant::now() + SHUNNED_FOR);
    }

    fn forgive(&self, server: SocketAddr) {
        self.lock().remove(&server);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Instant>> {
        // Every change is one step.
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another server knows no better.
fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// Asks one server.
async fn one(server: SocketAddr, message: &Message, question: &Query) -> io::Result<Answer> {
    let (number, _) = uuid::Uuid::new_v4().as_u64_pair();
    let mut message = message.clone();
    message.metadata.id = (number >> 48) as u16;
    let id = message.metadata.id;
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let answer = by_udp(server, &bytes, id, question).await?;
    let answer = match answer.metadata.truncation {
        true => by_tcp(server, &bytes, id, question).await?,
        false => answer,
    };
    Ok(Answer {
        code: answer.metadata.response_code,
        authoritative: false,
        answers: answer.answers,
        authorities: answer.authorities,
        additionals: answer.additionals,
        chase: None,
    })
}

async fn by_udp(
    server: SocketAddr,
    bytes: &[u8],
    id: u16,
    question: &Query,
) -> io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is not the answer may be somebody's attempt: the answer is waited for.
        if let Some(message) = matching(&buffer[..length], id, question) {
            return Ok(message);
        }
    }
}

async fn by_tcp(
    server: SocketAddr,
    bytes: &[u8],
    id: u16,
    question: &Query,
) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&framed(bytes)?).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    let message = matching(&buffer, id, question);
    message.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "another question's answer"))
}

/// A message behind its length, as TCP carries it (RFC 1035, section 4.2.2).
pub fn framed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(bytes);
    Ok(framed)
}

/// The answer to a question of this number, if it is one.
pub fn matching(bytes: &[u8], id: u16, question: &Query) -> Option<Message> {
    let head = bytes.first_chunk::<2>()?;
    if u16::from_be_bytes(*head) != id {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let is_answer = message.metadata.message_type == MessageType::Response;
    (is_answer && message.queries == [question.clone()]).then_some(message)
}
