//! The cluster's zone: what each of its names has (Kubernetes DNS-Based Service Discovery, version 1.1.0).
//! Pure.
//!
//! The zone is `<domain>` and the reverse names of the ranges of pods and Services. It answers for all of
//! them: a name in there that nobody has is denied here and is asked of no other server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath::ObjectKey;
use datapath::view::Protocol;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnetwork::IpNetwork;

use super::SERVICE;
use super::index::Index;
use super::rows::{Port, ServiceRow, SliceRow, Target};

/// How long an answer may be kept, in seconds; CoreDNS' default for the same names.
pub const TTL: u32 = 5;

/// Records of one answer. More endpoints share it in turn.
const MAX_RECORDS: usize = 1024;

/// The version of the specification above.
const VERSION: &str = "1.1.0";

/// What the zone is made of besides objects.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Usually `cluster.local.`
    pub domain: Name,
    /// The cluster's ranges of pods.
    pub pods: Vec<IpNetwork>,
    /// The cluster's ranges of Services.
    pub services: Vec<IpNetwork>,
}

/// What a message answers a question with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: ResponseCode,
    pub authoritative: bool,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    /// The question goes on with this name.
    pub chase: Option<Name>,
}

impl Answer {
    pub fn of_code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            chase: None,
        }
    }

    /// Records, or what says that the name has none of the type.
    pub fn of_records(answers: Vec<Record>) -> Self {
        Self {
            authoritative: true,
            answers,
            ..Self::of_code(ResponseCode::NoError)
        }
    }
}

