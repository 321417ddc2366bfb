//! `wait JOB`: a line for each change, and the exit code of its end.

use crate::attach::{self, Manner};
use crate::cli::WaitArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::output::Out;

/// Waits. Ctrl+C ends the waiting, not the run.
pub(crate) async fn run(arguments: &WaitArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let selector = link.select(&arguments.job).await?;
            attach::watch(
                link,
                finder,
                &selector,
                Manner {
                    introduce: false,
                    fresh: false,
                },
                out,
            )
            .await
        })
        .await
}
