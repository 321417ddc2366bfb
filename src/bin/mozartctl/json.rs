//! The JSON that `--json` prints. These shapes are a promise to scripts: keys are only ever added.
//!
//! Times are RFC 3339 in UTC, lengths are seconds, money is US dollars; what is not known is `null`.

use mozart::api::request::{Modified, RecoveredSheet};
use mozart::api::view::{GateView, QuestionView, RunView};
use mozart::model::{Cost, Problem, RuleResult, Timestamp};
use mozart::summary::{CostSummary, RunSummary, SheetSummary};
use serde::Serialize;

use crate::error::CliError;

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(Timestamp::to_rfc3339)
}

/// A run, without its sheets: an item of `list` and of `status`.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// The job's name.
    id: String,
    /// Number of the run within the job.
    run: u32,
    /// `queued`, `running`, `waiting`, `paused`, `completed`, `failed` or `cancelled`.
    state: &'static str,
    /// Why it is in that state; empty where the state says all.
    reason: String,
    /// When that reason ends by itself.
    until: Option<String>,
    /// Id of the question that it waits for.
    question: Option<String>,
    /// Which of its budgets are nearly used up, in words.
    warning: Option<String>,
    /// Absolute path of the workspace.
    workspace: String,
    /// Path of the job file, where it came from one.
    job_file: Option<String>,
    sheets_total: u32,
    /// Completed or skipped.
    sheets_done: u32,
    sheets_failed: u32,
    sheets_running: u32,
    submitted_at: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    cost_usd: Option<f64>,
    tokens_in: u64,
    tokens_out: u64,
}

impl From<&RunSummary> for Run {
    fn from(run: &RunSummary) -> Self {
        Self {
            id: run.job.to_string(),
            run: run.run.0,
            state: run.state.as_str(),
            reason: run.reason.clone(),
            until: time(run.until),
            question: run.question.clone(),
            warning: run.warning.clone(),
            workspace: run.workspace.clone(),
            job_file: run.job_file.clone(),
            sheets_total: run.sheets_total,
            sheets_done: run.sheets_done,
            sheets_failed: run.sheets_failed,
            sheets_running: run.sheets_running,
            submitted_at: time(Some(run.submitted_at)),
            started_at: time(run.started_at),
            ended_at: time(run.ended_at),
            cost_usd: run.cost.map(Cost::as_usd),
            tokens_in: run.tokens_in,
            tokens_out: run.tokens_out,
        }
    }
}

/// What another plan means for a run: `modify`.
#[derive(Debug, Serialize)]
pub(crate) struct Changed<'a> {
    id: &'a str,
    run: u32,
    /// The run's state now.
    state: &'static str,
    /// Whether the plan is another one than before.
    changed: bool,
    /// The parts of the job file that differ; `text`: only comments or the like.
    parts: &'a [String],
    sheets: Vec<SheetsChange<'a>>,
    problems: &'a [Problem],
}

/// Sheets in a row for which another plan means the same.
#[derive(Debug, Serialize)]
struct SheetsChange<'a> {
    first: u32,
    last: u32,
    /// What they were.
    state: &'static str,
    /// `kept`, `next_attempt`, `new_plan`, `reopened`, `added` or `dropped`.
    becomes: &'a str,
}

impl<'a> Changed<'a> {
    /// From what the conductor tells.
    pub(crate) fn new(run: &'a RunSummary, modified: &'a Modified) -> Self {
        let sheets = modified.sheets.iter().map(|change| SheetsChange {
            first: change.first,
            last: change.last,
            state: change.state.as_str(),
            becomes: &change.becomes,
        });
        Self {
            id: run.job.as_str(),
            run: run.run.0,
            state: run.state.as_str(),
            changed: !modified.parts.is_empty(),
            parts: &modified.parts,
            sheets: sheets.collect(),
            problems: &modified.problems,
        }
    }
}

