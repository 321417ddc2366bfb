//! Facts: what was decided, as the journal keeps it for ever. `apply` is the only thing that follows them.
//!
//! Every stored fact carries [`FACT_VERSION`]; a later version reads every older one. Fields are only ever
//! added, with a default; a kind is never given another meaning.

use serde::{Deserialize, Serialize};

use super::event::{PauseWhy, SessionChoice};
use super::rules::RunRules;
use crate::model::{
    Ask, AttemptKind, AttemptRef, Cause, Code, Generation, JobName, LimitKind, Outcome, RunId, RunNo, RunState,
    SheetNo, Span, Timestamp,
};

/// Version written with every fact.
pub const FACT_VERSION: u16 = 1;

/// A fact as stored: `{"v":1,"at":…,"fact":"run_submitted",…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// [`FACT_VERSION`] of the code that wrote it.
    pub v: u16,
    /// When it was decided.
    pub at: Timestamp,
    /// What was decided.
    #[serde(flatten)]
    pub kind: FactKind,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum FactKind {
    /// A run exists.
    RunSubmitted {
        /// Its number.
        run: RunId,
        /// Its job.
        job: JobName,
        /// Its number within the job.
        no: RunNo,
        /// How it goes.
        rules: RunRules,
        /// Sheets that were done before.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        completed: Vec<SheetNo>,
    },
    /// An attempt is about to start under the unit name that follows from its numbers.
    AttemptIntended {
        /// Which.
        attempt: AttemptRef,
        /// Of which generation.
        generation: Generation,
        /// Why.
        kind: AttemptKind,
        /// What it is told.
        ask: Ask,
        /// In which session.
        session: SessionChoice,
    },
    /// Its process runs.
    AttemptStarted {
        /// Which.
        attempt: AttemptRef,
        /// When the process started.
        started_at: Timestamp,
        /// systemd's InvocationID, or the supervisor's start id.
        invocation: Option<String>,
    },
    /// Its end was asked for (pause --now, cancel, shutdown): noted before it is asked.
    StopAsked {
        /// Which.
        attempt: AttemptRef,
    },
    /// It is over.
    AttemptEnded {
        /// Which.
        attempt: AttemptRef,
        /// What became of it.
        outcome: Outcome,
    },
    /// The sheet waits, then the next attempt is made.
    SheetWaits {
        /// The run.
        run: RunId,
        /// The sheet.
        sheet: SheetNo,
        /// Not before this moment (a closed gate may hold it longer).
        until: Timestamp,
        /// Why.
        cause: Cause,
        /// The code behind the cause.
        code: Code,
        /// Kind of the next attempt.
        kind: AttemptKind,
        /// What it will be told.
        ask: Ask,
        /// Resume this session; `None`: a new one.
        resume: Option<String>,
        /// `until` is a moment of the calendar (the reset of a limit), which the clock may be set to meet; otherwise it
        /// stands for a length of time.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_calendar: bool,
    },
    /// The wall clock was set: what of the run waits for a length of time waits until that much later (or earlier).
    WaitsMoved {
        /// The run.
        run: RunId,
        /// By how far the clock was set; negative where it was set back.
        by: Span,
    },
    /// The sheet's verdict within its generation.
    SheetEnded {
        /// The run.
        run: RunId,
        /// The sheet.
        sheet: SheetNo,
        /// The verdict.
        verdict: Verdict,
    },
    /// A person opened the sheet's next generation: it is pending again, with fresh budgets.
    GenerationOpened {
        /// The run.
        run: RunId,
        /// The sheet.
        sheet: SheetNo,
        /// The new generation.
        generation: Generation,
    },
    /// No starts for that account until then.
    GateClosed {
        /// Which gate.
        gate: GateKey,
        /// Until when.
        until: Timestamp,
        /// As in [`Self::SheetWaits`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_calendar: bool,
    },
    /// Starts again.
    GateOpened {
        /// Which gate.
        gate: GateKey,
    },
    /// The run is held.
    RunPaused {
        /// Which.
        run: RunId,
        /// Who wants it.
        why: PauseWhy,
    },
    /// The run goes on.
    RunResumed {
        /// Which.
        run: RunId,
    },
    /// The run is being cancelled; it has ended when its last session has.
    RunCancelling {
        /// Which.
        run: RunId,
    },
    /// The run is over: completed, failed or cancelled.
    RunEnded {
        /// Which.
        run: RunId,
        /// How.
        state: RunState,
    },
}

