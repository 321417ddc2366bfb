//! `org.mozart.Mozart1.Job`: one job, live or recent; stands for its newest run.

use std::sync::Arc;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedFd};

use super::convert::{self, AttemptRow, ChangeRow, Options, ProblemRow, RecoveredRow, SheetRow};
use super::error::{Dictionary, Error, Result};
use super::manager;
use super::server::Link;
use crate::api::handle::Request;
use crate::api::request::RunSelector;
use crate::api::view::RunView;
use crate::model::{Cost, JobName, SheetNo};

/// Rows of `Sheets` at most; fewer where they would not fit into one message.
const PAGE: u32 = 1000;

/// The object of one job.
#[derive(Debug)]
pub struct Job {
    link: Arc<Link>,
    name: JobName,
}

impl Job {
    pub(super) fn new(link: Arc<Link>, name: JobName) -> Self {
        Self { link, name }
    }

    fn see<T>(&self, read: impl FnOnce(&RunView) -> T) -> Result<T> {
        let gone = || Error::NoSuchJob(format!("`{}` is no longer shown; ask GetJob", self.name));
        self.link.mirror.run(&self.name, read).ok_or_else(gone)
    }

    /// The run that the option `run` names; the newest without it, or with 0.
    fn selected(&self, options: &mut Options) -> Result<RunSelector> {
        let run: Option<u32> = options.take("run")?;
        Ok(RunSelector {
            job: self.name.to_string(),
            run: run.filter(|run| *run > 0),
        })
    }

    /// The same of a call that changes it, once nothing else is among the options and the caller may.
    async fn to_change(&self, mut options: Options, connection: &Connection, call: &Header<'_>) -> Result<RunSelector> {
        let run = self.selected(&mut options)?;
        options.done()?;
        self.link.callers.may_change(connection, call).await?;
        Ok(run)
    }
}

#[zbus::interface(name = "org.mozart.Mozart1.Job", proxy(default_service = "org.mozart.Mozart1"))]
impl Job {
    /// Pauses the run: no new starts, running sessions finish. The option `now` (b) stops them, to be resumed later.
    async fn pause(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        let mut options = Options::new(options);
        let now = options.take("now")?.unwrap_or_default();
        let run = self.to_change(options, connection, &call).await?;
        self.link.ask(|reply| Request::Pause(run, now, reply)).await
    }

    /// Lets a paused, failed or cancelled run go on at what is not completed.
    async fn resume(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        let run = self.to_change(Options::new(options), connection, &call).await?;
        self.link.ask(|reply| Request::Resume(run, reply)).await
    }

    /// Runs the sheets of a paused or ended run again from number `from_sheet` on, completed ones too.
    async fn retry(
        &self,
        from_sheet: u32,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        let run = self.to_change(Options::new(options), connection, &call).await?;
        self.link
            .ask(|reply| Request::Retry(run, SheetNo(from_sheet), reply))
            .await
    }