/// What the rules of sheets gave: `recover`.
#[derive(Debug, Serialize)]
pub(crate) struct Recovered<'a> {
    id: &'a str,
    run: u32,
    /// The run's state now.
    state: &'static str,
    /// Nothing was changed.
    dry_run: bool,
    sheets: Vec<Examined<'a>>,
}

/// A sheet that was not completed.
#[derive(Debug, Serialize)]
struct Examined<'a> {
    sheet_num: u32,
    was: &'static str,
    /// `completed`, or what it was; with `dry_run` what it would be.
    is: &'static str,
    /// Why it is not completed; empty where it is.
    reason: &'a str,
    rules_passed: u32,
    rules_total: u32,
    /// A line for each rule that does not hold.
    failed: &'a [String],
}

impl<'a> Recovered<'a> {
    /// From what the conductor tells.
    pub(crate) fn new(run: &'a RunSummary, dry_run: bool, sheets: &'a [RecoveredSheet]) -> Self {
        let sheets = sheets.iter().map(|sheet| Examined {
            sheet_num: sheet.sheet,
            was: sheet.was.as_str(),
            is: sheet.is.as_str(),
            reason: &sheet.reason,
            rules_passed: sheet.rules_passed,
            rules_total: sheet.rules_total,
            failed: &sheet.failed,
        });
        Self {
            id: run.job.as_str(),
            run: run.run.0,
            state: run.state.as_str(),
            dry_run,
            sheets: sheets.collect(),
        }
    }
}

/// A run with its sheets: `status JOB`, and the end of `run`, `resume` and `wait`.
#[derive(Debug, Serialize)]
pub(crate) struct RunDetail {
    #[serde(flatten)]
    run: Run,
    /// Rest of its time, once it can be believed.
    eta_seconds: Option<f64>,
    sheets: Vec<Sheet>,
}

impl RunDetail {
    /// From what the conductor tells.
    pub(crate) fn new(view: &RunView, sheets: &[SheetSummary]) -> Self {
        Self {
            run: Run::from(&view.summary),
            eta_seconds: view.eta.map(mozart::model::Span::as_secs_f64),
            sheets: sheets.iter().map(Sheet::from).collect(),
        }
    }
}

/// A sheet of a run.
#[derive(Debug, Serialize)]
struct Sheet {
    sheet_num: u32,
    /// `pending`, `running`, `waiting`, `completed`, `failed`, `skipped` or `cancelled`.
    state: &'static str,
    description: Option<String>,
    reason: String,
    until: Option<String>,
    /// How many so far.
    attempts: u32,
    /// Completion attempts among them.
    completion_attempts: u32,
    /// Of the last failure; `null` once completed.
    cause: Option<&'static str>,
    /// Its code, such as `E201`; `null` once completed.
    code: Option<&'static str>,
    /// It in one sentence; `null` once completed.
    message: Option<String>,
    /// Suspicious marks of the last attempt.
    flags: Vec<String>,
    validations: Vec<Rule>,
    started_at: Option<String>,
    ended_at: Option<String>,
    cost_usd: Option<f64>,
    tokens_in: u64,
    tokens_out: u64,
}

impl From<&SheetSummary> for Sheet {
    fn from(sheet: &SheetSummary) -> Self {
        let failed = sheet.state != mozart::model::SheetStatus::Completed;
        Self {
            sheet_num: sheet.sheet_num,
            state: sheet.state.as_str(),
            description: sheet.description.clone(),
            reason: sheet.reason.clone(),
            until: time(sheet.until),
            attempts: sheet.attempts,
            completion_attempts: sheet.completion_attempts,
            cause: sheet.cause.filter(|_| failed).map(mozart::model::Cause::as_str),
            code: sheet.code.filter(|_| failed).map(mozart::model::Code::as_str),
            message: sheet.message.clone().filter(|_| failed),
            flags: sheet.flags.clone(),
            validations: sheet.validations.iter().map(Rule::from).collect(),
            started_at: time(sheet.started_at),
            ended_at: time(sheet.ended_at),
            cost_usd: sheet.cost.map(Cost::as_usd),
            tokens_in: sheet.tokens_in,
            tokens_out: sheet.tokens_out,
        }
    }
}

