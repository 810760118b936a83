//! Times and durations.

use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};

use super::{ONE, Overload, T, f, m, strings::text};
use crate::{
    cel::{
        meter::Meter,
        value::{Failure, Outcome, Value, error, no_overload},
    },
    schema::structural::go_duration,
};

pub const TABLE: &[Overload] = &[
    f("duration", &[T::Str], T::Dur, ONE, to_duration),
    f("duration", &[T::Dur], T::Dur, ONE, to_duration),
    f("timestamp", &[T::Str], T::Time, ONE, to_timestamp),
    f("timestamp", &[T::Time], T::Time, ONE, to_timestamp),
    f("timestamp", &[T::Int], T::Time, ONE, to_timestamp),
    m("getFullYear", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| t.year().into())
    }),
    m("getFullYear", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| t.year().into())
    }),
    m("getMonth", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| i64::from(t.month()) - 1)
    }),
    m("getMonth", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| i64::from(t.month()) - 1)
    }),
    m("getDayOfYear", &[T::Time], T::Int, ONE, |_, a| {
        field(a, day_of_year)
    }),
    m("getDayOfYear", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, day_of_year)
    }),
    m("getDayOfMonth", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| i64::from(t.day()) - 1)
    }),
    m("getDayOfMonth", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| i64::from(t.day()) - 1)
    }),
    m("getDate", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| t.day().into())
    }),
    m("getDate", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| t.day().into())
    }),
    m("getDayOfWeek", &[T::Time], T::Int, ONE, |_, a| {
        field(a, day_of_week)
    }),
    m("getDayOfWeek", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, day_of_week)
    }),
    m("getHours", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| t.hour().into())
    }),
    m("getHours", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| t.hour().into())
    }),
    m("getMinutes", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| t.minute().into())
    }),
    m("getMinutes", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| t.minute().into())
    }),
    m("getSeconds", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| t.second().into())
    }),
    m("getSeconds", &[T::Time, T::Str], T::Int, ONE, |_, a| {
        field(a, |t| t.second().into())
    }),
    m("getMilliseconds", &[T::Time], T::Int, ONE, |_, a| {
        field(a, |t| t.millisecond().into())
    }),
    m(
        "getMilliseconds",
        &[T::Time, T::Str],
        T::Int,
        ONE,
        |_, a| field(a, |t| t.millisecond().into()),
    ),
    m("getHours", &[T::Dur], T::Int, ONE, |_, a| {
        part(a, 3_600_000_000_000)
    }),
    m("getMinutes", &[T::Dur], T::Int, ONE, |_, a| {
        part(a, 60_000_000_000)
    }),
    m("getSeconds", &[T::Dur], T::Int, ONE, |_, a| {
        part(a, 1_000_000_000)
    }),
    m("getMilliseconds", &[T::Dur], T::Int, ONE, |_, a| {
        part(a, 1_000_000)
    }),
];

/// Nanoseconds of a text like `1h30m`.
pub fn duration(text: &str) -> Result<i64, Failure> {
    match go_duration(text) {
        Some(nanos) => Ok(nanos),
        None => {
            let shown = &text[..text.floor_char_boundary(100)];
            error(format!("time: invalid duration {shown:?}"))
        }
    }
}

/// A time of RFC 3339.
pub fn timestamp(text: &str) -> Result<Timestamp, Failure> {
    match text.parse() {
        Ok(time) => Ok(time),
        Err(_) => {
            let shown = &text[..text.floor_char_boundary(100)];
            error(format!(
                "parsing time {shown:?} as RFC 3339: cannot parse it"
            ))
        }
    }
}

pub fn moved<'a>(time: Timestamp, nanos: i64) -> Outcome<'a> {
    match time.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(time) => Ok(Value::Timestamp(time)),
        Err(_) => error("timestamp overflow"),
    }
}

/// A duration as `string()` has it: `5400s`.
pub fn shown(nanos: i64) -> String {
    format!(
        "{}s",
        crate::schema::structural::go_double(nanos as f64 / 1e9)
    )
}

fn to_duration<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(nanos) => Ok(Value::Duration(*nanos)),
        _ => Ok(Value::Duration(duration(text(args, 0)?)?)),
    }
}

fn to_timestamp<'a>(_: &mut Meter<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Timestamp(time) => Ok(Value::Timestamp(*time)),
        Value::Int(seconds) => match Timestamp::from_second(*seconds) {
            Ok(time) => Ok(Value::Timestamp(time)),
            Err(_) => error("timestamp overflow"),
        },
        _ => Ok(Value::Timestamp(timestamp(text(args, 0)?)?)),
    }
}

/// A zone by its name, or as `+02:00`.
fn zone(name: &str) -> Result<TimeZone, Failure> {
    let fixed = || {
        let (sign, rest) = match name.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, name.strip_prefix('+').unwrap_or(name)),
        };
        let (hours, minutes) = rest.split_once(':')?;
        let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
        let offset = jiff::tz::Offset::from_seconds(sign * seconds).ok()?;
        Some(TimeZone::fixed(offset))
    };
    let short = name.len() < 64;
    let found = fixed().or_else(|| TimeZone::get(name).ok());
    match found.filter(|_| short) {
        Some(zone) => Ok(zone),
        None => error(format!(
            "unknown time zone {}",
            &name[..name.floor_char_boundary(64)]
        )),
    }
}

fn field<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Outcome<'a> {
    let Value::Timestamp(time) = &args[0] else {
        return no_overload();
    };
    let zone = match args.get(1) {
        Some(_) => zone(text(args, 1)?)?,
        None => TimeZone::UTC,
    };
    Ok(of(&time.to_zoned(zone)).into())
}

fn day_of_year(time: &Zoned) -> i64 {
    i64::from(time.day_of_year()) - 1
}

fn day_of_week(time: &Zoned) -> i64 {
    time.weekday().to_sunday_zero_offset().into()
}

fn part<'a>(args: &[Value<'a>], unit: i64) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(nanos) => Ok((nanos / unit).into()),
        _ => no_overload(),
    }
}
