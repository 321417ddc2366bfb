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
//! who may start and when, `status` for the words that say why something does not run.

#![deny(clippy::wildcard_enum_match_arm)]

mod bits;
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
mod status;

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects; the rest fails it"
)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use event::{Command, Decision, EngineSettings, Event, Refusal};
pub use fact::{Fact, FactKind, GateKey, Verdict};
pub use run::{Counts, Run};
pub use sheet::{Attempt, Illegal, Over, Sheet, SheetState, Waiting};
pub use status::{Overview, RunStatus};

use crate::model::{Now, RunId, Span, Timestamp};
use chance::Chance;

/// The state of all live runs and of the gates between them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Engine {
    ledger: uuid::Uuid,
    chance: Chance,
    #[serde(serialize_with = "runs_as_list")]
    runs: BTreeMap<RunId, Arc<Run>>,
    #[serde(serialize_with = "gates_as_list")]
    gates: BTreeMap<GateKey, Gate>,
    overlay: Overlay,
}

/// A closed gate; an open one is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// No starts before this moment.
    pub until: Timestamp,
    /// `until` is a moment of the calendar, not a length of time from its closing.
    pub by_calendar: bool,
}

/// What decides too, but is not recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Overlay {
    settings: EngineSettings,
    /// The conductor stops: nothing is started any more.
    stopping: bool,
    clock: Clock,
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
            overlay: Overlay {
                settings,
                stopping: false,
                clock: Clock {
                    last: Timestamp(0),
                    at_boot: None,
                },
            },
        }
    }

    /// Takes over what an event says that is not recorded: what the clocks show, new settings, and that the conductor
    /// stops. To be called with every event that was followed; [`Self::decide`] itself needs nothing but the event.
    pub fn observe(&mut self, now: Now, event: &Event) {
        self.overlay.clock.look(now);
        match event {
            Event::SettingsChanged { settings } => self.overlay.settings = settings.clone(),
            Event::ShutdownRequested { .. } => self.overlay.stopping = true,
            Event::Submitted { .. }
            | Event::AttemptStarted { .. }
            | Event::NeverRan { .. }
            | Event::AttemptFinished { .. }
            | Event::Tick
            | Event::PauseRequested { .. }
            | Event::ResumeRequested { .. }
            | Event::CancelRequested { .. }
            | Event::Restored { .. } => {}
        }
    }

    /// Decides what follows from an event. Changes nothing: commit the facts, [`Self::apply`] them, then carry the
    /// commands out.
    pub fn decide(&self, now: Now, event: &Event) -> Decision {
        decide::decide(self, now, event)
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
            } => {
                let (until, by_calendar) = (*until, *by_calendar);
                self.gates.insert(gate.clone(), Gate { until, by_calendar });
                Ok(())
            }
            FactKind::GateOpened { gate } => match self.gates.remove(gate) {
                Some(_) => Ok(()),
                None => Err(illegal("open gate")),
            },
            FactKind::AttemptIntended { .. }
            | FactKind::AttemptStarted { .. }
            | FactKind::StopAsked { .. }
            | FactKind::AttemptEnded { .. }
            | FactKind::SheetWaits { .. }
            | FactKind::WaitsMoved { .. }
            | FactKind::SheetEnded { .. }
            | FactKind::GenerationOpened { .. }
            | FactKind::RunPaused { .. }
            | FactKind::RunResumed { .. }
            | FactKind::RunCancelling { .. }
            | FactKind::RunEnded { .. } => {
                let run = fact.kind.run().and_then(|run| self.runs.get_mut(&run));
                Arc::make_mut(run.ok_or_else(|| illegal("no such run"))?).apply(fact)
            }
        }
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

    /// The gates that are closed.
    pub fn gates(&self) -> impl Iterator<Item = (&GateKey, Gate)> {
        self.gates.iter().map(|(key, gate)| (key, *gate))
    }

    /// The settings that it decides by.
    pub fn settings(&self) -> &EngineSettings {
        &self.overlay.settings
    }
}

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
