//! The one task that owns the engine: takes requests and reports, decides, commits, applies, acts.
//!
//! Order is a promise: facts are committed before they are applied, applied before anything is done about
//! them, and a request is answered after all three. Where the ledger cannot be written nothing was applied:
//! what sessions report is kept and decided again, what people ask is refused with the reason.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clock::{self, Alarm};
use super::day::Day;
use super::environment::Environment;
use super::holds::Holds;
use super::journal;
use super::paths::Paths;
use super::pressure::Host;
use super::project;
use super::settings::Settings;
use crate::api::handle::{Reply, Request};
use crate::api::request::ApiError;
use crate::api::view::{Change, ManagerView};
use crate::engine::event::{Command, Event, Refusal, SessionChoice, Start, StartHold, Today};
use crate::engine::fact::{Fact, FactKind};
use crate::engine::{Engine, REMEMBERED, Run, RunStatus};
use crate::job::plan::{Plan, SubmitContext};
use crate::ledger::{Batch, Committed, Ledger, StoreError, Submission};
use crate::model::{
    AccountId, AttemptRef, AttemptReport, JobName, Now, RunId, RunNo, RunState, SheetNo, SheetStatus, Span, StopHow,
    Timestamp, ValidationReport, count,
};
#[cfg(test)]
use crate::probe::Mutant;
use crate::probe::{self, Point};
use crate::runner::attempt::Runner;
use crate::runner::backend::Heard;
use crate::runner::launch::boot_id;
use crate::runner::room;
use crate::runner::spec::{AttemptSpec, Progress};

/// Sheets whose final texts a template is told.
const OUTPUTS: usize = 500;

/// Between two tries to write a ledger that could not be written.
const STORAGE_RETRY: Span = Span(1_000_000);

/// What the conductor is built of.
pub(super) struct Parts {
    /// Where things are.
    pub(super) paths: Paths,
    /// How it is to behave.
    pub(super) settings: Settings,
    /// The conductor's own environment, as it was at start.
    pub(super) environment: Environment,
    /// The truth.
    pub(super) ledger: Arc<Ledger>,
    /// Does attempts.
    pub(super) runner: Arc<Runner>,
    /// Where the state of the machine is read.
    pub(super) host: Host,
    /// Whether live runs are taken up, or only shown.
    pub(super) conducts: bool,
    /// Requests from bus and front ends.
    pub(super) requests: mpsc::Receiver<Request>,
    /// What changed, for whoever listens.
    pub(super) changes: broadcast::Sender<Change>,
}

/// A run that the engine holds.
pub(super) struct Live {
    pub(super) job: JobName,
    pub(super) no: RunNo,
    pub(super) plan: Arc<Plan>,
    pub(super) context: Arc<SubmitContext>,
    pub(super) checkpoint: super::checkpoints::State,
    /// What was said of it last.
    told: Option<RunStatus>,
}

/// What ends the conductor's loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Go on.
    None,
    /// Return once nothing runs any more.
    Drained,
    /// Return now; sessions go on by themselves.
    Now,
}

pub(super) struct Conductor {
    pub(super) paths: Paths,
    pub(super) settings: Settings,
    pub(super) environment: Environment,
    pub(super) ledger: Arc<Ledger>,
    pub(super) runner: Arc<Runner>,
    pub(super) conducts: bool,
    pub(super) engine: Engine,
    pub(super) live: HashMap<RunId, Live>,
    pub(super) changes: broadcast::Sender<Change>,
    requests: mpsc::Receiver<Request>,
    pub(super) running: HashMap<AttemptRef, watch::Sender<Option<StopHow>>>,
    /// Those of them whose process an earlier conductor started and that were not found yet.
    pub(super) adopting: HashSet<AttemptRef>,
    attempts: JoinSet<()>,
    progress_in: mpsc::Sender<(AttemptRef, Progress)>,
    pub(super) progress: mpsc::Receiver<(AttemptRef, Progress)>,
    pub(super) checkpoints: super::checkpoints::Writers,
    /// Rules that are being asked without a session.
    pub(super) recoveries: JoinSet<super::recover::Examined>,
    alarm: Alarm,
    /// When the engine wants to be woken, as of the last decision: what has become due since then rings at once.
    wakeup: Option<Timestamp>,
    /// Why the ledger cannot be written, and when to try again.
    blocked: Option<(String, Timestamp)>,
    /// Attempts that wait for room for their files, each with the reason.
    starved: BTreeMap<AttemptRef, String>,
    /// The journal was told that storage is blocked.
    storage_told: bool,
    /// What happened while the ledger could not be written; decided before anything else is.
    backlog: Happened,
    drained: Vec<Reply<()>>,
    /// When it leaves although sessions that were stopped have not ended.
    pub(super) leave_at: Option<Instant>,
    pub(super) holds: Holds,
    /// The day of the calendar, as it was at the last look.
    pub(super) day: Day,
    pub(super) ending: Ending,
    pub(super) status: watch::Sender<project::Status>,
    /// The conductor's own view, as it was told last.
    pub(super) shown: watch::Sender<ManagerView>,
}

