//! From objects to the bytes of an answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::cache::{Cache, Key};
use super::config::{self, Config};
use super::index::Index;
use super::limits::{Limits, QUERIES, QUESTIONS};
use super::message::{self, Asked, PAYLOAD, Read, Transport};
use super::numbers::Numbers;
use super::resolver::{Resolver, Step};
use super::rows::{ServiceRow, SliceRow};
use super::upstream::matching;
use super::zone::{Answer, Zone};
use super::{Directory, Site};
use datapath::ObjectKey;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn zone() -> Zone {
    let ranges = |listed: [&str; 2]| listed.map(|range| range.parse().unwrap()).to_vec();
    Zone {
        domain: name("cluster.local."),
        pods: ranges(["10.100.0.0/16", "fd00:100::/48"]),
        services: ranges(["10.96.0.0/16", "fd00:96::/112"]),
    }
}

fn put(index: &mut Index, key: &str, spec: Value) {
    let (namespace, name) = key.split_once('/').unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name}, "spec": spec}))
    .unwrap();
    index.service(
        ObjectKey::new(namespace, name),
        ServiceRow::from_object(&service),
    );
}

fn put_slice(index: &mut Index, key: &str, of: &str, family: &str, endpoints: Value) {
    let (namespace, name) = key.split_once('/').unwrap();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name,
            "labels": {"kubernetes.io/service-name": of}},
        "addressType": family, "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
    .unwrap();
    index.slice(
        ObjectKey::new(namespace, name),
        SliceRow::from_object(&slice),
    );
}

