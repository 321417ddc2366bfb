//! What each event leads to.

use super::budget::{self, Budget};
use super::event::{Command, Decision, Event, PauseWhy, Refusal, SessionChoice};
use super::fact::{About, Choice, FACT_VERSION, Fact, FactKind, GateKey, GateKind, Question, QuestionId, Verdict};
use super::retry::{After, Limited, Situation, after, known_reset};
use super::rules::{RunRules, is_accounts};
use super::run::{Phase, Run};
use super::schedule::{Hold, Next};
use super::sheet::{SheetState, Waiting, next_attempt};
use super::{Engine, Gate};
use crate::job::plan::FailFast;
use crate::model::{
    AccountId, Ask, AttemptKind, AttemptRef, Cause, Code, Cost, Failure, JobName, Limit, Now, Outcome, RunId, RunNo,
    RunState, SheetNo, Span, StopHow, Timestamp,
};

/// A gate through which that many sessions may be under way at once is open.
const WIDE_OPEN: u32 = 16;

/// Decides what follows from `event`.
pub(super) fn decide(engine: &Engine, now: Now, event: &Event) -> Decision {
    let mut draft = Draft {
        engine: engine.clone(),
        now,
        decision: Decision::default(),
    };
    if let Some(by) = engine.overlay.clock.step(now) {
        draft.move_waits(by);
    }
    draft.engine.observe(now, event);
    let followed = match event {
        Event::Submitted {
            run,
            job,
            no,
            rules,
            completed,
        } => draft.submit(*run, job, *no, rules, completed),
        Event::AttemptStarted {
            attempt,
            at,
            invocation,
        } => {
            draft.attempt_started(*attempt, *at, invocation.clone());
            Ok(())
        }
        Event::NeverRan { attempt } => {
            draft.never_ran(*attempt);
            Ok(())
        }
        Event::AttemptFinished { attempt, outcome } => {
            draft.attempt_finished(*attempt, outcome.clone());
            Ok(())
        }
        Event::AttemptAnswered { attempt } => {
            draft.attempt_answered(*attempt);
            Ok(())
        }
        Event::LimitSeen {
            attempt,
            limit,
            refused,
        } => {
            if *refused {
                draft.limit_refused(*attempt, limit);
            }
            Ok(())
        }
        Event::Answered { question, choice } => draft.answered(question, *choice),
        Event::GatesCleared { account } => {
            draft.clear_gates(account.as_ref());
            Ok(())
        }
        Event::PauseRequested { run, now, why } => draft.pause(*run, *now, *why),
        Event::ResumeRequested { run } => draft.resume(*run),
        Event::RetryRequested { run, from } => draft.retry(*run, *from),
        Event::CancelRequested { run } => draft.cancel(*run),
        Event::ShutdownRequested { stop_sessions } => {
            if *stop_sessions {
                draft.stop_everything();
            }
            Ok(())
        }
        Event::Restored { same_boot } => {
            draft.take_up_again(*same_boot);
            Ok(())
        }
        Event::Tick | Event::SettingsChanged { .. } | Event::HoldsChanged { .. } => Ok(()),
    };
    draft.drop_questions();
    draft.go_on();
    draft.decision.refusal = followed.err();
    draft.decision
}

/// A decision in the making, and the engine as it will be after it.
struct Draft {
    engine: Engine,
    now: Now,
    decision: Decision,
}

impl Draft {
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

    /// The API answered the session: gates that it was to find out about open further.
    fn attempt_answered(&mut self, attempt: AttemptRef) {
        let known = self.running(attempt).is_none_or(|running| running.answered);
        if !known && self.open_further(attempt) {
            self.fact(FactKind::AttemptAnswered { attempt });
        }
    }

