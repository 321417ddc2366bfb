//! Rows and options as they travel (`a{sv}`), and back.
//!
//! A row leaves out what is not known. Moments and spans are microseconds, their keys end in `_usec`; a reader
//! ignores keys that it does not know. Nothing here lets a message grow past [`MESSAGE_LIMIT`].

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::str::FromStr;

use zbus::wire::serialized::Context;
use zbus::wire::{LE, serialized_size};
use zbus::{DeserializeDict, OwnedVariant, SerializeDict, Type, Variant};

use super::error::{CallError, Dictionary, Error, Result};
use crate::api::request::{RecoveredSheet, SheetsChange};
use crate::api::view::{GateView, QuestionView};
use crate::model::{
    AttemptKind, AttemptReport, Code, Cost, JobName, Problem, RuleResult, RunId, RunNo, Severity, Span, Timestamp,
};
use crate::summary::{AttemptSummary, CostSummary, RunSummary, SheetSummary};

/// Bytes of rows that one message carries at most; the design allows a message of 1 MB.
pub const MESSAGE_LIMIT: usize = 900_000;

/// Bytes that are kept of one long text (an output's end, a rule's evidence) in a row: the first limit under which
/// the row still leaves room for others.
const TEXT_LIMITS: [usize; 3] = [32 * 1024, 2 * 1024, 128];

/// One run: the row of `ListRuns`.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct RunRow {
    id: i64,
    job: String,
    run: u32,
    state: String,
    reason: String,
    until_usec: Option<u64>,
    question: Option<String>,
    warning: Option<String>,
    sheets_total: u32,
    sheets_done: u32,
    sheets_failed: u32,
    sheets_running: u32,
    submitted_usec: u64,
    started_usec: Option<u64>,
    ended_usec: Option<u64>,
    cost_usd: Option<f64>,
    tokens_in: u64,
    tokens_out: u64,
    workspace: String,
    plan_hash: String,
    job_file: Option<String>,
    revision: u64,
    eta_usec: Option<u64>,
}

impl RunRow {
    /// The row of a run; `eta` is the rest of its time, where that can be told.
    pub fn new(run: &RunSummary, eta: Option<Span>) -> Self {
        Self {
            id: run.id.0,
            job: run.job.to_string(),
            run: run.run.0,
            state: run.state.to_string(),
            reason: run.reason.clone(),
            until_usec: run.until.map(usec),
            question: run.question.clone(),
            warning: run.warning.clone(),
            sheets_total: run.sheets_total,
            sheets_done: run.sheets_done,
            sheets_failed: run.sheets_failed,
            sheets_running: run.sheets_running,
            submitted_usec: usec(run.submitted_at),
            started_usec: run.started_at.map(usec),
            ended_usec: run.ended_at.map(usec),
            cost_usd: run.cost.map(Cost::as_usd),
            tokens_in: run.tokens_in,
            tokens_out: run.tokens_out,
            workspace: run.workspace.clone(),
            plan_hash: run.plan_hash.clone(),
            job_file: run.job_file.clone(),
            revision: run.revision,
            eta_usec: eta.map(span_usec),
        }
    }

    /// Rest of the run's time, where it was told.
    pub fn eta(&self) -> Option<Span> {
        self.eta_usec.map(|eta| Span(signed(eta)))
    }
}

impl TryFrom<RunRow> for RunSummary {
    type Error = CallError;

    fn try_from(row: RunRow) -> std::result::Result<Self, CallError> {
        Ok(Self {
            id: RunId(row.id),
            state: word("state", &row.state)?,
            job: JobName::new(row.job).map_err(|_| unreadable("job"))?,
            run: RunNo(row.run),
            reason: row.reason,
            until: row.until_usec.map(moment),
            question: row.question,
            warning: row.warning,
            sheets_total: row.sheets_total,
            sheets_done: row.sheets_done,
            sheets_failed: row.sheets_failed,
            sheets_running: row.sheets_running,
            submitted_at: moment(row.submitted_usec),
            started_at: row.started_usec.map(moment),
            ended_at: row.ended_usec.map(moment),
            cost: row.cost_usd.map(Cost::from_usd),
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            workspace: row.workspace,
            plan_hash: row.plan_hash,
            job_file: row.job_file,
            revision: row.revision,
        })
    }
}

