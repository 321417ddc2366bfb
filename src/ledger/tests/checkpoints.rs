use serde_json::{Value, json};

use super::*;
use crate::ledger::checkpoint::{self, Checkpoint, CheckpointError, SheetEntry, due};

const SHEET_KEYS: [&str; 23] = [
    "sheet_num",
    "status",
    "started_at",
    "completed_at",
    "attempt_count",
    "exit_code",
    "exit_signal",
    "exit_reason",
    "error_message",
    "error_category",
    "validation_passed",
    "validation_details",
    "execution_duration_seconds",
    "completion_attempts",
    "passed_validations",
    "failed_validations",
    "last_pass_percentage",
    "execution_mode",
    "stdout_tail",
    "stderr_tail",
    "input_tokens",
    "output_tokens",
    "estimated_cost",
];

const KEYS: [&str; 19] = [
    "job_id",
    "job_name",
    "status",
    "created_at",
    "updated_at",
    "completed_at",
    "total_sheets",
    "last_completed_sheet",
    "current_sheet",
    "error_message",
    "rate_limit_waits",
    "quota_waits",
    "total_retry_count",
    "total_input_tokens",
    "total_output_tokens",
    "total_estimated_cost",
    "config_hash",
    "config_snapshot",
    "sheets",
];

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn it_has_every_key_and_the_words_of_the_python_version() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("review", 6), 0).await;
    complete(&ledger, run, 1, 10).await;
    let (first, second) = (attempt(run, 2, 1), attempt(run, 2, 2));
    commit(&ledger, 20, [intended(first, AttemptKind::First), started(first, 20)]).await;
    let mut failed = report(Some(failure(Cause::Validation, Code::E201)), &[true, false]);
    failed.certificate.exit = Exit::Signal(9);
    failed.certificate.result = "signal".to_owned();
    finish(
        &ledger,
        22,
        first,
        &failed,
        [intended(second, AttemptKind::Completion), started(second, 23)],
    )
    .await;
    commit(
        &ledger,
        24,
        [ended(
            run,
            3,
            Verdict::Skipped {
                reason: "before start sheet".to_owned(),
            },
        )],
    )
    .await;
    commit(&ledger, 25, [ended(run, 4, Verdict::Cancelled)]).await;

    let path = home.directory.path().join("review.json");
    checkpoint::write(&path, &ledger.checkpoint(run).await.unwrap()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(keys(&json), KEYS);
    assert_eq!(json["job_id"], "review");
    assert_eq!(json["job_name"], "review");
    assert_eq!(json["status"], "running");
    assert_eq!(json["created_at"], "2026-11-18T11:06:40Z");
    assert_eq!(json["updated_at"], at(25).to_rfc3339());
    assert_eq!(json["completed_at"], Value::Null);
    assert_eq!(
        (&json["total_sheets"], &json["last_completed_sheet"]),
        (&json!(6), &json!(1))
    );
    assert_eq!(
        (&json["current_sheet"], &json["total_retry_count"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&json["total_input_tokens"], &json["total_output_tokens"]),
        (&json!(200), &json!(40))
    );
    assert_eq!(json["total_estimated_cost"], 0.003);
    assert_eq!(
        (&json["config_hash"], &json["config_snapshot"]),
        (&json!("hash of review"), &json!("name: review\n# as written\n"))
    );

    assert_eq!(
        keys(&json["sheets"]),
        ["1", "2", "3", "4"],
        "sheets that were not started have no entry"
    );
    for sheet in json["sheets"].as_object().unwrap().values() {
        assert_eq!(keys(sheet), SHEET_KEYS);
    }
    let completed = &json["sheets"]["1"];
    assert_eq!(completed["status"], "completed");
    assert_eq!(
        (&completed["exit_code"], &completed["exit_reason"]),
        (&json!(0), &json!("completed"))
    );
    assert_eq!(
        (&completed["validation_passed"], &completed["last_pass_percentage"]),
        (&json!(true), &json!(100.0))
    );
    assert_eq!(
        (&completed["execution_mode"], &completed["execution_duration_seconds"]),
        (&json!("normal"), &json!(2.0))
    );
    assert_eq!(
        (&completed["started_at"], &completed["completed_at"]),
        (&json!(at(10).to_rfc3339()), &json!(at(12).to_rfc3339()))
    );
    assert_eq!(completed["error_message"], Value::Null);
    let running = &json["sheets"]["2"];
    assert_eq!(
        (&running["status"], &running["execution_mode"]),
        (&json!("in_progress"), &json!("completion"))
    );
    assert_eq!(
        (&running["exit_code"], &running["exit_signal"], &running["exit_reason"]),
        (&Value::Null, &json!(9), &json!("killed"))
    );
    assert_eq!(
        (&running["error_category"], &running["error_message"]),
        (&json!("validation"), &json!("it failed with E201"))
    );
    assert_eq!(
        (&running["passed_validations"], &running["failed_validations"]),
        (&json!(["rule 0"]), &json!(["rule 1"]))
    );
    assert_eq!(
        (&running["last_pass_percentage"], &running["validation_passed"]),
        (&json!(50.0), &json!(false))
    );
    let detail = &running["validation_details"][1];
    assert_eq!(
        (
            &detail["type"],
            &detail["passed"],
            &detail["reason"],
            &detail["checked_at"]
        ),
        (
            &json!("file_exists"),
            &json!(false),
            &json!("the file is missing"),
            &json!(at(9).to_rfc3339())
        )
    );
    assert_eq!(
        (&running["attempt_count"], &running["completion_attempts"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(json["sheets"]["3"]["status"], "skipped");
    assert_eq!(json["sheets"]["4"]["status"], "pending");

    // Readable: a line for each key and each sheet.
    assert!(text.contains("\n  \"total_sheets\": 6,\n"), "{text}");
    assert!(text.contains("\n    \"3\": {\"sheet_num\":3,"), "{text}");
    assert_eq!(text.lines().count(), KEYS.len() + 4 + 3, "{text}");
}

#[tokio::test]
async fn the_state_of_the_run_has_a_python_word() {
    let home = Home::new();
    let ledger = home.open().await;
    let run = submit(&ledger, &plan("a", 2), 0).await;
    assert_eq!(ledger.checkpoint(run).await.unwrap().status, "pending");
    let verdict = Verdict::Failed {
        cause: Cause::Fatal,
        code: Code::E502,
        message: "not logged in".to_owned(),
    };
    commit(&ledger, 5, [ended(run, 2, verdict)]).await;
    end(&ledger, run, 6, RunState::Failed).await;
    let checkpoint = ledger.checkpoint(run).await.unwrap();
    assert_eq!(checkpoint.status, "failed");
    assert_eq!(checkpoint.error_message.as_deref(), Some("sheet 2: not logged in"));
    assert_eq!(checkpoint.completed_at, Some(at(6).to_rfc3339()));
}

#[tokio::test]
async fn tails_are_short_but_for_failed_sheets_and_where_all_is_wanted() {
    let home = Home::new();
    let ledger = home.open().await;
    let mut whole = plan("whole", 2);
    whole.checkpoint_every_sheet = true;
    for (plan, kept) in [(plan("short", 2), [500, 9_000]), (whole, [9_000, 9_000])] {
        let run = submit(&ledger, &plan, 0).await;
        let fatal = || failure(Cause::Fatal, Code::E009);
        let failed = Verdict::Failed {
            cause: Cause::Fatal,
            code: Code::E009,
            message: "no".to_owned(),
        };
        for (sheet, why, verdict) in [(1, None, Verdict::Completed), (2, Some(fatal()), failed)] {
            let of = attempt(run, sheet, 1);
            let mut report = report(why, &[]);
            report.session.stdout_tail = "o".repeat(9_000);
            commit(&ledger, 1, [intended(of, AttemptKind::First)]).await;
            finish(&ledger, 2, of, &report, [ended(run, sheet, verdict)]).await;
        }
        let sheets = ledger.checkpoint(run).await.unwrap().sheets;
        let lengths = [1, 2].map(|number| sheets[&number].stdout_tail.as_ref().unwrap().len());
        assert_eq!(lengths, kept, "{}", plan.name);
    }
}

#[test]
fn it_is_written_by_the_rule() {
    let count = |total: u32| {
        let (mut written, mut times) = (0, Vec::new());
        for ended in 1..=total {
            if due(total, ended, written) {
                written = ended;
                times.push(ended);
            }
        }
        times
    };
    assert_eq!(count(50), (1..=50).collect::<Vec<_>>());
    let thousand = count(1_000);
    assert_eq!(thousand[..50], (1..=50).collect::<Vec<_>>());
    assert_eq!(thousand[50..53], [70, 90, 110]);
    assert_eq!(thousand.len(), 97);
    assert_eq!(count(10)[9], 10);
    assert!(!due(1_000, 500, 500));
    assert!(!due(1_000, 519, 500) && due(1_000, 520, 500));
    assert!(due(1_000, 499, 500), "opened again");
    assert!(due(60, 52, 50) && !due(60, 51, 50), "two in a hundred of sixty are two");
}

#[test]
fn the_more_there_is_to_write_the_longer_the_pause() {
    let seconds = [0, 50, 199, 200, 1_000].map(|ended| checkpoint::pause(ended).0 / 1_000_000);
    assert_eq!(seconds, [1, 1, 1, 2, 10]);
}

#[test]
fn it_is_replaced_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let named = |name: &str| Checkpoint {
        job_id: name.to_owned(),
        ..Checkpoint::default()
    };
    // A session may have put a link where the temporary file goes.
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, directory.path().join(".a.json.tmp")).unwrap();
    checkpoint::write(&path, &named("one")).unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    checkpoint::write(&path, &named("two")).unwrap();
    assert_eq!(checkpoint::read(&path).unwrap().job_id, "two");
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        2,
        "no temporary file is left"
    );

    let missing = directory.path().join("gone/a.json");
    let error = checkpoint::write(&missing, &named("three")).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "cannot create the checkpoint {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    std::fs::create_dir(directory.path().join("b.json")).unwrap();
    let error = checkpoint::write(&directory.path().join("b.json"), &named("four")).unwrap_err();
    assert!(
        matches!(
            error,
            CheckpointError::Io {
                activity: "put in place",
                ..
            }
        ),
        "{error}"
    );
    assert!(!directory.path().join(".b.json.tmp").exists());
}

#[test]
fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let sheet = |number: u32, status: &str| SheetEntry {
        sheet_num: number,
        status: status.to_owned(),
        stdout_tail: Some("\"quoted\"\n\u{1f980}".to_owned()),
        last_pass_percentage: Some(66.6),
        ..SheetEntry::default()
    };
    let entries = [
        (1, "completed"),
        (2, "failed"),
        (3, "completed"),
        (4, "skipped"),
        (5, "in_progress"),
    ];
    let written = Checkpoint {
        job_id: "a".to_owned(),
        total_sheets: 6,
        config_snapshot: json!("name: a"),
        sheets: entries
            .into_iter()
            .map(|(number, status)| (number, sheet(number, status)))
            .collect(),
        ..Checkpoint::default()
    };
    checkpoint::write(&path, &written).unwrap();
    let read = checkpoint::read(&path).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.completed_sheets(), [1, 3]);
    assert_eq!(read.skipped_sheets(), [4]);
}