impl FactKind {
    /// The word that the journal stores under `fact`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunSubmitted { .. } => "run_submitted",
            Self::AttemptIntended { .. } => "attempt_intended",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::StopAsked { .. } => "stop_asked",
            Self::AttemptEnded { .. } => "attempt_ended",
            Self::SheetWaits { .. } => "sheet_waits",
            Self::WaitsMoved { .. } => "waits_moved",
            Self::SheetEnded { .. } => "sheet_ended",
            Self::GenerationOpened { .. } => "generation_opened",
            Self::GateClosed { .. } => "gate_closed",
            Self::GateOpened { .. } => "gate_opened",
            Self::RunPaused { .. } => "run_paused",
            Self::RunResumed { .. } => "run_resumed",
            Self::RunCancelling { .. } => "run_cancelling",
            Self::RunEnded { .. } => "run_ended",
        }
    }

    /// The run that it is about; `None` for the facts of gates, which all runs share.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::AttemptIntended { attempt, .. }
            | Self::AttemptStarted { attempt, .. }
            | Self::StopAsked { attempt }
            | Self::AttemptEnded { attempt, .. } => Some(attempt.run),
            Self::RunSubmitted { run, .. }
            | Self::SheetWaits { run, .. }
            | Self::WaitsMoved { run, .. }
            | Self::SheetEnded { run, .. }
            | Self::GenerationOpened { run, .. }
            | Self::RunPaused { run, .. }
            | Self::RunResumed { run }
            | Self::RunCancelling { run }
            | Self::RunEnded { run, .. } => Some(*run),
            Self::GateClosed { .. } | Self::GateOpened { .. } => None,
        }
    }

    /// Whether something is done or answered because of it, so that it must survive a power cut from then on. That
    /// a process runs is only noted: what it does ends with the power, and the next fact keeps this one too.
    pub fn is_acted_on(&self) -> bool {
        !matches!(self, Self::AttemptStarted { .. })
    }

    /// The sheet that it is about, where it is about one.
    pub fn sheet(&self) -> Option<SheetNo> {
        match self {
            Self::AttemptIntended { attempt, .. }
            | Self::AttemptStarted { attempt, .. }
            | Self::StopAsked { attempt }
            | Self::AttemptEnded { attempt, .. } => Some(attempt.sheet),
            Self::SheetWaits { sheet, .. } | Self::SheetEnded { sheet, .. } | Self::GenerationOpened { sheet, .. } => {
                Some(*sheet)
            }
            Self::RunSubmitted { .. }
            | Self::WaitsMoved { .. }
            | Self::RunPaused { .. }
            | Self::RunResumed { .. }
            | Self::RunCancelling { .. }
            | Self::RunEnded { .. }
            | Self::GateClosed { .. }
            | Self::GateOpened { .. } => None,
        }
    }
}

/// A sheet's verdict; final within its generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// Every rule passed.
    Completed,
    /// It ended for good.
    Failed {
        /// Which budget ran out, or `fatal`.
        cause: Cause,
        /// The code of the last failure.
        code: Code,
        /// One sentence.
        message: String,
    },
    /// It is not to be run.
    Skipped {
        /// Such as `before start sheet`.
        reason: String,
    },
    /// A sheet that it waits for has failed.
    Blocked {
        /// Which.
        by: SheetNo,
    },
    /// The run was cancelled, or ended by another sheet's failure before this one was done.
    Cancelled,
}

impl Verdict {
    /// Whether those who wait for the sheet may start.
    pub(super) fn satisfies(&self) -> bool {
        matches!(self, Self::Completed | Self::Skipped { .. })
    }

    /// Whether a resume opens the sheet again.
    pub(super) fn is_to_be_resumed(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Blocked { .. } | Self::Cancelled => true,
            Self::Completed | Self::Skipped { .. } => false,
        }
    }
}

/// One limit of one account: what starts wait behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GateKey {
    /// Whose.
    pub account: crate::model::AccountId,
    /// Usage or throttling.
    pub kind: LimitKind,
    /// Window or model family, where the limit names one (`seven_day_opus`).
    pub window: Option<String>,
}
