//! Ledgers that earlier versions wrote are read by this one, for ever.

use super::*;
use crate::engine::Engine;
use crate::summary::RunFilter;

/// What `testdata/ledger-v1.db` holds: a run that failed, and one that is paused while a session of it runs.
async fn first_version(ledger: &Ledger) {
    let ended_run = submit(ledger, &plan("ended", 3), 0).await;
    complete(ledger, ended_run, 1, 10).await;
    let of = attempt(ended_run, 2, 1);
    commit(ledger, 20, [intended(of, AttemptKind::First), started(of, 21)]).await;
    let missing = report(Some(failure(Cause::Validation, Code::E201)), &[true, false]);
    let verdict = Verdict::Failed {
        cause: Cause::Validation,
        code: Code::E201,
        message: "rule 1: the file is missing".to_owned(),
    };
    finish(ledger, 23, of, &missing, [ended(ended_run, 2, verdict)]).await;
    end(ledger, ended_run, 24, RunState::Failed).await;

    let live = submit(ledger, &plan("live", 4), 100).await;
    complete(ledger, live, 1, 110).await;
    let of = attempt(live, 2, 1);
    commit(ledger, 120, [intended(of, AttemptKind::First), started(of, 121)]).await;
    let why = crate::engine::event::PauseWhy::Person;
    commit(ledger, 130, [FactKind::RunPaused { run: live, why }]).await;
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_read() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/testdata/ledger-v1.db");
    // As the first version wrote it, and never written anew: a later schema gets a file of its own.
    if std::env::var_os("MOZART_WRITE").is_some() && !place.exists() {
        let home = Home::new();
        let ledger = home.open().await;
        first_version(&ledger).await;
        ledger.close().await.unwrap();
        std::fs::copy(home.path(), &place).unwrap();
    }
    let home = Home::new();
    std::fs::create_dir(home.path().parent().unwrap()).unwrap();
    std::fs::copy(&place, home.path()).unwrap();
    let (ledger, set_aside) = Ledger::open_or_set_aside(&home.path(), at(0)).await.unwrap();
    assert_eq!(set_aside, None);
    let mut engine = Engine::new(crate::daemon::settings::Settings::default().engine, ledger.id(), 1);
    for fact in ledger.live_facts().await.unwrap() {
        engine.apply(&fact);
    }
    let mut told = Vec::new();
    for run in engine.runs() {
        told.push(format!("{run:#?}"));
    }
    for run in ledger.runs(&RunFilter::default(), 10, "").await.unwrap().0 {
        let (plan, _) = ledger.plan(run.id).await.unwrap();
        assert_eq!(plan, super::plan(run.job.as_str(), run.sheets_total));
        for sheet in ledger.sheets(run.id, 1, 10).await.unwrap() {
            for attempt in ledger.attempts(run.id, sheet.sheet_num).await.unwrap() {
                told.push(format!("{attempt:#?}"));
            }
            told.push(format!("{sheet:#?}"));
        }
        told.push(format!("{run:#?}"));
    }
    insta::assert_snapshot!(told.join("\n"));
}
