//! A unit as its signals tell of it: most sessions start and end without a question to the manager.
//!
//! With each change the manager sends all those properties of a unit that ever change, first the service's, then the
//! unit's, and both before the signal that a job of it is over (`sd_bus_emit_properties_changed(3)`, and
//! `bus_unit_send_change_signal` of systemd). What is not told like that is asked for.

use std::collections::BTreeMap;

use zbus::Message;
use zbus::wire::{OwnedVariant, Variant};

use super::super::spool::Spool;
use super::LaunchError;
use super::link::{SERVICE, UNIT};
use super::listener::{Ear, Heard};
use crate::model::{Certificate, Exit, Span, Timestamp};

/// `ExecMainCode` of a process that is over (`waitid(2)`).
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;

/// What the manager says of a unit's main process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Empty where it was never started.
    pub(super) invocation: Vec<u8>,
    /// 0 where there was none.
    pub(super) pid: u32,
    pub(super) result: String,
    pub(super) code: i32,
    pub(super) status: i32,
    /// Microseconds since 1970; 0 where that has not happened.
    pub(super) started: u64,
    pub(super) exited: u64,
}

impl Process {
    /// In hexadecimal, as systemctl shows it.
    pub(super) fn invocation(&self) -> Option<String> {
        let id: String = self.invocation.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(id).filter(|id| !id.is_empty())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        Some(self.pid).filter(|pid| *pid != 0)
    }

    pub(super) fn started(&self) -> Option<Timestamp> {
        timestamp(self.started)
    }

    /// How it ended. The record adds what the unit does not know; `cpu` counts where it does not tell.
    pub(super) fn certificate(self, cpu: Option<Span>, spool: &Spool) -> Certificate {
        let record = spool.record();
        let recorded = record.as_ref().and_then(|record| record.cpu_us).map(Span);
        Certificate {
            exit: match self.code {
                CLD_EXITED => Exit::Code(self.status),
                CLD_KILLED | CLD_DUMPED => Exit::Signal(self.status),
                _ => Exit::Unknown,
            },
            wall: self
                .started()
                .zip(timestamp(self.exited))
                .map(|(from, to)| to.since(from)),
            result: self.result,
            cpu: recorded.or(cpu),
            peak_memory: record.and_then(|record| record.peak_memory),
            stopped_by_us: spool.stop_was_asked(),
        }
    }
}

/// Where a unit stands, as far as its signals tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is to be asked.
    #[default]
    Unknown,
    /// It runs, or is about to start or to end.
    Running,
    /// It has run and is over.
    Over,
}

/// What a unit's signals told of it last.
#[derive(Debug, Default)]
struct Told {
    standing: Standing,
    process: Process,
    /// The service's last signal, not read yet: of most nothing is ever asked.
    unread: Option<Message>,
}

type Changed<'a> = (&'a str, BTreeMap<&'a str, Variant<'a>>, Vec<&'a str>);

impl Told {
    fn change(&mut self, message: Message) {
        let body = message.body();
        // The interface comes first.
        match body.deserialize_ignore_signature::<&str>() {
            Ok(SERVICE) => self.unread = Some(message),
            Ok(UNIT) => match body.deserialize::<Changed<'_>>() {
                Ok((_, changed, _)) => self.unit(&changed),
                Err(_) => self.standing = Standing::Unknown,
            },
            Ok(_) => {}
            Err(_) => self.standing = Standing::Unknown,
        }
    }

    /// The main process, as it was told of last.
    fn process(&mut self) -> &Process {
        if let Some(message) = self.unread.take() {
            match message.body().deserialize::<Changed<'_>>() {
                Ok((_, changed, _)) => self.service(&changed),
                Err(_) => self.standing = Standing::Unknown,
            }
        }
        &self.process
    }

    fn service(&mut self, changed: &BTreeMap<&str, Variant<'_>>) {
        let process = &mut self.process;
        take(changed, "ExecMainPID", &mut process.pid);
        take(changed, "Result", &mut process.result);
        take(changed, "ExecMainCode", &mut process.code);
        take(changed, "ExecMainStatus", &mut process.status);
        take(changed, "ExecMainStartTimestamp", &mut process.started);
        take(changed, "ExecMainExitTimestamp", &mut process.exited);
    }

    fn unit(&mut self, changed: &BTreeMap<&str, Variant<'_>>) {
        take(changed, "InvocationID", &mut self.process.invocation);
        let (mut active, mut job) = (String::new(), (0_u32, zbus::wire::OwnedObjectPath::default()));
        let told = take(changed, "ActiveState", &mut active) && take(changed, "Job", &mut job);
        self.standing = match active.as_str() {
            _ if !told => Standing::Unknown,
            "inactive" | "failed" if job.0 == 0 && self.process.invocation.is_empty() => Standing::Unknown,
            "inactive" | "failed" if job.0 == 0 => Standing::Over,
            _ => Standing::Running,
        };
    }
}

/// Sets `value` to what a property became; whether it was told.
fn take<T: TryFrom<OwnedVariant>>(changed: &BTreeMap<&str, Variant<'_>>, name: &str, value: &mut T) -> bool {
    let new = changed.get(name).and_then(|new| OwnedVariant::try_from(new).ok());
    match new.and_then(|new| T::try_from(new).ok()) {
        Some(new) => {
            *value = new;
            true
        }
        None => false,
    }
}

