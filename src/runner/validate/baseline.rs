//! What the files of `file_modified` rules were before a sheet's first attempt.
//!
//! Taken once and kept beside the sheet's spools, so that it also holds after a restart and for every retry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::file::MAX_BYTES;
use crate::job::plan::Check;
use crate::job::rules::SheetRule;
use crate::model::Timestamp;
use crate::runner::launch::{now, spool};

/// The files as they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Version of this shape.
    v: u16,
    /// When it was taken.
    taken_at: Timestamp,
    /// By absolute path; none where there was no file.
    files: BTreeMap<String, Option<Stamp>>,
}

/// One file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Modification time in nanoseconds since the epoch.
    modified_ns: i128,
    bytes: u64,
    /// SHA-256 in hexadecimal; none for a file too large to be read.
    sha256: Option<String>,
}

impl Baseline {
    /// The baseline in `file`, made of what `rules` name where there is none yet.
    ///
    /// # Errors
    /// What the file system says of `file`. A file of a rule that cannot be read counts as it looks from outside.
    pub fn ensure(file: &Path, rules: &[SheetRule]) -> io::Result<Self> {
        if let Some(kept) = Self::read(file)? {
            return Ok(kept);
        }
        let baseline = Self::take(rules);
        if baseline.files.is_empty() {
            return Ok(baseline);
        }
        spool::keep(file, &baseline)?;
        Ok(baseline)
    }

    /// The baseline in `file`; none where nothing was kept there.
    ///
    /// # Errors
    /// What the file system says of `file`.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        match fs::read(file) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(in crate::runner) fn take(rules: &[SheetRule]) -> Self {
        let paths = rules.iter().filter_map(|rule| match &rule.check {
            Check::FileModified { path } => Some(path.clone()),
            _ => None,
        });
        let files = paths.map(|path| (path.clone(), Stamp::of(Path::new(&path)))).collect();
        Self {
            v: 1,
            taken_at: now(),
            files,
        }
    }

    /// Whether the file differs from what it was. `current`: as it is now.
    pub(super) fn is_changed(&self, path: &str, current: &Stamp) -> bool {
        match self.files.get(path) {
            Some(Some(before)) => before.differs(current),
            Some(None) => true,
            // A rule that the plan did not have then.
            None => current.modified_ns > i128::from(self.taken_at.0) * 1000,
        }
    }
}

impl Stamp {
    /// The regular file as it is now; none where there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let sha256 = (metadata.len() <= MAX_BYTES).then(|| digest(path).ok()).flatten();
        Some(Self {
            modified_ns,
            bytes: metadata.len(),
            sha256,
        })
    }

    fn differs(&self, other: &Self) -> bool {
        let same_content = self.bytes == other.bytes && self.sha256 == other.sha256;
        self.modified_ns != other.modified_ns || !same_content
    }
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?.take(MAX_BYTES);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hash.update(&chunk[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::Span;

    fn rule(path: &Path) -> SheetRule {
        SheetRule {
            index: 0,
            description: String::new(),
            described: false,
            check: Check::FileModified {
                path: path.display().to_string(),
            },
            shown_path: None,
            stage: 1,
            retry_count: 0,
            retry_delay: Span(0),
        }
    }

    fn set_time(path: &Path, time: SystemTime) {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(time))
            .unwrap();
    }

    #[test]
    fn a_change_of_time_or_of_content_counts_and_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, path) = (directory.path().join("baseline.json"), directory.path().join("a"));
        let old = SystemTime::now() - Duration::from_secs(1000);
        fs::write(&path, "one").unwrap();
        set_time(&path, old);
        let name = path.to_str().unwrap();
        Baseline::ensure(&kept, &[rule(&path)]).unwrap();
        let changed = || {
            let baseline = Baseline::ensure(&kept, &[rule(&path)]).unwrap();
            baseline.is_changed(name, &Stamp::of(&path).unwrap())
        };
        assert!(!changed());
        // The content changed, its length and time did not.
        fs::write(&path, "two").unwrap();
        set_time(&path, old);
        assert!(changed());
        // The content is the old one, the time is new.
        fs::write(&path, "one").unwrap();
        assert!(changed());
    }

    #[test]
    fn a_file_that_appears_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let baseline = Baseline::ensure(&directory.path().join("baseline.json"), &[rule(&path)]).unwrap();
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "").unwrap();
        assert!(baseline.is_changed(path.to_str().unwrap(), &Stamp::of(&path).unwrap()));
    }

    #[test]
    fn a_rule_that_came_later_is_compared_with_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "").unwrap();
        set_time(&path, SystemTime::now() - Duration::from_secs(10));
        let baseline = Baseline::ensure(&directory.path().join("baseline.json"), &[]).unwrap();
        let name = path.to_str().unwrap();
        assert!(!baseline.is_changed(name, &Stamp::of(&path).unwrap()));
        set_time(&path, SystemTime::now() + Duration::from_secs(10));
        assert!(baseline.is_changed(name, &Stamp::of(&path).unwrap()));
    }
}
