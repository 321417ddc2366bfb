//! The launcher where there is no user manager: starts supervisors, finds them again, ends them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::exec::now;
use super::spool::{Spool, Started};
use super::supervisor::{STARTED, SUPERVISE, leads_session, start_time};
use super::systemd::Systemd;
use super::{Evidence, Launch, LaunchError, StartOutcome, left_behind, lost};
use crate::model::{Certificate, StopHow};

/// A supervisor says that its session runs within milliseconds; a machine in trouble gets this long.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a supervisor is looked for where the kernel has no pidfds (before Linux 5.3, some sandboxes).
const WITHOUT_PIDFD: Duration = Duration::from_millis(200);

/// Between taking the lock and writing its identity a supervisor only sets up its signals.
const IDENTITY: Duration = Duration::from_millis(5);

/// Starts each session under a supervisor process of its own.
#[derive(Debug)]
pub struct Supervised {
    self_exe: PathBuf,
    spool_root: PathBuf,
    /// Asked about attempts that an earlier conductor started as units.
    manager: OnceCell<Systemd>,
}

/// The living supervisor of a spool.
pub(super) struct Holder {
    pid: Pid,
    started: u64,
    /// None where the kernel has no pidfds.
    pidfd: Option<OwnedFd>,
}

impl Holder {
    fn invocation(&self) -> String {
        format!("{}-{}", self.pid.as_raw_nonzero(), self.started)
    }

    fn process_id(&self) -> Option<u32> {
        u32::try_from(self.pid.as_raw_nonzero().get()).ok()
    }

    fn still_there(&self) -> bool {
        self.process_id().and_then(start_time) == Some(self.started)
    }
}

impl Supervised {
    pub(super) fn new(self_exe: PathBuf, spool_root: PathBuf) -> Self {
        Self {
            self_exe,
            spool_root,
            manager: OnceCell::new(),
        }
    }

    /// The user manager, for attempts that are its units.
    pub(super) async fn manager(&self) -> Result<&Systemd, LaunchError> {
        self.manager
            .get_or_try_init(|| Systemd::connect(self.self_exe.clone()))
            .await
    }

    /// Lets go of a unit, if one was asked about.
    pub(super) async fn release(&self, unit: &str) {
        if let Some(manager) = self.manager.get() {
            manager.release(unit).await;
        }
    }

    pub(super) async fn start(&self, launch: &Launch) -> StartOutcome {
        let spool = Spool::new(&launch.spool);
        let lock = match prepare(launch, &spool) {
            Ok(Some(lock)) => lock,
            Ok(None) => return StartOutcome::Unknown,
            Err(error) => return StartOutcome::unwritable(&spool, &error),
        };
        let spawned = Command::new(&self.self_exe)
            .arg(SUPERVISE)
            .arg(&launch.spool)
            .env_clear()
            .envs(&launch.secrets.0)
            .stdin(lock)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                return StartOutcome::failed(format!(
                    "cannot start the supervisor {}: {error}",
                    self.self_exe.display()
                ));
            }
        };
        let pid = child.id();
        let mut said = String::new();
        if let Some(pipe) = &mut child.stdout {
            // Closed by the supervisor as soon as it has spoken, or by its end.
            match timeout(START_TIMEOUT, pipe.read_to_string(&mut said)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return StartOutcome::Unknown,
            }
        }
        if said != STARTED && !spool.has_stdout() {
            return StartOutcome::failed(format!("the supervisor could not start in {}", launch.spool.display()));
        }
        let invocation = pid.and_then(|pid| start_time(pid).map(|started| format!("{pid}-{started}")));
        StartOutcome::Started {
            at: spool.ordered_at().unwrap_or_else(now),
            invocation,
            pid,
        }
    }

    /// Walks the spools for locks that are held.
    pub(super) fn units(&self, prefix: &str) -> Vec<String> {
        let mut found = Vec::new();
        // run / sheet and attempt / check
        let mut next = vec![(self.spool_root.clone(), 0)];
        while let Some((directory, depth)) = next.pop() {
            let spool = Spool::new(&directory);
            if depth >= 2
                && matches!(is_held(&spool), Ok(true))
                && let Ok(order) = spool.order()
                && order.unit.starts_with(prefix)
            {
                found.push(order.unit);
            }
            if depth < 3 {
                let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
                let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                next.extend(directories.map(|entry| (entry.path(), depth + 1)));
            }
        }
        found
    }
}

