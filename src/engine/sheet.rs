//! One sheet: its state, what it has used of its budgets, and the one function that says which fact may follow
//! on which state.

use serde::Serialize;

use super::budget::{charge, is_capped};
use super::event::{SessionChoice, Start};
use super::fact::{Fact, FactKind, Verdict};
use crate::model::{
    Ask, AttemptKind, AttemptNo, AttemptRef, Cause, Code, Cost, Generation, Outcome, SheetNo, SheetStatus, Timestamp,
};

#[cfg(test)]
use crate::probe::Mutant;

/// A sheet within its run. Small: a run may have 100,000 of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sheet {
    pub(super) state: SheetState,
    pub(super) generation: Generation,
    /// The highest number given to an attempt so far, all generations.
    pub(super) attempts: u32,
    pub(super) used: Used,
    /// What its attempts have cost, all generations, as far as they said.
    pub(super) spent: Cost,
    /// What it may cost, where a person let it cost more.
    pub(super) budget: Option<Cost>,
    /// The most that was too little for a session of it.
    pub(super) capped: Option<Cost>,
    /// How its last attempt ended.
    pub(super) ended: Ended,
    /// A session of its present generation has run.
    pub(super) begun: bool,
}

/// What later sheets may ask of an attempt that is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Ended {
    /// Exit status, where it exited.
    pub(super) exit_code: Option<i32>,
    /// Rules that passed.
    pub(super) passed: u32,
    /// Rules that were asked; 0: none were.
    pub(super) rules: u32,
}

impl Default for Sheet {
    fn default() -> Self {
        Self {
            state: SheetState::Pending,
            generation: Generation(1),
            attempts: 0,
            used: Used::default(),
            spent: Cost::default(),
            budget: None,
            capped: None,
            ended: Ended::default(),
            begun: false,
        }
    }
}

/// What a sheet has used of each cause's budget in its present generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Used {
    /// Full retries after a failed validation.
    pub(super) retries: u32,
    /// Completion attempts.
    pub(super) completions: u32,
    /// Attempts after transient faults.
    pub(super) transients: u32,
    /// Of those, not counted there: faults that it met where the circuit breaker had it find out for its whole account.
    pub(super) probes: u32,
    /// Attempts after interruptions.
    pub(super) interruptions: u32,
    /// Refusals by a limit in a row: makes the waits for a limit without a known end grow.
    pub(super) limits_in_a_row: u32,
}

/// Where a sheet stands. Each state carries what only it has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum SheetState {
    /// Not started in this generation.
    Pending,
    /// An attempt is intended or under way.
    Running(Box<Attempt>),
    /// The attempt is over and what follows is not said yet; within one decision only.
    Over(Box<Over>),
    /// Between two attempts.
    Waiting(Box<Waiting>),
    /// Has its verdict.
    Done(Verdict),
}

/// An attempt that is intended or under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Its number within the sheet.
    pub no: AttemptNo,
    /// Why it is made.
    pub kind: AttemptKind,
    /// What its session is told.
    pub ask: Ask,
    /// Which session it is.
    pub session: SessionChoice,
    /// When its intent was decided.
    pub intended_at: Timestamp,
    /// When its process started; `None` while nothing but the intent is known.
    pub started_at: Option<Timestamp>,
    /// What it may cost at most.
    pub budget: Option<Cost>,
    /// Its end was asked for.
    pub stop_asked: bool,
    /// The API answered it, and a gate was opened further for that.
    pub answered: bool,
    /// The number of the plan within the run that it was started with.
    pub revision: u32,
}

impl Attempt {
    /// What the runner is to be given.
    pub(super) fn start(&self, attempt: AttemptRef) -> Start {
        Start {
            attempt,
            kind: self.kind,
            ask: self.ask,
            session: self.session.clone(),
            budget: self.budget,
            revision: self.revision,
        }
    }
}

/// An attempt that is over, with its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Over {
    /// The attempt.
    pub attempt: Attempt,
    /// What became of it.
    pub outcome: Outcome,
}

