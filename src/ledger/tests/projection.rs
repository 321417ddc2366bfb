use proptest::prelude::*;

use super::*;
use crate::engine::event::PauseWhy;
use crate::ledger::rows::{self, Phase, Rows};
use crate::ledger::table;
use crate::model::SheetStatus;

fn follow(kinds: Vec<FactKind>) -> Rows {
    let mut rows = Rows::default();
    for (seq, kind) in (1..).zip(kinds) {
        rows::project(&mut rows, seq, &fact(seq, kind)).unwrap();
    }
    rows
}

const RUN: RunId = RunId(1);

fn begun() -> Vec<FactKind> {
    vec![submitted(RUN, RunNo(1), &plan("a", 4))]
}

#[test]
fn a_run_is_queued_then_runs_then_waits_then_ends() {
    let of = attempt(RUN, 1, 1);
    let mut kinds = begun();
    let state = |kinds: &Vec<FactKind>| follow(kinds.clone()).runs[&RUN].state();
    assert_eq!(state(&kinds), RunState::Queued);
    kinds.push(intended(of, AttemptKind::First));
    assert_eq!(state(&kinds), RunState::Running);
    kinds.push(started(of, 2));
    kinds.push(over(of, &report(Some(failure(Cause::Transient, Code::E103)), &[])));
    kinds.push(FactKind::SheetWaits {
        run: RUN,
        sheet: SheetNo(1),
        until: at(99),
        cause: Cause::Transient,
        code: Code::E103,
        kind: AttemptKind::Retry,
        ask: Ask::Task,
        resume: None,
        by_calendar: false,
    });
    assert_eq!(state(&kinds), RunState::Waiting);
    kinds.push(FactKind::RunPaused {
        run: RUN,
        why: PauseWhy::Person,
    });
    assert_eq!(state(&kinds), RunState::Paused);
    kinds.push(FactKind::RunResumed { run: RUN });
    assert_eq!(state(&kinds), RunState::Waiting);
    kinds.push(intended(attempt(RUN, 1, 2), AttemptKind::Retry));
    kinds.push(over(attempt(RUN, 1, 2), &report(None, &[true, true])));
    kinds.push(ended(RUN, 1, Verdict::Completed));
    assert_eq!(state(&kinds), RunState::Running);
    kinds.push(FactKind::RunEnded {
        run: RUN,
        state: RunState::Failed,
    });
    assert_eq!(state(&kinds), RunState::Failed);

    let rows = follow(kinds);
    let (run, sheet) = (&rows.runs[&RUN], &rows.sheets[&(RUN, SheetNo(1))]);
    assert_eq!((run.completed, run.running, run.waiting, run.retries), (1, 0, 0, 1));
    assert_eq!((run.cost, run.tokens_in, run.tokens_out), (Some(Cost(3_000)), 200, 40));
    assert_eq!((sheet.attempts, sheet.state), (2, SheetStatus::Completed));
    assert_eq!((sheet.cause, sheet.code, &sheet.message), (None, None, &None));
    assert_eq!((sheet.report_seq, sheet.validated_seq), (Some(9), Some(9)));
    assert_eq!(run.ended_at, Some(at(11)));
    assert_eq!(run.revision, 10, "every fact but the start alone");
}

#[test]
fn waits_are_counted_by_kind_of_limit() {
    let wait = |code| FactKind::SheetWaits {
        run: RUN,
        sheet: SheetNo(1),
        until: at(9),
        cause: Cause::RateLimit,
        code,
        kind: AttemptKind::Probe,
        ask: Ask::Task,
        resume: None,
        by_calendar: false,
    };
    let mut kinds = begun();
    kinds.extend([wait(Code::E101), wait(Code::E104), wait(Code::E105)]);
    let run = follow(kinds).runs[&RUN].clone();
    assert_eq!((run.rate_limit_waits, run.quota_waits, run.waiting), (1, 2, 1));
}

#[test]
fn a_late_end_counts_no_money_twice() {
    let of = attempt(RUN, 1, 1);
    let end = || over(of, &report(None, &[]));
    let mut kinds = begun();
    kinds.extend([
        intended(of, AttemptKind::First),
        end(),
        ended(RUN, 1, Verdict::Completed),
    ]);
    let once = follow(kinds.clone());
    kinds.push(end());
    let twice = follow(kinds);
    assert_eq!(twice.runs[&RUN].cost, once.runs[&RUN].cost);
    assert_eq!(twice.sheets, once.sheets);
}

#[test]
fn a_new_generation_opens_an_ended_run_again() {
    let mut kinds = begun();
    let verdict = Verdict::Failed {
        cause: Cause::Fatal,
        code: Code::E502,
        message: "not logged in".to_owned(),
    };
    kinds.extend([
        ended(RUN, 1, verdict),
        FactKind::RunEnded {
            run: RUN,
            state: RunState::Failed,
        },
    ]);
    let failed = follow(kinds.clone());
    assert_eq!((failed.runs[&RUN].failed, failed.runs[&RUN].reason_sheet), (1, Some(1)));
    kinds.push(FactKind::GenerationOpened {
        run: RUN,
        sheet: SheetNo(1),
        generation: Generation(2),
    });
    let open = follow(kinds);
    let (run, sheet) = (&open.runs[&RUN], &open.sheets[&(RUN, SheetNo(1))]);
    assert_eq!(
        (run.failed, run.phase, run.ended_at, run.reason_sheet),
        (0, Phase::Live, None, None)
    );
    assert_eq!(
        (sheet.state, sheet.generation, sheet.code),
        (SheetStatus::Pending, Generation(2), None)
    );
}

