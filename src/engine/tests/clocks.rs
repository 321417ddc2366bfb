//! What the wall clock does to waits: nothing to lengths of time, everything to moments of the calendar.

use proptest::prelude::*;

use super::world::*;
use crate::engine::{Command, Decision, Event, FactKind};
use crate::model::{RunState, Span};

const HOURS: [i64; 4] = [-48, -2, 1, 30];

fn hours(hours: i64) -> Span {
    minutes(60 * hours)
}

fn starts(decision: &Decision) -> bool {
    matches!(decision.commands[..], [Command::StartAttempt(_)])
}

/// A run whose first sheet waits 10 s after a transient fault.
fn backing_off() -> World {
    let mut world = World::with(rules(2));
    world.finish(transient());
    world
}

#[test]
fn a_length_of_time_stays_as_long_as_it_is() {
    for by in HOURS.map(hours) {
        let mut world = backing_off();
        world.pass(secs(4));
        assert!(!starts(&world.set_clock(by)));
        let until = world.status().until.expect("it waits");
        assert_eq!(until.since(world.now.wall), secs(6));
        assert!(!starts(&world.pass(secs(5))));
        assert!(starts(&world.pass(secs(1))));
        assert_eq!(world.starts.len(), 2);
    }
}

#[test]
fn so_does_the_pause_between_sheets() {
    for by in HOURS.map(hours) {
        let mut rules = rules(2);
        rules.pause_between_sheets = secs(10);
        let mut world = World::with(rules);
        world.finish(success());
        assert!(!starts(&world.set_clock(by)));
        assert!(!starts(&world.pass(secs(9))));
        assert!(starts(&world.pass(secs(1))));
    }
}

#[test]
fn so_does_a_gate_without_a_reset() {
    for by in HOURS.map(hours) {
        let mut world = World::with(rules(1));
        world.finish(throttle(Some(secs(30))));
        assert!(!starts(&world.set_clock(by)));
        assert_eq!(world.sleep(), secs(30));
        assert_eq!(world.state(), RunState::Running);
    }
}

#[test]
fn a_gate_without_a_reset_that_is_past_stays_so_and_knows_who_went_through() {
    for by in HOURS.map(hours) {
        let mut world = World::with(rules(2));
        world.finish(throttle(Some(secs(30))));
        world.sleep();
        assert_eq!(world.starts.len(), 2, "the probe");
        let before: Vec<_> = world.engine.gates.values().cloned().collect();
        world.set_clock(by);
        let after: Vec<_> = world.engine.gates.values().cloned().collect();
        assert_eq!(after.len(), 1);
        assert!(after[0].until <= world.now.wall, "it closed again");
        assert_eq!(
            (after[0].places, &after[0].through),
            (before[0].places, &before[0].through)
        );
        world.finish(success());
        assert_eq!(world.state(), RunState::Running);
        assert_eq!(world.starts.len(), 3, "what waits goes on at once");
    }
}

#[test]
fn a_reset_is_a_moment_of_the_calendar() {
    let waiting = || {
        let mut world = World::with(rules(1));
        world.finish(usage(Some(START.plus(hours(3)))));
        world
    };
    let mut world = waiting();
    let until = world.status().until.expect("it waits");
    world.set_clock(hours(-2));
    assert_eq!(
        world.status().until,
        Some(until),
        "it is as long as it takes the calendar to get there"
    );
    assert!(!starts(&world.pass(hours(3))));
    world.sleep();
    assert!(world.now.wall >= until);
    assert_eq!(world.starts.len(), 2);

    let mut world = waiting();
    assert!(starts(&world.set_clock(hours(4))), "the limit is over");
}

#[test]
fn a_limit_that_ended_during_a_suspend_is_over() {
    let mut world = World::with(rules(1));
    world.finish(usage(Some(START.plus(hours(3)))));
    assert!(starts(&world.pass(hours(9))));
    let mut world = backing_off();
    assert!(starts(&world.pass(hours(9))));
}

#[test]
fn small_corrections_are_no_steps_until_they_add_up() {
    let moved = |decision: &Decision| {
        decision
            .facts
            .iter()
            .any(|fact| matches!(fact.kind, FactKind::WaitsMoved { .. }))
    };
    let mut world = backing_off();
    assert!(!moved(&world.set_clock(Span(600_000))));
    assert!(moved(&world.set_clock(Span(600_000))));
    assert!(!moved(&world.set_clock(Span(600_000))));
}

/// Nobody saw the clock being set, but time does not go back.
#[test]
fn a_clock_set_back_while_no_conductor_ran_makes_no_wait_longer() {
    for sheet_waits in [true, false] {
        let mut world = World::with(rules(1));
        world.finish(if sheet_waits {
            transient()
        } else {
            throttle(Some(secs(10)))
        });
        world.now.wall = world.now.wall.plus(hours(-5));
        world.restart();
        assert!(world.sleep() <= secs(10));
        assert_eq!(world.starts.len(), 2);
    }
}

#[test]
fn nothing_is_recorded_where_nothing_waits_or_runs() {
    let mut world = World::with(rules(2));
    world.finish(success());
    world.finish(success());
    assert_eq!(world.set_clock(hours(7)), Decision::default());
    // Without a pause between sheets there is none to move.
    let mut world = World::with(rules(2));
    world.pause(false);
    world.finish(success());
    assert_eq!(world.set_clock(hours(7)), Decision::default());
}

proptest! {
    /// However the clock is set: the second attempt starts once, within a second of its 10 s.
    #[test]
    fn a_retry_starts_once_and_in_time(steps in prop::collection::vec((0..1_500_i64, -90_000_000..90_000_000_i64), 0..12)) {
        let mut world = backing_off();
        let begun = world.now.boot;
        let mut started = None;
        for (pass, step) in steps {
            world.pass(Span(pass * 1000));
            if world.starts.len() > 1 {
                started.get_or_insert(world.now.boot - begun);
            }
            world.set_clock(Span(step));
        }
        while world.starts.len() < 2 {
            world.sleep();
        }
        let took = started.unwrap_or(world.now.boot - begun);
        prop_assert_eq!(world.starts.len(), 2);
        prop_assert!(took >= 9_000_000, "after {} µs", took);
        // What passed in the op in which it became due is not its delay.
        prop_assert!(took <= 12_500_000, "after {} µs", took);
        world.event(&Event::Tick);
        prop_assert_eq!(world.starts.len(), 2);
    }
}
