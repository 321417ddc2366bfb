//! A conductor that answers from a table, behind the same handle as the real one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mozart::api::handle::{Conductor, Request};
use mozart::api::request::{ApiError, CostRequest, Modified, RecoveredSheet, SheetsChange, Submit, Submitted};
use mozart::api::view::{Change, GateState, GateView, ManagerView, QuestionView, RunView};
use mozart::bus::caller::Callers;
use mozart::bus::client::Client;
use mozart::bus::server::Server;
use mozart::model::{Code, Cost, JobName, Problem, RunId, RunNo, RunState, Severity, SheetStatus, Span, Timestamp};
use mozart::summary::{AttemptSummary, CostSummary, RunSummary, SheetSummary};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

/// What the conductor knows, and what it was asked.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) manager: ManagerView,
    pub(crate) runs: Vec<RunView>,
    pub(crate) sheets: Vec<SheetSummary>,
    pub(crate) attempts: Vec<AttemptSummary>,
    pub(crate) output: PathBuf,
    pub(crate) problems: Vec<Problem>,
    pub(crate) questions: Vec<QuestionView>,
    pub(crate) gates: Vec<GateView>,
    pub(crate) costs: Vec<CostSummary>,
    pub(crate) costs_asked: Vec<CostRequest>,
    pub(crate) attached: bool,
    /// Every request that changes something fails so.
    pub(crate) fails: Option<ApiError>,
    /// Before each answer.
    pub(crate) delay: std::time::Duration,
    pub(crate) submitted: Vec<Submit>,
    pub(crate) calls: Vec<String>,
}

pub(crate) struct World {
    pub(crate) table: Arc<Mutex<Table>>,
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) server: Server,
    pub(crate) tasks: JoinSet<()>,
}

impl World {
    pub(crate) fn new(table: Table) -> Self {
        Self::with(table, Callers::new(), 1024)
    }

    pub(crate) fn with(table: Table, callers: Callers, changes_kept: usize) -> Self {
        let table = Arc::new(Mutex::new(table));
        let (requests, mut asked) = mpsc::channel(16);
        let (changes, _) = broadcast::channel(changes_kept);
        let server = Server::with_callers(Conductor::new(requests, changes.clone()), callers);
        let mut tasks = JoinSet::new();
        let (answering, announcing) = (table.clone(), changes.clone());
        tasks.spawn(async move {
            while let Some(request) = asked.recv().await {
                let delay = answering.lock().unwrap().delay;
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                answering.lock().unwrap().answer(request, &announcing);
            }
        });
        Self {
            table,
            changes,
            server,
            tasks,
        }
    }

    /// A client over a socket pair.
    pub(crate) async fn client(&mut self) -> Client {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let server = self.server.clone();
        self.tasks.spawn(async move { server.client(theirs).await.unwrap() });
        Client::over(ours).await.unwrap()
    }

    pub(crate) fn announce(&self, change: Change) {
        drop(self.changes.send(change));
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.table.lock().unwrap().calls)
    }
}

