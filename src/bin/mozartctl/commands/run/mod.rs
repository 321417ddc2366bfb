//! `run FILE`: checks the file here, submits it, and stays with the run.

mod history;
pub(crate) mod plan;

use mozart::api::request::RunSelector;
use mozart::job::plan::Plan;
use mozart::model::{Problem, RunState, SheetNo};

use super::resume::{Source, from_file};
use crate::attach::{self, Manner};
use crate::cli::RunArgs;
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::job_file::{JobFile, Overrides};
use crate::json::Accepted;
use crate::link::Link;
use crate::output::Out;
use crate::text::{clean, count, shell_word};

/// Plans, and runs unless it is a dry run. Nothing is started before the file is free of errors.
pub(crate) fn run(arguments: &RunArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let file = JobFile::read(&arguments.file)?;
    let overrides = Overrides {
        workspace: arguments.workspace.clone(),
        set: arguments.set.iter().cloned().collect(),
        priority: arguments.priority,
    };
    if arguments.dry_run {
        let (plan, problems) = file.plan(file.preview(&overrides), out)?;
        for number in [arguments.start_sheet, arguments.sheet].into_iter().flatten() {
            has_sheet(&plan, number, &file)?;
        }
        return super::drive(async {
            let history = history::of(plan.name.as_str(), finder).await;
            let start = arguments.start_sheet.unwrap_or(1);
            plan::show(&plan, &problems, start, arguments.sheet, &history, out)?;
            Ok(ExitCode::Done)
        });
    }
    let (plan, problems) = file.plan(file.load(&overrides), out)?;
    if let Some(start) = arguments.start_sheet {
        has_sheet(&plan, start, &file)?;
    }
    if arguments.self_healing || arguments.yes {
        out.warn("--self-healing and --yes have no effect yet: no remedies are built in");
    }

    let source = Source {
        file,
        overrides,
        plan,
        problems,
    };
    super::drive(finder.with(Need::Run, async |link| {
        let mut submit = source.file.submission(&source.plan, &source.overrides);
        submit.start_sheet = arguments.start_sheet;
        submit.fresh = arguments.fresh;
        let submitted = match link.submit(&submit).await {
            Err(error) if error.kind == Kind::WrongState => match ask(error, out)? {
                Choice::Resume => return from_file(link, &source, false, arguments.detach, finder, out).await,
                Choice::Anew => {
                    submit.fresh = true;
                    link.submit(&submit).await?
                }
            },
            other => other?,
        };
        told(&submitted.problems, &source.problems, out);
        if !submitted.attached {
            hint_at_logout(link, out).await;
        }
        let selector = RunSelector {
            job: submitted.job.to_string(),
            run: Some(submitted.run.0),
        };
        let manner = Manner {
            introduce: true,
            fresh: !submitted.attached,
        };
        let told = (submitted.attached, submitted.problems.as_slice());
        stay(link, finder, &selector, manner, arguments.detach, told, out).await
    }))
}

fn has_sheet(plan: &Plan, number: u32, file: &JobFile) -> Result<(), CliError> {
    if plan.sheet(SheetNo(number)).is_some() {
        return Ok(());
    }
    let sheets = plan.sheets.len();
    Err(CliError::new(
        Kind::Usage,
        format!(
            "there is no sheet {number}: {} has only {}",
            file.shown,
            count(sheets, "sheet")
        ),
    ))
}

/// Says that sessions of the service end with the login, where they do.
async fn hint_at_logout(link: &Link, out: &Out) {
    if matches!(link, Link::Service(_)) && !out.json && !out.quiet && crate::systemd::lingers().await == Some(false) {
        out.note(
            "sessions are stopped when you log out, and go on with your next login; `loginctl enable-linger` lets them run on",
        );
    }
}

/// Stays with an accepted run, or says that it was accepted and leaves.
pub(crate) async fn stay(
    link: &mut Link,
    finder: &Finder<'_>,
    run: &RunSelector,
    manner: Manner,
    detach: bool,
    (attached, problems): (bool, &[Problem]),
    out: &Out,
) -> Result<ExitCode, CliError> {
    if !detach {
        return attach::watch(link, finder, run, manner, out).await;
    }
    let view = link.patiently(async || link.run(run).await).await?;
    if link.is_embedded() {
        out.warn(
            "there is no service to leave the run to: it goes on here until it is over (`packaging/install --user` installs one)",
        );
        return attach::watch(link, finder, run, manner, out).await;
    }
    let summary = &view.summary;
    if out.json {
        out.document(&Accepted {
            id: summary.job.as_str(),
            run: summary.run.0,
            state: summary.state.as_str(),
            attached,
            problems,
        });
    } else {
        let already = if attached { "is running already" } else { "accepted" };
        out.line(&format!(
            "{}#{} {already}: {}",
            clean(summary.job.as_str()),
            summary.run,
            summary.state
        ));
        out.note(&format!(
            "`mozartctl status {}` shows how it goes",
            shell_word(summary.job.as_str())
        ));
    }
    Ok(ExitCode::Done)
}

/// What the person wants where the last run left finished sheets.
enum Choice {
    Resume,
    Anew,
}

/// Asks, on a terminal only: elsewhere the refusal stands.
fn ask(refusal: CliError, out: &Out) -> Result<Choice, CliError> {
    let question = format!(
        "{}\n[r]esume it, begin a [n]ew run, or [q]uit?",
        clean(&refusal.message)
    );
    match out.ask(&question)?.as_deref() {
        Some("r" | "resume") => Ok(Choice::Resume),
        Some("n" | "new") => Ok(Choice::Anew),
        Some(_) => Err(CliError::new(Kind::WrongState, "nothing was started")),
        None => Err(refusal),
    }
}

/// Tells what the conductor warned of and this side did not know: keys that the service lacks, for example.
pub(crate) fn told(theirs: &[Problem], ours: &[Problem], out: &Out) {
    for problem in theirs.iter().filter(|problem| !ours.contains(problem)) {
        if problem.severity == mozart::model::Severity::Info && out.verbose == 0 {
            continue;
        }
        out.warn(&clean(&problem.message));
        if let Some(suggestion) = &problem.suggestion {
            out.note(&format!("  {}", clean(suggestion)));
        }
    }
}

/// Whether the run may still move by itself.
pub(crate) fn is_live(state: RunState) -> bool {
    matches!(state, RunState::Queued | RunState::Running | RunState::Waiting)
}