    /// A session that started after they were due got through: twice as many may be under way. Whether there was any.
    fn open_further(&mut self, attempt: AttemptRef) -> bool {
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

    fn clear_gates(&mut self, account: Option<&AccountId>) {
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

    /// Asks a person, where nobody was asked the same yet. It is named after the attempt that gave rise to it.
    fn ask(&mut self, attempt: AttemptRef, about: About, text: String, choices: &[Choice]) {
        let same = |other: &Question| match (&other.about, &about) {
            (About::Account { account, .. }, About::Account { account: this, .. }) => account == this,
            (About::Limit { run, .. }, About::Limit { run: this, .. }) => run == this,
            (About::Budget { run, .. }, About::Budget { run: this, .. }) => run == this,
            (About::Account { .. } | About::Limit { .. } | About::Budget { .. }, _) => false,
        };
        if !self.engine.questions.values().any(same) {
            let question = Question {
                id: QuestionId(format!("q{attempt}")),
                about,
                text,
                choices: choices.to_vec(),
            };
            self.fact(FactKind::QuestionAsked { question });
        }
    }

    fn answered(&mut self, id: &QuestionId, choice: Choice) -> Result<(), Refusal> {
        let question = self.engine.questions.get(id).cloned();
        let question = question.ok_or_else(|| Refusal::NoSuchQuestion(id.clone()))?;
        if !question.choices.contains(&choice) {
            return Err(Refusal::WrongChoice {
                question: question.id,
                choices: question.choices,
            });
        }
        let waiting: Vec<_> = self.engine.waiting_for(&question.about).map(|run| run.id).collect();
        self.fact(FactKind::QuestionClosed {
            id: question.id,
            choice: Some(choice),
        });
        for run in waiting {
            match (choice, &question.about) {
                (Choice::Stop, _) => self.cancel(run)?,
                (Choice::Retry, _) => self.reopen(run, |live, code| live.rules.is_accounts(code)),
                (Choice::Wait, About::Limit { kind, .. }) => self.fact(FactKind::WaitsRenewed { run, kind: *kind }),
                (Choice::Continue, About::Budget { sheet, .. }) => self.raise_budget(run, *sheet),
                (Choice::Wait | Choice::Continue, _) => {}
            }
        }
        Ok(())
    }

    /// As much again as the job file gives, from what it has cost so far.
    fn raise_budget(&mut self, run: RunId, sheet: Option<SheetNo>) {
        let Some(live) = self.engine.run(run) else { return };
        let limits = live.rules.cost_limits;
        let (limit, spent) = match sheet {
            None => (limits.and_then(|limits| limits.per_job), Some(live.spent)),
            Some(sheet) => (
                limits.and_then(|limits| limits.per_sheet),
                live.sheets.get(sheet).map(|sheet| sheet.spent),
            ),
        };
        if let (Some(limit), Some(spent)) = (limit, spent) {
            let limit = Cost(spent.0.saturating_add(limit.0));
            self.fact(FactKind::BudgetRaised { run, sheet, limit });
        }
    }

    /// Asks for money where nothing else keeps a run from going on.
    fn ask_for_money(&mut self) {
        let now = self.now.wall;
        let short = self
            .engine
            .runs()
            .filter_map(|run| match self.engine.next_of(run, now) {
                Next::Held {
                    why: Hold::Money(sheet, code),
                    ..
                } if !run.is_running() => Some((run, sheet, code)),
                Next::Held { .. } | Next::Ready(_) | Next::Nothing => None,
            });
        let short: Vec<_> = short
            .filter_map(|(run, sheet, code)| {
                let state = run.sheets.get(sheet)?;
                let attempt = next_attempt(run.id, sheet, state);
                let (sheet, text) = if code == Code::E701 {
                    let cost = usd(state.spent);
                    (
                        Some(sheet),
                        format!("sheet {sheet} has cost {cost}, and its budget is used up"),
                    )
                } else {
                    let cost = usd(run.spent);
                    (None, format!("the job has cost {cost}, and its budget is used up"))
                };
                Some((attempt, About::Budget { run: run.id, sheet }, text))
            })
            .collect();
        for (attempt, about, text) in short {
            self.ask(attempt, about, text, &[Choice::Continue, Choice::Stop]);
        }
    }

    /// Opens the next generation of sheets that failed with such a code.
    fn reopen(&mut self, run: RunId, which: impl Fn(&Run, Code) -> bool) {
        let Some(live) = self.engine.run(run) else { return };
        let failed = live.sheets().filter(|(_, sheet)| match &sheet.state {
            SheetState::Done(Verdict::Failed { code, .. }) => which(live, *code),
            SheetState::Pending
            | SheetState::Running(_)
            | SheetState::Over(_)
            | SheetState::Waiting(_)
            | SheetState::Done(_) => false,
        });
        let failed: Vec<_> = failed.map(|(no, sheet)| (no, sheet.generation.next())).collect();
        for (sheet, generation) in failed {
            self.fact(FactKind::GenerationOpened { run, sheet, generation });
        }
    }

    /// A question about which nobody waits any more needs no answer.
    fn drop_questions(&mut self) {
        let questions = self.engine.questions.values();
        let moot = questions.filter(|question| self.engine.waiting_for(&question.about).next().is_none());
        for id in moot.map(|question| question.id.clone()).collect::<Vec<_>>() {
            self.fact(FactKind::QuestionClosed { id, choice: None });
        }
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
        self.fact(FactKind::AttemptEnded { attempt, outcome });
        self.settle(attempt);
    }

    /// Decides what follows on an attempt that is over.
    fn settle(&mut self, attempt: AttemptRef) {
        let AttemptRef { run, sheet, .. } = attempt;
        let Some(live) = self.engine.run(run) else { return };
        let Some(state) = live.sheets.get(sheet) else { return };
        let SheetState::Over(over) = &state.state else { return };
        // What is not done when the run ends is opened again by a resume.
        let cancelling = live.phase == Phase::Cancelling || live.is_failing();
        let next = if cancelling && over.outcome.failure.is_some() {
            After::Verdict(Verdict::Cancelled)
        } else {
            after(&Situation {
                attempt,
                over,
                rules: &live.rules,
                used: state.used,
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

    /// Closes a gate, and says until when it is closed: one that another session closed for longer stays so.
    fn close(&mut self, gate: GateKey, until: Timestamp, by_calendar: bool) -> (Timestamp, bool) {
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
    fn limit_refused(&mut self, attempt: AttemptRef, limit: &Limit) {
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
    fn rest_after_faults(&mut self, run: RunId) {
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
        let state = if live.phase == Phase::Cancelling {
            RunState::Cancelled
        } else if live.is_failing() {
            // Between two attempts: it is not tried again, and a resume opens it anew.
            let waiting: Vec<_> = live.active.iter().copied().collect();
            for sheet in waiting {
                let verdict = Verdict::Cancelled;
                self.fact(FactKind::SheetEnded { run, sheet, verdict });
            }
            RunState::Failed
        } else if live.counts.pending + live.counts.waiting > 0 {
            return;
        } else if live.counts.failed > 0 {
            RunState::Failed
        } else {
            RunState::Completed
        };
        self.fact(FactKind::RunEnded { run, state });
    }

    fn pause(&mut self, run: RunId, now: bool, why: PauseWhy) -> Result<(), Refusal> {
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

    fn resume(&mut self, run: RunId) -> Result<(), Refusal> {
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
    fn retry(&mut self, run: RunId, from: SheetNo) -> Result<(), Refusal> {
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
        // What waits for its next attempt has no verdict yet: it is begun anew like the others.
        let later = |no: SheetNo| no >= from;
        let waiting: Vec<_> = live.active.iter().copied().filter(|no| later(*no)).collect();
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

    fn cancel(&mut self, run: RunId) -> Result<(), Refusal> {
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

    /// Ends the sessions of a run; each is noted before it is asked, and asked once.
    fn stop_sessions(&mut self, run: RunId) {
        let Some(live) = self.engine.run(run) else { return };
        let asked: Vec<_> = live
            .running()
            .filter(|(_, running)| !running.stop_asked)
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
            self.settle(attempt);
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
        // One that is due already is past, and stays so.
        let now = self.now.wall;
        let gates = self.engine.gates.iter();
        let gates = gates.filter(|(_, gate)| !gate.by_calendar && gate.until.plus(by) > now);
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
            let before = self.decision.commands.len();
            self.start(run, sheet);
            if self.decision.commands.len() == before {
                debug_assert!(false, "sheet {sheet} of run {run} could not be started");
                break;
            }
        }
        self.ask_for_money();
    }

    fn start(&mut self, run: RunId, no: SheetNo) {
        let Some(sheet) = self.engine.run(run).and_then(|live| live.sheets.get(no)) else {
            return;
        };
        let attempt = next_attempt(run, no, sheet);
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
        let budget = match self.engine.run(run).map(|live| budget::of(live, no)) {
            Some(Budget::Most(cost)) => Some(cost),
            Some(Budget::None) => None,
            Some(Budget::Reserved | Budget::UsedUp(_)) | None => return,
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
        };
        self.decision.commands.push(Command::StartAttempt(start));
    }
}

fn usd(cost: Cost) -> String {
    format!("${:.2}", cost.as_usd())
}

/// The outcome of an attempt that Mozart or the system cut off.
fn interruption(message: &str, worked: bool, session_id: Option<String>) -> Outcome {
    Outcome {
        failure: Some(Failure {
            message: message.into(),
            ..stopped()
        }),
        flags: Vec::new(),
        rules_passed: 0,
        rules_total: 0,
        worked,
        session_id,
        session_lost: false,
        cost: None,
        tokens_in: None,
        tokens_out: None,
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
