//! Gates: closed by refusals and by faults, opened by answers.

use super::Draft;
use crate::engine::Gate;
use crate::engine::fact::{FactKind, GateKey, GateKind};
use crate::engine::retry::known_reset;
use crate::model::{AccountId, AttemptRef, Limit, RunId, Timestamp};

/// A gate through which that many sessions may be under way at once is open.
const WIDE_OPEN: u32 = 16;

impl Draft {
    /// The API answered the session: gates that it was to find out about open further.
    pub(super) fn attempt_answered(&mut self, attempt: AttemptRef) {
        let known = self.running(attempt).is_none_or(|running| running.answered);
        if !known && self.open_further(attempt) {
            self.fact(FactKind::AttemptAnswered { attempt });
        }
    }

    /// A session that started after they were due got through: twice as many may be under way. Whether there was any.
    pub(super) fn open_further(&mut self, attempt: AttemptRef) -> bool {
        let through = self
            .engine
            .gates
            .iter()
            .filter(|(_, gate)| gate.through.contains(&attempt));
        let through: Vec<_> = through.map(|(key, gate)| (key.clone(), gate.clone())).collect();
        for (
            gate,
            Gate {
                until,
                by_calendar,
                places,
                ..
            },
        ) in &through
        {
            let (gate, places) = (gate.clone(), places.saturating_mul(2));
            self.fact(match places {
                0..=WIDE_OPEN => FactKind::GateClosed {
                    gate,
                    until: *until,
                    by_calendar: *by_calendar,
                    places,
                },
                _ => FactKind::GateOpened { gate },
            });
        }
        !through.is_empty()
    }

    pub(super) fn clear_gates(&mut self, account: Option<&AccountId>) {
        let keys = self.engine.gates.keys();
        let cleared = keys.filter(|key| account.is_none_or(|account| key.account == *account));
        for gate in cleared.cloned().collect::<Vec<_>>() {
            self.fact(FactKind::GateOpened { gate });
        }
        let waiting = self
            .engine
            .runs()
            .filter(|run| account.is_none() || run.rules.account.as_ref() == account);
        // A sheet's own wait for the same limit is over with it.
        let waiting = waiting.filter(|run| !run.has_ended() && run.waits_for_a_limit());
        let runs: Vec<_> = waiting.map(|run| run.id).collect();
        for run in runs {
            self.fact(FactKind::LimitsLifted { run });
        }
    }

    /// Closes a gate, and says until when it is closed: one that another session closed for longer stays so.
    pub(super) fn close(&mut self, gate: GateKey, until: Timestamp, by_calendar: bool) -> (Timestamp, bool) {
        match self.engine.gates.get(&gate).filter(|closed| closed.until >= until) {
            Some(closed) => (closed.until, closed.by_calendar),
            None => {
                self.fact(FactKind::GateClosed {
                    gate,
                    until,
                    by_calendar,
                    places: 1,
                });
                (until, by_calendar)
            }
        }
    }

    /// A session that is still at work was refused: nobody else need find out.
    pub(super) fn limit_refused(&mut self, attempt: AttemptRef, limit: &Limit) {
        let account = self.engine.run(attempt.run).and_then(|run| run.rules.account.clone());
        let until = known_reset(limit, attempt, self.now.wall, self.engine.chance);
        if let (Some(account), Some(until), Some(_)) = (account, until, self.running(attempt)) {
            let gate = GateKey {
                account,
                kind: limit.kind.into(),
                window: limit.window.clone(),
            };
            self.close(gate, until, true);
        }
    }

    /// The circuit breaker: after so many transient faults in a row nothing of the account starts for a while.
    pub(super) fn rest_after_faults(&mut self, run: RunId) {
        let Some(live) = self.engine.run(run) else { return };
        let (Some(breaker), Some(account)) = (live.rules.circuit_breaker, live.rules.account.clone()) else {
            return;
        };
        let faults = self.engine.overlay.faults.get(&account).copied().unwrap_or(0);
        let gate = GateKey {
            account,
            kind: GateKind::Faults,
            window: None,
        };
        let now = self.now.wall;
        let rests = self.engine.gates.get(&gate).is_some_and(|gate| gate.until > now);
        if faults >= breaker.failure_threshold && !rests {
            self.fact(FactKind::GateClosed {
                gate,
                until: now.plus(breaker.recovery),
                by_calendar: false,
                places: 1,
            });
        }
    }
}
