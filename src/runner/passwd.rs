//! Who the user is, as the password database says (`passwd(5)`).

use std::fs;

use super::backend::Passwd;

/// The entry of the user that runs this process.
///
/// Users that are not in the file (LDAP, systemd-homed) are described by the process's own HOME, USER and SHELL.
pub(super) fn current() -> Passwd {
    let uid = rustix::process::getuid().as_raw();
    let file = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&file, uid).unwrap_or_else(|| {
        let variable = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
        Passwd {
            home: variable("HOME", "/"),
            user: variable("USER", &uid.to_string()),
            shell: variable("SHELL", "/bin/sh"),
            uid,
        }
    })
}

fn find(file: &str, uid: u32) -> Option<Passwd> {
    file.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [user, _, id, _, _, home, shell] = fields[..] else {
            return None;
        };
        let shell = if shell.is_empty() { "/bin/sh" } else { shell };
        (id.parse() == Ok(uid)).then(|| Passwd {
            home: home.to_owned(),
            user: user.to_owned(),
            shell: shell.to_owned(),
            uid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_id_is_found() {
        let file = "root:x:0:0:root:/root:/bin/bash\nbroken\n+::::::\nana:x:1000:1000:Ana,,,:/home/ana:\n";
        let ana = find(file, 1000).unwrap();
        assert_eq!(
            (ana.user.as_str(), ana.home.as_str(), ana.shell.as_str()),
            ("ana", "/home/ana", "/bin/sh")
        );
        assert_eq!(find(file, 1), None);
    }
}
