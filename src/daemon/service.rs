//! The conductor as a systemd service: the socket it was handed, readiness, watchdog, status line, idle exit.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

use super::project::Status;

/// Tells systemd; without a manager that listens this is nothing, and a lost message is only said in the journal.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Feeds the watchdog at half its interval, as sd_watchdog_enabled(3) advises; for ever without a watchdog.
pub(super) async fn watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
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

/// Returns when nothing was live and nobody was there for `limit` (zero: never).
pub(super) async fn idle(limit: Duration, mut status: watch::Receiver<Status>, mut guests: watch::Receiver<usize>) {
    if limit.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let quiet = status.borrow_and_update().live == 0 && *guests.borrow_and_update() == 0;
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
        match tokio::time::timeout(limit, changed).await {
            Err(_nothing_changed) => return,
            Ok(true) => {}
            Ok(false) => return std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_means_nothing_live_and_nobody_there_for_the_whole_time() {
        let (status, seen) = watch::channel(Status { text: String::new(), live: 1 });
        let (guests, counted) = watch::channel(0);
        let limit = Duration::from_secs(300);
        let mut idle = Box::pin(idle(limit, seen, counted));
        let wait = |seconds| tokio::time::timeout(Duration::from_secs(seconds), std::future::pending::<()>());

        tokio::select! { () = &mut idle => panic!("a run is live"), _ = wait(1000) => {} }
        status.send_replace(Status::default());
        tokio::select! { () = &mut idle => panic!("too early"), _ = wait(299) => {} }
        guests.send_replace(1);
        tokio::select! { () = &mut idle => panic!("somebody is there"), _ = wait(1000) => {} }
        guests.send_replace(0);
        tokio::select! { () = &mut idle => {}, _ = wait(301) => panic!("idle for 300 s") }
    }
}
