//! What each event leads to.

mod gates;
mod modify;
mod questions;
mod requests;

use std::collections::BTreeSet;

use super::Engine;
use super::budget::Budget;
use super::event::{Command, Decision, Event, Refusal, SessionChoice};
use super::fact::{About, Choice, FACT_VERSION, Fact, FactKind, GateKey, Verdict};
use super::retry::{After, Limited, Situation, after};
use super::rules::{RunRules, is_accounts};
use super::run::{Phase, Run};
use super::sheet::{SheetState, Waiting, next_attempt};
use super::skip;
use crate::job::plan::FailFast;
use crate::model::{
    Ask, AttemptKind, AttemptRef, Cause, Code, Failure, JobName, Now, Outcome, RunId, RunNo, RunState, SheetNo, Span,
    StopHow, Timestamp,
};

/// Decides what follows from `events`, in their order. Who starts is decided once all of them are followed: what the last
/// one says may hold what the first one would have had started.
pub(super) fn decide(engine: &Engine, now: Now, events: &[Event]) -> Decision {
    let mut draft = Draft {
        engine: engine.clone(),
        now,
        over: BTreeSet::new(),
        decision: Decision::default(),
    };
    for event in events {
        if let Event::AttemptFinished { attempt, .. } | Event::NeverRan { attempt } = event {
            draft.over.insert(*attempt);
        }
    }
    if let Some(by) = engine.overlay.clock.step(now) {
        draft.move_waits(by);
    }
    for event in events {
        draft.engine.observe(now, event);
        if let Err(refusal) = draft.follow(event) {
            debug_assert!(events.len() == 1, "{event:?} is not alone and refused: {refusal:?}");
            // Of others nothing is to be dropped because of it.
            draft.decision.refusal = Some(refusal).filter(|_| events.len() == 1);
        }
    }
    draft.end_overdue();
    // Now that all else is known: what never ran is started, where it still may.
    for event in events {
        if let Event::NeverRan { attempt } = event {
            draft.never_ran(*attempt);
        }
    }
    draft.drop_questions();
    draft.go_on();
    draft.decision
}

/// A decision in the making, and the engine as it will be after it.
struct Draft {
    engine: Engine,
    now: Now,
    /// Attempts of which the events say that nothing runs: whatever else they lead to, there is nothing to stop.
    over: BTreeSet<AttemptRef>,
    decision: Decision,
}

impl Draft {
    /// What an event itself leads to.
    fn follow(&mut self, event: &Event) -> Result<(), Refusal> {
        match event {
            Event::Submitted {
                run,
                job,
                no,
                rules,
                completed,
            } => self.submit(*run, job, *no, rules, completed),
            Event::AttemptStarted {
                attempt,
                at,
                invocation,
            } => {
                self.attempt_started(*attempt, *at, invocation.clone());
                Ok(())
            }
            Event::AttemptFinished { attempt, outcome } => {
                self.attempt_finished(*attempt, outcome.clone());
                Ok(())
            }
            Event::AttemptAnswered { attempt } => {
                self.attempt_answered(*attempt);
                Ok(())
            }
            Event::LimitSeen {
                attempt,
                limit,
                refused,
            } => {
                if *refused {
                    self.limit_refused(*attempt, limit);
                }
                Ok(())
            }
            Event::Answered { question, choice } => self.answered(question, *choice),
            Event::GatesCleared { account } => {
                self.clear_gates(account.as_ref());
                Ok(())
            }
            Event::PauseRequested { run, now, why } => self.pause(*run, *now, *why),
            Event::ResumeRequested { run } => self.resume(*run),
            Event::RetryRequested { run, from } => self.retry(*run, *from),
            Event::ModifyRequested { run, plan, resume } => self.modify(*run, plan.as_deref(), *resume),
            Event::RecoverRequested { run, passed } => self.recover(*run, passed),
            Event::CancelRequested { run } => self.cancel(*run),
            Event::ShutdownRequested { stop_sessions } => {
                if *stop_sessions {
                    self.stop_everything();
                }
                Ok(())
            }
            Event::Restored { same_boot } => {
                self.take_up_again(*same_boot);
                Ok(())
            }
            // What follows on it is decided when all events are followed.
            Event::NeverRan { .. }
            | Event::Tick
            | Event::DayBegan { .. }
            | Event::SettingsChanged { .. }
            | Event::HoldsChanged { .. } => Ok(()),
        }
    }