/// What a validation rule found.
#[derive(Debug, Serialize)]
struct Rule {
    /// Index in the job file, from 0.
    rule: u32,
    #[serde(rename = "type")]
    kind: String,
    description: String,
    path: Option<String>,
    pattern: Option<String>,
    passed: bool,
    actual: Option<String>,
    expected: Option<String>,
    reason: Option<String>,
    /// `missing`, `stale`, `incomplete`, `malformed`, `error` or `skipped`.
    category: Option<String>,
    hint: Option<String>,
    code: Option<&'static str>,
    checked_at: Option<String>,
    duration_ms: u64,
}

impl From<&RuleResult> for Rule {
    fn from(rule: &RuleResult) -> Self {
        Self {
            rule: rule.rule,
            kind: rule.kind.clone(),
            description: rule.description.clone(),
            path: rule.path.clone(),
            pattern: rule.pattern.clone(),
            passed: rule.passed,
            actual: rule.actual.clone(),
            expected: rule.expected.clone(),
            reason: rule.reason.clone(),
            category: rule.category.clone(),
            hint: rule.hint.clone(),
            code: rule.code.map(mozart::model::Code::as_str),
            checked_at: time(Some(rule.checked_at)),
            duration_ms: rule.duration_ms,
        }
    }
}

/// Answer of verbs that only ask for something: `pause`, `cancel`, `run --detach`, `resume --detach`.
#[derive(Debug, Serialize)]
pub(crate) struct Accepted<'a> {
    /// The job's name.
    pub(crate) id: &'a str,
    /// Number of the run within the job.
    pub(crate) run: u32,
    /// Its state afterwards.
    pub(crate) state: &'static str,
    /// A live run of the same plan was there already: this is it.
    pub(crate) attached: bool,
    /// Warnings about the job file.
    pub(crate) problems: &'a [Problem],
}

/// An open question: an item of `status`, and of `{"questions": [...]}`, which `answer` prints without arguments.
#[derive(Debug, Serialize)]
pub(crate) struct Question {
    id: String,
    /// What happened.
    text: String,
    /// The words that answer it: of `retry`, `wait`, `continue` and `stop`.
    choices: Vec<String>,
    /// Whose login, money or limit it is about.
    account: Option<String>,
    /// Code of the failure, where it is about login or money.
    code: Option<&'static str>,
    /// The first of the runs that wait for the answer, as `JOB#RUN`.
    runs: Vec<String>,
    /// How many wait for it.
    runs_waiting: u32,
}

impl From<&QuestionView> for Question {
    fn from(question: &QuestionView) -> Self {
        Self {
            id: question.id.clone(),
            text: question.text.clone(),
            choices: question.choices.clone(),
            account: question.account.clone(),
            code: question.code.map(mozart::model::Code::as_str),
            runs: question.runs.clone(),
            runs_waiting: question.runs_waiting,
        }
    }
}

/// `answer` without arguments.
#[derive(Debug, Serialize)]
pub(crate) struct Questions {
    /// All that are open.
    pub(crate) questions: Vec<Question>,
}

/// `answer QUESTION CHOICE`.
#[derive(Debug, Serialize)]
pub(crate) struct Answered<'a> {
    /// Its id.
    pub(crate) question: &'a str,
    /// The answer that was given.
    pub(crate) choice: &'a str,
    /// The first of the runs that waited for it, as `JOB#RUN`.
    pub(crate) runs: &'a [String],
}

/// A limit that keeps sessions from starting: an item of `{"gates": [...]}`, which `rate-limits` prints, and of
/// `{"cleared": [...]}`, which `clear-rate-limits` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Gate {
    /// Whose: backend, host, and a digest of where the credential comes from.
    account: String,
    /// `usage`, `throttle`, or `faults` (too many in a row: the circuit breaker).
    kind: String,
    /// Window or model family, where the limit names one, such as `five_hour`.
    window: Option<String>,
    /// `closed`: nothing starts before `until`; `opening`: so many sessions as there are `places`.
    state: &'static str,
    until: Option<String>,
    /// Sessions that may be under way at once after `until`.
    places: u32,
    /// Sessions that are.
    under_way: u32,
    /// Runs that wait behind it.
    runs_waiting: u32,
}

