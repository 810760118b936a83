//! Kubernetes quantities: `100m`, `1.5Gi`, `1e3`. Exact to a nano unit; no floating point.

use std::{cmp::Ordering, fmt, ops};

/// What a value that is no quantity is told.
pub const FORMAT: &str = "quantities must match the regular expression \
     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const BAD_SUFFIX: &str = "unable to parse quantity's suffix";

const NANOS: i128 = 1_000_000_000;

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// In units of 10⁻⁹, rounded away from zero.
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

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError(FORMAT));
        }
        let scale = Scale::parse(suffix)?;
        let nanos = scale.nanos(whole, fraction);
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            form: scale.form(),
        })
    }

    /// Whole units: bytes, pods.
    pub fn from_units(units: i64) -> Self {
        Self {
            nanos: i128::from(units) * NANOS,
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
        self.rounded_up(NANOS)
    }

    /// In thousandths, rounded up.
    pub fn millis(self) -> i64 {
        self.rounded_up(1_000_000)
    }

    /// The same without a limit: bytes in thousandths.
    pub fn wide_millis(self) -> i128 {
        let scale = 1_000_000;
        self.nanos.div_euclid(scale) + i128::from(self.nanos.rem_euclid(scale) != 0)
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// A whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The next whole number of units, written as before.
    pub fn rounded_up_to_units(self) -> Self {
        let up = self.nanos.div_euclid(NANOS) + i128::from(!self.is_whole());
        Self {
            nanos: up.saturating_mul(NANOS),
            form: self.form,
        }
    }

    /// How many times the other amount, which is not zero, this one is: to be shown, and compared with
    /// ratios, which nobody writes more exactly.
    pub fn ratio_to(self, other: Self) -> f64 {
        self.nanos as f64 / other.nanos as f64
    }

    fn rounded_up(self, scale: i128) -> i64 {
        let up = self.nanos.div_euclid(scale) + i128::from(self.nanos.rem_euclid(scale) != 0);
        up.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    fn write_decimal(self, f: &mut fmt::Formatter<'_>, suffixes: &[&str]) -> fmt::Result {
        // From nano upwards: the largest suffix that loses nothing.
        let mut amount = self.nanos;
        let mut index = 0;
        while amount % 1000 == 0 && index + 1 < suffixes.len() {
            amount /= 1000;
            index += 1;
        }
        write!(f, "{amount}{}", suffixes[index])
    }

    fn write_binary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut amount = self.nanos / NANOS;
        let mut index = 0;
        while amount % 1024 == 0 && index + 1 < BINARY.len() {
            amount /= 1024;
            index += 1;
        }
        write!(f, "{amount}{}", BINARY[index])
    }
}

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const EXPONENT: [&str; 10] = [
    "e-9", "e-6", "e-3", "", "e3", "e6", "e9", "e12", "e15", "e18",
];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What the suffix multiplies with.
enum Scale {
    /// 10^n, written with a letter or as an exponent.
    Ten(i32, Form),
    /// 2^n.
    Two(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<Self, QuantityError> {
        if let Some(at) = DECIMAL.iter().position(|s| *s == suffix) {
            return Ok(Self::Ten(at as i32 * 3 - 9, Form::DecimalSi));
        }
        if let Some(at) = BINARY.iter().position(|s| *s == suffix) {
            return Ok(Self::Two(at as u32 * 10));
        }
        let exponent = suffix
            .strip_prefix(['e', 'E'])
            .ok_or(QuantityError(BAD_SUFFIX))?;
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError(BAD_SUFFIX));
        }
        // An exponent that does not fit a number is as good as a very large one.
        let exponent = exponent.parse::<i32>().unwrap_or(i32::MAX);
        Ok(Self::Ten(exponent.clamp(-1000, 1000), Form::Exponent))
    }

    fn form(&self) -> Form {
        match self {
            Self::Ten(_, form) => *form,
            Self::Two(_) => Form::BinarySi,
        }
    }

    /// `whole.fraction` of this scale in nanos, rounded up, capped at 2⁶³−1 units.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        const CAP: i128 = i64::MAX as i128 * NANOS;
        // Digits and the power of ten that makes them nanos.
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return 0;
        }
        let power = 9 - fraction.len() as i64;
        let (power, factor) = match self {
            Self::Ten(exponent, _) => (power + i64::from(*exponent), 1i128),
            Self::Two(bits) => (power, 1i128 << bits),
        };
        if digits.len() as i64 + power > 30 {
            return CAP;
        }
        // Beyond 28 digits nothing counts but that something was there (it rounds up).
        let (digits, cut) = digits.split_at(digits.len().min(28));
        let power = power + cut.len() as i64;
        let inexact = cut.bytes().any(|b| b != b'0');
        let mantissa: i128 = digits.parse().unwrap_or(i128::MAX);
        let Some(mantissa) = mantissa.checked_mul(factor) else {
            return big(mantissa, factor, power).min(CAP);
        };
        let nanos = if power >= 0 {
            mantissa.saturating_mul(10i128.saturating_pow(power as u32))
        } else {
            divide_up(mantissa, power)
        };
        nanos.saturating_add(i128::from(inexact)).min(CAP)
    }
}

