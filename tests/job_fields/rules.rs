//! The validations: what each kind of rule looks at, and what the fields of a rule change.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::Person;
use crate::support::wait_until;

/// Runs one sheet with these rules after `script`; what is told of each rule. No retries.
fn checked(person: &Person, script: &str, rules: &str) -> Vec<Value> {
    let file = person.job(
        1,
        script,
        &format!("retry: {{max_retries: 0}}\nvalidations:\n{rules}"),
        &[],
    );
    person.run(&file);
    let status = person.alone.status("job");
    let rules = status["sheets"][0]["validations"].as_array();
    rules.unwrap_or_else(|| panic!("no rules in {status}")).clone()
}

fn passed(rules: &[Value]) -> Vec<bool> {
    rules.iter().map(|rule| rule["passed"] == true).collect()
}

// field: validations.type.file_exists
// field: validations.type.file_modified
// field: validations.type.content_contains
// field: validations.type.content_regex
// field: validations.type.command_succeeds
// field: validations.path
// field: validations.pattern
// field: validations.command
#[test]
fn each_kind_of_rule_passes_and_fails_by_what_it_names() {
    let person = Person::new();
    person.desk.write("workspace/old", "old\n");
    person.desk.write("workspace/touched", "old\n");
    fs::create_dir(person.desk.path("workspace/directory")).expect("a directory");
    let rules = checked(
        &person,
        "echo more >> workspace/touched; echo 'abc 1{' > workspace/out-1; touch workspace/new",
        r#"
  - {type: file_exists, path: "{workspace}/out-{sheet_num}"}
  - {type: file_exists, path: "out-{{ sheet_num + 1 }}"}
  - {type: file_exists, path: directory}
  - {type: file_modified, path: touched}
  - {type: file_modified, path: new}
  - {type: file_modified, path: old}
  - {type: content_contains, path: out-1, pattern: "c {sheet_num}{"}
  - {type: content_contains, path: out-1, pattern: "a.c"}
  - {type: content_regex, path: out-1, pattern: "^a.c [0-9]\\{$"}
  - {type: content_regex, path: touched, pattern: "^more"}
  - {type: command_succeeds, command: "grep -q 'abc {sheet_num}' out-{{ sheet_num }}"}
  - {type: command_succeeds, command: "exit 3"}
"#,
    );
    assert_eq!(
        passed(&rules),
        [
            true, false, false, true, true, false, true, false, true, false, true, false
        ],
        "{rules:#?}"
    );
    assert_eq!(rules[11]["actual"], "exit status 3, no output");
}

// field: validations.description
#[test]
fn a_rule_is_called_by_its_description() {
    let person = Person::new();
    let rules = checked(
        &person,
        "true",
        "  - {type: file_exists, path: none, description: 'The report of {sheet_num}'}\n",
    );
    assert_eq!(rules[0]["description"], "The report of 1");
    let message = person.alone.status("job")["sheets"][0]["message"].clone();
    assert!(
        message.as_str().is_some_and(|text| text.contains("The report of 1")),
        "{message}"
    );
}

// field: validations.working_directory
// field: validations.timeout_seconds
#[test]
fn a_checks_command_has_its_directory_and_its_time() {
    let person = Person::new();
    let rules = checked(
        &person,
        "mkdir -p workspace/sub; touch workspace/sub/here",
        "  - {type: command_succeeds, command: test -e here, working_directory: sub}\n\
         \x20 - {type: command_succeeds, command: test -e here}\n\
         \x20 - {type: command_succeeds, command: sleep 1, timeout_seconds: 0.3}\n\
         \x20 - {type: command_succeeds, command: sleep 1}\n",
    );
    assert_eq!(passed(&rules), [true, false, false, true], "{rules:#?}");
    assert_eq!(rules[2]["code"], "E204");
}

