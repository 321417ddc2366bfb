//! Runs one command line so that it outlives the conductor and nothing of it outlives its end.
//!
//! Two launchers with the same promises: [`Systemd`] makes each attempt a transient unit of the user's manager;
//! [`Supervised`] gives it a small supervisor and that a guard, for where there is no such manager. Both leave the same
//! spool behind, and what became of an attempt is always read in the same order: the unit (or the supervisor's
//! lock), the exit record, the output file's existence. Nothing here knows what a session is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::classify;
use super::room;
use super::spec::Secrets;
use crate::model::{Certificate, Code, Exit, Span, StopHow, Timestamp};
use crate::probe::{self, Point};
use crate::prompt::elsewhere;

pub(crate) mod exec;
pub mod record;
mod render;
#[cfg(test)]
pub mod scripted;
pub mod spool;
mod supervised;
mod supervisor;
mod systemd;

pub(crate) use exec::now;
pub use supervised::Supervised;
pub use systemd::Systemd;

pub(crate) use spool::boot_id;
use spool::{Order, Spool, Started};

/// One command line to run.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name of the unit, without `.service`; never used for anything else before or after.
    pub unit: String,
    /// What it is, for people who list units.
    pub description: String,
    /// The attempt's own directory; absolute, made where it is missing.
    pub spool: PathBuf,
    /// Its standard input.
    pub input: Vec<u8>,
    /// Program and arguments; the program is absolute or found on `env`'s PATH.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment, but for the secrets.
    pub env: BTreeMap<String, String>,
    /// Added to the environment on a way that no other process can read along.
    pub secrets: Secrets,
    /// The session is ended then; none where it is not positive.
    pub timeout: Span,
    /// Between TERM and KILL.
    pub stop_grace: Span,
}

impl Launch {
    /// Leaves in the spool what the exec helper reads.
    fn write_order(&self, spool: &Spool, launcher: Started, manager: &str) -> io::Result<()> {
        let order = Order {
            v: 1,
            unit: self.unit.clone(),
            argv: self.argv.clone(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            secrets: self.secrets.0.keys().cloned().collect(),
            launcher,
            boot: boot_id(),
            manager: manager.to_owned(),
            timeout: self.timeout,
            stop_grace: self.stop_grace,
        };
        spool.write_order(&order, &self.input)
    }
}

/// What came of a start.
#[derive(Debug, Clone, PartialEq)]
pub enum StartOutcome {
    /// The process runs, or ran already to its end.
    Started {
        /// When it started.
        at: Timestamp,
        /// systemd's InvocationID, or the supervisor's start id.
        invocation: Option<String>,
        /// Process id of the session, or of its guard.
        pid: Option<u32>,
    },
    /// It is certain that no session ran.
    Failed {
        /// `start-failed`.
        certificate: Certificate,
        /// One sentence for a person.
        message: String,
    },
    /// There is no room to start it; nothing ran. One sentence that names the path.
    NoRoom(String),
    /// The answer was lost, or something of that name was there before: ask for the evidence.
    Unknown,
}

impl StartOutcome {
    fn unwritable(spool: &Spool, error: &io::Error) -> Self {
        if room::is_short(error) {
            return Self::NoRoom(room::refused(spool.directory(), error));
        }
        Self::failed(format!("cannot write to {}: {error}", spool.directory().display()))
    }

    fn failed(message: String) -> Self {
        let certificate = Certificate {
            exit: Exit::Unknown,
            result: classify::START_FAILED.to_owned(),
            wall: None,
            cpu: None,
            peak_memory: None,
            stopped_by_us: false,
        };
        Self::Failed { certificate, message }
    }
}

/// What is known of an attempt that was to be started, now or by an earlier conductor.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// It runs.
    Running {
        /// systemd's InvocationID, or the supervisor's start id.
        invocation: Option<String>,
        /// Process id of the session, or of its guard.
        pid: Option<u32>,
        /// When it started, where known.
        started_at: Option<Timestamp>,
    },
    /// It ended, and how is known.
    Ended(Certificate),
    /// It ran or was tried, is over, and left no record.
    EndedUnknown,
    /// Nothing of it ever ran: the same attempt may start again.
    NeverRan,
}

/// Why a launcher could not find something out or do it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The user manager does not answer.
    #[error("the user's systemd cannot be reached: {0}")]
    Bus(String),
    /// A file of the spool.
    #[error("{0}: {1}")]
    Spool(PathBuf, std::io::Error),
}

