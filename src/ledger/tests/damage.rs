//! Damaged ledgers and checkpoints: nothing panics, nothing is overwritten, nothing is lost that was whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::engine::Engine;
use crate::ledger::{OpenError, SetAside, StoreError, checkpoint, last_set_aside, schema};
use crate::summary::RunFilter;

/// Every file of the directory with its bytes, but for locks.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .filter(|(name, _)| !name.ends_with(".lock"))
        .collect()
}

/// A ledger with a live run of 20 sheets; `log`: as a power cut leaves it, with most of it in the log.
async fn filled(log: bool) -> Home {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 20), 0).await;
    for sheet in 1..=12 {
        complete(&ledger, run, sheet, i64::from(sheet) * 10).await;
    }
    if !log {
        ledger.close().await.unwrap();
        return home;
    }
    let cut = home.copied();
    drop(ledger);
    assert!(cut.path().with_extension("db-wal").exists());
    cut
}

impl Home {
    fn state(&self) -> PathBuf {
        self.path().parent().unwrap().to_owned()
    }

    /// A copy of all files but the lock, as they are at this moment.
    pub(super) fn copied(&self) -> Self {
        let copy = Self::new();
        fs::create_dir(copy.state()).unwrap();
        for (name, bytes) in files(&self.state()) {
            fs::write(copy.state().join(name), bytes).unwrap();
        }
        copy
    }

    async fn open_or_set_aside(&self) -> Result<(Ledger, Option<SetAside>), OpenError> {
        Ledger::open_or_set_aside(&self.path(), at(7)).await
    }
}

