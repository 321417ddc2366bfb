//! The two processes that see one session to its end, where no user manager does that work.
//!
//! The guard is what the launcher starts; the supervisor is its child and starts the session. Each leads a session
//! of its own, so that it outlives whoever started it, and is a child subreaper: every orphan of the session becomes
//! a child of the supervisor or, when that is gone, of the guard, also orphans in sessions and process groups of
//! their own. So whichever of the two is killed, the other finds and ends whatever the session left, and leaves the
//! exit record last. Both hold the lock of the spool (inherited as standard input, so that there is no moment
//! without a holder); the guard is the one that is known by it, and hands on what it is asked.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, setsid, wait,
};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::exec::{EXEC, helper, now};
use super::record::{Record, signal_name};
use super::spool::{Order, Spool, append_private};
use crate::runner::classify::{START_FAILED, TIMEOUT};

/// The hidden argument behind which spool and unit stand, and for the supervisor the guard's process id.
pub(super) const SUPERVISE: &str = "--mozart-supervise";

/// What the supervisor prints once the session runs.
pub(super) const STARTED: &str = "started\n";

/// Bytes of the lock: the guard's identity, then room for a record that finds none behind the session's output.
pub(super) const LOCK_ROOM: usize = 1024;
/// Where that record begins.
const RECORD_AT: u64 = 128;

/// How long processes that even KILL does not end are waited for (other users', or stuck in the kernel).
pub(super) const GIVE_UP: Duration = Duration::from_secs(10);

/// How often KILL is repeated: a process may fork between being listed and being killed.
pub(super) const KILL_AGAIN: Duration = Duration::from_millis(20);

/// Clock ticks a second in /proc (`USER_HZ`, `proc(5)`): 100 on every architecture that Rust has.
const USER_HZ: i64 = 100;

/// Guards, or for the guard of that process id supervises, the session whose order lies in `directory`, to its end.
pub(super) fn supervise(directory: &Path, guard: Option<&str>) -> ExitCode {
    match run(directory, guard) {
        Ok(code) => code,
        Err(error) => {
            // Standard error is usually closed; the missing record tells as much.
            writeln!(io::stderr(), "mozart: supervisor in {}: {error}", directory.display()).ok();
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &Path, guard: Option<&str>) -> io::Result<ExitCode> {
    let lock = rustix::stdio::stdin();
    flock(lock, FlockOperation::NonBlockingLockExclusive)?;
    let spool = Spool::new(directory);
    let order = spool.order()?;
    std::env::set_current_dir("/")?;
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let heard = Heard::new()?;
        match guard {
            None => guard_over(&spool, &order, heard).await,
            Some(guard) => watch(&spool, &order, heard, guard).await,
        }
    })
}

/// The signals that either process acts on.
struct Heard {
    child: Signals,
    terminate: Signals,
    kill: Signals,
    /// Taken so that they end nothing.
    _others: [Signals; 2],
}

impl Heard {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            kill: signal(SignalKind::user_defined1())?,
            _others: [signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?],
        })
    }
}

/// Starts the supervisor and stands in for it if it is killed.
async fn guard_over(spool: &Spool, order: &Order, mut heard: Heard) -> io::Result<ExitCode> {
    // Only now may somebody signal this process.
    write_identity()?;
    let supervisor = Command::new(std::env::current_exe()?)
        .arg(SUPERVISE)
        .arg(spool.directory())
        .arg(&order.unit)
        .arg(std::process::id().to_string())
        .stderr(Stdio::null())
        .spawn();
    let supervisor = match supervisor {
        Ok(child) => Pid::from_child(&child),
        Err(error) => return record_failed_start(spool, &error),
    };
    let mut status = None;
    let ended = loop {
        reap(supervisor, &mut status);
        if let Some(ended) = status {
            break ended;
        }
        tokio::select! {
            _ = heard.child.recv() => {}
            _ = heard.terminate.recv() => send(supervisor, Signal::TERM),
            _ = heard.kill.recv() => send(supervisor, Signal::USR1),
        }
    };
    if ended.exit_status() == Some(0) {
        return Ok(ExitCode::SUCCESS);
    }
    end_the_rest(supervisor, &mut status, &mut heard.child).await;
    if ended.terminating_signal().is_none() {
        // It failed, and could not tell how the session ended; neither can anybody else.
        return Ok(ExitCode::FAILURE);
    }
    leave(&mut append_private(&spool.stdout())?, &record(words(Some(ended))))
}

/// Starts the session and sees it to its end.
async fn watch(spool: &Spool, order: &Order, mut heard: Heard, guard: &str) -> io::Result<ExitCode> {
    // When the guard is killed, nobody would be there for this process's own death: the session ends with it.
    set_parent_process_death_signal(Some(Signal::USR1)).ok();
    let mut stdout = append_private(&spool.stdout())?;
    if getppid().map(|parent| parent.as_raw_nonzero().to_string()).as_deref() != Some(guard) {
        // It was killed already; nothing may start unguarded.
        return leave(&mut stdout, &record(("signal", "killed", "KILL".to_owned())));
    }
    let main = match spawn(spool, &stdout) {
        Ok(main) => main,
        Err(error) => return record_failed_start(spool, &error),
    };
    // The starter may be gone; that is no reason not to work.
    rustix::io::write(rustix::stdio::stdout(), STARTED.as_bytes()).ok();

    let grace = order.stop_grace.to_duration();
    let limit = order.timeout.to_duration();
    let mut wake = (!limit.is_zero()).then(|| Instant::now() + limit);
    let mut ending = false;
    let mut asked_to_end = HashSet::new();
    let mut status = None;
    let mut result = None;
    loop {
        if reap(main, &mut status) {
            break;
        }
        if !ending && status.is_some() {
            ending = true;
            wake = Some(Instant::now() + grace);
        }
        if ending {
            // Also those that were forked while the others were asked.
            let rest = descendants().into_iter();
            rest.filter(|pid| asked_to_end.insert(*pid)).for_each(ask);
        }
        let asleep = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = heard.child.recv() => {}
            _ = heard.terminate.recv() => if !ending {
                ending = true;
                wake = Some(Instant::now() + grace);
            },
            _ = heard.kill.recv() => break,
            () = asleep => {
                if status.is_none() {
                    // Also systemd's word for a session that ignored TERM, whoever asked.
                    result = Some(TIMEOUT);
                }
                if ending {
                    break;
                }
                ending = true;
                wake = Some(Instant::now() + grace);
            }
        }
    }
    end_the_rest(main, &mut status, &mut heard.child).await;
    let (own_result, code, word) = words(status);
    leave(&mut stdout, &record((result.unwrap_or(own_result), code, word)))
}

