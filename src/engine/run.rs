//! One run: its phase, its sheets, and what is kept so that no event has to look at all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::bits::Bits;
use super::event::PauseWhy;
use super::fact::{Fact, FactKind, Verdict};
use super::rules::RunRules;
use super::sheet::{Illegal, Sheet, SheetState, Waiting};
use super::sheets::Sheets;
use crate::job::plan::{FailFast, SheetRange};
use crate::model::{
    Ask, AttemptKind, AttemptRef, Cause, Cost, JobName, LimitKind, RunId, RunNo, RunState, SheetNo, SheetStatus, Span,
    Timestamp,
};

#[cfg(test)]
use crate::probe::Mutant;

/// A run that is live, or has ended and was not forgotten yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    pub(super) id: RunId,
    pub(super) job: JobName,
    pub(super) no: RunNo,
    // In an `Arc` because every decision about the run clones it.
    #[serde(serialize_with = "super::through")]
    pub(super) rules: Arc<RunRules>,
    /// The number of the plan that those are of: the one that was submitted is 0.
    pub(super) revision: u32,
    pub(super) submitted_at: Timestamp,
    pub(super) phase: Phase,
    pub(super) sheets: Sheets,
    pub(super) counts: Counts,
    /// Pending sheets that wait for no other.
    pub(super) ready: Bits,
    /// For each dependency that is not pairwise: how many of the sheets that are waited for are not done.
    left: Vec<u32>,
    /// Sheets that run or wait.
    pub(super) active: BTreeSet<SheetNo>,
    /// The sheet that failed first since the run was submitted or resumed.
    pub(super) failed: Option<SheetNo>,
    /// The next pending sheet starts not before this moment (`pause_between_sheets`).
    pub(super) not_before: Option<Timestamp>,
    pub(super) limits: Limits,
    /// What its attempts have cost, as far as they said, and how many did.
    pub(super) spent: Cost,
    pub(super) costed: u32,
    /// What it may cost, where a person let it cost more.
    pub(super) budget: Option<Cost>,
    /// When it last started a sheet; before the first, when it was submitted or resumed.
    pub(super) served_at: Timestamp,
    /// It has started a sheet since then.
    pub(super) begun: bool,
    /// For how long it had sessions at work, since it was submitted or resumed after its end; without the present time.
    worked: Span,
    /// Since when it has sessions at work; moved with the wall clock where that is set.
    working_since: Option<Timestamp>,
    /// That was too long: nothing of it starts any more.
    pub(super) out_of_time: bool,
}

/// What people made of the run, and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Phase {
    /// It goes on as its sheets can.
    Open,
    /// No new starts.
    Paused(PauseWhy),
    /// No new starts; it ends as cancelled with its last session.
    Cancelling,
    /// Completed, failed or cancelled.
    Ended(RunState),
}

/// Limits that refused the run's sessions. Sessions that were at work already when one of them was refused add nothing:
/// it is the same wave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Limits {
    pub(super) throttles: Waves,
    pub(super) quotas: Waves,
}

/// How often one kind of limit refused, and when it did last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Waves {
    pub(super) met: u32,
    last: Option<Timestamp>,
}

impl Waves {
    fn count(&mut self, intended_at: Timestamp, at: Timestamp) {
        if self.last.is_none_or(|last| intended_at > last) {
            (self.met, self.last) = (self.met.saturating_add(1), Some(at));
        }
    }
}

impl Limits {
    pub(super) fn of(&mut self, kind: LimitKind) -> &mut Waves {
        match kind {
            LimitKind::Throttle => &mut self.throttles,
            LimitKind::Usage => &mut self.quotas,
        }
    }
}

/// How many sheets are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Not started.
    pub pending: u32,
    /// With an attempt under way.
    pub running: u32,
    /// Between attempts.
    pub waiting: u32,
    /// Completed.
    pub completed: u32,
    /// Failed.
    pub failed: u32,
    /// Skipped.
    pub skipped: u32,
    /// Cancelled.
    pub cancelled: u32,
}

