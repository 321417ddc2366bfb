//! A batch of sessions of the real Claude CLI, run by the installed service against a scripted API.
//!
//! `MOZART_TEST_CLAUDE` names the program (`tests/claude/fetch-cli` installs it); without it these tests say that they
//! are skipped.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mozart::model::{AttemptKind, Cause, Code, Cost, Timestamp};
use mozart::summary::AttemptSummary;
use serde_json::{Value, json};

use super::{home, inside};
use crate::claude_cli::world::{Api, program};
use crate::support::{Alone, Desk, Service, output, said, sheet_states, systemctl, wait_until};

/// Longer than any run of these sessions needs on a busy machine.
const LONG: Duration = Duration::from_secs(90);

const OAUTH: &str = "CLAUDE_CODE_OAUTH_TOKEN";
const API_KEY: &str = "ANTHROPIC_API_KEY";

/// A person with the real CLI, the installed service, and an API on the loopback.
struct Night {
    service: Service,
    desk: Desk,
    api: Api,
    program: PathBuf,
}

impl Night {
    /// `None` where this is no test machine, or there is no CLI. `token`: the service has a subscriber's token.
    fn new(token: bool, script: impl FnOnce(&Desk) -> Value) -> Option<Self> {
        let program = Some(()).filter(|()| inside()).and_then(|()| program())?;
        if token {
            let directory = home(".config/mozart");
            fs::create_dir_all(&directory).expect("a directory");
            fs::write(
                directory.join("environment"),
                format!("{OAUTH}=sk-ant-oat01-of-nobody\n"),
            )
            .expect("the conductor's environment");
        }
        let (service, desk) = (Service::fresh(), Desk::new());
        let api = Api::start(desk.path(".").as_path(), &script(&desk));
        Some(Self {
            service,
            desk,
            api,
            program,
        })
    }

    /// A job file whose sheets are asked for their chapter; `more` is added to it as it is.
    fn job(&self, name: &str, sheets: u32, timeout: u32, more: &str) -> PathBuf {
        write_job(&self.desk, &self.program, name, sheets, timeout, more)
    }

    fn ctl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.service.ctl(arguments);
        command.env("ANTHROPIC_BASE_URL", &self.api.url);
        command
    }

    fn detach(&self, job: &Path) {
        let run = output(self.ctl(["run", "--detach"]).arg(job));
        assert!(run.status.success(), "{}", said(&run));
    }

    /// Requests whose ask holds this text.
    fn asked(&self, text: &str) -> Vec<Value> {
        let mut requests = self.api.requests();
        requests.retain(|request| request["ask"].as_str().is_some_and(|ask| ask.contains(text)));
        requests
    }
}

fn write_job(desk: &Desk, program: &Path, name: &str, sheets: u32, timeout: u32, more: &str) -> PathBuf {
    desk.write(
        &format!("{name}.yaml"),
        &format!(
            "name: {name}\nworkspace: ./workspace\npause_between_sheets_seconds: 0\n\
             backend: {{type: claude_cli, cli_path: {}, skip_permissions: true, working_directory: ., timeout_seconds: {timeout}}}\n\
             sheet: {{size: 1, total_items: {sheets}}}\n\
             prompt: {{template: \"Write chapter {{{{ sheet_num }}}} of the book.\\n\"}}\n{more}\n",
            program.display(),
        ),
    )
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_micros()).expect("a moment of this age"))
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond())
}

/// Why it was made, and what became of it.
fn fate(attempt: &AttemptSummary) -> (AttemptKind, Option<(Cause, Code)>) {
    let report = attempt.report.as_ref().expect("it is over");
    let failure = report.outcome.failure.as_ref();
    (attempt.kind, failure.map(|failure| (failure.cause, failure.code)))
}

fn cost(attempt: &AttemptSummary) -> (Option<Cost>, Option<Cost>) {
    let session = &attempt.report.as_ref().expect("it is over").session;
    (session.cost, session.total_cost)
}

