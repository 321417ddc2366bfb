//! Decides: state and event in, facts and commands out. No clock, no randomness, no I/O.
//!
//! ```text
//!  event ──> decide ──> Decision { facts, commands, refusal }       (nothing has changed yet)
//!                           │
//!                           ├─ facts: committed to the journal, then
//!                           │         apply ──> the state after them
//!                           └─ commands: carried out by the shell
//! ```
//!
//! - `apply` is the only way in which the state of runs, sheets and gates changes: live, and when a journal is
//!   loaded. So loading never decides the past again.
//! - `decide` works on a clone of the engine to which it applies each fact as it is decided: one decision
//!   carries a verdict, the end of the run and the start of the next one. Clones share what they do not change.
//! - What may follow on what is said in two places: `SheetState::next` and `Phase::next`. A fact that may
//!   not (late, repeated, of another history) changes nothing.
//! - What is not recorded stands beside: the settings, and that the conductor stops (`Engine::observe`).
//!
//! Where to look: `decide` for what each event does, `retry` for what follows on a failed attempt, `schedule` for
//! who may start and when, `skip` for who is not to be run, `status` for the words that say why something does not run.

#![deny(clippy::wildcard_enum_match_arm)]

mod bits;
mod budget;
mod chance;
mod decide;
pub mod event;
pub mod fact;
mod retry;
pub mod rules;
mod run;
mod schedule;
mod sheet;
mod sheets;
mod skip;
mod status;

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects; the rest fails it"
)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use budget::{Use, Whose, charge};
pub use event::{Command, Decision, EngineSettings, Event, Refusal};
pub use fact::{About, Choice, Fact, FactKind, GateKey, GateKind, Question, QuestionId, Verdict};
pub use run::{Counts, Run};
pub use sheet::{Attempt, Illegal, Over, Sheet, SheetState, Waiting};
pub use status::{Overview, RunStatus};

use crate::model::{AccountId, AttemptRef, Cause, Cost, Now, Outcome, RunId, Span, Timestamp};
use chance::Chance;
use event::{StartHold, Today};

/// The state of all live runs and of the gates between them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Engine {
    ledger: uuid::Uuid,
    chance: Chance,
    #[serde(serialize_with = "runs_as_list")]
    runs: BTreeMap<RunId, Arc<Run>>,
    #[serde(serialize_with = "gates_as_list")]
    gates: BTreeMap<GateKey, Gate>,
    questions: BTreeMap<QuestionId, Question>,
    /// What was said about a day's budget that was used up.
    days: BTreeMap<AccountId, budget::DayChoice>,
    at_work: budget::AllAtWork,
    overlay: Overlay,
}

/// A gate that is closed, or opens; an open one is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// No starts before this moment.
    pub until: Timestamp,
    /// `until` is a moment of the calendar, not a length of time from its closing.
    pub by_calendar: bool,
    /// Sessions that may be under way at once of those that start after that moment.
    pub places: u32,
    /// Those that are.
    pub through: BTreeSet<AttemptRef>,
}

/// What decides too, but is not recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Overlay {
    settings: EngineSettings,
    /// The conductor stops: nothing is started any more.
    stopping: bool,
    clock: Clock,
    /// What keeps this conductor from starting anything.
    holds: Vec<StartHold>,
    /// Transient faults in a row, since this conductor began.
    faults: BTreeMap<AccountId, u32>,
    /// When the starts of an account so far would be over, were they as far apart as its pace has it.
    paced: BTreeMap<AccountId, Timestamp>,
    /// The present day, and what was spent on it; `None` while nobody has told.
    today: Option<Today>,
}

/// What is known of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Clock {
    /// When the last fact was decided that was followed.
    last: Timestamp,
    /// Wall time at boot, as it was when it was looked at first; `None` before that.
    at_boot: Option<Timestamp>,
}

impl Clock {
    /// Less is the ordinary correction of a clock that runs.
    const STEP: Span = Span(1_000_000);

    /// By how far the wall clock was set since it was looked at last, where it was. How far it was set forward while
    /// nobody looked cannot be told from the time that has passed.
    fn step(self, now: Now) -> Option<Span> {
        let by = match self.at_boot {
            Some(at_boot) => at_boot_of(now).since(at_boot),
            None => now.wall.since(self.last).min(Span(0)),
        };
        (by.0.saturating_abs() >= Self::STEP.0).then_some(by)
    }

