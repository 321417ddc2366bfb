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

// field: sheet.fan_out
// field: sheet.dependencies
// field: parallel
// field: parallel.enabled
#[test]
fn instances_of_a_stage_run_at_once_and_who_waits_for_them_runs_last() {
    let person = Person::new();
    // Each instance of the second stage, sheets 2 to 4, ends only when all three have begun.
    let script = "touch begun-$n; case $n in [234]) until [ -e begun-2 ] && [ -e begun-3 ] && [ -e begun-4 ]; \
                  do sleep 0.02; done; echo many;; *) echo $n;; esac >> order";
    let sheets = "total_items: 3, fan_out: {2: 3}, dependencies: {2: [1], 3: [2]}";
    let file = person.job(3, script, "parallel: {enabled: true}\n", &[("total_items: 3", sheets)]);
    person.completes(&file);
    assert_eq!(person.desk.lines("order"), ["1", "many", "many", "many", "5"]);
}

// field: parallel.max_concurrent
#[test]
fn no_more_sheets_run_at_once_than_the_job_says() {
    let person = Person::new();
    let script = "mkdir at-work-$n; ls -d at-work-* | wc -l >> at-once; sleep 0.1; rmdir at-work-$n";
    let file = person.job(6, script, "parallel: {enabled: true, max_concurrent: 2}\n", &[]);
    person.completes(&file);
    let at_once: Vec<u32> = person
        .desk
        .lines("at-once")
        .iter()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert!(at_once.len() == 6 && at_once.iter().max() == Some(&2), "{at_once:?}");
}

