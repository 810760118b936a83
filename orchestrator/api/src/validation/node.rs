//! Nodes, and what nodes write: leases and events.

use std::collections::BTreeSet;

use super::{At, Errors, names, network};

pub fn node(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    pod_ranges(&spec, errors);
    node_status(object, errors);
    let taints = spec.field("taints");
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let (key, effect) = (taint.field("key"), taint.field("effect"));
        if key.is_empty() {
            errors.required(&key, "");
        } else {
            errors.check(&key, names::label_key(key.text()));
        }
        let value = taint.field("value");
        errors.check(&value, names::label_value(value.text()));
        errors.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((key.text().to_owned(), effect.text().to_owned())) {
            errors.duplicate(&taint);
        }
    }
}

/// Other nodes send packets to a node's internal addresses.
pub fn node_status(object: &At<'_>, errors: &mut Errors) {
    let status = object.field("status");
    let all = status.field("addresses");
    for item in all.items() {
        let (kind, address) = (item.field("type"), item.field("address"));
        match kind.text() {
            "InternalIP" if network::ip(&address, errors) => {
                network::usual_address(&address, errors);
            }
            "ExternalIP" => {
                network::ip(&address, errors);
            }
            _ => {}
        }
    }
}

pub fn node_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    let (now, before) = (new.field("podCIDRs"), old.field("podCIDRs"));
    // A cluster that becomes dual-stack gives its nodes a second range.
    let kept = now
        .items()
        .zip(before.items())
        .filter(|(now, before)| now.value == before.value);
    if kept.count() < before.items().count() {
        errors.forbidden(
            &now,
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let (now, before) = (new.field("providerID"), old.field("providerID"));
    if !before.is_empty() && now.value != before.value {
        errors.forbidden(
            &now,
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}

pub fn lease(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let duration = spec.field("leaseDurationSeconds");
    if !duration.is_null() && duration.number() <= 0 {
        errors.invalid(&duration, "must be greater than 0");
    }
    errors.not_negative(&spec.field("leaseTransitions"));
}

/// An event lives beside its object; events of objects without a namespace in `default`.
pub fn event(object: &At<'_>, errors: &mut Errors) {
    let metadata = object.field("metadata");
    let involved = object.field("involvedObject");
    let about = involved.field("namespace");
    let namespace = metadata.field("namespace");
    let fits = match about.text() {
        "" => matches!(namespace.text(), "" | "default" | "kube-system"),
        about => about == namespace.text(),
    };
    if !fits {
        errors.invalid(&about, "does not match event.namespace");
    }
}

/// One range a family, written in the one way that it can be compared. Whether it is one of the cluster's
/// and free is `apiserver::services`' to say.
fn pod_ranges(spec: &At<'_>, errors: &mut Errors) {
    let (first, ranges) = (spec.field("podCIDR"), spec.field("podCIDRs"));
    let mut families = BTreeSet::new();
    for (index, at) in ranges.items().enumerate() {
        if index == 0 && first.text() != at.text() {
            errors.invalid(&first, "must match the first of `podCIDRs`");
        }
        let Some(range) = network::cidr(&at, errors) else {
            continue;
        };
        if range.ip() != range.network() || range.to_string() != at.text() {
            let network = range.network();
            let why = format!(
                "must be in canonical form (\"{network}/{}\")",
                range.prefix()
            );
            errors.invalid(&at, why);
        }
        if !families.insert(range.is_ipv6()) {
            errors.invalid(
                &ranges,
                "may specify no more than one CIDR for each IP family",
            );
        }
    }
}
