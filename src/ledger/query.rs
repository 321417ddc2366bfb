//! Reading runs, sheets and attempts for people and for the next attempt.

use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::error::StoreError;
use super::journal::Committed;
use super::rows::{Phase, RunRow, SheetRow};
use super::table::{Columns, run_columns, run_of, sheet_columns, sheet_of};
use super::{Ledger, codec, evidence};
use crate::engine::event::PauseWhy;
use crate::engine::fact::FactKind;
use crate::job::plan::{Plan, SubmitContext};
use crate::model::{
    AttemptRef, AttemptReport, Cause, Certificate, Code, Cost, Exit, Outcome, RuleResult, RunId, RunState,
    SessionReport, SheetNo, SheetStatus, Timestamp, ValidationReport,
};
use crate::summary::{AttemptSummary, Lesson, RunFilter, RunSummary, SheetSummary};

/// Plans that are kept in memory: about as many runs as are looked at in turn.
const SOURCES_KEPT: usize = 16;

/// Bytes of final texts that one sheet's template is told.
const FINAL_TEXTS: usize = 4 * 1024 * 1024;

/// Sheets before this one whose failures are told to it.
const LESSONS_FROM: u32 = 3;

/// What a list of runs reads, up to its conditions.
macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            run_columns!(),
            ", o.workspace, o.plan_hash, json_extract(o.context, '$.job_file'), s.code, s.message FROM runs r \
             LEFT JOIN sources o ON o.run = r.id LEFT JOIN sheets s ON s.run = r.id AND s.sheet = r.reason_sheet ",
            $rest
        )
    };
}

impl Ledger {
    /// Runs, newest first, at most `limit`; with the cursor of the next page (empty: there is none). The first
    /// page's cursor is empty. A live run's state and reason are only what its facts tell.
    ///
    /// # Errors
    /// The ledger cannot be read, or the cursor is none of its own.
    pub async fn runs(
        &self,
        query: &RunFilter,
        limit: u32,
        cursor: &str,
    ) -> Result<(Vec<RunSummary>, String), StoreError> {
        let below = match cursor {
            "" => i64::MAX,
            cursor => cursor.parse().map_err(|_| StoreError::Cursor(cursor.to_owned()))?,
        };
        let states: String = query.states.iter().map(|state| format!(",{state},")).collect();
        let limit = limit.max(1);
        let rows = sqlx::query(select_runs!(
            "WHERE r.id < ?1 AND (?2 IS NULL OR r.job = ?2) AND (?3 = '' OR instr(?3, ',' || r.state || ',')) \
             AND (NOT ?4 OR r.no = (SELECT max(n.no) FROM runs n WHERE n.job = r.job)) \
             ORDER BY r.id DESC LIMIT ?5"
        ))
        .bind(below)
        .bind(&query.job)
        .bind(states)
        .bind(query.newest)
        // One more tells whether there is a next page.
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let mut runs: Vec<RunSummary> = rows
            .iter()
            .map(run_summary)
            .collect::<sqlx::Result<_>>()
            .map_err(self.reading())?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next = runs
            .last()
            .filter(|_| more)
            .map_or_else(String::new, |run| run.id.to_string());
        Ok((runs, next))
    }

