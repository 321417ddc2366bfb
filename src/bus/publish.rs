//! Tells one connection what changes: objects, properties, signals.
//!
//! Properties are compared as the getters give them, so that one that derives from others cannot be forgotten. What
//! changes faster than an object may speak is put together; the last word is always said.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::fdo::{DBusProxy, Properties};
use zbus::names::{InterfaceName, OwnedUniqueName};
use zbus::object_server::{Interface, InterfaceRef, SignalEmitter};
use zbus::{Connection, MatchRule, MessageStream, Variant};

use super::convert::{GateRow, QuestionRow, SheetRow};
use super::error::Dictionary;
use super::job::Job;
use super::manager::Manager;
use super::names;
use super::server::Link;
use crate::model::JobName;

/// Changes of one object in any second.
const PER_SECOND: usize = 4;
/// Between two changes that tell only progress: three a second, so that a change of state finds room at once.
const PROGRESS: Duration = Duration::from_millis(334);
/// For the last words, when the conductor leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// When an object spoke last.
#[derive(Debug, Default)]
struct Pace(VecDeque<Instant>);

impl Pace {
    /// The first moment from `now` on when the object may speak.
    fn due(&self, now: Instant, urgent: bool) -> Instant {
        let window = if self.0.len() < PER_SECOND {
            None
        } else {
            self.0.front()
        };
        let window = window.map(|oldest| *oldest + Duration::from_secs(1));
        let progress = self.0.back().filter(|_| !urgent).map(|last| *last + PROGRESS);
        [window, progress].into_iter().flatten().fold(now, Instant::max)
    }

    fn spoke(&mut self, now: Instant) {
        if self.0.len() == PER_SECOND {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

/// What an object said.
#[derive(Debug, Default)]
struct Told {
    properties: Dictionary,
    pace: Pace,
}

struct Publisher {
    link: Arc<Link>,
    connection: Connection,
    manager: Told,
    jobs: HashMap<JobName, Told>,
}

/// Publishes until the connection is closed or `leaving` says true.
pub(super) async fn publish(
    link: Arc<Link>,
    connection: Connection,
    mut subscribers: mpsc::UnboundedReceiver<OwnedUniqueName>,
    mut leaving: watch::Receiver<bool>,
) {
    let mut wake = link.conductor.subscribe();
    let mut vanished = JoinSet::new();
    let mut conducted = true;
    let mut publisher = Publisher {
        link: link.clone(),
        connection: connection.clone(),
        manager: Told::default(),
        jobs: HashMap::new(),
    };
    if publisher.begin().await.is_err() {
        return;
    }
    loop {
        let due = tokio::select! {
            told = publisher.tell(!conducted) => match told {
                Ok(due) => due,
                // The connection is broken.
                Err(_) => return,
            },
            () = left(&mut leaving) => break,
        };
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = wake.recv(), if conducted => {
                conducted = !matches!(change, Err(broadcast::error::RecvError::Closed));
                while wake.try_recv().is_ok() {}
            }
            () = timer => {}
            Some(name) = subscribers.recv() => {
                vanished.spawn(vanishing(connection.clone(), name));
            }
            Some(Ok(name)) = vanished.join_next() => link.left(&name).await,
            () = connection.closed() => return,
            () = left(&mut leaving) => break,
        }
    }
    // A client that does not read does not keep the conductor.
    tokio::time::timeout(LAST_WORDS, publisher.tell(true)).await.ok();
}

/// Waits until the server leaves, or is gone.
pub(super) async fn left(leaving: &mut watch::Receiver<bool>) {
    // An error: the sender is gone, and so is the server.
    leaving.wait_for(|leaving| *leaving).await.ok();
}

/// Waits until a client has left the bus; gives its name back.
async fn vanishing(connection: Connection, name: OwnedUniqueName) -> OwnedUniqueName {
    let watch = async {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, name.as_str())
            .build()?;
        let mut changes = MessageStream::for_match_rule(rule, &connection, None).await?;
        // It may have gone before the watch began.
        if DBusProxy::new(&connection)
            .await?
            .name_has_owner(name.as_ref().into())
            .await?
        {
            changes.next().await;
        }
        zbus::Result::Ok(())
    };
    // Who cannot be watched is not waited for either.
    watch.await.ok();
    name
}

impl Publisher {
    /// Notes what clients see before anything changes. Of an ended job nothing is noted: it hardly ever changes, and
    /// then says everything once.
    async fn begin(&mut self) -> zbus::Result<()> {
        self.manager.properties = properties(&self.manager().await?).await?;
        for name in self.link.mirror.live_without_news() {
            let properties = properties(&self.job(&name).await?).await?;
            self.jobs.insert(
                name,
                Told {
                    properties,
                    pace: Pace::default(),
                },
            );
        }
        Ok(())
    }

