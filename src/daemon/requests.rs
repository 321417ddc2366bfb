//! Answers what people and programs ask. Rules of what is allowed when stand here or in the engine, nowhere else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::clock;
use super::conductor::{Conductor, Ending, StepError};
use super::day::Day;
use super::journal;
use super::settings::Settings;
use crate::api::handle::{Reply, Request};
use crate::api::request::{ApiError, CostRequest, RunFilter, RunSelector};
use crate::api::view::RunView;
use crate::engine::event::{Event, PauseWhy, Refusal};
use crate::engine::{Choice, QuestionId, Run};
use crate::model::{AccountId, AttemptNo, AttemptRef, RunId, RunState, SheetNo};
use crate::summary::{AttemptSummary, CostFilter, CostKey, CostSummary, RunSummary, SheetSummary};

/// Rows in one answer; more are paged.
const PAGE: u32 = 500;

/// Jobs that the bus shows as objects.
const RECENT: u32 = 50;

impl Conductor {
    /// Answers one request. An asker that has gone meanwhile loses only its answer.
    pub(super) async fn answer(&mut self, request: Request) {
        match request {
            Request::Submit(submit, reply) => send(reply, self.submit(*submit).await),
            Request::Validate(submit, reply) => send(reply, self.validate(*submit).await),
            Request::ListRuns(filter, limit, cursor, reply) => send(reply, self.list(filter, limit, cursor).await),
            Request::GetRun(selector, reply) => send(reply, self.view(&selector).await),
            Request::Pause(selector, now, reply) => send(reply, self.pause(&selector, now).await),
            Request::Resume(selector, reply) => send(reply, self.resume(&selector).await),
            Request::Retry(selector, from, reply) => {
                let retry = |run| Event::RetryRequested { run, from };
                send(reply, self.go_on(&selector, retry).await);
            }
            Request::Modify(selector, submit, reply) => send(reply, self.modify(&selector, *submit).await),
            Request::Recover(selector, sheet, dry_run, reply) => self.recover(&selector, sheet, dry_run, reply).await,
            Request::Cancel(selector, reply) => send(reply, self.cancel(&selector).await),
            Request::Sheets(selector, first, count, reply) => send(reply, self.sheets(&selector, first, count).await),
            Request::Attempts(selector, sheet, reply) => send(reply, self.attempts_at(&selector, sheet).await),
            Request::OpenOutput(selector, sheet, attempt, reply) => {
                send(reply, self.output(&selector, sheet, attempt).await);
            }
            Request::Answer(question, choice, reply) => send(reply, self.answer_question(question, &choice).await),
            Request::Questions(reply) => send(reply, Ok(self.questions())),
            Request::Gates(reply) => send(reply, Ok(self.gates())),
            Request::ClearGates(account, reply) => send(reply, self.clear_gates(account).await),
            Request::Costs(request, reply) => send(reply, self.costs(request).await),
            Request::Stop(stop_sessions, reply) => self.stop(stop_sessions, reply).await,
            Request::Reload(reply) => send(reply, self.reload().await),
            Request::Manager(reply) => send(reply, Ok(self.manager())),
            Request::Recent(reply) => send(reply, self.recent().await),
            Request::Interrupt(now, reply) => self.interrupt(now, reply).await,
            Request::Sleep(begins, reply) => {
                journal::sleep(begins, self.running.len());
                if !begins {
                    // What was waited for may be long over.
                    self.wake().await;
                }
                send(reply, Ok(()));
            }
            Request::Inhibit(why, reply) => {
                let held = self.inhibit(why).await;
                // A hold of which nobody knows the number would never be given back.
                if let Err(Ok(number)) = reply.send(held)
                    && let Err(error) = self.uninhibit(number).await
                {
                    tracing::debug!("starts are let go, and that is not noted: {error}");
                }
            }
            Request::Uninhibit(number, reply) => send(reply, self.uninhibit(number).await),
        }
    }

