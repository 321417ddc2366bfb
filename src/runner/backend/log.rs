//! The log of a session for people: who works, what it says, which tools it calls, what holds it up.

use serde_json::Value;

use super::claude_cli::{SYNTHETIC, number, text};
use super::lines::{Events, Lines};
use super::redact;
use crate::job::plan::BackendKind;
use crate::model::Timestamp;
use crate::runner::limits;
use crate::runner::spec::Secrets;

/// Characters of a line that are shown; the spool keeps the rest.
const LINE_CHARS: usize = 2000;
/// Characters of a tool's input or error that are shown.
const TOOL_CHARS: usize = 160;

/// How the line begins that the launcher appends after the session's last output; an empty line stands before it
/// where that output ended with a line feed.
const EXIT_RECORD: &[u8] = b"\x1emozart-exit-record ";

/// How `logs` shows the output of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Short lines made from the events (`output_format: text`).
    People,
    /// The events as the CLI prints them (`stream-json`).
    Events,
    /// The result object alone (`json`).
    ResultOnly,
    /// The lines of any program.
    Plain,
}

impl Style {
    pub(super) fn of(kind: &BackendKind) -> Self {
        match kind {
            BackendKind::Command { .. } => Self::Plain,
            BackendKind::ClaudeCli(cli) => match cli.output_format.as_str() {
                "stream-json" => Self::Events,
                "json" => Self::ResultOnly,
                _ => Self::People,
            },
        }
    }
}

/// Turns a session's standard output, as it grows, into log lines.
///
/// Control characters and whatever looks like a key are taken out, so that the lines can be shown on a terminal. The
/// launcher's exit record, which ends the file in the spool, is left out.
#[derive(Debug)]
pub struct LogRenderer {
    style: Style,
    lines: Lines,
    read: Read,
}

/// What is remembered between two lines.
#[derive(Debug, Default)]
struct Read {
    events: Events,
    blank: bool,
}

impl LogRenderer {
    /// For a session of this kind, in the job's `output_format`.
    pub fn new(kind: &BackendKind) -> Self {
        Self {
            style: Style::of(kind),
            lines: Lines::default(),
            read: Read::default(),
        }
    }

    /// The log lines that these bytes finish, in chunks of any size.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let Self { style, lines, read } = self;
        let mut log = Vec::new();
        lines.feed(bytes, |line| read.line(*style, line, &mut log));
        log
    }

    /// What the output's last line says, where it does not end with a line feed.
    pub fn finish(mut self) -> Vec<String> {
        let Self { style, lines, read } = &mut self;
        let mut log = Vec::new();
        lines.finish(|line| read.line(*style, line, &mut log));
        log
    }
}

impl Read {
    fn line(&mut self, style: Style, line: &[u8], log: &mut Vec<String>) {
        if line.starts_with(EXIT_RECORD) {
            self.blank = false;
            return;
        }
        if std::mem::replace(&mut self.blank, line.is_empty()) {
            render(style, b"", &[], log);
        }
        if !line.is_empty() {
            let events = if style == Style::Plain {
                Vec::new()
            } else {
                self.events.read(line)
            };
            render(style, line, &events, log);
        }
    }
}

/// Appends the log lines of one line of output, whose events were read already.
pub(super) fn render(style: Style, line: &[u8], events: &[Value], log: &mut Vec<String>) {
    let raw = |log: &mut Vec<String>| log.push(clean(&String::from_utf8_lossy(line), LINE_CHARS));
    match style {
        Style::Plain | Style::Events => raw(log),
        Style::ResultOnly if events.iter().any(|event| text(event, "type") == Some("result")) => raw(log),
        Style::ResultOnly => {}
        Style::People if events.is_empty() && line.iter().all(u8::is_ascii_whitespace) => {}
        Style::People if events.is_empty() => raw(log),
        Style::People => events.iter().for_each(|event| people(event, log)),
    }
}

fn people(event: &Value, log: &mut Vec<String>) {
    let subtype = text(event, "subtype").unwrap_or_default();
    match text(event, "type").unwrap_or_default() {
        "system" if subtype == "init" => log.push(format!(
            "session {} started: {}, Claude Code {}",
            short(text(event, "session_id").unwrap_or("?"), 36),
            short(text(event, "model").unwrap_or("unknown model"), 60),
            short(text(event, "claude_code_version").unwrap_or("(version unknown)"), 20),
        )),
        "system" if subtype == "api_retry" => log.push(format!(
            "request failed ({}), trying again in {:.1} s ({} of {})",
            why(event),
            number(event, "retry_delay_ms").unwrap_or(0) as f64 / 1000.0,
            number(event, "attempt").unwrap_or(0),
            number(event, "max_retries").unwrap_or(0),
        )),
        "system" if subtype == "permission_denied" => {
            log.push(format!(
                "tool {} denied",
                short(text(event, "tool_name").unwrap_or("?"), 60)
            ));
        }
        "system" if subtype == "model_fallback" => log.push("the session goes on with another model".to_owned()),
        "assistant" => assistant(event, log),
        "user" => tool_results(event, log),
        "rate_limit_event" => limit(&event["rate_limit_info"], log),
        "result" => result(event, log),
        _ => {}
    }
}