/// Processes that work in this directory or were started with its name.
fn processes_of(directory: &Path) -> Vec<String> {
    let name = directory.to_str().expect("a name in UTF-8");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let path = entry.path();
        if !entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let within = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if within || line.contains(name) {
            found.push(format!("{} {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// What a program prints, as it comes.
#[derive(Debug)]
struct Heard {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (pipe, heard) = (child.stdout.take().expect("a pipe"), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                heard.lock().expect("no panic").push(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for its end.
    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", LONG, || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("it ended")
    }

    fn has(&self, text: &str) -> bool {
        self.lines
            .lock()
            .expect("no panic")
            .iter()
            .any(|line| line.contains(text))
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const VALIDATIONS: &str = "\
validations:
  - {type: file_exists, path: \"{workspace}/chapter-{sheet_num}.md\"}
  - {type: content_contains, path: \"{workspace}/chapter-{sheet_num}.md\", pattern: \"## Summary\"}
retry: {max_retries: 1, base_delay_seconds: 1, max_delay_seconds: 1, jitter: false, completion_delay_seconds: 0,
        max_completion_attempts: 2, completion_threshold_percent: 50}
";

/// What happens to the five sheets: nothing, an overloaded API, a usage limit in the middle of the work, a chapter
/// without its summary, nothing.
fn five_chapters(desk: &Desk) -> Value {
    let file = |chapter: &str| {
        desk.path(&format!("workspace/chapter-{chapter}.md"))
            .display()
            .to_string()
    };
    let whole = |chapter: &str| json!({"write": file(chapter), "text": "# A chapter\n\n## Summary\n\nShort.\n"});
    let part = |chapter: &str| json!({"write": file(chapter), "text": "# A chapter\n"});
    let overloaded = json!({"status": 529, "message": "Overloaded"});
    json!({"rules": [
        {"match": "Missing:", "turns": [whole("4"), {"say": "Now it has its summary."}]},
        {"match": "You were interrupted", "turns": [whole("3"), {"say": "Went on and finished."}]},
        {"match": "Write chapter 2 ", "first": [overloaded, overloaded, overloaded],
         "turns": [whole("2"), {"say": "Written."}]},
        {"match": "Write chapter 3 ", "turns": [part("3"), {"limit": 20}]},
        {"match": "Write chapter 4 ", "turns": [part("4"), {"say": "Written, I think."}]},
        {"match": "Write chapter (\\d) ", "turns": [whole("{1}"), {"say": "Written chapter {1}."}]},
    ]})
}

#[test]
fn five_sheets_meet_an_overload_a_limit_and_a_gap_and_are_all_validated() {
    let Some(night) = Night::new(true, five_chapters) else {
        return;
    };
    let job = night.job("night", 5, 300, VALIDATIONS);
    // Somebody watches it, twice, through everything that happens.
    let mut attached = Heard::of(night.ctl(["run"]).arg(&job));
    wait_until("it is accepted", LONG, || {
        output(night.service.ctl(["status", "night"])).status.success()
    });
    let mut followed = Heard::of(&mut night.service.ctl(["logs", "-F", "night"]));

    // The limit: seen as such, with its end, and it survives the service.
    let status = || night.service.status("night");
    wait_until("sheet 3 waits", LONG, || {
        let status = status();
        assert!(
            !matches!(status["state"].as_str(), Some("failed" | "completed")),
            "{status:#}"
        );
        status["sheets"][2]["state"] == "waiting"
    });
    let waiting = status();
    assert_eq!(waiting["state"], "waiting", "{waiting:#}");
    assert!(
        waiting["reason"].as_str().unwrap_or("").contains("limit"),
        "{waiting:#}"
    );
    let sheet = &waiting["sheets"][2];
    assert_eq!(
        (&sheet["cause"], &sheet["code"]),
        (&json!("rate_limit"), &json!("E104"))
    );
    let until = time(&waiting["until"]);
    assert_eq!(time(&sheet["until"]), until);
    let reset = {
        let limited = night.api.requests().pop().expect("the request that met the limit");
        assert_eq!(limited["move"]["limit"], 20, "{limited:#}");
        Timestamp((limited["time"].as_f64().expect("a time") as i64 + 20) * 1_000_000)
    };
    assert!(
        until >= reset && until.since(reset).as_secs_f64() < 4.0,
        "{until:?} {reset:?}"
    );
    assert!(now() < reset, "it is seen while it holds");

    let requests = night.api.requests().len();
    let first = night.service.pid().expect("the service runs");
    systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"]);
    wait_until("the service is back", Duration::from_secs(10), || {
        night.service.pid().is_some_and(|pid| pid != first)
    });
    let again = status();
    assert_eq!(
        (&again["state"], &again["until"]),
        (&waiting["state"], &waiting["until"]),
        "{again:#}"
    );
    assert!(now() < reset, "killed and back within the wait");
    while now() < reset {
        assert_eq!(
            night.api.requests().len(),
            requests,
            "nobody asks while the limit holds"
        );
        std::thread::sleep(Duration::from_millis(200));
    }

    let wait = output(night.ctl(["wait", "night"]));
    assert!(wait.status.success(), "{}\n{:#}", said(&wait), status());
    assert_eq!(attached.end().code(), Some(0), "{attached:?}");
    assert_eq!(followed.end().code(), Some(0), "{followed:?}");
    for chapter in [1, 5] {
        assert!(followed.has(&format!("Written chapter {chapter}.")), "{followed:?}");
    }
    assert!(
        followed.has("Went on and finished.") && followed.has("Now it has its summary."),
        "{followed:?}"
    );
    let done = status();
    assert_eq!(done["state"], "completed");
    assert_eq!(sheet_states(&done), ["completed"; 5]);
    for (index, attempts) in [1, 2, 2, 2, 1].into_iter().enumerate() {
        let sheet = &done["sheets"][index];
        assert_eq!(sheet["attempts"], attempts, "{sheet:#}");
        assert!(sheet["code"].is_null() && sheet["cause"].is_null(), "{sheet:#}");
        let rules = sheet["validations"].as_array().expect("its rules");
        assert!(
            rules.len() == 2 && rules.iter().all(|rule| rule["passed"] == true),
            "{sheet:#}"
        );
        let text = fs::read_to_string(night.desk.path(&format!("workspace/chapter-{}.md", index + 1)));
        assert!(text.expect("written by the session").contains("## Summary"));
    }
    its_attempts_say_what_happened(&night, until);
    its_requests_show_the_same_sessions(&night);
    its_logs_show_turns_and_tools(&night);
    wait_until("no session unit is left", Duration::from_secs(10), || {
        night.service.units().is_empty()
    });
}

fn its_attempts_say_what_happened(night: &Night, until: Timestamp) {
    let fates = |sheet| {
        night
            .service
            .attempts("night", sheet)
            .iter()
            .map(fate)
            .collect::<Vec<_>>()
    };
    let first = AttemptKind::First;
    assert_eq!(fates(1), [(first, None)]);
    assert_eq!(
        fates(2),
        [
            (first, Some((Cause::Transient, Code::E103))),
            (AttemptKind::Retry, None)
        ]
    );
    let limited = night.service.attempts("night", 3);
    assert_eq!(fate(&limited[0]), (first, Some((Cause::RateLimit, Code::E104))));
    assert_eq!(fate(&limited[1]).1, None);
    assert!(limited[1].intended_at >= until, "the wait lasted to its end");
    let late = limited[1].intended_at.since(until).as_secs_f64();
    assert!(late < 5.0, "and not longer: {late}");
    let gap = night.service.attempts("night", 4);
    assert_eq!(
        fates(4),
        [
            (first, Some((Cause::Validation, Code::E202))),
            (AttemptKind::Completion, None)
        ]
    );

    // A resumed session counts on from its earlier total; each attempt has its own part of it.
    let mut sum = 0;
    for attempts in [&limited, &gap] {
        let [(own, total), (resumed, both)] = [cost(&attempts[0]), cost(&attempts[1])];
        assert_eq!(attempts[0].session_id, attempts[1].session_id);
        assert!(own.is_some_and(|cost| cost.0 > 0) && own == total);
        let difference = both.zip(total).map(|(both, total)| Cost(both.0 - total.0));
        assert!(
            resumed == difference && resumed.is_some_and(|cost| cost.0 > 0),
            "{resumed:?} of {both:?} after {total:?}"
        );
    }
    for sheet in 1..=5 {
        let costs = night
            .service
            .attempts("night", sheet)
            .iter()
            .map(|attempt| cost(attempt).0.map_or(0, |cost| cost.0))
            .sum::<i64>();
        sum += costs;
    }
    let told = night.service.status("night")["cost_usd"]
        .as_f64()
        .expect("the run's cost");
    assert_eq!(Cost::from_usd(told), Cost(sum));
}

fn its_requests_show_the_same_sessions(night: &Night) {
    let overloaded = night.asked("Write chapter 2 ");
    let refused = overloaded.iter().filter(|request| request["move"]["status"] == 529);
    assert_eq!(refused.count(), 3, "the first and the CLI's own two more");

    let gone_on = night.asked("You were interrupted");
    let limited = night.asked("Write chapter 3 ");
    assert_eq!(gone_on[0]["session"], limited[0]["session"]);
    assert!(gone_on[0]["messages"].to_string().contains("Write chapter 3 "));

    let completion = night.asked("Missing:");
    let before = night.asked("Write chapter 4 ");
    let original = before
        .iter()
        .find(|request| !request["ask"].as_str().expect("an ask").contains("Missing:"))
        .expect("the first attempt");
    assert_eq!(completion[0]["session"], original["session"], "resumed");
    let history = completion[0]["messages"].to_string();
    assert!(
        history.contains("Written, I think.") && history.contains("Write"),
        "{history}"
    );
    let prompt = completion[0]["ask"].as_str().expect("an ask");
    let missing = prompt
        .split_once("Missing:")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .expect("what is missing")
        .0;
    assert!(missing.contains("`## Summary`"), "{prompt}");
    assert!(!missing.contains("exists."), "the file is there already: {prompt}");
    assert!(!prompt.contains("What else went wrong"), "the rule was all: {prompt}");
    let tokens = night.api.requests();
    assert!(tokens.iter().all(|request| request["credential"] == "authorization"));
}

fn its_logs_show_turns_and_tools(night: &Night) {
    for (sheet, attempt, expected) in [
        (
            1,
            1,
            &["tool Write ", "Written chapter 1.", "result: done (2 turns"][..],
        ),
        (
            2,
            1,
            &["request failed (529 overloaded), trying again in", "result: error: "],
        ),
        (3, 1, &["tool Write ", "limit five_hour: rejected, resets "]),
        (4, 2, &["Now it has its summary."]),
    ] {
        let (sheet, attempt) = (sheet.to_string(), attempt.to_string());
        let arguments = ["logs", "night", "--sheet", &sheet, "--attempt", &attempt];
        let logs = output(night.service.ctl(arguments));
        for text in expected {
            assert!(
                String::from_utf8_lossy(&logs.stdout).contains(text),
                "{text}: {}",
                said(&logs)
            );
        }
    }
}

#[test]
fn work_whose_session_was_deleted_meanwhile_is_begun_anew_and_looks_at_what_exists() {
    let script = |desk: &Desk| {
        let file = desk.path("workspace/chapter-1.md").display().to_string();
        json!({"rules": [
            {"match": "An earlier session began this task", "turns": [{"bash": format!("echo '## Summary' >> {file}")}, {"say": "Done."}]},
            {"turns": [{"write": file, "text": "# A chapter\n"}, {"limit": 6}]},
        ]})
    };
    let Some(night) = Night::new(true, script) else { return };
    let job = night.job("deleted", 1, 300, VALIDATIONS);
    night.detach(&job);
    wait_until("it waits", LONG, || {
        night.service.status("deleted")["state"] == "waiting"
    });
    fs::remove_dir_all(home(".claude/projects")).expect("the CLI's own store of sessions");
    let wait = output(night.ctl(["wait", "deleted"]));
    assert!(
        wait.status.success(),
        "{}\n{:#}",
        said(&wait),
        night.service.status("deleted")
    );
    let attempts = night.service.attempts("deleted", 1);
    assert_eq!(
        attempts.iter().map(fate).collect::<Vec<_>>(),
        [
            (AttemptKind::First, Some((Cause::RateLimit, Code::E104))),
            (AttemptKind::Probe, Some((Cause::Transient, Code::E003))),
            (AttemptKind::Retry, None)
        ]
    );
    assert_eq!(attempts[1].session_id, attempts[0].session_id);
    assert_ne!(attempts[2].session_id, attempts[0].session_id);
    let asked = night.asked("An earlier session began this task");
    assert!(asked[0]["ask"].as_str().expect("an ask").contains("Write chapter 1 "));
}

#[test]
fn a_session_that_the_user_manager_took_along_is_resumed_when_that_is_back() {
    let script = |desk: &Desk| {
        let hold = format!("touch {}; sleep 300", desk.path("works").display());
        json!({"rules": [
            {"match": "You were interrupted", "turns": [{"say": "I am done."}]},
            {"turns": [{"say": "I begin.", "bash": hold}]},
        ]})
    };
    let Some(night) = Night::new(true, script) else { return };
    let job = night.job("left", 1, 300, "retry: {max_retries: 0, transient_retries: 0}");
    night.detach(&job);
    wait_until("it works", LONG, || night.desk.path("works").exists());
    let conductor = night.service.pid();
    assert!(systemctl(&["exit"]).status.success());
    wait_until("the service is back", LONG, || {
        let pid = night.service.pid();
        pid.is_some() && pid != conductor
    });
    let wait = output(night.ctl(["wait", "left"]));
    let attempts = night.service.attempts("left", 1);
    assert!(wait.status.success(), "{}\n{attempts:#?}", said(&wait));
    assert_eq!(
        attempts.iter().map(fate).collect::<Vec<_>>(),
        [
            (AttemptKind::First, Some((Cause::Interrupted, Code::E004))),
            (AttemptKind::Continuation, None)
        ]
    );
    assert_eq!(attempts[1].session_id, attempts[0].session_id, "resumed");
    let gone_on = night.asked("You were interrupted");
    assert!(gone_on[0]["messages"].to_string().contains("I begin."));
}

#[test]
fn logs_follow_a_session_while_it_works() {
    let script = |desk: &Desk| {
        let hold = format!("until test -e {}; do sleep 0.1; done", desk.path("go").display());
        json!({"rules": [{"turns": [{"say": "I begin.", "bash": hold}, {"say": "I am done."}]}]})
    };
    let Some(night) = Night::new(true, script) else { return };
    let job = night.job("followed", 1, 300, "");
    night.detach(&job);
    let mut logs = Heard::of(&mut night.service.ctl(["logs", "-F", "followed"]));
    for text in ["I begin.", "tool Bash until test -e "] {
        wait_until(text, LONG, || logs.has(text));
    }
    assert_eq!(night.service.status("followed")["sheets"][0]["state"], "running");
    assert!(!logs.has("I am done."));
    night.desk.write("go", "");
    wait_until("the end", LONG, || logs.has("result: done") && logs.has("I am done."));
    assert_eq!(logs.end().code(), Some(0), "it ends with the run");
    assert_eq!(night.service.status("followed")["state"], "completed");
}

/// A tool call whose processes run in sessions of their own, and tell that they do.
fn scattered(desk: &Desk) -> Value {
    let (held, began) = (desk.path("held"), desk.path("began"));
    let (held, began) = (held.display(), began.display());
    let command = format!(
        "touch {held}; cd /; setsid tail -f {held} & setsid sh -c 'trap \"\" TERM HUP INT; setsid tail -f {held} & \
         echo >> {began}; while :; do tail -f {held}; done' & tail -f {held}"
    );
    json!({"rules": [{"turns": [{"bash": command}, {"say": "Done."}]}]})
}

/// Waits until the whole tree stands, then until `end` has left nothing of it.
fn ends_as_a_whole(desk: &Desk, end: impl FnOnce()) {
    wait_until("the tool runs", LONG, || !desk.lines("began").is_empty());
    let held = desk.path("held");
    wait_until("all of it runs", LONG, || processes_of(&held).len() >= 4);
    let before = Instant::now();
    end();
    wait_until("nothing of it is left", Duration::from_secs(30), || {
        processes_of(&held).is_empty()
    });
    assert!(before.elapsed() < Duration::from_secs(30));
}

#[test]
fn cancel_and_timeout_leave_no_process_of_a_session_of_the_service() {
    let Some(night) = Night::new(true, scattered) else {
        return;
    };
    let job = night.job("cancelled", 1, 300, "");
    night.detach(&job);
    ends_as_a_whole(&night.desk, || {
        let cancel = output(night.ctl(["cancel", "cancelled"]));
        assert!(cancel.status.success(), "{}", said(&cancel));
    });
    wait_until("it is cancelled", LONG, || {
        night.service.status("cancelled")["state"] == "cancelled"
    });

    fs::remove_file(night.desk.path("began")).expect("the mark");
    let job = night.job("late", 1, 12, "retry: {transient_retries: 0}\n");
    night.detach(&job);
    ends_as_a_whole(&night.desk, || ());
    let wait = output(night.ctl(["wait", "late"]));
    assert_eq!(wait.status.code(), Some(1), "{}", said(&wait));
    assert_eq!(night.service.status("late")["sheets"][0]["code"], "E001");
    wait_until("no session unit is left", Duration::from_secs(10), || {
        night.service.units().is_empty()
    });
}

/// The unit of a session has its sheet's time, and the CLI its sheet's model.
#[test]
fn a_sheet_has_the_time_and_the_model_of_its_own() {
    let script = |_: &Desk| {
        json!({"rules": [
            {"match": "Write chapter 2 ", "turns": [{"hang": 120}]},
            {"turns": [{"say": "Written."}]},
        ]})
    };
    let Some(night) = Night::new(true, script) else { return };
    let job = night.job("own", 2, 300, "retry: {max_retries: 0, transient_retries: 0}\n");
    let text = fs::read_to_string(&job).expect("the job file");
    let own = "timeout_seconds: 300, sheet_overrides: {2: {timeout_seconds: 15, cli_model: claude-haiku-4-5-20251001}}";
    fs::write(&job, text.replace("timeout_seconds: 300", own)).expect("the job file");
    night.detach(&job);
    wait_until("the second sheet asks", LONG, || {
        !night.asked("Write chapter 2 ").is_empty()
    });
    let units = night.service.units();
    let [unit] = &units[..] else { panic!("{units:?}") };
    let time = systemctl(&["show", "-P", "RuntimeMaxUSec", unit]);
    assert!(String::from_utf8_lossy(&time.stdout).starts_with("15"), "{time:?}");
    let wait = output(night.ctl(["wait", "own"]));
    assert_eq!(wait.status.code(), Some(1), "{}", said(&wait));
    let status = night.service.status("own");
    assert_eq!(
        (sheet_states(&status), &status["sheets"][1]["code"]),
        (vec!["completed".to_owned(), "failed".to_owned()], &json!("E001"))
    );
    let model = |chapter: &str| {
        let asked = night.asked(chapter);
        asked
            .first()
            .and_then(|request| request["model"].as_str().map(str::to_owned))
    };
    let own = "claude-haiku-4-5-20251001";
    assert_eq!(model("Write chapter 2 ").as_deref(), Some(own));
    assert!(model("Write chapter 1 ").is_some_and(|model| model != own));
}

#[test]
fn cancel_and_timeout_leave_no_process_of_a_supervised_session() {
    let Some(program) = Some(()).filter(|()| inside()).and_then(|()| program()) else {
        return;
    };
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let api = Api::start(desk.path(".").as_path(), &scattered(&desk));
    let run = |job: &Path| {
        let mut command = alone.ctl(["run"]);
        command
            .arg(job)
            .env("ANTHROPIC_BASE_URL", &api.url)
            .env(API_KEY, "key-of-nobody");
        Heard::of(&mut command)
    };
    let job = write_job(&desk, &program, "cancelled", 1, 300, "");
    let mut running = run(&job);
    ends_as_a_whole(&desk, || {
        let cancel = output(&mut alone.ctl(["cancel", "cancelled"]));
        assert!(cancel.status.success(), "{}", said(&cancel));
    });
    assert!(!running.end().success());
    assert_eq!(alone.status("cancelled")["state"], "cancelled");

    fs::remove_file(desk.path("began")).expect("the mark");
    let job = write_job(&desk, &program, "late", 1, 12, "retry: {transient_retries: 0}\n");
    let mut running = run(&job);
    ends_as_a_whole(&desk, || ());
    assert!(!running.end().success());
    assert_eq!(alone.status("late")["sheets"][0]["code"], "E001");
}

#[test]
fn a_refused_login_fails_who_has_nothing_else_left_at_once() {
    let script = |_: &Desk| json!({"rules": [{"turns": [{"status": 401, "message": "invalid bearer token"}]}]});
    let Some(night) = Night::new(true, script) else { return };
    let job = night.job("refused", 1, 300, "");
    let run = output(night.ctl(["run"]).arg(&job));
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    assert!(said(&run).contains("E502"), "{}", said(&run));
    let status = night.service.status("refused");
    assert_eq!(status["state"], "failed");
    let sheet = &status["sheets"][0];
    assert_eq!(
        (&sheet["attempts"], &sheet["cause"], &sheet["code"]),
        (&json!(1), &json!("fatal"), &json!("E502"))
    );
    assert!(night.service.attempts("refused", 1).len() == 1 && !night.api.requests().is_empty());
}

#[test]
fn a_refused_login_fails_one_sheet_of_all_jobs_and_after_one_answer_all_go_on() {
    let script = |desk: &Desk| {
        let refused = json!({"status": 401, "message": "invalid bearer token"});
        json!({"rules": [{"unless": desk.path("mended"), "turns": [refused]}, {"turns": [{"say": "Done."}]}]})
    };
    let Some(night) = Night::new(true, script) else { return };
    let (first, second) = (night.job("first", 3, 300, ""), night.job("second", 2, 300, ""));
    let run = output(night.ctl(["run"]).arg(&first));
    assert_eq!(run.status.code(), Some(3), "{}", said(&run));
    let id = night.service.status("first")["question"].clone();
    let id = id.as_str().unwrap_or_else(|| panic!("no question: {}", said(&run)));
    let type_this = format!("mozartctl answer {id} CHOICE");
    assert!(said(&run).contains(&type_this), "{}", said(&run));

    // Another job of the same account asks nobody, neither the API nor the person.
    let requests = night.api.requests().len();
    night.detach(&second);
    std::thread::sleep(Duration::from_secs(3));
    let status = night.service.status("second");
    assert_eq!((&status["state"], &status["question"]), (&json!("waiting"), &json!(id)));
    assert_eq!(
        sheet_states(&night.service.status("first")),
        ["failed", "pending", "pending"]
    );
    assert_eq!(sheet_states(&status), ["pending"; 2]);
    assert_eq!(night.api.requests().len(), requests);
    let asked = crate::support::json(&output(night.service.ctl(["answer", "--json"])));
    let [question] = asked["questions"].as_array().expect("a list").as_slice() else {
        panic!("one question: {asked:#}")
    };
    assert_eq!(question["runs"], json!(["first#1", "second#1"]), "{asked:#}");
    assert_eq!(question["code"], "E502");

    night.desk.write("mended", "");
    let answer = output(night.service.ctl(["answer", id, "retry"]));
    assert!(answer.status.success(), "{}", said(&answer));
    for (job, sheets) in [("first", 3), ("second", 2)] {
        let wait = output(night.ctl(["wait", job]));
        assert!(wait.status.success(), "{}", said(&wait));
        let status = night.service.status(job);
        assert_eq!(sheet_states(&status), vec!["completed"; sheets]);
        for sheet in status["sheets"].as_array().expect("sheets") {
            let failed = job == "first" && sheet["sheet_num"] == 1;
            assert_eq!(sheet["attempts"], if failed { 2 } else { 1 }, "{job}: {sheet:#}");
        }
    }
}

#[test]
fn a_limit_is_asked_about_shown_and_cleared() {
    let script = |_: &Desk| {
        let limited = json!({"limit": 3600, "claim": "five_hour"});
        json!({"rules": [{"times": 1, "turns": [limited]}, {"turns": [{"say": "Done."}]}]})
    };
    let Some(night) = Night::new(true, script) else { return };
    let job = night.job("asks", 2, 300, "on_limit: ask\n");
    let run = output(night.ctl(["run"]).arg(&job));
    assert_eq!(run.status.code(), Some(3), "{}", said(&run));
    let id = night.service.status("asks")["question"].clone();
    let id = id.as_str().unwrap_or_else(|| panic!("no question: {}", said(&run)));
    let wrong = output(night.service.ctl(["answer", id, "retry"]));
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("wait or stop"), "{}", said(&wrong));
    let answer = output(night.service.ctl(["answer", id, "wait"]));
    assert!(answer.status.success(), "{}", said(&answer));

    let status = night.service.status("asks");
    assert_eq!(
        (&status["state"], &status["question"]),
        (&json!("waiting"), &Value::Null)
    );
    let ahead = time(&status["until"]).since(now()).as_secs_f64();
    assert!((3000.0..3700.0).contains(&ahead), "{status:#}");
    let limits = crate::support::json(&output(night.service.ctl(["rate-limits", "--json"])));
    let [gate] = limits["gates"].as_array().expect("a list").as_slice() else {
        panic!("one gate: {limits:#}")
    };
    assert_eq!(
        [&gate["kind"], &gate["window"], &gate["state"], &gate["runs_waiting"]],
        [&json!("usage"), &json!("five_hour"), &json!("closed"), &json!(1)],
    );
    let account = gate["account"].as_str().expect("an account");
    let unknown = output(night.service.ctl(["clear-rate-limits", "--account", "nobody"]));
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    let cleared = output(night.service.ctl(["clear-rate-limits", "--account", account]));
    assert!(cleared.status.success(), "{}", said(&cleared));
    let wait = output(night.ctl(["wait", "asks"]));
    assert!(wait.status.success(), "{}", said(&wait));
    assert_eq!(
        crate::support::json(&output(night.service.ctl(["rate-limits", "--json"]))),
        json!({"gates": []})
    );
}

#[test]
fn a_key_that_only_the_shell_has_is_told_with_the_command_that_mends_it() {
    let script = |_: &Desk| json!({"rules": [{"turns": [{"bash": "true"}, {"say": "Done."}]}]});
    let Some(night) = Night::new(false, script) else { return };
    let job = night.job("keyless", 1, 300, "");

    // No login at all: a warning, and the word is the CLI's.
    let run = output(night.ctl(["run"]).arg(&job));
    let told = said(&run);
    assert!(told.contains("no login was found"), "{told}");
    assert!(run.status.code() == Some(1) && told.contains("E502"), "{told}");
    assert_eq!(night.api.requests().len(), 0, "the CLI asked nobody");

    let with_key = |mut command: Command| {
        command.env(API_KEY, "key-of-nobody");
        command
    };
    let run = output(with_key(night.ctl(["run"])).arg(&job));
    let told = said(&run);
    assert!(
        run.status.code() == Some(1) && !told.contains("key-of-nobody"),
        "{told}"
    );
    let command = told
        .split('`')
        .find(|text| text.starts_with("systemctl --user import-environment"))
        .unwrap_or_else(|| panic!("no command: {told}"));
    // As it stands, on one line or wrapped.
    let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(command.contains(API_KEY), "{command}");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &command]);
    let mended = output(with_key(shell));
    assert!(mended.status.success(), "{}", said(&mended));

    let run = output(with_key(night.ctl(["run"])).arg(&job));
    let told = said(&run);
    assert!(
        run.status.success() && !told.contains("import-environment") && !told.contains("no login"),
        "{told}"
    );
    assert_eq!(night.api.requests()[0]["credential"], "x-api-key");
}

#[test]
fn a_missing_cli_is_told_and_nothing_is_started() {
    let Some(night) = Night::new(true, |_| json!({})) else {
        return;
    };
    let job = night.job("missing", 1, 300, "");
    let text = fs::read_to_string(&job).expect("the job file");
    let program = night.program.to_str().expect("a name in UTF-8");
    for (cli, place) in [
        ("/nowhere/claude", "/nowhere/claude"),
        ("no-such-claude", "no-such-claude"),
    ] {
        fs::write(&job, text.replace(program, cli)).expect("the job file");
        let run = output(night.ctl(["run", "--json"]).arg(&job));
        assert!(!run.status.success(), "{}", said(&run));
        assert!(
            said(&run).contains("E505") && said(&run).contains(place),
            "{}",
            said(&run)
        );
    }
    let list: Value = crate::support::json(&output(night.service.ctl(["list", "--all", "--json"])));
    assert_eq!(list, json!([]), "{list:#}");
    assert!(!night.desk.path("workspace").exists());
}
