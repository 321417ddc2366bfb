//! What befalls the account. Windows hold a share of the work, so that every number of jobs needs as many of them.

use super::model::{Account, HOUR, MINUTE, Refuses, Storm, Window, Work};

pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) account: Account,
}

/// Every one, for that much work.
pub(crate) fn scripts(work: &Work) -> Vec<Script> {
    let turns: u32 = work.iter().flatten().sum();
    let share = |percent: u32| turns * percent / 100;
    let five_hours = || Window::new("five_hour", 5 * HOUR, share(40), None);
    // The week began long ago; what is left of it does not suffice.
    let week = || Window::new("seven_day", 7 * 24 * HOUR, share(70), Some(33 * HOUR + 17 * MINUTE));
    let wide = || Window::new("five_hour", 5 * HOUR, u32::MAX, None);
    // The API answers every job's first requests, and fewer than there are jobs.
    let most = u32::try_from(work.len().div_ceil(4)).unwrap_or(1);
    let throttled = |from, lasts| storm(from, lasts, Refuses::MoreThan(most));
    let overloaded = |from, lasts| storm(from, lasts, Refuses::AllButOneOf(20));
    let of = |name, windows, storms| Script {
        name,
        account: Account::new(windows, storms),
    };
    vec![
        of("5-hour window", vec![five_hours()], vec![]),
        of("week", vec![five_hours(), week()], vec![]),
        of(
            "throttling",
            vec![wide()],
            vec![throttled(20, 10), throttled(70, 10), throttled(100, 10)],
        ),
        of(
            "overload (529)",
            vec![wide()],
            vec![overloaded(15, 40), overloaded(90, 120)],
        ),
        of(
            "all of it",
            vec![five_hours(), week()],
            vec![throttled(20, 10), overloaded(60, 40), overloaded(340, 120)],
        ),
    ]
}

/// Both times in minutes.
fn storm(from: i64, lasts: i64, refuses: Refuses) -> Storm {
    let (from, to) = (from * MINUTE, (from + lasts) * MINUTE);
    Storm { from, to, refuses }
}
