//! Formats of texts: what go-openapi's `strfmt` accepts, as Kubernetes 1.34 uses it. A format that is
//! not known says nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::civil::Date;

use crate::validation::names;

/// A format of a schema.
#[derive(Debug)]
pub struct Format {
    /// As the schema writes it.
    pub name: Box<str>,
    /// None: a format of numbers.
    check: Option<fn(&str) -> bool>,
}

/// By their names without dashes.
const FORMATS: [(&str, fn(&str) -> bool); 26] = [
    ("bsonobjectid", |text| is_hex(text, 24)),
    ("uri", is_request_uri),
    ("email", is_email),
    ("hostname", is_hostname),
    ("ipv4", is_ipv4),
    ("ipv6", |text| text.contains(':') && is_ip(text)),
    ("cidr", is_cidr),
    ("mac", is_mac),
    ("uuid", |text| uuid(text).is_some()),
    ("uuid3", |text| {
        uuid(text).is_some_and(|hex| hex[12] == b'3')
    }),
    ("uuid4", |text| is_uuid_of(text, b'4')),
    ("uuid5", |text| is_uuid_of(text, b'5')),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("creditcard", is_credit_card),
    ("ssn", is_ssn),
    ("hexcolor", is_hex_color),
    ("rgbcolor", is_rgb_color),
    ("byte", is_base64),
    ("password", |_| true),
    ("date", is_date),
    ("duration", is_duration),
    ("datetime", is_date_time),
    ("k8sshortname", |text| names::label(text).is_ok()),
    ("k8slongname", |text| names::subdomain(text).is_ok()),
];

impl Format {
    pub fn of(name: Option<&str>, types: &[&str]) -> Option<Self> {
        let name = name.filter(|name| !name.is_empty())?;
        let check = match types {
            [] | ["string"] => {
                let plain = name.replace('-', "");
                let (_, check) = FORMATS.iter().find(|(known, _)| *known == plain)?;
                Some(*check)
            }
            ["integer"] if ["int32", "int64"].contains(&name) => None,
            ["number"] if ["float", "double"].contains(&name) => None,
            _ => return None,
        };
        Some(Self {
            name: name.into(),
            check,
        })
    }

    pub fn is_of_texts(&self) -> bool {
        self.check.is_some()
    }

    pub fn accepts(&self, text: &str) -> bool {
        self.check.is_none_or(|check| check(text))
    }
}

/// Whether a text has a format, by its name; every text has one that is not known.
pub fn is_of_format(name: &str, text: &str) -> bool {
    Format::of(Some(name), &["string"]).is_none_or(|format| format.accepts(text))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What can stand in the first line of a request: an absolute URI or an absolute path.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return false;
    }
    if !has_whole_escapes(text) {
        return false;
    }
    let absolute = text.split_once(':').is_some_and(|(scheme, _)| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(fits)
    });
    absolute || text.starts_with('/')
}

fn has_whole_escapes(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| part.get(..2).is_some_and(|hex| is_hex(hex, 2)))
}

