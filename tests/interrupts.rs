//! Ctrl+C, `timeout`, a closed terminal: nothing is corrupted, `resume` goes on.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, output, said, wait_until};

pub(crate) const SCRIPT: &str = "sleep 0.4; mkdir -p workspace; echo done > workspace/out-$n";

pub(crate) fn signal(child: &Child, signal: &str) {
    let sent = output(
        Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(child.id().to_string()),
    );
    assert!(sent.status.success(), "{}", said(&sent));
}

fn embedded() -> (Alone, Desk, std::path::PathBuf) {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let job = desk.job("held", 5, SCRIPT, WROTE_ITS_FILE);
    (alone, desk, job)
}

fn spawn(alone: &Alone, job: &std::path::Path) -> Child {
    alone
        .ctl(["run"])
        .arg(job)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mozartctl")
}

fn goes_on(alone: &Alone, desk: &Desk, job: &std::path::Path) {
    let status = alone.status("held");
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&"paused".into(), &"interrupted".into()),
        "{status:#}"
    );
    let resume = output(alone.ctl(["resume"]).arg(job));
    assert!(resume.status.success(), "{}", said(&resume));
    assert_eq!(alone.status("held")["state"], "completed");
    assert_eq!(desk.starts().len(), 5);
}

#[test]
fn the_first_ctrl_c_lets_the_session_finish() {
    let (alone, desk, job) = embedded();
    let mut child = spawn(&alone, &job);
    wait_until("it runs", Duration::from_secs(10), || desk.starts().len() >= 2);
    signal(&child, "INT");
    assert_eq!(child.wait().expect("wait").code(), Some(130));
    let starts = desk.starts();
    assert!(
        starts.len() < 5 && starts.values().all(|count| *count == 1),
        "{starts:?}"
    );
    goes_on(&alone, &desk, &job);
    assert!(
        desk.starts().values().all(|count| *count == 1),
        "a finished session is not run again: {:?}",
        desk.starts()
    );
}

#[test]
fn the_second_ctrl_c_stops_the_session_and_resume_repeats_only_that_one() {
    let (alone, desk, job) = embedded();
    let mut child = spawn(&alone, &job);
    wait_until("it runs", Duration::from_secs(10), || desk.starts().len() >= 2);
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, "INT");
    assert_eq!(child.wait().expect("wait").code(), Some(130));
    goes_on(&alone, &desk, &job);
    assert!(desk.starts().values().sum::<u32>() <= 6, "{:?}", desk.starts());
}

#[test]
fn a_terminated_or_hung_up_run_is_paused_and_goes_on() {
    for name in ["TERM", "HUP"] {
        let (alone, desk, job) = embedded();
        let mut child = spawn(&alone, &job);
        wait_until("it runs", Duration::from_secs(10), || desk.starts().len() >= 2);
        signal(&child, name);
        child.wait().expect("wait");
        goes_on(&alone, &desk, &job);
    }
}

#[test]
fn a_run_under_timeout_goes_on_later() {
    let (alone, desk, job) = embedded();
    let mut command = Command::new("timeout");
    let ctl = alone.ctl(["run"]);
    command.arg("1").arg(ctl.get_program()).arg("run").arg(&job).env_clear();
    command.envs(ctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = output(&mut command);
    assert!(!done.status.success(), "{}", said(&done));
    goes_on(&alone, &desk, &job);
}