    /// The run that is meant: the newest of its job unless a number is given.
    pub(super) async fn find(&self, selector: &RunSelector) -> Result<RunSummary, ApiError> {
        let RunSelector { job, run } = selector;
        if let Some(row) = self.ledger.run(job, *run).await.map_err(storage)? {
            return Ok(row);
        }
        match run {
            Some(no) if self.ledger.run(job, None).await.map_err(storage)?.is_some() => Err(ApiError::NoSuchRun(
                format!("job `{job}` has no run {no}; `mozartctl list` shows the runs"),
            )),
            _ => {
                let lost = self.set_aside().map(|kept| format!("; {kept}")).unwrap_or_default();
                Err(ApiError::NoSuchJob(format!(
                    "there is no job `{job}`; `mozartctl list` shows the jobs{lost}"
                )))
            }
        }
    }

    async fn view(&self, selector: &RunSelector) -> Result<RunView, ApiError> {
        Ok(self.dress(self.find(selector).await?, clock::now()))
    }

    async fn list(
        &self,
        filter: RunFilter,
        limit: u32,
        mut cursor: String,
    ) -> Result<(Vec<RunSummary>, String), ApiError> {
        let limit = if limit == 0 { PAGE } else { limit.min(PAGE) };
        let now = clock::now();
        // The state of a live run is the engine's, so the states are compared here and not by the query.
        let query = RunFilter {
            states: Vec::new(),
            ..filter.clone()
        };
        let mut rows = Vec::new();
        loop {
            let wanted = limit - u32::try_from(rows.len()).unwrap_or(limit);
            let (page, next) = self.ledger.runs(&query, wanted, &cursor).await.map_err(storage)?;
            let dressed = page.into_iter().map(|row| self.dress(row, now).summary);
            rows.extend(dressed.filter(|row| filter.states.is_empty() || filter.states.contains(&row.state)));
            cursor = next;
            if cursor.is_empty() || rows.len() >= limit as usize {
                return Ok((rows, cursor));
            }
        }
    }

    async fn recent(&self) -> Result<Vec<RunView>, ApiError> {
        let query = RunFilter {
            newest: true,
            ..RunFilter::default()
        };
        let (rows, _) = self.ledger.runs(&query, RECENT, "").await.map_err(storage)?;
        let now = clock::now();
        Ok(rows.into_iter().map(|row| self.dress(row, now)).collect())
    }

    async fn sheets(&self, selector: &RunSelector, first: u32, count: u32) -> Result<Vec<SheetSummary>, ApiError> {
        let run = self.find(selector).await?;
        let now = clock::now();
        let count = if count == 0 { PAGE } else { count.min(PAGE) };
        let rows = self.ledger.sheets(run.id, first.max(1), count).await.map_err(storage)?;
        let gone = self.gone(&run);
        Ok(rows
            .into_iter()
            .map(|row| if gone { row } else { self.dress_sheet(run.id, row, now) })
            .collect())
    }

    /// Nobody conducts that run: it was left by a conductor that was killed, and this one only shows. One that waits
    /// for an answer needs no conductor meanwhile.
    pub(super) fn gone(&self, run: &RunSummary) -> bool {
        let asks = || {
            let status = self.engine.describe(run.id, clock::now());
            status.is_some_and(|status| status.state == RunState::Waiting) && self.engine.question_for(run.id).is_some()
        };
        !self.conducts && !run.state.is_ended() && run.state != RunState::Paused && !asks()
    }

    async fn attempts_at(&self, selector: &RunSelector, sheet: u32) -> Result<Vec<AttemptSummary>, ApiError> {
        let run = self.find(selector).await?;
        has_sheet(&run, sheet)?;
        self.ledger.attempts(run.id, sheet).await.map_err(storage)
    }

    async fn output(&self, selector: &RunSelector, sheet: u32, attempt: u32) -> Result<OwnedFd, ApiError> {
        let run = self.find(selector).await?;
        has_sheet(&run, sheet)?;
        let attempt = match attempt {
            0 => {
                let all = self.ledger.attempts(run.id, sheet).await.map_err(storage)?;
                all.last().map(|last| last.attempt).ok_or_else(|| {
                    ApiError::NoSuchSheet(format!("sheet {sheet} of `{}` has not been attempted yet", run.job))
                })?
            }
            number => number,
        };
        let attempt = AttemptRef {
            run: run.id,
            sheet: SheetNo(sheet),
            attempt: AttemptNo(attempt),
        };
        let path = self.runner.spool_dir(attempt).join("stdout");
        let file = File::open(&path).map_err(|error| {
            ApiError::NoSuchSheet(format!(
                "the output of sheet {sheet} cannot be opened: {}: {error}",
                path.display()
            ))
        })?;
        Ok(file.into())
    }

