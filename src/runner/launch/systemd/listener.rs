//! What the manager tells of units, heard once for all of them.
//!
//! Two matches serve every session: a match for each would be asked of the bus one by one, and a start would wait for
//! all that are asked before it. A connection on which nobody watches anything listens no longer: then units of others
//! wake nobody.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zbus::message::Type;
use zbus::wire::ObjectPath;
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::link::{DESTINATION, MANAGER, PROPERTIES, ROOT, object_path};

/// Messages kept while others are taken in: the manager tells of some ten changes in the life of a unit.
const QUEUE: Option<NonZeroUsize> = NonZeroUsize::new(1024);

/// So long after the last unit the next one is expected.
const LINGER: Duration = Duration::from_secs(60);

/// What is heard of a unit.
#[derive(Debug)]
pub(super) enum Heard {
    /// Properties of it changed.
    Changed(Message),
    /// A job of it is over: its object path and its result.
    JobOver(String, String),
    /// The manager has read everything anew, or left the bus, or is back: what went before may have been dropped.
    Anew,
}

/// The units of one connection that are listened to.
#[derive(Debug, Default)]
pub(super) struct Listener {
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    units: Arc<Mutex<Units>>,
}

#[derive(Debug, Default)]
struct Units {
    /// By object path.
    ears: BTreeMap<String, Vec<UnboundedSender<Heard>>>,
    /// What is told is taken in.
    hearing: bool,
    last_left: Option<Instant>,
}

/// A unit's own share of it. Whoever drops it listens no longer.
#[derive(Debug)]
pub(super) struct Ear {
    path: String,
    heard: UnboundedReceiver<Heard>,
    units: Arc<Mutex<Units>>,
}

impl Listener {
    /// Listens to a unit from now on.
    pub(super) async fn listen(&self, connection: &Connection, private: bool, unit: &str) -> zbus::Result<Ear> {
        let mut tasks = self.tasks.lock().await;
        let (sender, heard) = unbounded_channel();
        let ear = Ear {
            path: object_path(unit),
            heard,
            units: Arc::clone(&self.units),
        };
        let hearing = {
            let mut units = locked(&self.units);
            units.ears.entry(ear.path.clone()).or_default().push(sender);
            units.hearing
        };
        if !hearing {
            let of_manager = MessageStream::for_match_rule(of_manager(private)?, connection, QUEUE);
            let of_owner = MessageStream::for_match_rule(of_owner()?, connection, QUEUE);
            let streams = tokio::try_join!(of_manager, of_owner)?;
            locked(&self.units).hearing = true;
            while tasks.try_join_next().is_some() {}
            tasks.spawn(hear(streams, Arc::clone(&self.units)));
        }
        Ok(ear)
    }
}

impl Ear {
    /// The next that is heard; `None` where the connection is lost.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.heard.close();
        let mut units = locked(&self.units);
        if let Some(ears) = units.ears.get_mut(&self.path) {
            ears.retain(|ear| !ear.is_closed());
            if ears.is_empty() {
                units.ears.remove(&self.path);
                units.last_left = Some(Instant::now());
            }
        }
    }
}

impl Units {
    /// Whether somebody listens, or soon may.
    fn wanted(&self) -> bool {
        !self.ears.is_empty() || self.last_left.is_some_and(|left| left.elapsed() < LINGER)
    }

    fn tell(&self, path: &str, heard: impl Fn() -> Heard) {
        for ear in self.ears.get(path).into_iter().flatten() {
            // Who has just left does not want it.
            ear.send(heard()).ok();
        }
    }

    fn hear(&self, message: &Message) {
        let header = message.header();
        let (Some(path), Some(interface), Some(member)) = (header.path(), header.interface(), header.member()) else {
            return;
        };
        match (interface.as_str(), member.as_str()) {
            (PROPERTIES, "PropertiesChanged") => self.tell(path, || Heard::Changed(message.clone())),
            (MANAGER, "JobRemoved") => {
                type Removed<'m> = (u32, ObjectPath<'m>, &'m str, &'m str);
                if let Ok((_, job, unit, result)) = message.body().deserialize::<Removed<'_>>() {
                    self.tell(&object_path(unit), || {
                        Heard::JobOver(job.to_string(), result.to_owned())
                    });
                }
            }
            (MANAGER, "Reloading") | (_, "NameOwnerChanged") => {
                for path in self.ears.keys() {
                    self.tell(path, || Heard::Anew);
                }
            }
            _ => {}
        }
    }
}

/// Takes in what is told until the connection is lost, or nobody wants to know.
async fn hear((mut of_manager, mut of_owner): (MessageStream, MessageStream), units: Arc<Mutex<Units>>) {
    loop {
        let message = tokio::select! {
            message = of_manager.next() => message,
            message = of_owner.next() => message,
        };
        let mut units = locked(&units);
        match message {
            Some(Ok(message)) if units.wanted() => units.hear(&message),
            lost_or_unwanted => {
                units.hearing = false;
                if !matches!(lost_or_unwanted, Some(Ok(_))) {
                    units.ears.clear();
                }
                return;
            }
        }
    }
}

fn locked(units: &Mutex<Units>) -> MutexGuard<'_, Units> {
    units.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that the manager tells, in its order.
fn of_manager(private: bool) -> zbus::Result<MatchRule<'static>> {
    let rule = MatchRule::builder().msg_type(Type::Signal).path_namespace(ROOT);
    if private { rule } else { rule.sender(DESTINATION) }.build()
}

/// That the manager left the bus or is back.
fn of_owner() -> zbus::Result<MatchRule<'static>> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus");
    let rule = rule.interface("org.freedesktop.DBus").member("NameOwnerChanged");
    rule.arg(0, DESTINATION).build()
}
