//! A bench to run sessions on, and a look at what really runs on the machine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mozart::model::{Certificate, Span};
use mozart::runner::launch::spool::Spool;
use mozart::runner::launch::{Launch, Launcher, StartOutcome, record};
use mozart::runner::spec::Secrets;
use rustix::process::{Pid, Signal, getsid, kill_process};
use tokio::sync::{RwLock, RwLockReadGuard};

/// Locked by the tests that take the user manager or its bus away from all others.
pub(crate) static MANAGER: RwLock<()> = RwLock::const_new(());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Systemd,
    Supervised,
}

/// A launcher, and a directory for the sessions of one test.
pub(crate) struct Bench {
    pub kind: Kind,
    pub launcher: Launcher,
    /// Units of this bench begin so.
    pub prefix: String,
    root: Rc<tempfile::TempDir>,
    count: Rc<Cell<u32>>,
    _manager: Option<RwLockReadGuard<'static, ()>>,
}

impl Bench {
    pub(crate) async fn new(kind: Kind) -> Self {
        let manager = MANAGER.read().await;
        Self {
            _manager: Some(manager),
            ..Self::alone(kind).await
        }
    }

    /// A bench whose manager may be taken away.
    pub(crate) async fn alone(kind: Kind) -> Self {
        let root = tempfile::Builder::new().prefix("mozart-test-").tempdir().unwrap();
        let unique = root.path().file_name().unwrap().to_str().unwrap().to_owned();
        Self::over(kind, Rc::new(root), unique, Rc::default()).await
    }

    async fn over(kind: Kind, root: Rc<tempfile::TempDir>, prefix: String, count: Rc<Cell<u32>>) -> Self {
        let launcher = launcher(kind, root.path()).await;
        Self {
            kind,
            launcher,
            prefix,
            root,
            count,
            _manager: None,
        }
    }

    /// The same bench with a launcher that knows nothing of the first one's sessions.
    pub(crate) async fn again(&self) -> Self {
        Self::over(
            self.kind,
            Rc::clone(&self.root),
            self.prefix.clone(),
            Rc::clone(&self.count),
        )
        .await
    }

    /// The same bench with a launcher of another kind.
    pub(crate) async fn with(&self, kind: Kind) -> Self {
        Self::over(kind, Rc::clone(&self.root), self.prefix.clone(), Rc::clone(&self.count)).await
    }

    pub(crate) fn directory(&self) -> &Path {
        self.root.path()
    }

