//! Who may start, and when: slots, places, gates, waits, the pause between sheets. The same answer decides starts,
//! wake-ups and the words of `status`.
//!
//! Who goes first: the higher priority, which grows by one for each [`AGEING`] in which a run that is held back by
//! others starts nothing; then the run with fewer sheets at work; then the one that has begun; then the one
//! that was served longest ago. So of two runs of one priority the one with less at work gets the next free place, however
//! many sheets the other has left, and nothing is held back for longer than `11 - priority` times [`AGEING`] and the
//! longest session then at work.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::budget::Budget;
use super::event::StartHold;
use super::fact::{About, GateKey, Question};
use super::run::{Phase, Run};
use super::sheet::{SheetState, Waiting};
use super::{Engine, Gate};
use crate::model::{AccountId, Code, Now, RunId, SheetNo, Span, Timestamp};

/// A run that starts nothing for that long counts as one priority higher, and so on.
pub(super) const AGEING: Span = Span(600_000_000);

/// Above every priority that a person can give.
const OLDEST: i64 = 11;

/// What could be started next of a run.
#[derive(Debug, PartialEq)]
pub(super) enum Next<'a> {
    /// This sheet, as soon as there is room for it.
    Ready(SheetNo),
    /// One, but not before that moment, or nobody knows when.
    Held { until: Option<Timestamp>, why: Hold<'a> },
    /// Nothing: all that may run does, or nothing but a person moves it.
    Nothing,
}

