//! The plan: a job file as meant. Defaults are filled in, paths are absolute, texts of every file that the
//! job names are read; stored whole in the ledger, so that a later edit of a file changes nothing.
//!
//! Lowering (`lower.rs`) makes it; nothing else builds one from a person's input.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value::Value;
use crate::model::{AccountId, Cost, JobName, SheetNo, Span};

/// Version of this shape, stored with every plan; an older one is read for ever.
pub const PLAN_VERSION: u16 = 1;

/// A job as meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the code that made it.
    pub version: u16,
    /// The job's id.
    pub name: JobName,
    /// What the person wrote of it.
    pub description: Option<String>,
    /// Absolute path of the workspace.
    pub workspace: String,
    /// Absolute directory that relative paths of the job file are relative to.
    pub base_directory: String,
    /// The job file as written, for `config_snapshot` and comparison.
    pub source: String,
    /// SHA-256 of everything that decides what is run (source, read files, `set`), hexadecimal.
    pub hash: String,
    /// What a session is.
    pub backend: Backend,
    /// One for each sheet, in order; `sheets[i].number == i + 1`.
    pub sheets: Vec<Sheet>,
    /// What is sent.
    pub prompt: Prompt,
    /// Retry budgets and delays.
    pub retry: RetryPolicy,
    /// Limits: patterns, waits.
    pub rate_limit: RateLimitPolicy,
    /// A session that prints nothing for so long is taken for hanging and ended; `None`: it may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// The same for its first output, where that is another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_event_timeout: Option<Span>,
    /// What a limit does to the run.
    pub on_limit: OnLimit,
    /// Which sheets wait for which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Several sheets at once; `None`: in order, one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    /// When its account's sessions are given a rest after faults; `None`: never.
    #[serde(default)]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// What it may cost; `None`: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_limits: Option<CostLimits>,
    /// What templates are told of the sheets before theirs; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_sheet: Option<CrossSheet>,
    /// What must be true of each sheet's output.
    pub validations: Vec<Rule>,
    /// Really slept between two sheets.
    pub pause_between_sheets: Span,
    /// 1 (low) to 10; 5 where not said.
    pub priority: u8,
    /// Where the checkpoint is written (absolute): `<workspace>/<job>.json` unless `state_path` says otherwise.
    pub checkpoint_path: String,
    /// `state_backend: json`: the checkpoint after every sheet, whole tails.
    pub checkpoint_every_sheet: bool,
    /// Known sections without effect yet, kept as written.
    pub dormant: BTreeMap<String, Value>,
}

impl Plan {
    /// The sheet of that number; `None` where there is none.
    pub fn sheet(&self, number: SheetNo) -> Option<&Sheet> {
        self.sheets.get(usize::try_from(number.0).ok()?.checked_sub(1)?)
    }
}

/// Sheets that wait until others are completed or skipped. Of stages with many instances one of these says it all, so
/// that 10,000 sheets that wait for 10,000 others take no 100 million words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Who waits.
    pub of: SheetRange,
    /// For whom.
    pub on: SheetRange,
    /// The n-th of the ones waits for the n-th of the others; otherwise each for all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pairwise: bool,
}

/// Sheets by number, the first and the last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(SheetNo, SheetNo)", into = "(SheetNo, SheetNo)")]
pub struct SheetRange {
    /// The first.
    pub first: SheetNo,
    /// The last; not below the first.
    pub last: SheetNo,
}

impl From<(SheetNo, SheetNo)> for SheetRange {
    fn from((first, last): (SheetNo, SheetNo)) -> Self {
        Self { first, last }
    }
}

impl From<SheetRange> for (SheetNo, SheetNo) {
    fn from(range: SheetRange) -> Self {
        (range.first, range.last)
    }
}

impl SheetRange {
    /// Whether the sheet is among them.
    pub fn contains(self, sheet: SheetNo) -> bool {
        (self.first..=self.last).contains(&sheet)
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        (self.last.0.saturating_add(1)).saturating_sub(self.first.0)
    }

    /// Each of them, in order.
    pub fn sheets(self) -> impl Iterator<Item = SheetNo> {
        (self.first.0..=self.last.0).map(SheetNo)
    }

    /// The sheet that stands here where `sheet` stands in `other`.
    fn partner(self, sheet: SheetNo, other: Self) -> Self {
        let no = SheetNo(self.first.0.saturating_add(sheet.0.saturating_sub(other.first.0)));
        Self { first: no, last: no }
    }
}

impl Dependency {
    /// The sheets that `sheet` waits for because of it; `None` where it is about others.
    pub fn needs(&self, sheet: SheetNo) -> Option<SheetRange> {
        let on = if self.pairwise {
            self.on.partner(sheet, self.of)
        } else {
            self.on
        };
        self.of.contains(sheet).then_some(on)
    }

    /// The sheets that wait for `sheet` because of it; `None` where it is about others.
    pub fn dependents(&self, sheet: SheetNo) -> Option<SheetRange> {
        let of = if self.pairwise {
            self.of.partner(sheet, self.on)
        } else {
            self.of
        };
        self.on.contains(sheet).then_some(of)
    }
}

