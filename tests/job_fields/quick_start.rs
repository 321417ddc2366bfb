//! The jobs that a newcomer meets first.

use std::path::Path;

use super::Person;
use crate::support::{json, output, said, sheet_states};

/// A job with every common field, as the documentation shows one.
const JOB: &str = r###"name: my-batch-job
description: Process items in batches
workspace: ./workspace            # relative to the job file; created if its parent exists
backend:
  type: claude_cli                # or: command
  skip_permissions: true
  working_directory: .
  timeout_seconds: 1800
batch:                            # `sheet:` is the same section; both words work everywhere
  size: 10
  total_items: 100
prompt:
  template: |                     # or template_file: templates/review.j2
    Process batch {{ batch_num }} of {{ total_batches }}.
    Items {{ start_item }} to {{ end_item }} into {{ workspace }}.
    {{ stakes }} {{ thinking_method }} {{ audience }}
  stakes: Complete all items correctly for a reward!
  thinking_method: Work step by step.
  variables: {audience: engineers}
retry: {max_retries: 2, base_delay_seconds: 10, max_delay_seconds: 3600, exponential_base: 2.0, jitter: true,
        max_completion_attempts: 3, completion_delay_seconds: 5, completion_threshold_percent: 50}
rate_limit: {wait_minutes: 60, max_waits: 24, detection_patterns: ["rate.?limit", "429", "quota"]}
validations:
  - {type: file_exists,      path: "{workspace}/batch{batch_num}-output.md"}
  - {type: file_modified,    path: "{workspace}/tracking.md"}
  - {type: content_contains, path: "{workspace}/report.md", pattern: "## Summary"}
  - {type: content_regex,    path: "{workspace}/report.md", pattern: "^## \\w+"}
  - {type: command_succeeds, command: "python3 validate.py {batch_num}"}
pause_between_sheets_seconds: 0
"###;

/// Does what the prompt says, and only from what it says.
const AGENT: &str = r###"#!/bin/sh
set -e
prompt=$(cat)
said() { printf '%s\n' "$prompt" | sed -n "$1" | head -n 1; }
batch=$(said 's/^Process batch \([0-9]*\) of 10\.$/\1/p')
first=$(said 's/^Items \([0-9]*\) to .*/\1/p')
last=$(said 's/^Items [0-9]* to \([0-9]*\) into .*/\1/p')
workspace=$(said 's/^Items [0-9]* to [0-9]* into \(.*\)\.$/\1/p')
printf '%s\n' "$prompt" | grep -qx 'Complete all items correctly for a reward! Work step by step. engineers'
seq "$first" "$last" > "$workspace/batch$batch-output.md"
echo "batch $batch" >> "$workspace/tracking.md"
printf '## Summary\n%s batches\n' "$batch" > "$workspace/report.md"
"###;

const VALIDATE: &str = "\
import sys
batch = int(sys.argv[1])
items = [int(line) for line in open(f'batch{batch}-output.md')]
sys.exit(items != list(range(batch * 10 - 9, batch * 10 + 1)))
";

#[test]
fn the_quick_start_completes_with_every_rule_kept() {
    let person = Person::new();
    person.desk.write("agent.sh", AGENT);
    person.desk.write("workspace/validate.py", VALIDATE);
    let text = JOB
        .replace(
            "  type: claude_cli                # or: command\n",
            "  type: command\n  command: [sh, agent.sh]\n",
        )
        .replace("  skip_permissions: true\n", "");
    assert!(text.contains("type: command\n") && !text.contains("claude_cli"));
    let file = person.desk.write("job.yaml", &text);
    person.completes(&file);
    let status = person.alone.status("my-batch-job");
    assert_eq!(
        (&status["state"], &status["sheets_done"]),
        (&"completed".into(), &10.into())
    );
    assert_eq!(sheet_states(&status), ["completed"; 10]);
    for sheet in status["sheets"].as_array().expect("sheets") {
        let rules = sheet["validations"].as_array().expect("rules");
        assert!(
            rules.len() == 5 && rules.iter().all(|rule| rule["passed"] == true) && sheet["attempts"] == 1,
            "{sheet}"
        );
    }
    let tracked: Vec<String> = (1..=10).map(|batch| format!("batch {batch}")).collect();
    assert_eq!(person.desk.lines("workspace/tracking.md"), tracked);
    assert_eq!(
        person
            .desk
            .lines("workspace/batch10-output.md")
            .last()
            .map(String::as_str),
        Some("100")
    );
}

#[test]
fn the_quick_start_is_valid_as_it_is() {
    let person = Person::new();
    let file = person.desk.write("job.yaml", JOB);
    let shown = output(person.alone.ctl(["validate", "--json"]).arg(&file));
    assert!(shown.status.success(), "{}", said(&shown));
    let report = json(&shown);
    assert_eq!(
        (&report["error_count"], &report["sheets"]),
        (&0.into(), &10.into()),
        "{report}"
    );
    assert_eq!(person.plan(&file)["sheets"][9]["end_item"], 100);
}

/// Where the examples are.
fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

#[test]
fn every_example_is_planned() {
    let person = Person::new();
    let examples: Vec<_> = std::fs::read_dir(example(""))
        .expect("the examples")
        .map(|entry| entry.expect("an example").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for path in examples {
        let plan = person.plan(&path);
        // That a program is not installed here is no fault of the example.
        let mut problems = plan["problems"].as_array().expect("problems").iter();
        let around = |problem: &serde_json::Value| problem["check_id"] == "V210" && problem["severity"] == "INFO";
        assert!(problems.all(around), "{}: {}", path.display(), plan["problems"]);
        assert!(plan["sheets"].as_array().is_some_and(|sheets| !sheets.is_empty()));
    }
}

#[test]
fn hello_runs_as_it_is() {
    let person = Person::new();
    let workspace = person.desk.path("hello");
    let done = output(
        person
            .alone
            .ctl(["run", "--workspace"])
            .arg(&workspace)
            .arg(example("hello.yaml")),
    );
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(sheet_states(&person.alone.status("hello")), ["completed"; 3]);
    assert_eq!(person.read("hello/report2.md"), "# Text 2 of 3\nwords: 5\n");
}
