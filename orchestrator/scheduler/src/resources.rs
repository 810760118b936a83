//! Amounts of what a node has and pods ask for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use api::quantity::Quantity;

/// Amounts by resource: CPU in thousandths, all else in whole units.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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
