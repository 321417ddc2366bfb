//! Weeks of the conductor's own code in virtual time, each drawn from a seed. Only sessions, clocks and the store's
//! faults are made up: jobs of every kind, sessions that do what real ones were seen to do, a person who submits,
//! pauses, cancels, answers and changes settings; and the conductor ends at any point of any step, the disk is full for
//! a while, the clock is set, the machine sleeps, the power goes.
//!
//! The account of it (`src/engine/tests/audit.rs`) knows the rules in another form than the engine, and is told what was
//! committed and commanded. A seed that fails is told with its number; it goes into `simulation.seeds`, whose seeds
//! are run first for ever.

mod audit;
mod dice;
mod people;
mod sessions;
mod tale;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use super::faults::{opened, quick_directory, recorded};
use super::*;
use crate::daemon::clock;
use crate::daemon::conductor::{AT_ONCE, seed_of};
use crate::daemon::holds::Holds;
use crate::engine::event::Start;
use crate::engine::tests::audit::Audit;
use crate::engine::{Choice, Command, Engine, EngineSettings, Fact, FactKind, REMEMBERED, Run, SheetState, Verdict};
use crate::ledger::faults::template;
use crate::ledger::tests::{failure, report};
use crate::model::{AttemptReport, Cause, Code, Cost, Limit, LimitKind, Now, Span};
use crate::probe::{self, Mutant, Point, Seen};
use crate::runner::backend::Heard;
use audit::audit;
use dice::Dice;
use people::Act;
use sessions::{Held, Session, TURN};
use tale::{HAPPENS, TALE, Tally, Told, tell};
use world::{Job, Outage, job, outages, settings};

/// Later than any clock that a file's time may come from.
const START: i64 = 4_000_000_000_000_000;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const WEEK: i64 = 7 * 24 * HOUR;

/// What is done next.
enum Next {
    Act(Act),
    Session(AttemptRef),
    Alarm,
}

