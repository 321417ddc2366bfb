use super::*;
use crate::engine::Engine;
use crate::engine::event::{EngineSettings, Event, PauseWhy};
use crate::engine::fact::GateKey;
use crate::ledger::StoreError;
use crate::model::{AccountId, Limit, LimitKind, Now};

#[tokio::test]
async fn facts_come_back_as_they_were() {
    let home = Home::new();
    let ledger = home.open().await;
    let plan = plan("review", 3);
    let run = submit(&ledger, &plan, 0).await;
    let of = attempt(run, 1, 1);
    let kinds = [
        intended(of, AttemptKind::First),
        started(of, 1),
        FactKind::StopAsked { attempt: of },
        over(of, &report(Some(failure(Cause::Interrupted, Code::E004)), &[])),
        FactKind::SheetWaits {
            run,
            sheet: SheetNo(1),
            until: at(60),
            cause: Cause::Interrupted,
            code: Code::E004,
            kind: AttemptKind::Continuation,
            ask: Ask::GoOn,
            resume: Some("session".to_owned()),
            by_calendar: false,
        },
        FactKind::RunPaused {
            run,
            why: PauseWhy::Interrupted,
        },
        FactKind::RunResumed { run },
        FactKind::GenerationOpened {
            run,
            sheet: SheetNo(1),
            generation: Generation(2),
        },
        ended(
            run,
            1,
            Verdict::Skipped {
                reason: "before start sheet".to_owned(),
            },
        ),
        FactKind::RunCancelling { run },
        FactKind::RunEnded {
            run,
            state: RunState::Cancelled,
        },
    ];
    commit(&ledger, 5, kinds.clone()).await;
    ledger.close().await.unwrap();
    let ledger = home.open().await;
    let mut expected = vec![fact(0, submitted(run, RunNo(1), &plan))];
    expected.extend(kinds.map(|kind| fact(5, kind)));
    assert_eq!(ledger.facts_of(run).await.unwrap(), expected);
    assert_eq!(ledger.facts_of(RunId(99)).await.unwrap(), []);
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_where_something_is_acted_on() {
    let home = Home::new();
    let ledger = home.open().await;
    let synchronous = async || {
        let mut store = ledger.store().await.unwrap();
        let value: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&mut store.connection)
            .await
            .unwrap();
        value
    };
    let (normal, full) = (1, 2);
    assert_eq!(synchronous().await, full);
    let run = submit(&ledger, &plan("review", 3), 0).await;
    let of = attempt(run, 1, 1);
    commit(&ledger, 1, [intended(of, AttemptKind::First)]).await;
    assert_eq!(synchronous().await, full);
    commit(&ledger, 2, [started(of, 2)]).await;
    assert_eq!(synchronous().await, normal);
    commit(&ledger, 3, [FactKind::StopAsked { attempt: of }]).await;
    assert_eq!(synchronous().await, full);
}

#[tokio::test]
async fn only_what_is_not_over_is_live() {
    let home = Home::new();
    let ledger = home.open().await;
    let (first, second) = (
        submit(&ledger, &plan("a", 1), 0).await,
        submit(&ledger, &plan("b", 1), 1).await,
    );
    let gate = |window: &str| GateKey {
        account: AccountId("claude_cli".to_owned()),
        kind: LimitKind::Usage.into(),
        window: Some(window.to_owned()),
    };
    let closed = |window: &str, until| FactKind::GateClosed {
        gate: gate(window),
        until: at(until),
        by_calendar: true,
        places: 1,
    };
    commit(&ledger, 2, [closed("five_hour", 100), closed("seven_day", 100)]).await;
    commit(
        &ledger,
        3,
        [
            FactKind::RunEnded {
                run: first,
                state: RunState::Failed,
            },
            closed("seven_day", 900),
        ],
    )
    .await;
    commit(
        &ledger,
        4,
        [FactKind::GateOpened {
            gate: gate("five_hour"),
        }],
    )
    .await;
    let live = ledger.live_facts().await.unwrap();
    let expected = [
        fact(1, submitted(second, RunNo(1), &plan("b", 1))),
        fact(3, closed("seven_day", 900)),
    ];
    assert_eq!(live, expected);

    // A person resumes it: all of its facts count again.
    commit(&ledger, 5, [FactKind::RunResumed { run: first }]).await;
    let live = ledger.live_facts().await.unwrap();
    assert_eq!(live.iter().filter(|fact| fact.kind.run() == Some(first)).count(), 3);
}

