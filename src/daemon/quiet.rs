//! Quiet hours: windows of the local day in which nothing new starts. As the wall clock shows it: an hour that a change of
//! the zone's offset shows twice is quiet twice, one that it leaves out is not there.

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp as Instant, ToSpan};

use crate::model::Timestamp;

/// A window of every day, across midnight where it ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: Time,
    to: Time,
}

impl Window {
    /// Reads `22:00-06:00`; the end of the day may be written 24:00.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let (from, to) = (time(from.trim())?, time(to.trim())?);
        (from != to).then_some(Self { from, to })
    }

    fn holds(self, at: Time) -> bool {
        match self.from < self.to {
            true => self.from <= at && at < self.to,
            false => self.from <= at || at < self.to,
        }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to } = self;
        write!(f, "{}-{}", from.strftime("%H:%M"), to.strftime("%H:%M"))
    }
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i8>().ok().filter(|_| digits)
    };
    match (number(hour)?, number(minute).filter(|_| minute.len() == 2)?) {
        (24, 0) => Some(Time::midnight()),
        (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
    }
}

/// Whether the windows leave no moment of a day.
pub(super) fn is_always(windows: &[Window]) -> bool {
    // It begins to be open where a window ends, if ever.
    !windows.is_empty() && windows.iter().all(|window| holding(windows, window.to).is_some())
}

fn holding(windows: &[Window], at: Time) -> Option<Window> {
    windows.iter().copied().find(|window| window.holds(at))
}

/// What the clock of `zone` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quiet {
    /// The window that it is in.
    pub(super) window: Option<Window>,
    /// When it will be in none, or in one; `None` where that never changes.
    pub(super) changes: Option<Timestamp>,
}

/// Whether it is quiet now, and until when that stays so.
pub(super) fn quiet(now: Timestamp, zone: &TimeZone, windows: &[Window]) -> Quiet {
    let Ok(instant) = Instant::from_microsecond(now.0) else {
        return Quiet {
            window: None,
            changes: None,
        };
    };
    let window_at = |instant: Instant| holding(windows, instant.to_zoned(zone.clone()).time());
    let window = window_at(instant);
    let mut moments: Vec<Instant> = Vec::new();
    let today = instant.to_zoned(zone.clone()).date();
    for ahead in 0..=2 {
        let Ok(date) = today.checked_add(ahead.days()) else {
            continue;
        };
        let bounds = windows.iter().flat_map(|window| [window.from, window.to]);
        moments.extend(bounds.flat_map(|bound| moments_of(zone, date, bound)));
    }
    // The clock may jump into a window, or out of one.
    let horizon = moments.iter().max().copied().unwrap_or(instant);
    let jumps = zone.following(instant).map(|jump| jump.timestamp());
    moments.extend(jumps.take_while(|at| *at <= horizon));
    moments.sort_unstable();
    let change = moments
        .into_iter()
        .find(|at| *at > instant && window_at(*at).is_some() != window.is_some());
    Quiet {
        window,
        changes: change.map(|at| Timestamp(at.as_microsecond())),
    }
}

