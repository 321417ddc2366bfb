//! How a client finds the conductor.
//!
//! In this order: whoever owns the name on the session bus; the service, if its unit is installed, started through
//! systemd so that a failure is told at once; a conductor that answers on the private socket (another `mozartctl`,
//! or one whose user has no session bus); a conductor embedded in this very process. A conductor that keeps its state
//! elsewhere than `XDG_STATE_HOME` says is somebody else's, and passed over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mozart::bus::client::Client;
use mozart::bus::names::BUS_NAME;
use mozart::daemon::environment::Environment;
use mozart::daemon::paths::Paths;
use mozart::daemon::{EmbeddedOptions, StartError};
use mozart::ledger::OpenError;

use crate::cli::Global;
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::link::Link;
use crate::output::Out;
use crate::systemd::{Act, Service, UNIT, UserManager};

/// Another embedded conductor that holds the ledger may be about to open its socket, or about to go.
const HELD_FOR: Duration = Duration::from_secs(2);

/// What a verb needs of a conductor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// One that runs sheets: started or embedded where there is none.
    Run,
    /// One that answers; an embedded one changes nothing by itself.
    Answer,
    /// Only one that is there already.
    Existing,
}

/// Knows where to look.
pub(crate) struct Finder<'a> {
    global: &'a Global,
    out: &'a Out,
}

impl<'a> Finder<'a> {
    /// Looks nowhere yet.
    pub(crate) fn new(global: &'a Global, out: &'a Out) -> Self {
        Self { global, out }
    }

    /// Finds the conductor, lets `verb` talk to it, and ends what belongs to this process in any case.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where none can be reached or started, and whatever `verb` says.
    pub(crate) async fn with(
        &self,
        need: Need,
        verb: impl AsyncFnOnce(&mut Link) -> Result<ExitCode, CliError>,
    ) -> Result<ExitCode, CliError> {
        let Some(mut link) = self.find(need).await? else {
            return Err(CliError::new(Kind::NoConductor, "no conductor is running")
                .hint("`mozartctl start` starts the service"));
        };
        let done = verb(&mut link).await;
        link.shut_down().await;
        done
    }

    /// The conductor, or none where `need` is [`Need::Existing`] and there is none.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where one should be there and cannot be reached or started.
    pub(crate) async fn find(&self, need: Need) -> Result<Option<Link>, CliError> {
        let paths = paths()?;
        let session = session_bus().await;
        if let Some(client) = &session
            && has_owner(client.connection(), BUS_NAME).await
        {
            if is_ours(client, &paths).await {
                return Ok(session.map(Link::Service));
            }
        } else if let Some(manager) = UserManager::connect(session.as_ref().map(Client::connection)).await
            && let Some(service) = manager.service().await?
        {
            match self.service(need, &manager, &service, session).await? {
                Some(Link::Service(client)) if !is_ours(&client, &paths).await => {}
                found => return Ok(found),
            }
        }
        if let Ok(client) = Client::private(&paths.socket()).await
            && is_ours(&client, &paths).await
        {
            return Ok(Some(Link::Private(client)));
        }
        match need {
            Need::Existing => Ok(None),
            Need::Run | Need::Answer => self.embed(need, &paths).await.map(Some),
        }
    }

    /// Whoever can tell of earlier runs: a conductor that is there, else the ledger, read in this process. Nothing is started
    /// or made for it.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where the ledger is there and cannot be read.
    pub(crate) async fn memory(&self) -> Result<Option<Link>, CliError> {
        let paths = paths()?;
        match self.find(Need::Existing).await? {
            None if paths.ledger().exists() => self.embed(Need::Answer, &paths).await.map(Some),
            found => Ok(found),
        }
    }

    /// The user's systemd, and the service if its unit is installed there.
    ///
    /// # Errors
    /// [`Kind::NoConductor`] where systemd is there but does not answer.
    pub(crate) async fn systemd(&self) -> Result<Option<(UserManager, Service)>, CliError> {
        let session = session_bus().await;
        let Some(manager) = UserManager::connect(session.as_ref().map(Client::connection)).await else {
            return Ok(None);
        };
        Ok(manager.service().await?.map(|service| (manager, service)))
    }