/// One sheet: the row of `Sheets`, and the details of `SheetChanged` (there without validations).
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct SheetRow {
    sheet: u32,
    description: Option<String>,
    state: String,
    reason: String,
    until_usec: Option<u64>,
    attempts: u32,
    completion_attempts: u32,
    cause: Option<String>,
    code: Option<String>,
    message: Option<String>,
    flags: Vec<String>,
    validations: Option<Vec<RuleRow>>,
    started_usec: Option<u64>,
    ended_usec: Option<u64>,
    cost_usd: Option<f64>,
    tokens_in: u64,
    tokens_out: u64,
}

impl SheetRow {
    /// The row without the rules' results.
    pub fn brief(sheet: &SheetSummary) -> Self {
        Self {
            sheet: sheet.sheet_num,
            description: sheet.description.clone(),
            state: sheet.state.to_string(),
            reason: sheet.reason.clone(),
            until_usec: sheet.until.map(usec),
            attempts: sheet.attempts,
            completion_attempts: sheet.completion_attempts,
            cause: sheet.cause.map(|cause| cause.to_string()),
            code: sheet.code.map(|code| code.to_string()),
            message: sheet.message.as_deref().map(|text| start(text, TEXT_LIMITS[1])),
            flags: sheet.flags.clone(),
            validations: None,
            started_usec: sheet.started_at.map(usec),
            ended_usec: sheet.ended_at.map(usec),
            cost_usd: sheet.cost.map(Cost::as_usd),
            tokens_in: sheet.tokens_in,
            tokens_out: sheet.tokens_out,
        }
    }
}

impl From<&SheetSummary> for SheetRow {
    fn from(sheet: &SheetSummary) -> Self {
        shortest(|limit| {
            let validations = sheet.validations.iter().map(|rule| RuleRow::new(rule, limit)).collect();
            Self {
                validations: Some(validations),
                ..Self::brief(sheet)
            }
        })
    }
}

impl TryFrom<SheetRow> for SheetSummary {
    type Error = CallError;

    fn try_from(row: SheetRow) -> std::result::Result<Self, CallError> {
        Ok(Self {
            sheet_num: row.sheet,
            description: row.description,
            state: word("state", &row.state)?,
            reason: row.reason,
            until: row.until_usec.map(moment),
            attempts: row.attempts,
            completion_attempts: row.completion_attempts,
            cause: row.cause.as_deref().and_then(serde_word),
            code: row.code.as_deref().map(known_code),
            message: row.message,
            flags: row.flags,
            validations: row
                .validations
                .unwrap_or_default()
                .into_iter()
                .map(Into::into)
                .collect(),
            started_at: row.started_usec.map(moment),
            ended_at: row.ended_usec.map(moment),
            cost: row.cost_usd.map(Cost::from_usd),
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
        })
    }
}

/// One rule's result, inside a [`SheetRow`].
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct RuleRow {
    rule: u32,
    kind: String,
    description: String,
    path: Option<String>,
    pattern: Option<String>,
    passed: bool,
    actual: Option<String>,
    expected: Option<String>,
    reason: Option<String>,
    category: Option<String>,
    hint: Option<String>,
    checked_usec: u64,
    took_usec: u64,
    code: Option<String>,
}

impl RuleRow {
    fn new(rule: &RuleResult, limit: usize) -> Self {
        let start = |text: &String| start(text, limit);
        Self {
            rule: rule.rule,
            kind: rule.kind.clone(),
            description: start(&rule.description),
            path: rule.path.clone(),
            pattern: rule.pattern.as_ref().map(start),
            passed: rule.passed,
            actual: rule.actual.as_ref().map(start),
            expected: rule.expected.as_ref().map(start),
            reason: rule.reason.as_ref().map(start),
            category: rule.category.clone(),
            hint: rule.hint.clone(),
            checked_usec: usec(rule.checked_at),
            took_usec: rule.duration_ms.saturating_mul(1000),
            code: rule.code.map(|code| code.to_string()),
        }
    }
}

impl From<RuleRow> for RuleResult {
    fn from(row: RuleRow) -> Self {
        Self {
            rule: row.rule,
            kind: row.kind,
            description: row.description,
            path: row.path,
            pattern: row.pattern,
            passed: row.passed,
            actual: row.actual,
            expected: row.expected,
            reason: row.reason,
            category: row.category,
            hint: row.hint,
            checked_at: moment(row.checked_usec),
            duration_ms: row.took_usec / 1000,
            code: row.code.as_deref().map(known_code),
        }
    }
}

