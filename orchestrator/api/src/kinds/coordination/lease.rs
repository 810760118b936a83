//! coordination.k8s.io/v1 Lease.

use k8s_openapi::api::coordination::v1::Lease;

use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::resource::{Behaviour, Lifetime, Resource};
use crate::validation::{At, Errors};

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::Lease,
        lifetime: Lifetime::Volatile,
        validate,
        printer: COLUMNS,
        ..Resource::of::<Lease>("coordination.k8s.io", "coordination", "lease", "leases")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[NAME, Column::text("Holder", "Who holds the lease"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/spec/holderIdentity").into(),
            age(object, now),
        ]
    },
};

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let duration = spec.field("leaseDurationSeconds");
    if !duration.is_null() && duration.number() <= 0 {
        errors.invalid(&duration, "must be greater than 0");
    }
    errors.not_negative(&spec.field("leaseTransitions"));
}
