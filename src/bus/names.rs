//! The names on the bus that others depend on.

use zbus::ObjectPath;

/// The well-known name of the conductor on the session bus.
pub const BUS_NAME: &str = "org.mozart.Mozart1";
/// Path of the one manager object, and of the ObjectManager over the job objects.
pub const MANAGER_PATH: &str = "/org/mozart/Mozart1";
/// Name of the manager's interface.
pub const MANAGER_INTERFACE: &str = "org.mozart.Mozart1.Manager";
/// Name of a job's interface.
pub const JOB_INTERFACE: &str = "org.mozart.Mozart1.Job";

const JOB_PREFIX: &str = "/org/mozart/Mozart1/job/";

/// Path of a job's object.
///
/// The name is escaped as systemd escapes object paths (`sd_bus_path_encode(3)`): every byte that is not an ASCII
/// letter or digit, and a leading digit, becomes `_` and two hexadecimal digits. The underscore is escaped too,
/// so that two names never share a path.
pub fn job_path(job: &str) -> ObjectPath<'static> {
    use std::fmt::Write as _;

    let mut path = JOB_PREFIX.to_owned();
    if job.is_empty() {
        path.push('_');
    }
    for (index, byte) in job.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0) {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    ObjectPath::from_string_unchecked(path)
}

/// The job that [`job_path`] made this path of; none where it is no job's path.
pub fn job_of(path: &str) -> Option<String> {
    let label = path.strip_prefix(JOB_PREFIX)?;
    if label == "_" {
        return Some(String::new());
    }
    let mut rest = label.as_bytes();
    let mut name = Vec::with_capacity(rest.len());
    loop {
        match rest {
            [] => break,
            [b'_', high, low, tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                name.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = tail;
            }
            [byte, tail @ ..] if byte.is_ascii_alphanumeric() => {
                name.push(*byte);
                rest = tail;
            }
            [_, ..] => return None,
        }
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_like_systemd_does() {
        for (name, label) in [
            ("review", "review"),
            ("my-batch-job", "my_2dbatch_2djob"),
            ("a_b", "a_5fb"),
            ("2nd try", "_32nd_20try"),
            ("é/ü", "_c3_a9_2f_c3_bc"),
            ("", "_"),
        ] {
            let path = job_path(name);
            assert_eq!(path.as_str(), format!("/org/mozart/Mozart1/job/{label}"));
            assert!(ObjectPath::try_from(path.as_str()).is_ok(), "{path}");
            assert_eq!(job_of(path.as_str()).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_no_job_path_names_no_job() {
        for path in [
            "/org/mozart/Mozart1",
            "/org/mozart/Mozart1/job/_4",
            "/org/mozart/Mozart1/job/_zz",
            "/org/mozart/Mozart1/job/a/b",
            "/org/mozart/Mozart1/job/_ff",
        ] {
            assert_eq!(job_of(path), None, "{path}");
        }
    }
}
