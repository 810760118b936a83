//! Which time of a schedule a CronJob has still to serve. Pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use api::kinds::batch::schedule::Schedule;

/// As many missed times are told of.
const MANY: usize = 100;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// The last time that has come and was not served.
    pub due: Option<Timestamp>,
    /// More than a hundred have come and were not served.
    pub too_many: bool,
    /// The next time after now.
    pub next: Option<Timestamp>,
}

/// What is due of a schedule that was last served, or made, at `since`; times before `not_before` are not looked at.
pub fn times(
    schedule: &Schedule,
    zone: &TimeZone,
    since: Timestamp,
    not_before: Option<Timestamp>,
    now: Timestamp,
) -> Times {
    let since = not_before.map_or(since, |at| at.max(since));
    let mut first = schedule.next(since, zone);
    let mut count = 0;
    while let Some(at) = first.filter(|at| *at <= now && count <= MANY) {
        count += 1;
        first = schedule.next(at, zone);
    }
    let due = match count {
        0 => None,
        _ => schedule.last(since, now, zone).filter(|at| *at > since),
    };
    let next = match schedule {
        Schedule::Calendar(_) => schedule.next(now, zone),
        Schedule::Every(length) => Some(due.unwrap_or(since) + *length),
    };
    Times {
        due,
        too_many: count > MANY,
        next,
    }
}

/// How long until then, and a moment more.
pub fn until(at: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_until(at).max(SignedDuration::ZERO) + SignedDuration::from_millis(100)
}

#[cfg(test)]
mod tests {
    use api::kinds::batch::schedule::parse;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    fn due(schedule: &str, since: &str, not_before: Option<&str>) -> (Option<Timestamp>, bool) {
        let schedule = parse(schedule).unwrap();
        let zone = TimeZone::UTC;
        let times = times(
            &schedule,
            &zone,
            at(since),
            not_before.map(at),
            at("10:07:30"),
        );
        (times.due, times.too_many)
    }

    #[test]
    fn the_last_time_that_has_come_is_due() {
        assert_eq!(due("*/5 * * * *", "10:05:00", None), (None, false));
        assert_eq!(
            due("*/5 * * * *", "10:04:59", None),
            (Some(at("10:05:00")), false)
        );
        assert_eq!(
            due("*/5 * * * *", "09:00:00", None),
            (Some(at("10:05:00")), false)
        );
        assert_eq!(
            due("* * * * *", "08:27:00", None),
            (Some(at("10:07:00")), false)
        );
        assert_eq!(
            due("* * * * *", "08:26:00", None),
            (Some(at("10:07:00")), true)
        );
        let recent = due("* * * * *", "00:00:00", Some("10:00:00"));
        assert_eq!(recent, (Some(at("10:07:00")), false));
        assert_eq!(
            due("@every 2m", "10:00:00", None),
            (Some(at("10:06:00")), false)
        );
        assert_eq!(
            due("0 0 30 2 *", "10:00:00", None),
            (None, false),
            "there is no such day"
        );
    }

    #[test]
    fn the_next_time_is_of_the_zone() {
        let schedule = parse("0 3 * * *").unwrap();
        let zone = TimeZone::get("Asia/Tokyo").unwrap();
        let times = times(&schedule, &zone, at("10:00:00"), None, at("10:07:30"));
        assert_eq!(times.next, Some(at("18:00:00")));
    }
}
