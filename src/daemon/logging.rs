//! Where log lines go: to the journal with their fields where standard error is the journal, else to standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging for this process, once. `level` is a word (`error`, `warn`, `info`, `debug`, `trace`) or a filter as
/// tracing-subscriber's `EnvFilter` reads it.
///
/// # Errors
/// Where `level` is neither.
pub fn start(level: &str, identifier: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(match level {
        "error" | "warn" | "info" | "debug" | "trace" => format!("warn,mozart={level}"),
        other => other.to_owned(),
    })
    .map_err(|error| format!("`{level}` is no log level: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let journal = match libsystemd::logging::connected_to_journal() {
        true => tracing_journald::layer().ok(),
        false => None,
    };
    let started = match journal {
        Some(layer) => {
            let layer = layer
                .with_field_prefix(None)
                .with_syslog_identifier(identifier.to_owned());
            registry.with(layer).try_init()
        }
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .compact();
            registry
                .with(layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())))
                .try_init()
        }
    };
    started.map_err(|error| format!("logging cannot start: {error}"))
}