    /// Decides a fact. One that the state does not allow is no decision: it is dropped, and a fault of this module.
    fn fact(&mut self, kind: FactKind) {
        let fact = Fact {
            v: FACT_VERSION,
            at: self.now.wall,
            kind,
        };
        match self.engine.try_apply(&fact) {
            Ok(()) => self.decision.facts.push(fact),
            Err(illegal) => debug_assert!(false, "{illegal}: {fact:?}"),
        }
    }

    fn live_run(&self, run: RunId) -> Result<&Run, Refusal> {
        self.engine.run(run).ok_or(Refusal::NoSuchRun(run))
    }

    fn sheet_state(&self, run: RunId, sheet: SheetNo) -> Option<&SheetState> {
        Some(&self.engine.run(run)?.sheets.get(sheet)?.state)
    }

    /// The running attempt, if it is that one: everything about another one comes too late.
    fn running(&self, attempt: AttemptRef) -> Option<&super::sheet::Attempt> {
        self.sheet_state(attempt.run, attempt.sheet)?
            .attempt()
            .filter(|running| running.no == attempt.attempt)
    }

    fn submit(
        &mut self,
        run: RunId,
        job: &JobName,
        no: RunNo,
        rules: &RunRules,
        completed: &[SheetNo],
    ) -> Result<(), Refusal> {
        if self.engine.run(run).is_some() {
            return Err(Refusal::WrongState(format!(
                "there is a run with the number {run} already"
            )));
        }
        self.only_live_run(job, run)?;
        self.fact(FactKind::RunSubmitted {
            run,
            job: job.clone(),
            no,
            rules: rules.clone(),
            completed: completed.to_vec(),
        });
        for &sheet in completed {
            if self.sheet_state(run, sheet) == Some(&SheetState::Pending) {
                self.fact(FactKind::SheetEnded {
                    run,
                    sheet,
                    verdict: Verdict::Completed,
                });
            }
        }
        for sheet in (1..rules.start_sheet.0).map(SheetNo) {
            if self.sheet_state(run, sheet) == Some(&SheetState::Pending) {
                let reason = match rules.found_done {
                    Some(last) if sheet <= last => "found done",
                    _ => "before start sheet",
                };
                let verdict = Verdict::Skipped { reason: reason.into() };
                self.fact(FactKind::SheetEnded { run, sheet, verdict });
            }
        }
        self.end_if_over(run);
        Ok(())
    }

    /// At most one run of a job is live.
    fn only_live_run(&self, job: &JobName, run: RunId) -> Result<(), Refusal> {
        match self
            .engine
            .runs()
            .find(|other| other.id != run && other.job == *job && !other.has_ended())
        {
            Some(other) => {
                let label = other.label();
                Err(Refusal::WrongState(format!(
                    "{label} is not over yet; cancel it first, or wait until it has ended"
                )))
            }
            None => Ok(()),
        }
    }

    fn attempt_started(&mut self, attempt: AttemptRef, started_at: Timestamp, invocation: Option<String>) {
        if self
            .running(attempt)
            .is_some_and(|running| running.started_at.is_none())
        {
            self.fact(FactKind::AttemptStarted {
                attempt,
                started_at,
                invocation,
            });
        }
    }

    fn never_ran(&mut self, attempt: AttemptRef) {
        let Some(running) = self.running(attempt) else { return };
        let (start, started, stop_asked) = (running.start(attempt), running.started_at.is_some(), running.stop_asked);
        if started {
            // It did run, and its traces are gone: nobody knows what it did but its session. Where that one never came
            // to be, the next attempt says so and it is begun anew.
            let session_id = Some(start.session.id().to_owned());
            self.ended(
                attempt,
                interruption("the traces of the session are gone", true, session_id),
            );
        } else if stop_asked || !self.may_start(attempt.run) {
            if !self.engine.overlay.stopping {
                self.ended(
                    attempt,
                    interruption("it was held before its session started", false, None),
                );
            }
        } else if !self.engine.overlay.stopping {
            self.decision.commands.push(Command::StartAttempt(start));
        }
    }

    /// Whether an intended attempt of the run may be started still.
    fn may_start(&self, run: RunId) -> bool {
        self.engine.run(run).is_some_and(|run| {
            let gates = || self.engine.gates_of(run);
            run.phase == Phase::Open
                && !run.is_failing()
                && !gates().any(|(_, gate)| gate.until > self.now.wall)
                && self.engine.question_of(run).is_none()
                && self.engine.overlay.holds.is_empty()
        })
    }

