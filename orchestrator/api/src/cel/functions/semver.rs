//! Semantic versions (semver.org 2.0.0), with Kubernetes' lenient form.

use std::cmp::Ordering;

use super::{Cost, ONE, Overload, T, f, m, net::opaque, strings::text};
use crate::cel::{
    meter::Meter,
    typing::Opaque as O,
    value::{Failure, Opaque, Outcome, Value, error, no_overload},
};

const S: T = T::Of(O::Semver);
const TEXT: Cost = Cost::Text(1);

pub const TABLE: &[Overload] = &[
    f("semver", &[T::Str], S, TEXT, to_semver),
    f("semver", &[T::Str, T::Bool], S, TEXT, to_semver),
    f("isSemver", &[T::Str], T::Bool, TEXT, |_, a| {
        Ok(parsed(a).is_ok().into())
    }),
    f("isSemver", &[T::Str, T::Bool], T::Bool, TEXT, |_, a| {
        Ok(parsed(a).is_ok().into())
    }),
    m("major", &[S], T::Int, ONE, |_, a| {
        Ok((version(a, 0)?.numbers[0] as i64).into())
    }),
    m("minor", &[S], T::Int, ONE, |_, a| {
        Ok((version(a, 0)?.numbers[1] as i64).into())
    }),
    m("patch", &[S], T::Int, ONE, |_, a| {
        Ok((version(a, 0)?.numbers[2] as i64).into())
    }),
    m("compareTo", &[S, S], T::Int, ONE, |_, a| {
        Ok((order(a)? as i64).into())
    }),
    m("isGreaterThan", &[S, S], T::Bool, ONE, |_, a| {
        Ok(order(a)?.is_gt().into())
    }),
    m("isLessThan", &[S, S], T::Bool, ONE, |_, a| {
        Ok(order(a)?.is_lt().into())
    }),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<String>,
}

impl Semver {
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, build) = match text.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (text, None),
        };
        let (core, before) = match rest.split_once('-') {
            Some((core, before)) => (core, Some(before)),
            None => (rest, None),
        };
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let has_zero = |part: &str| part.len() > 1 && part.starts_with('0') && is_digits(part);
        if build.is_some_and(|build| !build.split('.').all(is_part)) {
            return None;
        }
        let before: Vec<&str> = before.map(|b| b.split('.').collect()).unwrap_or_default();
        if !before.iter().all(|part| is_part(part) && !has_zero(part)) {
            return None;
        }
        let numbers: Vec<&str> = core.split('.').collect();
        let fits = |part: &&str| !part.is_empty() && is_digits(part) && !has_zero(part);
        if !numbers.iter().all(fits) {
            return None;
        }
        let numbers: Result<Vec<u64>, _> = numbers.iter().map(|part| part.parse()).collect();
        Some(Self {
            numbers: numbers.ok()?.try_into().ok()?,
            before: before.into_iter().map(str::to_owned).collect(),
        })
    }

    /// A `v` in front, missing numbers, and zeros in front of numbers are put right first.
    fn normalized(text: &str) -> String {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (core, rest) = text.split_at(end);
        let mut numbers: Vec<&str> = core.split('.').collect();
        for number in &mut numbers {
            let plain = number.trim_start_matches('0');
            *number = if plain.is_empty() && !number.is_empty() {
                "0"
            } else {
                plain
            };
        }
        while numbers.len() < 3 {
            numbers.push("0");
        }
        format!("{}{rest}", numbers.join("."))
    }

    pub fn compare(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        let before = match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_parts(&self.before, &other.before),
        };
        numbers.then(before)
    }
}

/// Numbers are less than words.
fn compare_parts(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let number = |text: &str| text.parse::<u64>().ok();
        let order = match (number(a), number(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn parsed(args: &[Value<'_>]) -> Result<Semver, Failure> {
    let text = text(args, 0)?;
    let lenient = matches!(args.get(1), Some(Value::Bool(true)));
    let found = match lenient {
        true => Semver::parse(&Semver::normalized(text)),
        false => Semver::parse(text),
    };
    match found {
        Some(version) => Ok(version),
        None => error(format!(
            "semver parse error: {:?} is not a semantic version",
            &text[..text.floor_char_boundary(100)]
        )),
    }
}

fn to_semver<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(opaque(Opaque::Semver(parsed(args)?)))
}

fn version<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v Semver, Failure> {
    match &args[at] {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Semver(version) => Ok(version),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn order(args: &[Value<'_>]) -> Result<Ordering, Failure> {
    Ok(version(args, 0)?.compare(version(args, 1)?))
}
