//! The conductor's own code with a real ledger and no loop: each test says what happens next.

mod faults;
mod launcher;
mod simulation;

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::conductor::{Conductor, Parts};
use super::environment::Environment;
use super::paths::Paths;
use super::settings::Settings;
use crate::api::handle::Request;
use crate::api::request::{ApiError, RunFilter, RunSelector, Submit};
use crate::engine::event::Event;
use crate::ledger::Ledger;
use crate::model::{AttemptNo, AttemptRef, RunId, RunState, SheetNo, SheetStatus, Timestamp};
use crate::runner::attempt::{Runner, RunnerSettings};
use crate::runner::launch::Launcher;
use crate::runner::spec::Progress;

/// A user's directories and the ledger in them.
struct Desk {
    directory: TempDir,
    ledger: Arc<Ledger>,
}

impl Desk {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("state/ledger.db")).await.unwrap();
        Self {
            directory,
            ledger: Arc::new(ledger),
        }
    }

    fn paths(&self) -> Paths {
        paths_in(self.directory.path())
    }

    async fn conductor(&self, conducts: bool) -> Conductor {
        conductor_of(self.paths(), &self.ledger, conducts).await.unwrap()
    }

    fn submit(&self, name: &str) -> Submit {
        Submit {
            text: format!(
                "name: {name}\nworkspace: ./{name}\nbackend: {{type: command, command: [/bin/true], working_directory: .}}\n\
                 sheet: {{size: 1, total_items: 4}}\nprompt: {{template: hello}}\n"
            ),
            base_directory: self.directory.path().display().to_string(),
            ..Submit::default()
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

fn paths_in(directory: &Path) -> Paths {
    Paths {
        state: directory.join("state"),
        runtime: directory.join("run"),
        settings: directory.join("mozartd.yaml"),
    }
}

/// A conductor that cannot start any process: what sessions do is said by the test.
async fn conductor_of(paths: Paths, ledger: &Arc<Ledger>, conducts: bool) -> Result<Conductor, String> {
    conductor_with(Settings::default(), paths, ledger, conducts).await
}

async fn conductor_with(
    settings: Settings,
    paths: Paths,
    ledger: &Arc<Ledger>,
    conducts: bool,
) -> Result<Conductor, String> {
    let nobody = Launcher::supervised("/nonexistent/mozart".into(), paths.spool(&ledger.tag()));
    let mut runner = runner_of(&paths, ledger, nobody);
    runner.scripted = true;
    restored(settings, paths, ledger, conducts, runner).await
}

fn runner_of(paths: &Paths, ledger: &Ledger, launcher: Launcher) -> Runner {
    Runner::new(RunnerSettings {
        launcher,
        spool_root: paths.spool(&ledger.tag()),
        ledger_tag: ledger.tag(),
    })
}

async fn restored(
    settings: Settings,
    paths: Paths,
    ledger: &Arc<Ledger>,
    conducts: bool,
    runner: Runner,
) -> Result<Conductor, String> {
    let parts = Parts {
        paths,
        settings,
        environment: Environment::default(),
        ledger: Arc::clone(ledger),
        runner: Arc::new(runner),
        conducts,
        requests: mpsc::channel(1).1,
        changes: broadcast::channel(16).0,
    };
    Conductor::restore(parts).await
}

fn first(run: i64) -> AttemptRef {
    AttemptRef {
        run: RunId(run),
        sheet: SheetNo(1),
        attempt: AttemptNo(1),
    }
}

fn newest(job: &str) -> RunSelector {
    RunSelector {
        job: job.to_owned(),
        run: None,
    }
}

fn started() -> Progress {
    Progress::Started {
        at: Timestamp(1),
        invocation: None,
    }
}

impl Conductor {
    fn sheet_1_started(&self, run: i64) -> bool {
        self.sheet_1_attempt(run).is_some_and(|(_, started)| started)
    }

    /// The attempt that sheet 1 is at, and whether it is known to have started.
    fn sheet_1_attempt(&self, run: i64) -> Option<(AttemptNo, bool)> {
        let sheet = self.engine.run(RunId(run)).and_then(|run| run.sheet(SheetNo(1)))?;
        let attempt = sheet.state().attempt()?;
        Some((attempt.no, attempt.started_at.is_some()))
    }

    fn sheet_status(&self, run: i64, sheet: u32) -> SheetStatus {
        let status = self
            .engine
            .sheet_status(RunId(run), SheetNo(sheet), super::clock::now());
        status.unwrap().0
    }

    /// Waits for the checkpoints that are being written.
    async fn drained(&mut self) {
        while let Some(written) = self.checkpoints.finished().await {
            self.checkpoint_written(written);
        }
    }

    async fn ask<T>(
        &mut self,
        request: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Request,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.answer(request(reply)).await;
        answer.await.unwrap()
    }
}

#[tokio::test]
async fn what_sessions_reported_while_storage_was_blocked_is_decided_before_a_request_is() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    desk.ledger.refuse_writes(true).await;
    conductor.report(first(1), started()).await;
    assert!(!conductor.sheet_1_started(1));
    let refused = conductor.ask(|reply| Request::Pause(newest("a"), false, reply)).await;
    assert!(matches!(refused, Err(ApiError::Storage(_))), "{refused:?}");
    assert!(!conductor.storage().is_empty());

    desk.ledger.refuse_writes(false).await;
    conductor
        .ask(|reply| Request::Pause(newest("a"), false, reply))
        .await
        .unwrap();
    assert!(conductor.sheet_1_started(1), "the report is not lost");
    assert_eq!(conductor.storage(), "");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_at_the_start_delays_what_would_be_started() {
    let desk = Desk::new().await;
    let mut shows = desk.conductor(false).await;
    shows.submit(desk.submit("a")).await.unwrap();
    drop(shows);
    desk.ledger.refuse_writes(true).await;
    let mut conductor = desk.conductor(true).await;
    assert!(!conductor.storage().is_empty());
    desk.ledger.refuse_writes(false).await;
    conductor.step(Event::Tick, None).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
    assert_eq!(conductor.storage(), "");
}

#[tokio::test]
async fn a_stop_that_could_not_be_stored_is_not_half_in_force() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    desk.ledger.refuse_writes(true).await;
    let refused = conductor.ask(|reply| Request::Stop(true, reply)).await;
    assert!(matches!(refused, Err(ApiError::Storage(_))), "{refused:?}");
    desk.ledger.refuse_writes(false).await;
    conductor.submit(desk.submit("b")).await.unwrap();
    assert_eq!(conductor.sheet_status(2, 1), SheetStatus::Running);

    desk.ledger.refuse_writes(true).await;
    conductor
        .ask(|reply| Request::Stop(false, reply))
        .await
        .expect("nothing is to be written for that");
}

#[tokio::test]
async fn one_that_only_shows_starts_nothing_and_writes_no_checkpoint() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    drop(conductor);
    let mut shows = desk.conductor(false).await;
    // Whatever is asked of it, a sheet that could start stays.
    shows.submit(desk.submit("b")).await.unwrap();
    shows.step(Event::Tick, None).await.unwrap();
    assert_eq!(shows.sheet_status(2, 1), SheetStatus::Pending);
    shows.close().await;
    assert!(!desk.path("a/a.json").exists());
}

