//! What `mozartctl` makes of a conductor's answers: exit codes, JSON, lines, requests.

use std::io::{Read as _, Write as _};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use mozart::api::request::ApiError;
use mozart::model::{Cause, Code, RuleResult, RunState, SheetStatus, Timestamp};
use serde_json::json;

use super::fake::{Fake, State, run, sheet};
use super::runtime;
use crate::support::{Alone, Desk, json as parsed, output, said, wait_until};

fn live() -> State {
    State {
        runs: vec![run("review", 3, RunState::Running, 3)],
        sheets: vec![
            sheet(1, SheetStatus::Completed, 1),
            sheet(2, SheetStatus::Running, 1),
            sheet(3, SheetStatus::Pending, 0),
        ],
        ..State::default()
    }
}

fn with(state: State) -> (Alone, Fake) {
    let alone = Alone::new();
    let fake = Fake::start(&runtime(&alone), state);
    (alone, fake)
}

fn ctl(alone: &Alone, arguments: &[&str]) -> Output {
    output(alone.ctl(arguments))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A verb under way whose lines can be waited for.
struct Going(Child, std::path::PathBuf);

impl Going {
    fn start(alone: &Alone, arguments: &[&str]) -> Self {
        let path = runtime(alone).join("stdout");
        let file = std::fs::File::create(&path).expect("a file");
        Self(
            alone
                .ctl(arguments)
                .stdout(file)
                .stderr(Stdio::piped())
                .spawn()
                .expect("mozartctl"),
            path,
        )
    }

    fn says(&self, what: &str) {
        let text = || std::fs::read_to_string(&self.1).unwrap_or_default();
        wait_until(&format!("`{what}` in `{}`", text()), Duration::from_secs(10), || {
            text().contains(what)
        });
    }

    fn signal(&self, signal: &str) {
        let kill = std::process::Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status();
        assert!(kill.expect("kill").success());
    }

    fn ends(mut self) -> (i32, String, String) {
        let mut stderr = String::new();
        self.0
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut stderr)
            .expect("text");
        let code = self.0.wait().expect("wait").code().unwrap_or(-1);
        (code, std::fs::read_to_string(&self.1).expect("text"), stderr)
    }
}

#[test]
fn status_as_json_keeps_its_promise_and_is_not_wrapped() {
    let mut state = live();
    let long = "word ".repeat(200);
    state.sheets[0].code = Some(Code::E201);
    state.sheets[0].cause = Some(Cause::Validation);
    state.sheets[1].cause = Some(Cause::RateLimit);
    state.sheets[1].code = Some(Code::E104);
    state.sheets[1].message = Some(long.clone());
    state.sheets[1].validations = vec![RuleResult {
        rule: 0,
        kind: "file_exists".to_owned(),
        description: "the report".to_owned(),
        path: Some("/ws/report.md".to_owned()),
        pattern: None,
        passed: false,
        actual: None,
        expected: None,
        reason: Some("there is no such file".to_owned()),
        category: Some("missing".to_owned()),
        hint: None,
        checked_at: Timestamp::from_seconds(1_795_228_700),
        duration_ms: 3,
        code: Some(Code::E201),
    }];
    let (alone, _fake) = with(state);
    let shown = output(
        alone
            .ctl(["status", "review", "--json"])
            .env("COLUMNS", "20")
            .env("TERM", "xterm"),
    );
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    assert!(stdout(&shown).contains(&long), "a long value stays on its line");
    assert!(!stdout(&shown).contains('\u{1b}'));

    let status = parsed(&shown);
    assert_eq!(status["id"], "review");
    assert_eq!(status["run"], 3);
    assert_eq!(status["state"], "running");
    assert_eq!(status["reason"], "");
    assert_eq!(status["submitted_at"], "2026-11-21T02:37:41Z");
    let sheets = status["sheets"].as_array().expect("sheets");
    assert_eq!(sheets.len(), 3);
    assert_eq!(sheets[0]["code"], json!(null), "a completed sheet has no code");
    assert_eq!(sheets[0]["cause"], json!(null));
    assert_eq!(sheets[0]["attempts"], 1);
    assert_eq!(sheets[1]["cause"], "rate_limit");
    assert_eq!(sheets[1]["code"], "E104");
    let rule = &sheets[1]["validations"][0];
    for key in [
        "type",
        "description",
        "path",
        "pattern",
        "passed",
        "actual",
        "expected",
        "reason",
        "category",
        "hint",
        "checked_at",
        "duration_ms",
    ] {
        assert!(rule.get(key).is_some(), "{key} in {rule}");
    }
}