pub(super) async fn evidence(spool: &Spool) -> Result<Evidence, LaunchError> {
    let holder = holder(spool)
        .await
        .map_err(|error| LaunchError::Spool(spool.lock(), error))?;
    Ok(match holder {
        Some(holder) => Evidence::Running {
            invocation: Some(holder.invocation()),
            pid: holder.process_id(),
            started_at: spool.ordered_at(),
        },
        None => left_behind(spool),
    })
}

pub(super) async fn wait(spool: &Spool) -> Certificate {
    loop {
        match holder(spool).await {
            Ok(Some(holder)) => gone(holder).await,
            Ok(None) => break,
            Err(_) => sleep(WITHOUT_PIDFD).await,
        }
    }
    match left_behind(spool) {
        Evidence::Ended(certificate) => certificate,
        _ => lost(spool),
    }
}

pub(super) async fn stop(spool: &Spool, how: StopHow) -> Result<(), LaunchError> {
    let wrap = |error: io::Error| LaunchError::Spool(spool.lock(), error);
    let Some(holder) = holder(spool).await.map_err(wrap)? else {
        return Ok(());
    };
    // The supervisor alone may end the tree: killed itself, it would leave it behind.
    let signal = match how {
        StopHow::Terminate => Signal::TERM,
        StopHow::Kill => Signal::USR1,
    };
    let sent = match &holder.pidfd {
        Some(pidfd) => pidfd_send_signal(pidfd, signal),
        None if holder.still_there() => kill_process(holder.pid, signal),
        None => Ok(()),
    };
    match sent {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(wrap(error.into())),
    }
}

/// Writes the order and takes the spool's lock for the supervisor that will inherit it. `None`: something of
/// this spool runs or ran already.
fn prepare(launch: &Launch, spool: &Spool) -> io::Result<Option<File>> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(spool.lock())?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if spool.has_stdout() {
        return Ok(None);
    }
    lock.set_len(0)?;
    launch.write_order(spool, Started::Supervised, "")?;
    Ok(Some(lock))
}

/// Whether a supervisor of this spool lives.
pub(super) fn is_held(spool: &Spool) -> io::Result<bool> {
    let lock = match File::open(spool.lock()) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Shared, so that two who look at once do not see each other; given back when the file is closed here.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The living supervisor of `spool`: the one that holds its lock, or whose files were deleted below it.
async fn holder(spool: &Spool) -> io::Result<Option<Holder>> {
    if fs::symlink_metadata(spool.lock()).is_err() {
        return Ok(bereft(spool));
    }
    while is_held(spool)? {
        if let Some(holder) = identified(&fs::read_to_string(spool.lock())?) {
            return Ok(Some(holder));
        }
        // It has just begun, or has just ended.
        sleep(IDENTITY).await;
    }
    Ok(None)
}

/// The process that wrote `text` into the lock, if it still lives.
fn identified(text: &str) -> Option<Holder> {
    let (pid, started) = text.trim_end().split_once(' ')?;
    held_by(pid.parse().ok()?, started.parse().ok()?)
}

/// The process of that number and start time, if it still lives. The time is compared after the pidfd was opened,
/// so that the pidfd is not another process's of the same number.
fn held_by(pid: i32, started: u64) -> Option<Holder> {
    let pid = Pid::from_raw(pid)?;
    let holder = Holder {
        pid,
        started,
        pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
    };
    holder.still_there().then_some(holder)
}

/// The supervisor that still works although the lock of its spool is gone, by its command line.
pub(super) fn bereft(spool: &Spool) -> Option<Holder> {
    let user = rustix::process::getuid().as_raw();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = command.split(|byte| *byte == 0).skip(1);
        let is_its = words.next() == Some(SUPERVISE.as_bytes())
            && words.next() == Some(spool.directory().as_os_str().as_encoded_bytes())
            // Any user can give a process such a command line.
            && entry.metadata().is_ok_and(|metadata| metadata.uid() == user)
            // Its child shows the same words until it executes the session.
            && leads_session(pid);
        is_its
            .then(|| held_by(i32::try_from(pid).ok()?, start_time(pid)?))
            .flatten()
    })
}

/// Waits for the end of the supervisor's process.
async fn gone(holder: Holder) {
    let Some(pidfd) = holder.pidfd else {
        sleep(WITHOUT_PIDFD).await;
        return;
    };
    #[expect(deprecated, reason = "its successor is unsafe; what it asks for holds of an OwnedFd")]
    let watched = AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE);
    match watched {
        // An error is as good a reason to look again.
        Ok(pidfd) => drop(pidfd.readable().await),
        Err(_) => sleep(WITHOUT_PIDFD).await,
    }
}