/// Services of every kind.
fn index() -> Index {
    let mut index = Index::default();
    let dns = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"],
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
    put(&mut index, "kube-system/kube-dns", dns);
    let web = json!({"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7", "fd00:96::7"],
        "ports": [{"name": "http", "port": 80}, {"port": 81}]});
    put(&mut index, "shop/web", web);
    let db = json!({"clusterIP": "None", "clusterIPs": ["None"],
        "ports": [{"name": "http", "port": 80}]});
    put(&mut index, "shop/db", db);
    put_slice(
        &mut index,
        "shop/db-4",
        "db",
        "IPv4",
        json!([
        {"addresses": ["10.100.1.5"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.100.2.5"], "hostname": "db-1", "conditions": {"ready": false}},
        {"addresses": ["10.100.3.5"]}]),
    );
    put_slice(
        &mut index,
        "shop/db-6",
        "db",
        "IPv6",
        json!([
        {"addresses": ["fd00:100:0:1::5"], "hostname": "db-0"}]),
    );
    let away = json!({"type": "ExternalName", "externalName": "DB.example.com"});
    put(&mut index, "shop/away", away);
    let near = json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"});
    put(&mut index, "shop/near", near);
    put(
        &mut index,
        "shop/round",
        json!({"type": "ExternalName",
        "externalName": "round.shop.svc.cluster.local"}),
    );
    put(&mut index, "shop/idle", json!({"clusterIP": "None"}));
    index
}

fn kind(text: &str) -> RecordType {
    text.parse().unwrap()
}

/// `CODE records`, as dig's short form has them, in order.
fn ask_of(index: &Index, question: &str, of: &str) -> String {
    let question = Query::query(name(question), kind(of));
    match zone().answer(index, &question, 0) {
        None => "elsewhere".to_owned(),
        Some(answer) => shown(&answer),
    }
}

fn shown(answer: &Answer) -> String {
    let mut records: Vec<String> = answer
        .answers
        .iter()
        .map(|it| it.data.to_string())
        .collect();
    records.sort_unstable();
    let code = match answer.code {
        ResponseCode::NoError if records.is_empty() => "NODATA",
        ResponseCode::NoError => "",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        _ => "other",
    };
    let words = [code.to_owned()].into_iter().chain(records);
    words
        .filter(|it| !it.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn names_have_the_records_that_the_specification_says() {
    let index = index();
    let svc = "shop.svc.cluster.local.";
    let cases = [
        ("web", "A", "10.96.7.7"),
        ("web", "AAAA", "fd00:96::7"),
        ("WEB", "A", "10.96.7.7"),
        ("web", "MX", "NODATA"),
        ("nobody", "A", "NXDOMAIN"),
        (
            "_http._tcp.web",
            "SRV",
            "0 100 80 web.shop.svc.cluster.local.",
        ),
        ("_http._udp.web", "SRV", "NXDOMAIN"),
        ("_tcp.web", "A", "NODATA"),
        ("_udp.web", "A", "NXDOMAIN"),
        ("web", "SRV", "0 100 80 web.shop.svc.cluster.local."),
        ("db", "A", "10.100.1.5 10.100.3.5"),
        ("db", "AAAA", "fd00:100:0:1::5"),
        ("db-0.db", "A", "10.100.1.5"),
        ("db-0.db", "AAAA", "fd00:100:0:1::5"),
        ("db-1.db", "A", "NXDOMAIN"),
        ("10-100-3-5.db", "A", "10.100.3.5"),
        ("10-100-1-5.db", "A", "NXDOMAIN"),
        (
            "_http._tcp.db",
            "SRV",
            "0 100 8080 10-100-3-5.db.shop.svc.cluster.local. \
            0 100 8080 db-0.db.shop.svc.cluster.local.",
        ),
        ("10-96-7-7.web", "A", "NXDOMAIN"),
        ("idle", "A", "NXDOMAIN"),
        ("away", "CNAME", "DB.example.com."),
        ("away", "A", "DB.example.com."),
        ("below.away", "A", "NXDOMAIN"),
    ];
    for (question, of, expected) in cases {
        let found = ask_of(&index, &format!("{question}.{svc}"), of);
        assert_eq!(found, expected, "{question} {of}");
    }
}

#[test]
fn names_above_services_and_of_pods_exist_without_records_of_their_own() {
    let index = index();
    let cases = [
        ("svc.cluster.local.", "A", "NODATA"),
        ("shop.svc.cluster.local.", "A", "NODATA"),
        ("nowhere.svc.cluster.local.", "A", "NXDOMAIN"),
        ("shop.pod.cluster.local.", "A", "NODATA"),
        ("10-100-1-9.shop.pod.cluster.local.", "A", "10.100.1.9"),
        (
            "fd00-100-0-1--9.shop.pod.cluster.local.",
            "AAAA",
            "fd00:100:0:1::9",
        ),
        ("10-100-1-9.shop.pod.cluster.local.", "AAAA", "NODATA"),
        ("192-0-2-1.shop.pod.cluster.local.", "A", "NXDOMAIN"),
        ("cluster.local.", "NS", "ns.dns.cluster.local."),
        ("ns.dns.cluster.local.", "A", "10.96.0.10"),
        ("dns-version.cluster.local.", "TXT", "1.1.0"),
        ("example.com.", "A", "elsewhere"),
        ("xcluster.local.", "A", "elsewhere"),
    ];
    for (question, of, expected) in cases {
        assert_eq!(ask_of(&index, question, of), expected, "{question} {of}");
    }
}

#[test]
fn addresses_lead_back_to_names_and_those_of_the_clusters_ranges_to_no_other_server() {
    let index = index();
    let ptr = |text: &str| {
        let addr: IpAddr = text.parse().unwrap();
        ask_of(&index, &Name::from(addr).to_ascii(), "PTR")
    };
    assert_eq!(ptr("10.96.7.7"), "web.shop.svc.cluster.local.");
    assert_eq!(ptr("fd00:96::7"), "web.shop.svc.cluster.local.");
    assert_eq!(ptr("10.100.1.5"), "db-0.db.shop.svc.cluster.local.");
    assert_eq!(ptr("10.100.3.5"), "10-100-3-5.db.shop.svc.cluster.local.");
    assert_eq!(ptr("10.100.2.5"), "NXDOMAIN");
    assert_eq!(ptr("10.96.9.9"), "NXDOMAIN");
    assert_eq!(ptr("192.0.2.1"), "elsewhere");
    let denied = Query::query(name("9.9.96.10.in-addr.arpa."), RecordType::PTR);
    let denied = zone().answer(&index, &denied, 0).unwrap();
    assert_eq!(denied.authorities[0].name, name("96.10.in-addr.arpa."));
}

#[test]
fn a_denial_shows_for_how_long_it_holds() {
    let index = index();
    for (question, code) in [
        ("nobody.shop.svc.cluster.local.", ResponseCode::NXDomain),
        ("shop.svc.cluster.local.", ResponseCode::NoError),
    ] {
        let question = Query::query(name(question), RecordType::A);
        let answer = zone().answer(&index, &question, 0).unwrap();
        assert_eq!(answer.code, code);
        let [
            Record {
                name: apex,
                ttl: 5,
                data: RData::SOA(SOA { minimum: 5, .. }),
                ..
            },
        ] = &answer.authorities[..]
        else {
            panic!("{:?}", answer.authorities);
        };
        assert_eq!(apex, &name("cluster.local."));
    }
}

#[test]
fn what_is_gone_or_has_become_another_has_no_old_records() {
    let mut index = index();
    let key = |name| ObjectKey::new("shop", name);
    index.slice(key("db-4"), None);
    assert_eq!(ask_of(&index, "db.shop.svc.cluster.local.", "A"), "NODATA");
    assert_eq!(index.members("10.100.1.5".parse().unwrap()).count(), 0);
    // A Service that gets an address: its endpoints have no names any more.
    put(&mut index, "shop/db", json!({"clusterIP": "10.96.8.8"}));
    assert_eq!(
        ask_of(&index, "db.shop.svc.cluster.local.", "A"),
        "10.96.8.8"
    );
    assert_eq!(index.members("fd00:100:0:1::5".parse().unwrap()).count(), 0);
    // A slice that was there before its Service.
    put_slice(
        &mut index,
        "late/x",
        "late",
        "IPv4",
        json!([{"addresses": ["10.100.1.7"]}]),
    );
    put(&mut index, "late/late", json!({"clusterIP": "None"}));
    assert_eq!(
        ask_of(&index, "late.late.svc.cluster.local.", "A"),
        "10.100.1.7"
    );
    assert_eq!(index.members("10.100.1.7".parse().unwrap()).count(), 1);
    index.service(key("web"), None);
    assert_eq!(
        ask_of(&index, "web.shop.svc.cluster.local.", "A"),
        "NXDOMAIN"
    );
    assert_eq!(index.owners("10.96.7.7".parse().unwrap()).count(), 0);
}

#[test]
fn several_addresses_take_turns() {
    let mut index = Index::default();
    put(&mut index, "shop/db", json!({"clusterIP": "None"}));
    let endpoints: Vec<Value> = (0..4)
        .map(|it| json!({"addresses": [format!("10.100.1.{it}")]}))
        .collect();
    put_slice(&mut index, "shop/x", "db", "IPv4", json!(endpoints));
    let question = Query::query(name("db.shop.svc.cluster.local."), RecordType::A);
    let first = |turn| {
        zone().answer(&index, &question, turn).unwrap().answers[0]
            .data
            .to_string()
    };
    let firsts: Vec<String> = (0..5).map(first).collect();
    assert_eq!(
        firsts,
        [
            "10.100.1.0",
            "10.100.1.1",
            "10.100.1.2",
            "10.100.1.3",
            "10.100.1.0"
        ]
    );
}

/// The bytes of a query.
fn query(question: &str, of: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries = vec![Query::query(name(question), of)];
    message.edns = payload.map(|payload| {
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(payload);
        edns
    });
    message.to_vec().unwrap()
}

fn asked(bytes: &[u8]) -> Asked {
    match message::read(bytes) {
        Read::Asked(asked) => *asked,
        other => panic!("{other:?}"),
    }
}

fn resolver(index: Index) -> Arc<Resolver> {
    let clients = vec!["10.100.1.0/24".parse().unwrap()];
    let resolver = Resolver::new(zone(), clients, Numbers::default());
    resolver.change(|held| *held = index);
    resolver.set_complete(true);
    Arc::new(resolver)
}

fn done(resolver: &Resolver, asked: &Asked) -> Answer {
    match resolver.at_once(asked) {
        Step::Done(answer) => answer,
        Step::Ask(_, question) => panic!("another server is asked: {question}"),
    }
}

#[test]
fn the_name_comes_back_as_it_was_asked() {
    let bytes = query("wEb.ShOp.SvC.cLuStEr.LoCaL.", RecordType::A, None);
    let asked = asked(&bytes);
    let answer = done(&resolver(index()), &asked);
    let bytes = asked.answer(answer, Transport::Udp).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("wEb") && text.contains("cLuStEr"), "{text}");
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 0x1234);
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert_eq!(message.answers[0].data, RData::A(A([10, 96, 7, 7].into())));
    assert_eq!(message.answers[0].ttl, 5);
}

#[test]
fn a_datagram_holds_what_its_client_takes_and_says_what_is_missing() {
    let mut index = Index::default();
    put(&mut index, "shop/db", json!({"clusterIP": "None"}));
    let endpoints: Vec<Value> = (0..200)
        .map(|it| json!({"addresses": [format!("10.100.1.{it}")]}))
        .collect();
    put_slice(&mut index, "shop/x", "db", "IPv4", json!(endpoints));
    let resolver = resolver(index);
    for (payload, transport, most, whole) in [
        (None, Transport::Udp, 512, false),
        (Some(100), Transport::Udp, 512, false),
        (Some(4096), Transport::Udp, usize::from(PAYLOAD), false),
        (None, Transport::Tcp, 65_535, true),
    ] {
        let asked = asked(&query("db.shop.svc.cluster.local.", RecordType::A, payload));
        let bytes = asked.answer(done(&resolver, &asked), transport).unwrap();
        assert!(bytes.len() <= most, "{} > {most}", bytes.len());
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.truncation, !whole);
        assert_eq!(message.edns.is_some(), payload.is_some());
        assert_eq!(message.answers.len() == 200, whole);
        // Some are there, for clients that do not ask again.
        assert!(message.answers.len() > 20, "{}", message.answers.len());
    }
}

