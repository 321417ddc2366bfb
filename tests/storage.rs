//! Full disks: small file systems of their own, filled and freed again while a run goes on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, wait_until};

/// An embedded run that sees a small tmpfs at one place; nobody else does.
struct Confined {
    run: Child,
    at: PathBuf,
}

impl Confined {
    /// `mozartctl run`, after `first` was done in the place that has `options`.
    fn start(alone: &Alone, at: &Path, options: &str, first: &str, job: &Path) -> Self {
        fs::create_dir_all(at).expect("the place");
        let inner = alone.ctl([OsStr::new("run"), job.as_os_str()]);
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o {options} tmpfs \"$0\" && (cd \"$0\" && {first}) && \
                 exec unshare --user --map-user={} --map-group={} \"$@\"",
                // Its own numbers again: whoever asks it for the status says these.
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw(),
            ))
            .arg(at)
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear();
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let run = command.stdin(Stdio::null()).spawn().expect("unshare");
        Self { run, at: at.to_owned() }
    }

    /// Removes what fills the place.
    fn free(&self) {
        let inside = PathBuf::from(format!("/proc/{}/root", self.run.id()));
        let place = inside.join(self.at.strip_prefix("/").expect("absolute"));
        let filling = fs::read_dir(place).expect("the place").flatten();
        let filling = filling.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"fill"));
        for entry in filling.collect::<Vec<_>>() {
            fs::remove_file(entry.path()).expect("what fills it");
        }
    }

    /// Waits until the run waits for storage at that sheet, and says which path lacks what.
    fn waits(&self, alone: &Alone, job: &str, sheet: usize) {
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
                    && why.starts_with(&*self.at.to_string_lossy())
                    && why.contains(" are needed")
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
    let run = Confined::start(
        &alone,
        &state,
        "size=8m,nr_inodes=400",
        "head -c 7M /dev/zero > fill",
        &job,
    );
    for sheet in 1..=3 {
        run.waits(&alone, "full", sheet);
        assert_eq!(desk.starts().len(), sheet - usize::from(sheet == 1));
        run.free();
        if sheet < 3 {
            wait_until("it goes on", Duration::from_secs(5), || desk.starts().len() > sheet);
        }
    }
    run.completes();
    assert_eq!(
        desk.starts(),
        (1..=4).map(|sheet| (sheet, 1)).collect::<BTreeMap<_, _>>()
    );
}

#[test]
fn a_full_workspace_holds_a_run_and_costs_no_retry() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let script = "[ $n != 2 ] || [ -e full ] || { touch full; head -c 20M /dev/zero > workspace/fill; }; \
                  echo done > workspace/out-$n && test -s workspace/out-$n";
    let job = desk.job("crowded", 3, script, &format!("{NO_RETRIES}{WROTE_ITS_FILE}"));
    let run = Confined::start(&alone, &desk.path("workspace"), "size=8m", "true", &job);
    run.waits(&alone, "crowded", 2);
    run.free();
    run.completes();
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 1)]));
}
