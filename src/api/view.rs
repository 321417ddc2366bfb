//! Views: what is shown of the engine's state, and how it changes.

use serde::{Deserialize, Serialize};

use crate::model::{Code, JobName, RunNo, RunState, Span, Timestamp};
use crate::summary::{RunSummary, SheetSummary};

/// The conductor as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ManagerView {
    /// Where it keeps its state; a client of another state directory wants another conductor.
    pub state_directory: String,
    /// `max_concurrent_jobs`.
    pub slots: u32,
    /// Runs that run.
    pub running: u32,
    /// Runs that are queued.
    pub queued: u32,
    /// Runs that wait.
    pub waiting: u32,
    /// What the pressure on the machine holds, as of the last look: `none`, `hold` (new starts), `refuse` (submissions
    /// too), or `unknown`.
    pub pressure: String,
    /// What keeps this conductor from starting anything, each with the moment at which that ends, where known.
    pub holds: Vec<(String, Option<Timestamp>)>,
    /// Questions that are open.
    pub questions: u32,
    /// Empty while storage works; else which path and what is wrong, or was: a ledger that was set aside.
    pub storage: String,
}

/// A run as the bus shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The row.
    pub summary: RunSummary,
    /// Rest of the run's time, once it can be believed.
    pub eta: Option<Span>,
}

/// An open question: something that only a person can decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionView {
    /// Its id, such as `q3-12-1`.
    pub id: String,
    /// What happened, in a sentence or two.
    pub text: String,
    /// The words that answer it: of `retry`, `wait`, `continue` and `stop`.
    pub choices: Vec<String>,
    /// Whose login, money or limit it is about; none where the backend has no account.
    pub account: Option<String>,
    /// What the session failed with, where it is about login or money.
    pub code: Option<Code>,
    /// The first of the runs that wait for the answer, as `JOB#RUN`.
    pub runs: Vec<String>,
    /// How many runs wait for it.
    pub runs_waiting: u32,
}

/// A gate: the state of one limit of one account, behind which starts wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// Whose limit: backend, host, and a digest of where the credential comes from.
    pub account: String,
    /// `usage`, `throttle` or `faults` (the circuit breaker).
    pub kind: String,
    /// Window or model family, where the limit names one (`five_hour`).
    pub window: Option<String>,
    /// How it stands.
    pub state: GateState,
    /// When it is no longer closed.
    pub until: Timestamp,
    /// Sessions that may be under way at once from then on: one finds out, and each answer doubles them.
    pub places: u32,
    /// Sessions that are.
    pub under_way: u32,
    /// Runs that wait behind it.
    pub runs_waiting: u32,
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// Nothing starts before its end.
    Closed,
    /// So many sessions at once may start as it has places.
    Opening,
    /// It holds nothing any more.
    Open,
}

impl GateState {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Opening => "opening",
            Self::Open => "open",
        }
    }
}

/// Something changed; a hint to look again, never the truth itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The conductor's own view.
    Manager(ManagerView),
    /// A run is new or changed.
    Run(Box<RunView>),
    /// A sheet of a run changed.
    Sheet {
        /// The job.
        job: JobName,
        /// Its run.
        run: RunNo,
        /// The sheet as it is now.
        sheet: Box<SheetSummary>,
    },
    /// A question was asked.
    Question(Box<QuestionView>),
    /// A gate was closed, or opened (further).
    Gate(Box<GateView>),
    /// A run is over. Its state was announced before.
    Finished {
        /// The job.
        job: JobName,
        /// Its run.
        run: RunNo,
        /// `completed`, `failed` or `cancelled`.
        result: RunState,
    },
}
