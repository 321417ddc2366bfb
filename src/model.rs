//! Plain values that every room uses: names, numbers, causes, codes, states, reports.
//!
//! Nothing here decides or does anything; nothing here knows another room.

mod pages;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A count with its noun: `1 sheet`, `2 sheets`, `2 retries`. Every number that is told goes through it.
pub fn count<N: fmt::Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    match noun.strip_suffix("ry") {
        _ if number == N::from(1) => format!("1 {noun}"),
        Some(stem) => format!("{number} {stem}ries"),
        None => format!("{number} {noun}s"),
    }
}

pub use pages::Page;

/// A moment of wall-clock time, in microseconds since the Unix epoch (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus `span`; saturates.
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this moment; negative where `earlier` is later.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// From whole seconds since the epoch; saturates.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// RFC 3339 in UTC with whole seconds, such as `2026-11-21T09:00:00Z`; the raw number where it is out of range.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            Err(_) => self.0.to_string(),
        }
    }
}

/// A length of time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub i64);

impl Span {
    /// From seconds; fractions are kept to the microsecond, what is out of range saturates.
    pub fn from_secs_f64(seconds: f64) -> Self {
        // `as` saturates for floats, and NaN becomes 0.
        Self((seconds * 1e6).round() as i64)
    }

    /// From whole seconds; saturates.
    pub fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// As a [`std::time::Duration`]; zero where it is negative.
    pub fn to_duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }
}

/// The two clocks that the engine is told: wall time, and time since boot counting suspend
/// (`CLOCK_BOOTTIME`), both in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// Microseconds since boot, suspended time included; never steps.
    pub boot: i64,
}

/// A job's id: its `name` in the job file; 1 to 128 bytes, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobName(String);

impl JobName {
    /// Checks length and characters. The error says what is wrong, as a sentence fragment.
    pub fn new(name: impl Into<String>) -> Result<Self, &'static str> {
        let name = name.into();
        if name.trim().is_empty() {
            Err("is empty")
        } else if name.len() > 128 {
            Err("is longer than 128 bytes")
        } else if name.chars().any(char::is_control) {
            Err("holds a control character")
        } else {
            Ok(Self(name))
        }
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The ledger's own number of a run, over all jobs, never reused; from 1.
    RunId(i64)
);
number!(
    /// A run's number within its job, from 1: `review#3`.
    RunNo(u32)
);
number!(
    /// A sheet's number within its run, from 1.
    SheetNo(u32)
);
number!(
    /// An attempt's number within its sheet, from 1 through all generations.
    AttemptNo(u32)
);
number!(
    /// A sheet's generation, from 1: only a person's resume, retry, recover or modify opens the next.
    Generation(u32)
);

impl Generation {
    /// The one that a person opens next.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Which attempt of which sheet of which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The run.
    pub run: RunId,
    /// The sheet of that run.
    pub sheet: SheetNo,
    /// The attempt at that sheet.
    pub attempt: AttemptNo,
}

impl fmt::Display for AttemptRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.run, self.sheet, self.attempt)
    }
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptKind {
    /// The sheet's first attempt of a generation.
    First,
    /// A full retry in a new session, told what failed.
    Retry,
    /// Resumes the same session with only what is missing.
    Completion,
    /// The one attempt that finds out whether a closed gate is open again.
    Probe,
    /// Resumes an interrupted session with a short "go on".
    Continuation,
}

impl AttemptKind {
    /// The word used in JSON, on the bus and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Completion => "completion",
            Self::Probe => "probe",
            Self::Continuation => "continuation",
        }
    }
}

/// What a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The sheet's prompt (with lessons, where there are any).
    Task,
    /// The sheet's prompt and what exists already (its earlier session is lost).
    TaskAgain,
    /// Only what is missing.
    Completion,
    /// A short "go on".
    GoOn,
}

/// Why an attempt did not succeed; each cause has a budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A usage limit or throttling.
    RateLimit,
    /// A fault that is expected to pass: overload, lost connection, a killed process.
    Transient,
    /// The session ended well, a rule failed (or a `command` session exited non-zero).
    Validation,
    /// Nothing that trying again could mend.
    Fatal,
    /// Stopped by Mozart or the system, and recorded so.
    Interrupted,
}

