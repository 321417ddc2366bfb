//! A conductor inside a front end, where there is no service: a bare build, a container, a build server.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::environment::Environment;
use super::paths::Paths;
use super::start::{self, StartError};
use super::suspend;
use crate::api::handle::{Conductor as Handle, Request};
use crate::api::request::ApiError;
use crate::bus::server::Server;

/// For clients to take the answers that are owed to them when the conductor leaves.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How an embedded conductor is to be.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Takes up live runs and may start sessions (`run`, `resume`). Otherwise it only shows: a run whose conductor was
    /// killed is shown as paused, reason `conductor gone`, and stays as it is.
    pub conducts: bool,
    /// The front end's own environment.
    pub environment: Environment,
}

/// A conductor that lives as long as this value.
#[derive(Debug)]
pub struct Embedded {
    handle: Handle,
    server: Server,
    stop: watch::Sender<bool>,
    conductor: JoinSet<Result<(), String>>,
    guests: JoinSet<()>,
    /// Ends with this value.
    _suspend: JoinSet<()>,
    socket: Option<PathBuf>,
}

/// Starts a conductor in this process.
///
/// # Errors
/// Another conductor holds the ledger (its process is named), or something cannot be opened.
pub async fn embedded(options: EmbeddedOptions) -> Result<Embedded, StartError> {
    let paths =
        Paths::from_environment(|name| options.environment.get(name).map(str::to_owned)).map_err(StartError::Other)?;
    let restored = start::restore(&paths, options.environment, options.conducts).await?;
    let mut watching = JoinSet::new();
    if options.conducts {
        let status = restored.conductor.status.subscribe();
        watching.spawn(suspend::watch(restored.handle.clone(), status));
    }
    let (stop, stopped) = watch::channel(false);
    let mut conductor = JoinSet::new();
    conductor.spawn(restored.conductor.serve(stopped));

    let server = Server::new(restored.handle.clone());
    let mut guests = JoinSet::new();
    let mut socket = None;
    if options.conducts {
        match listen(&paths.socket()) {
            Ok(Some(listener)) => {
                socket = Some(paths.socket());
                guests.spawn(server.accept(listener));
            }
            Ok(None) => tracing::debug!("the private socket is held by another process"),
            Err(error) => tracing::warn!(
                "the private socket {} cannot be made: {error}",
                paths.socket().display()
            ),
        }
    }
    Ok(Embedded {
        handle: restored.handle,
        server,
        stop,
        conductor,
        guests,
        _suspend: watching,
        socket,
    })
}

impl Embedded {
    /// The handle to ask.
    pub fn conductor(&self) -> &Handle {
        &self.handle
    }

    /// Holds every live run, so that a later conductor goes on with it. `now`: sessions are stopped and later resumed;
    /// otherwise they finish first. Returns once nothing runs any more.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn interrupt(&self, now: bool) -> Result<(), ApiError> {
        self.handle.ask(|reply| Request::Interrupt(now, reply)).await
    }

    /// Ends the conductor: what people read is written, the ledger is closed. Sessions that still run go on and
    /// are adopted by the next conductor.
    pub async fn shutdown(mut self) {
        self.server.leave();
        // Clients get the answers that are owed to them; one that does not read them is not waited for.
        let answered = async { while self.guests.join_next().await.is_some() {} };
        drop(tokio::time::timeout(LAST_ANSWERS, answered).await);
        self.stop.send_replace(true);
        while self.conductor.join_next().await.is_some() {}
        if let Some(socket) = &self.socket {
            // Another conductor may have cleared it away already.
            drop(std::fs::remove_file(socket));
        }
    }
}

/// The private socket; `None` where somebody listens there.
fn listen(path: &Path) -> io::Result<Option<tokio::net::UnixListener>> {
    if path.exists() {
        if somebody_listens(path)? {
            return Ok(None);
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(Some(tokio::net::UnixListener::from_std(listener)?))
}

/// Looks without connecting: a connection would make systemd start the service behind its socket.
/// Field 4 of /proc/net/unix holds the flags; 0x10000 is `__SO_ACCEPTCON` (proc(5), linux/net.h).
fn somebody_listens(path: &Path) -> io::Result<bool> {
    let table = std::fs::read_to_string("/proc/net/unix")?;
    let wanted = path.to_string_lossy();
    Ok(table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let flags = fields
            .nth(3)
            .and_then(|flags| u32::from_str_radix(flags, 16).ok())
            .unwrap_or(0);
        flags & 0x10000 != 0 && fields.nth(3).is_some_and(|path| path == wanted)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_served_is_left_alone_and_a_stale_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let first = listen(&path).unwrap().unwrap();
        assert!(listen(&path).unwrap().is_none());
        drop(first);
        assert!(listen(&path).unwrap().is_some());
    }
}
