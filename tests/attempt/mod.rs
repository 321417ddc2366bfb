//! Whole attempts over both launchers: sessions of the `command` backend, checked by real rules.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use mozart::job::plan::Check;
use mozart::model::{AttemptReport, Cause, Code, Exit, LimitKind, Span, StopHow, Timestamp};
use mozart::runner::backend::Heard;
use mozart::runner::launch::spool::Spool;
use mozart::runner::spec::Progress;
use serde_json::json;

use crate::claude_cli::world::{Api, program};
use crate::launch::support::{Kind, alive, wait_until};
use support::{Stage, failure, rule};

macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod supervised_launcher {
            $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Kind::Supervised).await).await; })*
        }
        mod systemd_launcher {
            $(#[tokio::test] async fn $name() {
                if !crate::host::inside() { return; }
                super::$name(super::Stage::new(super::Kind::Systemd).await).await;
            })*
        }
    };
}

both!(
    a_sheet_that_did_everything_passes,
    each_rule_that_fails_says_why,
    later_stages_wait_for_earlier_ones,
    a_check_is_tried_again_as_often_as_asked,
    a_check_that_runs_too_long_is_ended_whole,
    a_check_has_the_sessions_environment_without_its_secrets,
    what_files_were_before_the_first_attempt_is_remembered,
    an_abandoned_attempt_is_taken_up,
    what_never_ran_is_said_and_not_started,
    a_spool_with_output_is_never_started_again,
    a_stopped_session_is_interrupted,
    a_session_whose_spool_is_deleted_is_stopped_as_any_other,
    a_session_whose_spool_is_deleted_ends_with_that_cause,
    a_stop_breaks_off_a_check,
    a_sheet_that_is_not_needed_has_no_session,
    a_skip_check_that_says_nothing_lets_the_sheet_run,
    an_abandoned_skip_check_is_ended_and_asked_again,
    a_stop_breaks_off_a_skip_check,
    a_missing_program_or_directory_is_fatal,
    secrets_are_taken_out_of_the_report,
    a_failing_session_is_not_validated,
    a_session_that_prints_nothing_is_ended_as_hung,
    a_session_that_stops_printing_is_ended_as_hung,
    a_session_that_prints_slowly_is_left_alone,
    a_hang_that_an_earlier_conductor_found_stays_one,
    a_session_that_hangs_and_is_then_stopped_is_interrupted,
    what_a_session_tells_is_heard_while_it_runs,
    what_a_session_told_is_heard_by_the_next_conductor_too,
    a_session_that_cuts_its_own_output_is_followed_on,
    the_real_cli_is_heard_and_its_hang_is_ended,
);

async fn a_sheet_that_did_everything_passes(mut stage: Stage) {
    stage.file("tracking.md", "old");
    stage.rules([
        rule(Check::FileExists {
            path: "out.md".to_owned(),
        }),
        rule(Check::FileModified {
            path: "tracking.md".to_owned(),
        }),
        rule(Check::ContentContains {
            path: "out.md".to_owned(),
            pattern: "## Summary".to_owned(),
        }),
        rule(Check::ContentRegex {
            path: "out.md".to_owned(),
            pattern: r"(?m)^## \w+$".to_owned(),
        }),
        stage.command("grep -q Summary out.md && echo fine"),
    ]);
    let script = "cat > out.md; printf '\\n## Summary\\n' >> out.md; echo more >> tracking.md; echo answer";
    let report = stage.run(script).await;
    assert_eq!(report.outcome.failure, None, "{report:#?}");
    assert_eq!((report.outcome.rules_passed, report.outcome.rules_total), (5, 5));
    assert_eq!(report.certificate.exit, Exit::Code(0));
    assert_eq!(report.session.result_text.trim(), "answer");
    assert!(
        stage.read("out.md").starts_with("do sheet 1"),
        "{}",
        stage.read("out.md")
    );
    assert_eq!(
        report.validation.rules[4].actual.as_deref(),
        Some("exit status 0, output:\nfine")
    );
    assert!(report.started_at.is_some_and(|started| started <= report.ended_at));
}

