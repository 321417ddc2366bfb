//! `org.mozart.Mozart1.Manager`: submits, checks, lists and stops.

use std::os::fd::OwnedFd as StdFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedFd, OwnedObjectPath};

use super::convert::{self, CostRow, GateRow, Options, ProblemRow, QuestionRow, RunRow};
use super::error::{Dictionary, Error, Result};
use super::names;
use super::server::Link;
use crate::api::handle::Request;
use crate::api::request::{ApiError, CostRequest, RunFilter, RunSelector, Submit, Submitted};
use crate::model::{JobName, Problem, RunState, Severity};
use crate::summary::CostKey;

/// Bytes of a job file at most.
pub const FILE_LIMIT: usize = 5 * 1024 * 1024;
/// Bytes of a job file at most that travel inside the message; more goes by file descriptor.
pub const TEXT_LIMIT: usize = 1_000_000;
/// Rows of `ListRuns` at most; fewer where they would not fit into one message.
const PAGE: u32 = 500;

/// Characters of the reason of an Inhibit at most.
const REASON_LIMIT: usize = 200;

/// What this build can do beyond the interfaces themselves.
const FEATURES: [&str; 8] = [
    "dry-run",
    "inhibit",
    "modify",
    "private-socket",
    "recover",
    "resume-from-artifacts",
    "resume-from-checkpoint",
    "subscribe",
];

/// The one manager object.
#[derive(Debug)]
pub struct Manager {
    link: Arc<Link>,
}

impl Manager {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    async fn submit_text_of(
        &self,
        text: String,
        options: Dictionary,
        connection: &Connection,
        call: &Header<'_>,
    ) -> Result<(OwnedObjectPath, u32, Vec<ProblemRow>)> {
        let mut options = Options::new(options);
        let submit = submission(text, &mut options)?;
        options.done()?;
        if !submit.dry_run {
            self.link.callers.may_change(connection, call).await?;
        }
        let dry_run = submit.dry_run;
        let submitted = self.link.ask(|reply| Request::Submit(Box::new(submit), reply)).await?;
        if !dry_run {
            self.link.show(connection, submitted.job.as_str()).await?;
        }
        Ok((
            names::job_path(submitted.job.as_str()).into(),
            submitted.run.0,
            submitted_rows(&submitted),
        ))
    }
}

