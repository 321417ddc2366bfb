//! A machine for the engine to run on, in virtual time: it commits, applies, and keeps what was started.

use std::collections::BTreeMap;

use crate::engine::event::{PauseWhy, SessionChoice, Start};
use crate::engine::rules::RunRules;
use crate::engine::tests::audit::Audit;
use crate::engine::{
    Choice, Command, Decision, Engine, EngineSettings, Event, Fact, FactKind, REMEMBERED, RunStatus, SheetState,
};
use crate::job::plan::{OnLimit, RateLimitPolicy, RetryPolicy};
use crate::model::{
    AccountId, Ask, AttemptKind, AttemptNo, AttemptRef, Cause, Code, Cost, Failure, JobName, Limit, LimitKind, Now,
    Outcome, RunId, RunNo, RunState, SheetNo, SheetStatus, Span, Timestamp,
};

pub(super) const START: Timestamp = Timestamp(1_800_000_000_000_000);
pub(super) const RUN: RunId = RunId(1);

pub(super) fn secs(seconds: i64) -> Span {
    Span::from_secs(seconds)
}

pub(super) fn minutes(minutes: i64) -> Span {
    secs(60 * minutes)
}

/// The defaults of the job file without jitter, for a run of the Claude CLI.
pub(super) fn rules(sheets: u32) -> RunRules {
    RunRules {
        sheets,
        start_sheet: SheetNo(1),
        found_done: None,
        retry: RetryPolicy {
            max_retries: 3,
            base_delay: secs(10),
            max_delay: secs(3600),
            exponential_base: 2.0,
            jitter: false,
            max_completion_attempts: 3,
            completion_delay: secs(5),
            completion_threshold_percent: 50.0,
            transient_retries: 10,
        },
        rate_limit: RateLimitPolicy {
            detection_patterns: Vec::new(),
            wait: minutes(60),
            max_waits: 24,
            max_quota_waits: 48,
        },
        on_limit: OnLimit::Wait,
        circuit_breaker: None,
        cost_limits: None,
        model: None,
        dependencies: Vec::new(),
        parallel: None,
        pause_between_sheets: secs(0),
        priority: 5,
        account: Some(AccountId("claude".into())),
        resumable: true,
        skip_when: Vec::new(),
    }
}

pub(super) fn success() -> Outcome {
    Outcome {
        failure: None,
        flags: Vec::new(),
        rules_passed: 2,
        rules_total: 2,
        worked: true,
        session_id: Some("theirs".into()),
        session_lost: false,
        exit_code: Some(0),
        skipped: None,
        cost: None,
        cost_estimated: false,
        tokens_in: None,
        tokens_out: None,
    }
}

/// A failure of a session that worked and can be resumed as `theirs`.
pub(super) fn failure(cause: Cause, code: Code) -> Outcome {
    let failure = Failure {
        cause,
        code,
        message: "It failed.".into(),
        hint: None,
        limit: None,
    };
    Outcome {
        failure: Some(failure),
        rules_passed: 0,
        rules_total: 0,
        ..success()
    }
}

pub(super) fn validation(passed: u32, total: u32) -> Outcome {
    Outcome {
        rules_passed: passed,
        rules_total: total,
        ..failure(Cause::Validation, Code::E201)
    }
}

pub(super) fn transient() -> Outcome {
    failure(Cause::Transient, Code::E103)
}

pub(super) fn interrupted() -> Outcome {
    failure(Cause::Interrupted, Code::E004)
}

/// It turned out not to be needed.
pub(super) fn skipped() -> Outcome {
    Outcome {
        skipped: Some("not needed".into()),
        ..Outcome::default()
    }
}

pub(super) fn usage(resets_at: Option<Timestamp>) -> Outcome {
    limited(
        Code::E104,
        Limit {
            resets_at,
            ..limit(LimitKind::Usage, Some("five_hour"))
        },
    )
}

pub(super) fn throttle(retry_after: Option<Span>) -> Outcome {
    limited(
        Code::E101,
        Limit {
            retry_after,
            ..limit(LimitKind::Throttle, None)
        },
    )
}

