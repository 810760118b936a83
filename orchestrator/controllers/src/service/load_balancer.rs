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
use crate::controller::{Controller, Due, Watches, all_of};
use crate::object::{Key, Object};
use crate::world::{Address, Diff, World};
use api::address::{number, numbered};
use api::allocator::Allocator;
use client::Kind;

/// Gives Services of type LoadBalancer their addresses. Its work is about all of them.
pub struct LoadBalancerController {
    pool: Vec<Block>,
    memory: Memory,
}

impl LoadBalancerController {
    pub fn new(pool: Vec<Block>) -> Self {
        Self {
            pool,
            memory: Memory::default(),
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

    fn due(&self, _world: &World, diff: &Diff, due: &mut Due) {
        if diff.versions().any(|service| is_balanced(service)) {
            due.insert(all_of(Kind::SERVICE));
        }
    }

    fn plan(&mut self, world: &World, _about: &Address, _now: Timestamp) -> Option<Plan> {
        let (plan, memory) = plan(&gather(world, &self.pool, &self.memory));
        self.memory = memory;
        Some(plan)
    }
}

/// What the plan is made from.
pub struct View<'a> {
    pub pool: &'a [Block],
    /// The Services that are to have addresses of ours, oldest first.
    pub services: Vec<(&'a Object, &'a Service)>,
    pub memory: &'a Memory,
}

/// What no object carries, by the Service's uid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Addresses that were given by a write whose outcome is not seen yet.
    given: BTreeMap<String, Vec<IpAddr>>,
    /// What was said about a Service that has not all it should have.
    told: BTreeMap<String, String>,
}

/// Collects the view. A Service of another class is another controller's.
pub fn gather<'a>(world: &'a World, pool: &'a [Block], memory: &'a Memory) -> View<'a> {
    let services = world.all(Kind::SERVICE);
    let services = services
        .filter(|object| is_balanced(object) && object.meta.deleting.is_none())
        .filter_map(|object| Some((object.as_ref(), object.as_service()?.as_ref())));
    let mut services: Vec<_> = services
        .filter(|(_, service)| spec(service).is_some_and(|spec| spec.load_balancer_class.is_none()))
        .collect();
    services.sort_by_key(|(object, _)| (object.meta.created, &object.key));
    View {
        pool,
        services,
        memory,
    }
}