/// Several sheets of a run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parallel {
    /// Sheets that run at once, 1 to 100.
    pub max_concurrent: u32,
    /// What the first failed sheet means for the others.
    pub fail_fast: FailFast,
    /// Places that a sheet takes of `max_concurrent_sheets`, where that is not 1; by number. (Pairs, because a map in a
    /// fact would be read back with keys of text.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<(SheetNo, u32)>,
}

/// What the first failed sheet means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailFast {
    /// Nothing, but for those that wait for it.
    Off,
    /// No new starts; running ones end.
    Hold,
    /// Running ones are stopped, too.
    Cancel,
}

/// One sheet of the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// From 1.
    pub number: u32,
    /// First item.
    pub start_item: i64,
    /// Last item.
    pub end_item: i64,
    /// Stage; the sheet's number without fan-out.
    pub stage: u32,
    /// Instance within the stage, from 1.
    pub instance: u32,
    /// Instances of that stage.
    pub fan_count: u32,
    /// Label.
    pub description: Option<String>,
    /// Timeout of a whole attempt, overrides applied.
    pub timeout: Span,
    /// Model of the CLI, where it is not the backend's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Skipped where this is true when it would start; as written (`job::expression`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_when: Option<String>,
    /// Skipped where this command succeeds before its first session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_command: Option<SkipCommand>,
    /// Texts that end its prompt, behind those of every sheet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// A command that says whether a sheet is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipCommand {
    /// As written; run in the workspace by `/bin/sh -c`.
    pub command: String,
    /// What it finds out, in the writer's words.
    pub description: Option<String>,
    /// It is ended then, and the sheet runs.
    pub timeout: Span,
}

/// What a session is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Which program, with its own settings.
    pub kind: BackendKind,
    /// Absolute working directory.
    pub working_directory: String,
    /// Variables taken from the submitter's environment, by name.
    pub pass_env: Vec<String>,
    /// Fixed variables.
    pub env: BTreeMap<String, String>,
    /// Bytes of output kept in the ledger.
    pub max_output_capture_bytes: u64,
}

impl Backend {
    /// The model that a sheet's sessions are asked of; `None`: the one that the program itself takes.
    pub fn model<'a>(&'a self, sheet: Option<&'a Sheet>) -> Option<&'a str> {
        match &self.kind {
            BackendKind::ClaudeCli(cli) => sheet.and_then(|sheet| sheet.model.as_deref()).or(cli.model.as_deref()),
            BackendKind::Command { .. } => None,
        }
    }
}

/// The kinds of sessions that work today.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum BackendKind {
    /// The Claude CLI.
    ClaudeCli(ClaudeCli),
    /// Any program: the prompt on its standard input, its standard output is the result text.
    Command {
        /// Program and arguments, as written; never empty.
        command: Vec<String>,
    },
}

impl BackendKind {
    /// The word of the job file.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ClaudeCli(_) => "claude_cli",
            Self::Command { .. } => "command",
        }
    }

    /// The program to look up on the submitter's PATH.
    pub fn program(&self) -> &str {
        match self {
            Self::ClaudeCli(cli) => &cli.cli_path,
            Self::Command { command } => command.first().map_or("", String::as_str),
        }
    }
}

/// Settings of the `claude_cli` backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaudeCli {
    /// Program; looked up on the submitter's PATH unless it has a slash.
    pub cli_path: String,
    /// `--dangerously-skip-permissions`.
    pub skip_permissions: bool,
    /// `--strict-mcp-config` with no servers.
    pub disable_mcp: bool,
    /// `json`, `text` or `stream-json`: only how `logs` shows it.
    pub output_format: String,
    /// `--model`.
    pub model: Option<String>,
    /// `--allowedTools`.
    pub allowed_tools: Vec<String>,
    /// Text of `system_prompt_file`.
    pub system_prompt: Option<String>,
    /// Appended last.
    pub extra_args: Vec<String>,
}

/// What is sent to each session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// The template's text.
    pub template: String,
    /// What the template is called in errors: `prompt.template` or the file's name.
    pub template_name: String,
    /// Decided at submit and stored.
    pub engine: TemplateEngine,
    /// Other files that templates include, by the name they use.
    pub includes: BTreeMap<String, String>,
    /// `prompt.variables`, types kept.
    pub variables: BTreeMap<String, Value>,
    /// `prompt.stakes`, "" where unset.
    pub stakes: String,
    /// `prompt.thinking_method`, "" where unset.
    pub thinking_method: String,
    /// Which parts are appended.
    pub append: Append,
    /// Texts that end the prompt of every sheet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// Which parts follow the rendered template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The success requirements.
    pub requirements: bool,
    /// Lessons from failed validations.
    pub lessons: bool,
    /// Learned advice (no source yet).
    pub advice: bool,
}

/// Which engine renders the templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateEngine {
    /// Tera.
    Tera,
    /// Jinja2, by MiniJinja.
    Jinja,
}