/// What a name of the zone is.
enum Node<'a> {
    Absent,
    /// It has names below it and nothing itself (RFC 8020).
    Empty,
    Apex,
    NameServer,
    Version,
    Service(ObjectKey, &'a ServiceRow),
    /// An endpoint of a headless Service, or a pod by its address.
    Host(Vec<IpAddr>),
    Port {
        service: ObjectKey,
        row: &'a ServiceRow,
        /// `None`: every port that has a name.
        port: Option<(&'a str, Protocol)>,
    },
}

impl Zone {
    /// The answer to a question about a name of the zone; `None`: it is another one's. `turn` says which of
    /// several records comes first.
    pub fn answer(&self, index: &Index, question: &Query, turn: u32) -> Option<Answer> {
        let name = question.name();
        if !self.domain.zone_of(name) {
            return self.reverse(index, question);
        }
        let lower = name.to_lowercase();
        let depth = usize::from(lower.num_labels() - self.domain.num_labels());
        let labels: Option<Vec<&str>> = lower
            .iter()
            .take(depth)
            .map(|label| std::str::from_utf8(label).ok())
            .collect();
        let mut labels = labels.unwrap_or_else(|| vec![""; depth]);
        labels.reverse();
        let node = self.find(index, &labels);
        let mut answer = self.records(index, &node, question);
        if !answer.answers.is_empty() {
            let turn = turn as usize % answer.answers.len();
            answer.answers.rotate_left(turn);
        } else if answer.code == ResponseCode::NoError || answer.code == ResponseCode::NXDomain {
            answer.authorities = vec![self.soa(&self.domain, index)];
        }
        Some(answer)
    }

    /// The authority over a name of the zone, or of its reverse names: what denials show.
    fn soa(&self, apex: &Name, index: &Index) -> Record {
        let below = |labels: &str| {
            Name::from_ascii(labels)
                .and_then(|name| name.append_domain(&self.domain))
                .unwrap_or_default()
        };
        // Its last number is how long a denial may be kept (RFC 2308, section 4).
        let soa = SOA::new(
            below("ns.dns"),
            below("hostmaster"),
            index.serial(),
            7200,
            1800,
            86400,
            TTL,
        );
        Record::from_rdata(apex.clone(), TTL, RData::SOA(soa))
    }

    /// `labels` begin with the one next to the domain.
    fn find<'a>(&self, index: &'a Index, labels: &[&'a str]) -> Node<'a> {
        match *labels {
            [] => Node::Apex,
            ["dns" | "svc" | "pod"] => Node::Empty,
            ["dns", "ns"] => Node::NameServer,
            ["dns-version"] => Node::Version,
            ["svc", namespace] if index.has_namespace(namespace) => Node::Empty,
            ["svc", namespace, name, ref below @ ..] => {
                let key = ObjectKey::new(namespace, name);
                match index.get(&key) {
                    Some(row) if is_there(index, &key, row) => {
                        below_service(index, key, row, below)
                    }
                    _ => Node::Absent,
                }
            }
            // Whether the namespace is there is not looked at: it has this name by its pods.
            ["pod", _] => Node::Empty,
            ["pod", _, host] => match address(host).filter(|addr| within(&self.pods, *addr)) {
                Some(addr) => Node::Host(vec![addr]),
                None => Node::Absent,
            },
            _ => Node::Absent,
        }
    }

    fn records(&self, index: &Index, node: &Node<'_>, question: &Query) -> Answer {
        let (name, kind) = (question.name(), question.query_type());
        let one = |wanted, data| match kind == wanted || kind == RecordType::ANY {
            true => vec![Record::from_rdata(name.clone(), TTL, data)],
            false => Vec::new(),
        };
        match node {
            Node::Absent => Answer {
                authoritative: true,
                ..Answer::of_code(ResponseCode::NXDomain)
            },
            Node::Empty => Answer::of_records(Vec::new()),
            Node::Apex => match kind {
                RecordType::SOA => Answer::of_records(vec![self.soa(name, index)]),
                RecordType::NS => Answer {
                    additionals: hosts(&self.name_server(), servers(index), RecordType::ANY),
                    ..Answer::of_records(one(kind, RData::NS(NS(self.name_server()))))
                },
                _ => Answer::of_records(Vec::new()),
            },
            Node::NameServer => Answer::of_records(hosts(name, servers(index), kind)),
            Node::Version => {
                let text = TXT::new(vec![VERSION.to_owned()]);
                Answer::of_records(one(RecordType::TXT, RData::TXT(text)))
            }
            Node::Host(addrs) => Answer::of_records(hosts(name, addrs, kind)),
            Node::Port { service, row, port } => match kind {
                RecordType::SRV | RecordType::ANY => self.srv(index, service, row, *port, question),
                _ => Answer::of_records(Vec::new()),
            },
            Node::Service(key, row) if kind == RecordType::SRV => {
                self.srv(index, key, row, None, question)
            }
            Node::Service(key, row) => match &row.target {
                Target::Addresses(addrs) => Answer::of_records(hosts(name, addrs, kind)),
                Target::Endpoints => {
                    let ready = index.slices(key).flat_map(SliceRow::ready);
                    let addrs: BTreeSet<IpAddr> = ready.map(|(addr, _)| addr).collect();
                    Answer::of_records(hosts(name, &addrs, kind))
                }
                Target::Name(target) => alias(name, target, kind),
            },
        }
    }

    fn name_server(&self) -> Name {
        let name = Name::from_ascii("ns.dns").and_then(|name| name.append_domain(&self.domain));
        name.unwrap_or_default()
    }

    fn srv(
        &self,
        index: &Index,
        key: &ObjectKey,
        row: &ServiceRow,
        port: Option<(&str, Protocol)>,
        question: &Query,
    ) -> Answer {
        let is_wanted = |it: &Port| match port {
            Some((name, protocol)) => *it.name == *name && it.protocol == protocol,
            None => !it.name.is_empty(),
        };
        let Some(service) = self.service_name(key) else {
            return Answer::of_records(Vec::new());
        };
        // Where to go, and what is there; each once, though a host may be in slices of both families.
        let mut targets: BTreeSet<(Name, u16)> = BTreeSet::new();
        let mut found: BTreeSet<(Name, IpAddr)> = BTreeSet::new();
        match &row.target {
            Target::Name(name) => return alias(question.name(), name, question.query_type()),
            Target::Addresses(addrs) => {
                let ports = row.ports.iter().filter(|port| is_wanted(port));
                targets.extend(ports.map(|port| (service.clone(), port.port)));
                found.extend(addrs.iter().map(|addr| (service.clone(), *addr)));
            }
            Target::Endpoints => {
                for slice in index.slices(key) {
                    for (addr, host) in slice.ready() {
                        if targets.len() >= MAX_RECORDS {
                            break;
                        }
                        let label = host.map_or_else(|| dashed(addr), str::to_owned);
                        let Ok(target) = service.prepend_label(label.as_str()) else {
                            continue;
                        };
                        let ports = slice.ports.iter().filter(|port| is_wanted(port));
                        targets.extend(ports.map(|port| (target.clone(), port.port)));
                        found.insert((target, addr));
                    }
                }
            }
        }
        let records = targets.into_iter().map(|(target, port)| {
            let srv = SRV::new(0, 100, port, target);
            Record::from_rdata(question.name().clone(), TTL, RData::SRV(srv))
        });
        let answers: Vec<Record> = records.collect();
        let additionals = found.iter().filter(|_| !answers.is_empty());
        Answer {
            additionals: additionals.map(|(name, addr)| host(name, *addr)).collect(),
            ..Answer::of_records(answers)
        }
    }

    fn service_name(&self, key: &ObjectKey) -> Option<Name> {
        let labels = [key.name(), key.namespace(), "svc"];
        let name = Name::from_labels(labels.map(str::as_bytes)).ok()?;
        // As a name below another one, it has no end of its own.
        let mut name = name;
        name.set_fqdn(false);
        name.append_domain(&self.domain).ok()
    }

    /// The names of an address.
    fn reverse(&self, index: &Index, question: &Query) -> Option<Answer> {
        let net = question.name().parse_arpa_name().ok()?;
        if net.prefix_len() != net.max_prefix_len() {
            return None;
        }
        let addr = net.addr();
        let mut names = Vec::new();
        for key in index.owners(addr) {
            names.extend(self.service_name(key));
        }
        for slice in index.members(addr).take(MAX_RECORDS) {
            let Some(service) = self.service_name(&slice.service) else {
                continue;
            };
            for (_, host) in slice.ready().filter(|(of, _)| *of == addr) {
                let label = host.map_or_else(|| dashed(addr), str::to_owned);
                names.extend(service.prepend_label(label.as_str()));
            }
        }
        names.sort_unstable();
        names.dedup();
        let mut ranges = self.pods.iter().chain(&self.services);
        let range = ranges.find(|range| range.contains(addr));
        if names.is_empty() && range.is_none() {
            return None;
        }
        if names.is_empty() || !matches!(question.query_type(), RecordType::PTR | RecordType::ANY) {
            let code = match names.is_empty() {
                true => ResponseCode::NXDomain,
                false => ResponseCode::NoError,
            };
            let apex = range.map_or_else(|| question.name().clone(), |it| apex(it, question));
            return Some(Answer {
                authoritative: true,
                authorities: vec![self.soa(&apex, index)],
                ..Answer::of_code(code)
            });
        }
        let records = names
            .into_iter()
            .map(|name| Record::from_rdata(question.name().clone(), TTL, RData::PTR(PTR(name))));
        Some(Answer::of_records(records.collect()))
    }
}

/// Where names are asked for.
fn servers(index: &Index) -> &[IpAddr] {
    index.addresses(&ObjectKey::new(SERVICE.0, SERVICE.1))
}

/// The name of the reverse zone of a range: the labels that all its addresses share.
fn apex(range: &IpNetwork, question: &Query) -> Name {
    let labels = match range {
        IpNetwork::V4(range) => range.prefix() / 8,
        IpNetwork::V6(range) => range.prefix() / 4,
    };
    question.name().trim_to(usize::from(labels) + 2)
}

/// A headless Service has its names while an endpoint of it is ready (section 2.4.1 of the specification).
fn is_there(index: &Index, key: &ObjectKey, row: &ServiceRow) -> bool {
    let mut slices = index.slices(key);
    row.target != Target::Endpoints || slices.any(|slice| slice.ready().next().is_some())
}

/// A name below a Service's.
fn below_service<'a>(
    index: &'a Index,
    key: ObjectKey,
    row: &'a ServiceRow,
    labels: &[&'a str],
) -> Node<'a> {
    let is_alias = matches!(row.target, Target::Name(_));
    match *labels {
        [] => Node::Service(key, row),
        _ if is_alias => Node::Absent,
        [label] if label.starts_with('_') => {
            let protocol = protocol(label);
            let any = ports(index, &key, row).any(|port| Some(port.protocol) == protocol);
            if any { Node::Empty } else { Node::Absent }
        }
        [host] => {
            let addrs = endpoints(index, &key, row, host);
            if addrs.is_empty() {
                Node::Absent
            } else {
                Node::Host(addrs)
            }
        }
        [protocol_label, port] => {
            let (Some(protocol), Some(name)) = (protocol(protocol_label), port.strip_prefix('_'))
            else {
                return Node::Absent;
            };
            let is_it = |it: &Port| *it.name == *name && it.protocol == protocol;
            if name.is_empty() || !ports(index, &key, row).any(is_it) {
                return Node::Absent;
            }
            Node::Port {
                service: key,
                row,
                port: Some((name, protocol)),
            }
        }
        _ => Node::Absent,
    }
}

/// The ports of a Service; a headless one has also those that only its slices name.
fn ports<'a>(
    index: &'a Index,
    key: &'a ObjectKey,
    row: &'a ServiceRow,
) -> impl Iterator<Item = &'a Port> {
    let headless = matches!(row.target, Target::Endpoints);
    let of_slices = index.slices(key).filter(move |_| headless);
    let of_slices = of_slices.flat_map(|slice| slice.ports.iter());
    let all = row.ports.iter().chain(of_slices);
    all.filter(|port| !port.name.is_empty())
}

