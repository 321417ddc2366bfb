//! Ctrl+C on a front end that is attached to the service.

use std::process::Stdio;
use std::time::Duration;

use super::inside;
use crate::interrupts::{SCRIPT, signal};
use crate::support::{Desk, Service, WROTE_ITS_FILE, output, said, wait_until};

#[test]
fn ctrl_c_attached_to_the_service_only_detaches() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let job = desk.job("held", 4, SCRIPT, WROTE_ITS_FILE);
    let mut child = service
        .ctl(["run"])
        .arg(&job)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mozartctl");
    wait_until("it runs", Duration::from_secs(10), || !desk.starts().is_empty());
    signal(&child, "INT");
    assert_eq!(child.wait().expect("wait").code(), Some(130));
    let wait = output(service.ctl(["wait", "held"]));
    assert!(wait.status.success(), "{}", said(&wait));
    assert!(desk.starts().len() == 4 && desk.starts().values().all(|count| *count == 1));
}
