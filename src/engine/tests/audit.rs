//! An independent account of what the engine does, kept from facts and commands alone. It knows the rules in
//! another form than the engine and fails a test at the first step that breaks one.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::event::{SessionChoice, Start};
use crate::engine::rules::RunRules;
use crate::engine::{About, Engine, EngineSettings, Fact, FactKind, GateKey, Question, QuestionId, Verdict};
use crate::job::plan::FailFast;
use crate::model::{AttemptKind, AttemptRef, Cause, Code, Generation, Now, RunId, RunState, SheetNo, Timestamp};

#[derive(Debug, Clone)]
pub(crate) struct Audit {
    pub(crate) settings: EngineSettings,
    runs: BTreeMap<RunId, AuditedRun>,
    gates: BTreeMap<GateKey, AuditedGate>,
    questions: BTreeMap<QuestionId, Question>,
    /// A person clears gates just now.
    pub(crate) clearing: bool,
    sessions: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct AuditedGate {
    due: Due,
    until: Timestamp,
    places: u32,
    /// Sessions at work that started after it was due.
    through: BTreeSet<AttemptRef>,
}

/// When a wait is over: by the calendar, or by the clock that never steps.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Due {
    At(Timestamp),
    After(i64),
}

impl Due {
    fn new(until: Timestamp, by_calendar: bool, now: Now) -> Self {
        match by_calendar {
            true => Self::At(until),
            false => Self::After(now.boot + until.since(now.wall).0),
        }
    }

    fn is_over(self, now: Now) -> bool {
        match self {
            Self::At(until) => until <= now.wall,
            // Less than a second is the ordinary correction of a clock.
            Self::After(boot) => boot <= now.boot + 1_000_000,
        }
    }
}

#[derive(Debug, Clone)]
struct AuditedRun {
    rules: RunRules,
    /// Sheets that are neither completed nor skipped.
    left: BTreeSet<SheetNo>,
    sheets: BTreeMap<SheetNo, AuditedSheet>,
    running: BTreeSet<AttemptRef>,
    /// Completed or skipped.
    done: BTreeSet<SheetNo>,
    /// A sheet failed since it was submitted or resumed.
    failed: bool,
    /// On the clock that never steps.
    last_end: Option<i64>,
    held: bool,
    ended: Option<RunState>,
    /// Time with sessions at work, on the clock that never steps, and since when there are some.
    worked: i64,
    working_since: Option<i64>,
    out_of_time: bool,
}

#[derive(Debug, Clone)]
struct AuditedSheet {
    generation: Generation,
    verdict: Option<Verdict>,
    attempts: u32,
    stop_asked: bool,
    wait: Option<Due>,
    retries: u32,
    completions: u32,
    transients: u32,
    interruptions: u32,
    /// It waits for a limit.
    limited: bool,
}

impl Default for AuditedSheet {
    fn default() -> Self {
        Self {
            generation: Generation(1),
            verdict: None,
            attempts: 0,
            stop_asked: false,
            wait: None,
            retries: 0,
            completions: 0,
            transients: 0,
            interruptions: 0,
            limited: false,
        }
    }
}

