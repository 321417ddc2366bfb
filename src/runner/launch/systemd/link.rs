//! One connection to the user manager: calls, signals, and what it says of a unit.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use zbus::connection::Builder;
use zbus::names::OwnedErrorName;
use zbus::wire::{DynamicType, OwnedVariant};
use zbus::{Connection, Message};

use super::super::LaunchError;
use super::super::spool::Spool;
use super::listener::Listener;
use super::watching::{Process, Watching};
use crate::model::{Certificate, Span};
use crate::probe::{self, Fault};
use crate::user_manager::PrivateSocket;

pub(super) const DESTINATION: &str = "org.freedesktop.systemd1";
pub(super) const ROOT: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// An answer that takes longer is lost. The manager itself answers in a millisecond, and after seconds where the
/// machine is in trouble.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// One connection to the manager.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    /// The manager's own socket: no bus between, no references.
    pub(super) private: bool,
    /// Which life of the manager this is, within this boot: since when it runs, however often it was executed anew.
    pub(super) life: String,
    listener: Listener,
}

/// Where a loaded unit stands.
#[derive(Debug)]
pub(super) struct State {
    active: String,
    job: bool,
    /// Empty where it was never started.
    invocation: Vec<u8>,
}

impl Link {
    /// Over the session bus; where there is none, over the manager's own socket.
    pub(super) async fn open(runtime_directory: &Path) -> Result<Self, LaunchError> {
        let over_bus = async {
            let connection = Builder::session().method_timeout(CALL_TIMEOUT).build().await?;
            Self::subscribed(connection, false).await
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
            Self::subscribed(connection, true).await
        };
        over_socket.await.map_err(|error: zbus::Error| {
            LaunchError::Bus(format!(
                "over the session bus: {bus_error}; over its own socket: {}",
                told(&error)
            ))
        })
    }

    async fn subscribed(connection: Connection, private: bool) -> zbus::Result<Self> {
        let mut link = Self {
            connection,
            private,
            life: String::new(),
            listener: Listener::default(),
        };
        link.call(ROOT, MANAGER, "Subscribe", &()).await?;
        let since: u64 = link.property(ROOT, MANAGER, "UserspaceTimestampMonotonic").await?;
        link.life = since.to_string();
        Ok(link)
    }

    /// Whether the manager is going down, and every session with it.
    pub(super) async fn leaves(&self) -> zbus::Result<bool> {
        let state: String = self.property(ROOT, MANAGER, "SystemState").await?;
        Ok(state == "stopping")
    }

    pub(super) async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: Serialize + DynamicType,
    {
        let destination = (!self.private).then_some(DESTINATION);
        let made_to_fail = || zbus::Error::Failure("a test made the call fail".to_owned());
        if probe::fails(Fault::Call) {
            return Err(made_to_fail());
        }
        let answer = self
            .connection
            .call_method(destination, path, Some(interface), method, body)
            .await;
        if probe::fails(Fault::Answer) {
            return Err(made_to_fail());
        }
        answer
    }

    /// Listens to all that concerns a unit. Before its start, or before it is looked at for the first time: then nothing
    /// falls between the two.
    pub(super) async fn watch(&self, unit: &str) -> zbus::Result<Watching> {
        let ear = self.listener.listen(&self.connection, self.private, unit).await?;
        Ok(Watching::new(ear))
    }

    /// Takes a reference to a loaded unit; false where it is not loaded. Asked of the unit itself, because the
    /// manager's `RefUnit` refuses units that a reload left with a bad setting.
    pub(super) async fn hold(&self, unit: &str) -> zbus::Result<bool> {
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

    /// Gives the reference back. Over the manager's own socket there is none; being asked to stop the unit the manager
    /// looks whether it still needs it.
    pub(super) async fn let_go(&self, unit: &str) -> zbus::Result<Message> {
        if self.private {
            self.call(ROOT, MANAGER, "StopUnit", &(unit, "replace")).await
        } else {
            self.call(ROOT, MANAGER, "UnrefUnit", &unit).await
        }
    }

    pub(super) async fn property<T>(&self, path: &str, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let reply = self.call(path, PROPERTIES, "Get", &(interface, name)).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        T::try_from(value).map_err(Into::into)
    }

    /// Where a unit stands; `None` where it is not loaded.
    pub(super) async fn state(&self, unit: &str) -> zbus::Result<Option<State>> {
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
        let job = <(u32, zbus::wire::OwnedObjectPath)>::try_from(job).is_ok_and(|(id, _)| id != 0);
        Ok(Some(State {
            active,
            job,
            invocation,
        }))
    }

    /// A unit's main process, as long as the unit is loaded.
    pub(super) async fn process(&self, unit: &str) -> zbus::Result<Process> {
        let path = &object_path(unit);
        let (invocation, pid, result, code, status, started, exited) = tokio::try_join!(
            self.property(path, UNIT, "InvocationID"),
            self.property(path, SERVICE, "ExecMainPID"),
            self.property(path, SERVICE, "Result"),
            self.property(path, SERVICE, "ExecMainCode"),
            self.property(path, SERVICE, "ExecMainStatus"),
            self.property(path, SERVICE, "ExecMainStartTimestamp"),
            self.property(path, SERVICE, "ExecMainExitTimestamp"),
        )?;
        Ok(Process {
            invocation,
            pid,
            result,
            code,
            status,
            started,
            exited,
        })
    }

    /// The unit's own word of its end; the record adds what the unit does not know. `None` where it is no longer
    /// loaded.
    pub(super) async fn certificate(&self, unit: &str, spool: &Spool) -> zbus::Result<Option<Certificate>> {
        let path = &object_path(unit);
        let (process, cpu) =
            tokio::try_join!(self.process(unit), self.property::<u64>(path, SERVICE, "CPUUsageNSec"),)?;
        // Of a unit that was collected meanwhile the manager would have told a success.
        if self.state(unit).await?.is_none_or(|state| state.invocation.is_empty()) {
            return Ok(None);
        }
        let cpu = (cpu != u64::MAX).then(|| Span(i64::try_from(cpu / 1000).unwrap_or(i64::MAX)));
        Ok(Some(process.certificate(cpu, spool)))
    }
}

impl State {
    /// Whether it runs, or is about to start or to end.
    pub(super) fn is_running(&self) -> bool {
        self.job || !matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// Whether its start is over, well or not.
    pub(super) fn is_started(&self) -> bool {
        !self.job && !self.invocation.is_empty()
    }
}

/// A unit's object path: every byte but letters and digits as `_xx`.
pub(super) fn object_path(unit: &str) -> String {
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

pub(super) fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, ..) if full.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name))
}

/// Whether the manager surely refused to start anything. What is not known here counts as unknown.
pub(super) fn is_refusal(error: &zbus::Error) -> bool {
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
pub(super) fn told(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, Some(text), _) => format!("{text} ({name})"),
        error => error.to_string(),
    }
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