/// Starts, finds, watches and ends sessions.
#[derive(Debug)]
pub enum Launcher {
    /// Transient units of the user's manager.
    Systemd(Systemd),
    /// Guards and supervisors.
    Supervised(Supervised),
    /// Plain processes, and calls that fail as a test says.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Launcher {
    /// The launcher on the user's systemd. `self_exe` is the absolute path of this program (any one that calls
    /// [`early`] first).
    ///
    /// # Errors
    /// Where there is no user manager, or it does not answer.
    pub async fn systemd(self_exe: &Path) -> Result<Self, LaunchError> {
        Systemd::connect(self_exe).await.map(Self::Systemd)
    }

    /// The launcher that needs nothing but Linux. `spool_root` is the directory of all spools.
    pub fn supervised(self_exe: PathBuf, spool_root: PathBuf) -> Self {
        Self::Supervised(Supervised::new(self_exe, spool_root))
    }

    /// The word for this launcher: `systemd` or `supervised`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Systemd(_) => "systemd",
            Self::Supervised(_) => "supervised",
            #[cfg(test)]
            Self::Scripted(_) => "scripted",
        }
    }

    /// Starts `launch`.
    pub async fn start(&self, launch: &Launch) -> StartOutcome {
        let spool = Spool::new(&launch.spool);
        if let Err(error) = spool.create() {
            return StartOutcome::unwritable(&spool, &error);
        }
        // Something of it ran already, or another launcher's supervisor is about to.
        if spool.has_stdout() || !matches!(supervised::is_held(&spool), Ok(false)) {
            return StartOutcome::Unknown;
        }
        match self {
            Self::Systemd(systemd) => systemd.start(launch).await,
            Self::Supervised(supervised) => supervised.start(launch).await,
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.start(launch),
        }
    }

    /// What an attempt was started by, which may not be this launcher: an embedded conductor and the service may take
    /// each other's attempts up.
    ///
    /// An error where it is a unit of this boot and no user manager can be asked about it.
    async fn starter(&self, spool: &Spool) -> Result<Starter<'_>, LaunchError> {
        let Ok(order) = spool.order() else {
            // Never written, or deleted below a living session of either kind.
            return Ok(match self {
                _ if supervised::bereft(spool).is_some() => Starter::Supervisor,
                Self::Systemd(systemd) => Starter::Manager(systemd),
                Self::Supervised(supervised) => {
                    supervised.manager().await.map_or(Starter::Supervisor, Starter::Manager)
                }
                #[cfg(test)]
                Self::Scripted(scripted) => Starter::Script(scripted),
            });
        };
        match self {
            Self::Systemd(_) if order.launcher == Started::Supervised => Ok(Starter::Supervisor),
            Self::Systemd(systemd) => Ok(Starter::Manager(systemd)),
            Self::Supervised(supervised)
                if order.launcher == Started::Systemd && order.boot == boot_id() && spool.record().is_none() =>
            {
                supervised.manager().await.map(Starter::Manager)
            }
            Self::Supervised(_) => Ok(Starter::Supervisor),
            #[cfg(test)]
            Self::Scripted(scripted) => Ok(Starter::Script(scripted)),
        }
    }

    /// Finds out what became of an attempt, and keeps what the system knows of it until [`Self::release`].
    ///
    /// # Errors
    /// Where the evidence cannot be read now; nothing may be concluded from that.
    pub async fn evidence(&self, unit: &str, spool: &Path) -> Result<Evidence, LaunchError> {
        let spool = Spool::new(spool);
        match self.starter(&spool).await? {
            Starter::Manager(systemd) => systemd.evidence(unit, &spool).await,
            Starter::Supervisor => supervised::evidence(&spool).await,
            #[cfg(test)]
            Starter::Script(scripted) => scripted.evidence(unit, &spool),
        }
    }

    /// Waits until the attempt is over, woken by the system and not by a clock.
    pub async fn wait(&self, unit: &str, spool: &Path) -> Certificate {
        let spool = Spool::new(spool);
        loop {
            match self.starter(&spool).await {
                Ok(Starter::Manager(systemd)) => return systemd.wait(unit, &spool).await,
                Ok(Starter::Supervisor) => return supervised::wait(&spool).await,
                #[cfg(test)]
                Ok(Starter::Script(scripted)) => return scripted.wait(unit, &spool).await,
                Err(_) => tokio::time::sleep(WITHOUT_MANAGER).await,
            }
        }
    }

    /// Asks for the attempt's end and returns at once; [`Self::wait`] tells when it is over. An attempt that is
    /// over already is no error.
    ///
    /// # Errors
    /// Where it could not be asked.
    pub async fn stop(&self, unit: &str, spool: &Path, how: StopHow) -> Result<(), LaunchError> {
        let spool = Spool::new(spool);
        // A stop is worth more than the note of it, which a full disk or a deleted spool refuses.
        spool.note_stop().ok();
        probe::pass(Point::Stopping);
        match self.starter(&spool).await? {
            Starter::Manager(systemd) => systemd.stop(unit, how).await,
            Starter::Supervisor => supervised::stop(&spool, how).await,
            #[cfg(test)]
            Starter::Script(scripted) => scripted.stop(unit, &spool, how),
        }
    }

    /// Lets the system forget the ended attempt: its verdict is committed.
    pub async fn release(&self, unit: &str) {
        match self {
            Self::Systemd(systemd) => systemd.release(unit).await,
            Self::Supervised(supervised) => supervised.release(unit).await,
            #[cfg(test)]
            Self::Scripted(_) => {}
        }
    }

    /// The control group of all sessions, as a directory; `None` where they have none of their own.
    pub async fn slice(&self) -> Option<PathBuf> {
        match self {
            Self::Systemd(systemd) => systemd.slice().await,
            Self::Supervised(_) => None,
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }

    /// Has the kernel take memory back from the sessions above so many bytes together; `None`: never. Nothing is killed
    /// for it.
    ///
    /// # Errors
    /// In words: why that has no effect.
    pub async fn limit_memory(&self, bytes: Option<u64>) -> Result<(), String> {
        match self {
            Self::Systemd(systemd) => systemd.limit_memory(bytes).await,
            Self::Supervised(_) => Err("sessions are no units here".to_owned()),
            #[cfg(test)]
            Self::Scripted(_) => Err("sessions are no units here".to_owned()),
        }
    }

    /// Names (without `.service`) of the attempts that the system has, running or held, whose name begins with
    /// `prefix`.
    ///
    /// # Errors
    /// Where the system cannot be asked.
    pub async fn units(&self, prefix: &str) -> Result<Vec<String>, LaunchError> {
        match self {
            Self::Systemd(systemd) => systemd.units(prefix).await,
            Self::Supervised(supervised) => Ok(supervised.units(prefix)),
            #[cfg(test)]
            Self::Scripted(_) => Ok(Vec::new()),
        }
    }
}

