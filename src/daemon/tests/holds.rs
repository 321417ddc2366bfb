//! What keeps the conductor's starts, with the machine's own words for it in files of the test.

use jiff::ToSpan;
use jiff::tz::TimeZone;

use super::*;
use crate::daemon::clock;
use crate::daemon::quiet::Window;

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