fn why(event: &Value) -> String {
    let class = short(text(event, "error").unwrap_or("unknown"), 40);
    match number(event, "error_status") {
        Some(status) => format!("{status} {class}"),
        None => class,
    }
}

fn assistant(event: &Value, log: &mut Vec<String>) {
    let message = &event["message"];
    let error = text(message, "model") == Some(SYNTHETIC);
    for block in message["content"].as_array().map_or(&[][..], Vec::as_slice) {
        match text(block, "type").unwrap_or_default() {
            "text" => {
                let lines = text(block, "text").unwrap_or_default().trim_end().lines();
                let mark = if error { "session: " } else { "" };
                log.extend(lines.map(|line| format!("{mark}{}", clean(line, LINE_CHARS))));
            }
            "tool_use" => {
                let name = short(text(block, "name").unwrap_or("?"), 60);
                log.push(format!("tool {name} {}", input(&block["input"])).trim_end().to_owned());
            }
            _ => {}
        }
    }
}

/// The part of a tool's input that says what it does.
fn input(input: &Value) -> String {
    let telling = [
        "command",
        "file_path",
        "notebook_path",
        "pattern",
        "url",
        "query",
        "path",
        "description",
        "prompt",
    ];
    match telling.iter().find_map(|name| text(input, name)) {
        Some(value) => short(value, TOOL_CHARS),
        None if input.as_object().is_none_or(serde_json::Map::is_empty) => String::new(),
        None => short(&input.to_string(), TOOL_CHARS),
    }
}

fn tool_results(event: &Value, log: &mut Vec<String>) {
    for block in event["message"]["content"].as_array().map_or(&[][..], Vec::as_slice) {
        if text(block, "type") != Some("tool_result") {
            continue;
        }
        let content = &block["content"];
        let said = content
            .as_str()
            .or_else(|| content.as_array()?.iter().find_map(|part| text(part, "text")));
        if block["is_error"].as_bool().unwrap_or(false) {
            log.push(format!("  error: {}", short(said.unwrap_or("(no text)"), TOOL_CHARS)));
        } else {
            log.push("  ok".to_owned());
        }
    }
}

fn limit(info: &Value, log: &mut Vec<String>) {
    let status = text(info, "status").unwrap_or_default();
    let window = short(text(info, "rateLimitType").unwrap_or("requests"), 40);
    let resets = info["resetsAt"]
        .as_f64()
        .and_then(|seconds| limits::from_epoch(seconds as i64));
    let resets = resets
        .map(Timestamp::to_rfc3339)
        .map_or(String::new(), |at| format!(", resets {at}"));
    match status {
        "rejected" => log.push(format!("limit {window}: rejected{resets}")),
        "allowed_warning" => {
            let used = info["utilization"]
                .as_f64()
                .map_or(String::new(), |used| format!(" {:.0} % used", used * 100.0));
            log.push(format!(
                "limit {window}:{}{resets}",
                if used.is_empty() { " nearly used up" } else { &used }
            ));
        }
        _ => {}
    }
}

fn result(event: &Value, log: &mut Vec<String>) {
    let subtype = text(event, "subtype").unwrap_or_default();
    let error = event["is_error"].as_bool().unwrap_or(false) || subtype.starts_with("error");
    let said = text(event, "result")
        .or_else(|| event["errors"].get(0)?.as_str())
        .unwrap_or_default();
    let word = match (error, said.is_empty()) {
        (false, false) => "done".to_owned(),
        (false, true) => "done, with an empty answer".to_owned(),
        (true, _) => format!("error: {}", short(said, TOOL_CHARS)),
    };
    let turns = number(event, "num_turns").unwrap_or(0);
    let cost = event["total_cost_usd"]
        .as_f64()
        .map_or(String::new(), |usd| format!(", ${usd:.4}"));
    log.push(format!(
        "result: {word} ({turns} turn{}{cost})",
        if turns == 1 { "" } else { "s" }
    ));
}

/// One line of at most so many characters.
fn short(value: &str, most: usize) -> String {
    clean(&value.split_whitespace().collect::<Vec<_>>().join(" "), most)
}

/// Without escape sequences, control characters and keys; at most so many characters.
fn clean(line: &str, most: usize) -> String {
    let line = redact(line, &Secrets::default());
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut count = 0;
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // CSI sequences end with a character from `@` to `~`; any other escape is two characters long.
            if chars.next() == Some('[') {
                for c in chars.by_ref() {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
        } else if c == '\t' || !c.is_control() {
            if count == most {
                out.push('…');
                break;
            }
            out.push(c);
            count += 1;
        }
    }
    out
}
