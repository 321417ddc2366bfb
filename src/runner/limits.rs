//! Reads the reset time of a usage limit from the words of the Claude CLI.
//!
//! Only asked of a session that failed, and only where its structured events name no time: an answer may quote
//! such words. The wordings changed with almost every release (`…|<epoch>`, `∙ resets 9pm`,
//! `· resets Nov 24, 12:38am (UTC)`, …), so the patterns look for the parts that stayed: the kind of limit, a
//! month and day, a clock time with am or pm, a zone.

use std::sync::LazyLock;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use regex::{Captures, Regex};

use super::fixed_regex;
use crate::model::{Span, Timestamp};

/// A clock time that lies this little in the past is over already; one further back means the next day or year.
const SLIGHTLY_PAST: Span = Span(10 * 60 * 1_000_000);
/// No reset that was read from text is nearer than this: it is exact to the minute only.
const NEAREST: Span = Span(60 * 1_000_000);
/// No reset that was read from text is believed beyond this; the longest window is a week.
const FARTHEST: Span = Span(8 * 24 * 3600 * 1_000_000);

/// `Claude AI usage limit reached|1795229399`; 0 stands for "unknown".
static EPOCH: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r"(?i)usage limit reached\|(\d+)"));
static KIND: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(
        r"(?xi)
          hit\ your (?:\ (?<hit>[\w'’-]+(?:\ [\w'’-]+){0,2}))? \ limit
        | (?<reached>session | (?:opus\ |sonnet\ )? weekly | 5-hour | opus | sonnet | usage) \ limit\ reached
        | (?<spending>spending\ cap\ reached)
        | out\ of\ extra\ usage",
    )
});
static RESET: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(
        r"(?xi)
        (?:resets(?:\ at)? | will\ reset\ at) \s+
        (?: (?<month>[a-z]{3})[a-z]*\.? \ (?<day>\d{1,2}),? (?:\ (?<year>\d{4}),?)? \ (?:at\ )? )?
        (?<hour>\d{1,2}) (?: : (?<minute>\d{2}) )? \s? (?<half>am|pm)
        (?: \s* \( (?<zone>[^)]{1,64}) \) )?",
    )
});
/// A spending limit that the customer set: `You have reached your specified API usage limits. You will regain access
/// on 2026-12-01 at 00:00 UTC.`
static CREDIT: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(
        r"(?is)reached your specified (?:workspace )?API usage limits(?:.{0,400}?regain access on (\d{4}-\d{2}-\d{2}) at (\d{2}:\d{2}) UTC)?",
    )
});

/// A usage limit that a text tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextLimit {
    /// A limit on money rather than on use.
    pub spending: bool,
    /// `five_hour`, `seven_day`, `seven_day_opus`, `seven_day_sonnet`, where the text names one.
    pub window: Option<String>,
    /// When it is over, clamped to one minute to eight days from now; `None` where the text says nothing readable.
    pub resets_at: Option<Timestamp>,
}

/// Finds a usage limit in the error text of a failed session.
///
/// `timezone` is the session's `TZ`, in which a time without a zone is meant; `None` stands for the system's own.
/// `None` is returned for plain throttling ("temporarily limiting requests", "rate limit reached") and for any other
/// text.
pub fn find(text: &str, now: Timestamp, timezone: Option<&str>) -> Option<TextLimit> {
    if let Some(found) = CREDIT.captures(text) {
        let resets_at = found
            .get(1)
            .zip(found.get(2))
            .and_then(|(date, time)| utc(date.as_str(), time.as_str()));
        return Some(TextLimit {
            spending: true,
            window: None,
            resets_at: resets_at.map(|at| clamp(at, now)),
        });
    }
    if let Some(found) = EPOCH.captures(text) {
        let seconds = found
            .get(1)
            .and_then(|digits| digits.as_str().parse().ok())
            .unwrap_or(0);
        return Some(TextLimit {
            spending: false,
            window: None,
            resets_at: from_epoch(seconds).map(|at| clamp(at, now)),
        });
    }
    let kind = KIND.captures(text)?;
    let named = kind
        .name("hit")
        .or_else(|| kind.name("reached"))
        .map_or("", |name| name.as_str());
    Some(TextLimit {
        spending: kind.name("spending").is_some(),
        window: window(named).map(str::to_owned),
        resets_at: reset_time(text, now, timezone).map(|at| clamp(at, now)),
    })
}

