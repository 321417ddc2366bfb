//! A user with the real CLI and a scripted API.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mozart::job::plan::{
    Append, Backend, BackendKind, ClaudeCli, OnLimit, PLAN_VERSION, Plan, Prompt, RateLimitPolicy, RetryPolicy,
    SubmitContext, TemplateEngine,
};
use mozart::job::prices::Prices;
use mozart::model::{
    Ask, AttemptKind, AttemptNo, AttemptRef, Cause, Certificate, Code, Exit, JobName, Outcome, RunId, SessionReport,
    SheetNo, Span, Timestamp, ValidationReport,
};
use mozart::runner::backend::{Caps, Passwd, Reader, environment, prompt_bytes};
use mozart::runner::classify::{ClassifyInput, classify};
use mozart::runner::spec::{AttemptSpec, Secrets};
use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::Value;

/// No session here needs more than a few seconds; a hanging one must not hang the tests.
const LONGEST: Duration = Duration::from_secs(90);

/// The program, where there is one; else says once, past the test harness, that nothing is tested.
pub(crate) fn program() -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let program = std::env::var_os("MOZART_TEST_CLAUDE").map(PathBuf::from);
    if program.is_none() {
        SAID.call_once(|| {
            let text = "SKIPPED: MOZART_TEST_CLAUDE is not set, the real Claude CLI is not tested\n";
            std::io::stderr().write_all(text.as_bytes()).ok();
        });
    }
    program
}

/// The scripted API; ends with this value.
pub(crate) struct Api {
    process: Child,
    _until_eof: ChildStdin,
    /// For `ANTHROPIC_BASE_URL`.
    pub(crate) url: String,
    log: PathBuf,
}

impl Api {
    pub(crate) fn start(directory: &Path, script: &Value) -> Self {
        let (path, log) = (directory.join("script.json"), directory.join("requests.jsonl"));
        fs::write(&path, script.to_string()).unwrap();
        let mut process = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/claude/api.py"))
            .arg("--until-eof")
            .arg("--script")
            .arg(path)
            .arg("--log")
            .arg(&log)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs the scripted API");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .expect("the API says where it listens")
            .to_owned();
        let until_eof = process.stdin.take().unwrap();
        Self {
            process,
            _until_eof: until_eof,
            url,
            log,
        }
    }

    /// What was asked of it so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A user with a home, a working directory and an API of their own.
pub(super) struct World {
    directory: tempfile::TempDir,
    pub(super) api: Api,
    program: PathBuf,
}

/// How a session ended, and what it printed.
pub(super) struct Ended {
    pub(super) report: SessionReport,
    pub(super) outcome: Outcome,
    stdout: Vec<u8>,
}

impl Ended {
    #[track_caller]
    pub(super) fn is(&self, cause: Cause, code: Code) -> &Outcome {
        let failure = self.outcome.failure.as_ref().expect("it failed");
        assert_eq!(
            (failure.cause, failure.code),
            (cause, code),
            "{failure:?} {:?}",
            self.report
        );
        &self.outcome
    }

    #[track_caller]
    pub(super) fn is_done(&self) -> &Outcome {
        assert_eq!(self.outcome.failure, None, "{:?}", self.report);
        &self.outcome
    }

    pub(super) fn init(&self) -> Value {
        let text = String::from_utf8_lossy(&self.stdout);
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .find(|event| event["subtype"] == "init")
            .expect("the session began")
    }
}

impl World {
    /// `None` where there is no CLI to test.
    pub(super) fn new(script: &Value) -> Option<Self> {
        let program = program()?;
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "work", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let api = Api::start(directory.path(), script);
        Some(Self {
            directory,
            api,
            program,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn work(&self, name: &str) -> String {
        self.path("work").join(name).into_os_string().into_string().unwrap()
    }

    /// An attempt with a session id of its own, with an API key, allowed to do everything.
    pub(super) fn spec(&self) -> AttemptSpec {
        let cli = ClaudeCli {
            cli_path: "claude".to_owned(),
            skip_permissions: true,
            disable_mcp: true,
            output_format: "text".to_owned(),
            model: None,
            allowed_tools: Vec::new(),
            system_prompt: None,
            extra_args: Vec::new(),
        };
        let directory = self.directory.path().to_str().unwrap();
        let id = uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_URL,
            format!("{directory} {:?}", Instant::now()).as_bytes(),
        );
        AttemptSpec {
            attempt: AttemptRef {
                run: RunId(1),
                sheet: SheetNo(1),
                attempt: AttemptNo(1),
            },
            kind: AttemptKind::First,
            ask: Ask::Task,
            session_id: id.to_string(),
            resume: false,
            plan: Arc::new(plan(cli, &self.work(""))),
            context: Arc::new(SubmitContext {
                environment: map(&[
                    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
                    ("LANG", "C.UTF-8"),
                    ("TZ", "UTC"),
                    ("ANTHROPIC_BASE_URL", &self.api.url),
                ]),
                program: Some(self.program.to_str().unwrap().to_owned()),
                ..SubmitContext::default()
            }),
            fresh: true,
            outputs: Vec::new(),
            lessons: Vec::new(),
            earlier_cost: None,
            prices: Arc::new(Prices::packaged()),
            budget: None,
            extra_env: map(&[("TMPDIR", self.path("tmp").to_str().unwrap())]),
            secrets: Secrets(map(&[("ANTHROPIC_API_KEY", "test-key-of-nobody")])),
        }
    }

    pub(super) fn spec_with(&self, change: impl FnOnce(&mut ClaudeCli)) -> AttemptSpec {
        let mut spec = self.spec();
        if let BackendKind::ClaudeCli(cli) = &mut backend(&mut spec).kind {
            change(cli);
        }
        spec
    }

    pub(super) fn start(&self, spec: &AttemptSpec, prompt: &str) -> Running {
        let prompt_file = self.path(&format!("prompt-{}", spec.session_id));
        fs::write(&prompt_file, prompt_bytes(&spec.plan.backend.kind, prompt)).unwrap();
        let passwd = Passwd {
            home: self.path("home").into_os_string().into_string().unwrap(),
            user: "tester".to_owned(),
            shell: "/bin/sh".to_owned(),
            uid: getuid().as_raw(),
        };
        let line = mozart::runner::backend::command_line(spec);
        let stderr = self.path(&format!("stderr-{}", spec.session_id));
        let mut process = Command::new(&line.argv[0])
            .args(&line.argv[1..])
            .env_clear()
            .envs(environment(spec, &passwd))
            .envs(&spec.secrets.0)
            .current_dir(self.path("work"))
            .stdin(File::open(prompt_file).unwrap())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .expect("the CLI starts");
        let mut pipe = process.stdout.take().unwrap();
        let output = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).ok();
            bytes
        });
        Running {
            process: Some(process),
            output: Some(output),
            stderr,
        }
    }

