//! `schema`: prints the JSON Schema of job files, for editors.

use crate::exit_code::ExitCode;
use crate::output::Out;

/// Prints it to standard output.
pub(crate) fn run(out: &Out) -> ExitCode {
    out.document(&mozart::job::json_schema());
    ExitCode::Done
}
