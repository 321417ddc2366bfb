//! What the integration tests share: a user's directories of their own, job files, the two programs.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mozart::api::request::RunSelector;
use mozart::bus::client::Client;
use mozart::summary::AttemptSummary;
use serde_json::Value;
use tempfile::TempDir;

/// The front end under test.
pub(crate) const MOZARTCTL: &str = env!("CARGO_BIN_EXE_mozartctl");
/// The service under test.
pub(crate) const MOZARTD: &str = env!("CARGO_BIN_EXE_mozartd");

/// Waits until `done` says so, at most `limit`; panics with `what` then.
pub(crate) fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program to its end and gives its output; its standard input is empty.
pub(crate) fn output(mut command: impl std::borrow::BorrowMut<Command>) -> Output {
    let command = command.borrow_mut();
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output and error of a program, for messages of failed assertions.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A directory with a job file, a workspace and a place for what the sessions write outside Mozart.
pub(crate) struct Desk {
    directory: TempDir,
}

impl Desk {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in it and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Lines of a file in it; none where it does not exist.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// A `command` job of `sheets` sheets: each runs `script` in the desk with its number in `$n`.
    /// Its start is noted in `starts` before anything else. `more` is added to the file as it is.
    pub(crate) fn job(&self, name: &str, sheets: u32, script: &str, more: &str) -> PathBuf {
        let starts = self.path("starts");
        let script = format!("read n; echo \"$n\" >> {}; {script}", starts.display());
        let script = serde_json::to_string(&script).expect("a text");
        self.write(
            &format!("{name}.yaml"),
            &format!(
                "name: {name}\nworkspace: ./workspace\npause_between_sheets_seconds: 0\n\
                 backend: {{type: command, command: [sh, -c, {script}], working_directory: .}}\n\
                 sheet: {{size: 1, total_items: {sheets}}}\n\
                 prompt: {{template: \"{{{{ sheet_num }}}}\\n\", append: {{requirements: false, lessons: false}}}}\n{more}\n"
            ),
        )
    }

    /// How often each sheet was started, by what the sessions themselves wrote.
    pub(crate) fn starts(&self) -> std::collections::BTreeMap<u32, u32> {
        let mut counts = std::collections::BTreeMap::new();
        for line in self.lines("starts") {
            *counts
                .entry(line.trim().parse().expect("a sheet's number"))
                .or_default() += 1;
        }
        counts
    }
}

/// A rule that every job of these tests uses: the sheet wrote its file.
pub(crate) const WROTE_ITS_FILE: &str =
    "validations:\n  - {type: file_exists, path: \"{workspace}/out-{sheet_num}\"}\n";

/// A front end without any service: state, settings and runtime directory of its own.
pub(crate) struct Alone {
    home: TempDir,
}

impl Alone {
    /// A new user, so to speak.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        for name in ["state", "config", "run"] {
            fs::create_dir(home.path().join(name)).expect("a directory");
        }
        Self { home }
    }

    /// Where Mozart keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state/mozart")
    }

    /// Writes the settings file.
    pub(crate) fn settings(&self, text: &str) {
        let directory = self.home.path().join("config/mozart");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("mozartd.yaml"), text).expect("the settings");
    }

    /// `mozartctl` with these arguments, in an environment of its own.
    pub(crate) fn ctl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.program(MOZARTCTL);
        command.args(arguments);
        command
    }

    /// Any program in that environment.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null());
        command
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("LANG", "C.UTF-8");
        for (variable, name) in [
            ("XDG_STATE_HOME", "state"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            command.env(variable, self.home.path().join(name));
        }
        command
    }

    /// The output of `mozartctl` with these arguments at a terminal, where `answer` is typed.
    pub(crate) fn typed<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, answer: &str) -> Output {
        let mut child = self
            .at_terminal(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        // The terminal keeps it until it is read.
        let typed = writeln!(child.stdin.take().expect("piped"), "{answer}");
        typed.expect("typed");
        child.wait_with_output().expect("script")
    }

    /// `mozartctl` at a terminal: script(1) gives it one, and ends with its exit code. What it reads is typed.
    pub(crate) fn at_terminal<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let ctl = self.ctl(arguments);
        let words = std::iter::once(ctl.get_program()).chain(ctl.get_args());
        let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env_clear();
        script.envs(ctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.stdin(Stdio::piped());
        script
    }

    /// `mozartctl status JOB --json`.
    pub(crate) fn status(&self, job: &str) -> Value {
        json(&output(&mut self.ctl(["status", job, "--json"])))
    }
}

/// The service of the throw-away machine, freshly installed.
pub(crate) struct Service;

impl Service {
    /// Installs as a person would; the machine is new, so there is no state.
    pub(crate) fn fresh() -> Self {
        crate::host::install();
        Self
    }

    /// The installed `mozartctl`, in this user's session.
    pub(crate) fn ctl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let home = PathBuf::from(std::env::var_os("HOME").expect("HOME"));
        let mut command = Command::new(home.join(".local/bin/mozartctl"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// `mozartctl status JOB --json`.
    pub(crate) fn status(&self, job: &str) -> Value {
        json(&output(&mut self.ctl(["status", job, "--json"])))
    }

    /// Hands a job in and returns once it is accepted.
    #[track_caller]
    pub(crate) fn submit(&self, job: &Path) {
        let run = output(self.ctl(["run", "--detach"]).arg(job));
        assert!(run.status.success(), "{}", said(&run));
    }

    /// Asks the service over the session bus.
    pub(crate) fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> T) -> T {
        runtime().block_on(async { question(Client::session().await.expect("the service")).await })
    }

    /// Every attempt at a sheet.
    pub(crate) fn attempts(&self, job: &str, sheet: u32) -> Vec<AttemptSummary> {
        let run = RunSelector {
            job: job.to_owned(),
            run: None,
        };
        self.ask(async |client| client.attempts(&run, sheet).await.expect("its attempts"))
    }

    /// The service's main process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        let shown = output(Command::new("systemctl").args(["--user", "show", "-P", "MainPID", "mozart.service"]));
        String::from_utf8_lossy(&shown.stdout)
            .trim()
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
    }

    /// Names of Mozart's session units that are loaded.
    pub(crate) fn units(&self) -> Vec<String> {
        let listed = output(Command::new("systemctl").args([
            "--user",
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "mozart-*.service",
        ]));
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }
}

/// Runs what a test asks asynchronously.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// `systemctl --user` with these arguments; its output.
pub(crate) fn systemctl(arguments: &[&str]) -> Output {
    output(Command::new("systemctl").arg("--user").args(arguments))
}

/// The JSON that a program printed.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {}", said(output)))
}

/// The states of all sheets of a `status --json`, in order.
pub(crate) fn sheet_states(status: &Value) -> Vec<String> {
    let sheets = status["sheets"]
        .as_array()
        .unwrap_or_else(|| panic!("no sheets in {status}"));
    sheets
        .iter()
        .map(|sheet| sheet["state"].as_str().unwrap_or("?").to_owned())
        .collect()
}