#[tokio::test]
async fn a_gate_that_opens_further_or_moves_with_the_clock_stands_where_it_was_closed() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 1), 0).await;
    let closed = |until, places| FactKind::GateClosed {
        gate: GateKey {
            account: AccountId("claude_cli".to_owned()),
            kind: LimitKind::Usage.into(),
            window: None,
        },
        until: at(until),
        by_calendar: true,
        places,
    };
    let probe = intended(attempt(run, 1, 1), AttemptKind::First);
    commit(&ledger, 1, [closed(2, 1)]).await;
    commit(&ledger, 3, [probe.clone()]).await;
    commit(&ledger, 4, [closed(2, 2)]).await;
    let submitted = fact(0, submitted(run, RunNo(1), &plan("a", 1)));
    let expected = [submitted.clone(), fact(4, closed(2, 2)), fact(3, probe.clone())];
    assert_eq!(
        ledger.live_facts().await.unwrap(),
        expected,
        "the probe has gone through it"
    );

    commit(&ledger, 1, [closed(-1, 2)]).await;
    let expected = [submitted.clone(), fact(1, closed(-1, 2)), fact(3, probe.clone())];
    assert_eq!(
        ledger.live_facts().await.unwrap(),
        expected,
        "it was past, and the clock was set back"
    );

    commit(&ledger, 5, [closed(900, 1)]).await;
    let expected = [submitted, fact(3, probe), fact(5, closed(900, 1))];
    assert_eq!(ledger.live_facts().await.unwrap(), expected);
}

/// A run, a usage limit that closes a gate, the ledger closed: the engine that is loaded is the one that was left.
#[tokio::test]
async fn an_engine_is_loaded_as_it_was_left() {
    let home = Home::new();
    let ledger = home.open().await;
    let plan = plan("review", 3);
    let context = SubmitContext {
        account: Some(AccountId("me".to_owned())),
        ..SubmitContext::default()
    };
    let new = || Engine::new(EngineSettings::default(), ledger.id(), 7);
    let mut engine = new();
    let (run, no) = ledger.next_numbers(&plan.name).await.unwrap();
    let limit = Limit {
        kind: LimitKind::Usage,
        window: Some("five_hour".to_owned()),
        resets_at: Some(at(3600)),
        from_text: false,
        retry_after: None,
    };
    let mut limited = report(Some(failure(Cause::RateLimit, Code::E104)), &[]);
    limited.outcome.failure.as_mut().unwrap().limit = Some(limit);
    let of = attempt(run, 1, 1);
    let rules = RunRules::of(&plan, &context, SheetNo(1));
    let events = [
        Event::Submitted {
            run,
            job: plan.name.clone(),
            no,
            rules,
            completed: Vec::new(),
        },
        Event::AttemptStarted {
            attempt: of,
            at: at(1),
            invocation: None,
        },
        Event::AttemptFinished {
            attempt: of,
            outcome: limited.outcome.clone(),
        },
    ];
    for (step, event) in events.iter().enumerate() {
        let now = Now {
            wall: at(step as i64),
            boot: step as i64,
        };
        let decision = engine.decide(now, event);
        assert!(!decision.facts.is_empty(), "{event:?}");
        let submission = (step == 0).then_some(Submission {
            run,
            plan: &plan,
            context: &context,
        });
        let reports = (step == 2).then_some((of, &limited)).into_iter().collect();
        ledger
            .commit(Batch {
                facts: &decision.facts,
                submission,
                reports,
                at: now.wall,
                day: "2026-11-21",
                ..Batch::default()
            })
            .await
            .unwrap();
        decision.facts.iter().for_each(|fact| engine.apply(fact));
    }
    let mut loaded = new();
    let facts = ledger.live_facts().await.unwrap();
    assert!(
        facts
            .iter()
            .any(|fact| matches!(fact.kind, FactKind::GateClosed { .. })),
        "{facts:?}"
    );
    facts.iter().for_each(|fact| loaded.apply(fact));
    assert_eq!(loaded, engine);
}

#[tokio::test]
async fn numbers_are_taken_by_the_submission_and_never_given_again() {
    let home = Home::new();
    let ledger = home.open().await;
    let name = JobName::new("a").unwrap();
    assert_eq!(ledger.next_numbers(&name).await.unwrap(), (RunId(1), RunNo(1)));
    assert_eq!(ledger.next_numbers(&name).await.unwrap(), (RunId(1), RunNo(1)));
    submit(&ledger, &plan("a", 1), 0).await;
    submit(&ledger, &plan("b", 1), 0).await;
    assert_eq!(ledger.next_numbers(&name).await.unwrap(), (RunId(3), RunNo(2)));
    let mut store = ledger.store().await.unwrap();
    sqlx::query("DELETE FROM runs")
        .execute(&mut store.connection)
        .await
        .unwrap();
    drop(store);
    assert_eq!(ledger.next_numbers(&name).await.unwrap().0, RunId(3));
}