    /// Newest runs of their jobs that have ended, at most `limit`, those that ended last first: each with the time of
    /// its end and the path of its checkpoint.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn ended_last(&self, limit: u32) -> Result<Vec<(RunId, Timestamp, String)>, StoreError> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT r.id, r.ended_at, json_extract(p.json, '$.checkpoint_path') FROM runs r \
             JOIN sources o ON o.run = r.id JOIN plans p ON p.id = o.plan \
             WHERE r.ended_at IS NOT NULL AND r.no = (SELECT max(n.no) FROM runs n WHERE n.job = r.job) \
             ORDER BY r.ended_at DESC LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let told = |(run, ended_at, path)| (RunId(run), Timestamp(ended_at), path);
        Ok(rows.into_iter().map(told).collect())
    }

    /// A job's run of that number; its newest one where no number is given.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run(&self, job: &str, no: Option<u32>) -> Result<Option<RunSummary>, StoreError> {
        let row = sqlx::query(select_runs!(
            "WHERE r.job = ?1 AND (?2 IS NULL OR r.no = ?2) ORDER BY r.no DESC LIMIT 1"
        ))
        .bind(job)
        .bind(no)
        .fetch_optional(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        row.as_ref().map(run_summary).transpose().map_err(self.reading())
    }

    /// The run of that number of the ledger's.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run_by_id(&self, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        let row = sqlx::query(select_runs!("WHERE r.id = ?1"))
            .bind(run.0)
            .fetch_optional(&mut self.store().await?.connection)
            .await
            .map_err(self.reading())?;
        row.as_ref().map(run_summary).transpose().map_err(self.reading())
    }

    /// What a run is made of now.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], or the ledger cannot be read.
    pub async fn plan(&self, run: RunId) -> Result<(Plan, SubmitContext), StoreError> {
        let (plan, context) = self.source(run).await?;
        Ok((Arc::unwrap_or_clone(plan), Arc::unwrap_or_clone(context)))
    }

    /// The same as it was under the plan of that number; the one that was submitted is 0.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], or the ledger cannot be read.
    pub async fn plan_of(&self, run: RunId, revision: u32) -> Result<(Plan, SubmitContext), StoreError> {
        let row: Option<(String, String)> = sqlx::query_as(
            "SELECT p.json, o.context FROM former_sources o JOIN plans p ON p.id = o.plan WHERE o.run = ? AND o.revision = ?",
        )
        .bind(run.0)
        .bind(revision)
        .fetch_optional(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        match row {
            Some((plan, context)) => Ok((
                codec::decode(&plan, || format!("plan {revision} of run {run}"))?,
                codec::decode(&context, || format!("what was given with plan {revision} of run {run}"))?,
            )),
            None => self.plan(run).await,
        }
    }

    /// The same, shared with who reads it next.
    pub(super) async fn source(&self, run: RunId) -> Result<(Arc<Plan>, Arc<SubmitContext>), StoreError> {
        let mut store = self.store().await?;
        if let Some((_, plan, context)) = store.sources.iter().find(|(of, ..)| *of == run) {
            return Ok((plan.clone(), context.clone()));
        }
        let row = sqlx::query("SELECT p.json, o.context FROM sources o JOIN plans p ON p.id = o.plan WHERE o.run = ?")
            .bind(run.0)
            .fetch_optional(&mut store.connection)
            .await
            .map_err(self.reading())?
            .ok_or(StoreError::NoSuchRun(run.0))?;
        let plan: &str = row.try_get(0).map_err(self.reading())?;
        let context: &str = row.try_get(1).map_err(self.reading())?;
        let plan: Arc<Plan> = Arc::new(codec::decode(plan, || format!("the plan of run {run}"))?);
        let context: Arc<SubmitContext> =
            Arc::new(codec::decode(context, || format!("what was submitted with run {run}"))?);
        store.sources.truncate(SOURCES_KEPT - 1);
        store.sources.insert(0, (run, plan.clone(), context.clone()));
        Ok((plan, context))
    }

    /// At most `count` sheets of a run from number `first` on, those that were not started yet too.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], or the ledger cannot be read.
    pub async fn sheets(&self, run: RunId, first: u32, count: u32) -> Result<Vec<SheetSummary>, StoreError> {
        let (plan, _) = self.source(run).await?;
        let first = first.max(1);
        let end = first.saturating_add(count);
        let rows = sqlx::query(concat!(
            "SELECT ",
            sheet_columns!(),
            ", f.evidence FROM sheets s LEFT JOIN facts f ON f.seq = s.validated_seq \
             WHERE s.run = ? AND s.sheet >= ? AND s.sheet < ? ORDER BY s.sheet"
        ))
        .bind(run.0)
        .bind(first)
        .bind(end)
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let mut stored = rows.iter().peekable();
        let mut sheets = Vec::new();
        for sheet in &plan.sheets {
            if sheet.number < first || sheet.number >= end {
                continue;
            }
            let description = sheet.description.clone();
            let row = stored.next_if(|row| row.try_get::<u32, _>(1).is_ok_and(|number| number <= sheet.number));
            sheets.push(match row {
                Some(row) => {
                    let mut columns = Columns::of(row);
                    let sheet = sheet_of(&mut columns).map_err(self.reading())?;
                    let evidence: Option<&str> = columns.take().map_err(self.reading())?;
                    sheet_summary(sheet, description, rules_of(evidence, run)?)
                }
                None => sheet_summary(SheetRow::pending(run, SheetNo(sheet.number)), description, Vec::new()),
            });
        }
        Ok(sheets)
    }

    /// A sheet after a commit; `None` where there is none of that number. What the commit has in hand is not read again.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], or the ledger cannot be read.
    pub async fn sheet_after(
        &self,
        commit: &Committed,
        run: RunId,
        sheet: SheetNo,
    ) -> Result<Option<SheetSummary>, StoreError> {
        match commit.rows.sheets.get(&(run, sheet)) {
            // What its rules gave stands elsewhere.
            Some(row) if row.validated_seq.is_none() => {
                let (plan, _) = self.source(run).await?;
                let planned = plan.sheet(sheet);
                Ok(planned.map(|planned| sheet_summary(row.clone(), planned.description.clone(), Vec::new())))
            }
            _ => Ok(self.sheets(run, sheet.0, 1).await?.into_iter().next()),
        }
    }

    /// A run after a commit, likewise.
    ///
    /// # Errors
    /// As [`Self::sheet_after`].
    pub async fn run_after(&self, commit: &Committed, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        match commit.rows.runs.get(&run) {
            // Another sheet says why it is in its state.
            Some(row) if row.reason_sheet.is_none() => {
                let (plan, context) = self.source(run).await?;
                let source = Source {
                    workspace: plan.workspace.clone(),
                    plan_hash: plan.hash.clone(),
                    job_file: context.job_file.clone(),
                };
                Ok(Some(summary_of(row.clone(), source, run_reason(row, None, None))))
            }
            _ => self.run_by_id(run).await,
        }
    }

    /// All attempts at a sheet, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn attempts(&self, run: RunId, sheet: u32) -> Result<Vec<AttemptSummary>, StoreError> {
        let rows = sqlx::query("SELECT seq, json, evidence FROM facts WHERE run = ? AND sheet = ? ORDER BY seq")
            .bind(run.0)
            .bind(sheet)
            .fetch_all(&mut self.store().await?.connection)
            .await
            .map_err(self.reading())?;
        let mut attempts: Vec<AttemptSummary> = Vec::new();
        for row in &rows {
            let seq: i64 = row.try_get(0).map_err(self.reading())?;
            let fact = codec::decode_fact(seq, row.try_get(1).map_err(self.reading())?)?;
            match fact.kind {
                FactKind::AttemptIntended {
                    attempt, kind, session, ..
                } => {
                    let intended = AttemptSummary {
                        sheet_num: attempt.sheet.0,
                        attempt: attempt.attempt.0,
                        kind,
                        session_id: session.id().to_owned(),
                        unit: format!("mozart-{}-{attempt}", self.tag()),
                        intended_at: fact.at,
                        started_at: None,
                        invocation: None,
                        report: None,
                    };
                    match find(&mut attempts, attempt) {
                        // Intended once more, as nothing of it ever ran.
                        Some(known) => *known = intended,
                        None => attempts.push(intended),
                    }
                }
                FactKind::AttemptStarted {
                    attempt,
                    started_at,
                    invocation,
                } => {
                    if let Some(known) = find(&mut attempts, attempt) {
                        known.started_at = Some(started_at);
                        known.invocation = invocation;
                    }
                }
                FactKind::AttemptEnded { attempt, outcome } => {
                    let evidence: Option<&str> = row.try_get(2).map_err(self.reading())?;
                    let report = match evidence {
                        Some(json) => evidence::decode(json, &outcome, || format!("the report of attempt {attempt}"))?,
                        None => unreported(fact.at, outcome),
                    };
                    if let Some(known) = find(&mut attempts, attempt) {
                        known.report = Some(report);
                    }
                }
                _ => {}
            }
        }
        Ok(attempts)
    }

    /// What failed before an attempt at that sheet: its own earlier attempts, then those of the three sheets
    /// before it, each oldest first. Limits, interruptions and other faults that taught nothing are left out; a failure
    /// that no rule found (an exit status, used-up turns) is told by its message.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn lessons(&self, run: RunId, sheet: SheetNo) -> Result<Vec<Lesson>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, json, evidence FROM facts \
             WHERE run = ?1 AND sheet BETWEEN max(?2 - ?3, 1) AND ?2 AND evidence IS NOT NULL \
             AND json_extract(json, '$.outcome.failure.cause') = ?4 ORDER BY sheet <> ?2, seq",
        )
        .bind(run.0)
        .bind(sheet.0)
        .bind(LESSONS_FROM)
        .bind(Cause::Validation.as_str())
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let mut lessons = Vec::new();
        for row in &rows {
            let seq: i64 = row.try_get(0).map_err(self.reading())?;
            let fact = codec::decode_fact(seq, row.try_get(1).map_err(self.reading())?)?;
            let FactKind::AttemptEnded { attempt, outcome } = fact.kind else {
                continue;
            };
            let Some(failure) = outcome
                .failure
                .as_ref()
                .filter(|failure| failure.cause == Cause::Validation)
            else {
                continue;
            };
            let message = failure.message.clone();
            let evidence: &str = row.try_get(2).map_err(self.reading())?;
            let report = evidence::decode(evidence, &outcome, || format!("the report of attempt {attempt}"))?;
            lessons.push(Lesson {
                sheet: attempt.sheet.0,
                attempt: attempt.attempt.0,
                // Rules speak for themselves.
                message: report.validation.all_passed().then_some(message),
                rules: report.validation.rules,
            });
        }
        Ok(lessons)
    }

    /// The end of the final text of each of those sheets' last attempts, at most so many characters; by sheet. Of `sheets`
    /// the first are told where all would be too much.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn final_texts(
        &self,
        run: RunId,
        sheets: &[SheetNo],
        chars: u32,
    ) -> Result<Vec<(u32, String)>, StoreError> {
        let chars = usize::try_from(chars).unwrap_or(usize::MAX);
        let (mut texts, mut room) = (Vec::new(), FINAL_TEXTS);
        let mut store = self.store().await?;
        for sheet in sheets {
            let row = sqlx::query(
                "SELECT seq, json, evidence FROM facts WHERE run = ? AND sheet = ? AND evidence IS NOT NULL \
                 ORDER BY seq DESC LIMIT 1",
            )
            .bind(run.0)
            .bind(sheet.0)
            .fetch_optional(&mut store.connection)
            .await
            .map_err(self.reading())?;
            let Some(row) = row else { continue };
            let seq: i64 = row.try_get(0).map_err(self.reading())?;
            let fact = codec::decode_fact(seq, row.try_get(1).map_err(self.reading())?)?;
            let FactKind::AttemptEnded { attempt, outcome } = fact.kind else {
                continue;
            };
            let evidence: &str = row.try_get(2).map_err(self.reading())?;
            let report = evidence::decode(evidence, &outcome, || format!("the report of attempt {attempt}"))?;
            let text = evidence::last_chars(&report.session.result_text, chars);
            if text.len() > room {
                break;
            }
            room -= text.len();
            texts.push((sheet.0, text.to_owned()));
        }
        texts.sort_unstable_by_key(|(sheet, _)| *sheet);
        Ok(texts)
    }

    /// What that session said it had cost in all, last.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn session_cost(&self, session_id: &str) -> Result<Option<Cost>, StoreError> {
        let cost: Option<i64> = sqlx::query_scalar("SELECT total_cost FROM sessions WHERE id = ?")
            .bind(session_id)
            .fetch_optional(&mut self.store().await?.connection)
            .await
            .map_err(self.reading())?;
        Ok(cost.map(Cost))
    }
}

