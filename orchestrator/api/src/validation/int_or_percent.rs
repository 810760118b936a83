//! Numbers that may be written as a percentage: `1` or `"25%"`.

use super::{At, Errors};

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' \
    (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// A number from 0 on, or a percentage.
pub fn number_or_percent(at: &At<'_>, errors: &mut Errors) {
    if !at.value.is_string() {
        errors.not_negative(at);
    } else if percent(at).is_none() {
        errors.invalid(at, PERCENT);
    }
}

/// A percentage is at most that of all.
pub fn at_most_all(at: &At<'_>, errors: &mut Errors) {
    if percent(at).is_some_and(|percent| percent > 100) {
        errors.invalid(at, "must not be greater than 100%");
    }
}

pub fn is_zero(at: &At<'_>) -> bool {
    percent(at).map_or_else(|| at.value == 0, |percent| percent == 0)
}

fn percent(at: &At<'_>) -> Option<u64> {
    let digits = at.value.as_str()?.strip_suffix('%')?;
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    // More digits than a number holds are as good as very many.
    (all_digits && !digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_percentage_is_digits_and_a_sign() {
        for (text, number) in [("25%", Some(25)), ("%", None), ("25", None), ("-1%", None)] {
            assert_eq!(percent(&At::root(&json!(text))), number, "{text}");
        }
    }
}
