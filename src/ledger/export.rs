//! From the ledger to a [`Checkpoint`].

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;

use super::checkpoint::{Checkpoint, SheetEntry};
use super::error::StoreError;
use super::evidence::{SHORT_TAIL, last_bytes, last_chars};
use super::rows::{RunRow, SheetRow};
use super::table::{self, Columns, sheet_columns, sheet_of};
use super::{Ledger, codec, evidence, query};
use crate::engine::fact::FactKind;
use crate::job::plan::Plan;
use crate::model::{
    AttemptKind, AttemptReport, Certificate, Cost, Exit, RuleResult, RunId, RunState, SheetStatus, Timestamp,
};

impl Ledger {
    /// The run's checkpoint as the ledger has it now. Secrets are in none of what it is made from.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], or the ledger cannot be read.
    pub async fn checkpoint(&self, run: RunId) -> Result<Checkpoint, StoreError> {
        let (plan, _) = self.source(run).await?;
        let mut store = self.store().await?;
        let connection = &mut store.connection;
        let row = table::run(connection, run)
            .await
            .map_err(self.reading())?
            .ok_or(StoreError::NoSuchRun(run.0))?;
        // Each as it is read: of a large run all rows together take many times what is made of them.
        let mut rows = sqlx::query(concat!(
            "SELECT ",
            sheet_columns!(),
            ", e.seq, e.json, e.evidence, v.evidence FROM sheets s LEFT JOIN facts e ON e.seq = s.report_seq \
             LEFT JOIN facts v ON v.seq = s.validated_seq AND v.seq IS NOT s.report_seq WHERE s.run = ? AND s.sheet <= ?"
        ))
        .bind(run.0)
        .bind(row.sheets_total)
        .fetch(connection);
        let mut sheets = BTreeMap::new();
        let mut current = None;
        let mut error = None;
        while let Some(stored) = rows.try_next().await.map_err(self.reading())? {
            let (sheet, report, rules) = self.read_sheet(run, &stored)?;
            if sheet.state == SheetStatus::Running {
                current = Some(sheet.sheet.0);
            }
            if row.reason_sheet == Some(sheet.sheet.0) && sheet.state == SheetStatus::Failed {
                error = sheet
                    .message
                    .as_ref()
                    .map(|message| format!("sheet {}: {message}", sheet.sheet));
            }
            sheets.insert(sheet.sheet.0, entry(sheet, report.as_ref(), &rules, &plan)?);
        }
        Ok(head(&row, &plan, current, error, sheets))
    }

    fn read_sheet(
        &self,
        run: RunId,
        stored: &SqliteRow,
    ) -> Result<(SheetRow, Option<AttemptReport>, Vec<RuleResult>), StoreError> {
        let mut columns = Columns::of(stored);
        let sheet = sheet_of(&mut columns).map_err(self.reading())?;
        let seq: Option<i64> = columns.take().map_err(self.reading())?;
        let json: Option<&str> = columns.take().map_err(self.reading())?;
        let report: Option<&str> = columns.take().map_err(self.reading())?;
        let earlier: Option<&str> = columns.take().map_err(self.reading())?;
        let report = match (seq, json, report) {
            (Some(seq), Some(json), Some(report)) => match codec::decode_fact(seq, json)?.kind {
                FactKind::AttemptEnded { attempt, outcome } => Some(evidence::decode(report, &outcome, || {
                    format!("the report of attempt {attempt}")
                })?),
                _ => None,
            },
            _ => None,
        };
        let rules = match (earlier, &report) {
            (None, Some(report)) => report.validation.rules.clone(),
            (earlier, _) => query::rules_of(earlier, run)?,
        };
        Ok((sheet, report, rules))
    }
}

fn head(
    run: &RunRow,
    plan: &Plan,
    current: Option<u32>,
    error: Option<String>,
    sheets: BTreeMap<u32, SheetEntry>,
) -> Checkpoint {
    let state = run.state();
    Checkpoint {
        job_id: run.job.to_string(),
        job_name: run.job.to_string(),
        status: run_word(state).to_owned(),
        created_at: Some(run.submitted_at.to_rfc3339()),
        updated_at: Some(run.updated_at.to_rfc3339()),
        completed_at: run.ended_at.map(Timestamp::to_rfc3339),
        total_sheets: run.sheets_total,
        last_completed_sheet: run.last_completed,
        current_sheet: current,
        error_message: error.filter(|_| state == RunState::Failed),
        rate_limit_waits: run.rate_limit_waits,
        quota_waits: run.quota_waits,
        total_retry_count: run.retries,
        total_input_tokens: run.tokens_in,
        total_output_tokens: run.tokens_out,
        total_estimated_cost: run.cost.unwrap_or_default().as_usd(),
        config_hash: Some(plan.hash.clone()),
        config_snapshot: Value::String(plan.source.clone()),
        sheets,
    }
}

