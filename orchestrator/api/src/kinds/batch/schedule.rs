//! Schedules of CronJobs: five fields, or a word such as `@daily`.
//!
//! The syntax, its meaning and the texts of errors are those of the parser that Kubernetes uses.
//! What it accepts is written anew for the crate croner, which knows more (seconds, years, `L`,
//! `W`, `#`, 7 as Sunday) and finds the times.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// When a CronJob is due.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// At times of the calendar.
    Calendar(Box<Cron>),
    /// Again and again, counted from the last time; at least a second.
    Every(SignedDuration),
}

/// What a field holds.
struct Bounds {
    min: i64,
    max: i64,
    /// Words for the numbers from `min` on.
    names: &'static [&'static str],
}

/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Bounds; 5] = [
    bounds(0, 59, &[]),
    bounds(0, 23, &[]),
    bounds(1, 31, &[]),
    bounds(
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    bounds(0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const WORDS: [(&str, &str); 7] = [
    ("@annually", "0 0 1 1 *"),
    ("@daily", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
    ("@midnight", "0 0 * * *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@yearly", "0 0 1 1 *"),
];

/// Units of durations in nanoseconds; the longer of two that begin alike comes first.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

const fn bounds(min: i64, max: i64, names: &'static [&'static str]) -> Bounds {
    Bounds { min, max, names }
}

impl Schedule {
    /// The first time after `after`, by the clocks of `zone`. None: there is no such day.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(length) => after.checked_add(*length).ok(),
            Self::Calendar(cron) => {
                let after = after.to_zoned(zone.clone());
                let next = cron.find_next_occurrence(&after, false).ok()?;
                Some(next.timestamp())
            }
        }
    }

    /// The last time until `now`, which counts. What is done again and again is counted from `since`.
    pub fn last(&self, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(length) => {
                let elapsed = since.duration_until(now).as_secs();
                let times = elapsed / length.as_secs().max(1);
                let times = i32::try_from(times).ok().filter(|times| *times > 0)?;
                since.checked_add(*length * times).ok()
            }
            Self::Calendar(cron) => {
                let now = now.to_zoned(zone.clone());
                let last = cron.find_previous_occurrence(&now, true).ok()?;
                Some(last.timestamp())
            }
        }
    }
}

/// The schedule, or what is wrong with the text. A time zone before it is skipped: validation
/// refuses one.
pub fn parse(text: &str) -> Result<Schedule, String> {
    let text = without_zone(text);
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    if let Some(duration) = text.strip_prefix("@every ") {
        let length = parse_duration(duration).ok_or_else(|| {
            format!("failed to parse duration {text}: time: invalid duration {duration:?}")
        })?;
        return Ok(Schedule::Every(length.max(SignedDuration::from_secs(1))));
    }
    let word = WORDS.iter().find(|(word, _)| *word == text);
    let text = match word {
        Some((_, fields)) => fields,
        None if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
        None => text,
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    let plain: Result<Vec<String>, String> = fields
        .into_iter()
        .zip(&FIELDS)
        .map(|(text, bounds)| field(text, bounds))
        .collect();
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(&plain?.join(" "));
    cron.map(|cron| Schedule::Calendar(Box::new(cron)))
        .map_err(|error| error.to_string())
}

fn without_zone(text: &str) -> &str {
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let end = text.find(' ').unwrap_or(text.len());
        return text[end..].trim();
    }
    text
}

/// A field in numbers. A star among other ranges makes it a star: days of the month and of the week
/// join by "and" then, not by "or".
fn field(text: &str, bounds: &Bounds) -> Result<String, String> {
    let ranges = text.split(',').filter(|range| !range.is_empty());
    let ranges: Vec<String> = ranges
        .map(|range| numbers(range, bounds))
        .collect::<Result<_, _>>()?;
    if ranges.is_empty() || ranges.iter().any(|range| range == "*") {
        return Ok("*".into());
    }
    Ok(ranges.join(","))
}

