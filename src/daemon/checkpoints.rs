//! When the checkpoints in the workspaces are written. The ledger says what is in them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::task::JoinSet;

use super::clock;
use super::conductor::Conductor;
use crate::ledger::{Ledger, StoreError, checkpoint};
use crate::model::{Now, RunId, Span, Timestamp};

/// Between two tries to write a checkpoint that could not be written.
const AGAIN: Span = Span(4_000_000);

/// So long after a verdict at the earliest: what starts because of it has the disk to itself.
const LATER: Span = Span(200_000);

/// Runs that ended last whose checkpoints are looked at by the next conductor.
const OWED: u32 = 20;

/// What is remembered of a run's checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    /// Sheets that had ended when this conductor last wrote it, and when that was.
    last: Option<(u32, Timestamp)>,
    /// It is due at this moment.
    due: Option<Timestamp>,
}

/// A checkpoint that was to be written, to that path, and what came of it.
pub(super) type Written = (RunId, String, Result<(), String>);

/// Checkpoints that are being written beside the conductor's work.
#[derive(Debug, Default)]
pub(super) struct Writers {
    under_way: JoinSet<Written>,
    /// Those that failed, with their path and the time of the next try. Also of runs that have ended.
    failed: BTreeMap<RunId, (String, Timestamp)>,
}

impl Writers {
    /// The next one that is done; `None` while none is being written.
    pub(super) async fn finished(&mut self) -> Option<Written> {
        loop {
            match self.under_way.join_next().await? {
                Ok(done) => return Some(done),
                Err(error) => tracing::error!(%error, "a checkpoint's task ended unexpectedly"),
            }
        }
    }

    fn begin(&mut self, ledger: &Arc<Ledger>, run: RunId, path: String) {
        let ledger = Arc::clone(ledger);
        self.under_way.spawn(async move {
            let done = write(&ledger, run, &path).await;
            (run, path, done)
        });
    }

    /// The same for a run that ended at that time, if its checkpoint is behind. Its file system may be slow, or gone.
    fn catch_up(&mut self, ledger: &Arc<Ledger>, run: RunId, path: String, ended_at: Timestamp) {
        let ledger = Arc::clone(ledger);
        self.under_way.spawn(async move {
            let place = PathBuf::from(&path);
            let behind = tokio::task::spawn_blocking(move || is_behind(&place, ended_at)).await;
            let done = match behind {
                Ok(true) => write(&ledger, run, &path).await,
                Ok(false) | Err(_) => Ok(()),
            };
            (run, path, done)
        });
    }

    /// Waits for all of them.
    pub(super) async fn drain(&mut self) {
        while self.finished().await.is_some() {}
    }
}

impl Conductor {
    /// Starts writing the checkpoints that the last conductor left behind its verdicts: it was killed between the two,
    /// or had no room for the file.
    pub(super) async fn write_owed_checkpoints(&mut self) -> Result<(), StoreError> {
        for (run, ended_at, path) in self.ledger.ended_last(OWED).await? {
            self.checkpoints.catch_up(&self.ledger, run, path, ended_at);
        }
        Ok(())
    }

    /// A sheet of that run has ended: notes whether its checkpoint is due.
    pub(super) fn sheet_ended(&mut self, run: RunId, now: Now) {
        let ended = self.sheets_ended(run);
        let Some(live) = self.live.get_mut(&run) else { return };
        let total = u32::try_from(live.plan.sheets.len()).unwrap_or(u32::MAX);
        let State { last, due } = live.checkpoint;
        if last.is_some() && live.plan.checkpoint_every_sheet {
            live.checkpoint.due = Some(now.wall);
            return;
        }
        let wanted = match last {
            None => now.wall,
            // A clock that was set back must not hold it for long.
            Some((written, at)) if checkpoint::due(total, ended, written) => {
                at.min(now.wall).plus(checkpoint::pause(ended))
            }
            Some(_) => return,
        };
        let wanted = wanted.max(now.wall.plus(LATER));
        live.checkpoint.due = Some(due.map_or(wanted, |due| due.min(wanted)));
    }

    fn sheets_ended(&self, run: RunId) -> u32 {
        self.engine.run(run).map_or(0, |run| {
            let counts = run.counts();
            counts.completed + counts.skipped + counts.failed
        })
    }

