//! Days of the calendar, as the wall clock of the person has them.

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;

use crate::model::Timestamp;

/// A day: from its first moment to the first of the next. Where the zone's offset changes it has 23 or 25 hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Day {
    /// Such as `2026-11-21`.
    pub(super) date: String,
    pub(super) begins: Timestamp,
    pub(super) ends: Timestamp,
}

impl Day {
    /// The day of that moment; one without an end where the calendar has none for it.
    pub(super) fn of(now: Timestamp, zone: &TimeZone) -> Self {
        let day = || -> Result<Self, jiff::Error> {
            let date = Instant::from_microsecond(now.0)?.to_zoned(zone.clone()).date();
            let first = |date: jiff::civil::Date| -> Result<Timestamp, jiff::Error> {
                let moment = date.to_zoned(zone.clone())?.timestamp();
                Ok(Timestamp(moment.as_microsecond()))
            };
            Ok(Self {
                date: date.to_string(),
                begins: first(date)?,
                ends: first(date.tomorrow()?)?,
            })
        };
        day().unwrap_or_else(|_| Self {
            ends: Timestamp(i64::MAX),
            ..Self::default()
        })
    }

    /// The date that many days before.
    pub(super) fn before(&self, days: u32) -> String {
        let date = self.date.parse::<jiff::civil::Date>().ok();
        let earlier = date.and_then(|date| date.checked_sub(jiff::Span::new().days(days)).ok());
        earlier.map_or_else(String::new, |date| date.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<Instant>().unwrap().as_microsecond())
    }

    fn day(text: &str, zone: &str) -> (String, f64) {
        let now = at(text);
        let day = Day::of(now, &TimeZone::get(zone).unwrap());
        assert!(day.begins <= now && now < day.ends, "{day:?}");
        (day.date, (day.ends.0 - day.begins.0) as f64 / 3.6e9)
    }

    #[test]
    fn a_day_is_the_calendars() {
        assert_eq!(day("2026-11-21T18:54:00Z", "UTC"), ("2026-11-21".to_owned(), 24.0));
        assert_eq!(
            day("2026-11-21T23:30:00Z", "Europe/Berlin"),
            ("2026-11-22".to_owned(), 24.0)
        );
        assert_eq!(
            day("2026-12-31T23:30:00Z", "Asia/Kolkata"),
            ("2027-01-01".to_owned(), 24.0)
        );
        let day = Day::of(at("2026-03-01T00:00:00Z"), &TimeZone::UTC);
        assert_eq!(
            (day.before(0), day.before(1)),
            ("2026-03-01".to_owned(), "2026-02-28".to_owned())
        );
    }

    #[test]
    fn a_day_on_which_the_clock_changes_is_shorter_or_longer() {
        assert_eq!(day("2026-03-29T12:00:00Z", "Europe/Berlin").1, 23.0);
        assert_eq!(day("2026-10-25T00:30:00Z", "Europe/Berlin").1, 25.0);
        assert_eq!(day("2026-10-25T22:59:59Z", "Europe/Berlin").0, "2026-10-25");
        // Where midnight itself is left out the day begins an hour later.
        assert_eq!(day("2026-04-24T10:00:00Z", "Africa/Cairo").1, 23.0);
    }
}
