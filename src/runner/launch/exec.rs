//! The two helpers that run inside a session's unit: the one that becomes the session's program, and the one
//! that leaves the exit record.
//!
//! Both start once per attempt, so they read one small file or none and load nothing else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::record::Record;
use super::spool::{ExecError, Order, Spool, Started};
use crate::model::{Code, Timestamp};

/// The hidden argument of the first; behind it the spool.
pub(super) const EXEC: &str = "--mozart-exec";
/// The hidden argument of the second.
pub(super) const EXIT_RECORD: &str = "--mozart-exit-record";

/// The program that is made for both and nothing else.
const HELPER: &str = "mozart-helper";

/// The program that runs them: the small one where it lies beside `own`, else `own`, which can do it too.
pub(super) fn helper(own: &Path) -> PathBuf {
    let small = own.with_file_name(HELPER);
    let runs = fs::metadata(&small).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    if runs { small } else { own.to_owned() }
}

/// Exit statuses of the exec helper where it cannot become the program; systemd's own (`systemd.exec(5)`).
const EXIT_CHDIR: u8 = 200;
const EXIT_EXEC: u8 = 203;
const EXIT_ORDER: u8 = 204;
const EXIT_CREDENTIALS: u8 = 243;

/// Whether an exit status is one of the exec helper's own.
pub(crate) fn is_helper_status(status: i32) -> bool {
    [EXIT_CHDIR, EXIT_EXEC, EXIT_ORDER, EXIT_CREDENTIALS]
        .iter()
        .any(|own| i32::from(*own) == status)
}

struct Refusal {
    status: u8,
    error: ExecError,
}

fn refusal(status: u8, code: Code, message: String) -> Refusal {
    Refusal {
        status,
        error: ExecError { code, message },
    }
}

/// Becomes the program that the spool's order names; returns only where that fails, after it left word in
/// the spool and on standard error.
pub(super) fn exec(directory: &Path) -> ExitCode {
    let spool = Spool::new(directory);
    let refusal = become_program(&spool);
    let said = spool.note_exec_error(&refusal.error);
    let mut stderr = io::stderr();
    // Nobody is left to tell where standard error itself fails.
    writeln!(stderr, "mozart: {}", refusal.error.message).ok();
    if let Err(error) = said {
        writeln!(stderr, "mozart: cannot write to {}: {error}", directory.display()).ok();
    }
    ExitCode::from(refusal.status)
}

fn become_program(spool: &Spool) -> Refusal {
    let read = spool
        .read_order()
        .and_then(|(order, input)| Ok((order, in_memory(input)?)));
    let (order, input) = match read {
        Ok(read) => read,
        Err(error) => {
            let message = format!("cannot read what to run from {}: {error}", spool.directory().display());
            return refusal(EXIT_ORDER, Code::E999, message);
        }
    };
    let env = match environment(&order) {
        Ok(env) => env,
        Err(refusal) => return refusal,
    };
    if order.launcher == Started::Supervised {
        // The supervisor's own death must not leave the session behind. Where the call is unknown, only that is lost.
        set_parent_process_death_signal(Some(Signal::KILL)).ok();
    }
    if let Err(error) = std::env::set_current_dir(&order.cwd) {
        let message = format!(
            "cannot change to the working directory {}: {}",
            order.cwd.display(),
            plain(&error)
        );
        return refusal(EXIT_CHDIR, Code::E603, message);
    }
    let Some((program, arguments)) = order.argv.split_first() else {
        return refusal(EXIT_EXEC, Code::E505, "no program is named".to_owned());
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .stdin(input)
        .exec();
    let there = program.contains('/') && Path::new(program).exists();
    match error.kind() {
        ErrorKind::ArgumentListTooLong => {
            let message = format!("cannot start {program}: Argument list too long");
            refusal(EXIT_EXEC, Code::E602, message)
        }
        ErrorKind::NotFound if there => {
            let message = format!("cannot start {program}: the interpreter that it asks for is missing");
            refusal(EXIT_EXEC, Code::E505, message)
        }
        _ => refusal(
            EXIT_EXEC,
            Code::E505,
            format!("cannot start {program}: {}", plain(&error)),
        ),
    }
}

/// The rest of `input` as a file of its own, at its beginning: a program may also open `/dev/stdin` anew.
fn in_memory(mut input: impl Read) -> io::Result<File> {
    // Kernels before 6.3 do not know the second flag; later ones may insist on it (`vm.memfd_noexec`).
    let plain = MemfdFlags::CLOEXEC;
    let fd = memfd_create("input", plain | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create("input", plain))?;
    let mut file = File::from(fd);
    io::copy(&mut input, &mut file)?;
    file.rewind()?;
    Ok(file)
}

fn environment(order: &Order) -> Result<Vec<(OsString, OsString)>, Refusal> {
    let mut env: Vec<(OsString, OsString)> = order
        .env
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    for name in &order.secrets {
        let value = match order.launcher {
            Started::Supervised => std::env::var_os(name),
            Started::Systemd => std::env::var_os("CREDENTIALS_DIRECTORY")
                .and_then(|directory| fs::read_to_string(PathBuf::from(directory).join(name)).ok())
                .map(OsString::from),
        };
        let Some(value) = value else {
            return Err(refusal(
                EXIT_CREDENTIALS,
                Code::E502,
                format!("the credential {name} did not arrive"),
            ));
        };
        env.push((name.into(), value));
    }
    Ok(env)
}

/// The error in the system's words, without Rust's `(os error 2)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Prints the exit record of the unit that this process is the `ExecStopPost=` of.
pub(super) fn exit_record() -> ExitCode {
    let word = |name: &str| std::env::var(name).unwrap_or_default();
    let cgroup = cgroup();
    let read = |file: &str| {
        cgroup
            .as_ref()
            .and_then(|cgroup| fs::read_to_string(cgroup.join(file)).ok())
    };
    let record = Record {
        v: 1,
        result: word("SERVICE_RESULT"),
        code: word("EXIT_CODE"),
        status: word("EXIT_STATUS"),
        cpu_us: read("cpu.stat").and_then(|text| usage(&text)),
        peak_memory: read("memory.peak").and_then(|text| text.trim().parse().ok()),
        at: now(),
    };
    match record.append(&mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Directory of this process's own cgroup (v2, or the v2 side of a hybrid tree), if it is a unit's.
fn cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?
        .trim_end_matches("/.control");
    if !path.ends_with(".service") {
        return None;
    }
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .map(|root| Path::new(root).join(path))
        .find(|path| path.is_dir())
}

fn usage(stat: &str) -> Option<i64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?
        .trim()
        .parse()
        .ok()
}

/// Wall time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
