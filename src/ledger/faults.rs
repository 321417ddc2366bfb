//! SQLite's own calls, failing where a test says so: the code above it is the real one.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::Ledger;

/// Counts the calls of a ledger and the moments of each at which SQLite can be interrupted, and fails some of them.
///
/// A call is one use of the connection, from outside the ledger; a moment is a step of a statement, of reading as of
/// writing, or a commit. What failed has changed nothing.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<State>);

/// A moment: the call's number, and its own in the call, both from 0.
pub(crate) type Moment = (usize, u32);

#[derive(Debug, Default)]
struct State {
    met: Vec<Call>,
    failing: Range<Moment>,
    hit: bool,
    /// The test itself asks.
    aside: bool,
    /// What follows in that statement comes after its commit: to fail there would be a lie.
    committed: bool,
}

/// What is known of a call.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Call {
    /// How many moments it has.
    pub(crate) moments: u32,
    /// Which of them is its commit.
    pub(crate) commit: Option<u32>,
}

impl Faults {
    /// From now on those moments fail, counted from here.
    pub(crate) fn fail(&self, failing: Range<Moment>) {
        *self.state() = State {
            failing,
            ..State::default()
        };
    }

    /// Whether what follows is the test's own doing: it is not counted and does not fail.
    pub(crate) fn stand_aside(&self, aside: bool) {
        self.state().aside = aside;
    }

    /// Whether any moment has failed.
    pub(crate) fn hit(&self) -> bool {
        self.state().hit
    }

    /// The calls so far.
    pub(crate) fn met(&self) -> Vec<Call> {
        self.state().met.clone()
    }

    /// The connection is used anew.
    pub(super) fn called(&self) {
        let mut state = self.state();
        if !state.aside {
            state.met.push(Call::default());
        }
    }

    fn goes_on(&self, commit: bool) -> bool {
        let state = &mut *self.state();
        let number = state.met.len().saturating_sub(1);
        let Some(call) = state.met.last_mut().filter(|_| !state.aside) else {
            return true;
        };
        if std::mem::take(&mut state.committed) {
            return true;
        }
        let fails = state.failing.contains(&(number, call.moments));
        if commit {
            call.commit = Some(call.moments);
        }
        call.moments += 1;
        state.hit |= fails;
        state.committed = commit && !fails;
        !fails
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// From now on SQLite asks `faults` whether it may go on.
    pub(crate) async fn ask(&self, faults: &Arc<Faults>) {
        let mut store = self.store().await.unwrap();
        store.faults = Some(Arc::clone(faults));
        let mut handle = store.connection.lock_handle().await.unwrap();
        let asked = Arc::clone(faults);
        handle.set_progress_handler(1, move || asked.goes_on(false));
        let asked = Arc::clone(faults);
        handle.set_commit_hook(move || asked.goes_on(true));
    }
}

/// A new ledger of that id, as the bytes of its file: to be opened where they are written to, as often as wanted.
pub(crate) async fn template(id: uuid::Uuid) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = Ledger::open(&path).await.unwrap();
    let named = sqlx::query("UPDATE meta SET value = ? WHERE key = 'ledger'").bind(id.to_string());
    named
        .execute(&mut ledger.store().await.unwrap().connection)
        .await
        .unwrap();
    ledger.close().await.unwrap();
    std::fs::read(path).unwrap()
}
