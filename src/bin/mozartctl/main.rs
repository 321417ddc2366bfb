//! `mozartctl`: runs job files and shows what becomes of them.
//!
//! Parses the command line, finds the conductor (`connect`), asks it over the bus and prints the answer. It decides
//! nothing about jobs: that is the conductor's, be it the service, another `mozartctl`'s or its own embedded one.

mod attach;
mod cli;
mod commands;
mod connect;
mod error;
mod exit_code;
mod job_file;
mod json;
mod link;
mod log;
mod narrator;
mod output;
mod signals;
mod systemd;
mod text;
mod typed;

use clap::Parser as _;

use crate::exit_code::ExitCode;
use crate::output::Out;

fn main() -> std::process::ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(code) = mozart::runner::launch::early(&arguments) {
        return code;
    }
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come here too; where even that cannot be printed, the code still tells.
            let _printed = error.print();
            return if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Done
            }
            .into();
        }
    };
    let out = Out::new(&cli.global);
    let code = match commands::run(cli, &out) {
        Ok(code) => code,
        Err(error) => {
            out.error(&error);
            error.kind.exit_code()
        }
    };
    match out.finish() {
        Ok(()) => code,
        Err(error) => {
            out.error(&error);
            error.kind.exit_code()
        }
    }
    .into()
}