/// Of what sessions say at once, so much is decided and committed together; of what they said while the ledger could not be
/// written, all.
pub(super) const AT_ONCE: usize = 32;

/// What happened at once, and is decided and committed as one.
#[derive(Debug, Default)]
struct Happened {
    /// In order.
    events: Vec<Event>,
    /// What is kept of the attempts that ended with them.
    reports: Vec<(AttemptRef, Box<AttemptReport>)>,
}

impl Happened {
    fn append(&mut self, mut later: Self) {
        self.events.append(&mut later.events);
        self.reports.append(&mut later.reports);
    }
}

/// What comes with an event, to be stored with what follows from it.
#[derive(Default)]
pub(super) enum Brought {
    /// Nothing.
    #[default]
    Nothing,
    /// What a run is made of: a new one, or one that is given another plan.
    Source(RunId, Arc<Plan>, Arc<SubmitContext>),
    /// What the rules of sheets gave without a session.
    Checked(Vec<(SheetNo, ValidationReport)>),
    /// What is kept of attempts that ended.
    Reports(Vec<(AttemptRef, Box<AttemptReport>)>),
}

/// Whether an event cannot be refused, because it is no wish: it is kept until it can be decided.
fn happened(event: &Event) -> bool {
    matches!(
        event,
        Event::AttemptStarted { .. }
            | Event::AttemptAnswered { .. }
            | Event::LimitSeen { .. }
            | Event::NeverRan { .. }
            | Event::AttemptFinished { .. }
            | Event::Restored { .. }
    )
}

/// What people see of a hold: why, and until when.
type Shown = (String, Option<Timestamp>);

fn shown(holds: &[StartHold]) -> Vec<Shown> {
    holds.iter().map(|hold| (hold.why.clone(), hold.until)).collect()
}

/// What is kept of events that could not be decided: what happened, and no wish.
fn kept(mut events: Vec<Event>, brought: Brought) -> Happened {
    events.retain(happened);
    let reports = match brought {
        Brought::Reports(reports) => reports,
        Brought::Nothing | Brought::Source(..) | Brought::Checked(_) => Vec::new(),
    };
    Happened { events, reports }
}

/// Why a step was not taken.
#[derive(Debug)]
pub(super) enum StepError {
    /// The engine refuses.
    Refused(Refusal),
    /// The ledger cannot be written.
    Storage(String),
}

impl From<StepError> for ApiError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Refused(Refusal::NoSuchRun(run)) => Self::NoSuchRun(format!("run {run} is not live")),
            StepError::Refused(Refusal::WrongState(text)) => Self::WrongState(text),
            StepError::Refused(refusal @ Refusal::NoSuchQuestion(_)) => Self::NoSuchQuestion(refusal.text()),
            StepError::Refused(refusal @ Refusal::WrongChoice { .. }) => Self::InvalidArgument(refusal.text()),
            StepError::Storage(text) => Self::Storage(text),
        }
    }
}

impl Conductor {
    /// Loads what the ledger holds, and takes up the live runs if this conductor conducts.
    pub(super) async fn restore(parts: Parts) -> Result<Self, String> {
        let Parts {
            paths,
            settings,
            environment,
            ledger,
            runner,
            host,
            conducts,
            requests,
            changes,
        } = parts;
        let (progress_in, progress) = mpsc::channel(256);
        let engine = Engine::new(settings.engine.clone(), ledger.id(), seed_of(ledger.id()));
        let mut conductor = Self {
            paths,
            settings,
            environment,
            ledger,
            runner,
            conducts,
            engine,
            live: HashMap::new(),
            changes,
            requests,
            running: HashMap::new(),
            adopting: HashSet::new(),
            attempts: JoinSet::new(),
            progress_in,
            progress,
            checkpoints: super::checkpoints::Writers::default(),
            recoveries: JoinSet::new(),
            alarm: Alarm::new().map_err(|error| format!("cannot make a timer: {error}"))?,
            wakeup: None,
            blocked: None,
            starved: BTreeMap::new(),
            storage_told: false,
            backlog: Happened::default(),
            drained: Vec::new(),
            leave_at: None,
            holds: Holds::of(host),
            day: Day::default(),
            ending: Ending::None,
            status: watch::channel(project::Status::default()).0,
            shown: watch::channel(ManagerView::default()).0,
        };
        let engine = &mut conductor.engine;
        let told = conductor.ledger.tell_live(|fact| engine.apply(&fact)).await;
        told.map_err(|error| conductor.unreadable(&error))?;
        let runs: Vec<_> = conductor.engine.runs().map(|run| run.id()).collect();
        for run in runs {
            let held = conductor.hold(run).await;
            held.map_err(|error| conductor.unreadable(&error))?;
        }
        if conductor.conducts {
            // Where the ledger cannot be written now, it is decided again when it can.
            let same_boot = conductor
                .ledger
                .is_of_boot(&boot_id())
                .await
                .map_err(|error| error.to_string())?;
            let owed = conductor.write_owed_checkpoints().await;
            owed.map_err(|error| conductor.unreadable(&error))?;
            let now = clock::now();
            let holds = conductor.holds.look(now, &conductor.settings);
            let (today, starts) = conductor.spent_and_started().await?;
            conductor.engine.begin_with(now, holds, today, starts);
            conductor.step_or_log(Event::Restored { same_boot }).await;
            conductor.limit_memory(None);
        } else {
            conductor
                .engine
                .observe(clock::now(), &Event::ShutdownRequested { stop_sessions: false });
        }
        conductor.publish_status();
        Ok(conductor)
    }