#[test]
fn what_is_not_there_is_exit_code_4_and_told_as_json_too() {
    let (alone, _fake) = with(live());
    for arguments in [
        &["status", "nope"][..],
        &["wait", "nope"],
        &["pause", "nope"],
        &["cancel", "nope"],
        &["logs", "nope"],
    ] {
        let shown = ctl(&alone, arguments);
        assert_eq!(code(&shown), 4, "{arguments:?}: {}", said(&shown));
        assert!(shown.stdout.is_empty());
    }
    let shown = ctl(&alone, &["status", "review#9", "--json"]);
    assert_eq!(code(&shown), 4);
    assert_eq!(parsed(&shown)["error"]["kind"], "no_such_run");
    assert_eq!(parsed(&shown)["error"]["exit_code"], 4);
    assert_eq!(code(&ctl(&alone, &["status", "review#3"])), 0);
}

#[test]
fn a_person_sees_what_failed_and_what_to_do_next() {
    let mut state = live();
    state.runs[0] = run("review", 3, RunState::Failed, 3);
    state.runs[0].summary.sheets_failed = 1;
    state.sheets[1].state = SheetStatus::Failed;
    state.sheets[1].cause = Some(Cause::Validation);
    state.sheets[1].code = Some(Code::E201);
    state.sheets[1].message = Some("no \u{1b}[31mreport".to_owned());
    let (alone, _fake) = with(state);
    let shown = stdout(&ctl(&alone, &["status", "review"]));
    assert!(shown.contains("review#3  failed"), "{shown}");
    assert!(
        shown.contains("validation E201: no \u{fffd}[31mreport"),
        "made harmless: {shown}"
    );
    assert!(shown.contains("mozartctl resume review"), "{shown}");
    assert!(shown.contains("mozartctl logs review --sheet 2"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour outside a terminal: {shown}");
}

#[test]
fn wait_tells_each_change_and_ends_with_the_run() {
    for (end, expected) in [
        (RunState::Completed, 0),
        (RunState::Failed, 1),
        (RunState::Cancelled, 3),
        (RunState::Paused, 3),
    ] {
        let (alone, fake) = with(live());
        let going = Going::start(&alone, &["wait", "review"]);
        fake.watched();
        fake.sheet(2, |sheet| sheet.state = SheetStatus::Completed);
        fake.sheet(3, |sheet| (sheet.state, sheet.attempts) = (SheetStatus::Running, 1));
        going.says("DONE   (2/3)  sheet 2");
        going.says("START  (2/3)  sheet 3");
        fake.run(|run| run.state = end);
        let (code, out, err) = going.ends();
        assert_eq!(code, expected, "{end}: {out}{err}");
        assert!(out.contains(&format!("review#3 {end}")), "{out}");
    }
}

#[test]
fn ctrl_c_leaves_the_run_with_its_conductor() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let (alone, fake) = with(live());
        let going = Going::start(&alone, &["wait", "review"]);
        fake.watched();
        fake.sheet(2, |sheet| sheet.state = SheetStatus::Completed);
        going.says("DONE   (2/3)  sheet 2");
        going.signal(signal);
        let (code, _, err) = going.ends();
        assert_eq!(code, 130, "{err}");
        assert!(err.contains("detached"), "{err}");
        assert!(fake.state().asked.is_empty(), "nothing was asked of the conductor");
    }
}

#[test]
fn a_conductor_that_comes_back_is_found_again() {
    let (alone, fake) = with(live());
    let going = Going::start(&alone, &["wait", "review"]);
    fake.watched();
    fake.sheet(2, |sheet| sheet.state = SheetStatus::Completed);
    going.says("DONE   (2/3)  sheet 2");
    let mut state = fake.vanish();
    std::thread::sleep(Duration::from_millis(300));
    state.sheets[2].state = SheetStatus::Completed;
    state.runs[0] = run("review", 3, RunState::Completed, 3);
    let _back = Fake::start(&runtime(&alone), state);
    let (code, out, err) = going.ends();
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("sheet 3") && err.contains("is back"),
        "what happened meanwhile is told: {out}{err}"
    );
}

