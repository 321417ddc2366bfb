//! Killed conductors: nothing is lost, nothing starts twice, nothing is left running.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, said, sheet_states, wait_until};

/// A small generator of its own, so that a failing run can be repeated by its printed seed.
pub(crate) struct Chance(u64);

impl Chance {
    #[expect(clippy::print_stderr, reason = "a failing run is repeated by its seed")]
    pub(crate) fn new() -> Self {
        let seed = std::env::var("MOZART_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                // In a new machine process ids are always the same.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                (u64::from(now.subsec_nanos()) << 32) ^ now.as_secs()
            });
        eprintln!("MOZART_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// A number below `most`.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Every sheet completed, and started exactly once by what the sessions themselves wrote.
pub(crate) fn audit(desk: &Desk, status: &serde_json::Value, sheets: u32) {
    assert_eq!(status["state"], "completed", "{status:#}");
    assert_eq!(sheet_states(status), vec!["completed"; sheets as usize]);
    let once: BTreeMap<u32, u32> = (1..=sheets).map(|sheet| (sheet, 1)).collect();
    assert_eq!(desk.starts(), once);
}

/// Processes whose command line holds `mark`.
fn processes(mark: &str) -> Vec<u32> {
    let listed = output(Command::new("pgrep").args(["-f", mark]));
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// An embedded run, killed outright.
fn embedded(alone: &Alone, verb: &[&str], file: &std::path::Path) -> Child {
    let mut command = alone.ctl(verb);
    command.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("mozartctl")
}

#[test]
fn killed_embedded_conductors_leave_supervised_sessions_that_the_next_one_adopts() {
    // More than ten kills leave time for, so that each of them meets a live run.
    const SHEETS: u32 = 40;
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    let desk = Desk::new();
    // Each session leaves a grandchild in a session of its own; it must not outlive the sheet.
    let mark = format!("31{:07}", std::process::id());
    let script = format!("setsid sleep {mark} & sleep 0.2; mkdir -p workspace; echo done > workspace/out-$n");
    let job = desk.job("many", SHEETS, &script, WROTE_ITS_FILE);
    let mut chance = Chance::new();
    let mut child = embedded(&alone, &["run"], &job);
    wait_until("the first session", Duration::from_secs(10), || {
        !desk.starts().is_empty()
    });
    for _ in 0..10 {
        wait_until("the run is live", Duration::from_secs(10), || {
            alone.status("many")["state"] == "running"
        });
        std::thread::sleep(Duration::from_millis(chance.below(500)));
        assert!(
            child.try_wait().expect("wait").is_none(),
            "it ended before it was killed"
        );
        child.kill().expect("kill");
        child.wait().expect("wait");
        let state = alone.status("many");
        assert_eq!(state["state"], "paused", "{state:#}");
        assert_eq!(state["reason"], "conductor gone");
        child = embedded(&alone, &["resume"], &job);
    }
    assert!(child.wait().expect("wait").success());
    audit(&desk, &alone.status("many"), SHEETS);
    wait_until("no grandchild is left", Duration::from_secs(5), || {
        processes(&format!("sleep {mark}")).is_empty()
    });
}

#[test]
fn with_the_ledger_gone_resume_takes_up_from_the_checkpoint() {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    let desk = Desk::new();
    let script = "mkdir -p workspace; test $n -lt 4 || test -e go || exit 1; echo done > workspace/out-$n";
    let job = desk.job(
        "copied",
        6,
        script,
        &format!("retry: {{max_retries: 0}}\n{WROTE_ITS_FILE}"),
    );
    let run = output(alone.ctl(["run"]).arg(&job));
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    let checkpoint: serde_json::Value =
        serde_json::from_slice(&fs::read(desk.path("workspace/copied.json")).expect("the checkpoint")).expect("JSON");
    assert_eq!(checkpoint["status"], "failed");
    assert_eq!(checkpoint["last_completed_sheet"], 3);

    fs::remove_dir_all(alone.state()).expect("the ledger is gone");
    desk.write("go", "");
    let resume = output(alone.ctl(["resume"]).arg(&job));
    assert!(resume.status.success(), "{}", said(&resume));
    assert_eq!(
        desk.starts(),
        BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 1)])
    );
    assert_eq!(
        json(&output(&mut alone.ctl(["status", "copied", "--json"])))["state"],
        "completed"
    );
}

