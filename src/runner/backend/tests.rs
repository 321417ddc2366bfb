//! Command lines, environments, readers and logs.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::job::plan::{
    Append, Backend, CostLimits, OnLimit, Plan, Prompt, RateLimitPolicy, RetryPolicy, Sheet, SubmitContext,
    TemplateEngine,
};
use crate::model::{Ask, AttemptKind, AttemptNo, AttemptRef, Exit, JobName, LimitKind, RunId, SheetNo, Span};

fn cli() -> ClaudeCli {
    ClaudeCli {
        cli_path: "claude".to_owned(),
        skip_permissions: false,
        disable_mcp: false,
        output_format: "text".to_owned(),
        model: None,
        allowed_tools: Vec::new(),
        system_prompt: None,
        extra_args: Vec::new(),
    }
}

fn claude_with(change: impl FnOnce(&mut ClaudeCli)) -> BackendKind {
    let mut cli = cli();
    change(&mut cli);
    BackendKind::ClaudeCli(cli)
}

fn command_of(words: &[&str]) -> BackendKind {
    BackendKind::Command {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn spec(kind: BackendKind) -> AttemptSpec {
    let plan = Plan {
        version: 1,
        name: JobName::new("job").unwrap(),
        description: None,
        workspace: "/w".to_owned(),
        base_directory: "/b".to_owned(),
        source: String::new(),
        hash: String::new(),
        backend: Backend {
            kind,
            working_directory: "/b".to_owned(),
            pass_env: Vec::new(),
            env: BTreeMap::new(),
            max_output_capture_bytes: 10240,
        },
        sheets: Vec::new(),
        prompt: Prompt {
            template: String::new(),
            template_name: "prompt.template".to_owned(),
            engine: TemplateEngine::Tera,
            includes: BTreeMap::new(),
            variables: BTreeMap::new(),
            stakes: String::new(),
            thinking_method: String::new(),
            append: Append {
                requirements: false,
                lessons: false,
                advice: false,
            },
            extensions: Vec::new(),
        },
        retry: RetryPolicy {
            max_retries: 2,
            base_delay: Span(0),
            max_delay: Span(0),
            exponential_base: 2.0,
            jitter: false,
            max_completion_attempts: 3,
            completion_delay: Span(0),
            completion_threshold_percent: 50.0,
            transient_retries: 5,
        },
        rate_limit: RateLimitPolicy {
            detection_patterns: Vec::new(),
            wait: Span(0),
            max_waits: 1,
            max_quota_waits: 1,
        },
        idle_timeout: None,
        first_event_timeout: None,
        on_limit: OnLimit::Wait,
        dependencies: Vec::new(),
        parallel: None,
        circuit_breaker: None,
        cost_limits: None,
        cross_sheet: None,
        validations: Vec::new(),
        pause_between_sheets: Span(0),
        priority: 5,
        checkpoint_path: "/w/job.json".to_owned(),
        checkpoint_every_sheet: false,
        dormant: BTreeMap::new(),
    };
    AttemptSpec {
        attempt: AttemptRef {
            run: RunId(1),
            sheet: SheetNo(1),
            attempt: AttemptNo(1),
        },
        kind: AttemptKind::First,
        ask: Ask::Task,
        session_id: "11111111-2222-5333-8444-555555555555".to_owned(),
        resume: false,
        plan: Arc::new(plan),
        context: Arc::new(SubmitContext::default()),
        fresh: true,
        outputs: Vec::new(),
        lessons: Vec::new(),
        earlier_cost: None,
        prices: Arc::new(Prices::packaged()),
        budget: None,
        extra_env: BTreeMap::new(),
        secrets: Secrets::default(),
    }
}

fn plan(spec: &mut AttemptSpec) -> &mut Backend {
    &mut Arc::get_mut(&mut spec.plan).unwrap().backend
}

fn context(spec: &mut AttemptSpec) -> &mut SubmitContext {
    Arc::get_mut(&mut spec.context).unwrap()
}

fn passwd(uid: u32) -> Passwd {
    Passwd {
        home: "/home/ada".to_owned(),
        user: "ada".to_owned(),
        shell: "/bin/sh".to_owned(),
        uid,
    }
}

fn argv(kind: BackendKind) -> Vec<String> {
    command_line(&spec(kind)).argv
}

fn holds(argv: &[String], part: &[&str]) -> bool {
    argv.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_bare_session_has_its_id_and_prints_events() {
    let mut spec = spec(claude_with(|_| {}));
    let id = spec.session_id.clone();
    let expected = [
        "claude",
        "-p",
        "--output-format",
        "stream-json",
        "--verbose",
        "--session-id",
        &id,
    ];
    assert_eq!(command_line(&spec).argv, expected);
    spec.resume = true;
    context(&mut spec).program = Some("/opt/claude".to_owned());
    let expected = [
        "/opt/claude",
        "-p",
        "--output-format",
        "stream-json",
        "--verbose",
        "--resume",
        &id,
    ];
    assert_eq!(command_line(&spec).argv, expected);
}

// field: backend.skip_permissions
#[test]
fn skip_permissions_is_an_argument() {
    assert!(holds(
        &argv(claude_with(|cli| cli.skip_permissions = true)),
        &["--dangerously-skip-permissions"]
    ));
    assert!(!holds(&argv(claude_with(|_| {})), &["--dangerously-skip-permissions"]));
}

// field: backend.disable_mcp
#[test]
fn disable_mcp_is_an_argument() {
    assert!(holds(
        &argv(claude_with(|cli| cli.disable_mcp = true)),
        &["--strict-mcp-config"]
    ));
    assert!(!holds(&argv(claude_with(|_| {})), &["--strict-mcp-config"]));
}

// field: backend.cli_model
#[test]
fn the_model_is_an_argument() {
    assert!(holds(
        &argv(claude_with(|cli| cli.model = Some("haiku".to_owned()))),
        &["--model", "haiku"]
    ));
}

// field: backend.sheet_overrides
#[test]
fn a_sheets_own_model_is_its_sessions_argument() {
    let mut spec = spec(claude_with(|cli| cli.model = Some("haiku".to_owned())));
    Arc::get_mut(&mut spec.plan).unwrap().sheets = [(1, None), (2, Some("opus".to_owned()))]
        .map(|(number, model)| Sheet {
            number,
            model,
            ..Sheet::default()
        })
        .into();
    for (sheet, model) in [(1, "haiku"), (2, "opus")] {
        spec.attempt.sheet = SheetNo(sheet);
        assert!(holds(&command_line(&spec).argv, &["--model", model]), "sheet {sheet}");
    }
}

// field: backend.allowed_tools
#[test]
fn allowed_tools_are_followed_by_a_flag() {
    let argv = argv(claude_with(|cli| {
        cli.allowed_tools = vec!["Write".to_owned(), "Bash(git log:*)".to_owned()];
        cli.extra_args = vec!["free".to_owned()];
    }));
    assert!(
        holds(&argv, &["--allowedTools", "Write", "Bash(git log:*)", "-p"]),
        "{argv:?}"
    );
}

// field: backend.system_prompt_file
#[test]
fn the_system_prompts_text_is_an_argument() {
    let with = |text: &str| argv(claude_with(|cli| cli.system_prompt = Some(text.to_owned())));
    assert!(holds(&with("Be brief."), &["--append-system-prompt", "Be brief."]));
    assert!(!holds(&with(""), &["--append-system-prompt"]));
}

// field: cost_limits.enabled
#[test]
fn what_a_session_may_cost_is_an_argument() {
    let mut spec = spec(claude_with(|_| ()));
    spec.budget = Some(Cost(1_234_567));
    let argv = command_line(&spec).argv;
    assert!(
        argv.windows(2).any(|pair| pair == ["--max-budget-usd", "1.23"]),
        "{argv:?}"
    );
}

// field: backend.cli_extra_args
#[test]
fn extra_arguments_come_last() {
    let argv = argv(claude_with(|cli| {
        cli.model = Some("opus".to_owned());
        cli.extra_args = vec!["--max-turns".to_owned(), "2".to_owned()];
    }));
    assert!(argv.ends_with(&["--max-turns".to_owned(), "2".to_owned()]));
}

// field: backend.command
#[test]
fn a_command_is_run_as_written() {
    assert_eq!(argv(command_of(&["./tool", "-x", "$HOME"])), ["./tool", "-x", "$HOME"]);
    let mut spec = spec(command_of(&["tool", "a"]));
    context(&mut spec).program = Some("/usr/bin/tool".to_owned());
    assert_eq!(
        command_line(&spec),
        CommandLine {
            argv: vec!["/usr/bin/tool".to_owned(), "a".to_owned()],
            env: map(&[])
        }
    );
}

#[test]
fn prompts_that_look_like_commands_stay_text() {
    let claude = claude_with(|_| {});
    assert_eq!(prompt_bytes(&claude, "/clear the table"), b"\n/clear the table");
    assert_eq!(prompt_bytes(&claude, "-v means verbose"), b"-v means verbose");
    assert_eq!(prompt_bytes(&claude, "Hällo /x"), "Hällo /x".as_bytes());
    assert_eq!(prompt_bytes(&command_of(&["tool"]), "/clear"), b"/clear");
}

#[test]
fn the_environment_is_built() {
    let mut spec = spec(claude_with(|_| {}));
    context(&mut spec).environment = map(&[
        ("PATH", "/p"),
        ("LANG", "de_DE.UTF-8"),
        ("LC_TIME", "C"),
        ("TZ", "Europe/Berlin"),
        ("ANTHROPIC_BASE_URL", "http://localhost:1"),
        ("https_proxy", "http://proxy"),
        ("CLAUDE_CODE_USE_BEDROCK", "1"),
        ("CLAUDECODE", "1"),
        ("EDITOR", "vi"),
    ]);
    let env = environment(&spec, &passwd(1000));
    let expected = map(&[
        ("HOME", "/home/ada"),
        ("USER", "ada"),
        ("LOGNAME", "ada"),
        ("SHELL", "/bin/sh"),
        ("PATH", "/p"),
        ("LANG", "de_DE.UTF-8"),
        ("LC_TIME", "C"),
        ("TZ", "Europe/Berlin"),
        ("ANTHROPIC_BASE_URL", "http://localhost:1"),
        ("https_proxy", "http://proxy"),
        ("CLAUDE_CODE_MAX_RETRIES", "2"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
    ]);
    assert_eq!(env, expected);

    plan(&mut spec).kind = command_of(&["tool"]);
    let env = environment(&spec, &passwd(0));
    assert_eq!(
        env.keys().map(String::as_str).collect::<Vec<_>>(),
        ["HOME", "LANG", "LC_TIME", "LOGNAME", "PATH", "SHELL", "TZ", "USER"]
    );
}

// field: backend.pass_env
#[test]
fn named_variables_pass() {
    let mut spec = spec(claude_with(|_| {}));
    context(&mut spec).environment = map(&[
        ("EDITOR", "vi"),
        ("CLAUDE_CODE_USE_VERTEX", "1"),
        ("CLAUDECODE", "1"),
        ("OTHER", "x"),
    ]);
    plan(&mut spec).pass_env = ["EDITOR", "CLAUDE_CODE_USE_VERTEX", "CLAUDECODE", "ABSENT"]
        .map(str::to_owned)
        .to_vec();
    let env = environment(&spec, &passwd(1000));
    assert_eq!(
        (
            env.get("EDITOR").map(String::as_str),
            env.get("CLAUDE_CODE_USE_VERTEX").map(String::as_str)
        ),
        (Some("vi"), Some("1"))
    );
    assert!(!env.contains_key("CLAUDECODE") && !env.contains_key("ABSENT") && !env.contains_key("OTHER"));
}

// field: backend.env
#[test]
fn fixed_variables_win() {
    let mut spec = spec(claude_with(|_| {}));
    context(&mut spec).environment = map(&[("PATH", "/p"), ("NAME", "submitted")]);
    spec.extra_env = map(&[("NAME", "settings"), ("FROM_SETTINGS", "1")]);
    plan(&mut spec).pass_env = vec!["NAME".to_owned()];
    assert_eq!(environment(&spec, &passwd(1000))["NAME"], "submitted");
    plan(&mut spec).env = map(&[
        ("NAME", "fixed"),
        ("PATH", "/q"),
        ("CLAUDE_CODE_MAX_RETRIES", "7"),
        ("ANTHROPIC_API_KEY", "x"),
    ]);
    spec.secrets.0 = map(&[("ANTHROPIC_API_KEY", "secret")]);
    let env = environment(&spec, &passwd(1000));
    assert_eq!(
        (
            env["NAME"].as_str(),
            env["PATH"].as_str(),
            env["FROM_SETTINGS"].as_str()
        ),
        ("fixed", "/q", "1")
    );
    assert_eq!(env["CLAUDE_CODE_MAX_RETRIES"], "7");
    assert!(!command_line(&spec).env.contains_key("CLAUDE_CODE_MAX_RETRIES"));
    assert!(
        !env.contains_key("ANTHROPIC_API_KEY"),
        "the launcher adds secrets, nobody else"
    );
}

#[test]
fn root_may_skip_permissions_too() {
    let with = |skip: bool, uid: u32| {
        environment(&spec(claude_with(|cli| cli.skip_permissions = skip)), &passwd(uid)).contains_key("IS_SANDBOX")
    };
    assert_eq!([with(true, 0), with(false, 0), with(true, 1000)], [true, false, false]);
}

#[test]
fn accounts_differ_by_where_the_credential_comes_from() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let id =
        |env: &[(&str, &str)], secrets: &[&str]| account(&claude_with(|_| {}), &map(env), &names(secrets)).unwrap().0;
    let key = id(&[], &["ANTHROPIC_API_KEY"]);
    let all = [
        key.clone(),
        id(&[], &["CLAUDE_CODE_OAUTH_TOKEN"]),
        id(&[], &["ANTHROPIC_AUTH_TOKEN"]),
        id(&[("HOME", "/home/ada")], &[]),
        id(&[("HOME", "/home/bob")], &[]),
        id(&[("HOME", "/home/ada"), ("CLAUDE_CONFIG_DIR", "/c")], &[]),
        id(
            &[("ANTHROPIC_BASE_URL", "http://127.0.0.1:8080")],
            &["ANTHROPIC_API_KEY"],
        ),
        id(&[("CLAUDE_CODE_USE_BEDROCK", "1")], &[]),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    assert!(key.starts_with("claude_cli:api.anthropic.com:"), "{key}");
    // With a key, the login does not matter; nor does a slash at the end of the URL.
    assert_eq!(id(&[("HOME", "/x")], &["ANTHROPIC_API_KEY", "OTHER"]), key);
    assert_eq!(
        id(
            &[("ANTHROPIC_BASE_URL", "https://api.anthropic.com/")],
            &["ANTHROPIC_API_KEY"]
        ),
        key
    );
    // Neither a value of a credential nor a password in the URL stands in an id.
    let shown = id(
        &[
            ("ANTHROPIC_BASE_URL", "https://me:hunter2@gate.example/x?key=hunter2"),
            ("ANTHROPIC_API_KEY", "hunter2"),
        ],
        &[],
    );
    assert!(
        shown.starts_with("claude_cli:gate.example:") && !shown.contains("hunter2"),
        "{shown}"
    );
    assert_eq!(account(&command_of(&["tool"]), &map(&[]), &names(&[])), None);
}

/// A session that was killed after two messages, one of them told in two lines.
fn killed(model: &str) -> Vec<Value> {
    let usage = |output: u64| json!({"input_tokens": 10, "cache_creation_input_tokens": 2000, "cache_read_input_tokens": 4000, "output_tokens": output});
    let line = |id: &str, output: u64, block: Value| json!({"type": "assistant", "message": {"id": id, "model": model, "usage": usage(output), "content": [block]}});
    let text = json!({"type": "text", "text": "x".repeat(270)});
    vec![
        json!({"type": "system", "subtype": "init", "session_id": "5f0c", "model": model, "claude_code_version": "2.1.329"}),
        line("m1", 3, text.clone()),
        line("m1", 3, text.clone()),
        line("m2", 500, text),
    ]
}

#[test]
fn what_a_killed_session_has_cost_is_told_by_its_tokens() {
    let (kind, events) = (claude_with(|_| {}), killed("claude-sonnet-4-5-20250929"));
    let report = read_chunks(&kind, [stream(&events).as_slice()], false);
    // Two messages: 3 dollars a million of input, 3.75 written to the cache, 0.30 found there, 15 of output, which is
    // twice 300 bytes at three a token, and 500.
    let input = 2 * (10 * 3 + 2000 * 15 / 4 + 4000 * 3 / 10);
    let cost = Cost(input + (200 + 500) * 15);
    assert!(!report.has_result && report.cost_estimated);
    let written = json!({"type": "text", "text": "x".repeat(270)}).to_string().len() as i64 / 3;
    let exact = Cost(input + (2 * written + 500) * 15);
    assert!((cost.0 - exact.0).abs() < 1000, "{cost:?} {exact:?}");
    assert_eq!((report.cost, report.total_cost), (Some(exact), Some(exact)));
    assert_eq!(report.tokens_in, Some(2 * 6010));
    // A resumed one goes on counting from what was known.
    let resumed = read_chunks(&kind, [stream(&events).as_slice()], true);
    assert_eq!(resumed.cost, Some(exact));
    assert_eq!(resumed.total_cost, Some(Cost(exact.0 + 6100)));
}

// field: cost_limits.cost_per_1k_input_tokens
// field: cost_limits.cost_per_1k_output_tokens
#[test]
fn the_job_files_own_price_counts_for_any_model() {
    let mut spec = spec(claude_with(|_| {}));
    Arc::get_mut(&mut spec.plan).unwrap().cost_limits = Some(CostLimits {
        per_sheet: None,
        per_job: Some(Cost(1)),
        warn_at_percent: 80,
        price: Some(TokenPrice {
            input: Cost(3_000),
            output: Cost(15_000),
        }),
    });
    let mut reader = Reader::new(&spec.plan.backend.kind);
    let mut events = killed("claude-next-9");
    events.push(json!({"type": "result", "subtype": "success", "result": "Done.",
                       "usage": {"input_tokens": 10_000, "cache_read_input_tokens": 2_000, "output_tokens": 1_000}}));
    reader.feed(&stream(&events));
    let report = reader.finish(&ended(0), b"", Caps::of(&spec));
    assert_eq!(
        (report.cost, report.cost_estimated),
        (Some(Cost(36_000 + 15_000)), true)
    );
}

#[test]
fn what_nobody_has_a_price_for_has_an_unknown_cost() {
    let report = read_chunks(
        &claude_with(|_| {}),
        [stream(&killed("claude-next-9")).as_slice()],
        false,
    );
    assert_eq!(
        (report.cost, report.cost_estimated, report.total_cost),
        (None, false, None)
    );
    let mut events = session();
    events.truncate(1);
    let report = read_chunks(&claude_with(|_| {}), [stream(&events).as_slice()], false);
    assert_eq!(report.cost, None, "it said nothing of tokens");
}

#[test]
fn a_result_without_a_cost_has_that_of_its_tokens() {
    let mut events = killed("claude-haiku-4-5");
    let usage = json!({"input_tokens": 1000, "output_tokens": 100});
    events.push(json!({"type": "result", "subtype": "success", "is_error": false, "result": "Done.", "usage": usage}));
    let report = read_chunks(&claude_with(|_| {}), [stream(&events).as_slice()], false);
    assert_eq!((report.cost, report.cost_estimated), (Some(Cost(1500)), true));
    assert_eq!((report.tokens_in, report.tokens_out), (Some(1000), Some(100)));
}

#[test]
fn cost_of_an_attempt() {
    let cost = |total: i64, earlier: Option<i64>, resumed, version| {
        attempt_cost(Some(Cost(total)), earlier.map(Cost), resumed, version).map(|cost| cost.0)
    };
    assert_eq!(cost(6100, None, false, Some("2.1.329")), Some(6100));
    assert_eq!(cost(12_300, Some(6100), true, Some("2.1.329")), Some(6200));
    assert_eq!(
        cost(12_300, Some(6100), true, Some("2.1.295 (Claude Code)")),
        Some(6200)
    );
    assert_eq!(cost(6200, Some(6100), true, Some("2.1.270")), Some(6200));
    assert_eq!(cost(6200, Some(6100), true, Some("1.0.83")), Some(6200));
    assert_eq!(cost(6200, Some(6100), true, Some("3.0.0")), Some(100));
    assert_eq!(cost(100, Some(6100), true, Some("2.1.329")), Some(100));
    // Unknown stays unknown.
    assert_eq!(cost(6200, None, true, Some("2.1.329")), None);
    assert_eq!(cost(6200, Some(6100), true, None), None);
    assert_eq!(cost(6200, Some(6100), true, Some("next")), None);
    assert_eq!(attempt_cost(None, Some(Cost(1)), false, Some("2.1.329")), None);
}

fn ended(code: i32) -> Certificate {
    Certificate {
        exit: Exit::Code(code),
        result: "success".to_owned(),
        wall: None,
        cpu: None,
        peak_memory: None,
        stopped_by_us: false,
    }
}

fn read_chunks<'a>(kind: &BackendKind, chunks: impl IntoIterator<Item = &'a [u8]>, resumed: bool) -> SessionReport {
    let mut reader = Reader::new(kind);
    chunks.into_iter().for_each(|chunk| reader.feed(chunk));
    let secrets = Secrets(map(&[("TOKEN", "hunter22")]));
    let prices = Prices::packaged();
    let caps = Caps {
        tail_bytes: 400,
        resumed,
        earlier_cost: Some(Cost(6100)),
        tariff: Tariff {
            own: None,
            prices: &prices,
        },
        secrets: &secrets,
    };
    reader.finish(&ended(0), b"warning: hunter22\n", caps)
}

fn stream(events: &[Value]) -> Vec<u8> {
    events
        .iter()
        .flat_map(|event| format!("{event}\n").into_bytes())
        .collect()
}

/// A session that calls two tools, one of them denied, under a warning of its limit.
fn session() -> Vec<Value> {
    let model_usage =
        json!({"inputTokens": 24, "outputTokens": 68, "cacheReadInputTokens": 4000, "cacheCreationInputTokens": 2000});
    vec![
        json!({"type": "system", "subtype": "init", "session_id": "5f0c", "model": "claude-opus-5-5", "claude_code_version": "2.1.329"}),
        json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 2, "retry_delay_ms": 549, "error_status": 529, "error": "server_error"}),
        json!({"type": "assistant", "message": {"id": "m1", "model": "claude-opus-5-5", "usage": {"input_tokens": 999_999},
               "content": [{"type": "text", "text": "I write.\nThen I look."}]}}),
        json!({"type": "assistant", "message": {"id": "m1", "model": "claude-opus-5-5",
               "content": [{"type": "tool_use", "id": "t1", "name": "Write", "input": {"file_path": "/w/a.md", "content": "hunter22"}}]}}),
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "written"}]}}),
        json!({"type": "assistant", "message": {"id": "m2", "model": "claude-opus-5-5",
               "content": [{"type": "tool_use", "id": "t2", "name": "Bash", "input": {"command": "ls\n  -l"}}]}}),
        json!({"type": "system", "subtype": "permission_denied", "tool_name": "Bash"}),
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": "needs approval"}]}}),
        json!({"type": "something_new", "subtype": 17}),
        json!({"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning", "resetsAt": 1_795_228_661, "rateLimitType": "five_hour", "utilization": 0.91}}),
        json!({"type": "result", "subtype": "success", "is_error": false, "result": "Done with hunter22.", "num_turns": 3, "session_id": "5f0c",
               "terminal_reason": "completed", "stop_reason": "end_turn", "total_cost_usd": 0.012_256,
               "usage": {"input_tokens": 12, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 2000, "output_tokens": 34},
               "modelUsage": {"claude-opus-5-5": model_usage, "claude-haiku-5-5": {"inputTokens": 1, "outputTokens": 2}},
               "permission_denials": [{"tool_name": "Bash"}]}),
    ]
}