/// One attempt: the row of `Attempts`.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct AttemptRow {
    sheet: u32,
    attempt: u32,
    kind: String,
    session_id: String,
    unit: String,
    intended_usec: u64,
    started_usec: Option<u64>,
    invocation: Option<String>,
    /// The three reports and what follows from them, keys as in `--json`.
    report: Option<Dictionary>,
}

impl From<&AttemptSummary> for AttemptRow {
    fn from(attempt: &AttemptSummary) -> Self {
        shortest(|limit| Self {
            sheet: attempt.sheet_num,
            attempt: attempt.attempt,
            kind: attempt.kind.as_str().to_owned(),
            session_id: attempt.session_id.clone(),
            unit: attempt.unit.clone(),
            intended_usec: usec(attempt.intended_at),
            started_usec: attempt.started_at.map(usec),
            invocation: attempt.invocation.clone(),
            report: attempt
                .report
                .as_ref()
                .and_then(|report| evidence(report.clone(), limit)),
        })
    }
}

/// The report as nested dictionaries, its long texts shortened. None only where it cannot be expressed, which no
/// report is.
fn evidence(mut report: AttemptReport, limit: usize) -> Option<Dictionary> {
    let session = &mut report.session;
    session.result_text = start(&session.result_text, limit);
    for text in [&mut session.stdout_tail, &mut session.stderr_tail] {
        *text = end(text, limit);
    }
    for rule in &mut report.validation.rules {
        for text in [
            &mut rule.actual,
            &mut rule.expected,
            &mut rule.reason,
            &mut rule.pattern,
        ] {
            *text = text.as_deref().map(|text| start(text, limit));
        }
    }
    dictionary(serde_json::to_value(report).ok()?).ok()?
}

impl TryFrom<AttemptRow> for AttemptSummary {
    type Error = CallError;

    fn try_from(row: AttemptRow) -> std::result::Result<Self, CallError> {
        let report = match row.report {
            None => None,
            Some(report) => {
                let json = report.iter().map(|(key, value)| (key.clone(), json(value))).collect();
                Some(serde_json::from_value(serde_json::Value::Object(json)).map_err(|_| unreadable("report"))?)
            }
        };
        Ok(Self {
            sheet_num: row.sheet,
            attempt: row.attempt,
            kind: serde_word(&row.kind).unwrap_or(AttemptKind::Retry),
            session_id: row.session_id,
            unit: row.unit,
            intended_at: moment(row.intended_usec),
            started_at: row.started_usec.map(moment),
            invocation: row.invocation,
            report,
        })
    }
}

/// One open question: the row of `ListQuestions`, and the details of `QuestionAsked`.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct QuestionRow {
    question: String,
    text: String,
    choices: Vec<String>,
    account: Option<String>,
    code: Option<String>,
    runs: Vec<String>,
    runs_waiting: u32,
}

impl From<&QuestionView> for QuestionRow {
    fn from(question: &QuestionView) -> Self {
        Self {
            question: question.id.clone(),
            text: start(&question.text, TEXT_LIMITS[1]),
            choices: question.choices.clone(),
            account: question.account.clone(),
            code: question.code.map(|code| code.to_string()),
            runs: question.runs.clone(),
            runs_waiting: question.runs_waiting,
        }
    }
}

impl From<QuestionRow> for QuestionView {
    fn from(row: QuestionRow) -> Self {
        Self {
            id: row.question,
            text: row.text,
            choices: row.choices,
            account: row.account,
            code: row.code.as_deref().map(known_code),
            runs: row.runs,
            runs_waiting: row.runs_waiting,
        }
    }
}

/// One gate: the row of `ListGates`, and the details of `GateChanged`.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct GateRow {
    account: String,
    kind: String,
    window: Option<String>,
    state: String,
    until_usec: u64,
    places: u32,
    under_way: u32,
    runs_waiting: u32,
}

impl From<&GateView> for GateRow {
    fn from(gate: &GateView) -> Self {
        Self {
            account: gate.account.clone(),
            kind: gate.kind.clone(),
            window: gate.window.clone(),
            state: gate.state.as_str().to_owned(),
            until_usec: usec(gate.until),
            places: gate.places,
            under_way: gate.under_way,
            runs_waiting: gate.runs_waiting,
        }
    }
}