impl From<&GateView> for Gate {
    fn from(gate: &GateView) -> Self {
        Self {
            account: gate.account.clone(),
            kind: gate.kind.clone(),
            window: gate.window.clone(),
            state: gate.state.as_str(),
            until: time(Some(gate.until)),
            places: gate.places,
            under_way: gate.under_way,
            runs_waiting: gate.runs_waiting,
        }
    }
}

/// `rate-limits`.
#[derive(Debug, Serialize)]
pub(crate) struct RateLimits {
    /// All that are not open.
    pub(crate) gates: Vec<Gate>,
}

/// `clear-rate-limits`.
#[derive(Debug, Serialize)]
pub(crate) struct Cleared {
    /// Those that were not open, as they stood.
    pub(crate) cleared: Vec<Gate>,
}

/// Answer of `conductor-status`, `start`, `stop` and `restart`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ConductorState {
    /// Whether one runs.
    pub(crate) running: bool,
    /// `service` or `private` (a conductor that listens on the private socket only).
    pub(crate) kind: Option<&'static str>,
    pub(crate) version: Option<String>,
    /// The process, where it is known.
    pub(crate) pid: Option<u32>,
    /// Runs that may run at once.
    pub(crate) slots: Option<u32>,
    pub(crate) runs_running: Option<u32>,
    pub(crate) runs_queued: Option<u32>,
    pub(crate) runs_waiting: Option<u32>,
    /// Questions that are open; `answer` shows them.
    pub(crate) questions: Option<u32>,
    /// What is wrong with the storage; empty while it works.
    pub(crate) storage: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorDocument<'a> {
    error: ErrorBody<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    /// Such as `no_such_job`.
    kind: &'static str,
    /// The exit code.
    exit_code: u8,
    message: &'a str,
    hints: &'a [String],
    problems: &'a [Problem],
}

/// An error: `{"error": {"kind", "exit_code", "message", "hints", "problems"}}`.
pub(crate) fn error(error: &CliError) -> impl Serialize + '_ {
    ErrorDocument {
        error: ErrorBody {
            kind: error.kind.word(),
            exit_code: error.kind.exit_code().number(),
            message: &error.message,
            hints: &error.hints,
            problems: &error.problems,
        },
    }
}

/// `costs`: `{"costs": [...], "total": {...}}`.
#[derive(Debug, Serialize)]
pub(crate) struct Costs {
    pub(crate) costs: Vec<CostLine>,
    pub(crate) total: CostLine,
}

/// What was spent; a key by which nothing was added up, or that nobody knows, is `null`.
#[derive(Debug, Serialize)]
pub(crate) struct CostLine {
    /// On which the sessions ended, such as `2026-11-21`.
    day: Option<String>,
    account: Option<String>,
    job: Option<String>,
    run: Option<u32>,
    model: Option<String>,
    /// Sessions that did anything.
    sessions: u32,
    /// Those of them of which nobody knows what they have cost.
    unknown: u32,
    /// What the others have cost.
    cost_usd: f64,
    /// How much of it was worked out from the price of tokens.
    estimated_usd: f64,
    tokens_in: u64,
    tokens_out: u64,
}

impl From<&CostSummary> for CostLine {
    fn from(cost: &CostSummary) -> Self {
        Self {
            day: cost.day.clone(),
            account: cost.account.clone(),
            job: cost.job.clone(),
            run: cost.run,
            model: cost.model.clone(),
            sessions: cost.sessions,
            unknown: cost.unknown,
            cost_usd: cost.cost.as_usd(),
            estimated_usd: cost.estimated.as_usd(),
            tokens_in: cost.tokens_in,
            tokens_out: cost.tokens_out,
        }
    }
}
