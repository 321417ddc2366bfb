//! What each field does to the plan. The comment above a test names the field that it shows.

use super::*;
use crate::job::plan::{
    Backend, BackendKind, Check, CircuitBreaker, ClaudeCli, CostLimits, TemplateEngine, TokenPrice,
};
use crate::job::rules::{capture_patterns, rules_for, skip_command_for};
use crate::job::schema::{Effect, Field, Type, literal};
use crate::model::{Cost, SheetNo, Span};

fn backend(fields: &str) -> Backend {
    plan(&plus(&format!("backend: {{{fields}}}"))).backend
}

fn claude(fields: &str) -> ClaudeCli {
    match backend(fields).kind {
        BackendKind::ClaudeCli(cli) => cli,
        BackendKind::Command { .. } => panic!("not claude_cli"),
    }
}

/// The plan of a job with that one rule.
fn rule(fields: &str) -> Plan {
    plan(&with("validations", &format!("validations: [{{{fields}}}]")))
}

// field: name
#[test]
fn name_is_the_job() {
    assert_eq!(plan(&with("name", "name: 2024")).name.as_str(), "2024");
    assert_eq!(plan(&with("name", "name: a/b c")).checkpoint_path, "/jobs/w/a_b c.json");
    assert!(
        problems(&with("name", &format!("name: {}", "x".repeat(129))))[0].contains("`name` is longer than 128 bytes")
    );
}

// field: description
#[test]
fn description_is_kept() {
    assert_eq!(
        plan(&plus("description: what for")).description.as_deref(),
        Some("what for")
    );
    assert_eq!(plan(GOOD).description, None);
}

// field: workspace
#[test]
fn workspace_is_relative_to_the_job_file() {
    assert_eq!(plan(&with("workspace", "workspace: ./new")).workspace, "/jobs/new");
    assert_eq!(plan(&with("workspace", "workspace: ~/new")).workspace, "/home/u/new");
    assert_eq!(
        plan(&with("workspace", "workspace: ${HOME}/./x/../new")).workspace,
        "/home/u/new"
    );
    assert_eq!(
        plan(&with("workspace", "description: none")).workspace,
        "/jobs/workspace"
    );
    let overridden = load_with(GOOD, |fixture| fixture.workspace = Some("there".into()));
    assert_eq!(overridden.plan.unwrap().workspace, "/home/u/there");
}

// field: state_backend
#[test]
fn state_backend_json_writes_after_every_sheet() {
    assert!(plan(&plus("state_backend: json")).checkpoint_every_sheet);
    assert!(!plan(&plus("state_backend: sqlite")).checkpoint_every_sheet);
    assert!(!plan(GOOD).checkpoint_every_sheet);
}

// field: state_path
#[test]
fn state_path_moves_the_checkpoint() {
    assert_eq!(
        plan(&plus("state_path: state/x.json")).checkpoint_path,
        "/jobs/w/state/x.json"
    );
    assert_eq!(plan(&plus("state_path: /tmp/x.json")).checkpoint_path, "/tmp/x.json");
}

// field: pause_between_sheets_seconds
#[test]
fn pause_between_sheets_is_kept() {
    assert_eq!(plan(GOOD).pause_between_sheets, Span::from_secs(10));
    assert_eq!(
        plan(&plus("pause_between_sheets_seconds: 0")).pause_between_sheets,
        Span::from_secs(0)
    );
    assert_eq!(
        plan(&plus("pause_between_batches_seconds: '2'")).pause_between_sheets,
        Span::from_secs(2)
    );
}

// No effect on the order of runs yet, but it is kept.
#[test]
fn priority_is_kept_and_overridden() {
    assert_eq!(plan(GOOD).priority, 5);
    assert_eq!(plan(&plus("priority: 8")).priority, 8);
    let overridden = load_with(&plus("priority: 8"), |fixture| fixture.priority = Some(2));
    assert_eq!(overridden.plan.unwrap().priority, 2);
}

// field: on_limit
#[test]
fn on_limit_waits_unless_it_stops() {
    assert_eq!(plan(GOOD).on_limit, OnLimit::Wait);
    assert_eq!(plan(&plus("on_limit: wait")).on_limit, OnLimit::Wait);
    assert_eq!(plan(&plus("on_limit: stop")).on_limit, OnLimit::Stop);
}

// field: backend.type
#[test]
fn backend_type_chooses_the_session() {
    assert_eq!(plan(GOOD).backend.kind.as_str(), "claude_cli");
    assert_eq!(backend("type: claude_cli").kind.program(), "claude");
    assert_eq!(backend("type: command, command: [cat]").kind.as_str(), "command");
}

