//! Each call of SQLite fails once, for a while, or as the last before the conductor's end: whatever it is, the run
//! ends as it would have, no attempt starts twice and nothing acknowledged is lost.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::*;
use crate::daemon::clock;
use crate::daemon::conductor::seed_of;
use crate::engine::{Engine, FactKind};
use crate::ledger::faults::{Faults, Moment};
use crate::ledger::tests::{failure, report};
use crate::ledger::{OpenError, checkpoint};
use crate::model::{AttemptReport, Cause, Code, Limit, LimitKind, Span};
use canonical::Ends;
pub(super) use canonical::{CANONICAL, Canonical};

#[path = "../../../tests/canonical/jobs.rs"]
mod canonical;

/// The sessions of a job. They outlive any conductor.
struct Sessions {
    job: &'static Canonical,
    started: BTreeSet<AttemptRef>,
    /// Of those that the present conductor holds.
    known: BTreeSet<AttemptRef>,
    says: VecDeque<(AttemptRef, Progress)>,
}

impl Sessions {
    /// Does what the conductor asked for since the last look, and has something to say of it.
    async fn follow(&mut self, conductor: &Conductor) {
        let asked: Vec<_> = conductor.running.keys().copied().collect();
        for attempt in asked {
            if !self.known.insert(attempt) {
                continue;
            }
            if !conductor.adopting.contains(&attempt) {
                let facts = conductor.ledger.facts_of(attempt.run).await.unwrap();
                let of_it =
                    |kind: &FactKind| matches!(kind, FactKind::AttemptIntended { attempt: of, .. } if *of == attempt);
                assert!(facts.iter().any(|fact| of_it(&fact.kind)), "its intent is not stored");
                assert!(self.started.insert(attempt), "{attempt} starts twice");
            } else if !self.started.contains(&attempt) {
                self.says.push_back((attempt, Progress::NeverRan));
                continue;
            }
            self.says.push_back((attempt, started()));
            let ends = self.job.sheets[attempt.sheet.0 as usize - 1][attempt.attempt.0 as usize - 1];
            let report = Box::new(report_of(attempt, ends));
            self.says.push_back((attempt, Progress::Finished(report)));
        }
    }

    fn next(&mut self) -> Option<(AttemptRef, Progress)> {
        let said = self.says.pop_front()?;
        if matches!(said.1, Progress::NeverRan) {
            self.known.remove(&said.0);
        }
        Some(said)
    }

    fn left_alone(&mut self) {
        self.known.clear();
        self.says.clear();
    }
}

fn report_of(attempt: AttemptRef, ends: Ends) -> AttemptReport {
    let wrong = || Some(failure(Cause::Validation, Code::E201));
    let mut report = match ends {
        Ends::Well => report(None, &[true; 3]),
        Ends::Wrong => report(wrong(), &[false; 3]),
        Ends::Partly => report(wrong(), &[false, true, true]),
        Ends::Limited => report(Some(failure(Cause::RateLimit, Code::E104)), &[]),
    };
    report.outcome.session_id = Some(format!("session-of-{attempt}"));
    if let (Ends::Limited, Some(failure)) = (ends, &mut report.outcome.failure) {
        failure.limit = Some(Limit {
            kind: LimitKind::Usage,
            window: Some("five_hour".to_owned()),
            resets_at: Some(clock::now().wall.plus(Span::from_secs(3600))),
            from_text: false,
            retry_after: None,
        });
    }
    report
}

/// Runs the job to its end while those calls fail; `killed`: the conductor with the first of them. Tells what is left.
async fn run(job: &'static Canonical, faults: &Arc<Faults>, failing: Range<Moment>, killed: bool) -> String {
    let directory = quick_directory();
    let paths = paths_in(directory.path());
    let submit = Submit {
        text: job.text("{type: claude_cli, cli_path: /bin/echo, working_directory: .}"),
        base_directory: directory.path().display().to_string(),
        ..Submit::default()
    };
    let mut sessions = Sessions {
        job,
        started: BTreeSet::new(),
        known: BTreeSet::new(),
        says: VecDeque::new(),
    };
    let mut ledger = opened(&paths).await;
    ledger.ask(faults).await;
    faults.fail(failing);
    let mut conductor: Option<Conductor> = None;
    let (mut acknowledged, mut lives) = (false, true);
    for step in 0.. {
        assert!(step < 500, "it does not come to an end");
        if killed && lives && faults.hit() {
            lives = false;
            if let Some(mut conductor) = conductor.take() {
                // They hold the ledger, and cannot read from it any more.
                conductor.drained().await;
            }
            drop(ledger);
            sessions.left_alone();
            ledger = opened(&paths).await;
            faults.fail(NONE);
            ledger.ask(faults).await;
        }
        let Some(conductor) = &mut conductor else {
            match conductor_of(paths.clone(), &ledger, true).await {
                Ok(restored) => conductor = Some(restored),
                Err(error) => assert!(faults.hit(), "{error}"),
            }
            continue;
        };
        if !acknowledged {
            match conductor.submit(submit.clone()).await {
                Ok(_) => acknowledged = true,
                Err(error) => assert!(faults.hit() && matches!(error, ApiError::Storage(_)), "{error}"),
            }
            continue;
        }
        conductor.drained().await;
        audit(conductor, &mut sessions, faults).await;
        if let Some((attempt, progress)) = sessions.next() {
            conductor.report(attempt, progress).await;
        } else if let Some(at) = conductor.next_alarm() {
            clock::test::forward_to(at);
            conductor.wake().await;
        } else {
            break;
        }
    }
    faults.stand_aside(true);
    let told = outcome(job, &ledger, &paths, directory.path()).await;
    format!("{told}{} sessions\n", sessions.started.len())
}

