//! What helps a person to write a job file: `new`, `schema`, `explain`, `graph`, `validate --fix`, the dry run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, said, wait_until};

fn stdout(shown: &std::process::Output) -> String {
    assert!(shown.status.success(), "{}", said(shown));
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

#[test]
fn a_new_job_file_is_valid_and_names_the_schema_that_was_written() {
    let (alone, desk) = (Alone::new(), Desk::new());
    for pattern in ["batch", "fan-out", "review-chain"] {
        let file = format!("{pattern}-job.yaml");
        let shown = output(alone.ctl(["new", &file, "--from", pattern]).current_dir(desk.path("")));
        assert!(shown.status.success(), "{}", said(&shown));
        let text = fs::read_to_string(desk.path(&file)).expect("the file");
        let schema = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let schema = fs::read_to_string(schema.expect("the line that editors read")).expect("the schema");
        let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema, json(&output(&mut alone.ctl(["schema"]))));

        let report = json(&output(
            alone.ctl(["validate", "--json", &file]).current_dir(desk.path("")),
        ));
        assert_eq!(
            (&report["valid"], &report["id"]),
            (&true.into(), &format!("{pattern}-job").into())
        );
        assert_eq!(
            (&report["warning_count"], &report["template_engine"]),
            (&0.into(), &"tera".into()),
            "{report}"
        );

        let again = output(alone.ctl(["new", &file]).current_dir(desk.path("")));
        assert_eq!(again.status.code(), Some(2), "{}", said(&again));
        assert_eq!(
            fs::read_to_string(desk.path(&file)).expect("the file"),
            text,
            "it is not written over"
        );
    }
    let printed = stdout(&output(alone.ctl(["new", "-"]).current_dir(desk.path(""))));
    assert!(printed.contains("\nname: my-job\n"), "{printed}");
}

#[test]
fn explain_prints_the_page_of_a_code() {
    let alone = Alone::new();
    let page = stdout(&output(&mut alone.ctl(["explain", "v101"])));
    for words in [
        "V101: a variable may be undefined",
        "What it means",
        "{{ stakez }}",
        "What to do",
    ] {
        assert!(page.contains(words), "`{words}` in {page}");
    }
    let all = stdout(&output(&mut alone.ctl(["explain"])));
    assert!(
        all.lines().count() > 90 && all.contains("E203  check command failed"),
        "{all}"
    );
    assert_eq!(json(&output(&mut alone.ctl(["explain", "E203", "-j"])))["code"], "E203");
    let unknown = output(&mut alone.ctl(["explain", "V102"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("there is no code V102"), "{}", said(&unknown));
}

#[test]
fn fix_mends_what_is_safe_and_the_exit_code_is_of_what_remains() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let text = "# kept as it is\nname: fix\nworkspace: no/where/w\n\
                backend: {type: command, command: [\"true\"], working_directory: work/here}\n\
                sheet: {size: 1, total_items: 2}\nprompt: {template: x}\n\
                validations:\n  - {type: file_modified, path: 'out\\a{sheet_num}.md'}   # here\n";
    let file = desk.write("fix.yaml", text);
    let validate = |fix: bool| {
        let flags: &[&str] = if fix { &["validate", "--fix"] } else { &["validate"] };
        output(alone.ctl(flags).arg(&file))
    };
    let before = validate(false);
    assert_eq!(before.status.code(), Some(1), "{}", said(&before));
    for code in ["V002", "V005", "V194", "mozartctl explain "] {
        assert!(said(&before).contains(code), "`{code}` in {}", said(&before));
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), text);

    let fixed = validate(true);
    assert_eq!(fixed.status.code(), Some(0), "{}", said(&fixed));
    assert!(
        said(&fixed).contains("fixed: line 8: out\\a{sheet_num}.md → out/a{sheet_num}.md"),
        "{}",
        said(&fixed)
    );
    assert!(desk.path("no/where").is_dir() && desk.path("work/here").is_dir());
    assert_eq!(
        fs::read_to_string(&file).expect("the file"),
        text.replace("out\\a", "out/a")
    );
    assert!(!said(&validate(true)).contains("fixed:"));

    let worse = desk.write("worse.yaml", &text.replace("total_items: 2", "total_items: none"));
    let shown = output(alone.ctl(["validate", "--fix"]).arg(&worse));
    assert_eq!(
        shown.status.code(),
        Some(1),
        "what cannot be fixed remains: {}",
        said(&shown)
    );
}

