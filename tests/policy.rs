//! What `benches/run policy` plays: the account refuses as it should, idle time is counted as it is, and Mozart's policy
//! keeps what is promised of it where a fixed wait does not.

#[path = "../benches/policy/model.rs"]
mod model;
#[path = "../benches/rules.rs"]
mod rules;
#[path = "../benches/policy/scripts.rs"]
mod scripts;

use model::{Account, Came, FixedWait, HOUR, MINUTE, Mozart, Policy, Refuses, SECOND, Storm, Window, Work, jobs, play};
use scripts::{Script, scripts};

fn came(script: &Script, work: &Work, policy: &mut dyn Policy) -> Came {
    play(script.account.clone(), work.clone(), policy)
}

/// One job of one sheet that needs that many turns.
fn turns(count: u32) -> Work {
    vec![vec![count]]
}

#[test]
fn mozart_loses_neither_calls_nor_hours_to_a_window() {
    for count in [1, 10, 50] {
        let work = jobs(count);
        for script in scripts(&work) {
            let ours = came(&script, &work, &mut Mozart::new(&work).unwrap());
            let (name, broken) = (script.name, ours.broken().collect::<Vec<_>>());
            assert!(broken.is_empty(), "{name}, {count} jobs: {broken:?}");
            if !ours.closings.is_empty() {
                assert!(
                    ours.closings.iter().any(|closing| closing.resumed.is_some()),
                    "{name}: {ours:?}"
                );
            }
            assert_eq!(ours.given_up, 0, "{name}, {count} jobs");
        }
    }
}

#[test]
fn a_fixed_wait_loses_both() {
    let work = jobs(10);
    let script = &scripts(&work)[0];
    let fixed = came(script, &work, &mut FixedWait::new(&work));
    assert!(fixed.broken().count() > 0, "the promise could not be broken: {fixed:?}");
    let ours = came(script, &work, &mut Mozart::new(&work).unwrap());
    assert!(fixed.wasted > 10 * (ours.wasted + 1));
    assert!(fixed.idle > HOUR && ours.idle < MINUTE, "{fixed:?} {ours:?}");
}

/// Two turns fit into half an hour; the third is refused, and tried again an hour later.
#[test]
fn idle_time_is_that_in_which_somebody_would_have_been_heard() {
    let lasts = 30 * MINUTE;
    let account = Account::new(vec![Window::new("five_hour", lasts, 2, None)], Vec::new());
    let fixed = play(account.clone(), turns(3), &mut FixedWait::new(&turns(3)));
    assert_eq!(
        (fixed.starts, fixed.cut_off, fixed.wasted, fixed.given_up),
        (2, 1, 0, 0)
    );
    let closing = &fixed.closings[0];
    let (began, refused) = (closing.reset - lasts, closing.heard);
    assert!(refused < closing.reset && began < 2 * SECOND);
    let again = refused + SECOND + HOUR;
    assert_eq!(fixed.idle, again - closing.reset);
    let ours = play(account, turns(3), &mut Mozart::new(&turns(3)).unwrap());
    assert!(
        ours.idle <= 2 * SECOND && ours.finished < fixed.finished - 20 * MINUTE,
        "{ours:?}"
    );
}

/// Nobody is heard in a storm, so no time of it is idle; who asks in it is wasted, whatever started it.
#[test]
fn a_storm_refuses_everybody_and_is_nobodys_fault() {
    let storm = Storm {
        from: 0,
        to: 20 * MINUTE,
        refuses: Refuses::AllButOneOf(u32::MAX),
    };
    let account = Account::new(vec![Window::new("five_hour", 5 * HOUR, 100, None)], vec![storm]);
    let fixed = play(account, turns(1), &mut FixedWait::new(&turns(1)));
    // The session gives up after three minutes, and the next one begins an hour later.
    assert_eq!((fixed.starts, fixed.wasted, fixed.cut_off), (2, 1, 0));
    let again = 1_500_000 + 3 * MINUTE + SECOND + HOUR;
    assert_eq!(fixed.idle, again - 20 * MINUTE);
}
