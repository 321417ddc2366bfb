//! Sessions: they begin when the conductor has asked for it, outlive it, and tell how they ended.

use super::world::{Ends, Refuses};
use super::*;

/// What a session may cost beyond its budget: it looks at that after each turn.
pub(super) const TURN: Cost = Cost(100_000);

/// A session that was started, until its end is in the journal. It outlives conductors.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) begins: i64,
    pub(super) answers: Option<i64>,
    pub(super) ends: i64,
    pub(super) report: Box<AttemptReport>,
    pub(super) stopped: bool,
}

/// What the present conductor knows of an attempt that it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) since: i64,
    pub(super) started: bool,
    pub(super) answered: bool,
}

impl Simulation {
    /// Does what the conductor asked for.
    pub(super) fn follow(&mut self) {
        let Some(conductor) = &self.conductor else { return };
        let running = conductor.running.iter();
        let mut asked: Vec<_> = running
            .map(|(attempt, stop)| (*attempt, stop.borrow().is_some()))
            .collect();
        asked.sort_unstable();
        let adopting = conductor.adopting.clone();
        for (attempt, stop) in asked {
            if !self.held.contains_key(&attempt) {
                if !adopting.contains(&attempt) {
                    assert!(
                        self.intended.contains(&attempt),
                        "{attempt} starts, and its intent is not stored"
                    );
                    let again = self.begun.contains(&attempt) || self.sessions.contains_key(&attempt);
                    assert!(!again, "{attempt} starts twice");
                    let session = self.session(attempt);
                    self.sessions.insert(attempt, session);
                }
                let held = Held {
                    since: self.time + self.dice.from(0, 2 * SECOND),
                    started: false,
                    answered: false,
                };
                self.held.insert(attempt, held);
            }
            let (time, grace) = (self.time, self.dice.from(0, 10 * SECOND));
            if let Some(session) = self
                .sessions
                .get_mut(&attempt)
                .filter(|session| stop && !session.stopped)
            {
                session.stopped = true;
                let ends = time.max(session.begins) + grace;
                if ends < session.ends {
                    session.ends = ends;
                    let worked = session.answers.is_some_and(|answers| answers < ends);
                    session.report = interrupted(worked);
                }
            }
        }
    }

    /// A new session, and what will come of it.
    pub(super) fn session(&mut self, attempt: AttemptRef) -> Session {
        let begins = self.time + self.dice.from(0, 2 * SECOND);
        let name = &self.runs[&attempt.run];
        let job = self.jobs.iter().find(|job| job.name == *name).expect("a job of ours");
        let (account, stubborn) = (job.account, job.stubborn.get(&attempt.sheet.0).copied());
        if self.left_alone {
            return Session {
                begins,
                answers: Some(begins + SECOND),
                ends: begins + self.dice.span(2 * SECOND, MINUTE),
                report: self.ended(Ends::Well),
                stopped: false,
            };
        }
        let of_account = self.outages.iter().filter(|outage| Some(outage.account) == account);
        let outages: Vec<_> = of_account.copied().collect();
        if let Some(outage) = outages.iter().find(|outage| (outage.from..outage.to).contains(&begins)) {
            return Session {
                begins,
                answers: None,
                ends: begins + self.dice.span(SECOND, MINUTE),
                report: self.refused(*outage, false),
                stopped: false,
            };
        }
        let ends = match self.dice.from(0, 99) {
            _ if stubborn.is_some() => stubborn.unwrap_or(Ends::Well),
            0..=69 => Ends::Well,
            70..=75 => Ends::Wrong,
            76..=82 => Ends::Partly,
            83..=86 => Ends::Empty,
            87..=90 => Ends::Hung,
            91..=94 => Ends::Crashed,
            95..=98 => Ends::Overloaded,
            _ => Ends::Hopeless,
        };
        let mut session = Session {
            begins,
            answers: self.dice.percent(90).then_some(begins + SECOND),
            ends: begins + self.dice.span(2 * SECOND, 3 * HOUR),
            report: self.ended(ends),
            stopped: false,
        };
        let cost = Cost(self.dice.span(1_000, 3_000_000));
        session.report.outcome.cost = self.dice.percent(90).then_some(cost);
        let most = self.told.get(&attempt).and_then(|start| start.budget);
        if let Some(most) = most.filter(|most| *most < cost) {
            // The CLI stops a session after the turn in which it has cost that.
            let mut report = report(Some(failure(Cause::Fatal, Code::E701)), &[]);
            report.outcome.session_id = Some(format!("session {}", self.dice.roll()));
            report.outcome.cost = Some(Cost(most.0 + self.dice.from(0, TURN.0)));
            session.report = Box::new(report);
        }
        let amid = outages
            .iter()
            .find(|outage| (begins..session.ends).contains(&outage.from));
        if let Some(outage) = amid.filter(|outage| outage.refuses != Refuses::Overload) {
            session.ends = outage.from + self.dice.span(SECOND, MINUTE);
            session.report = self.refused(*outage, true);
        }
        session
    }

