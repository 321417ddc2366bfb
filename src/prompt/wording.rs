//! What Mozart adds to a prompt, in its own words.

use std::fmt::Write;

use crate::job::plan::Check;
use crate::job::rules::SheetRule;
use crate::model::RuleResult;
use crate::runner::spec::Lesson;

/// Characters of a piece of evidence that are repeated.
const EVIDENCE: usize = 600;
/// Lessons that are told; the newest ones.
const MAX_LESSONS: usize = 12;

/// What a session that was interrupted is told.
pub(super) fn go_on() -> String {
    "You were interrupted. Go on where you stopped, and finish the task.\n".to_owned()
}

/// What a new session is told about a task that a lost one began.
pub(super) fn begun_before(workspace: &str) -> String {
    format!(
        "An earlier session began this task, and what it knew is lost. Look first at what exists already in \
         {workspace} and in the working directory. Keep what is right, and do what is missing."
    )
}

/// What will be checked, for every rule that applies.
pub(super) fn requirements(rules: &[SheetRule]) -> Option<String> {
    if rules.is_empty() {
        return None;
    }
    let mut text = "Success requirements. When you are done, this is checked:".to_owned();
    for (index, rule) in rules.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}. {}", index + 1, requirement(rule));
    }
    Some(text)
}

/// One rule as something to do.
fn requirement(rule: &SheetRule) -> String {
    let what = match &rule.check {
        Check::FileExists { path } => format!("The file {path} exists."),
        Check::FileModified { path } => format!("The file {path} has been changed by this task."),
        Check::ContentContains { path, pattern } => format!("The file {path} contains this text: {}", fenced(pattern)),
        Check::ContentRegex { path, pattern } => {
            format!(
                "The file {path} has a place that matches the regular expression {}",
                fenced(pattern)
            )
        }
        Check::CommandSucceeds {
            command,
            working_directory,
            ..
        } => match working_directory {
            Some(directory) => format!("This command succeeds, run in {directory}: {}", fenced(command)),
            None => format!("This command succeeds: {}", fenced(command)),
        },
    };
    if rule.described {
        format!("{} ({what})", rule.description)
    } else {
        what
    }
}

/// Text in backticks, on lines of its own where it has several.
fn fenced(text: &str) -> String {
    if text.contains('\n') {
        format!("\n```\n{}\n```", text.trim_end_matches('\n'))
    } else if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}

/// What earlier attempts failed at: of this sheet, then of the sheets before it.
pub(super) fn lessons(sheet: u32, lessons: &[Lesson]) -> Vec<String> {
    let told = |own: bool| {
        let mut told: Vec<&Lesson> = lessons
            .iter()
            .filter(|lesson| (lesson.sheet == sheet) == own)
            .filter(|lesson| lesson.message.is_some() || lesson.rules.iter().any(|rule| !rule.passed))
            .collect();
        told.drain(..told.len().saturating_sub(MAX_LESSONS));
        told
    };
    let mut parts = Vec::new();
    let own = told(true);
    if !own.is_empty() {
        let mut text = "Earlier attempts at this task failed. Do not repeat what went wrong:".to_owned();
        for lesson in own {
            let _ = write!(text, "\n- Attempt {}: {}", lesson.attempt, failures(lesson));
        }
        parts.push(text);
    }
    let others = told(false);
    if !others.is_empty() {
        let mut text = "Checks that failed at the tasks just before this one:".to_owned();
        for lesson in others {
            let _ = write!(text, "\n- Task {}: {}", lesson.sheet, failures(lesson));
        }
        parts.push(text);
    }
    parts
}

fn failures(lesson: &Lesson) -> String {
    let mut parts: Vec<String> = lesson.message.iter().map(|message| cut(message)).collect();
    parts.extend(lesson.rules.iter().filter(|rule| !rule.passed).map(failure));
    parts.join("\n  - ")
}

/// A failed rule with its evidence.
fn failure(rule: &RuleResult) -> String {
    let mut text = rule.description.trim_end_matches('.').to_owned();
    if let Some(path) = rule.path.as_ref().filter(|path| !text.contains(path.as_str())) {
        let _ = write!(text, " ({path})");
    }
    if let Some(reason) = &rule.reason {
        let _ = write!(text, ": {}", cut(reason).trim_end_matches('.'));
    }
    if let Some(expected) = &rule.expected {
        let _ = write!(text, "; expected: {}", cut(expected));
    }
    if let Some(actual) = &rule.actual {
        let _ = write!(text, "; found: {}", cut(actual));
    }
    if let Some(hint) = &rule.hint {
        let _ = write!(text, ". {}", cut(hint));
    }
    text
}

fn cut(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(EVIDENCE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Only what is missing, for the same session resumed.
pub(super) fn completion(rules: &[SheetRule], last: Option<&Lesson>, beginning: &str, cut_off: bool) -> String {
    let mut text = "Your task is done in part. Finish what is missing; leave alone what is done.".to_owned();
    let results = last.map(|lesson| lesson.rules.as_slice()).unwrap_or_default();
    let result_of = |rule: &SheetRule| results.iter().find(|result| result.rule == rule.index);
    let done: Vec<&SheetRule> = rules
        .iter()
        .filter(|rule| result_of(rule).is_some_and(|result| result.passed))
        .collect();
    if !done.is_empty() {
        text.push_str("\n\nDone:");
        for rule in done {
            let _ = write!(text, "\n- {}", requirement(rule));
        }
    }
    let missing: Vec<&SheetRule> = rules
        .iter()
        .filter(|rule| result_of(rule).is_none_or(|result| !result.passed))
        .collect();
    if !missing.is_empty() {
        text.push_str("\n\nMissing:");
        for rule in missing {
            let _ = write!(text, "\n- {}", requirement(rule));
            if let Some(result) = result_of(rule) {
                let _ = write!(text, "\n  Why it failed: {}", failure(result));
            }
        }
    }
    if let Some(message) = last.and_then(|lesson| lesson.message.as_ref()) {
        let _ = write!(text, "\n\nWhat else went wrong: {}", cut(message));
    }
    let dots = if cut_off { "…" } else { "" };
    let _ = write!(
        text,
        "\n\nThe task, for reference, began so:\n\n{}{dots}\n",
        beginning.trim_end_matches('\n')
    );
    text
}
