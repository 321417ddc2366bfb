//! Whether a session hangs, judged by when it began and when it last printed anything. How long it may take in all is
//! the launcher's to watch.
//!
//! [`Instant`] is `CLOCK_MONOTONIC`, which stands still while the machine sleeps: a session that slept with it was not
//! silent.

use std::time::{Duration, Instant};

/// How long a session may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Before it prints anything at all.
    pub first: Duration,
    /// Between one output and the next.
    pub gap: Duration,
}

/// Which silence was too long, and how long that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// It never printed anything.
    First(Duration),
    /// It stopped printing.
    Gap(Duration),
}

impl Hang {
    /// One sentence for a person.
    pub fn sentence(self) -> String {
        match self {
            Self::First(limit) => format!("the session hung: it printed nothing in its first {limit:?}"),
            Self::Gap(limit) => format!("the session hung: it printed nothing more for {limit:?}"),
        }
    }
}

/// Whether it hangs now.
pub fn hung(now: Instant, started: Instant, last_output: Option<Instant>, patience: Patience) -> Option<Hang> {
    let due = due(started, last_output, patience)?;
    (now >= due).then_some(match last_output {
        None => Hang::First(patience.first),
        Some(_) => Hang::Gap(patience.gap),
    })
}

/// When it will hang if it prints nothing until then; never, where that is beyond the clock.
pub fn due(started: Instant, last_output: Option<Instant>, patience: Patience) -> Option<Instant> {
    match last_output {
        None => started.checked_add(patience.first),
        Some(last) => last.checked_add(patience.gap),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        first: Duration::from_secs(20),
        gap: Duration::from_secs(50),
    };

    /// The verdict so many seconds after the start, the last output so many seconds after it.
    fn at(now: u64, last_output: Option<u64>, patience: Patience) -> Option<Hang> {
        let started = Instant::now();
        let after = |seconds| started + Duration::from_secs(seconds);
        hung(after(now), started, last_output.map(after), patience)
    }

    #[test]
    fn each_silence_has_its_own_limit() {
        let (first, gap) = (Some(Hang::First(PATIENCE.first)), Some(Hang::Gap(PATIENCE.gap)));
        for (now, last_output, expected) in [
            (0, None, None),
            (19, None, None),
            (20, None, first),
            (1000, None, first),
            (1000, Some(1000), None),
            (49, Some(0), None),
            (50, Some(0), gap),
            (68, Some(19), None),
            (69, Some(19), gap),
        ] {
            assert_eq!(at(now, last_output, PATIENCE), expected, "{now} {last_output:?}");
        }
    }

    #[test]
    fn endless_patience_never_ends() {
        let endless = Patience {
            first: Duration::MAX,
            gap: Duration::MAX,
        };
        assert_eq!(at(1 << 33, None, endless), None);
        assert_eq!(at(1 << 33, Some(1), endless), None);
        assert_eq!(due(Instant::now(), None, endless), None);
    }

    #[test]
    fn people_are_told_which_silence_it_was() {
        let told = [
            Hang::First(Duration::from_secs(900)),
            Hang::Gap(Duration::from_millis(1500)),
        ]
        .map(Hang::sentence);
        assert_eq!(told[0], "the session hung: it printed nothing in its first 900s");
        assert_eq!(told[1], "the session hung: it printed nothing more for 1.5s");
    }

    proptest! {
        #[test]
        fn it_hangs_from_the_moment_that_is_due_on(
            last in proptest::option::of(0_u64..5000),
            now in 0_u64..10_000,
            first in 1_u64..2000,
            gap in 1_u64..2000,
        ) {
            let patience = Patience { first: Duration::from_secs(first), gap: Duration::from_secs(gap) };
            let silent_until = last.map_or(first, |last| last + gap);
            prop_assert_eq!(at(now, last, patience).is_some(), now >= silent_until);
        }
    }
}
