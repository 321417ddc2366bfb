//! `resume JOB|FILE`: a paused, failed or cancelled run goes on.

use std::path::Path;

use mozart::api::request::RunSelector;
use mozart::job::plan::Plan;
use mozart::model::{Problem, SheetNo};

use super::modify;
use super::run::is_live;
use crate::attach::Manner;
use crate::cli::{ResumeArgs, RetryArgs};
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::job_file::{JobFile, Overrides};
use crate::link::Link;
use crate::output::Out;
use crate::text::{clean, shell_word};

/// Lets it go on and stays with it. A file names the job in it, and its checkpoint where nothing else is known.
pub(crate) async fn run(arguments: &ResumeArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    if arguments.force {
        out.warn(
            "--force changes nothing: what is completed is not run again by a resume; `mozartctl retry JOB --from SHEET` \
             does that",
        );
    }
    if arguments.self_healing {
        out.warn("--self-healing has no effect yet: no remedies are built in");
    }
    if arguments.config.is_some() || arguments.reload_config {
        return with_new_file(arguments, finder, out).await;
    }
    let target = arguments.target.as_str();
    if names_a_file(target) {
        let source = read(target, arguments, out)?;
        return finder
            .with(Need::Run, async |link| {
                from_file(link, &source, arguments.yes, arguments.detach, finder, out).await
            })
            .await;
    }
    finder
        .with(Need::Run, async |link| match link.select(target).await {
            Ok(selector) => {
                if arguments.workspace.is_some() {
                    out.warn("--workspace has no effect: a run stays in the workspace it was submitted with");
                }
                go_on(link, &selector, arguments.detach, finder, out).await
            }
            Err(error) if error.kind == Kind::NoSuchJob && Path::new(target).is_file() => {
                let source = read(target, arguments, out)?;
                from_file(link, &source, arguments.yes, arguments.detach, finder, out).await
            }
            Err(error) => Err(error),
        })
        .await
}

/// Gives the run the file, and goes on with it.
async fn with_new_file(arguments: &ResumeArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let overrides = modify::workspace(arguments.workspace.as_deref());
    finder
        .with(Need::Run, async |link| {
            let target = arguments.target.as_str();
            let selector = link.select(target).await?;
            let run = link.run(&selector).await?.summary;
            let path = match (&arguments.config, &run.job_file) {
                (Some(path), _) => path.clone(),
                (None, Some(path)) => path.into(),
                (None, None) => {
                    return Err(CliError::new(
                        Kind::Usage,
                        format!("{}#{} was not submitted from a file", clean(run.job.as_str()), run.run),
                    )
                    .hint("`mozartctl resume JOB --config FILE` names one"));
                }
            };
            let file = JobFile::read(&path)?;
            let modified = modify::take(link, &selector, &file, &overrides, true, out).await?;
            if !out.json && !out.quiet {
                modify::summary(&format!("{}#{}", clean(run.job.as_str()), run.run), &modified, out);
            }
            stay(link, &selector, arguments.detach, false, finder, out).await
        })
        .await
}

/// `retry JOB --from SHEET`: its sheets from that one on are run again, and it stays with it.
pub(crate) async fn again(arguments: &RetryArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Run, async |link| {
            let selector = link.select(&arguments.job).await?;
            link.retry(&selector, SheetNo(arguments.from)).await?;
            stay(link, &selector, arguments.detach, false, finder, out).await
        })
        .await
}

/// A checked job file.
pub(crate) struct Source {
    pub(crate) file: JobFile,
    pub(crate) overrides: Overrides,
    pub(crate) plan: Plan,
    pub(crate) problems: Vec<Problem>,
}

fn read(path: &str, arguments: &ResumeArgs, out: &Out) -> Result<Source, CliError> {
    let file = JobFile::read(Path::new(path))?;
    let overrides = Overrides {
        workspace: arguments.workspace.clone(),
        ..Overrides::default()
    };
    let (plan, problems) = file.plan(file.load(&overrides), out)?;
    Ok(Source {
        file,
        overrides,
        plan,
        problems,
    })
}

