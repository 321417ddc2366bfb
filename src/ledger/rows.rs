//! What the journal says of each run and sheet, as rows: the one pure function [`project`] turns facts into them.
//!
//! The rows are for readers. Nothing is decided from them, and they can be told from the facts again.

use std::collections::BTreeMap;

use crate::engine::event::PauseWhy;
use crate::engine::fact::{Fact, FactKind, Verdict};
use crate::model::{
    AttemptKind, Cause, Code, Cost, Generation, JobName, Outcome, RunId, RunNo, RunState, SheetNo, SheetStatus,
    Timestamp,
};

/// What a person has asked of a run, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It goes on by itself.
    Live,
    /// Held.
    Paused(PauseWhy),
    /// Ends when its last session has.
    Cancelling,
    /// Over.
    Ended(RunState),
}

/// A run as the facts tell it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RunRow {
    pub(super) id: RunId,
    pub(super) job: JobName,
    pub(super) no: RunNo,
    pub(super) phase: Phase,
    pub(super) sheets_total: u32,
    pub(super) completed: u32,
    pub(super) skipped: u32,
    pub(super) failed: u32,
    pub(super) running: u32,
    pub(super) waiting: u32,
    /// Highest sheet that was completed.
    pub(super) last_completed: u32,
    /// The sheet that the run's state is explained by: which failed or waits.
    pub(super) reason_sheet: Option<u32>,
    /// End of the last wait.
    pub(super) until: Option<Timestamp>,
    pub(super) submitted_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) cost: Option<Cost>,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
    /// Throttlings waited for.
    pub(super) rate_limit_waits: u32,
    /// Usage limits waited for.
    pub(super) quota_waits: u32,
    /// Attempts that were not a generation's first.
    pub(super) retries: u32,
    /// Changes so far.
    pub(super) revision: u64,
}

impl RunRow {
    /// The run's state as far as its facts tell; what else holds a live run, only the engine knows.
    pub(super) fn state(&self) -> RunState {
        match self.phase {
            Phase::Ended(state) => state,
            Phase::Paused(_) => RunState::Paused,
            Phase::Live | Phase::Cancelling if self.running > 0 => RunState::Running,
            Phase::Live if self.waiting > 0 => RunState::Waiting,
            Phase::Live | Phase::Cancelling if self.started_at.is_some() => RunState::Running,
            Phase::Live | Phase::Cancelling => RunState::Queued,
        }
    }

    fn count(&mut self, state: SheetStatus) -> Option<&mut u32> {
        match state {
            SheetStatus::Completed => Some(&mut self.completed),
            SheetStatus::Skipped => Some(&mut self.skipped),
            SheetStatus::Failed => Some(&mut self.failed),
            SheetStatus::Running => Some(&mut self.running),
            SheetStatus::Waiting => Some(&mut self.waiting),
            SheetStatus::Pending | SheetStatus::Cancelled => None,
        }
    }

    fn moved(&mut self, from: SheetStatus, to: SheetStatus) {
        if let Some(count) = self.count(from) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.count(to) {
            *count = count.saturating_add(1);
        }
    }

    fn add_use(&mut self, outcome: &Outcome) {
        add_cost(&mut self.cost, outcome.cost);
        self.tokens_in = self.tokens_in.saturating_add(outcome.tokens_in.unwrap_or(0));
        self.tokens_out = self.tokens_out.saturating_add(outcome.tokens_out.unwrap_or(0));
    }
}

/// A sheet as the facts tell it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SheetRow {
    pub(super) run: RunId,
    pub(super) sheet: SheetNo,
    pub(super) state: SheetStatus,
    pub(super) generation: Generation,
    pub(super) attempts: u32,
    pub(super) completion_attempts: u32,
    /// Highest attempt that was intended.
    pub(super) last_attempt: u32,
    /// Highest attempt that is over.
    pub(super) ended_attempt: u32,
    pub(super) last_kind: Option<AttemptKind>,
    /// The fact that ended the last attempt.
    pub(super) report_seq: Option<i64>,
    /// The fact that ended the last attempt with rules.
    pub(super) validated_seq: Option<i64>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) cause: Option<Cause>,
    pub(super) code: Option<Code>,
    pub(super) message: Option<String>,
    /// Why it was skipped.
    pub(super) reason: Option<String>,
    pub(super) flags: Vec<String>,
    pub(super) cost: Option<Cost>,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
}

impl SheetRow {
    /// A sheet of which nothing is known yet.
    pub(super) fn pending(run: RunId, sheet: SheetNo) -> Self {
        Self {
            run,
            sheet,
            state: SheetStatus::Pending,
            generation: Generation(1),
            attempts: 0,
            completion_attempts: 0,
            last_attempt: 0,
            ended_attempt: 0,
            last_kind: None,
            report_seq: None,
            validated_seq: None,
            started_at: None,
            ended_at: None,
            until: None,
            cause: None,
            code: None,
            message: None,
            reason: None,
            flags: Vec::new(),
            cost: None,
            tokens_in: 0,
            tokens_out: 0,
        }
    }