impl TryFrom<GateRow> for GateView {
    type Error = CallError;

    fn try_from(row: GateRow) -> std::result::Result<Self, CallError> {
        Ok(Self {
            account: row.account,
            kind: row.kind,
            window: row.window,
            state: serde_word(&row.state).ok_or_else(|| unreadable("state"))?,
            until: moment(row.until_usec),
            places: row.places,
            under_way: row.under_way,
            runs_waiting: row.runs_waiting,
        })
    }
}

/// What was spent: the row of `GetCosts`.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct CostRow {
    day: Option<String>,
    account: Option<String>,
    job: Option<String>,
    run: Option<u32>,
    model: Option<String>,
    sessions: u32,
    unknown: u32,
    cost_usd: f64,
    estimated_usd: f64,
    tokens_in: u64,
    tokens_out: u64,
}

impl From<&CostSummary> for CostRow {
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

impl From<CostRow> for CostSummary {
    fn from(row: CostRow) -> Self {
        Self {
            day: row.day,
            account: row.account,
            job: row.job,
            run: row.run,
            model: row.model,
            sessions: row.sessions,
            unknown: row.unknown,
            cost: Cost::from_usd(row.cost_usd),
            estimated: Cost::from_usd(row.estimated_usd),
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
        }
    }
}

/// One problem of a job file.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct ProblemRow {
    check_id: String,
    severity: String,
    message: String,
    line: Option<u32>,
    column: Option<u32>,
    context: Option<String>,
    suggestion: Option<String>,
    auto_fixable: bool,
    metadata: HashMap<String, String>,
}

impl From<&Problem> for ProblemRow {
    fn from(problem: &Problem) -> Self {
        let severity = match problem.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Info => "INFO",
        };
        Self {
            check_id: problem.check_id.clone(),
            severity: severity.to_owned(),
            message: start(&problem.message, TEXT_LIMITS[1]),
            line: problem.line,
            column: problem.column,
            context: problem.context.as_deref().map(|text| start(text, TEXT_LIMITS[1])),
            suggestion: problem.suggestion.as_deref().map(|text| start(text, TEXT_LIMITS[1])),
            auto_fixable: problem.auto_fixable,
            metadata: problem.metadata.clone().into_iter().collect(),
        }
    }
}

impl From<ProblemRow> for Problem {
    fn from(row: ProblemRow) -> Self {
        Self {
            check_id: row.check_id,
            severity: match row.severity.as_str() {
                "INFO" => Severity::Info,
                "WARNING" => Severity::Warning,
                _ => Severity::Error,
            },
            message: row.message,
            line: row.line,
            column: row.column,
            context: row.context,
            suggestion: row.suggestion,
            auto_fixable: row.auto_fixable,
            metadata: row.metadata.into_iter().collect(),
        }
    }
}

/// As many of the problems as one message carries, the first ones.
pub fn problem_rows(problems: &[Problem]) -> Vec<ProblemRow> {
    let mut rows = problems.iter().map(ProblemRow::from).collect();
    fit(&mut rows);
    rows
}

/// What another plan means for sheets in a row: a row of `Modify`'s answer.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct ChangeRow {
    first: u32,
    last: u32,
    state: String,
    becomes: String,
}

impl From<&SheetsChange> for ChangeRow {
    fn from(change: &SheetsChange) -> Self {
        Self {
            first: change.first,
            last: change.last,
            state: change.state.to_string(),
            becomes: change.becomes.clone(),
        }
    }
}

impl TryFrom<ChangeRow> for SheetsChange {
    type Error = CallError;

    fn try_from(row: ChangeRow) -> std::result::Result<Self, CallError> {
        Ok(Self {
            first: row.first,
            last: row.last,
            state: word("state", &row.state)?,
            becomes: row.becomes,
        })
    }
}

/// What the rules of a sheet gave without a session: a row of `Recover`'s answer.
#[derive(Debug, Clone, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "a{sv}")]
pub struct RecoveredRow {
    sheet: u32,
    was: String,
    is: String,
    reason: String,
    rules_passed: u32,
    rules_total: u32,
    failed: Vec<String>,
}

impl From<&RecoveredSheet> for RecoveredRow {
    fn from(sheet: &RecoveredSheet) -> Self {
        Self {
            sheet: sheet.sheet,
            was: sheet.was.to_string(),
            is: sheet.is.to_string(),
            reason: start(&sheet.reason, TEXT_LIMITS[1]),
            rules_passed: sheet.rules_passed,
            rules_total: sheet.rules_total,
            failed: sheet.failed.iter().map(|line| start(line, TEXT_LIMITS[1])).collect(),
        }
    }
}