#[tokio::test]
async fn a_number_whose_directory_is_there_is_not_given_to_a_new_run() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    let spool = desk.paths().spool(&desk.ledger.tag());
    std::fs::create_dir_all(spool.join("1/1-1")).unwrap();
    std::fs::create_dir_all(spool.join("2")).unwrap();
    let submitted = conductor.submit(desk.submit("a")).await.unwrap();
    assert_eq!(submitted.run.0, 1);
    assert!(conductor.engine.run(RunId(3)).is_some());
    conductor
        .ask(|reply| Request::Cancel(newest("a"), reply))
        .await
        .unwrap();
    conductor.submit(desk.submit("b")).await.unwrap();
    assert!(conductor.engine.run(RunId(4)).is_some());
}

#[tokio::test]
async fn a_resume_that_could_not_be_stored_can_be_asked_again() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    conductor
        .ask(|reply| Request::Cancel(newest("a"), reply))
        .await
        .unwrap();
    conductor.report(first(1), Progress::NeverRan).await;
    let row = desk.ledger.run("a", None).await.unwrap().unwrap();
    assert_eq!(row.state, RunState::Cancelled);

    desk.ledger.refuse_writes(true).await;
    let refused = conductor.ask(|reply| Request::Resume(newest("a"), reply)).await;
    assert!(matches!(refused, Err(ApiError::Storage(_))), "{refused:?}");
    assert!(conductor.engine.run(RunId(1)).is_none());
    desk.ledger.refuse_writes(false).await;
    conductor
        .ask(|reply| Request::Resume(newest("a"), reply))
        .await
        .unwrap();
    let attempt = conductor.sheet_1_attempt(1);
    assert_eq!(attempt.map(|(no, _)| no), Some(AttemptNo(2)));
}

