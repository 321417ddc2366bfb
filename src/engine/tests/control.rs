//! Pause, resume, cancel, stop, and what a restart takes up.

use super::world::*;
use crate::engine::event::{PauseWhy, SessionChoice};
use crate::engine::{Command, Event, FactKind, Refusal, SheetState};
use crate::model::{Ask, AttemptKind, Cause, Code, Outcome, RunId, RunState, SheetNo, SheetStatus, StopHow};

fn fact_names(facts: &[crate::engine::Fact]) -> Vec<&'static str> {
    facts.iter().map(|fact| fact.kind.name()).collect()
}

fn refusal(decision: &crate::engine::Decision) -> String {
    decision.refusal.as_ref().map(Refusal::text).unwrap_or_default()
}

#[test]
fn the_intent_is_decided_before_the_start() {
    let mut world = World::new(1);
    let decision = world.submit(1, rules(1));
    assert_eq!(fact_names(&decision.facts), ["run_submitted", "attempt_intended"]);
    assert!(matches!(&decision.commands[..], [Command::StartAttempt(start)] if start.attempt == attempt(1, 1)));
}

#[test]
fn a_pause_lets_the_session_finish_and_starts_nothing() {
    let mut world = World::with(rules(2));
    let decision = world.pause(false);
    assert_eq!(
        (fact_names(&decision.facts), decision.commands),
        (vec!["run_paused"], vec![])
    );
    assert_eq!(world.status().reason, "as asked; sheet 1 is still at work");
    world.finish(success());
    assert_eq!((world.state(), world.machine.len()), (RunState::Paused, 0));
    assert_eq!(world.engine.next_wakeup(world.now), None);
    assert_eq!(
        world.pause(false),
        crate::engine::Decision::default(),
        "asked again, nothing changes"
    );
    world.resume();
    assert_eq!(shape(&world.session()), (2, 1, AttemptKind::First, Ask::Task, None));
}

#[test]
fn a_paused_run_keeps_what_it_would_do_next() {
    let mut world = World::with(rules(2));
    world.pause(false);
    world.finish(validation(1, 2));
    world.pass(minutes(10));
    assert!(world.machine.is_empty());
    world.resume();
    assert_eq!(
        shape(&world.session()),
        (1, 2, AttemptKind::Completion, Ask::Completion, Some("theirs"))
    );
}

