//! Who calls. A call that changes something is refused when one of Mozart's own sessions makes it, so that no agent
//! answers for the user, and when it cannot be told who makes it.
//!
//! A session is known by its control group (`background-mozart.slice/mozart-….service`), which its children keep even
//! in sessions of their own; where the `supervised` launcher runs it, by its line of parents up to the supervisor and
//! its guard, which are child subreapers and so never lost from that line. This guards against accidents; against an agent that
//! attacks, the sandbox does, by keeping it from the bus.

use std::io;
use std::path::PathBuf;

use zbus::Connection;
use zbus::message::Header;
use zbus::names::BusName;

use super::error::{Error, Result};

/// The slice that every session's unit is in.
const SESSION_SLICE: &str = "background-mozart.slice";
/// The argument that makes Mozart's own program a guard or a supervisor.
const SUPERVISOR_ARGUMENT: &str = "--mozart-supervise";
/// A line of parents changes while it is read; how often it is read again.
const WALKS: usize = 5;

/// Finds out who calls, and refuses who may not change anything.
#[derive(Debug, Clone)]
pub struct Callers {
    proc: PathBuf,
    uid: u32,
}

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

impl Callers {
    /// Reads `/proc`; allows this process's own user only.
    pub fn new() -> Self {
        Self::with_proc("/proc")
    }

    /// Reads another directory in the place of `/proc`, for tests.
    pub fn with_proc(proc: impl Into<PathBuf>) -> Self {
        Self {
            proc: proc.into(),
            uid: rustix::process::getuid().as_raw(),
        }
    }

    /// Allows another user only.
    #[cfg(test)]
    pub(super) fn of_user(uid: u32) -> Self {
        Self { uid, ..Self::new() }
    }

    /// The user whose calls are answered.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Lets the caller of a message pass who may change something.
    ///
    /// # Errors
    /// [`Error::Refused`] for a session of Mozart's own, for another user, and for a caller that cannot be found.
    pub async fn may_change(&self, connection: &Connection, call: &Header<'_>) -> Result<()> {
        let (pid, uid) = credentials(connection, call).await;
        let (Some(pid), Some(uid)) = (pid.filter(|pid| *pid > 0), uid) else {
            return Err(refused("it cannot be told which process calls"));
        };
        if uid != self.uid {
            return Err(refused("the caller is another user"));
        }
        self.judge(pid)
    }

    /// Lets a process pass that is no session's.
    ///
    /// # Errors
    /// [`Error::Refused`] as [`may_change`](Self::may_change).
    pub fn judge(&self, pid: u32) -> Result<()> {
        let unknown = |error: io::Error| refused(&format!("process {pid}, which calls, cannot be looked up ({error})"));
        let process = self.process(pid).map_err(unknown)?;
        if process.ended {
            return Err(refused(&format!("process {pid}, which called, has ended")));
        }
        let cgroup = self.cgroup(pid).map_err(unknown)?;
        let parents = self.parents(pid, process).map_err(unknown)?;
        match session(&cgroup, &parents) {
            Some(session) => Err(refused(&format!(
                "the call comes from inside a session of Mozart ({session}); run it from a terminal of yours"
            ))),
            None => Ok(()),
        }
    }

    /// The process's control groups; empty on a kernel without any.
    fn cgroup(&self, pid: u32) -> io::Result<String> {
        match std::fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.process(pid).is_ok() => Ok(String::new()),
            read => read,
        }
    }

    fn process(&self, pid: u32) -> io::Result<Process> {
        let stat = std::fs::read(self.proc.join(pid.to_string()).join("stat"))?;
        parse_stat(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its stat cannot be read"))
    }

    /// The command lines of the process and of its parents, up to but without process 1.
    fn parents(&self, pid: u32, process: Process) -> io::Result<Vec<Vec<u8>>> {
        let mut last = Err(io::ErrorKind::NotFound.into());
        let mut first = process;
        for _ in 0..WALKS {
            match self.walk(pid, first) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = Err(error),
                done => return done,
            }
            first = self.process(pid)?;
        }
        last
    }

    fn walk(&self, mut pid: u32, mut process: Process) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        while pid > 1 {
            lines.push(std::fs::read(self.proc.join(pid.to_string()).join("cmdline"))?);
            let parent = process.parent;
            if parent <= 1 {
                break;
            }
            process = match self.process(parent) {
                // Still the parent, but not to be seen: /proc hides other users' processes (`hidepid`), and a
                // supervisor is of this user.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.process(pid)?.parent == parent => break,
                read => read?,
            };
            pid = parent;
        }
        Ok(lines)
    }
}