#[test]
fn a_session_is_reported() {
    let report = read_chunks(&claude_with(|_| {}), [stream(&session()).as_slice()], false);
    assert!(report.has_result && !report.is_error && report.worked);
    assert_eq!((report.turns, report.tool_calls), (Some(3), 2));
    assert_eq!(report.denied_tools, ["Bash"]);
    assert_eq!(report.program_version.as_deref(), Some("2.1.329"));
    assert_eq!(
        (report.model.as_deref(), report.session_id.as_deref()),
        (Some("claude-opus-5-5"), Some("5f0c"))
    );
    assert_eq!(
        (report.terminal_reason.as_deref(), report.stop_reason.as_deref()),
        (Some("completed"), Some("end_turn"))
    );
    assert_eq!(report.limit, None);
    assert_eq!(
        (report.total_cost, report.cost),
        (Some(Cost(12_256)), Some(Cost(12_256)))
    );
    assert_eq!(
        (report.tokens_in, report.tokens_out),
        (Some(6025), Some(70)),
        "every model's"
    );
    // No secret leaves the spool.
    assert_eq!(report.result_text, "Done with [redacted].");
    assert_eq!(report.stderr_tail, "warning: [redacted]\n");
    assert!(report.stdout_tail.contains("tool Write /w/a.md") && !report.stdout_tail.contains("hunter22"));
}

