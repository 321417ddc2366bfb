//! `validate FILE`: checks a job file; needs no conductor.

use mozart::job::plan::TemplateEngine;
use mozart::model::{Problem, Severity};
use serde::Serialize;

use crate::cli::ValidateArgs;
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::job_file::{JobFile, Overrides};
use crate::output::{Out, Paint};
use crate::text::{clean, count};

/// `{"valid", "file", "id", "sheets", "template_engine", "error_count", "warning_count", "info_count",
/// "fixed", "issues"}`, each issue as [`Problem`].
#[derive(Debug, Serialize)]
struct Report<'a> {
    valid: bool,
    file: &'a str,
    /// The job's name; null where the file is invalid.
    id: Option<&'a str>,
    /// How many sheets it makes.
    sheets: Option<usize>,
    /// `tera` or `jinja`.
    template_engine: Option<TemplateEngine>,
    error_count: usize,
    warning_count: usize,
    info_count: usize,
    /// What `--fix` did.
    fixed: &'a [String],
    issues: &'a [Problem],
}

/// Prints every problem; 0 valid, 1 an error, 2 not YAML.
pub(crate) fn run(arguments: &ValidateArgs, out: &Out) -> Result<ExitCode, CliError> {
    let mut file = JobFile::read(&arguments.file)?;
    let overrides = Overrides {
        workspace: arguments.workspace.clone(),
        ..Overrides::default()
    };
    let mut loaded = file.load(&overrides);
    let mut fixed = Vec::new();
    if arguments.fix {
        fixed = fix(&mut file, &loaded.problems)?;
        if !fixed.is_empty() {
            loaded = file.load(&overrides);
        }
    }
    let plan = loaded.plan.as_ref();
    let number = |severity| {
        loaded
            .problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    };
    let (errors, warnings, infos) = (
        number(Severity::Error),
        number(Severity::Warning),
        number(Severity::Info),
    );

    if out.json {
        out.document(&Report {
            valid: plan.is_some(),
            file: &file.shown,
            id: plan.map(|plan| plan.name.as_str()),
            sheets: plan.map(|plan| plan.sheets.len()),
            template_engine: plan.map(|plan| plan.prompt.engine),
            error_count: errors,
            warning_count: warnings,
            info_count: infos,
            fixed: &fixed,
            issues: &loaded.problems,
        });
    } else {
        for what in &fixed {
            out.line(&format!("{} {}", out.paint(Paint::Good, "fixed:"), clean(what)));
        }
        let shown: Vec<Problem> = loaded
            .problems
            .iter()
            .filter(|problem| !out.quiet || problem.severity == Severity::Error)
            .cloned()
            .collect();
        if !shown.is_empty() {
            out.line(file.report(&shown, out.stdout_color()).trim_end());
            out.line("");
            if let Some(first) = shown.first() {
                out.note(&format!(
                    "`mozartctl explain {}` says more about a code",
                    clean(&first.check_id)
                ));
            }
        }
        let counts: Vec<String> = [(errors, "error"), (warnings, "warning"), (infos, "remark")]
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, noun)| count(number, noun))
            .collect();
        let counts = if counts.is_empty() {
            String::new()
        } else {
            format!(", {}", counts.join(", "))
        };
        match plan {
            Some(plan) => {
                let name = clean(plan.name.as_str());
                out.line(&format!(
                    "{} {}: job {name}, {}{counts}",
                    out.paint(Paint::Good, "valid"),
                    file.shown,
                    count(plan.sheets.len(), "sheet")
                ));
                if out.verbose > 0 {
                    super::run::plan::describe(plan, out);
                }
            }
            None => out.line(&format!("{} {}{counts}", out.paint(Paint::Bad, "invalid"), file.shown)),
        }
    }
    Ok(match (plan, loaded.not_yaml) {
        (Some(_), _) => ExitCode::Done,
        (None, false) => ExitCode::Failed,
        (None, true) => ExitCode::Usage,
    })
}

/// Mends what can be mended safely; what was done, for a person.
fn fix(file: &mut JobFile, problems: &[Problem]) -> Result<Vec<String>, CliError> {
    let fixes = mozart::job::fix::fixes(problems, &String::from_utf8_lossy(&file.text));
    let mut done = Vec::new();
    for directory in &fixes.directories {
        std::fs::create_dir_all(directory).map_err(|error| {
            CliError::new(
                Kind::System,
                format!(
                    "the directory {} cannot be made: {error}",
                    clean(&directory.to_string_lossy())
                ),
            )
        })?;
        done.push(format!("made the directory {}", directory.display()));
    }
    if let Some(text) = fixes.text {
        file.replace(text)?;
        done.extend(fixes.changes);
    }
    Ok(done)
}