#[test]
fn fix_keeps_the_layout_the_link_and_the_neighbours_and_refuses_standard_input() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let text = "name: fix   # a name\r\n\r\nworkspace: \"w\\\\x\"\r\nbackend: {type: command, command: [\"true\"]}\r\n\
                sheet: {size: 1, total_items: 2}\r\nprompt: {template: x}\r\nvalidations:\r\n  \
                - path: 'out\\a{sheet_num}.md'\r\n    type: file_modified # so";
    let file = desk.write("job.yaml", text);
    desk.write("job.yaml.new", "mine");
    std::os::unix::fs::symlink(&file, desk.path("link.yaml")).expect("a link");
    fs::create_dir(desk.path("w")).expect("a directory");
    let fixed = output(alone.ctl(["validate", "--fix"]).arg(desk.path("link.yaml")));
    assert_eq!(fixed.status.code(), Some(0), "{}", said(&fixed));
    assert_eq!(
        fs::read_to_string(&file).expect("the file"),
        text.replace("w\\\\x", "w/x").replace("out\\a", "out/a")
    );
    let mut names: Vec<_> = fs::read_dir(desk.path(""))
        .expect("the desk")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["job.yaml", "job.yaml.new", "link.yaml", "w"],
        "nothing is left behind"
    );
    assert!(desk.path("link.yaml").is_symlink());
    assert_eq!(fs::read_to_string(desk.path("job.yaml.new")).expect("the file"), "mine");

    let stdin = fs::File::open(desk.write("other.yaml", text)).expect("the file");
    let refused = alone
        .ctl(["validate", "--fix", "-"])
        .current_dir(desk.path(""))
        .stdin(stdin)
        .output();
    let refused = refused.expect("mozartctl");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("cannot be mended"), "{}", said(&refused));
}

#[test]
fn who_helps_a_person_to_write_tells_what_is_wrong_with_the_request() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let good = desk.job("good", 2, "true", WROTE_ITS_FILE);
    desk.write("bad.yaml", "name: bad\nsheet: {size: none, total_items: 1}\n");
    for (arguments, code, says) in [
        (&["new", "no/where.yaml"][..], 1, "no/where.yaml cannot be written"),
        (&["new", "."], 2, "exists already"),
        (&["new", "x.yaml", "--from", "nothing"], 2, "review-chain"),
        (&["graph", "none.yaml"], 2, "there is no such file"),
        (&["graph", "."], 2, "is a directory"),
        (&["graph", "bad.yaml"], 1, "bad.yaml:2:15"),
        (&["graph", "good.yaml", "--format", "png"], 2, "svg"),
        (&["explain", "E20"], 2, "did you mean E20"),
        (&["run", "-n", "good.yaml", "--sheet", "3"], 2, "has only 2 sheets"),
        (&["run", "-n", "bad.yaml"], 1, "bad.yaml:2:15"),
    ] {
        let shown = output(alone.ctl(arguments).current_dir(desk.path("")));
        assert_eq!(shown.status.code(), Some(code), "{arguments:?}: {}", said(&shown));
        assert!(said(&shown).contains(says), "{arguments:?}: {}", said(&shown));
    }
    // Graphviz is looked up on the PATH.
    let svg = output(
        alone
            .ctl(["graph", "--format", "svg"])
            .arg(&good)
            .env("PATH", desk.path("")),
    );
    assert_eq!(svg.status.code(), Some(1), "{}", said(&svg));
    assert!(said(&svg).contains("install graphviz"), "{}", said(&svg));
    // Who reads only the beginning is no fault.
    for verb in ["schema", "man", "explain"] {
        let mut bash = alone.program("bash");
        let shown = output(bash.args([
            "-c",
            "set -o pipefail; \"$0\" \"$1\" | head -c 1",
            crate::support::MOZARTCTL,
            verb,
        ]));
        assert_eq!(
            (shown.status.code(), shown.stderr.len()),
            (Some(0), 0),
            "{verb}: {}",
            said(&shown)
        );
    }
}

