//! `graph FILE`: the order of a job's sheets as a picture.

use std::io::Write as _;
use std::process::{Command, Stdio};

use mozart::job::graph::{dot, mermaid};

use crate::cli::{GraphArgs, GraphFormat};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::job_file::{JobFile, Overrides};
use crate::output::Out;

/// Prints it to standard output.
pub(crate) fn run(arguments: &GraphArgs, out: &Out) -> Result<ExitCode, CliError> {
    let file = JobFile::read(&arguments.file)?;
    let (plan, _) = file.plan(file.preview(&Overrides::default()), out)?;
    match arguments.format {
        GraphFormat::Mermaid => out.bytes(mermaid(&plan).as_bytes()),
        GraphFormat::Dot => out.bytes(dot(&plan).as_bytes()),
        GraphFormat::Svg => out.bytes(&drawn(&dot(&plan))?),
    }
    Ok(ExitCode::Done)
}

/// The picture that Graphviz draws.
fn drawn(graph: &str) -> Result<Vec<u8>, CliError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            CliError::new(Kind::System, "the program `dot` is not there, which draws the picture")
                .hint("install graphviz, or take `--format mermaid` or `--format dot`")
        }
        _ => CliError::new(Kind::System, format!("`dot` failed: {error}")),
    };
    let mut program = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = program.stdin.take() {
        // It reads all before it draws, so this cannot wait for a reader of ours.
        input.write_all(graph.as_bytes()).map_err(failed)?;
    }
    let drawn = program.wait_with_output().map_err(failed)?;
    if !drawn.status.success() {
        return Err(CliError::new(Kind::System, format!("`dot` failed: {}", drawn.status)));
    }
    Ok(drawn.stdout)
}
