//! `logs [JOB]`: what a session says and does, also while it does it.

mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use mozart::api::request::{RunFilter, RunSelector};
use mozart::model::{RunState, SheetStatus};
use mozart::summary::{AttemptSummary, SheetSummary};

use self::stream::{Source, Stream};
use crate::cli::LogsArgs;
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::link::{Link, Watch};
use crate::narrator::is_over;
use crate::output::Out;
use crate::signals::Signals;
use crate::text::{clean, shell_word};

/// Runs that are not over, at most: more than one is already a question.
const LIVE: u32 = 20;

/// Shows it; with `--follow`, until the run is over.
pub(crate) async fn run(arguments: &LogsArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let run = match &arguments.job {
                Some(job) => link.select(job).await?,
                None => the_one(link).await?,
            };
            if arguments.follow {
                Follower {
                    link,
                    run: &run,
                    arguments,
                    out,
                    shown: BTreeMap::new(),
                }
                .follow()
                .await
            } else {
                once(link, &run, arguments, out).await
            }
        })
        .await
}

/// The run that is meant where none was named: the only live one, or else the newest.
async fn the_one(link: &Link) -> Result<RunSelector, CliError> {
    let states = vec![RunState::Running, RunState::Waiting, RunState::Queued];
    let (live, _) = link
        .list(
            &RunFilter {
                states,
                newest: true,
                ..RunFilter::default()
            },
            LIVE,
        )
        .await?;
    let run = match live.as_slice() {
        [one] => one.clone(),
        [] => {
            let (newest, _) = link.list(&RunFilter::default(), 1).await?;
            newest
                .into_iter()
                .next()
                .ok_or_else(|| CliError::new(Kind::NoSuchJob, "there are no runs yet"))?
        }
        several => {
            let names: Vec<_> = several.iter().map(|run| clean(run.job.as_str()).into_owned()).collect();
            return Err(
                CliError::new(Kind::Usage, format!("several runs are live: {}", names.join(", ")))
                    .hint("`mozartctl logs JOB` shows one of them"),
            );
        }
    };
    Ok(RunSelector {
        job: run.job.to_string(),
        run: Some(run.run.0),
    })
}

async fn once(link: &Link, run: &RunSelector, arguments: &LogsArgs, out: &Out) -> Result<ExitCode, CliError> {
    let sheet = match arguments.sheet {
        Some(sheet) => sheet,
        None => last_tried(&link.sheets(run).await?).ok_or_else(|| {
            CliError::new(
                Kind::NoSuchSheet,
                format!("no sheet of `{}` was started yet", clean(&run.job)),
            )
            .hint(format!(
                "`mozartctl logs -F {}` waits for the first",
                shell_word(&run.job)
            ))
        })?,
    };
    let attempt = match arguments.attempt {
        Some(attempt) => attempt,
        None => newest_attempt(link, run, sheet).await?,
    };
    let mut stream = open(link, run, sheet, attempt, arguments.raw, out).await?;
    stream.tail(arguments.lines, out)?;
    stream.finish(out);
    Ok(ExitCode::Done)
}

/// The sheet that runs, else the one that was started last.
fn last_tried(sheets: &[SheetSummary]) -> Option<u32> {
    let running = sheets
        .iter()
        .find(|sheet| sheet.state == SheetStatus::Running && sheet.attempts > 0);
    let last = || {
        sheets
            .iter()
            .filter(|sheet| sheet.attempts > 0)
            .max_by_key(|sheet| (sheet.started_at, sheet.sheet_num))
    };
    running.or_else(last).map(|sheet| sheet.sheet_num)
}

async fn newest_attempt(link: &Link, run: &RunSelector, sheet: u32) -> Result<u32, CliError> {
    let newest = link.attempts(run, sheet).await?.last().map(|attempt| attempt.attempt);
    newest.ok_or_else(|| {
        CliError::new(
            Kind::NoSuchSheet,
            format!("sheet {sheet} of `{}` was not started yet", clean(&run.job)),
        )
    })
}

async fn open(
    link: &Link,
    run: &RunSelector,
    sheet: u32,
    attempt: u32,
    raw: bool,
    out: &Out,
) -> Result<Stream, CliError> {
    let output = link.open_output(run, sheet, attempt).await?;
    let number = run.run.unwrap_or_default();
    out.note(&format!(
        "{}#{number} sheet {sheet}, attempt {attempt}:",
        clean(&run.job)
    ));
    let source = Source {
        id: run.job.clone(),
        run: number,
        sheet_num: sheet,
        attempt,
    };
    Stream::new(output, source, raw, out)
}

/// Goes from attempt to attempt and from sheet to sheet.
struct Follower<'a> {
    link: &'a Link,
    run: &'a RunSelector,
    arguments: &'a LogsArgs,
    out: &'a Out,
    /// How many attempts of each sheet were shown.
    shown: BTreeMap<u32, usize>,
}

