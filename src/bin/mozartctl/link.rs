//! A conductor that was found: what is asked of it, whoever it is, in one voice.

use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use mozart::api::handle::{Conductor, Request};
use mozart::api::request::{
    ApiError, CostRequest, Modified, RecoveredSheet, RunFilter, RunSelector, Submit, Submitted,
};
use mozart::api::view::{Change, GateView, ManagerView, QuestionView, RunView};
use mozart::bus::client::{CallError, Client, Hint, JobWatch};
use mozart::daemon::Embedded;
use mozart::model::{RunState, SheetNo};
use mozart::summary::{AttemptSummary, CostSummary, RunSummary, SheetSummary};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::error::{CliError, Kind};

/// Sheets asked for at once of a conductor in this process.
const PAGE: u32 = 500;

/// A conductor that restarts is waited for so long.
pub(crate) const COME_BACK: Duration = Duration::from_secs(20);
/// Meanwhile it is looked for so often.
pub(crate) const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Who the conductor is.
pub(crate) enum Link {
    /// `mozartd`.
    Service(Client),
    /// Somebody behind the private socket: most often another `mozartctl`.
    Private(Client),
    /// This process.
    Embedded(Box<Own>),
}

/// The conductor in this process, and what it was asked to stop.
pub(crate) struct Own {
    embedded: Embedded,
    /// It runs sheets; else it only shows.
    conducts: bool,
    /// Interruptions under way; each is answered once nothing runs any more.
    draining: FuturesUnordered<BoxFuture<'static, std::result::Result<(), ApiError>>>,
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Api(error) => error.into(),
            CallError::Unreachable(text) => Self::new(Kind::NoConductor, text),
        }
    }
}

type Result<T> = std::result::Result<T, CliError>;

impl Link {
    /// The one in this process.
    pub(crate) fn own(embedded: Embedded, conducts: bool) -> Self {
        Self::Embedded(Box::new(Own {
            embedded,
            conducts,
            draining: FuturesUnordered::new(),
        }))
    }

    /// Whether the conductor lives and dies with this process.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Whether nothing more happens to the run by itself: it is over, or paused with nothing left running. With a
    /// conductor that only shows, whatever was left running is nobody's.
    pub(crate) fn is_still(&self, run: &RunSummary) -> bool {
        let only_shows = matches!(self, Self::Embedded(own) if !own.conducts);
        run.state.is_ended() || (run.state == RunState::Paused && (run.sheets_running == 0 || only_shows))
    }

    /// Ends what belongs to this process.
    pub(crate) async fn shut_down(self) {
        if let Self::Embedded(own) = self {
            own.embedded.shutdown().await;
        }
    }

    /// Holds the live runs of the conductor in this process; true where it is that. `now` stops their sessions.
    pub(crate) fn interrupt(&mut self, now: bool) -> bool {
        let Self::Embedded(own) = self else { return false };
        let handle = own.embedded.conductor().clone();
        own.draining
            .push(async move { handle.ask(|reply| Request::Interrupt(now, reply)).await }.boxed());
        true
    }

    /// Waits until an interruption is done: nothing runs any more. For ever where none was asked for.
    pub(crate) async fn drained(&mut self) -> Result<()> {
        if let Self::Embedded(own) = self
            && let Some(done) = own.draining.next().await
        {
            return Ok(done?);
        }
        std::future::pending().await
    }

