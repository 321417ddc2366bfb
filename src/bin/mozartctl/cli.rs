//! The command line: verbs, flags and their help texts. What a verb does is in `commands/<verb>.rs`.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0    done as asked; run, resume, wait: the run completed
  1    the run failed, the job file is invalid, or the request was refused
  2    wrong usage, no such file, or not YAML
  3    run, resume, wait: the run is paused or cancelled, or waits for an answer that nobody is
       there to give; conductor-status: not running
  4    no such job, run, sheet or question
  5    no conductor can be reached or started
  130  Ctrl+C";

/// Run long batches of Claude sessions unattended
#[derive(Debug, Parser)]
#[command(name = "mozartctl", version, styles = STYLES, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Say more; twice: still more
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Say only what was asked for, and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print JSON, one document (a line each with logs and --watch)
    #[arg(short, long, global = true)]
    pub(crate) json: bool,
    /// Least severe messages that an embedded conductor logs [default: warn]
    #[arg(short = 'L', long, global = true, value_name = "LEVEL", ignore_case = true)]
    pub(crate) log_level: Option<LogLevel>,
    /// How an embedded conductor logs
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "console",
        ignore_case = true
    )]
    pub(crate) log_format: LogFormat,
}

/// Severity of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Only what failed.
    #[value(alias = "critical")]
    Error,
    /// And what is odd.
    #[value(alias = "warning")]
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
}

impl LogLevel {
    /// The word as it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Shape of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[value(aliases = ["text", "both"])]
    Console,
    /// One JSON object a line.
    Json,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a job file and watch it
    Run(RunArgs),
    /// Check a job file without running it
    Validate(ValidateArgs),
    /// Write a commented job file to start from
    New(NewArgs),
    /// Draw the order of a job's sheets
    Graph(GraphArgs),
    /// Say what a code means, such as V101 or E203, and how to mend it; without one: list all
    Explain(ExplainArgs),
    /// Print the JSON Schema of job files, for editors
    Schema,
    /// Show a run, or all that are live or ended recently
    Status(StatusArgs),
    /// List runs
    List(ListArgs),
    /// Let a paused, failed or cancelled run go on at what is not completed
    Resume(ResumeArgs),
    /// Run the sheets of a paused or ended run again from one on, completed ones too
    Retry(RetryArgs),
    /// Give a run that is not over the job file as it is now
    Modify(ModifyArgs),
    /// Take sheets for completed whose rules hold, and run nothing
    Recover(RecoverArgs),
    /// Start nothing new of a run; running sessions finish
    Pause(PauseArgs),
    /// End a run and its sessions
    Cancel(CancelArgs),
    /// Show what a session says and does
    Logs(LogsArgs),
    /// Wait for the end of a run, a line for each change
    Wait(WaitArgs),
    /// Answer what only a person can decide; without arguments: show what is asked
    Answer(AnswerArgs),
    /// Show what sessions have cost: by day, or by account, job, run or model
    Costs(CostsArgs),
    /// Show the limits that keep sessions from starting
    RateLimits,
    /// Take limits for over that were noted: what waits for them starts
    ClearRateLimits(ClearRateLimitsArgs),
    /// Start the conductor's service
    Start(StartArgs),
    /// Stop the conductor; sessions go on unless told otherwise
    Stop(StopArgs),
    /// Restart the conductor's service; sessions go on
    Restart,
    /// Say whether a conductor runs, and how busy it is
    ConductorStatus,
    /// Print the manual page mozart.yaml(5)
    #[command(hide = true)]
    Man,
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions(CompletionsArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The job file
    pub(crate) file: PathBuf,
    /// Return as soon as the run is accepted
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) detach: bool,
    /// Show the plan and every rendered prompt; run nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// With --dry-run, show only this sheet
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sheet: Option<u32>,
    /// Skip the sheets below this one
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) start_sheet: Option<u32>,
    /// Use this workspace instead of the job file's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Begin a new run, whatever the last one left
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Set a variable of the prompt
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// 1 (low) to 10
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(crate) priority: Option<u8>,
    /// Try remedies once retries are used up (no effect yet)
    #[arg(short = 'H', long)]
    pub(crate) self_healing: bool,
    /// Accept suggested remedies (no effect yet)
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The job file
    pub(crate) file: PathBuf,
    /// Mend what can be mended safely: make missing directories, write paths with slashes
    #[arg(long)]
    pub(crate) fix: bool,
    /// Use this workspace instead of the job file's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
}