// field: backend.command
#[test]
fn command_is_kept_as_written() {
    let argv = |fields: &str| match backend(fields).kind {
        BackendKind::Command { command } => command,
        BackendKind::ClaudeCli(_) => panic!("not command"),
    };
    assert_eq!(
        argv("type: command, command: [sh, -c, 'cat > x', 3, yes]"),
        ["sh", "-c", "cat > x", "3", "yes"]
    );
    assert_eq!(
        argv("type: command, command: [./agent.sh, ./x]"),
        ["/jobs/agent.sh", "./x"]
    );
    assert_eq!(argv("type: command, command: [~/agent]"), ["/home/u/agent"]);
}

// field: backend.skip_permissions
#[test]
fn skip_permissions_is_on_unless_said() {
    assert!(claude("skip_permissions: yes").skip_permissions);
    assert!(claude("cli_model: x").skip_permissions);
    assert!(!claude("skip_permissions: 'off'").skip_permissions);
}

// field: backend.disable_mcp
#[test]
fn disable_mcp_is_on_unless_said() {
    assert!(claude("cli_model: x").disable_mcp);
    assert!(!claude("disable_mcp: no").disable_mcp);
}

// field: backend.output_format
#[test]
fn output_format_is_kept_for_showing() {
    assert_eq!(claude("cli_model: x").output_format, "text");
    for format in ["json", "text", "stream-json"] {
        assert_eq!(claude(&format!("output_format: {format}")).output_format, format);
    }
}

// field: backend.cli_model
#[test]
fn cli_model_is_passed_on() {
    assert_eq!(claude("cli_model: sonnet").model.as_deref(), Some("sonnet"));
    assert_eq!(claude("disable_mcp: true").model, None);
}

// field: backend.allowed_tools
#[test]
fn allowed_tools_are_passed_on() {
    assert_eq!(
        claude("allowed_tools: [Read, 'Bash(git *)']").allowed_tools,
        ["Read", "Bash(git *)"]
    );
}

// field: backend.system_prompt_file
#[test]
fn system_prompt_file_is_read() {
    assert_eq!(
        claude("system_prompt_file: system.md").system_prompt.as_deref(),
        Some("Be kind.")
    );
    let mut unreadable = files();
    unreadable.0.insert(
        "/jobs/system.md".into(),
        Some(Err("cannot be read: permission denied".into())),
    );
    let loaded = load_with(&plus("backend: {system_prompt_file: system.md}"), |fixture| {
        fixture.files = unreadable;
    });
    assert_eq!(
        shown(&loaded),
        [
            "ERROR E303 6:31 backend.system_prompt_file: the system prompt file /jobs/system.md cannot be read: permission denied"
        ]
    );
}

// field: backend.working_directory
#[test]
fn working_directory_is_relative_to_the_job_file() {
    assert_eq!(plan(GOOD).backend.working_directory, "/jobs");
    assert_eq!(backend("working_directory: .").working_directory, "/jobs");
    assert_eq!(backend("working_directory: '~'").working_directory, "/home/u");
    assert_eq!(backend("working_directory: w").working_directory, "/jobs/w");
}

// field: backend.timeout_seconds
#[test]
fn timeout_seconds_holds_for_every_sheet() {
    let timeouts = |fields: &str| -> Vec<i64> {
        let plan = plan(&plus(&format!("backend: {{{fields}}}")));
        plan.sheets.iter().map(|sheet| sheet.timeout.0 / 1000).collect()
    };
    assert_eq!(timeouts("cli_model: x"), [1_800_000, 1_800_000]);
    assert_eq!(timeouts("timeout_seconds: 90.5"), [90_500, 90_500]);
    assert_eq!(timeouts("timeout_seconds: '90'"), [90_000, 90_000]);
}

// field: backend.timeout_overrides
#[test]
fn timeout_overrides_are_by_sheet() {
    let plan = plan(&plus("backend: {timeout_seconds: 100, timeout_overrides: {2: 200}}"));
    assert_eq!(plan.sheets[0].timeout, Span::from_secs(100));
    assert_eq!(plan.sheets[1].timeout, Span::from_secs(200));
}

// field: backend.sheet_overrides
#[test]
fn sheet_overrides_win_over_all_else() {
    let fields = "cli_model: sonnet, timeout_seconds: 400, timeout_overrides: {1: 500, 2: 600}, \
                  sheet_overrides: {2: {timeout_seconds: '700', cli_model: opus}}";
    let plan = plan(&plus(&format!("backend: {{{fields}}}")));
    let told = |plan: &Plan| -> Vec<_> {
        let model = |sheet| plan.backend.model(Some(sheet)).map(str::to_owned);
        let sheets = plan.sheets.iter();
        sheets
            .map(|sheet| (sheet.timeout.to_duration().as_secs(), model(sheet)))
            .collect()
    };
    let expected = [(500, "sonnet"), (700, "opus")].map(|(time, model)| (time, Some(model.to_owned())));
    assert_eq!(told(&plan), expected);
    let mut stored = serde_json::to_value(&plan).unwrap();
    assert_eq!(told(&serde_json::from_value(stored.clone()).unwrap()), expected);
    // Of a plan that was stored before there were any, the backend's model holds.
    stored["sheets"][1].as_object_mut().unwrap().remove("model");
    let model = told(&serde_json::from_value(stored).unwrap()).swap_remove(1).1;
    assert_eq!(model.as_deref(), Some("sonnet"));
}