/// Where an endpoint of a headless Service is: one with that host name, or without one at that address.
fn endpoints(index: &Index, key: &ObjectKey, row: &ServiceRow, host: &str) -> Vec<IpAddr> {
    if row.target != Target::Endpoints {
        return Vec::new();
    }
    let at = address(host);
    let ready = index.slices(key).flat_map(SliceRow::ready);
    let found = ready.filter(|(addr, name)| match name {
        Some(name) => *name == host,
        None => Some(*addr) == at,
    });
    let addrs: BTreeSet<IpAddr> = found.map(|(addr, _)| addr).take(MAX_RECORDS).collect();
    addrs.into_iter().collect()
}

/// Address records of the type that is asked for.
fn hosts<'a>(
    name: &Name,
    addrs: impl IntoIterator<Item = &'a IpAddr>,
    kind: RecordType,
) -> Vec<Record> {
    let wanted = |addr: &&IpAddr| match kind {
        RecordType::A => addr.is_ipv4(),
        RecordType::AAAA => addr.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    let found = addrs.into_iter().filter(wanted).take(MAX_RECORDS);
    found.map(|addr| host(name, *addr)).collect()
}

/// An address record.
pub fn host(name: &Name, addr: IpAddr) -> Record {
    let data = match addr {
        IpAddr::V4(addr) => RData::A(A(addr)),
        IpAddr::V6(addr) => RData::AAAA(AAAA(addr)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The alias of an ExternalName Service; an address is none, as in CoreDNS.
fn alias(name: &Name, target: &str, kind: RecordType) -> Answer {
    let target = target.trim_end_matches('.');
    let parsed = Name::from_ascii(format!("{target}."));
    let Some(target) = parsed.ok().filter(|_| target.parse::<IpAddr>().is_err()) else {
        return Answer::of_records(Vec::new());
    };
    let goes_on = !matches!(kind, RecordType::CNAME | RecordType::ANY);
    let data = RData::CNAME(CNAME(target.clone()));
    Answer {
        chase: goes_on.then_some(target),
        ..Answer::of_records(vec![Record::from_rdata(name.clone(), TTL, data)])
    }
}

fn protocol(label: &str) -> Option<Protocol> {
    match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        "_sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn within(ranges: &[IpNetwork], addr: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(addr))
}

/// An address as a label.
fn dashed(addr: IpAddr) -> String {
    let text = addr.to_string().replace(['.', ':'], "-");
    // A label neither begins nor ends with a dash (RFC 1123, section 2.1).
    let front = if text.starts_with('-') { "0" } else { "" };
    let back = if text.ends_with('-') { "0" } else { "" };
    format!("{front}{text}{back}")
}

/// What [`dashed`] made.
fn address(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>();
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>();
    v4.map(IpAddr::V4).or_else(|_| v6().map(IpAddr::V6)).ok()
}
