//! Why something does not run, in words, from the same state that decides. Times are given beside the words, so
//! that each client can show them in its own way.

use super::Engine;
use super::event::PauseWhy;
use super::fact::{GateKey, GateKind, Question, Verdict};
use super::run::{Phase, Run};
use super::schedule::{Hold, Load, Next, Short};
use super::sheet::{Sheet, SheetState, Waiting};
use crate::model::{AttemptKind, Cause, Code, Now, RunId, RunState, SheetNo, SheetStatus, Timestamp, count};

/// What is to be said of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// Its state.
    pub state: RunState,
    /// Why it is in that state; empty where the state says all.
    pub reason: String,
    /// When the reason ends by itself, where known.
    pub until: Option<Timestamp>,
    /// Sheets in all.
    pub sheets_total: u32,
    /// Completed or skipped.
    pub sheets_done: u32,
    /// Failed.
    pub sheets_failed: u32,
    /// Running now.
    pub sheets_running: u32,
}

/// How many runs are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overview {
    /// `max_concurrent_jobs`.
    pub slots: u32,
    /// Runs with a sheet running.
    pub running: u32,
    /// Runs that wait for a slot.
    pub queued: u32,
    /// Runs that something outside holds.
    pub waiting: u32,
    /// Runs that a person holds.
    pub paused: u32,
    /// When the first of those that wait goes on by itself, where that is known.
    pub until: Option<Timestamp>,
}

impl Engine {
    /// State and reason of a run; `None` where it is not in memory.
    pub fn describe(&self, run: RunId, now: Now) -> Option<RunStatus> {
        self.run(run).map(|run| self.status_of(run, now.wall, &self.load()))
    }

    /// The same of several runs, with one look at what is taken by all.
    pub fn describe_each(&self, runs: impl IntoIterator<Item = RunId>, now: Now) -> Vec<(RunId, RunStatus)> {
        let load = self.load();
        let runs = runs.into_iter().filter_map(|run| self.run(run));
        runs.map(|run| (run.id, self.status_of(run, now.wall, &load))).collect()
    }

    /// State and reason of a sheet, and until when the reason holds; `None` where there is no such run or sheet.
    pub fn sheet_status(
        &self,
        run: RunId,
        sheet: SheetNo,
        now: Now,
    ) -> Option<(SheetStatus, String, Option<Timestamp>)> {
        let run = self.run(run)?;
        let state = &run.sheets.get(sheet)?.state;
        let (reason, until) = match state {
            SheetState::Running(attempt) if attempt.stop_asked => ("is being stopped".into(), None),
            SheetState::Running(attempt) if attempt.started_at.is_none() => ("starts".into(), None),
            SheetState::Running(_) | SheetState::Over(_) => (String::new(), None),
            SheetState::Done(Verdict::Completed | Verdict::Cancelled) => (String::new(), None),
            SheetState::Done(Verdict::Failed { message, .. }) => (message.clone(), None),
            SheetState::Done(Verdict::Skipped { reason }) => (reason.clone(), None),
            SheetState::Done(Verdict::Blocked { by }) => (format!("blocked by sheet {by}"), None),
            SheetState::Pending | SheetState::Waiting(_) => self.why_idle(run, sheet, now.wall),
        };
        Some((state.status(), reason, until))
    }

    /// The question that a run waits for: what is left of it does not start before the answer.
    pub fn question_for(&self, run: RunId) -> Option<&Question> {
        let run = self.run(run).filter(|run| !run.has_ended())?;
        self.question_of(run)
            .filter(|_| run.counts.pending + run.counts.waiting > 0)
    }

    /// The runs that wait for the answer to a question.
    pub fn waiting_for_answer<'a>(&'a self, question: &'a Question) -> impl Iterator<Item = &'a Run> {
        self.waiting_for(&question.about)
    }

    /// How many runs wait behind a gate.
    pub fn waiting_behind(&self, key: &GateKey, now: Now) -> u32 {
        let closed = self.gates.get(key).is_some_and(|gate| gate.until > now.wall);
        let held = |run: &&Run| match self.next_of(run, now.wall) {
            Next::Held { why, .. } => run.rules.is_kept_by(key) && (closed || matches!(why, Hold::Probe(_))),
            Next::Ready(_) | Next::Nothing => false,
        };
        u32::try_from(self.runs().filter(held).count()).unwrap_or(u32::MAX)
    }