impl Table {
    fn answer(&mut self, request: Request, changes: &broadcast::Sender<Change>) {
        let runs = self.runs.clone();
        let find = |selector: &mozart::api::request::RunSelector| {
            let of_job: Vec<_> = runs
                .iter()
                .filter(|run| run.summary.job.as_str() == selector.job)
                .collect();
            if of_job.is_empty() {
                return Err(ApiError::NoSuchJob(format!("there is no job `{}`", selector.job)));
            }
            let run = match selector.run {
                None => of_job.iter().max_by_key(|run| run.summary.run),
                Some(number) => of_job.iter().find(|run| run.summary.run.0 == number),
            };
            run.map(|run| (*run).clone())
                .ok_or_else(|| ApiError::NoSuchRun("there is no such run".to_owned()))
        };
        let fails = match &self.fails {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        };
        match request {
            Request::Costs(request, reply) => {
                self.costs_asked.push(request);
                drop(reply.send(fails.map(|()| self.costs.clone())));
            }
            Request::Submit(submit, reply) => {
                let job = JobName::new("my-batch job").unwrap();
                let dry_run = submit.dry_run;
                self.submitted.push(*submit);
                let answer = fails.map(|()| {
                    let run = RunNo(if dry_run { 0 } else { 4 });
                    if !dry_run {
                        let view = run_view(job.as_str(), 4, RunState::Queued);
                        self.runs.push(view.clone());
                        drop(changes.send(Change::Run(Box::new(view))));
                    }
                    Submitted {
                        job,
                        run,
                        attached: self.attached,
                        problems: self.problems.clone(),
                    }
                });
                drop(reply.send(answer));
            }
            Request::Validate(submit, reply) => {
                self.submitted.push(*submit);
                let valid = self.problems.iter().all(|problem| problem.severity != Severity::Error);
                drop(reply.send(Ok((valid, self.problems.clone()))));
            }
            Request::ListRuns(filter, limit, cursor, reply) => {
                self.calls.push(format!("list {:?} {limit}", filter.states));
                let start: usize = cursor.parse().unwrap_or(0);
                let wanted = |run: &&RunView| {
                    (filter.job.as_deref().is_none_or(|job| run.summary.job.as_str() == job))
                        && (filter.states.is_empty() || filter.states.contains(&run.summary.state))
                };
                let all: Vec<_> = self.runs.iter().filter(wanted).map(|run| run.summary.clone()).collect();
                let end = all.len().min(start + limit as usize);
                let next = if end < all.len() {
                    end.to_string()
                } else {
                    String::new()
                };
                drop(reply.send(Ok((all[start..end].to_vec(), next))));
            }
            Request::GetRun(selector, reply) => drop(reply.send(find(&selector))),
            Request::Pause(run, now, reply) => {
                self.calls.push(format!("pause {} {:?} {now}", run.job, run.run));
                let answer = fails.and_then(|()| {
                    let mut view = find(&run)?;
                    view.summary.state = RunState::Paused;
                    view.summary.revision += 1;
                    let same = |other: &&mut RunView| other.summary.id == view.summary.id;
                    if let Some(stored) = self.runs.iter_mut().find(same) {
                        *stored = view.clone();
                    }
                    drop(changes.send(Change::Run(Box::new(view))));
                    Ok(())
                });
                drop(reply.send(answer));
            }
            Request::Resume(run, reply) => {
                self.calls.push(format!("resume {} {:?}", run.job, run.run));
                drop(reply.send(fails));
            }
            Request::Retry(run, from, reply) => {
                self.calls.push(format!("retry {} {:?} from {from}", run.job, run.run));
                drop(reply.send(fails));
            }
            Request::Modify(run, submit, reply) => {
                self.calls
                    .push(format!("modify {} {:?} resume {}", run.job, run.run, submit.resume));
                self.submitted.push(*submit);
                let answer = fails.and_then(|()| {
                    let row = find(&run)?.summary;
                    Ok(Modified {
                        job: row.job,
                        run: row.run,
                        parts: vec!["prompt".to_owned(), "retry".to_owned()],
                        sheets: vec![change(1, 4, SheetStatus::Completed, "kept")],
                        problems: self.problems.clone(),
                    })
                });
                drop(reply.send(answer));
            }
            Request::Recover(run, sheet, dry_run, reply) => {
                self.calls
                    .push(format!("recover {} {:?} {sheet:?} {dry_run}", run.job, run.run));
                drop(reply.send(fails.map(|()| vec![recovered(3)])));
            }
            Request::Cancel(run, reply) => {
                self.calls.push(format!("cancel {} {:?}", run.job, run.run));
                drop(reply.send(fails));
            }
            Request::Sheets(run, first, count, reply) => {
                self.calls
                    .push(format!("sheets {} {:?} {first} {count}", run.job, run.run));
                let rows = self
                    .sheets
                    .iter()
                    .filter(|sheet| sheet.sheet_num >= first)
                    .take(count as usize);
                drop(reply.send(Ok(rows.cloned().collect())));
            }
            Request::Attempts(.., reply) => drop(reply.send(Ok(self.attempts.clone()))),
            Request::OpenOutput(_, sheet, attempt, reply) => {
                self.calls.push(format!("output {sheet} {attempt}"));
                let file = std::fs::File::open(&self.output);
                drop(
                    reply.send(
                        file.map(Into::into)
                            .map_err(|error| ApiError::NoSuchSheet(error.to_string())),
                    ),
                );
            }
            Request::Answer(question, choice, reply) => {
                self.calls.push(format!("answer {question} {choice}"));
                drop(reply.send(fails));
            }
            Request::Questions(reply) => drop(reply.send(Ok(self.questions.clone()))),
            Request::Gates(reply) => drop(reply.send(Ok(self.gates.clone()))),
            Request::ClearGates(account, reply) => {
                self.calls.push(format!("clear {account:?}"));
                drop(reply.send(fails));
            }
            Request::Stop(stop_sessions, reply) => {
                self.calls.push(format!("stop {stop_sessions}"));
                drop(reply.send(fails));
            }
            Request::Reload(reply) => {
                self.calls.push("reload".to_owned());
                drop(reply.send(fails));
            }
            Request::Inhibit(why, reply) => {
                self.calls.push(format!("inhibit {why}"));
                drop(reply.send(Ok(7)));
            }
            Request::Uninhibit(number, reply) => {
                self.calls.push(format!("uninhibit {number}"));
                drop(reply.send(Ok(())));
            }
            // Only the front end that the conductor is embedded in asks this.
            Request::Interrupt(_, reply) | Request::Sleep(_, reply) => drop(reply.send(fails)),
            Request::Manager(reply) => drop(reply.send(Ok(self.manager.clone()))),
            Request::Recent(reply) => {
                self.calls.push("recent".to_owned());
                drop(reply.send(Ok(self.runs.clone())));
            }
        }
    }
}