#[tokio::test]
async fn a_failed_commit_keeps_nothing() {
    let home = Home::new();
    let ledger = home.open().await;
    let plan = plan("a", 2);
    let run = submit(&ledger, &plan, 0).await;
    let of = attempt(run, 1, 1);
    // The second fact is about a run that nobody submitted.
    let facts = [
        fact(1, intended(of, AttemptKind::First)),
        fact(1, FactKind::RunResumed { run: RunId(77) }),
    ];
    let error = ledger
        .commit(Batch {
            facts: &facts,
            ..Batch::default()
        })
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Inconsistent(_)), "{error}");
    assert_eq!(ledger.facts_of(run).await.unwrap().len(), 1);
    assert_eq!(ledger.run_by_id(run).await.unwrap().unwrap().revision, 1);
    // It goes on as if nothing had been.
    complete(&ledger, run, 1, 2).await;
    assert_eq!(ledger.run_by_id(run).await.unwrap().unwrap().sheets_done, 1);
}

#[tokio::test]
async fn a_commit_whose_caller_went_away_keeps_nothing() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 2), 0).await;
    let facts = [fact(
        1,
        FactKind::RunPaused {
            run,
            why: PauseWhy::Person,
        },
    )];
    // Dropped at ever later points of its work, until it is done.
    for steps in 1.. {
        let mut commit = Box::pin(ledger.commit(Batch {
            facts: &facts,
            ..Batch::default()
        }));
        let mut done = false;
        for _ in 0..steps {
            tokio::select! {
                biased;
                ended = &mut commit => { ended.unwrap(); done = true; }
                () = tokio::task::yield_now() => {}
            }
            if done {
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        drop(commit);
        let state = ledger.run_by_id(run).await.unwrap().unwrap().state;
        let kept = ledger.facts_of(run).await.unwrap().len();
        match (done, kept) {
            (true, 2) => return assert_eq!(state, RunState::Paused),
            (false, 1) => assert_eq!(state, RunState::Queued),
            // The commit itself was on its way already; what counts is that it is whole.
            (false, 2) => return assert_eq!(state, RunState::Paused),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn plans_are_kept_once_and_come_back_exactly() {
    let home = Home::new();
    let ledger = home.open().await;
    let mut same = plan("a", 2);
    same.prompt.variables.insert(
        "odd".to_owned(),
        crate::job::value::Value::Map(vec![(
            crate::job::value::Value::Int(3),
            crate::job::value::Value::List(vec![
                crate::job::value::Value::Float(0.1 + 0.2),
                crate::job::value::Value::Float(f64::INFINITY),
                crate::job::value::Value::Null,
            ]),
        )]),
    );
    let (first, second) = (submit(&ledger, &same, 0).await, submit(&ledger, &same, 1).await);
    // The same hash, but run elsewhere.
    let mut elsewhere = same.clone();
    elsewhere.workspace = "/else/where".to_owned();
    let third = submit(&ledger, &elsewhere, 2).await;
    ledger.close().await.unwrap();
    let ledger = home.open().await;
    let mut store = ledger.store().await.unwrap();
    let plans: i64 = sqlx::query_scalar("SELECT count(*) FROM plans")
        .fetch_one(&mut store.connection)
        .await
        .unwrap();
    drop(store);
    assert_eq!(plans, 2);
    for (run, expected) in [(first, &same), (second, &same), (third, &elsewhere)] {
        let (plan, context) = ledger.plan(run).await.unwrap();
        assert_eq!(&plan, expected);
        assert_eq!(context.program.as_deref(), Some("/usr/bin/true"));
    }
    assert!(matches!(ledger.plan(RunId(9)).await, Err(StoreError::NoSuchRun(9))));
}

/// What version 1 wrote is read for ever: these lines must never be changed.
#[tokio::test]
async fn old_facts_are_read() {
    let home = Home::new();
    let ledger = home.open().await;
    let old = [
        r#"{"v":1,"at":1795000000000000,"fact":"run_submitted","run":1,"job":"review","no":1,"rules":{"sheets":2,"start_sheet":1,"retry":{"max_retries":2,"base_delay":10000000,"max_delay":3600000000,"exponential_base":2.0,"jitter":true,"max_completion_attempts":3,"completion_delay":5000000,"completion_threshold_percent":50.0,"transient_retries":5},"rate_limit":{"detection_patterns":["quota"],"wait":3600000000,"max_waits":24,"max_quota_waits":48},"on_limit":"wait","pause_between_sheets":0,"priority":5,"resumable":true}}"#,
        r#"{"v":1,"at":1795000000000001,"fact":"attempt_intended","attempt":{"run":1,"sheet":1,"attempt":1},"generation":1,"kind":"first","ask":"task","session":{"session":"new","id":"f81d4fae-7dec-5d19-8d73-00a0c91e6bf6"}}"#,
        r#"{"v":1,"at":1795000000000002,"fact":"attempt_started","attempt":{"run":1,"sheet":1,"attempt":1},"started_at":1795000000000002}"#,
        r#"{"v":1,"at":1795000000000003,"fact":"stop_asked","attempt":{"run":1,"sheet":1,"attempt":1}}"#,
        r#"{"v":1,"at":1795000000000004,"fact":"attempt_ended","attempt":{"run":1,"sheet":1,"attempt":1},"outcome":{"failure":{"cause":"rate_limit","code":"E104","message":"the limit is reached","limit":{"kind":"usage","window":"five_hour","resets_at":1795003600000000,"from_text":false}},"flags":[],"rules_passed":0,"rules_total":0,"worked":true,"session_id":"f81d4fae-7dec-5d19-8d73-00a0c91e6bf6"}}"#,
        r#"{"v":1,"at":1795000000000004,"fact":"sheet_waits","run":1,"sheet":1,"until":1795003600000000,"cause":"rate_limit","code":"E104","kind":"probe","ask":"go_on","resume":"f81d4fae-7dec-5d19-8d73-00a0c91e6bf6"}"#,
        r#"{"v":1,"at":1795000000000005,"fact":"run_paused","run":1,"why":"person"}"#,
        r#"{"v":1,"at":1795000000000006,"fact":"run_resumed","run":1}"#,
        r#"{"v":1,"at":1795000000000007,"fact":"generation_opened","run":1,"sheet":1,"generation":2}"#,
        r#"{"v":1,"at":1795000000000008,"fact":"sheet_ended","run":1,"sheet":1,"verdict":{"verdict":"failed","cause":"fatal","code":"E502","message":"not logged in"}}"#,
        r#"{"v":1,"at":1795000000000009,"fact":"run_cancelling","run":1}"#,
        r#"{"v":1,"at":1795000000000010,"fact":"run_ended","run":1,"state":"cancelled"}"#,
    ];
    insert(&ledger, &old).await;
    let facts = ledger.facts_of(RunId(1)).await.unwrap();
    let names: Vec<&str> = facts.iter().map(|fact| fact.kind.name()).collect();
    assert_eq!(names.len(), old.len());
    for (json, name) in old.iter().zip(names) {
        assert!(
            json.contains(&format!("\"fact\":\"{name}\"")),
            "{json} was read as {name}"
        );
    }
}

async fn insert(ledger: &Ledger, facts: &[&str]) {
    let mut store = ledger.store().await.unwrap();
    for json in facts {
        let row = sqlx::query("INSERT INTO facts (run, sheet, json) VALUES (1, 0, ?)").bind(*json);
        row.execute(&mut store.connection).await.unwrap();
    }
}

#[tokio::test]
async fn facts_that_cannot_be_read_are_named() {
    let home = Home::new();
    let ledger = home.open().await;
    insert(&ledger, &[r#"{"v":2,"at":1,"fact":"moon_landed","moon":1}"#]).await;
    let error = ledger.facts_of(RunId(1)).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "fact 1 of the ledger has version 2, this Mozart knows 1: use the newer version that wrote it"
    );

    let home = Home::new();
    let ledger = home.open().await;
    insert(&ledger, &[r#"{"v":2,"at":1,"fact":"run_resumed","run":1}"#]).await;
    assert!(matches!(
        ledger.facts_of(RunId(1)).await,
        Err(StoreError::NewerFact { seq: 1, found: 2, .. })
    ));

    let home = Home::new();
    let ledger = home.open().await;
    insert(&ledger, &[r#"{"v":1,"at":1,"fact":"moon_landed","moon":1}"#]).await;
    let error = ledger.facts_of(RunId(1)).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unreadable { what, .. } if what == "fact 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_disk_is_said_and_costs_only_the_commit() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 2), 0).await;
    let mut store = ledger.store().await.unwrap();
    // SQLite's own limit stands for the disk's.
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&mut store.connection)
        .await
        .unwrap();
    let limit = |pages: i64| sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::query(limit(pages)).execute(&mut store.connection).await.unwrap();
    drop(store);
    let of = attempt(run, 1, 1);
    let mut long = report(None, &[true]);
    long.session.result_text = "x".repeat(60_000);
    let facts = [fact(1, intended(of, AttemptKind::First)), fact(2, over(of, &long))];
    let batch = || Batch {
        facts: &facts,
        reports: vec![(of, &long)],
        ..Batch::default()
    };
    let error = ledger.commit(batch()).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { full: true, .. }), "{error:?}");
    assert!(error.to_string().contains("cannot write the ledger"), "{error}");
    assert_eq!(ledger.facts_of(run).await.unwrap().len(), 1);
    let mut store = ledger.store().await.unwrap();
    sqlx::query(limit(1_000_000))
        .execute(&mut store.connection)
        .await
        .unwrap();
    drop(store);
    ledger.commit(batch()).await.unwrap();
    assert_eq!(ledger.facts_of(run).await.unwrap().len(), 3);
}
