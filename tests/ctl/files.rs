//! Job files that cannot be run: the message says where and why, the exit code what kind, and nothing is started.

use std::fs;
use std::path::Path;

use super::runtime;
use crate::support::{Alone, Desk, WROTE_ITS_FILE, json, output, said};

/// A bad file, what must be said of it, and the exit code.
struct Bad {
    name: &'static str,
    text: Vec<u8>,
    says: &'static [&'static str],
    code: i32,
}

fn job(change: impl Fn(String) -> String) -> Vec<u8> {
    let text = "name: bad\nworkspace: ./workspace\nbackend: {type: command, command: [\"true\"]}\n\
                sheet: {size: 1, total_items: 3}\nprompt:\n  template: \"{{ sheet_num }}\"\n";
    change(text.to_owned()).into_bytes()
}

fn bad_files() -> Vec<Bad> {
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}name: bomb\n",
        ('b'..='i')
            .map(|c| {
                let before = char::from_u32(c as u32 - 1).expect("a letter");
                format!("{c}: &{c} [{}]\n", vec![format!("*{before}"); 9].join(","))
            })
            .collect::<String>()
    );
    let bad = |name, text, says, code| Bad { name, text, says, code };
    vec![
        bad("empty", Vec::new(), &["empty.yaml"], 2),
        bad(
            "binary",
            vec![0x7f, b'E', b'L', b'F', 0, 0xff, 0xfe, 0],
            &["binary.yaml"],
            2,
        ),
        bad(
            "notyaml",
            b"name: [unclosed\nsheet: }\n".to_vec(),
            &["notyaml.yaml:2"],
            2,
        ),
        bad("bomb", bomb.into_bytes(), &["bomb.yaml"], 2),
        bad("list", b"- a\n- b\n".to_vec(), &["list.yaml"], 1),
        bad(
            "types",
            job(|text| text.replace("total_items: 3", "total_items: many")),
            &["types.yaml:4:", "sheet.total_items"],
            1,
        ),
        bad(
            "unknown",
            job(|text| text.replace("workspace:", "workspcae:")),
            &["unknown.yaml:2:1", "workspcae", "workspace"],
            1,
        ),
        bad(
            "zero",
            job(|text| text.replace("total_items: 3", "total_items: 0")),
            &["zero.yaml:4:", "total_items"],
            1,
        ),
        bad(
            "template",
            job(|text| text.replace("{{ sheet_num }}", "{{ sheet_num")),
            &["template.yaml:6:", "prompt.template"],
            1,
        ),
        bad(
            "variable",
            job(|text| text.replace("sheet_num }}", "shet_num }}")),
            &["variable.yaml:6:", "shet_num"],
            1,
        ),
        bad(
            "regex",
            job(|text| text + "validations:\n  - {type: content_regex, path: a, pattern: \"(\"}\n"),
            &["regex.yaml:8:", "validations[0].pattern"],
            1,
        ),
        bad(
            "nofile",
            job(|text| text.replace("template: \"{{ sheet_num }}\"", "template_file: missing.j2")),
            &["nofile.yaml:6:", "missing.j2"],
            1,
        ),
        bad(
            "unreadable",
            // A directory cannot be read as a file even by root.
            job(|text| text.replace("template: \"{{ sheet_num }}\"", "template_file: directory.j2")),
            &["unreadable.yaml:6:", "directory.j2"],
            1,
        ),
        bad(
            "wsfile",
            job(|text| text.replace("./workspace", "./afile")),
            &["wsfile.yaml:2:", "workspace"],
            1,
        ),
    ]
}

/// Nothing was made: no ledger, no socket, no workspace.
fn nothing_was_started(alone: &Alone, desk: &Desk, name: &str) {
    assert!(!alone.state().exists(), "{name}: there is a ledger");
    assert!(!runtime(alone).join("mozart").exists(), "{name}: there is a socket");
    assert!(!desk.path("workspace").exists(), "{name}: there is a workspace");
}

#[test]
fn bad_files_are_told_with_their_place_and_nothing_is_started() {
    let (alone, desk) = (Alone::new(), Desk::new());
    fs::create_dir(desk.path("directory.j2")).expect("a directory");
    desk.write("afile", "");
    for Bad { name, text, says, code } in bad_files() {
        let file = format!("{name}.yaml");
        fs::write(desk.path(&file), text).expect("a file");
        for verb in [&["validate"][..], &["run"], &["run", "--dry-run"], &["resume"]] {
            let shown = output(alone.ctl(verb).arg(format!("./{file}")).current_dir(desk.path("")));
            assert_eq!(shown.status.code(), Some(code), "{verb:?} {name}: {}", said(&shown));
            for word in says {
                assert!(
                    said(&shown).contains(word),
                    "{verb:?} {name}: `{word}` in {}",
                    said(&shown)
                );
            }
            nothing_was_started(&alone, &desk, name);
        }
        let shown = output(alone.ctl(["validate", "--json", &file]).current_dir(desk.path("")));
        let report = json(&shown);
        assert_eq!(report["valid"], false, "{name}");
        assert!(report["error_count"].as_u64() > Some(0), "{name}: {report}");
        let issue = &report["issues"][0];
        for key in [
            "check_id",
            "severity",
            "message",
            "line",
            "column",
            "context",
            "suggestion",
            "auto_fixable",
            "metadata",
        ] {
            assert!(issue.get(key).is_some(), "{name}: {key} in {issue}");
        }
    }
}

