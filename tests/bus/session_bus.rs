//! A real bus daemon: the name, activation's order of things, subscribers, and leaving without losing a call.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mozart::api::request::{ApiError, RunSelector};
use mozart::api::view::Change;
use mozart::bus::client::{CallError, Client, Hint};
use mozart::bus::server::{Attached, Clients, ServeError};
use mozart::model::RunState;
use tokio::task::JoinSet;
use zbus::connection::Builder;

use super::refusal;
use super::script::{Table, World, run_view};

const PATIENCE: Duration = Duration::from_secs(30);

/// A bus daemon of the test's own.
pub(crate) struct Bus {
    _directory: tempfile::TempDir,
    daemon: Child,
    pub(crate) address: String,
}

impl Bus {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("bus.conf");
        // No directory of services: an installed Mozart is not to be started by a test.
        let rules = r#"<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>"#;
        let policy = format!(r#"<policy context="default">{rules}</policy>"#);
        let listen = format!(
            "<type>session</type><listen>unix:dir={}</listen>",
            directory.path().display()
        );
        std::fs::write(&config, format!("<busconfig>{listen}{policy}</busconfig>")).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Self {
            _directory: directory,
            daemon,
            address: address.trim().to_owned(),
        }
    }

    async fn client(&self) -> Client {
        Client::bus(&self.address).await.unwrap()
    }

    /// Serves a world on this bus, with the name.
    async fn serve(&self, world: &mut World) -> Attached {
        let mut attached = world
            .server
            .attach(Builder::address(self.address.as_str()))
            .await
            .unwrap();
        world.tasks.spawn(attached.publisher());
        attached.request_name().await.unwrap();
        attached
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

fn newest() -> RunSelector {
    RunSelector {
        job: "a".to_owned(),
        run: None,
    }
}

fn one_run() -> Table {
    Table {
        runs: vec![run_view("a", 1, RunState::Running)],
        ..Table::default()
    }
}

#[tokio::test]
async fn a_job_is_called_and_watched_over_the_bus() {
    let bus = Bus::start();
    let mut world = World::new(one_run());
    let attached = bus.serve(&mut world).await;
    let client = bus.client().await;
    assert_eq!(client.conductor_pid().await, Some(std::process::id()));
    assert_eq!(
        client.run(&newest()).await.unwrap(),
        run_view("a", 1, RunState::Running)
    );
    let mut watch = client.watch("a").await.unwrap();
    client.pause(&newest(), true).await.unwrap();
    assert_eq!(soon(watch.next()).await, Hint::Changed);
    assert!(world.calls().contains(&"pause a None true".to_owned()));
    let missing = client
        .cancel(&RunSelector {
            job: "zz".to_owned(),
            run: None,
        })
        .await;
    assert!(
        matches!(missing, Err(CallError::Api(ApiError::NoSuchJob(_)))),
        "{missing:?}"
    );

    soon(attached.leave()).await;
    while soon(watch.next()).await != Hint::Gone {}
    let gone = client.reload().await;
    assert!(matches!(gone, Err(CallError::Unreachable(_))), "{gone:?}");
}

#[tokio::test]
async fn a_second_conductor_is_told_who_has_the_name() {
    let bus = Bus::start();
    let (mut first, second) = (World::new(one_run()), World::new(one_run()));
    let _first = bus.serve(&mut first).await;
    let attached = second
        .server
        .attach(Builder::address(bus.address.as_str()))
        .await
        .unwrap();
    let error = attached.request_name().await.unwrap_err();
    assert!(matches!(error, ServeError::NameTaken(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .contains(&format!("process {} owns", std::process::id())),
        "{error}"
    );
}

#[tokio::test]
async fn the_caller_is_found_out_over_the_bus() {
    let bus = Bus::start();
    let (mut world, _proc) = refusal::in_a_session();
    let _attached = bus.serve(&mut world).await;
    let client = bus.client().await;
    refusal::refuses_changes_and_allows_reading(&world, &client).await;
}

#[tokio::test]
async fn subscribers_are_counted_until_they_leave() {
    let bus = Bus::start();
    let mut world = World::new(one_run());
    let _attached = bus.serve(&mut world).await;
    let mut clients = world.server.clients();
    let (one, two) = (bus.client().await, bus.client().await);
    one.subscribe().await.unwrap();
    one.subscribe().await.unwrap();
    two.subscribe().await.unwrap();
    assert_eq!(
        *clients.borrow_and_update(),
        Clients {
            private: 0,
            subscribers: 2
        }
    );
    drop(one);
    soon(clients.wait_for(|clients| clients.subscribers == 1))
        .await
        .unwrap();
    two.unsubscribe().await.unwrap();
    assert_eq!(clients.borrow_and_update().subscribers, 0);
}

#[tokio::test]
async fn the_objects_are_there_before_the_name() {
    let bus = Bus::start();
    let client = bus.client().await;
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let client = client.clone();
        asking.spawn(async move {
            loop {
                match client.sheets(&newest(), 1).await {
                    Err(CallError::Unreachable(_)) => tokio::task::yield_now().await,
                    answered => return answered,
                }
            }
        });
    }
    let mut world = World::new(one_run());
    let _attached = bus.serve(&mut world).await;
    for answer in soon(asking.join_all()).await {
        assert_eq!(answer, Ok(Vec::new()));
    }
}

/// Calls are aimed at the moment of leaving: each is answered, or the bus itself says that nobody has the name
/// (where the service is installed, it starts the next one instead).
#[tokio::test]
async fn no_call_is_lost_when_the_conductor_leaves() {
    let bus = Bus::start();
    let mut world = World::new(one_run());
    // So that calls are always under way.
    world.table.lock().unwrap().delay = Duration::from_millis(1);
    let mut turned_away = 0;
    let mut answered = 0;
    for round in 0..10 {
        let attached = bus.serve(&mut world).await;
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let client = bus.client().await;
            calls.spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..25 {
                    answers.push(client.reload().await);
                }
                answers
            });
        }
        tokio::time::sleep(Duration::from_millis(5 + round)).await;
        soon(attached.leave()).await;
        for answer in soon(calls.join_all()).await.into_iter().flatten() {
            match answer {
                Ok(()) => answered += 1,
                Err(CallError::Unreachable(text)) if text.contains("was not provided by any .service") => {
                    turned_away += 1;
                }
                lost => panic!("{lost:?}"),
            }
        }
    }
    assert_eq!(answered + turned_away, 1000);
    assert!(answered > 0 && turned_away > 0, "{answered} {turned_away}");
    assert_eq!(world.calls().iter().filter(|call| *call == "reload").count(), answered);
}

