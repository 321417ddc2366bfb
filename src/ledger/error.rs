//! What can go wrong with the ledger, said for a person.

use std::path::PathBuf;

/// Why the ledger could not be opened. Nothing was changed in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the ledger {} is in use by {holder}", path.display())]
    Held {
        /// The ledger.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// A directory or file could not be made, read or written.
    #[error("cannot {activity} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `create the directory`.
        activity: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is no SQLite database.
    #[error(
        "{} is not a ledger: it is not an SQLite database; move it away to begin with an empty ledger",
        path.display()
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// An SQLite database, but some other program's.
    #[error("{} is an SQLite database, but not a ledger of Mozart; choose another place for the ledger", path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// A later version of Mozart wrote it.
    #[error(
        "the ledger {} has schema {found}, this Mozart knows {known}: it was written by a newer version; use that version",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The database is damaged.
    #[error("the ledger {} is damaged: {detail}; move it away, and restore a copy or begin anew", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// Anything else that SQLite says.
    #[error("cannot open the ledger {}: {detail}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
}

impl OpenError {
    /// Whether the file is a ledger no more: then it can be set aside.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::NotADatabase { .. } | Self::Corrupt { .. })
    }
}

/// The process that has the ledger open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A process that can be named.
    Process {
        /// Its number.
        pid: i32,
        /// Its command name; `None` where /proc does not tell.
        command: Option<String>,
    },
    /// A process that cannot be seen from here, such as one in another container, or this process itself.
    Unseen,
    /// A program that does not take Mozart's lock, such as `sqlite3`.
    OtherProgram,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process {
                pid,
                command: Some(command),
            } => write!(f, "{command} (pid {pid})"),
            Self::Process { pid, command: None } => write!(f, "the process with pid {pid}"),
            Self::Unseen => f.write_str("a process that cannot be named from here (in another container?)"),
            Self::OtherProgram => f.write_str("a program that reads the file directly (sqlite3?); close it"),
        }
    }
}

/// Why the open ledger could not be written or read. Of a failed commit nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite could not.
    #[error("cannot {activity} the ledger {}: {detail}", path.display())]
    Database {
        /// `write` or `read`.
        activity: &'static str,
        /// The ledger.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
        /// The disk, a quota or the file's size limit is used up.
        full: bool,
    },
    /// A fact of a version that this program does not know.
    #[error(
        "fact {seq} of the ledger has version {found}, this Mozart knows {known}: use the newer version that wrote it"
    )]
    NewerFact {
        /// Its place in the journal.
        seq: i64,
        /// Its version.
        found: u64,
        /// The newest version that this program knows.
        known: u16,
    },
    /// Something stored does not read as what it should be.
    #[error("{what} in the ledger cannot be read: {detail}")]
    Unreadable {
        /// Which row.
        what: String,
        /// Why not.
        detail: String,
    },
    /// A place in a list that no list gave.
    #[error("the cursor {0:?} is not one that a list of runs gave")]
    Cursor(String),
    /// The ledger has no such run.
    #[error("the ledger knows no run with the number {0}")]
    NoSuchRun(i64),
    /// The facts do not fit to what is stored: a fault of the program.
    #[error("the facts do not fit to the ledger: {0}")]
    Inconsistent(String),
}
