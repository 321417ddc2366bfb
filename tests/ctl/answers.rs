//! What `mozartctl` makes of a conductor's answers: exit codes, JSON, lines, requests.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use mozart::api::request::{ApiError, Modified, RecoveredSheet, SheetsChange};
use mozart::api::view::{GateState, GateView, QuestionView};
use mozart::model::{
    Cause, Code, Cost, JobName, Problem, RuleResult, RunNo, RunState, Severity, SheetStatus, Timestamp,
};
use mozart::summary::{CostKey, CostSummary};
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
    // A flag without effect is accepted, but not in silence.
    let forced = ctl(&alone, &["resume", "review", "--force", "--detach"]);
    assert_eq!(code(&forced), 0, "{}", said(&forced));
    assert!(
        said(&forced).contains("`mozartctl retry JOB --from SHEET`"),
        "{}",
        said(&forced)
    );
    assert_eq!(fake.state().asked.last().map(String::as_str), Some("resume review"));
    // The run of this conductor came from no file.
    assert_eq!(code(&ctl(&alone, &["resume", "review", "--reload-config"])), 2);
}

fn changes() -> Modified {
    let change = |first, last, state, becomes: &str| SheetsChange {
        first,
        last,
        state,
        becomes: becomes.to_owned(),
    };
    Modified {
        job: JobName::new("review").expect("a name"),
        run: RunNo(3),
        parts: vec!["prompt".to_owned(), "sheet".to_owned()],
        sheets: vec![
            change(1, 4, SheetStatus::Completed, "kept"),
            change(5, 5, SheetStatus::Running, "next_attempt"),
            change(6, 8, SheetStatus::Pending, "new_plan"),
            change(9, 10, SheetStatus::Pending, "added"),
        ],
        problems: Vec::new(),
    }
}

/// A job file that makes no plan without a variable that the run was submitted with.
fn job_with_a_variable(desk: &Desk) -> PathBuf {
    desk.job(
        "review",
        10,
        "true",
        "validations: [{type: file_exists, path: '{audience}.md'}]",
    )
}

