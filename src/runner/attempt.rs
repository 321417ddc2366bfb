//! One attempt from its spec to its report: prompt, launch, end, output, validation, classification.
//!
//! It may be taken up at any point by another process: everything it needs besides the spec lies in the spool. It
//! tells through a channel what it learns, and decides nothing about what comes next.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::backend::{self, Caps, Passwd, Reader, Tariff};
use super::classify::{ClassifyInput, HUNG, LOST, SKIPPED, START_FAILED, classify};
use super::follow::Follower;
use super::growth::Growths;
use super::launch::spool::Spool;
use super::launch::{Evidence, Launch, Launcher, StartOutcome, now, record};
use super::passwd;
use super::previous;
use super::room;
use super::spec::{AttemptSpec, Progress};
use super::validate::baseline::Baseline;
use super::validate::{Checks, end_leftovers};
use crate::job::plan::Check;
use crate::job::rules::{SheetRule, rules_for, skip_command_for};
use crate::model::{
    AttemptRef, AttemptReport, Cause, Certificate, Code, Exit, Failure, Outcome, RuleResult, SessionReport, Span,
    StopHow, Timestamp, ValidationReport,
};
use crate::probe::{self, Point};
use crate::prompt::template::RenderFault;
use crate::prompt::{self, PromptError};

/// Between TERM and KILL. The Claude CLI takes up to 1.5 s to end its tools' processes after TERM.
const STOP_GRACE: Span = Span(10_000_000);

/// Bytes of standard error that are read; the report keeps less.
const STDERR_BYTES: u64 = 256 * 1024;

/// First and longest wait before something that cannot be reached now is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Between a start of which nothing came (its answer was lost, there is no room) and the next try.
const START_AGAIN: Duration = Duration::from_secs(1);

/// What a runner is made of.
#[derive(Debug)]
pub struct RunnerSettings {
    /// Starts and watches the processes.
    pub launcher: Launcher,
    /// Directory of all spools; absolute.
    pub spool_root: PathBuf,
    /// Eight hexadecimal digits of the ledger's id.
    pub ledger_tag: String,
}

/// Why an attempt is not ready for its start.
enum Unready {
    /// It will not be.
    Failed(Failure),
    /// There is no room for its files; one sentence.
    NoRoom(String),
}

/// Does attempts; one of it serves all of a conductor's.
#[derive(Debug)]
pub struct Runner {
    launcher: Launcher,
    spool_root: PathBuf,
    ledger_tag: String,
    passwd: Passwd,
    /// What sessions do is said by a test: none is started.
    #[cfg(test)]
    pub(crate) scripted: bool,
    /// `None` within: the kernel does not tell of growth.
    growths: OnceLock<Option<Growths>>,
}

/// A running session's wish to be ended, as the conductor says it.
type Stop = watch::Receiver<Option<StopHow>>;

/// How the process of an attempt came to its end.
struct End {
    started_at: Option<Timestamp>,
    certificate: Certificate,
    /// What to take for its standard error where nothing of it ran.
    instead: Option<String>,
    /// Why Mozart took it for hanging and ended it, if it did.
    hung: Option<String>,
}

impl End {
    /// Of an attempt whose process began at that moment, where it did.
    fn new(started_at: Option<Timestamp>, certificate: Certificate) -> Self {
        Self {
            started_at,
            certificate,
            instead: None,
            hung: None,
        }
    }
}

/// Whether a sheet is to be run.
enum Needed {
    Yes,
    /// Why not.
    No(String),
    /// It is, because that could not be found out; why.
    Unknown(String),
}

/// What keeps a session from being started.
enum Barred {
    /// There is no room; one sentence.
    NoRoom(String),
    /// The workspace can be worked in only when somebody has seen to it.
    Workspace,
}

/// Why there is no room at some places, if there is none; a quota is told of only by a try to use it.
type AskForRoom = fn(&[&Path]) -> Option<String>;