/// The moment that a number of a structured event means: seconds since the epoch, or milliseconds where it is too
/// large for that; `None` for 0 and for what no clock shows.
pub fn from_epoch(number: i64) -> Option<Timestamp> {
    // 1e11 seconds are the year 5138; 1e11 milliseconds were 1973.
    let seconds = if number >= 100_000_000_000 {
        number / 1000
    } else {
        number
    };
    (seconds > 0 && jiff::Timestamp::from_second(seconds).is_ok()).then(|| Timestamp::from_seconds(seconds))
}

fn window(named: &str) -> Option<&'static str> {
    let named = named.to_ascii_lowercase();
    if named.contains("opus") {
        Some("seven_day_opus")
    } else if named.contains("sonnet") {
        Some("seven_day_sonnet")
    } else if named.contains("weekly") {
        Some("seven_day")
    } else if named.contains("session") || named.contains("5-hour") {
        Some("five_hour")
    } else {
        None
    }
}

fn clamp(at: Timestamp, now: Timestamp) -> Timestamp {
    at.clamp(now.plus(NEAREST), now.plus(FARTHEST))
}

fn utc(date: &str, time: &str) -> Option<Timestamp> {
    let at: DateTime = format!("{date}T{time}").parse().ok()?;
    let at = at.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp(at.timestamp().as_microsecond()))
}

/// The first moment at or after now (less [`SLIGHTLY_PAST`]) that the text can mean.
fn reset_time(text: &str, now: Timestamp, timezone: Option<&str>) -> Option<Timestamp> {
    let found = RESET.captures(text)?;
    let zone = found
        .name("zone")
        .and_then(|name| zone(name.as_str()))
        .or_else(|| timezone.and_then(zone))
        .unwrap_or_else(TimeZone::system);
    let time = clock(&found)?;
    let today = jiff::Timestamp::from_microsecond(now.0)
        .ok()?
        .to_zoned(zone.clone())
        .date();
    let earliest = now.0.saturating_sub(SLIGHTLY_PAST.0);

    let mut instants: Vec<i64> = dates(&found, today)?
        .into_iter()
        // Where the clock goes back a time comes twice, where it goes forward it never comes: both readings count.
        .flat_map(|date| {
            let ambiguous = |date: Date| zone.to_ambiguous_timestamp(date.to_datetime(time));
            [ambiguous(date).earlier(), ambiguous(date).later()]
        })
        .filter_map(|instant| Some(instant.ok()?.as_microsecond()))
        .collect();
    instants.sort_unstable();
    // A full date has one reading only, past or not.
    instants
        .iter()
        .find(|at| **at >= earliest)
        .or(instants.last())
        .map(|at| Timestamp(*at))
}

fn clock(found: &Captures<'_>) -> Option<Time> {
    let number = |name| {
        found
            .name(name)
            .map_or(Some(0), |digits| digits.as_str().parse::<i8>().ok())
    };
    let (hour, minute) = (number("hour")?, number("minute")?);
    if !(1..=12).contains(&hour) {
        return None;
    }
    let afternoon = found.name("half")?.as_str().eq_ignore_ascii_case("pm");
    Time::new(hour % 12 + if afternoon { 12 } else { 0 }, minute, 0, 0).ok()
}