    /// How many runs are in which state; those that have ended are not counted.
    pub fn overview(&self, now: Now) -> Overview {
        let mut overview = Overview {
            slots: self.overlay.settings.max_concurrent_jobs,
            ..Overview::default()
        };
        for run in self.runs() {
            let (state, next) = self.standing(run, now.wall);
            match state {
                RunState::Running => overview.running += 1,
                RunState::Queued => overview.queued += 1,
                RunState::Waiting => overview.waiting += 1,
                RunState::Paused => overview.paused += 1,
                RunState::Completed | RunState::Failed | RunState::Cancelled => {}
            }
            if let Some(Next::Held { until, .. }) = next {
                overview.until = overview.until.into_iter().chain(until).min();
            }
        }
        overview
    }

    /// The state of a run, and what could be started next of it where nothing of it is at work.
    fn standing<'a>(&'a self, run: &'a Run, now: Timestamp) -> (RunState, Option<Next<'a>>) {
        match run.phase {
            Phase::Ended(state) => (state, None),
            Phase::Paused(_) => (RunState::Paused, None),
            Phase::Cancelling => (RunState::Running, None),
            Phase::Open if run.is_running() => (RunState::Running, None),
            Phase::Open => {
                let next = self.next_of(run, now);
                let state = match next {
                    Next::Held { .. } => RunState::Waiting,
                    Next::Ready(_) => RunState::Queued,
                    Next::Nothing => RunState::Running,
                };
                (state, Some(next))
            }
        }
    }

    fn status_of(&self, run: &Run, now: Timestamp, load: &Load<'_>) -> RunStatus {
        let (state, next) = self.standing(run, now);
        let (reason, until) = match (run.phase, next) {
            (Phase::Ended(RunState::Failed), _) => (failure(run), None),
            (Phase::Ended(_), _) => (String::new(), None),
            (Phase::Paused(why), _) => (paused(run, why), None),
            (Phase::Cancelling, _) => (
                match run.counts.running {
                    0 | 1 => "is being cancelled; its session is ending".into(),
                    n => format!("is being cancelled; {n} sessions are ending"),
                },
                None,
            ),
            (Phase::Open, Some(Next::Held { until, why })) => (why.words(), until),
            (Phase::Open, Some(Next::Ready(sheet))) => (self.ready(run, sheet, load), None),
            (Phase::Open, None) if run.out_of_time => {
                let why = "its time is over (`job_timeout_seconds`); its sessions are ending";
                (why.into(), None)
            }
            (Phase::Open, Some(Next::Nothing) | None) => (String::new(), None),
        };
        RunStatus {
            state,
            reason,
            until,
            sheets_total: run.sheets.len(),
            sheets_done: run.counts.completed + run.counts.skipped,
            sheets_failed: run.counts.failed,
            sheets_running: run.counts.running,
        }
    }

    /// Why a run that could start has not.
    fn ready(&self, run: &Run, sheet: SheetNo, load: &Load<'_>) -> String {
        if self.overlay.stopping {
            return "the conductor stops; it goes on with the next start".into();
        }
        self.lacks(self.short(run, sheet, load).unwrap_or(Short::Turn))
    }

    /// What there is too little of.
    fn lacks(&self, short: Short) -> String {
        let settings = &self.overlay.settings;
        match short {
            Short::Jobs(used) => {
                let slots = settings.max_concurrent_jobs;
                let runs = if slots == 1 { "run" } else { "runs" };
                format!("{used} other {runs} at work, `max_concurrent_jobs` is {slots}")
            }
            Short::Places(used) => {
                let places = settings.max_concurrent_sheets;
                format!("{} taken, `max_concurrent_sheets` is {places}", count(used, "place"))
            }
            Short::Sessions(used) => {
                let most = settings.max_sessions_per_account.unwrap_or(used);
                format!(
                    "{} of the account at work, `max_sessions_per_account` is {most}",
                    count(used, "session")
                )
            }
            Short::Turn => "another run's turn comes first".into(),
        }
    }

    fn why_idle(&self, run: &Run, sheet: SheetNo, now: Timestamp) -> (String, Option<Timestamp>) {
        match run.phase {
            Phase::Paused(_) => return ("the run is paused".into(), None),
            Phase::Cancelling | Phase::Ended(_) => return ("the run is over; `resume` goes on with it".into(), None),
            Phase::Open => {}
        }
        if let Some(failed) = run.failed.filter(|_| run.is_failing()) {
            return (format!("sheet {failed} has failed; `resume` goes on"), None);
        }
        if run.out_of_time {
            return ("the run's time is over; `resume` goes on".into(), None);
        }
        if let Some(SheetState::Waiting(waiting)) = run.sheets.get(sheet).map(|sheet| &sheet.state)
            && waiting.until > now
            && run.rules.parallel.is_some()
        {
            return (Hold::Wait(waiting).words(), Some(waiting.until));
        }
        if let Some(unmet) = run.unmet(sheet) {
            return (format!("waits for sheet {unmet}"), None);
        }
        let most = run.rules.max_concurrent();
        if run.rules.parallel.is_some() && run.counts.running >= most {
            return (
                format!("{} at work, `parallel.max_concurrent` is {most}", count(most, "sheet")),
                None,
            );
        }
        let in_order = run.active.first().copied().or_else(|| run.ready.first());
        if run.rules.parallel.is_none()
            && let Some(first) = in_order
            && first != sheet
        {
            return (format!("sheet {first} comes first"), None);
        }
        match self.next_of(run, now) {
            Next::Held { until, why, .. } => (why.words(), until),
            Next::Ready(_) | Next::Nothing => (self.ready(run, sheet, &self.load()), None),
        }
    }
}

