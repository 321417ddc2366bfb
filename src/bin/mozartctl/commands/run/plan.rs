//! What `run --dry-run` shows: the plan, and every prompt as it would be sent.

use mozart::job::plan::{BackendKind, Check, Plan, Sheet, TemplateEngine};
use mozart::job::rules::SheetRule;
use mozart::model::{Ask, Problem, Span};
use serde::Serialize;

use crate::error::{CliError, Kind};
use crate::output::{Out, Paint};
use crate::text::{clean, count, length};

/// The whole dry run, as `--json` prints it.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    id: &'a str,
    description: Option<&'a str>,
    workspace: &'a str,
    backend: &'static str,
    working_directory: &'a str,
    template_engine: TemplateEngine,
    sheets: Vec<PlannedSheet<'a>>,
    problems: &'a [Problem],
}

#[derive(Debug, Serialize)]
struct PlannedSheet<'a> {
    sheet_num: u32,
    description: Option<&'a str>,
    start_item: i64,
    end_item: i64,
    stage: u32,
    instance: u32,
    timeout_seconds: f64,
    /// It would be skipped (`--start-sheet`).
    skipped: bool,
    validations: Vec<PlannedRule>,
    prompt: String,
}

/// A rule with everything expanded.
#[derive(Debug, Serialize)]
struct PlannedRule {
    rule: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    description: String,
    stage: u8,
    path: Option<String>,
    pattern: Option<String>,
    command: Option<String>,
}

impl From<SheetRule> for PlannedRule {
    fn from(rule: SheetRule) -> Self {
        let (pattern, command) = match &rule.check {
            Check::ContentContains { pattern, .. } | Check::ContentRegex { pattern, .. } => {
                (Some(pattern.clone()), None)
            }
            Check::CommandSucceeds { command, .. } => (None, Some(command.clone())),
            Check::FileExists { .. } | Check::FileModified { .. } => (None, None),
        };
        Self {
            rule: rule.index,
            kind: rule.check.as_str(),
            path: rule.check.path().map(str::to_owned),
            description: rule.description,
            stage: rule.stage,
            pattern,
            command,
        }
    }
}

/// Shows what would run, from sheet `start` on.
///
/// # Errors
/// [`Kind::InvalidJob`] where a prompt or a rule cannot be rendered after all.
pub(crate) fn show(plan: &Plan, problems: &[Problem], start: u32, out: &Out) -> Result<(), CliError> {
    let sheets = plan
        .sheets
        .iter()
        .map(|sheet| planned(plan, sheet, start))
        .collect::<Result<Vec<_>, _>>()?;
    if out.json {
        out.document(&DryRun {
            id: plan.name.as_str(),
            description: plan.description.as_deref(),
            workspace: &plan.workspace,
            backend: plan.backend.kind.as_str(),
            working_directory: &plan.backend.working_directory,
            template_engine: plan.prompt.engine,
            sheets,
            problems,
        });
        return Ok(());
    }

    describe(plan, out);
    for sheet in &sheets {
        out.line("");
        let label = sheet
            .description
            .map(|label| format!(", {}", clean(label)))
            .unwrap_or_default();
        let heading = format!("Sheet {} of {}", sheet.sheet_num, plan.sheets.len());
        let timeout = length(Span::from_secs_f64(sheet.timeout_seconds));
        out.line(&format!(
            "{}{label}: items {} to {}, at most {timeout}",
            out.paint(Paint::Bold, &heading),
            sheet.start_item,
            sheet.end_item
        ));
        if sheet.skipped {
            out.line("  skipped: before start sheet");
            continue;
        }
        for rule in &sheet.validations {
            out.line(&format!("  must hold  {}: {}", rule.kind, clean(&rule.description)));
        }
        for line in sheet.prompt.lines() {
            out.line(&format!("  {} {}", out.paint(Paint::Dim, "|"), clean(line)));
        }
    }
    out.line("");
    out.line("Dry run: nothing was started.");
    Ok(())
}

/// The job as a whole, in a few lines.
pub(crate) fn describe(plan: &Plan, out: &Out) {
    let engine = match plan.prompt.engine {
        TemplateEngine::Tera => "Tera",
        TemplateEngine::Jinja => "Jinja2",
    };
    let model = match &plan.backend.kind {
        BackendKind::ClaudeCli(cli) => cli
            .model
            .as_deref()
            .map(|model| format!(", model {model}"))
            .unwrap_or_default(),
        BackendKind::Command { .. } => String::new(),
    };
    let sheets = count(u32::try_from(plan.sheets.len()).unwrap_or(u32::MAX), "sheet");
    let rules = count(
        u32::try_from(plan.validations.len()).unwrap_or(u32::MAX),
        "validation rule",
    );
    let program = plan.backend.kind.program();
    let backend = plan.backend.kind.as_str();
    let row = |name: &str, value: &str| vec![(name.to_owned(), Paint::Dim), (clean(value).into_owned(), Paint::Plain)];
    let mut rows = vec![row("Job", plan.name.as_str())];
    rows.extend(plan.description.as_deref().map(|text| row("About", text)));
    rows.extend([
        row("Workspace", &plan.workspace),
        row(
            "Backend",
            &format!("{backend} ({program}{model}) in {}", plan.backend.working_directory),
        ),
        row("Sheets", &format!("{sheets}, {rules}, templates by {engine}")),
    ]);
    out.table(&rows);
}

fn planned<'a>(plan: &'a Plan, sheet: &'a Sheet, start: u32) -> Result<PlannedSheet<'a>, CliError> {
    let number = sheet.number;
    let invalid = |what: &str, why: String| CliError::new(Kind::InvalidJob, format!("sheet {number}: {what}: {why}"));
    let rules = mozart::job::rules::rules_for(plan, sheet).map_err(|error| invalid("its rules", error))?;
    let prompt = mozart::prompt::compose(plan, sheet, Ask::Task, &[])
        .map_err(|error| invalid("its prompt", error.to_string()))?;
    Ok(PlannedSheet {
        sheet_num: number,
        description: sheet.description.as_deref(),
        start_item: sheet.start_item,
        end_item: sheet.end_item,
        stage: sheet.stage,
        instance: sheet.instance,
        timeout_seconds: sheet.timeout.as_secs_f64(),
        skipped: number < start,
        validations: rules.into_iter().map(PlannedRule::from).collect(),
        prompt,
    })
}
