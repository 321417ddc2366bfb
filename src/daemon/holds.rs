//! What keeps this conductor from starting anything for now, beside what the engine knows itself.

use jiff::tz::TimeZone;

use super::quiet;
use super::settings::Settings;
use crate::engine::event::StartHold;
use crate::model::{Now, Timestamp};

/// What holds starts, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// When quiet hours begin or end next.
    quiet_changes: Option<Timestamp>,
}

impl Holds {
    /// Everything that holds starts now.
    pub(super) fn look(&mut self, now: Now, settings: &Settings) -> Vec<StartHold> {
        let mut holds = Vec::new();
        let quiet = quiet::quiet(now.wall, &TimeZone::system(), &settings.quiet_hours);
        self.quiet_changes = quiet.changes;
        holds.extend(quiet.window.map(|window| StartHold {
            why: format!("quiet hours ({window})"),
            until: quiet.changes,
        }));
        holds
    }

    /// When it is to be looked again though nothing happens.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.quiet_changes
    }
}
