//! Runs that were given another plan, and sheets that were completed without a session.

use super::*;
use crate::engine::rules::RunRules;
use crate::job::plan::SubmitContext;
use crate::model::SheetStatus;

/// Gives the run another plan.
async fn give(ledger: &Ledger, run: RunId, revision: u32, plan: &Plan, seconds: i64) {
    let context = SubmitContext {
        program: Some(format!("/bin/program-{revision}")),
        ..SubmitContext::default()
    };
    let modified = FactKind::RunModified {
        run,
        revision,
        rules: RunRules::of(plan, &context, SheetNo(1)),
        same_sessions: true,
    };
    let facts = [fact(seconds, modified)];
    let submission = Some(Submission {
        run,
        plan,
        context: &context,
    });
    let batch = Batch {
        facts: &facts,
        submission,
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap();
}

#[tokio::test]
async fn every_plan_that_a_run_had_is_kept_with_it() {
    let home = Home::new();
    let ledger = home.open().await;
    let plans = [plan("a", 3), plan("a", 5), plan("a", 2)];
    let run = submit(&ledger, &plans[0], 1).await;
    // Read before, so that it is in memory.
    assert_eq!(ledger.plan(run).await.unwrap().0, plans[0]);
    give(&ledger, run, 1, &plans[1], 2).await;
    give(&ledger, run, 2, &plans[2], 3).await;
    assert_eq!(ledger.plan(run).await.unwrap().0, plans[2]);
    drop(ledger);
    let ledger = home.open().await;
    for (revision, plan) in (0..).zip(&plans) {
        let (kept, context) = ledger.plan_of(run, revision).await.unwrap();
        assert_eq!(kept, *plan);
        let program = (revision > 0).then(|| format!("/bin/program-{revision}"));
        assert!(revision == 0 || context.program == program);
    }
    let row = ledger.run("a", None).await.unwrap().unwrap();
    assert_eq!((row.sheets_total, row.plan_hash), (2, plans[2].hash.clone()));
    let checkpoint = ledger.checkpoint(run).await.unwrap();
    assert_eq!(
        (checkpoint.total_sheets, checkpoint.config_hash),
        (2, Some(plans[2].hash.clone()))
    );

    // One that is refused by the store is not half taken.
    let again = FactKind::RunSubmitted {
        run: RunId(99),
        job: JobName::new("a").unwrap(),
        no: RunNo(1),
        rules: RunRules::of(&plans[0], &SubmitContext::default(), SheetNo(1)),
        completed: Vec::new(),
    };
    let facts = [fact(4, again)];
    let context = SubmitContext::default();
    let submission = Some(Submission {
        run,
        plan: &plans[0],
        context: &context,
    });
    let batch = Batch {
        facts: &facts,
        submission,
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap_err();
    assert_eq!(ledger.plan(run).await.unwrap().0, plans[2]);

    // They go with the run.
    for sheet in [1, 2] {
        complete(&ledger, run, sheet, 10).await;
    }
    end(&ledger, run, 20, RunState::Completed).await;
    assert_eq!(ledger.trim(0).await.unwrap(), [run]);
    for table in ["plans", "sources", "former_sources"] {
        let query = format!("SELECT count(*) FROM {table}");
        let mut store = ledger.store().await.unwrap();
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&mut store.connection)
            .await
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn a_sheet_that_drops_out_is_counted_no_more_and_keeps_what_it_has_used() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 3), 1).await;
    complete(&ledger, run, 1, 10).await;
    let of = attempt(run, 3, 1);
    commit(&ledger, 20, [intended(of, AttemptKind::First), started(of, 21)]).await;
    let verdict = Verdict::Failed {
        cause: Cause::Fatal,
        code: Code::E306,
        message: "it cannot".to_owned(),
    };
    let failed = report(Some(failure(Cause::Fatal, Code::E306)), &[]);
    finish(&ledger, 23, of, &failed, [ended(run, 3, verdict)]).await;
    assert_eq!(ledger.run("a", None).await.unwrap().unwrap().sheets_failed, 1);
    give(&ledger, run, 1, &plan("a", 2), 30).await;
    let row = ledger.run("a", None).await.unwrap().unwrap();
    assert_eq!((row.sheets_total, row.sheets_done, row.sheets_failed), (2, 1, 0));
    assert_eq!(row.cost, Some(Cost(3_000)), "it was spent");
    assert_eq!(ledger.sheets(run, 1, 9).await.unwrap().len(), 2);
    assert_eq!(
        ledger
            .checkpoint(run)
            .await
            .unwrap()
            .sheets
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [1]
    );
    give(&ledger, run, 2, &plan("a", 3), 40).await;
    let sheets = ledger.sheets(run, 3, 1).await.unwrap();
    assert_eq!(
        (sheets[0].state, sheets[0].attempts, sheets[0].code),
        (SheetStatus::Pending, 1, None)
    );
}

#[tokio::test]
async fn what_the_rules_gave_without_a_session_is_kept_with_the_verdict() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 2), 1).await;
    let of = attempt(run, 1, 1);
    commit(&ledger, 20, [intended(of, AttemptKind::First), started(of, 21)]).await;
    let verdict = Verdict::Failed {
        cause: Cause::Validation,
        code: Code::E201,
        message: "rule 1: the file is missing".to_owned(),
    };
    let missing = report(Some(failure(Cause::Validation, Code::E201)), &[true, false]);
    finish(&ledger, 23, of, &missing, [ended(run, 1, verdict)]).await;
    let recovered = |sheet| FactKind::SheetRecovered {
        run,
        sheet: SheetNo(sheet),
        generation: Generation(2),
    };
    let facts = [fact(30, recovered(1)), fact(30, recovered(2))];
    let checked = [1, 2].map(|sheet| (SheetNo(sheet), report(None, &[true, true]).validation));
    let batch = Batch {
        facts: &facts,
        checked: &checked,
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap();
    let row = ledger.run("a", None).await.unwrap().unwrap();
    assert_eq!((row.sheets_done, row.sheets_failed), (2, 0));
    let sheets = ledger.sheets(run, 1, 9).await.unwrap();
    let checkpoint = ledger.checkpoint(run).await.unwrap();
    for (sheet, attempts) in sheets.iter().zip([1, 0]) {
        assert_eq!(
            (sheet.state, sheet.attempts, sheet.code),
            (SheetStatus::Completed, attempts, None)
        );
        assert_eq!(
            sheet.validations.iter().map(|rule| rule.passed).collect::<Vec<_>>(),
            [true, true]
        );
        let kept = &checkpoint.sheets[&sheet.sheet_num];
        assert_eq!(
            (kept.status.as_str(), kept.validation_passed),
            ("completed", Some(true))
        );
        assert_eq!(kept.attempt_count, attempts);
    }
    // The attempt is told as it was, and its failure is no lesson any more than before.
    assert_eq!(ledger.attempts(run, 1).await.unwrap()[0].report, Some(missing));
    assert_eq!(ledger.attempts(run, 2).await.unwrap(), []);
}
