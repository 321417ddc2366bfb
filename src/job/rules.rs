//! The validation rules of one sheet: which apply, with every placeholder filled in.

use std::collections::BTreeMap;

use super::condition::Condition;
use super::paths;
use super::placeholder::{Place, expand};
use super::plan::{Check, Plan, Rule, Sheet, SkipCommand};
use super::value::Value;
use crate::model::Span;
use crate::prompt::variables;

/// A rule as it is for one sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct SheetRule {
    /// Index of the rule in the job file, from 0.
    pub index: u32,
    /// The rule's description, or one made from it.
    pub description: String,
    /// The job file gives the description.
    pub described: bool,
    /// What is checked: absolute paths, the command with its values quoted, its working directory absolute.
    pub check: Check,
    /// The path relative to the workspace, for people.
    pub shown_path: Option<String>,
    /// Rules of stage k run only when all earlier stages passed.
    pub stage: u8,
    /// Times the check is tried again.
    pub retry_count: u32,
    /// Between two tries.
    pub retry_delay: Span,
}

/// The rules that apply to `sheet`, in the job file's order.
///
/// The error says which rule cannot be told and why, as a sentence without a full stop. A plan that was loaded
/// without errors has been asked for every sheet already.
pub fn rules_for(plan: &Plan, sheet: &Sheet) -> Result<Vec<SheetRule>, String> {
    let variables = variables(plan, sheet);
    let mut rules = Vec::new();
    for (index, rule) in plan.validations.iter().enumerate() {
        let expanded = rule_for(rule, index, &plan.workspace, &variables)
            .map_err(|(field, error)| format!("validations[{index}].{field}: {error}"))?;
        rules.extend(expanded);
    }
    Ok(rules)
}

/// One rule for a sheet's variables; `None`: its condition does not hold. The error names the field.
pub(crate) fn rule_for(
    rule: &Rule,
    index: usize,
    workspace: &str,
    variables: &BTreeMap<String, Value>,
) -> Result<Option<SheetRule>, (&'static str, String)> {
    if let Some(condition) = &rule.condition {
        let holds = Condition::parse(condition)
            .and_then(|condition| condition.holds(variables))
            .map_err(|error| ("condition", error))?;
        if !holds {
            return Ok(None);
        }
    }
    let path = |text: &str| path_of(text, workspace, variables).map_err(|error| ("path", error));
    let pattern = |text: &str| expand(text, variables, Place::Pattern).map_err(|error| ("pattern", error));
    let check = match &rule.check {
        Check::FileExists { path: file } => Check::FileExists { path: path(file)? },
        Check::FileModified { path: file } => Check::FileModified { path: path(file)? },
        Check::ContentContains {
            path: file,
            pattern: text,
        } => Check::ContentContains {
            path: path(file)?,
            pattern: pattern(text)?,
        },
        Check::ContentRegex {
            path: file,
            pattern: text,
        } => Check::ContentRegex {
            path: path(file)?,
            pattern: pattern(text)?,
        },
        Check::CommandSucceeds {
            command,
            working_directory,
            timeout,
        } => Check::CommandSucceeds {
            command: expand(command, variables, Place::Command).map_err(|error| ("command", error))?,
            working_directory: Some(match working_directory {
                Some(directory) => expand(directory, variables, Place::Path)
                    .map(|directory| {
                        paths::resolve(workspace.as_ref(), &directory)
                            .to_string_lossy()
                            .into_owned()
                    })
                    .map_err(|error| ("working_directory", error))?,
                None => workspace.to_owned(),
            }),
            timeout: *timeout,
        },
    };
    let shown_path = check.path().map(|path| shown(path, workspace).to_owned());
    let given = match &rule.description {
        Some(description) => {
            Some(expand(description, variables, Place::Pattern).map_err(|error| ("description", error))?)
        }
        None => None,
    };
    Ok(Some(SheetRule {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        described: given.is_some(),
        description: given.unwrap_or_else(|| describe(&check, shown_path.as_deref().unwrap_or_default())),
        check,
        shown_path,
        stage: rule.stage,
        retry_count: rule.retry_count,
        retry_delay: rule.retry_delay,
    }))
}

/// The command that says whether `sheet` is needed, with its placeholders filled in.
///
/// The error is a sentence without a full stop. A plan that was loaded without errors has been asked already.
pub fn skip_command_for(plan: &Plan, sheet: &Sheet) -> Result<Option<SkipCommand>, String> {
    skip_command(sheet, &variables(plan, sheet))
}

/// The same, from a sheet's variables.
pub(crate) fn skip_command(sheet: &Sheet, variables: &BTreeMap<String, Value>) -> Result<Option<SkipCommand>, String> {
    let Some(skip) = &sheet.skip_command else {
        return Ok(None);
    };
    Ok(Some(SkipCommand {
        command: expand(&skip.command, variables, Place::Command)?,
        ..skip.clone()
    }))
}

/// The files that are captured for `sheet`: absolute patterns, their placeholders filled in.
///
/// The error is a sentence without a full stop. A plan that was loaded without errors has been asked already.
pub fn capture_patterns(plan: &Plan, sheet: &Sheet) -> Result<Vec<String>, String> {
    let variables = variables(plan, sheet);
    let patterns = plan.cross_sheet.iter().flat_map(|cross| &cross.files);
    patterns
        .map(|pattern| path_of(pattern, &plan.workspace, &variables))
        .collect()
}

/// The absolute path that a rule names for a sheet's variables.
pub(crate) fn path_of(text: &str, workspace: &str, variables: &BTreeMap<String, Value>) -> Result<String, String> {
    expand(text, variables, Place::Path).and_then(|path| paths::within(workspace, &path))
}

fn shown<'p>(path: &'p str, workspace: &str) -> &'p str {
    path.strip_prefix(workspace)
        .map(|rest| rest.trim_start_matches('/'))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(path)
}

fn describe(check: &Check, path: &str) -> String {
    let short = |text: &str| match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    match check {
        Check::FileExists { .. } => format!("{path} exists"),
        Check::FileModified { .. } => format!("{path} was changed"),
        Check::ContentContains { pattern, .. } => format!("{path} contains {:?}", short(pattern)),
        Check::ContentRegex { pattern, .. } => format!("{path} matches {}", short(pattern)),
        Check::CommandSucceeds { command, .. } => format!("{} succeeds", short(command)),
    }
}