    /// What was spent today, and the latest starts: also by runs that have ended.
    async fn spent_and_started(&mut self) -> Result<(Today, Vec<(Timestamp, AccountId)>), String> {
        let now = clock::now().wall;
        self.day = Day::of(now, &TimeZone::system());
        let today = self.spent_today().await.map_err(|error| error.to_string())?;
        let starts = match self.settings.engine.max_starts_per_minute {
            Some(_) => self.ledger.starts_since(now.plus(Span(-REMEMBERED.0))).await,
            // Nothing goes by them.
            None => Ok(Vec::new()),
        };
        Ok((today, starts.map_err(|error| error.to_string())?))
    }

    /// The day, and what was spent on it so far.
    async fn spent_today(&self) -> Result<Today, StoreError> {
        let Day { date, begins, ends } = &self.day;
        let spent = self.ledger.spent_on(date).await?;
        #[cfg(test)]
        let spent = if Mutant::DayForgets.is_on() {
            BTreeMap::new()
        } else {
            spent
        };
        Ok(Today {
            begins: *begins,
            ends: *ends,
            spent,
        })
    }

    /// What a live run is made of cannot be read: without it the ledger is of no use.
    fn unreadable(&self, error: &StoreError) -> String {
        if matches!(error, StoreError::Unreadable { .. } | StoreError::NoSuchRun(_)) {
            self.ledger.condemn(error.to_string());
        }
        error.to_string()
    }

