//! `status [JOB]`: a run with its sheets, or all that are live or ended recently.

use std::time::Duration;

use mozart::api::request::{RunFilter, RunSelector};
use mozart::api::view::RunView;
use mozart::model::{RunState, SheetStatus};
use mozart::summary::{RunSummary, SheetSummary};
use serde::Serialize;

use super::list::{of_run, of_sheet, rows};
use super::run::is_live;
use crate::cli::StatusArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::json::{Question, Run, RunDetail};
use crate::link::Link;
use crate::narrator::{failure, next_step};
use crate::output::{Out, Paint};
use crate::signals::Signals;
use crate::text::{ago, clean, length, moment, money, now, tokens, whole};

/// Ended runs that the overview shows.
const RECENT: u32 = 10;
/// Runs that are not over, at most.
const LIVE: u32 = 200;
/// A picture of one run is at most so old.
const CLOCKS_MOVE: Duration = Duration::from_secs(5);
/// A picture of all runs is at most so old: there is no signal for all of them.
const OVERVIEW: Duration = Duration::from_secs(2);

/// `status` without a job: `{"runs": [...], "questions": [...]}`, live runs first.
#[derive(Debug, Serialize)]
struct Overview {
    runs: Vec<Run>,
    /// All that are open.
    questions: Vec<Question>,
}

/// Shows it, once or until it is over.
pub(crate) async fn run(arguments: &StatusArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let selector = match &arguments.job {
                Some(job) => Some(link.select(job).await?),
                None => None,
            };
            if arguments.watch {
                watch(link, selector.as_ref(), arguments.interval, out).await
            } else {
                show(link, selector.as_ref(), false, out).await.map(|_| ExitCode::Done)
            }
        })
        .await
}

/// Shows it again after every change, not more often than the interval, until nothing moves by itself any more.
async fn watch(link: &Link, job: Option<&RunSelector>, interval: f64, out: &Out) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    let mut changes = match job {
        Some(selector) => Some(link.watch(&selector.job).await?),
        None => None,
    };
    let pace = Duration::from_secs_f64(interval);
    loop {
        if out.stdout_is_terminal && !out.json {
            out.clear();
        }
        if !show(link, job, true, out).await? || out.is_closed() {
            return Ok(ExitCode::Done);
        }
        let moved = async {
            tokio::time::sleep(pace).await;
            match &mut changes {
                // Even where nothing else moves, the clocks on the screen do.
                Some(changes) => Link::moved(changes, pace.max(CLOCKS_MOVE)).await,
                None => tokio::time::sleep(OVERVIEW.saturating_sub(pace)).await,
            }
        };
        tokio::select! {
            () = moved => {}
            _ = signals.next() => return Ok(ExitCode::Interrupted),
        }
        if !out.stdout_is_terminal && !out.json {
            out.line("");
        }
    }
}

/// Shows one run or all; true while what is shown may still move.
async fn show(link: &Link, job: Option<&RunSelector>, watched: bool, out: &Out) -> Result<bool, CliError> {
    match job {
        Some(selector) => Ok(is_live(one(link, selector, watched, out).await?.summary.state)),
        None => all(link, watched, out).await,
    }
}

/// One run with its sheets.
async fn one(link: &Link, selector: &RunSelector, watched: bool, out: &Out) -> Result<RunView, CliError> {
    let view = link.run(selector).await?;
    let sheets = link
        .sheets(&RunSelector {
            run: Some(view.summary.run.0),
            ..selector.clone()
        })
        .await?;
    if out.json {
        picture(&RunDetail::new(&view, &sheets), watched, out);
    } else {
        describe(&view, &sheets, out);
    }
    Ok(view)
}

