//! A conductor made of nothing but rows, on the private socket: shows what `mozartctl` makes of its answers.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mozart::api::handle::{Conductor, Request};
use mozart::api::request::{ApiError, CostRequest, Modified, RecoveredSheet, RunSelector, Submit, Submitted};
use mozart::api::view::{Change, GateView, ManagerView, QuestionView, RunView};
use mozart::bus::server::Server;
use mozart::model::{
    AttemptKind, AttemptReport, Certificate, Exit, JobName, Outcome, RunId, RunNo, RunState, SessionReport,
    SheetStatus, Span, Timestamp, ValidationReport,
};
use mozart::summary::{AttemptSummary, CostSummary, RunSummary, SheetSummary};
use tokio::sync::{broadcast, mpsc, oneshot};

/// What it knows, and what it was asked to do.
#[derive(Default)]
pub(super) struct State {
    pub(super) runs: Vec<RunView>,
    pub(super) sheets: Vec<SheetSummary>,
    /// Sheet, attempt → whether it is over.
    pub(super) attempts: BTreeMap<(u32, u32), bool>,
    /// Directory with `SHEET-ATTEMPT` files.
    pub(super) outputs: PathBuf,
    /// What `Submit` answers.
    pub(super) submit: Option<Result<bool, ApiError>>,
    pub(super) submitted: Vec<Submit>,
    /// What `Modify` answers, where `submit` holds no error.
    pub(super) modified: Option<Modified>,
    pub(super) recovered: Vec<RecoveredSheet>,
    pub(super) questions: Vec<QuestionView>,
    pub(super) gates: Vec<GateView>,
    pub(super) costs: Vec<CostSummary>,
    pub(super) costs_asked: Vec<CostRequest>,
    /// How often somebody asked for the sheets.
    pub(super) looks: u32,
    /// `pause now review`, …
    pub(super) asked: Vec<String>,
}

/// The running fake; it ends when dropped.
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Change>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    /// Listens on the private socket below `runtime`.
    pub(super) fn start(runtime: &Path, state: State) -> Self {
        let directory = runtime.join("mozart");
        std::fs::create_dir_all(&directory).expect("a directory");
        let socket = directory.join("bus");
        let _stale = std::fs::remove_file(&socket);
        let state = Arc::new(Mutex::new(state));
        let changes = broadcast::channel(64).0;
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let (shared, sender) = (state.clone(), changes.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let (ask, mut requests) = mpsc::channel(16);
                let server = Server::new(Conductor::new(ask, sender));
                let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
                ready.send(()).expect("somebody waits");
                let answers = async {
                    while let Some(request) = requests.recv().await {
                        answer(request, &mut shared.lock().expect("the state"));
                    }
                };
                tokio::select! {
                    () = answers => {}
                    () = server.accept(listener) => {}
                    _ = stopped => {}
                }
                std::fs::remove_file(&socket).expect("the socket");
            });
        });
        listening.recv().expect("it listens");
        Self {
            state,
            changes,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    /// Puts a sheet into that state and says so.
    pub(super) fn sheet(&self, number: u32, change: impl FnOnce(&mut SheetSummary)) {
        let mut state = self.state();
        let sheet = state
            .sheets
            .iter_mut()
            .find(|sheet| sheet.sheet_num == number)
            .expect("the sheet");
        change(sheet);
        let sheet = Box::new(sheet.clone());
        let summary = &state.runs[0].summary;
        let _heard = self.changes.send(Change::Sheet {
            job: summary.job.clone(),
            run: summary.run,
            sheet,
        });
    }

    /// Changes the first run and says so.
    pub(super) fn run(&self, change: impl FnOnce(&mut RunSummary)) {
        let mut state = self.state();
        change(&mut state.runs[0].summary);
        let view = state.runs[0].clone();
        let _heard = self.changes.send(Change::Run(Box::new(view)));
    }

    /// Waits until somebody has looked at the run: from then on, they are told what changes.
    pub(super) fn watched(&self) {
        crate::support::wait_until("somebody watches", Duration::from_secs(10), || self.state().looks > 0);
    }

    /// Goes away at once, as after a kill.
    pub(super) fn vanish(mut self) -> State {
        self.end();
        std::mem::take(&mut *self.state())
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the conductor");
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end();
    }
}

