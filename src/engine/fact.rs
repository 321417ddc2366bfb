//! Facts: what was decided, as the journal keeps it for ever. `apply` is the only thing that follows them.
//!
//! Every stored fact carries [`FACT_VERSION`]; a later version reads every older one. Fields are only ever
//! added, with a default; a kind is never given another meaning.

use serde::{Deserialize, Serialize};

use super::event::{PauseWhy, SessionChoice};
use super::rules::RunRules;
use crate::model::{
    AccountId, Ask, AttemptKind, AttemptRef, Cause, Code, Cost, Generation, JobName, LimitKind, Outcome, RunId, RunNo,
    RunState, SheetNo, Span, Timestamp,
};

#[cfg(test)]
use crate::probe::Mutant;

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
        /// What it may cost at most, and what is reserved for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Cost>,
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
    /// A person says that limits are over: what of the run waits for one waits no longer.
    LimitsLifted {
        /// The run.
        run: RunId,
    },
    /// A person lets the run wait for that kind of limit as often again.
    WaitsRenewed {
        /// The run.
        run: RunId,
        /// Which limits.
        kind: LimitKind,
    },
    /// A person lets it cost more.
    BudgetRaised {
        /// The run.
        run: RunId,
        /// The sheet whose budget it is; `None`: the job's.
        sheet: Option<SheetNo>,
        /// What all of it may cost from now on.
        limit: Cost,
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
    /// A person had the sheet's rules asked without a session, and all of them hold: it is completed, in a generation
    /// of its own.
    SheetRecovered {
        /// The run.
        run: RunId,
        /// The sheet.
        sheet: SheetNo,
        /// The new generation.
        generation: Generation,
    },
    /// A person gave the run another plan. Attempts under way go on with the one that they were started with.
    RunModified {
        /// Which.
        run: RunId,
        /// The plan's number within the run: the one that was submitted is 0.
        revision: u32,
        /// How it goes from now on.
        rules: RunRules,
        /// Sessions of the plan before can be resumed with this one.
        same_sessions: bool,
    },
    /// No starts for that account until then, and no more than so many at once after it.
    GateClosed {
        /// Which gate.
        gate: GateKey,
        /// Until when.
        until: Timestamp,
        /// As in [`Self::SheetWaits`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_calendar: bool,
        /// Sessions that may be under way at once from then on: one, the probe, and twice as many each time that one of
        /// them got an answer.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        places: u32,
    },
    /// Starts again.
    GateOpened {
        /// Which gate.
        gate: GateKey,
    },
    /// The API answered the session; recorded only where a gate was waiting for it.
    AttemptAnswered {
        /// Which.
        attempt: AttemptRef,
    },
    /// Only a person can decide it.
    QuestionAsked {
        /// The question.
        question: Question,
    },
    /// A person said what becomes of an account whose budget for the day is used up.
    DayDecided {
        /// Whose.
        account: AccountId,
        /// The end of that day: on another it means nothing.
        ends: Timestamp,
        /// So much may be spent on it; `None`: what is left waits for the next day.
        limit: Option<Cost>,
    },
    /// It is answered, or there is nobody left whom it is about.
    QuestionClosed {
        /// Which.
        id: QuestionId,
        /// The answer; `None`: there was no need for one any more.
        choice: Option<Choice>,
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
    /// Its sessions were at work for as long as a run's may be: they are stopped, and it fails.
    RunOutOfTime {
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

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(places: &u32) -> bool {
    *places == 1
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
            Self::LimitsLifted { .. } => "limits_lifted",
            Self::WaitsRenewed { .. } => "waits_renewed",
            Self::BudgetRaised { .. } => "budget_raised",
            Self::SheetEnded { .. } => "sheet_ended",
            Self::GenerationOpened { .. } => "generation_opened",
            Self::SheetRecovered { .. } => "sheet_recovered",
            Self::RunModified { .. } => "run_modified",
            Self::GateClosed { .. } => "gate_closed",
            Self::GateOpened { .. } => "gate_opened",
            Self::AttemptAnswered { .. } => "attempt_answered",
            Self::QuestionAsked { .. } => "question_asked",
            Self::QuestionClosed { .. } => "question_closed",
            Self::DayDecided { .. } => "day_decided",
            Self::RunPaused { .. } => "run_paused",
            Self::RunResumed { .. } => "run_resumed",
            Self::RunOutOfTime { .. } => "run_out_of_time",
            Self::RunCancelling { .. } => "run_cancelling",
            Self::RunEnded { .. } => "run_ended",
        }
    }

    /// The run that it is about; `None` for the facts of gates, questions and days, which runs share.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::AttemptIntended { attempt, .. }
            | Self::AttemptStarted { attempt, .. }
            | Self::StopAsked { attempt }
            | Self::AttemptAnswered { attempt }
            | Self::AttemptEnded { attempt, .. } => Some(attempt.run),
            Self::RunSubmitted { run, .. }
            | Self::SheetWaits { run, .. }
            | Self::WaitsMoved { run, .. }
            | Self::LimitsLifted { run }
            | Self::WaitsRenewed { run, .. }
            | Self::BudgetRaised { run, .. }
            | Self::SheetEnded { run, .. }
            | Self::GenerationOpened { run, .. }
            | Self::SheetRecovered { run, .. }
            | Self::RunModified { run, .. }
            | Self::RunPaused { run, .. }
            | Self::RunResumed { run }
            | Self::RunOutOfTime { run }
            | Self::RunCancelling { run }
            | Self::RunEnded { run, .. } => Some(*run),
            Self::GateClosed { .. }
            | Self::GateOpened { .. }
            | Self::QuestionAsked { .. }
            | Self::QuestionClosed { .. }
            | Self::DayDecided { .. } => None,
        }
    }

    /// Whether something is done or answered because of it, so that it must survive a power cut from then on. That
    /// a process runs is only noted: what it does ends with the power, and the next fact keeps this one too.
    pub fn is_acted_on(&self) -> bool {
        !matches!(self, Self::AttemptStarted { .. } | Self::AttemptAnswered { .. })
    }

    /// The sheet that it is about, where it is about one.
    pub fn sheet(&self) -> Option<SheetNo> {
        match self {
            Self::AttemptIntended { attempt, .. }
            | Self::AttemptStarted { attempt, .. }
            | Self::StopAsked { attempt }
            | Self::AttemptAnswered { attempt }
            | Self::AttemptEnded { attempt, .. } => Some(attempt.sheet),
            Self::SheetWaits { sheet, .. }
            | Self::SheetEnded { sheet, .. }
            | Self::GenerationOpened { sheet, .. }
            | Self::SheetRecovered { sheet, .. } => Some(*sheet),
            Self::RunSubmitted { .. }
            | Self::WaitsMoved { .. }
            | Self::LimitsLifted { .. }
            | Self::WaitsRenewed { .. }
            | Self::BudgetRaised { .. }
            | Self::RunModified { .. }
            | Self::RunPaused { .. }
            | Self::RunResumed { .. }
            | Self::RunOutOfTime { .. }
            | Self::RunCancelling { .. }
            | Self::RunEnded { .. }
            | Self::GateClosed { .. }
            | Self::GateOpened { .. }
            | Self::QuestionAsked { .. }
            | Self::QuestionClosed { .. }
            | Self::DayDecided { .. } => None,
        }
    }

    /// Of gates, questions and days only what is still open is kept, under this name; `None` for the facts of runs, which are
    /// kept for ever.
    pub fn subject(&self) -> Option<Subject<'_>> {
        match self {
            Self::GateClosed { gate, .. } => Some(Subject::Gate(gate, true)),
            Self::GateOpened { gate } => Some(Subject::Gate(gate, false)),
            Self::QuestionAsked { question } => Some(Subject::Question(&question.id, true)),
            Self::QuestionClosed { id, .. } => Some(Subject::Question(id, false)),
            Self::DayDecided { account, .. } => Some(Subject::Day(account)),
            Self::RunSubmitted { .. }
            | Self::AttemptIntended { .. }
            | Self::AttemptStarted { .. }
            | Self::StopAsked { .. }
            | Self::AttemptAnswered { .. }
            | Self::AttemptEnded { .. }
            | Self::SheetWaits { .. }
            | Self::WaitsMoved { .. }
            | Self::LimitsLifted { .. }
            | Self::WaitsRenewed { .. }
            | Self::BudgetRaised { .. }
            | Self::SheetEnded { .. }
            | Self::GenerationOpened { .. }
            | Self::SheetRecovered { .. }
            | Self::RunModified { .. }
            | Self::RunPaused { .. }
            | Self::RunResumed { .. }
            | Self::RunOutOfTime { .. }
            | Self::RunCancelling { .. }
            | Self::RunEnded { .. } => None,
        }
    }
}

