use std::time::{Duration, Instant};

use super::*;
use crate::model::SheetStatus;
use crate::summary::RunFilter;

#[tokio::test]
async fn runs_are_listed_newest_first_page_by_page() {
    let home = Home::new();
    let ledger = home.open().await;
    for number in 0..7 {
        let run = submit(&ledger, &plan(if number % 2 == 0 { "even" } else { "odd" }, 1), number).await;
        if number < 3 {
            end(&ledger, run, 50, RunState::Failed).await;
        }
    }
    let list = async |filter: RunFilter, limit, cursor: &str| {
        let (runs, next) = ledger.runs(&filter, limit, cursor).await.unwrap();
        (runs.iter().map(|run| run.id.0).collect::<Vec<_>>(), next)
    };
    let all = RunFilter::default;
    let (page, next) = list(all(), 3, "").await;
    assert_eq!(page, [7, 6, 5]);
    let (page, next) = list(all(), 3, &next).await;
    assert_eq!(page, [4, 3, 2]);
    let (page, next) = list(all(), 3, &next).await;
    assert_eq!((page, next.as_str()), (vec![1], ""));
    assert_eq!(list(all(), 7, "").await.1, "");

    let odd = RunFilter {
        job: Some("odd".to_owned()),
        ..all()
    };
    assert_eq!(list(odd, 9, "").await.0, [6, 4, 2]);
    let newest = RunFilter { newest: true, ..all() };
    assert_eq!(list(newest, 9, "").await.0, [7, 6]);
    let failed = RunFilter {
        states: vec![RunState::Failed, RunState::Completed],
        ..all()
    };
    assert_eq!(list(failed, 9, "").await.0, [3, 2, 1]);
    assert!(ledger.runs(&all(), 9, "nonsense").await.is_err());
}

#[tokio::test]
async fn a_run_is_found_by_job_and_number() {
    let home = Home::new();
    let ledger = home.open().await;
    let first = submit(&ledger, &plan("a", 4), 5).await;
    let second = submit(&ledger, &plan("a", 4), 6).await;
    complete(&ledger, first, 1, 10).await;
    let run = ledger.run("a", Some(1)).await.unwrap().unwrap();
    assert_eq!((run.id, run.run, run.state), (first, RunNo(1), RunState::Running));
    assert_eq!((run.sheets_total, run.sheets_done, run.sheets_running), (4, 1, 0));
    assert_eq!(
        (run.submitted_at, run.started_at, run.ended_at),
        (at(5), Some(at(10)), None)
    );
    assert_eq!((run.cost, run.tokens_in, run.tokens_out), (Some(Cost(1_500)), 100, 20));
    assert_eq!(
        (run.workspace.as_str(), run.plan_hash.as_str()),
        ("/work/space", "hash of a")
    );
    assert_eq!(ledger.run("a", None).await.unwrap().unwrap().id, second);
    assert_eq!(ledger.run_by_id(first).await.unwrap().unwrap(), run);
    assert!(ledger.run("a", Some(3)).await.unwrap().is_none());
    assert!(ledger.run("b", None).await.unwrap().is_none());
}

#[tokio::test]
async fn the_reason_says_why() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 2), 0).await;
    let of = attempt(run, 1, 1);
    commit(&ledger, 1, [intended(of, AttemptKind::First), started(of, 1)]).await;
    let wait = FactKind::SheetWaits {
        run,
        sheet: SheetNo(1),
        until: at(3600),
        cause: Cause::RateLimit,
        code: Code::E104,
        kind: AttemptKind::Probe,
        ask: Ask::Task,
        resume: None,
        by_calendar: false,
    };
    finish(
        &ledger,
        2,
        of,
        &report(Some(failure(Cause::RateLimit, Code::E104)), &[]),
        [wait],
    )
    .await;
    let row = ledger.run_by_id(run).await.unwrap().unwrap();
    assert_eq!((row.state, row.until), (RunState::Waiting, Some(at(3600))));
    assert_eq!(row.reason, "sheet 1 waits: usage limit (E104)");
    let sheets = ledger.sheets(run, 1, 9).await.unwrap();
    assert_eq!(
        (sheets[0].reason.as_str(), sheets[0].until),
        ("usage limit (E104)", Some(at(3600)))
    );

    let verdict = Verdict::Failed {
        cause: Cause::RateLimit,
        code: Code::E104,
        message: "no more today".to_owned(),
    };
    commit(
        &ledger,
        3,
        [
            ended(run, 1, verdict),
            FactKind::RunEnded {
                run,
                state: RunState::Failed,
            },
        ],
    )
    .await;
    let row = ledger.run_by_id(run).await.unwrap().unwrap();
    assert_eq!(
        (row.reason.as_str(), row.until),
        ("sheet 1: no more today (E104)", None)
    );
}

