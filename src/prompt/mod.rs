//! Templates, variables, and the prompts that are sent.
//!
//! [`variables()`] gives what a sheet's template may use, [`template`] renders it with Tera or as Jinja2, and
//! [`compose`] puts together what a session is told.

pub mod elsewhere;
mod history;
mod jinja;
mod plain;
mod python;
pub mod template;
mod tera;
mod wording;

use crate::model::Ask;
use std::collections::BTreeMap;

use crate::job::plan::{Plan, Prompt, Sheet};
use crate::job::rules::{SheetRule, rules_for};
use crate::job::value::Value;
use crate::summary::{History, Lesson};

pub(crate) use template::expression;

/// Names of the variables that Mozart itself gives to every template.
pub const BUILT_IN: &[&str] = &[
    "sheet_num",
    "total_sheets",
    "batch_num",
    "total_batches",
    "start_item",
    "end_item",
    "workspace",
    "stage",
    "instance",
    "fan_count",
    "total_stages",
    "previous_outputs",
    "previous_files",
];

/// Characters of the task that a completion prompt repeats.
const BEGINNING: usize = 2000;

/// Why a prompt cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PromptError {
    /// The template cannot be rendered for this sheet.
    #[error("the prompt of sheet {sheet} cannot be rendered: {error}")]
    Template {
        /// The sheet.
        sheet: u32,
        /// Why.
        error: template::RenderError,
    },
    /// A validation rule's placeholders cannot be filled in.
    #[error("the checks of sheet {sheet} cannot be told: {reason}")]
    Rules {
        /// The sheet.
        sheet: u32,
        /// Why.
        reason: String,
    },
}

/// What the templates, paths, patterns, commands and conditions of a sheet may use: the built-in variables, then
/// the job's own (which may shadow them), then `stakes` and `thinking_method`.
pub fn variables(plan: &Plan, sheet: &Sheet) -> BTreeMap<String, Value> {
    variables_of(&plan.workspace, &plan.sheets, &plan.prompt, sheet)
}