    /// Serves until it is told to stop. `stop` is answered by going away at once: sessions outlive it.
    ///
    /// # Errors
    /// The ledger turned out to be damaged: the next start sets it aside.
    pub(super) async fn serve(mut self, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut said = Vec::new();
        loop {
            if let Some(why) = self.ledger.damage() {
                journal::ledger_damaged(why);
                // Nothing is written from it any more: the checkpoints hold what it held when it was whole.
                self.checkpoints.drain().await;
                return Err(why.to_owned());
            }
            match self.ending {
                Ending::Now => break,
                Ending::Drained if self.running.is_empty() => break,
                Ending::Drained | Ending::None => {}
            }
            if self.running.is_empty() {
                for reply in self.drained.drain(..) {
                    // The asker may be gone; then nobody waits.
                    drop(reply.send(Ok(())));
                }
            }
            if let Err(error) = self.alarm.set(self.next_alarm()) {
                tracing::error!(%error, "the timer cannot be set");
            }
            tokio::select! {
                biased;
                () = asked(&mut stop) => break,
                () = until(self.leave_at) => {
                    journal::left_running(self.running.len());
                    break;
                }
                // Whatever was said while the last of it was committed.
                1.. = self.progress.recv_many(&mut said, AT_ONCE) => self.hear(said.drain(..)).await,
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => break,
                },
                Some(done) = self.attempts.join_next(), if !self.attempts.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "an attempt's task ended unexpectedly");
                    }
                }
                Some(done) = self.checkpoints.finished() => self.checkpoint_written(done),
                Some(done) = self.recoveries.join_next(), if !self.recoveries.is_empty() => self.examined(done).await,
                rung = self.alarm.rings() => {
                    if let Err(error) = rung {
                        tracing::error!(%error, "the timer cannot be read");
                    }
                    self.wake().await;
                }
            }
        }
        self.close().await;
        Ok(())
    }

    /// Writes what people read while nobody conducts. One that only showed has changed nothing.
    pub(super) async fn close(&mut self) {
        if !self.conducts {
            return self.checkpoints.drain().await;
        }
        let runs: Vec<_> = self.live.keys().copied().collect();
        for run in runs {
            self.write_checkpoint(run).await;
        }
        self.checkpoints.drain().await;
    }

    /// When it is to look again though nothing happens.
    pub(super) fn next_alarm(&self) -> Option<Timestamp> {
        let engine = self.wakeup.filter(|_| self.conducts);
        let storage = self.blocked.as_ref().map(|(_, at)| *at);
        let now = clock::now();
        let busy = !self.running.is_empty() || self.holds.are_of_the_machine() && self.engine.is_held(now);
        let holds = self.holds.next_look(now, busy).filter(|_| self.conducts);
        let deciding = [engine, holds].into_iter().flatten().min();
        [deciding.filter(|_| storage.is_none()), storage, self.checkpoint_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The alarm rang, or the wall clock was set.
    pub(super) async fn wake(&mut self) {
        let now = clock::now().wall;
        self.hurry_checkpoints(now);
        self.write_due_checkpoints();
        // No longer than that also where the clock was set back.
        let still_blocked = self.blocked.as_mut().is_some_and(|(_, at)| {
            *at = (*at).min(now.plus(STORAGE_RETRY));
            *at > now
        });
        if self.conducts && !still_blocked && self.catch_up().await.is_ok() {
            self.step_or_log(Event::Tick).await;
        }
    }

    /// Decides what happened while the ledger could not be written, in the order in which it happened.
    async fn catch_up(&mut self) -> Result<(), StepError> {
        let now = clock::now();
        if !self.backlog.events.is_empty() && !self.knows_the_day(now) {
            // What ended is booked on the day that it is now.
            let today = self.spent_today_or_block(now).await?;
            self.engine.tell_day(today);
        }
        let mut happened = std::mem::take(&mut self.backlog);
        if let [Event::Restored { .. }, ..] = happened.events[..] {
            // What is looked for then is looked for before anything else is heard of it.
            let restored = vec![happened.events.remove(0)];
            if let Err(error) = self.follow_late(restored, Brought::Nothing).await {
                self.backlog.append(happened);
                return Err(error);
            }
        }
        if happened.events.is_empty() {
            return Ok(());
        }
        self.follow_late(happened.events, Brought::Reports(happened.reports))
            .await
    }

    /// A step for what happened a while ago: what holds starts may be other than it was then.
    async fn follow_late(&mut self, mut events: Vec<Event>, brought: Brought) -> Result<(), StepError> {
        let before = shown(self.engine.holds());
        let holds = self.holds.look(clock::now(), &self.settings);
        if self.engine.holds() != holds {
            events.insert(0, Event::HoldsChanged { holds });
        }
        self.follow(events, brought).await?;
        self.tell_holds(&before).await;
        Ok(())
    }

    /// Sessions' tasks say something.
    pub(super) async fn hear(&mut self, said: impl IntoIterator<Item = (AttemptRef, Progress)>) {
        let mut happened = Happened::default();
        for (attempt, progress) in said {
            let event = match progress {
                Progress::Started { at, invocation } => {
                    self.starved.remove(&attempt);
                    if self.adopting.remove(&attempt)
                        && let Some(live) = self.live.get(&attempt.run)
                    {
                        journal::adopted(&live.job, live.no, attempt);
                    }
                    Event::AttemptStarted {
                        attempt,
                        at,
                        invocation,
                    }
                }
                Progress::Heard(Heard::Answered) => Event::AttemptAnswered { attempt },
                // The engine hears of limits from sessions that are over.
                Progress::Heard(Heard::Limit { limit, refused }) => Event::LimitSeen {
                    attempt,
                    limit,
                    refused,
                },
                Progress::NoRoom(why) => {
                    self.starve(attempt, why).await;
                    continue;
                }
                Progress::SkipCheckFailed(why) => {
                    if let Some(live) = self.live.get(&attempt.run) {
                        journal::skip_check_failed(&live.job, live.no, attempt, &why);
                    }
                    continue;
                }
                Progress::NeverRan => {
                    self.adopting.remove(&attempt);
                    self.running.remove(&attempt);
                    Event::NeverRan { attempt }
                }
                Progress::Finished(report) => {
                    self.running.remove(&attempt);
                    let outcome = report.outcome.clone();
                    happened.reports.push((attempt, report));
                    Event::AttemptFinished { attempt, outcome }
                }
            };
            happened.events.push(event);
        }
        if happened.events.is_empty() {
            return;
        }
        if self.blocked.is_some() {
            return self.backlog.append(happened);
        }
        match self.step_all(happened.events, Brought::Reports(happened.reports)).await {
            Ok(()) | Err(StepError::Storage(_)) => {}
            Err(StepError::Refused(refusal)) => tracing::warn!(?refusal, "what sessions say changes nothing"),
        }
    }

    async fn step_or_log(&mut self, event: Event) {
        if let Err(StepError::Refused(refusal)) = self.step(event).await {
            tracing::error!(?refusal, "the engine refused its own event");
        }
    }

    /// Decide, commit, apply, act.
    pub(super) async fn step(&mut self, event: Event) -> Result<(), StepError> {
        self.step_with(event, Brought::Nothing).await
    }

    /// The same, with what comes along.
    pub(super) async fn step_with(&mut self, event: Event, brought: Brought) -> Result<(), StepError> {
        self.step_all(vec![event], brought).await
    }

    async fn step_all(&mut self, events: Vec<Event>, brought: Brought) -> Result<(), StepError> {
        // What is decided now would be decided from a state that lacks what happened before.
        let ready = match self.catch_up().await {
            // Before anything else it is decided what became of what ran.
            Ok(()) if !matches!(events[..], [Event::Restored { .. }]) => self.look_around().await,
            done => done,
        };
        if let Err(error) = ready {
            self.backlog.append(kept(events, brought));
            return Err(error);
        }
        self.follow(events, brought).await
    }

    /// Tells the engine what holds starts, where that is not what it was told last.
    pub(super) async fn look_around(&mut self) -> Result<(), StepError> {
        if !self.conducts {
            return Ok(());
        }
        let now = clock::now();
        if !self.knows_the_day(now) {
            let today = self.spent_today_or_block(now).await?;
            self.follow(vec![Event::DayBegan { today }], Brought::Nothing).await?;
        }
        let holds = self.holds.look(now, &self.settings);
        if self.engine.holds() == holds {
            return Ok(());
        }
        let before = shown(self.engine.holds());
        self.follow(vec![Event::HoldsChanged { holds }], Brought::Nothing)
            .await?;
        self.tell_holds(&before).await;
        Ok(())
    }

    /// Tells of what holds starts, where that is other than it was `before`.
    async fn tell_holds(&mut self, before: &[Shown]) {
        if shown(self.engine.holds()) == before {
            return;
        }
        journal::holds_changed(self.engine.holds());
        // No fact says so, but every run that waits has another reason.
        let now = clock::now();
        let runs = self.tell_states(&self.live.keys().copied().collect(), now);
        if self.changes.receiver_count() > 0 {
            self.publish(&runs, &BTreeSet::new(), &BTreeMap::new(), &Committed::default(), now)
                .await;
        }
        self.publish_status();
    }

    /// What was spent today; where that cannot be read, it is tried again like a write.
    async fn spent_today_or_block(&mut self, now: Now) -> Result<Today, StepError> {
        match self.spent_today().await {
            Ok(today) => Ok(today),
            Err(error) => {
                self.block(error.to_string(), now);
                Err(StepError::Storage(error.to_string()))
            }
        }
    }

    /// Whether the engine was told of the day of that moment, which `day` is from now on.
    fn knows_the_day(&mut self, now: Now) -> bool {
        self.look_at_calendar(now);
        let told = self.engine.today().map(|today| (today.begins, today.ends));
        told == Some((self.day.begins, self.day.ends))
    }

    /// Sees to it that `day` is the day of that moment.
    fn look_at_calendar(&mut self, now: Now) {
        if !(self.day.begins..self.day.ends).contains(&now.wall) {
            self.day = Day::of(now.wall, &TimeZone::system());
        }
    }

    /// A step with nothing left to be decided before it.
    async fn follow(&mut self, events: Vec<Event>, brought: Brought) -> Result<(), StepError> {
        let now = clock::now();
        let decision = self.engine.decide_all(now, &events);
        if let Some(refusal) = decision.refusal {
            return Err(StepError::Refused(refusal));
        }
        #[cfg(test)]
        if Mutant::CommitAfterStart.is_on() {
            for command in decision.commands.clone() {
                self.act(command).await;
            }
        }
        probe::reach(Point::Decided).map_err(StepError::Storage)?;
        let reports = match &brought {
            Brought::Reports(reports) => &reports[..],
            Brought::Nothing | Brought::Source(..) | Brought::Checked(_) => &[],
        };
        let commit = if !decision.facts.is_empty() || !reports.is_empty() {
            self.look_at_calendar(now);
            let batch = Batch {
                facts: &decision.facts,
                submission: match &brought {
                    Brought::Source(run, plan, context) => Some(Submission {
                        run: *run,
                        plan,
                        context,
                    }),
                    Brought::Nothing | Brought::Checked(_) | Brought::Reports(_) => None,
                },
                checked: match &brought {
                    Brought::Checked(checked) => checked,
                    Brought::Nothing | Brought::Source(..) | Brought::Reports(_) => &[],
                },
                reports: reports
                    .iter()
                    .map(|(attempt, report)| (*attempt, report.as_ref()))
                    .collect(),
                at: now.wall,
                day: &self.day.date,
            };
            let committed = self.ledger.commit(batch).await;
            #[cfg(test)]
            let committed = if Mutant::CommitUnheeded.is_on() {
                Ok(Committed::default())
            } else {
                committed
            };
            match committed {
                Ok(commit) => commit,
                Err(error) => {
                    let text = match &error {
                        StoreError::Database { full: true, .. } => room::needing(&error.to_string()),
                        _ => error.to_string(),
                    };
                    self.block(text.clone(), now);
                    let later = std::mem::replace(&mut self.backlog, kept(events, brought));
                    self.backlog.append(later);
                    return Err(StepError::Storage(text));
                }
            }
        } else {
            Committed::default()
        };
        #[cfg(test)]
        probe::committed(now, &decision.facts);
        probe::reach(Point::Committed).map_err(StepError::Storage)?;
        if events.contains(&Event::Restored { same_boot: false }) {
            // Only after what follows from it. Where it fails, the next conductor is as careful as this one.
            if let Err(error) = self.ledger.note_boot(&boot_id()).await {
                tracing::warn!(%error, "the boot cannot be noted");
            }
        }
        if self.backlog.events.is_empty() {
            self.blocked = None;
        }
        // Only now: a stop or settings that could not be followed are not to be half in force.
        for event in &events {
            self.engine.observe(now, event);
        }
        let released: Vec<_> = reports.iter().map(|(attempt, _)| *attempt).collect();
        if let Brought::Source(run, plan, context) = brought {
            self.insert(run, plan, context);
        }
        for fact in &decision.facts {
            self.engine.apply(fact);
        }
        self.wakeup = self.engine.next_wakeup(now);
        for attempt in released {
            self.release(attempt);
        }
        probe::reach(Point::Applied).map_err(StepError::Storage)?;
        for command in decision.commands {
            probe::reach(Point::Acting).map_err(StepError::Storage)?;
            #[cfg(test)]
            probe::acts(&command);
            self.act(command).await;
        }
        probe::pass(Point::Acted);
        if self.backlog.events.is_empty() {
            self.starved.retain(|attempt, _| self.running.contains_key(attempt));
            if self.storage_told {
                self.tell_storage();
            }
        }
        for warning in &decision.warnings {
            journal::budget_nearly_used(warning, |run| {
                self.live.get(&run).map(|live| (live.job.as_str(), live.no))
            });
        }
        self.tell(&decision.facts, &commit, now).await;
        Ok(())
    }

    /// Tells the user manager what the sessions may have of the memory, where that is not what was told `before`.
    pub(super) fn limit_memory(&mut self, before: Option<u32>) {
        let limit = self.settings.resource_limits.max_memory_mb;
        if limit == before {
            return;
        }
        let runner = Arc::clone(&self.runner);
        self.attempts.spawn(async move {
            let bytes = limit.map(|megabytes| u64::from(megabytes) << 20);
            if let Err(why) = runner.launcher().limit_memory(bytes).await {
                tracing::warn!("`resource_limits.max_memory_mb` has no effect: {why}");
            }
        });
    }

    /// Marks the ledger as blocked.
    fn block(&mut self, text: String, now: Now) {
        self.blocked = Some((text, now.wall.plus(STORAGE_RETRY)));
        self.tell_storage();
    }

    /// An attempt waits for room.
    async fn starve(&mut self, attempt: AttemptRef, why: String) {
        let known = self.starved.insert(attempt, why).is_some();
        self.tell_storage();
        if !known && self.changes.receiver_count() > 0 {
            let AttemptRef { run, sheet, .. } = attempt;
            let (runs, sheets) = (BTreeSet::from([run]), BTreeSet::from([(run, sheet)]));
            self.publish(&runs, &sheets, &BTreeMap::new(), &Committed::default(), clock::now())
                .await;
        }
    }

    /// Says once that storage is blocked, and once that it works again.
    fn tell_storage(&mut self) {
        let blocked = !self.storage().is_empty();
        if blocked && !self.storage_told {
            journal::storage_blocked(self.storage());
        } else if !blocked && self.storage_told {
            journal::storage_back();
        }
        self.storage_told = blocked;
        self.publish_status();
    }

    /// What cannot be written, and why; empty while everything can.
    pub(super) fn storage(&self) -> &str {
        let of_ledger = self.blocked.as_ref().map(|(text, _)| text);
        of_ledger
            .or_else(|| self.starved.values().next())
            .map_or("", String::as_str)
    }

    /// Whether storage holds that run.
    pub(super) fn waits_for_storage(&self, run: RunId) -> bool {
        self.blocked.is_some() || self.starved.keys().any(|attempt| attempt.run == run)
    }

    /// Why that sheet cannot go on for want of room: for its own files, or for what is to be told of it.
    pub(super) fn short_of_room(&self, run: RunId, sheet: SheetNo) -> Option<&str> {
        let is_it = |attempt: &AttemptRef| (attempt.run, attempt.sheet) == (run, sheet);
        let mut found = self.starved.iter().filter(|(attempt, _)| is_it(attempt));
        let of_ledger = self.blocked.as_ref().map(|(why, _)| why);
        found.next().map(|(_, why)| why).or(of_ledger).map(String::as_str)
    }

    /// Lets the system forget the ended unit: its verdict is committed.
    fn release(&mut self, attempt: AttemptRef) {
        let runner = Arc::clone(&self.runner);
        self.attempts.spawn(async move { runner.release(attempt).await });
    }

    async fn act(&mut self, command: Command) {
        match command {
            Command::StartAttempt(start) => {
                self.holds.started(clock::now());
                self.launch(start, false).await;
            }
            #[cfg(test)]
            Command::AdoptAttempt(start) if Mutant::StartForAdopt.is_on() => self.launch(start, false).await,
            Command::AdoptAttempt(start) => self.launch(start, true).await,
            Command::StopAttempt { attempt, how } => {
                if let Some(stop) = self.running.get(&attempt) {
                    stop.send_replace(Some(how));
                }
            }
        }
    }

    async fn launch(&mut self, start: Start, adopt: bool) {
        let Some(live) = self.live.get(&start.attempt.run) else {
            tracing::error!(attempt = %start.attempt, "an attempt of a run that is not loaded cannot start");
            return;
        };
        let mut source = (Arc::clone(&live.plan), Arc::clone(&live.context));
        if self.engine.run(start.attempt.run).map(Run::revision) != Some(start.revision) {
            // It goes on with the plan that it was intended with.
            match self.ledger.plan_of(start.attempt.run, start.revision).await {
                Ok((plan, context)) => source = (Arc::new(plan), Arc::new(context)),
                Err(error) => {
                    tracing::error!(attempt = %start.attempt, %error, "its plan cannot be read; it goes on with the newest");
                }
            }
        }
        let (plan, context) = source;
        // What is only told to the session is worth less than the start: a read that fails costs the lessons.
        let lessons = self
            .ledger
            .lessons(start.attempt.run, start.attempt.sheet)
            .await
            .unwrap_or_default();
        let earlier_cost = match &start.session {
            SessionChoice::Resume(id) => self.ledger.session_cost(id).await.unwrap_or_default(),
            SessionChoice::New(_) => None,
        };
        let sheet = self
            .engine
            .run(start.attempt.run)
            .and_then(|run| run.sheet(start.attempt.sheet));
        let fresh = sheet.is_some_and(|sheet| !sheet.has_begun());
        let outputs = self.outputs_before(start.attempt, &plan).await;
        let secrets = self
            .environment
            .secrets(&plan.backend.pass_env, &self.settings.pass_env);
        let spec = AttemptSpec {
            attempt: start.attempt,
            kind: start.kind,
            ask: start.ask,
            session_id: start.session.id().to_owned(),
            resume: matches!(start.session, SessionChoice::Resume(_)),
            plan,
            context,
            fresh,
            outputs,
            lessons,
            budget: start.budget,
            earlier_cost,
            prices: Arc::clone(&self.settings.prices),
            extra_env: self.environment.extra(&self.settings.pass_env),
            secrets,
        };
        // A directory with output in it is evidence of a start that this ledger does not remember (it was restored
        // from a backup): read it instead of starting beside it.
        let adopt = adopt || self.runner.spool_dir(start.attempt).join("stdout").exists();
        let (stop, stopped) = watch::channel(None);
        self.running.insert(start.attempt, stop);
        if adopt {
            self.adopting.insert(start.attempt);
        }
        #[cfg(test)]
        if self.runner.scripted {
            return;
        }
        let (runner, progress) = (Arc::clone(&self.runner), self.progress_in.clone());
        self.attempts
            .spawn(async move { runner.run(spec, adopt, stopped, progress).await });
    }

    /// The end of the final texts of the completed sheets that the sheet's template is told of.
    async fn outputs_before(&self, attempt: AttemptRef, plan: &Plan) -> Vec<(u32, String)> {
        let Some(cross) = plan.cross_sheet.as_ref().filter(|cross| cross.outputs) else {
            return Vec::new();
        };
        let Some(run) = self.engine.run(attempt.run) else {
            return Vec::new();
        };
        let completed = |no: &SheetNo| {
            let state = run.sheet(*no).map(|sheet| sheet.state().status());
            state == Some(SheetStatus::Completed)
        };
        let SheetNo(own) = attempt.sheet;
        let first = match cross.lookback {
            0 => 1,
            lookback => own.saturating_sub(lookback).max(1),
        };
        let needs = plan
            .dependencies
            .iter()
            .filter_map(|dependency| dependency.needs(attempt.sheet));
        let needs = needs.flat_map(|range| range.sheets());
        let before = (first..own).rev().map(SheetNo);
        // Those that it waits for first, then the newest: where there is too much, the rest is left out.
        let mut wanted: Vec<SheetNo> = Vec::new();
        for no in needs.chain(before).filter(completed) {
            if wanted.len() >= OUTPUTS {
                break;
            }
            if !wanted.contains(&no) {
                wanted.push(no);
            }
        }
        let texts = self.ledger.final_texts(attempt.run, &wanted, cross.max_chars).await;
        // Like lessons: worth less than the start.
        texts.unwrap_or_else(|error| {
            tracing::warn!(%error, "what earlier sheets said cannot be read");
            Vec::new()
        })
    }

    /// Puts a run that the engine holds into `live`.
    pub(super) async fn hold(&mut self, run: RunId) -> Result<(), StoreError> {
        let (plan, context) = self.ledger.plan(run).await?;
        self.insert(run, Arc::new(plan), Arc::new(context));
        Ok(())
    }

    fn insert(&mut self, run: RunId, plan: Arc<Plan>, context: Arc<SubmitContext>) {
        if let Some(live) = self.live.get_mut(&run) {
            (live.plan, live.context) = (plan, context);
            return;
        }
        let no = self.engine.run(run).map_or(RunNo(0), |run| run.no());
        let job = plan.name.clone();
        self.live.insert(
            run,
            Live {
                job,
                no,
                plan,
                context,
                checkpoint: super::checkpoints::State::default(),
                told: None,
            },
        );
    }

    /// Tells journal, views and checkpoint what was decided.
    async fn tell(&mut self, facts: &[Fact], commit: &Committed, now: Now) {
        let mut sheets: BTreeSet<(RunId, SheetNo)> = BTreeSet::new();
        let mut runs: BTreeSet<RunId> = BTreeSet::new();
        let mut ended: BTreeMap<RunId, crate::model::RunState> = BTreeMap::new();
        let mut written: BTreeSet<RunId> = BTreeSet::new();
        let shared = facts.iter().any(|fact| fact.kind.subject().is_some());
        for fact in facts {
            if let FactKind::RunSubmitted { run, no, .. } = &fact.kind
                && let Some(live) = self.live.get_mut(run)
            {
                live.no = *no;
            }
            journal::tell(fact, |run| self.live.get(&run).map(|live| (live.job.as_str(), live.no)));
            if let Some(run) = fact.kind.run() {
                runs.insert(run);
                sheets.extend(fact.kind.sheet().map(|sheet| (run, sheet)));
            }
            match &fact.kind {
                FactKind::RunEnded { run, state } => {
                    ended.insert(*run, *state);
                }
                FactKind::RunPaused { run, .. } | FactKind::RunModified { run, .. } => {
                    written.insert(*run);
                }
                FactKind::SheetEnded { run, .. } | FactKind::SheetRecovered { run, .. } => self.sheet_ended(*run, now),
                _ => {}
            }
        }
        self.publish_shared(facts, now);
        // A gate or a question may concern any run; most say the same as before.
        let looked = if shared {
            self.live.keys().copied().collect()
        } else {
            runs.clone()
        };
        let news = self.tell_states(&looked, now);
        runs.extend(news);
        if runs.is_empty() {
            return;
        }
        for run in ended.keys().chain(&written) {
            self.write_checkpoint(*run).await;
        }
        self.write_due_checkpoints();
        if self.changes.receiver_count() > 0 {
            self.publish(&runs, &sheets, &ended, commit, now).await;
        }
        for run in ended.keys() {
            self.engine.forget(*run);
            self.live.remove(run);
        }
        self.publish_status();
        if !ended.is_empty() {
            self.trim_history().await;
        }
    }

    /// Forgets the oldest of the ended runs, and deletes what their sessions left.
    async fn trim_history(&mut self) {
        let forgotten = match self.ledger.trim(self.settings.max_job_history).await {
            Ok(forgotten) => forgotten,
            // The next end of a run tries again.
            Err(error) => return tracing::warn!(%error, "old runs cannot be forgotten"),
        };
        if forgotten.is_empty() {
            return;
        }
        tracing::info!("forgot {} (`max_job_history`)", count(forgotten.len(), "old run"));
        let spool = self.paths.spool(&self.ledger.tag());
        let delete = move || {
            probe::pass(Point::Trimming);
            for run in forgotten {
                let directory = spool.join(run.to_string());
                match std::fs::remove_dir_all(&directory) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!("{} cannot be deleted: {error}", directory.display());
                    }
                    _ => {}
                }
            }
        };
        self.attempts.spawn_blocking(delete);
    }

    /// Tells the journal of runs that started or wait since it was told last. Gives those of which anything new is to be
    /// said.
    fn tell_states(&mut self, runs: &BTreeSet<RunId>, now: Now) -> BTreeSet<RunId> {
        let mut news = BTreeSet::new();
        for (run, status) in self.engine.describe_each(runs.iter().copied(), now) {
            let Some(live) = self
                .live
                .get_mut(&run)
                .filter(|live| live.told.as_ref() != Some(&status))
            else {
                continue;
            };
            let before = live.told.as_ref().map(|told| told.state);
            if before != Some(status.state) {
                let first = before.is_none_or(|before| before == RunState::Queued);
                journal::state(&live.job, live.no, &status, first);
            }
            live.told = Some(status);
            news.insert(run);
        }
        news
    }

    /// Remembers who waits until nothing runs any more.
    pub(super) fn when_drained(&mut self, reply: Reply<()>) {
        self.drained.push(reply);
    }
}

/// Returns at that moment, or never.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Returns when the sender says so or is gone.
async fn asked(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// The engine's randomness starts from the ledger's own id, so that two conductors do not move in step.
pub(super) fn seed_of(id: uuid::Uuid) -> u64 {
    id.as_u64_pair().0 ^ id.as_u64_pair().1
}