/// The Python version's word for a run's state.
fn run_word(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "pending",
        RunState::Waiting => "running",
        other => other.as_str(),
    }
}

/// The Python version's word for a sheet's state.
fn sheet_word(state: SheetStatus) -> &'static str {
    match state {
        SheetStatus::Running | SheetStatus::Waiting => "in_progress",
        SheetStatus::Cancelled => "pending",
        other => other.as_str(),
    }
}

fn entry(
    sheet: SheetRow,
    report: Option<&AttemptReport>,
    rules: &[RuleResult],
    plan: &Plan,
) -> Result<SheetEntry, StoreError> {
    let failed = sheet.state == SheetStatus::Failed;
    let described = |passed: bool| -> Vec<String> {
        rules
            .iter()
            .filter(|rule| rule.passed == passed)
            .map(|rule| rule.description.clone())
            .collect()
    };
    let passed = rules.iter().filter(|rule| rule.passed).count();
    // Unknown is not nothing: tokens stand there only where some attempt told them.
    let told = |count: u64| (count > 0).then_some(count);
    let tail = |text: &str| cut(text, failed, plan).to_owned();
    Ok(SheetEntry {
        sheet_num: sheet.sheet.0,
        status: sheet_word(sheet.state).to_owned(),
        started_at: sheet.started_at.map(Timestamp::to_rfc3339),
        completed_at: sheet.ended_at.map(Timestamp::to_rfc3339),
        attempt_count: sheet.attempts,
        exit_code: report.and_then(|report| match report.certificate.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) | Exit::Unknown => None,
        }),
        exit_signal: report.and_then(|report| match report.certificate.exit {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) | Exit::Unknown => None,
        }),
        exit_reason: report.map(|report| exit_reason(&report.certificate).to_owned()),
        error_message: sheet.message.or(sheet.reason),
        error_category: sheet.cause.map(|cause| cause.as_str().to_owned()),
        validation_passed: (!rules.is_empty()).then_some(passed == rules.len()),
        validation_details: rules.iter().map(detail).collect::<Result<_, _>>()?,
        execution_duration_seconds: report.and_then(duration),
        completion_attempts: sheet.completion_attempts,
        passed_validations: described(true),
        failed_validations: described(false),
        last_pass_percentage: (!rules.is_empty()).then(|| 100.0 * passed as f64 / rules.len() as f64),
        execution_mode: sheet.last_kind.map(|kind| mode(kind).to_owned()),
        stdout_tail: report.map(|report| tail(&report.session.stdout_tail)),
        stderr_tail: report.map(|report| tail(&report.session.stderr_tail)),
        input_tokens: told(sheet.tokens_in),
        output_tokens: told(sheet.tokens_out),
        estimated_cost: sheet.cost.map(Cost::as_usd),
    })
}

/// A rule's result, its time as text like all times here.
fn detail(rule: &RuleResult) -> Result<Value, StoreError> {
    let mut json = codec::compact(rule)?;
    if let Some(at) = json.get_mut("checked_at") {
        *at = Value::String(rule.checked_at.to_rfc3339());
    }
    Ok(json)
}

fn cut<'a>(text: &'a str, failed: bool, plan: &Plan) -> &'a str {
    let capture = usize::try_from(plan.backend.max_output_capture_bytes).unwrap_or(usize::MAX);
    if plan.checkpoint_every_sheet {
        text
    } else if failed {
        last_bytes(text, capture)
    } else {
        last_chars(text, SHORT_TAIL)
    }
}

fn duration(report: &AttemptReport) -> Option<f64> {
    let wall = report
        .certificate
        .wall
        .or_else(|| Some(report.ended_at.since(report.started_at?)))?;
    // A microsecond is more than anyone wants to read.
    Some((wall.as_secs_f64() * 1000.0).round() / 1000.0)
}

fn exit_reason(certificate: &Certificate) -> &'static str {
    match (certificate.result.as_str(), certificate.exit) {
        ("timeout", _) => "timeout",
        (_, Exit::Signal(_)) => "killed",
        (_, Exit::Code(0)) => "completed",
        _ => "error",
    }
}

fn mode(kind: AttemptKind) -> &'static str {
    match kind {
        AttemptKind::First => "normal",
        AttemptKind::Completion => "completion",
        AttemptKind::Retry | AttemptKind::Probe | AttemptKind::Continuation => "retry",
    }
}
