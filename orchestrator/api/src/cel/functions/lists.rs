//! Lists (Kubernetes' library), sets and optional values.

use std::{cmp::Ordering, rc::Rc};

use super::{Cost, LIST_A, ONE, Overload, T, f, m};
use crate::cel::{
    meter::Meter,
    value::{Failure, Outcome, Value, compare, equal, error, no_overload},
};

const OPT: T = T::Opt(&T::A);

pub const TABLE: &[Overload] = &[
    m("isSorted", &[LIST_A], T::Bool, Cost::Traversal, is_sorted),
    m("sum", &[T::List(&T::Int)], T::Int, Cost::Traversal, sum),
    m("sum", &[T::List(&T::Uint)], T::Uint, Cost::Traversal, sum),
    m(
        "sum",
        &[T::List(&T::Double)],
        T::Double,
        Cost::Traversal,
        sum,
    ),
    m("sum", &[T::List(&T::Dur)], T::Dur, Cost::Traversal, sum),
    m("min", &[LIST_A], T::A, Cost::Traversal, min),
    m("max", &[LIST_A], T::A, Cost::Traversal, max),
    m(
        "indexOf",
        &[LIST_A, T::A],
        T::Int,
        Cost::Traversal,
        index_of,
    ),
    m(
        "lastIndexOf",
        &[LIST_A, T::A],
        T::Int,
        Cost::Traversal,
        last_index_of,
    ),
    m(
        "includes",
        &[LIST_A, T::A],
        T::Bool,
        Cost::Traversal,
        includes,
    ),
    f("sets.contains", &[LIST_A, LIST_A], T::Bool, ONE, contains),
    f(
        "sets.equivalent",
        &[LIST_A, LIST_A],
        T::Bool,
        ONE,
        equivalent,
    ),
    f(
        "sets.intersects",
        &[LIST_A, LIST_A],
        T::Bool,
        ONE,
        intersects,
    ),
    f("optional.of", &[T::A], OPT, ONE, of),
    f("optional.ofNonZeroValue", &[T::A], OPT, ONE, of_non_zero),
    f("optional.none", &[], T::Opt(&T::Dyn), ONE, none),
    m("hasValue", &[OPT], T::Bool, ONE, has_value),
    m("value", &[OPT], T::A, ONE, value),
    m("or", &[OPT, OPT], OPT, ONE, or),
    m("orValue", &[OPT, T::A], T::A, ONE, or_value),
];

fn items<'a>(args: &[Value<'a>], at: usize) -> Result<Vec<Value<'a>>, Failure> {
    match &args[at] {
        Value::List(list) => list.items().collect(),
        _ => no_overload(),
    }
}

fn is_same(meter: &mut Meter<'_>, a: &Value<'_>, b: &Value<'_>) -> Result<bool, Failure> {
    let all = meter.left().saturating_mul(10);
    let mut budget = all;
    let outcome = equal(a, b, &mut budget);
    meter.charge((all - budget) / 10)?;
    outcome
}

fn is_sorted<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    for pair in items(args, 0)?.windows(2) {
        match compare(&pair[0], &pair[1]) {
            Some(Ordering::Greater) => return Ok(false.into()),
            Some(_) => {}
            None => return no_overload(),
        }
    }
    Ok(true.into())
}

fn sum<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut all = items(args, 0)?.into_iter();
    let Some(mut sum) = all.next() else {
        return Ok(0.into());
    };
    let plus = super::named("_+_");
    for item in all {
        let pair = [sum, item];
        match plus.iter().find(|overload| overload.takes(false, &pair)) {
            Some(overload) => sum = (overload.run)(meter, &pair)?,
            None => return no_overload(),
        }
    }
    Ok(sum)
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let mut all = items(args, 0)?.into_iter();
    let Some(mut best) = all.next() else {
        return error(format!("{name} called on empty list"));
    };
    for item in all {
        match compare(&item, &best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return no_overload(),
        }
    }
    Ok(best)
}

fn min<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    extreme(args, "min", Ordering::Less)
}

fn max<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    extreme(args, "max", Ordering::Greater)
}

fn find(
    meter: &mut Meter<'_>,
    all: &[Value<'_>],
    wanted: &Value<'_>,
    order: impl Iterator<Item = usize>,
) -> Result<Option<usize>, Failure> {
    for at in order {
        if is_same(meter, &all[at], wanted)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn index_of<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let all = items(args, 0)?;
    let found = find(meter, &all, &args[1], 0..all.len())?;
    Ok(found.map_or(-1, |at| at as i64).into())
}

fn last_index_of<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let all = items(args, 0)?;
    let found = find(meter, &all, &args[1], (0..all.len()).rev())?;
    Ok(found.map_or(-1, |at| at as i64).into())
}

fn includes<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let all = items(args, 0)?;
    Ok(find(meter, &all, &args[1], 0..all.len())?.is_some().into())
}

/// Whether each item of the second list is in the first. Costs the product of both.
fn holds(meter: &mut Meter<'_>, all: &[Value<'_>], parts: &[Value<'_>]) -> Result<bool, Failure> {
    meter.charge((all.len() as u64).saturating_mul(parts.len() as u64))?;
    for part in parts {
        if find(meter, all, part, 0..all.len())?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(holds(meter, &items(args, 0)?, &items(args, 1)?)?.into())
}

fn equivalent<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (a, b) = (items(args, 0)?, items(args, 1)?);
    Ok((holds(meter, &a, &b)? && holds(meter, &b, &a)?).into())
}

fn intersects<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (a, b) = (items(args, 0)?, items(args, 1)?);
    meter.charge((a.len() as u64).saturating_mul(b.len() as u64))?;
    for item in &b {
        if find(meter, &a, item, 0..a.len())?.is_some() {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn of<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(Some(Rc::new(args[0].clone()))))
}

fn of_non_zero<'a>(meter: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let is_zero = match &args[0] {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => {
            true
        }
        Value::Double(n) => *n == 0.0,
        Value::String(text) => text.as_str().is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.len() == 0,
        Value::Map(map) => map.len() == 0,
        Value::Optional(value) => value.is_none(),
        _ => false,
    };
    match is_zero {
        true => Ok(Value::Optional(None)),
        false => of(meter, args),
    }
}

fn none<'a>(_: &mut Meter<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(None))
}

fn has_value<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(matches!(args[0], Value::Optional(Some(_))).into())
}

fn value<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        _ => error("optional.none() dereference"),
    }
}

fn or<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Optional(Some(_)) => Ok(args[0].clone()),
        _ => Ok(args[1].clone()),
    }
}

fn or_value<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        _ => Ok(args[1].clone()),
    }
}