#[test]
fn requests_arrive_as_they_were_meant() {
    let (alone, fake) = with(live());
    assert_eq!(code(&ctl(&alone, &["pause", "review", "--now"])), 0);
    assert_eq!(code(&ctl(&alone, &["pause", "review"])), 0);
    assert_eq!(code(&ctl(&alone, &["cancel", "review"])), 0);
    assert_eq!(code(&ctl(&alone, &["resume", "review", "--detach"])), 0);
    assert_eq!(code(&ctl(&alone, &["retry", "review", "--from", "3", "--detach"])), 0);
    assert_eq!(
        fake.state().asked,
        [
            "pause now review",
            "pause review",
            "cancel review",
            "resume review",
            "retry from 3 review"
        ]
    );
    assert_eq!(code(&ctl(&alone, &["retry", "review"])), 2, "from where is to be said");
    let refused = ctl(&alone, &["resume", "review", "--reload-config"]);
    assert_eq!(
        code(&refused),
        1,
        "a flag without effect is not silently accepted: {}",
        said(&refused)
    );
}

#[test]
fn a_pause_that_takes_too_long_says_what_would_help() {
    let mut state = live();
    state.runs[0].summary.sheets_running = 1;
    let (alone, _fake) = with(state);
    let shown = ctl(&alone, &["pause", "review", "--wait", "-t", "0.3"]);
    assert_eq!(code(&shown), 1);
    assert!(said(&shown).contains("--now"), "{}", said(&shown));
}

#[test]
fn a_submission_carries_the_shell_and_no_secret() {
    let (alone, fake) = with(live());
    let desk = Desk::new();
    let job = desk.job("review", 3, "true", "");
    let text = std::fs::read_to_string(&job).expect("the file");
    std::fs::write(
        &job,
        text.replace(
            "working_directory: .",
            "working_directory: ., pass_env: [EDITOR, MY_TOKEN]",
        ),
    )
    .expect("the file");
    let shown = output(
        alone
            .ctl([
                "run",
                "--detach",
                "--json",
                "--fresh",
                "--start-sheet",
                "2",
                "--set",
                "a=b",
                "-w",
                "elsewhere",
            ])
            .arg(&job)
            .current_dir(desk.path(""))
            .env("PATH", "/opt/bin:/usr/bin:/bin")
            .env("LC_TIME", "de_DE.UTF-8")
            .env("EDITOR", "vi")
            .env("MY_TOKEN", "hunter2hunter2")
            .env("ANTHROPIC_API_KEY", "sk-ant-hunter2")
            .env("UNRELATED", "x"),
    );
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    assert_eq!(parsed(&shown)["id"], "review");
    assert_eq!(parsed(&shown)["run"], 3);
    let state = fake.state();
    let submit = state.submitted.last().expect("a submission");
    let environment = submit.environment.clone().expect("an environment");
    assert_eq!(environment["PATH"], "/opt/bin:/usr/bin:/bin");
    assert_eq!(environment["LC_TIME"], "de_DE.UTF-8");
    assert_eq!(environment["EDITOR"], "vi");
    assert_eq!(environment["MOZART_PRESENT_SECRETS"], "ANTHROPIC_API_KEY,MY_TOKEN");
    assert!(!environment.contains_key("UNRELATED") && !environment.contains_key("HOME"));
    assert!(!format!("{submit:?}").contains("hunter2"), "{submit:?}");
    assert_eq!((submit.fresh, submit.start_sheet), (true, Some(2)));
    assert_eq!(submit.set["a"], "b");
    assert_eq!(submit.path.as_deref(), job.to_str());
    let canonical = desk.path("").canonicalize().expect("a path");
    assert_eq!(submit.workspace.as_deref(), canonical.join("elsewhere").to_str());
}

