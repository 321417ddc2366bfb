//! The launcher on the user's systemd: every attempt is a transient unit.
//!
//! A unit that ended stays loaded for as long as this connection holds a reference to it, so its `Result` can be
//! read after the fact; the references die with the connection, and then the exit record in the spool speaks.
//! Nothing here polls: a start is over when its job is removed, an end is seen in the unit's properties.

mod link;
mod listener;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};
use zbus::Message;
use zbus::wire::Variant;

use super::exec::{EXEC, EXIT_RECORD, helper, now};
use super::spool::{Spool, Started};
use super::{Evidence, Launch, LaunchError, StartOutcome, left_behind, lost, may_have_gone_down, sensible};
use crate::model::{Certificate, Span, StopHow};
use crate::probe::{self, Point};
use crate::runner::classify::SHUTDOWN;
use crate::runner::room;
use crate::runner::spec::Secrets;
use link::{Link, MANAGER, ROOT, is_named, is_refusal, told};
use watching::{Standing, Watching};

/// The slice of all sessions: idle work beside what the person does.
const SLICE: &str = "background-mozart.slice";

/// A start takes milliseconds. One that takes longer is looked at so often; systemd itself gives up after 90 s
/// (`DefaultTimeoutStartSec=`).
const JOB_LOOK: Duration = Duration::from_secs(5);
const JOB_LOOKS: u32 = 20;

/// A start waits so long at most for others to be over.
const TURN: Duration = Duration::from_secs(1);

/// First and longest wait before a lost manager is looked for again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// The last wait of those for a manager that is executed anew or joins a new bus; some three seconds in all.
const PATIENCE_LONGEST: Duration = Duration::from_millis(1600);

/// Credential files that are older were left by a killed start.
const STALE_CREDENTIALS: Duration = Duration::from_secs(300);

/// Starts each session as a transient unit.
#[derive(Debug)]
pub struct Systemd {
    helper: PathBuf,
    runtime_directory: PathBuf,
    link: Mutex<Option<Arc<Link>>>,
    /// Units (with `.service`) that are to be held over every connection until their release.
    held: Mutex<BTreeSet<String>>,
    /// The signals of units that were started and not yet waited for.
    started: Mutex<BTreeMap<String, Watching>>,
    /// For starts that the manager is at work on: as many as processors can work on.
    turns: Semaphore,
}

