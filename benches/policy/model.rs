//! One account and what it refuses, sessions that ask it, and two policies that start them, in virtual time.
//!
//! A session asks the API once a turn. What it has done is done: both policies go on where it was cut off, so that the
//! two differ in nothing but when they start. Mozart's policy is the engine itself.

use std::collections::HashMap;

use mozart::engine::rules::RunRules;
use mozart::engine::{Command, Engine, EngineSettings, Event};
use mozart::model::{
    AttemptRef, Cause, Code, Failure, JobName, Limit, LimitKind, Now, Outcome, RunId, RunNo, Span, Timestamp,
};

use super::rules::rules;

/// Times are in microseconds since everything was submitted.
pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;

/// From a session's start to its first request.
const BEGINS: i64 = 1_500_000;
/// From a request that was refused to the session's end.
const LEAVES: i64 = SECOND;
/// The CLI asks again by itself where the API is overloaded or throttles: that often, and that far apart.
const ASKS_AGAIN: (u32, i64) = (6, 30 * SECOND);
/// The share of a window, in percent, from which on each answer warns of it.
const WARNS: u64 = 80;

/// So many turns in so much time.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) name: &'static str,
    pub(crate) lasts: i64,
    pub(crate) holds: u32,
    /// When it is full again: fixed from the beginning on, or `lasts` after the first turn in it.
    pub(crate) resets_at: Option<i64>,
    pub(crate) used: u32,
}

impl Window {
    pub(crate) fn new(name: &'static str, lasts: i64, holds: u32, resets_at: Option<i64>) -> Self {
        Self {
            name,
            lasts,
            holds,
            resets_at,
            used: 0,
        }
    }

    fn roll(&mut self, now: i64) {
        if self.resets_at.is_some_and(|at| at <= now) {
            (self.resets_at, self.used) = (None, 0);
        }
    }

    fn is_used_up(&self, now: i64) -> bool {
        self.used >= self.holds && self.resets_at.is_some_and(|at| at > now)
    }

    fn limit(&self) -> Limit {
        Limit {
            kind: LimitKind::Usage,
            window: Some(self.name.to_owned()),
            resets_at: self.resets_at.map(wall),
            from_text: false,
            retry_after: None,
        }
    }
}

/// A time in which the API refuses, whatever is left of the windows.
#[derive(Debug, Clone)]
pub(crate) struct Storm {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) refuses: Refuses,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Refuses {
    /// More requests than that in a minute, with the rest of the minute as `retry-after`.
    MoreThan(u32),
    /// All but one of so many, as overloaded.
    AllButOneOf(u32),
}

/// The account, as the API keeps it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) windows: Vec<Window>,
    pub(crate) storms: Vec<Storm>,
    asked: u32,
    minute: (i64, u32),
}

#[derive(Debug)]
enum Answer {
    Works(Option<Limit>),
    Refused(Limit),
    Overloaded,
}

impl Account {
    pub(crate) fn new(windows: Vec<Window>, storms: Vec<Storm>) -> Self {
        Self {
            windows,
            storms,
            ..Self::default()
        }
    }

    fn ask(&mut self, now: i64) -> Answer {
        self.windows.iter_mut().for_each(|window| window.roll(now));
        let used_up = self.windows.iter().filter(|window| window.is_used_up(now));
        if let Some(window) = used_up.max_by_key(|window| window.resets_at) {
            return Answer::Refused(window.limit());
        }
        for storm in self.storms.iter().filter(|storm| (storm.from..storm.to).contains(&now)) {
            match storm.refuses {
                Refuses::AllButOneOf(many) => {
                    self.asked += 1;
                    if !self.asked.is_multiple_of(many) {
                        return Answer::Overloaded;
                    }
                }
                Refuses::MoreThan(most) => {
                    let minute = now / MINUTE;
                    let (last, asked) = self.minute;
                    self.minute = (minute, if last == minute { asked + 1 } else { 1 });
                    if self.minute.1 > most {
                        return Answer::Refused(Limit {
                            kind: LimitKind::Throttle,
                            window: None,
                            resets_at: None,
                            from_text: false,
                            retry_after: Some(Span((minute + 1) * MINUTE - now)),
                        });
                    }
                }
            }
        }
        for window in &mut self.windows {
            window.resets_at.get_or_insert(now + window.lasts);
            window.used += 1;
        }
        let warns = self
            .windows
            .iter()
            .find(|window| u64::from(window.used) * 100 >= u64::from(window.holds) * WARNS);
        Answer::Works(warns.map(Window::limit))
    }

