//! The conductor as a systemd service: the socket it was handed, readiness, watchdog, status line, idle exit.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock;
use super::environment::Environment;
use super::journal;
use super::paths::Paths;
use super::project::Status;
use super::start::{self, Restored, StartError};
use crate::api::handle::Request;
use crate::bus::server::{Attached, Clients, ServeError, Server};

/// First and longest wait before a session bus that went away is looked for again.
const BUS_FIRST: Duration = Duration::from_millis(50);
const BUS_LONGEST: Duration = Duration::from_secs(10);

/// Why the loop below ended.
enum End {
    /// SIGTERM or SIGINT: systemd or a person in a terminal.
    Asked,
    /// Nobody was there for long enough.
    Idle,
    /// The conductor ended by itself, as `Stop` asks.
    Conductor,
    /// The ledger is damaged.
    Ledger(String),
    /// The session bus is back, but not for us.
    Bus(StartError),
}

/// Runs the service until it is asked to stop or idle for long. `listener`: the private socket, as systemd hands
/// it over.
///
/// Objects are served before the name is taken, and systemd is told READY after both, so that the call that
/// activated the service is answered. On the way out it is STOPPING first, then the name, then what is left to
/// answer: in another order callers hang or are lost.
///
/// # Errors
/// The ledger, the settings, the timer or the sockets cannot be used; another conductor is there.
pub async fn run(listener: Option<UnixListener>) -> Result<(), StartError> {
    let other = |what: &str, error: &dyn std::fmt::Display| StartError::Other(format!("{what}: {error}"));
    let environment = Environment::of_this_process();
    let paths = Paths::from_environment(|name| environment.get(name).map(str::to_owned)).map_err(StartError::Other)?;
    let Restored {
        conductor,
        handle,
        settings,
    } = start::restore(&paths, environment, true).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| other("SIGTERM", &error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| other("SIGINT", &error))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(|error| other("SIGHUP", &error))?;

    let (status, live) = (conductor.status.subscribe(), conductor.live.len());
    let (stop, stopped) = watch::channel(false);
    let mut conducting = JoinSet::new();
    conducting.spawn(conductor.serve(stopped));

    let server = Server::new(handle.clone());
    let (mut tasks, mut guests) = (JoinSet::new(), JoinSet::new());
    let (mut bus_gone, mut bus_back) = (JoinSet::new(), JoinSet::new());
    let mut attached = match on_the_bus(&server).await {
        Ok(mut attached) => {
            bus_gone.spawn(attached.publisher());
            Some(attached)
        }
        Err(ServeError::Bus(error)) => {
            tracing::warn!("no session bus, only the private socket is served: {error}");
            None
        }
        Err(error) => return Err(StartError::Other(error.to_string())),
    };
    if let Some(listener) = listener {
        listener
            .set_nonblocking(true)
            .map_err(|error| other("the private socket", &error))?;
        let listener =
            tokio::net::UnixListener::from_std(listener).map_err(|error| other("the private socket", &error))?;
        guests.spawn(server.accept(listener));
    }
    tasks.spawn(watchdog());
    tasks.spawn(status_line(status.clone()));
    journal::started(live);
    notify(&[NotifyState::Ready]);

    let idle_for = Duration::from_secs(u64::from(settings.idle_exit_seconds));
    let mut idle = Box::pin(idle(idle_for, clock::sleep, status.clone(), server.clients()));
    let end = loop {
        tokio::select! {
            _ = terminate.recv() => break End::Asked,
            _ = interrupt.recv() => break End::Asked,
            _ = hang_up.recv() => {
                if let Err(error) = handle.ask(Request::Reload).await {
                    tracing::error!("the settings stay as they were: {error}");
                }
            }
            () = &mut idle => break End::Idle,
            Some(done) = conducting.join_next() => break match done {
                Ok(Err(why)) => End::Ledger(why),
                _ => End::Conductor,
            },
            Some(_) = bus_gone.join_next() => {
                tracing::warn!("the session bus went away; only the private socket is served until it is back");
                if let Some(gone) = attached.take() {
                    gone.drop_off().await;
                }
                bus_back.spawn(back_on_the_bus(server.clone()));
            }
            Some(Ok(back)) = bus_back.join_next() => match back {
                Ok(mut back) => {
                    tracing::info!("back on the session bus");
                    bus_gone.spawn(back.publisher());
                    attached = Some(back);
                }
                Err(error) => break End::Bus(error),
            },
        }
    };
    notify(&[NotifyState::Stopping]);
    journal::stopping(status.borrow().live);
    if matches!(end, End::Asked) && settings.stop_sessions_on_stop {
        // Answered at once; the conductor ends when the sessions have.
        match handle.ask(|reply| Request::Stop(true, reply)).await {
            Ok(()) => while conducting.join_next().await.is_some() {},
            Err(error) => tracing::error!("the sessions are left running: {error}"),
        }
    }
    if let Some(attached) = attached {
        attached.leave().await;
    }
    server.leave();
    // Clients get the answers that are owed to them before the conductor goes.
    while guests.join_next().await.is_some() {}
    stop.send_replace(true);
    while conducting.join_next().await.is_some() {}
    tasks.shutdown().await;
    match end {
        End::Bus(error) => Err(error),
        // It is accepted and stored, but nobody is left to do it: systemd starts one anew.
        End::Idle if status.borrow().live > 0 => Err(StartError::Other(
            "a job came in while the idle service was leaving; it goes on with the next start".to_owned(),
        )),
        // systemd starts it anew, which sets it aside.
        End::Ledger(why) => Err(StartError::Other(why)),
        End::Asked | End::Idle | End::Conductor => Ok(()),
    }
}

