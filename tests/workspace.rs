//! What people do to a job's files while it runs: each has a clear cause, nothing hangs, and `resume` goes on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, said, wait_until};

/// The second sheet waits for the file `go`; each writes to the workspace, which it does not make itself.
const SCRIPT: &str =
    "while [ $n = 2 ] && [ ! -e go ]; do sleep 0.05; done; echo done > workspace/out-$n && test -s workspace/out-$n";

/// A run under way, which a failed assertion does not leave behind.
struct Run(Child);

impl Run {
    fn start(mut command: impl std::borrow::BorrowMut<Command>) -> Self {
        let command = command.borrow_mut().stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("mozartctl"))
    }

    /// Its exit code: nothing that is tested here may make it hang.
    fn ends(&mut self) -> Option<i32> {
        wait_until("its end", Duration::from_secs(10), || {
            self.0.try_wait().expect("its end").is_some()
        });
        self.0.wait().expect("its end").code()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Takes the workspace away while a run's second sheet is at work, and gives it back: the run fails because of `why`,
/// and again as long as it is away, but starts nothing; then it completes. `ctl` makes a `mozartctl`.
pub(crate) fn taken_and_given_back(
    desk: &Desk,
    job: &Path,
    ctl: impl Fn(&[&OsStr]) -> Command,
    why: &str,
    (take, give): (impl Fn(&Path), impl Fn(&Path)),
) {
    let workspace = desk.path("workspace");
    let mut run = Run::start(ctl(&["run".as_ref(), job.as_os_str()]));
    wait_until("the second sheet runs", Duration::from_secs(10), || {
        desk.starts().len() == 2
    });
    take(&workspace);
    desk.write("go", "");
    assert_eq!(run.ends(), Some(1));

    let fails_again = || {
        let status = json(&output(ctl(&["status", "held", "--json"].map(OsStr::new))));
        assert_eq!(status["state"], "failed", "{status:#}");
        assert_eq!(status["sheets"][1]["code"], "E601", "{status:#}");
        assert_eq!(status["sheets"][2]["state"], "pending", "{status:#}");
        let shown = output(ctl(&["status", "held"].map(OsStr::new)));
        let told = format!("the workspace {} {why}", workspace.display());
        assert!(said(&shown).contains(&told), "{told}: {}", said(&shown));
    };
    fails_again();
    let resume = || Run::start(ctl(&["resume", "held"].map(OsStr::new))).ends();
    assert_eq!(resume(), Some(1));
    fails_again();
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1)]), "nothing was started");

    give(&workspace);
    assert_eq!(resume(), Some(0));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 1)]));
}

/// Moves it, and back.
pub(crate) fn moved() -> (impl Fn(&Path), impl Fn(&Path)) {
    let away = |workspace: &Path| workspace.with_extension("away");
    (
        move |workspace: &Path| fs::rename(workspace, away(workspace)).expect("moved"),
        move |workspace: &Path| fs::rename(away(workspace), workspace).expect("moved back"),
    )
}

/// Takes away the right to write to it, and gives it back.
pub(crate) fn closed() -> (impl Fn(&Path), impl Fn(&Path)) {
    let mode = |workspace: &Path, mode| {
        fs::set_permissions(workspace, fs::Permissions::from_mode(mode)).expect("permissions");
    };
    (
        move |workspace: &Path| mode(workspace, 0o555),
        move |workspace: &Path| mode(workspace, 0o755),
    )
}

/// A job whose runs can be taken their workspace.
pub(crate) fn held(desk: &Desk) -> std::path::PathBuf {
    // A delay that no test waits for: what fails for want of the workspace is not tried again.
    let more = format!("retry: {{base_delay_seconds: 100, jitter: false}}\n{WROTE_ITS_FILE}");
    desk.job("held", 3, SCRIPT, &more)
}

fn alone() -> (Alone, Desk) {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    (alone, Desk::new())
}