#[test]
fn a_damaged_ledger_is_kept_and_the_job_goes_on_from_its_checkpoint() {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    let desk = Desk::new();
    let script = "mkdir -p workspace; test $n -lt 4 || test -e go || exit 1; echo done > workspace/out-$n";
    let more = format!("retry: {{max_retries: 0}}\n{WROTE_ITS_FILE}");
    let job = desk.job("damaged", 6, script, &more);
    let run = output(alone.ctl(["run"]).arg(&job));
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));

    let garbage = "This was a ledger.\n".repeat(1000);
    fs::write(alone.state().join("ledger.db"), &garbage).expect("the ledger");
    let status = output(&mut alone.ctl(["status", "damaged"]));
    assert_eq!(status.status.code(), Some(4), "{}", said(&status));
    let kept = fs::read_dir(alone.state())
        .expect("the state directory")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("ledger-damaged-") && name.ends_with(".db"))
        .unwrap_or_else(|| panic!("nothing was kept: {}", said(&status)));
    assert_eq!(fs::read_to_string(alone.state().join(&kept)).expect("it"), garbage);
    // Said also by later commands, until it is moved away.
    for _ in 0..2 {
        let status = output(&mut alone.ctl(["status", "damaged"]));
        assert!(said(&status).contains(&kept), "{}", said(&status));
        assert!(
            said(&status).contains("mozartctl resume FILE.yaml"),
            "{}",
            said(&status)
        );
    }

    desk.write("go", "");
    let resume = output(alone.ctl(["resume"]).arg(&job));
    assert!(resume.status.success(), "{}", said(&resume));
    let once_or_twice = [(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 1)];
    assert_eq!(desk.starts(), BTreeMap::from(once_or_twice));
}

#[test]
fn killed_guards_and_supervisors_cost_a_retry_each_and_leave_nothing() {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    let desk = Desk::new();
    // In a session of its own, and its parent gone.
    let mark = format!("33{:07}", std::process::id());
    let script = format!(
        "setsid sh -c 'setsid sleep {mark} & exit 0'; sleep 0.3; mkdir -p workspace; \
         echo done > workspace/out-$n"
    );
    let supervisors = format!("mozart-supervise {}", alone.state().display());
    let retries =
        |most| format!("retry: {{transient_retries: {most}, base_delay_seconds: 0.05, max_delay_seconds: 0.1}}\n");
    let job = desk.job("shot", 5, &script, &format!("{}{WROTE_ITS_FILE}", retries(100)));
    let mut chance = Chance::new();
    let mut run = embedded(&alone, &["run"], &job);
    let mut killed = 0;
    while killed < 10 {
        assert!(run.try_wait().expect("wait").is_none(), "it ended after {killed} kills");
        let either = processes(&supervisors);
        if either.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        std::thread::sleep(Duration::from_millis(chance.below(250)));
        let choice = usize::try_from(chance.below(2)).expect("a small number");
        let victim = either.get(choice).unwrap_or(&either[0]).to_string();
        killed += u32::from(output(Command::new("kill").args(["-9", &victim])).status.success());
    }
    assert!(run.wait().expect("wait").success());
    let status = alone.status("shot");
    assert_eq!(status["state"], "completed", "{status:#}");
    assert_eq!(processes(&format!("sleep {mark}")), Vec::<u32>::new());
    let attempts = |sheet: &serde_json::Value| sheet["attempts"].as_u64().expect("a number");
    let all: u64 = status["sheets"].as_array().expect("sheets").iter().map(attempts).sum();
    assert!((5..=15).contains(&all), "{status:#}");

    // What such an attempt is known as.
    let job = desk.job("final", 1, &script, &format!("{}{WROTE_ITS_FILE}", retries(0)));
    fs::remove_dir_all(desk.path("workspace")).expect("the workspace");
    let mut run = embedded(&alone, &["run"], &job);
    wait_until("its sleep", Duration::from_secs(10), || {
        !processes(&format!("sleep {mark}")).is_empty()
    });
    if let Some(pid) = processes(&supervisors).first() {
        assert!(
            output(Command::new("kill").args(["-9", &pid.to_string()]))
                .status
                .success()
        );
    }
    assert_eq!(run.wait().expect("wait").code(), Some(1));
    let status = alone.status("final");
    let sheet = &status["sheets"][0];
    assert_eq!(
        (&sheet["cause"], &sheet["code"]),
        (&"transient".into(), &"E002".into()),
        "{status:#}"
    );
    assert_eq!(processes(&format!("sleep {mark}")), Vec::<u32>::new());
}

#[test]
fn with_the_ledger_gone_nothing_is_started_beside_a_session_that_still_runs() {
    beside(|alone| {
        for name in ["ledger.db", "ledger.db-wal"] {
            fs::remove_file(alone.state().join(name)).expect("the ledger is gone");
        }
    });
}

#[test]
fn with_all_state_gone_nothing_is_started_beside_a_session_that_still_runs() {
    beside(|alone| fs::remove_dir_all(alone.state()).expect("all is gone"));
}

fn beside(lose: impl Fn(&Alone)) {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    let desk = Desk::new();
    let script =
        "while [ $n = 2 ] && [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("beside", 2, script, WROTE_ITS_FILE);
    let mut child = embedded(&alone, &["run"], &job);
    wait_until("the second sheet runs", Duration::from_secs(10), || {
        desk.starts().len() == 2
    });
    wait_until("the checkpoint", Duration::from_secs(10), || {
        desk.path("workspace/beside.json").exists()
    });
    child.kill().expect("kill");
    child.wait().expect("wait");
    lose(&alone);
    let refused = output(alone.ctl(["resume"]).arg(&job));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("mozart-"), "{}", said(&refused));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1)]));

    desk.write("go", "");
    wait_until("it goes on", Duration::from_secs(10), || {
        output(alone.ctl(["resume"]).arg(&job)).status.success()
    });
    assert_eq!(alone.status("beside")["state"], "completed");
    assert_eq!(desk.starts()[&1], 1);
}