/// The dates that may be meant: the one written, that day of the years around, or the days around today.
fn dates(found: &Captures<'_>, today: Date) -> Option<Vec<Date>> {
    let Some(month) = found.name("month") else {
        return Some(
            [today.yesterday(), Ok(today), today.tomorrow()]
                .into_iter()
                .flatten()
                .collect(),
        );
    };
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let name = month.as_str().to_ascii_lowercase();
    let month = i8::try_from(MONTHS.iter().position(|month| *month == name)? + 1).ok()?;
    let day: i8 = found.name("day")?.as_str().parse().ok()?;
    let years: Vec<i16> = match found.name("year") {
        Some(year) => vec![year.as_str().parse().ok()?],
        None => (today.year() - 1..=today.year() + 1).collect(),
    };
    let dates: Vec<Date> = years
        .into_iter()
        .filter_map(|year| Date::new(year, month, day).ok())
        .collect();
    (!dates.is_empty()).then_some(dates)
}

/// A zone as `TZ` or the CLI writes it: an IANA name, perhaps with a leading colon, or a POSIX rule.
fn zone(name: &str) -> Option<TimeZone> {
    let name = name.trim().trim_start_matches(':');
    if name.is_empty() {
        return None;
    }
    TimeZone::get(name).or_else(|_| TimeZone::posix(name)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn reset(text: &str, now: &str, timezone: &str) -> Option<String> {
        find(text, at(now), Some(timezone))
            .unwrap_or_else(|| panic!("no limit in {text:?}"))
            .resets_at
            .map(Timestamp::to_rfc3339)
    }

    #[test]
    fn every_wording_is_read() {
        let now = "2026-11-21T00:30:00Z";
        for (text, window, expected) in [
            (
                "Claude AI usage limit reached|1795229399",
                None,
                Some("2026-11-21T02:49:59Z"),
            ),
            ("Claude AI usage limit reached|0", None, None),
            (
                "Session limit reached ∙ resets 2:52am",
                Some("five_hour"),
                Some("2026-11-21T02:52:00Z"),
            ),
            (
                "Weekly limit reached ∙ resets Nov 24, 12:35am",
                Some("seven_day"),
                Some("2026-11-24T00:35:00Z"),
            ),
            ("Spending cap reached resets 2:52am", None, Some("2026-11-21T02:52:00Z")),
            (
                "5-hour limit reached ∙ resets 9pm",
                Some("five_hour"),
                Some("2026-11-21T21:00:00Z"),
            ),
            (
                "Opus weekly limit reached ∙ resets 9pm",
                Some("seven_day_opus"),
                Some("2026-11-21T21:00:00Z"),
            ),
            (
                "You've hit your limit · resets 2:55am (UTC)",
                None,
                Some("2026-11-21T02:55:00Z"),
            ),
            (
                "You've hit your session limit · resets 2:54am (UTC)",
                Some("five_hour"),
                Some("2026-11-21T02:54:00Z"),
            ),
            (
                "You've hit your 5-hour limit · resets 3am (UTC)",
                Some("five_hour"),
                Some("2026-11-21T03:00:00Z"),
            ),
            ("You've hit your 5-hour limit", Some("five_hour"), None),
            (
                "You've hit your weekly limit · resets Nov 23, 12pm (UTC)",
                Some("seven_day"),
                Some("2026-11-23T12:00:00Z"),
            ),
            (
                "You've hit your Opus limit · resets Nov 24, 12:44am (UTC)",
                Some("seven_day_opus"),
                Some("2026-11-24T00:44:00Z"),
            ),
            (
                "You've hit your Sonnet limit · resets Nov 24, 12:21am (UTC)",
                Some("seven_day_sonnet"),
                Some("2026-11-24T00:21:00Z"),
            ),
            (
                "You've hit your usage limit · resets Nov 22, 1:26am (UTC)",
                None,
                Some("2026-11-22T01:26:00Z"),
            ),
            (
                "You've hit your Fable limit · resets 4am (UTC). Switch to another model to continue.",
                None,
                Some("2026-11-21T04:00:00Z"),
            ),
            (
                "You've hit your limit · resets 2pm (Asia/Shanghai)",
                None,
                Some("2026-11-21T06:00:00Z"),
            ),
            (
                "You're out of extra usage · resets 8pm (Europe/Budapest)",
                None,
                Some("2026-11-21T19:00:00Z"),
            ),
            (
                "You're out of extra usage. Add more at claude.ai/settings/usage and keep going.",
                None,
                None,
            ),
            (
                "Claude usage limit reached. Your limit will reset at 5pm (Europe/Warsaw).",
                None,
                Some("2026-11-21T16:00:00Z"),
            ),
        ] {
            let found = find(text, at(now), Some("UTC")).unwrap_or_else(|| panic!("no limit in {text:?}"));
            assert_eq!(
                found.resets_at.map(Timestamp::to_rfc3339).as_deref(),
                expected,
                "{text}"
            );
            assert_eq!(found.window.as_deref(), window, "{text}");
            assert_eq!(found.spending, text.contains("Spending"), "{text}");
        }
    }

    #[test]
    fn throttling_and_other_texts_are_no_usage_limit() {
        for text in [
            "API Error: Rate limit reached",
            "API Error: Server is temporarily limiting requests (not your usage limit) · This request would exceed …",
            "API Error: Request rejected (429) · This request would exceed your organization's rate limit of 50 requests",
            "Credit balance is too low",
            "The counter resets 3am (UTC)",
            "",
        ] {
            assert_eq!(find(text, at("2026-11-21T00:30:00Z"), None), None, "{text}");
        }
    }

    #[test]
    fn a_spending_limit_names_its_date() {
        let text = "API Error: 400 You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.";
        let found = find(text, at("2026-11-29T10:00:00Z"), None).unwrap();
        assert!(found.spending);
        assert_eq!(found.resets_at, Some(at("2026-12-01T00:00:00Z")));
        // Ten days away: the farthest that a text is believed.
        assert_eq!(
            find(text, at("2026-11-21T00:00:00Z"), None).unwrap().resets_at,
            Some(at("2026-11-29T00:00:00Z"))
        );
        let workspace = find(
            "You have reached your specified workspace API usage limits.",
            at("2026-11-21T00:00:00Z"),
            None,
        );
        assert_eq!(
            workspace,
            Some(TextLimit {
                spending: true,
                window: None,
                resets_at: None
            })
        );
    }

    #[test]
    fn a_time_without_a_zone_is_the_sessions() {
        let text = "Session limit reached ∙ resets 9:56pm";
        assert_eq!(
            reset(text, "2026-11-21T02:00:00Z", "America/New_York").as_deref(),
            Some("2026-11-21T02:56:00Z")
        );
        assert_eq!(
            reset(text, "2026-11-21T02:00:00Z", ":Europe/Berlin").as_deref(),
            Some("2026-11-21T20:56:00Z")
        );
        assert_eq!(
            reset(text, "2026-11-21T02:00:00Z", "EST5EDT,M3.2.0,M11.1.0").as_deref(),
            Some("2026-11-21T02:56:00Z")
        );
        // An unknown zone in the text is no reason to give up: the session's own is the best guess.
        let odd = "You've hit your limit · resets 9:56pm (Middle/Earth)";
        assert_eq!(
            reset(odd, "2026-11-21T02:00:00Z", "America/New_York").as_deref(),
            Some("2026-11-21T02:56:00Z")
        );
    }

    #[test]
    fn a_time_slightly_past_is_retried_soon_and_one_long_past_is_tomorrow() {
        let text = "You've hit your session limit · resets 12:50am (UTC)";
        assert_eq!(
            reset(text, "2026-11-21T00:50:30Z", "UTC").as_deref(),
            Some("2026-11-21T00:51:30Z")
        );
        assert_eq!(
            reset(text, "2026-11-21T00:58:00Z", "UTC").as_deref(),
            Some("2026-11-21T00:59:00Z")
        );
        assert_eq!(
            reset(text, "2026-11-21T01:30:00Z", "UTC").as_deref(),
            Some("2026-11-22T00:50:00Z")
        );
        // Past midnight: the time written is yesterday's.
        let late = "You've hit your session limit · resets 11:58pm (UTC)";
        assert_eq!(
            reset(late, "2026-11-22T00:01:00Z", "UTC").as_deref(),
            Some("2026-11-22T00:02:00Z")
        );
    }

    #[test]
    fn years_end() {
        let weekly = "You've hit your weekly limit · resets Jan 3, 12:35am (UTC)";
        assert_eq!(
            reset(weekly, "2026-12-29T10:00:00Z", "UTC").as_deref(),
            Some("2027-01-03T00:35:00Z")
        );
        let written = "You've hit your 5-hour limit · resets Jan 6, 2027, 7:33am (UTC)";
        assert_eq!(
            reset(written, "2026-12-31T23:00:00Z", "UTC").as_deref(),
            Some("2027-01-06T07:33:00Z")
        );
        let eve = "Weekly limit reached ∙ resets Dec 31, 11:59pm";
        assert_eq!(
            reset(eve, "2027-01-01T00:04:00Z", "UTC").as_deref(),
            Some("2027-01-01T00:05:00Z")
        );
        let leap = "Weekly limit reached ∙ resets Feb 29, 1am";
        assert_eq!(
            reset(leap, "2028-02-25T00:00:00Z", "UTC").as_deref(),
            Some("2028-02-29T01:00:00Z")
        );
        assert_eq!(reset(leap, "2026-02-25T00:00:00Z", "UTC").as_deref(), None);
    }

    #[test]
    fn clocks_that_change() {
        // New York, 2026-11-01: 1:30 comes twice (5:30 and 6:30 UTC).
        let text = "You've hit your limit · resets 1:30am (America/New_York)";
        assert_eq!(
            reset(text, "2026-11-01T05:00:00Z", "UTC").as_deref(),
            Some("2026-11-01T05:30:00Z")
        );
        assert_eq!(
            reset(text, "2026-11-01T06:00:00Z", "UTC").as_deref(),
            Some("2026-11-01T06:30:00Z")
        );
        // New York, 2026-03-08: 2:30 never comes.
        let gap = "You've hit your limit · resets 2:30am (America/New_York)";
        let found = reset(gap, "2026-03-08T05:00:00Z", "UTC").unwrap();
        assert!(
            ["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"].contains(&found.as_str()),
            "{found}"
        );
    }

    #[test]
    fn impossible_times_name_no_reset() {
        for text in [
            "resets 0am",
            "resets 13pm",
            "resets 5:61pm",
            "resets Foo 3, 5pm",
            "resets Nov 31, 5pm",
            "resets 5 o'clock",
        ] {
            let text = format!("You've hit your limit · {text} (UTC)");
            assert_eq!(reset(&text, "2026-11-21T00:00:00Z", "UTC"), None, "{text}");
        }
        assert_eq!(
            reset(
                "Claude AI usage limit reached|99999999999999999999",
                "2026-11-21T00:00:00Z",
                "UTC"
            ),
            None
        );
    }

    #[test]
    fn epochs_in_milliseconds_are_understood() {
        assert_eq!(from_epoch(1_795_228_661), Some(Timestamp::from_seconds(1_795_228_661)));
        assert_eq!(
            from_epoch(1_795_228_661_000),
            Some(Timestamp::from_seconds(1_795_228_661))
        );
        assert_eq!(
            (from_epoch(0), from_epoch(-5), from_epoch(i64::MAX)),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(
            head in "(You've hit your limit · |Weekly limit reached|usage limit reached\\||.{0,20})",
            tail in "(resets|will reset at)? ?[A-Za-z]{0,4} ?[0-9]{0,5},? ?[0-9]{0,4}:?[0-9]{0,3}(am|pm)?.{0,20}",
            now in any::<i64>(),
            zone in proptest::option::of(".{0,12}"),
        ) {
            let now = Timestamp(now);
            if let Some(at) = find(&format!("{head}{tail}"), now, zone.as_deref()).and_then(|found| found.resets_at) {
                prop_assert!(at >= now.plus(NEAREST) && at <= now.plus(FARTHEST));
            }
        }
    }
}
