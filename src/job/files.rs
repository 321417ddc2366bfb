//! The port through which a job asks for files.

use std::path::{Path, PathBuf};

/// Bytes that a file named by a job may have.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What stands at a path, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Nothing, or nothing that may be seen.
    Missing,
    /// A device, a socket, a pipe.
    Other,
}

/// Reads what a job file names.
pub trait Files {
    /// The whole content of a regular file of at most [`MAX_FILE_BYTES`].
    ///
    /// The error is a sentence fragment for a person: `permission denied`, `is a directory`, …
    fn read(&self, path: &Path) -> Result<Vec<u8>, String>;

    /// What stands there.
    fn kind(&self, path: &Path) -> PathKind;

    /// Where it stands once symbolic links are followed; `None` where nothing does.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }
}

/// The real file system.
#[cfg(feature = "daemon")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

#[cfg(feature = "daemon")]
impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        use std::io::Read;

        // Asked before it is opened: opening a pipe would wait for its writer.
        match self.kind(path) {
            PathKind::File => {}
            PathKind::Directory => return Err("is a directory".to_owned()),
            PathKind::Missing => return Err("does not exist".to_owned()),
            PathKind::Other => return Err("is not a regular file".to_owned()),
        }
        let file = std::fs::File::open(path).map_err(|error| fragment(&error))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| fragment(&error))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("is larger than {} MiB", MAX_FILE_BYTES / 1024 / 1024));
        }
        Ok(bytes)
    }

    fn kind(&self, path: &Path) -> PathKind {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => PathKind::File,
            Ok(metadata) if metadata.is_dir() => PathKind::Directory,
            Ok(_) => PathKind::Other,
            Err(_) => PathKind::Missing,
        }
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }
}

#[cfg(feature = "daemon")]
fn fragment(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "cannot be read: permission denied".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// Files in memory, for tests.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(pub(crate) std::collections::BTreeMap<std::path::PathBuf, Option<Result<String, String>>>);

#[cfg(test)]
impl Fake {
    /// A directory for every path that ends in `/`, else a file with that text.
    pub(crate) fn new(entries: &[(&str, &str)]) -> Self {
        let mut files = Self::default();
        for (path, text) in entries {
            let content = if path.ends_with('/') {
                None
            } else {
                Some(Ok((*text).to_owned()))
            };
            files
                .0
                .insert(Path::new(path.trim_end_matches('/')).to_owned(), content);
        }
        files
    }
}

#[cfg(test)]
impl Files for Fake {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match self.0.get(path) {
            Some(Some(Ok(text))) => Ok(text.clone().into_bytes()),
            Some(Some(Err(reason))) => Err(reason.clone()),
            Some(None) => Err("is a directory".to_owned()),
            None => Err("does not exist".to_owned()),
        }
    }

    fn kind(&self, path: &Path) -> PathKind {
        match self.0.get(path) {
            Some(Some(_)) => PathKind::File,
            Some(None) => PathKind::Directory,
            None => PathKind::Missing,
        }
    }
}

#[cfg(all(test, feature = "daemon"))]
mod tests {
    use super::*;

    #[test]
    fn the_disk_tells_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(Disk.kind(&file), PathKind::File);
        assert_eq!(Disk.kind(directory.path()), PathKind::Directory);
        assert_eq!(Disk.kind(&directory.path().join("b")), PathKind::Missing);
        assert_eq!(Disk.kind(Path::new("/dev/null")), PathKind::Other);
        assert_eq!(Disk.read(&file), Ok(b"x".to_vec()));
        assert_eq!(Disk.read(&directory.path().join("b")), Err("does not exist".to_owned()));
        assert_eq!(Disk.read(directory.path()), Err("is a directory".to_owned()));
        assert_eq!(
            Disk.read(Path::new("/dev/zero")),
            Err("is not a regular file".to_owned())
        );
        let large = directory.path().join("large");
        std::fs::File::create(&large)
            .unwrap()
            .set_len(MAX_FILE_BYTES + 1)
            .unwrap();
        assert_eq!(Disk.read(&large), Err("is larger than 16 MiB".to_owned()));
    }
}
