//! Killed conductors: nothing is lost, nothing starts twice, nothing is left running.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use mozart::model::{Cause, Code};

use super::{home, inside};
use crate::recovery::{Chance, audit};
use crate::support::{Desk, MOZARTCTL, MOZARTD, Service, WROTE_ITS_FILE, output, said, systemctl, wait_until};
use crate::workspace::{closed, held, moved, taken_and_given_back};

/// For what takes a second on a quiet machine.
const LONG: Duration = Duration::from_secs(40);

#[test]
fn ten_kills_of_the_service_lose_nothing_and_start_nothing_twice() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let script = "sleep 0.15; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("fifty", 50, script, WROTE_ITS_FILE);
    service.submit(&job);

    let mut chance = Chance::new();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(chance.below(700)));
        systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"]);
    }
    let wait = output(service.ctl(["wait", "fifty"]));
    assert!(wait.status.success(), "{}", said(&wait));
    audit(&desk, &service.status("fifty"), 50);
    wait_until("no session unit is left", Duration::from_secs(5), || {
        service.units().is_empty()
    });
}

#[test]
fn a_session_is_adopted_as_the_same_process_and_its_exit_is_known_though_nobody_watched() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let job = desk.job(
        "adopted",
        1,
        "while [ ! -e go ]; do sleep 0.05; done; exit 37",
        "retry: {max_retries: 0}\n",
    );
    service.submit(&job);
    wait_until("the session runs", Duration::from_secs(10), || {
        !desk.starts().is_empty()
    });

    let show = |unit: &str| {
        let shown = systemctl(&["show", "-P", "InvocationID", "-P", "MainPID", unit]);
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    let unit = service.units().into_iter().next().expect("the session's unit");
    let before = show(&unit);
    let first = service.pid().expect("a service");
    systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"]);
    wait_until("the service is back", Duration::from_secs(10), || {
        service.pid().is_some_and(|pid| pid != first)
    });
    assert_eq!(service.status("adopted")["sheets"][0]["state"], "running");
    assert_eq!(show(&unit), before, "the same process, the same invocation");

    // It ends while no conductor lives.
    systemctl(&["stop", "mozart.service", "mozart.socket"]);
    assert_eq!(show(&unit), before, "a stop of the service touches no session");
    desk.write("go", "");
    wait_until("the session ended", Duration::from_secs(5), || {
        service.units().is_empty()
    });
    let wait = output(service.ctl(["wait", "adopted"]));
    assert_eq!(wait.status.code(), Some(1), "{}", said(&wait));
    let status = service.status("adopted");
    assert_eq!(status["sheets"][0]["code"], "E009", "{status:#}");
    assert!(status.to_string().contains("37"), "the exit code is told: {status:#}");
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1)]));
}

/// A job whose fourth sheet fails until there is a file `go`: it ran, and the service was stopped.
fn stopped_after_the_third_sheet(service: &Service, desk: &Desk, name: &str) -> PathBuf {
    let script = "mkdir -p workspace; test $n -lt 4 || test -e go || exit 1; echo done > workspace/out-$n";
    let more = format!("retry: {{max_retries: 0}}\n{WROTE_ITS_FILE}");
    let job = desk.job(name, 6, script, &more);
    service.submit(&job);
    let wait = output(service.ctl(["wait", name]));
    assert_eq!(wait.status.code(), Some(1), "{}", said(&wait));
    systemctl(&["stop", "mozart.service"]);
    job
}

#[test]
fn a_ledger_damaged_while_the_service_was_stopped_is_kept_and_the_job_goes_on_from_its_checkpoint() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let job = stopped_after_the_third_sheet(&service, &desk, "damaged");
    let state = home(".local/state/mozart");
    let mut bytes = fs::read(state.join("ledger.db")).expect("the ledger");
    bytes.truncate(bytes.len() / 2);
    fs::write(state.join("ledger.db"), &bytes).expect("the ledger");
    let start = systemctl(&["start", "mozart.service"]);
    assert!(start.status.success(), "{}", said(&start));
    assert!(service.pid().is_some());

    let said_so = output(service.ctl(["conductor-status"]));
    assert!(said(&said_so).contains("ledger-damaged-"), "{}", said(&said_so));
    let kept = fs::read_dir(&state)
        .expect("the state directory")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().contains("ledger-damaged-"))
        .expect("it was kept");
    assert!(fs::read(kept).expect("it") == bytes, "as it was found");

    desk.write("go", "");
    let resume = output(service.ctl(["resume"]).arg(&job));
    assert!(resume.status.success(), "{}", said(&resume));
    assert_eq!(
        desk.starts(),
        BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 1)])
    );
}

