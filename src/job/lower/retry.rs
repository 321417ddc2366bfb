//! Budgets, delays and limits.

use std::collections::BTreeSet;

use super::Lowering;
use crate::job::pattern::Pattern;
use crate::job::plan::{
    Backend, BackendKind, CircuitBreaker, CostLimits, RateLimitPolicy, RetryPolicy, Sheet, TokenPrice,
};
use crate::job::prices;
use crate::job::schema;
use crate::model::{Cost, Span};

/// What a session's error output says when it met a limit, where nothing else tells.
const DETECTION_PATTERNS: &[&str] = &[
    "rate.?limit",
    "usage.?limit",
    "quota",
    "too many requests",
    "429",
    "capacity",
    "try again later",
];

/// The Claude CLI waits so long by itself for an API that does not answer, and prints nothing meanwhile.
pub(super) const OWN_SILENCE: f64 = 366.0;

/// To its first line it takes about a second, and far longer where many begin at once or a server of its tools is slow.
const SLOW_START: f64 = 60.0;

impl Lowering<'_> {
    pub(super) fn retry(&mut self) -> RetryPolicy {
        let base_delay = self.number("retry.base_delay_seconds", 10.0);
        let max_delay = self.number("retry.max_delay_seconds", 3600.0);
        if max_delay < base_delay {
            let field = if self.node("retry.max_delay_seconds").is_some() {
                "retry.max_delay_seconds"
            } else {
                "retry.base_delay_seconds"
            };
            let message =
                format!("`max_delay_seconds` ({max_delay}) must not be less than `base_delay_seconds` ({base_delay})");
            self.problems.error("E301", self.at(field), field, message);
        }
        RetryPolicy {
            max_retries: self.count("retry.max_retries", 3),
            base_delay: Span::from_secs_f64(base_delay),
            max_delay: Span::from_secs_f64(max_delay),
            exponential_base: self.number("retry.exponential_base", 2.0),
            jitter: self.boolean("retry.jitter", true),
            max_completion_attempts: self.count("retry.max_completion_attempts", 3),
            completion_delay: Span::from_secs_f64(self.number("retry.completion_delay_seconds", 5.0)),
            completion_threshold_percent: self.number("retry.completion_threshold_percent", 50.0),
            transient_retries: self.count("retry.transient_retries", 10),
        }
    }

    pub(super) fn cost_limits(&mut self, sheets: &[Sheet], backend: &Backend) -> Option<CostLimits> {
        if !self.boolean("cost_limits.enabled", false) {
            return None;
        }
        let cost = |field: &str| self.node(field).and_then(schema::number).map(Cost::from_usd);
        let limits = CostLimits {
            per_sheet: cost("cost_limits.max_cost_per_sheet"),
            per_job: cost("cost_limits.max_cost_per_job"),
            warn_at_percent: self.number("cost_limits.warn_at_percent", 80.0) as u8,
            price: self.token_price(),
        };
        let at = self.at("cost_limits.enabled");
        if limits.per_sheet.is_none() && limits.per_job.is_none() {
            let message = "`cost_limits` is enabled and names no limit";
            self.problems
                .error("E302", at, "cost_limits", message.to_owned())
                .suggest("add `max_cost_per_job` or `max_cost_per_sheet`, in dollars");
        }
        if self.text("backend.type") == Some("command") {
            let message = "a `command` says nothing of what it costs, so this budget cannot hold";
            self.problems.warning("V195", at, "cost_limits", message.to_owned());
        }
        let models: BTreeSet<_> = sheets.iter().filter_map(|sheet| backend.model(Some(sheet))).collect();
        let prices = prices::Prices::packaged();
        // A word such as `opus` is not yet the model.
        let is_priced = |model: &str| !model.contains(char::is_numeric) || prices.knows(model);
        for model in models
            .into_iter()
            .filter(|model| limits.price.is_none() && !is_priced(model))
        {
            let message = format!(
                "no price of {model} is known here: of a session that is cut off and does not say what it has cost, all \
                 that was reserved for it counts as spent"
            );
            self.problems.info("V196", at, "cost_limits", message);
        }
        Some(limits)
    }

    /// What the job file says that tokens cost; where it names one of the two prices only, the other is a usual one.
    fn token_price(&self) -> Option<TokenPrice> {
        let cost = |field: &str| self.node(field).and_then(schema::number).map(Cost::from_usd);
        let (input, output) = (
            cost("cost_limits.cost_per_1k_input_tokens"),
            cost("cost_limits.cost_per_1k_output_tokens"),
        );
        (input.is_some() || output.is_some()).then(|| TokenPrice {
            input: input.unwrap_or(Cost::from_usd(0.003)),
            output: output.unwrap_or(Cost::from_usd(0.015)),
        })
    }

    pub(super) fn circuit_breaker(&mut self) -> Option<CircuitBreaker> {
        for name in ["cross_workspace_coordination", "honor_other_jobs_rate_limits"] {
            let field = format!("circuit_breaker.{name}");
            if !self.boolean(&field, true) {
                let message = format!(
                    "`{field}: false` has no effect: limits and faults are those of an account, and all of its jobs wait for them"
                );
                self.problems.warning("V190", self.at(&field), &field, message);
            }
        }
        let enabled = self.boolean("circuit_breaker.enabled", true);
        enabled.then(|| CircuitBreaker {
            failure_threshold: self.count("circuit_breaker.failure_threshold", 5),
            recovery: Span::from_secs_f64(self.number("circuit_breaker.recovery_timeout_seconds", 300.0)),
        })
    }

    pub(super) fn rate_limit(&mut self) -> RateLimitPolicy {
        const FIELD: &str = "rate_limit.detection_patterns";
        let detection_patterns = match self.node(FIELD) {
            Some(_) => self.texts(FIELD),
            // A `command` says nothing of limits, and "quota" in its errors is most often a disk's: only patterns
            // that were written for it are asked.
            None if self.text("backend.type") == Some("command") => Vec::new(),
            None => DETECTION_PATTERNS.iter().map(|pattern| (*pattern).to_owned()).collect(),
        };
        for (index, pattern) in detection_patterns.iter().enumerate() {
            if let Err(error) = Pattern::new(pattern, true) {
                let item = self.node(FIELD).and_then(|node| node.list()?.get(index));
                let message = format!("{pattern:?} is no regular expression: {error}");
                self.problems
                    .error("V007", item.map(|item| item.at), &format!("{FIELD}[{index}]"), message);
            }
        }
        RateLimitPolicy {
            detection_patterns,
            wait: Span::from_secs_f64(self.number("rate_limit.wait_minutes", 60.0) * 60.0),
            max_waits: self.count("rate_limit.max_waits", 24),
            max_quota_waits: self.count("rate_limit.max_quota_waits", 48),
        }
    }
    /// How long a session may be silent. Silence is normal for a `command`, so there it counts only where the job file
    /// says so.
    pub(super) fn idle_timeout(&mut self, backend: &Backend) -> Option<Span> {
        const FIELD: &str = "stale_detection.idle_timeout_seconds";
        let is_claude = matches!(backend.kind, BackendKind::ClaudeCli(_));
        let meant = is_claude || self.node("stale_detection").is_some();
        if !meant || !self.boolean("stale_detection.enabled", true) {
            return None;
        }
        let seconds = self.number(FIELD, 900.0);
        if is_claude && seconds <= OWN_SILENCE {
            let message = format!(
                "the CLI itself waits up to {OWN_SILENCE} s for an answer without printing anything, and is ended sooner here"
            );
            self.problems
                .warning("V103", self.at(FIELD), FIELD, message)
                .suggest("900 is the default");
        }
        Some(Span::from_secs_f64(seconds))
    }

    /// How long a session may take to its first output, where the job file says so.
    pub(super) fn first_event_timeout(&mut self, backend: &Backend) -> Option<Span> {
        const FIELD: &str = "stale_detection.first_event_timeout_seconds";
        self.node(FIELD)?;
        let seconds = self.number(FIELD, 900.0);
        if matches!(backend.kind, BackendKind::ClaudeCli(_)) && seconds < SLOW_START {
            let message = format!(
                "where many start at once, or one of its servers is slow, the CLI may take {SLOW_START} s to its first line"
            );
            self.problems
                .warning("V103", self.at(FIELD), FIELD, message)
                .suggest("without it the first output has as long as any other");
        }
        Some(Span::from_secs_f64(seconds))
    }
}