pub(crate) fn change(first: u32, last: u32, state: SheetStatus, becomes: &str) -> SheetsChange {
    SheetsChange {
        first,
        last,
        state,
        becomes: becomes.to_owned(),
    }
}

pub(crate) fn recovered(sheet: u32) -> RecoveredSheet {
    RecoveredSheet {
        sheet,
        was: SheetStatus::Failed,
        is: SheetStatus::Failed,
        reason: "1 of 2 rules passed".to_owned(),
        rules_passed: 1,
        rules_total: 2,
        failed: vec!["out-3 exists: there is no such file".to_owned()],
    }
}

pub(crate) fn run_view(job: &str, run: u32, state: RunState) -> RunView {
    let summary = RunSummary {
        id: RunId(i64::from(run) + 40),
        job: JobName::new(job).unwrap(),
        run: RunNo(run),
        state,
        reason: "limit five_hour".to_owned(),
        until: Some(Timestamp(1_795_228_661_000_001)),
        question: None,
        warning: None,
        sheets_total: 10,
        sheets_done: 3,
        sheets_failed: 1,
        sheets_running: 1,
        submitted_at: Timestamp(1_795_000_000_000_000),
        started_at: Some(Timestamp(1_795_000_000_000_007)),
        ended_at: state.is_ended().then_some(Timestamp(1_795_100_000_000_000)),
        cost: Some(Cost(1_250_000)),
        tokens_in: 5_000_000_000,
        tokens_out: 17,
        workspace: "/home/me/work".to_owned(),
        plan_hash: "abc".to_owned(),
        job_file: Some("/jobs/review.yaml".to_owned()),
        revision: 1,
    };
    RunView {
        summary,
        eta: Some(Span(90_000_000)),
    }
}

pub(crate) fn question(id: &str) -> QuestionView {
    QuestionView {
        id: id.to_owned(),
        text: "The login was refused.".to_owned(),
        choices: vec!["retry".to_owned(), "stop".to_owned()],
        account: Some("claude_cli:host:1a2b".to_owned()),
        code: Some(Code::E502),
        runs: vec!["a#1".to_owned(), "b#2".to_owned()],
        runs_waiting: 2,
    }
}

pub(crate) fn gate(state: GateState) -> GateView {
    GateView {
        account: "claude_cli:host:1a2b".to_owned(),
        kind: "usage".to_owned(),
        window: Some("five_hour".to_owned()),
        state,
        until: Timestamp(1_795_228_661_000_001),
        places: 2,
        under_way: 1,
        runs_waiting: 3,
    }
}

pub(crate) fn sheet(number: u32) -> SheetSummary {
    SheetSummary {
        sheet_num: number,
        description: None,
        state: SheetStatus::Pending,
        reason: String::new(),
        until: None,
        attempts: 0,
        completion_attempts: 0,
        cause: None,
        code: None,
        message: None,
        flags: Vec::new(),
        validations: Vec::new(),
        started_at: None,
        ended_at: None,
        cost: None,
        tokens_in: 0,
        tokens_out: 0,
    }
}

pub(crate) fn problem(check_id: &str, severity: Severity, message: &str) -> Problem {
    Problem {
        check_id: check_id.to_owned(),
        severity,
        message: message.to_owned(),
        line: Some(7),
        column: Some(3),
        context: Some("validations[2].pattern".to_owned()),
        suggestion: None,
        auto_fixable: true,
        metadata: [("field".to_owned(), "pattern".to_owned())].into(),
    }
}
