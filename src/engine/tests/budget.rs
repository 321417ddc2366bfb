//! Budgets of money.

use super::world::*;
use crate::engine::rules::RunRules;
use crate::engine::{Choice, Event};
use crate::job::plan::{CostLimits, FailFast, Parallel};
use crate::model::{Cause, Code, Cost, Outcome, RunState, SheetStatus};

fn limits(per_sheet: Option<f64>, per_job: Option<f64>) -> Option<CostLimits> {
    Some(CostLimits {
        per_sheet: per_sheet.map(Cost::from_usd),
        per_job: per_job.map(Cost::from_usd),
    })
}

fn in_order(sheets: u32, per_sheet: Option<f64>, per_job: Option<f64>) -> RunRules {
    RunRules {
        cost_limits: limits(per_sheet, per_job),
        ..rules(sheets)
    }
}

fn at_once(sheets: u32, max_concurrent: u32, per_job: f64) -> RunRules {
    RunRules {
        parallel: Some(Parallel {
            max_concurrent,
            fail_fast: FailFast::Off,
            weights: Vec::new(),
        }),
        ..in_order(sheets, None, Some(per_job))
    }
}

fn costs(outcome: Outcome, usd: f64) -> Outcome {
    Outcome {
        cost: Some(Cost::from_usd(usd)),
        ..outcome
    }
}

/// The session ended itself, because it had cost too much.
fn stopped_by_budget(usd: f64) -> Outcome {
    costs(failure(Cause::Fatal, Code::E701), usd)
}

fn budgets(world: &World) -> Vec<f64> {
    let budgets = world
        .machine
        .values()
        .map(|start| start.budget.expect("a budget").as_usd());
    budgets.collect()
}

// field: cost_limits.max_cost_per_sheet
#[test]
fn a_sheet_has_what_its_earlier_attempts_left() {
    let mut world = World::with(in_order(2, Some(2.0), None));
    assert_eq!(budgets(&world), [2.0]);
    world.finish(costs(validation(0, 2), 1.5));
    world.sleep();
    assert_eq!(budgets(&world), [0.5]);
    world.finish(stopped_by_budget(0.55));
    assert_eq!(world.state(), RunState::Waiting);
    assert_eq!(
        world.status().reason,
        "question q1-1-3: sheet 1 has cost $2.05, and its budget is used up; answer it with continue or stop"
    );
    world.restart();
    world.answer(Choice::Continue);
    assert_eq!(budgets(&world), [2.0], "as much again");
    world.finish(costs(success(), 0.2));
    assert_eq!(budgets(&world), [2.0], "the next sheet has its own");
}

#[test]
fn a_session_is_started_for_the_last_cent_and_for_nothing_less() {
    let mut world = World::with(in_order(1, Some(1.0), None));
    world.finish(costs(validation(0, 2), 0.99));
    world.sleep();
    assert_eq!(budgets(&world), [0.01]);
    let mut world = World::with(in_order(1, Some(1.0), None));
    world.finish(costs(validation(0, 2), 0.991));
    assert!(world.machine.is_empty());
    assert_eq!(world.engine.questions().count(), 1);
}

// field: cost_limits.max_cost_per_job
#[test]
fn a_job_asks_when_its_budget_is_used_up() {
    let mut world = World::with(in_order(9, None, Some(3.0)));
    assert_eq!(budgets(&world), [3.0]);
    world.finish(costs(success(), 1.0));
    assert_eq!(budgets(&world), [1.5], "half as much again as the mean");
    world.finish(costs(success(), 1.0));
    assert_eq!(budgets(&world), [1.0], "what is left");
    world.finish(stopped_by_budget(1.1));
    assert_eq!(
        world.status().reason,
        "question q1-3-2: the job has cost $3.10, and its budget is used up; answer it with continue or stop"
    );
    assert!(world.machine.is_empty());
    world.answer(Choice::Continue);
    assert_eq!(world.session().attempt, attempt(3, 2));
    world.finish(costs(success(), 0.1));
    world.event(&Event::Tick);
    assert_eq!(world.state(), RunState::Running);
    world.pause(false);
    world.finish(costs(success(), 5.0));
    world.resume();
    world.answer(Choice::Stop);
    assert_eq!(world.state(), RunState::Cancelled);
}

#[test]
fn what_runs_at_once_reserves_its_share() {
    let mut world = World::with(at_once(8, 4, 4.0));
    assert_eq!(budgets(&world), [1.0; 4], "nobody knows yet what one costs");
    for sheet in 1..=4 {
        world.finish_attempt(attempt(sheet, 1), costs(success(), 0.9));
    }
    // 40 cents are left, and one at a time may have them.
    assert_eq!(world.machine.len(), 1);
    assert!(budgets(&world)[0] <= 0.41, "{:?}", budgets(&world));
    let spent: f64 = 4.0 * 0.9 + budgets(&world)[0];
    assert!(spent <= 4.0 + 1e-6);
}

#[test]
fn a_session_that_reserved_too_little_has_twice_as_much() {
    let mut world = World::with(at_once(9, 1, 100.0));
    world.finish(costs(success(), 1.0));
    assert_eq!(budgets(&world), [1.5]);
    world.finish(stopped_by_budget(1.5));
    assert_eq!(budgets(&world), [3.0]);
    assert_eq!(world.sheets()[1], SheetStatus::Running);
    assert_eq!(world.engine.questions().count(), 0);
}

#[test]
fn what_a_stopped_session_does_not_say_it_cost_is_its_budget() {
    let mut world = World::with(in_order(1, Some(1.0), None));
    world.finish(failure(Cause::Fatal, Code::E701));
    assert_eq!(world.engine.questions().count(), 1);
}

#[test]
fn a_budget_of_the_programs_own_arguments_fails_the_sheet() {
    let mut world = World::with(rules(1));
    world.finish(stopped_by_budget(1.0));
    assert_eq!(world.state(), RunState::Failed);
}

/// However dear sessions are: each exceeds what it reserved by its last turn, and the job by one turn for each at work.
#[test]
fn a_job_exceeds_its_budget_by_one_turn_for_each_session_at_work() {
    const TURN: f64 = 0.07;
    let mut world = World::with(at_once(40, 5, 10.0));
    let mut spent = 0.0;
    let mut n = 0_u32;
    while let Some(start) = world.machine.values().next().cloned() {
        n += 1;
        let wanted = 0.2 + f64::from(n * 7919 % 13) / 4.0;
        let budget = start.budget.expect("a budget").as_usd();
        let (outcome, cost) = if wanted > budget {
            (stopped_by_budget(budget + TURN), budget + TURN)
        } else {
            (costs(success(), wanted), wanted)
        };
        spent += cost;
        world.finish_attempt(start.attempt, outcome);
    }
    assert_eq!(world.engine.questions().count(), 1);
    assert!((9.9..10.0 + 5.0 * TURN).contains(&spent), "{spent}");
}
