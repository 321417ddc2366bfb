//! Takes a job in: checks, plans, looks at what is there already, and gives the run its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::conductor::{Brought, Conductor};
use super::pressure::Level;
use super::program;
use super::requests::storage;
use crate::api::request::{ApiError, RunSelector, Submit, Submitted};
use crate::engine::event::Event;
use crate::engine::rules::RunRules;
use crate::job::artifacts::{self, Found};
use crate::job::files::Disk;
use crate::job::plan::{Given, Plan, SubmitContext};
use crate::job::secret::looks_secret;
use crate::job::{self, JobInput};
use crate::ledger::checkpoint::{self, Checkpoint};
use crate::model::{Code, Problem, RunId, RunNo, RunState, Severity, SheetNo, count};
use crate::probe::{self, Point};
use crate::runner::backend;
use crate::runner::launch::Launcher;
use crate::runner::validate::holds_now;
use crate::summary::RunSummary;

/// Under this key of `Submit.environment` a front end names the secrets (names only, separated by commas)
/// that the submitter's shell has; it is no variable and never reaches a session.
pub const PRESENT_SECRETS: &str = "MOZART_PRESENT_SECRETS";

impl Conductor {
    /// Checks only.
    pub(super) async fn validate(&self, submit: Submit) -> Result<(bool, Vec<Problem>), ApiError> {
        let (plan, problems) = self.load(&submit).await?;
        Ok((plan.is_some(), problems))
    }

    /// Checks, plans, stores and queues; returns once the run is durable.
    pub(super) async fn submit(&mut self, submit: Submit) -> Result<Submitted, ApiError> {
        let (plan, mut problems) = self.load(&submit).await?;
        let Some(plan) = plan else {
            return Err(invalid(problems));
        };
        let start_sheet = SheetNo(submit.start_sheet.unwrap_or(1));
        if plan.sheet(start_sheet).is_none() {
            let last = plan.sheets.len();
            return Err(ApiError::InvalidArgument(format!(
                "there is no sheet {start_sheet}: the job has 1 to {last}"
            )));
        }
        if submit.dry_run {
            return Ok(Submitted {
                job: plan.name,
                run: RunNo(0),
                attached: false,
                problems,
            });
        }
        let last = self.ledger.run(plan.name.as_str(), None).await.map_err(storage)?;
        if let Some(last) = &last
            && let Some(attached) = self.meet(last, &plan, &submit).await?
        {
            return Ok(Submitted {
                attached,
                job: plan.name,
                run: last.run,
                problems,
            });
        }
        if last.is_none() && !submit.resume && !submit.fresh {
            nothing_unfinished(&plan)?;
        }
        self.look_around().await?;
        if let Level::Refuse(_) = self.holds.level {
            return Err(ApiError::QueueFull(format!(
                "the machine is short of {}: nothing is taken in before that is better (`pressure.refuse_percent` in the \
                 settings); what was taken in already goes on by itself",
                self.holds.level.short().unwrap_or_default()
            )));
        }
        let (live, most) = (self.live.len(), self.settings.queue_limit);
        if u32::try_from(live).unwrap_or(u32::MAX) >= most {
            return Err(ApiError::QueueFull(format!(
                "{} at work or waiting, and `queue_limit` is {most}: wait until one has ended, or raise it in the settings",
                count(live, "run")
            )));
        }
        let context = self.context(&plan, &submit, &mut problems).await?;
        let plan = Arc::new(plan);
        let TakenOver {
            completed,
            first,
            found_done,
        } = if submit.resume {
            self.no_strangers().await?;
            taken_over(&plan, submit.infer).await?
        } else {
            TakenOver::nothing()
        };
        make_workspace(&plan.workspace)?;
        make_place_of(&plan.checkpoint_path)?;

        let (run, no) = self.ledger.next_numbers(&plan.name).await.map_err(storage)?;
        let run = self.unused(run);
        let rules = RunRules {
            found_done,
            ..RunRules::of(&plan, &context, start_sheet.max(first))
        };
        let event = Event::Submitted {
            run,
            job: plan.name.clone(),
            no,
            rules,
            completed,
        };
        let job = plan.name.clone();
        self.step_with(event, Brought::Source(run, plan, Arc::new(context)))
            .await?;
        probe::pass(Point::Submitted);
        Ok(Submitted {
            job,
            run: no,
            attached: false,
            problems,
        })
    }

    /// That number, or the next one of which no session has left a directory: a ledger that was restored from a
    /// backup has forgotten runs, and their output is no evidence of another's.
    fn unused(&self, run: RunId) -> RunId {
        let directory = |run: &RunId| self.paths.spool(&self.ledger.tag()).join(run.to_string());
        (run.0..)
            .map(RunId)
            .find(|run| directory(run).symlink_metadata().is_err())
            .unwrap_or(run)
    }

