//! Kubernetes quantities as numbers. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in thousandths, rounded up; none when it does not read.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')));
    // An exponent's letter is also exa's: it is one when digits follow.
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (thousandths, exact) = parse_milli(number)?;
    let scale = |numerator: i128, denominator: i128| {
        let value = thousandths.checked_mul(numerator)?;
        let rounded = value.div_euclid(denominator);
        Some(rounded + i128::from(value.rem_euclid(denominator) > 0 || !exact))
    };
    match suffix {
        "" => scale(1, 1),
        "n" => scale(1, 1_000_000_000),
        "u" => scale(1, 1_000_000),
        "m" => scale(1, 1000),
        "k" => scale(1000, 1),
        "M" => scale(1_000_000, 1),
        "G" => scale(1_000_000_000, 1),
        "T" => scale(1_000_000_000_000, 1),
        "P" => scale(1_000_000_000_000_000, 1),
        "E" => scale(1_000_000_000_000_000_000, 1),
        "Ki" => scale(1 << 10, 1),
        "Mi" => scale(1 << 20, 1),
        "Gi" => scale(1 << 30, 1),
        "Ti" => scale(1 << 40, 1),
        "Pi" => scale(1 << 50, 1),
        "Ei" => scale(1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power >= 0 {
                scale(factor, 1)
            } else {
                scale(1, factor)
            }
        }
    }
}

/// A decimal number in thousandths, and whether nothing was cut off.
fn parse_milli(number: &str) -> Option<(i128, bool)> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let kept: String = fraction.chars().chain("000".chars()).take(3).collect();
    let exact = fraction.chars().skip(3).all(|digit| digit == '0');
    Some((sign * (whole * 1000 + kept.parse::<i128>().ok()?), exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_in_every_notation() {
        let cases = [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("5u", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(&Quantity(text.to_owned())), Some(expected), "{text}");
        }
        assert_eq!(milli(&Quantity("ten".to_owned())), None);
    }
}