/// Process and user behind a call, as far as the bus or the socket tells.
async fn credentials(connection: &Connection, call: &Header<'_>) -> (Option<u32>, Option<u32>) {
    if !connection.is_bus() {
        return match connection.peer_creds().await {
            Ok(peer) => (peer.process_id(), peer.unix_user_id()),
            Err(_) => (None, None),
        };
    }
    let (Some(sender), Ok(bus)) = (call.sender(), zbus::fdo::DBusProxy::new(connection).await) else {
        return (None, None);
    };
    match bus.get_connection_credentials(BusName::Unique(sender.to_owned())).await {
        Ok(peer) => (peer.process_id(), peer.unix_user_id()),
        Err(_) => (None, None),
    }
}

fn refused(why: &str) -> Error {
    Error::Refused(format!("refused: {why}"))
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Process {
    parent: u32,
    ended: bool,
}

/// State and parent from `/proc/PID/stat`; the program's name, in parentheses, may hold anything.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Process {
        parent: fields.next()?.parse().ok()?,
        ended: matches!(state, "Z" | "X" | "x"),
    })
}

/// The session that a process belongs to, judged by the text of its `/proc/PID/cgroup` and the command lines
/// (`/proc/PID/cmdline`) of itself and its parents; none where it belongs to no session.
pub fn session(cgroup: &str, parents: &[Vec<u8>]) -> Option<String> {
    session_unit(cgroup).map(str::to_owned).or_else(|| {
        let supervised = parents.iter().any(|line| is_supervisor(line));
        supervised.then(|| "its supervisor is a parent of the caller".to_owned())
    })
}

/// The session's unit in the lines of control group v2 and of systemd's own hierarchy of v1.
fn session_unit(cgroup: &str) -> Option<&str> {
    cgroup
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            // A zombie may outlive its group.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            (controllers.is_empty() || controllers == "name=systemd").then_some(path)
        })
        .find_map(|path| {
            let mut names = path.split('/').skip_while(|name| *name != SESSION_SLICE).skip(1);
            names
                .next()
                .filter(|unit| unit.starts_with("mozart-") && unit.ends_with(".service"))
        })
}

