//! Operators.

use std::cmp::Ordering;

use super::{Cost, LIST_A, MAP, ONE, Overload, Run, T, f};
use crate::cel::{
    meter::Meter,
    typing::ListKind,
    value::{Failure, List, Outcome, Value, compare, equal, error, no_overload},
};

const OVERFLOW: &str = "integer overflow";

pub const TABLE: &[Overload] = &[
    f("!_", &[T::Bool], T::Bool, ONE, not),
    f("-_", &[T::Int], T::Int, ONE, negate),
    f("-_", &[T::Double], T::Double, ONE, negate),
    f("_==_", &[T::A, T::A], T::Bool, Cost::Compare, equals),
    f("_!=_", &[T::A, T::A], T::Bool, Cost::Compare, differs),
    f("@in", &[T::A, LIST_A], T::Bool, Cost::In, in_list),
    f("@in", &[T::A, MAP], T::Bool, ONE, in_map),
    f("_+_", &[T::Int, T::Int], T::Int, ONE, add),
    f("_+_", &[T::Uint, T::Uint], T::Uint, ONE, add),
    f("_+_", &[T::Double, T::Double], T::Double, ONE, add),
    f("_+_", &[T::Str, T::Str], T::Str, Cost::Sum, add),
    f("_+_", &[T::Bytes, T::Bytes], T::Bytes, Cost::Sum, add),
    f("_+_", &[LIST_A, LIST_A], LIST_A, ONE, add),
    f("_+_", &[T::Dur, T::Dur], T::Dur, ONE, add),
    f("_+_", &[T::Time, T::Dur], T::Time, ONE, add),
    f("_+_", &[T::Dur, T::Time], T::Time, ONE, add),
    f("_-_", &[T::Int, T::Int], T::Int, ONE, subtract),
    f("_-_", &[T::Uint, T::Uint], T::Uint, ONE, subtract),
    f("_-_", &[T::Double, T::Double], T::Double, ONE, subtract),
    f("_-_", &[T::Dur, T::Dur], T::Dur, ONE, subtract),
    f("_-_", &[T::Time, T::Dur], T::Time, ONE, subtract),
    f("_-_", &[T::Time, T::Time], T::Dur, ONE, subtract),
    f("_*_", &[T::Int, T::Int], T::Int, ONE, multiply),
    f("_*_", &[T::Uint, T::Uint], T::Uint, ONE, multiply),
    f("_*_", &[T::Double, T::Double], T::Double, ONE, multiply),
    f("_/_", &[T::Int, T::Int], T::Int, ONE, divide),
    f("_/_", &[T::Uint, T::Uint], T::Uint, ONE, divide),
    f("_/_", &[T::Double, T::Double], T::Double, ONE, divide),
    f("_%_", &[T::Int, T::Int], T::Int, ONE, modulo),
    f("_%_", &[T::Uint, T::Uint], T::Uint, ONE, modulo),
    order("_<_", &[T::Bool, T::Bool], less),
    order("_<_", &[T::Int, T::Int], less),
    order("_<_", &[T::Uint, T::Uint], less),
    order("_<_", &[T::Double, T::Double], less),
    order("_<_", &[T::Str, T::Str], less),
    order("_<_", &[T::Bytes, T::Bytes], less),
    order("_<_", &[T::Dur, T::Dur], less),
    order("_<_", &[T::Time, T::Time], less),
    order("_<_", &[T::Int, T::Double], less),
    order("_<_", &[T::Double, T::Int], less),
    order("_<_", &[T::Int, T::Uint], less),
    order("_<_", &[T::Uint, T::Int], less),
    order("_<_", &[T::Uint, T::Double], less),
    order("_<_", &[T::Double, T::Uint], less),
    order("_<=_", &[T::Bool, T::Bool], not_more),
    order("_<=_", &[T::Int, T::Int], not_more),
    order("_<=_", &[T::Uint, T::Uint], not_more),
    order("_<=_", &[T::Double, T::Double], not_more),
    order("_<=_", &[T::Str, T::Str], not_more),
    order("_<=_", &[T::Bytes, T::Bytes], not_more),
    order("_<=_", &[T::Dur, T::Dur], not_more),
    order("_<=_", &[T::Time, T::Time], not_more),
    order("_<=_", &[T::Int, T::Double], not_more),
    order("_<=_", &[T::Double, T::Int], not_more),
    order("_<=_", &[T::Int, T::Uint], not_more),
    order("_<=_", &[T::Uint, T::Int], not_more),
    order("_<=_", &[T::Uint, T::Double], not_more),
    order("_<=_", &[T::Double, T::Uint], not_more),
    order("_>_", &[T::Bool, T::Bool], more),
    order("_>_", &[T::Int, T::Int], more),
    order("_>_", &[T::Uint, T::Uint], more),
    order("_>_", &[T::Double, T::Double], more),
    order("_>_", &[T::Str, T::Str], more),
    order("_>_", &[T::Bytes, T::Bytes], more),
    order("_>_", &[T::Dur, T::Dur], more),
    order("_>_", &[T::Time, T::Time], more),
    order("_>_", &[T::Int, T::Double], more),
    order("_>_", &[T::Double, T::Int], more),
    order("_>_", &[T::Int, T::Uint], more),
    order("_>_", &[T::Uint, T::Int], more),
    order("_>_", &[T::Uint, T::Double], more),
    order("_>_", &[T::Double, T::Uint], more),
    order("_>=_", &[T::Bool, T::Bool], not_less),
    order("_>=_", &[T::Int, T::Int], not_less),
    order("_>=_", &[T::Uint, T::Uint], not_less),
    order("_>=_", &[T::Double, T::Double], not_less),
    order("_>=_", &[T::Str, T::Str], not_less),
    order("_>=_", &[T::Bytes, T::Bytes], not_less),
    order("_>=_", &[T::Dur, T::Dur], not_less),
    order("_>=_", &[T::Time, T::Time], not_less),
    order("_>=_", &[T::Int, T::Double], not_less),
    order("_>=_", &[T::Double, T::Int], not_less),
    order("_>=_", &[T::Int, T::Uint], not_less),
    order("_>=_", &[T::Uint, T::Int], not_less),
    order("_>=_", &[T::Uint, T::Double], not_less),
    order("_>=_", &[T::Double, T::Uint], not_less),
];