// field: backend.cli_path
#[test]
fn cli_path_is_a_name_or_absolute() {
    assert_eq!(claude("disable_mcp: true").cli_path, "claude");
    assert_eq!(claude("cli_path: claude-next").cli_path, "claude-next");
    assert_eq!(claude("cli_path: ./bin/claude").cli_path, "/jobs/bin/claude");
    assert_eq!(claude("cli_path: ~/bin/claude").cli_path, "/home/u/bin/claude");
}

// field: backend.pass_env
#[test]
fn pass_env_keeps_names_only() {
    assert_eq!(
        backend("pass_env: [GITHUB_TOKEN, EDITOR]").pass_env,
        ["GITHUB_TOKEN", "EDITOR"]
    );
}

// field: backend.env
#[test]
fn env_keeps_values_as_written() {
    let env = backend("env: {A: 1, B: yes, C: 'x y', MAX_THINKING_TOKENS: 32000, D: 007}").env;
    let shown: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(shown, ["A=1", "B=yes", "C=x y", "D=007", "MAX_THINKING_TOKENS=32000"]);
}

// field: backend.cli_extra_args
#[test]
fn cli_extra_args_are_kept_as_written() {
    assert_eq!(
        claude("cli_extra_args: [--max-turns, 5]").extra_args,
        ["--max-turns", "5"]
    );
}

// field: backend.max_output_capture_bytes
#[test]
fn max_output_capture_bytes_is_kept() {
    assert_eq!(plan(GOOD).backend.max_output_capture_bytes, 10_240);
    assert_eq!(backend("max_output_capture_bytes: 100").max_output_capture_bytes, 100);
}

// field: sheet.size
// field: sheet.total_items
// field: sheet.start_item
#[test]
fn sheets_cover_the_items() {
    let items = |fields: &str| -> Vec<(i64, i64)> {
        let plan = plan(&with("sheet", &format!("sheet: {{{fields}}}")));
        assert!(
            plan.sheets
                .iter()
                .enumerate()
                .all(|(index, sheet)| sheet.number as usize == index + 1)
        );
        plan.sheets
            .iter()
            .map(|sheet| (sheet.start_item, sheet.end_item))
            .collect()
    };
    assert_eq!(items("size: 10, total_items: 25"), [(1, 10), (11, 20), (21, 25)]);
    assert_eq!(items("size: 10, total_items: 25, start_item: 6"), [(6, 15), (16, 25)]);
    assert_eq!(items("size: 10, total_items: 3"), [(1, 3)]);
    assert_eq!(items("size: '2', total_items: 4"), [(1, 2), (3, 4)]);
    assert_eq!(
        items("size: 9223372036854775807, total_items: 9223372036854775807"),
        [(1, i64::MAX)]
    );
    assert_eq!(items("size: 1, total_items: 5, start_item: 5"), [(5, 5)]);
}

// field: sheet
// field: batch
#[test]
fn batch_is_another_word_for_sheet() {
    let batch = plan(&with("sheet", "batch: {size: 1, total_items: 2}"));
    assert_eq!(batch.sheets, plan(GOOD).sheets);
}

// field: sheet.descriptions
#[test]
fn descriptions_label_sheets() {
    let plan = plan(&with(
        "sheet",
        "sheet: {size: 1, total_items: 2, descriptions: {2: last}}",
    ));
    assert_eq!(plan.sheets[0].description, None);
    assert_eq!(plan.sheets[1].description.as_deref(), Some("last"));
}

// field: prompt.template
#[test]
fn template_is_kept() {
    let plan = plan(GOOD);
    assert_eq!(plan.prompt.template, "Do {{ sheet_num }}");
    assert_eq!(plan.prompt.template_name, "prompt.template");
}

// field: prompt.template_file
#[test]
fn template_file_is_read_with_what_it_takes_in() {
    let plan = plan(&with("prompt", "prompt: {template_file: t/main.j2}"));
    assert_eq!(plan.prompt.template, "Main {{ sheet_num }}\n{% include 'part.j2' %}\n");
    assert_eq!(plan.prompt.template_name, "t/main.j2");
    assert_eq!(
        plan.prompt.includes,
        BTreeMap::from([("part.j2".to_owned(), "part\n".to_owned())])
    );
    let mut broken = files();
    broken
        .0
        .insert("/jobs/t/main.j2".into(), Some(Ok("one\n{{ nope }}".into())));
    let loaded = load_with(&with("prompt", "prompt: {template_file: t/main.j2}"), |fixture| {
        fixture.files = broken.clone();
    });
    assert_eq!(
        shown(&loaded),
        [
            "ERROR V109 4:25 prompt.template_file: sheet 1 cannot be rendered: `nope` is undefined (t/main.j2, line 2); define `nope` under `prompt.variables`"
        ]
    );
    broken.0.insert(
        "/jobs/t/main.j2".into(),
        Some(Err("cannot be read: permission denied".into())),
    );
    let loaded = load_with(&with("prompt", "prompt: {template_file: t/main.j2}"), |fixture| {
        fixture.files = broken;
    });
    assert_eq!(
        shown(&loaded),
        ["ERROR E303 4:25 prompt.template_file: the template file /jobs/t/main.j2 cannot be read: permission denied"]
    );
}