    /// A session of its own that runs `script`, with an empty prompt and a working directory of its own.
    pub(crate) fn launch(&self, script: &str) -> Launch {
        self.count.set(self.count.get() + 1);
        let number = self.count.get();
        let cwd = self.directory().join(format!("work/{number}"));
        fs::create_dir_all(&cwd).unwrap();
        Launch {
            unit: format!("{}-{number}", self.prefix),
            description: "a test".to_owned(),
            spool: self.directory().join(format!("1/1-{number}")),
            input: Vec::new(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            cwd,
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            secrets: Secrets::default(),
            timeout: Span::from_secs(60),
            stop_grace: Span::from_secs_f64(0.5),
        }
    }

    pub(crate) async fn start(&self, launch: &Launch) -> (Option<u32>, Option<String>) {
        match self.launcher.start(launch).await {
            StartOutcome::Started { invocation, pid, .. } => (pid, invocation),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ended(&self, launch: &Launch) -> Certificate {
        let wait = self.launcher.wait(&launch.unit, &launch.spool);
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("it never ended")
    }

    pub(crate) async fn finish(&self, launch: &Launch) -> Certificate {
        self.start(launch).await;
        self.ended(launch).await
    }

    pub(crate) async fn run(&self, script: &str) -> Certificate {
        self.finish(&self.launch(script)).await
    }

    /// What the session itself printed.
    pub(crate) fn output(&self, launch: &Launch) -> Vec<u8> {
        let path = Spool::new(&launch.spool).stdout();
        let mut output = fs::read(&path).unwrap_or_default();
        if let Ok(Some((_, own))) = record::find(&path) {
            output.truncate(usize::try_from(own).unwrap());
        }
        output
    }
}

pub(crate) async fn launcher(kind: Kind, root: &Path) -> Launcher {
    let exe = PathBuf::from(env!("CARGO_BIN_EXE_mozartd"));
    match kind {
        Kind::Systemd => Launcher::systemd(&exe).await.unwrap(),
        Kind::Supervised => Launcher::supervised(exe, root.to_owned()),
    }
}

/// Starts `launch` from a process of its own, which is killed as soon as it has. What it was told of the session.
pub(crate) async fn own_child(bench: &Bench, launch: &Launch) -> (Option<u32>, Option<String>) {
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launch::support::starter", "--ignored", "--nocapture"])
        .env("MOZART_STARTER_KIND", format!("{:?}", bench.kind))
        .env("MOZART_STARTER_UNIT", &launch.unit)
        .env("MOZART_STARTER_SPOOL", &launch.spool)
        .env("MOZART_STARTER_CWD", &launch.cwd)
        .env("MOZART_STARTER_SCRIPT", &launch.argv[2])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(starter.stdout.take().unwrap()).lines();
    let told = lines
        .find_map(|line| line.unwrap().split_once("told ").map(|(_, told)| told.to_owned()))
        .unwrap();
    starter.kill().unwrap();
    starter.wait().unwrap();
    let (pid, invocation) = told.split_once(' ').unwrap();
    let some = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
    (some(pid).map(|pid| pid.parse().unwrap()), some(invocation))
}

/// The process that [`own_child`] kills: no test by itself.
#[tokio::test]
#[ignore = "run by other tests"]
async fn starter() {
    let get = |name: &str| std::env::var(format!("MOZART_STARTER_{name}")).unwrap();
    let kind = if get("KIND") == "Systemd" {
        Kind::Systemd
    } else {
        Kind::Supervised
    };
    let bench = Bench::new(kind).await;
    let mut launch = bench.launch(&get("SCRIPT"));
    launch.unit = get("UNIT");
    launch.spool = get("SPOOL").into();
    launch.cwd = get("CWD").into();
    let (pid, invocation) = bench.start(&launch).await;
    let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    println!("told {pid} {}", invocation.unwrap_or_else(|| "-".to_owned()));
    std::future::pending::<()>().await;
}

/// Every process with its command line.
pub(crate) fn processes() -> Vec<(u32, String)> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((
            pid,
            String::from_utf8_lossy(&command)
                .replace('\0', " ")
                .trim_end()
                .to_owned(),
        ))
    })
    .collect()
}

/// Who of the two that see a supervised session to its end is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Victim {
    Guard,
    Supervisor,
}

impl Victim {
    /// Its process, where it lives.
    pub(crate) fn pid(self, unit: &str) -> Option<u32> {
        processes().into_iter().find_map(|(pid, command)| {
            let (_, behind) = command.split_once(" --mozart-supervise ")?;
            let behind = behind.split_once(unit)?.1;
            let is_it = match self {
                Self::Guard => behind.is_empty(),
                Self::Supervisor => behind.starts_with(' '),
            };
            // A child shows the command line of its parent until it executes its own program.
            (is_it && leads_session(pid)).then_some(pid)
        })
    }

    /// Kills it outright; whether it was there.
    pub(crate) fn kill(self, unit: &str) -> bool {
        self.send(unit, Signal::KILL)
    }

    /// Sends it a signal; whether it was there.
    pub(crate) fn send(self, unit: &str, signal: Signal) -> bool {
        let pid = self.pid(unit).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}

fn leads_session(pid: u32) -> bool {
    let session = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .map(|pid| getsid(Some(pid)));
    matches!(session, Some(Ok(session)) if u32::try_from(session.as_raw_nonzero().get()) == Ok(pid))
}

/// Whether a process with exactly this command line lives.
pub(crate) fn alive(command: &str) -> bool {
    processes().iter().any(|(_, other)| other == command)
}

pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never happened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl")
        .arg("--user")
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "systemctl --user {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
