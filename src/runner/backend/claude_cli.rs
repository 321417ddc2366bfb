//! The `claude_cli` backend: `claude -p` with stream-json on its standard output.
//!
//! What the CLI prints is learnt from its real output (versions 1.0 to 2.1.329), not from a specification: fields come
//! and go with releases, so every one is optional here, and a field of an unexpected type counts as absent.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Tariff;
use crate::job::plan::ClaudeCli;
use crate::job::prices::Tokens;
use crate::model::{Cost, Limit, LimitKind, SessionReport, Span, Timestamp};
use crate::runner::limits;

/// `model` of a message that the CLI wrote itself, such as an API error.
pub(super) const SYNTHETIC: &str = "<synthetic>";

/// Of so many messages the tokens are noted; of a session with more nobody knows what it has cost, unless it says so.
const MESSAGES: usize = 20_000;

/// Mozart owns waiting: the CLI tries again only as often as costs a second or two.
const MAX_RETRIES: &str = "2";

/// Arguments after the program, and the variables that the CLI needs.
pub(super) fn arguments(
    cli: &ClaudeCli,
    model: Option<&str>,
    session_id: &str,
    resume: bool,
    budget: Option<Cost>,
) -> (Vec<String>, BTreeMap<String, String>) {
    let mut args: Vec<String> = Vec::new();
    let mut add = |values: &[&str]| args.extend(values.iter().map(|value| (*value).to_owned()));
    // Takes every argument up to the next flag, so it stands where a flag always follows.
    if !cli.allowed_tools.is_empty() {
        add(&["--allowedTools"]);
        cli.allowed_tools.iter().for_each(|tool| add(&[tool]));
    }
    add(&["-p", "--output-format", "stream-json", "--verbose"]);
    add(&[if resume { "--resume" } else { "--session-id" }, session_id]);
    if cli.skip_permissions {
        add(&["--dangerously-skip-permissions"]);
    }
    if cli.disable_mcp {
        add(&["--strict-mcp-config"]);
    }
    if let Some(model) = model {
        add(&["--model", model]);
    }
    if let Some(text) = cli.system_prompt.as_deref().filter(|text| !text.is_empty()) {
        add(&["--append-system-prompt", text]);
    }
    // It counts what this process costs, and looks at it after each turn.
    if let Some(budget) = budget {
        add(&["--max-budget-usd", &format!("{:.2}", budget.as_usd().max(0.01))]);
    }
    cli.extra_args.iter().for_each(|arg| add(&[arg]));

    let env = [
        ("CLAUDE_CODE_MAX_RETRIES", MAX_RETRIES),
        // Without it the CLI makes five DNS look-ups besides its requests.
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
    ];
    (
        args,
        env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    )
}

/// Cost of one attempt, from what its process said it cost in all.
///
/// `None`: not known. From 2.1.295 on the CLI counts over the whole session, so a resumed one's earlier total is taken
/// off; up to 2.1.270 it counts for each process, and what stood between was not measured (it is taken for the older
/// way). A total below the earlier one was counted anew.
pub fn attempt_cost(
    total: Option<Cost>,
    earlier_total: Option<Cost>,
    resumed: bool,
    program_version: Option<&str>,
) -> Option<Cost> {
    let total = total?;
    if !resumed || !counts_whole_session(program_version?)? {
        return Some(total);
    }
    let earlier = earlier_total?;
    Some(if total >= earlier {
        Cost(total.0 - earlier.0)
    } else {
        total
    })
}

/// `None` where the version cannot be read.
fn counts_whole_session(version: &str) -> Option<bool> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(version >= (2, 1, 295))
}

/// A session's report while it grows.
#[derive(Debug, Default)]
pub(super) struct Session {
    report: SessionReport,
    rejected: Option<Told>,
    throttle_hint: Option<Span>,
    last_message: Option<String>,
    messages: u32,
    usage: Option<Tokens>,
    model_usage: Option<Tokens>,
    /// Of each message so far: its model, and its tokens as far as they were told.
    told: BTreeMap<String, (String, Tokens)>,
}

/// What the CLI tells of a limit.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) window: Option<String>,
    pub(super) resets_at: Option<Timestamp>,
}

impl Told {
    pub(super) fn of(info: &Value) -> Self {
        Self {
            window: text(info, "rateLimitType").map(str::to_owned),
            resets_at: info["resetsAt"]
                .as_f64()
                .and_then(|seconds| limits::from_epoch(seconds as i64)),
        }
    }
}

impl Session {
    /// Takes one event of the stream; unknown ones are ignored.
    pub(super) fn event(&mut self, event: &Value) {
        match text(event, "type").unwrap_or_default() {
            "system" => self.system(event),
            "assistant" => self.assistant(event),
            "rate_limit_event" => self.limit(&event["rate_limit_info"]),
            "result" => self.result(event),
            _ => {}
        }
    }

