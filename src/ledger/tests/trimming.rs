//! Old runs are forgotten, with all that is theirs and nothing else.

use super::*;

async fn count(ledger: &Ledger, table: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    let mut store = ledger.store().await.unwrap();
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(&mut store.connection)
        .await
        .unwrap()
}

async fn counts(ledger: &Ledger) -> Vec<(&'static str, i64)> {
    let mut counts = Vec::new();
    for table in [
        "runs",
        "sheets",
        "facts",
        "sources",
        "former_sources",
        "plans",
        "sessions",
        "late_reports",
    ] {
        counts.push((table, count(ledger, table).await));
    }
    counts
}

/// A run of one sheet that cost something, and of which a late report came.
async fn ended_run(ledger: &Ledger, plan: &Plan, seconds: i64) -> RunId {
    let run = submit(ledger, plan, seconds).await;
    complete(ledger, run, 1, seconds + 1).await;
    end(ledger, run, seconds + 4, RunState::Completed).await;
    let late = report(None, &[true]);
    ledger
        .commit(Batch {
            reports: vec![(attempt(run, 1, 1), &late)],
            ..Batch::default()
        })
        .await
        .unwrap();
    run
}

#[tokio::test]
async fn the_runs_that_ended_longest_ago_are_forgotten() {
    let home = Home::new();
    let ledger = home.open().await;
    let (a, b) = (plan("a", 1), plan("b", 1));
    let live = submit(&ledger, &a, 1).await;
    commit(&ledger, 2, [intended(attempt(live, 1, 1), AttemptKind::First)]).await;
    let early = ended_run(&ledger, &b, 100).await;
    let one = counts(&ledger).await;
    // Ended first, though it was submitted last.
    let late = ended_run(&ledger, &plan("c", 1), 10).await;
    assert_eq!(ledger.trim(2).await.unwrap(), []);
    assert_eq!(ledger.trim(1).await.unwrap(), [late]);
    assert_eq!(
        counts(&ledger).await,
        one,
        "nothing of it is left, and nothing else is gone"
    );
    assert!(ledger.run_by_id(late).await.unwrap().is_none());
    assert_eq!(ledger.facts_of(early).await.unwrap().len(), 6);

    assert_eq!(ledger.trim(0).await.unwrap(), [early]);
    assert_eq!(ledger.live_facts().await.unwrap().len(), 2, "a live run stays");
    assert!(ledger.plan(live).await.is_ok());
    let (next, _) = ledger.next_numbers(&b.name).await.unwrap();
    assert_eq!(next.0, late.0 + 1, "a number is given once");
    ledger.close().await.unwrap();
    home.open().await;
}

#[tokio::test]
async fn a_plan_stays_as_long_as_a_run_of_it_does() {
    let home = Home::new();
    let ledger = home.open().await;
    let plan = plan("a", 1);
    let first = ended_run(&ledger, &plan, 1).await;
    let second = ended_run(&ledger, &plan, 100).await;
    assert_eq!(ledger.trim(1).await.unwrap(), [first]);
    assert!(ledger.plan(second).await.is_ok());
    assert_eq!(count(&ledger, "plans").await, 1);
}

#[tokio::test]
async fn where_it_cannot_be_written_nothing_is_forgotten() {
    let home = Home::new();
    let ledger = home.open().await;
    ended_run(&ledger, &plan("a", 1), 1).await;
    let before = counts(&ledger).await;
    ledger.refuse_writes(true).await;
    ledger.trim(0).await.unwrap_err();
    ledger.refuse_writes(false).await;
    assert_eq!(counts(&ledger).await, before);
    assert_eq!(ledger.trim(0).await.unwrap().len(), 1);
}
