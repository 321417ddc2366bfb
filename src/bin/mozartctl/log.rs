//! Where an embedded conductor's messages go: to standard error, above the progress bar.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::cli::{Global, LogFormat, LogLevel};
use crate::error::{CliError, Kind};
use crate::output::Out;

/// Starts logging as the flags say, unless this process logs already.
pub(crate) fn start(global: &Global, out: &Out) -> Result<(), CliError> {
    let level = match (global.log_level, global.quiet, global.verbose) {
        (Some(level), _, _) => level,
        (None, true, _) => LogLevel::Error,
        (None, false, 0) => LogLevel::Warn,
        (None, false, 1) => LogLevel::Info,
        (None, false, _) => LogLevel::Debug,
    };
    // What happens to runs is told by the verb itself, unless messages were asked for.
    let asked = global.log_level.is_some() || global.verbose > 0;
    let wanted = filter_fn(move |message| asked || message.fields().field("MESSAGE_ID").is_none());
    // What other crates find worth saying is seldom worth reading.
    let failed = |error: &dyn std::fmt::Display| CliError::new(Kind::System, format!("logging cannot start: {error}"));
    let filter = EnvFilter::try_new(format!("warn,mozart={}", level.word())).map_err(|error| failed(&error))?;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(AboveBars(out.bars.clone()))
        .with_ansi(out.stderr_color());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match global.log_format {
        LogFormat::Console => {
            // The other fields are for the journal: they repeat the sentence.
            let sentence = debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{value:?}"),
                _ => Ok(()),
            });
            registry
                .with(
                    layer
                        .with_target(false)
                        .without_time()
                        .fmt_fields(sentence)
                        .with_filter(wanted),
                )
                .try_init()
        }
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_filter(wanted))
            .try_init(),
    };
    // It fails only where it was started before.
    drop(started);
    Ok(())
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
