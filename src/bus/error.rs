//! The errors on the bus, one for one the [`ApiError`]s.

use std::collections::HashMap;

use zbus::OwnedVariant;

use super::convert::{self, ProblemRow};
use crate::api::request::ApiError;

/// Result of every call on the bus.
pub type Result<T> = std::result::Result<T, Error>;

/// What a call fails with: `org.mozart.Mozart1.Error.*`, each with one sentence for a person.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.mozart.Mozart1.Error", impl_display = false)]
pub enum Error {
    /// The ledger knows no such job.
    NoSuchJob(String),
    /// The job has no such run.
    NoSuchRun(String),
    /// The run has no such sheet or attempt.
    NoSuchSheet(String),
    /// No such question is open.
    NoSuchQuestion(String),
    /// The job file has errors; after the sentence the error's body carries them, as `Validate` returns them.
    InvalidJob(String, Vec<ProblemRow>),
    /// An argument or an option is wrong.
    InvalidArgument(String),
    /// A live run is in the way.
    Busy(String),
    /// The run's state does not allow it.
    WrongState(String),
    /// It rests on a guess, which the sentence tells; the option `infer` says yes to it.
    Unconfirmed(String),
    /// Too many runs.
    QueueFull(String),
    /// Not built or not possible here.
    NotSupported(String),
    /// The ledger or the spool cannot be written or read.
    Storage(String),
    /// The caller may not change anything.
    Refused(String),
    /// The conductor is stopping.
    Stopping(String),
    /// No answer from the conductor: not reachable, gone, or it speaks otherwise.
    #[zbus(name = "Unreachable")]
    Unreachable(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(zbus::DBusError::description(self).unwrap_or_default())
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NoSuchJob(text) => Self::NoSuchJob(text),
            ApiError::NoSuchRun(text) => Self::NoSuchRun(text),
            ApiError::NoSuchSheet(text) => Self::NoSuchSheet(text),
            ApiError::NoSuchQuestion(text) => Self::NoSuchQuestion(text),
            ApiError::InvalidJob { message, problems } => Self::InvalidJob(message, convert::problem_rows(&problems)),
            ApiError::InvalidArgument(text) => Self::InvalidArgument(text),
            ApiError::Busy(text) => Self::Busy(text),
            ApiError::WrongState(text) => Self::WrongState(text),
            ApiError::Unconfirmed(text) => Self::Unconfirmed(text),
            ApiError::QueueFull(text) => Self::QueueFull(text),
            ApiError::NotSupported(text) => Self::NotSupported(text),
            ApiError::Storage(text) => Self::Storage(text),
            ApiError::Refused(text) => Self::Refused(text),
            ApiError::Stopping(text) => Self::Stopping(text),
        }
    }
}

/// What a caller of the conductor gets: an answer of the conductor, or none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The conductor's own answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No answer: the conductor cannot be reached, or went away meanwhile.
    #[error("{0}")]
    Unreachable(String),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Api(match error {
            Error::NoSuchJob(text) => ApiError::NoSuchJob(text),
            Error::NoSuchRun(text) => ApiError::NoSuchRun(text),
            Error::NoSuchSheet(text) => ApiError::NoSuchSheet(text),
            Error::NoSuchQuestion(text) => ApiError::NoSuchQuestion(text),
            Error::InvalidJob(message, rows) => ApiError::InvalidJob {
                message,
                problems: rows.into_iter().map(Into::into).collect(),
            },
            Error::InvalidArgument(text) => ApiError::InvalidArgument(text),
            Error::Busy(text) => ApiError::Busy(text),
            Error::WrongState(text) => ApiError::WrongState(text),
            Error::Unconfirmed(text) => ApiError::Unconfirmed(text),
            Error::QueueFull(text) => ApiError::QueueFull(text),
            Error::NotSupported(text) => ApiError::NotSupported(text),
            Error::Storage(text) => ApiError::Storage(text),
            Error::Refused(text) => ApiError::Refused(text),
            Error::Stopping(text) => ApiError::Stopping(text),
            Error::Unreachable(text) => return Self::Unreachable(text),
        })
    }
}

impl From<zbus::Error> for CallError {
    fn from(error: zbus::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        match &error {
            zbus::Error::MethodError(name, text, message) => {
                let text = text.clone().unwrap_or_default();
                let Some(kind) = name.as_str().strip_prefix("org.mozart.Mozart1.Error.") else {
                    return Self::Unreachable(if text.is_empty() { name.to_string() } else { text });
                };
                match kind {
                    "NoSuchJob" => Self::NoSuchJob(text),
                    "NoSuchRun" => Self::NoSuchRun(text),
                    "NoSuchSheet" => Self::NoSuchSheet(text),
                    "NoSuchQuestion" => Self::NoSuchQuestion(text),
                    "InvalidJob" => Self::InvalidJob(text, problems_in(message)),
                    "InvalidArgument" => Self::InvalidArgument(text),
                    "Busy" => Self::Busy(text),
                    "WrongState" => Self::WrongState(text),
                    "Unconfirmed" => Self::Unconfirmed(text),
                    "QueueFull" => Self::QueueFull(text),
                    "NotSupported" => Self::NotSupported(text),
                    "Storage" => Self::Storage(text),
                    "Refused" => Self::Refused(text),
                    "Stopping" => Self::Stopping(text),
                    _ => Self::Unreachable(text),
                }
            }
            zbus::Error::FDO(fdo) => match &**fdo {
                zbus::fdo::Error::UnknownObject(_) => Self::NoSuchJob("no such job".to_owned()),
                zbus::fdo::Error::InvalidArgs(text) => Self::InvalidArgument(text.clone()),
                zbus::fdo::Error::UnknownMethod(text) | zbus::fdo::Error::UnknownInterface(text) => {
                    Self::NotSupported(format!("the running conductor does not know this: {text}"))
                }
                other => Self::Unreachable(
                    zbus::DBusError::description(other).map_or_else(|| other.to_string(), str::to_owned),
                ),
            },
            zbus::Error::InputOutput(_) => Self::Unreachable("the conductor closed the connection".to_owned()),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// The problems behind the sentence of an `InvalidJob`; none where the conductor sent none.
fn problems_in(message: &zbus::Message) -> Vec<ProblemRow> {
    let body = message.body();
    body.deserialize::<(String, Vec<ProblemRow>)>()
        .map(|(_, rows)| rows)
        .unwrap_or_default()
}

/// Options and rows as they travel: `a{sv}`.
pub type Dictionary = HashMap<String, OwnedVariant>;
