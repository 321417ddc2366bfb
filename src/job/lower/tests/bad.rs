use super::*;
use crate::job::schema::tests::{by_schema, document_of};

/// Every kind of bad input with its exact report.
fn table() -> Vec<(String, &'static str)> {
    vec![
        (
            "just text\n".to_owned(),
            "ERROR E301 1:1 : a job file must be a map of fields, and this is the text \"just text\"",
        ),
        (
            "- a\n".to_owned(),
            "ERROR E301 1:3 : a job file must be a map of fields, and this is a list",
        ),
        (
            with("name", "nam: good"),
            "ERROR E301 1:1 nam: a job file has no field `nam`; did you mean `name`?\nERROR E302 1:1 name: a job needs a `name`",
        ),
        (with("name", "name: ''"), "ERROR E301 1:7 name: `name` is empty"),
        (
            with("name", "name: [a]"),
            "ERROR E301 1:8 name: `name` must be text, and this is a list",
        ),
        (
            plus("name: again"),
            "ERROR E304 6:1 : the key `name` stands here twice; it stood on line 1 already",
        ),
        (
            plus("backend: {timout_seconds: 100}"),
            "ERROR E301 6:11 backend.timout_seconds: `backend` has no field `timout_seconds`; did you mean `timeout_seconds`?",
        ),
        (
            plus("timeout_seconds: 100"),
            "ERROR E301 6:1 timeout_seconds: a job file has no field `timeout_seconds`; did you mean `backend.timeout_seconds`?",
        ),
        (
            plus("retry: {jiter: true}"),
            "ERROR E301 6:9 retry.jiter: `retry` has no field `jiter`; did you mean `jitter`?",
        ),
        (
            plus("retry: {max_retries: many}"),
            "ERROR E301 6:22 retry.max_retries: `retry.max_retries` must be a whole number, and this is the text \"many\"",
        ),
        (
            plus("retry: {max_retries: -1}"),
            "ERROR E301 6:22 retry.max_retries: `retry.max_retries` must be at least 0, and this is -1",
        ),
        (
            plus("retry: {max_retries: 1.5}"),
            "ERROR E301 6:22 retry.max_retries: `retry.max_retries` must be a whole number, and this is the number 1.5",
        ),
        (
            plus("retry: {completion_threshold_percent: 101}"),
            "ERROR E301 6:39 retry.completion_threshold_percent: `retry.completion_threshold_percent` must be above 0 and at most 100, and this is 101",
        ),
        (
            plus("retry: {exponential_base: 1}"),
            "ERROR E301 6:27 retry.exponential_base: `retry.exponential_base` must be above 1, and this is 1",
        ),
        (
            plus("retry: {jitter: maybe}"),
            "ERROR E301 6:17 retry.jitter: `retry.jitter` must be true or false, and this is the text \"maybe\"",
        ),
        (
            plus("retry: {base_delay_seconds: 20, max_delay_seconds: 10}"),
            "ERROR E301 6:52 retry.max_delay_seconds: `max_delay_seconds` (10) must not be less than `base_delay_seconds` (20)",
        ),
        (
            plus("retry: 3"),
            "ERROR E301 6:8 retry: `retry` must be a map of fields, and this is the number 3",
        ),
        (
            plus("rate_limit: {detection_patterns: ['(']}"),
            "ERROR V007 6:35 rate_limit.detection_patterns[0]: \"(\" is no regular expression: unclosed group",
        ),
        (
            plus("rate_limit: {detection_patterns: [429]}"),
            "ERROR E301 6:35 rate_limit.detection_patterns[0]: `rate_limit.detection_patterns[0]` must be text, and this is the number 429; put it in quotes: \"429\"",
        ),
        (
            plus("on_limit: wat"),
            "ERROR E301 6:11 on_limit: `on_limit` must be `wait`, `stop` or `ask`, and this is \"wat\"; did you mean `wait`?",
        ),
        (
            with("sheet", "description: x"),
            "ERROR E302 1:1 sheet: a job needs a section `sheet` (or `batch`) with `size` and `total_items`",
        ),
        (
            with("sheet", "batch: {size: 1}"),
            "ERROR E302 3:9 sheet.total_items: `sheet` (or `batch`) needs `total_items`",
        ),
        (
            with("sheet", "batch: {size: 0, total_items: 2}"),
            "ERROR E301 3:15 batch.size: `batch.size` must be at least 1, and this is 0",
        ),
        (
            with("sheet", "sheet: {size: 1, total_items: 2, start_item: 3}"),
            "ERROR E301 3:46 sheet.start_item: this makes no sheet at all: `start_item` is 3 and `total_items` only 2",
        ),
        (
            with("sheet", "sheet: {size: 1, total_items: 100001}"),
            "ERROR E301 3:31 sheet.total_items: this makes 100001 sheets; a run may have at most 100000; use a larger `size`",
        ),
        (
            plus("batch: {size: 1, total_items: 2}"),
            "ERROR E301 6:1 batch: `batch` is another word for `sheet`, which stands here too; keep one of the two",
        ),
        (
            with("workspace", "workspace: a-file"),
            "ERROR E303 2:12 workspace: the workspace /jobs/a-file is not a directory",
        ),
        (
            with("workspace", "workspace: a-file/w"),
            "ERROR E303 2:12 workspace: the workspace /jobs/a-file/w cannot be made: /jobs/a-file is not a directory",
        ),
        (
            with("workspace", "workspace: no/where/w"),
            "ERROR V002 2:12 workspace: the workspace /jobs/no/where/w cannot be made: /jobs/no/where does not exist; mkdir -p /jobs/no/where",
        ),
        (
            with("workspace", "workspace: ${NOPE}/w"),
            "ERROR E303 2:12 workspace: `workspace`: the variable NOPE is not set",
        ),
        (
            plus("backend: {type: claude}"),
            "ERROR V210 6:17 backend.type: there is no backend `claude`; did you mean `claude_cli`?",
        ),
        (
            plus("backend: {type: claude-cli}"),
            "ERROR V210 6:17 backend.type: there is no backend `claude-cli`; did you mean `claude_cli`?",
        ),
        (
            plus("backend: {type: ollama}"),
            "ERROR E301 6:17 backend.type: the backend `ollama` is known, but not supported yet; use `claude_cli` or `command`",
        ),
        (
            plus("backend: {type: recursive_light}"),
            "ERROR E301 6:17 backend.type: the backend `recursive_light` needs a private service that Mozart does not speak to; use `claude_cli`",
        ),
        (
            plus("backend: {type: command}"),
            "ERROR E302 6:11 backend.command: `type: command` needs `command: [program, arguments…]`",
        ),
        (
            plus("backend: {type: command, command: []}"),
            "ERROR E302 6:26 backend.command: `type: command` needs `command: [program, arguments…]`",
        ),
        (
            plus("backend: {command: [cat]}"),
            "ERROR E302 6:21 backend.type: `backend.command` needs `type: command` beside it",
        ),
        (
            plus("backend: {working_directory: nope}"),
            "ERROR V005 6:30 backend.working_directory: the working directory /jobs/nope does not exist; mkdir -p /jobs/nope",
        ),
        (
            plus("backend: {working_directory: a-file}"),
            "ERROR V005 6:30 backend.working_directory: the working directory /jobs/a-file is not a directory",
        ),
        (
            plus("backend: {system_prompt_file: nope.md}"),
            "ERROR V004 6:31 backend.system_prompt_file: the system prompt file /jobs/nope.md does not exist",
        ),
        (
            plus("backend: {timeout_seconds: 0}"),
            "ERROR E301 6:28 backend.timeout_seconds: `backend.timeout_seconds` must be above 0, and this is 0",
        ),
        (
            plus("backend: {timeout_overrides: {one: 100}}"),
            "ERROR E301 6:31 backend.timeout_overrides.one: a key here must be the number of a sheet, from 1, and this is the text \"one\"",
        ),
        (
            plus("backend: {sheet_overrides: {1: {timeout_seconds: 0}}}"),
            "ERROR E301 6:50 backend.sheet_overrides.1.timeout_seconds: `backend.sheet_overrides.1.timeout_seconds` must be above 0, and this is 0",
        ),
        (
            plus("backend: {sheet_overrides: {1: {cli_modle: opus}}}"),
            "ERROR E301 6:33 backend.sheet_overrides.1.cli_modle: `backend.sheet_overrides.1` has no field `cli_modle`; did you mean `cli_model`?",
        ),
        (
            plus("backend: {pass_env: ['A=b']}"),
            "ERROR E301 6:22 backend.pass_env[0]: \"A=b\" is no name of a variable; only its name stands here, never its value",
        ),
        (
            plus("backend: {env: {GITHUB_TOKEN: ghp_abcdefgh}}"),
            "ERROR E301 6:17 backend.env.GITHUB_TOKEN: `backend.env.GITHUB_TOKEN` looks like a secret, and a job file is stored with every run of it; set GITHUB_TOKEN where Mozart runs, and list its name in `backend.pass_env`",
        ),
        (
            with("prompt", "prompt: {template: x, template_file: t/main.j2}"),
            "ERROR E301 4:38 prompt.template_file: `template` and `template_file` exclude each other; keep one of the two",
        ),
        (
            with("prompt", "prompt: {template_file: t/nope.j2}"),
            "ERROR V003 4:25 prompt.template_file: the template file /jobs/t/nope.j2 does not exist",
        ),
        (
            with("prompt", "prompt: {template_file: t}"),
            "ERROR V003 4:25 prompt.template_file: the template file /jobs/t does not exist",
        ),
        (
            with("prompt", "prompt: {template: '{{ 1 + }}'}"),
            "ERROR V001 4:20 prompt.template: the template is wrong: unexpected end of variable block (line 1 of the template)",
        ),
        (
            with("prompt", "prompt: {template: '{% if x %}'}"),
            "ERROR V001 4:20 prompt.template: the template is wrong: unexpected end of input, expected end of block (line 1 of the template)",
        ),
        (
            with("prompt", "prompt: {template: '{{ x | nofilter }}', variables: {x: 1}}"),
            "ERROR V001 4:20 prompt.template: the template is wrong: filter nofilter is unknown (line 1 of the template)",
        ),
        (
            with("prompt", "prompt:\n  template: |\n    Line one\n    {{ sheet_nun }}"),
            "ERROR V109 7:8 prompt.template: sheet 1 cannot be rendered: `sheet_nun` is undefined (line 2 of the template); did you mean `sheet_num`?",
        ),
        (
            with("prompt", "prompt: {template: '{% include \"no.j2\" %}'}"),
            "ERROR V003 4:20 prompt.template: the template takes in \"no.j2\", and /jobs/no.j2 does not exist\nERROR V109 4:20 prompt.template: sheet 1 cannot be rendered: tried to include non-existing template 'no.j2' (line 1 of the template)",
        ),
        (
            with("prompt", "prompt: {template: x, variables: {1: y}}"),
            "ERROR E301 4:35 prompt.variables: a variable needs a name, and this is the number 1",
        ),
        (
            with("prompt", "prompt: {template: x, engine: jinja3}"),
            "ERROR E301 4:31 prompt.engine: `prompt.engine` must be `tera` or `jinja`, and this is \"jinja3\"; did you mean `jinja`?",
        ),
        (
            with("validations", "validations: {type: file_exists}"),
            "ERROR E301 5:15 validations: `validations` must be a list, and this is a map",
        ),
        (
            with(
                "sheet",
                "sheet: {size: 1, total_items: 2, skip_when: {2: \"sheets[1].stauts == 'x'\"}}",
            ),
            "ERROR E301 3:49 sheet.skip_when.2: the expression cannot be evaluated: `stauts` is no field of a sheet; did you mean `status`?; write for example `sheets[1].status == 'completed' and sheets[1].attempt_count == 1`",
        ),
        (
            with(
                "sheet",
                "sheet: {size: 1, total_items: 2, skip_when: {2: 'sheets[3].status ='}}",
            ),
            "ERROR E301 3:49 sheet.skip_when.2: the expression cannot be evaluated: `=` is written `==`; write for example `sheets[1].status == 'completed' and sheets[1].attempt_count == 1`",
        ),
        (
            with("sheet", "sheet: {size: 1, total_items: 2, skip_when: {3: 'True'}}"),
            "ERROR V212 3:46 sheet.skip_when.3: there is no sheet 3: this job has 2 sheets",
        ),
        (
            with(
                "sheet",
                "sheet: {size: 1, total_items: 2, skip_when_command: {2: {description: x}}}",
            ),
            "ERROR E302 3:58 sheet.skip_when_command.2.command: a `skip_when_command` needs a `command`",
        ),
        (
            with(
                "sheet",
                "sheet: {size: 1, total_items: 2, skip_when_command: {2: {command: x, timeout_seconds: 61}}}",
            ),
            "ERROR E301 3:87 sheet.skip_when_command.2.timeout_seconds: `sheet.skip_when_command.2.timeout_seconds` must be above 0 and at most 60, and this is 61",
        ),
        (
            with(
                "sheet",
                "sheet: {size: 1, total_items: 2, skip_when_command: {2: {command: 'a {{ nobody }}'}}}",
            ),
            "ERROR E604 3:67 sheet.skip_when_command.2: `{{ nobody }}` cannot be filled in: `nobody` is undefined",
        ),
        (
            with("prompt", "prompt: {template: x, prompt_extensions: [none.md]}"),
            "ERROR V108 4:43 prompt.prompt_extensions[0]: the extension file /jobs/none.md does not exist; a text has a space in it",
        ),
        (
            with("prompt", "prompt: {template: x, prompt_extensions: [Fine so., ./w]}"),
            "ERROR E303 4:53 prompt.prompt_extensions[1]: the extension /jobs/w is not a regular file",
        ),
        (
            with(
                "sheet",
                "sheet: {size: 1, total_items: 2, prompt_extensions: {2: [t/none]}}",
            ),
            "ERROR V108 3:58 sheet.prompt_extensions.2[0]: the extension file /jobs/t/none does not exist; a text has a space in it",
        ),
        (
            plus("cross_sheet: {capture_files: ['*.md', '../{sheet_num}.md']}"),
            "ERROR E303 6:39 cross_sheet.capture_files[1]: `/jobs/1.md` is outside of the workspace /jobs/w",
        ),
        (
            with("validations", "validations: [{path: x}]"),
            "ERROR V008 5:16 validations[0].type: this rule needs a `type`",
        ),
        (
            with("validations", "validations: [{type: file_exist, path: x}]"),
            "ERROR E301 5:22 validations[0].type: `validations[0].type` must be `file_exists`, `file_modified`, `content_contains`, `content_regex` or `command_succeeds`, and this is \"file_exist\"; did you mean `file_exists`?",
        ),
        (
            with("validations", "validations: [{type: content_regex, path: there.md}]"),
            "ERROR V008 5:16 validations[0].pattern: a rule of type `content_regex` needs `pattern`",
        ),
        (
            with("validations", "validations: [{type: file_modified, path: ''}]"),
            "ERROR V008 5:43 validations[0].path: a rule of type `file_modified` needs `path`",
        ),
        (
            with("validations", "validations: [{type: command_succeeds, command: ' '}]"),
            "ERROR V008 5:49 validations[0].command: a rule of type `command_succeeds` needs `command`",
        ),
        (
            with("validations", "validations: [{type: command_succeeds}]"),
            "ERROR V008 5:16 validations[0].command: a rule of type `command_succeeds` needs `command`",
        ),
        (
            with(
                "validations",
                "validations: [{type: content_regex, path: there.md, pattern: '('}]",
            ),
            "ERROR V007 5:62 validations[0].pattern: this is no regular expression: unclosed group",
        ),
        (
            with(
                "validations",
                "validations: [{type: content_regex, path: there.md, pattern: '{sheet_num}('}]",
            ),
            "ERROR V007 5:62 validations[0].pattern: for sheet 1 this is no regular expression: unclosed group",
        ),
        (
            with(
                "validations",
                "validations: [{type: file_modified, path: '{workspce}/x'}]",
            ),
            "ERROR E303 5:43 validations[0].path: `{workspce}` names no variable; did you mean `{workspace}`?",
        ),
        (
            with("validations", "validations: [{type: file_modified, path: ../x}]"),
            "ERROR E303 5:43 validations[0].path: `/jobs/x` is outside of the workspace /jobs/w",
        ),
        (
            with(
                "validations",
                "validations: [{type: command_succeeds, command: 'true', condition: 'sheet_num = 1'}]",
            ),
            "ERROR E301 5:68 validations[0].condition: the condition cannot be read: `=` is written `==`; write comparisons such as `sheet_num >= 2 and stage in [1, 3]`",
        ),
        (
            with(
                "validations",
                "validations: [{type: command_succeeds, command: 'true', condition: 'sheet == 1'}]",
            ),
            "ERROR E301 5:68 validations[0].condition: `sheet` is not a variable; did you mean `sheet_num`?",
        ),
        (
            with(
                "validations",
                "validations: [{type: command_succeeds, command: 'echo {{ nobody }}'}]",
            ),
            "ERROR E604 5:49 validations[0].command: `{{ nobody }}` cannot be filled in: `nobody` is undefined",
        ),
        (
            with(
                "validations",
                "validations: [{type: command_succeeds, command: 'true', stage: 11}]",
            ),
            "ERROR E301 5:64 validations[0].stage: `validations[0].stage` must be from 1 to 10, and this is 11",
        ),
        (
            with(
                "validations",
                "validations: [{type: command_succeeds, command: 'true', retry_cout: 1}]",
            ),
            "ERROR E301 5:57 validations[0].retry_cout: `validations` has no field `retry_cout`; did you mean `retry_count`?",
        ),
        (
            plus("backend: {timeout_overrides: {1: 900, '1': 1000}}"),
            "ERROR E301 6:39 backend.timeout_overrides.1: 1 stands here twice; it stood on line 6 already",
        ),
        (
            plus("isolation: {mode: worktree, branch_prefix: 2fast}"),
            "WARNING V190 6:1 isolation: `isolation` is known, but has no effect yet; the job runs as if it were not there\nERROR E301 6:44 isolation.branch_prefix: `isolation.branch_prefix` must be a letter, then letters, digits, `_` and `-`, and this is the text \"2fast\"",
        ),
        (
            plus("resources: {memory_max: lots}"),
            "ERROR E301 6:1 resources: `resources` is known, but not supported yet; take it out if the job is right without it\nERROR E301 6:25 resources.memory_max: `resources.memory_max` must be a number of bytes, or one with K, M or G behind it, and this is the text \"lots\"",
        ),
        (
            plus("notifications: [{on_events: [job_failed]}]"),
            "WARNING V190 6:1 notifications: `notifications` is known, but has no effect yet; the job runs as if it were not there\nERROR E302 6:18 notifications[0]: `notifications[0]` needs `type`",
        ),
        (
            plus("notifications: [{type: slack, config: {channel: '#x'}}]"),
            "WARNING V190 6:1 notifications: `notifications` is known, but has no effect yet; the job runs as if it were not there\nERROR E302 6:18 notifications[0]: `notifications[0]` of type `slack` needs `config.webhook_url` or `config.webhook_url_env`",
        ),
        (
            plus("on_success: [{type: run_job}]"),
            "ERROR E301 6:1 on_success: `on_success` is known, but not supported yet; take it out if the job is right without it\nERROR E302 6:15 on_success[0]: `on_success[0]` of type `run_job` needs `job_path`",
        ),
        (
            plus("checkpoints: {triggers: [{name: x, message: y}]}"),
            "WARNING V190 6:1 checkpoints: `checkpoints` is known, but has no effect yet; the job runs as if it were not there\nERROR E302 6:27 checkpoints.triggers[0]: `checkpoints.triggers[0]` needs `sheet_nums`, `prompt_contains` or `min_retry_count`",
        ),
        (
            plus("ai_review: {min_score: 90}"),
            "WARNING V190 6:1 ai_review: `ai_review` is known, but has no effect yet; the job runs as if it were not there\nERROR E301 6:24 ai_review.min_score: `target_score` (80) must not be less than `min_score` (90)",
        ),
        (
            plus("notifications: [{type: dektop}]"),
            "WARNING V190 6:1 notifications: `notifications` is known, but has no effect yet; the job runs as if it were not there\nERROR E301 6:24 notifications[0].type: `notifications[0].type` must be `desktop`, `slack`, `webhook` or `email`, and this is \"dektop\"; did you mean `desktop`?",
        ),
    ]
}