/// Kills every process below this one, `main` among them, and takes their ends.
async fn end_the_rest(main: Pid, status: &mut Option<WaitStatus>, child: &mut Signals) {
    let give_up = Instant::now() + GIVE_UP;
    while !reap(main, status) && Instant::now() < give_up {
        descendants().into_iter().for_each(|pid| send(pid, Signal::KILL));
        timeout(KILL_AGAIN, child.recv()).await.ok();
    }
}

fn spawn(spool: &Spool, stdout: &File) -> io::Result<Pid> {
    // The secrets are in this process's own environment; the helper takes those that the order names.
    let child = Command::new(helper(&std::env::current_exe()?))
        .arg(EXEC)
        .arg(spool.directory())
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(append_private(&spool.stderr())?)
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

fn record_failed_start(spool: &Spool, error: &io::Error) -> io::Result<ExitCode> {
    let mut stderr = append_private(&spool.stderr())?;
    writeln!(stderr, "mozart: the session could not be started: {error}")?;
    let mut stdout = append_private(&spool.stdout())?;
    leave(&mut stdout, &record((START_FAILED, "", String::new())))
}

fn record((result, code, status): (&str, &str, String)) -> Record {
    Record {
        v: 1,
        result: result.to_owned(),
        code: code.to_owned(),
        status,
        cpu_us: children_cpu(),
        peak_memory: None,
        at: now(),
    }
}

/// Leaves the record behind the session's output or, where that cannot grow, in the room that the lock keeps.
fn leave(stdout: &mut File, record: &Record) -> io::Result<ExitCode> {
    let own = stdout.metadata()?.len();
    if record.append(stdout).is_err() {
        // A part of it would be taken for output.
        stdout.set_len(own).ok();
        let mut line = Vec::new();
        record.append(&mut line)?;
        rustix::io::pwrite(rustix::stdio::stdin(), &line, RECORD_AT)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes who holds the lock into the locked file: process id and start time, which no later process shares.
fn write_identity() -> io::Result<()> {
    let pid = std::process::id();
    let started = start_time(pid).ok_or_else(|| io::Error::other("/proc does not show this process"))?;
    let text = format!("{pid} {started}\n");
    rustix::io::pwrite(rustix::stdio::stdin(), text.as_bytes(), 0)?;
    Ok(())
}

/// Takes the ends of all children, those that were left to this process included. Whether it has none now: then
/// nothing is below it, for every orphan becomes its child.
fn reap(main: Pid, status: &mut Option<WaitStatus>) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, ended))) if pid == main => *status = Some(ended),
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(error) => return error == rustix::io::Errno::CHILD,
        }
    }
}

fn words(status: Option<WaitStatus>) -> (&'static str, &'static str, String) {
    let Some(status) = status else {
        return (TIMEOUT, "", String::new());
    };
    if let Some(code) = status.exit_status() {
        return (
            if code == 0 { "success" } else { "exit-code" },
            "exited",
            code.to_string(),
        );
    }
    let number = status.terminating_signal().unwrap_or_default();
    // As systemd has it: these are clean ends of a service (`systemd.service(5)`, SuccessExitStatus=).
    let clean = [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE]
        .iter()
        .any(|signal| signal.as_raw() == number);
    (if clean { "success" } else { "signal" }, "killed", signal_name(number))
}

/// Asks a process to end, also one that is stopped.
fn ask(pid: Pid) {
    send(pid, Signal::TERM);
    send(pid, Signal::CONT);
}

fn send(pid: Pid, signal: Signal) {
    // One that is gone meanwhile, or another user's: the next round sees.
    kill_process(pid, signal).ok();
}

/// Every process below this one; also those of which only the end is left to be taken, for threads of them may live.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in processes() {
        if let Some(parent) = stat(pid).and_then(|stat| stat.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![std::process::id()];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            next.push(child);
            found.extend(i32::try_from(child).ok().and_then(Pid::from_raw));
        }
    }
    found
}

/// Every process that /proc shows.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` behind the program's name: state, parent, … (`proc(5)`).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

/// When a process started, in clock ticks since boot: with its id, its identity.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Whether a process is not over, though its end may not have been taken yet.
pub(super) fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.first().is_some_and(|state| state != "Z" && state != "X"))
}

/// Whether a process leads a session of its own, as guards and supervisors do.
pub(super) fn leads_session(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.get(3).and_then(|session| session.parse().ok()) == Some(pid))
}

/// CPU time of all children that were waited for, theirs included.
fn children_cpu() -> Option<i64> {
    let fields = stat(std::process::id())?;
    let user: i64 = fields.get(13)?.parse().ok()?;
    let system: i64 = fields.get(14)?.parse().ok()?;
    Some((user + system) * (1_000_000 / USER_HZ))
}
