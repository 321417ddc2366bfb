//! Several runs: slots, order, and the gates between them.

use super::world::*;
use crate::engine::{EngineSettings, Event};
use crate::model::{AccountId, RunId, RunState, SheetNo, SheetStatus};

fn priority(priority: u8) -> crate::engine::rules::RunRules {
    crate::engine::rules::RunRules { priority, ..rules(2) }
}

fn settings(max_concurrent_jobs: u32) -> EngineSettings {
    EngineSettings {
        max_concurrent_jobs,
        ..EngineSettings::default()
    }
}

fn at_work(world: &World) -> Vec<i64> {
    world.machine.keys().map(|attempt| attempt.run.0).collect()
}

#[test]
fn no_more_runs_are_at_work_than_there_are_slots() {
    let mut world = World::new(2);
    for run in 1..=4 {
        world.submit(run, rules(2));
    }
    assert_eq!(at_work(&world), [1, 2]);
    let status = world.status_of(3);
    assert_eq!(
        (status.state, status.reason.as_str()),
        (RunState::Queued, "2 other runs at work, `max_concurrent_jobs` is 2")
    );
    let overview = world.engine.overview(world.now);
    assert_eq!(
        (overview.slots, overview.running, overview.queued, overview.waiting),
        (2, 2, 2, 0)
    );
    world.finish_of(1, success());
    assert_eq!(at_work(&world), [1, 2], "a run goes on before a later one begins");
    world.finish_of(1, success());
    assert_eq!(at_work(&world), [2, 3]);
}

// field: priority
#[test]
fn slots_go_by_priority_then_by_submission() {
    let mut world = World::new(1);
    world.submit(1, rules(1));
    for (run, value) in [(2, 5), (3, 9), (4, 5), (5, 9)] {
        world.submit(run, priority(value));
    }
    let mut order = Vec::new();
    while let Some(run) = at_work(&world).first().copied() {
        order.push(run);
        world.finish_of(run, success());
    }
    assert_eq!(order, [1, 3, 3, 5, 5, 2, 2, 4, 4]);
}

#[test]
fn waiting_and_paused_runs_hold_no_slot() {
    let mut world = World::new(1);
    world.submit(
        1,
        crate::engine::rules::RunRules {
            account: None,
            ..rules(2)
        },
    );
    world.submit(2, rules(2));
    world.submit(3, rules(2));
    world.finish_of(1, transient());
    assert_eq!(
        (world.status_of(1).state, at_work(&world)),
        (RunState::Waiting, vec![2])
    );
    world.event(&Event::PauseRequested {
        run: RunId(2),
        now: false,
        why: crate::engine::event::PauseWhy::Person,
    });
    assert_eq!(at_work(&world), [2], "its session finishes first");
    world.finish_of(2, success());
    assert_eq!((world.status_of(2).state, at_work(&world)), (RunState::Paused, vec![3]));
    let told = world.engine.overview(world.now);
    assert_eq!((told.running, told.queued, told.waiting, told.paused), (1, 0, 1, 1));
    world.sleep();
    assert_eq!(
        world.status_of(1).state,
        RunState::Queued,
        "its wait is over and the slot is taken"
    );
    let (status, reason, until) = world
        .engine
        .sheet_status(RunId(1), SheetNo(1), world.now)
        .expect("is a sheet");
    assert_eq!(
        (status, reason.as_str(), until),
        (
            SheetStatus::Waiting,
            "1 other run at work, `max_concurrent_jobs` is 1",
            None
        )
    );
    world.finish_of(3, success());
    assert_eq!(at_work(&world), [1], "it was submitted first");
}

#[test]
fn a_limit_holds_every_run_of_its_account_and_no_other() {
    let mut world = World::new(5);
    world.submit(1, rules(2));
    world.submit(2, rules(2));
    world.submit(
        3,
        crate::engine::rules::RunRules {
            account: Some(AccountId("another".into())),
            ..rules(2)
        },
    );
    world.submit(
        4,
        crate::engine::rules::RunRules {
            account: None,
            ..rules(2)
        },
    );
    let reset = START.plus(minutes(30));
    world.finish_of(1, usage(Some(reset)));
    for run in 2..=4 {
        world.finish_of(run, success());
    }
    assert_eq!(at_work(&world), [3, 4]);
    assert_eq!(world.status_of(2).reason, "usage limit (five_hour)");
    world.submit(5, rules(1));
    assert_eq!(world.status_of(5).state, RunState::Waiting);
    assert_eq!(world.status_of(5).until, world.status_of(1).until);
    world.sleep();
    assert_eq!(at_work(&world), [1, 3, 4], "one finds out");
    world.event(&Event::AttemptAnswered {
        attempt: world.session_of(RunId(1)).attempt,
    });
    assert_eq!(at_work(&world), [1, 2, 3, 4], "and opens it for twice as many");
    world.finish_of(2, success());
    assert_eq!(at_work(&world), [1, 3, 4, 5]);
}

#[test]
fn of_two_limits_the_longer_one_counts() {
    let mut world = World::new(5);
    world.submit(1, rules(1));
    world.submit(2, rules(1));
    world.finish_of(1, usage(None));
    let until = world.status_of(1).until;
    // The same window, told with an earlier end: the gate does not open earlier for it.
    world.finish_of(2, usage(Some(START.plus(minutes(5)))));
    assert_eq!(world.status_of(2).until, until);
    assert_eq!(world.engine.gates().count(), 1);
    assert_eq!(world.sleep(), minutes(60));
    assert_eq!(at_work(&world), [1]);
    world.finish_of(1, success());
    assert_eq!(at_work(&world), [2]);
}

#[test]
fn more_slots_are_used_at_once_and_fewer_as_sessions_end() {
    let mut world = World::new(1);
    for run in 1..=3 {
        world.submit(run, rules(2));
    }
    world.set(settings(3));
    assert_eq!(at_work(&world), [1, 2, 3]);
    world.set(settings(1));
    assert_eq!(at_work(&world), [1, 2, 3]);
    world.finish_of(2, success());
    world.finish_of(1, success());
    assert_eq!(at_work(&world), [3]);
    world.finish_of(3, success());
    assert_eq!(at_work(&world), [1]);
}

#[test]
fn idle_sheets_say_why() {
    let mut world = World::with(rules(3));
    let reason = |world: &World, sheet| {
        world
            .engine
            .sheet_status(RUN, SheetNo(sheet), world.now)
            .expect("is a sheet")
            .1
    };
    assert_eq!(
        (reason(&world, 1).as_str(), reason(&world, 3).as_str()),
        ("starts", "sheet 1 comes first")
    );
    let (attempt, at) = (attempt(1, 1), START);
    world.event(&Event::AttemptStarted {
        attempt,
        at,
        invocation: None,
    });
    assert_eq!(reason(&world, 1), "");
    world.finish(transient());
    assert_eq!(reason(&world, 1), "backoff after E103 (overloaded)");
    world.sleep();
    world.finish(validation(1, 2));
    assert_eq!(world.status().reason, "completion attempt after E201 (file missing)");
    world.pause(false);
    assert_eq!(reason(&world, 1), "the run is paused");
    world.cancel();
    assert_eq!(reason(&world, 1), "");

    let mut world = World::with(rules(1));
    world.pause(true);
    assert_eq!(reason(&world, 1), "is being stopped");
}
