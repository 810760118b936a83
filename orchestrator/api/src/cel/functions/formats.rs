//! Named formats: `format.dns1123Label().validate(text)` has what is wrong with a text, if anything is.

use super::{Cost, ONE, Overload, Run, T, f, m, net::opaque, strings::text};
use crate::{
    cel::{
        meter::Meter,
        typing::Opaque as O,
        value::{List, Opaque, Outcome, Value, no_overload},
    },
    schema::structural::is_of_format,
    validation::names,
};

const FORMAT: T = T::Of(O::Format);

pub const TABLE: &[Overload] = &[
    f("format.named", &[T::Str], T::Opt(&FORMAT), ONE, named),
    m(
        "validate",
        &[FORMAT, T::Str],
        T::Opt(&T::List(&T::Str)),
        Cost::NamedFormat,
        validate,
    ),
    by("format.dns1123Label", |_, _| Ok(of("dns1123Label"))),
    by("format.dns1123Subdomain", |_, _| Ok(of("dns1123Subdomain"))),
    by("format.dns1035Label", |_, _| Ok(of("dns1035Label"))),
    by("format.qualifiedName", |_, _| Ok(of("qualifiedName"))),
    by("format.dns1123LabelPrefix", |_, _| {
        Ok(of("dns1123LabelPrefix"))
    }),
    by("format.dns1123SubdomainPrefix", |_, _| {
        Ok(of("dns1123SubdomainPrefix"))
    }),
    by("format.dns1035LabelPrefix", |_, _| {
        Ok(of("dns1035LabelPrefix"))
    }),
    by("format.labelValue", |_, _| Ok(of("labelValue"))),
    by("format.uri", |_, _| Ok(of("uri"))),
    by("format.uuid", |_, _| Ok(of("uuid"))),
    by("format.byte", |_, _| Ok(of("byte"))),
    by("format.date", |_, _| Ok(of("date"))),
    by("format.datetime", |_, _| Ok(of("datetime"))),
];

type Check = fn(&str) -> Result<(), String>;

const CHECKS: [(&str, Check); 13] = [
    ("dns1123Label", names::label),
    ("dns1123Subdomain", names::subdomain),
    ("dns1035Label", names::label_1035),
    ("qualifiedName", names::label_key),
    ("dns1123LabelPrefix", |text| {
        names::label(without_dash(text))
    }),
    ("dns1123SubdomainPrefix", |text| {
        names::subdomain(without_dash(text))
    }),
    ("dns1035LabelPrefix", |text| {
        names::label_1035(without_dash(text))
    }),
    ("labelValue", names::label_value),
    ("uri", |text| of_format("uri", text)),
    ("uuid", |text| of_format("uuid", text)),
    ("byte", |text| of_format("byte", text)),
    ("date", |text| of_format("date", text)),
    ("datetime", |text| of_format("date-time", text)),
];

const fn by(name: &'static str, run: Run) -> Overload {
    f(name, &[], FORMAT, ONE, run)
}

fn of<'a>(name: &'static str) -> Value<'a> {
    opaque(Opaque::Format(name))
}

/// A prefix may end with a dash.
fn without_dash(text: &str) -> &str {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => rest,
        _ => text,
    }
}

fn of_format(name: &str, text: &str) -> Result<(), String> {
    match is_of_format(name, text) {
        true => Ok(()),
        false => Err(format!("must be of type {name}")),
    }
}

fn named<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let wanted = text(args, 0)?;
    let found = CHECKS.iter().find(|(name, _)| *name == wanted);
    Ok(Value::Optional(found.map(|(name, _)| of(name).into())))
}

fn validate<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(format) = &args[0] else {
        return no_overload();
    };
    let Opaque::Format(name) = **format else {
        return no_overload();
    };
    let check = CHECKS.iter().find(|(known, _)| *known == name);
    let outcome = check.map_or(Ok(()), |(_, check)| match args[1].as_str() {
        Some(text) => check(text),
        None => Ok(()),
    });
    Ok(Value::Optional(match outcome {
        Ok(()) => None,
        Err(why) => Some(List::made(vec![why.into()]).into()),
    }))
}