/// `1-5/2` of `mon-fri/2`; `*` only for every number.
fn numbers(text: &str, bounds: &Bounds) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends.as_slice() {
        _ if star => (bounds.min, bounds.max),
        [only] => (number(only, bounds)?, number(only, bounds)?),
        [start, end] => (number(start, bounds)?, number(end, bounds)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = bounds.max;
            }
            integer(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    let (min, max) = (bounds.min, bounds.max);
    if start < min {
        return Err(format!(
            "beginning of range ({start}) below minimum ({min}): {text}"
        ));
    }
    if end > max {
        return Err(format!(
            "end of range ({end}) above maximum ({max}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(match step {
        1 if star => "*".into(),
        1 if start == end => start.to_string(),
        1 => format!("{start}-{end}"),
        // A step beyond the end leaves the first number.
        _ if start.saturating_add(step) > end => start.to_string(),
        _ => format!("{start}-{end}/{step}"),
    })
}

fn number(text: &str, bounds: &Bounds) -> Result<i64, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(bounds.min + at as i64),
        None => integer(text),
    }
}

fn integer(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        )),
    }
}

/// `1h30m` in whole seconds.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text.trim();
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(digits);
        let (unit, length) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let amount: i128 = format!("{whole}{fraction}").parse().ok()?;
        nanos = nanos.checked_add(amount.checked_mul(*length)? / scale)?;
        rest = &tail[unit.len()..];
    }
    let seconds = i64::try_from(nanos / 1_000_000_000).ok()?;
    (!text.trim().is_empty()).then(|| SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use jiff::Zoned;
    use jiff::civil::date;

    use super::*;

    fn next(schedule: &str) -> String {
        let start: Zoned = date(2026, 1, 1).at(10, 7, 0, 0).in_tz("UTC").unwrap();
        match parse(schedule) {
            Ok(Schedule::Calendar(cron)) => {
                let at = cron.find_next_occurrence(&start, false).unwrap();
                at.strftime("%a %F %R").to_string()
            }
            Ok(Schedule::Every(length)) => format!("{length:#}"),
            Err(why) => why,
        }
    }

    #[test]
    fn a_schedule_is_due_when_kubernetes_says() {
        for (schedule, due) in [
            ("*/5 * * * *", "Thu 2026-01-01 10:10"),
            ("0 3 * * *", "Fri 2026-01-02 03:00"),
            ("30 2 * * mon-fri", "Fri 2026-01-02 02:30"),
            ("0 0 1 */3 *", "Wed 2026-04-01 00:00"),
            ("15/20 * * * *", "Thu 2026-01-01 10:15"),
            ("0 0 ? * SUN", "Sun 2026-01-04 00:00"),
            // Either day fits where both are said, but for a star.
            ("0 0 13 * 5", "Fri 2026-01-02 00:00"),
            ("0 0 13 * *,5", "Tue 2026-01-13 00:00"),
            ("@midnight", "Fri 2026-01-02 00:00"),
            ("@hourly", "Thu 2026-01-01 11:00"),
            ("@weekly", "Sun 2026-01-04 00:00"),
            ("@every 1h30m", "1h 30m"),
            ("@every 1ms", "1s"),
        ] {
            assert_eq!(next(schedule), due, "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_as_kubernetes_tells_it() {
        for (schedule, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            (
                "0 * * * * *",
                "expected exactly 5 fields, found 6: [0 * * * * *]",
            ),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("*/1/2 * * * *", "too many slashes: */1/2"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            (
                "* * L * *",
                r#"failed to parse int from L: strconv.Atoi: parsing "L": invalid syntax"#,
            ),
            ("@reboot", "unrecognized descriptor: @reboot"),
            (
                "@every day",
                r#"failed to parse duration @every day: time: invalid duration "day""#,
            ),
        ] {
            assert_eq!(next(schedule), why, "{schedule}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_schedule_upsets_the_parser(text in "[@a-z0-9*/, ?LW#-]{0,30}") {
            let _ = parse(&text);
        }
    }
}
