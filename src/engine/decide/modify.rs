//! What people change of a run: another plan for it (`modify`), and verdicts from what is there (`recover`).
//!
//! A new plan is for every sheet that is not completed and not at work. What was spent and waited stays; a verdict other
//! than `completed` falls where it is about other work now, or where nothing stands in the sheet's way any more.

use std::collections::{BTreeMap, BTreeSet};

use super::Draft;
use crate::engine::event::{NewPlan, PauseWhy, Refusal};
use crate::engine::fact::{About, FactKind, Verdict};
use crate::engine::rules::RunRules;
use crate::engine::run::{Phase, Run};
use crate::engine::sheet::{Sheet, SheetState};
use crate::model::{RunId, RunState, SheetNo, count};

impl Draft {
    /// Goes on with another plan; `None`: with the one that it has.
    pub(super) fn modify(&mut self, run: RunId, plan: Option<&NewPlan>, resume: bool) -> Result<(), Refusal> {
        let live = self.live_run(run)?;
        let (label, job) = (live.label(), live.job.clone());
        let refuse = |text: String| Err(Refusal::WrongState(text));
        match live.phase {
            Phase::Open | Phase::Paused(_) => {}
            Phase::Ended(RunState::Failed | RunState::Cancelled) if resume => self.only_live_run(&job, run)?,
            Phase::Ended(state @ (RunState::Failed | RunState::Cancelled)) => {
                return refuse(format!(
                    "{label} is {state}; `mozartctl resume {job} -c FILE` gives it the file and goes on with it"
                ));
            }
            Phase::Ended(state) => {
                return refuse(format!(
                    "{label} is {state}: nothing of it is left to do; `mozartctl run --fresh FILE` begins a new run"
                ));
            }
            Phase::Cancelling => {
                return refuse(format!(
                    "{label} is being cancelled; once its sessions have ended `mozartctl resume {job} -c FILE` gives it the \
                     file and goes on with it"
                ));
            }
        }
        if let Some(plan) = plan {
            can_take(live, plan)?;
        }
        let was = live.phase;
        if matches!(was, Phase::Ended(_)) {
            self.fact(FactKind::RunResumed { run });
        }
        let again = match plan {
            Some(plan) => self.take(run, plan),
            None => BTreeSet::new(),
        };
        self.open_again(run, |no, sheet| {
            let cut_off = matches!(&sheet.state, SheetState::Done(verdict) if verdict.is_to_be_resumed());
            cut_off && (resume || again.contains(&no))
        });
        if plan.is_some() {
            self.block_anew(run, false);
        }
        if resume && matches!(was, Phase::Paused(_)) {
            self.fact(FactKind::RunResumed { run });
        }
        self.end_if_over(run);
        Ok(())
    }

    /// Takes a plan that can be taken; says which of the sheets without a lasting verdict are to be opened again.
    fn take(&mut self, run: RunId, plan: &NewPlan) -> BTreeSet<SheetNo> {
        let Some(live) = self.engine.run(run) else {
            return BTreeSet::new();
        };
        let (old, revision) = (live.rules.clone(), live.revision.saturating_add(1));
        let new_account = old.account != plan.rules.account;
        let mut again: BTreeSet<_> = plan.other_work.iter().copied().collect();
        if new_account {
            let mended = live.sheets().filter(|(_, sheet)| {
                matches!(&sheet.state, SheetState::Done(Verdict::Failed { code, .. }) if old.is_accounts(*code))
            });
            again.extend(mended.map(|(no, _)| no));
        }
        // Between two attempts at what is other work now.
        let waits = |no: &SheetNo| live.active.contains(no) && no.0 <= plan.rules.sheets;
        let waiting: Vec<_> = plan.other_work.iter().copied().filter(waits).collect();
        for sheet in waiting {
            let verdict = Verdict::Cancelled;
            self.fact(FactKind::SheetEnded { run, sheet, verdict });
        }
        self.fact(FactKind::RunModified {
            run,
            revision,
            rules: plan.rules.clone(),
            same_sessions: plan.same_sessions,
        });
        if new_account && self.engine.run(run).is_some_and(Run::waits_for_a_limit) {
            self.fact(FactKind::LimitsLifted { run });
        }
        // Asked anew where it still has to be.
        let answered = |about: &About| match about {
            About::Budget { run: of, .. } => *of == run && old.cost_limits != plan.rules.cost_limits,
            About::Limit { run: of, .. } => {
                *of == run
                    && (new_account || old.on_limit != plan.rules.on_limit || old.rate_limit != plan.rules.rate_limit)
            }
            About::Account { .. } | About::Day { .. } => false,
        };
        let moot = self
            .engine
            .questions
            .values()
            .filter(|question| answered(&question.about));
        for id in moot.map(|question| question.id.clone()).collect::<Vec<_>>() {
            self.fact(FactKind::QuestionClosed { id, choice: None });
        }
        again
    }

