//! The schema and its migrations: numbered files beside this one, each run once, in order, in one transaction.

use sqlx::{Connection, Executor, SqliteConnection};

/// In the header of every ledger, so that another program's database is not taken for one: "MZRT".
const APPLICATION_ID: i64 = 0x4d5a_5254;

/// Migration n brings a ledger from schema n to n + 1.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_init.sql")];

/// The schema that this program writes.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// What stands in the way of using a database.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Some other program's database.
    Foreign,
    /// A schema from the future.
    Newer(i64),
    /// SQLite could not.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Brings the database to the schema of this program; an empty one is made a ledger.
pub(super) async fn prepare(connection: &mut SqliteConnection) -> Result<(), Trouble> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?;
    if application != APPLICATION_ID {
        let objects: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut *connection)
            .await?;
        if application != 0 || found != 0 || objects != 0 {
            return Err(Trouble::Foreign);
        }
    }
    if found > KNOWN {
        return Err(Trouble::Newer(found));
    }
    if found == KNOWN {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
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
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {KNOWN}");
    transaction.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(stamp))).await?;
    transaction.commit().await?;
    Ok(())
}
