//! Addresses of Services of type LoadBalancer: each has its own, from the pool, for as long as it
//! is of that type. Which node answers for an address is the agents' affair. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use serde_json::{Value, json};

use super::pool::Block;
use super::selection::families;
use crate::action::{Action, Plan};
use crate::controller::{Controller, Due, Watches};
use crate::object::{Key, Object};
use crate::world::{Address, Diff, World};
use api::address::{number, numbered};
use api::allocator::Allocator;
use client::Kind;

/// Gives Services of type LoadBalancer their addresses.
pub struct LoadBalancerController {
    ledger: Ledger,
    /// The Services that the last change concerns.
    heard: BTreeSet<Key>,
}

impl LoadBalancerController {
    pub fn new(pool: Vec<Block>) -> Self {
        Self {
            ledger: Ledger::of(pool),
            heard: BTreeSet::new(),
        }
    }
}

impl Controller for LoadBalancerController {
    fn name(&self) -> &'static str {
        "load balancers"
    }

    fn account(&self) -> &'static str {
        "service-controller"
    }

    fn watches(&self) -> Watches {
        Watches::Only(&[Kind::SERVICE])
    }

    fn hear(&mut self, diff: &Diff, _now: Timestamp) {
        self.heard = self.ledger.hear(diff);
    }

    fn due(&self, _world: &World, _diff: &Diff, due: &mut Due) {
        let keys = self.heard.iter();
        due.extend(keys.map(|key| (Kind::SERVICE, key.clone())));
    }

    fn plan(&mut self, world: &World, (kind, key): &Address, _now: Timestamp) -> Option<Plan> {
        self.ledger.plan(world.get(*kind, key)?)
    }
}

/// Who has which address of the pool, and who waits for one. It is kept up to date with every change of a
/// Service, so that a Service costs what it has.
pub struct Ledger {
    pool: Vec<Block>,
    /// What is left of each block, lowest first.
    left: Vec<(Block, Allocator)>,
    /// The Services that show an address or were given it; it is the oldest one's.
    claims: BTreeMap<IpAddr, BTreeSet<Place>>,
    /// Those that are to have addresses of ours.
    services: BTreeMap<Key, Entry>,
    waiting: BTreeMap<Want, BTreeSet<Place>>,
}

/// A Service, ordered by its age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    created: Timestamp,
    key: Key,
}

/// What a Service waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    /// The one that it asks for, which another Service has.
    This(IpAddr),
    /// Any one, of IPv6 or of IPv4.
    Any(bool),
}

/// What is known of a Service.
struct Entry {
    uid: String,
    place: Place,
    claimed: BTreeSet<IpAddr>,
    /// Addresses that were given by a write whose outcome is not seen yet.
    given: Vec<IpAddr>,
    /// What was said of it, since it has not all that it should have.
    told: Option<String>,
    wants: Vec<Want>,
}

impl Entry {
    fn of(object: &Object) -> Self {
        Self {
            uid: object.meta.uid.clone(),
            place: Place {
                created: object.meta.created,
                key: object.key.clone(),
            },
            claimed: BTreeSet::new(),
            given: Vec::new(),
            told: None,
            wants: Vec::new(),
        }
    }
}

