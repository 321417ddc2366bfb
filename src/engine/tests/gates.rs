//! Gates, the circuit breaker, questions, pace and holds: what keeps sessions of an account, or all, from starting.

use super::world::*;
use crate::engine::event::{EngineSettings, Refusal, StartHold};
use crate::engine::rules::RunRules;
use crate::engine::{Choice, Event, GateKind};
use crate::job::plan::{CircuitBreaker, FailFast, Parallel, RetryPolicy};
use crate::model::{
    AccountId, AttemptKind, Cause, Code, Limit, LimitKind, Outcome, RunId, RunState, SheetNo, SheetStatus,
};

use SheetStatus::{Completed, Failed, Pending, Running};

fn at_once(sheets: u32) -> RunRules {
    RunRules {
        parallel: Some(Parallel {
            max_concurrent: 100,
            fail_fast: FailFast::Hold,
            weights: Vec::new(),
        }),
        ..rules(sheets)
    }
}

fn with_places(places: u32) -> World {
    let mut world = World::new(1000);
    world.set(EngineSettings {
        max_concurrent_jobs: 1000,
        max_concurrent_sheets: places,
        ..EngineSettings::default()
    });
    world
}

fn unauthorized() -> Outcome {
    without_work(failure(Cause::Fatal, Code::E502))
}

fn answers(world: &mut World) {
    let all: Vec<_> = world.machine.keys().copied().collect();
    for attempt in all {
        world.event(&Event::AttemptAnswered { attempt });
    }
}

#[test]
fn who_waits_behind_a_gate_is_counted_while_it_is_closed_and_while_it_opens() {
    let mut world = World::new(5);
    for run in 1..=3 {
        world.submit(run, rules(1));
    }
    for run in 1..=3 {
        world.finish_of(run, usage(Some(world.now.wall.plus(secs(600)))));
    }
    let behind = |world: &World| {
        let keys = world.engine.gates.keys();
        keys.map(|key| world.engine.waiting_behind(key, world.now))
            .collect::<Vec<_>>()
    };
    assert_eq!(behind(&world), [3]);
    while world.machine.is_empty() {
        world.sleep();
    }
    assert_eq!(behind(&world), [2], "one finds out whether it is open");
}

#[test]
fn a_run_whose_last_session_is_at_work_is_not_stopped_by_an_answer_about_its_account() {
    let mut world = World::new(5);
    world.submit(1, rules(2));
    world.submit(2, rules(1));
    world.finish_of(1, failure(Cause::Fatal, Code::E502));
    world.answer(Choice::Stop);
    assert_eq!(world.status_of(1).state, RunState::Cancelled);
    assert_eq!(world.status_of(2).state, RunState::Running);
}

/// Fifty runs of two hundred sheets wait for one window: one start is refused after the first refusal was read.
// field: circuit_breaker.cross_workspace_coordination
// field: circuit_breaker.honor_other_jobs_rate_limits
#[test]
fn however_many_wait_one_session_finds_out() {
    let mut world = with_places(10);
    for run in 1..=50 {
        world.submit(run, at_once(4));
    }
    let in_flight: Vec<_> = world.machine.keys().copied().collect();
    assert_eq!(in_flight.len(), 10);
    let reset = START.plus(minutes(90));
    for attempt in in_flight {
        world.finish_attempt(attempt, usage(Some(reset)));
    }
    assert!(
        world.machine.is_empty(),
        "what is at work is refused, and nothing is started"
    );
    world.sleep();
    assert!(
        (secs(0)..secs(5)).contains(&world.now.wall.since(reset)),
        "it goes on within 5 s of the reset"
    );
    assert_eq!(world.machine.len(), 1);
    // The clocks differ: the window is not over yet.
    world.finish_of(1, usage(Some(reset.plus(minutes(10)))));
    assert!(world.machine.is_empty());
    world.sleep();
    let mut answered = Vec::new();
    for at_work in [1, 2, 4, 8, 10] {
        assert_eq!(world.machine.len(), at_work);
        assert_eq!(world.engine.gates().count(), 1);
        let mut silent = world.machine.keys().filter(|attempt| !answered.contains(*attempt));
        let attempt = *silent.next().expect("one was not answered yet");
        world.event(&Event::AttemptAnswered { attempt });
        answered.push(attempt);
    }
    assert_eq!(world.engine.gates().count(), 0, "it is open");
}