const fn order(name: &'static str, params: &'static [T], run: Run) -> Overload {
    f(name, params, T::Bool, Cost::Compare, run)
}

fn not<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok((!value).into()),
        _ => no_overload(),
    }
}

fn negate<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(n)] => n.checked_neg().map_or_else(overflow, |n| Ok(n.into())),
        [Value::Double(n)] => Ok(Value::Double(-n)),
        _ => no_overload(),
    }
}

fn overflow<'a>() -> Outcome<'a> {
    error(OVERFLOW)
}

/// What a comparison takes beyond its first step: each ten parts are a unit.
fn is_equal(meter: &mut Meter<'_>, a: &Value<'_>, b: &Value<'_>) -> Result<bool, Failure> {
    let all = meter.left().saturating_mul(10);
    let mut budget = all;
    let outcome = equal(a, b, &mut budget);
    meter.charge((all - budget) / 10)?;
    outcome
}

fn equals<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(is_equal(meter, &args[0], &args[1])?.into())
}

fn differs<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok((!is_equal(meter, &args[0], &args[1])?).into())
}

fn in_list<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[1] else {
        return no_overload();
    };
    for item in list.items() {
        if is_equal(meter, &args[0], &item?)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn in_map<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [key, Value::Map(map)] => Ok(map.get(key).is_some().into()),
        _ => no_overload(),
    }
}

fn add<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_add(*b).map_or_else(overflow, |n| Ok(n.into())),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => {
            let (a, b) = (a.as_str(), b.as_str());
            meter.check_text(a.len() + b.len())?;
            Ok(format!("{a}{b}").into())
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            meter.check_text(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, b].concat().into()))
        }
        [Value::List(a), Value::List(b)] => add_lists(meter, a, b),
        [Value::Duration(a), Value::Duration(b)] => a
            .checked_add(*b)
            .map_or_else(overflow, |n| Ok(Value::Duration(n))),
        [Value::Timestamp(time), Value::Duration(by)]
        | [Value::Duration(by), Value::Timestamp(time)] => super::times::moved(*time, *by),
        _ => no_overload(),
    }
}