/// What is ready before a start.
struct Prepared {
    rules: Vec<SheetRule>,
    prompt: Vec<u8>,
    baseline: Arc<Baseline>,
}

impl Runner {
    /// A runner.
    pub fn new(settings: RunnerSettings) -> Self {
        let RunnerSettings {
            launcher,
            spool_root,
            ledger_tag,
        } = settings;
        Self {
            launcher,
            spool_root,
            ledger_tag,
            passwd: passwd::current(),
            #[cfg(test)]
            scripted: false,
            growths: OnceLock::new(),
        }
    }

    /// The unit of an attempt, without `.service`.
    pub fn unit_name(&self, attempt: AttemptRef) -> String {
        format!("mozart-{}-{attempt}", self.ledger_tag)
    }

    /// The directory of an attempt.
    pub fn spool_dir(&self, attempt: AttemptRef) -> PathBuf {
        self.run_dir(attempt)
            .join(format!("{}-{}", attempt.sheet, attempt.attempt))
    }

    /// What the files of a sheet's rules were before its first attempt.
    fn baseline(&self, attempt: AttemptRef) -> PathBuf {
        baseline_in(&self.run_dir(attempt), attempt)
    }

    fn run_dir(&self, attempt: AttemptRef) -> PathBuf {
        self.spool_root.join(attempt.run.to_string())
    }

    /// The launcher, for questions about units that no attempt asks.
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// Lets the system forget an attempt whose verdict is committed.
    pub async fn release(&self, attempt: AttemptRef) {
        probe::pass(Point::Releasing);
        self.launcher.release(&self.unit_name(attempt)).await;
    }

    /// What all sessions are followed with; made within the runtime that they are followed in.
    fn growths(&self) -> Option<&Growths> {
        self.growths.get_or_init(|| Growths::new().ok()).as_ref()
    }

    /// Makes one attempt, or with `adopt` takes up what an earlier conductor began. Sends `Started` once its process
    /// runs or is known to have run, `Heard` for what it tells meanwhile, then `Finished`; or `NeverRan` alone; and
    /// `NoRoom` whenever it waits for room.
    ///
    /// The future may be dropped at any time: the session goes on, and can be adopted.
    pub async fn run(
        &self,
        spec: AttemptSpec,
        adopt: bool,
        mut stop: Stop,
        progress: mpsc::Sender<(AttemptRef, Progress)>,
    ) {
        let attempt = spec.attempt;
        let tell = Tell { attempt, progress };
        let spool = Spool::new(self.spool_dir(attempt));

        let anew = spec.fresh && !adopt && !spool.has_stdout();
        let prepared = prepare(&spec, &self.run_dir(attempt), anew).await;
        let mut flags = Vec::new();
        // A spool with output is one of an attempt that was started, whatever the ledger remembers.
        let mut end = if adopt || spool.has_stdout() {
            match self.take_up(&spec, &spool, &mut stop, &tell).await {
                Some(end) => end,
                None => return tell.say(Progress::NeverRan).await,
            }
        } else {
            let started = match &prepared {
                Err(Unready::Failed(failure)) => return tell.say(unstarted(failure.clone())).await,
                Err(Unready::NoRoom(why)) => {
                    tell.say(Progress::NoRoom(why.clone())).await;
                    None
                }
                Ok(prepared) => {
                    match self.is_needed(&spec, &spool, &mut stop).await {
                        Needed::Yes => {}
                        Needed::No(reason) => return tell.say(skipped(reason)).await,
                        Needed::Unknown(why) => {
                            flags.push(format!("skip check: {why}"));
                            tell.say(Progress::SkipCheckFailed(why)).await;
                        }
                    }
                    self.start(&spec, prepared, &spool, &mut stop, &tell).await
                }
            };
            match started {
                Some(end) => end,
                None => {
                    // It will be started again, and may well fail in the same way again.
                    pause(&mut stop).await;
                    return tell.say(Progress::NeverRan).await;
                }
            }
        };
        probe::pass(Point::Over);
        // Whoever else wanted its end is told that it was stopped.
        if stop.borrow().is_none()
            && let Some(why) = spool.hang()
        {
            end.certificate.stopped_by_us = false;
            HUNG.clone_into(&mut end.certificate.result);
            end.hung = Some(why);
        }
        let mut report = self.report(&spec, prepared, &spool, end, &mut stop, &tell).await;
        report.outcome.flags.extend(flags);
        probe::pass(Point::Judged);
        tell.say(Progress::Finished(Box::new(report))).await;
    }

