//! A bus that restarts and a manager that is executed anew, both in mid-run: sessions go on, and everybody finds
//! each other again.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::inside;
use crate::recovery::{Chance, audit};
use crate::support::{Desk, Service, WROTE_ITS_FILE, output, said, systemctl, wait_until};

/// More than ten disturbances leave time for, so that each of them meets a live run.
const SHEETS: u32 = 30;
const SCRIPT: &str = "sleep 0.4; mkdir -p workspace; echo done > workspace/out-$n";
/// From one disturbance to the next, at most.
const PAUSE: u64 = 1200;

/// Starts the job; the session that runs is what gets disturbed.
fn started(service: &Service, desk: &Desk, name: &str) {
    let job = desk.job(name, SHEETS, SCRIPT, WROTE_ITS_FILE);
    let run = output(service.ctl(["run", "--detach"]).arg(&job));
    assert!(run.status.success(), "{}", said(&run));
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
    wait_until("no session unit is left", Duration::from_secs(5), || {
        service.units().is_empty()
    });
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
