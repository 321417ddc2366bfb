//! Another plan for a run, and verdicts without a session.

use super::world::*;
use crate::engine::event::NewPlan;
use crate::engine::rules::RunRules;
use crate::engine::{Choice, Decision, Event, Refusal, SheetState, Verdict};
use crate::job::plan::{CostLimits, Dependency, FailFast, OnLimit, Parallel, SheetRange};
use crate::model::{AccountId, Ask, AttemptKind, Cause, Code, Cost, RunState, SheetNo, SheetStatus};

use SheetStatus::{Completed, Failed, Pending, Running, Skipped, Waiting};

pub(super) fn give(world: &mut World, rules: RunRules, other_work: &[u32], resume: bool) -> Decision {
    let plan = NewPlan {
        same_sessions: rules.resumable,
        rules,
        other_work: other_work.iter().copied().map(SheetNo).collect(),
    };
    let plan = Some(Box::new(plan));
    world.event(&Event::ModifyRequested { run: RUN, plan, resume })
}

fn refused(decision: &Decision) -> String {
    decision.refusal.as_ref().map(Refusal::text).unwrap_or_default()
}

fn recover(world: &mut World, sheets: &[u32]) -> Decision {
    let attempts = |no: u32| {
        world
            .engine
            .run(RUN)
            .and_then(|run| run.sheet(SheetNo(no)))
            .expect("a sheet")
            .attempts()
    };
    let passed = sheets.iter().map(|no| (SheetNo(*no), attempts(*no))).collect();
    world.event(&Event::RecoverRequested { run: RUN, passed })
}

fn waits_for(of: u32, on: u32) -> Dependency {
    let one = |no| SheetRange::from((SheetNo(no), SheetNo(no)));
    Dependency {
        of: one(of),
        on: one(on),
        pairwise: false,
    }
}

/// All at once, as far as they do not wait for each other; a failure touches no other sheet.
fn free(sheets: u32, dependencies: &[Dependency]) -> RunRules {
    RunRules {
        parallel: Some(Parallel {
            max_concurrent: 9,
            fail_fast: FailFast::Off,
            weights: Vec::new(),
        }),
        dependencies: dependencies.to_vec(),
        ..rules(sheets)
    }
}

/// The same, but a failure cancels all that is at work.
fn cancelling(sheets: u32, dependencies: &[Dependency]) -> RunRules {
    let mut rules = free(sheets, dependencies);
    rules.parallel.as_mut().expect("side by side").fail_fast = FailFast::Cancel;
    rules
}

fn end(world: &mut World, sheet: u32, outcome: crate::model::Outcome) {
    let running = world.machine.keys().find(|attempt| attempt.sheet.0 == sheet);
    let attempt = *running.expect("a session of the sheet runs");
    world.finish_attempt(attempt, outcome);
}

fn hopeless() -> crate::model::Outcome {
    failure(Cause::Fatal, Code::E306)
}

#[test]
fn an_attempt_keeps_its_plan_and_the_next_has_the_new_one_through_restarts() {
    let mut world = World::with(rules(2));
    assert_eq!(world.session().revision, 0);
    let mut patient = rules(2);
    patient.retry.max_retries = 9;
    give(&mut world, patient.clone(), &[], false);
    give(&mut world, RunRules { priority: 9, ..patient }, &[], false);
    let decision = world.restart();
    let adopted = decision.commands.iter().find_map(|command| match command {
        crate::engine::Command::AdoptAttempt(start) => Some(start.revision),
        crate::engine::Command::StartAttempt(_) | crate::engine::Command::StopAttempt { .. } => None,
    });
    assert_eq!(adopted, Some(0), "what is looked for was started with the first plan");
    // The machine knew nothing of it, so it was started once more: the same attempt, the same plan.
    assert_eq!(world.session().revision, 0);
    world.finish(validation(0, 2));
    world.sleep();
    assert_eq!((world.session().revision, world.session().attempt), (2, attempt(1, 2)));
}

#[test]
fn what_was_used_stays_used_and_the_new_budget_counts() {
    let mut world = World::with(rules(1));
    for _ in 0..2 {
        world.finish(validation(0, 2));
        world.sleep();
    }
    let mut strict = rules(1);
    strict.retry.max_retries = 2;
    give(&mut world, strict, &[], false);
    world.finish(validation(0, 2));
    assert_eq!(world.state(), RunState::Failed, "two retries were made already");
}

