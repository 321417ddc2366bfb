//! What keeps this conductor from starting anything for now, beside what the engine knows itself.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::pressure::{Host, Level};
use super::quiet;
use super::settings::Settings;
use crate::engine::event::StartHold;
use crate::model::{Now, Span, Timestamp};

/// What is known of the machine is looked at anew after so long, while it matters.
const LOOK: Span = Span(2_000_000);

/// While the machine is pressed and nothing runs, one start is let through so often.
const TRICKLE: Span = Span(10_000_000);

/// What holds starts, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Holds {
    host: Host,
    pub(super) level: Level,
    crowded: bool,
    /// There is something to look at.
    watches: bool,
    /// When the machine was looked at last, on the clock that counts suspend.
    looked: Option<i64>,
    /// When a session was started last.
    started: Option<Now>,
    /// It was said what the kernel does not tell.
    told: bool,
    /// When quiet hours begin or end next.
    quiet_changes: Option<Timestamp>,
    /// What people and programs hold starts for.
    asked: BTreeMap<u32, String>,
    /// The last number that was given.
    last: u32,
}

impl Holds {
    pub(super) fn of(host: Host) -> Self {
        Self {
            host,
            ..Self::default()
        }
    }

    /// A session is being started.
    pub(super) fn started(&mut self, now: Now) {
        self.started = Some(now);
    }

    /// Holds starts until the number that is returned is given back.
    pub(super) fn ask(&mut self, why: String) -> u32 {
        self.last = (self.last.wrapping_add(1)..=u32::MAX)
            .chain(1..)
            .find(|number| *number > 0 && !self.asked.contains_key(number))
            .unwrap_or(1);
        self.asked.insert(self.last, why);
        self.last
    }

    /// Whether there was such a hold; it is over.
    pub(super) fn give_back(&mut self, number: u32) -> bool {
        self.asked.remove(&number).is_some()
    }

    /// Whether anybody has asked for a hold.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Everything that holds starts now.
    pub(super) fn look(&mut self, now: Now, settings: &Settings) -> Vec<StartHold> {
        self.look_at_host(now, settings);
        let mut holds = Vec::new();
        let hold = |why: String| StartHold {
            why,
            until: None,
            one_at: None,
        };
        let quiet = quiet::quiet(now.wall, &TimeZone::system(), &settings.quiet_hours);
        self.quiet_changes = quiet.changes;
        holds.extend(quiet.window.map(|window| StartHold {
            until: quiet.changes,
            ..hold(format!("quiet hours ({window})"))
        }));
        if let Some(short) = self.level.short() {
            // Without any other load of ours it may be somebody else's, and it may last.
            let last = self.started.filter(|last| now.boot - last.boot < TRICKLE.0);
            holds.push(StartHold {
                one_at: Some(last.map_or(Timestamp(0), |last| last.wall.plus(TRICKLE))),
                ..hold(format!("the machine is short of {short} (`pressure.hold_percent`)"))
            });
        }
        if let Some(most) = settings.resource_limits.max_processes.filter(|_| self.crowded) {
            holds.push(hold(format!(
                "the sessions have {most} processes and threads (`resource_limits.max_processes`)"
            )));
        }
        holds.extend(self.asked.values().map(|why| hold(format!("held: {why}"))));
        holds
    }

    fn look_at_host(&mut self, now: Now, settings: &Settings) {
        if self.looked.is_some_and(|at| now.boot - at < LOOK.0) {
            return;
        }
        self.looked = Some(now.boot);
        let limits = settings.pressure.filter(|_| self.host.pressure.is_some());
        self.level = limits.map_or(Level::Unknown, |limits| self.level.after(self.host.percents(), limits));
        let processes = settings
            .resource_limits
            .max_processes
            .map(|most| (most, self.host.processes()));
        self.crowded = matches!(processes, Some((most, Some(processes))) if processes >= most);
        self.watches = self.level != Level::Unknown || processes.is_some();
        if !std::mem::replace(&mut self.told, true) {
            if limits.is_some() && self.level == Level::Unknown {
                tracing::info!("this kernel tells no pressure (PSI), so `pressure` has no effect");
            }
            if processes.is_some() && self.host.slice.is_none() {
                tracing::warn!("sessions are no units here, so `resource_limits.max_processes` has no effect");
            }
        }
    }

    /// Whether the state of the machine holds anything.
    pub(super) fn are_of_the_machine(&self) -> bool {
        self.crowded || self.level.short().is_some()
    }

    /// When it is to be looked again though nothing happens; `busy`: the machine too.
    pub(super) fn next_look(&self, now: Now, busy: bool) -> Option<Timestamp> {
        let due = |looked: i64| now.wall.plus(Span(looked + LOOK.0 - now.boot));
        let host = self.looked.map(due).filter(|_| busy && self.watches);
        [host, self.quiet_changes].into_iter().flatten().min()
    }
}
