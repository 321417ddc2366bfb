//! Mistakes that the Python version made: each test fails if Mozart makes it too. Numbers as in that list.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Alone, Desk, MOZARTCTL, WROTE_ITS_FILE, json, output, said, sheet_states, wait_until};

fn alone() -> Alone {
    let alone = Alone::new();
    alone.settings("launcher: supervised\n");
    alone
}

fn run(alone: &Alone, job: &std::path::Path) -> std::process::Output {
    output(alone.ctl(["run"]).arg(job))
}

#[test]
fn mistake_01_a_limit_is_really_waited_for() {
    let (alone, desk) = (alone(), Desk::new());
    let limits = "rate_limit: {detection_patterns: [come back later]}\nretry: {max_retries: 9, transient_retries: 9}\n";
    let job = desk.job("limited", 2, "echo come back later >&2; exit 1", limits);
    let mut waiting = alone
        .ctl(["run"])
        .arg(&job)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mozartctl");
    std::thread::sleep(Duration::from_secs(3));
    let starts = desk.starts();
    waiting.kill().expect("kill");
    waiting.wait().expect("wait");
    assert_eq!(
        starts.into_iter().collect::<Vec<_>>(),
        [(1, 1)],
        "one call in three seconds, and it waits"
    );
}

#[test]
fn mistake_02_parallel_sheets_do_not_mix_their_outputs() {
    let (alone, desk) = (alone(), Desk::new());
    let script = "i=0; while [ $i -lt 200 ]; do echo sheet-$n-line-$i; i=$((i+1)); done";
    let job = desk.job("mixed", 8, script, "parallel: {enabled: true, max_concurrent: 8}\n");
    let done = run(&alone, &job);
    assert!(done.status.success(), "{}", said(&done));
    for sheet in 1..=8 {
        let sheet = sheet.to_string();
        let shown = output(&mut alone.ctl(["logs", "mixed", "--sheet", &sheet, "--lines", "1000"]));
        assert!(shown.status.success(), "{}", said(&shown));
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let own = text
            .lines()
            .filter(|line| line.contains(&format!("sheet-{sheet}-line-")))
            .count();
        let all = text.lines().filter(|line| line.contains("-line-")).count();
        assert_eq!((own, all), (200, 200), "sheet {sheet}");
    }
}

#[test]
fn mistake_03_a_failed_agent_without_validations_is_not_completed() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("failing", 1, "exit 3", "retry: {max_retries: 0}\n");
    assert_eq!(run(&alone, &job).status.code(), Some(1));
    let status = alone.status("failing");
    assert_eq!(status["state"], "failed");
    assert_eq!(status["sheets"][0]["code"], "E009");
}

#[test]
fn mistake_04_a_resume_after_a_parallel_failure_makes_no_failed_sheet_completed() {
    let (alone, desk) = (alone(), Desk::new());
    // Sheets 2 and 4 fail until they are mended; all are at work at once.
    let script = "touch begun-$n; until [ -e begun-1 ] && [ -e begun-2 ] && [ -e begun-3 ] && [ -e begun-4 ]; \
                  do sleep 0.02; done; case $n in [24]) [ -e mended ] || exit 0;; esac; \
                  mkdir -p workspace; echo done > workspace/out-$n";
    let more = format!(
        "parallel: {{enabled: true, max_concurrent: 4, fail_fast: false}}\nretry: {{max_retries: 0}}\n{WROTE_ITS_FILE}"
    );
    let job = desk.job("parallel", 4, script, &more);
    let states = || sheet_states(&alone.status("parallel"));
    let before = ["completed", "failed", "completed", "failed"];
    assert_eq!(run(&alone, &job).status.code(), Some(1));
    assert_eq!(states(), before);
    let resume = || output(&mut alone.ctl(["resume", "parallel"]));
    assert_eq!(resume().status.code(), Some(1));
    assert_eq!(states(), before, "they failed again");
    desk.write("mended", "");
    let resumed = resume();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(states(), ["completed"; 4]);
    assert_eq!(desk.starts(), [(1, 1), (2, 3), (3, 1), (4, 3)].into());
    assert!(desk.path("workspace/out-2").exists() && desk.path("workspace/out-4").exists());
}