#[tokio::test]
async fn a_watch_goes_on_with_the_next_conductor() {
    let bus = Bus::start();
    let client = bus.client().await;
    let mut first = World::new(one_run());
    let attached = bus.serve(&mut first).await;
    let mut watch = client.watch("a").await.unwrap();
    soon(attached.leave()).await;
    while soon(watch.next()).await != Hint::Gone {}
    let mut second = World::new(one_run());
    let _attached = bus.serve(&mut second).await;
    assert_eq!(soon(watch.next()).await, Hint::Changed);
    second.announce(Change::Run(Box::new(run_view("a", 2, RunState::Running))));
    assert_eq!(soon(watch.next()).await, Hint::Changed);
}

#[tokio::test]
async fn a_hold_is_over_with_the_client_that_asked_for_it() {
    let bus = Bus::start();
    let mut world = World::new(one_run());
    let _attached = bus.serve(&mut world).await;
    let (one, two) = (bus.client().await, bus.client().await);
    let inhibit = |client: &Client, why: &'static str| {
        let connection = client.connection().clone();
        async move { call::<u32>(&connection, "Inhibit", &(why, Dictionary::new())).await }
    };
    let uninhibit = |client: &Client, cookie: u32| {
        let connection = client.connection().clone();
        async move { call::<()>(&connection, "Uninhibit", &(cookie, Dictionary::new())).await }
    };
    let cookie = inhibit(&one, "backup").await.unwrap();
    assert!(inhibit(&one, " ").await.is_err(), "a reason is to be shown");
    assert!(uninhibit(&two, cookie).await.is_err(), "it is not theirs");
    assert!(!world.calls().iter().any(|call| call.starts_with("uninhibit")));
    uninhibit(&one, cookie).await.unwrap();
    assert!(uninhibit(&one, cookie).await.is_err(), "it is over");
    assert_eq!(
        world
            .calls()
            .iter()
            .filter(|call| call.starts_with("uninhibit"))
            .count(),
        1
    );

    inhibit(&two, "backup").await.unwrap();
    drop(two);
    soon(async {
        while !world.calls().contains(&"uninhibit 7".to_owned()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(super) type Dictionary = std::collections::HashMap<String, zbus::wire::OwnedVariant>;

pub(super) async fn call<T>(
    connection: &zbus::Connection,
    method: &str,
    body: &(impl serde::Serialize + zbus::wire::DynamicType),
) -> zbus::Result<T>
where
    T: serde::de::DeserializeOwned + zbus::wire::Type,
{
    let reply = connection
        .call_method(
            Some("org.mozart.Mozart1"),
            "/org/mozart/Mozart1",
            Some("org.mozart.Mozart1.Manager"),
            method,
            body,
        )
        .await?;
    reply.body().deserialize()
}