/// A wait, and what comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Not before this moment.
    pub until: Timestamp,
    /// Why.
    pub cause: Cause,
    /// The code behind it.
    pub code: Code,
    /// Kind of the next attempt.
    pub kind: AttemptKind,
    /// What it will be told.
    pub ask: Ask,
    /// The session that it resumes.
    pub resume: Option<String>,
    /// `until` is a moment of the calendar, not a length of time.
    pub by_calendar: bool,
}

/// A fact that cannot follow on the present state: late, repeated, or of another history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{fact}` does not follow on {state}")]
pub struct Illegal {
    /// The state, in a word or two.
    pub state: &'static str,
    /// The fact's name.
    pub fact: &'static str,
}

impl SheetState {
    /// Whether those who wait for the sheet may start.
    pub(super) fn satisfies(&self) -> bool {
        match self {
            Self::Done(verdict) => verdict.satisfies(),
            Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) => false,
        }
    }

    /// What every view calls this state.
    pub fn status(&self) -> SheetStatus {
        match self {
            Self::Pending => SheetStatus::Pending,
            Self::Running(_) | Self::Over(_) => SheetStatus::Running,
            Self::Waiting(_) => SheetStatus::Waiting,
            Self::Done(Verdict::Completed) => SheetStatus::Completed,
            Self::Done(Verdict::Failed { .. }) => SheetStatus::Failed,
            Self::Done(Verdict::Skipped { .. } | Verdict::Blocked { .. }) => SheetStatus::Skipped,
            Self::Done(Verdict::Cancelled) => SheetStatus::Cancelled,
        }
    }

    /// A word for errors and tables.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Over(_) => "over",
            Self::Pending | Self::Running(_) | Self::Waiting(_) | Self::Done(_) => self.status().as_str(),
        }
    }

    /// The running attempt.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Running(attempt) => Some(attempt),
            Self::Pending | Self::Over(_) | Self::Waiting(_) | Self::Done(_) => None,
        }
    }

    /// Whether a fact may follow on this state, and the state after it: the whole of legality for a sheet's
    /// state is here.
    ///
    /// # Errors
    /// [`Illegal`] where it may not; then nothing is to be changed.
    pub(super) fn next(&self, fact: &Fact) -> Result<Self, Illegal> {
        let illegal = Err(Illegal {
            state: self.name(),
            fact: fact.kind.name(),
        });
        match &fact.kind {
            FactKind::AttemptIntended {
                attempt,
                kind,
                ask,
                session,
                budget,
                ..
            } => match self {
                Self::Pending | Self::Waiting(_) => Ok(Self::Running(Box::new(Attempt {
                    no: attempt.attempt,
                    kind: *kind,
                    ask: *ask,
                    session: session.clone(),
                    intended_at: fact.at,
                    started_at: None,
                    budget: *budget,
                    stop_asked: false,
                    answered: false,
                    revision: 0,
                }))),
                Self::Running(_) | Self::Over(_) | Self::Done(_) => illegal,
            },
            FactKind::AttemptStarted {
                attempt, started_at, ..
            } => match self {
                Self::Running(running) if running.no == attempt.attempt && running.started_at.is_none() => {
                    let mut running = running.clone();
                    running.started_at = Some(*started_at);
                    Ok(Self::Running(running))
                }
                Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) | Self::Done(_) => illegal,
            },
            FactKind::StopAsked { attempt } => match self {
                Self::Running(running) if running.no == attempt.attempt && !running.stop_asked => {
                    let mut running = running.clone();
                    running.stop_asked = true;
                    Ok(Self::Running(running))
                }
                Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) | Self::Done(_) => illegal,
            },
            FactKind::AttemptAnswered { attempt } => match self {
                Self::Running(running) if running.no == attempt.attempt && !running.answered => {
                    let mut running = running.clone();
                    running.answered = true;
                    Ok(Self::Running(running))
                }
                Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) | Self::Done(_) => illegal,
            },
            FactKind::AttemptEnded { attempt, outcome } => match self {
                Self::Running(running) if running.no == attempt.attempt => Ok(Self::Over(Box::new(Over {
                    attempt: Attempt::clone(running),
                    outcome: outcome.clone(),
                }))),
                Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) | Self::Done(_) => illegal,
            },
            FactKind::SheetWaits {
                until,
                cause,
                code,
                kind,
                ask,
                resume,
                by_calendar,
                ..
            } => match self {
                Self::Over(_) => Ok(Self::Waiting(Box::new(Waiting {
                    until: *until,
                    cause: *cause,
                    code: *code,
                    kind: *kind,
                    ask: *ask,
                    resume: resume.clone(),
                    by_calendar: *by_calendar,
                }))),
                Self::Pending | Self::Running(_) | Self::Waiting(_) | Self::Done(_) => illegal,
            },
            FactKind::SheetEnded { verdict, .. } => match (self, verdict) {
                // Taken over from a checkpoint, or not to be run.
                (
                    Self::Pending,
                    Verdict::Completed | Verdict::Skipped { .. } | Verdict::Blocked { .. } | Verdict::Cancelled,
                )
                // It cannot be told whether it is to be run.
                | (Self::Pending, Verdict::Failed { code: Code::E301, .. })
                // The run's time is over.
                | (Self::Pending | Self::Waiting(_), Verdict::Failed { code: Code::E803, .. })
                | (Self::Waiting(_), Verdict::Cancelled)
                | (
                    Self::Over(_),
                    Verdict::Completed | Verdict::Failed { .. } | Verdict::Skipped { .. } | Verdict::Cancelled,
                ) => {
                    Ok(Self::Done(verdict.clone()))
                }
                (
                    Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) | Self::Done(_),
                    Verdict::Completed
                    | Verdict::Failed { .. }
                    | Verdict::Skipped { .. }
                    | Verdict::Blocked { .. }
                    | Verdict::Cancelled,
                ) => illegal,
            },
            FactKind::GenerationOpened { .. } => match self {
                Self::Done(_) => Ok(Self::Pending),
                Self::Pending | Self::Running(_) | Self::Over(_) | Self::Waiting(_) => illegal,
            },
            FactKind::SheetRecovered { .. } => match self {
                Self::Pending
                | Self::Waiting(_)
                | Self::Done(Verdict::Failed { .. } | Verdict::Blocked { .. } | Verdict::Cancelled) => {
                    Ok(Self::Done(Verdict::Completed))
                }
                Self::Running(_) | Self::Over(_) | Self::Done(Verdict::Completed | Verdict::Skipped { .. }) => illegal,
            },
            FactKind::RunModified { .. }
            | FactKind::RunSubmitted { .. }
            | FactKind::WaitsMoved { .. }
            | FactKind::LimitsLifted { .. }
            | FactKind::WaitsRenewed { .. }
            | FactKind::BudgetRaised { .. }
            | FactKind::GateClosed { .. }
            | FactKind::GateOpened { .. }
            | FactKind::QuestionAsked { .. }
            | FactKind::QuestionClosed { .. }
            | FactKind::DayDecided { .. }
            | FactKind::RunPaused { .. }
            | FactKind::RunResumed { .. }
            | FactKind::RunOutOfTime { .. }
            | FactKind::RunCancelling { .. }
            | FactKind::RunEnded { .. } => illegal,
        }
    }
}