/// Retry budgets and delays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Retries after the first attempt, cause validation.
    pub max_retries: u32,
    /// Delay before the first retry.
    pub base_delay: Span,
    /// No delay is longer.
    pub max_delay: Span,
    /// Growth of the delay.
    pub exponential_base: f64,
    /// Full jitter on delays.
    pub jitter: bool,
    /// Completion attempts.
    pub max_completion_attempts: u32,
    /// Delay before a completion attempt.
    pub completion_delay: Span,
    /// Completion mode at or above this share of passed rules, in (0, 100].
    pub completion_threshold_percent: f64,
    /// Budget of transient faults.
    pub transient_retries: u32,
}

/// What Mozart does about limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateLimitPolicy {
    /// Case-insensitive regexes, asked last and only on failed attempts' error output.
    pub detection_patterns: Vec<String>,
    /// Wait for a usage limit that names no reset time.
    pub wait: Span,
    /// Throttlings waited for, per run.
    pub max_waits: u32,
    /// Usage limits waited for, per run.
    pub max_quota_waits: u32,
}

/// What templates are told of the sheets before theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossSheet {
    /// The end of their final texts, as `previous_outputs`.
    pub outputs: bool,
    /// Characters of each text.
    pub max_chars: u32,
    /// Patterns of files, placeholders still in them, relative to the workspace: `previous_files`.
    pub files: Vec<String>,
    /// So many sheets before it, and those that it waits for; 0: all before it.
    pub lookback: u32,
}

/// What a job may cost, as its sessions report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostLimits {
    /// All attempts at one sheet.
    pub per_sheet: Option<Cost>,
    /// All sheets.
    pub per_job: Option<Cost>,
    /// A budget is told of when so much of it is used; 0: never.
    #[serde(default = "warn_at_percent")]
    pub warn_at_percent: u8,
    /// What the job file says that tokens cost, for sessions that do not say what they have cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<TokenPrice>,
}

/// The share of a budget at which it is told of, where the job file says nothing.
pub const fn warn_at_percent() -> u8 {
    80
}

/// What 1,000 tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPrice {
    /// Of input.
    pub input: Cost,
    /// Of output.
    pub output: Cost,
}

/// When an account's sessions are given a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    /// After so many transient faults in a row, 1 to 100.
    pub failure_threshold: u32,
    /// For how long.
    pub recovery: Span,
}

/// What a limit does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// Wait until the reset.
    Wait,
    /// Fail the sheet at once.
    Stop,
    /// Ask a person.
    Ask,
}

/// One validation rule as meant; placeholders are still in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// What is checked.
    pub check: Check,
    /// As written, where it was.
    pub description: Option<String>,
    /// Rules of stage k run only when all earlier stages passed; 1 to 10.
    pub stage: u8,
    /// Condition as written; parsed again where it is asked (`job::condition`).
    pub condition: Option<String>,
    /// Times the check is tried again.
    pub retry_count: u32,
    /// Between two tries.
    pub retry_delay: Span,
}

/// What a rule checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Check {
    /// A regular file is there.
    FileExists {
        /// Relative to the workspace.
        path: String,
    },
    /// Changed since before the sheet's first attempt.
    FileModified {
        /// Relative to the workspace.
        path: String,
    },
    /// The literal text is in it.
    ContentContains {
        /// Relative to the workspace.
        path: String,
        /// Literal text.
        pattern: String,
    },
    /// The regex is found in it.
    ContentRegex {
        /// Relative to the workspace.
        path: String,
        /// Regular expression.
        pattern: String,
    },
    /// `/bin/sh -c command` exits 0.
    CommandSucceeds {
        /// As written.
        command: String,
        /// Relative to the workspace; the workspace itself where not said.
        working_directory: Option<String>,
        /// The whole tree is killed then.
        timeout: Span,
    },
}

impl Check {
    /// The word of the job file.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FileExists { .. } => "file_exists",
            Self::FileModified { .. } => "file_modified",
            Self::ContentContains { .. } => "content_contains",
            Self::ContentRegex { .. } => "content_regex",
            Self::CommandSucceeds { .. } => "command_succeeds",
        }
    }

    /// The path as written, for file and content rules.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::FileExists { path }
            | Self::FileModified { path }
            | Self::ContentContains { path, .. }
            | Self::ContentRegex { path, .. } => Some(path),
            Self::CommandSucceeds { .. } => None,
        }
    }
}

/// What the submitter brought along: stored with the run, so that every session of it, also after a reboot,
/// has the environment that the person had. Never holds a value of a secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SubmitContext {
    /// Variables that travel with Submit (PATH, LANG, LC_*, TZ, the CLI's own, names in `pass_env`), secrets left out.
    pub environment: BTreeMap<String, String>,
    /// Absolute path of the backend's program, resolved on the submitter's PATH.
    pub program: Option<String>,
    /// Path of the job file, where it came from one.
    pub job_file: Option<String>,
    /// Whose limits the run's sessions use; `None` for `command`.
    pub account: Option<AccountId>,
    /// What was said beside the job file; it holds for the next one that the run is given, too.
    #[serde(default)]
    pub given: Given,
}

/// What a submitter says beside the job file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Given {
    /// In place of the job file's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Variables of the prompt.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// In place of the job file's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}
