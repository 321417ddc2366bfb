//! The tables. Names, defaults and bounds are those that existing job files rely on.

use super::Effect::{Dormant, Works};
use super::Type::{Any, Bool, ByName, BySheet, Either, Int, List, Number, Section, Shaped, Text, Word, Written};
use super::{ANY, Effect, Field, Need, Type, above, at_least, check::boolean, up_to, within};
use crate::job::yaml::{Kind, Node};

const MAX: i64 = i64::MAX;

const fn field(name: &'static str, kind: Type, effect: Effect) -> Field {
    Field {
        name,
        kind,
        effect,
        about: "",
        default: "",
        example: "",
    }
}

const fn works(name: &'static str, kind: Type) -> Field {
    field(name, kind, Works)
}

const fn dormant(name: &'static str, kind: Type) -> Field {
    field(name, kind, Dormant)
}

const fn refused(name: &'static str, kind: Type, when: fn(&Node) -> bool) -> Field {
    field(name, kind, Effect::Refused(when))
}

impl Field {
    const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }
}

/// It says something: neither nothing, nor false, nor empty.
fn used(node: &Node) -> bool {
    match &node.kind {
        Kind::List(items) => !items.is_empty(),
        Kind::Map(entries) => entries.iter().any(|(_, value)| used(value)),
        Kind::Scalar(scalar) => !node.is_null() && scalar.raw != "off" && boolean(node) != Some(false),
    }
}

fn is_true(node: &Node) -> bool {
    boolean(node) == Some(true)
}

fn says(node: &Node, words: &[&str]) -> bool {
    node.scalar().is_some_and(|scalar| words.contains(&scalar.raw.as_str()))
}

fn is_private(node: &Node) -> bool {
    says(node, &["private"])
}

fn judges(node: &Node) -> bool {
    says(node, &["fail", "ignore"])
}

fn confines(node: &Node) -> bool {
    match node.get("mode") {
        Some(mode) => used(mode),
        None => node.scalar().is_some() && used(node),
    }
}

/// The whole file.
pub(crate) const JOB: &[Field] = &[
    works("name", Written)
        .about("The job's id, at most 128 bytes.")
        .example("review"),
    works("description", Text)
        .about("What the job is for.")
        .example("Review 100 items, ten at a time"),
    works("workspace", Text)
        .about("Directory of the job's results, relative to the job file; made if its parent exists.")
        .default("./workspace")
        .example("./review-workspace"),
    field(
        "working_directory",
        Text,
        Effect::Elsewhere("backend.working_directory"),
    )
    .about("Has no effect here, but under `backend`."),
    works("backend", Section(BACKEND))
        .about("What a session is: which program, model and directory, and how long it may take."),
    works("sheet", Section(SHEET)).about("How the work divides into sheets (`batch` is the same section)."),
    works("prompt", Section(PROMPT)).about("What each session is told."),
    works("retry", Section(RETRY)).about("How often, and after which delay, a sheet is tried again."),
    works("rate_limit", Section(RATE_LIMIT)).about("How limits are noticed and how long they are waited for."),
    works("validations", List(&Section(VALIDATION)))
        .about("What must be true of each sheet's output before it counts as done."),
    works("state_backend", Word(&["sqlite", "json"]))
        .about("`json` writes the checkpoint in the workspace after every sheet; the ledger is SQLite either way.")
        .default("sqlite"),
    works("state_path", Text).about("Where the checkpoint is written; `<workspace>/<name>.json` where not said."),
    works("pause_between_sheets_seconds", Number(at_least(0.0)))
        .about("Time between the end of a sheet and the start of the next.")
        .default("10"),
    works("priority", Int(1, 10))
        .about("Who goes first when runs compete, from 1 (low) to 10.")
        .default("5"),
    works("on_limit", Word(&["wait", "stop", "ask"]))
        .about("What a usage limit does to the run: wait for its end, fail the sheet, or ask a person.")
        .default("wait"),
    refused("suspicious", Word(&["flag", "fail", "ignore"]), judges)
        .about("What becomes of a session that claims success on weak grounds.")
        .default("flag"),
    refused("session_config", Word(&["auto", "shared", "private"]), is_private)
        .about("Whose configuration directory a session uses.")
        .default("auto"),
    refused("resources", Section(RESOURCES), used).about("What a session may use of the machine."),
    refused("sandbox", SANDBOX, confines)
        .about("What a session may reach; a bare word is the mode.")
        .default("off"),
    dormant("bridge", Section(BRIDGE)).about("MCP servers that sessions are given."),
    works("parallel", Section(PARALLEL)).about("Several sheets at once."),
    works("circuit_breaker", Section(CIRCUIT_BREAKER)).about("The rest that an account gets after faults in a row."),
    works("cost_limits", Section(COST_LIMITS))
        .about("What the job may cost, in dollars; above it the run waits behind a question."),
    works("stale_detection", Section(STALE_DETECTION)).about("When a silent session is taken for hanging."),
    dormant("checkpoints", Section(CHECKPOINTS)).about("Before which sheets the run asks a person."),
    works("cross_sheet", Section(CROSS_SHEET)).about("What a sheet is told of the results of earlier ones."),
    dormant("isolation", Section(ISOLATION)).about("A git worktree of its own for each run."),
    dormant("workspace_lifecycle", Section(WORKSPACE_LIFECYCLE))
        .about("What becomes of an old workspace when a run begins anew."),
    dormant("notifications", List(&Section(NOTIFICATION))).about("Who is told of what happens."),
    refused("on_success", List(&Section(HOOK)), used).about("What is done when the run has completed."),
    dormant("concert", Section(CONCERT)).about("Bounds of jobs that start jobs."),
    dormant("learning", Section(LEARNING)).about("What is learned from the outcomes of sheets."),
    dormant("grounding", Section(GROUNDING)).about("Checksums that must hold after each sheet."),
    dormant("ai_review", Section(AI_REVIEW)).about("A score that a review must give the work."),
    dormant("conductor", Section(CONDUCTOR)).about("Who oversees the run."),
    dormant("logging", Section(LOGGING)).about("Accepted from older files; the journal logs."),
    dormant("feedback", Section(FEEDBACK)).about("A block of feedback in the output of sessions."),
];