/// What a fact of no single run is about, and whether it stays open after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A gate.
    Gate(&'a GateKey, bool),
    /// A question.
    Question(&'a QuestionId, bool),
    /// A day of an account; the next one takes its place.
    Day(&'a AccountId),
}

/// A question's id, such as `q3-12-1`: it is named after the attempt that gave rise to it. The second about the same attempt
/// that is open at once is `q3-12-1-2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuestionId(pub String);

/// Something only a person can decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id.
    pub id: QuestionId,
    /// What it is about.
    pub about: About,
    /// What happened, in a sentence or two.
    pub text: String,
    /// The possible answers.
    pub choices: Vec<Choice>,
}

/// What a question is about, and so what waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "about")]
pub enum About {
    /// Authentication or billing of an account: every run of it waits.
    Account {
        /// Whose.
        account: AccountId,
        /// What the session failed with.
        code: Code,
    },
    /// A limit that the job wants to be asked about, or too many of them: the run waits.
    Limit {
        /// Which run.
        run: RunId,
        /// What refused.
        kind: LimitKind,
    },
    /// A budget is used up: the run waits.
    Budget {
        /// Which run.
        run: RunId,
        /// The sheet whose budget it is; `None`: the job's.
        sheet: Option<SheetNo>,
    },
    /// The budget of the day is used up: every run of that account waits, at most until the day is over.
    Day {
        /// Whose.
        account: AccountId,
    },
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The cause is mended: what failed of it is tried again.
    Retry,
    /// Wait until the limit, or the day, is over, and go on.
    Wait,
    /// As much money again, and go on.
    Continue,
    /// End the runs that wait for the answer.
    Stop,
}

impl Choice {
    /// Every answer.
    pub const ALL: &'static [Self] = &[Self::Retry, Self::Wait, Self::Continue, Self::Stop];

    /// The word that a person types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Wait => "wait",
            Self::Continue => "continue",
            Self::Stop => "stop",
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
        #[cfg(test)]
        if Mutant::VerdictOverwritten.is_on() {
            return true;
        }
        match self {
            Self::Failed { .. } | Self::Blocked { .. } | Self::Cancelled => true,
            Self::Completed | Self::Skipped { .. } => false,
        }
    }
}

/// What a gate keeps sessions away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// A usage limit.
    Usage,
    /// Throttling.
    Throttle,
    /// Too many transient faults in a row: the circuit breaker.
    Faults,
}

impl GateKind {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Throttle => "throttle",
            Self::Faults => "faults",
        }
    }
}

impl From<LimitKind> for GateKind {
    fn from(kind: LimitKind) -> Self {
        match kind {
            LimitKind::Usage => Self::Usage,
            LimitKind::Throttle => Self::Throttle,
        }
    }
}

/// One limit of one account: what starts wait behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GateKey {
    /// Whose.
    pub account: AccountId,
    /// What it keeps away from.
    pub kind: GateKind,
    /// Window or model family, where the limit names one (`seven_day_opus`).
    pub window: Option<String>,
}
