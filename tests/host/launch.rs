//! The launchers' tests that need a user manager stand beside those that do not; here they all run in one machine.

use std::process::Command;

use super::inside;

#[test]
fn sessions_run_as_units() {
    if !inside() {
        return;
    }
    let status = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["launch::systemd", "attempt::systemd"])
        .status()
        .expect("this program runs");
    assert!(status.success(), "{status}");
}