const fn need(section: &'static str, one_of: &'static [&'static str]) -> Need {
    Need {
        section,
        when: None,
        one_of,
    }
}

impl Need {
    const fn when(self, field: &'static str, words: &'static [&'static str]) -> Self {
        Self {
            when: Some((field, words)),
            ..self
        }
    }
}

/// What sections without an effect yet ask of their fields; those that work say it themselves, with codes of their own.
pub(crate) const NEEDS: &[Need] = &[
    need("checkpoints.triggers[]", &["name"]),
    need(
        "checkpoints.triggers[]",
        &["sheet_nums", "prompt_contains", "min_retry_count"],
    ),
    need("notifications[]", &["type"]),
    need("notifications[]", &["config.webhook_url", "config.webhook_url_env"]).when("type", &["slack"]),
    need("notifications[]", &["config.url", "config.url_env"]).when("type", &["webhook"]),
    need("on_success[]", &["type"]),
    need("on_success[]", &["job_path"]).when("type", &["run_job"]),
    need("on_success[]", &["command"]).when("type", &["run_command", "run_script"]),
    need("bridge.mcp_servers[]", &["name"]),
    need("bridge.mcp_servers[]", &["command"]),
];

const RESOURCES: &[Field] = &[
    works("memory_max", SIZE)
        .about("Memory above which a session is killed.")
        .example("4G"),
    works("memory_high", SIZE)
        .about("Memory above which a session is slowed down.")
        .example("3G"),
    works("cpu_quota", Number(above(0.0)))
        .about("Percent of one core.")
        .example("200"),
    works("tasks_max", Int(1, MAX)).about("Processes and threads at once."),
    works("io_weight", Int(1, 10_000)).about("Share of the disk, 100 being usual."),
    works("output_max", SIZE)
        .about("Output that is kept; more ends the session.")
        .default("1G"),
];
const BYTES: &str = "a number of bytes, or one with K, M or G behind it";
const SIZE: Type = Either(&[Int(1, MAX), Shaped(r"^[0-9]+(\.[0-9]+)?[KMGT]?$", BYTES)], BYTES);
const SANDBOX_MODES: Type = Word(&["off", "guard", "workspace", "strict"]);
const SANDBOX: Type = Either(
    &[
        SANDBOX_MODES,
        Section(&[
            works("mode", SANDBOX_MODES)
                .about("How tightly a session is confined.")
                .default("off"),
            works("read_write", List(&Text)).about("More paths that it may write to."),
            works("read_only", List(&Text)).about("More paths that it may read."),
            works("network", Word(&["host", "none"]))
                .about("Whether it has a network.")
                .default("host"),
        ]),
    ],
    "`off`, `guard`, `workspace` or `strict`, or a map with `mode`",
);

const BACKEND: &[Field] = &[
    works("type", Text)
        .about("What runs: `claude_cli`, or `command` for any program that reads the prompt on its standard input.")
        .default("claude_cli")
        .example("claude_cli"),
    works("skip_permissions", Bool)
        .about("Lets the CLI use its tools without asking; nobody is there to answer.")
        .default("true"),
    works("disable_mcp", Bool)
        .about("Starts none of your own MCP servers.")
        .default("true"),
    works("output_format", Word(&["json", "text", "stream-json"]))
        .about("How `logs` shows what a session says.")
        .default("text"),
    works("cli_model", Text).about("Model of the CLI.").example("sonnet"),
    dormant("model", Text)
        .about("Model of the API.")
        .default("claude-sonnet-4-20250514"),
    works("allowed_tools", List(&Text))
        .about("Tools that a session may use without a question.")
        .example(r#"["Read", "Edit", "Bash(git:*)"]"#),
    works("system_prompt_file", Text)
        .about("File whose text is the system prompt, relative to the job file.")
        .example("prompts/system.md"),
    works("working_directory", Text)
        .about("Where sessions work, relative to the job file; its directory where not said.")
        .example("."),
    works("timeout_seconds", Number(above(0.0)))
        .about("How long one attempt may take in all.")
        .default("1800"),
    works("timeout_overrides", BySheet(&Number(above(0.0))))
        .about("The same for single sheets, by number.")
        .example(r#"{"1": 3600}"#),
    works("sheet_overrides", BySheet(&Section(SHEET_OVERRIDE)))
        .about("Other settings for single sheets, by number.")
        .example(r#"{"1": {"cli_model": "opus", "timeout_seconds": 3600}}"#),
    refused("fallbacks", List(&Text), used).about("Backends that are tried in turn when this one fails for good."),
    works("cli_path", Text)
        .about("Program of the CLI, looked up on the submitter's PATH unless it has a slash.")
        .default("claude"),
    works("pass_env", List(&Text))
        .about("Names of variables that sessions get from the submitter's environment.")
        .example(r#"["GITHUB_TOKEN"]"#),
    works("env", ByName(&Written))
        .about("Variables with fixed values; no secrets.")
        .example(r#"{"TZ": "UTC"}"#),
    works("cli_extra_args", List(&Written)).about("Arguments that are appended to the CLI's command line."),
    works("max_output_capture_bytes", Int(0, 1024 * 1024 * 1024))
        .about("Bytes of a session's last output that the ledger keeps.")
        .default("10240"),
    dormant("api_key_env", Text)
        .about("Variable that holds the key of the API.")
        .default("ANTHROPIC_API_KEY"),
    dormant("max_tokens", Int(1, MAX))
        .about("Longest answer of the API.")
        .default("8192"),
    dormant("temperature", Number(within(0.0, 1.0)))
        .about("Temperature of the API's model.")
        .default("0.7"),
    dormant("base_url", Text)
        .about("Address of the API.")
        .default("https://api.anthropic.com"),
    dormant("api_key_credential", Text).about("Stored credential that holds the key of the API."),
    refused("system_prompt", Text, used).about("System prompt of the API."),
    refused("output_file", Text, used).about("File that receives the answer's text."),
    dormant("mode", Word(&["stream", "batch"]))
        .about("How the API is asked.")
        .default("stream"),
    dormant("ollama", Section(OLLAMA)).about("A model on this machine."),
    works("command", List(&Written))
        .about("Program and arguments of `type: command`.")
        .example(r#"["sh", "-e"]"#),
];
const SHEET_OVERRIDE: &[Field] = &[
    works("cli_model", Text).about("Model of the CLI for this sheet."),
    dormant("model", Text).about("Model of the API for this sheet."),
    dormant("temperature", Number(within(0.0, 1.0))).about("Temperature for this sheet."),
    dormant("max_tokens", Int(1, MAX)).about("Longest answer for this sheet."),
    works("timeout_seconds", Number(above(0.0)))
        .about("How long an attempt at this sheet may take; wins over `timeout_overrides`."),
    refused("backend", Text, used).about("Another backend for this sheet."),
    refused("resources", Section(RESOURCES), used).about("What this sheet's session may use of the machine."),
    refused("sandbox", SANDBOX, confines).about("What this sheet's session may reach."),
];
const OLLAMA: &[Field] = &[
    works("base_url", Text)
        .about("Where Ollama listens.")
        .default("http://localhost:11434"),
    works("model", Text).about("Its model.").default("llama3.1:8b"),
    works("num_ctx", Int(4096, MAX))
        .about("Tokens of context.")
        .default("32768"),
    works("timeout_seconds", Number(above(0.0)))
        .about("How long one answer may take.")
        .default("300"),
    works("keep_alive", Written)
        .about("How long the model stays loaded.")
        .default("5m"),
    works("max_tool_iterations", Int(1, 50))
        .about("Rounds of tool use.")
        .default("10"),
    works("health_check_timeout", Number(above(0.0))).about("How long it may take to say that it is there."),
    works("dynamic_tools", Bool).about("Offers only the tools that a prompt needs."),
    works("compression_level", Text).about("How far tool descriptions are shortened."),
];
const BRIDGE: &[Field] = &[
    dormant("enabled", Bool)
        .about("Switches the section on.")
        .default("false"),
    dormant("mcp_proxy_enabled", Bool).about("Offers the servers' tools to local models."),
    refused("mcp_servers", List(&Section(MCP_SERVER)), used)
        .about("Servers that the CLI gets as its MCP configuration."),
    dormant("hybrid_routing_enabled", Bool).about("Chooses between the local model and Claude."),
    dormant("complexity_threshold", Number(within(0.0, 1.0)))
        .about("Above it a task goes to Claude.")
        .default("0.7"),
    dormant("fallback_to_claude", Bool).about("Asks Claude where the local model fails."),
    dormant("context_budget_percent", Number(within(10.0, 95.0)))
        .about("Share of the context that tools may take.")
        .default("75"),
];
const MCP_SERVER: &[Field] = &[
    works("name", Text).about("What the server is called."),
    works("command", Text).about("Program that is the server."),
    works("args", List(&Written)).about("Its arguments."),
    works("env", ByName(&Written)).about("Its variables."),
    works("working_dir", Text).about("Where it runs."),
    works("timeout_seconds", Number(above(0.0))).about("How long a call may take."),
];

const SHEET: &[Field] = &[
    works("size", Int(1, MAX))
        .about("Items that one sheet covers.")
        .example("10"),
    works("total_items", Int(1, MAX))
        .about("The last item; with `fan_out`, the number of stages.")
        .example("100"),
    works("start_item", Int(1, MAX)).about("The first item.").default("1"),
    works("descriptions", BySheet(&Text))
        .about("A label for each sheet, by number.")
        .example(r#"{"1": "Set up"}"#),
    works("dependencies", BySheet(&List(&Int(1, MAX))))
        .about("Which sheets (with `fan_out`: stages) wait for which.")
        .example(r#"{"2": [1], "3": [2]}"#),
    works("fan_out", BySheet(&Int(1, COUNT)))
        .about("How many sheets a stage becomes, by stage; needs `size: 1`.")
        .example(r#"{"2": 3}"#),
    works("skip_when", BySheet(&Written)).about("Expressions by sheet; where one is true, the sheet is skipped."),
    works("skip_when_command", BySheet(&Section(SKIP_COMMAND)))
        .about("Commands by sheet; where one exits with 0, the sheet is skipped."),
    works("prompt_extensions", BySheet(&List(&Text)))
        .about("Texts or files, by sheet, that are appended to its prompt."),
];
const SKIP_COMMAND: &[Field] = &[
    works("command", Text).about("Run by `/bin/sh` in the workspace."),
    works("description", Text).about("What it asks."),
    works("timeout_seconds", Number(up_to(60.0)))
        .about("How long it may take; then the sheet runs.")
        .default("10"),
];

const PROMPT: &[Field] = &[
    works("template", Text)
        .about(
            "Template of the prompt, rendered for each sheet with at most 2,000,000 steps, 2 s of a processor, 256 MiB of \
             memory and 16 MiB of text.",
        )
        .example("Write {{ workspace }}/{{ sheet_num }}.md"),
    works("template_file", Text)
        .about("File that holds the template, relative to the job file.")
        .example("prompts/task.j2"),
    works("variables", ByName(&Any))
        .about("Your own variables for templates, paths, patterns and commands.")
        .example(r#"{"audience": "engineers"}"#),
    works("stakes", Text).about("Why it matters: the variable `stakes`."),
    works("thinking_method", Text).about("How to go about it: the variable `thinking_method`."),
    works("engine", Word(&["tera", "jinja"]))
        .about("Template language; where not said, Tera if it renders every sheet as Jinja2 does."),
    works("append", Section(APPEND)).about("What follows the rendered template."),
    works("prompt_extensions", List(&Text)).about("Texts or files that are appended to every prompt."),
];
const APPEND: &[Field] = &[
    works("requirements", Bool)
        .about("What will be checked.")
        .default("true"),
    works("lessons", Bool)
        .about("What earlier attempts failed at.")
        .default("true"),
    dormant("advice", Bool)
        .about("What earlier runs taught.")
        .default("true"),
];

const RETRY: &[Field] = &[
    works("max_retries", Int(0, COUNT))
        .about("Retries after the first attempt where a rule failed.")
        .default("3"),
    works("base_delay_seconds", Number(above(0.0)))
        .about("Delay before the first retry.")
        .default("10"),
    works("max_delay_seconds", Number(above(0.0)))
        .about("No delay is longer; not less than `base_delay_seconds`.")
        .default("3600"),
    works("exponential_base", Number(above(1.0)))
        .about("Each delay is so many times the one before.")
        .default("2"),
    works("jitter", Bool)
        .about("Draws each delay between 0 and its length, so that not all come at once.")
        .default("true"),
    works("max_completion_attempts", Int(0, COUNT))
        .about("Attempts that ask only for what is missing.")
        .default("3"),
    works("completion_delay_seconds", Number(at_least(0.0)))
        .about("Delay before such an attempt.")
        .default("5"),
    works("completion_threshold_percent", Number(up_to(100.0)))
        .about("From this share of passed rules on, only what is missing is asked for.")
        .default("50"),
    works("transient_retries", Int(0, COUNT))
        .about(
            "Retries after faults that pass: the network, an overloaded API. A fault of the API that a session met while it \
             alone was let through after the rest of `circuit_breaker` is its account's, and does not count (up to 100 times \
             a sheet).",
        )
        .default("10"),
];
const COUNT: i64 = u32::MAX as i64;

const RATE_LIMIT: &[Field] = &[
    works("detection_patterns", List(&Text))
        .about(
            "Regular expressions that tell a limit in the error output of a failed session, where nothing else does.",
        )
        .default(
            r#"["rate.?limit", "usage.?limit", "quota", "too many requests", "429", "capacity", "try again later"]"#,
        )
        .example(r#"["rate.?limit", "quota"]"#),
    works("wait_minutes", Number(at_least(1.0)))
        .about("Wait for a usage limit that does not say when it ends.")
        .default("60"),
    works("max_waits", Int(1, COUNT))
        .about("Throttlings that one run waits for.")
        .default("24"),
    works("max_quota_waits", Int(1, COUNT))
        .about("Usage limits that one run waits for.")
        .default("48"),
];

const VALIDATION: &[Field] = &[
    works("type", Word(VALIDATION_TYPES))
        .about("What is checked.")
        .example("file_exists"),
    works("path", Text)
        .about("The file, relative to the workspace; takes `{name}` and `{{ expression }}`.")
        .example("{workspace}/report{sheet_num}.md"),
    works("pattern", Text)
        .about("The text, or the regular expression, that must be in it.")
        .example("(?m)^## Summary"),
    works("command", Text)
        .about("Run by `/bin/sh -c`; must exit with 0.")
        .example(r#"test -s "{workspace}/report{sheet_num}.md""#),
    works("working_directory", Text).about("Where the command runs, relative to the workspace."),
    works("description", Text).about("What the rule means, for people and for the session."),
    works("stage", Int(1, 10))
        .about("Rules of a stage are checked only when all earlier stages passed.")
        .default("1"),
    works("condition", Text)
        .about("Which sheets it is for.")
        .example("sheet_num >= 2 and stage in [1, 3]"),
    works("retry_count", Int(0, 10))
        .about("How often a failed check is repeated; a command is not, unless this says so.")
        .default("3"),
    works("retry_delay_ms", Int(0, 5000))
        .about("Time between two checks.")
        .default("200"),
    works("timeout_seconds", Number(above(0.0)))
        .about("How long a command may take.")
        .default("300"),
];
const VALIDATION_TYPES: &[&str] = &[
    "file_exists",
    "file_modified",
    "content_contains",
    "content_regex",
    "command_succeeds",
];

const PARALLEL: &[Field] = &[
    works("enabled", Bool)
        .about("Switches the section on; without dependencies all sheets are independent then.")
        .default("false"),
    works("max_concurrent", Int(1, 100))
        .about("Sheets that run at once.")
        .default("3"),
    works(
        "fail_fast",
        Either(&[Bool, Word(&["cancel"])], "true, false or `cancel`"),
    )
    .about("After a failed sheet nothing new starts; `cancel` stops what runs, too.")
    .default("true"),
    dormant("budget_partition", Bool)
        .about("Divides a budget among the sheets that run.")
        .default("true"),
    works("weights", BySheet(&Int(1, COUNT)))
        .about("Places that a sheet takes of the conductor's, by sheet.")
        .example(r#"{"1": 2}"#),
];
const CIRCUIT_BREAKER: &[Field] = &[
    works("enabled", Bool).about("Switches the section on.").default("true"),
    works("failure_threshold", Int(1, 100))
        .about("Faults in a row after which no session starts.")
        .default("5"),
    works("recovery_timeout_seconds", Number(up_to(3600.0)))
        .about("For how long.")
        .default("300"),
    works("cross_workspace_coordination", Bool)
        .about("Faults are those of an account, so all of its jobs rest; false has no effect.")
        .default("true"),
    works("honor_other_jobs_rate_limits", Bool)
        .about("Limits are those of an account, so all of its jobs wait; false has no effect.")
        .default("true"),
];
const COST_LIMITS: &[Field] = &[
    works("enabled", Bool)
        .about("Switches the section on; needs one of the limits.")
        .default("false"),
    works("max_cost_per_sheet", Number(above(0.0)))
        .about("Dollars for all attempts at one sheet.")
        .example("2.5"),
    works("max_cost_per_job", Number(above(0.0)))
        .about("Dollars for the whole run.")
        .example("50"),
    works("cost_per_1k_input_tokens", Number(at_least(0.0)))
        .about("Dollars, where a session does not say what it cost.")
        .default("0.003"),
    works("cost_per_1k_output_tokens", Number(at_least(0.0)))
        .about("Dollars, where a session does not say what it cost.")
        .default("0.015"),
    works("warn_at_percent", Number(within(0.0, 100.0)))
        .about("Share of the limit from which on it is told.")
        .default("80"),
];
const STALE_DETECTION: &[Field] = &[
    works("enabled", Bool).about("Switches the section on.").default("true"),
    works("idle_timeout_seconds", Number(above(0.0)))
        .about("A session that prints nothing for so long is ended; the CLI itself is silent for up to 366.")
        .default("900"),
    works("first_event_timeout_seconds", Number(above(0.0)))
        .about(
            "The same before it has printed anything at all; the CLI prints its first line before it asks for an answer. As \
             long as `idle_timeout_seconds`, unless said otherwise.",
        )
        .example("120"),
    dormant("check_interval_seconds", Number(above(0.0)))
        .about("Accepted from older files; output is followed as it comes."),
];
const CHECKPOINTS: &[Field] = &[
    refused("enabled", Bool, is_true)
        .about("Switches the section on.")
        .default("false"),
    works(
        "triggers",
        List(&Section(&[
            works("name", Text).about("What it is called."),
            works("sheet_nums", List(&Int(1, MAX))).about("Before these sheets."),
            works("prompt_contains", List(&Text)).about("Before sheets whose prompt has one of these."),
            works("min_retry_count", Int(0, MAX)).about("Before a retry with at least this number."),
            works("requires_confirmation", Bool)
                .about("Waits for the answer.")
                .default("true"),
            works("message", Text).about("What the person is told."),
        ])),
    )
    .about("When to ask."),
];
const CROSS_SHEET: &[Field] = &[
    works("auto_capture_stdout", Bool)
        .about("Gives the end of earlier sheets' final texts as `previous_outputs`.")
        .default("false"),
    works("max_output_chars", Int(1, COUNT))
        .about("Characters of each.")
        .default("2000"),
    works("capture_files", List(&Text)).about("Patterns of files that are given as `previous_files`."),
    works("lookback_sheets", Int(0, COUNT))
        .about("How many sheets back; 0: all.")
        .default("3"),
];
const ISOLATION: &[Field] = &[
    refused("enabled", Bool, is_true)
        .about("Switches the section on.")
        .default("false"),
    works("mode", Word(&["none", "worktree"]))
        .about("`worktree` gives each run a git worktree.")
        .default("none"),
    works("worktree_base", Text).about("Where worktrees are made."),
    works(
        "branch_prefix",
        Shaped(
            "^[a-zA-Z][a-zA-Z0-9_-]*$",
            "a letter, then letters, digits, `_` and `-`",
        ),
    )
    .about("Begin of the branches' names.")
    .default("mozart"),
    works("source_branch", Text).about("Branch that a worktree begins at."),
    works("cleanup_on_success", Bool)
        .about("Removes the worktree after success.")
        .default("true"),
    works("cleanup_on_failure", Bool)
        .about("Removes the worktree after a failure.")
        .default("false"),
    works("lock_during_execution", Bool)
        .about("Locks the worktree while the run lasts.")
        .default("true"),
    works("fallback_on_error", Bool)
        .about("Goes on without a worktree where none can be made.")
        .default("true"),
];
const WORKSPACE_LIFECYCLE: &[Field] = &[
    refused("archive_on_fresh", Bool, is_true)
        .about("Moves the old workspace away when a run begins with `--fresh`.")
        .default("false"),
    works("archive_dir", Text).about("Where to.").default("archive"),
    works("archive_naming", Word(&["iteration", "timestamp"]))
        .about("How archives are named.")
        .default("iteration"),
    works("max_archives", Int(0, MAX))
        .about("How many are kept; 0: all.")
        .default("0"),
    works("preserve_patterns", List(&Text))
        .about("What stays in the workspace.")
        .default(r#"[".iteration", ".mozart-*", ".coverage", "archive/**", ".worktrees/**"]"#),
];
const NOTIFICATION: &[Field] = &[
    works("type", Word(&["desktop", "slack", "webhook", "email"])).about("Who tells."),
    works(
        "on_events",
        List(&Word(&[
            "job_start",
            "sheet_start",
            "sheet_complete",
            "sheet_failed",
            "job_complete",
            "job_failed",
            "job_paused",
            "job_resumed",
            "rate_limit_detected",
            "batch_start",
            "batch_complete",
            "batch_failed",
        ])),
    )
    .about("Of what.")
    .default(r#"["job_complete", "job_failed"]"#),
    works("config", ByName(&Any)).about("Settings of that kind, such as `webhook_url_env`."),
];
const HOOK: &[Field] = &[
    works("type", Word(&["run_job", "run_command", "run_script"])).about("What is done."),
    works("job_path", Text).about("Job file that is run."),
    works("job_workspace", Text).about("Its workspace."),
    works("inherit_learning", Bool)
        .about("It shares what was learned.")
        .default("true"),
    works("command", Text).about("Command or script that is run."),
    works("working_directory", Text).about("Where."),
    works("description", Text).about("What it is for."),
    works("on_failure", Word(&["continue", "abort"]))
        .about("Whether a failure ends the rest.")
        .default("continue"),
    works("timeout_seconds", Number(above(0.0)))
        .about("How long it may take.")
        .default("300"),
    works("detached", Bool).about("Does not wait for it.").default("false"),
    works("fresh", Bool).about("Begins the job anew.").default("false"),
];
const CONCERT: &[Field] = &[
    works("enabled", Bool)
        .about("Switches the section on.")
        .default("false"),
    works("max_chain_depth", Int(1, 100))
        .about("Jobs that may follow one another.")
        .default("5"),
    works("cooldown_between_jobs_seconds", Number(at_least(0.0)))
        .about("Time between two of them.")
        .default("30"),
    works("inherit_workspace", Bool)
        .about("The next job works in the same workspace.")
        .default("true"),
    works("concert_log_path", Text).about("Where the chain is logged."),
    works("abort_concert_on_hook_failure", Bool)
        .about("A failed hook ends the chain.")
        .default("false"),
];
const SHARE: Type = Number(within(0.0, 1.0));
const LEARNING: &[Field] = &[
    works("enabled", Bool).about("Switches the section on.").default("true"),
    works("outcome_store_type", Word(&["json", "sqlite"])).about("How outcomes are kept."),
    works("outcome_store_path", Text).about("Where outcomes are kept."),
    works("min_confidence_threshold", SHARE)
        .about("Less certain advice is not given.")
        .default("0.3"),
    works("high_confidence_threshold", SHARE)
        .about("Advice that counts as certain.")
        .default("0.7"),
    works("escalation_enabled", Bool).about("Asks a person where it is uncertain."),
    works("use_global_patterns", Bool).about("Takes advice from other jobs."),
    works("exploration_rate", SHARE)
        .about("Share of sheets that try doubtful advice.")
        .default("0.15"),
    works("exploration_min_priority", SHARE)
        .about("Advice below it is never tried.")
        .default("0.05"),
    works("entropy_alert_threshold", SHARE)
        .about("Below it advice has become too uniform.")
        .default("0.5"),
    works("entropy_check_interval", Int(1, MAX))
        .about("Sheets between two such looks.")
        .default("100"),
    works("auto_apply_enabled", Bool).about("Applies trusted advice by itself."),
    works("auto_apply_trust_threshold", SHARE)
        .about("Advice that counts as trusted.")
        .default("0.85"),
    works(
        "exploration_budget",
        Section(&[
            works("enabled", Bool).about("Switches the section on.").default("true"),
            works("floor", SHARE).about("Least share.").default("0.05"),
            works("ceiling", SHARE).about("Largest share.").default("0.5"),
            works("decay_rate", SHARE)
                .about("What is left of it after each sheet.")
                .default("0.95"),
            works("boost_amount", SHARE).about("How much it grows.").default("0.1"),
            works("initial_budget", SHARE).about("Where it begins.").default("0.15"),
        ]),
    )
    .about("How much is tried, over time."),
    works(
        "entropy_response",
        Section(&[
            works("enabled", Bool).about("Switches the section on.").default("true"),
            works("entropy_threshold", SHARE)
                .about("Below it something is done.")
                .default("0.3"),
            works("cooldown_seconds", Number(at_least(0.0)))
                .about("At most once in this time.")
                .default("3600"),
            works("boost_budget", Bool).about("Tries more."),
            works("revisit_quarantine", Bool).about("Looks at rejected advice again."),
            works("max_quarantine_revisits", Int(0, MAX))
                .about("At how much of it.")
                .default("3"),
        ]),
    )
    .about("What happens when advice has become too uniform."),
    works(
        "auto_apply",
        Section(&[
            works("enabled", Bool).about("Switches the section on.").default("true"),
            works("trust_threshold", SHARE)
                .about("Advice that is trusted enough.")
                .default("0.85"),
            works("max_patterns_per_sheet", Int(1, 10))
                .about("Pieces of advice for one sheet.")
                .default("3"),
            works("require_validated_status", Bool).about("Only advice that was confirmed."),
            works("log_applications", Bool).about("Logs each use."),
        ]),
    )
    .about("How trusted advice is applied."),
];
const GROUNDING: &[Field] = &[
    refused("enabled", Bool, is_true)
        .about("Switches the section on.")
        .default("false"),
    works(
        "hooks",
        List(&Section(&[
            works("type", Word(&["file_checksum"])).about("How it is looked at."),
            works("name", Text).about("What it is called."),
            works("expected_checksums", ByName(&Text)).about("Checksums by path."),
            works("checksum_algorithm", Word(&["md5", "sha256"])).about("Kind of checksum."),
        ])),
    )
    .about("What is looked at."),
    works("fail_on_grounding_failure", Bool)
        .about("A mismatch fails the sheet.")
        .default("true"),
    works("escalate_on_failure", Bool)
        .about("A mismatch is put to a person.")
        .default("true"),
    works("timeout_seconds", Number(above(0.0)))
        .about("How long it may take.")
        .default("30"),
];
const AI_REVIEW: &[Field] = &[
    refused("enabled", Bool, is_true)
        .about("Switches the section on.")
        .default("false"),
    works("min_score", Int(0, 100))
        .about("Below it the sheet has a low score.")
        .default("60"),
    works("target_score", Int(0, 100))
        .about("The score that is aimed at; not below `min_score`.")
        .default("80"),
    works("on_low_score", Word(&["retry", "warn", "fail"])).about("What follows a low score."),
    works("max_retry_for_review", Int(0, 5))
        .about("How often the sheet is tried again for it.")
        .default("2"),
    works("review_prompt_template", Text).about("What the reviewer is told."),
];
const CONDUCTOR: &[Field] = &[
    works("name", Text)
        .about("What the overseer is called.")
        .default("default"),
    works("role", Word(&["human", "ai", "hybrid"])).about("Who oversees."),
    works(
        "identity_context",
        Shaped(r"^[\s\S]{0,500}$", "a text of at most 500 characters"),
    )
    .about("What the overseer is told of itself."),
    works(
        "preferences",
        Section(&[
            works("prefer_minimal_output", Bool).about("Says little."),
            works("escalation_response_timeout_seconds", Number(ANY))
                .about("How long an answer is waited for.")
                .default("300"),
            works("auto_retry_on_transient_errors", Bool).about("Retries passing faults without asking."),
            works("notification_channels", List(&Text)).about("Where it is told."),
        ]),
    )
    .about("How it likes to be told."),
];
const LOGGING: &[Field] = &[
    works("level", Text).about("Least severe messages."),
    works("format", Word(&["json", "console", "both"])).about("Shape of messages."),
    works("file_path", Text).about("File that they go to."),
    works("max_file_size_mb", Int(1, MAX))
        .about("Size at which the file is changed.")
        .default("50"),
    works("backup_count", Int(0, MAX))
        .about("Old files that are kept.")
        .default("5"),
    works("include_timestamps", Bool).about("Whether they carry a time."),
    works("include_context", Bool).about("Whether they carry their context."),
];
const FEEDBACK: &[Field] = &[
    works("enabled", Bool)
        .about("Switches the section on.")
        .default("false"),
    works("pattern", Text)
        .about("What a block looks like.")
        .default("(?s)FEEDBACK_START(.+?)FEEDBACK_END"),
    works("format", Word(&["json", "yaml", "text"])).about("What is in it."),
];
