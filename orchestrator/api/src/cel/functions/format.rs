//! `"%s is %d".format([…])`.

use super::{Cost, Overload, T, convert::shown, m, strings::text};
use crate::cel::{
    meter::Meter,
    value::{Failure, Outcome, Value, error, no_overload},
};

pub const TABLE: &[Overload] = &[m(
    "format",
    &[T::Str, T::List(&T::Dyn)],
    T::Str,
    Cost::Text(1),
    format,
)];

/// Digits after the point at most.
const MAX_PRECISION: usize = 1000;
/// How deep a list is shown.
const MAX_DEPTH: usize = 50;

fn format<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut rest = text(args, 0)?;
    let Value::List(list) = &args[1] else {
        return no_overload();
    };
    let (mut out, mut next) = (String::new(), 0);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(after)?;
        let Some(verb) = after.chars().next() else {
            return error("unexpected end of string");
        };
        let Some(value) = list.get(next) else {
            return error(format!("index {next} out of range"));
        };
        next += 1;
        let part = clause(meter, verb, precision, &value?)?;
        meter.check_text(out.len() + part.len())?;
        meter.charge(part.len() as u64 / 10)?;
        out.push_str(&part);
        rest = &after[verb.len_utf8()..];
    }
    out.push_str(rest);
    Ok(out.into())
}

/// `.3` in front of a verb.
fn precision(text: &str) -> Result<(Option<usize>, &str), Failure> {
    let Some(rest) = text.strip_prefix('.') else {
        return Ok((None, text));
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    match digits.parse() {
        Ok(precision) if precision <= MAX_PRECISION => Ok((Some(precision), rest)),
        _ => error("error while parsing precision"),
    }
}

fn clause(
    meter: &mut Meter<'_>,
    verb: char,
    precision: Option<usize>,
    value: &Value<'_>,
) -> Result<String, Failure> {
    let number = match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        Value::Bool(value) if verb == 'b' => Some(i128::from(*value)),
        _ => None,
    };
    let double = match value {
        Value::Double(n) => Some(*n),
        _ => number.map(|n| n as f64),
    };
    let bytes = match value {
        Value::String(text) => Some(text.as_str().as_bytes().to_vec()),
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        _ => None,
    };
    let signed = |n: i128, digits: String| match n < 0 {
        true => format!("-{digits}"),
        false => digits,
    };
    Ok(match (verb, number, double, bytes) {
        ('s', ..) => written(meter, value, 0)?,
        ('d', Some(n), ..) => n.to_string(),
        ('b', Some(n), ..) => signed(n, format!("{:b}", n.unsigned_abs())),
        ('o', Some(n), ..) => signed(n, format!("{:o}", n.unsigned_abs())),
        ('x', Some(n), ..) => signed(n, format!("{:x}", n.unsigned_abs())),
        ('X', Some(n), ..) => signed(n, format!("{:X}", n.unsigned_abs())),
        ('x', None, _, Some(bytes)) => hex::encode(bytes),
        ('X', None, _, Some(bytes)) => hex::encode_upper(bytes),
        ('f', _, Some(n), _) => format!("{n:.*}", precision.unwrap_or(6)),
        ('e', _, Some(n), _) => scientific(n, precision.unwrap_or(6)),
        ('d' | 'b' | 'o' | 'x' | 'X' | 'f' | 'e', ..) => {
            return error(format!(
                "error during formatting: a value of type {} was given to the clause %{verb}",
                value.type_name()
            ));
        }
        _ => {
            return error(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            ));
        }
    })
}

fn scientific(n: f64, precision: usize) -> String {
    let text = format!("{n:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A value as `%s` shows it.
fn written(meter: &mut Meter<'_>, value: &Value<'_>, depth: usize) -> Result<String, Failure> {
    meter.charge(1)?;
    if depth > MAX_DEPTH {
        return error("value is too deep to be formatted");
    }
    if let Some(text) = shown(value) {
        return Ok(text);
    }
    let mut parts = Vec::new();
    let mut length = 0;
    let (open, close) = match value {
        Value::Null => return Ok("null".into()),
        Value::Bytes(bytes) => return Ok(String::from_utf8_lossy(bytes).into_owned()),
        Value::Type(name) => return Ok(name.to_string()),
        Value::List(list) => {
            for item in list.items() {
                let part = written(meter, &item?, depth + 1)?;
                length += part.len();
                meter.check_text(length)?;
                parts.push(part);
            }
            ("[", "]")
        }
        Value::Map(map) => {
            for key in map.keys() {
                let value = match map.get(&key) {
                    Some(value) => written(meter, &value?, depth + 1)?,
                    None => continue,
                };
                let part = format!("{}: {value}", written(meter, &key, depth + 1)?);
                length += part.len();
                meter.check_text(length)?;
                parts.push(part);
            }
            ("{", "}")
        }
        other => {
            return error(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, \
                 ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    };
    Ok(format!("{open}{}{close}", parts.join(", ")))
}
