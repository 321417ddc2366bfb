//! What keeps the conductor's starts, with the machine's own words for it in files of the test.

use jiff::ToSpan;
use jiff::tz::TimeZone;

use super::*;
use crate::daemon::clock;
use crate::daemon::quiet::Window;
use crate::model::Span;

/// A window of the local day that began some minutes ago or begins so many minutes from now.
fn window(from: i64, to: i64) -> Window {
    let now = jiff::Timestamp::from_microsecond(clock::now().wall.0).unwrap();
    let now = now.to_zoned(TimeZone::system());
    let shown = |ahead: i64| now.checked_add(ahead.minutes()).unwrap().strftime("%H:%M").to_string();
    Window::parse(&format!("{}-{}", shown(from), shown(to))).unwrap()
}

#[tokio::test]
async fn quiet_hours_start_nothing_and_end_by_themselves() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.settings.quiet_hours = vec![window(-5, 90), window(200, 300)];
    conductor.submit(desk.submit("a")).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Pending);
    let status = conductor.engine.describe(RunId(1), clock::now()).unwrap();
    assert_eq!(status.state, RunState::Waiting);
    assert!(status.reason.starts_with("quiet hours ("), "{}", status.reason);
    let until = status.until.unwrap();
    assert_eq!(conductor.next_alarm(), Some(until));

    clock::test::forward_to(until);
    conductor.wake().await;
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);

    // What runs goes on, and the next sheet waits for the next morning.
    let begins = conductor.next_alarm().unwrap();
    clock::test::forward_to(begins);
    conductor.wake().await;
    conductor.report(first(1), started()).await;
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
    conductor.submit(desk.submit("b")).await.unwrap();
    assert_eq!(conductor.sheet_status(2, 1), SheetStatus::Pending);
}

#[tokio::test]
async fn a_conductor_that_begins_in_quiet_hours_starts_nothing() {
    let desk = Desk::new().await;
    let mut shows = desk.conductor(false).await;
    shows.submit(desk.submit("a")).await.unwrap();
    drop(shows);
    let text = format!("quiet_hours: [\"{}\"]\n", window(-5, 90));
    std::fs::write(desk.path("mozartd.yaml"), text).unwrap();
    let mut conductor = desk.conductor(true).await;
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Pending);

    std::fs::write(desk.path("mozartd.yaml"), "").unwrap();
    conductor.ask(Request::Reload).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
}

#[tokio::test]
async fn a_hold_of_which_nobody_learns_the_number_is_none() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    let (reply, asker) = tokio::sync::oneshot::channel();
    drop(asker);
    conductor.answer(Request::Inhibit("backup".to_owned(), reply)).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
}

/// The machine as the kernel tells of it, in files.
struct Machine(std::path::PathBuf);

impl Machine {
    fn of(desk: &Desk) -> Self {
        let directory = desk.paths().runtime.join("host");
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// As the kernel writes it: some of the processes wait for memory for that part of the time.
    fn memory(&self, percent: f64) {
        let line = |kind: &str| format!("{kind} avg10={percent:.2} avg60=0.00 avg300=0.00 total=1\n");
        std::fs::write(self.0.join("memory"), line("some") + &line("full")).unwrap();
    }
}

/// So much later, of which the conductor is told as by its alarm.
async fn later(conductor: &mut Conductor, seconds: i64) {
    clock::test::forward_to(clock::now().wall.plus(Span::from_secs(seconds)));
    conductor.wake().await;
}

#[tokio::test]
async fn pressure_holds_starts_and_then_refuses_submissions() {
    let desk = Desk::new().await;
    let machine = Machine::of(&desk);
    machine.memory(10.0);
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);