    /// What the rules of a sheet give now, without a session: `spec` is of attempt 0, which no session has. The error says
    /// why they cannot tell whether it is done.
    pub async fn examine(&self, spec: &AttemptSpec) -> Result<ValidationReport, String> {
        let sheet = spec.plan.sheet(spec.attempt.sheet);
        let sheet = sheet.ok_or_else(|| format!("the plan has no sheet {}", spec.attempt.sheet))?;
        let rules = rules_for(&spec.plan, sheet)?;
        let compares = |rule: &&SheetRule| matches!(rule.check, Check::FileModified { .. });
        let baseline = match rules.iter().find(compares) {
            None => Baseline::take(&[]),
            Some(rule) => {
                let kept = self.baseline(spec.attempt);
                let read = tokio::task::spawn_blocking(move || Baseline::read(&kept));
                let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                read.ok().flatten().ok_or_else(|| {
                    let rule = &rule.description;
                    format!("what the files were before its first attempt is not known, and a rule asks for it: {rule}")
                })?
            }
        };
        let spool = self.spool_dir(spec.attempt);
        let unit = self.unit_name(spec.attempt);
        // Those of a conductor that was killed while it asked.
        end_leftovers(&self.launcher, &unit, &spool).await;
        let env = backend::environment(spec, &self.passwd);
        let checks = Checks {
            launcher: &self.launcher,
            unit: &unit,
            spool: &spool,
            env: &env,
            secrets: &spec.secrets,
            baseline: Arc::new(baseline),
        };
        Ok(checks.run(&rules).await)
    }

    /// Why there is no room for what an attempt writes, if there is none.
    async fn short_of_room(&self, spec: &AttemptSpec) -> Option<String> {
        self.ask_for_room(spec, room::short_of).await
    }

    async fn ask_for_room(&self, spec: &AttemptSpec, ask: AskForRoom) -> Option<String> {
        let ask = move |spools: &Path, workspace: &Path| ask(&[spools, workspace]);
        self.ask_of_places(spec, ask).await
    }

