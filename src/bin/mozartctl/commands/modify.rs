//! `modify JOB -c FILE`: a run takes the job file as it is now.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use mozart::api::request::{Modified, RunSelector, SheetsChange};
use mozart::model::{RunState, SheetStatus};
use mozart::summary::{RunSummary, SheetSummary};

use super::run::told;
use crate::attach::Manner;
use crate::cli::ModifyArgs;
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::job_file::{JobFile, Overrides};
use crate::json::Changed;
use crate::link::Link;
use crate::output::{Out, Paint, Row};
use crate::signals::Signals;
use crate::text::{clean, count, shell_word};

/// Gives it the file, and says what that means.
pub(crate) async fn run(arguments: &ModifyArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let file = JobFile::read(&arguments.config)?;
    let need = if arguments.resume { Need::Run } else { Need::Answer };
    finder
        .with(need, async |link| {
            let selector = link.select(&arguments.job).await?;
            let before = link.run(&selector).await?.summary;
            let overrides = workspace(arguments.workspace.as_deref());
            let modified = take(link, &selector, &file, &overrides, arguments.resume, out).await?;
            let selector = RunSelector {
                run: Some(modified.run.0),
                ..selector
            };
            show(link, &selector, &before, &modified, out).await?;
            if arguments.resume && link.is_embedded() {
                // There is no service to leave it to.
                let manner = Manner {
                    introduce: true,
                    fresh: false,
                };
                return super::run::stay(link, finder, &selector, manner, true, (true, &[]), out).await;
            }
            if arguments.wait {
                return until_taken(link, &selector, &modified, arguments.timeout).await;
            }
            Ok(ExitCode::Done)
        })
        .await
}

/// The workspace that the command line names, if it does.
pub(crate) fn workspace(path: Option<&Path>) -> Overrides {
    Overrides {
        workspace: path.map(Path::to_owned),
        ..Overrides::default()
    }
}

/// Gives a run the file; problems of the file are shown as they are of any other.
pub(crate) async fn take(
    link: &Link,
    run: &RunSelector,
    file: &JobFile,
    overrides: &Overrides,
    resume: bool,
    out: &Out,
) -> Result<Modified, CliError> {
    let mut submit = file.for_a_run(overrides, out)?;
    submit.resume = resume;
    let modified = link.modify(run, &submit).await.inspect_err(|error| {
        if !error.problems.is_empty() {
            out.report(&file.report(&error.problems, out.stderr_color()));
        }
    })?;
    told(&modified.problems, &[], out);
    Ok(modified)
}

async fn show(
    link: &Link,
    selector: &RunSelector,
    before: &RunSummary,
    modified: &Modified,
    out: &Out,
) -> Result<(), CliError> {
    let run = link.run(selector).await?.summary;
    if out.json {
        out.document(&Changed::new(&run, modified));
        return Ok(());
    }
    let label = format!("{}#{}", clean(run.job.as_str()), run.run);
    summary(&label, modified, out);
    if run.state != before.state {
        out.line(&format!("{label} {}", run.state));
    }
    if run.state == RunState::Paused {
        let job = shell_word(run.job.as_str());
        out.note(&format!("`mozartctl resume {job}` lets it go on"));
    }
    Ok(())
}

/// What changed, in a line, and what it means for the sheets, in a line each.
pub(crate) fn summary(label: &str, modified: &Modified, out: &Out) {
    if modified.parts.is_empty() {
        out.line(&format!("{label}: nothing has changed"));
        return;
    }
    out.line(&format!(
        "{label} takes the new plan; it differs in {}",
        modified.parts.join(", ")
    ));
    let rows: Vec<Row> = modified.sheets.iter().map(row).collect();
    out.table(&rows);
}

fn row(change: &SheetsChange) -> Row {
    let SheetsChange {
        first,
        last,
        state,
        becomes,
    } = change;
    let sheets = if first == last {
        format!("  sheet {first}")
    } else {
        format!("  sheets {first}-{last}")
    };
    let (words, paint) = match becomes.as_str() {
        "kept" => ("stays so", Paint::Dim),
        "next_attempt" => ("goes on with the old plan until its attempt ends", Paint::Busy),
        "new_plan" => ("takes the new plan", Paint::Plain),
        "reopened" => ("is run again with the new plan", Paint::Good),
        "added" => ("is new", Paint::Good),
        "dropped" => ("is not in the plan any more", Paint::Warn),
        other => (other, Paint::Plain),
    };
    let state = if becomes == "added" {
        String::new()
    } else {
        state.to_string()
    };
    vec![(sheets, Paint::Plain), (state, Paint::Plain), (words.to_owned(), paint)]
}

/// Waits until the attempts have ended that were at work with the old plan, at most so many seconds.
async fn until_taken(
    link: &Link,
    selector: &RunSelector,
    modified: &Modified,
    seconds: f64,
) -> Result<ExitCode, CliError> {
    let old = modified.sheets.iter().filter(|change| change.becomes == "next_attempt");
    let old: BTreeSet<u32> = old.flat_map(|change| change.first..=change.last).collect();
    let at_work = |sheet: &SheetSummary| old.contains(&sheet.sheet_num) && sheet.state == SheetStatus::Running;
    let attempt = |sheet: &SheetSummary| (sheet.sheet_num, sheet.attempts);
    let mut signals = Signals::new()?;
    let mut changes = link.watch(&selector.job).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
    let mut left: Option<BTreeSet<(u32, u32)>> = None;
    loop {
        let sheets = link.sheets(selector).await?;
        let now: BTreeSet<_> = sheets.iter().filter(|sheet| at_work(sheet)).map(attempt).collect();
        let still = match left.take() {
            Some(left) => &left & &now,
            None => now,
        };
        if still.is_empty() {
            return Ok(ExitCode::Done);
        }
        let running = u32::try_from(still.len()).unwrap_or(u32::MAX);
        left = Some(still);
        tokio::select! {
            () = Link::moved(&mut changes, Duration::from_secs(5)) => {}
            _ = signals.next() => return Ok(ExitCode::Interrupted),
            () = tokio::time::sleep_until(deadline) => {
                return Err(CliError::new(
                    Kind::Refused,
                    format!(
                        "{} of {} still at work with the old plan after {seconds} s; the new one is for their next attempts",
                        count(running, "sheet"),
                        clean(&selector.job)
                    ),
                )
                .hint("`mozartctl pause --now` stops running sessions; they go on with the new plan when the run is resumed"));
            }
        }
    }
}