#[tokio::test]
async fn sheets_tell_of_their_last_attempt() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 5), 0).await;
    let mut flagged = report(Some(failure(Cause::Validation, Code::E201)), &[true, false]);
    flagged.outcome.flags = vec!["exit 1".to_owned()];
    let (first, second) = (attempt(run, 2, 1), attempt(run, 2, 2));
    complete(&ledger, run, 1, 10).await;
    commit(&ledger, 20, [intended(first, AttemptKind::First), started(first, 20)]).await;
    finish(&ledger, 22, first, &flagged, []).await;
    // The last attempt never came to be validated: what was found before still says most.
    commit(&ledger, 23, [intended(second, AttemptKind::Completion)]).await;
    let broken = report(Some(failure(Cause::Transient, Code::E103)), &[]);
    let verdict = Verdict::Failed {
        cause: Cause::Transient,
        code: Code::E103,
        message: "overloaded".to_owned(),
    };
    finish(&ledger, 24, second, &broken, [ended(run, 2, verdict)]).await;
    commit(
        &ledger,
        25,
        [ended(
            run,
            4,
            Verdict::Skipped {
                reason: "before start sheet".to_owned(),
            },
        )],
    )
    .await;

    let sheets = ledger.sheets(run, 1, 100).await.unwrap();
    let states: Vec<SheetStatus> = sheets.iter().map(|sheet| sheet.state).collect();
    use SheetStatus::{Completed, Failed, Pending, Skipped};
    assert_eq!(states, [Completed, Failed, Pending, Skipped, Pending]);
    assert_eq!(
        sheets.iter().map(|sheet| sheet.sheet_num).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(sheets[0].description.as_deref(), Some("the first"));
    assert_eq!(
        (sheets[0].cause, sheets[0].code, &sheets[0].message),
        (None, None, &None)
    );
    assert_eq!(sheets[0].validations.len(), 1);
    let failed = &sheets[1];
    assert_eq!((failed.attempts, failed.completion_attempts), (2, 1));
    assert_eq!((failed.cause, failed.code), (Some(Cause::Transient), Some(Code::E103)));
    assert_eq!(failed.message.as_deref(), Some("overloaded"));
    assert_eq!(failed.validations, flagged.validation.rules);
    assert_eq!((failed.started_at, failed.ended_at), (Some(at(20)), Some(at(24))));
    assert_eq!((failed.cost, failed.tokens_in), (Some(Cost(3_000)), 200));
    assert_eq!(sheets[3].reason, "before start sheet");

    let page = ledger.sheets(run, 4, 1).await.unwrap();
    assert_eq!(page, sheets[3..4]);
    assert_eq!(ledger.sheets(run, 6, 1).await.unwrap(), []);
    assert_eq!(ledger.sheets(run, 5, u32::MAX).await.unwrap().len(), 1);
}

#[tokio::test]
async fn attempts_keep_their_reports() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 2), 0).await;
    let (first, second, third) = (attempt(run, 1, 1), attempt(run, 1, 2), attempt(run, 1, 5));
    let told = report(Some(failure(Cause::Validation, Code::E201)), &[false]);
    commit(&ledger, 10, [intended(first, AttemptKind::First), started(first, 11)]).await;
    finish(&ledger, 12, first, &told, []).await;
    commit(&ledger, 13, [intended(second, AttemptKind::Retry)]).await;
    let lost = report(Some(failure(Cause::Interrupted, Code::E004)), &[]);
    // Nothing was left of it: the engine ends it without a report.
    commit(
        &ledger,
        14,
        [over(second, &lost), intended(third, AttemptKind::Continuation)],
    )
    .await;

    let attempts = ledger.attempts(run, 1).await.unwrap();
    assert_eq!(
        attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>(),
        [1, 2, 5]
    );
    assert_eq!(attempts[0].report.as_ref(), Some(&told));
    assert_eq!(attempts[0].session_id, format!("session-of-{first}"));
    assert_eq!(attempts[0].unit, format!("mozart-{}-{run}-1-1", ledger.tag()));
    assert_eq!(
        (attempts[0].intended_at, attempts[0].started_at),
        (at(10), Some(at(11)))
    );
    assert!(attempts[0].invocation.is_some());
    let unreported = attempts[1].report.as_ref().unwrap();
    assert_eq!(
        (unreported.certificate.exit, unreported.certificate.result.as_str()),
        (Exit::Unknown, "lost")
    );
    assert_eq!(unreported.outcome, lost.outcome);
    assert_eq!(
        (attempts[2].kind, &attempts[2].report),
        (AttemptKind::Continuation, &None)
    );
    assert_eq!(ledger.attempts(run, 2).await.unwrap(), []);
}