impl Counts {
    fn of(&mut self, status: SheetStatus) -> &mut u32 {
        match status {
            SheetStatus::Pending => &mut self.pending,
            SheetStatus::Running => &mut self.running,
            SheetStatus::Waiting => &mut self.waiting,
            SheetStatus::Completed => &mut self.completed,
            SheetStatus::Failed => &mut self.failed,
            SheetStatus::Skipped => &mut self.skipped,
            SheetStatus::Cancelled => &mut self.cancelled,
        }
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open run",
            Self::Paused(_) => "paused run",
            Self::Cancelling => "run being cancelled",
            Self::Ended(_) => "ended run",
        }
    }

    /// Whether a fact may follow on this phase, and the phase after it: the whole of legality for runs.
    pub(super) fn next(self, fact: &FactKind) -> Result<Self, Illegal> {
        let illegal = Err(Illegal {
            state: self.name(),
            fact: fact.name(),
        });
        match fact {
            FactKind::RunPaused { why, .. } => match self {
                Self::Open => Ok(Self::Paused(*why)),
                Self::Paused(_) | Self::Cancelling | Self::Ended(_) => illegal,
            },
            FactKind::RunResumed { .. } => match self {
                Self::Paused(_) | Self::Ended(_) => Ok(Self::Open),
                Self::Open | Self::Cancelling => illegal,
            },
            FactKind::RunCancelling { .. } => match self {
                Self::Open | Self::Paused(_) => Ok(Self::Cancelling),
                Self::Cancelling | Self::Ended(_) => illegal,
            },
            FactKind::RunEnded { state, .. } => match (self, state) {
                (Self::Open | Self::Paused(_), RunState::Completed | RunState::Failed)
                | (Self::Cancelling, RunState::Cancelled) => Ok(Self::Ended(*state)),
                (Self::Open | Self::Paused(_) | Self::Cancelling | Self::Ended(_), _) => illegal,
            },
            FactKind::AttemptIntended { .. } => match self {
                Self::Open => Ok(self),
                Self::Paused(_) | Self::Cancelling | Self::Ended(_) => illegal,
            },
            FactKind::GenerationOpened { .. } | FactKind::SheetRecovered { .. } | FactKind::RunModified { .. } => {
                match self {
                    Self::Open | Self::Paused(_) => Ok(self),
                    Self::Cancelling | Self::Ended(_) => illegal,
                }
            }
            FactKind::AttemptStarted { .. }
            | FactKind::StopAsked { .. }
            | FactKind::AttemptAnswered { .. }
            | FactKind::AttemptEnded { .. }
            | FactKind::SheetWaits { .. }
            | FactKind::WaitsMoved { .. }
            | FactKind::LimitsLifted { .. }
            | FactKind::WaitsRenewed { .. }
            | FactKind::RunOutOfTime { .. }
            | FactKind::BudgetRaised { .. }
            | FactKind::SheetEnded { .. } => match self {
                Self::Open | Self::Paused(_) | Self::Cancelling => Ok(self),
                Self::Ended(_) => illegal,
            },
            FactKind::RunSubmitted { .. }
            | FactKind::GateClosed { .. }
            | FactKind::GateOpened { .. }
            | FactKind::QuestionAsked { .. }
            | FactKind::QuestionClosed { .. }
            | FactKind::DayDecided { .. } => illegal,
        }
    }
}

impl Run {
    /// A run to which only its submission has happened.
    pub(super) fn new(id: RunId, job: JobName, no: RunNo, rules: RunRules, submitted_at: Timestamp) -> Self {
        let sheets = Sheets::new(rules.sheets);
        let left = rules.dependencies.iter().map(|dependency| dependency.on.count());
        let mut ready = Bits::new(rules.sheets);
        (1..=rules.sheets).for_each(|no| ready.set(SheetNo(no), true));
        for sheet in rules.dependencies.iter().flat_map(|dependency| dependency.of.sheets()) {
            #[cfg(test)]
            if Mutant::DependencyIgnored.is_on() {
                continue;
            }
            ready.set(sheet, false);
        }
        Self {
            id,
            job,
            no,
            counts: Counts {
                pending: sheets.len(),
                ..Counts::default()
            },
            sheets,
            ready,
            left: left.collect(),
            rules: Arc::new(rules),
            revision: 0,
            submitted_at,
            phase: Phase::Open,
            active: BTreeSet::new(),
            failed: None,
            not_before: None,
            limits: Limits::default(),
            spent: Cost::default(),
            costed: 0,
            budget: None,
            served_at: submitted_at,
            begun: false,
            worked: Span(0),
            working_since: None,
            out_of_time: false,
        }
    }

    /// The ledger's number.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The job.
    pub fn job(&self) -> &JobName {
        &self.job
    }

