//! Lists of resources (`cpu: 100m`, `pods: "3"`) as numbers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// Amounts by the names of resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a list of the API. What does not read is left out: validation has refused it.
pub fn read(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?)))
        .collect()
}

/// The list as the API writes it.
pub fn write(amounts: &Amounts) -> Value {
    let entries = amounts.iter();
    entries
        .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())))
        .collect()
}

/// Adds what `more` has to `sum`.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let own = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *own = *own + *amount;
    }
}

/// Takes what `less` has off `sum`, which has at least that.
pub fn subtract(sum: &mut Amounts, less: &Amounts) {
    for (name, amount) in less {
        if let Some(own) = sum.get_mut(name) {
            *own = *own - *amount;
        }
    }
}

/// Raises `amounts` to at least `floor`.
pub fn raise(amounts: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let own = amounts.entry(name.clone()).or_insert(*amount);
        *own = (*own).max(*amount);
    }
}

/// `cpu=1,memory=1Gi`, as messages show it.
pub fn text(amounts: &Amounts) -> String {
    let entries = amounts.iter();
    let all: Vec<String> = entries.map(|(name, of)| format!("{name}={of}")).collect();
    all.join(",")
}