#[test]
fn a_probe_that_is_cut_off_proves_nothing_and_the_next_one_is_made() {
    let mut world = World::new(5);
    for run in 1..=3 {
        world.submit(run, rules(1));
    }
    for run in 1..=3 {
        world.finish_of(run, throttle(Some(secs(30))));
    }
    world.sleep();
    assert_eq!(
        world.status_of(2).reason,
        "throttled by the API: a session finds out whether it is over"
    );
    world.finish_of(1, without_work(transient()));
    assert_eq!(
        (world.status_of(1).state, world.status_of(2).state),
        (RunState::Waiting, RunState::Running)
    );
    assert_eq!(world.machine.len(), 1, "and no other beside it");
}

#[test]
fn a_session_that_worked_opens_the_gate_once_answered_or_not() {
    for (answered, outcome) in [(false, success()), (true, success()), (false, validation(0, 2))] {
        let mut world = World::new(9);
        for run in 1..=6 {
            world.submit(run, rules(1));
        }
        for run in 1..=6 {
            world.finish_of(run, usage(None));
        }
        world.sleep();
        let probe = *world.machine.keys().next().expect("one finds out");
        if answered {
            world.event(&Event::AttemptAnswered { attempt: probe });
        }
        world.finish_attempt(probe, outcome);
        assert_eq!(world.machine.len(), 2, "{answered}");
    }
}

#[test]
fn a_restart_while_a_probe_is_made_starts_no_other() {
    let mut world = World::new(5);
    world.submit(1, rules(1));
    world.submit(2, rules(1));
    world.finish_of(1, usage(None));
    world.finish_of(2, usage(None));
    world.sleep();
    world.restart();
    assert_eq!(world.machine.len(), 1);
    assert_eq!(world.status_of(2).state, RunState::Waiting);
    world.finish_of(1, success());
    assert_eq!(world.machine.len(), 1);
    assert_eq!(world.status_of(2).state, RunState::Running);
}

#[test]
fn a_limit_of_one_model_family_holds_that_family_and_the_unknown() {
    let mut world = World::new(9);
    for (run, model) in [(1, Some("claude-opus-4")), (2, Some("claude-sonnet-4")), (3, None)] {
        world.submit(
            run,
            RunRules {
                model: model.map(Into::into),
                ..rules(2)
            },
        );
    }
    let opus = Limit {
        resets_at: Some(START.plus(minutes(60))),
        ..limit(LimitKind::Usage, Some("seven_day_opus"))
    };
    world.finish_of(1, limited(Code::E104, opus));
    world.finish_of(2, success());
    world.finish_of(3, success());
    let states = [1, 2, 3].map(|run| world.status_of(run).state);
    assert_eq!(states, [RunState::Waiting, RunState::Running, RunState::Waiting]);
}

#[test]
fn a_person_may_say_that_a_limit_is_over() {
    let mut world = World::new(5);
    world.submit(1, rules(1));
    world.submit(2, rules(1));
    world.finish_of(1, usage(None));
    world.event(&Event::GatesCleared {
        account: Some(AccountId("another".into())),
    });
    assert_eq!(world.machine.len(), 1);
    world.event(&Event::GatesCleared { account: None });
    assert_eq!(world.machine.len(), 2);
}

#[test]
fn what_is_over_for_one_account_is_not_for_another() {
    let mut world = World::new(5);
    let another = AccountId("another".into());
    world.submit(1, rules(1));
    world.submit(
        2,
        RunRules {
            account: Some(another.clone()),
            ..rules(1)
        },
    );
    world.finish_of(1, usage(None));
    world.finish_of(2, usage(None));
    world.event(&Event::GatesCleared { account: Some(another) });
    let at_work: Vec<_> = world.machine.keys().map(|attempt| attempt.run.0).collect();
    assert_eq!(at_work, [2]);
    assert_eq!(world.engine.gates().count(), 1);
}