async fn each_rule_that_fails_says_why(mut stage: Stage) {
    stage.file("tracking.md", "old");
    stage.rules([
        rule(Check::FileExists {
            path: "out.md".to_owned(),
        }),
        rule(Check::FileModified {
            path: "tracking.md".to_owned(),
        }),
        rule(Check::ContentContains {
            path: "tracking.md".to_owned(),
            pattern: "new".to_owned(),
        }),
        rule(Check::ContentRegex {
            path: "tracking.md".to_owned(),
            pattern: "^new".to_owned(),
        }),
        stage.command("echo no; echo bad >&2; exit 3"),
    ]);
    let report = stage.run("true").await;
    let found: Vec<_> = report
        .validation
        .rules
        .iter()
        .map(|rule| {
            (
                rule.rule,
                rule.kind.as_str(),
                rule.passed,
                rule.code.unwrap(),
                rule.category.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (0, "file_exists", false, Code::E201, "missing"),
            (1, "file_modified", false, Code::E209, "stale"),
            (2, "content_contains", false, Code::E202, "incomplete"),
            (3, "content_regex", false, Code::E202, "malformed"),
            (4, "command_succeeds", false, Code::E203, "error"),
        ]
    );
    assert_eq!(
        report.validation.rules[0].reason.as_deref(),
        Some("there is no file out.md")
    );
    assert_eq!(
        report.validation.rules[4].actual.as_deref(),
        Some("exit status 3, output:\nno\nbad")
    );
    let failure = failure(&report);
    assert_eq!((failure.cause, failure.code), (Cause::Validation, Code::E201));
    assert_eq!((report.outcome.rules_passed, report.outcome.rules_total), (0, 5));
}

async fn later_stages_wait_for_earlier_ones(mut stage: Stage) {
    let mut first = stage.command("touch ran-1; false");
    let mut second = stage.command("touch ran-2");
    let mut same = stage.command("touch ran-1b");
    (second.stage, first.stage, same.stage) = (3, 2, 2);
    stage.rules([second, first, same]);
    let report = stage.run("true").await;
    let results: Vec<_> = report
        .validation
        .rules
        .iter()
        .map(|rule| (rule.passed, rule.category.as_deref()))
        .collect();
    assert_eq!(
        results,
        [(false, Some("skipped")), (false, Some("error")), (true, None)]
    );
    assert!(!stage.exists("ran-2") && stage.exists("ran-1") && stage.exists("ran-1b"));
    assert_eq!(failure(&report).code, Code::E203);
}

async fn a_check_is_tried_again_as_often_as_asked(mut stage: Stage) {
    let mut third_time = stage.command("echo x >> tries; [ $(wc -l < tries) -ge 3 ]");
    (third_time.retry_count, third_time.retry_delay) = (2, Span::from_secs_f64(0.05));
    let once = stage.command("echo x >> once; false");
    stage.rules([third_time, once]);
    let report = stage.run("true").await;
    let passed: Vec<bool> = report.validation.rules.iter().map(|rule| rule.passed).collect();
    assert_eq!(passed, [true, false]);
    assert_eq!(
        (stage.read("tries").as_str(), stage.read("once").as_str()),
        ("x\nx\nx\n", "x\n")
    );
    assert!(report.validation.rules[0].duration_ms >= 100);
}

async fn a_check_that_runs_too_long_is_ended_whole(mut stage: Stage) {
    let sleep = format!("sleep 8{}1", std::process::id());
    let mut endless = stage.command(&format!("echo begun; setsid {sleep} & {sleep}"));
    if let Check::CommandSucceeds { timeout, .. } = &mut endless.check {
        *timeout = Span::from_secs_f64(0.3);
    }
    stage.rules([endless]);
    let report = stage.run("true").await;
    assert_eq!(failure(&report).code, Code::E204);
    let actual = report.validation.rules[0].actual.as_deref().unwrap();
    assert_eq!(actual, "ended by SIGTERM, output:\nbegun");
    assert!(!alive(&sleep));
}

async fn a_check_has_the_sessions_environment_without_its_secrets(mut stage: Stage) {
    stage.secret("TOKEN", "hunter2-hunter2");
    stage.backend().env.insert("FROM_JOB".to_owned(), "$x y".to_owned());
    let elsewhere = stage.directory("else where");
    let mut rule = stage.command("env > env; pwd >> env");
    if let Check::CommandSucceeds { working_directory, .. } = &mut rule.check {
        *working_directory = Some(elsewhere.display().to_string());
    }
    stage.rules([rule]);
    let report = stage.run("echo \"$FROM_JOB\"; [ -n \"$TOKEN\" ]").await;
    assert_eq!(report.outcome.failure, None, "{report:#?}");
    assert_eq!(report.session.result_text.trim(), "$x y");
    let env = fs::read_to_string(elsewhere.join("env")).unwrap();
    assert!(
        env.contains("FROM_JOB=$x y\n") && env.contains("\nHOME=/") || env.starts_with("HOME=/"),
        "{env}"
    );
    assert!(env.trim_end().ends_with(elsewhere.to_str().unwrap()), "{env}");
    assert!(
        !env.contains("TOKEN") && !env.contains("hunter2") && !env.contains("XDG_RUNTIME_DIR"),
        "{env}"
    );
}

async fn what_files_were_before_the_first_attempt_is_remembered(mut stage: Stage) {
    stage.file("tracking.md", "old");
    stage.rules([rule(Check::FileModified {
        path: "tracking.md".to_owned(),
    })]);
    assert_eq!(failure(&stage.run("true").await).code, Code::E209);
    let mut stage = stage.again().await;
    assert_eq!(failure(&stage.attempt(2).run("true").await).code, Code::E209);
    assert_eq!(
        stage.attempt(3).run("echo new > tracking.md").await.outcome.failure,
        None
    );
    // Changed in an earlier attempt of the sheet: that counts.
    assert_eq!(stage.attempt(4).run("true").await.outcome.failure, None);
}

async fn an_abandoned_attempt_is_taken_up(mut stage: Stage) {
    stage.rules([rule(Check::FileExists {
        path: "late".to_owned(),
    })]);
    stage.script("while [ ! -e go ]; do sleep 0.02; done; touch late; echo answer");
    let first = {
        let mut running = stage.begin(false);
        let Some(Progress::Started { invocation, .. }) = running.next().await else {
            panic!("it did not start");
        };
        invocation
        // The conductor's future is dropped here; its launcher with it.
    };
    let stage = stage.again().await;
    let mut running = stage.begin(true);
    let Some(Progress::Started { invocation, .. }) = running.next().await else {
        panic!("it was not found");
    };
    assert_eq!(invocation, first);
    assert!(invocation.is_some());
    stage.file("go", "");
    let report = running.report().await;
    assert_eq!(report.outcome.failure, None, "{report:#?}");
    assert_eq!(report.session.result_text.trim(), "answer");
    // Once more, from what is left behind alone.
    let stage = stage.again().await;
    let report = stage.begin(true).report().await;
    assert_eq!((report.outcome.failure, report.certificate.exit), (None, Exit::Code(0)));
}

async fn what_never_ran_is_said_and_not_started(mut stage: Stage) {
    stage.script("touch ran");
    let mut running = stage.begin(true);
    assert!(matches!(running.next().await, Some(Progress::NeverRan)));
    assert!(running.next().await.is_none());
    drop(running);
    assert!(!stage.exists("ran"));
    // The same attempt may start then.
    assert_eq!(stage.run("touch ran").await.outcome.failure, None);
    assert!(stage.exists("ran"));
}

async fn a_spool_with_output_is_never_started_again(mut stage: Stage) {
    assert_eq!(stage.run("echo x >> starts").await.outcome.failure, None);
    // As after a ledger that was restored from a backup.
    let mut stage = stage.again().await;
    let report = stage.run("echo x >> starts").await;
    assert_eq!(report.certificate.exit, Exit::Code(0));
    assert_eq!(stage.read("starts"), "x\n");
}

async fn a_stopped_session_is_interrupted(mut stage: Stage) {
    stage.script("sleep 60");
    let mut running = stage.begin(false);
    running.next().await;
    running.stopper().send_replace(Some(StopHow::Terminate));
    let report = running.report().await;
    assert!(report.certificate.stopped_by_us);
    let failure = failure(&report);
    assert_eq!((failure.cause, failure.code), (Cause::Interrupted, Code::E004));
}

async fn a_session_whose_spool_is_deleted_is_stopped_as_any_other(mut stage: Stage) {
    stage.script("touch up; exec sleep 60");
    let mut running = stage.begin(false);
    assert!(matches!(running.next().await, Some(Progress::Started { .. })));
    wait_until(|| stage.exists("up")).await;
    fs::remove_dir_all(stage.spool().directory()).unwrap();
    running.stopper().send(Some(StopHow::Terminate)).unwrap();
    let report = running.report().await;
    assert!(report.certificate.stopped_by_us, "{report:#?}");
    assert_eq!(failure(&report).cause, Cause::Interrupted);
    assert_eq!(failure(&report).message, "Mozart stopped the session.");
}

async fn a_session_whose_spool_is_deleted_ends_with_that_cause(mut stage: Stage) {
    stage.script("touch up; while [ ! -e go ]; do sleep 0.02; done; kill -9 $$");
    let mut running = stage.begin(false);
    assert!(matches!(running.next().await, Some(Progress::Started { .. })));
    wait_until(|| stage.exists("up")).await;
    fs::remove_dir_all(stage.spool().directory()).unwrap();
    stage.file("go", "");
    let report = running.report().await;
    let message = &failure(&report).message;
    if report.certificate.exit == Exit::Unknown {
        assert!(message.contains("was deleted while the session ran"), "{report:#?}");
    } else {
        // The unit itself tells how it ended.
        assert_eq!(report.certificate.exit, Exit::Signal(9));
    }
}

async fn a_stop_breaks_off_a_check(mut stage: Stage) {
    let sleep = format!("sleep 8{}2", std::process::id());
    stage.rules([stage.command(&sleep), stage.command("touch never")]);
    stage.script("true");
    let running = stage.begin(false);
    let stop = running.stopper();
    let begun = Instant::now();
    let stopping = async {
        wait_until(|| alive(&sleep)).await;
        stop.send_replace(Some(StopHow::Terminate));
    };
    let (report, ()) = tokio::join!(running.report(), stopping);
    assert_eq!(
        (failure(&report).cause, failure(&report).code),
        (Cause::Interrupted, Code::E004)
    );
    assert!(
        report
            .validation
            .rules
            .iter()
            .all(|rule| rule.category.as_deref() == Some("skipped"))
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(!alive(&sleep) && !stage.exists("never"));
}

async fn a_sheet_that_is_not_needed_has_no_session(mut stage: Stage) {
    stage.file("done", "");
    stage.skip("pwd > asked; test -e done", 10.0);
    let report = stage.run("touch ran").await;
    let reason = "`skip_when_command` succeeded: pwd > asked; test -e done";
    assert_eq!(report.outcome.skipped.as_deref(), Some(reason));
    assert_eq!((report.outcome.failure, report.started_at), (None, None));
    assert!(stage.exists("asked") && !stage.exists("ran"));
    // Another status than 0: it runs.
    stage.skip("exit 3", 10.0);
    let report = stage.attempt(2).run("touch ran").await;
    assert_eq!((report.outcome.failure, report.outcome.skipped), (None, None));
    assert!(stage.exists("ran") && report.outcome.flags.is_empty());
}

async fn a_skip_check_that_says_nothing_lets_the_sheet_run(mut stage: Stage) {
    let sleep = format!("sleep 7{}2", std::process::id());
    let table = [
        (sleep.as_str(), 0.3, "the command took longer than 0.3 s and was ended"),
        ("no-such-program", 10.0, "the command failed: exit status 127"),
        ("kill -9 $$", 10.0, "the command failed: ended by SIGKILL"),
    ];
    for (number, (command, timeout, why)) in (1..).zip(table) {
        stage.skip(command, timeout);
        stage.attempt(number).script("touch ran");
        let mut running = stage.begin(false);
        let Some(Progress::SkipCheckFailed(said)) = running.next().await else {
            panic!("{command}: no warning")
        };
        assert_eq!(said, why, "{command}");
        let report = running.report().await;
        assert_eq!(report.outcome.failure, None);
        assert_eq!(report.outcome.flags, [format!("skip check: {why}")]);
    }
    assert!(stage.exists("ran") && !alive(&sleep));
}

/// As where the conductor is killed while it asks.
async fn an_abandoned_skip_check_is_ended_and_asked_again(mut stage: Stage) {
    let sleep = format!("sleep 6{}3", std::process::id());
    stage.skip(&format!("echo asked >> asked; test -e go || {sleep}"), 50.0);
    stage.script("touch ran");
    {
        let mut running = stage.begin(false);
        tokio::select! {
            _ = running.next() => panic!("it went on"),
            () = wait_until(|| alive(&sleep)) => {}
        }
    }
    let stage = stage.again().await;
    let mut running = stage.begin(true);
    assert!(matches!(running.next().await, Some(Progress::NeverRan)));
    drop(running);
    stage.file("go", "");
    let report = stage.begin(false).report().await;
    assert!(report.outcome.skipped.is_some(), "{report:#?}");
    assert!(!alive(&sleep) && !stage.exists("ran"));
    assert_eq!(stage.read("asked"), "asked\nasked\n");
}

async fn a_stop_breaks_off_a_skip_check(mut stage: Stage) {
    let sleep = format!("sleep 5{}4", std::process::id());
    stage.skip(&sleep, 50.0);
    stage.script("touch ran");
    let running = stage.begin(false);
    let stop = running.stopper();
    let stopping = async {
        wait_until(|| alive(&sleep)).await;
        stop.send_replace(Some(StopHow::Terminate));
    };
    let (report, ()) = tokio::join!(running.report(), stopping);
    assert_eq!(
        (failure(&report).cause, failure(&report).code),
        (Cause::Interrupted, Code::E004)
    );
    assert!(!report.outcome.worked && !alive(&sleep) && !stage.exists("ran"));
}

async fn a_missing_program_or_directory_is_fatal(mut stage: Stage) {
    stage.program("/no/such/program");
    let report = stage.begin(false).report().await;
    assert_eq!(
        (failure(&report).cause, failure(&report).code),
        (Cause::Fatal, Code::E505)
    );
    stage.program("/bin/sh");
    stage.backend().working_directory = "/no/such/directory".to_owned();
    let report = stage.attempt(2).begin(false).report().await;
    assert_eq!(
        (failure(&report).cause, failure(&report).code),
        (Cause::Fatal, Code::E603)
    );
    assert!(failure(&report).message.contains("/no/such/directory"), "{report:#?}");
}

async fn secrets_are_taken_out_of_the_report(mut stage: Stage) {
    stage.secret("TOKEN", "hunter2-hunter2");
    stage.rules([stage.command("cat leak; false")]);
    let report = stage.run("echo \"$TOKEN\" | tee leak; echo \"$TOKEN\" >&2").await;
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("[redacted]") && !text.contains("hunter2"), "{text}");
    let order = fs::read_to_string(stage.spool().directory().join("launch")).unwrap();
    assert!(order.contains("TOKEN") && !order.contains("hunter2"), "{order}");
}

async fn a_failing_session_is_not_validated(mut stage: Stage) {
    stage.rules([stage.command("touch checked")]);
    let report = stage.run("echo why >&2; exit 37").await;
    let failure = failure(&report);
    assert_eq!((failure.cause, failure.code), (Cause::Validation, Code::E009));
    assert!(
        failure.message.contains("37") && failure.message.contains("why"),
        "{}",
        failure.message
    );
    assert_eq!(report.validation.rules, []);
    assert_eq!((report.outcome.rules_passed, report.outcome.rules_total), (0, 0));
    assert!(!stage.exists("checked"));
    assert_eq!(
        Spool::new(stage.spool().directory()).record().unwrap().exit(),
        Exit::Code(37)
    );
}

fn is_hung(report: &AttemptReport, said: &str) {
    let failure = failure(report);
    assert_eq!(
        (failure.cause, failure.code),
        (Cause::Transient, Code::E006),
        "{report:#?}"
    );
    assert_eq!(failure.message, said);
    assert!(!report.certificate.stopped_by_us && report.certificate.result == "hung");
}

const NO_MORE: &str = "The session hung: it printed nothing more for 1s.";

async fn a_session_that_prints_nothing_is_ended_as_hung(mut stage: Stage) {
    stage.silence(1.0);
    let sleep = format!("sleep 7{}1", std::process::id());
    let begun = Instant::now();
    let report = stage.run(&sleep).await;
    is_hung(&report, "The session hung: it printed nothing in its first 1s.");
    assert!((Duration::from_secs(1)..Duration::from_secs(20)).contains(&begun.elapsed()));
    assert!(!alive(&sleep));
}

async fn a_session_that_stops_printing_is_ended_as_hung(mut stage: Stage) {
    stage.silence(1.0);
    // It is asked first, and may still say something.
    let script = "trap 'echo asked; exit 0' TERM; echo begun; echo why >&2; while :; do sleep 0.05; done";
    let report = stage.run(script).await;
    is_hung(&report, NO_MORE);
    assert_eq!(report.session.result_text, "begun\nasked\n");
    assert!(report.session.stderr_tail.starts_with("why\n"), "{report:#?}");
}

async fn a_session_that_prints_slowly_is_left_alone(mut stage: Stage) {
    stage.silence(1.5);
    let script = "for i in 1 2 3 4 5; do sleep 0.6; echo $i; sleep 0.6; echo $i >&2; done";
    let report = stage.run(script).await;
    assert_eq!(report.outcome.failure, None, "{report:#?}");
    // And one that is silent, where silence does not count.
    let mut stage = stage.again().await;
    stage.attempt(2).patient();
    assert_eq!(stage.run("sleep 3").await.outcome.failure, None);
}

async fn a_hang_that_an_earlier_conductor_found_stays_one(mut stage: Stage) {
    // It went away after its note, and before the stop or after it.
    for (number, stopped) in [(1, false), (2, true)] {
        stage.attempt(number).script("echo begun; sleep 60");
        let mut running = stage.begin(false);
        assert!(matches!(running.next().await, Some(Progress::Started { .. })));
        stage.spool().note_hang("the session hung").unwrap();
        if stopped {
            running.stopper().send_replace(Some(StopHow::Terminate));
            running.report().await;
        } else {
            drop(running);
        }
        stage = stage.again().await;
        let report = stage.begin(true).report().await;
        is_hung(&report, "The session hung.");
    }
}

async fn a_session_that_hangs_and_is_then_stopped_is_interrupted(mut stage: Stage) {
    stage.silence(1.0);
    stage.script("trap '' TERM; while :; do sleep 0.05; done");
    let running = stage.begin(false);
    let (stop, spool) = (running.stopper(), stage.spool());
    let stopping = async {
        wait_until(|| spool.hang().is_some()).await;
        stop.send_replace(Some(StopHow::Kill));
    };
    let (report, ()) = tokio::join!(running.report(), stopping);
    assert_eq!(failure(&report).cause, Cause::Interrupted, "{report:#?}");
}

const ALLOWED: &str = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"allowed","resetsAt":1795228656,"rateLimitType":"five_hour"}}"#;
const REFUSED: &str = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1795228656,"rateLimitType":"five_hour"}}"#;
const ANSWER: &str =
    r#"{"type":"assistant","message":{"id":"m","model":"claude-opus-5-5","content":[{"type":"text","text":"x"}]}}"#;
