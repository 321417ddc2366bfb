//! `man`: prints mozart.yaml(5), which `packaging/install` puts where man(1) finds it.

use crate::exit_code::ExitCode;
use crate::output::Out;

/// Prints it to standard output, in roff.
pub(crate) fn run(out: &Out) -> ExitCode {
    out.bytes(mozart::job::manual().as_bytes());
    ExitCode::Done
}