/// Lets the job of that file go on, and stays with it. With `yes` nobody is asked whether what its files tell is true.
pub(crate) async fn from_file(
    link: &mut Link,
    source: &Source,
    yes: bool,
    detach: bool,
    finder: &Finder<'_>,
    out: &Out,
) -> Result<ExitCode, CliError> {
    let selector = RunSelector {
        job: source.plan.name.to_string(),
        run: None,
    };
    match link.run(&selector).await {
        Ok(view) => {
            if view.summary.plan_hash != source.plan.hash {
                out.warn(&format!(
                    "{} has changed since {}#{} took it; the run goes on with the plan that it has",
                    source.file.shown, selector.job, view.summary.run
                ));
                let (job, file) = (shell_word(&selector.job), shell_word(&source.file.shown));
                out.note(&format!(
                    "  `mozartctl resume {job} --config {file}` goes on with the file as it is now"
                ));
            }
            go_on(link, &selector, detach, finder, out).await
        }
        Err(error) if error.kind == Kind::NoSuchJob => {
            let mut submit = source.file.submission(&source.plan, &source.overrides);
            submit.resume = true;
            let submitted = match link.submit(&submit).await {
                Err(guess) if guess.kind == Kind::Unconfirmed => {
                    confirm(guess, &source.file, yes, out)?;
                    submit.infer = true;
                    link.submit(&submit).await?
                }
                done => done?,
            };
            super::run::told(&submitted.problems, &source.problems, out);
            let selector = RunSelector {
                run: Some(submitted.run.0),
                ..selector
            };
            let told = (submitted.attached, submitted.problems.as_slice());
            let manner = Manner {
                introduce: true,
                fresh: false,
            };
            super::run::stay(link, finder, &selector, manner, detach, told, out).await
        }
        Err(error) => Err(error),
    }
}

/// Shows what the conductor guesses, and goes on only where somebody says yes to it.
fn confirm(guess: CliError, file: &JobFile, yes: bool, out: &Out) -> Result<(), CliError> {
    let question = clean(&guess.message);
    if yes {
        out.note(&format!("{question} Yes (--yes)"));
        return Ok(());
    }
    match out.ask(&format!("{question} [y]es or [n]o?"))?.as_deref() {
        Some("y" | "yes") => Ok(()),
        Some(_) => Err(CliError::new(Kind::Unconfirmed, "nothing was started")),
        None => {
            let file = shell_word(&file.shown);
            Err(guess.hint(format!(
                "`mozartctl resume --yes {file}` says yes to it, `mozartctl run {file}` begins anew"
            )))
        }
    }
}

async fn go_on(
    link: &mut Link,
    selector: &RunSelector,
    detach: bool,
    finder: &Finder<'_>,
    out: &Out,
) -> Result<ExitCode, CliError> {
    let live = match link.resume(selector).await {
        // A conductor in this process takes up live runs as it starts; and what goes on already need not be resumed.
        Err(error) if error.kind == Kind::WrongState && is_live(link.run(selector).await?.summary.state) => true,
        done => done.map(|()| false)?,
    };
    stay(link, selector, detach, live, finder, out).await
}

async fn stay(
    link: &mut Link,
    selector: &RunSelector,
    detach: bool,
    live: bool,
    finder: &Finder<'_>,
    out: &Out,
) -> Result<ExitCode, CliError> {
    let manner = Manner {
        introduce: true,
        fresh: false,
    };
    super::run::stay(link, finder, selector, manner, detach, (live, &[]), out).await
}

/// A word that can only be meant as a file.
fn names_a_file(target: &str) -> bool {
    let ending = Path::new(target).extension().and_then(|ending| ending.to_str());
    target.contains('/') || matches!(ending, Some("yaml" | "yml"))
}
