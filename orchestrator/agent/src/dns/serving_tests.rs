//! Over real sockets of the loopback device.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::hold::Pair;
use super::limits::CONNECTIONS;
use super::{Directory, Site, alone};
use datapath::{Addrs, ObjectKey};
use sys::Shutdown;

const WAIT: Duration = Duration::from_secs(5);

struct Served {
    directory: Directory,
    at: SocketAddr,
    shutdown: Shutdown,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// A resolver whose only clients are on the loopback device, with this upstream.
fn served(upstream: Option<SocketAddr>) -> Served {
    served_at(free_pair(), upstream)
}

fn served_at(pair: Pair, upstream: Option<SocketAddr>) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let at = pair.address().unwrap();
    let site = Site {
        node: "node-1".to_owned(),
        domain: "cluster.local".to_owned(),
        gateways: Addrs::default(),
        shares: vec!["127.0.0.0/8".parse().unwrap()],
        pods: Vec::new(),
        services: Vec::new(),
    };
    let servers = upstream.map(|it| json!([it.to_string()]).to_string());
    let config = servers.map(|it| ("upstreamNameservers".to_owned(), it));
    let config: BTreeMap<_, _> = config.into_iter().collect();
    let shutdown = Shutdown::new();
    let directory = {
        let _inside = runtime.enter();
        alone(site, &config, vec![pair], &shutdown).unwrap()
    };
    Served {
        directory,
        at,
        shutdown,
        _runtime: runtime,
    }
}

/// At a port that is free for both.
fn free_pair() -> Pair {
    std::iter::repeat_with(pair).find_map(Result::ok).unwrap()
}

fn pair() -> std::io::Result<Pair> {
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let at = udp.local_addr()?;
    drop(udp);
    Pair::open(at)
}

fn question(text: &str) -> Query {
    Query::query(Name::from_ascii(text).unwrap(), RecordType::A)
}

fn query(text: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.queries = vec![question(text)];
    message.to_vec().unwrap()
}

fn by_udp(at: SocketAddr, text: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.send_to(&query(text), at).unwrap();
    let mut buffer = [0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn by_tcp(stream: &mut TcpStream, text: &str) -> std::io::Result<Message> {
    stream.set_read_timeout(Some(WAIT))?;
    let query = query(text);
    stream.write_all(&u16::try_from(query.len()).unwrap().to_be_bytes())?;
    stream.write_all(&query)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut buffer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut buffer)?;
    Ok(Message::from_vec(&buffer).unwrap())
}

fn add(directory: &Directory, name: &str, addr: &str) {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name}, "spec": {"clusterIP": addr}}))
    .unwrap();
    directory.service(&ObjectKey::new("shop", name), Some(&service));
}

#[test]
fn a_change_is_answered_at_once_by_either_transport() {
    let served = served(None);
    let mut stream = TcpStream::connect(served.at).unwrap();
    for addr in ["10.96.0.7", "10.96.0.8"] {
        add(&served.directory, "web", addr);
        let expected = RData::A(A(addr.parse().unwrap()));
        let answer = by_udp(served.at, "web.shop.svc.cluster.local.");
        assert_eq!(answer.answers[0].data, expected);
        // One connection for both.
        let answer = by_tcp(&mut stream, "web.shop.svc.cluster.local.").unwrap();
        assert_eq!(answer.answers[0].data, expected);
    }
    served
        .directory
        .service(&ObjectKey::new("shop", "web"), None);
    let answer = by_udp(served.at, "web.shop.svc.cluster.local.");
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_client_has_so_many_connections_and_a_dead_one_gives_its_place_back() {
    let served = served(None);
    let connect = || TcpStream::connect(served.at).unwrap();
    let mut all: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect()).collect();
    // All of them have been accepted.
    assert!(
        all.iter_mut()
            .all(|it| by_tcp(it, "x.cluster.local.").is_ok())
    );
    assert!(by_tcp(&mut connect(), "x.cluster.local.").is_err());
    all.clear();
    let started = Instant::now();
    while by_tcp(&mut connect(), "x.cluster.local.").is_err() {
        assert!(started.elapsed() < WAIT, "no place was given back");
    }
}

/// Another name server: what it answers to each query that comes, by UDP and by TCP.
fn upstream(
    answer: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Clone + Send + 'static,
) -> SocketAddr {
    let pair = free_pair();
    let at = pair.address().unwrap();
    pair.udp.set_nonblocking(false).unwrap();
    pair.tcp.set_nonblocking(false).unwrap();
    let by_tcp = answer.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = pair.udp.recv_from(&mut buffer) {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            for bytes in answer(&asked, true) {
                pair.udp.send_to(&bytes, from).unwrap();
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = pair.tcp.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut buffer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut buffer).unwrap();
            let asked = Message::from_vec(&buffer).unwrap();
            for bytes in by_tcp(&asked, false) {
                let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &bytes].concat()).unwrap();
            }
        }
    });
    at
}

/// An answer to a query, with an address.
fn answer_to(asked: &Message, addr: [u8; 4]) -> Message {
    let mut message = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    message.queries = asked.queries.clone();
    let name = asked.queries[0].name().clone();
    message.add_answer(Record::from_rdata(name, 60, RData::A(A(addr.into()))));
    message
}

const TRUE: [u8; 4] = [192, 0, 2, 1];
const FALSE: [u8; 4] = [203, 0, 113, 1];

#[test]
fn a_forged_answer_is_passed_over_and_a_cut_one_asked_for_by_tcp() {
    let upstream = upstream(|asked, udp| {
        let mut forged = answer_to(asked, FALSE);
        forged.metadata.id ^= 1;
        let mut other = answer_to(asked, FALSE);
        other.queries = vec![question("other.example.")];
        let mut real = answer_to(asked, TRUE);
        if udp {
            real.answers.clear();
            real.metadata.truncation = true;
            let all = [forged, other, real].map(|it| it.to_vec().unwrap());
            return [vec![0; 3]].into_iter().chain(all).collect();
        }
        vec![real.to_vec().unwrap()]
    });
    let served = served(Some(upstream));
    let answer = by_udp(served.at, "a.example.");
    assert_eq!(answer.answers[0].data, RData::A(A(TRUE.into())));
    assert!(!answer.metadata.authoritative);
}

#[test]
fn many_who_ask_the_same_ask_once_and_the_answer_is_kept() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = upstream(move |asked, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        // Long enough for all of them to come by.
        thread::sleep(Duration::from_millis(200));
        vec![answer_to(asked, TRUE).to_vec().unwrap()]
    });
    let served = served(Some(upstream));
    let at = served.at;
    let askers: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || by_udp(at, "b.example.")))
        .collect();
    for asker in askers {
        assert_eq!(asker.join().unwrap().answers.len(), 1);
    }
    assert_eq!(by_udp(at, "B.example.").answers.len(), 1);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn without_another_server_a_foreign_name_fails_at_once() {
    let served = served(None);
    let started = Instant::now();
    let answer = by_udp(served.at, "c.example.");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < WAIT);
}

#[test]
fn a_resolver_that_is_its_own_upstream_answers_that_it_failed() {
    let pair = free_pair();
    let at = pair.address().unwrap();
    let served = served_at(pair, Some(at));
    let answer = by_udp(served.at, "d.example.");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}
