//! The plan of a job file's text.

use std::path::Path;

use mozart::job::files::{Files, PathKind};
use mozart::job::plan::Plan;
use mozart::job::{self, JobInput};

/// The plan of that job file.
pub(crate) fn plan(text: &str) -> Result<Plan, String> {
    let input = JobInput::of(text.as_bytes(), Path::new("/"));
    let loaded = job::load(&input, &Nothing);
    loaded.plan.ok_or_else(|| format!("{:?}", loaded.problems))
}

/// A disk on which every directory is, and nothing else.
struct Nothing;

impl Files for Nothing {
    fn read(&self, _path: &Path) -> Result<Vec<u8>, String> {
        Err("does not exist".to_owned())
    }

    fn kind(&self, _path: &Path) -> PathKind {
        PathKind::Directory
    }
}