#[test]
fn mistake_05_pause_then_resume_in_the_same_conductor_goes_on() {
    let (alone, desk) = (alone(), Desk::new());
    let script = "sleep 0.3; mkdir -p workspace; echo done > workspace/out-$n";
    let job = desk.job("paused", 4, script, WROTE_ITS_FILE);
    let mut running = alone
        .ctl(["run"])
        .arg(&job)
        .stdout(Stdio::null())
        .spawn()
        .expect("mozartctl");
    wait_until("it runs", Duration::from_secs(10), || !desk.starts().is_empty());
    let pause = output(&mut alone.ctl(["pause", "paused"]));
    assert!(pause.status.success(), "{}", said(&pause));
    wait_until("it is paused", Duration::from_secs(5), || {
        alone.status("paused")["state"] == "paused"
    });
    std::thread::sleep(Duration::from_millis(700));
    assert!(desk.starts().len() < 4, "nothing new starts while paused");
    let resume = output(alone.ctl(["resume", "paused"]).stdout(Stdio::null()));
    assert!(resume.status.success(), "{}", said(&resume));
    wait_until("it ends", Duration::from_secs(20), || {
        alone.status("paused")["state"] == "completed"
    });
    drop(running.wait());
    assert!(desk.starts().values().all(|count| *count == 1), "{:?}", desk.starts());
}

#[test]
fn mistake_11_a_limited_job_lets_others_in() {
    let (alone, desk) = (alone(), Desk::new());
    let limited = "echo 'come back later' >&2; exit 1";
    let limits = "rate_limit: {detection_patterns: ['Back.later']}\n";
    let limited = desk.job("limited", 2, limited, limits);
    let mut waiting = alone
        .ctl(["run"])
        .arg(&limited)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mozartctl");
    wait_until("it waits for its limit", Duration::from_secs(10), || {
        alone.status("limited")["sheets"][0]["cause"] == "rate_limit"
    });
    for name in ["other", "another"] {
        let job = desk.job(name, 2, "true", "");
        let done = run(&alone, &job);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    }
    let cancelled = output(&mut alone.ctl(["cancel", "limited"]));
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    assert_eq!(waiting.wait().expect("mozartctl").code(), Some(3));
}

#[test]
fn mistake_12_status_of_thousands_of_sheets_is_told_also_when_the_run_is_over() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("large", 6000, "true", "");
    let done = output(alone.ctl(["run", "--start-sheet", "6000"]).arg(&job));
    assert!(done.status.success(), "{}", said(&done));
    let shown = output(&mut alone.ctl(["status", "large", "--json"]));
    assert!(shown.stdout.len() > 1024 * 1024, "{} bytes", shown.stdout.len());
    let states = sheet_states(&json(&shown));
    assert_eq!(states.len(), 6000);
    assert_eq!(states.iter().filter(|state| *state == "skipped").count(), 5999);
    assert_eq!(states[5999], "completed");
}

