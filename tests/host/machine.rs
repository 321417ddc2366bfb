//! The machine is what the other tests take it for.

use super::{inside, said, shell};

#[test]
fn it_is_an_ordinary_user_session() {
    if !inside() {
        return;
    }
    assert_eq!(said("id -un"), "tester");
    assert_eq!(said("systemctl --user is-system-running"), "running");
    assert_eq!(said("loginctl show-user --value --property=Linger tester"), "yes");
    assert!(said("busctl --user list").contains("org.freedesktop.systemd1"));
    assert!(!shell("sudo -n true").status.success());
}

#[test]
fn it_reaches_loopback_and_nothing_else() {
    if !inside() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    std::net::TcpStream::connect(listener.local_addr().expect("it is bound")).expect("loopback answers");
    assert_eq!(said("ls /sys/class/net"), "lo");
}

#[test]
fn its_journal_is_readable_by_the_user() {
    if !inside() {
        return;
    }
    said("systemd-cat --identifier=hello echo from-the-test");
    said("journalctl --user --sync 2>/dev/null || sleep 0.3");
    assert!(said("journalctl --user --identifier=hello --output=cat --no-pager").contains("from-the-test"));
}
