//! Rules that run a command: each run in a unit of its own beside the attempt's.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{Checks, Finding};
use crate::job::plan::SkipCommand;
use crate::model::{Certificate, Code, Exit, Span, StopHow};
use crate::runner::backend::redact;
use crate::runner::classify::{DIRECTORY_MISSING, OOM_KILL, START_FAILED, TIMEOUT};
use crate::runner::launch::record::{self, signal_name};
use crate::runner::launch::spool::Spool;
use crate::runner::launch::{Evidence, Launch, Launcher, StartOutcome};
use crate::runner::spec::Secrets;

/// Between TERM and KILL of a check that ran too long.
const GRACE: Span = Span(2_000_000);

/// Of each of a check's two outputs so much of the end is kept as evidence.
const EVIDENCE: u64 = 2048;

impl Checks<'_> {
    pub(super) async fn command(&self, command: &str, directory: Option<&str>, timeout: Span) -> Finding {
        match self.execute(command, directory, timeout).await {
            Ok((ended, spool)) => {
                let said = redact(&output(&spool), self.secrets).into_owned();
                judged(&ended, &spool, timeout, said)
            }
            Err(reason) => Finding::wrong(Code::E604, "error", reason),
        }
    }

    /// Whether a sheet's `skip_when_command` succeeds; another exit status than 0 says that it does not. The error says
    /// why that could not be found out.
    pub async fn is_needless(&self, skip: &SkipCommand, workspace: &str) -> Result<bool, String> {
        let (ended, spool) = self.execute(&skip.command, Some(workspace), skip.timeout).await?;
        match ended.exit {
            Exit::Code(0) if ended.result == "success" => Ok(true),
            // The shell's own words for what it could not run.
            Exit::Code(code) if ended.result != TIMEOUT && !matches!(code, 126 | 127) => Ok(false),
            _ => {
                let said = redact(&output(&spool), self.secrets).into_owned();
                let failure = judged(&ended, &spool, skip.timeout, said).failure;
                Err(failure.map(|wrong| wrong.reason).unwrap_or_default())
            }
        }
    }

    /// Runs a command to its end in a unit and a directory of its own. The error says why it could not be started.
    async fn execute(
        &self,
        command: &str,
        directory: Option<&str>,
        timeout: Span,
    ) -> Result<(Certificate, Spool), String> {
        let (number, spool) = self
            .new_spool()
            .map_err(|error| format!("the check's directory cannot be made: {error}"))?;
        let launch = Launch {
            unit: format!("{}-v{number}", self.unit),
            description: format!("check {number} of {}", self.unit),
            spool: spool.directory().to_owned(),
            input: Vec::new(),
            argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
            cwd: directory.unwrap_or("/").into(),
            env: self.env.clone(),
            secrets: Secrets::default(),
            timeout,
            stop_grace: GRACE,
        };
        let ended = match self.launcher.start(&launch).await {
            StartOutcome::Failed { message, .. } | StartOutcome::NoRoom(message) => return Err(message),
            // Where the answer was lost, the end tells: nothing else uses this name.
            StartOutcome::Started { .. } | StartOutcome::Unknown => {
                self.launcher.wait(&launch.unit, &launch.spool).await
            }
        };
        self.launcher.release(&launch.unit).await;
        Ok((ended, spool))
    }

    /// The directory of the next check of this attempt, made already: its number is taken.
    fn new_spool(&self) -> std::io::Result<(u32, Spool)> {
        let mut number = 1;
        while self.spool.join(format!("v{number}")).exists() {
            number += 1;
        }
        let spool = Spool::new(self.spool.join(format!("v{number}")));
        spool.create()?;
        Ok((number, spool))
    }
}

fn judged(ended: &Certificate, spool: &Spool, timeout: Span, said: String) -> Finding {
    let how = match ended.exit {
        Exit::Code(0) if ended.result == "success" => return Finding::good(evidence("exit status 0", &said)),
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("ended by SIG{}", signal_name(signal)),
        Exit::Unknown => "its end is not known".to_owned(),
    };
    let finding = match ended.result.as_str() {
        TIMEOUT => {
            let reason = format!("the command took longer than {} s and was ended", timeout.as_secs_f64());
            Finding::wrong(Code::E204, "error", reason).hint("Raise the rule's timeout_seconds, or check less.")
        }
        DIRECTORY_MISSING | START_FAILED => {
            let why = spool.exec_error().map_or(how.clone(), |error| error.message);
            Finding::wrong(Code::E604, "error", format!("the check could not be run: {why}"))
        }
        OOM_KILL => Finding::wrong(Code::E203, "error", "the command ran out of memory"),
        _ => Finding::wrong(Code::E203, "error", format!("the command failed: {how}")),
    };
    finding.expected("exit status 0").actual(evidence(&how, &said))
}

fn evidence(how: &str, said: &str) -> String {
    match said.trim_end() {
        "" => format!("{how}, no output"),
        said => format!("{how}, output:\n{said}"),
    }
}

/// The ends of both outputs.
fn output(spool: &Spool) -> String {
    let own = record::find(&spool.stdout()).ok().flatten().map(|(_, own)| own);
    let mut said = end_of(&spool.stdout(), own);
    let errors = end_of(&spool.stderr(), None);
    if !said.is_empty() && !said.ends_with('\n') && !errors.is_empty() {
        said.push('\n');
    }
    said + &errors
}

/// The last bytes of a file, from the beginning of a line where it was cut; nothing where it cannot be read.
fn end_of(path: &Path, length: Option<u64>) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = length.unwrap_or(file.metadata()?.len());
        let from = length.saturating_sub(EVIDENCE);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(length - from).read_to_end(&mut bytes)?;
        std::io::Result::Ok((from > 0, bytes))
    };
    let Ok((cut, bytes)) = read() else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.split_once('\n') {
        Some((_, rest)) if cut => format!("…\n{rest}"),
        _ => text.into_owned(),
    }
}

/// Ends the checks of an attempt that still run: those of a conductor that was killed while it validated, or of a
/// validation that was broken off.
pub async fn end_leftovers(launcher: &Launcher, unit: &str, spool: &Path) {
    let names = fs::read_dir(spool)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let checks: Vec<String> = names
        .filter(|name| {
            name.strip_prefix('v')
                .is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .collect();
    for check in checks {
        let (unit, own) = (format!("{unit}-{check}"), spool.join(&check));
        if Spool::new(&own).record().is_some() {
            continue;
        }
        if let Ok(Evidence::Running { .. }) = launcher.evidence(&unit, &own).await
            && launcher.stop(&unit, &own, StopHow::Kill).await.is_ok()
        {
            launcher.wait(&unit, &own).await;
        }
        launcher.release(&unit).await;
    }
}
