//! Several sheets at once, sheets that wait for others, and runs that share what there is.

use super::world::*;
use crate::engine::event::EngineSettings;
use crate::engine::rules::RunRules;
use crate::engine::{Engine, Event, Fact, FactKind, SheetState, Verdict};
use crate::job::plan::{Dependency, FailFast, Parallel, SheetRange};
use crate::model::{AttemptRef, Cause, Code, JobName, RunId, RunNo, RunState, SheetNo, SheetStatus};

use SheetStatus::{Cancelled, Completed, Failed, Pending, Running, Skipped, Waiting};

fn range(first: u32, last: u32) -> SheetRange {
    (SheetNo(first), SheetNo(last)).into()
}

fn each_on_all(of: SheetRange, on: SheetRange) -> Dependency {
    Dependency {
        of,
        on,
        pairwise: false,
    }
}

fn at_once(sheets: u32, max_concurrent: u32, fail_fast: FailFast) -> RunRules {
    RunRules {
        parallel: Some(Parallel {
            max_concurrent,
            fail_fast,
            weights: Vec::new(),
        }),
        ..rules(sheets)
    }
}

/// 1, then 2 to 4, then 5.
fn diamond(fail_fast: FailFast) -> RunRules {
    RunRules {
        dependencies: vec![
            each_on_all(range(2, 4), range(1, 1)),
            each_on_all(range(5, 5), range(2, 4)),
        ],
        ..at_once(5, 3, fail_fast)
    }
}

fn fatal() -> crate::model::Outcome {
    failure(Cause::Fatal, Code::E306)
}

fn reason(world: &World, sheet: u32) -> String {
    world
        .engine
        .sheet_status(RUN, SheetNo(sheet), world.now)
        .expect("is a sheet")
        .1
}

fn of(world: &World, sheet: u32) -> AttemptRef {
    let mut running = world.machine.keys().filter(|attempt| attempt.sheet.0 == sheet);
    *running.next().expect("a session of the sheet runs")
}

fn end(world: &mut World, sheet: u32, outcome: crate::model::Outcome) {
    let attempt = of(world, sheet);
    world.finish_attempt(attempt, outcome);
}

#[test]
fn a_session_whose_end_is_heard_with_a_failure_is_not_taken_for_stopped_by_it() {
    let mut world = World::with(at_once(4, 3, FailFast::Cancel));
    let (first, second, third) = (of(&world, 1), of(&world, 2), of(&world, 3));
    world.finish_together([(first, fatal()), (second, validation(2, 3)), (third, success())]);
    assert_eq!(world.sheets(), [Failed, Cancelled, Completed, Pending]);
    assert_eq!(world.stops, [], "they had ended");
    let told = world.journal.iter().find_map(|fact| match &fact.kind {
        FactKind::AttemptEnded { attempt, outcome } if *attempt == second => outcome.failure.as_ref(),
        _ => None,
    });
    assert_eq!(
        told.map(|failure| failure.cause),
        Some(Cause::Validation),
        "its own end"
    );
    assert_eq!(world.state(), RunState::Failed);
}

#[test]
fn what_never_ran_is_started_anew_unless_a_failure_of_the_same_moment_forbids_it() {
    for fail_fast in [FailFast::Off, FailFast::Hold, FailFast::Cancel] {
        for first in [true, false] {
            let mut world = World::with(at_once(4, 2, fail_fast));
            let (never, failed) = (of(&world, 1), of(&world, 2));
            world.machine.clear();
            let mut events = [
                Event::NeverRan { attempt: never },
                Event::AttemptFinished {
                    attempt: failed,
                    outcome: fatal(),
                },
            ];
            if !first {
                events.reverse();
            }
            let starts = world.starts.len();
            world.events(&events);
            assert_eq!(world.stops, [], "there is nothing to stop");
            let goes_on = fail_fast == FailFast::Off;
            assert_eq!(world.machine.contains_key(&never), goes_on, "{fail_fast:?}, {first}");
            // Itself, and the next sheet in the place of the one that failed.
            let begun = if goes_on { 2 } else { 0 };
            assert_eq!(world.starts.len() - starts, begun, "{fail_fast:?}, {first}");
            assert_eq!(world.state() == RunState::Failed, !goes_on, "{fail_fast:?}, {first}");
        }
    }
}

#[test]
fn nothing_starts_that_what_is_heard_together_forbids() {
    let of_one_account = RunRules {
        account: Some(crate::model::AccountId("one".to_owned())),
        ..at_once(6, 3, FailFast::Off)
    };
    let mut world = World::with(of_one_account);
    let (first, second, third) = (of(&world, 1), of(&world, 2), of(&world, 3));
    let starts = world.starts.len();
    world.finish_together([
        (first, success()),
        (second, usage(Some(START.plus(secs(3600))))),
        (third, success()),
    ]);
    assert_eq!(
        world.sheets(),
        [Completed, Waiting, Completed, Pending, Pending, Pending]
    );
    assert_eq!(
        world.starts.len(),
        starts,
        "one after the other the first end would have started a session"
    );
}

