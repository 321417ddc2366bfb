//! A bus that restarts and a manager that is executed anew, both in mid-run: sessions go on, and everybody finds
//! each other again.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use mozart::model::{Cause, Code};

use super::inside;
use crate::recovery::{Chance, audit};
use crate::support::{Alone, Desk, Service, WROTE_ITS_FILE, json, output, said, systemctl, wait_until};

const NAME: &str = "org.mozart.Mozart1";
const PATH: &str = "/org/mozart/Mozart1";
/// Whatever counts as a fault or a bad result ends such a run.
const NO_RETRY: &str = "retry: {max_retries: 0, transient_retries: 0}\n";
/// For everybody to find each other again.
const BACK: Duration = Duration::from_secs(20);
/// More than ten disturbances leave time for, so that each of them meets a live run.
const SHEETS: u32 = 30;
const SCRIPT: &str = "sleep 0.4; mkdir -p workspace; echo done > workspace/out-$n";
/// From one disturbance to the next, at most.
const PAUSE: u64 = 1200;

/// Starts the job; the session that runs is what gets disturbed.
fn started(service: &Service, desk: &Desk, name: &str) {
    let job = desk.job(name, SHEETS, SCRIPT, WROTE_ITS_FILE);
    service.submit(&job);
}

fn pid_of(unit: &str) -> String {
    let shown = systemctl(&["show", "-P", "MainPID", unit]);
    String::from_utf8_lossy(&shown.stdout).trim().to_owned()
}

/// The unit that is the session bus of this machine.
fn bus_unit() -> &'static str {
    ["dbus.service", "dbus-broker.service"]
        .into_iter()
        .find(|unit| pid_of(unit) != "0")
        .expect("a session bus")
}

/// `mozartctl` that cannot reach the session bus, so that it uses the private socket.
fn without_bus(service: &Service, arguments: &[&str]) -> Command {
    let mut command = service.ctl(arguments);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    command
}

/// Whether the owner of the name knows the job, without starting anybody.
fn on_the_bus(job: &str) -> bool {
    let (path, interface) = (format!("{PATH}/job/{job}"), format!("{NAME}.Job"));
    let mut asked = Command::new("busctl");
    asked.args(["--user", "--auto-start=no", "--timeout=2", "get-property"]);
    output(asked.args([NAME, &path, &interface, "State"])).status.success()
}

fn none_is_left(service: &Service) {
    wait_until("no session unit is left", BACK, || service.units().is_empty());
}

#[test]
fn ten_restarts_of_the_bus_lose_nothing_and_the_name_comes_back() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    started(&service, &desk, "thirty");
    let (bus, conductor) = (bus_unit(), service.pid());

    let mut chance = Chance::new();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(chance.below(PAUSE)));
        // Forgets the starts so far: systemd allows a unit five in ten seconds.
        systemctl(&["reset-failed", bus]);
        let restart = systemctl(&["restart", bus]);
        assert!(restart.status.success(), "{}", said(&restart));
        let looked = output(&mut without_bus(&service, &["status", "thirty", "--json"]));
        assert!(looked.status.success(), "the private socket: {}", said(&looked));
    }
    let running = output(&mut without_bus(&service, &["status", "thirty", "--json"]));
    assert_eq!(json(&running)["state"], "running", "all met a live run");
    wait_until("the name is owned again", BACK, || on_the_bus("thirty"));

    // Changes are still told: somebody who listens from now on hears of the sheets to come.
    let heard = desk.path("heard");
    let mut monitor = Command::new("busctl")
        .args(["--user", "monitor", NAME])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&heard).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("busctl");
    let wait = output(service.ctl(["wait", "thirty"]));
    monitor.kill().expect("kill");
    monitor.wait().expect("wait");
    assert!(wait.status.success(), "{}", said(&wait));
    let heard = desk.lines("heard").join("\n");
    for signal in ["Member=PropertiesChanged", "Member=SheetChanged", "Member=Finished"] {
        assert!(heard.contains(signal), "{signal} was not heard:\n{heard}");
    }
    audit(&desk, &service.status("thirty"), SHEETS);
    assert_eq!(service.pid(), conductor, "the conductor outlived all of them");
    none_is_left(&service);
}