impl Cause {
    /// The word used in JSON, on the bus and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Transient => "transient",
            Self::Validation => "validation",
            Self::Fatal => "fatal",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($($code:ident = $meaning:literal),* $(,)?) => {
        /// What exactly went wrong with an attempt: the stable codes of the job-file reference.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code { $(#[doc = $meaning] $code),* }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The code as written, such as `E201`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),* }
            }

            /// What the code means, as a short phrase.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning),* }
            }
        }

        impl FromStr for Code {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $(stringify!($code) => Ok(Self::$code),)* _ => Err(()) }
            }
        }
    };
}

codes! {
    E001 = "timeout", E002 = "killed by a signal", E003 = "crashed", E004 = "interrupted",
    E005 = "out of memory", E006 = "hung", E009 = "unknown exit",
    E101 = "API rate limit", E102 = "CLI rate limit", E103 = "overloaded", E104 = "usage limit",
    E105 = "spending limit",
    E201 = "file missing", E202 = "content does not match", E203 = "check command failed",
    E204 = "check timed out", E205 = "empty result", E206 = "tools denied",
    E207 = "says it did not finish", E209 = "validation failed",
    E301 = "invalid configuration", E302 = "field missing", E303 = "bad path", E304 = "cannot be parsed",
    E305 = "MCP configuration", E306 = "wrong CLI usage",
    E401 = "state corrupt", E402 = "state cannot be loaded", E403 = "state cannot be saved",
    E404 = "state of another version",
    E501 = "connection failed", E502 = "authentication failed", E503 = "bad response",
    E504 = "backend timeout", E505 = "program not found", E506 = "billing", E507 = "model unknown",
    E508 = "refused by the model", E509 = "answer or context too long", E510 = "turn limit reached",
    E601 = "path missing", E602 = "prompt too large", E603 = "working directory", E604 = "validation setup",
    E701 = "budget of the sheet", E702 = "budget of the job", E703 = "budget of the day",
    E801 = "storage full", E802 = "blocked by a failed sheet", E803 = "run time over",
    E901 = "network", E902 = "DNS", E903 = "TLS", E904 = "network timeout",
    E999 = "unknown",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State of a run, as every view says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted; no slot yet.
    Queued,
    /// A sheet runs or could start now.
    Running,
    /// Something outside holds every sheet: a limit, a backoff, storage.
    Waiting,
    /// A person asked, or the embedded conductor was stopped.
    Paused,
    /// Every sheet completed or skipped.
    Completed,
    /// A sheet failed.
    Failed,
    /// A person cancelled it.
    Cancelled,
}

impl RunState {
    /// The word used in JSON, on the bus and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run has ended (only a person's resume moves it again).
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl FromStr for RunState {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Queued,
            Self::Running,
            Self::Waiting,
            Self::Paused,
            Self::Completed,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(())
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State of a sheet, as every view says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SheetStatus {
    /// Not started in this generation.
    Pending,
    /// An attempt is under way.
    Running,
    /// Between attempts: a backoff, a limit.
    Waiting,
    /// Every rule passed.
    Completed,
    /// Ended for good in this generation.
    Failed,
    /// Not to be run; satisfies its dependents.
    Skipped,
    /// The run was cancelled.
    Cancelled,
}

impl SheetStatus {
    /// The word used in JSON, on the bus and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// The word of the Python version, which checkpoints and expressions use.
    pub fn python_word(self) -> &'static str {
        match self {
            Self::Running | Self::Waiting => "in_progress",
            Self::Cancelled => "pending",
            Self::Pending | Self::Completed | Self::Failed | Self::Skipped => self.as_str(),
        }
    }
}

impl FromStr for SheetStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [
            Self::Pending,
            Self::Running,
            Self::Waiting,
            Self::Completed,
            Self::Failed,
            Self::Skipped,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(())
    }
}

impl fmt::Display for SheetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose limit and money an attempt uses: backend, base URL and a digest of where the credential comes from.
/// `None` in its places means "no account" (the `command` backend).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(pub String);

/// An amount of money in micro-dollars; unknown is `None` where this stands in an `Option`, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(pub i64);

impl Cost {
    /// From dollars, rounded to the micro-dollar.
    pub fn from_usd(usd: f64) -> Self {
        Self((usd * 1e6).round() as i64)
    }

    /// In dollars.
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// How systemd (or the supervisor) says that a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how", content = "value")]
pub enum Exit {
    /// It exited with this status, 0–255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is over, but how is not known (power cut, record lost).
    Unknown,
}

impl Exit {
    /// The exit status, where it exited.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) | Self::Unknown => None,
        }
    }
}