    /// What is asked of the directory of all spools and of the workspace, which may be slow to answer.
    async fn ask_of_places<T: Send + 'static>(
        &self,
        spec: &AttemptSpec,
        ask: impl FnOnce(&Path, &Path) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let (spools, workspace) = (self.spool_root.clone(), PathBuf::from(&spec.plan.workspace));
        let asked = tokio::task::spawn_blocking(move || ask(&spools, &workspace));
        asked.await.unwrap_or_default()
    }

    /// Waits while there is no room for what an attempt writes, as `ask` says again and again, or until its end is wanted.
    async fn until_room(
        &self,
        spec: &AttemptSpec,
        mut short: Option<String>,
        ask: AskForRoom,
        stop: &mut Stop,
        tell: &Tell,
    ) {
        while let Some(why) = short {
            tell.say(Progress::NoRoom(why)).await;
            if pause(stop).await {
                break;
            }
            short = self.ask_for_room(spec, ask).await;
        }
    }

    /// What keeps a session from being started, if anything does.
    async fn barred(&self, spec: &AttemptSpec) -> Option<Barred> {
        let ask = |spools: &Path, workspace: &Path| match room::short_of(&[spools, workspace]) {
            Some(why) => Some(Barred::NoRoom(why)),
            None => room::closed(workspace).map(|_| Barred::Workspace),
        };
        self.ask_of_places(spec, ask).await
    }

    /// Why the workspace can be worked in only when somebody has seen to it, if that is so.
    async fn without_workspace(&self, spec: &AttemptSpec) -> Option<String> {
        let ask = |_: &Path, workspace: &Path| room::closed(workspace);
        self.ask_of_places(spec, ask).await
    }

    /// Asks the sheet's `skip_when_command` whether it is needed. Without room or a workspace nothing is asked: nothing
    /// starts then either.
    async fn is_needed(&self, spec: &AttemptSpec, spool: &Spool, stop: &mut Stop) -> Needed {
        let sheet = spec.plan.sheet(spec.attempt.sheet).filter(|_| spec.fresh);
        let skip = match sheet.map(|sheet| skip_command_for(&spec.plan, sheet)) {
            Some(Ok(Some(skip))) => skip,
            Some(Ok(None)) | None => return Needed::Yes,
            Some(Err(why)) => return Needed::Unknown(why),
        };
        let stopped = stop.borrow().is_some();
        if stopped || self.barred(spec).await.is_some() {
            return Needed::Yes;
        }
        let unit = self.unit_name(spec.attempt);
        let env = backend::environment(spec, &self.passwd);
        let checks = Checks {
            launcher: &self.launcher,
            unit: &unit,
            spool: spool.directory(),
            env: &env,
            secrets: &spec.secrets,
            baseline: Arc::new(Baseline::take(&[])),
        };
        // That of a conductor that was killed while it asked.
        end_leftovers(&self.launcher, &unit, spool.directory()).await;
        let asked = tokio::select! {
            biased;
            asked = checks.is_needless(&skip, &spec.plan.workspace) => asked,
            _ = wanted(stop, None) => {
                end_leftovers(&self.launcher, &unit, spool.directory()).await;
                return Needed::Yes;
            }
        };
        match asked {
            Ok(true) => {
                let what = skip.description.unwrap_or(skip.command);
                Needed::No(format!("`skip_when_command` succeeded: {what}"))
            }
            Ok(false) => Needed::Yes,
            Err(why) => Needed::Unknown(why),
        }
    }

    /// Starts the session and waits for its end. `None`: nothing of it ever ran, and it may be started again.
    async fn start(
        &self,
        spec: &AttemptSpec,
        prepared: &Prepared,
        spool: &Spool,
        stop: &mut Stop,
        tell: &Tell,
    ) -> Option<End> {
        let stopped = stop.borrow_and_update().is_some();
        if stopped {
            let certificate = Certificate {
                stopped_by_us: true,
                ..nothing_known(START_FAILED)
            };
            return Some(End::new(None, certificate));
        }
        match self.barred(spec).await {
            None => {}
            Some(Barred::NoRoom(why)) => {
                tell.say(Progress::NoRoom(why)).await;
                return None;
            }
            // It would do half its work, and that elsewhere. The report says why it does not start.
            Some(Barred::Workspace) => {
                return Some(End {
                    instead: Some("mozart: the session was not started".to_owned()),
                    ..End::new(None, nothing_known(START_FAILED))
                });
            }
        }
        match self.launcher.start(&self.launch(spec, spool, &prepared.prompt)).await {
            StartOutcome::Started { at, invocation, .. } => {
                probe::pass(Point::Started);
                tell.say(Progress::Started { at, invocation }).await;
                let certificate = self.until_over(spec, spool, stop, tell).await;
                Some(End::new(Some(at), certificate))
            }
            StartOutcome::NoRoom(why) => {
                tell.say(Progress::NoRoom(why)).await;
                None
            }
            StartOutcome::Failed { certificate, message } => match self.short_of_room(spec).await {
                // Systemd and the supervisor do not say what they could not write.
                Some(why) if !spool.has_stdout() => {
                    self.release(spec.attempt).await;
                    tell.say(Progress::NoRoom(why)).await;
                    None
                }
                _ => Some(End {
                    instead: Some(message),
                    ..End::new(None, certificate)
                }),
            },
            StartOutcome::Unknown => self.take_up(spec, spool, stop, tell).await,
        }
    }

    fn launch(&self, spec: &AttemptSpec, spool: &Spool, prompt: &[u8]) -> Launch {
        let plan = &spec.plan;
        let timeout = plan.sheet(spec.attempt.sheet).map_or(Span(0), |sheet| sheet.timeout);
        Launch {
            unit: self.unit_name(spec.attempt),
            description: format!("Mozart: {}, sheet {}", plan.name, spec.attempt.sheet),
            spool: spool.directory().to_owned(),
            input: prompt.to_owned(),
            argv: backend::command_line(spec).argv,
            cwd: PathBuf::from(&plan.backend.working_directory),
            env: backend::environment(spec, &self.passwd),
            secrets: spec.secrets.clone(),
            timeout,
            stop_grace: STOP_GRACE,
        }
    }

    /// Finds out what became of an attempt that was or may have been started, and waits for its end. `None`: nothing
    /// of it ever ran. As long as the evidence cannot be read, nothing is concluded.
    async fn take_up(&self, spec: &AttemptSpec, spool: &Spool, stop: &mut Stop, tell: &Tell) -> Option<End> {
        let unit = self.unit_name(spec.attempt);
        let mut pause = RETRY_FIRST;
        let evidence = loop {
            match self.launcher.evidence(&unit, spool.directory()).await {
                Ok(evidence) => break evidence,
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        };
        let (started_at, invocation) = match &evidence {
            Evidence::Running {
                invocation, started_at, ..
            } => (*started_at, invocation.clone()),
            Evidence::Ended(_) | Evidence::EndedUnknown => (None, None),
            Evidence::NeverRan => return None,
        };
        probe::pass(Point::Adopting);
        let started_at = started_at.or_else(|| spool.ordered_at());
        tell.say(Progress::Started {
            at: started_at.unwrap_or_else(now),
            invocation,
        })
        .await;
        let certificate = match evidence {
            Evidence::Running { .. } => self.until_over(spec, spool, stop, tell).await,
            Evidence::Ended(certificate) => {
                Follower::new(spec, spool).catch_up(tell).await;
                certificate
            }
            Evidence::EndedUnknown | Evidence::NeverRan => Certificate {
                stopped_by_us: spool.stop_was_asked(),
                ..nothing_known(LOST)
            },
        };
        Some(End::new(started_at, certificate))
    }

    /// Follows a running session to its end.
    async fn until_over(&self, spec: &AttemptSpec, spool: &Spool, stop: &mut Stop, tell: &Tell) -> Certificate {
        let mut follower = Follower::new(spec, spool);
        let certificate = self.watch(spec.attempt, spool, &mut follower, stop, tell).await;
        follower.catch_up(tell).await;
        certificate
    }

    /// Waits for the end of a running session, and asks for it when the conductor does or the session hangs.
    async fn watch(
        &self,
        attempt: AttemptRef,
        spool: &Spool,
        follower: &mut Follower,
        stop: &mut Stop,
        tell: &Tell,
    ) -> Certificate {
        let unit = self.unit_name(attempt);
        let mut over = pin!(self.launcher.wait(&unit, spool.directory()));
        // The spool's own note of a stop may be missing.
        let stopped = |certificate| Certificate {
            stopped_by_us: true,
            ..certificate
        };
        let mut asked = None;
        // An earlier conductor may not have come to ending it.
        let mut hangs = spool.hang().is_some();
        loop {
            let how = tokio::select! {
                biased;
                certificate = &mut over => match asked {
                    None => return certificate,
                    Some(_) => return stopped(certificate),
                },
                how = wanted(stop, asked) => how,
                () = std::future::ready(()), if hangs => StopHow::Terminate,
                hang = follower.until_hung(self.growths(), tell), if asked.is_none() => {
                    // Where it cannot be noted there is no room, and then it counts as interrupted.
                    spool.note_hang(&hang.sentence()).ok();
                    StopHow::Terminate
                }
            };
            hangs = false;
            let asking = async {
                let mut pause = RETRY_FIRST;
                while self.launcher.stop(&unit, spool.directory(), how).await.is_err() {
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            };
            tokio::select! {
                certificate = &mut over => return stopped(certificate),
                () = asking => asked = Some(how),
            }
        }
    }

    /// The three verdicts of an attempt whose process is over, and what follows from them.
    async fn report(
        &self,
        spec: &AttemptSpec,
        prepared: Result<Prepared, Unready>,
        spool: &Spool,
        end: End,
        stop: &mut Stop,
        tell: &Tell,
    ) -> AttemptReport {
        let End {
            started_at,
            mut certificate,
            instead,
            hung,
        } = end;
        let instead = instead.or_else(|| {
            let deleted = !spool.directory().exists();
            deleted.then(|| {
                format!(
                    "mozart: {} was deleted while the session ran",
                    spool.directory().display()
                )
            })
        });
        let reading = read_session(spec, spool, &certificate, instead);
        let (mut session, mut short) = tokio::join!(reading, self.short_of_room(spec));
        if let Some(why) = hung {
            session.stderr_tail.push_str(&format!("\nmozart: {why}\n"));
        }
        let unit = self.unit_name(spec.attempt);
        end_leftovers(&self.launcher, &unit, spool.directory()).await;

        // Neither the checks nor the next attempt would fare better than this session did.
        self.until_room(spec, short.clone(), room::short_of, stop, tell).await;

        let env = backend::environment(spec, &self.passwd);
        let judge = |certificate: &Certificate, validation: &ValidationReport| {
            classify(&ClassifyInput {
                backend: &spec.plan.backend.kind,
                patterns: &spec.plan.rate_limit.detection_patterns,
                certificate,
                session: &session,
                started_as: &spec.session_id,
                validation,
                now: now(),
                timezone: env.get("TZ").map(String::as_str),
            })
        };
        let mut validation = ValidationReport::default();
        let mut outcome = judge(&certificate, &all_well());
        // Rules are asked only of a session that the first two verdicts let pass.
        if outcome.failure.is_none() {
            match prepared {
                Ok(Prepared { rules, baseline, .. }) => {
                    let checks = Checks {
                        launcher: &self.launcher,
                        unit: &unit,
                        spool: spool.directory(),
                        env: &env,
                        secrets: &spec.secrets,
                        baseline,
                    };
                    let checked = tokio::select! {
                        biased;
                        checked = checks.run(&rules) => Some(checked),
                        _ = wanted(stop, None) => None,
                    };
                    match checked {
                        Some(checked) => validation = checked,
                        None => {
                            end_leftovers(&self.launcher, &unit, spool.directory()).await;
                            validation = broken_off(&rules);
                            certificate.stopped_by_us = true;
                        }
                    }
                    outcome = judge(&certificate, &validation);
                }
                Err(Unready::Failed(failure)) => outcome.failure = Some(failure),
                Err(Unready::NoRoom(why)) => outcome.failure = Some(fatal(Code::E604, why)),
            }
        }
        if outcome.failure.as_ref().is_some_and(is_excusable) && short.is_none() {
            short = self.ask_for_room(spec, room::refused_by).await;
            self.until_room(spec, short.clone(), room::refused_by, stop, tell).await;
        }
        if let Some(failure) = &mut outcome.failure {
            if let Some(why) = short {
                excuse(failure, &why);
            } else if let Some(why) = self.without_workspace(spec).await {
                blame(failure, &why);
            }
        }
        (outcome.rules_passed, outcome.rules_total) = (validation.passed(), validation.total());
        AttemptReport {
            started_at,
            ended_at: now(),
            certificate,
            session,
            validation,
            outcome,
        }
    }
}

/// Waits until the conductor wants the end in another way than it was `asked` for.
async fn wanted(stop: &mut Stop, asked: Option<StopHow>) -> StopHow {
    match stop
        .wait_for(|how| how.is_some() && *how != asked)
        .await
        .map(|how| *how)
    {
        Ok(Some(how)) => how,
        // The conductor is gone: nobody will want anything.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Waits before something is tried again; whether the conductor wants the end instead.
async fn pause(stop: &mut Stop) -> bool {
    tokio::select! {
        _ = wanted(stop, None) => true,
        () = sleep(START_AGAIN) => false,
    }
}

/// A session that had no room is not to blame for what it failed at: it goes on, and no retry is used up.
fn excuse(failure: &mut Failure, why: &str) {
    if is_excusable(failure) {
        failure.cause = Cause::Interrupted;
        failure.message = format!("there was no room: {why}; {}", failure.message);
    }
}

fn is_excusable(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Transient | Cause::Validation)
}

/// What failed for want of the workspace would fail again, until somebody has put it right.
fn blame(failure: &mut Failure, why: &str) {
    if is_excusable(failure) {
        let message = format!("the workspace {why}; {}", failure.message);
        let hint = "Put the directory back as it was, then resume the run.".to_owned();
        *failure = Failure {
            hint: Some(hint),
            ..fatal(Code::E601, message)
        };
    }
}

fn baseline_in(directory: &Path, attempt: AttemptRef) -> PathBuf {
    directory.join(format!("baseline-{}.json", attempt.sheet))
}

/// Everything that can fail before a start, and what must be looked at before it and is kept in the run's directory: what
/// the files of its rules were before its first attempt, and `anew` what the sheets before it left.
async fn prepare(spec: &AttemptSpec, directory: &Path, anew: bool) -> Result<Prepared, Unready> {
    let Some(sheet) = spec.plan.sheet(spec.attempt.sheet) else {
        let message = format!("the plan has no sheet {}", spec.attempt.sheet);
        return Err(Unready::Failed(fatal(Code::E301, message)));
    };
    let rules = rules_for(&spec.plan, sheet).map_err(|error| Unready::Failed(fatal(Code::E604, error)))?;
    let (kept, of_rules, asked) = (directory.to_owned(), rules.clone(), spec.clone());
    let prompted = sheet.clone();
    let taken = tokio::task::spawn_blocking(move || {
        Spool::new(&kept).create()?;
        let sheet = asked.attempt.sheet;
        let baseline = Baseline::ensure(&baseline_in(&kept, asked.attempt), &of_rules)?;
        let history = previous::history(&asked, &kept.join(format!("previous-{sheet}.json")), anew)?;
        let text = prompt::compose_with(&asked.plan, &prompted, asked.ask, &asked.lessons, &history);
        Ok((baseline, text))
    });
    let taken = taken.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let (baseline, text) = taken.map_err(|error| {
        if room::is_short(&error) {
            return Unready::NoRoom(room::refused(directory, &error));
        }
        let place = directory.display();
        Unready::Failed(Failure {
            cause: Cause::Transient,
            ..fatal(
                Code::E604,
                format!("what the files were before cannot be kept in {place}: {error}"),
            )
        })
    })?;
    let text = text.map_err(|error| {
        let failure = fatal(Code::E301, error.to_string());
        Unready::Failed(match error {
            PromptError::Template { error, .. } if error.kind == RenderFault::Elsewhere => Failure {
                cause: Cause::Transient,
                ..failure
            },
            _ => failure,
        })
    })?;
    let prompt = backend::prompt_bytes(&spec.plan.backend.kind, &text);
    Ok(Prepared {
        rules,
        prompt,
        baseline: Arc::new(baseline),
    })
}

/// Where an attempt's progress goes.
pub(super) struct Tell {
    attempt: AttemptRef,
    progress: mpsc::Sender<(AttemptRef, Progress)>,
}

impl Tell {
    /// Where nobody listens any more, nobody needs to know.
    pub(super) async fn say(&self, what: Progress) {
        drop(self.progress.send((self.attempt, what)).await);
    }
}

/// The session's own report, read from its output as a stream.
async fn read_session(
    spec: &AttemptSpec,
    spool: &Spool,
    certificate: &Certificate,
    instead: Option<String>,
) -> SessionReport {
    let (kind, secrets, own) = (
        spec.plan.backend.kind.clone(),
        spec.secrets.clone(),
        certificate.clone(),
    );
    let (tail_bytes, resumed, earlier_cost) = (
        spec.plan.backend.max_output_capture_bytes,
        spec.resume,
        spec.earlier_cost,
    );
    let (price, prices) = (
        spec.plan.cost_limits.and_then(|limits| limits.price),
        Arc::clone(&spec.prices),
    );
    let spool = spool.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::new(&kind);
        // What cannot be read has not been said.
        feed(&mut reader, &spool.stdout()).ok();
        let stderr = instead.map_or_else(|| end_of(&spool.stderr()).unwrap_or_default(), String::into_bytes);
        let mut caps = Caps {
            tail_bytes,
            resumed,
            earlier_cost,
            tariff: Tariff {
                own: price,
                prices: &prices,
            },
            secrets: &secrets,
        };
        caps.tail_bytes = caps.tail_bytes.min(STDERR_BYTES);
        reader.finish(&own, &stderr, caps)
    });
    read.await.unwrap_or_default()
}

