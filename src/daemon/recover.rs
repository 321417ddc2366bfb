//! Takes sheets for completed whose rules hold, without running anything. The rules are asked beside the conductor's
//! work, as a command among them may take minutes; what they gave is decided on when they have answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinError;

use super::clock;
use super::conductor::{Brought, Conductor};
use super::requests::{has_sheet, send, storage};
use crate::api::handle::Reply;
use crate::api::request::{ApiError, RecoveredSheet, RunSelector};
use crate::engine::event::Event;
use crate::job::artifacts::OwnFiles;
use crate::job::plan::Plan;
use crate::job::rules::rules_for;
use crate::model::{
    Ask, AttemptKind, AttemptNo, AttemptRef, Cause, Code, RuleResult, SheetNo, SheetStatus, ValidationReport, count,
};
use crate::runner::attempt::Runner;
use crate::runner::spec::AttemptSpec;
use crate::summary::{AttemptSummary, RunSummary, SheetSummary};

/// What asking the rules of a run's sheets came to.
pub(super) struct Examined {
    row: RunSummary,
    sheets: Vec<ExaminedSheet>,
    dry_run: bool,
    reply: Reply<Vec<RecoveredSheet>>,
}

struct ExaminedSheet {
    sheet: SheetNo,
    was: SheetStatus,
    attempts: u32,
    /// What its rules gave; or why they cannot tell.
    found: Result<ValidationReport, String>,
}

/// A sheet whose rules are to be asked.
struct Task {
    spec: AttemptSpec,
    was: SheetStatus,
    attempts: u32,
    /// A session has worked on it.
    worked: bool,
}

impl Conductor {
    /// Begins to ask the rules of a run's unfinished sheets, or of one; the answer comes when they have answered.
    pub(super) async fn recover(
        &mut self,
        selector: &RunSelector,
        sheet: Option<SheetNo>,
        dry_run: bool,
        reply: Reply<Vec<RecoveredSheet>>,
    ) {
        let (row, tasks) = match self.to_be_asked(selector, sheet).await {
            Ok(asked) => asked,
            Err(error) => return send(reply, Err(error)),
        };
        let runner = Arc::clone(&self.runner);
        self.recoveries.spawn(async move {
            let mut sheets = Vec::new();
            for task in tasks {
                sheets.push(task.examine(&runner).await);
            }
            Examined {
                row,
                sheets,
                dry_run,
                reply,
            }
        });
        self.publish_status();
    }

    async fn to_be_asked(
        &self,
        selector: &RunSelector,
        only: Option<SheetNo>,
    ) -> Result<(RunSummary, Vec<Task>), ApiError> {
        let row = self.changeable(selector).await?;
        if let Some(only) = only {
            has_sheet(&row, only.0)?;
        }
        if self.gone(&row) {
            return Err(ApiError::WrongState(format!(
                "the conductor of {}#{} is gone, and sessions of it may be at work; `mozartctl resume {}` takes the run up \
                 again",
                row.job, row.run, row.job
            )));
        }
        if !self.recoveries.is_empty() {
            return Err(ApiError::Busy(
                "sheets are being recovered already; wait until that is done".to_owned(),
            ));
        }
        if !row.state.is_ended() {
            let event = Event::RecoverRequested {
                run: row.id,
                passed: Vec::new(),
            };
            if let Some(refusal) = self.engine.decide(clock::now(), &event).refusal {
                return Err(super::conductor::StepError::Refused(refusal).into());
            }
        }
        let (plan, context) = self.ledger.plan(row.id).await.map_err(storage)?;
        let (plan, context) = (Arc::new(plan), Arc::new(context));
        let (first, count) = only.map_or((1, row.sheets_total), |only| (only.0, 1));
        let mut tasks = Vec::new();
        for sheet in self.ledger.sheets(row.id, first, count).await.map_err(storage)? {
            if !is_open(&sheet) && only.is_none() {
                continue;
            }
            let attempts = self.ledger.attempts(row.id, sheet.sheet_num).await.map_err(storage)?;
            tasks.push(Task {
                spec: AttemptSpec {
                    // No session's: they count from 1.
                    attempt: AttemptRef {
                        run: row.id,
                        sheet: SheetNo(sheet.sheet_num),
                        attempt: AttemptNo(0),
                    },
                    kind: AttemptKind::First,
                    ask: Ask::Task,
                    session_id: String::new(),
                    resume: false,
                    plan: Arc::clone(&plan),
                    context: Arc::clone(&context),
                    fresh: false,
                    outputs: Vec::new(),
                    lessons: Vec::new(),
                    budget: None,
                    earlier_cost: None,
                    prices: Arc::clone(&self.settings.prices),
                    extra_env: self.environment.extra(&self.settings.pass_env),
                    secrets: self
                        .environment
                        .secrets(&plan.backend.pass_env, &self.settings.pass_env),
                },
                was: sheet.state,
                attempts: sheet.attempts,
                worked: attempts.iter().any(has_worked),
            });
        }
        Ok((row, tasks))
    }