/// Every job's newest run: those that are not over, then the last that ended. True while one may still move.
async fn all(link: &Link, watched: bool, out: &Out) -> Result<bool, CliError> {
    let held = vec![RunState::Queued, RunState::Running, RunState::Waiting, RunState::Paused];
    let ended = vec![RunState::Completed, RunState::Failed, RunState::Cancelled];
    let filter = |states| RunFilter {
        job: None,
        states,
        newest: true,
    };
    let (mut runs, _) = link.list(&filter(held), LIVE).await?;
    let live = runs.iter().any(|run| is_live(run.state));
    let (recent, more) = link.list(&filter(ended), RECENT).await?;
    runs.extend(recent);
    let questions = link.questions().await?;
    if out.json {
        picture(
            &Overview {
                runs: runs.iter().map(Run::from).collect(),
                questions: questions.iter().map(Question::from).collect(),
            },
            watched,
            out,
        );
    } else if runs.is_empty() {
        out.line("No runs yet. `mozartctl run FILE` starts one.");
    } else {
        out.table(&rows(&runs, out));
        if more {
            out.note("`mozartctl list --all` shows older ones");
        }
        for question in &questions {
            out.line("");
            super::answer::describe(question, out);
        }
    }
    Ok(live)
}

/// JSON: a document, or with `--watch` a line for each picture.
fn picture(value: &impl Serialize, watched: bool, out: &Out) {
    if watched {
        out.json_line(value);
    } else {
        out.document(value);
    }
}

fn describe(view: &RunView, sheets: &[SheetSummary], out: &Out) {
    let run = &view.summary;
    out.line(&headline(run, out));
    let now = now();
    let mut facts: Vec<(&str, String)> = Vec::new();
    if !run.reason.is_empty() || run.until.is_some() {
        let until = run
            .until
            .map(|at| format!(" until {}", moment(at, now, &out.zone)))
            .unwrap_or_default();
        facts.push(("Reason", format!("{}{until}", clean(&run.reason))));
    }
    let mut counts = format!("{} of {} done", run.sheets_done, run.sheets_total);
    for (number, word) in [(run.sheets_running, "running"), (run.sheets_failed, "failed")] {
        if number > 0 {
            counts.push_str(&format!(", {number} {word}"));
        }
    }
    facts.push(("Sheets", counts));
    let mut times = format!("submitted {}", moment(run.submitted_at, now, &out.zone));
    if let Some(at) = run.started_at {
        times.push_str(&format!(", started {}", moment(at, now, &out.zone)));
    }
    match (run.started_at, run.ended_at) {
        (Some(from), Some(to)) => {
            times.push_str(&format!(
                ", ended {}, took {}",
                moment(to, now, &out.zone),
                length(to.since(from))
            ));
        }
        (None, Some(to)) => times.push_str(&format!(", ended {}", moment(to, now, &out.zone))),
        _ => {}
    }
    facts.push(("Times", times));
    if let Some(eta) = view.eta.filter(|_| run.state == RunState::Running) {
        facts.push(("Left", format!("about {}", whole(eta))));
    }
    if run.cost.is_some() || run.tokens_in + run.tokens_out > 0 {
        let cost = run.cost.map_or_else(|| "unknown".to_owned(), money);
        facts.push((
            "Cost",
            format!(
                "{cost}, {} tokens in, {} out",
                tokens(run.tokens_in),
                tokens(run.tokens_out)
            ),
        ));
    }
    if let Some(warning) = &run.warning {
        facts.push(("Budget", out.paint(Paint::Warn, &clean(warning))));
    }
    facts.push(("Workspace", clean(&run.workspace).into_owned()));
    for (name, value) in facts {
        out.line(&format!("  {}  {value}", out.paint(Paint::Dim, &format!("{name:>9}"))));
    }

    out.line("");
    let groups: Vec<_> = groups(sheets, out.verbose > 0).collect();
    let width = groups.iter().map(|group| label(group).len()).max().unwrap_or_default();
    for group in groups {
        if let Some(sheet) = group.first() {
            let state = out.paint(of_sheet(sheet.state), &format!("{:<9}", sheet.state.as_str()));
            let details = if group.len() == 1 {
                details(sheet, out)
            } else {
                clean(&sheet.reason).into_owned()
            };
            out.line(format!("  {:>width$}  {state}  {details}", label(group)).trim_end());
        }
        if let [sheet] = group {
            rules(sheet, width, out);
        }
    }
    if let Some(step) = next_step(run, sheets) {
        out.line("");
        out.line(&format!("Next: {step}"));
    }
}

