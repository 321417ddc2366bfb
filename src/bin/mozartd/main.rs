//! The service. Nothing but its hidden early paths is wired up yet.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    mozart::runner::launch::early(&args).unwrap_or(ExitCode::SUCCESS)
}
