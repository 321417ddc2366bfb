//! Killed conductors: nothing is lost, nothing starts twice, nothing is left running.

use std::collections::BTreeMap;
use std::time::Duration;

use super::inside;
use crate::recovery::{Chance, audit};
use crate::support::{Desk, Service, WROTE_ITS_FILE, output, said, systemctl, wait_until};

#[test]
fn ten_kills_of_the_service_lose_nothing_and_start_nothing_twice() {
    if !inside() {
        return;
    }
    let service = Service::fresh();
    let desk = Desk::new();
    let script = "sleep 0.15; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("fifty", 50, script, WROTE_ITS_FILE);
    let run = output(service.ctl(["run", "--detach"]).arg(&job));
    assert!(run.status.success(), "{}", said(&run));

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
    assert!(output(service.ctl(["run", "--detach"]).arg(&job)).status.success());
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