fn find(attempts: &mut [AttemptSummary], attempt: AttemptRef) -> Option<&mut AttemptSummary> {
    attempts
        .iter_mut()
        .rev()
        .find(|known| known.attempt == attempt.attempt.0)
}

/// The report of an attempt that left none: it never ran, or its traces are gone.
fn unreported(ended_at: Timestamp, outcome: Outcome) -> AttemptReport {
    AttemptReport {
        started_at: None,
        ended_at,
        certificate: Certificate {
            exit: Exit::Unknown,
            result: "lost".to_owned(),
            wall: None,
            cpu: None,
            peak_memory: None,
            stopped_by_us: false,
        },
        session: SessionReport::default(),
        validation: ValidationReport::default(),
        outcome,
    }
}

/// The rule results in a stored report; none where there is none.
pub(super) fn rules_of(evidence: Option<&str>, run: RunId) -> Result<Vec<RuleResult>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Rules {
        validation: crate::model::ValidationReport,
    }
    let Some(evidence) = evidence else {
        return Ok(Vec::new());
    };
    let rules: Rules = codec::decode(evidence, || format!("a report of run {run}"))?;
    Ok(rules.validation.rules)
}

fn run_summary(row: &SqliteRow) -> sqlx::Result<RunSummary> {
    let mut columns = Columns::of(row);
    let run = run_of(&mut columns)?;
    let source = Source {
        workspace: columns.take::<Option<String>>()?.unwrap_or_default(),
        plan_hash: columns.take::<Option<String>>()?.unwrap_or_default(),
        job_file: columns.take()?,
    };
    let code: Option<&str> = columns.take()?;
    let message: Option<&str> = columns.take()?;
    let reason = run_reason(&run, code.and_then(|code| code.parse().ok()), message);
    Ok(summary_of(run, source, reason))
}

