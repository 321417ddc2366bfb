//! An independent account of what the engine does, kept from facts and commands alone. It knows the rules in
//! another form than the engine and fails a test at the first step that breaks one.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::event::{SessionChoice, Start, Today};
use crate::engine::rules::RunRules;
use crate::engine::{
    About, Engine, EngineSettings, Fact, FactKind, GateKey, GateKind, Question, QuestionId, Run, Verdict,
};
use crate::job::plan::FailFast;
use crate::model::{
    AccountId, AttemptKind, AttemptRef, Cause, Code, Cost, Generation, Now, Outcome, RunId, RunState, SheetNo,
    Timestamp,
};

#[derive(Debug, Clone)]
pub(crate) struct Audit {
    pub(crate) settings: EngineSettings,
    runs: BTreeMap<RunId, AuditedRun>,
    gates: BTreeMap<GateKey, AuditedGate>,
    questions: BTreeMap<QuestionId, Question>,
    /// Ends of sessions that cost something, and starts: of whom, and when.
    ends: Vec<(Timestamp, AccountId, Cost)>,
    starts: Vec<(Timestamp, AccountId)>,
    /// A day's budget that a person raised, and the end of that day.
    raised: BTreeMap<AccountId, (Timestamp, Cost)>,
    /// What the account's budget was when it started last, on a day with that end, and its sessions at work then.
    last_start: BTreeMap<AccountId, (Timestamp, Cost, i64)>,
    /// Of each account: at how many starts in a minute, how many it might make at once, as of when on the clock that
    /// never steps.
    pace: BTreeMap<AccountId, (u32, f64, i64)>,
    /// First moment of the day, and of the next.
    pub(crate) day: fn(Timestamp) -> (Timestamp, Timestamp),
    /// No session costs more than that beyond what was reserved for it.
    pub(crate) turn: Option<Cost>,
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
    /// The pause after the last sheet, which the next one waits for.
    pause: Option<Due>,
    spent: Cost,
    /// What it may cost, where a person let it cost more.
    raised: Option<Cost>,
    /// What is reserved for the sessions at work.
    budgets: BTreeMap<AttemptRef, Option<Cost>>,
    /// The plan that each session at work was begun with.
    plans: BTreeMap<AttemptRef, u32>,
    /// Sessions at work when it started one last.
    at_once: i64,
    /// Plans so far.
    revision: u32,
    /// The cost of sessions that ended under another plan than they began with, since the newest plan.
    spent_by_earlier_plans: Cost,
    /// Sheets were recovered, and nothing was started since: a run that had failed stays as it was.
    recovered: bool,
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
    /// Faults that it met for its whole account, and whether its last attempt was to find out about those.
    probes: u32,
    probed: bool,
    /// It waits for a limit.
    limited: bool,
    spent: Cost,
    raised: Option<Cost>,
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
            probes: 0,
            probed: false,
            limited: false,
            spent: Cost(0),
            raised: None,
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
            ends: Vec::new(),
            starts: Vec::new(),
            raised: BTreeMap::new(),
            last_start: BTreeMap::new(),
            pace: BTreeMap::new(),
            day: |at| {
                let begins = at.0.div_euclid(DAY) * DAY;
                (Timestamp(begins), Timestamp(begins + DAY))
            },
            turn: None,
            clearing: false,
            sessions: BTreeSet::new(),
        }
    }

    /// What was spent on the day of that moment.
    pub(crate) fn today(&self, now: Timestamp) -> Today {
        let (begins, ends) = (self.day)(now);
        let mut today = Today {
            begins,
            ends,
            ..Today::default()
        };
        for (_, account, cost) in self.ends.iter().filter(|(at, ..)| begins <= *at && *at < ends) {
            let spent = today.spent.entry(account.clone()).or_default();
            spent.cost.0 += cost.0;
            spent.sessions += u32::from(cost.0 > 0);
        }
        today
    }

    pub(crate) fn starts_since(&self, since: Timestamp) -> Vec<(Timestamp, AccountId)> {
        let starts = self.starts.iter().filter(|(at, _)| *at > since);
        starts.cloned().collect()
    }

    /// Nobody knows any more how long ago the last starts were.
    pub(crate) fn forget_pace(&mut self) {
        self.pace.clear();
    }

    /// What the account may spend on the day of that moment.
    fn day_limit(&self, account: &AccountId, now: Timestamp) -> Option<Cost> {
        let limit = self.settings.daily_budget?;
        let raised = self.raised.get(account).filter(|(ends, _)| *ends == (self.day)(now).1);
        Some(raised.map_or(limit, |(_, raised)| limit.max(*raised)))
    }

    fn spent_today(&self, account: &AccountId, now: Timestamp) -> Cost {
        let today = self.today(now);
        today.spent.get(account).map_or(Cost(0), |spent| spent.cost)
    }

    /// A start is within what its run, its sheet and its account may spend, whatever is at work, and within the account's
    /// pace.
    fn may_pay(&mut self, attempt: AttemptRef, budget: Option<Cost>, account: &AccountId, now: Now) {
        let run = &self.runs[&attempt.run];
        let this = budget.map_or(0, |budget| budget.0);
        let limits = run.rules.cost_limits;
        if let Some(limit) = run.raised.or(limits.and_then(|limits| limits.per_job)) {
            let sum = run.spent.0 + run.reserved() + this;
            assert!(budget.is_some() && sum <= limit.0, "{sum} for a job of {limit:?}");
        }
        let sheet = run.sheets.get(&attempt.sheet);
        let raised = sheet.and_then(|sheet| sheet.raised);
        if let Some(limit) = raised.or(limits.and_then(|limits| limits.per_sheet)) {
            let sum = sheet.map_or(0, |sheet| sheet.spent.0) + this;
            assert!(budget.is_some() && sum <= limit.0, "{sum} for a sheet of {limit:?}");
        }
        self.last_start.remove(account);
        if let Some(limit) = self.day_limit(account, now.wall) {
            let of_account = || {
                self.runs
                    .values()
                    .filter(|run| run.rules.account.as_ref() == Some(account))
            };
            let reserved: i64 = of_account().map(AuditedRun::reserved).sum();
            let sum = self.spent_today(account, now.wall).0 + reserved + this;
            assert!(budget.is_some() && sum <= limit.0, "{sum} for a day of {limit:?}");
            let mut all = of_account().flat_map(|run| run.budgets.values());
            if all.all(Option::is_some) {
                let at_work: usize = of_account().map(|run| run.running.len()).sum();
                let (_, ends) = (self.day)(now.wall);
                self.last_start
                    .insert(account.clone(), (ends, limit, at_work as i64 + 1));
            }
        }
        if let Some(most) = self.settings.max_starts_per_minute {
            let full = (most, f64::from(most), now.boot);
            let (was, left, at) = self.pace.get(account).copied().unwrap_or(full);
            let (left, at) = if was == most { (left, at) } else { (full.1, full.2) };
            let a_second = f64::from(most) / 60.0;
            let left = (left + a_second * (now.boot - at) as f64 / 1e6).min(full.1);
            // Less than a second is the ordinary correction of a clock.
            assert!(left + 2.0 * a_second > 0.99, "more starts in a minute than {most}");
            self.pace.insert(account.clone(), (most, left - 1.0, now.boot));
        }
        self.starts.push((now.wall, account.clone()));
    }

    /// A session has ended: what exceeds a budget is one turn of each session at work at most.
    fn has_cost(&mut self, attempt: AttemptRef, outcome: &Outcome, account: &AccountId, now: Now) {
        let run = self.runs.get_mut(&attempt.run).expect("the run was submitted");
        let budget = run.budgets.get(&attempt).copied().flatten();
        let capped = outcome.failure.as_ref().map(|failure| failure.code) == Some(Code::E701);
        let cost = match (outcome.cost, budget) {
            (Some(cost), _) => cost,
            (None, Some(budget)) if capped || outcome.worked => budget,
            (None, _) => Cost(0),
        };
        run.spent.0 += cost.0;
        run.sheets.entry(attempt.sheet).or_default().spent.0 += cost.0;
        self.ends.push((now.wall, account.clone(), cost));
        let of_earlier_plan = run.plans.get(&attempt) != Some(&run.revision);
        if of_earlier_plan {
            // It keeps what was reserved for it then, or may spend what it likes.
            run.spent_by_earlier_plans.0 += cost.0;
        }
        let (Some(turn), Some(budget)) = (self.turn, budget) else {
            return;
        };
        assert!(
            cost.0 <= budget.0 + turn.0,
            "a session exceeds what was reserved for it"
        );
        let limit = run.rules.cost_limits.and_then(|limits| limits.per_job);
        if let Some(limit) = run.raised.or(limit).filter(|_| !of_earlier_plan) {
            let most = limit.0 + turn.0 * run.at_once + run.spent_by_earlier_plans.0;
            assert!(run.spent.0 <= most, "a job exceeds its budget by more than a turn each");
        }
        if let Some((ends, limit, at_once)) = self.last_start.get(account)
            && *ends == (self.day)(now.wall).1
        {
            let spent = self.spent_today(account, now.wall);
            assert!(
                spent.0 <= limit.0 + turn.0 * at_once,
                "a day exceeds its budget by more than a turn each"
            );
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
                    let is_past = *until <= fact.at;
                    let same = before.filter(|before| before.until == *until || is_past);
                    match same {
                        Some(before) if before.until == *until => {
                            assert!(*places > before.places, "it was closed so already");
                        }
                        Some(before) => assert_eq!(*places, before.places, "with the clock only its time moves"),
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
                    // Who started when it was due got through, whatever the calendar says by now.
                    let may_open = self.clearing || !gate.through.is_empty();
                    assert!(may_open, "a gate opened, and nobody got through");
                }
                FactKind::QuestionAsked { question } => {
                    let again = self.questions.insert(question.id.clone(), question.clone());
                    assert_eq!(again, None, "asked twice");
                }
                FactKind::QuestionClosed { id, .. } => {
                    self.questions.remove(id).expect("only an open question closes");
                }
                FactKind::DayDecided { account, ends, limit } => {
                    assert_eq!(*ends, (self.day)(now.wall).1, "decided for another day");
                    match limit {
                        Some(limit) => self.raised.insert(account.clone(), (*ends, *limit)),
                        None => self.raised.remove(account),
                    };
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
                pause: None,
                spent: Cost(0),
                raised: None,
                budgets: BTreeMap::new(),
                plans: BTreeMap::new(),
                at_once: 0,
                revision: 0,
                spent_by_earlier_plans: Cost(0),
                recovered: false,
                held: false,
                ended: None,
                worked: 0,
                working_since: None,
                out_of_time: false,
            };
            assert!(self.runs.insert(id, run).is_none(), "a run is submitted once");
            return;
        }
        if let FactKind::AttemptIntended { attempt, budget, .. } = &fact.kind {
            let run = &self.runs[&id];
            assert!(self.has_room(run, attempt.sheet), "more at work than there is room for");
            let account = run.rules.account.as_ref();
            let asked = self.questions.values().find(|question| match &question.about {
                About::Account { account: whose, .. } | About::Day { account: whose } => Some(whose) == account,
                About::Limit { run, .. } | About::Budget { run, .. } => *run == id,
            });
            assert_eq!(asked, None, "a start before an answer");
            if let Some(account) = account.cloned() {
                self.may_pay(*attempt, *budget, &account, now);
            }
            let run = &self.runs[&id];
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
        if let FactKind::AttemptEnded { attempt, outcome } = &fact.kind {
            if let Some(account) = self.runs[&id].rules.account.clone() {
                self.has_cost(*attempt, outcome, &account, now);
            }
            let mut probed = false;
            for (key, gate) in &mut self.gates {
                probed |= gate.through.remove(attempt) && key.kind == GateKind::Faults;
            }
            let sheets = self.runs.get_mut(&id).map(|run| &mut run.sheets);
            sheets
                .into_iter()
                .for_each(|sheets| sheets.entry(attempt.sheet).or_default().probed = probed);
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
        run.keeps_its_plan(start.attempt, start.revision);
    }

    /// No gate that is closed by now keeps that start, whenever it was intended. (A sheet whose turn comes after it may fail
    /// in the same decision.)
    pub(crate) fn may_start(&self, attempt: AttemptRef, now: Now) {
        let run = &self.runs[&attempt.run];
        for (key, gate) in &self.gates {
            let closed = run.rules.is_kept_by(key) && !gate.due.is_over(now);
            assert!(!closed, "a start on a gate that was closed since");
        }
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
            for (attempt, running) in engine.run(*id).into_iter().flat_map(Run::running) {
                run.keeps_its_plan(attempt, running.revision);
            }
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
                    // What is left of the day's budget is reserved for them.
                    let of_account = |other: &&AuditedRun| other.rules.account.as_ref() == account;
                    let at_work = self.runs.values().filter(of_account).any(|run| !run.running.is_empty());
                    assert!(
                        probed
                            || at_work && self.settings.daily_budget.is_some()
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

/// A day without a change of the clock.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// What the ordinary corrections of a clock may add up to.
const CORRECTED: i64 = 60_000_000;

impl AuditedRun {
    fn reserved(&self) -> i64 {
        self.budgets.values().flatten().map(|budget| budget.0).sum()
    }

    /// A sheet has failed, and it is no matter of the account.
    fn any_failed(&self) -> bool {
        let failed = |sheet: &AuditedSheet| matches!(&sheet.verdict, Some(Verdict::Failed { code, .. }) if !self.rules.is_accounts(*code));
        self.sheets.values().any(failed)
    }

    fn keeps_its_plan(&self, attempt: AttemptRef, revision: u32) {
        let begun_with = self.plans.get(&attempt);
        assert_eq!(Some(&revision), begun_with, "another plan than it was begun with");
    }

    fn worked(&self, now: Now) -> i64 {
        self.worked + self.working_since.map_or(0, |since| now.boot - since)
    }

    fn fact(&mut self, fact: &Fact, now: Now) {
        let sheet = fact.kind.sheet().map(|no| self.sheets.entry(no).or_default());
        let in_sheet = "is about a sheet";
        match &fact.kind {
            FactKind::AttemptIntended {
                attempt,
                generation,
                budget,
                ..
            } => {
                let sheet = sheet.expect(in_sheet);
                assert!(
                    !self.held && self.ended.is_none(),
                    "a start in a run that is held or over"
                );
                assert!(!self.out_of_time, "a start after the run's time");
                self.recovered = false;
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
                    // One that has begun goes first, which it may have done under another plan.
                    let next = sheet.wait.is_some() || self.left.first() == Some(&attempt.sheet);
                    assert!(next, "out of order");
                }
                assert!(self.running.insert(*attempt));
                self.budgets.insert(*attempt, *budget);
                self.plans.insert(*attempt, self.revision);
                self.at_once = self.running.len() as i64;
                assert!(
                    self.running.len() <= self.rules.max_concurrent() as usize,
                    "too many sheets of a run at once"
                );
                let sheets: BTreeSet<_> = self.running.iter().map(|attempt| attempt.sheet).collect();
                assert_eq!(sheets.len(), self.running.len(), "two attempts at one sheet");
                assert_eq!(sheet.verdict, None, "a start after the verdict");
                assert_eq!((*generation, attempt.attempt.0), (sheet.generation, sheet.attempts + 1));
                match (sheet.wait.take(), self.pause) {
                    (Some(due), _) => assert!(due.is_over(now), "a start before the wait is over"),
                    (None, Some(due)) if self.rules.parallel.is_none() => assert!(due.is_over(now), "no pause"),
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
                self.budgets.remove(attempt);
                self.plans.remove(attempt);
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
                    (Cause::Transient, AttemptKind::Probe) => {
                        assert!(sheet.probed, "nobody had it find out about the API's faults");
                        (&mut sheet.probes, 100)
                    }
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
                if ran && self.rules.parallel.is_none() {
                    self.pause = Some(Due::After(now.boot + self.rules.pause_between_sheets.0));
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
                    spent: sheet.spent,
                    raised: sheet.raised,
                    ..AuditedSheet::default()
                };
                self.failed = self.any_failed();
            }
            FactKind::SheetRecovered {
                sheet: no, generation, ..
            } => {
                let sheet = sheet.expect(in_sheet);
                assert!(self.running.is_empty(), "recovered while sessions are at work");
                assert!(!self.done.contains(no), "it was done already");
                assert_eq!(generation.0, sheet.generation.0 + 1);
                *sheet = AuditedSheet {
                    generation: *generation,
                    attempts: sheet.attempts,
                    spent: sheet.spent,
                    raised: sheet.raised,
                    verdict: Some(Verdict::Completed),
                    ..AuditedSheet::default()
                };
                self.left.remove(no);
                self.done.insert(*no);
                self.failed = self.any_failed();
                self.recovered = true;
            }
            FactKind::RunModified { revision, rules, .. } => {
                self.revision += 1;
                self.spent_by_earlier_plans = Cost(0);
                assert_eq!(self.revision, *revision, "a plan was left out");
                let completed = |sheet: &AuditedSheet| sheet.verdict == Some(Verdict::Completed);
                let dropped = self.sheets.iter_mut().filter(|(no, _)| no.0 > rules.sheets);
                for (no, sheet) in dropped.filter(|(_, sheet)| sheet.verdict.is_some() || sheet.wait.is_some()) {
                    assert!(!completed(sheet), "what was done is dropped");
                    assert!(
                        self.running.iter().all(|attempt| attempt.sheet != *no),
                        "dropped at work"
                    );
                    *sheet = AuditedSheet {
                        generation: sheet.generation.next(),
                        attempts: sheet.attempts,
                        spent: sheet.spent,
                        ..AuditedSheet::default()
                    };
                    self.done.remove(no);
                }
                let other_account = self.rules.account != rules.account;
                assert!(!other_account || self.running.is_empty(), "another account's sessions");
                self.left = (1..=rules.sheets).map(SheetNo).collect();
                self.left.retain(|no| {
                    let verdict = self.sheets.get(no).and_then(|sheet| sheet.verdict.as_ref());
                    !matches!(
                        verdict,
                        Some(Verdict::Completed | Verdict::Skipped { .. } | Verdict::Blocked { .. })
                    )
                });
                if self.rules.cost_limits != rules.cost_limits {
                    self.raised = None;
                    self.sheets.values_mut().for_each(|sheet| sheet.raised = None);
                }
                self.rules = rules.clone();
                self.failed = self.any_failed();
            }
            // The account is kept by a clock that is never set.
            FactKind::WaitsMoved { .. } | FactKind::AttemptAnswered { .. } | FactKind::WaitsRenewed { .. } => {}
            FactKind::BudgetRaised { sheet, limit, .. } => match sheet {
                None => self.raised = Some(*limit),
                Some(no) => self.sheets.entry(*no).or_default().raised = Some(*limit),
            },
            FactKind::LimitsLifted { .. } => {
                for sheet in self.sheets.values_mut().filter(|sheet| sheet.limited) {
                    sheet.wait = sheet.wait.take().map(|_| Due::new(now.wall, false, now));
                }
            }
            FactKind::RunPaused { .. } | FactKind::RunCancelling { .. } => self.held = true,
            FactKind::RunResumed { .. } => {
                self.held = false;
                if self.ended.take().is_some() {
                    self.failed = false;
                    self.pause = None;
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
                if *state == RunState::Failed
                    && self.rules.fail_fast() == FailFast::Off
                    && !self.out_of_time
                    && !self.recovered
                {
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
            | FactKind::QuestionClosed { .. }
            | FactKind::DayDecided { .. } => {
                panic!("{} is not about a run's course", fact.kind.name());
            }
        }
    }
}