impl TryFrom<RecoveredRow> for RecoveredSheet {
    type Error = CallError;

    fn try_from(row: RecoveredRow) -> std::result::Result<Self, CallError> {
        Ok(Self {
            sheet: row.sheet,
            was: word("was", &row.was)?,
            is: word("is", &row.is)?,
            reason: row.reason,
            rules_passed: row.rules_passed,
            rules_total: row.rules_total,
            failed: row.failed,
        })
    }
}

/// The row under the first text limit that keeps it below a quarter of a message.
fn shortest<T: serde::Serialize + Type>(row: impl Fn(usize) -> T) -> T {
    let [longest, shorter @ ..] = TEXT_LIMITS;
    shorter.into_iter().fold(row(longest), |fitting, limit| {
        if size(&fitting) <= MESSAGE_LIMIT / 4 {
            fitting
        } else {
            row(limit)
        }
    })
}

fn size<T: serde::Serialize + Type>(row: &T) -> usize {
    serialized_size(Context::new(LE, 0), row).map_or(usize::MAX, |size| *size)
}

/// Cuts `rows` to what one message carries; true where nothing was cut.
pub fn fit<T: serde::Serialize + Type>(rows: &mut Vec<T>) -> bool {
    let mut room = MESSAGE_LIMIT;
    let fitting = rows
        .iter()
        .take_while(|row| {
            // A row starts at a multiple of 8, and 8 is the most that alignment adds.
            match room.checked_sub(size(*row).saturating_add(8)) {
                Some(rest) => {
                    room = rest;
                    true
                }
                None => false,
            }
        })
        .count();
    let all = fitting == rows.len();
    rows.truncate(fitting);
    all
}

/// The options of a call that changes something: every key must be one that is asked for.
#[derive(Debug)]
pub struct Options {
    entries: Dictionary,
    known: Vec<&'static str>,
}

impl Options {
    /// The options as they came.
    pub fn new(entries: Dictionary) -> Self {
        Self {
            entries,
            known: Vec::new(),
        }
    }

