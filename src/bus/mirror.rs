//! What one connection shows: the conductor's view and the live and recent runs, kept up from the changes.
//!
//! Every read first takes in the changes that are already there. The conductor announces a change before it answers
//! the request that made it, so a client that asks for a property after an answer sees what its call did.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::{self, error::TryRecvError};

use crate::api::handle::{Conductor, Request};
use crate::api::request::ApiError;
use crate::api::view::{Change, GateView, ManagerView, QuestionView, RunView};
use crate::model::{JobName, RunNo, RunState};
use crate::summary::SheetSummary;

/// Ended jobs that stay objects; those go first that were not looked for or changed for longest.
const RECENT_ENDED: usize = 64;

#[derive(Debug)]
pub(super) struct Mirror {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    changes: broadcast::Receiver<Change>,
    /// Changes were missed: everything is to be read again.
    lagged: bool,
    manager: ManagerView,
    manager_news: ManagerNews,
    jobs: BTreeMap<JobName, Job>,
    /// Counts the looks at jobs, to tell which was longest ago.
    looks: u64,
}

#[derive(Debug)]
struct Job {
    view: RunView,
    looked: u64,
    news: News,
}

/// What is not told yet of the conductor as a whole.
#[derive(Debug, Default)]
pub(super) struct ManagerNews {
    /// Its properties may differ from what was told.
    view: bool,
    /// Questions that were asked.
    pub(super) questions: Vec<QuestionView>,
    /// Gates that changed, newest word of each, by account, kind and window.
    pub(super) gates: BTreeMap<(String, String, Option<String>), GateView>,
}

/// What is not told yet of a job.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Its properties may differ from what was told.
    pub(super) view: bool,
    /// The run's state differs from what was told before: worth telling at once.
    pub(super) urgent: bool,
    /// Sheets that changed, newest word of each.
    pub(super) sheets: BTreeMap<(RunNo, u32), SheetSummary>,
    /// Runs that are over.
    pub(super) finished: Vec<(RunNo, RunState)>,
}

impl Mirror {
    /// Reads everything once, and follows the changes from then on.
    pub(super) async fn new(conductor: &Conductor) -> Result<Self, ApiError> {
        // Subscribed first: a change between the two is taken in twice rather than never.
        let changes = conductor.subscribe();
        let manager = conductor.ask(Request::Manager).await?;
        let mut runs = conductor.ask(Request::Recent).await?;
        runs.sort_by_key(|run| run.summary.ended_at);
        let mut state = State {
            changes,
            lagged: false,
            manager,
            manager_news: ManagerNews::default(),
            jobs: BTreeMap::new(),
            looks: 0,
        };
        for run in runs {
            state.show(run);
        }
        Ok(Self {
            state: Mutex::new(state),
        })
    }

    /// Reads everything anew where changes were missed.
    pub(super) async fn read_again(&self, conductor: &Conductor) -> Result<(), ApiError> {
        if !std::mem::take(&mut self.state().lagged) {
            return Ok(());
        }
        let manager = conductor.ask(Request::Manager).await?;
        let runs = conductor.ask(Request::Recent).await?;
        let mut state = self.state();
        state.apply(Change::Manager(manager));
        for run in runs {
            state.apply(Change::Run(Box::new(run)));
        }
        Ok(())
    }

    pub(super) fn manager(&self) -> ManagerView {
        self.state().manager.clone()
    }

    /// Reads a job's newest run; none where it is not shown.
    pub(super) fn run<T>(&self, job: &JobName, read: impl FnOnce(&RunView) -> T) -> Option<T> {
        self.state().jobs.get(job).map(|job| read(&job.view))
    }

    /// Keeps a job shown that somebody looks for; false where it is not shown yet.
    pub(super) fn look(&self, job: &JobName) -> bool {
        let mut state = self.state();
        state.looks += 1;
        let looks = state.looks;
        state.jobs.get_mut(job).map(|job| job.looked = looks).is_some()
    }

    /// Shows a run that somebody looked for.
    pub(super) fn show(&self, view: RunView) {
        self.state().show(view);
    }

    pub(super) fn jobs(&self) -> Vec<JobName> {
        self.state().jobs.keys().cloned().collect()
    }