#[test]
fn without_ledger_and_checkpoint_the_service_goes_on_from_the_files_once_somebody_says_yes() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let job = stopped_after_the_third_sheet(&service, &desk, "lost");
    fs::remove_dir_all(home(".local/state/mozart")).expect("the ledger is gone");
    fs::remove_file(desk.path("workspace/lost.json")).expect("the checkpoint is gone");
    desk.write("go", "");
    let refused = output(service.ctl(["resume"]).arg(&job));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("sheets 1-3 of 6 look done"),
        "{}",
        said(&refused)
    );
    let resume = output(service.ctl(["resume", "--yes"]).arg(&job));
    assert!(resume.status.success(), "{}", said(&resume));
    assert_eq!(service.status("lost")["sheets"][2]["reason"], "found done");
    assert_eq!(
        desk.starts(),
        BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 1)])
    );
}

#[test]
fn a_workspace_that_is_moved_or_closed_under_the_service_fails_the_run_until_it_is_back() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let ctl = |words: &[&std::ffi::OsStr]| service.ctl(words);
    taken_and_given_back(&desk, &held(&desk), ctl, "is not there any more", moved());
    let (desk, why) = (Desk::new(), "cannot be written to: Permission denied");
    taken_and_given_back(&desk, &held(&desk), ctl, why, closed());
}

#[test]
fn a_second_conductor_fails_at_once_and_names_the_first() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    systemctl(&["start", "mozart.service"]);
    let first = service.pid().expect("a service");
    // The machine may be busy: one of a few has to be as fast as it is.
    let tries = (0..5).map(|_| {
        let before = std::time::Instant::now();
        let second = output(Command::new(MOZARTD).env_remove("NOTIFY_SOCKET"));
        (before.elapsed(), second)
    });
    let (took, second) = tries.min_by_key(|(took, _)| *took).expect("five");
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(took < Duration::from_millis(100), "{took:?}");
    let named = format!("in use by mozartd (pid {first})");
    assert!(said(&second).contains(&named), "{}", said(&second));
    assert_eq!(service.pid(), Some(first));
}

#[test]
fn two_mozarts_in_one_user_manager_leave_each_other_alone() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let (desk, other_desk) = (Desk::new(), Desk::new());
    let script = "while [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("mine", 2, script, WROTE_ITS_FILE);
    service.submit(&job);
    wait_until("the service's session runs", Duration::from_secs(10), || {
        !desk.starts().is_empty()
    });
    let mine = service.units();

    // The same user manager, another state directory, killed once and taken up again.
    let other_job = other_desk.job("theirs", 2, script, WROTE_ITS_FILE);
    let other = |verb: &str| {
        let mut command = Command::new(MOZARTCTL);
        command.arg(verb).arg(&other_job).stdin(Stdio::null());
        for (variable, name) in [
            ("XDG_STATE_HOME", "state"),
            ("XDG_CONFIG_HOME", "config"),
            ("HOME", "home"),
        ] {
            command.env(variable, other_desk.path(name));
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("mozartctl")
    };
    other_desk.write("config/mozart/mozartd.yaml", "launcher: systemd\n");
    let mut first = other("run");
    wait_until("the other's session runs", Duration::from_secs(10), || {
        !other_desk.starts().is_empty()
    });
    assert!(
        other_desk.path("state/mozart/ledger.db").exists(),
        "it has a ledger of its own"
    );
    let known = output(service.ctl(["status", "theirs"]));
    assert_eq!(
        known.status.code(),
        Some(4),
        "the service knows nothing of it: {}",
        said(&known)
    );
    first.kill().expect("kill");
    first.wait().expect("wait");
    let mut second = other("resume");
    systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"]);
    wait_until("the service is back", Duration::from_secs(10), || {
        service.pid().is_some()
    });
    assert_eq!(service.units().len(), 2, "one session each");
    assert!(mine.iter().all(|unit| service.units().contains(unit)));

    other_desk.write("go", "");
    assert!(second.wait().expect("wait").success());
    assert_eq!(service.units(), mine, "still there, and nothing else");
    desk.write("go", "");
    let wait = output(service.ctl(["wait", "mine"]));
    assert!(wait.status.success(), "{}", said(&wait));
    let once = BTreeMap::from([(1, 1), (2, 1)]);
    assert_eq!((desk.starts(), other_desk.starts()), (once.clone(), once));
}