/// What always holds, and what the sessions do meanwhile.
async fn audit(conductor: &Conductor, sessions: &mut Sessions, faults: &Faults) {
    faults.stand_aside(true);
    let ledger = &conductor.ledger;
    let mut told = Engine::new(conductor.settings.engine.clone(), ledger.id(), seed_of(ledger.id()));
    for fact in ledger.live_facts().await.unwrap() {
        told.try_apply(&fact).unwrap();
    }
    let (told, is) = (recorded(&told), recorded(&conductor.engine));
    assert_eq!(told, is, "the journal tells another story");
    let row = ledger.run(sessions.job.name, None).await.unwrap();
    assert!(row.is_some(), "what was acknowledged is lost");
    sessions.follow(conductor).await;
    faults.stand_aside(false);
}

/// The engine but for what stands beside its facts.
pub(super) fn recorded(engine: &Engine) -> serde_json::Value {
    let mut all = serde_json::to_value(engine).unwrap();
    assert!(all.as_object_mut().unwrap().remove("overlay").is_some());
    all
}

/// The verdicts, in the ledger and in the checkpoint.
pub(super) async fn outcome(job: &Canonical, ledger: &Ledger, paths: &Paths, directory: &Path) -> String {
    let (runs, _) = ledger.runs(&RunFilter::default(), 10, "").await.unwrap();
    let [run] = runs.as_slice() else {
        panic!("one run was asked for: {runs:?}")
    };
    let mut told = format!("{} {}\n", run.state, run.sheets_done);
    for sheet in ledger.sheets(run.id, 1, 10).await.unwrap() {
        let (attempts, again) = (sheet.attempts, sheet.completion_attempts);
        told += &format!(
            "{:?} {attempts} {again} {:?} {:?}\n",
            sheet.state, sheet.cause, sheet.code
        );
        for attempt in ledger.attempts(run.id, sheet.sheet_num).await.unwrap() {
            let report = attempt
                .report
                .as_ref()
                .unwrap_or_else(|| panic!("{attempt:#?} {:?}", sheet.state));
            let failure = report.outcome.clone().failure.map(|failure| failure.code);
            told += &format!("  {:?} {failure:?}\n", attempt.kind);
        }
    }
    let path = directory.join(job.name).join(format!("{}.json", job.name));
    let read = checkpoint::read(&path).unwrap();
    assert!(paths.ledger().exists());
    told + &format!("checkpoint {} {:?}\n", read.status, read.completed_sheets())
}

/// A directory in memory, where there is one: nothing here depends on the disk, and hundreds of ledgers are made.
pub(super) fn quick_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

pub(super) async fn opened(paths: &Paths) -> Arc<Ledger> {
    let begun = Instant::now();
    loop {
        match Ledger::open(&paths.ledger()).await {
            Ok(ledger) => return Arc::new(ledger),
            // A process that a test beside this one is about to start has the lock until it is the other program.
            Err(OpenError::Held { .. }) if begun.elapsed() < Duration::from_secs(5) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// No moment.
const NONE: Range<Moment> = (0, 0)..(0, 0);

/// Where a call that commits is hit; any other one is at its first moment.
#[derive(Clone, Copy)]
enum Hit {
    First,
    /// Amid its statements: something is written, and nothing is kept.
    Amid,
    Commit,
}

/// Fails every call of every canonical job in turn. `until`: where the failing that began at a moment ends.
async fn each_call(hits: &[Hit], killed: bool, until: impl Fn(Moment) -> Moment) {
    for job in &CANONICAL {
        let faults = Arc::new(Faults::default());
        let well = run(job, &faults, NONE, false).await;
        let starts: usize = job.sheets.iter().map(|ends| ends.len()).sum();
        assert!(well.contains(&format!("{starts} sessions")), "{well}");
        let state = if job.completes() { "completed" } else { "failed" };
        assert!(well.starts_with(state), "{well}");
        let calls = faults.met();
        assert!(calls.len() > 10, "{calls:?}");
        for (number, call) in calls.iter().enumerate() {
            let mut moments: BTreeSet<u32> = BTreeSet::new();
            moments.extend(hits.iter().map(|hit| match (hit, call.commit) {
                (Hit::Amid, Some(commit)) => commit / 2,
                (Hit::Commit, Some(commit)) => commit,
                (Hit::First, _) | (_, None) => 0,
            }));
            for moment in moments {
                let from = (number, moment);
                let told = run(job, &faults, from..until(from), killed).await;
                assert_eq!(told, well, "{} with {from:?} failing", job.name);
            }
        }
    }
}

#[tokio::test]
async fn a_call_of_the_store_that_fails_once_changes_nothing_in_the_end() {
    let hits = [Hit::First, Hit::Amid, Hit::Commit];
    each_call(&hits, false, |(call, moment)| (call, moment + 1)).await;
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_changes_nothing_in_the_end() {
    each_call(&[Hit::Amid], false, |(call, _)| (call + 7, 0)).await;
}

#[tokio::test]
async fn a_conductor_that_ends_with_any_call_of_the_store_is_followed_by_one_that_goes_on() {
    each_call(&[Hit::First, Hit::Commit], true, |_| (usize::MAX, 0)).await;
}
