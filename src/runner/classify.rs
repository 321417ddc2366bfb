//! From the three reports of an attempt to what became of it: cause, code, one sentence, a hint.
//!
//! The order is fixed: how the process ended, then what the session said of itself, then the rules. Within the
//! session's word the structured fields decide before any text does, and the job's own patterns are asked last. The
//! result's `subtype` says "success" of most errors and the exit status is 1 for nearly everything, so neither decides
//! alone.

#[cfg(test)]
mod captures;
#[cfg(test)]
mod fixtures;
mod session_error;
#[cfg(test)]
mod tests;

use crate::job::plan::BackendKind;
use crate::model::{
    Cause, Certificate, Code, Exit, Failure, Limit, LimitKind, Outcome, SessionReport, Span, Timestamp,
    ValidationReport,
};
use crate::runner::backend::session_in_use;
use crate::runner::limits;

/// [`Certificate::result`]: the program is not there or cannot be executed; nothing ran.
pub const PROGRAM_MISSING: &str = "program-missing";
/// [`Certificate::result`]: the working directory is not there or cannot be entered; nothing ran.
pub const DIRECTORY_MISSING: &str = "directory-missing";
/// [`Certificate::result`]: the process could not be started for another reason; nothing ran.
pub const START_FAILED: &str = "start-failed";
/// [`Certificate::result`]: the attempt's timeout ended it.
pub const TIMEOUT: &str = "timeout";
/// [`Certificate::result`]: the kernel ended a process of it for want of memory.
pub const OOM_KILL: &str = "oom-kill";
/// [`Certificate::result`]: there was no session, because the sheet is not needed.
pub const SKIPPED: &str = "skipped";
/// [`Certificate::result`]: no record of the end is left.
pub const LOST: &str = "lost";
/// [`Certificate::result`]: Mozart ended it because it was silent for too long.
pub const HUNG: &str = "hung";
/// [`Certificate::result`]: the system went down while it ran.
pub const SHUTDOWN: &str = "shutdown";

/// What the classifier judges from.
#[derive(Debug, Clone, Copy)]
pub struct ClassifyInput<'a> {
    /// What the session was.
    pub backend: &'a BackendKind,
    /// `rate_limit.detection_patterns`.
    pub patterns: &'a [String],
    /// How the process ended.
    pub certificate: &'a Certificate,
    /// What the session reported.
    pub session: &'a SessionReport,
    /// The id under which the session was started or resumed.
    pub started_as: &'a str,
    /// What validation found; without rules where it did not run.
    pub validation: &'a ValidationReport,
    /// When the session ended: limits that are told as a clock time are counted from here.
    pub now: Timestamp,
    /// `TZ` of the session; `None` where it had none.
    pub timezone: Option<&'a str>,
}

/// What became of an attempt.
pub fn classify(input: &ClassifyInput<'_>) -> Outcome {
    let session = input.session;
    let lost = session_lost(session);
    let in_use = session_in_use(&session.stderr_tail).is_some();
    // Its output went with the power, and so did what it says of its work. The CLI will say whether it knows the session.
    let unseen = input.certificate.result == LOST
        && session.session_id.is_none()
        && matches!(input.backend, BackendKind::ClaudeCli(_));
    let presumed = unseen.then(|| input.started_as.to_owned());
    Outcome {
        failure: failure(input).map(|failure| *failure),
        flags: flags(input),
        rules_passed: input.validation.passed(),
        rules_total: input.validation.total(),
        worked: session.worked || in_use && !session.has_result || unseen,
        session_id: session.session_id.clone().or(presumed).filter(|_| !lost),
        session_lost: lost,
        exit_code: input.certificate.exit.code(),
        skipped: None,
        cost: session.cost,
        cost_estimated: session.cost_estimated,
        tokens_in: session.tokens_in,
        tokens_out: session.tokens_out,
    }
}

/// `None`: it succeeded.
fn failure(input: &ClassifyInput<'_>) -> Option<Box<Failure>> {
    let ClassifyInput {
        certificate, session, ..
    } = *input;
    let ended_well = session.has_result && !session.is_error;
    if certificate.stopped_by_us {
        let succeeded = ended_well && rules(input).is_none();
        return (!succeeded).then(|| fail(Cause::Interrupted, Code::E004, "Mozart stopped the session"));
    }
    // One that had told its result hung only in going away.
    if certificate.result == HUNG && ended_well && matches!(input.backend, BackendKind::ClaudeCli(_)) {
        return rules(input);
    }
    if let Some(failure) = process(input) {
        return Some(failure);
    }
    if session_lost(session) {
        let message = "the session that was to be resumed does not exist any more";
        return Some(fail(Cause::Transient, Code::E003, message));
    }
    if !session.has_result {
        return Some(no_result(input));
    }
    if session.is_error {
        return Some(match input.backend {
            BackendKind::ClaudeCli(_) => session_error::classify(input),
            BackendKind::Command { .. } => exit_of_command(input),
        });
    }
    rules(input)
}

