//! Limits of numbers.
//!
//! JSON has one kind of number and Go two: what is written without a point and fits 64 bits is an
//! integer, everything else a double. Limits of a schema are doubles.

use serde_json::{Number, Value};

/// 2^53 - 1: the largest integer that a double counts up to.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

#[derive(Debug, Default)]
pub struct Rules {
    max: Option<f64>,
    below_max: bool,
    min: Option<f64>,
    above_min: bool,
    multiple_of: Option<f64>,
    /// The type and format whose range the value is in, if the type is not ambiguous.
    width: Option<Width>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Int32,
    Int64,
    /// 64 bits, though nobody said so.
    Integer,
    Float,
}

/// What is wrong with a number: the text after the name of the field, or one before it.
pub enum Wrong {
    Field(String),
    Own(String),
}

impl Rules {
    pub fn of(schema: &Value, types: &[&str]) -> Option<Box<Self>> {
        let number = |name: &str| schema[name].as_f64();
        let rules = Self {
            max: number("maximum"),
            below_max: schema["exclusiveMaximum"] == true,
            min: number("minimum"),
            above_min: schema["exclusiveMinimum"] == true,
            multiple_of: number("multipleOf"),
            width: match (types, schema["format"].as_str()) {
                (["integer"], Some("int32")) => Some(Width::Int32),
                (["integer"], Some("int64")) => Some(Width::Int64),
                (["integer"], _) => Some(Width::Integer),
                (["number"], Some("float")) => Some(Width::Float),
                _ => None,
            },
        };
        let limits = [rules.max, rules.min, rules.multiple_of];
        let says = rules.width.is_some() || limits.iter().any(Option::is_some);
        says.then(|| Box::new(rules))
    }

    pub fn check(&self, number: &Number) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        if let Some(width) = self.width.filter(|width| !width.holds(number)) {
            wrong.push(Wrong::Own(format!(
                "Checked value must be of type {}",
                width.name()
            )));
        }
        let mut refuse = |is: bool, what: String| {
            if is {
                wrong.push(Wrong::Field(what));
            }
        };
        if let Some(factor) = self.multiple_of {
            let why = format!("should be a multiple of {}", shown(number, factor));
            refuse(!is_multiple(number, factor), why);
        }
        if let Some(min) = self.min {
            let (is, or) = match self.above_min {
                true => (!is_less(min, number), ""),
                false => (is_more(min, number), " or equal to"),
            };
            refuse(
                is,
                format!("should be greater than{or} {}", shown(number, min)),
            );
        }
        if let Some(max) = self.max {
            let (is, or) = match self.below_max {
                true => (!is_more(max, number), ""),
                false => (is_less(max, number), " or equal to"),
            };
            refuse(
                is,
                format!("should be less than{or} {}", shown(number, max)),
            );
        }
        wrong
    }
}

impl Width {
    fn holds(self, number: &Number) -> bool {
        match (self, number.as_i64()) {
            (Self::Int32, Some(n)) => i32::try_from(n).is_ok(),
            (Self::Int64 | Self::Integer, Some(_)) => true,
            (Self::Float, _) => {
                let double = number.as_f64().unwrap_or_default();
                double.abs() <= f64::from(f32::MAX)
            }
            // A double is in the range if it is written like an integer.
            (_, None) => {
                let double = number.as_f64().unwrap_or(f64::INFINITY);
                let max = if self == Self::Int32 {
                    f64::from(i32::MAX)
                } else {
                    i64::MAX as f64
                };
                double.fract() == 0.0 && double.abs() < max
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Int32 => "integer with format int32",
            Self::Int64 => "integer with format int64",
            Self::Integer => "integer (default format)",
            Self::Float => "number with format float",
        }
    }
}

/// Whether the limit is less than the number. Integers are compared with the limit as an integer.
fn is_less(limit: f64, number: &Number) -> bool {
    match number.as_i64() {
        Some(n) => (limit as i64) < n,
        None => limit < number.as_f64().unwrap_or_default(),
    }
}

fn is_more(limit: f64, number: &Number) -> bool {
    match number.as_i64() {
        Some(n) => (limit as i64) > n,
        None => limit > number.as_f64().unwrap_or_default(),
    }
}

fn is_multiple(number: &Number, factor: f64) -> bool {
    if factor <= 0.0 {
        return false;
    }
    if let Some(n) = number.as_i64()
        && factor.fract() == 0.0
        && factor.abs() < MAX_SAFE
    {
        return n % (factor as i64) == 0;
    }
    let double = number.as_f64().unwrap_or_default();
    let quotient = match factor < 1.0 {
        true => 1.0 / factor * double,
        false => double / factor,
    };
    is_integer(quotient)
}

/// A double that stands for an integer, give or take what the arithmetic of doubles loses.
pub fn is_integer(double: f64) -> bool {
    if !double.is_finite() || double.abs() > MAX_SAFE {
        return false;
    }
    let off = (double - double.trunc()).abs();
    off == 0.0 || off / (double.abs() + double.trunc().abs()) < 1e-9
}

/// A limit as Go prints it: without a point beside an integer.
fn shown(number: &Number, limit: f64) -> String {
    match number.as_i64() {
        Some(_) if limit.fract() == 0.0 => (limit as i64).to_string(),
        _ => go_double(limit),
    }
}

/// A double as `%v` of Go prints it.
pub fn go_double(double: f64) -> String {
    if double.is_nan() {
        return "NaN".into();
    }
    if double.is_infinite() {
        return if double > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let exponent = match double.abs() {
        0.0 => 0,
        size => size.log10().floor() as i32,
    };
    if (-4..21).contains(&exponent) {
        return double.to_string();
    }
    let text = format!("{double:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}