impl Sheet {
    /// Its state.
    pub fn state(&self) -> &SheetState {
        &self.state
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a session of its present generation has run: then nothing asks any more whether it is needed.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Attempts so far, all generations.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether a plan without it cannot be taken: it is completed, or a session is at work on it.
    pub(super) fn must_stay(&self) -> bool {
        matches!(
            self.state,
            SheetState::Running(_) | SheetState::Over(_) | SheetState::Done(Verdict::Completed)
        )
    }

    /// The sheet is no longer in the plan: what is left of it is what it has used, should the number come back.
    pub(super) fn drop_out(&mut self) {
        if self.state == SheetState::Pending {
            return;
        }
        *self = Self {
            generation: self.generation.next(),
            attempts: self.attempts,
            spent: self.spent,
            ..Self::default()
        };
    }

    /// Follows a fact about this sheet, or changes nothing.
    pub(super) fn apply(&mut self, fact: &Fact) -> Result<(), Illegal> {
        let illegal = || Illegal {
            state: self.state.name(),
            fact: fact.kind.name(),
        };
        let state = self.state.next(fact)?;
        match &fact.kind {
            FactKind::AttemptIntended {
                attempt, generation, ..
            } => {
                if attempt.attempt.0 <= self.attempts || *generation != self.generation {
                    return Err(illegal());
                }
                self.attempts = attempt.attempt.0;
            }
            FactKind::AttemptEnded { outcome, .. } => {
                let budget = self.state.attempt().and_then(|attempt| attempt.budget);
                self.spent = Cost(self.spent.0.saturating_add(charge(outcome, budget).0));
                if is_capped(outcome) {
                    self.capped = self.capped.max(budget);
                }
                self.begun |= outcome.worked;
                self.ended = Ended {
                    exit_code: outcome.exit_code,
                    passed: outcome.rules_passed,
                    rules: outcome.rules_total,
                };
                let limited = outcome
                    .failure
                    .as_ref()
                    .is_some_and(|failure| failure.cause == Cause::RateLimit);
                self.used.limits_in_a_row = if limited {
                    self.used.limits_in_a_row.saturating_add(1)
                } else {
                    0
                };
            }
            FactKind::SheetWaits { cause, kind, code, .. } => match cause {
                Cause::Validation if *kind == AttemptKind::Completion => self.used.completions += 1,
                #[cfg(test)]
                Cause::Validation if Mutant::BudgetsMixed.is_on() => self.used.transients += 1,
                Cause::Validation => self.used.retries += 1,
                Cause::Transient if *kind == AttemptKind::Probe => self.used.probes += 1,
                Cause::Transient => self.used.transients += 1,
                Cause::Interrupted => self.used.interruptions += 1,
                // Counted per run, where the attempt ended.
                Cause::RateLimit => {}
                // Money is asked for, or there is some left.
                Cause::Fatal if *code == Code::E701 => {}
                Cause::Fatal => return Err(illegal()),
            },
            FactKind::GenerationOpened { generation, .. } | FactKind::SheetRecovered { generation, .. } => {
                if generation.0 != self.generation.0.saturating_add(1) {
                    return Err(illegal());
                }
                self.generation = *generation;
                self.used = Used::default();
                self.begun = false;
                // All its rules hold now.
                if matches!(fact.kind, FactKind::SheetRecovered { .. }) {
                    self.ended.passed = self.ended.rules;
                }
            }
            FactKind::AttemptStarted { .. } => self.begun = true,
            FactKind::StopAsked { .. }
            | FactKind::AttemptAnswered { .. }
            | FactKind::SheetEnded { .. }
            | FactKind::RunModified { .. }
            | FactKind::RunSubmitted { .. }
            | FactKind::WaitsMoved { .. }
            | FactKind::LimitsLifted { .. }
            | FactKind::WaitsRenewed { .. }
            | FactKind::BudgetRaised { .. }
            | FactKind::GateClosed { .. }
            | FactKind::GateOpened { .. }
            | FactKind::QuestionAsked { .. }
            | FactKind::QuestionClosed { .. }
            | FactKind::DayDecided { .. }
            | FactKind::RunPaused { .. }
            | FactKind::RunResumed { .. }
            | FactKind::RunOutOfTime { .. }
            | FactKind::RunCancelling { .. }
            | FactKind::RunEnded { .. } => {}
        }
        self.state = state;
        Ok(())
    }
}

/// The number of the next attempt of a sheet.
pub(super) fn next_attempt(run: crate::model::RunId, no: SheetNo, sheet: &Sheet) -> AttemptRef {
    AttemptRef {
        run,
        sheet: no,
        attempt: AttemptNo(sheet.attempts.saturating_add(1)),
    }
}