    pub(super) fn ended(&mut self, ends: Ends) -> Box<AttemptReport> {
        let (failed, rules): (Option<(Cause, Code)>, &[bool]) = match ends {
            Ends::Well => (None, &[true; 3]),
            Ends::Wrong => (Some((Cause::Validation, Code::E201)), &[false; 3]),
            Ends::Partly => (Some((Cause::Validation, Code::E209)), &[false, true, true]),
            Ends::Empty => (Some((Cause::Validation, Code::E205)), &[]),
            Ends::Hung => (Some((Cause::Transient, Code::E006)), &[]),
            Ends::Crashed => (Some((Cause::Transient, Code::E003)), &[]),
            Ends::Overloaded => (Some((Cause::Transient, Code::E103)), &[]),
            Ends::Hopeless => (Some((Cause::Fatal, Code::E509)), &[]),
        };
        let mut report = report(failed.map(|(cause, code)| failure(cause, code)), rules);
        report.outcome.worked = !matches!(ends, Ends::Overloaded | Ends::Empty) || self.dice.percent(50);
        report.outcome.session_id = report.outcome.worked.then(|| format!("session {}", self.dice.roll()));
        report.outcome.session_lost = ends == Ends::Crashed && self.dice.percent(20);
        Box::new(report)
    }

    pub(super) fn refused(&mut self, outage: Outage, worked: bool) -> Box<AttemptReport> {
        let usage = |resets_at, from_text| Limit {
            kind: LimitKind::Usage,
            window: Some("five_hour".to_owned()),
            resets_at,
            from_text,
            retry_after: None,
        };
        let until = START + outage.to;
        let (cause, code, limit) = match outage.refuses {
            Refuses::Usage(None) => (Cause::RateLimit, Code::E104, Some(usage(None, false))),
            Refuses::Usage(Some(false)) => (Cause::RateLimit, Code::E104, Some(usage(Some(Timestamp(until)), false))),
            Refuses::Usage(Some(true)) => {
                let minute = Timestamp(until / MINUTE * MINUTE + MINUTE);
                (Cause::RateLimit, Code::E104, Some(usage(Some(minute), true)))
            }
            Refuses::Throttle(told) => {
                let limit = Limit {
                    kind: LimitKind::Throttle,
                    window: None,
                    retry_after: told.then(|| Span(self.dice.span(SECOND, 2 * MINUTE))),
                    ..usage(None, false)
                };
                (Cause::RateLimit, Code::E101, Some(limit))
            }
            Refuses::Overload => (Cause::Transient, Code::E103, None),
            Refuses::Login => (Cause::Fatal, Code::E502, None),
        };
        let mut failure = failure(cause, code);
        failure.limit = limit;
        let mut report = report(Some(failure), &[]);
        report.outcome.worked = worked;
        report.outcome.session_id = worked.then(|| format!("session {}", self.dice.roll()));
        Box::new(report)
    }

    /// A session has something to say. A conductor that is busy meanwhile hears of those that come next together with it.
    pub(super) async fn say(&mut self, attempt: AttemptRef) {
        let mut said = vec![self.says(attempt)];
        let busy = match self.together.from(0, 9) {
            0..=5 => 0,
            6..=8 => 2 * SECOND,
            _ => HOUR,
        };
        let until = self.time + busy;
        while let Some((at, Next::Session(attempt))) = self.next()
            && at <= until
            && said.len() < AT_ONCE
        {
            self.time = self.time.max(at);
            said.push(self.says(attempt));
        }
        if said.len() > 1 {
            tell(self.time, Told::Together);
        }
        self.look_at_the_clock();
        self.conductor().hear(said).await;
        self.settle().await;
    }

    fn says(&mut self, attempt: AttemptRef) -> (AttemptRef, Progress) {
        let time = self.time;
        let held = self.held.get_mut(&attempt).expect("is held");
        let progress = match self.sessions.get(&attempt) {
            None => Progress::NeverRan,
            // Nothing ran, and a second later it says so.
            Some(_) if self.disk_is_full && !self.begun.contains(&attempt) => {
                tell(time, Told::NoRoom);
                self.sessions.remove(&attempt);
                held.since = time + SECOND;
                Progress::NoRoom("there is no room".to_owned())
            }
            Some(_) if !held.started => {
                held.started = true;
                self.begun.insert(attempt);
                started()
            }
            Some(session) if session.ends > time => {
                held.answered = true;
                Progress::Heard(Heard::Answered)
            }
            Some(session) => Progress::Finished(session.report.clone()),
        };
        if matches!(progress, Progress::NeverRan | Progress::Finished(_)) {
            self.held.remove(&attempt);
        }
        (attempt, progress)
    }

    /// Nothing runs any more, and of some of it nothing is left.
    pub(super) fn power_cut(&mut self) {
        self.booted = self.time;
        let all: Vec<_> = self.sessions.keys().copied().collect();
        for attempt in all {
            if self.dice.percent(50) {
                self.sessions.remove(&attempt);
            } else if let Some(session) = self.sessions.get_mut(&attempt)
                && session.ends > self.time
            {
                session.ends = self.time;
                session.report = interrupted(session.answers.is_some_and(|at| at < self.time));
            }
        }
    }
}

pub(super) fn interrupted(worked: bool) -> Box<AttemptReport> {
    let mut report = report(Some(failure(Cause::Interrupted, Code::E004)), &[]);
    report.outcome.worked = worked;
    report.outcome.session_id = worked.then(|| "interrupted".to_owned());
    Box::new(report)
}