    /// When the next checkpoint is due.
    pub(super) fn checkpoint_due(&self) -> Option<Timestamp> {
        let again = self.checkpoints.failed.values().map(|(_, at)| *at);
        let due = self.live.values().filter_map(|live| live.checkpoint.due);
        due.chain(again).min()
    }

    /// None of them is held for longer because the clock was set back.
    pub(super) fn hurry_checkpoints(&mut self, now: Timestamp) {
        let runs: Vec<_> = self.live.keys().copied().collect();
        for run in runs {
            let latest = now.plus(checkpoint::pause(self.sheets_ended(run)));
            if let Some(due) = self.live.get_mut(&run).and_then(|live| live.checkpoint.due.as_mut()) {
                *due = (*due).min(latest);
            }
        }
        for (_, at) in self.checkpoints.failed.values_mut() {
            *at = (*at).min(now.plus(AGAIN));
        }
    }

    /// Starts writing those that are due, beside the conductor's work.
    pub(super) fn write_due_checkpoints(&mut self) {
        self.write_checkpoints_due_at(clock::now().wall);
    }

    pub(super) fn write_checkpoints_due_at(&mut self, at: Timestamp) {
        let due: Vec<_> = self
            .live
            .iter()
            .filter(|(_, live)| live.checkpoint.due.is_some_and(|due| due <= at))
            .collect();
        let due: Vec<_> = due.into_iter().map(|(run, _)| *run).collect();
        for run in due {
            let ended = self.sheets_ended(run);
            let Some(live) = self.live.get_mut(&run) else { continue };
            live.checkpoint = State {
                last: Some((ended, at)),
                due: None,
            };
            let path = live.plan.checkpoint_path.clone();
            self.checkpoints.begin(&self.ledger, run, path);
        }
        let mut again = Vec::new();
        for (run, (path, due)) in &mut self.checkpoints.failed {
            if *due <= at {
                *due = at.plus(AGAIN);
                again.push((*run, path.clone()));
            }
        }
        for (run, path) in again {
            self.checkpoints.begin(&self.ledger, run, path);
        }
    }

    /// Writes one now and waits for it: at pause, end and stop.
    pub(super) async fn write_checkpoint(&mut self, run: RunId) {
        let ended = self.sheets_ended(run);
        let Some(live) = self.live.get_mut(&run) else { return };
        live.checkpoint = State {
            last: Some((ended, clock::now().wall)),
            due: None,
        };
        let path = live.plan.checkpoint_path.clone();
        // One that is under way would otherwise be renamed over this newer one.
        while let Some(done) = self.checkpoints.finished().await {
            self.checkpoint_written(done);
        }
        let done = write(&self.ledger, run, &path).await;
        self.checkpoint_written((run, path, done));
    }

    /// A checkpoint is a copy: one that cannot be written is said once, tried again, and costs nothing else.
    pub(super) fn checkpoint_written(&mut self, (run, path, done): Written) {
        match done {
            Ok(()) => drop(self.checkpoints.failed.remove(&run)),
            Err(error) => {
                let again = clock::now().wall.plus(AGAIN);
                if self.checkpoints.failed.insert(run, (path, again)).is_none() {
                    let job = self.live.get(&run).map_or("", |live| live.job.as_str());
                    tracing::warn!(
                        MOZART_JOB = job,
                        "the checkpoint could not be written, and is tried again: {error}"
                    );
                }
            }
        }
    }
}

/// Whether a run that ended at that time may lack its end in the checkpoint. Where its directory is gone none is wanted.
fn is_behind(path: &Path, ended_at: Timestamp) -> bool {
    match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(written) => {
            let ended_at = u64::try_from(ended_at.0).map(Duration::from_micros).unwrap_or_default();
            written < UNIX_EPOCH + ended_at
        }
        Err(error) => {
            error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(|directory| directory.is_dir())
        }
    }
}

async fn write(ledger: &Ledger, run: RunId, path: &str) -> Result<(), String> {
    let checkpoint = ledger.checkpoint(run).await.map_err(|error| error.to_string())?;
    if let Some(why) = ledger.damage() {
        // The copy that is there is of a ledger that was whole.
        return Err(why.to_owned());
    }
    let path = PathBuf::from(path);
    let written = tokio::task::spawn_blocking(move || checkpoint::write(&path, &checkpoint)).await;
    match written {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