// field: prompt.variables
#[test]
fn variables_keep_their_types() {
    let plan = plan(&with(
        "prompt",
        "prompt: {template: '{{ m[1] }}', variables: {m: {1: a}, n: 3, t: '3'}}",
    ));
    let m = Value::Map(vec![(Value::Int(1), Value::Text("a".into()))]);
    assert_eq!(plan.prompt.variables["m"], m);
    assert_eq!(plan.prompt.variables["n"], Value::Int(3));
    assert_eq!(plan.prompt.variables["t"], Value::Text("3".into()));
    let set = load_with(GOOD, |fixture| {
        fixture.set = BTreeMap::from([("n".to_owned(), "4".to_owned()), ("t".to_owned(), "a: b".to_owned())]);
    });
    let set = set.plan.unwrap();
    assert_eq!(set.prompt.variables["n"], Value::Int(4));
    assert_eq!(set.prompt.variables["t"], Value::Text("a: b".into()));
    assert_ne!(set.hash, super::plan(GOOD).hash);
}

// field: prompt.stakes
// field: prompt.thinking_method
#[test]
fn stakes_and_thinking_method_are_variables() {
    let plan = plan(&with(
        "prompt",
        "prompt: {template: '{{ stakes }}{{ thinking_method }}', stakes: high, thinking_method: slow}",
    ));
    assert_eq!(
        (plan.prompt.stakes.as_str(), plan.prompt.thinking_method.as_str()),
        ("high", "slow")
    );
    let unset = super::plan(&with(
        "prompt",
        "prompt: {template: '{{ stakes }}{{ thinking_method }}'}",
    ));
    assert_eq!(
        (unset.prompt.stakes.as_str(), unset.prompt.thinking_method.as_str()),
        ("", "")
    );
    let filled = load_with(GOOD, |fixture| fixture.thinking = Some("by default"))
        .plan
        .unwrap();
    assert_eq!(filled.prompt.thinking_method, "by default");
}

// field: prompt.engine
#[test]
fn the_engine_is_tera_only_where_both_agree() {
    let engine = |prompt: &str| plan(&with("prompt", &format!("prompt: {{{prompt}}}"))).prompt.engine;
    assert_eq!(engine("template: 'Do {{ sheet_num }}'"), TemplateEngine::Tera);
    assert_eq!(engine("template: '{{ true }}'"), TemplateEngine::Jinja);
    assert_eq!(engine("template: '{{ stakes.upper() }}'"), TemplateEngine::Jinja);
    assert_eq!(
        engine("template: 'Do {{ sheet_num }}', engine: jinja"),
        TemplateEngine::Jinja
    );
    assert_eq!(engine("template: '{{ true }}', engine: tera"), TemplateEngine::Tera);
    let only_tera = problems(&with("prompt", "prompt: {template: '{% set_global x = 1 %}{{ x }}'}"));
    assert!(
        only_tera[0].contains("V001") && only_tera[0].contains("Tera can render it: write `engine: tera`"),
        "{only_tera:?}"
    );
}

// field: prompt.append
#[test]
fn append_switches_parts_off() {
    let append = plan(&with("prompt", "prompt: {template: x, append: {requirements: no}}"))
        .prompt
        .append;
    assert!(!append.requirements && append.lessons && append.advice);
}

// field: retry.max_retries
// field: retry.base_delay_seconds
// field: retry.max_delay_seconds
// field: retry.exponential_base
// field: retry.jitter
// field: retry.max_completion_attempts
// field: retry.completion_delay_seconds
// field: retry.completion_threshold_percent
// field: retry.transient_retries
#[test]
fn retry_has_its_defaults_and_its_values() {
    let retry = plan(GOOD).retry;
    assert_eq!(
        (
            retry.max_retries,
            retry.max_completion_attempts,
            retry.transient_retries
        ),
        (3, 3, 10)
    );
    assert_eq!(
        (retry.base_delay, retry.max_delay),
        (Span::from_secs(10), Span::from_secs(3600))
    );
    assert_eq!((retry.exponential_base, retry.jitter), (2.0, true));
    assert_eq!(
        (retry.completion_delay, retry.completion_threshold_percent),
        (Span::from_secs(5), 50.0)
    );
    let retry = plan(&plus(
        "retry: {max_retries: 0, base_delay_seconds: 0.5, max_delay_seconds: 60, exponential_base: 1.5, jitter: off, \
         max_completion_attempts: 1, completion_delay_seconds: 0, completion_threshold_percent: 75, transient_retries: 4}",
    ))
    .retry;
    assert_eq!(
        (
            retry.max_retries,
            retry.max_completion_attempts,
            retry.transient_retries
        ),
        (0, 1, 4)
    );
    assert_eq!(
        (retry.base_delay, retry.max_delay),
        (Span(500_000), Span::from_secs(60))
    );
    assert_eq!((retry.exponential_base, retry.jitter), (1.5, false));
    assert_eq!(
        (retry.completion_delay, retry.completion_threshold_percent),
        (Span(0), 75.0)
    );
}

