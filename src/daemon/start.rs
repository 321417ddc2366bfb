//! What service and embedded conductor have in common: opening the ledger, choosing the launcher, restoring.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc};

use super::conductor::{Conductor, Parts};
use super::environment::Environment;
use super::paths::Paths;
use super::pressure::Host;
use super::settings::{LauncherChoice, Settings};
use super::{clock, journal};
use crate::api::handle::Conductor as Handle;
use crate::ledger::{Ledger, OpenError};
use crate::probe::{self, Point};
use crate::runner::attempt::{Runner, RunnerSettings};
use crate::runner::launch::Launcher;

/// Requests that wait for the conductor; a front end that asks for more waits itself.
const REQUESTS: usize = 64;

/// Changes that a listener may lag behind before it has to look again.
const CHANGES: usize = 1024;

/// Why no conductor could start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be opened; another conductor may hold it.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// Settings that cannot be used: they stay so until a person mends them. One sentence.
    #[error("{0}")]
    Settings(String),
    /// A directory that cannot be made, no launcher: one sentence.
    #[error("{0}")]
    Other(String),
}

/// A conductor that has restored its runs and is not served yet.
pub(super) struct Restored {
    pub(super) conductor: Conductor,
    pub(super) handle: Handle,
    pub(super) settings: Settings,
}

/// Opens everything and restores. `conducts`: takes up live runs; else they are only shown.
pub(super) async fn restore(paths: &Paths, environment: Environment, conducts: bool) -> Result<Restored, StartError> {
    let (settings, warnings) = Settings::load(&paths.settings).map_err(StartError::Settings)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut environment = environment;
    if let Some(file) = &settings.environment_file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| StartError::Settings(format!("environment_file {}: {error}", file.display())))?;
        let added = environment.add_file(&text);
        added.map_err(|error| StartError::Settings(format!("environment_file {}: {error}", file.display())))?;
    }
    private_directory(&paths.state)?;
    private_directory(&paths.runtime)?;
    let mut again = false;
    loop {
        let (ledger, set_aside) = Ledger::open_or_set_aside(&paths.ledger(), clock::now().wall).await?;
        if let Some(set_aside) = &set_aside {
            journal::ledger_set_aside(set_aside);
        }
        probe::pass(Point::Opened);
        let ledger = Arc::new(ledger);
        let restored = restore_from(Arc::clone(&ledger), paths, &settings, environment.clone(), conducts).await;
        if restored.is_ok() || again || ledger.damage().is_none() {
            return restored;
        }
        // What is read at a start is damaged: the next opening sets it aside, and there is nothing in a new one to fail.
        again = true;
    }
}

/// Restores what that ledger holds.
async fn restore_from(
    ledger: Arc<Ledger>,
    paths: &Paths,
    settings: &Settings,
    environment: Environment,
    conducts: bool,
) -> Result<Restored, StartError> {
    let self_exe = std::env::current_exe()
        .map_err(|error| StartError::Other(format!("the path of the running program is not known: {error}")))?;
    let spool_root = paths.spool(&ledger.tag());
    // One that only shows starts nothing, so it need not ask for a user manager.
    let choice = if conducts {
        settings.launcher
    } else {
        LauncherChoice::Supervised
    };
    let launcher = launcher(choice, self_exe.clone(), &spool_root).await?;
    let host = Host {
        pressure: Some(PathBuf::from("/proc/pressure")),
        slice: launcher.slice().await,
    };
    let runner = Runner::new(RunnerSettings {
        launcher,
        spool_root,
        ledger_tag: ledger.tag(),
    });
    let (ask, requests) = mpsc::channel(REQUESTS);
    let (changes, _) = broadcast::channel(CHANGES);
    let handle = Handle::new(ask, changes.clone());
    let conductor = Conductor::restore(Parts {
        paths: paths.clone(),
        settings: settings.clone(),
        environment,
        ledger,
        runner: Arc::new(runner),
        host,
        conducts,
        requests,
        changes,
    });
    let conductor = conductor.await.map_err(StartError::Other)?;
    Ok(Restored {
        conductor,
        handle,
        settings: settings.clone(),
    })
}

/// The launcher that the settings name; `auto`: systemd where a user manager answers.
async fn launcher(choice: LauncherChoice, self_exe: PathBuf, spool_root: &Path) -> Result<Launcher, StartError> {
    if choice != LauncherChoice::Supervised {
        match Launcher::systemd(&self_exe).await {
            Ok(launcher) => return Ok(launcher),
            Err(error) if choice == LauncherChoice::Systemd => {
                return Err(StartError::Other(format!("launcher: systemd, but {error}")));
            }
            Err(error) => tracing::debug!(%error, "no user manager; sessions are supervised"),
        }
    }
    Ok(Launcher::supervised(self_exe, spool_root.to_owned()))
}

/// Makes a directory for this user alone, with its parents.
fn private_directory(path: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError::Other(format!("the directory {} cannot be made: {error}", path.display())))
}
