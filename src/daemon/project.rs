//! Views: the ledger's rows, with the state and the reason that the engine gives live runs.

use std::collections::{BTreeMap, BTreeSet};

use super::clock;
use super::conductor::{Conductor, Live};
use crate::api::view::{Change, GateState, GateView, ManagerView, QuestionView, RunView};
use crate::engine::{About, Fact, FactKind, Gate, GateKey, Overview, Question};
use crate::ledger::{self, Committed};
use crate::model::{Code, Now, RunId, RunState, SheetNo, SheetStatus, Span, Timestamp};
use crate::summary::{RunSummary, SheetSummary};

/// Of the runs that wait for an answer so many are named.
const NAMED: usize = 20;

/// What systemd and the idle clock are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// One line for `systemctl --user status`.
    pub(super) text: String,
    /// Runs that have not ended.
    pub(super) live: usize,
    /// Runs with a session at work.
    pub(super) running: u32,
    /// Somebody holds starts, or has rules asked: it would be forgotten if the conductor left.
    pub(super) held: bool,
}

/// The rest of a run's time: the mean of what is done, over what is left. Believed from the second sheet on.
pub(super) fn eta(row: &RunSummary, now: Timestamp) -> Option<Span> {
    let left = i64::from(row.sheets_total.saturating_sub(row.sheets_done));
    let done = i64::from(row.sheets_done);
    if row.state != RunState::Running || done < 2 {
        return None;
    }
    let spent = now.since(row.started_at?).0;
    (spent > 0).then(|| Span(spent / done * left))
}

impl Conductor {
    /// The row as it is now: a live run's state and reason come from the engine that decides them.
    pub(super) fn dress(&self, mut row: RunSummary, now: Now) -> RunView {
        if self.gone(&row) {
            row.state = RunState::Paused;
            row.reason = "conductor gone".to_owned();
            row.until = None;
        } else if let Some(status) = self.engine.describe(row.id, now) {
            row.state = status.state;
            row.reason = status.reason;
            row.until = status.until;
            let goes_on = matches!(row.state, RunState::Queued | RunState::Running | RunState::Waiting);
            if goes_on && self.waits_for_storage(row.id) {
                row.state = RunState::Waiting;
                row.reason = "storage".to_owned();
                row.until = None;
            }
        }
        let near = self.engine.nearly_used_up(row.id, now.wall);
        let near: Vec<_> = near.iter().map(crate::engine::Use::words).collect();
        row.warning = (!near.is_empty()).then(|| near.join("; "));
        row.question = self.engine.question_for(row.id).map(|question| question.id.0.clone());
        let eta = eta(&row, now.wall);
        RunView { summary: row, eta }
    }

    /// A sheet's row as it is now.
    pub(super) fn dress_sheet(&self, run: RunId, mut row: SheetSummary, now: Now) -> SheetSummary {
        if let Some((status, reason, until)) = self.engine.sheet_status(run, SheetNo(row.sheet_num), now) {
            row.state = status;
            row.reason = reason;
            row.until = until;
            let under_way = matches!(status, SheetStatus::Running | SheetStatus::Waiting);
            if let Some(why) = self.short_of_room(run, SheetNo(row.sheet_num)).filter(|_| under_way) {
                row.state = SheetStatus::Waiting;
                row.reason = why.to_owned();
            }
        }
        row
    }

    /// The conductor's own view.
    pub(super) fn manager(&self) -> ManagerView {
        self.manager_of(&self.engine.overview(clock::now()))
    }

    fn manager_of(&self, overview: &Overview) -> ManagerView {
        ManagerView {
            state_directory: self.paths.state.display().to_string(),
            slots: overview.slots,
            running: overview.running,
            queued: overview.queued,
            waiting: overview.waiting,
            pressure: self.holds.level.as_str().to_owned(),
            holds: self
                .engine
                .holds()
                .iter()
                .map(|hold| (hold.why.clone(), hold.until))
                .collect(),
            questions: u32::try_from(self.engine.questions().count()).unwrap_or(u32::MAX),
            storage: match (self.storage(), self.set_aside()) {
                ("", Some(kept)) => kept,
                (blocked, _) => blocked.to_owned(),
            },
        }
    }

    /// The open questions.
    pub(super) fn questions(&self) -> Vec<QuestionView> {
        self.engine
            .questions()
            .map(|question| self.question(question))
            .collect()
    }

    fn question(&self, question: &Question) -> QuestionView {
        let account_of = |run| self.engine.run(run).and_then(|run| run.rules().account.as_ref());
        let (account, code) = match &question.about {
            About::Account { account, code } => (Some(account), Some(*code)),
            About::Day { account } => (Some(account), Some(Code::E703)),
            About::Limit { run, .. } => (account_of(*run), None),
            About::Budget { run, sheet: Some(_) } => (account_of(*run), Some(Code::E701)),
            About::Budget { run, sheet: None } => (account_of(*run), Some(Code::E702)),
        };
        let waiting = self.engine.waiting_for_answer(question);
        let runs: Vec<_> = waiting.map(|run| format!("{}#{}", run.job(), run.no())).collect();
        QuestionView {
            id: question.id.0.clone(),
            text: question.text.clone(),
            choices: question
                .choices
                .iter()
                .map(|choice| choice.as_str().to_owned())
                .collect(),
            account: account.map(|account| account.0.clone()),
            code,
            runs_waiting: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            runs: runs.into_iter().take(NAMED).collect(),
        }
    }

