//! What a session is: an attempt becomes a command line, the session's output becomes a report.
//!
//! A backend starts nothing and reads no file. The launcher runs the command line with its standard output in the
//! spool; whoever follows that file feeds a [`Reader`].

mod claude_cli;
mod command;
mod environment;
mod lines;
mod listen;
mod log;
mod redact;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::job::plan::{BackendKind, ClaudeCli, TokenPrice};
use crate::job::prices::{Prices, Tokens};
use crate::model::{Certificate, Cost, SessionReport};
use crate::runner::spec::{AttemptSpec, Secrets};

pub use claude_cli::attempt_cost;
pub(in crate::runner) use claude_cli::session_in_use;
pub use environment::{CLI_PASSES, Passwd, SECRETS, account, environment};
pub use listen::{Heard, Listener};
pub use log::LogRenderer;
pub use redact::redact;

use lines::{Events, Lines, Tail, end_of};

/// Bytes of the result text that a report keeps.
pub const RESULT_TEXT_BYTES: usize = 64 * 1024;
/// No tail is longer than this, whatever a job asks for.
const TAIL_BYTES: usize = 256 * 1024;
/// Log lines that wait to be fetched; of more, the oldest are dropped.
const LOG_LINES: usize = 1000;

/// What the launcher is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Program (absolute where it was resolved at submit) and arguments.
    pub argv: Vec<String>,
    /// Variables that the backend needs; those that the job's `backend.env` sets itself are left out.
    pub env: BTreeMap<String, String>,
}

/// The command line of an attempt. The prompt is not in it: it comes on standard input, see [`prompt_bytes`].
pub fn command_line(spec: &AttemptSpec) -> CommandLine {
    let kind = &spec.plan.backend.kind;
    let program = spec
        .context
        .program
        .clone()
        .unwrap_or_else(|| kind.program().to_owned());
    let (arguments, mut env) = match kind {
        BackendKind::ClaudeCli(cli) => {
            let model = spec.plan.backend.model(spec.plan.sheet(spec.attempt.sheet));
            claude_cli::arguments(cli, model, &spec.session_id, spec.resume, spec.budget)
        }
        BackendKind::Command { command } => (command.iter().skip(1).cloned().collect(), BTreeMap::new()),
    };
    env.retain(|name, _| !spec.plan.backend.env.contains_key(name));
    CommandLine {
        argv: std::iter::once(program).chain(arguments).collect(),
        env,
    }
}

/// What is written to the session's standard input.
///
/// The Claude CLI takes a prompt that begins with `/` for a command of its own (`/clear`: no request, exit 0, an
/// empty answer). A line feed in front makes it text.
pub fn prompt_bytes(kind: &BackendKind, text: &str) -> Vec<u8> {
    match kind {
        BackendKind::ClaudeCli(_) if text.starts_with('/') => format!("\n{text}").into_bytes(),
        BackendKind::ClaudeCli(_) | BackendKind::Command { .. } => text.as_bytes().to_vec(),
    }
}

/// What [`Reader::finish`] must know besides the output.
#[derive(Debug, Clone, Copy)]
pub struct Caps<'a> {
    /// Bytes of each tail that the report keeps.
    pub tail_bytes: u64,
    /// The attempt resumed an earlier session.
    pub resumed: bool,
    /// What that session had cost in all before, where known.
    pub earlier_cost: Option<Cost>,
    /// What tokens cost, where the session does not say what it has cost.
    pub tariff: Tariff<'a>,
    /// Values that must not stand in the report.
    pub secrets: &'a Secrets,
}

/// What tokens cost: as the job file says, else by model.
#[derive(Debug, Clone, Copy)]
pub struct Tariff<'a> {
    /// The job file's own price.
    pub own: Option<TokenPrice>,
    /// By model.
    pub prices: &'a Prices,
}

impl Tariff<'_> {
    /// What those tokens of a model cost; `None` where nobody knows.
    fn cost(&self, model: &str, tokens: Tokens) -> Option<Cost> {
        match self.own {
            Some(price) => Some(tokens.cost(price)),
            None => self.prices.cost(model, tokens),
        }
    }
}

