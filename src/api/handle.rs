//! The handle by which bus and front ends reach the conductor: a bounded queue of requests, each with a
//! place for its answer, and a stream of changes.

use std::os::fd::OwnedFd;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::request::{ApiError, CostRequest, Modified, RecoveredSheet, RunFilter, RunSelector, Submit, Submitted};
use super::view::{Change, GateView, ManagerView, QuestionView, RunView};
use crate::model::{Problem, SheetNo};
use crate::summary::{AttemptSummary, CostSummary, RunSummary, SheetSummary};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// Everything the conductor can be asked.
#[derive(Debug)]
pub enum Request {
    /// Check, plan, store and queue a job.
    Submit(Box<Submit>, Reply<Submitted>),
    /// Check and plan only; true: no errors.
    Validate(Box<Submit>, Reply<(bool, Vec<Problem>)>),
    /// Runs, newest first; with a cursor for the next page (empty: no more).
    ListRuns(RunFilter, u32, String, Reply<(Vec<RunSummary>, String)>),
    /// One run.
    GetRun(RunSelector, Reply<RunView>),
    /// Pause; `now` stops its sessions.
    Pause(RunSelector, bool, Reply<()>),
    /// Go on.
    Resume(RunSelector, Reply<()>),
    /// Run the sheets from that number on again.
    Retry(RunSelector, SheetNo, Reply<()>),
    /// Give it the job file as it is now; `Submit.resume`: let it go on, too.
    Modify(RunSelector, Box<Submit>, Reply<Modified>),
    /// Take sheets for completed whose rules hold (all that are not completed, or one); `true`: only say which.
    Recover(RunSelector, Option<SheetNo>, bool, Reply<Vec<RecoveredSheet>>),
    /// Cancel.
    Cancel(RunSelector, Reply<()>),
    /// `count` sheets from number `first` on.
    Sheets(RunSelector, u32, u32, Reply<Vec<SheetSummary>>),
    /// All attempts at a sheet, oldest first.
    Attempts(RunSelector, u32, Reply<Vec<AttemptSummary>>),
    /// Read-only standard output of an attempt; attempt 0: the newest.
    OpenOutput(RunSelector, u32, u32, Reply<OwnedFd>),
    /// Answer the question of that id with that word.
    Answer(String, String, Reply<()>),
    /// The open questions.
    Questions(Reply<Vec<QuestionView>>),
    /// The gates that are not open.
    Gates(Reply<Vec<GateView>>),
    /// Open the gates of that account, or all there are.
    ClearGates(Option<String>, Reply<()>),
    /// What was spent.
    Costs(CostRequest, Reply<Vec<CostSummary>>),
    /// Stop the conductor; `true` stops its sessions first.
    Stop(bool, Reply<()>),
    /// Read the settings anew.
    Reload(Reply<()>),
    /// The conductor's own view.
    Manager(Reply<ManagerView>),
    /// Hold every live run for a later conductor (Ctrl+C on an embedded one); `true` stops its sessions. Answered once
    /// nothing runs any more.
    Interrupt(bool, Reply<()>),
    /// Hold all starts, for that reason, until the number that is the answer is given back.
    Inhibit(String, Reply<u32>),
    /// Give such a number back.
    Uninhibit(u32, Reply<()>),
    /// The system is about to sleep (`true`), or has woken up.
    Sleep(bool, Reply<()>),
    /// Runs that are live or ended recently: what the bus shows as objects.
    Recent(Reply<Vec<RunView>>),
}

/// A cheap handle to the running conductor.
#[derive(Debug, Clone)]
pub struct Conductor {
    requests: mpsc::Sender<Request>,
    changes: broadcast::Sender<Change>,
}

impl Conductor {
    /// A handle over the two ends that the conductor's task serves.
    pub fn new(requests: mpsc::Sender<Request>, changes: broadcast::Sender<Change>) -> Self {
        Self { requests, changes }
    }

    /// Changes from now on. One who falls behind gets `Lagged` and looks again.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Sends one request and waits for its answer. What the request changes is announced before the answer, so
    /// that one who has the answer sees the change.
    ///
    /// # Errors
    /// What the conductor answers; [`ApiError::Stopping`] where it is gone.
    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ApiError> {
        let stopping = || ApiError::Stopping("the conductor is stopping; try again".to_owned());
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}