#[test]
fn a_killed_bus_hangs_nobody_and_the_name_comes_back() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    started(&service, &desk, "thirty");
    let (bus, conductor) = (bus_unit(), service.pid());
    for _ in 0..4 {
        wait_until("the name is owned", BACK, || on_the_bus("thirty"));
        let before = pid_of(bus);
        systemctl(&["reset-failed", bus]);
        systemctl(&["kill", "--signal=KILL", "--kill-whom=main", bus]);
        // A manager that waits for a bus which it should start itself would answer after 25 s and more.
        wait_until("the bus is back", BACK, || {
            !["0", &before].contains(&pid_of(bus).as_str())
        });
    }
    wait_until("the name is owned again", BACK, || on_the_bus("thirty"));
    // Between two sheets it waits.
    let state = service.status("thirty")["state"].clone();
    assert!(state == "running" || state == "waiting", "all met a live run: {state}");
    let wait = output(service.ctl(["wait", "thirty"]));
    assert!(wait.status.success(), "{}", said(&wait));
    audit(&desk, &service.status("thirty"), SHEETS);
    assert_eq!(service.pid(), conductor, "the conductor outlived all of them");
    none_is_left(&service);
}

#[test]
fn a_unit_that_was_held_when_the_bus_went_away_is_let_go() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let slow = "  - {type: command_succeeds, command: \"while [ ! -e ../go ]; do sleep 0.05; done\"}\n";
    let script = "mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("held", 1, script, &format!("{WROTE_ITS_FILE}{slow}"));
    service.submit(&job);
    let ended = || {
        let unit = service
            .units()
            .into_iter()
            .find(|unit| unit.ends_with("-1-1-1.service"));
        unit.is_some_and(|unit| systemctl(&["is-active", &unit]).stdout.starts_with(b"inactive"))
    };
    wait_until("the session is over and held", BACK, ended);
    assert!(systemctl(&["restart", bus_unit()]).status.success());
    wait_until("the name is owned again", BACK, || on_the_bus("held"));
    assert!(ended(), "systemd keeps it, until it is asked");
    desk.write("go", "");
    let wait = output(service.ctl(["wait", "held"]));
    assert!(wait.status.success(), "{}", said(&wait));
    none_is_left(&service);
    audit(&desk, &service.status("held"), 1);
}

#[test]
fn ten_new_executions_of_the_manager_lose_no_exit_and_start_nothing_twice() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    started(&service, &desk, "thirty");
    let conductor = service.pid().expect("a service");

    let mut chance = Chance::new();
    for round in 0..15 {
        std::thread::sleep(Duration::from_millis(chance.below(PAUSE * 2 / 3)));
        // Ten of the one, five of the other.
        let verb = if round % 3 == 2 {
            "daemon-reload"
        } else {
            "daemon-reexec"
        };
        let done = systemctl(&[verb]);
        assert!(done.status.success(), "{verb}: {}", said(&done));
    }
    assert_eq!(service.status("thirty")["state"], "running", "all met a live run");
    let wait = output(service.ctl(["wait", "thirty"]));
    assert!(wait.status.success(), "{}", said(&wait));
    audit(&desk, &service.status("thirty"), SHEETS);
    assert_eq!(service.pid(), Some(conductor), "the conductor outlived all of them");
    none_is_left(&service);
}