#[test]
fn a_resumed_session_is_charged_for_what_it_added() {
    let report = read_chunks(&claude_with(|_| {}), [stream(&session()).as_slice()], true);
    assert_eq!((report.total_cost, report.cost), (Some(Cost(12_256)), Some(Cost(6156))));
    assert_eq!(
        (report.tokens_in, report.tokens_out),
        (Some(3012), Some(34)),
        "`modelUsage` is the whole session's"
    );
}

#[test]
fn a_session_that_was_cut_off_keeps_what_it_told() {
    let mut events = session();
    events.pop();
    let mut bytes = stream(&events);
    bytes.extend_from_slice(b"{\"type\":\"assistant\",\"message\":{\"mod");
    let report = read_chunks(&claude_with(|_| {}), [bytes.as_slice()], false);
    assert!(!report.has_result && report.worked);
    assert_eq!((report.turns, report.tool_calls), (Some(2), 2));
    // Its first answer told of 999,999 tokens, at $4 a million.
    assert_eq!(report.tokens_in, Some(999_999));
    assert!(
        report.cost.is_some_and(|cost| (3_999_996..4_100_000).contains(&cost.0)),
        "{:?}",
        report.cost
    );
    let unpriced = String::from_utf8(bytes).unwrap().replace("opus-5-5", "unheard-of");
    let report = read_chunks(&claude_with(|_| {}), [unpriced.as_bytes()], false);
    assert_eq!((report.total_cost, report.cost, report.tokens_in), (None, None, None));
}