    /// Opens the next generation of the sheets that are meant.
    fn open_again(&mut self, run: RunId, which: impl Fn(SheetNo, &Sheet) -> bool) {
        let Some(live) = self.engine.run(run) else { return };
        let opened = live.sheets().filter(|(no, sheet)| which(*no, sheet));
        let opened: Vec<_> = opened.map(|(no, sheet)| (no, sheet.generation.next())).collect();
        for (sheet, generation) in opened {
            self.fact(FactKind::GenerationOpened { run, sheet, generation });
        }
    }

    /// With other dependencies, or after another verdict, others wait for what has failed. In a run that is `over`, which
    /// a person would have to resume, nothing waits for what was cancelled.
    fn block_anew(&mut self, run: RunId, over: bool) {
        let goes_on = |live: &Run| !over && live.failed.is_none() && !live.out_of_time;
        if self.engine.run(run).is_some_and(goes_on) {
            // What it was cancelled for is no more.
            self.open_again(run, |_, sheet| sheet.state == SheetState::Done(Verdict::Cancelled));
        }
        let Some(live) = self.engine.run(run) else { return };
        let state = |no: SheetNo| live.sheets.get(no).map(|sheet| &sheet.state);
        let is_blocked = |state: &SheetState| matches!(state, SheetState::Done(Verdict::Blocked { .. }));
        let mut behind: BTreeMap<SheetNo, SheetNo> = BTreeMap::new();
        for (by, failed) in live.sheets() {
            // One that was cancelled because another had failed is not run again either, until a resume.
            let cancelled = !over && failed.state == SheetState::Done(Verdict::Cancelled);
            if !cancelled
                && !matches!(&failed.state, SheetState::Done(Verdict::Failed { code, .. }) if !live.rules.is_accounts(*code))
            {
                continue;
            }
            let mut next = vec![by];
            while let Some(sheet) = next.pop() {
                for no in live.dependents(sheet) {
                    let held = state(no).is_some_and(|state| *state == SheetState::Pending || is_blocked(state));
                    if held && !behind.contains_key(&no) {
                        behind.insert(no, by);
                        next.push(no);
                    }
                }
            }
        }
        let newly = behind
            .iter()
            .filter(|(no, _)| state(**no) == Some(&SheetState::Pending));
        let newly: Vec<_> = newly.map(|(no, by)| (*no, *by)).collect();
        for (sheet, by) in newly {
            let verdict = Verdict::Blocked { by };
            self.fact(FactKind::SheetEnded { run, sheet, verdict });
        }
        self.open_again(run, |no, sheet| is_blocked(&sheet.state) && !behind.contains_key(&no));
    }

    /// Takes sheets for completed whose rules hold. Nothing starts because of it.
    pub(super) fn recover(&mut self, run: RunId, passed: &[(SheetNo, u32)]) -> Result<(), Refusal> {
        let live = self.live_run(run)?;
        let label = live.label();
        let was = live.phase;
        match was {
            Phase::Paused(_) if !live.is_running() => {}
            Phase::Ended(_) => self.only_live_run(&live.job, run)?,
            Phase::Open | Phase::Paused(_) => {
                return Err(Refusal::WrongState(format!(
                    "{label} is at work; pause it first, and wait until its sessions have ended"
                )));
            }
            Phase::Cancelling => {
                return Err(Refusal::WrongState(format!(
                    "{label} is being cancelled; recover it once that is done"
                )));
            }
        }
        let recovered = passed.iter().filter_map(|(no, attempts)| {
            let sheet = live.sheets.get(*no)?;
            let open = match &sheet.state {
                SheetState::Pending | SheetState::Waiting(_) => true,
                SheetState::Done(verdict) => verdict.is_to_be_resumed(),
                SheetState::Running(_) | SheetState::Over(_) => false,
            };
            // A session that came between may have changed what the rules were asked about.
            (open && sheet.attempts == *attempts).then(|| (*no, sheet.generation.next()))
        });
        let recovered: BTreeMap<_, _> = recovered.collect();
        if recovered.is_empty() {
            return Ok(());
        }
        if matches!(was, Phase::Ended(_)) {
            self.fact(FactKind::RunResumed { run });
        }
        for (sheet, generation) in recovered {
            self.fact(FactKind::SheetRecovered { run, sheet, generation });
        }
        #[cfg(test)]
        if crate::probe::Mutant::RecoverLeavesOpen.is_on() {
            return Ok(());
        }
        self.settle_recovered(run, was);
        Ok(())
    }