/// Whom to ask about an attempt.
enum Starter<'a> {
    /// The user manager: it is a unit.
    Manager(&'a Systemd),
    /// The lock of the spool: it has a supervisor, or never had anything.
    Supervisor,
    /// The test's own.
    #[cfg(test)]
    Script(&'a scripted::Scripted),
}

/// How often a user manager is looked for that a waiting attempt needs and that is not there.
const WITHOUT_MANAGER: Duration = Duration::from_secs(5);

/// What the spool alone tells of an attempt that does not run.
fn left_behind(spool: &Spool) -> Evidence {
    if let Some(record) = spool.record() {
        Evidence::Ended(sensible(
            record.certificate(spool.ordered_at(), spool.stop_was_asked()),
            spool,
        ))
    } else if spool.has_stdout() {
        Evidence::EndedUnknown
    } else {
        Evidence::NeverRan
    }
}

/// Says it where nothing of the session's own ran, and takes back a `timeout` that was not the session's: systemd
/// also says that where the session ended by itself and a process that it left behind ignored TERM.
fn sensible(mut certificate: Certificate, spool: &Spool) -> Certificate {
    if may_have_gone_down(&certificate) && spool.order().is_ok_and(|order| order.boot != boot_id()) {
        classify::SHUTDOWN.clone_into(&mut certificate.result);
        return certificate;
    }
    let Exit::Code(code) = certificate.exit else {
        return certificate;
    };
    let result = if exec::is_helper_status(code)
        && let Some(error) = spool.exec_error()
    {
        match error.code {
            Code::E505 => classify::PROGRAM_MISSING,
            Code::E603 => classify::DIRECTORY_MISSING,
            _ => classify::START_FAILED,
        }
    } else if certificate.result == classify::TIMEOUT
        && let (Some(wall), Ok(order)) = (certificate.wall, spool.order())
        && (order.timeout.0 <= 0 || wall < order.timeout)
    {
        if code == 0 { "success" } else { "exit-code" }
    } else {
        return certificate;
    };
    result.clone_into(&mut certificate.result);
    certificate
}

/// Whether the session ended on the signals with which a user manager and a system go down. A session that another
/// ended in the same way and before that cannot be told from it.
fn may_have_gone_down(certificate: &Certificate) -> bool {
    // TERM, HUP and KILL are what a manager that leaves sends (`systemd.kill(5)`); a program may make an exit status
    // of them.
    let signal = match certificate.exit {
        Exit::Signal(signal) => signal,
        Exit::Code(code) => code - 128,
        Exit::Unknown => return false,
    };
    matches!(signal, 1 | 9 | 15)
        && matches!(certificate.result.as_str(), "success" | "signal" | "exit-code")
        && !certificate.stopped_by_us
}

/// The certificate of an attempt that is over without a record.
fn lost(spool: &Spool) -> Certificate {
    Certificate {
        exit: Exit::Unknown,
        result: classify::LOST.to_owned(),
        wall: None,
        cpu: None,
        peak_memory: None,
        stopped_by_us: spool.stop_was_asked(),
    }
}

/// The hidden paths of both binaries: the helpers that run inside a session's unit. Called before anything
/// else; `args` are those of the process, its own name first. `None`: go on as usual; templates that may grow are then
/// rendered by such a helper.
pub fn early(args: &[OsString]) -> Option<ExitCode> {
    let hidden = hidden(args);
    if hidden.is_none() {
        // The process itself renders what it is asked for.
        elsewhere::render_in(render::open);
    }
    hidden
}

/// What runs inside a session's unit before and after the session, if that is what `args` ask for: the part of
/// [`early`] that `mozart-helper` has too.
pub fn in_unit(args: &[OsString]) -> Option<ExitCode> {
    match (args.get(1)?.to_str()?, args.get(2)) {
        (exec::EXEC, Some(spool)) => Some(exec::exec(Path::new(spool))),
        (exec::EXIT_RECORD, _) => Some(exec::exit_record()),
        _ => None,
    }
}

fn hidden(args: &[OsString]) -> Option<ExitCode> {
    match (args.get(1)?.to_str()?, args.get(2)) {
        (render::RENDER, _) => Some(render::render()),
        // Behind the spool stands the unit, for those who look for it.
        (supervisor::SUPERVISE, Some(spool)) => {
            let guard = args.get(4).and_then(|guard| guard.to_str());
            Some(supervisor::supervise(Path::new(spool), guard))
        }
        _ => in_unit(args),
    }
}

#[cfg(test)]
mod tests {
    use super::spool::tests::an_order;
    use super::*;

    fn ended(boot: &str, result: &str, status: &str) -> Certificate {
        let killed = status.parse::<i32>().is_err();
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path());
        let order = Order {
            boot: boot.to_owned(),
            ..an_order()
        };
        spool.write_order(&order, b"").unwrap();
        let record = record::Record {
            v: 1,
            result: result.to_owned(),
            code: if killed { "killed" } else { "exited" }.to_owned(),
            status: status.to_owned(),
            cpu_us: None,
            peak_memory: None,
            at: now(),
        };
        record
            .append(&mut std::fs::File::create(spool.stdout()).unwrap())
            .unwrap();
        match left_behind(&spool) {
            Evidence::Ended(certificate) => certificate,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_session_that_went_down_with_the_system_is_not_taken_for_a_killed_one() {
        assert_eq!(ended("an earlier boot", "success", "TERM").result, classify::SHUTDOWN);
        assert_eq!(ended("an earlier boot", "signal", "KILL").result, classify::SHUTDOWN);
        assert_eq!(ended(&boot_id(), "success", "TERM").result, "success");
        assert_eq!(ended("an earlier boot", "signal", "SEGV").result, "signal");
        assert_eq!(ended("an earlier boot", "timeout", "TERM").result, "timeout");
        assert_eq!(ended("an earlier boot", "exit-code", "143").result, classify::SHUTDOWN);
        assert_eq!(ended(&boot_id(), "exit-code", "143").result, "exit-code");
        assert_eq!(ended("an earlier boot", "exit-code", "1").result, "exit-code");
    }
}
