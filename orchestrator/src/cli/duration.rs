//! A length of time as people write it: `90s`, `30m`, `12h`, `365d`.

use std::time::Duration;

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600)];

pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: write it as 90s, 30m, 12h or 365d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let (unit, seconds) = UNITS
        .into_iter()
        .find(|(known, _)| *known == unit)
        .ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= LONGEST_SECONDS)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// A hundred years: sums with the time of day stay in range.
const LONGEST_SECONDS: u64 = 100 * 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("2m", 120),
            ("24h", 86400),
            ("1d", 86400),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "h", "24", "-1h", "1.5h", "1w", "99999999999d", "1hh"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