#[test]
fn what_is_no_query_or_cannot_be_answered_is_told_apart() {
    let good = query("web.shop.svc.cluster.local.", RecordType::A, Some(1232));
    let code = |bytes: &[u8]| match message::read(bytes) {
        Read::Asked(_) => "asked".to_owned(),
        Read::Ignored => "ignored".to_owned(),
        Read::Refused(bytes) => {
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!(message.metadata.message_type, MessageType::Response);
            assert_eq!(message.metadata.id, 0x1234);
            format!("{:?}", message.metadata.response_code)
        }
    };
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    assert_eq!(code(&good), "asked");
    assert_eq!(code(&good[..11]), "ignored");
    assert_eq!(code(&changed(2, 0x81)), "ignored");
    assert_eq!(code(&changed(2, 0x29)), "NotImp");
    assert_eq!(code(&changed(5, 0)), "FormErr");
    assert_eq!(code(&changed(5, 2)), "FormErr");
    assert_eq!(code(&changed(7, 1)), "FormErr");
    assert_eq!(code(&changed(12, 0xc0)), "FormErr");
    assert_eq!(code(&good[..20]), "FormErr");
    assert_eq!(
        code(&query("cluster.local.", RecordType::AXFR, None)),
        "Refused"
    );
    // BADVERS has the number of BADSIG. The version of EDNS is behind the root's name, the type, the class and the upper code.
    let version = good.len() - 5;
    assert_eq!(code(&changed(version, 1)), "BADSIG");
}

