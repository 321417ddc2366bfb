//! Ctrl+C, SIGTERM and SIGHUP, as far as a verb that waits wants to know of them.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{CliError, Kind};

/// What the person (or the session's end) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl+C.
    Interrupt,
    /// SIGTERM or SIGHUP: nobody will ask a second time.
    End,
}

/// The three signals. Once made, they no longer end the process by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// [`Kind::System`] where the system refuses a handler.
    pub(crate) fn new() -> Result<Self, CliError> {
        let take = |kind| {
            signal(kind).map_err(|error| CliError::new(Kind::System, format!("signals cannot be received: {error}")))
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// The next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::End,
        }
    }
}