    fn clear_failure(&mut self) {
        self.cause = None;
        self.code = None;
        self.message = None;
        self.reason = None;
    }
}

/// The rows that a few facts are about; all rows there are, where a whole journal is told again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) runs: BTreeMap<RunId, RunRow>,
    pub(super) sheets: BTreeMap<(RunId, SheetNo), SheetRow>,
}

/// Follows one fact, which has place `seq` in the journal. Rows of sheets that are missing are made.
///
/// # Errors
/// A sentence fragment, where the fact is about a run that has no row.
pub(super) fn project(rows: &mut Rows, seq: i64, fact: &Fact) -> Result<(), String> {
    let Some(id) = fact.kind.run() else { return Ok(()) };
    if let FactKind::RunSubmitted { job, no, rules, .. } = &fact.kind {
        rows.runs.insert(id, submitted(id, job, *no, rules.sheets, fact.at));
    }
    if let FactKind::RunModified { rules, .. } = &fact.kind {
        drop_sheets(rows, id, rules.sheets);
    }
    let run = rows
        .runs
        .get_mut(&id)
        .ok_or_else(|| format!("run {id} was never submitted"))?;
    // Of an attempt alone, between its intent and its end: no row changes, so that every start costs less to commit.
    if let FactKind::AttemptStarted { .. } | FactKind::StopAsked { .. } = &fact.kind {
        return Ok(());
    }
    run.revision += 1;
    run.updated_at = fact.at;
    match fact.kind.sheet() {
        Some(number) => {
            let sheet = rows
                .sheets
                .entry((id, number))
                .or_insert_with(|| SheetRow::pending(id, number));
            let before = sheet.state;
            follow_sheet(run, sheet, seq, fact);
            run.moved(before, sheet.state);
        }
        None => follow_run(run, fact),
    }
    Ok(())
}

/// The run has so many sheets from now on. Of one that drops out only what it has used is kept.
fn drop_sheets(rows: &mut Rows, id: RunId, sheets: u32) {
    let Some(run) = rows.runs.get_mut(&id) else { return };
    let dropped = rows
        .sheets
        .values_mut()
        .filter(|row| row.run == id && row.sheet.0 > sheets);
    for row in dropped.filter(|row| row.state != SheetStatus::Pending) {
        run.moved(row.state, SheetStatus::Pending);
        *row = SheetRow {
            generation: row.generation.next(),
            attempts: row.attempts,
            completion_attempts: row.completion_attempts,
            last_attempt: row.last_attempt,
            ended_attempt: row.ended_attempt,
            cost: row.cost,
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            ..SheetRow::pending(id, row.sheet)
        };
    }
    run.sheets_total = sheets;
    run.reason_sheet = run.reason_sheet.filter(|no| *no <= sheets);
}

fn submitted(id: RunId, job: &JobName, no: RunNo, sheets: u32, at: Timestamp) -> RunRow {
    RunRow {
        id,
        job: job.clone(),
        no,
        phase: Phase::Live,
        sheets_total: sheets,
        completed: 0,
        skipped: 0,
        failed: 0,
        running: 0,
        waiting: 0,
        last_completed: 0,
        reason_sheet: None,
        until: None,
        submitted_at: at,
        updated_at: at,
        started_at: None,
        ended_at: None,
        cost: None,
        tokens_in: 0,
        tokens_out: 0,
        rate_limit_waits: 0,
        quota_waits: 0,
        retries: 0,
        revision: 0,
    }
}

/// Facts about a run as a whole.
fn follow_run(run: &mut RunRow, fact: &Fact) {
    match &fact.kind {
        FactKind::RunPaused { why, .. } => run.phase = Phase::Paused(*why),
        FactKind::RunResumed { .. } => go_on(run),
        FactKind::RunCancelling { .. } => run.phase = Phase::Cancelling,
        FactKind::RunEnded { state, .. } => {
            run.phase = Phase::Ended(*state);
            run.ended_at = Some(fact.at);
        }
        _ => {}
    }
}

/// The run is live again, also after its end.
fn go_on(run: &mut RunRow) {
    run.phase = Phase::Live;
    run.ended_at = None;
}

