//! What the ledger can tell of runs, sheets and attempts, as plain rows: read by api, bus and the front ends.

use serde::{Deserialize, Serialize};

use crate::model::{
    AttemptKind, AttemptReport, Cause, Code, Cost, JobName, RuleResult, RunId, RunNo, RunState, SheetStatus, Timestamp,
};

/// What costs are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostKey {
    /// A day of the calendar.
    Day,
    /// Whose money.
    Account,
    /// A job, over all its runs.
    Job,
    /// A run.
    Run,
    /// The model that worked.
    Model,
}

impl CostKey {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Day, Self::Account, Self::Job, Self::Run, Self::Model];

    /// The word that people use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Account => "account",
            Self::Job => "job",
            Self::Run => "run",
            Self::Model => "model",
        }
    }
}

/// Which costs are asked for, and how they are added up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostFilter {
    /// From that day of the calendar on; empty: all.
    pub since: String,
    /// Only this job's.
    pub job: Option<String>,
    /// Only this run's of the job.
    pub run: Option<u32>,
    /// A row for each of these; in that order they are sorted.
    pub by: Vec<CostKey>,
}

/// What was spent. What it is not added up by, and what nobody knows, is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostSummary {
    /// The day on which the sessions ended, such as `2026-11-21`.
    pub day: Option<String>,
    /// Whose money.
    pub account: Option<String>,
    /// The job.
    pub job: Option<String>,
    /// The run.
    pub run: Option<u32>,
    /// The model that worked.
    pub model: Option<String>,
    /// Sessions that did anything.
    pub sessions: u32,
    /// Those of them of which nobody knows what they have cost.
    pub unknown: u32,
    /// What the others have cost.
    pub cost: Cost,
    /// How much of it is an estimate: by the price of tokens, as the session did not say.
    pub estimated: Cost,
    /// Input tokens, as far as they are known.
    pub tokens_in: u64,
    /// Output tokens, as far as they are known.
    pub tokens_out: u64,
}

impl CostSummary {
    /// What it is sorted and added up by: numbers of runs as numbers.
    pub fn key(&self, key: CostKey) -> String {
        let text = match key {
            CostKey::Day => &self.day,
            CostKey::Account => &self.account,
            CostKey::Job => &self.job,
            CostKey::Run => return format!("{:?} {:010}", self.job, self.run.unwrap_or(0)),
            CostKey::Model => &self.model,
        };
        text.clone().unwrap_or_default()
    }

    /// Without what it is not added up by.
    pub fn only(mut self, by: &[CostKey]) -> Self {
        let has = |key| by.contains(&key);
        self.day = self.day.filter(|_| has(CostKey::Day));
        self.account = self.account.filter(|_| has(CostKey::Account));
        self.job = self.job.filter(|_| has(CostKey::Job) || has(CostKey::Run));
        self.run = self.run.filter(|_| has(CostKey::Run));
        self.model = self.model.filter(|_| has(CostKey::Model));
        self
    }

    /// With another's added to it.
    pub fn add(&mut self, other: &Self) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.unknown = self.unknown.saturating_add(other.unknown);
        self.cost.0 = self.cost.0.saturating_add(other.cost.0);
        self.estimated.0 = self.estimated.0.saturating_add(other.estimated.0);
        self.tokens_in = self.tokens_in.saturating_add(other.tokens_in);
        self.tokens_out = self.tokens_out.saturating_add(other.tokens_out);
    }
}

/// One run, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The ledger's number.
    pub id: RunId,
    /// The job.
    pub job: JobName,
    /// Number within the job.
    pub run: RunNo,
    /// State.
    pub state: RunState,
    /// Why it is in that state, in words; empty where the state says all.
    pub reason: String,
    /// When the reason ends by itself, where known.
    pub until: Option<Timestamp>,
    /// Id of the question that it waits for, where it does.
    pub question: Option<String>,
    /// Which of its budgets are nearly used up, in words; none while none is.
    pub warning: Option<String>,
    /// Sheets in all.
    pub sheets_total: u32,
    /// Completed or skipped.
    pub sheets_done: u32,
    /// Failed.
    pub sheets_failed: u32,
    /// Running now.
    pub sheets_running: u32,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// First start of a sheet.
    pub started_at: Option<Timestamp>,
    /// Its end.
    pub ended_at: Option<Timestamp>,
    /// Cost so far, where any attempt told one.
    pub cost: Option<Cost>,
    /// Input tokens so far.
    pub tokens_in: u64,
    /// Output tokens so far.
    pub tokens_out: u64,
    /// Absolute path of the workspace.
    pub workspace: String,
    /// Hash of its plan.
    pub plan_hash: String,
    /// The job file, where it came from one.
    pub job_file: Option<String>,
    /// Counts every change of the run; a reader that missed one reads again.
    pub revision: u64,
}

/// One sheet, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SheetSummary {
    /// Its number.
    pub sheet_num: u32,
    /// Label from the job file.
    pub description: Option<String>,
    /// State.
    pub state: SheetStatus,
    /// Why it waits or was skipped, in words.
    pub reason: String,
    /// Until when it waits.
    pub until: Option<Timestamp>,
    /// Attempts so far, all generations.
    pub attempts: u32,
    /// Completion attempts among them.
    pub completion_attempts: u32,
    /// Cause of the last failure; none once completed.
    pub cause: Option<Cause>,
    /// Its code.
    pub code: Option<Code>,
    /// One sentence of the last failure.
    pub message: Option<String>,
    /// Suspicious marks of the last attempt.
    pub flags: Vec<String>,
    /// Rule results of the last attempt that was validated.
    pub validations: Vec<RuleResult>,
    /// Start of its first attempt.
    pub started_at: Option<Timestamp>,
    /// Its verdict's time.
    pub ended_at: Option<Timestamp>,
    /// Cost of all its attempts.
    pub cost: Option<Cost>,
    /// Input tokens of all its attempts.
    pub tokens_in: u64,
    /// Output tokens of all its attempts.
    pub tokens_out: u64,
}

/// One attempt, with everything that was kept of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptSummary {
    /// The sheet.
    pub sheet_num: u32,
    /// Number within the sheet.
    pub attempt: u32,
    /// Why it was made.
    pub kind: AttemptKind,
    /// Session id.
    pub session_id: String,
    /// The unit's name (without `.service`), or the supervisor's.
    pub unit: String,
    /// When its intent was committed.
    pub intended_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// systemd's InvocationID.
    pub invocation: Option<String>,
    /// Once it is over.
    pub report: Option<AttemptReport>,
}

/// What an earlier attempt failed at.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// The sheet.
    pub sheet: u32,
    /// The attempt.
    pub attempt: u32,
    /// Its failure in one sentence, where it was not a rule.
    pub message: Option<String>,
    /// The rules of its last validation, failed and passed.
    pub rules: Vec<RuleResult>,
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFilter {
    /// Only this job's.
    pub job: Option<String>,
    /// Only these states; empty: all.
    pub states: Vec<RunState>,
    /// Only the newest run of each job.
    pub newest: bool,
}
