//! Budgets of money.

use super::modify::give;
use super::world::*;
use crate::engine::event::{EngineSettings, Spent, Today};
use crate::engine::rules::RunRules;
use crate::engine::{Choice, Event, FactKind, Whose, charge};
use crate::job::plan::{CircuitBreaker, CostLimits, FailFast, OnLimit, Parallel};
use crate::model::{AccountId, Cause, Code, Cost, Outcome, RunId, RunState, SheetStatus, Span, Timestamp};

fn limits(per_sheet: Option<f64>, per_job: Option<f64>) -> Option<CostLimits> {
    Some(CostLimits {
        per_sheet: per_sheet.map(Cost::from_usd),
        per_job: per_job.map(Cost::from_usd),
        warn_at_percent: 80,
        price: None,
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
        "question q1-1-3: sheet 1 has cost $2.05, and its budget is used up (E701); answer it with continue or stop"
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

#[test]
fn for_a_sheet_without_money_a_person_is_asked_in_time_whatever_others_wait_for() {
    let mut world = World::with(RunRules {
        circuit_breaker: Some(CircuitBreaker {
            failure_threshold: 1,
            recovery: minutes(5),
        }),
        cost_limits: limits(Some(1.0), None),
        ..at_once(2, 1, 9.0)
    });
    world.finish(costs(transient(), 1.0));
    assert_eq!(world.status().reason, "too many faults in a row");
    assert_eq!(world.sleep(), secs(10), "then it is the turn of the one that has begun");
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
        "question q1-3-2: the job has cost $3.10, and its budget is used up (E702); answer it with continue or stop"
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

/// A world in which each account may spend that much in a day, and a run that cost it all.
fn spent(usd: f64) -> World {
    let mut world = World::new(5);
    world.budget_of_the_day(usd);
    world.submit(1, rules(3));
    world.finish(costs(success(), usd));
    world
}

const DAY: Span = Span(24 * 3600 * 1_000_000);

/// The first moment of the next day, in a world whose days are UTC's.
fn midnight(world: &World) -> Timestamp {
    Timestamp((world.now.wall.0.div_euclid(DAY.0) + 1) * DAY.0)
}

fn of_account(name: &str, sheets: u32) -> RunRules {
    RunRules {
        account: Some(AccountId(name.into())),
        ..rules(sheets)
    }
}

#[test]
fn a_day_has_one_budget_for_all_runs_of_an_account_and_one_question() {
    let mut world = World::new(9);
    world.budget_of_the_day(4.0);
    for run in 1..=3 {
        world.submit(run, rules(2));
    }
    assert_eq!(budgets(&world), [0.4, 0.4, 0.4], "an even share of ten places");
    for run in 1..=3 {
        world.finish_of(run, costs(success(), 1.3));
    }
    // Ten cents are left, and one at a time may have them.
    assert_eq!(world.machine.len(), 1);
    let reason = world.status_of(2).reason;
    assert!(
        reason.ends_with("reserved what is left of the day's budget"),
        "{reason}"
    );
    world.finish(costs(failure(Cause::Fatal, Code::E701), 0.12));
    assert!(world.machine.is_empty());
    let questions: Vec<_> = world.engine.questions().cloned().collect();
    let [question] = &questions[..] else {
        panic!("{questions:?}")
    };
    assert_eq!(
        question.text,
        "the account claude has cost $4.02 today, and its budget of the day ($4.00) is used up (E703)"
    );
    for run in 1..=3 {
        let status = world.status_of(run);
        assert_eq!(
            (status.state, status.until),
            (RunState::Waiting, Some(midnight(&world)))
        );
        assert!(
            status.reason.ends_with("answer it with continue or wait or stop"),
            "{}",
            status.reason
        );
    }
    // Another account has its own, and a `command` has none.
    world.submit(4, of_account("another", 1));
    assert_eq!(world.session_of(RunId(4)).budget, Some(Cost::from_usd(0.4)));
    let nobodys = RunRules {
        account: None,
        ..rules(1)
    };
    world.submit(5, nobodys);
    assert_eq!(world.session_of(RunId(5)).budget, None);
}

#[test]
fn who_waits_for_tomorrow_goes_on_at_midnight() {
    let mut world = spent(2.0);
    let tomorrow = midnight(&world);
    world.answer(Choice::Wait);
    let waits = (
        RunState::Waiting,
        "the budget of the day is used up (`daily_budget_usd`)",
        Some(tomorrow),
    );
    let told = |world: &World| world.status();
    assert_eq!((told(&world).state, &*told(&world).reason, told(&world).until), waits);
    world.restart();
    assert_eq!((told(&world).state, &*told(&world).reason, told(&world).until), waits);
    assert_eq!(world.engine.questions().count(), 0, "not asked again");
    world.sleep();
    assert_eq!(world.now.wall, tomorrow);
    assert_eq!(world.session().budget, Some(Cost(3_000_000).min(Cost::from_usd(2.0))));
    world.finish(costs(success(), 2.0));
    assert_eq!(world.engine.questions().count(), 1, "the next day is asked about anew");
}

#[test]
fn a_question_about_the_day_needs_no_answer_after_it() {
    let mut world = spent(2.0);
    assert_eq!(world.engine.questions().count(), 1);
    world.restart();
    assert_eq!(world.engine.questions().count(), 1, "asked once");
    world.sleep();
    assert_eq!(world.state(), RunState::Running);
    assert_eq!(world.engine.questions().count(), 0);
}

#[test]
fn as_much_again_is_for_that_day_alone() {
    let mut world = spent(2.0);
    world.answer(Choice::Continue);
    world.restart();
    assert_eq!(budgets(&world), [2.0]);
    world.finish(costs(success(), 2.0));
    assert_eq!(world.engine.questions().count(), 1);
    world.sleep();
    world.finish(costs(success(), 2.0));
    world.submit(2, rules(1));
    assert_eq!(world.engine.questions().count(), 1, "no more than the setting gives");
    world.answer(Choice::Stop);
    assert_eq!(world.status_of(2).state, RunState::Cancelled);
}

#[test]
fn a_day_that_the_clock_is_set_back_to_has_what_was_spent_on_it() {
    let mut world = spent(2.0);
    world.sleep();
    assert_eq!(world.state(), RunState::Running);
    world.set_clock(Span(-DAY.0));
    world.finish(costs(success(), 0.0));
    assert_eq!(world.state(), RunState::Waiting, "{:?}", world.machine);
    assert_eq!(world.engine.questions().count(), 1);
}

#[test]
fn a_larger_budget_in_the_settings_needs_no_answer() {
    let mut world = spent(2.0);
    world.budget_of_the_day(3.0);
    assert_eq!(world.engine.questions().count(), 0);
    assert_eq!(budgets(&world), [1.0]);
}

/// The day's question is named after an attempt that another account then pays for.
#[test]
fn two_questions_about_one_attempt_have_two_names() {
    let mut world = World::new(9);
    world.budget_of_the_day(1.0);
    world.submit(1, rules(1));
    world.finish(costs(transient(), 1.0));
    world.submit(2, rules(1));
    assert_eq!(world.engine.questions().count(), 1);
    let rules = RunRules {
        on_limit: OnLimit::Ask,
        ..of_account("another", 1)
    };
    give(&mut world, rules, &[], false);
    world.sleep();
    world.finish(usage(Some(world.now.wall.plus(secs(600)))));
    let names: Vec<_> = world.engine.questions().map(|question| question.id.0.clone()).collect();
    assert_eq!(names, ["q1-1-2", "q1-1-2-2"]);
    world.restart();
    assert_eq!(world.engine.questions().count(), 2);
}

#[test]
fn a_day_holds_its_first_moment_and_not_its_last() {
    let today = Today {
        begins: Timestamp(10),
        ends: Timestamp(20),
        spent: [].into(),
    };
    let held: Vec<_> = [9, 10, 19, 20].map(|at| today.holds(Timestamp(at))).into();
    assert_eq!(held, [false, true, true, false]);
}

#[test]
fn a_day_that_is_told_beside_another_event_counts_for_it() {
    let mut world = World::new(5);
    world.set(EngineSettings {
        daily_budget: Some(Cost::from_usd(4.0)),
        ..EngineSettings::default()
    });
    let spent = Spent {
        cost: Cost::from_usd(4.0),
        sessions: 2,
    };
    let today = Today {
        begins: world.now.wall,
        ends: world.now.wall.plus(DAY),
        spent: [(AccountId("claude".into()), spent)].into(),
    };
    world.engine.tell_day(today);
    world.submit(1, rules(1));
    assert!(world.machine.is_empty(), "nothing is left for it");
    assert_eq!(world.engine.questions().count(), 1);
}

#[test]
fn what_is_reserved_overnight_is_kept_from_the_next_day() {
    let mut world = World::new(5);
    world.budget_of_the_day(4.0);
    world.submit(1, in_order(1, Some(3.0), None));
    assert_eq!(budgets(&world), [3.0]);
    world.pass(DAY);
    world.submit(2, in_order(1, Some(2.0), None));
    let reason = world.status_of(2).reason;
    assert!(reason.contains("reserved"), "{reason}");
    world.finish(costs(success(), 1.0));
    assert_eq!(
        budgets(&world),
        [2.0],
        "a session is booked on the day on which it ends"
    );
}

#[test]
fn an_ended_run_that_goes_on_is_not_counted_twice() {
    let mut world = spent(2.0);
    world.cancel();
    let facts: Vec<_> = world.journal.clone();
    let before = world.engine.today().cloned();
    let own: Vec<_> = facts.into_iter().filter(|fact| fact.kind.run() == Some(RUN)).collect();
    world.engine.recall(RUN, &own);
    assert_eq!(world.engine.today().cloned(), before);
    let spent = before.expect("was told").spent[&AccountId("claude".into())];
    assert_eq!((spent, Spent { sessions: 1, ..spent }), (spent, spent));
    assert_eq!(spent.cost, Cost::from_usd(2.0));
}

#[test]
fn what_nobody_knows_is_booked_as_what_was_reserved() {
    let reserved = Some(Cost::from_usd(2.0));
    assert_eq!(charge(&costs(success(), 0.5), reserved), Cost::from_usd(0.5));
    assert_eq!(charge(&interrupted(), reserved), Cost::from_usd(2.0));
    assert_eq!(charge(&without_work(transient()), reserved), Cost(0));
    assert_eq!(charge(&interrupted(), None), Cost(0));
    let mut world = World::with(in_order(1, None, Some(3.0)));
    world.finish(interrupted());
    assert_eq!(world.engine.questions().count(), 1, "all of it may be gone");
}

#[test]
fn a_job_without_a_past_reserves_by_what_its_account_has_spent_today() {
    let mut world = World::new(5);
    world.budget_of_the_day(10.0);
    world.submit(1, rules(2));
    for usd in [3.0, 1.0] {
        world.finish_of(1, costs(success(), usd));
    }
    world.submit(2, rules(1));
    assert_eq!(budgets(&world), [3.0], "half as much again as the mean of both");
}

#[test]
fn a_session_that_cost_nothing_says_nothing_of_the_next() {
    let mut world = World::with(in_order(3, None, Some(100.0)));
    for usd in [0.0, 2.0] {
        world.finish(costs(success(), usd));
    }
    assert_eq!(budgets(&world), [3.0], "half as much again as the mean of one");
}

#[test]
fn who_wants_no_word_of_a_budget_gets_none() {
    let mut world = World::with(RunRules {
        cost_limits: limits(None, Some(5.0)).map(|limits| CostLimits {
            warn_at_percent: 0,
            ..limits
        }),
        ..rules(2)
    });
    assert_eq!(world.finish(costs(success(), 4.9)).warnings, []);
    assert_eq!(world.engine.nearly_used_up(RUN, world.now.wall), []);
}

// field: cost_limits.warn_at_percent
#[test]
fn a_budget_that_is_nearly_used_up_is_told_of_once() {
    let mut world = World::new(5);
    world.budget_of_the_day(10.0);
    world.submit(1, in_order(9, Some(2.0), Some(5.0)));
    let decision = world.finish(costs(validation(0, 2), 1.5));
    assert_eq!(decision.warnings, [], "three quarters");
    world.sleep();
    let told = |usd: f64, world: &mut World| {
        let decision = world.finish(costs(success(), usd));
        decision
            .warnings
            .into_iter()
            .map(|used| used.words())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(0.3, &mut world), ["$1.80 of sheet 1's budget of $2.00 used"]);
    assert_eq!(
        told(2.2, &mut world),
        [
            "$4.00 of the job's budget of $5.00 used",
            "$2.20 of sheet 2's budget of $2.00 used"
        ]
    );
    let near = |world: &World| -> Vec<_> {
        let near = world.engine.nearly_used_up(RUN, world.now.wall);
        near.into_iter().map(|used| used.whose).collect()
    };
    assert_eq!(near(&world), [Whose::Job(RUN)]);
    assert_eq!(told(0.9, &mut world), Vec::<String>::new(), "told already");
    world.restart();
    assert_eq!(near(&world), [Whose::Job(RUN)]);
    world.finish(costs(success(), 0.1));
    world.answer(Choice::Continue);
    assert_eq!(near(&world), [], "raised, with as much again left");
    assert_eq!(
        told(3.0, &mut world),
        [
            "$8.00 of the job's budget of $10.00 used",
            "$3.00 of sheet 5's budget of $2.00 used",
            "$8.00 of the account's budget of the day of $10.00 used"
        ]
    );
}

#[test]
fn a_decision_about_a_day_is_a_fact() {
    let mut world = spent(2.0);
    let decision = world.answer(Choice::Continue);
    let limit = decision.facts.iter().find_map(|fact| match &fact.kind {
        FactKind::DayDecided { limit, .. } => *limit,
        _ => None,
    });
    assert_eq!(limit, Some(Cost::from_usd(4.0)));
}
