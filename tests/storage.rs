//! Full disks: small file systems of their own, filled and freed again while a run goes on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, said, wait_until};

/// An embedded run that sees small tmpfs where `places` says; nobody else does.
struct Confined {
    run: Child,
    /// Takes commands, as the user that mounted them.
    orders: ChildStdin,
    /// A line for each that was done.
    done: BufReader<ChildStdout>,
}

impl Confined {
    /// `mozartctl run`, after `first` was done in the first of the places, each with the options of its tmpfs.
    fn start(alone: &Alone, places: &[(&Path, &str)], first: &str, job: &Path) -> Self {
        let inner = alone.ctl([OsStr::new("run"), job.as_os_str()]);
        let mut script = "exec 3<&0 4>&1 </dev/null >/dev/null\n".to_owned();
        for (at, options) in places {
            let at = at.display();
            script += &format!("mkdir -p {at} && mount -t tmpfs -o {options} tmpfs {at} || exit\n");
        }
        script += &format!(
            "(cd {} && {first}) || exit\n\
             (while read -r order <&3; do sh -c \"$order\"; echo $? >&4; done) &\n\
             exec unshare --user --map-user={} --map-group={} \"$0\" \"$@\" 3<&- 4>&-",
            places[0].0.display(),
            // Its own numbers again: whoever asks it for the status says these.
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg(script)
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear();
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut run = piped.spawn().expect("unshare");
        let orders = run.stdin.take().expect("its input");
        let done = BufReader::new(run.stdout.take().expect("its output"));
        Self { run, orders, done }
    }

    /// Does that where the places are mounted.
    fn order(&mut self, command: &str) {
        writeln!(self.orders, "{command}").expect("an order");
        let mut status = String::new();
        self.done.read_line(&mut status).expect("its end");
        assert_eq!(status, "0\n", "{command}");
    }

    /// Removes what fills the place.
    fn free(&mut self, at: &Path) {
        self.order(&format!("rm -f {}/fill*", at.display()));
    }

    /// Waits until the run waits for storage at that sheet, for all of those reasons.
    fn waits(&self, alone: &Alone, job: &str, sheet: usize, reasons: &[&str]) {
        wait_until(
            &format!("sheet {sheet} waits for storage"),
            Duration::from_secs(15),
            || {
                let answer = output(&mut alone.ctl(["status", job, "--json"]));
                if !answer.status.success() || answer.stdout.is_empty() {
                    return false;
                }
                let status = json(&answer);
                let sheet = &status["sheets"][sheet - 1];
                let why = sheet["reason"].as_str().unwrap_or_default();
                status["state"] == "waiting"
                    && status["reason"] == "storage"
                    && sheet["state"] == "waiting"
                    && reasons.iter().all(|reason| why.contains(reason))
            },
        );
    }

    fn completes(mut self) {
        wait_until("the end", Duration::from_secs(20), || {
            self.run.try_wait().expect("its end").is_some()
        });
        assert!(self.run.wait().expect("its end").success());
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // Where an assertion failed; its sessions end with their files.
        self.run.kill().ok();
        self.run.wait().ok();
    }
}

/// Nothing may be held against a sheet: the first retry would end the run.
const NO_RETRIES: &str = "retry: {max_retries: 0, transient_retries: 0, max_completion_attempts: 0}\n";

#[test]
fn a_full_state_directory_holds_a_run_and_costs_no_attempt() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let state = alone.state().parent().expect("a parent").to_owned();
    let fill = format!("head -c 20M /dev/zero > {}/fill 2>/dev/null", state.display());
    let inodes = format!(
        "while touch {}/fill$i 2>/dev/null; do i=$((i+1)); done",
        state.display()
    );
    // Sheet 2 leaves no byte, not even for the record of its end, sheet 3 no inode.
    let script = format!("case $n in 2) {fill};; 3) {inodes};; esac; mkdir -p workspace; echo done > workspace/out-$n");
    let job = desk.job("full", 4, &script, &format!("{NO_RETRIES}{WROTE_ITS_FILE}"));
    // A ledger can be made, a session's directory cannot.
    let places: [(&Path, &str); 1] = [(&state, "size=8m,nr_inodes=400")];
    let mut run = Confined::start(&alone, &places, "head -c 7M /dev/zero > fill", &job);
    for sheet in 1..=3 {
        let at = state.to_string_lossy();
        run.waits(&alone, "full", sheet, &[&at, " are needed"]);
        assert_eq!(desk.starts().len(), sheet - usize::from(sheet == 1));
        run.free(&state);
        if sheet < 3 {
            wait_until("it goes on", ROOM, || desk.starts().len() > sheet);
        }
    }
    run.completes();
    assert_eq!(
        desk.starts(),
        (1..=4).map(|sheet| (sheet, 1)).collect::<BTreeMap<_, _>>()
    );
}

/// Within this time a run goes on when there is room.
const ROOM: Duration = Duration::from_secs(5);