    /// Whether somebody who asked now would be heard, as far as windows go and the API is not overloaded.
    fn is_open(&self, now: i64) -> bool {
        let overloaded =
            |storm: &Storm| matches!(storm.refuses, Refuses::AllButOneOf(_)) && (storm.from..storm.to).contains(&now);
        !self.windows.iter().any(|window| window.is_used_up(now)) && !self.storms.iter().any(overloaded)
    }

    /// When that changes by itself next.
    fn changes_at(&self, now: i64) -> Option<i64> {
        let resets = self.windows.iter().filter_map(|window| window.resets_at);
        let storms = self.storms.iter().flat_map(|storm| [storm.from, storm.to]);
        resets.chain(storms).filter(|at| *at > now).min()
    }
}

/// A sheet of a job, both from 0.
pub(crate) type Place = (usize, usize);

/// What a policy hears of a session.
#[derive(Debug)]
pub(crate) enum Told {
    /// The API answered it for the first time.
    Answered,
    /// How a limit stands.
    Warned(Limit),
    /// A limit refused it; its end follows.
    Refused(Limit),
    /// It is over.
    Ended { end: End, worked: bool },
}

#[derive(Debug, Clone)]
pub(crate) enum End {
    Done,
    Limited(Limit),
    Overloaded,
}

/// Decides what is started when.
pub(crate) trait Policy {
    /// The beginning, and every moment that it asked for; gives what it starts.
    fn wakes(&mut self, now: i64) -> Vec<Place>;
    /// Hears of a session; gives what it starts because of it.
    fn hears(&mut self, now: i64, place: Place, told: Told) -> Vec<Place>;
    /// When it is to be woken next.
    fn alarm(&self) -> Option<i64>;
}

/// A session at work.
#[derive(Debug)]
struct Session {
    place: Place,
    started: i64,
    worked: bool,
    /// How often it asked in vain for its present turn.
    again: u32,
    /// When it asks next, or ends like that.
    next: i64,
    end: Option<End>,
}

/// A reset that a session was told of when it was refused.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) window: String,
    pub(crate) reset: i64,
    /// When the first of them was heard.
    pub(crate) heard: i64,
    /// Sessions that were started after that, and before the reset, to be refused.
    pub(crate) refused: u32,
    /// How long after the reset a turn was worked again; none where another window was used up by then.
    pub(crate) resumed: Option<i64>,
}

/// What came of a policy.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) starts: u32,
    /// Sessions that were refused before they had worked.
    pub(crate) wasted: u32,
    /// Sessions that were refused amid their work.
    pub(crate) cut_off: u32,
    /// For how long nothing ran, though there was work and the account was open.
    pub(crate) idle: i64,
    /// When the last sheet was done.
    pub(crate) finished: i64,
    /// Jobs that nothing but a person moves any more.
    pub(crate) given_up: usize,
    pub(crate) closings: Vec<Closing>,
}

/// The turns that are left of each sheet, by job.
pub(crate) type Work = Vec<Vec<u32>>;

/// That many jobs of 20 sheets, of 3 to 9 turns each.
pub(crate) fn jobs(count: usize) -> Work {
    let turns = |job: usize, sheet: usize| u32::try_from(3 + (job * 5 + sheet * 11) % 7).unwrap_or(3);
    (0..count)
        .map(|job| (0..20).map(|sheet| turns(job, sheet)).collect())
        .collect()
}

