//! `pause JOB`: nothing new of it starts.

use std::time::Duration;

use mozart::api::request::RunSelector;

use crate::cli::PauseArgs;
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::json::Accepted;
use crate::link::Link;
use crate::output::Out;
use crate::signals::Signals;
use crate::text::{clean, count, shell_word};

/// Asks for it; with `--wait`, returns when nothing of the run is running.
pub(crate) async fn run(arguments: &PauseArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let selector = link.select(&arguments.job).await?;
            link.pause(&selector, arguments.now).await?;
            let code = if arguments.wait {
                until_still(link, &selector, arguments.timeout).await?
            } else {
                ExitCode::Done
            };
            tell(link, &selector, "pausing", out).await?;
            Ok(code)
        })
        .await
}

/// Waits until no sheet of the run is running, at most so many seconds.
async fn until_still(link: &Link, selector: &RunSelector, seconds: f64) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    let mut changes = link.watch(&selector.job).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        let run = link.run(selector).await?.summary;
        if link.is_still(&run) {
            return Ok(ExitCode::Done);
        }
        tokio::select! {
            () = Link::moved(&mut changes, Duration::from_secs(5)) => {}
            _ = signals.next() => return Ok(ExitCode::Interrupted),
            () = tokio::time::sleep_until(deadline) => {
                return Err(CliError::new(
                    Kind::Refused,
                    format!("a sheet of {} still runs after {seconds} s; the run pauses when that ends", clean(&selector.job)),
                )
                .hint("`--now` stops running sessions; they go on when the run is resumed"));
            }
        }
    }
}

/// Says how the run stands after a request.
pub(crate) async fn tell(link: &Link, selector: &RunSelector, doing: &str, out: &Out) -> Result<(), CliError> {
    let run = link.run(selector).await?.summary;
    if out.json {
        out.document(&Accepted {
            id: run.job.as_str(),
            run: run.run.0,
            state: run.state.as_str(),
            attached: false,
            problems: &[],
        });
        return Ok(());
    }
    let running = match run.sheets_running {
        0 => String::new(),
        some => format!(" ({} still running)", count(some, "sheet")),
    };
    let state = if run.sheets_running > 0 {
        doing
    } else {
        run.state.as_str()
    };
    out.line(&format!("{}#{} {state}{running}", clean(run.job.as_str()), run.run));
    if !run.state.is_ended() {
        out.note(&format!(
            "`mozartctl resume {}` lets it go on",
            shell_word(run.job.as_str())
        ));
    }
    Ok(())
}