#[test]
fn a_session_is_begun_anew_where_the_new_plan_cannot_resume_it() {
    let mut world = World::with(rules(1));
    world.finish(validation(1, 2));
    let moved = NewPlan {
        rules: rules(1),
        other_work: Vec::new(),
        same_sessions: false,
    };
    let plan = Some(Box::new(moved));
    world.event(&Event::ModifyRequested {
        run: RUN,
        plan,
        resume: false,
    });
    world.sleep();
    assert_eq!(
        shape(&world.session()),
        (1, 2, AttemptKind::Retry, Ask::TaskAgain, None)
    );
}

#[test]
fn sheets_come_and_go_and_what_they_used_is_remembered() {
    let mut world = World::with(rules(3));
    world.finish(success());
    world.finish(transient());
    give(&mut world, rules(1), &[], false);
    assert_eq!((world.sheets(), world.state()), (vec![Completed], RunState::Completed));

    let mut world = World::with(rules(3));
    world.finish(success());
    world.finish(transient());
    world.pause(false);
    give(&mut world, rules(2), &[], false);
    give(&mut world, rules(5), &[], false);
    assert_eq!(world.sheets(), [Completed, Waiting, Pending, Pending, Pending]);
}

#[test]
fn who_has_begun_is_not_made_to_wait_for_what_is_not_done() {
    let mut world = World::with(rules(2));
    world.finish(transient());
    let later = RunRules {
        dependencies: vec![waits_for(1, 2)],
        ..rules(2)
    };
    let refusal = refused(&give(&mut world, later, &[], false));
    assert!(refusal.contains("sheet 1 of job-1#1 has begun"), "{refusal}");
}

#[test]
fn numbers_of_attempts_go_on_when_a_sheet_comes_back() {
    let mut world = World::with(free(3, &[]));
    end(&mut world, 3, hopeless());
    give(&mut world, free(2, &[]), &[], false);
    assert_eq!(world.sheets(), [Running, Running]);
    give(&mut world, free(3, &[]), &[], false);
    let again = world.machine.keys().find(|attempt| attempt.sheet == SheetNo(3));
    assert_eq!(again, Some(&attempt(3, 2)));
}

#[test]
fn what_is_done_or_at_work_is_neither_dropped_nor_made_other_work() {
    let mut world = World::with(rules(3));
    world.finish(success());
    for (rules, other, what) in [
        (
            rules(1),
            vec![],
            "sheet 2 of job-1#1 is at work, and the new plan has only 1 sheet;",
        ),
        (rules(0), vec![], "sheet 1 of job-1#1 is completed"),
        (
            rules(3),
            vec![1, 3],
            "sheet 1 of job-1#1 is completed, and in the new plan that number is other work",
        ),
        (
            rules(3),
            vec![2],
            "sheet 2 of job-1#1 is at work, and in the new plan that number is other work",
        ),
    ] {
        let before = world.engine.clone();
        let refusal = refused(&give(&mut world, rules, &other, true));
        assert!(refusal.starts_with(what), "{refusal}");
        assert_eq!(world.engine, before, "what is refused changes nothing");
    }
    give(&mut world, rules(2), &[], false);
    assert_eq!(world.sheets(), [Completed, Running]);
}

#[test]
fn a_number_that_comes_back_has_cost_what_it_cost_and_begins_anew() {
    let mut world = World::with(free(3, &[]));
    let failed = crate::model::Outcome {
        cost: Some(Cost::from_usd(2.0)),
        ..validation(0, 2)
    };
    end(&mut world, 3, failed);
    let third = |world: &World| {
        let run = world.engine.run(RUN).expect("is live");
        run.sheet(SheetNo(3)).map(|sheet| (sheet.has_begun(), sheet.spent))
    };
    assert_eq!(third(&world), Some((true, Cost::from_usd(2.0))));
    give(&mut world, free(2, &[]), &[], false);
    assert_eq!(third(&world), None);
    give(&mut world, free(3, &[]), &[], false);
    assert_eq!(third(&world), Some((false, Cost::from_usd(2.0))));
}

