//! What `run --dry-run` shows: the plan, and every prompt as it would be sent.

use mozart::job::estimate::{Range, estimate};
use mozart::job::plan::{Check, Plan, Sheet, TemplateEngine};
use mozart::job::rules::SheetRule;
use mozart::job::waves::waves;
use mozart::model::{Cost, Problem, Severity, SheetNo, Span};
use mozart::prompt::FirstTask;
use serde::Serialize;

use super::history::History;
use crate::error::{CliError, Kind};
use crate::output::{Out, Paint};
use crate::text::{clean, count, length, money};

/// The whole dry run, as `--json` prints it.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    id: &'a str,
    description: Option<&'a str>,
    workspace: &'a str,
    /// As the job file names it, also where a run would be refused because of it.
    backend: &'a str,
    working_directory: &'a str,
    template_engine: TemplateEngine,
    /// Sheets of a wave can run at once, and wait only for those of earlier ones.
    waves: &'a [Vec<SheetNo>],
    /// How many sheets do run at once.
    max_concurrent: u32,
    sheets: Vec<PlannedSheet<'a>>,
    /// Of the sheets above that are not skipped.
    estimate: Estimate,
    problems: &'a [Problem],
}

/// What it may take and cost, by what sheets of earlier runs did.
#[derive(Debug, Serialize)]
struct Estimate {
    earlier_sheets: usize,
    earlier_runs: u32,
    /// Without waits for limits.
    seconds: Option<Between>,
    /// Nothing where nobody knows.
    cost_usd: Option<Between>,
    /// Why there is no history.
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct Between {
    low: f64,
    likely: f64,
    high: f64,
}

impl Between {
    fn of<T>(range: Range<T>, shown: impl Fn(T) -> f64) -> Self {
        Self {
            low: shown(range.low),
            likely: shown(range.likely),
            high: shown(range.high),
        }
    }

    /// In words.
    fn words(&self, shown: impl Fn(f64) -> String) -> String {
        let [low, likely, high] = [self.low, self.likely, self.high].map(shown);
        if low == high {
            format!("about {likely}")
        } else {
            format!("about {likely} ({low} to {high})")
        }
    }
}

impl Estimate {
    fn of(plan: &Plan, start: u32, only: Option<u32>, history: &History) -> Self {
        let runs = |sheet: &Sheet| sheet.number >= start && only.is_none_or(|only| only == sheet.number);
        let estimate = estimate(plan, runs, &history.sheets);
        Self {
            earlier_sheets: history.sheets.len(),
            earlier_runs: history.runs,
            seconds: estimate.map(|estimate| Between::of(estimate.time, Span::as_secs_f64)),
            cost_usd: estimate.and_then(|estimate| Some(Between::of(estimate.cost?, Cost::as_usd))),
            why: history.why_none(),
        }
    }