/// The verdict of the process: bad where it could not start, or was ended rather than ended itself.
fn process(input: &ClassifyInput<'_>) -> Option<Box<Failure>> {
    let ClassifyInput {
        backend,
        certificate,
        session,
        ..
    } = *input;
    let told = session.stderr_tail.as_str();
    // The launcher's helper says on standard error why it could not start the program.
    let said = |otherwise: &str| own_word(told).unwrap_or_else(|| format!("{otherwise}{}", with(first_lines(told))));
    let failure = match certificate.result.as_str() {
        PROGRAM_MISSING => fail(
            Cause::Fatal,
            Code::E505,
            &said(&format!("{} cannot be run", backend.program())),
        )
        .hint("Install the program, or name it in the job file (backend.cli_path or backend.command)."),
        DIRECTORY_MISSING => fail(Cause::Fatal, Code::E603, &said("the working directory cannot be used"))
            .hint("Create the directory, or correct backend.working_directory."),
        START_FAILED if told.contains("Argument list too long") => fail(
            Cause::Fatal,
            Code::E602,
            "the command line or the environment is too long for the system",
        )
        .hint("Shorten backend.system_prompt_file, backend.cli_extra_args or backend.env."),
        START_FAILED if told.contains("credential") => fail(Cause::Fatal, Code::E502, &said("a credential is missing"))
            .hint("Give the conductor the credential that the session needs, then resume the run."),
        START_FAILED => fail(Cause::Transient, Code::E003, &said("the session could not be started")),
        TIMEOUT => fail(Cause::Transient, Code::E001, "the session ran into its timeout")
            .hint("Raise backend.timeout_seconds, or give each sheet less to do."),
        // A limit that the session told of will meet the next one too.
        HUNG if usage_limit(session).is_some() && !session.has_result => no_result(input),
        HUNG => fail(
            Cause::Transient,
            Code::E006,
            &own_word(told).unwrap_or_else(|| "the session hung".to_owned()),
        )
        .hint(
            "If it works in silence for that long, raise stale_detection.idle_timeout_seconds; for the first output \
             first_event_timeout_seconds counts, where it is set.",
        ),
        OOM_KILL => fail(Cause::Transient, Code::E005, "the session ran out of memory"),
        SHUTDOWN => fail(
            Cause::Interrupted,
            Code::E004,
            "the system went down while the session ran",
        ),
        LOST if !session.has_result => fail(
            Cause::Interrupted,
            Code::E004,
            &own_word(told).unwrap_or_else(|| "the session is gone and left no record of its end".to_owned()),
        ),
        _ => match certificate.exit {
            // A limit that the session told of before it was killed will meet the next one too.
            Exit::Signal(_) if usage_limit(session).is_some() && !session.has_result => no_result(input),
            Exit::Signal(signal) => by_signal(signal),
            Exit::Code(_) | Exit::Unknown => return None,
        },
    };
    Some(failure)
}

/// What Mozart's own helpers say on a session's standard error.
fn own_word(stderr: &str) -> Option<String> {
    let word = stderr.lines().rev().find_map(|line| line.strip_prefix("mozart: "));
    word.map(quote)
}

/// No result object: exit status and standard error are all there is.
fn no_result(input: &ClassifyInput<'_>) -> Box<Failure> {
    let ClassifyInput {
        certificate, session, ..
    } = *input;
    if let Some(limit) = usage_limit(session) {
        return limited(Code::E104, limit.clone(), "");
    }
    let stderr = session.stderr_tail.as_str();
    let code = match certificate.exit {
        Exit::Code(0) => {
            let message = own_word(stderr).unwrap_or_else(|| "the session ended without a result".to_owned());
            return fail(Cause::Transient, Code::E003, &message);
        }
        Exit::Code(code) => code,
        Exit::Signal(signal) => return by_signal(signal),
        Exit::Unknown => return fail(Cause::Transient, Code::E003, "the session ended, it is not known how"),
    };
    // The CLI turns a signal into an exit status of its own.
    if (129..=192).contains(&code) {
        return by_signal(code - 128);
    }
    if session_in_use(stderr).is_some() {
        let message = "an earlier start of this attempt already made its session";
        return fail(Cause::Transient, Code::E003, message);
    }
    if let Some(found) = limits::find(stderr, input.now, input.timezone) {
        return from_text(found, &first_lines(stderr));
    }
    let said = first_lines(stderr);
    let started = session.worked || session.model.is_some() || session.program_version.is_some();
    if !started && !said.is_empty() {
        return usage_error(input, &said);
    }
    by_patterns(input).unwrap_or_else(|| {
        fail(
            Cause::Transient,
            Code::E003,
            &format!("the session crashed with exit status {code}{}", with(said)),
        )
    })
}