    fn look(&mut self, now: Now) {
        if self.at_boot.is_none() || self.step(now).is_some() {
            self.at_boot = Some(at_boot_of(now));
        }
    }
}

/// What the wall clock would have shown when the system started.
fn at_boot_of(now: Now) -> Timestamp {
    now.wall.plus(Span(now.boot.saturating_neg()))
}

impl Engine {
    /// An engine without runs. `ledger` is the ledger's id, from which session ids follow; `seed` feeds the jitter.
    pub fn new(settings: EngineSettings, ledger: uuid::Uuid, seed: u64) -> Self {
        Self {
            ledger,
            chance: Chance(seed),
            runs: BTreeMap::new(),
            gates: BTreeMap::new(),
            questions: BTreeMap::new(),
            days: BTreeMap::new(),
            at_work: BTreeMap::new(),
            overlay: Overlay {
                settings,
                stopping: false,
                clock: Clock {
                    last: Timestamp(0),
                    at_boot: None,
                },
                holds: Vec::new(),
                faults: BTreeMap::new(),
                paced: BTreeMap::new(),
                today: None,
            },
        }
    }

    /// Takes over what an event says that is not recorded: what the clocks show, new settings, and that the conductor
    /// stops. To be called with every event that was followed; [`Self::decide`] itself needs nothing but the event.
    pub fn observe(&mut self, now: Now, event: &Event) {
        if let Some(by) = self.overlay.clock.step(now) {
            for until in self.overlay.paced.values_mut() {
                *until = until.plus(by);
            }
        }
        self.overlay.clock.look(now);
        match event {
            Event::SettingsChanged { settings } => self.overlay.settings = settings.clone(),
            Event::ShutdownRequested { .. } => self.overlay.stopping = true,
            Event::HoldsChanged { holds } => self.overlay.holds.clone_from(holds),
            Event::DayBegan { today } => self.overlay.today = Some(today.clone()),
            Event::AttemptFinished { attempt, outcome } => self.count_fault(*attempt, outcome),
            Event::Submitted { .. }
            | Event::AttemptStarted { .. }
            | Event::NeverRan { .. }
            | Event::AttemptAnswered { .. }
            | Event::LimitSeen { .. }
            | Event::Answered { .. }
            | Event::GatesCleared { .. }
            | Event::Tick
            | Event::PauseRequested { .. }
            | Event::ResumeRequested { .. }
            | Event::RetryRequested { .. }
            | Event::ModifyRequested { .. }
            | Event::RecoverRequested { .. }
            | Event::CancelRequested { .. }
            | Event::Restored { .. } => {}
        }
    }

    /// Counts an end for the circuit breaker of its account; a late report counts nothing, nor does a sheet that was
    /// skipped before a session of it began.
    fn count_fault(&mut self, attempt: AttemptRef, outcome: &Outcome) {
        let Some(run) = self.run(attempt.run) else { return };
        let is_it = outcome.skipped.is_none() && run.running().any(|(running, _)| running == attempt);
        if let Some(account) = run.rules.account.clone().filter(|_| is_it) {
            match outcome.failure.as_ref().map(|failure| failure.cause) {
                Some(Cause::Transient) => *self.overlay.faults.entry(account).or_default() += 1,
                // It says nothing of the backend.
                Some(Cause::Interrupted) => {}
                Some(Cause::RateLimit | Cause::Validation | Cause::Fatal) | None => {
                    self.overlay.faults.remove(&account);
                }
            }
        }
    }

    /// Decides what follows from an event. Changes nothing: commit the facts, [`Self::apply`] them, then carry the
    /// commands out.
    pub fn decide(&self, now: Now, event: &Event) -> Decision {
        self.decide_all(now, std::slice::from_ref(event))
    }

    /// The same for what happened at once, in its order: none of it a wish, which might be refused. All that was decided is
    /// one decision; each event is to be observed before its facts are applied.
    pub fn decide_all(&self, now: Now, events: &[Event]) -> Decision {
        decide::decide(self, now, events)
    }

    /// Follows a fact. One that does not follow on the present state (late, repeated) changes nothing.
    pub fn apply(&mut self, fact: &Fact) {
        // Why it was refused is of use to tests only: the journal keeps every fact, and the state is right as it is.
        self.try_apply(fact).unwrap_or_default();
    }

    /// Follows a fact, or says why it cannot follow and changes nothing.
    ///
    /// # Errors
    /// [`Illegal`] where the fact does not follow on the present state.
    pub fn try_apply(&mut self, fact: &Fact) -> Result<(), Illegal> {
        self.follow(fact)?;
        self.overlay.clock.last = fact.at;
        Ok(())
    }

