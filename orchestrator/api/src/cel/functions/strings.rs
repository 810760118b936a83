//! Texts: the standard functions, the strings extension, and Kubernetes' regular expressions.
//! Places in a text are counted in characters.

use super::{Cost, ONE, Overload, T, f, m};
use crate::cel::{
    meter::{MAX_TEXT_BYTES, Meter},
    value::{Failure, List, Outcome, Value, error, no_overload},
};

const TEXT: Cost = Cost::Text(1);

pub const TABLE: &[Overload] = &[
    f("size", &[T::Str], T::Int, ONE, size),
    f("size", &[T::Bytes], T::Int, ONE, size),
    f("size", &[T::List(&T::A)], T::Int, ONE, size),
    f("size", &[T::Map(&T::A, &T::B)], T::Int, ONE, size),
    m("size", &[T::Str], T::Int, ONE, size),
    m("size", &[T::Bytes], T::Int, ONE, size),
    m("size", &[T::List(&T::A)], T::Int, ONE, size),
    m("size", &[T::Map(&T::A, &T::B)], T::Int, ONE, size),
    m(
        "contains",
        &[T::Str, T::Str],
        T::Bool,
        Cost::Contains,
        contains,
    ),
    m("startsWith", &[T::Str, T::Str], T::Bool, TEXT, starts_with),
    m("endsWith", &[T::Str, T::Str], T::Bool, TEXT, ends_with),
    m("matches", &[T::Str, T::Str], T::Bool, Cost::Regex, matches),
    f("matches", &[T::Str, T::Str], T::Bool, Cost::Regex, matches),
    m("find", &[T::Str, T::Str], T::Str, Cost::Regex, find),
    m(
        "findAll",
        &[T::Str, T::Str],
        T::List(&T::Str),
        Cost::Regex,
        find_all,
    ),
    m(
        "findAll",
        &[T::Str, T::Str, T::Int],
        T::List(&T::Str),
        Cost::Regex,
        find_all,
    ),
    m("charAt", &[T::Str, T::Int], T::Str, TEXT, char_at),
    m("indexOf", &[T::Str, T::Str], T::Int, TEXT, index_of),
    m("indexOf", &[T::Str, T::Str, T::Int], T::Int, TEXT, index_of),
    m(
        "lastIndexOf",
        &[T::Str, T::Str],
        T::Int,
        TEXT,
        last_index_of,
    ),
    m(
        "lastIndexOf",
        &[T::Str, T::Str, T::Int],
        T::Int,
        TEXT,
        last_index_of,
    ),
    m("lowerAscii", &[T::Str], T::Str, TEXT, lower),
    m("upperAscii", &[T::Str], T::Str, TEXT, upper),
    m(
        "replace",
        &[T::Str, T::Str, T::Str],
        T::Str,
        Cost::Text(2),
        replace,
    ),
    m(
        "replace",
        &[T::Str, T::Str, T::Str, T::Int],
        T::Str,
        Cost::Text(2),
        replace,
    ),
    m(
        "split",
        &[T::Str, T::Str],
        T::List(&T::Str),
        Cost::Text(2),
        split,
    ),
    m(
        "split",
        &[T::Str, T::Str, T::Int],
        T::List(&T::Str),
        Cost::Text(2),
        split,
    ),
    m("substring", &[T::Str, T::Int], T::Str, TEXT, substring),
    m(
        "substring",
        &[T::Str, T::Int, T::Int],
        T::Str,
        TEXT,
        substring,
    ),
    m("trim", &[T::Str], T::Str, TEXT, trim),
    m("reverse", &[T::Str], T::Str, TEXT, reverse),
    m("join", &[T::List(&T::Str)], T::Str, Cost::Result(2), join),
    m(
        "join",
        &[T::List(&T::Str), T::Str],
        T::Str,
        Cost::Result(2),
        join,
    ),
    f("strings.quote", &[T::Str], T::Str, TEXT, quote),
    f("jsonpatch.escapeKey", &[T::Str], T::Str, TEXT, escape_key),
];

/// The text at a place of the arguments; the table has seen that it is one.
pub fn text<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v str, Failure> {
    match args.get(at).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => no_overload(),
    }
}

pub fn int(args: &[Value<'_>], at: usize) -> Result<Option<i64>, Failure> {
    match args.get(at) {
        Some(Value::Int(n)) => Ok(Some(*n)),
        None => Ok(None),
        Some(_) => no_overload(),
    }
}

fn size<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok((args[0].size() as i64).into())
}

fn contains<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.contains(text(args, 1)?).into())
}

fn starts_with<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.starts_with(text(args, 1)?).into())
}

fn ends_with<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.ends_with(text(args, 1)?).into())
}

fn matches<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(meter.matches(text(args, 0)?, text(args, 1)?)?.into())
}

