//! The other end: calls the conductor and follows a job, for the front ends.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::OwnedFd as StdFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::convert::{Dictionaries, SheetRow, strings};
pub use super::error::CallError;
use super::error::Dictionary;
use super::job::JobProxy;
use super::manager::{ATTACHED, ManagerProxy};
use super::names;
use crate::api::request::{CostRequest, Modified, RecoveredSheet, RunFilter, RunSelector, Submit, Submitted};
use crate::api::view::{GateView, ManagerView, QuestionView, RunView};
use crate::model::{JobName, Problem, RunNo, RunState, SheetNo};
use crate::summary::{AttemptSummary, CostSummary, RunSummary, SheetSummary};

/// Result of a call to the conductor.
pub type Result<T> = std::result::Result<T, CallError>;

/// For the other end to speak: behind a socket that systemd holds, the service starts first.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// A connection to a conductor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// To the service on the session bus. The first call starts it where it is installed and not running.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] where there is no session bus.
    pub async fn session() -> Result<Self> {
        Self::built(Builder::session()).await
    }

    /// The same on the bus at a D-Bus address.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] where no bus answers there.
    pub async fn bus(address: &str) -> Result<Self> {
        Self::built(Builder::address(address)).await
    }

    /// To the private socket at `path`; connecting starts the service where systemd holds the socket.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] where nobody listens there.
    pub async fn private(path: &Path) -> Result<Self> {
        let connected = tokio::net::UnixStream::connect(path)
            .await
            .and_then(tokio::net::UnixStream::into_std);
        let unreachable = |error| CallError::Unreachable(format!("nobody answers on {}: {error}", path.display()));
        Self::over(connected.map_err(unreachable)?).await
    }

    /// Over a socket whose other end is served: a conductor inside this process.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] where the other end does not answer.
    pub async fn over(stream: std::os::unix::net::UnixStream) -> Result<Self> {
        Self::built(Builder::unix_stream(stream).p2p()).await
    }

    async fn built(builder: Builder<'_>) -> Result<Self> {
        let silent = |_| {
            let seconds = HANDSHAKE.as_secs();
            CallError::Unreachable(format!("no answer to the handshake within {seconds} s"))
        };
        let connected = tokio::time::timeout(HANDSHAKE, builder.build()).await;
        Ok(Self {
            connection: connected.map_err(silent)??,
        })
    }

    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The process at the other end; on the session bus the owner of the name. None where that cannot be told or
    /// nobody has the name.
    pub async fn conductor_pid(&self) -> Option<u32> {
        if !self.connection.is_bus() {
            return self.connection.peer_creds().await.ok()?.process_id();
        }
        let bus = zbus::fdo::DBusProxy::new(&self.connection).await.ok()?;
        let name = zbus::names::BusName::try_from(names::BUS_NAME).ok()?;
        bus.get_connection_credentials(name).await.ok()?.process_id()
    }

    /// Submits a job file.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn submit(&self, submit: &Submit) -> Result<Submitted> {
        let manager = self.manager_proxy().await?;
        let (job, run, rows) = manager.submit(file(&submit.text)?.into(), options(submit)).await?;
        let job = names::job_of(job.as_str()).and_then(|name| JobName::new(name).ok());
        let mut problems: Vec<Problem> = rows.into_iter().map(Into::into).collect();
        let before = problems.len();
        problems.retain(|problem| problem.check_id != ATTACHED);
        let attached = problems.len() < before;
        let job =
            job.ok_or_else(|| CallError::Unreachable("the conductor named an object that is no job".to_owned()))?;
        Ok(Submitted {
            job,
            run: RunNo(run),
            attached,
            problems,
        })
    }

    /// Checks a job file; true: it has no errors.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn validate(&self, submit: &Submit) -> Result<(bool, Vec<Problem>)> {
        let manager = self.manager_proxy().await?;
        let (valid, rows) = manager.validate(file(&submit.text)?.into(), options(submit)).await?;
        Ok((valid, rows.into_iter().map(Into::into).collect()))
    }

    /// A page of runs, newest first, and the cursor of the next (empty: no more). Limit 0: as many as fit.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn runs(&self, filter: &RunFilter, limit: u32, cursor: &str) -> Result<(Vec<RunSummary>, String)> {
        let states: Vec<String> = filter.states.iter().map(ToString::to_string).collect();
        let filter = Dictionaries::default()
            .with("job", filter.job.clone())
            .with("states", (!states.is_empty()).then_some(states))
            .with("newest", filter.newest.then_some(true))
            .build();
        let manager = self.manager_proxy().await?;
        let (rows, next) = manager
            .list_runs(filter, limit, cursor.to_owned(), Dictionary::new())
            .await?;
        Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, next))
    }

    /// One run; the newest unless the selector says which.
    ///
    /// # Errors
    /// [`NoSuchJob`](crate::api::request::ApiError::NoSuchJob), `NoSuchRun`, and what else the conductor answers.
    pub async fn run(&self, run: &RunSelector) -> Result<RunView> {
        let filter = Dictionaries::default()
            .with("job", Some(run.job.clone()))
            .with("run", Some(run.run.unwrap_or_default()))
            .build();
        let manager = self.manager_proxy().await?;
        let (rows, _) = manager.list_runs(filter, 1, String::new(), Dictionary::new()).await?;
        let row = rows.into_iter().next();
        let row = row.ok_or_else(|| CallError::Unreachable("the conductor answered without the run".to_owned()))?;
        Ok(RunView {
            eta: row.eta(),
            summary: row.try_into()?,
        })
    }

    /// Pauses; `now` stops the sessions.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn pause(&self, run: &RunSelector, now: bool) -> Result<()> {
        let options = selected(run).with("now", now.then_some(true)).build();
        Ok(self.job_proxy(&run.job).await?.pause(options).await?)
    }

    /// Lets a run go on.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn resume(&self, run: &RunSelector) -> Result<()> {
        Ok(self.job_proxy(&run.job).await?.resume(selected(run).build()).await?)
    }

    /// Runs the sheets of a run again from number `from` on.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn retry(&self, run: &RunSelector, from: SheetNo) -> Result<()> {
        let job = self.job_proxy(&run.job).await?;
        Ok(job.retry(from.0, selected(run).build()).await?)
    }

    /// Gives a run the job file as it is now; with `submit.resume` it goes on, too.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn modify(&self, run: &RunSelector, submit: &Submit) -> Result<Modified> {
        let job = self.job_proxy(&run.job).await?;
        let mut options = options(submit);
        options.extend(selected(run).build());
        let (parts, sheets, problems) = job.modify(file(&submit.text)?.into(), options).await?;
        // Of the run it tells no number: it is the one that was named, or the newest.
        let row = self.run(run).await?.summary;
        Ok(Modified {
            job: row.job,
            run: row.run,
            parts,
            sheets: sheets.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            problems: problems.into_iter().map(Into::into).collect(),
        })
    }

    /// Takes sheets of a run for completed whose rules hold; with `dry_run` only says which.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn recover(
        &self,
        run: &RunSelector,
        sheet: Option<SheetNo>,
        dry_run: bool,
    ) -> Result<Vec<RecoveredSheet>> {
        let job = self.job_proxy(&run.job).await?;
        let options = selected(run)
            .with("sheet", sheet.map(|sheet| sheet.0))
            .with("dry_run", dry_run.then_some(true))
            .build();
        let rows = job.recover(options).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Cancels a run.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn cancel(&self, run: &RunSelector) -> Result<()> {
        Ok(self.job_proxy(&run.job).await?.cancel(selected(run).build()).await?)
    }

    /// All sheets of a run from number `first` on.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn sheets(&self, run: &RunSelector, first: u32) -> Result<Vec<SheetSummary>> {
        let job = self.job_proxy(&run.job).await?;
        let (mut sheets, mut first): (Vec<SheetSummary>, u32) = (Vec::new(), first);
        loop {
            let rows = job.sheets(first, 0, selected(run).build()).await?;
            for row in rows {
                sheets.push(row.try_into()?);
            }
            match sheets.last() {
                Some(last) if last.sheet_num >= first => first = last.sheet_num + 1,
                _ => return Ok(sheets),
            }
        }
    }

    /// All attempts at a sheet, oldest first.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn attempts(&self, run: &RunSelector, sheet: u32) -> Result<Vec<AttemptSummary>> {
        let job = self.job_proxy(&run.job).await?;
        let (mut attempts, mut first): (Vec<AttemptSummary>, u32) = (Vec::new(), 1);
        loop {
            let rows = job
                .attempts(sheet, selected(run).with("first", Some(first)).build())
                .await?;
            for row in rows {
                attempts.push(row.try_into()?);
            }
            match attempts.last() {
                Some(last) if last.attempt >= first => first = last.attempt + 1,
                _ => return Ok(attempts),
            }
        }
    }

    /// The standard output of an attempt, opened for reading; attempt 0: the newest.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn open_output(&self, run: &RunSelector, sheet: u32, attempt: u32) -> Result<StdFd> {
        let job = self.job_proxy(&run.job).await?;
        Ok(job.open_output(sheet, attempt, selected(run).build()).await?.into())
    }

    /// Answers a question with one of its choices.
    ///
    /// # Errors
    /// `NoSuchQuestion`, and what else the conductor answers.
    pub async fn answer(&self, question: &str, choice: &str) -> Result<()> {
        let manager = self.manager_proxy().await?;
        let (question, choice) = (question.to_owned(), choice.to_owned());
        Ok(manager.answer(question, choice, Dictionary::new()).await?)
    }

    /// The open questions.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn questions(&self) -> Result<Vec<QuestionView>> {
        let rows = self.manager_proxy().await?.list_questions(Dictionary::new()).await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// The gates that are not open.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn gates(&self) -> Result<Vec<GateView>> {
        let rows = self.manager_proxy().await?.list_gates(Dictionary::new()).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// What was spent.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn costs(&self, request: &CostRequest) -> Result<Vec<CostSummary>> {
        let by: Vec<String> = request.by.iter().map(|key| key.as_str().to_owned()).collect();
        let options = Dictionaries::default()
            .with("by", Some(by))
            .with("days", request.days)
            .with("job", request.job.clone())
            .with("run", request.run)
            .build();
        let rows = self.manager_proxy().await?.get_costs(options).await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Opens the gates of an account, or all there are.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn clear_gates(&self, account: Option<&str>) -> Result<()> {
        let options = Dictionaries::default()
            .with("account", account.map(str::to_owned))
            .build();
        Ok(self.manager_proxy().await?.clear_gates(options).await?)
    }

    /// Stops the conductor, with `stop_sessions` its sessions first.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn stop(&self, stop_sessions: bool) -> Result<()> {
        let options = Dictionaries::default()
            .with("stop_sessions", stop_sessions.then_some(true))
            .build();
        Ok(self.manager_proxy().await?.stop(options).await?)
    }

    /// Lets the conductor read its settings anew.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn reload(&self) -> Result<()> {
        Ok(self.manager_proxy().await?.reload(Dictionary::new()).await?)
    }

    /// Keeps the conductor from leaving when idle, for as long as this client is connected.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn subscribe(&self) -> Result<()> {
        Ok(self.manager_proxy().await?.subscribe(Dictionary::new()).await?)
    }

    /// Takes [`subscribe`](Self::subscribe) back.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn unsubscribe(&self) -> Result<()> {
        Ok(self.manager_proxy().await?.unsubscribe(Dictionary::new()).await?)
    }

    /// The conductor's own view.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn manager(&self) -> Result<ManagerView> {
        let manager = self.manager_proxy().await?;
        Ok(ManagerView {
            state_directory: manager.state_directory().await?,
            slots: manager.slots().await?,
            running: manager.running().await?,
            queued: manager.queued().await?,
            waiting: manager.waiting().await?,
            pressure: manager.pressure().await?,
            holds: super::convert::holds(manager.holds().await?),
            questions: manager.questions().await?,
            storage: manager.storage().await?,
        })
    }

    /// The conductor's version.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn version(&self) -> Result<String> {
        Ok(self.manager_proxy().await?.version().await?)
    }

    /// Where the conductor keeps its state.
    ///
    /// # Errors
    /// What the conductor answers.
    pub async fn state_directory(&self) -> Result<String> {
        Ok(self.manager_proxy().await?.state_directory().await?)
    }

    /// Follows a job from now on. Watch first, then read: what changes in between is then not missed.
    ///
    /// # Errors
    /// `NoSuchJob`, and what else the conductor answers.
    pub async fn watch(&self, job: &str) -> Result<JobWatch> {
        let mut watch = JobWatch {
            hints: Arc::default(),
            tasks: JoinSet::new(),
        };
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .path(names::job_path(job));
        let rule = if self.connection.is_bus() {
            rule.sender(names::BUS_NAME)
        } else {
            rule
        };
        watch.follow(MessageStream::for_match_rule(rule.build()?, &self.connection, None).await?);
        if self.connection.is_bus() {
            let rule = MatchRule::builder()
                .msg_type(zbus::message::Type::Signal)
                .sender("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .arg(0, names::BUS_NAME)
                .build()?;
            watch.follow(MessageStream::for_match_rule(rule, &self.connection, None).await?);
        }
        self.manager_proxy()
            .await?
            .get_job(job.to_owned(), Dictionary::new())
            .await?;
        Ok(watch)
    }

    async fn manager_proxy(&self) -> Result<ManagerProxy<'static>> {
        Ok(ManagerProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?)
    }

    /// The job's object, which the conductor makes where it is not there.
    async fn job_proxy(&self, job: &str) -> Result<JobProxy<'static>> {
        let path = self
            .manager_proxy()
            .await?
            .get_job(job.to_owned(), Dictionary::new())
            .await?;
        let builder = JobProxy::builder(&self.connection)
            .path(path)
            .cache_properties(CacheProperties::No);
        Ok(builder.build().await?)
    }
}