/// What holds a sheet back.
#[derive(Debug, PartialEq)]
pub(super) enum Hold<'a> {
    /// A limit of the account.
    Gate(&'a GateKey),
    /// The sessions at work find out whether that limit is over.
    Probe(&'a GateKey),
    /// Only a person moves it.
    Question(&'a Question),
    /// Sessions at work have reserved what is left of the job's budget (E702) or the day's (E703).
    Reserved(Code),
    /// The day's budget is used up, and a person said that the account waits for the next one.
    Tomorrow,
    /// A budget is used up, of the sheet (E701), the job (E702) or the day (E703), and a person is to be asked.
    Money(SheetNo, Code),
    /// The account has started as many sessions as its pace has it.
    Pace,
    /// This conductor starts nothing.
    Conductor(&'a str),
    /// The sheet's own wait.
    Wait(&'a Waiting),
    /// `pause_between_sheets`.
    Between,
}

/// What there is too little of for a sheet that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// `max_concurrent_jobs`, with how many runs are at work.
    Jobs(u32),
    /// `max_concurrent_sheets`, with how many places are taken.
    Places(u32),
    /// `max_sessions_per_account`, with how many are at work.
    Sessions(u32),
    /// Nothing: another run's turn comes first.
    Turn,
}

/// What is taken.
#[derive(Debug, Default)]
pub(super) struct Load<'a> {
    /// Runs with a sheet at work.
    pub(super) jobs: u32,
    /// Places of sheets.
    places: u32,
    sessions: BTreeMap<&'a AccountId, u32>,
}

impl Engine {
    /// The earliest moment at which a [`Tick`](super::Event::Tick) would do something; `None`: no timer is needed.
    pub fn next_wakeup(&self, now: Now) -> Option<Timestamp> {
        if self.overlay.stopping {
            return None;
        }
        let limit = self.overlay.settings.job_timeout;
        self.runs()
            .flat_map(|run| [self.next_move(run, now.wall), run.out_of_time_at(limit)])
            .flatten()
            .min()
    }

    /// When the first of the run's waits is over.
    fn next_move(&self, run: &Run, now: Timestamp) -> Option<Timestamp> {
        let until = match self.next_of(run, now) {
            Next::Nothing => return None,
            Next::Held {
                until,
                why: Hold::Question(_),
            } => return until,
            Next::Held { until, .. } => until,
            Next::Ready(_) => None,
        };
        until.into_iter().chain(self.asks_at(run, now)).min()
    }

    /// When it is the turn of a sheet that waits, and whose own budget is used up: a person is asked then, whatever those
    /// wait for that it goes before, unless something keeps it longer.
    fn asks_at(&self, run: &Run, now: Timestamp) -> Option<Timestamp> {
        let limits = run.rules.cost_limits.filter(|_| !run.is_running());
        limits.and_then(|limits| limits.per_sheet)?;
        let poor = |no: &SheetNo| self.budget_of(run, *no, now) == Budget::UsedUp(Code::E701);
        let ends = run.waits().filter(|(no, wait)| wait.until > now && poor(no));
        let is_asked = |at: &Timestamp| {
            matches!(
                self.next_of(run, *at),
                Next::Held {
                    why: Hold::Money(..),
                    ..
                }
            )
        };
        ends.map(|(_, wait)| wait.until).filter(is_asked).min()
    }

    /// Whether something would start, were it not for what keeps this conductor.
    pub fn is_held(&self, now: Now) -> bool {
        let conductor = |run| {
            matches!(
                self.next_of(run, now.wall),
                Next::Held {
                    why: Hold::Conductor(_),
                    ..
                }
            )
        };
        !self.overlay.holds.is_empty() && self.runs().any(conductor)
    }

    /// When a hold lets the next start through, where that is known.
    fn lets_go(&self, hold: &StartHold) -> Option<Timestamp> {
        match hold.one_at.filter(|_| !self.runs().any(Run::is_running)) {
            Some(one_at) => Some(hold.until.map_or(one_at, |until| until.min(one_at))),
            None => hold.until,
        }
    }

    /// What could be started next of `run` at `now`.
    pub(super) fn next_of<'a>(&'a self, run: &'a Run, now: Timestamp) -> Next<'a> {
        if run.phase != Phase::Open || run.counts.running >= run.rules.max_concurrent() || run.is_failing() {
            return Next::Nothing;
        }
        // Also where every sheet that is left waits for those that it is about.
        if let Some(question) = self.question_of(run) {
            return Next::Held {
                until: self.ends_by_itself(question, now),
                why: Hold::Question(question),
            };
        }
        let Some((sheet, own)) = run.next_sheet(now) else {
            return Next::Nothing;
        };
        let own = own.map(|(until, why)| (Some(until), why));
        let money = match self.budget_of(run, sheet, now) {
            Budget::None | Budget::Most(_) => None,
            Budget::Reserved(code) => Some((None, Hold::Reserved(code))),
            Budget::UsedUp(Code::E703) => match self.waits_for_tomorrow(run.rules.account.as_ref(), now) {
                Some(midnight) => Some((Some(midnight), Hold::Tomorrow)),
                None => Some((self.midnight(now), Hold::Money(sheet, Code::E703))),
            },
            Budget::UsedUp(code) => Some((None, Hold::Money(sheet, code))),
        };
        let holds = self
            .overlay
            .holds
            .iter()
            .map(|hold| (self.lets_go(hold), Hold::Conductor(&hold.why)));
        let pace = run
            .rules
            .account
            .as_ref()
            .and_then(|account| self.overlay.paced_until(account));
        let pace = pace.map(|until| (Some(until), Hold::Pace));
        let gates = self.gates_of(run).filter_map(|(key, gate)| {
            if gate.until > now {
                Some((Some(gate.until), Hold::Gate(key)))
            } else {
                let through = u32::try_from(gate.through.len()).unwrap_or(u32::MAX);
                (through >= gate.places).then_some((None, Hold::Probe(key)))
            }
        });
        // Of two that end together the one is named that holds more: its own wait comes first here, and the last counts.
        let holding = own.into_iter().chain(money).chain(pace).chain(gates).chain(holds);
        let longest = holding
            .filter(|(until, _)| until.is_none_or(|until| until > now))
            .max_by_key(|(until, _)| until.unwrap_or(Timestamp(i64::MAX)));
        match longest {
            Some((until, why)) => Next::Held { until, why },
            None => Next::Ready(sheet),
        }
    }

    /// When a question needs no answer any more.
    fn ends_by_itself(&self, question: &Question, now: Timestamp) -> Option<Timestamp> {
        match question.about {
            About::Day { .. } => self.midnight(now),
            About::Account { .. } | About::Limit { .. } | About::Budget { .. } => None,
        }
    }

    /// The gates that are for a run's sessions.
    pub(super) fn gates_of<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = (&'a GateKey, &'a Gate)> {
        self.gates.iter().filter(|(key, _)| run.rules.is_kept_by(key))
    }

    /// The open question that a run waits for.
    pub(super) fn question_of(&self, run: &Run) -> Option<&Question> {
        self.questions.values().find(|question| question.about.holds(run))
    }

    /// Runs that have something left that waits for the answer to a question about that.
    pub(super) fn waiting_for<'a>(&'a self, about: &'a About) -> impl Iterator<Item = &'a Run> {
        let has_more = |run: &Run| !run.has_ended() && run.counts.pending + run.counts.waiting > 0;
        self.runs().filter(move |run| about.holds(run) && has_more(run))
    }

    /// What is taken now.
    pub(super) fn load(&self) -> Load<'_> {
        let mut load = Load::default();
        for run in self.runs().filter(|run| run.is_running()) {
            load.jobs += 1;
            load.places = load.places.saturating_add(run.places());
            if let Some(account) = &run.rules.account {
                *load.sessions.entry(account).or_default() += run.counts.running;
            }
        }
        load
    }

    /// What a sheet that is ready lacks; `None`: it may start.
    pub(super) fn short(&self, run: &Run, sheet: SheetNo, load: &Load<'_>) -> Option<Short> {
        let settings = &self.overlay.settings;
        let sessions = run
            .rules
            .account
            .as_ref()
            .and_then(|account| load.sessions.get(account));
        let sessions = sessions.copied().unwrap_or(0);
        let full = settings.max_sessions_per_account.is_some_and(|most| sessions >= most);
        // A sheet that is heavier than all places together still has its turn, alone.
        let weight = run.rules.weight(sheet).min(settings.max_concurrent_sheets);
        if full && run.rules.account.is_some() {
            Some(Short::Sessions(sessions))
        } else if load.places.saturating_add(weight) > settings.max_concurrent_sheets {
            Some(Short::Places(load.places))
        } else if !run.is_running() && load.jobs >= settings.max_concurrent_jobs {
            Some(Short::Jobs(load.jobs))
        } else {
            None
        }
    }

    /// The sheet that is started next at `now`; `None` where nothing may.
    pub(super) fn next_start(&self, now: Timestamp) -> Option<(RunId, SheetNo)> {
        let load = self.load();
        if load.places >= self.overlay.settings.max_concurrent_sheets {
            return None;
        }
        let mut ready: Vec<_> = self
            .runs()
            .filter_map(|run| match self.next_of(run, now) {
                Next::Ready(sheet) => Some((run.turn(now), run, sheet)),
                Next::Held { .. } | Next::Nothing => None,
            })
            .collect();
        // Numbers of runs grow with submission.
        ready.sort_unstable_by_key(|(turn, run, _)| (*turn, run.id));
        // No lower priority takes what a higher one waits for.
        let mut least = i64::MIN;
        for (turn, run, sheet) in ready {
            if turn.0.0 < least {
                return None;
            }
            match self.short(run, sheet, &load) {
                None => return Some((run.id, sheet)),
                Some(Short::Places(_)) => return None,
                Some(Short::Jobs(_)) => least = turn.0.0,
                Some(Short::Sessions(_) | Short::Turn) => {}
            }
        }
        None
    }
}

impl About {
    /// Whether the run waits for the answer.
    fn holds(&self, run: &Run) -> bool {
        match self {
            Self::Account { account, .. } | Self::Day { account } => run.rules.account.as_ref() == Some(account),
            Self::Limit { run: id, .. } | Self::Budget { run: id, .. } => run.id == *id,
        }
    }
}

/// What decides whose turn it is; less goes first.
type Turn = (Reverse<i64>, u32, Reverse<bool>, Timestamp);

impl Run {
    fn turn(&self, now: Timestamp) -> Turn {
        let age = now.since(self.served_at).0.max(0) / AGEING.0;
        let priority = i64::from(self.rules.priority).saturating_add(age).min(OLDEST);
        (Reverse(priority), self.places(), Reverse(self.begun), self.served_at)
    }

    /// Places that its sheets at work take.
    fn places(&self) -> u32 {
        match &self.rules.parallel {
            Some(parallel) if !parallel.weights.is_empty() => {
                let weights = self.running().map(|(attempt, _)| self.rules.weight(attempt.sheet));
                weights.fold(0, u32::saturating_add)
            }
            Some(_) | None => self.counts.running,
        }
    }

    /// Sheets between two attempts that may be the next; in order the lowest goes first, however long it waits.
    fn waits(&self) -> impl Iterator<Item = (SheetNo, &Waiting)> {
        let looked_at = if self.rules.parallel.is_some() { usize::MAX } else { 1 };
        let waiting = |no: &SheetNo| match self.sheets.get(*no).map(|sheet| &sheet.state) {
            Some(SheetState::Waiting(waiting)) => Some((*no, waiting.as_ref())),
            Some(SheetState::Pending | SheetState::Running(_) | SheetState::Over(_) | SheetState::Done(_)) | None => {
                None
            }
        };
        self.active.iter().take(looked_at).filter_map(waiting)
    }

    /// The sheet whose turn it is within the run, and what it waits for itself: the lowest one between two attempts
    /// whose wait is over, else the lowest that has not started, else the one whose wait ends first. In order a sheet
    /// between two attempts goes before every other.
    fn next_sheet(&self, now: Timestamp) -> Option<(SheetNo, Option<(Timestamp, Hold<'_>)>)> {
        let mut first: Option<(SheetNo, &Waiting)> = None;
        for (no, wait) in self.waits() {
            if wait.until <= now {
                return Some((no, None));
            }
            if first.is_none_or(|(_, earlier)| wait.until < earlier.until) {
                first = Some((no, wait));
            }
        }
        let pending = self.ready.first();
        let first = first.map(|(no, wait)| (no, Some((wait.until, Hold::Wait(wait)))));
        match (&self.rules.parallel, pending, first) {
            (None, _, Some(first)) => Some(first),
            (None, Some(no), None) => Some((no, self.not_before.map(|until| (until, Hold::Between)))),
            (Some(_), Some(no), _) => Some((no, None)),
            (Some(_), None, first) => first,
            (None, None, None) => None,
        }
    }
}