impl Ledger {
    pub fn of(pool: Vec<Block>) -> Self {
        let mut left: Vec<_> = pool.iter().map(|block| (*block, block.numbers())).collect();
        left.sort_by_key(|(block, _)| block.first());
        Self {
            pool,
            left,
            claims: BTreeMap::new(),
            services: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Takes in a change of a Service; answers whom to plan for: itself, who has lost an address to an older
    /// Service or got it from one, and for an address that has become free the oldest that waits for it.
    pub fn hear(&mut self, diff: &Diff) -> BTreeSet<Key> {
        let mut due = BTreeSet::new();
        let key = &diff.object().key;
        let new = diff.new.as_deref();
        let new = new.and_then(|object| Some((object, ours(object)?)));
        let mut entry = self.services.remove(key);
        let is_other = |entry: &mut Entry| new.is_none_or(|(it, _)| it.meta.uid != entry.uid);
        if let Some(mut gone) = entry.take_if(is_other) {
            self.wait_no_more(&mut gone);
            self.claim_only(&mut gone, BTreeSet::new(), &mut due);
        }
        let Some((object, service)) = new else {
            return due;
        };
        let mut entry = entry.unwrap_or_else(|| Entry::of(object));
        let shown = shown(service);
        if entry.given.iter().all(|address| shown.contains(address)) {
            entry.given.clear();
        }
        let claims = shown.iter().chain(&entry.given).copied();
        let claims = claims.filter(|address| self.contains(*address)).collect();
        self.claim_only(&mut entry, claims, &mut due);
        self.services.insert(key.clone(), entry);
        due.insert(key.clone());
        due
    }

    /// Gives a Service an address of each of its families that the pool has.
    pub fn plan(&mut self, object: &Object) -> Option<Plan> {
        let service = ours(object)?;
        let mut entry = self.services.remove(&object.key)?;
        let actions = match self.pool.is_empty() {
            true => tell_of_no_pool(object, service, &mut entry),
            false => self.allot(object, service, &mut entry),
        };
        self.services.insert(object.key.clone(), entry);
        Some(Plan {
            actions,
            again: None,
        })
    }

    fn allot(&mut self, object: &Object, service: &Service, entry: &mut Entry) -> Vec<Action> {
        self.wait_no_more(entry);
        let mut has = self.held(service, entry);
        let problem = self.complete(service, entry, &mut has);
        let families = families(service);
        let addresses = families.iter().filter_map(|v6| has.get(v6).copied());
        let addresses: Vec<IpAddr> = addresses.collect();
        let mut actions = Vec::new();
        if addresses != shown(service) {
            actions.extend(write(object, &addresses));
            entry.given = addresses;
        }
        if let Some(problem) = problem.as_ref().filter(|_| entry.told != problem) {
            actions.push(Action::warning(object, "AllocationFailed", problem.clone()));
        }
        entry.told = problem;
        actions
    }

    /// What the Service has already and may keep, by family.
    fn held(&self, service: &Service, entry: &Entry) -> BTreeMap<bool, IpAddr> {
        let families = families(service);
        let wish = wish(service);
        let mut held = BTreeMap::new();
        for address in shown(service).into_iter().chain(entry.given.clone()) {
            let v6 = address.is_ipv6();
            let other = wish.is_some_and(|wish| wish.is_ipv6() == v6 && wish != address);
            let wanted = families.contains(&v6) && !other && !held.contains_key(&v6);
            if wanted && self.holder(address) == Some(&entry.place) {
                held.insert(v6, address);
            }
        }
        held
    }

    /// Adds what is missing. What cannot be had is said.
    fn complete(
        &mut self,
        service: &Service,
        entry: &mut Entry,
        has: &mut BTreeMap<bool, IpAddr>,
    ) -> Option<String> {
        let mut problem = None;
        let families = families(service);
        for v6 in &families {
            if has.contains_key(v6) {
                continue;
            }
            let given = wish(service).filter(|wish| wish.is_ipv6() == *v6);
            let found = match given {
                Some(address) => self.asked_for(address, entry),
                None => self.next(*v6, entry),
            };
            match found {
                Ok(address) => {
                    // Nobody has it: nobody is told.
                    self.claim(address, &entry.place, &mut BTreeSet::new());
                    entry.claimed.insert(address);
                    has.insert(*v6, address);
                }
                // A Service that prefers two families is content with the one that there is.
                Err(_) if has_no(&self.pool, *v6) && families.len() == 2 => {}
                Err(why) => problem = Some(why),
            }
        }
        let text = spec(service).and_then(|spec| spec.load_balancer_ip.as_deref());
        let text = text.filter(|text| !text.is_empty() && wish(service).is_none());
        match text {
            Some(text) => Some(format!("loadBalancerIP {text:?} is no IP address")),
            None => problem,
        }
    }

    fn asked_for(&mut self, address: IpAddr, entry: &mut Entry) -> Result<IpAddr, String> {
        if !self.contains(address) {
            let pool = list(&self.pool);
            return Err(format!(
                "loadBalancerIP {address} is not in the pool ({pool})"
            ));
        }
        match self
            .holder(address)
            .filter(|holder| **holder != entry.place)
        {
            None => Ok(address),
            Some(Place { key, .. }) => {
                let Key { namespace, name } = key;
                let why =
                    format!("loadBalancerIP {address} is taken by Service {namespace}/{name}");
                self.wait(Want::This(address), entry);
                Err(why)
            }
        }
    }

    fn next(&mut self, v6: bool, entry: &mut Entry) -> Result<IpAddr, String> {
        let blocks = self.left.iter_mut();
        let mut of_family = blocks.filter(|(block, _)| block.is_ipv6() == v6);
        match of_family.find_map(|(_, left)| left.take_next()) {
            Some(free) => Ok(numbered(v6, free)),
            None => {
                self.wait(Want::Any(v6), entry);
                Err(exhausted(&self.pool, v6))
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.pool.iter().any(|block| block.contains(address))
    }

    fn holder(&self, address: IpAddr) -> Option<&Place> {
        self.claims.get(&address)?.first()
    }

    /// The Service claims these addresses and no others.
    fn claim_only(&mut self, entry: &mut Entry, claims: BTreeSet<IpAddr>, due: &mut BTreeSet<Key>) {
        for address in entry.claimed.difference(&claims) {
            self.unclaim(*address, &entry.place, due);
        }
        for address in claims.difference(&entry.claimed) {
            self.claim(*address, &entry.place, due);
        }
        entry.claimed = claims;
    }

    fn claim(&mut self, address: IpAddr, place: &Place, due: &mut BTreeSet<Key>) {
        if let Some(left) = self.left_with(address) {
            left.take(number(address));
        }
        let claims = self.claims.entry(address).or_default();
        let before = claims.first().filter(|before| *before > place);
        due.extend(before.map(|before| before.key.clone()));
        claims.insert(place.clone());
    }

    fn unclaim(&mut self, address: IpAddr, place: &Place, due: &mut BTreeSet<Key>) {
        let Some(claims) = self.claims.get_mut(&address) else {
            return;
        };
        claims.remove(place);
        if let Some(next) = claims.first() {
            due.insert(next.key.clone());
            return;
        }
        self.claims.remove(&address);
        if let Some(left) = self.left_with(address) {
            left.free(number(address));
        }
        for want in [Want::This(address), Want::Any(address.is_ipv6())] {
            let first = self.waiting.get(&want).and_then(BTreeSet::first);
            due.extend(first.map(|first| first.key.clone()));
        }
    }

    fn left_with(&mut self, address: IpAddr) -> Option<&mut Allocator> {
        let mut blocks = self.left.iter_mut();
        let found = blocks.find(|(block, _)| block.contains(address))?;
        Some(&mut found.1)
    }

    fn wait(&mut self, want: Want, entry: &mut Entry) {
        entry.wants.push(want);
        let waiting = self.waiting.entry(want).or_default();
        waiting.insert(entry.place.clone());
    }

    fn wait_no_more(&mut self, entry: &mut Entry) {
        for want in entry.wants.drain(..) {
            if let Some(waiting) = self.waiting.get_mut(&want) {
                waiting.remove(&entry.place);
                if waiting.is_empty() {
                    self.waiting.remove(&want);
                }
            }
        }
    }
}

/// The Service, if it is to have addresses of ours: one of another class is another controller's.
fn ours(object: &Object) -> Option<&Service> {
    let service = object.as_service()?.as_ref();
    let class = &spec(service)?.load_balancer_class;
    let is_ours = is_balanced(object) && object.meta.deleting.is_none() && class.is_none();
    is_ours.then_some(service)
}

pub fn is_balanced(object: &Object) -> bool {
    let spec = object.as_service().and_then(|service| spec(service));
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

/// Without a pool addresses are somebody else's to give. A Service that waits for one says why, once.
fn tell_of_no_pool(object: &Object, service: &Service, entry: &mut Entry) -> Vec<Action> {
    const WHY: &str = "this server gives no addresses: start it with --load-balancer-pool, or let \
                       another controller give them; until then it is reached by its node ports";
    let why = shown(service).is_empty().then(|| WHY.to_owned());
    let new = why.iter().filter(|_| entry.told != why);
    let actions = new.map(|why| Action::normal(object, "NoLoadBalancerPool", why.clone()));
    let actions = actions.collect();
    entry.told = why;
    actions
}

fn write(object: &Object, addresses: &[IpAddr]) -> Vec<Action> {
    let entries = addresses.iter();
    let entries: Value = entries
        .map(|address| json!({"ip": address.to_string(), "ipMode": "VIP"}))
        .collect();
    let ingress = if addresses.is_empty() {
        Value::Null
    } else {
        entries
    };
    let body = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let mut actions = vec![Action::merge(object, "status", body)];
    if !addresses.is_empty() {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let text = format!("Assigned {} from the pool", texts.join(", "));
        actions.push(Action::normal(object, "IPAllocated", text));
    }
    actions
}

fn exhausted(pool: &[Block], v6: bool) -> String {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let what = if has_no(pool, v6) {
        "has no"
    } else {
        "has no free"
    };
    format!(
        "the pool ({}) {what} {family} address: delete a Service of type LoadBalancer or give \
         --load-balancer-pool more addresses",
        list(pool)
    )
}

fn has_no(pool: &[Block], v6: bool) -> bool {
    !pool.iter().any(|block| block.is_ipv6() == v6)
}

fn list(pool: &[Block]) -> String {
    let texts: Vec<String> = pool.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn spec(service: &Service) -> Option<&ServiceSpec> {
    service.spec.as_ref()
}

/// The address that the Service asks for.
fn wish(service: &Service) -> Option<IpAddr> {
    spec(service)?.load_balancer_ip.as_deref()?.parse().ok()
}

/// The addresses that its status has.
fn shown(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let ingress: BTreeSet<_> = ingress.into_iter().flatten().filter_map(ip).collect();
    let families = families(service);
    let order = |address: &IpAddr| families.iter().position(|v6| *v6 == address.is_ipv6());
    let mut all: Vec<IpAddr> = ingress.into_iter().collect();
    all.sort_by_key(order);
    all
}

fn ip(entry: &LoadBalancerIngress) -> Option<IpAddr> {
    entry.ip.as_deref()?.parse().ok()
}