#[test]
fn a_dry_run_has_waves_and_each_sheet_with_all_that_it_is_sent() {
    let alone = Alone::new();
    let shown = json(&output(alone.ctl(["run", "-n", "-j"]).arg(example("fan-out.yaml"))));
    assert_eq!(shown["waves"], serde_json::json!([[1], [2, 3, 4], [5]]));
    assert_eq!(
        (&shown["max_concurrent"], &shown["problems"]),
        (&3.into(), &serde_json::json!([]))
    );
    let sheet = &shown["sheets"][3];
    for (key, expected) in [
        ("sheet_num", 4),
        ("stage", 2),
        ("instance", 3),
        ("fan_count", 3),
        ("wave", 2),
    ] {
        assert_eq!(sheet[key], expected, "{key}");
    }
    assert_eq!(
        (&sheet["depends_on"], &sheet["appended"]),
        (&serde_json::json!([1]), &"".into())
    );
    assert_eq!(shown["sheets"][4]["depends_on"], serde_json::json!([2, 3, 4]));
    assert_eq!(sheet["variables"]["instance"], 3);
    assert!(
        sheet["prompt"]
            .as_str()
            .is_some_and(|prompt| prompt.contains("sorted3.txt")),
        "{sheet}"
    );
    assert!(
        sheet["validations"][0]["path"]
            .as_str()
            .is_some_and(|path| path.ends_with("/sorted3.txt"))
    );

    let one = json(&output(
        alone
            .ctl(["run", "-n", "-j", "--sheet", "4"])
            .arg(example("fan-out.yaml")),
    ));
    assert_eq!(one["sheets"], serde_json::json!([sheet]));
    let text = stdout(&output(alone.ctl(["run", "-n"]).arg(example("fan-out.yaml"))));
    assert!(
        text.contains("3 waves, at most 3 sheets at once") && text.contains("  2: sheets 2 to 4"),
        "{text}"
    );
    assert!(text.contains("waits for  sheets 2 to 4"), "{text}");
}

/// Something that says what it has cost, as the CLI does.
const HAS_COST: &str = r#"#!/bin/sh
cat > /dev/null
sleep 0.3
echo '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"done","session_id":"x","total_cost_usd":0.25}'
"#;

#[test]
fn a_dry_run_tells_what_earlier_runs_took() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let program = desk.write("claude", HAS_COST);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let file = desk.write(
        "job.yaml",
        &format!(
            "name: job\nbackend: {{type: claude_cli, cli_path: ./claude, env: {{HOME: {}}}}}\npause_between_sheets_seconds: 0\n\
             sheet: {{size: 1, total_items: 3}}\nprompt: {{template: x}}\n",
            desk.path("").display()
        ),
    );
    let dry = |more: &[&str]| {
        let shown = output(alone.ctl(["run", "-n", "-j"]).args(more).arg(&file));
        json(&shown)["estimate"].clone()
    };
    let before = dry(&[]);
    assert_eq!(
        (&before["earlier_sheets"], &before["seconds"], &before["cost_usd"]),
        (&0.into(), &serde_json::Value::Null, &serde_json::Value::Null)
    );
    let told = stdout(&output(alone.ctl(["run", "-n"]).arg(&file)));
    assert!(
        told.contains("no history: no sheet of this job has been completed before"),
        "{told}"
    );
    assert!(!alone.state().exists(), "a dry run made a ledger");

    let done = output(alone.ctl(["run"]).arg(&file));
    assert!(done.status.success(), "{}", said(&done));
    let check = |all: &serde_json::Value| {
        assert_eq!(
            (&all["earlier_sheets"], &all["earlier_runs"]),
            (&3.into(), &1.into()),
            "{all}"
        );
        let seconds = |key: &str| all["seconds"][key].as_f64().expect("seconds");
        assert!(
            seconds("low") >= 0.9 && seconds("low") <= seconds("likely") && seconds("likely") <= seconds("high"),
            "{all}"
        );
        assert_eq!(all["cost_usd"]["likely"], 0.75, "{all}");
    };
    check(&dry(&[]));
    for some in [&["--sheet", "2"][..], &["--start-sheet", "3"]] {
        assert_eq!(dry(some)["cost_usd"]["high"], 0.25, "{some:?}");
    }
    let told = stdout(&output(alone.ctl(["run", "-n"]).arg(&file)));
    assert!(
        told.contains("cost about $0.75; by 3 sheets of 1 earlier run"),
        "{told}"
    );

    // A `command` does not say.
    let text = fs::read_to_string(&file).expect("the job");
    let command = text.replace(
        "type: claude_cli, cli_path: ./claude",
        "type: command, command: [sleep, '0.1']",
    );
    let other = desk.write("other.yaml", &command.replace("name: job", "name: other"));
    let done = output(alone.ctl(["run"]).arg(&other));
    assert!(done.status.success(), "{}", said(&done));
    let told = stdout(&output(alone.ctl(["run", "-n"]).arg(&other)));
    assert!(told.contains("cost unknown; by 3 sheets of 1 earlier run"), "{told}");

    // While somebody else holds the ledger it is asked.
    let busy = desk.job("busy", 1, "sleep 60", "");
    let mut run = alone.ctl(["run"]).arg(&busy).spawn().expect("it starts");
    wait_until("the other job is at work", Duration::from_secs(20), || {
        desk.starts().contains_key(&1)
    });
    check(&dry(&[]));
    let cancelled = output(alone.ctl(["cancel", "busy"]));
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    run.wait().expect("it ends");
}