const RESULT: &str = r#"{"type":"result","subtype":"success","is_error":false,"result":"ok","num_turns":1}"#;

/// Whether it is that limit, refused or not.
fn is_limit(heard: &Heard, was_refused: bool) -> bool {
    matches!(heard, Heard::Limit { limit, refused } if *refused == was_refused
        && limit.kind == LimitKind::Usage
        && limit.window.as_deref() == Some("five_hour")
        && limit.resets_at == Some(Timestamp::from_seconds(1_795_228_656)))
}

async fn what_a_session_tells_is_heard_while_it_runs(mut stage: Stage) {
    let until = |file: &str| format!("until [ -e {file} ]; do sleep 0.02; done");
    let (half, rest) = ANSWER.split_at(30);
    stage.cli(&format!(
        "echo '{ALLOWED}'; printf %s '{half}'; {}; echo '{rest}'; {}; echo '{ANSWER}'; echo '{ALLOWED}'; echo '{REFUSED}'; echo '{RESULT}'",
        until("answer"),
        until("end")
    ));
    let mut running = stage.begin(false);
    assert!(matches!(running.next().await, Some(Progress::Started { .. })));
    assert!(matches!(running.next().await, Some(Progress::Heard(heard)) if is_limit(&heard, false)));
    stage.file("answer", "");
    assert!(matches!(running.next().await, Some(Progress::Heard(Heard::Answered))));
    stage.file("end", "");
    let (heard, report) = running.heard().await;
    assert!(heard.len() == 1 && is_limit(&heard[0], true), "{heard:?}");
    assert_eq!(report.session.result_text, "ok", "{report:#?}");
}