    async fn pause(&mut self, selector: &RunSelector, now: bool) -> Result<(), ApiError> {
        let run = self.live_run(selector, "pause").await?;
        Ok(self
            .step(Event::PauseRequested {
                run,
                now,
                why: PauseWhy::Person,
            })
            .await?)
    }

    async fn cancel(&mut self, selector: &RunSelector) -> Result<(), ApiError> {
        let row = self.find(selector).await?;
        if row.state == RunState::Cancelled {
            return Ok(());
        }
        let run = self.live_run(selector, "cancel").await?;
        Ok(self.step(Event::CancelRequested { run }).await?)
    }

    /// Goes on with a paused run, or opens the next generation of an ended one.
    pub(super) async fn resume(&mut self, selector: &RunSelector) -> Result<(), ApiError> {
        self.go_on(selector, |run| Event::ResumeRequested { run }).await
    }

    /// Lets a run that may have ended go on, as the event has it.
    async fn go_on(&mut self, selector: &RunSelector, event: impl FnOnce(RunId) -> Event) -> Result<(), ApiError> {
        let row = self.changeable(selector).await?;
        self.take_up(&row).await?;
        let done = self.step(event(row.id)).await;
        self.put_back(row.id);
        Ok(done?)
    }

    /// The run that is meant, if no newer one of its job is live.
    pub(super) async fn changeable(&self, selector: &RunSelector) -> Result<RunSummary, ApiError> {
        let row = self.find(selector).await?;
        if selector.run.is_some() {
            let newest = self
                .find(&RunSelector {
                    job: selector.job.clone(),
                    run: None,
                })
                .await?;
            if newest.id != row.id && !newest.state.is_ended() {
                return Err(ApiError::Busy(format!("run {} of `{}` is live", newest.run, row.job)));
            }
        }
        Ok(row)
    }

    /// Takes a run that has ended back into memory, for something that may let it go on.
    pub(super) async fn take_up(&mut self, row: &RunSummary) -> Result<(), ApiError> {
        if !row.state.is_ended() {
            return Ok(());
        }
        // Told again from the beginning: over an earlier telling the facts would mean something else.
        let facts = self.ledger.facts_of(row.id).await.map_err(storage)?;
        self.engine.recall(row.id, &facts);
        if let Err(error) = self.hold(row.id).await {
            self.engine.forget(row.id);
            return Err(storage(error));
        }
        Ok(())
    }

    /// Forgets it again, if it has not gone on.
    pub(super) fn put_back(&mut self, run: RunId) {
        if self.engine.run(run).is_some_and(Run::has_ended) {
            self.engine.forget(run);
            self.live.remove(&run);
        }
    }

    /// The engine's number of a run that can be changed now.
    async fn live_run(&self, selector: &RunSelector, verb: &str) -> Result<RunId, ApiError> {
        let row = self.find(selector).await?;
        if row.state.is_ended() {
            return Err(ApiError::WrongState(format!(
                "{}#{} is {} already; there is nothing to {verb}",
                row.job, row.run, row.state
            )));
        }
        if self.gone(&row) {
            return Err(ApiError::WrongState(format!(
                "the conductor of {}#{} is gone; `mozartctl resume {}` takes the run up again, then {verb} it",
                row.job, row.run, row.job
            )));
        }
        Ok(row.id)
    }

    async fn answer_question(&mut self, question: String, word: &str) -> Result<(), ApiError> {
        let question = QuestionId(question);
        let Some(choice) = Choice::ALL.iter().find(|choice| choice.as_str() == word) else {
            let asked = self.engine.questions().find(|asked| asked.id == question);
            let choices = asked.map(|asked| asked.choices.clone());
            let refusal = match choices {
                Some(choices) => Refusal::WrongChoice { question, choices },
                None => Refusal::NoSuchQuestion(question),
            };
            return Err(StepError::Refused(refusal).into());
        };
        let choice = *choice;
        Ok(self.step(Event::Answered { question, choice }).await?)
    }