    /// Its number within the job.
    pub fn no(&self) -> RunNo {
        self.no
    }

    /// How it goes.
    pub fn rules(&self) -> &RunRules {
        &self.rules
    }

    /// When it was submitted.
    pub fn submitted_at(&self) -> Timestamp {
        self.submitted_at
    }

    /// The number of its plan: the one that was submitted is 0.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// How many sheets are in each state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether it is over; only a resume moves it again.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// The sheet of that number.
    pub fn sheet(&self, sheet: SheetNo) -> Option<&Sheet> {
        self.sheets.get(sheet)
    }

    /// All sheets, in order.
    pub fn sheets(&self) -> impl Iterator<Item = (SheetNo, &Sheet)> {
        self.sheets.iter()
    }

    /// Attempts that are intended or under way.
    pub fn running(&self) -> impl Iterator<Item = (AttemptRef, &super::sheet::Attempt)> {
        self.active.iter().filter_map(|&no| {
            let attempt = self.sheets.get(no)?.state.attempt()?;
            Some((
                AttemptRef {
                    run: self.id,
                    sheet: no,
                    attempt: attempt.no,
                },
                attempt,
            ))
        })
    }

    /// Attempts that are over without a word on what follows.
    pub(super) fn over(&self) -> impl Iterator<Item = AttemptRef> {
        self.active.iter().filter_map(|&no| match &self.sheets.get(no)?.state {
            SheetState::Over(over) => Some(AttemptRef {
                run: self.id,
                sheet: no,
                attempt: over.attempt.no,
            }),
            SheetState::Pending | SheetState::Running(_) | SheetState::Waiting(_) | SheetState::Done(_) => None,
        })
    }

    /// `job#no`, as people are told.
    pub(super) fn label(&self) -> String {
        format!("{}#{}", self.job, self.no)
    }

    /// Whether a sheet of it runs: then it holds a slot.
    pub(super) fn is_running(&self) -> bool {
        self.counts.running > 0
    }

    /// A sheet has failed, or its time is over, and nothing of the run may start any more because of it.
    pub(super) fn is_failing(&self) -> bool {
        self.out_of_time || self.failed.is_some() && self.rules.fail_fast() != FailFast::Off
    }

    /// When it has had sessions at work for as long as `limit`, if they go on; `None` while nothing of it is at work.
    pub(super) fn out_of_time_at(&self, limit: Span) -> Option<Timestamp> {
        let over = matches!(self.phase, Phase::Cancelling | Phase::Ended(_)) || self.out_of_time;
        let since = self.working_since.filter(|_| !over)?;
        Some(since.plus(Span(limit.0.saturating_sub(self.worked.0))))
    }

    /// Whether it has had sessions at work for as long as `limit`, and something is left to do.
    pub(super) fn is_overdue(&self, limit: Span, now: Timestamp) -> bool {
        match self.out_of_time_at(limit) {
            Some(at) => at <= now,
            None => self.phase == Phase::Open && !self.out_of_time && !self.is_running() && self.worked >= limit,
        }
    }

