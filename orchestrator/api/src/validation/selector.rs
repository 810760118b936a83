//! Label selectors.

use super::{At, Errors, names};

pub fn label_selector(selector: &At<'_>, errors: &mut Errors) {
    super::object::labels(&selector.field("matchLabels"), errors);
    let expressions = selector.field("matchExpressions");
    for expression in expressions.items() {
        let key = expression.field("key");
        errors.check(&key, names::label_key(key.text()));
        let values = expression.field("values");
        let operator = expression.field("operator");
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    &values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        for value in values.items() {
            errors.check(&value, names::label_value(value.text()));
        }
    }
}
