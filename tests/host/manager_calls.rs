//! Every call of the real launcher to the real user manager fails once, amid the canonical jobs: never made, or made and
//! its answer lost. Whichever it is, the run ends as it would have, and nothing runs twice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mozart::probe::{CRASH_AT, Fault, Point};

use super::crashes::switches;
use super::inside;
use crate::canonical::attempts;
use crate::canonical::jobs::{CANONICAL, Canonical};
use crate::support::{Desk, Service, output, said, wait_until};

/// More calls than any of the jobs makes.
const NEVER: u32 = 200;

#[test]
fn whichever_call_fails_the_jobs_end_as_they_would_have() {
    if inside() {
        fail_each(&CANONICAL, None);
    }
}

#[test]
fn whichever_call_fails_after_a_crash_the_jobs_end_as_they_would_have() {
    if inside() {
        fail_each(&CANONICAL[..2], Some(Point::Started));
    }
}

/// Fails each call in turn, of a conductor that came after one that was killed at that point.
#[expect(clippy::print_stderr, reason = "how much was tried is worth knowing")]
fn fail_each(jobs: &[Canonical], killed_at: Option<Point>) {
    let (switches, service) = (switches(), Service::fresh());
    let (mut times, mut wrong) = (0, Vec::new());
    for job in jobs {
        for fault in Fault::ALL {
            let mut failed = 0;
            while run(&service, &switches, job, fault, failed + 1, killed_at, &mut wrong) {
                failed += 1;
                assert!(failed < NEVER, "the calls do not come to an end");
            }
            assert!(failed > 0, "{}: no call was made to fail by {CRASH_AT}", job.name);
            times += failed;
        }
    }
    eprintln!("{times} calls failed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs the job while its `number`th call fails; whether there was one.
fn run(
    service: &Service,
    switches: &Path,
    job: &Canonical,
    fault: Fault,
    number: u32,
    killed_at: Option<Point>,
    wrong: &mut Vec<String>,
) -> bool {
    let switch = switches.join(fault.as_str());
    let desk = Desk::new();
    let file = desk.write("job.yaml", &job.text(&job.commands()));
    if let Some(point) = killed_at {
        fs::write(switches.join(point.as_str()), "1").expect("a switch");
    }
    fs::write(&switch, number.to_string()).expect("a switch");
    let run = output(service.ctl([Path::new("run"), Path::new("--detach"), Path::new("--fresh"), &file]));
    let wait = output(&mut service.ctl(["wait", job.name]));
    let failed = fs::remove_file(&switch).is_err();
    let what = format!("{} with {} {number}", job.name, fault.as_str());
    if !run.status.success() {
        wrong.push(format!("{what}: {}", said(&run)));
        return failed;
    }
    if wait.status.success() != job.completes() {
        wrong.push(format!("{what}: {}", said(&wait)));
    }
    let status = service.status(job.name);
    let (made, wanted) = attempts(job, &status);
    if made != wanted {
        wrong.push(format!("{what}: {made:?} attempts instead of {wanted:?}\n{status}"));
    }
    let (starts, sessions) = (
        desk.lines(&format!("{}/starts", job.name)).len(),
        job.sheets.iter().map(|ends| ends.len()).sum::<usize>(),
    );
    if starts != sessions {
        wrong.push(format!("{what}: {starts} sessions ran instead of {sessions}"));
    }
    wait_until("no session unit is left", Duration::from_secs(20), || {
        service.units().is_empty()
    });
    failed
}