    fn follow(&mut self, fact: &Fact) -> Result<(), Illegal> {
        let illegal = |state| Illegal {
            state,
            fact: fact.kind.name(),
        };
        match &fact.kind {
            FactKind::RunSubmitted {
                run, job, no, rules, ..
            } => {
                if self.runs.contains_key(run) {
                    return Err(illegal("a run of that number"));
                }
                self.runs
                    .insert(*run, Arc::new(Run::new(*run, job.clone(), *no, rules.clone(), fact.at)));
                Ok(())
            }
            FactKind::GateClosed {
                gate,
                until,
                by_calendar,
                places,
            } => {
                // Opened further it is the same gate, and so is one whose time is past, moved with the clock; closed anew
                // it waits for nobody yet.
                #[cfg(test)]
                let until = if crate::probe::Mutant::GateForgets.is_on() {
                    &fact.at
                } else {
                    until
                };
                let same = self
                    .gates
                    .remove(gate)
                    .filter(|before| before.until == *until || *until <= fact.at);
                let after = Gate {
                    until: *until,
                    by_calendar: *by_calendar,
                    places: *places,
                    through: same.map(|before| before.through).unwrap_or_default(),
                };
                self.gates.insert(gate.clone(), after);
                Ok(())
            }
            FactKind::GateOpened { gate } => match self.gates.remove(gate) {
                Some(_) => Ok(()),
                None => Err(illegal("open gate")),
            },
            FactKind::QuestionAsked { question } => {
                if self.questions.contains_key(&question.id) {
                    return Err(illegal("a question of that name"));
                }
                self.questions.insert(question.id.clone(), question.clone());
                Ok(())
            }
            FactKind::DayDecided { account, ends, limit } => {
                let choice = budget::DayChoice {
                    ends: *ends,
                    limit: *limit,
                };
                self.days.insert(account.clone(), choice);
                Ok(())
            }
            FactKind::QuestionClosed { id, .. } => match self.questions.remove(id) {
                Some(_) => Ok(()),
                None => Err(illegal("no such question")),
            },
            FactKind::AttemptIntended { .. }
            | FactKind::AttemptStarted { .. }
            | FactKind::AttemptAnswered { .. }
            | FactKind::StopAsked { .. }
            | FactKind::AttemptEnded { .. }
            | FactKind::SheetWaits { .. }
            | FactKind::WaitsMoved { .. }
            | FactKind::LimitsLifted { .. }
            | FactKind::WaitsRenewed { .. }
            | FactKind::BudgetRaised { .. }
            | FactKind::SheetEnded { .. }
            | FactKind::GenerationOpened { .. }
            | FactKind::SheetRecovered { .. }
            | FactKind::RunModified { .. }
            | FactKind::RunPaused { .. }
            | FactKind::RunResumed { .. }
            | FactKind::RunOutOfTime { .. }
            | FactKind::RunCancelling { .. }
            | FactKind::RunEnded { .. } => {
                let reserved = self.reserved_for(&fact.kind);
                let run = fact.kind.run().and_then(|run| self.runs.get_mut(&run));
                let run = Arc::make_mut(run.ok_or_else(|| illegal("no such run"))?);
                run.apply(fact)?;
                let rules = Arc::clone(&run.rules);
                if let FactKind::AttemptIntended { attempt, budget, .. } = &fact.kind {
                    let gates = self.gates.iter_mut().filter(|(gate, _)| rules.is_kept_by(gate));
                    for (_, gate) in gates.filter(|(_, gate)| gate.until <= fact.at) {
                        gate.through.insert(*attempt);
                    }
                    if let Some(account) = &rules.account {
                        self.overlay.pace(account.clone(), fact.at);
                        self.reserve(account, *budget);
                    }
                }
                if let FactKind::AttemptEnded { attempt, outcome } = &fact.kind {
                    for gate in self.gates.values_mut() {
                        gate.through.remove(attempt);
                    }
                    if let Some(account) = &rules.account {
                        self.book(account, reserved, outcome, fact.at);
                    }
                }
                Ok(())
            }
        }
    }

    /// What is reserved for the attempt that the fact ends.
    fn reserved_for(&self, fact: &FactKind) -> Option<Cost> {
        let FactKind::AttemptEnded { attempt, .. } = fact else {
            return None;
        };
        let sheet = self.run(attempt.run)?.sheet(attempt.sheet)?;
        sheet.state().attempt()?.budget
    }

