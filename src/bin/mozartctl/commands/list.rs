//! `list`: runs as a table.

use mozart::api::request::RunFilter;
use mozart::model::{RunState, SheetStatus};
use mozart::summary::RunSummary;

use crate::cli::ListArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::json::Run;
use crate::output::{Out, Paint, Row};
use crate::text::{clean, moment, money, now};

/// Runs that are not over, or those that the flags ask for.
pub(crate) async fn run(arguments: &ListArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let states = match (arguments.status.is_empty(), arguments.all) {
        (false, _) => arguments.status.clone(),
        (true, true) => Vec::new(),
        (true, false) => vec![RunState::Queued, RunState::Running, RunState::Waiting, RunState::Paused],
    };
    let filter = RunFilter {
        job: None,
        states,
        newest: false,
    };
    finder
        .with(Need::Answer, async |link| {
            let (runs, more) = link.list(&filter, arguments.limit).await?;
            show(&runs, more, arguments, out);
            Ok(ExitCode::Done)
        })
        .await
}

fn show(runs: &[RunSummary], more: bool, arguments: &ListArgs, out: &Out) {
    if out.json {
        out.document(&runs.iter().map(Run::from).collect::<Vec<_>>());
    } else if runs.is_empty() {
        let hint = if arguments.all || !arguments.status.is_empty() {
            ""
        } else {
            "; `mozartctl list --all` shows those that are over"
        };
        out.note(&format!("no such runs{hint}"));
    } else {
        out.table(&rows(runs, out));
        if more {
            out.note(&format!("only the newest {}; `--limit` shows more", arguments.limit));
        }
    }
}

/// The table of runs, with its heading.
pub(crate) fn rows(runs: &[RunSummary], out: &Out) -> Vec<Row> {
    let now = now();
    let heading = ["RUN", "STATE", "SHEETS", "SUBMITTED", "COST", "REASON"];
    let mut rows: Vec<Row> = vec![heading.map(|text| (text.to_owned(), Paint::Dim)).to_vec()];
    for run in runs {
        let failed = if run.sheets_failed > 0 {
            format!(" ({} failed)", run.sheets_failed)
        } else {
            String::new()
        };
        let until = run
            .until
            .map(|at| format!("until {} ", moment(at, now, &out.zone)))
            .unwrap_or_default();
        rows.push(vec![
            (format!("{}#{}", clean(run.job.as_str()), run.run), Paint::Bold),
            (run.state.to_string(), of_run(run.state)),
            (
                format!("{}/{}{failed}", run.sheets_done, run.sheets_total),
                Paint::Plain,
            ),
            (moment(run.submitted_at, now, &out.zone), Paint::Plain),
            (run.cost.map(money).unwrap_or_default(), Paint::Plain),
            (format!("{until}{}", clean(&run.reason)), Paint::Dim),
        ]);
    }
    rows
}

/// How a run's state is painted.
pub(crate) fn of_run(state: RunState) -> Paint {
    match state {
        RunState::Completed => Paint::Good,
        RunState::Running => Paint::Busy,
        RunState::Failed => Paint::Bad,
        RunState::Waiting | RunState::Paused | RunState::Cancelled => Paint::Warn,
        RunState::Queued => Paint::Plain,
    }
}

/// How a sheet's state is painted.
pub(crate) fn of_sheet(state: SheetStatus) -> Paint {
    match state {
        SheetStatus::Completed => Paint::Good,
        SheetStatus::Running => Paint::Busy,
        SheetStatus::Failed => Paint::Bad,
        SheetStatus::Waiting | SheetStatus::Cancelled => Paint::Warn,
        SheetStatus::Pending | SheetStatus::Skipped => Paint::Dim,
    }
}
