//! `cancel JOB`: its sessions end, and with them the run.

use crate::cli::CancelArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::output::Out;

/// Asks for it; returns when that is durable, which is before the last session is gone.
pub(crate) async fn run(arguments: &CancelArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let selector = link.select(&arguments.job).await?;
            link.cancel(&selector).await?;
            super::pause::tell(link, &selector, "being cancelled", out).await?;
            Ok(ExitCode::Done)
        })
        .await
}