/// What a [`JobWatch`] says: that there is something to look at.
#[derive(Debug, Clone, PartialEq)]
pub enum Hint {
    /// A sheet of that run is now so (without the results of its rules).
    Sheet(RunNo, Box<SheetSummary>),
    /// The run's view has changed.
    Changed,
    /// A run is over.
    Finished(RunNo, RunState),
    /// The conductor has gone: the connection is closed, or nobody owns the name any more.
    Gone,
}

/// Follows one job. What is not fetched in time is put together, newest word last; it never holds up the connection.
#[derive(Debug)]
pub struct JobWatch {
    hints: Arc<Hints>,
    /// Ended with the watch.
    tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Hints {
    pending: Mutex<Pending>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    sheets: BTreeMap<(RunNo, u32), SheetSummary>,
    changed: bool,
    finished: Vec<(RunNo, RunState)>,
    gone: bool,
}

impl JobWatch {
    /// The next hint: sheets, then a changed run, then an end.
    pub async fn next(&mut self) -> Hint {
        loop {
            let more = self.hints.more.notified();
            if let Some(hint) = self.hints.take() {
                return hint;
            }
            more.await;
        }
    }

    fn follow(&mut self, mut signals: MessageStream) {
        let hints = self.hints.clone();
        self.tasks.spawn(async move {
            while let Some(signal) = signals.next().await {
                if let Ok(signal) = signal {
                    hints.put(|pending| pending.note(&signal));
                }
            }
            hints.put(|pending| pending.gone = true);
        });
    }
}

impl Hints {
    fn put(&self, put: impl FnOnce(&mut Pending)) {
        put(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_one();
    }

    fn take(&self) -> Option<Hint> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(((run, _), sheet)) = pending.sheets.pop_first() {
            return Some(Hint::Sheet(run, Box::new(sheet)));
        }
        if std::mem::take(&mut pending.changed) {
            return Some(Hint::Changed);
        }
        if !pending.finished.is_empty() {
            let (run, result) = pending.finished.remove(0);
            return Some(Hint::Finished(run, result));
        }
        std::mem::take(&mut pending.gone).then_some(Hint::Gone)
    }
}

impl Pending {
    /// Takes a signal in; what cannot be read is still a reason to look.
    fn note(&mut self, signal: &Message) {
        let header = signal.header();
        let body = signal.body();
        match header.member().map(|member| member.as_str()) {
            Some("SheetChanged") => {
                let read = body.deserialize::<(u32, u32, String, SheetRow)>().ok();
                match read.and_then(|(run, number, _, row)| Some((run, number, SheetSummary::try_from(row).ok()?))) {
                    Some((run, number, sheet)) => {
                        self.sheets.insert((RunNo(run), number), sheet);
                    }
                    None => self.changed = true,
                }
            }
            Some("Finished") => {
                let read = body.deserialize::<(u32, String, Dictionary)>().ok();
                match read.and_then(|(run, result, _)| Some((RunNo(run), result.parse().ok()?))) {
                    Some(finished) => self.finished.push(finished),
                    None => self.changed = true,
                }
            }
            Some("NameOwnerChanged") => {
                let vanished = body
                    .deserialize::<(String, String, String)>()
                    .is_ok_and(|(_, _, owner)| owner.is_empty());
                self.gone |= vanished;
                self.changed |= !vanished;
            }
            _ => self.changed = true,
        }
    }
}

/// A job file's text as a descriptor: it may be longer than a message.
fn file(text: &str) -> Result<StdFd> {
    let failed = |error: std::io::Error| CallError::Unreachable(format!("the job file cannot be passed on: {error}"));
    let memory = rustix::fs::memfd_create("mozart-job", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = std::fs::File::from(memory.map_err(|error| failed(error.into()))?);
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(file.into())
}

fn options(submit: &Submit) -> Dictionary {
    let set = (!submit.set.is_empty()).then(|| strings(&submit.set));
    Dictionaries::default()
        .with("base_directory", Some(submit.base_directory.clone()))
        .with("path", submit.path.clone())
        .with("workspace", submit.workspace.clone())
        .with("environment", submit.environment.as_ref().map(strings))
        .with("start_sheet", submit.start_sheet)
        .with("fresh", submit.fresh.then_some(true))
        .with("priority", submit.priority.map(u32::from))
        .with("set", set)
        .with("dry_run", submit.dry_run.then_some(true))
        .with("resume", submit.resume.then_some(true))
        .with("infer", submit.infer.then_some(true))
        .build()
}

fn selected(run: &RunSelector) -> Dictionaries {
    Dictionaries::default().with("run", run.run)
}