    pub(super) fn run(&self, spec: &AttemptSpec, prompt: &str) -> Ended {
        self.start(spec, prompt).end(spec)
    }
}

/// A session at work; killed with this value.
pub(super) struct Running {
    process: Option<Child>,
    output: Option<std::thread::JoinHandle<Vec<u8>>>,
    stderr: PathBuf,
}

impl Running {
    pub(super) fn signal(&self, signal: Signal) {
        let pid = self
            .process
            .as_ref()
            .and_then(|process| Pid::from_raw(process.id() as i32))
            .unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(super) fn end(mut self, spec: &AttemptSpec) -> Ended {
        let process = self.process.as_mut().unwrap();
        let begun = Instant::now();
        let status = loop {
            match process.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > LONGEST => panic!("the session does not end"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        self.process = None;
        let stdout = self.output.take().unwrap().join().unwrap();
        let (exit, result) = match (status.code(), status.signal()) {
            (Some(0), _) => (Exit::Code(0), "success"),
            (Some(code), _) => (Exit::Code(code), "exit-code"),
            (None, Some(signal)) => (Exit::Signal(signal), "signal"),
            (None, None) => (Exit::Unknown, "exit-code"),
        };
        let certificate = Certificate {
            exit,
            result: result.to_owned(),
            wall: None,
            cpu: None,
            peak_memory: None,
            stopped_by_us: false,
        };
        let kind = &spec.plan.backend.kind;
        let mut reader = Reader::new(kind);
        stdout.chunks(777).for_each(|chunk| reader.feed(chunk));
        let report = reader.finish(&certificate, &fs::read(&self.stderr).unwrap(), Caps::of(spec));
        let outcome = classify(&ClassifyInput {
            started_as: &spec.session_id,
            backend: kind,
            patterns: &[],
            certificate: &certificate,
            session: &report,
            validation: &ValidationReport::default(),
            now: now(),
            timezone: Some("UTC"),
        });
        Ended {
            report,
            outcome,
            stdout,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

fn plan(cli: ClaudeCli, workspace: &str) -> Plan {
    Plan {
        version: PLAN_VERSION,
        name: JobName::new("real-cli").unwrap(),
        description: None,
        workspace: workspace.to_owned(),
        base_directory: workspace.to_owned(),
        source: String::new(),
        hash: String::new(),
        backend: Backend {
            kind: BackendKind::ClaudeCli(cli),
            working_directory: workspace.to_owned(),
            pass_env: Vec::new(),
            env: BTreeMap::new(),
            max_output_capture_bytes: 10240,
        },
        sheets: Vec::new(),
        prompt: Prompt {
            template: String::new(),
            template_name: "prompt.template".to_owned(),
            engine: TemplateEngine::Tera,
            includes: BTreeMap::new(),
            variables: BTreeMap::new(),
            stakes: String::new(),
            thinking_method: String::new(),
            append: Append {
                requirements: false,
                lessons: false,
                advice: false,
            },
            extensions: Vec::new(),
        },
        retry: RetryPolicy {
            max_retries: 0,
            base_delay: Span(0),
            max_delay: Span(0),
            exponential_base: 1.0,
            jitter: false,
            max_completion_attempts: 0,
            completion_delay: Span(0),
            completion_threshold_percent: 100.0,
            transient_retries: 0,
        },
        rate_limit: RateLimitPolicy {
            detection_patterns: Vec::new(),
            wait: Span(0),
            max_waits: 1,
            max_quota_waits: 1,
        },
        idle_timeout: None,
        first_event_timeout: None,
        on_limit: OnLimit::Wait,
        dependencies: Vec::new(),
        parallel: None,
        circuit_breaker: None,
        cost_limits: None,
        cross_sheet: None,
        validations: Vec::new(),
        pause_between_sheets: Span(0),
        priority: 5,
        checkpoint_path: String::new(),
        checkpoint_every_sheet: false,
        dormant: BTreeMap::new(),
    }
}

pub(super) fn backend(spec: &mut AttemptSpec) -> &mut Backend {
    &mut Arc::get_mut(&mut spec.plan).unwrap().backend
}

pub(super) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

pub(super) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64)
}

/// Waits for something that another process does.
#[track_caller]
pub(super) fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < LONGEST, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the processes whose working directory is this one.
pub(super) fn end_tools_of(directory: &Path) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid
            && fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == directory)
        {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}
