//! What was spent is booked by day, and outlives the runs.

use super::*;
use crate::engine::event::Spent;
use crate::summary::{CostFilter, CostKey, CostSummary};

/// A run of `sheets` sheets, whose sessions are that account's.
async fn run_of(ledger: &Ledger, job: &str, account: Option<&str>) -> RunId {
    let plan = plan(job, 3);
    let (run, no) = ledger.next_numbers(&plan.name).await.unwrap();
    let facts = [fact(1, submitted(run, no, &plan))];
    let context = SubmitContext {
        account: account.map(|name| crate::model::AccountId(name.to_owned())),
        ..SubmitContext::default()
    };
    let batch = Batch {
        facts: &facts,
        submission: Some(Submission {
            run,
            plan: &plan,
            context: &context,
        }),
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap();
    run
}

/// A session that ended on that day, with what it said of its cost and what was reserved for it.
async fn spends(ledger: &Ledger, day: &str, of: AttemptRef, cost: Option<i64>, reserved: Option<i64>, model: &str) {
    let mut start = intended(of, AttemptKind::First);
    if let FactKind::AttemptIntended { budget, .. } = &mut start {
        *budget = reserved.map(Cost);
    }
    commit(ledger, 10, [start]).await;
    let mut report = report(None, &[true]);
    report.outcome.cost = cost.map(Cost);
    report.outcome.cost_estimated = model == "b";
    report.session.model = Some(model.to_owned());
    let facts = [
        fact(11, over(of, &report)),
        fact(11, ended(of.run, of.sheet.0, Verdict::Completed)),
    ];
    let batch = Batch {
        facts: &facts,
        reports: vec![(of, &report)],
        day,
        ..Batch::default()
    };
    ledger.commit(batch).await.unwrap();
}

fn by(keys: &[CostKey]) -> CostFilter {
    CostFilter {
        by: keys.to_vec(),
        ..CostFilter::default()
    }
}

fn shape(cost: &CostSummary) -> (Option<&str>, Option<u32>, u32, u32, i64, i64) {
    let key = cost.day.as_deref().or(cost.job.as_deref()).or(cost.model.as_deref());
    let key = key.or(cost.account.as_deref());
    (
        key,
        cost.run,
        cost.sessions,
        cost.unknown,
        cost.cost.0,
        cost.estimated.0,
    )
}

#[tokio::test]
async fn what_was_spent_is_told_by_whatever_is_asked() {
    let home = Home::new();
    let ledger = home.open().await;
    let first = run_of(&ledger, "x", Some("me")).await;
    let second = run_of(&ledger, "y", Some("me")).await;
    let nobodys = run_of(&ledger, "z", None).await;
    spends(&ledger, "2026-11-20", attempt(first, 1, 1), Some(100), None, "a").await;
    spends(&ledger, "2026-11-21", attempt(first, 2, 1), Some(200), None, "b").await;
    spends(&ledger, "2026-11-21", attempt(second, 1, 1), None, Some(5000), "a").await;
    spends(&ledger, "2026-11-21", attempt(nobodys, 1, 1), None, None, "").await;

    let told =
        |costs: Vec<CostSummary>| -> Vec<String> { costs.iter().map(|cost| format!("{:?}", shape(cost))).collect() };
    let days = told(ledger.costs(&by(&[CostKey::Day])).await.unwrap());
    assert_eq!(
        days,
        [
            r#"(Some("2026-11-20"), None, 1, 0, 100, 0)"#,
            r#"(Some("2026-11-21"), None, 3, 2, 200, 200)"#
        ]
    );
    let models = told(ledger.costs(&by(&[CostKey::Model])).await.unwrap());
    assert_eq!(
        models,
        [
            "(None, None, 1, 1, 0, 0)",
            r#"(Some("a"), None, 2, 1, 100, 0)"#,
            r#"(Some("b"), None, 1, 0, 200, 200)"#
        ]
    );
    let of_job = CostFilter {
        since: "2026-11-21".to_owned(),
        job: Some("x".to_owned()),
        ..by(&[CostKey::Run])
    };
    assert_eq!(
        told(ledger.costs(&of_job).await.unwrap()),
        [r#"(Some("x"), Some(1), 1, 0, 200, 200)"#]
    );
    assert_eq!(ledger.costs(&by(&[CostKey::Account])).await.unwrap().len(), 2);

    // What nobody knows is booked as what was reserved for it.
    let me = crate::model::AccountId("me".to_owned());
    let spent = Spent {
        cost: Cost(5200),
        sessions: 2,
    };
    assert_eq!(
        ledger.spent_on("2026-11-21").await.unwrap(),
        [(me.clone(), spent)].into()
    );
    assert_eq!(ledger.spent_on("2026-11-22").await.unwrap(), [].into());
    let starts = ledger.starts_since(at(9)).await.unwrap();
    assert_eq!(starts, vec![(at(10), me); 3]);
    assert_eq!(ledger.starts_since(at(10)).await.unwrap(), []);

    // Runs are forgotten, and what they have cost is not.
    for run in [first, second, nobodys] {
        end(&ledger, run, 20, RunState::Failed).await;
    }
    assert_eq!(ledger.trim(0).await.unwrap().len(), 3);
    assert_eq!(told(ledger.costs(&by(&[CostKey::Day])).await.unwrap()), days);
}

#[tokio::test]
async fn the_latest_starts_are_found_also_after_the_clock_was_set_back() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = run_of(&ledger, "x", Some("me")).await;
    let start = async |seconds, sheet| {
        let facts = [intended(attempt(run, sheet, 1), AttemptKind::First)];
        commit(&ledger, seconds, facts).await;
    };
    let since = async |seconds| {
        let starts = ledger.starts_since(at(seconds)).await.unwrap();
        starts.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    start(7200, 1).await;
    assert_eq!(since(7000).await, [at(7200)]);
    assert_eq!(since(7200).await, []);
    // Nobody knows how long ago that first one was.
    start(100, 2).await;
    assert_eq!(since(90).await, [at(7200), at(100)]);
    // Now it is known: longer than the second one.
    start(220, 3).await;
    assert_eq!(since(110).await, [at(220)]);
    assert_eq!(since(220).await, []);
}

#[tokio::test]
async fn what_a_ledger_of_the_first_version_tells_of_costs_is_booked() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/testdata/ledger-v1.db");
    let home = Home::new();
    std::fs::create_dir(home.path().parent().unwrap()).unwrap();
    std::fs::copy(&place, home.path()).unwrap();
    let ledger = home.open().await;
    let costs = ledger.costs(&by(&[CostKey::Job])).await.unwrap();
    let told: Vec<_> = costs
        .iter()
        .map(|cost| (cost.job.as_deref().unwrap_or_default(), cost.sessions, cost.cost.0))
        .collect();
    assert_eq!(told, [("ended", 2, 3000), ("live", 1, 1500)]);
}

#[tokio::test]
async fn what_was_said_about_a_day_is_kept_until_the_next_is_decided() {
    let home = Home::new();
    let ledger = home.open().await;
    let decided = |seconds: i64| FactKind::DayDecided {
        account: crate::model::AccountId("me".to_owned()),
        ends: at(seconds),
        limit: None,
    };
    commit(&ledger, 1, [decided(100)]).await;
    commit(&ledger, 2, [decided(200)]).await;
    assert_eq!(ledger.live_facts().await.unwrap(), [fact(2, decided(200))]);
}