impl Follower<'_> {
    async fn follow(mut self) -> Result<ExitCode, CliError> {
        let mut signals = Signals::new()?;
        let mut watch = self.link.watch(&self.run.job).await?;
        self.skip_history().await?;
        loop {
            if self.out.is_closed() {
                return Ok(ExitCode::Done);
            }
            if let Some((sheet, attempt)) = self.next().await? {
                *self.shown.entry(sheet).or_default() += 1;
                if self.attempt(sheet, attempt, &mut watch, &mut signals).await? {
                    return Ok(ExitCode::Interrupted);
                }
            } else if self.is_over().await? {
                return Ok(ExitCode::Done);
            } else {
                tokio::select! {
                    () = Link::moved(&mut watch, Duration::from_secs(10)) => {}
                    _ = signals.next() => return Ok(ExitCode::Interrupted),
                }
            }
        }
    }

    async fn attempts(&self, sheet: u32) -> Result<Vec<AttemptSummary>, CliError> {
        self.link
            .patiently(async || self.link.attempts(self.run, sheet).await)
            .await
    }

    /// Everything but the newest attempt is the past, and not shown.
    async fn skip_history(&mut self) -> Result<(), CliError> {
        let sheets = self.link.patiently(async || self.link.sheets(self.run).await).await?;
        let newest = self.arguments.sheet.or_else(|| last_tried(&sheets));
        for sheet in sheets.iter().filter(|sheet| sheet.attempts > 0) {
            let past = sheet.attempts as usize - usize::from(Some(sheet.sheet_num) == newest);
            self.shown.insert(sheet.sheet_num, past);
        }
        Ok(())
    }

    /// The first attempt that was not shown yet.
    async fn next(&self) -> Result<Option<(u32, u32)>, CliError> {
        let sheets = self.link.patiently(async || self.link.sheets(self.run).await).await?;
        for sheet in sheets.iter().filter(|sheet| sheet.attempts > 0 && self.wanted(sheet)) {
            let shown = self.shown.get(&sheet.sheet_num).copied().unwrap_or_default();
            if shown >= sheet.attempts as usize {
                continue;
            }
            if let Some(new) = self.attempts(sheet.sheet_num).await?.get(shown) {
                return Ok(Some((sheet.sheet_num, new.attempt)));
            }
        }
        Ok(None)
    }

    fn wanted(&self, sheet: &SheetSummary) -> bool {
        self.arguments.sheet.is_none_or(|wanted| wanted == sheet.sheet_num)
    }

    async fn is_over(&self) -> Result<bool, CliError> {
        if self.arguments.sheet.is_some() {
            let sheets = self.link.patiently(async || self.link.sheets(self.run).await).await?;
            if sheets
                .iter()
                .filter(|sheet| self.wanted(sheet))
                .all(|sheet| is_over(sheet.state))
            {
                return Ok(true);
            }
        }
        let run = self
            .link
            .patiently(async || self.link.run(self.run).await)
            .await?
            .summary;
        Ok(self.link.is_still(&run))
    }

    /// Shows one attempt until it is over; true: the person has had enough.
    async fn attempt(
        &self,
        sheet: u32,
        attempt: u32,
        watch: &mut Watch,
        signals: &mut Signals,
    ) -> Result<bool, CliError> {
        let mut stream = loop {
            let open = async || open(self.link, self.run, sheet, attempt, self.arguments.raw, self.out).await;
            match self.link.patiently(open).await {
                // It is intended, but its process has not made the file yet.
                Err(error) if error.kind == Kind::NoSuchSheet => {
                    if self.attempt_is_over(sheet, attempt).await? {
                        return Ok(false);
                    }
                    tokio::select! {
                        () = Link::moved(watch, Duration::from_millis(200)) => {}
                        _ = signals.next() => return Ok(true),
                    }
                }
                other => break other?,
            }
        };
        stream.tail(self.arguments.lines, self.out)?;
        loop {
            if stream.ended || self.out.is_closed() {
                break;
            }
            // Asked before the last look at the file, so that nothing written before its end is missed.
            let over = self.attempt_is_over(sheet, attempt).await?;
            stream.more(self.out)?;
            if over {
                break;
            }
            tokio::select! {
                () = stream.grown() => stream.more(self.out)?,
                () = Link::moved(watch, Duration::from_secs(10)) => {}
                _ = signals.next() => return Ok(true),
            }
        }
        stream.finish(self.out);
        Ok(false)
    }

    async fn attempt_is_over(&self, sheet: u32, attempt: u32) -> Result<bool, CliError> {
        let attempts = self.attempts(sheet).await?;
        Ok(attempts
            .iter()
            .find(|known| known.attempt == attempt)
            .is_none_or(|known| known.report.is_some()))
    }
}
