//! The launcher on the user's systemd: every attempt is a transient unit.
//!
//! A unit that ended stays loaded for as long as this connection holds a reference to it, so its `Result` can be
//! read after the fact; the references die with the connection, and then the exit record in the spool speaks.
//! Nothing here polls: a start is over when its job is removed, an end is seen in the unit's properties.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::names::OwnedErrorName;
use zbus::wire::{DynamicType, OwnedVariant, Variant};
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::exec::now;

use super::spool::{SecretsFrom, Spool};
use super::{Evidence, Launch, LaunchError, StartOutcome, left_behind, lost, sensible};
use crate::model::{Certificate, Exit, Span, StopHow, Timestamp};
use crate::runner::spec::Secrets;
use crate::user_manager::PrivateSocket;

const DESTINATION: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The slice of all sessions: idle work beside what the person does.
const SLICE: &str = "background-mozart.slice";

/// An answer that takes longer is lost. The manager itself answers in a millisecond, and after seconds where the
/// machine is in trouble.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// A start takes milliseconds. One that takes longer is looked at so often; systemd itself gives up after 90 s
/// (`DefaultTimeoutStartSec=`).
const JOB_LOOK: Duration = Duration::from_secs(5);
const JOB_LOOKS: u32 = 20;

/// Messages kept for one unit's streams: a unit has a handful of changes in its life.
const QUEUE: Option<NonZeroUsize> = NonZeroUsize::new(128);

/// First and longest wait before a lost manager is looked for again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Credential files that are older were left by a killed start.
const STALE_CREDENTIALS: Duration = Duration::from_secs(300);

/// `MainPID`, `ExecMainCode` and the like of a unit that is over.
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;

/// Starts each session as a transient unit.
#[derive(Debug)]
pub struct Systemd {
    self_exe: PathBuf,
    runtime_directory: PathBuf,
    link: Mutex<Option<Arc<Link>>>,
    /// Units (with `.service`) that are to be held over every connection until their release.
    held: Mutex<BTreeSet<String>>,
}

/// One connection to the manager.
#[derive(Debug)]
struct Link {
    connection: Connection,
    /// The manager's own socket: no bus between, no references.
    private: bool,
}

/// What the manager says of a loaded unit.
#[derive(Debug)]
struct Look {
    active: String,
    job: bool,
    invocation: String,
    result: String,
    code: i32,
    status: i32,
    pid: u32,
    started: u64,
    exited: u64,
    cpu: u64,
}

