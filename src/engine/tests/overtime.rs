//! `job_timeout_seconds`: for how long a run may have sessions at work.

use super::world::*;
use crate::engine::Verdict;
use crate::job::plan::{FailFast, Parallel};
use crate::model::{Code, RunState, SheetStatus};

/// A run whose sessions may be at work for an hour.
fn an_hour(rules: crate::engine::rules::RunRules) -> World {
    let mut world = World::new(1);
    world.allow(minutes(60));
    world.submit(1, rules);
    world
}

fn failed_for_want_of_time(world: &World, sheet: u32) -> bool {
    let state = world.sheet(sheet);
    matches!(
        state,
        crate::engine::SheetState::Done(Verdict::Failed { code: Code::E803, .. })
    )
}

#[test]
fn a_run_that_waits_and_had_more_than_it_may_have_now_fails() {
    let mut world = an_hour(rules(3));
    world.pass(minutes(20));
    world.finish(transient());
    world.allow(minutes(21));
    assert_eq!(world.state(), RunState::Waiting);
    world.allow(minutes(20));
    assert_eq!(world.state(), RunState::Failed);
    assert!(failed_for_want_of_time(&world, 1));
}

#[test]
fn sessions_at_work_for_too_long_are_stopped_and_the_run_fails() {
    let mut world = an_hour(rules(3));
    world.pass(minutes(20));
    world.finish(success());
    assert_eq!(world.sleep(), minutes(40), "the time of all its sessions counts");
    assert_eq!(world.stops.len(), 1);
    assert_eq!(world.state(), RunState::Running);
    assert!(
        world.status().reason.contains("job_timeout_seconds"),
        "{}",
        world.status().reason
    );
    world.finish(interrupted());
    assert_eq!(world.state(), RunState::Failed);
    assert!(
        world
            .status()
            .reason
            .starts_with("sheet 2: E803 the run had sessions at work for 3600 s, "),
        "{}",
        world.status().reason
    );
    assert_eq!(
        world.sheets(),
        [SheetStatus::Completed, SheetStatus::Failed, SheetStatus::Pending]
    );

    // A resume gives it an hour again.
    world.resume();
    assert_eq!(world.state(), RunState::Running);
    world.pass(minutes(59));
    assert_eq!(world.stops.len(), 1);
    world.pass(minutes(1));
    assert_eq!(world.stops.len(), 2);
}

#[test]
fn waiting_does_not_count() {
    let mut world = an_hour(rules(2));
    world.pass(minutes(30));
    world.finish(usage(Some(world.now.wall.plus(minutes(5 * 60)))));
    world.sleep();
    assert_eq!(world.state(), RunState::Running);
    world.pass(minutes(29));
    world.pause(true);
    world.finish(interrupted());
    world.pass(minutes(10 * 60));
    world.resume();
    assert_eq!((world.state(), world.stops.len()), (RunState::Running, 1));
    world.pass(minutes(1));
    assert_eq!(world.stops.len(), 2);
}

#[test]
fn a_clock_that_is_set_makes_no_time_longer_or_shorter() {
    for by in [-48, -2, 1, 30].map(|hours| minutes(60 * hours)) {
        let mut world = an_hour(rules(2));
        world.pass(minutes(20));
        world.set_clock(by);
        assert!(world.stops.is_empty());
        world.pass(minutes(39));
        assert!(world.stops.is_empty());
        world.restart();
        world.pass(minutes(1));
        assert_eq!(world.stops.len(), 1, "{by:?}");
    }
}

#[test]
fn what_ends_well_in_spite_of_it_counts() {
    let mut world = an_hour(rules(1));
    world.sleep();
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);

    let mut world = an_hour(rules(2));
    world.sleep();
    world.finish(success());
    assert_eq!(world.state(), RunState::Failed);
    assert_eq!(world.sheets(), [SheetStatus::Completed, SheetStatus::Failed]);
    assert!(failed_for_want_of_time(&world, 2));
    world.resume();
    assert_eq!(world.sheets(), [SheetStatus::Completed, SheetStatus::Running]);
}

#[test]
fn several_sheets_at_once_use_the_time_of_one() {
    let mut rules = rules(3);
    rules.parallel = Some(Parallel {
        max_concurrent: 2,
        fail_fast: FailFast::Off,
        weights: Vec::new(),
    });
    let mut world = an_hour(rules);
    world.pass(minutes(59));
    assert_eq!(world.machine.len(), 2);
    world.pass(minutes(1));
    assert_eq!(world.stops.len(), 2);
    world.finish_attempt(attempt(1, 1), interrupted());
    assert_eq!(world.state(), RunState::Running);
    world.finish_attempt(attempt(2, 1), interrupted());
    assert_eq!(world.state(), RunState::Failed);
    assert!(failed_for_want_of_time(&world, 1) && failed_for_want_of_time(&world, 2));
    assert_eq!(world.sheets()[2], SheetStatus::Pending);
}