/// When the clock of `zone` shows that time of that day: mostly once, sometimes twice or never.
fn moments_of(zone: &TimeZone, date: Date, time: Time) -> Vec<Instant> {
    let shown = zone.to_ambiguous_timestamp(date.to_datetime(time));
    match shown.offset() {
        AmbiguousOffset::Unambiguous { .. } => shown.unambiguous().into_iter().collect(),
        AmbiguousOffset::Fold { .. } => [shown.earlier(), shown.later()].into_iter().flatten().collect(),
        AmbiguousOffset::Gap { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| Window::parse(text).unwrap()).collect()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<Instant>().unwrap().as_microsecond())
    }

    /// The change that is due at `now`, in UTC; with whether it is quiet until then.
    fn told(now: &str, zone: &str, texts: &[&str]) -> (bool, Option<String>) {
        let quiet = quiet(at(now), &TimeZone::get(zone).unwrap(), &windows(texts));
        let changes = quiet
            .changes
            .map(|at| Instant::from_microsecond(at.0).unwrap().to_string());
        (quiet.window.is_some(), changes)
    }

    fn quiet_until(text: &str) -> (bool, Option<String>) {
        (true, Some(text.to_owned()))
    }

    fn open_until(text: &str) -> (bool, Option<String>) {
        (false, Some(text.to_owned()))
    }

    #[test]
    fn windows_are_read_as_people_write_them() {
        for (text, shown) in [
            ("22:00-06:00", "22:00-06:00"),
            ("7:30 - 9:05", "07:30-09:05"),
            ("18:00-24:00", "18:00-00:00"),
        ] {
            assert_eq!(Window::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "22-6",
            "22:00",
            "22:00-25:00",
            "22:0-23:00",
            "08:00-08:00",
            "+2:00-03:00",
            "22:00-06:60",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_window_across_midnight_holds_until_the_morning() {
        let night = &["22:00-06:00"];
        let zone = "Europe/Berlin";
        assert_eq!(
            told("2026-07-01T12:00:00Z", zone, night),
            open_until("2026-07-01T20:00:00Z")
        );
        assert_eq!(
            told("2026-07-01T20:00:00Z", zone, night),
            quiet_until("2026-07-02T04:00:00Z")
        );
        assert_eq!(
            told("2026-07-01T23:00:00Z", zone, night),
            quiet_until("2026-07-02T04:00:00Z")
        );
        assert_eq!(
            told("2026-07-02T04:00:00Z", zone, night),
            open_until("2026-07-02T20:00:00Z")
        );
        assert_eq!(
            told("2026-12-31T22:30:00Z", zone, night),
            quiet_until("2027-01-01T05:00:00Z")
        );
    }

    #[test]
    fn windows_that_meet_are_one() {
        let day = &["08:00-12:00", "11:00-14:00", "14:00-15:30", "20:00-21:00"];
        assert_eq!(
            told("2026-01-01T09:00:00Z", "UTC", day),
            quiet_until("2026-01-01T15:30:00Z")
        );
        assert_eq!(
            told("2026-01-01T15:30:00Z", "UTC", day),
            open_until("2026-01-01T20:00:00Z")
        );
        assert_eq!(
            told("2026-01-01T21:30:00Z", "UTC", day),
            open_until("2026-01-02T08:00:00Z")
        );
        assert_eq!(told("2026-01-01T21:30:00Z", "UTC", &[]), (false, None));
    }

    #[test]
    fn a_night_in_which_the_clock_is_changed_ends_when_the_clock_says_so() {
        let night = &["22:00-06:00"];
        // An hour less, and an hour more.
        assert_eq!(
            told("2026-03-28T22:00:00Z", "Europe/Berlin", night),
            quiet_until("2026-03-29T04:00:00Z")
        );
        assert_eq!(
            told("2026-10-24T21:00:00Z", "Europe/Berlin", night),
            quiet_until("2026-10-25T05:00:00Z")
        );
        // At 02:00 the clock jumps to 03:00: into the first window, out of the second, and over the third.
        let before = "2026-03-29T00:45:00Z";
        assert_eq!(
            told(before, "Europe/Berlin", &["02:30-03:30"]),
            open_until("2026-03-29T01:00:00Z")
        );
        assert_eq!(
            told(before, "Europe/Berlin", &["01:30-02:30"]),
            quiet_until("2026-03-29T01:00:00Z")
        );
        assert_eq!(
            told(before, "Europe/Berlin", &["02:10-02:50"]),
            open_until("2026-03-30T00:10:00Z")
        );
        // At 03:00 the clock goes back to 02:00, and shows 02:30 twice.
        let window = &["02:30-04:00"];
        assert_eq!(
            told("2026-10-25T00:00:00Z", "Europe/Berlin", window),
            open_until("2026-10-25T00:30:00Z")
        );
        assert_eq!(
            told("2026-10-25T00:30:00Z", "Europe/Berlin", window),
            quiet_until("2026-10-25T01:00:00Z")
        );
        assert_eq!(
            told("2026-10-25T01:00:00Z", "Europe/Berlin", window),
            open_until("2026-10-25T01:30:00Z")
        );
        assert_eq!(
            told("2026-10-25T01:30:00Z", "Europe/Berlin", window),
            quiet_until("2026-10-25T03:00:00Z")
        );
    }

    /// Every five minutes against the clock itself, over both changes of a year, in zones whose offsets are odd.
    #[test]
    fn every_change_is_foretold_and_no_other() {
        let windows = windows(&["22:15-06:00", "01:30-02:10", "12:00-12:30"]);
        for name in [
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "Pacific/Apia",
            "Asia/Kathmandu",
        ] {
            let zone = TimeZone::get(name).unwrap();
            for start in [
                "2011-12-28T00:00:00Z",
                "2026-03-07T00:00:00Z",
                "2026-03-28T00:00:00Z",
                "2026-04-03T12:00:00Z",
                "2026-10-03T00:00:00Z",
                "2026-10-24T00:00:00Z",
                "2026-10-31T00:00:00Z",
            ] {
                let mut foretold = quiet(at(start), &zone, &windows);
                for minute in (0..4 * 24 * 60).step_by(5) {
                    let now = Timestamp(at(start).0 + minute * 60_000_000);
                    let shown = quiet(now, &zone, &windows);
                    if foretold.changes.is_some_and(|changes| changes <= now) {
                        assert_ne!(
                            shown.window.is_some(),
                            foretold.window.is_some(),
                            "{name} {start} {minute}"
                        );
                        foretold = shown;
                    }
                    assert_eq!(
                        shown.window.is_some(),
                        foretold.window.is_some(),
                        "{name} {start} {minute}"
                    );
                }
            }
        }
    }

    #[test]
    fn windows_that_leave_nothing_are_known() {
        assert!(is_always(&windows(&["00:00-12:00", "11:00-00:00"])));
        assert!(is_always(&windows(&["06:00-05:59", "05:00-07:00"])));
        assert!(!is_always(&windows(&["00:00-12:00", "12:01-00:00"])));
        assert!(!is_always(&[]));
    }
}