async fn what_a_session_told_is_heard_by_the_next_conductor_too(mut stage: Stage) {
    stage.cli(&format!(
        "echo '{ANSWER}'; until [ -e end ]; do sleep 0.02; done; echo '{ANSWER}'; echo '{REFUSED}'; echo '{RESULT}'"
    ));
    let mut running = stage.begin(false);
    assert!(matches!(running.next().await, Some(Progress::Started { .. })));
    assert!(matches!(running.next().await, Some(Progress::Heard(Heard::Answered))));
    drop(running);
    let stage = stage.again().await;
    let mut running = stage.begin(true);
    assert!(matches!(running.next().await, Some(Progress::Started { .. })));
    assert!(matches!(running.next().await, Some(Progress::Heard(Heard::Answered))));
    stage.file("end", "");
    let (heard, _) = running.heard().await;
    assert!(heard.len() == 1 && is_limit(&heard[0], true), "{heard:?}");
    // One that ended while nobody was there.
    let stage = stage.again().await;
    let (heard, _) = stage.begin(true).heard().await;
    assert!(heard.len() == 2 && heard[0] == Heard::Answered, "{heard:?}");
}

async fn a_session_that_cuts_its_own_output_is_followed_on(mut stage: Stage) {
    stage.silence(20.0);
    let out = stage.spool().stdout().display().to_string();
    stage.cli(&format!(
        "echo '{ANSWER}'; printf %s '{{\"half\": '; until [ -e cut ]; do sleep 0.02; done; : > '{out}'; \
         echo '{REFUSED}'; echo '{ANSWER}'; until [ -e end ]; do sleep 0.02; done; echo '{RESULT}'"
    ));
    let mut running = stage.begin(false);
    assert!(matches!(running.next().await, Some(Progress::Started { .. })));
    assert!(matches!(running.next().await, Some(Progress::Heard(Heard::Answered))));
    stage.file("cut", "");
    assert!(matches!(running.next().await, Some(Progress::Heard(heard)) if is_limit(&heard, true)));
    stage.file("end", "");
    assert_eq!(running.heard().await.0, []);
}

async fn the_real_cli_is_heard_and_its_hang_is_ended(mut stage: Stage) {
    let Some(program) = program() else { return };
    let script = json!({"rules": [{"turns": [{"bash": "true"}, {"hang": 60}]}]});
    let home = stage.directory("home");
    let api = Api::start(&home, &script);
    stage.claude(program.to_str().unwrap());
    stage.variable("ANTHROPIC_BASE_URL", &api.url);
    stage.variable("HOME", home.to_str().unwrap());
    stage.variable("IS_SANDBOX", "1");
    stage.secret("ANTHROPIC_API_KEY", "test-key");
    // Longer than it takes to begin where the machine is busy.
    stage.silence(15.0);
    let (heard, report) = stage.begin(false).heard().await;
    assert_eq!(heard, [Heard::Answered], "{report:#?}");
    is_hung(&report, "The session hung: it printed nothing more for 15s.");
    // What it did is not lost: the next attempt goes on with it.
    assert!(report.outcome.worked && report.outcome.session_id.is_some());
    assert_eq!(report.session.tool_calls, 1);
}
