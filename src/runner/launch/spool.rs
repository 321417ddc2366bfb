//! An attempt's directory: what its session is given, and what it left.
//!
//! `stdout` is made by systemd or the supervisor alone, never here: that it exists is evidence that the
//! session was started.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::record::{self, Record};
use crate::model::{Code, Span, Timestamp};

/// What the exec helper, the supervisor and its guard are to do. Never holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Version of this shape.
    pub v: u16,
    /// The unit's name, without `.service`.
    pub unit: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment, secrets left out.
    pub env: BTreeMap<String, String>,
    /// Names of the secrets that are added to it.
    pub secrets: Vec<String>,
    /// What runs it.
    pub launcher: Started,
    /// The boot in which it was to run (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The life of the user manager that was asked to run it; empty where none was, and in orders of old.
    #[serde(default)]
    pub manager: String,
    /// The supervisor ends the session then; none where it is not positive.
    pub timeout: Span,
    /// Between TERM and KILL.
    pub stop_grace: Span,
}

/// What an attempt was started by; the exec helper finds the values of secrets accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// The user manager. Secrets are files in `$CREDENTIALS_DIRECTORY`.
    Systemd,
    /// A supervisor. Secrets are variables of the helper's own environment.
    Supervised,
}

/// The id of this boot; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Why a session's program could not even be started, as the exec helper left it in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecError {
    /// E603: the working directory. E505: the program. Others: see the message.
    pub code: Code,
    /// One sentence.
    pub message: String,
}

/// The attempt's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool in `directory`, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Makes the directory, and those above it, for this user only.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The session's standard output, with the exit record at its end.
    pub fn stdout(&self) -> PathBuf {
        self.directory.join("stdout")
    }

    /// The session's standard error.
    pub fn stderr(&self) -> PathBuf {
        self.directory.join("stderr")
    }

    /// Guard and supervisor hold a lock on this file for as long as one of them lives.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    fn order_path(&self) -> PathBuf {
        self.directory.join("launch")
    }

    fn stop_path(&self) -> PathBuf {
        self.directory.join("stop-asked")
    }

    fn hang_path(&self) -> PathBuf {
        self.directory.join("hang")
    }

    fn exec_error_path(&self) -> PathBuf {
        self.directory.join("exec-error")
    }

    /// Writes what is to be run and its standard input: one file, since each takes a page of the disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_order(&self, order: &Order, input: &[u8]) -> io::Result<()> {
        // JSON on one line; what follows it is the input.
        let mut bytes = serde_json::to_vec(order)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(input);
        write_private(&self.order_path(), &bytes)
    }

    /// Reads what is to be run.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` where it is no order.
    pub fn order(&self) -> io::Result<Order> {
        Ok(self.read_order()?.0)
    }

    /// Reads what is to be run, and leaves the file where the standard input begins.
    pub(super) fn read_order(&self) -> io::Result<(Order, impl Read + use<>)> {
        let mut file = BufReader::new(File::open(self.order_path())?);
        let mut line = Vec::new();
        file.read_until(b'\n', &mut line)?;
        Ok((serde_json::from_slice(&line)?, file))
    }

    /// When the order was written: a few milliseconds before the start.
    pub fn ordered_at(&self) -> Option<Timestamp> {
        let written = fs::metadata(self.order_path()).ok()?.modified().ok()?;
        let since = written.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_micros()).ok().map(Timestamp)
    }

    /// Whether systemd or the supervisor made the output file: the session ran, or was tried.
    pub fn has_stdout(&self) -> bool {
        fs::symlink_metadata(self.stdout()).is_ok()
    }

    /// The exit record, where one was left: in the lock where there was no room behind the output.
    pub fn record(&self) -> Option<Record> {
        let mut files = [self.lock(), self.stdout()].into_iter();
        files.find_map(|file| record::find(&file).ok().flatten().map(|(record, _)| record))
    }

    /// Notes that Mozart itself is about to ask for the session's end. systemd says the same of a session
    /// that ended on our TERM and of one that another's TERM ended.
    ///
    /// # Errors
    /// What the file system says.
    pub fn note_stop(&self) -> io::Result<()> {
        write_private(&self.stop_path(), b"")
    }

    /// Whether Mozart itself asked for the end.
    pub fn stop_was_asked(&self) -> bool {
        self.stop_path().exists()
    }

    /// Notes that Mozart takes the session for hanging and is about to ask for its end.
    ///
    /// # Errors
    /// What the file system says.
    pub fn note_hang(&self, why: &str) -> io::Result<()> {
        write_private(&self.hang_path(), why.as_bytes())
    }

    /// Why Mozart took the session for hanging, if it did.
    pub fn hang(&self) -> Option<String> {
        fs::read_to_string(self.hang_path()).ok()
    }

    /// Leaves word that the program could not be started.
    pub(super) fn note_exec_error(&self, error: &ExecError) -> io::Result<()> {
        write_private(
            &self.exec_error_path(),
            format!("{} {}\n", error.code, error.message).as_bytes(),
        )
    }

    /// Why the program could not be started, where it could not.
    pub fn exec_error(&self) -> Option<ExecError> {
        let text = fs::read_to_string(self.exec_error_path()).ok()?;
        let (code, message) = text.trim_end().split_once(' ')?;
        Some(ExecError {
            code: code.parse().ok()?,
            message: message.to_owned(),
        })
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_private(path)?.write_all(bytes)
}

