//! No agent answers for the user: who may change something, and who may only look.

use std::process::Command;
use std::time::Duration;

use mozart::api::request::{ApiError, RunFilter, RunSelector, Submit};
use mozart::bus::caller::Callers;
use mozart::bus::client::{CallError, Client};
use mozart::model::RunState;
use tokio::net::UnixListener;

use super::script::{Table, World, run_view};

/// Names the private socket to [`acts_as_a_caller`]; empty: the session bus.
pub(crate) const SOCKET: &str = "MOZART_TEST_SOCKET";

fn newest() -> RunSelector {
    RunSelector {
        job: "a".to_owned(),
        run: None,
    }
}

pub(crate) fn one_run() -> Table {
    Table {
        runs: vec![run_view("a", 1, RunState::Running)],
        ..Table::default()
    }
}

/// A `/proc` in which this process is a session's.
fn session_proc() -> tempfile::TempDir {
    let proc = tempfile::tempdir().unwrap();
    let own = proc.path().join(std::process::id().to_string());
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("stat"), "1 (claude) S 1 1").unwrap();
    std::fs::write(own.join("cmdline"), "claude").unwrap();
    let cgroup = "0::/user.slice/background-mozart.slice/mozart-0a1b2c3d-7-2-1.service/deeper\n";
    std::fs::write(own.join("cgroup"), cgroup).unwrap();
    proc
}

pub(crate) async fn refuses_changes_and_allows_reading(world: &World, client: &Client) {
    let submit = Submit {
        base_directory: "/".to_owned(),
        ..Submit::default()
    };
    let refusals = [
        client.submit(&submit).await.map(drop),
        client.pause(&newest(), false).await,
        client.resume(&newest()).await,
        client.retry(&newest(), mozart::model::SheetNo(1)).await,
        client.cancel(&newest()).await,
        client.modify(&newest(), &submit).await.map(drop),
        client.recover(&newest(), None, true).await.map(drop),
        client.stop(false).await,
        client.reload().await,
        client.answer("q1-1-1", "retry").await,
        client.clear_gates(None).await,
    ];
    for refusal in refusals {
        match refusal {
            Err(CallError::Api(ApiError::Refused(text))) => assert!(text.contains("mozart-0a1b2c3d-7-2-1.service")),
            other => panic!("{other:?}"),
        }
    }
    assert!(world.table.lock().unwrap().submitted.is_empty());

    client
        .submit(&Submit {
            dry_run: true,
            ..submit.clone()
        })
        .await
        .unwrap();
    client.validate(&submit).await.unwrap();
    client.runs(&RunFilter::default(), 0, "").await.unwrap();
    client.run(&newest()).await.unwrap();
    client.sheets(&newest(), 1).await.unwrap();
    client.attempts(&newest(), 1).await.unwrap();
    client.manager().await.unwrap();
    client.questions().await.unwrap();
    client.gates().await.unwrap();
    client.subscribe().await.unwrap();
    client.watch("a").await.unwrap();
    let looked = ["recent", "list", "sheets"];
    let calls = world.calls();
    assert!(
        calls
            .iter()
            .all(|call| looked.iter().any(|look| call.starts_with(look))),
        "{calls:?}"
    );
}

pub(crate) fn in_a_session() -> (World, tempfile::TempDir) {
    let proc = session_proc();
    (World::with(one_run(), Callers::with_proc(proc.path()), 64), proc)
}

#[tokio::test]
async fn a_session_may_look_and_change_nothing() {
    let (mut world, _proc) = in_a_session();
    let client = world.client().await;
    refuses_changes_and_allows_reading(&world, &client).await;
}

#[tokio::test]
async fn who_cannot_be_looked_up_is_refused() {
    let nothing = tempfile::tempdir().unwrap();
    let mut world = World::with(one_run(), Callers::with_proc(nothing.path()), 64);
    let client = world.client().await;
    let error = client.pause(&newest(), false).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Api(ApiError::Refused(text)) if text.contains("cannot be looked up")),
        "{error:?}"
    );
}

/// Not a test of its own: [`a_supervised_session_and_its_children_are_refused`] runs it in other processes.
#[tokio::test]
#[ignore = "is the caller in another test"]
async fn acts_as_a_caller() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let client = match socket.is_empty() {
        true => Client::session().await,
        false => Client::private(socket.as_ref()).await,
    };
    let client = client.unwrap();
    println!("answer: {:?}", client.pause(&newest(), false).await);
}

/// This test binary, calling over the socket from inside the shell line `line` (where it is `"$1"`).
async fn called(socket: &std::path::Path, line: &str, name: &str) -> String {
    let mut command = Command::new("sh");
    let shell_line = format!(r#"{line} "$1" --ignored --exact --nocapture bus::refusal::acts_as_a_caller; exit"#);
    command
        .args(["-c", &shell_line, name])
        .arg(std::env::current_exe().unwrap())
        .env(SOCKET, socket);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = text.lines().find_map(|line| line.split_once("answer: "));
    answer
        .unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
        .1
        .to_owned()
}

#[tokio::test]
async fn a_supervised_session_and_its_children_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bus");
    let mut world = World::new(one_run());
    let accept = world.server.accept(UnixListener::bind(&socket).unwrap());
    world.tasks.spawn(accept);

    // A shell whose command line says what a supervisor's says is an ancestor of the caller.
    let supervisor = "--mozart-supervise";
    assert!(called(&socket, "", supervisor).await.contains("Refused"));
    assert!(called(&socket, "setsid --wait", supervisor).await.contains("Refused"));
    assert!(
        called(&socket, "setsid --wait setsid --wait", supervisor)
            .await
            .contains("Refused")
    );
    world.calls();
    assert_eq!(called(&socket, "", "sh").await, "Ok(())");
    assert_eq!(called(&socket, "setsid --wait", "sh").await, "Ok(())");
    let calls: Vec<_> = world.calls().into_iter().filter(|call| call != "recent").collect();
    assert_eq!(calls, ["pause a None false"; 2]);
    tokio::time::timeout(Duration::from_secs(20), world.tasks.shutdown())
        .await
        .unwrap();
}
