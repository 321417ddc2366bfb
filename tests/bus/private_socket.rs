//! The private socket: many clients, none of which can hold up another.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mozart::api::view::Change;
use mozart::bus::client::{CallError, Client, Hint};
use mozart::bus::server::Clients;
use mozart::model::{JobName, RunNo, RunState};
use tokio::net::UnixListener;

use super::script::{Table, World, run_view, sheet};
use super::session_bus::{Dictionary, call};

const PATIENCE: Duration = Duration::from_secs(20);

fn listening(world: &mut World, path: &Path) {
    let accept = world.server.accept(UnixListener::bind(path).unwrap());
    world.tasks.spawn(accept);
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

/// A client that has said who it is and does nothing more: it never reads.
fn mute(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let uid: String = rustix::process::getuid()
        .as_raw()
        .to_string()
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    write!(stream, "\0AUTH EXTERNAL {uid}\r\n").unwrap();
    let mut answer = [0; 256];
    let count = stream.read(&mut answer).unwrap();
    assert!(
        answer[..count].starts_with(b"OK "),
        "{}",
        String::from_utf8_lossy(&answer[..count])
    );
    stream.write_all(b"BEGIN\r\n").unwrap();
    stream
}

#[tokio::test]
async fn silent_and_deaf_clients_hold_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut world = World::new(Table {
        runs: vec![run_view("a", 1, RunState::Running)],
        ..Table::default()
    });
    listening(&mut world, &path);
    let strangers: Vec<_> = (0..4).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let (deaf_path, mute_all) = (path.clone(), |path: std::path::PathBuf| {
        (0..4).map(|_| mute(&path)).collect()
    });
    let deaf: Vec<_> = soon(tokio::task::spawn_blocking(move || mute_all(deaf_path)))
        .await
        .unwrap();
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(soon(Client::private(&path)).await.unwrap());
    }
    let client = soon(Client::private(&path)).await.unwrap();
    let mut watch = soon(client.watch("a")).await.unwrap();
    assert_eq!(world.server.clients().borrow().private, 13);

    // More than their sockets can hold.
    for round in 0..40 {
        for number in 1..=500 {
            let mut sheet = sheet(number);
            sheet.message = Some("x".repeat(1000));
            let sheet = Box::new(sheet);
            world.announce(Change::Sheet {
                job: JobName::new("a").unwrap(),
                run: RunNo(round),
                sheet,
            });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let job = JobName::new("a").unwrap();
    world.announce(Change::Finished {
        job,
        run: RunNo(1),
        result: RunState::Completed,
    });
    soon(async { while watch.next().await != Hint::Finished(RunNo(1), RunState::Completed) {} }).await;
    soon(client.version()).await.unwrap();
    for client in &idle {
        soon(client.version()).await.unwrap();
    }

    let mut clients = world.server.clients();
    drop((strangers, deaf, idle, watch, client));
    soon(clients.wait_for(|clients| *clients == Clients::default()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_hold_is_over_with_the_connection_that_asked_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut world = World::new(Table::default());
    listening(&mut world, &path);
    let (one, two) = (
        Client::private(&path).await.unwrap(),
        Client::private(&path).await.unwrap(),
    );
    let inhibit =
        async |client: &Client, why: &str| call::<u32>(client.connection(), "Inhibit", &(why, Dictionary::new())).await;
    let mut calls = Vec::new();
    let mut until = async |world: &World, word: &str, times: usize| {
        soon(async {
            while calls.iter().filter(|call: &&String| call.starts_with(word)).count() < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
                calls.extend(world.calls());
            }
        })
        .await;
        assert_eq!(
            calls.iter().filter(|call| call.starts_with(word)).count(),
            times,
            "{calls:?}"
        );
    };
    inhibit(&one, "backup").await.unwrap();
    inhibit(&two, "backup").await.unwrap();
    let mut clients = world.server.clients();
    drop(one);
    soon(clients.wait_for(|clients| clients.private == 1)).await.unwrap();
    until(&world, "uninhibit", 1).await;
    // The other is still there.
    tokio::time::sleep(Duration::from_millis(50)).await;
    until(&world, "uninhibit", 1).await;

    // One that is gone before it is told the number.
    world.table.lock().unwrap().delay = Duration::from_millis(300);
    let connection = two.connection().clone();
    let asking = async { call::<u32>(&connection, "Inhibit", &("late", Dictionary::new())).await };
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.clone().close().await
    };
    let (asked, left) = soon(async { tokio::join!(asking, leaving) }).await;
    assert!(asked.is_err() && left.is_ok());
    drop(two);
    until(&world, "inhibit late", 1).await;
    until(&world, "uninhibit", 3).await;
}

#[tokio::test]
async fn leaving_answers_what_was_asked_and_closes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let mut world = World::new(Table::default());
    let accept = world.server.accept(UnixListener::bind(&path).unwrap());
    let mut accepting = tokio::task::JoinSet::new();
    accepting.spawn(accept);
    let client = soon(Client::private(&path)).await.unwrap();
    client.subscribe().await.unwrap();
    assert_eq!(
        *world.server.clients().borrow(),
        Clients {
            private: 1,
            subscribers: 0
        }
    );

    world.table.lock().unwrap().delay = Duration::from_millis(50);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        asking.spawn(async move { client.reload().await });
    }
    tokio::time::sleep(Duration::from_millis(75)).await;
    world.server.leave();
    let answers = soon(asking.join_all()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    soon(accepting.join_all()).await;
    assert!(matches!(client.reload().await, Err(CallError::Unreachable(_))));
    assert!(matches!(Client::private(&path).await, Err(CallError::Unreachable(_))));
    assert_eq!(*world.server.clients().borrow(), Clients::default());
    world.tasks.shutdown().await;
}