#[test]
fn other_work_begins_anew() {
    let mut world = World::with(free(3, &[]));
    end(&mut world, 1, transient());
    end(&mut world, 2, hopeless());
    give(&mut world, free(3, &[]), &[1, 2], false);
    let fresh = |world: &World, sheet: u32| {
        let mut starts = world.machine.values().filter(|start| start.attempt.sheet.0 == sheet);
        starts
            .next()
            .map(|start| (start.attempt.attempt.0, start.kind, start.ask))
    };
    for sheet in [1, 2] {
        assert_eq!(
            fresh(&world, sheet),
            Some((2, AttemptKind::First, Ask::Task)),
            "sheet {sheet}"
        );
    }
    assert_eq!(world.sheets(), [Running; 3]);
}

#[test]
fn who_waits_for_what_has_failed_follows_from_the_new_dependencies() {
    let mut world = World::with(free(6, &[waits_for(3, 2), waits_for(4, 3), waits_for(6, 5)]));
    end(&mut world, 2, hopeless());
    assert_eq!(world.sheets(), [Running, Failed, Skipped, Skipped, Running, Pending]);
    give(&mut world, free(6, &[waits_for(4, 1), waits_for(6, 2)]), &[], false);
    assert_eq!(world.sheets(), [Running, Failed, Running, Pending, Running, Skipped]);
    assert!(matches!(
        world.sheet(6),
        SheetState::Done(Verdict::Blocked { by: SheetNo(2) })
    ));
    // Asked to go on with it, what failed is tried again, and nobody is blocked by it any more.
    give(&mut world, free(6, &[waits_for(4, 1), waits_for(6, 2)]), &[], true);
    assert_eq!(world.sheets(), [Running, Running, Running, Pending, Running, Pending]);
}

#[test]
fn a_failed_run_goes_on_with_the_new_plan_where_that_is_asked_for() {
    let mut stubborn = rules(3);
    stubborn.retry.max_retries = 0;
    let mut world = World::with(stubborn);
    world.finish(success());
    world.finish(validation(0, 2));
    assert_eq!(world.state(), RunState::Failed);
    let refusal = refused(&give(&mut world, rules(3), &[], false));
    assert!(refusal.contains("`mozartctl resume job-1 -c FILE`"), "{refusal}");
    let decision = give(&mut world, rules(4), &[], true);
    let names: Vec<_> = decision.facts.iter().map(|fact| fact.kind.name()).collect();
    assert_eq!(
        names,
        ["run_resumed", "run_modified", "generation_opened", "attempt_intended"]
    );
    assert_eq!(world.sheets(), [Completed, Running, Pending, Pending]);
}

#[test]
fn from_side_by_side_to_one_after_the_other() {
    let mut world = World::with(free(4, &[]));
    end(&mut world, 2, transient());
    end(&mut world, 1, usage(None));
    give(&mut world, rules(4), &[], false);
    assert_eq!(world.sheets(), [Waiting, Waiting, Running, Running]);
    end(&mut world, 3, success());
    end(&mut world, 4, success());
    world.pass(minutes(5));
    assert!(
        world.machine.is_empty(),
        "the first waits for its limit, and the second for the first"
    );
    world.sleep();
    assert_eq!(world.session().attempt, attempt(1, 2));
    world.finish(success());
    assert_eq!(world.session().attempt, attempt(2, 2));
}

#[test]
fn another_account_is_for_when_nothing_is_at_work_and_has_limits_of_its_own() {
    let mut other = rules(2);
    other.account = Some(AccountId("another".into()));
    let mut world = World::with(rules(2));
    let refusal = refused(&give(&mut world, other.clone(), &[], false));
    assert!(refusal.contains("another backend's or account's"), "{refusal}");
    world.finish(usage(None));
    give(&mut world, other.clone(), &[], false);
    assert_eq!(world.session().attempt, attempt(1, 2), "that limit was the other's");

    let mut world = World::with(rules(2));
    world.finish(failure(Cause::Fatal, Code::E502));
    assert_eq!(world.engine.questions().count(), 1);
    give(&mut world, other, &[], false);
    assert_eq!(world.engine.questions().count(), 0, "who mends it so need not say so");
    assert_eq!(world.session().attempt, attempt(1, 2));
}