/// Keeps a value as JSON, for this user only: what bears the name is always whole.
///
/// # Errors
/// What the file system says.
pub(in crate::runner) fn keep(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut out = create_private(&new)?;
    out.write_all(&serde_json::to_vec(value)?)?;
    out.sync_data()?;
    fs::rename(new, path)
}

/// Opens a file of the spool to be appended to, for this user only; makes it where it is missing.
pub(super) fn append_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An order of a supervised session.
    pub(in crate::runner::launch) fn an_order() -> Order {
        Order {
            v: 1,
            unit: "mozart-x-1-1-1".to_owned(),
            argv: vec!["a\nb".to_owned()],
            cwd: PathBuf::from("/"),
            env: BTreeMap::new(),
            secrets: Vec::new(),
            launcher: Started::Supervised,
            boot: String::new(),
            manager: String::new(),
            timeout: Span(0),
            stop_grace: Span(0),
        }
    }

    #[test]
    fn order_and_input_share_a_file() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::new(root.path());
        for input in [&b""[..], b"\n", b"{}\n/hello\n\xff\x00"] {
            spool.write_order(&an_order(), input).unwrap();
            assert_eq!(spool.order().unwrap(), an_order());
            let mut read = Vec::new();
            spool.read_order().unwrap().1.read_to_end(&mut read).unwrap();
            assert_eq!(read, input);
        }
    }

    #[test]
    fn a_spool_is_private_and_has_no_output_of_its_own_making() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::new(root.path().join("1/2/3"));
        spool.create().unwrap();
        spool.write_order(&an_order(), b"/hello\n\xff").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root.path().join("1")), 0o700);
        assert_eq!(mode(spool.directory()), 0o700);
        assert_eq!(mode(&spool.order_path()), 0o600);
        assert!(!spool.has_stdout());
        assert!(!spool.stop_was_asked());
        spool.note_stop().unwrap();
        assert!(spool.stop_was_asked());
        assert_eq!(spool.hang(), None);
        spool.note_hang("it hung").unwrap();
        assert_eq!(spool.hang().as_deref(), Some("it hung"));
    }

    #[test]
    fn an_exec_error_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::new(root.path());
        assert_eq!(spool.exec_error(), None);
        let error = ExecError {
            code: Code::E603,
            message: "the working directory /x is missing".to_owned(),
        };
        spool.note_exec_error(&error).unwrap();
        assert_eq!(spool.exec_error(), Some(error));
    }
}