#[test]
fn fields_of_odd_types_count_as_absent() {
    let odd = [
        json!({"type": "system", "subtype": "init", "session_id": 5, "model": ["x"], "claude_code_version": null}),
        json!({"type": "assistant", "message": {"id": 7, "model": {}, "content": "text"}}),
        json!({"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": "soon"}}),
        json!({"type": "result", "is_error": "yes", "num_turns": 2.0, "total_cost_usd": "much", "errors": "none", "usage": 3,
               "modelUsage": [], "permission_denials": {"a": 1}, "api_error_status": 99_999}),
    ];
    let report = read_chunks(&claude_with(|_| {}), [stream(&odd).as_slice()], false);
    assert_eq!(
        (report.has_result, report.is_error, report.turns),
        (true, false, Some(2))
    );
    assert_eq!(
        (report.session_id, report.model, report.total_cost, report.api_status),
        (None, None, None, None)
    );
}

#[test]
fn a_limit_survives_the_end_of_a_session_that_it_ended() {
    let rejected = json!({"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1_795_228_661.0, "rateLimitType": "seven_day"}});
    let report = read_chunks(&claude_with(|_| {}), [stream(&[rejected]).as_slice()], false);
    let limit = report.limit.unwrap();
    assert_eq!(
        (limit.kind, limit.window.as_deref()),
        (LimitKind::Usage, Some("seven_day"))
    );
    assert_eq!(limit.resets_at.map(|at| at.0), Some(1_795_228_661_000_000));
}

// field: backend.max_output_capture_bytes
#[test]
fn tails_are_bounded() {
    let kind = command_of(&["tool"]);
    let report = read_chunks(&kind, std::iter::repeat_n("abcdefghi\n".as_bytes(), 100_000), false);
    assert_eq!(report.stdout_tail.len(), 400);
    assert_eq!(report.result_text.len(), RESULT_TEXT_BYTES);
    assert!(report.stdout_tail.ends_with("abcdefghi\n"));
    let mut reader = Reader::new(&kind);
    (0..5000).for_each(|_| reader.feed(b"line\n"));
    assert_eq!(reader.lines().len(), LOG_LINES);
    assert!(reader.lines().is_empty());
}

fn log_of(kind: &BackendKind, bytes: &[u8]) -> Vec<String> {
    let mut renderer = LogRenderer::new(kind);
    let mut log: Vec<String> = bytes.chunks(11).flat_map(|chunk| renderer.feed(chunk)).collect();
    log.extend(renderer.finish());
    log
}

// field: backend.output_format
#[test]
fn logs_show_the_format_asked_for() {
    let bytes = stream(&session());
    let of = |format: &str| log_of(&claude_with(|cli| format.clone_into(&mut cli.output_format)), &bytes);
    assert_eq!(
        of("text"),
        [
            "session 5f0c started: claude-opus-5-5, Claude Code 2.1.329",
            "request failed (529 server_error), trying again in 0.5 s (1 of 2)",
            "I write.",
            "Then I look.",
            "tool Write /w/a.md",
            "  ok",
            "tool Bash ls -l",
            "tool Bash denied",
            "  error: needs approval",
            "limit five_hour: 91 % used, resets 2026-11-21T02:37:41Z",
            "result: done (3 turns, $0.0123)",
        ]
    );
    let events = of("stream-json");
    assert_eq!(events.len(), session().len());
    assert!(events.iter().all(|line| line.starts_with('{')));
    let result = of("json");
    assert!(result.len() == 1 && result[0].contains("\"num_turns\":3"), "{result:?}");

    let mut reader = Reader::new(&claude_with(|_| {}));
    reader.feed(&bytes);
    assert_eq!(reader.lines(), of("text"));
}

#[test]
fn logs_cannot_command_a_terminal() {
    let lines = log_of(
        &command_of(&["tool"]),
        b"a\x1b[31mred\x1b[0m\tb\x07\x1b]0;title\r\nkey sk-ant-api03-abcdefgh\nlast",
    );
    assert_eq!(lines, ["ared\tb0;title", "key [redacted]", "last"]);
    let errors = log_of(
        &claude_with(|_| {}),
        b"not json \x1b[2J\n\n{\"type\":\"result\",\"is_error\":true,\"errors\":[\"Reached\"],\"num_turns\":1}",
    );
    assert_eq!(errors, ["not json ", "result: error: Reached (1 turn)"]);
}

#[cfg(feature = "daemon")]
#[test]
fn logs_leave_the_exit_record_out() {
    let record = crate::runner::launch::record::Record {
        v: 1,
        result: "success".to_owned(),
        code: "exited".to_owned(),
        status: "0".to_owned(),
        cpu_us: None,
        peak_memory: None,
        at: crate::model::Timestamp(0),
    };
    for kind in [command_of(&["tool"]), claude_with(|_| {})] {
        for output in ["one\n\ntwo\n", "one\n\ntwo"] {
            let mut bytes = output.as_bytes().to_vec();
            record.append(&mut bytes).unwrap();
            let log = log_of(&kind, &bytes);
            assert_eq!(
                log.iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
                ["one", "two"],
                "{output:?}"
            );
            assert_eq!(log.last().map(String::as_str), Some("two"));
        }
    }
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_report(cuts in proptest::collection::vec(1_usize..400, 0..60)) {
        let bytes = stream(&session());
        for kind in [claude_with(|_| {}), command_of(&["tool"])] {
            let mut rest = bytes.as_slice();
            let mut chunks = Vec::new();
            for cut in &cuts {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(read_chunks(&kind, chunks, false), read_chunks(&kind, [bytes.as_slice()], false));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), cut in 1_usize..50) {
        for kind in [claude_with(|_| {}), command_of(&["tool"])] {
            read_chunks(&kind, bytes.chunks(cut), true);
            log_of(&kind, &bytes);
        }
    }

    /// Lines of the right shape with a part of them broken, or events without their fields.
    #[test]
    fn no_broken_line_panics(at in 0_usize..4000, byte in any::<u8>(), field in "(message|result|rate_limit_info|content|usage|modelUsage)", value in 0..4) {
        let value = [json!(null), json!([]), json!({"a": -1}), json!("x")][value as usize].clone();
        let mut events = session();
        for event in &mut events {
            if event.get(&field).is_some() {
                event[&field] = value.clone();
            }
        }
        let mut bytes = stream(&events);
        let at = at % bytes.len();
        bytes[at] = byte;
        read_chunks(&claude_with(|_| {}), [bytes.as_slice()], false);
        log_of(&claude_with(|_| {}), &bytes);
    }
}