#[test]
fn a_new_budget_is_the_answer_to_the_question_for_more() {
    let limits = |usd: f64| {
        Some(CostLimits {
            per_sheet: None,
            per_job: Some(Cost::from_usd(usd)),
            warn_at_percent: 80,
            price: None,
        })
    };
    let costly = crate::model::Outcome {
        cost: Some(Cost::from_usd(3.0)),
        ..success()
    };
    let poor = RunRules {
        cost_limits: limits(3.0),
        ..rules(2)
    };
    let mut world = World::with(poor.clone());
    world.finish(costly.clone());
    let asked = |world: &World| world.engine.questions().next().map(|question| question.choices.clone());
    assert_eq!(asked(&world), Some(vec![Choice::Continue, Choice::Stop]));
    give(
        &mut world,
        RunRules {
            priority: 9,
            ..poor.clone()
        },
        &[],
        false,
    );
    assert!(asked(&world).is_some(), "nothing was said of money");
    give(
        &mut world,
        RunRules {
            cost_limits: limits(2.0),
            ..poor.clone()
        },
        &[],
        false,
    );
    assert!(asked(&world).is_some(), "that is less still");
    give(
        &mut world,
        RunRules {
            cost_limits: limits(9.0),
            ..poor
        },
        &[],
        false,
    );
    assert_eq!((asked(&world), world.sheets()), (None, vec![Completed, Running]));
}

#[test]
fn a_budget_that_was_raised_stays_so_where_the_new_plan_says_nothing_else_of_money() {
    let costing = |usd: f64| crate::model::Outcome {
        cost: Some(Cost::from_usd(usd)),
        ..success()
    };
    let poor = RunRules {
        cost_limits: Some(CostLimits {
            per_sheet: None,
            per_job: Some(Cost::from_usd(3.0)),
            warn_at_percent: 80,
            price: None,
        }),
        ..rules(3)
    };
    let mut world = World::with(poor.clone());
    world.finish(costing(3.0));
    world.answer(Choice::Continue);
    let urgent = RunRules { priority: 9, ..poor };
    give(&mut world, urgent, &[], false);
    world.finish(costing(0.5));
    assert_eq!(world.engine.questions().count(), 0);
    assert_eq!(world.sheets(), [Completed, Completed, Running]);
}

#[test]
fn a_recovery_completes_what_holds_and_runs_nothing() {
    let mut world = World::with(free(4, &[waits_for(4, 2)]));
    for sheet in [1, 2, 3] {
        end(&mut world, sheet, hopeless());
    }
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Failed, Failed, Failed, Skipped], RunState::Failed)
    );
    recover(&mut world, &[2]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Failed, Completed, Failed, Pending], RunState::Failed)
    );
    recover(&mut world, &[1, 3]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Completed, Completed, Completed, Pending], RunState::Paused)
    );
    assert!(world.machine.is_empty());
    world.restart();
    world.resume();
    assert_eq!(
        world.session().attempt,
        attempt(4, 1),
        "who waited for it has its chance"
    );
    let refusal = refused(&recover(&mut world, &[4]));
    assert!(refusal.contains("is at work"), "{refusal}");
    world.finish(hopeless());
    recover(&mut world, &[4]);
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn a_new_plan_takes_back_the_question_of_its_own_run_only() {
    let asking = |account: &str| RunRules {
        on_limit: OnLimit::Ask,
        account: Some(AccountId(account.into())),
        ..rules(1)
    };
    let mut world = World::new(5);
    for (run, account) in [(1, "one"), (2, "another")] {
        world.submit(run, asking(account));
        world.finish_of(run, usage(Some(world.now.wall.plus(secs(600)))));
    }
    assert_eq!(world.engine.questions().count(), 2);
    let waiting = RunRules {
        on_limit: OnLimit::Wait,
        ..asking("one")
    };
    give(&mut world, waiting, &[], false);
    let left: Vec<_> = world.engine.questions().map(|question| question.id.0.clone()).collect();
    assert_eq!(left, ["q2-1-1"]);
}

