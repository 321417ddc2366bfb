//! The page of every check has an example that really gets it; the snapshots are the reports on these.

use std::collections::BTreeSet;

use super::*;
use crate::job::fix::fixes;
use crate::job::{pages, preview, report};
use crate::model::Severity;

/// Codes of attempts that job files get, too.
const OF_FILES: &[&str] = &["E301", "E302", "E303", "E304", "E602", "E604"];

/// Codes that only a submission gets; src/daemon/program.rs has their reports.
const OF_SUBMITS: &[&str] = &["V197", "V198"];

/// The good job with these lines, each in the place of the one with the same key.
fn with_lines(lines: &str) -> String {
    let mut text = GOOD.to_owned();
    for line in lines.lines() {
        let key = line.split(':').next().unwrap();
        let old = text
            .lines()
            .find(|old| old.split(':').next() == Some(key))
            .map(str::to_owned);
        text = match old {
            Some(old) => text.replace(&old, line),
            None => format!("{text}{line}\n"),
        };
    }
    text
}

#[test]
fn the_example_of_every_check_gets_its_code() {
    let mut given = BTreeSet::new();
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/job");
    pages::tests::codes_in(&rooms, &mut given);
    given.retain(|code| code.starts_with('E') && !OF_FILES.contains(&code.as_str()));
    assert_eq!(given, BTreeSet::new(), "no example of these is looked at");
    let mut shown = String::new();
    let of_files = |code: &str| code.starts_with('V') && !OF_SUBMITS.contains(&code) || OF_FILES.contains(&code);
    for page in pages().filter(|page| of_files(page.code)) {
        let text = match page.code {
            // The same key twice.
            "E304" => plus(page.example),
            _ => with_lines(page.example),
        };
        let path = if page.code == "V009" {
            "/jobs/audit-v3.yaml"
        } else {
            "/jobs/job.yaml"
        };
        let loaded = load_with(&text, |fixture| fixture.path = path.to_owned());
        let (own, others): (Vec<_>, Vec<_>) = loaded
            .problems
            .into_iter()
            .partition(|problem| problem.check_id == page.code);
        assert!(!own.is_empty(), "{}: the example gets {others:#?}\n{text}", page.code);
        shown.push_str(&report(&own, "job.yaml", &text, false));
    }
    insta::assert_snapshot!(shown);
}

fn codes(text: &str) -> Vec<String> {
    load_with(text, |_| ())
        .problems
        .into_iter()
        .map(|problem| problem.check_id)
        .collect()
}

fn rules(rules: &str) -> String {
    with("validations", &format!("validations: [{rules}]"))
}

#[test]
fn rules_that_prove_nothing_are_told_from_others() {
    for never in [
        "{type: command_succeeds, command: ' : '}",
        "{type: command_succeeds, command: exit 0}",
        "{type: content_regex, path: 'a{sheet_num}', pattern: '.*'}",
        "{type: file_exists, path: t/main.j2}",
    ] {
        let text = rules(never).replace("template: 'Do {{ sheet_num }}'", "template_file: t/main.j2");
        let found = codes(&text.replace("./w", "/jobs"));
        assert!(found.contains(&"V214".to_owned()), "{never}: {found:?}");
    }
    for fine in [
        "{type: command_succeeds, command: 'true && make'}",
        "{type: content_regex, path: 'a{sheet_num}', pattern: '^$'}",
        "{type: file_exists, path: 'a{sheet_num}'}",
    ] {
        assert!(!codes(&rules(fine)).contains(&"V214".to_owned()), "{fine}");
    }
}

#[test]
fn rules_that_cannot_hold_are_told_from_others() {
    for never in [
        "{type: file_modified, path: there.md/x}",
        "{type: file_exists, path: '{workspace}/'}",
        "{type: file_modified, path: 'a{sheet_num}'}, {type: file_modified, path: 'a{sheet_num}/b'}",
        "{type: command_succeeds, command: 'test ! -e out.md'}, {type: content_contains, path: out.md, pattern: x}",
        "{type: content_regex, path: 'a{sheet_num}', pattern: '^a$\\n^b$'}",
    ] {
        assert!(
            codes(&rules(never)).contains(&"V215".to_owned()),
            "{never}: {:?}",
            codes(&rules(never))
        );
    }
    for fine in [
        "{type: file_modified, path: dir/x}",
        "{type: command_succeeds, command: 'test ! -e a'}, {type: file_modified, path: b}",
        // For one sheet the one, for the other the other.
        "{type: command_succeeds, command: 'test ! -e a', condition: sheet_num == 1}, {type: file_modified, path: a, condition: sheet_num == 2}",
        "{type: content_regex, path: 'a{sheet_num}', pattern: '(?m)^a$\\n^b$'}",
    ] {
        assert!(!codes(&rules(fine)).contains(&"V215".to_owned()), "{fine}");
    }
}

#[test]
fn only_sheets_that_may_run_at_once_share_a_file_in_vain() {
    let shared = |sheet: &str, rule: &str| {
        let text = with("sheet", &format!("sheet: {{size: 1, total_items: 3{sheet}}}"));
        let text = text.replace("{type: command_succeeds, command: make check}", rule);
        let parallel = codes(&format!("{text}parallel: {{enabled: true}}\n"));
        assert!(!codes(&text).contains(&"V213".to_owned()), "one after another");
        parallel.contains(&"V213".to_owned())
    };
    let all = "{type: file_modified, path: all.md}";
    assert!(shared("", all));
    assert!(shared(", dependencies: {3: [1]}", all));
    assert!(!shared(", dependencies: {2: [1], 3: [2]}", all));
    assert!(!shared("", "{type: file_modified, path: 'a{sheet_num}'}"));
    assert!(!shared(
        "",
        "{type: file_modified, path: all.md, condition: sheet_num == 1}"
    ));
    // The first makes it, the others, which wait for it, only read; or they write, too.
    let plan = "{type: file_exists, path: plan.md}";
    assert!(!shared(", dependencies: {2: [1], 3: [1]}", plan));
    assert!(shared(", dependencies: {2: [1], 3: [1]}", all));
    assert!(shared(", dependencies: {3: [1, 2]}", plan));
}

