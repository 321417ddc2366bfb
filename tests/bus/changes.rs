//! What a connection is told, when and how often; and what it can read meanwhile.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use mozart::api::request::RunSelector;
use mozart::api::view::{Change, GateState, ManagerView, RunView};
use mozart::bus::caller::Callers;
use mozart::bus::client::{Client, Hint};
use mozart::model::{JobName, RunNo, RunState, SheetStatus};
use zbus::{Message, MessageStream, OwnedVariant};

use super::script::{Table, World, gate, question, run_view, sheet};

const PATIENCE: Duration = Duration::from_secs(20);

fn run_with(done: u32, state: RunState) -> Change {
    let mut view = run_view("a", 1, state);
    view.summary.sheets_done = done;
    view.summary.sheets_total = 5000;
    view.summary.revision = u64::from(done) + 2;
    Change::Run(Box::new(view))
}

fn finished(run: u32) -> Change {
    Change::Finished {
        job: JobName::new("a").unwrap(),
        run: RunNo(run),
        result: RunState::Completed,
    }
}

fn sheet_change(number: u32, state: SheetStatus) -> Change {
    let mut sheet = sheet(number);
    sheet.state = state;
    Change::Sheet {
        job: JobName::new("a").unwrap(),
        run: RunNo(1),
        sheet: Box::new(sheet),
    }
}

fn one_run() -> Table {
    Table {
        runs: vec![run_view("a", 1, RunState::Running)],
        ..Table::default()
    }
}

/// Signals in order of arrival, each with its moment.
struct Signals(MessageStream);

impl Signals {
    fn of(client: &Client) -> Self {
        let mut stream = MessageStream::from(client.connection());
        stream.set_max_queued(std::num::NonZeroUsize::new(10_000).unwrap());
        Self(stream)
    }

