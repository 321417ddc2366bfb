//! Where an embedded conductor's messages go: to standard error, above the progress bar.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::{Global, LogFormat, LogLevel};
use crate::error::{CliError, Kind};
use crate::output::Out;

/// Starts logging as the flags say; once for a process.
pub(crate) fn start(global: &Global, out: &Out) -> Result<(), CliError> {
    let level = match (global.log_level, global.quiet, global.verbose) {
        (Some(level), _, _) => level,
        (None, true, _) => LogLevel::Error,
        (None, false, 0) => LogLevel::Warn,
        (None, false, 1) => LogLevel::Info,
        (None, false, _) => LogLevel::Debug,
    };
    // What other crates find worth saying is seldom worth reading.
    let filter = EnvFilter::try_new(format!("warn,mozart={}", level.word()));
    let filter = filter.map_err(|error| CliError::new(Kind::System, format!("logging cannot start: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AboveBars(out.bars.clone()))
        .with_ansi(out.stderr_color());
    let started = match global.log_format {
        LogFormat::Console => builder.compact().with_target(false).without_time().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CliError::new(Kind::System, format!("logging cannot start: {error}")))
}

/// Writes to standard error with the bars out of the way.
struct AboveBars(MultiProgress);

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// One message; it is written at once.
struct Line<'a>(&'a MultiProgress);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
