//! Follows a session's output while it grows: what it tells goes to the conductor, and a silence that is too long is
//! found out.
//!
//! Where the kernel tells of growth, nothing is looked at that has not changed. The session may cut its output or
//! delete it; that costs what it told there, and nothing else.

use std::collections::VecDeque;
use std::fs::{File, symlink_metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until};

use super::attempt::Tell;
use super::backend::{Heard, Listener};
use super::growth::{Growth, Growths};
use super::hang::{self, Hang, Patience};
use super::launch::spool::Spool;
use super::spec::{AttemptSpec, Progress};

/// Between two looks, however much is printed.
const PACE: Duration = Duration::from_secs(1);
/// Between two looks where the kernel does not tell of growth.
const LOOK: Duration = Duration::from_secs(10);
/// Read at once.
const CHUNK: usize = 64 * 1024;
/// So many bytes that were read are compared with what stands there now.
const END: usize = 64;

/// A session's output, as far as it was followed.
#[derive(Debug)]
pub(super) struct Follower {
    spool: Spool,
    listener: Option<Listener>,
    patience: Option<Patience>,
    /// How far the standard output was read.
    at: u64,
    /// The last bytes before that: by them an output is known that was cut and has grown past it again.
    end: Vec<u8>,
    /// What both files were at the last look.
    seen: [Option<Stamp>; 2],
    started: Instant,
    last_output: Option<Instant>,
    /// What was heard and not told yet.
    news: VecDeque<Heard>,
}

/// Length and time of the last change of a regular file.
type Stamp = (u64, Option<SystemTime>);

impl Follower {
    /// Of an attempt whose process begins now or is taken up now.
    pub(super) fn new(spec: &AttemptSpec, spool: &Spool) -> Self {
        let patience = spec.plan.idle_timeout.map(|limit| Patience {
            first: spec.plan.first_event_timeout.unwrap_or(limit).to_duration(),
            gap: limit.to_duration(),
        });
        Self {
            spool: spool.clone(),
            listener: Listener::new(&spec.plan.backend.kind),
            patience,
            at: 0,
            end: Vec::new(),
            seen: [None; 2],
            started: Instant::now(),
            last_output: None,
            news: VecDeque::new(),
        }
    }

    /// Follows until the session hangs. Dropping the future loses nothing.
    pub(super) async fn until_hung(&mut self, growths: Option<&Growths>, tell: &Tell) -> Hang {
        if self.listener.is_none() && self.patience.is_none() {
            return std::future::pending().await;
        }
        let growth = growths.and_then(|growths| growths.watch(self.spool.directory()).ok());
        loop {
            self.catch_up(tell).await;
            let now = Instant::now();
            let hang = |patience| hang::hung(now, self.started, self.last_output, patience);
            if let Some(hang) = self.patience.and_then(hang) {
                return hang;
            }
            let due = self
                .patience
                .and_then(|patience| hang::due(self.started, self.last_output, patience));
            tokio::select! {
                () = grown(growth.as_ref()) => {}
                () = reached(due) => {}
            }
        }
    }

    /// Tells what the output holds that was not told yet.
    pub(super) async fn catch_up(&mut self, tell: &Tell) {
        loop {
            // The file may have gone; then it tells nothing.
            let more = self.look().unwrap_or(false);
            while let Some(heard) = self.news.front() {
                tell.say(Progress::Heard(heard.clone())).await;
                self.news.pop_front();
            }
            if !more {
                return;
            }
            yield_now().await;
        }
    }

    /// Whether there is more to read at once.
    fn look(&mut self) -> io::Result<bool> {
        let seen = [stamp(&self.spool.stdout()), stamp(&self.spool.stderr())];
        // A file that was just made says nothing yet, and one that is gone says nothing any more.
        let holds = |file: &Option<Stamp>| file.is_some_and(|(length, _)| length > 0);
        let printed = |(old, new): (&Option<Stamp>, &Option<Stamp>)| old != new && (holds(old) || holds(new));
        if self.seen.iter().zip(&seen).any(printed) || seen[0].is_none() {
            self.last_output = Some(Instant::now());
        }
        self.seen = seen;
        let (Some(listener), Some((length, _))) = (&mut self.listener, seen[0]) else {
            return Ok(false);
        };
        if length == self.at {
            return Ok(false);
        }
        let mut file = File::open(self.spool.stdout())?;
        file.seek(SeekFrom::Start(self.at - self.end.len() as u64))?;
        let mut chunk = vec![0; CHUNK];
        let count = file.read(&mut chunk)?;
        let read = &chunk[..count];
        let Some(new) = read.strip_prefix(self.end.as_slice()) else {
            (self.at, self.end) = (0, Vec::new());
            listener.begin_again();
            return Ok(true);
        };
        self.at += new.len() as u64;
        self.news.extend(listener.feed(new));
        self.end = read[count.saturating_sub(END)..].to_vec();
        Ok(count == CHUNK)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    // Opening anything but a file might never return.
    let found = symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some((found.len(), found.modified().ok()))
}

/// Waits until there may be more to read.
async fn grown(growth: Option<&Growth>) {
    match growth {
        Some(growth) => {
            sleep(PACE).await;
            growth.grown().await;
        }
        None => sleep(LOOK).await,
    }
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