/// From 20 to 100 seconds.
fn turn((job, sheet): Place, left: u32) -> i64 {
    let mixed = job * 37 + sheet * 61 + left as usize * 17;
    (20 + i64::try_from(mixed % 81).unwrap_or(0)) * SECOND
}

/// Plays the work with that policy, until nothing happens any more.
pub(crate) fn play(mut account: Account, mut work: Work, policy: &mut dyn Policy) -> Came {
    let mut came = Came::default();
    let mut sessions: Vec<Session> = Vec::new();
    let mut now = 0;
    let mut starts = policy.wakes(now);
    loop {
        for place in starts.drain(..) {
            came.starts += 1;
            sessions.push(Session {
                place,
                started: now,
                worked: false,
                again: 0,
                next: now + BEGINS,
                end: None,
            });
        }
        let next = sessions.iter().map(|session| session.next).min();
        let Some(event) = next.into_iter().chain(policy.alarm()).min() else {
            break;
        };
        let then = account.changes_at(now).map_or(event, |changes| changes.min(event));
        if sessions.is_empty() && account.is_open(now) {
            came.idle += then - now;
        }
        now = then;
        if policy.alarm().is_some_and(|at| at <= now) {
            starts = policy.wakes(now);
        } else if let Some(at) = sessions.iter().position(|session| session.next <= now) {
            starts = go_on(at, now, &mut sessions, &mut account, &mut work, policy, &mut came);
        }
    }
    came.given_up = work.iter().filter(|job| job.iter().any(|turns| *turns > 0)).count();
    came
}

/// A session asks, or ends.
fn go_on(
    at: usize,
    now: i64,
    sessions: &mut Vec<Session>,
    account: &mut Account,
    work: &mut Work,
    policy: &mut dyn Policy,
    came: &mut Came,
) -> Vec<Place> {
    if sessions[at].end.is_some() {
        let Session { place, worked, end, .. } = sessions.remove(at);
        let end = end.unwrap_or(End::Done);
        match (&end, worked) {
            (End::Done, _) => came.finished = now,
            (End::Limited(_) | End::Overloaded, true) => came.cut_off += 1,
            (End::Limited(_) | End::Overloaded, false) => came.wasted += 1,
        }
        return policy.hears(now, place, Told::Ended { end, worked });
    }
    let session = &mut sessions[at];
    let place = session.place;
    match account.ask(now) {
        Answer::Works(warning) => {
            let left = &mut work[place.0][place.1];
            *left -= 1;
            session.next = now + turn(place, *left);
            session.end = (*left == 0).then_some(End::Done);
            session.again = 0;
            came.goes_on(now);
            let mut starts = Vec::new();
            if !std::mem::replace(&mut session.worked, true) {
                starts.extend(policy.hears(now, place, Told::Answered));
            }
            if let Some(limit) = warning {
                starts.extend(policy.hears(now, place, Told::Warned(limit)));
            }
            starts
        }
        Answer::Overloaded
        | Answer::Refused(Limit {
            kind: LimitKind::Throttle,
            ..
        }) if session.again < ASKS_AGAIN.0 => {
            session.again += 1;
            session.next = now + ASKS_AGAIN.1;
            Vec::new()
        }
        Answer::Refused(limit) => {
            session.next = now + LEAVES;
            session.end = Some(End::Limited(limit.clone()));
            came.is_refused(now, session, &limit);
            policy.hears(now, place, Told::Refused(limit))
        }
        Answer::Overloaded => {
            session.next = now + LEAVES;
            session.end = Some(End::Overloaded);
            Vec::new()
        }
    }
}