    async fn clear_gates(&mut self, account: Option<String>) -> Result<(), ApiError> {
        let account = account.map(AccountId);
        if let Some(account) = &account {
            let of_gates = self.engine.gates().map(|(key, _)| &key.account);
            let of_runs = self.engine.runs().filter_map(|run| run.rules().account.as_ref());
            if !of_gates.chain(of_runs).any(|known| known == account) {
                return Err(ApiError::InvalidArgument(format!(
                    "no limit of account `{}` is known; `mozartctl rate-limits` names the accounts",
                    account.0
                )));
            }
        }
        Ok(self.step(Event::GatesCleared { account }).await?)
    }

    async fn costs(&self, request: CostRequest) -> Result<Vec<CostSummary>, ApiError> {
        let CostRequest { days, job, run, mut by } = request;
        if let Some(job) = &job {
            let job = job.clone();
            self.find(&RunSelector { job, run }).await?;
        }
        if by.is_empty() {
            by.push(CostKey::Day);
        }
        let today = Day::of(clock::now().wall, &TimeZone::system());
        let since = days.map_or_else(String::new, |days| today.before(days.saturating_sub(1)));
        let filter = CostFilter { since, job, run, by };
        self.ledger.costs(&filter).await.map_err(storage)
    }

    async fn stop(&mut self, stop_sessions: bool, reply: Reply<()>) {
        let stop_sessions = stop_sessions || self.settings.stop_sessions_on_stop;
        if !stop_sessions {
            // Nothing is written for it, so it works also where nothing can be written.
            self.ending = Ending::Now;
            return send(reply, Ok(()));
        }
        match self.step(Event::ShutdownRequested { stop_sessions }).await {
            Ok(()) => {
                self.ending = Ending::Drained;
                let patience = Duration::from_secs(u64::from(self.settings.shutdown_timeout_seconds));
                self.leave_at.get_or_insert(Instant::now() + patience);
                send(reply, Ok(()));
            }
            Err(error) => send(reply, Err(error.into())),
        }
    }

    /// Holds every live run, so that a later conductor goes on with it; answered once nothing runs any more.
    async fn interrupt(&mut self, now: bool, reply: Reply<()>) {
        let mut runs: Vec<_> = self.live.keys().copied().collect();
        runs.sort_unstable();
        for run in runs {
            let event = Event::PauseRequested {
                run,
                now,
                why: PauseWhy::Interrupted,
            };
            if let Err(StepError::Storage(text)) = self.step(event).await {
                return send(reply, Err(ApiError::Storage(text)));
            }
        }
        self.when_drained(reply);
    }

    async fn inhibit(&mut self, why: String) -> Result<u32, ApiError> {
        let number = self.holds.ask(why);
        if let Err(error) = self.look_around().await {
            self.holds.give_back(number);
            return Err(error.into());
        }
        self.publish_status();
        Ok(number)
    }

    async fn uninhibit(&mut self, number: u32) -> Result<(), ApiError> {
        if !self.holds.give_back(number) {
            return Err(ApiError::InvalidArgument(format!(
                "nothing is held under the number {number}"
            )));
        }
        self.look_around().await?;
        self.publish_status();
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), ApiError> {
        let (settings, warnings) = Settings::load(&self.paths.settings).map_err(ApiError::InvalidArgument)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let event = Event::SettingsChanged {
            settings: settings.engine.clone(),
        };
        self.step(event).await?;
        let before = std::mem::replace(&mut self.settings, settings);
        self.limit_memory(before.resource_limits.max_memory_mb);
        journal::reloaded();
        self.publish_status();
        Ok(self.look_around().await?)
    }
}

pub(super) fn has_sheet(run: &RunSummary, sheet: u32) -> Result<(), ApiError> {
    if (1..=run.sheets_total).contains(&sheet) {
        return Ok(());
    }
    Err(ApiError::NoSuchSheet(format!(
        "{}#{} has sheets 1 to {}, not {sheet}",
        run.job, run.run, run.sheets_total
    )))
}

/// A ledger that cannot be read or written, in words.
pub(super) fn storage(error: crate::ledger::StoreError) -> ApiError {
    ApiError::Storage(error.to_string())
}

pub(super) fn send<T>(reply: Reply<T>, answer: Result<T, ApiError>) {
    // An asker that has gone loses only its answer.
    drop(reply.send(answer));
}
