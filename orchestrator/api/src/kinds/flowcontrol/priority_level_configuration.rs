//! flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration: how many requests are served at a time.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use serde_json::{Value, json};

use super::GROUP;
use crate::columns::{AGE, Column, NAME, Printer, age, name, text};
use crate::defaults::set;
use crate::prepare::keep_metadata;
use crate::resource::{Generation, Resource, Scope, Subresource};
use crate::validation::{At, Errors};

/// The level whose requests never wait.
const EXEMPT: &str = "exempt";

const MAX_QUEUES: i64 = 10_000_000;

/// Bits of the hash that deals a flow its hand of queues.
const MAX_HASH_BITS: u32 = 60;

pub fn resource() -> Resource {
    Resource {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: |object| object["status"] = json!({}),
        update_status: keep_metadata,
        validate,
        validate_status: super::validate_status,
        printer: COLUMNS,
        ..Resource::of::<PriorityLevelConfiguration>(
            GROUP,
            "flowcontrol",
            "prioritylevelconfiguration",
            "prioritylevelconfigurations",
        )
    }
}

pub(super) const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type", "Whether there is a limit"),
        Column::text(
            "NominalConcurrencyShares",
            "The share of all requests at a time",
        ),
        Column::text("Queues", "How many queues there are"),
        Column::text("HandSize", "How many queues a flow uses"),
        Column::text("QueueLengthLimit", "How many requests wait in a queue"),
        AGE,
    ],
    cells,
};

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    for (part, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(part) = spec.get_mut(part) {
            set(part, "nominalConcurrencyShares", || shares.into());
            set(part, "lendablePercent", || 0.into());
        }
    }
    let queues = spec.pointer_mut("/limited/limitResponse/queuing");
    if let Some(queuing) = queues.filter(|queuing| queuing.is_object()) {
        for (field, number) in [("handSize", 8), ("queueLengthLimit", 50), ("queues", 64)] {
            if queuing[field].as_i64().unwrap_or_default() == 0 {
                queuing[field] = number.into();
            }
        }
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let (name, kind) = (metadata.field("name"), spec.field("type"));
    if (name.text() == EXEMPT) != (kind.text() == "Exempt") {
        let why = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.invalid_value(&kind, kind.text(), why);
    }
    let (exempt, limited) = (spec.field("exempt"), spec.field("limited"));
    match kind.text() {
        "Exempt" => {
            if !limited.is_null() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if !exempt.is_null() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_null() {
                errors.required(&limited, "must not be empty when type is Limited");
            } else {
                limits(&limited, errors);
            }
        }
        _ => errors.not_supported(&kind, &["Exempt", "Limited"]),
    }
}

fn shares(part: &At<'_>, errors: &mut Errors) {
    let shares = part.field("nominalConcurrencyShares");
    if shares.number() < 0 {
        errors.invalid(&shares, "must be a non-negative integer");
    }
    errors.in_range(&part.field("lendablePercent"), 0, 100);
}

fn limits(limited: &At<'_>, errors: &mut Errors) {
    shares(limited, errors);
    let borrowing = limited.field("borrowingLimitPercent");
    if borrowing.number() < 0 {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
    let response = limited.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.field("queuing"));
    match kind.text() {
        "Reject" if !queuing.is_null() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.forbidden(&queuing, why);
        }
        "Reject" => {}
        "Queue" if queuing.is_null() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.required(&queuing, why);
        }
        "Queue" => queues(&queuing, errors),
        _ => errors.not_supported(&kind, &["Queue", "Reject"]),
    }
}