#[tokio::test]
async fn a_report_says_what_the_runner_said_where_the_engine_decided_otherwise() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 1), 0).await;
    let of = attempt(run, 1, 1);
    let told = report(Some(failure(Cause::Transient, Code::E002)), &[]);
    let decided = report(Some(failure(Cause::Interrupted, Code::E004)), &[]);
    let facts = [fact(1, intended(of, AttemptKind::First)), fact(2, over(of, &decided))];
    ledger
        .commit(Batch {
            facts: &facts,
            reports: vec![(of, &told)],
            ..Batch::default()
        })
        .await
        .unwrap();
    assert_eq!(ledger.attempts(run, 1).await.unwrap()[0].report.as_ref(), Some(&told));
    assert_eq!(
        ledger.sheets(run, 1, 1).await.unwrap()[0].cause,
        Some(Cause::Interrupted)
    );
}

#[tokio::test]
async fn what_ended_at_once_keeps_each_its_own_report() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 3), 0).await;
    complete(&ledger, run, 3, 1).await;
    let cost = async || ledger.run_by_id(run).await.unwrap().unwrap().cost.unwrap().0;
    let before = cost().await;
    let (first, second, late) = (attempt(run, 1, 1), attempt(run, 2, 1), attempt(run, 3, 1));
    let start = [first, second].map(|of| intended(of, AttemptKind::First));
    commit(&ledger, 2, start).await;
    let told = |code, cost| {
        let mut told = report(Some(failure(Cause::Transient, code)), &[]);
        told.outcome.cost = Some(Cost(cost));
        told
    };
    let (one, two, again) = (told(Code::E002, 10), told(Code::E003, 200), told(Code::E999, 3000));
    let facts = [fact(3, over(first, &one)), fact(3, over(second, &two))];
    let batch = Batch {
        facts: &facts,
        // In whatever order, and one of an attempt that had ended.
        reports: vec![(late, &again), (second, &two), (first, &one)],
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap();
    for (sheet, told) in [(1, &one), (2, &two)] {
        let attempts = ledger.attempts(run, sheet).await.unwrap();
        assert_eq!(attempts[0].report.as_ref(), Some(told), "of sheet {sheet}");
    }
    assert_eq!(cost().await - before, 210, "of those that ended");
    let mut store = ledger.store().await.unwrap();
    let kept: Vec<(u32, String)> = sqlx::query_as("SELECT sheet, json FROM late_reports")
        .fetch_all(&mut store.connection)
        .await
        .unwrap();
    assert!(matches!(&kept[..], [(3, json)] if json.contains("E999")), "{kept:?}");
}

#[tokio::test]
async fn a_late_report_is_kept_and_changes_nothing() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 1), 0).await;
    complete(&ledger, run, 1, 10).await;
    let before = (
        ledger.sheets(run, 1, 1).await.unwrap(),
        ledger.run_by_id(run).await.unwrap(),
    );
    let late = report(Some(failure(Cause::Fatal, Code::E999)), &[false]);
    let batch = Batch {
        reports: vec![(attempt(run, 1, 1), &late)],
        at: at(77),
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap();
    assert_eq!(
        (
            ledger.sheets(run, 1, 1).await.unwrap(),
            ledger.run_by_id(run).await.unwrap()
        ),
        before
    );
    let mut store = ledger.store().await.unwrap();
    let kept: (i64, String) = sqlx::query_as("SELECT at, json FROM late_reports")
        .fetch_one(&mut store.connection)
        .await
        .unwrap();
    assert_eq!(kept.0, at(77).0);
    assert!(kept.1.contains("E999"), "{}", kept.1);
}