/// `name@host`, or `Some Name <name@host>`.
fn is_email(text: &str) -> bool {
    let address = match text.trim().strip_suffix('>') {
        Some(rest) => rest.rsplit_once('<').map(|(_, address)| address),
        None => Some(text.trim()),
    };
    let Some((local, host)) = address.and_then(|address| address.rsplit_once('@')) else {
        return false;
    };
    let is_atom =
        |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_dotted = |text: &str| {
        text.split('.')
            .all(|p| !p.is_empty() && p.chars().all(is_atom))
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = host.starts_with('[') && host.ends_with(']');
    (quoted || is_dotted(local)) && (literal || is_dotted(host))
}

/// Labels of letters, digits, symbols and inner dashes; the last of several has no digits.
fn is_hostname(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_digit() || c.is_alphabetic() || is_symbol(c);
    let is_label = |label: &str| {
        let whole = (1..=63).contains(&label.len());
        let ends = label.starts_with('-') || label.ends_with('-');
        whole && !ends && label.chars().all(|c| is_inner(c) || c == '-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    let is_top = |label: &str| label.chars().count() >= 2 && label.chars().all(char::is_alphabetic);
    text.len() <= 255
        && labels.iter().all(|label| is_label(label))
        && (labels.len() == 1 || is_top(last))
}

fn is_symbol(c: char) -> bool {
    !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace() && !c.is_control()
}

/// Go's older parser took zeros in front of a number; Kubernetes still does.
pub fn without_zeros(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let parts: [&str; 4] = parts.try_into().ok()?;
    let mut octets = [0; 4];
    for (octet, part) in octets.iter_mut().zip(parts) {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        *octet = part.parse().ok().filter(|_| digits && part.len() <= 8)?;
    }
    Some(octets.into())
}

fn is_ip(text: &str) -> bool {
    without_zeros(text).is_some() || text.parse::<Ipv6Addr>().is_ok()
}

fn is_ipv4(text: &str) -> bool {
    text.contains('.') && is_ip(text)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let max = if address.contains(':') { 128 } else { 32 };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    is_ip(address) && digits && length.parse::<u32>().is_ok_and(|length| length <= max)
}

/// 6, 8 or 20 bytes with colons or dashes, or dots between each two.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| {
        let mut count = 0;
        let whole = text.split(separator).all(|part| {
            count += 1;
            is_hex(part, width)
        });
        whole.then_some(count * width / 2)
    };
    let sizes = [groups(':', 2), groups('-', 2), groups('.', 4)];
    sizes.iter().flatten().any(|size| [6, 8, 20].contains(size))
}

/// The 32 digits of a UUID; the dashes at their places may be left out.
fn uuid(text: &str) -> Option<[u8; 32]> {
    let mut rest = text;
    let mut digits = Vec::with_capacity(32);
    for (at, width) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let part = rest.get(..width).filter(|part| is_hex(part, width))?;
        digits.extend_from_slice(part.as_bytes());
        rest = &rest[width..];
    }
    let digits: [u8; 32] = digits.try_into().ok()?;
    rest.is_empty().then_some(digits)
}

fn is_uuid_of(text: &str, version: u8) -> bool {
    let variant = |hex: &[u8; 32]| b"89abAB".contains(&hex[16]);
    uuid(text).is_some_and(|hex| hex[12] == version && variant(&hex))
}

fn isbn_digits(text: &str) -> Vec<char> {
    text.chars().filter(|c| !"- ".contains(*c)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    let mut sum = 0;
    for (at, c) in digits.iter().enumerate() {
        let value = match (c, at) {
            ('X' | 'x', 9) => 10,
            (c, _) => match c.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += (at as u32 + 1) * value;
    }
    digits.len() == 10 && sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits = isbn_digits(text);
    let values: Option<Vec<u32>> = digits.iter().map(|c| c.to_digit(10)).collect();
    let Some(values) = values.filter(|values| values.len() == 13) else {
        return false;
    };
    let weighed = values.iter().enumerate();
    let sum: u32 = weighed
        .map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 })
        .sum();
    sum.is_multiple_of(10)
}

/// Digits of one of the known lengths and beginnings, whatever stands between them, with Luhn's sum.
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let begins = |prefix: &str| {
        let prefix = prefix.chars().filter_map(|c| c.to_digit(10));
        prefix.zip(&digits).all(|(a, b)| a == *b)
    };
    let known = match digits.len() {
        13 => begins("4"),
        14 => begins("36") || begins("38") || (0..=5).any(|n| begins(&format!("30{n}"))),
        15 => ["34", "37", "2131", "1800"].iter().any(|p| begins(p)),
        16 => {
            begins("4")
                || begins("6011")
                || begins("65")
                || begins("35")
                || (1..=5).any(|n| begins(&format!("5{n}")))
        }
        _ => false,
    };
    let luhn: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    known && luhn.is_multiple_of(10)
}