/// On the session bus under its name.
async fn on_the_bus(server: &Server) -> Result<Attached, ServeError> {
    let attached = server.session_bus().await?;
    attached.request_name().await?;
    Ok(attached)
}

/// The same after the bus went away, as soon as there is one.
///
/// The service stays: an exit, or only `STOPPING=1`, before the user manager has noticed that the bus's process is dead
/// makes the manager wait for a bus that only itself can start.
async fn back_on_the_bus(server: Server) -> Result<Attached, StartError> {
    let mut pause = BUS_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        match on_the_bus(&server).await {
            Ok(attached) => return Ok(attached),
            Err(ServeError::Bus(error)) => tracing::debug!(%error, "the session bus is not back yet"),
            Err(error) => return Err(StartError::Other(error.to_string())),
        }
        pause = (pause * 2).min(BUS_LONGEST);
    }
}

/// Tells systemd; without a manager that listens this is nothing, and a lost message is only said in the journal.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Feeds the watchdog at half its interval, as sd_watchdog_enabled(3) advises; for ever without a watchdog.
pub(super) async fn watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        notify(&[NotifyState::Watchdog]);
        clock::sleep(interval / 2).await;
    }
}

/// Keeps `STATUS=` up to date, at most twice a second.
pub(super) async fn status_line(mut status: watch::Receiver<Status>) {
    loop {
        let text = status.borrow_and_update().text.clone();
        notify(&[NotifyState::Status(&text)]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        if status.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Returns when nothing was live and nobody was there for `limit` (zero: never), as `sleep` counts time.
pub(super) async fn idle<S: Future<Output = ()>>(
    limit: Duration,
    sleep: impl Fn(Duration) -> S,
    mut status: watch::Receiver<Status>,
    mut guests: watch::Receiver<Clients>,
) {
    if limit.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let quiet = status.borrow_and_update().live == 0 && *guests.borrow_and_update() == Clients::default();
        let changed = async {
            tokio::select! {
                changed = status.changed() => changed.is_ok(),
                changed = guests.changed() => changed.is_ok(),
            }
        };
        if !quiet {
            if !changed.await {
                return std::future::pending().await;
            }
            continue;
        }
        tokio::select! {
            biased;
            changed = changed => {
                if !changed {
                    return std::future::pending().await;
                }
            }
            () = sleep(limit) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_means_nothing_live_and_nobody_there_for_the_whole_time() {
        let (status, seen) = watch::channel(Status {
            text: String::new(),
            live: 1,
        });
        let (guests, counted) = watch::channel(Clients::default());
        let limit = Duration::from_secs(300);
        let mut idle = Box::pin(idle(limit, tokio::time::sleep, seen, counted));
        let wait = |seconds| tokio::time::timeout(Duration::from_secs(seconds), std::future::pending::<()>());

        tokio::select! { () = &mut idle => panic!("a run is live"), _ = wait(1000) => {} }
        status.send_replace(Status::default());
        tokio::select! { () = &mut idle => panic!("too early"), _ = wait(299) => {} }
        guests.send_replace(Clients {
            private: 1,
            subscribers: 0,
        });
        tokio::select! { () = &mut idle => panic!("somebody is there"), _ = wait(1000) => {} }
        guests.send_replace(Clients::default());
        tokio::select! { () = &mut idle => {}, _ = wait(301) => panic!("idle for 300 s") }
    }
}