/// What is shown of what a run is made of.
struct Source {
    workspace: String,
    plan_hash: String,
    job_file: Option<String>,
}

fn summary_of(run: RunRow, source: Source, reason: String) -> RunSummary {
    let state = run.state();
    RunSummary {
        question: None,
        warning: None,
        reason,
        until: run.until.filter(|_| state == RunState::Waiting),
        id: run.id,
        job: run.job,
        run: run.no,
        state,
        sheets_total: run.sheets_total,
        sheets_done: run.completed + run.skipped,
        sheets_failed: run.failed,
        sheets_running: run.running,
        submitted_at: run.submitted_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        cost: run.cost,
        tokens_in: run.tokens_in,
        tokens_out: run.tokens_out,
        workspace: source.workspace,
        plan_hash: source.plan_hash,
        job_file: source.job_file,
        revision: run.revision,
    }
}

/// Why the run is in its state; `code` and `message` are of the sheet that explains it.
fn run_reason(run: &RunRow, code: Option<Code>, message: Option<&str>) -> String {
    let state = run.state();
    match (run.phase, run.reason_sheet, code) {
        (Phase::Paused(PauseWhy::Person), ..) => "asked by a person".to_owned(),
        (Phase::Paused(PauseWhy::Interrupted), ..) => "interrupted".to_owned(),
        (Phase::Cancelling, ..) => "being cancelled".to_owned(),
        (_, Some(sheet), Some(code)) if state == RunState::Failed => {
            let message = message.unwrap_or_else(|| code.meaning());
            format!("sheet {sheet}: {message} ({code})")
        }
        (_, Some(sheet), Some(code)) if state == RunState::Waiting => {
            format!("sheet {sheet} waits: {} ({code})", code.meaning())
        }
        _ => String::new(),
    }
}

fn sheet_summary(row: SheetRow, description: Option<String>, validations: Vec<RuleResult>) -> SheetSummary {
    let reason = match (row.state, row.code) {
        (SheetStatus::Waiting, Some(code)) => format!("{} ({code})", code.meaning()),
        (SheetStatus::Skipped, _) => row.reason.unwrap_or_default(),
        _ => String::new(),
    };
    SheetSummary {
        sheet_num: row.sheet.0,
        description,
        state: row.state,
        reason,
        until: row.until.filter(|_| row.state == SheetStatus::Waiting),
        attempts: row.attempts,
        completion_attempts: row.completion_attempts,
        cause: row.cause,
        code: row.code,
        message: row.message,
        flags: row.flags,
        validations,
        started_at: row.started_at,
        ended_at: row.ended_at,
        cost: row.cost,
        tokens_in: row.tokens_in,
        tokens_out: row.tokens_out,
    }
}