    /// Takes one option; none where it was not given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where it has another type than `T`.
    pub fn take<T>(&mut self, key: &'static str) -> Result<Option<T>>
    where
        T: TryFrom<OwnedVariant>,
    {
        self.known.push(key);
        let Some(value) = self.entries.remove(key) else {
            return Ok(None);
        };
        let signature = value.value_signature().to_string();
        T::try_from(value).map(Some).map_err(|_| {
            Error::InvalidArgument(format!(
                "option `{key}` has another type than expected (it came as `{signature}`)"
            ))
        })
    }

    /// Takes an option that must be there.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where it is missing or of another type.
    pub fn need<T>(&mut self, key: &'static str) -> Result<T>
    where
        T: TryFrom<OwnedVariant>,
    {
        self.take(key)?
            .ok_or_else(|| Error::InvalidArgument(format!("option `{key}` is missing")))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming an option that nobody took.
    pub fn done(self) -> Result<()> {
        let Some(key) = self.entries.keys().min() else {
            return Ok(());
        };
        let known = match self.known.as_slice() {
            [] => "this call takes none".to_owned(),
            known => format!("known are: {}", known.join(", ")),
        };
        Err(Error::InvalidArgument(format!("unknown option `{key}`; {known}")))
    }
}

/// Builds an `a{sv}` of options or of a filter, leaving out what is not set.
#[derive(Debug, Default)]
pub struct Dictionaries(Dictionary);

impl Dictionaries {
    /// Adds one entry where there is a value.
    #[must_use]
    pub fn with<T>(mut self, key: &str, value: Option<T>) -> Self
    where
        T: Into<Variant<'static>>,
    {
        if let Some(value) = value
            // Fails only for file descriptors, of which none is ever an option.
            && let Ok(value) = value.into().try_into_owned()
        {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    /// The finished dictionary.
    pub fn build(self) -> Dictionary {
        self.0
    }
}

/// Microseconds since the epoch; what is before it counts as the epoch.
pub(super) fn usec(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or(0)
}

/// A span's microseconds; a negative one counts as none.
pub(super) fn span_usec(span: Span) -> u64 {
    u64::try_from(span.0).unwrap_or(0)
}

fn signed(usec: u64) -> i64 {
    i64::try_from(usec).unwrap_or(i64::MAX)
}

fn moment(usec: u64) -> Timestamp {
    Timestamp(signed(usec))
}

fn unreadable(field: impl Display) -> CallError {
    CallError::Unreachable(format!(
        "the conductor's answer cannot be read: `{field}`; is it of another version?"
    ))
}

fn word<T: FromStr>(field: &str, text: &str) -> std::result::Result<T, CallError> {
    text.parse().map_err(|_| unreadable(field))
}

/// A word of an enumeration that has a name in serde only.
fn serde_word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

/// A newer conductor may know more codes.
fn known_code(text: &str) -> Code {
    text.parse().unwrap_or(Code::E999)
}

/// The beginning of a long text.
fn start(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let cut = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..cut])
}

/// The end of a long text.
fn end(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let from = text.len() - limit;
    let cut = (from..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    format!("…{}", &text[cut..])
}

/// A JSON object as `a{sv}`; what is null is left out.
fn dictionary(value: serde_json::Value) -> zbus::Result<Option<Dictionary>> {
    let serde_json::Value::Object(entries) = value else {
        return Ok(None);
    };
    let mut rows = Dictionary::new();
    for (key, value) in entries {
        if let Some(value) = variant(value)? {
            rows.insert(key, value.try_into_owned()?);
        }
    }
    Ok(Some(rows))
}

fn variant(value: serde_json::Value) -> zbus::Result<Option<Variant<'static>>> {
    use serde_json::Value;

    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.into(),
        Value::String(value) => value.into(),
        Value::Number(value) => match (value.as_u64(), value.as_i64(), value.as_f64()) {
            (Some(value), ..) => value.into(),
            (None, Some(value), _) => value.into(),
            (None, None, value) => value.unwrap_or_default().into(),
        },
        Value::Array(items) => {
            let mut array = zbus::Array::new(&zbus::signature!("v"));
            for item in items {
                if let Some(item) = variant(item)? {
                    array.append(Variant::Variant(Box::new(item)))?;
                }
            }
            array.into()
        }
        Value::Object(entries) => {
            let mut dict = zbus::Dict::new(&zbus::signature!("s"), &zbus::signature!("v"));
            for (key, value) in entries {
                if let Some(value) = variant(value)? {
                    dict.append(key.into(), Variant::Variant(Box::new(value)))?;
                }
            }
            dict.into()
        }
    }))
}

/// The way back; what JSON cannot say becomes null.
fn json(value: &Variant<'_>) -> serde_json::Value {
    match value {
        Variant::U8(value) => (*value).into(),
        Variant::Bool(value) => (*value).into(),
        Variant::I16(value) => (*value).into(),
        Variant::U16(value) => (*value).into(),
        Variant::I32(value) => (*value).into(),
        Variant::U32(value) => (*value).into(),
        Variant::I64(value) => (*value).into(),
        Variant::U64(value) => (*value).into(),
        Variant::F64(value) => (*value).into(),
        Variant::Str(value) => value.as_str().into(),
        Variant::Variant(inner) => json(inner),
        Variant::Array(items) => items.iter().map(json).collect(),
        Variant::Dict(entries) => entries
            .iter()
            .filter_map(|(key, value)| match key {
                Variant::Str(key) => Some((key.as_str().to_owned(), json(value))),
                _ => None,
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => serde_json::Value::Null,
    }
}

/// A map of strings as an option carries it.
pub(super) fn strings(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
/// What keeps the conductor from starting anything: why, and until when in microseconds, 0 where nobody knows.
pub(super) type HoldRow = (String, u64);

pub(super) fn hold_rows(holds: Vec<(String, Option<Timestamp>)>) -> Vec<HoldRow> {
    let micros = |until: Timestamp| u64::try_from(until.0).unwrap_or(0);
    let rows = holds.into_iter().map(|(why, until)| (why, until.map_or(0, micros)));
    rows.collect()
}

pub(super) fn holds(rows: Vec<HoldRow>) -> Vec<(String, Option<Timestamp>)> {
    let moment = |micros: u64| i64::try_from(micros).ok().filter(|micros| *micros > 0).map(Timestamp);
    rows.into_iter().map(|(why, until)| (why, moment(until))).collect()
}
