//! An independent account of what the engine does, kept from facts and commands alone. It knows the rules in
//! another form than the engine and fails a test at the first step that breaks one.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::event::{SessionChoice, Start};
use crate::engine::rules::RunRules;
use crate::engine::{Engine, EngineSettings, Fact, FactKind, GateKey, Verdict};
use crate::model::{AttemptKind, AttemptRef, Cause, Generation, LimitKind, Now, RunId, RunState, SheetNo, Timestamp};

#[derive(Debug, Clone)]
pub(super) struct Audit {
    pub(super) settings: EngineSettings,
    runs: BTreeMap<RunId, AuditedRun>,
    gates: BTreeMap<GateKey, Due>,
    sessions: BTreeSet<String>,
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
    running: Option<AttemptRef>,
    /// On the clock that never steps.
    last_end: Option<i64>,
    held: bool,
    ended: Option<RunState>,
    throttles: u32,
    quotas: u32,
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
        }
    }
}

impl Audit {
    pub(super) fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            runs: BTreeMap::new(),
            gates: BTreeMap::new(),
            sessions: BTreeSet::new(),
        }
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
    }

    pub(super) fn fact(&mut self, fact: &Fact, now: Now) {
        let busy = self.runs.values().filter(|run| run.running.is_some()).count();
        let Some(id) = fact.kind.run() else {
            match &fact.kind {
                FactKind::GateClosed {
                    gate,
                    until,
                    by_calendar,
                } => {
                    let due = Due::new(*until, *by_calendar, now);
                    let earlier = match (self.gates.insert(gate.clone(), due), due) {
                        (Some(Due::At(earlier)), Due::At(later)) => earlier >= later,
                        (Some(Due::After(earlier)), Due::After(later)) => earlier > later + 1_000_000,
                        (Some(earlier), _) => earlier.is_over(now),
                        (None, _) => false,
                    };
                    assert!(!earlier, "a gate never opens earlier than it said");
                }
                FactKind::GateOpened { gate } => {
                    let due = self.gates.remove(gate).expect("only a closed gate opens");
                    assert!(due.is_over(now), "a gate opened before its time");
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
                running: None,
                last_end: None,
                held: false,
                ended: None,
                throttles: 0,
                quotas: 0,
            };
            assert!(self.runs.insert(id, run).is_none(), "a run is submitted once");
            return;
        }
        let run = self.runs.get_mut(&id).expect("the run was submitted");
        if matches!(fact.kind, FactKind::AttemptIntended { .. }) {
            assert!(
                busy < self.settings.max_concurrent_jobs as usize,
                "more runs at work than there are slots"
            );
            let account = run.rules.account.as_ref();
            let closed = self.gates.keys().find(|gate| Some(&gate.account) == account);
            assert_eq!(closed, None, "a start on a closed gate");
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

    pub(super) fn start(&self, start: &Start) {
        let run = &self.runs[&start.attempt.run];
        assert_eq!(run.running, Some(start.attempt), "a start without an intent");
    }

    pub(super) fn stop(&self, attempt: AttemptRef) {
        let run = &self.runs[&attempt.run];
        assert_eq!(run.running, Some(attempt), "a stop of what does not run");
        assert!(run.sheets[&attempt.sheet].stop_asked, "a stop that was not noted");
    }

    /// Everything that must hold between two steps, and that something will move every run.
    pub(super) fn check(&self, engine: &Engine, now: Now, machine: &BTreeMap<AttemptRef, Start>) {
        let wakeup = engine.next_wakeup(now);
        assert!(wakeup.is_none_or(|at| at > now.wall), "what is due was not done");
        let busy = self.runs.values().filter(|run| run.running.is_some()).count();
        for (id, run) in &self.runs {
            let status = engine.describe(*id, now).expect("is in memory");
            assert_eq!(status.sheets_running, u32::from(run.running.is_some()));
            assert_eq!(status.sheets_done, run.rules.sheets - run.left.len() as u32);
            assert_eq!(status.state.is_ended().then_some(status.state), run.ended);
            if let Some(attempt) = run.running {
                assert!(
                    engine.overlay.stopping || machine.contains_key(&attempt),
                    "nobody was told to start {attempt}"
                );
            }
            match status.state {
                RunState::Running => assert!(run.running.is_some(), "a run that only says it runs"),
                RunState::Waiting => {
                    let until = status.until.expect("a wait has an end");
                    assert!(until > now.wall);
                    if !engine.overlay.stopping {
                        assert!(wakeup.is_some_and(|at| at <= until), "nothing will end the wait");
                    }
                }
                RunState::Queued => {
                    let full = busy >= self.settings.max_concurrent_jobs as usize;
                    assert!(full || engine.overlay.stopping, "a run is queued beside a free slot");
                }
                RunState::Paused => assert!(run.held),
                RunState::Completed => assert!(run.left.is_empty()),
                RunState::Failed | RunState::Cancelled => {}
            }
        }
    }
}

impl AuditedRun {
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
                assert_eq!(self.running.replace(*attempt), None, "two sheets of a run at once");
                assert_eq!(self.left.first(), Some(&attempt.sheet), "out of order");
                assert_eq!(sheet.verdict, None, "a start after the verdict");
                assert_eq!((*generation, attempt.attempt.0), (sheet.generation, sheet.attempts + 1));
                match (sheet.wait.take(), self.last_end) {
                    (Some(due), _) => assert!(due.is_over(now), "a start before the wait is over"),
                    (None, Some(end)) => {
                        let due = Due::After(end + self.rules.pause_between_sheets.0);
                        assert!(due.is_over(now), "no pause");
                    }
                    (None, None) => {}
                }
                sheet.attempts += 1;
                sheet.stop_asked = false;
            }
            FactKind::AttemptStarted { attempt, .. } => assert_eq!(self.running, Some(*attempt)),
            FactKind::StopAsked { attempt } => {
                assert_eq!(self.running, Some(*attempt));
                assert!(
                    !std::mem::replace(&mut sheet.expect(in_sheet).stop_asked, true),
                    "asked twice"
                );
            }
            FactKind::AttemptEnded { attempt, outcome } => {
                assert_eq!(self.running.take(), Some(*attempt), "the end of what does not run");
                let limit = outcome.failure.as_ref().and_then(|failure| failure.limit.as_ref());
                match limit.map(|limit| limit.kind) {
                    Some(LimitKind::Throttle) => self.throttles += 1,
                    Some(LimitKind::Usage) => self.quotas += 1,
                    None => {}
                }
            }
            FactKind::SheetWaits {
                until,
                cause,
                kind,
                by_calendar,
                ..
            } => {
                let sheet = sheet.expect(in_sheet);
                let retry = &self.rules.retry;
                assert!(sheet.verdict.is_none() && sheet.wait.is_none());
                sheet.wait = Some(Due::new(*until, *by_calendar, now));
                let (used, most) = match (cause, kind) {
                    (Cause::Validation, AttemptKind::Completion) => {
                        (&mut sheet.completions, retry.max_completion_attempts)
                    }
                    (Cause::Validation, _) => (&mut sheet.retries, retry.max_retries),
                    (Cause::Transient, _) => (&mut sheet.transients, retry.transient_retries),
                    (Cause::Interrupted, _) => (&mut sheet.interruptions, 20),
                    (Cause::RateLimit, _) => {
                        assert!(self.throttles <= self.rules.rate_limit.max_waits);
                        assert!(self.quotas <= self.rules.rate_limit.max_quota_waits);
                        return;
                    }
                    (Cause::Fatal, _) => panic!("nothing follows on a fatal failure"),
                };
                *used += 1;
                assert!(*used <= most, "more attempts after {cause} than its budget has");
            }
            FactKind::SheetEnded { sheet: no, verdict, .. } => {
                let sheet = sheet.expect(in_sheet);
                assert_eq!(sheet.verdict.replace(verdict.clone()), None, "a verdict changed");
                if matches!(verdict, Verdict::Completed | Verdict::Skipped { .. }) {
                    self.left.remove(no);
                }
                if sheet.attempts > 0 {
                    self.last_end = Some(now.boot);
                }
                sheet.wait = None;
            }
            FactKind::GenerationOpened { generation, .. } => {
                let sheet = sheet.expect(in_sheet);
                assert!(matches!(
                    sheet.verdict,
                    Some(Verdict::Failed { .. } | Verdict::Cancelled)
                ));
                assert_eq!(generation.0, sheet.generation.0 + 1);
                *sheet = AuditedSheet {
                    generation: *generation,
                    attempts: sheet.attempts,
                    ..AuditedSheet::default()
                };
            }
            // The account is kept by a clock that is never set.
            FactKind::WaitsMoved { .. } => {}
            FactKind::RunPaused { .. } | FactKind::RunCancelling { .. } => self.held = true,
            FactKind::RunResumed { .. } => {
                self.held = false;
                if self.ended.take().is_some() {
                    (self.throttles, self.quotas, self.last_end) = (0, 0, None);
                }
            }
            FactKind::RunEnded { state, .. } => {
                assert_eq!(
                    (self.running, self.ended),
                    (None, None),
                    "the end of a run that goes on"
                );
                assert_eq!(
                    *state == RunState::Completed,
                    self.left.is_empty() && *state != RunState::Cancelled
                );
                self.ended = Some(*state);
            }
            FactKind::RunSubmitted { .. } | FactKind::GateClosed { .. } | FactKind::GateOpened { .. } => {
                panic!("{} is not about a run's course", fact.kind.name());
            }
        }
    }
}
