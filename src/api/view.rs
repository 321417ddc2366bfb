//! Views: what is shown of the engine's state, and how it changes.

use serde::{Deserialize, Serialize};

use crate::model::{JobName, RunNo, RunState, Span};
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
