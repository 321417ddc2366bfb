//! What the runner is asked for, and what it says meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backend::Heard;
use crate::job::plan::{Plan, SubmitContext};
use crate::job::prices::Prices;
use crate::model::{Ask, AttemptKind, AttemptRef, AttemptReport, Cost, Timestamp};
pub use crate::summary::Lesson;

/// Everything one attempt needs; the conductor gathers it.
#[derive(Debug, Clone)]
pub struct AttemptSpec {
    /// Which attempt.
    pub attempt: AttemptRef,
    /// Why.
    pub kind: AttemptKind,
    /// What the session is told.
    pub ask: Ask,
    /// Session id; resumed if `resume`.
    pub session_id: String,
    /// Resume that session instead of making it.
    pub resume: bool,
    /// The whole plan.
    pub plan: Arc<Plan>,
    /// What the submitter brought along.
    pub context: Arc<SubmitContext>,
    /// What failed before: earlier attempts of this sheet, and the previous three sheets.
    pub lessons: Vec<Lesson>,
    /// What its session may cost at most.
    pub budget: Option<Cost>,
    /// What the resumed session had cost in all before this attempt, where known.
    pub earlier_cost: Option<Cost>,
    /// What tokens cost, where the session does not say what it has cost.
    pub prices: Arc<Prices>,
    /// Variables of the conductor's settings for every session (`pass_env`, `environment_file`).
    pub extra_env: BTreeMap<String, String>,
    /// Secrets by variable name, from the conductor's environment or credentials. Never stored, never logged.
    pub secrets: Secrets,
}

/// Secrets by variable name. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Secrets(pub BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What the runner says while it works.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The process runs (started or adopted).
    Started {
        /// When it started.
        at: Timestamp,
        /// systemd's InvocationID, or the supervisor's start id.
        invocation: Option<String>,
    },
    /// It is at work, and this is new of it.
    Heard(Heard),
    /// It waits for room: one sentence that names the path. It goes on by itself.
    NoRoom(String),
    /// The evidence was read: nothing ever ran.
    NeverRan,
    /// It is over, validated and classified.
    Finished(Box<AttemptReport>),
}
