//! When the checkpoints in the workspaces are written. The ledger says what is in them.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::clock;
use super::conductor::Conductor;
use crate::ledger::checkpoint;
use crate::model::{Now, RunId, Timestamp};

/// What is remembered of a run's checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    /// Sheets that had ended when this conductor last wrote it, and when that was.
    last: Option<(u32, Timestamp)>,
    /// It is due at this moment.
    due: Option<Timestamp>,
}

/// Checkpoints that are being written beside the conductor's work.
#[derive(Debug, Default)]
pub(super) struct Writers(JoinSet<(RunId, Result<(), String>)>);

impl Writers {
    /// The next one that is done; `None` while none is being written.
    pub(super) async fn finished(&mut self) -> Option<(RunId, Result<(), String>)> {
        loop {
            match self.0.join_next().await? {
                Ok(done) => return Some(done),
                Err(error) => tracing::error!(%error, "a checkpoint's task ended unexpectedly"),
            }
        }
    }

    /// Waits for all of them.
    pub(super) async fn drain(&mut self) {
        while self.finished().await.is_some() {}
    }
}

impl Conductor {
    /// A sheet of that run has ended: notes whether its checkpoint is due.
    pub(super) fn sheet_ended(&mut self, run: RunId, now: Now) {
        let ended = self.sheets_ended(run);
        let Some(live) = self.live.get_mut(&run) else { return };
        let total = u32::try_from(live.plan.sheets.len()).unwrap_or(u32::MAX);
        live.checkpoint.due = match live.checkpoint.last {
            None => Some(now.wall),
            Some(_) if live.plan.checkpoint_every_sheet => Some(now.wall),
            // A clock that was set back must not hold it for long.
            Some((written, at)) if checkpoint::due(total, ended, written) => {
                Some(at.min(now.wall).plus(checkpoint::pause(ended)))
            }
            Some(_) => live.checkpoint.due,
        };
    }

    fn sheets_ended(&self, run: RunId) -> u32 {
        self.engine.run(run).map_or(0, |run| {
            let counts = run.counts();
            counts.completed + counts.skipped + counts.failed
        })
    }

    /// When the next checkpoint is due.
    pub(super) fn checkpoint_due(&self) -> Option<Timestamp> {
        self.live.values().filter_map(|live| live.checkpoint.due).min()
    }

    /// Starts writing those that are due, beside the conductor's work.
    pub(super) fn write_due_checkpoints(&mut self) {
        let at = clock::now().wall;
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
            let (ledger, path) = (Arc::clone(&self.ledger), live.plan.checkpoint_path.clone());
            self.checkpoints
                .0
                .spawn(async move { (run, write(&ledger, run, path).await) });
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
        let done = write(&self.ledger, run, path).await;
        self.checkpoint_written((run, done));
    }

    /// A checkpoint is a copy: one that cannot be written is said and costs nothing else.
    pub(super) fn checkpoint_written(&self, (run, done): (RunId, Result<(), String>)) {
        if let Err(error) = done {
            let job = self.live.get(&run).map_or("", |live| live.job.as_str());
            tracing::warn!(MOZART_JOB = job, "the checkpoint could not be written: {error}");
        }
    }
}

async fn write(ledger: &crate::ledger::Ledger, run: RunId, path: String) -> Result<(), String> {
    let checkpoint = ledger.checkpoint(run).await.map_err(|error| error.to_string())?;
    if let Some(why) = ledger.damage() {
        // The copy that is there is of a ledger that was whole.
        return Err(why.to_owned());
    }
    let written =
        tokio::task::spawn_blocking(move || checkpoint::write(std::path::Path::new(&path), &checkpoint)).await;
    match written {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
