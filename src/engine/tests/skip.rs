//! `skip_when`: asked when the sheet would start, of what the sheets before it came to.

use super::world::*;
use crate::engine::rules::RunRules;
use crate::engine::{Engine, Event, SheetState, Verdict};
use crate::job::expression::{JOB_FIELDS, SHEET_FIELDS, Scope};
use crate::job::plan::{Dependency, FailFast, Parallel, SheetRange};
use crate::model::{Cause, Code, Cost, Outcome, RunState, SheetNo, SheetStatus};

fn skipping(sheets: u32, rules_of: &[(u32, &str)]) -> RunRules {
    let skip_when = rules_of
        .iter()
        .map(|(sheet, text)| (SheetNo(*sheet), (*text).to_owned()));
    RunRules {
        skip_when: skip_when.collect(),
        ..rules(sheets)
    }
}

#[test]
fn a_sheet_whose_rule_holds_is_skipped_when_its_turn_comes() {
    let rule = "sheets[1].status == 'completed' and sheets[1].exit_code == 0 and sheets[1].validation_passed";
    let mut world = World::with(skipping(3, &[(2, rule)]));
    assert_eq!(world.sheets()[1], SheetStatus::Pending, "nothing is known yet");
    world.finish(success());
    assert_eq!(
        world.sheets(),
        [SheetStatus::Completed, SheetStatus::Skipped, SheetStatus::Running]
    );
    let SheetState::Done(Verdict::Skipped { reason }) = world.sheet(2) else {
        panic!("{:?}", world.sheet(2))
    };
    assert_eq!(reason, &format!("`skip_when` holds: {rule}"));
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
    assert_eq!(world.starts.len(), 2);
}

#[test]
fn a_sheet_whose_rule_does_not_hold_runs_and_is_not_asked_again() {
    let mut world = World::with(skipping(2, &[(2, "sheets[2].attempt_count > 0")]));
    world.finish(success());
    assert_eq!(world.session().attempt, attempt(2, 1));
    // It would hold now, but the sheet has begun.
    world.finish(transient());
    world.sleep();
    assert_eq!(world.session().attempt, attempt(2, 2));
}

#[test]
fn a_run_may_skip_its_first_and_its_last_sheet() {
    let mut world = World::with(skipping(
        3,
        &[(1, "True"), (3, "any(s.status == 'skipped' for s in batches.values())")],
    ));
    assert_eq!(world.session().attempt, attempt(2, 1));
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
    let all = World::with(skipping(2, &[(1, "True"), (2, "True")]));
    assert_eq!(all.state(), RunState::Completed);
    assert!(all.starts.is_empty());
}

/// Who waits for it may start, and only once it has been decided.
#[test]
fn a_skipped_sheet_satisfies_its_dependents() {
    let one = |no| SheetRange::from((SheetNo(no), SheetNo(no)));
    let mut rules = skipping(3, &[(2, "sheets[1].status == 'completed'")]);
    rules.parallel = Some(Parallel {
        max_concurrent: 3,
        fail_fast: FailFast::Hold,
        weights: Vec::new(),
    });
    for (of, on) in [(2, 1), (3, 2)] {
        rules.dependencies.push(Dependency {
            of: one(of),
            on: one(on),
            pairwise: false,
        });
    }
    let mut world = World::with(rules);
    assert_eq!(world.session().attempt, attempt(1, 1));
    world.finish(success());
    assert_eq!(world.session().attempt, attempt(3, 1));
}

#[test]
fn a_misspelt_name_in_a_rule_is_told_with_the_one_that_is_near() {
    let mut world = World::with(skipping(2, &[(2, "shets[1].exit_code == 0")]));
    world.finish(success());
    let SheetState::Done(Verdict::Failed { message, .. }) = world.sheet(2) else {
        panic!("{:?}", world.sheet(2))
    };
    assert!(message.contains("did you mean `sheets`?"), "{message}");
}

#[test]
fn a_rule_that_cannot_be_evaluated_fails_the_sheet() {
    let mut world = World::with(skipping(3, &[(2, "sheets[1].exit_code > 0")]));
    world.finish(Outcome {
        exit_code: None,
        ..success()
    });
    assert_eq!(world.state(), RunState::Failed);
    let SheetState::Done(Verdict::Failed { cause, code, message }) = world.sheet(2) else {
        panic!("{:?}", world.sheet(2))
    };
    assert_eq!((*cause, *code), (Cause::Fatal, Code::E301));
    assert_eq!(
        message,
        "its `skip_when` cannot be evaluated: None and 0 cannot be compared (sheets[1].exit_code > 0)"
    );
    // A resume asks again; nothing has changed.
    world.resume();
    assert_eq!(world.state(), RunState::Failed);
    assert_eq!(world.starts.len(), 1);
}

/// Neither a closed gate nor a pause lets a rule be asked early.
#[test]
fn a_rule_is_asked_when_the_sheet_would_start() {
    let mut rules = skipping(2, &[(2, "sheets[1].attempt_count == 1")]);
    rules.pause_between_sheets = secs(30);
    let mut world = World::with(rules);
    world.pause(false);
    world.finish(success());
    assert_eq!(world.sheets()[1], SheetStatus::Pending);
    world.resume();
    assert_eq!(world.sheets()[1], SheetStatus::Pending, "between sheets");
    world.sleep();
    assert_eq!(world.state(), RunState::Completed);
}