struct Simulation {
    dice: Dice,
    /// For what a person changes of runs, so that weeks without it stay what they are.
    changes: Dice,
    /// For what a conductor hears of at once.
    together: Dice,
    directory: TempDir,
    settings: Settings,
    ledger: Option<Arc<Ledger>>,
    conductor: Option<Conductor>,
    /// Since it began; never steps.
    time: i64,
    /// How far the wall clock is off, and when it was set last.
    skew: i64,
    clock_set: Option<i64>,
    /// A step of the wall clock that the conductor saw and could not write down; and those forward that were lost with
    /// one, which nobody can tell from time that has passed.
    unwritten: i64,
    passed: i64,
    booted: i64,
    jobs: Vec<Job>,
    /// The job of each run.
    runs: BTreeMap<RunId, String>,
    outages: Vec<Outage>,
    acts: Vec<(i64, Act)>,
    sessions: BTreeMap<AttemptRef, Session>,
    held: BTreeMap<AttemptRef, Held>,
    /// What the present conductor was told to start or to look for.
    told: BTreeMap<AttemptRef, Start>,
    begun: BTreeSet<AttemptRef>,
    intended: BTreeSet<AttemptRef>,
    over: Vec<(AttemptRef, Box<AttemptReport>)>,
    acknowledged: BTreeSet<(String, u32)>,
    disk_is_full: bool,
    leaving: bool,
    /// A person asks just now for sheets to be run again.
    retrying: bool,
    /// A person just now has sheets of it checked, because of which nothing starts.
    recovering: Option<RunId>,
    verdicts: BTreeMap<(RunId, SheetNo), Verdict>,
    /// Whoever is left alone succeeds.
    left_alone: bool,
    audit: Audit,
    steps: u32,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let directory = quick_directory();
        let paths = paths_in(directory.path());
        std::fs::create_dir(&paths.state).unwrap();
        std::fs::write(paths.ledger(), empty_ledger()).unwrap();
        let engine = settings(&mut dice);
        let mut jobs = Vec::new();
        for number in 0..dice.from(2, 5) {
            jobs.push(job(&mut dice, number, directory.path()));
        }
        let mut simulation = Self {
            audit: audit(engine.clone()),
            settings: Settings {
                engine,
                ..Settings::default()
            },
            ledger: None,
            conductor: None,
            time: 0,
            skew: 0,
            clock_set: None,
            unwritten: 0,
            passed: 0,
            booted: -HOUR,
            outages: outages(&mut dice),
            acts: Vec::new(),
            sessions: BTreeMap::new(),
            held: BTreeMap::new(),
            told: BTreeMap::new(),
            begun: BTreeSet::new(),
            intended: BTreeSet::new(),
            over: Vec::new(),
            acknowledged: BTreeSet::new(),
            disk_is_full: false,
            leaving: false,
            retrying: false,
            recovering: None,
            verdicts: BTreeMap::new(),
            left_alone: false,
            steps: 0,
            jobs,
            runs: BTreeMap::new(),
            directory,
            changes: Dice(!seed),
            together: Dice(seed.rotate_left(32)),
            dice,
        };
        simulation.plan_the_week();
        simulation.look_at_the_clock();
        simulation.begin(true).await;
        simulation
    }

    fn ledger(&self) -> &Arc<Ledger> {
        self.ledger.as_ref().expect("is open")
    }

    fn conductor(&mut self) -> &mut Conductor {
        self.conductor.as_mut().expect("there is one")
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp(START + self.time + self.skew),
            boot: self.time - self.booted,
        }
    }

    /// The same moment, for an account that is kept by a clock that no power cut stops.
    fn audited(&self, now: Now) -> Now {
        Now {
            boot: self.time + self.passed,
            ..now
        }
    }

    fn look_at_the_clock(&self) {
        clock::test::stand_at(Some(self.now()));
    }

    /// A conductor takes up what there is, as often as it needs to.
    async fn begin(&mut self, same_boot: bool) {
        let paths = paths_in(self.directory.path());
        for tries in 0.. {
            if self.ledger.is_none() {
                self.ledger = Some(opened(&paths).await);
            }
            if !same_boot && tries == 0 {
                self.ledger().note_boot("an earlier boot").await.unwrap();
            }
            self.ledger().refuse_writes(self.disk_is_full).await;
            let ends = self.dice.percent(if tries < 3 && !self.left_alone { 10 } else { 0 });
            let point = self.dice.one(&[Point::Decided, Point::Committed, Point::Applied]);
            probe::watch(ends.then_some((point, 0)));
            // What a step of the clock meant for the latest starts, a new one does not know.
            if self.clock_set.is_some_and(|at| self.time - at < REMEMBERED.0) {
                self.audit.forget_pace();
            }
            let conductor = conductor_with(self.settings.clone(), paths.clone(), self.ledger(), true);
            self.conductor = Some(conductor.await.unwrap());
            self.leaving = false;
            tell(self.time, Told::Begins);
            if self.is_settled().await {
                return;
            }
        }
    }

    /// The conductor is no more. What it has just asked for may have been too late.
    async fn end(&mut self) {
        tell(self.time, Told::Ends);
        self.follow();
        if let Some(mut conductor) = self.conductor.take() {
            conductor.drained().await;
        }
        self.held.clear();
        self.told.clear();
        self.passed += std::mem::take(&mut self.unwritten).max(0);
        let time = self.time;
        let unborn: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.begins > time)
            .collect();
        let unborn: Vec<_> = unborn.into_iter().map(|(attempt, _)| *attempt).collect();
        for attempt in unborn {
            if self.dice.percent(50) {
                self.sessions.remove(&attempt);
            } else if let Some(session) = self.sessions.get_mut(&attempt) {
                session.begins = time;
                self.begun.insert(attempt);
            }
        }
        if self.dice.percent(20) {
            self.ledger = None;
        }
    }

    /// Takes in what a step led to. Whether the conductor is still there.
    async fn is_settled(&mut self) -> bool {
        self.steps += 1;
        self.observe();
        if probe::has_ended() {
            self.end().await;
            return false;
        }
        self.conductor().drained().await;
        self.follow();
        let conductor = self.conductor.as_ref().expect("there is one");
        if conductor.storage().is_empty() {
            self.unwritten = 0;
            let now = self.audited(self.now());
            self.audit.check(&conductor.engine, now, &self.told);
        }
        if self.steps.is_multiple_of(20) {
            self.compare().await;
        }
        true
    }

    async fn settle(&mut self) {
        if !self.is_settled().await {
            self.begin(true).await;
        }
    }

    /// What follows from the time that has passed is decided; whether that could be done.
    async fn looks_around(&mut self) -> bool {
        let looked = self.conductor().look_around().await.is_ok();
        if looked {
            self.observe();
        }
        looked
    }

    /// What comes first, and when.
    fn next(&self) -> Option<(i64, Next)> {
        let conductor = self.conductor.as_ref().expect("there is one");
        let acts = self.acts.iter().map(|(at, act)| (*at, Next::Act(*act)));
        let alarm = conductor.next_alarm().filter(|_| !self.leaving);
        let alarm = alarm.map(|at| (at.0 - START - self.skew, Next::Alarm));
        let sessions = self.held.iter().map(|(attempt, held)| {
            let at = match self.sessions.get(attempt) {
                None => held.since,
                Some(session) if !held.started => held.since.max(session.begins),
                Some(session) => match session.answers.filter(|_| !held.answered) {
                    Some(answers) => answers.min(session.ends),
                    None => session.ends,
                },
            };
            (at, Next::Session(*attempt))
        });
        let all = sessions.chain(alarm).chain(acts);
        all.min_by_key(|(at, _)| (*at).max(self.time))
    }

    /// Does what comes first.
    async fn go_on(&mut self, at: i64, next: Next) {
        self.time = self.time.max(at);
        self.look_at_the_clock();
        match next {
            Next::Alarm => {
                self.conductor().wake().await;
                self.settle().await;
            }
            Next::Session(attempt) => self.say(attempt).await,
            Next::Act(act) => {
                let place = self.acts.iter().position(|(due, _)| *due == at).expect("it was there");
                self.acts.remove(place);
                tell(self.time, Told::Act(act));
                self.act(act).await;
            }
        }
    }

    /// From now on nothing is in anybody's way.
    async fn leave_alone(&mut self) {
        tell(self.time, Told::LeftAlone);
        self.left_alone = true;
        self.acts.clear();
        self.disk_is_full = false;
        self.end().await;
        self.begin(true).await;
        let end = self.steps + 3000;
        loop {
            assert!(self.steps < end, "it does not come to an end");
            if let Some((at, next)) = self.next() {
                self.go_on(at, next).await;
                continue;
            }
            let conductor = self.conductor();
            let question = conductor.engine.questions().next().cloned();
            let paused = conductor.engine.runs().map(|run| run.id()).collect::<Vec<_>>();
            if let Some(question) = question {
                self.answer(question.id, question.choices[0]).await;
            } else if paused.is_empty() {
                break;
            } else {
                for run in paused {
                    let resumed = self.conductor().step(Event::ResumeRequested { run }).await;
                    resumed.expect("what goes on by itself would have");
                }
            }
            self.settle().await;
        }
    }
}