#[test]
fn a_checkpoint_of_the_python_version_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.json");
    let read = |json: Value| {
        std::fs::write(&path, json.to_string()).unwrap();
        checkpoint::read(&path).unwrap()
    };
    let old = read(json!({
        "job_id": "review", "job_name": "review", "status": "running", "pid": 4711, "worktree_path": null,
        "created_at": "2026-02-16T10:00:00.123456Z", "total_sheets": 4, "last_completed_sheet": 3,
        "config_snapshot": {"name": "review", "sheet": {"size": 10}}, "total_estimated_cost": 1.25,
        "sheets": {
            "1": {"sheet_num": 1, "status": "completed", "attempt_count": 2, "validation_passed": true,
                  "validation_details": [{"rule_type": "file_exists", "passed": true}], "applied_pattern_ids": []},
            "2": {"sheet_num": 2, "status": "failed", "exit_code": null, "estimated_cost": 0.5},
            "3": {"sheet_num": 3, "status": "completed", "validation_passed": false},
            "4": {"sheet_num": 4, "status": "completed", "validation_details": null, "attempt_count": "many"},
            "extra": {"status": "completed"},
        },
    }));
    // Each by its own word: not by `last_completed_sheet`, and not where its own validation failed.
    assert_eq!(old.completed_sheets(), [1, 4]);
    assert_eq!((old.total_sheets, old.total_estimated_cost), (4, 1.25));
    assert_eq!((old.sheets[&4].attempt_count, old.sheets[&1].attempt_count), (0, 2));

    let older =
        read(json!({"job_id": "a", "total_batches": 2, "batches": {"2": {"batch_num": 2, "status": "completed"}}}));
    assert_eq!((older.completed_sheets(), older.total_sheets), (vec![2], 2));
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.json");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = checkpoint::read(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Other { .. }), "{error}");
        assert!(
            error.to_string().contains("x.json is not a checkpoint of Mozart: "),
            "{error}"
        );
    };
    refused(b"");
    refused(b"\xff\xfe\0binary");
    refused(b"[1, 2]");
    refused(b"{\"job_id\": \"a\"}");
    refused(b"{\"sheets\": [1]}");
    refused(&b"[".repeat(100_000));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        checkpoint::read(&path),
        Err(CheckpointError::Io { activity: "open", .. })
    ));
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let error = checkpoint::read(&path).unwrap_err();
    assert!(error.to_string().ends_with("it is not a regular file"), "{error}");
}