#[test]
fn bad_inputs_are_told_exactly() {
    let mut wrong = Vec::new();
    for (text, expected) in table() {
        let loaded = load_with(&text, |_| ());
        let found = shown(&loaded).join("\n");
        if found != expected {
            wrong.push(format!("in:\n{text}found:\n{found}\nnot:\n{expected}\n"));
        }
        assert_eq!(loaded.plan, None, "{text}");
        assert!(!loaded.not_yaml);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a schema cannot see: other files, templates, expressions, several fields at once.
const BEYOND_A_SCHEMA: &[&str] = &[
    "is no regular expression",
    "does not exist",
    "is not a directory",
    "must not be less than",
    "this makes",
    "is not set",
    "no name of a variable",
    "looks like a secret",
    "the template is wrong",
    "cannot be rendered",
    "a variable needs a name",
    "names no variable",
    "is outside of the workspace",
    "the condition cannot be read",
    "is not a variable",
    "cannot be filled in",
    "is known, but not supported yet",
    "needs a private service",
    "the expression cannot be evaluated",
    "there is no sheet",
    "is not a regular file",
    "1 stands here twice",
];

#[test]
fn the_json_schema_rejects_what_a_schema_can_reject() {
    let check = by_schema();
    let mut wrong = Vec::new();
    for (text, report) in table() {
        // An editor's own parser refuses two equal keys.
        let rejected = document_of(&text).map_or(true, |document| check(&document).is_err());
        let beyond = report
            .lines()
            .filter(|line| line.starts_with("ERROR"))
            .all(|line| BEYOND_A_SCHEMA.iter().any(|part| line.contains(part)));
        if rejected == beyond {
            wrong.push(format!("rejected: {rejected}\n{text}{report}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_yaml_is_marked_so() {
    for (text, expected) in [
        (&b""[..], "ERROR E304 - : this is not YAML: the file is empty"),
        (
            b"a: [\n",
            "ERROR E304 2:1 : this is not YAML: did not find expected node content",
        ),
        (
            b"\x00\x01",
            "ERROR E304 - : this is not YAML: the file holds a NUL byte at byte 0, it is probably binary",
        ),
    ] {
        let fixture = Fixture::default();
        let input = JobInput {
            set: &fixture.set,
            environment: &fixture.environment,
            ..JobInput::of(text, Path::new("/jobs"))
        };
        let loaded = load(&input, &fixture.files);
        assert_eq!(shown(&loaded), [expected]);
        assert!(loaded.not_yaml);
        assert_eq!(loaded.plan, None);
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "nam: x\nworkspace: no/where/w\nsheet: {size: 0, total_items: 1}\nprompt:\n  template: '{{ a'\nretry: {jiter: 1}\nvalidations:\n  - {type: content_regex, path: x, pattern: '['}\n  - {type: file_exists}\n";
    let ids: Vec<String> = load_with(text, |_| ())
        .problems
        .iter()
        .map(|problem| format!("{}@{}", problem.check_id, problem.line.unwrap_or(0)))
        .collect();
    assert_eq!(
        ids,
        [
            "E301@1", "E302@1", "V002@2", "E301@3", "V001@5", "E301@6", "V107@8", "V007@8", "V008@9"
        ]
    );
}

/// Whatever is done to a job file, there is an answer: no panic, and a plan only where there is no error.
#[test]
fn mutilated_job_files_get_an_answer() {
    const PIECES: &[&str] = &[
        "{{",
        "}}",
        "{%",
        "%}",
        "{%}",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "\n",
        "&a ",
        "*a",
        "<<: ",
        "'",
        "\"",
        "|",
        "#",
        "!!str ",
        "1e9",
        "-1",
        "99999999999999999999",
        "ü",
        "\\",
        "$(",
        "`",
        "{sheet_num:>99}",
        "~",
        "\t",
        "type: command",
    ];
    // A fixed sequence, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below.max(1)).unwrap()).unwrap()
    };
    let mut plans = 0;
    for _ in 0..300 {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..=next(4) {
            let at = next(text.len());
            if next(2) == 0 {
                text.splice(at..at, PIECES[next(PIECES.len())].chars());
            } else {
                text.drain(at..(at + next(12)).min(text.len()));
            }
        }
        let text: String = text.into_iter().collect();
        let loaded = load_with(&text, |_| ());
        let errors = loaded
            .problems
            .iter()
            .any(|problem| problem.severity == crate::model::Severity::Error);
        assert_eq!(loaded.plan.is_none(), errors, "{text}");
        assert!(!crate::job::report(&loaded.problems, "job.yaml", &text, true).contains("\u{1b}[2J"));
        plans += u32::from(loaded.plan.is_some());
    }
    assert!(
        (10..290).contains(&plans),
        "{plans} plans: the mutations are too weak or too strong"
    );
}
