//! The conductor as a systemd service: activation, idle exit, the journal, restarts, and who may change what.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use super::inside;
use crate::support::{Desk, Service, WROTE_ITS_FILE, output, said, systemctl, wait_until};

const NAME: &str = "org.mozart.Mozart1";
const PATH: &str = "/org/mozart/Mozart1";
const MANAGER: &str = "org.mozart.Mozart1.Manager";

fn settings(text: &str) {
    let home = std::env::var("HOME").expect("HOME");
    std::fs::create_dir_all(format!("{home}/.config/mozart")).expect("a directory");
    std::fs::write(format!("{home}/.config/mozart/mozartd.yaml"), text).expect("the settings");
}

/// One call by D-Bus activation.
async fn list_runs(bus: &zbus::Connection) -> zbus::Result<()> {
    let options: HashMap<&str, zbus::Variant<'_>> = HashMap::new();
    bus.call_method(
        Some(NAME),
        PATH,
        Some(MANAGER),
        "ListRuns",
        &(options.clone(), 10_u32, "", options),
    )
    .await
    .map(drop)
}

#[test]
fn a_thousand_calls_aimed_at_the_moment_of_idle_exit_are_all_answered() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    settings("idle_exit_seconds: 1\n");
    systemctl(&["stop", "mozart.service"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut answered, mut exits) = (0, 0);
    runtime.block_on(async {
        let bus = zbus::Connection::session().await.expect("a session bus");
        for round in 0..20_u64 {
            list_runs(&bus).await.expect("activation");
            let first = service.pid();
            // From a little before the exit to a little after it; each round aims elsewhere.
            tokio::time::sleep(Duration::from_millis(960 + round * 4)).await;
            let mut calls = Vec::new();
            for call in 0..50_u64 {
                let bus = &bus;
                calls.push(async move {
                    tokio::time::sleep(Duration::from_micros(call * 1600)).await;
                    tokio::time::timeout(Duration::from_secs(20), list_runs(bus)).await
                });
            }
            for answer in futures_util::future::join_all(calls).await {
                answer.expect("in time").expect("answered");
                answered += 1;
            }
            exits += u32::from(service.pid() != first);
        }
    });
    assert_eq!(answered, 1000);
    assert!(exits >= 10, "the calls met only {exits} exits");
    settings("");
}

#[test]
fn it_is_activated_by_the_bus_and_by_its_socket() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    systemctl(&["start", "mozart.socket"]);
    systemctl(&["stop", "mozart.service"]);
    assert_eq!(service.pid(), None);
    let called = output(Command::new("busctl").args(["--user", "get-property", NAME, PATH, MANAGER, "Version"]));
    assert!(called.status.success(), "{}", said(&called));
    assert!(service.pid().is_some());

    systemctl(&["stop", "mozart.service"]);
    let mut without_bus = service.ctl(["list"]);
    without_bus.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    let listed = output(&mut without_bus);
    assert!(listed.status.success(), "{}", said(&listed));
    assert!(service.pid().is_some(), "the socket started it");
}

#[test]
fn the_journal_tells_a_run_with_fields_to_filter_by() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let job = desk.job("told", 2, "mkdir -p workspace; echo > workspace/out-$n", WROTE_ITS_FILE);
    let run = output(service.ctl(["run"]).arg(&job));
    assert!(run.status.success(), "{}", said(&run));
    let journal = || {
        let read = output(Command::new("journalctl").args([
            "--user",
            "--unit=mozart.service",
            "MOZART_JOB=told",
            "--output=json",
            "--no-pager",
        ]));
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect::<Vec<serde_json::Value>>()
    };
    let has = |id: mozart::daemon::message_id::Kind| journal().iter().any(|entry| entry["MESSAGE_ID"] == id.id);
    wait_until("the run's lines", Duration::from_secs(5), || {
        has(mozart::daemon::message_id::RUN_COMPLETED)
    });
    assert!(has(mozart::daemon::message_id::RUN_SUBMITTED) && has(mozart::daemon::message_id::RUN_STARTED));
    let entries = journal();
    assert!(
        entries
            .iter()
            .all(|entry| entry["SYSLOG_IDENTIFIER"] == "mozartd" && entry["MOZART_RUN"] == "1")
    );
    let sheets: Vec<_> = entries.iter().filter(|entry| entry["MOZART_SHEET"] == "2").collect();
    assert!(!sheets.is_empty());
    let status = systemctl(&["show", "-P", "StatusText", "mozart.service"]);
    assert!(
        String::from_utf8_lossy(&status.stdout).contains("idle"),
        "{}",
        said(&status)
    );
}

#[test]
fn mistake_07_stop_and_reload_work_while_jobs_run_and_a_restart_takes_the_sessions_over() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let script = "while [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo > workspace/out-$n";
    let first = desk.job("one", 2, script, WROTE_ITS_FILE);
    let second = Desk::new();
    let other = second.job("two", 2, script, WROTE_ITS_FILE);
    for job in [&first, &other] {
        service.submit(job);
    }
    wait_until("both run", Duration::from_secs(10), || {
        !desk.starts().is_empty() && !second.starts().is_empty()
    });
    let units = service.units();
    assert_eq!(units.len(), 2, "{units:?}");

    let pid = service.pid();
    assert!(systemctl(&["reload", "mozart.service"]).status.success());
    assert_eq!(service.pid(), pid, "a reload is no restart");
    assert!(systemctl(&["restart", "mozart.service"]).status.success());
    assert_ne!(service.pid(), pid);
    assert_eq!(service.units(), units, "the same sessions");
    let start = std::time::Instant::now();
    assert!(systemctl(&["stop", "mozart.service"]).status.success());
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "SIGTERM is heard with jobs running"
    );
    assert_eq!(service.units(), units);

    desk.write("go", "");
    second.write("go", "");
    for name in ["one", "two"] {
        let wait = output(service.ctl(["wait", name]));
        assert!(wait.status.success(), "{}", said(&wait));
    }
    let once = BTreeMap::from([(1, 1), (2, 1)]);
    assert_eq!((desk.starts(), second.starts()), (once.clone(), once));
}

