//! Who may start, and when: slots, gates, waits, the pause between sheets. The same answer decides starts,
//! wake-ups and the words of `status`.

use std::cmp::Reverse;

use super::fact::GateKey;
use super::run::{Phase, Run};
use super::sheet::{SheetState, Waiting};
use super::{Engine, Gate};
use crate::model::{AccountId, Now, RunId, SheetNo, Timestamp};

/// What could be started next of a run.
#[derive(Debug, PartialEq)]
pub(super) enum Next<'a> {
    /// This sheet, as soon as there is a slot.
    Ready(SheetNo),
    /// This sheet, not before that moment.
    Held {
        sheet: SheetNo,
        until: Timestamp,
        why: Hold<'a>,
    },
    /// Nothing: it runs, or nothing but a person moves it.
    Nothing,
}

/// What holds a sheet back.
#[derive(Debug, PartialEq)]
pub(super) enum Hold<'a> {
    /// A limit of the account.
    Gate(&'a GateKey),
    /// The sheet's own wait.
    Wait(&'a Waiting),
    /// `pause_between_sheets`.
    Between,
}

impl Engine {
    /// The earliest moment at which a [`Tick`](super::Event::Tick) would do something; `None`: no timer is needed.
    pub fn next_wakeup(&self, now: Now) -> Option<Timestamp> {
        if self.overlay.stopping {
            return None;
        }
        let gates = self.gates.values().map(|gate| gate.until);
        let runs = self.runs().filter_map(|run| match self.next_of(run, now.wall) {
            Next::Held { until, .. } => Some(until),
            Next::Ready(_) | Next::Nothing => None,
        });
        gates.chain(runs).min()
    }

    /// What could be started next of `run` at `now`.
    pub(super) fn next_of<'a>(&'a self, run: &'a Run, now: Timestamp) -> Next<'a> {
        if run.phase != Phase::Open || run.is_running() {
            return Next::Nothing;
        }
        // In order, one at a time: a sheet between two attempts goes before every pending one.
        let sheet = run.active.first().copied().unwrap_or(run.first_pending);
        let own = match run.sheets.get(sheet).map(|sheet| &sheet.state) {
            Some(SheetState::Waiting(waiting)) => Some((waiting.until, Hold::Wait(waiting))),
            Some(SheetState::Pending) => run.not_before.map(|until| (until, Hold::Between)),
            Some(SheetState::Running(_) | SheetState::Over(_) | SheetState::Done(_)) | None => return Next::Nothing,
        };
        let gate = run.rules.account.as_ref().and_then(|account| self.closed_gate(account));
        let gate = gate.map(|(key, gate)| (gate.until, Hold::Gate(key)));
        // Of two that end together the gate is named: it holds every run of the account.
        let longest = own
            .into_iter()
            .chain(gate)
            .filter(|(until, _)| *until > now)
            .max_by_key(|(until, _)| *until);
        match longest {
            Some((until, why)) => Next::Held { sheet, until, why },
            None => Next::Ready(sheet),
        }
    }

    /// The gate of that account that opens last.
    fn closed_gate(&self, account: &AccountId) -> Option<(&GateKey, &Gate)> {
        self.gates
            .iter()
            .filter(|(key, _)| key.account == *account)
            .max_by_key(|(_, gate)| gate.until)
    }

    /// How many runs hold a slot.
    pub(super) fn slots_used(&self) -> u32 {
        self.runs().map(|run| u32::from(run.is_running())).sum()
    }

    /// Runs that could start a sheet at `now` and may, in the order in which they get a slot.
    pub(super) fn startable(&self, now: Timestamp) -> Vec<(RunId, SheetNo)> {
        let free = self
            .overlay
            .settings
            .max_concurrent_jobs
            .saturating_sub(self.slots_used());
        if free == 0 {
            return Vec::new();
        }
        let mut ready: Vec<_> = self
            .runs()
            .filter_map(|run| match self.next_of(run, now) {
                Next::Ready(sheet) => Some((Reverse(run.rules.priority), run.id, sheet)),
                Next::Held { .. } | Next::Nothing => None,
            })
            .collect();
        // Numbers of runs grow with submission.
        ready.sort_unstable();
        ready.truncate(usize::try_from(free).unwrap_or(usize::MAX));
        ready.into_iter().map(|(_, run, sheet)| (run, sheet)).collect()
    }
}
