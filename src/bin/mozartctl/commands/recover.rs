//! `recover JOB`: sheets whose rules hold are completed; nothing is run.

use mozart::api::request::{RecoveredSheet, RunSelector};
use mozart::model::{RunState, SheetNo, SheetStatus};

use crate::cli::RecoverArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::json::Recovered;
use crate::output::{Out, Paint};
use crate::text::{clean, count, shell_word};

/// Has the rules asked, and tells sheet by sheet what they gave.
pub(crate) async fn run(arguments: &RecoverArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let selector: RunSelector = link.select(&arguments.job).await?;
            let sheets = link
                .recover(&selector, arguments.sheet.map(SheetNo), arguments.dry_run)
                .await?;
            let run = link.run(&selector).await?.summary;
            if out.json {
                out.document(&Recovered::new(&run, arguments.dry_run, &sheets));
                return Ok(ExitCode::Done);
            }
            let label = format!("{}#{}", clean(run.job.as_str()), run.run);
            if sheets.is_empty() {
                out.line(&format!("{label}: every sheet is completed or skipped already"));
                return Ok(ExitCode::Done);
            }
            for sheet in &sheets {
                show(sheet, arguments.dry_run, out);
            }
            let recovered = sheets.iter().filter(|sheet| is_recovered(sheet)).count();
            let recovered = count(recovered, "sheet");
            if arguments.dry_run {
                out.line(&format!("{label}: {recovered} would be completed; nothing was changed"));
                return Ok(ExitCode::Done);
            }
            out.line(&format!("{label} {}: {recovered} completed", run.state));
            if run.state != RunState::Completed {
                let job = shell_word(run.job.as_str());
                out.note(&format!("`mozartctl resume {job}` runs the rest"));
            }
            Ok(ExitCode::Done)
        })
        .await
}

fn is_recovered(sheet: &RecoveredSheet) -> bool {
    sheet.is == SheetStatus::Completed && sheet.was != SheetStatus::Completed
}

fn show(sheet: &RecoveredSheet, dry_run: bool, out: &Out) {
    let (was, rules) = (sheet.was, sheet.rules_total);
    let text = if is_recovered(sheet) {
        let word = if dry_run { "would be completed" } else { "completed" };
        let rules = count(rules, "rule");
        out.paint(Paint::Good, &format!("{word} (was {was}; {rules} checked)"))
    } else {
        out.paint(Paint::Warn, &format!("stays {was}: {}", clean(&sheet.reason)))
    };
    out.line(&format!("sheet {}: {text}", sheet.sheet));
    for line in &sheet.failed {
        out.line(&format!("    {}", clean(line)));
    }
}