/// The death certificate of an attempt: how its process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Exit status or signal.
    pub exit: Exit,
    /// systemd's `Result`: `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, `start-failed`, `hung`, …;
    /// `lost` where no record was left.
    pub result: String,
    /// Wall time from start to end, where known.
    pub wall: Option<Span>,
    /// CPU time of the whole tree, where known.
    pub cpu: Option<Span>,
    /// Peak memory of the whole tree in bytes, where the system tells.
    pub peak_memory: Option<u64>,
    /// Mozart asked for this end (cancel, pause --now, shutdown).
    pub stopped_by_us: bool,
}

/// Which limit an account ran into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Usage limit (hours, days, money) or plain throttling (seconds).
    pub kind: LimitKind,
    /// `five_hour`, `seven_day`, `seven_day_opus`, … where the session named it.
    pub window: Option<String>,
    /// When it is over, where known.
    pub resets_at: Option<Timestamp>,
    /// The time was read from text, exact to the minute only, and may be clamped.
    pub from_text: bool,
    /// `retry-after` of a throttling, where known.
    pub retry_after: Option<Span>,
}

/// The two kinds of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// A quota of hours, days or money: wait until the reset.
    Usage,
    /// A plain 429: back off for seconds.
    Throttle,
}

/// What the session said of itself, as far as its output tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// There was a result object (or, for `command`, an exit).
    pub has_result: bool,
    /// The result says it is an error.
    pub is_error: bool,
    /// `subtype` of the result, where there is one.
    pub subtype: Option<String>,
    /// `terminal_reason` of the result, where there is one.
    pub terminal_reason: Option<String>,
    /// The final text; for `command` the standard output's end. At most 64 KiB are kept.
    pub result_text: String,
    /// What an error subtype says instead of a text (`Reached maximum number of turns (2)`).
    #[serde(default)]
    pub errors: Vec<String>,
    /// `stop_reason` of the result, where there is one (`end_turn`, `refusal`, …).
    #[serde(default)]
    pub stop_reason: Option<String>,
    /// The class that the session itself gave its error (`authentication_failed`, `overloaded`, …).
    pub error_class: Option<String>,
    /// `api_error` beside it (`usage_limit_reached`, `connection_failed`, …).
    pub api_error: Option<String>,
    /// HTTP status of the API error, where told.
    pub api_status: Option<u16>,
    /// The limit that ended it, where the session reported one.
    pub limit: Option<Limit>,
    /// Turns of the session.
    pub turns: Option<u32>,
    /// Tool calls seen in the stream.
    pub tool_calls: u32,
    /// Names of tools that were denied.
    pub denied_tools: Vec<String>,
    /// The session answered something of its own (an assistant message that is not synthetic).
    pub worked: bool,
    /// The id under which the session can be resumed.
    pub session_id: Option<String>,
    /// The model that worked.
    pub model: Option<String>,
    /// The program's own version, where it tells.
    pub program_version: Option<String>,
    /// What this process said it cost in all; cumulative over a resumed session where the CLI counts so.
    pub total_cost: Option<Cost>,
    /// Cost of this attempt alone (the difference to the session's earlier total where that is cumulative).
    pub cost: Option<Cost>,
    /// It did not say so itself: that is what its tokens cost by their price.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cost_estimated: bool,
    /// Input tokens, cached ones included, where told.
    pub tokens_in: Option<u64>,
    /// Output tokens, where told.
    pub tokens_out: Option<u64>,
    /// End of the standard error, at most `max_output_capture_bytes`, secrets redacted.
    pub stderr_tail: String,
    /// End of the standard output, the same.
    pub stdout_tail: String,
}

/// Result of one validation rule, with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleResult {
    /// Index of the rule in the job file, from 0.
    pub rule: u32,
    /// `file_exists`, `content_regex`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The rule's description, or one made from it.
    pub description: String,
    /// Expanded path, for file and content rules.
    pub path: Option<String>,
    /// Expanded pattern or command.
    pub pattern: Option<String>,
    /// Whether the rule holds. A rule that was skipped (an earlier stage failed) does not pass.
    pub passed: bool,
    /// What was found.
    pub actual: Option<String>,
    /// What should have been.
    pub expected: Option<String>,
    /// Why it failed, one sentence.
    pub reason: Option<String>,
    /// Kind of failure: `missing`, `stale`, `incomplete`, `malformed`, `error`, `skipped`.
    pub category: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// When it was checked.
    pub checked_at: Timestamp,
    /// How long the check took, in milliseconds.
    pub duration_ms: u64,
    /// Code of its failure (E201, E202, …).
    pub code: Option<Code>,
}