/// The CLI refused to begin: nothing on its standard output, a message on its standard error.
fn usage_error(input: &ClassifyInput<'_>, said: &str) -> Box<Failure> {
    let has = |needle: &str| said.contains(needle);
    let refused =
        |code, hint: &str| fail(Cause::Fatal, code, &format!("the CLI did not start{}", with(said))).hint(hint);
    if has("MCP config") {
        refused(
            Code::E305,
            "Correct the MCP configuration that backend.cli_extra_args names.",
        )
    } else if has("stdin input exceeds") {
        refused(
            Code::E602,
            "A prompt may be 10 MB; let the session read large files itself.",
        )
    } else if has("root/sudo") {
        refused(
            Code::E306,
            "Run Mozart as an ordinary user, or set backend.skip_permissions: false.",
        )
    } else if has("Input must be provided") {
        refused(
            Code::E306,
            "The prompt is empty: look at it with `mozartctl run --dry-run`.",
        )
    } else if has("ENOENT") {
        refused(
            Code::E601,
            "Create the path, or correct the variable that names it (such as TMPDIR in backend.env).",
        )
    } else {
        by_patterns(input).unwrap_or_else(|| {
            refused(
                Code::E306,
                "Check backend.cli_extra_args against what this version of the CLI knows.",
            )
        })
    }
}

/// The exit status is all that a `command` session says, unless its error output is a limit in the job's own words.
fn exit_of_command(input: &ClassifyInput<'_>) -> Box<Failure> {
    if let Some(limit) = by_patterns(input) {
        return limit;
    }
    let status = match input.certificate.exit {
        Exit::Code(code) => code.to_string(),
        Exit::Signal(_) | Exit::Unknown => "unknown".to_owned(),
    };
    let said = last_line(&input.session.stderr_tail);
    fail(
        Cause::Validation,
        Code::E009,
        &format!("the command ended with exit status {status}{}", with(said)),
    )
}

