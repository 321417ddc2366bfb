//! logind, stood in for on a bus of the test's own: a lock while sessions run, given back for the sleep.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::bus::session_bus::Bus;
use crate::support::{Alone, Desk};

/// The ends of logind's side of the locks that it gave, with what was asked for.
type Locks = Arc<Mutex<Vec<([String; 2], UnixStream)>>>;

struct Logind(Locks);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    async fn inhibit(&self, what: String, _who: String, _why: String, mode: String) -> zbus::OwnedFd {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.0.lock().unwrap().push(([what, mode], ours));
        OwnedFd::from(theirs).into()
    }
}

/// Whether the lock of that number is still held.
fn is_held(locks: &Locks, number: usize) -> bool {
    let locks = locks.lock().unwrap();
    let Some((_, lock)) = locks.get(number) else {
        return false;
    };
    let mut fds = [PollFd::new(lock, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Other tests' children end meanwhile, and each end is a signal.
    retry_on_intr(|| poll(&mut fds, Some(&now))).unwrap() == 0
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn the_system_waits_with_its_sleep_while_sessions_run() {
    let bus = Bus::start();
    let locks = Locks::default();
    let logind = zbus::connection::Builder::address(bus.address.as_str())
        .serve_at("/org/freedesktop/login1", Logind(Arc::clone(&locks)))
        .name("org.freedesktop.login1")
        .build()
        .await
        .unwrap();
    let prepare = async |begins: bool| {
        let (path, manager) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        let nobody: Option<&str> = None;
        logind
            .emit_signal(nobody, path, manager, "PrepareForSleep", &begins)
            .await
            .unwrap();
    };
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let job = desk.job("sleepy", 1, "while [ ! -e go ]; do sleep 0.05; done", "");
    let mut run = alone
        .ctl(["run".as_ref(), job.as_os_str()])
        .env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address)
        .env("RUST_LOG", "info")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("a lock while a session runs", || is_held(&locks, 0)).await;
    assert_eq!(locks.lock().unwrap()[0].0, ["sleep", "delay"]);
    prepare(true).await;
    until("it is given back", || !is_held(&locks, 0)).await;
    prepare(false).await;
    until("another one after the sleep", || is_held(&locks, 1)).await;
    std::fs::write(desk.path("go"), "").unwrap();
    until("it is given back with the session", || !is_held(&locks, 1)).await;
    assert!(run.wait().unwrap().success());
    assert_eq!(locks.lock().unwrap().len(), 2);
}
