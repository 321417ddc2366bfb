//! `packaging/install` puts everything where systemd and the bus look, and takes exactly that away again.

use super::{checkout, home, inside, install, said, shell};

#[test]
fn install_enables_the_service_and_uninstall_keeps_the_data() {
    if !inside() {
        return;
    }
    install();
    for path in [
        ".local/bin/mozartd",
        ".local/bin/mozartctl",
        ".local/bin/mozart-helper",
        ".local/share/systemd/user/mozart.service",
        ".local/share/systemd/user/mozart.socket",
        ".local/share/systemd/user/background-mozart.slice",
        ".local/share/dbus-1/services/org.mozart.Mozart1.service",
        ".local/share/man/man5/mozart.yaml.5",
    ] {
        assert!(home(path).is_file(), "{path}");
    }
    assert_eq!(
        said("systemctl --user is-enabled mozart.service mozart.socket"),
        "enabled\nenabled"
    );
    assert_eq!(said("systemctl --user is-active mozart.socket"), "active");
    assert_eq!(
        said("systemctl --user show --value --property=Id mozartd.service"),
        "mozart.service"
    );
    assert_eq!(
        said("stat --format=%a $XDG_RUNTIME_DIR/mozart $XDG_RUNTIME_DIR/mozart/bus"),
        "700\n600"
    );
    assert!(said("busctl --user list --activatable").contains("org.mozart.Mozart1"));

    // Once more: an update.
    install();
    assert_eq!(said("systemctl --user is-active mozart.socket"), "active");

    std::fs::create_dir_all(home(".local/state/mozart")).expect("the home directory is writable");
    std::fs::write(home(".local/state/mozart/ledger.db"), "kept").expect("the home directory is writable");
    let farewell = said(&format!(
        "{}/packaging/install --user --uninstall",
        checkout().display()
    ));
    assert!(farewell.contains("/home/tester/.local/state/mozart"), "{farewell}");
    assert!(home(".local/state/mozart/ledger.db").is_file());
    assert_eq!(
        said(
            "find .local .config -iname '*mozart*' -not -path '.local/state/*'; ls -d $XDG_RUNTIME_DIR/mozart 2>&1 | grep -v 'No such' || true"
        ),
        ""
    );
    assert!(!said("busctl --user list --activatable").contains("org.mozart.Mozart1"));
    assert_eq!(
        said("systemctl --user show --value --property=LoadState mozart.service"),
        "not-found"
    );
}

#[test]
fn install_works_without_a_user_manager_and_says_so() {
    if !inside() {
        return;
    }
    let command = format!(
        "env --unset=XDG_RUNTIME_DIR --unset=DBUS_SESSION_BUS_ADDRESS {0}/packaging/install --user --from {1}",
        checkout().display(),
        super::programs().display()
    );
    let told = said(&command);
    assert!(told.contains("Skipped: no user manager is running"), "{told}");
    assert!(home(".config/systemd/user/default.target.wants/mozart.service").is_symlink());
    assert!(home(".config/systemd/user/sockets.target.wants/mozart.socket").is_symlink());
    // The manager of the next login, which reads everything anew.
    said("systemctl --user daemon-reload");
    assert_eq!(said("systemctl --user is-enabled mozart.service"), "enabled");
}

#[test]
fn uninstall_refuses_while_sessions_run() {
    if !inside() {
        return;
    }
    install();
    said("systemd-run --user --quiet --unit=mozart-0123abcd-1-1-1 --slice=background-mozart.slice sleep 100");
    let refused = shell(&format!(
        "{}/packaging/install --user --uninstall",
        checkout().display()
    ));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sessions at work: 1;"));
    assert!(home(".local/bin/mozartd").is_file());
}

#[test]
fn sessions_begin_and_end_with_the_small_program_and_without_it_all_the_same() {
    if !inside() {
        return;
    }
    install();
    let session = |name: &str| {
        let job = format!(
            "name: {name}\nworkspace: ./{name}\nsheet: {{size: 1, total_items: 1}}\n\
             backend: {{type: command, command: [sh, -e]}}\n\
             prompt: {{template: XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user show --value -p ExecStart -p ExecStopPost 'mozart-*' > {name}/told, append: {{requirements: false, lessons: false}}}}\n\
             validations: [{{type: file_exists, path: '{{workspace}}/told'}}]\n"
        );
        std::fs::write(home(&format!("{name}.yaml")), job).expect("the home directory is writable");
        said(&format!(".local/bin/mozartctl run {name}.yaml && cat {name}/told"))
    };
    let told = session("with");
    assert_eq!(
        told.matches("/home/tester/.local/bin/mozart-helper ;").count(),
        2,
        "{told}"
    );
    std::fs::remove_file(home(".local/bin/mozart-helper")).expect("it was installed");
    said("systemctl --user restart mozart.service");
    let told = session("without");
    assert_eq!(told.matches("/home/tester/.local/bin/mozartd ;").count(), 2, "{told}");
}

#[test]
fn units_have_no_problem_that_systemd_knows_of() {
    if !inside() {
        return;
    }
    install();
    let output = shell(
        "cd .local/share/systemd/user && systemd-analyze --user verify mozart.service mozart.socket background-mozart.slice",
    );
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// The options that harden the service are applied to a process of its kind, and what the conductor starts itself
/// still works under them: a program that compiles at run time, a user namespace.
#[test]
fn the_service_is_confined_as_written() {
    if !inside() {
        return;
    }
    install();
    // The unit as it is, but for what it runs.
    said(
        "mkdir -p .config/systemd/user/mozart.service.d && printf '%s\\n' '[Service]' Type=oneshot WatchdogSec=0 Restart=no ExecStart= \
         \"ExecStart=/bin/sh -c 'cat /proc/self/status >status; umask >umask; chmod u+s status 2>refused; unshare --user true && echo yes >namespaces'\" \
         WorkingDirectory=%h >.config/systemd/user/mozart.service.d/probe.conf && systemctl --user daemon-reload && systemctl --user start mozart.service",
    );
    let status = said("cat status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(said("cat umask"), "0077");
    assert!(said("cat refused").contains("not permitted"), "RestrictSUIDSGID");
    assert_eq!(said("cat namespaces"), "yes");
}