impl Audit {
    pub(crate) fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            runs: BTreeMap::new(),
            gates: BTreeMap::new(),
            questions: BTreeMap::new(),
            clearing: false,
            sessions: BTreeSet::new(),
        }
    }

    pub(crate) fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
    }

    pub(crate) fn fact(&mut self, fact: &Fact, now: Now) {
        let Some(id) = fact.kind.run() else {
            match &fact.kind {
                FactKind::GateClosed {
                    gate,
                    until,
                    by_calendar,
                    places,
                } => {
                    let due = Due::new(*until, *by_calendar, now);
                    let before = self.gates.get(gate);
                    let not_over = before.map(|gate| gate.due).filter(|due| !due.is_over(now));
                    let earlier = match (not_over, due) {
                        (Some(Due::At(earlier)), Due::At(later)) => earlier > later,
                        (Some(Due::After(earlier)), Due::After(later)) => earlier > later + 1_000_000,
                        (Some(_), _) | (None, _) => false,
                    };
                    assert!(!earlier, "a gate never opens earlier than it said");
                    let same = before.filter(|before| before.until == *until);
                    match same {
                        Some(before) => assert!(*places > before.places, "it was closed so already"),
                        None => assert!(*places == 1 || before.is_some(), "it opens further than it was"),
                    }
                    let through = same.map(|before| before.through.clone()).unwrap_or_default();
                    let after = AuditedGate {
                        due,
                        until: *until,
                        places: *places,
                        through,
                    };
                    self.gates.insert(gate.clone(), after);
                }
                FactKind::GateOpened { gate } => {
                    let gate = self.gates.remove(gate).expect("only a closed gate opens");
                    assert!(self.clearing || gate.due.is_over(now), "a gate opened before its time");
                }
                FactKind::QuestionAsked { question } => {
                    let again = self.questions.insert(question.id.clone(), question.clone());
                    assert_eq!(again, None, "asked twice");
                }
                FactKind::QuestionClosed { id, .. } => {
                    self.questions.remove(id).expect("only an open question closes");
                }
                other => panic!("{other:?} is of no run"),
            }
            return;
        };
        if let FactKind::RunSubmitted { rules, .. } = &fact.kind {
            let run = AuditedRun {
                rules: rules.clone(),
                left: (1..=rules.sheets).map(SheetNo).collect(),
                sheets: BTreeMap::new(),
                running: BTreeSet::new(),
                done: BTreeSet::new(),
                failed: false,
                last_end: None,
                held: false,
                ended: None,
                worked: 0,
                working_since: None,
                out_of_time: false,
            };
            assert!(self.runs.insert(id, run).is_none(), "a run is submitted once");
            return;
        }
        if let FactKind::AttemptIntended { attempt, .. } = &fact.kind {
            let run = &self.runs[&id];
            assert!(self.has_room(run, attempt.sheet), "more at work than there is room for");
            let account = run.rules.account.as_ref();
            let asked = self.questions.values().find(|question| match &question.about {
                About::Account { account: whose, .. } => Some(whose) == account,
                About::Limit { run, .. } | About::Budget { run, .. } => *run == id,
            });
            assert_eq!(asked, None, "a start before an answer");
            for (key, gate) in &mut self.gates {
                if run.rules.is_kept_by(key) {
                    assert!(gate.due.is_over(now), "a start on a closed gate");
                    gate.through.insert(*attempt);
                    assert!(
                        gate.through.len() <= gate.places as usize,
                        "too many through a gate that opens"
                    );
                }
            }
        }
        if let FactKind::AttemptEnded { attempt, .. } = &fact.kind {
            self.gates.values_mut().for_each(|gate| {
                gate.through.remove(attempt);
            });
        }
        let run = self.runs.get_mut(&id).expect("the run was submitted");
        if matches!(fact.kind, FactKind::RunOutOfTime { .. }) {
            let worked = run.worked(now);
            assert!(
                worked + CORRECTED >= self.settings.job_timeout.0,
                "ended before its time"
            );
            run.out_of_time = true;
            return;
        }
        if let FactKind::AttemptIntended {
            session: SessionChoice::New(session),
            ..
        } = &fact.kind
        {
            assert!(
                self.sessions.insert(session.clone()),
                "two attempts share a new session"
            );
        }
        run.fact(fact, now);
    }

    /// Whether a sheet of that run is within every limit on what runs at once.
    fn has_room(&self, run: &AuditedRun, sheet: SheetNo) -> bool {
        let others = || self.runs.values().filter(|other| !other.running.is_empty());
        let weights = |run: &AuditedRun| -> u32 {
            let running = run.running.iter();
            running.map(|attempt| run.rules.weight(attempt.sheet)).sum()
        };
        let places: u32 = others().map(weights).sum();
        let most = self.settings.max_concurrent_sheets;
        let of_account = others().filter(|other| other.rules.account == run.rules.account);
        let sessions: usize = of_account.map(|other| other.running.len()).sum();
        let limit = self
            .settings
            .max_sessions_per_account
            .filter(|_| run.rules.account.is_some());
        (!run.running.is_empty() || others().count() < self.settings.max_concurrent_jobs as usize)
            && places + run.rules.weight(sheet).min(most) <= most
            && limit.is_none_or(|limit| sessions < limit as usize)
    }

    pub(crate) fn start(&self, start: &Start) {
        let run = &self.runs[&start.attempt.run];
        assert!(run.running.contains(&start.attempt), "a start without an intent");
    }

    pub(crate) fn stop(&self, attempt: AttemptRef) {
        let run = &self.runs[&attempt.run];
        assert!(run.running.contains(&attempt), "a stop of what does not run");
        assert!(run.sheets[&attempt.sheet].stop_asked, "a stop that was not noted");
    }

    /// Everything that must hold between two steps, and that something will move every run.
    pub(crate) fn check(&self, engine: &Engine, now: Now, machine: &BTreeMap<AttemptRef, Start>) {
        let wakeup = engine.next_wakeup(now);
        assert!(wakeup.is_none_or(|at| at > now.wall), "what is due was not done");
        let mut queued = 0;
        for (id, run) in &self.runs {
            let Some(status) = engine.describe(*id, now) else {
                assert!(run.ended.is_some(), "a run that goes on is forgotten");
                continue;
            };
            let time_left = self.settings.job_timeout.0 + CORRECTED - run.worked(now);
            assert!(
                time_left >= 0 || run.out_of_time || run.held || run.working_since.is_none(),
                "at work for longer than it may be"
            );
            assert_eq!(status.sheets_running, run.running.len() as u32);
            assert_eq!(status.sheets_done, run.rules.sheets - run.left.len() as u32);
            assert_eq!(status.state.is_ended().then_some(status.state), run.ended);
            for attempt in &run.running {
                assert!(
                    engine.overlay.stopping || machine.contains_key(attempt),
                    "nobody was told to start {attempt}"
                );
            }
            match status.state {
                RunState::Running => assert!(!run.running.is_empty(), "a run that only says it runs"),
                RunState::Waiting if status.until.is_none() => {
                    let account = run.rules.account.as_ref();
                    let probed = self
                        .gates
                        .iter()
                        .any(|(key, gate)| Some(&key.account) == account && !gate.through.is_empty());
                    assert!(
                        probed
                            || !self.questions.is_empty()
                            || !engine.overlay.holds.is_empty()
                            || engine.overlay.stopping,
                        "nobody knows what it waits for: {}",
                        status.reason
                    );
                }
                RunState::Waiting => {
                    let until = status.until.expect("a wait has an end");
                    assert!(until > now.wall);
                    if !engine.overlay.stopping {
                        assert!(wakeup.is_some_and(|at| at <= until), "nothing will end the wait");
                    }
                }
                RunState::Queued => queued += 1,
                RunState::Paused => assert!(run.held),
                RunState::Completed => assert!(run.left.is_empty()),
                RunState::Failed | RunState::Cancelled => {}
            }
        }
        // Sessions that end make room for who is queued.
        let at_work = self.runs.values().any(|run| !run.running.is_empty());
        assert!(
            queued == 0 || at_work || engine.overlay.stopping,
            "a run is queued, and nothing is at work"
        );
    }
}

