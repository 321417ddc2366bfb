//! The only place that reads the clocks, and the timers for long waits.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::model::{Now, Timestamp};

/// Both clocks, now.
pub fn now() -> Now {
    let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    let boot = clock_gettime(ClockId::Boottime);
    let now = Now {
        wall: Timestamp(wall),
        boot: boot
            .tv_sec
            .saturating_mul(1_000_000)
            .saturating_add(boot.tv_nsec / 1000),
    };
    #[cfg(test)]
    let now = test::ahead(now);
    now
}

/// Time that passes as a test says.
#[cfg(test)]
pub(super) mod test {
    use std::cell::Cell;

    use crate::model::{Now, Timestamp};

    thread_local! {
        /// Of this test's thread: how far its clocks are ahead.
        static AHEAD: Cell<i64> = const { Cell::new(0) };
        /// Where they stand, if they do not run.
        static STANDS: Cell<Option<Now>> = const { Cell::new(None) };
    }

    pub(super) fn ahead(now: Now) -> Now {
        if let Some(now) = STANDS.get() {
            return now;
        }
        let ahead = AHEAD.get();
        Now {
            wall: Timestamp(now.wall.0 + ahead),
            boot: now.boot + ahead,
        }
    }

    /// From now on the clocks show that, or the real time again.
    pub(crate) fn stand_at(now: Option<Now>) {
        STANDS.set(now);
    }

    /// It is that moment now, unless it is later already.
    pub(crate) fn forward_to(at: Timestamp) {
        let missing = at.0 - super::now().wall.0;
        AHEAD.set(AHEAD.get() + missing.max(0));
    }
}

/// A timer of the kernel's. tokio's own wakes the process up to three times for one long wait, since its wheel
/// moves a timer to a finer slot each time the coarser one comes round; this one wakes it once.
#[derive(Debug)]
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer that is not set.
    fn new(clock: TimerfdClockId) -> io::Result<Self> {
        let fd = timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd stays the same open file, which is all that `register` asks"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Rings once, at or after `it_value` as the flags say; a value of zero disarms it.
    fn set(&self, flags: TimerfdTimerFlags, it_value: Timespec) -> io::Result<()> {
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(self.0.get_ref(), flags, &Itimerspec { it_interval, it_value })?;
        Ok(())
    }

    /// Waits until it rings; then it is no longer set.
    async fn rings(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable().await?;
            let mut expirations = [0_u8; 8];
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expirations)?)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => {
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// Waits for `time`, and wakes up once, at its end. For long waits; where the kernel has no timer left, tokio's does.
pub(super) async fn sleep(time: Duration) {
    if kernel_sleep(time).await.is_err() {
        tokio::time::sleep(time).await;
    }
}

async fn kernel_sleep(time: Duration) -> io::Result<()> {
    let timer = Timer::new(TimerfdClockId::Monotonic)?;
    let time = time.max(Duration::from_nanos(1));
    timer.set(
        TimerfdTimerFlags::empty(),
        time.try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
    )?;
    timer.rings().await
}

/// A timer at a moment of wall time. It also rings when the wall clock is set, because every moment that
/// was waited for may be past then (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
#[derive(Debug)]
pub(super) struct Alarm {
    timer: Timer,
    at: Option<Timestamp>,
}

impl Alarm {
    /// A timer that is not set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            timer: Timer::new(TimerfdClockId::Realtime)?,
            at: None,
        })
    }

    /// Rings at `at` from now on, or never. Setting the same moment again costs nothing.
    pub(super) fn set(&mut self, at: Option<Timestamp>) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        // Zero would disarm the timer, so a moment at or before the epoch becomes one nanosecond after it.
        let it_value = match at {
            None => Timespec { tv_sec: 0, tv_nsec: 0 },
            Some(Timestamp(micros)) if micros <= 0 => Timespec { tv_sec: 0, tv_nsec: 1 },
            Some(Timestamp(micros)) => Timespec {
                tv_sec: micros / 1_000_000,
                tv_nsec: (micros % 1_000_000) * 1000 + 1,
            },
        };
        self.timer
            .set(TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, it_value)?;
        self.at = at;
        Ok(())
    }

    /// Waits until it rings; then it is no longer set.
    pub(super) async fn rings(&mut self) -> io::Result<()> {
        self.timer.rings().await?;
        self.at = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    #[tokio::test]
    async fn the_alarm_rings_at_its_time_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        let start = now().wall;
        let due = start.plus(Span::from_secs_f64(0.03));
        alarm.set(Some(due)).unwrap();
        alarm.rings().await.unwrap();
        assert!(now().wall >= due);
        alarm.set(Some(Timestamp(0))).unwrap();
        alarm.rings().await.unwrap();
    }

    #[tokio::test]
    async fn a_sleep_takes_its_time() {
        let start = std::time::Instant::now();
        sleep(Duration::from_millis(30)).await;
        assert!(start.elapsed() >= Duration::from_millis(30));
        sleep(Duration::ZERO).await;
    }
}