/// Arguments of `new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The file to write, which gives the job its name; `-` prints it
    #[arg(default_value = "job.yaml")]
    pub(crate) file: PathBuf,
    /// What the work looks like
    #[arg(long, value_name = "PATTERN", default_value = "batch")]
    pub(crate) from: Pattern,
}

/// What the work of a job looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Many items of one kind, some at a time
    Batch,
    /// Divide, work side by side, put together
    FanOut,
    /// Write, review, put right
    ReviewChain,
}

impl Pattern {
    /// The job file.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Batch => include_str!("patterns/batch.yaml"),
            Self::FanOut => include_str!("patterns/fan-out.yaml"),
            Self::ReviewChain => include_str!("patterns/review-chain.yaml"),
        }
    }
}

/// Arguments of `graph`.
#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// The job file
    pub(crate) file: PathBuf,
    /// As what
    #[arg(long, value_name = "FORMAT", default_value = "mermaid")]
    pub(crate) format: GraphFormat,
}

/// Shape of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Text that Markdown viewers draw
    Mermaid,
    /// Text for Graphviz
    Dot,
    /// A picture (needs graphviz)
    Svg,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code
    pub(crate) code: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The job; `NAME#3` is its third run
    pub(crate) job: Option<String>,
    /// Show it again after every change until the run is over
    #[arg(short = 'W', long)]
    pub(crate) watch: bool,
    /// Seconds between two pictures with --watch, at least
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) interval: f64,
    #[command(flatten)]
    pub(crate) unused: UnusedWorkspace,
}

/// Accepted for scripts of the Python version: the ledger knows every job by name.
#[derive(Debug, Args)]
pub(crate) struct UnusedWorkspace {
    /// Not needed: jobs are found by name
    #[arg(short, long, value_name = "DIR", hide = true)]
    pub(crate) workspace: Option<PathBuf>,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Runs that are over, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only runs in this state (repeat it for several)
    #[arg(short, long, value_name = "STATE", value_parser = state)]
    pub(crate) status: Vec<mozart::model::RunState>,
    /// No more than so many
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The job, or its job file (takes up from the checkpoint in the workspace where no run of it is known, and from
    /// the files of its sheets where there is no checkpoint)
    #[arg(value_name = "JOB|FILE")]
    pub(crate) target: String,
    /// Return as soon as it is accepted
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Use this workspace instead of the job file's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Give it this job file first, as `modify` does
    #[arg(short, long, value_name = "FILE", conflicts_with = "reload_config")]
    pub(crate) config: Option<PathBuf>,
    /// The same with the file that it was submitted from, as it is now
    #[arg(short, long)]
    pub(crate) reload_config: bool,
    /// Accepted for scripts; what is completed is not run again by a resume
    #[arg(short, long, hide = true)]
    pub(crate) force: bool,
    /// Try remedies once retries are used up (no effect yet)
    #[arg(short = 'H', long)]
    pub(crate) self_healing: bool,
    /// Go on at the sheet that the files tell, without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Arguments of `retry`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The job
    pub(crate) job: String,
    /// The first sheet that is run again
    #[arg(long, value_name = "SHEET", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) from: u32,
    /// Return as soon as it is accepted
    #[arg(short, long)]
    pub(crate) detach: bool,
}

/// Arguments of `modify`.
#[derive(Debug, Args)]
pub(crate) struct ModifyArgs {
    /// The job
    pub(crate) job: String,
    /// The job file as it is to be from now on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Let it go on, too, with what failed; also where the run is over
    #[arg(short, long)]
    pub(crate) resume: bool,
    /// Return when no sheet is at work with the old plan any more
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait, give up after so many seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// The workspace that the run was submitted with, where that is not the job file's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
}

/// Arguments of `recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The job
    pub(crate) job: String,
    /// Only this sheet
    #[arg(short, long, visible_alias = "batch", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sheet: Option<u32>,
    /// Only say what would be
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) unused: UnusedWorkspace,
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The job
    pub(crate) job: String,
    /// Stop its running sessions too; they go on when it is resumed
    #[arg(long)]
    pub(crate) now: bool,
    /// Return when nothing of it runs any more
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait, give up after so many seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    #[command(flatten)]
    pub(crate) unused: UnusedWorkspace,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The job
    pub(crate) job: String,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job; `NAME#3` is its third run [default: the one that is live]
    pub(crate) job: Option<String>,
    /// Go on as the session works, from sheet to sheet, until the run is over
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// Begin with no more than so many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub(crate) lines: usize,
    /// This sheet [default: the one that runs, else the last that ran]
    #[arg(short = 'b', long, visible_alias = "batch", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sheet: Option<u32>,
    /// This attempt of the sheet [default: the newest]
    #[arg(long, value_name = "N", requires = "sheet", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// The session's output byte by byte
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Accepted for scripts: a session's output has no levels
    #[arg(short, long, value_name = "LEVEL", hide = true)]
    pub(crate) level: Option<String>,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The job
    pub(crate) job: String,
}