// field: parallel.fail_fast
#[test]
fn a_failed_sheet_holds_stops_or_leaves_the_others() {
    let states = |fail_fast: &str| {
        let person = Person::new();
        let script = "if [ $n = 1 ]; then until [ -e begun ]; do sleep 0.02; done; exit 1; fi; \
                      touch begun; [ $n != 2 ] || sleep 1";
        let more = format!(
            "parallel: {{enabled: true, max_concurrent: 2, fail_fast: {fail_fast}}}\nretry: {{max_retries: 0}}\n"
        );
        let file = person.job(3, script, &more, &[]);
        person.fails(&file);
        let status = person.alone.status("job");
        let sheets = status["sheets"].as_array().expect("sheets").iter();
        sheets
            .map(|sheet| sheet["state"].as_str().expect("a state").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(states("true"), ["failed", "completed", "pending"]);
    assert_eq!(states("cancel"), ["failed", "cancelled", "pending"]);
    assert_eq!(states("false"), ["failed", "completed", "completed"]);
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

// field: on_limit
#[test]
fn a_limit_that_the_job_wants_to_be_asked_about_waits_for_the_answer() {
    let more = "retry: {max_retries: 0, base_delay_seconds: 0.01, jitter: false}\non_limit: ask\n\
                rate_limit: {detection_patterns: ['Back.later']}\n";
    let limited_once = "[ -e over ] || { touch over; echo 'come back later' >&2; exit 1; }";
    let person = Person::new();
    let file = person.job(2, limited_once, more, &[]);
    for _ in 0..2 {
        let run = person.run(&file);
        assert_eq!(run.status.code(), Some(3), "{}", said(&run));
        assert!(
            said(&run).contains("`mozartctl answer q1-1-1 CHOICE`") && said(&run).contains("wait or stop"),
            "{}",
            said(&run)
        );
        assert!(said(&run).contains("`mozartctl resume job`"), "{}", said(&run));
    }
    let status = person.alone.status("job");
    assert_eq!(
        (&status["state"], &status["question"]),
        (&"waiting".into(), &"q1-1-1".into())
    );
    assert_eq!(
        person.desk.starts(),
        [(1, 1)].into(),
        "nothing starts before the answer"
    );
    let answer = |choice| output(&mut person.alone.ctl(["answer", "q1-1-1", choice]));
    let wrong = answer("retry");
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    let answered = answer("wait");
    assert!(answered.status.success(), "{}", said(&answered));
    assert!(
        said(&answered).contains("`mozartctl resume job`"),
        "{}",
        said(&answered)
    );
    assert_eq!(answer("wait").status.code(), Some(4), "it is answered");
    let resume = output(&mut person.alone.ctl(["resume", "job"]));
    assert_eq!(resume.status.code(), Some(0), "{}", said(&resume));
    assert_eq!(person.desk.starts(), [(1, 2), (2, 1)].into());

    let person = Person::new();
    let file = person.job(2, limited_once, more, &[]);
    assert_eq!(person.run(&file).status.code(), Some(3));
    let stopped = output(&mut person.alone.ctl(["answer", "q1-1-1", "stop"]));
    assert!(stopped.status.success(), "{}", said(&stopped));
    assert_eq!(person.alone.status("job")["state"], "cancelled");

    let person = Person::new();
    let file = person.job(2, limited_once, more, &[]);
    let typed = person.alone.typed(["run".as_ref(), file.as_os_str()], "wait");
    assert_eq!(typed.status.code(), Some(0), "{}", said(&typed));
    assert_eq!(person.desk.starts(), [(1, 2), (2, 1)].into());
}

// field: stale_detection
// field: stale_detection.enabled
// field: stale_detection.idle_timeout_seconds
#[test]
fn a_session_that_is_silent_for_too_long_is_ended_and_tried_again() {
    let retry = "retry: {max_retries: 0, transient_retries: 1, base_delay_seconds: 0.01, jitter: false}\n";
    // The second attempt prints now and then, for longer than it may be silent, and on either output.
    let script = "[ -e tried ] || { touch tried; exec sleep 60; }; for i in 1 2 3 4; do sleep 0.5; echo $i >&2; sleep 0.5; echo $i; done";
    let person = Person::new();
    let silence = "stale_detection: {idle_timeout_seconds: 1.5}\n";
    person.completes(&person.job(1, script, &format!("{retry}{silence}"), &[]));
    assert_eq!(person.desk.starts()[&1], 2);

    let person = Person::new();
    let retry = "retry: {max_retries: 0, transient_retries: 0}\n";
    let failed = person.fails(&person.job(1, "echo begun; exec sleep 60", &format!("{retry}{silence}"), &[]));
    assert_eq!(
        (&failed["code"], &failed["cause"]),
        (&"E006".into(), &"transient".into())
    );
    assert_eq!(
        failed["message"], "The session hung: it printed nothing more for 1.5s.",
        "{failed}"
    );

    // Silence is normal for a command whose job says nothing of it, or that it does not count.
    for silence in ["", "stale_detection: {enabled: false, idle_timeout_seconds: 1}\n"] {
        let person = Person::new();
        person.completes(&person.job(1, "sleep 3", &format!("{retry}{silence}"), &[]));
    }
}

// field: stale_detection.first_event_timeout_seconds
#[test]
fn a_session_that_begins_with_silence_has_a_time_of_its_own() {
    let more = "retry: {max_retries: 0, transient_retries: 0}\n\
                stale_detection: {first_event_timeout_seconds: 1.5, idle_timeout_seconds: 600}\n";
    let person = Person::new();
    let failed = person.fails(&person.job(1, "exec sleep 60", more, &[]));
    assert_eq!(
        (&failed["code"], &failed["message"]),
        (
            &"E006".into(),
            &"The session hung: it printed nothing in its first 1.5s.".into()
        )
    );

    let person = Person::new();
    person.completes(&person.job(1, "echo begun; sleep 3", more, &[]));
}

// field: sheet.skip_when
#[test]
fn a_sheet_is_skipped_for_what_the_sheets_before_it_came_to() {
    let person = Person::new();
    let rules = "total_items: 4, skip_when: {2: 'sheets[1].exit_code == 0 and sheets[1].validation_passed', \
                 3: \"sheets[2].status != 'skipped'\", 4: 'len(sheets) < job.total_sheets'}";
    let rule = "validations: [{type: command_succeeds, command: 'true'}]\n";
    let file = person.job(4, "true", rule, &[("total_items: 4", rules)]);
    person.completes(&file);
    assert_eq!(person.desk.starts().into_keys().collect::<Vec<_>>(), [1, 3, 4]);
    let status = person.alone.status("job");
    assert_eq!(status["sheets"][1]["state"], "skipped");
    assert_eq!(
        status["sheets"][1]["reason"],
        "`skip_when` holds: sheets[1].exit_code == 0 and sheets[1].validation_passed"
    );
}

/// The Python version skipped it.
#[test]
fn a_sheet_whose_rule_cannot_be_evaluated_fails_with_an_explanation() {
    let person = Person::new();
    let rules = "total_items: 3, skip_when: {2: 'sheets[1].error_message > 3'}";
    let file = person.job(3, "true", "", &[("total_items: 3", rules)]);
    let failed = person.fails(&file);
    assert_eq!(failed["sheet_num"], 2);
    assert!(
        failed
            .to_string()
            .contains("its `skip_when` cannot be evaluated: None and 3 cannot be compared"),
        "{failed}"
    );
    assert_eq!(person.desk.starts().into_keys().collect::<Vec<_>>(), [1]);
}

// field: sheet.skip_when_command
#[test]
fn a_command_says_whether_a_sheet_is_needed() {
    let person = Person::new();
    let rules = "total_items: 5, skip_when_command: {2: {command: 'test -e \"{workspace}\"/made-{start_item} || echo no', \
                 description: 'it is there'}, 3: {command: 'exit 1'}, 4: {command: 'sleep 60', timeout_seconds: 0.3}, \
                 5: {command: 'test -e made-by-1'}}";
    let script = "case $n in 1) touch workspace/made-by-1;; esac";
    let file = person.job(5, script, "", &[("total_items: 5", rules)]);
    person.completes(&file);
    assert_eq!(person.desk.starts().into_keys().collect::<Vec<_>>(), [1, 3, 4]);
    let status = person.alone.status("job");
    let sheet = |n: usize| &status["sheets"][n - 1];
    assert_eq!(sheet(2)["state"], "skipped");
    assert_eq!(sheet(2)["reason"], "`skip_when_command` succeeded: it is there");
    assert_eq!(
        sheet(4)["flags"][0],
        "skip check: the command took longer than 0.3 s and was ended"
    );
    assert_eq!(sheet(5)["reason"], "`skip_when_command` succeeded: test -e made-by-1");
}