#[tokio::test]
async fn a_damaged_ledger_is_kept_byte_for_byte_and_a_new_one_begun() {
    for log in [false, true] {
        let home = filled(log).await;
        let mut bytes = fs::read(home.path()).unwrap();
        bytes[100..512].fill(0xa5);
        fs::write(home.path(), &bytes).unwrap();
        if log {
            // The log's own header page would stand for the damaged one.
            fs::write(home.path().with_extension("db-wal"), "garbage too").unwrap();
        }
        let before = files(&home.state());
        let (ledger, set_aside) = home.open_or_set_aside().await.unwrap();
        let kept = set_aside.unwrap().kept;
        assert_eq!(kept, home.state().join("ledger-damaged-20261118T110647.db"));
        assert_eq!(last_set_aside(&home.path()), Some(kept.clone()));
        let after = files(&home.state());
        for (name, bytes) in &before {
            let name = name.replace("ledger.db", "ledger-damaged-20261118T110647.db");
            assert_eq!(after.get(&name), Some(bytes), "{name}");
            let mode = fs::metadata(home.state().join(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(ledger.run("a", None).await.unwrap(), None);
        ledger.close().await.unwrap();

        // Another one in the same second is kept beside it.
        fs::write(home.path(), "again").unwrap();
        let (_, second) = home.open_or_set_aside().await.unwrap();
        let second = second.unwrap().kept;
        assert_eq!(fs::read(&second).unwrap(), b"again");
        assert_eq!(fs::read(&kept).unwrap(), before["ledger.db"]);
    }
}

#[tokio::test]
async fn a_whole_ledger_with_a_log_is_opened_with_all_of_it() {
    let home = filled(true).await;
    let (ledger, set_aside) = home.open_or_set_aside().await.unwrap();
    assert_eq!(set_aside, None);
    assert_eq!(ledger.run("a", None).await.unwrap().unwrap().sheets_done, 12);
}

#[tokio::test]
async fn what_is_refused_is_not_touched() {
    use sqlx::{ConnectOptions, Executor};
    // A newer version was killed: its schema stands in the log alone.
    let writer = filled(false).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(writer.path());
    let mut newer = options.connect().await.unwrap();
    newer.execute("PRAGMA user_version = 99").await.unwrap();
    let home = Home::new();
    fs::create_dir(home.state()).unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        fs::copy(writer.state().join(name), home.state().join(name)).unwrap();
    }
    drop(newer);
    let before = files(&home.state());
    let error = home.open_or_set_aside().await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error:?}");
    assert_eq!(files(&home.state()), before);

    // Somebody else's file, or one that this user cannot open.
    let home = filled(false).await;
    let before = files(&home.state());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(home.path(), Some(65_534), None).unwrap();
    } else {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let error = home.open_or_set_aside().await.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(files(&home.state()), before);
}

#[tokio::test]
async fn a_log_whose_ledger_is_gone_is_kept_too() {
    let home = filled(true).await;
    let log = fs::read(home.path().with_extension("db-wal")).unwrap();
    fs::remove_file(home.path()).unwrap();
    let (_ledger, set_aside) = home.open_or_set_aside().await.unwrap();
    let kept = set_aside.unwrap().kept.with_extension("db-wal");
    assert_eq!(fs::read(kept).unwrap(), log);
}

#[tokio::test]
async fn damage_where_a_table_begins_is_found_by_the_opening() {
    for table in ["meta", "plans", "runs", "live", "sources", "facts", "sheets", "gates"] {
        let home = filled(false).await;
        let ledger = home.open().await;
        let root: i64 = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = ?")
            .bind(table)
            .fetch_one(&mut ledger.store().await.unwrap().connection)
            .await
            .unwrap();
        ledger.close().await.unwrap();
        let mut bytes = fs::read(home.path()).unwrap();
        let page = (root as usize - 1) * 512;
        bytes[page..page + 8].fill(0xff);
        fs::write(home.path(), &bytes).unwrap();
        let (_, set_aside) = home.open_or_set_aside().await.unwrap();
        let kept = set_aside
            .unwrap_or_else(|| panic!("the damage of {table} was not seen"))
            .kept;
        assert_eq!(fs::read(kept).unwrap(), bytes, "{table}");
    }
}

#[tokio::test]
async fn damage_found_while_reading_is_noted_and_set_aside_by_the_next_opening() {
    let home = Home::new();
    let ledger = home.open().await;
    let ended = submit(&ledger, &plan("old", 20), 0).await;
    for sheet in 1..=20 {
        complete(&ledger, ended, sheet, i64::from(sheet)).await;
    }
    end(&ledger, ended, 99, RunState::Completed).await;
    ledger.close().await.unwrap();
    // Everything of the table of facts but its first page, which every opening looks at.
    let mut bytes = fs::read(home.path()).unwrap();
    let marks: Vec<usize> = (0..bytes.len() / 512)
        .filter(|page| {
            bytes[page * 512..(page + 1) * 512]
                .windows(12)
                .any(|part| part == b"attempt_ende")
        })
        .collect();
    assert!(marks.len() > 3, "{marks:?}");
    for page in &marks {
        bytes[page * 512..page * 512 + 8].fill(0xff);
    }
    fs::write(home.path(), &bytes).unwrap();

    let (ledger, set_aside) = home.open_or_set_aside().await.unwrap();
    assert_eq!((set_aside, ledger.damage()), (None, None));
    let error = ledger.facts_of(ended).await.unwrap_err();
    assert!(error.to_string().contains("mozartctl resume FILE.yaml"), "{error}");
    assert!(ledger.damage().is_some());
    drop(ledger);
    let (ledger, set_aside) = home.open_or_set_aside().await.unwrap();
    assert!(set_aside.is_some_and(|aside| aside.kept.exists() && aside.why.contains("malformed")));
    assert_eq!(ledger.damage(), None);
    ledger.close().await.unwrap();
    assert_eq!(home.open_or_set_aside().await.unwrap().1, None, "once");
}

#[tokio::test]
async fn an_older_schema_is_migrated_after_a_copy_was_made() {
    let home = filled(true).await;
    let longer = [
        schema::MIGRATIONS,
        &["CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT"],
    ]
    .concat();
    let (ledger, _) = Ledger::open_with(&home.path(), None, &longer).await.unwrap();
    let mut store = ledger.store().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM later")
        .fetch_one(&mut store.connection)
        .await
        .unwrap();
    drop(store);
    assert_eq!(rows, 0);
    assert_eq!(ledger.run("a", None).await.unwrap().unwrap().sheets_done, 12);
    let known = schema::MIGRATIONS.len() as i64;
    let copy = home.state().join(format!("ledger-schema-{known}.db"));
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let before = Ledger::open(&copy).await.unwrap();
    assert_eq!(before.run("a", None).await.unwrap().unwrap().sheets_done, 12);
    drop(ledger);
    // This version does not know what it became.
    let error = home.open_or_set_aside().await.unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found, known: this, .. } if (found, this) == (known + 1, known)),
        "{error:?}"
    );
}

/// A generator whose seed is printed, so that a failing test can be repeated with `MOZART_TEST_SEED`.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new() -> Self {
        let given = std::env::var("MOZART_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let since = std::time::UNIX_EPOCH.elapsed().unwrap();
            u64::from(since.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
        });
        println!("MOZART_TEST_SEED={seed}");
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    /// One byte changed, or the end cut off.
    fn damage(&mut self, bytes: &mut Vec<u8>) -> String {
        let at = self.below(bytes.len());
        if self.below(4) == 0 {
            bytes.truncate(at);
            return format!("cut off at {at}");
        }
        // Half of them in the first pages, where most depends on each byte.
        let at = if self.below(2) == 0 {
            at % bytes.len().min(2048)
        } else {
            at
        };
        bytes[at] ^= 1 << self.below(8);
        format!("byte {at}")
    }
}