    /// Follows a fact about this run, or changes nothing.
    pub(super) fn apply(&mut self, fact: &Fact) -> Result<(), Illegal> {
        let illegal = Illegal {
            state: self.phase.name(),
            fact: fact.kind.name(),
        };
        let phase = self.phase.next(&fact.kind)?;
        if let Some(no) = fact.kind.sheet() {
            if matches!(fact.kind, FactKind::AttemptIntended { .. }) && !self.may_run(no) {
                return Err(illegal);
            }
            return self.apply_to_sheet(no, fact, illegal);
        }
        if let FactKind::WaitsMoved { by, .. } = &fact.kind {
            self.move_waits(*by);
            return Ok(());
        }
        if let FactKind::RunModified {
            revision,
            rules,
            same_sessions,
            ..
        } = &fact.kind
        {
            if *revision != self.revision.saturating_add(1) || self.dropped(rules).any(|(_, sheet)| sheet.must_stay()) {
                return Err(illegal);
            }
            self.revision = *revision;
            self.take(rules, *same_sessions);
            #[cfg(test)]
            if Mutant::PlanReplacedAtWork.is_on() {
                for no in self.active.clone() {
                    if let Some(SheetState::Running(attempt)) = self.sheets.get_mut(no).map(|sheet| &mut sheet.state) {
                        attempt.revision = self.revision;
                    }
                }
            }
            return Ok(());
        }
        if let FactKind::BudgetRaised { sheet, limit, .. } = &fact.kind {
            match sheet {
                None => self.budget = Some(*limit),
                Some(sheet) => self.sheets.get_mut(*sheet).ok_or(illegal)?.budget = Some(*limit),
            }
            return Ok(());
        }
        if let FactKind::WaitsRenewed { kind, .. } = &fact.kind {
            *self.limits.of(*kind) = Waves::default();
            return Ok(());
        }
        if matches!(fact.kind, FactKind::RunOutOfTime { .. }) {
            self.out_of_time = true;
            return Ok(());
        }
        if matches!(fact.kind, FactKind::LimitsLifted { .. }) {
            self.change_waits(|waiting| {
                if waiting.cause == Cause::RateLimit {
                    (waiting.until, waiting.by_calendar) = (waiting.until.min(fact.at), false);
                }
            });
            return Ok(());
        }
        match (self.phase, phase) {
            (_, Phase::Ended(state)) if !self.can_end(state) => return Err(illegal),
            (Phase::Ended(_), Phase::Open) => {
                self.failed = None;
                self.not_before = None;
                self.limits = Limits::default();
                (self.served_at, self.begun) = (fact.at, false);
                (self.worked, self.out_of_time) = (Span(0), false);
            }
            (Phase::Paused(_), Phase::Open) => (self.served_at, self.begun) = (fact.at, false),
            (Phase::Open | Phase::Paused(_) | Phase::Cancelling | Phase::Ended(_), _) => {}
        }
        self.phase = phase;
        Ok(())
    }

    /// Sheets that are not in a plan with those rules.
    pub(super) fn dropped(&self, rules: &RunRules) -> impl Iterator<Item = (SheetNo, &Sheet)> {
        let last = SheetNo(rules.sheets);
        self.sheets().filter(move |(no, _)| *no > last)
    }

    /// Goes on with those rules.
    fn take(&mut self, rules: &RunRules, same_sessions: bool) {
        let dropped: Vec<_> = self.dropped(rules).map(|(no, _)| no).collect();
        for no in dropped {
            if let Some(sheet) = self.sheets.get_mut(no) {
                *self.counts.of(sheet.state.status()) -= 1;
                sheet.drop_out();
                self.active.remove(&no);
            }
        }
        self.counts.pending += rules.sheets.saturating_sub(self.sheets.len());
        self.sheets.resize(rules.sheets);
        if !same_sessions {
            self.change_waits(|waiting| {
                if waiting.resume.take().is_some() {
                    (waiting.kind, waiting.ask) = (AttemptKind::Retry, Ask::TaskAgain);
                }
            });
        }
        if rules.cost_limits != self.rules.cost_limits {
            self.budget = None;
            let raised = self.sheets().filter(|(_, sheet)| sheet.budget.is_some());
            let raised: Vec<_> = raised.map(|(no, _)| no).collect();
            for no in raised {
                if let Some(sheet) = self.sheets.get_mut(no) {
                    sheet.budget = None;
                }
            }
        }
        self.rules = Arc::new(rules.clone());
        self.find_failed();
        let satisfies = |no: SheetNo| self.sheets.get(no).is_some_and(|sheet| sheet.state.satisfies());
        let open = |on: SheetRange| on.sheets().filter(|no| !satisfies(*no)).count();
        let left = rules.dependencies.iter().map(|dependency| open(dependency.on));
        self.left = left.map(|open| u32::try_from(open).unwrap_or(u32::MAX)).collect();
        self.ready = Bits::new(rules.sheets);
        for no in (1..=rules.sheets).map(SheetNo) {
            let pending = self
                .sheets
                .get(no)
                .is_some_and(|sheet| sheet.state == SheetState::Pending);
            self.ready.set(no, pending && self.unmet(no).is_none());
        }
    }

    /// Looks which of the sheets that have failed is the first now, after one of them was opened again.
    fn find_failed(&mut self) {
        let of_sheet = |state: &SheetState| match state {
            SheetState::Done(Verdict::Failed { code, .. }) => !self.rules.is_accounts(*code),
            SheetState::Pending
            | SheetState::Running(_)
            | SheetState::Over(_)
            | SheetState::Waiting(_)
            | SheetState::Done(_) => false,
        };
        let is_failed = |no: &SheetNo| self.sheets.get(*no).is_some_and(|sheet| of_sheet(&sheet.state));
        if self.failed.is_some_and(|no| !is_failed(&no)) {
            let first = self.sheets().map(|(no, _)| no).find(is_failed);
            self.failed = first;
        }
    }