    /// Asks again where a service went away before it answered: it comes back. For questions, which change nothing.
    pub(crate) async fn patiently<T>(&self, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = tokio::time::Instant::now() + COME_BACK;
        loop {
            match ask().await {
                Err(error)
                    if error.is_lost()
                        && matches!(self, Self::Service(_))
                        && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    /// Submits a job.
    pub(crate) async fn submit(&self, submit: &Submit) -> Result<Submitted> {
        match self.voice() {
            Voice::Bus(client) => client.submit(submit).await.map_err(|error| match error {
                CallError::Unreachable(why) => CliError::new(
                    Kind::NoConductor,
                    format!("the conductor went away before it answered: {why}"),
                )
                .hint("`mozartctl list` shows whether it has taken the job in; if not, run it again"),
                told => told.into(),
            }),
            Voice::Direct(own) => Ok(own
                .ask(|reply| Request::Submit(Box::new(submit.clone()), reply))
                .await?),
        }
    }

    /// The newest runs that the filter lets through, at most `limit`; true: there are more.
    pub(crate) async fn list(&self, filter: &RunFilter, limit: u32) -> Result<(Vec<RunSummary>, bool)> {
        let (mut runs, mut cursor): (Vec<RunSummary>, String) = (Vec::new(), String::new());
        loop {
            let wanted = limit.saturating_sub(u32::try_from(runs.len()).unwrap_or(u32::MAX));
            let (page, next) = match self.voice() {
                Voice::Bus(client) => client.runs(filter, wanted, &cursor).await?,
                Voice::Direct(own) => {
                    own.ask(|reply| Request::ListRuns(filter.clone(), wanted, cursor.clone(), reply))
                        .await?
                }
            };
            runs.extend(page);
            if next.is_empty() || runs.len() >= limit as usize {
                runs.truncate(limit as usize);
                return Ok((runs, !next.is_empty()));
            }
            cursor = next;
        }
    }

    /// One run as it is now.
    pub(crate) async fn run(&self, run: &RunSelector) -> Result<RunView> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.run(run).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::GetRun(run.clone(), reply)).await?),
        }
    }

    /// The run that a word of the command line means: `NAME` its newest, `NAME#3` its third.
    pub(crate) async fn select(&self, word: &str) -> Result<RunSelector> {
        let newest = RunSelector {
            job: word.to_owned(),
            run: None,
        };
        let numbered = word.rsplit_once('#').and_then(|(job, number)| {
            Some(RunSelector {
                job: job.to_owned(),
                run: Some(number.parse().ok().filter(|number| *number > 0)?),
            })
        });
        match self.patiently(async || self.run(&newest).await).await {
            Ok(view) => Ok(RunSelector {
                run: Some(view.summary.run.0),
                ..newest
            }),
            Err(error) if error.kind == Kind::NoSuchJob => match numbered {
                Some(selector) => {
                    self.patiently(async || self.run(&selector).await).await?;
                    Ok(selector)
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// All sheets of a run.
    pub(crate) async fn sheets(&self, run: &RunSelector) -> Result<Vec<SheetSummary>> {
        let own = match self.voice() {
            Voice::Bus(client) => return Ok(client.sheets(run, 1).await?),
            Voice::Direct(own) => own,
        };
        let mut sheets: Vec<SheetSummary> = Vec::new();
        loop {
            let first = sheets.last().map_or(1, |sheet| sheet.sheet_num + 1);
            let page = own
                .ask(|reply| Request::Sheets(run.clone(), first, PAGE, reply))
                .await?;
            if page.is_empty() {
                return Ok(sheets);
            }
            sheets.extend(page);
        }
    }

    /// All attempts at a sheet, oldest first.
    pub(crate) async fn attempts(&self, run: &RunSelector, sheet: u32) -> Result<Vec<AttemptSummary>> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.attempts(run, sheet).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Attempts(run.clone(), sheet, reply)).await?),
        }
    }

    /// The standard output of an attempt, opened for reading; attempt 0: the newest.
    pub(crate) async fn open_output(&self, run: &RunSelector, sheet: u32, attempt: u32) -> Result<OwnedFd> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.open_output(run, sheet, attempt).await?),
            Voice::Direct(own) => Ok(own
                .ask(|reply| Request::OpenOutput(run.clone(), sheet, attempt, reply))
                .await?),
        }
    }

    /// Pauses a run; `now` stops its sessions.
    pub(crate) async fn pause(&self, run: &RunSelector, now: bool) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.pause(run, now).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Pause(run.clone(), now, reply)).await?),
        }
    }

    /// Lets a run go on.
    pub(crate) async fn resume(&self, run: &RunSelector) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.resume(run).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Resume(run.clone(), reply)).await?),
        }
    }

    /// Runs the sheets of a run again from that one on.
    pub(crate) async fn retry(&self, run: &RunSelector, from: SheetNo) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.retry(run, from).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Retry(run.clone(), from, reply)).await?),
        }
    }

    /// Gives a run the job file as it is now; with `submit.resume` it goes on, too.
    pub(crate) async fn modify(&self, run: &RunSelector, submit: &Submit) -> Result<Modified> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.modify(run, submit).await?),
            Voice::Direct(own) => Ok(own
                .ask(|reply| Request::Modify(run.clone(), Box::new(submit.clone()), reply))
                .await?),
        }
    }

    /// Takes sheets of a run for completed whose rules hold.
    pub(crate) async fn recover(
        &self,
        run: &RunSelector,
        sheet: Option<SheetNo>,
        dry_run: bool,
    ) -> Result<Vec<RecoveredSheet>> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.recover(run, sheet, dry_run).await?),
            Voice::Direct(own) => Ok(own
                .ask(|reply| Request::Recover(run.clone(), sheet, dry_run, reply))
                .await?),
        }
    }

    /// Cancels a run.
    pub(crate) async fn cancel(&self, run: &RunSelector) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.cancel(run).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Cancel(run.clone(), reply)).await?),
        }
    }

    /// Answers a question with one of its choices.
    pub(crate) async fn answer(&self, question: &str, choice: &str) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.answer(question, choice).await?),
            Voice::Direct(own) => Ok(own
                .ask(|reply| Request::Answer(question.to_owned(), choice.to_owned(), reply))
                .await?),
        }
    }

    /// The open questions.
    pub(crate) async fn questions(&self) -> Result<Vec<QuestionView>> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.questions().await?),
            Voice::Direct(own) => Ok(own.ask(Request::Questions).await?),
        }
    }

    /// The limits that keep sessions from starting.
    pub(crate) async fn gates(&self) -> Result<Vec<GateView>> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.gates().await?),
            Voice::Direct(own) => Ok(own.ask(Request::Gates).await?),
        }
    }

    /// Takes the limits of an account, or all, for over.
    pub(crate) async fn clear_gates(&self, account: Option<&str>) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.clear_gates(account).await?),
            Voice::Direct(own) => Ok(own
                .ask(|reply| Request::ClearGates(account.map(str::to_owned), reply))
                .await?),
        }
    }

    /// What was spent.
    pub(crate) async fn costs(&self, request: &CostRequest) -> Result<Vec<CostSummary>> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.costs(request).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Costs(request.clone(), reply)).await?),
        }
    }

    /// Stops the conductor; with `stop_sessions` its sessions first.
    pub(crate) async fn stop(&self, stop_sessions: bool) -> Result<()> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.stop(stop_sessions).await?),
            Voice::Direct(own) => Ok(own.ask(|reply| Request::Stop(stop_sessions, reply)).await?),
        }
    }

    /// The conductor's own view.
    pub(crate) async fn manager(&self) -> Result<ManagerView> {
        match self.voice() {
            Voice::Bus(client) => Ok(client.manager().await?),
            Voice::Direct(own) => Ok(own.ask(Request::Manager).await?),
        }
    }

    /// The conductor's version and process, where it is another's.
    pub(crate) async fn identity(&self) -> Result<(String, Option<u32>)> {
        match self.voice() {
            Voice::Bus(client) => Ok((client.version().await?, client.conductor_pid().await)),
            Voice::Direct(_) => Ok((env!("CARGO_PKG_VERSION").to_owned(), Some(std::process::id()))),
        }
    }

    /// Follows a job from now on; whoever then looks misses nothing. The conductor stays for as long.
    pub(crate) async fn watch(&self, job: &str) -> Result<Watch> {
        match self.voice() {
            Voice::Bus(client) => {
                // Without it an idle conductor might leave; an older one that cannot does no harm.
                let _subscribed = client.subscribe().await;
                Ok(Watch::Bus(client.watch(job).await?))
            }
            Voice::Direct(own) => Ok(Watch::Direct(own.subscribe(), job.to_owned())),
        }
    }

    /// Waits for something to happen to that job, or for `longest`.
    pub(crate) async fn moved(watch: &mut Watch, longest: Duration) {
        // Either is a reason to look.
        let _either = tokio::time::timeout(longest, watch.next()).await;
    }

    /// Names of jobs whose runs are live at the conductor in this process, and wait for no answer.
    pub(crate) async fn others_live(&self) -> Vec<String> {
        if !self.is_embedded() {
            return Vec::new();
        }
        let states = vec![RunState::Queued, RunState::Running, RunState::Waiting];
        let filter = RunFilter {
            states,
            newest: true,
            ..RunFilter::default()
        };
        let runs = self.list(&filter, PAGE).await.map(|(runs, _)| runs).unwrap_or_default();
        let moves = |run: &RunSummary| run.state != RunState::Waiting || run.question.is_none();
        let moving = runs.into_iter().filter(moves);
        moving.map(|run| run.job.to_string()).collect()
    }

    fn voice(&self) -> Voice<'_> {
        match self {
            Self::Service(client) | Self::Private(client) => Voice::Bus(client),
            Self::Embedded(own) => Voice::Direct(own.embedded.conductor()),
        }
    }
}

/// How the conductor is spoken to: over a connection, or within this process.
enum Voice<'a> {
    Bus(&'a Client),
    Direct(&'a Conductor),
}

/// Follows one job.
pub(crate) enum Watch {
    /// By signals.
    Bus(JobWatch),
    /// By the changes of this process's own conductor.
    Direct(Receiver<Change>, String),
}

impl Watch {
    /// The next hint. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Hint {
        let (changes, wanted) = match self {
            Self::Bus(watch) => return watch.next().await,
            Self::Direct(changes, wanted) => (changes, wanted),
        };
        loop {
            match changes.recv().await {
                Ok(Change::Sheet { job, run, sheet }) if job.as_str() == wanted => return Hint::Sheet(run, sheet),
                Ok(Change::Run(view)) if view.summary.job.as_str() == wanted => return Hint::Changed,
                Ok(Change::Finished { job, run, result }) if job.as_str() == wanted => {
                    return Hint::Finished(run, result);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Hint::Changed,
                Err(RecvError::Closed) => return Hint::Gone,
            }
        }
    }
}