/// What the ordinary corrections of a clock may add up to.
const CORRECTED: i64 = 60_000_000;

impl AuditedRun {
    fn worked(&self, now: Now) -> i64 {
        self.worked + self.working_since.map_or(0, |since| now.boot - since)
    }

    fn fact(&mut self, fact: &Fact, now: Now) {
        let sheet = fact.kind.sheet().map(|no| self.sheets.entry(no).or_default());
        let in_sheet = "is about a sheet";
        match &fact.kind {
            FactKind::AttemptIntended {
                attempt, generation, ..
            } => {
                let sheet = sheet.expect(in_sheet);
                assert!(
                    !self.held && self.ended.is_none(),
                    "a start in a run that is held or over"
                );
                assert!(!self.out_of_time, "a start after the run's time");
                self.working_since.get_or_insert(now.boot);
                assert!(
                    !self.failed || self.rules.fail_fast() == FailFast::Off,
                    "a start after a failure"
                );
                let needs = self
                    .rules
                    .dependencies
                    .iter()
                    .filter_map(|dependency| dependency.needs(attempt.sheet));
                let unmet = needs
                    .flat_map(|needs| needs.sheets())
                    .find(|sheet| !self.done.contains(sheet));
                assert_eq!(unmet, None, "a start before what it waits for is done");
                if self.rules.parallel.is_none() && self.rules.dependencies.is_empty() {
                    assert_eq!(self.left.first(), Some(&attempt.sheet), "out of order");
                }
                assert!(self.running.insert(*attempt));
                assert!(
                    self.running.len() <= self.rules.max_concurrent() as usize,
                    "too many sheets of a run at once"
                );
                let sheets: BTreeSet<_> = self.running.iter().map(|attempt| attempt.sheet).collect();
                assert_eq!(sheets.len(), self.running.len(), "two attempts at one sheet");
                assert_eq!(sheet.verdict, None, "a start after the verdict");
                assert_eq!((*generation, attempt.attempt.0), (sheet.generation, sheet.attempts + 1));
                match (sheet.wait.take(), self.last_end) {
                    (Some(due), _) => assert!(due.is_over(now), "a start before the wait is over"),
                    (None, Some(end)) if self.rules.parallel.is_none() => {
                        let due = Due::After(end + self.rules.pause_between_sheets.0);
                        assert!(due.is_over(now), "no pause");
                    }
                    (None, _) => {}
                }
                let never = (attempt.sheet, "True".to_owned());
                assert!(
                    sheet.attempts > 0 || !self.rules.skip_when.contains(&never),
                    "a start of what is always skipped"
                );
                sheet.attempts += 1;
                sheet.stop_asked = false;
            }
            FactKind::AttemptStarted { attempt, .. } => assert!(self.running.contains(attempt)),
            FactKind::StopAsked { attempt } => {
                assert!(self.running.contains(attempt));
                assert!(
                    !std::mem::replace(&mut sheet.expect(in_sheet).stop_asked, true),
                    "asked twice"
                );
            }
            FactKind::AttemptEnded { attempt, .. } => {
                assert!(self.running.remove(attempt), "the end of what does not run");
                if self.running.is_empty() {
                    self.worked = self.worked(now);
                    self.working_since = None;
                }
            }
            FactKind::SheetWaits {
                until,
                cause,
                code,
                kind,
                by_calendar,
                ..
            } => {
                let sheet = sheet.expect(in_sheet);
                let retry = &self.rules.retry;
                assert!(sheet.verdict.is_none() && sheet.wait.is_none());
                sheet.wait = Some(Due::new(*until, *by_calendar, now));
                sheet.limited = *cause == Cause::RateLimit;
                let (used, most) = match (cause, kind) {
                    (Cause::Validation, AttemptKind::Completion) => {
                        (&mut sheet.completions, retry.max_completion_attempts)
                    }
                    (Cause::Validation, _) => (&mut sheet.retries, retry.max_retries),
                    (Cause::Transient, _) => (&mut sheet.transients, retry.transient_retries),
                    (Cause::Interrupted, _) => (&mut sheet.interruptions, 20),
                    (Cause::RateLimit, _) => {
                        return;
                    }
                    // The session used up what was reserved for it.
                    (Cause::Fatal, _) if *code == Code::E701 => return,
                    (Cause::Fatal, _) => panic!("nothing follows on a fatal failure"),
                };
                *used += 1;
                assert!(*used <= most, "more attempts after {cause} than its budget has");
            }
            FactKind::SheetEnded { sheet: no, verdict, .. } => {
                let sheet = sheet.expect(in_sheet);
                assert_eq!(sheet.verdict.replace(verdict.clone()), None, "a verdict changed");
                if matches!(
                    verdict,
                    Verdict::Completed | Verdict::Skipped { .. } | Verdict::Blocked { .. }
                ) {
                    self.left.remove(no);
                }
                if matches!(verdict, Verdict::Completed | Verdict::Skipped { .. }) {
                    self.done.insert(*no);
                }
                if let Verdict::Blocked { by } = verdict {
                    assert!(self.failed && !self.done.contains(by));
                }
                self.failed |= matches!(verdict, Verdict::Failed { code, .. } if !self.rules.is_accounts(*code));
                let ran = sheet.attempts > 0 && !matches!(verdict, Verdict::Skipped { .. } | Verdict::Cancelled);
                if ran {
                    self.last_end = Some(now.boot);
                }
                sheet.wait = None;
            }
            FactKind::GenerationOpened { generation, .. } => {
                let sheet = sheet.expect(in_sheet);
                assert!(sheet.verdict.is_some(), "a generation without a verdict is not over");
                fact.kind.sheet().map(|no| self.done.remove(&no));
                self.left.extend(fact.kind.sheet());
                assert_eq!(generation.0, sheet.generation.0 + 1);
                *sheet = AuditedSheet {
                    generation: *generation,
                    attempts: sheet.attempts,
                    ..AuditedSheet::default()
                };
            }
            // The account is kept by a clock that is never set.
            FactKind::WaitsMoved { .. }
            | FactKind::AttemptAnswered { .. }
            | FactKind::WaitsRenewed { .. }
            | FactKind::BudgetRaised { .. } => {}
            FactKind::LimitsLifted { .. } => {
                let limited = self.sheets.values_mut().filter(|sheet| sheet.limited);
                limited.for_each(|sheet| sheet.wait = None);
            }
            FactKind::RunPaused { .. } | FactKind::RunCancelling { .. } => self.held = true,
            FactKind::RunResumed { .. } => {
                self.held = false;
                if self.ended.take().is_some() {
                    self.failed = false;
                    self.last_end = None;
                    (self.worked, self.out_of_time) = (0, false);
                }
            }
            FactKind::RunEnded { state, .. } => {
                assert!(
                    self.running.is_empty() && self.ended.is_none(),
                    "the end of a run that goes on"
                );
                let all_done = self.done.len() == self.rules.sheets as usize;
                assert_eq!(*state == RunState::Completed, all_done && *state != RunState::Cancelled);
                if *state == RunState::Failed && self.rules.fail_fast() == FailFast::Off && !self.out_of_time {
                    let verdicts = self.sheets.values().filter(|sheet| sheet.verdict.is_some()).count();
                    assert_eq!(verdicts, self.rules.sheets as usize, "a sheet without a verdict");
                }
                self.ended = Some(*state);
            }
            FactKind::RunSubmitted { .. }
            | FactKind::RunOutOfTime { .. }
            | FactKind::GateClosed { .. }
            | FactKind::GateOpened { .. }
            | FactKind::QuestionAsked { .. }
            | FactKind::QuestionClosed { .. } => {
                panic!("{} is not about a run's course", fact.kind.name());
            }
        }
    }
}
