//! Files and directories that only the user may read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::error::OpenError;

/// Makes `path` and what is missing above it, for the user alone (0700). One that exists stays as it is.
pub(super) fn private_directory(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| OpenError::Io {
            activity: "create the directory",
            path: path.to_owned(),
            source,
        })
}

/// Opens `path` for reading and writing, made if it is missing, for the user alone (0600) in any case.
pub(super) fn open_private(path: &Path) -> Result<File, OpenError> {
    let error = |activity| {
        move |source| OpenError::Io {
            activity,
            path: path.to_owned(),
            source,
        }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(error("open"))?;
    let metadata = file.metadata().map_err(error("read"))?;
    if !metadata.is_file() {
        return Err(error("use")(io::Error::other("it is not a regular file")));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        make_private(path)?;
    }
    Ok(file)
}

/// Takes a file away from everybody but the user (0600).
pub(super) fn make_private(path: &Path) -> Result<(), OpenError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|source| OpenError::Io {
        activity: "make private",
        path: path.to_owned(),
        source,
    })
}

/// Makes sure that names made or changed in the directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