#[test]
fn mistake_13_every_sheet_is_told_its_paths_and_a_retry_what_failed() {
    let (alone, desk) = (alone(), Desk::new());
    let prompts = desk.path("prompts");
    std::fs::create_dir(&prompts).expect("a directory");
    let script = "p=$(cat); n=$(printf '%s' \"$p\" | head -1); mkdir -p workspace; c=$(ls prompts | grep -c \"^$n-\"); \
                  printf '%s' \"$p\" > prompts/$n-$c; test $n-$c = 2-0 || echo done > workspace/out-$n.md";
    let script = serde_json::to_string(script).expect("a text");
    let job = desk.write(
        "told.yaml",
        &format!(
            "name: told\nworkspace: ./workspace\npause_between_sheets_seconds: 0\n\
             backend: {{type: command, command: [sh, -c, {script}], working_directory: .}}\n\
             sheet: {{size: 1, total_items: 2, prompt_extensions: {{2: [Mind the second.]}}}}\n\
             prompt: {{template: \"{{{{ sheet_num }}}}\", prompt_extensions: [Write plainly.]}}\n\
             retry: {{max_retries: 1, base_delay_seconds: 0.05, jitter: false}}\n\
             validations: [{{type: file_exists, path: \"{{workspace}}/out-{{sheet_num}}.md\"}}]\n"
        ),
    );
    let done = run(&alone, &job);
    assert!(done.status.success(), "{}", said(&done));
    let prompt = |name: &str| std::fs::read_to_string(prompts.join(name)).expect("a prompt");
    assert!(prompt("1-0").contains("out-1.md"), "{}", prompt("1-0"));
    assert!(prompt("2-0").contains("out-2.md"), "{}", prompt("2-0"));
    let (first, retry) = (prompt("2-0"), prompt("2-1"));
    assert_ne!(first, retry);
    assert!(
        retry.len() > first.len() && retry.matches("out-2.md").count() > first.matches("out-2.md").count(),
        "{retry}"
    );
    // Extensions take nothing away, neither from the first prompt nor from the retry's.
    for prompt in [first, retry] {
        assert!(prompt.ends_with("Write plainly.\n\nMind the second."), "{prompt}");
    }
}

#[test]
fn mistake_14_a_timeout_takes_its_time_and_no_child_is_left() {
    let (alone, desk) = (alone(), Desk::new());
    let mark = format!("32{:07}", std::process::id());
    let script = format!("setsid sleep {mark} & sleep {mark}");
    let job = desk.job("slow", 1, &script, "retry: {max_retries: 0, transient_retries: 0}\n");
    let text = std::fs::read_to_string(&job).expect("the job");
    std::fs::write(
        &job,
        text.replace("working_directory: .", "working_directory: ., timeout_seconds: 2"),
    )
    .expect("the job");
    let start = Instant::now();
    let done = run(&alone, &job);
    let took = start.elapsed();
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(4),
        "{took:?}"
    );
    assert_eq!(alone.status("slow")["sheets"][0]["code"], "E001");
    let left = output(Command::new("pgrep").args(["-f", &format!("sleep {mark}")]));
    assert!(left.stdout.is_empty(), "{}", said(&left));
}

#[test]
fn mistake_15_a_background_child_that_holds_stdout_does_not_keep_the_sheet_running() {
    let (alone, desk) = (alone(), Desk::new());
    let mark = format!("33{:07}", std::process::id());
    let script = format!("sleep {mark} & mkdir -p workspace; echo done > workspace/out-$n");
    let job = desk.job("held", 1, &script, WROTE_ITS_FILE);
    let start = Instant::now();
    let done = run(&alone, &job);
    assert!(done.status.success(), "{}", said(&done));
    assert!(start.elapsed() < Duration::from_secs(5));
    let left = output(Command::new("pgrep").args(["-f", &format!("sleep {mark}")]));
    assert!(left.stdout.is_empty(), "{}", said(&left));
}

#[test]
fn mistake_17_a_sheet_of_a_job_twice_as_long_does_not_cost_more_to_write() {
    // After every sheet a checkpoint of all of them: 1.7 times as much a sheet, as `state_backend: json` shows.
    const SHEETS: u32 = 100;
    let (few, many) = (written_per_sheet(SHEETS), written_per_sheet(2 * SHEETS));
    assert!(few > 0 && 2 * many < 3 * few, "{few} bytes a sheet, then {many}");
}

