//! The lock that makes one conductor: a file beside the ledger, locked for as long as the process lives.
//!
//! `flock` excludes (also two openings within one process); a POSIX lock on the same file is there only to be
//! found: the kernel tells who holds it, so that no process number can be out of date.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockOffsetType, FlockType};

use super::error::{Holder, OpenError};
use super::files;

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes the lock of `ledger` without waiting.
    ///
    /// # Errors
    /// [`OpenError::Held`] with the holder's name, or what the file system says.
    pub(super) fn take(ledger: &Path) -> Result<Self, OpenError> {
        let path = ledger.with_extension("lock");
        let file = files::open_private(&path)?;
        let io = |source: rustix::io::Errno| OpenError::Io {
            activity: "lock",
            path: path.clone(),
            source: source.into(),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::Held {
                    path: ledger.to_owned(),
                    holder: holder(&file),
                });
            }
            Err(error) => return Err(io(error)),
        }
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// Who holds the lock of that file.
fn holder(file: &File) -> Holder {
    // Between its two locks the holder cannot be found: a moment only.
    for _ in 0..10 {
        if let Some(pid) = posix_holder(file) {
            return match pid {
                0 => Holder::Unseen,
                pid => Holder::Process {
                    pid,
                    command: command(pid),
                },
            };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // One's own POSIX locks are no conflict, so they are not found either.
    Holder::Unseen
}

/// The process number, 0 where it lives in another namespace; `None`: nobody but perhaps this process.
pub(super) fn posix_holder(file: &File) -> Option<i32> {
    let wanted = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let found = rustix::process::fcntl_getlk(file.as_fd(), &wanted).ok()??;
    Some(found.pid.map_or(0, rustix::process::Pid::as_raw_pid))
}

/// The command name of a process.
fn command(pid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}