#[tokio::test]
async fn only_so_much_output_is_kept() {
    let home = Home::new();
    let ledger = home.open().await;
    let mut whole = plan("whole", 2);
    whole.checkpoint_every_sheet = true;
    let long = "ü".repeat(20_000);
    let tails = async |plan: &Plan, failed: bool| {
        let run = submit(&ledger, plan, 0).await;
        let of = attempt(run, 1, 1);
        let mut report = report(failed.then(|| failure(Cause::Validation, Code::E009)), &[]);
        report.session.stdout_tail.clone_from(&long);
        report.session.stderr_tail.clone_from(&long);
        report.session.result_text = long.repeat(3);
        commit(&ledger, 1, [intended(of, AttemptKind::First)]).await;
        finish(&ledger, 2, of, &report, []).await;
        let kept = ledger.attempts(run, 1).await.unwrap().remove(0).report.unwrap().session;
        assert_eq!(kept.stdout_tail, kept.stderr_tail);
        assert!(long.ends_with(&kept.stdout_tail));
        assert!(kept.result_text.len() <= 65_536);
        kept.stdout_tail.len()
    };
    assert_eq!(tails(&plan("a", 2), false).await, 1_000, "500 characters of two bytes");
    assert_eq!(tails(&plan("a", 2), true).await, 10_240);
    assert_eq!(tails(&whole, false).await, 10_240);
}

#[tokio::test]
async fn lessons_are_of_this_sheet_and_the_three_before() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 9), 0).await;
    for sheet in 1..=5 {
        let (first, second) = (attempt(run, sheet, 1), attempt(run, sheet, 2));
        commit(&ledger, 10, [intended(first, AttemptKind::First)]).await;
        let failed = report(Some(failure(Cause::Validation, Code::E201)), &[true, false]);
        finish(&ledger, 11, first, &failed, [intended(second, AttemptKind::Retry)]).await;
        // A limit teaches nothing, nor does success.
        finish(
            &ledger,
            12,
            second,
            &report(Some(failure(Cause::RateLimit, Code::E104)), &[]),
            [],
        )
        .await;
        let third = attempt(run, sheet, 3);
        commit(&ledger, 13, [intended(third, AttemptKind::Retry)]).await;
        finish(
            &ledger,
            14,
            third,
            &report(None, &[true, true]),
            [ended(run, sheet, Verdict::Completed)],
        )
        .await;
    }
    let lessons = ledger.lessons(run, SheetNo(5)).await.unwrap();
    let of: Vec<_> = lessons.iter().map(|lesson| (lesson.sheet, lesson.attempt)).collect();
    assert_eq!(of, [(5, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(lessons[0].message, None, "its rules say it");
    assert_eq!(lessons[0].rules, [rule(0, true), rule(1, false)]);
    assert_eq!(ledger.lessons(run, SheetNo(1)).await.unwrap().len(), 1);
    assert_eq!(ledger.lessons(run, SheetNo(9)).await.unwrap(), []);
}

#[tokio::test]
async fn a_lesson_without_rules_is_told_in_words_and_what_mozart_did_itself_is_none() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 1), 0).await;
    let ends = [
        report(Some(failure(Cause::Validation, Code::E009)), &[]),
        // Stopped while its rules were checked.
        report(Some(failure(Cause::Interrupted, Code::E004)), &[false]),
        report(Some(failure(Cause::Transient, Code::E003)), &[]),
    ];
    for (number, end) in (1..).zip(ends) {
        let attempt = attempt(run, 1, number);
        commit(&ledger, 10, [intended(attempt, AttemptKind::Retry)]).await;
        finish(&ledger, 11, attempt, &end, []).await;
    }
    let lessons = ledger.lessons(run, SheetNo(1)).await.unwrap();
    let told: Vec<_> = lessons
        .iter()
        .map(|lesson| (lesson.attempt, lesson.message.as_deref()))
        .collect();
    assert_eq!(told, [(1, Some("it failed with E009"))]);
    assert_eq!(lessons[0].rules, []);
}

#[tokio::test]
async fn a_sessions_cost_is_what_it_said_last() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 1), 0).await;
    for (number, total) in [(1, Some(Cost(500))), (2, None), (3, Some(Cost(700)))] {
        let of = attempt(run, 1, number);
        let mut report = report(None, &[]);
        report.session.session_id = Some("s".to_owned());
        report.session.total_cost = total;
        commit(&ledger, 1, [intended(of, AttemptKind::Retry)]).await;
        finish(&ledger, 2, of, &report, []).await;
        assert_eq!(
            ledger.session_cost("s").await.unwrap(),
            Some(Cost(if number < 3 { 500 } else { 700 }))
        );
    }
    assert_eq!(ledger.session_cost("t").await.unwrap(), None);
}