/// Reads all that a conductor ever reads.
async fn read_all(ledger: &Ledger) -> Result<(), StoreError> {
    let mut engine = Engine::new(crate::daemon::settings::Settings::default().engine, ledger.id(), 1);
    for fact in ledger.live_facts().await? {
        engine.apply(&fact);
    }
    let (runs, _) = ledger.runs(&RunFilter::default(), 100, "").await?;
    for run in runs {
        ledger.plan(run.id).await?;
        ledger.facts_of(run.id).await?;
        for sheet in ledger.sheets(run.id, 1, 100).await? {
            ledger.attempts(run.id, sheet.sheet_num).await?;
        }
        ledger.lessons(run.id, SheetNo(12)).await?;
        ledger.checkpoint(run.id).await?;
        let next = [fact(500, intended(attempt(run.id, 13, 1), AttemptKind::First))];
        let batch = Batch {
            facts: &next,
            ..Batch::default()
        };
        ledger.commit(batch).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_hundred_damages_of_a_ledger_are_survived_or_told() {
    let mut chance = Chance::new();
    let whole = [files(&filled(false).await.state()), files(&filled(true).await.state())];
    let (mut opened, mut aside, mut later, mut refused) = (0, 0, 0, 0);
    for round in 0..100 {
        let home = Home::new();
        fs::create_dir(home.state()).unwrap();
        let mut damaged = whole[round % 2].clone();
        let done = chance.damage(damaged.get_mut("ledger.db").unwrap());
        for (name, bytes) in &damaged {
            fs::write(home.state().join(name), bytes).unwrap();
        }
        match home.open_or_set_aside().await {
            Ok((ledger, Some(set_aside))) => {
                aside += 1;
                assert_eq!(ledger.run("a", None).await.unwrap(), None, "{done}");
                // Unless SQLite itself had to find it.
                if !set_aside.why.contains("next start") {
                    let kept = fs::read(&set_aside.kept).unwrap();
                    assert!(kept == damaged["ledger.db"], "{done}: {}", set_aside.why);
                }
            }
            Ok((ledger, None)) => match read_all(&ledger).await {
                Ok(()) => opened += 1,
                Err(error) => {
                    later += 1;
                    assert!(!error.to_string().is_empty());
                    let damage = ledger.damage().map(str::to_owned);
                    drop(ledger);
                    let (_, set_aside) = home.open_or_set_aside().await.unwrap();
                    assert_eq!(set_aside.is_some(), damage.is_some(), "{done}: {error}");
                }
            },
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("ledger.db"), "{done}: {error}");
                assert!(files(&home.state()) == damaged, "{done}: {error}: touched");
            }
        }
    }
    println!("opened {opened}, set aside {aside}, found later {later}, refused {refused}");
    assert!(opened > 0 && aside > 0, "opened {opened}, set aside {aside}");
}

#[tokio::test]
async fn a_hundred_damages_of_a_checkpoint_lose_nothing_that_can_be_read() {
    let mut chance = Chance::new();
    let home = filled(false).await;
    let ledger = home.open().await;
    let run = ledger.run("a", None).await.unwrap().unwrap().id;
    let path = home.state().join("a.json");
    checkpoint::write(&path, &ledger.checkpoint(run).await.unwrap()).unwrap();
    let whole = fs::read(&path).unwrap();
    let done: Vec<u32> = (1..=12).collect();
    assert_eq!(checkpoint::read(&path).unwrap().completed_sheets(), done);
    for _ in 0..100 {
        let mut bytes = whole.clone();
        let what = chance.damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        match checkpoint::read(&path) {
            Ok(read) => assert_eq!(read.completed_sheets(), done, "{what}"),
            Err(error) => assert!(error.to_string().contains("a.json"), "{what}: {error}"),
        }
        assert!(fs::read(&path).unwrap() == bytes, "{what}: it is only read");
    }
}

/// Where the commits in a write-ahead log end: a frame is 24 bytes and a page, and one that commits says how large the
/// database is then (https://sqlite.org/fileformat2.html#walformat).
fn commits(log: &[u8]) -> Vec<usize> {
    let frames = (32..log.len())
        .step_by(24 + 512)
        .filter(|frame| frame + 24 + 512 <= log.len());
    let commits = frames.filter(|frame| log[frame + 4..frame + 8] != [0; 4]);
    commits.map(|frame| frame + 24 + 512).collect()
}

#[tokio::test]
async fn a_log_that_is_cut_off_anywhere_leaves_what_was_committed_before() {
    let mut chance = Chance::new();
    let home = filled(true).await;
    let log = fs::read(home.path().with_extension("db-wal")).unwrap();
    let commits = commits(&log);
    // The schema, the submission, two for each sheet.
    assert_eq!(commits.len(), 2 + 2 * 12);
    let mut cuts: Vec<usize> = (0..40).map(|_| chance.below(log.len())).collect();
    cuts.extend(&commits);
    cuts.extend(commits.iter().map(|commit| commit - 1));
    for cut in cuts {
        let home = home.copied();
        fs::write(home.path().with_extension("db-wal"), &log[..cut]).unwrap();
        let (ledger, set_aside) = home.open_or_set_aside().await.unwrap();
        assert_eq!(set_aside, None, "cut off at {cut}");
        let row = ledger.run("a", None).await.unwrap();
        let kept = commits.iter().filter(|commit| **commit <= cut).count();
        let done = row.as_ref().map(|row| row.sheets_done as usize);
        assert_eq!(done, kept.checked_sub(2).map(|kept| kept / 2), "cut off at {cut}");
        let facts = ledger.live_facts().await.unwrap().len();
        assert_eq!(
            facts,
            kept.saturating_sub(2) * 2 + usize::from(row.is_some()),
            "cut off at {cut}"
        );
    }
}
