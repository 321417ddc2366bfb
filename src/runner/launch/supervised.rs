//! The launcher where there is no user manager: starts supervisors, finds them again, ends them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::exec::now;
use super::spool::{Spool, Started};
use super::supervisor::{
    GIVE_UP, KILL_AGAIN, LOCK_ROOM, STARTED, SUPERVISE, leads_session, lives, processes, start_time,
};
use super::systemd::Systemd;
use super::{Evidence, Launch, LaunchError, StartOutcome, left_behind, lost};
use crate::model::{Certificate, StopHow};
use crate::probe::{self, Point};

/// A supervisor says that its session runs within milliseconds; a machine in trouble gets this long.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a supervisor is looked for where the kernel has no pidfds (before Linux 5.3, some sandboxes).
const WITHOUT_PIDFD: Duration = Duration::from_millis(200);

/// Between taking the lock and writing its identity a guard only sets up its signals, and a supervisor whose guard was
/// killed holds the lock only until the session is dead.
const IDENTITY: Duration = Duration::from_millis(5);

/// Starts each session under a guard and a supervisor of its own.
#[derive(Debug)]
pub struct Supervised {
    self_exe: PathBuf,
    spool_root: PathBuf,
    /// Asked about attempts that an earlier conductor started as units.
    manager: OnceCell<Systemd>,
}

