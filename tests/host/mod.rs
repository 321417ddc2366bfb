//! Tests that need a real systemd, each run by `tests/host/suite` in a machine of its own, as the user `tester`.

mod audit;
mod buses;
mod chaos;
mod crashes;
mod install;
mod interrupts;
mod machine;
mod manager_calls;
mod night;
mod recovery;
mod refusal;
mod service;
mod storage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Whether this is a test machine, where a test may install units and fill the home directory. Every test here
/// asks first, so that `cargo test` leaves the session of the person who calls it alone.
#[expect(clippy::print_stdout, reason = "a test tells whoever reads its output")]
pub(crate) fn inside() -> bool {
    let inside = std::env::var_os("MOZART_TEST_HOST").is_some();
    if !inside {
        println!("not in a test machine: nothing was tested; run tests/host/suite");
    }
    inside
}

/// The checkout.
pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this build's programs are.
pub(crate) fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_mozartctl"))
        .parent()
        .expect("a program lies in a directory")
}

/// A path below the home directory of the machine's user.
pub(crate) fn home(path: &str) -> PathBuf {
    Path::new("/home/tester").join(path)
}

/// Runs a shell command and returns what it said, whatever its exit status.
pub(crate) fn shell(command: &str) -> Output {
    Command::new("/bin/bash")
        .args(["-c", command])
        .current_dir("/home/tester")
        .output()
        .expect("bash is there")
}

/// Standard output of a shell command that must succeed, without white space around it.
#[track_caller]
pub(crate) fn said(command: &str) -> String {
    let output = shell(command);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

/// Installs this build for the machine's user, with `packaging/install --user --from`.
#[track_caller]
pub(crate) fn install() -> String {
    said(&format!(
        "{}/packaging/install --user --from {}",
        checkout().display(),
        programs().display()
    ))
}