#[test]
fn rules_that_depend_on_no_sheet_are_told_from_others() {
    let same = |rule: &str| codes(&rules(rule)).contains(&"V216".to_owned());
    assert!(same(
        "{type: content_contains, path: '{workspace}/x', pattern: '{total_sheets}'}"
    ));
    assert!(!same("{type: content_contains, path: x, pattern: '{sheet_num}'}"));
    assert!(!same(
        "{type: content_contains, path: x, pattern: y, condition: sheet_num == 2}"
    ));
    assert!(!same("{type: file_modified, path: x}"));
    let one = rules("{type: content_contains, path: x, pattern: y}").replace("total_items: 2", "total_items: 1");
    assert!(!codes(&one).contains(&"V216".to_owned()));
}

#[test]
fn a_prompt_that_names_the_file_is_fine_and_so_is_one_that_is_followed_by_the_rules() {
    let told = |prompt: &str| {
        let text = rules("{type: file_modified, path: 'd/out{sheet_num}.md'}");
        codes(&text.replace("template: 'Do {{ sheet_num }}'", prompt)).contains(&"V217".to_owned())
    };
    assert!(told("template: 'Do {{ sheet_num }}', append: {requirements: no}"));
    assert!(!told("template: 'Do {{ sheet_num }}'"));
    assert!(!told(
        "template: 'Write out{{ sheet_num }}.md', append: {requirements: no}"
    ));
    assert!(
        told("template: 'Write out1.md', append: {requirements: no}"),
        "the second sheet is told another"
    );
}

#[test]
fn isolation_needs_git_somewhere_above() {
    let text = plus("isolation: {enabled: true, mode: worktree}");
    assert!(codes(&text).contains(&"V218".to_owned()));
    let loaded = load_with(&text, |fixture| {
        fixture.files.0.insert(PathBuf::from("/.git"), None);
    });
    assert!(loaded.problems.iter().all(|problem| problem.check_id != "V218"));
}

#[test]
fn a_program_that_is_not_there_is_told_where_a_path_is_known() {
    let missing = |more: &str, path: Option<&str>| {
        let loaded = load_with(&plus(more), |fixture| {
            fixture
                .files
                .0
                .insert(PathBuf::from("/bin/claude"), Some(Ok(String::new())));
            fixture
                .environment
                .extend(path.map(|path| ("PATH".to_owned(), path.to_owned())));
        });
        let found = loaded.problems.iter().find(|problem| problem.check_id == "V210");
        assert!(found.is_none_or(|problem| problem.severity == Severity::Info));
        assert!(loaded.plan.is_some(), "it may be there when the job runs");
        found.is_some()
    };
    assert!(!missing("", None));
    assert!(!missing("", Some("/usr/bin:/bin")));
    assert!(missing("", Some("/usr/bin")));
    assert!(missing("backend: {cli_path: /opt/claude}", None));
    assert!(!missing("backend: {cli_path: /bin/claude}", None));
}

#[test]
fn what_only_a_run_refuses_leaves_a_preview_its_plan() {
    let preview = |text: &str| {
        let fixture = Fixture::default();
        let input = JobInput {
            path: Some(Path::new("/jobs/job.yaml")),
            set: &fixture.set,
            environment: &fixture.environment,
            ..JobInput::of(text.as_bytes(), Path::new("/jobs"))
        };
        let loaded = preview(&input, &fixture.files);
        (loaded.plan.is_some(), shown(&loaded))
    };
    for (more, start) in [
        (
            "on_success: [{type: run_command, command: x}]",
            "WARNING E301 6:1 on_success: `on_success` is known, but not supported yet",
        ),
        (
            "backend: {type: ollama}",
            "WARNING E301 6:17 backend.type: the backend `ollama` is known, but not supported yet",
        ),
        ("backend: {working_directory: nope}", "ERROR V005 6:30"),
        ("backend: {system_prompt_file: nope}", "ERROR V004 6:31"),
    ] {
        let (planned, problems) = preview(&plus(more));
        assert!(
            planned && problems.iter().any(|problem| problem.starts_with(start)),
            "{more}: {problems:#?}"
        );
    }
    for more in ["backend: {type: olama}", "retry: {max_retries: many}"] {
        assert!(!preview(&plus(more)).0, "{more}");
    }
}

#[test]
fn what_can_be_fixed_is_gone_afterwards() {
    let text = rules("{type: file_modified, path: 'out\\a{sheet_num}.md'}").replace("./w", "no/where/w");
    let found = load_with(&text, |_| ()).problems;
    let fixes = fixes(&found, &text);
    assert_eq!(fixes.directories, [PathBuf::from("/jobs/no/where")]);
    assert_eq!(fixes.changes, ["line 5: out\\a{sheet_num}.md → out/a{sheet_num}.md"]);
    let loaded = load_with(&fixes.text.unwrap(), |fixture| {
        fixture.files.0.insert(PathBuf::from("/jobs/no/where"), None);
    });
    assert_eq!(shown(&loaded), Vec::<String>::new());
}