fn is_ssn(text: &str) -> bool {
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let plain: String = text.chars().filter(|c| !"- ".contains(*c)).collect();
    let separators = text.len() - plain.len();
    plain.len() == 9
        && is_digits(&plain)
        && separators <= 2
        && text.get(..3).is_some_and(is_digits)
        && text.get(text.len() - 4..).is_some_and(is_digits)
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    is_hex(digits, 3) || is_hex(digits, 6)
}

fn is_rgb_color(text: &str) -> bool {
    let inner = text
        .strip_prefix("rgb(")
        .and_then(|rest| rest.strip_suffix(')'));
    let Some(inner) = inner else {
        return false;
    };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let fits = |part: &&str| {
        let plain = *part == "0" || !part.starts_with('0');
        plain && part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u8>().is_ok()
    };
    parts.len() == 3 && parts.iter().all(fits)
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<Date>().is_ok()
}

/// Of RFC 3339, but for a leap second.
fn is_date_time(text: &str) -> bool {
    let Some((date, rest)) = text.split_once(['t', 'T']) else {
        return false;
    };
    let Some((time, rest)) = rest.split_at_checked(8) else {
        return false;
    };
    let numbers: Vec<&str> = time.split(':').collect();
    let below = |part: &str, limit: u32| {
        part.len() == 2
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|n| n < limit)
    };
    let is_time = match numbers[..] {
        [hour, minute, second] => below(hour, 24) && below(minute, 60) && below(second, 60),
        _ => false,
    };
    let digits = rest.strip_prefix('.').map(|rest| {
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        (length, &rest[length..])
    });
    let zone = match digits {
        Some((0, _)) => return false,
        Some((_, zone)) => zone,
        None => rest,
    };
    let is_zone = zone.eq_ignore_ascii_case("z")
        || zone.strip_prefix(['+', '-']).is_some_and(|offset| {
            let parts = offset.split_once(':');
            parts.is_some_and(|(hour, minute)| below(hour, 100) && below(minute, 100))
        });
    is_date(date) && is_time && is_zone
}

/// What Go's `time.ParseDuration` takes (`1h30m`), and the words of Scala (`3 days`).
fn is_duration(text: &str) -> bool {
    go_duration(text).is_some() || scala_duration(text)
}

const NANOSECONDS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 6e10),
    ("h", 3.6e12),
];

/// Nanoseconds of a duration as Go writes it: `-1h30m0.5s`.
pub fn go_duration(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (unsigned, 0i128);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let length = rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count();
        let (number, after) = rest.split_at(length);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let (_, size) = NANOSECONDS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 32 {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let part: f64 = format!("0.{fraction}0").parse().ok()?;
        sum = sum.checked_add(whole.checked_mul(*size as i128)?)?;
        sum += (part * size) as i128;
        rest = after;
    }
    let sum = if text.starts_with('-') { -sum } else { sum };
    i64::try_from(sum).ok()
}