    fn system(&mut self, event: &Value) {
        match text(event, "subtype").unwrap_or_default() {
            "init" => {
                set(&mut self.report.session_id, text(event, "session_id"));
                set(&mut self.report.model, text(event, "model"));
                set(&mut self.report.program_version, text(event, "claude_code_version"));
            }
            "permission_denied" => self.denied(text(event, "tool_name")),
            "api_retry" => {
                let attempt = number(event, "attempt").unwrap_or(0).min(16) as u32;
                let delay = number(event, "retry_delay_ms").unwrap_or(0);
                // Its own backoff is 0.5 s doubled each time, at most 32 s, plus a quarter; more was asked of it.
                let own = (500_u64 << attempt.saturating_sub(1)).min(32_000) * 5 / 4;
                let asked = number(event, "error_status") == Some(429) && delay > own;
                self.throttle_hint = asked.then(|| Span::from_secs_f64(delay as f64 / 1000.0));
            }
            _ => {}
        }
    }

    fn assistant(&mut self, event: &Value) {
        let message = &event["message"];
        let report = &mut self.report;
        if text(message, "model") == Some(SYNTHETIC) {
            set(&mut report.error_class, text(event, "error"));
            set(&mut report.api_error, text(event, "api_error"));
            set_status(&mut report.api_status, event);
            let limit = &event["api_error_params"]["rate_limit_info"];
            if limit.is_object() {
                self.limit(limit);
            }
            return;
        }
        report.worked = true;
        set(&mut report.model, text(message, "model"));
        // It went on, so whatever error was told before did not end it.
        (report.error_class, report.api_error, report.api_status) = (None, None, None);
        self.use_of(message);
        let report = &mut self.report;
        let blocks = message["content"].as_array().map_or(&[][..], Vec::as_slice);
        let calls = blocks
            .iter()
            .filter(|block| text(block, "type") == Some("tool_use"))
            .count();
        report.tool_calls = report
            .tool_calls
            .saturating_add(u32::try_from(calls).unwrap_or(u32::MAX));
        // One line for each block of a message; those of subagents are not turns of the session.
        let id = text(message, "id");
        if id.is_some() && id != self.last_message.as_deref() && event["parent_tool_use_id"].is_null() {
            self.last_message = id.map(str::to_owned);
            self.messages = self.messages.saturating_add(1);
        }
    }

    /// Notes what a message says of its tokens. What it says of its output is of its beginning, so the output itself
    /// counts too, with three bytes a token, which is more than it usually is.
    fn use_of(&mut self, message: &Value) {
        let (Some(id), Some(model)) = (text(message, "id"), text(message, "model")) else {
            return;
        };
        if self.told.len() >= MESSAGES {
            return;
        }
        let (_, told) = self
            .told
            .entry(id.to_owned())
            .or_insert_with(|| (model.to_owned(), Tokens::default()));
        let Some(usage) = tokens(&message["usage"], USAGE) else {
            return;
        };
        let written = message["content"].as_array().map_or(0, |blocks| {
            let blocks = blocks.iter().map(|block| block.to_string().len() / 3);
            blocks.sum::<usize>() as u64
        });
        *told = Tokens {
            // A line for each block of a message.
            output: told.output.max(usage.output).max(told.output.saturating_add(written)),
            ..usage
        };
    }

    /// What the session has cost by the price of its tokens, and the tokens; `None` where nobody knows.
    fn estimate(&self, tariff: &Tariff<'_>) -> Option<(Cost, Tokens)> {
        if self.told.len() >= MESSAGES {
            return None;
        }
        let of_result = self.usage.zip(self.report.model.as_ref());
        let parts: Vec<_> = match &of_result {
            Some((usage, model)) => vec![(model.as_str(), *usage)],
            None => self
                .told
                .values()
                .map(|(model, usage)| (model.as_str(), *usage))
                .collect(),
        };
        let mut all = (Cost(0), Tokens::default());
        for (model, usage) in &parts {
            all.0.0 = all.0.0.saturating_add(tariff.cost(model, *usage)?.0);
            all.1 = all.1.plus(*usage);
        }
        (all.1 != Tokens::default()).then_some(all)
    }

    fn limit(&mut self, info: &Value) {
        self.rejected = (text(info, "status") == Some("rejected")).then(|| Told::of(info));
    }

