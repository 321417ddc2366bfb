//! SQLite: the journal of facts, the rows that are told from it, and the checkpoints in workspaces.
//!
//! The journal is the truth. [`Ledger::commit`] appends facts and follows them in the rows of runs and sheets
//! in one transaction; when it returns, what is acted on survives a power cut (write-ahead log, `synchronous=FULL`).
//! Attempts have no rows of their own: an attempt is the few facts about it, found by run and sheet, and its
//! report lies beside the fact that ended it. So a commit touches few pages, and costs the same at the end of
//! a long run as at its start.
//!
//! One process at a time: the ledger is opened under an exclusive lock, without waiting.
//! This room decides nothing, and knows neither sessions nor the bus.

pub mod checkpoint;
mod codec;
mod error;
mod evidence;
mod export;
mod files;
mod journal;
mod lock;
mod query;
mod rows;
mod schema;
mod table;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::job::plan::{Plan, SubmitContext};
use crate::model::RunId;

pub use error::{Holder, OpenError, StoreError};
pub use journal::{Batch, Submission};

/// The open ledger; no other process can open it meanwhile.
#[derive(Debug)]
pub struct Ledger {
    id: Uuid,
    path: PathBuf,
    store: Mutex<Store>,
    // After the connection, so that it is let go last.
    _lock: lock::LockFile,
}

/// The one connection.
#[derive(Debug)]
struct Store {
    connection: SqliteConnection,
    /// Each commit waits for the disk.
    synchronous: bool,
    /// A transaction was begun and not ended: a commit failed, or its caller went away.
    unfinished: bool,
    /// Plans read last, newest first: reading one of many sheets takes longer than all else that is asked of it.
    sources: Vec<(RunId, Arc<Plan>, Arc<SubmitContext>)>,
}

impl Ledger {
    /// Opens the ledger at `path` under an exclusive lock, without waiting; makes it, and the directory it is in
    /// (0700), where they are missing. An older schema is brought up to date.
    ///
    /// # Errors
    /// [`OpenError::Held`] names the process that has it open; the others say what is wrong with the file.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        if let Some(parent) = path.parent() {
            files::private_directory(parent)?;
        }
        let lock = lock::LockFile::take(path)?;
        // SQLite would make it readable for others. Closed again before SQLite opens it: closing a file later
        // would drop SQLite's own locks on it.
        drop(files::open_private(path)?);
        if let Some(parent) = path.parent() {
            files::sync_directory(parent).map_err(|source| OpenError::Io {
                activity: "write",
                path: parent.to_owned(),
                source,
            })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            // A commit changes a few bytes of several pages, and each page is written whole: with 1,024 bytes a
            // run wrote half as much again.
            .page_size(512)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Pages that change all the time are copied back once for many changes: at 4 MiB of log.
            .pragma("wal_autocheckpoint", "8192")
            // The lock above is held, so nobody is waited for but a connection of this process that is being closed.
            .busy_timeout(Duration::from_millis(80))
            .pragma("temp_store", "memory")
            .disable_statement_logging();
        let wrap = |error: sqlx::Error| open_error(path, &error);
        let mut connection = options.connect().await.map_err(wrap)?;
        schema::prepare(&mut connection)
            .await
            .map_err(|trouble| match trouble {
                schema::Trouble::Foreign => OpenError::NotALedger { path: path.to_owned() },
                schema::Trouble::Newer(found) => OpenError::Newer {
                    path: path.to_owned(),
                    found,
                    known: schema::KNOWN,
                },
                schema::Trouble::Database(error) => wrap(error),
            })?;
        let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'ledger'")
            .fetch_one(&mut connection)
            .await
            .map_err(wrap)?;
        let id = Uuid::parse_str(&id).map_err(|error| OpenError::Corrupt {
            path: path.to_owned(),
            detail: format!("its id {id:?}: {error}"),
        })?;
        let store = Mutex::new(Store {
            connection,
            synchronous: true,
            unfinished: false,
            sources: Vec::new(),
        });
        Ok(Self {
            id,
            path: path.to_owned(),
            store,
            _lock: lock,
        })
    }

    /// The ledger's own id, made when it was made.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The first eight hexadecimal digits of its id: part of every unit's name.
    pub fn tag(&self) -> String {
        let mut text = self.id.simple().to_string();
        text.truncate(8);
        text
    }

    /// Closes the ledger: the log is copied back, then the lock let go. Dropping it does the same some time later.
    ///
    /// # Errors
    /// What SQLite says; everything that was committed is kept in any case.
    pub async fn close(self) -> Result<(), StoreError> {
        let path = self.path;
        let store = self.store.into_inner();
        store
            .connection
            .close()
            .await
            .map_err(|error| store_error("close", &path, &error))
    }

    /// From now on every write fails, as on a full disk; or none does any more.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self, refuse: bool) {
        let pragma = if refuse {
            "PRAGMA query_only = ON"
        } else {
            "PRAGMA query_only = OFF"
        };
        let mut store = self.store().await;
        let done = store.connection.execute(pragma).await;
        assert!(done.is_ok(), "{done:?}");
    }

    /// The connection, outside of any transaction.
    async fn store(&self) -> MutexGuard<'_, Store> {
        let mut store = self.store.lock().await;
        store.roll_back().await;
        store
    }

    fn reading(&self) -> impl Fn(sqlx::Error) -> StoreError {
        |error| store_error("read", &self.path, &error)
    }

    fn writing(&self) -> impl Fn(sqlx::Error) -> StoreError {
        |error| store_error("write", &self.path, &error)
    }
}

impl Store {
    /// Whether the commits from now on wait for the disk; one that does takes those before it along.
    async fn synchronise(&mut self, wait: bool) -> Result<(), sqlx::Error> {
        if self.synchronous != wait {
            let pragma = if wait {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            };
            self.connection.execute(pragma).await?;
            self.synchronous = wait;
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.unfinished = true;
        self.connection.execute("BEGIN IMMEDIATE").await?;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("COMMIT").await?;
        self.unfinished = false;
        Ok(())
    }

    /// Ends what was begun and not finished. SQLite may have done so already (a full disk): its error is no news.
    async fn roll_back(&mut self) {
        if self.unfinished {
            self.connection.execute("ROLLBACK").await.ok();
            self.unfinished = false;
        }
    }
}

/// SQLite's primary result code and its words.
fn code_and_words(error: &sqlx::Error) -> (i64, String) {
    match error.as_database_error() {
        Some(database) => {
            let code = database.code().and_then(|code| code.parse::<i64>().ok()).unwrap_or(0);
            // The upper bits say more than is asked here.
            (code & 0xff, database.message().to_owned())
        }
        None => (0, error.to_string()),
    }
}

const SQLITE_BUSY: i64 = 5;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_NOTADB: i64 = 26;

fn open_error(path: &Path, error: &sqlx::Error) -> OpenError {
    let (code, detail) = code_and_words(error);
    let path = path.to_owned();
    match code {
        SQLITE_BUSY => OpenError::Held {
            path,
            holder: Holder::OtherProgram,
        },
        SQLITE_CORRUPT => OpenError::Corrupt { path, detail },
        SQLITE_NOTADB => OpenError::NotADatabase { path },
        _ => OpenError::Database { path, detail },
    }
}

fn store_error(activity: &'static str, path: &Path, error: &sqlx::Error) -> StoreError {
    let (code, detail) = code_and_words(error);
    StoreError::Database {
        activity,
        path: path.to_owned(),
        detail,
        full: code == SQLITE_FULL,
    }
}
