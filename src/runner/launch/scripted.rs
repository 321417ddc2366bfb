//! A launcher for tests: it runs each command to its end while it starts it, leaves what the real ones leave, and fails
//! at the call where a test says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Record;
use super::spool::{Spool, Started};
use super::{Evidence, Launch, LaunchError, StartOutcome, exec, left_behind, lost};
use crate::model::{Certificate, StopHow};

/// What a launcher is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To start a session.
    Start,
    /// What became of one.
    Evidence,
    /// To end one.
    Stop,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    /// It is refused, and nothing was done.
    Refused,
    /// Nobody knows whether it was done, and it was not.
    Lost,
    /// Nobody knows whether it was done, and it was.
    AnswerLost,
}

/// Runs sessions as plain processes.
#[derive(Debug, Default)]
pub struct Scripted(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    failing: Option<(usize, Fails)>,
    /// How often each unit's command has run.
    ran: BTreeMap<String, u32>,
    /// The command of this start is not run: it lives until it is stopped.
    idle: Option<usize>,
    living: Option<String>,
}

impl Scripted {
    /// The same machine, as another conductor sees it.
    pub fn another(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// That call fails, counted from 0.
    pub fn fail(&self, failing: Option<(usize, Fails)>) {
        self.state().failing = failing;
    }

    /// The first command waits to be stopped.
    pub fn idle_first(&self) {
        self.state().idle = Some(0);
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How often each unit's command has run.
    pub fn ran(&self) -> BTreeMap<String, u32> {
        self.state().ran.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self, call: Call) -> Option<Fails> {
        let mut state = self.state();
        let number = state.calls.len();
        state.calls.push(call);
        state
            .failing
            .filter(|(failing, _)| *failing == number)
            .map(|(_, fails)| fails)
    }

    pub(super) fn start(&self, launch: &Launch) -> StartOutcome {
        let fails = self.called(Call::Start);
        match fails {
            Some(Fails::Refused) => return StartOutcome::failed("the start was refused".to_owned()),
            Some(Fails::Lost) => return StartOutcome::Unknown,
            Some(Fails::AnswerLost) | None => {}
        }
        let idle = {
            let mut state = self.state();
            *state.ran.entry(launch.unit.clone()).or_default() += 1;
            let idle = state.idle.take().is_some();
            if idle {
                state.living = Some(launch.unit.clone());
            }
            idle
        };
        let spool = Spool::new(&launch.spool);
        if let Err(error) = run(launch, &spool, idle) {
            return StartOutcome::unwritable(&spool, &error);
        }
        match fails {
            None => StartOutcome::Started {
                at: exec::now(),
                invocation: None,
                pid: None,
            },
            Some(_) => StartOutcome::Unknown,
        }
    }

    pub(super) fn evidence(&self, unit: &str, spool: &Spool) -> Result<Evidence, LaunchError> {
        match self.called(Call::Evidence) {
            Some(_) => Err(LaunchError::Bus("the connection is gone".to_owned())),
            None if self.lives(unit) => Ok(Evidence::Running {
                invocation: None,
                pid: None,
                started_at: None,
            }),
            None => Ok(left_behind(spool)),
        }
    }

    pub(super) async fn wait(&self, unit: &str, spool: &Spool) -> Certificate {
        while self.lives(unit) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        match left_behind(spool) {
            Evidence::Ended(certificate) => certificate,
            Evidence::Running { .. } | Evidence::EndedUnknown | Evidence::NeverRan => lost(spool),
        }
    }

    pub(super) fn stop(&self, unit: &str, spool: &Spool, _how: StopHow) -> Result<(), LaunchError> {
        let fails = self.called(Call::Stop);
        if !matches!(fails, Some(Fails::Refused | Fails::Lost)) && self.lives(unit) {
            record(spool, "signal", "killed", "TERM").map_err(|error| LaunchError::Spool(spool.stdout(), error))?;
            self.state().living = None;
        }
        match fails {
            Some(_) => Err(LaunchError::Bus("the connection is gone".to_owned())),
            None => Ok(()),
        }
    }

    fn lives(&self, unit: &str) -> bool {
        self.state().living.as_deref() == Some(unit)
    }
}

fn run(launch: &Launch, spool: &Spool, idle: bool) -> io::Result<()> {
    launch.write_order(spool, Started::Supervised, "")?;
    let stdout = File::create(spool.stdout())?;
    if idle {
        return Ok(());
    }
    let program = launch.argv.first().map_or("", String::as_str);
    let status = Command::new(program)
        .args(launch.argv.iter().skip(1))
        .current_dir(&launch.cwd)
        .env_clear()
        .envs(&launch.env)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(File::create(spool.stderr())?)
        .status()?;
    let code = status.code().unwrap_or(-1);
    let result = if code == 0 { "success" } else { "exit-code" };
    record(spool, result, "exited", &code.to_string())
}

fn record(spool: &Spool, result: &str, code: &str, status: &str) -> io::Result<()> {
    let record = Record {
        v: 1,
        result: result.to_owned(),
        code: code.to_owned(),
        status: status.to_owned(),
        cpu_us: None,
        peak_memory: None,
        at: exec::now(),
    };
    record.append(&mut File::options().append(true).open(spool.stdout())?)
}