    fn words(&self) -> String {
        let Some(seconds) = &self.seconds else {
            return format!("no history: {}", clean(self.why.as_deref().unwrap_or_default()));
        };
        let cost = self.cost_usd.as_ref();
        format!(
            "{}, waits for limits not counted; cost {}; by {} of {}",
            seconds.words(|seconds| length(Span::from_secs_f64(seconds))),
            cost.map_or_else(
                || "unknown".to_owned(),
                |cost| cost.words(|usd| money(Cost::from_usd(usd)))
            ),
            count(self.earlier_sheets, "sheet"),
            count(self.earlier_runs, "earlier run"),
        )
    }
}

#[derive(Debug, Serialize)]
struct PlannedSheet<'a> {
    sheet_num: u32,
    description: Option<&'a str>,
    start_item: i64,
    end_item: i64,
    stage: u32,
    instance: u32,
    fan_count: u32,
    /// From 1.
    wave: usize,
    depends_on: Vec<u32>,
    timeout_seconds: f64,
    /// Of the CLI; nothing where it takes its own.
    model: Option<&'a str>,
    /// It would be skipped (`--start-sheet`).
    skipped: bool,
    variables: serde_json::Map<String, serde_json::Value>,
    validations: Vec<PlannedRule>,
    /// The template's own text.
    prompt: String,
    /// What follows it after a blank line.
    appended: String,
    /// Both, as the first session is sent them.
    #[serde(skip)]
    sent: String,
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

/// Shows what would run, from sheet `start` on, or only the sheet `only`.
///
/// # Errors
/// [`Kind::InvalidJob`] where a prompt or a rule cannot be rendered after all.
pub(super) fn show(
    plan: &Plan,
    problems: &[Problem],
    start: u32,
    only: Option<u32>,
    history: &History,
    out: &Out,
) -> Result<(), CliError> {
    let waves = waves(plan);
    let mut wave_of = vec![0; plan.sheets.len() + 1];
    for (wave, sheets) in (1..).zip(&waves) {
        for sheet in sheets {
            if let Some(slot) = usize::try_from(sheet.0).ok().and_then(|sheet| wave_of.get_mut(sheet)) {
                *slot = wave;
            }
        }
    }
    let shown = plan
        .sheets
        .iter()
        .filter(|sheet| only.is_none_or(|only| only == sheet.number));
    let tasks = mozart::prompt::first_tasks(plan, shown.clone())
        .map_err(|error| CliError::new(Kind::InvalidJob, error.to_string()))?;
    let sheets: Vec<_> = shown
        .zip(tasks)
        .map(|(sheet, task)| planned(plan, sheet, task, start, &wave_of))
        .collect();
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let backend = problems
        .iter()
        .find_map(|problem| problem.metadata.get("backend"))
        .map_or(plan.backend.kind.as_str(), String::as_str);
    let estimate = Estimate::of(plan, start, only, history);
    if out.json {
        out.document(&DryRun {
            id: plan.name.as_str(),
            description: plan.description.as_deref(),
            workspace: &plan.workspace,
            backend,
            working_directory: &plan.backend.working_directory,
            template_engine: plan.prompt.engine,
            waves: &waves,
            max_concurrent: plan.parallel.as_ref().map_or(1, |parallel| parallel.max_concurrent),
            sheets,
            estimate,
            problems,
        });
        return Ok(());
    }

    describe(plan, out);
    if let Some(parallel) = plan.parallel.as_ref().filter(|_| only.is_none()) {
        out.line("");
        out.line(&format!(
            "{}, at most {} at once:",
            count(waves.len(), "wave"),
            count(parallel.max_concurrent, "sheet")
        ));
        for (number, wave) in (1..).zip(&waves) {
            out.line(&format!("  {number}: {}", listed(wave)));
        }
    }
    for sheet in &sheets {
        out.line("");
        let label = sheet
            .description
            .map(|label| format!(", {}", clean(label)))
            .unwrap_or_default();
        let heading = format!("Sheet {} of {}", sheet.sheet_num, plan.sheets.len());
        let timeout = length(Span::from_secs_f64(sheet.timeout_seconds));
        let own_model = sheet.model.filter(|model| plan.backend.model(None) != Some(model));
        let own_model = own_model
            .map(|model| format!(", model {}", clean(model)))
            .unwrap_or_default();
        out.line(&format!(
            "{}{label}: items {} to {}, at most {timeout}{own_model}",
            out.paint(Paint::Bold, &heading),
            sheet.start_item,
            sheet.end_item
        ));
        if sheet.skipped {
            out.line("  skipped: before start sheet");
            continue;
        }
        if !sheet.depends_on.is_empty() {
            let on: Vec<SheetNo> = sheet.depends_on.iter().copied().map(SheetNo).collect();
            out.line(&format!("  waits for  {}", listed(&on)));
        }
        if out.verbose > 0 {
            for (name, value) in &sheet.variables {
                out.line(&format!("  variable   {} = {}", clean(name), clean(&value.to_string())));
            }
        }
        for rule in &sheet.validations {
            out.line(&format!("  must hold  {}: {}", rule.kind, clean(&rule.description)));
        }
        for line in sheet.sent.lines() {
            out.line(&format!("  {} {}", out.paint(Paint::Dim, "|"), clean(line)));
        }
    }
    out.line("");
    out.line(&format!("Estimate: {}", estimate.words()));
    out.line("Dry run: nothing was started.");
    if errors > 0 {
        let errors = count(errors, "error");
        out.line(&format!(
            "{} because of {errors}",
            out.paint(Paint::Bad, "`run` would be refused")
        ));
    }
    Ok(())
}

/// Numbers of sheets, those that follow one another as a range.
fn listed(sheets: &[SheetNo]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for sheet in sheets {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == sheet.0 => *last = sheet.0,
            _ => parts.push((sheet.0, sheet.0)),
        }
    }
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => format!("sheet {first}"),
            _ => format!("sheets {first} to {last}"),
        })
        .collect();
    parts.join(", ")
}

/// The job as a whole, in a few lines.
pub(crate) fn describe(plan: &Plan, out: &Out) {
    let engine = match plan.prompt.engine {
        TemplateEngine::Tera => "Tera",
        TemplateEngine::Jinja => "Jinja2",
    };
    let model = plan.backend.model(None).map(|model| format!(", model {model}"));
    let model = model.unwrap_or_default();
    let sheets = count(plan.sheets.len(), "sheet");
    let rules = count(plan.validations.len(), "validation rule");
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

fn planned<'a>(plan: &'a Plan, sheet: &'a Sheet, task: FirstTask, start: u32, wave_of: &[usize]) -> PlannedSheet<'a> {
    let number = sheet.number;
    let mut depends_on: Vec<u32> = plan
        .dependencies
        .iter()
        .filter_map(|dependency| dependency.needs(SheetNo(number)))
        .flat_map(|needs| needs.sheets().map(|sheet| sheet.0))
        .collect();
    depends_on.sort_unstable();
    depends_on.dedup();
    PlannedSheet {
        sheet_num: number,
        description: sheet.description.as_deref(),
        start_item: sheet.start_item,
        end_item: sheet.end_item,
        stage: sheet.stage,
        instance: sheet.instance,
        fan_count: sheet.fan_count,
        wave: usize::try_from(number)
            .ok()
            .and_then(|number| wave_of.get(number))
            .copied()
            .unwrap_or(0),
        depends_on,
        timeout_seconds: sheet.timeout.as_secs_f64(),
        model: plan.backend.model(Some(sheet)),
        skipped: number < start,
        variables: mozart::prompt::variables(plan, sheet)
            .into_iter()
            .map(|(name, value)| (name, value.to_json()))
            .collect(),
        validations: task.rules.into_iter().map(PlannedRule::from).collect(),
        sent: task.sent,
        prompt: task.task,
        appended: task.appended,
    }
}