#[test]
fn what_stands_in_the_way_is_told_and_changes_nothing() {
    let desk = Desk::new();
    let job = desk.job("review", 3, "true", "");
    let refusals = [
        (
            ApiError::Busy("review#3 is paused; `mozartctl resume review` goes on with it".to_owned()),
            "busy",
        ),
        (
            ApiError::WrongState("review#3 is failed; `mozartctl resume review` or `mozartctl run --fresh`".to_owned()),
            "wrong_state",
        ),
        (
            ApiError::Refused("a session may not change anything".to_owned()),
            "refused",
        ),
    ];
    for (refusal, kind) in refusals {
        let sentence = refusal.to_string();
        let (alone, fake) = with(State {
            submit: Some(Err(refusal)),
            ..live()
        });
        let shown = output(alone.ctl(["run", "--json"]).arg(&job));
        assert_eq!(code(&shown), 1, "{}", said(&shown));
        assert_eq!(parsed(&shown)["error"]["kind"], kind);
        assert_eq!(parsed(&shown)["error"]["message"], sentence.as_str());
        assert_eq!(fake.state().submitted.len(), 1, "nobody was there to be asked");
        assert!(fake.state().asked.is_empty());
    }
}

#[test]
fn a_person_at_a_terminal_is_asked_whether_to_resume_or_to_begin_anew() {
    let desk = Desk::new();
    let job = desk.job("review", 3, "true", "");
    let refusal = ApiError::WrongState("review#3 is failed with 1 of 3 sheets done".to_owned());
    for (answer, expected) in [("r", 0), ("n", 1), ("q", 1), ("", 1)] {
        let mut state = State {
            submit: Some(Err(refusal.clone())),
            ..live()
        };
        state.runs[0] = run("review", 3, RunState::Completed, 3);
        let (alone, fake) = with(state);
        let shown = alone.typed("run", &job, answer);
        assert_eq!(code(&shown), expected, "{answer:?}: {}", said(&shown));
        assert!(said(&shown).contains("[r]esume"), "{answer:?}: {}", said(&shown));
        let state = fake.state();
        let fresh: Vec<bool> = state.submitted.iter().map(|submit| submit.fresh).collect();
        match answer {
            "r" => assert_eq!(
                (state.asked.as_slice(), fresh.len()),
                (&["resume review".to_owned()][..], 1)
            ),
            "n" => assert_eq!(fresh, [false, true]),
            _ => assert!(state.asked.is_empty() && fresh == [false], "{}", said(&shown)),
        }
    }
}

#[test]
fn run_attaches_to_a_live_run_of_the_same_plan() {
    let desk = Desk::new();
    let job = desk.job("review", 3, "true", "");
    let (alone, fake) = with(State {
        submit: Some(Ok(true)),
        ..live()
    });
    let going = Going::start(&alone, &["run", job.to_str().expect("a path")]);
    fake.watched();
    fake.sheet(2, |sheet| sheet.state = SheetStatus::Completed);
    going.says("DONE   (2/3)  sheet 2");
    fake.run(|run| run.state = RunState::Completed);
    let (code, out, err) = going.ends();
    assert_eq!(code, 0, "{out}{err}");
    assert!(!out.contains("sheet 1"), "what was done before is no news: {out}");
}

#[test]
fn logs_render_the_session_and_leave_out_what_is_not_its_own() {
    let desk = Desk::new();
    let init = r#"{"type":"system","subtype":"init","session_id":"s","model":"m","claude_code_version":"2"}"#;
    let tool = r#"{"type":"assistant","session_id":"s","message":{"model":"m","content":[{"type":"tool_use","name":"Write","input":{"file_path":"a.md"}}]}}"#;
    desk.write(
        "out/2-1",
        &format!("{init}\n{tool}\n\n\u{1e}mozart-exit-record {{\"v\":1}}\n"),
    );
    desk.write(
        "out/1-1",
        "plain \u{1b}[31mtext\n\n\nend\n\n\u{1e}mozart-exit-record {\"v\":1}\n",
    );
    let state = State {
        outputs: desk.path("out"),
        attempts: [((1, 1), true), ((2, 1), false)].into(),
        ..live()
    };
    let (alone, _fake) = with(state);

    let shown = stdout(&ctl(&alone, &["logs", "review"]));
    assert!(
        shown.contains("tool Write a.md"),
        "the sheet that runs, rendered: {shown}"
    );
    assert!(!shown.contains("exit-record") && !shown.contains('{'), "{shown}");

    assert_eq!(stdout(&ctl(&alone, &["logs", "-b", "1", "-n", "2"])), "\nend\n");
    assert_eq!(stdout(&ctl(&alone, &["logs", "-b", "1", "-n", "0"])), "");
    let raw = stdout(&ctl(&alone, &["logs", "-b", "1", "--raw"]));
    assert_eq!(raw, "plain \u{1b}[31mtext\n\n\nend\n");
    let lines = stdout(&ctl(&alone, &["logs", "-j"]));
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["sheet_num"], &lines[1]["attempt"]), (&json!(2), &json!(1)));
    assert_eq!(lines[1]["event"]["type"], "assistant");
    assert_eq!(code(&ctl(&alone, &["logs", "-b", "3"])), 4, "not started yet");
}

