//! What people ask of a run: pause, resume, retry, cancel.

use super::Draft;
use crate::engine::event::{PauseWhy, Refusal};
use crate::engine::fact::{FactKind, Verdict};
use crate::engine::run::Phase;
use crate::engine::sheet::SheetState;
use crate::model::{RunId, RunState, SheetNo};

impl Draft {
    pub(super) fn pause(&mut self, run: RunId, now: bool, why: PauseWhy) -> Result<(), Refusal> {
        let live = self.live_run(run)?;
        let label = live.label();
        match live.phase {
            Phase::Open => self.fact(FactKind::RunPaused { run, why }),
            // Asked again, perhaps with `now` this time.
            Phase::Paused(_) => {}
            Phase::Cancelling => return Err(Refusal::WrongState(format!("{label} is being cancelled"))),
            Phase::Ended(state) => {
                return Err(Refusal::WrongState(format!(
                    "{label} is {state}; there is nothing to pause"
                )));
            }
        }
        if now {
            self.stop_sessions(run);
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, run: RunId) -> Result<(), Refusal> {
        let live = self.live_run(run)?;
        let label = live.label();
        match live.phase {
            Phase::Paused(_) => self.fact(FactKind::RunResumed { run }),
            Phase::Ended(RunState::Failed | RunState::Cancelled) => {
                self.only_live_run(&live.job, run)?;
                let again: Vec<_> = live
                    .sheets()
                    .filter(
                        |(_, sheet)| matches!(&sheet.state, SheetState::Done(verdict) if verdict.is_to_be_resumed()),
                    )
                    .map(|(no, sheet)| (no, sheet.generation.next()))
                    .collect();
                self.fact(FactKind::RunResumed { run });
                for (sheet, generation) in again {
                    self.fact(FactKind::GenerationOpened { run, sheet, generation });
                }
                self.end_if_over(run);
            }
            Phase::Ended(state) => {
                let text = format!("{label} is {state}: nothing of it is left to do; `run --fresh` starts a new run");
                return Err(Refusal::WrongState(text));
            }
            Phase::Open => {
                return Err(Refusal::WrongState(format!(
                    "{label} is not paused; it goes on by itself"
                )));
            }
            Phase::Cancelling => {
                let text = format!("{label} is being cancelled; it can be resumed once its session has ended");
                return Err(Refusal::WrongState(text));
            }
        }
        Ok(())
    }

    /// Opens every sheet from that one on again, whatever became of it.
    pub(super) fn retry(&mut self, run: RunId, from: SheetNo) -> Result<(), Refusal> {
        let live = self.live_run(run)?;
        let label = live.label();
        let refuse = |text: String| Err(Refusal::WrongState(text));
        match live.phase {
            Phase::Paused(_) if !live.is_running() => {}
            Phase::Ended(_) => self.only_live_run(&live.job, run)?,
            Phase::Open | Phase::Paused(_) => {
                return refuse(format!(
                    "{label} is at work; pause it first, and wait until its sessions have ended"
                ));
            }
            Phase::Cancelling => return refuse(format!("{label} is being cancelled; retry it once that is done")),
        }
        if !(1..=live.sheets.len()).contains(&from.0) {
            let last = live.sheets.len();
            return refuse(format!("there is no sheet {from} in {label}: it has {last}"));
        }
        // What waits for its next attempt has no verdict yet: it is begun anew like the others, and so is what needs one of
        // them.
        let later = |no: SheetNo| no >= from;
        let needs_later = |no: SheetNo| {
            let mut needs = live.rules.dependencies.iter().filter_map(|needed| needed.needs(no));
            needs.any(|needed| needed.last >= from)
        };
        let active = live.active.iter().copied();
        let waiting: Vec<_> = active.filter(|no| later(*no) || needs_later(*no)).collect();
        self.fact(FactKind::RunResumed { run });
        for sheet in waiting {
            let verdict = Verdict::Cancelled;
            self.fact(FactKind::SheetEnded { run, sheet, verdict });
        }
        let Some(live) = self.engine.run(run) else {
            return Ok(());
        };
        let done = live.sheets().filter(|(no, sheet)| {
            let cut_off = matches!(&sheet.state, SheetState::Done(verdict) if verdict.is_to_be_resumed());
            cut_off || (later(*no) && matches!(sheet.state, SheetState::Done(_)))
        });
        let again: Vec<_> = done.map(|(no, sheet)| (no, sheet.generation.next())).collect();
        for (sheet, generation) in again {
            self.fact(FactKind::GenerationOpened { run, sheet, generation });
        }
        Ok(())
    }

    pub(super) fn cancel(&mut self, run: RunId) -> Result<(), Refusal> {
        let live = self.live_run(run)?;
        match live.phase {
            Phase::Open | Phase::Paused(_) => {}
            Phase::Cancelling | Phase::Ended(RunState::Cancelled) => return Ok(()),
            Phase::Ended(state) => {
                let text = format!("{} is {state}; there is nothing to cancel", live.label());
                return Err(Refusal::WrongState(text));
            }
        }
        let idle: Vec<_> = live
            .sheets()
            .filter(|(_, sheet)| matches!(sheet.state, SheetState::Pending | SheetState::Waiting(_)))
            .map(|(no, _)| no)
            .collect();
        self.fact(FactKind::RunCancelling { run });
        self.stop_sessions(run);
        for sheet in idle {
            self.fact(FactKind::SheetEnded {
                run,
                sheet,
                verdict: Verdict::Cancelled,
            });
        }
        self.end_if_over(run);
        Ok(())
    }
}