/// Arguments of `answer`.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Its id, as `status` shows it
    pub(crate) question: Option<String>,
    /// One of its choices: retry, wait, continue or stop
    pub(crate) choice: Option<String>,
}

/// Arguments of `costs`.
#[derive(Debug, Args)]
pub(crate) struct CostsArgs {
    /// Only this job's; `NAME#3` is its third run
    pub(crate) job: Option<String>,
    /// So many days of the calendar, today one of them [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) days: Option<u32>,
    /// A row for each of these (repeat it, or separate them by commas)
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "day", value_parser = cost_key)]
    pub(crate) by: Vec<mozart::summary::CostKey>,
}

/// Arguments of `clear-rate-limits`.
#[derive(Debug, Args)]
pub(crate) struct ClearRateLimitsArgs {
    /// Only this account's, as `rate-limits` names it
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Run `mozartd` here instead of the service
    #[arg(short, long)]
    pub(crate) foreground: bool,
    /// Least severe messages that are logged with --foreground
    #[arg(short = 'l', value_name = "LEVEL", ignore_case = true, hide = true)]
    pub(crate) level: Option<LogLevel>,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Kill a conductor that does not answer; sessions go on and are found again
    #[arg(long)]
    pub(crate) force: bool,
    /// Stop the running sessions too; they go on when the conductor is back
    #[arg(long, conflicts_with = "force")]
    pub(crate) stop_sessions: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    pub(crate) shell: clap_complete::Shell,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 31_536_000.0 => Ok(seconds),
        _ => Err("expected a number of seconds above 0".to_owned()),
    }
}

fn cost_key(text: &str) -> Result<mozart::summary::CostKey, String> {
    let mut all = mozart::summary::CostKey::ALL.into_iter();
    all.find(|key| key.as_str() == text)
        .ok_or_else(|| "expected day, account, job, run or model".to_owned())
}

fn state(text: &str) -> Result<mozart::model::RunState, String> {
    text.parse()
        .map_err(|()| "expected queued, running, waiting, paused, completed, failed or cancelled".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_the_python_version_parse() {
        for line in [
            "run job.yaml -n -s 3 -w ws -j -H -y --fresh",
            "run job.yaml -n --sheet 2",
            "resume job -w ws -f -r -H -y",
            "resume job -c job.yaml",
            "pause job -w ws --wait -t 60 -j",
            "modify job -c job.yaml -r --wait -t 60 -j -w ws",
            "recover job -s 3 -n",
            "status job -j -W -i 5 -w ws",
            "list -a -s failed -l 20",
            "validate job.yaml -j -v",
            "validate job.yaml --fix",
            "explain v101",
            "explain -j",
            "schema",
            "new",
            "new night.yaml --from review-chain",
            "graph job.yaml --format dot",
            "man",
            "logs job -F -n 50 -l info -j",
            "start -f -l info",
            "stop --force",
            "answer q1-1-1 retry",
            "answer",
            "rate-limits -j",
            "costs job#3 --days 7 --by day,model -j",
            "clear-rate-limits --account me",
            "-v -L debug --log-format json conductor-status",
            "-q restart",
        ] {
            let words = std::iter::once("mozartctl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "run job.yaml -s 0",
            "list -s nowhere",
            "costs --by week",
            "costs --days 0",
            "modify job",
            "resume job -r -c job.yaml",
            "recover job -s 0",
            "logs --attempt 2",
            "status -i 0",
            "run a --set x",
            "run a --sheet 2",
            "-q -v list",
        ] {
            let words = std::iter::once("mozartctl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
