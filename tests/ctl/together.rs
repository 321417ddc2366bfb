//! Several `mozartctl` at once, without any service: one conducts, the others ask it.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, output, said, wait_until};

const SCRIPT: &str = "sleep 0.3; mkdir -p workspace; echo said $n; echo done > workspace/out-$n";

fn alone() -> Alone {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    alone
}

#[test]
fn who_waits_for_the_run_of_another_learns_how_it_ended() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("shared", 3, SCRIPT, WROTE_ITS_FILE);
    let mut conducting = alone
        .ctl(["run"])
        .arg(&job)
        .stdout(Stdio::null())
        .spawn()
        .expect("mozartctl");
    wait_until("it runs", Duration::from_secs(10), || !desk.starts().is_empty());

    let waiting = alone
        .ctl(["wait", "shared"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mozartctl");
    let following = alone
        .ctl(["logs", "-F"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mozartctl");
    let attached = output(alone.ctl(["run"]).arg(&job));
    assert_eq!(attached.status.code(), Some(0), "{}", said(&attached));
    assert_eq!(conducting.wait().expect("wait").code(), Some(0));

    let waited = waiting.wait_with_output().expect("mozartctl");
    assert_eq!(waited.status.code(), Some(0), "{}", said(&waited));
    assert!(
        said(&waited).contains("shared#1 completed: 3 of 3"),
        "{}",
        said(&waited)
    );
    let followed = following.wait_with_output().expect("mozartctl");
    assert_eq!(followed.status.code(), Some(0), "{}", said(&followed));
    assert!(said(&followed).contains("said 3"), "{}", said(&followed));
    assert_eq!(
        desk.starts().values().sum::<u32>(),
        3,
        "nothing was started twice: {:?}",
        desk.starts()
    );
}

#[test]
fn a_job_taken_in_from_elsewhere_is_not_left_behind() {
    let (alone, desk) = (alone(), Desk::new());
    let first = desk.job("first", 2, SCRIPT, WROTE_ITS_FILE);
    let longer = desk.job("longer", 5, SCRIPT, WROTE_ITS_FILE);
    let conducting = alone
        .ctl(["run"])
        .arg(&first)
        .stderr(Stdio::piped())
        .spawn()
        .expect("mozartctl");
    wait_until("it runs", Duration::from_secs(10), || !desk.starts().is_empty());
    let submitted = output(alone.ctl(["run", "--detach"]).arg(&longer));
    assert!(submitted.status.success(), "{}", said(&submitted));

    let conducted = conducting.wait_with_output().expect("mozartctl");
    assert_eq!(conducted.status.code(), Some(0), "{}", said(&conducted));
    assert!(
        said(&conducted).contains("longer, submitted from elsewhere"),
        "{}",
        said(&conducted)
    );
    assert_eq!(alone.status("longer")["state"], "completed");
}

#[test]
fn after_a_conductor_was_killed_others_only_look() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("orphan", 3, SCRIPT, WROTE_ITS_FILE);
    let mut conducting = alone
        .ctl(["run"])
        .arg(&job)
        .stdout(Stdio::null())
        .spawn()
        .expect("mozartctl");
    wait_until("it runs", Duration::from_secs(10), || !desk.starts().is_empty());
    conducting.kill().expect("kill -9");
    conducting.wait().expect("wait");

    let status = alone.status("orphan");
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&"paused".into(), &"conductor gone".into()),
        "{status:#}"
    );
    let pause = output(&mut alone.ctl(["pause", "orphan"]));
    assert_eq!(pause.status.code(), Some(1), "{}", said(&pause));
    assert!(said(&pause).contains("mozartctl resume orphan"), "{}", said(&pause));
    assert_eq!(output(&mut alone.ctl(["wait", "orphan"])).status.code(), Some(3));

    let resumed = output(&mut alone.ctl(["resume", "orphan"]));
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(alone.status("orphan")["state"], "completed");
}

#[test]
fn a_full_queue_refuses_in_clear_words_and_what_is_in_it_goes_on() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\nqueue_limit: 1\n");
    let first = desk.job("first", 1, "until [ -e go ]; do sleep 0.02; done", "");
    let second = desk.job("second", 1, "true", "");
    let spawned = alone.ctl(["run"]).arg(&first).stdout(Stdio::null()).spawn();
    let mut conducting = spawned.expect("mozartctl");
    wait_until("it runs", Duration::from_secs(10), || !desk.starts().is_empty());
    let refused = output(alone.ctl(["run", "--json"]).arg(&second));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let error = crate::support::json(&refused)["error"].clone();
    let text = error["message"].as_str().expect("a message");
    assert!(
        text.contains("1 run at work or waiting") && text.contains("`queue_limit` is 1"),
        "{text}"
    );
    assert_eq!(error["kind"], "refused");
    // The same job is no new one.
    let again = output(alone.ctl(["run", "--detach", "--json"]).arg(&first));
    assert_eq!(crate::support::json(&again)["attached"], true, "{}", said(&again));
    desk.write("go", "");
    assert_eq!(conducting.wait().expect("wait").code(), Some(0));
    assert!(output(alone.ctl(["run"]).arg(&second)).status.success());
}

#[test]
fn a_retry_runs_completed_sheets_again() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("again", 3, "echo done > workspace/out-$n", WROTE_ITS_FILE);
    assert_eq!(output(alone.ctl(["run"]).arg(&job)).status.code(), Some(0));
    let retried = output(&mut alone.ctl(["retry", "again", "--from", "2"]));
    assert_eq!(retried.status.code(), Some(0), "{}", said(&retried));
    assert_eq!(desk.starts().into_iter().collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 2)]);
    let refused = output(&mut alone.ctl(["retry", "again", "--from", "4"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("there is no sheet 4 in again#1: it has 3"),
        "{}",
        said(&refused)
    );
}