/// Facts about one sheet; the run's counters of states are kept by the caller.
fn follow_sheet(run: &mut RunRow, sheet: &mut SheetRow, seq: i64, fact: &Fact) {
    match &fact.kind {
        FactKind::AttemptIntended { attempt, kind, .. } => {
            // The same attempt may be intended again where nothing of it ever ran.
            if attempt.attempt.0 > sheet.last_attempt {
                sheet.last_attempt = attempt.attempt.0;
                sheet.attempts += 1;
                sheet.completion_attempts += u32::from(*kind == AttemptKind::Completion);
                run.retries += u32::from(*kind != AttemptKind::First);
            }
            sheet.last_kind = Some(*kind);
            sheet.started_at.get_or_insert(fact.at);
            run.started_at.get_or_insert(fact.at);
            sheet.state = SheetStatus::Running;
            sheet.until = None;
        }
        FactKind::AttemptEnded { attempt, outcome } => attempt_ended(run, sheet, seq, attempt.attempt.0, outcome),
        FactKind::SheetWaits { until, cause, code, .. } => {
            sheet.state = SheetStatus::Waiting;
            sheet.until = Some(*until);
            sheet.cause = Some(*cause);
            sheet.code = Some(*code);
            run.until = Some(*until);
            run.reason_sheet = Some(sheet.sheet.0);
            match (cause, code) {
                (Cause::RateLimit, Code::E104 | Code::E105) => run.quota_waits += 1,
                (Cause::RateLimit, _) => run.rate_limit_waits += 1,
                _ => {}
            }
        }
        FactKind::SheetEnded { verdict, .. } => sheet_ended(run, sheet, fact.at, verdict),
        FactKind::GenerationOpened { generation, .. } => {
            sheet.state = SheetStatus::Pending;
            sheet.generation = *generation;
            sheet.ended_at = None;
            sheet.until = None;
            sheet.clear_failure();
            if run.reason_sheet == Some(sheet.sheet.0) {
                run.reason_sheet = None;
            }
            if matches!(run.phase, Phase::Ended(_)) {
                go_on(run);
            }
        }
        FactKind::SheetRecovered { generation, .. } => {
            sheet.generation = *generation;
            sheet.validated_seq = Some(seq);
            sheet_ended(run, sheet, fact.at, &Verdict::Completed);
            if run.reason_sheet == Some(sheet.sheet.0) {
                run.reason_sheet = None;
            }
        }
        _ => {}
    }
}

fn attempt_ended(run: &mut RunRow, sheet: &mut SheetRow, seq: i64, attempt: u32, outcome: &Outcome) {
    if attempt <= sheet.ended_attempt {
        return;
    }
    sheet.ended_attempt = attempt;
    sheet.report_seq = Some(seq);
    if outcome.rules_total > 0 {
        sheet.validated_seq = Some(seq);
    }
    sheet.flags.clone_from(&outcome.flags);
    match &outcome.failure {
        Some(failure) => {
            sheet.cause = Some(failure.cause);
            sheet.code = Some(failure.code);
            sheet.message = Some(failure.message.clone());
        }
        None => sheet.clear_failure(),
    }
    add_cost(&mut sheet.cost, outcome.cost);
    sheet.tokens_in = sheet.tokens_in.saturating_add(outcome.tokens_in.unwrap_or(0));
    sheet.tokens_out = sheet.tokens_out.saturating_add(outcome.tokens_out.unwrap_or(0));
    run.add_use(outcome);
    // Until the next fact says what follows, it is between attempts.
    if sheet.state == SheetStatus::Running {
        sheet.state = SheetStatus::Waiting;
    }
}

fn sheet_ended(run: &mut RunRow, sheet: &mut SheetRow, at: Timestamp, verdict: &Verdict) {
    sheet.ended_at = Some(at);
    sheet.until = None;
    match verdict {
        Verdict::Completed => {
            sheet.state = SheetStatus::Completed;
            sheet.clear_failure();
            run.last_completed = run.last_completed.max(sheet.sheet.0);
        }
        Verdict::Failed { cause, code, message } => {
            sheet.state = SheetStatus::Failed;
            sheet.cause = Some(*cause);
            sheet.code = Some(*code);
            sheet.message = Some(message.clone());
            run.reason_sheet = Some(sheet.sheet.0);
        }
        Verdict::Skipped { reason } => {
            sheet.state = SheetStatus::Skipped;
            sheet.clear_failure();
            sheet.reason = Some(reason.clone());
        }
        Verdict::Blocked { by } => {
            sheet.state = SheetStatus::Skipped;
            sheet.clear_failure();
            sheet.code = Some(Code::E802);
            sheet.reason = Some(format!("blocked by sheet {by}"));
        }
        Verdict::Cancelled => sheet.state = SheetStatus::Cancelled,
    }
}

fn add_cost(sum: &mut Option<Cost>, more: Option<Cost>) {
    if let Some(more) = more {
        *sum = Some(Cost(sum.unwrap_or_default().0.saturating_add(more.0)));
    }
}