/// Bytes that the conductor and all that it started handed to the kernel for a job of so many sheets, by sheet.
fn written_per_sheet(sheets: u32) -> u64 {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("long", sheets, "", "");
    // The kernel adds to a process's account those of the children that it waited for.
    let mut counted = alone.program("sh");
    counted.args(["-c", r#""$@" >&2 && cat /proc/$$/io"#, "sh", MOZARTCTL, "run"]);
    let done = output(counted.arg(&job));
    assert!(done.status.success(), "{}", said(&done));
    let account = String::from_utf8_lossy(&done.stdout);
    let written = account.lines().find_map(|line| line.strip_prefix("wchar: "));
    let written: u64 = written.expect("an account").parse().expect("a number");
    written / u64::from(sheets)
}

/// A job whose sheets write that word, and whose rule is that it stands there.
fn writes(desk: &Desk, name: &str, sheets: u32, word: &str, more: &str) -> std::path::PathBuf {
    let script = format!("{more}; mkdir -p workspace; echo {word} > workspace/out-$n");
    let rule = format!(
        "retry: {{max_retries: 0}}\nvalidations:\n  - {{type: content_contains, path: \"out-{{sheet_num}}\", pattern: {word}}}\n"
    );
    desk.job(name, sheets, &script, &rule)
}

fn written(desk: &Desk, sheets: u32) -> Vec<String> {
    let file = |sheet| desk.lines(&format!("workspace/out-{sheet}")).concat();
    (1..=sheets).map(file).collect()
}

#[test]
fn mistake_16_modify_gives_the_new_file_to_what_is_not_done() {
    let (alone, desk) = (alone(), Desk::new());
    let job = writes(
        &desk,
        "modified",
        4,
        "old",
        "test $n != 2 || until [ -e go ]; do sleep 0.02; done",
    );
    let mut running = alone
        .ctl(["run"])
        .arg(&job)
        .stdout(Stdio::null())
        .spawn()
        .expect("mozartctl");
    wait_until("sheet 2 is at work", Duration::from_secs(20), || {
        desk.starts().contains_key(&2)
    });
    let modify = |arguments: &[&str]| output(alone.ctl(["modify", "modified", "-c"]).arg(&job).args(arguments));
    assert!(String::from_utf8_lossy(&modify(&[]).stdout).contains("nothing has changed"));

    let job = writes(&desk, "modified", 5, "new", "true");
    let modified = json(&output(alone.ctl(["modify", "modified", "--json", "-c"]).arg(&job)));
    assert_eq!(
        modified["parts"],
        serde_json::json!(["backend", "sheet", "validations"]),
        "{modified:#}"
    );
    let becomes = |at: usize| modified["sheets"][at]["becomes"].clone();
    assert_eq!(
        [becomes(0), becomes(1), becomes(2), becomes(3)],
        ["kept", "next_attempt", "new_plan", "added"]
    );
    assert!(String::from_utf8_lossy(&modify(&[]).stdout).contains("nothing has changed"));
    desk.write("go", "");
    let ended = running.wait().expect("it ends");
    assert!(ended.success(), "{:#}", alone.status("modified"));
    // Sheet 2 was started with the old plan, and was checked by it.
    assert_eq!(written(&desk, 5), ["old", "old", "new", "new", "new"]);
    assert_eq!(desk.starts(), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)].into());
    let checkpoint = std::fs::read_to_string(desk.path("workspace/modified.json")).expect("the checkpoint");
    let checkpoint: serde_json::Value = serde_json::from_str(&checkpoint).expect("JSON");
    assert!(
        checkpoint["config_snapshot"]
            .as_str()
            .is_some_and(|text| text.contains("echo new"))
    );
    assert_eq!(
        (checkpoint["total_sheets"].as_u64(), checkpoint["status"].as_str()),
        (Some(5), Some("completed"))
    );

    let over = modify(&[]);
    assert_eq!(over.status.code(), Some(1));
    assert!(said(&over).contains("run --fresh"), "{}", said(&over));
}