    fn attempt_finished(&mut self, attempt: AttemptRef, mut outcome: Outcome) {
        let Some(running) = self.running(attempt) else { return };
        if running.stop_asked
            && let Some(failure) = outcome.failure.take()
        {
            // Whatever its end looks like: it ended so because it was stopped.
            outcome.failure = Some(match failure.cause {
                Cause::Interrupted => failure,
                Cause::RateLimit | Cause::Transient | Cause::Validation | Cause::Fatal => stopped(),
            });
        }
        let limited = |failure: &Failure| failure.cause == Cause::RateLimit;
        if outcome.worked && !running.answered && !outcome.failure.as_ref().is_some_and(limited) {
            self.open_further(attempt);
        }
        self.ended(attempt, outcome);
    }

    fn ended(&mut self, attempt: AttemptRef, outcome: Outcome) {
        let now = self.now.wall;
        let before = self.engine.uses(attempt, now);
        let probed = self.engine.is_let_through_after_faults(attempt);
        self.fact(FactKind::AttemptEnded { attempt, outcome });
        let after = self.engine.uses(attempt, now).into_iter().zip(before);
        let passed = after.filter(|(after, before)| after.is_near() && !before.is_near());
        self.decision.warnings.extend(passed.map(|(after, _)| after));
        self.settle(attempt, probed);
    }

    /// Decides what follows on an attempt that is over; `probed`: it was to find out whether its account's faults are.
    fn settle(&mut self, attempt: AttemptRef, probed: bool) {
        let AttemptRef { run, sheet, .. } = attempt;
        let Some(live) = self.engine.run(run) else { return };
        let Some(state) = live.sheets.get(sheet) else { return };
        let SheetState::Over(over) = &state.state else { return };
        // What is not done when the run ends is opened again by a resume.
        let cancelling = live.phase == Phase::Cancelling || live.is_failing();
        let next = if over.outcome.failure.is_some() && live.out_of_time && live.phase != Phase::Cancelling {
            After::Verdict(self.time_over())
        } else if cancelling && over.outcome.failure.is_some() {
            After::Verdict(Verdict::Cancelled)
        } else {
            after(&Situation {
                attempt,
                over,
                rules: &live.rules,
                used: state.used,
                probed,
                limits: live.limits,
                now: self.now.wall,
                chance: self.engine.chance,
            })
        };
        let account = live.rules.account.clone();
        self.rest_after_faults(run);
        match next {
            After::Verdict(verdict) => self.conclude(attempt, verdict),
            After::Again(wait) => self.wait(run, sheet, wait),
            After::BehindGate {
                kind,
                window,
                mut wait,
                then,
            } => {
                if let Some(account) = account {
                    let gate = GateKey {
                        account,
                        kind: kind.into(),
                        window,
                    };
                    (wait.until, wait.by_calendar) = self.close(gate, wait.until, wait.by_calendar);
                }
                match then {
                    Limited::Fail(verdict) => self.conclude(attempt, verdict),
                    Limited::Wait => self.wait(run, sheet, wait),
                    Limited::Ask(text) => {
                        self.wait(run, sheet, wait);
                        self.ask(attempt, About::Limit { run, kind }, text, &[Choice::Wait, Choice::Stop]);
                    }
                }
            }
        }
    }

    fn wait(&mut self, run: RunId, sheet: SheetNo, wait: Waiting) {
        let Waiting {
            until,
            cause,
            code,
            kind,
            ask,
            resume,
            by_calendar,
        } = wait;
        self.fact(FactKind::SheetWaits {
            run,
            sheet,
            until,
            cause,
            code,
            kind,
            ask,
            resume,
            by_calendar,
        });
    }

    /// The sheet has its verdict: what follows on it for those that wait for it, and for the run.
    fn conclude(&mut self, attempt: AttemptRef, verdict: Verdict) {
        let AttemptRef { run, sheet, .. } = attempt;
        let account = self.engine.run(run).and_then(|run| run.rules.account.clone());
        let failed = match (&verdict, account) {
            // It says nothing of the sheet: whoever waits for it goes on waiting, and one person mends it for all.
            (Verdict::Failed { code, message, .. }, Some(account)) if is_accounts(*code) => {
                let (about, text) = (About::Account { account, code: *code }, message.clone());
                self.fact(FactKind::SheetEnded { run, sheet, verdict });
                if self.engine.waiting_for(&about).next().is_some() {
                    self.ask(attempt, about, text, &[Choice::Retry, Choice::Stop]);
                }
                return self.end_if_over(run);
            }
            (Verdict::Failed { .. }, _) => true,
            (_, _) => false,
        };
        self.fact(FactKind::SheetEnded { run, sheet, verdict });
        if failed {
            self.block_dependents(run, sheet);
            if self
                .engine
                .run(run)
                .is_some_and(|run| run.is_failing() && run.rules.fail_fast() == FailFast::Cancel)
            {
                self.stop_sessions(run);
            }
        }
        self.end_if_over(run);
    }