    /// Tells what may be told now, or everything; returns when there is more to tell.
    async fn tell(&mut self, everything: bool) -> zbus::Result<Option<Instant>> {
        // If the conductor is gone, what was seen last stays.
        self.link.mirror.read_again(&self.link.conductor).await.ok();
        let now = Instant::now();
        let mut later: Option<Instant> = None;
        let mut wait = |due: Instant| {
            let waits = due > now && !everything;
            if waits {
                later = Some(later.map_or(due, |later| later.min(due)));
            }
            waits
        };
        if let Some(urgent) = self.link.mirror.manager_with_news()
            && !wait(self.manager.pace.due(now, urgent))
        {
            self.tell_manager(now).await?;
        }
        for (name, urgent) in self.link.mirror.with_news() {
            let due = self.jobs.get(&name).map_or(now, |told| told.pace.due(now, urgent));
            if !wait(due) {
                self.tell_job(&name, now).await?;
            }
        }
        for name in self.link.mirror.prune() {
            self.jobs.remove(&name);
            match self
                .connection
                .object_server()
                .remove::<Job, _>(names::job_path(name.as_str()))
                .await
            {
                Ok(_) | Err(zbus::Error::InterfaceNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(later)
    }

    async fn tell_manager(&mut self, now: Instant) -> zbus::Result<()> {
        let object = self.manager().await?;
        let emitter = object.signal_emitter();
        let news = self.link.mirror.take_manager_news();
        self.manager.speak(&object, now).await?;
        for question in &news.questions {
            Manager::question_asked(emitter, &question.id, QuestionRow::from(question)).await?;
        }
        for gate in news.gates.values() {
            Manager::gate_changed(emitter, GateRow::from(gate)).await?;
        }
        Ok(())
    }

    async fn tell_job(&mut self, name: &JobName, now: Instant) -> zbus::Result<()> {
        self.link.serve_job(&self.connection, name).await?;
        let object = self.job(name).await?;
        let emitter = object.signal_emitter();
        let news = self.link.mirror.take_news(name);
        for ((run, number), sheet) in news.sheets {
            Job::sheet_changed(emitter, run.0, number, sheet.state.as_str(), SheetRow::brief(&sheet)).await?;
        }
        self.jobs.entry(name.clone()).or_default().speak(&object, now).await?;
        for (run, result) in news.finished {
            Job::finished(emitter, run.0, result.as_str(), Dictionary::new()).await?;
        }
        Ok(())
    }

    async fn manager(&self) -> zbus::Result<InterfaceRef<Manager>> {
        self.connection.object_server().interface(names::MANAGER_PATH).await
    }

    async fn job(&self, name: &JobName) -> zbus::Result<InterfaceRef<Job>> {
        self.connection
            .object_server()
            .interface(names::job_path(name.as_str()))
            .await
    }
}

impl Told {
    /// Sends the properties that differ from what was said before.
    async fn speak<I: Interface>(&mut self, object: &InterfaceRef<I>, now: Instant) -> zbus::Result<()> {
        let properties = properties(object).await?;
        let mut changed: HashMap<&str, Variant<'_>> = HashMap::new();
        for (name, value) in &properties {
            if self.properties.get(name) != Some(value) {
                changed.insert(name, value.try_clone()?.into());
            }
        }
        if !changed.is_empty() {
            let interface: InterfaceName<'_> = I::name();
            let emitter = object.signal_emitter();
            Properties::properties_changed(emitter, interface, changed, Cow::Borrowed(&[])).await?;
        }
        self.properties = properties;
        self.pace.spoke(now);
        Ok(())
    }
}

/// An object's properties, as its getters give them.
async fn properties<I: Interface>(object: &InterfaceRef<I>) -> zbus::Result<Dictionary> {
    let emitter: &SignalEmitter<'_> = object.signal_emitter();
    let connection = emitter.connection();
    Ok(object
        .get()
        .await
        .get_all(connection.object_server(), connection, None, emitter)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_speaks_at_most_four_times_in_a_second() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut spoken = Vec::new();
        let mut now = start;
        for turn in 0..40 {
            let due = pace.due(now, turn % 5 == 0);
            assert!(due >= now);
            pace.spoke(due);
            spoken.push(due);
            now = due;
        }
        for window in spoken.windows(PER_SECOND + 1) {
            assert!(window[PER_SECOND] - window[0] >= Duration::from_secs(1), "{spoken:?}");
        }
    }

    #[test]
    fn a_change_of_state_does_not_wait_behind_progress() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.due(now, false), now);
        pace.spoke(now);
        assert_eq!(pace.due(now, true), now);
        assert_eq!(pace.due(now, false), now + PROGRESS);
    }
}
