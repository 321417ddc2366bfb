//! Gives a run another plan: reads the job file as it is now, says what differs, and refuses what is not the same work.

use std::sync::Arc;

use super::conductor::{Brought, Conductor};
use super::requests::storage;
use super::submit::{invalid, make_place_of};
use crate::api::request::{ApiError, Modified, RunSelector, SheetsChange, Submit};
use crate::engine::Run;
use crate::engine::event::{Event, NewPlan};
use crate::engine::rules::RunRules;
use crate::job::changes;
use crate::job::plan::{Plan, SubmitContext};
use crate::model::{RunId, SheetNo, SheetStatus};

impl Conductor {
    /// Gives a run the job file as it is now; with `submit.resume` it also goes on.
    pub(super) async fn modify(&mut self, selector: &RunSelector, submit: Submit) -> Result<Modified, ApiError> {
        let row = self.changeable(selector).await?;
        if self.gone(&row) {
            return Err(ApiError::WrongState(format!(
                "the conductor of {}#{} is gone; `mozartctl resume {} -c FILE` takes the run up again with the file",
                row.job, row.run, row.job
            )));
        }
        let (old, before) = self.ledger.plan(row.id).await.map_err(storage)?;
        let resume = submit.resume;
        let submit = completed(submit, &before);
        let (plan, mut problems) = self.load(&submit).await?;
        let Some(plan) = plan else {
            return Err(invalid(problems));
        };
        same_job(&old, &plan)?;
        let context = self.context(&plan, &submit, &mut problems).await?;
        make_place_of(&plan.checkpoint_path)?;
        let parts = changed_parts((&old, &before), (&plan, &context));

        self.take_up(&row).await?;
        let run = self.engine.run(row.id).cloned();
        let modified = match &run {
            None => Err(ApiError::NoSuchRun(format!(
                "run {} of `{}` is not live",
                row.run, row.job
            ))),
            Some(run) => {
                let new_plan = (!parts.is_empty()).then(|| new_plan(run, (&old, &before), (&plan, &context)));
                let brought = match &new_plan {
                    Some(_) => Brought::Source(row.id, Arc::new(plan), Arc::new(context)),
                    None => Brought::Nothing,
                };
                let event = Event::ModifyRequested {
                    run: row.id,
                    plan: new_plan.map(Box::new),
                    resume,
                };
                self.step_with(event, brought).await.map_err(ApiError::from)
            }
        };
        let sheets = match &run {
            Some(run) if modified.is_ok() && !parts.is_empty() => self.sheets_changes(row.id, run),
            Some(_) | None => Vec::new(),
        };
        self.put_back(row.id);
        modified?;
        Ok(Modified {
            job: row.job,
            run: row.run,
            parts,
            sheets,
            problems,
        })
    }

    /// What the new plan means for each sheet, for many in a row in one.
    fn sheets_changes(&self, id: RunId, before: &Run) -> Vec<SheetsChange> {
        let after = self.engine.run(id);
        let total = after.map_or(before.rules().sheets, |run| run.rules().sheets);
        let status = |run: &Run, no| run.sheet(no).map(|sheet| sheet.state().status());
        let mut changes: Vec<SheetsChange> = Vec::new();
        for no in (1..=total.max(before.rules().sheets)).map(SheetNo) {
            let was = status(before, no);
            let is = after.and_then(|run| status(run, no));
            let becomes = match (was, is) {
                (None, _) => "added",
                _ if no.0 > total => "dropped",
                (Some(SheetStatus::Running), _) => "next_attempt",
                (Some(SheetStatus::Pending | SheetStatus::Waiting), _) => "new_plan",
                (Some(SheetStatus::Failed | SheetStatus::Cancelled | SheetStatus::Skipped), is)
                    if is != was && after.is_some() =>
                {
                    "reopened"
                }
                (Some(_), _) => "kept",
            };
            let state = was.or(is).unwrap_or(SheetStatus::Pending);
            match changes.last_mut() {
                Some(last) if last.becomes == becomes && last.state == state && last.last + 1 == no.0 => {
                    last.last = no.0;
                }
                Some(_) | None => changes.push(SheetsChange {
                    first: no.0,
                    last: no.0,
                    state,
                    becomes: becomes.to_owned(),
                }),
            }
        }
        changes
    }
}

/// What the submitter said beside the first file holds for this one, unless it is said anew; and of the environment what
/// is not said anew.
fn completed(submit: Submit, before: &SubmitContext) -> Submit {
    let given = &before.given;
    let mut set = given.set.clone();
    set.extend(submit.set);
    let mut environment = before.environment.clone();
    environment.extend(submit.environment.unwrap_or_default());
    Submit {
        workspace: submit.workspace.or_else(|| given.workspace.clone()),
        priority: submit.priority.or(given.priority),
        path: submit.path.or_else(|| before.job_file.clone()),
        environment: Some(environment),
        set,
        ..submit
    }
}

/// Refuses a file of another job, or for another place.
fn same_job(old: &Plan, new: &Plan) -> Result<(), ApiError> {
    if old.name != new.name {
        return Err(ApiError::InvalidArgument(format!(
            "the file is of the job `{}`, not of `{}`; `mozartctl run` submits it as a job of its own",
            new.name, old.name
        )));
    }
    if old.workspace != new.workspace {
        return Err(ApiError::WrongState(format!(
            "the run works in {}, and the file names the workspace {}: what its sheets have made would be missing there; \
             `mozartctl run --fresh` begins a new run with it",
            old.workspace, new.workspace
        )));
    }
    Ok(())
}

fn changed_parts((old, before): (&Plan, &SubmitContext), (new, context): (&Plan, &SubmitContext)) -> Vec<String> {
    let mut parts: Vec<String> = changes::parts(old, new).into_iter().map(str::to_owned).collect();
    // The program is the backend's, and the account follows from both.
    let backend = (&before.program, &before.account) != (&context.program, &context.account);
    if backend && !parts.iter().any(|part| part == "backend") {
        parts.push("backend".to_owned());
    }
    if (&before.environment, &before.given) != (&context.environment, &context.given) {
        parts.push("environment".to_owned());
    }
    parts
}

fn new_plan(run: &Run, (old, before): (&Plan, &SubmitContext), (new, context): (&Plan, &SubmitContext)) -> NewPlan {
    let rules = run.rules();
    NewPlan {
        rules: RunRules {
            found_done: rules.found_done,
            ..RunRules::of(new, context, rules.start_sheet)
        },
        other_work: changes::other_work(old, new),
        same_sessions: changes::same_sessions(old, new) && before.account == context.account,
    }
}