    /// The rules have answered: decides what follows, and says so.
    pub(super) async fn examined(&mut self, done: Result<Examined, JoinError>) {
        let examined = match done {
            Ok(examined) => examined,
            Err(error) => return tracing::error!(%error, "asking the rules of sheets broke off"),
        };
        let Examined {
            row,
            sheets,
            dry_run,
            reply,
        } = examined;
        let answer = if dry_run {
            Ok(())
        } else {
            self.keep(&row, &sheets).await
        };
        self.publish_status();
        send(
            reply,
            answer.map(|()| sheets.into_iter().map(ExaminedSheet::told).collect()),
        );
    }

    /// Writes the verdicts down, with what they rest on.
    async fn keep(&mut self, row: &RunSummary, sheets: &[ExaminedSheet]) -> Result<(), ApiError> {
        let passed: BTreeMap<SheetNo, (u32, &ValidationReport)> = sheets
            .iter()
            .filter_map(|sheet| Some((sheet.sheet, (sheet.attempts, sheet.passed()?))))
            .collect();
        if passed.is_empty() {
            return Ok(());
        }
        let event = Event::RecoverRequested {
            run: row.id,
            passed: passed.iter().map(|(no, (attempts, _))| (*no, *attempts)).collect(),
        };
        let checked = passed
            .into_iter()
            .map(|(no, (_, report))| (no, report.clone()))
            .collect();
        // A person may have moved it meanwhile.
        let selector = RunSelector {
            job: row.job.to_string(),
            run: Some(row.run.0),
        };
        let now = self.changeable(&selector).await?;
        self.take_up(&now).await?;
        let done = self.step_with(event, Brought::Checked(checked)).await;
        self.put_back(row.id);
        Ok(done?)
    }
}

impl Task {
    async fn examine(self, runner: &Runner) -> ExaminedSheet {
        let sheet = self.spec.attempt.sheet;
        let found = match self.cannot_tell() {
            Some(why) => Err(why),
            None => runner.examine(&self.spec).await,
        };
        ExaminedSheet {
            sheet,
            was: self.was,
            attempts: self.attempts,
            found,
        }
    }

    /// Why its rules need not be asked.
    fn cannot_tell(&self) -> Option<String> {
        match self.was {
            SheetStatus::Completed => return Some("it was completed already".to_owned()),
            SheetStatus::Running => return Some("it is at work".to_owned()),
            SheetStatus::Pending
            | SheetStatus::Waiting
            | SheetStatus::Failed
            | SheetStatus::Skipped
            | SheetStatus::Cancelled => {}
        }
        let plan: &Plan = &self.spec.plan;
        let rules = match rules_for(plan, plan.sheet(self.spec.attempt.sheet)?) {
            Ok(rules) => rules,
            Err(error) => return Some(error),
        };
        if rules.is_empty() {
            return Some("it has no rule that could tell whether it is done".to_owned());
        }
        let files = OwnFiles::of(plan);
        if !self.worked && !rules.iter().any(|rule| files.is_named_by(rule)) {
            return Some(
                "no session has worked on it, and none of its rules names a file that is its alone".to_owned(),
            );
        }
        None
    }
}

impl ExaminedSheet {
    fn passed(&self) -> Option<&ValidationReport> {
        self.found.as_ref().ok().filter(|report| report.all_passed())
    }

    fn told(self) -> RecoveredSheet {
        let completed = self.passed().is_some();
        let (reason, report) = match self.found {
            Ok(report) if completed => (String::new(), report),
            Ok(report) => {
                let (holds, rules) = (report.passed(), count(report.total(), "rule"));
                (format!("{holds} of {rules} passed"), report)
            }
            Err(why) => (why, ValidationReport::default()),
        };
        let failed = report.rules.iter().filter(|rule| !rule.passed);
        let line = |rule: &RuleResult| match &rule.reason {
            Some(reason) => format!("{}: {reason}", rule.description),
            None => rule.description.clone(),
        };
        RecoveredSheet {
            sheet: self.sheet.0,
            was: self.was,
            is: if completed { SheetStatus::Completed } else { self.was },
            reason,
            rules_passed: report.passed(),
            rules_total: report.total(),
            failed: failed.map(line).collect(),
        }
    }
}

/// Whether a recovery may give the sheet another verdict. One that was skipped on purpose stays so.
fn is_open(sheet: &SheetSummary) -> bool {
    match sheet.state {
        SheetStatus::Pending | SheetStatus::Waiting | SheetStatus::Failed | SheetStatus::Cancelled => true,
        SheetStatus::Skipped => sheet.code == Some(Code::E802),
        SheetStatus::Running | SheetStatus::Completed => false,
    }
}

/// Whether a session ran that was not turned away at the door.
fn has_worked(attempt: &AttemptSummary) -> bool {
    attempt.report.as_ref().is_some_and(|report| {
        let turned_away = report.outcome.failure.as_ref().is_some_and(|failure| {
            failure.cause == Cause::RateLimit || matches!(failure.code, Code::E502 | Code::E505 | Code::E506)
        });
        report.started_at.is_some() && !turned_away
    })
}