#[test]
fn mistake_16_resume_goes_on_with_the_new_file() {
    let (alone, desk) = (alone(), Desk::new());
    let job = writes(&desk, "mended", 3, "old", "test $n != 2 || exit 3");
    assert_eq!(run(&alone, &job).status.code(), Some(1));
    let resume = |arguments: &[&str]| output(alone.ctl(["resume", "mended"]).args(arguments));

    // What was made would be lost, or counted for something else.
    let elsewhere = desk.write(
        "elsewhere.yaml",
        &std::fs::read_to_string(&job)
            .expect("the job")
            .replace("./workspace", "./other"),
    );
    let (elsewhere, path) = (elsewhere.to_str().expect("a path"), job.to_str().expect("a path"));
    assert_eq!(resume(&["-c", elsewhere]).status.code(), Some(1));
    let fewer = writes(&desk, "mended", 0, "new", "true");
    assert_eq!(
        resume(&["-c", fewer.to_str().expect("a path")]).status.code(),
        Some(1),
        "it has an error"
    );
    let plain = output(alone.ctl(["modify", "mended", "-c", elsewhere]));
    assert!(
        plain.status.code() == Some(1) && said(&plain).contains("other"),
        "{}",
        said(&plain)
    );

    writes(&desk, "mended", 3, "new", "test $n != 3 || exit 3");
    let plain = output(alone.ctl(["modify", "mended", "-c", path]));
    assert!(
        plain.status.code() == Some(1) && said(&plain).contains("resume mended -c"),
        "{}",
        said(&plain)
    );
    assert_eq!(resume(&["-c", path]).status.code(), Some(1), "sheet 3 fails with it");
    assert_eq!(written(&desk, 3), ["old", "new", ""]);

    // The file that it came from, as it is now.
    writes(&desk, "mended", 3, "newer", "true");
    let resumed = resume(&["--reload-config"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(written(&desk, 3), ["old", "new", "newer"]);
    assert_eq!(desk.starts(), [(1, 1), (2, 2), (3, 2)].into());
}

#[test]
fn mistake_16_recover_keeps_what_it_finds() {
    let (alone, desk) = (alone(), Desk::new());
    let script =
        "test $n -lt 3 || test -e go || exit 3; mkdir -p workspace; test $n = 2 || echo done > workspace/out-$n";
    let more = format!("retry: {{max_retries: 0}}\nparallel: {{enabled: true, fail_fast: false}}\n{WROTE_ITS_FILE}");
    let job = desk.job(
        "recovered",
        4,
        script,
        &format!("{more}  - {{type: command_succeeds, command: 'test -e out-{{sheet_num}}'}}\n"),
    );
    assert_eq!(run(&alone, &job).status.code(), Some(1));
    let states = || sheet_states(&alone.status("recovered"));
    assert_eq!(states(), ["completed", "failed", "failed", "failed"]);
    let recover = |arguments: &[&str]| output(alone.ctl(["recover", "recovered"]).args(arguments));
    let nothing = recover(&[]);
    assert!(
        nothing.status.success() && states()[1..] == ["failed"; 3],
        "{}",
        said(&nothing)
    );

    // A person does what two of the sessions did not.
    desk.write("workspace/out-2", "by hand");
    desk.write("workspace/out-3", "by hand");
    let told = json(&recover(&["--dry-run", "--json"]));
    let is: Vec<_> = (0..3)
        .map(|at| told["sheets"][at]["is"].as_str().unwrap_or("?").to_owned())
        .collect();
    assert_eq!(
        (is, states()),
        (
            vec!["completed".into(), "completed".into(), "failed".into()],
            vec![
                "completed".to_owned(),
                "failed".into(),
                "failed".into(),
                "failed".into()
            ]
        )
    );
    let one = recover(&["--sheet", "2"]);
    assert!(one.status.success(), "{}", said(&one));
    assert_eq!(states(), ["completed", "completed", "failed", "failed"]);
    let all = recover(&[]);
    assert!(
        said(&all).contains("out-4"),
        "the rule that does not hold is told: {}",
        said(&all)
    );
    assert_eq!(states(), ["completed", "completed", "completed", "failed"]);
    let status = alone.status("recovered");
    assert_eq!(status["sheets"][2]["validations"][1]["passed"], true, "{status:#}");
    let checkpoint = std::fs::read_to_string(desk.path("workspace/recovered.json")).expect("the checkpoint");
    let checkpoint: serde_json::Value = serde_json::from_str(&checkpoint).expect("JSON");
    let kept = &checkpoint["sheets"]["3"];
    assert_eq!(
        (kept["status"].as_str(), kept["validation_passed"].as_bool()),
        (Some("completed"), Some(true))
    );
    assert_eq!(
        desk.starts(),
        [(1, 1), (2, 1), (3, 1), (4, 1)].into(),
        "nothing was run"
    );

    desk.write("go", "");
    let resumed = output(alone.ctl(["resume", "recovered"]));
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(desk.starts(), [(1, 1), (2, 1), (3, 1), (4, 2)].into());
    assert_eq!(desk.lines("workspace/out-3"), ["by hand"]);
}

#[test]
fn mistake_18_json_is_not_wrapped_to_the_terminals_width() {
    let (alone, desk) = (alone(), Desk::new());
    let long = "a long name ".repeat(9);
    let job = desk.job("wrapped", 1, "true", &format!("description: {long}\n"));
    assert!(run(&alone, &job).status.success());
    let shown = output(alone.ctl(["status", "wrapped", "--json"]).env("COLUMNS", "20"));
    let value = json(&shown);
    assert_eq!(value["state"], "completed");
    let validate = output(alone.ctl(["validate", "--json"]).arg(&job).env("COLUMNS", "20"));
    json(&validate);
}

#[test]
fn mistake_19_exactly_half_of_the_rules_is_enough_for_completion_mode_or_a_retry_but_never_for_nothing() {
    let (alone, desk) = (alone(), Desk::new());
    let script = "mkdir -p workspace; touch workspace/a-$n; test $(grep -c . starts) -lt 2 || touch workspace/b-$n";
    let more = "retry: {max_retries: 1, base_delay_seconds: 0.05, jitter: false, completion_threshold_percent: 50}\n\
                validations:\n  - {type: file_exists, path: \"{workspace}/a-{sheet_num}\"}\n\
                \x20 - {type: file_exists, path: \"{workspace}/b-{sheet_num}\"}\n";
    let job = desk.job("half", 1, script, more);
    let done = run(&alone, &job);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(alone.status("half")["sheets"][0]["attempts"], 2);
}

#[test]
fn mistake_20_typos_are_told_with_what_was_meant() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job(
        "typo",
        1,
        "true",
        "retry: {max_retrys: 1}\npause_between_sheet_seconds: 1\n",
    );
    let done = run(&alone, &job);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let text = said(&done);
    assert!(
        text.contains("max_retries") && text.contains("pause_between_sheets_seconds"),
        "{text}"
    );
    assert!(desk.starts().is_empty());
}

#[test]
fn mistake_20_a_cycle_is_told_as_a_path_before_anything_runs() {
    let (alone, desk) = (alone(), Desk::new());
    let job = desk.job("cycle", 4, "true", WROTE_ITS_FILE);
    let text = std::fs::read_to_string(job).expect("the job");
    let rules = "total_items: 4, dependencies: {2: [1, 4], 3: [2], 4: [3]}";
    let job = desk.write("cycle.yaml", &text.replace("total_items: 4", rules));
    for verb in ["validate", "run"] {
        let shown = output(alone.ctl([verb]).arg(&job));
        assert_eq!(shown.status.code(), Some(1), "{verb}: {}", said(&shown));
        let text = said(&shown);
        assert!(
            text.contains("2 → 4 → 3 → 2") && text.contains("cycle.yaml:5:"),
            "{verb}: {text}"
        );
    }
    assert!(desk.starts().is_empty());
}
