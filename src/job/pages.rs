//! What each check of job files means, for people. An example is a line of a job file that really gets that code.

use crate::model::{Code, Page};

/// The page of a code, of a check or of an attempt; small letters will do.
pub fn page(code: &str) -> Option<Page> {
    pages().find(|page| page.code.eq_ignore_ascii_case(code))
}

/// Every page, in the order of codes: attempts, then checks.
pub fn pages() -> impl Iterator<Item = Page> {
    Code::ALL.iter().map(|code| code.page()).chain(CHECKS.iter().copied())
}

const fn check(
    code: &'static str,
    title: &'static str,
    means: &'static str,
    example: &'static str,
    mend: &'static str,
) -> Page {
    Page {
        code,
        title,
        means,
        example,
        mend,
    }
}

const CHECKS: &[Page] = &[
    check(
        "V001",
        "the template is wrong",
        "The template engine cannot read the template, or cannot find a filter that it uses.",
        "prompt: {template: '{% if sheet_num %}'}",
        "Mend the line that is shown. `engine: tera` or `engine: jinja` says which language it is.",
    ),
    check(
        "V002",
        "the workspace cannot be made",
        "Mozart makes the workspace itself, but not the directory above it: a wrong path would go unnoticed.",
        "workspace: no/where/w",
        "Correct the path, or make the directory; `mozartctl validate --fix` does.",
    ),
    check(
        "V003",
        "the template file is missing",
        "The file of `template_file`, or one that a template takes in, does not exist, or what it takes in lies outside \
         of the template's and the job file's directory.",
        "prompt: {template_file: t/nope.j2}",
        "Paths are relative to the job file; includes to the template.",
    ),
    check(
        "V004",
        "the system prompt file is missing",
        "The file of `system_prompt_file` does not exist.",
        "backend: {system_prompt_file: nope.md}",
        "The path is relative to the job file.",
    ),
    check(
        "V005",
        "the working directory is missing",
        "Sessions would have nowhere to work.",
        "backend: {working_directory: nope}",
        "Correct the path, which is relative to the job file, or make it; `mozartctl validate --fix` does.",
    ),
    check(
        "V007",
        "no regular expression",
        "The pattern cannot be compiled. Mozart takes Python's syntax.",
        "validations: [{type: content_regex, path: there.md, pattern: '('}]",
        "Mend it; `content_contains` takes text as it is.",
    ),
    check(
        "V008",
        "a rule lacks a field",
        "File rules need `path`, content rules `path` and `pattern`, `command_succeeds` needs `command`.",
        "validations: [{type: content_regex, path: there.md}]",
        "Add the field.",
    ),
    check(
        "V009",
        "the old version is still named",
        "A file whose name ends in -v3 still names v2: a copy that was not changed everywhere. In `name` and `workspace` \
         that is an error, because it would write over the old version's work.",
        "workspace: w-v2",
        "Write the new version there, or rename the file.",
    ),
    check(
        "V101",
        "a variable may be undefined",
        "The template uses a name that is not defined, in a branch to which no sheet comes.",
        "prompt: {template: '{% if sheet_num > 9 %}{{ stakez }}{% endif %}'}",
        "Correct the name, define it under `prompt.variables`, or ask `is defined`.",
    ),
    check(
        "V103",
        "a short time",
        "A session that does real work needs minutes, and the Claude CLI alone may wait 366 s for an API that does not \
         answer. What ends sooner fails for the wrong reason.",
        "backend: {timeout_seconds: 30}",
        "Raise it: 1800 s is the default of `timeout_seconds`, 900 s of `idle_timeout_seconds`; \
         `first_event_timeout_seconds` can be left out.",
    ),
    check(
        "V104",
        "a long time",
        "A session that does not come to an end is noticed only after two hours or more.",
        "backend: {timeout_seconds: 8000}",
        "Nothing, if the work takes so long.",
    ),
    check(
        "V106",
        "an empty pattern",
        "It is in every file, so the rule proves no more than that the file exists.",
        "validations: [{type: content_contains, path: there.md, pattern: ''}]",
        "Say what must be in the file, or take `file_exists`.",
    ),
    check(
        "V107",
        "the file does not exist now",
        "A content rule names one file for all sheets, and it is not there yet: the job has to make it.",
        "validations: [{type: content_contains, path: new.md, pattern: x}]",
        "Nothing, if a sheet makes it; otherwise correct the path.",
    ),
    check(
        "V108",
        "a file of an extension does not exist",
        "An item of `prompt_extensions` looks like the path of a file, and there is none. A text of its own would be \
         appended as it stands.",
        "prompt: {template: x, prompt_extensions: [./rules.md]}",
        "Correct the path, or write the text itself.",
    ),
    check(
        "V109",
        "a sheet cannot be rendered",
        "Every sheet's prompt is rendered once before anything starts. This one cannot be: a name is not defined, or \
         it takes more than 2,000,000 steps, 2 s of a processor, 256 MiB of memory or 16 MiB of text.",
        "prompt: {template: '{{ sheet_nun }}'}",
        "Correct the name, or define it under `prompt.variables`; of a template that takes too much look at what grows \
         in its loops.",
    ),
    check(
        "V190",
        "no effect yet",
        "The field or section is known and checked, and nothing happens because of it. The job runs as if it were not \
         there.",
        "notifications: [{type: desktop}]",
        "Nothing; take it out to be rid of the warning.",
    ),
    check(
        "V191",
        "read in two ways",
        "YAML 1.1, which Mozart reads, and newer YAML take this word for different values.",
        "prompt: {template: '{{ x }}', variables: {x: yes}}",
        "Put it in quotes if you mean the text; write `true`, `false` or plain digits otherwise.",
    ),
    check(
        "V192",
        "no template",
        "Every session gets one line with its item numbers.",
        "prompt: {stakes: high}",
        "Say what is to be done in `prompt.template` or `prompt.template_file`.",
    ),
    check(
        "V193",
        "a field in the wrong place",
        "The field exists, but not here; older versions passed over it without a word.",
        "working_directory: .",
        "Move it to where the report says, if you want its effect.",
    ),
    check(
        "V194",
        "backslashes in a path",
        "On Linux a backslash is a character of a name, and separates nothing.",
        "validations: [{type: file_modified, path: 'out\\x.md'}]",
        "Write `/`; `mozartctl validate --fix` does.",
    ),
    check(
        "V195",
        "a budget that cannot hold",
        "A `command` does not say what it costs, so nothing can be compared with the limit.",
        "backend: {type: command, command: [cat]}\ncost_limits: {enabled: true, max_cost_per_job: 5}",
        "Take `cost_limits` out, or bound the time instead.",
    ),
    check(
        "V196",
        "a model without a known price",
        "A session that is cut off does not say what it has cost, and its tokens cannot be counted: all that was \
         reserved for it counts as spent.",
        "backend: {type: claude_cli, cli_model: claude-next-9}\ncost_limits: {enabled: true, max_cost_per_job: 5}",
        "Nothing, or say `cost_per_1k_input_tokens` and `cost_per_1k_output_tokens`, or keep prices of your own (`prices`).",
    ),
    check(
        "V197",
        "the program",
        "Only `run` says it: which program the sessions are, and what it says its version is.",
        "backend: {type: claude_cli}",
        "Nothing; set `backend.cli_path` if it is the wrong one.",
    ),
    check(
        "V198",
        "the program may fail",
        "Only `run` says it: the program does not tell its version, or the service has no key that your shell has.",
        "backend: {type: claude_cli, cli_path: /usr/bin/claude}",
        "Try the program by hand; for a key, see \"Environment and secrets\" in the README.",
    ),
    check(
        "V201",
        "an expression in a path",
        "`{{ … }}` works in paths of rules; in the Python version it did not.",
        "validations: [{type: file_modified, path: '{{ sheet_num }}.md'}]",
        "Nothing. `{sheet_num}` is shorter.",
    ),
    check(
        "V202",
        "single braces in a template",
        "`{name}` is filled in in paths, patterns and commands; in a template it is sent as it stands.",
        "prompt: {template: 'x {sheet_num}'}",
        "Write `{{ name }}` in templates.",
    ),
    check(
        "V203",
        "no validations",
        "A sheet counts as done when its session says so.",
        "validations: []",
        "Add at least one rule that only good work can pass.",
    ),
    check(
        "V204",
        "permissions are asked for",
        "A session stops at the first tool that needs a permission, and nobody is there to give it.",
        "backend: {skip_permissions: no}",
        "Set `skip_permissions: true`, or list what is allowed in `allowed_tools`.",
    ),
    check(
        "V205",
        "only the existence of files is asked for",
        "An empty file passes.",
        "validations: [{type: file_exists, path: x}]",
        "Add a rule about what must be in it.",
    ),
    check(
        "V206",
        "fan-out without dependencies",
        "An instance may start before the stage that it builds on has ended.",
        "sheet: {size: 1, total_items: 2, fan_out: {2: 3}}",
        "Say which stages wait for which in `dependencies`.",
    ),
    check(
        "V207",
        "fan-out without parallel",
        "The instances of a stage run one after another.",
        "sheet: {size: 1, total_items: 2, fan_out: {2: 3}, dependencies: {2: [1]}}",
        "`parallel: {enabled: true}` lets them run at once.",
    ),
    check(
        "V208",
        "a variable of Mozart's own is replaced",
        "Your variable has the name of one that Mozart gives to every template, and wins.",
        "prompt: {template: x, variables: {workspace: y}}",
        "Choose another name, unless that is what you mean.",
    ),
    check(
        "V209",
        "your own MCP servers",
        "Each session starts the MCP servers of your own configuration anew.",
        "backend: {disable_mcp: false}",
        "Nothing, if sessions need them.",
    ),
    check(
        "V210",
        "the backend",
        "There is no backend of that name (an error), or its program is not on the PATH now (a remark).",
        "backend: {type: claude}",
        "`claude_cli` and `command` work. Install the program, or name it in `cli_path`.",
    ),
    check(
        "V211",
        "an unknown fallback",
        "There is no backend of that name to fall back on.",
        "backend: {fallbacks: [olama]}",
        "Correct the name.",
    ),
    check(
        "V212",
        "no such sheet",
        "A key of a map from sheets has the number of a sheet that the job does not have. Where the key would skip or \
         extend a sheet that is an error.",
        "sheet: {size: 1, total_items: 2, descriptions: {4: x}}",
        "Correct the number. With `fan_out` these are numbers of sheets, not of stages.",
    ),
    check(
        "V213",
        "one file of two sheets at once",
        "Rules of two sheets that may run at the same time ask for the same file. What one writes the other may \
         overwrite, and each may pass by the work of the other.",
        "parallel: {enabled: true}\nvalidations: [{type: file_modified, path: all.md}]",
        "Give each sheet a file of its own, such as `out{sheet_num}.md`, or let one wait for the other.",
    ),
    check(
        "V214",
        "a rule that cannot fail",
        "It holds whatever the session does, so it proves nothing.",
        "validations: [{type: command_succeeds, command: 'true'}]",
        "Ask for something that only good work has.",
    ),
    check(
        "V215",
        "a rule that cannot pass",
        "No work can fulfil it, so the sheet would use up all its attempts in vain.",
        "validations: [{type: content_regex, path: there.md, pattern: 'a$\\nb'}]",
        "Mend the rule: `(?m)` lets `^` and `$` mean lines; a path cannot go through a file.",
    ),
    check(
        "V216",
        "the same rules for every sheet",
        "No rule depends on the sheet: once the first sheet has done its work, the others pass without any.",
        "validations: [{type: content_contains, path: there.md, pattern: x}]",
        "Use `{sheet_num}`, `{start_item}` or another variable in a path or pattern, or a `condition`.",
    ),
    check(
        "V217",
        "the prompt does not name the file",
        "What will be checked is not appended (`append.requirements: false`), and the prompt does not name the file \
         that a rule asks for. A session cannot know where to write.",
        "prompt: {template: Do it, append: {requirements: false}}\nvalidations: [{type: file_modified, path: out.md}]",
        "Name the file in the template, or let the requirements be appended.",
    ),
    check(
        "V218",
        "isolation without git",
        "The working directory is in no git repository, so there can be no worktree of it.",
        "isolation: {enabled: true, mode: worktree}",
        "Run `git init` there, or point `working_directory` at a repository.",
    ),
];

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Codes that stand in quotes in the sources below a directory.
    pub(crate) fn codes_in(directory: &Path, found: &mut BTreeSet<String>) {
        let quoted = regex::Regex::new(r#""([VE][0-9]{3})""#).unwrap();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                codes_in(&path, found);
            } else if name != "pages.rs"
                && !name.contains("test")
                && !path.components().any(|part| part.as_os_str() == "tests")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                found.extend(quoted.captures_iter(&text).map(|found| found[1].to_owned()));
            }
        }
    }

    #[test]
    fn every_code_has_a_page_and_no_page_is_left_over() {
        let codes: Vec<&str> = pages().map(|page| page.code).collect();
        assert!(codes.is_sorted_by(|one, other| one < other), "{codes:?}");
        for page in pages() {
            for text in [page.means, page.mend] {
                assert!(text.ends_with('.') && !text.contains('\n'), "{}: {text}", page.code);
            }
            assert!(!page.title.is_empty() && !page.example.is_empty(), "{}", page.code);
        }
        let mut used = BTreeSet::new();
        for room in ["src/job", "src/daemon"] {
            codes_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut used);
        }
        assert!(used.len() > 30, "{used:?}");
        let without: Vec<&String> = used.iter().filter(|code| page(code).is_none()).collect();
        assert!(without.is_empty(), "no page: {without:?}");
        let left_over: Vec<&str> = CHECKS
            .iter()
            .map(|page| page.code)
            .filter(|code| !used.contains(*code))
            .collect();
        assert!(left_over.is_empty(), "nothing gives {left_over:?}");
    }

    #[test]
    fn a_page_is_found_as_people_write_codes() {
        assert_eq!(page("v101").map(|page| page.code), Some("V101"));
        assert_eq!(page("E203").map(|page| page.title), Some("check command failed"));
        assert_eq!(page("V999"), None);
    }
}