fn is_supervisor(command_line: &[u8]) -> bool {
    command_line
        .split(|byte| *byte == 0)
        .skip(1)
        .any(|argument| argument == SUPERVISOR_ARGUMENT.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const UNIT: &str = "mozart-0a1b2c3d-12-3-1.service";

    #[test]
    fn a_session_is_known_by_its_control_group() {
        let user = "/user.slice/user-1000.slice/user@1000.service";
        let session = format!("{user}/background.slice/background-mozart.slice/{UNIT}");
        for (cgroup, unit) in [
            (format!("0::{session}\n"), Some(UNIT)),
            (format!("0::{session}/inner\n"), Some(UNIT)),
            (format!("0::{session} (deleted)\n"), Some(UNIT)),
            (format!("12:pids:/x\n1:name=systemd:{session}\n0::/\n"), Some(UNIT)),
            (
                format!("4:cpu:{session}\n1:name=systemd:{user}/app.slice/term.scope\n"),
                None,
            ),
            (format!("0::{user}/app.slice/mozart.service\n"), None),
            (
                format!("0::{user}/background.slice/background-mozart.slice/backup.service\n"),
                None,
            ),
            (format!("0::{user}/background.slice/{UNIT}\n"), None),
            (format!("0::/../background-mozart.slice/{UNIT}\n"), Some(UNIT)),
            ("nonsense\n::\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(session_unit(&cgroup), unit, "{cgroup}");
        }
    }

    #[test]
    fn a_session_is_known_by_its_supervisor() {
        let line = |words: &[&str]| words.join("\0").into_bytes();
        let shell = line(&["bash", ""]);
        let supervisor = line(&["/usr/bin/mozartd", "--mozart-supervise", "/spool/1", ""]);
        assert!(session("0::/\n", &[shell.clone(), supervisor.clone()]).is_some());
        assert_eq!(
            session("0::/\n", &[shell, line(&["--mozart-supervise"]), Vec::new()]),
            None
        );
    }

    #[test]
    fn stat_is_read_past_a_strange_name() {
        assert_eq!(
            parse_stat(b"12 (a) R 1 (x) S 77 12 12"),
            Some(Process {
                parent: 77,
                ended: false
            })
        );
        assert_eq!(parse_stat(b"12 (sh) Z 5 12"), Some(Process { parent: 5, ended: true }));
        assert_eq!(parse_stat(b"12 sh S 5"), None);
    }

    struct FakeProc(tempfile::TempDir);

    impl FakeProc {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn process(&self, pid: u32, parent: u32, cgroup: &str, command_line: &str) -> &Self {
            let directory = self.0.path().join(pid.to_string());
            std::fs::create_dir(&directory).unwrap();
            let write = |name: &str, text: String| std::fs::write(Path::join(&directory, name), text).unwrap();
            write("stat", format!("{pid} (x) S {parent} 0"));
            write("cgroup", cgroup.to_owned());
            write("cmdline", command_line.replace(' ', "\0"));
            self
        }

        fn judge(&self, pid: u32) -> std::result::Result<(), String> {
            Callers::with_proc(self.0.path())
                .judge(pid)
                .map_err(|error| error.to_string())
        }
    }

    #[test]
    fn the_line_of_parents_is_walked_to_its_end() {
        let proc = FakeProc::new();
        proc.process(9, 1, "0::/", "mozartd --mozart-supervise /spool mozart-x-1-1-1")
            .process(10, 9, "0::/", "mozartd --mozart-supervise /spool mozart-x-1-1-1 9")
            .process(13, 9, "0::/", "sh -c orphan")
            .process(11, 10, "0::/", "claude -p")
            .process(12, 11, "0::/", "setsid bash")
            .process(20, 1, "0::/", "bash")
            .process(21, 20, "0::/", "mozartctl pause")
            .process(30, 29, "0::/", "mozartctl pause")
            .process(40, 1, &format!("0::/background-mozart.slice/{UNIT}"), "mozartctl pause");
        assert!(proc.judge(12).unwrap_err().contains("supervisor"));
        assert!(proc.judge(11).is_err());
        assert!(proc.judge(13).is_err(), "left to the guard");
        assert_eq!(proc.judge(21), Ok(()));
        assert_eq!(proc.judge(30), Ok(()), "a parent that /proc hides");
        assert!(proc.judge(40).unwrap_err().contains(UNIT));
        assert!(proc.judge(99).unwrap_err().contains("cannot be looked up"));
    }

    #[test]
    fn an_ended_caller_is_refused() {
        let proc = FakeProc::new();
        proc.process(10, 1, "0::/", "");
        std::fs::write(proc.0.path().join("10/stat"), "10 (x) Z 1 0").unwrap();
        assert!(proc.judge(10).unwrap_err().contains("has ended"));
    }

    #[test]
    fn a_kernel_without_control_groups_leaves_the_line_of_parents() {
        let proc = FakeProc::new();
        proc.process(10, 1, "", "bash");
        std::fs::remove_file(proc.0.path().join("10/cgroup")).unwrap();
        assert_eq!(proc.judge(10), Ok(()));
    }
}