impl Came {
    fn is_refused(&mut self, now: i64, session: &Session, limit: &Limit) {
        let (Some(window), Some(reset)) = (&limit.window, limit.resets_at) else {
            return;
        };
        let reset = reset.0 - BEGAN;
        match self
            .closings
            .iter_mut()
            .find(|closing| closing.reset == reset && closing.window == *window)
        {
            Some(closing) => closing.refused += u32::from(!session.worked && session.started >= closing.heard),
            None => self.closings.push(Closing {
                window: window.clone(),
                reset,
                heard: now,
                refused: 0,
                resumed: None,
            }),
        }
    }

    /// A turn is worked.
    fn goes_on(&mut self, now: i64) {
        let last = self
            .closings
            .iter()
            .map(|closing| closing.reset)
            .filter(|reset| *reset <= now)
            .max();
        let last = self.closings.iter_mut().find(|closing| Some(closing.reset) == last);
        if let Some(closing) = last {
            closing.resumed.get_or_insert(now - closing.reset);
        }
    }

    /// What is promised of Mozart's policy and was not kept: after the first refusal of a window was heard of at most one
    /// more start is refused until the reset, and work goes on within five seconds of it.
    pub(crate) fn broken(&self) -> impl Iterator<Item = String> {
        self.closings.iter().flat_map(
            |Closing {
                 window,
                 reset,
                 refused,
                 resumed,
                 ..
             }| {
                let at = format!("{window} that is full again after {} s", reset / SECOND);
                let many = (*refused > 1).then(|| format!("{at}: {refused} more starts were refused"));
                let late = resumed.filter(|after| *after > 5 * SECOND);
                let late = late.map(|after| format!("{at}: work went on {} s later", after / SECOND));
                many.into_iter().chain(late)
            },
        )
    }
}

/// When everything was submitted, by the engine's clock.
const BEGAN: i64 = 1_800_000_000 * SECOND;

fn wall(at: i64) -> Timestamp {
    Timestamp(BEGAN + at)
}

/// Mozart's policy: the engine, with the defaults of the job file and places for everybody.
pub(crate) struct Mozart {
    engine: Engine,
    rules: Vec<RunRules>,
    attempts: HashMap<Place, AttemptRef>,
    /// When it was to be woken next, as of the last decision.
    alarm: Option<i64>,
}

impl Mozart {
    pub(crate) fn new(work: &Work) -> Result<Self, String> {
        let places = u32::try_from(work.len()).map_err(|error| error.to_string())?;
        let settings = EngineSettings {
            max_concurrent_jobs: places,
            max_concurrent_sheets: places,
            job_timeout: Span(30 * 24 * HOUR),
            ..EngineSettings::default()
        };
        let job = |sheets: &Vec<u32>| {
            rules(&format!(
                "backend: {{type: claude_cli}}\nsheet: {{size: 1, total_items: {}}}\n",
                sheets.len()
            ))
        };
        let rules: Result<_, String> = work.iter().map(job).collect();
        Ok(Self {
            engine: Engine::new(settings, uuid::Uuid::from_u128(42), 42),
            rules: rules?,
            attempts: HashMap::new(),
            alarm: None,
        })
    }

    /// One step of the conductor, with a ledger that takes everything.
    fn step(&mut self, now: i64, event: &Event) -> Vec<Place> {
        let now = Now {
            wall: wall(now),
            boot: now,
        };
        let decision = self.engine.decide(now, event);
        self.engine.observe(now, event);
        decision.facts.iter().for_each(|fact| self.engine.apply(fact));
        self.alarm = self.engine.next_wakeup(now).map(|at| at.0 - BEGAN);
        let mut starts = Vec::new();
        for command in decision.commands {
            if let Command::StartAttempt(start) = command {
                let AttemptRef { run, sheet, .. } = start.attempt;
                let place = (usize::try_from(run.0).unwrap_or(0) - 1, sheet.0 as usize - 1);
                self.attempts.insert(place, start.attempt);
                starts.push(place);
            }
        }
        starts
    }
}