/// `mantissa × factor × 10^power` where the first product is too large: divides first.
fn big(mantissa: i128, factor: i128, power: i64) -> i128 {
    let nanos = if power >= 0 {
        mantissa
    } else {
        divide_up(mantissa, power)
    };
    nanos.saturating_mul(factor)
}

fn divide_up(amount: i128, power: i64) -> i128 {
    let divisor = 10i128.saturating_pow(power.unsigned_abs().min(38) as u32);
    amount / divisor + i128::from(amount % divisor != 0)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
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

/// Canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            _ if self.nanos == 0 => f.write_str("0"),
            // Below 1024 and in fractions a binary amount is written in decimal.
            Form::BinarySi if self.is_whole() && self.nanos.abs() >= 1024 * NANOS => {
                self.write_binary(f)
            }
            Form::BinarySi | Form::DecimalSi => self.write_decimal(f, &DECIMAL),
            Form::Exponent => self.write_decimal(f, &EXPONENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_written_canonically() {
        let cases = [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1024", "1024"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("2048Ki", "2Mi"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("100000", "100k"),
            ("0.1m", "100u"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("1n", "1n"),
            ("110", "110"),
            ("8146840Ki", "8146840Ki"),
            ("99999999999999999999E", "9223372036854775807"),
        ];
        for (text, canonical) in cases {
            assert_eq!(
                Quantity::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-", "m", "1.2.3", "abc", "1 Gi"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        for text in ["1Gb", "1KiB", "5mm", "1e", "1e+", "1ee3"] {
            assert_eq!(
                Quantity::parse(text),
                Err(QuantityError(BAD_SUFFIX)),
                "{text}"
            );
        }
    }

    #[test]
    fn cpu_is_counted_in_thousandths_and_memory_in_bytes_rounded_up() {
        let parse = |text| Quantity::parse(text).unwrap();
        assert_eq!(parse("100m").millis(), 100);
        assert_eq!(parse("2").millis(), 2000);
        assert_eq!(parse("100u").millis(), 1);
        assert_eq!(parse("64Mi").units(), 64 << 20);
        assert_eq!(parse("1.5").units(), 2);
        assert_eq!(parse("7Ei").units(), 7 << 60);
        assert_eq!((parse("1Gi") + parse("512Mi")).to_string(), "1536Mi");
        assert!(parse("999m") < parse("1"));
        assert_eq!(parse("1024Mi"), parse("1Gi"));
    }

    proptest! {
        #[test]
        fn the_canonical_form_means_the_same(
            whole in 0u64..1 << 40, fraction in 0u32..1000,
            suffix in prop::sample::select(vec!["", "m", "k", "Ki", "Mi", "G", "e3", "u"]),
        ) {
            let quantity = Quantity::parse(&format!("{whole}.{fraction:03}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            // Bytes that no binary suffix fits are read as a decimal amount the next time.
            let text = again.to_string();
            prop_assert_eq!(Quantity::parse(&text).unwrap().to_string(), text);
        }
    }
}
