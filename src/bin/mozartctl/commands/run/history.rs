//! What sheets of earlier runs took, for the estimate of a dry run.

use mozart::api::request::{RunFilter, RunSelector};
use mozart::job::estimate::Earlier;
use mozart::model::{Cost, SheetNo, SheetStatus, Span};
use mozart::summary::AttemptSummary;

use crate::connect::Finder;
use crate::error::CliError;
use crate::link::Link;

/// So many runs are looked at, the newest first,
const RUNS: u32 = 5;
/// until there are so many sheets.
const SHEETS: usize = 100;

/// What there was before.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Sheets of the job that were completed.
    pub(super) sheets: Vec<Earlier>,
    /// The runs that they are of.
    pub(super) runs: u32,
    /// Why it could not be read.
    unreadable: Option<String>,
}

impl History {
    /// Why there is none, where there is none.
    pub(super) fn why_none(&self) -> Option<String> {
        let never = || "no sheet of this job has been completed before".to_owned();
        self.sheets
            .is_empty()
            .then(|| self.unreadable.clone().unwrap_or_else(never))
    }
}

/// The history of a job. One that cannot be read is none: a dry run shows its plan all the same.
pub(super) async fn of(job: &str, finder: &Finder<'_>) -> History {
    let read = async {
        let Some(link) = finder.memory().await? else {
            return Ok(History::default());
        };
        let read = read(&link, job).await;
        link.shut_down().await;
        read
    };
    read.await.unwrap_or_else(|error: CliError| History {
        unreadable: Some(error.message),
        ..History::default()
    })
}

async fn read(link: &Link, job: &str) -> Result<History, CliError> {
    let filter = RunFilter {
        job: Some(job.to_owned()),
        ..RunFilter::default()
    };
    let mut history = History::default();
    for run in link.list(&filter, RUNS).await?.0 {
        let selector = RunSelector {
            job: job.to_owned(),
            run: Some(run.run.0),
        };
        let before = history.sheets.len();
        for sheet in link.sheets(&selector).await? {
            if sheet.state != SheetStatus::Completed || history.sheets.len() == SHEETS {
                continue;
            }
            let attempts = link.attempts(&selector, sheet.sheet_num).await?;
            history.sheets.extend(earlier(SheetNo(sheet.sheet_num), &attempts));
        }
        history.runs += u32::from(history.sheets.len() > before);
        if history.sheets.len() == SHEETS {
            break;
        }
    }
    Ok(history)
}

/// What a completed sheet took; `None` where no session of it ran.
fn earlier(sheet: SheetNo, attempts: &[AttemptSummary]) -> Option<Earlier> {
    let mut work = None;
    let (mut cost, mut all_known) = (None, true);
    let mut model = None;
    for attempt in attempts {
        let Some(report) = &attempt.report else { continue };
        let Some(began) = attempt.started_at.or(report.started_at) else {
            continue;
        };
        let so_far: Span = work.unwrap_or_default();
        work = Some(Span(so_far.0.saturating_add(report.ended_at.since(began).0.max(0))));
        let session = &report.session;
        match session.cost {
            Some(Cost(more)) => cost = Some(Cost(cost.map_or(0, |Cost(sum)| sum).saturating_add(more))),
            None => all_known &= !session.worked,
        }
        model = session.model.clone().or(model);
    }
    Some(Earlier {
        sheet,
        work: work?,
        cost: cost.filter(|_| all_known),
        model,
    })
}
