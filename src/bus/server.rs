//! Serves the interfaces: on the session bus, and to each client of the private socket.
//!
//! Nothing here starts a task of its own: the futures are handed to the caller, who owns the tasks.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, ObjectManager, RequestNameFlags};
use zbus::names::{OwnedUniqueName, UniqueName, WellKnownName};
use zbus::{Connection, Guid};

use super::caller::Callers;
use super::error::{Error, Result};
use super::job::Job;
use super::manager::{self, Manager};
use super::mirror::Mirror;
use super::names;
use super::publish::{self, left};
use crate::api::handle::{Conductor, Reply, Request};
use crate::api::request::{ApiError, RunSelector};
use crate::model::JobName;

/// For a client of the private socket to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the calls that are still being answered when the conductor leaves.
const DRAIN: Duration = Duration::from_secs(5);
/// After an `accept` that failed (no descriptors left, for one), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Who would miss the conductor if it left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clients {
    /// Connections to the private socket.
    pub private: usize,
    /// Clients of the session bus that called Subscribe and are still there.
    pub subscribers: usize,
}

/// Why the interfaces cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process owns the name on the bus.
    #[error("{0}")]
    NameTaken(String),
    /// The bus or the socket failed.
    #[error("D-Bus: {0}")]
    Bus(#[from] zbus::Error),
    /// The conductor did not answer.
    #[error(transparent)]
    Conductor(#[from] ApiError),
    /// A client of the private socket is another user's.
    #[error("a client of user {0} was turned away from the private socket")]
    OtherUser(u32),
    /// A client of the private socket did not say who it is in time.
    #[error("a client of the private socket did not finish its handshake")]
    Silent,
}

/// Puts the interfaces on connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    conductor: Conductor,
    callers: Callers,
    clients: Arc<Counts>,
    leaving: watch::Sender<bool>,
}

/// What the objects of one connection share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conductor: Conductor,
    pub(super) callers: Callers,
    pub(super) mirror: Mirror,
    clients: Arc<Counts>,
    subscribers: mpsc::UnboundedSender<OwnedUniqueName>,
    inhibitors: Mutex<Vec<Inhibitor>>,
}

/// The number of a hold, and who asked for it; nobody is named on the private socket.
type Inhibitor = (u32, Option<OwnedUniqueName>);

impl Server {
    /// Serves this conductor to this process's own user.
    pub fn new(conductor: Conductor) -> Self {
        Self::with_callers(conductor, Callers::new())
    }

    /// The same with another way to find out who calls, for tests.
    pub fn with_callers(conductor: Conductor, callers: Callers) -> Self {
        Self {
            conductor,
            callers,
            clients: Arc::default(),
            leaving: watch::Sender::new(false),
        }
    }

    /// Who would miss the conductor, now and whenever that changes.
    pub fn clients(&self) -> watch::Receiver<Clients> {
        self.clients.told.subscribe()
    }

    /// Lets every connection end: publishers say their last words, clients get the answers still owed to them.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Serves on the session bus, without the name yet (`DBUS_SESSION_BUS_ADDRESS`, else the user's own bus).
    ///
    /// # Errors
    /// No bus can be reached, or the conductor does not answer.
    pub async fn session_bus(&self) -> std::result::Result<Attached, ServeError> {
        self.attach(Builder::session()).await
    }

    /// Serves on the connection that `builder` makes. The objects are there before the connection reads its first
    /// message.
    ///
    /// # Errors
    /// The connection cannot be made, or the conductor does not answer.
    pub async fn attach(&self, builder: Builder<'_>) -> std::result::Result<Attached, ServeError> {
        let (subscribers, subscriptions) = mpsc::unbounded_channel();
        let link = Arc::new(Link {
            conductor: self.conductor.clone(),
            callers: self.callers.clone(),
            mirror: Mirror::new(&self.conductor).await?,
            clients: self.clients.clone(),
            subscribers,
            inhibitors: Mutex::default(),
        });
        let mut builder = builder
            .serve_at(names::MANAGER_PATH, ObjectManager)
            .serve_at(names::MANAGER_PATH, Manager::new(link.clone()));
        for job in link.mirror.jobs() {
            builder = builder.serve_at(names::job_path(job.as_str()), Job::new(link.clone(), job));
        }
        let connection = builder.build().await?;
        let publisher = Some((link, subscriptions));
        Ok(Attached {
            connection,
            publisher,
            leaving: watch::Sender::new(false),
            server: self.leaving.subscribe(),
        })
    }