    /// Whether a sheet may be the next to run, time and slots aside.
    fn may_run(&self, no: SheetNo) -> bool {
        let waits = self.active.contains(&no) || self.ready.contains(no);
        let in_order =
            || self.rules.parallel.is_some() || self.active.first().copied().or_else(|| self.ready.first()) == Some(no);
        waits && self.counts.running < self.rules.max_concurrent() && in_order()
    }

    /// The lowest sheet that has not started.
    pub(super) fn first_pending(&self) -> Option<SheetNo> {
        let mut sheets = self.sheets();
        sheets
            .find(|(_, sheet)| sheet.state == SheetState::Pending)
            .map(|(no, _)| no)
    }

    /// A sheet that `no` waits for; `None` where it waits for none.
    pub(super) fn unmet(&self, no: SheetNo) -> Option<SheetNo> {
        let open = |sheet: &SheetNo| !self.sheets.get(*sheet).is_some_and(|sheet| sheet.state.satisfies());
        let dependencies = self.rules.dependencies.iter().zip(&self.left);
        let mut unmet = dependencies
            .filter(|(dependency, left)| dependency.pairwise || **left > 0)
            .filter_map(|(dependency, _)| dependency.needs(no)?.sheets().find(open));
        unmet.next()
    }

    /// Sheets that wait for `no`, as long as they wait for anything.
    pub(super) fn dependents(&self, no: SheetNo) -> impl Iterator<Item = SheetNo> {
        let dependencies = self.rules.dependencies.iter();
        dependencies
            .filter_map(move |dependency| dependency.dependents(no))
            .flat_map(SheetRange::sheets)
    }

    /// Whether the sheets allow that end.
    fn can_end(&self, state: RunState) -> bool {
        let Counts {
            completed,
            failed,
            skipped,
            ..
        } = self.counts;
        self.active.is_empty()
            && match state {
                RunState::Completed => completed + skipped == self.sheets.len(),
                RunState::Failed => failed > 0,
                RunState::Queued | RunState::Running | RunState::Waiting | RunState::Paused | RunState::Cancelled => {
                    true
                }
            }
    }

