//! From one type to another.

use std::rc::Rc;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use super::{Cost, ONE, Overload, T, f, strings::text, times};
use crate::cel::{
    meter::Meter,
    typing::Opaque as O,
    value::{Failure, Opaque, Outcome, Value, error, no_overload},
};

pub const TABLE: &[Overload] = &[
    f("int", &[T::Int], T::Int, ONE, to_int),
    f("int", &[T::Uint], T::Int, ONE, to_int),
    f("int", &[T::Double], T::Int, ONE, to_int),
    f("int", &[T::Str], T::Int, ONE, to_int),
    f("int", &[T::Time], T::Int, ONE, to_int),
    f("int", &[T::Dur], T::Int, ONE, to_int),
    f("uint", &[T::Int], T::Uint, ONE, to_uint),
    f("uint", &[T::Uint], T::Uint, ONE, to_uint),
    f("uint", &[T::Double], T::Uint, ONE, to_uint),
    f("uint", &[T::Str], T::Uint, ONE, to_uint),
    f("double", &[T::Int], T::Double, ONE, to_double),
    f("double", &[T::Uint], T::Double, ONE, to_double),
    f("double", &[T::Double], T::Double, ONE, to_double),
    f("double", &[T::Str], T::Double, ONE, to_double),
    f("string", &[T::Bool], T::Str, ONE, to_string),
    f("string", &[T::Int], T::Str, ONE, to_string),
    f("string", &[T::Uint], T::Str, ONE, to_string),
    f("string", &[T::Double], T::Str, ONE, to_string),
    f("string", &[T::Str], T::Str, ONE, to_string),
    f("string", &[T::Bytes], T::Str, Cost::Text(1), to_string),
    f("string", &[T::Time], T::Str, ONE, to_string),
    f("string", &[T::Dur], T::Str, ONE, to_string),
    f("string", &[T::Of(O::Ip)], T::Str, ONE, to_string),
    f("string", &[T::Of(O::Cidr)], T::Str, ONE, to_string),
    f("bool", &[T::Bool], T::Bool, ONE, to_bool),
    f("bool", &[T::Str], T::Bool, ONE, to_bool),
    f("bytes", &[T::Bytes], T::Bytes, ONE, to_bytes),
    f("bytes", &[T::Str], T::Bytes, Cost::Text(1), to_bytes),
    f("dyn", &[T::A], T::Dyn, ONE, same),
    f("type", &[T::A], T::Type, ONE, type_of),
];

/// What base64 stands for.
pub fn decoded(text: &str) -> Result<Rc<[u8]>, Failure> {
    match STANDARD.decode(text) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => error("illegal base64 data"),
    }
}

pub fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn same<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(args[0].clone())
}

fn type_of<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Type(args[0].type_name().into()))
}

fn out_of_range<T>(what: &str) -> Result<T, Failure> {
    error(format!("{what} overflow"))
}

fn unparsed<T>(text: &str, what: &str) -> Result<T, Failure> {
    let shown = &text[..text.floor_char_boundary(100)];
    error(format!(
        "type conversion error from 'string' to '{what}': {shown:?}"
    ))
}

fn to_int<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let int = match &args[0] {
        Value::Int(n) => *n,
        Value::Uint(n) => match i64::try_from(*n) {
            Ok(n) => n,
            Err(_) => return out_of_range("integer"),
        },
        Value::Double(n) if n.abs() < i64::MAX as f64 => *n as i64,
        Value::Double(_) => return out_of_range("integer"),
        Value::String(text) => match text.as_str().parse() {
            Ok(n) => n,
            Err(_) => return unparsed(text.as_str(), "int"),
        },
        Value::Timestamp(time) => time.as_second(),
        Value::Duration(nanos) => *nanos,
        _ => return no_overload(),
    };
    Ok(int.into())
}

fn to_uint<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let uint = match &args[0] {
        Value::Uint(n) => *n,
        Value::Int(n) => match u64::try_from(*n) {
            Ok(n) => n,
            Err(_) => return out_of_range("unsigned integer"),
        },
        Value::Double(n) if (0.0..u64::MAX as f64).contains(n) => *n as u64,
        Value::Double(_) => return out_of_range("unsigned integer"),
        Value::String(text) => match text.as_str().parse() {
            Ok(n) => n,
            Err(_) => return unparsed(text.as_str(), "uint"),
        },
        _ => return no_overload(),
    };
    Ok(Value::Uint(uint))
}

fn to_double<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let double = match &args[0] {
        Value::Double(n) => *n,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(text) => match text.as_str().parse() {
            Ok(n) => n,
            Err(_) => return unparsed(text.as_str(), "double"),
        },
        _ => return no_overload(),
    };
    Ok(Value::Double(double))
}

fn to_bool<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    if let Value::Bool(value) = args[0] {
        return Ok(value.into());
    }
    match text(args, 0)? {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true.into()),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false.into()),
        other => unparsed(other, "bool"),
    }
}

fn to_bytes<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
        _ => Ok(Value::Bytes(text(args, 0)?.as_bytes().into())),
    }
}

fn to_string<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    if let Value::Bytes(bytes) = &args[0] {
        return match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => error("invalid UTF-8 in bytes, cannot convert to string"),
        };
    }
    if let Value::String(_) = &args[0] {
        return Ok(args[0].clone());
    }
    match shown(&args[0]) {
        Some(text) => Ok(text.into()),
        None => no_overload(),
    }
}

/// A scalar as `string()` has it.
pub fn shown(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => crate::schema::structural::go_double(*n),
        Value::String(text) => text.as_str().to_owned(),
        Value::Timestamp(time) => time_text(*time),
        Value::Duration(nanos) => times::shown(*nanos),
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Ip(ip) => ip.to_string(),
            Opaque::Cidr(cidr) => cidr.to_string(),
            _ => return None,
        },
        _ => return None,
    })
}

fn time_text(time: Timestamp) -> String {
    time.to_string()
}
