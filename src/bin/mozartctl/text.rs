//! Words for people: times, lengths, money, and text of others made harmless for a terminal.

use std::borrow::Cow;

use jiff::tz::TimeZone;
pub(crate) use mozart::model::count;
use mozart::model::{Cost, Span, Timestamp};

/// The text with every character replaced that could move the cursor, change colours or reorder a line.
/// Job names, reasons and session output come from elsewhere and may hold such.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().any(hostile) {
        Cow::Owned(
            text.chars()
                .map(|c| {
                    if c == '\t' || c == '\n' {
                        ' '
                    } else if hostile(c) {
                        '\u{fffd}'
                    } else {
                        c
                    }
                })
                .collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// A moment in local time: only the clock where it is near, with the date otherwise.
pub(crate) fn moment(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (Ok(at), Ok(now)) = (
        jiff::Timestamp::from_microsecond(at.0),
        jiff::Timestamp::from_microsecond(now.0),
    ) else {
        return at.to_rfc3339();
    };
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = if at.date() == now.date() {
        "%H:%M"
    } else if at.year() == now.year() {
        "%a %-d %b %H:%M"
    } else {
        "%Y-%m-%d %H:%M"
    };
    at.strftime(format).to_string()
}

/// The clock with seconds in local time, as lines of events begin.
pub(crate) fn clock(at: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string(),
        Err(_) => at.to_rfc3339(),
    }
}

/// A length of time in the two largest units that matter.
pub(crate) fn length(span: Span) -> String {
    let seconds = span.0.max(0) / 1_000_000;
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes, rest) {
        (0, 0, 0, 0..10) => format!("{:.1} s", span.as_secs_f64().max(0.0)),
        (0, 0, 0, _) => format!("{rest} s"),
        (0, 0, _, 0) => format!("{minutes} min"),
        (0, 0, _, _) => format!("{minutes} min {rest:02} s"),
        (0, _, _, _) => format!("{hours} h {minutes:02} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The same without fractions, for clocks that move.
pub(crate) fn whole(span: Span) -> String {
    match span.0.max(0) / 1_000_000 {
        seconds @ 0..10 => format!("{seconds} s"),
        _ => length(span),
    }
}

/// How long ago a moment was.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", whole(now.since(at)))
}

/// An amount of money.
pub(crate) fn money(cost: Cost) -> String {
    let usd = cost.as_usd();
    if usd >= 0.1 || cost.0 == 0 {
        format!("${usd:.2}")
    } else {
        format!("${usd:.4}")
    }
}

/// A large number in short.
pub(crate) fn tokens(count: u64) -> String {
    match count {
        0..=9_999 => count.to_string(),
        10_000..=9_999_999 => format!("{}k", count / 1_000),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

/// The text as one word of a POSIX shell, quoted only where it must be.
pub(crate) fn shell_word(text: &str) -> Cow<'_, str> {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '#' | ':' | '@' | '+' | ',' | '%' | '=');
    if !text.is_empty() && !text.starts_with(['#', '-', '=']) && text.chars().all(plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_made_harmless() {
        assert_eq!(clean("plain ünicode"), "plain ünicode");
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb c");
        assert_eq!(clean("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn times_are_short_where_they_are_near() {
        let now = Timestamp::from_seconds(1_795_228_661);
        let zone = TimeZone::UTC;
        assert_eq!(moment(now, now, &zone), "02:37");
        assert_eq!(
            moment(Timestamp::from_seconds(1_795_000_000), now, &zone),
            "Wed 18 Nov 11:06"
        );
        assert_eq!(
            moment(Timestamp::from_seconds(1_700_000_000), now, &zone),
            "2023-11-14 22:13"
        );
        assert_eq!(length(Span::from_secs_f64(0.54)), "0.5 s");
        assert_eq!(length(Span::from_secs(59)), "59 s");
        assert_eq!(length(Span::from_secs(1_800)), "30 min");
        assert_eq!(length(Span::from_secs(312)), "5 min 12 s");
        assert_eq!(length(Span::from_secs(3_725)), "1 h 02 min");
        assert_eq!(length(Span::from_secs(200_000)), "2 d 7 h");
    }

    #[test]
    fn words_for_the_shell_are_quoted_where_needed() {
        assert_eq!(shell_word("review#3"), "review#3");
        assert_eq!(shell_word("it's here"), r"'it'\''s here'");
        assert_eq!(shell_word("#x"), "'#x'");
        assert_eq!(shell_word(""), "''");
    }
}
