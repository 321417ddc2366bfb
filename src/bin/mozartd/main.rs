//! `mozartd`: the conductor as a user service. systemd starts it by `mozart.service`, by `mozart.socket` or by
//! D-Bus activation; a person may start it in a terminal to watch it.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mozart::daemon::StartError;

/// The conductor of Mozart, as a user service
#[derive(Debug, Parser)]
#[command(name = "mozartd", version, about)]
struct Arguments {
    /// How much is logged: error, warn, info, debug, trace
    #[arg(short = 'L', long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = mozart::runner::launch::early(&arguments) {
        return code;
    }
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed standard output is no reason to fail.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "mozartd: {error}"));
            match error {
                StartError::Settings(_) => ExitCode::from(EX_CONFIG),
                StartError::Ledger(_) | StartError::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Settings that cannot be used (`sysexits.h`): `mozart.service` is not started again before they are mended.
const EX_CONFIG: u8 = 78;

fn run(arguments: &Arguments) -> Result<(), StartError> {
    mozart::daemon::logging::start(&arguments.log_level, "mozartd").map_err(StartError::Other)?;
    // The sockets are taken before any thread runs: taking them clears variables of the environment.
    let listener = listenfd::ListenFd::from_env()
        .take_unix_listener(0)
        .map_err(|error| StartError::Other(format!("what systemd handed over is no listening socket: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Other(format!("the runtime cannot start: {error}")))?;
    runtime.block_on(mozart::daemon::service::run(listener))
}