// field: rate_limit.detection_patterns
// field: rate_limit.wait_minutes
// field: rate_limit.max_waits
// field: rate_limit.max_quota_waits
#[test]
fn rate_limit_has_its_defaults_and_its_values() {
    let limits = plan(GOOD).rate_limit;
    assert_eq!(limits.detection_patterns.len(), 7);
    assert_eq!(
        (limits.wait, limits.max_waits, limits.max_quota_waits),
        (Span::from_secs(3600), 24, 48)
    );
    let limits = plan(&plus(
        "rate_limit: {detection_patterns: ['slow.?down'], wait_minutes: 5, max_waits: 1, max_quota_waits: 2}",
    ))
    .rate_limit;
    assert_eq!(limits.detection_patterns, ["slow.?down"]);
    assert_eq!(
        (limits.wait, limits.max_waits, limits.max_quota_waits),
        (Span::from_secs(300), 1, 2)
    );
}

// field: stale_detection
// field: stale_detection.enabled
// field: stale_detection.idle_timeout_seconds
// field: stale_detection.first_event_timeout_seconds
#[test]
fn silence_counts_by_default_for_the_cli_alone() {
    const COMMAND: &str = "backend: {type: command, command: [x]}";
    let patience = |line: &str| plan(&plus(line)).idle_timeout;
    let seconds = |seconds| Some(Span::from_secs(seconds));
    assert_eq!(plan(GOOD).idle_timeout, seconds(900));
    assert_eq!(patience("stale_detection: {idle_timeout_seconds: 1200}"), seconds(1200));
    assert_eq!(patience("stale_detection: {enabled: no}"), None);
    assert_eq!(patience(COMMAND), None);
    assert_eq!(patience(&format!("{COMMAND}\nstale_detection:")), None);
    assert_eq!(
        patience(&format!("{COMMAND}\nstale_detection: {{enabled: false}}")),
        None
    );
    assert_eq!(patience(&format!("{COMMAND}\nstale_detection: {{}}")), seconds(900));
    assert_eq!(
        patience(&format!("{COMMAND}\nstale_detection: {{idle_timeout_seconds: 0.5}}")),
        Some(Span(500_000))
    );
    let first = |line: &str| plan(&plus(line)).first_event_timeout;
    assert_eq!(plan(GOOD).first_event_timeout, None);
    assert_eq!(first("stale_detection: {first_event_timeout_seconds: 90}"), seconds(90));
    assert_eq!(
        first("stale_detection: {enabled: no, first_event_timeout_seconds: 90}"),
        None
    );
    // A plan that was stored before there was such a thing.
    let mut stored = serde_json::to_value(plan(GOOD)).unwrap();
    stored.as_object_mut().unwrap().remove("idle_timeout").unwrap();
    let read: Plan = serde_json::from_value(stored).unwrap();
    assert_eq!(read.idle_timeout, None);
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
fn rules_are_filled_in_for_each_sheet() {
    let text = with(
        "validations",
        "validations:\n  - {type: file_exists, path: '{workspace}/b{sheet_num:02d}.md'}\n  - {type: file_modified, path: 'x/{{ batch_num }}.md'}\n  - {type: content_contains, path: '{workspace}/r.md', pattern: '## {sheet_num}'}\n  - {type: content_regex, path: r.md, pattern: '^x{2}'}\n  - {type: command_succeeds, command: 'check {sheet_num} \"{workspace}\"'}",
    );
    let plan = plan(&text);
    let rules = rules_for(&plan, plan.sheet(SheetNo(2)).unwrap()).unwrap();
    let checks: Vec<Check> = rules.iter().map(|rule| rule.check.clone()).collect();
    assert_eq!(
        checks,
        [
            Check::FileExists {
                path: "/jobs/w/b02.md".into()
            },
            Check::FileModified {
                path: "/jobs/w/x/2.md".into()
            },
            Check::ContentContains {
                path: "/jobs/w/r.md".into(),
                pattern: "## 2".into()
            },
            Check::ContentRegex {
                path: "/jobs/w/r.md".into(),
                pattern: "^x{2}".into()
            },
            Check::CommandSucceeds {
                command: "check 2 \"/jobs/w\"".into(),
                working_directory: Some("/jobs/w".into()),
                timeout: Span::from_secs(300),
            },
        ]
    );
    assert_eq!(rules.iter().map(|rule| rule.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(rules[0].shown_path.as_deref(), Some("b02.md"));
    let descriptions: Vec<&str> = rules.iter().map(|rule| rule.description.as_str()).collect();
    assert_eq!(
        descriptions,
        [
            "b02.md exists",
            "x/2.md was changed",
            "r.md contains \"## 2\"",
            "r.md matches ^x{2}",
            "check 2 \"/jobs/w\" succeeds"
        ]
    );
}

// field: validations.working_directory
#[test]
fn a_check_command_runs_where_it_says() {
    let directory = |fields: &str| {
        let plan = rule(&format!("type: command_succeeds, command: 'true', {fields}"));
        match &rules_for(&plan, &plan.sheets[0]).unwrap()[0].check {
            Check::CommandSucceeds { working_directory, .. } => working_directory.clone().unwrap(),
            _ => panic!("no command"),
        }
    };
    assert_eq!(directory("working_directory: sub"), "/jobs/w/sub");
    assert_eq!(directory("working_directory: '{workspace}/s{sheet_num}'"), "/jobs/w/s1");
    assert_eq!(directory("working_directory: ~"), "/jobs/w");
    assert_eq!(directory("working_directory: '~/x'"), "/home/u/x");
    assert_eq!(directory("working_directory: '${HOME}'"), "/home/u");
}

// field: validations.timeout_seconds
#[test]
fn a_check_command_has_its_timeout() {
    let plan = rule("type: command_succeeds, command: 'true', timeout_seconds: 1.5");
    assert!(matches!(
        plan.validations[0].check,
        Check::CommandSucceeds {
            timeout: Span(1_500_000),
            ..
        }
    ));
}

// field: validations.description
#[test]
fn a_rule_has_its_description() {
    let plan = rule("type: file_modified, path: x, description: 'Report {sheet_num} {other}'");
    let rules = rules_for(&plan, &plan.sheets[1]).unwrap();
    assert_eq!(
        (rules[0].description.as_str(), rules[0].described),
        ("Report 2 {other}", true)
    );
}

// field: validations.stage
#[test]
fn a_rule_has_its_stage() {
    assert_eq!(rule("type: file_modified, path: x").validations[0].stage, 1);
    assert_eq!(rule("type: file_modified, path: x, stage: 3").validations[0].stage, 3);
}

// field: validations.condition
#[test]
fn a_rule_applies_where_its_condition_holds() {
    let plan = rule("type: file_modified, path: x, condition: 'sheet_num >= 2 and total_sheets == 2'");
    assert_eq!(rules_for(&plan, &plan.sheets[0]).unwrap().len(), 0);
    assert_eq!(rules_for(&plan, &plan.sheets[1]).unwrap().len(), 1);
}

// field: validations.retry_count
// field: validations.retry_delay_ms
#[test]
fn a_rule_is_tried_again_as_it_says() {
    let tries = |fields: &str| {
        let rule = &rule(fields).validations[0];
        (rule.retry_count, rule.retry_delay)
    };
    assert_eq!(tries("type: file_modified, path: x"), (3, Span(200_000)));
    assert_eq!(
        tries("type: file_modified, path: x, retry_count: 0, retry_delay_ms: 1000"),
        (0, Span::from_secs(1))
    );
    assert_eq!(tries("type: command_succeeds, command: x"), (0, Span(200_000)));
    assert_eq!(
        tries("type: command_succeeds, command: x, retry_count: 2"),
        (2, Span(200_000))
    );
}

#[test]
fn the_hash_changes_with_what_decides_the_run() {
    let hash = plan(GOOD).hash;
    assert_eq!(plan(GOOD).hash, hash);
    assert_ne!(plan(&plus("description: x")).hash, hash);
    let elsewhere = load_with(GOOD, |fixture| fixture.workspace = Some("/tmp".into()));
    assert!(
        elsewhere.plan.is_none(),
        "the parent of /tmp is not in the fake file system"
    );
    let file = with("prompt", "prompt: {template_file: t/main.j2}");
    let first = plan(&file).hash;
    let mut changed = files();
    changed.0.insert("/jobs/t/part.j2".into(), Some(Ok("other".into())));
    assert_ne!(
        load_with(&file, |fixture| fixture.files = changed).plan.unwrap().hash,
        first
    );
}

#[test]
fn anchors_merge_keys_crlf_and_old_booleans_work() {
    let text = "name: x\r\nworkspace: w\r\nsheet: {size: 1, total_items: 1}\r\nprompt:\r\n  template: |\r\n    a\r\n    b\r\nvalidations:\r\n  - &base {type: file_modified, path: a.md, retry_count: '1'}\r\n  - {<<: *base, path: b.md}\r\nretry: {jitter: off}\r\n";
    let plan = plan(text);
    assert_eq!(plan.prompt.template, "a\nb\n");
    assert_eq!(plan.validations[1].check, Check::FileModified { path: "b.md".into() });
    assert_eq!(plan.validations[1].retry_count, 1);
    assert!(!plan.retry.jitter);
}

// field: cost_limits
// field: cost_limits.enabled
// field: cost_limits.max_cost_per_sheet
// field: cost_limits.max_cost_per_job
// field: cost_limits.warn_at_percent
// field: cost_limits.cost_per_1k_input_tokens
// field: cost_limits.cost_per_1k_output_tokens
#[test]
fn cost_limits_are_in_dollars_and_off_unless_enabled() {
    let limits = |fields: &str| plan(&plus(&format!("cost_limits: {{{fields}}}"))).cost_limits;
    assert_eq!(limits("max_cost_per_job: 3"), None);
    assert_eq!(
        limits("enabled: yes, max_cost_per_sheet: 0.5, max_cost_per_job: 3"),
        Some(CostLimits {
            per_sheet: Some(Cost(500_000)),
            per_job: Some(Cost(3_000_000)),
            warn_at_percent: 80,
            price: None,
        })
    );
    let told = limits(
        "enabled: yes, max_cost_per_job: 3, warn_at_percent: 50, cost_per_1k_input_tokens: 0.005, \
         cost_per_1k_output_tokens: 0.025",
    );
    let price = |input, output| {
        let (input, output) = (Cost(input), Cost(output));
        Some(TokenPrice { input, output })
    };
    assert_eq!(
        told.map(|limits| (limits.warn_at_percent, limits.price)),
        Some((50, price(5_000, 25_000)))
    );
    let one = limits("enabled: yes, max_cost_per_job: 3, cost_per_1k_output_tokens: 0.075");
    assert_eq!(one.map(|limits| limits.price), Some(price(3_000, 75_000)));
    let found = problems(&plus("cost_limits: {enabled: true}"));
    assert!(
        found[0].starts_with("ERROR E302 6:") && found[0].contains("names no limit"),
        "{found:#?}"
    );
    let of_model = |model: &str| {
        let fields = "cost_limits: {enabled: true, max_cost_per_job: 1}";
        problems(&plus(&format!(
            "backend: {{type: claude_cli, cli_model: {model}}}\n{fields}"
        )))
    };
    let found = of_model("claude-next-9");
    assert!(
        found.len() == 1 && found[0].starts_with("INFO V196 7:") && found[0].contains("no price of claude-next-9"),
        "{found:#?}"
    );
    let own = "backend: {sheet_overrides: {2: {cli_model: claude-next-9}}}\ncost_limits: {enabled: true, max_cost_per_job: 1}";
    assert!(problems(&plus(own))[0].contains("no price of claude-next-9"));
    for known in ["claude-opus-4-5-20251101", "opus"] {
        assert_eq!(of_model(known), [""; 0], "{known}");
    }
    let command = plus("backend: {type: command, command: [x]}\ncost_limits: {enabled: true, max_cost_per_job: 1}");
    let found = problems(&command);
    assert!(found[0].starts_with("WARNING V195 7:"), "{found:#?}");
}

// field: circuit_breaker
// field: circuit_breaker.enabled
// field: circuit_breaker.failure_threshold
// field: circuit_breaker.recovery_timeout_seconds
#[test]
fn the_circuit_breaker_is_on_unless_said() {
    let breaker = |fields: &str| plan(&plus(&format!("circuit_breaker: {{{fields}}}"))).circuit_breaker;
    let with = |failure_threshold, seconds| {
        Some(CircuitBreaker {
            failure_threshold,
            recovery: Span::from_secs_f64(seconds),
        })
    };
    assert_eq!(plan(GOOD).circuit_breaker, with(5, 300.0));
    assert_eq!(
        breaker("failure_threshold: 2, recovery_timeout_seconds: 1.5"),
        with(2, 1.5)
    );
    assert_eq!(breaker("enabled: no"), None);
}

// field: sheet.skip_when
#[test]
fn skip_when_is_kept_with_its_sheet() {
    let text = with(
        "sheet",
        "sheet: {size: 1, total_items: 2, skip_when: {2: \"sheets[1].status == 'failed'\"}}",
    );
    let sheets = plan(&text).sheets;
    let rules: Vec<_> = sheets.iter().map(|sheet| sheet.skip_when.as_deref()).collect();
    assert_eq!(rules, [None, Some("sheets[1].status == 'failed'")]);
    // A word that YAML takes for a boolean is an expression too.
    let sheets = plan(&text.replace("\"sheets[1].status == 'failed'\"", "True")).sheets;
    assert_eq!(sheets[1].skip_when.as_deref(), Some("True"));
}

// field: sheet.skip_when_command
#[test]
fn skip_commands_are_kept_with_their_sheet() {
    let text = with(
        "sheet",
        "sheet: {size: 1, total_items: 3, skip_when_command: {2: {command: 'test -e {workspace}/{sheet_num}'}, \
         3: {command: 'true', description: why, timeout_seconds: 0.5}}}",
    );
    let plan = plan(&text);
    assert_eq!(plan.sheets[0].skip_command, None);
    let second = skip_command_for(&plan, &plan.sheets[1]).unwrap().unwrap();
    assert_eq!(second.command, "test -e /jobs/w/2");
    assert_eq!((second.description, second.timeout), (None, Span::from_secs(10)));
    let third = skip_command_for(&plan, &plan.sheets[2]).unwrap().unwrap();
    assert_eq!(
        (third.description.as_deref(), third.timeout),
        (Some("why"), Span::from_secs_f64(0.5))
    );
}

// field: prompt.prompt_extensions
// field: sheet.prompt_extensions
#[test]
fn extensions_are_texts_or_the_content_of_files() {
    let text = with(
        "prompt",
        "prompt: {template: x, prompt_extensions: [system.md, Be brief., '${HOME}', a-file]}",
    )
    .replace(
        "total_items: 2}",
        "total_items: 2, prompt_extensions: {2: [./t/part.j2, \"two\\nlines.md\"]}}",
    );
    let plan = plan(&text);
    assert_eq!(plan.prompt.extensions, ["Be kind.", "Be brief.", "${HOME}", "x"]);
    assert_eq!(plan.sheets[1].extensions, ["part\n", "two\nlines.md"]);
    assert_eq!(plan.sheets[0].extensions, Vec::<String>::new());
    // What was read is part of the plan: another content is another plan.
    let other = load_with(&text, |fixture| {
        fixture
            .files
            .0
            .insert("/jobs/system.md".into(), Some(Ok("Be short.".into())));
    });
    assert_ne!(other.plan.unwrap().hash, plan.hash);
}

// field: cross_sheet
// field: cross_sheet.auto_capture_stdout
// field: cross_sheet.max_output_chars
// field: cross_sheet.capture_files
// field: cross_sheet.lookback_sheets
#[test]
fn cross_sheet_says_what_templates_are_told() {
    assert_eq!(plan(&plus("cross_sheet: {lookback_sheets: 5}")).cross_sheet, None);
    let cross = plan(&plus("cross_sheet: {auto_capture_stdout: yes}"))
        .cross_sheet
        .unwrap();
    assert_eq!((cross.outputs, cross.max_chars, cross.lookback), (true, 2000, 3));
    let text = "cross_sheet: {capture_files: ['*.md', '{{ workspace }}/{sheet_num}-[0-9].txt', 's{{ sheet_num - 1 }}/*'], \
                lookback_sheets: 0, max_output_chars: 10}";
    let plan = plan(&plus(text));
    let cross = plan.cross_sheet.as_ref().unwrap();
    assert_eq!((cross.outputs, cross.max_chars, cross.lookback), (false, 10, 0));
    assert_eq!(
        capture_patterns(&plan, &plan.sheets[1]),
        Ok(["/jobs/w/*.md", "/jobs/w/2-[0-9].txt", "/jobs/w/s1/*"]
            .map(str::to_owned)
            .into())
    );
}

/// A default that is written changes nothing: what editors and the manual show is what holds.
#[test]
fn the_defaults_of_the_table_are_those_of_a_plan() {
    fn walk(fields: &'static [Field], path: &[&'static str], found: &mut Vec<(Vec<&'static str>, serde_json::Value)>) {
        for field in fields.iter().filter(|field| matches!(field.effect, Effect::Works)) {
            let path = [path, &[field.name]].concat();
            match field.kind {
                Type::Section(fields) | Type::List(&Type::Section(fields)) => walk(fields, &path, found),
                _ if field.default.is_empty() => {}
                _ => found.push((path, literal(&field.kind, field.default))),
            }
        }
    }
    let mut defaults = Vec::new();
    walk(schema::JOB, &[], &mut defaults);
    assert!(defaults.len() > 30, "{defaults:?}");

    let base = serde_json::json!({
        "name": "j",
        "sheet": {"size": 1, "total_items": 2},
        "prompt": {"template": "x"},
        "parallel": {"enabled": true},
        "validations": [{"type": "file_modified", "path": "a"}, {"type": "command_succeeds", "command": "b"}],
    });
    let plan_of = |job: &serde_json::Value| {
        let mut plan = plan(&job.to_string());
        plan.source.clear();
        plan.hash.clear();
        plan
    };
    let expected = plan_of(&base);
    let mut tried = 0;
    for (path, default) in defaults {
        let mut job = base.clone();
        let mut at = &mut job;
        for step in &path {
            at = &mut at[*step];
            if *step == "validations" {
                let rule = usize::from(path.contains(&"timeout_seconds"));
                at = &mut at[rule];
            }
        }
        // What the base has to say.
        if at.is_null() {
            *at = default.clone();
            assert_eq!(plan_of(&job), expected, "{path:?}: {default}");
            tried += 1;
        }
    }
    assert!(tried > 30);
}