#[zbus::interface(
    name = "org.mozart.Mozart1.Manager",
    proxy(default_service = "org.mozart.Mozart1", default_path = "/org/mozart/Mozart1")
)]
impl Manager {
    /// Checks, plans, stores and queues a job file. When it has returned, the run exists after any crash.
    ///
    /// `file` is a regular file or a memfd of at most 5 MiB, read from its beginning. Options: `base_directory` (s,
    /// absolute, required: what relative paths are relative to), `path` (s, where the file came from), `workspace` (s,
    /// absolute), `environment` (a{ss}, the submitter's), `start_sheet` (u, sheets below are skipped), `fresh` (b, a new
    /// run whatever the last one left), `priority` (u), `set` (a{ss}, variables of the prompt), `dry_run` (b, only
    /// check and plan), `resume` (b, take up from the checkpoint in the workspace; without one it fails with
    /// Unconfirmed, whose sentence tells how far the job got by the files that its rules name), `infer` (b, with
    /// `resume`: begin behind those sheets).
    ///
    /// Returns the job's object, the number of the run (0 after a dry run), and warnings. A live run of the same job
    /// and plan is not doubled: a row with the `check_id` `attached` says so. InvalidJob carries the problems behind its
    /// sentence, as Validate returns them.
    #[zbus(out_args("job", "run", "problems"))]
    async fn submit(
        &self,
        file: OwnedFd,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(OwnedObjectPath, u32, Vec<ProblemRow>)> {
        self.submit_text_of(read(file).await?, options, connection, &call).await
    }

    /// The same as Submit for a text of at most 1 MB.
    #[zbus(out_args("job", "run", "problems"))]
    async fn submit_text(
        &self,
        text: String,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(OwnedObjectPath, u32, Vec<ProblemRow>)> {
        if text.len() > TEXT_LIMIT {
            return Err(Error::InvalidArgument(
                "the text is longer than 1 MB; pass it as a file to Submit".to_owned(),
            ));
        }
        self.submit_text_of(text, options, connection, &call).await
    }

    /// Checks and plans a job file and changes nothing. Options as for Submit.
    ///
    /// Returns whether it is free of errors, and everything that was found: `check_id`, `severity` (ERROR, WARNING,
    /// INFO), `message`, and where known `line`, `column`, `context`, `suggestion`.
    #[zbus(out_args("valid", "problems"))]
    async fn validate(&self, file: OwnedFd, options: Dictionary) -> Result<(bool, Vec<ProblemRow>)> {
        let submit = submission(read(file).await?, &mut Options::new(options))?;
        let (valid, problems) = self
            .link
            .ask(|reply| Request::Validate(Box::new(submit), reply))
            .await?;
        Ok((valid, convert::problem_rows(&problems)))
    }

    /// Lists runs, newest first.
    ///
    /// The filter's keys: `job` (s), `states` (as), `newest` (b, only the newest run of each job), `run` (u, with `job`:
    /// only that run, 0 for the newest; NoSuchJob or NoSuchRun where there is none). `limit` 0 means as many as fit
    /// into one message; `cursor` is empty at first, then what the call before returned. An empty `next`: no more.
    #[zbus(out_args("runs", "next"))]
    async fn list_runs(
        &self,
        filter: Dictionary,
        limit: u32,
        cursor: String,
        options: Dictionary,
    ) -> Result<(Vec<RunRow>, String)> {
        drop(options);
        let mut filter = Options::new(filter);
        let (job, run) = (filter.take::<String>("job")?, filter.take::<u32>("run")?);
        if let (Some(job), Some(run)) = (&job, run) {
            let selector = RunSelector {
                job: job.clone(),
                run: (run > 0).then_some(run),
            };
            let view = self.link.ask(|reply| Request::GetRun(selector, reply)).await?;
            return Ok((vec![RunRow::new(&view.summary, view.eta)], String::new()));
        }
        let filter = RunFilter {
            job,
            states: states(filter.take("states")?.unwrap_or_default())?,
            newest: filter.take("newest")?.unwrap_or_default(),
        };
        let mut limit = if limit == 0 { PAGE } else { limit.min(PAGE) };
        loop {
            let request = |reply| Request::ListRuns(filter.clone(), limit, cursor.clone(), reply);
            let (runs, next) = self.link.ask(request).await?;
            let mut rows = runs.iter().map(|run| RunRow::new(run, None)).collect();
            if convert::fit(&mut rows) || limit == 1 {
                return Ok((rows, next));
            }
            limit /= 2;
        }
    }

    /// The object of a job, live or not. It stands for the job's newest run.
    #[zbus(out_args("job"))]
    async fn get_job(
        &self,
        name: String,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        drop(options);
        self.link.show(connection, &name).await?;
        Ok(names::job_path(&name).into())
    }

    /// Answers an open question with one of its choices. Whatever waited for it goes on, or ends, as the answer says.
    ///
    /// NoSuchQuestion where it is not open (any more): somebody else may have answered it. InvalidArgument, with the
    /// choices, where the word is none of them.
    async fn answer(
        &self,
        question: String,
        choice: String,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        Options::new(options).done()?;
        self.link.callers.may_change(connection, &call).await?;
        self.link.ask(|reply| Request::Answer(question, choice, reply)).await
    }

    /// The open questions: what only a person can decide.
    ///
    /// Keys of a row: `question` (s, its id), `text` (s, what happened), `choices` (as, the words that answer it: `retry`,
    /// the cause is mended; `wait`, until the limit is over; `continue`, for as much money again; `stop`, cancel the runs
    /// that wait), `account` (s), `code` (s, of the failure), `runs` (as, the first of the runs that wait for the answer,
    /// as JOB#RUN), `runs_waiting` (u).
    #[zbus(out_args("questions"))]
    async fn list_questions(&self, options: Dictionary) -> Result<Vec<QuestionRow>> {
        drop(options);
        let questions = self.link.ask(Request::Questions).await?;
        let mut rows = questions.iter().map(QuestionRow::from).collect();
        convert::fit(&mut rows);
        Ok(rows)
    }

    /// The limits that keep sessions from starting.
    ///
    /// Keys of a row: `account` (s, whose limit), `kind` (s: `usage`, `throttle`, or `faults`, too many in a row), `window`
    /// (s, such as `five_hour`), `state` (s: `closed`, nothing starts; `opening`, so many sessions as there are places
    /// find out whether it is over), `until_usec` (t, the end of `closed`), `places` (u, sessions at once from then on),
    /// `under_way` (u), `runs_waiting` (u).
    #[zbus(out_args("gates"))]
    async fn list_gates(&self, options: Dictionary) -> Result<Vec<GateRow>> {
        drop(options);
        let gates = self.link.ask(Request::Gates).await?;
        let mut rows = gates.iter().map(GateRow::from).collect();
        convert::fit(&mut rows);
        Ok(rows)
    }

    /// Takes limits for over that were noted: what waits for them starts. The option `account` (s): only this one's.
    async fn clear_gates(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        let mut options = Options::new(options);
        let account = options.take("account")?;
        options.done()?;
        self.link.callers.may_change(connection, &call).await?;
        self.link.ask(|reply| Request::ClearGates(account, reply)).await
    }

    /// What sessions have cost, added up. It is kept longer than the runs themselves.
    ///
    /// Options: `by` (as, one row for each; of `day`, `account`, `job`, `run` and `model`; without it `day`), `days` (u, so
    /// many days of the calendar with today; 0, and without it: all), `job` (s, only this one's), `run` (u, with `job`).
    ///
    /// Keys of a row: `day` (s, on which the sessions ended, such as 2026-11-21), `account` (s), `job` (s), `run` (u),
    /// `model` (s), each where rows are added up by it and it is known; `sessions` (u, that did anything), `unknown` (u,
    /// those of them of which nobody knows what they have cost), `cost_usd` (d, of the others), `estimated_usd` (d, how
    /// much of it was worked out from the price of tokens), `tokens_in` (t), `tokens_out` (t).
    #[zbus(out_args("costs"))]
    async fn get_costs(&self, options: Dictionary) -> Result<Vec<CostRow>> {
        let mut options = Options::new(options);
        let by = keys(options.take("by")?.unwrap_or_default())?;
        let days: Option<u32> = options.take("days")?;
        let (job, run) = (options.take::<String>("job")?, options.take::<u32>("run")?);
        options.done()?;
        if run.is_some() && job.is_none() {
            return Err(Error::InvalidArgument("option `run` needs option `job`".to_owned()));
        }
        let request = CostRequest {
            days: days.filter(|days| *days > 0),
            job,
            run,
            by,
        };
        let costs = self.link.ask(|reply| Request::Costs(request, reply)).await?;
        let mut rows = costs.iter().map(CostRow::from).collect();
        convert::fit(&mut rows);
        Ok(rows)
    }

    /// Stops the conductor. Sessions go on by themselves and are taken up again by the next one; the option
    /// `stop_sessions` (b) stops them first.
    async fn stop(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        let mut options = Options::new(options);
        let stop_sessions = options.take("stop_sessions")?.unwrap_or_default();
        options.done()?;
        self.link.callers.may_change(connection, &call).await?;
        self.link.ask(|reply| Request::Stop(stop_sessions, reply)).await
    }

    /// Reads the settings anew.
    async fn reload(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        Options::new(options).done()?;
        self.link.callers.may_change(connection, &call).await?;
        self.link.ask(Request::Reload).await
    }

    /// Keeps the conductor from leaving when it is idle, until Unsubscribe or until the caller leaves the bus. A
    /// client of the private socket does so by being connected.
    async fn subscribe(&self, options: Dictionary, #[zbus(header)] call: Header<'_>) -> Result<()> {
        Options::new(options).done()?;
        self.link.subscribe(call.sender())
    }

    /// Takes back one's Subscribe; without one it does nothing.
    async fn unsubscribe(&self, options: Dictionary, #[zbus(header)] call: Header<'_>) -> Result<()> {
        Options::new(options).done()?;
        self.link.unsubscribe(call.sender());
        Ok(())
    }

    /// Something was asked that only a person can decide. `details` is its row as ListQuestions returns it.
    #[zbus(signal)]
    pub async fn question_asked(emitter: &SignalEmitter<'_>, question: &str, details: QuestionRow) -> zbus::Result<()>;

    /// A limit was met, opens further, or is over (state `open`). `details` is its row as ListGates returns it.
    #[zbus(signal)]
    pub async fn gate_changed(emitter: &SignalEmitter<'_>, details: GateRow) -> zbus::Result<()>;

    /// Version of Mozart.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// What this conductor can do beyond what its interfaces say, as words.
    #[zbus(property(emits_changed_signal = "const"))]
    fn features(&self) -> Vec<String> {
        FEATURES.map(str::to_owned).to_vec()
    }

    /// Where it keeps its state; a client of another state directory (`XDG_STATE_HOME`) wants another conductor.
    #[zbus(property(emits_changed_signal = "const"))]
    fn state_directory(&self) -> String {
        self.link.mirror.manager().state_directory
    }

    /// Runs that may run at once.
    #[zbus(property)]
    fn slots(&self) -> u32 {
        self.link.mirror.manager().slots
    }

    /// Runs that run.
    #[zbus(property)]
    fn running(&self) -> u32 {
        self.link.mirror.manager().running
    }

    /// Runs that wait for a slot.
    #[zbus(property)]
    fn queued(&self) -> u32 {
        self.link.mirror.manager().queued
    }

    /// Runs that something outside holds: a limit, a backoff, a question, storage.
    #[zbus(property)]
    fn waiting(&self) -> u32 {
        self.link.mirror.manager().waiting
    }

    /// Questions that are open.
    #[zbus(property)]
    fn questions(&self) -> u32 {
        self.link.mirror.manager().questions
    }

    /// Empty while storage works; else what is wrong with it, and where.
    #[zbus(property)]
    fn storage(&self) -> String {
        self.link.mirror.manager().storage
    }

    /// Holds all starts, for a reason that `status` shows; what runs goes on. It is over with Uninhibit, or when the
    /// caller leaves the bus or the private socket. Returns the number for Uninhibit.
    #[zbus(out_args("cookie"))]
    async fn inhibit(
        &self,
        reason: String,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<u32> {
        Options::new(options).done()?;
        self.link.callers.may_change(connection, &call).await?;
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON_LIMIT {
            return Err(Error::InvalidArgument(format!(
                "the reason has 1 to {REASON_LIMIT} characters"
            )));
        }
        self.link.inhibit(call.sender(), reason.to_owned()).await
    }

    /// Takes one's own Inhibit back.
    async fn uninhibit(&self, cookie: u32, options: Dictionary, #[zbus(header)] call: Header<'_>) -> Result<()> {
        Options::new(options).done()?;
        self.link.uninhibit(call.sender(), cookie).await
    }

    /// What keeps the conductor from starting anything: why, and until when (microseconds since the epoch; 0: nobody
    /// knows).
    #[zbus(property)]
    fn holds(&self) -> Vec<convert::HoldRow> {
        convert::hold_rows(self.link.mirror.manager().holds)
    }

    /// What the pressure on the machine holds: `none`, `hold` (new starts), `refuse` (submissions too), `unknown`. It
    /// is looked at while sessions run or would start.
    #[zbus(property)]
    fn pressure(&self) -> String {
        self.link.mirror.manager().pressure
    }
}

/// Reads a job file from the descriptor that a client passed.
pub(super) async fn read(file: OwnedFd) -> Result<String> {
    let wrong = |why: String| Error::InvalidArgument(format!("the job file {why}"));
    let file = StdFd::from(file);
    let read = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::from(file);
        // A pipe could keep its reader for ever.
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        while bytes.len() <= FILE_LIMIT {
            match file.read_at(&mut chunk, bytes.len() as u64)? {
                0 => break,
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(Some(bytes))
    });
    let bytes = match read.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(wrong("is neither a regular file nor a memfd; pass its text".to_owned())),
        Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
    };
    if bytes.len() > FILE_LIMIT {
        return Err(wrong(format!("is larger than {} MiB", FILE_LIMIT >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| not_text(&error).into())
}

/// A file that is no text is an invalid job file, told like every other problem of one.
fn not_text(error: &std::string::FromUtf8Error) -> ApiError {
    let at = error.utf8_error().valid_up_to();
    let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let message = format!("the file is not UTF-8 text (byte {at})");
    let problem = Problem {
        check_id: "E304".to_owned(),
        severity: Severity::Error,
        message: message.clone(),
        line: u32::try_from(line).ok(),
        column: None,
        context: None,
        suggestion: Some("save the job file as UTF-8".to_owned()),
        auto_fixable: false,
        metadata: Default::default(),
    };
    ApiError::InvalidJob {
        message,
        problems: vec![problem],
    }
}

/// The options that Submit, Validate and a job's Modify share.
pub(super) fn submission(text: String, options: &mut Options) -> Result<Submit> {
    let base_directory: String = options.need("base_directory")?;
    let workspace: Option<String> = options.take("workspace")?;
    for (name, path) in [
        ("base_directory", Some(&base_directory)),
        ("workspace", workspace.as_ref()),
    ] {
        if path.is_some_and(|path| !Path::new(path).is_absolute()) {
            return Err(Error::InvalidArgument(format!(
                "option `{name}` is not an absolute path"
            )));
        }
    }
    let map = |map: std::collections::HashMap<String, String>| map.into_iter().collect();
    let priority: Option<u32> = options.take("priority")?;
    let too_high = |_| Error::InvalidArgument("option `priority` is out of range".to_owned());
    Ok(Submit {
        text,
        base_directory,
        path: options.take("path")?,
        workspace,
        environment: options.take("environment")?.map(map),
        start_sheet: options.take("start_sheet")?,
        fresh: options.take("fresh")?.unwrap_or_default(),
        priority: priority.map(u8::try_from).transpose().map_err(too_high)?,
        set: options.take("set")?.map(map).unwrap_or_default(),
        dry_run: options.take("dry_run")?.unwrap_or_default(),
        resume: options.take("resume")?.unwrap_or_default(),
        infer: options.take("infer")?.unwrap_or_default(),
    })
}

/// `check_id` of the row that says: a live run of the same plan was there already.
pub(super) const ATTACHED: &str = "attached";

fn submitted_rows(submitted: &Submitted) -> Vec<ProblemRow> {
    let mut problems = submitted.problems.clone();
    if submitted.attached {
        problems.insert(
            0,
            Problem {
                check_id: ATTACHED.to_owned(),
                severity: Severity::Info,
                message: format!("{}#{} is live already with the same plan", submitted.job, submitted.run),
                line: None,
                column: None,
                context: None,
                suggestion: None,
                auto_fixable: false,
                metadata: Default::default(),
            },
        );
    }
    convert::problem_rows(&problems)
}

fn keys(words: Vec<String>) -> Result<Vec<CostKey>> {
    let known = |word: &String| CostKey::ALL.into_iter().find(|key| key.as_str() == word);
    let unknown = |word: &str| Error::InvalidArgument(format!("costs are not added up by `{word}`"));
    words
        .iter()
        .map(|word| known(word).ok_or_else(|| unknown(word)))
        .collect()
}

fn states(words: Vec<String>) -> Result<Vec<RunState>> {
    let unknown = |word: &str| Error::InvalidArgument(format!("`{word}` is no state of a run"));
    words
        .iter()
        .map(|word| word.parse().map_err(|()| unknown(word)))
        .collect()
}

/// Checks that a name can be a job's.
pub(super) fn job_name(name: &str) -> Result<JobName> {
    JobName::new(name).map_err(|why| Error::NoSuchJob(format!("there is no job of this name: it {why}")))
}
