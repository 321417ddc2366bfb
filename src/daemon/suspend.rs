//! Suspend: while sessions run, logind is asked to wait a moment before the system sleeps, so that this is noted before,
//! and after it everything is looked at anew.

use futures_util::StreamExt;
use tokio::sync::watch;
use zbus::{Connection, MatchRule, MessageStream, OwnedFd};

use super::project::Status;
use crate::api::handle::{Conductor, Request};

const LOGIND: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// Watches as long as the conductor is there. Without logind there is nothing to watch.
pub(super) async fn watch(conductor: Conductor, status: watch::Receiver<Status>) {
    if let Err(error) = follow(&conductor, status).await {
        tracing::debug!(%error, "there is no logind: that the system sleeps is only seen afterwards");
    }
}

async fn follow(conductor: &Conductor, mut status: watch::Receiver<Status>) -> zbus::Result<()> {
    // Who never runs anything needs no connection.
    if status.wait_for(|status| status.running > 0).await.is_err() {
        return Ok(());
    }
    let connection = Connection::system().await?;
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender(LOGIND)
        .path(PATH)
        .interface(MANAGER)
        .member("PrepareForSleep")
        .build()?;
    let mut told = MessageStream::for_match_rule(rule, &connection, None).await?;
    let (mut sleeps, mut lock) = (false, None);
    loop {
        let running = status.borrow_and_update().running > 0;
        if !running || sleeps {
            // Given back, it lets the system sleep.
            lock = None;
        } else if lock.is_none() {
            lock = Some(delay(&connection).await?);
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() {
                return Ok(());
            },
            message = told.next() => {
                let Some(message) = message else { return Ok(()) };
                sleeps = message?.body().deserialize()?;
                // A conductor that is going away has nothing to note.
                conductor.ask(|reply| Request::Sleep(sleeps, reply)).await.ok();
            }
        }
    }
}

/// Asks logind to wait before the system sleeps, for as long as this is open (at most `InhibitDelayMaxSec=`).
async fn delay(connection: &Connection) -> zbus::Result<OwnedFd> {
    let body = ("sleep", "Mozart", "sessions are at work", "delay");
    let reply = connection
        .call_method(Some(LOGIND), PATH, Some(MANAGER), "Inhibit", &body)
        .await?;
    reply.body().deserialize()
}