#[test]
fn a_session_and_its_child_in_a_session_of_its_own_may_look_but_change_nothing() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let ctl = std::env::var("HOME").expect("HOME") + "/.local/bin/mozartctl";
    let script = format!(
        "export XDG_RUNTIME_DIR=/run/user/$(id -u); export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus; \
         {ctl} status inside --json > looked 2>&1; {ctl} cancel inside > direct 2>&1; echo $? >> direct; \
         setsid -w {ctl} cancel inside > apart 2>&1; echo $? >> apart; \
         DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent {ctl} cancel inside > socket 2>&1; echo $? >> socket; \
         busctl --user call {NAME} {PATH}/job/inside {NAME}.Job Pause 'a{{sv}}' 0 > raw 2>&1; \
         mkdir -p workspace; echo > workspace/out-$n"
    );
    let job = desk.job("inside", 1, &script, WROTE_ITS_FILE);
    let run = output(service.ctl(["run"]).arg(&job));
    assert!(run.status.success(), "{}", said(&run));
    assert_eq!(service.status("inside")["state"], "completed");
    assert!(
        desk.lines("looked").concat().contains("\"running\""),
        "{:?}",
        desk.lines("looked")
    );
    for name in ["direct", "apart", "socket"] {
        let lines = desk.lines(name);
        assert_eq!(lines.last().map(String::as_str), Some("1"), "{name}: {lines:?}");
        assert!(lines.concat().contains("session"), "{name}: {lines:?}");
    }
    let raw = desk.lines("raw").concat();
    assert!(!raw.is_empty() && raw.contains("session"), "{raw}");
}

#[test]
fn a_second_conductor_fails_at_once_and_names_the_first() {
    if !inside() {
        return;
    }
    let (service, _desk) = (Service::fresh(), Desk::new());
    assert!(systemctl(&["start", "mozart.service"]).status.success());
    let pid = service.pid().expect("a service").to_string();
    let start = std::time::Instant::now();
    let second = output(&mut Command::new(crate::support::MOZARTD));
    assert!(!second.status.success());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(said(&second).contains(&pid), "{}", said(&second));
}

#[test]
fn uninstalling_keeps_the_data_and_says_where() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let job = desk.job("kept", 1, "true", "");
    assert!(output(service.ctl(["run"]).arg(&job)).status.success());
    let install = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/install");
    let gone = output(Command::new(install).args(["--user", "--uninstall"]));
    assert!(gone.status.success(), "{}", said(&gone));
    assert!(said(&gone).contains(".local/state/mozart"), "{}", said(&gone));
    let home = std::env::var("HOME").expect("HOME");
    assert!(
        std::path::Path::new(&home)
            .join(".local/state/mozart/ledger.db")
            .exists()
    );
    for left in [
        ".local/bin/mozartctl",
        ".local/bin/mozartd",
        ".local/bin/mozart-helper",
        ".local/share/dbus-1/services/org.mozart.Mozart1.service",
    ] {
        assert!(!std::path::Path::new(&home).join(left).exists(), "{left} is left");
    }
    assert!(!systemctl(&["cat", "mozart.service"]).status.success());
}

/// logind, as far as it tells who lingers; one object for everything.
struct Login;

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Login {
    async fn get_user(&self, uid: u32) -> zbus::OwnedObjectPath {
        let path = format!("/org/freedesktop/login1/user/_{uid}");
        path.try_into().expect("a path")
    }
}

struct LoginUser;

#[zbus::interface(name = "org.freedesktop.login1.User")]
impl LoginUser {
    #[zbus(property)]
    fn linger(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn who_does_not_linger_is_told_that_sessions_end_with_the_login() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let bus = crate::bus::session_bus::Bus::start();
    let user = format!("/org/freedesktop/login1/user/_{}", rustix::process::getuid().as_raw());
    let _logind = zbus::connection::Builder::address(bus.address.as_str())
        .serve_at("/org/freedesktop/login1", Login)
        .serve_at(user, LoginUser)
        .name("org.freedesktop.login1")
        .build()
        .await
        .expect("a stand-in");
    let run = async |name: &'static str, arguments: &[&str], lingers: bool| {
        let job = desk.job(name, 1, "true", "");
        let mut ctl = service.ctl(["run", "--detach"]);
        ctl.args(arguments).arg(job);
        if !lingers {
            ctl.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address);
        }
        let done = tokio::task::spawn_blocking(move || output(ctl)).await.expect("it ends");
        assert!(done.status.success(), "{}", said(&done));
        String::from_utf8_lossy(&done.stderr).matches("enable-linger").count()
    };
    assert_eq!(run("lingers", &[], true).await, 0, "the user of the machine does");
    assert_eq!(run("leaves", &[], false).await, 1);
    assert_eq!(run("quiet", &["--quiet"], false).await, 0);
    assert_eq!(run("told", &["--json"], false).await, 0);
}