#[test]
fn a_new_binary_and_a_removed_one_lose_no_session() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let script = "while [ ! -e go-$n ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("upgraded", 2, script, WROTE_ITS_FILE);
    service.submit(&job);
    wait_until("the first sheet runs", Duration::from_secs(10), || {
        !desk.starts().is_empty()
    });
    let home = PathBuf::from(std::env::var_os("HOME").expect("HOME"));
    let binary = home.join(".local/bin/mozartd");
    // As an installer does: another file, renamed over the one that runs.
    fs::copy(MOZARTD, binary.with_extension("new")).expect("a copy");
    fs::rename(binary.with_extension("new"), &binary).expect("a rename");
    let restart = systemctl(&["restart", "mozart.service"]);
    assert!(restart.status.success(), "{}", said(&restart));
    assert_eq!(service.status("upgraded")["sheets"][0]["state"], "running");
    desk.write("go-1", "");
    wait_until("the second sheet runs", Duration::from_secs(10), || {
        desk.starts().len() == 2
    });

    // Gone while a session runs: what would write its exit record is not there.
    take_programs_away();
    desk.write("go-2", "");
    wait_until("the session ended", Duration::from_secs(10), || {
        service.units().is_empty() || service.status("upgraded")["state"] != "running"
    });
    bring_programs_back();
    let wait = output(service.ctl(["wait", "upgraded"]));
    let status = service.status("upgraded");
    assert!(wait.status.success(), "{}\n{status:#}", said(&wait));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1)]));
}

/// The service's program, and the one that writes exit records.
fn programs() -> [PathBuf; 2] {
    ["mozartd", "mozart-helper"].map(|program| home(".local/bin").join(program))
}

fn take_programs_away() {
    for program in programs() {
        fs::rename(&program, program.with_extension("away")).expect("a rename");
    }
}

fn bring_programs_back() {
    for program in programs() {
        fs::rename(program.with_extension("away"), &program).expect("a rename");
    }
}

#[test]
fn sessions_outlive_a_service_that_is_dead_and_has_no_binary() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let script = "while [ ! -e go-$n ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let more = format!("retry: {{max_retries: 0, transient_retries: 0}}\n{WROTE_ITS_FILE}");
    let job = desk.job("removed", 3, script, &more);
    service.submit(&job);
    let started = |sheet, times| {
        wait_until("its session runs", LONG, || desk.starts().get(&sheet) == Some(&times));
    };
    let gone = || {
        take_programs_away();
        systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"]);
        // systemd tries it each second, in vain.
        wait_until("the service is dead", LONG, || {
            let status = systemctl(&["show", "-P", "ExecMainStatus", "mozart.service"]);
            service.pid().is_none() && status.stdout == b"203\n"
        });
    };
    let back = || {
        bring_programs_back();
        wait_until("the service is back", LONG, || service.pid().is_some());
    };

    // It ends while there is nothing that could write its exit record, and nobody who watches.
    started(1, 1);
    gone();
    desk.write("go-1", "");
    wait_until("the session is over", LONG, || service.units().is_empty());
    back();
    // The next one ends when everything is back.
    started(2, 1);
    gone();
    assert_eq!(service.units().len(), 1, "its session goes on");
    back();
    desk.write("go-2", "");
    desk.write("go-3", "");
    let wait = output(service.ctl(["wait", "removed"]));
    let status = service.status("removed");
    assert!(wait.status.success(), "{}\n{status:#}", said(&wait));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 2), (2, 1), (3, 1)]));
    let attempts = service.attempts("removed", 1);
    let first = attempts[0]
        .report
        .as_ref()
        .and_then(|report| report.outcome.failure.as_ref());
    let why = first.map(|failure| (failure.cause, failure.code));
    assert_eq!(why, Some((Cause::Interrupted, Code::E004)), "{attempts:#?}");
}