pub(super) fn limit(kind: LimitKind, window: Option<&str>) -> Limit {
    Limit {
        kind,
        window: window.map(Into::into),
        resets_at: None,
        from_text: false,
        retry_after: None,
    }
}

pub(super) fn limited(code: Code, limit: Limit) -> Outcome {
    let mut outcome = failure(Cause::RateLimit, code);
    if let Some(failure) = &mut outcome.failure {
        failure.limit = Some(limit);
    }
    outcome
}

/// The same, of a session that did nothing.
pub(super) fn without_work(outcome: Outcome) -> Outcome {
    Outcome {
        worked: false,
        session_id: None,
        ..outcome
    }
}

/// Engine, journal and machine.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Now,
    pub(super) journal: Vec<Fact>,
    /// Sessions that the shell was told to start or adopt and that are not over.
    pub(super) machine: BTreeMap<AttemptRef, Start>,
    /// Every start, in order.
    pub(super) starts: Vec<(Timestamp, Start)>,
    pub(super) stops: Vec<AttemptRef>,
    pub(super) audit: Audit,
    /// The engine is told which day it is.
    pub(super) has_days: bool,
    /// When the wall clock was set last, on the clock that never steps.
    clock_set: Option<i64>,
}

impl World {
    pub(super) fn new(slots: u32) -> Self {
        let settings = EngineSettings {
            max_concurrent_jobs: slots,
            ..EngineSettings::default()
        };
        Self {
            audit: Audit::new(settings.clone()),
            engine: Engine::new(settings, uuid::Uuid::from_u128(0x1234_5678), 42),
            now: Now { wall: START, boot: 0 },
            journal: Vec::new(),
            machine: BTreeMap::new(),
            starts: Vec::new(),
            stops: Vec::new(),
            has_days: false,
            clock_set: None,
        }
    }

    /// A world in which one run with these rules was just submitted.
    pub(super) fn with(rules: RunRules) -> Self {
        let mut world = Self::new(5);
        world.submit(1, rules);
        world
    }

    /// The settings are read anew, with that time for each run's sessions.
    pub(super) fn allow(&mut self, job_timeout: Span) {
        let settings = EngineSettings {
            job_timeout,
            ..self.engine.settings().clone()
        };
        self.audit.settings = settings.clone();
        self.set(settings);
    }

    /// Gives it those settings.
    pub(super) fn set(&mut self, settings: EngineSettings) {
        self.event(&Event::SettingsChanged { settings });
    }

    /// From now on each account may spend that much in a day.
    pub(super) fn budget_of_the_day(&mut self, usd: f64) {
        self.has_days = true;
        let settings = EngineSettings {
            daily_budget: Some(Cost::from_usd(usd)),
            ..self.engine.settings().clone()
        };
        self.set(settings);
    }

    /// Submits a run; each is a job of its own.
    pub(super) fn submit(&mut self, run: i64, rules: RunRules) -> Decision {
        self.submit_done(run, rules, Vec::new())
    }

    pub(super) fn submit_done(&mut self, run: i64, rules: RunRules, completed: Vec<SheetNo>) -> Decision {
        let job = JobName::new(format!("job-{run}")).expect("is a name");
        self.event(&Event::Submitted {
            run: RunId(run),
            job,
            no: RunNo(1),
            rules,
            completed,
        })
    }

    /// An event, and what the machine answers to the commands; audited.
    pub(super) fn event(&mut self, event: &Event) -> Decision {
        self.events(std::slice::from_ref(event))
    }

    /// The same for what happens at once.
    pub(super) fn events(&mut self, events: &[Event]) -> Decision {
        let today = self.audit.today(self.now.wall);
        let told = self.engine.today().map(|today| (today.begins, today.ends));
        if self.has_days && told != Some((today.begins, today.ends)) {
            self.step(&[Event::DayBegan { today }]);
        }
        let decision = self.step(events);
        for command in &decision.commands {
            if let Command::AdoptAttempt(start) = command
                && !self.machine.contains_key(&start.attempt)
            {
                self.step(&[Event::NeverRan { attempt: start.attempt }]);
            }
        }
        self.check();
        decision
    }