    /// Takes an ended run back into memory, from its facts. What is counted over all runs was counted when they were
    /// decided.
    pub fn recall(&mut self, run: RunId, facts: &[Fact]) {
        let overlay = self.overlay.clone();
        self.forget(run);
        facts.iter().for_each(|fact| self.apply(fact));
        self.overlay = overlay;
    }

    /// Drops an ended run from memory; a live one stays. Its facts bring it back.
    pub fn forget(&mut self, run: RunId) {
        if self.run(run).is_some_and(Run::has_ended) {
            self.runs.remove(&run);
        }
    }

    /// Every run in memory, by number.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().map(Arc::as_ref)
    }

    /// The run of that number, if it is in memory.
    pub fn run(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run).map(Arc::as_ref)
    }

    /// The questions that are open.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.values()
    }

    /// The gates that are closed, or open one session after the other.
    pub fn gates(&self) -> impl Iterator<Item = (&GateKey, &Gate)> {
        self.gates.iter()
    }

    /// Takes over what no fact of a live run tells, before anything is decided: what keeps this conductor from starting
    /// anything, what was spent today, and the starts of the last two minutes, in order.
    pub fn begin_with(
        &mut self,
        now: Now,
        holds: Vec<StartHold>,
        today: Today,
        mut starts: Vec<(Timestamp, AccountId)>,
    ) {
        self.overlay.holds = holds;
        self.overlay.today = Some(today);
        self.overlay.paced.clear();
        // Where the clock was set back since, a start was no later than the next one.
        starts.iter_mut().rev().fold(now.wall, |next, (at, _)| {
            *at = next.min(*at);
            *at
        });
        for (at, account) in starts {
            // What was before, nobody tells: as if the pace had been used up then.
            let since = now.wall.plus(Span(-REMEMBERED.0));
            self.overlay.paced.entry(account.clone()).or_insert(since.plus(MINUTE));
            self.overlay.pace(account, at);
        }
    }

    /// Takes over which day it is, and what was spent on it, where another event than its beginning is decided first.
    pub fn tell_day(&mut self, today: Today) {
        self.overlay.today = Some(today);
    }

    /// The day that it was told of last.
    pub fn today(&self) -> Option<&Today> {
        self.overlay.today.as_ref()
    }

    /// What keeps this conductor from starting anything.
    pub fn holds(&self) -> &[StartHold] {
        &self.overlay.holds
    }

    /// Whether the circuit breaker let the attempt through to find out whether the faults are over.
    fn is_let_through_after_faults(&self, attempt: AttemptRef) -> bool {
        let mut gates = self.gates.iter().filter(|(key, _)| key.kind == GateKind::Faults);
        gates.any(|(_, gate)| gate.through.contains(&attempt))
    }

    /// The settings that it decides by.
    pub fn settings(&self) -> &EngineSettings {
        &self.overlay.settings
    }
}

impl Overlay {
    /// What a start adds to the time that an account's starts take at its pace.
    fn interval(&self) -> Option<Span> {
        let starts = self.settings.max_starts_per_minute?;
        Some(Span(MINUTE.0 / i64::from(starts.max(1))))
    }

    /// An account has started a session.
    fn pace(&mut self, account: AccountId, at: Timestamp) {
        let Some(interval) = self.interval() else { return };
        let over = self.paced.entry(account).or_insert(at);
        // No more than a minute's worth: of starts that nobody knows the time of there may be more.
        *over = (*over).max(at).plus(interval).min(at.plus(MINUTE));
    }

    /// When the account's next start is within its pace: the bucket holds a minute's worth and begins full.
    fn paced_until(&self, account: &AccountId) -> Option<Timestamp> {
        let (interval, over) = (self.interval()?, self.paced.get(account)?);
        Some(over.plus(Span(interval.0 - MINUTE.0)))
    }
}

const MINUTE: Span = Span(60_000_000);

/// A new conductor has to be told of starts that are as long ago.
pub const REMEMBERED: Span = Span(2 * MINUTE.0);

fn runs_as_list<S: Serializer>(runs: &BTreeMap<RunId, Arc<Run>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.values().map(Arc::as_ref))
}

/// As pairs, because a gate's key is not a string.
fn gates_as_list<S: Serializer>(gates: &BTreeMap<GateKey, Gate>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(gates)
}

/// What an `Arc` holds, as if it were not there.
fn through<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}
