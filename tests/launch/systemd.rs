//! What only units have: the manager's own operations in between, its properties, its references.

use std::fs;
use std::time::{Duration, Instant};

use mozart::model::{Exit, StopHow};
use mozart::runner::launch::spool::Spool;
use mozart::runner::launch::{Evidence, StartOutcome};

use crate::host::inside;

use super::support::{Bench, Kind, MANAGER, own_child, systemctl, wait_until};

#[tokio::test]
async fn a_waiting_launcher_survives_reload_and_reexec() {
    if !inside() {
        return;
    }
    let _alone = MANAGER.write().await;
    let bench = Bench::alone(Kind::Systemd).await;
    for operation in ["daemon-reload", "daemon-reexec"] {
        let launch = bench.launch("while [ ! -e go ]; do sleep 0.02; done; exit 37");
        let (pid, invocation) = bench.start(&launch).await;
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            tokio::task::spawn_blocking(move || systemctl(&[operation]))
                .await
                .unwrap();
            let evidence = bench
                .again()
                .await
                .launcher
                .evidence(&launch.unit, &launch.spool)
                .await
                .unwrap();
            fs::write(launch.cwd.join("go"), "").unwrap();
            evidence
        };
        let (ended, evidence) = tokio::join!(bench.ended(&launch), meanwhile);
        assert_eq!(ended.exit, Exit::Code(37), "{operation}");
        let Evidence::Running {
            invocation: now,
            pid: pid_now,
            ..
        } = evidence
        else {
            panic!("{operation}: {evidence:?}");
        };
        assert_eq!((pid_now, now), (pid, invocation), "{operation}");
        bench.launcher.release(&launch.unit).await;
    }
}

#[tokio::test]
async fn a_limit_of_memory_is_the_slices_high_mark_and_never_its_maximum() {
    if !inside() {
        return;
    }
    let _alone = MANAGER.write().await;
    let bench = Bench::alone(Kind::Systemd).await;
    let shown = |name: &str| {
        let property = format!("--property={name}");
        crate::host::said(&format!(
            "systemctl --user show --value {property} background-mozart.slice"
        ))
    };
    let told = bench.launcher.limit_memory(Some(600 << 20)).await;
    assert_eq!(shown("MemoryHigh"), (600_u64 << 20).to_string());
    assert_eq!(shown("MemoryMax"), "infinity");
    // It says where nothing comes of it.
    let delegated = {
        let group = crate::host::said("systemctl --user show --value --property=ControlGroup");
        let controllers = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/cgroup.controllers"));
        controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
    };
    assert_eq!(told.is_ok(), delegated, "{told:?}");
    bench.launcher.limit_memory(None).await.ok();
    assert_eq!(shown("MemoryHigh"), "infinity");
}

#[tokio::test]
async fn the_record_survives_reload_and_reexec() {
    if !inside() {
        return;
    }
    let _alone = MANAGER.write().await;
    let bench = Bench::alone(Kind::Systemd).await;
    for operation in ["daemon-reload", "daemon-reexec"] {
        let launch = bench.launch("while [ ! -e go ]; do sleep 0.02; done; exit 37");
        let (pid, invocation) = own_child(&bench, &launch).await;
        systemctl(&[operation]);
        let evidence = bench
            .again()
            .await
            .launcher
            .evidence(&launch.unit, &launch.spool)
            .await
            .unwrap();
        assert!(
            matches!(&evidence, Evidence::Running { pid: p, invocation: i, .. } if *p == pid && *i == invocation),
            "{operation}: {evidence:?}"
        );
        fs::write(launch.cwd.join("go"), "").unwrap();
        wait_until(|| Spool::new(&launch.spool).record().is_some()).await;
        wait_until(|| !systemctl(&["list-units", "--all", "--plain"]).contains(&launch.unit)).await;
        let evidence = bench
            .again()
            .await
            .launcher
            .evidence(&launch.unit, &launch.spool)
            .await
            .unwrap();
        assert!(
            matches!(&evidence, Evidence::Ended(ended) if ended.exit == Exit::Code(37)),
            "{evidence:?}"
        );
    }
}