#[test]
fn aliases_are_followed_here_and_never_round_and_round() {
    let resolver = resolver(index());
    let near = asked(&query("near.shop.svc.cluster.local.", RecordType::A, None));
    let answer = done(&resolver, &near);
    assert_eq!(shown(&answer), "10.96.7.7 web.shop.svc.cluster.local.");
    let round = asked(&query("round.shop.svc.cluster.local.", RecordType::A, None));
    assert_eq!(shown(&done(&resolver, &round)), "SERVFAIL");
    let away = asked(&query("away.shop.svc.cluster.local.", RecordType::A, None));
    let Step::Ask(led, question) = resolver.at_once(&away) else {
        panic!("nobody is asked");
    };
    assert_eq!(led.len(), 1);
    assert_eq!(question.name(), &name("db.example.com."));
}

#[test]
fn the_owners_hosts_come_before_other_servers() {
    let data = BTreeMap::from([(
        "hosts".to_owned(),
        "192.0.2.7 Printer.example.com printer # the old one\nnonsense here\n".to_owned(),
    )]);
    let (config, complaints) = Config::parse(&data);
    assert_eq!(
        complaints,
        ["hosts: line 2: \"nonsense\" is not an address"]
    );
    let resolver = resolver(index());
    resolver.configure(config);
    let printer = asked(&query("printer.Example.com.", RecordType::A, None));
    assert_eq!(shown(&done(&resolver, &printer)), "192.0.2.7");
    let v6 = asked(&query("printer.example.com.", RecordType::AAAA, None));
    assert_eq!(shown(&done(&resolver, &v6)), "NODATA");
    let back = asked(&query("7.2.0.192.in-addr.arpa.", RecordType::PTR, None));
    assert_eq!(
        shown(&done(&resolver, &back)),
        "printer. printer.example.com."
    );
}