#[tokio::test]
async fn an_intent_of_an_earlier_boot_is_not_started_again_though_nothing_is_left_of_it() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    drop(conductor);
    // In the same boot, missing files mean that nothing ran.
    let conductor = desk.conductor(true).await;
    assert!(!conductor.sheet_1_started(1));
    drop(conductor);

    desk.ledger.note_boot("an earlier boot").await.unwrap();
    drop(desk.conductor(true).await);
    // What follows is kept: the next conductor of this boot knows no less.
    let mut conductor = desk.conductor(true).await;
    assert!(conductor.sheet_1_started(1));
    conductor.report(first(1), Progress::NeverRan).await;
    let attempt = conductor.sheet_1_attempt(1);
    assert_eq!(attempt.map(|(no, _)| no), Some(AttemptNo(2)));
}

/// Writes a checkpoint of that job: sheets by number and word.
fn checkpoint(path: &Path, job: &str, sheets: &[(u32, &str)]) {
    let sheets: Vec<String> = sheets
        .iter()
        .map(|(number, word)| format!(r#""{number}":{{"sheet_num":{number},"status":"{word}"}}"#))
        .collect();
    let text = format!(
        r#"{{"job_id":"{job}","job_name":"{job}","total_sheets":4,"sheets":{{{}}}}}"#,
        sheets.join(",")
    );
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_checkpoint_says_what_was_not_to_be_run_and_whose_it_is() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    let resumed = |name: &str| Submit {
        resume: true,
        ..desk.submit(name)
    };
    checkpoint(&desk.path("a/a.json"), "other", &[(1, "completed")]);
    let refused = conductor.submit(resumed("a")).await.unwrap_err();
    assert!(refused.to_string().contains("`other`"), "{refused}");

    checkpoint(
        &desk.path("a/a.json"),
        "a",
        &[(1, "skipped"), (2, "skipped"), (3, "completed"), (4, "failed")],
    );
    conductor.submit(resumed("a")).await.unwrap();
    let status = |sheet| conductor.sheet_status(1, sheet);
    assert_eq!(
        [status(1), status(2), status(3), status(4)],
        [
            SheetStatus::Skipped,
            SheetStatus::Skipped,
            SheetStatus::Completed,
            SheetStatus::Running
        ]
    );
}

#[tokio::test]
async fn fresh_beside_a_live_run_of_the_same_plan_is_told_as_such() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    assert!(conductor.submit(desk.submit("a")).await.unwrap().attached);
    let fresh = Submit {
        fresh: true,
        ..desk.submit("a")
    };
    let refused = conductor.submit(fresh).await.unwrap_err();
    assert!(!refused.to_string().contains("another plan"), "{refused}");
}

#[tokio::test]
async fn an_attempt_without_room_makes_its_run_wait_and_starts_again_under_its_number() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    conductor
        .report(first(1), Progress::NoRoom("/x is full".to_owned()))
        .await;
    assert_eq!(conductor.storage(), "/x is full");
    let view = conductor
        .ask(|reply| Request::GetRun(newest("a"), reply))
        .await
        .unwrap();
    assert_eq!(
        (view.summary.state, view.summary.reason.as_str()),
        (RunState::Waiting, "storage")
    );
    conductor.report(first(1), Progress::NeverRan).await;
    assert_eq!(
        conductor.storage(),
        "/x is full",
        "it may not have been seen yet that there is room"
    );
    conductor.report(first(1), started()).await;
    assert_eq!(conductor.storage(), "");
    assert!(conductor.sheet_1_started(1));

    // One that a person does not wait for is not waited for.
    conductor.submit(desk.submit("b")).await.unwrap();
    conductor
        .report(first(2), Progress::NoRoom("/x is full".to_owned()))
        .await;
    conductor
        .ask(|reply| Request::Cancel(newest("b"), reply))
        .await
        .unwrap();
    conductor.report(first(2), Progress::NeverRan).await;
    assert_eq!(conductor.storage(), "");
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_written_is_tried_again_also_of_a_run_that_has_ended() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    let workspace = desk.path("a");
    // Where its directory should be is something else.
    std::fs::remove_dir_all(&workspace).ok();
    std::fs::write(&workspace, "").unwrap();
    conductor
        .ask(|reply| Request::Cancel(newest("a"), reply))
        .await
        .unwrap();
    conductor.report(first(1), Progress::NeverRan).await;
    assert!(conductor.engine.run(RunId(1)).is_none(), "it has ended");
    let again = conductor.checkpoint_due().expect("it is to be tried again");
    assert!(again > super::clock::now().wall);

    std::fs::remove_file(&workspace).unwrap();
    std::fs::create_dir(&workspace).unwrap();
    conductor.write_checkpoints_due_at(again);
    conductor.drained().await;
    assert!(workspace.join("a.json").exists());
    assert_eq!(conductor.checkpoint_due(), None);
}

