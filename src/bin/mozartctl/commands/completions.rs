//! `completions SHELL`: prints a completion script.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};
use crate::exit_code::ExitCode;
use crate::output::Out;

/// Prints it to standard output.
pub(crate) fn run(arguments: &CompletionsArgs, out: &Out) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "mozartctl", &mut script);
    out.bytes(&script);
    ExitCode::Done
}