    async fn service(
        &self,
        need: Need,
        manager: &UserManager,
        service: &Service,
        session: Option<Client>,
    ) -> Result<Option<Link>, CliError> {
        let socket = paths()?.socket();
        if !service.is_active() {
            if need == Need::Existing {
                return Ok(None);
            }
            // Without a bus the manager tells nobody when a start is done; its socket starts the service by itself.
            if session.is_none()
                && let Ok(client) = Client::private(&socket).await
            {
                return Ok(Some(Link::Service(client)));
            }
            manager.act(UNIT, Act::Start).await?;
        }
        match session {
            Some(client) => Ok(Some(Link::Service(client))),
            None => match Client::private(&socket).await {
                Ok(client) => Ok(Some(Link::Service(client))),
                Err(_) if need == Need::Existing => Ok(None),
                Err(error) => Err(CliError::new(
                    Kind::NoConductor,
                    format!("{UNIT} runs, but there is no session bus, and on the private socket {error}"),
                )
                .hint("`systemctl --user restart mozart.socket mozart.service` opens that socket anew")),
            },
        }
    }

    async fn embed(&self, need: Need, paths: &Paths) -> Result<Link, CliError> {
        crate::log::start(self.global, self.out)?;
        let deadline = tokio::time::Instant::now() + HELD_FOR;
        loop {
            let options = EmbeddedOptions {
                conducts: need == Need::Run,
                environment: Environment::of_this_process(),
            };
            match mozart::daemon::embedded(options).await {
                Ok(embedded) => return Ok(Link::own(embedded, need == Need::Run)),
                Err(StartError::Ledger(held @ OpenError::Held { .. })) => {
                    if let Ok(client) = Client::private(&paths.socket()).await {
                        return Ok(Link::Private(client));
                    }
                    if tokio::time::Instant::now() >= deadline {
                        return Err(CliError::new(
                            Kind::NoConductor,
                            format!("{held}, which does not answer"),
                        ));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(CliError::new(Kind::NoConductor, error.to_string())),
            }
        }
    }
}

/// Where Mozart keeps its things for this user.
pub(crate) fn paths() -> Result<Paths, CliError> {
    Paths::from_environment(|name| std::env::var(name).ok()).map_err(|error| CliError::new(Kind::NoConductor, error))
}

/// Whether a conductor keeps its state where this user's shell says that it is. Where the shell says nothing there is only
/// one, wherever the session's other processes have it.
async fn is_ours(client: &Client, paths: &Paths) -> bool {
    if std::env::var_os("XDG_STATE_HOME").is_none_or(|path| path.is_empty()) {
        return true;
    }
    // A service that restarts answers the next time.
    for _ in 0..20 {
        match client.state_directory().await {
            Ok(theirs) => return theirs.is_empty() || same_place(Path::new(&theirs), &paths.state),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    false
}

/// Whether two paths, of which the second may not be there yet, name one directory.
fn same_place(theirs: &Path, ours: &Path) -> bool {
    theirs == ours
        || theirs
            .canonicalize()
            .is_ok_and(|theirs| ours.canonicalize().is_ok_and(|ours| theirs == ours))
}

/// `$XDG_RUNTIME_DIR`, or where it would be had the login set it.
pub(crate) fn runtime_directory() -> Option<PathBuf> {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(path) if path.is_absolute() => Some(path),
        _ => {
            let path = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
            path.is_dir().then_some(path)
        }
    }
}

/// Whether somebody owns that name; false too where the bus does not answer.
pub(crate) async fn has_owner(bus: &zbus::Connection, name: &str) -> bool {
    let Ok(name) = zbus::names::BusName::try_from(name) else {
        return false;
    };
    let Ok(dbus) = zbus::fdo::DBusProxy::new(bus).await else {
        return false;
    };
    dbus.name_has_owner(name).await.unwrap_or(false)
}

/// The session bus, if there is one. `None` is an answer, not a failure: then everything goes without.
async fn session_bus() -> Option<Client> {
    let named = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some_and(|address| !address.is_empty());
    if !named && !runtime_directory()?.join("bus").exists() {
        return None;
    }
    Client::session().await.ok()
}
