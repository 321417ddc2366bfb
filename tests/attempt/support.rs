//! A plan with one sheet, and a runner to do its attempts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mozart::job::plan::{
    Append, Backend, BackendKind, Check, ClaudeCli, OnLimit, Plan, Prompt, RateLimitPolicy, RetryPolicy, Rule, Sheet,
    SkipCommand, SubmitContext, TemplateEngine,
};
use mozart::job::prices::Prices;
use mozart::model::{
    Ask, AttemptKind, AttemptNo, AttemptRef, AttemptReport, Failure, JobName, RunId, SheetNo, Span, StopHow,
};
use mozart::runner::attempt::{Runner, RunnerSettings};
use mozart::runner::backend::Heard;
use mozart::runner::launch::spool::Spool;
use mozart::runner::spec::{AttemptSpec, Progress, Secrets};
use tokio::sync::{mpsc, watch};

use crate::launch::support::{Kind, MANAGER, launcher};

pub(super) struct Stage {
    kind: Kind,
    root: Rc<tempfile::TempDir>,
    runner: Runner,
    spec: AttemptSpec,
    _manager: tokio::sync::RwLockReadGuard<'static, ()>,
}

/// A rule that is looked at once.
pub(super) fn rule(check: Check) -> Rule {
    Rule {
        check,
        description: None,
        stage: 1,
        condition: None,
        retry_count: 0,
        retry_delay: Span(0),
    }
}

pub(super) fn failure(report: &AttemptReport) -> &Failure {
    report.outcome.failure.as_ref().expect("it did not fail")
}

impl Stage {
    pub(super) async fn new(kind: Kind) -> Self {
        let root = tempfile::Builder::new().prefix("mozart-test-").tempdir().unwrap();
        let workspace = root.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        let mut plan = plan();
        plan.workspace = workspace.display().to_string();
        plan.backend.working_directory = plan.workspace.clone();
        let context = SubmitContext {
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            ..SubmitContext::default()
        };
        let spec = AttemptSpec {
            attempt: AttemptRef {
                run: RunId(1),
                sheet: SheetNo(1),
                attempt: AttemptNo(1),
            },
            kind: AttemptKind::First,
            ask: Ask::Task,
            session_id: "11111111-2222-5333-8444-555555555555".to_owned(),
            resume: false,
            plan: Arc::new(plan),
            context: Arc::new(context),
            fresh: true,
            outputs: Vec::new(),
            lessons: Vec::new(),
            earlier_cost: None,
            prices: Arc::new(Prices::packaged()),
            budget: None,
            extra_env: BTreeMap::new(),
            secrets: Secrets::default(),
        };
        Self::over(kind, Rc::new(root), spec).await
    }

    async fn over(kind: Kind, root: Rc<tempfile::TempDir>, spec: AttemptSpec) -> Self {
        let manager = MANAGER.read().await;
        let spool_root = root.path().join("spool");
        let launcher = launcher(kind, &spool_root).await;
        // Units of one test do not meet those of another.
        let name = root.path().file_name().unwrap().to_str().unwrap();
        let ledger_tag = name.rsplit('-').next().unwrap().to_owned();
        let runner = Runner::new(RunnerSettings {
            launcher,
            spool_root,
            ledger_tag,
        });
        Self {
            kind,
            root,
            runner,
            spec,
            _manager: manager,
        }
    }

    /// The same stage, as another conductor finds it.
    pub(super) async fn again(self) -> Self {
        let Self { kind, root, spec, .. } = self;
        Self::over(kind, root, spec).await
    }

    fn plan(&mut self) -> &mut Plan {
        Arc::make_mut(&mut self.spec.plan)
    }

    pub(super) fn backend(&mut self) -> &mut Backend {
        &mut self.plan().backend
    }

    pub(super) fn rules<const N: usize>(&mut self, rules: [Rule; N]) {
        self.plan().validations = rules.into();
    }

    /// A rule that runs `command`, once.
    pub(super) fn command(&self, command: &str) -> Rule {
        let timeout = Span::from_secs(60);
        rule(Check::CommandSucceeds {
            command: command.to_owned(),
            working_directory: None,
            timeout,
        })
    }

    /// What says whether the sheet is needed, and for how long it may take.
    pub(super) fn skip(&mut self, command: &str, seconds: f64) {
        self.plan().sheets[0].skip_command = Some(SkipCommand {
            command: command.to_owned(),
            description: None,
            timeout: Span::from_secs_f64(seconds),
        });
    }

    pub(super) fn script(&mut self, script: &str) {
        self.backend().kind = BackendKind::Command {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        };
    }

    /// A session of the Claude CLI's kind that is this script.
    pub(super) fn cli(&mut self, script: &str) {
        let program = self.path("claude");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        self.claude(program.to_str().unwrap());
    }