#[test]
fn a_sheet_starts_when_what_it_waits_for_is_done() {
    let mut world = World::with(diamond(FailFast::Hold));
    assert_eq!(world.sheets(), [Running, Pending, Pending, Pending, Pending]);
    assert_eq!(reason(&world, 3), "waits for sheet 1");
    end(&mut world, 1, success());
    assert_eq!(world.sheets(), [Completed, Running, Running, Running, Pending]);
    end(&mut world, 3, success());
    end(&mut world, 2, success());
    assert_eq!(reason(&world, 5), "waits for sheet 4");
    end(&mut world, 4, success());
    end(&mut world, 5, success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn a_place_is_free_as_soon_as_a_sheet_ends() {
    let mut world = World::with(at_once(6, 2, FailFast::Hold));
    assert_eq!(world.machine.len(), 2);
    assert_eq!(reason(&world, 3), "2 sheets at work, `parallel.max_concurrent` is 2");
    end(&mut world, 2, success());
    assert_eq!(world.sheets(), [Running, Completed, Running, Pending, Pending, Pending]);
    // A sheet between two attempts leaves its place to the others.
    end(&mut world, 1, transient());
    assert_eq!(world.sheets(), [Waiting, Completed, Running, Running, Pending, Pending]);
    assert_eq!(reason(&world, 1), "backoff after E103 (overloaded)");
    world.pass(secs(10));
    assert_eq!(world.machine.len(), 2);
    end(&mut world, 3, success());
    assert_eq!(world.sheets()[0], Running, "what was begun goes before what was not");
}

#[test]
fn without_parallel_dependencies_only_change_the_order() {
    let mut world = World::with(RunRules {
        dependencies: vec![each_on_all(range(1, 1), range(3, 3))],
        ..rules(3)
    });
    assert_eq!(world.sheets(), [Pending, Running, Pending]);
    world.finish(success());
    assert_eq!(world.sheets(), [Pending, Completed, Running]);
    world.finish(success());
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn who_waits_for_a_failed_sheet_is_skipped_and_the_rest_gets_its_verdict() {
    let mut world = World::with(diamond(FailFast::Off));
    end(&mut world, 1, success());
    end(&mut world, 2, fatal());
    assert_eq!(world.sheets(), [Completed, Failed, Running, Running, Skipped]);
    assert_eq!(reason(&world, 5), "blocked by sheet 2");
    end(&mut world, 3, success());
    assert_eq!(world.state(), RunState::Running);
    end(&mut world, 4, success());
    assert_eq!(world.state(), RunState::Failed);

    world.resume();
    assert_eq!(world.sheets(), [Completed, Running, Completed, Completed, Pending]);
    world.finish(success());
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn fail_fast_lets_running_sheets_end_and_starts_no_other() {
    let mut world = World::with(at_once(5, 3, FailFast::Hold));
    end(&mut world, 2, fatal());
    assert_eq!(world.sheets(), [Running, Failed, Running, Pending, Pending]);
    assert_eq!(reason(&world, 4), "sheet 2 has failed; `resume` goes on");
    end(&mut world, 1, success());
    // What would be tried again is not; a resume opens it anew.
    end(&mut world, 3, transient());
    assert_eq!(world.sheets(), [Completed, Failed, Cancelled, Pending, Pending]);
    assert_eq!(world.state(), RunState::Failed);
    world.resume();
    assert_eq!(world.sheets(), [Completed, Running, Running, Running, Pending]);
    assert!(world.stops.is_empty());
}

#[test]
fn a_sheet_between_two_attempts_does_not_hold_up_the_end_of_a_failing_run() {
    let mut world = World::with(at_once(2, 2, FailFast::Hold));
    end(&mut world, 1, transient());
    end(&mut world, 2, fatal());
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Cancelled, Failed], RunState::Failed)
    );
}

#[test]
fn fail_fast_cancel_stops_what_runs() {
    let mut world = World::with(at_once(4, 3, FailFast::Cancel));
    end(&mut world, 2, fatal());
    assert_eq!(world.stops.len(), 2);
    end(&mut world, 1, success());
    end(&mut world, 3, interrupted());
    assert_eq!(world.sheets(), [Completed, Failed, Cancelled, Pending]);
    assert_eq!(world.state(), RunState::Failed);
}

#[test]
fn a_skipped_sheet_satisfies_who_waits_for_it() {
    let world = World::with(RunRules {
        start_sheet: SheetNo(2),
        ..diamond(FailFast::Hold)
    });
    assert_eq!(world.sheets(), [Skipped, Running, Running, Running, Pending]);
}

#[test]
fn pairs_wait_for_each_other_alone() {
    let mut world = World::with(RunRules {
        dependencies: vec![Dependency {
            of: range(3, 4),
            on: range(1, 2),
            pairwise: true,
        }],
        ..at_once(4, 4, FailFast::Off)
    });
    end(&mut world, 2, success());
    assert_eq!(world.sheets(), [Running, Completed, Pending, Running]);
    end(&mut world, 1, fatal());
    assert_eq!(world.sheets(), [Failed, Completed, Skipped, Running]);
}

#[test]
fn what_needs_a_sheet_that_is_retried_waits_for_it_again_though_it_has_begun() {
    let mut world = World::with(RunRules {
        dependencies: vec![each_on_all(range(1, 1), range(3, 3))],
        ..at_once(3, 3, FailFast::Off)
    });
    end(&mut world, 3, success());
    end(&mut world, 1, transient());
    world.pause(false);
    end(&mut world, 2, success());
    assert_eq!(world.sheets(), [Waiting, Completed, Completed]);
    world.event(&Event::RetryRequested {
        run: RUN,
        from: SheetNo(3),
    });
    world.pass(minutes(1));
    assert_eq!(world.sheets(), [Pending, Completed, Running]);
    end(&mut world, 3, success());
    assert_eq!(world.sheets(), [Running, Completed, Completed]);
}

// field: parallel.weights
#[test]
fn a_heavy_sheet_takes_more_places_and_is_not_passed_by() {
    let mut heavy = at_once(4, 4, FailFast::Hold);
    heavy.parallel.as_mut().expect("is parallel").weights = vec![(SheetNo(1), 3), (SheetNo(4), 99)];
    let mut world = World::new(5);
    world.set(EngineSettings {
        max_concurrent_sheets: 4,
        ..EngineSettings::default()
    });
    world.submit(1, heavy);
    assert_eq!(world.sheets(), [Running, Running, Pending, Pending]);
    world.submit(2, rules(1));
    assert_eq!(world.status_of(2).state, RunState::Queued);
    end(&mut world, 1, success());
    assert_eq!(world.sheets(), [Completed, Running, Running, Pending]);
    assert_eq!(world.machine.len(), 3);
    for run in [1, 1, 2] {
        world.finish_of(run, success());
    }
    assert_eq!(
        world.sheets()[3],
        Running,
        "heavier than all places together, it runs alone"
    );
}

#[test]
fn an_account_has_so_many_sessions_at_once() {
    let mut world = World::new(5);
    world.set(EngineSettings {
        max_sessions_per_account: Some(2),
        ..EngineSettings::default()
    });
    world.submit(1, at_once(4, 4, FailFast::Hold));
    assert_eq!(world.machine.len(), 2);
    assert_eq!(
        reason(&world, 3),
        "2 sessions of the account at work, `max_sessions_per_account` is 2"
    );
    world.submit(
        2,
        RunRules {
            account: None,
            ..at_once(4, 4, FailFast::Hold)
        },
    );
    assert_eq!(world.machine.len(), 6, "another account, or none, has its own");
}

/// The next free place goes to the run with less at work, however many sheets the other one has left.
#[test]
fn a_long_run_does_not_starve_a_short_one() {
    let mut world = World::new(5);
    world.submit(1, at_once(1000, 100, FailFast::Hold));
    assert_eq!(world.machine.len(), 10);
    world.submit(2, at_once(5, 5, FailFast::Hold));
    let at_work = |world: &World, run| world.machine.keys().filter(|attempt| attempt.run == RunId(run)).count();
    for places in 1..=5 {
        world.finish_of(1, success());
        assert_eq!(at_work(&world, 2), places);
    }
    for _ in 0..5 {
        world.finish_of(2, success());
    }
    assert_eq!(
        (world.status_of(2).state, at_work(&world, 1)),
        (RunState::Completed, 10)
    );
}

/// One slot, taken by a run that is never idle: after ten minutes it is the other's turn, and so on.
#[test]
fn a_queued_run_has_its_turn_in_the_end() {
    let mut world = World::new(1);
    let tenth = |priority| RunRules {
        priority,
        ..at_once(1000, 2, FailFast::Hold)
    };
    world.submit(1, tenth(10));
    world.submit(2, tenth(1));
    let mut minute = 0;
    while !world.machine.keys().any(|attempt| attempt.run == RunId(2)) {
        minute += 1;
        world.now.wall = world.now.wall.plus(minutes(1));
        world.now.boot += minutes(1).0;
        world.finish_of(1, success());
    }
    // Priority 11 after 100 minutes, and then the slot has to be empty.
    assert_eq!(minute, 101);
}

#[test]
fn a_higher_priority_gets_the_slot_although_the_other_run_could_go_on() {
    let mut world = World::new(1);
    world.submit(1, at_once(10, 2, FailFast::Hold));
    world.submit(
        2,
        RunRules {
            priority: 6,
            ..rules(1)
        },
    );
    world.finish_of(1, success());
    assert_eq!(
        world.status().sheets_running,
        1,
        "nothing of the lower priority starts meanwhile"
    );
    assert_eq!(
        world.status_of(2).reason,
        "1 other run at work, `max_concurrent_jobs` is 1"
    );
    world.finish_of(1, success());
    assert_eq!(world.status_of(2).state, RunState::Running);
}

fn run_through(rules: RunRules) -> (Engine, usize) {
    let world = World::new(1);
    let (mut engine, now) = (world.engine, world.now);
    let mut decide = |event: &Event| {
        let decision = engine.decide(now, event);
        decision.facts.iter().for_each(|fact: &Fact| engine.apply(fact));
        decision.commands
    };
    let mut commands = decide(&Event::Submitted {
        run: RUN,
        job: JobName::new("long").expect("is a name"),
        no: RunNo(1),
        rules,
        completed: Vec::new(),
    });
    let mut sessions = 0;
    while let Some(crate::engine::Command::StartAttempt(start)) = commands.pop() {
        sessions += 1;
        commands.extend(decide(&Event::AttemptFinished {
            attempt: start.attempt,
            outcome: success(),
        }));
    }
    (engine, sessions)
}

#[test]
fn a_chain_of_a_hundred_thousand_is_run_and_is_blocked_in_a_moment() {
    let chain = RunRules {
        dependencies: vec![Dependency {
            of: range(2, 100_000),
            on: range(1, 99_999),
            pairwise: true,
        }],
        ..at_once(100_000, 100, FailFast::Off)
    };
    let (engine, sessions) = run_through(chain.clone());
    let now = World::new(1).now;
    assert_eq!(sessions, 100_000);
    assert_eq!(
        engine.describe(RUN, now).map(|status| status.state),
        Some(RunState::Completed)
    );

    let mut world = World::with(chain);
    world.machine.clear();
    let decision = world.engine.decide(
        world.now,
        &Event::AttemptFinished {
            attempt: attempt(1, 1),
            outcome: fatal(),
        },
    );
    assert_eq!(
        decision.facts.len(),
        100_002,
        "an end, a verdict for each sheet, and the run's"
    );
}

#[test]
fn ten_thousand_that_wait_for_ten_thousand_take_no_hundred_million_steps() {
    let (engine, sessions) = run_through(RunRules {
        dependencies: vec![
            each_on_all(range(2, 10_001), range(1, 1)),
            each_on_all(range(10_002, 20_001), range(2, 10_001)),
            each_on_all(range(20_002, 20_002), range(10_002, 20_001)),
        ],
        ..at_once(20_002, 10, FailFast::Hold)
    });
    assert_eq!(sessions, 20_002);
    let last = engine.run(RUN).and_then(|run| run.sheet(SheetNo(20_002)));
    assert_eq!(
        last.map(|sheet| sheet.state()),
        Some(&SheetState::Done(Verdict::Completed))
    );
}

/// Between runs of one priority the place of a run that begins is no reason for one at work not to go on.
#[test]
fn who_lacks_a_slot_holds_up_no_run_of_its_own_priority() {
    let mut world = World::new(1);
    world.submit(1, at_once(2, 2, FailFast::Off));
    assert_eq!(world.machine.len(), 2);
    world.submit(2, rules(1));
    end(&mut world, 1, transient());
    assert_eq!(world.machine.len(), 1);
    world.sleep();
    assert_eq!(world.machine.len(), 2, "its sheet is tried again");
    assert_eq!(world.status_of(2).state, RunState::Queued);
}

#[test]
fn of_several_waits_the_one_that_ends_first_wakes_the_run() {
    let mut world = World::with(at_once(2, 2, FailFast::Off));
    end(&mut world, 1, transient());
    assert_eq!(world.sleep(), secs(10));
    end(&mut world, 1, transient());
    end(&mut world, 2, validation(0, 2));
    assert_eq!(world.status().reason, "retry after E201 (file missing)");
    assert_eq!(world.sleep(), secs(10));
    assert_eq!(world.sheets(), [Waiting, Running]);
    assert_eq!(world.sleep(), secs(10));
    assert_eq!(world.sheets(), [Running, Running]);
}

#[test]
fn of_waits_that_end_together_the_lowest_sheets_is_told() {
    let mut world = World::with(at_once(2, 2, FailFast::Off));
    end(&mut world, 1, transient());
    end(&mut world, 2, validation(0, 2));
    let status = world.status();
    assert_eq!(status.state, RunState::Waiting);
    assert_eq!(status.reason, "backoff after E103 (overloaded)");
}