    /// One step of the conductor: decide, commit, apply, act.
    fn step(&mut self, events: &[Event]) -> Decision {
        let decision = self.decide_and_apply(events);
        let intended: Vec<_> = decision
            .facts
            .iter()
            .filter_map(|fact| match &fact.kind {
                FactKind::AttemptIntended { attempt, .. } => Some(*attempt),
                _ => None,
            })
            .collect();
        for command in &decision.commands {
            match command {
                // Intended a while ago: much may have been heard since.
                Command::StartAttempt(start) if !intended.contains(&start.attempt) => {
                    self.audit.may_start(start.attempt, self.now);
                }
                _ => {}
            }
            self.carry_out(command);
        }
        decision
    }

    fn decide_and_apply(&mut self, events: &[Event]) -> Decision {
        if let [Event::SettingsChanged { settings }] = events {
            self.audit.settings = settings.clone();
        }
        let decision = self.engine.decide_all(self.now, events);
        assert_eq!(
            decision,
            self.engine.decide_all(self.now, events),
            "the same question has the same answer"
        );
        for event in events {
            self.engine.observe(self.now, event);
        }
        self.audit.clearing = matches!(events, [Event::GatesCleared { .. }]);
        for fact in &decision.facts {
            self.audit.fact(fact, self.now);
            self.engine.try_apply(fact).expect("what was decided is legal");
        }
        self.journal.extend(decision.facts.iter().cloned());
        decision
    }

    fn carry_out(&mut self, command: &Command) {
        match command {
            Command::StartAttempt(start) => {
                self.audit.start(start);
                assert!(!self.engine.overlay.stopping, "started while the conductor stops");
                let double = self.machine.insert(start.attempt, start.clone());
                assert_eq!(double, None, "started twice");
                self.starts.push((self.now.wall, start.clone()));
            }
            Command::AdoptAttempt(start) => self.audit.start(start),
            Command::StopAttempt { attempt, .. } => {
                self.audit.stop(*attempt);
                self.stops.push(*attempt);
            }
        }
    }

    pub(super) fn check(&self) {
        self.audit.check(&self.engine, self.now, &self.machine);
    }

    /// The session that runs for a run.
    pub(super) fn session_of(&self, run: RunId) -> Start {
        self.machine
            .values()
            .find(|start| start.attempt.run == run)
            .expect("a session runs")
            .clone()
    }

    /// The only session that runs.
    pub(super) fn session(&self) -> Start {
        assert_eq!(self.machine.len(), 1, "one session runs: {:?}", self.machine);
        self.session_of(self.machine.keys().next().expect("is one").run)
    }

    pub(super) fn finish_attempt(&mut self, attempt: AttemptRef, outcome: Outcome) -> Decision {
        self.finish_together([(attempt, outcome)])
    }

    /// Sessions end, and the conductor hears of all of them at once.
    pub(super) fn finish_together(&mut self, ended: impl IntoIterator<Item = (AttemptRef, Outcome)>) -> Decision {
        let mut events = Vec::new();
        for (attempt, outcome) in ended {
            self.machine.remove(&attempt);
            events.push(Event::AttemptFinished { attempt, outcome });
        }
        self.events(&events)
    }

    /// The only session ends.
    pub(super) fn finish(&mut self, outcome: Outcome) -> Decision {
        let attempt = self.session().attempt;
        self.finish_attempt(attempt, outcome)
    }

    pub(super) fn finish_of(&mut self, run: i64, outcome: Outcome) -> Decision {
        let attempt = self.session_of(RunId(run)).attempt;
        self.finish_attempt(attempt, outcome)
    }

    pub(super) fn pass(&mut self, span: Span) -> Decision {
        self.now.wall = self.now.wall.plus(span);
        self.now.boot += span.0;
        self.event(&Event::Tick)
    }

    /// The wall clock is set, and the conductor is told.
    pub(super) fn set_clock(&mut self, by: Span) -> Decision {
        self.now.wall = self.now.wall.plus(by);
        self.clock_set = Some(self.now.boot);
        self.event(&Event::Tick)
    }