impl<'a> Caps<'a> {
    /// As the attempt has them.
    pub fn of(spec: &'a AttemptSpec) -> Self {
        Self {
            tail_bytes: spec.plan.backend.max_output_capture_bytes,
            resumed: spec.resume,
            earlier_cost: spec.earlier_cost,
            tariff: Tariff {
                own: spec.plan.cost_limits.and_then(|limits| limits.price),
                prices: &spec.prices,
            },
            secrets: &spec.secrets,
        }
    }
}

/// Reads a session's standard output as it grows and makes the session report.
///
/// Nothing in the output is an error: lines that cannot be read are skipped, unknown events are ignored, endless
/// lines are dropped as they come.
#[derive(Debug)]
pub struct Reader {
    session: Session,
    lines: Lines,
    log: log::Style,
    log_lines: Vec<String>,
    tail: Tail,
}

#[derive(Debug)]
enum Session {
    Claude(Box<claude_cli::Session>, Events),
    Command,
}

impl Reader {
    /// A reader for the output of one attempt.
    pub fn new(kind: &BackendKind) -> Self {
        let session = match kind {
            BackendKind::ClaudeCli(_) => Session::Claude(Box::default(), Events::default()),
            BackendKind::Command { .. } => Session::Command,
        };
        Self {
            session,
            lines: Lines::default(),
            log: log::Style::of(kind),
            log_lines: Vec::new(),
            tail: Tail::new(TAIL_BYTES),
        }
    }

    /// Takes the next bytes of the standard output, in chunks of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self {
            session,
            lines,
            log,
            log_lines,
            tail,
        } = self;
        if matches!(session, Session::Command) {
            tail.push(bytes);
        }
        lines.feed(bytes, |line| read_line(session, *log, log_lines, tail, line));
        if let Some(excess) = log_lines.len().checked_sub(LOG_LINES) {
            log_lines.drain(..excess);
        }
    }

    /// The log lines since the last call: what a person wants to see of the session while it works.
    pub fn lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log_lines)
    }

    /// The report, when the process is over and all of its output was fed.
    pub fn finish(mut self, certificate: &Certificate, stderr: &[u8], caps: Caps<'_>) -> SessionReport {
        let Self {
            session,
            lines,
            log,
            log_lines,
            tail,
        } = &mut self;
        lines.finish(|line| read_line(session, *log, log_lines, tail, line));

        let mut errors = Tail::new(TAIL_BYTES);
        errors.push(stderr);
        let cut = |text: String, most: usize| end_of(&redact(&text, caps.secrets), most).to_owned();
        let tail_bytes = usize::try_from(caps.tail_bytes).unwrap_or(TAIL_BYTES).min(TAIL_BYTES);

        let mut report = match self.session {
            Session::Claude(session, _) => session.report(caps.resumed, caps.earlier_cost, &caps.tariff, stderr),
            Session::Command => command::report(certificate, &self.tail.text()),
        };
        report.result_text = cut(report.result_text, RESULT_TEXT_BYTES);
        report.errors = report
            .errors
            .into_iter()
            .map(|error| cut(error, RESULT_TEXT_BYTES))
            .collect();
        report.stdout_tail = cut(self.tail.text(), tail_bytes);
        report.stderr_tail = cut(errors.text(), tail_bytes);
        report
    }
}

fn read_line(session: &mut Session, style: log::Style, log: &mut Vec<String>, tail: &mut Tail, line: &[u8]) {
    match session {
        Session::Claude(session, events) => {
            let events = events.read(line);
            events.iter().for_each(|event| session.event(event));
            log::render(style, line, &events, log);
            // For people: what happened, not the protocol it was told in.
            let mut shown = Vec::new();
            log::render(log::Style::People, line, &events, &mut shown);
            for line in shown {
                tail.push(line.as_bytes());
                tail.push(b"\n");
            }
        }
        Session::Command => log::render(style, line, &[], log),
    }
}

/// The settings of the CLI, where that is the backend.
fn claude(kind: &BackendKind) -> Option<&ClaudeCli> {
    match kind {
        BackendKind::ClaudeCli(cli) => Some(cli),
        BackendKind::Command { .. } => None,
    }
}
