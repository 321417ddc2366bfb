//! `start`, `stop`, `restart`, `conductor-status`: the conductor itself, most often as `mozart.service`.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use crate::cli::{Global, StartArgs, StopArgs};
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::json::ConductorState;
use crate::link::Link;
use crate::output::Out;
use crate::systemd::{Act, UNIT};

/// A conductor that stops its sessions first may need their whole grace.
const STOPS_WITHIN: Duration = Duration::from_secs(120);

/// Starts the service.
pub(crate) async fn start(finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let Some((manager, service)) = finder.systemd().await? else {
        return Err(not_installed());
    };
    let already = service.is_active();
    if !already {
        manager.act(UNIT, Act::Start).await?;
    }
    tell(finder, if already { "runs already" } else { "started" }, out).await
}

/// Restarts the service; its sessions are units of their own and go on.
pub(crate) async fn restart(finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let Some((manager, _)) = finder.systemd().await? else {
        return Err(not_installed());
    };
    manager.act(UNIT, Act::Restart).await?;
    tell(finder, "restarted; sessions that were running go on", out).await
}

/// Becomes `mozartd`, which lies beside this program.
pub(crate) fn foreground(arguments: &StartArgs, global: &Global) -> Result<ExitCode, CliError> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("mozartd"));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| "mozartd".into());
    let mut command = std::process::Command::new(&program);
    if let Some(level) = arguments.level.or(global.log_level) {
        command.args(["--log-level", level.word()]);
    }
    let error = command.exec();
    Err(CliError::new(
        Kind::NoConductor,
        format!("{} cannot be started: {error}", program.display()),
    ))
}

/// Stops the conductor, whoever it is.
pub(crate) async fn stop(arguments: &StopArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let service = finder.systemd().await?.filter(|(_, service)| service.is_running());
    if arguments.force {
        let Some((manager, _)) = service else {
            return Err(CliError::new(
                Kind::NoConductor,
                format!("{UNIT} does not run, so there is nothing to kill"),
            ));
        };
        manager.kill().await?;
        // It would be restarted otherwise: it did not end well.
        manager.act(UNIT, Act::Stop).await?;
        return stopped("killed; sessions that were running go on", out);
    }
    // Its sessions are the conductor's to stop. Everything else systemd does as well, and tells when it is done.
    if arguments.stop_sessions || service.is_none() {
        let Some(link) = finder.find(Need::Existing).await? else {
            return stopped("not running", out);
        };
        link.stop(arguments.stop_sessions).await?;
        if service.is_none() {
            return gone(&link, out).await;
        }
    }
    if let Some((manager, _)) = service {
        manager.act(UNIT, Act::Stop).await?;
    }
    stopped(
        if arguments.stop_sessions {
            "stopped, with its sessions"
        } else {
            "stopped; sessions that were running go on"
        },
        out,
    )
}

/// Says whether one runs; starts none.
pub(crate) async fn status(finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    let Some(link) = finder.find(Need::Existing).await? else {
        if out.json {
            out.document(&ConductorState::default());
        } else {
            out.line("not running");
            out.note("the service is started when it is needed, or by `mozartctl start`");
        }
        return Ok(ExitCode::Held);
    };
    let state = ask(&link).await?;
    if out.json {
        out.document(&state);
    } else {
        describe(&state, out);
    }
    Ok(ExitCode::Done)
}

async fn ask(link: &Link) -> Result<ConductorState, CliError> {
    let (version, pid) = link.identity().await?;
    let view = link.manager().await?;
    Ok(ConductorState {
        running: true,
        kind: Some(if matches!(link, Link::Service(_)) {
            "service"
        } else {
            "private"
        }),
        version: Some(version),
        pid,
        slots: Some(view.slots),
        runs_running: Some(view.running),
        runs_queued: Some(view.queued),
        runs_waiting: Some(view.waiting),
        questions: Some(view.questions),
        storage: Some(view.storage),
    })
}

fn describe(state: &ConductorState, out: &Out) {
    let pid = state.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let place = if state.kind == Some("service") {
        "as a service"
    } else {
        "on the private socket"
    };
    out.line(&format!(
        "running {place}: Mozart {}{pid}",
        state.version.as_deref().unwrap_or("(version unknown)")
    ));
    out.line(&format!(
        "runs: {} running (of at most {}), {} queued, {} waiting",
        state.runs_running.unwrap_or_default(),
        state.slots.unwrap_or_default(),
        state.runs_queued.unwrap_or_default(),
        state.runs_waiting.unwrap_or_default()
    ));
    if let Some(open) = state.questions.filter(|open| *open > 0) {
        out.line(&format!(
            "questions: {open} open; `mozartctl answer` shows what to type"
        ));
    }
    if let Some(trouble) = state.storage.as_deref().filter(|text| !text.is_empty()) {
        out.line(&format!("storage: {}", crate::text::clean(trouble)));
    }
}

async fn tell(finder: &Finder<'_>, done: &str, out: &Out) -> Result<ExitCode, CliError> {
    if out.json {
        let link = finder.find(Need::Existing).await?;
        let state = match &link {
            Some(link) => ask(link).await?,
            None => ConductorState::default(),
        };
        out.document(&state);
    } else {
        out.line(&format!("{UNIT}: {done}"));
    }
    Ok(ExitCode::Done)
}

/// Waits until a conductor outside systemd has gone.
async fn gone(link: &Link, out: &Out) -> Result<ExitCode, CliError> {
    let deadline = tokio::time::Instant::now() + STOPS_WITHIN;
    while tokio::time::Instant::now() < deadline {
        if link.manager().await.is_err() {
            return stopped("stopped", out);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(CliError::new(
        Kind::Refused,
        format!("the conductor still runs after {} s", STOPS_WITHIN.as_secs()),
    ))
}

fn stopped(how: &str, out: &Out) -> Result<ExitCode, CliError> {
    if out.json {
        out.document(&ConductorState::default());
    } else {
        out.line(&format!("conductor: {how}"));
    }
    Ok(ExitCode::Done)
}

fn not_installed() -> CliError {
    CliError::new(Kind::NoConductor, format!("{UNIT} is not installed for this user"))
        .hint("`packaging/install --user` installs it; `mozartctl run FILE` works without it, `mozartctl start --foreground` too")
}