#[test]
fn logs_follow_from_sheet_to_sheet_until_the_run_is_over() {
    let desk = Desk::new();
    let first = desk.write("out/2-1", "one\n");
    let state = State {
        outputs: desk.path("out"),
        attempts: [((1, 1), true), ((2, 1), false)].into(),
        ..live()
    };
    let (alone, fake) = with(state);
    let going = Going::start(&alone, &["logs", "-F", "review"]);
    going.says("one\n");
    let mut file = std::fs::File::options().append(true).open(&first).expect("the output");
    writeln!(file, "two").expect("written");
    going.says("two\n");
    write!(file, "\n\u{1e}mozart-exit-record {{\"v\":1}}\n").expect("written");

    desk.write("out/3-1", "three\n");
    fake.state().attempts.insert((2, 1), true);
    fake.state().attempts.insert((3, 1), false);
    fake.sheet(2, |sheet| sheet.state = SheetStatus::Completed);
    fake.sheet(3, |sheet| (sheet.state, sheet.attempts) = (SheetStatus::Running, 1));
    going.says("three\n");
    fake.state().attempts.insert((3, 1), true);
    fake.sheet(3, |sheet| sheet.state = SheetStatus::Completed);
    fake.run(|run| run.state = RunState::Completed);
    let (code, out, err) = going.ends();
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "one\ntwo\nthree\n");
}

#[test]
fn logs_ask_which_run_is_meant_where_several_are_live() {
    let mut state = live();
    state.runs.push(run("other", 1, RunState::Running, 1));
    let (alone, _fake) = with(state);
    let shown = ctl(&alone, &["logs"]);
    assert_eq!(code(&shown), 2);
    assert!(said(&shown).contains("review, other"), "{}", said(&shown));
}

#[test]
fn list_shows_live_runs_unless_told_otherwise() {
    let mut state = live();
    state.runs.push(run("old", 1, RunState::Completed, 2));
    let (alone, _fake) = with(state);
    let names = |arguments: &[&str]| -> Vec<String> {
        let shown = parsed(&ctl(&alone, arguments));
        shown
            .as_array()
            .expect("a list")
            .iter()
            .map(|run| run["id"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(&["list", "-j"]), ["review"]);
    assert_eq!(names(&["list", "-j", "--all"]), ["review", "old"]);
    assert_eq!(names(&["list", "-j", "-s", "completed"]), ["old"]);
    assert_eq!(names(&["list", "-j", "--all", "-l", "1"]), ["review"]);
}

#[test]
fn the_conductor_is_told_of_without_starting_one() {
    let (alone, fake) = with(live());
    let shown = ctl(&alone, &["conductor-status", "-j"]);
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    assert_eq!(parsed(&shown)["running"], true);
    assert_eq!(parsed(&shown)["slots"], 5);
    drop(fake);
    let shown = ctl(&alone, &["conductor-status", "-j"]);
    assert_eq!(code(&shown), 3);
    assert_eq!(parsed(&shown)["running"], false);
    assert!(!alone.state().exists(), "nothing was made");
    assert_eq!(code(&ctl(&alone, &["stop"])), 0);
    let start = ctl(&alone, &["start"]);
    assert_eq!(code(&start), 5, "no service is installed here: {}", said(&start));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (alone, _fake) = with(live());
    let mut child = alone
        .ctl(["status", "review"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mozartctl");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    let full = output(
        alone
            .ctl(["status", "review"])
            .stdout(std::fs::File::create("/dev/full").expect("/dev/full")),
    );
    assert_eq!(code(&full), 1, "a full disk is one");
}
