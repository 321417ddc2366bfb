//! How long a job file takes to be read and planned: `mozartctl validate` as a whole process, and plans of many sheets in
//! memory, all of it: syntax, schema, every sheet rendered once, every rule filled in. And how soon files that were made to
//! hurt are refused.

#![expect(clippy::print_stdout, reason = "its table is what it is for")]

#[path = "../tests/ctl/hostile/files.rs"]
mod hostile;

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mozart::job::files::Disk;
use mozart::job::{JobInput, load};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let times = if quick { 3 } else { 21 };
    let directory = tempfile::tempdir()?;
    println!("| job files | goal | median | slowest | bare cost |");
    println!("| --- | --- | --- | --- | --- |");

    let score = directory.path().join("score.yaml");
    std::fs::write(&score, score_of_60())?;
    let ctl = Path::new(env!("CARGO_BIN_EXE_mozartctl"));
    let bare = measured(times, || whole(Path::new("/bin/true"), &[]))?;
    let took = measured(times, || whole(ctl, &["validate".as_ref(), score.as_ref()]))?;
    row(
        "`mozartctl validate`, whole process, 60 sheets",
        "≤ 15 ms",
        &took,
        Some(&bare),
    );

    for (what, text) in [
        ("in order", many("sheet: {size: 10, total_items: 100000}")),
        (
            "1 → 9,998 → 1",
            many(
                "sheet: {size: 1, total_items: 3, fan_out: {2: 9998}, dependencies: {2: [1], 3: [2]}}\nparallel: {enabled: true}",
            ),
        ),
    ] {
        let took = measured(times, || planned(&text, 10_000, directory.path()))?;
        row(&format!("planning 10,000 sheets, {what}"), "≤ 100 ms", &took, None);
    }

    // Of each file the fastest of some goes: what it takes where nothing else is at work.
    let mut refused = Vec::new();
    for (name, text, says, code) in hostile::cases() {
        let file = directory.path().join(format!("{name}.yaml"));
        std::fs::write(&file, [hostile::BEGIN, &text].concat())?;
        let took = measured(times.min(5), || refusal(ctl, &file, says, code))?;
        refused.push((took.first().copied().unwrap_or_default(), name));
    }
    refused.sort();
    let slowest = refused.last().map_or("", |(_, name)| name);
    let took: Vec<_> = refused.iter().map(|(took, _)| *took).collect();
    let what = format!(
        "`mozartctl validate` of {} hostile files; `{slowest}` is the slowest",
        took.len()
    );
    row(&what, "≤ 100 ms", &took, Some(&bare));
    Ok(())
}

fn row(what: &str, goal: &str, took: &[Duration], bare: Option<&[Duration]>) {
    let shown = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let middle = |times: &[Duration]| times.get(times.len() / 2).copied().map_or_else(String::new, shown);
    let slowest = took.last().copied().map_or_else(String::new, shown);
    let bare = bare.map_or_else(|| "–".to_owned(), middle);
    println!("| {what} | {goal} | {} | {slowest} | {bare} |", middle(took));
}

/// Sorted times of that many goes, after one that is not counted.
fn measured(times: usize, go: impl Fn() -> Outcome<()>) -> Outcome<Vec<Duration>> {
    go()?;
    let mut took = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        go()?;
        took.push(begin.elapsed());
    }
    took.sort();
    Ok(took)
}

fn whole(program: &Path, arguments: &[&std::ffi::OsStr]) -> Outcome<()> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}: {status}", program.display()).into())
    }
}

/// `validate` says that of the file, with that exit code.
fn refusal(program: &Path, file: &Path, says: &str, code: i32) -> Outcome<()> {
    let output = Command::new(program)
        .arg("validate")
        .arg(file)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(code) && said.contains(says) {
        Ok(())
    } else {
        Err(format!("{}: {}: `{says}` is not in {said:.2000}", file.display(), output.status).into())
    }
}

fn planned(text: &str, sheets: usize, directory: &Path) -> Outcome<()> {
    let loaded = load(&JobInput::of(text.as_bytes(), directory), &Disk);
    match loaded.plan {
        Some(plan) if plan.sheets.len() == sheets => Ok(()),
        _ => Err(format!("no plan: {:?}", loaded.problems).into()),
    }
}

/// A job of many sheets with a short template.
fn many(sheet: &str) -> String {
    format!(
        "name: many\nworkspace: ./workspace\n{sheet}\nprompt:\n  template: |\n    Review items {{{{ start_item }}}} to \
         {{{{ end_item }}}} ({{{{ sheet_num }}}} of {{{{ total_sheets }}}}).\n    Write {{{{ workspace }}}}/report-{{{{ \
         sheet_num }}}}.md.\nvalidations:\n  - {{type: file_modified, path: 'report-{{sheet_num}}.md'}}\n  - {{type: \
         content_contains, path: 'report-{{sheet_num}}.md', pattern: 'SHEET {{sheet_num}} DONE'}}\n"
    )
}

/// Twelve stages of five instances with instructions and rules of their own, as people write them: some 30 KB.
fn score_of_60() -> String {
    let map = |from: u32, item: fn(u32) -> String| (from..=12).map(item).collect::<Vec<_>>().join(", ");
    let fan_out = map(1, |stage| format!("{stage}: 5"));
    let dependencies = map(2, |stage| format!("{stage}: [{}]", stage - 1));
    let instructions: String = (1..=12).map(instructions).collect();
    let rules: String = (1..=12).map(rules).collect();
    format!(
        "name: score
workspace: ./workspace
backend: {{type: claude_cli, timeout_seconds: 2400}}
parallel: {{enabled: true, max_concurrent: 3}}
cross_sheet: {{auto_capture_stdout: true}}
batch:
  size: 1
  total_items: 12
  fan_out: {{{fan_out}}}
  dependencies: {{{dependencies}}}
prompt:
  variables:
    preamble: You work on one part of a larger review; others work beside you.
    areas: {{1: parser, 2: planner, 3: launcher, 4: ledger, 5: bus}}
  template: |
    {{{{ preamble }}}}
{instructions}
    Sheet {{{{ sheet_num }}}} of {{{{ total_sheets }}}}.
validations:
{rules}"
    )
}

fn instructions(stage: u32) -> String {
    let before = stage - 1;
    let step = |step: u32| {
        format!(
            "    {step}. Read what stage {before} has left in {{{{ workspace }}}}/{before:02}-{{{{ instance }}}}.md, and note \
             what has changed in {{{{ areas[instance] }}}} since then.\n"
        )
    };
    let steps: String = (1..=15).map(step).collect();
    format!(
        "    {{% if stage == {stage} %}}
    ## Stage {stage}: {{{{ areas[instance] }}}}
    {{% for area in areas.values() %}}{{% if area != areas[instance] %}}
    - {{{{ area }}}} is another's
    {{% endif %}}{{% endfor %}}
{steps}    Write {{{{ workspace }}}}/{stage:02}-{{{{ instance }}}}.md and end it with STAGE {stage} DONE.
    {{% endif %}}
"
    )
}

fn rules(stage: u32) -> String {
    let (file, condition) = (
        format!("{{workspace}}/{stage:02}-{{instance}}.md"),
        format!("condition: 'stage == {stage}'"),
    );
    format!(
        "  - {{type: file_modified, path: '{file}', {condition}}}
  - {{type: content_contains, path: '{file}', pattern: 'STAGE {stage} DONE', {condition}}}
  - {{type: command_succeeds, command: 'test $(wc -w < \"{file}\") -ge 200', {condition}, stage: 2}}
"
    )
}