/// A person who runs it again has it asked again.
#[test]
fn a_new_generation_asks_again() {
    let mut world = World::with(skipping(2, &[(2, "sheets[1].attempt_count == 1")]));
    world.finish(success());
    assert_eq!(world.state(), RunState::Completed);
    world.event(&Event::RetryRequested {
        run: RUN,
        from: SheetNo(1),
    });
    world.finish(success());
    assert_eq!(world.session().attempt, attempt(2, 1), "sheet 1 has been tried twice");
}

#[test]
fn every_field_has_a_value() {
    let mut world = World::with(rules(3));
    world.finish(Outcome {
        cost: Some(Cost::from_usd(1.5)),
        ..success()
    });
    world.finish(failure(Cause::Fatal, Code::E507));
    let run = world.engine.run(RUN).expect("is in memory");
    let shown = |sheet: u32| -> Vec<String> {
        let value = |field: &&str| {
            run.of_sheet(sheet, field)
                .expect("every field has a value")
                .python_repr()
        };
        SHEET_FIELDS.iter().map(value).collect()
    };
    assert_eq!(
        shown(1),
        [
            "1",
            "'completed'",
            "1",
            "0",
            "0",
            "True",
            "100.0",
            "None",
            "None",
            "None",
            "1.5"
        ]
    );
    assert_eq!(
        shown(2),
        [
            "2",
            "'failed'",
            "1",
            "0",
            "0",
            "None",
            "None",
            "'fatal'",
            "'E507'",
            "'It failed.'",
            "None"
        ]
    );
    assert_eq!(
        shown(3),
        [
            "3",
            "'pending'",
            "0",
            "0",
            "None",
            "None",
            "None",
            "None",
            "None",
            "None",
            "None"
        ]
    );
    let job: Vec<String> = JOB_FIELDS
        .iter()
        .map(|field| run.of_job(field).expect("every field has a value").python_repr())
        .collect();
    assert_eq!(job, ["'job-1'", "'job-1'", "'failed'", "3", "1", "0", "0", "1.5"]);
    assert_eq!(
        (run.of_sheet(1, "x"), run.of_sheet(4, "status"), run.of_job("x")),
        (None, None, None)
    );
}

/// 10,000 sheets that each ask for the one before: what one of them asks costs no more for there being many.
#[test]
fn many_rules_are_asked_one_by_one() {
    let count = 10_000;
    let rules_of: Vec<(u32, String)> = (2..=count)
        .map(|no| (no, format!("sheets[{}].status in ['completed', 'skipped']", no - 1)))
        .collect();
    let mut rules = rules(count);
    rules.skip_when = rules_of.into_iter().map(|(no, text)| (SheetNo(no), text)).collect();
    let mut engine = Engine::new(crate::engine::EngineSettings::default(), uuid::Uuid::nil(), 1);
    let now = crate::model::Now { wall: START, boot: 0 };
    let submitted = Event::Submitted {
        run: RUN,
        job: crate::model::JobName::new("job").expect("is a name"),
        no: crate::model::RunNo(1),
        rules,
        completed: Vec::new(),
    };
    for event in [
        submitted,
        Event::AttemptFinished {
            attempt: attempt(1, 1),
            outcome: success(),
        },
    ] {
        let decision = engine.decide(now, &event);
        decision.facts.iter().for_each(|fact| engine.apply(fact));
    }
    assert_eq!(
        engine.describe(RUN, now).map(|status| status.state),
        Some(RunState::Completed)
    );
}

/// What the runner found out before it started a session.
#[test]
fn a_sheet_that_turned_out_not_to_be_needed_is_skipped() {
    let mut rules = rules(3);
    rules.pause_between_sheets = secs(30);
    let mut world = World::with(rules);
    world.finish(skipped());
    let SheetState::Done(Verdict::Skipped { reason }) = world.sheet(1) else {
        panic!("{:?}", world.sheet(1))
    };
    assert_eq!(reason, "not needed");
    // Nothing ran, so there is nothing to pause after; and it says nothing of the backend.
    assert_eq!(world.session().attempt, attempt(2, 1));
    assert_eq!(world.engine.overlay.faults, std::collections::BTreeMap::new());
    world.finish(success());
    world.sleep();
    world.finish(skipped());
    assert_eq!(world.state(), RunState::Completed);
}

/// It is asked until a session of the sheet runs, however often a start is broken off before.
#[test]
fn whether_a_sheet_is_needed_is_asked_until_its_session_runs() {
    let mut world = World::with(rules(2));
    let begun = |world: &World| {
        let run = world.engine.run(RUN).expect("is in memory");
        run.sheet(SheetNo(1)).expect("is a sheet").has_begun()
    };
    assert!(!begun(&world));
    world.pause(true);
    world.finish(without_work(interrupted()));
    world.resume();
    assert!(!begun(&world), "it was stopped while it was asked");
    world.restart();
    let second = world.session().attempt;
    world.event(&Event::AttemptStarted {
        attempt: second,
        at: START,
        invocation: None,
    });
    assert!(begun(&world));
    world.finish(success());
    world.finish(success());
    world.event(&Event::RetryRequested {
        run: RUN,
        from: SheetNo(1),
    });
    assert!(!begun(&world), "a person wants it again");
}

/// A stream of faults is not broken by a sheet that had no session.
#[test]
fn a_skipped_sheet_says_nothing_of_its_backend() {
    let mut world = World::with(rules(2));
    let account = crate::model::AccountId("claude".into());
    world.finish(transient());
    world.sleep();
    assert_eq!(world.engine.overlay.faults.get(&account), Some(&1));
    world.finish(skipped());
    assert_eq!(world.engine.overlay.faults.get(&account), Some(&1));
}
