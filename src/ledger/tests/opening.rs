use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::ledger::{Holder, OpenError};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_new_ledger_is_private_and_keeps_its_id() {
    let home = Home::new();
    let ledger = home.open().await;
    let id = ledger.id();
    assert_eq!(id.get_version_num(), 4);
    assert_eq!(ledger.tag(), id.to_string()[..8]);
    submit(&ledger, &plan("a", 1), 0).await;
    assert_eq!(mode(home.path().parent().unwrap()), 0o700);
    for file in std::fs::read_dir(home.path().parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    ledger.close().await.unwrap();
    assert_eq!(home.open().await.id(), id);
}

#[tokio::test]
async fn a_ledger_that_others_may_read_is_made_private() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let _ledger = home.open().await;
    assert_eq!(mode(&home.path()), 0o600);
}

#[tokio::test]
async fn it_is_durable_and_small_paged() {
    let home = Home::new();
    let ledger = home.open().await;
    let mut store = ledger.store().await.unwrap();
    let mut pragma = async |name: &'static str| -> String {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {name} || '' FROM pragma_{name}"));
        sqlx::query_scalar(sql).fetch_one(&mut store.connection).await.unwrap()
    };
    assert_eq!(pragma("journal_mode").await, "wal");
    assert_eq!(pragma("synchronous").await, "2");
    assert_eq!(pragma("page_size").await, "512");
}

#[tokio::test]
async fn a_second_opening_in_the_same_process_fails_at_once() {
    let home = Home::new();
    let first = home.open().await;
    let before = Instant::now();
    let error = Ledger::open(&home.path()).await.unwrap_err();
    assert!(before.elapsed().as_millis() < 100, "{:?}", before.elapsed());
    assert!(
        matches!(
            error,
            OpenError::Held {
                holder: Holder::Unseen,
                ..
            }
        ),
        "{error}"
    );
    first.close().await.unwrap();
    home.open().await;
}

#[tokio::test]
async fn one_that_was_only_dropped_can_be_opened_again() {
    let home = Home::new();
    for number in 0..20 {
        let ledger = home.open().await;
        submit(&ledger, &plan("a", 1), number).await;
        drop(ledger);
        // The log is copied back and gone: SQLite was done before the lock was free.
        assert!(!home.path().with_extension("db-wal").exists());
    }
    assert_eq!(home.open().await.run("a", None).await.unwrap().unwrap().run, RunNo(20));
}

#[tokio::test]
async fn a_program_that_reads_the_file_directly_is_told() {
    use sqlx::{ConnectOptions, Executor};
    let home = Home::new();
    home.open().await.close().await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(home.path());
    let mut reader = options.connect().await.unwrap();
    reader.execute("BEGIN; SELECT * FROM runs").await.unwrap();
    let before = Instant::now();
    let error = Ledger::open(&home.path()).await.unwrap_err();
    assert!(before.elapsed().as_millis() < 100, "{:?}", before.elapsed());
    assert!(
        matches!(
            error,
            OpenError::Held {
                holder: Holder::OtherProgram,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_file_is_left_as_it_is() {
    let home = Home::new();
    std::fs::create_dir(home.path().parent().unwrap()).unwrap();
    let text = "This is a letter and no database.\n".repeat(100);
    std::fs::write(home.path(), &text).unwrap();
    let error = Ledger::open(&home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
    assert!(error.to_string().contains("ledger.db is not a ledger"), "{error}");
    assert_eq!(std::fs::read_to_string(home.path()).unwrap(), text);
}

/// Runs SQL on the closed ledger's file, as another program would.
async fn meddle(home: &Home, sql: &'static str) {
    use sqlx::{ConnectOptions, Connection, Executor};
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(home.path())
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let home = Home::new();
    std::fs::create_dir(home.path().parent().unwrap()).unwrap();
    meddle(&home, "CREATE TABLE recipes (name TEXT)").await;
    let error = Ledger::open(&home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::NotALedger { .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    meddle(&home, "PRAGMA user_version = 99").await;
    let error = Ledger::open(&home.path()).await.unwrap_err();
    let this = crate::ledger::schema::MIGRATIONS.len() as i64;
    assert!(
        matches!(error, OpenError::Newer { found: 99, known, .. } if known == this),
        "{error:?}"
    );
    assert!(error.to_string().contains("written by a newer version"), "{error}");
}

#[tokio::test]
async fn a_damaged_ledger_is_said_to_be_damaged() {
    let home = Home::new();
    let ledger = home.open().await;
    submit(&ledger, &plan("a", 200), 0).await;
    ledger.close().await.unwrap();
    // The schema's page: everything after the header of the file.
    let mut bytes = std::fs::read(home.path()).unwrap();
    bytes[100..512].fill(0xa5);
    std::fs::write(home.path(), bytes).unwrap();
    let error = Ledger::open(&home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_named() {
    let home = Home::new();
    std::fs::create_dir_all(home.path()).unwrap();
    let error = Ledger::open(&home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    let below = home.directory.path().join("file");
    std::fs::write(&below, "").unwrap();
    let error = Ledger::open(&below.join("ledger.db")).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot create the directory"), "{error}");
}