#[test]
fn a_paused_run_ends_when_its_last_session_does() {
    let mut world = World::with(rules(1));
    world.pause(false);
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn pause_now_stops_the_session_and_resume_goes_on_with_it() {
    for end in [
        interrupted(),
        transient(),
        validation(1, 2),
        failure(Cause::Fatal, Code::E502),
        throttle(None),
    ] {
        let mut world = World::with(rules(1));
        let decision = world.pause(true);
        assert_eq!(fact_names(&decision.facts), ["run_paused", "stop_asked"]);
        let stop = Command::StopAttempt {
            attempt: attempt(1, 1),
            how: StopHow::Terminate,
        };
        assert_eq!(decision.commands, [stop]);
        assert_eq!(fact_names(&world.pause(true).facts), Vec::<&str>::new());
        world.finish(end);
        let SheetState::Waiting(wait) = world.sheet(1) else {
            panic!("it is to go on")
        };
        assert_eq!((wait.cause, wait.code), (Cause::Interrupted, Code::E004));
        world.resume();
        assert_eq!(
            shape(&world.session()),
            (1, 2, AttemptKind::Continuation, Ask::GoOn, Some("theirs"))
        );
    }
}

#[test]
fn a_session_that_succeeded_before_it_could_be_stopped_has_succeeded() {
    let mut world = World::with(rules(2));
    world.pause(true);
    world.finish(success());
    assert_eq!(world.sheets(), [SheetStatus::Completed, SheetStatus::Pending]);
}

#[test]
fn a_resume_need_not_wait_for_the_session_that_is_being_stopped() {
    let mut world = World::with(rules(1));
    world.pause(true);
    world.resume();
    assert_eq!((world.state(), world.machine.len()), (RunState::Running, 1));
    world.finish(without_work(interrupted()));
    assert_eq!(shape(&world.session()), (1, 2, AttemptKind::Retry, Ask::Task, None));
}

#[test]
fn an_interrupted_conductor_says_so() {
    let mut world = World::with(rules(1));
    world.event(&Event::PauseRequested {
        run: RUN,
        now: true,
        why: PauseWhy::Interrupted,
    });
    world.finish(interrupted());
    assert_eq!(
        (world.state(), world.status().reason.as_str()),
        (RunState::Paused, "interrupted")
    );
}

#[test]
fn a_failed_run_is_resumed_at_what_is_not_completed_with_fresh_budgets() {
    let mut stubborn = rules(3);
    stubborn.retry.max_retries = 0;
    let mut world = World::with(stubborn);
    world.finish(success());
    for next in 2..=3 {
        world.finish(validation(0, 2));
        assert_eq!(world.state(), RunState::Failed);
        let decision = world.resume();
        assert_eq!(
            fact_names(&decision.facts),
            ["run_resumed", "generation_opened", "attempt_intended"]
        );
        assert_eq!(
            shape(&world.session()),
            (2, next, AttemptKind::First, Ask::Task, None),
            "numbers go on"
        );
    }
    world.finish(success());
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn cancel_stops_the_session_and_ends_with_it() {
    let mut world = World::with(rules(3));
    world.finish(success());
    let decision = world.cancel();
    assert_eq!(
        fact_names(&decision.facts),
        ["run_cancelling", "stop_asked", "sheet_ended"]
    );
    assert_eq!(world.state(), RunState::Running);
    assert_eq!(
        world.cancel(),
        crate::engine::Decision::default(),
        "asked again, nothing changes"
    );
    assert!(refusal(&world.resume()).contains("is being cancelled"));
    assert!(refusal(&world.pause(false)).contains("is being cancelled"));
    world.finish(interrupted());
    assert_eq!(world.state(), RunState::Cancelled);
    assert_eq!(
        world.sheets(),
        [SheetStatus::Completed, SheetStatus::Cancelled, SheetStatus::Cancelled]
    );
    assert_eq!(world.cancel(), crate::engine::Decision::default());
    assert!(refusal(&world.pause(false)).contains("job-1#1 is cancelled"));
    world.resume();
    assert_eq!(shape(&world.session()), (2, 2, AttemptKind::First, Ask::Task, None));
    world.finish(success());
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn work_that_is_done_while_its_run_is_cancelled_counts() {
    let mut world = World::with(rules(2));
    world.cancel();
    world.finish(success());
    assert_eq!(world.state(), RunState::Cancelled);
    assert_eq!(world.sheets(), [SheetStatus::Completed, SheetStatus::Cancelled]);

    let mut world = World::with(rules(1));
    world.cancel();
    world.finish(success());
    world.resume();
    assert_eq!(world.state(), RunState::Completed, "nothing of it is left to do");
}

#[test]
fn a_run_without_a_session_is_cancelled_at_once() {
    let mut world = World::with(rules(2));
    world.finish(usage(None));
    world.cancel();
    assert_eq!(world.state(), RunState::Cancelled);
    assert_eq!(world.sheets(), [SheetStatus::Cancelled, SheetStatus::Cancelled]);
}

#[test]
fn what_a_state_does_not_allow_is_refused_in_words() {
    let mut world = World::with(rules(1));
    assert_eq!(refusal(&world.resume()), "job-1#1 is not paused; it goes on by itself");
    let again = Event::Submitted {
        run: RUN,
        job: crate::model::JobName::new("other").expect("is a name"),
        no: crate::model::RunNo(1),
        rules: rules(1),
        completed: Vec::new(),
    };
    assert_eq!(
        refusal(&world.event(&again)),
        "there is a run with the number 1 already"
    );
    world.finish(success());
    assert!(refusal(&world.resume()).starts_with("job-1#1 is completed"));
    assert!(refusal(&world.pause(true)).starts_with("job-1#1 is completed"));
    assert!(refusal(&world.cancel()).starts_with("job-1#1 is completed"));
    let unknown = world.event(&Event::CancelRequested { run: RunId(9) });
    assert_eq!(unknown.refusal, Some(Refusal::NoSuchRun(RunId(9))));
}

#[test]
fn one_run_of_a_job_is_live() {
    let mut world = World::with(rules(1));
    let second = |run| Event::Submitted {
        run: RunId(run),
        job: crate::model::JobName::new("job-1").expect("is a name"),
        no: crate::model::RunNo(2),
        rules: rules(1),
        completed: Vec::new(),
    };
    assert!(refusal(&world.event(&second(2))).starts_with("job-1#1 is not over yet"));
    world.finish(failure(Cause::Fatal, Code::E502));
    assert_eq!(world.event(&second(2)).refusal, None);
    assert!(refusal(&world.resume()).starts_with("job-1#2 is not over yet"));
}

#[test]
fn sheets_before_the_start_sheet_are_skipped_and_stay_so() {
    let mut later = rules(4);
    later.start_sheet = SheetNo(3);
    let mut world = World::new(1);
    world.submit_done(1, later, vec![SheetNo(2), SheetNo(4)]);
    assert_eq!(shape(&world.session()).0, 3);
    let (status, reason, _) = world
        .engine
        .sheet_status(RUN, SheetNo(1), world.now)
        .expect("is a sheet");
    assert_eq!((status, reason.as_str()), (SheetStatus::Skipped, "before start sheet"));
    world.finish(failure(Cause::Fatal, Code::E502));
    world.resume();
    assert_eq!(shape(&world.session()).0, 3);
    world.finish(success());
    use SheetStatus::{Completed, Skipped};
    assert_eq!(
        (world.sheets(), world.state()),
        (vec![Skipped, Completed, Completed, Completed], RunState::Completed)
    );
}

#[test]
fn sheets_that_were_found_done_are_skipped_and_say_so() {
    let mut later = rules(4);
    (later.start_sheet, later.found_done) = (SheetNo(4), Some(SheetNo(2)));
    let mut world = World::new(1);
    world.submit_done(1, later, Vec::new());
    assert_eq!(shape(&world.session()).0, 4);
    let reason = |sheet| {
        let status = world.engine.sheet_status(RUN, SheetNo(sheet), world.now);
        status.expect("is a sheet").1
    };
    assert_eq!(
        [reason(1), reason(2), reason(3)],
        ["found done", "found done", "before start sheet"]
    );
}

#[test]
fn a_run_with_nothing_to_do_is_completed_at_once() {
    let mut world = World::new(1);
    world.submit_done(1, rules(2), vec![SheetNo(1), SheetNo(2)]);
    assert_eq!((world.state(), world.starts.len()), (RunState::Completed, 0));
}

// field: pause_between_sheets_seconds
#[test]
fn the_pause_between_sheets_is_waited() {
    let mut slow = rules(2);
    slow.pause_between_sheets = secs(30);
    slow.retry.base_delay = secs(3);
    let mut world = World::with(slow);
    assert_eq!(world.starts.len(), 1, "no pause before the first");
    world.finish(validation(0, 2));
    assert_eq!(world.sleep(), secs(3), "no pause between attempts");
    world.finish(success());
    let status = world.status();
    assert_eq!(
        (status.state, status.reason.as_str()),
        (RunState::Waiting, "pause between sheets")
    );
    assert_eq!(status.until, Some(world.now.wall.plus(secs(30))));
    world.pass(secs(29));
    assert!(world.machine.is_empty());
    world.restart();
    assert_eq!(world.sleep(), secs(1), "a restart does not begin it anew");
    assert_eq!(shape(&world.session()), (2, 1, AttemptKind::First, Ask::Task, None));
}

#[test]
fn the_conductor_stops_without_touching_sessions() {
    let mut world = World::with(rules(2));
    let decision = world.event(&Event::ShutdownRequested { stop_sessions: false });
    assert_eq!(decision, crate::engine::Decision::default());
    world.finish(success());
    assert_eq!((world.machine.len(), world.engine.next_wakeup(world.now)), (0, None));
    assert_eq!(world.state(), RunState::Queued);
    world.restart();
    assert_eq!(shape(&world.session()).0, 2);
}

#[test]
fn a_conductor_that_stops_sets_no_timer_and_opens_no_gate() {
    let mut world = World::with(rules(2));
    world.finish(usage(None));
    world.event(&Event::ShutdownRequested { stop_sessions: false });
    assert_eq!(world.engine.next_wakeup(world.now), None);
    (world.now.wall, world.now.boot) = (START.plus(minutes(61)), minutes(61).0);
    assert_eq!(
        world.engine.decide(world.now, &Event::Tick),
        crate::engine::Decision::default()
    );
    assert_eq!(
        world.status().reason,
        "the conductor stops; it goes on with the next start"
    );
}

#[test]
fn sessions_that_the_conductor_stopped_go_on_with_its_next_start() {
    let mut world = World::with(rules(1));
    let decision = world.event(&Event::ShutdownRequested { stop_sessions: true });
    assert_eq!(
        (fact_names(&decision.facts), world.stops.len()),
        (vec!["stop_asked"], 1)
    );
    world.finish(transient());
    assert!(world.machine.is_empty());
    world.restart();
    assert_eq!(
        shape(&world.session()),
        (1, 2, AttemptKind::Continuation, Ask::GoOn, Some("theirs"))
    );
}

#[test]
fn after_a_restart_every_attempt_without_an_end_is_looked_for() {
    let mut world = World::new(2);
    world.submit(1, rules(1));
    world.submit(2, rules(1));
    world.event(&Event::AttemptStarted {
        attempt: attempt(1, 1),
        at: START,
        invocation: Some("1f".into()),
    });
    world.event(&Event::PauseRequested {
        run: RunId(2),
        now: true,
        why: PauseWhy::Person,
    });
    let decision = world.restart();
    let commands: Vec<_> = decision
        .commands
        .iter()
        .map(|command| match command {
            Command::StartAttempt(start) => format!("start {}", start.attempt),
            Command::AdoptAttempt(start) => format!("adopt {}", start.attempt),
            Command::StopAttempt { attempt, .. } => format!("stop {attempt}"),
        })
        .collect();
    assert_eq!(
        commands,
        ["adopt 1-1-1", "adopt 2-1-1", "stop 2-1-1"],
        "what was asked is asked again"
    );
    assert!(decision.facts.is_empty());
}

#[test]
fn an_attempt_that_never_ran_is_started_under_the_same_number() {
    let mut world = World::with(rules(1));
    let first = world.session();
    world.machine.clear();
    let decision = world.event(&Event::NeverRan { attempt: first.attempt });
    assert_eq!(decision.facts, []);
    assert_eq!(world.session(), first);
}

#[test]
fn an_attempt_that_was_intended_before_a_power_cut_is_never_started_again() {
    let mut world = World::with(rules(1));
    let first = world.session().attempt;
    world.power_cut();
    let second = world.session();
    assert_eq!((first, second.attempt), (attempt(1, 1), attempt(1, 2)));
    // Once for each interruption; and a conductor that comes back in the same boot decides nothing anew.
    world.restart();
    assert_eq!(world.session().attempt, attempt(1, 2));
    world.power_cut();
    assert_eq!(world.session().attempt, attempt(1, 3));
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn an_attempt_that_never_ran_is_not_started_while_its_run_is_held() {
    let mut world = World::with(rules(1));
    world.pause(false);
    world.machine.clear();
    world.event(&Event::NeverRan { attempt: attempt(1, 1) });
    assert!(world.machine.is_empty());
    world.resume();
    assert_eq!(shape(&world.session()), (1, 2, AttemptKind::Retry, Ask::Task, None));

    let mut world = World::with(rules(1));
    world.cancel();
    world.machine.clear();
    world.event(&Event::NeverRan { attempt: attempt(1, 1) });
    assert_eq!(world.state(), RunState::Cancelled);
}

#[test]
fn an_attempt_whose_traces_are_gone_is_not_taken_for_one_that_never_ran() {
    let mut world = World::with(rules(1));
    world.event(&Event::AttemptStarted {
        attempt: attempt(1, 1),
        at: START,
        invocation: None,
    });
    let SessionChoice::New(session) = world.session().session else {
        panic!("it is the first");
    };
    world.machine.clear();
    world.event(&Event::NeverRan { attempt: attempt(1, 1) });
    assert_eq!(
        shape(&world.session()),
        (1, 2, AttemptKind::Continuation, Ask::GoOn, Some(session.as_str()))
    );
    let told = world.journal.iter().find_map(|fact| match &fact.kind {
        FactKind::AttemptEnded { outcome, .. } => outcome.failure.as_ref(),
        _ => None,
    });
    assert_eq!(
        told.map(|failure| failure.message.as_str()),
        Some("the traces of the session are gone")
    );
    let lost = Outcome {
        session_lost: true,
        ..without_work(transient())
    };
    world.finish(lost);
    world.sleep();
    assert_eq!(
        shape(&world.session()),
        (1, 3, AttemptKind::Retry, Ask::TaskAgain, None)
    );
}

#[test]
fn late_and_repeated_reports_change_nothing() {
    let mut world = World::with(rules(2));
    let first = world.session().attempt;
    world.event(&Event::AttemptStarted {
        attempt: first,
        at: START,
        invocation: None,
    });
    world.finish(success());
    let before = world.engine.clone();
    for outcome in [
        success(),
        transient(),
        failure(Cause::Fatal, Code::E502),
        Outcome {
            flags: vec!["x".into()],
            ..success()
        },
    ] {
        assert_eq!(
            world.event(&Event::AttemptFinished {
                attempt: first,
                outcome
            }),
            Default::default()
        );
    }
    world.event(&Event::NeverRan { attempt: first });
    world.event(&Event::AttemptStarted {
        attempt: first,
        at: START,
        invocation: None,
    });
    world.event(&Event::AttemptFinished {
        attempt: attempt(2, 7),
        outcome: success(),
    });
    assert_eq!(world.engine, before);
}

#[test]
fn a_journal_that_was_cut_within_a_decision_is_finished() {
    let mut world = World::with(rules(2));
    world.finish(success());
    let ended = world
        .journal
        .iter()
        .position(|fact| matches!(fact.kind, FactKind::AttemptEnded { .. }));
    let mut engine = crate::engine::Engine::new(world.engine.settings().clone(), uuid::Uuid::nil(), 1);
    for fact in &world.journal[..=ended.expect("it ended")] {
        engine.apply(fact);
    }
    let decision = engine.decide(world.now, &Event::Restored { same_boot: true });
    assert_eq!(fact_names(&decision.facts), ["sheet_ended", "attempt_intended"]);
}

#[test]
fn an_ended_run_stays_until_it_is_forgotten_and_its_facts_bring_it_back() {
    let mut world = World::with(rules(1));
    world.engine.forget(RUN);
    assert!(world.engine.run(RUN).is_some(), "a live run is not forgotten");
    world.finish(failure(Cause::Fatal, Code::E502));
    let before = world.engine.clone();
    world.engine.forget(RUN);
    assert_eq!(world.engine.runs().count(), 0);
    for fact in &world.journal {
        world.engine.apply(fact);
    }
    assert_eq!(world.engine, before);
    world.resume();
    world.session();
}

#[test]
fn the_same_question_has_the_same_answer() {
    let mut jittered = rules(1);
    jittered.retry.jitter = true;
    let world = World::with(jittered);
    let before = world.engine.clone();
    let event = Event::AttemptFinished {
        attempt: attempt(1, 1),
        outcome: transient(),
    };
    assert_eq!(
        world.engine.decide(world.now, &event),
        world.engine.decide(world.now, &event)
    );
    assert_eq!(world.engine, before, "deciding changes nothing");
}

#[test]
fn a_retry_runs_every_sheet_from_one_on_again() {
    use SheetStatus::{Completed, Pending, Running};
    let mut world = World::with(rules(4));
    for _ in 0..4 {
        world.finish(success());
    }
    assert_eq!(world.state(), RunState::Completed);
    let retry = |world: &mut World, from| {
        world.event(&Event::RetryRequested {
            run: RUN,
            from: SheetNo(from),
        })
    };
    let refused = retry(&mut world, 5).refusal.expect("is refused").text();
    assert_eq!(refused, "there is no sheet 5 in job-1#1: it has 4");
    retry(&mut world, 3);
    assert_eq!(world.sheets(), [Completed, Completed, Running, Pending]);
    assert_eq!(world.session().attempt, attempt(3, 2), "numbers of attempts go on");
    let refused = retry(&mut world, 1).refusal.expect("is refused").text();
    assert!(refused.contains("pause it first"), "{refused}");
    world.finish(transient());
    world.pause(false);
    retry(&mut world, 2);
    assert_eq!(world.sheets(), [Completed, Running, Pending, Pending]);
    world.finish(success());
    world.restart();
    world.finish(success());
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}
