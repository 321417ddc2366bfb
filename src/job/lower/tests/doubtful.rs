use super::*;

/// Known fields that a job would rely on are refused; what asks for nothing is not.
#[test]
fn known_fields_that_would_change_the_result_are_refused() {
    let table = [
        ("suspicious: fail", "suspicious"),
        ("session_config: private", "session_config"),
        ("resources: {memory_max: 2G}", "resources"),
        ("sandbox: guard", "sandbox"),
        ("sandbox: {mode: strict, network: none}", "sandbox"),
        (
            "bridge: {enabled: true, mcp_servers: [{name: x, command: y}]}",
            "bridge.mcp_servers",
        ),
        (
            "backend: {sheet_overrides: {1: {backend: ollama}}}",
            "backend.sheet_overrides.1.backend",
        ),
        (
            "backend: {sheet_overrides: {1: {resources: {memory_max: 2G}}}}",
            "backend.sheet_overrides.1.resources",
        ),
        (
            "backend: {sheet_overrides: {1: {sandbox: guard, timeout_seconds: 900}}}",
            "backend.sheet_overrides.1.sandbox",
        ),
        ("backend: {fallbacks: [ollama]}", "backend.fallbacks"),
        ("backend: {output_file: x}", "backend.output_file"),
        (
            "checkpoints: {enabled: yes, triggers: [{name: x, sheet_nums: [1]}]}",
            "checkpoints.enabled",
        ),
        ("isolation: {enabled: true}", "isolation.enabled"),
        (
            "workspace_lifecycle: {archive_on_fresh: true}",
            "workspace_lifecycle.archive_on_fresh",
        ),
        ("on_success: [{type: run_command, command: x}]", "on_success"),
        ("grounding: {enabled: true}", "grounding.enabled"),
        ("ai_review: {enabled: true}", "ai_review.enabled"),
    ];
    for (line, field) in table {
        let expected =
            format!("{field}: `{field}` is known, but not supported yet; take it out if the job is right without it");
        let found = problems(&plus(line));
        assert!(
            found.len() == 1 && found[0].starts_with("ERROR E301 6:") && found[0].ends_with(&expected),
            "{line}: {found:#?}"
        );
    }
}

/// What could not change a result only gets a warning, one for each section.
#[test]
fn known_fields_without_effect_are_warned_of() {
    let table = [
        (
            "notifications: [{type: desktop, on_events: [job_complete, batch_failed]}]",
            "notifications",
        ),
        (
            "learning: {enabled: true, exploration_budget: {floor: 0.1}}",
            "learning",
        ),
        (
            "stale_detection: {check_interval_seconds: 30}",
            "stale_detection.check_interval_seconds",
        ),
        ("concert: {enabled: true, max_chain_depth: 3}", "concert"),
        ("conductor: {name: x, role: ai}", "conductor"),
        ("logging: {level: INFO}", "logging"),
        ("feedback: {enabled: true}", "feedback"),
        ("parallel: {budget_partition: true}", "parallel.budget_partition"),
        ("checkpoints: {triggers: [{name: x, batch_nums: [1]}]}", "checkpoints"),
        (
            "notifications: [{type: slack, config: {webhook_url_env: HOOK}}]",
            "notifications",
        ),
        ("isolation: {mode: worktree, branch_prefix: fast-2}", "isolation"),
        ("backend: {temperature: 0.5}", "backend.temperature"),
        ("backend: {model: x}", "backend.model"),
        (
            "backend: {sheet_overrides: {2: {max_tokens: 9, cli_model: opus, sandbox: off}}}",
            "backend.sheet_overrides.2.max_tokens",
        ),
    ];
    for (line, field) in table {
        let loaded = load_with(&plus(line), |_| ());
        let found = shown(&loaded);
        let expected =
            format!(" {field}: `{field}` is known, but has no effect yet; the job runs as if it were not there");
        assert!(
            found.len() == 1 && found[0].starts_with("WARNING V190 6:") && found[0].ends_with(&expected),
            "{line}: {found:#?}"
        );
        assert!(loaded.plan.is_some());
    }
    let nothing = [
        "sandbox: off",
        "on_success: []",
        "parallel: {enabled: false}",
        "isolation: {enabled: no}",
        "resources: {}",
        "on_limit: stop",
        "suspicious: flag",
        "learning:",
        "session_config: auto",
    ];
    for line in nothing {
        assert_eq!(problems(&plus(line)), Vec::<String>::new(), "{line}");
    }
    assert_eq!(
        plan(&plus("notifications: [{type: desktop}]"))
            .dormant
            .keys()
            .collect::<Vec<_>>(),
        ["notifications"]
    );
}