#[tokio::test]
async fn an_ended_unit_is_held_until_its_release() {
    if !inside() {
        return;
    }
    let bench = Bench::new(Kind::Systemd).await;
    let launch = bench.launch("exit 9");
    bench.finish(&launch).await;
    assert_eq!(
        bench.launcher.units(&bench.prefix).await.unwrap(),
        std::slice::from_ref(&launch.unit)
    );
    bench.launcher.release(&launch.unit).await;
    assert_eq!(bench.launcher.units(&bench.prefix).await.unwrap(), Vec::<String>::new());
    // Asking for what is gone holds nothing either.
    bench.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    assert_eq!(bench.launcher.units(&bench.prefix).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn anothers_stop_is_not_taken_for_ours() {
    if !inside() {
        return;
    }
    let bench = Bench::new(Kind::Systemd).await;
    let launch = bench.launch("sleep 60");
    bench.start(&launch).await;
    systemctl(&["stop", &format!("{}.service", launch.unit)]);
    let ended = bench.ended(&launch).await;
    assert_eq!(
        (ended.exit, ended.stopped_by_us),
        (Exit::Signal(15), false),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_lost_connection_is_made_anew() {
    if !inside() {
        return;
    }
    let _alone = MANAGER.write().await;
    let bench = Bench::alone(Kind::Systemd).await;
    let launch = bench.launch("sleep 1; exit 37");
    bench.start(&launch).await;
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::task::spawn_blocking(|| systemctl(&["restart", "dbus.service"]))
            .await
            .unwrap();
    };
    let (ended, ()) = tokio::join!(bench.ended(&launch), meanwhile);
    assert_eq!(ended.exit, Exit::Code(37));
    assert_eq!(bench.run("exit 3").await.exit, Exit::Code(3));
}

#[tokio::test]
async fn without_a_session_bus_the_managers_own_socket_serves() {
    if !inside() {
        return;
    }
    // The process below has a lock of its own, which no test of this one sees.
    let _together = MANAGER.read().await;
    // In a process of its own, because the address of the bus is read from the environment.
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "launch::systemd::over_the_managers_own_socket",
            "--ignored",
            "--nocapture",
        ])
        .env("DMANAGER_SESSION_MANAGER_ADDRESS", "unix:path=/no/such/socket")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Run by the test above: no test by itself.
#[tokio::test]
#[ignore = "run by another test"]
async fn over_the_managers_own_socket() {
    let bench = Bench::new(Kind::Systemd).await;
    assert_eq!(bench.run("exit 37").await.exit, Exit::Code(37));
    assert_eq!(bench.run("kill -9 $$").await.exit, Exit::Signal(9));
    let launch = bench.launch("sleep 60");
    let (pid, invocation) = bench.start(&launch).await;
    let evidence = bench
        .again()
        .await
        .launcher
        .evidence(&launch.unit, &launch.spool)
        .await
        .unwrap();
    assert!(
        matches!(&evidence, Evidence::Running { pid: p, invocation: i, .. } if *p == pid && *i == invocation),
        "{evidence:?}"
    );
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Terminate)
        .await
        .unwrap();
    let ended = bench.ended(&launch).await;
    assert_eq!((ended.exit, ended.stopped_by_us), (Exit::Signal(15), true));
}

#[tokio::test]
async fn a_unit_that_a_reload_left_with_a_bad_setting_is_adopted() {
    if !inside() {
        return;
    }
    let _alone = MANAGER.write().await;
    let bench = Bench::alone(Kind::Systemd).await;
    let launch = bench.launch("while [ ! -e go ]; do sleep 0.02; done; exit 37");
    let (pid, invocation) = own_child(&bench, &launch).await;
    let unit = format!("{}.service", launch.unit);
    let file = format!("{}/systemd/transient/{unit}", std::env::var("XDG_RUNTIME_DIR").unwrap());
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("ExecStart=")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    systemctl(&["daemon-reload"]);
    assert_eq!(
        systemctl(&["show", "--value", "--property=LoadState", &unit]).trim(),
        "bad-setting"
    );
    let again = bench.again().await;
    let evidence = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    assert!(
        matches!(&evidence, Evidence::Running { pid: p, invocation: i, .. } if *p == pid && *i == invocation),
        "{evidence:?}"
    );
    fs::write(launch.cwd.join("go"), "").unwrap();
    assert_eq!(again.ended(&launch).await.exit, Exit::Code(37));
}

#[tokio::test]
async fn each_launcher_takes_up_what_the_other_started() {
    if !inside() {
        return;
    }
    for (first, second) in [(Kind::Systemd, Kind::Supervised), (Kind::Supervised, Kind::Systemd)] {
        let bench = Bench::new(first).await;
        let launch = bench.launch("sleep 60");
        let (pid, invocation) = bench.start(&launch).await;
        let other = bench.with(second).await;
        let evidence = other.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
        assert!(
            matches!(&evidence, Evidence::Running { pid: p, invocation: i, .. } if *p == pid && *i == invocation),
            "{first:?}: {evidence:?}"
        );
        assert_eq!(other.launcher.start(&launch).await, StartOutcome::Unknown);
        other
            .launcher
            .stop(&launch.unit, &launch.spool, StopHow::Terminate)
            .await
            .unwrap();
        assert_eq!(other.ended(&launch).await.exit, Exit::Signal(15), "{first:?}");
        assert_eq!(bench.ended(&launch).await.exit, Exit::Signal(15), "{first:?}");
        other.launcher.release(&launch.unit).await;
    }
}

/// Prints figures; asserts only that all ended well.
#[tokio::test]
async fn what_one_unit_costs() {
    if !inside() {
        return;
    }
    let bench = Bench::new(Kind::Systemd).await;
    let mut times = Vec::new();
    for _ in 0..40 {
        let launch = bench.launch("exit 0");
        let begun = Instant::now();
        assert_eq!(bench.finish(&launch).await.exit, Exit::Code(0));
        times.push(begun.elapsed());
        bench.launcher.release(&launch.unit).await;
    }
    times.sort();
    println!(
        "start to certificate: median {:?}, slowest {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}
