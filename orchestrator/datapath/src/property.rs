//! Random histories against the reconciler: every single write leaves a safe datapath, and what it ends
//! with is what a fresh start would compute.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use orchestrator_common::maps::config::Family;
use orchestrator_common::maps::services::{BackendKey, Service, ServiceKey};
use orchestrator_common::{Addr, Mac, Port, Prefix};
use proptest::prelude::*;

use super::check::check;
use super::delta::{Op, delta, replay};
use super::desired;
use super::facts::Facts;
use super::fake::Fake;
use super::ids::Ids;
use super::reconcile::Reconciler;
use super::table::Tables;
use super::view::{EndpointView, ExternalView, HostPort, NodeAge, PortView, Protocol, SliceView};
use super::{Change, LocalPod, NodeView, ObjectKey, ServiceView};

#[derive(Clone, Debug)]
enum Step {
    /// A Service with an address out of few, so that two may claim the same one.
    Service {
        name: u8,
        addr: u8,
        ports: u8,
        external: u8,
    },
    NoService {
        name: u8,
    },
    Slice {
        service: u8,
        slice: u8,
        ready: u16,
        terminating: u16,
    },
    NoSlice {
        service: u8,
        slice: u8,
    },
    Node {
        name: u8,
        range: Option<u8>,
    },
    Pod {
        name: u8,
        addr: Option<u8>,
    },
    /// Host ports out of few, also such as a node port has.
    HostPorts {
        name: u8,
        ports: u8,
    },
    /// The agent dies and comes back; the world is as before.
    Restart,
    /// The maps take so many more writes, then none until the next step.
    Full {
        writes: usize,
    },
    /// The agent dies after so many writes of the next step, and comes back.
    Crash {
        writes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u8, 0..3u8, 1..4u8, any::<u8>()).prop_map(
            |(name, addr, ports, external)| Step::Service { name, addr, ports, external }
        ),
        1 => (0..3u8).prop_map(|name| Step::NoService { name }),
        8 => (0..3u8, 0..2u8, any::<u16>(), any::<u16>()).prop_map(
            |(service, slice, ready, terminating)| Step::Slice { service, slice, ready, terminating }
        ),
        1 => (0..3u8, 0..2u8).prop_map(|(service, slice)| Step::NoSlice { service, slice }),
        1 => (0..3u8, proptest::option::of(0..4u8))
            .prop_map(|(name, range)| Step::Node { name, range }),
        1 => (0..3u8, proptest::option::of(0..4u8)).prop_map(|(name, addr)| Step::Pod { name, addr }),
        1 => (0..3u8, 0..4u8).prop_map(|(name, ports)| Step::HostPorts { name, ports }),
        1 => Just(Step::Restart),
        1 => (0..6usize).prop_map(|writes| Step::Full { writes }),
        1 => (0..12usize).prop_map(|writes| Step::Crash { writes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_write_leaves_a_safe_datapath(steps in prop::collection::vec(step(), 1..40)) {
        let mut run = Run::start();
        for step in steps {
            run.step(step);
        }
    }
}

#[test]
fn one_endpoint_more_or_less_is_a_handful_of_writes() {
    let mut run = Run::start();
    run.change(service(0, 1, 1));
    let all: Vec<u16> = (0..1000).collect();
    run.change(slice_of(0, 0, &all));
    for changed in [&all[..999], &all[..], &all[1..], &all[500..]] {
        run.log_since = run.reconciler.kernel().log.len();
        run.change(slice_of(0, 0, changed));
        if changed.len() > 900 {
            let writes = &run.reconciler.kernel().log[run.log_since..];
            assert!(writes.len() <= 4, "{writes:?}");
        }
    }
}

#[test]
fn an_endpoint_that_stays_keeps_its_number() {
    let mut run = Run::start();
    run.change(service(0, 1, 1));
    run.change(slice_of(0, 0, &[1, 2, 3]));
    let before = run.numbers();
    run.change(slice_of(0, 0, &[2, 3, 4]));
    let after = run.numbers();
    for endpoint in [2, 3] {
        assert_eq!(
            before[&endpoint_addr(endpoint)],
            after[&endpoint_addr(endpoint)]
        );
    }
    assert_ne!(before[&endpoint_addr(1)], after[&endpoint_addr(4)]);
}

#[test]
fn a_backend_that_goes_has_its_flows_choose_again() {
    let mut run = Run::start();
    run.change(service(0, 1, 1));
    run.change(slice_of(0, 0, &[1, 2]));
    let gone = run.numbers()[&endpoint_addr(1)];
    run.change(slice_of(0, 0, &[2]));
    assert_eq!(run.reconciler.kernel().generations.get(&gone), Some(&1));
    assert_eq!(run.reconciler.kernel().generations.len(), 1);
}

#[test]
fn nothing_is_deleted_before_the_view_is_complete() {
    let mut run = Run::start();
    run.change(service(0, 1, 1));
    run.change(slice_of(0, 0, &[1, 2]));
    let left = run.reconciler.kernel().clone();
    let mut next = Reconciler::start(left.clone(), facts()).unwrap();
    next.change(service(0, 1, 1)).unwrap();
    next.change(Change::Node("node-3".into(), Some(node(3))))
        .unwrap();
    assert_eq!(next.kernel().tables.backends, left.tables.backends);
    assert_eq!(next.kernel().tables.nodes.len(), 1);
    next.in_sync().unwrap();
    assert!(next.kernel().tables.backends.is_empty());
}

#[test]
fn a_node_or_pod_that_goes_before_the_view_is_complete_keeps_its_rows_until_then() {
    let told = [
        Change::Node("node-3".into(), Some(node(3))),
        Change::Pod("pod-1".into(), Some(pod(1, 1))),
    ];
    let mut run = Run::start();
    let bare = run.reconciler.kernel().tables.clone();
    told.iter().for_each(|change| run.change(change.clone()));
    let left = run.reconciler.kernel().clone();
    let mut next = Reconciler::start(left.clone(), facts()).unwrap();
    for change in told {
        next.change(change).unwrap();
    }
    next.change(Change::Node("node-3".into(), None)).unwrap();
    next.change(Change::Pod("pod-1".into(), None)).unwrap();
    assert_eq!(next.kernel().tables, left.tables);
    next.in_sync().unwrap();
    assert_eq!(next.kernel().tables, bare);
}

#[test]
fn a_service_that_finds_no_room_does_not_silence_what_others_have_let_go() {
    let mut run = Run::start();
    run.change(service(0, 1, 1));
    run.change(slice_of(0, 0, &[1, 2]));
    run.change(slice_of(1, 0, &[3, 4]));
    let reconciler = &mut run.reconciler;
    reconciler.kernel_mut().room = Some(1);
    reconciler.change(service(1, 2, 1)).unwrap_err();
    assert!(reconciler.has_let_go(), "it leads nowhere yet");
    reconciler.change(slice_of(0, 0, &[1])).unwrap_err();
    assert!(!reconciler.has_let_go(), "it still leads to what has left");
    reconciler.kernel_mut().room = None;
    reconciler.change(slice_of(0, 0, &[1, 5])).unwrap();
    assert!(reconciler.has_let_go());
    assert!(!reconciler.is_settled(), "one finds no room yet");
    reconciler.retry().unwrap();
    assert!(reconciler.is_settled());
}

#[test]
fn who_holds_on_to_a_backend_chooses_again_when_the_agent_died_before_it_said_that_it_went() {
    let mut run = Run::start();
    run.change(service(0, 1, 1));
    run.change(slice_of(0, 0, &[1]));
    let gone = run.numbers()[&endpoint_addr(1)];
    // The slot is another's now, and that was the last write.
    run.step(Step::Crash { writes: 1 });
    run.change(slice_of(0, 0, &[2]));
    assert_eq!(run.reconciler.kernel().generation(gone), 1);
}

struct Run {
    reconciler: Reconciler<Fake>,
    /// Every object there is, to tell a restarted agent.
    objects: BTreeMap<String, Change>,
    log_since: usize,
    /// The agent does not survive the next change.
    dying: bool,
}

impl Run {
    fn start() -> Self {
        let mut reconciler = Reconciler::start(Fake::default(), facts()).unwrap();
        reconciler.in_sync().unwrap();
        Self {
            reconciler,
            objects: BTreeMap::new(),
            log_since: 0,
            dying: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Service {
                name,
                addr,
                ports,
                external,
            } => self.change(external_service(name, addr, ports, external)),
            Step::NoService { name } => self.change(Change::Service(key(name), None)),
            Step::Slice {
                service,
                slice,
                ready,
                terminating,
            } => {
                self.change(slice_of_masks(service, slice, ready, terminating));
            }
            Step::NoSlice { service, slice } => {
                self.change(Change::Slice(slice_key(service, slice), None));
            }
            Step::Node { name, range } => {
                let aged = |range| NodeView {
                    age: NodeAge {
                        created_s: -i64::from(name),
                        ..NodeAge::default()
                    },
                    ..node(range)
                };
                self.change(Change::Node(format!("node-{}", name + 1), range.map(aged)));
            }
            Step::Pod { name, addr } => {
                self.change(Change::Pod(
                    format!("pod-{name}"),
                    addr.map(|addr| pod(name, addr)),
                ));
            }
            Step::HostPorts { name, ports } => {
                let ports = (0..2).filter(|n| ports & (1 << n) != 0);
                let ports = ports.map(|n| HostPort {
                    host_ip: None,
                    host_port: 30_000 + n,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                });
                self.change(Change::HostPorts(format!("pod-{name}"), ports.collect()));
            }
            Step::Restart => self.restart(),
            Step::Full { writes } => self.reconciler.kernel_mut().room = Some(writes),
            Step::Crash { writes } => {
                self.reconciler.kernel_mut().room = Some(writes);
                self.dying = true;
            }
        }
    }

    fn change(&mut self, change: Change) {
        let before = self.reconciler.kernel().tables.clone();
        let log = self.reconciler.kernel().log.len();
        self.remember(&change);
        let limited = self.reconciler.kernel().room.is_some();
        let done = self.reconciler.change(change);
        assert!(limited || done.is_ok(), "{done:?}");
        if done.is_err() {
            self.assert_has_let_go();
        }
        self.reconciler.kernel_mut().room = None;
        if std::mem::take(&mut self.dying) {
            self.reconciler = self.revived(self.reconciler.kernel().clone());
        } else if done.is_err() {
            self.reconciler.in_sync().unwrap(); // what is due is retried
        }
        let kernel = self.reconciler.kernel();
        assert_safe(&before, &kernel.log[log..], &kernel.tables);
        self.assert_settled();
    }

    fn restart(&mut self) {
        let mut left = self.reconciler.kernel().clone();
        left.log.clear();
        left.room = None;
        self.reconciler = self.revived(left);
        let log = &self.reconciler.kernel().log;
        assert_eq!(log, &[], "the same world needs no write");
    }

    /// An agent that begins with what another one left.
    fn revived(&self, left: Fake) -> Reconciler<Fake> {
        let mut next = Reconciler::start(left, facts()).unwrap();
        for change in self.objects.values() {
            next.change(change.clone()).unwrap();
        }
        next.in_sync().unwrap();
        next
    }

    /// Who says that it has let go leads to nobody who is not wanted, whatever else is missing.
    fn assert_has_let_go(&self) {
        let actual = self.reconciler.actual();
        let mut ids = Ids::read(actual);
        let full = desired::full(self.reconciler.world(), &facts(), actual, &mut ids).unwrap();
        let (wanted, none) = (reachable(&full), Reach::default());
        let clean = reachable(actual).iter().all(|(key, now)| {
            let wanted = wanted.get(key).unwrap_or(&none);
            now.backends.is_subset(&wanted.backends)
        });
        assert!(clean || !self.reconciler.has_let_go());
    }

    /// The maps are the mirror, pass the lint, and are what all units together want.
    fn assert_settled(&self) {
        let kernel = self.reconciler.kernel();
        let rows = kernel.tables.backends.values();
        let rows: BTreeSet<_> = rows.map(|row| (row.id, row.addr, row.port)).collect();
        for ((number, generation), (addr, port)) in &kernel.clients {
            let there = rows.contains(&(*number, *addr, *port));
            let chooses_again = kernel.generation(*number) != *generation;
            assert!(
                there || chooses_again,
                "a client is held to backend {number}"
            );
        }
        assert!(self.reconciler.has_let_go());
        let actual = self.reconciler.actual();
        assert_eq!(actual, &self.reconciler.kernel().tables);
        assert_eq!(check(actual), Vec::<String>::new());
        let mut ids = Ids::read(actual);
        let full = desired::full(self.reconciler.world(), &facts(), actual, &mut ids).unwrap();
        assert_eq!(&full, actual);
        assert_eq!(delta(actual, &full, true), []);
    }

    fn remember(&mut self, change: &Change) {
        let (name, there) = match change {
            Change::Service(key, view) => (format!("service {key}"), view.is_some()),
            Change::Slice(key, view) => (format!("slice {key}"), view.is_some()),
            Change::Node(name, view) => (format!("node {name}"), view.is_some()),
            Change::Pod(uid, view) => (format!("pod {uid}"), view.is_some()),
            Change::HostPorts(uid, ports) => (format!("ports {uid}"), !ports.is_empty()),
        };
        if there {
            self.objects.insert(name, change.clone());
        } else {
            self.objects.remove(&name);
        }
    }

    fn numbers(&self) -> BTreeMap<IpAddr, u32> {
        let rows = self.reconciler.actual().backends.values();
        rows.map(|row| (row.addr.into(), row.id)).collect()
    }
}

/// What one Service row lets happen.
#[derive(Default)]
struct Reach {
    /// What a connection may get: by chance, or by the Maglev table.
    backends: BTreeSet<(Addr, Port)>,
    /// `None`: everybody may ask.
    admitted: Option<BTreeSet<(Addr, u32)>>,
}

fn reachable(tables: &Tables) -> BTreeMap<ServiceKey, Reach> {
    let rows = tables.services.iter();
    rows.map(|(key, row)| (*key, reach(tables, row))).collect()
}

/// Panics where a Service counts a slot that is not there.
fn reach(tables: &Tables, service: &Service) -> Reach {
    let slot = |slot: u32| {
        let service = service.id;
        tables.backends.get(&BackendKey { service, slot })
    };
    let empty = |number| panic!("slot {number} of Service {} is empty", service.id);
    let counted = (0..service.count).map(|number| slot(number).unwrap_or_else(|| empty(number)));
    // A position beyond the table, or a slot that is not there, falls back to chance.
    let table = tables.maglev.get(&service.id);
    let table = table.map_or(&[][..], |table| {
        &table[..table.len().min(service.maglev() as usize)]
    });
    let named = (0..64).filter(|number| table.contains(number));
    let rows = counted.chain(named.filter_map(|number| slot(u32::from(number))));
    let backends = rows.map(|row| (row.addr, row.port)).collect();
    let ranges = tables.source_ranges.iter();
    let ranges = ranges.filter(|range| range.service == service.id);
    let ranges = ranges.map(|range| (range.addr, range.bits)).collect();
    let admitted = (service.flags & Service::SOURCE_RANGES != 0).then_some(ranges);
    Reach { backends, admitted }
}

/// The Service number under which a write is.
fn number(tables: &Tables, op: &Op) -> Option<u32> {
    match op {
        Op::PutBackend(key, _) | Op::DeleteBackend(key) => Some(key.service),
        Op::PutMaglev(id, _) | Op::DeleteMaglev(id) => Some(*id),
        Op::PutSourceRange(row) | Op::DeleteSourceRange(row) => Some(row.service),
        Op::PutService(key, _) => tables.services.get(key).map(|row| row.id),
        _ => None,
    }
}

/// Between any two writes, a Service reaches backends of before or after, and some if it has some.
fn assert_safe(before: &Tables, ops: &[Op], after: &Tables) {
    let (old, new) = (reachable(before), reachable(after));
    let mut tables = before.clone();
    let none = Reach::default();
    for op in ops {
        replay(&mut tables, op);
        if let Op::Raise(id) = op {
            let held = tables.backends.values().any(|row| row.id == *id);
            assert!(!held, "backend {id} is raised while it can still be chosen");
        }
        for key in old.keys().filter(|key| new.contains_key(key)) {
            let there = tables.services.contains_key(key);
            assert!(there, "{op:?} takes a Service away for a moment");
        }
        let number = number(&tables, op);
        let mut rows = tables.services.iter();
        let Some((key, row)) = rows.find(|(_, row)| Some(row.id) == number) else {
            continue;
        };
        let now = reach(&tables, row);
        let (old, new) = (old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
        let known = |row| old.backends.contains(row) || new.backends.contains(row);
        assert!(now.backends.iter().all(known), "{op:?}");
        let had_some = !old.backends.is_empty() && !new.backends.is_empty();
        let has_some = !now.backends.is_empty();
        assert!(!had_some || has_some, "{op:?} empties a Service");
        assert_admits(op, &now, old, new);
    }
}

/// Nobody is admitted who is not before or after; who is before and after is so between.
fn assert_admits(op: &Op, now: &Reach, old: &Reach, new: &Reach) {
    let Some(admitted) = &now.admitted else {
        let open = old.admitted.is_none() || new.admitted.is_none();
        assert!(open, "{op:?} admits everybody");
        return;
    };
    let before_or_after = [old, new].map(|reach| reach.admitted.as_ref());
    for range in admitted {
        let knows = |ranges: &Option<&BTreeSet<_>>| ranges.is_none_or(|it| it.contains(range));
        assert!(before_or_after.iter().any(knows), "{op:?} admits {range:?}");
    }
    if let [Some(old), Some(new)] = before_or_after {
        let stay = old.intersection(new);
        assert!(
            stay.into_iter().all(|it| admitted.contains(it)),
            "{op:?} shuts out"
        );
    }
}

fn facts() -> Facts {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    Facts {
        name: "node-1".into(),
        v4: Family {
            node: ip("172.31.0.11").into(),
            gateway: ip("10.100.9.1").into(),
            translation: ip("10.100.9.0").into(),
            pods: Prefix::new(ip("10.100.0.0"), 16),
            services: Prefix::new(ip("10.96.0.0"), 16),
            node_mask: Addr::v4_mask(24),
        },
        v6: Family::NONE,
        underlay: ip("172.31.0.11").into(),
        uplink: 2,
        overlay: 3,
        host: 5,
        cut: 0,
        host_mac: Mac::new([2, 0, 0, 0, 0, 1]),
        net_mac: Mac::new([2, 0, 0, 0, 0, 2]),
        uplink_mac: Mac::new([2, 0, 0, 0, 0, 3]),
        vni: 1,
        vxlan_port: Port::new(4789),
        mtu: 1450,
        netns_cookie: 1,
        dsr: false,
        neighbourhood: Prefix::new(ip("172.31.0.0"), 24),
        servers: Vec::new(),
    }
}

fn key(name: u8) -> ObjectKey {
    ObjectKey::new("default", format!("service-{name}"))
}

fn slice_key(service: u8, slice: u8) -> ObjectKey {
    ObjectKey::new("default", format!("service-{service}-{slice}"))
}

fn service(name: u8, addr: u8, ports: u8) -> Change {
    external_service(name, addr, ports, 0)
}

/// The bits of `external`: node port, load balancer address (of two), local inside, its ranges (out of
/// two), local outside, affinity, a second family.
fn external_service(name: u8, addr: u8, ports: u8, external: u8) -> Change {
    let has = |bit: u8| external & (1 << bit) != 0;
    let mut listed = vec![port("http", 80, Protocol::Tcp)];
    if has(0) {
        listed[0].node_port = 30_000 + u16::from(addr);
    }
    if ports & 2 != 0 {
        listed.push(port("dns", 53, Protocol::Udp));
    }
    let v4 = |octet| IpAddr::from(Ipv4Addr::new(10, 96, 0, octet));
    let mut view = ServiceView::cluster_ip(&[v4(addr)], listed);
    if has(7) {
        let v6 = format!("fd00:96::{addr}").parse().unwrap();
        view.cluster_ips = [v4(addr), v6].into_iter().collect();
    }
    view.affinity_s = if has(6) { 60 } else { 0 };
    view.internal_local = has(2);
    if external % 4 != 0 {
        let ranges = [(3, "192.0.2.0/24"), (4, "198.51.100.0/24")];
        let ranges = ranges.iter().filter(|(bit, _)| has(*bit));
        view.external = Some(Box::new(ExternalView {
            load_balancer_ips: has(1)
                .then(|| Ipv4Addr::new(203, 0, 113, addr % 2).into())
                .into_iter()
                .collect(),
            external_ips: vec![Ipv4Addr::new(203, 0, 113, 9).into()],
            local: has(5),
            source_ranges: ranges.map(|(_, range)| range.parse().unwrap()).collect(),
        }));
    }
    Change::Service(key(name), Some(view))
}

fn port(name: &str, port: u16, protocol: Protocol) -> PortView {
    PortView::new(name, port, protocol)
}

fn endpoint_addr(number: u16) -> IpAddr {
    Ipv4Addr::new(10, 100, (number / 250) as u8, (number % 250) as u8 + 2).into()
}

fn slice_of(service: u8, slice: u8, ready: &[u16]) -> Change {
    let endpoint = |n: &u16| EndpointView::new(endpoint_addr(*n), true, true, false, false);
    slice_with(service, slice, ready.iter().map(endpoint).collect())
}

fn slice_of_masks(service: u8, slice: u8, ready: u16, terminating: u16) -> Change {
    let endpoints = (0..16)
        .filter(|n| (ready | terminating) & (1 << n) != 0)
        .map(|n| {
            let (ready, leaving) = (ready & (1 << n) != 0, terminating & (1 << n) != 0);
            EndpointView::new(endpoint_addr(n), ready, true, leaving, n % 3 == 0)
        });
    slice_with(service, slice, endpoints.collect())
}

fn slice_with(service: u8, slice: u8, endpoints: Vec<EndpointView>) -> Change {
    let ports = vec![
        port("http", 8080, Protocol::Tcp),
        port("dns", 5353, Protocol::Udp),
    ];
    let view = SliceView::new(key(service), ports, endpoints);
    Change::Slice(slice_key(service, slice), Some(view))
}

/// One of them says that it is at an address that some Services have.
fn node(range: u8) -> NodeView {
    let pods = format!("10.100.{range}.0/24").parse().unwrap();
    let addr = match range {
        0 => Ipv4Addr::new(203, 0, 113, 1),
        _ => Ipv4Addr::new(172, 31, 0, 20 + range),
    };
    NodeView::new(vec![pods], addr)
}

fn pod(name: u8, addr: u8) -> LocalPod {
    LocalPod {
        addrs: Ipv4Addr::new(10, 100, 9, 10 + addr).into(),
        ifindex: 10 + u32::from(name),
        ifname: format!("orch{name}"),
        mac: [2, 0, 0, 0, 1, name],
        host_mac: [2, 0, 0, 0, 2, name],
        netns_cookie: 100 + u64::from(name),
        host_network: false,
        is_queued: false,
    }
}