/// The living guard of a spool, or its supervisor where that is all that is left.
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
        // A dead one that nobody waited for keeps number and time.
        self.process_id()
            .is_some_and(|pid| lives(pid) && start_time(pid) == Some(self.started))
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
        self.manager.get_or_try_init(|| Systemd::connect(&self.self_exe)).await
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
        probe::pass(Point::Ordered);
        let spawned = Command::new(&self.self_exe)
            .arg(SUPERVISE)
            .arg(&launch.spool)
            .arg(&launch.unit)
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
        probe::pass(Point::Launched);
        let pid = child.id();
        let mut said = String::new();
        if let Some(pipe) = &mut child.stdout {
            // One line, or the end of both processes.
            match timeout(START_TIMEOUT, BufReader::new(pipe).read_line(&mut said)).await {
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

    /// Walks the spools for locks that are held, and the processes for supervisors whose spool is gone.
    pub(super) fn units(&self, prefix: &str) -> Vec<String> {
        let mut found: BTreeSet<String> = supervisors()
            .filter(|supervisor| supervisor.spool.starts_with(&self.spool_root))
            .map(|supervisor| supervisor.unit)
            .collect();
        // ledger / run / sheet and attempt / check
        let mut next = vec![(self.spool_root.clone(), 0)];
        while let Some((directory, depth)) = next.pop() {
            let spool = Spool::new(&directory);
            if depth >= 2
                && matches!(is_held(&spool), Ok(true))
                && let Ok(order) = spool.order()
            {
                found.insert(order.unit);
            }
            if depth < 4 {
                let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
                let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                next.extend(directories.map(|entry| (entry.path(), depth + 1)));
            }
        }
        found.retain(|unit| unit.starts_with(prefix));
        found.into_iter().collect()
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
        None => over(spool).await,
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
    match over(spool).await {
        Evidence::Ended(certificate) => certificate,
        _ => lost(spool),
    }
}

pub(super) async fn stop(spool: &Spool, how: StopHow) -> Result<(), LaunchError> {
    let wrap = |error: io::Error| LaunchError::Spool(spool.lock(), error);
    let Some(holder) = holder(spool).await.map_err(wrap)? else {
        return Ok(());
    };
    // Asked, not killed: the session may end in its own way, and its record says how it did.
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

/// Writes the order and takes the spool's lock for the guard that will inherit it. `None`: something of
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
    // Taken now, so that a disk that fills up meanwhile has room for the record.
    (&lock).write_all(&[b' '; LOCK_ROOM])?;
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

/// The living guard of `spool`: the one that holds its lock, or whose files were deleted below it.
async fn holder(spool: &Spool) -> io::Result<Option<Holder>> {
    if fs::symlink_metadata(spool.lock()).is_err() {
        return Ok(bereft(spool));
    }
    while is_held(spool)? {
        if let Some(holder) = identified(&fs::read(spool.lock())?) {
            return Ok(Some(holder));
        }
        // It has just begun, or has just ended.
        sleep(IDENTITY).await;
    }
    Ok(None)
}

/// The process that wrote itself into the lock, if it still lives.
fn identified(lock: &[u8]) -> Option<Holder> {
    let line = lock.split(|byte| *byte == b'\n').next()?;
    let (pid, started) = std::str::from_utf8(line).ok()?.split_once(' ')?;
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

/// The guard that still works although the lock of its spool is gone, else the supervisor.
pub(super) fn bereft(spool: &Spool) -> Option<Holder> {
    let own = supervisors().filter(|supervisor| supervisor.spool == spool.directory());
    let found = own.min_by_key(|supervisor| supervisor.guarded)?;
    held_by(i32::try_from(found.pid).ok()?, start_time(found.pid)?)
}

/// A process that guards or supervises a session, as its command line tells.
struct Supervisor {
    pid: u32,
    spool: PathBuf,
    unit: String,
    /// It is the supervisor, not the guard.
    guarded: bool,
}

/// All guards and supervisors of this user.
fn supervisors() -> impl Iterator<Item = Supervisor> {
    let user = rustix::process::getuid().as_raw();
    processes().filter_map(move |pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let command = fs::read(process.join("cmdline")).ok()?;
        let mut words = command.split(|byte| *byte == 0).skip(1);
        let is_one = words.next() == Some(SUPERVISE.as_bytes())
            // Any user can give a process such a command line.
            && fs::metadata(process).is_ok_and(|metadata| metadata.uid() == user)
            // A child shows the same words until it executes its own program.
            && leads_session(pid);
        is_one.then_some(())?;
        Some(Supervisor {
            pid,
            spool: Path::new(OsStr::from_bytes(words.next()?)).to_owned(),
            unit: String::from_utf8_lossy(words.next()?).into_owned(),
            guarded: words.next().is_some_and(|guard| !guard.is_empty()),
        })
    })
}

/// What became of a session that nobody holds. Where guard and supervisor were killed at once, what they left behind
/// and still writes to the attempt's output is killed here.
async fn over(spool: &Spool) -> Evidence {
    let give_up = Instant::now() + GIVE_UP;
    loop {
        let evidence = left_behind(spool);
        let lost = evidence == Evidence::EndedUnknown
            && spool.order().is_ok_and(|order| order.launcher == Started::Supervised);
        if !lost || !kill_writers(spool) || give_up <= Instant::now() {
            return evidence;
        }
        sleep(KILL_AGAIN).await;
    }
}

/// Kills every process that writes to the spool's output; whether there was one.
fn kill_writers(spool: &Spool) -> bool {
    let Ok(directory) = spool.directory().canonicalize() else {
        return false;
    };
    let own = Spool::new(directory);
    let own = [own.stdout(), own.stderr()];
    let writers = processes().filter(|pid| writes_to(*pid, &own)).filter_map(|pid| {
        let pidfd = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        // Looked at again, so that the pidfd is not another process's of the same number.
        writes_to(pid, &own).then(|| pidfd_send_signal(pidfd, Signal::KILL).ok())
    });
    writers.count() > 0
}

/// Whether a process has one of `files` open for writing.
fn writes_to(pid: u32, files: &[PathBuf]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.map(|file| file.path()).any(|file| {
        // The mode of the link is how the file was opened (`proc_pid_fd(5)`).
        fs::read_link(&file).is_ok_and(|path| files.contains(&path))
            && file.symlink_metadata().is_ok_and(|link| link.mode() & 0o200 != 0)
    })
}

/// Waits for the end of that process.
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