/// A run of `total` sheets that does nothing.
pub(super) fn run(job: &str, number: u32, state: RunState, total: u32) -> RunView {
    RunView {
        summary: RunSummary {
            id: RunId(i64::from(number)),
            job: JobName::new(job).expect("a name"),
            run: RunNo(number),
            state,
            reason: String::new(),
            until: None,
            question: None,
            warning: None,
            sheets_total: total,
            sheets_done: 0,
            sheets_failed: 0,
            sheets_running: 0,
            submitted_at: Timestamp::from_seconds(1_795_228_661),
            started_at: Some(Timestamp::from_seconds(1_795_228_662)),
            ended_at: state.is_ended().then(|| Timestamp::from_seconds(1_795_228_762)),
            cost: None,
            tokens_in: 0,
            tokens_out: 0,
            workspace: "/ws".to_owned(),
            plan_hash: "hash".to_owned(),
            job_file: None,
            revision: 1,
        },
        eta: None,
    }
}

/// A sheet of which nothing is known but its state.
pub(super) fn sheet(number: u32, state: SheetStatus, attempts: u32) -> SheetSummary {
    SheetSummary {
        sheet_num: number,
        description: None,
        state,
        reason: String::new(),
        until: None,
        attempts,
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

fn attempt(sheet: u32, number: u32, over: bool) -> AttemptSummary {
    let at = Timestamp::from_seconds(1_795_228_662);
    AttemptSummary {
        sheet_num: sheet,
        attempt: number,
        kind: AttemptKind::First,
        session_id: "session".to_owned(),
        unit: "unit".to_owned(),
        intended_at: at,
        started_at: Some(at),
        invocation: None,
        report: over.then(|| AttemptReport {
            started_at: Some(at),
            ended_at: at,
            certificate: Certificate {
                exit: Exit::Code(0),
                result: "success".to_owned(),
                wall: Some(Span::from_secs(1)),
                cpu: None,
                peak_memory: None,
                stopped_by_us: false,
            },
            session: SessionReport::default(),
            validation: ValidationReport::default(),
            outcome: Outcome {
                failure: None,
                flags: Vec::new(),
                rules_passed: 0,
                rules_total: 0,
                worked: true,
                session_lost: false,
                session_id: None,
                cost: None,
                cost_estimated: false,
                tokens_in: None,
                tokens_out: None,
            },
        }),
    }
}

impl State {
    fn find(&self, selector: &RunSelector) -> Result<&RunView, ApiError> {
        let of_job = |run: &&RunView| run.summary.job.as_str() == selector.job;
        let mut runs = self.runs.iter().filter(of_job).peekable();
        if runs.peek().is_none() {
            return Err(ApiError::NoSuchJob(format!("there is no job `{}`", selector.job)));
        }
        runs.find(|run| selector.run.is_none_or(|number| run.summary.run.0 == number))
            .ok_or_else(|| ApiError::NoSuchRun("there is no such run".to_owned()))
    }

    fn changed(&mut self, verb: &str, selector: &RunSelector) -> Result<(), ApiError> {
        self.find(selector)?;
        self.asked.push(format!("{verb} {}", selector.job));
        Ok(())
    }
}

fn answer(request: Request, state: &mut State) {
    match request {
        Request::Costs(request, reply) => {
            state.costs_asked.push(request);
            drop(reply.send(Ok(state.costs.clone())));
        }
        Request::Submit(submit, reply) => {
            state.submitted.push(*submit);
            let answer = state.submit.clone().unwrap_or(Ok(false));
            let run = &state.runs[0].summary;
            let (job, run) = (run.job.clone(), run.run);
            drop(reply.send(answer.map(|attached| Submitted {
                job,
                run,
                attached,
                problems: Vec::new(),
            })));
        }
        Request::Validate(_, reply) => drop(reply.send(Ok((true, Vec::new())))),
        Request::ListRuns(filter, limit, _, reply) => {
            let rows = state.runs.iter().map(|run| run.summary.clone());
            let rows = rows.filter(|run| filter.states.is_empty() || filter.states.contains(&run.state));
            drop(reply.send(Ok((rows.take(limit as usize).collect(), String::new()))));
        }
        Request::GetRun(selector, reply) => drop(reply.send(state.find(&selector).cloned())),
        Request::Pause(selector, now, reply) => {
            drop(reply.send(state.changed(if now { "pause now" } else { "pause" }, &selector)));
        }
        Request::Retry(selector, from, reply) => {
            drop(reply.send(state.changed(&format!("retry from {from}"), &selector)));
        }
        Request::Modify(selector, submit, reply) => {
            let changed = state.changed(if submit.resume { "modify and resume" } else { "modify" }, &selector);
            state.submitted.push(*submit);
            let answer = match &state.submit {
                Some(Err(error)) => Err(error.clone()),
                Some(Ok(_)) | None => changed.map(|()| state.modified.clone().expect("an answer")),
            };
            drop(reply.send(answer));
        }
        Request::Recover(selector, sheet, dry_run, reply) => {
            let asked = format!("recover {sheet:?} {dry_run}");
            drop(reply.send(state.changed(&asked, &selector).map(|()| state.recovered.clone())));
        }
        Request::Resume(selector, reply) => drop(reply.send(state.changed("resume", &selector))),
        Request::Cancel(selector, reply) => drop(reply.send(state.changed("cancel", &selector))),
        Request::Sheets(selector, first, count, reply) => {
            state.looks += 1;
            let rows = state
                .sheets
                .iter()
                .filter(|sheet| sheet.sheet_num >= first)
                .take(count as usize);
            drop(reply.send(state.find(&selector).map(|_| rows.cloned().collect())));
        }
        Request::Attempts(_, wanted, reply) => {
            let rows = state.attempts.iter().filter(|((sheet, _), _)| *sheet == wanted);
            drop(
                reply.send(Ok(rows
                    .map(|((sheet, number), over)| attempt(*sheet, *number, *over))
                    .collect())),
            );
        }
        Request::OpenOutput(_, sheet, attempt, reply) => {
            let opened = File::open(state.outputs.join(format!("{sheet}-{attempt}")));
            drop(
                reply.send(
                    opened
                        .map(Into::into)
                        .map_err(|error| ApiError::NoSuchSheet(error.to_string())),
                ),
            );
        }
        Request::Answer(id, choice, reply) => {
            let before = state.questions.len();
            state.questions.retain(|question| question.id != id);
            let answer = if state.questions.len() < before {
                state.asked.push(format!("answer {id} {choice}"));
                // What waited for it is over with it.
                for run in &mut state.runs {
                    run.summary.question = None;
                    run.summary.state = RunState::Completed;
                }
                Ok(())
            } else {
                Err(ApiError::NoSuchQuestion(format!("there is no open question {id}")))
            };
            drop(reply.send(answer));
        }
        Request::Questions(reply) => drop(reply.send(Ok(state.questions.clone()))),
        Request::Gates(reply) => drop(reply.send(Ok(state.gates.clone()))),
        Request::ClearGates(account, reply) => {
            state.asked.push(format!("clear {account:?}"));
            drop(reply.send(Ok(())));
        }
        Request::Stop(sessions, reply) => {
            state.asked.push(format!("stop {sessions}"));
            drop(reply.send(Ok(())));
        }
        Request::Reload(reply) => drop(reply.send(Ok(()))),
        Request::Interrupt(_, reply) | Request::Sleep(_, reply) | Request::Uninhibit(_, reply) => {
            drop(reply.send(Ok(())));
        }
        Request::Inhibit(_, reply) => drop(reply.send(Ok(1))),
        Request::Manager(reply) => drop(reply.send(Ok(ManagerView {
            slots: 5,
            running: 1,
            questions: u32::try_from(state.questions.len()).expect("few"),
            ..ManagerView::default()
        }))),
        Request::Recent(reply) => drop(reply.send(Ok(state.runs.clone()))),
    }
}
