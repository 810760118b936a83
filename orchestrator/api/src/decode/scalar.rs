//! Texts that mean something: quantities, times, base64. Each is checked; what comes back is its
//! canonical form where that differs.

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::jiff::{Timestamp, fmt::strtime};
use serde_json::Value;

use crate::quantity::{self, Quantity};

/// An amount of a resource, as text or as a number: `1000m` is `1`.
pub fn quantity(value: &Value) -> Result<Option<String>, String> {
    let text = match value {
        Value::String(text) => text,
        Value::Number(number) => &number.to_string(),
        _ => return Err(quantity::FORMAT.into()),
    };
    let canonical = Quantity::parse(text)
        .map_err(|e| e.to_string())?
        .to_string();
    let same = value.as_str() == Some(&canonical);
    Ok((!same).then_some(canonical))
}

/// A time in whole seconds of UTC.
pub fn time(text: &str) -> Result<Option<String>, String> {
    canonical_time(text, "%Y-%m-%dT%H:%M:%SZ", "2026-01-02T03:04:05Z")
}

/// A time in microseconds of UTC.
pub fn micro_time(text: &str) -> Result<Option<String>, String> {
    canonical_time(
        text,
        "%Y-%m-%dT%H:%M:%S%.6fZ",
        "2026-01-02T03:04:05.000006Z",
    )
}

/// `sample` is a text of the canonical shape; only texts of another shape are written anew.
fn canonical_time(text: &str, format: &str, sample: &str) -> Result<Option<String>, String> {
    let Ok(at) = text.parse::<Timestamp>() else {
        return Err(format!(
            "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \
             \"2006\""
        ));
    };
    if same_shape(text, sample) {
        return Ok(None);
    }
    strtime::format(format, at)
        .map(Some)
        .map_err(|e| e.to_string())
}

/// Digits where the sample has digits, and otherwise the same; a leap second is read as second 59.
fn same_shape(text: &str, sample: &str) -> bool {
    let alike = |(a, b): (u8, u8)| a == b || a.is_ascii_digit() && b.is_ascii_digit();
    text.len() == sample.len()
        && text.bytes().zip(sample.bytes()).all(alike)
        && !text[17..].starts_with("60")
}

/// Base64 with padding; line breaks in it are dropped. The bytes go to `decoded`.
pub fn base64(text: &str, decoded: &mut Vec<u8>) -> Result<Option<String>, String> {
    let line_break = |c: char| matches!(c, '\r' | '\n');
    let stripped = text
        .contains(line_break)
        .then(|| text.replace(line_break, ""));
    let text = stripped.as_deref().unwrap_or(text);
    decoded.clear();
    let at = match STANDARD.decode_vec(text, decoded) {
        Ok(()) => return Ok(stripped),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => at,
        // Go names the beginning of the four bytes that are not all there.
        Err(DecodeError::InvalidLength(_) | DecodeError::InvalidPadding) => text.len() / 4 * 4,
    };
    Err(format!("illegal base64 data at input byte {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_the_digits_of_their_type() {
        let cases = [
            ("2026-01-02T03:04:05Z", None),
            ("2026-01-02T03:04:05+02:00", Some("2026-01-02T01:04:05Z")),
            ("2026-01-02T03:04:05.999Z", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02t03:04:05z", Some("2026-01-02T03:04:05Z")),
            ("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59Z")),
        ];
        for (text, canonical) in cases {
            assert_eq!(time(text).unwrap().as_deref(), canonical, "{text}");
        }
        let cases = [
            ("2026-01-02T03:04:05.123456Z", None),
            ("2026-01-02T03:04:05Z", Some("2026-01-02T03:04:05.000000Z")),
            (
                "2026-01-02T03:04:05.1234567Z",
                Some("2026-01-02T03:04:05.123456Z"),
            ),
        ];
        for (text, canonical) in cases {
            assert_eq!(micro_time(text).unwrap().as_deref(), canonical, "{text}");
        }
        for text in ["", "now", "2026-13-02T03:04:05Z", "2026-01-02"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base64_may_have_line_breaks_and_says_where_it_is_wrong() {
        let mut decoded = Vec::new();
        assert_eq!(base64("YWJj", &mut decoded), Ok(None));
        assert_eq!(decoded, b"abc");
        assert_eq!(
            base64("YW\r\nJj\n", &mut decoded),
            Ok(Some("YWJj".to_owned()))
        );
        for (text, at) in [("!!", 0), ("YWJj!", 4), ("YW=", 0), ("YWJjY", 4)] {
            assert_eq!(
                base64(text, &mut decoded),
                Err(format!("illegal base64 data at input byte {at}")),
                "{text}"
            );
        }
    }
}
