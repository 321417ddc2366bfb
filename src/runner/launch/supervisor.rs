//! The supervisor of one session, where no user manager does that work.
//!
//! A process of its own, in a session of its own, so that it outlives whoever started it. As a child subreaper
//! every orphan of the session becomes its child, so it finds and ends whatever the session left, also in
//! sessions and process groups of their own. It holds the lock of the spool (inherited as standard input, so
//! that there is no moment without a holder) and leaves the exit record last.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, setsid, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::exec::now;
use super::record::{Record, signal_name};
use super::spool::{Order, Spool, append_private};
use crate::runner::classify::{START_FAILED, TIMEOUT};

/// The hidden argument behind which the spool stands.
pub(super) const SUPERVISE: &str = "--mozart-supervise";

/// What the supervisor prints once the session runs.
pub(super) const STARTED: &str = "started\n";

/// How long processes that even KILL does not end are waited for (other users', or stuck in the kernel).
const GIVE_UP: Duration = Duration::from_secs(10);

/// How often KILL is repeated: a process may fork between being listed and being killed.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// Clock ticks a second in /proc (`USER_HZ`, `proc(5)`): 100 on every architecture that Rust has.
const USER_HZ: i64 = 100;

/// Supervises the session whose order lies in `directory`, to its end.
pub(super) fn supervise(directory: &Path) -> ExitCode {
    match run(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is usually closed; the missing record tells as much.
            writeln!(io::stderr(), "mozart: supervisor in {}: {error}", directory.display()).ok();
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &Path) -> io::Result<()> {
    let lock = rustix::stdio::stdin();
    flock(lock, FlockOperation::NonBlockingLockExclusive)?;
    let spool = Spool::new(directory);
    let order = spool.order()?;
    std::env::set_current_dir("/")?;
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(&spool, &order))
}

enum Phase {
    Working,
    Terminating,
    Killing { give_up: Instant },
}

async fn watch(spool: &Spool, order: &Order) -> io::Result<()> {
    let mut child = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut kill = signal(SignalKind::user_defined1())?;
    // Taken so that they end nothing.
    let _hangup = signal(SignalKind::hangup())?;
    let _interrupt = signal(SignalKind::interrupt())?;
    // Only now may somebody signal this process.
    write_identity()?;

    let mut stdout = append_private(&spool.stdout())?;
    let main = match spawn(spool, &stdout) {
        Ok(main) => main,
        Err(error) => return record_failed_start(spool, &mut stdout, &error),
    };
    tell_started()?;

    let grace = order.stop_grace.to_duration();
    let limit = order.timeout.to_duration();
    let mut wake = (!limit.is_zero()).then(|| Instant::now() + limit);
    let mut phase = Phase::Working;
    let mut asked_to_end = HashSet::new();
    let mut status = None;
    let mut result = None;
    loop {
        reap(main, &mut status);
        if matches!(phase, Phase::Working) && status.is_some() {
            phase = Phase::Terminating;
            wake = Some(Instant::now() + grace);
        }
        let rest = descendants();
        match phase {
            Phase::Working => {}
            // Also those that were forked while the others were asked.
            Phase::Terminating => rest
                .iter()
                .filter(|pid| asked_to_end.insert(**pid))
                .for_each(|pid| ask(*pid)),
            Phase::Killing { .. } => {
                rest.iter().for_each(|pid| send(*pid, Signal::KILL));
                wake = Some(Instant::now() + KILL_AGAIN);
            }
        }
        let hopeless = matches!(phase, Phase::Killing { give_up } if give_up <= Instant::now());
        if hopeless || (status.is_some() && rest.is_empty()) {
            break;
        }
        let asleep = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = child.recv() => {}
            _ = terminate.recv() => if matches!(phase, Phase::Working) {
                phase = Phase::Terminating;
                wake = Some(Instant::now() + grace);
            },
            _ = kill.recv() => if !matches!(phase, Phase::Killing { .. }) {
                phase = Phase::Killing { give_up: Instant::now() + GIVE_UP };
            },
            () = asleep => match phase {
                Phase::Working => {
                    result = Some(TIMEOUT);
                    phase = Phase::Terminating;
                    wake = Some(Instant::now() + grace);
                }
                Phase::Terminating => {
                    if status.is_none() {
                        // systemd's word for a session that ignored TERM, whoever asked.
                        result = Some(TIMEOUT);
                    }
                    phase = Phase::Killing { give_up: Instant::now() + GIVE_UP };
                }
                Phase::Killing { .. } => {}
            },
        }
    }
    let (own_result, code, word) = words(status);
    let record = Record {
        v: 1,
        result: result.unwrap_or(own_result).to_owned(),
        code: code.to_owned(),
        status: word,
        cpu_us: children_cpu(),
        peak_memory: None,
        at: now(),
    };
    record.append(&mut stdout)
}

fn spawn(spool: &Spool, stdout: &File) -> io::Result<Pid> {
    // The secrets are in this process's own environment; the helper takes those that the order names.
    let child = Command::new(std::env::current_exe()?)
        .arg("--mozart-exec")
        .arg(spool.directory())
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(append_private(&spool.stderr())?)
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

fn record_failed_start(spool: &Spool, stdout: &mut File, error: &io::Error) -> io::Result<()> {
    let mut stderr = append_private(&spool.stderr())?;
    writeln!(stderr, "mozart: the session could not be started: {error}")?;
    let record = Record {
        v: 1,
        result: START_FAILED.to_owned(),
        code: String::new(),
        status: String::new(),
        cpu_us: None,
        peak_memory: None,
        at: now(),
    };
    record.append(stdout)
}

/// Writes who holds the lock into the locked file: process id and start time, which no later process shares.
fn write_identity() -> io::Result<()> {
    let pid = std::process::id();
    let started = start_time(pid).ok_or_else(|| io::Error::other("/proc does not show this process"))?;
    let text = format!("{pid} {started}\n");
    rustix::io::pwrite(rustix::stdio::stdin(), text.as_bytes(), 0)?;
    Ok(())
}

/// Tells the starter, and lets go of the pipe to it.
fn tell_started() -> io::Result<()> {
    // The starter may be gone; that is no reason not to work.
    rustix::io::write(rustix::stdio::stdout(), STARTED.as_bytes()).ok();
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    Ok(())
}

/// Takes the ends of all children, the session's own and those that were left to this process.
fn reap(main: Pid, status: &mut Option<WaitStatus>) {
    while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
        if pid == main {
            *status = Some(ended);
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

/// Every living process below this one.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(stat) = stat(pid)
            && let (Some(state), Some(parent)) = (stat.first(), stat.get(1).and_then(|parent| parent.parse().ok()))
            && state != "Z"
            && state != "X"
        {
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

/// Whether a process leads a session of its own, as every supervisor does.
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
