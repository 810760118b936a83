//! Names of resources, and what amounts there may be of them.

use super::{At, Errors, names};
use crate::quantity::Quantity;

/// What one container asks for, besides huge pages.
const OF_CONTAINERS: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// What is counted by the piece.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// What a namespace may be limited in.
const OF_NAMESPACES: [&str; 7] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

/// Any resource: of the system's own or with a domain before it.
pub fn any(at: &At<'_>, name: &str, errors: &mut Errors) {
    if let Err(why) = names::label_key(name) {
        errors.invalid_value(at, name, why);
    } else if !name.contains('/') && !is_standard(name) {
        let detail = "must be a standard resource type or fully qualified";
        errors.invalid_value(at, name, detail);
    }
}

/// A resource that containers ask for.
pub fn of_container(at: &At<'_>, name: &str, errors: &mut Errors) {
    any(at, name, errors);
    if !name.contains('/') && !OF_CONTAINERS.contains(&name) && !is_huge_pages(name) {
        let detail = "must be a standard resource for containers";
        errors.invalid_value(at, name, detail);
    }
}

/// A resource that a quota limits.
pub fn of_quota(at: &At<'_>, name: &str, errors: &mut Errors) {
    // A quota of huge pages may be of the requests for them.
    let plain = name.strip_prefix("requests.");
    let plain = plain.filter(|name| is_huge_pages(name)).unwrap_or(name);
    any(at, plain, errors);
    if !name.contains('/') && !is_standard_of_quota(name) {
        errors.invalid_value(at, name, "must be a standard resource for quota");
    }
}

/// The amount of a resource of that name.
pub fn amount(at: &At<'_>, name: &str, errors: &mut Errors) {
    let Ok(quantity) = Quantity::parse(at.text()) else {
        return;
    };
    if quantity.is_negative() {
        errors.invalid(at, "must be greater than or equal to 0");
    }
    if is_whole(name) && !quantity.is_whole() {
        errors.invalid(at, "must be an integer");
    }
}

/// Whether more of the resource may be promised than there is.
pub fn can_overcommit(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    native && !is_huge_pages(name)
}

/// Whether the quota of this name is one that the system itself defines.
pub fn is_standard_of_quota(name: &str) -> bool {
    OF_CONTAINERS.contains(&name)
        || COUNTED.contains(&name)
        || OF_NAMESPACES.contains(&name)
        || is_huge_pages(name)
        || name.strip_prefix("requests.").is_some_and(is_huge_pages)
}

fn is_standard(name: &str) -> bool {
    name == "storage"
        || OF_CONTAINERS.contains(&name)
        || COUNTED.contains(&name)
        || OF_NAMESPACES.contains(&name)
        || is_huge_pages(name)
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources of other domains are devices, of which there are no halves.
fn is_whole(name: &str) -> bool {
    let foreign = name.contains('/') && !name.contains("kubernetes.io/");
    COUNTED.contains(&name) || (foreign && !name.starts_with("requests."))
}