    machine.memory(50.0);
    later(&mut conductor, 3).await;
    conductor.submit(desk.submit("b")).await.unwrap();
    let status = conductor.engine.describe(RunId(2), clock::now()).unwrap();
    assert_eq!(status.state, RunState::Waiting);
    assert_eq!(
        status.reason,
        "the machine is short of memory (`pressure.hold_percent`)"
    );
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running, "what runs goes on");

    machine.memory(85.0);
    later(&mut conductor, 3).await;
    let refused = conductor.submit(desk.submit("c")).await.unwrap_err();
    assert!(
        matches!(&refused, ApiError::QueueFull(text) if text.contains("short of memory")),
        "{refused:?}"
    );

    // While something runs or waits for it the machine is looked at every two seconds.
    let looks_in = conductor.next_alarm().unwrap().since(clock::now().wall).as_secs_f64();
    assert!(looks_in <= 2.0, "{looks_in}");
    machine.memory(0.0);
    later(&mut conductor, 3).await;
    assert_eq!(conductor.sheet_status(2, 1), SheetStatus::Running);
    conductor.submit(desk.submit("c")).await.unwrap();
}

#[tokio::test]
async fn under_pressure_one_start_is_let_through_every_ten_seconds_while_nothing_runs() {
    let desk = Desk::new().await;
    let machine = Machine::of(&desk);
    machine.memory(50.0);
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    conductor.submit(desk.submit("b")).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
    assert!(!running_second(&conductor));
    conductor
        .ask(|reply| Request::Cancel(newest("a"), reply))
        .await
        .unwrap();
    conductor.report(first(1), Progress::NeverRan).await;
    later(&mut conductor, 7).await;
    assert!(!running_second(&conductor));
    later(&mut conductor, 3).await;
    assert!(running_second(&conductor));
}

fn running_second(conductor: &Conductor) -> bool {
    conductor.sheet_status(2, 1) == SheetStatus::Running
}

#[tokio::test]
async fn an_idle_conductor_does_not_look_at_the_machine() {
    let desk = Desk::new().await;
    let machine = Machine::of(&desk);
    machine.memory(50.0);
    let mut conductor = desk.conductor(true).await;
    assert_eq!(conductor.next_alarm(), None);
    conductor.submit(desk.submit("a")).await.unwrap();
    assert!(conductor.next_alarm().is_some());
    conductor
        .ask(|reply| Request::Pause(newest("a"), true, reply))
        .await
        .unwrap();
    conductor.report(first(1), Progress::NeverRan).await;
    conductor.drained().await;
    assert_eq!(conductor.next_alarm(), None);
}

#[tokio::test]
async fn as_many_processes_as_there_may_be_hold_starts() {
    let desk = Desk::new().await;
    let machine = Machine::of(&desk);
    let count = |processes: u32| std::fs::write(machine.0.join("pids.current"), format!("{processes}\n")).unwrap();
    count(5);
    let text = "resource_limits: {max_processes: 5}\n";
    std::fs::write(desk.path("mozartd.yaml"), text).unwrap();
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    let status = conductor.engine.describe(RunId(1), clock::now()).unwrap();
    assert_eq!(
        status.reason,
        "the sessions have 5 processes and threads (`resource_limits.max_processes`)"
    );
    count(4);
    later(&mut conductor, 3).await;
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
}

#[tokio::test]
async fn a_hold_that_was_asked_for_lasts_until_it_is_given_back() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    let one = conductor
        .ask(|reply| Request::Inhibit("backup".to_owned(), reply))
        .await
        .unwrap();
    let two = conductor
        .ask(|reply| Request::Inhibit("backup".to_owned(), reply))
        .await
        .unwrap();
    assert_ne!(one, two);
    conductor.submit(desk.submit("a")).await.unwrap();
    let status = conductor.engine.describe(RunId(1), clock::now()).unwrap();
    assert_eq!(
        (status.state, status.reason.as_str()),
        (RunState::Waiting, "held: backup")
    );
    let shown = conductor.ask(Request::Manager).await.unwrap();
    assert_eq!(shown.holds, vec![("held: backup".to_owned(), None); 2]);
    assert!(conductor.status.borrow().held, "nobody leaves meanwhile");

    conductor.ask(|reply| Request::Uninhibit(one, reply)).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Pending);
    conductor.ask(|reply| Request::Uninhibit(two, reply)).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
    conductor.ask(|reply| Request::Uninhibit(two, reply)).await.unwrap_err();
}
