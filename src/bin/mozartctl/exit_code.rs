//! The exit codes that scripts rely on; nothing else in the program names a number.

/// How `mozartctl` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// Done as asked; for `run`, `resume` and `wait`: the run completed.
    Done = 0,
    /// The run failed, the job file is invalid, or the request was refused.
    Failed = 1,
    /// Wrong usage, no such file, or not YAML.
    Usage = 2,
    /// The run is paused or cancelled, or waits for an answer that nobody is there to give; for `conductor-status`: not running.
    Held = 3,
    /// No such job, run, sheet or question.
    NoSuch = 4,
    /// No conductor can be reached or started.
    NoConductor = 5,
    /// Ctrl+C.
    Interrupted = 130,
}

impl ExitCode {
    /// The number that the shell sees.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}
