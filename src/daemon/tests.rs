//! The conductor's own code with a real ledger and no loop: each test says what happens next.

mod faults;
mod holds;
mod launcher;
mod simulation;

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::clock;
use super::conductor::{Conductor, Parts};
use super::environment::Environment;
use super::paths::Paths;
use super::pressure::Host;
use super::settings::Settings;
use crate::api::handle::Request;
use crate::api::request::{ApiError, CostRequest, RunFilter, RunSelector, Submit};
use crate::api::view::{Change, QuestionView, RunView};
use crate::engine::FactKind;
use crate::engine::event::Event;
use crate::ledger::Ledger;
use crate::ledger::tests::report;
use crate::model::{
    AttemptNo, AttemptRef, Cause, Code, Cost, Failure, Now, Outcome, RunId, RunState, SheetNo, SheetStatus, Span,
    Timestamp,
};
use crate::runner::attempt::{Runner, RunnerSettings};
use crate::runner::launch::Launcher;
use crate::runner::spec::Progress;
use crate::summary::CostKey;

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
    let settings = Settings::load(&paths.settings)?.0;
    conductor_with(settings, paths, ledger, conducts).await
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
    let paths_in_test = paths.runtime.join("host");
    let (ask, requests) = mpsc::channel(1);
    // A front end that is there and asks nothing: without one the loop would end.
    std::mem::forget(ask);
    let parts = Parts {
        paths,
        settings,
        environment: Environment::default(),
        ledger: Arc::clone(ledger),
        runner: Arc::new(runner),
        host: Host {
            pressure: Some(paths_in_test.clone()),
            slice: Some(paths_in_test),
        },
        conducts,
        requests,
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

    async fn report(&mut self, attempt: AttemptRef, progress: Progress) {
        self.hear([(attempt, progress)]).await;
    }

    async fn view_of(&mut self, job: &str) -> Result<RunState, ApiError> {
        let view = self.ask(|reply| Request::GetRun(newest(job), reply)).await?;
        Ok(view.summary.state)
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
    conductor.step(Event::Tick).await.unwrap();
    assert_eq!(conductor.sheet_status(1, 1), SheetStatus::Running);
    assert_eq!(conductor.storage(), "");
}

#[tokio::test]
async fn a_stopped_conductor_waits_no_longer_than_it_may_for_its_sessions() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.submit(desk.submit("a")).await.unwrap();
    conductor.settings.shutdown_timeout_seconds = 1;
    // A session that does not end: nobody reports for it.
    conductor.running.insert(first(7), tokio::sync::watch::channel(None).0);
    conductor.ask(|reply| Request::Stop(true, reply)).await.unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let begun = std::time::Instant::now();
    conductor.serve(stopped).await.unwrap();
    assert!(begun.elapsed() >= std::time::Duration::from_millis(900));
}

#[tokio::test]
async fn old_runs_are_forgotten_with_what_their_sessions_left() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.settings.max_job_history = 1;
    let spool = desk.paths().spool(&desk.ledger.tag());
    for run in 1..=3 {
        conductor.submit(desk.submit(&format!("job-{run}"))).await.unwrap();
        std::fs::create_dir_all(spool.join(format!("{run}/1-1"))).unwrap();
        conductor
            .ask(|reply| Request::Cancel(newest(&format!("job-{run}")), reply))
            .await
            .unwrap();
        conductor.report(first(run), Progress::NeverRan).await;
    }
    assert!(conductor.view_of("job-1").await.is_err() && conductor.view_of("job-2").await.is_err());
    assert_eq!(conductor.view_of("job-3").await.unwrap(), RunState::Cancelled);
    let left = || std::fs::read_dir(&spool).unwrap().count();
    for _ in 0..100 {
        if left() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(left() == 1 && spool.join("3").exists());
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
    shows.step(Event::Tick).await.unwrap();
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

#[tokio::test]
async fn a_full_queue_takes_nothing_more_in_until_a_run_has_ended() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    conductor.settings.queue_limit = 2;
    conductor.submit(desk.submit("a")).await.unwrap();
    conductor.submit(desk.submit("b")).await.unwrap();
    let refused = conductor.submit(desk.submit("c")).await.unwrap_err();
    assert!(matches!(&refused, ApiError::QueueFull(_)), "{refused:?}");
    assert_eq!(conductor.ledger.run("c", None).await.unwrap(), None);
    assert!(conductor.submit(desk.submit("a")).await.unwrap().attached);
    conductor
        .ask(|reply| Request::Cancel(newest("a"), reply))
        .await
        .unwrap();
    conductor.report(first(1), Progress::NeverRan).await;
    conductor.submit(desk.submit("c")).await.unwrap();
}

/// A throttled session.
fn throttled() -> Outcome {
    Outcome {
        failure: Some(Failure {
            cause: Cause::RateLimit,
            code: Code::E101,
            message: "Throttled.".to_owned(),
            hint: None,
            limit: None,
        }),
        ..Outcome::default()
    }
}