#[test]
fn damage_that_the_running_service_finds_costs_neither_the_session_nor_what_the_checkpoint_holds() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let old = desk.job(
        "old",
        20,
        "mkdir -p workspace; echo done > workspace/out-$n",
        WROTE_ITS_FILE,
    );
    let run = output(service.ctl(["run"]).arg(&old));
    assert!(run.status.success(), "{}", said(&run));
    // Nothing of the old run is in anybody's memory from here on.
    systemctl(&["restart", "mozart.service"]);
    fs::remove_file(desk.path("starts")).expect("it is there");
    let script =
        "test $n = 1 || while [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("now", 3, &format!("rm -f workspace/out-$n; {script}"), WROTE_ITS_FILE);
    service.submit(&job);
    wait_until("the second sheet runs", LONG, || desk.starts().len() == 2);
    wait_until("the checkpoint", LONG, || {
        fs::read_to_string(desk.path("workspace/now.json"))
            .is_ok_and(|text| text.contains("\"last_completed_sheet\": 1"))
    });
    let (conductor, unit) = (service.pid(), service.units());

    let ledger = home(".local/state/mozart/ledger.db");
    let mut bytes = fs::read(&ledger).expect("the ledger");
    // Of the facts it has read the newest at its start, and keeps them; not what stands beside them.
    let reports: Vec<usize> = bytes
        .chunks(512)
        .enumerate()
        .filter(|(_, page)| page.windows(14).any(|part| part == b"\"certificate\":"))
        .map(|(page, _)| page * 512)
        .collect();
    assert!(reports.len() > 3, "{reports:?}");
    for page in reports {
        bytes[page..page + 8].fill(0xff);
    }
    fs::write(&ledger, &bytes).expect("the ledger");
    let path = "/org/mozart/Mozart1/job/old";
    let mut answers = (1..=20).map(|sheet| {
        let mut asked = Command::new("busctl");
        asked.args(["--user", "call", "org.mozart.Mozart1", path, "org.mozart.Mozart1.Job"]);
        output(asked.args(["Attempts", "ua{sv}", &sheet.to_string(), "0"]))
    });
    let asked = answers.find(|asked| !asked.status.success()).expect("damage is found");
    assert!(said(&asked).contains("resume FILE.yaml"), "{}", said(&asked));
    wait_until("systemd starts it anew", LONG, || {
        service.pid().is_some_and(|pid| Some(pid) != conductor)
    });
    wait_until("it is said", LONG, || {
        said(&output(service.ctl(["conductor-status"]))).contains("ledger-damaged-")
    });
    let journal = output(Command::new("journalctl").args(["--user", "--unit=mozart.service", "--no-pager"]));
    assert!(said(&journal).contains("damaged"), "{}", said(&journal));
    assert!(!ledger.with_extension("damaged").exists(), "noted, and done");

    assert_eq!(service.units(), unit, "the session goes on");
    let refused = output(service.ctl(["resume"]).arg(&job));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains(unit[0].trim_end_matches(".service")),
        "{}",
        said(&refused)
    );
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1)]));
    desk.write("go", "");
    wait_until("the session is over", LONG, || service.units().is_empty());
    let resume = output(service.ctl(["resume"]).arg(&job));
    assert!(resume.status.success(), "{}", said(&resume));
    assert_eq!(service.status("now")["state"], "completed");
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 1)]));
}