    /// Who waits for a sheet that failed, or for one that waits for it, and so on, is not run.
    fn block_dependents(&mut self, run: RunId, by: SheetNo) {
        let mut blocked = vec![by];
        while let Some(sheet) = blocked.pop() {
            let Some(live) = self.engine.run(run) else { return };
            let pending = |sheet: &SheetNo| {
                live.sheets
                    .get(*sheet)
                    .is_some_and(|sheet| sheet.state == SheetState::Pending)
            };
            let waiting: Vec<_> = live.dependents(sheet).filter(pending).collect();
            for sheet in waiting {
                // One may wait for the same sheet twice over.
                if self.sheet_state(run, sheet) == Some(&SheetState::Pending) {
                    let verdict = Verdict::Blocked { by };
                    self.fact(FactKind::SheetEnded { run, sheet, verdict });
                    blocked.push(sheet);
                }
            }
        }
    }

    fn end_if_over(&mut self, run: RunId) {
        let Some(live) = self.engine.run(run) else { return };
        if live.has_ended() || live.is_running() {
            return;
        }
        let left = live.counts.pending + live.counts.waiting;
        let state = if live.phase == Phase::Cancelling {
            RunState::Cancelled
        } else if live.is_failing() && left + live.counts.failed > 0 {
            // Its last sessions may have ended well all the same: then what is left fails for want of time.
            let first = live.active.first().copied().or_else(|| live.first_pending());
            if let Some(sheet) = first.filter(|_| live.counts.failed == 0) {
                let verdict = self.time_over();
                self.fact(FactKind::SheetEnded { run, sheet, verdict });
                self.block_dependents(run, sheet);
            }
            let Some(live) = self.engine.run(run) else { return };
            // Between two attempts: it is not tried again, and a resume opens it anew.
            let waiting: Vec<_> = live.active.iter().copied().collect();
            for sheet in waiting {
                let verdict = Verdict::Cancelled;
                self.fact(FactKind::SheetEnded { run, sheet, verdict });
            }
            RunState::Failed
        } else if left > 0 {
            return;
        } else if live.counts.failed > 0 {
            RunState::Failed
        } else {
            RunState::Completed
        };
        self.fact(FactKind::RunEnded { run, state });
    }

    /// Ends runs whose sessions were at work for as long as a run's may be.
    fn end_overdue(&mut self) {
        let (limit, now) = (self.engine.overlay.settings.job_timeout, self.now.wall);
        let overdue: Vec<_> = self
            .engine
            .runs()
            .filter(|run| run.is_overdue(limit, now))
            .map(|run| run.id)
            .collect();
        for run in overdue {
            self.fact(FactKind::RunOutOfTime { run });
            self.stop_sessions(run);
            self.end_if_over(run);
        }
    }

    /// The verdict of a sheet that its run's time did not suffice for.
    fn time_over(&self) -> Verdict {
        let limit = self.engine.overlay.settings.job_timeout.0 / 1_000_000;
        Verdict::Failed {
            cause: Cause::Fatal,
            code: Code::E803,
            message: format!(
                "the run had sessions at work for {limit} s, as long as `job_timeout_seconds` allows; `resume` gives it as \
                 much again"
            ),
        }
    }

    /// Ends the sessions of a run; each is noted before it is asked, and asked once.
    fn stop_sessions(&mut self, run: RunId) {
        let Some(live) = self.engine.run(run) else { return };
        let asked: Vec<_> = live
            .running()
            .filter(|(attempt, running)| !running.stop_asked && !self.over.contains(attempt))
            .map(|(attempt, _)| attempt)
            .collect();
        for attempt in asked {
            self.fact(FactKind::StopAsked { attempt });
            self.decision.commands.push(Command::StopAttempt {
                attempt,
                how: StopHow::Terminate,
            });
        }
    }

    fn stop_everything(&mut self) {
        let runs: Vec<_> = self.engine.runs.keys().copied().collect();
        for run in runs {
            self.stop_sessions(run);
        }
    }

