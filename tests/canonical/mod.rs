//! The canonical jobs with real sessions: each does what [`jobs`] says of it.

pub(crate) mod jobs;

use std::path::Path;

use crate::support::{Alone, Desk, output, said, sheet_states};
use jobs::{CANONICAL, Canonical};

#[test]
fn the_canonical_jobs_do_what_is_said_of_them() {
    std::thread::scope(|scope| {
        for job in &CANONICAL {
            scope.spawn(|| does_what_is_said(job));
        }
    });
}

fn does_what_is_said(job: &Canonical) {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let file = desk.write("job.yaml", &job.text(&job.commands()));
    let done = output(alone.ctl([Path::new("run"), &file]));
    assert_eq!(done.status.success(), job.completes(), "{}", said(&done));
    let status = alone.status(job.name);
    let (made, wanted) = attempts(job, &status);
    assert_eq!(made, wanted, "{status}");
    if job.completes() {
        assert!(
            sheet_states(&status).iter().all(|state| state == "completed"),
            "{status}"
        );
    }
}

/// How many attempts its sheets had, as `status` tells, and how many they are to have.
pub(crate) fn attempts(job: &Canonical, status: &serde_json::Value) -> (Vec<Option<u64>>, Vec<Option<u64>>) {
    let sheets = status["sheets"].as_array().into_iter().flatten();
    let made = sheets.map(|sheet| sheet["attempts"].as_u64()).collect();
    let wanted = job.sheets.iter().map(|ends| Some(ends.len() as u64)).collect();
    (made, wanted)
}
