//! Requests, and the errors that answer them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{JobName, Problem, RunNo, SheetStatus};
use crate::summary::CostKey;
pub use crate::summary::RunFilter;

/// A job file to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// The job file's text, as read.
    pub text: String,
    /// Absolute directory that its relative paths are relative to.
    pub base_directory: String,
    /// Path of the file, for messages and `job_file`.
    pub path: Option<String>,
    /// Overrides `workspace` (absolute).
    pub workspace: Option<String>,
    /// The submitter's environment: PATH, locale, names in `pass_env`, the CLI's own. `None`: the conductor's own.
    pub environment: Option<BTreeMap<String, String>>,
    /// Sheets below are skipped.
    pub start_sheet: Option<u32>,
    /// A new run, whatever the last one left.
    pub fresh: bool,
    /// Overrides `priority`.
    pub priority: Option<u8>,
    /// Overrides `prompt.variables`, by name.
    pub set: BTreeMap<String, String>,
    /// Only check and plan.
    pub dry_run: bool,
    /// Take up from the checkpoint in the workspace (what `resume FILE` does where the ledger knows no run). With a new
    /// plan for a run: go on with it, too.
    pub resume: bool,
    /// With `resume`, where there is no checkpoint: take the sheets for done that their files say are.
    pub infer: bool,
}

/// Answer to a submit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: JobName,
    /// The run's number within the job; 0 for a dry run.
    pub run: RunNo,
    /// A live run of the same plan was there already: this is it.
    pub attached: bool,
    /// Warnings and infos.
    pub problems: Vec<Problem>,
}

/// Which costs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostRequest {
    /// So many days of the calendar, with today; `None`: all.
    pub days: Option<u32>,
    /// Only this job's.
    pub job: Option<String>,
    /// Only this run's of the job.
    pub run: Option<u32>,
    /// What they are added up by; the day, where nothing is said.
    pub by: Vec<CostKey>,
}

/// Answer to a run being given another plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Modified {
    /// The job.
    pub job: JobName,
    /// The run's number within the job.
    pub run: RunNo,
    /// In which parts of the job file the plans differ, in its words; `text` where only comments or the like do. None:
    /// nothing has changed.
    pub parts: Vec<String>,
    /// What that means for its sheets; empty where nothing has changed.
    pub sheets: Vec<SheetsChange>,
    /// Warnings and infos.
    pub problems: Vec<Problem>,
}

/// Sheets in a row for which another plan means the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SheetsChange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
    /// What they were.
    pub state: SheetStatus,
    /// `kept` (a verdict that stays), `next_attempt` (at work with the old plan until their attempt ends), `new_plan`,
    /// `reopened` (to be run again), `added` or `dropped`.
    pub becomes: String,
}

/// What the rules of a sheet gave without a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveredSheet {
    /// The sheet.
    pub sheet: u32,
    /// What it was.
    pub was: SheetStatus,
    /// What it is now, or would be: `completed`, or the same.
    pub is: SheetStatus,
    /// Why it is not completed; empty where it is.
    pub reason: String,
    /// Rules that hold; 0 of 0 where they were not asked.
    pub rules_passed: u32,
    /// Rules in all.
    pub rules_total: u32,
    /// A line for each rule that does not hold.
    pub failed: Vec<String>,
}

/// Which run of a job: the newest unless said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunSelector {
    /// The job's name.
    pub job: String,
    /// The run's number.
    pub run: Option<u32>,
}

/// Why a request failed: the D-Bus errors `org.mozart.Mozart1.Error.*`, each with one sentence for a person.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The ledger knows no such job.
    #[error("{0}")]
    NoSuchJob(String),
    /// The job has no such run.
    #[error("{0}")]
    NoSuchRun(String),
    /// The run has no such sheet or attempt.
    #[error("{0}")]
    NoSuchSheet(String),
    /// No such question is open.
    #[error("{0}")]
    NoSuchQuestion(String),
    /// The job file has errors.
    #[error("{message}")]
    InvalidJob {
        /// One sentence with the count.
        message: String,
        /// Everything that was found.
        problems: Vec<Problem>,
    },
    /// An argument is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// A live run is in the way.
    #[error("{0}")]
    Busy(String),
    /// The run's state does not allow it.
    #[error("{0}")]
    WrongState(String),
    /// It rests on a guess, which the sentence tells; somebody has to say yes to it (`Submit.infer`).
    #[error("{0}")]
    Unconfirmed(String),
    /// Too many runs.
    #[error("{0}")]
    QueueFull(String),
    /// Not built or not possible here.
    #[error("{0}")]
    NotSupported(String),
    /// The ledger or the spool cannot be written or read.
    #[error("{0}")]
    Storage(String),
    /// The caller may not change anything (it is one of Mozart's own sessions).
    #[error("{0}")]
    Refused(String),
    /// The conductor is stopping.
    #[error("{0}")]
    Stopping(String),
}