fn scala_duration(text: &str) -> bool {
    const WORDS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "\u{b5}s", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let is_unit = |unit: &str| {
        WORDS.iter().any(|words| {
            let last = words.last().copied().unwrap_or_default();
            words.contains(&unit) || unit.starts_with(last)
        })
    };
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let after = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit());
        let after = after.trim_start();
        let is_letter = |c: char| c.is_ascii_alphabetic() || c == '\u{b5}';
        let end = after.find(|c| !is_letter(c)).unwrap_or(after.len());
        if is_unit(&after[..end].to_lowercase()) {
            return true;
        }
        rest = &after[end..];
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Format, what it takes, what it does not.
    const TAKEN: [(&str, &[&str], &[&str]); 19] = [
        (
            "date-time",
            &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"],
            &[
                "2014-12-15",
                "2014-13-15T19:30:20Z",
                "2014-12-15T24:00:00Z",
                "2014-12-15T19:30:20",
                "2014-12-15T19:30:20.Z",
            ],
        ),
        (
            "date",
            &["2006-01-02"],
            &["2006-1-2", "2006-02-30", "20060102"],
        ),
        (
            "uuid",
            &[
                "A7B2F3C4-0000-1111-2222-333344445555",
                "a7b2f3c4000011112222333344445555",
            ],
            &["a7b2f3c4", ""],
        ),
        (
            "uuid4",
            &["f47ac10b-58cc-4372-a567-0e02b2c3d479"],
            &["f47ac10b-58cc-3372-a567-0e02b2c3d479"],
        ),
        (
            "ipv4",
            &["10.0.0.1", "010.0.0.1"],
            &["10.0.0", "10.0.0.256", "::1"],
        ),
        ("ipv6", &["::1", "2001:db8::1"], &["10.0.0.1", "1::2::3"]),
        (
            "cidr",
            &["10.0.0.0/8", "2001:db8::/32"],
            &["10.0.0.0/33", "10.0.0.0", "a/8"],
        ),
        (
            "mac",
            &["00:1a:2b:3c:4d:5e", "001a.2b3c.4d5e", "00-1a-2b-3c-4d-5e"],
            &["00:1a:2b:3c:4d", "zz:1a:2b:3c:4d:5e"],
        ),
        ("byte", &["YWJj", "YQ=="], &["a", "", "***="]),
        (
            "email",
            &["a@b.c", "Some One <a@b.c>", "a+b@c"],
            &["a", "a@", "@b", "a b@c"],
        ),
        (
            "hostname",
            &["a", "a-b.example.com", "1a.com"],
            &["-a", "a..b", "a.b1", "a_b"],
        ),
        (
            "uri",
            &["https://a.example/b?c=d", "/a/b", "urn:x"],
            &["a b", "", "a", "/%zz"],
        ),
        (
            "duration",
            &["1h30m", "-1.5s", "0", "22 ns", "3 days"],
            &["", "1", "h", "a"],
        ),
        ("hexcolor", &["#fff", "ABCDEF"], &["#ff", "#ggg"]),
        (
            "rgbcolor",
            &["rgb(255, 255,0)"],
            &["rgb(256,0,0)", "rgb(1,2)"],
        ),
        (
            "ssn",
            &["123-45-6789", "123456789"],
            &["12-345-678", "1234"],
        ),
        ("isbn", &["0321751043", "978-0321751041"], &["0321751044"]),
        (
            "creditcard",
            &["4111 1111 1111 1111"],
            &["4111 1111 1111 1112"],
        ),
        ("k8s-short-name", &["a-b"], &["A", "a.b"]),
    ];

    #[test]
    fn a_format_takes_what_go_takes() {
        for (name, right, wrong) in TAKEN {
            let format = Format::of(Some(name), &["string"]).unwrap();
            right
                .iter()
                .for_each(|text| assert!(format.accepts(text), "{name}: {text}"));
            wrong
                .iter()
                .for_each(|text| assert!(!format.accepts(text), "{name}: {text}"));
        }
    }

    #[test]
    fn a_format_of_another_type_or_of_nobody_says_nothing() {
        assert!(Format::of(Some("date"), &["integer"]).is_none());
        assert!(Format::of(Some("quantity"), &["string"]).is_none());
        assert!(Format::of(Some("int32"), &["integer"]).is_some());
    }

    #[test]
    fn a_duration_of_go_has_nanoseconds() {
        for (text, expected) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            (".5ms", Some(500_000)),
            ("2562047h47m16.854775807s", Some(i64::MAX)),
            ("2562048h", None),
            ("1", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(go_duration(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_for_any_format(text in "\\PC{0,40}|[0-9a-fTZ:. /%@+-]{0,40}") {
            for (name, _) in FORMATS {
                let format = Format::of(Some(name), &["string"]);
                format.inspect(|format| { format.accepts(&text); });
            }
        }
    }
}