#[test]
fn a_ledger_without_room_holds_a_run_whose_sessions_have_some() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let (state, spools) = (alone.state(), alone.state().join("spool"));
    let fill = format!(
        "[ $n != 2 ] || head -c 20M /dev/zero > {}/fill 2>/dev/null",
        state.display()
    );
    let script = format!("{fill}; mkdir -p workspace; echo done > workspace/out-$n");
    let job = desk.job("told", 3, &script, &format!("{NO_RETRIES}{WROTE_ITS_FILE}"));
    let places: [(&Path, &str); 2] = [(&state, "size=8m"), (&spools, "size=64m")];
    let mut run = Confined::start(&alone, &places, "true", &job);
    let ledger = state.join("ledger.db");
    run.waits(
        &alone,
        "told",
        2,
        &[&ledger.to_string_lossy(), "4 MiB of free room are needed"],
    );
    let conductor = output(&mut alone.ctl(["conductor-status"]));
    assert!(
        said(&conductor).contains(&*ledger.to_string_lossy()),
        "{}",
        said(&conductor)
    );
    assert_eq!(desk.starts().len(), 2);
    run.free(&state);
    wait_until("it goes on", ROOM, || desk.starts().len() == 3);
    run.completes();
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    let checkpoint = fs::read_to_string(desk.path("workspace/told.json")).expect("the checkpoint");
    assert!(checkpoint.contains("\"status\": \"completed\""), "{checkpoint}");
}

#[test]
fn a_full_workspace_holds_a_run_and_costs_no_retry() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    // Sheet 2 leaves no byte, sheet 3 no inode; each fails for it, once.
    let script = "case $n in 2) [ -e full ] || { touch full; head -c 20M /dev/zero > workspace/fill; };; \
                  3) [ -e used ] || { touch used; while touch workspace/fill$i; do i=$((i+1)); done; };; esac; \
                  echo done > workspace/out-$n && test -s workspace/out-$n";
    let job = desk.job("crowded", 4, script, &format!("{NO_RETRIES}{WROTE_ITS_FILE}"));
    let workspace = desk.path("workspace");
    let mut run = Confined::start(&alone, &[(&workspace, "size=8m,nr_inodes=200")], "true", &job);
    for (sheet, lacks) in [(2, "4 MiB are needed"), (3, "64 are needed")] {
        run.waits(&alone, "crowded", sheet, &[&workspace.to_string_lossy(), lacks]);
        run.free(&workspace);
        wait_until("it goes on", ROOM, || desk.starts()[&(sheet as u32)] == 2);
    }
    run.completes();
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 2), (4, 1)]));
}

#[test]
fn what_is_mounted_read_only_amid_a_run_is_waited_for() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    // Sheet 2 writes when it is told to, once that cannot be done any more.
    let script = "[ $n != 2 ] || while [ ! -e go ]; do sleep 0.05; done; echo done > workspace/out-$n";
    let job = desk.job("locked", 3, script, &format!("{NO_RETRIES}{WROTE_ITS_FILE}"));
    let (workspace, spools) = (desk.path("workspace"), alone.state().join("spool"));
    let places: [(&Path, &str); 2] = [(&workspace, "size=64m"), (&spools, "size=64m")];
    let mut run = Confined::start(&alone, &places, "true", &job);
    // With a source named its other options stay as they are: repeated, their numbers would be of another namespace.
    let remount = |how: &str, at: &Path| format!("mount -o remount,{how} tmpfs {}", at.display());
    wait_until("sheet 2", Duration::from_secs(15), || desk.starts().len() == 2);
    run.order(&remount("ro", &workspace));
    desk.write("go", "");
    run.waits(
        &alone,
        "locked",
        2,
        &[&workspace.to_string_lossy(), "is mounted read-only"],
    );
    // The spool too, then the workspace no more.
    run.order(&remount("ro", &spools));
    run.waits(
        &alone,
        "locked",
        2,
        &[&spools.to_string_lossy(), "is mounted read-only"],
    );
    run.order(&remount("rw", &workspace));
    run.order(&remount("rw", &spools));
    wait_until("it goes on", ROOM, || desk.starts().len() == 3);
    run.completes();
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 1)]));
}

#[test]
fn a_checkpoint_without_room_holds_nothing_and_is_written_when_there_is_some() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let script =
        "[ $n != 2 ] || while [ ! -e go ]; do sleep 0.05; done; mkdir -p workspace; echo done > workspace/out-$n";
    let place = desk.path("elsewhere");
    let more = format!("{NO_RETRIES}{WROTE_ITS_FILE}state_path: ../elsewhere/kept.json\n");
    let job = desk.job("kept", 2, script, &more);
    let places: [(&Path, &str); 1] = [(&place, "size=1m")];
    let mut run = Confined::start(&alone, &places, "head -c 2M /dev/zero > fill 2>/dev/null; true", &job);
    wait_until("sheet 2", Duration::from_secs(15), || desk.starts().len() == 2);
    // No sheet ends meanwhile: it is tried again for its own sake.
    run.order(&format!("! test -s {}/kept.json", place.display()));
    run.free(&place);
    let written = format!(
        "for i in $(seq 100); do grep -qs completed {0}/kept.json && exit 0; sleep 0.05; done; exit 1",
        place.display()
    );
    run.order(&written);
    desk.write("go", "");
    run.completes();
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1)]));
}