fn timestamp(micros: u64) -> Option<Timestamp> {
    i64::try_from(micros).ok().filter(|micros| *micros > 0).map(Timestamp)
}

/// A unit's signals, and what they told.
#[derive(Debug)]
pub(super) struct Watching {
    ear: Ear,
    told: Told,
    /// The object path of its job that was over last, and how that ended.
    job_over: Option<(String, String)>,
}

impl Watching {
    pub(super) fn new(ear: Ear) -> Self {
        Self {
            ear,
            told: Told::default(),
            job_over: None,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.told.standing
    }

    /// It was asked, or is to be.
    pub(super) fn stands(&mut self, standing: Standing) {
        self.told.standing = standing;
    }

    /// The main process of a unit that was started; `None` where that was not told.
    pub(super) fn process(&mut self) -> Option<Process> {
        let process = self.told.process().clone();
        let known = self.standing() != Standing::Unknown && !process.invocation.is_empty() && process.pid != 0;
        known.then_some(process)
    }

    /// How a unit ended that is over; `None` where not all of it was told.
    pub(super) fn certificate(&mut self, spool: &Spool) -> Option<Certificate> {
        let process = self.process().filter(|process| process.exited != 0)?;
        let certificate = process.certificate(None, spool);
        let whole = self.standing() == Standing::Over && certificate.exit != Exit::Unknown && certificate.cpu.is_some();
        whole.then_some(certificate)
    }

    /// Waits for the end of a job of the unit, and tells how it ended; what was told before is taken in.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub(super) async fn result_of(&mut self, job: &str) -> Result<String, LaunchError> {
        loop {
            match self.job_over.take() {
                Some((path, result)) if path == job => return Ok(result),
                _ => self.next().await?,
            }
        }
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// The connection or the manager behind it is lost.
    pub(super) async fn next(&mut self) -> Result<(), LaunchError> {
        match self.ear.next().await {
            Some(Heard::Changed(message)) => self.told.change(message),
            Some(Heard::JobOver(path, result)) => self.job_over = Some((path, result)),
            Some(Heard::Anew) => self.stands(Standing::Unknown),
            None => return Err(LaunchError::Bus("the connection is closed".to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit<'a>(active: &'a str, job: u32, invocation: &[u8]) -> BTreeMap<&'static str, Variant<'a>> {
        let path = zbus::wire::ObjectPath::try_from("/").unwrap();
        BTreeMap::from([
            ("ActiveState", Variant::from(active)),
            ("Job", Variant::new((job, path))),
            ("InvocationID", Variant::new(invocation.to_vec())),
        ])
    }

    fn service(code: i32, exited: u64) -> BTreeMap<&'static str, Variant<'static>> {
        BTreeMap::from([
            ("ExecMainPID", Variant::from(7_u32)),
            ("ExecMainCode", Variant::from(code)),
            ("ExecMainStatus", Variant::from(3_i32)),
            ("ExecMainStartTimestamp", Variant::from(1_000_000_u64)),
            ("ExecMainExitTimestamp", Variant::from(exited)),
            ("Result", Variant::from("exit-code")),
        ])
    }

    #[test]
    fn a_unit_is_over_when_it_has_run_and_nothing_is_to_come() {
        let mut told = Told::default();
        assert_eq!(told.standing, Standing::Unknown);
        for (active, job, invocation, standing) in [
            ("inactive", 5, &[][..], Standing::Running),
            ("inactive", 0, &[], Standing::Unknown),
            ("activating", 5, &[1], Standing::Running),
            ("active", 0, &[1], Standing::Running),
            ("deactivating", 0, &[1], Standing::Running),
            ("failed", 6, &[1], Standing::Running),
            ("failed", 0, &[1], Standing::Over),
            ("inactive", 0, &[1], Standing::Over),
        ] {
            told.unit(&unit(active, job, invocation));
            assert_eq!(told.standing, standing, "{active} {job} {invocation:?}");
        }
        let mut without_job = unit("inactive", 0, &[1]);
        without_job.remove("Job");
        told.unit(&without_job);
        assert_eq!(told.standing, Standing::Unknown);
    }

    #[test]
    fn what_the_service_tells_is_its_certificate() {
        let spool = Spool::new("/nonexistent");
        let mut told = Told::default();
        told.service(&service(0, 0));
        told.unit(&unit("active", 0, &[0xab, 1]));
        assert_eq!(told.process.invocation().as_deref(), Some("ab01"));
        assert_eq!(told.process.pid(), Some(7));
        assert_eq!(told.process.started(), Some(Timestamp(1_000_000)));
        assert_eq!(told.process.clone().certificate(None, &spool).exit, Exit::Unknown);
        told.service(&service(CLD_EXITED, 3_000_000));
        let certificate = told.process.clone().certificate(Some(Span(9)), &spool);
        assert_eq!(certificate.exit, Exit::Code(3));
        assert_eq!(certificate.result, "exit-code");
        assert_eq!(certificate.wall, Some(Span(2_000_000)));
        assert_eq!(certificate.cpu, Some(Span(9)));
        told.service(&service(CLD_KILLED, 3_000_000));
        assert_eq!(told.process.certificate(None, &spool).exit, Exit::Signal(3));
    }
}