fn feed(reader: &mut Reader, stdout: &Path) -> io::Result<()> {
    let own = record::find(stdout)?.map_or(u64::MAX, |(_, own)| own);
    let mut output = File::open(stdout)?.take(own);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match output.read(&mut chunk)? {
            0 => return Ok(()),
            read => reader.feed(&chunk[..read]),
        }
    }
}

fn end_of(stderr: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(stderr)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(STDERR_BYTES)))?;
    let mut end = Vec::new();
    file.take(STDERR_BYTES).read_to_end(&mut end)?;
    Ok(end)
}

fn nothing_known(result: &str) -> Certificate {
    Certificate {
        exit: Exit::Unknown,
        result: result.to_owned(),
        wall: None,
        cpu: None,
        peak_memory: None,
        stopped_by_us: false,
    }
}

fn fatal(code: Code, message: String) -> Failure {
    Failure {
        cause: Cause::Fatal,
        code,
        message,
        hint: None,
        limit: None,
    }
}

/// The report of an attempt that could not even be started.
fn unstarted(failure: Failure) -> Progress {
    let outcome = Outcome {
        failure: Some(failure),
        ..Outcome::default()
    };
    without_session(START_FAILED, outcome)
}

/// The report of an attempt without a session: the sheet is not needed.
fn skipped(reason: String) -> Progress {
    let outcome = Outcome {
        skipped: Some(reason),
        ..Outcome::default()
    };
    without_session(SKIPPED, outcome)
}