#[test]
fn a_name_is_asked_of_the_servers_of_its_longest_domain() {
    let data = BTreeMap::from([
        (
            "stubDomains".to_owned(),
            r#"{"acme.local": ["192.0.2.1"], "eu.acme.local": ["[2001:db8::1]:5353"]}"#.to_owned(),
        ),
        (
            "upstreamNameservers".to_owned(),
            r#"["192.0.2.9:54"]"#.to_owned(),
        ),
        ("federations".to_owned(), "{}".to_owned()),
    ]);
    let (config, complaints) = Config::parse(&data);
    assert_eq!(complaints, ["federations: no such setting"]);
    let node = ["192.0.2.53:53".parse().unwrap()];
    let servers = |config: &Config, of: &str| config.servers(&name(of), &node)[0].to_string();
    assert_eq!(servers(&config, "a.acme.local."), "192.0.2.1:53");
    assert_eq!(servers(&config, "a.EU.acme.local."), "[2001:db8::1]:5353");
    assert_eq!(servers(&config, "example.com."), "192.0.2.9:54");
    assert_eq!(servers(&Config::default(), "example.com."), "192.0.2.53:53");
    let bad = BTreeMap::from([(
        "upstreamNameservers".to_owned(),
        "[\"dns.example\"]".to_owned(),
    )]);
    let (config, complaints) = Config::parse(&bad);
    assert_eq!(complaints.len(), 1);
    assert_eq!(servers(&config, "example.com."), "192.0.2.53:53");
}

#[test]
fn a_node_never_asks_itself() {
    let own = ["10.100.1.1", "10.96.0.10"].map(|it| it.parse().unwrap());
    let text = "nameserver 10.96.0.10\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
                #nameserver 192.0.2.54\nnameserver 10.100.1.1\n";
    let servers = config::node_servers(text, &own.into());
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[fe80::1]:53"]);
}

fn record(ttl: u32) -> Record {
    Record::from_rdata(name("a.example."), ttl, RData::A(A([192, 0, 2, 1].into())))
}