fn headline(run: &RunSummary, out: &Out) -> String {
    let since = match run.state {
        RunState::Running => run.started_at.map(|at| format!(", started {}", ago(at, now()))),
        RunState::Completed | RunState::Failed | RunState::Cancelled => {
            run.ended_at.map(|at| format!(", {}", ago(at, now())))
        }
        RunState::Queued | RunState::Waiting | RunState::Paused => None,
    };
    format!(
        "{} {}  {}{}",
        out.paint(of_run(run.state), "●"),
        out.paint(Paint::Bold, &format!("{}#{}", clean(run.job.as_str()), run.run)),
        out.paint(of_run(run.state), run.state.as_str()),
        since.unwrap_or_default()
    )
}

/// Neighbours of which there is nothing to say but their state become one line.
fn groups(sheets: &[SheetSummary], each: bool) -> impl Iterator<Item = &[SheetSummary]> {
    let dull = |sheet: &SheetSummary| match sheet.state {
        SheetStatus::Pending | SheetStatus::Skipped | SheetStatus::Cancelled => true,
        SheetStatus::Completed => sheet.flags.is_empty() && sheet.attempts <= 1,
        SheetStatus::Running | SheetStatus::Waiting | SheetStatus::Failed => false,
    };
    sheets.chunk_by(move |a, b| !each && a.state == b.state && a.reason == b.reason && dull(a) && dull(b))
}

/// The number of a sheet, or the first and the last of a group.
fn label(group: &[SheetSummary]) -> String {
    match group {
        [sheet] => sheet.sheet_num.to_string(),
        [first, .., last] => format!("{}-{}", first.sheet_num, last.sheet_num),
        [] => String::new(),
    }
}

/// Everything that is to say of one sheet besides its state.
fn details(sheet: &SheetSummary, out: &Out) -> String {
    let mut parts = Vec::new();
    parts.extend(sheet.description.as_deref().map(|label| clean(label).into_owned()));
    parts.extend(match (sheet.started_at, sheet.ended_at) {
        (Some(from), Some(to)) => Some(length(to.since(from))),
        (Some(from), None) if sheet.state == SheetStatus::Running => Some(format!("for {}", whole(now().since(from)))),
        _ => None,
    });
    if sheet.attempts > 1 {
        parts.push(format!("{} attempts", sheet.attempts));
    }
    match sheet.state {
        SheetStatus::Failed | SheetStatus::Waiting => parts.push(failure(sheet)),
        SheetStatus::Running if sheet.attempts > 1 => parts.push(format!("before: {}", failure(sheet))),
        _ => parts.push(clean(&sheet.reason).into_owned()),
    }
    parts.extend(sheet.until.map(|at| format!("until {}", moment(at, now(), &out.zone))));
    if !sheet.flags.is_empty() {
        parts.push(format!("flagged: {}", clean(&sheet.flags.join("; "))));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// What its rules found: those that failed, or all.
fn rules(sheet: &SheetSummary, width: usize, out: &Out) {
    for rule in sheet.validations.iter().filter(|rule| !rule.passed || out.verbose > 0) {
        let (paint, word) = if rule.passed {
            (Paint::Good, "passed")
        } else {
            (Paint::Bad, "failed")
        };
        let reason = rule
            .reason
            .as_deref()
            .filter(|_| !rule.passed)
            .map(|text| format!(": {}", clean(text)));
        let rule = clean(&rule.description);
        out.line(&format!(
            "  {:>width$}  {} {rule}{}",
            "",
            out.paint(paint, word),
            reason.unwrap_or_default()
        ));
    }
}