#[test]
fn what_has_begun_cannot_come_to_wait_for_what_has_failed() {
    let mut world = World::with(free(2, &[]));
    end(&mut world, 2, hopeless());
    let refusal = refused(&give(&mut world, free(2, &[waits_for(1, 2)]), &[], false));
    assert!(refusal.contains("it waits for sheet 2, which is not done"), "{refusal}");
}

#[test]
fn who_waits_for_what_was_cancelled_by_the_old_plan_is_blocked() {
    let mut world = World::with(cancelling(3, &[]));
    end(&mut world, 3, hopeless());
    end(&mut world, 2, interrupted());
    give(&mut world, free(4, &[waits_for(4, 2)]), &[], false);
    end(&mut world, 1, success());
    assert_eq!(
        (world.sheets(), world.state()),
        (
            vec![Completed, SheetStatus::Cancelled, Failed, Skipped],
            RunState::Failed
        ),
        "nothing is left that could start"
    );
}

#[test]
fn what_was_cancelled_for_a_failure_that_a_new_plan_undoes_is_open_again() {
    let mut world = World::with(cancelling(3, &[]));
    end(&mut world, 3, hopeless());
    end(&mut world, 2, interrupted());
    give(&mut world, free(4, &[waits_for(4, 2)]), &[3], false);
    for sheet in [1, 2, 3, 4] {
        end(&mut world, sheet, success());
    }
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Completed; 4], RunState::Completed)
    );
}

#[test]
fn what_was_cancelled_for_a_failure_that_is_recovered_waits_for_a_resume() {
    let mut world = World::with(cancelling(4, &[waits_for(4, 1)]));
    end(&mut world, 3, hopeless());
    end(&mut world, 1, interrupted());
    end(&mut world, 2, interrupted());
    let cancelled = SheetStatus::Cancelled;
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![cancelled, cancelled, Failed, Pending], RunState::Failed)
    );
    recover(&mut world, &[3]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Pending, Pending, Completed, Pending], RunState::Paused)
    );
    world.resume();
    for sheet in [1, 2, 4] {
        end(&mut world, sheet, success());
    }
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn so_does_what_an_old_plan_cancelled_in_a_paused_run() {
    let mut world = World::with(cancelling(4, &[waits_for(4, 1)]));
    end(&mut world, 3, hopeless());
    end(&mut world, 1, interrupted());
    world.pause(false);
    give(&mut world, free(4, &[waits_for(4, 1)]), &[], false);
    end(&mut world, 2, success());
    recover(&mut world, &[3]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Pending, Completed, Completed, Pending], RunState::Paused)
    );
    world.resume();
    end(&mut world, 1, success());
    end(&mut world, 4, success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn a_recovery_of_all_that_was_left_ends_a_paused_run() {
    let mut world = World::with(free(4, &[]));
    end(&mut world, 1, hopeless());
    end(&mut world, 2, success());
    world.pause(false);
    end(&mut world, 3, transient());
    end(&mut world, 4, transient());
    recover(&mut world, &[4]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Failed, Completed, Waiting, Completed], RunState::Paused)
    );
    recover(&mut world, &[3]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Failed, Completed, Completed, Completed], RunState::Failed),
        "nobody need resume it"
    );
}

#[test]
fn a_recovery_that_comes_after_another_attempt_says_nothing_of_it() {
    let mut world = World::with(rules(2));
    world.pause(false);
    world.finish(transient());
    let event = Event::RecoverRequested {
        run: RUN,
        passed: vec![(SheetNo(1), 1), (SheetNo(2), 1)],
    };
    // Of sheet 2 it says that there was an attempt.
    world.event(&event);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Completed, Pending], RunState::Paused)
    );
    assert_eq!(world.event(&event), Decision::default(), "asked again, nothing changes");
}

#[test]
fn a_cancelled_run_stays_so_until_all_of_it_is_done() {
    let mut world = World::with(rules(2));
    world.cancel();
    world.finish(interrupted());
    recover(&mut world, &[1]);
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Completed, SheetStatus::Cancelled], RunState::Cancelled)
    );
    recover(&mut world, &[2]);
    assert_eq!(world.state(), RunState::Completed);
    assert_eq!(recover(&mut world, &[1, 2]), Decision::default());
}