    /// Sleeps until the engine wants to be woken, and says how long that was.
    pub(super) fn sleep(&mut self) -> Span {
        let until = self.engine.next_wakeup(self.now).expect("a timer is set");
        let span = until.since(self.now.wall);
        assert!(span.0 >= 0, "the timer is set in the past");
        self.pass(span);
        span
    }

    pub(super) fn answer(&mut self, choice: Choice) -> Decision {
        let question = self.engine.questions().next().expect("a question is open").id.clone();
        self.event(&Event::Answered { question, choice })
    }

    pub(super) fn pause(&mut self, now: bool) -> Decision {
        self.event(&Event::PauseRequested {
            run: RUN,
            now,
            why: PauseWhy::Person,
        })
    }

    pub(super) fn resume(&mut self) -> Decision {
        self.event(&Event::ResumeRequested { run: RUN })
    }

    pub(super) fn cancel(&mut self) -> Decision {
        self.event(&Event::CancelRequested { run: RUN })
    }

    /// The conductor dies and comes back: the journal is read again, through its JSON.
    pub(super) fn restart(&mut self) -> Decision {
        self.come_back(true)
    }

    /// The power goes: every session is gone, and its files with it.
    pub(super) fn power_cut(&mut self) -> Decision {
        self.machine.clear();
        self.come_back(false)
    }

    fn come_back(&mut self, same_boot: bool) -> Decision {
        let settings = self.engine.settings().clone();
        self.engine = self.replayed();
        self.engine.overlay.settings = settings;
        let today = self.audit.today(self.now.wall);
        let starts = self.audit.starts_since(self.now.wall.plus(Span(-REMEMBERED.0)));
        self.engine.begin_with(self.now, Vec::new(), today, starts);
        // What a step of the clock meant for starts that an earlier conductor made, nobody knows.
        if self.clock_set.is_some_and(|at| self.now.boot - at < REMEMBERED.0) {
            self.audit.forget_pace();
        }
        self.event(&Event::Restored { same_boot })
    }

    /// The engine that the journal gives.
    pub(super) fn replayed(&self) -> Engine {
        let mut engine = Engine::new(self.engine.settings().clone(), self.engine.ledger, self.engine.chance.0);
        for fact in &self.journal {
            let json = serde_json::to_string(fact).expect("is JSON");
            let fact: Fact = serde_json::from_str(&json).expect("is a fact");
            engine.try_apply(&fact).expect("was legal");
        }
        engine
    }

    pub(super) fn status_of(&self, run: i64) -> RunStatus {
        self.engine.describe(RunId(run), self.now).expect("is in memory")
    }

    pub(super) fn status(&self) -> RunStatus {
        self.status_of(1)
    }

    pub(super) fn state(&self) -> RunState {
        self.status().state
    }

    pub(super) fn sheet(&self, sheet: u32) -> &SheetState {
        self.engine
            .run(RUN)
            .and_then(|run| run.sheet(SheetNo(sheet)))
            .expect("is a sheet")
            .state()
    }

    pub(super) fn sheets(&self) -> Vec<SheetStatus> {
        let run = self.engine.run(RUN).expect("is in memory");
        run.sheets().map(|(_, sheet)| sheet.state().status()).collect()
    }
}

/// An attempt of run 1.
pub(super) fn attempt(sheet: u32, attempt: u32) -> AttemptRef {
    AttemptRef {
        run: RUN,
        sheet: SheetNo(sheet),
        attempt: AttemptNo(attempt),
    }
}

/// What matters of a start: which attempt, why, what it is told, and the session that it resumes.
pub(super) fn shape(start: &Start) -> (u32, u32, AttemptKind, Ask, Option<&str>) {
    let resumed = match &start.session {
        SessionChoice::New(_) => None,
        SessionChoice::Resume(session) => Some(session.as_str()),
    };
    (
        start.attempt.sheet.0,
        start.attempt.attempt.0,
        start.kind,
        start.ask,
        resumed,
    )
}