/// The first session of the first run is throttled; what is told of it.
async fn throttle(conductor: &mut Conductor) -> Vec<Change> {
    let mut changes = conductor.changes.subscribe();
    let finished = Event::AttemptFinished {
        attempt: first(1),
        outcome: throttled(),
    };
    conductor.step(finished).await.unwrap();
    std::iter::from_fn(|| changes.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_question_is_told_and_open_until_it_is_answered() {
    let desk = Desk::new().await;
    let mut conductor = desk.conductor(true).await;
    let mut submit = desk.submit("a");
    submit.text.push_str("on_limit: ask\n");
    conductor.submit(submit).await.unwrap();
    conductor.report(first(1), started()).await;
    let told = throttle(&mut conductor).await;
    let asked = told.iter().filter_map(|change| match change {
        Change::Question(question) => Some(question.as_ref()),
        _ => None,
    });
    let [question] = asked.collect::<Vec<_>>()[..] else {
        panic!("{told:?}")
    };
    let expected = QuestionView {
        id: "q1-1-1".to_owned(),
        text: "Throttled.".to_owned(),
        choices: vec!["wait".to_owned(), "stop".to_owned()],
        account: None,
        code: None,
        runs: vec!["a#1".to_owned()],
        runs_waiting: 1,
    };
    assert_eq!(question, &expected);
    let counted = |change: &Change| matches!(change, Change::Manager(view) if view.questions == 1);
    assert!(told.iter().any(counted), "{told:?}");

    // It outlives the conductor, and is shown by one that conducts nothing.
    drop(conductor);
    let mut conductor = desk.conductor(false).await;
    assert_eq!(conductor.ask(Request::Questions).await.unwrap(), [expected]);
    let view = conductor
        .ask(|reply| Request::GetRun(newest("a"), reply))
        .await
        .unwrap();
    assert_eq!(
        (view.summary.state, view.summary.question.as_deref()),
        (RunState::Waiting, Some("q1-1-1"))
    );
    let answer = async |conductor: &mut Conductor, id: &str, word: &str| {
        let (id, word) = (id.to_owned(), word.to_owned());
        conductor.ask(|reply| Request::Answer(id, word, reply)).await
    };
    for wrong in ["retry", "perhaps"] {
        let refused = answer(&mut conductor, "q1-1-1", wrong).await.unwrap_err();
        assert!(
            matches!(&refused, ApiError::InvalidArgument(text) if text.contains("wait or stop")),
            "{refused:?}"
        );
    }
    answer(&mut conductor, "q1-1-1", "wait").await.unwrap();
    assert_eq!(conductor.ask(Request::Questions).await.unwrap(), []);
    for word in ["wait", "perhaps"] {
        let again = answer(&mut conductor, "q1-1-1", word).await.unwrap_err();
        assert!(matches!(again, ApiError::NoSuchQuestion(_)), "{again:?}");
    }
    let cleared = |account| move |reply| Request::ClearGates(account, reply);
    conductor.ask(cleared(None)).await.unwrap();
    let unknown = conductor.ask(cleared(Some("nobody".to_owned()))).await.unwrap_err();
    assert!(matches!(unknown, ApiError::InvalidArgument(_)), "{unknown:?}");
}

fn noon() -> Timestamp {
    let noon: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    Timestamp(noon.as_microsecond())
}

fn stand_at(wall: Timestamp) {
    clock::test::stand_at(Some(Now { wall, boot: wall.0 }));
}

/// A job whose sessions are an account's.
fn paid(desk: &Desk, name: &str) -> Submit {
    let mut submit = desk.submit(name);
    submit.text = submit.text.replace(
        "{type: command, command: [/bin/true]",
        "{type: claude_cli, cli_path: /bin/true",
    );
    submit
}

fn done(cost: f64) -> Progress {
    let mut report = report(None, &[true]);
    report.outcome.cost = Some(Cost::from_usd(cost));
    Progress::Finished(Box::new(report))
}

/// The budget of a day outlives conductors and runs, and is over with the day.
#[tokio::test]
async fn what_runs_that_are_over_have_spent_today_counts_after_a_restart() {
    stand_at(noon());
    let desk = Desk::new().await;
    std::fs::write(desk.path("mozartd.yaml"), "daily_budget_usd: 2\n").unwrap();
    let submit = |name: &str| {
        let mut submit = paid(&desk, name);
        submit.text = submit.text.replace("total_items: 4", "total_items: 1");
        submit
    };
    let mut conductor = desk.conductor(true).await;
    conductor.submit(submit("a")).await.unwrap();
    conductor.report(first(1), started()).await;
    conductor.report(first(1), done(1.7)).await;
    assert!(conductor.live.is_empty(), "the run is over");
    drop(conductor);

    let mut conductor = desk.conductor(true).await;
    conductor.submit(submit("b")).await.unwrap();
    let b = newest_view(&mut conductor, "b").await.summary;
    assert_eq!(
        b.warning.as_deref(),
        Some("$1.70 of the account's budget of the day of $2.00 used")
    );
    conductor.report(first(2), started()).await;
    conductor.report(first(2), done(0.3)).await;
    conductor.submit(submit("c")).await.unwrap();
    let [question] = &conductor.questions()[..] else {
        panic!("{:?}", conductor.questions())
    };
    assert_eq!(
        (question.code, question.runs.as_slice()),
        (Some(Code::E703), &["c#1".to_owned()][..])
    );
    let id = question.id.clone();
    let answer = conductor
        .ask(|reply| Request::Answer(id, "wait".to_owned(), reply))
        .await;
    answer.unwrap();
    drop(conductor);

    let mut conductor = desk.conductor(true).await;
    assert_eq!(conductor.questions(), []);
    let c = newest_view(&mut conductor, "c").await.summary;
    assert_eq!(
        (c.state, c.reason.as_str()),
        (
            RunState::Waiting,
            "the budget of the day is used up (`daily_budget_usd`)"
        )
    );
    let midnight = c.until.unwrap();
    assert_eq!(conductor.next_alarm(), Some(midnight));
    let by_job = CostRequest {
        days: Some(1),
        by: vec![CostKey::Job],
        ..CostRequest::default()
    };
    let costs = conductor
        .ask(|reply| Request::Costs(by_job.clone(), reply))
        .await
        .unwrap();
    let costs: Vec<_> = costs
        .iter()
        .map(|cost| (cost.job.as_deref(), cost.cost.as_usd()))
        .collect();
    assert_eq!(costs, [(Some("a"), 1.7), (Some("b"), 0.3)]);

    stand_at(midnight);
    desk.ledger.hide_spending(true).await;
    conductor.wake().await;
    let again = conductor.next_alarm().unwrap();
    assert!(again > midnight, "what was spent cannot be read, and not at once again");
    desk.ledger.hide_spending(false).await;
    stand_at(again);
    conductor.wake().await;
    assert_eq!(conductor.running.len(), 1, "it goes on by itself");
    assert_eq!(newest_view(&mut conductor, "c").await.summary.warning, None);
    let costs = conductor.ask(|reply| Request::Costs(by_job, reply)).await.unwrap();
    assert_eq!(costs, [], "nothing was spent on the new day");
}

#[tokio::test]
async fn what_ended_while_storage_was_blocked_is_booked_on_the_day_that_has_begun() {
    stand_at(noon());
    let desk = Desk::new().await;
    std::fs::write(desk.path("mozartd.yaml"), "daily_budget_usd: 2\n").unwrap();
    let mut conductor = desk.conductor(true).await;
    let mut submit = paid(&desk, "a");
    submit.text += "pause_between_sheets_seconds: 0\n";
    conductor.submit(submit).await.unwrap();
    desk.ledger.refuse_writes(true).await;
    conductor.report(first(1), started()).await;
    conductor.report(first(1), done(1.7)).await;
    desk.ledger.refuse_writes(false).await;
    stand_at(noon().plus(Span::from_secs(23 * 3600)));
    conductor.wake().await;
    assert_eq!(conductor.sheet_status(1, 2), SheetStatus::Running);
    let facts = desk.ledger.facts_of(RunId(1)).await.unwrap().into_iter();
    let budget = facts.rev().find_map(|fact| match fact.kind {
        FactKind::AttemptIntended { budget, .. } => budget,
        _ => None,
    });
    assert_eq!(budget, Some(Cost::from_usd(0.3)), "what is left of that day");
}

async fn newest_view(conductor: &mut Conductor, job: &str) -> RunView {
    let run = newest(job);
    conductor.ask(|reply| Request::GetRun(run, reply)).await.unwrap()
}

#[tokio::test]
async fn a_gate_is_told_of_the_runs_that_it_changes() {
    let desk = Desk::new().await;
    std::fs::write(desk.path("mozartd.yaml"), "max_concurrent_jobs: 1\n").unwrap();
    let mut conductor = desk.conductor(true).await;
    let claude = |name: &str| {
        let mut submit = desk.submit(name);
        submit.text = submit
            .text
            .replace("command, command: [/bin/true]", "claude_cli, cli_path: /bin/true");
        submit
    };
    for submit in [claude("limited"), claude("behind"), desk.submit("apart")] {
        conductor.submit(submit).await.unwrap();
    }
    let pause = |reply| Request::Pause(newest("apart"), false, reply);
    conductor.ask(pause).await.unwrap();
    conductor.report(first(1), started()).await;
    let told: Vec<_> = throttle(&mut conductor)
        .await
        .into_iter()
        .filter_map(|change| match change {
            Change::Run(view) => Some((view.summary.job.to_string(), view.summary.state)),
            _ => None,
        })
        .collect();
    let waits = |job: &str| (job.to_owned(), RunState::Waiting);
    assert_eq!(told, [waits("limited"), waits("behind")]);
}
