//! `mozart-helper`: what runs inside each session's unit before and after the session. A program of its own since it
//! starts twice for every session, and a small one starts in half the time.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    mozart::runner::launch::in_unit(&arguments).unwrap_or_else(|| {
        // A closed standard error is no reason to fail otherwise.
        drop(writeln!(
            std::io::stderr(),
            "mozart-helper: sessions are started and ended with this; mozartctl is the program for people"
        ));
        ExitCode::from(2)
    })
}