fn key(of: &str) -> Key {
    Key::new(&name(of), RecordType::A, false, false)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_answer_is_kept_for_its_time_and_says_what_is_left_of_it() {
    let mut cache = Cache::default();
    let answer = Arc::new(Answer::of_records(vec![record(60), record(20)]));
    cache.put(key("A.example."), answer, SECOND);
    let left = cache.get(&key("a.EXAMPLE."), SECOND * 6).unwrap();
    assert_eq!(
        left.answers.iter().map(|it| it.ttl).collect::<Vec<_>>(),
        [55, 15]
    );
    assert!(cache.get(&key("a.example."), SECOND * 21).is_none());
    let other = Key::new(&name("a.example."), RecordType::A, true, false);
    assert!(cache.get(&other, SECOND * 6).is_none());
}

#[test]
fn a_denial_is_kept_by_its_authority_and_a_failure_for_a_second() {
    let soa = |ttl, minimum| {
        let soa = SOA::new(name("ns."), name("host."), 1, 1, 1, 1, minimum);
        Record::from_rdata(name("example."), ttl, RData::SOA(soa))
    };
    let denial = |authorities| {
        Arc::new(Answer {
            authorities,
            ..Answer::of_code(ResponseCode::NXDomain)
        })
    };
    let mut cache = Cache::default();
    cache.put(key("short."), denial(vec![soa(900, 7)]), Duration::ZERO);
    cache.put(key("long."), denial(vec![soa(900, 900)]), Duration::ZERO);
    cache.put(key("bare."), denial(vec![]), Duration::ZERO);
    let failure = Arc::new(Answer::of_code(ResponseCode::ServFail));
    cache.put(key("failed."), failure, Duration::ZERO);
    let known = |cache: &Cache, at: u32| {
        ["short.", "long.", "bare.", "failed."].map(|of| cache.get(&key(of), SECOND * at).is_some())
    };
    assert_eq!(known(&cache, 0), [true, true, false, true]);
    assert_eq!(known(&cache, 6), [true, true, false, false]);
    assert_eq!(known(&cache, 8), [false, true, false, false]);
    assert_eq!(known(&cache, 31), [false; 4]);
}

#[test]
fn a_full_cache_lets_go_what_ends_first() {
    let mut cache = Cache::default();
    for number in 0..10_100_u32 {
        let answer = Arc::new(Answer::of_records(vec![record(100 + number % 3000)]));
        cache.put(key(&format!("n{number}.example.")), answer, Duration::ZERO);
    }
    assert_eq!(cache.held(), 10_000);
    assert!(cache.get(&key("n0.example."), Duration::ZERO).is_none());
    assert!(cache.get(&key("n2999.example."), Duration::ZERO).is_some());
}

#[test]
fn a_client_has_its_share_and_leaves_the_others_theirs() {
    let mut limits = Limits::default();
    let [loud, quiet]: [IpAddr; 2] = ["10.100.1.5", "10.100.1.6"].map(|it| it.parse().unwrap());
    let taken = (0..QUERIES * 2)
        .filter(|_| limits.query(loud, Duration::ZERO))
        .count();
    assert_eq!(taken, QUERIES as usize);
    assert!(limits.query(quiet, Duration::ZERO));
    let later = Duration::from_millis(100);
    let taken = (0..QUERIES).filter(|_| limits.query(loud, later)).count();
    assert_eq!(taken, QUERIES as usize / 10);
    let asked = (0..QUESTIONS * 2)
        .filter(|_| limits.ask(loud, later))
        .count();
    assert_eq!(asked, QUESTIONS as usize);
    assert!(limits.ask(quiet, later));
    limits.answered(loud);
    assert!(limits.ask(loud, later) && !limits.ask(loud, later));
}

#[test]
fn a_service_that_selects_pods_is_left_to_them() {
    let site = Site {
        node: "node-1".to_owned(),
        domain: "cluster.local".to_owned(),
        gateways: "10.100.1.1".parse().unwrap(),
        shares: Vec::new(),
        pods: Vec::new(),
        services: Vec::new(),
    };
    let directory = Directory::new(site, Numbers::default());
    let hear = |name: &str, spec: Value| {
        let service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        directory.service(&ObjectKey::new("kube-system", name), Some(&service));
        *directory.ours.borrow()
    };
    let selector = json!({"selector": {"k8s-app": "coredns"}});
    assert!(hear("kube-dns", json!({"selector": null})));
    assert!(hear("other", selector.clone()));
    assert!(!hear("kube-dns", selector));
    directory.service(&ObjectKey::new("kube-system", "kube-dns"), None);
    assert!(*directory.ours.borrow());
}

#[test]
fn nothing_is_denied_before_all_is_known() {
    let resolver = resolver(index());
    resolver.set_complete(false);
    let answer = |question: &str| {
        shown(&done(
            &resolver,
            &asked(&query(question, RecordType::A, None)),
        ))
    };
    assert_eq!(answer("nobody.shop.svc.cluster.local."), "SERVFAIL");
    assert_eq!(answer("web.shop.svc.cluster.local."), "10.96.7.7");
    resolver.set_complete(true);
    assert_eq!(answer("nobody.shop.svc.cluster.local."), "NXDOMAIN");
}

#[test]
fn only_pods_of_this_node_are_served() {
    let resolver = resolver(index());
    for (client, served) in [
        ("10.100.1.5", true),
        ("10.100.1.1", true),
        ("10.100.2.5", false),
        ("192.0.2.1", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(resolver.serves(client.parse().unwrap()), served, "{client}");
    }
}

#[test]
fn an_answer_to_another_question_or_of_another_number_is_none() {
    let question = Query::query(name("a.example."), RecordType::A);
    let answer = |id, question: &Query, kind| {
        let mut message = Message::new(id, kind, OpCode::Query);
        message.queries = vec![question.clone()];
        message.to_vec().unwrap()
    };
    let good = answer(
        7,
        &Query::query(name("A.Example."), RecordType::A),
        MessageType::Response,
    );
    assert!(matching(&good, 7, &question).is_some());
    assert!(matching(&good, 8, &question).is_none());
    assert!(matching(&good[..good.len() - 1], 7, &question).is_none());
    let query = answer(7, &question, MessageType::Query);
    assert!(matching(&query, 7, &question).is_none());
    let other = Query::query(name("b.example."), RecordType::A);
    assert!(matching(&answer(7, &other, MessageType::Response), 7, &question).is_none());
}