    /// After loading: every attempt without a known end is looked for, and a stop that was asked is asked again.
    fn take_up_again(&mut self, same_boot: bool) {
        let runs = self.engine.runs();
        let unknown: Vec<_> = runs
            .flat_map(Run::running)
            .map(|(attempt, running)| (running.start(attempt), running.stop_asked))
            .collect();
        if !same_boot {
            // Recorded, so that it holds for a conductor that comes back later in this boot too.
            let intended: Vec<_> = self
                .engine
                .runs()
                .flat_map(Run::running)
                .map(|(attempt, running)| (attempt, running.intended_at))
                .collect();
            for (attempt, intended_at) in intended {
                self.attempt_started(attempt, intended_at, None);
            }
        }
        // A journal never ends between an attempt's end and what follows on it, unless it was cut by hand.
        let over: Vec<_> = self.engine.runs().flat_map(Run::over).collect();
        for attempt in over {
            self.settle(attempt, false);
        }
        for (start, stop_asked) in unknown {
            let attempt = start.attempt;
            self.decision.commands.push(Command::AdoptAttempt(start));
            if stop_asked {
                self.decision.commands.push(Command::StopAttempt {
                    attempt,
                    how: StopHow::Terminate,
                });
            }
        }
    }

    /// The wall clock was set by that much: what stands for a length of time ends as much later.
    fn move_waits(&mut self, by: Span) {
        let runs = self
            .engine
            .runs()
            .filter(|run| !run.has_ended() && run.has_waits_to_move());
        let runs: Vec<_> = runs.map(|run| run.id).collect();
        for run in runs {
            self.fact(FactKind::WaitsMoved { run, by });
        }
        // One that is past stays so: it moves with a clock that was set back.
        let now = self.now.wall;
        let gates = self.engine.gates.iter();
        let gates = gates.filter(|(_, gate)| !gate.by_calendar && gate.until.max(gate.until.plus(by)) > now);
        let gates: Vec<_> = gates
            .map(|(key, gate)| (key.clone(), gate.until, gate.places))
            .collect();
        for (gate, until, places) in gates {
            self.fact(FactKind::GateClosed {
                gate,
                until: until.plus(by),
                by_calendar: false,
                places,
            });
        }
    }

    /// Starts what may start.
    fn go_on(&mut self) {
        if self.engine.overlay.stopping {
            return;
        }
        let now = self.now.wall;
        while let Some((run, sheet)) = self.engine.next_start(now) {
            let before = self.decision.facts.len();
            self.start(run, sheet);
            if self.decision.facts.len() == before {
                debug_assert!(false, "sheet {sheet} of run {run} could not be started");
                break;
            }
        }
        self.ask_for_money();
    }

    fn start(&mut self, run: RunId, no: SheetNo) {
        let Some(live) = self.engine.run(run) else { return };
        let Some(sheet) = live.sheets.get(no) else { return };
        let attempt = next_attempt(run, no, sheet);
        // Asked now: what it waits for has its verdict.
        if sheet.state == SheetState::Pending
            && let Some(verdict) = skip::verdict(live, no)
        {
            return self.conclude(attempt, verdict);
        }
        let generation = sheet.generation;
        let (kind, ask, resume) = match &sheet.state {
            SheetState::Pending => (AttemptKind::First, Ask::Task, None),
            SheetState::Waiting(wait) => (wait.kind, wait.ask, wait.resume.clone()),
            SheetState::Running(_) | SheetState::Over(_) | SheetState::Done(_) => return,
        };
        let session = match resume {
            Some(session) => SessionChoice::Resume(session),
            // Known before the start, so that a lost start leaves no session that nobody can name.
            None => {
                let name = attempt.to_string();
                SessionChoice::New(uuid::Uuid::new_v5(&self.engine.ledger, name.as_bytes()).to_string())
            }
        };
        let now = self.now.wall;
        let budget = match self.engine.run(run).map(|live| self.engine.budget_of(live, no, now)) {
            Some(Budget::Most(cost)) => Some(cost),
            Some(Budget::None) => None,
            Some(Budget::Reserved(_) | Budget::UsedUp(_)) | None => return,
        };
        self.fact(FactKind::AttemptIntended {
            attempt,
            generation,
            kind,
            ask,
            session: session.clone(),
            budget,
        });
        let start = super::event::Start {
            attempt,
            kind,
            ask,
            session,
            budget,
            revision: self.engine.run(run).map_or(0, |live| live.revision),
        };
        self.decision.commands.push(Command::StartAttempt(start));
    }
}

/// The outcome of an attempt that Mozart or the system cut off.
fn interruption(message: &str, worked: bool, session_id: Option<String>) -> Outcome {
    Outcome {
        failure: Some(Failure {
            message: message.into(),
            ..stopped()
        }),
        worked,
        session_id,
        ..Outcome::default()
    }
}

fn stopped() -> Failure {
    Failure {
        cause: Cause::Interrupted,
        code: Code::E004,
        message: "the session was stopped as asked".into(),
        hint: None,
        limit: None,
    }
}
