//! Calls from inside real units: a session's are refused, over the bus and over the private socket.

use std::path::Path;

use tokio::net::UnixListener;

use super::inside;
use crate::bus::refusal::{SOCKET, one_run};
use crate::bus::script::World;

/// What the conductor answers to a change that is asked for from inside a unit of that name and slice.
async fn called(socket: &Path, unit: &str, slice: &str, through: &[&str]) -> String {
    let mut command = tokio::process::Command::new("systemd-run");
    command
        .args(["--user", "--wait", "--pipe", "--collect", "--quiet"])
        .args([format!("--unit={unit}"), format!("--slice={slice}")])
        .arg(format!("--setenv={SOCKET}={}", socket.display()))
        .args(through)
        .arg(std::env::current_exe().expect("the test's own program"))
        .args(["--ignored", "--exact", "--nocapture", "bus::refusal::acts_as_a_caller"]);
    let output = command.output().await.expect("systemd-run is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.split_once("answer: ")) {
        Some((_, answer)) => answer.to_owned(),
        None => panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[tokio::test]
async fn a_session_in_its_unit_changes_nothing() {
    if !inside() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let private = directory.path().join("bus");
    let mut world = World::new(one_run());
    let accept = world.server.accept(UnixListener::bind(&private).expect("a socket"));
    world.tasks.spawn(accept);
    let mut attached = world.server.session_bus().await.expect("a session bus");
    world.tasks.spawn(attached.publisher());
    attached.request_name().await.expect("the name");

    let (session, sessions) = ("mozart-0a1b2c3d-7-2-1", "background-mozart.slice");
    for socket in [private.as_path(), Path::new("")] {
        for through in [
            &[][..],
            &["setsid", "--wait"],
            &["sh", "-c", "setsid --wait \"$@\"; exit", "sh"],
        ] {
            let answer = called(socket, session, sessions, through).await;
            assert!(answer.contains("Refused"), "{answer}");
            assert!(answer.contains("mozart-0a1b2c3d-7-2-1.service"), "{answer}");
        }
        assert_eq!(
            called(socket, "mozart-0a1b2c3d-7-2-2", "app.slice", &[]).await,
            "Ok(())"
        );
        assert_eq!(called(socket, "backup", sessions, &[]).await, "Ok(())");
    }
    let calls = world.calls();
    assert_eq!(
        calls.iter().filter(|call| call.starts_with("pause")).count(),
        4,
        "{calls:?}"
    );
    attached.leave().await;
}