impl Systemd {
    pub(super) async fn connect(self_exe: PathBuf) -> Result<Self, LaunchError> {
        let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw())));
        let link = Link::open(&runtime_directory).await?;
        let systemd = Self {
            self_exe,
            runtime_directory,
            link: Mutex::new(Some(Arc::new(link))),
            held: Mutex::default(),
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
        let link = Arc::new(Link::open(&self.runtime_directory).await?);
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
        if let Err(error) = spool.write_order(&launch.order(SecretsFrom::Credentials)) {
            return StartOutcome::failed(format!("cannot write to {}: {error}", launch.spool.display()));
        }
        let credentials = match self.credentials(&launch.unit, &launch.secrets) {
            Ok(credentials) => credentials,
            Err(error) => return StartOutcome::failed(format!("cannot hand over the credentials: {error}")),
        };
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return StartOutcome::failed(error.to_string()),
        };
        let Ok(mut removed) = link.signals(&Watched::JobOf(&unit)).await else {
            // Nothing was asked yet, but a connection that breaks here tells nothing certain of anything else.
            return StartOutcome::Unknown;
        };
        let properties = self.properties(launch, &spool, &credentials, link.private);
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit.as_str(), "fail", properties, none);
        self.held.lock().await.insert(unit.clone());
        let job = match link.call(ROOT, MANAGER, "StartTransientUnit", &body).await {
            Ok(reply) => match reply.body().deserialize::<zbus::wire::OwnedObjectPath>() {
                Ok(job) => job,
                Err(_) => return StartOutcome::Unknown,
            },
            Err(error) if is_refusal(&error) => {
                self.held.lock().await.remove(&unit);
                return StartOutcome::failed(format!("systemd does not start the session: {}", told(&error)));
            }
            Err(_) => return StartOutcome::Unknown,
        };
        let Some(result) = self.job_result(&link, &unit, &job, &mut removed).await else {
            return StartOutcome::Unknown;
        };
        drop(credentials);
        if result != "done" && result != "failed" {
            return StartOutcome::Unknown;
        }
        let Ok(Some(look)) = link.look(&unit).await else {
            // It ran: its end is told by the spool.
            return StartOutcome::Started {
                at: now(),
                invocation: None,
                pid: None,
            };
        };
        if result == "failed"
            && spool.exec_error().is_none()
            && let Some(message) = refused_by_manager(look.status, &self.self_exe, &spool)
        {
            return StartOutcome::failed(message);
        }
        StartOutcome::Started {
            at: timestamp(look.started).unwrap_or_else(now),
            invocation: Some(look.invocation).filter(|id| !id.is_empty()),
            pid: Some(look.pid).filter(|pid| *pid != 0),
        }
    }

    /// How the start job ended; `None` where that is not told.
    async fn job_result(&self, link: &Link, unit: &str, job: &str, removed: &mut MessageStream) -> Option<String> {
        for _ in 0..JOB_LOOKS {
            let told = timeout(JOB_LOOK, async {
                while let Some(Ok(message)) = removed.next().await {
                    let body = message.body();
                    type Removed<'m> = (u32, zbus::wire::ObjectPath<'m>, &'m str, &'m str);
                    if let Ok((_, path, _, result)) = body.deserialize::<Removed<'_>>()
                        && path.as_str() == job
                    {
                        return Some(result.to_owned());
                    }
                }
                None
            });
            match told.await {
                Ok(result) => return result,
                // A manager that was executed anew may have dropped the signal.
                Err(_) => match link.look(unit).await {
                    Ok(Some(look)) if !look.job && look.active != "inactive" => return Some("done".to_owned()),
                    _ => {}
                },
            }
        }
        None
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
        let program = self.self_exe.to_string_lossy().into_owned();
        // The manager expands `$` in arguments but not in the program's path.
        let directory = launch.spool.to_string_lossy().replace('$', "$$");
        let start = vec![(
            program.clone(),
            vec!["mozart".to_owned(), "--mozart-exec".to_owned(), directory],
            false,
        )];
        // Plain, and without any `$`: all else is lost or read differently after a daemon-reload. A failing record
        // must not turn a good run into a bad one.
        let record = vec![(
            program,
            vec!["mozart".to_owned(), "--mozart-exit-record".to_owned()],
            true,
        )];
        let mut properties = vec![
            ("Description", Variant::from(launch.description.clone())),
            ("Type", Variant::from("exec")),
            ("Slice", Variant::from(SLICE)),
            ("KillMode", Variant::from("control-group")),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("StandardInputFile", text(&spool.prompt())),
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

    pub(super) async fn evidence(&self, name: &str, spool: &Path) -> Result<Evidence, LaunchError> {
        let unit = format!("{name}.service");
        let spool = Spool::new(spool);
        let link = self.link().await?;
        self.read(&link, &unit, &spool)
            .await
            .map_err(|error| LaunchError::Bus(told(&error)))
    }

    /// The evidence over one connection: the unit if it is loaded, else what the spool holds.
    async fn read(&self, link: &Link, unit: &str, spool: &Spool) -> zbus::Result<Evidence> {
        // Held before it is looked at: it may be collected between two calls.
        let loaded = if self.held.lock().await.contains(unit) {
            true
        } else {
            link.hold(unit).await?
        };
        if loaded {
            self.held.lock().await.insert(unit.to_owned());
        }
        let Some(look) = link.look(unit).await? else {
            self.let_go(link, unit).await;
            return Ok(left_behind(spool));
        };
        if look.job || !matches!(look.active.as_str(), "inactive" | "failed") {
            return Ok(Evidence::Running {
                invocation: Some(look.invocation).filter(|id| !id.is_empty()),
                pid: Some(look.pid).filter(|pid| *pid != 0),
                started_at: timestamp(look.started),
            });
        }
        if look.invocation.is_empty() {
            self.let_go(link, unit).await;
            return Ok(left_behind(spool));
        }
        Ok(Evidence::Ended(sensible(look.certificate(spool), spool)))
    }

    async fn let_go(&self, link: &Link, unit: &str) {
        if self.held.lock().await.remove(unit) && !link.private {
            // Where it was not held there is nothing to let go of.
            link.call(ROOT, MANAGER, "UnrefUnit", &unit).await.ok();
        }
    }

    pub(super) async fn wait(&self, name: &str, spool: &Path) -> Certificate {
        let unit = format!("{name}.service");
        let spool = Spool::new(spool);
        let mut pause = RETRY_FIRST;
        loop {
            match self.watch(&unit, &spool).await {
                Ok(certificate) => return certificate,
                // The manager is gone for now. What it wrote before counts.
                Err(_) => match left_behind(&spool) {
                    Evidence::Ended(certificate) => return certificate,
                    _ => sleep(pause).await,
                },
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// Waits over one connection; an error where that connection or the manager behind it is lost.
    async fn watch(&self, unit: &str, spool: &Spool) -> Result<Certificate, LaunchError> {
        let lost_bus = |error: zbus::Error| LaunchError::Bus(told(&error));
        let gone = || LaunchError::Bus("the connection is closed".to_owned());
        let link = self.link().await?;
        // Listening begins before the first look, so nothing falls between the two.
        let (of_unit, unloaded, reloading, owner) = (
            Watched::Unit(unit),
            Watched::Unloaded(unit),
            Watched::Reloading,
            Watched::Owner,
        );
        let (mut of_unit, mut unloaded, mut reloading, mut owner) = tokio::try_join!(
            link.signals(&of_unit),
            link.signals(&unloaded),
            link.signals(&reloading),
            link.signals(&owner),
        )
        .map_err(lost_bus)?;
        loop {
            match self.read(&link, unit, spool).await.map_err(lost_bus)? {
                Evidence::Running { .. } => {}
                Evidence::Ended(certificate) => return Ok(certificate),
                Evidence::EndedUnknown | Evidence::NeverRan => return Ok(lost(spool)),
            }
            loop {
                tokio::select! {
                    message = of_unit.next() => {
                        let message = message.ok_or_else(gone)?.map_err(lost_bus)?;
                        if may_be_over(&message) {
                            break;
                        }
                    }
                    message = unloaded.next() => { message.ok_or_else(gone)?.map_err(lost_bus)?; break; }
                    message = reloading.next() => { message.ok_or_else(gone)?.map_err(lost_bus)?; break; }
                    message = owner.next() => { message.ok_or_else(gone)?.map_err(lost_bus)?; break; }
                }
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
        match self.link().await {
            Ok(link) => self.let_go(&link, &unit).await,
            // The references are gone with the connection.
            Err(_) => drop(self.held.lock().await.remove(&unit)),
        }
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

/// What a stream of signals is about.
enum Watched<'a> {
    /// Jobs of the unit that are over.
    JobOf(&'a str),
    /// Changes of the unit's properties.
    Unit(&'a str),
    /// The unit is no longer loaded.
    Unloaded(&'a str),
    /// The manager has read everything anew.
    Reloading,
    /// The manager left the bus or is back.
    Owner,
}

impl Link {
    /// Over the session bus; where there is none, over the manager's own socket.
    async fn open(runtime_directory: &Path) -> Result<Self, LaunchError> {
        let over_bus = async {
            let connection = Builder::session().method_timeout(CALL_TIMEOUT).build().await?;
            Self {
                connection,
                private: false,
            }
            .subscribed()
            .await
        };
        let bus_error = match over_bus.await {
            Ok(link) => return Ok(link),
            Err(error) => told(&error),
        };
        let over_socket = async {
            let socket = PrivateSocket::connect(&runtime_directory.join("systemd/private")).await?;
            let connection = Builder::socket(socket)
                .p2p()
                .method_timeout(CALL_TIMEOUT)
                .build()
                .await?;
            Self {
                connection,
                private: true,
            }
            .subscribed()
            .await
        };
        over_socket.await.map_err(|error: zbus::Error| {
            LaunchError::Bus(format!(
                "over the session bus: {bus_error}; over its own socket: {}",
                told(&error)
            ))
        })
    }

    async fn subscribed(self) -> zbus::Result<Self> {
        self.call(ROOT, MANAGER, "Subscribe", &()).await?;
        Ok(self)
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: Serialize + DynamicType,
    {
        let destination = (!self.private).then_some(DESTINATION);
        self.connection
            .call_method(destination, path, Some(interface), method, body)
            .await
    }

    async fn signals(&self, watched: &Watched<'_>) -> zbus::Result<MessageStream> {
        let mut rule = MatchRule::builder().msg_type(Type::Signal);
        if !self.private {
            rule = rule.sender(match watched {
                Watched::Owner => "org.freedesktop.DBus",
                _ => DESTINATION,
            });
        }
        let rule = match watched {
            Watched::JobOf(unit) => rule.interface(MANAGER).member("JobRemoved").arg(2, *unit),
            Watched::Unit(unit) => rule.interface(PROPERTIES).path(object_path(unit)),
            Watched::Unloaded(unit) => rule.interface(MANAGER).member("UnitRemoved").arg(0, *unit),
            Watched::Reloading => rule.interface(MANAGER).member("Reloading"),
            Watched::Owner => rule
                .interface("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .arg(0, DESTINATION),
        };
        MessageStream::for_match_rule(rule.build()?, &self.connection, QUEUE).await
    }

    /// Takes a reference to a loaded unit; false where it is not loaded. Asked of the unit itself, because the
    /// manager's `RefUnit` refuses units that a reload left with a bad setting.
    async fn hold(&self, unit: &str) -> zbus::Result<bool> {
        match self.call(ROOT, MANAGER, "GetUnit", &unit).await {
            Ok(_) if self.private => Ok(true),
            Ok(_) => {
                self.call(&object_path(unit), UNIT, "Ref", &()).await?;
                Ok(true)
            }
            Err(error) if is_named(&error, "NoSuchUnit") => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn property<T>(&self, path: &str, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let reply = self.call(path, PROPERTIES, "Get", &(interface, name)).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        T::try_from(value).map_err(Into::into)
    }

    /// What the manager says of a unit; `None` where it is not loaded.
    async fn look(&self, unit: &str) -> zbus::Result<Option<Look>> {
        let path = &object_path(unit);
        let (load, active, invocation, job) = tokio::try_join!(
            self.property::<String>(path, UNIT, "LoadState"),
            self.property::<String>(path, UNIT, "ActiveState"),
            self.property::<Vec<u8>>(path, UNIT, "InvocationID"),
            self.property::<OwnedVariant>(path, UNIT, "Job"),
        )?;
        if load == "not-found" {
            return Ok(None);
        }
        let (result, code, status, pid, started, exited, cpu) = tokio::try_join!(
            self.property::<String>(path, SERVICE, "Result"),
            self.property::<i32>(path, SERVICE, "ExecMainCode"),
            self.property::<i32>(path, SERVICE, "ExecMainStatus"),
            self.property::<u32>(path, SERVICE, "ExecMainPID"),
            self.property::<u64>(path, SERVICE, "ExecMainStartTimestamp"),
            self.property::<u64>(path, SERVICE, "ExecMainExitTimestamp"),
            self.property::<u64>(path, SERVICE, "CPUUsageNSec"),
        )?;
        let invocation = invocation.iter().map(|byte| format!("{byte:02x}")).collect();
        let job = <(u32, zbus::wire::OwnedObjectPath)>::try_from(job).is_ok_and(|(id, _)| id != 0);
        Ok(Some(Look {
            active,
            job,
            invocation,
            result,
            code,
            status,
            pid,
            started,
            exited,
            cpu,
        }))
    }
}

impl Look {
    /// The unit's own word; the record adds what the unit does not know.
    fn certificate(&self, spool: &Spool) -> Certificate {
        let record = spool.record();
        let exit = match self.code {
            CLD_EXITED => Exit::Code(self.status),
            CLD_KILLED | CLD_DUMPED => Exit::Signal(self.status),
            _ => Exit::Unknown,
        };
        let wall = timestamp(self.started)
            .zip(timestamp(self.exited))
            .map(|(from, to)| to.since(from));
        let own_cpu = || (self.cpu != u64::MAX).then(|| Span(i64::try_from(self.cpu / 1000).unwrap_or(i64::MAX)));
        Certificate {
            exit,
            result: self.result.clone(),
            wall,
            cpu: record
                .as_ref()
                .and_then(|record| record.cpu_us)
                .map(Span)
                .or_else(own_cpu),
            peak_memory: record.and_then(|record| record.peak_memory),
            stopped_by_us: spool.stop_was_asked(),
        }
    }
}

/// A unit's object path: every byte but letters and digits as `_xx`.
fn object_path(unit: &str) -> String {
    let mut path = format!("{ROOT}/unit/");
    for byte in unit.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

fn timestamp(micros: u64) -> Option<Timestamp> {
    i64::try_from(micros).ok().filter(|micros| *micros > 0).map(Timestamp)
}

/// Whether a change of properties could be the unit's end; true where it cannot be read.
fn may_be_over(message: &Message) -> bool {
    type Changed<'a> = (&'a str, std::collections::BTreeMap<&'a str, Variant<'a>>, Vec<&'a str>);
    let body = message.body();
    let Ok((interface, changed, _)) = body.deserialize::<Changed<'_>>() else {
        return true;
    };
    match changed.get("ActiveState") {
        Some(Variant::Str(state)) => matches!(state.as_str(), "inactive" | "failed"),
        Some(_) => true,
        None => interface != UNIT && interface != SERVICE,
    }
}

fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, ..) if full.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name))
}

/// Whether the manager surely refused to start anything. What is not known here counts as unknown.
fn is_refusal(error: &zbus::Error) -> bool {
    use zbus::fdo::Error as Fdo;
    match error {
        zbus::Error::MethodError(name, ..) => refuses(name),
        zbus::Error::FDO(error) => matches!(
            **error,
            Fdo::InvalidArgs(_)
                | Fdo::AccessDenied(_)
                | Fdo::UnknownMethod(_)
                | Fdo::LimitsExceeded(_)
                | Fdo::UnknownProperty(_)
                | Fdo::PropertyReadOnly(_)
                | Fdo::NotSupported(_)
        ),
        _ => false,
    }
}

fn refuses(name: &OwnedErrorName) -> bool {
    name.as_str()
        .strip_prefix("org.freedesktop.systemd1.")
        .is_some_and(|own| own != "UnitExists")
}

/// The error in the bus's own words.
fn told(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, Some(text), _) => format!("{text} ({name})"),
        error => error.to_string(),
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
        208 => format!("systemd cannot open the prompt in {spool}"),
        209 | 222 => format!("systemd cannot write the output in {spool}"),
        243 => "systemd cannot load the credentials".to_owned(),
        200..=242 => format!("systemd could not prepare the session (status {status} in systemd.exec(5))"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_paths_are_escaped_as_systemd_does() {
        assert_eq!(
            object_path("mozart-0a1b2c3d-1-2-3.service"),
            "/org/freedesktop/systemd1/unit/mozart_2d0a1b2c3d_2d1_2d2_2d3_2eservice"
        );
    }
}