    fn apply_to_sheet(&mut self, no: SheetNo, fact: &Fact, illegal: Illegal) -> Result<(), Illegal> {
        let sheet = self.sheets.get_mut(no).ok_or(illegal)?;
        let spent_before = sheet.spent;
        let intended_at = sheet.state.attempt().map(|attempt| attempt.intended_at);
        let (before, was_satisfying) = (sheet.state.status(), sheet.state.satisfies());
        let was_over = matches!(sheet.state, SheetState::Over(_));
        sheet.apply(fact)?;
        if let (FactKind::AttemptIntended { .. }, SheetState::Running(attempt)) = (&fact.kind, &mut sheet.state) {
            attempt.revision = self.revision;
        }
        let (after, satisfies) = (sheet.state.status(), sheet.state.satisfies());
        let cost = Cost(sheet.spent.0.saturating_sub(spent_before.0));
        *self.counts.of(before) -= 1;
        *self.counts.of(after) += 1;
        self.keep_indices(no, after);
        if self.is_running() {
            self.working_since.get_or_insert(fact.at);
        } else if let Some(since) = self.working_since.take() {
            self.worked.0 = self.worked.0.saturating_add(fact.at.since(since).0.max(0));
        }
        if satisfies != was_satisfying {
            self.tell_dependents(no, satisfies);
        }
        match &fact.kind {
            FactKind::AttemptEnded { outcome, .. } => {
                self.spent = Cost(self.spent.0.saturating_add(cost.0));
                self.costed = self.costed.saturating_add(u32::from(cost.0 > 0));
                let failure = outcome
                    .failure
                    .as_ref()
                    .filter(|failure| failure.cause == Cause::RateLimit);
                if let (Some(kind), Some(intended_at)) = (failure.map(super::retry::limit_kind), intended_at) {
                    self.limits.of(kind).count(intended_at, fact.at);
                }
            }
            FactKind::SheetEnded { verdict, .. } => {
                if let Verdict::Failed { code, .. } = verdict
                    && self.failed.is_none()
                    && !self.rules.is_accounts(*code)
                {
                    self.failed = Some(no);
                }
                // A sheet that was never run (skipped, taken over) asks for no pause.
                let ran = was_over && !matches!(verdict, Verdict::Skipped { .. });
                if ran && self.rules.parallel.is_none() && self.rules.pause_between_sheets.0 > 0 {
                    self.not_before = Some(fact.at.plus(self.rules.pause_between_sheets));
                }
            }
            FactKind::AttemptIntended { .. } => {
                self.not_before = None;
                (self.served_at, self.begun) = (fact.at, true);
            }
            FactKind::GenerationOpened { .. } | FactKind::SheetRecovered { .. } => self.find_failed(),
            FactKind::AttemptStarted { .. }
            | FactKind::StopAsked { .. }
            | FactKind::AttemptAnswered { .. }
            | FactKind::SheetWaits { .. }
            | FactKind::WaitsMoved { .. }
            | FactKind::LimitsLifted { .. }
            | FactKind::WaitsRenewed { .. }
            | FactKind::BudgetRaised { .. }
            | FactKind::RunModified { .. }
            | FactKind::RunSubmitted { .. }
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
        Ok(())
    }

    /// What waits for a length of time and not for a moment of the calendar.
    pub(super) fn has_waits_to_move(&self) -> bool {
        let moves = |no: &SheetNo| match self.sheets.get(*no).map(|sheet| &sheet.state) {
            Some(SheetState::Waiting(waiting)) => !waiting.by_calendar,
            Some(SheetState::Pending | SheetState::Running(_) | SheetState::Over(_) | SheetState::Done(_)) | None => {
                false
            }
        };
        self.not_before.is_some() || self.working_since.is_some() || self.active.iter().any(moves)
    }

    fn move_waits(&mut self, by: Span) {
        self.not_before = self.not_before.map(|until| until.plus(by));
        self.working_since = self.working_since.map(|since| since.plus(by));
        self.change_waits(|waiting| {
            if !waiting.by_calendar {
                waiting.until = waiting.until.plus(by);
            }
        });
    }

    fn change_waits(&mut self, change: impl Fn(&mut Waiting)) {
        for &no in &self.active {
            if let Some(Sheet {
                state: SheetState::Waiting(waiting),
                ..
            }) = self.sheets.get_mut(no)
            {
                change(waiting);
            }
        }
    }

    /// Whether a sheet of it waits for a limit to be over.
    pub(super) fn waits_for_a_limit(&self) -> bool {
        let mut active = self.active.iter().filter_map(|no| self.sheets.get(*no));
        active.any(|sheet| matches!(&sheet.state, SheetState::Waiting(waiting) if waiting.cause == Cause::RateLimit))
    }

    fn keep_indices(&mut self, no: SheetNo, status: SheetStatus) {
        match status {
            SheetStatus::Running | SheetStatus::Waiting => {
                self.active.insert(no);
            }
            SheetStatus::Pending
            | SheetStatus::Completed
            | SheetStatus::Failed
            | SheetStatus::Skipped
            | SheetStatus::Cancelled => {
                self.active.remove(&no);
            }
        }
        let ready = status == SheetStatus::Pending && self.unmet(no).is_none();
        self.ready.set(no, ready);
    }

    /// The sheet is done, or open again: who waits for it may start, or may not.
    fn tell_dependents(&mut self, no: SheetNo, done: bool) {
        let rules = Arc::clone(&self.rules);
        let mut waiting = Vec::new();
        for (dependency, left) in rules.dependencies.iter().zip(&mut self.left) {
            let Some(dependents) = dependency.dependents(no) else {
                continue;
            };
            let was_left = *left;
            *left = if done { was_left.saturating_sub(1) } else { was_left + 1 };
            // Of one that waits for many only the last and the first make a difference.
            if dependency.pairwise || *left == 0 || was_left == 0 {
                waiting.push(dependents);
            }
        }
        for sheet in waiting.into_iter().flat_map(SheetRange::sheets) {
            let pending = self
                .sheets
                .get(sheet)
                .is_some_and(|sheet| sheet.state == SheetState::Pending);
            let ready = done && pending && self.unmet(sheet).is_none();
            self.ready.set(sheet, ready);
        }
    }
}