#[test]
fn files_that_cannot_be_read_are_exit_code_2() {
    let (alone, desk) = (Alone::new(), Desk::new());
    fs::create_dir(desk.path("directory.yaml")).expect("a directory");
    fs::File::create(desk.path("large.yaml"))
        .expect("a file")
        .set_len(100 << 20)
        .expect("100 MB");
    for (file, says) in [
        ("missing.yaml", "no such file"),
        ("directory.yaml", "is a directory"),
        ("large.yaml", "larger than"),
        ("/dev/zero", "larger than"),
    ] {
        for verb in ["validate", "run", "resume"] {
            let shown = output(
                alone
                    .ctl([verb, &format!("./{file}").replace(".//", "/")])
                    .current_dir(desk.path("")),
            );
            assert_eq!(shown.status.code(), Some(2), "{verb} {file}: {}", said(&shown));
            assert!(
                said(&shown).contains(says) && said(&shown).contains(file),
                "{verb} {file}: {}",
                said(&shown)
            );
            nothing_was_started(&alone, &desk, file);
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let job = desk.job("usage", 3, "true", "");
    for arguments in [
        &["frobnicate"][..],
        &["run"],
        &["status", "--wat"],
        &["list", "-s", "nowhere"],
        &[],
    ] {
        let shown = output(alone.ctl(arguments));
        assert_eq!(shown.status.code(), Some(2), "{arguments:?}: {}", said(&shown));
    }
    let shown = output(alone.ctl(["run", "--start-sheet", "4"]).arg(&job));
    assert_eq!(shown.status.code(), Some(2), "{}", said(&shown));
    assert!(said(&shown).contains("3 sheets"), "{}", said(&shown));
    nothing_was_started(&alone, &desk, "usage");
}

#[test]
fn a_dry_run_shows_plan_and_prompts_and_starts_nothing() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let file = desk.job("dry", 3, "true", WROTE_ITS_FILE);
    let text = fs::read_to_string(&file).expect("the file");
    let template = "template: \"Sheet {{ sheet_num }} of {{ total_sheets }} for {{ who }}\"";
    let text = text.replace("template: \"{{ sheet_num }}\\n\"", template);
    fs::write(&file, text.replace("append:", "variables: {who: nobody}, append:")).expect("the file");

    let shown = output(
        alone
            .ctl(["run", "--dry-run", "--start-sheet", "2", "--set", "who=me"])
            .arg(&file),
    );
    assert!(shown.status.success(), "{}", said(&shown));
    for words in [
        "Sheet 2 of 3 for me",
        "file_exists",
        "before start sheet",
        "nothing was started",
    ] {
        assert!(said(&shown).contains(words), "`{words}` in {}", said(&shown));
    }
    nothing_was_started(&alone, &desk, "dry");

    let shown = json(&output(alone.ctl(["run", "-n", "-j"]).arg(&file)));
    assert_eq!(shown["id"], "dry");
    assert_eq!(shown["backend"], "command");
    let sheets = shown["sheets"].as_array().expect("sheets");
    assert_eq!(sheets.len(), 3);
    assert_eq!(sheets[2]["prompt"], "Sheet 3 of 3 for nobody");
    let path = sheets[2]["validations"][0]["path"].as_str().expect("a path");
    assert!(
        path.ends_with("workspace/out-3") && Path::new(path).is_absolute(),
        "{path}"
    );
    nothing_was_started(&alone, &desk, "dry");
}

#[test]
fn a_valid_file_may_come_from_standard_input() {
    let (alone, desk) = (Alone::new(), Desk::new());
    let file = fs::File::open(desk.job("piped", 2, "true", "")).expect("the file");
    let shown = alone
        .ctl(["validate", "-", "-j"])
        .current_dir(desk.path(""))
        .stdin(file)
        .output()
        .expect("mozartctl");
    assert_eq!(json(&shown)["valid"], true, "{}", said(&shown));
    assert_eq!(json(&shown)["sheets"], 2);
}

#[test]
fn flags_of_healing_are_accepted_and_said_to_do_nothing() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let job = desk.job("healed", 1, "true", "");
    let shown = output(alone.ctl(["run", "-H", "-y"]).arg(&job));
    assert!(shown.status.success(), "{}", said(&shown));
    assert!(said(&shown).contains("no effect yet"), "{}", said(&shown));
}

#[test]
fn version_and_completions_need_no_home() {
    for (arguments, says) in [
        (&["--version"][..], env!("CARGO_PKG_VERSION")),
        (&["-V"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "conductor-status"),
        (&["completions", "zsh"], "conductor-status"),
        (&["completions", "fish"], "conductor-status"),
    ] {
        let shown = output(
            std::process::Command::new(crate::support::MOZARTCTL)
                .args(arguments)
                .env_clear(),
        );
        assert!(
            shown.status.success() && said(&shown).contains(says),
            "{arguments:?}: {}",
            said(&shown)
        );
    }
}