    /// A session of that Claude CLI.
    pub(super) fn claude(&mut self, program: &str) {
        self.backend().kind = BackendKind::ClaudeCli(ClaudeCli {
            cli_path: program.to_owned(),
            skip_permissions: true,
            disable_mcp: true,
            output_format: "text".to_owned(),
            model: None,
            allowed_tools: Vec::new(),
            system_prompt: None,
            extra_args: Vec::new(),
        });
    }

    /// A variable that travels with the job.
    pub(super) fn variable(&mut self, name: &str, value: &str) {
        let context = Arc::make_mut(&mut self.spec.context);
        context.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Silence for so many seconds is a hang.
    pub(super) fn silence(&mut self, seconds: f64) {
        self.plan().idle_timeout = Some(Span::from_secs_f64(seconds));
    }

    /// Silence is no hang.
    pub(super) fn patient(&mut self) {
        self.plan().idle_timeout = None;
    }

    pub(super) fn program(&mut self, program: &str) {
        self.backend().kind = BackendKind::Command {
            command: vec![program.to_owned()],
        };
    }

    pub(super) fn secret(&mut self, name: &str, value: &str) {
        self.spec.secrets.0.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn attempt(&mut self, number: u32) -> &mut Self {
        self.spec.attempt.attempt = AttemptNo(number);
        self
    }

    pub(super) fn spool(&self) -> Spool {
        Spool::new(self.runner.spool_dir(self.spec.attempt))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("workspace").join(name)
    }

    pub(super) fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir(self.path(name)).unwrap();
        self.path(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Begins the attempt, or takes it up.
    pub(super) fn begin(&self, adopt: bool) -> Running<'_> {
        let (stop, stopped) = watch::channel(None);
        let (progress, news) = mpsc::channel(16);
        let run = Box::pin(self.runner.run(self.spec.clone(), adopt, stopped, progress));
        Running {
            run,
            stop,
            news,
            over: false,
        }
    }

    pub(super) async fn run(&mut self, script: &str) -> AttemptReport {
        self.script(script);
        self.begin(false).report().await
    }
}

/// An attempt under way.
pub(super) struct Running<'a> {
    run: Pin<Box<dyn Future<Output = ()> + 'a>>,
    stop: watch::Sender<Option<StopHow>>,
    news: mpsc::Receiver<(AttemptRef, Progress)>,
    over: bool,
}

impl Running<'_> {
    /// The next that it tells; none once it is over.
    pub(super) async fn next(&mut self) -> Option<Progress> {
        let next = async {
            loop {
                if self.over {
                    return self.news.try_recv().ok().map(|(_, progress)| progress);
                }
                tokio::select! {
                    biased;
                    news = self.news.recv() => return news.map(|(_, progress)| progress),
                    () = &mut self.run => self.over = true,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next)
            .await
            .expect("nothing was told")
    }

    pub(super) fn stopper(&self) -> watch::Sender<Option<StopHow>> {
        self.stop.clone()
    }

    pub(super) async fn report(self) -> AttemptReport {
        self.heard().await.1
    }

    /// What else was heard of it, and its report.
    pub(super) async fn heard(mut self) -> (Vec<Heard>, AttemptReport) {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Some(Progress::Finished(report)) => return (all, *report),
                Some(Progress::Heard(heard)) => all.push(heard),
                Some(_) => {}
                None => panic!("it ended without a report"),
            }
        }
    }
}

fn plan() -> Plan {
    Plan {
        version: 1,
        name: JobName::new("test job").unwrap(),
        description: None,
        workspace: String::new(),
        base_directory: "/".to_owned(),
        source: String::new(),
        hash: String::new(),
        backend: Backend {
            kind: BackendKind::Command {
                command: vec!["true".to_owned()],
            },
            working_directory: String::new(),
            pass_env: Vec::new(),
            env: BTreeMap::new(),
            max_output_capture_bytes: 10240,
        },
        sheets: vec![Sheet {
            number: 1,
            start_item: 1,
            end_item: 1,
            stage: 1,
            instance: 1,
            fan_count: 1,
            timeout: Span::from_secs(60),
            ..Sheet::default()
        }],
        prompt: Prompt {
            template: "do sheet {{ sheet_num }}".to_owned(),
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
            exponential_base: 2.0,
            jitter: false,
            max_completion_attempts: 0,
            completion_delay: Span(0),
            completion_threshold_percent: 50.0,
            transient_retries: 0,
        },
        rate_limit: RateLimitPolicy {
            detection_patterns: Vec::new(),
            wait: Span(0),
            max_waits: 0,
            max_quota_waits: 0,
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
