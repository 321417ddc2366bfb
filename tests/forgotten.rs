//! Jobs of which the ledger knows nothing: what their checkpoints and their files tell.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, said, sheet_states};

/// A job of six sheets; the fourth fails until there is a file `go`.
fn six(more: &str) -> (Alone, Desk, PathBuf) {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let script = "mkdir -p workspace; test $n -lt 4 || test -e go || exit 1; echo done > workspace/out-$n";
    let job = desk.job("six", 6, script, &format!("retry: {{max_retries: 0}}\n{more}"));
    (alone, desk, job)
}

/// The same after it failed, with its ledger gone.
fn forgotten(more: &str) -> (Alone, Desk, PathBuf) {
    let (alone, desk, job) = six(more);
    let run = output(alone.ctl(["run"]).arg(&job));
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    fs::remove_dir_all(alone.state()).expect("the ledger is gone");
    desk.write("go", "");
    (alone, desk, job)
}

/// The same without its checkpoint.
fn without_checkpoint(more: &str) -> (Alone, Desk, PathBuf) {
    let (alone, desk, job) = forgotten(more);
    fs::remove_file(desk.path("workspace/six.json")).expect("the checkpoint is gone");
    (alone, desk, job)
}

/// Each sheet was started once, and the fourth twice: it failed at first.
fn went_on() -> BTreeMap<u32, u32> {
    BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 1)])
}

#[test]
fn without_a_checkpoint_resume_takes_for_done_what_the_files_tell_if_somebody_says_yes() {
    let (alone, desk, job) = without_checkpoint(WROTE_ITS_FILE);
    let refused = output(alone.ctl(["resume", "--json"]).arg(&job));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert_eq!(json(&refused)["error"]["kind"], "unconfirmed");
    for words in [
        "sheets 1-3 of 6 look done",
        "out-4 exists",
        "go on at sheet 4?",
        "--yes",
    ] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    assert_eq!(desk.starts()[&4], 1, "nothing was started");
    let unknown = output(&mut alone.ctl(["status", "six"]));
    assert_eq!(unknown.status.code(), Some(4), "nothing was stored: {}", said(&unknown));

    let resumed = output(alone.ctl(["resume", "--yes"]).arg(&job));
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert!(
        said(&resumed).contains("sheets 1-3 of 6 look done"),
        "{}",
        said(&resumed)
    );
    assert_eq!(desk.starts(), went_on());
    let status = alone.status("six");
    let expected = ["skipped", "skipped", "skipped", "completed", "completed", "completed"];
    assert_eq!(sheet_states(&status), expected);
    assert_eq!(status["sheets"][0]["reason"], "found done", "{status:#}");
}

#[test]
fn a_person_at_a_terminal_is_asked_whether_the_files_are_right() {
    let (alone, desk, job) = without_checkpoint(WROTE_ITS_FILE);
    for answer in ["n", ""] {
        let shown = alone.typed(["resume".as_ref(), job.as_os_str()], answer);
        assert_eq!(shown.status.code(), Some(1), "{answer:?}: {}", said(&shown));
        assert!(said(&shown).contains("go on at sheet 4? [y]es"), "{}", said(&shown));
        assert_eq!(desk.starts()[&4], 1, "nothing was started");
    }
    let shown = alone.typed(["resume".as_ref(), job.as_os_str()], "y");
    assert!(shown.status.success(), "{}", said(&shown));
    assert_eq!(desk.starts(), went_on());
}

#[test]
fn a_file_that_had_to_be_changed_is_enough_where_it_is_there_and_content_is_read() {
    let rules = "validations:\n\
                 \x20 - {type: file_modified, path: \"out-{sheet_num}\"}\n\
                 \x20 - {type: content_contains, path: \"out-{sheet_num}\", pattern: done}\n";
    let (alone, desk, job) = without_checkpoint(rules);
    fs::write(desk.path("workspace/out-3"), "half").expect("a file");
    let resumed = output(alone.ctl(["resume", "--yes"]).arg(&job));
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert!(
        said(&resumed).contains("sheets 1-2 of 6 look done"),
        "{}",
        said(&resumed)
    );
    assert_eq!(desk.starts()[&3], 2);
    assert_eq!(desk.starts()[&2], 1);
}