/// Results of all rules that apply to a sheet (rules whose condition is false are left out).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidationReport {
    /// One for each rule, in the file's order.
    pub rules: Vec<RuleResult>,
}

impl ValidationReport {
    /// How many rules passed.
    pub fn passed(&self) -> u32 {
        self.rules.iter().filter(|rule| rule.passed).count() as u32
    }

    /// How many rules there are.
    pub fn total(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Whether every rule passed (true also when there is none).
    pub fn all_passed(&self) -> bool {
        self.rules.iter().all(|rule| rule.passed)
    }
}

/// What became of an attempt: the classifier's word, from the three reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `None`: it succeeded.
    pub failure: Option<Failure>,
    /// Suspicious marks that are always shown: `denied tools: Bash`, `empty result`, `exit 1`, …
    pub flags: Vec<String>,
    /// Rules passed, of how many.
    pub rules_passed: u32,
    /// Rules that applied.
    pub rules_total: u32,
    /// The session did work of its own, so resuming it is worth more than starting anew.
    pub worked: bool,
    /// The id under which the session can be resumed, where it can.
    pub session_id: Option<String>,
    /// The session that was to be resumed does not exist: start anew and tell what exists.
    #[serde(default)]
    pub session_lost: bool,
    /// Exit status of its process, where it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why no session was started, where the sheet turned out not to be needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Cost of this attempt, where known.
    pub cost: Option<Cost>,
    /// It is not what the session said, but what its tokens cost by their price.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cost_estimated: bool,
    /// Input tokens of this attempt, where known.
    pub tokens_in: Option<u64>,
    /// Output tokens of this attempt, where known.
    pub tokens_out: Option<u64>,
}

/// Why an attempt did not succeed, precisely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Which budget it uses.
    pub cause: Cause,
    /// The stable code.
    pub code: Code,
    /// One sentence for a person; no secrets.
    pub message: String,
    /// What to do about it, where Mozart knows.
    pub hint: Option<String>,
    /// For `rate_limit`: which limit.
    pub limit: Option<Limit>,
}

/// Everything that is known of an ended attempt. The runner makes it, the engine decides from `outcome`,
/// the ledger keeps the rest as evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// When the process started, where known.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Timestamp,
    /// First verdict: how the process ended.
    pub certificate: Certificate,
    /// Second verdict: what the session reported.
    pub session: SessionReport,
    /// Third verdict: what Mozart's own validation found.
    pub validation: ValidationReport,
    /// What follows from the three.
    pub outcome: Outcome,
}

/// How urgently a running attempt is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopHow {
    /// TERM, grace, KILL.
    Terminate,
    /// KILL at once.
    Kill,
}

/// A finished problem of a job file: the JSON shape `ValidationIssue` of the reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `V001`, … ; schema errors carry the `E3xx` codes.
    pub check_id: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong, one sentence.
    pub message: String,
    /// Line in the file, from 1, where known.
    pub line: Option<u32>,
    /// Column in the line, from 1, where known.
    pub column: Option<u32>,
    /// The field's path, such as `validations[2].pattern`, or the text around it.
    pub context: Option<String>,
    /// What to do.
    pub suggestion: Option<String>,
    /// `validate --fix` could mend it.
    pub auto_fixable: bool,
    /// More facts by name: `field`, `sheet`, …
    #[serde(default)]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// How bad a problem is. Only errors make a job file invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// The job cannot run.
    Error,
    /// The job runs, perhaps not as meant.
    Warning,
    /// Worth knowing.
    Info,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc3339() {
        assert_eq!(
            Timestamp::from_seconds(1_795_228_661).to_rfc3339(),
            "2026-11-21T02:37:41Z"
        );
    }

    #[test]
    fn codes_round_trip() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert!("E000".parse::<Code>().is_err());
    }

    #[test]
    fn job_names_are_bounded() {
        assert!(JobName::new("a b/ü").is_ok());
        assert_eq!(JobName::new(""), Err("is empty"));
        assert!(JobName::new("x".repeat(129)).is_err());
        assert!(JobName::new("a\nb").is_err());
    }
}