    /// The gates that are not open.
    pub(super) fn gates(&self) -> Vec<GateView> {
        let now = clock::now();
        let gates = self.engine.gates();
        gates.map(|(key, gate)| self.gate(key, Some(gate), now)).collect()
    }

    fn gate(&self, key: &GateKey, gate: Option<&Gate>, now: Now) -> GateView {
        GateView {
            account: key.account.0.clone(),
            kind: key.kind.as_str().to_owned(),
            window: key.window.clone(),
            state: match gate {
                Some(gate) if gate.until > now.wall => GateState::Closed,
                Some(_) => GateState::Opening,
                None => GateState::Open,
            },
            until: gate.map_or(now.wall, |gate| gate.until),
            places: gate.map_or(0, |gate| gate.places),
            under_way: gate.map_or(0, |gate| u32::try_from(gate.through.len()).unwrap_or(u32::MAX)),
            runs_waiting: self.engine.waiting_behind(key, now),
        }
    }

    /// Tells of questions and gates what was decided.
    pub(super) fn publish_shared(&self, facts: &[Fact], now: Now) {
        for fact in facts {
            match &fact.kind {
                FactKind::QuestionAsked { question } => {
                    self.send(Change::Question(Box::new(self.question(question))));
                }
                FactKind::GateClosed { gate: key, .. } | FactKind::GateOpened { gate: key } => {
                    let gate = self.engine.gates().find(|(other, _)| *other == key);
                    let gate = self.gate(key, gate.map(|(_, gate)| gate), now);
                    self.send(Change::Gate(Box::new(gate)));
                }
                _ => {}
            }
        }
    }

    /// In words: a damaged ledger that was set aside and still lies there.
    pub(super) fn set_aside(&self) -> Option<String> {
        let kept = ledger::last_set_aside(self.ledger.path())?;
        Some(format!(
            "a damaged ledger was set aside as {}; its jobs go on from their checkpoints with `mozartctl resume FILE.yaml` \
             (this is said until that file is moved away)",
            kept.display()
        ))
    }

    /// Sends what changed to whoever listens: sheets, then runs, then the ends.
    pub(super) async fn publish(
        &self,
        runs: &BTreeSet<RunId>,
        sheets: &BTreeSet<(RunId, SheetNo)>,
        ended: &BTreeMap<RunId, RunState>,
        commit: &Committed,
        now: Now,
    ) {
        for (run, sheet) in sheets {
            let Some(Live { job, no, .. }) = self.live.get(run) else {
                continue;
            };
            if let Ok(Some(row)) = self.ledger.sheet_after(commit, *run, *sheet).await {
                let sheet = Box::new(self.dress_sheet(*run, row, now));
                self.send(Change::Sheet {
                    job: job.clone(),
                    run: *no,
                    sheet,
                });
            }
        }
        for run in runs {
            if self.live.contains_key(run)
                && let Ok(Some(row)) = self.ledger.run_after(commit, *run).await
            {
                self.send(Change::Run(Box::new(self.dress(row, now))));
            }
        }
        for (run, state) in ended {
            let Some(Live { job, no, .. }) = self.live.get(run) else {
                continue;
            };
            self.send(Change::Finished {
                job: job.clone(),
                run: *no,
                result: *state,
            });
        }
    }

    fn send(&self, change: Change) {
        // Nobody listening is no fault.
        drop(self.changes.send(change));
    }

    /// The line for systemd, and the conductor's own view for the bus.
    pub(super) fn publish_status(&self) {
        let overview = self.engine.overview(clock::now());
        let view = self.manager_of(&overview);
        let status = Status {
            text: status_text(&view, self.storage(), overview.until),
            live: self.live.len(),
            running: view.running,
            held: self.holds.are_asked() || !self.recoveries.is_empty(),
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
        if *self.shown.borrow() != view {
            self.shown.send_replace(view.clone());
            self.send(Change::Manager(view));
        }
    }
}

fn status_text(view: &ManagerView, blocked: &str, until: Option<Timestamp>) -> String {
    if !blocked.is_empty() {
        return format!("storage: {blocked}");
    }
    let mut parts = Vec::new();
    for (count, word) in [
        (view.running, "running"),
        (view.waiting, "waiting"),
        (view.queued, "queued"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    if parts.is_empty() && view.questions == 0 {
        return "idle".to_owned();
    }
    if let Some(at) = until.and_then(|at| jiff::Timestamp::from_microsecond(at.0).ok()) {
        let local = at.to_zoned(jiff::tz::TimeZone::system());
        parts.push(format!("until {}", local.strftime("%H:%M:%S")));
    }
    match view.questions {
        0 => {}
        1 => parts.push("1 question to be answered".to_owned()),
        many => parts.push(format!("{many} questions to be answered")),
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_what_goes_on() {
        let view = ManagerView {
            running: 3,
            queued: 12,
            ..ManagerView::default()
        };
        assert_eq!(status_text(&view, "", None), "3 running, 12 queued");
        assert_eq!(status_text(&ManagerView::default(), "", None), "idle");
        let view = ManagerView {
            waiting: 2,
            questions: 1,
            ..ManagerView::default()
        };
        assert_eq!(status_text(&view, "", None), "2 waiting, 1 question to be answered");
        assert_eq!(status_text(&view, "disk full: /s", None), "storage: disk full: /s");
    }
}