/// Misspelt keys are found at every level, also in sections without effect.
#[test]
fn typos_are_found_at_every_level() {
    for (line, here, meant) in [
        ("validatons: []", "validatons", "validations"),
        ("retry: {max_retrys: 1}", "max_retrys", "max_retries"),
        ("rate_limit: {wait_minute: 1}", "wait_minute", "wait_minutes"),
        ("learning: {exploration_budget: {flor: 0.1}}", "flor", "floor"),
        ("notifications: [{typ: desktop}]", "typ", "type"),
        (
            "pause_between_sheet_seconds: 1",
            "pause_between_sheet_seconds",
            "pause_between_sheets_seconds",
        ),
        (
            "conductor: {preferences: {prefer_minimal: true}}",
            "prefer_minimal",
            "prefer_minimal_output",
        ),
    ] {
        let found = problems(&plus(line));
        assert!(
            found
                .iter()
                .any(|problem| problem.contains(&format!("has no field `{here}`; did you mean `{meant}`?"))),
            "{line}: {found:#?}"
        );
    }
    let found = problems(&plus("flavour: sweet"));
    assert!(
        found[0].contains("a job file has no field `flavour`; the fields here are name, description, workspace,"),
        "{found:#?}"
    );
}

#[test]
fn doubtful_things_are_warned_of() {
    let table = [
        (
            with("validations", "description: x"),
            "WARNING V203 - validations: there are no validations: a sheet counts as done when its session says so; add at least one rule that only good work can pass",
        ),
        (
            with("validations", "validations: [{type: file_exists, path: x}]"),
            "WARNING V216 5:16 validations: no rule depends on the sheet: what the first one writes makes all others pass; use `{sheet_num}` or another variable of the sheet in a path or pattern\nINFO V205 5:16 validations: all validations only ask whether a file exists: an empty one passes",
        ),
        (
            with(
                "validations",
                "validations: [{type: content_contains, path: there.md, pattern: ''}]",
            ),
            "WARNING V216 5:16 validations: no rule depends on the sheet: what the first one writes makes all others pass; use `{sheet_num}` or another variable of the sheet in a path or pattern\nWARNING V106 5:65 validations[0].pattern: an empty pattern is in every file, so this rule always passes",
        ),
        (
            with(
                "validations",
                "validations: [{type: content_contains, path: new.md, pattern: x}]",
            ),
            "WARNING V216 5:16 validations: no rule depends on the sheet: what the first one writes makes all others pass; use `{sheet_num}` or another variable of the sheet in a path or pattern\nWARNING V107 5:46 validations[0].path: /jobs/w/new.md does not exist now; the job has to make it",
        ),
        (
            with(
                "validations",
                "validations: [{type: file_modified, path: '{{ sheet_num }}.md'}]",
            ),
            "INFO V201 5:43 validations[0].path: `{{ … }}` works in paths; `{name}` is shorter",
        ),
        (
            with(
                "validations",
                "validations: [{type: file_modified, path: 'a{sheet_num}', pattern: done}]",
            ),
            "WARNING V190 5:68 validations[0].pattern: `pattern` has no effect with `type: file_modified`",
        ),
        (
            plus("backend: {timeout_seconds: 30}"),
            "WARNING V103 6:28 backend.timeout_seconds: a timeout of 30 s is short; a session that does real work needs minutes",
        ),
        (
            plus("backend: {timeout_seconds: 300}"),
            "WARNING V103 6:28 backend.timeout_seconds: a timeout of 300 s: the CLI itself waits up to 366 s for an API that does not answer, and is ended sooner here; 1800 is the default",
        ),
        (
            plus("backend: {timeout_seconds: 8000}"),
            "INFO V104 6:28 backend.timeout_seconds: a timeout of 8000 s: a session that hangs is noticed late",
        ),
        (
            plus("stale_detection: {idle_timeout_seconds: 300}"),
            "WARNING V103 6:41 stale_detection.idle_timeout_seconds: the CLI itself waits up to 366 s for an answer without printing anything, and is ended sooner here; 900 is the default",
        ),
        (
            plus("stale_detection: {first_event_timeout_seconds: 30}"),
            "WARNING V103 6:48 stale_detection.first_event_timeout_seconds: where many start at once, or one of its servers is slow, the CLI may take 60 s to its first line; without it the first output has as long as any other",
        ),
        (
            plus("backend: {timeout_overrides: {2: 30}}"),
            "WARNING V103 6:34 backend.timeout_overrides.2: a timeout of 30 s is short; a session that does real work needs minutes",
        ),
        (
            plus("backend: {timeout_overrides: {3: 90}}"),
            "WARNING V212 6:31 backend.timeout_overrides.3: there is no sheet 3: this job has 2 sheets",
        ),
        (
            plus("backend: {sheet_overrides: {2: {timeout_seconds: 30}}}"),
            "WARNING V103 6:50 backend.sheet_overrides.2.timeout_seconds: a timeout of 30 s is short; a session that does real work needs minutes",
        ),
        (
            plus("backend: {sheet_overrides: {3: {cli_model: x}}}"),
            "WARNING V212 6:29 backend.sheet_overrides.3: there is no sheet 3: this job has 2 sheets",
        ),
        (
            plus("backend: {type: command, command: [cat], sheet_overrides: {1: {cli_model: x}}}"),
            "WARNING V190 6:75 backend.sheet_overrides.1.cli_model: `backend.sheet_overrides.1.cli_model` has no effect with `type: command`",
        ),
        (
            plus("backend: {skip_permissions: no}"),
            "WARNING V204 6:29 backend.skip_permissions: without `skip_permissions` a session stops at the first tool that needs a permission, and nobody is there to give it; set `skip_permissions: true`, or list what is allowed in `allowed_tools`",
        ),
        (
            plus("backend: {disable_mcp: false}"),
            "INFO V209 6:24 backend.disable_mcp: sessions will start the MCP servers of your own configuration, each one anew",
        ),
        (
            plus("backend: {type: command, command: [cat], cli_model: x}"),
            "WARNING V190 6:53 backend.cli_model: `backend.cli_model` has no effect with `type: command`",
        ),
        (
            plus("working_directory: ."),
            "WARNING V193 6:1 working_directory: `working_directory` has no effect here; write it as `backend.working_directory`",
        ),
        (
            with("prompt", "prompt: {stakes: x}"),
            "WARNING V192 4:10 prompt.template: there is no template: every session gets one line with its item numbers; say what is to be done in `prompt.template`",
        ),
        (
            with("prompt", "prompt: {template: 'x', variables: {workspace: y}}"),
            "WARNING V208 4:37 prompt.variables.workspace: `workspace` is a variable of Mozart's own; here it is replaced by yours",
        ),
        (
            with("prompt", "prompt: {template: 'x {sheet_num}'}"),
            "WARNING V202 4:20 prompt.template: `{sheet_num}` is sent as it stands: templates use double braces; write `{{ sheet_num }}`",
        ),
        (
            with(
                "prompt",
                "prompt: {template: '{% if sheet_num > 9 %}{{ stakez }}{% endif %}'}",
            ),
            "WARNING V101 4:20 prompt.template: `stakez` is not defined; no sheet comes to where it is used; did you mean `stakes`?",
        ),
        (
            with("prompt", "prompt: {template: '{{ x }}', variables: {x: yes}}"),
            "WARNING V191 4:46 prompt.variables.x: `yes` without quotes is read as True (YAML 1.1); newer YAML reads a text; write \"yes\" if you mean the text",
        ),
        (
            with("prompt", "prompt: {template: '{{ x }}', variables: {x: [012]}}"),
            "WARNING V191 4:47 prompt.variables.x: `012` without quotes is read as 10 (YAML 1.1); newer YAML reads a text; write \"012\" if you mean the text",
        ),
        (
            with(
                "prompt",
                "prompt:\n  template: |\n    {{x}} to {sheet_num} of\n  variables: {x: 1}",
            ),
            "WARNING V202 6:15 prompt.template: `{sheet_num}` is sent as it stands: templates use double braces; write `{{ sheet_num }}`",
        ),
        (
            with("prompt", "prompt: {template: x, append: {advice: true, lessons: true}}"),
            "WARNING V190 4:32 prompt.append.advice: `prompt.append.advice` is known, but has no effect yet; the job runs as if it were not there",
        ),
        (
            with("sheet", "sheet: {size: 1, total_items: 2, descriptions: {4: x}}"),
            "WARNING V212 3:49 sheet.descriptions.4: there is no sheet 4: this job has 2 sheets",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let loaded = load_with(&text, |_| ());
        let found = shown(&loaded).join("\n");
        if found != expected || loaded.plan.is_none() {
            wrong.push(format!("in:\n{text}found:\n{found}\nnot:\n{expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for fine in [
        "{% if x is defined %}{{ x }}{% endif %}",
        "{{ x | default('y') }}",
        "{% for i in range(2) %}{{ loop.index }}{% endfor %}",
        "{% set y = 1 %}{{ y }}",
        "{\"a\": {b}} ${sheet_num}",
    ] {
        let template = format!("prompt: {{template: {}}}", serde_json::to_string(fine).unwrap());
        assert_eq!(problems(&with("prompt", &template)), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn a_copy_that_still_names_the_old_version_is_found() {
    let at = |text: &str| {
        shown(&load_with(text, |fixture| {
            fixture.path = "/jobs/audit-v3.yaml".to_owned();
        }))
    };
    assert_eq!(
        at(&with("name", "name: audit-v2")),
        [
            "ERROR V009 1:7 name: `name` still names v2, and the file is audit-v3; write the new version, or rename the file"
        ]
    );
    assert_eq!(
        at(&with("workspace", "workspace: w-v2")),
        [
            "ERROR V009 2:12 workspace: `workspace` still names v2, and the file is audit-v3; write the new version, or rename the file"
        ]
    );
    assert_eq!(
        at(&plus("description: see report-v2.md")),
        ["WARNING V009 6:1 : this still names v2, and the file is audit-v3"]
    );
    assert_eq!(at(&with("name", "name: audit-v20")), Vec::<String>::new());
}

#[test]
fn very_large_prompts_are_told() {
    let sized = |words: usize, more: &str| {
        let template = format!("prompt: {{template: '{}'}}", "word ".repeat(words));
        problems(&format!("{}{more}", with("prompt", &template)))
    };
    assert_eq!(
        sized(41_000, ""),
        ["WARNING E602 4:20 prompt.template: the prompt of sheet 1 has about 51250 tokens"]
    );
    assert_eq!(
        sized(125_000, ""),
        ["ERROR E602 4:20 prompt.template: the prompt of sheet 1 has about 156250 tokens; more than 150000 do not fit"]
    );
    assert_eq!(
        sized(125_000, "backend: {cli_model: 'sonnet[1m]'}\n"),
        ["WARNING E602 4:20 prompt.template: the prompt of sheet 1 has about 156250 tokens"]
    );
    assert_eq!(
        sized(125_000, "backend: {sheet_overrides: {1: {cli_model: 'sonnet[1m]'}}}\n"),
        ["ERROR E602 4:20 prompt.template: the prompt of sheet 2 has about 156250 tokens; more than 150000 do not fit"]
    );
    let lines = with("prompt", &format!("prompt: {{template: \"{}\"}}", "x\\n".repeat(5001)));
    assert_eq!(
        problems(&lines),
        ["WARNING E602 4:20 prompt.template: the prompt of sheet 1 has 5001 lines"]
    );
}

// field: circuit_breaker.cross_workspace_coordination
// field: circuit_breaker.honor_other_jobs_rate_limits
#[test]
fn a_breaker_of_its_own_is_not_to_be_had() {
    for field in ["cross_workspace_coordination", "honor_other_jobs_rate_limits"] {
        let found = |value: &str| {
            let loaded = load_with(&plus(&format!("circuit_breaker: {{{field}: {value}}}")), |_| ());
            assert!(loaded.plan.is_some());
            shown(&loaded)
        };
        let told = found("no");
        assert!(
            told.len() == 1 && told[0].starts_with("WARNING V190 6:") && told[0].contains("all of its jobs wait"),
            "{told:#?}"
        );
        assert_eq!(found("true"), Vec::<String>::new());
    }
}