/// The verdict of the rules; without any, of the marks that say nothing was done.
fn rules(input: &ClassifyInput<'_>) -> Option<Box<Failure>> {
    let ClassifyInput {
        backend,
        session,
        validation,
        ..
    } = *input;
    if validation.total() > 0 {
        let failed = validation.total() - validation.passed();
        // A rule that was skipped only follows from one that failed.
        let skipped = |rule: &&crate::model::RuleResult| rule.category.as_deref() == Some("skipped");
        let mut wrong = validation.rules.iter().filter(|rule| !rule.passed);
        let first = wrong.clone().find(|rule| !skipped(rule)).or_else(|| wrong.next())?;
        let reason = first
            .reason
            .as_deref()
            .map_or(String::new(), |reason| with(quote(reason)));
        let of = validation.total();
        let message = match failed {
            1 => format!("a rule of {of} failed: {}{reason}", quote(&first.description)),
            _ => format!(
                "{failed} rules of {of} failed, the first: {}{reason}",
                quote(&first.description)
            ),
        };
        let failure = fail(Cause::Validation, first.code.unwrap_or(Code::E209), &message);
        return Some(match &first.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    if let BackendKind::Command { .. } = backend {
        return None;
    }
    let no_rule = "A validation would tell whether the work was done all the same.";
    if !session.denied_tools.is_empty() {
        let message = format!("tools were denied: {}", session.denied_tools.join(", "));
        return Some(
            fail(Cause::Validation, Code::E206, &message)
                .hint("Name them in backend.allowed_tools, or set backend.skip_permissions: true."),
        );
    }
    if did_nothing(session) {
        return Some(
            fail(
                Cause::Validation,
                Code::E205,
                "the session ended without doing anything",
            )
            .hint(no_rule),
        );
    }
    if is_empty(session) {
        return Some(fail(Cause::Validation, Code::E205, "the session's answer is empty").hint(no_rule));
    }
    None
}

/// What is suspicious about a session, whatever became of it.
fn flags(input: &ClassifyInput<'_>) -> Vec<String> {
    let ClassifyInput {
        backend,
        certificate,
        session,
        ..
    } = *input;
    let mut flags = Vec::new();
    if let BackendKind::Command { .. } = backend {
        return flags;
    }
    if !session.denied_tools.is_empty() {
        flags.push(format!("denied tools: {}", session.denied_tools.join(", ")));
    }
    if !session.has_result || session.is_error {
        return flags;
    }
    if did_nothing(session) {
        flags.push("no turn".to_owned());
    }
    if is_empty(session) {
        flags.push("empty result".to_owned());
    }
    if session.tool_calls == 0 {
        flags.push("no tool used".to_owned());
    }
    if session_error::says_unfinished(&session.result_text) {
        flags.push("says it did not finish".to_owned());
    }
    match certificate.exit {
        Exit::Code(0) | Exit::Signal(_) => {}
        Exit::Code(code) => flags.push(format!("exit {code}")),
        Exit::Unknown => flags.push("exit unknown".to_owned()),
    }
    flags
}

fn is_empty(session: &SessionReport) -> bool {
    session.result_text.trim().is_empty()
}

/// It ended well and never asked the model anything: a command of the CLI's own.
fn did_nothing(session: &SessionReport) -> bool {
    session.turns == Some(0) && !session.worked
}

/// `--resume` of a session that the CLI does not know.
fn session_lost(session: &SessionReport) -> bool {
    let unknown = |text: &str| text.contains("No conversation found with session ID");
    !session.worked && (session.errors.iter().any(|error| unknown(error)) || unknown(&session.stderr_tail))
}

fn usage_limit(session: &SessionReport) -> Option<&Limit> {
    session.limit.as_ref().filter(|limit| limit.kind == LimitKind::Usage)
}

fn by_signal(signal: i32) -> Box<Failure> {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => "a signal",
    };
    fail(
        Cause::Transient,
        Code::E002,
        &format!("the session was ended from outside by {name} ({signal})"),
    )
}

/// A usage or spending limit, or throttling.
fn limited(code: Code, limit: Limit, said: &str) -> Box<Failure> {
    let window = limit
        .window
        .as_deref()
        .map_or(String::new(), |window| format!(" ({window})"));
    let until = limit
        .resets_at
        .map_or(String::new(), |at| format!("; it resets at {}", at.to_rfc3339()));
    let message = match (limit.kind, code) {
        (LimitKind::Usage, Code::E105) => format!("the spending limit is reached{window}{until}{}", with(said)),
        (LimitKind::Usage, _) => format!("the usage limit is reached{window}{until}{}", with(said)),
        (LimitKind::Throttle, _) => format!("the requests were throttled{}", with(said)),
    };
    let mut failure = fail(Cause::RateLimit, code, &message);
    failure.limit = Some(limit);
    failure
}

fn throttled(code: Code, retry_after: Option<Span>, said: &str) -> Box<Failure> {
    let limit = Limit {
        kind: LimitKind::Throttle,
        window: None,
        resets_at: None,
        from_text: false,
        retry_after,
    };
    limited(code, limit, said)
}

fn from_text(found: limits::TextLimit, said: &str) -> Box<Failure> {
    let code = if found.spending { Code::E105 } else { Code::E104 };
    let limit = Limit {
        kind: LimitKind::Usage,
        window: found.window,
        resets_at: found.resets_at,
        from_text: true,
        retry_after: None,
    };
    limited(code, limit, said)
}

/// The job's own patterns, on what the session wrote as an error; asked where nothing else decided.
fn by_patterns(input: &ClassifyInput<'_>) -> Option<Box<Failure>> {
    let session = input.session;
    let mut text = session.stderr_tail.clone();
    // What a command prints is its answer, also where it failed.
    if session.is_error && matches!(input.backend, BackendKind::ClaudeCli(_)) {
        text = [&[text, session.result_text.clone()], session.errors.as_slice()]
            .concat()
            .join("\n");
    }
    let found = input.patterns.iter().find(|pattern| {
        // One that does not compile was told when the job was submitted.
        fancy_regex::Regex::new(&format!("(?i:{pattern})")).is_ok_and(|regex| regex.is_match(&text).unwrap_or(false))
    })?;
    Some(throttled(
        Code::E102,
        None,
        &format!("its error output matches the pattern {found:?}"),
    ))
}

fn fail(cause: Cause, code: Code, message: &str) -> Box<Failure> {
    let mut message = message.trim_end_matches('.').to_owned();
    if let Some(first) = message.get(..1) {
        message.replace_range(..1, &first.to_ascii_uppercase());
    }
    message.push('.');
    Box::new(Failure {
        cause,
        code,
        message,
        hint: None,
        limit: None,
    })
}

trait Hint {
    fn hint(self, hint: &str) -> Self;
}

impl Hint for Box<Failure> {
    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// `: …` where something was said.
fn with(said: impl AsRef<str>) -> String {
    let said = said.as_ref();
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

/// A few hundred characters of a text, on one line.
fn quote(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", words.get(..end).unwrap_or_default()),
        None => words.trim_end_matches('.').to_owned(),
    }
}

/// What a program says first when it refuses, without the CLI's warnings.
fn first_lines(stderr: &str) -> String {
    let telling = stderr
        .lines()
        .filter(|line| !line.starts_with("[claude-code:") && !line.starts_with("Warning:"));
    quote(
        &telling
            .filter(|line| !line.trim().is_empty())
            .take(3)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

fn last_line(text: &str) -> String {
    quote(
        text.lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default(),
    )
}