/// Whatever an old ledger holds: what is asked for at every start and every `status` reads no table from end to end.
#[tokio::test]
async fn nothing_that_is_asked_often_scans_a_table() {
    let home = Home::new();
    let ledger = home.open().await;
    let mut store = ledger.store().await.unwrap();
    for sql in [
        "SELECT facts.seq, 0 AS gate, facts.json FROM live CROSS JOIN facts ON facts.run = live.run",
        "SELECT seq, json FROM facts WHERE run = 1 ORDER BY seq",
        "SELECT seq, json, evidence FROM facts WHERE run = 1 AND sheet = 2 ORDER BY seq",
        "SELECT seq, json, evidence FROM facts WHERE run = 1 AND sheet BETWEEN max(2 - 3, 1) AND 2",
        "SELECT * FROM runs r WHERE r.job = 'a' ORDER BY r.no DESC LIMIT 1",
        "SELECT * FROM sheets s LEFT JOIN facts f ON f.seq = s.validated_seq WHERE s.run = 1 AND s.sheet >= 1",
        "SELECT coalesce(max(seq), 0) FROM facts",
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let steps: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(&mut store.connection).await.unwrap();
        for (.., step) in steps {
            // `live` has a row for each run that is live, and no more.
            assert!(!step.starts_with("SCAN") || step == "SCAN live", "{sql}: {step}");
        }
    }
}

/// 1,000 runs of 10 sheets: opening and asking take milliseconds (bounds are generous: a debug build, other tests).
#[tokio::test]
async fn an_old_ledger_answers_quickly() {
    let home = Home::new();
    let ledger = home.open().await;
    let mut store = ledger.store().await.unwrap();
    // No syncing while it is filled: only the reading is of interest.
    sqlx::query("PRAGMA synchronous = OFF")
        .execute(&mut store.connection)
        .await
        .unwrap();
    drop(store);
    for number in 0..1_000 {
        let plan = plan(&format!("job{}", number % 300), 10);
        let (run, no) = ledger.next_numbers(&plan.name).await.unwrap();
        let report = report(None, &[true]);
        let mut facts = vec![fact(number, submitted(run, no, &plan))];
        for sheet in 1..=10 {
            let of = attempt(run, sheet, 1);
            let kinds = [
                intended(of, AttemptKind::First),
                started(of, number),
                over(of, &report),
                ended(run, sheet, Verdict::Completed),
            ];
            facts.extend(kinds.map(|kind| fact(number, kind)));
        }
        facts.push(fact(
            number,
            FactKind::RunEnded {
                run,
                state: RunState::Completed,
            },
        ));
        let submission = Some(Submission {
            run,
            plan: &plan,
            context: &SubmitContext::default(),
        });
        ledger
            .commit(Batch {
                facts: &facts,
                submission,
                ..Batch::default()
            })
            .await
            .unwrap();
    }
    ledger.close().await.unwrap();

    let within = |what: &str, before: Instant, limit: u64| {
        let took = before.elapsed();
        println!("{what}: {took:?}");
        assert!(took < Duration::from_millis(limit), "{what} took {took:?}");
    };
    let before = Instant::now();
    let ledger = home.open().await;
    within("open", before, 50);
    let before = Instant::now();
    assert_eq!(ledger.live_facts().await.unwrap(), []);
    within("live facts", before, 20);
    let before = Instant::now();
    let (runs, _) = ledger
        .runs(
            &RunFilter {
                newest: true,
                ..RunFilter::default()
            },
            100,
            "",
        )
        .await
        .unwrap();
    within("newest runs", before, 50);
    assert_eq!(runs.len(), 100);
    let before = Instant::now();
    let (runs, _) = ledger.runs(&RunFilter::default(), 1_000, "").await.unwrap();
    within("all runs", before, 200);
    assert_eq!(runs.len(), 1_000);
    let before = Instant::now();
    assert_eq!(ledger.sheets(RunId(500), 1, 10).await.unwrap().len(), 10);
    within("sheets", before, 20);
}