/// The same, from the parts of a plan that is not whole yet.
pub(crate) fn variables_of(
    workspace: &str,
    sheets: &[Sheet],
    prompt: &Prompt,
    sheet: &Sheet,
) -> BTreeMap<String, Value> {
    let total = i64::try_from(sheets.len()).unwrap_or(i64::MAX);
    let stages = sheets.last().map_or(0, |sheet| i64::from(sheet.stage));
    let number = i64::from(sheet.number);
    let mut variables: BTreeMap<String, Value> = [
        ("sheet_num", Value::Int(number)),
        ("total_sheets", Value::Int(total)),
        ("batch_num", Value::Int(number)),
        ("total_batches", Value::Int(total)),
        ("start_item", Value::Int(sheet.start_item)),
        ("end_item", Value::Int(sheet.end_item)),
        ("workspace", Value::Text(workspace.to_owned())),
        ("stage", Value::Int(i64::from(sheet.stage))),
        ("instance", Value::Int(i64::from(sheet.instance))),
        ("fan_count", Value::Int(i64::from(sheet.fan_count))),
        ("total_stages", Value::Int(stages)),
        ("previous_outputs", Value::Map(Vec::new())),
        ("previous_files", Value::Map(Vec::new())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    variables.extend(
        prompt
            .variables
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    variables.insert("stakes".to_owned(), Value::Text(prompt.stakes.clone()));
    variables.insert(
        "thinking_method".to_owned(),
        Value::Text(prompt.thinking_method.clone()),
    );
    variables
}

/// The text that a session is sent.
///
/// A task is the rendered template, then, each after a blank line and unless the job switched it off, what
/// earlier attempts failed at, what will be checked, and the job's own extensions. `lessons` are those of this sheet and of the sheets just
/// before it, oldest first.
///
/// The template is told nothing of the sheets before it, as in a dry run; see [`compose_with`].
pub fn compose(plan: &Plan, sheet: &Sheet, ask: Ask, lessons: &[Lesson]) -> Result<String, PromptError> {
    compose_with(plan, sheet, ask, lessons, &History::default())
}

/// The same, with what the sheets before it left.
pub fn compose_with(
    plan: &Plan,
    sheet: &Sheet,
    ask: Ask,
    lessons: &[Lesson],
    history: &History,
) -> Result<String, PromptError> {
    if ask == Ask::GoOn {
        return Ok(wording::go_on());
    }
    let (task, rules) = task_and_rules(plan, sheet, history)?;
    let last = lessons
        .iter()
        .rev()
        .find(|lesson| lesson.sheet == sheet.number && !lesson.rules.is_empty());
    if ask == Ask::Completion {
        let beginning: String = task.chars().take(BEGINNING).collect();
        let cut = beginning.len() < task.len();
        return Ok(wording::completion(&rules, last, &beginning, cut));
    }
    let append = plan.prompt.append;
    let mut parts = Vec::new();
    if ask == Ask::TaskAgain {
        parts.push(wording::begun_before(&plan.workspace));
    }
    if append.lessons {
        parts.extend(wording::lessons(sheet.number, lessons));
    }
    parts.extend(appended(plan, sheet, &rules));
    Ok(joined(&task, &parts))
}

/// A task and what follows it.
fn joined(task: &str, parts: &[String]) -> String {
    if parts.is_empty() {
        return task.to_owned();
    }
    let mut text = task.trim_end_matches(['\n', '\r']).to_owned();
    for part in parts {
        text.push_str("\n\n");
        text.push_str(part);
    }
    text.push('\n');
    text
}

/// What the sheets before it left, unless the job has variables of its own under these names.
fn tell_history(variables: &mut BTreeMap<String, Value>, prompt: &Prompt, history: &History) {
    let text = |text: &String| Value::Text(text.clone());
    let outputs = history.outputs.iter();
    let outputs = outputs.map(|(sheet, output)| (Value::Int(i64::from(*sheet)), text(output)));
    let files = history.files.iter().map(|(path, content)| (text(path), text(content)));
    for (name, map) in [
        ("previous_outputs", Value::Map(outputs.collect())),
        ("previous_files", Value::Map(files.collect())),
    ] {
        if !prompt.variables.contains_key(name) {
            variables.insert(name.to_owned(), map);
        }
    }
}

/// What a sheet's first attempt is told.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstTask {
    /// The template's own text.
    pub task: String,
    /// What Mozart adds; empty if nothing.
    pub appended: String,
    /// Both, as they are sent.
    pub sent: String,
    /// What will be checked.
    pub rules: Vec<SheetRule>,
}

/// What the first attempts of those sheets are told, told nothing of the sheets before them: as in a dry run. The
/// template is compiled once.
pub fn first_tasks<'s>(
    plan: &Plan,
    sheets: impl IntoIterator<Item = &'s Sheet> + Send,
) -> Result<Vec<FirstTask>, PromptError> {
    let failed = |sheet: u32| move |error: template::RenderError| PromptError::Template { sheet, error };
    template::with_template(&plan.prompt, plan.prompt.engine, |template| {
        let first = |sheet: &Sheet| {
            let task = template.render(&variables(plan, sheet)).map_err(failed(sheet.number))?;
            let rules = rules(plan, sheet)?;
            let parts = appended(plan, sheet, &rules);
            Ok(FirstTask {
                sent: joined(&task, &parts),
                appended: parts.join("\n\n"),
                task,
                rules,
            })
        };
        sheets.into_iter().map(first).collect()
    })
    .unwrap_or_else(|error| Err(failed(plan.sheets.first().map_or(1, |sheet| sheet.number))(error)))
}

/// What follows every task: what will be checked, and the extensions.
fn appended(plan: &Plan, sheet: &Sheet, rules: &[SheetRule]) -> Vec<String> {
    let requirements = plan.prompt.append.requirements.then(|| wording::requirements(rules));
    let extensions = plan.prompt.extensions.iter().chain(&sheet.extensions);
    let extensions = extensions.map(|text| text.trim_matches(['\n', '\r']).to_owned());
    let parts = requirements.flatten().into_iter().chain(extensions);
    parts.filter(|part| !part.is_empty()).collect()
}

fn task_and_rules(plan: &Plan, sheet: &Sheet, history: &History) -> Result<(String, Vec<SheetRule>), PromptError> {
    let mut variables = variables(plan, sheet);
    tell_history(&mut variables, &plan.prompt, history);
    let task = template::with_template(&plan.prompt, plan.prompt.engine, |template| template.render(&variables))
        .and_then(|rendered| rendered)
        .map_err(|error| PromptError::Template {
            sheet: sheet.number,
            error,
        })?;
    Ok((task, rules(plan, sheet)?))
}

fn rules(plan: &Plan, sheet: &Sheet) -> Result<Vec<SheetRule>, PromptError> {
    rules_for(plan, sheet).map_err(|reason| PromptError::Rules {
        sheet: sheet.number,
        reason,
    })
}

#[cfg(test)]
mod tests;
