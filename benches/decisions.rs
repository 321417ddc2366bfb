//! Engine decisions in a second: whole jobs run through in memory, in virtual time, with everything but the ledger and the
//! sessions. An event is one that the conductor would tell: started, answered, over, time has passed.

#![expect(clippy::print_stdout, reason = "its table is what it is for")]

mod rules;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use mozart::engine::rules::RunRules;
use mozart::engine::{Command, Engine, EngineSettings, Event, Run};
use mozart::model::{
    AttemptRef, Cause, Code, Failure, JobName, Limit, LimitKind, Now, Outcome, RunId, RunNo, Span, Timestamp,
};
use rules::rules;

const SECOND: i64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let few = if std::env::args().any(|argument| argument == "--quick") {
        10
    } else {
        1
    };
    let claude = "backend: {type: claude_cli}\n";
    let in_order = |sheets: u32| rules(&format!("{claude}sheet: {{size: 1, total_items: {sheets}}}\n"));
    let wide = |sheets: u32| {
        rules(&format!(
            "{claude}sheet: {{size: 1, total_items: 3, fan_out: {{2: {sheets}}}, dependencies: {{2: [1], 3: [2]}}}}\n\
             parallel: {{enabled: true, max_concurrent: 10}}\n"
        ))
    };
    println!("| engine, in memory | decisions | a second | a decision in the first tenth | in the last |");
    println!("| --- | --- | --- | --- | --- |");
    told("one job of 1,000 sheets", vec![in_order(1000)?])?;
    told("a fan-out of 10,000", vec![wide(10_000 / few)?])?;
    told("1,000 jobs of 10", vec![in_order(10)?; 1000 / few as usize])?;
    told("50 jobs of 200", vec![in_order(200)?; 50])?;
    Ok(())
}

/// Runs those jobs through, and prints how fast that was.
fn told(what: &str, jobs: Vec<RunRules>) -> Result<(), Box<dyn Error>> {
    let took = Machine::new().run(jobs)?;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let tenth = took.len().div_ceil(10);
    println!(
        "| {what} | {} | {:.0} | {:.1} µs | {:.1} µs |",
        took.len(),
        1.0 / mean(&took),
        mean(&took[..tenth]) * 1e6,
        mean(&took[took.len() - tenth..]) * 1e6
    );
    Ok(())
}

/// Sessions that do what they are told, and the clock.
struct Machine {
    engine: Engine,
    now: i64,
    /// What happens next, by time and by number.
    coming: BTreeMap<(i64, u32), Event>,
    numbers: u32,
    sessions: u32,
    /// Seconds of each decision.
    took: Vec<f64>,
}

impl Machine {
    fn new() -> Self {
        let settings = EngineSettings {
            job_timeout: Span::from_secs(365 * 24 * 3600),
            ..EngineSettings::default()
        };
        Self {
            engine: Engine::new(settings, uuid::Uuid::from_u128(42), 42),
            now: 0,
            coming: BTreeMap::new(),
            numbers: 0,
            sessions: 0,
            took: Vec::new(),
        }
    }

    fn run(mut self, jobs: Vec<RunRules>) -> Result<Vec<f64>, Box<dyn Error>> {
        for (run, rules) in (1..).map(RunId).zip(jobs) {
            let (job, no, completed) = (JobName::new(format!("job-{run}"))?, RunNo(1), Vec::new());
            self.step(&Event::Submitted {
                run,
                job,
                no,
                rules,
                completed,
            });
        }
        // A submission is no everyday decision.
        self.took.clear();
        let mut alarm = self.engine.next_wakeup(self.clock());
        loop {
            let event = self.coming.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = event.into_iter().chain(alarm.map(|at| at.0)).min() else {
                break;
            };
            self.now = at;
            let event = match self.coming.first_entry() {
                Some(event) if event.key().0 <= at => event.remove(),
                Some(_) | None => Event::Tick,
            };
            alarm = self.step(&event);
        }
        // Among thousands of sheets some fail more often than they may.
        if self.engine.runs().all(Run::has_ended) {
            Ok(self.took)
        } else {
            Err("a job did not end".into())
        }
    }

    fn clock(&self) -> Now {
        Now {
            wall: Timestamp(self.now),
            boot: self.now,
        }
    }

    /// What the conductor asks of the engine for one event; when it is to be woken next.
    fn step(&mut self, event: &Event) -> Option<Timestamp> {
        let now = self.clock();
        let begin = Instant::now();
        let decision = self.engine.decide(now, event);
        self.engine.observe(now, event);
        decision.facts.iter().for_each(|fact| self.engine.apply(fact));
        let alarm = self.engine.next_wakeup(now);
        self.took.push(begin.elapsed().as_secs_f64());
        for command in decision.commands {
            if let Command::StartAttempt(start) = command {
                self.begin(start.attempt);
            }
        }
        alarm
    }

    /// A session of one to two minutes.
    fn begin(&mut self, attempt: AttemptRef) {
        self.sessions += 1;
        let invocation = Some("1f".to_owned());
        let at = Timestamp(self.now + SECOND / 100);
        self.tell(
            SECOND / 100,
            Event::AttemptStarted {
                attempt,
                at,
                invocation,
            },
        );
        self.tell(2 * SECOND, Event::AttemptAnswered { attempt });
        let lasts = 60 + i64::from(self.sessions) * 37 % 60;
        let outcome = self.outcome(attempt, lasts);
        self.tell(lasts * SECOND, Event::AttemptFinished { attempt, outcome });
    }

    fn tell(&mut self, after: i64, event: Event) {
        self.numbers += 1;
        self.coming.insert((self.now + after, self.numbers), event);
    }

    /// One in nine does not come to a good end at once.
    fn outcome(&self, attempt: AttemptRef, lasts: i64) -> Outcome {
        let failed = |cause, code, limit| Failure {
            cause,
            code,
            message: "It failed.".to_owned(),
            hint: None,
            limit,
        };
        let limit = |kind, after: Option<i64>| Limit {
            kind,
            window: None,
            resets_at: after.map(|after| Timestamp(self.now + (lasts + after) * SECOND)),
            from_text: false,
            retry_after: None,
        };
        let failure = match self.sessions {
            n if n % 1999 == 0 => Some(failed(
                Cause::RateLimit,
                Code::E104,
                Some(limit(LimitKind::Usage, Some(3600))),
            )),
            n if n % 997 == 0 => Some(failed(
                Cause::RateLimit,
                Code::E101,
                Some(limit(LimitKind::Throttle, None)),
            )),
            n if n % 13 == 0 => Some(failed(Cause::Transient, Code::E103, None)),
            n if n % 29 == 0 => Some(failed(Cause::Validation, Code::E201, None)),
            _ => None,
        };
        Outcome {
            rules_passed: u32::from(failure.is_none()),
            rules_total: 1,
            failure,
            worked: true,
            session_id: Some(attempt.to_string()),
            ..Outcome::default()
        }
    }
}