    /// Gives the run the job file as it is now.
    ///
    /// Options as for Submit: `base_directory` (required), `path`, `workspace`, `environment`, `priority`, `set`; what was
    /// said at Submit and is not said here still holds. `resume` (b): lets the run go on, too, what failed included, also
    /// where it has ended. Completed sheets stay completed; a sheet at work goes on with the plan that it was started with
    /// and is checked by it.
    ///
    /// Returns in which parts of the file the plans differ (none: nothing has changed), what that means for the sheets
    /// (rows with `first`, `last`, `state`, and `becomes`: `kept`, `next_attempt`, `new_plan`, `reopened`, `added`,
    /// `dropped`), and warnings. InvalidJob as for Submit; WrongState where the plan is not for what the run has done.
    #[zbus(out_args("parts", "sheets", "problems"))]
    async fn modify(
        &self,
        file: OwnedFd,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(Vec<String>, Vec<ChangeRow>, Vec<ProblemRow>)> {
        let mut options = Options::new(options);
        let submit = manager::submission(manager::read(file).await?, &mut options)?;
        if submit.start_sheet.is_some() || submit.fresh || submit.dry_run || submit.infer {
            return Err(Error::InvalidArgument(
                "`start_sheet`, `fresh`, `dry_run` and `infer` are for new runs, not for Modify".to_owned(),
            ));
        }
        let run = self.to_change(options, connection, &call).await?;
        let modified = self
            .link
            .ask(|reply| Request::Modify(run, Box::new(submit), reply))
            .await?;
        let mut sheets = modified.sheets.iter().map(ChangeRow::from).collect();
        convert::fit(&mut sheets);
        Ok((modified.parts, sheets, convert::problem_rows(&modified.problems)))
    }

    /// Takes sheets for completed whose rules all hold, and runs nothing. The run has to be paused, with no sheet at work,
    /// or over.
    ///
    /// Options: `sheet` (u, only that one), `dry_run` (b, only say what would be). Returns a row for each sheet that was
    /// not completed: `sheet`, `was`, `is`, `reason` (why it is not completed), `rules_passed`, `rules_total`, and `failed`
    /// (a line for each rule that does not hold).
    #[zbus(out_args("sheets"))]
    async fn recover(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Vec<RecoveredRow>> {
        let mut options = Options::new(options);
        let sheet: Option<u32> = options.take("sheet")?;
        let dry_run = options.take("dry_run")?.unwrap_or_default();
        let run = self.to_change(options, connection, &call).await?;
        let sheets = self
            .link
            .ask(|reply| Request::Recover(run, sheet.map(SheetNo), dry_run, reply))
            .await?;
        let mut rows = sheets.iter().map(RecoveredRow::from).collect();
        convert::fit(&mut rows);
        Ok(rows)
    }

    /// Cancels the run: its sessions are stopped, it ends.
    async fn cancel(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<()> {
        let run = self.to_change(Options::new(options), connection, &call).await?;
        self.link.ask(|reply| Request::Cancel(run, reply)).await
    }

    /// Sheets from number `first` on, at most `count` (0: as many as fit into one message).
    ///
    /// Fewer rows than asked for do not mean the end: ask again from the number after the last one, until none comes.
    #[zbus(out_args("sheets"))]
    async fn sheets(&self, first: u32, count: u32, options: Dictionary) -> Result<Vec<SheetRow>> {
        let run = self.selected(&mut Options::new(options))?;
        let count = if count == 0 { PAGE } else { count.min(PAGE) };
        let sheets = self
            .link
            .ask(|reply| Request::Sheets(run, first.max(1), count, reply))
            .await?;
        let mut rows = sheets.iter().map(SheetRow::from).collect();
        convert::fit(&mut rows);
        Ok(rows)
    }

    /// Attempts at a sheet, oldest first, each with its report once it is over. The option `first` (u) is the number to
    /// begin with.
    ///
    /// As many as fit into one message; ask again from the number after the last one, until none comes. A report's keys
    /// are those of `mozartctl` in JSON; its moments and spans are microseconds.
    #[zbus(out_args("attempts"))]
    async fn attempts(&self, sheet: u32, options: Dictionary) -> Result<Vec<AttemptRow>> {
        let mut options = Options::new(options);
        let (run, first) = (
            self.selected(&mut options)?,
            options.take::<u32>("first")?.unwrap_or_default(),
        );
        let attempts = self.link.ask(|reply| Request::Attempts(run, sheet, reply)).await?;
        let wanted = attempts.iter().filter(|attempt| attempt.attempt >= first);
        let mut rows = wanted.map(AttemptRow::from).collect();
        convert::fit(&mut rows);
        Ok(rows)
    }

    /// The standard output of an attempt, opened for reading; attempt 0 is the newest.
    #[zbus(out_args("output"))]
    async fn open_output(&self, sheet: u32, attempt: u32, options: Dictionary) -> Result<OwnedFd> {
        let run = self.selected(&mut Options::new(options))?;
        let output = self
            .link
            .ask(|reply| Request::OpenOutput(run, sheet, attempt, reply))
            .await?;
        Ok(output.into())
    }

    /// A sheet has changed. `details` is its row as Sheets returns it, without the results of its rules.
    #[zbus(signal)]
    pub async fn sheet_changed(
        emitter: &SignalEmitter<'_>,
        run: u32,
        sheet: u32,
        state: &str,
        details: SheetRow,
    ) -> zbus::Result<()>;

    /// A run is over: `completed`, `failed` or `cancelled`.
    #[zbus(signal)]
    pub async fn finished(emitter: &SignalEmitter<'_>, run: u32, result: &str, details: Dictionary)
    -> zbus::Result<()>;

    /// The ledger's own number of the run, over all jobs, never used again.
    #[zbus(property)]
    fn id(&self) -> Result<i64> {
        self.see(|run| run.summary.id.0)
    }

    /// Name of the job.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.name.to_string()
    }

    /// Number of the run within the job, from 1.
    #[zbus(property)]
    fn run(&self) -> Result<u32> {
        self.see(|run| run.summary.run.0)
    }

    /// `queued`, `running`, `waiting`, `paused`, `completed`, `failed` or `cancelled`.
    #[zbus(property)]
    fn state(&self) -> Result<String> {
        self.see(|run| run.summary.state.to_string())
    }

    /// Why it is in that state, in words; empty where the state says all.
    #[zbus(property)]
    fn reason(&self) -> Result<String> {
        self.see(|run| run.summary.reason.clone())
    }

    /// Sheets in all.
    #[zbus(property)]
    fn sheets_total(&self) -> Result<u32> {
        self.see(|run| run.summary.sheets_total)
    }

    /// Sheets that are completed or skipped.
    #[zbus(property)]
    fn sheets_done(&self) -> Result<u32> {
        self.see(|run| run.summary.sheets_done)
    }

    /// Sheets that failed.
    #[zbus(property)]
    fn sheets_failed(&self) -> Result<u32> {
        self.see(|run| run.summary.sheets_failed)
    }

    /// Sheets that run now.
    #[zbus(property)]
    fn sheets_running(&self) -> Result<u32> {
        self.see(|run| run.summary.sheets_running)
    }

    /// Rest of the run's time; means something only where EtaValid is true.
    #[zbus(property, name = "EtaUSec")]
    fn eta_usec(&self) -> Result<u64> {
        self.see(|run| run.eta.map_or(0, convert::span_usec))
    }

    /// Whether EtaUSec can be believed yet.
    #[zbus(property)]
    fn eta_valid(&self) -> Result<bool> {
        self.see(|run| run.eta.is_some())
    }

    /// Cost so far in US dollars; negative where no attempt told one.
    #[zbus(property)]
    fn cost_usd(&self) -> Result<f64> {
        self.see(|run| run.summary.cost.map_or(-1.0, Cost::as_usd))
    }

    /// Input tokens so far.
    #[zbus(property)]
    fn tokens_in(&self) -> Result<u64> {
        self.see(|run| run.summary.tokens_in)
    }

    /// Output tokens so far.
    #[zbus(property)]
    fn tokens_out(&self) -> Result<u64> {
        self.see(|run| run.summary.tokens_out)
    }

    /// When what the run waits for is over, in microseconds since the epoch; 0 where it waits for nothing that has a
    /// known end.
    #[zbus(property, name = "LimitUntilUSec")]
    fn limit_until_usec(&self) -> Result<u64> {
        self.see(|run| run.summary.until.map_or(0, convert::usec))
    }

    /// Id of the question that what is left of the run waits for; empty where it waits for none.
    #[zbus(property)]
    fn question(&self) -> Result<String> {
        self.see(|run| run.summary.question.clone().unwrap_or_default())
    }

    /// Counts every change of the run.
    #[zbus(property)]
    fn revision(&self) -> Result<u64> {
        self.see(|run| run.summary.revision)
    }
}
