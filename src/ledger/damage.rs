//! A damaged ledger: found before anything is written to it, kept byte for byte, and out of the way.
//!
//! Damage that shows only later, while the ledger is read or written, is noted in a file beside it
//! (`ledger.damaged`): the conductor goes away, and the next opening sets the ledger aside without another look.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};

use super::error::{Holder, OpenError};
use super::{files, lock, open_error, schema};
use crate::model::Timestamp;

/// A ledger that was put out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now; what belongs to it (`-wal`, …) lies beside it.
    pub kept: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

/// What SQLite keeps beside a database, as ends of its name.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Begins the names of ledgers that were set aside.
const KEPT: &str = "ledger-damaged-";

fn companion(ledger: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(ledger);
    name.push(end);
    name.into()
}

fn io(activity: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io {
        activity,
        path: path.to_owned(),
        source,
    }
}

/// Notes that the ledger is damaged, for the next opening.
pub(super) fn note(ledger: &Path, why: &str) -> io::Result<()> {
    let mut file = File::create(ledger.with_extension("damaged"))?;
    file.write_all(why.as_bytes())?;
    file.sync_all()
}

/// What was noted.
fn noted(ledger: &Path) -> Option<String> {
    let bytes = fs::read(ledger.with_extension("damaged")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Looks at a ledger that nobody has open, without writing to it: its schema, 0 where there is none yet.
///
/// # Errors
/// [`OpenError::Corrupt`] and [`OpenError::NotADatabase`] for damage; the others for what is not to be touched.
pub(super) async fn look(ledger: &Path) -> Result<i64, OpenError> {
    let beside = COMPANIONS.iter().any(|end| companion(ledger, end).exists());
    let damaged = |detail: String| OpenError::Corrupt {
        path: ledger.to_owned(),
        detail,
    };
    let metadata = match fs::symlink_metadata(ledger) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !beside => return Ok(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("only files that belong to it are left".to_owned()));
        }
        Err(error) => return Err(io("read", ledger)(error)),
    };
    if metadata.is_dir() {
        return Err(io("use", ledger)(io::Error::other("it is not a regular file")));
    }
    let file = File::open(ledger).map_err(io("open", ledger))?;
    let metadata = file.metadata().map_err(io("read", ledger))?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        let owner = format!(
            "it belongs to the user with number {}; give it back (chown)",
            metadata.uid()
        );
        return Err(io("use", ledger)(io::Error::other(owner)));
    }
    if lock::posix_holder(&file).is_some() {
        return Err(OpenError::Held {
            path: ledger.to_owned(),
            holder: Holder::OtherProgram,
        });
    }
    if let Some(why) = noted(ledger) {
        return Err(damaged(why));
    }
    if metadata.len() == 0 {
        // SQLite would delete a log that lies beside an empty file.
        return if beside {
            Err(damaged("it is empty, and files that belong to it are not".to_owned()))
        } else {
            Ok(0)
        };
    }
    drop(file);
    let scratch = ledger.with_extension("look");
    clear(&scratch)?;
    let read = read(ledger, &scratch, beside).await;
    clear(&scratch)?;
    read
}

/// Reads the schema and the first page of each table. Beside a log SQLite reads a second name of the same file,
/// opened for reading only, with a copy of the log: so neither is written to.
async fn read(ledger: &Path, scratch: &Path, beside: bool) -> Result<i64, OpenError> {
    let mut options = SqliteConnectOptions::new()
        .read_only(true)
        .busy_timeout(Duration::ZERO)
        .disable_statement_logging();
    if beside {
        files::private_directory(scratch)?;
        let second = scratch.join("ledger.db");
        if fs::hard_link(ledger, &second).is_err() {
            fs::copy(ledger, &second).map_err(io("copy", ledger))?;
        }
        for end in ["-wal", "-journal"] {
            let from = companion(ledger, end);
            if from.exists() {
                fs::copy(&from, companion(&second, end)).map_err(io("copy", &from))?;
            }
        }
        options = options.filename(second);
    } else {
        options = options.filename(ledger).immutable(true);
    }
    let wrap = |error: sqlx::Error| open_error(ledger, &error);
    let mut connection = options.connect().await.map_err(wrap)?;
    let found = schema::look(&mut connection)
        .await
        .map_err(|trouble| trouble.of(ledger));
    let found = match found {
        Ok(found @ 1..) => match connection.execute(sqlx::raw_sql(schema::TOUCH)).await {
            Ok(_) => Ok(found),
            Err(error) => Err(match wrap(error) {
                // What it says of itself is a ledger, and what is in it is not.
                OpenError::Database { path, detail } => OpenError::Corrupt { path, detail },
                other => other,
            }),
        },
        other => other,
    };
    connection.close().await.ok();
    found
}

fn clear(scratch: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", scratch)(error)),
        _ => Ok(()),
    }
}

/// Renames the ledger and what belongs to it. The caller holds its lock.
///
/// Killed in between, the next opening finds the rest: a log without its ledger is set aside too, under another name.
pub(super) fn set_aside(ledger: &Path, why: String, at: Timestamp) -> Result<SetAside, OpenError> {
    let time: String = at
        .to_rfc3339()
        .chars()
        .take(19)
        .filter(|c| !matches!(c, '-' | ':'))
        .collect();
    let kept = free(ledger, &format!("{KEPT}{time}"));
    for end in [""].iter().chain(&COMPANIONS) {
        let from = companion(ledger, end);
        if fs::symlink_metadata(&from).is_ok() {
            let to = companion(&kept, end);
            fs::rename(&from, &to).map_err(io("set aside", &from))?;
            files::make_private(&to)?;
        }
    }
    if let Some(parent) = ledger.parent() {
        files::sync_directory(parent).map_err(io("write", parent))?;
    }
    let note = ledger.with_extension("damaged");
    match fs::remove_file(&note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &note)(error)),
        _ => {}
    }
    Ok(SetAside { kept, why })
}

/// A name beside the ledger under which nothing lies.
pub(super) fn free(ledger: &Path, stem: &str) -> PathBuf {
    let taken = |path: &PathBuf| {
        ["", "-wal", "-shm", "-journal"]
            .iter()
            .any(|end| companion(path, end).exists())
    };
    let first = ledger.with_file_name(format!("{stem}.db"));
    if !taken(&first) {
        return first;
    }
    (2..)
        .map(|number: u32| ledger.with_file_name(format!("{stem}-{number}.db")))
        .find(|path| !taken(path))
        .unwrap_or(first)
}

/// The ledger that was set aside last and still lies beside the ledger at `path`.
pub fn last_set_aside(path: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(path.parent()?).ok()?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let kept = names.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with(KEPT) && name.ends_with(".db")
    });
    kept.max().map(|name| path.with_file_name(name))
}