    /// Accepts clients of the private socket until [`leave`](Self::leave), then until they have their answers.
    pub fn accept(&self, listener: UnixListener) -> impl Future<Output = ()> + Send + use<> {
        let server = self.clone();
        async move {
            let mut clients = JoinSet::new();
            let mut leaving = server.leaving.subscribe();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted.and_then(|(stream, _)| stream.into_std()) {
                        Ok(stream) => {
                            let server = server.clone();
                            clients.spawn(async move { server.client(stream).await });
                        }
                        Err(error) => {
                            tracing::warn!("the private socket accepts no client: {error}");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    Some(ended) = clients.join_next() => told(ended),
                    () = left(&mut leaving) => break,
                }
            }
            drop(listener);
            while let Some(ended) = clients.join_next().await {
                told(ended);
            }
        }
    }

    /// Serves one client over a socket of its own, until it goes or [`leave`](Self::leave).
    ///
    /// # Errors
    /// The client is another user's, does not speak, or the conductor does not answer.
    pub async fn client(&self, stream: std::os::unix::net::UnixStream) -> std::result::Result<(), ServeError> {
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| zbus::Error::from(io(error)))?;
        let uid = peer.uid.as_raw();
        if uid != self.callers.uid() {
            return Err(ServeError::OtherUser(uid));
        }
        let _connected = self.clients.connected();
        let builder = Builder::unix_stream(stream).server(Guid::generate()).p2p();
        let mut leaving = self.leaving.subscribe();
        let mut attached = tokio::select! {
            attached = tokio::time::timeout(HANDSHAKE, self.attach(builder)) => attached.map_err(|_| ServeError::Silent)??,
            () = left(&mut leaving) => return Ok(()),
        };
        attached.publisher().await;
        attached.drain().await;
        Ok(())
    }
}

fn io(error: rustix::io::Errno) -> std::io::Error {
    error.into()
}

fn told(ended: std::result::Result<std::result::Result<(), ServeError>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!("private socket: {error}"),
        Err(error) => tracing::warn!("private socket: a client's task failed: {error}"),
    }
}

/// A connection that serves the interfaces.
#[derive(Debug)]
pub struct Attached {
    connection: Connection,
    publisher: Option<(Arc<Link>, mpsc::UnboundedReceiver<OwnedUniqueName>)>,
    leaving: watch::Sender<bool>,
    server: watch::Receiver<bool>,
}

impl Attached {
    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Tells the connection's clients what changes, until the connection is closed or left; to be run once, as a task
    /// of the caller. A second one ends at once.
    pub fn publisher(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let parts = self.publisher.take();
        let connection = self.connection.clone();
        let (own, mut server) = (self.leaving.subscribe(), self.server.clone());
        async move {
            if let Some((link, subscriptions)) = parts {
                let (clients, bus) = (link.clients.clone(), connection.is_bus());
                let mut own_too = own.clone();
                let (stop, stopped) = watch::channel(false);
                let publish = publish::publish(link.clone(), connection, subscriptions, stopped);
                let forward = async {
                    tokio::select! {
                        () = left(&mut own_too) => {}
                        () = left(&mut server) => {}
                    }
                    stop.send_replace(true);
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = publish => {}
                    () = forward => {}
                }
                link.give_back(|_| true).await;
                if bus {
                    // Their names belong to this connection's bus; on the next one they are other clients'.
                    clients.change(|subscribers| !std::mem::take(subscribers).is_empty());
                }
            }
        }
    }

