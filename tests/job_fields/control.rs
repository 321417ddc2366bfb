//! Fields that say what follows on a sheet: pauses, retries, limits.

use std::process::Stdio;
use std::time::Duration;

use super::Person;
use crate::support::{output, said, wait_until};

/// A rule that never holds.
const NEVER: &str = "validations: [{type: file_exists, path: none}]\n";

/// A script that notes the time in nanoseconds.
const NOTE_TIME: &str = "date +%s%N >> times";

/// Seconds from each noted time to the next.
fn gaps(person: &Person) -> Vec<f64> {
    let times: Vec<f64> = person
        .desk
        .lines("times")
        .iter()
        .map(|line| line.parse::<f64>().expect("a time") / 1e9)
        .collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

// field: pause_between_sheets_seconds
#[test]
fn the_pause_between_sheets_is_slept() {
    let person = Person::new();
    let file = person.job(
        3,
        NOTE_TIME,
        "",
        &[("pause_between_sheets_seconds: 0", "pause_between_sheets_seconds: 1")],
    );
    person.completes(&file);
    let gaps = gaps(&person);
    assert!(gaps.len() == 2 && gaps.iter().all(|gap| *gap >= 1.0), "{gaps:?}");
}

// field: retry.max_retries
#[test]
fn a_sheet_is_retried_as_often_as_the_job_says() {
    for (field, attempts) in [("max_retries: 0, ", 1), ("max_retries: 2, ", 3), ("", 4)] {
        let person = Person::new();
        let more = format!("retry: {{{field}base_delay_seconds: 0.01, jitter: false}}\n{NEVER}");
        let failed = person.fails(&person.job(1, "true", &more, &[]));
        assert_eq!(failed["attempts"], attempts, "{field}");
        assert_eq!(person.desk.starts()[&1], attempts);
    }
}

// field: retry.base_delay_seconds
// field: retry.exponential_base
// field: retry.max_delay_seconds
// field: retry.jitter
#[test]
fn retries_wait_longer_each_time_and_never_longer_than_the_bound() {
    let person = Person::new();
    let retry = "retry: {max_retries: 3, base_delay_seconds: 0.05, exponential_base: 10, max_delay_seconds: 0.5, jitter: false}\n";
    person.fails(&person.job(1, NOTE_TIME, &format!("{retry}{NEVER}"), &[]));
    let gaps = gaps(&person);
    // Without the base it would be 10 s; doubled, the second would be 0.1 s; unbounded, the third 5 s.
    assert!((0.05..9.0).contains(&gaps[0]), "{gaps:?}");
    assert!(gaps[1] >= 0.5 && (0.5..4.9).contains(&gaps[2]), "{gaps:?}");
}

// field: retry.transient_retries
#[test]
fn faults_that_pass_have_retries_of_their_own() {
    for (field, attempts) in [(0, 1), (2, 3)] {
        let person = Person::new();
        let more =
            format!("retry: {{max_retries: 0, transient_retries: {field}, base_delay_seconds: 0.01, jitter: false}}\n");
        let failed = person.fails(&person.job(1, "kill -9 $$", &more, &[]));
        assert_eq!(
            (&failed["attempts"], &failed["code"]),
            (&attempts.into(), &"E002".into())
        );
    }
}

// field: on_limit
// field: rate_limit.detection_patterns
#[test]
fn a_limit_that_the_job_describes_is_waited_for_or_ends_the_run() {
    let script = "echo 'come back later' >&2; exit 1";
    let retry = "retry: {max_retries: 0, transient_retries: 0}\n";
    let limits = "rate_limit: {detection_patterns: ['Back.later']}\n";

    let person = Person::new();
    let failed = person.fails(&person.job(1, script, retry, &[]));
    assert_eq!(
        failed["code"], "E009",
        "not among the patterns that are there by default"
    );

    let person = Person::new();
    let failed = person.fails(&person.job(1, script, &format!("{retry}{limits}on_limit: stop\n"), &[]));
    assert_eq!(
        (&failed["code"], &failed["cause"]),
        (&"E102".into(), &"rate_limit".into())
    );

    let person = Person::new();
    let file = person.job(1, script, &format!("{retry}{limits}on_limit: wait\n"), &[]);
    let mut run = person
        .alone
        .ctl(["run"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mozartctl");
    wait_until("the sheet waits", Duration::from_secs(10), || {
        person.alone.status("job")["sheets"][0]["state"] == "waiting"
    });
    let sheet = person.alone.status("job")["sheets"][0].clone();
    assert!(sheet["cause"] == "rate_limit" && !sheet["until"].is_null(), "{sheet}");
    let cancel = output(&mut person.alone.ctl(["cancel", "job"]));
    assert!(cancel.status.success(), "{}", said(&cancel));
    run.wait().expect("mozartctl");
}
