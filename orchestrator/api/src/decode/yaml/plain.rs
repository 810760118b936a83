//! What a scalar of YAML without quotes is: YAML 1.1's words and numbers, as Kubernetes' parser
//! (`sigs.k8s.io/yaml`, on go-yaml 2) reads them.

use std::borrow::Cow;

/// The meaning of a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text,
}

const WORDS: &[(Plain, &[&str])] = &[
    (Plain::Null, &["", "~", "null", "Null", "NULL"]),
    (Plain::Bool(true), &["true", "True", "TRUE"]),
    (Plain::Bool(true), &["y", "Y", "yes", "Yes", "YES"]),
    (Plain::Bool(true), &["on", "On", "ON"]),
    (Plain::Bool(false), &["false", "False", "FALSE"]),
    (Plain::Bool(false), &["n", "N", "no", "No", "NO"]),
    (Plain::Bool(false), &["off", "Off", "OFF"]),
    (Plain::Float(f64::NAN), &[".nan", ".NaN", ".NAN"]),
    (Plain::Float(f64::INFINITY), &[".inf", ".Inf", ".INF"]),
    (Plain::Float(f64::INFINITY), &["+.inf", "+.Inf", "+.INF"]),
    (
        Plain::Float(f64::NEG_INFINITY),
        &["-.inf", "-.Inf", "-.INF"],
    ),
];
/// No word is longer.
const LONGEST_WORD: usize = 5;

impl Plain {
    pub fn of(text: &str) -> Self {
        let word = || {
            let found = WORDS.iter().find(|(_, words)| words.contains(&text));
            found.map(|(meaning, _)| *meaning)
        };
        let word = (text.len() <= LONGEST_WORD).then(word).flatten();
        word.or_else(|| number(text)).unwrap_or(Self::Text)
    }
}

fn number(text: &str) -> Option<Plain> {
    if text.starts_with('.') {
        return float(text);
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first)) {
        return None;
    }
    let digits = match text.contains('_') {
        true => Cow::Owned(text.replace('_', "")),
        false => Cow::Borrowed(text),
    };
    integer(&digits).or_else(|| float(&digits))
}

/// An integer as Go's `strconv.ParseInt` takes it with base 0.
fn integer(text: &str) -> Option<Plain> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, unsigned.strip_prefix('0')?),
        _ => (10, unsigned),
    };
    // Rust would take a second sign.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    if text.starts_with('-') && value > 0 {
        return 0i64.checked_sub_unsigned(value).map(Plain::Negative);
    }
    Some(Plain::Unsigned(value))
}

fn float(text: &str) -> Option<Plain> {
    // Rust would take words such as "-inf".
    let only_digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(only_digits) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(Plain::Float(value))
}
