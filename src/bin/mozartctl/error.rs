//! What goes wrong, as a person is told it: one message, hints, and a kind that decides the exit code.

use mozart::api::request::ApiError;
use mozart::model::{Problem, Severity};

use crate::exit_code::ExitCode;

/// What kind of trouble it is; the kind alone decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The conductor said no.
    Refused,
    /// A live run of another plan, or a paused one, is in the way.
    Busy,
    /// The run's state does not allow it.
    WrongState,
    /// It rests on a guess that nobody has said yes to.
    Unconfirmed,
    /// The job file has errors.
    InvalidJob,
    /// The command line asks for something that makes no sense.
    Usage,
    /// The file is missing, cannot be read, or is not YAML.
    Unreadable,
    /// No such job.
    NoSuchJob,
    /// No such run of the job.
    NoSuchRun,
    /// No such sheet or attempt.
    NoSuchSheet,
    /// No such question is open.
    NoSuchQuestion,
    /// No conductor can be reached or started.
    NoConductor,
    /// The conductor is going away; another may be there soon.
    Stopping,
    /// Something of the system failed (a full disk, a closed descriptor).
    System,
}

impl Kind {
    /// The word that `--json` shows.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::WrongState => "wrong_state",
            Self::Unconfirmed => "unconfirmed",
            Self::InvalidJob => "invalid_job",
            Self::Usage => "usage",
            Self::Unreadable => "unreadable",
            Self::NoSuchJob => "no_such_job",
            Self::NoSuchRun => "no_such_run",
            Self::NoSuchSheet => "no_such_sheet",
            Self::NoSuchQuestion => "no_such_question",
            Self::NoConductor => "no_conductor",
            Self::Stopping => "stopping",
            Self::System => "system",
        }
    }

    /// The exit code that follows.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Refused | Self::Busy | Self::WrongState | Self::Unconfirmed | Self::InvalidJob | Self::System => {
                ExitCode::Failed
            }
            Self::Usage | Self::Unreadable => ExitCode::Usage,
            Self::NoSuchJob | Self::NoSuchRun | Self::NoSuchSheet | Self::NoSuchQuestion => ExitCode::NoSuch,
            Self::NoConductor | Self::Stopping => ExitCode::NoConductor,
        }
    }
}

/// An error on its way to the person.
#[derive(Debug, Clone)]
pub(crate) struct CliError {
    /// Decides the exit code.
    pub(crate) kind: Kind,
    /// What happened and where, one or two sentences.
    pub(crate) message: String,
    /// What to do about it, each a line of its own.
    pub(crate) hints: Vec<String>,
    /// What is wrong with the job file, where that is it.
    pub(crate) problems: Vec<Problem>,
}

impl CliError {
    /// Whether the conductor went away, or is about to.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.kind, Kind::NoConductor | Kind::Stopping)
    }

    /// An error without hints.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hints: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        let (kind, problems) = match error {
            ApiError::NoSuchJob(_) => (Kind::NoSuchJob, Vec::new()),
            ApiError::NoSuchRun(_) => (Kind::NoSuchRun, Vec::new()),
            ApiError::NoSuchSheet(_) => (Kind::NoSuchSheet, Vec::new()),
            ApiError::NoSuchQuestion(_) => (Kind::NoSuchQuestion, Vec::new()),
            ApiError::InvalidJob { problems, .. } => (Kind::InvalidJob, problems),
            ApiError::InvalidArgument(_) => (Kind::Usage, Vec::new()),
            ApiError::Busy(_) => (Kind::Busy, Vec::new()),
            ApiError::WrongState(_) => (Kind::WrongState, Vec::new()),
            ApiError::Unconfirmed(_) => (Kind::Unconfirmed, Vec::new()),
            ApiError::QueueFull(_) | ApiError::NotSupported(_) | ApiError::Refused(_) => (Kind::Refused, Vec::new()),
            ApiError::Storage(_) => (Kind::System, Vec::new()),
            ApiError::Stopping(_) => (Kind::Stopping, Vec::new()),
        };
        let error = Self {
            kind,
            message,
            hints: problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .filter_map(|problem| problem.suggestion.clone())
                .collect(),
            problems,
        };
        match kind {
            // Some conductors say so themselves.
            Kind::NoSuchJob if !error.message.contains("mozartctl") => {
                error.hint("`mozartctl list --all` shows every job that is known")
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_decide_exit_codes() {
        let code = |error: ApiError| CliError::from(error).kind.exit_code().number();
        assert_eq!(code(ApiError::NoSuchJob("no job".into())), 4);
        assert_eq!(code(ApiError::NoSuchSheet("no sheet".into())), 4);
        assert_eq!(code(ApiError::Busy("busy".into())), 1);
        assert_eq!(code(ApiError::Refused("refused".into())), 1);
        assert_eq!(code(ApiError::InvalidArgument("bad".into())), 2);
        assert_eq!(code(ApiError::Stopping("bye".into())), 5);
        assert_eq!(Kind::Unreadable.exit_code().number(), 2);
        assert_eq!(Kind::NoConductor.exit_code().number(), 5);
    }
}