impl Policy for Mozart {
    fn wakes(&mut self, now: i64) -> Vec<Place> {
        let mut starts = Vec::new();
        for (run, rules) in (1..).map(RunId).zip(std::mem::take(&mut self.rules)) {
            let Ok(job) = JobName::new(format!("job-{run}")) else {
                continue;
            };
            let (no, completed) = (RunNo(1), Vec::new());
            starts.extend(self.step(
                now,
                &Event::Submitted {
                    run,
                    job,
                    no,
                    rules,
                    completed,
                },
            ));
        }
        starts.extend(self.step(now, &Event::Tick));
        starts
    }

    fn hears(&mut self, now: i64, place: Place, told: Told) -> Vec<Place> {
        let Some(&attempt) = self.attempts.get(&place) else {
            return Vec::new();
        };
        let event = match told {
            Told::Answered => Event::AttemptAnswered { attempt },
            Told::Warned(limit) => Event::LimitSeen {
                attempt,
                limit,
                refused: false,
            },
            Told::Refused(limit) => Event::LimitSeen {
                attempt,
                limit,
                refused: true,
            },
            Told::Ended { end, worked } => Event::AttemptFinished {
                attempt,
                outcome: outcome(end, worked, attempt),
            },
        };
        self.step(now, &event)
    }

    fn alarm(&self) -> Option<i64> {
        self.alarm
    }
}

/// How the classifier reports such an end.
fn outcome(end: End, worked: bool, attempt: AttemptRef) -> Outcome {
    let failure = |cause, code, limit| Failure {
        cause,
        code,
        message: String::new(),
        hint: None,
        limit,
    };
    let failure = match end {
        End::Done => None,
        End::Overloaded => Some(failure(Cause::Transient, Code::E103, None)),
        End::Limited(limit) => {
            let code = match limit.kind {
                LimitKind::Usage => Code::E104,
                LimitKind::Throttle => Code::E101,
            };
            Some(failure(Cause::RateLimit, code, Some(limit)))
        }
    };
    Outcome {
        failure,
        worked,
        session_id: worked.then(|| attempt.to_string()),
        ..Outcome::default()
    }
}

/// The Python version's policy: after a refusal, of whatever kind, a job waits for a fixed time and tries again; it
/// knows of no other job.
pub(crate) struct FixedWait {
    waits: i64,
    most: u32,
    jobs: Vec<Job>,
}

#[derive(Debug, Clone)]
struct Job {
    sheets: usize,
    sheet: usize,
    waited: u32,
    /// When it tries again, where it waits.
    until: Option<i64>,
}

impl FixedWait {
    /// With its defaults: an hour, and at most 48 times.
    pub(crate) fn new(work: &Work) -> Self {
        let job = |sheets: &Vec<u32>| Job {
            sheets: sheets.len(),
            sheet: 0,
            waited: 0,
            until: Some(0),
        };
        Self {
            waits: HOUR,
            most: 48,
            jobs: work.iter().map(job).collect(),
        }
    }
}

impl Policy for FixedWait {
    fn wakes(&mut self, now: i64) -> Vec<Place> {
        let due = self
            .jobs
            .iter_mut()
            .enumerate()
            .filter(|(_, job)| job.until.is_some_and(|at| at <= now));
        due.map(|(number, job)| {
            job.until = None;
            (number, job.sheet)
        })
        .collect()
    }

    fn hears(&mut self, now: i64, (number, _): Place, told: Told) -> Vec<Place> {
        let job = &mut self.jobs[number];
        match told {
            Told::Answered | Told::Warned(_) | Told::Refused(_) => {}
            Told::Ended { end: End::Done, .. } => {
                job.sheet += 1;
                if job.sheet < job.sheets {
                    return vec![(number, job.sheet)];
                }
            }
            Told::Ended { .. } if job.waited < self.most => {
                job.waited += 1;
                job.until = Some(now + self.waits);
            }
            Told::Ended { .. } => {}
        }
        Vec::new()
    }

    fn alarm(&self) -> Option<i64> {
        self.jobs.iter().filter_map(|job| job.until).min()
    }
}