    /// Live jobs of which everything is told.
    pub(super) fn live_without_news(&self) -> Vec<JobName> {
        let state = self.state();
        let quiet = state
            .jobs
            .iter()
            .filter(|(_, job)| !job.view.summary.state.is_ended() && !job.news.any());
        quiet.map(|(name, _)| name.clone()).collect()
    }

    /// Whether there is news of the conductor as a whole, and whether it is urgent.
    pub(super) fn manager_with_news(&self) -> Option<bool> {
        let state = self.state();
        state
            .manager_news
            .any()
            .then_some(!state.manager_news.questions.is_empty())
    }

    /// Takes the news of the conductor as a whole.
    pub(super) fn take_manager_news(&self) -> ManagerNews {
        std::mem::take(&mut self.state().manager_news)
    }

    /// Jobs that have news, and whether it is urgent.
    pub(super) fn with_news(&self) -> Vec<(JobName, bool)> {
        let state = self.state();
        let news = state.jobs.iter().filter(|(_, job)| job.news.any());
        news.map(|(name, job)| (name.clone(), job.news.urgent)).collect()
    }

    /// Takes a job's news.
    pub(super) fn take_news(&self, job: &JobName) -> News {
        self.state()
            .jobs
            .get_mut(job)
            .map(|job| std::mem::take(&mut job.news))
            .unwrap_or_default()
    }

    /// Forgets ended jobs beyond what is kept; their objects are to be removed.
    pub(super) fn prune(&self) -> Vec<JobName> {
        let mut state = self.state();
        let ended = state
            .jobs
            .iter()
            .filter(|(_, job)| job.view.summary.state.is_ended() && !job.news.any());
        let mut ended: Vec<_> = ended.map(|(name, job)| (job.looked, name.clone())).collect();
        ended.sort();
        ended.truncate(ended.len().saturating_sub(RECENT_ENDED));
        let gone: Vec<_> = ended.into_iter().map(|(_, name)| name).collect();
        state.jobs.retain(|name, _| !gone.contains(name));
        gone
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way through a change.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.catch_up();
        state
    }
}

impl State {
    fn show(&mut self, view: RunView) -> &mut Job {
        self.looks += 1;
        let fresh = Job {
            view: view.clone(),
            looked: self.looks,
            news: News::default(),
        };
        let job = self.jobs.entry(view.summary.job.clone()).or_insert(fresh);
        job.looked = self.looks;
        job.renew(view);
        job
    }

    fn catch_up(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(change) => self.apply(change),
                Err(TryRecvError::Lagged(_)) => self.lagged = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Manager(view) => {
                self.manager_news.view |= self.manager != view;
                self.manager = view;
            }
            Change::Question(question) => self.manager_news.questions.push(*question),
            Change::Gate(gate) => {
                let key = (gate.account.clone(), gate.kind.clone(), gate.window.clone());
                self.manager_news.gates.insert(key, *gate);
            }
            Change::Run(view) => match self.jobs.get_mut(&view.summary.job) {
                None => {
                    let job = self.show(*view);
                    job.news = News {
                        view: true,
                        urgent: true,
                        ..News::default()
                    };
                }
                Some(job) => job.renew(*view),
            },
            Change::Sheet { job, run, sheet } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.news.sheets.insert((run, sheet.sheet_num), *sheet);
                }
            }
            Change::Finished { job, run, result } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.news.urgent = true;
                    job.news.finished.push((run, result));
                }
            }
        }
    }
}

impl Job {
    /// Takes a view that is not older than what is shown.
    fn renew(&mut self, view: RunView) {
        let age = |view: &RunView| (view.summary.run, view.summary.revision);
        if age(&view) < age(&self.view) || view == self.view {
            return;
        }
        let told = |view: &RunView| (view.summary.run, view.summary.state);
        self.news.urgent |= told(&view) != told(&self.view);
        self.news.view = true;
        self.view = view;
    }
}

impl ManagerNews {
    fn any(&self) -> bool {
        self.view || !self.questions.is_empty() || !self.gates.is_empty()
    }
}

impl News {
    fn any(&self) -> bool {
        self.view || !self.sheets.is_empty() || !self.finished.is_empty()
    }
}
