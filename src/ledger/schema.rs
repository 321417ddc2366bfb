//! The schema and its migrations: numbered files beside this one, each run once, in order, in one transaction.

use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};

use super::error::OpenError;
use super::open_error;

/// In the header of every ledger, so that another program's database is not taken for one: "MZRT".
const APPLICATION_ID: i64 = 0x4d5a_5254;

/// Migration n brings a ledger from schema n to n + 1.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_spending.sql"),
    include_str!("migrations/0003_former_sources.sql"),
];

/// Reads the first pages of every table that the first schema has: of the tables, where an index would do.
pub(super) const TOUCH: &str = "SELECT value FROM meta WHERE key = 'ledger'; SELECT 1 FROM plans NOT INDEXED LIMIT 1; \
     SELECT 1 FROM runs NOT INDEXED LIMIT 1; SELECT 1 FROM live LIMIT 1; SELECT 1 FROM sources LIMIT 1; \
     SELECT 1 FROM facts NOT INDEXED LIMIT 1; SELECT 1 FROM sheets LIMIT 1; SELECT 1 FROM gates LIMIT 1";

/// What stands in the way of using a database.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Some other program's database.
    Foreign,
    /// A schema from the future.
    Newer {
        /// Its number.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// It is a ledger, but no longer says so.
    Damaged(String),
    /// SQLite could not.
    Database(sqlx::Error),
}

impl Trouble {
    /// The same, said of the ledger at `path`.
    pub(super) fn of(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Foreign => OpenError::NotALedger { path },
            Self::Newer { found, known } => OpenError::Newer { path, found, known },
            Self::Damaged(detail) => OpenError::Corrupt { path, detail },
            Self::Database(error) => open_error(&path, &error),
        }
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The database's schema; 0 where it is empty. Writes nothing.
pub(super) async fn look(connection: &mut SqliteConnection) -> Result<i64, Trouble> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?;
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await?;
    let ours = ["meta", "facts", "plans"]
        .iter()
        .all(|name| tables.iter().any(|table| table == name));
    match (application == APPLICATION_ID, ours, found) {
        (true, true, 1..) => Ok(found),
        (false, false, 0) if application == 0 && tables.is_empty() => Ok(0),
        (false, false, _) => Err(Trouble::Foreign),
        _ => Err(Trouble::Damaged("its header does not fit to its tables".to_owned())),
    }
}

/// Brings the database to the last of those schemas; an empty one is made a ledger.
pub(super) async fn prepare(connection: &mut SqliteConnection, migrations: &[&'static str]) -> Result<(), Trouble> {
    let found = look(connection).await?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(Trouble::Newer { found, known });
    }
    if found == known {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for migration in migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute(sqlx::raw_sql(*migration)).await?;
    }
    if found == 0 {
        // Version 4: SQLite's own random bytes save a dependency.
        let bytes: Vec<u8> = sqlx::query_scalar("SELECT randomblob(16)")
            .fetch_one(&mut *transaction)
            .await?;
        let bytes: [u8; 16] = bytes.try_into().unwrap_or_default();
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        sqlx::query("INSERT INTO meta (key, value) VALUES ('ledger', ?)")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
    }
    // Pragmas take no parameters; both values are this program's constants.
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known}");
    transaction.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(stamp))).await?;
    transaction.commit().await?;
    Ok(())
}
