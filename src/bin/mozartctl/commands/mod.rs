//! One file a verb. Verbs that need a conductor run on one thread of tokio, made only for them.

pub(crate) mod answer;
mod cancel;
mod completions;
mod conductor;
mod costs;
mod explain;
mod graph;
mod limits;
mod list;
mod logs;
mod man;
mod modify;
mod new;
mod pause;
mod recover;
mod resume;
mod run;
mod schema;
mod status;
mod validate;
mod wait;

use std::future::Future;

use crate::cli::{Cli, Verb};
use crate::connect::Finder;
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::output::Out;

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli, out: &Out) -> Result<ExitCode, CliError> {
    let finder = Finder::new(&cli.global, out);
    match cli.verb {
        Verb::Validate(arguments) => validate::run(&arguments, out),
        Verb::Schema => Ok(schema::run(out)),
        Verb::Explain(arguments) => explain::run(&arguments, out),
        Verb::New(arguments) => new::run(&arguments, out),
        Verb::Graph(arguments) => graph::run(&arguments, out),
        Verb::Man => Ok(man::run(out)),
        Verb::Completions(arguments) => Ok(completions::run(&arguments, out)),
        Verb::Run(arguments) => run::run(&arguments, &finder, out),
        Verb::Status(arguments) => drive(status::run(&arguments, &finder, out)),
        Verb::List(arguments) => drive(list::run(&arguments, &finder, out)),
        Verb::Resume(arguments) => drive(resume::run(&arguments, &finder, out)),
        Verb::Retry(arguments) => drive(resume::again(&arguments, &finder, out)),
        Verb::Modify(arguments) => drive(modify::run(&arguments, &finder, out)),
        Verb::Recover(arguments) => drive(recover::run(&arguments, &finder, out)),
        Verb::Pause(arguments) => drive(pause::run(&arguments, &finder, out)),
        Verb::Cancel(arguments) => drive(cancel::run(&arguments, &finder, out)),
        Verb::Logs(arguments) => drive(logs::run(&arguments, &finder, out)),
        Verb::Wait(arguments) => drive(wait::run(&arguments, &finder, out)),
        Verb::Answer(arguments) => drive(answer::run(&arguments, &finder, out)),
        Verb::Costs(arguments) => drive(costs::run(&arguments, &finder, out)),
        Verb::RateLimits => drive(limits::show(&finder, out)),
        Verb::ClearRateLimits(arguments) => drive(limits::clear(&arguments, &finder, out)),
        Verb::Start(arguments) if arguments.foreground => conductor::foreground(&arguments, &cli.global),
        Verb::Start(_) => drive(conductor::start(&finder, out)),
        Verb::Stop(arguments) => drive(conductor::stop(&arguments, &finder, out)),
        Verb::Restart => drive(conductor::restart(&finder, out)),
        Verb::ConductorStatus => drive(conductor::status(&finder, out)),
    }
}

/// Runs a verb to its end.
pub(crate) fn drive(verb: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Kind::System, format!("the runtime cannot be started: {error}")))?
        .block_on(verb)
}