/// A job whose sheets write that word and are to have written it; those from 2 on wait until they may.
fn writes(desk: &Desk, sheets: u32, word: &str, waits: bool) -> PathBuf {
    let wait = if waits {
        "until [ -e go-$n ]; do sleep 0.05; done; "
    } else {
        ""
    };
    let script = format!("{wait}mkdir -p workspace; echo {word} > workspace/out-$n");
    let more = format!(
        "parallel: {{enabled: true, max_concurrent: 2}}\nretry: {{max_retries: 0}}\n\
         validations: [{{type: content_contains, path: 'out-{{sheet_num}}', pattern: {word}}}]\n"
    );
    desk.job("modified", sheets, &script, &more)
}

#[test]
fn sheets_at_work_keep_their_plan_through_a_kill_and_the_others_have_the_new_one() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let job = writes(&desk, 4, "old", true);
    assert!(output(service.ctl(["run", "--detach"]).arg(&job)).status.success());
    wait_until("two sheets are at work", Duration::from_secs(20), || {
        desk.starts().len() == 2
    });

    let job = writes(&desk, 5, "new", false);
    let modified = output(service.ctl(["modify", "modified", "-c"]).arg(&job));
    assert!(modified.status.success(), "{}", said(&modified));
    assert!(
        said(&modified).contains("goes on with the old plan"),
        "{}",
        said(&modified)
    );
    let first = service.pid().expect("a service");
    systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"]);
    wait_until("the service is back", LONG, || {
        service.pid().is_some_and(|pid| pid != first)
    });
    // One ends while a conductor looks, the other while there is none.
    desk.write("go-1", "");
    wait_until("sheet 3 has had its turn", LONG, || desk.starts().contains_key(&3));
    systemctl(&["stop", "mozart.service", "mozart.socket"]);
    desk.write("go-2", "");
    wait_until("sheet 2 has ended", LONG, || {
        desk.path("workspace/out-2").exists() && service.units().is_empty()
    });

    let wait = output(service.ctl(["wait", "modified"]));
    assert!(
        wait.status.success(),
        "{}\n{:#}",
        said(&wait),
        service.status("modified")
    );
    let words: Vec<_> = (1..=5)
        .map(|sheet| desk.lines(&format!("workspace/out-{sheet}")).concat())
        .collect();
    assert_eq!(words, ["old", "old", "new", "new", "new"]);
    assert!(desk.starts().values().all(|starts| *starts == 1), "{:?}", desk.starts());
}

#[test]
fn rules_are_asked_in_units_of_their_own_and_what_holds_is_completed_by_the_service() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let more = format!(
        "retry: {{max_retries: 0}}\n{WROTE_ITS_FILE}  - {{type: command_succeeds, command: 'cat /proc/self/cgroup >> units; test -s out-{{sheet_num}}'}}\n"
    );
    let job = desk.job(
        "recovered",
        2,
        "mkdir -p workspace; test $n = 1 || touch workspace/out-$n; exit 3",
        &more,
    );
    assert!(output(service.ctl(["run", "--detach"]).arg(&job)).status.success());
    assert_eq!(output(service.ctl(["wait", "recovered"])).status.code(), Some(1));
    desk.write("workspace/out-1", "by hand");
    for _ in 0..2 {
        let recovered = output(service.ctl(["recover", "recovered"]));
        assert!(recovered.status.success(), "{}", said(&recovered));
        let status = service.status("recovered");
        assert_eq!(
            (status["state"].as_str(), status["sheets"][0]["state"].as_str()),
            (Some("paused"), Some("completed"))
        );
        assert_eq!(
            status["sheets"][1]["state"], "pending",
            "no session has worked on it, and its file is not there"
        );
    }
    let units = desk.lines("workspace/units").join("\n");
    assert!(
        units.contains("-1-0-v1.service"),
        "a check has a unit of its own: {units}"
    );
    wait_until("no unit is left", Duration::from_secs(5), || service.units().is_empty());
    systemctl(&["restart", "mozart.service"]);
    assert_eq!(service.status("recovered")["sheets"][0]["state"], "completed");
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1)]));
}