    /// Takes the well-known name. Call it when everything is served; it does not wait in a queue.
    ///
    /// # Errors
    /// [`ServeError::NameTaken`], naming the process that has it, where it can be told.
    pub async fn request_name(&self) -> std::result::Result<(), ServeError> {
        let name = WellKnownName::from_static_str_unchecked(names::BUS_NAME);
        match self
            .connection
            .request_name_with_flags(name, RequestNameFlags::DO_NOT_QUEUE)
            .await
        {
            Ok(_) => Ok(()),
            Err(zbus::Error::NameTaken) => Err(ServeError::NameTaken(self.owner().await)),
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves the bus without losing a call: gives the name back, answers every call that came before, and closes.
    pub async fn leave(self) {
        let leave = async {
            self.connection.release_name(names::BUS_NAME).await?;
            // The bus delivers in order: once this call to oneself is answered, every call that was sent to the name
            // is being handled.
            if let Some(own) = self.connection.unique_name() {
                let peer = Some("org.freedesktop.DBus.Peer");
                self.connection
                    .call_method(Some(own), names::MANAGER_PATH, peer, "Ping", &())
                    .await?;
            }
            zbus::Result::Ok(())
        };
        match tokio::time::timeout(DRAIN, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("leaving the bus: {error}"),
            Err(_) => tracing::warn!("leaving the bus: it does not answer"),
        }
        self.drain().await;
    }

    /// Closes the connection to a bus that went away.
    pub async fn drop_off(self) {
        // There is nobody left to be told of an error.
        self.connection.close().await.ok();
    }

    /// Waits for the calls that are being answered, and closes.
    async fn drain(self) {
        self.leaving.send_replace(true);
        drop(self.publisher);
        if tokio::time::timeout(DRAIN, self.connection.graceful_shutdown())
            .await
            .is_err()
        {
            tracing::warn!("a call was still being answered when its connection was closed");
        }
    }

    async fn owner(&self) -> String {
        let pid = async {
            let bus = DBusProxy::new(&self.connection).await?;
            let name = WellKnownName::from_static_str_unchecked(names::BUS_NAME);
            zbus::Result::Ok(bus.get_connection_credentials(name.into()).await?.process_id())
        };
        match pid.await {
            Ok(Some(pid)) => format!(
                "another conductor runs: process {pid} owns the bus name {}",
                names::BUS_NAME
            ),
            _ => format!("another conductor runs: the bus name {} is taken", names::BUS_NAME),
        }
    }
}

impl Link {
    /// Asks the conductor.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T> {
        self.conductor.ask(request).await.map_err(Error::from)
    }

    /// Makes sure that a job has its object on this connection.
    pub(super) async fn show(self: &Arc<Self>, connection: &Connection, name: &str) -> Result<()> {
        let name = manager::job_name(name)?;
        if !self.mirror.look(&name) {
            let newest = RunSelector {
                job: name.to_string(),
                run: None,
            };
            let view = self.ask(|reply| Request::GetRun(newest, reply)).await?;
            self.mirror.show(view);
        }
        Ok(self.serve_job(connection, &name).await?)
    }

    /// Puts a job's object on the connection where it is not there yet.
    pub(super) async fn serve_job(self: &Arc<Self>, connection: &Connection, name: &JobName) -> zbus::Result<()> {
        let job = Job::new(self.clone(), name.clone());
        connection
            .object_server()
            .at(names::job_path(name.as_str()), job)
            .await?;
        Ok(())
    }

    /// Notes a subscriber; a client of the private socket (no sender) counts by its connection.
    pub(super) fn subscribe(&self, client: Option<&UniqueName<'_>>) -> Result<()> {
        let Some(client) = client else { return Ok(()) };
        let client = OwnedUniqueName::from(client.to_owned());
        if self.clients.change(|subscribers| subscribers.insert(client.clone())) {
            self.subscribers
                .send(client)
                .map_err(|_| Error::Stopping("the conductor is stopping".to_owned()))?;
        }
        Ok(())
    }

    /// Holds all starts for a client.
    pub(super) async fn inhibit(&self, client: Option<&UniqueName<'_>>, why: String) -> Result<u32> {
        let client = client.map(|client| OwnedUniqueName::from(client.to_owned()));
        let cookie = self.ask(|reply| Request::Inhibit(why, reply)).await?;
        self.inhibitors().push((cookie, client.clone()));
        let noticed = match client {
            Some(client) => self.subscribers.send(client).is_ok(),
            // The client of the private socket may have gone meanwhile.
            None => !self.subscribers.is_closed(),
        };
        if !noticed {
            // Nobody would notice its leaving.
            self.give_back(|(number, _)| *number == cookie).await;
            return Err(Error::Stopping("the conductor is stopping".to_owned()));
        }
        Ok(cookie)
    }

    /// Takes back what that client holds under that number.
    pub(super) async fn uninhibit(&self, client: Option<&UniqueName<'_>>, cookie: u32) -> Result<()> {
        let client = client.map(|client| OwnedUniqueName::from(client.to_owned()));
        match self.give_back(|inhibitor| *inhibitor == (cookie, client.clone())).await {
            0 => Err(Error::InvalidArgument(format!(
                "you hold nothing under the number {cookie}"
            ))),
            _ => Ok(()),
        }
    }

    /// A client has left the bus.
    pub(super) async fn left(&self, client: &OwnedUniqueName) {
        self.unsubscribe(Some(client));
        self.give_back(|(_, whose)| whose.as_ref() == Some(client)).await;
    }

    /// Gives the holds back that are meant; says how many.
    async fn give_back(&self, which: impl Fn(&Inhibitor) -> bool) -> usize {
        let over: Vec<_> = self.inhibitors().extract_if(.., |inhibitor| which(inhibitor)).collect();
        for (number, _) in &over {
            if let Err(error) = self.ask(|reply| Request::Uninhibit(*number, reply)).await {
                tracing::debug!("a hold is not given back: {error}");
            }
        }
        over.len()
    }

    fn inhibitors(&self) -> MutexGuard<'_, Vec<Inhibitor>> {
        self.inhibitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a subscriber.
    pub(super) fn unsubscribe(&self, client: Option<&UniqueName<'_>>) {
        if let Some(client) = client {
            self.clients.change(|subscribers| subscribers.remove(client.as_str()));
        }
    }
}

/// Counts the clients.
#[derive(Debug, Default)]
struct Counts {
    subscribers: Mutex<HashSet<OwnedUniqueName>>,
    told: watch::Sender<Clients>,
}

struct Connected(Arc<Counts>);

impl Counts {
    fn connected(self: &Arc<Self>) -> Connected {
        self.told.send_modify(|clients| clients.private += 1);
        Connected(self.clone())
    }

    /// Changes the subscribers; tells their number.
    fn change(&self, change: impl FnOnce(&mut HashSet<OwnedUniqueName>) -> bool) -> bool {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut subscribers);
        if changed {
            self.told.send_modify(|clients| clients.subscribers = subscribers.len());
        }
        changed
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.told.send_modify(|clients| clients.private -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn another_users_client_is_turned_away() {
        let own = rustix::process::getuid().as_raw();
        let (requests, _asked) = mpsc::channel(1);
        let conductor = Conductor::new(requests, tokio::sync::broadcast::channel(1).0);
        let server = Server::with_callers(conductor, Callers::of_user(own + 1));
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let error = server.client(theirs).await.unwrap_err();
        assert!(matches!(error, ServeError::OtherUser(uid) if uid == own), "{error:?}");
        assert_eq!(*server.clients().borrow(), Clients::default());
    }
}