#[test]
fn a_user_manager_that_leaves_interrupts_and_the_run_goes_on_by_itself() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    // The second sheet's session makes an exit status of the signal, as the Claude CLI does.
    let script = "test $n = 2 && trap 'exit 143' TERM; while [ ! -e go-$n ]; do sleep 0.05; done; \
                  mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job(
        "left",
        3,
        script,
        &format!("retry: {{max_retries: 0}}\n{WROTE_ITS_FILE}"),
    );
    desk.write("go-3", "");
    service.submit(&job);
    for sheet in [1, 2] {
        let started = |times| desk.starts().get(&sheet) == Some(&times);
        wait_until("its session runs", BACK, || started(1));
        let conductor = service.pid().expect("a service");
        assert!(systemctl(&["exit"]).status.success());
        wait_until("the service is back", 2 * BACK, || {
            service.pid().is_some_and(|pid| pid != conductor)
        });
        wait_until("its session runs again", BACK, || started(2));
        desk.write(&format!("go-{sheet}"), "");
    }
    let wait = output(service.ctl(["wait", "left"]));
    let status = service.status("left");
    assert!(wait.status.success(), "{}\n{status:#}", said(&wait));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 2), (2, 2), (3, 1)]));
    for sheet in [1, 2] {
        let attempts = service.attempts("left", sheet);
        let first = attempts[0]
            .report
            .as_ref()
            .and_then(|report| report.outcome.failure.as_ref());
        let why = first.map(|failure| (failure.cause, failure.code));
        assert_eq!(why, Some((Cause::Interrupted, Code::E004)), "{attempts:#?}");
        assert_eq!(attempts.len(), 2);
    }
}

#[test]
fn a_conductor_outside_of_the_user_manager_waits_until_that_is_back() {
    if !inside() {
        return;
    }
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: systemd\n");
    // The first session does its work when it is told to end, so that the second is to start in a manager that leaves
    // no more: a program that does not want to end keeps that for longer than everything else.
    let script = "work() { mkdir -p workspace; echo done > workspace/out-$n; exit 0; }; test $n = 1 && trap work TERM; \
                  while [ ! -e go ]; do sleep 0.05; done; work";
    let job = desk.job("outside", 3, script, &format!("{NO_RETRY}{WROTE_ITS_FILE}"));
    let mut run = alone.ctl(["run"]);
    for variable in ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"] {
        run.env(variable, std::env::var_os(variable).expect(variable));
    }
    run.arg(&job).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = run.spawn().expect("mozartctl");
    let leave = || {
        let stubborn = "trap '' TERM; while :; do sleep 1; done";
        let kept = Command::new("systemd-run")
            .args(["--user", "--quiet", "--property=TimeoutStopSec=7", "sh", "-c", stubborn])
            .status();
        assert!(kept.expect("systemd-run").success());
        assert!(systemctl(&["exit"]).status.success());
    };
    let started = |sheet, times| {
        wait_until("its session runs", 2 * BACK, || {
            desk.starts().get(&sheet) == Some(&times)
        });
    };
    started(1, 1);
    leave();
    started(2, 1);
    leave();
    started(2, 2);
    desk.write("go", "");
    let ended = child.wait_with_output().expect("its output");
    assert!(ended.status.success(), "{}", said(&ended));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 1)]));
}

#[test]
fn who_watches_is_told_the_end_though_the_bus_restarted() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let script = "while [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("watched", 2, script, WROTE_ITS_FILE);
    let watcher = |arguments: &mut Command| {
        arguments
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mozartctl")
    };
    let attached = watcher(service.ctl(["run"]).arg(&job));
    wait_until("the first sheet runs", Duration::from_secs(10), || {
        !desk.starts().is_empty()
    });
    let waiting = watcher(&mut service.ctl(["wait", "watched"]));
    // Both have looked once and listen.
    std::thread::sleep(Duration::from_millis(500));
    assert!(systemctl(&["restart", bus_unit()]).status.success());
    std::thread::sleep(Duration::from_millis(500));
    desk.write("go", "");
    for (who, child) in [("run", attached), ("wait", waiting)] {
        let ended = child.wait_with_output().expect("its output");
        assert!(ended.status.success(), "{who}: {}", said(&ended));
    }
    audit(&desk, &service.status("watched"), 2);
}
