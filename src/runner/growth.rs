//! Tells when files grow, woken by the kernel and not by a clock.
//!
//! One inotify instance serves all that one process follows: a user has 128 of them by default, and programs besides
//! Mozart need some.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Between two looks at the kernel's events: however much is written, it wakes nobody more often.
const PACE: Duration = Duration::from_millis(100);

/// What is watched for growth. A clone is the same.
#[derive(Debug, Clone)]
pub struct Growths(Arc<Reading>);

/// One file, or the files of one directory; watched until it is dropped.
#[derive(Debug)]
pub struct Growth {
    of: Growths,
    watch: i32,
    grown: Arc<Notify>,
}

/// The task that reads the events ends with the last who is interested in them.
#[derive(Debug)]
struct Reading {
    watches: Arc<Watches>,
    _reader: JoinSet<()>,
}

#[derive(Debug)]
struct Watches {
    events: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<i32, Arc<Notify>>>,
}

impl Growths {
    /// Nothing is watched yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the user has no inotify instance left.
    pub fn new() -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "its successor is unsafe; what it asks for holds of an OwnedFd")]
        let events = AsyncFd::new(events)?;
        let watches = Arc::new(Watches {
            events,
            waiting: Mutex::default(),
        });
        let mut reader = JoinSet::new();
        reader.spawn(Arc::clone(&watches).read());
        Ok(Self(Arc::new(Reading {
            watches,
            _reader: reader,
        })))
    }

    /// Watches a file or a directory from now on.
    ///
    /// # Errors
    /// Where it is not there, or the user has no watch left.
    pub fn watch(&self, path: &Path) -> io::Result<Growth> {
        let watches = &self.0.watches;
        // Locked first, so that no event comes before it is known whose it is.
        let mut waiting = watches.waiting();
        let watch = inotify::add_watch(watches.events.get_ref(), path, WatchFlags::MODIFY)?;
        let grown = Arc::clone(waiting.entry(watch).or_default());
        drop(waiting);
        let of = self.clone();
        Ok(Growth { of, watch, grown })
    }
}

impl Growth {
    /// Waits until something was written since the last time; dropping the future loses nothing.
    pub async fn grown(&self) {
        self.grown.notified().await;
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        let watches = &self.of.0.watches;
        watches.waiting().remove(&self.watch);
        // It is gone already where the file is.
        inotify::remove_watch(watches.events.get_ref(), self.watch).ok();
    }
}

impl Watches {
    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self: Arc<Self>) {
        while let Ok(mut ready) = self.events.readable().await {
            self.tell();
            ready.clear_ready();
            drop(ready);
            tokio::time::sleep(PACE).await;
        }
    }

    fn tell(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.events.get_ref(), &mut buffer);
        while let Ok(event) = events.next() {
            let waiting = self.waiting();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                waiting.values().for_each(|grown| grown.notify_one());
            } else if let Some(grown) = waiting.get(&event.wd()) {
                grown.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    async fn is_told(growth: &Growth) -> bool {
        tokio::time::timeout(PACE * 5, growth.grown()).await.is_ok()
    }

    #[tokio::test]
    async fn what_is_written_is_told_to_whom_it_concerns() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "").unwrap();
        let growths = Growths::new().unwrap();
        let (directory, file) = (
            growths.watch(&path("directory")).unwrap(),
            growths.watch(&path("file")).unwrap(),
        );
        assert!(!is_told(&directory).await && !is_told(&file).await);

        fs::write(path("directory/new"), "x").unwrap();
        assert!(is_told(&directory).await);
        assert!(!is_told(&directory).await && !is_told(&file).await);

        let mut output = fs::OpenOptions::new().append(true).open(path("file")).unwrap();
        for _ in 0..3 {
            output.write_all(b"y").unwrap();
            assert!(is_told(&file).await);
        }
        output.set_len(0).unwrap();
        assert!(is_told(&file).await && !is_told(&directory).await);
    }

    #[tokio::test]
    async fn what_is_not_watched_any_more_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let growths = Growths::new().unwrap();
        assert!(growths.watch(&root.path().join("missing")).is_err());
        let first = growths.watch(root.path()).unwrap();
        drop(first);
        assert!(growths.0.watches.waiting().is_empty());
        let second = growths.watch(root.path()).unwrap();
        fs::write(root.path().join("new"), "x").unwrap();
        assert!(is_told(&second).await);
    }
}