/// Which sheet ended the run, and how.
fn failure(run: &Run) -> String {
    let is_failed = |sheet: &Sheet| matches!(sheet.state, SheetState::Done(Verdict::Failed { .. }));
    // Failures that are the account's are not remembered as the run's.
    let first = || run.sheets().find(|(_, sheet)| is_failed(sheet)).map(|(no, _)| no);
    let failed = run
        .failed
        .or_else(first)
        .and_then(|no| Some((no, &run.sheets.get(no)?.state)));
    match failed {
        Some((no, SheetState::Done(Verdict::Failed { code, message, .. }))) => format!("sheet {no}: {code} {message}"),
        Some((
            _,
            SheetState::Pending
            | SheetState::Running(_)
            | SheetState::Over(_)
            | SheetState::Waiting(_)
            | SheetState::Done(_),
        ))
        | None => String::new(),
    }
}

fn paused(run: &Run, why: PauseWhy) -> String {
    let why = match why {
        PauseWhy::Person => "as asked",
        PauseWhy::Interrupted => "interrupted",
    };
    let mut running = run.running();
    match (running.next(), running.count()) {
        (Some((attempt, _)), 0) => format!("{why}; sheet {} is still at work", attempt.sheet),
        (Some(_), others) => format!("{why}; {} sheets are still at work", others + 1),
        (None, _) => why.into(),
    }
}

impl GateKey {
    /// What it keeps sessions away from, in words.
    pub fn words(&self) -> String {
        let what = match self.kind {
            GateKind::Usage => "usage limit",
            GateKind::Throttle => "throttled by the API",
            GateKind::Faults => "too many faults in a row",
        };
        match &self.window {
            Some(window) => format!("{what} ({window})"),
            None => what.into(),
        }
    }
}

impl Hold<'_> {
    /// What holds, as a phrase that "until …" may follow.
    fn words(&self) -> String {
        match self {
            Self::Gate(key) => key.words(),
            Self::Probe(key) => format!("{}: a session finds out whether it is over", key.words()),
            Self::Question(question) => {
                let words: Vec<&str> = question.choices.iter().map(|choice| choice.as_str()).collect();
                let (id, text) = (&question.id.0, question.text.trim_end_matches(['.', ' ']));
                format!("question {id}: {text}; answer it with {}", words.join(" or "))
            }
            Self::Reserved(Code::E703) => "the sessions at work have reserved what is left of the day's budget".into(),
            Self::Reserved(_) => "the sessions at work have reserved what is left of the job's budget".into(),
            Self::Tomorrow => "the budget of the day is used up (`daily_budget_usd`)".into(),
            Self::Money(_, code) => format!("{code} ({})", code.meaning()),
            Self::Pace => "pace of starts (`resource_limits.max_api_calls_per_minute`)".into(),
            Self::Conductor(why) => (*why).to_owned(),
            Self::Wait(Waiting { cause, code, kind, .. }) => {
                let what = match cause {
                    Cause::Validation if *kind == AttemptKind::Completion => "completion attempt",
                    Cause::Validation => "retry",
                    Cause::Transient | Cause::Fatal => "backoff",
                    Cause::RateLimit => "limit",
                    Cause::Interrupted => "goes on",
                };
                format!("{what} after {code} ({})", code.meaning())
            }
            Self::Between => "pause between sheets".into(),
        }
    }
}
