//! The tables. Names, defaults and bounds are those that existing job files rely on.

use super::Effect::{Dormant, Works};
use super::Type::{Any, Bool, ByName, BySheet, Either, Int, List, Number, Section, Text, Word, Written};
use super::{ANY, Effect, Field, Type, above, at_least, check::boolean, up_to, within};
use crate::job::yaml::{Kind, Node};

const MAX: i64 = i64::MAX;

const fn works(name: &'static str, kind: Type) -> Field {
    Field {
        name,
        kind,
        effect: Works,
    }
}

const fn dormant(name: &'static str, kind: Type) -> Field {
    Field {
        name,
        kind,
        effect: Dormant,
    }
}

const fn refused(name: &'static str, kind: Type, when: fn(&Node) -> bool) -> Field {
    Field {
        name,
        kind,
        effect: Effect::Refused(when),
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
    works("name", Written),
    works("description", Text),
    works("workspace", Text),
    works("backend", Section(BACKEND)),
    works("sheet", Section(SHEET)),
    works("prompt", Section(PROMPT)),
    works("retry", Section(RETRY)),
    works("rate_limit", Section(RATE_LIMIT)),
    works("validations", List(&Section(VALIDATION))),
    works("state_backend", Word(&["sqlite", "json"])),
    works("state_path", Text),
    works("pause_between_sheets_seconds", Number(at_least(0.0))),
    works("priority", Int(1, 10)),
    works("on_limit", Word(&["wait", "stop", "ask"])),
    refused("suspicious", Word(&["flag", "fail", "ignore"]), judges),
    refused("session_config", Word(&["auto", "shared", "private"]), is_private),
    refused("resources", Section(RESOURCES), used),
    refused("sandbox", SANDBOX, confines),
    dormant("bridge", Section(BRIDGE)),
    works("parallel", Section(PARALLEL)),
    works("circuit_breaker", Section(CIRCUIT_BREAKER)),
    works("cost_limits", Section(COST_LIMITS)),
    works("stale_detection", Section(STALE_DETECTION)),
    dormant("checkpoints", Section(CHECKPOINTS)),
    works("cross_sheet", Section(CROSS_SHEET)),
    dormant("isolation", Section(ISOLATION)),
    dormant("workspace_lifecycle", Section(WORKSPACE_LIFECYCLE)),
    dormant("notifications", List(&Section(NOTIFICATION))),
    refused("on_success", List(&Section(HOOK)), used),
    dormant("concert", Section(CONCERT)),
    dormant("learning", Section(LEARNING)),
    dormant("grounding", Section(GROUNDING)),
    dormant("ai_review", Section(AI_REVIEW)),
    dormant("conductor", Section(CONDUCTOR)),
    dormant("logging", Section(LOGGING)),
    dormant("feedback", Section(FEEDBACK)),
];

const RESOURCES: &[Field] = &[
    works("memory_max", SIZE),
    works("memory_high", SIZE),
    works("cpu_quota", Number(above(0.0))),
    works("tasks_max", Int(1, MAX)),
    works("io_weight", Int(1, 10_000)),
    works("output_max", SIZE),
];
const SIZE: Type = Either(&[Int(1, MAX), Text], "a number of bytes, or one with K, M or G");
const SANDBOX_MODES: Type = Word(&["off", "guard", "workspace", "strict"]);
const SANDBOX: Type = Either(
    &[
        SANDBOX_MODES,
        Section(&[
            works("mode", SANDBOX_MODES),
            works("read_write", List(&Text)),
            works("read_only", List(&Text)),
            works("network", Word(&["host", "none"])),
        ]),
    ],
    "`off`, `guard`, `workspace` or `strict`, or a map with `mode`",
);

const BACKEND: &[Field] = &[
    works("type", Text),
    works("skip_permissions", Bool),
    works("disable_mcp", Bool),
    works("output_format", Word(&["json", "text", "stream-json"])),
    works("cli_model", Text),
    dormant("model", Text),
    works("allowed_tools", List(&Text)),
    works("system_prompt_file", Text),
    works("working_directory", Text),
    works("timeout_seconds", Number(above(0.0))),
    works("timeout_overrides", BySheet(&Number(above(0.0)))),
    refused("sheet_overrides", BySheet(&Section(SHEET_OVERRIDE)), used),
    refused("fallbacks", List(&Text), used),
    works("cli_path", Text),
    works("pass_env", List(&Text)),
    works("env", ByName(&Written)),
    works("cli_extra_args", List(&Written)),
    works("max_output_capture_bytes", Int(0, 1024 * 1024 * 1024)),
    dormant("api_key_env", Text),
    dormant("max_tokens", Int(1, MAX)),
    dormant("temperature", Number(within(0.0, 1.0))),
    dormant("base_url", Text),
    dormant("api_key_credential", Text),
    refused("system_prompt", Text, used),
    refused("output_file", Text, used),
    dormant("mode", Word(&["stream", "batch"])),
    dormant("ollama", Section(OLLAMA)),
    works("command", List(&Written)),
];
const SHEET_OVERRIDE: &[Field] = &[
    works("cli_model", Text),
    works("model", Text),
    works("temperature", Number(within(0.0, 1.0))),
    works("max_tokens", Int(1, MAX)),
    works("timeout_seconds", Number(above(0.0))),
    works("backend", Text),
    works("resources", Section(RESOURCES)),
    works("sandbox", SANDBOX),
];
const OLLAMA: &[Field] = &[
    works("base_url", Text),
    works("model", Text),
    works("num_ctx", Int(4096, MAX)),
    works("timeout_seconds", Number(above(0.0))),
    works("keep_alive", Written),
    works("max_tool_iterations", Int(1, 50)),
    works("health_check_timeout", Number(above(0.0))),
    works("dynamic_tools", Bool),
    works("compression_level", Text),
];
const BRIDGE: &[Field] = &[
    dormant("enabled", Bool),
    dormant("mcp_proxy_enabled", Bool),
    refused("mcp_servers", List(&Section(MCP_SERVER)), used),
    dormant("hybrid_routing_enabled", Bool),
    dormant("complexity_threshold", Number(within(0.0, 1.0))),
    dormant("fallback_to_claude", Bool),
    dormant("context_budget_percent", Number(within(10.0, 95.0))),
];
const MCP_SERVER: &[Field] = &[
    works("name", Text),
    works("command", Text),
    works("args", List(&Written)),
    works("env", ByName(&Written)),
    works("working_dir", Text),
    works("timeout_seconds", Number(above(0.0))),
];

const SHEET: &[Field] = &[
    works("size", Int(1, MAX)),
    works("total_items", Int(1, MAX)),
    works("start_item", Int(1, MAX)),
    works("descriptions", BySheet(&Text)),
    works("dependencies", BySheet(&List(&Int(1, MAX)))),
    works("fan_out", BySheet(&Int(1, COUNT))),
    works("skip_when", BySheet(&Written)),
    works("skip_when_command", BySheet(&Section(SKIP_COMMAND))),
    works("prompt_extensions", BySheet(&List(&Text))),
];
const SKIP_COMMAND: &[Field] = &[
    works("command", Text),
    works("description", Text),
    works("timeout_seconds", Number(up_to(60.0))),
];

const PROMPT: &[Field] = &[
    works("template", Text),
    works("template_file", Text),
    works("variables", ByName(&Any)),
    works("stakes", Text),
    works("thinking_method", Text),
    works("engine", Word(&["tera", "jinja"])),
    works("append", Section(APPEND)),
    works("prompt_extensions", List(&Text)),
];
const APPEND: &[Field] = &[
    works("requirements", Bool),
    works("lessons", Bool),
    works("advice", Bool),
];

const RETRY: &[Field] = &[
    works("max_retries", Int(0, COUNT)),
    works("base_delay_seconds", Number(above(0.0))),
    works("max_delay_seconds", Number(above(0.0))),
    works("exponential_base", Number(above(1.0))),
    works("jitter", Bool),
    works("max_completion_attempts", Int(0, COUNT)),
    works("completion_delay_seconds", Number(at_least(0.0))),
    works("completion_threshold_percent", Number(up_to(100.0))),
    works("transient_retries", Int(0, COUNT)),
];
const COUNT: i64 = u32::MAX as i64;

const RATE_LIMIT: &[Field] = &[
    works("detection_patterns", List(&Text)),
    works("wait_minutes", Number(at_least(1.0))),
    works("max_waits", Int(1, COUNT)),
    works("max_quota_waits", Int(1, COUNT)),
];

const VALIDATION: &[Field] = &[
    works("type", Word(VALIDATION_TYPES)),
    works("path", Text),
    works("pattern", Text),
    works("command", Text),
    works("working_directory", Text),
    works("description", Text),
    works("stage", Int(1, 10)),
    works("condition", Text),
    works("retry_count", Int(0, 10)),
    works("retry_delay_ms", Int(0, 5000)),
    works("timeout_seconds", Number(above(0.0))),
];
const VALIDATION_TYPES: &[&str] = &[
    "file_exists",
    "file_modified",
    "content_contains",
    "content_regex",
    "command_succeeds",
];

const PARALLEL: &[Field] = &[
    works("enabled", Bool),
    works("max_concurrent", Int(1, 100)),
    works(
        "fail_fast",
        Either(&[Bool, Word(&["cancel"])], "true, false or `cancel`"),
    ),
    dormant("budget_partition", Bool),
    works("weights", BySheet(&Int(1, COUNT))),
];
const CIRCUIT_BREAKER: &[Field] = &[
    works("enabled", Bool),
    works("failure_threshold", Int(1, 100)),
    works("recovery_timeout_seconds", Number(up_to(3600.0))),
    works("cross_workspace_coordination", Bool),
    works("honor_other_jobs_rate_limits", Bool),
];
const COST_LIMITS: &[Field] = &[
    works("enabled", Bool),
    works("max_cost_per_sheet", Number(above(0.0))),
    works("max_cost_per_job", Number(above(0.0))),
    works("cost_per_1k_input_tokens", Number(at_least(0.0))),
    works("cost_per_1k_output_tokens", Number(at_least(0.0))),
    works("warn_at_percent", Number(within(0.0, 100.0))),
];
const STALE_DETECTION: &[Field] = &[
    works("enabled", Bool),
    works("idle_timeout_seconds", Number(above(0.0))),
    dormant("check_interval_seconds", Number(above(0.0))),
];
const CHECKPOINTS: &[Field] = &[
    refused("enabled", Bool, is_true),
    works(
        "triggers",
        List(&Section(&[
            works("name", Text),
            works("sheet_nums", List(&Int(1, MAX))),
            works("prompt_contains", List(&Text)),
            works("min_retry_count", Int(0, MAX)),
            works("requires_confirmation", Bool),
            works("message", Text),
        ])),
    ),
];
const CROSS_SHEET: &[Field] = &[
    works("auto_capture_stdout", Bool),
    works("max_output_chars", Int(1, COUNT)),
    works("capture_files", List(&Text)),
    works("lookback_sheets", Int(0, COUNT)),
];
const ISOLATION: &[Field] = &[
    refused("enabled", Bool, is_true),
    works("mode", Word(&["none", "worktree"])),
    works("worktree_base", Text),
    works("branch_prefix", Text),
    works("source_branch", Text),
    works("cleanup_on_success", Bool),
    works("cleanup_on_failure", Bool),
    works("lock_during_execution", Bool),
    works("fallback_on_error", Bool),
];
const WORKSPACE_LIFECYCLE: &[Field] = &[
    refused("archive_on_fresh", Bool, is_true),
    works("archive_dir", Text),
    works("archive_naming", Word(&["iteration", "timestamp"])),
    works("max_archives", Int(0, MAX)),
    works("preserve_patterns", List(&Text)),
];
const NOTIFICATION: &[Field] = &[
    works("type", Word(&["desktop", "slack", "webhook", "email"])),
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
    ),
    works("config", ByName(&Any)),
];
const HOOK: &[Field] = &[
    works("type", Word(&["run_job", "run_command", "run_script"])),
    works("job_path", Text),
    works("job_workspace", Text),
    works("inherit_learning", Bool),
    works("command", Text),
    works("working_directory", Text),
    works("description", Text),
    works("on_failure", Word(&["continue", "abort"])),
    works("timeout_seconds", Number(above(0.0))),
    works("detached", Bool),
    works("fresh", Bool),
];
const CONCERT: &[Field] = &[
    works("enabled", Bool),
    works("max_chain_depth", Int(1, 100)),
    works("cooldown_between_jobs_seconds", Number(at_least(0.0))),
    works("inherit_workspace", Bool),
    works("concert_log_path", Text),
    works("abort_concert_on_hook_failure", Bool),
];
const SHARE: Type = Number(within(0.0, 1.0));
const LEARNING: &[Field] = &[
    works("enabled", Bool),
    works("outcome_store_type", Word(&["json", "sqlite"])),
    works("outcome_store_path", Text),
    works("min_confidence_threshold", SHARE),
    works("high_confidence_threshold", SHARE),
    works("escalation_enabled", Bool),
    works("use_global_patterns", Bool),
    works("exploration_rate", SHARE),
    works("exploration_min_priority", SHARE),
    works("entropy_alert_threshold", SHARE),
    works("entropy_check_interval", Int(1, MAX)),
    works("auto_apply_enabled", Bool),
    works("auto_apply_trust_threshold", SHARE),
    works(
        "exploration_budget",
        Section(&[
            works("enabled", Bool),
            works("floor", SHARE),
            works("ceiling", SHARE),
            works("decay_rate", SHARE),
            works("boost_amount", SHARE),
            works("initial_budget", SHARE),
        ]),
    ),
    works(
        "entropy_response",
        Section(&[
            works("enabled", Bool),
            works("entropy_threshold", SHARE),
            works("cooldown_seconds", Number(at_least(0.0))),
            works("boost_budget", Bool),
            works("revisit_quarantine", Bool),
            works("max_quarantine_revisits", Int(0, MAX)),
        ]),
    ),
    works(
        "auto_apply",
        Section(&[
            works("enabled", Bool),
            works("trust_threshold", SHARE),
            works("max_patterns_per_sheet", Int(1, 10)),
            works("require_validated_status", Bool),
            works("log_applications", Bool),
        ]),
    ),
];
const GROUNDING: &[Field] = &[
    refused("enabled", Bool, is_true),
    works(
        "hooks",
        List(&Section(&[
            works("type", Word(&["file_checksum"])),
            works("name", Text),
            works("expected_checksums", ByName(&Text)),
            works("checksum_algorithm", Word(&["md5", "sha256"])),
        ])),
    ),
    works("fail_on_grounding_failure", Bool),
    works("escalate_on_failure", Bool),
    works("timeout_seconds", Number(above(0.0))),
];
const AI_REVIEW: &[Field] = &[
    refused("enabled", Bool, is_true),
    works("min_score", Int(0, 100)),
    works("target_score", Int(0, 100)),
    works("on_low_score", Word(&["retry", "warn", "fail"])),
    works("max_retry_for_review", Int(0, 5)),
    works("review_prompt_template", Text),
];
const CONDUCTOR: &[Field] = &[
    works("name", Text),
    works("role", Word(&["human", "ai", "hybrid"])),
    works("identity_context", Text),
    works(
        "preferences",
        Section(&[
            works("prefer_minimal_output", Bool),
            works("escalation_response_timeout_seconds", Number(ANY)),
            works("auto_retry_on_transient_errors", Bool),
            works("notification_channels", List(&Text)),
        ]),
    ),
];
const LOGGING: &[Field] = &[
    works("level", Text),
    works("format", Word(&["json", "console", "both"])),
    works("file_path", Text),
    works("max_file_size_mb", Int(1, MAX)),
    works("backup_count", Int(0, MAX)),
    works("include_timestamps", Bool),
    works("include_context", Bool),
];
const FEEDBACK: &[Field] = &[
    works("enabled", Bool),
    works("pattern", Text),
    works("format", Word(&["json", "yaml", "text"])),
];
