//! SQLite: the journal of facts, the rows that are told from it, and the checkpoints in workspaces.
//!
//! The journal is the truth. [`Ledger::commit`] appends facts and follows them in the rows of runs and sheets
//! in one transaction; when it returns, what is acted on survives a power cut (write-ahead log, `synchronous=FULL`).
//! Attempts have no rows of their own: an attempt is the few facts about it, found by run and sheet, and its
//! report lies beside the fact that ended it. So a commit touches few pages, and costs the same at the end of
//! a long run as at its start.
//!
//! One process at a time: the ledger is opened under an exclusive lock, without waiting.
//! A damaged one is looked at without a write, set aside as it was found, and a new one begun.
//! This room decides nothing, and knows neither sessions nor the bus.

pub mod checkpoint;
mod codec;
mod damage;
mod error;
mod evidence;
mod export;
#[cfg(test)]
pub(crate) mod faults;
mod files;
mod journal;
mod lock;
mod query;
mod rows;
mod schema;
mod spending;
mod table;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::job::plan::{Plan, SubmitContext};
use crate::model::{RunId, Timestamp};

pub use damage::{SetAside, last_set_aside};
pub use error::{Holder, OpenError, StoreError};
pub use journal::{Batch, Committed, Submission};

/// The open ledger; no other process can open it meanwhile.
#[derive(Debug)]
pub struct Ledger {
    id: Uuid,
    path: PathBuf,
    /// What SQLite found damaged while it was read or written.
    damage: OnceLock<String>,
    store: Mutex<Store>,
    // After the connection, so that dropping it waits until that is closed.
    closed: Closed,
}

/// The lock as SQLite's connection owns it: let go when that has closed its files, and the sender after it.
struct Held {
    _lock: lock::LockFile,
    _closed: mpsc::Sender<()>,
}

/// Waits, when it goes, until SQLite has closed its files and the lock is free: a connection closes on a thread of
/// its own, a moment after it was dropped.
#[derive(Debug)]
struct Closed(std::sync::Mutex<mpsc::Receiver<()>>);

impl Drop for Closed {
    fn drop(&mut self) {
        if let Ok(closed) = self.0.get_mut() {
            // Nothing is ever sent: the sender's end is the news.
            closed.recv().ok();
        }
    }
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
    /// Whom SQLite asks whether it may go on.
    #[cfg(test)]
    faults: Option<Arc<faults::Faults>>,
}

impl Ledger {
    /// Opens the ledger at `path` under an exclusive lock, without waiting; makes it, and the directory it is in
    /// (0700), where they are missing. An older schema is brought up to date, after a copy was made beside it.
    ///
    /// # Errors
    /// [`OpenError::Held`] names the process that has it open; the others say what is wrong with the file.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, None, schema::MIGRATIONS)
            .await
            .map(|(ledger, _)| ledger)
    }

    /// The same; a damaged one is set aside as it was found, under a name with the time `at`, and a new one begun.
    ///
    /// # Errors
    /// As [`Self::open`], but for damage.
    pub async fn open_or_set_aside(path: &Path, at: Timestamp) -> Result<(Self, Option<SetAside>), OpenError> {
        match Self::open_with(path, Some(at), schema::MIGRATIONS).await {
            // Not seen by the look that writes nothing, but by SQLite's own opening.
            Err(error) if error.is_damage() => {
                note(path, &error.to_string())?;
                Self::open_with(path, Some(at), schema::MIGRATIONS).await
            }
            other => other,
        }
    }

    async fn open_with(
        path: &Path,
        at: Option<Timestamp>,
        migrations: &[&'static str],
    ) -> Result<(Self, Option<SetAside>), OpenError> {
        if let Some(parent) = path.parent() {
            files::private_directory(parent)?;
        }
        let lock = lock::LockFile::take(path)?;
        let (schema, set_aside) = match (damage::look(path).await, at) {
            (Ok(schema), _) => (schema, None),
            (Err(error), Some(at)) if error.is_damage() => (0, Some(damage::set_aside(path, error.to_string(), at)?)),
            (Err(error), _) => return Err(error),
        };
        let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
        if schema > known {
            return Err(schema::Trouble::Newer { found: schema, known }.of(path));
        }
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
        let (sender, receiver) = mpsc::channel();
        // Declared before the connection, so that a failure returns only when the files are closed.
        let closed = Closed(std::sync::Mutex::new(receiver));
        let held = Held {
            _lock: lock,
            _closed: sender,
        };
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
            // The lock above is held, so nobody is waited for but another program that looks at the file.
            .busy_timeout(Duration::from_millis(80))
            .pragma("temp_store", "memory")
            // No order is asked for: SQLite lets go what belongs to a collation after it has closed its files.
            .collation("mozart_lock", move |left, right| {
                let _held = &held;
                left.cmp(right)
            })
            .disable_statement_logging();
        let wrap = |error: sqlx::Error| open_error(path, &error);
        let connected = options.connect().await.map_err(wrap);
        // It holds the lock too.
        drop(options);
        let mut connection = connected?;
        if (1..known).contains(&schema) {
            let copy = damage::free(path, &format!("ledger-schema-{schema}"));
            drop(files::open_private(&copy)?);
            let copied = sqlx::query("VACUUM INTO ?").bind(copy.to_string_lossy().into_owned());
            copied.execute(&mut connection).await.map_err(wrap)?;
            tracing::info!(
                "the ledger's schema {schema} becomes {known}; a copy is kept as {}",
                copy.display()
            );
        }
        let prepared = schema::prepare(&mut connection, migrations).await;
        prepared.map_err(|trouble| trouble.of(path))?;
        let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'ledger'")
            .fetch_one(&mut connection)
            .await
            .map_err(wrap)?;
        let id = Uuid::parse_str(&id).map_err(|error| OpenError::Corrupt {
            path: path.to_owned(),
            detail: format!("its id {id:?}: {error}"),
        })?;
        let ledger = Self {
            id,
            path: path.to_owned(),
            damage: OnceLock::new(),
            store: Mutex::new(Store {
                connection,
                synchronous: true,
                unfinished: false,
                sources: Vec::new(),
                #[cfg(test)]
                faults: None,
            }),
            closed,
        };
        Ok((ledger, set_aside))
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found damaged since it was opened. It is noted beside the ledger, and nothing more is to be done
    /// with this one: the next opening sets it aside.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Notes that it is damaged.
    pub fn condemn(&self, why: String) {
        if self.damage.set(why.clone()).is_ok()
            && let Err(error) = note(&self.path, &why)
        {
            tracing::error!("{error}");
        }
    }

    /// Closes the ledger: the log is copied back, then the lock let go. Dropping it does the same.
    ///
    /// # Errors
    /// What SQLite says; everything that was committed is kept in any case.
    pub async fn close(self) -> Result<(), StoreError> {
        let Self {
            path, store, closed, ..
        } = self;
        let closing = store.into_inner().connection.close().await;
        drop(closed);
        closing.map_err(|error| store_error("close", &path, &error))
    }

    /// From now on every write fails, as on a full disk; or none does any more.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self, refuse: bool) {
        self.have_done(if refuse {
            "PRAGMA query_only = ON"
        } else {
            "PRAGMA query_only = OFF"
        })
        .await;
    }

    /// From now on nobody can read or book what was spent; or they can again.
    #[cfg(test)]
    pub(crate) async fn hide_spending(&self, hide: bool) {
        self.have_done(if hide {
            "ALTER TABLE spending RENAME TO hidden"
        } else {
            "ALTER TABLE hidden RENAME TO spending"
        })
        .await;
    }

    #[cfg(test)]
    async fn have_done(&self, statement: &'static str) {
        let mut store = self.store().await.unwrap();
        let done = store.connection.execute(statement).await;
        assert!(done.is_ok(), "{done:?}");
    }

    /// The connection, outside of any transaction.
    async fn store(&self) -> Result<MutexGuard<'_, Store>, StoreError> {
        let mut store = self.store.lock().await;
        #[cfg(test)]
        if let Some(faults) = &store.faults {
            faults.called();
        }
        // What it would read of a transaction that was given up was never kept.
        store.roll_back().await.map_err(self.writing())?;
        Ok(store)
    }

    fn reading(&self) -> impl Fn(sqlx::Error) -> StoreError {
        |error| self.failed("read", &error)
    }

    fn writing(&self) -> impl Fn(sqlx::Error) -> StoreError {
        |error| self.failed("write", &error)
    }

    fn failed(&self, activity: &'static str, error: &sqlx::Error) -> StoreError {
        let told = store_error(activity, &self.path, error);
        if is_damage(error) {
            self.condemn(told.to_string());
        }
        told
    }
}