fn any_fact() -> impl Strategy<Value = FactKind> {
    let of = (1..3_i64, 1..4_u32, 1..4_u32).prop_map(|(run, sheet, number)| attempt(RunId(run), sheet, number));
    let run = (1..3_i64).prop_map(RunId);
    let kind = prop::sample::select(vec![AttemptKind::First, AttemptKind::Retry, AttemptKind::Completion]);
    let rules = prop::collection::vec(any::<bool>(), 0..3);
    let outcome = (any::<bool>(), rules)
        .prop_map(|(failed, rules)| report(failed.then(|| failure(Cause::Validation, Code::E201)), &rules).outcome);
    let verdict = prop::sample::select(vec![
        Verdict::Completed,
        Verdict::Failed {
            cause: Cause::Validation,
            code: Code::E202,
            message: "no".to_owned(),
        },
        Verdict::Skipped {
            reason: "before start sheet".to_owned(),
        },
        Verdict::Cancelled,
    ]);
    let why = prop::sample::select(vec![PauseWhy::Person, PauseWhy::Interrupted]);
    let state = prop::sample::select(vec![RunState::Completed, RunState::Failed, RunState::Cancelled]);
    prop_oneof![
        (of.clone(), kind).prop_map(|(of, kind)| intended(of, kind)),
        of.clone().prop_map(|of| started(of, 3)),
        of.clone().prop_map(|of| FactKind::StopAsked { attempt: of }),
        (of.clone(), outcome).prop_map(|(attempt, outcome)| FactKind::AttemptEnded { attempt, outcome }),
        (of.clone(), 0..99_i64).prop_map(|(of, until)| FactKind::SheetWaits {
            run: of.run,
            sheet: of.sheet,
            until: at(until),
            cause: Cause::RateLimit,
            code: Code::E104,
            kind: AttemptKind::Probe,
            ask: Ask::Task,
            resume: None,
            by_calendar: false,
        }),
        (of.clone(), verdict).prop_map(|(of, verdict)| FactKind::SheetEnded {
            run: of.run,
            sheet: of.sheet,
            verdict
        }),
        (of, 2..5_u32).prop_map(|(of, number)| FactKind::GenerationOpened {
            run: of.run,
            sheet: of.sheet,
            generation: Generation(number),
        }),
        (run.clone(), why).prop_map(|(run, why)| FactKind::RunPaused { run, why }),
        run.clone().prop_map(|run| FactKind::RunResumed { run }),
        run.clone().prop_map(|run| FactKind::RunCancelling { run }),
        (run, state).prop_map(|(run, state)| FactKind::RunEnded { run, state }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the facts are cut into commits: the rows in the tables are those that the whole journal tells, the
    /// counters are those of the sheets, and exactly the runs that have not ended are live.
    #[test]
    fn stored_rows_are_those_that_the_journal_tells(
        batches in prop::collection::vec(prop::collection::vec(any_fact(), 1..5), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let home = Home::new();
            let ledger = home.open().await;
            let plan = plan("a", 3);
            let runs = [submit(&ledger, &plan, 0).await, submit(&ledger, &plan, 0).await];
            for batch in batches {
                let after = commit(&ledger, 7, batch).await;
                for run in runs {
                    let told = ledger.run_after(&after, run).await.unwrap();
                    assert_eq!(told, ledger.run_by_id(run).await.unwrap());
                    for sheet in 1..4 {
                        let told = ledger.sheet_after(&after, run, SheetNo(sheet)).await.unwrap();
                        assert_eq!(told, ledger.sheets(run, sheet, 1).await.unwrap().pop());
                    }
                }
            }
            ledger.close().await.unwrap();
            let ledger = home.open().await;
            let mut store = ledger.store().await.unwrap();
            let (mut stored, mut told) = (Rows::default(), Rows::default());
            let journal: Vec<(i64, String)> =
                sqlx::query_as("SELECT seq, json FROM facts ORDER BY seq").fetch_all(&mut store.connection).await.unwrap();
            for (seq, json) in journal {
                rows::project(&mut told, seq, &serde_json::from_str(&json).unwrap()).unwrap();
            }
            for run in runs {
                let row = table::run(&mut store.connection, run).await.unwrap().unwrap();
                for row in table::sheets_above(&mut store.connection, run, 0).await.unwrap() {
                    stored.sheets.insert((run, row.sheet), row);
                }
                let count = |state| told.sheets.values().filter(|sheet| sheet.run == run && sheet.state == state).count() as u32;
                assert_eq!(row.completed, count(SheetStatus::Completed));
                assert_eq!(row.failed, count(SheetStatus::Failed));
                assert_eq!(row.skipped, count(SheetStatus::Skipped));
                assert_eq!(row.running, count(SheetStatus::Running));
                assert_eq!(row.waiting, count(SheetStatus::Waiting));
                stored.runs.insert(run, row);
            }
            drop(store);
            assert_eq!(stored, told);
            let live = ledger.live_facts().await.unwrap();
            for run in runs {
                let ended = matches!(told.runs[&run].phase, Phase::Ended(_));
                assert_eq!(live.iter().any(|fact| fact.kind.run() == Some(run)), !ended);
            }
        });
    }
}