// field: circuit_breaker
// field: circuit_breaker.failure_threshold
// field: circuit_breaker.recovery_timeout_seconds
#[test]
fn faults_in_a_row_give_the_account_a_rest() {
    let breaker = CircuitBreaker {
        failure_threshold: 3,
        recovery: minutes(5),
    };
    let broken = |sheets| RunRules {
        circuit_breaker: Some(breaker),
        ..at_once(sheets)
    };
    let mut world = with_places(2);
    world.submit(1, broken(4));
    world.finish_of(1, transient());
    world.finish_of(1, success());
    world.finish_of(1, transient());
    world.finish_of(1, transient());
    assert_eq!(world.engine.gates().count(), 0, "two in a row are not three");
    let now = world.now.wall;
    let sheet = world.machine.keys().next().copied();
    match sheet {
        Some(attempt) => drop(world.finish_attempt(attempt, transient())),
        None => {
            world.sleep();
            world.finish_of(1, transient());
        }
    }
    let [(key, gate)] = world.engine.gates().collect::<Vec<_>>()[..] else {
        panic!("the breaker is open")
    };
    assert_eq!(key.kind, GateKind::Faults);
    assert!(gate.until >= now.plus(minutes(5)));
    world.submit(2, rules(1));
    assert_eq!(world.status_of(2).reason, "too many faults in a row");
    while world.machine.is_empty() {
        world.sleep();
    }
    assert_eq!(world.machine.len(), 1, "half open");
    // It is no better: closed again at once.
    let attempt = *world.machine.keys().next().expect("the probe");
    world.finish_attempt(attempt, without_work(transient()));
    assert!(world.machine.is_empty());
    while world.machine.is_empty() {
        world.sleep();
    }
    answers(&mut world);
    assert_eq!(world.machine.len(), 2);
}

/// A run of one sheet whose account rests for five minutes after three faults.
fn alone(transient_retries: u32) -> World {
    let breaker = CircuitBreaker {
        failure_threshold: 3,
        recovery: minutes(5),
    };
    World::with(RunRules {
        circuit_breaker: Some(breaker),
        retry: RetryPolicy {
            transient_retries,
            ..rules(1).retry
        },
        ..rules(1)
    })
}

/// The session fails so; the kind of the next one, where there is one.
fn then(world: &mut World, outcome: Outcome) -> Option<AttemptKind> {
    world.finish(outcome);
    while world.machine.is_empty() && world.state() == RunState::Waiting {
        world.sleep();
    }
    world
        .starts
        .last()
        .filter(|_| !world.machine.is_empty())
        .map(|(_, start)| start.kind)
}

#[test]
fn what_a_sheet_finds_out_for_all_is_no_fault_of_its_own() {
    let mut world = alone(5);
    let overloaded = || without_work(transient());
    for _ in 0..2 {
        assert_eq!(then(&mut world, overloaded()), Some(AttemptKind::Retry));
    }
    assert_eq!(
        then(&mut world, overloaded()),
        Some(AttemptKind::Retry),
        "it is its third own fault"
    );
    let began = world.now.wall;
    for _ in 0..40 {
        assert_eq!(then(&mut world, overloaded()), Some(AttemptKind::Probe));
        // One answer in the storm is not its end.
        assert_eq!(then(&mut world, transient()), Some(AttemptKind::Probe));
    }
    let a_minute_more = world.now.wall.since(began).0 / 80 - minutes(5).0;
    assert!(
        (0..=minutes(1).0).contains(&a_minute_more),
        "asked each five minutes: {a_minute_more}"
    );
    // What the session does wrong itself is its own.
    let crashed = || failure(Cause::Transient, Code::E003);
    for _ in 0..2 {
        assert_eq!(then(&mut world, crashed()), Some(AttemptKind::Continuation));
    }
    assert_eq!(then(&mut world, crashed()), None);
    assert_eq!(world.sheets(), [Failed]);
}

#[test]
fn who_finds_out_for_all_does_not_do_so_for_ever() {
    let mut world = alone(5);
    while then(&mut world, without_work(transient())).is_some() {}
    let for_all = |(_, start): &&(_, crate::engine::event::Start)| start.kind == AttemptKind::Probe;
    assert_eq!(world.starts.iter().filter(for_all).count(), 100);
    assert_eq!(world.starts.len(), 1 + 5 + 100);
    assert_eq!(world.sheets(), [Failed]);
}

#[test]
fn who_may_not_retry_does_not_find_out_for_others_either() {
    let mut world = alone(0);
    assert_eq!(then(&mut world, without_work(transient())), None);
    assert_eq!(world.sheets(), [Failed]);
}

// field: circuit_breaker.enabled
#[test]
fn without_a_circuit_breaker_faults_are_no_reason_to_rest() {
    let mut world = World::with(RunRules {
        circuit_breaker: None,
        ..at_once(20)
    });
    for _ in 0..20 {
        let attempt = *world.machine.keys().next().expect("one is at work");
        world.finish_attempt(attempt, transient());
        assert_eq!(world.engine.gates().count(), 0);
    }
}

