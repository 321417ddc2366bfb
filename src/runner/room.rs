//! Room on the file systems that an attempt writes to: without it nothing starts, and nothing is held against a
//! session that had to do without.

use std::io;
use std::path::Path;

use rustix::fs::{Access, FallocateFlags, Mode, OFlags, StatVfsMountFlags, access, fallocate, statvfs};
use rustix::io::Errno;

/// What has to be free: for prompt, output, record and ledger, with some to spare.
const NEEDED: u64 = 4 << 20;
/// The same in files.
const NEEDED_FILES: u64 = 64;

/// What an ordinary user may still use of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    /// None where the file system does not count bytes.
    bytes: Option<u64>,
    /// None where the file system does not count files.
    files: Option<u64>,
    read_only: bool,
}

/// What stands in the way of writing there, if anything does.
fn enough(left: Left) -> Result<(), String> {
    if left.read_only {
        Err("is mounted read-only".to_owned())
    } else if let Some(bytes) = left.bytes.filter(|bytes| *bytes < NEEDED) {
        let (free, needed) = (bytes >> 10, NEEDED >> 20);
        Err(format!("is full: {free} KiB are free, {needed} MiB are needed"))
    } else if let Some(files) = left.files.filter(|files| *files < NEEDED_FILES) {
        Err(format!("is full: {files} inodes are free, {NEEDED_FILES} are needed"))
    } else {
        Ok(())
    }
}

/// Why one of `paths` cannot be written to now: with the path, as a sentence. Of one that is not there its nearest
/// parent is asked; one that cannot be asked is no obstacle here.
pub(super) fn short_of(paths: &[&Path]) -> Option<String> {
    paths.iter().find_map(|path| {
        let found = path.ancestors().find_map(|path| statvfs(path).ok())?;
        let left = Left {
            bytes: (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize)),
            files: (found.f_files > 0).then_some(found.f_favail),
            read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        };
        let why = enough(left).err()?;
        Some(format!("{} {why}", path.display()))
    })
}

/// Why what is needed cannot be written to one of `paths`: found out by reserving it in a file without a name, since
/// a user's quota is told in no other way. Where that cannot be done it is no obstacle here.
pub(super) fn refused_by(paths: &[&Path]) -> Option<String> {
    paths.iter().find_map(|path| {
        let place = path.ancestors().find(|path| path.is_dir())?;
        let unnamed = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let reserved = rustix::fs::open(place, unnamed, Mode::RUSR | Mode::WUSR)
            .and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, NEEDED));
        let error = io::Error::from(reserved.err()?);
        is_short(&error).then(|| refused(path, &error))
    })
}

/// Why that directory cannot be written to, where waiting for room does not help: it is gone, or somebody took away the
/// right to. As a sentence.
pub(super) fn closed(directory: &Path) -> Option<String> {
    let shown = directory.display();
    let asked = std::fs::metadata(directory).and_then(|found| {
        let open = found
            .is_dir()
            .then(|| access(directory, Access::WRITE_OK | Access::EXEC_OK));
        open.unwrap_or(Err(Errno::NOTDIR)).map_err(io::Error::from)
    });
    let error = asked.err().filter(|error| !is_short(error))?;
    Some(match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} is not there any more"),
        _ => format!("{shown} cannot be written to: {error}"),
    })
}

/// Whether a write failed for want of room, a quota's included: it will succeed later.
pub(super) fn is_short(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// The sentence for such a write.
pub(super) fn refused(path: &Path, error: &io::Error) -> String {
    needing(&format!("cannot write to {}: {error}", path.display()))
}

/// The same for a sentence that names the path already.
pub(crate) fn needing(sentence: &str) -> String {
    format!("{sentence}; {} MiB of free room are needed", NEEDED >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bytes_files_and_leave_to_write() {
        let good = Left {
            bytes: Some(NEEDED),
            files: Some(NEEDED_FILES),
            read_only: false,
        };
        assert_eq!(enough(good), Ok(()));
        let uncounted = Left {
            bytes: None,
            files: None,
            ..good
        };
        assert_eq!(enough(uncounted), Ok(()));
        let wrong = |left| enough(left).unwrap_err();
        assert_eq!(
            wrong(Left {
                bytes: Some(4095),
                ..good
            }),
            "is full: 3 KiB are free, 4 MiB are needed"
        );
        assert_eq!(
            wrong(Left { files: Some(0), ..good }),
            "is full: 0 inodes are free, 64 are needed"
        );
        assert_eq!(
            wrong(Left {
                read_only: true,
                ..good
            }),
            "is mounted read-only"
        );
    }

    #[test]
    fn what_is_needed_can_be_reserved_or_is_refused_with_the_path() {
        const SMALL: &str = "MOZART_TEST_SMALL_PLACE";
        if let Some(small) = std::env::var_os(SMALL) {
            let why = refused_by(&[&Path::new(&small).join("not/there/yet")]).unwrap();
            assert!(why.contains(small.to_str().unwrap()), "{why}");
            assert!(why.ends_with("4 MiB of free room are needed"), "{why}");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        assert_eq!(refused_by(&[place.path()]), None);
        assert_eq!(
            std::fs::read_dir(place.path()).unwrap().count(),
            0,
            "nothing is left of it"
        );
        assert_eq!(refused_by(&[Path::new("/proc")]), None, "it cannot be asked");

        // This test again, where that place is a file system of its own.
        let script = format!("mount -t tmpfs -o size=1m tmpfs \"$1\" && {SMALL}=\"$1\" exec \"$0\" --exact \"$2\"");
        let told = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .args([std::env::current_exe().unwrap().as_path(), place.path()])
            .arg("runner::room::tests::what_is_needed_can_be_reserved_or_is_refused_with_the_path")
            .output()
            .unwrap();
        assert!(told.status.success(), "{told:?}");
        assert!(String::from_utf8_lossy(&told.stdout).contains("1 passed"), "{told:?}");
    }

    #[test]
    fn a_directory_that_is_gone_or_is_none_is_closed() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(closed(place.path()), None);
        let gone = place.path().join("gone");
        assert_eq!(closed(&gone), Some(format!("{} is not there any more", gone.display())));
        std::fs::write(&gone, "").unwrap();
        assert!(closed(&gone).unwrap().contains("Not a directory"));
        assert!(closed(&gone.join("below")).unwrap().contains("cannot be written to"));
    }

    #[test]
    fn only_what_will_pass_by_itself_counts_as_want_of_room() {
        let short = |errno: rustix::io::Errno| is_short(&errno.into());
        assert!([Errno::NOSPC, Errno::DQUOT, Errno::ROFS].into_iter().all(short));
        assert!(![Errno::ACCESS, Errno::NOENT, Errno::IO].into_iter().any(short));
    }
}