// field: validations.retry_count
// field: validations.retry_delay_ms
#[test]
fn a_rule_is_looked_at_again_as_often_and_as_late_as_it_says() {
    let person = Person::new();
    let note = |file: &str| format!("date +%s%N >> {file}; test $(wc -l < {file}) -ge 3");
    let rules = checked(
        &person,
        "true",
        &format!(
            "  - {{type: command_succeeds, command: '{}', retry_count: 2, retry_delay_ms: 400}}\n\
             \x20 - {{type: command_succeeds, command: '{}', retry_count: 1, retry_delay_ms: 0}}\n\
             \x20 - {{type: command_succeeds, command: '{}'}}\n\
             \x20 - {{type: file_exists, path: none, retry_count: 1, retry_delay_ms: 600}}\n",
            note("three"),
            note("two"),
            note("one"),
        ),
    );
    assert_eq!(passed(&rules), [true, false, false, false], "{rules:#?}");
    let times = |name: &str| -> Vec<u64> {
        let lines = person.desk.lines(&format!("workspace/{name}"));
        lines.iter().map(|line| line.parse().expect("a time")).collect()
    };
    assert_eq!(
        (times("three").len(), times("two").len(), times("one").len()),
        (3, 2, 1)
    );
    assert!(times("three").windows(2).all(|pair| pair[1] - pair[0] >= 400_000_000));
    assert!(rules[3]["duration_ms"].as_u64() >= Some(600), "{}", rules[3]);
}

// field: validations.stage
#[test]
fn a_later_stage_is_not_looked_at_where_an_earlier_one_failed() {
    let person = Person::new();
    let rules = checked(
        &person,
        "mkdir -p workspace",
        "  - {type: command_succeeds, command: touch second, stage: 2}\n\
         \x20 - {type: file_exists, path: none, stage: 1}\n\
         \x20 - {type: command_succeeds, command: touch first}\n",
    );
    assert_eq!(passed(&rules), [false, false, true], "{rules:#?}");
    assert_eq!(rules[0]["category"], "skipped");
    let made = |name: &str| person.desk.path(&format!("workspace/{name}")).exists();
    assert_eq!((made("first"), made("second")), (true, false));
}

// field: validations.condition
#[test]
fn a_rule_holds_only_for_the_sheets_of_its_condition() {
    let person = Person::new();
    let file = person.job(
        3,
        "true",
        "retry: {max_retries: 0}\nvalidations: [{type: file_exists, path: none, condition: 'sheet_num >= 3 and stage == 3'}]\n",
        &[],
    );
    let failed = person.fails(&file);
    assert_eq!(failed["sheet_num"], 3);
    let status = person.alone.status("job");
    assert_eq!(status["sheets"][1]["validations"], Value::Array(Vec::new()));
}

// field: state_path
#[test]
fn the_checkpoint_stands_where_the_job_says() {
    let person = Person::new();
    let file = person.job(2, "true", "state_path: ./kept/here/state.json\n", &[]);
    person.completes(&file);
    assert_eq!(
        person.checkpoint("workspace/kept/here/state.json")["status"],
        "completed"
    );
    assert!(!person.desk.path("workspace/job.json").exists());
}

// field: state_backend
#[test]
fn a_json_state_is_whole_and_written_after_every_sheet() {
    let tail = |state_backend: &str| {
        let person = Person::new();
        let done = person.desk.path("looked");
        // The last sheet goes on when the test has looked.
        let script = format!(
            "seq 1000 1999; test $n -lt 4 || until test -e {}; do sleep 0.02; done",
            done.display()
        );
        let file = person.job(4, &script, &format!("state_backend: {state_backend}\n"), &[]);
        let mut run = person
            .alone
            .ctl(["run"])
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("mozartctl");
        wait_until(
            "all sheets before the last are in the checkpoint",
            Duration::from_secs(10),
            || {
                let text = fs::read_to_string(person.desk.path("workspace/job.json")).unwrap_or_default();
                text.contains("\"last_completed_sheet\": 3")
            },
        );
        fs::write(done, "").expect("a file");
        assert!(run.wait().expect("mozartctl").success());
        let checkpoint = person.checkpoint("workspace/job.json");
        checkpoint["sheets"]["3"]["stdout_tail"].as_str().expect("a tail").len()
    };
    assert_eq!((tail("json"), tail("sqlite")), (5000, 500));
}