fn unsigned<'a>(n: Option<u64>) -> Outcome<'a> {
    match n {
        Some(n) => Ok(Value::Uint(n)),
        None => error("unsigned integer overflow"),
    }
}

/// Sets are joined without repetitions; maps by their keys, the second one's items in the place of
/// the first one's.
fn add_lists<'a>(meter: &mut Meter<'_>, a: &List<'a>, b: &List<'a>) -> Outcome<'a> {
    // A copy is cheap for each item, and is made of each.
    meter.charge(((a.len() + b.len()) / 10) as u64)?;
    let mut all = a.items().collect::<Result<Vec<_>, _>>()?;
    let kind = match a {
        List::Of(_, _, kind) => (*kind).clone(),
        List::Made(_) => ListKind::Atomic,
    };
    for item in b.items() {
        let item = item?;
        let same = match &kind {
            ListKind::Atomic => None,
            ListKind::Set => position(meter, &all, |meter, other| is_equal(meter, other, &item))?,
            ListKind::Map(keys) => position(meter, &all, |meter, other| {
                has_same_keys(meter, keys, other, &item)
            })?,
        };
        match same {
            Some(at) => all[at] = item,
            None => all.push(item),
        }
    }
    Ok(List::made(all))
}

fn position<'a>(
    meter: &mut Meter<'_>,
    all: &[Value<'a>],
    fits: impl Fn(&mut Meter<'_>, &Value<'a>) -> Result<bool, Failure>,
) -> Result<Option<usize>, Failure> {
    meter.charge(1 + all.len() as u64 / 4)?;
    for (at, other) in all.iter().enumerate() {
        if fits(meter, other)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn has_same_keys(
    meter: &mut Meter<'_>,
    keys: &[Box<str>],
    a: &Value<'_>,
    b: &Value<'_>,
) -> Result<bool, Failure> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else {
        return Ok(false);
    };
    for key in keys {
        let key = Value::from(&**key);
        let same = match (a.get(&key), b.get(&key)) {
            (Some(a), Some(b)) => is_equal(meter, &a?, &b?)?,
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn subtract<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_sub(*b).map_or_else(overflow, |n| Ok(n.into())),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => a
            .checked_sub(*b)
            .map_or_else(overflow, |n| Ok(Value::Duration(n))),
        [Value::Timestamp(time), Value::Duration(by)] => by
            .checked_neg()
            .map_or_else(overflow, |by| super::times::moved(*time, by)),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            i64::try_from(nanos).map_or_else(|_| overflow(), |n| Ok(Value::Duration(n)))
        }
        _ => no_overload(),
    }
}

fn multiply<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_mul(*b).map_or_else(overflow, |n| Ok(n.into())),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            error("division by zero")
        }
        [Value::Int(a), Value::Int(b)] => a.checked_div(*b).map_or_else(overflow, |n| Ok(n.into())),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            error("modulus by zero")
        }
        [Value::Int(a), Value::Int(b)] => a.checked_rem(*b).map_or_else(overflow, |n| Ok(n.into())),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => no_overload(),
    }
}

/// No order (a NaN) is no order at all: every comparison is false.
fn ordered<'a>(args: &[Value<'a>], fits: fn(Ordering) -> bool) -> Outcome<'a> {
    let is_nan = |value: &Value<'_>| matches!(value, Value::Double(n) if n.is_nan());
    match compare(&args[0], &args[1]) {
        Some(order) => Ok(fits(order).into()),
        None if args.iter().any(is_nan) => Ok(false.into()),
        None => no_overload(),
    }
}

fn less<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_lt)
}

fn not_more<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_le)
}

fn more<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_gt)
}

fn not_less<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_ge)
}
