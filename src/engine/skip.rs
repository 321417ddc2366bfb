//! Whether a sheet is to be run at all: its `skip_when`, asked of the run's own state when the sheet would start.

use super::fact::Verdict;
use super::run::{Phase, Run};
use super::sheet::{Sheet, SheetState};
use crate::job::expression::{Expression, Item, SHEETS, Scope};
use crate::job::value::Value;
use crate::model::{Cause, Code, Cost, RunState, SheetNo};

/// Characters of an expression that are repeated where it is told.
const SHOWN: usize = 200;

/// The verdict of a sheet that is not started because of its `skip_when`; `None`: it is.
pub(super) fn verdict(run: &Run, sheet: SheetNo) -> Option<Verdict> {
    let text = run.rules.skip_when(sheet)?;
    let shown: String = text.trim().chars().take(SHOWN).collect();
    match Expression::parse(text).and_then(|expression| expression.holds(run)) {
        Ok(false) => None,
        Ok(true) => Some(Verdict::Skipped {
            reason: format!("`skip_when` holds: {shown}"),
        }),
        Err(error) => Some(Verdict::Failed {
            cause: Cause::Fatal,
            code: Code::E301,
            message: format!("its `skip_when` cannot be evaluated: {error} ({shown})"),
        }),
    }
}

impl Scope for Run {
    fn variable(&self, name: &str) -> Option<Item> {
        match name {
            "job" => Some(Item::Job),
            name => SHEETS.contains(&name).then_some(Item::Sheets),
        }
    }

    fn names(&self) -> Vec<&str> {
        vec!["sheets", "job"]
    }

    fn sheets(&self) -> u32 {
        self.sheets.len()
    }

    fn of_sheet(&self, no: u32, field: &str) -> Option<Value> {
        let sheet = self.sheets.get(SheetNo(no))?;
        let failure = match &sheet.state {
            SheetState::Done(Verdict::Failed { cause, code, message }) => Some((cause, code, message)),
            SheetState::Pending
            | SheetState::Running(_)
            | SheetState::Over(_)
            | SheetState::Waiting(_)
            | SheetState::Done(_) => None,
        };
        let Sheet { used, ended, .. } = sheet;
        let checked = (ended.rules > 0).then_some((ended.passed, ended.rules));
        Some(match field {
            "sheet_num" => int(no),
            "status" => text(sheet.state.status().python_word()),
            "attempt_count" => int(sheet.attempts),
            "completion_attempts" => int(used.completions),
            "exit_code" => or_none(ended.exit_code, |code| Value::Int(code.into())),
            "validation_passed" => or_none(checked, |(passed, rules)| Value::Bool(passed == rules)),
            "last_pass_percentage" => or_none(checked, |(passed, rules)| {
                Value::Float(100.0 * f64::from(passed) / f64::from(rules))
            }),
            "error_category" => or_none(failure, |(cause, ..)| text(cause.as_str())),
            "error_code" => or_none(failure, |(_, code, _)| text(code.as_str())),
            "error_message" => or_none(failure, |(.., message)| text(message)),
            "estimated_cost" => or_none((sheet.spent > Cost::default()).then_some(sheet.spent), |cost| {
                Value::Float(cost.as_usd())
            }),
            _ => return None,
        })
    }

    fn of_job(&self, field: &str) -> Option<Value> {
        Some(match field {
            "job_id" | "job_name" => text(self.job.as_str()),
            "status" => text(match self.phase {
                Phase::Open | Phase::Cancelling => RunState::Running.as_str(),
                Phase::Paused(_) => RunState::Paused.as_str(),
                Phase::Ended(state) => state.as_str(),
            }),
            "total_sheets" => int(self.sheets.len()),
            "last_completed_sheet" => {
                let completed = |sheet: &Sheet| sheet.state == SheetState::Done(Verdict::Completed);
                let last = self.sheets().filter(|(_, sheet)| completed(sheet)).last();
                int(last.map_or(0, |(no, _)| no.0))
            }
            "rate_limit_waits" => int(self.limits.throttles.met),
            "quota_waits" => int(self.limits.quotas.met),
            "total_estimated_cost" => Value::Float(self.spent.as_usd()),
            _ => return None,
        })
    }
}

fn int(value: u32) -> Value {
    Value::Int(value.into())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn or_none<T>(value: Option<T>, show: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, show)
}
