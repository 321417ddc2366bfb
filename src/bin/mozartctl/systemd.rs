//! The user's own systemd: is `mozart.service` installed, does it run, start it, stop it.
//!
//! Asked over the session bus; where there is none, over the manager's own socket.

use std::time::Duration;

use futures_util::StreamExt as _;
use mozart::user_manager::PrivateSocket;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, proxy};

use crate::connect::{has_owner, runtime_directory};
use crate::error::{CliError, Kind};

/// The service's unit.
pub(crate) const UNIT: &str = "mozart.service";

/// How long a start or stop job of the service may take: its own timeout is 90 s by default.
const JOB_TIMEOUT: Duration = Duration::from_secs(120);

/// A hint is not worth a longer wait.
const LOGIND_TIMEOUT: Duration = Duration::from_secs(2);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait SystemdManager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

#[proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait SystemdUnit {
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
}

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait LoginManager {
    fn get_user(&self, uid: u32) -> zbus::Result<OwnedObjectPath>;
}

#[proxy(
    interface = "org.freedesktop.login1.User",
    default_service = "org.freedesktop.login1"
)]
trait LoginUser {
    #[zbus(property)]
    fn linger(&self) -> zbus::Result<bool>;
}

/// Whether this user's services, and with them sessions, outlive the last logout; `None` where nobody knows.
pub(crate) async fn lingers() -> Option<bool> {
    let asked = async {
        let connection = Connection::system().await?;
        let manager = LoginManagerProxy::new(&connection).await?;
        let user = manager.get_user(rustix::process::getuid().as_raw()).await?;
        let user = LoginUserProxy::builder(&connection)
            .path(user)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        user.linger().await
    };
    tokio::time::timeout(LOGIND_TIMEOUT, asked).await.ok()?.ok()
}

/// What is to be done with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Start it, if it does not run yet.
    Start,
    /// Stop it.
    Stop,
    /// Stop it, then start it.
    Restart,
}

impl Act {
    fn past(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
        }
    }
}

/// The unit as the manager knows it.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// `active`, `activating`, `inactive`, `failed`, …
    pub(crate) active_state: String,
}

impl Service {
    /// It has a process, or is about to.
    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.active_state.as_str(), "inactive" | "failed")
    }

    /// It runs and answers.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "reloading")
    }
}

/// A connection to the user's systemd.
pub(crate) struct UserManager {
    connection: Connection,
}

impl UserManager {
    /// Over the session bus if there is one and systemd is on it, else over its own socket; none where neither answers.
    pub(crate) async fn connect(session: Option<&Connection>) -> Option<Self> {
        if let Some(bus) = session
            && has_owner(bus, "org.freedesktop.systemd1").await
        {
            return Some(Self {
                connection: bus.clone(),
            });
        }
        let socket = PrivateSocket::connect(&runtime_directory()?.join("systemd/private"))
            .await
            .ok()?;
        let connection = zbus::connection::Builder::socket(socket).p2p().build().await.ok()?;
        Some(Self { connection })
    }

    /// The service, if its unit is installed.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where systemd does not answer.
    pub(crate) async fn service(&self) -> Result<Option<Service>, CliError> {
        self.look().await.map_err(|error| {
            CliError::new(
                Kind::NoConductor,
                format!("the user's systemd does not answer about {UNIT}: {error}"),
            )
        })
    }

    async fn look(&self) -> zbus::Result<Option<Service>> {
        let path = self.manager().await?.load_unit(UNIT).await?;
        let unit = SystemdUnitProxy::builder(&self.connection)
            .path(&path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        if unit.load_state().await? != "loaded" {
            return Ok(None);
        }
        Ok(Some(Service {
            active_state: unit.active_state().await?,
        }))
    }

    /// Does it and waits until it is done.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where systemd refuses or the service fails.
    pub(crate) async fn act(&self, unit: &str, act: Act) -> Result<(), CliError> {
        let failed = |why: String| {
            CliError::new(Kind::NoConductor, format!("{unit} could not be {}: {why}", act.past())).hint(format!(
                "`journalctl --user -u {unit} -n 30` and `systemctl --user status {unit}` say more"
            ))
        };
        let result = tokio::time::timeout(JOB_TIMEOUT, self.job(unit, act)).await;
        match result {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => Err(failed(format!("its job ended with `{result}`"))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", JOB_TIMEOUT.as_secs()))),
        }
    }

    /// Kills the service's own process, and nothing else of the unit.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where systemd refuses.
    pub(crate) async fn kill(&self) -> Result<(), CliError> {
        const SIGKILL: i32 = 9;
        let killed = async { self.manager().await?.kill_unit(UNIT, "main", SIGKILL).await };
        killed
            .await
            .map_err(|error| CliError::new(Kind::NoConductor, format!("{UNIT} could not be killed: {error}")))
    }

    async fn manager(&self) -> zbus::Result<SystemdManagerProxy<'static>> {
        SystemdManagerProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// Queues the job and waits for its end; returns its result, `done` where all went well.
    async fn job(&self, unit: &str, act: Act) -> zbus::Result<String> {
        let manager = self.manager().await?;
        let mut removed = manager.receive_job_removed().await?;
        // The private socket knows no subscription and sends every signal; its refusal means nothing.
        let _subscribed = manager.subscribe().await;
        let job = match act {
            Act::Start => manager.start_unit(unit, "replace").await?,
            Act::Stop => manager.stop_unit(unit, "replace").await?,
            Act::Restart => manager.restart_unit(unit, "replace").await?,
        };
        while let Some(signal) = removed.next().await {
            let ended = signal.args()?;
            if ended.job == job {
                return Ok(ended.result.clone());
            }
        }
        Ok("connection lost".to_owned())
    }
}