impl Store {
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.begin_with(self.synchronous).await
    }

    /// Begins what waits for the disk at its end, or does not; one that does takes those before it along.
    async fn begin_with(&mut self, waits: bool) -> Result<(), sqlx::Error> {
        let begin = match (waits == self.synchronous, waits) {
            (true, _) => "BEGIN IMMEDIATE",
            (false, true) => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
            (false, false) => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
        };
        self.unfinished = true;
        self.connection.execute(begin).await?;
        self.synchronous = waits;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("COMMIT").await?;
        self.unfinished = false;
        Ok(())
    }

    /// Ends what was begun and not finished. Where that fails it is tried again before anything else is done.
    async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        if self.unfinished {
            let done = self.connection.execute("ROLLBACK").await;
            // SQLite may have done so already (a full disk): its error is no news.
            if let Err(error) = done
                && code_and_words(&error).0 != SQLITE_ERROR
            {
                return Err(error);
            }
            self.unfinished = false;
        }
        Ok(())
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

const SQLITE_ERROR: i64 = 1;
const SQLITE_BUSY: i64 = 5;
const SQLITE_READONLY: i64 = 8;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_NOTADB: i64 = 26;

/// Whether SQLite found the file damaged, or a row holds what was never written to it.
fn is_damage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => matches!(code_and_words(error).0, SQLITE_CORRUPT | SQLITE_NOTADB),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}

fn note(path: &Path, why: &str) -> Result<(), OpenError> {
    damage::note(path, why).map_err(|source| OpenError::Io {
        activity: "note the damage of",
        path: path.to_owned(),
        source,
    })
}

fn open_error(path: &Path, error: &sqlx::Error) -> OpenError {
    let (code, detail) = code_and_words(error);
    let path = path.to_owned();
    match code {
        SQLITE_BUSY => OpenError::Held {
            path,
            holder: Holder::OtherProgram,
        },
        // The file itself can be written: so its header says that it must not be.
        SQLITE_CORRUPT | SQLITE_READONLY => OpenError::Corrupt { path, detail },
        SQLITE_NOTADB => OpenError::NotADatabase { path },
        _ if is_damage(error) => OpenError::Corrupt { path, detail },
        _ => OpenError::Database { path, detail },
    }
}

fn store_error(activity: &'static str, path: &Path, error: &sqlx::Error) -> StoreError {
    let (code, mut detail) = code_and_words(error);
    if is_damage(error) {
        detail.push_str("; it is damaged, and the next start sets it aside: then `mozartctl resume FILE.yaml` goes on");
    }
    StoreError::Database {
        activity,
        path: path.to_owned(),
        detail,
        full: code == SQLITE_FULL,
    }
}
