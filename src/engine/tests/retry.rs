//! Retry by cause.

use super::world::*;
use crate::engine::event::SessionChoice;
use crate::engine::rules::RunRules;
use crate::engine::{Choice, FactKind, SheetState, Verdict};
use crate::job::plan::{OnLimit, RateLimitPolicy, RetryPolicy};
use crate::model::{Ask, AttemptKind, Cause, Code, LimitKind, Outcome, RunState, SheetStatus, Span, Timestamp};

fn with_retry(change: impl FnOnce(&mut RetryPolicy)) -> World {
    let mut rules = rules(2);
    change(&mut rules.retry);
    World::with(rules)
}

fn with_limits(change: impl FnOnce(&mut RateLimitPolicy)) -> World {
    let mut rules = rules(2);
    change(&mut rules.rate_limit);
    World::with(rules)
}

/// Ends the session and sleeps; the wait before the next start.
fn fail(world: &mut World, outcome: Outcome) -> Span {
    world.finish(outcome);
    if world.state() == RunState::Waiting {
        world.sleep()
    } else {
        secs(0)
    }
}

fn failed_with(world: &World, sheet: u32) -> (Cause, Code, String) {
    match world.sheet(sheet) {
        SheetState::Done(Verdict::Failed { cause, code, message }) => (*cause, *code, message.clone()),
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn sheets_run_in_order_until_all_are_completed() {
    let mut world = World::with(rules(3));
    for sheet in 1..=3 {
        assert_eq!(shape(&world.session()), (sheet, 1, AttemptKind::First, Ask::Task, None));
        assert_eq!(world.state(), RunState::Running);
        world.finish(success());
    }
    assert_eq!(world.state(), RunState::Completed);
    assert_eq!(world.engine.next_wakeup(world.now), None);
}

#[test]
fn the_first_failed_sheet_ends_the_run_and_later_ones_stay_pending() {
    let mut world = World::with(rules(3));
    world.finish(success());
    world.finish(failure(Cause::Fatal, Code::E507));
    assert_eq!(world.state(), RunState::Failed);
    assert_eq!(
        world.sheets(),
        [SheetStatus::Completed, SheetStatus::Failed, SheetStatus::Pending]
    );
    assert_eq!(failed_with(&world, 2), (Cause::Fatal, Code::E507, "It failed.".into()));
    assert_eq!(world.status().reason, "sheet 2: E507 It failed.");
    assert!(world.machine.is_empty());
}

#[test]
fn a_new_session_is_named_after_ledger_and_attempt() {
    let mut world = World::with(rules(1));
    let id = |name: &str| uuid::Uuid::new_v5(&uuid::Uuid::from_u128(0x1234_5678), name.as_bytes()).to_string();
    assert_eq!(world.session().session, SessionChoice::New(id("1-1-1")));
    world.finish(validation(0, 2));
    world.sleep();
    assert_eq!(world.session().session, SessionChoice::New(id("1-1-2")));
}

// field: retry.max_retries
#[test]
fn a_failed_validation_is_retried_in_a_new_session_until_the_budget_is_used() {
    let mut world = with_retry(|retry| retry.max_retries = 2);
    for retry in 2..=3 {
        fail(&mut world, validation(0, 3));
        assert_eq!(shape(&world.session()), (1, retry, AttemptKind::Retry, Ask::Task, None));
    }
    world.finish(validation(0, 3));
    assert_eq!(world.state(), RunState::Failed);
    let (cause, code, message) = failed_with(&world, 1);
    assert_eq!((cause, code), (Cause::Validation, Code::E201));
    assert_eq!(message, "It failed; 2 retries did not mend it");
}

// field: retry.max_retries
#[test]
fn no_retries_are_no_retries() {
    let mut world = with_retry(|retry| retry.max_retries = 0);
    world.finish(validation(0, 3));
    assert_eq!((world.state(), world.starts.len()), (RunState::Failed, 1));
}

// field: retry.base_delay_seconds
// field: retry.exponential_base
// field: retry.max_delay_seconds
#[test]
fn delays_grow_from_the_base_to_the_bound() {
    let mut world = with_retry(|retry| {
        retry.max_retries = 5;
        retry.base_delay = secs(7);
        retry.exponential_base = 3.0;
        retry.max_delay = secs(100);
    });
    let delays: Vec<Span> = (0..5).map(|_| fail(&mut world, validation(0, 1))).collect();
    assert_eq!(delays, [secs(7), secs(21), secs(63), secs(100), secs(100)]);
}

#[test]
fn delays_stay_bounded_however_large_the_growth() {
    let mut world = with_retry(|retry| {
        retry.transient_retries = 1000;
        retry.exponential_base = 1e300;
    });
    fail(&mut world, transient());
    assert_eq!(fail(&mut world, transient()), secs(3600));
    assert_eq!(fail(&mut world, transient()), secs(3600));
}

// field: retry.jitter
#[test]
fn jitter_draws_each_delay_from_zero_to_its_length() {
    let mut rules = rules(1);
    rules.retry.jitter = true;
    rules.retry.max_retries = 200;
    rules.retry.exponential_base = 1.0;
    let mut world = World::with(rules);
    let delays: Vec<Span> = (0..200).map(|_| fail(&mut world, validation(0, 1))).collect();
    assert!(delays.iter().all(|delay| *delay < secs(10)));
    assert!(
        delays.iter().any(|delay| *delay < secs(1)) && delays.iter().any(|delay| *delay > secs(9)),
        "{delays:?}"
    );
}

// field: retry.completion_threshold_percent
#[test]
fn completion_mode_begins_exactly_at_the_threshold() {
    for (percent, passed, total, completes) in [
        (50.0, 1, 2, true),
        (50.0, 49, 100, false),
        (66.0, 2, 3, true),
        (67.0, 2, 3, false),
        (100.0, 2, 3, false),
        // Everything passed, and something else was wrong: nothing is missing that could be named.
        (50.0, 3, 3, false),
        // No rules at all.
        (50.0, 0, 0, false),
    ] {
        let mut world = with_retry(|retry| retry.completion_threshold_percent = percent);
        fail(&mut world, validation(passed, total));
        let expected = match completes {
            true => (1, 2, AttemptKind::Completion, Ask::Completion, Some("theirs")),
            false => (1, 2, AttemptKind::Retry, Ask::Task, None),
        };
        assert_eq!(shape(&world.session()), expected, "{passed} of {total} at {percent} %");
    }
}

// field: retry.max_completion_attempts
#[test]
fn full_retries_follow_when_the_completion_attempts_are_used() {
    let mut world = with_retry(|retry| {
        retry.max_completion_attempts = 2;
        retry.max_retries = 1;
    });
    let mut kinds = Vec::new();
    while !world.machine.is_empty() {
        kinds.push(world.session().kind);
        fail(&mut world, validation(1, 2));
    }
    use AttemptKind::{Completion, First, Retry};
    assert_eq!(kinds, [First, Completion, Completion, Retry]);
    let message = "It failed; 1 retry and 2 completion attempts did not mend it";
    assert_eq!(failed_with(&world, 1), (Cause::Validation, Code::E201, message.into()));
}

// field: retry.completion_delay_seconds
#[test]
fn a_completion_attempt_waits_its_own_delay() {
    let mut world = with_retry(|retry| {
        retry.completion_delay = secs(77);
        retry.jitter = true;
    });
    assert_eq!(fail(&mut world, validation(1, 2)), secs(77));
    assert_eq!(world.session().kind, AttemptKind::Completion);
}

#[test]
fn a_session_that_cannot_be_resumed_is_not_completed_but_retried() {
    let mut not_resumable = rules(1);
    not_resumable.resumable = false;
    let mut world = World::with(not_resumable);
    fail(&mut world, validation(1, 2));
    assert_eq!(world.session().kind, AttemptKind::Retry);

    let mut world = World::with(rules(1));
    fail(
        &mut world,
        Outcome {
            session_id: None,
            ..validation(1, 2)
        },
    );
    assert_eq!(world.session().kind, AttemptKind::Retry);
}

// field: retry.transient_retries
#[test]
fn transient_faults_have_a_budget_of_their_own() {
    let mut world = with_retry(|retry| {
        retry.transient_retries = 3;
        retry.max_retries = 1;
    });
    fail(&mut world, validation(0, 2));
    for _ in 0..3 {
        fail(&mut world, transient());
    }
    world.finish(transient());
    let message = "It failed; it stayed so through 3 transient retries";
    assert_eq!(failed_with(&world, 1), (Cause::Transient, Code::E103, message.into()));
    assert_eq!(world.starts.len(), 5);
}

// field: retry.transient_retries
#[test]
fn without_transient_retries_the_first_fault_is_the_last() {
    let mut world = with_retry(|retry| retry.transient_retries = 0);
    world.finish(transient());
    assert_eq!(failed_with(&world, 1).0, Cause::Transient);
}

#[test]
fn after_a_fault_a_session_that_worked_goes_on_and_one_that_did_not_is_begun_again() {
    let mut world = World::with(rules(1));
    assert_eq!(fail(&mut world, without_work(transient())), secs(10));
    assert_eq!(shape(&world.session()), (1, 2, AttemptKind::Retry, Ask::Task, None));
    assert_eq!(fail(&mut world, transient()), secs(20));
    assert_eq!(
        shape(&world.session()),
        (1, 3, AttemptKind::Continuation, Ask::GoOn, Some("theirs"))
    );
    // This time it did nothing, but the session still holds what the earlier attempt did.
    fail(&mut world, without_work(transient()));
    assert_eq!(
        shape(&world.session()),
        (1, 4, AttemptKind::Continuation, Ask::GoOn, Some("theirs"))
    );
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn a_completion_that_never_began_is_asked_again_and_one_that_did_goes_on() {
    let mut world = World::with(rules(1));
    fail(&mut world, validation(1, 2));
    fail(&mut world, without_work(transient()));
    assert_eq!(
        shape(&world.session()),
        (1, 3, AttemptKind::Completion, Ask::Completion, Some("theirs"))
    );
    fail(&mut world, transient());
    assert_eq!(
        shape(&world.session()),
        (1, 4, AttemptKind::Continuation, Ask::GoOn, Some("theirs"))
    );
    // Neither ate a completion attempt.
    for attempt in 5..=6 {
        fail(&mut world, validation(1, 2));
        assert_eq!(world.session().kind, AttemptKind::Completion, "attempt {attempt}");
    }
    fail(&mut world, validation(1, 2));
    assert_eq!(world.session().kind, AttemptKind::Retry);
}

#[test]
fn work_whose_session_is_lost_is_begun_anew_and_told_what_exists() {
    let mut not_resumable = rules(1);
    not_resumable.resumable = false;
    let mut world = World::with(not_resumable);
    fail(&mut world, transient());
    assert_eq!(
        shape(&world.session()),
        (1, 2, AttemptKind::Retry, Ask::TaskAgain, None)
    );
    fail(&mut world, without_work(transient()));
    assert_eq!(
        shape(&world.session()),
        (1, 3, AttemptKind::Retry, Ask::TaskAgain, None),
        "the work is still there"
    );

    for ended in [interrupted(), transient(), validation(1, 2)] {
        let mut world = World::with(rules(1));
        fail(&mut world, ended);
        assert_eq!(shape(&world.session()).4, Some("theirs"));
        fail(&mut world, forgotten());
        assert_eq!(
            shape(&world.session()),
            (1, 3, AttemptKind::Retry, Ask::TaskAgain, None),
            "the CLI forgot it"
        );
    }
}

/// The CLI does not know the session that it was to resume.
fn forgotten() -> Outcome {
    Outcome {
        session_lost: true,
        ..without_work(failure(Cause::Transient, Code::E003))
    }
}

#[test]
fn a_session_that_is_lost_again_and_again_uses_the_transient_budget() {
    let mut world = with_retry(|retry| retry.transient_retries = 2);
    fail(&mut world, validation(1, 2));
    for _ in 0..2 {
        fail(&mut world, forgotten());
    }
    world.finish(forgotten());
    assert_eq!(world.state(), RunState::Failed);
    assert_eq!(failed_with(&world, 1).0, Cause::Transient);
}

#[test]
fn an_interruption_is_followed_at_once_and_at_most_twenty_times() {
    let mut world = World::with(rules(1));
    for attempt in 2..=21 {
        assert_eq!(fail(&mut world, interrupted()), secs(0));
        assert_eq!(
            shape(&world.session()),
            (1, attempt, AttemptKind::Continuation, Ask::GoOn, Some("theirs"))
        );
    }
    world.finish(interrupted());
    assert_eq!(failed_with(&world, 1).0, Cause::Interrupted);
    assert_eq!(failed_with(&world, 1).1, Code::E004);
    // The next generation has twenty of its own.
    world.resume();
    assert_eq!(shape(&world.session()), (1, 22, AttemptKind::First, Ask::Task, None));
    fail(&mut world, interrupted());
    world.session();
}

#[test]
fn waits_for_other_causes_leave_the_validation_retries_alone() {
    let mut world = with_retry(|retry| retry.max_retries = 1);
    for _ in 0..3 {
        fail(&mut world, transient());
        fail(&mut world, interrupted());
        fail(&mut world, usage(None));
        fail(&mut world, throttle(None));
    }
    fail(&mut world, validation(0, 2));
    assert_eq!(world.session().kind, AttemptKind::Retry);
    world.finish(validation(0, 2));
    assert_eq!(failed_with(&world, 1).0, Cause::Validation);
}

#[test]
fn a_usage_limit_closes_the_gate_until_its_reset_and_is_then_probed() {
    let mut world = World::with(rules(2));
    let reset = START.plus(minutes(90));
    let decision = world.finish(usage(Some(reset)));
    let (status, now) = (world.status(), world.now);
    assert_eq!(
        (status.state, status.reason.as_str()),
        (RunState::Waiting, "usage limit (five_hour)")
    );
    let until = status.until.expect("is known");
    assert!(
        (secs(0)..secs(2)).contains(&until.since(reset)),
        "a little after the reset"
    );
    assert!(
        decision
            .facts
            .iter()
            .any(|fact| matches!(fact.kind, FactKind::GateClosed { .. }))
    );
    assert_eq!(world.engine.next_wakeup(now), Some(until));
    world.pass(minutes(89));
    assert!(world.machine.is_empty());
    world.sleep();
    assert_eq!(world.now.wall, until);
    assert_eq!(
        shape(&world.session()),
        (1, 2, AttemptKind::Probe, Ask::GoOn, Some("theirs"))
    );
    let [(_, gate)] = world.engine.gates().collect::<Vec<_>>()[..] else {
        panic!("it opens with what the probe finds out")
    };
    assert_eq!((gate.places, gate.through.len()), (1, 1));
}

#[test]
fn a_refused_session_that_did_nothing_is_probed_with_the_task() {
    let mut world = World::with(rules(1));
    fail(&mut world, without_work(usage(Some(START.plus(minutes(5))))));
    assert_eq!(shape(&world.session()), (1, 2, AttemptKind::Probe, Ask::Task, None));
}

// field: rate_limit.wait_minutes
#[test]
fn a_usage_limit_without_a_reset_waits_the_configured_time() {
    let mut world = with_limits(|limits| limits.wait = minutes(17));
    assert_eq!(fail(&mut world, usage(None)), minutes(17));
}

// field: rate_limit.wait_minutes
#[test]
fn a_throttling_never_waits_the_time_of_a_usage_limit() {
    let mut world = World::with(rules(1));
    let waits: Vec<Span> = (0..7).map(|_| fail(&mut world, throttle(None))).collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 120, 120].map(secs));
    assert_eq!(fail(&mut world, throttle(Some(secs(61)))), secs(61));
    assert_eq!(
        fail(&mut world, throttle(Some(secs(0)))),
        secs(120),
        "no time is no time"
    );
    fail(&mut world, transient());
    assert_eq!(
        fail(&mut world, throttle(None)),
        secs(5),
        "only those in a row make it grow"
    );
}

#[test]
fn a_reset_read_from_text_is_clamped_and_an_exact_one_is_not() {
    let reset = |from_text, at: Timestamp| {
        let mut limit = limit(LimitKind::Usage, None);
        (limit.resets_at, limit.from_text) = (Some(at), from_text);
        let mut world = World::with(rules(1));
        fail(&mut world, limited(Code::E104, limit)).0 / 2_000_000
    };
    let seconds = |span: Span| span.0 / 2_000_000;
    assert_eq!(reset(true, START.plus(secs(-300))), seconds(secs(60)));
    assert_eq!(
        reset(true, START.plus(minutes(60 * 24 * 30))),
        seconds(minutes(60 * 24 * 8))
    );
    assert_eq!(
        reset(false, START.plus(minutes(60 * 24 * 30))),
        seconds(minutes(60 * 24 * 30))
    );
    assert_eq!(reset(false, START.plus(secs(20))), seconds(secs(20)));
    assert!(
        reset(false, START.plus(secs(-300))) >= seconds(secs(5)),
        "a reset that is past does not spin"
    );
    assert!(reset(false, START) >= seconds(secs(5)), "nor does one that is just now");
}

/// The words of the only open question.
fn question(world: &World) -> String {
    let open: Vec<_> = world.engine.questions().collect();
    let [question] = open[..] else {
        panic!("one question is open: {open:?}")
    };
    assert_eq!(question.choices, [Choice::Wait, Choice::Stop]);
    question.text.clone()
}

// field: rate_limit.max_waits
#[test]
fn a_run_waits_for_so_many_throttlings_and_then_asks() {
    let mut world = with_limits(|limits| limits.max_waits = 2);
    fail(&mut world, throttle(None));
    world.finish(success());
    fail(&mut world, throttle(None));
    world.finish(throttle(None));
    assert_eq!(
        question(&world),
        "It failed; the run has waited 2 times already, which is `rate_limit.max_waits`"
    );
    world.pass(minutes(10));
    assert_eq!((world.state(), world.machine.len()), (RunState::Waiting, 0));
    assert!(
        world.status().reason.starts_with("question q1-2-2: It failed;")
            && world.status().reason.ends_with("wait or stop"),
        "{}",
        world.status().reason
    );
    // The answer is worth as many waits again.
    world.answer(Choice::Wait);
    fail(&mut world, throttle(None));
    fail(&mut world, throttle(None));
    world.finish(throttle(None));
    question(&world);
    world.answer(Choice::Stop);
    assert_eq!(world.state(), RunState::Cancelled);
    // A resumed run has its waits again.
    world.resume();
    world.sleep();
    fail(&mut world, throttle(None));
    world.session();
}

// field: rate_limit.max_quota_waits
#[test]
fn a_run_waits_for_so_many_usage_limits_and_then_asks() {
    let mut world = with_limits(|limits| {
        limits.max_quota_waits = 1;
        limits.max_waits = 1;
    });
    fail(&mut world, usage(None));
    fail(&mut world, throttle(None));
    world.finish(usage(None));
    assert!(question(&world).ends_with("has waited 1 time already, which is `rate_limit.max_quota_waits`"));
}

#[test]
fn on_limit_ask_waits_for_the_answer_and_then_for_the_limit() {
    let reset = START.plus(minutes(90));
    let mut rules = rules(2);
    rules.on_limit = OnLimit::Ask;
    let mut world = World::with(rules);
    world.finish(usage(Some(reset)));
    assert_eq!(question(&world), "It failed.");
    assert_eq!(world.engine.next_wakeup(world.now), None);
    world.answer(Choice::Wait);
    assert_eq!(world.status().reason, "usage limit (five_hour)");
    world.sleep();
    assert!(world.now.wall >= reset);
    world.session();
}

// field: on_limit
#[test]
fn on_limit_stop_fails_at_once_on_either_kind() {
    for outcome in [usage(Some(START.plus(minutes(5)))), throttle(Some(secs(1)))] {
        let mut rules = rules(2);
        rules.on_limit = OnLimit::Stop;
        let mut world = World::with(rules);
        let code = outcome.failure.as_ref().map(|failure| failure.code);
        world.finish(outcome);
        assert_eq!(world.state(), RunState::Failed);
        assert_eq!(Some(failed_with(&world, 1).1), code);
        // Others have no use for the limit either.
        assert_eq!(world.engine.gates().count(), 1);
        world.resume();
        assert_eq!(world.state(), RunState::Waiting);
        world.sleep();
        assert_eq!(world.session().attempt, attempt(1, 2));
    }
}

#[test]
fn a_limit_is_told_by_its_code_where_the_session_named_none() {
    let mut world = World::with(rules(1));
    assert_eq!(fail(&mut world, failure(Cause::RateLimit, Code::E105)), minutes(60));
    assert_eq!(fail(&mut world, failure(Cause::RateLimit, Code::E102)), secs(10));
}

#[test]
fn waits_survive_a_restart() {
    for outcome in [
        validation(0, 2),
        validation(1, 2),
        transient(),
        usage(None),
        throttle(Some(secs(61))),
    ] {
        let mut world = World::with(rules(1));
        world.finish(outcome);
        let (before, until) = (world.status(), world.engine.next_wakeup(world.now));
        world.restart();
        assert_eq!((world.status(), world.engine.next_wakeup(world.now)), (before, until));
        world.sleep();
        assert_eq!(world.session().attempt, attempt(1, 2));
    }
}

fn kinds(rules: RunRules, outcomes: impl IntoIterator<Item = Outcome>) -> Vec<AttemptKind> {
    let mut world = World::with(rules);
    for outcome in outcomes {
        fail(&mut world, outcome);
    }
    world.starts.iter().map(|(_, start)| start.kind).collect()
}

#[test]
fn a_fatal_failure_is_never_tried_again() {
    let mut world = World::with(rules(1));
    world.finish(failure(Cause::Fatal, Code::E502));
    assert_eq!(world.state(), RunState::Failed);
    assert_eq!(
        kinds(rules(1), [validation(0, 1)]),
        [AttemptKind::First, AttemptKind::Retry]
    );
}