    /// Refuses to take a job up from its checkpoint while sessions run that this ledger does not know: one of them may
    /// be at work on the very sheet that would start.
    async fn no_strangers(&self) -> Result<(), ApiError> {
        let own = self.ledger.tag();
        let asked = self.runner.launcher().units("mozart-").await;
        let mut found = asked.map_err(|error| ApiError::Storage(error.to_string()))?;
        // Of every ledger that this state directory ever had; also where the directories are gone.
        if let Some(spools) = self.paths.spool(&own).parent() {
            let supervised = Launcher::supervised(PathBuf::new(), spools.to_owned());
            found.extend(supervised.units("mozart-").await.unwrap_or_default());
        }
        found.retain(|unit| !unit.starts_with(&format!("mozart-{own}-")));
        found.sort();
        found.dedup();
        if found.is_empty() {
            return Ok(());
        }
        Err(ApiError::Busy(format!(
            "sessions run that this ledger does not know: {}; wait until they end, or stop them (`systemctl --user stop \
             UNIT`; a supervised one: end its supervisor), then resume again",
            found.join(", ")
        )))
    }

    /// What the newest run of the same job means for this submission: `Some(attached)` if it is taken instead.
    async fn meet(&mut self, last: &RunSummary, plan: &Plan, submit: &Submit) -> Result<Option<bool>, ApiError> {
        let name = &last.job;
        let label = format!("{name}#{}", last.run);
        let selector = RunSelector {
            job: name.to_string(),
            run: None,
        };
        if submit.resume && last.state != RunState::Completed {
            if matches!(last.state, RunState::Paused) || last.state.is_ended() {
                self.resume(&selector).await?;
            }
            return Ok(Some(true));
        }
        match last.state {
            RunState::Completed if submit.resume => Err(ApiError::WrongState(format!(
                "{label} is completed; there is nothing to resume (`mozartctl run --fresh` runs it anew)"
            ))),
            RunState::Paused => Err(ApiError::Busy(format!(
                "{label} is paused; `mozartctl resume {name}` goes on with it"
            ))),
            RunState::Queued | RunState::Running | RunState::Waiting
                if last.plan_hash == plan.hash && !submit.fresh =>
            {
                Ok(Some(true))
            }
            RunState::Queued | RunState::Running | RunState::Waiting if last.plan_hash == plan.hash => {
                Err(ApiError::Busy(format!(
                    "{label} is live; `mozartctl run` without `--fresh` attaches to it, `mozartctl cancel {name}` ends it"
                )))
            }
            RunState::Queued | RunState::Running | RunState::Waiting => Err(ApiError::Busy(format!(
                "{label} is live with another plan; `mozartctl modify {name} -c FILE` gives it this one, `mozartctl cancel \
                 {name}` ends it"
            ))),
            RunState::Failed | RunState::Cancelled if last.sheets_done > 0 && !submit.fresh => {
                Err(ApiError::WrongState(format!(
                    "{label} is {} with {} of {} done; `mozartctl resume {name}` goes on with the rest, `mozartctl run \
                     --fresh` begins anew",
                    last.state,
                    last.sheets_done,
                    count(last.sheets_total, "sheet")
                )))
            }
            RunState::Completed | RunState::Failed | RunState::Cancelled => Ok(None),
        }
    }