impl Systemd {
    pub(super) async fn connect(self_exe: &Path) -> Result<Self, LaunchError> {
        let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw())));
        let link = Link::open(&runtime_directory).await?;
        let systemd = Self {
            helper: helper(self_exe),
            runtime_directory,
            link: Mutex::new(Some(Arc::new(link))),
            held: Mutex::default(),
            started: Mutex::default(),
            turns: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
        };
        systemd.sweep_credentials();
        Ok(systemd)
    }

    /// The connection; a new one where the last was lost, with every held unit held again.
    async fn link(&self) -> Result<Arc<Link>, LaunchError> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.connection.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let had_bus = slot.as_ref().is_some_and(|link| !link.private);
        let mut link = Link::open(&self.runtime_directory).await?;
        let mut pause = RETRY_FIRST;
        // The manager joins a bus that restarts a little later than others may.
        while had_bus && link.private && pause <= PATIENCE_LONGEST {
            sleep(pause).await;
            pause *= 2;
            link = Link::open(&self.runtime_directory).await?;
        }
        let link = Arc::new(link);
        for unit in self.held.lock().await.iter() {
            // One that ended meanwhile is gone; its record speaks for it.
            link.hold(unit).await.ok();
        }
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    pub(super) async fn start(&self, launch: &Launch) -> StartOutcome {
        let unit = format!("{}.service", launch.unit);
        let spool = Spool::new(&launch.spool);
        // A manager that is gone comes back; who asks for the evidence waits for it.
        let Ok(link) = self.link().await else {
            return StartOutcome::Unknown;
        };
        if let Err(error) = launch.write_order(&spool, Started::Systemd, &link.life) {
            return StartOutcome::unwritable(&spool, &error);
        }
        let credentials = match self.credentials(&launch.unit, &launch.secrets) {
            Ok(credentials) => credentials,
            Err(error) if room::is_short(&error) => {
                return StartOutcome::NoRoom(room::refused(&self.credential_root(), &error));
            }
            Err(error) => return StartOutcome::failed(format!("cannot hand over the credentials: {error}")),
        };
        let Ok(mut watching) = link.watch(&unit).await else {
            // Nothing was asked yet, but a connection that breaks here tells nothing certain of anything else.
            return StartOutcome::Unknown;
        };
        let properties = self.properties(launch, &spool, &credentials, link.private);
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit.as_str(), "fail", properties, none);
        let newly_held = self.held.lock().await.insert(unit.clone());
        probe::pass(Point::Ordered);
        // Of many that are to start at once the first are at work soon, instead of all of them late.
        let turn = timeout(TURN, self.turns.acquire()).await;
        let job = match link.call(ROOT, MANAGER, "StartTransientUnit", &body).await {
            Ok(reply) => match reply.body().deserialize::<zbus::wire::OwnedObjectPath>() {
                Ok(job) => job,
                Err(_) => return StartOutcome::Unknown,
            },
            Err(error) if is_refusal(&error) => {
                self.held.lock().await.remove(&unit);
                if link.leaves().await.unwrap_or(true) {
                    return StartOutcome::Unknown;
                }
                return StartOutcome::failed(format!("systemd does not start the session: {}", told(&error)));
            }
            Err(error) => {
                if newly_held && is_named(&error, "UnitExists") {
                    // This call took no reference; who asks for the evidence does.
                    self.held.lock().await.remove(&unit);
                }
                return StartOutcome::Unknown;
            }
        };
        probe::pass(Point::Launched);
        let Some(result) = job_result(&link, &unit, &job, &mut watching).await else {
            return StartOutcome::Unknown;
        };
        drop((turn, credentials));
        if result != "done" && result != "failed" {
            return StartOutcome::Unknown;
        }
        let asked = match watching.process() {
            Some(process) => Ok(process),
            None => link.process(&unit).await,
        };
        if result == "failed"
            && spool.exec_error().is_none()
            && let Ok(process) = &asked
            && let Some(message) = refused_by_manager(process.status, &self.helper, &spool)
        {
            return StartOutcome::failed(message);
        }
        // It ran: its end will be told, whatever is not known of its beginning.
        let process = asked.unwrap_or_default();
        self.started.lock().await.insert(unit, watching);
        StartOutcome::Started {
            at: process.started().unwrap_or_else(now),
            invocation: process.invocation(),
            pid: process.pid(),
        }
    }

    fn properties<'a>(
        &'a self,
        launch: &'a Launch,
        spool: &Spool,
        credentials: &Credentials,
        private: bool,
    ) -> Vec<(&'a str, Variant<'a>)> {
        let text = |path: &Path| Variant::from(path.to_string_lossy().into_owned());
        let micros = |span: Span| Variant::from(u64::try_from(span.0).unwrap_or(0));
        let program = self.helper.to_string_lossy().into_owned();
        // The manager expands `$` in arguments but not in the program's path.
        let directory = launch.spool.to_string_lossy().replace('$', "$$");
        let start = vec![(
            program.clone(),
            vec!["mozart".to_owned(), EXEC.to_owned(), directory],
            false,
        )];
        // Plain, and without any `$`: all else is lost or read differently after a daemon-reload. A failing record
        // must not turn a good run into a bad one.
        let record = vec![(program, vec!["mozart".to_owned(), EXIT_RECORD.to_owned()], true)];
        let mut properties = vec![
            ("Description", Variant::from(launch.description.clone())),
            ("Type", Variant::from("exec")),
            ("Slice", Variant::from(SLICE)),
            ("KillMode", Variant::from("control-group")),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("StandardOutputFileToAppend", text(&spool.stdout())),
            ("StandardErrorFileToAppend", text(&spool.stderr())),
            ("ExecStart", Variant::new(start)),
            ("ExecStopPost", Variant::new(record)),
            ("TimeoutStopUSec", micros(launch.stop_grace)),
            ("CPUAccounting", Variant::from(true)),
            ("MemoryAccounting", Variant::from(true)),
        ];
        if launch.timeout.0 > 0 {
            properties.push(("RuntimeMaxUSec", micros(launch.timeout)));
        }
        if !credentials.files.is_empty() {
            properties.push(("LoadCredential", Variant::new(credentials.files.clone())));
        }
        if !private {
            properties.push(("AddRef", Variant::from(true)));
        }
        properties
    }

    pub(super) async fn evidence(&self, name: &str, spool: &Spool) -> Result<Evidence, LaunchError> {
        let unit = format!("{name}.service");
        let lost_bus = |error: zbus::Error| LaunchError::Bus(told(&error));
        let link = self.link().await?;
        match self.see(&link, &unit, spool).await.map_err(lost_bus)? {
            Seen::Over(evidence) => Ok(evidence),
            Seen::Running => {
                let process = link.process(&unit).await.map_err(lost_bus)?;
                Ok(Evidence::Running {
                    invocation: process.invocation(),
                    pid: process.pid(),
                    started_at: process.started(),
                })
            }
        }
    }

    /// The evidence over one connection: the unit if it is loaded, else what the spool holds.
    async fn see(&self, link: &Link, unit: &str, spool: &Spool) -> zbus::Result<Seen> {
        // Held before it is looked at: it may be collected between two calls.
        let known = self.held.lock().await.contains(unit);
        if !known && link.hold(unit).await? {
            self.held.lock().await.insert(unit.to_owned());
        }
        let state = link.state(unit).await?;
        if let Some(state) = &state
            && state.is_running()
        {
            return Ok(Seen::Running);
        }
        let ended = match state {
            Some(_) => link.certificate(unit, spool).await?,
            None => None,
        };
        let evidence = match ended {
            Some(certificate) => Evidence::Ended(sensible(certificate, spool)),
            None => {
                self.let_go(unit).await;
                left_behind(spool)
            }
        };
        Ok(Seen::Over(match evidence {
            Evidence::Ended(certificate) => Evidence::Ended(beside_manager(link, certificate, spool).await?),
            evidence => evidence,
        }))
    }

    /// Lets the manager forget a unit. It stays in `held` until that is done, so that a connection that is made
    /// meanwhile holds it again: the manager does not look at a unit that ended when the bus takes its last reference
    /// along, and keeps it loaded.
    async fn let_go(&self, unit: &str) {
        let mut pause = RETRY_FIRST;
        while self.held.lock().await.contains(unit) {
            // The manager's own refusal: where it was not held there is nothing to let go of. A manager that is being
            // executed anew may not hear it.
            let over = match self.link().await {
                Ok(link) => link
                    .let_go(unit)
                    .await
                    .map_or_else(|error| is_refusal(&error), |_| true),
                Err(_) => false,
            };
            if over || pause > PATIENCE_LONGEST {
                self.held.lock().await.remove(unit);
                return;
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    pub(super) async fn wait(&self, name: &str, spool: &Spool) -> Certificate {
        let unit = format!("{name}.service");
        let mut pause = RETRY_FIRST;
        loop {
            match self.watch(&unit, spool).await {
                Ok(certificate) => return certificate,
                // The manager is gone for now. What it wrote before counts, but for ends that it may have caused itself.
                Err(_) => match left_behind(spool) {
                    Evidence::Ended(certificate) if !may_have_gone_down(&certificate) => return certificate,
                    _ => sleep(pause).await,
                },
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// Waits over one connection; an error where that connection or the manager behind it is lost.
    async fn watch(&self, unit: &str, spool: &Spool) -> Result<Certificate, LaunchError> {
        let lost_bus = |error: zbus::Error| LaunchError::Bus(told(&error));
        let link = self.link().await?;
        let listening = self.started.lock().await.remove(unit);
        let mut watching = match listening {
            Some(watching) => watching,
            None => link.watch(unit).await.map_err(lost_bus)?,
        };
        loop {
            match watching.standing() {
                Standing::Running => watching.next().await?,
                Standing::Over => {
                    if let Some(certificate) = watching.certificate(spool) {
                        let certificate = sensible(certificate, spool);
                        return beside_manager(&link, certificate, spool).await.map_err(lost_bus);
                    }
                    watching.stands(Standing::Unknown);
                }
                Standing::Unknown => match self.see(&link, unit, spool).await.map_err(lost_bus)? {
                    Seen::Running => watching.stands(Standing::Running),
                    Seen::Over(Evidence::Ended(certificate)) => return Ok(certificate),
                    Seen::Over(_) => return Ok(lost(spool)),
                },
            }
        }
    }

    pub(super) async fn stop(&self, name: &str, how: StopHow) -> Result<(), LaunchError> {
        let unit = format!("{name}.service");
        let link = self.link().await?;
        if how == StopHow::Kill {
            answered(
                link.call(ROOT, MANAGER, "KillUnit", &(unit.as_str(), "all", 9_i32))
                    .await,
            )?;
        }
        answered(link.call(ROOT, MANAGER, "StopUnit", &(unit.as_str(), "replace")).await)
    }

    pub(super) async fn release(&self, name: &str) {
        let unit = format!("{name}.service");
        self.started.lock().await.remove(&unit);
        self.let_go(&unit).await;
    }

    pub(super) async fn units(&self, prefix: &str) -> Result<Vec<String>, LaunchError> {
        type Row = (
            String,
            String,
            String,
            String,
            String,
            String,
            zbus::wire::OwnedObjectPath,
            u32,
            String,
            zbus::wire::OwnedObjectPath,
        );
        let lost_bus = |error: zbus::Error| LaunchError::Bus(told(&error));
        let link = self.link().await?;
        let states: Vec<&str> = Vec::new();
        let patterns = vec![format!("{prefix}*.service")];
        let reply = link
            .call(ROOT, MANAGER, "ListUnitsByPatterns", &(states, patterns))
            .await
            .map_err(lost_bus)?;
        let body = reply.body();
        let rows: Vec<Row> = body.deserialize().map_err(lost_bus)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| row.0.strip_suffix(".service").map(str::to_owned))
            .collect())
    }

    /// The manager's own control group.
    async fn control_group(&self) -> Option<PathBuf> {
        let link = self.link().await.ok()?;
        let group: String = link.property(ROOT, MANAGER, "ControlGroup").await.ok()?;
        let unified = Path::new("/sys/fs/cgroup");
        let known = unified.join("cgroup.controllers").exists();
        known.then(|| unified.join(group.trim_start_matches('/')))
    }

    pub(super) async fn slice(&self) -> Option<PathBuf> {
        Some(self.control_group().await?.join("background.slice").join(SLICE))
    }

    pub(super) async fn limit_memory(&self, bytes: Option<u64>) -> Result<(), String> {
        let link = self.link().await.map_err(|error| error.to_string())?;
        let properties = [("MemoryHigh", Variant::from(bytes.unwrap_or(u64::MAX)))];
        // Until the user manager ends: what is set for good is the user's own.
        link.call(ROOT, MANAGER, "SetUnitProperties", &(SLICE, true, &properties[..]))
            .await
            .map_err(|error| told(&error))?;
        let group = self.control_group().await;
        let controllers = group.and_then(|group| fs::read_to_string(group.join("cgroup.controllers")).ok());
        match controllers {
            Some(controllers) if controllers.split_whitespace().any(|name| name == "memory") => Ok(()),
            _ => Err("the user manager does not have control of the memory here".to_owned()),
        }
    }

    fn credential_root(&self) -> PathBuf {
        self.runtime_directory.join("mozart/credentials")
    }

    /// Writes each secret to a file that only this user can read, until the unit has started.
    fn credentials(&self, unit: &str, secrets: &Secrets) -> io::Result<Credentials> {
        let directory = self.credential_root().join(unit);
        let mut credentials = Credentials {
            directory,
            files: Vec::new(),
        };
        if secrets.0.is_empty() {
            return Ok(credentials);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&credentials.directory)?;
        for (name, value) in &secrets.0 {
            let path = credentials.directory.join(name);
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(value.as_bytes())?;
            credentials
                .files
                .push((name.clone(), path.to_string_lossy().into_owned()));
        }
        Ok(credentials)
    }

    /// Removes what a start that was killed has left; a living one needs its files for milliseconds.
    fn sweep_credentials(&self) {
        for entry in fs::read_dir(self.credential_root()).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_some_and(|age| age > STALE_CREDENTIALS) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

/// How a unit's start job ended; `None` where that is not told.
async fn job_result(link: &Link, unit: &str, job: &str, watching: &mut Watching) -> Option<String> {
    for _ in 0..JOB_LOOKS {
        match timeout(JOB_LOOK, watching.result_of(job)).await {
            Ok(result) => return result.ok(),
            // A manager that was executed anew may have dropped the signal.
            Err(_) => match link.state(unit).await {
                Ok(Some(state)) if state.is_started() => return Some("done".to_owned()),
                _ => {}
            },
        }
    }
    None
}

/// The certificate of a unit that is over, where the manager did not end it by going down.
///
/// # Errors
/// The manager is going down, or cannot be asked.
async fn beside_manager(link: &Link, mut certificate: Certificate, spool: &Spool) -> zbus::Result<Certificate> {
    if may_have_gone_down(&certificate) {
        if link.leaves().await? {
            // Who is there when the manager is back knows what it was.
            return Err(zbus::Error::Failure("the user manager is going down".to_owned()));
        }
        if spool
            .order()
            .is_ok_and(|order| !order.manager.is_empty() && order.manager != link.life)
        {
            SHUTDOWN.clone_into(&mut certificate.result);
        }
    }
    Ok(certificate)
}

/// What was seen of an attempt.
enum Seen {
    Running,
    Over(Evidence),
}

/// The credential files of one start; removed with this value.
#[derive(Debug)]
struct Credentials {
    directory: PathBuf,
    files: Vec<(String, String)>,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        if !self.files.is_empty() {
            // Swept at the next start of a conductor where this fails.
            fs::remove_dir_all(&self.directory).ok();
        }
    }
}

fn answered(answer: zbus::Result<Message>) -> Result<(), LaunchError> {
    match answer {
        Ok(_) => Ok(()),
        // It is over already.
        Err(error) if is_named(&error, "NoSuchUnit") || is_named(&error, "NoSuchProcess") => Ok(()),
        Err(error) if matches!(&error, zbus::Error::MethodError(name, ..) if name.as_str().ends_with("NoSuchProcess")) => {
            Ok(())
        }
        Err(error) => Err(LaunchError::Bus(told(&error))),
    }
}

/// The manager's exit statuses for a unit whose command it could not start (`systemd.exec(5)`, "Process exit
/// codes"), where nothing of ours ran.
fn refused_by_manager(status: i32, program: &Path, spool: &Spool) -> Option<String> {
    let spool = spool.directory().display();
    Some(match status {
        203 => format!(
            "systemd cannot execute {}; was it removed or replaced?",
            program.display()
        ),
        209 | 222 => format!("systemd cannot write the output in {spool}"),
        243 => "systemd cannot load the credentials".to_owned(),
        200..=242 => format!("systemd could not prepare the session (status {status} in systemd.exec(5))"),
        _ => return None,
    })
}