#[test]
fn a_workspace_that_is_moved_or_deleted_fails_the_run_until_it_is_back() {
    const GONE: &str = "is not there any more";
    let (user, desk) = alone();
    taken_and_given_back(&desk, &held(&desk), |words| user.ctl(words), GONE, moved());

    let (user, desk) = alone();
    let deleted = |workspace: &Path| fs::remove_dir_all(workspace).expect("deleted");
    let made = |workspace: &Path| fs::create_dir(workspace).expect("made");
    let take_and_give = (deleted, made);
    taken_and_given_back(&desk, &held(&desk), |words| user.ctl(words), GONE, take_and_give);

    // A session that works in it goes on in the one that was moved.
    let (user, desk) = alone();
    let job = held(&desk);
    let text = fs::read_to_string(&job).expect("the job");
    let text = text.replace(", working_directory: .", ", working_directory: ./workspace");
    let text = text.replace("workspace/out-", "out-").replace("-e go", "-e ../go");
    fs::write(&job, text.replace("{workspace}/out-", "out-")).expect("the job");
    fs::create_dir(desk.path("workspace")).expect("the workspace");
    taken_and_given_back(&desk, &job, |words| user.ctl(words), GONE, moved());
}

#[test]
fn a_workspace_that_may_not_be_written_to_fails_the_run_until_it_may() {
    let (user, desk) = alone();
    // As an ordinary user, also where the test is none: root may write everywhere.
    let ctl = |words: &[&OsStr]| {
        let inner = user.ctl(words);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", "--map-group=1000"]);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null());
        command
    };
    let why = "cannot be written to: Permission denied";
    taken_and_given_back(&desk, &held(&desk), ctl, why, closed());
}

#[test]
fn a_workspace_that_is_remounted_read_only_holds_the_run_until_it_is_writable() {
    let (user, desk) = alone();
    let job = held(&desk);
    let workspace = desk.path("workspace");
    fs::create_dir(&workspace).expect("the workspace");
    let inner = user.ctl([OsStr::new("run"), job.as_os_str()]);
    let mut command = Command::new("unshare");
    // Whoever may mount waits beside the run for the test's word; the run has its own numbers again.
    let until = "i=0; until [ -e $0/$file ] || [ $i = 600 ]; do i=$((i + 1)); sleep 0.05; done";
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!(
            "mount --bind $0/workspace $0/workspace || exit\n\
         (for file in ro rw; do {until}; mount -o remount,bind,$file $0/workspace; done) &\n\
         exec unshare --user --map-user={} --map-group={} \"$@\"",
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        ));
    command
        .arg(desk.path(""))
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null());
    let mut run = Run::start(command);
    wait_until("the second sheet runs", Duration::from_secs(10), || {
        desk.starts().len() == 2
    });
    desk.write("ro", "");
    let inside = std::path::PathBuf::from(format!("/proc/{}/root{}", run.0.id(), workspace.display()));
    wait_until("it is read-only", Duration::from_secs(10), || {
        let found = rustix::fs::statvfs(&inside).expect("the workspace");
        found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)
    });
    desk.write("go", "");
    let told = format!("{} is mounted read-only", workspace.display());
    wait_until("it waits", Duration::from_secs(10), || {
        let status = user.status("held");
        status["reason"] == "storage" && status["sheets"][1]["reason"] == told.as_str()
    });
    desk.write("rw", "");
    assert_eq!(run.ends(), Some(0));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 2), (3, 1)]));
}

#[test]
fn a_job_file_and_its_template_are_not_needed_once_the_run_is_accepted() {
    let (user, desk) = alone();
    let job = held(&desk);
    let text = fs::read_to_string(&job).expect("the job");
    let inline = "template: \"{{ sheet_num }}\\n\"";
    assert!(text.contains(inline), "{text}");
    fs::write(&job, text.replace(inline, "template_file: ./prompt.j2")).expect("the job");
    let template = desk.write("prompt.j2", "{{ sheet_num }}\n");
    let run = Run::start(user.ctl(["run"]).arg(&job));
    wait_until("the second sheet runs", Duration::from_secs(10), || {
        desk.starts().len() == 2
    });
    fs::remove_file(&job).expect("the job file");
    fs::remove_file(&template).expect("the template");
    // Neither by this conductor nor by the next.
    drop(run);
    desk.write("go", "");
    let resumed = output(user.ctl(["resume", "held"]));
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(desk.starts(), BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
}