#[test]
fn another_plan_is_told_of_in_brief_and_as_json() {
    let mut state = live();
    state.modified = Some(changes());
    let (alone, fake) = with(state);
    let desk = Desk::new();
    let file = job_with_a_variable(&desk);
    let file = file.to_str().expect("a path");
    let shown = ctl(&alone, &["modify", "review", "-c", file, "-w", "/somewhere"]);
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    insta::assert_snapshot!(stdout(&shown), @r"
    review#3 takes the new plan; it differs in prompt, sheet
      sheets 1-4   completed  stays so
      sheet 5      running    goes on with the old plan until its attempt ends
      sheets 6-8   pending    takes the new plan
      sheets 9-10             is new
    ");
    let submit = fake.state().submitted[0].clone();
    assert_eq!(submit.path.as_deref(), Some(file));
    assert_eq!(submit.workspace.as_deref(), Some("/somewhere"));
    assert!(
        submit
            .environment
            .is_some_and(|environment| environment.contains_key("PATH"))
            && !submit.resume
    );

    let shown = ctl(&alone, &["modify", "review", "-c", file, "-r", "--json"]);
    let told = parsed(&shown);
    assert_eq!(
        (told["changed"].as_bool(), told["run"].as_u64()),
        (Some(true), Some(3)),
        "{told:#}"
    );
    assert_eq!(told["parts"], json!(["prompt", "sheet"]));
    assert_eq!(
        told["sheets"][1],
        json!({"first": 5, "last": 5, "state": "running", "becomes": "next_attempt"})
    );
    assert_eq!(fake.state().asked, ["modify review", "modify and resume review"]);

    fake.state().modified = Some(Modified {
        parts: Vec::new(),
        sheets: Vec::new(),
        ..changes()
    });
    let shown = ctl(&alone, &["modify", "review", "--config", file]);
    assert!(
        code(&shown) == 0 && stdout(&shown).contains("review#3: nothing has changed"),
        "{}",
        said(&shown)
    );
}

#[test]
fn who_waits_for_the_new_plan_waits_until_no_sheet_has_the_old_one() {
    let mut state = live();
    state.modified = Some(Modified {
        sheets: vec![SheetsChange {
            first: 2,
            last: 2,
            state: SheetStatus::Running,
            becomes: "next_attempt".to_owned(),
        }],
        ..changes()
    });
    let running = state
        .sheets
        .iter()
        .position(|sheet| sheet.sheet_num == 2)
        .expect("a sheet");
    state.sheets[running].state = SheetStatus::Running;
    let (alone, fake) = with(state);
    let desk = Desk::new();
    let file = job_with_a_variable(&desk);
    let file = file.to_str().expect("a path");
    let shown = ctl(&alone, &["modify", "review", "-c", file, "--wait", "-t", "0.3"]);
    assert_eq!(code(&shown), 1);
    assert!(
        said(&shown).contains("still at work with the old plan"),
        "{}",
        said(&shown)
    );
    // Its next attempt has the new plan.
    let waiting = std::thread::spawn({
        let mut command = alone.ctl(["modify", "review", "-c", file, "--wait", "-t", "30"]);
        move || output(&mut command)
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!waiting.is_finished());
    fake.state().sheets[running].attempts += 1;
    let shown = waiting.join().expect("it ends");
    assert_eq!(code(&shown), 0, "{}", said(&shown));
}

#[test]
fn problems_of_the_new_file_are_shown_with_their_lines_and_nothing_else_is_said_to_be_done() {
    let mut state = live();
    state.submit = Some(Err(ApiError::InvalidJob {
        message: "the job file is invalid: no such variable (V109)".to_owned(),
        problems: vec![Problem {
            check_id: "V109".to_owned(),
            severity: Severity::Error,
            message: "no such variable".to_owned(),
            line: Some(7),
            column: Some(1),
            context: None,
            suggestion: None,
            auto_fixable: false,
            metadata: BTreeMap::default(),
        }],
    }));
    let (alone, _fake) = with(state);
    let desk = Desk::new();
    let file = job_with_a_variable(&desk);
    let shown = ctl(&alone, &["modify", "review", "-c", file.to_str().expect("a path")]);
    assert_eq!((code(&shown), stdout(&shown)), (1, String::new()));
    assert!(said(&shown).contains("review.yaml:7"), "{}", said(&shown));
    let gone = ctl(&alone, &["modify", "review", "-c", "nowhere.yaml"]);
    assert_eq!(code(&gone), 2, "{}", said(&gone));
}

#[test]
fn a_recovery_is_told_sheet_by_sheet() {
    let mut state = live();
    let sheet = |sheet, is, reason: &str, failed: &[&str]| RecoveredSheet {
        sheet,
        was: SheetStatus::Failed,
        is,
        reason: reason.to_owned(),
        rules_passed: 2 - u32::try_from(failed.len()).expect("few"),
        rules_total: 2,
        failed: failed.iter().map(|line| (*line).to_owned()).collect(),
    };
    state.recovered = vec![
        sheet(2, SheetStatus::Completed, "", &[]),
        sheet(
            3,
            SheetStatus::Failed,
            "1 of 2 rules passed",
            &["out-3 exists: there is no such file"],
        ),
    ];
    let (alone, fake) = with(state);
    let shown = ctl(&alone, &["recover", "review"]);
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    insta::assert_snapshot!(stdout(&shown), @r"
    sheet 2: completed (was failed; 2 rules checked)
    sheet 3: stays failed: 1 of 2 rules passed
        out-3 exists: there is no such file
    review#3 running: 1 sheet completed
    ");
    let shown = ctl(&alone, &["recover", "review", "-s", "3", "-n", "--json"]);
    let told = parsed(&shown);
    assert_eq!(told["dry_run"], true);
    assert_eq!(told["sheets"][0]["is"], "completed");
    assert_eq!(told["sheets"][1]["failed"][0], "out-3 exists: there is no such file");
    assert_eq!(
        fake.state().asked,
        ["recover None false review", "recover Some(SheetNo(3)) true review"]
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
        let shown = alone.typed(["run".as_ref(), job.as_os_str()], answer);
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

fn question(id: &str) -> QuestionView {
    QuestionView {
        id: id.to_owned(),
        text: "The login was refused.".to_owned(),
        choices: vec!["retry".to_owned(), "stop".to_owned()],
        account: Some("claude_cli:host:1a2b".to_owned()),
        code: Some(Code::E502),
        runs: vec!["review#3".to_owned()],
        runs_waiting: 4,
    }
}

/// The run waits for the answer to a question.
fn asking() -> State {
    let mut state = live();
    state.sheets[1].state = SheetStatus::Failed;
    state.questions = vec![question("q3-2-1")];
    let run = &mut state.runs[0].summary;
    (run.state, run.sheets_failed) = (RunState::Waiting, 1);
    run.question = Some("q3-2-1".to_owned());
    run.reason = "question q3-2-1: The login was refused; answer it with retry or stop".to_owned();
    state
}

#[test]
fn a_question_is_answered_by_its_id() {
    let (alone, fake) = with(asking());
    let shown = ctl(&alone, &["answer", "q3-2-1", "retry"]);
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    assert_eq!(fake.state().asked, ["answer q3-2-1 retry"]);
    let gone = ctl(&alone, &["answer", "q3-2-1", "retry", "--json"]);
    assert_eq!(code(&gone), 4, "{}", said(&gone));
    assert_eq!(parsed(&gone)["error"]["kind"], "no_such_question");

    fake.state().questions = vec![question("q3-2-2")];
    let shown = ctl(&alone, &["answer", "q3-2-2", "stop", "--json"]);
    let expected = json!({"question": "q3-2-2", "choice": "stop", "runs": ["review#3"]});
    assert_eq!(parsed(&shown), expected);
}

#[test]
fn who_is_not_there_to_be_asked_is_told_what_to_type() {
    let (alone, fake) = with(asking());
    for arguments in [&["answer"][..], &["answer", "q3-2-1"]] {
        let shown = ctl(&alone, arguments);
        assert_eq!(code(&shown), 2, "{}", said(&shown));
        assert!(
            said(&shown).contains("q3-2-1: The login was refused (retry or stop)"),
            "{}",
            said(&shown)
        );
    }
    assert!(fake.state().asked.is_empty());
    let expected = json!({
        "id": "q3-2-1", "text": "The login was refused.", "choices": ["retry", "stop"],
        "account": "claude_cli:host:1a2b", "code": "E502", "runs": ["review#3"], "runs_waiting": 4,
    });
    assert_eq!(
        parsed(&ctl(&alone, &["answer", "--json"])),
        json!({"questions": [expected]})
    );
    assert_eq!(
        parsed(&ctl(&alone, &["status", "--json"]))["questions"],
        json!([expected])
    );
    assert_eq!(
        parsed(&ctl(&alone, &["status", "review", "--json"]))["question"],
        "q3-2-1"
    );
    for (arguments, text) in [
        (&["status"][..], "mozartctl answer q3-2-1 retry|stop"),
        (&["status", "review"], "mozartctl answer q3-2-1 CHOICE"),
        (&["conductor-status"], "questions: 1 open; `mozartctl answer`"),
    ] {
        let shown = stdout(&ctl(&alone, arguments));
        assert!(shown.contains(text), "{arguments:?}: {shown}");
    }
    fake.state().questions.clear();
    let none = ctl(&alone, &["answer"]);
    assert_eq!((code(&none), stdout(&none).as_str()), (0, "no question is open\n"));
}

#[test]
fn a_person_at_a_terminal_is_asked_the_only_question_and_shown_several() {
    let (alone, fake) = with(asking());
    let shown = alone.typed(["answer"], "what\nretry");
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    assert!(said(&shown).contains("review#3 and 3 others"), "{}", said(&shown));
    assert_eq!(fake.state().asked, ["answer q3-2-1 retry"]);

    fake.state().questions = vec![question("q3-2-2"), question("q4-1-1")];
    let shown = alone.typed(["answer"], "retry");
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    for id in ["q3-2-2", "q4-1-1"] {
        let typed = format!("mozartctl answer {id} retry|stop");
        assert!(said(&shown).contains(&typed), "{}", said(&shown));
    }
    let shown = alone.typed(["answer", "q4-1-1"], "");
    assert_eq!(code(&shown), 2, "nothing was typed: {}", said(&shown));
    assert_eq!(fake.state().asked.len(), 1);
}

#[test]
fn who_waits_for_a_run_that_waits_for_an_answer_gives_it_or_leaves() {
    let (alone, fake) = with(asking());
    for arguments in [&["wait", "review"][..], &["wait", "review", "--json"]] {
        let shown = ctl(&alone, arguments);
        assert_eq!(code(&shown), 3, "{}", said(&shown));
        assert!(fake.state().asked.is_empty(), "nobody was asked");
    }
    let shown = ctl(&alone, &["wait", "review"]);
    assert!(
        said(&shown).contains("`mozartctl answer q3-2-1 CHOICE`") && said(&shown).contains("retry or stop"),
        "{}",
        said(&shown)
    );
    let shown = alone.typed(["wait", "review"], "perhaps\nretry");
    assert_eq!(code(&shown), 0, "{}", said(&shown));
    assert_eq!(fake.state().asked, ["answer q3-2-1 retry"]);
    assert_eq!(said(&shown).matches("retry, stop?").count(), 2, "{}", said(&shown));
}

#[test]
fn a_question_that_comes_while_somebody_waits_ends_the_waiting() {
    let (alone, fake) = with(live());
    let going = Going::start(&alone, &["wait", "review"]);
    fake.watched();
    let asking = asking();
    fake.state().questions = asking.questions;
    fake.run(|run| *run = asking.runs[0].summary.clone());
    let (code, out, err) = going.ends();
    assert_eq!(code, 3, "{out}{err}");
    assert!(out.contains("mozartctl answer q3-2-1 CHOICE"), "{out}{err}");
}

#[test]
fn an_answer_from_elsewhere_takes_the_question_back() {
    let (alone, fake) = with(asking());
    let shown = runtime(&alone).join("terminal");
    let file = std::fs::File::create(&shown).expect("a file");
    let spawned = alone.at_terminal(["wait", "review"]).stdout(file).spawn();
    let mut terminal = spawned.expect("script");
    let text = || std::fs::read_to_string(&shown).unwrap_or_default();
    wait_until("it is asked", Duration::from_secs(10), || {
        text().contains("retry, stop?")
    });
    assert_eq!(code(&ctl(&alone, &["answer", "q3-2-1", "stop"])), 0);
    fake.run(|run| run.state = RunState::Cancelled);
    wait_until("it ends", Duration::from_secs(10), || text().contains("cancelled"));
    assert_eq!(terminal.wait().expect("script").code(), Some(3), "{}", text());
}

#[test]
fn limits_are_shown_and_cleared() {
    let (alone, fake) = with(live());
    assert_eq!(stdout(&ctl(&alone, &["rate-limits"])), "no limit holds anything\n");
    let gate = |kind: &str, state| GateView {
        account: format!("claude_cli:host:{kind}"),
        kind: kind.to_owned(),
        window: (kind == "usage").then(|| "five_hour".to_owned()),
        state,
        until: Timestamp::from_seconds(1_795_228_661),
        places: 2,
        under_way: 1,
        runs_waiting: 3,
    };
    fake.state().gates = vec![gate("usage", GateState::Closed), gate("faults", GateState::Opening)];
    let shown = stdout(&ctl(&alone, &["rate-limits"]));
    for text in [
        "claude_cli:host:usage",
        "usage limit (five_hour)",
        "closed until ",
        "too many faults in a row",
        "opening, 2 at a time (1 under way)",
        "3 runs",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let usage = json!({
        "account": "claude_cli:host:usage", "kind": "usage", "window": "five_hour", "state": "closed",
        "until": "2026-11-21T02:37:41Z", "places": 2, "under_way": 1, "runs_waiting": 3,
    });
    let all = parsed(&ctl(&alone, &["rate-limits", "--json"]));
    assert_eq!((&all["gates"][0], all["gates"][1]["window"].is_null()), (&usage, true));

    let cleared = ctl(
        &alone,
        &["clear-rate-limits", "--json", "--account", "claude_cli:host:usage"],
    );
    assert_eq!(parsed(&cleared), json!({"cleared": [usage]}));
    let cleared = ctl(&alone, &["clear-rate-limits"]);
    assert_eq!(stdout(&cleared), "2 limits cleared\n");
    assert_eq!(
        fake.state().asked,
        ["clear Some(\"claude_cli:host:usage\")", "clear None"]
    );
}

#[test]
fn costs_are_shown_as_asked() {
    let (alone, fake) = with(live());
    assert_eq!(stdout(&ctl(&alone, &["costs"])), "no session has cost anything\n");
    let day = |day: &str, sessions, unknown, usd: f64, estimated: f64| CostSummary {
        day: Some(day.to_owned()),
        sessions,
        unknown,
        cost: Cost::from_usd(usd),
        estimated: Cost::from_usd(estimated),
        tokens_in: 12_000,
        tokens_out: 300,
        ..CostSummary::default()
    };
    fake.state().costs = vec![
        day("2026-11-19", 2, 2, 0.0, 0.0),
        day("2026-11-20", 3, 0, 1.5, 0.0),
        day("2026-11-21", 4, 1, 2.25, 0.5),
    ];
    let answer = ctl(&alone, &["costs", "--days", "3"]);
    let shown = stdout(&answer);
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["DAY", "COST", "SESSIONS", "TOKENS", "IN", "OUT"]);
    assert_eq!(lines[1][..3], ["2026-11-19", "unknown", "2"], "never shown as none");
    assert_eq!(lines[2][..3], ["2026-11-20", "$1.50", "3"]);
    assert_eq!(lines[3][..5], ["2026-11-21", "~$2.25", "and", "1", "unknown"]);
    assert_eq!(lines[4][..5], ["all", "~$3.75", "and", "3", "unknown"]);
    let notes = String::from_utf8_lossy(&answer.stderr);
    assert!(notes.contains("~ $0.50 of it by the price of tokens"), "{notes}");
    let all = parsed(&ctl(&alone, &["costs", "--by", "model,run", "--json"]));
    assert_eq!(all["total"]["cost_usd"], 3.75);
    assert_eq!(
        (&all["costs"][2]["estimated_usd"], &all["costs"][2]["unknown"]),
        (&json!(0.5), &json!(1))
    );
    let asked = fake.state().costs_asked.clone();
    assert_eq!((asked[1].days, &asked[1].by[..]), (Some(3), &[CostKey::Day][..]));
    assert_eq!(
        (asked[2].days, &asked[2].by[..]),
        (None, &[CostKey::Model, CostKey::Run][..])
    );
    let job = fake.state().runs[0].summary.clone();
    for (word, run) in [
        (job.job.to_string(), None),
        (format!("{}#{}", job.job, job.run), Some(job.run.0)),
    ] {
        assert_eq!(code(&ctl(&alone, &["costs", &word])), 0);
        let asked = fake.state().costs_asked.last().cloned().expect("was asked");
        assert_eq!((asked.job, asked.run), (Some(job.job.to_string()), run), "{word}");
    }
}

#[test]
fn a_budget_that_is_nearly_used_up_is_shown() {
    let (alone, fake) = with(live());
    fake.run(|run| run.warning = Some("$4.10 of the job's budget of $5.00 used".to_owned()));
    let job = fake.state().runs[0].summary.job.to_string();
    let shown = stdout(&ctl(&alone, &["status", &job]));
    assert!(
        shown.contains("Budget  $4.10 of the job's budget of $5.00 used"),
        "{shown}"
    );
    let json = parsed(&ctl(&alone, &["status", &job, "--json"]));
    assert_eq!(json["warning"], "$4.10 of the job's budget of $5.00 used");
}
