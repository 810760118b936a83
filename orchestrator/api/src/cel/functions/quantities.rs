//! Kubernetes' quantities.

use std::cmp::Ordering;

use super::{Cost, ONE, Overload, T, f, m, net::opaque, strings::text};
use crate::{
    cel::{
        meter::Meter,
        typing::Opaque as O,
        value::{Failure, Opaque, Outcome, Value, error, no_overload},
    },
    quantity::Quantity,
};

const Q: T = T::Of(O::Quantity);

pub const TABLE: &[Overload] = &[
    f("quantity", &[T::Str], Q, Cost::Text(1), to_quantity),
    f("isQuantity", &[T::Str], T::Bool, Cost::Text(1), |_, a| {
        Ok(Quantity::parse(text(a, 0)?).is_ok().into())
    }),
    m("sign", &[Q], T::Int, ONE, |_, a| {
        Ok(sign(quantity(a, 0)?).into())
    }),
    m("isInteger", &[Q], T::Bool, ONE, |_, a| {
        Ok(whole(quantity(a, 0)?).is_some().into())
    }),
    m("asInteger", &[Q], T::Int, ONE, as_integer),
    m("asApproximateFloat", &[Q], T::Double, ONE, as_double),
    m("add", &[Q, Q], Q, ONE, |_, a| {
        Ok(made(quantity(a, 0)? + quantity(a, 1)?))
    }),
    m("add", &[Q, T::Int], Q, ONE, |_, a| {
        Ok(made(quantity(a, 0)? + units(a)?))
    }),
    m("sub", &[Q, Q], Q, ONE, |_, a| {
        Ok(made(quantity(a, 0)? - quantity(a, 1)?))
    }),
    m("sub", &[Q, T::Int], Q, ONE, |_, a| {
        Ok(made(quantity(a, 0)? - units(a)?))
    }),
    m("compareTo", &[Q, Q], T::Int, ONE, |_, a| {
        Ok((order(a)? as i64).into())
    }),
    m("isGreaterThan", &[Q, Q], T::Bool, ONE, |_, a| {
        Ok(order(a)?.is_gt().into())
    }),
    m("isLessThan", &[Q, Q], T::Bool, ONE, |_, a| {
        Ok(order(a)?.is_lt().into())
    }),
];

fn made<'a>(quantity: Quantity) -> Value<'a> {
    opaque(Opaque::Quantity(quantity))
}

fn to_quantity<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match Quantity::parse(text(args, 0)?) {
        Ok(quantity) => Ok(made(quantity)),
        Err(why) => error(why.to_string()),
    }
}

fn quantity(args: &[Value<'_>], at: usize) -> Result<Quantity, Failure> {
    match &args[at] {
        Value::Opaque(opaque) => match **opaque {
            Opaque::Quantity(quantity) => Ok(quantity),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn units(args: &[Value<'_>]) -> Result<Quantity, Failure> {
    match args[1] {
        Value::Int(n) => Ok(Quantity::from_units(n)),
        _ => no_overload(),
    }
}

fn order(args: &[Value<'_>]) -> Result<Ordering, Failure> {
    Ok(quantity(args, 0)?.cmp(&quantity(args, 1)?))
}

fn sign(quantity: Quantity) -> i64 {
    quantity.cmp(&Quantity::ZERO) as i64
}

/// The integer that the quantity is, if it is one of 64 bits.
fn whole(quantity: Quantity) -> Option<i64> {
    let units = quantity.units();
    (quantity.is_whole() && Quantity::from_units(units) == quantity).then_some(units)
}

fn as_integer<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match whole(quantity(args, 0)?) {
        Some(n) => Ok(n.into()),
        None => error("cannot convert value to integer"),
    }
}

fn as_double<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let quantity = quantity(args, 0)?;
    let units = quantity.units() as f64;
    let double = match quantity.is_whole() {
        true => units,
        // Rounded up to a thousandth by `millis`: what is lost is below what doubles show of it.
        false => quantity.millis() as f64 / 1000.0,
    };
    Ok(Value::Double(double))
}