    async fn until(&mut self, member: &str) -> Vec<(Instant, Message)> {
        let mut signals = Vec::new();
        let collect = async {
            while let Some(Ok(message)) = self.0.next().await {
                if message.message_type() != zbus::message::Type::Signal {
                    continue;
                }
                let last = name(&message) == member;
                signals.push((Instant::now(), message));
                if last {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, collect)
            .await
            .unwrap_or_else(|_| panic!("no {member} came"));
        signals
    }
}

fn name(message: &Message) -> String {
    message.header().member().unwrap().to_string()
}

fn changed(message: &Message) -> HashMap<String, OwnedVariant> {
    message
        .body()
        .deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>()
        .unwrap()
        .1
}

#[tokio::test]
async fn only_what_changed_is_told_and_at_most_four_times_in_a_second() {
    let mut world = World::new(one_run());
    let client = world.client().await;
    let mut signals = Signals::of(&client);
    client.version().await.unwrap();
    let changes = world.changes.clone();
    world.tasks.spawn(async move {
        let start = Instant::now();
        for done in 1.. {
            changes.send(run_with(done, RunState::Running)).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            if start.elapsed() > Duration::from_millis(2500) {
                break;
            }
        }
        changes.send(run_with(5000, RunState::Completed)).unwrap();
        changes.send(finished(1)).unwrap();
    });

    let signals = signals.until("Finished").await;
    assert_eq!(
        signals
            .iter()
            .filter(|(_, message)| name(message) == "Finished")
            .count(),
        1
    );
    let told: Vec<_> = signals
        .into_iter()
        .filter(|(_, message)| name(message) == "PropertiesChanged")
        .collect();
    let moments: Vec<_> = told.iter().map(|(at, _)| *at).collect();
    assert!(moments.len() >= 6, "{moments:?}");
    for window in moments.windows(5) {
        // They are sent a second apart; the arrival of one may be late.
        assert!(window[4] - window[0] > Duration::from_millis(950), "{moments:?}");
    }
    let (last, progress) = told.split_last().unwrap();
    let mut before = 0;
    for (_, message) in &progress[1..] {
        let changed = changed(message);
        let mut names: Vec<_> = changed.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["Revision", "SheetsDone"]);
        let done = u32::try_from(changed["SheetsDone"].clone()).unwrap();
        assert!(done > before);
        before = done;
    }
    // The state is told before the end, with everything else that is final.
    let last = changed(&last.1);
    assert_eq!(String::try_from(last["State"].clone()).unwrap(), "completed");
    assert_eq!(u32::try_from(last["SheetsDone"].clone()).unwrap(), 5000);
}

#[tokio::test]
async fn what_a_call_did_can_be_read_after_its_answer() {
    let mut world = World::new(one_run());
    let client = world.client().await;
    let proxy = zbus::proxy::Builder::<zbus::Proxy<'_>>::new(client.connection())
        .destination("org.mozart.Mozart1")
        .path("/org/mozart/Mozart1/job/a")
        .interface("org.mozart.Mozart1.Job")
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .unwrap();
    for revision in 0..50 {
        let mut running = run_view("a", 1, RunState::Running);
        running.summary.revision = 10 + revision * 2;
        world.table.lock().unwrap().runs = vec![running.clone()];
        world.announce(Change::Run(Box::new(running)));
        assert_eq!(proxy.get_property::<String>("State").await.unwrap(), "running");
        client
            .pause(
                &RunSelector {
                    job: "a".to_owned(),
                    run: None,
                },
                false,
            )
            .await
            .unwrap();
        assert_eq!(proxy.get_property::<String>("State").await.unwrap(), "paused");
    }
}

#[tokio::test]
async fn one_who_fell_behind_reads_again() {
    let mut world = World::with(one_run(), Callers::new(), 4);
    let client = world.client().await;
    let mut signals = Signals::of(&client);
    client.version().await.unwrap();
    assert_eq!(world.calls(), ["recent"]);
    let Change::Run(last) = run_with(99, RunState::Waiting) else {
        unreachable!()
    };
    world.table.lock().unwrap().runs = vec![*last];
    world.table.lock().unwrap().manager.waiting = 1;
    for number in 1..=50 {
        world.announce(sheet_change(number, SheetStatus::Completed));
    }
    let mut states = Vec::new();
    while !states.contains(&Some("waiting".to_owned())) {
        for (_, message) in signals.until("PropertiesChanged").await {
            if name(&message) == "PropertiesChanged" {
                let state = changed(&message).remove("State");
                states.push(state.map(|state| String::try_from(state).unwrap()));
            }
        }
    }
    assert!(world.calls().contains(&"recent".to_owned()));
    assert_eq!(client.manager().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn an_older_word_does_not_replace_a_newer_one() {
    let mut world = World::new(one_run());
    let client = world.client().await;
    let newest = RunSelector {
        job: "a".to_owned(),
        run: None,
    };
    world.announce(run_with(9, RunState::Waiting));
    world.announce(run_with(3, RunState::Running));
    let mut signals = Signals::of(&client);
    world.announce(Change::Manager(ManagerView {
        slots: 3,
        ..ManagerView::default()
    }));
    signals.until("PropertiesChanged").await;
    let proxy = properties_of(&client, "a").await;
    assert_eq!(String::try_from(proxy["State"].clone()).unwrap(), "waiting");
    assert_eq!(client.run(&newest).await.unwrap().summary.state, RunState::Running);
}

async fn properties_of(client: &Client, label: &str) -> HashMap<String, OwnedVariant> {
    let path = format!("/org/mozart/Mozart1/job/{label}");
    let properties = zbus::fdo::PropertiesProxy::builder(client.connection());
    let properties = properties
        .destination("org.mozart.Mozart1")
        .path(path)
        .build()
        .await
        .unwrap();
    properties
        .get_all("org.mozart.Mozart1.Job".try_into().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn properties_say_what_the_view_says() {
    let mut asks = run_view("a", 2, RunState::Waiting);
    asks.summary.question = Some("q2-1-1".to_owned());
    let mut unknown = run_view("b", 1, RunState::Queued);
    (unknown.summary.cost, unknown.summary.until, unknown.eta) = (None, None, None);
    let mut world = World::new(Table {
        runs: vec![asks, unknown],
        ..Table::default()
    });
    let client = world.client().await;
    let properties = properties_of(&client, "a").await;
    let mut shown: Vec<_> = properties
        .iter()
        .map(|(name, value)| format!("{name} {}", **value))
        .collect();
    shown.sort();
    let expected = [
        "CostUsd 1.25",
        "EtaUSec uint64 90000000",
        "EtaValid true",
        "Id int64 42",
        "LimitUntilUSec uint64 1795228661000001",
        "Name \"a\"",
        "Question \"q2-1-1\"",
        "Reason \"limit five_hour\"",
        "Revision uint64 1",
        "Run uint32 2",
        "SheetsDone uint32 3",
        "SheetsFailed uint32 1",
        "SheetsRunning uint32 1",
        "SheetsTotal uint32 10",
        "State \"waiting\"",
        "TokensIn uint64 5000000000",
        "TokensOut uint64 17",
    ];
    assert_eq!(shown, expected);
    let properties = properties_of(&client, "b").await;
    assert_eq!(f64::try_from(properties["CostUsd"].clone()).unwrap(), -1.0);
    assert_eq!(u64::try_from(properties["LimitUntilUSec"].clone()).unwrap(), 0);
    assert!(!bool::try_from(properties["EtaValid"].clone()).unwrap());
}

fn ended(number: usize) -> RunView {
    run_view(&format!("job{number}"), 1, RunState::Completed)
}

async fn objects(client: &Client) -> Vec<String> {
    let manager = zbus::fdo::ObjectManagerProxy::builder(client.connection())
        .destination("org.mozart.Mozart1")
        .path("/org/mozart/Mozart1")
        .build()
        .await
        .unwrap();
    let objects = manager.get_managed_objects().await.unwrap();
    let jobs = objects
        .iter()
        .filter(|(_, interfaces)| interfaces.contains_key("org.mozart.Mozart1.Job"));
    jobs.map(|(path, _)| path.to_string()).collect()
}

#[tokio::test]
async fn jobs_come_and_old_ones_go() {
    let mut world = World::new(Table {
        runs: (1..=3).map(ended).collect(),
        ..Table::default()
    });
    let client = world.client().await;
    assert_eq!(objects(&client).await.len(), 3);
    let mut signals = Signals::of(&client);
    world.announce(run_with(0, RunState::Running));
    let added = signals.until("InterfacesAdded").await.pop().unwrap().1;
    let (path, interfaces): (zbus::OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
        added.body().deserialize().unwrap();
    assert_eq!(path.as_str(), "/org/mozart/Mozart1/job/a");
    assert_eq!(
        String::try_from(interfaces["org.mozart.Mozart1.Job"]["State"].clone()).unwrap(),
        "running"
    );

    for number in 4..=100 {
        world.announce(Change::Run(Box::new(ended(number))));
    }
    signals.until("InterfacesRemoved").await;
    while objects(&client).await.len() > 65 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = objects(&client).await;
    assert!(
        kept.contains(&"/org/mozart/Mozart1/job/a".to_owned()),
        "a live job stays: {kept:?}"
    );
    assert!(kept.contains(&"/org/mozart/Mozart1/job/job100".to_owned()), "{kept:?}");
    assert!(!kept.contains(&"/org/mozart/Mozart1/job/job1".to_owned()), "{kept:?}");
    // Who looks for an old one finds it.
    client
        .sheets(
            &RunSelector {
                job: "job1".to_owned(),
                run: None,
            },
            1,
        )
        .await
        .unwrap();
    assert!(
        objects(&client)
            .await
            .contains(&"/org/mozart/Mozart1/job/job1".to_owned())
    );
}

async fn hint(watch: &mut mozart::bus::client::JobWatch) -> Hint {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("no hint came")
}

#[tokio::test]
async fn a_watch_tells_of_sheets_of_changes_and_of_the_end() {
    let mut world = World::new(one_run());
    let client = world.client().await;
    let mut watch = client.watch("a").await.unwrap();
    assert!(client.watch("zz").await.is_err());
    // Sent and not fetched: calls on the same connection go on.
    for number in 1..=500 {
        world.announce(sheet_change(number, SheetStatus::Running));
        world.announce(sheet_change(number, SheetStatus::Completed));
    }
    world.announce(run_with(500, RunState::Completed));
    world.announce(finished(1));
    for _ in 0..20 {
        client.version().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut last = HashMap::new();
    let mut changed = false;
    loop {
        match hint(&mut watch).await {
            Hint::Sheet(run, sheet) => {
                assert_eq!(run, RunNo(1));
                last.insert(sheet.sheet_num, sheet.state);
            }
            Hint::Changed => changed = true,
            Hint::Finished(run, result) => {
                assert_eq!((run, result), (RunNo(1), RunState::Completed));
                break;
            }
            Hint::Gone => panic!("it is there"),
        }
    }
    assert!(changed);
    assert_eq!(last.len(), 500);
    assert!(last.values().all(|state| *state == SheetStatus::Completed));

    world.tasks.shutdown().await;
    assert_eq!(hint(&mut watch).await, Hint::Gone);
}

#[tokio::test]
async fn the_last_word_is_said_when_the_conductor_leaves() {
    let mut world = World::new(one_run());
    let client = world.client().await;
    let mut watch = client.watch("a").await.unwrap();
    for done in 1..=20 {
        world.announce(run_with(done, RunState::Running));
    }
    assert_eq!(hint(&mut watch).await, Hint::Changed);
    // Within the pause that progress has to keep.
    world.announce(run_with(21, RunState::Running));
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.announce(sheet_change(7, SheetStatus::Failed));
    world.server.leave();
    assert!(matches!(hint(&mut watch).await, Hint::Sheet(_, sheet) if sheet.sheet_num == 7));
    assert_eq!(hint(&mut watch).await, Hint::Changed);
    assert_eq!(hint(&mut watch).await, Hint::Gone);
}

#[tokio::test]
async fn a_question_is_told_once_and_of_a_gate_the_newest_word() {
    let mut world = World::new(one_run());
    let client = world.client().await;
    let mut signals = Signals::of(&client);
    client.version().await.unwrap();
    for (questions, id) in [(1, "q1-1-1"), (2, "q2-1-1")] {
        world.announce(Change::Gate(Box::new(gate(GateState::Closed))));
        world.announce(Change::Question(Box::new(question(id))));
        world.announce(Change::Manager(ManagerView {
            questions,
            ..ManagerView::default()
        }));
    }
    world.announce(Change::Gate(Box::new(gate(GateState::Open))));

    let mut told = signals.until("GateChanged").await;
    while *row(&told.last().unwrap().1)["state"] != zbus::Variant::from("open") {
        told.extend(signals.until("GateChanged").await);
    }
    let asked: Vec<_> = told
        .iter()
        .filter(|(_, message)| name(message) == "QuestionAsked")
        .collect();
    assert_eq!(asked.len(), 2);
    for ((_, message), id) in asked.iter().zip(["q1-1-1", "q2-1-1"]) {
        let (told, details): (String, HashMap<String, OwnedVariant>) = message.body().deserialize().unwrap();
        assert_eq!((told.as_str(), &*details["question"]), (id, &zbus::Variant::from(id)));
    }
    let count = |message: &Message| changed(message).get("Questions").cloned();
    let counts = told.iter().filter(|(_, message)| name(message) == "PropertiesChanged");
    let last = counts.filter_map(|(_, message)| count(message)).next_back().unwrap();
    assert_eq!(
        u32::try_from(last).unwrap(),
        2,
        "the property is told before the question"
    );
}

/// The details that are a signal's only argument.
fn row(message: &Message) -> HashMap<String, OwnedVariant> {
    message.body().deserialize().unwrap()
}
