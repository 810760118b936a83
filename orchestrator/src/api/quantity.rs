//! Kubernetes quantities: `100m`, `1.5Gi`, `1e3`. Exact to a nano unit; no floating point.

use std::{fmt, ops};

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// In units of 10⁻⁹, rounded up.
    nanos: i128,
    form: Form,
}

/// How an amount likes to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    DecimalSi,
    BinarySi,
    Exponent,
}

/// The text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QuantityError(pub &'static str);

impl Quantity {
    pub const ZERO: Self = Self {
        nanos: 0,
        form: Form::DecimalSi,
    };

    pub fn parse(_text: &str) -> Result<Self, QuantityError> {
        todo!()
    }

    /// Whole units: bytes, pods.
    pub fn from_units(units: i64) -> Self {
        Self {
            nanos: i128::from(units) * 1_000_000_000,
            form: Form::DecimalSi,
        }
    }

    /// Thousandths: CPU.
    pub fn from_millis(millis: i64) -> Self {
        Self {
            nanos: i128::from(millis) * 1_000_000,
            form: Form::DecimalSi,
        }
    }

    /// In whole units, rounded up.
    pub fn units(self) -> i64 {
        self.rounded_up(1_000_000_000)
    }

    /// In thousandths, rounded up.
    pub fn millis(self) -> i64 {
        self.rounded_up(1_000_000)
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    fn rounded_up(self, scale: i128) -> i64 {
        let up = self.nanos.div_euclid(scale) + i128::from(self.nanos.rem_euclid(scale) != 0);
        up.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let form = if self.is_zero() {
            other.form
        } else {
            self.form
        };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            form,
        }
    }
}

impl ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let form = if self.is_zero() {
            other.form
        } else {
            self.form
        };
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
            form,
        }
    }
}

/// Canonical form.
impl fmt::Display for Quantity {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