#[test]
fn without_authentication_one_sheet_fails_and_one_person_is_asked() {
    let mut world = World::new(9);
    world.submit(1, rules(3));
    world.submit(2, rules(1));
    world.submit(
        3,
        RunRules {
            account: Some(AccountId("another".into())),
            ..rules(2)
        },
    );
    world.finish_of(1, unauthorized());
    assert_eq!(world.sheets(), [Failed, Pending, Pending]);
    assert_eq!(
        world.status().reason,
        "question q1-1-1: It failed; answer it with retry or stop"
    );
    // What was at work fails too, and adds no question.
    world.finish_of(2, unauthorized());
    assert_eq!(world.engine.questions().count(), 1);
    world.submit(4, rules(1));
    assert_eq!(
        (world.status_of(4).state, world.status_of(3).state),
        (RunState::Waiting, RunState::Running)
    );
    world.restart();
    world.answer(Choice::Retry);
    assert_eq!(world.sheets(), [Running, Pending, Pending]);
    assert_eq!(world.status_of(4).state, RunState::Running);
    world.finish_of(1, success());
    assert_eq!(world.sheets(), [Completed, Running, Pending]);
}

#[test]
fn who_has_nothing_left_fails_without_a_question() {
    let mut world = World::with(rules(1));
    world.finish(unauthorized());
    assert_eq!((world.state(), world.engine.questions().count()), (RunState::Failed, 0));
    assert_eq!(world.status().reason, "sheet 1: E502 It failed.");
}

#[test]
fn stop_ends_the_runs_that_wait() {
    let mut world = World::new(9);
    world.submit(1, rules(2));
    world.submit(2, rules(2));
    world.finish_of(1, unauthorized());
    world.answer(Choice::Stop);
    assert_eq!(world.state(), RunState::Cancelled);
    assert_eq!(world.stops.len(), 1, "the other run's session is stopped");
    world.finish_of(2, interrupted());
    assert_eq!(world.status_of(2).state, RunState::Cancelled);
    world.resume();
    assert_eq!(world.sheets(), [Running, Pending]);
}

#[test]
fn an_answer_moves_neither_ended_runs_nor_those_of_another_account() {
    let mut world = World::new(5);
    world.submit(1, rules(2));
    world.finish_of(1, failure(Cause::Fatal, Code::E509));
    world.submit(2, rules(2));
    let another = RunRules {
        account: Some(AccountId("another".into())),
        ..rules(2)
    };
    world.submit(3, another);
    world.finish_of(2, unauthorized());
    let decision = world.answer(Choice::Stop);
    assert_eq!(decision.refusal, None);
    let states = [1, 2, 3].map(|run| world.status_of(run).state);
    assert_eq!(states, [RunState::Failed, RunState::Cancelled, RunState::Running]);
}

#[test]
fn a_question_that_nobody_waits_for_is_gone() {
    let mut world = World::with(rules(2));
    world.finish(unauthorized());
    world.cancel();
    assert_eq!(world.engine.questions().count(), 0);
    let question = crate::engine::QuestionId("q1-1-1".into());
    let decision = world.event(&Event::Answered {
        question: question.clone(),
        choice: Choice::Retry,
    });
    assert_eq!(decision.refusal, Some(Refusal::NoSuchQuestion(question)));
}

#[test]
fn an_answer_that_is_none_is_refused_with_those_that_are() {
    let mut world = World::with(rules(2));
    world.finish(unauthorized());
    let decision = world.answer(Choice::Wait);
    assert_eq!(
        decision.refusal.map(|refusal| refusal.text()).as_deref(),
        Some("question q1-1-1 can be answered with retry or stop")
    );
    assert_eq!(world.engine.questions().count(), 1);
}