pub fn is_balanced(object: &Object) -> bool {
    let spec = object.as_service().and_then(|service| spec(service));
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

/// Gives every Service an address of each of its families that the pool has. Also what is to be
/// remembered.
pub fn plan(view: &View) -> (Plan, Memory) {
    if view.pool.is_empty() {
        return tell_of_no_pool(view);
    }
    let mut taken = Taken::none(view.pool);
    let held: Vec<BTreeMap<bool, IpAddr>> = view
        .services
        .iter()
        .map(|(object, service)| held(view, object, service, &mut taken))
        .collect();
    let mut actions = Vec::new();
    let mut memory = Memory::default();
    for ((object, service), mut has) in view.services.iter().zip(held) {
        let uid = &object.meta.uid;
        let problem = complete(object, service, &mut has, &mut taken);
        let families = families(service);
        let addresses: Vec<IpAddr> = families
            .iter()
            .filter_map(|v6| has.get(v6).copied())
            .collect();
        if addresses != shown(service) {
            actions.extend(write(object, &addresses));
            memory.given.insert(uid.clone(), addresses);
        }
        if let Some(problem) = problem {
            if view.memory.told.get(uid) != Some(&problem) {
                actions.push(Action::warning(object, "AllocationFailed", problem.clone()));
            }
            memory.told.insert(uid.clone(), problem);
        }
    }
    (
        Plan {
            actions,
            again: None,
        },
        memory,
    )
}

/// Without a pool addresses are somebody else's to give. Whoever waits for one learns why, once.
fn tell_of_no_pool(view: &View) -> (Plan, Memory) {
    const WHY: &str = "this server gives no addresses: start it with --load-balancer-pool, or let \
                       another controller give them; until then it is reached by its node ports";
    let services = view.services.iter();
    let waiting = services.filter(|(_, service)| shown(service).is_empty());
    let waiting: Vec<&Object> = waiting.map(|(object, _)| *object).collect();
    let told = |object: &&Object| view.memory.told.contains_key(&object.meta.uid);
    let new = waiting.iter().copied().filter(|object| !told(object));
    let actions = new.map(|object| Action::normal(object, "NoLoadBalancerPool", WHY.to_owned()));
    let told = waiting
        .iter()
        .map(|object| (object.meta.uid.clone(), WHY.to_owned()));
    let memory = Memory {
        given: BTreeMap::new(),
        told: told.collect(),
    };
    let plan = Plan {
        actions: actions.collect(),
        again: None,
    };
    (plan, memory)
}

/// Who has which address of the pool.
struct Taken<'a> {
    pool: &'a [Block],
    by: BTreeMap<IpAddr, &'a Key>,
    /// What is left of each block, lowest first.
    left: Vec<(&'a Block, Allocator)>,
}

impl<'a> Taken<'a> {
    fn none(pool: &'a [Block]) -> Self {
        let mut left: Vec<_> = pool.iter().map(|block| (block, block.numbers())).collect();
        left.sort_by_key(|(block, _)| block.first());
        Self {
            pool,
            by: BTreeMap::new(),
            left,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.pool.iter().any(|block| block.contains(address))
    }

    /// Takes the address unless another one has it.
    fn take(&mut self, address: IpAddr, object: &'a Object) -> bool {
        let mut blocks = self.left.iter_mut();
        if let Some((_, left)) = blocks.find(|(block, _)| block.contains(address)) {
            left.take(number(address));
        }
        *self.by.entry(address).or_insert(&object.key) == &object.key
    }

    fn next(&mut self, v6: bool) -> Option<IpAddr> {
        let blocks = self.left.iter_mut();
        let mut of_family = blocks.filter(|(block, _)| block.is_ipv6() == v6);
        let free = of_family.find_map(|(_, left)| left.take_next())?;
        Some(numbered(v6, free))
    }
}

/// What the Service has already and may keep, by family.
fn held<'a>(
    view: &View,
    object: &'a Object,
    service: &Service,
    taken: &mut Taken<'a>,
) -> BTreeMap<bool, IpAddr> {
    let families = families(service);
    let given = view.memory.given.get(&object.meta.uid);
    let wish = wish(service);
    let mut held = BTreeMap::new();
    for address in shown(service)
        .into_iter()
        .chain(given.into_iter().flatten().copied())
    {
        let v6 = address.is_ipv6();
        let other = wish.is_some_and(|wish| wish.is_ipv6() == v6 && wish != address);
        let wanted = families.contains(&v6) && !other && !held.contains_key(&v6);
        if wanted && taken.contains(address) && taken.take(address, object) {
            held.insert(v6, address);
        }
    }
    held
}

/// Adds what is missing. What cannot be had is said.
fn complete<'a>(
    object: &'a Object,
    service: &Service,
    has: &mut BTreeMap<bool, IpAddr>,
    taken: &mut Taken<'a>,
) -> Option<String> {
    let mut problem = None;
    let wish = spec(service).and_then(|spec| spec.load_balancer_ip.as_deref());
    let wish = wish.filter(|wish| !wish.is_empty());
    for v6 in families(service) {
        if has.contains_key(&v6) {
            continue;
        }
        let given = self::wish(service).filter(|wish| wish.is_ipv6() == v6);
        let address = match given {
            Some(address) if !taken.contains(address) => Err(format!(
                "loadBalancerIP {address} is not in the pool ({})",
                list(taken.pool)
            )),
            Some(address) if !taken.take(address, object) => {
                let Key { namespace, name } = taken.by[&address];
                Err(format!(
                    "loadBalancerIP {address} is taken by Service {namespace}/{name}"
                ))
            }
            Some(address) => Ok(address),
            None => taken.next(v6).ok_or_else(|| exhausted(taken.pool, v6)),
        };
        match address {
            Ok(address) => {
                taken.take(address, object);
                has.insert(v6, address);
            }
            // A Service that prefers two families is content with the one that there is.
            Err(_) if has_no(taken.pool, v6) && families(service).len() == 2 => {}
            Err(why) => problem = Some(why),
        }
    }
    if let Some(text) = wish.filter(|_| self::wish(service).is_none()) {
        problem = Some(format!("loadBalancerIP {text:?} is no IP address"));
    }
    problem
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