    /// Reads and lowers the job file off the conductor's own task: it may be large.
    pub(super) async fn load(&self, submit: &Submit) -> Result<(Option<Plan>, Vec<Problem>), ApiError> {
        if !Path::new(&submit.base_directory).is_absolute() {
            return Err(ApiError::InvalidArgument(
                "`base_directory` is not an absolute path".to_owned(),
            ));
        }
        let submit = submit.clone();
        let environment = self.submitted_environment(&submit);
        let thinking = self.settings.default_thinking_method.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            job::load(
                &JobInput {
                    text: submit.text.as_bytes(),
                    path: submit.path.as_deref().map(Path::new),
                    base_directory: Path::new(&submit.base_directory),
                    submit_directory: None,
                    workspace: submit.workspace.as_deref().map(Path::new),
                    set: &submit.set,
                    environment: &environment,
                    priority: submit.priority,
                    default_thinking_method: thinking.as_deref(),
                },
                &Disk,
            )
        });
        match loaded.await {
            Ok(loaded) => Ok((loaded.plan, loaded.problems)),
            Err(error) => Err(ApiError::Storage(format!("the job file could not be read: {error}"))),
        }
    }

    /// The submitter's environment, or the conductor's own PATH and locale where none came along.
    fn submitted_environment(&self, submit: &Submit) -> BTreeMap<String, String> {
        let mut environment = match &submit.environment {
            Some(environment) => environment.clone(),
            None => {
                let own = self.environment.all().iter();
                let travels = |name: &str| {
                    matches!(name, "PATH" | "LANG" | "TZ")
                        || name.starts_with("LC_")
                        || backend::CLI_PASSES.contains(&name)
                };
                own.filter(|(name, _)| travels(name))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            }
        };
        if !environment.contains_key("HOME")
            && let Some(home) = self.environment.get("HOME")
        {
            environment.insert("HOME".to_owned(), home.to_owned());
        }
        environment
    }

    /// What is stored with the run; finds the program, and warns of a missing login.
    pub(super) async fn context(
        &self,
        plan: &Plan,
        submit: &Submit,
        problems: &mut Vec<Problem>,
    ) -> Result<SubmitContext, ApiError> {
        let mut environment = self.submitted_environment(submit);
        let told = environment.remove(PRESENT_SECRETS).unwrap_or_default();
        // Where the job itself names a directory, that is the one the session uses.
        environment.retain(|name, _| !looks_secret(name));
        let program = program::find(
            plan.backend.kind.program(),
            environment.get("PATH"),
            Path::new(&plan.backend.working_directory),
        )
        .map_err(|message| missing_program(message, problems))?;
        let secrets = self
            .environment
            .secrets(&plan.backend.pass_env, &self.settings.pass_env);
        problems.extend(program::warnings(plan, &program, &environment, &secrets, &told).await);

        let mut visible = environment.clone();
        visible.extend(plan.backend.env.clone());
        let account = backend::account(&plan.backend.kind, &visible, &secrets.0.keys().cloned().collect());
        environment.remove("HOME");
        Ok(SubmitContext {
            environment,
            program: Some(program.to_string_lossy().into_owned()),
            job_file: submit.path.clone(),
            account,
            given: Given {
                workspace: submit.workspace.clone(),
                set: submit.set.clone(),
                priority: submit.priority,
            },
        })
    }
}

/// Creates the workspace, whose parent exists.
fn make_workspace(workspace: &str) -> Result<(), ApiError> {
    match std::fs::create_dir(workspace) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(ApiError::InvalidArgument(format!(
            "the workspace {workspace} cannot be created: {error}"
        ))),
    }
}

/// Creates the directories above the checkpoint, which `state_path` may put anywhere.
pub(super) fn make_place_of(checkpoint: &str) -> Result<(), ApiError> {
    let Some(directory) = Path::new(checkpoint).parent() else {
        return Ok(());
    };
    std::fs::create_dir_all(directory).map_err(|error| {
        let shown = directory.display();
        ApiError::InvalidArgument(format!(
            "the directory {shown} for the checkpoint (`state_path`) cannot be created: {error}"
        ))
    })
}

/// What is known of an earlier run where the ledger knows none.
#[derive(Debug)]
struct TakenOver {
    /// Sheets that its checkpoint says are done.
    completed: Vec<SheetNo>,
    /// The sheet to begin with: those below were not to be run then, or look done.
    first: SheetNo,
    /// The last sheet that looks done by its files.
    found_done: Option<SheetNo>,
}

impl TakenOver {
    fn nothing() -> Self {
        Self {
            completed: Vec::new(),
            first: SheetNo(1),
            found_done: None,
        }
    }
}

/// Refuses to begin anew over a checkpoint that holds finished sheets, as over a run of the ledger that does.
fn nothing_unfinished(plan: &Plan) -> Result<(), ApiError> {
    let name = &plan.name;
    let read = match checkpoint::read(Path::new(&plan.checkpoint_path)) {
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => {
            return Err(ApiError::WrongState(format!(
                "no run of `{name}` is known, but {error}; look at it first: `mozartctl run --fresh` begins anew and \
                 writes over it"
            )));
        }
        Ok(read) => read,
    };
    let done = read.completed_sheets().len();
    if done == 0 || read.status == RunState::Completed.as_str() || !read.is_of(name.as_str()) {
        return Ok(());
    }
    Err(ApiError::WrongState(format!(
        "no run of `{name}` is known, but the checkpoint {} holds an unfinished one with {done} of {} done; \
         `mozartctl resume FILE.yaml` goes on with the rest, `mozartctl run --fresh` begins anew",
        plan.checkpoint_path,
        count(read.total_sheets, "sheet")
    )))
}