fn find<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let found = meter.find(text(args, 0)?, text(args, 1)?, 1)?;
    Ok(found.first().copied().unwrap_or_default().into())
}

fn find_all<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let limit = match int(args, 2)? {
        Some(limit) if limit >= 0 => limit as usize,
        _ => usize::MAX,
    };
    let found = meter.find(text(args, 0)?, text(args, 1)?, limit)?;
    meter.charge(found.len() as u64 / 10)?;
    Ok(List::made(found.into_iter().map(Value::from).collect()))
}

/// The byte at which a character stands; one past the last has one too.
fn byte_at(text: &str, index: i64) -> Result<usize, Failure> {
    let out_of_range = || Failure::Error(format!("index out of range: {index}"));
    let index = usize::try_from(index).map_err(|_| out_of_range())?;
    let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    places.nth(index).ok_or_else(out_of_range)
}

fn char_at<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let text = text(args, 0)?;
    let at = byte_at(text, int(args, 1)?.unwrap_or_default())?;
    let c = text[at..].chars().next();
    Ok(c.map(String::from).unwrap_or_default().into())
}

fn chars_before(text: &str, at: usize) -> i64 {
    text[..at].chars().count() as i64
}

fn index_of<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (whole, part) = (text(args, 0)?, text(args, 1)?);
    let from = int(args, 2)?.unwrap_or_default();
    let start = byte_at(whole, from)?;
    let found = whole[start..].find(part);
    Ok(found
        .map_or(-1, |at| chars_before(whole, start + at))
        .into())
}

fn last_index_of<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (whole, part) = (text(args, 0)?, text(args, 1)?);
    let end = match int(args, 2)? {
        Some(last) => (byte_at(whole, last)? + part.len()).min(whole.len()),
        None => whole.len(),
    };
    let end = whole.floor_char_boundary(end);
    let found = whole[..end].rfind(part);
    Ok(found.map_or(-1, |at| chars_before(whole, at)).into())
}

fn lower<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.to_ascii_lowercase().into())
}

fn upper<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.to_ascii_uppercase().into())
}

fn replace<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (whole, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = int(args, 3)?.unwrap_or(-1);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let times = whole.matches(old).take(limit).count();
    let grown = new.len().saturating_sub(old.len()).saturating_mul(times);
    let length = whole.len().saturating_add(grown);
    meter.check_text(length)?;
    Ok(whole.replacen(old, new, times).into())
}

fn split<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (whole, separator) = (text(args, 0)?, text(args, 1)?);
    let limit = match int(args, 2)? {
        None => usize::MAX,
        Some(0) => return Ok(List::made(Vec::new())),
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let parts: Vec<Value<'a>> = if separator.is_empty() {
        let mut rest = whole.chars();
        let firsts = rest
            .by_ref()
            .take(limit - 1)
            .map(|c| Value::from(c.to_string()));
        let mut parts: Vec<Value<'a>> = firsts.collect();
        if !rest.as_str().is_empty() {
            parts.push(rest.as_str().into());
        }
        parts
    } else {
        whole.splitn(limit, separator).map(Value::from).collect()
    };
    meter.charge(parts.len() as u64 / 10)?;
    Ok(List::made(parts))
}

fn substring<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let whole = text(args, 0)?;
    let (from, to) = (int(args, 1)?.unwrap_or_default(), int(args, 2)?);
    let start = byte_at(whole, from)?;
    let end = match to {
        Some(to) => byte_at(whole, to)?,
        None => whole.len(),
    };
    match whole.get(start..end) {
        Some(part) => Ok(part.into()),
        None => error(format!(
            "invalid substring range. start: {from}, end: {}",
            to.unwrap_or_default()
        )),
    }
}

fn trim<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.trim().into())
}

fn reverse<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.chars().rev().collect::<String>().into())
}

fn join<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let separator = match args.get(1) {
        Some(_) => text(args, 1)?,
        None => "",
    };
    let Value::List(list) = &args[0] else {
        return no_overload();
    };
    let mut joined = String::new();
    for (at, item) in list.items().enumerate() {
        let item = item?;
        let Some(part) = item.as_str() else {
            return no_overload();
        };
        meter.check_text(joined.len() + separator.len() + part.len())?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(part);
    }
    Ok(joined.into())
}

fn quote<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let whole = text(args, 0)?;
    let mut quoted = String::with_capacity((whole.len() + 2).min(MAX_TEXT_BYTES));
    quoted.push('"');
    for c in whole.chars() {
        let escape = match c {
            '\u{7}' => 'a',
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\u{b}' => 'v',
            '\\' | '"' => c,
            c => {
                quoted.push(c);
                continue;
            }
        };
        quoted.extend(['\\', escape]);
    }
    quoted.push('"');
    Ok(quoted.into())
}

fn escape_key<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(args, 0)?.replace('~', "~0").replace('/', "~1").into())
}