#[test]
fn a_fault_of_the_account_is_no_fail_fast_and_blocks_nobody() {
    let mut rules = at_once(4);
    rules.dependencies = vec![crate::job::plan::Dependency {
        of: (SheetNo(4), SheetNo(4)).into(),
        on: (SheetNo(1), SheetNo(1)).into(),
        pairwise: false,
    }];
    let mut world = World::with(rules);
    world.finish_attempt(attempt(1, 1), unauthorized());
    assert_eq!(world.sheets(), [Failed, Running, Running, Pending]);
    world.finish_attempt(attempt(2, 1), success());
    world.finish_attempt(attempt(3, 1), success());
    assert_eq!(world.state(), RunState::Waiting, "sheet 4 waits for the answer");
    world.answer(Choice::Retry);
    world.finish(success());
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn starts_of_an_account_keep_its_pace() {
    let mut world = World::new(1000);
    world.set(EngineSettings {
        max_concurrent_sheets: 1000,
        max_starts_per_minute: Some(3),
        ..EngineSettings::default()
    });
    world.submit(1, at_once(10));
    assert_eq!(world.machine.len(), 3, "the bucket begins full");
    for started in 4..=6 {
        assert_eq!(world.sleep(), secs(20));
        assert_eq!(world.machine.len(), started);
    }
    world.pass(minutes(10));
    assert_eq!(world.machine.len(), 9, "and holds a minute's worth");
}

/// Starts from before the clock was set back count as no later than those after it, and as no more than a minute's.
#[test]
fn the_pace_is_kept_by_a_conductor_that_comes_after_the_clock_was_set_back() {
    let mut world = World::new(1000);
    world.set(EngineSettings {
        max_starts_per_minute: Some(2),
        ..EngineSettings::default()
    });
    for run in 1..=3 {
        world.submit(run, rules(1));
        world.finish_of(run, success());
        world.pass(minutes(1));
    }
    world.set_clock(minutes(-300));
    world.pass(minutes(10));
    world.submit(4, at_once(9));
    assert_eq!(world.machine.len(), 2);
    world.pass(secs(15));
    world.restart();
    assert_eq!(world.machine.len(), 2, "two started a quarter of a minute ago");
    assert_eq!(world.sleep(), secs(15));
    assert_eq!(world.machine.len(), 3);
}

#[test]
fn a_hold_lets_running_sessions_end_and_starts_nothing() {
    let mut world = World::with(rules(2));
    let until = Some(START.plus(minutes(8 * 60)));
    let why = "quiet hours".to_owned();
    world.event(&Event::HoldsChanged {
        holds: vec![StartHold {
            why,
            until,
            one_at: None,
        }],
    });
    assert!(
        !world.engine.is_held(world.now),
        "what runs in order starts nothing now"
    );
    world.finish(success());
    assert!(world.engine.is_held(world.now));
    assert_eq!((world.state(), world.status().until), (RunState::Waiting, until));
    assert_eq!(world.status().reason, "quiet hours");
    world.event(&Event::HoldsChanged { holds: Vec::new() });
    assert_eq!(world.sheets(), [Completed, Running]);
    assert!(world.engine.run(RunId(1)).is_some());
}

#[test]
fn a_hold_may_let_one_start_through_while_nothing_runs() {
    let mut world = World::new(5);
    let pressed = |one_at| Event::HoldsChanged {
        holds: vec![StartHold {
            why: "pressure".to_owned(),
            until: None,
            one_at: Some(one_at),
        }],
    };
    world.event(&pressed(START.plus(secs(10))));
    world.submit(1, rules(2));
    world.submit(2, rules(1));
    assert!(world.machine.is_empty() && world.engine.is_held(world.now));
    assert_eq!(world.sleep(), secs(10));
    assert_eq!(world.machine.len(), 1, "one, not each run's first");
    // It ends at once, but the conductor has told when the next may start.
    world.event(&pressed(START.plus(secs(20))));
    world.finish(success());
    assert!(world.machine.is_empty());
    assert_eq!(world.sleep(), secs(10));
    assert_eq!(world.machine.len(), 1);
    world.event(&Event::HoldsChanged { holds: Vec::new() });
    assert_eq!(world.machine.len(), 2);
    assert!(!world.engine.is_held(world.now));
}

#[test]
fn a_refusal_that_a_session_tells_of_while_it_works_holds_the_others_at_once() {
    let mut world = World::new(5);
    world.submit(1, rules(2));
    let reset = START.plus(minutes(30));
    let seen = |refused| Event::LimitSeen {
        attempt: attempt(1, 1),
        limit: Limit {
            resets_at: Some(reset),
            ..limit(LimitKind::Usage, Some("five_hour"))
        },
        refused,
    };
    world.event(&seen(false));
    assert_eq!(world.engine.gates().count(), 0, "a limit that lets it through is none");
    world.event(&seen(true));
    world.submit(2, rules(1));
    assert_eq!(
        (world.status_of(2).state, world.status().state),
        (RunState::Waiting, RunState::Running)
    );
    let until = world.status_of(2).until;
    world.finish_of(1, usage(Some(reset)));
    assert_eq!(world.status_of(2).until, until, "its end says the same");
    assert_eq!(
        world.event(&seen(true)).facts,
        [],
        "and what is said after its end changes nothing"
    );
}
