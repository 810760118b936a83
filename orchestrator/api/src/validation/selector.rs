//! Label selectors, and what else selects by requirements.

use super::{At, Errors, names};

pub fn label_selector(selector: &At<'_>, errors: &mut Errors) {
    const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
    super::object::labels(&selector.field("matchLabels"), errors);
    let expressions = selector.field("matchExpressions");
    for expression in expressions.items() {
        requirement(&expression, &OPERATORS, errors);
        let values = expression.field("values");
        for value in values.items() {
            errors.check(&value, names::label_value(value.text()));
        }
    }
}

/// What selectors of labels and of nodes have in common: a key, an operator, as many values as it takes.
pub fn requirement(expression: &At<'_>, operators: &[&str], errors: &mut Errors) {
    let key = expression.field("key");
    errors.check(&key, names::label_key(key.text()));
    let values = expression.field("values");
    let operator = expression.field("operator");
    match operator.text() {
        unknown if !operators.contains(&unknown) => {
            errors.invalid(&operator, "not a valid selector operator");
        }
        "In" | "NotIn" if values.is_empty() => errors.required(
            &values,
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
            &values,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if values.value.as_array().map_or(0, Vec::len) != 1 => errors.required(
            &values,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
        _ => {}
    }
}