#[test]
fn a_dry_run_needs_nothing_that_only_a_run_needs() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let text = "name: later\nbackend: {type: ollama}\nsheet: {size: 1, total_items: 2}\n\
                prompt: {template: 'Do {{ sheet_num }}'}\non_success: [{type: run_command, command: x}]\n\
                validations: [{type: content_contains, path: 'out{sheet_num}', pattern: done}]\n";
    let file = desk.write("later.yaml", text);
    let dry = |file: &Path| output(alone.ctl(["run", "-n", "-j"]).arg(file));
    let shown = dry(&file);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    let plan = json(&shown);
    assert_eq!(
        (&plan["backend"], &plan["sheets"][1]["prompt"]),
        (&"ollama".into(), &"Do 2".into())
    );
    let appended = plan["sheets"][1]["appended"].as_str().expect("a text");
    assert!(appended.contains("out2") && appended.contains("done"), "{appended}");
    let problems = plan["problems"].as_array().expect("problems");
    assert!(
        problems.iter().filter(|problem| problem["check_id"] == "E301").count() == 2,
        "{problems:?}"
    );
    assert!(
        problems.iter().all(|problem| problem["severity"] != "ERROR"),
        "{problems:?}"
    );
    assert_eq!(
        output(alone.ctl(["run"]).arg(&file)).status.code(),
        Some(1),
        "a run refuses it"
    );

    // What lies around the file is not there: the plan is shown all the same, and what is wrong is an error.
    let away = desk.write(
        "away.yaml",
        &text.replace("{type: ollama}", "{working_directory: nope}"),
    );
    let shown = dry(&away);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    let plan = json(&shown);
    assert_eq!(plan["sheets"].as_array().map(Vec::len), Some(2));
    assert!(
        plan["problems"]
            .as_array()
            .expect("problems")
            .iter()
            .any(|problem| problem["check_id"] == "V005")
    );
}

#[test]
fn a_graph_shows_who_waits_for_whom() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let mermaid = stdout(&output(alone.ctl(["graph"]).arg(example("fan-out.yaml"))));
    let edges: Vec<&str> = mermaid
        .lines()
        .filter(|line| line.contains("-->"))
        .map(str::trim)
        .collect();
    assert_eq!(
        edges,
        [
            "s1 --> s2",
            "s1 --> s3",
            "s1 --> s4",
            "s2 --> s5",
            "s3 --> s5",
            "s4 --> s5"
        ]
    );
    assert!(
        mermaid.starts_with("flowchart TD\n    s1[\"1: Divide\"]\n"),
        "{mermaid}"
    );
    let file = desk.job("plain", 3, "true", WROTE_ITS_FILE);
    let dot = stdout(&output(alone.ctl(["graph", "--format", "dot"]).arg(&file)));
    assert!(
        dot.starts_with("digraph \"plain\" {") && dot.contains("s2 -> s3 [style=dotted];"),
        "{dot}"
    );
    let svg = output(alone.ctl(["graph", "--format", "svg"]).arg(&file));
    match svg.status.code() {
        Some(0) => assert!(said(&svg).contains("<svg"), "{}", said(&svg)),
        code => assert!(
            code == Some(1) && said(&svg).contains("install graphviz"),
            "{}",
            said(&svg)
        ),
    }
}

#[test]
fn the_manual_page_is_printed() {
    let page = stdout(&output(&mut Alone::new().ctl(["man"])));
    for words in [
        ".TH MOZART.YAML 5",
        "\\fBmax_retries\\fR (whole number from 0 = 3)",
        ".B V101",
    ] {
        assert!(page.contains(words), "`{words}` in {page}");
    }
}