    fn result(&mut self, event: &Value) {
        let report = &mut self.report;
        report.has_result = true;
        set(&mut report.session_id, text(event, "session_id"));
        report.subtype = text(event, "subtype").map(str::to_owned);
        report.terminal_reason = text(event, "terminal_reason").map(str::to_owned);
        report.stop_reason = text(event, "stop_reason").map(str::to_owned);
        report.result_text = text(event, "result").unwrap_or_default().to_owned();
        report.errors = event["errors"]
            .as_array()
            .map(|errors| errors.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        // Up to 2.1.76 a session that ran out of turns called itself no error.
        report.is_error = event["is_error"].as_bool().unwrap_or(false)
            || report
                .subtype
                .as_deref()
                .is_some_and(|subtype| subtype.starts_with("error"));
        set(&mut report.api_error, text(event, "api_error"));
        set_status(&mut report.api_status, event);
        report.turns = number(event, "num_turns").and_then(|turns| u32::try_from(turns).ok());
        report.total_cost = event["total_cost_usd"]
            .as_f64()
            .filter(|usd| *usd >= 0.0)
            .map(Cost::from_usd);
        self.usage = tokens(&event["usage"], USAGE);
        self.model_usage = event["modelUsage"].as_object().and_then(|models| {
            let names = [
                "inputTokens",
                "cacheCreationInputTokens",
                "cacheReadInputTokens",
                "outputTokens",
            ];
            models
                .values()
                .filter_map(|model| tokens(model, names))
                .reduce(Tokens::plus)
        });
        let denials = event["permission_denials"].as_array();
        for denial in denials.map_or(&[][..], Vec::as_slice) {
            self.denied(text(denial, "tool_name"));
        }
    }

    fn denied(&mut self, tool: Option<&str>) {
        let tool = tool.unwrap_or("unknown");
        if !self.report.denied_tools.iter().any(|denied| denied == tool) {
            self.report.denied_tools.push(tool.to_owned());
        }
    }

    /// The report of the whole session.
    pub(super) fn report(
        self,
        resumed: bool,
        earlier_cost: Option<Cost>,
        tariff: &Tariff<'_>,
        stderr: &[u8],
    ) -> SessionReport {
        let estimate = self.estimate(tariff);
        let mut report = self.report;
        if !report.has_result || report.is_error {
            let named = report.api_error.as_deref() == Some("usage_limit_reached");
            report.limit = match self.rejected {
                // A rejection without a time is plain throttling, unless the CLI calls it a usage limit.
                Some(Told { window, resets_at }) if resets_at.is_some() || named => Some(Limit {
                    kind: LimitKind::Usage,
                    window,
                    resets_at,
                    from_text: false,
                    retry_after: None,
                }),
                Some(_) => Some(throttle(self.throttle_hint)),
                None => self.throttle_hint.map(|hint| throttle(Some(hint))),
            };
        }
        report.turns = report.turns.or((self.messages > 0).then_some(self.messages));
        report.session_id = report
            .session_id
            .or_else(|| session_in_use(&String::from_utf8_lossy(stderr)));
        report.cost = attempt_cost(
            report.total_cost,
            earlier_cost,
            resumed,
            report.program_version.as_deref(),
        );
        // `modelUsage` has every model, but of the whole session where the CLI counts so; `usage` is this process's.
        let whole_session = resumed
            && report
                .program_version
                .as_deref()
                .and_then(counts_whole_session)
                .unwrap_or(true);
        let tokens = if whole_session {
            self.usage
        } else {
            self.model_usage.or(self.usage)
        };
        report.tokens_in = tokens.map(Tokens::all_input);
        report.tokens_out = tokens.map(|tokens| tokens.output);
        // It did not come to its end, or does not know its price.
        if let (None, Some((cost, tokens))) = (report.total_cost, estimate) {
            (report.cost, report.cost_estimated) = (Some(cost), true);
            let earlier = if resumed { earlier_cost } else { Some(Cost(0)) };
            report.total_cost = earlier.map(|earlier| Cost(earlier.0.saturating_add(cost.0)));
            report.tokens_in.get_or_insert(tokens.all_input());
            report.tokens_out.get_or_insert(tokens.output);
        }
        report
    }
}

pub(super) fn throttle(retry_after: Option<Span>) -> Limit {
    Limit {
        kind: LimitKind::Throttle,
        window: None,
        resets_at: None,
        from_text: false,
        retry_after,
    }
}

/// The id in `Error: Session ID … is already in use.`: an earlier start of the same attempt made that session.
pub(in crate::runner) fn session_in_use(stderr: &str) -> Option<String> {
    let (head, _) = stderr.split_once(" is already in use")?;
    let (_, id) = head.rsplit_once("Session ID ")?;
    let plain = !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    plain.then(|| id.to_owned())
}

/// What tokens of a message or a process are called: input, written to the cache, found there, output.
const USAGE: [&str; 4] = [
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
];

fn tokens(usage: &Value, names: [&str; 4]) -> Option<Tokens> {
    let [input, cache_write, cache_read, output] = names.map(|name| number(usage, name));
    // Without any input it says nothing.
    input.or(cache_write).or(cache_read)?;
    Some(Tokens {
        input: input.unwrap_or(0),
        cache_write: cache_write.unwrap_or(0),
        cache_read: cache_read.unwrap_or(0),
        output: output.unwrap_or(0),
    })
}

/// A text field, where it is one.
pub(super) fn text<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    event.get(name)?.as_str()
}

/// A number that is not negative; fractions are cut off.
pub(super) fn number(event: &Value, name: &str) -> Option<u64> {
    let value = event.get(name)?;
    value.as_u64().or_else(|| {
        value
            .as_f64()
            .filter(|number| *number >= 0.0)
            .map(|number| number as u64)
    })
}

fn set(field: &mut Option<String>, value: Option<&str>) {
    if let Some(value) = value {
        *field = Some(value.to_owned());
    }
}

fn set_status(field: &mut Option<u16>, event: &Value) {
    if let Some(status) = number(event, "api_error_status").and_then(|status| u16::try_from(status).ok()) {
        *field = Some(status);
    }
}