/// What the checkpoint in the workspace says; where there is none, what the files of the sheets say, if `infer` allows
/// to rely on that.
async fn taken_over(plan: &Arc<Plan>, infer: bool) -> Result<TakenOver, ApiError> {
    let unusable = |why: String| {
        ApiError::NoSuchJob(format!(
            "there is no run of `{}` to resume, and no checkpoint that can be used ({why}); `mozartctl run` begins anew",
            plan.name
        ))
    };
    match checkpoint::read(Path::new(&plan.checkpoint_path)) {
        Ok(read) if read.is_of(plan.name.as_str()) => Ok(copied(plan, &read)),
        Ok(read) => Err(unusable(format!(
            "{} is of the job `{}`",
            plan.checkpoint_path, read.job_id
        ))),
        Err(error) if error.is_missing() => {
            let asked = Arc::clone(plan);
            let found = tokio::task::spawn_blocking(move || artifacts::found(&asked, holds_now));
            let found = found.await.unwrap_or_else(|error| Err(error.to_string()));
            inferred(plan, found.map_err(unusable)?, infer)
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// From a checkpoint: the sheets that are done, and the sheet that it began with.
fn copied(plan: &Plan, read: &Checkpoint) -> TakenOver {
    let there = |sheets: Vec<u32>| -> BTreeSet<SheetNo> {
        let sheets = sheets.into_iter().map(SheetNo);
        sheets.filter(|sheet| plan.sheet(*sheet).is_some()).collect()
    };
    let (completed, skipped) = (there(read.completed_sheets()), there(read.skipped_sheets()));
    let mut first = SheetNo(1);
    for sheet in (1..).map(SheetNo) {
        if skipped.contains(&sheet) {
            first = SheetNo(sheet.0 + 1);
        } else if !completed.contains(&sheet) {
            break;
        }
    }
    TakenOver {
        completed: completed.into_iter().collect(),
        first,
        found_done: None,
    }
}

/// From what the files say, if that is anything and `confirmed`.
fn inferred(plan: &Plan, found: Found, confirmed: bool) -> Result<TakenOver, ApiError> {
    let (name, checkpoint, sheets) = (&plan.name, &plan.checkpoint_path, plan.sheets.len());
    let Found { done, lacks } = found;
    let next = done + 1;
    let why = match &lacks {
        _ if !Path::new(&plan.workspace).is_dir() => format!("there is no workspace {}", plan.workspace),
        Some(rule) => format!("of sheet {next} this does not hold: {}", rule.description),
        None => format!("no rule names a file that is sheet {next}'s alone"),
    };
    if done == 0 {
        return Err(ApiError::NoSuchJob(format!(
            "there is no run of `{name}` to resume and no checkpoint {checkpoint}, and by its files no sheet is done \
             ({why}); `mozartctl run` begins anew"
        )));
    }
    if plan.sheet(SheetNo(next)).is_none() {
        return Err(ApiError::WrongState(format!(
            "there is no run of `{name}` to resume and no checkpoint {checkpoint}, and by their files all {sheets} sheets \
             look done; `mozartctl run` runs them anew"
        )));
    }
    if !confirmed {
        let look = if done == 1 {
            format!("sheet 1 of {sheets} looks")
        } else {
            format!("sheets 1-{done} of {sheets} look")
        };
        return Err(ApiError::Unconfirmed(format!(
            "there is no run of `{name}` to resume and no checkpoint {checkpoint}, but by the files that the rules name \
             {look} done ({why}): go on at sheet {next}?"
        )));
    }
    Ok(TakenOver {
        first: SheetNo(next),
        found_done: Some(SheetNo(done)),
        ..TakenOver::nothing()
    })
}

fn missing_program(message: String, problems: &[Problem]) -> ApiError {
    let mut problems = problems.to_vec();
    problems.push(Problem {
        check_id: Code::E505.as_str().to_owned(),
        severity: Severity::Error,
        message,
        line: None,
        column: None,
        context: Some("backend".to_owned()),
        suggestion: Some("install it, or say where it is with `backend.cli_path`".to_owned()),
        auto_fixable: false,
        metadata: BTreeMap::new(),
    });
    invalid(problems)
}

pub(super) fn invalid(problems: Vec<Problem>) -> ApiError {
    let errors: Vec<_> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect();
    let message = match errors.as_slice() {
        [one] => format!("the job file is invalid: {} ({})", one.message, one.check_id),
        [first, rest @ ..] => format!(
            "the job file has {} errors; the first: {}",
            rest.len() + 1,
            first.message
        ),
        [] => "the job file is invalid".to_owned(),
    };
    ApiError::InvalidJob { message, problems }
}