#[test]
fn where_the_files_tell_nothing_resume_says_why_and_names_run() {
    let shared =
        "validations:\n  - {type: file_exists, path: out-1}\n  - {type: command_succeeds, command: \"true\"}\n";
    let (alone, desk, job) = without_checkpoint(shared);
    let refused = output(alone.ctl(["resume", "--yes"]).arg(&job));
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    let words = "no rule names a file that is sheet 1's alone";
    assert!(said(&refused).contains(words), "{}", said(&refused));
    assert!(said(&refused).contains("mozartctl run"), "{}", said(&refused));

    let (alone, desk_of_none, job) = six(WROTE_ITS_FILE);
    let refuses = |words: &str| {
        let refused = output(alone.ctl(["resume", "--yes"]).arg(&job));
        assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    };
    refuses("there is no workspace");
    fs::create_dir(desk_of_none.path("workspace")).expect("none was made");
    refuses("of sheet 1 this does not hold: out-1 exists");

    // And where they tell that all is done there is nothing to resume.
    let (alone, done, job) = without_checkpoint(WROTE_ITS_FILE);
    for sheet in 1..=6 {
        done.write(&format!("workspace/out-{sheet}"), "done");
    }
    let refused = output(alone.ctl(["resume", "--yes"]).arg(&job));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("all 6 sheets look done"), "{}", said(&refused));
    assert_eq!((desk.starts()[&4], done.starts()[&4]), (1, 1), "nothing was started");
}

#[test]
fn a_damaged_checkpoint_is_not_passed_over_for_the_files_nor_written_over() {
    let (alone, desk, job) = forgotten(WROTE_ITS_FILE);
    let path = desk.path("workspace/six.json");
    let whole = fs::read_to_string(&path).expect("the checkpoint");
    let elsewhere = desk.path("elsewhere");
    let cut = &whole[..whole.len() / 2];
    fs::write(&path, cut).expect("a damaged one");
    let refused = |verb: &[&str], code: i32| {
        let refused = output(alone.ctl(verb).arg(&job));
        assert_eq!(refused.status.code(), Some(code), "{verb:?}: {}", said(&refused));
        assert!(said(&refused).contains("six.json"), "{verb:?}: {}", said(&refused));
    };
    refused(&["resume", "--yes"], 4);
    refused(&["run"], 1);
    assert_eq!(fs::read_to_string(&path).expect("it"), cut);

    // One that lies where nobody can look now is not missing either.
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    refused(&["resume", "--yes"], 4);
    refused(&["run"], 1);
    assert_eq!(desk.starts()[&4], 1, "nothing was started");

    fs::write(&elsewhere, &whole).expect("it is back");
    let resumed = output(alone.ctl(["resume"]).arg(&job));
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(desk.starts(), went_on());
}

#[test]
fn run_does_not_write_over_the_checkpoint_of_an_unfinished_run() {
    let (alone, desk, job) = forgotten(WROTE_ITS_FILE);
    let before = fs::read(desk.path("workspace/six.json")).expect("the checkpoint");
    let refused = output(alone.ctl(["run", "--json"]).arg(&job));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert_eq!(json(&refused)["error"]["kind"], "wrong_state");
    for words in [
        "3 of 6 sheets done",
        "mozartctl resume FILE.yaml",
        "mozartctl run --fresh",
    ] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    let shown = alone.typed(["run".as_ref(), job.as_os_str()], "q");
    assert_eq!(shown.status.code(), Some(1), "{}", said(&shown));
    assert!(fs::read(desk.path("workspace/six.json")).expect("it") == before);
    assert_eq!(desk.starts()[&1], 1, "nothing was started");

    let shown = alone.typed(["run".as_ref(), job.as_os_str()], "r");
    assert!(shown.status.success(), "{}", said(&shown));
    assert_eq!(desk.starts(), went_on());

    // What is over, or was told to begin anew, is in nobody's way.
    fs::remove_dir_all(alone.state()).expect("the ledger is gone");
    let again = output(alone.ctl(["run"]).arg(&job));
    assert!(again.status.success(), "{}", said(&again));
    let (alone, desk, job) = forgotten(WROTE_ITS_FILE);
    let fresh = output(alone.ctl(["run", "--fresh"]).arg(&job));
    assert!(fresh.status.success(), "{}", said(&fresh));
    assert_eq!(desk.starts()[&1], 2);
}