#[tokio::test]
async fn a_checkpoint_that_an_ended_conductor_owed_is_written_where_it_belongs() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    conductor
        .ask(|reply| Request::Cancel(newest("a"), reply))
        .await
        .unwrap();
    conductor.report(first(1), Progress::NeverRan).await;
    drop(conductor);
    let checkpoint = desk.path("a/a.json");
    let whole = std::fs::read(&checkpoint).unwrap();

    // One that was written before the end, or was not there yet.
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::write(&checkpoint, "{}").unwrap();
    std::fs::File::open(&checkpoint).unwrap().set_modified(before).unwrap();
    for _ in 0..2 {
        let mut shows = desk.conductor(false).await;
        shows.drained().await;
        assert_ne!(std::fs::read(&checkpoint).ok().as_deref(), Some(&*whole));
        let mut conductor = desk.conductor(true).await;
        conductor.drained().await;
        assert_eq!(std::fs::read(&checkpoint).unwrap(), whole);
        std::fs::remove_file(&checkpoint).unwrap();
    }

    // What somebody else wrote there since is left alone, and so is a workspace that was taken away.
    std::fs::write(&checkpoint, "{}").unwrap();
    desk.conductor(true).await.drained().await;
    assert_eq!(std::fs::read(&checkpoint).unwrap(), b"{}");
    std::fs::remove_dir_all(desk.path("a")).unwrap();
    let mut conductor = desk.conductor(true).await;
    conductor.drained().await;
    assert!(!desk.path("a").exists());
    assert_eq!(conductor.checkpoint_due(), None);
}
