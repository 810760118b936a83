//! Amounts of what a node has and pods ask for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use api::quantity::Quantity;

/// Amounts by resource: CPU in thousandths, all else in whole units.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Resources {
    pub cpu: i64,
    pub memory: i64,
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// Negative and unreadable quantities count as none.
    pub fn from_quantities(quantities: &BTreeMap<String, Text>) -> Self {
        let mut resources = Self::default();
        for (name, text) in quantities {
            let amount = Quantity::parse(&text.0).unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => resources.cpu = amount.millis().max(0),
                "memory" => resources.memory = amount.units().max(0),
                _ => {
                    resources.other.insert(name.clone(), amount.units().max(0));
                }
            }
        }
        resources
    }

    pub fn add(&mut self, more: &Resources) {
        self.cpu = self.cpu.saturating_add(more.cpu);
        self.memory = self.memory.saturating_add(more.memory);
        for (name, amount) in &more.other {
            let sum = self.other.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
    }

    pub fn subtract(&mut self, less: &Resources) {
        self.cpu -= less.cpu;
        self.memory -= less.memory;
        for (name, amount) in &less.other {
            if let Some(sum) = self.other.get_mut(name) {
                *sum -= amount;
            }
        }
        self.other.retain(|_, amount| *amount != 0);
    }

    /// At least `floor` of everything.
    pub fn raise_to(&mut self, floor: &Resources) {
        self.cpu = self.cpu.max(floor.cpu);
        self.memory = self.memory.max(floor.memory);
        for (name, amount) in &floor.other {
            let own = self.other.entry(name.clone()).or_insert(0);
            *own = (*own).max(*amount);
        }
    }

    pub fn amount(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            _ => self.other.get(name).copied().unwrap_or(0),
        }
    }

    /// The names of what `wanted` asks for beyond `self` less `used`.
    pub fn lacking(&self, used: &Resources, wanted: &Resources) -> Vec<String> {
        let mut lacking = Vec::new();
        let short = |has: i64, used: i64, wanted: i64| wanted > 0 && wanted > has - used;
        if short(self.cpu, used.cpu, wanted.cpu) {
            lacking.push("cpu".to_owned());
        }
        if short(self.memory, used.memory, wanted.memory) {
            lacking.push("memory".to_owned());
        }
        let amount = |of: &Resources, name: &str| of.other.get(name).copied().unwrap_or(0);
        for (name, wanted) in &wanted.other {
            if short(amount(self, name), amount(used, name), *wanted) {
                lacking.push(name.clone());
            }
        }
        lacking
    }
}

/// What a pod needs at its busiest: all containers together, or one init container on top of the
/// sidecars that started before it (KEP-753), and its overhead. Requests of the pod as a whole replace
/// the sums of its containers (KEP-2837). A container that is to have less than its node gave it counts as what
/// it has until then (KEP-1287).
pub fn of_pod(spec: &PodSpec, status: &PodStatus) -> Resources {
    let statuses = status.container_statuses.iter().flatten();
    let statuses = statuses.chain(status.init_container_statuses.iter().flatten());
    let given =
        statuses.filter_map(|it| Some((it.name.as_str(), it.allocated_resources.as_ref()?)));
    let given: BTreeMap<&str, Resources> = given
        .map(|(name, amounts)| (name, Resources::from_quantities(amounts)))
        .collect();
    let of_container = |container: &Container| {
        let mut own = of_container(container);
        if let Some(given) = given.get(container.name.as_str()) {
            own.raise_to(given);
        }
        own
    };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of_container(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        let stays = container.restart_policy.as_deref() == Some("Always");
        let mut at_start = sidecars.clone();
        at_start.add(&own);
        starting.raise_to(&at_start);
        if stays {
            running.add(&own);
            sidecars.add(&own);
        }
    }
    running.raise_to(&starting);
    if let Some(whole) = &spec.resources {
        let mut quantities = whole.limits.clone().unwrap_or_default();
        quantities.extend(whole.requests.clone().unwrap_or_default());
        let whole = Resources::from_quantities(&quantities);
        for name in quantities.keys() {
            match name.as_str() {
                "cpu" => running.cpu = whole.cpu,
                "memory" => running.memory = whole.memory,
                _ => drop(running.other.insert(name.clone(), whole.amount(name))),
            }
        }
    }
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_quantities(overhead));
    }
    running
}

/// Requests; where only a limit is given, that is the request.
fn of_container(container: &Container) -> Resources {
    let Some(resources) = &container.resources else {
        return Resources::default();
    };
    let mut quantities = resources.limits.clone().unwrap_or_default();
    quantities.extend(resources.requests.clone().unwrap_or_default());
    Resources::from_quantities(&quantities)
}