    /// What becomes of the run: over where nothing is left to do; as it was where it was over and a sheet still has failed;
    /// else a person resumes it.
    fn settle_recovered(&mut self, run: RunId, was: Phase) {
        self.block_anew(run, matches!(was, Phase::Ended(_)));
        let Some(live) = self.engine.run(run) else { return };
        let counts = live.counts;
        let state = match was {
            _ if counts.completed + counts.skipped == live.sheets.len() => RunState::Completed,
            Phase::Ended(RunState::Cancelled) => RunState::Cancelled,
            Phase::Ended(state) if counts.failed > 0 => state,
            Phase::Paused(_) if counts.pending + counts.waiting == 0 => RunState::Failed,
            Phase::Open | Phase::Paused(_) | Phase::Cancelling | Phase::Ended(_) => {
                if matches!(was, Phase::Ended(_)) {
                    self.open_again(
                        run,
                        |_, sheet| matches!(&sheet.state, SheetState::Done(verdict) if verdict.is_to_be_resumed()),
                    );
                    let why = PauseWhy::Person;
                    self.fact(FactKind::RunPaused { run, why });
                }
                return;
            }
        };
        if state == RunState::Cancelled {
            self.fact(FactKind::RunCancelling { run });
        }
        self.fact(FactKind::RunEnded { run, state });
    }
}

/// Refuses a plan with which what was done, or is being done, would be lost or done wrongly.
fn can_take(live: &Run, plan: &NewPlan) -> Result<(), Refusal> {
    let NewPlan { rules, other_work, .. } = plan;
    let label = live.label();
    let refuse = |text: String| Err(Refusal::WrongState(text));
    let is_completed = |sheet: &Sheet| sheet.state == SheetState::Done(Verdict::Completed);
    let word = |sheet: &Sheet| if is_completed(sheet) { "completed" } else { "at work" };
    if let Some((no, sheet)) = live.dropped(rules).find(|(_, sheet)| sheet.must_stay()) {
        return refuse(format!(
            "sheet {no} of {label} is {}, and the new plan has only {}; `mozartctl run --fresh` begins a new run with it",
            word(sheet),
            count(rules.sheets, "sheet")
        ));
    }
    let other = |no: &SheetNo| Some((*no, live.sheets.get(*no)?));
    if let Some((no, sheet)) = other_work.iter().filter_map(other).find(|(_, sheet)| sheet.must_stay()) {
        return refuse(format!(
            "sheet {no} of {label} is {}, and in the new plan that number is other work (items, stage or instance); \
             `mozartctl run --fresh` begins a new run with it",
            word(sheet)
        ));
    }
    if live.is_running() && live.rules.account != rules.account {
        return refuse(format!(
            "sheets of {label} are at work, and the new plan's sessions are another backend's or account's; pause it, wait \
             until they have ended, then modify it"
        ));
    }
    let stays = |no: &&SheetNo| no.0 <= rules.sheets && !other_work.contains(no);
    let begun = live.active.iter().filter(stays);
    if let Some((no, on)) = begun.copied().find_map(|no| Some((no, unmet(live, rules, no)?))) {
        return refuse(format!(
            "sheet {no} of {label} has begun, and in the new plan it waits for sheet {on}, which is not done; modify it once \
             sheet {no} has its verdict"
        ));
    }
    Ok(())
}

/// A sheet that `no` would have to wait for with those rules.
fn unmet(live: &Run, rules: &RunRules, no: SheetNo) -> Option<SheetNo> {
    let open = |sheet: &SheetNo| !live.sheets.get(*sheet).is_some_and(|sheet| sheet.state.satisfies());
    let mut needs = rules.dependencies.iter().filter_map(|dependency| dependency.needs(no));
    needs.find_map(|needs| needs.sheets().find(open))
}
