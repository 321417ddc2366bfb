//! The service whose ledger has a small file system for itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::host::{home, inside, said, shell};
use crate::support::{Desk, Service, WROTE_ITS_FILE, output, said as told, systemctl, wait_until};

/// Starts the service where its state directory is a small file system. The spools, which systemd and the sessions see
/// too, stay where they are. Its own numbers again at the end: whoever asks it for something says these.
const SMALL: &str = "#!/bin/sh
[ $(id -u) = 0 ] || exec unshare --user --map-root-user --mount \"$0\" $(id -u)
state=$HOME/.local/state/mozart kept=$(mktemp -d)
mount --bind $state/spool $kept && mount -t tmpfs -o size=8m,mode=0700 tmpfs $state && mkdir $state/spool &&
mount --bind $kept $state/spool && exec unshare --user --map-user=$1 --map-group=$1 $HOME/.local/bin/mozartd
";

#[test]
fn a_service_whose_ledger_is_full_says_where_and_how_much_and_goes_on_when_there_is_room() {
    if !inside() {
        return;
    }
    let (service, desk) = (Service::fresh(), Desk::new());
    let drop_in = home(".config/systemd/user/mozart.service.d");
    fs::create_dir_all(&drop_in).unwrap();
    let program = home("small-mozartd");
    fs::write(&program, SMALL).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        drop_in.join("small.conf"),
        "[Service]\nExecStart=\nExecStart=%h/small-mozartd\n",
    )
    .unwrap();
    let state = home(".local/state/mozart");
    fs::create_dir_all(state.join("spool")).unwrap();
    assert!(systemctl(&["daemon-reload"]).status.success());
    assert!(systemctl(&["restart", "mozart.service"]).status.success());
    let script =
        "[ $n != 2 ] || while [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let more = format!("retry: {{max_retries: 0, transient_retries: 0}}\n{WROTE_ITS_FILE}");
    let job = desk.job("told", 3, script, &more);
    service.submit(&job);
    wait_until("sheet 2", Duration::from_secs(15), || desk.starts().len() == 2);

    let pid = service.pid().unwrap();
    let fill = format!("/proc/{pid}/root{}/fill", state.display());
    shell(&format!("head -c 20M /dev/zero > {fill}"));
    assert!(fs::metadata(&fill).unwrap().len() > 6 << 20);
    desk.write("go", "");
    let ledger = state.join("ledger.db");
    let names_it =
        |text: &str| text.contains(&*ledger.to_string_lossy()) && text.contains("4 MiB of free room are needed");
    wait_until("the run waits for storage", Duration::from_secs(15), || {
        let status = service.status("told");
        status["reason"] == "storage" && names_it(status["sheets"][1]["reason"].as_str().unwrap())
    });
    // It is tried again each second.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(desk.starts().len(), 2);

    fs::remove_file(&fill).unwrap();
    wait_until("it goes on", Duration::from_secs(5), || desk.starts().len() == 3);
    let journal = said("journalctl --user --unit mozart.service --output cat MOZART_CODE=E801");
    assert!(names_it(&journal), "{journal}");
    assert_eq!(journal.lines().count(), 1, "said once: {journal}");
    let end = output(service.ctl(["wait", "told"]));
    assert!(end.status.success(), "{}", told(&end));
    assert_eq!(desk.starts(), (1..=3).map(|sheet| (sheet, 1)).collect());
    assert_eq!(service.pid(), Some(pid), "it did not go away for it");
}