fn queues(queuing: &At<'_>, errors: &mut Errors) {
    let [limit, queues, hand] =
        ["queueLengthLimit", "queues", "handSize"].map(|field| queuing.field(field));
    for at in [&limit, &queues, &hand] {
        if at.number() <= 0 {
            errors.invalid(at, "must be positive");
        }
    }
    let (deck, size) = (queues.number(), hand.number());
    if deck > MAX_QUEUES {
        errors.invalid(&queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    if size <= 0 {
        return;
    }
    if size > deck {
        errors.invalid(&hand, format!("should not be greater than queues ({deck})"));
    } else if entropy_bits(deck, size) > MAX_HASH_BITS {
        errors.invalid(
            &hand,
            format!(
                "required entropy bits of deckSize {deck} and handSize {size} should not be \
                 greater than {MAX_HASH_BITS}"
            ),
        );
    }
}

/// How many bits it takes to deal a hand out of a deck.
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    let bits: f64 = (0..hand.min(i64::from(MAX_HASH_BITS) + 1))
        .map(|dealt| ((deck - dealt) as f64).log2())
        .sum();
    bits.ceil() as u32
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let number = |at: &str| match object.pointer(at) {
        Some(number) if number.is_number() => number.clone(),
        _ => "<none>".into(),
    };
    let queuing = |field: &str| number(&format!("/spec/limited/limitResponse/queuing/{field}"));
    vec![
        name(object),
        text(object, "/spec/type").into(),
        number("/spec/limited/nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{assert_wrong, created, row, updated, with};

    fn level() -> Value {
        json!({
            "metadata": {"name": "batch"},
            "spec": {
                "type": "Limited",
                "limited": {"limitResponse": {"type": "Queue", "queuing": {}}},
            },
        })
    }

    #[test]
    fn a_level_says_its_shares_and_queues() {
        assert_eq!(
            created(&resource(), level())["spec"]["limited"],
            json!({
                "lendablePercent": 0,
                "limitResponse": {
                    "queuing": {"handSize": 8, "queueLengthLimit": 50, "queues": 64},
                    "type": "Queue",
                },
                "nominalConcurrencyShares": 30,
            })
        );
    }

    #[test]
    fn a_level_whose_limits_do_not_fit_together_is_refused() {
        let queuing = "/spec/limited/limitResponse/queuing";
        assert_wrong(
            &resource(),
            &level(),
            &[
                (
                    "/spec",
                    json!({"type": "Exempt"}),
                    r#"spec.type: Invalid value: "Exempt": type must be 'Exempt' if and only if name is 'exempt'"#,
                ),
                (
                    "/spec",
                    json!({"type": "Limited"}),
                    "spec.limited: Required value: must not be empty when type is Limited",
                ),
                (
                    "/spec/limited/nominalConcurrencyShares",
                    json!(-1),
                    "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a \
                     non-negative integer",
                ),
                (
                    "/spec/limited/lendablePercent",
                    json!(101),
                    "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, \
                     inclusive",
                ),
                (
                    "/spec/limited/limitResponse",
                    json!({"type": "Wait"}),
                    r#"spec.limited.limitResponse.type: Unsupported value: "Wait": supported values: "Queue", "Reject""#,
                ),
                (
                    queuing,
                    json!({"queues": 4}),
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be \
                     greater than queues (4)",
                ),
                (
                    queuing,
                    json!({"queues": 512, "handSize": 10}),
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required \
                     entropy bits of deckSize 512 and handSize 10 should not be greater than 60",
                ),
                (
                    queuing,
                    json!({"queueLengthLimit": -1}),
                    "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must \
                     be positive",
                ),
            ],
        );
    }

    #[test]
    fn a_change_of_a_level_counts_a_generation() {
        let old = created(&resource(), level());
        let new = with(&old, "/spec/limited/nominalConcurrencyShares", json!(5));
        let stored = updated(&resource(), &old, new, None);
        assert_eq!(stored["metadata"]["generation"], 2);
    }

    #[test]
    fn a_row_shows_shares_and_queues() {
        let stored = created(&resource(), level());
        assert_eq!(
            row(&resource(), &stored),
            json!(["batch", "Limited", 30, 64, 8, 50, "10m",])
        );
        let reject = with(
            &stored,
            "/spec/limited/limitResponse",
            json!({"type": "Reject"}),
        );
        assert_eq!(row(&resource(), &reject)[3], "<none>");
    }
}