fn without_session(result: &str, outcome: Outcome) -> Progress {
    Progress::Finished(Box::new(AttemptReport {
        started_at: None,
        ended_at: now(),
        certificate: nothing_known(result),
        session: SessionReport::default(),
        validation: ValidationReport::default(),
        outcome,
    }))
}

/// A validation that found nothing wrong: to ask what the other two verdicts are.
fn all_well() -> ValidationReport {
    ValidationReport {
        rules: vec![RuleResult {
            passed: true,
            ..blank(0)
        }],
    }
}

/// The report of a validation that was broken off.
fn broken_off(rules: &[SheetRule]) -> ValidationReport {
    let skipped = |rule: &SheetRule| RuleResult {
        kind: rule.check.as_str().to_owned(),
        description: rule.description.clone(),
        category: Some("skipped".to_owned()),
        reason: Some("Mozart stopped the attempt while it was checked".to_owned()),
        code: Some(Code::E209),
        ..blank(rule.index)
    };
    ValidationReport {
        rules: rules.iter().map(skipped).collect(),
    }
}

fn blank(rule: u32) -> RuleResult {
    RuleResult {
        rule,
        kind: String::new(),
        description: String::new(),
        path: None,
        pattern: None,
        passed: false,
        actual: None,
        expected: None,
        reason: None,
        category: None,
        hint: None,
        checked_at: now(),
        duration_ms: 0,
        code: None,
    }
}