/// The same for all seeds, so that a seed has one outcome: the engine's own chance follows from the ledger's id.
fn empty_ledger() -> &'static [u8] {
    static LEDGER: OnceLock<Vec<u8>> = OnceLock::new();
    LEDGER.get_or_init(|| {
        let made = std::thread::spawn(|| runtime().block_on(template(uuid::Uuid::from_u128(0x1234_5678_9abc))));
        made.join().unwrap()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A week of that seed; what went wrong, if anything did.
fn week(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    TALE.take();
    probe::mutate(mutant);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(async {
            let mut simulation = Simulation::new(seed).await;
            while let Some((at, next)) = simulation.next()
                && simulation.time < WEEK
                && simulation.steps < 600
            {
                simulation.go_on(at, next).await;
            }
            simulation.leave_alone().await;
            simulation.conclude().await;
        });
    }));
    probe::mutate(None);
    drop(probe::seen());
    clock::test::stand_at(None);
    lived.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "it panicked".to_owned())
    })
}

/// The weeks of those seeds, on all processors; the first that fails ends it. Tells what happened in them.
fn weeks(seeds: impl Iterator<Item = u64> + Send) -> Tally {
    let failed = AtomicBool::new(false);
    let seeds = Mutex::new(seeds.take_while(|_| !failed.load(Ordering::Relaxed)));
    let tally = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = seeds.lock().map(|mut seeds| seeds.next());
                let Ok(Some(seed)) = seed else { return };
                let survived = week(seed, None);
                let tale = TALE.take();
                if let Err(why) = survived {
                    failed.store(true, Ordering::Relaxed);
                    let mut told = String::new();
                    for (time, what) in &tale[tale.len().saturating_sub(60)..] {
                        writeln!(told, "{:>14.3} {what:?}", *time as f64 / SECOND as f64).unwrap();
                    }
                    panic!("MOZART_SEED={seed} fails: {why}\n{told}");
                }
                if let Ok(mut tally) = tally.lock() {
                    tally.add(&tale);
                }
            }
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in all {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    tally.into_inner().unwrap()
}

/// Seeds that have failed once: one a line, and what was wrong.
const REGRESSIONS: &str = include_str!("simulation.seeds");

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn any_week_is_survived() {
    if let Some(seed) = number("MOZART_SEED") {
        weeks(std::iter::once(seed));
        return;
    }
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let failed: Vec<u64> = lines
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    let (first, many) = (
        number("MOZART_FIRST_SEED").unwrap_or(1),
        number("MOZART_SEEDS").unwrap_or(500),
    );
    let begun = std::time::Instant::now();
    let tally = weeks(failed.into_iter().chain(first..first + many));
    eprintln!("{many} seeds from {first} on in {:.1?}: {:?}", begun.elapsed(), tally.0);
    for what in HAPPENS {
        assert!(many < 100 || tally.0.contains_key(what), "`{what}` never happens");
    }
}

#[test]
fn whatever_is_broken_is_noticed() {
    for mutant in Mutant::ALL {
        let caught = (1..=MUTANT_SEEDS).find_map(|seed| Some((seed, week(seed, Some(mutant)).err()?)));
        let (seed, why) = caught.unwrap_or_else(|| panic!("{mutant:?} is not noticed within {MUTANT_SEEDS} seeds"));
        eprintln!("{mutant:?}: seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
}

/// Within so many seeds each mutant has to be noticed.
const MUTANT_SEEDS: u64 = 40;
